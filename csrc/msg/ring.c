#include "msg/ring.h"

#include "base/error.h"

#define PUBLISH_TRIES 4096

cfn_ring_t cfn_ring_of_lane(const cfn_region_t *r, uint32_t mailbox, unsigned lane) {
  cfn_lane_shm_t *l = &cfn_mailbox(r, mailbox)->lane[lane];
  return (cfn_ring_t){cfn_lane_slots(r, mailbox, lane), &l->tail, &l->head, r->geo.lane_log2[lane]};
}

cfn_ring_t cfn_ring_of_replies(const cfn_region_t *r, uint32_t attachment) {
  cfn_attach_shm_t *a = cfn_attachment(r, attachment);
  return (cfn_ring_t){a->reply_slot, &a->reply_tail, &a->reply_head,
                      (uint32_t)__builtin_ctz(CFN_REPLY_SLOTS)};
}

bool cfn_ring_of_target(const cfn_region_t *r, uint64_t target, cfn_ring_t *out) {
  uint32_t index = cfn_target_index(target);
  if (cfn_target_kind(target) == CFN_TO_MAILBOX && index < r->geo.config.agents &&
      cfn_target_lane(target) < CFN_LANES) {
    *out = cfn_ring_of_lane(r, index, cfn_target_lane(target));
    return true;
  }
  if (cfn_target_kind(target) == CFN_TO_REPLY && index < r->geo.config.attachments) {
    *out = cfn_ring_of_replies(r, index);
    return true;
  }
  return false;
}

int cfn_ring_publish(const cfn_ring_t *q, uint32_t k, const cfn_a64 *authority, uint64_t expect,
                     uint64_t *position) {
  for (int i = 0; i < PUBLISH_TRIES; i++) {
    /* acquire pairs with the helpers' release below: who sees tail t+1 sees slot t filled */
    uint64_t t = cfn_load_acquire(q->tail);
    cfn_a64 *slot = cfn_ring_slot(q, t);
    /* acquire pairs with the consumer's emptying CAS; seq_cst: FULL may be said of a position that
     * cfn_ring_full did not look at, to a sender that has armed the space event */
    uint64_t w = cfn_load_seq(slot);
    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(q, t));
    if (ahead == 0 && cfn_slot_ref(w) == 0) {
      /* AFTER the slot: a removal first closes the mailbox, then bumps the slot. Seeing it open
       * here means our CAS comes before the bump or fails on it. Without this a sender that slept
       * through a removal delivers into the next owner's inbox. */
      if (cfn_load_acquire(authority) != expect) return CFN_STALE;
      /* COMMIT. release: the chunk's content comes before; seq_cst: the Dekker pair with the
       * consumer's arming of its bell. */
      if (cfn_cas_seq(slot, w, cfn_slot_word(cfn_slot_lap(w), k + 1))) {
        /* dies here: delivered; tail lags by one until the next sender helps */
        cfn_cas_release(q->tail, t, t + 1);
        *position = t;
        return CFN_OK;
      }
    } else if (ahead >= 0) {
      /* Filled, or consumed already, while tail still points at it: help whoever did it. */
      cfn_cas_release(q->tail, t, t + 1);
    } else if (cfn_load_acquire(q->tail) == t) {
      /* lap behind: the message of one lap ago is still there */
      return cfn_load_acquire(authority) == expect ? CFN_FULL : CFN_STALE;
    }
    if (i > 16) cfn_cpu_relax();
  }
  return CFN_AGAIN;
}

bool cfn_ring_full(const cfn_ring_t *q) {
  uint64_t t = cfn_load_seq(q->tail);
  uint64_t w = cfn_load_seq(cfn_ring_slot(q, t));
  return cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(q, t)) < 0;
}

bool cfn_ring_holds(const cfn_ring_t *q, uint32_t k) {
  for (uint32_t i = 0; i < cfn_ring_slots(q); i++)
    if (cfn_slot_ref(cfn_load_acquire(&q->slot[i])) == k + 1) return true;
  return false;
}

bool cfn_chunk_give_back(const cfn_region_t *r, uint32_t k, uint64_t own) {
  unsigned cls = cfn_chunk_class(r, k);
  if (!cfn_slab_free(r, k, own)) return false;
  cfn_event_ring_futex(&cfn_state(r)->class_room[cls].event);
  return true;
}

bool cfn_ring_retire_lap(const cfn_ring_t *rings, unsigned n, cfn_a64 *rlap, uint64_t tag,
                         const cfn_authority_t *authority, uint64_t *lap) {
  tag &= CFN_REF_MASK;
  for (;;) {
    uint64_t old = cfn_load_seq(rlap);
    *lap = cfn_rlap_lap(old);
    if (cfn_rlap_tag(old) == tag && old != 0) return true;
    /* A sender that looked before the closing may still fill one position beyond tail, in tail's lap
     * or the next: +1 is enough (models/remove.pml), +2 is margin. */
    for (unsigned i = 0; i < n; i++) {
      uint64_t next = cfn_ring_lap(&rings[i], cfn_load_seq(rings[i].tail)) + 2;
      if (cfn_lap_minus(next, *lap) > 0) *lap = next;
    }
    /* AFTER the loads: a retirer that slept since an earlier removal would otherwise overwrite the
     * number of the present one. */
    if (!cfn_authority_holds(authority)) return false;
    if (cfn_cas_seq(rlap, old, cfn_rlap_word(tag, *lap))) return true;
  }
}

/* One look at a slot of a ring that is being retired: 1 finished, 0 look again, -1 not ours. */
static int retire_slot(const cfn_region_t *r, cfn_a64 *slot, uint64_t lap, unsigned me,
                       cfn_a64 *cell, const cfn_authority_t *authority, uint64_t *dropped) {
  uint64_t w = cfn_load_seq(slot);
  if (cfn_lap_minus(cfn_slot_lap(w), lap) >= 0) return 1;
  uint32_t ref = cfn_slot_ref(w);
  if (ref == 0 || ref > r->geo.chunks) { /* empty, or a word that makes no sense */
    if (!cfn_authority_holds(authority)) return -1;
    return cfn_cas_seq(slot, w, cfn_slot_word(lap, 0));
  }
  uint32_t k = ref - 1;
  cfn_chunk_shm_t *chunk = cfn_chunk(r, k);
  uint64_t own = cfn_load_seq(&chunk->own);
  uint32_t messages = 0;
  if (cfn_load_seq(slot) != w) return 0; /* own belongs to what is in the slot only if it still is */
  if (!cfn_authority_holds(authority)) return -1; /* LAST */
  unsigned state = cfn_own_state(own);
  cfn_store_seq(cell, k + 1); /* announced before it is taken */
  if (state == CFN_MINE || state == CFN_TAKEN) {
    uint64_t mine = cfn_own_next(own, CFN_TAKEN, me);
    if (!cfn_cas_seq(&chunk->own, own, mine)) return 0;
    /* dies here: TAKEN(me) and referenced; the next retirer takes it over */
    messages = cfn_plain_load(&chunk->count);
    bool emptied = cfn_cas_seq(slot, w, cfn_slot_word(lap, 0));
    /* dies here: TAKEN(me), unreferenced, announced: the reaper frees it */
    /* Also when another retirer emptied the slot: its free failed on our word, so this is ours. */
    cfn_chunk_give_back(r, k, mine);
    if (!emptied) return 0;
  } else if (state == CFN_DONE) {
    /* DONE is never re-owned: whoever empties the slot frees it. */
    if (!cfn_cas_seq(slot, w, cfn_slot_word(lap, 0))) return 0;
    cfn_chunk_give_back(r, k, own);
  } else { /* FREE and referenced: damage; the slot goes, the chunk is not ours */
    if (!cfn_cas_seq(slot, w, cfn_slot_word(lap, 0))) return 0;
  }
  cfn_store_seq(cell, 0);
  *dropped += messages;
  return 1;
}

bool cfn_ring_retire(const cfn_region_t *r, const cfn_ring_t *q, uint64_t lap, unsigned me,
                     cfn_a64 *cell, const cfn_authority_t *authority, uint64_t *dropped) {
  for (uint32_t i = 0; i < cfn_ring_slots(q); i++) {
    int done = 0;
    for (int tries = 0; tries < PUBLISH_TRIES && done == 0; tries++)
      done = retire_slot(r, &q->slot[i], lap, me, cell, authority, dropped);
    if (done <= 0) {
      cfn_store_seq(cell, 0);
      return false;
    }
  }
  /* Laps may only rise: a stale retirer's smaller number changes nothing. */
  cfn_max_seq(q->tail, lap << q->log2);
  cfn_max_seq(q->head, lap << q->log2);
  return true;
}
