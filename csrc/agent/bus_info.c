/* What a bus tells of itself: every number here is read from the region. */
#include <string.h>

#include "agent/bus_ref.h"
#include "mem/directory.h"

static void owner_waits(const cfn_region_t *r, uint32_t att, uint32_t mailbox,
                        cfn_agent_info_t *out) {
  cfn_attach_shm_t *slot = cfn_attachment(r, att);
  uint64_t waiting = cfn_load_relaxed(&slot->waiting);
  if (cfn_load_relaxed(&slot->agent) != mailbox + 1) return;
  out->waiting = (uint8_t)(waiting >> 56);
  out->waiting_index = (uint32_t)waiting;
  if (waiting) out->waiting_since_wall_ns = cfn_load_relaxed(&slot->waiting_since);
  bool agent = out->waiting == CFN_WAIT_SPACE || out->waiting == CFN_WAIT_RECEIPT || out->waiting == CFN_WAIT_REPLY;
  if (agent && out->waiting_index < r->geo.config.agents) cfn_record_name(r, out->waiting_index, out->waiting_for);
  if (out->waiting >= CFN_WAIT_REF && out->waiting <= CFN_WAIT_BARRIER && out->waiting_index < r->geo.config.refs) {
    char key[CFN_KEY_BYTES];
    size_t bytes = cfn_record_key(r, cfn_record_of_ref(r, out->waiting_index), key);
    memcpy(out->waiting_for, key + (bytes > 2 && key[0] == CFN_KEY_OURS ? 2 : 0), sizeof out->waiting_for - 1);
  }
}

static void fill_agent(cfn_bus_t *bus, uint32_t i, cfn_agent_info_t *out) {
  cfn_region_t *r = bus->region;
  cfn_mailbox_shm_t *m = cfn_mailbox(r, i);
  memset(out, 0, sizeof *out);
  out->index = i;
  cfn_record_name(r, i, out->name);
  out->readable = 1;
  for (unsigned t = 0; t < CFN_TEXTS; t++)
    if (!cfn_profile_text(r, i, t, out->text[t])) out->readable = 0;
  out->registered_wall_ns = cfn_load_relaxed(&m->registered_wall_ns);
  uint64_t owner = cfn_load_seq(&m->owner);
  uint64_t consumer = cfn_load_seq(&m->consumer);
  out->incarnation = cfn_owner_inc(owner) - cfn_load_relaxed(&m->inc_base);
  unsigned whose = cfn_owner_att(owner), reader = cfn_consumer_att(consumer);
  if (whose && whose <= r->geo.config.attachments) {
    cfn_identity_of(r, whose - 1, &out->owner_pid);
    owner_waits(r, whose - 1, i, out);
  }
  if (whose == CFN_OWNER_DEAD) out->owner_pid = cfn_load_relaxed(&m->owner_pid);
  if (reader && reader <= r->geo.config.attachments) {
    cfn_identity_of(r, reader - 1, &out->reader_pid);
    if (!out->waiting) owner_waits(r, reader - 1, i, out);
  }
  out->life = (uint8_t)cfn_life_of_agent(r, i, NULL);
  for (unsigned l = 0; l < CFN_LANES; l++) {
    out->depth[l] = cfn_lane_depth(r, i, l);
    out->capacity[l] = r->geo.config.lane_slots[l];
  }
  out->sent = cfn_load_relaxed(&m->sent);
}

int cfn_bus_agent_info(cfn_bus_t *bus, const cfn_address_t *address, cfn_agent_info_t *out) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = CFN_STALE;
  if (address->index < bus->region->geo.config.agents) {
    fill_agent(bus, address->index, out);
    out->mid = address->mid;
    if (cfn_load_seq(&cfn_mailbox(bus->region, address->index)->mid) == address->mid) r = CFN_OK;
  }
  if (r == CFN_STALE) cfn_fail(r, 0, 0, "the agent was unregistered meanwhile");
  return cfn_bus_left(bus, r);
}

int cfn_bus_info(cfn_bus_t *bus, cfn_bus_info_t *out) {
  int e = cfn_bus_enter(bus);
  if (e < 0) return e;
  cfn_region_t *r = bus->region;
  memset(out, 0, sizeof *out);
  memcpy(out->name, r->name, sizeof out->name);
  memcpy(out->path, r->path, sizeof out->path);
  out->config = r->geo.config;
  out->region_bytes = r->geo.region_bytes;
  out->created_wall_ns = r->super.created_wall_ns;
  out->creator_pid = r->super.creator_pid;
  out->corrupt_dropped = cfn_load_relaxed(&cfn_state(r)->corrupt_dropped);
  out->attachment_inc = cfn_id_inc(bus->id_word);
  out->largest_body = cfn_bus_largest_body(bus);
  for (unsigned c = 0; c < CFN_CLASSES; c++) out->free_chunks[c] = cfn_slab_free_hint(r, c);
  uint64_t top = cfn_load_seq(&cfn_state(r)->attach_top);
  if (top > r->geo.config.attachments) top = r->geo.config.attachments;
  for (uint32_t i = 0; i < top; i++) {
    for (unsigned c = 0; c < CFN_COUNTERS; c++)
      out->counter[c] += cfn_load_relaxed(&cfn_attachment(r, i)->counter[c]);
    int life = cfn_life_of(r, i, NULL, NULL);
    if (life == CFN_LIFE_ALIVE) out->attached++;
    if (life == CFN_LIFE_DEAD) out->dead++;
  }
  for (uint32_t i = 0; i < r->geo.config.agents; i++)
    if (cfn_mid_state(cfn_load_seq(&cfn_mailbox(r, i)->mid)) == CFN_MID_OPEN) out->agents++;
  cfn_bus_leave(bus);
  return CFN_OK;
}

int cfn_bus_check(cfn_bus_t *bus, cfn_check_report_t report, void *context) {
  int r = cfn_bus_hold(bus); /* without the lock: the report may want one that others hold who want ours */
  if (r < 0) return r;
  r = cfn_region_check(bus->region, report, context);
  cfn_bus_unhold(bus);
  return r;
}
