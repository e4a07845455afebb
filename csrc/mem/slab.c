#include "mem/slab.h"

#include "base/error.h"

int cfn_slab_class_for(const cfn_region_t *r, uint64_t bytes) {
  for (unsigned c = 0; c < CFN_CLASSES; c++)
    if (r->geo.config.class_chunks[c] > 0 && bytes <= r->geo.config.class_bytes[c]) return (int)c;
  return CFN_TOO_LARGE;
}

uint32_t cfn_slab_largest(const cfn_region_t *r) {
  for (unsigned c = CFN_CLASSES; c-- > 0;)
    if (r->geo.config.class_chunks[c] > 0) return r->geo.config.class_bytes[c];
  return 0;
}

static bool claim_one(const cfn_region_t *r, uint32_t k, unsigned me, cfn_a64 *cell) {
  cfn_chunk_shm_t *chunk = cfn_chunk(r, k);
  /* acquire pairs with the freeing CAS: the last reader's loads of the payload are over before our
   * stores begin */
  uint64_t own = cfn_load_acquire(&chunk->own);
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
  return some ? cfn_and_relaxed(word, ~some) & some : 0;
}

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
  for (uint32_t i = 0; i < words; i++) {
    uint32_t w = start + i < words ? start + i : start + i - words;
    uint64_t inside = w == words - 1 && limit % 64 ? (UINT64_C(1) << (limit % 64)) - 1 : ~UINT64_C(0);
    for (;;) {
      if (!(cursor->taken[cls] & inside) || cursor->word[cls] != w)
        cursor->taken[cls] = take_hints(&hints[w], inside, handful);
      cursor->word[cls] = w;
      if (!cursor->taken[cls]) break;
      uint32_t bit = (uint32_t)__builtin_ctzll(cursor->taken[cls]);
      cursor->taken[cls] &= cursor->taken[cls] - 1;
      if (!claim_one(r, first + w * 64 + bit, me, cell)) continue;
      if (cursor->taken[cls])
        cfn_slab_prefetch(r, first + w * 64 + (uint32_t)__builtin_ctzll(cursor->taken[cls]), cls);
      return first + w * 64 + bit;
    }
  }
  cfn_store_relaxed(cell, 0);
  return CFN_NO_SPACE;
}

bool cfn_slab_free_later(const cfn_region_t *r, uint32_t k, uint64_t own,
                         cfn_slab_freed_t *freed) {
  /* release: our reads and writes of the payload are over before the next owner's begin; seq_cst:
   * the freed chunk is visible before the class event is looked at */
  if (!cfn_cas_seq(&cfn_chunk(r, k)->own, own, cfn_own_next(own, CFN_FREE, 0))) return false;
  /* dies here: FREE without its hint bit */
  unsigned cls = cfn_chunk_class(r, k);
  uint32_t i = k - r->geo.class_first[cls];
  uint32_t word = r->geo.class_hint[cls] + i / 64;
  if (freed->word != word) cfn_slab_tell(r, freed);
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
  if (freed->bits) cfn_or_relaxed(&cfn_hints(r)[freed->word], freed->bits);
  freed->bits = 0;
  freed->count = 0;
}

bool cfn_slab_free(const cfn_region_t *r, uint32_t k, uint64_t own) {
  cfn_slab_freed_t one = {0, 0, 0};
  if (!cfn_slab_free_later(r, k, own, &one)) return false;
  cfn_slab_tell(r, &one);
  return true;
}

uint32_t cfn_slab_free_hint(const cfn_region_t *r, unsigned cls) {
  uint32_t n = 0;
  uint32_t words = (r->geo.config.class_chunks[cls] + 63) / 64;
  for (uint32_t w = 0; w < words; w++)
    n += (uint32_t)__builtin_popcountll(cfn_load_relaxed(&cfn_hints(r)[r->geo.class_hint[cls] + w]));
  return n;
}

bool cfn_slab_scarce(const cfn_region_t *r, unsigned cls) {
  uint32_t words = r->geo.config.class_chunks[cls] / 64; /* whole ones */
  uint32_t looked = words < CFN_SCARCE_SAMPLE ? words : CFN_SCARCE_SAMPLE, n = 0;
  const cfn_a64 *hints = cfn_hints(r) + r->geo.class_hint[cls];
  for (uint32_t i = 0; i < looked; i++)
    n += (uint32_t)__builtin_popcountll(cfn_load_relaxed(&hints[(uint64_t)i * words / looked]));
  return n < looked * 16;
}
