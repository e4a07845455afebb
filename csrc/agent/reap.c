#include "agent/reap.h"

#include "base/error.h"
#include "mem/directory.h"
#include "mem/heap.h"
#include "sync/lease.h"

typedef struct reaping {
  cfn_region_t *r;
  uint32_t d;
  cfn_attach_shm_t *slot;
  uint64_t word; /* REAP(inc) */
} reaping_t;

static bool authorised(const reaping_t *p) { return cfn_load_seq(&p->slot->id) == p->word; }

/* One chunk that the register names. */
static void reap_chunk(const reaping_t *p, uint64_t announced) {
  if (announced == 0 || announced > p->r->geo.chunks) return;
  uint32_t k = (uint32_t)announced - 1;
  cfn_chunk_shm_t *chunk = cfn_chunk(p->r, k);
  for (int tries = 0; tries < 64; tries++) {
    uint64_t own = cfn_load_seq(&chunk->own);
    unsigned state = cfn_own_state(own);
    bool by_dead = cfn_own_who(own) == p->d && (state == CFN_MINE || state == CFN_TAKEN);
    /* DONE in no slot is left over from R5 whoever acked it: the head move frees, not the acker. */
    if (!by_dead && state != CFN_DONE) return;
    uint64_t target = cfn_load_acquire(&chunk->target);
    cfn_ring_t q;
    bool held = cfn_ring_of_target(p->r, target, &q) && cfn_ring_holds(&q, k);
    if (held) {
      cfn_route_ring(p->r, cfn_target_kind(target), cfn_target_index(target));
      return;
    }
    /* LAST, after the ring was searched: a reaper that slept through the attachment's reuse would
     * free a chunk that its new process has just claimed. */
    if (!authorised(p)) return;
    if (cfn_chunk_give_back(p->r, k, own)) return;
  }
}

/* Hints of free chunks that it took or owed, and of those it was about to free. No re-check of the authority:
 * a hint is advice, and what is set here is the hint of a chunk that is FREE, whoever's word this is by now. */
static void reap_hints(const reaping_t *p) {
  for (unsigned c = 0; c < CFN_CLASSES; c++) {
    uint64_t word = cfn_load_acquire(&p->slot->hint_taken[c]);
    if (word) cfn_slab_mend(p->r, word - 1);
  }
  uint64_t owed = cfn_load_acquire(&p->slot->hint_freed);
  if (owed) cfn_slab_mend(p->r, owed - 1);
  for (unsigned c = 0; c < CFN_REGISTERS; c++) {
    uint64_t chunk = cfn_load_acquire(&p->slot->reg[c]);
    if (c != CFN_REG_CREATE && chunk && chunk <= p->r->geo.chunks)
      cfn_slab_mend_chunk(p->r, (uint32_t)chunk - 1);
  }
}

static void reap_creation(const reaping_t *p) {
  uint64_t cell = cfn_load_acquire(&p->slot->reg[CFN_REG_CREATE]);
  if (cell == 0 || cell > p->r->geo.records) return;
  uint32_t i = (uint32_t)cell - 1;
  cfn_a64 *mid = cfn_record_state(p->r, i);
  for (int tries = 0; tries < 64; tries++) {
    uint64_t w = cfn_load_seq(mid);
    unsigned state = cfn_mid_state(w);
    bool undecided = state == CFN_MID_MINE || state == CFN_MID_PEND || state == CFN_MID_FAIL;
    if (!undecided || cfn_mid_who(w) != p->d) return;
    if (state == CFN_MID_PEND) {
      uint64_t intent = cfn_load_seq(&cfn_state(p->r)->intent);
      if (cfn_intent_record(intent) == i + 1) { /* published: the directory decides, not we */
        cfn_directory_help(p->r);
        continue;
      }
    }
    if (!authorised(p)) return;
    /* The dead cannot publish any more; if it had, the word would not be PEND any more. */
    cfn_cas_seq(mid, w, cfn_mid_word(cfn_mid_ver(w) + 1, CFN_MID_FREE, 0));
  }
}

static void reap_hold(const reaping_t *p, uint64_t cell) {
  if (cell == 0 || cell > p->r->geo.config.agents) return;
  uint32_t i = (uint32_t)cell - 1;
  cfn_mailbox_shm_t *m = cfn_mailbox(p->r, i);
  uint64_t w = cfn_load_seq(&m->consumer);
  if (cfn_consumer_att(w) == p->d + 1) {
    if (!authorised(p)) return;
    cfn_cas_seq(&m->consumer, w, cfn_consumer_word(cfn_consumer_ver(w) + 1, 0));
  }
  w = cfn_load_seq(&m->owner);
  if (cfn_owner_att(w) == p->d + 1) {
    if (!authorised(p)) return;
    cfn_cas_seq(&m->owner, w, cfn_owner_word(cfn_owner_inc(w), CFN_OWNER_DEAD));
  }
  /* What the dead may have done without saying so: emptied slots, acks, its own death. */
  cfn_event_ring_futex(&m->space.event);
  cfn_event_ring_futex(&m->acks.event);
  cfn_event_ring(&m->bell.event, (cfn_doorbell_t){p->r, 'm', i});
}

static void reap_replies(const reaping_t *p, unsigned me, cfn_a64 *cell) {
  cfn_ring_t q = cfn_ring_of_replies(p->r, p->d);
  cfn_authority_t authority = {{&p->slot->id, NULL}, {p->word, 0}};
  uint64_t dropped = 0;
  uint64_t lap;
  if (cfn_ring_retire_lap(&q, 1, &p->slot->reply_rlap, cfn_id_inc(p->word), &authority, &lap))
    cfn_ring_retire(p->r, &q, lap, me, cell, &authority, &dropped);
  cfn_event_ring_futex(&p->slot->reply_space);
}

/* Steps 2 to 7. True if this call made the slot VACANT. */
static bool reap_all_of(const reaping_t *p, unsigned me, cfn_a64 *cell) {
  cfn_region_t *r = p->r;
  cfn_directory_help(r); /* it may have died over an intent; a name change must not wait for luck */
  static const unsigned chunk_cells[] = {CFN_REG_SEND, CFN_REG_DONE, CFN_REG_DRAIN, CFN_REG_JOINER};
  for (unsigned c = 0; c < sizeof chunk_cells / sizeof chunk_cells[0]; c++)
    reap_chunk(p, cfn_load_acquire(&p->slot->reg[chunk_cells[c]]));
  reap_creation(p);
  for (unsigned h = 0; h < CFN_HOLDS; h++) reap_hold(p, cfn_load_acquire(&p->slot->holds[h]));
  reap_replies(p, me, cell);
  cfn_heap_reap(r, p->d, &p->slot->id, p->word);
  cfn_lease_reap(r, p->d, &p->slot->id, p->word);
  reap_hints(p);
  cfn_event_ring_futex(&cfn_state(r)->refs.event); /* it may have died between a change and its ring */
  for (unsigned c = 0; c < CFN_CLASSES; c++) /* ... and between freeing and saying so */
    cfn_event_ring_futex(&cfn_state(r)->class_room[c].event);
  if (!cfn_cas_seq(&p->slot->id, p->word, cfn_id_word(cfn_id_inc(p->word), CFN_ID_VACANT)))
    return false;
  cfn_event_ring_futex(&cfn_state(r)->registry.event);
  return true;
}

void cfn_reap_what_others_wait_for(cfn_region_t *r, uint32_t d, uint64_t judged) {
  reaping_t p = {r, d, cfn_attachment(r, d), cfn_id_word(cfn_id_inc(judged), CFN_ID_REAP)};
  if (judged != p.word) cfn_cas_seq(&p.slot->id, judged, p.word);
  if (!authorised(&p)) return;
  for (unsigned h = 0; h < CFN_HOLDS; h++) reap_hold(&p, cfn_load_acquire(&p.slot->holds[h]));
  cfn_heap_reap(r, d, &p.slot->id, p.word);
  cfn_lease_reap(r, d, &p.slot->id, p.word);
}

int cfn_reap(cfn_region_t *r, uint32_t d, uint64_t judged, unsigned me, cfn_a64 *cell) {
  reaping_t p = {r, d, cfn_attachment(r, d), cfn_id_word(cfn_id_inc(judged), CFN_ID_REAP)};
  if (judged != p.word) cfn_cas_seq(&p.slot->id, judged, p.word);
  return authorised(&p) && reap_all_of(&p, me, cell);
}

bool cfn_recycle(cfn_region_t *r, uint32_t d) {
  cfn_attach_shm_t *slot = cfn_attachment(r, d);
  for (;;) {
    uint64_t w = cfn_load_seq(&slot->id);
    unsigned state = cfn_id_state(w);
    if (state == CFN_ID_FREE || state == CFN_ID_VACANT) return true;
    reaping_t p = {r, d, slot, cfn_id_word(cfn_id_inc(w), CFN_ID_LEAVING)};
    if (w != p.word && !cfn_cas_seq(&slot->id, w, p.word)) continue;
    if (reap_all_of(&p, d, &slot->reg[CFN_REG_JOINER])) return true;
  }
}

int cfn_reap_if_dead(const cfn_actor_t *a, uint32_t i) {
  uint64_t judged;
  if (cfn_life_of(a->region, i, &judged, NULL) != CFN_LIFE_DEAD) return 0;
  int reaped = cfn_reap(a->region, i, judged, a->me, &a->slot->reg[CFN_REG_DRAIN]);
  if (reaped) {
    cfn_a64 *c = &a->slot->counter[CFN_COUNT_REAPED];
    cfn_store_relaxed(c, cfn_load_relaxed(c) + 1);
  }
  return reaped;
}

int cfn_reap_all(const cfn_actor_t *a) {
  int n = 0;
  for (uint32_t i = 0; i < a->region->geo.config.attachments; i++)
    if (i != a->me) n += cfn_reap_if_dead(a, i);
  cfn_registry_finish_removals(a);
  return n;
}
