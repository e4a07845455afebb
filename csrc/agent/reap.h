/* Recycling what the proven dead left. Any number of helpers may reap the same attachment at once,
 * and any of them may die or sleep in the middle: every step is a CAS of an exact word, decided on
 * loads that come before a last re-check of the authority, id == REAP(inc).
 *
 *   1  id LIVE(inc) -> REAP(inc), after proof of death (agent/liveness.h)
 *   2  chunks named by the register: MINE or TAKEN by the dead and in no ring -> FREE (never
 *      published, or already out of its slot); DONE and in no ring -> FREE (it died between R5 and R7).
 *      In a ring: it is a message; leave it, and ring the bell that the dead may not have rung
 *   3  a mailbox it was creating -> finished by the directory, or FREE
 *   4  consumer words that name it -> nobody; owner words -> "died"; their waiters are woken
 *   5  its reply ring is emptied
 *   6  blobs that it was filling -> DEAD, its ledger emptied; its leases -> CFN_REF_DIED
 *   7  id REAP(inc) -> VACANT(inc)
 */
#ifndef CFN_AGENT_REAP_H
#define CFN_AGENT_REAP_H

#include "agent/registry.h"
#include "msg/outbox.h"

/* Recycling by the holder of the slot's life byte, who leaves, or joins where a dead one was: the same
 * steps under id == LEAVING(inc), which no helper touches while the byte is held. (Under REAP a helper
 * could call the slot VACANT while we, announcing in this very slot, hold a chunk: if we died then,
 * nobody would look at the announcement again.) True if the slot is VACANT afterwards. */
bool cfn_recycle(cfn_region_t *r, uint32_t d);

/* What others may wait for of attachment d, which is dead: its agents, what it holds, its leases. Needs no cell to announce
 * in; what is left of it is REAP, and dead for everybody whoever has its life byte. */
void cfn_reap_what_others_wait_for(cfn_region_t *r, uint32_t d, uint64_t judged);

/* Reaps attachment d, whose id word was `judged` when it was proven dead (or is REAP already). `me`
 * and `cell` are the reaper's attachment and register cell. Returns 1 if this call finished it, 0 if
 * another did. */
int cfn_reap(cfn_region_t *r, uint32_t d, uint64_t judged, unsigned me, cfn_a64 *cell);

/* Judges attachment i and reaps it if it is dead. 1 reaped, 0 not. */
int cfn_reap_if_dead(const cfn_actor_t *a, uint32_t i);
/* All of them; then finishes what removals they left. Returns how many were reaped. */
int cfn_reap_all(const cfn_actor_t *a);

/* Has somebody living taken hints out of this word in advance, or freed chunks without telling it yet? Then bits that are
 * missing there are no loss. */
bool cfn_hint_in_hand(const cfn_region_t *r, unsigned cls, uint64_t word);

#endif
