/* The region's file is cut short while a call is inside, by whoever: what is read from then on are zeros of our own, and no call
 * gives them out as an answer. */
#include <string.h>

#include "agent/bus.h"
#include "tests/meddler.h"

static cfn_bus_t *a;
static cfn_region_t *r;
static uint8_t data[3000], digest[32] = {1, 2, 3};
static _Alignas(8) uint8_t out[8192];

static void cut(cfn_a64 *word) {
  (void)word;
  union { const cfn_a32 *in; cfn_a32 *out; } lost = {.in = r->lost};
  cfn_store_seq(lost.out, 1); /* as the handler of the fault says */
}
static void whole(void) {
  union { const cfn_a32 *in; cfn_a32 *out; } lost = {.in = r->lost};
  cfn_store_seq(lost.out, 0);
}

static int64_t get_value(void) { return cfn_bus_ref_get(a, "k", 1, out, sizeof out, NULL); }
static int64_t set_value(void) {
  uint64_t version;
  return cfn_bus_ref_set(a, "k", 1, CFN_ANY_VERSION, 0, data, sizeof data, &version);
}
static int64_t list_values(void) {
  cfn_ref_info_t infos[4];
  return cfn_bus_ref_list(a, "", 0, infos, 4);
}
static int64_t get_object(void) { return cfn_bus_object_get(a, digest, out, sizeof out); }
static int64_t list_objects(void) {
  cfn_object_info_t infos[4];
  return cfn_bus_object_list(a, infos, 4);
}
static int64_t list_locks(void) {
  cfn_holder_t holders[4];
  return cfn_bus_lease_list(a, CFN_LEASE_LOCK, holders, 4);
}
static int64_t holders(void) {
  cfn_holder_t all[4];
  uint32_t permits;
  return cfn_bus_semaphore_holders(a, "s", 1, &permits, all, 4);
}
static int64_t receive(void) { return cfn_bus_recv(a, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out); }
static int64_t send_it(void) { return post(0, a, "a", 8, 0); }
static int64_t find(void) {
  cfn_address_t x;
  return cfn_bus_find(a, "a", &x);
}

int main(void) {
  static const struct { const char *name, *where; int64_t (*call)(void); } cases[] = {
      {"a value is read", "copy_value", get_value}, {"a value is set", "cfn_refs_load", set_value},
      {"values are listed", "cfn_bus_ref_list", list_values}, {"an object is read", "cfn_heap_look", get_object},
      {"objects are listed", "cfn_bus_object_list", list_objects}, {"locks are listed", "cfn_bus_lease_list", list_locks},
      {"permits are listed", "still_that", holders}, {"a message is received", "take", receive},
      {"a message is sent", "claim_one", send_it}, {"a name is looked up", "cfn_directory_find", find},
  };
  m_main();
  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    t_case("cut while %s", cases[i].name);
    m_fresh(false);
    bus[0] = a = sim_open(0, "a");
    r = cfn_bus_region(a);
    uint64_t token;
    int known;
    cfn_held_t held;
    cfn_holder_t died;
    CHECK_INT(set_value(), 0);
    CHECK_INT(cfn_bus_object_put(a, digest, data, sizeof data, &known), 0);
    CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LOCK, "l", 1, 0, 0, &held, &died), 0);
    CHECK_INT(cfn_bus_semaphore_take(a, "s", 1, 2, 0, &token), 0);
    m_meddle(cases[i].where, 'l', NULL, 0, 1, cut);
    CHECK_INT(cases[i].call(), CFN_CORRUPT);
    m_end();
    CHECK(strstr(cfn_last_failure()->text, "was cut short") != NULL);
    whole();
    t_check_region(a, true);
  }
  t_passed("test_meddled_cut");
  return 0;
}
