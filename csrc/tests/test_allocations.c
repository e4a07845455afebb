/* Each allocation of an operation fails in turn: an error with a text, nothing lost, nothing held, and the next try
 * succeeds. Linked with --wrap for malloc, calloc and realloc (csrc/Makefile). */
#include <string.h>

#include "base/os.h"
#include "tests/harness.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t n);

static long until_failure = -1; /* allocations that succeed before one fails; -1: all succeed */
static bool failed;
static bool fails(void) {
  if (until_failure < 0 || until_failure-- > 0) return false;
  failed = true;
  return true;
}
void *__wrap_malloc(size_t n) { return fails() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t each) { return fails() ? NULL : __real_calloc(n, each); }
void *__wrap_realloc(void *p, size_t n) { return fails() ? NULL : __real_realloc(p, n); }

static cfn_bus_t *a, *b, *opened;
static cfn_address_t b_at;
static cfn_wire_t w;
static char body[4096];
static uint64_t correlation;

static int64_t do_open(void) {
  int e = cfn_bus_open(NULL, t_bus_name(), NULL, 0, &opened, NULL);
  if (e == 0) t_close(opened);
  return e;
}
static int64_t do_recv(void) {
  int64_t n = t_recv(b, 0, &w, body);
  return n < 0 ? n : t_ack(b, w.token);
}
static int64_t do_recv_many_leases(void) { /* more than one table of leases holds */
  static cfn_wire_t kept[80];
  int n = 0, taken = 0;
  int64_t r = 0;
  for (; n < 80 && r >= 0; n++) {
    r = t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL);
    if (r == 0) r = t_recv(b, 0, &kept[taken], body);
    if (r >= 0) taken++;
  }
  for (int i = taken; i-- > 0;) CHECK_INT(t_ack(b, kept[i].token), 0);
  while (t_recv(b, 0, &w, body) >= 0) CHECK_INT(t_ack(b, w.token), 0); /* what was sent and not taken */
  return r < 0 ? r : 0;
}
static int64_t do_frame(void) {
  cfn_outgoing_t m[3] = {{.body = "1", .body_bytes = 1}, {.body = "2", .body_bytes = 1}, {.body = "3", .body_bytes = 1}};
  int64_t r = cfn_bus_send(a, &b_at, CFN_LANE_NORMAL, m, 3, 0, NULL);
  for (int i = 0; i < 3 && r >= 0; i++) {
    r = t_recv(b, 0, &w, body);
    if (r >= 0) {
      CHECK_INT(body[0], '1' + i);
      r = t_ack(b, w.token);
    }
  }
  long keep = until_failure;
  until_failure = -1;
  while (t_recv(b, 0, &w, body) >= 0) CHECK_INT(t_ack(b, w.token), 0);
  until_failure = keep;
  return r;
}
static int64_t do_joined(void) {
  uint32_t bytes[2] = {1, 1}, frames;
  cfn_receipt_t receipts[2];
  int why;
  int64_t n = cfn_bus_send_joined(a, &b_at, CFN_LANE_NORMAL, NULL, 0, (const uint8_t *)"xy", bytes, NULL, 2, 0, receipts,
                                  2, &frames, &why);
  until_failure = -1;
  if (n == 2)
    for (int i = 0; i < 2; i++) {
      CHECK_INT(t_recv(b, 0, &w, body), 1);
      CHECK_INT(t_ack(b, w.token), 0);
    }
  else CHECK_INT(n, 0);
  return n < 2 ? why : 0;
}
static int64_t do_request(void) {
  char out[4096];
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
  int64_t r = cfn_bus_request(a, &b_at, CFN_LANE_NORMAL, &m, 0, &correlation);
  if (r < 0) return r;
  long keep = until_failure;
  until_failure = -1;
  CHECK_INT(t_recv(b, 0, &w, body), 1);
  cfn_outgoing_t yes = {.body = "!", .body_bytes = 1, .correlation = w.correlation};
  CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &yes, 0), 0);
  CHECK_INT(t_ack(b, w.token), 0);
  until_failure = keep;
  r = cfn_bus_request_wait(a, &b_at, correlation, 0, out, sizeof out); /* an answer that cannot be kept is late */
  cfn_bus_request_end(a, correlation);
  return r < 0 ? r : 0;
}
static int64_t do_peek(void) {
  static _Alignas(8) uint8_t out[65536];
  uint32_t offsets[128];
  size_t used;
  int more;
  long keep = until_failure;
  until_failure = -1;
  static cfn_outgoing_t m[90];
  for (int i = 0; i < 90; i++) m[i] = (cfn_outgoing_t){.body = "x", .body_bytes = 1};
  CHECK_INT(cfn_bus_send(a, &b_at, CFN_LANE_NORMAL, m, 90, 0, NULL), 0);
  until_failure = keep;
  int64_t n = cfn_bus_peek(a, &b_at, CFN_ALL_LANES, out, sizeof out, offsets, 128, &used, &more);
  until_failure = -1;
  for (int i = 0; i < 90; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  CHECK(n < 0 || n == 90 || more);
  return n == 90 ? 0 : n < 0 ? n : CFN_NO_MEMORY;
}
static int64_t do_loan(void) {
  cfn_loan_t loan;
  int r = cfn_bus_loan(a, 5000, &loan);
  if (r == CFN_OK) cfn_bus_loan_drop(a, loan.number);
  return r;
}
static int64_t do_barrier(void) {
  int r = cfn_bus_barrier_join(a, "x", 1);
  if (r != CFN_OK) return r;
  r = cfn_bus_barrier_leave(a, "x", 1);
  until_failure = -1;
  if (r != CFN_OK) CHECK_INT(cfn_bus_barrier_leave(a, "x", 1), 0);
  return r;
}
static int64_t do_evict(void) {
  static uint8_t large[40 * CFN_PAGE], digest[32] = {1};
  int known, r = cfn_bus_object_put(a, digest, large, sizeof large, &known);
  if (r == CFN_OK) r = cfn_bus_evict(a, 40 * CFN_PAGE); /* of 64 pages: it must go for that */
  long keep = until_failure;
  until_failure = -1;
  CHECK_INT(cfn_bus_object_delete(a, digest), 0);
  until_failure = keep;
  return r;
}
static int64_t do_check(void) { return cfn_bus_check(a, NULL, NULL); }
static int64_t do_repair(void) {
  cfn_repair_t done;
  return cfn_bus_repair(a, &done);
}

static const struct { const char *name; int64_t (*run)(void); } operations[] = {
    {"open", do_open},       {"recv", do_recv},       {"leases", do_recv_many_leases}, {"frame", do_frame},
    {"joined", do_joined},   {"request", do_request}, {"peek", do_peek},               {"check", do_check},
    {"repair", do_repair},   {"loan", do_loan},       {"barrier", do_barrier},         {"evict", do_evict},
};

int main(void) {
  t_guard(60);
  for (unsigned o = 0; o < sizeof operations / sizeof operations[0]; o++)
    for (long n = 0;; n++) {
      t_case("%s: allocation %ld fails", operations[o].name, n);
      cfn_wish_t wish = t_small_wish();
      wish.lane_slots[CFN_LANE_NORMAL] = 128;
      wish.class_chunks[0] = 200;
      wish.spill = "/dev/shm";
      a = t_open("a", &wish);
      b = t_attach("b");
      CHECK_INT(cfn_bus_find(a, "b", &b_at), 0);
      CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
      if (operations[o].run == do_recv) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
      failed = false;
      until_failure = n;
      int64_t r = operations[o].run();
      until_failure = -1;
      bool met = failed;
      if (met && r < 0) CHECK(cfn_last_failure()->text[0]);
      if (!met) CHECK_INT(r, 0);
      if (operations[o].run == do_recv && r < 0) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
      while (t_recv(b, 0, &w, body) >= 0) CHECK_INT(t_ack(b, w.token), 0);
      if (operations[o].run == do_recv) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
      CHECK_INT(operations[o].run(), 0); /* with memory it works again */
      t_check_region(a, true);
      t_check_nothing_held(a);
      t_close(b);
      t_close(a);
      t_destroy();
      if (!met) break;
    }
  t_passed("test_allocations");
  return 0;
}
