/* A hostile region: words of the image are changed from outside, at rest and while calls run, or its file is cut
 * short, and then everything that a caller can do is done. Whatever comes of it is an error code or a dropped
 * message: never a crash (ASan, UBSan), never an endless loop (the guard's alarm).
 *
 *   test_fuzz [--seconds S] [--seed N] [--runs N]     by seeds; or by libFuzzer: make fuzz
 *
 * An input is a list of {kind, where, value} of 16 bytes each: a kind of word in the first byte, which of them and
 * what it becomes; see change().
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/liveness.h"
#include "base/os.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static uint32_t index_of_b;

/* ---- a bus with something of everything in it ---- */

static void start(void) {
  static cfn_wish_t wish;
  wish = t_small_wish();
  a = t_open("a", &wish);
  b = t_attach("b");
  r = cfn_bus_region(a);
  cfn_address_t x;
  CHECK_INT(cfn_bus_find(a, "b", &x), 0);
  index_of_b = x.index;
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
  cfn_outgoing_t m[3] = {{.body = "one", .body_bytes = 3}, {.body = "two", .body_bytes = 3, .type = "t", .type_bytes = 1},
                         {.body = "six", .body_bytes = 3}};
  CHECK_INT(cfn_bus_send(a, &x, CFN_LANE_NORMAL, m, 3, 0, NULL), 0);
  for (unsigned lane = 0; lane < CFN_LANES; lane++) CHECK_INT(t_send(a, "b", lane, "hello", 5, 0, NULL), 0);
  cfn_wire_t w;
  char body[4096];
  CHECK(t_recv(b, 0, &w, body) >= 0); /* one is leased */
}
static void end(void) {
  t_close(b);
  t_close(a);
  t_destroy();
}

/* Everything that a caller can do, whatever comes of it. */
static void use(void) {
  cfn_address_t x = {cfn_load_seq(&cfn_mailbox(r, index_of_b)->mid), index_of_b}, all[16];
  cfn_agent_info_t info;
  cfn_bus_info_t bus;
  cfn_receipt_t receipts[3], receipt = {.mid = x.mid, .mailbox = index_of_b, .count = 1, .lane = CFN_LANE_NORMAL};
  uint32_t offsets[64];
  size_t used;
  uint64_t n, correlation;
  int created, more, result[3];
  cfn_wire_t w;
  char body[4096];
  static uint8_t out[200000];
  cfn_outgoing_t m = {.body = body, .body_bytes = 100};
  for (unsigned lane = 0; lane < CFN_LANES; lane++)
    for (int i = 0; i < 3; i++) t_send(a, "b", lane, "hello", 5, 0, NULL);
  int64_t got = cfn_bus_recv_many(b, NULL, 0, CFN_ALL_LANES, 20, 0, out, sizeof out, offsets, &used);
  if (got > 0) cfn_bus_ack_batch(b, out, offsets, (uint32_t)got);
  static cfn_parcel_t parcel[64];
  static char some[300];
  uint32_t parcels;
  cfn_outgoing_t frame[5];
  for (int i = 0; i < 5; i++) frame[i] = (cfn_outgoing_t){.body = body, .body_bytes = (uint32_t)i * 60};
  cfn_bus_send(a, &x, CFN_LANE_NORMAL, frame, 5, 0, NULL);
  got = cfn_bus_recv_parcels(b, CFN_ALL_LANES, 20, 0, out, sizeof out, parcel, 64, &parcels, &used);
  for (uint32_t k = 0; got > 0 && k < parcels; k++)
    for (uint32_t i = 0; i < parcel[k].count; i++) cfn_parcel_wire(out, &parcel[k], i, some, sizeof some);
  if (got > 0) cfn_bus_ack_parcels(b, parcel, parcels);
  for (int i = 0; i < 20; i++) {
    if (t_recv(b, 0, &w, body) < 0) break;
    if (i % 3) t_ack(b, w.token);
    if (i % 5 == 0) cfn_bus_put_back(b, w.token);
  }
  cfn_bus_peek(a, &x, CFN_ALL_LANES, out, sizeof out, offsets, 64, &used, &more);
  cfn_bus_agent_info(a, &x, &info);
  cfn_bus_info(a, &bus);
  int agents = cfn_bus_agents(a, all, 16);
  if (agents > 3) agents = 3;
  if (agents > 0) cfn_bus_broadcast(a, all, (uint32_t)agents, CFN_LANE_HIGH, &m, 0, result, receipts);
  cfn_bus_receipt(a, &receipt, 0);
  cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_ACKED, t_in(0.0005));
  t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0.0005, NULL);
  if (cfn_bus_request(a, &x, CFN_LANE_NORMAL, &m, 0, &correlation) == 0) {
    cfn_bus_reply(b, cfn_bus_attachment(a), cfn_bus_attachment_inc(a),
                  &(cfn_outgoing_t){.body = "yes", .body_bytes = 3, .correlation = correlation}, 0);
    cfn_bus_request_wait(a, &x, correlation, t_in(0.0005), out, sizeof out);
    cfn_bus_request_end(a, correlation);
  }
  if (cfn_bus_register(a, "one", NULL, &x, &created) == 0) cfn_bus_unregister(a, "one", 0, &n);
  cfn_bus_t *thief = NULL;
  if (cfn_bus_open(NULL, t_bus_name(), NULL, 0, &thief, &created) == 0) {
    uint64_t inc;
    int owner;
    if (cfn_bus_act_as(thief, "b", NULL, CFN_ACT_OWN, &inc, &owner) == 0) {
      cfn_bus_claim_inbox(thief, 1);
      for (int i = 0; i < 20 && t_recv(thief, 0, &w, body) >= 0; i++) t_ack(thief, w.token);
      cfn_bus_release_inbox(thief);
    }
    t_close(thief);
  }
  cfn_bus_reap(a);
  cfn_bus_unregister(a, "b", CFN_FORCE, &n);
  cfn_bus_check(a, NULL, NULL);
}

/* ---- an input ---- */

typedef struct change {
  uint8_t kind, form, bit, more;
  uint32_t where;
  uint64_t value;
} change_t;

/* Words of one kind, or any word behind the header. */
static cfn_a64 *word_of(const change_t *c) {
  const cfn_config_shm_t *g = &r->geo.config;
  cfn_mailbox_shm_t *m = cfn_mailbox(r, c->where % g->agents);
  cfn_lane_shm_t *l = &m->lane[c->more % CFN_LANES];
  cfn_attach_shm_t *s = cfn_attachment(r, c->where % 4);
  cfn_chunk_shm_t *k = cfn_chunk(r, c->where % r->geo.chunks);
  switch (c->kind % 24) {
    case 0: return &l->head;
    case 1: return &l->tail;
    case 2: return &l->seen;
    case 3: return &m->rlap;
    case 4: return &m->consumer;
    case 5: return &m->owner;
    case 6: return &m->mid;
    case 7: return &m->name[c->more % (CFN_NAME_BYTES / 8)];
    case 8: return &cfn_lane_slots(r, c->where % g->agents, c->more % CFN_LANES)[c->bit % 8];
    case 9: return &k->own;
    case 10: return &k->target;
    case 11: return &k->part[c->more % 2];
    case 12: return &s->id;
    case 13: return &s->reg[c->more % CFN_REGISTERS];
    case 14: return &s->holds[c->more % CFN_HOLDS];
    case 15: return &s->reply_slot[c->more % CFN_REPLY_SLOTS];
    case 16: return c->more % 2 ? &s->reply_head : &s->reply_tail;
    case 17: return &cfn_state(r)->intent;
    case 18: return &cfn_directory(r)[c->where % g->directory_slots];
    case 19: return &cfn_hints(r)[c->where % 6];
    case 20: return &cfn_state(r)->attach_top;
    case 21: return &s->hint_taken[c->more % CFN_CLASSES];
    default: {
      uint64_t words = (r->geo.region_bytes - CFN_PAGE) / 8;
      return (cfn_a64 *)(void *)(r->base + CFN_PAGE) + (c->kind % 24 == 22 ? c->where % 4096 : c->where) % words;
    }
  }
}
static void change(const change_t *c) {
  if (cfn_region_lost(r)) return;
  cfn_a64 *word = word_of(c);
  uint64_t was = cfn_load_seq(word);
  switch (c->form % 4) {
    case 0: cfn_store_seq(word, c->value); break;
    case 1: cfn_store_seq(word, was ^ UINT64_C(1) << (c->bit % 64)); break;
    case 2: cfn_store_seq(word, was + (c->value & 0xff) - 128); break;
    case 3: cfn_store_seq(word, (was & ~UINT64_C(0xffffff)) | (c->value & 0xffffff)); break;
  }
}

typedef struct hostile {
  const change_t *changes;
  size_t n;
  _Atomic bool over;
} hostile_t;
static void *scribble(void *argument) {
  hostile_t *h = argument;
  for (size_t i = 0; !atomic_load(&h->over); i = (i + 1) % h->n) {
    change(&h->changes[i]);
    if (i % 64 == 63) cfn_os_yield();
  }
  return NULL;
}
static void cut(uint32_t where) {
  char path[CFN_PATH_BYTES + 16], folder[CFN_PATH_BYTES];
  CHECK_INT(cfn_region_path(NULL, t_bus_name(), folder), 0);
  snprintf(path, sizeof path, "%s/region", folder);
  if (truncate(path, (off_t)(where % (r->geo.region_bytes / CFN_PAGE)) * CFN_PAGE) != 0) return;
}
static void *cut_soon(void *argument) {
  change_t *c = argument;
  for (uint32_t i = 0; i < c->where % 4000; i++) cfn_cpu_relax();
  cut((uint32_t)c->value);
  return NULL;
}

static void run(const change_t *changes, size_t n) {
  start();
  pthread_t thread;
  unsigned how = n ? changes[0].more % 8 : 0;
  if (how < 5) {
    for (size_t i = 0; i < n; i++) change(&changes[i]);
    use();
  } else if (how < 7) {
    hostile_t h = {.changes = changes, .n = n};
    CHECK_INT(pthread_create(&thread, NULL, scribble, &h), 0);
    use();
    atomic_store(&h.over, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    use();
  } else {
    CHECK_INT(pthread_create(&thread, NULL, cut_soon, (void *)(uintptr_t)&changes[0]), 0);
    use();
    CHECK_INT(pthread_join(thread, NULL), 0);
    use();
    cfn_bus_info_t info;
    cfn_bus_info(a, &info);
    if (cfn_region_lost(r)) { /* told, and the same bus is of no use to anybody */
      int e = t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL);
      CHECK(e == CFN_CORRUPT || e == CFN_RETIRED);
      cfn_bus_t *late;
      CHECK(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &late, NULL) < 0);
    }
  }
  end();
}

#ifdef CFN_LIBFUZZER
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  t_guard(0);
  return 0;
}
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static change_t changes[256];
  size_t n = bytes / sizeof(change_t);
  if (n > 256) n = 256;
  if (n == 0) return -1;
  memcpy(changes, data, n * sizeof(change_t));
  run(changes, n);
  return 0;
}
#else
extern void __sanitizer_print_stack_trace(void) __attribute__((weak));
static void on_alarm(int number) {
  if (__sanitizer_print_stack_trace) __sanitizer_print_stack_trace();
  signal(number, SIG_DFL);
  t_fail(__FILE__, __LINE__, "does not end");
}
static uint64_t dice;
static uint64_t roll(void) {
  dice ^= dice << 13;
  dice ^= dice >> 7;
  dice ^= dice << 17;
  return dice * UINT64_C(0x2545F4914F6CDD1D);
}
int main(int argc, char **argv) {
  double seconds = 5;
  uint64_t seed = cfn_os_random() >> 32, runs = 0, most = UINT64_MAX;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--seconds")) seconds = atof(argv[i + 1]);
    else if (!strcmp(argv[i], "--seed")) seed = strtoull(argv[i + 1], NULL, 10), most = 1;
    else if (!strcmp(argv[i], "--runs")) most = strtoull(argv[i + 1], NULL, 10);
  }
  t_guard(0);
  signal(SIGALRM, on_alarm);
  double start_at = t_now();
  for (; runs < most && (most != UINT64_MAX || t_now() - start_at < seconds); runs++, seed++) {
    static change_t changes[64];
    dice = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15);
    t_case("--seed %llu", (unsigned long long)seed);
    alarm(15); /* no run takes a second: it is in a loop without an end */
    size_t n = 1 + roll() % 64;
    if (roll() % 2) n = 1 + n % 3;
    for (size_t i = 0; i < n; i++) {
      uint64_t x = roll();
      static const uint64_t absurd[] = {0, 1, 0xffff, 0xffffff, 0x1000000, UINT32_MAX, UINT64_C(1) << 40, UINT64_MAX};
      memcpy(&changes[i], &x, 8);
      changes[i].where = (uint32_t)roll();
      changes[i].value = roll() % 3 ? roll() >> (roll() % 64) : absurd[roll() % 8];
    }
    run(changes, n);
  }
  alarm(0);
  printf("ok test_fuzz: %llu runs, last seed %llu\n", (unsigned long long)runs, (unsigned long long)seed - 1);
  return 0;
}
#endif
