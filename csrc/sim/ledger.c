#include "sim/ledger.h"

#include "sim/kernel.h"

#include <string.h>

sim_ledger_t L;
cfn_bus_t *bus[SIM_PROCESSES];

uint64_t patience(void) { return sim_now() + UINT64_C(60000000000); }

uint8_t id_of(const void *out) {
  const cfn_wire_t *w = out;
  const uint8_t *body = (const uint8_t *)(w + 1) + w->sender_bytes + w->type_bytes;
  for (uint32_t i = 1; i < w->body_bytes; i++) SIM_CHECK(body[i] == body[0]);
  return body[0];
}

int last_got;

static void note_got(int me, const void *out) {
  const cfn_wire_t *w = out;
  int id = last_got = id_of(out);
  SIM_CHECK(id < IDS);
  sim_note("  process %d got %d%s", me, id, w->wire_flags & CFN_WIRE_REDELIVERED ? " again" : "");
  if (L.thief[me]) SIM_CHECK(!L.over[id]);
  L.got[id]++;
  if (!(w->wire_flags & CFN_WIRE_REDELIVERED)) {
    L.unmarked[id]++;
    int sender = id / 8;
    /* First hand-outs come in each sender's order. (With weak memory, a reader that is told late may have been first all
     * the same: then the other one has the mark.) */
    SIM_CHECK(L.last[sender] < id || (sim_is_weak() && L.got[id] > L.unmarked[id]));
    if (L.last[sender] < id) L.last[sender] = id;
  }
}

int post(int me, cfn_bus_t *from, const char *to, int id, uint64_t deadline) {
  return post_bytes(me, from, to, id, 40, deadline);
}

int post_bytes(int me, cfn_bus_t *from, const char *to, int id, uint32_t bytes, uint64_t deadline) {
  cfn_address_t at;
  uint8_t body[LETTER];
  memset(body, id, bytes); /* a torn copy shows */
  int r = cfn_bus_find(from, to, &at);
  if (r < 0) return r;
  do {
    r = cfn_bus_send_one(from, at.index, at.mid, CFN_LANE_NORMAL, 0, body, bytes, "", 0, 0, deadline, NULL);
  } while (r == CFN_INTERRUPTED);
  sim_note("  process %d sent %d: %s", me, id, cfn_error_name(r));
  if (r == CFN_OK) L.told[id]++;
  return r;
}

int64_t take(int me, cfn_bus_t *reader, uint64_t *token, uint64_t deadline) {
  _Alignas(8) uint8_t out[LETTER + 512];
  int64_t n;
  do {
    n = cfn_bus_recv(reader, token, *token != 0, CFN_ALL_LANES, 0, deadline, out, sizeof out);
    *token = 0;
  } while (n == CFN_INTERRUPTED);
  if (n > 0) {
    note_got(me, out);
    memcpy(token, out, sizeof *token);
  }
  return n;
}

int64_t take_many(int me, cfn_bus_t *reader, uint32_t most, void *out, size_t room, uint32_t *offsets) {
  size_t used;
  int64_t n;
  do {
    n = cfn_bus_recv_many(reader, NULL, 0, CFN_ALL_LANES, most, 0, out, room, offsets, &used);
  } while (n == CFN_INTERRUPTED);
  for (int64_t i = 0; i < n; i++) note_got(me, (const uint8_t *)out + offsets[i]);
  return n;
}

void begin(void) {
  memset(&L, 0, sizeof L);
  kernel_spills(false);
  for (int p = 0; p < SIM_PROCESSES; p++) {
    bus[p] = NULL;
    L.last[p] = -1;
  }
}

static void finding(void *context, const char *severity, const char *text) {
  (void)context;
  sim_note("  %s: %s", severity, text);
}

static void forget_everybody(cfn_bus_t *late) {
  cfn_address_t all[16];
  cfn_agent_info_t info;
  uint64_t dropped;
  for (int n = cfn_bus_agents(late, all, 16); n-- > 0;)
    if (cfn_bus_agent_info(late, &all[n], &info) == CFN_OK)
      SIM_CHECK(cfn_bus_unregister(late, info.name, CFN_FORCE, &dropped) == CFN_OK);
}

void everybody_leaves(int p) {
  for (int i = 0; i < SIM_PROCESSES - 1; i++)
    if (bus[i] && sim_end(i) == 'd') {
      sim_as(i);
      cfn_bus_close(bus[i]);
    }
  sim_as(p);
}

void audit_heap(int p, cfn_bus_t *late) {
  everybody_leaves(p);
  cfn_bus_reap(late);
  cfn_bus_collect(late);
  cfn_bus_collect(late); /* what the first made LIVE again is decided on by the second */
  cfn_heap_info_t info;
  SIM_CHECK(cfn_bus_heap_info(late, &info) == CFN_OK);
  if (info.objects || info.used_bytes) sim_fail("%u objects, %d bytes are held by nobody", info.objects, (int)info.used_bytes);
  bus[0] = bus[1] = bus[2] = NULL;
}

void audit(const char *agent) {
  int p = SIM_PROCESSES - 1; /* a process that took no part */
  cfn_bus_t *late = sim_open(p, NULL);
  sim_as(p);
  everybody_leaves(p);
  SIM_CHECK(cfn_bus_reap(late) >= 0);
  SIM_CHECK(cfn_region_check(cfn_bus_region(late), finding, NULL) == 0);
  for (uint32_t i = 0; i < cfn_bus_region(late)->geo.config.agents; i++) {
    unsigned state = cfn_mid_state(cfn_load_seq(&cfn_mailbox(cfn_bus_region(late), i)->mid));
    if (state != CFN_MID_OPEN && state != CFN_MID_FREE) sim_fail("record %u is left in state %u", i, state);
  }
  cfn_address_t at;
  if (agent && cfn_bus_find(late, agent, &at) == CFN_OK) {
    cfn_bus_t *heir = sim_open(p, agent);
    uint64_t token = 0;
    int64_t n;
    while ((n = take(p, heir, &token, 0)) > 0) SIM_CHECK(L.acked[last_got] == 0); /* what was acked is over */
    SIM_CHECK(n == CFN_EMPTY);
    cfn_bus_close(heir);
  }
  cfn_region_t *r = cfn_bus_region(late);
  forget_everybody(late);
  cfn_bus_close(late); /* gives its hints back */
  for (uint32_t k = 0; k < r->geo.chunks; k++) {
    uint64_t own = cfn_load_seq(&cfn_chunk(r, k)->own);
    if (cfn_own_state(own) != CFN_FREE) sim_fail("chunk %u is not free: state %u", k, cfn_own_state(own));
    uint64_t hints = cfn_load_seq(&cfn_hints(r)[k / 64]);
    if (!(hints >> (k % 64) & 1)) sim_fail("chunk %u is free and nobody will find it: its hint is lost", k);
  }
  SIM_CHECK(cfn_region_check(r, finding, NULL) == 0);
  for (int id = 0; agent && id < IDS; id++) {
    if (L.told[id] && !L.got[id]) sim_fail("message %d is lost", id);
    if (L.unmarked[id] > 1) sim_fail("message %d came twice without a mark", id);
  }
}

void audit_reader(void) { audit("reader"); }
void audit_all(void) { audit(NULL); }
