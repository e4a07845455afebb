/* Barriers and semaphores: rounds end when all are there and not before; who dies is named or counted out; permits are as
 * many as were said, and those of the dead are free. */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/bus.h"
#include "agent/bus_ref.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;
static volatile int *shared; /* of all processes */

static void start(void) {
  cfn_wish_t wish = t_small_wish();
  wish.agents = 24;
  wish.objects = 64;
  wish.object_pages = 64;
  a = t_open("a", &wish);
  b = t_attach("b");
  memset((void *)(uintptr_t)shared, 0, 4096);
}
static void end(void) {
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}

static int wait_go(cfn_bus_t *bus, uint32_t parties, int flags, const cfn_address_t *expected, uint32_t n, double timeout,
                   cfn_arrival_t *at) {
  uint64_t deadline = timeout > 0 ? t_in(timeout) : 0;
  int e;
  *at = (cfn_arrival_t){0};
  do {
    e = cfn_bus_barrier_wait(bus, "b", 1, parties, flags, expected, n, deadline, at);
  } while (e == CFN_INTERRUPTED);
  return e;
}
static int wait_for(cfn_bus_t *bus, uint32_t parties, double timeout) {
  cfn_arrival_t at;
  return wait_go(bus, parties, 0, NULL, 0, timeout, &at);
}
static cfn_barrier_info_t look(void) {
  cfn_barrier_info_t info;
  cfn_party_t party[32];
  CHECK_INT(cfn_bus_barrier_look(a, "b", 1, &info, party, 32), 0);
  return info;
}
/* A child `name` that does `body` with its handle. */
static pid_t child(const char *name, void (*body)(cfn_bus_t *)) {
  pid_t p = t_fork();
  if (p) return p;
  cfn_bus_t *c = t_attach(name[0] ? name : NULL);
  body(c);
  cfn_bus_free(c);
  _exit(0);
}
static void until_waits(const char *agent, unsigned kind) {
  cfn_address_t at;
  CHECK_INT(cfn_bus_wait_agent(a, agent, t_in(30), &at), 0);
  t_until_waits(a, agent, kind);
}

/* ---- barriers ---- */

enum { PARTIES = 8, ROUNDS = 200 };
static void goes_round(cfn_bus_t *c) {
  for (int round = 1; round <= ROUNDS; round++) {
    cfn_arrival_t at;
    __atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
    CHECK_INT(wait_go(c, PARTIES, 0, NULL, 0, 60, &at), 0);
    CHECK(__atomic_load_n(&shared[0], __ATOMIC_SEQ_CST) >= round * PARTIES); /* nobody came through before all were there */
    __atomic_add_fetch(&shared[1 + at.index], 1, __ATOMIC_SEQ_CST);
    CHECK_INT(wait_for(c, PARTIES, 60), 0);
    CHECK(__atomic_load_n(&shared[0], __ATOMIC_SEQ_CST) <= (round + 1) * PARTIES);
  }
}
static void rounds(void) {
  t_case("rounds");
  start();
  pid_t p[PARTIES];
  for (int i = 0; i < PARTIES; i++) p[i] = child("", goes_round);
  for (int i = 0; i < PARTIES; i++) t_join(p[i]);
  for (int i = 0; i < PARTIES; i++) CHECK_INT(shared[1 + i], ROUNDS); /* each round has each place once */
  CHECK_INT(look().round, 2 * ROUNDS + 1);
  CHECK_INT(look().arrived, 0);
  CHECK_INT(wait_for(a, 3, 0), CFN_INVALID);
  CHECK(strstr(cfn_last_failure()->text, "takes 8 parties, and not 3"));
  CHECK_INT(cfn_bus_barrier_delete(a, "b", 1), 0);
  CHECK_INT(cfn_bus_barrier_delete(a, "b", 1), CFN_UNKNOWN_KEY);
  CHECK_INT(wait_for(a, 1, 0), 0);
  end();
}

static void timeouts(void) {
  t_case("who gives up has not come");
  start();
  CHECK_INT(wait_for(a, 2, 0), CFN_TIMEOUT);
  CHECK(strstr(cfn_last_failure()->text, "1 of 2 parties"));
  CHECK_INT(look().arrived, 0);
  CHECK_INT(wait_for(a, 2, 0.02), CFN_TIMEOUT);
  CHECK_INT(wait_for(b, 2, 0.02), CFN_TIMEOUT); /* the one that left is not counted */
  CHECK_INT(look().round, 1);
  CHECK_INT(wait_for(a, 0, 0), CFN_TIMEOUT);
  CHECK_INT(wait_for(a, 65536, 0), CFN_INVALID);
  CHECK_INT(cfn_bus_barrier_delete(a, "b", 1), 0);
  CHECK_INT(wait_for(a, 0, 0), CFN_INVALID);
  CHECK(strstr(cfn_last_failure()->text, "nobody has joined"));
  end();
}

static void waits_and_breaks(cfn_bus_t *c) {
  CHECK_INT(wait_for(c, 3, 30), CFN_BROKEN_BARRIER);
  __atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
}
static void waits_and_goes_on(cfn_bus_t *c) {
  cfn_arrival_t at;
  CHECK_INT(wait_go(c, 3, CFN_BARRIER_GO_ON, NULL, 0, 30, &at), 0);
}
static void waits(cfn_bus_t *c) { CHECK_INT(wait_for(c, 3, 30), 0); }

static void deaths(void) {
  t_case("a death breaks it for all");
  start();
  pid_t dead = child("d", waits), p = child("p", waits_and_breaks);
  until_waits("d", CFN_WAIT_BARRIER);
  until_waits("p", CFN_WAIT_BARRIER);
  CHECK_INT(look().arrived, 2);
  t_kill(dead, false);
  t_join(p);
  CHECK_INT(wait_for(a, 3, 30), CFN_BROKEN_BARRIER); /* who comes late is told, too */
  CHECK(strstr(cfn_last_failure()->text, "agent 'd' (process "));
  CHECK_INT(cfn_last_failure()->have, dead);
  CHECK(look().broken);
  CHECK_INT(cfn_bus_barrier_reset(a, "b", 1), 0);
  CHECK_INT(wait_for(a, 3, 0), CFN_TIMEOUT);
  cfn_bus_reap(a);
  end();

  t_case("a dead one is counted out");
  start();
  dead = child("d", waits_and_goes_on);
  until_waits("d", CFN_WAIT_BARRIER);
  p = child("p", waits_and_goes_on);
  until_waits("p", CFN_WAIT_BARRIER);
  t_kill(dead, false);
  cfn_arrival_t at;
  CHECK_INT(wait_go(a, 3, CFN_BARRIER_GO_ON, NULL, 0, 30, &at), 0);
  t_join(p);
  /* the next round takes one less; until the dead agent is back */
  pid_t q = child("q", waits_and_goes_on);
  until_waits("q", CFN_WAIT_BARRIER);
  uint32_t takes = look().parties;
  cfn_bus_t *d = t_attach("d");
  CHECK_INT(takes == 2 || takes == 3, 1); /* 3: it arrived, and all were there before its death was found */
  CHECK_INT(wait_go(d, 3, CFN_BARRIER_GO_ON, NULL, 0, 0, &at), CFN_TIMEOUT);
  CHECK_INT(look().parties, 3);
  t_kill(q, false);
  t_close(d);
  cfn_bus_reap(a);
  end();
}

static void never_comes(cfn_bus_t *c) {
  (void)c;
  for (;;) pause();
}
static void expected_ones(void) {
  t_case("one who was expected dies before it comes");
  start();
  cfn_address_t at;
  cfn_arrival_t arrival;
  pid_t p = child("x", never_comes);
  CHECK_INT(cfn_bus_wait_agent(a, "x", t_in(30), &at), 0);
  while (cfn_life_of_agent(cfn_bus_region(a), at.index, NULL) != CFN_LIFE_ALIVE) sched_yield();
  CHECK_INT(wait_go(a, 2, 0, &at, 1, 0.3, &arrival), CFN_TIMEOUT);
  t_kill(p, false);
  CHECK_INT(wait_go(a, 2, 0, &at, 1, 30, &arrival), CFN_BROKEN_BARRIER);
  CHECK(strstr(cfn_last_failure()->text, "agent 'x' (process "));
  CHECK_INT(cfn_bus_barrier_reset(a, "b", 1), 0);
  CHECK_INT(wait_go(a, 2, CFN_BARRIER_GO_ON, &at, 1, 30, &arrival), 0);
  CHECK_INT(wait_go(a, 2, CFN_BARRIER_GO_ON, &at, 1, 30, &arrival), 0); /* counted out once */
  CHECK_INT(look().parties, 1);
  cfn_bus_reap(a);
  end();
}

static void joins_waits_leaves(cfn_bus_t *c) {
  CHECK_INT(cfn_bus_barrier_join(c, "b", 1), 0);
  __atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
  CHECK_INT(wait_for(c, 0, 30), 0);
  CHECK_INT(wait_for(c, 0, 30), 0);
  CHECK_INT(cfn_bus_barrier_leave(c, "b", 1), 0);
  CHECK_INT(cfn_bus_barrier_leave(c, "b", 1), CFN_INVALID);
}
static void growing(void) {
  t_case("parties that join and leave");
  start();
  CHECK_INT(cfn_bus_barrier_join(a, "b", 1), 0);
  CHECK_INT(cfn_bus_barrier_join(a, "b", 1), CFN_INVALID);
  CHECK_INT(wait_for(a, 0, 0), 0); /* alone */
  pid_t p[3];
  for (int i = 0; i < 3; i++) p[i] = child("", joins_waits_leaves);
  while (__atomic_load_n(&shared[0], __ATOMIC_SEQ_CST) < 3) sched_yield();
  CHECK_INT(look().parties, 4);
  CHECK_INT(wait_for(a, 0, 30), 0);
  CHECK_INT(cfn_bus_barrier_leave(a, "b", 1), 0); /* they go on without us */
  for (int i = 0; i < 3; i++) t_join(p[i]);
  CHECK_INT(look().known, 0);
  /* one that joined and is dead breaks it, and is no party any more */
  pid_t d = t_fork();
  if (d == 0) {
    CHECK_INT(cfn_bus_barrier_join(t_attach("j"), "b", 1), 0);
    raise(SIGKILL);
  }
  CHECK_INT(waitpid(d, NULL, 0), d);
  CHECK_INT(cfn_bus_barrier_join(a, "b", 1), 0);
  CHECK_INT(wait_for(a, 0, 30), CFN_BROKEN_BARRIER);
  CHECK_INT(cfn_bus_barrier_reset(a, "b", 1), 0);
  CHECK_INT(wait_for(a, 0, 30), 0);
  cfn_bus_reap(a);
  end();
}

static void on_purpose(void) {
  t_case("broken, reset, deleted under those who wait");
  int (*const ends[])(cfn_bus_t *, const char *, uint32_t) = {cfn_bus_barrier_break, cfn_bus_barrier_reset, cfn_bus_barrier_delete};
  for (int i = 0; i < 3; i++) {
    start();
    CHECK_INT(ends[i](a, "b", 1), CFN_UNKNOWN_KEY);
    pid_t p = child("p", waits_and_breaks);
    until_waits("p", CFN_WAIT_BARRIER);
    CHECK_INT(ends[i](a, "b", 1), 0);
    t_join(p);
    end();
  }
  start();
  CHECK_INT(wait_for(a, 2, 0), CFN_TIMEOUT);
  CHECK_INT(cfn_bus_barrier_break(a, "b", 1), 0);
  CHECK_INT(wait_for(a, 2, 0), CFN_BROKEN_BARRIER);
  CHECK(strstr(cfn_last_failure()->text, "on purpose"));
  end();
}

/* A party that sleeps through rounds of others is told what its own came to, or that nobody knows any more. */
static void slept_through(void) {
  t_case("slept through rounds");
  for (int others = 1; others <= 9; others += 8) {
    start();
    cfn_arrival_t mine = {0}, at;
    int e;
    do e = cfn_bus_barrier_wait(a, "b", 1, 2, 0, NULL, 0, t_in(3600), &mine); /* until a tick of its own */
    while (e != CFN_INTERRUPTED);
    CHECK_INT(wait_go(b, 2, 0, NULL, 0, 30, &at), 0);
    for (int i = 1; i < others; i++) CHECK_INT(cfn_bus_barrier_reset(b, "b", 1), 0); /* each ends a round */
    e = cfn_bus_barrier_wait(a, "b", 1, 2, 0, NULL, 0, t_in(5), &mine);
    CHECK_INT(e, others == 1 ? 0 : CFN_BROKEN_BARRIER);
    if (others > 1) CHECK(strstr(cfn_last_failure()->text, "rounds while this process slept"));
    end();
  }
}

static void made_anew(void) {
  t_case("another barrier of the same name");
  start();
  cfn_arrival_t mine = {0};
  int e;
  do e = cfn_bus_barrier_wait(a, "b", 1, 2, 0, NULL, 0, t_in(3600), &mine);
  while (e != CFN_INTERRUPTED);
  CHECK_INT(cfn_bus_barrier_delete(b, "b", 1), 0);
  CHECK_INT(wait_for(b, 1, 0), 0); /* the first round of the new one ends */
  CHECK_INT(look().round, 2);
  CHECK_INT(cfn_bus_barrier_wait(a, "b", 1, 2, 0, NULL, 0, t_in(5), &mine), CFN_BROKEN_BARRIER);
  end();
}

/* Who cannot say that it leaves is there still, once. */
static void no_room_to_leave(void) {
  t_case("no room to leave");
  cfn_wish_t wish = t_small_wish();
  wish.objects = 4;
  a = t_open("a", &wish);
  b = t_attach("b");
  cfn_arrival_t mine = {0};
  uint64_t version;
  int e;
  do e = cfn_bus_barrier_wait(a, "b", 1, 2, 0, NULL, 0, t_in(3600), &mine);
  while (e != CFN_INTERRUPTED);
  char key[] = "k0";
  for (int i = 0; cfn_bus_ref_set(b, key, 2, CFN_ANY_VERSION, 0, "x", 1, &version) == CFN_OK && i < 8; i++) key[1]++;
  CHECK_INT(cfn_last_failure()->code, CFN_NO_SPACE);
  CHECK_INT(cfn_bus_barrier_wait(a, "b", 1, 2, 0, NULL, 0, 0, &mine), CFN_NO_SPACE);
  CHECK_INT(mine.here, 1);
  CHECK_INT(look().arrived, 1);
  CHECK_INT(cfn_bus_ref_delete(b, "k0", 2, CFN_ANY_VERSION), 0);
  CHECK_INT(cfn_bus_barrier_wait(a, "b", 1, 2, 0, NULL, 0, 0, &mine), CFN_TIMEOUT);
  CHECK_INT(look().arrived, 0);
  end();
}

/* ---- semaphores ---- */

static int permit(cfn_bus_t *bus, uint32_t permits, double timeout, uint64_t *token) {
  uint64_t deadline = timeout > 0 ? t_in(timeout) : 0;
  int e;
  do {
    e = cfn_bus_semaphore_take(bus, "s", 1, permits, deadline, token);
  } while (e == CFN_INTERRUPTED);
  return e;
}
static void uses_permits(cfn_bus_t *c) {
  for (int i = 0; i < 100; i++) {
    uint64_t token;
    CHECK_INT(permit(c, 3, 60, &token), 0);
    int inside = __atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
    CHECK(inside <= 3);
    if (inside == 3) __atomic_store_n(&shared[1], 1, __ATOMIC_SEQ_CST);
    sched_yield();
    __atomic_sub_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
    CHECK_INT(cfn_bus_semaphore_give_back(c, "s", 1, token), 0);
  }
}
static void takes_one(cfn_bus_t *c) {
  uint64_t token;
  CHECK_INT(permit(c, 2, 0, &token), 0);
  __atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
  for (;;) pause();
}
static void semaphores(void) {
  t_case("semaphores");
  start();
  uint64_t one, two, three;
  cfn_holder_t h[4];
  uint32_t permits;
  CHECK_INT(cfn_bus_semaphore_holders(a, "s", 1, &permits, h, 4), 0);
  CHECK_INT(permits, 0);
  CHECK_INT(permit(a, 2, 0, &one), 0);
  CHECK_INT(permit(a, 2, 0, &two), 0);
  CHECK(two > one);
  CHECK_INT(permit(b, 2, 0, &three), CFN_TIMEOUT);
  CHECK_INT(permit(b, 2, 0.02, &three), CFN_TIMEOUT);
  CHECK_INT(permit(b, 3, 0, &three), CFN_INVALID);
  CHECK_INT(permit(b, 0, 0, &three), CFN_INVALID);
  CHECK_INT(cfn_bus_semaphore_holders(b, "s", 1, &permits, h, 4), 2);
  CHECK(permits == 2 && strcmp(h[1].agent, "a") == 0 && h[0].token == one && h[0].pid == (uint64_t)getpid());
  CHECK_INT(cfn_bus_semaphore_give_back(b, "s", 1, one), CFN_LEASE_LOST);
  CHECK_INT(cfn_bus_semaphore_give_back(a, "s", 1, one), 0);
  CHECK_INT(cfn_bus_semaphore_give_back(a, "s", 1, one), CFN_LEASE_LOST);
  CHECK_INT(permit(b, 2, 0, &three), 0);
  t_close(b); /* gives it back */
  b = t_attach("b");
  CHECK_INT(permit(b, 2, 0, &three), 0);
  CHECK_INT(cfn_bus_semaphore_give_back(b, "s", 1, three), 0);
  CHECK_INT(cfn_bus_semaphore_give_back(a, "s", 1, two), 0);
  CHECK_INT(permit(b, 3, 0, &three), 0); /* unused, it may have another number */
  CHECK_INT(cfn_bus_semaphore_give_back(b, "s", 1, three), 0);
  end();

  t_case("many at a semaphore");
  start();
  pid_t p[PARTIES];
  for (int i = 0; i < PARTIES; i++) p[i] = child("", uses_permits);
  for (int i = 0; i < PARTIES; i++) t_join(p[i]);
  CHECK_INT(shared[1], 1); /* and three were inside at once */
  end();

  t_case("permits of the dead");
  start();
  for (int i = 0; i < 2; i++) p[i] = child("", takes_one);
  while (__atomic_load_n(&shared[0], __ATOMIC_SEQ_CST) < 2) sched_yield();
  CHECK_INT(permit(a, 2, 0.02, &one), CFN_TIMEOUT);
  t_kill(p[0], false);
  CHECK_INT(permit(a, 2, 0, &one), 0);
  CHECK_INT(permit(a, 2, 0, &two), CFN_TIMEOUT);
  t_kill(p[1], false);
  CHECK_INT(permit(a, 2, 30, &two), 0);
  CHECK_INT(cfn_bus_semaphore_holders(b, "s", 1, &permits, h, 4), 2);
  cfn_bus_reap(a);
  end();
}

/* Who holds a permit and waits at a barrier, and is stopped; who is nobody's agent; lists with less room than there is. */
static void takes_and_waits(cfn_bus_t *c) {
  uint64_t token;
  cfn_arrival_t at;
  CHECK_INT(permit(c, 3, 0, &token), 0);
  wait_go(c, 9, 0, NULL, 0, 30, &at);
}
static void shown(void) {
  t_case("what is shown");
  start();
  uint64_t token;
  uint32_t permits;
  cfn_holder_t h[4];
  cfn_party_t party[4];
  cfn_barrier_info_t info;
  pid_t p = child("c", takes_and_waits);
  until_waits("c", CFN_WAIT_BARRIER);
  CHECK_INT(cfn_bus_barrier_join(a, "b", 1), 0);
  CHECK_INT(permit(a, 3, 0, &token), 0);
  CHECK_INT(kill(p, SIGSTOP), 0);
  int status;
  CHECK_INT(waitpid(p, &status, WUNTRACED), p);
  CHECK_INT(cfn_bus_semaphore_holders(a, "s", 1, &permits, h, 4), 2);
  CHECK_INT(h[0].life, CFN_HOLDER_STOPPED);
  CHECK_INT(h[1].life, CFN_HOLDER_ALIVE);
  CHECK_INT(cfn_bus_semaphore_holders(a, "s", 1, &permits, h, 1), 2);
  CHECK_INT(cfn_bus_barrier_look(a, "b", 1, &info, party, 4), 0);
  CHECK_INT(info.known, 2);
  CHECK_INT(party[0].life + party[1].life, CFN_HOLDER_STOPPED + CFN_HOLDER_ALIVE);
  CHECK_INT(cfn_bus_barrier_look(a, "b", 1, &info, party, 1), 0);
  CHECK_INT(info.known, 2);
  t_kill(p, false);
  cfn_arrival_t at;
  CHECK_INT(wait_go(a, 9, 0, NULL, 0, 30, &at), CFN_BROKEN_BARRIER);
  CHECK(strstr(cfn_last_failure()->text, "'c'"));
  CHECK_INT(cfn_bus_barrier_break(a, "b", 1), 0); /* broken already */
  CHECK_INT(cfn_bus_barrier_break(a, "b", 1), 0);
  CHECK_INT(cfn_bus_barrier_reset(a, "b", 1), 0);
  cfn_bus_reap(a);
  CHECK_INT(cfn_bus_barrier_leave(a, "b", 1), 0);
  CHECK_INT(cfn_bus_barrier_delete(a, "b", 1), 0);
  p = child("", waits);
  int e;
  do e = cfn_bus_barrier_look(a, "b", 1, &info, party, 4);
  while (e == CFN_UNKNOWN_KEY || info.arrived == 0);
  CHECK_INT(e, 0);
  t_kill(p, false);
  CHECK_INT(wait_go(b, 3, 0, NULL, 0, 30, &at), CFN_BROKEN_BARRIER);
  CHECK(strstr(cfn_last_failure()->text, "a party (process"));
  CHECK_INT(cfn_bus_barrier_leave(a, "b", 1), CFN_INVALID); /* it is no party */
  cfn_address_t nobody = {.index = 1000};
  CHECK_INT(cfn_bus_barrier_reset(a, "b", 1), 0);
  CHECK_INT(wait_go(b, 3, 0, &nobody, 1, 0, &at), CFN_TIMEOUT);
  CHECK_INT(wait_for(a, 70000, 0), CFN_INVALID);
  CHECK_INT(permit(a, 70000, 0, &token), CFN_INVALID);
  CHECK_INT(cfn_bus_barrier_look(a, "no such", 7, &info, party, 4), CFN_UNKNOWN_KEY);
  CHECK_INT(cfn_bus_barrier_break(a, "no such", 7), CFN_UNKNOWN_KEY);
  static const char *const bad[] = {"", "\xff"};
  for (int i = 0; i < 2; i++) {
    uint32_t n = (uint32_t)strlen(bad[i]);
    CHECK_INT(cfn_bus_barrier_wait(a, bad[i], n, 2, 0, NULL, 0, 0, &at), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_barrier_look(a, bad[i], n, &info, party, 4), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_barrier_join(a, bad[i], n), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_barrier_reset(a, bad[i], n), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_barrier_delete(a, bad[i], n), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_semaphore_take(a, bad[i], n, 1, 0, &token), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_semaphore_give_back(a, bad[i], n, 1), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_semaphore_holders(a, bad[i], n, &permits, h, 4), CFN_BAD_NAME);
  }
  cfn_bus_reap(a);
  end();
}

static void damage(void) {
  t_case("damage");
  start();
  cfn_ref_key_t key;
  uint64_t version, token;
  for (int i = 0; i < 2; i++) {
    CHECK_INT(cfn_ref_key_of("x", i ? 'S' : 'B', i ? "s" : "b", 1, &key), 0);
    CHECK_INT(cfn_bus_enter(a), 0);
    CHECK_INT(cfn_ref_set(a, key.text, key.bytes, CFN_ANY_VERSION, 0, "nonsense", 8, 0, &version), 0);
    cfn_bus_leave(a);
  }
  cfn_barrier_info_t info;
  uint32_t permits;
  CHECK_INT(wait_for(a, 2, 5), CFN_CORRUPT);
  CHECK_INT(cfn_bus_barrier_look(a, "b", 1, &info, NULL, 0), CFN_CORRUPT);
  CHECK_INT(cfn_bus_barrier_reset(a, "b", 1), CFN_CORRUPT);
  CHECK_INT(cfn_bus_barrier_delete(a, "b", 1), 0);
  CHECK_INT(permit(a, 2, 5, &token), CFN_CORRUPT);
  CHECK_INT(cfn_bus_semaphore_give_back(a, "s", 1, 1), CFN_CORRUPT);
  CHECK_INT(cfn_bus_semaphore_holders(a, "s", 1, &permits, NULL, 0), CFN_CORRUPT);
  end();
}

int main(void) {
  t_guard(180);
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  rounds();
  timeouts();
  deaths();
  expected_ones();
  growing();
  on_purpose();
  slept_through();
  made_anew();
  no_room_to_leave();
  semaphores();
  shown();
  damage();
  t_passed("test_barrier");
  return 0;
}
