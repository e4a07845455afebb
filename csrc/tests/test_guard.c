/* SIGBUS: what is ours is told as a lost bus; what is not goes to whom it went before. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/guard.h"
#include "mem/region.h"
#include "tests/harness.h"

/* Touches a page behind the end of a file of its own: a fault that is not ours. */
static void fault(void) {
  FILE *f = tmpfile();
  CHECK(f);
  volatile char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
  CHECK(page != MAP_FAILED);
  page[0] = 1;
}
/* Cuts the file of the bus and asks the bus. */
static int cut(cfn_bus_t *bus) {
  char path[CFN_PATH_BYTES + 16];
  CHECK_INT(cfn_region_path(NULL, t_bus_name(), path), 0);
  strcat(path, "/region");
  CHECK_INT(truncate(path, 0), 0);
  return cfn_bus_reap(bus);
}

static void as_info(int number, siginfo_t *info, void *context) {
  (void)context;
  _exit(number == SIGBUS && info->si_signo == SIGBUS && info->si_addr ? 0 : 1);
}
static void as_plain(int number) { _exit(number == SIGBUS ? 0 : 1); }

static void before(void (*handler)(int), void (*action)(int, siginfo_t *, void *)) {
  struct sigaction a = {0};
  if (action) a.sa_sigaction = action, a.sa_flags = SA_SIGINFO;
  else a.sa_handler = handler;
  CHECK_INT(sigaction(SIGBUS, &a, NULL), 0);
}
static int ends(pid_t child) {
  int status;
  CHECK_INT(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0x100 | WEXITSTATUS(status);
}

static void send_it(void) {
  raise(SIGBUS);
  _exit(3);
}
/* How a child ends that had a handler of its own, then opened the bus, and then this. */
static int child_that(const char *name, void (*handler)(int), void (*action)(int, siginfo_t *, void *), void (*meets)(void)) {
  t_case("%s", name);
  pid_t child = t_fork();
  if (child == 0) {
    before(handler, action);
    t_attach("one");
    meets();
    _exit(2);
  }
  return ends(child);
}

int main(void) {
  t_guard(60);
  signal(SIGBUS, SIG_DFL);
  cfn_wish_t wish = t_small_wish();
  pid_t child = t_fork(); /* the parent has no guard: what the children find was there before */
  if (child == 0) {
    t_close(t_open("one", &wish));
    _exit(0);
  }
  t_join(child);

  CHECK_INT(child_that("a handler that wants to know more", NULL, as_info, fault), 0x100);
  CHECK_INT(child_that("a plain handler", as_plain, NULL, fault), 0x100);
  CHECK_INT(child_that("no handler, a fault", SIG_DFL, NULL, fault), SIGBUS);
  CHECK_INT(child_that("no handler, a signal that was sent", SIG_DFL, NULL, send_it), SIGBUS);
  CHECK_INT(child_that("ignored, a fault", SIG_IGN, NULL, fault), SIGBUS);
  CHECK_INT(child_that("ignored, a signal that was sent", SIG_IGN, NULL, send_it), 0x103);

  t_case("more regions than there are guards");
  child = t_fork();
  if (child == 0) {
    static char region[70][4096];
    const cfn_a32 *lost[70];
    for (int i = 0; i < 70; i++) lost[i] = cfn_guard_begin(region[i], sizeof region[i]);
    CHECK(lost[0] != lost[63] && lost[63] != lost[64] && lost[64] == lost[69]);
    cfn_guard_end(region[5]);
    CHECK(cfn_guard_begin(region[69], sizeof region[69]) == lost[5]);
    _exit(0);
  }
  t_join(child);

  t_case("a bus that was cut under its users");
  child = t_fork();
  if (child == 0) {
    setenv("CFNSHM_SIGBUS", "off", 1);
    cut(t_attach("one"));
    _exit(2);
  }
  CHECK_INT(ends(child), SIGBUS);
  t_destroy();
  child = t_fork();
  if (child == 0) {
    setenv("CFNSHM_SIGBUS", "on", 1);
    cfn_bus_t *bus = t_open("one", &wish);
    CHECK_INT(cut(bus), CFN_CORRUPT);
    t_close(bus);
    _exit(0);
  }
  t_join(child);
  t_destroy();
  t_passed("test_guard");
  return 0;
}
