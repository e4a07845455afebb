/* An event: one 32-bit futex word that any number of processes may wait on and ring. Doorbells,
 * "there is room", "it was acked" and "agents changed" are all this one mechanism.
 *
 *   {count:28 | FIFO_RINGING:1 | FIFO:1 | WAKING:1 | WAIT:1}
 *
 *   waiter   b = arm()            sets WAIT (or FIFO), then looks at its condition AGAIN
 *            sleep(b)             only while the word is still b
 *            A waiter never clears a bit.
 *   ringer   makes the condition true FIRST, then
 *            CAS {c, WAIT} -> {c+1, WAKING};  futex_wake(all);  while the count is still c+1: CAS WAKING
 *            away, and leave a WAIT that was set since
 *
 * Why each part:
 * - The count changes at every ring, because FUTEX_WAKE passes a SIGSTOPped sleeper by, and the
 *   kernel compares the word again at SIGCONT: an unchanged word would put it back to sleep.
 * - WAIT becomes WAKING and not nothing: a ringer that dies or is stopped between its CAS and its
 *   wake leaves WAKING behind, and the next ringer wakes in its stead. So a sleeper implies WAIT or
 *   WAKING, always. WAKING is cleared only by somebody who did a wake after making that very word.
 * - WAKING is cleared also when a waiter armed meanwhile (its WAIT stays): left standing under many
 *   waiters it would make every later ring wake all of them.
 * - Dekker: the waiter's arm and re-check, and the ringer's commit and load of the word, are all
 *   seq_cst. An acquire load may become a weaker instruction on ARM and see the past.
 * - FIFO/FIFO_RINGING are the same pair for a receiver that sleeps in poll() on its doorbell FIFO.
 *
 * Wrap: a waiter stopped between arm and sleep while exactly 2^28 rings pass; the safety tick
 * bounds even that.
 */
#ifndef CFN_SYNC_EVENT_H
#define CFN_SYNC_EVENT_H

#include "mem/region.h"

#define CFN_EVENT_WAIT 1u
#define CFN_EVENT_WAKING 2u
#define CFN_EVENT_FIFO 4u
#define CFN_EVENT_FIFO_RINGING 8u
#define CFN_EVENT_ONE 16u /* the count's unit */
#define CFN_EVENT_ANY 15u

/* Which FIFO a doorbell event has; kind 0 = none, 'm' = of a mailbox, 'a' = of an attachment. */
typedef struct cfn_doorbell {
  const cfn_region_t *region;
  char kind;
  uint32_t index;
} cfn_doorbell_t;

/* Returns the word to sleep on. */
static inline uint32_t cfn_event_arm(cfn_event_shm_t *e) {
  return cfn_or_seq(&e->word, CFN_EVENT_WAIT) | CFN_EVENT_WAIT;
}
static inline void cfn_event_arm_fifo(cfn_event_shm_t *e) { cfn_or_seq(&e->word, CFN_EVENT_FIFO); }

/* 0 something may have happened, -EINTR, -ETIMEDOUT. */
int cfn_event_sleep(cfn_event_shm_t *e, uint32_t armed, uint64_t timeout_ns);

void cfn_event_ring_slow(cfn_event_shm_t *e, cfn_doorbell_t bell);
/* Wakes everybody. Nothing but one load while nobody waits. */
static inline void cfn_event_ring(cfn_event_shm_t *e, cfn_doorbell_t bell) {
  if (cfn_load_seq(&e->word) & CFN_EVENT_ANY) cfn_event_ring_slow(e, bell);
}
static inline void cfn_event_ring_futex(cfn_event_shm_t *e) {
  cfn_event_ring(e, (cfn_doorbell_t){0, 0, 0});
}
/* Wakes about `n` of many sleepers, for whom there is room; the others stay asleep. Only for an
 * event with ONE ringer that rings again as it goes on: WAIT stays set meanwhile. */
void cfn_event_ring_some(cfn_event_shm_t *e, int n);

/* Opens the FIFO of a doorbell (made if missing). fd or -errno. */
int cfn_doorbell_open(cfn_doorbell_t bell);

#endif
