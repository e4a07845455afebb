/* Who lives, asked of a system that does not answer: the living get the doubt. What is asked of /proc, of descriptors of processes,
 * of byte locks and of doorbells fails in each way, and never is one who runs said to be dead. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/bus.h"
#include "agent/liveness.h"
#include "base/os.h"
#include "tests/refuser.h"

static bool says(const char *words) { return strstr(cfn_last_failure()->text, words) != NULL; }

/* ---- before anything else in this process: the page that tells a forked child ---- */

static void without_a_page(void) {
  t_case("no page for the mark of a fork: the pid is the mark");
  pid_t child = t_fork();
  if (child == 0) {
    n_refuse("mmap", 0, 1, ENOMEM);
    CHECK_INT(cfn_os_fork_stamp(), getpid());
    n_end();
    CHECK_INT(cfn_os_fork_stamp(), getpid());
    _exit(0);
  }
  t_join(child);
}

/* ---- processes ---- */

static cfn_identity_t me;
static uint64_t dev, ino;

static int maps(void) { return cfn_os_process_maps(&me, dev, ino); }
/* As before Linux 6.9, where descriptors of processes tell nobody from another: by when it started. */
static int maps_without_pidfd(void) {
  cfn_identity_t who = me;
  who.pidfs_ino = 0;
  return cfn_os_process_maps(&who, dev, ino);
}

static void processes(void) {
  cfn_bus_t *bus = t_open("a", NULL);
  cfn_region_t *r = cfn_bus_region(bus);
  dev = r->dev;
  ino = r->ino;
  cfn_os_identity(&me);
  t_case("this process, and what it may be mistaken for");
  CHECK_INT(maps(), 1);
  CHECK_INT(cfn_os_process_maps(&me, dev + 1, ino), 0);
  CHECK_INT(cfn_os_process_maps(&me, dev, ino + 1), 0);
  cfn_identity_t other = me;
  other.pid = 0;
  CHECK_INT(cfn_os_process_maps(&other, dev, ino), 0);
  CHECK_INT(cfn_os_process_state(&other), 0);
  other = me;
  other.pid_ns++;
  CHECK_INT(cfn_os_process_maps(&other, dev, ino), 0);
  CHECK_INT(cfn_os_process_state(&other), 0);
  other = me;
  other.time_ns++;
  CHECK_INT(cfn_os_process_state(&other), 0);
  other.pidfs_ino = 0;
  CHECK_INT(cfn_os_process_maps(&other, dev, ino), 1); /* not comparable: it has the file mapped */
  other = me;
  other.start_time++;
  CHECK_INT(cfn_os_process_state(&other), 0);
  other.pidfs_ino = 0;
  CHECK_INT(cfn_os_process_maps(&other, dev, ino), 0);
  other.start_time = 0;
  CHECK_INT(cfn_os_process_maps(&other, dev, ino), 1);
  if (me.pidfs_ino) {
    other = me;
    other.pidfs_ino++;
    CHECK_INT(cfn_os_process_maps(&other, dev, ino), 0);
  }

  static const struct { const char *call; int after, error, want; } refusals[] = {
      {"syscall", 0, ESRCH, 0}, {"syscall", 0, EINVAL, 0}, {"syscall", 0, EMFILE, -1}, {"syscall", 0, ENOSYS, 1},
      {"syscall", 0, EPERM, 1}, {"syscall", 0, EACCES, 1}, {"poll", 0, EINTR, -1}, {"fopen", 0, EACCES, -1},
      {"fopen", 0, EMFILE, -1}, {"fopen", 0, ENOENT, 1}, {"fopen", 0, ESRCH, 1}, {"fopen", 0, 0, -1}};
  for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    t_case("does it run: %s fails with %d", refusals[i].call, refusals[i].error);
    errno = 0;
    n_refuse(refusals[i].call, refusals[i].after, 1, refusals[i].error);
    CHECK_INT(maps(), refusals[i].want);
    n_end();
  }
  t_case("it has ended");
  n_answer("poll", 0, 1, 1);
  CHECK_INT(maps(), 0);
  n_end();
  static const struct { const char *call; int error, want; } starts[] = {
      {"open", ENOENT, 0}, {"open", EMFILE, -1}, {"read", ESRCH, 0}, {"read", EIO, -1}};
  for (unsigned i = 0; i < sizeof starts / sizeof starts[0]; i++) {
    t_case("when did it start: %s fails with %d", starts[i].call, starts[i].error);
    n_refuse(starts[i].call, 0, 1, starts[i].error);
    CHECK_INT(maps_without_pidfd(), starts[i].want);
    n_end();
  }
  t_case("what /proc says of it makes no sense");
  static const char *const texts[] = {"12345 no parentheses", "1 (a) R 1 2 3", "1 (a) R "};
  for (unsigned i = 0; i < 3; i++) {
    n_reads(texts[i]);
    errno = 0;
    CHECK_INT(maps_without_pidfd(), -1);
    n_end();
    n_reads(texts[i]);
    CHECK_INT(cfn_os_process_state(&me), 0);
    n_end();
  }
  t_case("another file system of such descriptors");
  n_answer("fstatfs", 0, 1, TMPFS_MAGIC);
  CHECK_INT(maps(), 1); /* by its start */
  n_end();
  n_refuse("fstatfs", 0, 1, EIO);
  CHECK_INT(maps(), 1);
  n_end();
  t_case("its first thread shows no memory");
  static const struct { int error, want; } tasks[] = {{ENOENT, 0}, {ESRCH, 0}, {EMFILE, -1}};
  for (unsigned i = 0; i < 3; i++) {
    other = me;
    n_refuse("opendir", 0, 1, tasks[i].error);
    CHECK_INT(cfn_os_process_maps(&other, dev, ino + 1), tasks[i].want);
    n_end();
  }
  t_close(bus);
  t_destroy();
}

/* ---- which process has a bus? ---- */

static pid_t attached(bool leaves) { /* a child with an agent, which lives, or died without leaving */
  int ready[2];
  char c;
  CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
  pid_t child = t_fork();
  if (child == 0) {
    t_attach("other");
    CHECK_INT(write(ready[1], "", 1), 1);
    if (leaves) raise(SIGKILL);
    for (;;) pause();
  }
  close(ready[1]);
  CHECK_INT(read(ready[0], &c, 1), 1);
  close(ready[0]);
  if (leaves) CHECK_INT(waitpid(child, NULL, 0), child);
  return child;
}

static void users(void) {
  uint64_t pid;
  t_case("a bus that another has open");
  t_close(t_open(NULL, NULL));
  pid_t child = attached(false);
  CHECK_INT(cfn_bus_in_use(NULL, t_bus_name(), &pid), 1);
  CHECK_INT(pid, child);
  static const struct { const char *call; int after, times, error; const char *words; } refusals[] = {
      {"openat", 0, 1, EMFILE, "cannot look at the life bytes"}, {"fcntl", 0, 1, EIO, "cannot look at the life bytes"},
      {"fstat", 1, 1, EIO, "cannot look at"}};
  for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    t_case("is a bus in use: %s fails", refusals[i].call);
    n_refuse(refusals[i].call, refusals[i].after, refusals[i].times, refusals[i].error);
    CHECK_INT(cfn_bus_in_use(NULL, t_bus_name(), &pid), CFN_OS);
    n_end();
    CHECK(says(refusals[i].words));
  }
  t_case("it was robbed of its life byte: by what it has mapped");
  char path[CFN_PATH_BYTES], life[CFN_PATH_BYTES + 16];
  CHECK_INT(cfn_region_path(NULL, t_bus_name(), path), 0);
  snprintf(life, sizeof life, "%s/live.00", path);
  CHECK_INT(unlink(life), 0);
  CHECK_INT(cfn_bus_in_use(NULL, t_bus_name(), &pid), 1);
  CHECK_INT(pid, child);
  static const struct { const char *call; int times, error, want; } looks[] = {
      {"fstatat", 1, EIO, CFN_OS}, {"opendir", 1, EMFILE, CFN_OS}, {"fopen", N_ALWAYS, EMFILE, CFN_OS},
      {"fopen", N_ALWAYS, EACCES, 0}, {"fopen", N_ALWAYS, EPERM, 0}, {"fstatat", 1, ENOENT, 0}};
  for (unsigned i = 0; i < sizeof looks / sizeof looks[0]; i++) {
    t_case("what it has mapped: %s fails with %d", looks[i].call, looks[i].error);
    n_refuse(looks[i].call, 0, looks[i].times, looks[i].error);
    CHECK_INT(cfn_bus_in_use(NULL, t_bus_name(), &pid), looks[i].want); /* those that may not be read spoke by their byte */
    n_end();
  }
  t_kill(child, false);
  CHECK_INT(cfn_bus_in_use(NULL, t_bus_name(), &pid), 0);
  CHECK_INT(cfn_bus_remove(NULL, t_bus_name(), &pid), 0);
  t_case("a bus that this process has open");
  cfn_bus_t *bus = t_open("a", NULL);
  CHECK_INT(cfn_bus_in_use(NULL, t_bus_name(), &pid), 1);
  CHECK_INT(pid, getpid());
  CHECK_INT(cfn_bus_remove(NULL, t_bus_name(), &pid), CFN_AGENT_BUSY);
  t_close(bus);
  t_destroy();
}

/* ---- life bytes ---- */

static void bytes(void) {
  cfn_bus_t *bus = NULL;
  t_case("a life byte cannot be had");
  t_close(t_open(NULL, NULL));
  static const struct { const char *call; int after, times, error, want; const char *words; } refusals[] = {
      {"openat", 1, 1, EMFILE, CFN_OS, "cannot open a life file"}, {"openat", 1, 1, ENOENT, 0, ""},
      {"fcntl", 0, 1, ENOLCK, CFN_OS, "cannot lock a life byte"}, {"fcntl", 0, 1, EINTR, 0, ""},
      {"fcntl", 0, 1, EACCES, 0, ""}};
  for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    t_case("a life byte: %s fails with %d", refusals[i].call, refusals[i].error);
    n_refuse(refusals[i].call, refusals[i].after, refusals[i].times, refusals[i].error);
    CHECK_INT(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &bus, NULL), refusals[i].want);
    n_end();
    if (refusals[i].want == 0) t_close(bus);
    else CHECK(says(refusals[i].words));
  }
  t_case("it cannot be told whether one who died is alive");
  attached(true);
  cfn_region_t *r;
  bool created;
  cfn_wish_t nothing = {0};
  CHECK_INT(cfn_region_open(NULL, t_bus_name(), &nothing, 0, &r, &created), 0); /* without a byte of our own */
  uint32_t i = 0;
  while (cfn_id_state(cfn_load_seq(&cfn_attachment(r, i)->id)) != CFN_ID_LIVE) i++;
  static const struct { const char *call; int error; } untold[] = {{"openat", EMFILE}, {"fcntl", EIO}, {"syscall", EMFILE}};
  for (unsigned k = 0; k < 3; k++) {
    n_refuse(untold[k].call, 0, 1, untold[k].error);
    CHECK_INT(cfn_life_of(r, i, NULL, NULL), CFN_LIFE_ALIVE);
    n_end();
  }
  CHECK_INT(cfn_life_of(r, i, NULL, NULL), CFN_LIFE_DEAD);
  cfn_life_drop(r, i); /* not ours */
  CHECK_INT(cfn_life_refresh(r, i), CFN_FORKED);
  cfn_region_close(r);

  t_case("one that was robbed of it, and cannot take it back");
  bus = t_attach("a");
  r = cfn_bus_region(bus);
  uint32_t me_att = cfn_bus_attachment(bus), file = me_att / CFN_LIVE_LOCKS_PER_FILE;
  n_refuse("fstat", 0, 1, EIO); /* it is not our file any more, as far as can be told: it is opened anew */
  CHECK_INT(cfn_life_refresh(r, me_att), 0);
  n_end();
  CHECK_INT(close(r->live_fd[file]), 0);
  n_refuse("openat", 0, 1, EMFILE);
  CHECK_INT(cfn_life_refresh(r, me_att), CFN_OS);
  n_end();
  CHECK(says("cannot take the life byte"));
  n_refuse("fcntl", 0, 1, ENOLCK);
  CHECK_INT(cfn_life_refresh(r, me_att), CFN_OS);
  n_end();
  n_refuse("fcntl", 0, 1, EAGAIN);
  CHECK_INT(cfn_life_refresh(r, me_att), CFN_AGENT_FENCED);
  n_end();
  CHECK_INT(cfn_life_refresh(r, me_att), 0);
  t_case("a wait goes on without locks to be had");
  cfn_store_seq(&bus->tick_ns, 1000000);
  cfn_address_t x;
  n_refuse("fcntl", 0, 1, ENOLCK);
  int e = cfn_bus_wait_agent(bus, "nobody", t_in(10), &x);
  n_end();
  CHECK_INT(e, CFN_INTERRUPTED);
  CHECK_INT(close(r->live_fd[file]), 0);
  t_close(bus); /* the number is not ours to close again */
  t_destroy();
}

/* ---- doorbells ---- */

static void doorbells(void) {
  char dir[64];
  t_case("doorbells");
  snprintf(dir, sizeof dir, "/dev/shm/lives-%d", (int)getpid());
  CHECK_INT(mkdir(dir, 0700), 0);
  int d = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  static const struct { const char *call; int times, error, want; } refusals[] = {
      {"mkfifoat", 1, EACCES, -EACCES}, {"openat", N_ALWAYS, ENOENT, -ENOENT}, {"openat", 1, EMFILE, -EMFILE},
      {"fstat", 1, EIO, -EIO}};
  for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    n_refuse(refusals[i].call, 0, refusals[i].times, refusals[i].error);
    CHECK_INT(cfn_os_fifo_open(d, "bell"), refusals[i].want);
    n_end();
  }
  CHECK_INT(close(openat(d, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
  CHECK_INT(cfn_os_fifo_open(d, "file"), -EINVAL);
  int fd = cfn_os_fifo_open(d, "bell");
  CHECK(fd >= 0);
  n_refuse("write", 0, 2, EINTR);
  cfn_os_fifo_ring(fd);
  CHECK_INT(n_end(), 2);
  n_refuse("read", 0, 1, EINTR);
  cfn_os_fifo_drain(fd);
  n_end();
  char c;
  CHECK_INT(read(fd, &c, 1), -1); /* it was rung, and is drained */
  n_answer("read", 0, N_ALWAYS, 256);
  cfn_os_fifo_drain(fd); /* of one that is rung all the time */
  CHECK_INT(n_end(), 4096);
  close(fd);
  CHECK_INT(unlinkat(d, "bell", 0), 0);
  CHECK_INT(unlinkat(d, "file", 0), 0);
  close(d);
  CHECK_INT(rmdir(dir), 0);
}

int main(void) {
  t_guard(60);
  without_a_page();
  doorbells();
  processes();
  users();
  bytes();
  t_passed("test_refused_lives");
  return 0;
}
