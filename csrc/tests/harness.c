#include "tests/harness.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#ifdef CFN_SIM /* tests/meddler.h: the bus is the simulator's */
#include "sim/kernel.h"
#include "sim/sim.h"
#endif

static char current[200] = "start";

static _Noreturn void fail_end(void) {
  const cfn_failure_t *f = cfn_last_failure();
  if (f->code) fprintf(stderr, "  last failure: %s: %s\n", cfn_error_name(f->code), f->text);
  t_destroy();
  abort();
}
void t_fail(const char *file, int line, const char *what) {
  fprintf(stderr, "%s:%d: [%s] failed: %s\n", file, line, current, what);
  fail_end();
}
void t_fail_int(const char *file, int line, const char *what, long long got, long long want) {
  fprintf(stderr, "%s:%d: [%s] %s is %lld (%s), expected %lld (%s)\n", file, line, current, what, got,
          got < 0 ? cfn_error_name((int)got) : "", want, want < 0 ? cfn_error_name((int)want) : "");
  fail_end();
}
void t_case(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(current, sizeof current, format, args);
  va_end(args);
}
void t_passed(const char *program) { printf("ok %s\n", program); }

#ifdef CFN_SIM
const char *t_bus_name(void) { return kernel_bus_name(); }
void t_destroy(void) { sim_destroy(); }
#else
const char *t_bus_name(void) {
  static char bus_name[64];
  if (!bus_name[0]) snprintf(bus_name, sizeof bus_name, "ctest-%d", (int)getpid());
  return bus_name;
}
void t_destroy(void) { cfn_region_destroy_path(NULL, t_bus_name()); }
#endif

cfn_wish_t t_small_wish(void) {
  cfn_wish_t w = {.size_bytes = 0, .agents = 8, .lane_slots = {8, 8, 8, 8}, .class_wished = 0x3f};
  w.class_chunks[0] = 32;
  w.class_chunks[1] = 8;
  w.class_chunks[2] = 4;
  w.class_chunks[3] = 2;
  w.class_chunks[4] = 2;
  w.refs = 8;
  w.objects = 16;
  w.object_pages = 64;
  w.spill = "off";
  return w;
}

static cfn_bus_t *open_as(const char *agent, const cfn_wish_t *wish, int flags) {
  cfn_bus_t *bus = NULL;
  int created;
  CHECK_INT(cfn_bus_open(NULL, t_bus_name(), wish, flags, &bus, &created), 0);
  if (agent) {
    uint64_t inc;
    int owner;
    CHECK_INT(cfn_bus_act_as(bus, agent, NULL, CFN_ACT_OWN, &inc, &owner), 0);
  }
  return bus;
}
cfn_bus_t *t_open(const char *agent, const cfn_wish_t *wish) {
  cfn_wish_t small = t_small_wish();
  return open_as(agent, wish ? wish : &small, CFN_OPEN_CREATE);
}
cfn_bus_t *t_attach(const char *agent) { return open_as(agent, NULL, 0); }
void t_close(cfn_bus_t *bus) {
  cfn_bus_close(bus);
  cfn_bus_free(bus);
}

uint64_t t_in(double seconds) {
  return seconds == 0 ? 0 : cfn_os_monotonic_ns() + (uint64_t)(seconds * 1e9);
}

int t_send(cfn_bus_t *bus, const char *to, unsigned lane, const void *body, uint32_t bytes,
           double timeout, cfn_receipt_t *receipt) {
  cfn_address_t a;
  int r = cfn_bus_find(bus, to, &a);
  if (r < 0) return r;
  uint64_t deadline = t_in(timeout);
  do {
    r = cfn_bus_send_one(bus, a.index, a.mid, lane, CFN_CODEC_RAW, body, bytes, NULL, 0, 0, deadline,
                         receipt);
  } while (r == CFN_INTERRUPTED);
  return r;
}

int64_t t_recv(cfn_bus_t *bus, double timeout, cfn_wire_t *wire, char body[4096]) {
  char out[sizeof(cfn_wire_t) + 512 + 4096];
  uint64_t deadline = t_in(timeout);
  int64_t r;
  do {
    r = cfn_bus_recv(bus, NULL, 0, CFN_ALL_LANES, 0, deadline, out, sizeof out);
  } while (r == CFN_INTERRUPTED);
  if (r < 0) return r;
  memcpy(wire, out, sizeof *wire);
  const void *from = wire->wire_flags & CFN_WIRE_EXTERNAL
                         ? (const void *)(uintptr_t)wire->external
                         : out + sizeof *wire + wire->sender_bytes + wire->type_bytes;
  memcpy(body, from, wire->body_bytes < 4096 ? wire->body_bytes : 4096);
  return wire->body_bytes;
}
int t_ack(cfn_bus_t *bus, uint64_t token) { return cfn_bus_ack(bus, &token, 1); }

void t_until_waits(cfn_bus_t *bus, const char *agent, unsigned kind) {
  cfn_address_t at;
  cfn_agent_info_t info;
  CHECK_INT(cfn_bus_find(bus, agent, &at), 0);
  do {
    CHECK_INT(cfn_bus_agent_info(bus, &at, &info), 0);
    cfn_os_yield();
  } while (info.waiting != kind);
}

static void print_finding(void *context, const char *severity, const char *finding) {
  int *n = context;
  if (!strstr(finding, "dropped as corrupt")) (*n)++;
  fprintf(stderr, "  %s: %s\n", severity, finding);
}
void t_check_region(cfn_bus_t *bus, bool quiet) {
  int findings = 0;
  CHECK_INT(cfn_region_check(cfn_bus_region(bus), print_finding, &findings), 0);
  if (quiet) CHECK_INT(findings, 0);
}
uint64_t t_heap_used(cfn_bus_t *bus) {
  cfn_heap_info_t info;
  CHECK_INT(cfn_bus_collect(bus) >= 0, 1);
  CHECK_INT(cfn_bus_heap_info(bus, &info), 0);
  return info.used_bytes;
}
void t_check_nothing_held(cfn_bus_t *bus) {
  cfn_region_t *r = cfn_bus_region(bus);
  for (uint32_t k = 0; k < r->geo.chunks; k++)
    CHECK_INT(cfn_own_state(cfn_load_seq(&cfn_chunk(r, k)->own)), CFN_FREE);
}

/* ---- processes, and the end in all cases ---- */

static pid_t root_pid;
static void clean_up(void) {
  if (getpid() == root_pid) t_destroy();
}
static void on_signal(int number) {
  signal(number, SIG_DFL);
  if (getpid() == root_pid) fprintf(stderr, "[%s] ended by signal %d\n", current, number);
  clean_up();
  raise(number);
}
extern void __sanitizer_set_death_callback(void (*)(void)) __attribute__((weak));
void t_guard(unsigned seconds) {
  static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM};
  root_pid = getpid();
  t_bus_name(); /* children use the same */
  for (unsigned i = 0; i < sizeof ends / sizeof ends[0]; i++) signal(ends[i], on_signal);
  if (__sanitizer_set_death_callback) {
    __sanitizer_set_death_callback(clean_up);
  } else {
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
  }
  alarm(seconds);
}
pid_t t_fork(void) {
  fflush(NULL);
  pid_t parent = getpid(), child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
  }
  return child;
}
void t_join(pid_t child) {
  int status;
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_INT(WEXITSTATUS(status), 0);
}
void t_kill(pid_t child, bool zombie) {
  CHECK_INT(kill(child, SIGKILL), 0);
  siginfo_t info;
  CHECK_INT(waitid(P_PID, (id_t)child, &info, WEXITED | (zombie ? WNOWAIT : 0)), 0);
}
double t_now(void) { return (double)cfn_os_monotonic_ns() / 1e9; }
