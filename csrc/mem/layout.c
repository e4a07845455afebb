#include "mem/layout.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"

static bool is_power_of_two(uint32_t n) { return n && !(n & (n - 1)); }

static int check_config(const cfn_config_shm_t *c) {
  if (c->agents < 1 || c->agents > CFN_MAX_AGENTS)
    return cfn_fail(CFN_INVALID, CFN_MAX_AGENTS, c->agents, "agents must be 1 to %u, not %u",
                    CFN_MAX_AGENTS, c->agents);
  if (c->attachments < 2 || c->attachments > CFN_MAX_ATTACHMENTS)
    return cfn_fail(CFN_INVALID, CFN_MAX_ATTACHMENTS, c->attachments,
                    "attachments must be 2 to %u, not %u", CFN_MAX_ATTACHMENTS, c->attachments);
  for (unsigned i = 0; i < CFN_LANES; i++)
    if (!is_power_of_two(c->lane_slots[i]) || c->lane_slots[i] < 2 || c->lane_slots[i] > 1u << 16)
      return cfn_fail(CFN_INVALID, 1 << 16, c->lane_slots[i],
                      "a lane's capacity must be a power of two from 2 to 65536, not %u",
                      c->lane_slots[i]);
  uint64_t chunks = 0;
  for (unsigned i = 0; i < CFN_CLASSES; i++) {
    if (c->class_bytes[i] < 128 || c->class_bytes[i] > 1u << 26 || c->class_bytes[i] % 128 ||
        (i && c->class_bytes[i] <= c->class_bytes[i - 1]))
      return cfn_fail(CFN_INVALID, 0, c->class_bytes[i],
                      "slab classes must grow, in multiples of 128 bytes up to 64 MiB: %u",
                      c->class_bytes[i]);
    if (c->class_chunks[i] > CFN_MAX_CHUNKS)
      return cfn_fail(CFN_INVALID, CFN_MAX_CHUNKS, c->class_chunks[i],
                      "a slab class holds at most %u chunks", CFN_MAX_CHUNKS);
    chunks += c->class_chunks[i];
  }
  if (chunks < 2 || chunks > CFN_MAX_CHUNKS)
    return cfn_fail(CFN_INVALID, CFN_MAX_CHUNKS, (int64_t)chunks,
                    "the slab must hold 2 to %u chunks in all", CFN_MAX_CHUNKS);
  if (c->refs < 1 || c->refs > CFN_MAX_REFS)
    return cfn_fail(CFN_INVALID, CFN_MAX_REFS, c->refs, "named values must be 1 to %u, not %u", CFN_MAX_REFS, c->refs);
  if (c->objects < 2 || c->objects > CFN_MAX_OBJECTS)
    return cfn_fail(CFN_INVALID, CFN_MAX_OBJECTS, c->objects, "objects must be 2 to %u, not %u", CFN_MAX_OBJECTS,
                    c->objects);
  if (c->object_pages < 1 || c->object_pages > 1u << 30)
    return cfn_fail(CFN_INVALID, 1 << 30, c->object_pages, "the heap must have 1 to %u pages, not %u", 1u << 30,
                    c->object_pages);
  if (!is_power_of_two(c->directory_slots) || c->directory_slots < 2 * (c->agents + c->refs) ||
      c->directory_slots > 1u << 24)
    return cfn_fail(CFN_INVALID, 0, c->directory_slots, "bad directory size %u",
                    c->directory_slots);
  if (c->tap_slots) return cfn_fail(CFN_INVALID, 0, 0, "this version has no log tap in its regions");
  for (unsigned i = 0; i < sizeof c->reserved / sizeof c->reserved[0]; i++)
    if (c->reserved[i]) return cfn_fail(CFN_INVALID, 0, c->reserved[i], "reserved field is set");
  return CFN_OK;
}

/* Places `count` records of `bytes` after `*at`, aligned; counts and sizes are bounded by
 * check_config, so 64 bits cannot overflow: 2^24 chunks of 2^26 bytes are 2^50. */
static uint64_t place(uint64_t *at, uint64_t count, uint64_t bytes, uint64_t align) {
  uint64_t start = (*at + align - 1) / align * align;
  *at = start + count * bytes;
  return start;
}

int cfn_geometry_compute(const cfn_config_shm_t *config, cfn_geometry_t *g) {
  int r = check_config(config);
  if (r < 0) return r;
  memset(g, 0, sizeof *g);
  g->config = *config;
  for (unsigned i = 0; i < CFN_LANES; i++) {
    g->lane_first[i] = g->slots_per_mailbox;
    g->slots_per_mailbox += config->lane_slots[i];
    g->lane_log2[i] = (uint32_t)__builtin_ctz(config->lane_slots[i]);
  }
  for (unsigned i = 0; i < CFN_CLASSES; i++) {
    g->class_first[i] = g->chunks;
    g->class_hint[i] = g->hint_words;
    g->chunks += config->class_chunks[i];
    g->hint_words += (config->class_chunks[i] + 63) / 64;
    /* The last 1/16 (at least one, where there are two) answers and controls even when ordinary
     * messages hold every other chunk: else a bus full of unanswered requests never gets out. */
    uint32_t n = config->class_chunks[i];
    g->class_reserved[i] = n < 2 ? 0 : (n + 15) / 16;
    /* All senders together may hold half of the hints at most. */
    uint32_t handful = n / (2 * config->attachments);
    g->class_handful[i] = handful < 1 ? 1 : handful > CFN_HINTS_AT_ONCE ? CFN_HINTS_AT_ONCE : handful;
  }
  g->class_first[CFN_CLASSES] = g->chunks;
  uint64_t at = 2 * CFN_PAGE;
  g->attach_at = place(&at, config->attachments, sizeof(cfn_attach_shm_t), CFN_PAGE);
  g->mailbox_at = place(&at, config->agents, sizeof(cfn_mailbox_shm_t), CFN_PAGE);
  g->slots_at = place(&at, (uint64_t)config->agents * g->slots_per_mailbox, 8, CFN_PAGE);
  g->records = config->agents + config->refs;
  g->index_slots = 64;
  while (g->index_slots < 4 * config->objects) g->index_slots *= 2;
  g->refs_at = place(&at, config->refs, sizeof(cfn_ref_shm_t), CFN_PAGE);
  g->directory_at = place(&at, config->directory_slots, 8, CFN_PAGE);
  g->hints_at = place(&at, g->hint_words, 8, 128);
  g->chunks_at = place(&at, g->chunks, sizeof(cfn_chunk_shm_t), CFN_PAGE);
  g->payload_at = place(&at, 0, 0, CFN_PAGE);
  for (unsigned i = 0; i < CFN_CLASSES; i++)
    g->class_at[i] = place(&at, config->class_chunks[i], cfn_class_room(config, i), CFN_PAGE);
  g->blobs_at = place(&at, config->objects, sizeof(cfn_blob_shm_t), CFN_PAGE);
  g->index_at = place(&at, g->index_slots, 8, CFN_PAGE);
  g->pages_at = place(&at, config->object_pages, 8, CFN_PAGE);
  g->heap_at = place(&at, config->object_pages, CFN_PAGE, CFN_PAGE);
  g->region_bytes = at;
  uint64_t marks[] = {CFN_ABI,
                      g->attach_at,
                      g->mailbox_at,
                      g->slots_at,
                      g->refs_at,
                      g->directory_at,
                      g->hints_at,
                      g->chunks_at,
                      g->payload_at,
                      g->blobs_at,
                      g->index_at,
                      g->pages_at,
                      g->heap_at,
                      g->region_bytes,
                      sizeof(cfn_attach_shm_t),
                      sizeof(cfn_mailbox_shm_t),
                      sizeof(cfn_lane_shm_t),
                      sizeof(cfn_chunk_shm_t),
                      sizeof(cfn_ref_shm_t),
                      sizeof(cfn_blob_shm_t),
                      sizeof(cfn_record_shm_t),
                      sizeof(cfn_state_shm_t),
                      /* counts that rounding to pages hides */
                      (uint64_t)config->agents << 32 | config->attachments,
                      (uint64_t)config->refs << 32 | config->objects,
                      (uint64_t)config->object_pages << 32 | config->directory_slots};
  g->layout_hash = cfn_hash64(marks, sizeof marks);
  return CFN_OK;
}
