#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define PIDFS 0x50494446 /* magic number of the file system of pidfds (PID_FS_MAGIC) */

static uint64_t clock_ns(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
uint64_t cfn_os_monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
uint64_t cfn_os_coarse_ns(void) { return clock_ns(CLOCK_MONOTONIC_COARSE); }
uint64_t cfn_os_wall_ns(void) { return clock_ns(CLOCK_REALTIME); }

int cfn_os_futex_wait(cfn_a32 *word, uint32_t expected, uint64_t timeout_ns) {
  struct timespec t = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};
  /* Never FUTEX_PRIVATE_FLAG: the sleepers are in other processes. */
  if (syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, NULL, 0) == 0) return 0;
  return -errno;
}

int cfn_os_futex_wake(cfn_a32 *word, int most) {
  long woken = syscall(SYS_futex, word, FUTEX_WAKE, most, NULL, NULL, 0);
  return woken < 0 ? 0 : (int)woken;
}

void cfn_os_yield(void) { sched_yield(); }

uint64_t cfn_os_random(void) {
  uint64_t value = 0;
  while (getrandom(&value, sizeof value, 0) != (ssize_t)sizeof value) {
  }
  return value;
}

/* ---- identity ---- */

static uint64_t namespace_inode(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static uint64_t start_time_of(const char *stat_path, char *state) {
  char text[1024];
  int fd = open(stat_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  char *p = strrchr(text, ')'); /* the command name may hold spaces and parentheses */
  if (!p) return 0;
  p += 2;
  if (state) *state = *p;
  for (int field = 3; field < 22 && p; field++) {
    p = strchr(p, ' ');
    if (p) p++;
  }
  return p ? strtoull(p, NULL, 10) : 0;
}

static int pidfd_of(uint64_t pid) { return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0); }

/* Before Linux 6.9 all pidfds share one anonymous inode, which identifies nobody. (Their link text is no
 * help: it is the old one also where they have inodes of their own.) */
static uint64_t pidfd_inode(int fd) {
  struct statfs fs;
  struct stat st;
  return fstatfs(fd, &fs) == 0 && fs.f_type == PIDFS && fstat(fd, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

void cfn_os_identity(cfn_identity_t *out) {
  /* Per thread: a lock here could be inherited locked by a forked child. */
  static _Thread_local struct {
    uint64_t stamp;
    cfn_identity_t identity;
  } own;
  uint64_t stamp = cfn_os_fork_stamp();
  if (own.stamp != stamp) {
    own.identity.pid = (uint64_t)getpid();
    own.identity.pid_ns = namespace_inode("/proc/self/ns/pid");
    own.identity.time_ns = namespace_inode("/proc/self/ns/time");
    own.identity.start_time = start_time_of("/proc/self/stat", NULL);
    int fd = pidfd_of(own.identity.pid);
    own.identity.pidfs_ino = fd >= 0 ? pidfd_inode(fd) : 0;
    if (fd >= 0) close(fd);
    own.stamp = stamp;
  }
  *out = own.identity;
}

/* Can a failed call have meant that there is no such process? */
static bool gone(int error) { return error == ENOENT || error == ESRCH; }

/* Does a maps file name this inode? Or why it cannot be read: -errno. */
static int maps_name(const char *path, uint64_t dev, uint64_t ino) {
  char line[512];
  errno = 0;
  FILE *f = fopen(path, "re");
  bool found = false;
  while (f && !found && fgets(line, sizeof line, f)) {
    unsigned major_no, minor_no;
    unsigned long long inode;
    if (sscanf(line, "%*s %*s %*s %x:%x %llu", &major_no, &minor_no, &inode) == 3)
      found = inode == ino && makedev(major_no, minor_no) == (dev_t)dev;
  }
  bool unread = f ? ferror(f) : true;
  int why = errno;
  if (f) fclose(f);
  return found ? 1 : unread && !gone(why) ? -(why ? why : EIO) : 0;
}

static int maps_contain(uint64_t pid, uint64_t dev, uint64_t ino) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%llu/maps", (unsigned long long)pid);
  int found = maps_name(path, dev, ino);
  if (found) return found;
  /* A first thread that has ended shows no memory while the others go on in it. */
  snprintf(path, sizeof path, "/proc/%llu/task", (unsigned long long)pid);
  DIR *tasks = opendir(path);
  if (!tasks) return gone(errno) ? 0 : -errno;
  for (struct dirent *entry; !found && (entry = readdir(tasks));) {
    char task[sizeof path + sizeof entry->d_name + 8];
    snprintf(task, sizeof task, "%s/%s/maps", path, entry->d_name);
    if (entry->d_name[0] != '.') found = maps_name(task, dev, ino);
  }
  closedir(tasks);
  return found;
}

/* Is the process behind this descriptor, or behind this pid where there is none (-1), the one that was written down?
 * 1, 0, or -1: it cannot be told. */
static int same_process(const cfn_identity_t *who, const cfn_identity_t *me, int fd) {
  struct pollfd p = {fd, POLLIN, 0};
  int ended = fd < 0 ? 0 : poll(&p, 1, 0); /* readable = every thread has exited (also a zombie) */
  if (ended != 0) return ended > 0 ? 0 : -1;
  uint64_t inode = fd < 0 ? 0 : pidfd_inode(fd);
  if (who->pidfs_ino && inode) return inode == who->pidfs_ino;
  if (who->time_ns != me->time_ns || !who->start_time) return 1; /* not comparable: the maps decide */
  char path[64];
  snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)who->pid);
  errno = 0;
  uint64_t start = start_time_of(path, NULL);
  if (!start) return gone(errno) ? 0 : -1;
  return start == who->start_time;
}

int cfn_os_process_maps(const cfn_identity_t *who, uint64_t dev, uint64_t ino) {
  cfn_identity_t me;
  cfn_os_identity(&me);
  if (who->pid == 0 || who->pid_ns != me.pid_ns) return 0;
  int fd = pidfd_of(who->pid);
  /* EINVAL: a thread of another process has the number by now. Where the call is forbidden or unknown, /proc answers. */
  if (fd < 0 && (errno == ESRCH || errno == EINVAL)) return 0;
  if (fd < 0 && errno != ENOSYS && errno != EPERM && errno != EACCES) return -1;
  int result = same_process(who, &me, fd);
  /* exec keeps pid and start time but drops the mapping: such a process is gone for us */
  if (result == 1) result = maps_contain(who->pid, dev, ino);
  if (result < 0) result = -1;
  if (fd >= 0) close(fd);
  return result;
}

char cfn_os_process_state(const cfn_identity_t *who) {
  cfn_identity_t me;
  char path[64], state = 0;
  cfn_os_identity(&me);
  if (who->pid == 0 || who->pid_ns != me.pid_ns || who->time_ns != me.time_ns) return 0;
  snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)who->pid);
  uint64_t start = start_time_of(path, &state);
  return start && start == who->start_time ? state : 0;
}

int cfn_os_mapped_by(uint64_t dev, uint64_t ino, uint64_t *pid) {
  DIR *all = opendir("/proc");
  if (!all) return -errno;
  int found = 0;
  for (struct dirent *entry; !found && (entry = readdir(all));) {
    struct stat st;
    uint64_t p = strtoull(entry->d_name, NULL, 10);
    /* other users cannot have it: the file is 0600 */
    if (p == 0 || p == (uint64_t)getpid() || fstatat(dirfd(all), entry->d_name, &st, 0) != 0 || st.st_uid != geteuid())
      continue;
    found = maps_contain(p, dev, ino);
    if (found == -EACCES || found == -EPERM) found = 0; /* those that may not be read had their say by their life byte */
    if (found > 0) *pid = p;
  }
  closedir(all);
  return found;
}

void cfn_os_boot_id(char out[40]) {
  memset(out, 0, 40);
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t n = read(fd, out, 36);
  close(fd);
  if (n != 36) memset(out, 0, 40);
}

/* ---- life tokens ---- */

static int lock_call(int fd, int command, short type, uint64_t byte, struct flock *lock) {
  memset(lock, 0, sizeof *lock);
  lock->l_type = type;
  lock->l_whence = SEEK_SET;
  lock->l_start = (off_t)byte;
  lock->l_len = 1;
  int r;
  do {
    r = fcntl(fd, command, lock);
  } while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : 0;
}

int cfn_os_lock_try(int fd, uint64_t byte) {
  struct flock lock;
  int r = lock_call(fd, F_SETLK, F_WRLCK, byte, &lock);
  return r == -EACCES ? -EAGAIN : r;
}

int cfn_os_lock_release(int fd, uint64_t byte) {
  struct flock lock;
  return lock_call(fd, F_SETLK, F_UNLCK, byte, &lock);
}

int cfn_os_lock_held(int fd, uint64_t byte) {
  struct flock lock;
  int r = lock_call(fd, F_GETLK, F_WRLCK, byte, &lock);
  return r < 0 ? r : lock.l_type != F_UNLCK;
}

int cfn_os_lock_any(int fd, uint64_t *pid) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET}; /* from the start to the end, wherever that is */
  if (fcntl(fd, F_GETLK, &lock) != 0) return -errno;
  *pid = lock.l_type != F_UNLCK && lock.l_pid > 0 ? (uint64_t)lock.l_pid : 0;
  return lock.l_type != F_UNLCK;
}

/* ---- fork canary ---- */

static cfn_a64 *_Atomic canary_page;
static pthread_once_t canary_once = PTHREAD_ONCE_INIT;

static void canary_make(void) {
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return;
  madvise(page, 4096, MADV_WIPEONFORK);
  canary_page = page;
}

uint64_t cfn_os_fork_stamp(void) {
  cfn_a64 *page = atomic_load_explicit(&canary_page, memory_order_acquire);
  if (!page) {
    pthread_once(&canary_once, canary_make);
    page = canary_page;
  }
  if (!page) return (uint64_t)getpid(); /* no page to be had: the pid, one call dearer */
  uint64_t stamp = cfn_load_relaxed(page);
  if (stamp == 0) { /* first use, or a child: its own stamp, that no ancestor had */
    cfn_cas_seq(page, 0, cfn_os_random() | 1);
    stamp = cfn_load_relaxed(page);
  }
  return stamp;
}

/* ---- doorbell FIFOs ---- */

int cfn_os_fifo_open(int dir_fd, const char *name) {
  /* O_RDWR: neither end ever sees the other's absence (no ENXIO, no SIGPIPE). */
  for (int attempt = 0; attempt < 8; attempt++) {
    int fd = openat(dir_fd, name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
      struct stat st;
      int e = fstat(fd, &st) == 0 ? EINVAL : errno;
      if (e == EINVAL && S_ISFIFO(st.st_mode)) return fd;
      close(fd);
      return -e;
    }
    if (errno != ENOENT) return -errno;
    if (mkfifoat(dir_fd, name, 0600) != 0 && errno != EEXIST) return -errno;
  }
  return -ENOENT;
}

void cfn_os_fifo_ring(int fd) {
  char byte = 1;
  ssize_t n;
  do {
    n = write(fd, &byte, 1);
  } while (n < 0 && errno == EINTR);
}

void cfn_os_fifo_drain(int fd) {
  char sink[256];
  for (int i = 0; i < 4096; i++) {
    ssize_t n = read(fd, sink, sizeof sink);
    if (n < (ssize_t)sizeof sink && !(n < 0 && errno == EINTR)) return;
  }
}
