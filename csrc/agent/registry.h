/* Agents: the mailbox records, who owns them, who reads them.
 *
 *   create   FREE -> MINE(me), filled, PEND(me), published by the directory: OPEN
 *   own      owner word {inc | attachment}: whose agent it is; a new owner is a new incarnation
 *   read     consumer word {ver | attachment}: the one process that may take messages
 *   remove   by the holder of the consumer word: OPEN -> REMOVING (the name is gone), every lane
 *            emptied up to an agreed lap, REMOVING -> FREE
 *
 * Every taking is announced in the attachment slot BEFORE the CAS that makes it and erased only after
 * it was given back, so what a dead process held is read off its slot.
 *
 * Removal, and what dies in it:
 *   dies before the directory's CAS     nothing happened
 *   dies while REMOVING                 the consumer word is cleared by the reaper; whoever needs a
 *                                       record, or reaps, takes it: consumer word loaded FIRST, then
 *                                       the state is still REMOVING, then the CAS
 *   dies after FREE, before giving back the next creator bumps the consumer word while the record is
 *                                       MINE, which fences a stale remover
 */
#ifndef CFN_AGENT_REGISTRY_H
#define CFN_AGENT_REGISTRY_H

#include "agent/liveness.h"
#include "msg/inbox.h"

#define CFN_TEXT_SHORT_BYTES (CFN_TEXT_WORDS_SHORT * 8u)
#define CFN_TEXT_LONG_BYTES (CFN_TEXT_WORDS_LONG * 8u)

enum { CFN_TEXT_TYPE, CFN_TEXT_TEAM, CFN_TEXT_CAPABILITIES, CFN_TEXT_TAGS, CFN_TEXT_STATUS, CFN_TEXTS };

/* What an agent says of itself; NULL = leave as it is. */
typedef struct cfn_profile {
  const char *text[CFN_TEXTS];
} cfn_profile_t;

/* Who acts: an attachment of this process. */
typedef struct cfn_actor {
  cfn_region_t *region;
  cfn_attach_shm_t *slot;
  unsigned me;
} cfn_actor_t;

/* CFN_OK or CFN_INVALID with what is too long. */
int cfn_profile_check(const cfn_profile_t *profile);
void cfn_profile_store(const cfn_region_t *r, uint32_t i, const cfn_profile_t *profile);
/* Reads a text; false if somebody is writing it just now (or died in it): then `out` is empty. */
bool cfn_profile_text(const cfn_region_t *r, uint32_t i, unsigned which,
                      char out[CFN_TEXT_LONG_BYTES]);

/* Finds the agent or creates it. CFN_OK (created, or found: `*created` says), CFN_OVER_CAPACITY. */
int cfn_registry_create(const cfn_actor_t *a, const char *name, size_t bytes,
                        const cfn_profile_t *profile, uint32_t *i, uint64_t *open_word,
                        bool *created);

/* Take the consumer word. CFN_OK and the exact word; CFN_AGENT_BUSY (a living other holds it: who in
 * `*holder`), CFN_AGENT_DEAD (a dead one does: reap `*holder`, then again), CFN_STALE. `steal` takes
 * it from the living. `state` is the mailbox word it must be in. */
int cfn_registry_take_consumer(const cfn_actor_t *a, uint32_t i, uint64_t mid, bool steal,
                               uint64_t *consumer, uint32_t *holder);
void cfn_registry_give_back_consumer(const cfn_actor_t *a, uint32_t i, uint64_t consumer);
/* The same for ownership; `*inc` is the incarnation. */
int cfn_registry_take_owner(const cfn_actor_t *a, uint32_t i, uint64_t mid, uint64_t *inc,
                            uint32_t *holder);
void cfn_registry_give_back_owner(const cfn_actor_t *a, uint32_t i);

/* Removes a mailbox whose consumer word is exactly `consumer`, ours. `*dropped` counts the unread. */
int cfn_registry_remove(const cfn_actor_t *a, uint32_t i, uint64_t mid, uint64_t consumer,
                        uint64_t *dropped);
/* Finishes removals that a dead process left in the middle. Returns how many. */
int cfn_registry_finish_removals(const cfn_actor_t *a);

#endif
