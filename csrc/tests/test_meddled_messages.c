/* Messages while others read, steal, remove and write between two instructions: a swap that is lost is looked at again, what
 * was taken away is told, nothing is counted twice, and no loop goes on for ever. */
#include <string.h>

#include "agent/bus.h"
#include "tests/meddler.h"

static cfn_bus_t *reader, *one;
static cfn_region_t *r;
static cfn_address_t at;
static _Alignas(8) uint8_t out[8192];
static uint32_t offsets[16];
static size_t used;
static uint64_t dropped;

static void start(void) {
  m_fresh(false);
  bus[0] = reader = sim_open(0, "reader");
  bus[1] = one = sim_open(1, "one");
  r = cfn_bus_region(reader);
  CHECK_INT(cfn_bus_find(reader, "reader", &at), 0);
  CHECK_INT(cfn_bus_claim_inbox(reader, 0), 0);
}
static int send_n(uint32_t n) {
  cfn_outgoing_t m[3] = {{.body = "zero", .body_bytes = 4}, {.body = "eins", .body_bytes = 4}, {.body = "deux", .body_bytes = 4}};
  sim_as(1);
  int e = cfn_bus_send(one, &at, CFN_LANE_NORMAL, m, n, 0, NULL);
  sim_as(0);
  return e;
}
static int64_t recv_one(void) { return cfn_bus_recv(reader, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out); }
static uint64_t token(void) {
  uint64_t t;
  memcpy(&t, out, sizeof t);
  return t;
}
static uint64_t take_one(void) {
  CHECK(recv_one() > 0);
  return token();
}
static int ack(uint64_t t) { return cfn_bus_ack(reader, &t, 1); }
/* Everything that is sent from now on comes, and nothing is left of what was. */
static void end(void) {
  sim_meddler = NULL;
  sim_as(0);
  CHECK_INT(cfn_bus_claim_inbox(reader, 1), 0);
  int64_t n;
  while ((n = recv_one()) > 0) CHECK_INT(ack(token()), 0);
  CHECK_INT(n, CFN_EMPTY);
  for (int i = 0; i < 6; i++) {
    CHECK_INT(send_n(1), 0);
    CHECK_INT(ack(take_one()), 0);
  }
  t_check_region(reader, true);
  t_check_nothing_held(reader);
}

static cfn_a64 *slot(uint32_t i) { return &cfn_lane_slots(r, at.index, CFN_LANE_NORMAL)[i]; }
static cfn_chunk_shm_t *chunk(uint32_t i) { return cfn_chunk(r, cfn_slot_ref(cfn_load_seq(slot(i))) - 1); }
static cfn_mailbox_shm_t *box(void) { return cfn_mailbox(r, at.index); }
static uint64_t corrupt(void) { return cfn_load_seq(&cfn_state(r)->corrupt_dropped); }

/* What another does. */
static uint64_t kept;
static void put_back_word(cfn_a64 *word) { cfn_store_seq(word, kept); }
static void dropped_by_another(cfn_a64 *word) { cfn_store_seq(word, cfn_slot_word(cfn_slot_lap(cfn_load_seq(word)) + 1, 0)); }
static void stolen(cfn_a64 *word) { (void)word, m_next16(&box()->consumer); }
static void passed_by(cfn_a64 *word) { /* a message comes there, and is read, before ours */
  if (word != &box()->lane[CFN_LANE_NORMAL].tail) m_next24(word);
}
static void removed(cfn_a64 *word) { (void)word, m_next24(&box()->mid); }
static void back(void) { cfn_store_seq(&box()->mid, at.mid); }

/* ---- taking ---- */

static void damaged_slots(void) {
  t_case("a slot that makes no sense is dropped by another at the same time, and counted once");
  start();
  CHECK_INT(send_n(1), 0);
  uint64_t was = cfn_load_seq(slot(0)), own = cfn_load_seq(&chunk(0)->own);
  uint32_t k = cfn_slot_ref(was) - 1;
  cfn_store_seq(slot(0), cfn_slot_word(0, r->geo.chunks + 1));
  m_meddle("drop_corrupt", 'c', slot(0), 0, 1, dropped_by_another);
  CHECK_INT(recv_one(), CFN_EMPTY);
  m_end();
  CHECK_INT(corrupt(), 0);
  CHECK(cfn_slab_free(r, k, own));
  cfn_store_seq(&box()->lane[CFN_LANE_NORMAL].head, 1);
  end();

  t_case("one that lost the inbox drops nothing");
  start();
  CHECK_INT(send_n(1), 0);
  CHECK_INT(send_n(1), 0);
  uint64_t t = take_one();
  was = cfn_load_seq(slot(1));
  cfn_store_seq(slot(1), cfn_slot_word(0, r->geo.chunks + 1));
  m_meddle("cfn_inbox_fenced", 'l', &box()->consumer, 0, 1, m_next16);
  CHECK_INT(ack(t), 0); /* the first is acked all the same */
  m_end();
  CHECK_INT(cfn_slot_ref(cfn_load_seq(slot(1))), r->geo.chunks + 1);
  CHECK_INT(recv_one(), CFN_AGENT_FENCED);
  cfn_store_seq(slot(1), was);
  end();

  t_case("an empty slot below the tail is filled again before it is passed over");
  start();
  CHECK_INT(send_n(1), 0);
  CHECK_INT(send_n(1), 0);
  kept = cfn_load_seq(slot(0));
  cfn_store_seq(slot(0), cfn_slot_word(0, 0));
  m_meddle("pass_damage", 'c', slot(0), 0, 1, put_back_word);
  CHECK_INT(recv_one(), CFN_EMPTY);
  m_end();
  CHECK_INT(corrupt(), 0);
  end();

  t_case("a chunk looks free at one look");
  start();
  CHECK_INT(send_n(1), 0);
  kept = cfn_load_seq(&chunk(0)->own);
  cfn_store_seq(&chunk(0)->own, cfn_own_word(cfn_own_ver(kept), CFN_FREE, 0));
  m_meddle("take", 'l', &chunk(0)->own, 1, 1, put_back_word);
  CHECK_INT(ack(take_one()), 0);
  m_end();
  CHECK_INT(corrupt(), 0);
  end();
}

static void damaged_frames(void) {
  t_case("a frame that makes no sense is taken away by a thief, who drops it");
  start();
  CHECK_INT(send_n(1), 0);
  chunk(0)->count = 0;
  m_meddle("take", 'c', &chunk(0)->own, 1, 1, m_next16);
  CHECK_INT(recv_one(), CFN_EMPTY);
  m_end();
  CHECK_INT(corrupt(), 0);
  chunk(0)->count = 1;
  CHECK_INT(cfn_bus_release_inbox(reader), 0);
  end();

  t_case("so is one with a record that makes no sense");
  start();
  CHECK_INT(send_n(1), 0);
  uint32_t k = cfn_slot_ref(cfn_load_seq(slot(0))) - 1;
  cfn_record_shm_t *record = (cfn_record_shm_t *)(void *)(cfn_chunk_payload(r, k, 0) + cfn_frame_head_bytes(3, 1));
  CHECK_INT(record->body_bytes, 4);
  record->body_bytes = 4000;
  m_meddle("drop_rest", 'c', &chunk(0)->own, 0, 1, m_next16);
  CHECK_INT(recv_one(), CFN_EMPTY);
  m_end();
  CHECK_INT(corrupt(), 0);
  CHECK_INT(cfn_bus_release_inbox(reader), 0);
  record->body_bytes = 4;
  end();

  t_case("the second of a batch makes no sense: the first is good, the rest is dropped");
  start();
  CHECK_INT(send_n(3), 0);
  k = cfn_slot_ref(cfn_load_seq(slot(0))) - 1;
  uint8_t *payload = cfn_chunk_payload(r, k, 0);
  uint32_t second;
  memcpy(&second, payload + cfn_pad8(3) + 4, 4);
  record = (cfn_record_shm_t *)(void *)(payload + second);
  CHECK_INT(record->body_bytes, 4);
  record->body_bytes = 4000;
  CHECK_INT(cfn_bus_recv_many(reader, NULL, 0, CFN_ALL_LANES, 3, 0, out, sizeof out, offsets, &used), 1);
  CHECK_INT(recv_one(), CFN_EMPTY);
  CHECK_INT(corrupt(), 2);
  end();

  t_case("how full a lane is, with a frame that makes no sense, and with one that is freed meanwhile");
  start();
  CHECK_INT(send_n(3), 0);
  CHECK_INT(send_n(1), 0);
  chunk(0)->count = 5000;
  CHECK_INT(cfn_lane_depth(r, at.index, CFN_LANE_NORMAL), 1);
  chunk(0)->count = 3;
  m_meddle("cfn_lane_depth", 'l', &chunk(0)->own, 1, 1, m_next16);
  CHECK_INT(cfn_lane_depth(r, at.index, CFN_LANE_NORMAL), 1);
  m_end();
  CHECK_INT(cfn_lane_depth(r, at.index, CFN_LANE_NORMAL), 4);
  end();
}

static void set_part(unsigned bit) {
  uint64_t w = cfn_load_seq(&chunk(0)->part[0]);
  cfn_store_seq(&chunk(0)->part[0], w | UINT64_C(1) << bit);
}

static void put_back(void) {
  t_case("what was put back comes again in order, also when put back in two steps");
  start();
  CHECK_INT(send_n(3), 0);
  uint64_t t[3];
  for (int i = 0; i < 3; i++) t[i] = take_one();
  CHECK_INT(recv_one(), CFN_EMPTY);
  CHECK_INT(cfn_bus_put_back(reader, t[0]), CFN_AGAIN);
  CHECK_INT(cfn_bus_put_back(reader, t[2]), 0);
  CHECK_INT(cfn_bus_put_back(reader, t[1]), 0);
  CHECK(cfn_inbox_ready(&reader->inbox, CFN_ALL_LANES));
  for (int i = 1; i < 3; i++) CHECK_INT(take_one(), t[i]);
  CHECK_INT(cfn_bus_put_back(reader, t[2]), 0);
  CHECK_INT(take_one(), t[2]);
  for (int i = 0; i < 3; i++) CHECK_INT(ack(t[i]), 0);
  end();

  t_case("the message behind the one that is put back was acked by a reader before");
  start();
  CHECK_INT(send_n(3), 0);
  set_part(1);
  t[0] = take_one();
  CHECK_INT(cfn_bus_put_back(reader, t[0]), 0);
  CHECK_INT(take_one(), t[0]);
  t[2] = take_one();
  CHECK_INT(t[2], t[0] + 2);
  CHECK_INT(ack(t[0]), 0);
  CHECK_INT(ack(t[2]), 0);
  end();

  t_case("a frame that waits to come again is over: its last bit was set by a reader before");
  start();
  CHECK_INT(send_n(3), 0);
  CHECK_INT(send_n(1), 0);
  for (int i = 0; i < 3; i++) t[i] = take_one();
  uint64_t single = take_one();
  CHECK_INT(cfn_bus_put_back(reader, t[2]), 0);
  CHECK_INT(cfn_bus_put_back(reader, single), 0);
  set_part(2);
  CHECK_INT(ack(t[0]), 0);
  CHECK_INT(ack(t[1]), 0);
  CHECK_INT(take_one(), single);
  CHECK_INT(ack(single), 0);
  CHECK_INT(recv_one(), CFN_EMPTY);
  end();
}

static void copying(void) {
  char body[4];
  t_case("a body of a frame of several is copied");
  start();
  CHECK_INT(send_n(3), 0);
  uint64_t t = take_one();
  CHECK_INT(cfn_bus_copy_body(reader, t, body, 4), 0);
  CHECK_INT(memcmp(body, "zero", 4), 0);
  t_case("a thief takes it before, or while it is copied");
  m_meddle("cfn_inbox_still_mine", 'l', &chunk(0)->own, 1, 1, m_next16);
  CHECK_INT(cfn_bus_copy_body(reader, t, body, 4), CFN_AGENT_FENCED);
  m_end();
  end();
  start();
  CHECK_INT(send_n(1), 0);
  t = take_one();
  m_next16(&chunk(0)->own);
  CHECK_INT(cfn_bus_copy_body(reader, t, body, 4), CFN_INVALID);
  CHECK_INT(cfn_bus_release_inbox(reader), 0);
  end();
}

static void acking(void) {
  t_case("a batch that claims more than was handed out acks none of it");
  start();
  CHECK_INT(send_n(3), 0);
  uint64_t t[2] = {take_one(), 0};
  uint8_t batch[2 * sizeof(cfn_wire_t)];
  memcpy(batch, out, sizeof(cfn_wire_t));
  memcpy(batch + sizeof(cfn_wire_t), out, sizeof(cfn_wire_t));
  t[1] = t[0] + 1;
  memcpy(batch + sizeof(cfn_wire_t), &t[1], 8);
  uint32_t both[2] = {0, sizeof(cfn_wire_t)};
  CHECK_INT(cfn_bus_ack_batch(reader, batch, both, 2), 0);
  CHECK_INT(cfn_part_acked(cfn_load_seq(&chunk(0)->part[0])), 0);
  CHECK_INT(ack(t[0]), 0);
  t_case("two that are owed nothing, and one told");
  uint64_t again[2] = {t[0], t[0]};
  CHECK_INT(cfn_bus_ack(reader, again, 2), CFN_INVALID);
  CHECK(cfn_bus_recv(reader, again, 1, CFN_ALL_LANES, 0, 0, out, sizeof out) > 0); /* acked by hand before */
  CHECK_INT(token(), t[1]);
  t_case("the inbox is stolen, and a batch of several frames ends there");
  CHECK_INT(send_n(1), 0);
  memcpy(batch, out, sizeof(cfn_wire_t));
  take_one();
  memcpy(batch + sizeof(cfn_wire_t), out, sizeof(cfn_wire_t));
  m_next16(&chunk(0)->own);
  CHECK_INT(cfn_bus_ack_batch(reader, batch, both, 2), CFN_AGENT_FENCED);
  end();
  CHECK(cfn_tokens_follow(5, 6) && !cfn_tokens_follow(5, 7));
  CHECK(!cfn_tokens_follow(0xfffff, 0x100000)); /* the next lease's first */
}

/* ---- whose inbox it is ---- */

static void consuming(void) {
  t_case("an inbox that is taken while we come back to it");
  start();
  CHECK_INT(cfn_bus_claim_inbox(reader, 0), 0); /* ours already */
  m_next16(&box()->consumer);
  CHECK_INT(cfn_bus_claim_inbox(reader, 1), 0);
  CHECK_INT(cfn_bus_release_inbox(reader), 0);
  m_meddle("cfn_registry_take_consumer", 'l', &box()->mid, 0, 1, m_next24);
  CHECK_INT(recv_one(), CFN_UNKNOWN_AGENT);
  m_end();
  back();
  t_case("its dead holder is never recycled");
  uint32_t nobody = r->geo.config.attachments - 1;
  cfn_a64 *id = &cfn_attachment(r, nobody)->id;
  cfn_store_seq(id, cfn_id_word(1, CFN_ID_REAP));
  cfn_store_seq(&box()->consumer, cfn_consumer_word(50, nobody + 1));
  m_meddle("reap_all_of", 'c', id, 0, M_ALWAYS, m_next24);
  CHECK_INT(recv_one(), CFN_AGAIN);
  CHECK_INT(m_end(), 100);
  CHECK(strstr(cfn_last_failure()->text, "changes hands all the time") != NULL);
  CHECK(cfn_bus_reap(one) == 1);
  end();

  t_case("a sleeper finds out that it is stolen from, removed, or that a slot is over");
  static const struct { const char *where; m_act_t *what; int64_t want; } last_look[] = {
      {"cfn_inbox_ready", dropped_by_another, CFN_EMPTY}, {"cfn_inbox_ready", stolen, CFN_AGENT_FENCED},
      {"cfn_inbox_ready", removed, CFN_UNKNOWN_AGENT}};
  for (unsigned i = 0; i < 3; i++) {
    start();
    m_meddle(last_look[i].where, 'l', slot(0), 0, 1, last_look[i].what);
    int64_t n;
    uint64_t deadline = patience();
    do {
      n = cfn_bus_recv(reader, NULL, 0, 1u << CFN_LANE_NORMAL, 0, deadline, out, sizeof out);
    } while (n == CFN_INTERRUPTED);
    CHECK_INT(n, last_look[i].want);
    m_end();
    back();
    if (i == 0) cfn_store_seq(&box()->lane[CFN_LANE_NORMAL].tail, 1), cfn_store_seq(&box()->lane[CFN_LANE_NORMAL].head, 1);
    end();
  }
}

/* ---- sending ---- */

static void publishing(void) {
  t_case("a lane that changes faster than one can send");
  start();
  for (int waits = 0; waits < 2; waits++) {
    cfn_outgoing_t m = {.body = "x", .body_bytes = 1};
    sim_as(1);
    m_meddle("cfn_ring_publish", 'c', NULL, 0, M_ALWAYS, passed_by);
    CHECK_INT(cfn_bus_send(one, &at, CFN_LANE_NORMAL, &m, 1, waits ? patience() : 0, NULL), CFN_AGAIN);
    m_end();
    CHECK(strstr(cfn_last_failure()->text, "changes faster") != NULL);
    sim_as(0);
    cfn_store_seq(&box()->lane[CFN_LANE_NORMAL].head, cfn_load_seq(&box()->lane[CFN_LANE_NORMAL].tail));
    CHECK_INT(cfn_bus_release_inbox(reader), 0);
    CHECK_INT(send_n(1), 0);
    CHECK_INT(ack(take_one()), 0);
  }
  end();

  t_case("a full lane whose tail moves, or whose reader goes");
  start();
  for (int i = 0; i < 4; i++) CHECK_INT(send_n(1), 0);
  CHECK_INT(send_n(1), CFN_FULL);
  cfn_ring_t q = cfn_ring_of_lane(r, at.index, CFN_LANE_NORMAL);
  uint64_t position;
  CHECK_INT(cfn_ring_publish(&q, 0, &box()->mid, at.mid, &position), CFN_FULL);
  CHECK_INT(cfn_ring_publish(&q, 0, &box()->mid, at.mid + 1, &position), CFN_STALE);
  m_meddle("cfn_ring_publish", 'l', q.tail, 1, 1, m_next);
  CHECK_INT(cfn_ring_publish(&q, 0, &box()->mid, at.mid, &position), CFN_FULL);
  m_end();
  cfn_store_seq(q.tail, 4);
  end();

  t_case("several that fit no chunk together");
  start();
  uint8_t big[200] = {0};
  cfn_outgoing_t two[2] = {{.body = big, .body_bytes = sizeof big}, {.body = big, .body_bytes = sizeof big}};
  CHECK_INT(cfn_bus_send(one, &at, CFN_LANE_NORMAL, two, 2, 0, NULL), CFN_TOO_LARGE);
  end();
}

static void receipts(void) {
  cfn_outgoing_t m[2] = {{.body = "x", .body_bytes = 1}, {.body = "y", .body_bytes = 1}};
  cfn_receipt_t receipt;
  t_case("a receipt of a slot that was damaged");
  start();
  CHECK_INT(cfn_bus_send(one, &at, CFN_LANE_NORMAL, m, 2, 0, &receipt), 0);
  uint64_t was = cfn_load_seq(slot(0));
  static const uint32_t refs[] = {0, 9999};
  for (int i = 0; i < 2; i++) {
    cfn_store_seq(slot(0), cfn_slot_word(0, refs[i]));
    CHECK_INT(cfn_bus_receipt(one, &receipt, 1), CFN_INVALID);
    CHECK_INT(cfn_bus_receipt_wait(one, &receipt, CFN_RECEIPT_ACKED, patience()), CFN_INVALID);
  }
  cfn_store_seq(slot(0), was);
  t_case("a receipt of a slot that changes at each look, and of one that is over between arming and sleeping");
  m_meddle("receipt_state", 'l', slot(0), 1, M_ALWAYS, m_next);
  CHECK_INT(cfn_bus_receipt(one, &receipt, 1) >= 0 || cfn_last_failure()->code == CFN_INVALID, 1);
  m_end();
  cfn_store_seq(slot(0), was);
  CHECK_INT(cfn_bus_receipt(one, &receipt, 1), CFN_RECEIPT_STORED);
  m_meddle("cfn_event_arm", '|', &box()->acks.event.word, 0, 1, removed);
  CHECK_INT(cfn_bus_receipt_wait(one, &receipt, CFN_RECEIPT_ACKED, patience()), CFN_RECEIPT_DROPPED);
  m_end();
  back();
  end();
}

/* ---- removing ---- */

static void removing(void) {
  static const unsigned states[] = {CFN_DONE, CFN_FREE, CFN_MINE};
  for (unsigned i = 0; i < 3; i++) {
    t_case("a slot is emptied by another remover (%u)", states[i]);
    start();
    CHECK_INT(send_n(1), 0);
    uint32_t k = cfn_slot_ref(cfn_load_seq(slot(0))) - 1;
    cfn_a64 *own = &cfn_chunk(r, k)->own;
    cfn_store_seq(own, cfn_own_next(cfn_load_seq(own), states[i], 1));
    sim_as(1);
    m_meddle("retire_slot", 'c', slot(0), 0, 1, m_next24);
    CHECK_INT(cfn_bus_unregister(one, "reader", CFN_FORCE, &dropped), 0);
    m_end();
    CHECK_INT(cfn_own_state(cfn_load_seq(own)), CFN_FREE);
    t_check_region(one, true);
  }
  t_case("a slot changes at each look of its remover");
  start();
  CHECK_INT(send_n(1), 0);
  sim_as(1);
  m_meddle("retire_slot", 'c', &chunk(0)->own, 0, M_ALWAYS, m_next16);
  CHECK_INT(cfn_bus_unregister(one, "reader", CFN_FORCE, &dropped), CFN_AGENT_FENCED);
  m_end();
  CHECK_INT(cfn_last_failure()->code, CFN_AGENT_FENCED);
  CHECK(cfn_bus_reap(one) >= 0); /* goes on with it */
  CHECK_INT(cfn_bus_find(one, "reader", &at), CFN_UNKNOWN_AGENT);
  t_check_region(one, true);
  t_check_nothing_held(one);
}

int main(void) {
  m_main();
  damaged_slots();
  damaged_frames();
  put_back();
  copying();
  acking();
  consuming();
  publishing();
  receipts();
  removing();
  t_passed("test_meddled_messages");
  return 0;
}
