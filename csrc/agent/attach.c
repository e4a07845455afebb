#include "agent/attach.h"

#include "base/error.h"
#include "base/os.h"
#include "sync/lease.h"

/* The dead holder's slot, whose byte we have: is it VACANT now? */
static bool recycle(cfn_region_t *r, uint32_t i) {
  cfn_attach_shm_t *slot = cfn_attachment(r, i);
  uint64_t w = cfn_load_seq(&slot->id);
  cfn_identity_t who = {cfn_load_relaxed(&slot->pid), cfn_load_relaxed(&slot->pid_ns),
                        cfn_load_relaxed(&slot->time_ns), cfn_load_relaxed(&slot->start_time),
                        cfn_load_relaxed(&slot->pidfs_ino)};
  /* The byte is free but its process may run on, robbed of its lock: then it is not dead. */
  if (cfn_id_state(w) == CFN_ID_LIVE && cfn_os_process_maps(&who, r->dev, r->ino) != 0)
    return false;
  return cfn_recycle(r, i);
}

/* We have the byte of a VACANT slot: make it ours. */
static bool join(cfn_region_t *r, uint32_t i, cfn_actor_t *actor, uint64_t *id_word) {
  cfn_attach_shm_t *slot = cfn_attachment(r, i);
  uint64_t w = cfn_load_seq(&slot->id);
  if (cfn_id_state(w) != CFN_ID_VACANT && cfn_id_state(w) != CFN_ID_FREE) return false;
  uint64_t joining = cfn_id_word(cfn_id_inc(w) + 1, CFN_ID_JOINING);
  if (!cfn_cas_seq(&slot->id, w, joining)) return false;
  cfn_identity_t me;
  cfn_os_identity(&me);
  uint64_t nonce = cfn_os_random() | 1;
  cfn_store_relaxed(&slot->nonce, nonce);
  cfn_store_relaxed(&slot->pid, me.pid);
  cfn_store_relaxed(&slot->pid_ns, me.pid_ns);
  cfn_store_relaxed(&slot->time_ns, me.time_ns);
  cfn_store_relaxed(&slot->start_time, me.start_time);
  cfn_store_relaxed(&slot->pidfs_ino, me.pidfs_ino);
  cfn_store_relaxed(&slot->attached_wall_ns, cfn_os_wall_ns());
  cfn_store_relaxed(&slot->waiting, 0);
  cfn_store_relaxed(&slot->agent, 0);
  for (unsigned c = 0; c < CFN_REGISTERS; c++) cfn_store_relaxed(&slot->reg[c], 0);
  for (unsigned h = 0; h < CFN_HOLDS; h++) cfn_store_relaxed(&slot->holds[h], 0);
  for (unsigned c = 0; c < CFN_CLASSES; c++) cfn_store_relaxed(&slot->hint_taken[c], 0);
  cfn_store_relaxed(&slot->hint_freed, 0);
  cfn_store_relaxed(&slot->leases, 0);
  *id_word = cfn_id_word(cfn_id_inc(joining), CFN_ID_LIVE);
  cfn_life_note(r, i, nonce);
  cfn_max_seq(&cfn_state(r)->attach_top, i + 1);
  /* release: who sees LIVE sees the identity and the empty announcements of this life */
  if (!cfn_cas_seq(&slot->id, joining, *id_word)) return false;
  *actor = (cfn_actor_t){r, slot, i};
  return true;
}

int cfn_attach(cfn_region_t *r, cfn_actor_t *actor, uint64_t *id_word) {
  uint32_t n = r->geo.config.attachments;
  uint32_t start = (uint32_t)(cfn_add_relaxed(&cfn_state(r)->attach_hint, 1) % n);
  for (int pass = 0; pass < 2; pass++) {
    for (uint32_t j = 0; j < n; j++) {
      uint32_t i = (start + j) % n;
      unsigned state = cfn_id_state(cfn_load_acquire(&cfn_attachment(r, i)->id));
      bool vacant = state == CFN_ID_FREE || state == CFN_ID_VACANT;
      if (!vacant && pass == 0) continue; /* the dead are looked for only when no slot is vacant */
      uint64_t judged;
      /* BEFORE we have its byte: stopped with it, we would make the dead one look alive to who waits for what it held. */
      if (!vacant && cfn_life_of(r, i, &judged, NULL) == CFN_LIFE_DEAD) cfn_reap_what_others_wait_for(r, i, judged);
      int taken = cfn_life_take(r, i);
      if (taken == CFN_AGAIN) continue;
      if (taken < 0) return taken;
      if ((vacant || recycle(r, i)) && join(r, i, actor, id_word)) return CFN_OK;
      cfn_life_drop(r, i);
    }
  }
  return cfn_fail(CFN_OVER_CAPACITY, n, n + 1,
                  "bus '%s' has room for %u attached processes and all are in use by living ones; "
                  "create it with more agents (--agents, CFNSHM_AGENTS)",
                  r->name, n);
}

void cfn_detach(const cfn_actor_t *a, uint64_t id_word) {
  cfn_lease_give_back_all(a->region, a->me);
  for (unsigned h = 0; h < CFN_HOLDS; h++) {
    uint64_t held = cfn_load_relaxed(&a->slot->holds[h]);
    if (held == 0 || held > a->region->geo.config.agents) continue;
    cfn_mailbox_shm_t *m = cfn_mailbox(a->region, (uint32_t)held - 1);
    uint64_t w = cfn_load_seq(&m->consumer);
    cfn_registry_give_back_owner(a, (uint32_t)held - 1);
    if (cfn_consumer_att(w) == a->me + 1)
      cfn_registry_give_back_consumer(a, (uint32_t)held - 1, w);
  }
  if (cfn_load_seq(&a->slot->id) == id_word) cfn_recycle(a->region, a->me);
  cfn_life_drop(a->region, a->me);
}
