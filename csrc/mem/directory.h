/* The name directory: one open-addressing table for all named records, which have one numbering: mailboxes first,
 * refs after them. Names of different kinds do not meet.
 *
 *   word    {ver:40|record+1:24}, value 0 = never used, CFN_DIR_TOMB = was used
 *   change  one at a time, announced in the intent word {ver:39|remove:1|record+1:24}; ANYBODY who
 *           finds an intent finishes it, so a stopped or dead process never holds the directory
 *
 * Finishing: read the intended record's state and name and the whole probe sequence; re-check the
 * intent word LAST; then CAS, in this order, the directory word, the record's state, the intent
 * word, each exactly. Everything decided under an intent depends only on words that change under an
 * intent, so all finishers of one intent decide alike, and a finisher that slept fails every CAS.
 *
 *   insert  state PEND(creator): name taken already -> FAIL; else word -> record, state -> OPEN
 *   remove  state OPEN: word -> TOMB, state -> REMOVING
 *
 * dies here: between any two steps the next process that wants to change a name finishes it; lookups
 * need no intent: they believe a record whose state is OPEN before and after its name was compared.
 */
#ifndef CFN_MEM_DIRECTORY_H
#define CFN_MEM_DIRECTORY_H

#include "mem/region.h"

/* Finishes a pending change, if any. */
void cfn_directory_help(const cfn_region_t *r);
/* Publishes record `i`, which is PEND and complete. CFN_OK: it is OPEN (or already later); CFN_FULL:
 * the name was taken (state FAIL, the caller's to free). */
int cfn_directory_insert(const cfn_region_t *r, uint32_t i, uint64_t pend_word);
/* Unlinks record `i` if its word is still exactly `open_word`. CFN_OK: it is REMOVING, by us or by
 * another; CFN_STALE: it was something else already. */
int cfn_directory_remove(const cfn_region_t *r, uint32_t i, uint64_t open_word);

typedef enum cfn_kind { CFN_KIND_AGENT = 0, CFN_KIND_REF = 1 } cfn_kind_t;

/* Finds an OPEN record by name. CFN_OK, its number and exact OPEN word; or CFN_UNKNOWN_AGENT. */
int cfn_directory_find(const cfn_region_t *r, cfn_kind_t kind, const char *name, size_t bytes, uint32_t *i,
                       uint64_t *open_word);

/* The state word of record `i`. */
static inline cfn_a64 *cfn_record_state(const cfn_region_t *r, uint32_t i) {
  uint32_t agents = r->geo.config.agents;
  return i < agents ? &cfn_mailbox(r, i)->mid : &cfn_ref(r, i - agents)->mid;
}
static inline uint32_t cfn_record_of_ref(const cfn_region_t *r, uint32_t ref) { return r->geo.config.agents + ref; }

/* Claims a FREE record of the kind, announced in `cell` before: MINE(me). Its number, or -1: all are in use. */
int64_t cfn_record_claim(const cfn_region_t *r, cfn_kind_t kind, unsigned me, cfn_a64 *cell);
/* Publishes a record that is MINE and filled, under the name that was stored in it. CFN_OK and its OPEN word; CFN_FULL:
 * the name was taken meanwhile, and the record is FREE again. Erases the announcement. */
int cfn_record_publish(const cfn_region_t *r, uint32_t i, unsigned me, cfn_a64 *cell, uint64_t *open_word);

/* The name of a record, NUL-terminated and bounded; believed only while its state is unchanged. */
size_t cfn_record_key(const cfn_region_t *r, uint32_t i, char out[CFN_KEY_BYTES]);
/* The same of an agent. */
size_t cfn_record_name(const cfn_region_t *r, uint32_t i, char out[CFN_NAME_BYTES]);
void cfn_record_name_store(const cfn_region_t *r, uint32_t i, const char *name, size_t bytes);

#endif
