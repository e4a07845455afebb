/* A ring: a bounded array of 8-byte slots, filled by many, emptied by one consumer at a time.
 *
 *   slot p%cap   {lap(p), 0} empty for position p      {lap(p), k+1} holds chunk k
 *                {lap(p)+1, 0} consumed, empty for position p+cap
 *
 * A message is published by ONE CAS of a slot, {lap, 0} -> {lap, k+1}, after its chunk is complete.
 * Nothing is reserved before: a sender killed or stopped at any instruction holds no slot in any
 * state, so it can neither wedge a consumer nor another sender.
 *
 *   who writes      slot: senders fill, the consumer (or who retires the ring) empties; tail: any
 *                   sender by CAS t -> t+1; head: CAS-max
 *   progress        send is lock-free: a failed CAS is another's success; loops are bounded and
 *                   report AGAIN
 *   order           the slots' order is the one total order of the ring; per sender it is the order
 *                   of its sends, since a sender publishes one frame at a time
 *   dies            before the CAS: nothing happened, its chunk is MINE and announced.
 *                   after it: the message is there; tail may lag by one, the next sender helps
 *   invariants      tail in [filled, filled+1]; a slot's lap never falls; slot p+1 is filled after
 *                   p; a chunk is in at most one slot; a referenced chunk is not FREE
 *   wrap            lap has 40 bits: 2^40 * cap messages while one actor is stopped
 */
#ifndef CFN_MSG_RING_H
#define CFN_MSG_RING_H

#include "mem/slab.h"
#include "sync/event.h"

typedef struct cfn_ring {
  cfn_a64 *slot;
  cfn_a64 *tail;
  cfn_a64 *head;
  uint32_t log2;
} cfn_ring_t;

static inline uint32_t cfn_ring_slots(const cfn_ring_t *q) { return 1u << q->log2; }
static inline uint64_t cfn_ring_lap(const cfn_ring_t *q, uint64_t p) {
  return (p >> q->log2) & CFN_LAP_MASK;
}
static inline cfn_a64 *cfn_ring_slot(const cfn_ring_t *q, uint64_t p) {
  return &q->slot[p & (cfn_ring_slots(q) - 1)];
}
/* a - b of two laps, right over the wrap */
static inline int64_t cfn_lap_minus(uint64_t a, uint64_t b) {
  return (int64_t)((a - b) << CFN_REF_BITS) >> CFN_REF_BITS;
}

cfn_ring_t cfn_ring_of_lane(const cfn_region_t *r, uint32_t mailbox, unsigned lane);
cfn_ring_t cfn_ring_of_replies(const cfn_region_t *r, uint32_t attachment);
/* The ring that a chunk's target word names; false if the word makes no sense. */
bool cfn_ring_of_target(const cfn_region_t *r, uint64_t target, cfn_ring_t *out);

/* Publishes chunk `k` (MINE, complete) if `*authority` still holds `expect`: the mailbox is the one
 * that was looked up, the asker is still there. On CFN_OK `*position` is the message's place in the
 * total order. CFN_FULL, CFN_STALE, CFN_AGAIN: nothing happened. */
int cfn_ring_publish(const cfn_ring_t *q, uint32_t k, const cfn_a64 *authority, uint64_t expect,
                     uint64_t *position);

/* Is there no room just now? (seq_cst: also the re-check of a sender that armed the space event) */
bool cfn_ring_full(const cfn_ring_t *q);

/* Is chunk k in the ring? */
bool cfn_ring_holds(const cfn_ring_t *q, uint32_t k);

/* Frees a chunk and rings those who wait for room in its class. */
bool cfn_chunk_give_back(const cfn_region_t *r, uint32_t k, uint64_t own);

/* What entitles to empty a ring for good; both words are re-checked LAST before each step. */
typedef struct cfn_authority {
  const cfn_a64 *word[2];
  uint64_t expect[2];
} cfn_authority_t;
static inline bool cfn_authority_holds(const cfn_authority_t *a) {
  return cfn_load_seq(a->word[0]) == a->expect[0] &&
         (!a->word[1] || cfn_load_seq(a->word[1]) == a->expect[1]);
}

/* The lap at which the retired rings restart, agreed on by one CAS for this tag (the version of
 * the word that says "retired"): two retirers, one of them asleep for an hour, use one number.
 * False when the authority was lost: then nothing was agreed on. */
bool cfn_ring_retire_lap(const cfn_ring_t *rings, unsigned n, cfn_a64 *rlap, uint64_t tag,
                         const cfn_authority_t *authority, uint64_t *lap);

/* Empties the ring up to `lap`: every message still in it is dropped and its chunk freed, every
 * slot reads {lap, 0}. Stops (false) when the authority is lost. `cell` announces chunks in hand.
 * Returns true when every slot is at `lap` or beyond; `*dropped` counts messages. */
bool cfn_ring_retire(const cfn_region_t *r, const cfn_ring_t *q, uint64_t lap, unsigned me,
                     cfn_a64 *cell, const cfn_authority_t *authority, uint64_t *dropped);

#endif
