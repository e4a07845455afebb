/* What the parts of the simulator share: sim.c (processes, and who goes on), memory.c (the core's atomics and plain memory,
 * as old as an order permits), runs.c (one schedule after the other). */
#ifndef CFN_SIM_STATE_H
#define CFN_SIM_STATE_H

#include <ucontext.h>

#include "sim/sim.h"

#define POINTS_MOST 200000u /* of one run: beyond is an endless loop */
#define DECISIONS_MOST 65536u
#define LOCATIONS 4096u
#define VIEW_WORDS (8u << 20) /* of all views of a run */
#define LINE 64u
#define LINES 65536u /* versions of lines of plain memory, in one run */
#define PENDING 8u
#define HOT 64u  /* points behind a weakened operation at which its process prefers what is old, */
#define HOTTER 6u /* and in the first of which others come in, or it is killed */
#define NOTES 4096u
#define STALE_DEPTH 8u /* how many stores back a stale read looks at most */

enum { READY, WAITING, STOPPED, DONE, KILLED };
enum { BY_DECISIONS, BY_SEED };

typedef struct process {
  ucontext_t context;
  void *stack;
  int state;
  cfn_a32 *word; /* WAITING: on this, */
  uint32_t expected; /* while it holds that */
  bool asleep; /* STOPPED: in that wait; the kernel looks at the word again when it goes on */
  uint64_t until;
  int answer; /* of the wait */
  uint32_t priority;
  uint16_t seen[LOCATIONS]; /* per location: the oldest store it may still read */
  uint32_t sc;   /* when its last seq_cst operation took place, or what it read by acquire was written */
  uint32_t read; /* when the latest of what it read of plain memory was written */
  /* Stores behind which it did not release anything: what comes after them may come before them. */
  struct { uint16_t location, store; } pending[PENDING];
  uint32_t pendings;
} process_t;

/* One store in a location's order, for weak memory. */
typedef struct store {
  uint64_t value; /* of a line of plain memory: which of `lines` */
  const uint16_t *view; /* how many locations, and how far its process had seen each, if it was a release; else NULL */
  uint32_t time;
  bool sc;
  bool weakened; /* should have been a release: nothing follows from reading it */
} store_t;
typedef struct location {
  uintptr_t address; /* + 1: a line of plain memory */
  store_t *store;
  uint16_t stores, room, bytes;
} location_t;

extern struct sim_state {
  const sim_scenario_t *scenario;
  sim_limits_t limits, used;
  process_t process[SIM_PROCESSES];
  ucontext_t scheduler;
  int me; /* who runs, or whom the setup acts as */
  bool running, weak;
  int mode;
  uint64_t now, points, ticks;
  /* by decisions: what to do at the n-th choice, and how many options there were */
  uint16_t decision[DECISIONS_MOST], options[DECISIONS_MOST];
  uint32_t decided, given;
  bool sampling; /* decisions are thrown, not counted through */
  /* by seed */
  uint64_t seed, random;
  uint64_t change[8];
  /* the region */
  uint8_t *base, *pristine;
  uint64_t bytes;
  cfn_bus_t *handle[64];
  int handles, whose[64];
  /* weak memory */
  location_t location[LOCATIONS];
  uint16_t found[2 * LOCATIONS]; /* by address: location + 1 */
  uint32_t locations, clock;
  uint16_t *views, kernel_view[LOCATIONS];
  uint32_t views_used, lines_used, stale_every;
  uint8_t (*lines)[LINE];
  /* one operation that is relaxed */
  struct { char file[64], what[16], word[160]; int first, last; } weaken;
  const char *weakened; /* as it was given */
  char instead; /* 's' a swap stores, 'f' a maximum may fall, 'n' nothing is written; or 0: it is relaxed */
  bool young; /* this run: what the weakened load itself reads, if what follows is old */
  bool eager, old_lines; /* this run: old there and right behind it, rather than anywhere; old lines of plain memory */
  unsigned stubborn; /* so often */
  unsigned hot; /* points for which it has just been passed, by */
  int hot_process;
  uint64_t passed;
  char notes[NOTES];
  size_t noted;
} sim_state;
#define S sim_state

/* sim.c */
uint64_t sim_next_random(void);
/* One of n options; 0 is "as if nothing were". By decisions only. */
uint32_t sim_choose(uint32_t n);
/* Before an operation that stands in the core's function `where`: others may go first, this process may be killed. */
void sim_point_in(const char *where);
bool sim_weakened(sim_place_t *at); /* is it the one that is relaxed? */
void sim_schedule(void);            /* until all have ended */
void sim_run_body(int p);

/* memory.c */
void sim_meddled(const volatile void *p, char how, const char *where);
void sim_lose_stores(void);
void sim_forget_memory(void);
bool sim_make_memory(void);

#endif
