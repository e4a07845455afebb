#include "sync/event.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "base/os.h"

int cfn_event_sleep(cfn_event_shm_t *e, uint32_t armed, uint64_t timeout_ns) {
  int r = cfn_os_futex_wait(&e->word, armed, timeout_ns);
  return r == -EAGAIN ? 0 : r;
}

int cfn_doorbell_open(cfn_doorbell_t bell) {
  char name[32];
  snprintf(name, sizeof name, "bell.%c%u", bell.kind, bell.index);
  return cfn_os_fifo_open(cfn_region_dir(bell.region), name);
}

static void ring_fifo(cfn_doorbell_t bell) {
  /* Opened anew each time: this happens only when the receiver sleeps in poll(), whose wake-up costs
   * ten times as much, and no descriptor is kept for every receiver ever written to. */
  int fd = bell.kind ? cfn_doorbell_open(bell) : -1;
  if (fd < 0) return; /* EMFILE and the like: the receiver's own tick covers it */
  cfn_os_fifo_ring(fd);
  close(fd);
}

void cfn_event_ring_slow(cfn_event_shm_t *e, cfn_doorbell_t bell) {
  for (;;) {
    uint32_t b = cfn_load_seq(&e->word);
    if (!(b & CFN_EVENT_ANY)) return;
    uint32_t rung = (b & ~CFN_EVENT_ANY) + CFN_EVENT_ONE;
    uint32_t marks = 0;
    if (b & (CFN_EVENT_WAIT | CFN_EVENT_WAKING)) marks |= CFN_EVENT_WAKING;
    if (b & (CFN_EVENT_FIFO | CFN_EVENT_FIFO_RINGING)) marks |= CFN_EVENT_FIFO_RINGING;
    if (!cfn_cas32_seq(&e->word, b, rung | marks)) continue; /* somebody armed or rang: look again */
    /* dies or stops here: the marks stay, the next ringer does what follows */
    if (marks & CFN_EVENT_WAKING) cfn_os_futex_wake(&e->word, INT_MAX);
    if (marks & CFN_EVENT_FIFO_RINGING) ring_fifo(bell);
    for (;;) { /* our marks go, also if somebody armed meanwhile; a newer ring's marks are its own */
      uint32_t now = cfn_load_seq(&e->word);
      if ((now ^ rung) & ~CFN_EVENT_ANY) return;
      if (cfn_cas32_seq(&e->word, now, now & ~marks)) return;
    }
  }
}

void cfn_event_ring_some(cfn_event_shm_t *e, int n) {
  uint32_t b = cfn_load_seq(&e->word);
  if (!(b & CFN_EVENT_ANY)) return;
  if (b == ((b & ~CFN_EVENT_ANY) | CFN_EVENT_WAIT) &&
      cfn_cas32_seq(&e->word, b, b + CFN_EVENT_ONE) &&
      /* dies here: WAIT is still set; whoever takes the inbox over rings it */
      cfn_os_futex_wake(&e->word, n) >= n)
    return;
  cfn_event_ring_slow(e, (cfn_doorbell_t){0, 0, 0}); /* fewer than n slept: retire the WAIT bit */
}
