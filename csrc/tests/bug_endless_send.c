/* Hostile words: tail far behind the slots' laps. Each try moves tail by one; after 4096 tries publish
 * says AGAIN, and post() goes on for ever, even with deadline 0 ("do not wait"). */
#include "tests/harness.h"
int main(void) {
  t_guard(10);
  cfn_bus_t *a = t_open("a", NULL);
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "a", &to), 0);
  for (uint32_t i = 0; i < 8; i++)
    cfn_store_seq(&cfn_lane_slots(cfn_bus_region(a), to.index, CFN_LANE_NORMAL)[i],
                  cfn_slot_word(UINT64_C(1) << 38, 0));
  t_case("send with deadline 0 must come back within the alarm");
  CHECK(t_send(a, "a", CFN_LANE_NORMAL, "x", 1, 0, NULL) < 0);
  t_close(a);
  t_destroy();
  t_passed("bug_endless_send");
  return 0;
}
