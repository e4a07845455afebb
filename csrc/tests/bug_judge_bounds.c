/* Hostile owner word {inc | N} with a dead reader: life_of_agent says DEAD by the reader and
 * hands out the owner's number unbounded; cfn_bus_judge reads the identity of attachment N - 1, outside of the region. */
#include <unistd.h>

#include "tests/harness.h"
int main(void) {
  t_guard(20);
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
  for (unsigned att = 0x400; att < 0xffff; att += 0xff0) { /* what lies there differs */
    t_case("owner %#x", att);
    cfn_store_seq(&cfn_mailbox(cfn_bus_region(a), v.index)->owner, cfn_owner_word(1, att));
    int r = cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_SEEN, t_in(0.001));
    fprintf(stderr, "owner %#x: %s, pid %lld\n", att, cfn_error_name(r), (long long)cfn_last_failure()->have);
  }
  t_close(a);
  t_destroy();
  t_passed("bug_judge_bounds");
  return 0;
}
