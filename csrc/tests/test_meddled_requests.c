/* Requests, loans, room and looks into an inbox while others read, answer, free and end between two instructions. */
#include <string.h>

#include "agent/bus.h"
#include "mem/heap.h"
#include "tests/meddler.h"

static cfn_bus_t *server, *asker;
static cfn_region_t *r;
static cfn_address_t at;
static uint64_t correlation;
static _Alignas(8) uint8_t out[8192];
static uint8_t big[LETTER];
static uint32_t offsets[16];
static size_t used;
static int more;

static void start(void) {
  m_fresh(false);
  bus[0] = server = sim_open(0, "server");
  bus[1] = asker = sim_open(1, "asker");
  r = cfn_bus_region(asker);
  CHECK_INT(cfn_bus_find(asker, "server", &at), 0);
}
static bool says(const char *words) { return strstr(cfn_last_failure()->text, words) != NULL; }
static int send_n(uint32_t bytes, uint64_t deadline) {
  cfn_outgoing_t m = {.body = big, .body_bytes = bytes};
  sim_as(1);
  int e;
  do {
    e = cfn_bus_send(asker, &at, CFN_LANE_NORMAL, &m, 1, deadline, NULL);
  } while (e == CFN_INTERRUPTED);
  sim_as(0);
  return e;
}
static int64_t recv_one(void) { return cfn_bus_recv(server, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out); }
static void drain(void) {
  int64_t n;
  sim_as(0);
  while ((n = recv_one()) > 0) {
    uint64_t t;
    memcpy(&t, out, sizeof t);
    CHECK_INT(cfn_bus_ack(server, &t, 1), 0);
  }
  CHECK_INT(n, CFN_EMPTY);
}
static int64_t wait_for_answer(uint64_t deadline, size_t room) {
  int64_t n;
  sim_as(1);
  do {
    n = cfn_bus_request_wait(asker, &at, correlation, deadline, out, room);
  } while (n == CFN_INTERRUPTED);
  return n;
}
static int reply(const char *body) {
  cfn_outgoing_t m = {.body = body, .body_bytes = (uint32_t)strlen(body), .correlation = correlation};
  sim_as(0);
  int e = cfn_bus_reply(server, cfn_bus_attachment(asker), cfn_bus_attachment_inc(asker), &m, 0);
  sim_as(1);
  return e;
}
static void ask(void) {
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
  sim_as(1);
  CHECK_INT(cfn_bus_request(asker, &at, CFN_LANE_NORMAL, &m, 0, &correlation), 0);
}
static void end(void) {
  sim_meddler = NULL;
  ask();
  CHECK_INT(reply("yes"), 0);
  CHECK(wait_for_answer(patience(), sizeof out) > 0);
  cfn_bus_request_end(asker, correlation);
  drain();
  CHECK_INT(t_heap_used(server), 0);
  t_check_region(server, true);
  t_check_nothing_held(server);
}

static cfn_a64 *slot(void) {
  cfn_ring_t q = cfn_ring_of_replies(r, cfn_bus_attachment(asker));
  return cfn_ring_slot(&q, cfn_load_seq(q.head));
}
static cfn_chunk_shm_t *chunk(void) { return cfn_chunk(r, cfn_slot_ref(cfn_load_seq(slot())) - 1); }
static uint64_t counted(unsigned what) { return cfn_load_seq(&asker->actor.slot->counter[what]); }
static cfn_record_shm_t *record(void) {
  uint32_t k = cfn_slot_ref(cfn_load_seq(slot())) - 1;
  return (cfn_record_shm_t *)(void *)(cfn_chunk_payload(r, k, 0) + cfn_frame_head_bytes(6, 1));
}

/* What another does. */
static void spits_out(cfn_a64 *word) { cfn_store_seq(word, cfn_slot_word(cfn_slot_lap(cfn_load_seq(word)) + 1, 0)); }
static void server_goes(cfn_a64 *word) {
  (void)word;
  m_next24(&cfn_mailbox(r, at.index)->mid);
}
static void closes(cfn_a64 *word) {
  (void)word;
  cfn_bus_close(asker);
}

/* ---- answers ---- */

static void answers(void) {
  t_case("answers that make no sense, that nobody waits for, and that come twice");
  for (int what = 0; what < 5; what++) {
    start();
    ask();
    CHECK_INT(reply(what ? "yes" : "an answer that is long enough for two records to fit"), 0);
    if (what == 0) chunk()->count = 2;
    if (what == 1) record()->body_bytes = 4000;
    if (what == 2) chunk()->bytes = 99999;
    if (what == 3) record()->correlation++;
    if (what == 4) CHECK_INT(reply("no"), 0);
    int64_t n = wait_for_answer(0, sizeof out);
    if (what < 4) CHECK_INT(n, CFN_TIMEOUT);
    else CHECK(n > 0 && memcmp(out + n - 3, "yes", 3) == 0);
    CHECK_INT(counted(CFN_COUNT_CORRUPT), what < 3);
    CHECK_INT(counted(CFN_COUNT_REPLIES_LATE), what >= 3);
    if (what == 4) CHECK_INT(wait_for_answer(0, 10), CFN_INVALID); /* no room for its head */
    cfn_bus_request_end(asker, correlation);
    CHECK_INT(wait_for_answer(0, sizeof out), CFN_INVALID);
    end();
  }
  t_case("an answer that is taken away, dropped, or another's, while it is read");
  static const struct { char how; int nth; int of; } moments[] = {{'l', 1, 0}, {'c', 0, 1}, {'l', 1, 1}, {'c', 0, 0}};
  for (unsigned i = 0; i < sizeof moments / sizeof moments[0]; i++) {
    start();
    ask();
    CHECK_INT(reply("yes"), 0);
    m_meddle("drain_replies", moments[i].how, moments[i].of ? &chunk()->own : slot(), moments[i].nth, 1,
             moments[i].of ? m_next16 : spits_out);
    uint32_t k = cfn_slot_ref(cfn_load_seq(slot())) - 1;
    int64_t n = wait_for_answer(0, sizeof out);
    m_end();
    CHECK(n > 0 || n == CFN_TIMEOUT);
    if (i == 2) CHECK_INT(n, CFN_TIMEOUT); /* it was another's when the copy was made */
    cfn_bus_request_end(asker, correlation);
    cfn_a64 *own = &cfn_chunk(r, k)->own;
    if (cfn_own_state(cfn_load_seq(own)) != CFN_FREE) CHECK(cfn_slab_free(r, k, cfn_load_seq(own)));
    cfn_store_seq(&asker->actor.slot->reply_tail, 1);
    end();
  }
  t_case("a slot that names no chunk");
  start();
  ask();
  cfn_store_seq(slot(), cfn_slot_word(0, 9999));
  cfn_store_seq(&asker->actor.slot->reply_tail, 1);
  CHECK_INT(wait_for_answer(0, sizeof out), CFN_TIMEOUT);
  cfn_bus_request_end(asker, correlation);
  end();
  t_case("a referenced chunk that is nobody's");
  start();
  ask();
  CHECK_INT(reply("yes"), 0);
  uint32_t k = cfn_slot_ref(cfn_load_seq(slot())) - 1;
  cfn_store_seq(&chunk()->own, cfn_own_next(cfn_load_seq(&chunk()->own), CFN_FREE, 0));
  CHECK_INT(wait_for_answer(0, sizeof out), CFN_TIMEOUT);
  cfn_slab_mend_chunk(r, k);
  cfn_bus_request_end(asker, correlation);
  end();

  t_case("the server is unregistered while it is waited for");
  start();
  ask();
  m_meddle("cfn_bus_judge", 'l', &cfn_mailbox(r, at.index)->mid, 0, 1, m_next24);
  CHECK_INT(wait_for_answer(patience(), sizeof out), CFN_STALE);
  m_end();
  cfn_store_seq(&cfn_mailbox(r, at.index)->mid, at.mid);
  cfn_bus_request_end(asker, correlation);
  t_case("a spin before the sleep, which sees nothing");
  ask();
  cfn_store_relaxed(&asker->spin, 8);
  CHECK_INT(wait_for_answer(0, sizeof out), CFN_TIMEOUT);
  CHECK_INT(wait_for_answer(sim_now() + 1000, sizeof out), CFN_TIMEOUT);
  CHECK_INT(cfn_load_relaxed(&asker->spin), 4);
  cfn_bus_request_end(asker, correlation);
  end();

  t_case("a request that is ended on a handle that is closed keeps what failed");
  start();
  ask();
  cfn_bus_close(asker);
  CHECK_INT(wait_for_answer(0, sizeof out), CFN_CLOSED);
  cfn_bus_request_end(asker, correlation);
  CHECK_INT(cfn_last_failure()->code, CFN_CLOSED);
  cfn_fail(CFN_OK, 0, 0, " ");
  cfn_bus_request_end(asker, correlation);
}

/* ---- room ---- */

static void frees_the_first(cfn_a64 *word) {
  (void)word;
  uint64_t t;
  sim_as(0);
  CHECK(recv_one() > 0);
  memcpy(&t, out, sizeof t);
  CHECK_INT(cfn_bus_ack(server, &t, 1), 0);
  sim_as(1);
}
static void fill_chunks(void) { /* those that are for everybody are gone */
  for (uint32_t k = 0; k < r->geo.chunks; k++) {
    cfn_a64 *own = &cfn_chunk(r, k)->own;
    if (cfn_own_state(cfn_load_seq(own)) == CFN_FREE) cfn_store_seq(own, cfn_own_next(cfn_load_seq(own), CFN_MINE, 7));
  }
}
static void give_chunks(void) {
  for (uint32_t k = 0; k < r->geo.chunks; k++) {
    cfn_a64 *own = &cfn_chunk(r, k)->own;
    if (cfn_own_who(cfn_load_seq(own)) == 7) cfn_store_seq(own, cfn_own_next(cfn_load_seq(own), CFN_FREE, 0));
    cfn_slab_mend_chunk(r, k);
  }
}
static void gives_chunks(cfn_a64 *word) {
  (void)word;
  give_chunks();
}
static void room(void) {
  t_case("room comes between arming and sleeping, or the receiver goes");
  start();
  for (int i = 0; i < LANE; i++) CHECK_INT(send_n(1, 0), 0);
  cfn_a32 *word = &cfn_mailbox(r, at.index)->space.event.word;
  m_meddle("cfn_event_arm", '|', word, 0, 1, frees_the_first);
  CHECK_INT(send_n(1, patience()), 0);
  m_end();
  m_meddle("cfn_event_arm", '|', word, 0, 1, server_goes);
  CHECK_INT(send_n(1, patience()), CFN_STALE);
  m_end();
  cfn_store_seq(&cfn_mailbox(r, at.index)->mid, at.mid);
  CHECK_INT(send_n(1, CFN_TRY), CFN_FULL);
  CHECK_INT(send_n(1, sim_now() + 1000), CFN_FULL);
  CHECK(says("timed out waiting for room"));
  drain();
  end();

  t_case("chunks run out, and come back, or a dead one had them");
  start();
  fill_chunks();
  CHECK_INT(send_n(1, 0), CFN_NO_SPACE);
  CHECK_INT(send_n(1, CFN_TRY), CFN_NO_SPACE);
  cfn_store_seq(&cfn_state(r)->scanned_ns, UINT64_MAX); /* of a clock that is ahead */
  m_meddle("scan_due", 'c', NULL, 0, 1, m_next); /* another looks for the dead just now */
  CHECK_INT(send_n(1, sim_now() + 1000), CFN_NO_SPACE);
  m_end();
  m_meddle("cfn_event_arm", '|', NULL, 0, 1, gives_chunks);
  CHECK_INT(send_n(1, patience()), 0);
  m_end();
  fill_chunks();
  cfn_attach_shm_t *dead = cfn_attachment(r, 7);
  uint32_t k = 5;
  while (cfn_own_who(cfn_load_seq(&cfn_chunk(r, k)->own)) != 7) k++;
  cfn_store_seq(&dead->reg[CFN_REG_SEND], k + 1);
  cfn_store_seq(&dead->id, cfn_id_word(3, CFN_ID_REAP));
  cfn_store_seq(&cfn_state(r)->scanned_ns, 0);
  CHECK_INT(send_n(1, patience()), 0);
  t_case("an answer has no chunk, and then it has one");
  give_chunks();
  drain();
  ask();
  fill_chunks();
  cfn_outgoing_t m = {.body = "yes", .body_bytes = 3, .correlation = correlation};
  sim_as(0);
  for (int comes = 0; comes < 2; comes++) {
    uint64_t deadline = patience();
    int e;
    if (comes) m_meddle("wait", 'w', NULL, 0, 1, gives_chunks);
    do {
      e = cfn_bus_reply(server, cfn_bus_attachment(asker), cfn_bus_attachment_inc(asker), &m, deadline);
    } while (e == CFN_INTERRUPTED);
    CHECK_INT(e, comes ? 0 : CFN_NO_SPACE);
  }
  m_end();
  CHECK(wait_for_answer(0, sizeof out) > 0);
  cfn_bus_request_end(asker, correlation);
  give_chunks();
  drain();
  end();
}

/* ---- bodies that no chunk holds ---- */

static void large(void) {
  t_case("a large body: not at once, not of a closed handle, not more than the heap");
  start();
  CHECK_INT(send_n(LETTER, CFN_TRY), CFN_AGAIN);
  int result[2];
  cfn_receipt_t receipts[2];
  cfn_outgoing_t m = {.body = big, .body_bytes = 5 * CFN_PAGE};
  sim_as(1);
  CHECK_INT(cfn_bus_broadcast(asker, &at, 1, CFN_LANE_NORMAL, &m, 0, result, receipts), CFN_TOO_LARGE);
  m.body_bytes = 1;
  cfn_address_t twice[2] = {{at.mid, 9999}, at};
  CHECK_INT(cfn_bus_broadcast(asker, twice, 2, CFN_LANE_NORMAL, &m, 0, result, receipts), CFN_INVALID);
  for (int i = 0; i < LANE; i++) CHECK_INT(send_n(1, 0), 0);
  sim_as(1);
  m_meddle("wait", 'w', NULL, 0, 1, closes);
  CHECK_INT(send_n(LETTER, patience()), CFN_CLOSED);
  m_end();
  CHECK_INT(send_n(LETTER, 0), CFN_CLOSED);
  drain();
  CHECK_INT(t_heap_used(server), 0);
}

static cfn_loan_t loan;
static int sends_again, dropped_open;
static void sends_the_same(cfn_a64 *word) {
  (void)word;
  sends_again = cfn_bus_loan_send(asker, loan.number, at.index, at.mid, CFN_LANE_NORMAL, 0, "", 0, 0, NULL);
  cfn_bus_loan_drop(asker, loan.number);
  dropped_open = cfn_bus_loan_open(asker, loan.number);
}
static int send_loan(uint64_t deadline) {
  int e;
  do {
    e = cfn_bus_loan_send(asker, loan.number, at.index, at.mid, CFN_LANE_NORMAL, 0, "", 0, deadline, NULL);
  } while (e == CFN_INTERRUPTED);
  return e;
}
static void loans(void) {
  t_case("loans");
  start();
  sim_as(1);
  CHECK_INT(cfn_bus_loan_open(asker, 1), 0); /* none yet */
  CHECK_INT(cfn_bus_loan(asker, LETTER, &loan), 0);
  CHECK_INT(cfn_bus_loan_open(asker, 0), 0);
  CHECK_INT(cfn_bus_loan_open(asker, loan.number), 1);
  CHECK_INT(cfn_bus_loan_open(asker, loan.number + 1), 0);
  t_case("another thread sends it, or drops it, while it is sent");
  for (int i = 0; i < LANE; i++) CHECK_INT(send_n(1, 0), 0);
  sim_as(1);
  m_meddle("wait", 'w', NULL, 0, 1, sends_the_same);
  CHECK_INT(send_loan(sim_now() + 1000), CFN_FULL);
  m_end();
  CHECK_INT(sends_again, CFN_INVALID);
  CHECK_INT(dropped_open, 1);
  drain();
  sim_as(1);
  CHECK_INT(send_loan(0), 0);
  CHECK_INT(cfn_bus_loan_open(asker, loan.number), 0);
  drain();
  t_case("its writer is judged dead");
  sim_as(1);
  CHECK_INT(cfn_bus_loan(asker, LETTER, &loan), 0);
  m_meddle("cfn_heap_publish", 'c', NULL, 0, 1, m_next16);
  CHECK_INT(send_loan(0), CFN_AGENT_FENCED);
  m_end();
  CHECK(says("judged dead while it wrote a loan"));
  cfn_bus_loan_drop(asker, loan.number);
  sim_as(0);
  CHECK(cfn_bus_collect(server) >= 0);
  t_case("a handle that holds as much as it can");
  sim_as(1);
  for (unsigned i = 0; i < CFN_PINS; i++) cfn_store_seq(&asker->actor.slot->ledger[i], cfn_names_word(90, 4));
  CHECK_INT(cfn_bus_loan(asker, LETTER, &loan), CFN_OVER_CAPACITY);
  for (unsigned i = 0; i < CFN_LEDGER; i++) cfn_store_seq(&asker->actor.slot->ledger[i], 0);
  end();
  t_case("the handle is closed while a loan of it is sent");
  start();
  sim_as(1);
  CHECK_INT(cfn_bus_loan(asker, LETTER, &loan), 0);
  for (int i = 0; i < LANE; i++) CHECK_INT(send_n(1, 0), 0);
  sim_as(1);
  m_meddle("wait", 'w', NULL, 0, 1, closes);
  CHECK_INT(send_loan(patience()), CFN_CLOSED);
  m_end();
  CHECK_INT(cfn_bus_loan_open(asker, loan.number), CFN_CLOSED);
  cfn_bus_loan_drop(asker, loan.number);
  drain();
  CHECK_INT(t_heap_used(server), 0);
}

/* ---- looks into an inbox ---- */

static void ends_the_body(cfn_a64 *st) {
  cfn_blob_shm_t *b = (cfn_blob_shm_t *)(void *)((uint8_t *)(void *)st - offsetof(cfn_blob_shm_t, st));
  m_next(&b->life);
}
static cfn_blob_shm_t *body;
static void another_life(cfn_a64 *cell) {
  (void)cell;
  m_next(&body->life);
}
static int64_t peek(void) {
  return cfn_bus_peek(server, &at, CFN_ALL_LANES, out, sizeof out, offsets, 16, &used, &more);
}
static void looking(void) {
  cfn_lane_shm_t *lane;
  t_case("a large message is looked at while its body ends");
  start();
  CHECK_INT(send_n(LETTER, 0), 0);
  CHECK_INT(peek(), 1);
  lane = &cfn_mailbox(r, at.index)->lane[CFN_LANE_NORMAL];
  cfn_chunk_shm_t *c = cfn_chunk(r, cfn_slot_ref(cfn_load_seq(cfn_lane_slots(r, at.index, CFN_LANE_NORMAL))) - 1);
  body = cfn_blob_record(r, (uint32_t)cfn_load_seq(&c->blob) - 1);
  uint64_t life = cfn_load_seq(&body->life);
  m_meddle("cfn_heap_hold", 'l', &body->st, 0, 1, ends_the_body);
  CHECK_INT(peek(), 0);
  m_end();
  cfn_store_seq(&body->life, life);
  m_meddle("change", 'c', NULL, 1, 1, another_life); /* it was copied, and we let go of it */
  CHECK_INT(peek(), 0);
  m_end();
  cfn_store_seq(&body->life, life);
  for (unsigned i = 0; i < CFN_LEDGER; i++) cfn_store_seq(&server->actor.slot->ledger[i], cfn_names_word(90, 4));
  CHECK_INT(peek(), 0); /* nothing to hold it by */
  for (unsigned i = 0; i < CFN_LEDGER; i++) cfn_store_seq(&server->actor.slot->ledger[i], 0);
  CHECK_INT(cfn_load_seq(&lane->seen), 0);
  t_case("one whose place makes no sense");
  uint8_t *payload = cfn_chunk_payload(r, (uint32_t)(c - cfn_chunk(r, 0)), 0);
  cfn_record_shm_t *rec = (cfn_record_shm_t *)(void *)(payload + cfn_frame_head_bytes(5, 1));
  CHECK_INT(rec->body_bytes, sizeof(cfn_object_shm_t));
  rec->body_bytes--;
  CHECK_INT(peek(), 0);
  rec->body_bytes++;
  cfn_object_shm_t *place = (cfn_object_shm_t *)(void *)(rec + 1);
  place->bytes--;
  CHECK_INT(peek(), 0);
  place->bytes++;
  place->life++;
  CHECK_INT(peek(), 0);
  place->life--;
  drain();
  t_case("a frame whose offsets make no sense ends the look");
  cfn_outgoing_t two[2] = {{.body = "a", .body_bytes = 1}, {.body = "", .body_bytes = 0}};
  sim_as(1);
  CHECK_INT(cfn_bus_send(asker, &at, CFN_LANE_NORMAL, two, 2, 0, NULL), 0);
  CHECK_INT(send_n(1, 0), 0);
  CHECK_INT(peek(), 3);
  c = cfn_chunk(r, cfn_slot_ref(cfn_load_seq(&cfn_lane_slots(r, at.index, CFN_LANE_NORMAL)[1])) - 1);
  payload = cfn_chunk_payload(r, (uint32_t)(c - cfn_chunk(r, 0)), 0);
  uint32_t second, bad = 3;
  memcpy(&second, payload + 8 + 4, 4);
  memcpy(payload + 8 + 4, &bad, 4);
  CHECK_INT(peek(), 0);
  CHECK_INT(more, 1);
  memcpy(payload + 8 + 4, &second, 4);
  c->count = 0;
  CHECK_INT(peek(), 1); /* of a frame that makes no sense nothing is shown */
  c->count = 2;
  drain();
  end();
}

int main(void) {
  m_main();
  answers();
  room();
  large();
  loans();
  looking();
  t_passed("test_meddled_requests");
  return 0;
}
