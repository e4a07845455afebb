/* Death and sleep at every instruction of the operations on objects and named values.
 *
 *   kill   at instruction n: everybody else goes on at once; an object or a value is whole, as it was, or not there;
 *          after a reaping no record, no page and no name is lost
 *   stop   at instruction n: others use every record and every page again, change and delete what it works on,
 *          collect; then it goes on, and what it is told is true
 *
 *   test_step_context [--all | --seconds S] [--op NAME] [--mode kill|stop] [--from N --to M]
 */
#include "agent/bus.h"
#include "tests/step_sweep.h"

enum { OBJECTS = 8, PAGES = 16, REFS = 4, SMALL = 40, LARGE = 2 * CFN_PAGE };

static cfn_bus_t *tx;
static victim_t victim;
static victim_report_t *rep;
static uint8_t bytes_of[128][LARGE], all_pages[PAGES * CFN_PAGE];
static uint64_t version;

static const uint8_t *digest_of(int id) {
  static uint8_t d[128][32];
  for (int i = 0; i < 32; i++) d[id][i] = (uint8_t)(id * 37 + i * 101);
  return d[id];
}
static int put(cfn_bus_t *bus, int id, uint64_t size) {
  int known;
  int e = cfn_bus_object_put(bus, digest_of(id), size > LARGE ? all_pages : bytes_of[id], size, &known);
  return e < 0 ? e : known;
}
static uint8_t out[PAGES * CFN_PAGE];
/* Its size if it is whole. */
static int64_t get(cfn_bus_t *bus, int id) {
  int64_t n = cfn_bus_object_get(bus, digest_of(id), out, sizeof out);
  if (n > 0 && memcmp(out, n > LARGE ? all_pages : bytes_of[id], (size_t)n) != 0) return -1000;
  return n;
}
static int set(cfn_bus_t *bus, const char *key, int id, uint64_t size) {
  return cfn_bus_ref_set(bus, key, (uint32_t)strlen(key), CFN_ANY_VERSION, CFN_CODEC_RAW, bytes_of[id], size, &version);
}
/* Which value it has: whole, or -1000; negative: none. */
static int64_t value(cfn_bus_t *bus, const char *key) {
  int64_t n = cfn_bus_ref_get(bus, key, (uint32_t)strlen(key), out, sizeof out, NULL);
  if (n < 0) return n;
  if (n == 0) return -1000;
  return out[0] < 128 && memcmp(out, bytes_of[out[0]], (size_t)n) == 0 ? out[0] : -1000;
}
static int64_t number(cfn_bus_t *bus) {
  char text[32] = "";
  int64_t n = cfn_bus_ref_get(bus, "n", 1, text, sizeof text - 1, NULL);
  return n < 0 ? 0 : atoll(text);
}

/* ---- the operations ---- */

static cfn_bus_t *plain(victim_report_t *r) {
  (void)r;
  return t_attach(NULL);
}
static int64_t do_put(cfn_bus_t *bus, victim_report_t *r) { return (void)r, put(bus, 100, LARGE); }
static int64_t do_put_few(cfn_bus_t *bus, victim_report_t *r) { return (void)r, put(bus, 100, SMALL); }
static int64_t do_get(cfn_bus_t *bus, victim_report_t *r) { return (void)r, get(bus, 1); }
static int64_t do_view(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_pin_t pin;
  int e = cfn_bus_object_pin(bus, digest_of(1), &pin);
  if (e < 0) return e;
  bool whole = pin.bytes == LARGE && memcmp(pin.data, bytes_of[1], LARGE) == 0;
  cfn_bus_object_unpin(bus, pin.pin, pin.word);
  return whole ? 0 : -1000;
}
static int64_t do_delete(cfn_bus_t *bus, victim_report_t *r) { return (void)r, cfn_bus_object_delete(bus, digest_of(1)); }
static int64_t do_list(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_object_info_t infos[4];
  cfn_ref_info_t refs[4];
  int64_t n = cfn_bus_object_list(bus, infos, 4), m = cfn_bus_ref_list(bus, "", 0, refs, 4);
  return n < 0 ? n : m < 0 ? m : 0;
}
static int64_t do_collect(cfn_bus_t *bus, victim_report_t *r) { return (void)r, cfn_bus_collect(bus); }
static int64_t do_set(cfn_bus_t *bus, victim_report_t *r) { return (void)r, set(bus, "k", 100, LARGE); }
static int64_t do_set_new(cfn_bus_t *bus, victim_report_t *r) { return (void)r, set(bus, "new", 100, SMALL); }
static int64_t do_read(cfn_bus_t *bus, victim_report_t *r) { return (void)r, value(bus, "k"); }
static int64_t do_unset(cfn_bus_t *bus, victim_report_t *r) {
  return (void)r, cfn_bus_ref_delete(bus, "k", 1, CFN_ANY_VERSION);
}
static int64_t do_add(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  int64_t sum;
  return cfn_bus_ref_add(bus, "n", 1, 1, &sum, &version);
}
static int64_t do_watch(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  uint64_t now;
  int e = cfn_bus_ref_wait(bus, "k", 1, version, cfn_os_monotonic_ns() + 20000000, &now);
  return e == CFN_TIMEOUT || e == CFN_INTERRUPTED ? 0 : e;
}

static int64_t do_loan(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_loan_t loan;
  cfn_address_t to;
  int e = cfn_bus_find(bus, "tx", &to);
  if (e == CFN_OK) e = cfn_bus_loan(bus, LARGE, &loan);
  if (e < 0) return e;
  memset(loan.data, 100, LARGE);
  return cfn_bus_loan_send(bus, loan.number, to.index, to.mid, CFN_LANE_NORMAL, CFN_CODEC_RAW, "", 0, 0, NULL);
}
static int64_t do_loan_drop(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_loan_t loan;
  int e = cfn_bus_loan(bus, LARGE, &loan);
  if (e < 0) return e;
  memset(loan.data, 100, LARGE);
  cfn_bus_loan_drop(bus, loan.number);
  return 0;
}

static const struct {
  const char *name;
  int64_t (*run)(cfn_bus_t *, victim_report_t *);
} operations[] = {
    {"put", do_put},   {"put-few", do_put_few}, {"get", do_get},     {"view", do_view},  {"delete", do_delete},
    {"list", do_list}, {"collect", do_collect}, {"set", do_set},     {"set-new", do_set_new},
    {"read", do_read}, {"unset", do_unset},     {"add", do_add},     {"watch", do_watch},
    {"loan", do_loan}, {"loan-drop", do_loan_drop},
};
#define OPERATIONS ((int)(sizeof operations / sizeof operations[0]))
#define IS(o, what) (operations[o].run == (what))

/* ---- the stage ---- */

static void stage_set(int o) {
  cfn_wish_t wish = t_small_wish();
  wish.objects = OBJECTS;
  wish.object_pages = PAGES;
  wish.refs = REFS;
  tx = t_open("tx", &wish);
  CHECK_INT(put(tx, 1, LARGE), 0);
  CHECK_INT(set(tx, "k", 2, LARGE), 0);
  int64_t sum;
  CHECK_INT(cfn_bus_ref_add(tx, "n", 1, 7, &sum, &version), 0);
  if (IS(o, do_set_new)) { /* all records of values are in use, one of them by a value that was deleted */
    CHECK_INT(set(tx, "a", 3, SMALL), 0);
    CHECK_INT(set(tx, "b", 3, SMALL), 0);
    CHECK_INT(cfn_bus_ref_delete(tx, "b", 1, CFN_ANY_VERSION), 0);
  }
  victim_start(&victim, plain, operations[o].run);
}
static void stage_clear(int o) {
  (void)o;
  t_close(tx);
  t_destroy();
}

static bool told(int64_t is, int64_t a, int64_t b) { return is == a || is == b; }

/* Others use what is free again and again, at once; `hard`: they also change what the victim works on. */
static void others_go_on(int o, bool hard) {
  int64_t sum;
  int rounds = hard ? 12 : 2;
  for (int i = 0; i < rounds; i++) {
    int id = 10 + i, e = put(tx, id, LARGE); /* the victim may hold two of the pages, and a record */
    CHECK_INT(e, 0);
    CHECK_INT(get(tx, id), LARGE);
    CHECK_INT(cfn_bus_object_delete(tx, digest_of(id)), 0);
    CHECK_INT(cfn_bus_ref_add(tx, "n", 1, 1, &sum, &version), 0);
  }
  if (!hard) return;
  if (IS(o, do_get) || IS(o, do_view) || IS(o, do_delete)) {
    int e = cfn_bus_object_delete(tx, digest_of(1));
    CHECK(e == 0 || e == CFN_UNKNOWN_OBJECT);
  }
  if (IS(o, do_set) || IS(o, do_read) || IS(o, do_unset) || IS(o, do_watch))
    for (int i = 0; i < 4; i++) CHECK_INT(set(tx, "k", 20 + i, SMALL + (uint64_t)i), 0);
  if (IS(o, do_put) || IS(o, do_put_few)) CHECK(put(tx, 100, IS(o, do_put) ? LARGE : SMALL) >= 0); /* the same, too */
  cfn_bus_collect(tx);
}

/* Bodies of 100 in the inbox, each whole: how many there were. */
static int letters(void) {
  static _Alignas(8) uint8_t wire[sizeof(cfn_wire_t) + 512];
  uint64_t token = 0;
  for (int n = 0;; n++) {
    int64_t e = cfn_bus_recv(tx, &token, token != 0, CFN_ALL_LANES, 0, 0, wire, sizeof wire);
    if (e == CFN_EMPTY) return n;
    CHECK(e > 0);
    cfn_wire_t w;
    memcpy(&w, wire, sizeof w);
    token = w.token;
    CHECK_INT(w.body_bytes, LARGE);
    CHECK_INT(cfn_bus_copy_body(tx, token, out, LARGE), 0);
    CHECK_INT(memcmp(out, bytes_of[100], LARGE), 0);
  }
}

static void check(int o, bool hard) {
  bool done = rep->done;
  int64_t result = rep->result;
  int got = letters();
  if (IS(o, do_loan)) CHECK(got == 1 || (!done && got == 0)); /* once, whole or not at all */
  else CHECK_INT(got, 0);
  if (hard && !IS(o, do_get) && !IS(o, do_view) && !IS(o, do_delete) && !IS(o, do_unset)) {
    if (result < 0) fprintf(stderr, "it was told %s\n", cfn_error_name((int)result));
    CHECK(result >= 0);
  }
  if (IS(o, do_put) || IS(o, do_put_few)) {
    int64_t size = IS(o, do_put) ? LARGE : SMALL, is = get(tx, 100);
    CHECK(is == size || (!done && is == CFN_UNKNOWN_OBJECT));
  }
  if (IS(o, do_get)) CHECK(!done || told(result, LARGE, CFN_UNKNOWN_OBJECT));
  if (IS(o, do_view)) CHECK(!done || told(result, 0, CFN_UNKNOWN_OBJECT));
  if (IS(o, do_delete)) {
    CHECK(!done || told(result, 0, CFN_UNKNOWN_OBJECT));
    CHECK(get(tx, 1) == CFN_UNKNOWN_OBJECT || (!done && get(tx, 1) == LARGE));
  } else if (!hard || !(IS(o, do_get) || IS(o, do_view))) {
    CHECK_INT(get(tx, 1), LARGE); /* what nobody touched is there */
  }
  if (IS(o, do_set)) CHECK(told(value(tx, "k"), 100, done ? (hard ? 23 : 100) : (hard ? 23 : 2)));
  else if (IS(o, do_unset)) CHECK(told(value(tx, "k"), CFN_UNKNOWN_KEY, hard ? 23 : done ? CFN_UNKNOWN_KEY : 2));
  else CHECK_INT(value(tx, "k"), hard && (IS(o, do_read) || IS(o, do_watch)) ? 23 : 2);
  if (IS(o, do_read) && done) CHECK(result == 2 || (hard && result >= 20 && result <= 23));
  if (IS(o, do_set_new)) CHECK(value(tx, "new") == 100 || (!done && value(tx, "new") == CFN_UNKNOWN_KEY));
  int64_t others = hard ? 12 : 2;
  if (IS(o, do_add)) CHECK(told(number(tx), 7 + others + 1, done ? 7 + others + 1 : 7 + others));
  else CHECK_INT(number(tx), 7 + others);
}

/* Every record, every page and every name is there. */
static void strike(void) {
  cfn_object_info_t infos[OBJECTS];
  cfn_ref_info_t refs[REFS];
  int64_t n = cfn_bus_object_list(tx, infos, OBJECTS);
  for (int64_t i = 0; i < n; i++) { /* what two put at once may be there twice, and goes at once */
    int e = cfn_bus_object_delete(tx, infos[i].digest);
    CHECK(e == 0 || e == CFN_UNKNOWN_OBJECT);
  }
  CHECK_INT(cfn_bus_object_list(tx, infos, OBJECTS), 0);
  n = cfn_bus_ref_list(tx, "", 0, refs, REFS);
  for (int64_t i = 0; i < n; i++)
    CHECK_INT(cfn_bus_ref_delete(tx, refs[i].key, (uint32_t)strlen(refs[i].key), CFN_ANY_VERSION), 0);
  cfn_bus_collect(tx);
  cfn_heap_info_t info;
  CHECK_INT(cfn_bus_heap_info(tx, &info), 0);
  CHECK_INT(info.objects, 0);
  CHECK_INT(info.used_bytes, 0);
  CHECK_INT(put(tx, 50, PAGES * CFN_PAGE), 0);
  CHECK_INT(get(tx, 50), PAGES * CFN_PAGE);
  for (int i = 51; i < 50 + OBJECTS; i++) CHECK_INT(put(tx, i, SMALL), 0);
  CHECK_INT(put(tx, 60, SMALL), CFN_NO_SPACE);
  for (int i = 50; i < 50 + OBJECTS; i++) CHECK_INT(cfn_bus_object_delete(tx, digest_of(i)), 0);
  for (int i = 0; i < REFS; i++) {
    char key[2] = {(char)('0' + i), 0};
    CHECK_INT(set(tx, key, 3, SMALL), 0);
  }
  CHECK_INT(set(tx, "one more", 3, SMALL), CFN_OVER_CAPACITY);
  t_check_region(tx, true);
}

static const char *name_of(int o) { return operations[o].name; }
static bool point(int o, int mode, long n);
static const step_stage_t stage = {"test_step_context", step_kill_stop, OPERATIONS, name_of, stage_set, point, stage_clear, &victim};
static const step_course_t course = {&tx, others_go_on, check, strike};
static bool point(int o, int mode, long n) { return step_point(&stage, &course, o, mode, n); }

int main(int argc, char **argv) {
  victim.report = rep = report_new();
  bodies_make();
  memset(all_pages, 77, sizeof all_pages);
  for (int i = 0; i < 128; i++) memset(bytes_of[i], i, sizeof bytes_of[i]);
  return step_main(argc, argv, &stage);
}
