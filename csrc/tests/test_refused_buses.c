/* Making, opening and ending a bus while the system refuses, or somebody else is at its directory between two calls: an error in
 * words, or another try; a bus is there whole or not at all, and what is not ours is not touched. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "mem/spill.h"
#include "tests/refuser.h"

static char path[CFN_PATH_BYTES], file[CFN_PATH_BYTES + 16], spill[CFN_SPILL_BYTES];
static bool says(const char *words) { return strstr(cfn_last_failure()->text, words) != NULL; }
static int opens(int flags) {
  cfn_wish_t wish = t_small_wish();
  wish.spill = "/dev/shm";
  cfn_bus_t *bus = NULL;
  int created, e = cfn_bus_open(NULL, t_bus_name(), &wish, flags, &bus, &created);
  if (e < 0) return e;
  snprintf(spill, sizeof spill, "%s", cfn_bus_region(bus)->super.spill);
  t_close(bus);
  return 0;
}
static void make(void) { CHECK_INT(opens(CFN_OPEN_CREATE), 0); }
static void gone(void) {
  t_destroy();
  CHECK(access(path, F_OK) != 0);
}
static void super(cfn_super_shm_t *s, bool store) {
  int fd = open(file, O_RDWR | O_CLOEXEC);
  CHECK(fd >= 0);
  if (!store) {
    CHECK_INT(pread(fd, s, sizeof *s, 0), sizeof *s);
  } else {
    s->crc = cfn_crc32c(s, offsetof(cfn_super_shm_t, crc));
    CHECK_INT(pwrite(fd, s, sizeof *s, 0), sizeof *s);
  }
  close(fd);
}

/* ---- where ---- */

static void paths(void) {
  char out[CFN_PATH_BYTES], longer[CFN_PATH_BYTES + 1];
  t_case("where a bus is");
  const char *set = getenv("CFNSHM_DIR");
  char *before = set ? strdup(set) : NULL;
  CHECK_INT(unsetenv("CFNSHM_DIR"), 0);
  CHECK_INT(cfn_region_path("", "x", out), 0);
  CHECK(strncmp(out, "/dev/shm/cfnshm.", 16) == 0);
  CHECK_INT(setenv("CFNSHM_DIR", "/tmp", 1), 0);
  CHECK_INT(cfn_region_path(NULL, "x", out), 0);
  CHECK(strncmp(out, "/tmp/cfnshm.", 12) == 0);
  CHECK_INT(cfn_region_path("/run", "x", out), 0);
  CHECK(strncmp(out, "/run/cfnshm.", 12) == 0);
  CHECK_INT(setenv("CFNSHM_DIR", "", 1), 0);
  CHECK_INT(cfn_region_path(NULL, "x", out), 0);
  CHECK(strncmp(out, "/dev/shm/cfnshm.", 16) == 0);
  CHECK_INT(unsetenv("CFNSHM_DIR"), 0);
  memset(longer, 'd', sizeof longer);
  longer[sizeof longer - 1] = 0;
  CHECK_INT(cfn_region_path(longer, "x", out), CFN_INVALID);
  CHECK(says("too long a path"));
  if (before) CHECK_INT(setenv("CFNSHM_DIR", before, 1), 0);
  free(before);
}

static void plans(void) {
  static const uint64_t gib = UINT64_C(1) << 30;
  cfn_config_shm_t c;
  cfn_wish_t wish = {.refs = CFN_MAX_REFS + 1};
  t_case("plans that cannot be, and the largest that can");
  CHECK_INT(cfn_region_plan(&wish, 64 * gib, "/x", &c), CFN_INVALID);
  wish = (cfn_wish_t){.objects = CFN_MAX_OBJECTS + 1};
  CHECK_INT(cfn_region_plan(&wish, 64 * gib, "/x", &c), CFN_INVALID);
  wish = (cfn_wish_t){.agents = CFN_MAX_AGENTS + 1};
  CHECK_INT(cfn_region_plan(&wish, 64 * gib, "/x", &c), CFN_INVALID);
  wish = (cfn_wish_t){.size_bytes = 8192 * gib};
  CHECK_INT(cfn_region_plan(&wish, 16384 * gib, "/x", &c), 0);
  CHECK_INT(c.object_pages, 1u << 30);
  CHECK_INT(c.class_chunks[0], 1u << 20);
  CHECK_INT(cfn_region_plan(&wish, 16 * gib, "/x", &c), CFN_NO_SPACE);
  wish = (cfn_wish_t){.agents = 60000};
  CHECK_INT(cfn_region_plan(&wish, 64 * gib, "/x", &c), 0);
  wish = (cfn_wish_t){.agents = 8, .class_wished = 1, .class_chunks = {1u << 21}};
  CHECK_INT(cfn_region_plan(&wish, 2 * gib, "/x", &c), 0);
  CHECK_INT(cfn_region_plan(&wish, gib, "/x", &c), CFN_NO_SPACE); /* a quarter stays for everybody else */
  wish = (cfn_wish_t){.agents = 8, .lane_slots = {3}};
  CHECK_INT(cfn_region_plan(&wish, gib, "/x", &c), CFN_INVALID);
  wish = (cfn_wish_t){.agents = 8, .object_pages = 0x7fffffff};
  CHECK(cfn_region_plan(&wish, gib, "/x", &c) < 0);
}

static void configurations(void) {
  cfn_config_shm_t good, c;
  cfn_geometry_t g;
  cfn_wish_t wish = t_small_wish();
  CHECK_INT(cfn_region_plan(&wish, UINT64_C(1) << 30, "/x", &good), 0);
  for (int what = 0; what < 6; what++) {
    t_case("a configuration that only damage can make (%d)", what);
    c = good;
    if (what == 0) c.class_bytes[CFN_CLASSES - 1] = 1u << 27;
    if (what == 1) c.class_bytes[1] = c.class_bytes[0];
    if (what == 2) memset(c.class_chunks, 0, sizeof c.class_chunks);
    if (what == 3) c.class_chunks[0] = c.class_chunks[1] = CFN_MAX_CHUNKS;
    if (what == 4) c.directory_slots = 1u << 25;
    if (what == 5) c.class_bytes[0] = 64;
    CHECK_INT(cfn_geometry_compute(&c, &g), CFN_INVALID);
  }
  CHECK_INT(cfn_geometry_compute(&good, &g), 0);
}

/* ---- making one ---- */

static void marks(void) { CHECK_INT(chmod(path, 0700 | S_ISVTX), 0); }
static void another_is_first(void) {
  int fd = open(file, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  close(fd);
}

static void making(void) {
  static const struct { const char *call; int after, times, error, want; const char *words; } refusals[] = {
      {"open", 0, N_ALWAYS, ENOENT, CFN_AGAIN, "created and destroyed all the time"},
      {"open", 0, 1, EMFILE, CFN_OS, "cannot open the bus directory"},
      {"open", 0, 1, ELOOP, CFN_PERMISSION, "not a directory of ours"},
      {"open", 0, 1, ENOTDIR, CFN_PERMISSION, "not a directory of ours"},
      {"mkdir", 0, 1, EIO, CFN_OS, "cannot make the bus directory"},
      {"fstat", 0, 1, EIO, CFN_OS, "cannot look at"},
      {"fstat", 1, 1, EIO, CFN_OS, "cannot look at"},
      {"openat", 0, 1, EIO, CFN_OS, "cannot open the bus"},
      {"openat", 1, 1, EMFILE, CFN_OS, "cannot make the region file"},
      {"fstatvfs", 0, 1, EIO, CFN_OS, "cannot ask for the free space"},
      {"posix_fallocate", 0, 1, ENOSPC, CFN_NO_SPACE, "MiB are free there"},
      {"posix_fallocate", 0, 1, EFBIG, CFN_OS, "cannot reserve"},
      {"mmap", 0, 1, ENOMEM, CFN_NO_MEMORY, "cannot map the new bus"},
      {"linkat", 0, 1, EIO, CFN_OS, "cannot name the bus"},
  };
  for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    t_case("making a bus: %s %d fails with %d", refusals[i].call, refusals[i].after, refusals[i].error);
    n_refuse(refusals[i].call, refusals[i].after, refusals[i].times, refusals[i].error);
    CHECK_INT(opens(CFN_OPEN_CREATE), refusals[i].want);
    n_end();
    CHECK(says(refusals[i].words));
    rmdir(path);
    CHECK(access(path, F_OK) != 0);
  }
  static const struct { const char *call; int after, times, error; } passing[] = {
      {"posix_fallocate", 0, 1, EINTR}, {"linkat", 0, 1, ENOENT}, {"linkat", 0, 1, EEXIST}, {"openat", 1, 1, ENOENT},
      {"openat", 1, 1, EOPNOTSUPP}, {"open", 0, 1, ENOENT}};
  for (unsigned i = 0; i < sizeof passing / sizeof passing[0]; i++) {
    t_case("what is got over: %s %d with %d", passing[i].call, passing[i].after, passing[i].error);
    n_refuse(passing[i].call, passing[i].after, passing[i].times, passing[i].error);
    CHECK_INT(opens(CFN_OPEN_CREATE), 0);
    n_end();
    gone();
  }
  t_case("no space, and nobody says how much there is");
  n_refuse("posix_fallocate", 0, 1, ENOSPC);
  CHECK_INT(opens(CFN_OPEN_CREATE), CFN_NO_SPACE);
  n_end();
  t_case("the directory is marked as ended before it is looked into, and after the bus got its name");
  n_before("linkat", 0, 1, marks);
  CHECK_INT(opens(CFN_OPEN_CREATE), 0);
  n_end();
  gone();
  CHECK_INT(mkdir(path, 0700), 0);
  marks();
  CHECK_INT(opens(0), CFN_NO_BUS);
  CHECK(access(path, F_OK) != 0);
  n_before("linkat", 0, 1, another_is_first); /* and not whole */
  CHECK_INT(opens(CFN_OPEN_CREATE), CFN_CORRUPT);
  n_end();
  gone();
  t_case("a directory of another user");
  make();
  n_refuse("geteuid", 2, 1, 0); /* of the path; of the place on disk; of the directory */
  int e = opens(0);
  CHECK(n_end() == 1 && (e == CFN_PERMISSION || e == CFN_NO_BUS));
  gone();
}

/* ---- opening one ---- */

static void opening(void) {
  static const struct { const char *call; int after, times, error, want; const char *words; } refusals[] = {
      {"fstat", 2, 1, EIO, CFN_OS, "cannot look at"}, {"fstat", 3, 1, EIO, CFN_OS, "cannot look at"},
      {"pread", 0, 1, EIO, CFN_OS, "cannot read the header"}, {"mmap", 0, 1, ENOMEM, CFN_NO_MEMORY, "cannot map the bus"},
      {"openat", 0, 1, EMFILE, CFN_OS, "cannot open the bus"}, {"openat", 0, 1, ENOENT, CFN_NO_BUS, "its file was removed"},
  };
  for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    t_case("opening a bus: %s %d fails with %d", refusals[i].call, refusals[i].after, refusals[i].error);
    make();
    n_refuse(refusals[i].call, refusals[i].after, refusals[i].times, refusals[i].error);
    CHECK_INT(opens(0), refusals[i].want);
    n_end();
    CHECK(says(refusals[i].words));
    CHECK_INT(opens(0), 0); /* and there it is */
    gone();
  }
  t_case("headers that make no sense, with a right checksum");
  make();
  cfn_super_shm_t good, bad;
  super(&good, false);
  for (int what = 0; what < 5; what++) {
    bad = good;
    if (what == 0) bad.header_bytes++;
    if (what == 1) bad.page_bytes *= 2;
    if (what == 2) bad.region_bytes += CFN_PAGE;
    if (what == 3) memset(bad.spill, 'x', sizeof bad.spill);
    if (what == 4) snprintf(bad.spill, sizeof bad.spill, "/dev/shm/somebody else's");
    super(&bad, true);
    CHECK_INT(opens(0), CFN_CORRUPT);
    CHECK_INT(opens(CFN_OPEN_CREATE), CFN_CORRUPT);
  }
  super(&good, true);
  CHECK_INT(opens(0), 0);
  t_case("a bus of no boot, and of an earlier one: it is made anew");
  bad = good;
  memset(bad.boot_id, 0, sizeof bad.boot_id);
  super(&bad, true);
  CHECK_INT(opens(0), 0);
  memset(bad.boot_id, '0', 36);
  super(&bad, true);
  CHECK_INT(opens(0), CFN_NO_BUS);
}

/* ---- one that is open ---- */

static void using(void) {
  char away[CFN_PATH_BYTES + 8];
  cfn_wish_t wish = t_small_wish();
  wish.spill = "/dev/shm";
  t_case("its directory's descriptor is closed by others");
  cfn_bus_t *a = t_open("a", &wish);
  cfn_region_t *r = cfn_bus_region(a);
  int dir = cfn_region_dir(r);
  CHECK_INT(close(dir), 0);
  CHECK(cfn_region_dir(r) >= 0);
  cfn_bus_t *b = t_attach("b");
  CHECK_INT(close(cfn_region_dir(r)), 0);
  cfn_bus_t *c = t_attach("c"); /* who opens it again brings a descriptor */
  t_close(c);
  t_case("another directory stands under its name, or one that cannot be looked at");
  CHECK_INT(close(cfn_region_dir(r)), 0);
  snprintf(away, sizeof away, "%s.away", path);
  CHECK_INT(rename(path, away), 0);
  CHECK_INT(cfn_region_dir(r), -1);
  CHECK_INT(errno, ENOENT);
  CHECK_INT(mkdir(path, 0700), 0);
  CHECK_INT(cfn_region_dir(r), -1);
  CHECK_INT(errno, ENOENT);
  CHECK(cfn_bus_fileno(a, 1) < 0);
  CHECK_INT(rmdir(path), 0);
  CHECK_INT(rename(away, path), 0);
  CHECK(cfn_region_dir(r) >= 0);
  CHECK(cfn_bus_fileno(a, 1) >= 0);
  n_refuse("fstat", 0, 1, EIO);
  CHECK(cfn_region_dir(r) >= 0);
  n_end();
  CHECK_INT(close(cfn_region_dir(r)), 0);
  t_close(b);

  t_case("its place on disk is another by now, or gone");
  dir = cfn_spill_of_bus(r, false);
  CHECK_INT(dir, CFN_EMPTY);
  dir = cfn_spill_of_bus(r, true);
  CHECK(dir >= 0);
  close(dir);
  char other[CFN_SPILL_BYTES + 8];
  snprintf(other, sizeof other, "%s.away", r->super.spill);
  CHECK_INT(rename(r->super.spill, other), 0);
  CHECK_INT(cfn_spill_of_bus(r, false), CFN_OS);
  CHECK(says("cannot be reached"));
  CHECK_INT(mkdir(r->super.spill, 0700), 0);
  CHECK_INT(cfn_spill_of_bus(r, true), CFN_OS);
  CHECK_INT(rmdir(r->super.spill), 0);
  CHECK_INT(rename(other, r->super.spill), 0);
  n_refuse("open", 0, 1, EMFILE);
  CHECK_INT(cfn_spill_of_bus(r, false), CFN_OS);
  n_end();
  CHECK(cfn_spill_end(r->super.spill));
  cfn_store_seq(&cfn_state(r)->spill_id, 0);
  cfn_store_seq(&cfn_state(r)->state, CFN_BUS_RETIRED);
  CHECK_INT(cfn_spill_of_bus(r, true), CFN_EMPTY); /* nobody makes one for what has ended */
  t_case("who opens what has ended in its words alone finishes that, and makes another");
  t_close(a);
  CHECK_INT(opens(0), CFN_NO_BUS);
  make();
  gone();
  cfn_wish_t nowhere = t_small_wish();
  cfn_bus_t *d = t_open("d", &nowhere);
  CHECK_INT(cfn_bus_destroy(d), 0);
  t_close(d);
}

int main(void) {
  t_guard(60);
  CHECK_INT(cfn_region_path(NULL, t_bus_name(), path), 0);
  snprintf(file, sizeof file, "%s/region", path);
  paths();
  plans();
  configurations();
  making();
  opening();
  using();
  t_passed("test_refused_buses");
  return 0;
}
