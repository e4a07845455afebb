/* Death and sleep at every instruction of the operations that put objects on disk and bring them back.
 *
 *   kill   at instruction n: everything that was put can be read, at once; after a reaping and a sweep neither a record, a page
 *          nor a file is left
 *   stop   at instruction n: others put, look at, delete, evict and bring back for three laps of the heap; then it goes on, and
 *          what it is told is true
 *
 *   test_step_spill [--all | --seconds S] [--op NAME] [--mode kill|stop] [--from N --to M]
 */
#include <string.h>
#include <unistd.h>

#include "agent/bus.h"
#include "base/sha256.h"
#include "mem/evict.h"
#include "tests/step_sweep.h"

enum { OBJECTS = 8, PAGES = 2, LARGE = 200 /* the least that has a page */, OBJECT_IDS = 16 };

static cfn_bus_t *tx;
static victim_t victim;
static victim_report_t *rep;
static uint8_t bytes_of[OBJECT_IDS][LARGE], digest_of[OBJECT_IDS][32], out[LARGE];

static int put(cfn_bus_t *bus, int id) {
  int known;
  int e = cfn_bus_object_put(bus, digest_of[id], bytes_of[id], LARGE, &known);
  return e < 0 ? e : known;
}
static int64_t get(cfn_bus_t *bus, int id) {
  int64_t n = cfn_bus_object_get(bus, digest_of[id], out, sizeof out);
  return n > 0 && memcmp(out, bytes_of[id], (size_t)n) != 0 ? -1000 : n;
}
static int look(cfn_bus_t *bus, int id) {
  cfn_pin_t pin;
  int e = cfn_bus_object_pin(bus, digest_of[id], &pin);
  if (e < 0) return e;
  bool whole = pin.bytes == LARGE && memcmp(pin.data, bytes_of[id], LARGE) == 0;
  cfn_bus_object_unpin(bus, pin.pin, pin.word);
  return whole ? 0 : -1000;
}
static bool on_disk(int id) {
  cfn_object_info_t infos[OBJECTS];
  int64_t n = cfn_bus_object_list(tx, infos, OBJECTS);
  for (int64_t i = 0; i < n; i++)
    if (memcmp(infos[i].digest, digest_of[id], 32) == 0) return infos[i].spilled;
  return false;
}

/* ---- the operations: 1 and 2 are there, one of them on disk but for "put" ---- */

static int away; /* the one on disk */

static cfn_bus_t *plain(victim_report_t *r) {
  (void)r;
  return t_attach(NULL);
}
static int64_t do_put(cfn_bus_t *bus, victim_report_t *r) { return (void)r, put(bus, 3); }
static int64_t do_look(cfn_bus_t *bus, victim_report_t *r) { return (void)r, look(bus, away); }
static int64_t do_get(cfn_bus_t *bus, victim_report_t *r) { return (void)r, get(bus, away); }
static int64_t do_delete(cfn_bus_t *bus, victim_report_t *r) { return (void)r, cfn_bus_object_delete(bus, digest_of[away]); }
static int64_t do_sweep(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_repair_t done;
  return cfn_bus_repair(bus, &done);
}

static const struct {
  const char *name;
  int64_t (*run)(cfn_bus_t *, victim_report_t *);
} operations[] = {{"put", do_put}, {"look", do_look}, {"get", do_get}, {"delete", do_delete}, {"sweep", do_sweep}};
#define OPERATIONS ((int)(sizeof operations / sizeof operations[0]))
#define IS(o, what) (operations[o].run == (what))

static void stage_set(int o) {
  cfn_wish_t wish = t_small_wish();
  wish.objects = OBJECTS;
  wish.object_pages = PAGES;
  wish.spill = "/dev/shm"; /* as good as a disk, and faster */
  tx = t_open("tx", &wish);
  CHECK_INT(put(tx, 1), 0);
  CHECK_INT(put(tx, 2), 0);
  away = 0;
  if (!IS(o, do_put)) {
    CHECK_INT(put(tx, 3), 0);
    away = on_disk(1) ? 1 : 2;
    CHECK(on_disk(away));
  }
  victim_start(&victim, plain, operations[o].run);
}
static void stage_clear(int o) {
  (void)o;
  t_close(tx);
  t_destroy();
}

static void others_go_on(int o, bool hard) {
  int gone = IS(o, do_delete) ? away : 0;
  for (int lap = 0; lap < (hard ? 3 : 1); lap++) {
    for (int id = 1; id <= 2; id++) {
      if (id == gone) continue;
      CHECK_INT(get(tx, id), LARGE);
      /* The victim may hold one that is being put on disk, and pages for one that comes back. */
      int e = look(tx, id);
      CHECK(e == 0 || e == CFN_NO_SPACE);
    }
    int e = put(tx, 5 + lap);
    CHECK(e == 0 || e == CFN_NO_SPACE);
    if (e == 0) {
      CHECK_INT(get(tx, 5 + lap), LARGE);
      CHECK_INT(cfn_bus_object_delete(tx, digest_of[5 + lap]), 0);
    }
  }
  if (!hard) return;
  cfn_bus_evict(tx, LARGE);
  cfn_bus_collect(tx);
  cfn_evict_sweep(cfn_bus_region(tx));
}

static void check(int o, bool hard) {
  bool done = rep->done;
  int64_t result = rep->result;
  if (IS(o, do_put)) CHECK(!done || result >= 0 || (hard && result == CFN_NO_SPACE));
  if (IS(o, do_put)) CHECK(get(tx, 3) == LARGE || !done || result < 0);
  if (IS(o, do_look)) CHECK(!done || result == 0 || (hard && result == CFN_NO_SPACE));
  if (IS(o, do_get)) CHECK(!done || result == LARGE);
  if (IS(o, do_sweep)) CHECK(!done || result == 0);
  if (IS(o, do_delete)) {
    CHECK(!done || result == 0);
    CHECK(get(tx, away) == CFN_UNKNOWN_OBJECT || !done);
  }
  for (int id = 1; id <= 2; id++)
    if (!IS(o, do_delete) || id != away) CHECK_INT(get(tx, id), LARGE);
}

/* Every record, every page and every file is given back. */
static void strike(void) {
  cfn_object_info_t infos[OBJECTS];
  int64_t n = cfn_bus_object_list(tx, infos, OBJECTS);
  for (int64_t i = 0; i < n; i++) {
    int e = cfn_bus_object_delete(tx, infos[i].digest);
    CHECK(e == 0 || e == CFN_UNKNOWN_OBJECT);
  }
  CHECK(cfn_bus_collect(tx) >= 0);
  CHECK(cfn_bus_collect(tx) >= 0);
  cfn_heap_info_t info;
  CHECK_INT(cfn_bus_heap_info(tx, &info), 0);
  CHECK_INT(info.objects, 0);
  CHECK_INT(info.used_bytes, 0);
  cfn_evict_sweep(cfn_bus_region(tx));
  CHECK_INT(cfn_evict_sweep(cfn_bus_region(tx)).kept, 0);
  for (int id = 1; id <= OBJECTS - 1; id++) CHECK_INT(put(tx, id), 0);
  for (int id = 1; id <= OBJECTS - 1; id++) CHECK_INT(get(tx, id), LARGE);
  t_check_region(tx, true);
}

static const char *name_of(int o) { return operations[o].name; }
static bool point(int o, int mode, long n);
static const step_stage_t stage = {"test_step_spill", step_kill_stop, OPERATIONS, name_of, stage_set, point, stage_clear, &victim};
static const step_course_t course = {&tx, others_go_on, check, strike};
static bool point(int o, int mode, long n) { return step_point(&stage, &course, o, mode, n); }

int main(int argc, char **argv) {
  victim.report = rep = report_new();
  bodies_make();
  for (int i = 0; i < OBJECT_IDS; i++) {
    memset(bytes_of[i], i + 1, sizeof bytes_of[i]);
    cfn_sha256(bytes_of[i], LARGE, digest_of[i]);
  }
  return step_main(argc, argv, &stage);
}
