/* What reaping does not reach: chunks that nobody holds and nobody announced, hints that are missing. After
 * deaths alone there are none; after a stray write there may be. Only what is proven to be nobody's is touched. */
#include <stdlib.h>

#include "agent/bus.h"
#include "agent/liveness.h"
#include "agent/reap.h"
#include "base/os.h"
#include "mem/directory.h"
#include "mem/evict.h"

#define SOMEBODYS 2 /* beside 0 and 1 in `referenced`: in no ring, but who its word names is there */

static bool nobody_there(const cfn_region_t *r, uint32_t attachment) {
  unsigned state = cfn_id_state(cfn_load_seq(&cfn_attachment(r, attachment)->id));
  return state == CFN_ID_VACANT || state == CFN_ID_FREE;
}

static void mark_ring(const cfn_region_t *r, const cfn_ring_t *q, uint8_t *referenced) {
  for (uint32_t i = 0; i < cfn_ring_slots(q); i++) {
    uint32_t ref = cfn_slot_ref(cfn_load_seq(&q->slot[i]));
    if (ref && ref <= r->geo.chunks) referenced[ref - 1] = 1;
  }
}

static void mark_referenced(const cfn_region_t *r, uint8_t *referenced) {
  for (uint32_t i = 0; i < r->geo.config.agents; i++)
    for (unsigned lane = 0; lane < CFN_LANES; lane++) {
      cfn_ring_t q = cfn_ring_of_lane(r, i, lane);
      mark_ring(r, &q, referenced);
    }
  for (uint32_t i = 0; i < r->geo.config.attachments; i++) {
    cfn_ring_t q = cfn_ring_of_replies(r, i);
    mark_ring(r, &q, referenced);
  }
  /* AFTER the rings: a chunk on its way from a ring to the free ones was announced before it left the ring. */
  for (uint32_t i = 0; i < r->geo.config.attachments; i++) {
    if (nobody_there(r, i)) continue; /* what its last process left in its registers was reaped */
    for (unsigned cell = 0; cell < CFN_REGISTERS; cell++) {
      uint64_t k = cfn_load_seq(&cfn_attachment(r, i)->reg[cell]);
      if (cell != CFN_REG_CREATE && k && k <= r->geo.chunks) referenced[k - 1] = 1;
    }
  }
}

/* Who its word names is not there (DONE names nobody). */
static bool nobodys(const cfn_region_t *r, uint64_t own) {
  if (cfn_own_state(own) == CFN_DONE) return true;
  uint32_t who = cfn_own_who(own);
  return who < r->geo.config.attachments && cfn_own_state(own) < CFN_DONE && nobody_there(r, who);
}

static void free_leaked(const cfn_region_t *r, cfn_repair_t *out, uint64_t *own, uint8_t *referenced) {
  /* The words first, and at once whether who they name is there. Publishing a chunk does not change its word: if its
   * sender is judged only after the rings were searched, it may have published behind the search, and left. One that
   * is gone before the search begins publishes no more, and a later life of its slot has other words. */
  for (uint32_t k = 0; k < r->geo.chunks; k++) {
    own[k] = cfn_load_seq(&cfn_chunk(r, k)->own);
    referenced[k] = cfn_own_state(own[k]) == CFN_FREE ? 1 : nobodys(r, own[k]) ? 0 : SOMEBODYS;
  }
  mark_referenced(r, referenced);
  for (uint32_t k = 0; k < r->geo.chunks; k++) {
    if (referenced[k] == 1) continue;
    if (cfn_load_seq(&cfn_chunk(r, k)->own) != own[k]) continue; /* in use */
    if (referenced[k] == SOMEBODYS) out->unproven++;
    else if (cfn_chunk_give_back(r, k, own[k])) out->chunks_freed++;
  }
}

bool cfn_hint_in_hand(const cfn_region_t *r, unsigned cls, uint64_t word) {
  for (uint32_t i = 0; i < r->geo.config.attachments; i++) {
    cfn_attach_shm_t *a = cfn_attachment(r, i);
    if (!nobody_there(r, i) && (cfn_load_seq(&a->hint_taken[cls]) == word + 1 || cfn_load_seq(&a->hint_freed) == word + 1))
      return true;
  }
  return false;
}

static void mend_hints(const cfn_region_t *r, cfn_repair_t *out) {
  for (unsigned c = 0; c < CFN_CLASSES; c++) {
    uint32_t before = cfn_slab_free_hint(r, c), words = (r->geo.config.class_chunks[c] + 63) / 64;
    for (uint32_t w = 0; w < words; w++)
      if (!cfn_hint_in_hand(r, c, r->geo.class_hint[c] + w)) cfn_slab_mend(r, r->geo.class_hint[c] + w);
    uint32_t after = cfn_slab_free_hint(r, c);
    if (after > before) out->hints_mended += after - before;
  }
}

int cfn_bus_repair(cfn_bus_t *bus, cfn_repair_t *out) {
  *out = (cfn_repair_t){0};
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  const cfn_region_t *region = bus->region;
  uint32_t chunks = region->geo.chunks;
  uint64_t *own = malloc(chunks * sizeof *own);
  uint8_t *referenced = calloc(chunks, 1);
  if (own && referenced) {
    cfn_directory_help(region);
    out->reaped = (uint32_t)cfn_reap_all(&bus->actor);
    free_leaked(region, out, own, referenced);
    mend_hints(region, out);
    out->files_removed = cfn_evict_sweep(region).removed;
  } else {
    r = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory to repair the bus");
  }
  free(own);
  free(referenced);
  return cfn_bus_left(bus, r);
}
