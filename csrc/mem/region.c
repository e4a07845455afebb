#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mem/region.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/os.h"
#include "mem/spill.h"

#define OPEN_TRIES 200
#ifndef SPARE_ATTACHMENTS /* handles beside two for each agent; few under cfnsim, where every run looks at all */
#define SPARE_ATTACHMENTS 256
#endif
#define MIB (UINT64_C(1) << 20)

/* ---- names and paths ---- */

static bool name_char(unsigned char c, bool first) {
  if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return true;
  return c == '_' || c == ':' || c == '@' || c == '-' || (c == '.' && !first);
}

int cfn_name_check(const char *name, size_t bytes, const char *what) {
  if (bytes == 0) return cfn_fail(CFN_BAD_NAME, 0, 0, "%s is empty", what);
  if (bytes >= CFN_NAME_BYTES)
    return cfn_fail(CFN_BAD_NAME, CFN_NAME_BYTES - 1, (int64_t)bytes,
                    "%s is %zu bytes long; at most %u are allowed", what, bytes,
                    CFN_NAME_BYTES - 1);
  for (size_t i = 0; i < bytes; i++)
    if (!name_char((unsigned char)name[i], i == 0)) {
      unsigned char c = (unsigned char)name[i];
      if (c > 32 && c < 127)
        return cfn_fail(CFN_BAD_NAME, 0, 0,
                        "%s has '%c' at position %zu; allowed are letters, digits, _ : @ - and, "
                        "not first, a dot",
                        what, c, i);
      return cfn_fail(CFN_BAD_NAME, 0, 0,
                      "%s has byte 0x%02x at position %zu; allowed are letters, digits, _ : @ - "
                      "and, not first, a dot",
                      what, c, i);
    }
  return CFN_OK;
}

static const char *base_dir(const char *dir) {
  if (dir && *dir) return dir;
  const char *env = getenv("CFNSHM_DIR");
  return env && *env ? env : "/dev/shm";
}

int cfn_region_path(const char *dir, const char *name, char out[CFN_PATH_BYTES]) {
  int r = cfn_name_check(name, strlen(name), "the bus name");
  if (r < 0) return r;
  int n = snprintf(out, CFN_PATH_BYTES, "%s/cfnshm.%u.%s", base_dir(dir), (unsigned)geteuid(), name);
  if (n < 0 || n >= CFN_PATH_BYTES - 32)
    return cfn_fail(CFN_INVALID, CFN_PATH_BYTES, n, "the bus directory %.200s... is too long a path",
                    base_dir(dir));
  return CFN_OK;
}

/* ---- planning a new bus ---- */

/* Share of the slab's bytes that a class gets, in percent. */
static const uint32_t class_share[CFN_CLASSES] = {12, 20, 20, 16, 16, 16};
static const uint32_t class_bytes[CFN_CLASSES] = {256, 1024, 4096, 16384, 65536, 1u << 20};

/* A third of what is left for payload goes to the heap; of what is more than 192 MiB, seven parts of eight: it is there
 * for large things. */
static void plan_payload(const cfn_wish_t *wish, uint64_t bytes, cfn_config_shm_t *c) {
  uint64_t heap = bytes / 3;
  if (bytes > 192 * MIB) heap = 64 * MIB + (bytes - 192 * MIB) / 8 * 7;
  uint64_t slab_bytes = bytes - heap;
  uint64_t pages = heap / (CFN_PAGE + 8);
  if (pages < 16) pages = 16;
  if (pages > 1u << 30) pages = 1u << 30;
  c->object_pages = wish->object_pages ? wish->object_pages : (uint32_t)pages;
  for (unsigned i = 0; i < CFN_CLASSES; i++) {
    uint64_t each = class_bytes[i] + (i ? CFN_CLASS_EXTRA : 0) + sizeof(cfn_chunk_shm_t);
    uint64_t n = slab_bytes / 100 * class_share[i] / each;
    if (n < 2) n = i < 3 ? 2 : 0; /* one chunk could never serve both work and replies */
    if (n > 1u << 20) n = 1u << 20;
    c->class_bytes[i] = class_bytes[i];
    c->class_chunks[i] = wish->class_wished >> i & 1 ? wish->class_chunks[i] : (uint32_t)n;
  }
}

static int no_room(uint64_t need, uint64_t have, const char *where) {
  return cfn_fail(CFN_NO_SPACE, (int64_t)have, (int64_t)need,
                  "the bus needs %.1f MiB in %s and %.1f MiB are free there; ask for fewer agents "
                  "or a smaller size, set CFNSHM_DIR to another tmpfs, or give the container more "
                  "shared memory (docker run --shm-size=%lluM)",
                  (double)need / (double)MIB, where, (double)have / (double)MIB,
                  (unsigned long long)(need / MIB * 5 / 4 + 1));
}

int cfn_region_plan(const cfn_wish_t *wish, uint64_t free_bytes, const char *where,
                    cfn_config_shm_t *c) {
  static const uint32_t roomy[CFN_LANES] = {64, 128, 1024, 128};
  static const uint32_t lean[CFN_LANES] = {16, 32, 256, 32};
  memset(c, 0, sizeof *c);
  c->agents = wish->agents ? wish->agents : 512;
  if (c->agents > CFN_MAX_AGENTS)
    return cfn_fail(CFN_INVALID, CFN_MAX_AGENTS, c->agents, "agents must be 1 to %u, not %u",
                    CFN_MAX_AGENTS, c->agents);
  uint32_t attachments = 2 * c->agents + SPARE_ATTACHMENTS;
  c->attachments = attachments < CFN_MAX_ATTACHMENTS ? attachments : CFN_MAX_ATTACHMENTS;
  for (unsigned i = 0; i < CFN_LANES; i++) {
    c->lane_slots[i] = c->agents <= 1024 && !(wish->size_bytes && wish->size_bytes < 32 * MIB)
                           ? roomy[i]
                           : lean[i];
    if (wish->lane_slots[i]) c->lane_slots[i] = wish->lane_slots[i];
  }
  uint32_t refs = 4 * c->agents;
  c->refs = wish->refs ? wish->refs : refs < 64 ? 64 : refs > 16384 ? 16384 : refs;
  c->objects = wish->objects ? wish->objects : 2 * c->refs;
  if (c->refs > CFN_MAX_REFS || c->objects > CFN_MAX_OBJECTS)
    return cfn_fail(CFN_INVALID, CFN_MAX_REFS, c->refs, "a bus has at most %u named values and %u objects, not %u and %u",
                    CFN_MAX_REFS, CFN_MAX_OBJECTS, c->refs, c->objects);
  c->directory_slots = 64;
  while (c->directory_slots < 2 * (c->agents + c->refs)) c->directory_slots *= 2;

  cfn_geometry_t g;
  plan_payload(wish, 0, c);
  int r = cfn_geometry_compute(c, &g);
  if (r < 0) return r;
  uint64_t bare = g.region_bytes; /* with the smallest slab and heap */
  uint64_t limit = free_bytes / 4 * 3; /* the rest stays for everyone else on the tmpfs */
  uint64_t target = wish->size_bytes;
  if (!target) {
    target = bare + 40 * MIB + (uint64_t)c->agents * 64 * 1024;
    if (target > 256 * MIB && bare < 192 * MIB) target = 256 * MIB;
    if (target > limit) target = limit;
    if (target < bare + MIB) return no_room(bare + MIB, limit, where);
  } else if (target < bare + MIB / 4) {
    return cfn_fail(CFN_NO_SPACE, (int64_t)target, (int64_t)(bare + MIB / 4),
                    "a bus for %u agents needs at least %.1f MiB, and %.1f MiB were asked for; ask "
                    "for fewer agents, shorter lanes or a larger size",
                    c->agents, (double)(bare + MIB / 4) / (double)MIB,
                    (double)target / (double)MIB);
  } else if (target > free_bytes) {
    return no_room(target, free_bytes, where);
  }
  plan_payload(wish, target - bare, c);
  r = cfn_geometry_compute(c, &g);
  if (r < 0) return r;
  if (g.region_bytes > free_bytes) return no_room(g.region_bytes, free_bytes, where);
  c->wished_kib = wish->size_bytes ? (uint32_t)((wish->size_bytes - 1) / 1024 + 1) : 0;
  return CFN_OK;
}

/* ---- the directory ---- */

static int open_dir(const char *path, bool create) {
  if (create && mkdir(path, 0700) != 0 && errno != EEXIST)
    return cfn_fail_os("cannot make the bus directory %s", path);
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return cfn_fail(CFN_NO_BUS, 0, 0, "there is no bus at %s; the first register, or Bus(name), makes it (are CFNSHM_BUS and "
                    "CFNSHM_DIR right?)", path);
    if (errno == ELOOP || errno == ENOTDIR)
      return cfn_fail(CFN_PERMISSION, 0, 0,
                      "%s is not a directory of ours (a symbolic link or a file stands there); "
                      "remove it or choose another bus name",
                      path);
    return cfn_fail_os("cannot open the bus directory %s", path);
  }
  struct stat st;
  if (fstat(fd, &st) != 0) {
    int r = cfn_fail_os("cannot look at %s", path);
    close(fd);
    return r;
  }
  if (st.st_uid != geteuid() || (st.st_mode & 077)) {
    close(fd);
    return cfn_fail(CFN_PERMISSION, st.st_uid, geteuid(),
                    "%s belongs to uid %u with mode %03o; a bus directory must be yours and 0700",
                    path, (unsigned)st.st_uid, (unsigned)(st.st_mode & 0777));
  }
  return fd;
}

/* 1 the bus in it has ended, 0 not, < 0 that cannot be told: nothing may be removed for that. */
static int dir_marked(int dir_fd, const char *path) {
  struct stat st;
  if (fstat(dir_fd, &st) != 0) return cfn_fail_os("cannot look at %s", path);
  return st.st_nlink == 0 || (st.st_mode & S_ISVTX);
}

/* What its objects have on disk goes first: when the region is gone nobody knows where that is. False: that could not be
 * done just now (errno). */
static bool end_spill(int dir_fd, char path[CFN_SPILL_BYTES]) {
  cfn_super_shm_t s;
  path[0] = 0;
  int fd = openat(dir_fd, "region", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno != ENOENT && errno != ELOOP) fd = openat(dir_fd, "region", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT || errno == ELOOP;
  ssize_t n = pread(fd, &s, sizeof s, 0);
  bool ended = n >= 0;
  if (n == (ssize_t)sizeof s && s.magic == CFN_MAGIC && s.abi == CFN_ABI &&
      s.crc == cfn_crc32c(&s, offsetof(cfn_super_shm_t, crc)) && cfn_spill_is_path(s.spill, s.name, s.nonce))
    ended = cfn_spill_end(memcpy(path, s.spill, CFN_SPILL_BYTES));
  int why = errno;
  close(fd);
  errno = why;
  return ended;
}

/* Empties a marked directory and removes the path. Safe to run late, twice and by many: see the
 * essay in region.h. */
static int dir_clean(int dir_fd, const char *path) {
  char spill[CFN_SPILL_BYTES];
  bool all = end_spill(dir_fd, spill);
  int why = errno;
  int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
  if (dir) {
    struct dirent *entry;
    while ((entry = readdir(dir)))
      if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
        unlinkat(dir_fd, entry->d_name, 0);
    closedir(dir);
  } else if (fd >= 0) {
    close(fd);
  }
  rmdir(path);
  errno = why;
  return all ? CFN_OK : cfn_fail_os("the bus at %s is ended, but what it had on disk %s%s could not be removed (cfnshm buses "
                                    "--prune tries again)", path, spill[0] ? "in " : "", spill);
}

/* Whoever has the region mapped finds it ended: also one that cannot be attached any more, as long as its header says
 * that the state stands where we know it. */
static void tell_the_attached(int dir_fd) {
  int fd = openat(dir_fd, "region", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  struct stat st;
  uint32_t abi = 0;
  uint64_t ended = CFN_BUS_RETIRED;
  if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)(2 * CFN_PAGE) &&
      pread(fd, &abi, sizeof abi, offsetof(cfn_super_shm_t, abi)) == sizeof abi && abi == CFN_ABI &&
      pwrite(fd, &ended, sizeof ended, CFN_PAGE + offsetof(cfn_state_shm_t, state)) < 0)
    errno = 0; /* they will not know; the bus ends all the same */
  if (fd >= 0) close(fd);
}

static int dir_retire(int dir_fd, const char *path) {
  if (fchmod(dir_fd, 0700 | S_ISVTX) != 0) return cfn_fail_os("cannot mark %s as ended", path);
  return dir_clean(dir_fd, path);
}

int cfn_region_end_dir(int dir_fd, const char *path) {
  tell_the_attached(dir_fd);
  return dir_retire(dir_fd, path);
}

/* ---- create ---- */

static int temporary_file(int dir_fd, char link_name[64]) {
  link_name[0] = 0;
  int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || errno != EOPNOTSUPP) return fd;
  /* A file system without nameless files: a random name, removed after the link. */
  snprintf(link_name, 64, "new.%016llx", (unsigned long long)cfn_os_random());
  return openat(dir_fd, link_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void fill_super(cfn_super_shm_t *s, const cfn_geometry_t *g, const char *name, uint64_t nonce, const char *spill) {
  memset(s, 0, sizeof *s);
  s->magic = CFN_MAGIC;
  s->abi = CFN_ABI;
  s->endian = CFN_ENDIAN_TAG;
  s->header_bytes = sizeof *s;
  s->page_bytes = CFN_PAGE;
  s->region_bytes = g->region_bytes;
  s->layout_hash = g->layout_hash;
  s->nonce = nonce;
  s->created_wall_ns = cfn_os_wall_ns();
  s->creator_pid = (uint64_t)getpid();
  s->creator_uid = geteuid();
  cfn_os_boot_id(s->boot_id);
  snprintf(s->name, sizeof s->name, "%s", name);
  s->config = g->config;
  memcpy(s->spill, spill, sizeof s->spill);
  s->crc = cfn_crc32c(s, offsetof(cfn_super_shm_t, crc));
}

static void fill_region(uint8_t *base, const cfn_geometry_t *g, const char *name, uint64_t nonce, const char *spill) {
  cfn_region_t view = {.base = base, .geo = *g};
  cfn_a64 *hints = cfn_hints(&view);
  for (unsigned c = 0; c < CFN_CLASSES; c++)
    for (uint32_t i = 0; i < g->config.class_chunks[c]; i++)
      cfn_or_relaxed(&hints[g->class_hint[c] + i / 64], UINT64_C(1) << (i % 64));
  fill_super((cfn_super_shm_t *)(void *)base, g, name, nonce, spill);
}

/* Fills the nameless file. 0 or an error. */
static int fill_file(int fd, const cfn_config_shm_t *config, const char *name, const char *path, const char *spill_base) {
  cfn_geometry_t g;
  int r = cfn_geometry_compute(config, &g);
  if (r < 0) return r;
  char spill[CFN_SPILL_BYTES];
  uint64_t nonce = cfn_os_random() | 1;
  r = cfn_spill_path(spill_base, name, nonce, spill);
  if (r < 0) return r;
  do {
    r = posix_fallocate(fd, 0, (off_t)g.region_bytes);
  } while (r == EINTR);
  if (r == ENOSPC) {
    struct statvfs vfs;
    uint64_t have = fstatvfs(fd, &vfs) == 0 ? (uint64_t)vfs.f_bavail * vfs.f_frsize : 0;
    return no_room(g.region_bytes, have, path);
  }
  if (r != 0) {
    errno = r;
    return cfn_fail_os("cannot reserve %.1f MiB for the bus in %s",
                       (double)g.region_bytes / (double)MIB, path);
  }
  uint8_t *base = mmap(NULL, g.region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return cfn_fail_os("cannot map the new bus in %s", path);
  fill_region(base, &g, name, nonce, spill);
  munmap(base, g.region_bytes);
  if (spill[0]) cfn_spill_end_of_other_boots(spill);
  return CFN_OK;
}

/* 1 linked, 0 someone else was first or the directory went away, < 0 an error. */
static int create_region(int dir_fd, const char *path, const char *name, const cfn_wish_t *wish) {
  struct statvfs vfs;
  if (fstatvfs(dir_fd, &vfs) != 0) return cfn_fail_os("cannot ask for the free space at %s", path);
  cfn_config_shm_t config;
  uint64_t free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
  int r = cfn_region_plan(wish, free_bytes, path, &config);
  if (r < 0) return r;
  char link_name[64], proc_name[64];
  int fd = temporary_file(dir_fd, link_name);
  if (fd < 0) return errno == ENOENT ? 0 : cfn_fail_os("cannot make the region file in %s", path);
  /* dies here: a nameless file goes with its last descriptor */
  r = fill_file(fd, &config, name, path, wish->spill);
  if (r == CFN_OK) {
    int linked;
    if (link_name[0]) {
      linked = linkat(dir_fd, link_name, dir_fd, "region", 0);
    } else {
      snprintf(proc_name, sizeof proc_name, "/proc/self/fd/%d", fd);
      linked = linkat(AT_FDCWD, proc_name, dir_fd, "region", AT_SYMLINK_FOLLOW);
    }
    r = linked == 0 ? 1
        : errno == EEXIST || errno == ENOENT ? 0 : cfn_fail_os("cannot name the bus in %s", path);
  }
  if (link_name[0]) unlinkat(dir_fd, link_name, 0);
  close(fd);
  /* The directory was marked as ended while we worked: nobody attaches here, clean and start anew. */
  int marked = r == 1 ? dir_marked(dir_fd, path) : 0;
  if (marked < 0) return marked;
  if (marked) {
    dir_clean(dir_fd, path); /* what is left on disk of an ended bus is no reason not to make one */
    r = 0;
  }
  return r;
}

/* ---- attach ---- */

static int check_super(const cfn_super_shm_t *s, const struct stat *st, const char *path,
                       cfn_geometry_t *g) {
  if (s->magic != CFN_MAGIC)
    return cfn_fail(CFN_CORRUPT, 0, 0, "%s/region is not a cfnshm bus (bad magic number); cfnshm doctor says who has it open, and removes it",
                    path);
  if (s->abi != CFN_ABI || s->endian != CFN_ENDIAN_TAG)
    return cfn_fail(CFN_VERSION_MISMATCH, s->abi, CFN_ABI,
                    "the bus at %s has layout version %u%s and this is version %u; end its agents "
                    "and destroy it, or use the version that made it",
                    path, s->abi, s->endian == CFN_ENDIAN_TAG ? "" : " (other byte order)",
                    CFN_ABI);
  if (s->crc != cfn_crc32c(s, offsetof(cfn_super_shm_t, crc)))
    return cfn_fail(CFN_CORRUPT, 0, 0, "the header of the bus at %s is damaged (checksum); cfnshm doctor says who has it open, and removes it",
                    path);
  if (s->header_bytes != sizeof *s || s->page_bytes != CFN_PAGE)
    return cfn_fail(CFN_CORRUPT, 0, 0, "the header of the bus at %s has impossible sizes", path);
  int r = cfn_geometry_compute(&s->config, g);
  if (r < 0) return cfn_fail(CFN_CORRUPT, 0, 0, "the bus at %s has an impossible configuration", path);
  if (g->layout_hash != s->layout_hash)
    return cfn_fail(CFN_VERSION_MISMATCH, 0, 0,
                    "the bus at %s lays its records out differently from this version", path);
  if (g->region_bytes != s->region_bytes || (uint64_t)st->st_size != g->region_bytes)
    return cfn_fail(CFN_CORRUPT, (int64_t)st->st_size, (int64_t)g->region_bytes,
                    "the bus at %s has %lld bytes and should have %llu; cfnshm doctor says who has it open, and removes "
                    "it", path,
                    (long long)st->st_size, (unsigned long long)g->region_bytes);
  return CFN_OK;
}

static int check_wish(const cfn_wish_t *w, const cfn_geometry_t *g, const char *name) {
  if (w->agents > g->config.agents)
    return cfn_fail(CFN_OVER_CAPACITY, g->config.agents, w->agents,
                    "bus '%s' was created for %u agents and %u were asked for; destroy it and "
                    "create it larger, or use another name",
                    name, g->config.agents, w->agents);
  if (w->size_bytes > g->region_bytes && (w->size_bytes - 1) / 1024 + 1 > g->config.wished_kib)
    return cfn_fail(CFN_OVER_CAPACITY, (int64_t)g->region_bytes, (int64_t)w->size_bytes,
                    "bus '%s' has %.1f MiB and %.1f MiB were asked for; destroy it and create it "
                    "larger, or use another name",
                    name, (double)g->region_bytes / (double)MIB,
                    (double)w->size_bytes / (double)MIB);
  for (unsigned i = 0; i < CFN_LANES; i++)
    if (w->lane_slots[i] > g->config.lane_slots[i])
      return cfn_fail(CFN_OVER_CAPACITY, g->config.lane_slots[i], w->lane_slots[i],
                      "bus '%s' has lanes of %u messages and %u were asked for", name,
                      g->config.lane_slots[i], w->lane_slots[i]);
  for (unsigned i = 0; i < CFN_CLASSES; i++)
    if (w->class_wished >> i & 1 && w->class_chunks[i] > g->config.class_chunks[i])
      return cfn_fail(CFN_OVER_CAPACITY, g->config.class_chunks[i], w->class_chunks[i],
                      "bus '%s' has %u chunks of %u bytes and %u were asked for", name,
                      g->config.class_chunks[i], g->config.class_bytes[i], w->class_chunks[i]);
  return CFN_OK;
}

/* The process's table of mapped regions. A forked child finds it as it was, its lock perhaps held
 * by a thread that does not exist here: the stamp tells, and the lock is made anew. */
static cfn_region_t *table;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static cfn_a64 table_stamp; /* of the process the locks are good for; ~stamp = it makes them anew */

static void table_enter(void) {
  uint64_t stamp = cfn_os_fork_stamp();
  for (;;) {
    uint64_t was = cfn_load_acquire(&table_stamp);
    if (was == stamp) break;
    if (was == ~stamp || !cfn_cas_seq(&table_stamp, was, ~stamp)) continue; /* another thread does it */
    if (was != 0) {
      pthread_mutex_init(&table_lock, NULL);
      for (cfn_region_t *r = table; r; r = r->next) pthread_mutex_init(&r->live_lock, NULL);
    }
    cfn_store_release(&table_stamp, stamp);
  }
  pthread_mutex_lock(&table_lock);
}

static bool dir_is(const cfn_region_t *r, int fd) {
  struct stat st;
  return fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == r->dir_dev && st.st_ino == r->dir_ino;
}

int cfn_region_dir(const cfn_region_t *region) {
  if (dir_is(region, region->dir_fd)) return region->dir_fd;
  cfn_region_t *r = (cfn_region_t *)(uintptr_t)region;
  table_enter();
  int why = 0;
  if (!dir_is(r, r->dir_fd)) { /* closed under us; the number may be another's now: leave it alone */
    int fd = open(r->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    why = errno;
    if (fd >= 0 && !dir_is(r, fd)) { /* a later bus of this name */
      close(fd);
      fd = -1;
      why = ENOENT;
    }
    r->dir_fd = fd;
  }
  int fd = r->dir_fd;
  pthread_mutex_unlock(&table_lock);
  if (fd < 0) errno = why;
  return fd;
}

bool cfn_region_table_close(uint64_t dir_dev, uint64_t dir_ino) {
  table_enter();
  const cfn_region_t *r = table;
  while (r && !(r->references && r->dir_dev == dir_dev && r->dir_ino == dir_ino)) r = r->next;
  if (r) pthread_mutex_unlock(&table_lock);
  return !r;
}
void cfn_region_table_open(void) { pthread_mutex_unlock(&table_lock); }

static int map_region(int fd, int dir_fd, const struct stat *st, const cfn_super_shm_t *super,
                      const cfn_geometry_t *g, const char *path, cfn_region_t **out) {
  struct stat dir;
  if (fstat(dir_fd, &dir) != 0) return cfn_fail_os("cannot look at %s", path);
  table_enter();
  cfn_region_t *r = table;
  while (r && !(r->dev == st->st_dev && r->ino == st->st_ino && r->super.nonce == super->nonce && !cfn_region_lost(r)))
    r = r->next;
  if (!r) {
    r = calloc(1, sizeof *r);
    uint8_t *base = r ? mmap(NULL, g->region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                      : MAP_FAILED;
    if (base == MAP_FAILED) {
      int failed = cfn_fail_os("cannot map the bus at %s", path);
      free(r);
      pthread_mutex_unlock(&table_lock);
      return failed;
    }
    r->base = base;
    r->lost = cfn_guard_begin(base, g->region_bytes);
    r->geo = *g;
    r->super = *super;
    r->dev = st->st_dev;
    r->ino = st->st_ino;
    r->dir_fd = -1;
    snprintf(r->name, sizeof r->name, "%s", super->name);
    snprintf(r->path, sizeof r->path, "%s", path);
    pthread_mutex_init(&r->live_lock, NULL);
    for (unsigned i = 0; i < CFN_LIVE_FILES; i++) r->live_fd[i] = -1;
    r->next = table;
    table = r;
  }
  if (r->dir_fd < 0 || !dir_is(r, r->dir_fd)) { /* or closed under us: the number is not ours to close */
    r->dir_dev = dir.st_dev;
    r->dir_ino = dir.st_ino;
    r->dir_fd = dir_fd;
    dir_fd = -1;
  }
  r->references++;
  pthread_mutex_unlock(&table_lock);
  if (dir_fd >= 0) close(dir_fd);
  *out = r;
  return CFN_OK;
}

void cfn_region_close(cfn_region_t *region) {
  table_enter();
  if (--region->references == 0) {
    if (dir_is(region, region->dir_fd)) close(region->dir_fd);
    region->dir_fd = -1;
    if (!region->keep_mapped) {
      for (cfn_region_t **p = &table; *p; p = &(*p)->next)
        if (*p == region) {
          *p = region->next;
          break;
        }
      cfn_guard_end(region->base);
      munmap(region->base, region->geo.region_bytes);
      for (unsigned i = 0; i < CFN_LIVE_FILES; i++)
        if (region->live_fd[i] >= 0) close(region->live_fd[i]);
      pthread_mutex_destroy(&region->live_lock);
      free(region);
    }
  }
  pthread_mutex_unlock(&table_lock);
}

/* 1 mapped; 0 look again (the bus went away or was retired); < 0 an error. */
static int attach_region(int *dir_fd, const char *path, const cfn_wish_t *wish, bool fresh,
                         cfn_region_t **out) {
  int fd = openat(*dir_fd, "region", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return 0;
    return cfn_fail_os("cannot open the bus at %s", path);
  }
  struct stat st;
  cfn_super_shm_t super;
  cfn_geometry_t g;
  int r;
  if (fstat(fd, &st) != 0) {
    r = cfn_fail_os("cannot look at %s/region", path);
  } else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077)) {
    r = cfn_fail(CFN_PERMISSION, st.st_uid, geteuid(),
                 "%s/region belongs to uid %u with mode %03o; it must be a file of yours, 0600",
                 path, (unsigned)st.st_uid, (unsigned)(st.st_mode & 0777));
  } else {
    ssize_t n = pread(fd, &super, sizeof super, 0);
    r = n < 0 ? cfn_fail_os("cannot read the header of the bus at %s", path)
        : n != (ssize_t)sizeof super
            ? cfn_fail(CFN_CORRUPT, n, sizeof super, "the bus at %s is cut short: %zd bytes; cfnshm doctor says who has it open, and "
                       "removes it", path, n)
            : check_super(&super, &st, path, &g);
  }
  super.name[CFN_NAME_BYTES - 1] = 0;
  if (r == CFN_OK && super.spill[0] && !cfn_spill_is_path(super.spill, super.name, super.nonce))
    r = cfn_fail(CFN_CORRUPT, 0, 0, "the header of the bus at %s has an impossible place for objects on disk", path);
  if (r == CFN_OK && !fresh) r = check_wish(wish, &g, super.name);
  if (r == CFN_OK) {
    r = map_region(fd, *dir_fd, &st, &super, &g, path, out);
    if (r == CFN_OK) {
      *dir_fd = -1; /* map_region took it */
      r = 1;
    }
  }
  close(fd);
  return r;
}

/* A region of an earlier boot (the directory is on a disk): nobody of then can be alive. */
static bool of_another_boot(const cfn_region_t *r) {
  char now[40];
  cfn_os_boot_id(now);
  return now[0] && r->super.boot_id[0] && memcmp(now, r->super.boot_id, sizeof now) != 0;
}

int cfn_region_open(const char *dir, const char *name, const cfn_wish_t *wish, int flags,
                    cfn_region_t **out, bool *created) {
  char path[CFN_PATH_BYTES];
  int r = cfn_region_path(dir, name, path);
  if (r < 0) return r;
  *created = false;
  bool create = flags & CFN_OPEN_CREATE;
  for (int attempt = 0; attempt < OPEN_TRIES; attempt++) {
    int dir_fd = open_dir(path, create);
    if (dir_fd == CFN_NO_BUS && create) continue; /* removed between mkdir and open */
    if (dir_fd < 0) return dir_fd;
    int marked = dir_marked(dir_fd, path);
    if (marked) {
      if (marked > 0) dir_clean(dir_fd, path);
      close(dir_fd);
      if (marked < 0) return marked;
      continue;
    }
    r = attach_region(&dir_fd, path, wish, *created, out);
    if (r == 1) {
      cfn_region_t *region = *out;
      bool stale = of_another_boot(region);
      marked = dir_marked(cfn_region_dir(region), path); /* never by the bare number: it may be another's by now */
      if (marked < 0) {
        cfn_region_close(region);
        *out = NULL;
        return marked;
      }
      if (!stale && !marked && !cfn_region_retired(region)) return CFN_OK;
      if (stale) cfn_cas_seq(&cfn_state(region)->state, CFN_BUS_OK, CFN_BUS_RETIRED);
      /* Somebody ended it and may have died or stopped in the middle: finish, start anew. */
      int own = openat(cfn_region_dir(region), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      cfn_region_close(region);
      *out = NULL;
      if (own >= 0) {
        dir_retire(own, path);
        close(own);
      }
      *created = false;
      continue;
    }
    if (r == 0 && create) {
      r = create_region(dir_fd, path, name, wish);
      if (r == 1) *created = true;
    } else if (r == 0) {
      r = cfn_fail(CFN_NO_BUS, 0, 0, "there is no bus in %s: its file was removed, and those who have it open go on with "
                   "each other, or it is being made just now; cfnshm doctor says which", path);
    }
    if (dir_fd >= 0) close(dir_fd);
    if (r < 0) {
      if (create) rmdir(path); /* ours or an empty one; anything else stays */
      return r;
    }
  }
  return cfn_fail(CFN_AGAIN, 0, OPEN_TRIES, "the bus at %s is being created and destroyed all the "
                  "time: gave up after %d tries", path, OPEN_TRIES);
}

/* ---- the place on disk ---- */

/* The first that makes it says which one it is, once for all; to everybody another one under that path is none. */
int cfn_spill_of_bus(const cfn_region_t *r, bool make) {
  cfn_a64 *word = &cfn_state(r)->spill_id;
  uint64_t known = cfn_load_seq(word), id = 0;
  bool may_make = make && known == 0 && !cfn_region_retired(r);
  int dir = cfn_spill_open(r->super.spill, may_make ? r->path : NULL, &id);
  if (dir < 0 && (dir != CFN_EMPTY || known == 0)) return dir;
  if (dir >= 0 && known == 0 && may_make) {
    cfn_cas_seq(word, 0, id); /* or another was the first */
    known = cfn_load_seq(word);
  }
  if (dir >= 0 && id == known) return dir;
  if (dir >= 0) close(dir);
  return cfn_fail(CFN_OS, 0, 0, "the place of its objects on disk cannot be reached from this process: it is of another mount namespace, or "
                  "was removed by hand: %s", r->super.spill);
}

/* ---- destroy ---- */

int cfn_region_destroy(cfn_region_t *region) {
  cfn_cas_seq(&cfn_state(region)->state, CFN_BUS_OK, CFN_BUS_RETIRED);
  if (region->super.spill[0]) cfn_spill_end(region->super.spill); /* also where the mapped header was damaged meanwhile */
  return dir_retire(cfn_region_dir(region), region->path);
}

int cfn_region_open_dir(const char *dir, const char *name, char path[CFN_PATH_BYTES]) {
  int r = cfn_region_path(dir, name, path);
  return r < 0 ? r : open_dir(path, false);
}

int cfn_region_destroy_path(const char *dir, const char *name) {
  char path[CFN_PATH_BYTES];
  int dir_fd = cfn_region_open_dir(dir, name, path);
  if (dir_fd < 0) return dir_fd;
  int r = cfn_region_end_dir(dir_fd, path);
  close(dir_fd);
  return r;
}
