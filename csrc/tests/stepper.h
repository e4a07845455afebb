/* One process moved on instruction by instruction: what test_step*.c share. */
#ifndef CFN_TESTS_STEPPER_H
#define CFN_TESTS_STEPPER_H

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sync/event.h"
#include "tests/harness.h"

#define IDS 256 /* message numbers in use */

/* What a victim says of itself as it goes: in memory shared with the parent, outside of the bus. */
typedef struct victim_report {
  volatile int done;          /* the operation returned ... */
  volatile int64_t result;    /* ... this */
  volatile int attachment;
  volatile int getting;       /* inside a receive */
  volatile int acking;        /* inside the ack of this id */
  volatile int seen[IDS];     /* a receive returned it, so many times */
  volatile int acked[IDS];    /* its ack returned CFN_OK */
  volatile int fenced[IDS];   /* its ack returned AGENT_FENCED */
} victim_report_t;

typedef struct victim {
  pid_t pid;
  victim_report_t *report;
  long steps;
  bool tracing;
  const struct step_way *way; /* step_way.h */
  long elsewhere;             /* so often the way led to another instruction: what is random took another turn */
} victim_t;

static inline victim_report_t *report_new(void) {
  void *page = mmap(NULL, sizeof(victim_report_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                    -1, 0);
  CHECK(page != MAP_FAILED);
  return page;
}

/* The handle that a victim's operation opened itself. */
__attribute__((unused)) static cfn_bus_t *victim_opened;

/* The child prepares itself (its own attachment, or NULL!), stops, runs, stops, leaves. */
static inline void victim_start(victim_t *v, cfn_bus_t *(*prepare)(victim_report_t *),
                                int64_t (*run)(cfn_bus_t *, victim_report_t *)) {
  memset(v->report, 0, sizeof *v->report);
  v->steps = 0;
  v->pid = t_fork();
  if (v->pid == 0) {
    cfn_bus_t *bus = prepare(v->report);
    if (bus) v->report->attachment = (int)cfn_bus_attachment(bus);
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) _exit(77);
    raise(SIGSTOP);
    v->report->result = run(bus, v->report);
    v->report->done = 1;
    raise(SIGSTOP);
    if (bus) t_close(bus);
    if (victim_opened) t_close(victim_opened);
    _exit(0);
  }
  int status;
  CHECK_INT(waitpid(v->pid, &status, 0), v->pid);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    printf("skip test_step: ptrace is not permitted\n");
    t_destroy();
    exit(77);
  }
  CHECK(WIFSTOPPED(status));
  v->tracing = true;
}

/* Up to n instructions further; false when the operation has returned. */
static inline bool victim_step(victim_t *v, long n) {
  for (long i = 0; i < n; i++) {
    if (v->report->done) return false;
    CHECK_INT(ptrace(PTRACE_SINGLESTEP, v->pid, 0, 0), 0);
    int status;
    CHECK_INT(waitpid(v->pid, &status, 0), v->pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    v->steps++;
  }
  return !v->report->done;
}
static inline void victim_kill(victim_t *v) {
  t_kill(v->pid, false);
  v->tracing = false;
}
/* Runs on to the end of the operation. */
static inline void victim_finish(victim_t *v) {
  int status;
  while (!v->report->done) {
    CHECK_INT(ptrace(PTRACE_CONT, v->pid, 0, 0), 0);
    CHECK_INT(waitpid(v->pid, &status, 0), v->pid);
    CHECK(WIFSTOPPED(status));
    CHECK_INT(WSTOPSIG(status), SIGSTOP);
  }
}
/* ... and leaves the bus in an orderly way. */
static inline void victim_leave(victim_t *v) {
  victim_finish(v);
  int status = 0;
  do {
    CHECK_INT(ptrace(PTRACE_CONT, v->pid, 0, 0), 0);
    CHECK_INT(waitpid(v->pid, &status, 0), v->pid);
  } while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  v->tracing = false;
}

/* All symbols bound before the first step, and no "rep stos", of which every byte is a step: neither
 * the dynamic linker nor memset is what is tested. */
static inline void step_setup(char **argv) {
  if (!getenv("LD_BIND_NOW")) {
    setenv("LD_BIND_NOW", "1", 1);
    setenv("GLIBC_TUNABLES",
           "glibc.cpu.x86_rep_stosb_threshold=16777216:glibc.cpu.x86_rep_movsb_threshold=16777216", 1);
    execv("/proc/self/exe", argv);
  }
  /* Parent and victims on one processor: a step is then two switches and no message between cores. */
  cpu_set_t all, one;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  for (int i = 0, nth = getpid() % CPU_COUNT(&all); i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &all) && nth-- == 0) {
      CPU_ZERO(&one);
      CPU_SET(i, &one);
      sched_setaffinity(0, sizeof one, &one);
      return;
    }
}

/* ---- bodies that tell who they are and whether they are whole ---- */
#define BODY_BYTES 200u
/* made before the first fork: a victim spends no steps on it */
__attribute__((unused)) static uint8_t bodies[IDS][BODY_BYTES];
static inline void bodies_make(void) {
  for (uint32_t id = 0; id < IDS; id++) {
    for (uint32_t i = 4; i < BODY_BYTES; i++) bodies[id][i] = (uint8_t)(id * 7u + i * 13u);
    memcpy(bodies[id], &id, 4);
  }
}
static inline uint32_t body_id(const char *b, int64_t bytes) {
  uint32_t id;
  CHECK(bytes >= 40 && bytes <= (int64_t)BODY_BYTES);
  memcpy(&id, b, 4);
  CHECK(id > 0 && id < IDS);
  CHECK_INT(memcmp(b, bodies[id], (size_t)bytes), 0);
  return id;
}
static inline int send_id(cfn_bus_t *from, const char *to, uint32_t id) {
  return t_send(from, to, CFN_LANE_NORMAL, bodies[id], BODY_BYTES, 0, NULL);
}
/* The next message's id, or an error code; acked if `ack`. */
static inline int recv_id(cfn_bus_t *bus, bool ack, bool *redelivered, uint64_t *token) {
  cfn_wire_t w;
  char b[4096];
  int64_t n = t_recv(bus, 0, &w, b);
  if (n < 0) return (int)n;
  if (redelivered) *redelivered = w.wire_flags & CFN_WIRE_REDELIVERED;
  if (token) *token = w.token;
  int id = (int)body_id(b, n);
  if (ack) CHECK_INT(t_ack(bus, w.token), 0);
  return id;
}
static inline void next_attach_at(cfn_bus_t *any, uint32_t slot) {
  cfn_store_seq(&cfn_state(cfn_bus_region(any))->attach_hint, slot);
}
static inline void next_record_at(cfn_bus_t *any, uint32_t record) {
  cfn_store_seq(&cfn_state(cfn_bus_region(any))->mailbox_hint, record);
}

/* [--all | --seconds S] [--op NAME] [--mode MODE] [--from N --to M]; seconds 0 = all. */
typedef struct step_options {
  const char *op, *mode;
  long from, to;
  double seconds;
} step_options_t;
__attribute__((unused)) static step_options_t step_options(int argc, char **argv, double seconds, const char *modes) {
  step_setup(argv);
  step_options_t o = {.seconds = seconds};
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--all")) o.seconds = 0;
    else if (i + 1 < argc && !strcmp(argv[i], "--op")) o.op = argv[++i];
    else if (i + 1 < argc && !strcmp(argv[i], "--mode")) o.mode = argv[++i];
    else if (i + 1 < argc && !strcmp(argv[i], "--from")) o.from = atol(argv[++i]);
    else if (i + 1 < argc && !strcmp(argv[i], "--to")) o.to = atol(argv[++i]);
    else if (i + 1 < argc && !strcmp(argv[i], "--seconds")) o.seconds = atof(argv[++i]);
    else {
      fprintf(stderr, "usage: %s [--all | --seconds S] [--op NAME] [--mode %s] [--from N --to M]\n", argv[0], modes);
      exit(2);
    }
  }
  t_guard(o.seconds > 0 && o.seconds < 200 && o.to == 0 ? 600 : 0);
  return o;
}

#endif
