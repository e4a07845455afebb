/* Refs: the named values of a bus. A ref has a name and points at a blob; a change is one CAS of its word.
 *
 *   word     {blob+1:20 | version:44}
 *            blob 0 = no value; CFN_REF_CLOSED = the record is being taken out of the directory, for good
 *   version  from one counter of the bus: no ref has the same version twice, whatever names its record has had
 *
 * A ref without a value keeps its record and its name, so that who watches it goes on; records are taken back when
 * there is a shortage: word {0, v} -> CLOSED (from here on nobody can set it: a change that was told to have happened is
 * never lost), the name out of the directory, REMOVING -> FREE. Anybody goes on where a process stopped or died.
 *
 * A word belongs to the name that was looked up only if the record's state is still the same AFTER the word was loaded.
 */
#ifndef CFN_SYNC_REFS_H
#define CFN_SYNC_REFS_H

#include "mem/directory.h"
#include "mem/region.h"

typedef struct cfn_ref_at {
  uint64_t mid; /* exact OPEN word */
  uint32_t ref;
} cfn_ref_at_t;

/* CFN_OK or CFN_UNKNOWN_KEY. */
int cfn_refs_find(const cfn_region_t *r, const char *key, size_t bytes, cfn_ref_at_t *out);
/* Finds the ref or makes it, without a value. CFN_OK, CFN_OVER_CAPACITY, CFN_AGAIN. */
int cfn_refs_create(const cfn_region_t *r, unsigned me, cfn_a64 *cell, const char *key, size_t bytes, cfn_ref_at_t *out);
/* The ref's word: CFN_OK, or CFN_STALE (its record has another use by now, or none: find it again). */
int cfn_refs_load(const cfn_region_t *r, const cfn_ref_at_t *at, uint64_t *word);
/* Whom a change wakes: who waits for this ref, who watches all refs, who watches whose it is. */
enum { CFN_RING_WAITERS = 1, CFN_RING_ALL = 2, CFN_RING_HOLDERS = 4 };
/* Swaps a word that was loaded so. CFN_OK and the new version; CFN_AGAIN: somebody else changed it. */
int cfn_refs_swap(const cfn_region_t *r, const cfn_ref_at_t *at, uint64_t word, uint32_t blob_plus1, uint32_t who,
                  unsigned rings, uint64_t *version);
/* The next number of the bus's one counter of versions. */
uint64_t cfn_refs_next_version(const cfn_region_t *r);

#endif
