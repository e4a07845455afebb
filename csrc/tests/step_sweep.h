/* Which instructions of an operation are looked at, and the command line of the tests that step through them.
 *
 *   [--all | --seconds S] [--op NAME] [--mode kill|stop] [--from N --to M]
 *
 * Points are the instructions that touch what others see (system calls, locked instructions) and others at
 * random; --all takes every one, of the operations of more than some 10,000 instructions a stride.
 */
#ifndef CFN_TESTS_STEP_SWEEP_H
#define CFN_TESTS_STEP_SWEEP_H

#include <sys/user.h>

#include "base/os.h"
#include "tests/stepper.h"

typedef struct step_stage {
  const char *program;
  int operations;
  const char *(*name)(int o);
  void (*set)(int o);                        /* the bus, the others, and the victim before its first instruction */
  bool (*point)(int o, int mode, long n);    /* kill (0) or stop (1) at instruction n; true: it was over before */
  void (*clear)(int o);                      /* after `set` alone */
  victim_t *victim;
} step_stage_t;

/* The usual point: the victim is killed or stopped at instruction n, others go on, it is reaped or goes on itself, and then
 * everything must be true, and be there. */
typedef struct step_course {
  cfn_bus_t **bus; /* of the others */
  void (*others_go_on)(int o, bool hard);
  void (*check)(int o, bool hard);
  void (*strike)(void); /* nothing is lost for good */
} step_course_t;

static inline bool step_point(const step_stage_t *stage, const step_course_t *course, int o, int mode, long n) {
  t_case("--op %s --mode %s --from %ld --to %ld", stage->name(o), mode ? "stop" : "kill", n, n);
  stage->set(o);
  bool over = !victim_step(stage->victim, n);
  if (mode == 0) victim_kill(stage->victim);
  course->others_go_on(o, mode);
  if (mode) {
    CHECK(cfn_bus_reap(*course->bus) >= 0);
    victim_finish(stage->victim);
    victim_leave(stage->victim);
  }
  CHECK(cfn_bus_reap(*course->bus) >= 0);
  course->check(o, mode);
  CHECK_INT(cfn_bus_reap(*course->bus), 0);
  course->strike();
  stage->clear(o);
  return over;
}

/* How long an operation is, what it costs, and where it touches what others see: its system calls and locked
 * instructions, and those behind them. */
typedef struct step_way {
  long instructions;
  double seconds;
  long *mark;
  long marks;
} step_way_t;

#if defined(__x86_64__)
static bool step_touches(pid_t pid) {
  struct user_regs_struct regs;
  CHECK_INT(ptrace(PTRACE_GETREGS, pid, 0, &regs), 0);
  errno = 0;
  long code = ptrace(PTRACE_PEEKTEXT, pid, regs.rip, 0);
  CHECK_INT(errno, 0);
  uint8_t a = (uint8_t)code, b = (uint8_t)(code >> 8);
  if (a >= 0x40 && a <= 0x4f) a = b, b = (uint8_t)(code >> 16); /* REX */
  return a == 0xf0 || (a == 0x0f && b == 0x05) || ((a == 0x86 || a == 0x87) && b < 0xc0);
}
#else
static bool step_touches(pid_t pid) { return pid < 0; }
#endif

static void step_walk(const step_stage_t *stage, int o, step_way_t *way) {
  t_case("%s: counting", stage->name(o));
  double start = t_now();
  stage->set(o);
  long room = 0;
  bool after = false, more = true;
  while (more) {
    bool now = step_touches(stage->victim->pid);
    if ((now || after) && way->marks == room) {
      room = room ? 2 * room : 1024;
      way->mark = realloc(way->mark, (size_t)room * sizeof *way->mark);
      CHECK(way->mark);
    }
    if (now || after) way->mark[way->marks++] = stage->victim->steps;
    after = now;
    more = victim_step(stage->victim, 1);
  }
  way->instructions = stage->victim->steps;
  way->seconds = (t_now() - start) / 3; /* without the looking */
  victim_leave(stage->victim);
  stage->clear(o);
}

static long step_below(long n) { return (long)(cfn_os_random() % (uint64_t)(n > 0 ? n : 1)); }

static void step_sweep(const step_stage_t *stage, int o, step_way_t *way, int mode, long from, long to, double seconds) {
  double start = t_now();
  long points = 0;
  if (to > 0) {
    for (long n = from; n <= to; n++, points++)
      if (stage->point(o, mode, n)) break;
  } else {
    if (!way->instructions) step_walk(stage, o, way);
    start = t_now();
    if (seconds == 0) { /* every mark; every instruction, or of the long ones as many as fit in ten minutes */
      for (long i = 0; i < way->marks; i++, points++) stage->point(o, mode, way->mark[i]);
      long fit = (long)(600 / (way->seconds / 2 + 0.003)) + 1, stride = way->instructions / fit + 1;
      for (long n = step_below(stride); n <= way->instructions; n += stride, points++) stage->point(o, mode, n);
    } else { /* half of it at marks, half anywhere: many runs see every instruction */
      do {
        stage->point(o, mode, points % 2 && way->marks ? way->mark[step_below(way->marks)] : step_below(way->instructions + 1));
        points++;
      } while (t_now() - start < seconds);
    }
  }
  printf("  %-10s %-5s %5ld points of %6ld instructions with %4ld marks, %.1f s\n", stage->name(o), mode ? "stop" : "kill",
         points, way->instructions ? way->instructions : to, way->marks, t_now() - start);
  fflush(stdout);
}

static int step_main(int argc, char **argv, const step_stage_t *stage) {
  step_options_t o = step_options(argc, argv, 30, "kill|stop");
  for (int i = 0; i < stage->operations; i++) {
    step_way_t way = {0};
    for (int m = 0; m < 2; m++)
      if ((!o.op || !strcmp(o.op, stage->name(i))) && (!o.mode || !strcmp(o.mode, m ? "stop" : "kill")))
        step_sweep(stage, i, &way, m, o.from, o.to, o.seconds / (stage->operations * 2));
    free(way.mark);
  }
  t_passed(stage->program);
  return 0;
}

#endif
