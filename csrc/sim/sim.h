/* cfnsim: the real core, compiled against a kernel and a processor of our own.
 *
 * Virtual processes are fibers of one real process. Each has handles of its own on one region. At every
 * atomic operation on the region, and at every call of the operating-system seam, the simulator decides who
 * goes on: the same process, another (a preemption), or nobody ever again as this one (a kill). Futexes,
 * byte locks, process life and the clock are simulated; time passes only when everybody waits, and is then
 * counted: a run without a death that needs a safety tick has lost a wake-up.
 *
 *   exhaustive   every schedule with at most P preemptions, K kills and W stale reads, by replaying the run
 *                with one decision changed (depth first)
 *   random       by seed, with priorities and change points, any number of preemptions
 *   weak         a load returns any value that its memory order still permits: each location keeps the
 *                order of its stores, each process how far it has seen each location, and each release
 *                store what its process had seen. Seq_cst operations are in one order, in which a load stands
 *                behind the one before it in its process, and not where it stands in time. Plain memory (chunks,
 *                pages) has a history by lines of 64 bytes. A swap that fails may have failed on an old word. Who
 *                is killed may not have made the last stores, unless it released something behind them. (Not
 *                modelled: stores put in between older ones; loads of what is written later.)
 *
 * A failure prints the decisions or the seed that make it again.
 */
#ifndef CFN_SIM_SIM_H
#define CFN_SIM_SIM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/bus.h"

#define SIM_PROCESSES 6

typedef struct sim_limits {
  int preemptions, kills, stops, stale; /* how many of each in one run */
} sim_limits_t;

/* What a scenario is made of. Bodies run as virtual processes; the rest runs undisturbed. */
typedef struct sim_scenario {
  const char *name;
  void (*setup)(void);
  void (*body[SIM_PROCESSES])(int me);
  void (*verify)(void);
  unsigned killable;  /* bit p: process p may be killed */
  bool ticks;         /* waits that only a safety tick ends are expected also without a kill */
  sim_limits_t small; /* of the exhaustive run */
  /* The exhaustive run preempts and kills only inside these functions (sim_listed), which lets it go deeper there. */
  const char *focus;
} sim_scenario_t;

/* ---- what scenarios use ---- */
/* A new handle of process p (in setup and verify: of whoever is given). */
cfn_bus_t *sim_open(int p, const char *agent);
/* From here on, calls are made as process p (setup and verify). */
void sim_as(int p);
/* How process p ended: 'd' done, 'k' killed, 'w' still waiting. */
char sim_end(int p);
bool sim_anyone_killed(void);
bool sim_is_weak(void);
bool sim_listed(const char *list, const char *name); /* names with commas between, a star at the end: anything */
/* Process p, which has no body, is dead from the start (setup). */
void sim_bury(int p);
#define SIM_CHECK(condition) \
  do { \
    if (!(condition)) sim_fail("%s:%d: %s", __FILE__, __LINE__, #condition); \
  } while (0)
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sim_note(const char *format, ...) __attribute__((format(printf, 1, 2))); /* shown if the run fails */

/* ---- what tests use that run without a scheduler (tests/meddler.h) ---- */
/* The bus as it was made, and nobody attached. */
void sim_fresh(void);
/* Called before each operation of the core on a shared word, and before each sleep ('w'); `how`: 'l'oad, 's'tore, 'c'as, or as
 * sim_update. It may do what another process does just then. */
typedef void sim_meddler_t(const volatile void *word, char how, const char *where);
extern sim_meddler_t *sim_meddler;

/* ---- what the seam uses ---- */
int sim_me(void); /* the running process, or who the setup acts as */
void sim_point(void);
uint64_t sim_now(void);
int sim_wait(cfn_a32 *word, uint32_t expected, uint64_t timeout_ns);
int sim_wake(cfn_a32 *word, int most);
void sim_yield(void);
bool sim_lives(int p);
uint64_t sim_random(void);
/* What the kernel knows is known to everybody who asks it: a process that dies or gives a lock back tells it
 * what it has done, who learns of that has seen it too. */
void sim_tell_kernel(int p);
void sim_learn_from_kernel(void);

/* ---- what the main program uses ---- */
typedef struct sim_result {
  uint64_t runs, points, kills, deepest;
  bool complete; /* all schedules within the limits were run */
} sim_result_t;
void sim_create(void); /* the bus of all runs */
void sim_destroy(void);
sim_result_t sim_exhaust(const sim_scenario_t *s, sim_limits_t limits, double seconds);
sim_result_t sim_seeds(const sim_scenario_t *s, uint64_t seed, uint64_t runs, bool weak, double seconds);
/* Schedules within the limits thrown at random: where exhausting them would take too long, and begin with those that
 * differ late. */
sim_result_t sim_sample(const sim_scenario_t *s, sim_limits_t limits, uint64_t seed, double seconds);
/* --weaken FILE:FIRST-LAST:OPERATION:WORD: the operation of that name on that word (as written), in these lines, is
 * relaxed. False: the place makes no sense. */
bool sim_weaken(const char *place);
/* Not relaxed, but: "store" (a swap stores), "fall" (a maximum may fall), "nothing" (it writes nothing). */
bool sim_instead(const char *what);
uint64_t sim_weakened_passed(void); /* how often it was done */
void sim_replay(const sim_scenario_t *s, sim_limits_t limits, const char *decisions);

#endif
