#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mem/spill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/error.h"
#include "base/os.h"

#define FILE_BYTES 64
#define LINK_BYTES (PATH_MAX + 160)
#define MOST_AT_ONCE (UINT64_C(1) << 30) /* one call of write() or read() moves less than 2 GiB */

/* ---- the directory ---- */

int cfn_spill_path(const char *base, const char *name, uint64_t nonce, char out[CFN_SPILL_BYTES]) {
  bool wished = true;
  if (!base || !*base) base = getenv("CFNSHM_SPILL");
  if (!base || !*base) {
    base = "/var/tmp";
    wished = false;
  }
  memset(out, 0, CFN_SPILL_BYTES);
  if (strcmp(base, "off") == 0) return CFN_OK;
  if (base[0] != '/')
    return cfn_fail(CFN_INVALID, 0, 0, "'%.200s' is no place for objects that do not fit into memory (CFNSHM_SPILL): say a "
                    "directory on a disk, from / on, or 'off'", base);
  struct stat st;
  if (wished && (stat(base, &st) != 0 || !S_ISDIR(st.st_mode)))
    return cfn_fail(CFN_INVALID, 0, 0, "'%.200s' is no directory; objects that do not fit into memory were to go there "
                    "(CFNSHM_SPILL)", base);
  int n = snprintf(out, CFN_SPILL_BYTES, "%s/cfnshm.%u.%s.%016" PRIx64, base, (unsigned)geteuid(), name, nonce);
  if (n >= 0 && (unsigned)n < CFN_SPILL_BYTES) return CFN_OK;
  memset(out, 0, CFN_SPILL_BYTES);
  return cfn_fail(CFN_INVALID, CFN_SPILL_BYTES - 1, n, "%.100s... (CFNSHM_SPILL) is too long a path", base);
}

bool cfn_spill_is_path(const char *path, const char *name, uint64_t nonce) {
  char last[CFN_NAME_BYTES + 64];
  snprintf(last, sizeof last, "/cfnshm.%u.%.63s.%016" PRIx64, (unsigned)geteuid(), name, nonce);
  size_t bytes = strnlen(path, CFN_SPILL_BYTES), tail = strlen(last);
  return bytes < CFN_SPILL_BYTES && path[0] == '/' && bytes > tail && strcmp(path + bytes - tail, last) == 0;
}

/* A text of no machine is of none: nothing is removed for it. */
static void machine_id(char out[40]) {
  memset(out, 0, 40);
  int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, out, 32) : 0;
  if (fd >= 0) close(fd);
  if (n != 32 || strspn(out, "0123456789abcdef") != 32) snprintf(out, 40, "-");
}

static void whose(const char *bus_path, char out[LINK_BYTES]) {
  char machine[40], boot[40], real[PATH_MAX];
  struct stat st = {0};
  if (realpath(bus_path, real)) bus_path = real; /* who reads it stands elsewhere */
  machine_id(machine);
  cfn_os_boot_id(boot);
  if (stat(bus_path, &st) != 0) st.st_dev = 0;
  snprintf(out, LINK_BYTES, "%s %.39s %llu %s", machine, boot[0] ? boot : "-", (unsigned long long)st.st_dev, bus_path);
}

static int not_usable(const char *path, const char *why) {
  return cfn_fail(CFN_PERMISSION, 0, 0, "%s, where objects go that do not fit into memory, %s", path, why);
}

static uint64_t id_of(const struct stat *st) {
  uint64_t id = (uint64_t)st->st_dev * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)st->st_ino;
  return id ? id : 1;
}

static int open_at(const char *path, uint64_t *id) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return CFN_EMPTY;
  if (fd < 0) return cfn_fail_os("cannot open %s, where objects go that do not fit into memory", path);
  struct stat st;
  struct statfs fs;
  int r = fd;
  if (fstat(fd, &st) != 0 || fstatfs(fd, &fs) != 0) r = cfn_fail_os("cannot look at %s", path);
  else if (st.st_uid != geteuid() || (st.st_mode & 077)) r = not_usable(path, "is not yours alone (0700)");
  else if (*id = id_of(&st), fs.f_type == TMPFS_MAGIC && strncmp(path, "/var/tmp/", 9) == 0)
    r = not_usable(path, "is memory itself (a tmpfs): set CFNSHM_SPILL to a directory on a disk");
  if (r < 0) close(fd);
  return r;
}

int cfn_spill_open(const char *path, const char *bus_path, uint64_t *id) {
  for (int tries = 0; tries < 8; tries++) {
    int fd = open_at(path, id);
    char text[LINK_BYTES];
    if (fd != CFN_EMPTY) {
      /* One without its link is being made, or being removed: who finds it empty may remove it. */
      if (fd < 0 || !bus_path || readlinkat(fd, "bus", text, sizeof text) > 0) return fd;
    } else {
      if (!bus_path) return fd;
      if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return cfn_fail_os("cannot make %s, where objects go that do not fit into memory", path);
      fd = open_at(path, id);
      if (fd == CFN_EMPTY) continue;
      if (fd < 0) {
        rmdir(path);
        return fd;
      }
    }
    whose(bus_path, text);
    if (symlinkat(text, fd, "bus") == 0 || errno == EEXIST) return fd;
    int why = errno;
    close(fd);
    errno = why;
    if (why != ENOENT) return cfn_fail_os("cannot write to %s, where objects go that do not fit into memory", path);
  }
  return cfn_fail(CFN_AGAIN, 0, 0, "%s is made and removed all the time", path);
}

/* ---- files ---- */

static void name_of(char out[FILE_BYTES], uint32_t blob, uint64_t ver, bool is_new) {
  snprintf(out, FILE_BYTES, "%u.%" PRIu64 "%s", blob, ver, is_new ? ".new" : "");
}

int cfn_spill_write(int dir, uint32_t blob, uint64_t ver, const void *data, uint64_t bytes) {
  char name[FILE_BYTES];
  name_of(name, blob, ver, true);
  int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return cfn_fail_os("cannot write an object to disk");
  /* The sticky bit keeps those away who clean /var/tmp of what nobody has touched for weeks; where it cannot be set, it
   * cannot. */
  if (fchmod(fd, 01600) != 0) errno = 0;
  const char *at = data;
  for (uint64_t left = bytes; left;) {
    ssize_t n = write(fd, at, left < MOST_AT_ONCE ? left : MOST_AT_ONCE);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      int r = cfn_fail_os("cannot write an object of %" PRIu64 " bytes to disk", bytes);
      close(fd);
      unlinkat(dir, name, 0);
      return r;
    }
    at += n;
    left -= (uint64_t)n;
  }
  if (close(fd) == 0) return CFN_OK;
  int r = cfn_fail_os("cannot write an object of %" PRIu64 " bytes to disk", bytes);
  unlinkat(dir, name, 0);
  return r;
}

int cfn_spill_keep(int dir, uint32_t blob, uint64_t ver) {
  char from[FILE_BYTES], to[FILE_BYTES];
  name_of(from, blob, ver, true);
  name_of(to, blob, ver + 1, false);
  return renameat(dir, from, dir, to) == 0 ? CFN_OK : cfn_fail_os("cannot keep an object on disk");
}

int cfn_spill_read(int dir, uint32_t blob, uint64_t ver, void *out, uint64_t bytes) {
  char name[FILE_BYTES];
  name_of(name, blob, ver, false);
  int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return CFN_EMPTY;
  if (fd < 0) return cfn_fail_os("cannot open an object on disk");
  struct stat st;
  int r = CFN_OK;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes) r = CFN_CORRUPT;
  char *at = out;
  for (uint64_t left = bytes; left && r == CFN_OK;) {
    ssize_t n = read(fd, at, left < MOST_AT_ONCE ? left : MOST_AT_ONCE);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) r = cfn_fail_os("cannot read an object from disk");
    if (n == 0) r = CFN_CORRUPT;
    if (n <= 0) break;
    at += n;
    left -= (uint64_t)n;
  }
  close(fd);
  return r;
}

bool cfn_spill_has(int dir, uint32_t blob, uint64_t ver, uint64_t bytes) {
  char name[FILE_BYTES];
  struct stat st;
  name_of(name, blob, ver, false);
  return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes;
}

static void drop(int dir, uint32_t blob, uint64_t ver, bool is_new) {
  char name[FILE_BYTES];
  name_of(name, blob, ver, is_new);
  unlinkat(dir, name, 0);
}
void cfn_spill_drop_new(int dir, uint32_t blob, uint64_t ver) { drop(dir, blob, ver, true); }
void cfn_spill_drop(int dir, uint32_t blob, uint64_t ver) { drop(dir, blob, ver, false); }

/* Is it a file of ours? */
static bool parse(const char *name, uint32_t *blob, uint64_t *ver, bool *is_new) {
  char again[FILE_BYTES];
  for (int new = 0; new < 2; new++)
    if (sscanf(name, "%" SCNu32 ".%" SCNu64, blob, ver) == 2) {
      *is_new = new;
      name_of(again, *blob, *ver, *is_new);
      if (strcmp(again, name) == 0) return true;
    }
  return false;
}

cfn_spill_count_t cfn_spill_sweep(int dir, cfn_spill_judge_t judge, void *context) {
  cfn_spill_count_t n = {0, 0, false};
  int why = 0;
  int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
  if (!list) {
    why = errno;
    if (fd >= 0) close(fd);
    errno = why;
    return n;
  }
  n.whole = true;
  for (const struct dirent *entry; errno = 0, (entry = readdir(list));) {
    uint32_t blob;
    uint64_t ver;
    bool is_new;
    if (!parse(entry->d_name, &blob, &ver, &is_new)) continue;
    if (!judge(context, blob, ver, is_new)) {
      n.kept++;
    } else if (unlinkat(dir, entry->d_name, 0) == 0) {
      n.removed++;
    } else if (errno != ENOENT) { /* else another sweep was faster */
      n.whole = false;
      why = errno;
    }
  }
  if (errno) {
    n.whole = false;
    why = errno;
  }
  closedir(list);
  errno = why;
  return n;
}

/* ---- the end ---- */

static bool all(void *context, uint32_t blob, uint64_t ver, bool is_new) {
  return (void)context, (void)blob, (void)ver, (void)is_new, true;
}

/* True: nothing of ours is left of it. */
static bool end_at(int base, const char *name, int dir) {
  char text[LINK_BYTES];
  ssize_t n = readlinkat(dir, "bus", text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  for (int tries = 0; tries < 8; tries++) { /* somebody may write a last file just now */
    if (!cfn_spill_sweep(dir, all, NULL).whole || (unlinkat(dir, "bus", 0) != 0 && errno != ENOENT)) return false;
    if (unlinkat(base, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
    if (errno != ENOTEMPTY && errno != EEXIST) return false;
  }
  /* Something is in it that is not ours: whoever cleans up later still knows whose it was. */
  int why = errno;
  if (text[0] && symlinkat(text, dir, "bus") != 0) errno = 0;
  errno = why;
  return false;
}

static int open_ours(int base, const char *name) {
  struct stat st;
  int dir = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) return dir;
  int why = fstat(dir, &st) != 0 ? errno : st.st_uid == geteuid() ? 0 : ENOENT; /* another user's: none of ours */
  if (why == 0) return dir;
  close(dir);
  errno = why;
  return -1;
}

bool cfn_spill_end(const char *path) {
  for (int tries = 0;; tries++) { /* what fails for a moment is tried once more */
    int dir = open_ours(AT_FDCWD, path);
    bool ended = dir < 0 ? errno == ENOENT || errno == ENOTDIR || errno == ELOOP : end_at(AT_FDCWD, path, dir);
    int why = errno;
    if (dir >= 0) close(dir);
    errno = why;
    if (ended || tries) return ended;
  }
}

/* Is the link's text of this machine, and of another boot of it? */
static bool of_another_boot(const char *text, const char *machine, const char *boot) {
  size_t m = strlen(machine), b = strlen(boot);
  return m == 32 && b && strncmp(text, machine, m) == 0 && text[m] == ' ' && strncmp(text + m + 1, boot, b) != 0 &&
         strlen(text) > m + 1 + b && text[m + 1 + b] == ' ';
}

void cfn_spill_end_of_other_boots(const char *path) {
  char folder[CFN_SPILL_BYTES], prefix[32], text[LINK_BYTES], machine[40], boot[40];
  const char *slash = strrchr(path, '/');
  if (!slash) return;
  snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
  snprintf(prefix, sizeof prefix, "cfnshm.%u.", (unsigned)geteuid());
  machine_id(machine);
  cfn_os_boot_id(boot);
  DIR *list = opendir(folder[0] ? folder : "/");
  if (!list) return;
  for (const struct dirent *entry; (entry = readdir(list));) {
    if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
    int dir = open_ours(dirfd(list), entry->d_name);
    if (dir < 0) continue;
    ssize_t n = readlinkat(dir, "bus", text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    if (of_another_boot(text, machine, boot)) end_at(dirfd(list), entry->d_name, dir);
    close(dir);
  }
  closedir(list);
}
