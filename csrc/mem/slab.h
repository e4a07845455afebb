/* The slab: equal chunks in size classes, each with an owner word.
 *
 *   claim   FREE -> MINE(me) by CAS, announced in the attachment's register BEFORE the CAS
 *   publish the chunk becomes reachable from a ring slot (msg/ring.h); still MINE(sender)
 *   take    MINE/TAKEN(anyone) -> TAKEN(consumer) by CAS of the exact word, while still referenced
 *   done    TAKEN(me) -> DONE by CAS
 *   free    -> FREE by CAS of the exact word, by whoever emptied the slot
 *
 * The one lemma: MINE ends before the slot is emptied, so "not in its ring, and the own word
 * unchanged" means "never published". Hence a dead sender's chunk can be told from a message.
 *
 * A cell IS its owner: no free list, no counter that a death could skew. Hints (one bit a chunk)
 * only make the search short; a lost hint is found by the full scan before NO_SPACE is reported.
 * Wrap: 2^48 transitions of one chunk while one actor is stopped between load and CAS.
 */
#ifndef CFN_MEM_SLAB_H
#define CFN_MEM_SLAB_H

#include "mem/region.h"

#define CFN_SCARCE_SAMPLE 16u /* hint words */

/* Private to a claimer. Hints are taken and given in handfuls: one bit at a time, the hint words would
 * travel between the cores of sender and receiver with every message. Which words they belong to is
 * announced in the attachment, and whoever reaps it mends them: thousands of dead senders must not hide
 * a bus full of free chunks. */
typedef struct cfn_slab_cursor {
  uint32_t word[CFN_CLASSES];  /* where the last claim was lucky */
  uint32_t home[CFN_CLASSES];  /* where the first one looked */
  uint64_t taken[CFN_CLASSES]; /* bits of that word that this claimer took, to try one by one */
  uint64_t bytes;              /* of the frame that it claims for: of the next one, perhaps */
} cfn_slab_cursor_t;

/* Gives taken hints back: before sleeping or leaving, so that hundreds of idle senders do not hide
 * thousands of free chunks from each other. */
void cfn_slab_return_hints(const cfn_region_t *r, cfn_slab_cursor_t *cursor);

/* Hints of chunks that were freed and are not told yet; all in one hint word. */
typedef struct cfn_slab_freed {
  uint64_t bits;
  uint32_t word; /* index into all hint words */
  uint32_t count;
} cfn_slab_freed_t;

#define CFN_PREFETCH_MOST 2048u /* bytes of a payload: what follows is asked for as it is read */

/* Asks the processor for a chunk's lines early, `bytes` of its payload: they come from another core, three waits a message
 * and more. */
static inline void cfn_slab_prefetch(const cfn_region_t *r, uint32_t k, unsigned cls, uint64_t bytes) {
  const uint8_t *payload = cfn_chunk_payload(r, k, cls);
  __builtin_prefetch(cfn_chunk(r, k), 1);
  if (bytes > CFN_PREFETCH_MOST) bytes = CFN_PREFETCH_MOST;
  for (uint64_t at = 0; at < bytes; at += 64) __builtin_prefetch(payload + at, 1);
}

/* Smallest class that holds `bytes`, or CFN_TOO_LARGE. Classes without chunks are passed over. */
int cfn_slab_class_for(const cfn_region_t *r, uint64_t bytes);
uint32_t cfn_slab_largest(const cfn_region_t *r);

/* Claims a chunk of the class, for attachment `me` whose register `cell` announces it.
 * `urgent` may take the reserved chunks too; `thorough` ignores the hints and looks at every own
 * word. Returns the chunk or CFN_NO_SPACE. */
int64_t cfn_slab_claim(const cfn_region_t *r, unsigned me, cfn_a64 *cell, unsigned cls,
                       bool urgent, bool thorough, cfn_slab_cursor_t *cursor);

/* Frees by CAS of the exact word; false if it was not that word any more (then it is not ours). */
bool cfn_slab_free(const cfn_region_t *r, uint32_t chunk, uint64_t own);
/* The same; its hint is kept back in `freed` until there is a handful, or cfn_slab_tell; `announce` (may
 * be NULL) says to which word. */
bool cfn_slab_free_later(const cfn_region_t *r, uint32_t chunk, uint64_t own,
                         cfn_slab_freed_t *freed, cfn_a64 *announce);
/* Sets the hint of every free chunk of a hint word: after the death of somebody who owed some. */
void cfn_slab_mend(const cfn_region_t *r, uint64_t hint_word);
void cfn_slab_mend_chunk(const cfn_region_t *r, uint32_t chunk);
void cfn_slab_tell(const cfn_region_t *r, cfn_slab_freed_t *freed);

/* How many chunks of a class are free, by the hints: advisory. */
uint32_t cfn_slab_free_hint(const cfn_region_t *r, unsigned cls);
/* Is less than a quarter of the class free? By a sample of the hints, spread over the class: cheap enough
 * to be asked by senders now and then. */
bool cfn_slab_scarce(const cfn_region_t *r, unsigned cls);

#endif
