#include "mem/slab.h"

#include "base/error.h"

int cfn_slab_class_for(const cfn_region_t *r, uint64_t bytes) {
  for (unsigned c = 0; c < CFN_CLASSES; c++)
    if (r->geo.config.class_chunks[c] > 0 && bytes <= cfn_class_room(&r->geo.config, c)) return (int)c;
  return CFN_TOO_LARGE;
}

uint32_t cfn_slab_largest(const cfn_region_t *r) {
  for (unsigned c = CFN_CLASSES; c-- > 0;)
    if (r->geo.config.class_chunks[c] > 0) return cfn_class_room(&r->geo.config, c);
  return 0;
}

static bool claim_one(const cfn_region_t *r, uint32_t k, unsigned me, cfn_a64 *cell) {
  cfn_chunk_shm_t *chunk = cfn_chunk(r, k);
  /* acquire pairs with the freeing CAS: the last reader's loads of the payload are over before our
   * stores begin; seq_cst: the Dekker pair of a sender that armed the class event, and looks again
   * here, with who frees and then looks at the event */
  uint64_t own = cfn_load_seq(&chunk->own);
  if (cfn_own_state(own) != CFN_FREE) return false;
  cfn_store_relaxed(cell, k + 1); /* ordered before the CAS by its release half */
  /* dies here: the register names a chunk whose word does not name us; a reaper ignores it */
  return cfn_cas_acqrel(&chunk->own, own, cfn_own_next(own, CFN_MINE, me));
  /* dies here: MINE(me), announced, in no ring: the reaper frees it */
}

/* Takes up to n hint bits off a word. A bit is advice: the own word decides. A free that races with
 * this may lose its bit; the thorough scan finds the chunk. */
static uint64_t take_hints(cfn_a64 *word, uint64_t inside, uint32_t n) {
  uint64_t may = cfn_load_relaxed(word) & inside; /* relaxed: a hint proves nothing either way */
  uint64_t some = 0;
  for (uint32_t i = 0; i < n && may; i++) {
    some |= may & -may;
    may &= may - 1;
  }
  return some ? cfn_and_release(word, ~some) & some : 0; /* release: who takes them has said so before */
}

/* The bits of a hint word that belong to the first `limit` chunks. */
static uint64_t inside_of(uint32_t limit, uint32_t w) {
  return limit / 64 == w && limit % 64 ? (UINT64_C(1) << (limit % 64)) - 1 : ~UINT64_C(0);
}

#define NEAR 8u /* hint words, from where a claimer began, that it stays in while there are free ones */

int64_t cfn_slab_claim(const cfn_region_t *r, unsigned me, cfn_a64 *cell, unsigned cls,
                       bool urgent, bool thorough, cfn_slab_cursor_t *cursor) {
  uint32_t limit =
      r->geo.config.class_chunks[cls] - (urgent ? 0 : r->geo.class_reserved[cls]);
  uint32_t first = r->geo.class_first[cls];
  if (thorough) {
    for (uint32_t i = 0; i < limit; i++)
      if (claim_one(r, first + i, me, cell)) return first + i;
    cfn_store_relaxed(cell, 0);
    return CFN_NO_SPACE;
  }
  cfn_a64 *hints = cfn_hints(r) + r->geo.class_hint[cls];
  uint32_t words = (limit + 63) / 64;
  if (words == 0) return CFN_NO_SPACE;
  uint32_t start = cursor->word[cls], handful = r->geo.class_handful[cls];
  if (start >= words) start %= words; /* a division costs more than the rest of this */
  /* Not through the whole class: what was used a moment ago is in the caches yet, and mapped by those who read it, and
   * pages that nobody needs stay untouched. Not always the same word either: who frees is busy with that. */
  uint32_t home = cursor->home[cls] < words ? cursor->home[cls] : 0, gone = start >= home ? start - home : start + words - home;
  if (!cursor->taken[cls] && gone >= NEAR &&
      (uint32_t)__builtin_popcountll(cfn_load_relaxed(&hints[home]) & inside_of(limit, home)) >= handful)
    start = home;
  for (uint32_t i = 0; i < words; i++) {
    uint32_t w = start + i < words ? start + i : start + i - words;
    uint64_t inside = inside_of(limit, w);
    for (;;) {
      if (!(cursor->taken[cls] & inside) || cursor->word[cls] != w) {
        if (cursor->taken[cls]) cfn_or_relaxed(&hints[cursor->word[cls]], cursor->taken[cls]);
        cursor->word[cls] = w;
        cfn_store_relaxed(&cfn_attachment(r, me)->hint_taken[cls], r->geo.class_hint[cls] + w + 1);
        cursor->taken[cls] = take_hints(&hints[w], inside, handful);
        /* dies here: announced; the reaper sets the bits of what is free again */
      }
      if (!(cursor->taken[cls] & inside)) break;
      uint32_t bit = (uint32_t)__builtin_ctzll(cursor->taken[cls] & inside);
      cursor->taken[cls] &= ~(UINT64_C(1) << bit);
      if (!claim_one(r, first + w * 64 + bit, me, cell)) continue;
      if (cursor->taken[cls])
        cfn_slab_prefetch(r, first + w * 64 + (uint32_t)__builtin_ctzll(cursor->taken[cls]), cls,
                          cursor->bytes);
      return first + w * 64 + bit;
    }
  }
  cfn_store_relaxed(cell, 0);
  return CFN_NO_SPACE;
}

bool cfn_slab_free_later(const cfn_region_t *r, uint32_t k, uint64_t own,
                         cfn_slab_freed_t *freed, cfn_a64 *announce) {
  unsigned cls = cfn_chunk_class(r, k);
  uint32_t i = k - r->geo.class_first[cls];
  uint32_t word = r->geo.class_hint[cls] + i / 64;
  if (freed->word != word || !freed->bits) {
    cfn_slab_tell(r, freed);
    if (announce) cfn_store_relaxed(announce, word + 1);
  }
  /* release: our reads and writes of the payload are over before the next owner's begin; seq_cst:
   * the freed chunk is visible before the class event is looked at */
  if (!cfn_cas_seq(&cfn_chunk(r, k)->own, own, cfn_own_next(own, CFN_FREE, 0))) return false;
  /* dies here: FREE without its hint bit */
  freed->word = word;
  freed->bits |= UINT64_C(1) << (i % 64);
  if (++freed->count >= CFN_HINTS_AT_ONCE) cfn_slab_tell(r, freed);
  return true;
}

void cfn_slab_return_hints(const cfn_region_t *r, cfn_slab_cursor_t *cursor) {
  for (unsigned c = 0; c < CFN_CLASSES; c++) {
    uint32_t words = (r->geo.config.class_chunks[c] + 63) / 64;
    if (cursor->taken[c] && cursor->word[c] < words)
      cfn_or_relaxed(&cfn_hints(r)[r->geo.class_hint[c] + cursor->word[c]], cursor->taken[c]);
    cursor->taken[c] = 0;
  }
}

void cfn_slab_tell(const cfn_region_t *r, cfn_slab_freed_t *freed) {
  if (freed->bits) cfn_or_seq(&cfn_hints(r)[freed->word], freed->bits);
  freed->bits = 0;
  freed->count = 0;
}

bool cfn_slab_free(const cfn_region_t *r, uint32_t k, uint64_t own) {
  cfn_slab_freed_t one = {0, 0, 0};
  if (!cfn_slab_free_later(r, k, own, &one, NULL)) return false;
  cfn_slab_tell(r, &one);
  return true;
}

void cfn_slab_mend(const cfn_region_t *r, uint64_t hint_word) {
  for (unsigned cls = 0; cls < CFN_CLASSES; cls++) {
    uint32_t chunks = r->geo.config.class_chunks[cls], first = r->geo.class_hint[cls];
    if (hint_word < first || hint_word >= first + (chunks + 63) / 64) continue;
    uint32_t k = (uint32_t)(hint_word - first) * 64;
    uint64_t free_now = 0;
    for (uint32_t bit = 0; bit < 64 && k + bit < chunks; bit++) {
      uint64_t own = cfn_load_relaxed(&cfn_chunk(r, r->geo.class_first[cls] + k + bit)->own);
      if (cfn_own_state(own) == CFN_FREE) free_now |= UINT64_C(1) << bit;
    }
    uint64_t missing = free_now & ~cfn_load_relaxed(&cfn_hints(r)[hint_word]);
    if (missing) cfn_or_relaxed(&cfn_hints(r)[hint_word], missing);
    return;
  }
}

void cfn_slab_mend_chunk(const cfn_region_t *r, uint32_t k) {
  unsigned cls = cfn_chunk_class(r, k);
  cfn_slab_mend(r, r->geo.class_hint[cls] + (k - r->geo.class_first[cls]) / 64);
}

uint32_t cfn_slab_free_hint(const cfn_region_t *r, unsigned cls) {
  uint32_t n = 0;
  uint32_t words = (r->geo.config.class_chunks[cls] + 63) / 64;
  for (uint32_t w = 0; w < words; w++)
    /* seq_cst: who armed an event counts what was told before */
    n += (uint32_t)__builtin_popcountll(cfn_load_seq(&cfn_hints(r)[r->geo.class_hint[cls] + w]));
  return n;
}

bool cfn_slab_scarce(const cfn_region_t *r, unsigned cls) {
  uint32_t words = r->geo.config.class_chunks[cls] / 64; /* whole ones */
  uint32_t looked = words < CFN_SCARCE_SAMPLE ? words : CFN_SCARCE_SAMPLE, n = 0;
  const cfn_a64 *hints = cfn_hints(r) + r->geo.class_hint[cls];
  for (uint32_t i = 0; i < looked; i++)
    /* seq_cst: the census of who has armed the class event, and the hint of who freed and looks at it after that */
    n += (uint32_t)__builtin_popcountll(cfn_load_seq(&hints[(uint64_t)i * words / looked]));
  return n < looked * 16;
}
