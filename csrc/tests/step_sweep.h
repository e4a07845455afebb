/* Which instructions of an operation are looked at, and the command line of the tests that step through them.
 *
 *   [--all | --seconds S] [--op NAME] [--mode kill|stop] [--from N --to M]
 *
 * Points are the instructions that touch what others see (system calls, locked instructions) and others at
 * random; --all takes every one. Of operations of more than 20,000 instructions (they set memory to zero, and look
 * through /proc) it takes those that touch, every address at its first and its last time, and a stride of all.
 */
#ifndef CFN_TESTS_STEP_SWEEP_H
#define CFN_TESTS_STEP_SWEEP_H

#include "base/os.h"
#include "tests/step_way.h"

__attribute__((unused)) static const char *const step_kill_stop[] = {"kill", "stop", NULL};
typedef struct step_stage {
  const char *program;
  const char *const *modes;                  /* what happens at a point; ended by NULL */
  int operations;
  const char *(*name)(int o);
  void (*set)(int o);                        /* the bus, the others, and the victim before its first instruction */
  bool (*point)(int o, int mode, long n);    /* the mode at instruction n; true: it was over before */
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
  bool over = !victim_go_to(stage->victim, n);
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

static long step_below(long n) { return (long)(cfn_os_random() % (uint64_t)(n > 0 ? n : 1)); }

/* Once through the whole operation, and back to its middle. */
static void step_walk(const step_stage_t *stage, int o, step_way_t *way) {
  t_case("%s: counting", stage->name(o));
  stage->set(o);
  step_way_find(way, stage->victim, NULL);
  victim_leave(stage->victim);
  stage->clear(o);
  t_case("%s: running to its middle", stage->name(o));
  stage->set(o);
  step_way_try(way, stage->victim);
  stage->victim->way = way;
  victim_leave(stage->victim);
  stage->clear(o);
}

#define STEP_LONG 20000 /* instructions of an operation of which --all does not take all */
static void step_sweep(const step_stage_t *stage, int o, const step_way_t *way, int mode, const step_options_t *options,
                       double seconds) {
  double start = t_now();
  long points = 0, missed = 0, length = way->instructions;
  stage->victim->elsewhere = 0;
#define STRIKE(n) (points++, missed += stage->point(o, mode, n))
  if (options->to > 0) {
    for (long n = options->from; n <= options->to && !missed; n++) STRIKE(n);
  } else if (options->seconds == 0) {
    long stride = length > STEP_LONG ? length / 2000 + 1 : 1;
    for (long i = 0; i < way->marks && stride > 1; i++) STRIKE(way->mark[i]);
    for (long i = 0; i < way->turns && stride > 1; i++) STRIKE(way->turn[i]);
    for (long n = step_below(stride); n <= length; n += stride) STRIKE(n);
  } else { /* half of it at marks, half anywhere: many runs see every instruction */
    do STRIKE(points % 2 && way->marks ? way->mark[step_below(way->marks)] : step_below(length + 1));
    while (t_now() - start < seconds);
  }
#undef STRIKE
  printf("  %-15s %-5s %5ld points of %6ld instructions at %5ld addresses with %4ld marks, %.1f s; %ld elsewhere, %ld after its end\n",
         stage->name(o), stage->modes[mode], points, length, way->turns, way->marks, t_now() - start,
         stage->victim->elsewhere, missed);
  fflush(stdout);
  CHECK(points < 40 || missed + stage->victim->elsewhere <= points / 4); /* or the way is none */
}

static int step_main(int argc, char **argv, const step_stage_t *stage) {
  char usage[64] = "";
  int modes = 0;
  for (; stage->modes[modes]; modes++) snprintf(usage + strlen(usage), sizeof usage - strlen(usage), "|%s", stage->modes[modes]);
  step_options_t options = step_options(argc, argv, 30, usage + 1);
  for (int o = 0; o < stage->operations; o++) {
    if (options.op && strcmp(options.op, stage->name(o)) != 0) continue;
    step_way_t way = {0};
    if (options.to == 0) step_walk(stage, o, &way);
    for (int m = 0; m < modes; m++)
      if (!options.mode || !strcmp(options.mode, stage->modes[m]))
        step_sweep(stage, o, &way, m, &options, options.seconds / (stage->operations * modes));
    stage->victim->way = NULL;
    step_way_free(&way);
  }
  t_passed(stage->program);
  return 0;
}

#endif
