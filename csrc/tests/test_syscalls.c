/* Each system call of an operation fails in turn (ENOSPC, ENOMEM, EMFILE, ENOLCK, EINTR, EACCES), and the
 * process is killed in turn before and after each: by ptrace, in real processes.
 *
 * A failure is told by a code with a text, or got over; never a crash, never a hang, and nothing is left: no
 * file, no slot, no lock. A death leaves what the next one heals.
 *
 *   test_syscalls [--op NAME] [--call N] [--errno N | --kill] [--say]
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include "base/os.h"
#include "base/sha256.h"
#include "mem/evict.h"
#include "mem/spill.h"
#include "tests/stepper.h"

#if defined(__x86_64__)

static const int errors[] = {ENOSPC, ENOMEM, EMFILE, ENOLCK, EINTR, EACCES};
#define ERRORS (sizeof errors / sizeof errors[0])

/* ---- the operations, each from nothing to its end ---- */

typedef struct told {
  volatile int done, code, life;
  char text[400];
} told_t;
static told_t *told;

static int open_bus(cfn_bus_t **bus, int flags) {
  cfn_wish_t small = t_small_wish();
  return cfn_bus_open(NULL, t_bus_name(), flags ? &small : NULL, flags, bus, NULL);
}
static cfn_bus_t *victim_bus;
static int do_create(void) { return open_bus(&victim_bus, CFN_OPEN_CREATE); }
static int do_attach(void) {
  uint64_t inc;
  int owner, e = open_bus(&victim_bus, 0);
  return e < 0 ? e : cfn_bus_act_as(victim_bus, "victim", NULL, CFN_ACT_OWN, &inc, &owner);
}
static int prepare(void) {
  victim_bus = t_attach("victim");
  return 0;
}
static int do_send(void) {
  return t_send(victim_bus, "rx", CFN_LANE_NORMAL, bodies[100], BODY_BYTES, 0, NULL);
}
static int do_wait(void) {
  char out[1024];
  int64_t r = cfn_bus_recv(victim_bus, NULL, 0, CFN_ALL_LANES, 0, cfn_os_monotonic_ns() + 1000000, out, sizeof out);
  return r == CFN_EMPTY || r == CFN_TIMEOUT || r == CFN_INTERRUPTED ? 0 : (int)r;
}
static int do_fileno(void) {
  int fd = cfn_bus_fileno(victim_bus, 0);
  return fd < 0 ? fd : 0;
}
static int do_reap(void) { return cfn_bus_reap(victim_bus); }
static int do_close(void) {
  cfn_bus_close(victim_bus);
  return 0;
}
/* "other" runs and has lost its life byte: whatever fails, it is never said to be dead. */
static int do_judge(void) {
  cfn_address_t at;
  cfn_agent_info_t info = {.life = CFN_LIFE_ALIVE};
  int e = cfn_bus_find(victim_bus, "other", &at);
  if (e == 0) e = cfn_bus_agent_info(victim_bus, &at, &info);
  told->life = info.life;
  return e;
}
/* Asked by one who is not attached. Whatever fails, it is never said that nobody uses the bus. */
static int do_in_use(void) {
  uint64_t pid;
  int r = cfn_bus_in_use(NULL, t_bus_name(), &pid);
  told->life = r == 0 ? CFN_LIFE_DEAD : CFN_LIFE_ALIVE;
  return r < 0 ? r : 0;
}
static int do_remove(void) {
  uint64_t pid;
  int r = cfn_bus_remove(NULL, t_bus_name(), &pid);
  told->life = r == 0 ? CFN_LIFE_DEAD : CFN_LIFE_ALIVE;
  return r == CFN_AGENT_BUSY ? 0 : r;
}
static int do_destroy(void) { return cfn_bus_destroy(victim_bus); }

/* Objects: four fill the heap, so that a fifth pushes one to disk, and what is there pushes another out to come back. */
enum { FULL = 4, LARGE = 16 * CFN_PAGE, FIFTH = FULL + 1 };
static uint8_t digest[FIFTH + 1][32], content[LARGE];
static void fill_content(int id) { memset(content, id, sizeof content); }
static int put(cfn_bus_t *bus, int id) {
  int known;
  fill_content(id);
  return cfn_bus_object_put(bus, digest[id], content, LARGE, &known);
}
static int get(cfn_bus_t *bus, int id) {
  static uint8_t out[LARGE];
  int64_t n = cfn_bus_object_get(bus, digest[id], out, sizeof out);
  fill_content(id);
  return n < 0 ? (int)n : n == LARGE && memcmp(out, content, LARGE) == 0 ? 0 : -1000;
}
static int on_disk(cfn_bus_t *bus) { /* the id of one that is there, or 0 */
  cfn_object_info_t infos[FIFTH + 1];
  int64_t n = cfn_bus_object_list(bus, infos, FIFTH + 1);
  for (int64_t i = 0; i < n; i++)
    for (int id = 1; infos[i].spilled && id <= FIFTH; id++)
      if (memcmp(infos[i].digest, digest[id], 32) == 0) return id;
  return 0;
}
static int prepare_away(void) {
  prepare();
  return put(victim_bus, FIFTH);
}
static int do_spill(void) { return put(victim_bus, FIFTH); }
static int do_view(void) {
  cfn_pin_t pin;
  int e = cfn_bus_object_pin(victim_bus, digest[on_disk(victim_bus)], &pin);
  if (e == 0) cfn_bus_object_unpin(victim_bus, pin.pin, pin.word);
  return e;
}
static int do_get(void) { return get(victim_bus, on_disk(victim_bus)); }
static int do_check(void) {
  int e = cfn_bus_check(victim_bus, NULL, NULL);
  return e < 0 ? e : 0; /* how many findings: it may not get at the files */
}
static int do_repair(void) {
  cfn_repair_t done;
  return cfn_bus_repair(victim_bus, &done);
}

typedef struct operation {
  const char *name;
  int (*prepare)(void);
  int (*run)(void);
  bool creates, destroys;
  bool sleeper; /* somebody sleeps in rx's doorbell descriptor */
  bool robbed;  /* "other" lives without its life byte */
  bool objects; /* there are more than memory holds */
} operation_t;
static const operation_t operations[] = {
    {.name = "create", .run = do_create, .creates = true},
    {.name = "attach", .run = do_attach},
    {.name = "send", .prepare = prepare, .run = do_send, .sleeper = true},
    {.name = "wait", .prepare = prepare, .run = do_wait},
    {.name = "fileno", .prepare = prepare, .run = do_fileno},
    {.name = "reap", .prepare = prepare, .run = do_reap},
    {.name = "judge", .prepare = prepare, .run = do_judge, .robbed = true},
    {.name = "in-use", .run = do_in_use},
    {.name = "remove", .run = do_remove},
    {.name = "close", .prepare = prepare, .run = do_close},
    {.name = "spill", .prepare = prepare, .run = do_spill, .objects = true},
    {.name = "view", .prepare = prepare_away, .run = do_view, .objects = true},
    {.name = "get", .prepare = prepare_away, .run = do_get, .objects = true},
    {.name = "check", .prepare = prepare_away, .run = do_check, .objects = true},
    {.name = "repair", .prepare = prepare_away, .run = do_repair, .objects = true},
    {.name = "destroy", .prepare = prepare, .run = do_destroy, .destroys = true},
    {.name = "destroy-all", .prepare = prepare_away, .run = do_destroy, .destroys = true, .objects = true},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])

/* ---- a process whose n-th call fails ---- */

static pid_t child;
static bool say; /* what was told, for reading */
static void start(const operation_t *o) {
  memset(told, 0, sizeof *told);
  child = t_fork();
  if (child == 0) {
    if (o->prepare) o->prepare();
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) _exit(77);
    raise(SIGSTOP);
    told->code = o->run();
    told->done = 1;
    if (told->code < 0) snprintf(told->text, sizeof told->text, "%s", cfn_last_failure()->text);
    raise(SIGSTOP);
    if (victim_bus) t_close(victim_bus);
    _exit(0);
  }
  int status;
  CHECK_INT(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    printf("skip test_syscalls: ptrace is not permitted\n");
    exit(77);
  }
  CHECK(WIFSTOPPED(status));
  CHECK_INT(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD), 0);
}

/* On to the next entry or exit of a system call; false when the operation has returned. */
static bool on(void) {
  int status;
  CHECK_INT(ptrace(PTRACE_SYSCALL, child, 0, 0), 0);
  CHECK_INT(waitpid(child, &status, 0), child);
  if (!WIFSTOPPED(status))
    fprintf(stderr, "the process ended with status %#x\n", (unsigned)status);
  CHECK(WIFSTOPPED(status));
  if (told->done) return false;
  if (WSTOPSIG(status) != (SIGTRAP | 0x80)) fprintf(stderr, "it was stopped by signal %d\n", WSTOPSIG(status));
  CHECK_INT(WSTOPSIG(status), SIGTRAP | 0x80);
  return true;
}

/* The kernel does not say this of that call, and the C library ends a process that it is told so. */
static bool absurd(long call, int error) {
  if (call == SYS_futex) return error != EINTR;
#ifdef __SANITIZE_ADDRESS__ /* its allocator ends the process */
  if (call == SYS_mmap || call == SYS_munmap || call == SYS_madvise || call == SYS_mprotect) return true;
#endif
  return call == SYS_rt_sigprocmask || call == SYS_getpid || call == SYS_gettid || call == SYS_tgkill ||
         call == SYS_geteuid; /* these never fail */
}

enum { FAIL, KILL_BEFORE, KILL_AFTER };
/* The n-th call fails with `error`, or the process dies there. False: it made fewer calls. */
static bool strike(long n, int how, int error, long *call) {
  struct user_regs_struct regs;
  for (long i = 0;; i++) {
    if (!on()) return false;
    if (i == n) break;
    if (!on()) return false;
  }
  CHECK_INT(ptrace(PTRACE_GETREGS, child, 0, &regs), 0);
  *call = (long)regs.orig_rax;
  if (how == KILL_BEFORE) {
    regs.orig_rax = (unsigned long long)-1; /* entered already: it must not happen */
    CHECK_INT(ptrace(PTRACE_SETREGS, child, 0, &regs), 0);
    t_kill(child, false);
  } else if (how == KILL_AFTER) {
    on();
    t_kill(child, false);
  } else {
    if (absurd(*call, error)) return true;
    regs.orig_rax = (unsigned long long)-1;
    CHECK_INT(ptrace(PTRACE_SETREGS, child, 0, &regs), 0);
    CHECK(on());
    CHECK_INT(ptrace(PTRACE_GETREGS, child, 0, &regs), 0);
    regs.rax = (unsigned long long)-error;
    CHECK_INT(ptrace(PTRACE_SETREGS, child, 0, &regs), 0);
  }
  return true;
}
static void finish(void) {
  int status;
  while (!told->done) {
    CHECK_INT(ptrace(PTRACE_CONT, child, 0, 0), 0);
    CHECK_INT(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) fprintf(stderr, "the process ended with status %#x\n", (unsigned)status);
    CHECK(WIFSTOPPED(status));
    CHECK_INT(WSTOPSIG(status), SIGSTOP);
  }
  do {
    CHECK_INT(ptrace(PTRACE_CONT, child, 0, 0), 0);
    CHECK_INT(waitpid(child, &status, 0), child);
  } while (WIFSTOPPED(status));
  CHECK_INT(status, 0);
}

/* A process that is robbed of its life byte, as by a library that opens and closes the file. */
static pid_t other_process(void) {
  int ready[2];
  CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
  pid_t other = t_fork();
  if (other == 0) {
    cfn_bus_t *bus = t_attach("other");
    char file[32];
    snprintf(file, sizeof file, "live.%02x", cfn_bus_attachment(bus) / CFN_LIVE_LOCKS_PER_FILE);
    close(openat(cfn_region_dir(cfn_bus_region(bus)), file, O_RDONLY));
    CHECK_INT(write(ready[1], "", 1), 1);
    for (;;) pause();
  }
  close(ready[1]);
  CHECK_INT(read(ready[0], &(char){0}, 1), 1);
  close(ready[0]);
  return other;
}

/* ---- what must be true afterwards ---- */

static char spill[CFN_SPILL_BYTES];
static void nothing_left(void) {
  char path[CFN_PATH_BYTES];
  CHECK_INT(cfn_region_path(NULL, t_bus_name(), path), 0);
  t_destroy();
  CHECK(access(path, F_OK) != 0);
  if (spill[0] && access(spill, F_OK) == 0) { /* whoever could not remove it has said so, and where it is */
    CHECK(told->done && told->code < 0 && strstr(told->text, "could not be removed") != NULL);
    CHECK(cfn_spill_end(spill));
  }
}

/* What was put is there, wherever; then nothing is left of it. */
static void check_objects(cfn_bus_t *bus) {
  for (int id = 1; id <= FULL; id++) CHECK_INT(get(bus, id), 0);
  CHECK(get(bus, FIFTH) == 0 || !told->done || told->code < 0);
  CHECK_INT(put(bus, FIFTH), 0);
  CHECK(cfn_bus_reap(bus) >= 0);
  for (int id = 1; id <= FIFTH; id++) CHECK_INT(cfn_bus_object_delete(bus, digest[id]), 0);
  CHECK(cfn_bus_collect(bus) >= 0);
  cfn_repair_t done;
  CHECK_INT(cfn_bus_repair(bus, &done), 0);
  cfn_heap_info_t info;
  CHECK_INT(cfn_bus_heap_info(bus, &info), 0);
  CHECK_INT(info.objects, 0);
  CHECK_INT(info.used_bytes, 0);
  cfn_spill_count_t files = cfn_evict_sweep(cfn_bus_region(bus));
  CHECK_INT(files.kept + files.removed, 0);
}

static void use(cfn_bus_t *bus, const char *name) {
  CHECK_INT(send_id(bus, name, 1), 0);
  int id;
  do {
    id = recv_id(bus, true, NULL, NULL);
    CHECK(id > 0);
  } while (id != 1);
}

/* False: the operation makes fewer than n + 1 calls. */
static bool point(const operation_t *o, long n, int how, int error, int *refused, int *passed) {
  t_case("--op %s --call %ld %s %d", o->name, n, how == FAIL ? "--errno" : "--kill", how == FAIL ? error : how);
  cfn_bus_t *rx = NULL, *tx = NULL;
  if (!o->creates) {
    cfn_wish_t wish = t_small_wish();
    if (o->objects) wish.spill = "/dev/shm"; /* as good as a disk, and faster */
    rx = t_open("rx", &wish);
    for (int id = 1; o->objects && id <= FULL; id++) CHECK_INT(put(rx, id), 0);
    snprintf(spill, sizeof spill, "%s", cfn_bus_region(rx)->super.spill);
    tx = t_attach("tx");
    CHECK_INT(cfn_bus_claim_inbox(rx, 0), 0);
    if (o->sleeper) {
      CHECK(cfn_bus_fileno(rx, 0) >= 0);
      cfn_address_t a;
      CHECK_INT(cfn_bus_find(tx, "rx", &a), 0);
      cfn_event_arm(&cfn_mailbox(cfn_bus_region(tx), a.index)->bell.event);
    }
  }
  pid_t dead = -1;
  if (o->run == do_reap && (dead = t_fork()) == 0) { /* one who died with an inbox */
    cfn_bus_t *bus = t_attach("dead");
    CHECK_INT(cfn_bus_claim_inbox(bus, 0), 0);
    _exit(0);
  }
  if (dead > 0) t_join(dead);
  pid_t other = o->robbed ? other_process() : -1;
  start(o);
  long call = -1;
  bool there = strike(n, how, error, &call);
  if (how == FAIL || !there) {
    finish();
    if (there && !absurd(call, error)) {
      if (told->code < 0) {
        (*refused)++;
        if (say) printf("    call %ld (%ld) %s: %s: %s\n", n, call, strerrorname_np(error), cfn_error_name(told->code), told->text);
        if (!told->text[0]) fprintf(stderr, "call %ld: %s without a text\n", call, cfn_error_name(told->code));
        CHECK(told->text[0]);
      } else {
        (*passed)++;
      }
    }
  }
  if (told->done) CHECK(told->life != CFN_LIFE_DEAD);
  if (other > 0) t_kill(other, false);
  if (o->creates) {
    tx = t_open("rx", NULL);
    use(tx, "rx");
  } else if (o->destroys) {
    cfn_bus_t *again = t_open("rx", NULL);
    CHECK(again);
    t_close(again);
    t_close(rx);
    t_close(tx);
    nothing_left();
    return there;
  } else {
    if (o->run == do_send) {
      int got = 0, id;
      while ((id = recv_id(rx, true, NULL, NULL)) > 0) got += id == 100;
      CHECK(got <= 1);
      if (told->done && told->code == 0) CHECK_INT(got, 1);
      if (told->done && told->code < 0) CHECK_INT(got, 0);
    }
    CHECK_INT(send_id(tx, "rx", 1), 0);
    CHECK_INT(recv_id(rx, true, NULL, NULL), 1);
  }
  if (o->objects) check_objects(tx);
  CHECK(cfn_bus_reap(tx) >= 0);
  cfn_bus_info_t info;
  CHECK_INT(cfn_bus_info(tx, &info), 0);
  CHECK_INT(info.attached, o->creates ? 1 : 2);
  CHECK_INT(info.dead, 0);
  t_check_region(tx, true);
  t_check_nothing_held(tx);
  if (rx) t_close(rx);
  t_close(tx);
  nothing_left();
  return there;
}

int main(int argc, char **argv) {
  const char *op = NULL;
  long only = -1;
  int error = 0;
  bool kill_only = false;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--kill")) kill_only = true;
    else if (!strcmp(argv[i], "--say")) say = true;
    else if (i + 1 < argc && !strcmp(argv[i], "--op")) op = argv[++i];
    else if (i + 1 < argc && !strcmp(argv[i], "--call")) only = atol(argv[++i]);
    else if (i + 1 < argc && !strcmp(argv[i], "--errno")) error = atoi(argv[++i]);
    else {
      fprintf(stderr, "usage: %s [--op NAME] [--call N] [--errno N | --kill] [--say]\n", argv[0]);
      return 2;
    }
  }
  t_guard(300);
  bodies_make();
  for (int id = 1; id <= FIFTH; id++) {
    fill_content(id);
    cfn_sha256(content, LARGE, digest[id]);
  }
  told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(told != MAP_FAILED);
  for (unsigned i = 0; i < OPERATIONS; i++) {
    const operation_t *o = &operations[i];
    if (op && strcmp(op, o->name)) continue;
    int refused = 0, passed = 0;
    long calls = 0;
    for (long n = only < 0 ? 0 : only;; n++) {
      bool there = true;
      for (unsigned e = 0; e < ERRORS && !kill_only; e++)
        if (!error || error == errors[e]) there = point(o, n, FAIL, errors[e], &refused, &passed) && there;
      for (int how = KILL_BEFORE; how <= KILL_AFTER && !error; how++)
        there = point(o, n, how, 0, &refused, &passed) && there;
      if (!there || only >= 0) break;
      calls++;
    }
    printf("  %-8s %3ld system calls: failures told %d, got over %d\n", o->name, calls, refused, passed);
    fflush(stdout);
  }
  t_passed("test_syscalls");
  return 0;
}

#else
int main(void) {
  printf("skip test_syscalls: written for x86-64\n");
  return 77;
}
#endif
