/* The index: which blob has the content with this digest, of those that were put under their name.
 *
 *   word     {ver:40 | blob+1:24}, 0 in the low bits = names nothing; ver grows at every change
 *   window   a digest stands in one of CFN_INDEX_WINDOW slots from its own on, so nothing has to be left behind
 *            where a name was taken away
 *
 * It names, it does not hold: a blob is found through a word, held, and then the word is loaded again. Two processes
 * that put the same content at once may both find nothing and store it twice: that costs room and is no lie.
 */
#ifndef CFN_MEM_INDEX_H
#define CFN_MEM_INDEX_H

#include "mem/region.h"

/* The next word from *at on (0 at first) in the digest's window that names a blob of it, which may be on disk alone. CFN_OK: its slot, word and
 * blob, and *at is behind it; CFN_EMPTY. */
int cfn_index_find(const cfn_region_t *r, const uint8_t digest[32], uint32_t *at, cfn_a64 **slot, uint64_t *word,
                   uint32_t *blob);
/* Names blob b, which the caller holds. CFN_OK; CFN_NO_SPACE: the window is full. */
int cfn_index_add(const cfn_region_t *r, const uint8_t digest[32], uint32_t b);
/* The exact word names blob b from now on, which the caller holds. True: we did that. */
bool cfn_index_move(cfn_a64 *slot, uint64_t word, uint32_t b);
/* Takes the exact word away. True: we did. */
bool cfn_index_remove(cfn_a64 *slot, uint64_t word);
/* Does a word name blob b, under the digest that its record has? */
bool cfn_index_names(const cfn_region_t *r, uint32_t b);
/* The digest in a record. */
void cfn_index_digest(const cfn_region_t *r, uint32_t b, uint8_t out[32]);

#endif
