/* Benchmarks of the C core, each with the ledger checked: order per sender, nothing lost or twice.
 *
 *   tool_bench one   [--messages N] [--bytes B] [--batch K]      one sender, one receiver
 *   tool_bench many  [--senders S] [--messages N] [--bytes B]    S sender processes to one inbox
 *   tool_bench pingpong [--messages N] [--same-core]             round trips, and a bare futex beside it
 *   tool_bench idle  [--agents A] [--seconds T]                  CPU of A sleeping agents
 *
 * S = 4096 needs `ulimit -u`; senders block on a full lane, they do not spin.
 */
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "tests/harness.h"

static struct {
  long senders, messages, bytes, batch, agents, seconds;
  bool same_core;
} opt = {1, 2000000, 64, 1, 708, 10, false};

static double now(void) { return (double)cfn_os_monotonic_ns() / 1e9; }

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static cfn_wish_t wish_for(long agents) {
  return (cfn_wish_t){.agents = (uint32_t)agents,
                      .lane_slots = {16, 16, 1024, 16},
                      .size_bytes = (48u << 20) + (uint64_t)agents * 12288};
}

/* ---- throughput ---- */

static void sender(long id, cfn_a32 *go) {
  char name[32], body[65536] = {0};
  snprintf(name, sizeof name, "s%ld", id);
  cfn_bus_t *bus = t_attach(NULL);
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(bus, "sink", &to), 0);
  cfn_add_seq(&go[1], 1);
  while (cfn_load_seq(&go[0]) == 0) cfn_os_futex_wait(&go[0], 0, 1000000000);
  cfn_outgoing_t batch[CFN_FRAME_MESSAGES];
  uint64_t stamps[CFN_FRAME_MESSAGES][2];
  for (long n = 0; n < opt.messages;) {
    long k = opt.batch < opt.messages - n ? opt.batch : opt.messages - n;
    int r;
    if (k == 1) {
      memcpy(body, &(uint64_t[2]){(uint64_t)id, (uint64_t)n}, 16);
      do {
        r = cfn_bus_send_one(bus, to.index, to.mid, CFN_LANE_NORMAL, 0, body, (uint32_t)opt.bytes,
                             NULL, 0, 0, CFN_FOREVER, NULL);
      } while (r == CFN_INTERRUPTED);
    } else {
      for (long i = 0; i < k; i++) {
        stamps[i][0] = (uint64_t)id;
        stamps[i][1] = (uint64_t)(n + i);
        batch[i] = (cfn_outgoing_t){.body = stamps[i], .body_bytes = 16};
      }
      do {
        r = cfn_bus_send(bus, &to, CFN_LANE_NORMAL, batch, (uint32_t)k, CFN_FOREVER, NULL);
      } while (r == CFN_INTERRUPTED);
    }
    CHECK_INT(r, 0);
    n += k;
  }
  t_close(bus);
  _exit(0);
}

static void throughput(void) {
  cfn_wish_t wish = wish_for(opt.senders + 8);
  cfn_bus_t *sink = t_open("sink", &wish);
  cfn_a32 *go = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  double begin = now();
  for (long i = 0; i < opt.senders; i++) {
    pid_t p = fork();
    if (p < 0) t_fail(__FILE__, __LINE__, "fork");
    if (p == 0) sender(i, go);
  }
  while (cfn_load_seq(&go[1]) < (uint32_t)opt.senders) sched_yield();
  double start = now();
  cfn_store_seq(&go[0], 1);
  cfn_os_futex_wake(&go[0], 1 << 30);
  uint64_t *next = calloc((size_t)opt.senders, sizeof *next);
  static char out[1 << 18];
  static uint32_t offsets[1024];
  uint64_t got = 0, total = (uint64_t)(opt.senders * opt.messages);
  while (got < total) {
    size_t used;
    int64_t n;
    do {
      n = cfn_bus_recv_many(sink, NULL, 0, CFN_ALL_LANES, 256, CFN_FOREVER, out, sizeof out, offsets,
                            &used);
    } while (n == CFN_INTERRUPTED);
    CHECK(n > 0);
    for (int64_t i = 0; i < n; i++) {
      const cfn_wire_t *w = (const void *)(out + offsets[i]);
      uint64_t stamp[2];
      const char *from = w->wire_flags & CFN_WIRE_EXTERNAL
                             ? (const char *)(uintptr_t)w->external
                             : (const char *)(w + 1) + w->sender_bytes + w->type_bytes;
      memcpy(stamp, from, sizeof stamp);
      CHECK(stamp[0] < (uint64_t)opt.senders);
      CHECK_INT(stamp[1], next[stamp[0]]); /* order; a loss or a double shows here too */
      next[stamp[0]]++;
    }
    got += (uint64_t)n;
    CHECK_INT(cfn_bus_ack_batch(sink, out, offsets, (uint32_t)n), 0);
  }
  double end = now();
  int status, failed = 0;
  while (wait(&status) > 0) failed += status != 0;
  CHECK_INT(failed, 0);
  free(next);
  cfn_bus_reap(sink);
  t_check_region(sink, true);
  t_check_nothing_held(sink);
  t_close(sink);
  t_destroy();
  printf("%llu messages, exactly once, in order\n", (unsigned long long)total);
  printf("{\"senders\":%ld,\"bytes\":%ld,\"batch\":%ld,\"messages\":%llu,\"messages_per_second\":%.0f,"
         "\"seconds\":%.3f,\"seconds_start\":%.3f}\n",
         opt.senders, opt.bytes, opt.batch, (unsigned long long)total, (double)total / (end - start),
         end - start, start - begin);
}

/* ---- round trips ---- */

static int64_t receive(cfn_bus_t *bus, const void *ack, char *out, size_t room) {
  int64_t n;
  do {
    n = cfn_bus_recv_next(bus, ack, CFN_ALL_LANES, 0, CFN_FOREVER, out, room);
    ack = n == CFN_INTERRUPTED ? NULL : ack;
  } while (n == CFN_INTERRUPTED);
  CHECK(n > 0);
  return n;
}

static void player(const char *name, const char *peer, long rounds, bool first, double *took) {
  cfn_bus_t *bus = t_attach(name);
  cfn_address_t to;
  int r;
  do {
    r = cfn_bus_wait_agent(bus, peer, CFN_FOREVER, &to);
  } while (r == CFN_INTERRUPTED);
  char out[4096], body[64] = {0};
  static char before[4096];
  const void *ack = NULL;
  for (long i = 0; i < rounds; i++) {
    double begin = now();
    if (first)
      CHECK_INT(cfn_bus_send_one(bus, to.index, to.mid, 2, 0, body, 64, NULL, 0, 0, CFN_FOREVER, NULL), 0);
    receive(bus, ack, out, sizeof out);
    memcpy(before, out, sizeof(cfn_wire_t));
    ack = before;
    if (!first)
      CHECK_INT(cfn_bus_send_one(bus, to.index, to.mid, 2, 0, body, 64, NULL, 0, 0, CFN_FOREVER, NULL), 0);
    if (took) took[i] = (now() - begin) * 1e6;
  }
  CHECK_INT(t_ack(bus, ((const cfn_wire_t *)(const void *)before)->token), 0);
  t_close(bus);
}

static void bare_wait(cfn_a32 *word, uint32_t until) {
  uint32_t w;
  while ((w = cfn_load_seq(word)) != until) cfn_os_futex_wait(word, w, 1000000000);
}
static void bare_ring(cfn_a32 *word, uint32_t value) {
  cfn_store_seq(word, value);
  cfn_os_futex_wake(word, 1);
}

static void pingpong(void) {
  cfn_wish_t wish = wish_for(8);
  cfn_bus_t *holder = t_open(NULL, &wish);
  long rounds = opt.messages;
  int other = opt.same_core ? 0 : 1;
  double *bus_us = calloc((size_t)rounds, sizeof *bus_us), *bare_us = calloc((size_t)rounds, sizeof *bare_us);
  cfn_a32 *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t p = fork();
  if (p == 0) {
    pin(other);
    player("pong", "ping", rounds, false, NULL);
    for (uint32_t i = 1; i <= (uint32_t)rounds; i++) {
      bare_wait(&words[0], i);
      bare_ring(&words[64], i);
    }
    _exit(0);
  }
  pin(0);
  player("ping", "pong", rounds, true, bus_us);
  for (uint32_t i = 1; i <= (uint32_t)rounds; i++) {
    double begin = now();
    bare_ring(&words[0], i);
    bare_wait(&words[64], i);
    bare_us[i - 1] = (now() - begin) * 1e6;
  }
  waitpid(p, NULL, 0);
  qsort(bus_us, (size_t)rounds, sizeof *bus_us, compare);
  qsort(bare_us, (size_t)rounds, sizeof *bare_us, compare);
  printf("{\"same_core\":%s,\"rounds\":%ld,\"bus_p50_us\":%.2f,\"bus_p99_us\":%.2f,\"futex_p50_us\":%.2f,"
         "\"futex_p99_us\":%.2f,\"ratio_p50\":%.2f}\n",
         opt.same_core ? "true" : "false", rounds, bus_us[rounds / 2], bus_us[rounds * 99 / 100],
         bare_us[rounds / 2], bare_us[rounds * 99 / 100], bus_us[rounds / 2] / bare_us[rounds / 2]);
  t_close(holder);
  t_destroy();
}

/* ---- idle ---- */

static void idle(void) {
  cfn_wish_t wish = wish_for(opt.agents + 8);
  cfn_bus_t *holder = t_open("holder", &wish);
  pid_t *pids = calloc((size_t)opt.agents, sizeof *pids);
  for (long i = 0; i < opt.agents; i++) {
    pids[i] = fork();
    if (pids[i] == 0) {
      char name[32], body[4096];
      cfn_wire_t w;
      snprintf(name, sizeof name, "i%ld", i);
      cfn_bus_t *bus = t_attach(name);
      t_send(bus, "holder", CFN_LANE_NORMAL, "r", 1, 1e6, NULL);
      t_recv(bus, 1e6, &w, body);
      _exit(0);
    }
  }
  cfn_wire_t w;
  char body[4096];
  for (long i = 0; i < opt.agents; i++) {
    CHECK_INT(t_recv(holder, 60, &w, body), 1);
    t_ack(holder, w.token);
  }
  static cfn_a32 nobody_rings;
  cfn_os_futex_wait(&nobody_rings, 0, 6000000000u); /* until every tick has grown to its longest */
  uint64_t ticks[2] = {0, 0};
  for (int pass = 0; pass < 2; pass++) {
    for (long i = 0; i < opt.agents; i++) {
      char path[64];
      unsigned long long ns = 0;
      snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pids[i]);
      FILE *f = fopen(path, "r");
      if (f && fscanf(f, "%llu", &ns) == 1) ticks[pass] += ns;
      if (f) fclose(f);
    }
    if (pass == 0) cfn_os_futex_wait(&nobody_rings, 0, (uint64_t)opt.seconds * 1000000000u);
  }
  for (long i = 0; i < opt.agents; i++) kill(pids[i], SIGKILL);
  while (wait(NULL) > 0) {
  }
  cfn_bus_reap(holder);
  printf("{\"agents\":%ld,\"seconds\":%ld,\"percent_of_one_core\":%.3f}\n", opt.agents, opt.seconds,
         (double)(ticks[1] - ticks[0]) / 1e7 / (double)opt.seconds);
  t_close(holder);
  t_destroy();
}

/* Taking a lock that nobody wants, and giving it back. */
static void lock(void) {
  cfn_bus_t *bus = t_open("a", NULL);
  cfn_held_t held;
  double begin = t_now();
  for (long i = 0; i < opt.messages; i++) {
    CHECK_INT(cfn_bus_lease_take(bus, CFN_LEASE_LOCK, "repo", 4, 0, 0, &held, NULL), 0);
    CHECK_INT(cfn_bus_lease_give_back(bus, &held), 0);
  }
  printf("{\"locks\":%ld,\"ns\":%.1f}\n", opt.messages, (t_now() - begin) / (double)opt.messages * 1e9);
  t_close(bus);
  t_destroy();
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  for (int i = 2; i < argc; i++) {
    long value = i + 1 < argc ? atol(argv[i + 1]) : 0;
    if (!strcmp(argv[i], "--senders")) opt.senders = value, i++;
    else if (!strcmp(argv[i], "--messages")) opt.messages = value, i++;
    else if (!strcmp(argv[i], "--bytes")) opt.bytes = value < 16 ? 16 : value > 65000 ? 65000 : value, i++;
    else if (!strcmp(argv[i], "--batch")) opt.batch = value > (long)CFN_FRAME_MESSAGES ? (long)CFN_FRAME_MESSAGES : value, i++;
    else if (!strcmp(argv[i], "--agents")) opt.agents = value, i++;
    else if (!strcmp(argv[i], "--seconds")) opt.seconds = value, i++;
    else if (!strcmp(argv[i], "--same-core")) opt.same_core = true;
    else {
      fprintf(stderr, "unknown option %s\n", argv[i]);
      return 2;
    }
  }
  if (!strcmp(what, "one") || !strcmp(what, "many")) throughput();
  else if (!strcmp(what, "pingpong")) pingpong();
  else if (!strcmp(what, "idle")) idle();
  else if (!strcmp(what, "lock")) lock();
  else {
    fprintf(stderr, "usage: tool_bench one|many|pingpong|idle|lock [--senders S] [--messages N] [--bytes B]\n"
                    "       [--batch K] [--same-core] [--agents A] [--seconds T]\n"
                    "4,096 senders to one inbox: tool_bench many --senders 4096 --messages 500\n");
    return 2;
  }
  return 0;
}
