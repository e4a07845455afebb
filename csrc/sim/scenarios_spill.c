/* Objects that go to disk and come back: two fill the heap, so that a third needs the place of one of them. Whatever the
 * schedule: what was put and not deleted can be read at every moment, from memory or from disk; what is looked at in place
 * stays; at the end neither a record, nor a page, nor a file is left. The files are real ones. */
#include <string.h>

#include "base/sha256.h"
#include "mem/evict.h"
#include "mem/spill.h"
#include "sim/kernel.h"
#include "sim/ledger.h"
#include "sim/scenarios.h"

enum { HALF = 6000 }; /* two of the four pages */

static int there[IDS]; /* put, and told so, and not deleted */
static bool gone[IDS], put_once_more[IDS]; /* deleted, and told so; put, perhaps, by others than the setup */

static const uint8_t *digest_of(int id) { /* the true one: what comes back from disk is looked at */
  static uint8_t d[IDS][32];
  static bool known[IDS];
  if (!known[id]) {
    uint8_t data[HALF];
    memset(data, id, sizeof data);
    cfn_sha256(data, sizeof data, d[id]);
    known[id] = true;
  }
  return d[id];
}

static int put(int me, int id) {
  uint8_t data[HALF];
  int known;
  memset(data, id, sizeof data);
  put_once_more[id] |= there[id] != 0;
  int r = cfn_bus_object_put(bus[me], digest_of(id), data, HALF, &known);
  sim_note("  process %d put %d: %s", me, id, cfn_error_name(r));
  SIM_CHECK(r == CFN_OK || r == CFN_NO_SPACE);
  if (r == CFN_OK) there[id]++;
  return r;
}
static void delete(int me, int id) { /* nobody else deletes it */
  there[id] = -IDS;
  int r = cfn_bus_object_delete(bus[me], digest_of(id));
  sim_note("  process %d deleted %d: %s", me, id, cfn_error_name(r));
  SIM_CHECK(r == CFN_OK);
  gone[id] = true;
}
static bool object(cfn_bus_t *of, int id) {
  uint8_t out[HALF];
  int64_t n = cfn_bus_object_get(of, digest_of(id), out, sizeof out);
  if (n == CFN_UNKNOWN_OBJECT) return false;
  if (n != HALF) sim_fail("object %d: %s, %s", id, cfn_error_name((int)n), cfn_last_failure()->text);
  for (int64_t i = 0; i < n; i++) SIM_CHECK(out[i] == id);
  return true;
}
static void look(int me, int id) {
  cfn_pin_t pin;
  int e = cfn_bus_object_pin(bus[me], digest_of(id), &pin);
  sim_note("  process %d looks at %d: %s", me, id, cfn_error_name(e));
  SIM_CHECK(e == CFN_OK || e == CFN_NO_SPACE || (e == CFN_UNKNOWN_OBJECT && there[id] < 0));
  if (e != CFN_OK) return;
  for (int times = 0; times < 2; times++) {
    uint8_t seen[HALF];
    cfn_copy_out(seen, pin.data, HALF);
    for (uint64_t i = 0; i < pin.bytes; i++) SIM_CHECK(seen[i] == id);
    cfn_bus_object_bytes(bus[me], digest_of(id)); /* others may go on */
  }
  cfn_bus_object_unpin(bus[me], pin.pin, pin.word);
}

static void setup_full(void) {
  begin();
  kernel_spills(true);
  memset(there, 0, sizeof there);
  memset(gone, 0, sizeof gone);
  memset(put_once_more, 0, sizeof put_once_more);
  for (int p = 0; p < 3; p++) bus[p] = sim_open(p, NULL);
  cfn_spill_end(cfn_bus_region(bus[0])->super.spill); /* of the run before */
  SIM_CHECK(put(0, 1) == CFN_OK && put(0, 2) == CFN_OK);
}
static void setup_spilled(void) { /* one of the two is on disk */
  setup_full();
  SIM_CHECK(put(0, 3) == CFN_OK);
}

static void put_one(int me) { put(me, 4); }
static void put_other(int me) { put(me, 5); }
static void get_all(int me) {
  for (int id = 1; id <= 2; id++) SIM_CHECK(object(bus[me], id));
}
static void look_at_both(int me) {
  look(me, 1);
  look(me, 2);
}
static void delete_both(int me) {
  delete(me, 1);
  delete(me, 2);
}
static void delete_first(int me) { delete(me, 1); }
static void get_or_none(int me) {
  for (int id = 1; id <= 2; id++) SIM_CHECK(object(bus[me], id) || there[id] < 0);
}
static void put_again(int me) {
  put(me, 1);
  put(me, 2);
}
static void collect(int me) { SIM_CHECK(cfn_bus_collect(bus[me]) >= 0); }
static void churn(int me) { /* the record of what is on disk is soon another's, and on disk again */
  delete(me, 1);
  delete(me, 2);
  for (int id = 4; id < 8; id++) put(me, id);
}
static void renew(int me) { /* what the other one deletes has its record used again, and put on disk */
  collect(me);
  delete(me, 2);
  for (int id = 4; id < 7; id++) put(me, id);
  collect(me);
}
static void list(int me) {
  cfn_object_info_t infos[4];
  for (int tries = 0; tries < 2; tries++) {
    int64_t n = cfn_bus_object_list(bus[me], infos, 4);
    SIM_CHECK(n >= 0);
    int found = 0;
    for (int64_t i = 0; i < n && i < 4; i++) {
      SIM_CHECK(infos[i].bytes == HALF);
      for (int id = 1; id <= 2; id++) found += memcmp(infos[i].digest, digest_of(id), 32) == 0;
    }
    SIM_CHECK(found == 2); /* wherever they are just now */
  }
}

static void verify_spill(void) {
  int p = SIM_PROCESSES - 1;
  sim_as(p);
  cfn_bus_t *late = sim_open(p, NULL);
  SIM_CHECK(cfn_bus_reap(late) >= 0);
  for (int id = 1; id < 8; id++) {
    bool is = object(late, id);
    SIM_CHECK(is || there[id] <= 0);
    SIM_CHECK(!is || !gone[id] || put_once_more[id]);
  }
  cfn_object_info_t objects[8];
  int64_t n = cfn_bus_object_list(late, objects, 8);
  for (int i = 0; i < n; i++) cfn_bus_object_delete(late, objects[i].digest);
  audit_heap(p, late);
  cfn_spill_count_t files = cfn_evict_sweep(cfn_bus_region(late));
  if (files.kept || (files.removed && !sim_anyone_killed()))
    sim_fail("%u files of objects that are no more are left, and %u were", files.kept, files.removed);
  cfn_bus_close(late);
  audit(NULL);
}

#define OUT "evict_one,write_out,in_use,cfn_heap_holders,held,cfn_heap_hold,hold,change,weigh"
#define BACK "cfn_recall,why_not,read_back,cfn_heap_look_spilled,cfn_index_find,cfn_index_move,cfn_index_remove,hold,get,cfn_heap_hold"

const sim_scenario_t sim_spill_scenarios[] = {
    {"spill", setup_full, {put_one, get_all, look_at_both}, verify_spill, 0, true, {2, 0, 0, 0}, NULL},
    {"spill-killed", setup_full, {put_one, get_all, look_at_both}, verify_spill, ALL, true, {1, 1, 0, 0}, NULL},
    {"spill-two", setup_full, {put_one, put_other, get_all}, verify_spill, 0, true, {2, 0, 0, 0}, NULL},
    {"spill-two-killed", setup_full, {put_one, put_other, get_all}, verify_spill, ALL, true, {1, 1, 0, 0}, NULL},
    {"spill-delete", setup_full, {put_one, delete_both, get_or_none}, verify_spill, 0, true, {2, 0, 0, 0}, NULL},
    {"spill-delete-killed", setup_full, {put_one, delete_both, get_or_none}, verify_spill, ALL, true, {1, 1, 0, 0}, NULL},
    {"recall", setup_spilled, {look_at_both, get_all, list}, verify_spill, 0, true, {2, 0, 0, 0}, NULL},
    {"recall-two", setup_spilled, {look_at_both, look_at_both, get_all}, verify_spill, 0, true, {2, 0, 0, 0}, NULL},
    {"recall-killed", setup_spilled, {look_at_both, get_all, collect}, verify_spill, ALL, true, {1, 1, 0, 0}, NULL},
    {"recall-delete", setup_spilled, {look_at_both, delete_first, get_or_none}, verify_spill, 0, true, {2, 0, 0, 0}, NULL},
    {"recall-delete-killed", setup_spilled, {look_at_both, delete_both, put_again}, verify_spill, ALL, true, {1, 1, 0, 0}, NULL},
    {"spill-hold", setup_full, {put_one, look_at_both}, verify_spill, 0, true, {4, 0, 0, 0}, OUT},
    {"spill-rescue", setup_full, {put_one, look_at_both}, verify_spill, 0, true, {3, 0, 0, 0},
     "write_out,cfn_heap_hold,cfn_bus_object_get"},
    {"spill-name", setup_full, {put_one, delete_both, collect}, verify_spill, 0, true, {3, 0, 0, 0},
     "evict_one,write_out,cfn_index_names,cfn_index_remove,cfn_bus_object_delete,cfn_heap_drop_spilled,mark_batch,decide"},
    {"recall-slow", setup_spilled, {delete_first, renew}, verify_spill, 0, true, {2, 0, 0, 0},
     "cfn_bus_object_delete,cfn_index_remove,cfn_heap_drop_spilled,cfn_index_names"},
    {"recall-list", setup_spilled, {look_at_both, list}, verify_spill, 0, true, {3, 0, 0, 0},
     "cfn_recall,cfn_index_move,cfn_heap_drop_spilled,cfn_bus_object_list,cfn_heap_look"},
    /* The index moves while others follow it. */
    {"recall-find", setup_spilled, {look_at_both, get_all}, verify_spill, 0, true, {3, 0, 0, 0},
     "cfn_recall,cfn_index_find,cfn_index_move,cfn_heap_drop_spilled"},
    {"recall-again", setup_spilled, {look_at_both, look_at_both}, verify_spill, 0, true, {3, 0, 0, 0},
     "cfn_recall,why_not,cfn_index_move,cfn_heap_drop_spilled,cfn_recall_copy"},
    {"recall-gone", setup_spilled, {look_at_both, delete_both}, verify_spill, 0, true, {3, 0, 0, 0},
     "cfn_recall,cfn_index_move,cfn_index_remove,cfn_bus_object_delete,cfn_heap_drop_spilled"},
    {"recall-copy", setup_spilled, {get_or_none, churn}, verify_spill, 0, true, {2, 0, 0, 0},
     "cfn_recall_copy,read_back,cfn_heap_look_spilled,get,fetch,cfn_index_digest"},
    {"recall-move", setup_spilled, {look_at_both, get_or_none, delete_both}, verify_spill, 0, true, {3, 0, 0, 0}, BACK},
    {"recall-race", setup_spilled, {look_at_both, look_at_both}, verify_spill, ALL, true, {2, 1, 0, 0}, BACK},
};
const int sim_spill_scenario_count = sizeof sim_spill_scenarios / sizeof sim_spill_scenarios[0];
