/* Death and sleep at every instruction of taking and giving back: locks, permits, barriers.
 *
 *   kill   at instruction n: who comes next has the lock, the permit, the barrier at once, and is told if the dead one
 *          held it; no name is lost
 *   stop   at instruction n: others take what is free and give it back, use every name again; what it holds, nobody
 *          gets; then it goes on, and what it is told is true
 *
 *   test_step_sync [--all | --seconds S] [--op NAME] [--mode kill|stop] [--from N --to M]
 */
#include "agent/bus.h"
#include "tests/step_sweep.h"

enum { OBJECTS = 16, PAGES = 16, REFS = 6 };

static cfn_bus_t *tx;
static victim_t victim;
static victim_report_t *rep;

static int take(cfn_bus_t *bus, const char *name, cfn_held_t *held, cfn_holder_t *died) {
  return cfn_bus_lease_take(bus, CFN_LEASE_LOCK, name, (uint32_t)strlen(name), 0, 0, held, died);
}
static int permit(cfn_bus_t *bus, uint64_t *token) { return cfn_bus_semaphore_take(bus, "s", 1, 1, 0, token); }
static int meet(cfn_bus_t *bus, uint32_t parties) {
  cfn_arrival_t at = {0};
  return cfn_bus_barrier_wait(bus, "b", 1, parties, 0, NULL, 0, 0, &at);
}

/* ---- the operations ---- */

static cfn_bus_t *plain(victim_report_t *r) {
  (void)r;
  return t_attach(NULL);
}
static int64_t do_lock(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_held_t held;
  cfn_holder_t died;
  return take(bus, "l", &held, &died);
}
static int64_t do_lock_new(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_held_t held;
  cfn_holder_t died;
  return take(bus, "new", &held, &died);
}
static int64_t do_lock_unlock(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_held_t held;
  cfn_holder_t died;
  int e = take(bus, "l", &held, &died);
  return e < 0 ? e : cfn_bus_lease_give_back(bus, &held);
}
static int64_t do_steal(cfn_bus_t *bus, victim_report_t *r) { /* from the stage, which holds "mine" */
  (void)r;
  cfn_held_t held;
  cfn_holder_t died;
  int e = cfn_bus_lease_take(bus, CFN_LEASE_LOCK, "mine", 4, CFN_LEASE_STEAL, 0, &held, &died);
  return e < 0 ? e : cfn_bus_lease_give_back(bus, &held);
}
static int64_t do_permit(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  uint64_t token;
  return permit(bus, &token);
}
static int64_t do_permit_and_back(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  uint64_t token;
  int e = permit(bus, &token);
  return e < 0 ? e : cfn_bus_semaphore_give_back(bus, "s", 1, token);
}
static int64_t do_meet(cfn_bus_t *bus, victim_report_t *r) { return (void)r, meet(bus, 1); }
static int64_t do_give_up(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  int e = meet(bus, 2);
  return e == CFN_TIMEOUT ? 0 : e;
}
static int64_t do_join_leave(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  int e = cfn_bus_barrier_join(bus, "b", 1);
  return e < 0 ? e : cfn_bus_barrier_leave(bus, "b", 1);
}
static int64_t do_close(cfn_bus_t *bus, victim_report_t *r) { /* holding one of each */
  (void)r;
  cfn_held_t held;
  cfn_holder_t died;
  uint64_t token;
  int e = take(bus, "l", &held, &died);
  if (e == CFN_OK) e = permit(bus, &token);
  if (e == CFN_OK) cfn_bus_close(bus);
  return e;
}

static const struct {
  const char *name;
  int64_t (*run)(cfn_bus_t *, victim_report_t *);
} operations[] = {
    {"lock", do_lock},     {"lock-new", do_lock_new},        {"lock-unlock", do_lock_unlock}, {"steal", do_steal},
    {"permit", do_permit}, {"permit-and-back", do_permit_and_back}, {"meet", do_meet}, {"give-up", do_give_up},
    {"join-leave", do_join_leave}, {"close", do_close},
};
#define OPERATIONS ((int)(sizeof operations / sizeof operations[0]))
#define IS(o, what) (operations[o].run == (what))
static bool keeps_lock(int o) { return IS(o, do_lock); }
static bool on_lock(int o) { return IS(o, do_lock) || IS(o, do_lock_unlock) || IS(o, do_close); }
static bool on_permit(int o) { return IS(o, do_permit) || IS(o, do_permit_and_back) || IS(o, do_close); }
static bool on_barrier(int o) { return IS(o, do_meet) || IS(o, do_give_up) || IS(o, do_join_leave); }

/* ---- the stage ---- */

static cfn_held_t mine;
static void stage_set(int o) {
  cfn_wish_t wish = t_small_wish();
  wish.objects = OBJECTS;
  wish.object_pages = PAGES;
  wish.refs = REFS;
  tx = t_open("tx", &wish);
  cfn_held_t held;
  cfn_holder_t died;
  CHECK_INT(take(tx, "mine", &mine, &died), 0);
  CHECK_INT(take(tx, "l", &held, &died), 0);
  CHECK_INT(cfn_bus_lease_give_back(tx, &held), 0);
  if (IS(o, do_lock_new)) /* its name takes another's record */
    for (int i = 0; i < REFS - 2; i++) {
      char name[] = "a0";
      name[1] = (char)('0' + i);
      CHECK_INT(take(tx, name, &held, &died), 0);
      CHECK_INT(cfn_bus_lease_give_back(tx, &held), 0);
    }
  victim_start(&victim, plain, operations[o].run);
}
static void stage_clear(int o) {
  (void)o;
  t_close(tx);
  t_destroy();
}

static uint64_t told_died; /* token of a dead holder that we were told of */

/* Takes the lock if nobody holds it, and gives it back. True: it was had. */
static bool pass_through(const char *name) {
  cfn_held_t held;
  cfn_holder_t died;
  int e = take(tx, name, &held, &died);
  if (e == CFN_TIMEOUT) return false;
  CHECK_INT(e, 0);
  if (died.token) told_died = died.token;
  CHECK(!died.token || died.token < held.token);
  CHECK_INT(cfn_bus_lease_check(tx, &held), 0);
  CHECK_INT(cfn_bus_lease_give_back(tx, &held), 0);
  return true;
}
static bool permit_through(void) {
  uint64_t token;
  int e = permit(tx, &token);
  if (e == CFN_TIMEOUT) return false;
  CHECK_INT(e, 0);
  CHECK_INT(cfn_bus_semaphore_give_back(tx, "s", 1, token), 0);
  return true;
}

static void others_go_on(int o, bool stopped) {
  for (int i = 0; i < 4; i++) {
    bool had = pass_through("l");
    CHECK(had || (stopped && on_lock(o))); /* what a stopped one holds, nobody gets */
    had = permit_through();
    CHECK(had || (stopped && on_permit(o)));
    if (!IS(o, do_lock_new)) CHECK(pass_through("new") || stopped);
  }
  if (!on_barrier(o)) CHECK_INT(meet(tx, 1), 0);
}

static void check(int o) {
  bool done = rep->done;
  int64_t result = rep->result;
  if (done && result < 0) {
    fprintf(stderr, "it was told %s\n", cfn_error_name((int)result));
    /* while it was stopped, others had what it came for, or the names it wanted */
    CHECK(result == CFN_TIMEOUT || result == CFN_AGAIN || (IS(o, do_join_leave) && result == CFN_BROKEN_BARRIER));
  }
  if (IS(o, do_steal)) {
    int e = cfn_bus_lease_check(tx, &mine);
    CHECK(done ? e == CFN_LEASE_LOST : e == CFN_OK || e == CFN_LEASE_LOST);
  } else {
    CHECK_INT(cfn_bus_lease_check(tx, &mine), 0); /* what nobody touched is held */
  }
}

/* Everybody is gone or done: all of it is to be had, under every name. */
static void strike(int o) {
  CHECK(pass_through("l"));
  if (!IS(o, do_lock_new)) CHECK(permit_through());
  if (cfn_bus_barrier_delete(tx, "b", 1) < 0) CHECK_INT(cfn_last_failure()->code, CFN_UNKNOWN_KEY);
  cfn_held_t held[REFS];
  cfn_holder_t died;
  if (cfn_bus_lease_check(tx, &mine) == CFN_OK) CHECK_INT(cfn_bus_lease_give_back(tx, &mine), 0);
  pass_through("mine");
  pass_through("new");
  for (int i = 0; i < REFS; i++) {
    char name[] = "z0";
    name[1] = (char)('0' + i);
    CHECK_INT(take(tx, name, &held[i], &died), 0);
    CHECK(!died.token);
  }
  for (int i = 0; i < REFS; i++) CHECK_INT(cfn_bus_lease_give_back(tx, &held[i]), 0);
  t_check_region(tx, true);
}

static bool point(int o, int mode, long n) {
  t_case("--op %s --mode %s --from %ld --to %ld", operations[o].name, mode ? "stop" : "kill", n, n);
  told_died = 0;
  stage_set(o);
  bool over = !victim_go_to(&victim, n);
  if (mode == 0) victim_kill(&victim);
  others_go_on(o, mode);
  if (mode) {
    CHECK(cfn_bus_reap(tx) >= 0);
    CHECK_INT(told_died, 0); /* a stopped one is not dead */
    victim_finish(&victim);
    victim_leave(&victim);
  } else if (keeps_lock(o) && rep->done && rep->result == CFN_OK) {
    CHECK(told_died); /* it held it, and died */
  }
  CHECK(cfn_bus_reap(tx) >= 0);
  check(o);
  CHECK_INT(cfn_bus_reap(tx), 0);
  strike(o);
  stage_clear(o);
  return over;
}

static const char *name_of(int o) { return operations[o].name; }

int main(int argc, char **argv) {
  victim.report = rep = report_new();
  static const step_stage_t stage = {"test_step_sync", step_kill_stop, OPERATIONS, name_of, stage_set, point, stage_clear, &victim};
  return step_main(argc, argv, &stage);
}
