/* What the virtual processes do, and what must be true afterwards, whatever the schedule. */
#include "sim/scenarios.h"

#include <string.h>

#include "agent/directory.h"
#include "agent/liveness.h"

#define IDS 32
#define LANE 4 /* places in the normal lane: see main.c */

/* Longer than any wait that somebody will end; who waits so long waits for the dead. */
static uint64_t patience(void) { return sim_now() + UINT64_C(60000000000); }

/* The ledger: what senders know, what readers know. */
static struct {
  int told[IDS];     /* send returned CFN_OK */
  int got[IDS];      /* handed out */
  int unmarked[IDS]; /* of these, without the mark of a redelivery */
  int acked[IDS];
  int last[SIM_PROCESSES]; /* highest id got of each sender: per-sender order */
} L;
static cfn_bus_t *bus[SIM_PROCESSES];

static uint8_t id_of(const void *out) {
  const cfn_wire_t *w = out;
  const uint8_t *body = (const uint8_t *)(w + 1) + w->sender_bytes + w->type_bytes;
  for (uint32_t i = 1; i < w->body_bytes; i++) SIM_CHECK(body[i] == body[0]);
  return body[0];
}

static void note_got(int me, const void *out) {
  const cfn_wire_t *w = out;
  int id = id_of(out);
  SIM_CHECK(id < IDS);
  sim_note("  process %d got %d%s", me, id, w->wire_flags & CFN_WIRE_REDELIVERED ? " again" : "");
  L.got[id]++;
  if (!(w->wire_flags & CFN_WIRE_REDELIVERED)) {
    L.unmarked[id]++;
    int sender = id / 8;
    SIM_CHECK(L.last[sender] < id); /* first hand-outs come in each sender's order */
    L.last[sender] = id;
  }
}

static int post(int me, cfn_bus_t *from, const char *to, int id, uint64_t deadline) {
  cfn_address_t at;
  uint8_t body[40];
  memset(body, id, sizeof body); /* a torn copy shows */
  int r = cfn_bus_find(from, to, &at);
  if (r < 0) return r;
  do {
    r = cfn_bus_send_one(from, at.index, at.mid, CFN_LANE_NORMAL, 0, body, sizeof body, "", 0, 0, deadline, NULL);
  } while (r == CFN_INTERRUPTED);
  sim_note("  process %d sent %d: %s", me, id, cfn_error_name(r));
  if (r == CFN_OK) L.told[id]++;
  return r;
}

static int64_t take(int me, cfn_bus_t *reader, uint64_t *token, uint64_t deadline) {
  _Alignas(8) uint8_t out[1024];
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

static void begin(void) {
  memset(&L, 0, sizeof L);
  for (int p = 0; p < SIM_PROCESSES; p++) {
    bus[p] = NULL;
    L.last[p] = -1;
  }
}

static void finding(void *context, const char *severity, const char *text) {
  (void)context;
  sim_note("  %s: %s", severity, text);
}

/* The dead are recycled, whoever survives leaves, a successor reads what is left of `agent`'s inbox; then
 * nothing may be held, missing, twice or out of order. */
static void forget_everybody(cfn_bus_t *late) {
  cfn_address_t all[16];
  cfn_agent_info_t info;
  uint64_t dropped;
  for (int n = cfn_bus_agents(late, all, 16); n-- > 0;)
    if (cfn_bus_agent_info(late, &all[n], &info) == CFN_OK)
      SIM_CHECK(cfn_bus_unregister(late, info.name, CFN_FORCE, &dropped) == CFN_OK);
}

static void audit(const char *agent) {
  int p = SIM_PROCESSES - 1; /* a process that took no part */
  cfn_bus_t *late = sim_open(p, NULL);
  sim_as(p);
  for (int i = 0; i < SIM_PROCESSES - 1; i++)
    if (bus[i] && sim_end(i) == 'd') {
      sim_as(i);
      cfn_bus_close(bus[i]);
    }
  sim_as(p);
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
    while ((n = take(p, heir, &token, 0)) > 0) {
    }
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

/* ---- two senders, one reader that waits ---- */

static void setup_two(void) {
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
  bus[2] = sim_open(2, "two");
}
static void read_two(int me) {
  uint64_t token = 0;
  for (int i = 0; i < 2; i++)
    if (take(me, bus[me], &token, patience()) < 0) return;
  cfn_bus_ack(bus[me], &token, 1);
}
static void send_one(int me) { post(me, bus[me], "reader", me * 8 + 1, 0); }
static void verify_reader(void) { audit("reader"); }

/* ---- one sender, twice; the order must hold ---- */

static void send_two(int me) {
  post(me, bus[me], "reader", me * 8 + 1, 0);
  post(me, bus[me], "reader", me * 8 + 2, 0);
}

/* ---- a full lane ---- */

static void setup_full(void) {
  setup_two();
  for (int i = 0; i < LANE; i++) SIM_CHECK(post(1, bus[1], "reader", 8 + i, 0) == CFN_OK);
}
static void send_waiting(int me) { post(me, bus[me], "reader", me * 8 + LANE, patience()); }
static void read_all(int me) {
  uint64_t token = 0;
  for (int i = 0; i < LANE + 2; i++)
    if (take(me, bus[me], &token, patience()) < 0) return;
  cfn_bus_ack(bus[me], &token, 1);
}
static void read_some(int me) {
  uint64_t token = 0;
  for (int i = 0; i < LANE + 1; i++)
    if (take(me, bus[me], &token, patience()) < 0) return;
  cfn_bus_ack(bus[me], &token, 1);
}

/* ---- a reader dies or is stolen from ---- */

static void setup_steal(void) {
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
  for (int i = 0; i < 2; i++) SIM_CHECK(post(1, bus[1], "reader", 8 + i, 0) == CFN_OK);
  bus[2] = sim_open(2, "reader");
}
static void read_at_once(int me) {
  uint64_t token = 0;
  while (take(me, bus[me], &token, 0) > 0) {
  }
}
static void read_unstolen(int me) { /* nobody takes an inbox from a living reader unasked */
  uint64_t token = 0;
  int64_t n;
  while ((n = take(me, bus[me], &token, 0)) > 0) {
  }
  SIM_CHECK(n == CFN_EMPTY || n == CFN_AGENT_BUSY);
}
static void steal_and_read(int me) { /* nobody steals from the thief */
  if (cfn_bus_claim_inbox(bus[me], 1) < 0) return;
  uint64_t token = 0;
  int64_t n;
  while ((n = take(me, bus[me], &token, 0)) > 0) {
  }
  SIM_CHECK(n == CFN_EMPTY);
}
static void read_and_give_back(int me) {
  read_at_once(me);
  SIM_CHECK(cfn_bus_release_inbox(bus[me]) == CFN_OK);
}

/* A whole lap is sent while the inbox is stolen: what a late reader does to a slot it does to another message. */
static void setup_lap(void) {
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
  for (int i = 0; i < LANE; i++) SIM_CHECK(post(1, bus[1], "reader", 8 + i, 0) == CFN_OK);
  bus[2] = sim_open(2, "reader");
}
static void send_a_lap(int me) {
  for (int i = 0; i < LANE && post(me, bus[me], "reader", 8 + LANE + i, 0) == CFN_OK; i++) {
  }
}

/* Somebody looks into the inbox while it is read and filled. */
static void peek_twice(int me) {
  _Alignas(8) uint8_t out[4096];
  uint32_t offsets[16];
  size_t used;
  cfn_address_t at;
  int more;
  for (int i = 0; i < 2; i++) {
    SIM_CHECK(cfn_bus_find(bus[me], "reader", &at) == CFN_OK);
    int64_t n = cfn_bus_peek(bus[me], &at, CFN_ALL_LANES, out, sizeof out, offsets, 16, &used, &more);
    for (int64_t k = 0; k < n; k++) {
      const cfn_wire_t *w = (const void *)(out + offsets[k]);
      SIM_CHECK(id_of(w) == 8 + w->position); /* one sender, from position 0 on */
    }
    cfn_agent_info_t info;
    SIM_CHECK(cfn_bus_agent_info(bus[me], &at, &info) == CFN_OK);
    SIM_CHECK(info.depth[CFN_LANE_NORMAL] <= LANE);
  }
}
static void succeed_and_read(int me) { read_at_once(me); } /* CFN_AGENT_BUSY while the first one lives */
static void send_third(int me) { post(me, bus[me], "reader", me * 8 + 3, 0); }

/* ---- two heirs at once ---- */

static void setup_heirs(void) {
  begin();
  bus[2] = sim_open(2, "one");
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "reader");
  for (int i = 0; i < 2; i++) SIM_CHECK(post(2, bus[2], "reader", 16 + i, 0) == CFN_OK);
}
static void send_more(int me) { post(me, bus[me], "reader", me * 8 + 2, 0); }

/* ---- an agent is removed under its senders, and another takes its record ---- */

static void setup_remove(void) {
  begin();
  bus[0] = sim_open(0, NULL);
  cfn_address_t at;
  SIM_CHECK(cfn_bus_register(bus[0], "reader", NULL, &at, NULL) == CFN_OK);
  bus[1] = sim_open(1, NULL);
  SIM_CHECK(post(1, bus[1], "reader", 9, 0) == CFN_OK);
}
static void remove_and_register(int me) {
  uint64_t dropped;
  cfn_address_t at;
  int r = cfn_bus_unregister(bus[me], "reader", 0, &dropped);
  sim_note("  process %d unregistered: %s, %d dropped", me, cfn_error_name(r), (int)dropped);
  cfn_bus_register(bus[me], "other", NULL, &at, NULL);
}
static void send_by_old_address(int me) {
  cfn_address_t at;
  uint8_t body[40];
  memset(body, me * 8 + 2, sizeof body);
  if (cfn_bus_find(bus[me], "reader", &at) < 0) return;
  int r = cfn_bus_send_one(bus[me], at.index, at.mid, CFN_LANE_NORMAL, 0, body, sizeof body, "", 0, 0, 0, NULL);
  sim_note("  process %d sent to the old address: %s", me, cfn_error_name(r));
}
/* Nothing meant for the removed agent may be in the inbox of the one that took its record. */
static void verify_remove(void) {
  sim_as(SIM_PROCESSES - 1);
  cfn_bus_t *late = sim_open(SIM_PROCESSES - 1, NULL);
  SIM_CHECK(cfn_bus_reap(late) >= 0);
  cfn_address_t at;
  cfn_agent_info_t info;
  if (cfn_bus_find(late, "other", &at) == CFN_OK && cfn_bus_agent_info(late, &at, &info) == CFN_OK)
    SIM_CHECK(info.depth[CFN_LANE_NORMAL] == 0);
  audit(NULL);
}

/* ---- names: the same one registered twice at once, and taken away ---- */

static void setup_names(void) {
  begin();
  for (int p = 0; p < 3; p++) bus[p] = sim_open(p, NULL);
}
static void register_name(int me) {
  cfn_address_t at;
  int r = cfn_bus_register(bus[me], "name", NULL, &at, NULL);
  sim_note("  process %d registered: %s as %u", me, cfn_error_name(r), at.index);
}
static void unregister_name(int me) {
  uint64_t dropped;
  int r = cfn_bus_unregister(bus[me], "name", CFN_FORCE, &dropped);
  sim_note("  process %d unregistered: %s", me, cfn_error_name(r));
  SIM_CHECK(r == CFN_OK || r == CFN_UNKNOWN_AGENT || r == CFN_AGENT_BUSY || r == CFN_STALE);
}
static void register_and_unregister(int me) {
  register_name(me);
  unregister_name(me);
}
/* Two records of one name would split its messages. */
static void verify_names(void) {
  sim_as(SIM_PROCESSES - 1);
  cfn_bus_t *late = sim_open(SIM_PROCESSES - 1, NULL);
  SIM_CHECK(cfn_bus_reap(late) >= 0);
  cfn_address_t all[16], at;
  int n = cfn_bus_agents(late, all, 16);
  SIM_CHECK(n >= 0 && n <= 1);
  SIM_CHECK((cfn_bus_find(late, "name", &at) == CFN_OK) == (n == 1));
  audit(NULL);
}

/* ---- records in short supply: what is removed is used again at once ---- */

static void fill_records(int leave) {
  cfn_address_t at;
  static const char *const fillers[] = {"f0", "f1", "f2"};
  for (int i = 0; i < 4 - leave; i++) SIM_CHECK(cfn_bus_register(bus[0], fillers[i], NULL, &at, NULL) == CFN_OK);
}
static void setup_reuse(void) {
  setup_remove();
  fill_records(1);
}
static void remove_plainly(int me) {
  uint64_t dropped;
  int r = cfn_bus_unregister(bus[me], "reader", 0, &dropped);
  sim_note("  process %d unregistered: %s", me, cfn_error_name(r));
}
static void remove_and_reuse(int me) {
  uint64_t dropped;
  int r = cfn_bus_unregister(bus[me], "reader", CFN_FORCE, &dropped);
  cfn_address_t at;
  int made = 0, r2 = cfn_bus_register(bus[me], "other", NULL, &at, &made);
  sim_note("  process %d unregistered: %s, registered: %s", me, cfn_error_name(r), cfn_error_name(r2));
  if (r2 == CFN_OK) post(me, bus[me], "other", me * 8 + 1, 0);
}
/* Chunks in short supply, too: the one that the removal frees is the one that is sent next. */
static void take_all_chunks(cfn_bus_t *from) {
  static const char *const fillers[] = {"f0", "f1", "f2"};
  uint8_t body[40] = {0};
  cfn_address_t at;
  for (int i = 0; i < 3; i++) {
    if (cfn_bus_find(from, fillers[i], &at) < 0) continue;
    for (unsigned lane = CFN_LANES; lane-- > 0;)
      while (cfn_bus_send_one(from, at.index, at.mid, lane, 0, body, sizeof body, "", 0, 0, 0, NULL) == CFN_OK) {
      }
  }
}
static void setup_scarce(void) {
  setup_reuse();
  sim_as(1);
  take_all_chunks(bus[1]);
}
static void verify_reuse(void) {
  L.told[9] = 0; /* for the removed agent: dropped or not, nobody promised */
  audit("other");
}

/* Whoever takes a record over can read its inbox at once, whatever became of who removed the last agent. */
static void reuse_and_read(int me) {
  cfn_address_t at;
  if (cfn_bus_register(bus[me], "other", NULL, &at, NULL) != CFN_OK) return; /* no record is free yet */
  cfn_bus_t *mine = sim_open(me, "other");
  uint64_t token = 0;
  SIM_CHECK(take(me, mine, &token, 0) != CFN_AGENT_BUSY);
  cfn_bus_close(mine);
}

static void setup_stale(void) {
  setup_names();
  fill_records(2);
}
static void register_second(int me) {
  cfn_address_t at;
  unregister_name(me);
  int r = cfn_bus_register(bus[me], "second", NULL, &at, NULL);
  sim_note("  process %d registered second: %s as %u", me, cfn_error_name(r), at.index);
}
static void look_up(int me) {
  cfn_address_t at;
  cfn_agent_info_t info;
  for (int i = 0; i < 2; i++)
    if (cfn_bus_find(bus[me], "name", &at) == CFN_OK && cfn_bus_agent_info(bus[me], &at, &info) == CFN_OK)
      SIM_CHECK(strcmp(info.name, "name") == 0);
}
/* Whoever is listed is found under its name, and no name is there twice. */
static void verify_stale(void) {
  sim_as(SIM_PROCESSES - 1);
  cfn_bus_t *late = sim_open(SIM_PROCESSES - 1, NULL);
  SIM_CHECK(cfn_bus_reap(late) >= 0);
  cfn_address_t all[16], at;
  cfn_agent_info_t info;
  int n = cfn_bus_agents(late, all, 16);
  for (int i = 0; i < n; i++) {
    SIM_CHECK(cfn_bus_agent_info(late, &all[i], &info) == CFN_OK);
    SIM_CHECK(cfn_bus_find(late, info.name, &at) == CFN_OK);
    SIM_CHECK(at.index == all[i].index && at.mid == all[i].mid);
  }
  audit(NULL);
}

/* ---- a request and its answer ---- */

static void setup_request(void) {
  begin();
  bus[0] = sim_open(0, "server");
  bus[1] = sim_open(1, "asker");
}
static void serve(int me) {
  _Alignas(8) uint8_t out[1024];
  int64_t n;
  uint64_t deadline = patience();
  do {
    n = cfn_bus_recv(bus[me], NULL, 0, CFN_ALL_LANES, 0, deadline, out, sizeof out);
  } while (n == CFN_INTERRUPTED);
  if (n <= 0) return;
  cfn_wire_t w;
  memcpy(&w, out, sizeof w);
  cfn_outgoing_t m = {.body = "yes", .body_bytes = 3, .correlation = w.correlation};
  int r = cfn_bus_reply(bus[me], w.source_att, w.source_inc, &m, 0);
  sim_note("  process %d answered: %s", me, cfn_error_name(r));
  cfn_bus_ack(bus[me], &w.token, 1);
}
static void ask(int me) {
  cfn_address_t at;
  static const uint8_t question[] = {8};
  cfn_outgoing_t m = {.body = question, .body_bytes = sizeof question};
  uint64_t correlation;
  _Alignas(8) uint8_t out[1024];
  if (cfn_bus_find(bus[me], "server", &at) < 0) return;
  uint64_t deadline = patience();
  if (cfn_bus_request(bus[me], &at, CFN_LANE_NORMAL, &m, deadline, &correlation) < 0) return;
  int64_t n;
  do {
    n = cfn_bus_request_wait(bus[me], &at, correlation, deadline, out, sizeof out);
  } while (n == CFN_INTERRUPTED);
  sim_note("  process %d has its answer: %lld", me, (long long)n);
  SIM_CHECK(n > 0 || n == CFN_AGENT_DEAD);
  cfn_bus_request_end(bus[me], correlation);
}
static void verify_request(void) {
  if (!sim_anyone_killed()) SIM_CHECK(sim_end(1) == 'd');
  audit("server");
}

/* ---- a frame of three, acked in disorder ---- */

static void setup_frame(void) {
  setup_steal();
  cfn_address_t at;
  static uint8_t body[3][40];
  cfn_outgoing_t m[3];
  for (int i = 0; i < 3; i++) {
    memset(body[i], 16 + i, sizeof body[i]);
    m[i] = (cfn_outgoing_t){.body = body[i], .body_bytes = sizeof body[i]};
    L.told[16 + i] = 1;
  }
  cfn_bus_t *empty = sim_open(3, NULL); /* what setup_steal sent is taken out of the way */
  sim_as(2);
  uint64_t token = 0;
  SIM_CHECK(cfn_bus_claim_inbox(bus[2], 1) == CFN_OK);
  while (take(2, bus[2], &token, 0) > 0) {
  }
  SIM_CHECK(cfn_bus_release_inbox(bus[2]) == CFN_OK);
  sim_as(3);
  SIM_CHECK(cfn_bus_find(empty, "reader", &at) == CFN_OK);
  SIM_CHECK(cfn_bus_send(empty, &at, CFN_LANE_NORMAL, m, 3, 0, NULL) == CFN_OK);
  cfn_bus_close(empty);
}
static void ack_in_disorder(int me) {
  uint64_t token[3] = {0};
  int n = 0;
  for (; n < 3; n++) {
    uint64_t one = 0;
    if (take(me, bus[me], &one, 0) <= 0) break;
    token[n] = one;
  }
  for (int i = n; i-- > 0;)
    if (cfn_bus_ack(bus[me], &token[i], 1) == CFN_OK) L.acked[16 + i]++;
}

/* ---- a frame is stolen, and its chunk holds another one when the first reader goes on acking ---- */

static uint64_t old_token;

static int send_frame_of_3(int me, int first) {
  static uint8_t body[3][40];
  cfn_outgoing_t m[3];
  cfn_address_t at;
  for (int i = 0; i < 3; i++) {
    memset(body[i], first + i, sizeof body[i]);
    m[i] = (cfn_outgoing_t){.body = body[i], .body_bytes = sizeof body[i]};
  }
  int r = cfn_bus_find(bus[me], "reader", &at);
  if (r == CFN_OK) r = cfn_bus_send(bus[me], &at, CFN_LANE_NORMAL, m, 3, 0, NULL);
  sim_note("  process %d sent %d to %d: %s", me, first, first + 2, cfn_error_name(r));
  for (int i = 0; i < 3 && r == CFN_OK; i++) L.told[first + i]++;
  return r;
}
static void setup_frame_reuse(void) {
  static const char *const fillers[] = {"one", "f0", "f1"};
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
  bus[2] = sim_open(2, "reader");
  cfn_address_t at;
  uint8_t body[40] = {0};
  SIM_CHECK(send_frame_of_3(1, 8) == CFN_OK);
  sim_as(0);
  old_token = 0;
  SIM_CHECK(take(0, bus[0], &old_token, 0) > 0);
  sim_as(1);
  for (int i = 0; i < 3; i++) { /* every other chunk is taken, so that the frame's is used again */
    if (i) SIM_CHECK(cfn_bus_register(bus[1], fillers[i], NULL, &at, NULL) == CFN_OK);
    SIM_CHECK(cfn_bus_find(bus[1], fillers[i], &at) == CFN_OK);
    for (unsigned lane = CFN_LANES; lane-- > 0;)
      while (cfn_bus_send_one(bus[1], at.index, at.mid, lane, 0, body, sizeof body, "", 0, 0, 0, NULL) == CFN_OK) {
      }
  }
}
static void ack_the_old_one(int me) {
  int r = cfn_bus_ack(bus[me], &old_token, 1);
  sim_note("  process %d acked the old one: %s", me, cfn_error_name(r));
}
static void steal_and_send_anew(int me) {
  steal_and_read(me);
  send_frame_of_3(me, 16);
}

/* ---- joining and leaving ---- */

static void setup_life(void) {
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
}
/* The next to attach looks at the first one's slot first. */
static void setup_life_again(void) {
  setup_life();
  cfn_store_seq(&cfn_state(cfn_bus_region(bus[1]))->attach_hint, cfn_bus_attachment(bus[0]));
}
static void leave_with_mail(int me) {
  uint64_t token = 0;
  take(me, bus[me], &token, 0);
  cfn_bus_close(bus[me]);
  bus[me] = NULL;
}
static void come_and_go(int me) {
  cfn_bus_t *mine = sim_open(me, "guest");
  post(me, mine, "reader", me * 8 + 1, 0);
  cfn_bus_close(mine);
}
static void reap(int me) { cfn_bus_reap(bus[me]); }

/* ---- two reapers of one corpse, and its slot has a new life ----
 *
 * The dead one had a chunk claimed and not sent, a record claimed and not registered, an inbox with a message
 * leased, and an answer unread. */
static void setup_corpse(void) {
  begin();
  for (int p = 0; p < 2; p++) bus[p] = sim_open(p, NULL);
  bus[3] = sim_open(3, "reader");
  cfn_region_t *r = cfn_bus_region(bus[3]);
  SIM_CHECK(post(0, bus[0], "reader", 1, 0) == CFN_OK);
  sim_as(3);
  uint64_t token = 0;
  SIM_CHECK(take(3, bus[3], &token, 0) > 0);
  uint32_t me = cfn_bus_attachment(bus[3]);
  cfn_attach_shm_t *slot = cfn_attachment(r, me);
  cfn_slab_cursor_t cursor = {0};
  SIM_CHECK(cfn_slab_claim(r, me, &slot->reg[CFN_REG_SEND], 0, false, true, &cursor) >= 0);
  cfn_a64 *mid = &cfn_mailbox(r, 3)->mid;
  cfn_store_seq(&slot->reg[CFN_REG_CREATE], 4);
  SIM_CHECK(cfn_cas_seq(mid, cfn_load_seq(mid), cfn_mid_word(cfn_mid_ver(cfn_load_seq(mid)) + 1, CFN_MID_MINE, me)));
  sim_as(0);
  cfn_outgoing_t m = {.body = "yes", .body_bytes = 3, .correlation = 1};
  SIM_CHECK(cfn_bus_reply(bus[0], me, cfn_id_inc(cfn_load_seq(&slot->id)), &m, 0) == CFN_OK);
  cfn_store_seq(&cfn_state(r)->attach_hint, me); /* who attaches next looks there first */
  cfn_store_seq(&cfn_state(r)->mailbox_hint, 3);
  sim_bury(3);
  bus[3] = NULL;
}
static void live_there(int me) { /* reads what the dead one left, sends, registers: all in the dead one's slot */
  cfn_bus_t *mine = sim_open(me, "reader");
  uint64_t token = 0;
  SIM_CHECK(take(me, mine, &token, 0) > 0);
  post(me, mine, "reader", me * 8 + 1, 0);
  cfn_address_t at;
  SIM_CHECK(cfn_bus_register(mine, "other", NULL, &at, NULL) == CFN_OK);
  cfn_agent_info_t info;
  SIM_CHECK(cfn_bus_find(mine, "reader", &at) == CFN_OK && cfn_bus_agent_info(mine, &at, &info) == CFN_OK);
  SIM_CHECK(info.life == CFN_LIFE_ALIVE && info.incarnation == 2);
  SIM_CHECK(take(me, mine, &token, 0) > 0); /* still its reader, and its owner */
  cfn_bus_ack(mine, &token, 1);
  cfn_bus_close(mine);
}

/* ---- an agent is removed under its reader ---- */

static void setup_remove_read(void) {
  setup_steal(); /* 0 and 2 act as the reader, two messages wait */
  cfn_bus_close(bus[2]);
  bus[2] = sim_open(2, NULL);
}
static void ack_late(int me) { /* takes both, then acks the second first */
  uint64_t token[2] = {0, 0};
  int n = 0;
  while (n < 2 && take(me, bus[me], &token[n], 0) > 0) n++;
  for (int i = n; i-- > 0;) cfn_bus_ack(bus[me], &token[i], 1);
}
static void remove_by_force(int me) {
  uint64_t dropped;
  cfn_address_t at;
  int r = cfn_bus_unregister(bus[me], "reader", CFN_FORCE, &dropped);
  sim_note("  process %d unregistered: %s", me, cfn_error_name(r));
  cfn_bus_register(bus[me], "other", NULL, &at, NULL);
}
static void verify_remove_read(void) {
  L.told[8] = L.told[9] = L.told[11] = 0; /* dropped or not, nobody promised */
  audit("other");
}

/* ---- many sleepers, many ringers, nothing else ---- */

static cfn_a64 *condition(int me) { return &cfn_state(cfn_bus_region(bus[me]))->fence; }
static cfn_event_shm_t *rung(int me) { return &cfn_state(cfn_bus_region(bus[me]))->registry.event; }
static uint64_t rings_before;

static void setup_event(void) {
  begin();
  for (int p = 0; p < 5; p++) bus[p] = sim_open(p, NULL);
  rings_before = cfn_load_seq(condition(0));
}
/* Sleeps until it has been rung `times` times. */
static void sleep_until(int me, uint64_t times) {
  for (;;) {
    if (cfn_load_seq(condition(me)) >= rings_before + times) return;
    uint32_t armed = cfn_event_arm(rung(me));
    if (cfn_load_seq(condition(me)) >= rings_before + times) return;
    cfn_event_sleep(rung(me), armed, UINT64_C(1000000000));
  }
}
static void sleep_for_one(int me) { sleep_until(me, 1); }
static void sleep_for_two(int me) { sleep_until(me, 2); }
static void sleep_for_three(int me) { sleep_until(me, 3); }
static void ring_it(int me) {
  cfn_add_seq(condition(me), 1);
  cfn_event_ring_futex(rung(me));
}
static void ring_it_twice(int me) {
  ring_it(me);
  ring_it(me);
}
static void verify_event(void) { audit(NULL); }

/* ---- two want to be the owner of one name ---- */

static int owners;
static uint64_t owner_inc[SIM_PROCESSES];

static void setup_owners(void) {
  begin();
  owners = 0;
  memset(owner_inc, 0, sizeof owner_inc);
  for (int p = 0; p < 3; p++) bus[p] = sim_open(p, NULL);
}
static void own(int me) {
  uint64_t inc;
  int owner;
  int r = cfn_bus_act_as(bus[me], "name", NULL, CFN_ACT_OWN, &inc, &owner);
  sim_note("  process %d: %s, owner %d of incarnation %d", me, cfn_error_name(r), owner, (int)inc);
  if (r == CFN_OK && owner) {
    owners++;
    owner_inc[me] = inc;
    for (int p = 0; p < SIM_PROCESSES; p++) SIM_CHECK(p == me || owner_inc[p] != inc); /* each has its own number */
  }
}
static void own_and_leave(int me) {
  own(me);
  cfn_bus_close(bus[me]);
  bus[me] = NULL;
}
/* Nobody leaves: one is the owner. */
static void verify_one_owner(void) {
  SIM_CHECK(sim_anyone_killed() || owners == 1);
  audit(NULL);
}
static void verify_owners(void) { audit(NULL); }

/* ---- an answer for one who has left, into a slot that another has by now ---- */

static void ask_and_leave(int me) {
  cfn_address_t at;
  static const uint8_t question[] = {8};
  cfn_outgoing_t m = {.body = question, .body_bytes = sizeof question};
  uint64_t correlation;
  if (cfn_bus_find(bus[me], "server", &at) == CFN_OK)
    cfn_bus_request(bus[me], &at, CFN_LANE_NORMAL, &m, 0, &correlation);
  cfn_bus_close(bus[me]);
  bus[me] = NULL;
}
static void attach_and_look(int me) {
  cfn_bus_t *mine = sim_open(me, NULL);
  SIM_CHECK(!cfn_bus_replies_there(mine)); /* it asked nothing */
  cfn_bus_close(mine);
}
static void setup_request_life(void) {
  setup_request();
  /* The next to attach looks at the asker's slot first. */
  cfn_store_seq(&cfn_state(cfn_bus_region(bus[0]))->attach_hint, cfn_bus_attachment(bus[1]));
}

/* ---- a status is written while it is read ---- */

static void setup_profile(void) {
  begin();
  for (int p = 0; p < 3; p++) bus[p] = sim_open(p, NULL);
  cfn_address_t at;
  SIM_CHECK(cfn_bus_register(bus[0], "name", NULL, &at, NULL) == CFN_OK);
}
static void describe(int me) {
  static const char *const texts[] = {"the first status, of several words", "the second: of several other words"};
  cfn_profile_t profile = {{NULL, NULL, NULL, NULL, texts[me % 2]}};
  SIM_CHECK(cfn_bus_set_profile(bus[me], "name", &profile) == CFN_OK);
}
static void read_description(int me) {
  cfn_address_t at;
  cfn_agent_info_t info;
  for (int i = 0; i < 2; i++) {
    SIM_CHECK(cfn_bus_find(bus[me], "name", &at) == CFN_OK && cfn_bus_agent_info(bus[me], &at, &info) == CFN_OK);
    const char *text = info.text[CFN_TEXT_STATUS]; /* whole, or not to be had just now */
    SIM_CHECK(!*text || !strcmp(text, "the first status, of several words") ||
              !strcmp(text, "the second: of several other words"));
  }
}
static void verify_profile(void) { audit(NULL); }

#define ALL 7u
const sim_scenario_t sim_scenarios[] = {
    {"send", setup_two, {read_two, send_one, send_one}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"send-order", setup_two, {read_two, send_two}, verify_reader, 0, false, {3, 0, 0, 0}},
    {"send-killed", setup_two, {read_two, send_one, send_one}, verify_reader, 6, true, {1, 1, 0, 0}},
    {"read-killed", setup_steal, {read_at_once, send_third, succeed_and_read}, verify_reader, 1, true, {1, 1, 0, 0}},
    {"full", setup_full, {read_all, send_waiting, send_waiting}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"full-killed", setup_full, {read_some, send_waiting, send_waiting}, verify_reader, 6, true, {1, 1, 0, 0}},
    {"steal", setup_steal, {read_at_once, send_third, steal_and_read}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"steal-killed", setup_steal, {read_at_once, NULL, steal_and_read}, verify_reader, 5, true, {1, 1, 0, 0}},
    {"steal-lap", setup_lap, {read_at_once, send_a_lap, steal_and_read}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"steal-lap-killed", setup_lap, {read_at_once, send_a_lap, steal_and_read}, verify_reader, 5, true, {1, 1, 0, 0}},
    {"steal-release", setup_steal, {read_and_give_back, send_third, steal_and_read}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"peek", setup_lap, {read_at_once, send_a_lap, peek_twice}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"frame-steal", setup_frame, {ack_in_disorder, NULL, steal_and_read}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"frame-killed", setup_frame, {ack_in_disorder, NULL, steal_and_read}, verify_reader, 5, true, {1, 1, 0, 0}},
    {"heirs", setup_heirs, {read_unstolen, read_unstolen, send_more}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"heirs-killed", setup_heirs, {read_at_once, read_at_once, send_more}, verify_reader, ALL, true, {1, 1, 0, 0}},
    {"frame-reuse", setup_frame_reuse, {ack_the_old_one, NULL, steal_and_send_anew}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"frame-reuse-killed", setup_frame_reuse, {ack_the_old_one, NULL, steal_and_send_anew}, verify_reader, 5, true, {1, 1, 0, 0}},
    {"remove", setup_remove, {remove_and_register, send_by_old_address}, verify_remove, 0, false, {2, 0, 0, 0}},
    {"remove-killed", setup_remove, {remove_and_register, send_by_old_address}, verify_remove, 3, true, {1, 1, 0, 0}},
    {"names", setup_names, {register_and_unregister, register_name}, verify_names, 0, false, {2, 0, 0, 0}},
    {"names-three", setup_names, {register_name, unregister_name, register_name}, verify_names, 0, false, {2, 0, 0, 0}},
    {"names-killed", setup_names, {register_name, unregister_name, register_name}, verify_names, ALL, true, {1, 1, 0, 0}},
    {"names-twice", setup_names, {register_name, register_name}, verify_names, 0, false, {2, 0, 0, 0}},
    {"names-stale", setup_stale, {register_name, register_second, register_name}, verify_stale, 0, false, {2, 0, 0, 0}},
    {"names-stale-killed", setup_stale, {register_name, register_second, register_name}, verify_stale, ALL, true, {1, 1, 0, 0}},
    {"names-lookup", setup_stale, {look_up, register_second, register_name}, verify_stale, 0, false, {2, 0, 0, 0}},
    {"remove-reuse", setup_reuse, {remove_plainly, remove_and_reuse}, verify_reuse, 0, false, {2, 0, 0, 0}},
    {"remove-reuse-killed", setup_reuse, {remove_plainly, remove_and_reuse}, verify_reuse, 3, true, {1, 1, 0, 0}},
    {"remove-scarce", setup_scarce, {remove_plainly, remove_and_reuse}, verify_reuse, 0, false, {2, 0, 0, 0}},
    {"remove-scarce-killed", setup_scarce, {remove_plainly, remove_and_reuse}, verify_reuse, 3, true, {1, 1, 0, 0}},
    {"remove-reuse-read", setup_reuse, {remove_plainly, reuse_and_read}, verify_reuse, 0, false, {2, 0, 0, 0}},
    {"request", setup_request, {serve, ask}, verify_request, 0, false, {2, 0, 0, 0}},
    {"request-killed", setup_request, {serve, ask}, verify_request, 3, true, {1, 1, 0, 0}},
    {"remove-read", setup_remove_read, {ack_late, send_third, remove_by_force}, verify_remove_read, 0, false, {2, 0, 0, 0}},
    {"remove-read-killed", setup_remove_read, {ack_late, send_third, remove_by_force}, verify_remove_read, ALL, true, {1, 1, 0, 0}},
    {"event", setup_event, {sleep_for_one, sleep_for_two, sleep_for_three, ring_it, ring_it_twice}, verify_event, 0, false, {1, 0, 1, 0}},
    {"owners", setup_owners, {own, own}, verify_one_owner, 0, false, {2, 0, 0, 0}},
    {"owners-killed", setup_owners, {own, own_and_leave, own}, verify_owners, ALL, true, {1, 1, 0, 0}},
    {"request-life", setup_request_life, {serve, ask_and_leave, attach_and_look}, verify_request, 0, true, {2, 0, 0, 0}},
    {"request-life-killed", setup_request_life, {serve, ask_and_leave, attach_and_look}, verify_request, ALL, true, {1, 1, 0, 0}},
    {"profile", setup_profile, {describe, describe, read_description}, verify_profile, 0, false, {2, 0, 0, 0}},
    {"life", setup_life, {leave_with_mail, reap, come_and_go}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"corpse", setup_corpse, {reap, reap, live_there}, verify_reader, 0, true, {2, 0, 0, 0}},
    {"corpse-killed", setup_corpse, {reap, reap, live_there}, verify_reader, 3, true, {1, 1, 0, 0}},
    {"life-again", setup_life_again, {leave_with_mail, reap, come_and_go}, verify_reader, 0, false, {2, 0, 0, 0}},
    {"life-again-killed", setup_life_again, {leave_with_mail, reap, come_and_go}, verify_reader, 5, true, {1, 1, 0, 0}},
    {"life-killed", setup_life, {leave_with_mail, reap, come_and_go}, verify_reader, 5, true, {1, 1, 0, 0}},
};
const int sim_scenario_count = sizeof sim_scenarios / sizeof sim_scenarios[0];
