/* Leases: what one attachment holds alone, until it gives it back or dies. Locks and leaderships are leases; each is a
 * ref (sync/refs.h) whose word names the holder instead of a blob, so a lease is taken and given back by one CAS.
 *
 *   {0                          | version}   free
 *   {CFN_REF_LEASE + attachment | version}   held; the version is the lease's own, and fences: it only grows
 *   {CFN_REF_DIED               | version}   its holder died holding it; the version is that holder's
 *
 * Versions come from the bus's one counter, so an exact word never comes back, whatever its record was used for: a CAS by
 * one who slept fails. The version is drawn AFTER the word was loaded and before its CAS: whoever held the lease before
 * drew its own earlier, and so the numbers of successive holders grow.
 *
 * Nothing is announced but that the attachment may hold some (its word `leases`): a reaper looks at all refs for words
 * that name the dead. Whoever waits for a lease whose holder's slot is empty marks it itself.
 *
 * dies here, holding: CFN_REF_DIED by the reaper, or by who waits for it; the next holder is told
 * dies here, given back and nobody rung: its waiters' own tick, or the reaper of the dead, which rings them
 */
#ifndef CFN_SYNC_LEASE_H
#define CFN_SYNC_LEASE_H

#include "sync/refs.h"

/* Whose it is: true and the attachment, if it is held. */
static inline bool cfn_lease_held(uint64_t word, uint32_t *attachment) {
  uint32_t field = cfn_ref_blob(word);
  *attachment = field - CFN_REF_LEASE;
  return field >= CFN_REF_LEASE && field < CFN_REF_DIED;
}
static inline bool cfn_lease_died(uint64_t word) { return cfn_ref_blob(word) == CFN_REF_DIED; }

/* The bus's number of a version: those of an earlier bus of the same name were smaller. */
static inline uint64_t cfn_lease_token(const cfn_region_t *r, uint64_t word) {
  return r->super.created_wall_ns / 1000 + cfn_ref_version(word);
}

/* Takes a lease out of `word`, as it was loaded. CFN_OK and our word; CFN_AGAIN: it changed meanwhile. */
int cfn_lease_take(const cfn_region_t *r, const cfn_ref_at_t *at, uint64_t word, cfn_attach_shm_t *slot, uint32_t me,
                   uint32_t who, uint64_t *ours);
/* CFN_OK, or CFN_LEASE_LOST: the word is not ours any more. */
int cfn_lease_give_back(const cfn_region_t *r, uint32_t ref, uint64_t ours);
/* Its holder is proven dead. `pid` and `who` (mailbox+1), or 0: not known. */
void cfn_lease_bury(const cfn_region_t *r, uint32_t ref, uint64_t word, uint64_t pid, uint32_t who);

/* All that a dead attachment held; then wakes whoever waits for anything, for it may have died before it did. */
void cfn_lease_reap(const cfn_region_t *r, uint32_t dead, const cfn_a64 *id, uint64_t reap_word);
/* All that a leaving one holds is given back. */
void cfn_lease_give_back_all(const cfn_region_t *r, uint32_t me);

typedef struct cfn_lease_past {
  uint64_t pid, died_wall_ns; /* of who died holding it, or 0 */
  uint32_t who;               /* who took it, mailbox+1, or 0: nobody, or not known */
} cfn_lease_past_t;
/* What was noted of the lease `word` names; what was noted of another is not told. */
void cfn_lease_past(const cfn_region_t *r, uint32_t ref, uint64_t word, cfn_lease_past_t *out);

#endif
