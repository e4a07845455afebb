/* Locks and leaderships: one holds, the others wait; numbers grow; a dead holder is told of, a stopped one keeps what it
 * holds; circles of waiters are found. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/bus.h"
#include "base/os.h"
#include "sync/lease.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;

static void start(void) {
  cfn_wish_t wish = t_small_wish();
  wish.refs = 8;
  a = t_open("a", &wish);
  b = t_attach("b");
}
static void end(void) {
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}
enum { INTACT = 0x100 }; /* of take_as: not what a dead one held */
static cfn_holder_t died;
static int take_as(cfn_bus_t *bus, const char *name, int flags, double timeout, cfn_held_t *out) {
  uint64_t deadline = timeout < 0 ? CFN_FOREVER : timeout > 0 ? t_in(timeout) : 0;
  int e;
  do {
    e = cfn_bus_lease_take(bus, CFN_LEASE_LOCK, name, (uint32_t)strlen(name), flags & 0xff, deadline, out,
                           flags & INTACT ? NULL : &died);
  } while (e == CFN_INTERRUPTED);
  return e;
}
static int take(cfn_bus_t *bus, const char *name, double timeout, cfn_held_t *out) {
  return take_as(bus, name, 0, timeout, out);
}
static cfn_holder_t holder(const char *name) {
  cfn_holder_t h;
  CHECK_INT(cfn_bus_lease_holder(a, CFN_LEASE_LOCK, name, (uint32_t)strlen(name), &h), 0);
  return h;
}

static void until_waits(cfn_bus_t *bus, const char *agent, unsigned kind) {
  cfn_address_t at;
  CHECK_INT(cfn_bus_wait_agent(bus, agent, t_in(30), &at), 0);
  t_until_waits(bus, agent, kind);
}

static void one_at_a_time(void) {
  t_case("one at a time");
  start();
  cfn_held_t x, y, z;
  CHECK_INT(holder("l").token, 0);
  CHECK_INT(take(a, "l", 0, &x), 0);
  CHECK_INT(died.token, 0);
  CHECK_INT(take(b, "l", 0, &y), CFN_TIMEOUT);
  CHECK(strstr(cfn_last_failure()->text, "lock 'l' is held by agent 'a', process "));
  CHECK_INT(take(b, "l", 0.02, &y), CFN_TIMEOUT);
  CHECK_INT(take(b, "other", 0, &y), 0);
  CHECK(y.token > x.token);
  cfn_holder_t h = holder("l");
  CHECK_INT(h.token, x.token);
  CHECK_INT(h.life, CFN_HOLDER_ALIVE);
  CHECK_INT(h.pid, getpid());
  CHECK(strcmp(h.agent, "a") == 0 && strcmp(h.name, "l") == 0);
  cfn_holder_t list[4];
  CHECK_INT(cfn_bus_lease_list(a, CFN_LEASE_LOCK, list, 4), 2);
  CHECK_INT(cfn_bus_lease_list(a, CFN_LEASE_LEADER, list, 4), 0);
  CHECK_INT(cfn_bus_lease_check(a, &x), 0);
  CHECK_INT(cfn_bus_lease_check(b, &x), CFN_INVALID);
  CHECK_INT(cfn_bus_lease_give_back(b, &x), CFN_INVALID);
  CHECK_INT(cfn_bus_lease_give_back(a, &x), 0);
  CHECK_INT(cfn_bus_lease_give_back(a, &x), CFN_LEASE_LOST);
  CHECK_INT(cfn_bus_lease_check(a, &x), CFN_LEASE_LOST);
  CHECK_INT(take(b, "l", 0, &z), 0);
  CHECK(z.token > y.token);
  CHECK_INT(cfn_bus_lease_give_back(a, &x), CFN_LEASE_LOST); /* an old one ends nobody's new one */
  /* who leaves gives back what it holds; nobody died */
  t_close(b);
  b = t_attach("b");
  CHECK_INT(take(a, "l", 0, &x), 0);
  CHECK_INT(died.token, 0);
  CHECK_INT(cfn_bus_lease_give_back(a, &x), 0);
  /* names are their own world, and no values */
  char out[8];
  CHECK_INT(cfn_bus_ref_get(a, "l", 1, out, sizeof out, NULL), CFN_UNKNOWN_KEY);
  CHECK_INT(cfn_bus_ref_get(a, "\1Ll", 3, out, sizeof out, NULL), CFN_BAD_NAME);
  CHECK_INT(cfn_bus_ref_list(a, "", 0, NULL, 0), 0);
  CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LEADER, "l", 1, 0, 0, &x, NULL), 0);
  CHECK_INT(take(a, "l", 0, &y), 0);
  CHECK_INT(cfn_bus_lease_take(a, 'x', "l", 1, 0, 0, &x, NULL), CFN_INVALID);
  CHECK_INT(take(a, "", 0, &x), CFN_BAD_NAME);
  CHECK_INT(take(a, "a\nb", 0, &x), CFN_BAD_NAME);
  char longest[127];
  memset(longest, 'n', sizeof longest);
  CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LOCK, longest, 126, 0, 0, &x, NULL), CFN_BAD_NAME);
  CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LOCK, longest, 125, 0, 0, &x, NULL), 0);
  end();
}

static void names_are_used_again(void) {
  t_case("names are used again");
  start(); /* room for 8 names */
  cfn_held_t held[8], x;
  char name[16];
  uint64_t last = 0;
  for (int i = 0; i < 100; i++) {
    snprintf(name, sizeof name, "lock-%d", i);
    CHECK_INT(take(a, name, 0, &x), 0);
    CHECK(x.token > last);
    last = x.token;
    CHECK_INT(cfn_bus_lease_give_back(a, &x), 0);
  }
  for (int i = 0; i < 8; i++) {
    snprintf(name, sizeof name, "lock-%d", i);
    CHECK_INT(take(a, name, 0, &held[i]), 0);
  }
  CHECK_INT(take(a, "one more", 0, &x), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_bus_lease_give_back(a, &held[3]), 0);
  CHECK_INT(take(a, "one more", 0, &x), 0);
  CHECK_INT(take(b, "lock-4", 0, &x), CFN_TIMEOUT);
  end();
}

/* A child that does `body` and then sleeps for good. */
static pid_t child(void (*body)(cfn_bus_t *)) {
  int ready[2];
  CHECK_INT(pipe(ready), 0);
  pid_t p = t_fork();
  if (p == 0) {
    cfn_bus_t *c = t_attach("c");
    body(c);
    CHECK_INT(write(ready[1], "x", 1), 1);
    for (;;) pause();
  }
  char x;
  CHECK_INT(read(ready[0], &x, 1), 1);
  close(ready[0]);
  close(ready[1]);
  return p;
}
static void takes_l(cfn_bus_t *c) {
  cfn_held_t x;
  CHECK_INT(take(c, "l", 0, &x), 0);
}

static void dead_holders(void) {
  t_case("a dead holder");
  start();
  for (int reaped = 0; reaped < 3; reaped++) {
    pid_t p = child(takes_l);
    uint64_t token = holder("l").token;
    cfn_held_t x;
    CHECK_INT(take(a, "l", 0, &x), CFN_TIMEOUT);
    t_kill(p, reaped == 2); /* also as a zombie */
    if (reaped == 1) CHECK_INT(cfn_bus_reap(a), 1);
    cfn_holder_t h = holder("l");
    CHECK_INT(h.life, CFN_HOLDER_DEAD);
    CHECK_INT(h.token, token);
    CHECK_INT(h.pid, p);
    CHECK(strcmp(h.agent, "c") == 0);
    CHECK(h.died_wall_ns >= h.since_wall_ns);
    CHECK_INT(take_as(a, "l", INTACT, 5, &x), CFN_OWNER_DIED);
    CHECK(strstr(cfn_last_failure()->text, "agent 'c', process "));
    CHECK_INT(take_as(b, "l", INTACT, 5, &x), CFN_OWNER_DIED); /* asking takes nothing away */
    CHECK_INT(take(b, "l", 5, &x), 0);
    CHECK_INT(died.token, token);
    CHECK_INT(died.pid, p);
    CHECK(strcmp(died.agent, "c") == 0);
    CHECK_INT(cfn_bus_lease_give_back(b, &x), 0);
    CHECK_INT(take(b, "l", 5, &x), 0); /* told once */
    CHECK_INT(died.token, 0);
    CHECK_INT(cfn_bus_lease_give_back(b, &x), 0);
    if (reaped == 2) CHECK_INT(waitpid(p, NULL, 0), p);
  }
  end();
}

/* A waiter finds it dead by itself; nobody else looks. */
static void dies_under_a_waiter(void) {
  t_case("dies under a waiter");
  start();
  pid_t p = child(takes_l);
  pid_t w = t_fork();
  if (w == 0) {
    cfn_bus_t *c = t_attach("w");
    cfn_held_t x;
    CHECK_INT(take(c, "l", 30, &x), 0);
    CHECK_INT(died.pid, p);
    cfn_bus_free(c);
    _exit(0);
  }
  until_waits(a, "w", CFN_WAIT_LEASE);
  t_kill(p, false);
  t_join(w);
  end();
}

static void stopped_holders(void) {
  t_case("a stopped holder");
  start();
  pid_t p = child(takes_l);
  CHECK_INT(kill(p, SIGSTOP), 0);
  int status;
  CHECK_INT(waitpid(p, &status, WUNTRACED), p);
  cfn_held_t x;
  CHECK_INT(take(a, "l", 0.3, &x), CFN_TIMEOUT);
  CHECK(strstr(cfn_last_failure()->text, "stopped"));
  CHECK_INT(holder("l").life, CFN_HOLDER_STOPPED);
  CHECK_INT(take_as(a, "l", CFN_LEASE_STEAL, 0, &x), 0); /* an operator's decision */
  CHECK_INT(died.token, 0);
  CHECK_INT(cfn_bus_lease_check(a, &x), 0);
  CHECK_INT(cfn_bus_lease_give_back(a, &x), 0);
  t_kill(p, false);
  cfn_bus_reap(a);
  CHECK_INT(take(b, "l", 0, &x), 0); /* what was stolen from it did not die with it */
  CHECK_INT(died.token, 0);
  end();
}

static void shown(void) {
  t_case("what is shown, and what makes no sense");
  start();
  cfn_held_t x, y;
  cfn_holder_t h;
  CHECK_INT(take(a, "l", 0, &x), 0);
  CHECK_INT(take(a, "m", 0, &y), 0);
  CHECK_INT(cfn_bus_lease_list(b, CFN_LEASE_LOCK, &h, 1), 2);
  CHECK_INT(cfn_bus_lease_list(b, CFN_LEASE_LEADER, &h, 1), 0);
  cfn_held_t far = x;
  far.ref = 1u << 20;
  CHECK_INT(cfn_bus_lease_check(a, &far), CFN_INVALID);
  CHECK_INT(cfn_bus_lease_give_back(a, &far), CFN_INVALID);
  far = (cfn_held_t){.ref = x.ref};
  CHECK_INT(cfn_bus_lease_check(a, &far), CFN_INVALID);
  CHECK_INT(cfn_bus_lease_check(b, &x), CFN_INVALID); /* another one's */
  CHECK_INT(cfn_bus_lease_give_back(b, &x), CFN_INVALID);
  static const char *const bad[] = {"", "\xff"};
  for (int i = 0; i < 2; i++) {
    uint32_t n = (uint32_t)strlen(bad[i]);
    CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LOCK, bad[i], n, 0, 0, &x, &h), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_lease_holder(a, CFN_LEASE_LOCK, bad[i], n, &h), CFN_BAD_NAME);
    CHECK_INT(cfn_bus_lease_wait(a, CFN_LEASE_LOCK, bad[i], n, 0, 0, &h), CFN_BAD_NAME);
  }
  CHECK_INT(cfn_bus_lease_give_back(a, &y), 0);
  end();
}

/* ---- many ---- */

static void exclude_each_other(void) {
  t_case("they exclude each other");
  start();
  enum { WORKERS = 8, TURNS = 500 };
  int64_t sum;
  uint64_t version;
  pid_t p[WORKERS];
  for (int i = 0; i < WORKERS; i++) {
    p[i] = t_fork();
    if (p[i]) continue;
    cfn_bus_t *c = t_attach(NULL);
    for (int n = 0; n < TURNS; n++) {
      cfn_held_t x;
      char text[32] = "0";
      CHECK_INT(take(c, "l", 30, &x), 0);
      /* not atomic on purpose: the lock makes it so */
      cfn_bus_ref_get(c, "n", 1, text, sizeof text - 1, NULL);
      int64_t was = atoll(text);
      int len = snprintf(text, sizeof text, "%lld", (long long)was + 1);
      memset(text + len, 0, sizeof text - (size_t)len);
      CHECK_INT(cfn_bus_ref_set(c, "n", 1, CFN_ANY_VERSION, CFN_CODEC_JSON, text, (uint64_t)len, &version), 0);
      CHECK_INT(cfn_bus_lease_give_back(c, &x), 0);
    }
    cfn_bus_free(c);
    _exit(0);
  }
  for (int i = 0; i < WORKERS; i++) t_join(p[i]);
  CHECK_INT(cfn_bus_ref_add(a, "n", 1, 0, &sum, &version), 0);
  CHECK_INT(sum, WORKERS * TURNS);
  end();
}

static void leaders(void) {
  t_case("followers see who leads");
  start();
  cfn_held_t x, y;
  cfn_holder_t h;
  CHECK_INT(cfn_bus_lease_wait(a, CFN_LEASE_LEADER, "e", 1, 0, t_in(0.02), &h), CFN_TIMEOUT);
  CHECK_INT(cfn_bus_lease_take(b, CFN_LEASE_LEADER, "e", 1, 0, 0, &x, NULL), 0);
  CHECK_INT(cfn_bus_lease_wait(a, CFN_LEASE_LEADER, "e", 1, 0, t_in(5), &h), 0);
  CHECK_INT(h.token, x.token);
  pid_t p = t_fork();
  if (p == 0) {
    cfn_bus_t *c = t_attach("f");
    int e;
    do {
      e = cfn_bus_lease_wait(c, CFN_LEASE_LEADER, "e", 1, x.token, t_in(30), &h);
    } while (e == CFN_INTERRUPTED);
    CHECK_INT(e, 0);
    CHECK(h.token > x.token && h.life == CFN_HOLDER_ALIVE && strcmp(h.agent, "a") == 0);
    cfn_bus_free(c);
    _exit(0);
  }
  until_waits(a, "f", CFN_WAIT_HOLDER);
  CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LEADER, "e", 1, CFN_LEASE_STEAL, 0, &y, NULL), 0);
  t_join(p);
  CHECK_INT(cfn_bus_lease_check(b, &x), CFN_LEASE_LOST);
  CHECK(strstr(cfn_last_failure()->text, "leadership 'e'"));
  end();
}

/* ---- circles ---- */

/* Holds `has`, says so, and wants `wants` from then on. */
static pid_t wanter(const char *agent, const char *has, const char *wants, int expect) {
  int ready[2];
  CHECK_INT(pipe(ready), 0);
  pid_t p = t_fork();
  if (p == 0) {
    cfn_bus_t *c = t_attach(agent);
    cfn_held_t x, y;
    CHECK_INT(take(c, has, 0, &x), 0);
    CHECK_INT(write(ready[1], "x", 1), 1);
    CHECK_INT(take(c, wants, 30, &y), expect);
    if (expect == CFN_DEADLOCK) {
      CHECK(strstr(cfn_last_failure()->text, "which this process holds"));
      CHECK(strstr(cfn_last_failure()->text, wants));
    }
    cfn_bus_free(c);
    _exit(0);
  }
  char x;
  CHECK_INT(read(ready[0], &x, 1), 1);
  close(ready[0]);
  close(ready[1]);
  return p;
}

static void circles(void) {
  t_case("circles of waiters");
  for (int size = 1; size <= 3; size++) {
    start();
    static const char *const name[] = {"x", "y", "z"};
    cfn_held_t mine, more;
    CHECK_INT(take(a, name[0], 0, &mine), 0);
    pid_t p[3];
    for (int i = 1; i < size; i++) p[i] = wanter(name[i], name[i], name[i - 1], 0);
    for (int i = 1; i < size; i++) until_waits(b, name[i], CFN_WAIT_LEASE);
    CHECK_INT(take(a, name[size - 1], 30, &more), CFN_DEADLOCK);
    CHECK_INT(cfn_last_failure()->have, size);
    CHECK_INT(cfn_load_relaxed(&a->actor.slot->waiting), 0); /* who was told waits no more */
    CHECK_INT(cfn_bus_lease_give_back(a, &mine), 0);
    for (int i = 1; i < size; i++) t_join(p[i]);
    end();
  }
  t_case("a waiter that is no part of the circle goes on waiting");
  start();
  cfn_held_t mine, more;
  CHECK_INT(take(a, "x", 0, &mine), 0);
  pid_t p = wanter("y", "y", "x", 0);
  until_waits(b, "y", CFN_WAIT_LEASE);
  CHECK_INT(take(b, "y", 0.05, &more), CFN_TIMEOUT);
  CHECK_INT(cfn_bus_lease_give_back(a, &mine), 0);
  t_join(p);
  CHECK_INT(take(b, "y", 5, &more), 0);
  end();
}

/* Who gave up in the moment before it would have slept waits for nothing. */
static void gave_up(void) {
  t_case("who gave up is in no circle");
  start();
  cfn_held_t one, two, x;
  CHECK_INT(take(a, "1", 0, &one), 0);
  CHECK_INT(take(b, "2", 0, &two), 0);
  for (unsigned i = 0; i < 20000; i++) {
    CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LOCK, "2", 1, 0, cfn_os_monotonic_ns() + 300 + i % 400 * 40, &x, NULL) ==
                  CFN_OK, 0);
    CHECK_INT(cfn_load_relaxed(&a->actor.slot->waiting), 0);
  }
  CHECK_INT(take(b, "1", 0.01, &x), CFN_TIMEOUT);
  end();
}

/* One of what looks like a circle is dead: what it holds will be free. */
static void dead_member(void) {
  t_case("a circle with a dead one in it");
  start();
  cfn_held_t mine, x;
  CHECK_INT(take(a, "3", 0, &mine), 0);
  pid_t dead = wanter("d", "2", "3", 0);
  until_waits(b, "d", CFN_WAIT_LEASE);
  pid_t q = wanter("q", "1", "2", 0);
  until_waits(b, "q", CFN_WAIT_LEASE);
  t_kill(dead, false);
  CHECK_INT(take(a, "1", 30, &x), 0);
  t_join(q);
  end();
}

static cfn_held_t second;
static void *takes_l_second(void *unused) {
  CHECK_INT(take(a, "l", 0, &second), 0);
  return unused;
}
static void *waits_for_x(void *unused) {
  cfn_held_t x;
  CHECK_INT(take(a, "x", 30, &x), 0);
  return unused;
}
/* One thread waits, another takes: the handle as a whole does not wait. */
static void two_threads(void) {
  t_case("two threads of one handle");
  start();
  cfn_held_t x, l;
  pthread_t one, two;
  CHECK_INT(take(b, "x", 0, &x), 0);
  CHECK_INT(pthread_create(&one, NULL, waits_for_x, NULL), 0);
  t_until_waits(b, "a", CFN_WAIT_LEASE);
  CHECK_INT(pthread_create(&two, NULL, takes_l_second, NULL), 0);
  CHECK_INT(pthread_join(two, NULL), 0);
  CHECK_INT(take(b, "l", 0.05, &l), CFN_TIMEOUT);
  CHECK_INT(cfn_bus_lease_give_back(b, &x), 0);
  CHECK_INT(pthread_join(one, NULL), 0);
  end();
}

static void damage(void) {
  t_case("damage");
  start();
  cfn_held_t x;
  uint64_t version;
  CHECK_INT(take(a, "l", 0, &x), 0);
  cfn_region_t *r = cfn_bus_region(a);
  cfn_a64 *word = &cfn_ref(r, x.ref)->word;
  /* a holder that no bus has */
  cfn_store_seq(word, cfn_ref_word(CFN_REF_LEASE + 8000, 99));
  CHECK_INT(cfn_bus_lease_check(a, &x), CFN_LEASE_LOST);
  CHECK_INT(take(b, "l", 5, &x), 0);
  CHECK_INT(cfn_bus_lease_give_back(b, &x), 0);
  /* one that is not there any more */
  cfn_store_seq(word, cfn_ref_word(CFN_REF_LEASE + r->geo.config.attachments - 1, 99));
  CHECK_INT(take(b, "l", 5, &x), 0);
  CHECK_INT(died.pid, 0);
  /* a value where a lease should be */
  CHECK_INT(cfn_bus_ref_set(a, "v", 1, 0, 0, "x", 1, &version), 0);
  cfn_store_seq(word, cfn_ref_word(1, 100));
  CHECK_INT(take(b, "l", 5, &x), CFN_CORRUPT);
  cfn_store_seq(word, cfn_ref_word(0, 101));
  end();
}

int main(void) {
  t_guard(120);
  one_at_a_time();
  names_are_used_again();
  dead_holders();
  dies_under_a_waiter();
  stopped_holders();
  shown();
  exclude_each_other();
  leaders();
  circles();
  gave_up();
  dead_member();
  two_threads();
  damage();
  t_passed("test_lease");
  return 0;
}
