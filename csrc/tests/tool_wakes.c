/* Lost wake-ups. Pairs of processes on one processor hand a message to and fro, each asleep until the other's
 * wake-up, while processes are stopped and continued at random. Built with CFN_NO_TICK no wait ends by itself:
 * one wake-up that is lost stands still for good, and is seen at once.
 *
 *   tool_wakes [--pairs N] [--wakes N] [--minutes M] [--stops S] [--seed N]
 *
 * Half of the pairs hand one message to and fro (the doorbell), half fill an inbox of 8 places as fast as they can
 * (doorbell and room). S are stops a second. Counted are sleeps that a wake-up ended.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/bus.h"
#include "base/os.h"
#include "tests/harness.h"

#define MOST 64

static struct {
  _Atomic int stop;
  struct {
    _Atomic uint64_t sleeps, messages;
    _Atomic int ended;
  } process[2 * MOST];
} *shared;
static int pairs = 8;

static void note(cfn_bus_t *bus, int me, uint64_t messages) {
  cfn_attach_shm_t *slot = cfn_attachment(cfn_bus_region(bus), cfn_bus_attachment(bus));
  atomic_store_explicit(&shared->process[me].sleeps, cfn_load_relaxed(&slot->counter[CFN_COUNT_WAITS]),
                        memory_order_relaxed);
  atomic_store_explicit(&shared->process[me].messages, messages, memory_order_relaxed);
}

static void must(int64_t r, const char *what) {
  if (r >= 0) return;
  fprintf(stderr, "tool_wakes: %s: %s\n", what, cfn_last_failure()->text);
  abort();
}

static void give(cfn_bus_t *bus, const cfn_address_t *to, uint64_t number) {
  int r;
  cfn_store_relaxed(&bus->spin, 0); /* sleep, always */
  do {
    r = cfn_bus_send_one(bus, to->index, to->mid, CFN_LANE_NORMAL, 0, &number, sizeof number, NULL, 0, 0, CFN_FOREVER,
                         NULL);
  } while (r == CFN_INTERRUPTED);
  must(r, "send");
}
static uint64_t take(cfn_bus_t *bus) {
  _Alignas(8) uint8_t out[512];
  int64_t r;
  cfn_store_relaxed(&bus->spin, 0);
  do {
    r = cfn_bus_recv(bus, NULL, 0, CFN_ALL_LANES, 0, CFN_FOREVER, out, sizeof out);
  } while (r == CFN_INTERRUPTED);
  must(r, "recv");
  const cfn_wire_t *w = (const void *)out;
  uint64_t number, token = w->token;
  memcpy(&number, out + w->total_bytes - sizeof number, sizeof number);
  must(cfn_bus_ack(bus, &token, 1), "ack");
  return number;
}

/* 0 is the last message of all. */
static uint64_t next_number(uint64_t number) {
  return atomic_load_explicit(&shared->stop, memory_order_relaxed) ? 0 : number + 1;
}
static void ping(cfn_bus_t *bus, int me, const cfn_address_t *to) {
  for (uint64_t n = 1; n; n = next_number(n)) {
    give(bus, to, n);
    CHECK_INT(take(bus), n);
    note(bus, me, n);
  }
  give(bus, to, 0);
}
static void pong(cfn_bus_t *bus, int me, const cfn_address_t *to) {
  for (uint64_t n, expected = 1; (n = take(bus)); expected++) {
    CHECK_INT(n, expected);
    give(bus, to, n);
    note(bus, me, n);
  }
}
static void flood(cfn_bus_t *bus, int me, const cfn_address_t *to) {
  for (uint64_t n = 1; n; n = next_number(n)) {
    give(bus, to, n);
    note(bus, me, n);
  }
  give(bus, to, 0);
}
static void sink(cfn_bus_t *bus, int me, const cfn_address_t *to) {
  (void)to;
  for (uint64_t n, expected = 1; (n = take(bus)); expected++) {
    CHECK_INT(n, expected);
    note(bus, me, n);
  }
}

static _Noreturn void process(int me) {
  static void (*const parts[])(cfn_bus_t *, int, const cfn_address_t *) = {ping, pong, flood, sink};
  char mine[16], its[16];
  cfn_address_t to;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  snprintf(mine, sizeof mine, "p%d", me);
  snprintf(its, sizeof its, "p%d", me ^ 1);
  cfn_bus_t *bus = t_attach(mine);
  must(cfn_bus_claim_inbox(bus, 0), "claim");
  int r;
  do {
    r = cfn_bus_wait_agent(bus, its, CFN_FOREVER, &to);
  } while (r == CFN_INTERRUPTED);
  must(r, "wait for the other");
  parts[me % 4](bus, me, &to);
  atomic_store(&shared->process[me].ended, 1);
  t_close(bus);
  _exit(0);
}

static uint64_t sum(bool messages) {
  uint64_t n = 0;
  for (int i = 0; i < 2 * pairs; i++) n += messages ? shared->process[i].messages : shared->process[i].sleeps;
  return n;
}

int main(int argc, char **argv) {
  double minutes = 1, stops = 200;
  uint64_t wakes = 0, seed = cfn_os_random() >> 32;
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *v = argv[i + 1];
    if (!strcmp(argv[i], "--pairs")) pairs = atoi(v);
    else if (!strcmp(argv[i], "--wakes")) wakes = strtoull(v, NULL, 10);
    else if (!strcmp(argv[i], "--minutes")) minutes = atof(v);
    else if (!strcmp(argv[i], "--stops")) stops = atof(v);
    else if (!strcmp(argv[i], "--seed")) seed = strtoull(v, NULL, 10);
    else pairs = 0;
  }
  if (argc % 2 == 0 || pairs < 2 || pairs > MOST) {
    fprintf(stderr, "usage: %s [--pairs 2..%d] [--wakes N] [--minutes M] [--stops S] [--seed N]\n", argv[0], MOST);
    return 2;
  }
  t_guard(0);
#ifndef CFN_NO_TICK
  printf("tool_wakes: built without CFN_NO_TICK: a lost wake-up would be hidden for up to 2 s\n");
#endif
  cpu_set_t all, one;
  CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  int last = 0;
  for (int i = 0; i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &all)) last = i;
  CPU_SET(last, &one);
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  cfn_wish_t wish = t_small_wish();
  wish.agents = 2 * MOST;
  wish.class_chunks[0] = 64 * MOST;
  cfn_bus_t *watcher = t_open(NULL, &wish);
  pid_t pid[2 * MOST];
  uint64_t awake_at[2 * MOST] = {0};
  for (int i = 0; i < 2 * pairs; i++) {
    pid[i] = t_fork();
    if (pid[i]) continue;
    sched_setaffinity(0, sizeof one, &one);
    process(i);
  }
  double start = t_now(), next = start, shown = start, moved[2 * MOST] = {0};
  uint64_t before[2 * MOST] = {0}, stopped = 0;
  uint64_t dice = seed | 1;
  printf("wakes: %d pairs on one processor, seed %llu, %g stops a second, %s\n", pairs, (unsigned long long)seed, stops,
#ifdef CFN_NO_TICK
         "no safety tick"
#else
         "with the safety tick"
#endif
  );
  fflush(stdout);
  int ended = 0;
  bool over = false;
  while (ended < 2 * pairs) {
    nanosleep(&(struct timespec){0, 1000000}, NULL);
    double now = t_now();
    uint64_t ns = cfn_os_monotonic_ns();
    for (int i = 0; i < 2 * pairs; i++)
      if (awake_at[i] && (over || awake_at[i] <= ns)) {
        kill(pid[i], SIGCONT);
        awake_at[i] = 0;
        moved[i] = now;
      }
    for (; !over && stops > 0 && next < now; next += 1 / stops) {
      dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
      int i = (int)((dice >> 33) % (uint64_t)(2 * pairs));
      if (awake_at[i]) continue;
      kill(pid[i], SIGSTOP);
      awake_at[i] = ns + (dice >> 40) % 5000000;
      stopped++;
    }
    for (int i = 0; i < 2 * pairs; i++) { /* a pair stands still while both of it may run: a wake-up was lost */
      uint64_t n = shared->process[i].messages + shared->process[i ^ 1].messages;
      bool quiet = awake_at[i] > 0 || awake_at[i ^ 1] > 0 || (shared->process[i].ended && shared->process[i ^ 1].ended);
      if (n != before[i] || quiet || moved[i] == 0) moved[i] = now;
      before[i] = n;
      if (now - moved[i] < 20) continue;
      fprintf(stderr, "tool_wakes: LOST: pair %d stands still after %llu messages\n", i / 2, (unsigned long long)n);
      abort();
    }
    if (now - shown > 30) {
      printf("  %5.0f s  %12llu sleeps  %12llu messages  %8llu stops\n", now - start, (unsigned long long)sum(false),
             (unsigned long long)sum(true), (unsigned long long)stopped);
      fflush(stdout);
      shown = now;
    }
    if (!over && (wakes ? sum(false) >= wakes : now - start > minutes * 60)) {
      atomic_store(&shared->stop, 1);
      over = true;
    }
    int status;
    while (waitpid(-1, &status, WNOHANG) > 0) {
      CHECK_INT(status, 0);
      ended++;
    }
  }
  printf("  %llu wake-ups in %.0f s (%.0f/s) under %llu stops, none lost\n", (unsigned long long)sum(false), t_now() - start,
         (double)sum(false) / (t_now() - start), (unsigned long long)stopped);
  CHECK(cfn_bus_reap(watcher) == 0);
  t_check_region(watcher, true);
  t_check_nothing_held(watcher);
  t_close(watcher);
  t_destroy();
  return 0;
}
