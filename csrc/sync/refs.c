#include "sync/refs.h"

#include "base/error.h"
#include "base/os.h"
#include "sync/event.h"

uint64_t cfn_refs_next_version(const cfn_region_t *r) { return cfn_add_seq(&cfn_state(r)->ref_version, 1) + 1; }

int cfn_refs_find(const cfn_region_t *r, const char *key, size_t bytes, cfn_ref_at_t *out) {
  uint32_t record;
  if (cfn_directory_find(r, CFN_KIND_REF, key, bytes, &record, &out->mid) != CFN_OK) return CFN_UNKNOWN_KEY;
  out->ref = record - r->geo.config.agents;
  return CFN_OK;
}

/* A closed ref: its name goes, and then it is FREE. */
static void finish_closing(const cfn_region_t *r, uint32_t ref) {
  cfn_a64 *mid = &cfn_ref(r, ref)->mid;
  uint64_t w = cfn_load_seq(mid);
  if (cfn_ref_blob(cfn_load_seq(&cfn_ref(r, ref)->word)) != CFN_REF_CLOSED) return; /* w is its state while closed */
  if (cfn_mid_state(w) == CFN_MID_OPEN) {
    if (cfn_directory_remove(r, cfn_record_of_ref(r, ref), w) != CFN_OK) return;
    w = cfn_mid_word(cfn_mid_ver(w) + 1, CFN_MID_REMOVING, 0);
  }
  /* dies here: REMOVING and closed: whoever needs a record goes on */
  if (cfn_mid_state(w) == CFN_MID_REMOVING) cfn_cas_seq(mid, w, cfn_mid_word(cfn_mid_ver(w) + 1, CFN_MID_FREE, 0));
  cfn_event_ring_futex(&cfn_ref(r, ref)->event); /* who watches the name looks for it anew */
  cfn_event_ring_futex(&cfn_ref(r, ref)->holders);
}

/* Takes the records of refs without a value back. Returns how many are free now. */
static uint32_t take_back(const cfn_region_t *r) {
  uint32_t freed = 0;
  for (uint32_t i = 0; i < r->geo.config.refs; i++) {
    cfn_ref_shm_t *ref = cfn_ref(r, i);
    uint64_t w = cfn_load_seq(&ref->word);
    unsigned state = cfn_mid_state(cfn_load_seq(&ref->mid));
    if (state != CFN_MID_OPEN && state != CFN_MID_REMOVING) continue;
    if (cfn_ref_blob(w) == 0 && state == CFN_MID_OPEN)
      cfn_cas_seq(&ref->word, w, cfn_ref_word(CFN_REF_CLOSED, cfn_refs_next_version(r)));
    finish_closing(r, i);
    freed += cfn_mid_state(cfn_load_seq(&ref->mid)) == CFN_MID_FREE;
  }
  return freed;
}

int cfn_refs_create(const cfn_region_t *r, unsigned me, cfn_a64 *cell, const char *key, size_t bytes, cfn_ref_at_t *out) {
  for (int tries = 0; tries < 1000; tries++) {
    if (cfn_refs_find(r, key, bytes, out) == CFN_OK) return CFN_OK;
    int64_t record = cfn_record_claim(r, CFN_KIND_REF, me, cell);
    if (record < 0) {
      if (take_back(r) > 0) continue;
      return CFN_OVER_CAPACITY;
    }
    out->ref = (uint32_t)record - r->geo.config.agents;
    cfn_ref_shm_t *ref = cfn_ref(r, out->ref);
    cfn_max_seq(&cfn_state(r)->ref_top, out->ref + 1);
    uint64_t w;
    do { /* no value; and a swap by who took the last name's word fails */
      w = cfn_load_seq(&ref->word);
    } while (!cfn_cas_seq(&ref->word, w, cfn_ref_word(0, cfn_refs_next_version(r))));
    cfn_record_name_store(r, (uint32_t)record, key, bytes);
    if (cfn_record_publish(r, (uint32_t)record, me, cell, &out->mid) == CFN_OK) return CFN_OK;
  }
  return CFN_AGAIN;
}

int cfn_refs_load(const cfn_region_t *r, const cfn_ref_at_t *at, uint64_t *word) {
  cfn_ref_shm_t *ref = cfn_ref(r, at->ref);
  *word = cfn_load_seq(&ref->word);
  if (cfn_load_seq(&ref->mid) != at->mid) return CFN_STALE; /* LAST: the word is this name's */
  if (cfn_ref_blob(*word) != CFN_REF_CLOSED) return CFN_OK;
  finish_closing(r, at->ref);
  return CFN_STALE;
}

int cfn_refs_swap(const cfn_region_t *r, const cfn_ref_at_t *at, uint64_t word, uint32_t blob_plus1, uint32_t who,
                  unsigned rings, uint64_t *version) {
  cfn_ref_shm_t *ref = cfn_ref(r, at->ref);
  *version = cfn_refs_next_version(r);
  if (!cfn_cas_seq(&ref->word, word, cfn_ref_word(blob_plus1, *version))) return CFN_AGAIN;
  /* dies here: changed, and who watches may sleep: until its own tick */
  cfn_store_relaxed(&ref->changed_wall_ns, cfn_os_wall_ns());
  cfn_max_seq(&ref->changed_by, cfn_ref_change(*version, who)); /* one who slept until here says nothing of a later change */
  if (rings & CFN_RING_WAITERS) cfn_event_ring_futex(&ref->event);
  if (rings & CFN_RING_HOLDERS) cfn_event_ring_futex(&ref->holders);
  if (rings & CFN_RING_ALL) cfn_event_ring_futex(&cfn_state(r)->refs.event);
  return CFN_OK;
}
