/* cfn_bus_verify of a handle that has no agent (any more): lost_inbox() reads mailbox 0 - 1 of the
 * table, terabytes away: SIGSEGV. Reached by holding a view, unregistering oneself, verifying it. */
#include "tests/harness.h"
int main(void) {
  t_guard(20);
  cfn_bus_t *a = t_open("a", NULL);
  cfn_wire_t w;
  char body[4096];
  uint64_t dropped;
  CHECK_INT(t_send(a, "a", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
  CHECK_INT(t_recv(a, 0, &w, body), 1);
  CHECK_INT(cfn_bus_unregister(a, "a", 0, &dropped), 0);
  CHECK(cfn_bus_verify(a, w.token) < 0);
  t_close(a);
  t_destroy();
  t_passed("bug_verify_no_agent");
  return 0;
}
