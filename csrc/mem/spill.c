#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mem/spill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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
#define LINK_BYTES (CFN_SPILL_BYTES + 256)
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

static int not_usable(const char *path, const char *why) {
  return cfn_fail(CFN_PERMISSION, 0, 0, "%s, where objects go that do not fit into memory, %s", path, why);
}

static int open_at(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return CFN_EMPTY;
  if (fd < 0) return cfn_fail_os("cannot open %s, where objects go that do not fit into memory", path);
  struct stat st;
  struct statfs fs;
  int r = fd;
  if (fstat(fd, &st) != 0 || fstatfs(fd, &fs) != 0) r = cfn_fail_os("cannot look at %s", path);
  else if (st.st_uid != geteuid() || (st.st_mode & 077)) r = not_usable(path, "is not yours alone (0700)");
  else if (fs.f_type == TMPFS_MAGIC && strncmp(path, "/var/tmp/", 9) == 0)
    r = not_usable(path, "is memory itself (a tmpfs): set CFNSHM_SPILL to a directory on a disk");
  if (r < 0) close(fd);
  return r;
}

int cfn_spill_open(const char *path, const char *bus_path) {
  for (int tries = 0; tries < 8; tries++) {
    int fd = open_at(path);
    char text[LINK_BYTES], boot[40];
    if (fd != CFN_EMPTY) {
      /* One without its link is being made, or being removed: who finds it empty may remove it. */
      if (fd < 0 || !bus_path || readlinkat(fd, "bus", text, sizeof text) > 0) return fd;
    } else {
      if (!bus_path) return fd;
      if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return cfn_fail_os("cannot make %s, where objects go that do not fit into memory", path);
      fd = open_at(path);
      if (fd == CFN_EMPTY) continue;
      if (fd < 0) {
        rmdir(path);
        return fd;
      }
    }
    cfn_os_boot_id(boot);
    snprintf(text, sizeof text, "%.39s %s", boot, bus_path);
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
  int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return CFN_EMPTY;
  if (fd < 0) return cfn_fail_os("cannot open an object on disk");
  struct stat st;
  int r = CFN_OK;
  if (fstat(fd, &st) != 0 || (uint64_t)st.st_size != bytes) r = CFN_CORRUPT;
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

bool cfn_spill_end(const char *path) {
  int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) return errno == ENOENT || errno == ENOTDIR || errno == ELOOP; /* not there, or none of ours */
  bool whole = cfn_spill_sweep(dir, all, NULL).whole && (unlinkat(dir, "bus", 0) == 0 || errno == ENOENT) &&
               (rmdir(path) == 0 || errno == ENOENT || errno == ENOTEMPTY || errno == EEXIST); /* not empty: not ours alone */
  int why = errno;
  close(dir);
  errno = why;
  return whole;
}

void cfn_spill_end_of_other_boots(const char *path) {
  char base[CFN_SPILL_BYTES], prefix[32], other[2 * CFN_SPILL_BYTES], text[LINK_BYTES], boot[40];
  const char *slash = strrchr(path, '/');
  if (!slash) return;
  snprintf(base, sizeof base, "%.*s", (int)(slash - path), path);
  snprintf(prefix, sizeof prefix, "cfnshm.%u.", (unsigned)geteuid());
  cfn_os_boot_id(boot);
  size_t boot_bytes = strlen(boot);
  DIR *list = opendir(base[0] ? base : "/");
  if (!list) return;
  for (const struct dirent *entry; boot_bytes && (entry = readdir(list));) {
    if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
    snprintf(other, sizeof other, "%s/%s/bus", base, entry->d_name);
    ssize_t n = readlink(other, text, sizeof text - 1);
    if (n <= (ssize_t)boot_bytes || text[boot_bytes] != ' ' || strncmp(text, boot, boot_bytes) == 0) continue;
    other[strlen(other) - strlen("/bus")] = 0;
    cfn_spill_end(other);
  }
  closedir(list);
}
