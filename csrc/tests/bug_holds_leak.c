/* A handle that owns an agent and unregisters it keeps the announcement: cfn_registry_remove gives the
 * consumer word back but not the owner word, and erase() keeps the cell while the owner word names us.
 * After 8 agents the handle answers OVER_CAPACITY. */
#include "tests/harness.h"
int main(void) {
  t_guard(20);
  cfn_wish_t wish = t_small_wish();
  wish.agents = 32;
  cfn_bus_t *a = t_open(NULL, &wish);
  for (int i = 0; i < 20; i++) {
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    uint64_t inc, dropped;
    int owner;
    t_case("agent %d", i);
    CHECK_INT(cfn_bus_act_as(a, name, NULL, CFN_ACT_OWN, &inc, &owner), 0);
    CHECK_INT(cfn_bus_unregister(a, name, 0, &dropped), 0);
  }
  t_close(a);
  t_destroy();
  t_passed("bug_holds_leak");
  return 0;
}
