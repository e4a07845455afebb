/* Messages, inboxes, answers and wake-ups. What the virtual processes do, and what must be true afterwards, whatever the
 * schedule. */
#include "sim/scenarios.h"

#include <string.h>

#include "sim/ledger.h"

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
static void read_one(int me) { /* and nothing afterwards: it is done with something else */
  uint64_t token = 0;
  if (take(me, bus[me], &token, patience()) > 0) cfn_bus_ack(bus[me], &token, 1);
}
static void read_two_and_stop(int me) {
  uint64_t token[2] = {0};
  for (int i = 0; i < 2; i++)
    if (take(me, bus[me], &token[i], patience()) <= 0) return;
  for (int i = 0; i < 2; i++) cfn_bus_ack(bus[me], &token[i], 1);
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
  L.thief[me] = true;
  for (int id = 0; id < IDS; id++) L.over[id] = L.acked[id] != 0;
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

static void ack_the_first(int me) {
  uint64_t token[3] = {0};
  for (int n = 0; n < 3; n++)
    if (take(me, bus[me], &token[n], 0) <= 0) return;
  if (cfn_bus_ack(bus[me], &token[0], 1) == CFN_OK) L.acked[16]++;
}

/* Taken and acked together; the first half of them with one more ack by hand before. */
static void batch(int me, bool by_hand) {
  _Alignas(8) uint8_t out[4096];
  uint32_t offsets[8];
  int64_t n = take_many(me, bus[me], 8, out, sizeof out, offsets);
  if (n <= 0) return;
  int one = n == 3 && by_hand ? 1 : -1;
  if (one >= 0 && cfn_bus_ack(bus[me], (const uint64_t *)(const void *)(out + offsets[one]), 1) == CFN_OK)
    L.acked[id_of(out + offsets[one])]++;
  int r = cfn_bus_ack_batch(bus[me], out, offsets, (uint32_t)n);
  sim_note("  process %d acked all %lld: %s", me, (long long)n, cfn_error_name(r));
  for (int64_t i = 0; i < n && r == CFN_OK; i++)
    if (i != one) L.acked[id_of(out + offsets[i])]++;
}
static void batch_whole(int me) { batch(me, false); }
static void batch_by_hand(int me) { batch(me, true); }
static void batch_in_two(int me) { /* two of the frame, and the third */
  _Alignas(8) uint8_t out[4096];
  uint32_t offsets[8];
  for (uint32_t most = 2; most; most--) {
    int64_t n = take_many(me, bus[me], most, out, sizeof out, offsets);
    if (n <= 0) return;
    int r = cfn_bus_ack_batch(bus[me], out, offsets, (uint32_t)n);
    for (int64_t i = 0; i < n && r == CFN_OK; i++) L.acked[id_of(out + offsets[i])]++;
  }
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
/* Every chunk is taken, but for what is in an inbox already; calls are made as process 1. */
static void fill_chunks(void) {
  static const char *const fillers[] = {"one", "f0", "f1"};
  cfn_address_t at;
  uint8_t body[40] = {0};
  sim_as(1);
  for (int i = 0; i < 3; i++) {
    if (i) SIM_CHECK(cfn_bus_register(bus[1], fillers[i], NULL, &at, NULL) == CFN_OK);
    SIM_CHECK(cfn_bus_find(bus[1], fillers[i], &at) == CFN_OK);
    for (unsigned lane = CFN_LANES; lane-- > 0;)
      while (cfn_bus_send_one(bus[1], at.index, at.mid, lane, 0, body, sizeof body, "", 0, 0, 0, NULL) == CFN_OK) {
      }
  }
}
static void setup_frame_reuse(void) {
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
  bus[2] = sim_open(2, "reader");
  SIM_CHECK(send_frame_of_3(1, 8) == CFN_OK);
  sim_as(0);
  old_token = 0;
  SIM_CHECK(take(0, bus[0], &old_token, 0) > 0);
  fill_chunks(); /* so that the frame's is used again */
}
static void ack_the_old_one(int me) {
  int r = cfn_bus_ack(bus[me], &old_token, 1);
  sim_note("  process %d acked the old one: %s", me, cfn_error_name(r));
}
static void steal_and_send_anew(int me) {
  steal_and_read(me);
  send_frame_of_3(me, 16);
}

/* ---- receipts that are waited for ---- */

static void send_and_wait(int me, uint32_t n, int want) {
  static uint8_t body[SIM_PROCESSES][3][40];
  cfn_outgoing_t m[3];
  cfn_address_t at;
  cfn_receipt_t receipt;
  for (uint32_t i = 0; i < n; i++) {
    memset(body[me][i], me * 8 + (int)i, sizeof body[me][i]);
    m[i] = (cfn_outgoing_t){.body = body[me][i], .body_bytes = sizeof body[me][i]};
  }
  SIM_CHECK(cfn_bus_find(bus[me], "reader", &at) == CFN_OK);
  SIM_CHECK(cfn_bus_send(bus[me], &at, CFN_LANE_NORMAL, m, n, 0, &receipt) == CFN_OK);
  for (uint32_t i = 0; i < n; i++) L.told[me * 8 + (int)i]++;
  int r;
  do {
    r = cfn_bus_receipt_wait(bus[me], &receipt, want, patience());
  } while (r == CFN_INTERRUPTED);
  sim_note("  process %d was told %d", me, r);
  SIM_CHECK(r >= want && r <= CFN_RECEIPT_ACKED);
  for (uint32_t i = 0; i < n; i++) SIM_CHECK(want < CFN_RECEIPT_ACKED || L.got[me * 8 + (int)i] || sim_is_weak());
}
static void wait_for_ack(int me) { send_and_wait(me, 1, CFN_RECEIPT_ACKED); }
static void wait_for_seen(int me) { send_and_wait(me, 1, CFN_RECEIPT_SEEN); }
static void wait_for_acks(int me) { send_and_wait(me, 3, CFN_RECEIPT_ACKED); }
static void read_one_and_keep_it(int me) {
  uint64_t token = 0;
  take(me, bus[me], &token, patience());
}
static void ack_the_second(int me) {
  uint64_t token[2] = {0};
  for (int i = 0; i < 2; i++)
    if (take(me, bus[me], &token[i], patience()) <= 0) return;
  SIM_CHECK(cfn_bus_ack(bus[me], &token[1], 1) == CFN_OK);
}
static void setup_one_there(void) {
  setup_two();
  SIM_CHECK(post(1, bus[1], "reader", 9, 0) == CFN_OK);
}
static void read_frame_waiting(int me) {
  uint64_t token[3] = {0};
  for (int n = 0; n < 3; n++) {
    uint64_t one = 0;
    if (take(me, bus[me], &one, patience()) <= 0) return;
    token[n] = one;
  }
  for (int i = 3; i-- > 0;) SIM_CHECK(cfn_bus_ack(bus[me], &token[i], 1) == CFN_OK);
}

/* ---- no chunk is free but those that are being read ---- */

static void setup_scarce(int messages) {
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
  bus[2] = sim_open(2, NULL);
  for (int i = 0; i < messages; i++) SIM_CHECK(post(1, bus[1], "reader", 8 + i, 0) == CFN_OK);
  fill_chunks();
}
static void setup_scarce_one(void) { setup_scarce(1); }
static void setup_scarce_two(void) { setup_scarce(2); }
static void send_for_chunk(int me) { post(me, bus[me], "reader", me * 8 + 2, patience()); }
static void send_two_for_chunks(int me) {
  for (int i = 2; i < 4; i++) post(me, bus[me], "reader", me * 8 + i, patience());
}
static void read_waiting(int me, int n) {
  uint64_t token = 0;
  while (n-- > 0)
    if (take(me, bus[me], &token, patience()) < 0) return;
  cfn_bus_ack(bus[me], &token, 1);
}
static void read_three(int me) { read_waiting(me, 3); }
static void read_four(int me) { read_waiting(me, 4); }

/* What was handed out before is read once more, and stolen, and its chunk is used again. */
static void setup_again(void) {
  uint64_t token = 0;
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
  SIM_CHECK(post(1, bus[1], "reader", 8, 0) == CFN_OK);
  bus[2] = sim_open(2, "reader");
  sim_as(2);
  SIM_CHECK(take(2, bus[2], &token, 0) > 0);
  SIM_CHECK(cfn_bus_release_inbox(bus[2]) == CFN_OK);
  fill_chunks();
}
static void read_the_old_one(int me) {
  uint64_t token = 0;
  /* It was the reader before there was another; unless that one died since. */
  if (take(me, bus[me], &token, 0) > 0) SIM_CHECK(last_got == 8 || sim_anyone_killed());
}
static void read_the_body(int me) {
  uint64_t token = 0;
  uint8_t body[40];
  if (take(me, bus[me], &token, 0) <= 0 || cfn_bus_copy_body(bus[me], token, body, sizeof body) != CFN_OK) return;
  for (unsigned i = 0; i < sizeof body; i++) SIM_CHECK(body[i] == last_got);
}
static void steal_ack_and_send(int me) {
  uint64_t token = 0;
  if (cfn_bus_claim_inbox(bus[me], 1) < 0 || take(me, bus[me], &token, 0) <= 0) return;
  SIM_CHECK(cfn_bus_ack(bus[me], &token, 1) == CFN_OK);
  post(me, bus[me], "reader", 16, 0);
}

/* ---- many sleepers, many ringers, nothing else ---- */

static cfn_a64 *condition(int me) { return &cfn_state(cfn_bus_region(bus[me]))->scanned_ns; }
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

const sim_scenario_t sim_message_scenarios[] = {
    {"send", setup_two, {read_two, send_one, send_one}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"send-order", setup_two, {read_two, send_two}, audit_reader, 0, false, {3, 0, 0, 0}, NULL},
    {"send-killed", setup_two, {read_two, send_one, send_one}, audit_reader, 6, true, {1, 1, 0, 0}, NULL},
    {"read-killed", setup_steal, {read_at_once, send_third, succeed_and_read}, audit_reader, 1, true, {1, 1, 0, 0}, NULL},
    {"full", setup_full, {read_all, send_waiting, send_waiting}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"full-one", setup_full, {read_one, send_waiting}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"full-two", setup_full, {read_two_and_stop, send_waiting, send_waiting}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"receipt", setup_two, {read_two, wait_for_ack, wait_for_seen}, audit_reader, 0, false, {1, 0, 0, 0}, NULL},
    {"receipt-seen", setup_two, {read_one_and_keep_it, NULL, wait_for_seen}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"receipt-second", setup_one_there, {ack_the_second, NULL, wait_for_ack}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"receipt-frame", setup_two, {read_frame_waiting, wait_for_acks}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"full-killed", setup_full, {read_some, send_waiting, send_waiting}, audit_reader, 6, true, {1, 1, 0, 0}, NULL},
    {"steal", setup_steal, {read_at_once, send_third, steal_and_read}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"steal-killed", setup_steal, {read_at_once, NULL, steal_and_read}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
    {"steal-lap", setup_lap, {read_at_once, send_a_lap, steal_and_read}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"steal-lap-killed", setup_lap, {read_at_once, send_a_lap, steal_and_read}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
    {"steal-release", setup_steal, {read_and_give_back, send_third, steal_and_read}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"peek", setup_lap, {read_at_once, send_a_lap, peek_twice}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"frame-steal", setup_frame, {ack_in_disorder, NULL, steal_and_read}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"frame-first", setup_frame, {ack_the_first, NULL, steal_and_read}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"frame-killed", setup_frame, {ack_in_disorder, NULL, steal_and_read}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
    {"heirs", setup_heirs, {read_unstolen, read_unstolen, send_more}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"heirs-killed", setup_heirs, {read_at_once, read_at_once, send_more}, audit_reader, ALL, true, {1, 1, 0, 0}, NULL},
    {"frame-batch", setup_frame, {batch_whole, NULL, steal_and_read}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"frame-batch-killed", setup_frame, {batch_whole, NULL, steal_and_read}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
    {"frame-batch-hand", setup_frame, {batch_by_hand, NULL, steal_and_read}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"frame-batch-two", setup_frame, {batch_in_two, NULL, steal_and_read}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
    {"frame-reuse", setup_frame_reuse, {ack_the_old_one, NULL, steal_and_send_anew}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"scarce", setup_scarce_one, {read_three, send_for_chunk, send_for_chunk}, audit_reader, 0, false, {1, 0, 0, 0}, NULL},
    {"scarce-killed", setup_scarce_one, {read_three, send_for_chunk, send_for_chunk}, audit_reader, 6, true, {1, 1, 0, 0}, NULL},
    {"scarce-peek", setup_scarce_two, {read_four, send_two_for_chunks, peek_twice}, audit_reader, 0, false, {1, 0, 0, 0}, NULL},
    {"again", setup_again, {read_the_old_one, NULL, steal_ack_and_send}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"again-body", setup_again, {read_the_body, NULL, steal_ack_and_send}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"again-killed", setup_again, {read_the_old_one, NULL, steal_ack_and_send}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
    {"frame-reuse-killed", setup_frame_reuse, {ack_the_old_one, NULL, steal_and_send_anew}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
    {"request", setup_request, {serve, ask}, verify_request, 0, false, {2, 0, 0, 0}, NULL},
    {"request-killed", setup_request, {serve, ask}, verify_request, 3, true, {1, 1, 0, 0}, NULL},
    {"event", setup_event, {sleep_for_one, sleep_for_two, sleep_for_three, ring_it, ring_it_twice}, audit_all, 0, false, {1, 0, 1, 0}, NULL},
    {"request-life", setup_request_life, {serve, ask_and_leave, attach_and_look}, verify_request, 0, true, {2, 0, 0, 0}, NULL},
    {"request-life-killed", setup_request_life, {serve, ask_and_leave, attach_and_look}, verify_request, ALL, true, {1, 1, 0, 0}, NULL},
};
const int sim_message_scenario_count = sizeof sim_message_scenarios / sizeof sim_message_scenarios[0];
