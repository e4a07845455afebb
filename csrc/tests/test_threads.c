/* Agents as threads, each with its own handle on one mapping: what ThreadSanitizer can see. */
#include <pthread.h>
#include <string.h>

#include "tests/harness.h"

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifdef UNDER_TSAN
enum { MESSAGES = 6000, CHURN = 1000, ASKS = 1500 };
#else
enum { MESSAGES = 20000, CHURN = 1500, ASKS = 2000 };
#endif
enum { SENDERS = 8, ASKERS = 6 };

static cfn_a32 stop;
static cfn_wish_t wish_many(void) {
  cfn_wish_t w = t_small_wish();
  w.agents = 32;
  w.class_chunks[0] = 64;
  w.class_chunks[1] = 32;
  w.class_chunks[2] = 16;
  return w;
}
static uint32_t random_next(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

static void run(unsigned n, void *(*what)(void *), pthread_t *threads) {
  for (unsigned i = 0; i < n; i++)
    CHECK_INT(pthread_create(&threads[i], NULL, what, (void *)(uintptr_t)i), 0);
}
static void join(unsigned n, const pthread_t *threads) {
  for (unsigned i = 0; i < n; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
}
static void end(cfn_bus_t *bus) {
  t_check_nothing_held(bus);
  t_check_region(bus, true);
  t_close(bus);
  t_destroy();
}

/* ---- many to one: small lanes, so that senders wait for room all the time ---- */

typedef struct numbered {
  uint32_t sender, number;
} numbered_t;

static void *send_many(void *arg) {
  uint32_t me = (uint32_t)(uintptr_t)arg, seed = me * 77u + 1u;
  char name[16];
  snprintf(name, sizeof name, "sender%u", me);
  cfn_bus_t *bus = t_attach(name);
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(bus, "sink", &to), 0);
  uint8_t text[1600];
  for (uint32_t i = 0; i < MESSAGES;) {
    uint32_t left = MESSAGES - i, n = 1 + random_next(&seed) / 16 % 4;
    if (n > left) n = left;
    cfn_outgoing_t m[4];
    numbered_t number[4];
    for (uint32_t k = 0; k < n; k++) {
      number[k] = (numbered_t){me, i + k};
      m[k] = (cfn_outgoing_t){.body = &number[k], .body_bytes = sizeof number[k]};
    }
    if (n == 1) { /* varying size, filled with what the number says */
      uint32_t bytes = (uint32_t)sizeof number[0] + random_next(&seed) / 16 % 1500;
      memset(text, (int)(i & 0xff), bytes);
      memcpy(text, &number[0], sizeof number[0]);
      m[0] = (cfn_outgoing_t){.body = text, .body_bytes = bytes};
    }
    int e;
    do {
      e = cfn_bus_send(bus, &to, CFN_LANE_NORMAL, m, n, CFN_FOREVER, NULL);
    } while (e == CFN_INTERRUPTED);
    CHECK_INT(e, 0);
    i += n;
  }
  t_close(bus);
  return NULL;
}

static void many_to_one(void) {
  t_case("many to one");
  cfn_wish_t wish = wish_many();
  cfn_bus_t *sink = t_open("sink", &wish);
  pthread_t threads[SENDERS];
  uint32_t next[SENDERS] = {0};
  run(SENDERS, send_many, threads);
  char text[4096];
  cfn_wire_t w;
  for (long n = 0; n < (long)SENDERS * MESSAGES; n++) {
    int64_t bytes = t_recv(sink, 60, &w, text);
    CHECK(bytes >= (int64_t)sizeof(numbered_t));
    numbered_t who;
    memcpy(&who, text, sizeof who);
    CHECK(who.sender < SENDERS);
    CHECK_INT(who.number, next[who.sender]); /* FIFO, nothing lost, nothing twice */
    next[who.sender]++;
    for (int64_t i = sizeof who; i < bytes; i++) CHECK_INT((uint8_t)text[i], (uint8_t)who.number);
    CHECK_INT(w.wire_flags & CFN_WIRE_REDELIVERED, 0);
    CHECK_INT(t_ack(sink, w.token), 0);
  }
  join(SENDERS, threads);
  CHECK_INT(t_recv(sink, 0, &w, text), CFN_EMPTY);
  end(sink);
}

/* ---- one handle, many threads that ask ---- */

static cfn_bus_t *shared;
static void *echo(void *unused) {
  (void)unused;
  cfn_bus_t *bus = t_attach("echo");
  for (int n = 0; n < ASKERS * ASKS; n++) {
    cfn_wire_t w;
    char text[4096];
    int64_t bytes = t_recv(bus, 60, &w, text);
    CHECK_INT(bytes, sizeof(numbered_t));
    cfn_outgoing_t m = {.body = text, .body_bytes = (uint32_t)bytes, .correlation = w.correlation};
    int e;
    do {
      e = cfn_bus_reply(bus, w.source_att, w.source_inc, &m, CFN_FOREVER);
    } while (e == CFN_INTERRUPTED);
    CHECK_INT(e, 0);
    CHECK_INT(t_ack(bus, w.token), 0);
  }
  t_close(bus);
  return NULL;
}
static void *ask(void *arg) {
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(shared, "echo", &to), 0);
  for (uint32_t i = 0; i < ASKS; i++) {
    numbered_t q = {(uint32_t)(uintptr_t)arg, i}, a;
    cfn_outgoing_t m = {.body = &q, .body_bytes = sizeof q};
    uint64_t correlation;
    char out[1024];
    int64_t n;
    do {
      n = cfn_bus_request(shared, &to, CFN_LANE_NORMAL, &m, CFN_FOREVER, &correlation);
    } while (n == CFN_INTERRUPTED);
    CHECK_INT(n, 0);
    do {
      n = cfn_bus_request_wait(shared, &to, correlation, CFN_FOREVER, out, sizeof out);
    } while (n == CFN_INTERRUPTED);
    CHECK(n > 0);
    memcpy(&a, out + n - sizeof a, sizeof a);
    CHECK_INT(a.sender, q.sender); /* each thread its own answer */
    CHECK_INT(a.number, q.number);
    cfn_bus_request_end(shared, correlation);
  }
  return NULL;
}
static void one_handle(void) {
  t_case("many threads, one handle");
  cfn_wish_t wish = wish_many();
  shared = t_open(NULL, &wish);
  cfn_address_t to;
  int created;
  CHECK_INT(cfn_bus_register(shared, "echo", NULL, &to, &created), 0);
  pthread_t answerer, askers[ASKERS];
  run(1, echo, &answerer);
  run(ASKERS, ask, askers);
  join(ASKERS, askers);
  join(1, &answerer);
  end(shared);
}

/* ---- names that come and go while others send to them ---- */

static void *come_and_go(void *arg) {
  uint32_t seed = (uint32_t)(uintptr_t)arg + 99u;
  cfn_bus_t *bus = t_attach(NULL);
  for (int i = 0; i < CHURN; i++) {
    char name[16];
    snprintf(name, sizeof name, "name%u", random_next(&seed) / 16 % 6);
    cfn_address_t x;
    int created;
    uint64_t dropped;
    int e = cfn_bus_register(bus, name, NULL, &x, &created);
    CHECK(e == 0 || e == CFN_AGAIN);
    if (random_next(&seed) / 16 % 2) {
      e = cfn_bus_unregister(bus, name, 0, &dropped);
      CHECK(e == 0 || e == CFN_UNKNOWN_AGENT || e == CFN_AGENT_BUSY || e == CFN_STALE ||
            e == CFN_AGENT_FENCED);
    }
  }
  t_close(bus);
  return NULL;
}
static void *send_about(void *arg) {
  uint32_t seed = (uint32_t)(uintptr_t)arg + 7u;
  cfn_bus_t *bus = t_attach(NULL);
  for (uint32_t i = 0; i < 2 * CHURN; i++) {
    char name[16];
    snprintf(name, sizeof name, "name%u", random_next(&seed) / 16 % 6);
    int e = t_send(bus, name, random_next(&seed) / 16 % 4, name, sizeof name, 0, NULL);
    CHECK(e == 0 || e == CFN_UNKNOWN_AGENT || e == CFN_STALE || e == CFN_FULL || e == CFN_NO_SPACE);
  }
  t_close(bus);
  return NULL;
}
/* A reader that opens, takes what is there under the name, and is gone. */
static void *open_and_close(void *arg) {
  uint32_t seed = (uint32_t)(uintptr_t)arg + 31u;
  for (int i = 0; i < CHURN; i++) {
    char name[16], text[4096];
    snprintf(name, sizeof name, "name%u", random_next(&seed) / 16 % 6);
    cfn_bus_t *bus = t_attach(name);
    cfn_wire_t w;
    for (int n = 0; n < 4; n++) {
      int64_t bytes = t_recv(bus, 0, &w, text);
      if (bytes < 0) {
        CHECK(bytes == CFN_EMPTY || bytes == CFN_AGENT_BUSY || bytes == CFN_UNKNOWN_AGENT ||
              bytes == CFN_AGENT_FENCED);
        break;
      }
      CHECK_INT(strncmp(text, name, 16), 0); /* never another name's message */
      if (n < 3) {
        int e = t_ack(bus, w.token);
        CHECK(e == 0 || e == CFN_AGENT_FENCED);
      }
    }
    t_close(bus);
  }
  return NULL;
}
static void names(void) {
  t_case("names come and go");
  cfn_wish_t wish = wish_many();
  cfn_bus_t *bus = t_open(NULL, &wish);
  pthread_t a[3], b[3], c[3];
  run(3, come_and_go, a);
  run(3, send_about, b);
  run(3, open_and_close, c);
  join(3, a);
  join(3, b);
  join(3, c);
  for (int i = 0; i < 6; i++) {
    char name[16];
    uint64_t dropped;
    snprintf(name, sizeof name, "name%d", i);
    int e = cfn_bus_unregister(bus, name, 0, &dropped);
    CHECK(e == 0 || e == CFN_UNKNOWN_AGENT);
  }
  end(bus);
}

/* ---- the inbox goes from hand to hand ---- */

static uint32_t relay_next;          /* the next number to be acked; guarded by who holds the inbox */
static pthread_mutex_t relay_lock = PTHREAD_MUTEX_INITIALIZER;
static void *relay(void *unused) {
  (void)unused;
  cfn_bus_t *bus = t_attach("relay");
  while (!cfn_load_seq(&stop)) {
    int e = cfn_bus_claim_inbox(bus, 0);
    CHECK(e == 0 || e == CFN_AGENT_BUSY);
    for (int n = 0; e == 0 && n < 5; n++) {
      cfn_wire_t w;
      char text[4096];
      int64_t bytes = t_recv(bus, 0, &w, text);
      if (bytes == CFN_EMPTY) break;
      CHECK_INT(bytes, 4);
      uint32_t number;
      memcpy(&number, text, 4);
      pthread_mutex_lock(&relay_lock);
      CHECK_INT(number, relay_next);
      if (n < 4) relay_next++;
      if (relay_next == MESSAGES) cfn_store_seq(&stop, 1);
      pthread_mutex_unlock(&relay_lock);
      if (n < 4) CHECK_INT(t_ack(bus, w.token), 0); /* the fifth goes back unacked */
    }
    if (e == 0) CHECK_INT(cfn_bus_release_inbox(bus), 0);
  }
  t_close(bus);
  return NULL;
}
static void hand_to_hand(void) {
  t_case("the inbox from hand to hand");
  cfn_wish_t wish = wish_many();
  cfn_bus_t *bus = t_open(NULL, &wish);
  cfn_address_t to;
  int created;
  CHECK_INT(cfn_bus_register(bus, "relay", NULL, &to, &created), 0);
  relay_next = 0;
  cfn_store_seq(&stop, 0);
  pthread_t readers[3];
  run(3, relay, readers);
  for (uint32_t i = 0; i < MESSAGES; i++) CHECK_INT(t_send(bus, "relay", CFN_LANE_NORMAL, &i, 4, 60, NULL), 0);
  join(3, readers);
  end(bus);
}

int main(void) {
  t_guard(600);
  many_to_one();
  one_handle();
  names();
  hand_to_hand();
  t_passed("test_threads");
  return 0;
}
