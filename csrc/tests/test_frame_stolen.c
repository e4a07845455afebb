/* An ack that took effect says AGENT_FENCED. The last ack of a frame sets its bit (ack_part: the frame
 * is whole), and before its CAS own -> DONE an operator steals: the thief finds every bit set and makes
 * the frame DONE itself. The CAS fails -> `goto fenced`: the caller is told that the message goes to
 * the thief, who never gets it. Who rolls its work back on AGENT_FENCED loses the message. */
#include "base/os.h"
#include "tests/stepper.h"

static uint64_t token[4];
static cfn_bus_t *reader(victim_report_t *r) {
  (void)r;
  cfn_bus_t *bus = t_attach("v");
  for (int i = 1; i <= 3; i++) CHECK_INT(recv_id(bus, false, NULL, &token[i]), i);
  for (int i = 1; i <= 2; i++) CHECK_INT(t_ack(bus, token[i]), 0);
  return bus;
}
static int64_t ack_last(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return t_ack(bus, token[3]);
}
/* The largest frame, all of it acked but the last by A, whose last ack comes while the thief takes the frame,
 * n instructions after it has re-owned it: the thief has a frame with every bit set, and must get out of it. */
static int64_t steal_and_take(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  int e = cfn_bus_claim_inbox(bus, 1);
  return e < 0 ? e : recv_id(bus, false, NULL, NULL);
}
static cfn_bus_t *thief_of_v(victim_report_t *r) {
  (void)r;
  return t_attach("v");
}
/* Returns how many instructions it made after that, n if it has more. */
static long last_ack_comes_late(long n) {
  t_case("the last of 96 is acked %ld instructions after the frame was taken over", n);
  cfn_bus_t *s = t_open("s", NULL), *a;
  cfn_region_t *r = cfn_bus_region(s);
  cfn_address_t to;
  int created;
  CHECK_INT(cfn_bus_register(s, "v", NULL, &to, &created), 0);
  cfn_outgoing_t m[CFN_FRAME_MESSAGES];
  for (unsigned i = 0; i < CFN_FRAME_MESSAGES; i++) m[i] = (cfn_outgoing_t){.body = bodies[i + 1], .body_bytes = 40};
  CHECK_INT(cfn_bus_send(s, &to, CFN_LANE_NORMAL, m, CFN_FRAME_MESSAGES, 0, NULL), 0);
  a = t_attach("v");
  for (unsigned i = 1; i <= CFN_FRAME_MESSAGES; i++) {
    uint64_t one = 0;
    CHECK_INT(recv_id(a, false, NULL, &one), i);
    if (i < CFN_FRAME_MESSAGES) CHECK_INT(t_ack(a, one), 0);
  }
  cfn_chunk_shm_t *chunk = cfn_chunk(r, cfn_slot_ref(cfn_load_seq(cfn_lane_slots(r, to.index, CFN_LANE_NORMAL))) - 1);
  cfn_a64 *part = &chunk->part[CFN_FRAME_PARTS - 1];
  uint64_t own = cfn_load_seq(&chunk->own), bits = cfn_load_seq(part);
  victim_t v = {.report = report_new()};
  victim_start(&v, thief_of_v, steal_and_take);
  while (cfn_load_seq(&chunk->own) == own) CHECK(victim_step(&v, 1));
  long taken_at = v.steps;
  victim_step(&v, n);
  long made = v.steps - taken_at;
  /* what A's ack does that was stopped between its look at own and its swap */
  cfn_cas_seq(part, bits, bits | UINT64_C(1) << (CFN_PART_MESSAGES - 1));
  victim_finish(&v);
  CHECK(v.report->result == CFN_EMPTY || v.report->result == CFN_FRAME_MESSAGES); /* handed out before, marked */
  victim_leave(&v);
  t_close(a);
  a = t_attach("v");
  int id = recv_id(a, true, NULL, NULL);
  CHECK(id == CFN_EMPTY || id == CFN_FRAME_MESSAGES);
  t_check_region(a, true);
  t_close(a);
  t_close(s);
  t_destroy();
  return made;
}

/* The bit of a message that was not handed out yet is set, by a reader that was stolen from: with the acks of the others the
 * frame is over in the middle of its hand-out. What comes after it has leases of its own. `by_hand`: one ack each. */
static void bit_of_one_that_waits(bool by_hand) {
  t_case("a bit set ahead of the hand-out, %s", by_hand ? "single acks" : "a batch");
  cfn_bus_t *a = t_open("a", NULL), *v = t_attach("v");
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "v", &to), 0);
  cfn_outgoing_t m[4];
  for (int i = 0; i < 4; i++) m[i] = (cfn_outgoing_t){.body = bodies[i + 1], .body_bytes = 64};
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, 4, 0, NULL), 0);
  static _Alignas(8) char batch[4096];
  uint32_t offsets[4];
  size_t used;
  CHECK_INT(cfn_bus_recv_many(v, NULL, 0, CFN_ALL_LANES, 3, 0, batch, sizeof batch, offsets, &used), 3);
  cfn_region_t *r = cfn_bus_region(a);
  uint64_t slot = cfn_load_seq(cfn_lane_slots(r, to.index, CFN_LANE_NORMAL));
  cfn_a64 *part = &cfn_chunk(r, cfn_slot_ref(slot) - 1)->part[0];
  CHECK(cfn_cas_seq(part, cfn_load_seq(part), cfn_load_seq(part) | 8));
  for (int i = 0; by_hand && i < 3; i++) {
    uint64_t one;
    memcpy(&one, batch + offsets[i], sizeof one);
    CHECK_INT(t_ack(v, one), 0);
  }
  if (!by_hand) CHECK_INT(cfn_bus_ack_batch(v, batch, offsets, 3), 0);
  CHECK_INT(recv_id(v, true, NULL, NULL), CFN_EMPTY);
  char body[4096];
  cfn_wire_t w;
  for (int i = 0; i < 3; i++) CHECK_INT(t_send(a, "v", CFN_LANE_NORMAL, bodies[10 + i], 64, 0, NULL), 0);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(t_recv(v, 0, &w, body), 64);
    token[i] = w.token;
    for (int j = 0; j < i; j++) CHECK(token[i] != token[j]);
  }
  CHECK_INT(t_ack(v, token[0]), 0); /* the first, and not the last */
  CHECK_INT(cfn_bus_release_inbox(v), 0);
  for (int i = 1; i < 3; i++) CHECK_INT(recv_id(v, true, NULL, NULL), 10 + i);
  CHECK_INT(recv_id(v, true, NULL, NULL), CFN_EMPTY);
  t_check_region(a, true);
  t_close(v);
  t_close(a);
  t_destroy();
}

int main(int argc, char **argv) {
  (void)argc;
  step_setup(argv);
  t_guard(60);
  bodies_make();
  bit_of_one_that_waits(true);
  bit_of_one_that_waits(false);
  long all = last_ack_comes_late(1L << 40);
#ifdef __SANITIZE_ADDRESS__ /* its instructions are many, and not what is tested */
  long stride = all / 10;
#else
  long stride = all / 40;
#endif
  for (long n = (long)(cfn_os_random() % (uint64_t)stride); n < all; n += stride) last_ack_comes_late(n);
  cfn_bus_t *a = t_open("a", NULL);
  cfn_region_t *r = cfn_bus_region(a);
  cfn_address_t to;
  int created;
  CHECK_INT(cfn_bus_register(a, "v", NULL, &to, &created), 0);
  cfn_outgoing_t m[3];
  for (int i = 0; i < 3; i++) m[i] = (cfn_outgoing_t){.body = bodies[i + 1], .body_bytes = 64};
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, 3, 0, NULL), 0);
  victim_t v = {.report = report_new()};
  victim_start(&v, reader, ack_last);
  uint64_t slot = cfn_load_seq(cfn_lane_slots(r, to.index, CFN_LANE_NORMAL));
  cfn_a64 *part = &cfn_chunk(r, cfn_slot_ref(slot) - 1)->part[0];
  while (cfn_part_acked(cfn_load_seq(part)) != 7) CHECK(victim_step(&v, 1));
  cfn_bus_t *thief = t_attach("v");
  CHECK_INT(cfn_bus_claim_inbox(thief, 1), 0);
  int redelivered = recv_id(thief, true, NULL, NULL);
  victim_finish(&v);
  int64_t said = v.report->result;
  fprintf(stderr, "the ack said %s, the thief got %d\n", said ? cfn_error_name((int)said) : "OK", redelivered);
  victim_leave(&v);
  CHECK(redelivered == 3 ? said == CFN_AGENT_FENCED : said == CFN_OK);
  t_close(thief);
  t_close(a);
  t_destroy();
  t_passed("test_frame_stolen");
  return 0;
}
