/* An ack that took effect says AGENT_FENCED. The last ack of a frame sets its bit (ack_part: the frame
 * is whole), and before its CAS own -> DONE an operator steals: the thief finds every bit set and makes
 * the frame DONE itself. The CAS fails -> `goto fenced`: the caller is told that the message goes to
 * the thief, who never gets it. Who rolls its work back on AGENT_FENCED loses the message. */
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
int main(int argc, char **argv) {
  (void)argc;
  step_setup(argv);
  t_guard(60);
  bodies_make();
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
