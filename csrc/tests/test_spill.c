/* Objects on disk: they go when the heap is full and come back when they are asked for; what is held stays; nothing is lost
 * to a full disk, a file that was changed, a death in the middle; the directory goes with the bus. */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/bus.h"
#include "base/os.h"
#include "base/sha256.h"
#include "mem/evict.h"
#include "mem/index.h"
#include "mem/spill.h"
#include "tests/harness.h"

enum { PAGES = 16, SIZE = 4 * CFN_PAGE, FIT = 4 };

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static char base[64], dir[CFN_SPILL_BYTES];
static uint8_t body[PAGES * CFN_PAGE], out[PAGES * CFN_PAGE];

static void start_at(const char *where) {
  cfn_wish_t wish = t_small_wish();
  wish.objects = 32;
  wish.object_pages = PAGES;
  wish.spill = where;
  a = t_open("a", &wish);
  b = t_attach("b");
  r = cfn_bus_region(a);
  snprintf(dir, sizeof dir, "%s", r->super.spill);
}
static void start(void) { start_at(base); }
static void end(void) {
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
  CHECK_INT(access(dir, F_OK), -1);
}

static const uint8_t *digest_of(int id, uint64_t bytes) {
  static uint8_t d[32];
  memset(body, id, bytes);
  cfn_sha256(body, bytes, d);
  return d;
}
static int put_bytes(cfn_bus_t *bus, int id, uint64_t bytes) {
  int known;
  const uint8_t *digest = digest_of(id, bytes);
  int e = cfn_bus_object_put(bus, digest, body, bytes, &known);
  return e < 0 ? e : known;
}
static int put(cfn_bus_t *bus, int id) { return put_bytes(bus, id, SIZE); }
static int64_t get(cfn_bus_t *bus, int id) {
  memset(out, 0xee, sizeof out);
  const uint8_t *digest = digest_of(id, SIZE);
  int64_t n = cfn_bus_object_get(bus, digest, out, sizeof out);
  for (int64_t i = 0; i < n; i++)
    if (out[i] != (uint8_t)id) return -1000;
  return n;
}
static int pin(cfn_bus_t *bus, int id, cfn_pin_t *p) { return cfn_bus_object_pin(bus, digest_of(id, SIZE), p); }
static int delete(cfn_bus_t *bus, int id) { return cfn_bus_object_delete(bus, digest_of(id, SIZE)); }
static cfn_heap_info_t info(void) {
  cfn_heap_info_t i;
  CHECK_INT(cfn_bus_heap_info(a, &i), 0);
  return i;
}
static int files(void) {
  DIR *d = opendir(dir);
  if (!d) return -1;
  int n = 0;
  for (const struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.' && strcmp(e->d_name, "bus") != 0;
  closedir(d);
  return n;
}
static uint32_t blob_of(int id) {
  uint32_t at = 0, blob;
  cfn_a64 *slot;
  uint64_t word;
  CHECK_INT(cfn_index_find(r, digest_of(id, SIZE), &at, &slot, &word, &blob), 0);
  return blob;
}
static void fill(void) {
  for (int id = 1; id <= FIT; id++) CHECK_INT(put(a, id), 0);
}
/* The path of the one file of an object that is on disk. */
static const char *file_of(int id) {
  static char path[CFN_SPILL_BYTES + 64];
  uint32_t blob = blob_of(id);
  uint64_t st = cfn_load_seq(&cfn_blob_record(r, blob)->st);
  CHECK_INT(cfn_own_state(st), CFN_BLOB_SPILLED);
  snprintf(path, sizeof path, "%s/%u.%llu", dir, blob, (unsigned long long)cfn_own_ver(st));
  return path;
}

static void test_out_and_back(void) {
  t_case("out and back");
  start();
  fill();
  CHECK_INT(files(), -1); /* nothing is made before it is needed */
  CHECK_INT(put(a, 5), 0);
  CHECK_INT(info().spilled, 1);
  CHECK_INT(info().spilled_bytes, SIZE);
  CHECK_INT(info().objects, 5);
  CHECK_INT(files(), 1);
  struct stat st;
  CHECK_INT(stat(dir, &st), 0);
  CHECK_INT(st.st_mode & 0777, 0700);
  for (int id = 1; id <= 5; id++) {
    CHECK_INT(cfn_bus_object_bytes(b, digest_of(id, SIZE)), SIZE);
    CHECK_INT(put(b, id), 1); /* it is known, wherever it is */
  }
  CHECK_INT(info().spilled, 1); /* asking for its size does not bring it back */
  for (int id = 1; id <= 5; id++) CHECK_INT(get(b, id), SIZE);
  cfn_object_info_t infos[8];
  CHECK_INT(cfn_bus_object_list(b, infos, 8), 5);
  int on_disk = 0;
  for (int i = 0; i < 5; i++) {
    CHECK_INT(infos[i].bytes, SIZE);
    on_disk += infos[i].spilled != 0;
  }
  CHECK_INT(on_disk, 1);
  CHECK_INT(delete(b, 5), 0); /* room: who is asked for comes back */
  int gone = 1;
  while (cfn_bus_object_get(b, digest_of(gone, SIZE), NULL, 0) >= 0 && gone < 5 && info().spilled) {
    CHECK_INT(get(b, gone), SIZE);
    gone++;
  }
  CHECK_INT(info().spilled, 0);
  CHECK_INT(files(), 0);
  end();
}

static void test_many_more_than_fit(void) {
  t_case("many more than fit, of several sizes");
  start();
  for (int id = 1; id <= 24; id++) CHECK_INT(put_bytes(a, id, (uint64_t)(1 + id % 7) * CFN_PAGE - 100), 0);
  for (int turn = 0; turn < 2; turn++)
    for (int id = 1; id <= 24; id++) {
      uint64_t bytes = (uint64_t)(1 + id % 7) * CFN_PAGE - 100;
      cfn_pin_t p;
      CHECK_INT(cfn_bus_object_pin(b, digest_of(id, bytes), &p), 0);
      CHECK_INT(p.bytes, bytes);
      CHECK(memcmp(p.data, body, bytes) == 0);
      cfn_bus_object_unpin(b, p.pin, p.word);
    }
  CHECK_INT(put_bytes(a, 50, PAGES * CFN_PAGE), 0); /* all of the heap */
  CHECK_INT(info().spilled, 24);
  for (int id = 1; id <= 24; id++) CHECK_INT(cfn_bus_object_delete(a, digest_of(id, (uint64_t)(1 + id % 7) * CFN_PAGE - 100)), 0);
  CHECK_INT(files(), 0);
  CHECK_INT(info().objects, 1);
  end();
}

static void test_held_stays(void) {
  t_case("what is held stays");
  start();
  fill();
  cfn_pin_t p[FIT];
  for (int id = 1; id <= FIT; id++) CHECK_INT(pin(b, id, &p[id - 1]), 0);
  CHECK_INT(put(a, 9), CFN_NO_SPACE);
  CHECK(strstr(cfn_last_failure()->text, "held") != NULL);
  CHECK_INT(info().spilled, 0);
  cfn_bus_object_unpin(b, p[2].pin, p[2].word);
  CHECK_INT(put(a, 9), 0); /* the third went: it is the only one nobody holds */
  CHECK(file_of(3) != NULL);
  CHECK_INT(pin(a, 3, &p[2]), 0); /* and comes back for the ninth */
  CHECK(file_of(9) != NULL);
  CHECK_INT(get(a, 9), SIZE);                /* which can be read where it is */
  cfn_pin_t q;
  CHECK_INT(pin(a, 9, &q), CFN_NO_SPACE); /* but not be looked at in place */
  for (int id = 1; id <= FIT; id++) CHECK(((const uint8_t *)p[id - 1].data)[SIZE - 1] == id);
  t_close(b);
  b = t_attach("b");
  CHECK_INT(pin(a, 9, &q), 0);
  end();
}

static bool away(int id) { return cfn_own_state(cfn_load_seq(&cfn_blob_record(r, blob_of(id))->st)) == CFN_BLOB_SPILLED; }
static void looked_at(int id, uint64_t seconds_ago) {
  uint64_t now = cfn_os_coarse_ns() / 1000000000u;
  cfn_store_seq(&cfn_blob_record(r, blob_of(id))->codec, (now - seconds_ago) << 8);
}

static void test_which_goes(void) {
  t_case("what was not looked at for longest goes");
  start();
  fill();
  static const uint64_t ages[FIT + 1] = {0, 0, 30, 2000, 30};
  for (int id = 1; id <= FIT; id++) looked_at(id, ages[id]);
  CHECK_INT(put(a, 5), 0);
  CHECK(away(3));
  looked_at(2, 4000);
  looked_at(4, 2000);
  CHECK_INT(put(a, 6), 0);
  CHECK(away(2) && !away(4) && !away(1));
  t_case("what is asked for comes back for what is idle, and not for what is used");
  CHECK_INT(get(a, 3), SIZE);
  CHECK(!away(3) && away(4)); /* 2,000 seconds: idle */
  CHECK_INT(get(a, 2), SIZE);
  CHECK(away(2)); /* all others were looked at just now */
  cfn_pin_t p;
  CHECK_INT(pin(a, 2, &p), 0); /* to be looked at in place it must */
  CHECK(!away(2));
  end();
}

static void test_values_stay(void) {
  t_case("values of bus.state stay in memory");
  start();
  uint64_t version;
  memset(body, 7, SIZE);
  for (int i = 0; i < FIT; i++) {
    char key[] = "k0";
    key[1] = (char)('0' + i);
    CHECK_INT(cfn_bus_ref_set(a, key, 2, CFN_ANY_VERSION, 0, body, SIZE, &version), 0);
  }
  CHECK_INT(put(a, 9), CFN_NO_SPACE);
  CHECK(strstr(cfn_last_failure()->text, "bus.state") != NULL);
  CHECK_INT(cfn_bus_ref_delete(a, "k0", 2, CFN_ANY_VERSION), 0);
  CHECK_INT(put(a, 9), 0);
  CHECK_INT(cfn_bus_ref_set(a, "k0", 2, CFN_ANY_VERSION, 0, body, SIZE, &version), 0); /* a value pushes an object out */
  CHECK_INT(info().spilled, 1);
  end();
}

static void test_none(void) {
  t_case("a bus without a place on disk");
  start_at("off");
  CHECK_INT(dir[0], 0);
  fill();
  CHECK_INT(put(a, 5), CFN_NO_SPACE);
  CHECK(strstr(cfn_last_failure()->text, "none may go to disk") != NULL);
  CHECK_INT(info().spill[0], 0);
  t_close(b);
  t_close(a);
  t_destroy();
  t_case("a place that makes no sense");
  cfn_wish_t wish = t_small_wish();
  cfn_bus_t *none;
  wish.spill = "relative/path";
  CHECK_INT(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &none, NULL), CFN_INVALID);
  wish.spill = "/dev/null";
  CHECK_INT(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &none, NULL), CFN_INVALID);
  char far[1000];
  memset(far, '/', sizeof far - 1);
  far[sizeof far - 1] = 0;
  wish.spill = far;
  CHECK_INT(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &none, NULL), CFN_INVALID);
  CHECK_INT(access(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &none, NULL) == CFN_NO_BUS ? "/" : "", F_OK), 0);
}

static void test_files_at_fault(void) {
  t_case("files that were changed, cut, removed");
  start();
  fill();
  for (int id = 5; id <= 7; id++) CHECK_INT(put(a, id), 0);
  int away[3], n = 0;
  for (int id = 1; id <= 7 && n < 3; id++) {
    cfn_object_info_t infos[8];
    int64_t all = cfn_bus_object_list(a, infos, 8);
    const uint8_t *digest = digest_of(id, SIZE);
    for (int64_t i = 0; i < all; i++)
      if (memcmp(infos[i].digest, digest, 32) == 0 && infos[i].spilled) away[n++] = id;
  }
  CHECK_INT(n, 3);
  int fd = open(file_of(away[0]), O_WRONLY);
  CHECK_INT(pwrite(fd, "x", 1, 100), 1);
  close(fd);
  CHECK_INT(truncate(file_of(away[1]), 100), 0);
  CHECK_INT(unlink(file_of(away[2])), 0);
  CHECK_INT(get(b, away[0]), CFN_CORRUPT);
  CHECK(strstr(cfn_last_failure()->text, "another there") != NULL);
  CHECK_INT(get(b, away[1]), CFN_CORRUPT);
  CHECK_INT(get(b, away[2]), CFN_CORRUPT);
  CHECK(strstr(cfn_last_failure()->text, "not there") != NULL);
  cfn_pin_t p;
  CHECK_INT(pin(b, away[0], &p), CFN_CORRUPT);
  CHECK(cfn_region_check(r, NULL, NULL) >= 2); /* the checker sees what is missing and what is cut */
  for (int i = 0; i < 3; i++) {
    CHECK_INT(delete(b, away[i]), 0); /* the remedy that the text names */
    CHECK_INT(put(b, away[i]), 0);
    CHECK_INT(get(a, away[i]), SIZE);
  }
  end();
}

/* A disk that is full: a small file system of its own, where mounting is allowed. */
static void test_full_disk(void) {
  t_case("a full disk");
  char mounted[80];
  snprintf(mounted, sizeof mounted, "%s/full", base);
  CHECK_INT(mkdir(mounted, 0700), 0);
  if (mount("none", mounted, "tmpfs", 0, "size=24k") != 0) { /* a page for the directory, and less than one object */
    printf("%s: not run, no right to mount\n", "a full disk");
    rmdir(mounted);
    return;
  }
  start_at(mounted);
  fill();
  CHECK_INT(put(a, 5), 0); /* one goes */
  CHECK_INT(put(a, 6), CFN_NO_SPACE);
  CHECK(strstr(cfn_last_failure()->text, "No space left on device") != NULL);
  CHECK_INT(files(), 1); /* nothing half-written stays */
  CHECK_INT(info().spilled, 1);
  for (int id = 1; id <= 5; id++) CHECK_INT(get(b, id), SIZE);
  end();
  CHECK_INT(umount(mounted), 0);
  rmdir(mounted);
}

static void test_place_at_fault(void) {
  t_case("a directory that is not ours alone, or cannot be written");
  start();
  fill();
  CHECK_INT(mkdir(dir, 0755), 0);
  CHECK_INT(put(a, 5), CFN_NO_SPACE);
  CHECK(strstr(cfn_last_failure()->text, "not yours alone") != NULL);
  CHECK_INT(rmdir(dir), 0);
  CHECK_INT(symlink("/tmp", dir), 0);
  CHECK_INT(put(a, 5), CFN_NO_SPACE);
  CHECK_INT(unlink(dir), 0);
  CHECK_INT(put(a, 5), 0);
  end();
}

/* In each moment of writing one out: the file is or is not there, and the reaper makes it LIVE again. */
static void test_death_in_the_middle(void) {
  t_case("its spiller died");
  start();
  fill();
  uint32_t blob = blob_of(1);
  pid_t child = t_fork();
  if (child == 0) {
    cfn_bus_t *c = t_attach("c");
    cfn_region_t *own = cfn_bus_region(c);
    cfn_hold_t h;
    uint32_t me = cfn_bus_attachment(c);
    cfn_a64 *st = &cfn_blob_record(own, blob)->st;
    CHECK(cfn_ledger_find(own, me, &h) && cfn_ledger_announce(&h, blob));
    uint64_t w = cfn_load_seq(st);
    CHECK(cfn_cas_seq(st, w, cfn_own_next(w, CFN_BLOB_SPILLING, me)));
    int d = cfn_spill_of_bus(own, true);
    memset(body, 1, SIZE);
    CHECK_INT(cfn_spill_write(d, blob, cfn_own_ver(w) + 1, body, SIZE), 0);
    _exit(0);
  }
  t_join(child);
  CHECK_INT(files(), 1);
  CHECK_INT(get(b, 1), SIZE); /* a rescue: it is LIVE */
  CHECK_INT(cfn_own_state(cfn_load_seq(&cfn_blob_record(r, blob)->st)), CFN_BLOB_LIVE);
  CHECK_INT(cfn_bus_reap(a), 1);
  cfn_repair_t done;
  CHECK_INT(cfn_bus_repair(a, &done), 0);
  CHECK_INT(done.files_removed, 1);
  CHECK_INT(files(), 0);
  CHECK_INT(cfn_bus_evict(a, SIZE), 0);
  CHECK_INT(files(), 1);
  end();
}

/* What a spiller has that was stopped for long, or judged dead wrongly, or both. */
static void test_stopped_and_fenced(void) {
  t_case("a spiller that is stopped blocks nobody");
  start();
  fill();
  uint32_t me = cfn_bus_attachment(b);
  cfn_hold_t h[FIT];
  for (uint32_t i = 0; i < 3; i++) { /* three of four are in its hands */
    uint32_t blob = blob_of((int)i + 1);
    cfn_a64 *st = &cfn_blob_record(r, blob)->st;
    CHECK(cfn_ledger_find(r, me, &h[i]) && cfn_ledger_announce(&h[i], blob));
    cfn_store_seq(st, cfn_own_next(cfn_load_seq(st), CFN_BLOB_SPILLING, me));
  }
  CHECK_INT(put_bytes(a, 9, 2 * SIZE), 0); /* more than the fourth has */
  for (int id = 1; id <= FIT; id++) CHECK_INT(get(a, id), SIZE);
  for (uint32_t i = 0; i < 3; i++) cfn_ledger_clear(&h[i]);
  end();

  t_case("a hold in the cell of a spiller that was judged dead");
  start();
  fill();
  uint32_t blob = blob_of(1);
  cfn_hold_t stale;
  me = cfn_bus_attachment(a);
  CHECK(cfn_ledger_find(r, me, &stale) && cfn_ledger_announce(&stale, blob));
  cfn_hold_t reaped = stale;
  cfn_ledger_clear(&reaped); /* by the reaper */
  cfn_pin_t view;
  CHECK_INT(pin(a, 1, &view), 0); /* by the slot's next process */
  cfn_hold_t late = stale;
  CHECK(!cfn_ledger_announce(&late, blob));
  cfn_in_the_way_t way = {0};
  CHECK_INT(cfn_evict(r, me, &stale, PAGES * CFN_PAGE, false, &way), CFN_AGAIN); /* it is held */
  CHECK(way.held && !way.works);
  CHECK_INT(cfn_evict(r, me, &stale, SIZE, false, &way), CFN_AGENT_FENCED); /* others could go, but not by this one */
  CHECK(((const uint8_t *)view.data)[SIZE - 1] == 1);
  cfn_bus_object_unpin(a, view.pin, view.word);
  end();

  t_case("a recaller that was judged dead");
  start();
  fill();
  CHECK_INT(put(a, 5), 0);
  int gone = 1;
  while (gone < FIT && !away(gone)) gone++;
  CHECK(away(gone));
  uint32_t at = 0;
  cfn_a64 *slot;
  uint64_t word;
  CHECK_INT(cfn_index_find(r, digest_of(gone, SIZE), &at, &slot, &word, &blob), 0);
  CHECK_INT(delete(a, 5), 0);
  CHECK_INT(cfn_bus_collect(a), 1);
  CHECK(cfn_ledger_find(r, me, &stale));
  reaped = stale;
  CHECK(cfn_ledger_set(&reaped, 3)); /* the cell has gone on */
  cfn_ledger_clear(&reaped);
  uint32_t b2 = blob;
  CHECK_INT(cfn_recall(r, me, &stale, slot, word, &b2), CFN_AGENT_FENCED);
  CHECK_INT(get(b, gone), SIZE);
  end();
}

static void test_full_ledger(void) {
  t_case("no cell is left to hold what is asked for");
  start();
  fill();
  CHECK_INT(put(a, 5), 0);
  cfn_hold_t h[CFN_LEDGER];
  unsigned n = 0;
  while (n < CFN_LEDGER && cfn_ledger_find(r, cfn_bus_attachment(a), &h[n]) && cfn_ledger_set(&h[n], 31)) n++;
  CHECK_INT(n, CFN_LEDGER);
  for (int id = 1; id <= 5; id++) CHECK_INT(get(a, id), CFN_OVER_CAPACITY);
  CHECK_INT(put(a, 6), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_bus_evict(a, PAGES * CFN_PAGE), CFN_OVER_CAPACITY);
  while (n) cfn_ledger_clear(&h[--n]);
  for (int id = 1; id <= 5; id++) CHECK_INT(get(a, id), SIZE);
  CHECK_INT(cfn_bus_evict(a, (UINT64_C(1) << 44) + 4096), CFN_NO_SPACE);
  CHECK_INT(info().spilled, 1); /* nothing went for what can never be */
  end();
}

/* Under the same path there is another directory: of another mount namespace, or made by hand. */
static void test_other_directory(void) {
  t_case("another directory under the same path");
  start();
  fill();
  for (int id = 5; id <= 7; id++) CHECK_INT(put(a, id), 0);
  uint64_t spilled = info().spilled;
  char aside[CFN_SPILL_BYTES + 8];
  snprintf(aside, sizeof aside, "%s.aside", dir);
  CHECK_INT(rename(dir, aside), 0);
  int lost = 0;
  for (int id = 1; id <= 7; id++) {
    int64_t e = get(b, id);
    lost += e == CFN_OS;
    CHECK(e == SIZE || (e == CFN_OS && strstr(cfn_last_failure()->text, "mount namespace")));
  }
  CHECK_INT(lost, spilled);
  CHECK_INT(put(a, 8), CFN_NO_SPACE); /* nothing is put where others would not find it */
  CHECK(strstr(cfn_last_failure()->text, "another mount namespace") != NULL);
  CHECK_INT(access(dir, F_OK), -1);
  CHECK_INT(mkdir(dir, 0700), 0);
  CHECK_INT(put(a, 8), CFN_NO_SPACE);
  CHECK_INT(rmdir(dir), 0);
  CHECK_INT(rename(aside, dir), 0);
  for (int id = 1; id <= 7; id++) CHECK_INT(get(b, id), SIZE);
  t_case("a pipe in the place of a file");
  cfn_object_info_t infos[8];
  CHECK_INT(cfn_bus_object_list(a, infos, 8), 7);
  for (int id = 1; id <= 7; id++) {
    const uint8_t *digest = digest_of(id, SIZE);
    for (int i = 0; i < 7; i++) {
      if (!infos[i].spilled || memcmp(infos[i].digest, digest, 32) != 0) continue;
      const char *path = file_of(id);
      CHECK_INT(unlink(path), 0);
      CHECK_INT(mkfifo(path, 0600), 0);
      CHECK_INT(get(b, id), CFN_CORRUPT);
      CHECK_INT(delete(b, id), 0);
    }
  }
  CHECK_INT(info().spilled, 0);
  end();
}

/* Two put objects that fill most of the heap, again and again: each waits for the other, and neither is told that there is no
 * room. */
static void test_side_by_side(void) {
  t_case("two that need the same room");
  start();
  enum { TURNS = 30, MOST = PAGES * CFN_PAGE * 3 / 4 };
  pid_t p[2];
  for (int i = 0; i < 2; i++) {
    p[i] = t_fork();
    if (p[i]) continue;
    cfn_bus_t *c = t_attach(NULL);
    for (int turn = 0; turn < TURNS; turn++) {
      int id = 1 + i * TURNS + turn;
      CHECK_INT(put_bytes(c, id, MOST), 0);
      const uint8_t *digest = digest_of(id, MOST);
      CHECK_INT(cfn_bus_object_get(c, digest, out, sizeof out), MOST);
      CHECK(memcmp(out, body, MOST) == 0);
      if (turn % 3) CHECK_INT(cfn_bus_object_delete(c, digest), 0);
    }
    t_close(c);
    _exit(0);
  }
  for (int i = 0; i < 2; i++) t_join(p[i]);
  CHECK(cfn_bus_collect(a) >= 0);
  CHECK_INT(info().objects, 2 * TURNS / 3);
  for (int id = 1; id <= 2 * TURNS; id += 3) {
    const uint8_t *digest = digest_of(id, MOST);
    CHECK_INT(cfn_bus_object_get(a, digest, out, sizeof out), MOST);
    CHECK(memcmp(out, body, MOST) == 0);
  }
  end();
}

static void test_ended_with_the_bus(void) {
  t_case("the directory goes with the bus, also when nobody can attach");
  start();
  fill();
  CHECK_INT(put(a, 5), 0);
  CHECK_INT(files(), 1);
  char path[CFN_PATH_BYTES];
  snprintf(path, sizeof path, "%s", r->path);
  CHECK_INT(cfn_region_destroy_path(NULL, t_bus_name()), 0);
  CHECK_INT(access(dir, F_OK), -1);
  /* Who has it open still, and evicts too late, leaves nothing. */
  cfn_hold_t h;
  CHECK(cfn_ledger_find(r, cfn_bus_attachment(a), &h));
  CHECK(cfn_evict(r, cfn_bus_attachment(a), &h, SIZE, false, &(cfn_in_the_way_t){0}) < 0); /* none is made for it any more */
  CHECK_INT(access(dir, F_OK), -1);
  t_close(b);
  t_close(a);
  t_case("of a boot that is over");
  char old[200], text[260];
  snprintf(old, sizeof old, "%s/cfnshm.%u.gone.00000000000000ab", base, (unsigned)geteuid());
  CHECK_INT(mkdir(old, 0700), 0);
  snprintf(text, sizeof text, "%s/bus", old);
  char machine[40] = "", whose[120];
  FILE *f = fopen("/etc/machine-id", "re");
  bool known = f && fgets(machine, 33, f) && strlen(machine) == 32; /* without it nothing is removed by itself */
  if (f) fclose(f);
  snprintf(whose, sizeof whose, "%s 00000000-0000-0000-0000-000000000000 7 /dev/shm/gone", machine);
  CHECK_INT(symlink(whose, text), 0);
  snprintf(text, sizeof text, "%s/3.14", old);
  close(open(text, O_CREAT | O_WRONLY, 0600));
  start();
  CHECK_INT(access(old, F_OK) == 0, !known);
  CHECK(cfn_spill_end(old));
  CHECK_INT(access(old, F_OK), -1);
  end();
}

static void clean_up(void) { rmdir(base); }

int main(void) {
  t_guard(120);
  snprintf(base, sizeof base, "/tmp/cfnshm-test-spill-%d", (int)getpid());
  CHECK_INT(mkdir(base, 0700), 0);
  atexit(clean_up);
  test_out_and_back();
  test_many_more_than_fit();
  test_held_stays();
  test_which_goes();
  test_values_stay();
  test_none();
  test_files_at_fault();
  test_full_disk();
  test_place_at_fault();
  test_death_in_the_middle();
  test_stopped_and_fenced();
  test_full_ledger();
  test_other_directory();
  test_side_by_side();
  test_ended_with_the_bus();
  t_passed("test_spill");
  return 0;
}
