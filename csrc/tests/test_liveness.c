/* Who is alive: in every state that a process can be in, nothing living is ever declared dead, and nothing
 * dead is counted as living, by whoever asks: a look at the slot, agents(), the bus's counts, a wait for it. */
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/liveness.h"
#include "base/os.h"
#include "tests/harness.h"

static cfn_bus_t *watcher;
static cfn_region_t *r;

/* ---- a process that attaches, and then does as it is told ---- */

typedef struct other {
  pid_t pid; /* as seen from here */
  uint32_t slot;
  int ask, tell;
} other_t;

static int32_t order(const other_t *o, char what) {
  int32_t answer;
  CHECK_INT(write(o->ask, &what, 1), 1);
  CHECK_INT(read(o->tell, &answer, 4), 4);
  return answer;
}

static int ask_end, tell_end; /* the other process's */
static cfn_bus_t *its_bus;

static void close_locks(void) {
  cfn_region_t *region = cfn_bus_region(its_bus);
  for (unsigned f = 0; f < CFN_LIVE_FILES; f++)
    if (region->live_fd[f] >= 0) close_range((unsigned)region->live_fd[f], (unsigned)region->live_fd[f], 0);
}
/* What another library of the process may do to a file that it finds: open and close it, which drops the
 * process's locks on it. */
static void open_and_close(void) {
  cfn_region_t *region = cfn_bus_region(its_bus);
  int fd = openat(cfn_region_dir(region), "live.00", O_RDONLY);
  CHECK(fd >= 0);
  close(fd);
}

static void obey(void);
static void *obey_as_thread(void *nothing) {
  (void)nothing;
  obey();
  return NULL;
}
static void obey(void) {
  for (;;) {
    char what;
    int32_t answer = 0;
    if (read(ask_end, &what, 1) != 1) _exit(0);
    switch (what) {
      case 'c': close_locks(); break;
      case 'o': open_and_close(); break;
      case 'r': answer = cfn_life_refresh(cfn_bus_region(its_bus), cfn_bus_attachment(its_bus)); break;
      case 'f': { /* a child that inherits everything and lives on */
        answer = fork();
        if (answer == 0)
          for (;;) pause();
        break;
      }
      case 't': { /* the first thread ends, another goes on */
        pthread_t thread;
        CHECK_INT(pthread_create(&thread, NULL, obey_as_thread, NULL), 0);
        CHECK_INT(write(tell_end, &answer, 4), 4);
        pthread_exit(NULL);
      }
      case 'x': /* becomes another program, which knows nothing of the bus */
        fcntl(tell_end, F_SETFD, 0);
        execl("/bin/sh", "sh", "-c", "printf 'good'; while read line; do :; done", (char *)NULL);
        _exit(1);
      case 'l': answer = cfn_life_of(cfn_bus_region(its_bus), 0, NULL, NULL); break; /* of the watcher */
      case 'd': answer = cfn_bus_reap(its_bus); break;
      default: break;
    }
    CHECK_INT(write(tell_end, &answer, 4), 4);
  }
}

/* `how`: flags of unshare for its namespaces. 77: not permitted here. */
static int start_in(other_t *o, int how) {
  int ask[2], tell[2];
  CHECK_INT(pipe(ask), 0);
  CHECK_INT(pipe(tell), 0);
  *o = (other_t){.ask = ask[1], .tell = tell[0]};
  pid_t p = t_fork();
  if (p == 0) {
    close(ask[1]);
    close(tell[0]);
    if (how && unshare(how) != 0) _exit(77);
    pid_t inner = how ? fork() : 0; /* the first process in them */
    if (inner) {
      CHECK_INT(write(tell[1], &(int32_t){inner}, 4), 4);
      int status;
      waitpid(inner, &status, 0);
      _exit(0);
    }
    ask_end = ask[0];
    tell_end = tell[1];
    dup2(ask_end, 0);
    dup2(tell_end, 1);
    its_bus = t_attach("o");
    CHECK_INT(cfn_bus_claim_inbox(its_bus, 0), 0);
    int32_t slot = (int32_t)cfn_bus_attachment(its_bus);
    if (how) CHECK_INT(read(ask_end, &(char){0}, 1), 1); /* the outer one has spoken */
    CHECK_INT(write(tell_end, &slot, 4), 4);
    obey();
  }
  close(ask[0]);
  close(tell[1]);
  int32_t word;
  o->pid = p;
  if (read(o->tell, &word, 4) != 4) {
    int status;
    waitpid(p, &status, 0);
    close(o->ask);
    close(o->tell);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  }
  if (how) {
    o->pid = word;
    CHECK_INT(write(o->ask, "g", 1), 1);
    CHECK_INT(read(o->tell, &word, 4), 4);
  }
  o->slot = (uint32_t)word;
  return 0;
}
static void start(other_t *o) { CHECK_INT(start_in(o, 0), 0); }
static void let_go(other_t *o) {
  close(o->ask);
  close(o->tell);
}
static void end(other_t *o) {
  t_kill(o->pid, false);
  let_go(o);
}

/* ---- what everybody says of it ---- */

static void alive(const other_t *o, bool byte_free) {
  bool free_byte;
  cfn_address_t at;
  cfn_agent_info_t agent;
  cfn_bus_info_t bus;
  CHECK_INT(cfn_life_of(r, o->slot, NULL, &free_byte), CFN_LIFE_ALIVE);
  CHECK_INT(free_byte, byte_free);
  CHECK_INT(cfn_bus_find(watcher, "o", &at), 0);
  CHECK_INT(cfn_bus_agent_info(watcher, &at, &agent), 0);
  CHECK_INT(agent.life, CFN_LIFE_ALIVE);
  CHECK_INT(cfn_bus_judge_agent(watcher, &at), 0);
  CHECK_INT(cfn_bus_info(watcher, &bus), 0);
  CHECK_INT(bus.attached, 2);
  CHECK_INT(bus.dead, 0);
  CHECK_INT(cfn_bus_reap(watcher), 0);
  cfn_bus_t *second = t_attach("o");
  CHECK_INT(cfn_bus_claim_inbox(second, 0), CFN_AGENT_BUSY);
  t_close(second);
}
static void dead(const other_t *o) {
  cfn_address_t at;
  cfn_agent_info_t agent;
  cfn_bus_info_t bus;
  CHECK_INT(cfn_life_of(r, o->slot, NULL, NULL), CFN_LIFE_DEAD);
  CHECK_INT(cfn_bus_find(watcher, "o", &at), 0);
  CHECK_INT(cfn_bus_agent_info(watcher, &at, &agent), 0);
  CHECK_INT(agent.life, CFN_LIFE_DEAD);
  CHECK_INT(cfn_bus_judge_agent(watcher, &at), CFN_AGENT_DEAD);
  CHECK_INT(cfn_bus_info(watcher, &bus), 0);
  CHECK_INT(bus.attached, 1);
  CHECK_INT(bus.dead, 1);
  CHECK_INT(cfn_bus_reap(watcher), 1);
  CHECK_INT(cfn_bus_judge_agent(watcher, &at), CFN_AGENT_DEAD); /* also when it was recycled */
  cfn_bus_t *heir = t_attach("o");
  CHECK_INT(cfn_bus_claim_inbox(heir, 0), 0);
  t_close(heir);
}
static void wait_state(pid_t pid, char wanted) { /* of the first thread */
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  for (;;) {
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(n > 0);
    text[n] = 0;
    if (strrchr(text, ')')[2] == wanted) return;
    sched_yield();
  }
}

/* ---- the matrix ---- */

static void zombie(void) {
  other_t o;
  t_case("a zombie is dead");
  start(&o);
  alive(&o, false);
  t_kill(o.pid, true);
  CHECK_INT(kill(o.pid, 0), 0); /* a look at the pid says that it lives */
  dead(&o);
  waitpid(o.pid, NULL, 0);
  let_go(&o);
}

static void stopped(void) {
  other_t o;
  siginfo_t info;
  t_case("a stopped process is alive");
  start(&o);
  CHECK_INT(kill(o.pid, SIGSTOP), 0);
  CHECK_INT(waitid(P_PID, (id_t)o.pid, &info, WSTOPPED), 0);
  alive(&o, false);
  CHECK_INT(kill(o.pid, SIGCONT), 0);
  t_case("... also when it was robbed of its byte before");
  order(&o, 'c');
  CHECK_INT(kill(o.pid, SIGSTOP), 0);
  CHECK_INT(waitid(P_PID, (id_t)o.pid, &info, WSTOPPED), 0);
  alive(&o, true);
  end(&o);
  dead(&o);
}

static void robbed(void) {
  other_t o;
  for (const char *how = "co"; *how; how++) {
    t_case("robbed of its life byte (%c) it is alive, and takes it back", *how);
    start(&o);
    order(&o, *how);
    alive(&o, true);
    CHECK_INT(order(&o, 'r'), 0);
    alive(&o, false);
    t_case("... and dead when it dies without it (%c)", *how);
    order(&o, *how);
    end(&o);
    dead(&o);
  }
}

static void leader_gone(void) {
  other_t o;
  for (int without = 0; without < 2; without++) {
    t_case("its first thread has ended, another goes on%s", without ? ", without the byte" : "");
    start(&o);
    order(&o, 't');
    wait_state(o.pid, 'Z');
    if (without) order(&o, 'c');
    alive(&o, without);
    CHECK_INT(order(&o, 'r'), 0);
    alive(&o, false);
    end(&o);
    dead(&o);
  }
}

static void child_alive(void) {
  other_t o;
  t_case("dead, while its forked child lives with all that it inherited");
  start(&o);
  pid_t child = order(&o, 'f');
  CHECK(child > 0);
  alive(&o, false);
  end(&o);
  dead(&o);
  CHECK_INT(kill(child, SIGKILL), 0);
}

static void another_program(void) {
  other_t o;
  t_case("it became another program under the same pid: dead for the bus");
  start(&o);
  char what = 'x', answer[4];
  CHECK_INT(write(o.ask, &what, 1), 1);
  CHECK_INT(read(o.tell, answer, 4), 4);
  CHECK_INT(memcmp(answer, "good", 4), 0);
  CHECK_INT(kill(o.pid, 0), 0);
  dead(&o);
  end(&o);
}

/* A process with a pid of our choice; it has inherited the mapping of the region. 0: not permitted. */
static pid_t with_pid(pid_t pid) {
  struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&pid, .set_tid_size = 1};
  long p = syscall(SYS_clone3, &args, sizeof args);
  if (p == 0)
    for (;;) pause();
  return p < 0 ? 0 : (pid_t)p;
}
static void pid_reused(void) {
  other_t o;
  t_case("its pid is another's, who maps the region, too");
  start(&o);
  pid_t first = o.pid;
  end(&o);
  pid_t again = with_pid(first);
  if (again != first) {
    printf("  (no choice of a pid here: its reuse is not tried)\n");
    dead(&o);
    return;
  }
  dead(&o);
  t_kill(again, false);
}

static void other_namespaces(void) {
  other_t o;
  static const struct { int how; const char *name; } kinds[] = {
      {CLONE_NEWPID, "pid"}, {CLONE_NEWTIME, "time"}, {CLONE_NEWPID | CLONE_NEWTIME, "pid and time"}};
  for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    t_case("in %s namespaces of its own", kinds[i].name);
    if (start_in(&o, kinds[i].how) == 77) {
      printf("  (no %s namespace here: not tried)\n", kinds[i].name);
      continue;
    }
    alive(&o, false);
    CHECK_INT(order(&o, 'l'), CFN_LIFE_ALIVE); /* and so are we for it */
    CHECK_INT(order(&o, 'd'), 0);
    if (!(kinds[i].how & CLONE_NEWPID)) { /* the veto works over time namespaces */
      order(&o, 'c');
      alive(&o, true);
      CHECK_INT(order(&o, 'r'), 0);
    }
    CHECK_INT(kill(o.pid, SIGKILL), 0);
    CHECK_INT(read(o.tell, &(char){0}, 1), 0); /* its end of the pipe is closed: it is gone */
    dead(&o);
    let_go(&o);
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
  }
}

static void first_of_a_container(void) {
  other_t o, next;
  t_case("pid 1 of a container, and pid 1 of the next one");
  if (start_in(&o, CLONE_NEWPID) == 77) return;
  uint64_t pid;
  cfn_identity_of(r, o.slot, &pid);
  CHECK_INT(pid, 1);
  CHECK_INT(kill(o.pid, SIGKILL), 0);
  CHECK_INT(read(o.tell, &(char){0}, 1), 0);
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
  CHECK_INT(cfn_life_of(r, o.slot, NULL, NULL), CFN_LIFE_DEAD);
  CHECK_INT(start_in(&next, CLONE_NEWPID), 0);
  if (next.slot != o.slot) { /* who is pid 1, too, and may even have the number of the first one's namespace */
    CHECK(order(&next, 'd') >= 0); /* it was recycled when its inbox was taken over, or is now */
    CHECK_INT(cfn_life_of(r, o.slot, NULL, NULL), CFN_LIFE_NONE);
  }
  alive(&next, false);
  CHECK_INT(kill(next.pid, SIGKILL), 0);
  CHECK_INT(read(next.tell, &(char){0}, 1), 0);
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
  dead(&next);
  let_go(&o);
  let_go(&next);
}

static bool put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY);
  bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  if (fd >= 0) close(fd);
  return good;
}
static void frozen(void) {
  char group[128], file[160], text[32];
  bool v1 = access("/sys/fs/cgroup/freezer", F_OK) == 0;
  snprintf(group, sizeof group, "/sys/fs/cgroup/%s%s", v1 ? "freezer/" : "", t_bus_name());
  t_case("frozen by its control group");
  if (mkdir(group, 0755) != 0) {
    printf("  (no control group of our own here: freezing is not tried)\n");
    return;
  }
  other_t o;
  start(&o);
  snprintf(file, sizeof file, "%s/cgroup.procs", group);
  snprintf(text, sizeof text, "%d", (int)o.pid);
  bool moved = put(file, text);
  snprintf(file, sizeof file, "%s/%s", group, v1 ? "freezer.state" : "cgroup.freeze");
  if (moved && put(file, v1 ? "FROZEN" : "1")) {
    alive(&o, false);
    CHECK_INT(t_send(watcher, "o", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0); /* nobody waits for it */
    CHECK(put(file, v1 ? "THAWED" : "0"));
    CHECK_INT(order(&o, 'r'), 0);
    alive(&o, false);
  } else {
    printf("  (this control group does not freeze: not tried)\n");
  }
  end(&o);
  dead(&o);
  rmdir(group);
}

int main(void) {
  t_guard(120);
  watcher = t_open("watcher", NULL);
  r = cfn_bus_region(watcher);
  zombie();
  stopped();
  robbed();
  leader_gone();
  child_alive();
  another_program();
  pid_reused();
  other_namespaces();
  first_of_a_container();
  frozen();
  t_check_region(watcher, true);
  t_close(watcher);
  t_destroy();
  t_passed("test_liveness");
  return 0;
}
