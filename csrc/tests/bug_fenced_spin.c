/* A reader that waits (deadline FOREVER) on an empty inbox, whose inbox is stolen: it must return
 * AGENT_FENCED. It spins instead: receive() finds `ready` (fenced), looks again, take() says EMPTY
 * without asking whether it is fenced, and so on for ever at 100 % of a core. */
#include <pthread.h>
#include <time.h>

#include "tests/harness.h"

static cfn_bus_t *b;
static cfn_a32 returned;
static int64_t result;
static void *reader(void *unused) {
  (void)unused;
  char out[4096];
  do {
    result = cfn_bus_recv(b, NULL, 0, CFN_ALL_LANES, 0, t_in(3), out, sizeof out);
  } while (result == CFN_INTERRUPTED);
  cfn_store_seq(&returned, 1);
  return NULL;
}
int main(void) {
  t_guard(20);
  b = t_open("b", NULL);
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
  cfn_bus_t *thief = t_attach("b");
  pthread_t t;
  CHECK_INT(pthread_create(&t, NULL, reader, NULL), 0);
  cfn_a64 *waiting = &cfn_attachment(cfn_bus_region(b), cfn_bus_attachment(b))->waiting;
  while (cfn_load_seq(waiting) == 0) {
  }
  CHECK_INT(cfn_bus_claim_inbox(thief, 1), 0);
  pthread_join(t, NULL);
  struct timespec cpu;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  fprintf(stderr, "processor time used while fenced: %.1f s\n", (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
  CHECK_INT(result, CFN_AGENT_FENCED);
  t_close(thief);
  t_close(b);
  t_destroy();
  t_passed("bug_fenced_spin");
  return 0;
}
