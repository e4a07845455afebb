/* Attaching: a slot, its life byte, its identity.
 *
 *   take the life byte (success = whoever had it is gone) -> recycle what a dead holder left ->
 *   VACANT(n) -> JOINING(n+1) -> identity, nonce, empty announcements -> LIVE(n+1)
 *
 *   dies in JOINING: the byte is free; the next one recycles the slot like any dead holder's.
 *
 * Leaving is the same road back: the words are given back, and the slot is recycled by its own
 * process, LEAVING(n) -> VACANT(n), before the byte is dropped.
 */
#ifndef CFN_AGENT_ATTACH_H
#define CFN_AGENT_ATTACH_H

#include "agent/reap.h"

int cfn_attach(cfn_region_t *r, cfn_actor_t *actor, uint64_t *id_word);
void cfn_detach(const cfn_actor_t *actor, uint64_t id_word);

#endif
