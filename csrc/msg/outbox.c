#include "msg/outbox.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/os.h"

#define CENSUS_EVERY 64u

void cfn_outbox_begin(cfn_outbox_t *out, const cfn_region_t *r, unsigned me,
                      const cfn_source_t *source) {
  memset(out, 0, sizeof *out);
  out->region = r;
  out->slot = cfn_attachment(r, me);
  out->me = me;
  out->source = *source;
  /* Senders start apart, so that they do not fight over the same chunks. */
  for (unsigned c = 0; c < CFN_CLASSES; c++) {
    uint32_t words = (r->geo.config.class_chunks[c] + 63) / 64;
    out->cursor.word[c] = out->cursor.home[c] = words ? (uint32_t)(cfn_hash64(&me, sizeof me) >> 7) % words : 0;
  }
}

static void count(cfn_outbox_t *out, unsigned which, uint64_t n) {
  cfn_a64 *c = &out->slot->counter[which];
  cfn_store_relaxed(c, cfn_load_relaxed(c) + n);
}

uint64_t cfn_outbox_frame_bytes(const cfn_outbox_t *out, const cfn_outgoing_t *messages,
                                uint32_t n) {
  uint64_t bytes = cfn_frame_head_bytes(out->source.name_bytes, n);
  for (uint32_t i = 0; i < n; i++) bytes += cfn_record_bytes(&messages[i]);
  return bytes;
}

/* While a class is short (under a quarter free), an inbox that already holds its fair part gets no
 * more of it: seven hundred paused inboxes must not eat the chunks of the living. */
static bool over_fair_part(cfn_outbox_t *out, unsigned cls, const cfn_ring_t *q) {
  uint32_t chunks = out->region->geo.config.class_chunks[cls];
  if (chunks < 64) return false;
  if (out->until_census[cls]-- == 0) {
    out->until_census[cls] = CENSUS_EVERY;
    out->scarce[cls] = cfn_slab_scarce(out->region, cls);
  }
  if (!out->scarce[cls]) return false;
  uint64_t depth = cfn_load_seq(q->tail) - cfn_load_seq(q->head); /* seq_cst: also behind an armed event */
  uint32_t fair = cfn_ring_slots(q) / 16;
  return depth >= (fair < 4 ? 4 : fair);
}

static int64_t claim(cfn_outbox_t *out, unsigned cls, bool urgent) {
  const cfn_region_t *r = out->region;
  cfn_a64 *cell = &out->slot->reg[CFN_REG_SEND];
  int64_t k = cfn_slab_claim(r, out->me, cell, cls, urgent, false, &out->cursor);
  if (k >= 0) return k;
  out->until_census[cls] = 0; /* the shortage is news: count again next time */
  for (unsigned up = cls + 1; up < CFN_CLASSES; up++)
    if (r->geo.config.class_chunks[up]) { /* a full class falls upward by one */
      k = cfn_slab_claim(r, out->me, cell, up, urgent, false, &out->cursor);
      if (k >= 0) return k;
      break;
    }
  return cfn_slab_claim(r, out->me, cell, cls, urgent, true, &out->cursor);
}

void cfn_route_ring(const cfn_region_t *r, unsigned kind, uint32_t index) {
  if (kind == CFN_TO_MAILBOX)
    cfn_event_ring(&cfn_mailbox(r, index)->bell.event, (cfn_doorbell_t){r, 'm', index});
  else
    cfn_event_ring(&cfn_attachment(r, index)->reply_bell, (cfn_doorbell_t){r, 'a', index});
}

int cfn_outbox_post(cfn_outbox_t *out, const cfn_route_t *route, const cfn_outgoing_t *messages,
                    uint32_t n, uint64_t *position, unsigned *cls) {
  const cfn_region_t *r = out->region;
  uint64_t bytes = cfn_outbox_frame_bytes(out, messages, n);
  int c = cfn_slab_class_for(r, bytes);
  if (c < 0) return CFN_TOO_LARGE;
  *cls = (unsigned)c;
  cfn_ring_t q;
  const cfn_a64 *authority;
  bool urgent = route->kind == CFN_TO_REPLY || route->lane == CFN_LANE_CONTROL;
  if (route->kind == CFN_TO_MAILBOX) {
    q = cfn_ring_of_lane(r, route->index, route->lane);
    authority = &cfn_mailbox(r, route->index)->mid;
  } else {
    q = cfn_ring_of_replies(r, route->index);
    authority = &cfn_attachment(r, route->index)->id;
  }
  if (cfn_load_acquire(authority) != route->expect) return CFN_STALE;
  /* S0: never hold a chunk while there is no slot for it. */
  if (cfn_ring_full(&q)) return CFN_FULL;
  if (!urgent && over_fair_part(out, *cls, &q)) return CFN_NO_SPACE;
  out->cursor.bytes = bytes;
  int64_t k = claim(out, *cls, urgent); /* S1 */
  if (k < 0) return CFN_NO_SPACE;
  cfn_chunk_shm_t *chunk = cfn_chunk(r, (uint32_t)k);
  uint64_t own = cfn_load_relaxed(&chunk->own); /* ours: nobody else changes MINE(me) */
  cfn_frame_write(chunk, cfn_chunk_payload(r, (uint32_t)k, cfn_chunk_class(r, (uint32_t)k)),
                  cfn_target_word(route->kind, route->lane, route->index), &out->source,
                  out->sequence + 1, cfn_os_wall_ns(), messages, n, (uint32_t)bytes); /* S2 */
  int result = cfn_ring_publish(&q, (uint32_t)k, authority, route->expect, position); /* S3, S4 */
  if (result == CFN_OK) {
    /* dies here: delivered, the receiver perhaps asleep; the register tells the reaper whose bell */
    cfn_route_ring(r, route->kind, route->index); /* S5 */
    out->sequence += n;
    count(out, CFN_COUNT_SENT, n);
    count(out, CFN_COUNT_SENT_BYTES, bytes);
  } else {
    cfn_chunk_give_back(r, (uint32_t)k, own);
  }
  cfn_store_release(&out->slot->reg[CFN_REG_SEND], 0);
  return result;
}
