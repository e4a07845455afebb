#include "sync/lease.h"

#include "base/error.h"
#include "base/os.h"
#include "sync/event.h"

#define PID_BITS 22 /* the kernel's most */

static uint64_t pid_note(uint64_t word, uint64_t pid) { return cfn_ref_version(word) << PID_BITS | pid; }

static void ring(const cfn_region_t *r, uint32_t ref) {
  cfn_event_ring_futex(&cfn_ref(r, ref)->event);
  cfn_event_ring_futex(&cfn_ref(r, ref)->holders);
}

int cfn_lease_take(const cfn_region_t *r, const cfn_ref_at_t *at, uint64_t word, cfn_attach_shm_t *slot, uint32_t me,
                   uint32_t who, uint64_t *ours) {
  /* BEFORE the CAS: a reaper that does not see it looks for no leases of ours. */
  if (cfn_load_relaxed(&slot->leases) == 0) cfn_store_seq(&slot->leases, 1);
  uint64_t version;
  int e = cfn_refs_swap(r, at, word, CFN_REF_LEASE + me, who, CFN_RING_HOLDERS, &version);
  *ours = cfn_ref_word(CFN_REF_LEASE + me, version);
  return e;
}

int cfn_lease_give_back(const cfn_region_t *r, uint32_t ref, uint64_t ours) {
  if (!cfn_cas_seq(&cfn_ref(r, ref)->word, ours, cfn_ref_word(0, cfn_refs_next_version(r)))) return CFN_LEASE_LOST;
  /* dies here: free, and who waits may sleep: until the reaper rings, or their own tick */
  ring(r, ref);
  return CFN_OK;
}

void cfn_lease_bury(const cfn_region_t *r, uint32_t ref, uint64_t word, uint64_t pid, uint32_t who) {
  cfn_ref_shm_t *record = cfn_ref(r, ref);
  /* Who died stands there before the lease is said to have lost its holder. Late notes lose: the maximum is the newest. */
  if (pid) cfn_max_seq(&record->died_pid, pid_note(word, pid & ((1u << PID_BITS) - 1)));
  if (who) cfn_max_seq(&record->changed_by, cfn_ref_change(cfn_ref_version(word), who));
  cfn_max_seq(&record->died_wall_ns, cfn_os_wall_ns());
  cfn_cas_seq(&record->word, word, cfn_ref_word(CFN_REF_DIED, cfn_ref_version(word)));
  ring(r, ref);
}

static uint32_t refs_used(const cfn_region_t *r) {
  uint64_t top = cfn_load_seq(&cfn_state(r)->ref_top);
  return top < r->geo.config.refs ? (uint32_t)top : r->geo.config.refs;
}

void cfn_lease_reap(const cfn_region_t *r, uint32_t dead, const cfn_a64 *id, uint64_t reap_word) {
  cfn_attach_shm_t *slot = cfn_attachment(r, dead);
  if (cfn_load_seq(&slot->leases) == 0) return;
  uint64_t pid = cfn_load_relaxed(&slot->pid);
  uint32_t who = (uint32_t)cfn_load_relaxed(&slot->agent), holder;
  for (uint32_t i = 0; i < refs_used(r); i++) {
    uint64_t w = cfn_load_seq(&cfn_ref(r, i)->word);
    if (cfn_lease_held(w, &holder) && holder == dead) {
      if (cfn_load_seq(id) != reap_word) return; /* LAST: or it may be held by its next process */
      cfn_lease_bury(r, i, w, pid, who);
    } else if (!cfn_lease_held(w, &holder)) { /* also one that another reaper has just buried, and not rung */
      ring(r, i);
    }
  }
}

void cfn_lease_give_back_all(const cfn_region_t *r, uint32_t me) {
  cfn_attach_shm_t *slot = cfn_attachment(r, me);
  if (cfn_load_relaxed(&slot->leases) == 0) return;
  uint32_t holder;
  for (uint32_t i = 0; i < refs_used(r); i++) {
    uint64_t w = cfn_load_seq(&cfn_ref(r, i)->word);
    if (cfn_lease_held(w, &holder) && holder == me) cfn_lease_give_back(r, i, w);
  }
}

void cfn_lease_past(const cfn_region_t *r, uint32_t ref, uint64_t word, cfn_lease_past_t *out) {
  cfn_ref_shm_t *record = cfn_ref(r, ref);
  *out = (cfn_lease_past_t){0};
  uint64_t by = cfn_load_seq(&record->changed_by), died = cfn_load_seq(&record->died_pid);
  if (cfn_ref_change_version(by) == cfn_ref_version(word)) out->who = cfn_ref_change_who(by);
  if (died >> PID_BITS == pid_note(word, 0) >> PID_BITS) out->pid = died & ((1u << PID_BITS) - 1);
  if (cfn_lease_died(word)) out->died_wall_ns = cfn_load_seq(&record->died_wall_ns);
}
