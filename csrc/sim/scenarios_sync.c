/* Locks, circles of waiters, semaphores and barriers: one at a time, as many as there are permits, none through before
 * all are there; whoever is killed is told of or counted out; and nobody sleeps who could go on. */
#include <string.h>

#include "sim/ledger.h"
#include "sim/scenarios.h"
#include "sync/lease.h"

static int inside;             /* who hold it, as the simulator sees it */
static bool broken_off;        /* somebody was killed inside */
static uint64_t sections;      /* that were left */
static uint64_t last_token, data_before;
static int told_died, deadlocks, through[2], arrived;

/* What the lock protects: a word of the region, used as carelessly as plain data. */
static cfn_a64 *data(int me) { return &cfn_state(cfn_bus_region(bus[me]))->scanned_ns; }

static void setup_sync(void) {
  begin();
  inside = told_died = deadlocks = through[0] = through[1] = arrived = 0;
  broken_off = false;
  sections = last_token = 0;
  for (int p = 0; p < 3; p++) bus[p] = sim_open(p, NULL);
  data_before = cfn_load_seq(data(0));
}

static cfn_address_t agents[3];
/* They have names, so that one who dies before it comes is missed. */
static void setup_agents(void) {
  static const char *const name[] = {"p", "q", "r"};
  setup_sync();
  for (int p = 0; p < 3; p++) {
    sim_as(p);
    cfn_bus_close(bus[p]);
    bus[p] = sim_open(p, name[p]);
    SIM_CHECK(cfn_bus_find(bus[p], name[p], &agents[p]) == CFN_OK);
  }
}
/* The locks have their names already: there are few. */
static void setup_circle(void) {
  setup_sync();
  for (int i = 0; i < 3; i++) {
    cfn_held_t held;
    SIM_CHECK(cfn_bus_lease_take(bus[0], CFN_LEASE_LOCK, &"xyz"[i], 1, 0, 0, &held, NULL) == CFN_OK);
    SIM_CHECK(cfn_bus_lease_give_back(bus[0], &held) == CFN_OK);
  }
}

static int take_lease(int me, const char *name, cfn_held_t *held, cfn_holder_t *died) {
  int r;
  do {
    r = cfn_bus_lease_take(bus[me], CFN_LEASE_LOCK, name, 1, 0, patience(), held, died);
  } while (r == CFN_INTERRUPTED);
  sim_note("  process %d takes '%s': %s", me, name, cfn_error_name(r));
  return r;
}

static void enter(const cfn_holder_t *died, uint64_t token) {
  if (died->token) {
    told_died++;
    broken_off = inside > 0;
    inside = 0;
  }
  SIM_CHECK(inside == 0);
  SIM_CHECK(token > last_token);
  last_token = token;
  inside = 1;
}

static void section(int me) {
  cfn_held_t held;
  cfn_holder_t died;
  SIM_CHECK(take_lease(me, "l", &held, &died) == CFN_OK);
  enter(&died, held.token);
  uint64_t v = cfn_load_relaxed(data(me));
  cfn_store_relaxed(data(me), v + 1);
  SIM_CHECK(cfn_bus_lease_check(bus[me], &held) == CFN_OK);
  inside = 0;
  sections++;
  SIM_CHECK(cfn_bus_lease_give_back(bus[me], &held) == CFN_OK);
}
static void section_twice(int me) {
  section(me);
  section(me);
}
static void hold_and_leave(int me) {
  cfn_held_t held;
  cfn_holder_t died;
  SIM_CHECK(take_lease(me, "l", &held, &died) == CFN_OK);
  enter(&died, held.token);
  inside = 0;
  cfn_bus_close(bus[me]); /* gives it back */
}

static void nothing(int me) { (void)me; }

/* One takes it, the other takes it away: what the first is told of it is true. */
static bool robbed;
static void hold_and_lose(int me) {
  cfn_held_t held;
  cfn_holder_t died;
  SIM_CHECK(take_lease(me, "l", &held, &died) == CFN_OK);
  int r = cfn_bus_lease_give_back(bus[me], &held);
  SIM_CHECK(r == CFN_OK || (r == CFN_LEASE_LOST && robbed));
}
static void steal_and_hold(int me) {
  cfn_held_t held;
  cfn_holder_t died;
  int r;
  robbed = true;
  do {
    r = cfn_bus_lease_take(bus[me], CFN_LEASE_LOCK, "l", 1, CFN_LEASE_STEAL, patience(), &held, &died);
  } while (r == CFN_INTERRUPTED);
  SIM_CHECK(r == CFN_OK);
  SIM_CHECK(cfn_bus_lease_check(bus[me], &held) == CFN_OK); /* whoever gives back what it lost changes nothing */
  SIM_CHECK(cfn_bus_lease_give_back(bus[me], &held) == CFN_OK);
}
static void setup_stolen(void) {
  setup_sync();
  robbed = false;
}

/* One died holding "l"; whoever attaches next has its slot, and takes "m". */
static void setup_dead_holder(void) {
  setup_sync();
  cfn_bus_close(bus[2]);
  bus[3] = sim_open(3, NULL);
  cfn_held_t held;
  cfn_holder_t died;
  sim_as(3);
  for (int i = 0; i < 2; i++) SIM_CHECK(cfn_bus_lease_take(bus[3], CFN_LEASE_LOCK, &"lm"[i], 1, 0, 0, &held, &died) == CFN_OK);
  SIM_CHECK(cfn_bus_lease_give_back(bus[3], &held) == CFN_OK);
  cfn_store_seq(&cfn_state(cfn_bus_region(bus[3]))->attach_hint, cfn_bus_attachment(bus[3]));
  sim_bury(3);
  bus[3] = bus[2] = NULL;
}
static void reap_holder(int me) { cfn_bus_reap(bus[me]); }
static void hold_there(int me) {
  bus[me] = sim_open(me, NULL);
  cfn_held_t held;
  cfn_holder_t died;
  SIM_CHECK(take_lease(me, "m", &held, &died) == CFN_OK);
  SIM_CHECK(cfn_bus_lease_check(bus[me], &held) == CFN_OK);
  SIM_CHECK(cfn_bus_lease_check(bus[me], &held) == CFN_OK); /* and nobody takes it for the dead one's */
  SIM_CHECK(cfn_bus_lease_give_back(bus[me], &held) == CFN_OK);
}
static void verify_dead_holder(void) {
  sim_as(SIM_PROCESSES - 1);
  bus[SIM_PROCESSES - 1] = sim_open(SIM_PROCESSES - 1, NULL);
  cfn_held_t held;
  cfn_holder_t died;
  cfn_bus_reap(bus[SIM_PROCESSES - 1]);
  SIM_CHECK(take_lease(SIM_PROCESSES - 1, "l", &held, &died) == CFN_OK);
  SIM_CHECK(died.token > 0 && died.pid == 4); /* told of, and of the right one */
  cfn_bus_close(bus[SIM_PROCESSES - 1]);
  bus[SIM_PROCESSES - 1] = NULL;
  audit(NULL);
}

static void verify_lock(void) {
  sim_as(SIM_PROCESSES - 1);
  cfn_bus_t *late = bus[SIM_PROCESSES - 1] = sim_open(SIM_PROCESSES - 1, NULL);
  int killed = 0;
  for (int p = 0; p < 3; p++) killed += sim_end(p) == 'k';
  for (int p = 0; p < 3; p++) SIM_CHECK(sim_end(p) == 'd' || sim_end(p) == 'k');
  uint64_t made = cfn_load_seq(data(SIM_PROCESSES - 1)) - data_before;
  /* None was lost under the lock, but, with weak memory, of one who was killed before it gave it back. */
  SIM_CHECK(made + (sim_is_weak() ? (uint64_t)killed : 0) >= sections && made <= sections + (uint64_t)killed);
  section(SIM_PROCESSES - 1);
  SIM_CHECK(told_died <= killed);
  if (broken_off) SIM_CHECK(told_died > 0); /* half-done work was told of */
  bus[SIM_PROCESSES - 1] = NULL;
  cfn_bus_close(late);
  audit(NULL);
}

/* Two who take the same two the other way round: one is told, and the other goes on. */
static void cross(int me, const char *first, const char *second) {
  cfn_held_t one, two;
  cfn_holder_t died;
  SIM_CHECK(take_lease(me, first, &one, &died) == CFN_OK);
  int r = take_lease(me, second, &two, &died);
  SIM_CHECK(r == CFN_OK || r == CFN_DEADLOCK);
  if (r == CFN_OK) cfn_bus_lease_give_back(bus[me], &two);
  else deadlocks++;
  cfn_bus_lease_give_back(bus[me], &one);
}
static void cross_xy(int me) { cross(me, "x", "y"); }
static void cross_yx(int me) { cross(me, "y", "x"); }
static void cross_yz(int me) { cross(me, "y", "z"); }
static void cross_zx(int me) { cross(me, "z", "x"); }
static void verify_circle(void) {
  for (int p = 0; p < 3; p++) SIM_CHECK(sim_end(p) == 'd' || sim_end(p) == 'k' || bus[p] == NULL);
  SIM_CHECK(deadlocks <= 1);
  audit(NULL);
}

/* ---- semaphores ---- */

static void permit(int me) {
  uint64_t token;
  int r;
  do {
    r = cfn_bus_semaphore_take(bus[me], "s", 1, 1, patience(), &token);
  } while (r == CFN_INTERRUPTED);
  SIM_CHECK(r == CFN_OK);
  if (sim_anyone_killed()) inside = 0; /* perhaps one who was inside */
  SIM_CHECK(inside == 0);
  inside = 1;
  uint64_t v = cfn_load_relaxed(data(me));
  cfn_store_relaxed(data(me), v + 1);
  inside = 0;
  sections++;
  SIM_CHECK(cfn_bus_semaphore_give_back(bus[me], "s", 1, token) == CFN_OK);
}
static void verify_permits(void) {
  sim_as(SIM_PROCESSES - 1);
  bus[SIM_PROCESSES - 1] = sim_open(SIM_PROCESSES - 1, NULL);
  int killed = 0;
  for (int p = 0; p < 3; p++) killed += sim_end(p) == 'k';
  for (int p = 0; p < 3; p++) SIM_CHECK(sim_end(p) == 'd' || sim_end(p) == 'k');
  uint64_t made = cfn_load_seq(data(SIM_PROCESSES - 1)) - data_before;
  SIM_CHECK(made + (sim_is_weak() ? (uint64_t)killed : 0) >= sections && made <= sections + (uint64_t)killed);
  permit(SIM_PROCESSES - 1);
  cfn_bus_close(bus[SIM_PROCESSES - 1]);
  bus[SIM_PROCESSES - 1] = NULL;
  audit(NULL);
}

/* ---- barriers ---- */

static int wait_at(int me, uint32_t parties, int flags, cfn_arrival_t *at) {
  int r;
  *at = (cfn_arrival_t){0};
  do {
    r = cfn_bus_barrier_wait(bus[me], "b", 1, parties, flags, agents, parties == 3 ? 3 : 0, patience(), at);
  } while (r == CFN_INTERRUPTED);
  sim_note("  process %d at the barrier: %s, round %d", me, cfn_error_name(r), (int)at->round);
  return r;
}
static void meet(int me) {
  cfn_arrival_t at;
  arrived++;
  int r = wait_at(me, 3, 0, &at);
  SIM_CHECK(r == CFN_OK || (r == CFN_BROKEN_BARRIER && sim_anyone_killed()));
  if (r == CFN_OK) SIM_CHECK(arrived == 3);
  through[0] += r == CFN_OK;
}
static void meet_twice(int me) {
  uint64_t last = 0;
  for (int round = 0; round < 2; round++) {
    cfn_arrival_t at;
    arrived++;
    SIM_CHECK(wait_at(me, 2, 0, &at) == CFN_OK);
    SIM_CHECK(round == 0 || at.round == last + 1);
    last = at.round;
    SIM_CHECK(arrived >= 2 * (round + 1));
    through[round]++;
  }
}
static void go_on(int me) {
  cfn_arrival_t at;
  arrived++;
  int r = wait_at(me, 3, CFN_BARRIER_GO_ON, &at);
  SIM_CHECK(r == CFN_OK);
  through[0]++;
}
static void give_up(int me) {
  cfn_arrival_t at = {0};
  int r = cfn_bus_barrier_wait(bus[me], "b", 1, 2, 0, NULL, 0, 0, &at);
  sim_note("  process %d does not wait: %s", me, cfn_error_name(r));
  SIM_CHECK(r == CFN_OK || r == CFN_TIMEOUT);
  through[0] += r == CFN_OK;
}
static void verify_met(void) {
  for (int p = 0; p < 3; p++) SIM_CHECK(sim_end(p) == 'd' || sim_end(p) == 'k');
  if (!sim_anyone_killed()) SIM_CHECK(through[0] == 3 || through[0] == 2);
  audit(NULL);
}
/* A round of two has two in it, or nobody has come through. */
static void verify_gave_up(void) {
  SIM_CHECK(through[0] == 0 || through[0] == 2);
  audit(NULL);
}

const sim_scenario_t sim_sync_scenarios[] = {
    {"lock", setup_sync, {section, section, section}, verify_lock, 0, false, {2, 0, 0, 0}, NULL},
    {"lock-killed", setup_sync, {section, section_twice, section}, verify_lock, ALL, true, {1, 1, 0, 0}, NULL},
    {"lock-left", setup_sync, {hold_and_leave, section, section}, verify_lock, 0, false, {2, 0, 0, 0}, NULL},
    {"lock-left-killed", setup_sync, {hold_and_leave, section, section}, verify_lock, ALL, true, {1, 1, 0, 0}, NULL},
    {"lock-close", setup_sync, {section, section_twice, section}, verify_lock, ALL, true, {2, 1, 0, 0},
     "cfn_lease_take,cfn_lease_give_back,cfn_lease_bury,cfn_lease_reap,cfn_refs_swap,bury_if_dead"},
    {"lock-stolen", setup_stolen, {hold_and_lose, steal_and_hold, nothing}, audit_all, 0, false, {3, 0, 0, 0}, NULL},
    {"lock-corpse", setup_dead_holder, {reap_holder, reap_holder, hold_there}, verify_dead_holder, 0, true, {2, 0, 0, 0},
     "cfn_reap,cfn_lease_reap,cfn_lease_bury,cfn_lease_take,cfn_refs_swap,cfn_bus_lease_check"},
    {"lock-corpse-killed", setup_dead_holder, {reap_holder, reap_holder, hold_there}, verify_dead_holder, 3, true, {1, 1, 0, 0},
     "cfn_reap,cfn_lease_reap,cfn_lease_bury,cfn_lease_take,cfn_refs_swap,cfn_bus_lease_check"},
    {"circle", setup_circle, {cross_xy, cross_yx, nothing}, verify_circle, 0, false, {2, 0, 0, 0}, NULL},
    {"circle-killed", setup_circle, {cross_xy, cross_yx, nothing}, verify_circle, 3, true, {1, 1, 0, 0}, NULL},
    {"circle-of-three", setup_circle, {cross_xy, cross_yz, cross_zx}, verify_circle, 0, false, {2, 0, 0, 0}, NULL},
    {"permits", setup_sync, {permit, permit, permit}, verify_permits, 0, false, {2, 0, 0, 0}, NULL},
    {"permits-killed", setup_sync, {permit, permit, permit}, verify_permits, ALL, true, {1, 1, 0, 0}, NULL},
    {"barrier", setup_agents, {meet, meet, meet}, verify_met, 0, false, {2, 0, 0, 0}, NULL},
    {"barrier-killed", setup_agents, {meet, meet, meet}, verify_met, ALL, true, {1, 1, 0, 0}, NULL},
    {"barrier-rounds", setup_sync, {meet_twice, meet_twice, nothing}, verify_met, 0, false, {2, 0, 0, 0}, NULL},
    {"barrier-go-on", setup_agents, {go_on, go_on, go_on}, verify_met, ALL, true, {1, 1, 0, 0}, NULL},
    {"barrier-give-up", setup_sync, {give_up, give_up, nothing}, verify_gave_up, 0, true, {2, 0, 0, 0}, NULL},
};
const int sim_sync_scenario_count = sizeof sim_sync_scenarios / sizeof sim_sync_scenarios[0];
