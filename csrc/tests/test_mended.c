/* Defects that were found once and mended: each a few lines that failed before. */
#include <pthread.h>
#include <unistd.h>

#include "agent/liveness.h"
#include "tests/harness.h"

static cfn_wire_t w;
static char body[4096];

/* A waiting reader whose empty inbox is stolen spun for ever instead of saying AGENT_FENCED. */
static cfn_bus_t *fenced_bus;
static int64_t fenced_result;
static void *fenced_reader(void *unused) {
  (void)unused;
  char out[4096];
  do {
    fenced_result = cfn_bus_recv(fenced_bus, NULL, 0, CFN_ALL_LANES, 0, t_in(30), out, sizeof out);
  } while (fenced_result == CFN_INTERRUPTED);
  return NULL;
}
static void fenced_while_waiting(void) {
  t_case("stolen from while waiting");
  fenced_bus = t_open("b", NULL);
  CHECK_INT(cfn_bus_claim_inbox(fenced_bus, 0), 0);
  cfn_bus_t *thief = t_attach("b");
  cfn_a64 *waiting = &cfn_attachment(cfn_bus_region(fenced_bus), cfn_bus_attachment(fenced_bus))->waiting;
  pthread_t t;
  CHECK_INT(pthread_create(&t, NULL, fenced_reader, NULL), 0);
  while (cfn_load_seq(waiting) == 0) {
  }
  CHECK_INT(cfn_bus_claim_inbox(thief, 1), 0);
  pthread_join(t, NULL);
  CHECK_INT(fenced_result, CFN_AGENT_FENCED);
  t_close(thief);
  t_close(fenced_bus);
  t_destroy();
}

/* A copy after unregistering oneself read mailbox -1. */
static void verify_without_agent(void) {
  t_case("verify without an agent");
  cfn_bus_t *a = t_open("a", NULL);
  uint64_t dropped;
  CHECK_INT(t_send(a, "a", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
  CHECK_INT(t_recv(a, 0, &w, body), 1);
  CHECK_INT(cfn_bus_unregister(a, "a", 0, &dropped), 0);
  CHECK_INT(cfn_bus_copy_body(a, w.token, (char[4096]){0}, w.body_bytes), CFN_AGENT_FENCED);
  t_close(a);
  t_destroy();
}

/* One word for all frames' acks: receipts of older messages read ACKED, acks were forgotten. */
static void frame(cfn_bus_t *a, const char *text, cfn_receipt_t *receipt) {
  cfn_outgoing_t m[3];
  for (int i = 0; i < 3; i++) m[i] = (cfn_outgoing_t){.body = text + i, .body_bytes = 1};
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, 3, 0, receipt), 0);
}
static void acks_of_frames(void) {
  t_case("acks of two frames, out of order");
  cfn_bus_t *a = t_open("a", NULL), *b = t_attach("b");
  cfn_receipt_t one, two, three;
  uint64_t token[7];
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, &one), 0);
  frame(a, "abc", &two);
  frame(a, "def", &three);
  for (int i = 0; i < 7; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    token[i] = w.token;
  }
  CHECK_INT(t_ack(b, token[4]), 0); /* d */
  CHECK_INT(cfn_bus_receipt(a, &one, 0), CFN_RECEIPT_SEEN);
  CHECK_INT(cfn_bus_receipt(a, &two, 2), CFN_RECEIPT_SEEN);
  CHECK_INT(cfn_bus_receipt(a, &three, 0), CFN_RECEIPT_ACKED);
  CHECK_INT(cfn_bus_receipt(a, &three, 1), CFN_RECEIPT_SEEN);
  CHECK_INT(t_ack(b, token[0]), 0); /* x */
  CHECK_INT(t_ack(b, token[1]), 0); /* a */
  CHECK_INT(t_ack(b, token[6]), 0); /* f */
  CHECK_INT(t_ack(b, token[6]), CFN_INVALID);
  CHECK_INT(cfn_bus_release_inbox(b), 0);
  for (const char *c = "bce"; *c; c++) {
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    CHECK_INT(body[0], *c);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
  t_check_nothing_held(a);
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}

/* A fenced reader's late bit was missing in the thief's own count: the frame was never whole, the lane
 * full for ever. The late bit is set here by hand. */
static void frame_shared_with_thief(void) {
  t_case("a fenced reader's late ack inside a frame");
  cfn_bus_t *a = t_open("a", NULL), *old = t_attach("b"), *thief = t_attach("b");
  cfn_region_t *r = cfn_bus_region(a);
  cfn_receipt_t receipt;
  frame(a, "abc", &receipt);
  for (int i = 0; i < 3; i++) CHECK_INT(t_recv(old, 0, &w, body), 1);
  CHECK_INT(cfn_bus_claim_inbox(thief, 1), 0);
  CHECK_INT(t_recv(thief, 0, &w, body), 1);
  uint64_t slot = cfn_load_seq(cfn_lane_slots(r, receipt.mailbox, CFN_LANE_NORMAL));
  cfn_or_seq(&cfn_chunk(r, cfn_slot_ref(slot) - 1)->part[0], 4);
  CHECK_INT(t_ack(thief, w.token), 0);
  while (t_recv(thief, 0, &w, body) == 1) t_ack(thief, w.token);
  for (int i = 0; i < 20; i++) {
    CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
    CHECK_INT(t_recv(thief, 0, &w, body), 1);
    CHECK_INT(t_ack(thief, w.token), 0);
  }
  t_check_nothing_held(a);
  t_close(old);
  t_close(thief);
  t_close(a);
  t_destroy();
}

/* An absurd owner word beside a dead reader: the story of its death was read from outside the region. */
static void judging_absurd_owners(void) {
  t_case("an absurd owner and a dead reader");
  cfn_bus_t *a = t_open("a", NULL);
  cfn_address_t v;
  int created;
  CHECK_INT(cfn_bus_register(a, "v", NULL, &v, &created), 0);
  cfn_store_seq(&cfn_state(cfn_bus_region(a))->attach_hint, 200); /* far from the round-robin reaper */
  pid_t p = t_fork();
  if (p == 0) {
    cfn_bus_t *b = t_attach("v");
    CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
    _exit(0);
  }
  t_join(p);
  cfn_receipt_t receipt;
  CHECK_INT(t_send(a, "v", CFN_LANE_NORMAL, "x", 1, 0, &receipt), 0);
  for (unsigned att = 0x400; att < 0xffff; att += 0xff0) {
    cfn_store_seq(&cfn_mailbox(cfn_bus_region(a), v.index)->owner, cfn_owner_word(1, att));
    CHECK(cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_SEEN, t_in(0.001)) < 0);
  }
  t_close(a);
  t_destroy();
}

/* Announcements of owned and unregistered agents stayed: the ninth was refused. */
static void owning_many_in_turn(void) {
  t_case("twenty agents in turn");
  cfn_wish_t wish = t_small_wish();
  wish.agents = 32;
  cfn_bus_t *a = t_open(NULL, &wish);
  for (int i = 0; i < 20; i++) {
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    uint64_t inc, dropped;
    int owner;
    CHECK_INT(cfn_bus_act_as(a, name, NULL, CFN_ACT_OWN, &inc, &owner), 0);
    CHECK_INT(cfn_bus_unregister(a, name, 0, &dropped), 0);
  }
  t_close(a);
  t_destroy();
}

/* A tail far behind its slots made a send with deadline 0 walk for years. */
static void tail_far_behind(void) {
  t_case("a tail far behind");
  cfn_bus_t *a = t_open("a", NULL);
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "a", &to), 0);
  for (uint32_t i = 0; i < 8; i++)
    cfn_store_seq(&cfn_lane_slots(cfn_bus_region(a), to.index, CFN_LANE_NORMAL)[i],
                  cfn_slot_word(UINT64_C(1) << 38, 0));
  CHECK_INT(t_send(a, "a", CFN_LANE_NORMAL, "x", 1, 0, NULL), CFN_AGAIN);
  CHECK_INT(t_send(a, "a", CFN_LANE_NORMAL, "x", 1, 0.05, NULL), CFN_AGAIN);
  t_close(a);
  t_destroy();
}

/* Robbed of all descriptors, the directory's too, the life byte could not be taken back. */
static void all_descriptors_closed(void) {
  t_case("all descriptors closed");
  cfn_bus_t *a = t_open("a", NULL);
  int tell[2], ask[2];
  CHECK_INT(pipe(tell), 0);
  CHECK_INT(pipe(ask), 0);
  pid_t p = t_fork();
  if (p == 0) {
    dup2(tell[1], 1);
    dup2(ask[0], 0);
    cfn_bus_t *b = t_attach("b");
    uint32_t slot = cfn_bus_attachment(b);
    close_range(3, ~0u, 0);
    int out[2] = {(int)slot, cfn_life_refresh(cfn_bus_region(b), slot)};
    CHECK_INT(write(1, out, sizeof out), sizeof out);
    char c;
    CHECK(read(0, &c, 1) >= 0);
    _exit(0);
  }
  int in[2];
  bool free_byte;
  CHECK_INT(read(tell[0], in, sizeof in), sizeof in);
  CHECK_INT(in[1], 0);
  CHECK_INT(cfn_life_of(cfn_bus_region(a), (uint32_t)in[0], NULL, &free_byte), CFN_LIFE_ALIVE);
  CHECK_INT(free_byte, 0);
  t_kill(p, false);
  CHECK_INT(cfn_bus_reap(a), 1);
  t_close(a);
  t_destroy();
}

/* Threads that open their first handles at once raced for the table's stamp (VARIANT=tsan). */
static void *open_and_close(void *unused) {
  (void)unused;
  for (int i = 0; i < 100; i++) t_close(t_attach(NULL));
  return NULL;
}
static void first_handles_at_once(void) {
  t_case("first handles at once");
  t_close(t_open("a", NULL));
  pid_t p = t_fork(); /* in a child the locks are made anew */
  if (p == 0) {
    pthread_t t[2];
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_create(&t[i], NULL, open_and_close, NULL), 0);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    _exit(0);
  }
  t_join(p);
  t_destroy();
}

int main(void) {
  t_guard(120);
  fenced_while_waiting();
  verify_without_agent();
  acks_of_frames();
  frame_shared_with_thief();
  judging_absurd_owners();
  owning_many_in_turn();
  tail_far_behind();
  all_descriptors_closed();
  first_handles_at_once();
  t_passed("test_mended");
  return 0;
}
