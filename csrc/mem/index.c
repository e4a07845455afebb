#include "mem/index.h"

#include <string.h>

#include "base/error.h"

void cfn_index_digest(const cfn_region_t *r, uint32_t b, uint8_t out[32]) {
  for (unsigned i = 0; i < 4; i++) {
    uint64_t word = cfn_load_acquire(&cfn_blob_record(r, b)->digest[i]);
    memcpy(out + 8 * i, &word, 8);
  }
}

/* A digest is as good as random: its first bytes say where. */
static uint32_t start_of(const cfn_region_t *r, const uint8_t digest[32]) {
  uint32_t first;
  memcpy(&first, digest, sizeof first);
  return first & (r->geo.index_slots - 1);
}
static cfn_a64 *slot_at(const cfn_region_t *r, uint32_t start, uint32_t j) {
  return cfn_index(r) + ((start + j) & (r->geo.index_slots - 1));
}

int cfn_index_find(const cfn_region_t *r, const uint8_t digest[32], uint32_t *at, cfn_a64 **slot, uint64_t *word,
                   uint32_t *blob) {
  uint32_t start = start_of(r, digest);
  while (*at < CFN_INDEX_WINDOW) {
    *slot = slot_at(r, start, (*at)++);
    *word = cfn_load_seq(*slot);
    uint32_t b = cfn_names_blob(*word);
    if (b == 0 || b > r->geo.config.objects) continue;
    uint8_t other[32];
    cfn_index_digest(r, b - 1, other);
    unsigned state = cfn_own_state(cfn_load_seq(&cfn_blob_record(r, b - 1)->st));
    if (state == CFN_BLOB_DEAD || state == CFN_BLOB_FILL || memcmp(other, digest, 32) != 0) {
      if (cfn_load_seq(*slot) != *word) (*at)--; /* it names another by now, perhaps that content come back from disk */
      continue;
    }
    *blob = b - 1;
    return CFN_OK;
  }
  return CFN_EMPTY;
}

int cfn_index_add(const cfn_region_t *r, const uint8_t digest[32], uint32_t b) {
  uint32_t start = start_of(r, digest);
  for (uint32_t j = 0; j < CFN_INDEX_WINDOW; j++) {
    cfn_a64 *slot = slot_at(r, start, j);
    uint64_t w = cfn_load_seq(slot);
    if (cfn_names_blob(w)) continue;
    if (cfn_cas_seq(slot, w, cfn_names_word(cfn_names_what(w) + 1, b + 1))) return CFN_OK;
    j--; /* somebody took or left it: look at it again */
  }
  return CFN_NO_SPACE;
}

bool cfn_index_move(cfn_a64 *slot, uint64_t word, uint32_t b) {
  return cfn_cas_seq(slot, word, cfn_names_word(cfn_names_what(word) + 1, b + 1));
}

bool cfn_index_remove(cfn_a64 *slot, uint64_t word) {
  return cfn_cas_seq(slot, word, cfn_names_word(cfn_names_what(word) + 1, 0));
}

bool cfn_index_names(const cfn_region_t *r, uint32_t b) {
  uint8_t digest[32];
  cfn_index_digest(r, b, digest);
  uint32_t start = start_of(r, digest);
  for (uint32_t j = 0; j < CFN_INDEX_WINDOW; j++)
    if (cfn_names_blob(cfn_load_seq(slot_at(r, start, j))) == b + 1) return true;
  return false;
}
