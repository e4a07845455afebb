/* Runs of a scenario: all schedules within limits, some of them, by seeds, or one again. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim/kernel.h"
#include "sim/state.h"

#define STACK_BYTES (256u << 10)

/* ---- runs ---- */

cfn_bus_t *sim_open(int p, const char *agent) {
  int before = S.me;
  bool running = S.running;
  if (!running) S.me = p;
  cfn_bus_t *bus;
  if (cfn_bus_open(NULL, kernel_bus_name(), NULL, 0, &bus, NULL) < 0)
    sim_fail("cannot open: %s", cfn_last_failure()->text);
  uint64_t inc;
  int owner;
  if (agent && cfn_bus_act_as(bus, agent, NULL, CFN_ACT_OWN, &inc, &owner) < 0)
    sim_fail("cannot act as %s: %s", agent, cfn_last_failure()->text);
  S.whose[S.handles] = p;
  S.handle[S.handles++] = bus;
  if (!running) S.me = before;
  return bus;
}

static void end_handles(void) {
  for (int i = 0; i < S.handles; i++) {
    cfn_bus_t *bus = S.handle[i];
    S.me = S.whose[i];
    pthread_mutex_init(&bus->lock, NULL); /* it may have died inside */
    pthread_mutex_init(&bus->region->live_lock, NULL);
    atomic_store_explicit(&bus->inside, 0, memory_order_relaxed);
    cfn_bus_free(bus);
  }
  S.handles = 0;
}

void sim_fresh(void) {
  end_handles();
  memcpy(S.base, S.pristine, S.bytes);
  kernel_reset();
  S.now = 1000000000;
  S.running = false;
  for (int p = 0; p < SIM_PROCESSES; p++) S.process[p].state = DONE;
}

static void run_once(const sim_scenario_t *s) {
  S.scenario = s;
  S.used = (sim_limits_t){0};
  S.decided = 0;
  S.points = S.ticks = 0;
  S.noted = 0;
  S.notes[0] = 0;
  sim_fresh();
  s->setup();
  if (S.weak) sim_forget_memory();
  for (int p = 0; p < SIM_PROCESSES; p++) {
    process_t *q = &S.process[p];
    if (!s->body[p]) continue;
    if (!q->stack) q->stack = malloc(STACK_BYTES);
    memset(q->seen, 0, sizeof q->seen);
    q->sc = q->read = q->pendings = 0;
    getcontext(&q->context);
    q->context.uc_stack.ss_sp = q->stack;
    q->context.uc_stack.ss_size = STACK_BYTES;
    q->context.uc_link = NULL;
    makecontext(&q->context, (void (*)(void))sim_run_body, 1, p);
    q->state = READY;
    q->priority = S.mode == BY_SEED ? (uint32_t)(100 + sim_next_random() % 100) : 0;
  }
  S.running = true;
  sim_schedule();
  S.running = false;
  S.me = 0;
  s->verify();
  end_handles();
}

void sim_create(void) {
  cfn_wish_t wish = {.agents = 4, .lane_slots = {2, 2, 4 /* LANE */, 2}, .class_wished = 0x3f, .class_chunks = {32},
                     .refs = 4, .objects = 4, .object_pages = 4, .spill = "/dev/shm"};
  cfn_bus_t *bus;
  sim_as(0);
  if (cfn_bus_open(NULL, kernel_bus_name(), &wish, CFN_OPEN_CREATE, &bus, NULL) < 0)
    sim_fail("cannot create: %s", cfn_last_failure()->text);
  cfn_region_t *r = cfn_bus_region(bus);
  S.base = r->base;
  S.bytes = r->geo.region_bytes;
  cfn_bus_free(bus);
  S.pristine = malloc(S.bytes);
  if (!S.pristine || !sim_make_memory()) abort();
  memcpy(S.pristine, S.base, S.bytes);
}

void sim_destroy(void) {
  kernel_spills(true);
  cfn_region_destroy_path(NULL, kernel_bus_name());
}

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void count_run(sim_result_t *r) {
  r->runs++;
  r->points += S.points;
  r->kills += (uint64_t)S.used.kills;
  if (S.points > r->deepest) r->deepest = S.points;
}

sim_result_t sim_exhaust(const sim_scenario_t *s, sim_limits_t limits, double seconds) {
  sim_result_t r = {0};
  double end = seconds_now() + seconds;
  S.mode = BY_DECISIONS;
  S.limits = limits;
  S.weak = limits.stale > 0;
  S.eager = S.old_lines = false;
  S.given = 0;
  for (;;) {
    S.random = 1;
    run_once(s);
    count_run(&r);
    uint32_t last = S.decided;
    while (last > 0 && S.decision[last - 1] + 1u >= S.options[last - 1]) last--;
    if (last == 0) {
      r.complete = true;
      return r;
    }
    S.decision[last - 1]++;
    S.given = last;
    if (seconds_now() > end) return r;
  }
}

sim_result_t sim_seeds(const sim_scenario_t *s, uint64_t seed, uint64_t runs, bool weak, double seconds) {
  sim_result_t r = {0};
  double end = seconds_now() + seconds;
  S.mode = BY_SEED;
  S.weak = weak;
  S.limits = (sim_limits_t){1 << 30, 2, 2, weak ? 1 << 30 : 0};
  uint64_t typical = 400;
  for (uint64_t i = 0; i < runs && seconds_now() < end; i++) {
    S.seed = S.random = seed + i;
    sim_next_random();
    S.eager = S.weakened && sim_next_random() % 2; /* no number is thrown without it: seeds stay what they are */
    S.hot = 0;
    if (weak) { /* in some runs much is old, in others little */
      static const uint8_t every[] = {2, 3, 8, 30};
      S.stale_every = every[sim_next_random() % 4];
      if (S.eager && sim_next_random() % 2) S.stale_every = 200;
      S.stubborn = sim_next_random() % 2 ? 4u << sim_next_random() % 6 : 0; /* not for ever: who waits for news would never get it */
      S.old_lines = sim_next_random() % 2;
      S.young = sim_next_random() % 2;
    }
    for (unsigned c = 0; c < sizeof S.change / sizeof S.change[0]; c++) S.change[c] = 1 + sim_next_random() % (typical >> c % 4);
    run_once(s);
    count_run(&r);
  }
  return r;
}

sim_result_t sim_sample(const sim_scenario_t *s, sim_limits_t limits, uint64_t seed, double seconds) {
  sim_result_t r = {0};
  double end = seconds_now() + seconds;
  S.mode = BY_DECISIONS;
  S.limits = limits;
  S.weak = limits.stale > 0;
  S.sampling = true;
  uint32_t n = 0; /* the most decisions in a run until now: when the limits are used up there are fewer */
  for (uint64_t i = 0; seconds_now() < end; i++) {
    S.random = seed + i;
    sim_next_random();
    memset(S.decision, 0, sizeof S.decision);
    S.given = n;
    for (int k = 0; n && k < limits.preemptions + limits.kills + limits.stale; k++)
      S.decision[sim_next_random() % n] = (uint16_t)(1 + sim_next_random() % 1000);
    S.random = 1;
    run_once(s);
    count_run(&r);
    if (S.decided > n) n = S.decided;
  }
  S.sampling = false;
  return r;
}

void sim_replay(const sim_scenario_t *s, sim_limits_t limits, const char *decisions) {
  S.mode = BY_DECISIONS;
  S.limits = limits;
  S.weak = limits.stale > 0;
  S.given = 0;
  memset(S.decision, 0, sizeof S.decision);
  for (const char *p = decisions; p && *p;) {
    unsigned at, what;
    int used = 0;
    if (sscanf(p, "%u:%u%n", &at, &what, &used) != 2 || at >= DECISIONS_MOST) break;
    S.decision[at] = (uint16_t)what;
    S.given = at + 1;
    p += used;
    if (*p == ',') p++;
  }
  S.random = 1;
  run_once(s);
}
