/* Objects and named values: what the virtual processes do, and what must be true afterwards, whatever the schedule.
 *
 * A value or an object of id n has n in all its bytes. A few bytes stand in the record, more in pages: both ways of
 * reading are in here. */
#include <string.h>

#include "mem/heap.h"
#include "mem/index.h"
#include "sim/ledger.h"
#include "sim/scenarios.h"
#include "sync/refs.h"

enum { FEW = 24, PAGE = 3000 };

static int added; /* additions that were told to have happened */

static int there[IDS]; /* objects: put, and told so, and not deleted */

static const uint8_t *digest_of(int id) { /* all of them want the same place in the index */
  static uint8_t d[IDS][32];
  for (int i = 8; i < 32; i++) d[id][i] = (uint8_t)(id * 37 + i * 101);
  return d[id];
}
static int set(int me, const char *key, int id, uint64_t bytes) {
  uint8_t data[PAGE];
  uint64_t version;
  memset(data, id, sizeof data);
  int r = cfn_bus_ref_set(bus[me], key, (uint32_t)strlen(key), CFN_ANY_VERSION, 0, data, bytes, &version);
  sim_note("  process %d set '%s' to %d: %s", me, key, id, cfn_error_name(r));
  SIM_CHECK(r == CFN_OK || r == CFN_NO_SPACE || r == CFN_OVER_CAPACITY || r == CFN_AGAIN);
  return r;
}
/* The id that it has; 0: it has no value. */
static int value(cfn_bus_t *of, const char *key) {
  uint8_t out[PAGE];
  int64_t n = cfn_bus_ref_get(of, key, (uint32_t)strlen(key), out, sizeof out, NULL);
  if (n == CFN_UNKNOWN_KEY) return 0;
  SIM_CHECK(n == FEW || n == PAGE);
  for (int64_t i = 1; i < n; i++) SIM_CHECK(out[i] == out[0]);
  return out[0];
}
static int put(int me, int id) {
  uint8_t data[PAGE];
  int known;
  memset(data, id, sizeof data);
  int r = cfn_bus_object_put(bus[me], digest_of(id), data, PAGE, &known);
  sim_note("  process %d put %d: %s", me, id, cfn_error_name(r));
  SIM_CHECK(r == CFN_OK || r == CFN_NO_SPACE);
  if (r == CFN_OK) there[id]++;
  return r;
}
static void delete(int me, int id) {
  there[id] = -IDS;
  cfn_bus_object_delete(bus[me], digest_of(id));
}
static bool object(cfn_bus_t *of, int id) {
  uint8_t out[PAGE];
  int64_t n = cfn_bus_object_get(of, digest_of(id), out, sizeof out);
  if (n == CFN_UNKNOWN_OBJECT) return false;
  SIM_CHECK(n == PAGE);
  for (int64_t i = 0; i < n; i++) SIM_CHECK(out[i] == id);
  return true;
}

static uint64_t first_version; /* of "k" */

static void setup_context(void) {
  begin();
  added = 0;
  memset(there, 0, sizeof there);
  for (int p = 0; p < 3; p++) bus[p] = sim_open(p, NULL);
  SIM_CHECK(set(0, "k", 8, PAGE) == CFN_OK);
}
static void setup_objects(void) {
  setup_context();
  SIM_CHECK(put(0, 9) == CFN_OK);
}
/* Four records of values: two with one, one without, one free. */
static void setup_few_refs(void) {
  setup_context();
  SIM_CHECK(set(0, "other", 8, FEW) == CFN_OK);
  SIM_CHECK(set(0, "gone", 8, FEW) == CFN_OK);
  SIM_CHECK(cfn_bus_ref_delete(bus[0], "gone", 4, CFN_ANY_VERSION) == CFN_OK);
}

/* One who died while it wrote an object, and held another. */
static void setup_half_written(void) {
  setup_objects();
  bus[3] = sim_open(3, NULL);
  cfn_region_t *r = cfn_bus_region(bus[3]);
  uint32_t me = cfn_bus_attachment(bus[3]);
  cfn_filling_t f;
  cfn_pin_t pin;
  SIM_CHECK(cfn_bus_object_pin(bus[3], digest_of(9), &pin) == CFN_OK);
  cfn_hold_t h;
  SIM_CHECK(cfn_ledger_find(r, me, &h) && cfn_heap_begin(r, me, &h, PAGE, &f) == CFN_OK);
  cfn_store_seq(&cfn_state(r)->attach_hint, me); /* who attaches next looks there first ... */
  cfn_store_seq(&cfn_state(r)->blob_hint, f.blob); /* ... and takes that blob */
  sim_bury(3);
  bus[3] = NULL;
}
static void reap(int me) { cfn_bus_reap(bus[me]); }
static void put_there(int me) { /* perhaps in the dead one's slot, and in its blob */
  bus[me] = sim_open(me, NULL);
  if (put(me, 10) == CFN_OK) SIM_CHECK(object(bus[me], 10));
}

static void set_page(int me) { set(me, "k", me * 8 + 1, PAGE); }
static void set_few(int me) { set(me, "k", me * 8 + 2, FEW); }
static void set_twice(int me) {
  set_page(me);
  set_few(me);
}
static void read_value(int me) {
  int id = value(bus[me], "k");
  SIM_CHECK(id == 8 || id % 8 == 1 || id % 8 == 2);
}
static void read_twice(int me) {
  read_value(me);
  read_value(me);
}
/* Its record is used again, for values of another name. */
static void setup_few(void) {
  setup_context();
  SIM_CHECK(set(0, "k", 8, FEW) == CFN_OK);
}
static void read_first_or_second(int me) {
  for (int i = 0; i < 2; i++) {
    int id = value(bus[me], "k");
    SIM_CHECK(id == 8 || id == 9);
  }
}
static void set_second_and_others(int me) {
  set(me, "k", 9, FEW);
  for (int i = 0; i < 4; i++) set(me, "o", 16 + i, FEW);
}
static void set_second_and_other_pages(int me) { /* some of them with pages, some without */
  set(me, "k", 9, PAGE);
  for (int i = 0; i < 5; i++) set(me, "o", 16 + i, i % 2 ? FEW : PAGE);
}
static void read_or_none(int me) {
  int id = value(bus[me], "k");
  SIM_CHECK(id == 0 || id == 8 || id == 10);
}
static void unset(int me) { cfn_bus_ref_delete(bus[me], "k", 1, CFN_ANY_VERSION); }
static void collect(int me) { SIM_CHECK(cfn_bus_collect(bus[me]) >= 0); }
static void add(int me) {
  int64_t sum;
  uint64_t version;
  int r = cfn_bus_ref_add(bus[me], "n", 1, 1, &sum, &version);
  sim_note("  process %d added one: %s, %d", me, cfn_error_name(r), (int)sum);
  SIM_CHECK(r == CFN_OK || r == CFN_NO_SPACE || r == CFN_AGAIN);
  if (r == CFN_OK) added++;
}
static void set_new(int me) {
  char key[] = "new-0";
  key[4] = (char)('0' + me);
  set(me, key, me * 8 + 1, FEW);
}
static void set_gone(int me) { set(me, "gone", me * 8 + 1, FEW); }
static void put_one(int me) { put(me, 10); }
static void put_other(int me) { put(me, 11); }
static void put_and_delete(int me) {
  put(me, 10);
  delete(me, 10);
}
static void get_both(int me) {
  object(bus[me], 10);
  object(bus[me], 11);
}
static void look_at_view(int me) {
  cfn_pin_t pin;
  if (cfn_bus_object_pin(bus[me], digest_of(9), &pin) != CFN_OK) return;
  for (int look = 0; look < 3; look++) {
    uint8_t seen[PAGE];
    cfn_copy_out(seen, pin.data, pin.bytes);
    for (uint64_t i = 0; i < pin.bytes; i++) SIM_CHECK(seen[i] == 9);
    cfn_bus_object_bytes(bus[me], digest_of(9)); /* others may go on */
  }
  cfn_bus_object_unpin(bus[me], pin.pin, pin.word);
}
static void attach_and_look(int me) { /* a ledger that nobody looked at before */
  bus[me] = sim_open(me, NULL);
  look_at_view(me);
}
static void delete_and_fill(int me) {
  delete(me, 9);
  for (int i = 0; i < 3; i++) put(me, me * 8 + 11 + i);
}

/* Who waits for a change of a name is woken by it: from none to the first, to another, to none. */
static void wait_for_change(int me, const char *key, uint64_t seen) {
  uint64_t version;
  int r;
  do {
    r = cfn_bus_ref_wait(bus[me], key, 1, seen, patience(), &version);
  } while (r == CFN_INTERRUPTED);
  SIM_CHECK(r == CFN_OK && version != seen);
}
static uint64_t version_of(int me, const char *key) {
  cfn_ref_info_t info;
  return cfn_bus_ref_get(bus[me], key, 1, NULL, 0, &info) < 0 ? 0 : info.version;
}
static void wait_for_first(int me) { wait_for_change(me, "w", 0); }
static void set_first(int me) { set(me, "w", me * 8 + 1, FEW); }
static void wait_for_both(int me) {
  uint64_t seen = version_of(me, "k");
  if (seen == first_version) wait_for_change(me, "k", seen);
}
static void setup_watched(void) {
  setup_context();
  first_version = version_of(0, "k");
}
static void verify_watched(void) {
  sim_as(SIM_PROCESSES - 1);
  everybody_leaves(SIM_PROCESSES - 1);
}
static void verify_few(void) {
  sim_as(SIM_PROCESSES - 1);
  cfn_bus_t *late = sim_open(SIM_PROCESSES - 1, NULL);
  SIM_CHECK(value(late, "k") == 9);
  everybody_leaves(SIM_PROCESSES - 1);
}

/* Whatever was done: what has no name and no value any more leaves all its room. */
static void verify_context(void) {
  int p = SIM_PROCESSES - 1;
  sim_as(p);
  cfn_bus_t *late = sim_open(p, NULL);
  SIM_CHECK(cfn_bus_reap(late) >= 0);
  int id = value(late, "k");
  SIM_CHECK(id == 0 || id == 8 || id % 8 == 1 || id % 8 == 2);
  for (int o = 9; o < IDS; o++) SIM_CHECK(object(late, o) || there[o] <= 0);
  char text[32] = "0";
  int64_t n = cfn_bus_ref_get(late, "n", 1, text, sizeof text - 1, NULL);
  if (n >= 0) text[n] = 0;
  int sum = text[0] - '0';
  SIM_CHECK(sum >= added && (sum == added || sim_anyone_killed()));
  cfn_ref_info_t refs[8];
  cfn_object_info_t objects[8];
  n = cfn_bus_ref_list(late, "", 0, refs, 8);
  for (int i = 0; i < n; i++)
    SIM_CHECK(cfn_bus_ref_delete(late, refs[i].key, (uint32_t)strlen(refs[i].key), CFN_ANY_VERSION) == CFN_OK);
  n = cfn_bus_object_list(late, objects, 8);
  for (int i = 0; i < n; i++) cfn_bus_object_delete(late, objects[i].digest);
  audit_heap(p, late);
  cfn_bus_close(late);
  audit(NULL);
}
/* Both new values are there, and so is what was told to have been set. */
static void verify_few_refs(void) {
  sim_as(SIM_PROCESSES - 1);
  cfn_bus_t *late = sim_open(SIM_PROCESSES - 1, NULL);
  for (int p = 0; p < 2; p++) {
    char key[] = "new-0";
    key[4] = (char)('0' + p);
    int id = value(late, key);
    SIM_CHECK(id == p * 8 + 1 || sim_anyone_killed() || id == 0); /* 0: all records were in use for a moment */
  }
  int id = value(late, "gone");
  SIM_CHECK(id == 17 || id == 0);
  SIM_CHECK(value(late, "other") == 8);
  cfn_bus_close(late);
  verify_context();
}

/* ---- messages whose body is an object ---- */

static void setup_letters(void) {
  begin();
  memset(there, 0, sizeof there);
  bus[0] = sim_open(0, NULL);
  bus[1] = sim_open(1, "reader");
  bus[2] = sim_open(2, NULL);
}
static void send_letters(int me) {
  for (int k = 1; k <= 2; k++) {
    int r = post_bytes(me, bus[me], "reader", me * 8 + k, LETTER, 0);
    SIM_CHECK(r == CFN_OK || r == CFN_NO_SPACE || r == CFN_FULL);
  }
}
/* Written in place: one is sent, one is dropped, one is sent to nobody and then to the reader. */
static void send_loans(int me) {
  for (int k = 1; k <= 3; k++) {
    cfn_loan_t loan;
    cfn_address_t at;
    int id = me * 8 + k, r = cfn_bus_loan(bus[me], LETTER, &loan);
    SIM_CHECK(r == CFN_OK || r == CFN_NO_SPACE);
    if (r != CFN_OK) continue;
    uint8_t body[LETTER];
    memset(body, id, LETTER);
    cfn_copy_in(loan.data, body, LETTER);
    if (k == 2) {
      cfn_bus_loan_drop(bus[me], loan.number);
      SIM_CHECK(cfn_bus_loan_send(bus[me], loan.number, 0, 1, CFN_LANE_NORMAL, 0, "", 0, 0, NULL) == CFN_INVALID);
      continue;
    }
    SIM_CHECK(cfn_bus_find(bus[me], "reader", &at) == CFN_OK);
    if (k == 3)
      SIM_CHECK(cfn_bus_loan_send(bus[me], loan.number, at.index, at.mid + (1u << 8), CFN_LANE_NORMAL, 0, "", 0, 0, NULL) == CFN_STALE);
    do {
      r = cfn_bus_loan_send(bus[me], loan.number, at.index, at.mid, CFN_LANE_NORMAL, 0, "", 0, 0, NULL);
    } while (r == CFN_INTERRUPTED);
    sim_note("  process %d sent a loan, %d: %s", me, id, cfn_error_name(r));
    SIM_CHECK(r == CFN_OK || r == CFN_FULL || r == CFN_NO_SPACE);
    if (r == CFN_OK) L.told[id]++;
    else cfn_bus_loan_drop(bus[me], loan.number);
  }
}
static void read_letters(int me) {
  uint64_t token = 0;
  for (int tries = 0; tries < 4; tries++) {
    int64_t n = take(me, bus[me], &token, 0);
    SIM_CHECK(n > 0 || n == CFN_EMPTY);
  }
  if (token) SIM_CHECK(cfn_bus_ack(bus[me], &token, 1) == CFN_OK);
}
static void peek_letters(int me) {
  static _Alignas(8) uint8_t out[4][4 * LETTER];
  uint32_t offsets[4];
  size_t used;
  int more;
  cfn_address_t at;
  SIM_CHECK(cfn_bus_find(bus[me], "reader", &at) == CFN_OK);
  for (int tries = 0; tries < 2; tries++) {
    int64_t n = cfn_bus_peek(bus[me], &at, CFN_ALL_LANES, out[me], sizeof out[me], offsets, 4, &used, &more);
    SIM_CHECK(n >= 0);
    for (int64_t i = 0; i < n; i++) id_of(out[me] + offsets[i]); /* whole */
  }
}
static void fill_and_collect(int me) {
  put(me, 10 + me);
  delete(me, 10 + me);
  collect(me);
  put(me, 20 + me);
}
static void verify_letters(void) {
  audit_reader();
  cfn_bus_t *late = sim_open(SIM_PROCESSES - 1, NULL);
  sim_as(SIM_PROCESSES - 1);
  for (int id = 1; id < IDS; id++)
    if (object(late, id)) cfn_bus_object_delete(late, digest_of(id));
  cfn_bus_collect(late);
  cfn_heap_info_t info;
  SIM_CHECK(cfn_bus_heap_info(late, &info) == CFN_OK);
  SIM_CHECK(info.used_bytes == 0 && info.objects == 0); /* a body goes with the last message that had it */
  cfn_bus_close(late);
}

const sim_scenario_t sim_context_scenarios[] = {
    {"letter", setup_letters, {send_letters, read_letters, fill_and_collect}, verify_letters, 0, false, {2, 0, 0, 0}, NULL},
    {"letter-killed", setup_letters, {send_letters, read_letters, fill_and_collect}, verify_letters, ALL, true, {1, 1, 0, 0}, NULL},
    {"letter-peek", setup_letters, {send_letters, read_letters, peek_letters}, verify_letters, 0, false, {2, 0, 0, 0}, NULL},
    {"letter-two", setup_letters, {send_letters, read_letters, send_letters}, verify_letters, 0, false, {2, 0, 0, 0}, NULL},
    {"letter-held", setup_letters, {send_letters, read_letters, fill_and_collect}, verify_letters, ALL, true, {2, 1, 0, 0},
     "cfn_frame_write,cfn_heap_release_sole,look_at_chunks,held,decide,mark_batch,let_go_of_body,change,cfn_heap_look"},
    {"loan", setup_letters, {send_loans, read_letters, fill_and_collect}, verify_letters, 0, false, {2, 0, 0, 0}, NULL},
    {"loan-killed", setup_letters, {send_loans, read_letters, fill_and_collect}, verify_letters, ALL, true, {1, 1, 0, 0}, NULL},
    {"loan-two", setup_letters, {send_loans, read_letters, send_loans}, verify_letters, ALL, true, {1, 1, 0, 0}, NULL},
    {"value", setup_context, {set_page, set_few, read_value}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"value-killed", setup_context, {set_page, set_few, read_value}, verify_context, ALL, true, {1, 1, 0, 0}, NULL},
    {"value-collect", setup_context, {read_value, set_twice, collect}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"value-collect-killed", setup_context, {read_value, set_twice, collect}, verify_context, ALL, true, {1, 1, 0, 0}, NULL},
    {"value-collectors", setup_context, {collect, set_page, collect}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"value-scarce", setup_context, {set_twice, set_twice, read_twice}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"value-delete", setup_context, {unset, set_few, read_or_none}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"value-add", setup_context, {add, add, add}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"value-add-killed", setup_context, {add, add, add}, verify_context, ALL, true, {1, 1, 0, 0}, NULL},
    {"value-names", setup_few_refs, {set_new, set_new, set_gone}, verify_few_refs, 0, false, {2, 0, 0, 0}, NULL},
    {"value-names-killed", setup_few_refs, {set_new, set_new, set_gone}, verify_few_refs, ALL, true, {1, 1, 0, 0}, NULL},
    {"object", setup_objects, {put_one, put_and_delete, get_both}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"object-killed", setup_objects, {put_one, put_and_delete, get_both}, verify_context, ALL, true, {1, 1, 0, 0}, NULL},
    {"object-view", setup_objects, {look_at_view, delete_and_fill, collect}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"object-view-killed", setup_objects, {look_at_view, delete_and_fill, collect}, verify_context, ALL, true, {1, 1, 0, 0}, NULL},
    /* Holders against collectors, closely: what is held is not used again, and what is used again is not held. */
    {"value-few", setup_few, {read_first_or_second, set_second_and_others}, verify_few, 0, false, {2, 0, 0, 0}, NULL},
    {"value-pages", setup_context, {read_first_or_second, set_second_and_other_pages}, verify_few, 0, false, {2, 0, 0, 0}, NULL},
    {"value-wait", setup_context, {wait_for_first, set_first, wait_for_first}, verify_watched, 0, false, {2, 0, 0, 0}, NULL},
    {"value-wait-next", setup_watched, {wait_for_both, set_few}, verify_watched, 0, false, {2, 0, 0, 0}, NULL},
    {"value-wait-gone", setup_watched, {wait_for_both, unset}, verify_watched, 0, false, {2, 0, 0, 0}, NULL},
    {"heap-attach", setup_objects, {attach_and_look, delete_and_fill}, verify_context, 0, false, {2, 0, 0, 0}, NULL},
    {"heap-hold", setup_objects, {look_at_view, delete_and_fill}, verify_context, 0, false, {3, 0, 0, 0},
     "cfn_heap_hold,change,cfn_index_find,hold,mark_batch,held,decide,claim_blob,cfn_heap_begin,cfn_heap_publish"},
    {"heap-collectors", setup_objects, {collect, look_at_view, delete_and_fill}, verify_context, 0, false, {3, 0, 0, 0},
     "cfn_heap_hold,change,mark_batch,held,decide,claim_blob,cfn_heap_publish"},
    {"heap-collectors-killed", setup_objects, {collect, look_at_view, delete_and_fill}, verify_context, ALL, true, {2, 1, 0, 0},
     "cfn_heap_hold,change,mark_batch,held,decide,claim_blob,cfn_heap_publish,cfn_index_add"},
    {"heap-rescue", setup_objects, {look_at_view, delete_and_fill}, verify_context, 0, false, {4, 0, 0, 0},
     "cfn_heap_hold,change,decide,cfn_heap_publish"},
    {"heap-pages", setup_context, {put_one, put_other, get_both}, verify_context, 0, false, {3, 0, 0, 0},
     "claim_pages,page_free,release_pages,cfn_heap_publish"},
    {"heap-index", setup_context, {put_one, put_other, put_and_delete}, verify_context, 0, false, {3, 0, 0, 0},
     "cfn_index_add,cfn_index_remove,cfn_index_find"},
    {"heap-corpse", setup_half_written, {reap, reap, put_there}, verify_context, 0, true, {2, 0, 0, 0},
     "cfn_reap,cfn_heap_reap,cfn_heap_publish,claim_blob,change"},
    {"heap-corpse-killed", setup_half_written, {reap, reap, put_there}, verify_context, ALL, true, {1, 1, 0, 0},
     "cfn_reap,cfn_heap_reap,cfn_heap_publish,claim_blob,change"},
    {"heap-inside", setup_context, {read_twice, set_few, set_twice}, verify_context, 0, false, {3, 0, 0, 0},
     "cfn_heap_copy_few,copy_value,cfn_heap_publish,claim_blob,mark_batch,decide,cfn_refs_swap"},
};
const int sim_context_scenario_count = sizeof sim_context_scenarios / sizeof sim_context_scenarios[0];
