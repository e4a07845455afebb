/* The heap: blobs of any size that many processes hold at once.
 *
 *   record   256 B: state, life, size, run of pages or the bytes themselves when they are few
 *   page     4 KiB of payload; its word says whose it is: {life:40 | blob+1:24}
 *   holder   a ledger cell of an attachment (pins, and what is just being put), a chunk that is not FREE (the body of
 *            a message), or a ref (sync/refs.h)
 *   index    digest -> blob, of what was put under its name (mem/index.h); it names and does not hold
 *
 * State of a blob, {ver:48 | state:3 | who:13}, ver bumped at EVERY transition:
 *
 *   DEAD  -> FILL(me)   by CAS, announced in a ledger cell BEFORE
 *   FILL  -> LIVE       by its filler, whole: fields and bytes are constant from here until DEAD
 *   LIVE  -> CHECK      by a collector, which then looks at all holders: ledgers first, then chunks, then refs
 *   CHECK -> LIVE       by a collector that found a holder, or by whoever comes to hold it (a rescue)
 *   CHECK -> DEAD       by a collector that found none, and no name
 *   LIVE  -> SPILLING(me) -> SPILLED -> DEAD   of those that have a name: mem/evict.h
 *   LIVE  -> DEAD       by whoever is about to free the only chunk that ever held it (ledgers of those who only look
 *                       at the message are not asked: they look at its life again when they have copied it)
 *   FILL  -> DEAD       by its filler, which gave up, or by the reaper of a dead one
 *
 * There are no counters of holders: a death would skew them. Whoever moves a blob (ledger -> ref, ref ->
 * ledger) acquires the new place before it drops the old one, and collectors look in that order, so they
 * meet it in one of the two.
 *
 * A page belongs to blob b only while b's life is the one in the page's word and b is neither DEAD nor SPILLED: freeing a
 * blob is one CAS of its state, however many pages it has, and a death cannot stop half-way through it.
 *
 * dies here, filling: FILL(dead), named by its ledger: the reaper makes it DEAD
 * dies here, LIVE and not yet in a ref or the index: held by the dead one's ledger until that is reaped
 * dies here, collecting: CHECK: the next collector adopts it, holders rescue it
 * Wrap: 2^48 transitions of one blob, 2^40 lives of it while a claimer of its page is stopped.
 */
#ifndef CFN_MEM_HEAP_H
#define CFN_MEM_HEAP_H

#include "mem/region.h"

/* A blob whose bytes are being written: by its filler alone. */
typedef struct cfn_filling {
  uint64_t word; /* exact FILL word */
  uint32_t blob;
  uint32_t first, pages; /* its run, or none */
  uint64_t bytes;
  uint64_t made_wall_ns; /* 0: now */
  uint8_t *data; /* where they go; inside of the record: a private buffer that publish copies */
  uint8_t few[CFN_BLOB_INSIDE];
} cfn_filling_t;

/* What a blob's record says, checked against the layout. */
typedef struct cfn_blob {
  uint64_t bytes;
  const uint8_t *data; /* NULL: inside the record, see cfn_blob_copy */
  uint64_t life;
  uint64_t made_wall_ns;
  uint32_t blob; /* its number */
  unsigned codec;
} cfn_blob_t;

/* A cell of our ledger, and the exact word that we put there last. Every change is a swap of that word: who was judged
 * dead meanwhile changes nothing in what is another process's cell by now. */
typedef struct cfn_hold {
  cfn_a64 *cell;
  uint64_t word;
} cfn_hold_t;

/* A cell that names nothing; false if all are in use. The caller's lock keeps its threads apart. */
bool cfn_ledger_find(const cfn_region_t *r, unsigned me, cfn_hold_t *out);
/* False: the cell is not ours any more. */
bool cfn_ledger_set(cfn_hold_t *h, uint32_t blob);
/* The same without holding it: we put it on disk. */
bool cfn_ledger_announce(cfn_hold_t *h, uint32_t blob);
void cfn_ledger_clear(cfn_hold_t *h);

/* Claims a record and pages for `bytes` bytes. CFN_OK; CFN_OVER_CAPACITY (no record is free) and
 * CFN_NO_SPACE (no such run of pages): make room, then again; CFN_TOO_LARGE: it would not fit into an empty heap;
 * CFN_AGENT_FENCED. Announced in `h`, which holds the blob from then on. */
int cfn_heap_begin(const cfn_region_t *r, unsigned me, cfn_hold_t *h, uint64_t bytes, cfn_filling_t *out);
/* It is filled from outside and may take for ever: who makes room need not wait for it. Advisory. */
#define CFN_BLOB_LENT UINT64_MAX /* in place of its size */
void cfn_heap_lend(const cfn_region_t *r, const cfn_filling_t *f);
/* It is whole: FILL -> LIVE. False: we were judged dead meanwhile. `digest` of 32 bytes or NULL. */
bool cfn_heap_publish(const cfn_region_t *r, cfn_filling_t *f, const uint8_t *digest, unsigned codec);
/* Not wanted after all, published or not; nobody else ever knew of it. */
void cfn_heap_abandon(const cfn_region_t *r, cfn_filling_t *f);

/* Holds blob b by `h`: CFN_OK, or CFN_STALE (it is no more; the cell is empty again). The caller looks once more,
 * LAST, whether the word that named b still does. */
int cfn_heap_hold(const cfn_region_t *r, cfn_hold_t *h, uint32_t b);
/* What the record of a LIVE blob says: CFN_OK, CFN_STALE, CFN_CORRUPT. */
int cfn_heap_look(const cfn_region_t *r, uint32_t b, cfn_blob_t *out);
/* The same of one that is on disk alone, and the word that says so. */
int cfn_heap_look_spilled(const cfn_region_t *r, uint32_t b, cfn_blob_t *out, uint64_t *st);
/* Somebody looked at it: it goes to disk later than others. Advisory. */
void cfn_heap_touch(const cfn_region_t *r, uint32_t b);
/* Copies a blob whose bytes are inside of its record, without holding it: CFN_OK, or CFN_STALE. */
int cfn_heap_copy_few(const cfn_region_t *r, uint32_t b, const cfn_blob_t *blob, uint8_t *out);

/* The body of a message that is out of its ring, and whose chunk is about to be freed: its own word is still `own`. */
void cfn_heap_release_sole(const cfn_region_t *r, const cfn_chunk_shm_t *chunk, uint64_t own);

/* Ends one on disk alone if it has no name any more; `st` is its exact word, loaded before. True: we did. */
bool cfn_heap_drop_spilled(const cfn_region_t *r, uint32_t b, uint64_t st);
/* Frees what nobody holds and nothing names. Returns how many blobs. */
uint32_t cfn_heap_collect(const cfn_region_t *r);
/* What a dead attachment was filling and held. `authority`: its REAP word. */
void cfn_heap_reap(const cfn_region_t *r, uint32_t dead, const cfn_a64 *id, uint64_t reap_word);

/* Calls `found` with all words that may hold a blob, ledgers before chunks before refs. */
typedef void (*cfn_heap_found_t)(void *context, uint32_t blob_plus1);
void cfn_heap_holders(const cfn_region_t *r, cfn_heap_found_t found, void *context);
/* Whose page it is: blob + 1, or 0: it is free. */
uint32_t cfn_heap_page_of(const cfn_region_t *r, uint32_t p);

typedef struct cfn_heap_room {
  uint64_t bytes;        /* of payload in all blobs in memory */
  uint64_t spilled_bytes;
  uint32_t spilled;      /* blobs on disk alone */
  uint32_t blobs, pages; /* records and pages in use */
  uint32_t longest;      /* the longest run of free pages */
} cfn_heap_room_t;
void cfn_heap_room(const cfn_region_t *r, cfn_heap_room_t *out);

#endif
