/* Files that the system refuses, or that somebody else was at: the place of a bus, its region, and what it has on disk. Each is
 * told, or got over; nothing of others is touched, and nothing is left. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/os.h"
#include "mem/region.h"
#include "mem/spill.h"
#include "tests/refuser.h"

static char base[200], place[CFN_SPILL_BYTES], path[CFN_PATH_BYTES];
static uint64_t id;

static bool says(const char *words) { return strstr(cfn_last_failure()->text, words) != NULL; }
static void file(const char *name, const char *content) {
  char full[600];
  snprintf(full, sizeof full, "%s/%s", place, name);
  int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_INT(write(fd, content, strlen(content)), (long long)strlen(content));
  close(fd);
}
static bool there(const char *name) {
  char full[600];
  struct stat st;
  snprintf(full, sizeof full, "%s/%s", place, name);
  return lstat(full, &st) == 0;
}
static int spill(void) { /* made and open */
  int dir = cfn_spill_open(place, "/dev/shm", &id);
  CHECK(dir >= 0);
  return dir;
}

/* ---- where it is ---- */

static void naming(void) {
  char out[CFN_SPILL_BYTES], longer[500] = "/dev/shm";
  t_case("where objects go");
  CHECK_INT(setenv("CFNSHM_SPILL", "/dev/shm", 1), 0);
  CHECK_INT(cfn_spill_path("", "bus", 1, out), 0);
  CHECK(strncmp(out, "/dev/shm/cfnshm.", 16) == 0);
  CHECK_INT(setenv("CFNSHM_SPILL", "", 1), 0);
  CHECK_INT(cfn_spill_path(NULL, "bus", 1, out), 0);
  CHECK(strncmp(out, "/var/tmp/cfnshm.", 16) == 0);
  CHECK(cfn_spill_is_path(out, "bus", 1));
  CHECK(!cfn_spill_is_path(out, "bus", 2));
  CHECK(!cfn_spill_is_path("x/cfnshm.0.bus.0000000000000001", "bus", 1));
  CHECK(!cfn_spill_is_path("/short", "bus", 1));
  char endless[CFN_SPILL_BYTES];
  memset(endless, '/', sizeof endless);
  CHECK(!cfn_spill_is_path(endless, "bus", 1));
  CHECK_INT(unsetenv("CFNSHM_SPILL"), 0);
  t_case("where none can go");
  CHECK_INT(cfn_spill_path("relative", "bus", 1, out), CFN_INVALID);
  CHECK_INT(cfn_spill_path("/nowhere/at/all", "bus", 1, out), CFN_INVALID);
  CHECK_INT(cfn_spill_path("/dev/null", "bus", 1, out), CFN_INVALID);
  CHECK(says("is no directory"));
  for (size_t n = 8; n < 380; n += 2) memcpy(longer + n, "/.", 3);
  CHECK_INT(cfn_spill_path(longer, "bus", 1, out), CFN_INVALID);
  CHECK(says("too long"));
  CHECK_INT(out[0], 0);
  CHECK_INT(cfn_spill_path("off", "bus", 1, out), 0);
  CHECK_INT(out[0], 0);
}

/* ---- opening it ---- */

static void opening(void) {
  static const struct { const char *call; int after, times, error, want; const char *words; } refusals[] = {
      {"mkdir", 0, 1, EIO, CFN_OS, "cannot make"},
      {"open", 0, N_ALWAYS, ENOENT, CFN_AGAIN, "made and removed all the time"},
      {"open", 1, 1, EMFILE, CFN_OS, "cannot open"},
      {"symlinkat", 0, 1, EIO, CFN_OS, "cannot write to"},
      {"symlinkat", 0, N_ALWAYS, ENOENT, CFN_AGAIN, "made and removed all the time"},
      {"fstat", 0, 1, EIO, CFN_OS, "cannot look at"},
      {"fstatfs", 0, 1, EIO, CFN_OS, "cannot look at"},
      {"geteuid", 0, 1, 0, CFN_PERMISSION, "not yours alone"},
  };
  for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    t_case("the place on disk: %s fails", refusals[i].call);
    n_refuse(refusals[i].call, refusals[i].after, refusals[i].times, refusals[i].error);
    CHECK_INT(cfn_spill_open(place, "/dev/shm", &id), refusals[i].want);
    n_end();
    CHECK(says(refusals[i].words));
    rmdir(place);
  }
  t_case("it is made by another just now, and removed");
  n_refuse("mkdir", 0, 1, EEXIST);
  CHECK_INT(mkdir(place, 0700), -1);
  n_end();
  int dir = spill();
  CHECK(there("bus"));
  close(dir);
  n_refuse("symlinkat", 0, 1, EEXIST);
  CHECK(cfn_spill_end(place));
  close(spill());
  n_end();
  t_case("one that others may look into, and one that is memory where a disk should be");
  CHECK_INT(chmod(place, 0755), 0);
  CHECK_INT(cfn_spill_open(place, NULL, &id), CFN_PERMISSION);
  CHECK_INT(chmod(place, 0700), 0);
  CHECK(cfn_spill_end(place));
  char disk[CFN_SPILL_BYTES];
  CHECK_INT(cfn_spill_path("/var/tmp", t_bus_name(), 7, disk), 0);
  n_answer("fstatfs", 0, 1, TMPFS_MAGIC);
  CHECK_INT(cfn_spill_open(disk, "/dev/shm", &id), CFN_PERMISSION);
  n_end();
  CHECK(says("memory itself"));
  CHECK(access(disk, F_OK) != 0);
  t_case("a machine without a number");
  n_refuse("open", 2, 1, ENOENT); /* of the place twice, and then of that */
  dir = spill();
  n_end();
  char text[200] = "";
  CHECK(readlinkat(dir, "bus", text, sizeof text - 1) > 0);
  CHECK_INT(text[0], '-');
  close(dir);
  CHECK(cfn_spill_end(place));
}

/* ---- objects there ---- */

static void objects(void) {
  char out[8];
  t_case("objects on disk");
  int dir = spill();
  n_refuse("write", 0, 1, EINTR);
  CHECK_INT(cfn_spill_write(dir, 1, 5, "object", 6), 0);
  n_end();
  CHECK_INT(cfn_spill_keep(dir, 1, 5), 0);
  static const struct { const char *call; int error, want; } refusals[] = {
      {"openat", EMFILE, CFN_OS}, {"openat", ENOENT, CFN_EMPTY}, {"fstat", EIO, CFN_CORRUPT}, {"read", EIO, CFN_OS}, {"read", EINTR, CFN_OK}};
  for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    n_refuse(refusals[i].call, 0, 1, refusals[i].error);
    CHECK_INT(cfn_spill_read(dir, 1, 6, out, 6), refusals[i].want);
    n_end();
  }
  n_answer("read", 0, 1, 0); /* cut short while it is read */
  CHECK_INT(cfn_spill_read(dir, 1, 6, out, 6), CFN_CORRUPT);
  n_end();
  CHECK(cfn_spill_has(dir, 1, 6, 6) && !cfn_spill_has(dir, 1, 6, 7) && !cfn_spill_has(dir, 1, 7, 6));
  CHECK_INT(mkfifoat(dir, "2.6", 0600), 0);
  CHECK_INT(cfn_spill_read(dir, 2, 6, out, 0), CFN_CORRUPT);
  CHECK(!cfn_spill_has(dir, 2, 6, 0));
  static const struct { const char *call; int error; } lost[] = {{"openat", EIO}, {"write", EIO}, {"close", EIO}};
  for (unsigned i = 0; i < 3; i++) {
    n_refuse(lost[i].call, 0, 1, lost[i].error);
    CHECK_INT(cfn_spill_write(dir, 3, 5, "object", 6), CFN_OS);
    n_end();
    CHECK(!there("3.5.new"));
  }
  CHECK_INT(cfn_spill_keep(dir, 3, 5), CFN_OS);
  n_refuse("fchmod", 0, 1, EPERM); /* where it cannot be kept from who cleans up, it cannot */
  CHECK_INT(cfn_spill_write(dir, 3, 5, "object", 6), 0);
  n_end();
  close(dir);
  CHECK(cfn_spill_end(place));
}

static bool all(void *context, uint32_t blob, uint64_t ver, bool is_new) {
  return (void)context, (void)blob, (void)ver, (void)is_new, true;
}
static void another_removes(void) { CHECK_INT(unlinkat(AT_FDCWD, strcat(strcpy(path, place), "/1.6"), 0), 0); }
static void writes_a_last_one(void) { file("9.9", "late"); }

static void ending(void) {
  t_case("a sweep that is refused, and one that another is faster than");
  static const struct { const char *call; int after, error; bool whole; } sweeps[] = {
      {"openat", 0, EMFILE, false}, {"fdopendir", 0, ENOMEM, false}, {"readdir", 0, EIO, false}, {"unlinkat", 0, EACCES, false}};
  for (unsigned i = 0; i < 4; i++) {
    int dir = spill();
    file("1.6", "object");
    file("what is this", "");
    n_refuse(sweeps[i].call, sweeps[i].after, 1, sweeps[i].error);
    cfn_spill_count_t n = cfn_spill_sweep(dir, all, NULL);
    n_end();
    CHECK_INT(n.whole, sweeps[i].whole);
    n_before("unlinkat", 0, 1, another_removes);
    n = cfn_spill_sweep(dir, all, NULL);
    n_end();
    CHECK(n.whole && n.removed == 0);
    CHECK(there("what is this"));
    CHECK_INT(unlinkat(dir, "what is this", 0), 0);
    close(dir);
    CHECK(cfn_spill_end(place));
  }

  t_case("what is not ours stays, and says still whose place it was");
  int dir = spill();
  file("a letter", "");
  CHECK(!cfn_spill_end(place));
  CHECK_INT(errno, ENOTEMPTY);
  CHECK(there("bus") && there("a letter"));
  n_refuse("symlinkat", 0, N_ALWAYS, EACCES);
  CHECK(!cfn_spill_end(place));
  n_end();
  CHECK_INT(errno, ENOTEMPTY);
  CHECK(!cfn_spill_end(place)); /* and now there is none to be put back */
  CHECK(!there("bus"));
  CHECK_INT(unlinkat(dir, "a letter", 0), 0);
  t_case("somebody writes a last file meanwhile");
  n_before("unlinkat", 1, 1, writes_a_last_one);
  CHECK(cfn_spill_end(place));
  n_end();
  close(dir);
  static const struct { const char *call; int after, error; } refusals[] = {
      {"unlinkat", 0, EACCES}, {"unlinkat", 1, EACCES}, {"openat", 0, EMFILE}, {"openat", 1, EMFILE}, {"fstat", 0, EIO}};
  for (unsigned i = 0; i < 5; i++) {
    t_case("it cannot be removed: %s %d, and for a moment only", refusals[i].call, refusals[i].after);
    close(spill());
    n_refuse(refusals[i].call, refusals[i].after, N_ALWAYS, refusals[i].error);
    CHECK(!cfn_spill_end(place));
    n_end();
    CHECK_INT(errno, refusals[i].error);
    n_refuse(refusals[i].call, refusals[i].after, 1, refusals[i].error);
    CHECK(cfn_spill_end(place));
    n_end();
  }
  t_case("none, another user's, a link, and a file are nothing of ours");
  CHECK(cfn_spill_end(place));
  close(spill());
  n_refuse("geteuid", 0, 1, 0);
  CHECK(cfn_spill_end(place));
  n_end();
  CHECK(there("bus"));
  CHECK(cfn_spill_end(place));
  CHECK_INT(symlink("/dev/shm", place), 0);
  CHECK(cfn_spill_end(place));
  CHECK_INT(unlink(place), 0);
  CHECK_INT(close(open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
  CHECK(cfn_spill_end(place));
  CHECK_INT(unlink(place), 0);
}

/* ---- what was left by earlier boots ---- */

static void other_boots(void) {
  char machine[64], boot[40], ours[200];
  t_case("what was left by other boots goes, of this machine alone");
  int dir = spill();
  char text[300] = "";
  CHECK(readlinkat(dir, "bus", text, sizeof text - 1) > 0);
  close(dir);
  CHECK(cfn_spill_end(place));
  cfn_os_boot_id(boot);
  CHECK_INT(sscanf(text, "%63s", machine), 1);
  if (strlen(machine) != 32) return; /* a machine without a number removes nothing */
  snprintf(ours, sizeof ours, "%.190s", place);
  static const char *const others = "00000000-0000-0000-0000-000000000000";
  const struct { const char *text; bool goes; } left[] = {
      {"%m %o 5 /x", true},   {"%m %b 5 /x", false}, {"00000000000000000000000000000000 %o 5 /x", false},
      {"%m-%o 5 /x", false},  {"%m %o", false},      {"%m %o-5 /x", false}, {"%m", false}, {"", false},
  };
  for (unsigned i = 0; i < sizeof left / sizeof left[0]; i++) {
    char link_text[200] = "";
    for (const char *p = left[i].text; *p; p++) {
      if (*p == '%') strcat(link_text, *++p == 'm' ? machine : *p == 'o' ? others : boot);
      else strncat(link_text, p, 1);
    }
    snprintf(place, sizeof place, "%s.%u", ours, i);
    CHECK_INT(mkdir(place, 0700), 0);
    char full[600];
    snprintf(full, sizeof full, "%s/bus", place);
    if (link_text[0]) CHECK_INT(symlink(link_text, full), 0);
    file("1.2", "object");
    cfn_spill_end_of_other_boots(ours);
    CHECK_INT(access(place, F_OK) != 0, left[i].goes);
    if (!left[i].goes) CHECK(cfn_spill_end(place));
  }
  t_case("files of such a name, and folders that cannot be read, are passed over");
  snprintf(place, sizeof place, "%s.file", ours);
  CHECK_INT(close(open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
  cfn_spill_end_of_other_boots(ours);
  CHECK_INT(unlink(place), 0);
  strcpy(place, ours);
  n_refuse("opendir", 0, 1, EACCES);
  cfn_spill_end_of_other_boots(ours);
  n_end();
  cfn_spill_end_of_other_boots("no place");
  cfn_spill_end_of_other_boots("/at the root");
}

int main(void) {
  t_guard(60);
  snprintf(base, sizeof base, "/dev/shm/refused-%d", (int)getpid());
  CHECK_INT(mkdir(base, 0700), 0);
  CHECK_INT(cfn_spill_path(base, t_bus_name(), 7, place), 0);
  naming();
  opening();
  objects();
  ending();
  other_boots();
  CHECK_INT(rmdir(base), 0);
  t_passed("test_refused_files");
  return 0;
}
