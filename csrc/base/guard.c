#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GUARDS 64 /* regions mapped by one process at a time */

/* Plain atomics, not those of base/atomics.h: a handler runs between any two instructions, also of a simulated
 * process. */
static struct {
  _Atomic uintptr_t base; /* 0 unused, 1 being filled */
  _Atomic size_t bytes;
  cfn_a32 lost;
} guards[GUARDS];
static cfn_a32 never;
static struct sigaction before;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool wanted;

static void pass_on(int number, siginfo_t *info, void *context) {
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(number, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(number);
  } else if (info->si_code > 0 || before.sa_handler == SIG_DFL) {
    /* The fault comes again, to nobody; a signal that was sent must be sent again. */
    sigaction(number, &before, NULL);
    if (info->si_code <= 0) raise(number);
  }
}

static void on_fault(int number, siginfo_t *info, void *context) {
  int keep = errno;
  uintptr_t at = (uintptr_t)info->si_addr;
  for (unsigned i = 0; i < GUARDS && info->si_code > 0; i++) {
    uintptr_t base = atomic_load(&guards[i].base);
    size_t bytes = atomic_load(&guards[i].bytes);
    if (base <= 1 || at < base || at - base >= bytes) continue;
    /* First: who reads the zeros and then looks here must find it. */
    atomic_store((_Atomic uint32_t *)(void *)&guards[i].lost, 1);
    void *zeros = mmap((void *)base, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    errno = keep;
    if (zeros != MAP_FAILED) return;
  }
  pass_on(number, info, context);
  errno = keep;
}

static void install(void) {
  const char *choice = getenv("CFNSHM_SIGBUS");
  if (choice && !strcmp(choice, "off")) return;
  /* NODEFER: another thread's fault, or one in a handler that we call, must not wait for this one. */
  struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART};
  sigemptyset(&ours.sa_mask);
  wanted = sigaction(SIGBUS, &ours, &before) == 0;
}

const cfn_a32 *cfn_guard_begin(void *base, size_t bytes) {
  pthread_once(&once, install);
  for (unsigned i = 0; wanted && i < GUARDS; i++) {
    uintptr_t unused = 0;
    if (!atomic_compare_exchange_strong(&guards[i].base, &unused, 1)) continue;
    atomic_store((_Atomic uint32_t *)(void *)&guards[i].lost, 0);
    atomic_store(&guards[i].bytes, bytes);
    atomic_store(&guards[i].base, (uintptr_t)base);
    return &guards[i].lost;
  }
  return &never;
}

void cfn_guard_end(const void *base) {
  for (unsigned i = 0; i < GUARDS; i++)
    if (atomic_load(&guards[i].base) == (uintptr_t)base) atomic_store(&guards[i].base, 0);
}
