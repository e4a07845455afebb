/* Objects while others hold, take, name, collect and put them on disk between two instructions, and one is judged dead while it
 * stores: every call ends with the bytes or with a reason, and nothing of it is left. */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/bus.h"
#include "base/os.h"
#include "base/sha256.h"
#include "mem/evict.h"
#include "mem/index.h"
#include "mem/spill.h"
#include "tests/meddler.h"

enum { HALF = 6000, TURNS = 64 }; /* two fill the heap; as TRIES in agent/bus_object.c */

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_address_t at;
static uint8_t data[4 * HALF], digest[8][32];

static int put_bytes(int id, uint64_t bytes) {
  int known;
  memset(data, id, sizeof data);
  cfn_sha256(data, HALF, digest[id]);
  return cfn_bus_object_put(a, digest[id], data, bytes, &known);
}
static int put(int id) { return put_bytes(id, HALF); }
static int64_t get(int id) {
  memset(data, 0, sizeof data);
  int64_t n = cfn_bus_object_get(a, digest[id], data, sizeof data);
  for (int64_t i = 0; i < n; i++) CHECK_INT(data[i], id);
  return n;
}
/* In place, for which it must be in memory. */
static int view(int id) {
  cfn_pin_t pin;
  int e = cfn_bus_object_pin(a, digest[id], &pin);
  if (e != CFN_OK) return e;
  for (uint64_t i = 0; i < pin.bytes; i++) CHECK_INT(((const uint8_t *)pin.data)[i], id);
  cfn_bus_object_unpin(a, pin.pin, pin.word);
  return 0;
}
static void start(bool spills) {
  m_fresh(spills);
  bus[0] = a = sim_open(0, "a");
  bus[1] = b = sim_open(1, NULL);
  r = cfn_bus_region(a);
  CHECK_INT(cfn_bus_find(a, "a", &at), 0);
  if (spills) CHECK(cfn_spill_end(r->super.spill)); /* of the case before */
}
static void end(void) {
  sim_meddler = NULL;
  sim_as(0);
  for (int id = 1; id < 8; id++) cfn_bus_object_delete(a, digest[id]);
  for (uint32_t s = 0; s < r->geo.index_slots; s++) { /* of those that were ended by hand */
    uint32_t blob = cfn_names_blob(cfn_load_seq(&cfn_index(r)[s]));
    if (blob && cfn_own_state(cfn_load_seq(&cfn_blob_record(r, blob - 1)->st)) == CFN_BLOB_DEAD) cfn_store_seq(&cfn_index(r)[s], 0);
  }
  CHECK(cfn_bus_collect(a) >= 0);
  CHECK(cfn_bus_collect(a) >= 0);
  CHECK_INT(t_heap_used(a), 0);
  CHECK_INT(put(1), 0);
  CHECK_INT(get(1), HALF);
  CHECK_INT(cfn_bus_object_delete(a, digest[1]), 0);
  CHECK_INT(cfn_bus_pins(a), 0);
  t_check_region(a, true);
  t_check_nothing_held(a);
}
static bool says(const char *words) { return strstr(cfn_last_failure()->text, words) != NULL; }
static uint32_t blob_of(int id) {
  uint32_t from = 0, blob;
  cfn_a64 *slot;
  uint64_t word;
  CHECK_INT(cfn_index_find(r, digest[id], &from, &slot, &word, &blob), 0);
  return blob;
}
static cfn_a64 *slot_of(int id) {
  uint32_t from = 0, blob;
  cfn_a64 *slot;
  uint64_t word;
  CHECK_INT(cfn_index_find(r, digest[id], &from, &slot, &word, &blob), 0);
  return slot;
}
static cfn_blob_shm_t *record_of(int id) { return cfn_blob_record(r, blob_of(id)); }
static void all_cells(uint64_t word) {
  for (unsigned i = 0; i < CFN_LEDGER; i++) cfn_store_seq(&a->actor.slot->ledger[i], word);
}
/* One and two fill the heap; the third put one of them on disk: which? */
static int one_on_disk(void) {
  start(true);
  for (int id = 1; id <= 3; id++) CHECK_INT(put(id), 0);
  for (int id = 1; id <= 3; id++)
    if (cfn_own_state(cfn_load_seq(&record_of(id)->st)) == CFN_BLOB_SPILLED) return id;
  t_fail(__FILE__, __LINE__, "one is on disk");
}

/* What another does. */
static void dies(cfn_a64 *word) { cfn_store_seq(word, cfn_own_next(cfn_load_seq(word), CFN_BLOB_DEAD, 0)); }
static void takes_and_leaves(cfn_a64 *word) { cfn_store_seq(word, cfn_own_next(cfn_load_seq(word), CFN_BLOB_LIVE, 0)); }
static void sweeps(cfn_a64 *word) {
  (void)word;
  int dir = open(r->super.spill, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = fdopendir(dir);
  CHECK(list != NULL);
  for (struct dirent *entry; (entry = readdir(list));)
    if (strstr(entry->d_name, ".new")) CHECK_INT(unlinkat(dir, entry->d_name, 0), 0);
  closedir(list);
}
static void sweeps_and_holds(cfn_a64 *word) {
  sweeps(word);
  m_meddle("write_out", 'l', word, 0, 1, takes_and_leaves); /* at the next look */
}
static cfn_blob_shm_t *damaged;
static void damages(cfn_a64 *st) {
  damaged = (cfn_blob_shm_t *)(void *)((uint8_t *)(void *)st - offsetof(cfn_blob_shm_t, st));
  cfn_store_seq(&damaged->bytes, 50);
}
static void retires(cfn_a64 *word) {
  (void)word;
  cfn_store_seq(&cfn_state(r)->state, CFN_BUS_RETIRED);
}

/* ---- storing ---- */

static void storing(void) {
  t_case("all that is free is taken by another at each look, and left as garbage");
  start(false);
  m_meddle("claim_blob", 'c', NULL, 0, M_ALWAYS, takes_and_leaves);
  CHECK_INT(put(1), CFN_NO_SPACE);
  CHECK(m_end() >= TURNS);
  end();

  t_case("a page is taken by another first");
  start(false);
  m_meddle("claim_pages", 'c', NULL, 1, 1, m_next24);
  CHECK_INT(put(1), 0);
  m_end();
  CHECK_INT(get(1), HALF);
  end();

  t_case("one is judged dead while it stores");
  static const struct { const char *where; int after; } moments[] = {{"change", 0}, {"cfn_heap_publish", 0}};
  for (unsigned i = 0; i < 2; i++)
    for (uint64_t bytes = 20; bytes <= HALF; bytes += HALF - 20) {
      start(false);
      m_meddle(moments[i].where, 'c', NULL, 0, 1, i ? dies : m_next24);
      CHECK_INT(put_bytes(1, bytes), CFN_AGENT_FENCED);
      m_end();
      CHECK(says("judged dead while it stored"));
      all_cells(0);
      end();
    }

  t_case("a handle whose ledger is full");
  start(true);
  CHECK_INT(put(1), 0);
  uint64_t version;
  char big[1000] = "";
  CHECK_INT(cfn_bus_ref_set(a, "k", 1, 0, 0, big, sizeof big, &version), 0);
  all_cells(cfn_names_word(5, 4));
  CHECK_INT(put(2), CFN_OVER_CAPACITY);
  CHECK_INT(get(1), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_bus_evict(a, 4 * CFN_PAGE), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_bus_ref_set(a, "k", 1, CFN_ANY_VERSION, 0, "x", 1, &version), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_bus_ref_get(a, "k", 1, big, sizeof big, NULL), CFN_OVER_CAPACITY);
  cfn_loan_t loan;
  CHECK_INT(cfn_bus_loan(a, CFN_LOAN_LEAST, &loan), CFN_OVER_CAPACITY);
  all_cells(0);
  CHECK_INT(cfn_bus_ref_delete(a, "k", 1, CFN_ANY_VERSION), 0);
  cfn_bus_object_unpin(a, 0, 0); /* of nothing */
  cfn_bus_object_unpin(a, CFN_LEDGER + 1, 0);
  end();

  t_case("another content of the same name, and names that all begin alike");
  start(false);
  CHECK_INT(put_bytes(1, 100), 0);
  int known = 1;
  memset(data, 1, sizeof data);
  CHECK_INT(cfn_bus_object_put(a, digest[1], data, 50, &known), 0);
  CHECK_INT(known, 0);
  CHECK_INT(cfn_bus_object_delete(a, digest[1]), 0);
  for (uint32_t s = 0; s < r->geo.index_slots; s++) cfn_store_seq(&cfn_index(r)[s], cfn_names_word(9, 4));
  CHECK_INT(put(2), CFN_NO_SPACE);
  CHECK(says("names that begin alike"));
  for (uint32_t s = 0; s < r->geo.index_slots; s++) cfn_store_seq(&cfn_index(r)[s], cfn_names_word(10, 0));
  m_meddle("cfn_index_add", 'c', NULL, 0, 1, m_next24);
  CHECK_INT(put(3), 0);
  m_end();
  CHECK_INT(get(3), HALF);
  end();
}

/* ---- reading ---- */

static void reading(void) {
  cfn_object_info_t infos[4];
  t_case("an object is ended while it is held or copied");
  start(false);
  CHECK_INT(put_bytes(1, 50), 0);
  m_meddle("cfn_heap_copy_few", 'l', &record_of(1)->st, 0, 1, dies);
  CHECK_INT(get(1), CFN_UNKNOWN_OBJECT); /* we held it: only one who was judged dead sees that */
  m_end();
  end();
  start(false);
  CHECK_INT(put(1), 0);
  cfn_a64 *st = &record_of(1)->st;
  cfn_store_seq(st, cfn_own_next(cfn_load_seq(st), CFN_BLOB_CHECK, 0));
  m_meddle("cfn_heap_hold", 'c', st, 0, M_ALWAYS, m_next16);
  CHECK_INT(get(1), CFN_AGAIN);
  CHECK_INT(m_end(), 64 * TURNS);
  CHECK(says("goes and comes all the time"));
  m_meddle("cfn_heap_hold", 'c', st, 0, 1, m_next16);
  CHECK_INT(get(1), HALF); /* a rescue */
  m_end();
  m_meddle("change", 'c', NULL, 0, 1, m_next24); /* the cell is another's by now: it holds nothing for us any more */
  CHECK_INT(get(1), CFN_AGAIN);
  m_end();
  all_cells(0);
  t_case("a list of what changes at each look");
  m_meddle("cfn_bus_object_list", 'l', slot_of(1), 0, M_ALWAYS, m_next24);
  CHECK_INT(cfn_bus_object_list(a, infos, 4), 0);
  m_end();
  CHECK_INT(cfn_bus_object_list(a, infos, 4), 1);
  t_case("a record that makes no sense, and one whose pages do");
  cfn_a64 *run = &record_of(1)->run;
  uint64_t was = cfn_load_seq(run);
  static const uint64_t runs[] = {UINT64_C(2) << 32 | 3, UINT64_C(3) << 32, UINT64_C(2) << 32 | UINT32_MAX};
  for (unsigned i = 0; i < 3; i++) {
    cfn_store_seq(run, runs[i]);
    CHECK_INT(get(1), CFN_CORRUPT);
    CHECK_INT(cfn_region_check(r, NULL, NULL) > 0, 1);
    cfn_heap_room_t room;
    cfn_heap_room(r, &room);
    CHECK_INT(room.pages, 2); /* they are somebody's, whatever the record says */
  }
  cfn_store_seq(run, was);
  end();
}

/* ---- to disk and back ---- */

static void recalling(void) {
  int gone;
  t_case("an object that moves at each look at its name");
  gone = one_on_disk();
  m_meddle("cfn_index_move", 'c', slot_of(gone), 0, M_ALWAYS, m_next24);
  CHECK_INT(view(gone), CFN_AGAIN);
  CHECK(m_end() >= TURNS);
  CHECK(says("goes to disk and comes back all the time"));
  CHECK_INT(view(gone), 0);
  end();

  t_case("one is judged dead while it brings one back");
  static const struct { const char *where; char how; m_act_t *what; } moments[] = {
      {"cfn_heap_publish", 'c', dies}, {"cfn_recall", 'l', m_next24}};
  for (unsigned i = 0; i < 2; i++) {
    gone = one_on_disk();
    m_meddle(moments[i].where, moments[i].how, NULL, 0, 1, moments[i].what);
    CHECK_INT(view(gone), CFN_AGENT_FENCED);
    m_end();
    all_cells(0);
    CHECK_INT(view(gone), 0);
    end();
  }
  t_case("what came back is ended, or damaged, before it is looked at");
  gone = one_on_disk();
  m_meddle("cfn_heap_look", 'l', NULL, 3, 1, dies);
  CHECK_INT(view(gone), CFN_AGENT_FENCED);
  m_end();
  all_cells(0);
  end();
  gone = one_on_disk();
  m_meddle("cfn_heap_look", 'l', NULL, 3, 1, damages);
  CHECK_INT(view(gone), CFN_CORRUPT);
  m_end();
  damaged = NULL;
  end();

  t_case("there is no room for it, and it changes while it is read from disk");
  gone = one_on_disk();
  cfn_pin_t pin[3];
  for (int id = 1; id <= 3; id++)
    if (id != gone) CHECK_INT(cfn_bus_object_pin(a, digest[id], &pin[id - 1]), 0);
  CHECK_INT(get(gone), HALF);
  m_meddle("cfn_recall_copy", 'l', slot_of(gone), 0, M_ALWAYS, m_next24);
  CHECK_INT(get(gone), CFN_AGAIN);
  CHECK_INT(m_end(), TURNS);
  t_case("its file is changed, and it is deleted at the same time");
  cfn_a64 *st = &record_of(gone)->st;
  char path[CFN_SPILL_BYTES + 64];
  snprintf(path, sizeof path, "%s/%u.%llu", r->super.spill, blob_of(gone), (unsigned long long)cfn_own_ver(cfn_load_seq(st)));
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  CHECK_INT(pwrite(fd, "other", 5, 100), 5);
  close(fd);
  CHECK_INT(get(gone), CFN_CORRUPT);
  CHECK(says("is another there"));
  m_meddle("why_not", 'l', st, 0, 1, dies);
  CHECK_INT(get(gone), CFN_UNKNOWN_OBJECT);
  m_end();
  for (int id = 1; id <= 3; id++)
    if (id != gone) cfn_bus_object_unpin(a, pin[id - 1].pin, pin[id - 1].word);
  cfn_evict_sweep(r);
  end();
}

static int away(void) {
  int n = 0;
  for (int id = 1; id <= 2; id++) n += cfn_own_state(cfn_load_seq(&record_of(id)->st)) == CFN_BLOB_SPILLED;
  return n;
}
static void two(void) {
  start(true);
  CHECK_INT(put(1), 0);
  CHECK_INT(put(2), 0);
}
static void evicting(void) {
  t_case("one is judged dead while it evicts");
  two();
  m_meddle("change", 'c', NULL, 0, 1, m_next24);
  CHECK_INT(cfn_bus_evict(a, 2 * CFN_PAGE), CFN_AGENT_FENCED);
  m_end();
  CHECK(says("judged dead while it stored"));
  m_meddle("change", 'c', NULL, 1, 1, m_next24); /* of a put: after its own claim failed */
  CHECK_INT(put(3), CFN_AGENT_FENCED);
  m_end();
  all_cells(0);
  end();

  t_case("its file is swept away as a loser's, and while somebody comes to hold it");
  two();
  m_meddle("write_out", 'l', NULL, 0, 2, sweeps);
  CHECK_INT(cfn_bus_evict(a, 2 * CFN_PAGE), CFN_NO_SPACE);
  CHECK(says("cannot keep an object on disk"));
  CHECK_INT(away(), 0);
  end();
  two();
  m_meddle("write_out", 'l', NULL, 0, 1, sweeps_and_holds);
  CHECK_INT(cfn_bus_evict(a, 2 * CFN_PAGE), 0); /* another went */
  CHECK_INT(away(), 1);
  end();

  t_case("somebody comes to hold it, at each step");
  for (int nth = 0; nth < 2; nth++) {
    two();
    m_meddle("write_out", nth ? 'c' : 'l', NULL, 0, 1, takes_and_leaves);
    CHECK_INT(cfn_bus_evict(a, 2 * CFN_PAGE), 0);
    m_end();
    CHECK_INT(away(), 1);
    end();
  }
  two();
  m_meddle("evict_one", 'c', NULL, 0, 1, m_next16);
  CHECK_INT(cfn_bus_evict(a, 2 * CFN_PAGE), 0);
  m_end();
  end();
  t_case("the bus is destroyed meanwhile: nothing stays on disk");
  two();
  m_meddle("write_out", 'l', NULL, 0, 1, retires);
  cfn_bus_evict(a, 2 * CFN_PAGE);
  m_end();
  CHECK(access(r->super.spill, F_OK) != 0);
  cfn_store_seq(&cfn_state(r)->state, CFN_BUS_OK);

  t_case("nothing, and more than there is");
  two();
  cfn_hold_t h;
  cfn_in_the_way_t way = {0};
  CHECK(cfn_ledger_find(r, a->actor.me, &h));
  CHECK_INT(cfn_evict(r, a->actor.me, &h, 0, false, &way), CFN_NO_SPACE);
  CHECK_INT(cfn_evict(r, a->actor.me, &h, 5 * CFN_PAGE, false, &way), CFN_NO_SPACE);
  t_case("files that no state names, and those that one does");
  CHECK_INT(cfn_bus_evict(a, 2 * CFN_PAGE), 0);
  CHECK_INT(away(), 1);
  static const char *const names[] = {"99.5", "0.0", "1.0.new"};
  int dir = open(r->super.spill, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (unsigned i = 0; i < 3; i++) close(openat(dir, names[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  char name[64];
  uint32_t live = blob_of(cfn_own_state(cfn_load_seq(&record_of(1)->st)) == CFN_BLOB_SPILLED ? 2 : 1);
  snprintf(name, sizeof name, "%u.%llu", live, (unsigned long long)cfn_own_ver(cfn_load_seq(&cfn_blob_record(r, live)->st)));
  close(openat(dir, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* of its version, but it is in memory */
  snprintf(name, sizeof name, "%u.%llu", live, (unsigned long long)cfn_own_ver(cfn_load_seq(&cfn_blob_record(r, live)->st)) + 5);
  close(openat(dir, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* still to come */
  close(dir);
  cfn_spill_count_t count = cfn_evict_sweep(r);
  CHECK_INT(count.removed, 4);
  CHECK_INT(count.kept, 2);
  end();
}

/* What a bus of this boot has on disk is nothing to a simulated one: made beside it, it must not remove it as another boot's. */
static void words_of(const char *path, char *out, size_t bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || read(fd, out, bytes) != (ssize_t)bytes) out[0] = 0;
  if (fd >= 0) close(fd);
}
static void make_beside_another(void) {
  char machine[33] = "", boot[37] = "", path[96], bus_link[128], text[256];
  words_of("/etc/machine-id", machine, 32);
  words_of("/proc/sys/kernel/random/boot_id", boot, 36);
  snprintf(path, sizeof path, "/dev/shm/cfnshm.%u.ctest-%d.0000000000000001", (unsigned)geteuid(), (int)getpid());
  snprintf(bus_link, sizeof bus_link, "%s/bus", path);
  snprintf(text, sizeof text, "%s %s 27 /nowhere", machine, boot);
  CHECK_INT(mkdir(path, 0700), 0);
  CHECK_INT(symlink(text, bus_link), 0);
  m_main();
  bool stays = access(path, F_OK) == 0;
  cfn_spill_end(path);
  t_case("a bus of this boot keeps what it has on disk");
  CHECK(stays);
}

int main(void) {
  make_beside_another();
  storing();
  reading();
  recalling();
  evicting();
  CHECK(cfn_spill_end(r->super.spill));
  t_passed("test_meddled_objects");
  return 0;
}
