#include "tests/refuser.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

static struct {
  const char *name, *text;
  void (*what)(void);
  long value;
  int after, times, followed, error;
  bool answers;
} rule;

static void begin(const char *name, int after, int times) {
  memset(&rule, 0, sizeof rule);
  rule.after = after;
  rule.times = times;
  rule.name = name;
}
void n_refuse(const char *name, int after, int times, int error) {
  begin(name, after, times);
  rule.error = error;
}
void n_before(const char *name, int after, int times, void (*what)(void)) {
  begin(name, after, times);
  rule.what = what;
}
void n_answer(const char *name, int after, int times, long value) {
  begin(name, after, times);
  rule.value = value;
  rule.answers = true;
}
void n_reads(const char *text) {
  n_answer("read", 0, 1, (long)strlen(text));
  rule.text = text;
}
int n_end(void) {
  rule.name = NULL;
  CHECK(rule.followed > 0); /* else it is another call by now */
  return rule.followed;
}

/* True: it is not made, and *answer is what it returns (errno is set). */
static bool refused(const char *name, long failed, long *answer) {
  if (!rule.name || strcmp(rule.name, name) != 0 || rule.after-- > 0 || rule.followed == rule.times) return false;
  rule.followed++;
  if (rule.what) {
    const char *keep = rule.name;
    rule.name = NULL; /* what it does itself is let through */
    rule.what();
    rule.name = keep;
    return false;
  }
  if (rule.error) errno = rule.error;
  *answer = rule.answers ? rule.value : failed;
  return true;
}

#define WRAP(type, name, parameters, arguments, failed)                                       \
  type __real_##name parameters;                                                              \
  type __wrap_##name parameters;                                                              \
  type __wrap_##name parameters {                                                             \
    long answer;                                                                              \
    return refused(#name, (long)(failed), &answer) ? (type)answer : __real_##name arguments;  \
  }
WRAP(int, fstat, (int fd, struct stat *st), (fd, st), -1)
WRAP(int, stat, (const char *path, struct stat *st), (path, st), -1)
WRAP(int, fstatat, (int fd, const char *path, struct stat *st, int flags), (fd, path, st, flags), -1)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), -1)
WRAP(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags), -1)
WRAP(int, symlinkat, (const char *text, int fd, const char *path), (text, fd, path), -1)
WRAP(int, linkat, (int f, const char *from, int t, const char *to, int flags), (f, from, t, to, flags), -1)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), -1)
WRAP(int, close, (int fd), (fd), -1)
WRAP(int, mkfifoat, (int fd, const char *path, mode_t mode), (fd, path, mode), -1)
WRAP(int, poll, (struct pollfd *p, nfds_t n, int ms), (p, n, ms), -1)
WRAP(int, fstatvfs, (int fd, struct statvfs *v), (fd, v), -1)
WRAP(uid_t, geteuid, (void), (), -1)
ssize_t __real_read(int fd, void *out, size_t n);
ssize_t __wrap_read(int fd, void *out, size_t n);
ssize_t __wrap_read(int fd, void *out, size_t n) {
  long answer;
  if (!refused("read", -1, &answer)) return __real_read(fd, out, n);
  if (rule.text) memcpy(out, rule.text, (size_t)answer);
  return answer;
}
WRAP(ssize_t, pread, (int fd, void *out, size_t n, off_t at), (fd, out, n, at), -1)
WRAP(ssize_t, write, (int fd, const void *from, size_t n), (fd, from, n), -1)
WRAP(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at), -1)
WRAP(int, posix_fallocate, (int fd, off_t at, off_t n), (fd, at, n), rule.error)
WRAP(DIR *, opendir, (const char *path), (path), 0)
WRAP(DIR *, fdopendir, (int fd), (fd), 0)
WRAP(struct dirent *, readdir, (DIR *d), (d), 0)
WRAP(FILE *, fopen, (const char *path, const char *mode), (path, mode), 0)
WRAP(void *, mmap, (void *at, size_t n, int p, int f, int fd, off_t o), (at, n, p, f, fd, o), -1)

int __real_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs) {
  long answer;
  if (!refused("fstatfs", -1, &answer)) return __real_fstatfs(fd, fs);
  if (answer < 0) return -1;
  memset(fs, 0, sizeof *fs);
  fs->f_type = answer; /* of a file system of that kind */
  return 0;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
  va_list more;
  long answer;
  va_start(more, flags);
  mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  return refused("open", -1, &answer) ? (int)answer : __real_open(path, flags, mode);
}
int __real_openat(int fd, const char *path, int flags, ...);
int __wrap_openat(int fd, const char *path, int flags, ...);
int __wrap_openat(int fd, const char *path, int flags, ...) {
  va_list more;
  long answer;
  va_start(more, flags);
  mode_t mode = flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(more, mode_t) : 0;
  va_end(more);
  return refused("openat", -1, &answer) ? (int)answer : __real_openat(fd, path, flags, mode);
}
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...) {
  va_list more;
  long answer;
  va_start(more, command);
  void *lock = va_arg(more, void *);
  va_end(more);
  return refused("fcntl", -1, &answer) ? (int)answer : __real_fcntl(fd, command, lock);
}
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...) {
  va_list more;
  long answer, a[6];
  va_start(more, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
  va_end(more);
  return refused("syscall", -1, &answer) ? answer : __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
