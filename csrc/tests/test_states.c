/* Crashed states, written by hand into the region's words, or left by a process that really died
 * there; then the recovery; then what must be true. Row by row of the crash-window table. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem/directory.h"
#include "sync/event.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_wire_t w;
static char body[4096];

static void start(void) {
  a = t_open("a", NULL);
  b = t_attach("b");
  r = cfn_bus_region(a);
}
static void end(void) {
  t_check_nothing_held(a);
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}

/* A process that attaches as `agent`, does `work`, and is gone without a word. Returns its slot. */
static uint32_t corpse(const char *agent, void (*work)(cfn_bus_t *)) {
  int out[2];
  CHECK_INT(pipe(out), 0);
  pid_t p = t_fork();
  if (p == 0) {
    cfn_bus_t *bus = t_attach(agent);
    if (work) work(bus);
    uint32_t slot = cfn_bus_attachment(bus);
    CHECK_INT(write(out[1], &slot, sizeof slot), sizeof slot);
    raise(SIGKILL);
  }
  uint32_t slot;
  CHECK_INT(read(out[0], &slot, sizeof slot), sizeof slot);
  siginfo_t info;
  CHECK_INT(waitid(P_PID, (id_t)p, &info, WEXITED), 0);
  close(out[0]);
  close(out[1]);
  return slot;
}
static cfn_address_t find(const char *agent) {
  cfn_address_t x;
  CHECK_INT(cfn_bus_find(a, agent, &x), 0);
  return x;
}
static cfn_a64 *slot_of(const char *agent, uint32_t i) {
  return &cfn_lane_slots(r, find(agent).index, CFN_LANE_NORMAL)[i];
}
static cfn_mailbox_shm_t *box(const char *agent) { return cfn_mailbox(r, find(agent).index); }
static cfn_lane_shm_t *lane(const char *agent) { return &box(agent)->lane[CFN_LANE_NORMAL]; }
static int put(const char *to, char c) { return t_send(a, to, CFN_LANE_NORMAL, &c, 1, 0, NULL); }
/* The next messages of `bus`, acked: exactly these, one letter each; capitals are redelivered. */
static void get(cfn_bus_t *bus, const char *want) {
  for (const char *c = want; *c; c++) {
    CHECK_INT(t_recv(bus, 0, &w, body), 1);
    bool again = *c >= 'A' && *c <= 'Z';
    CHECK_INT(body[0], again ? *c + 32 : *c);
    CHECK_INT((w.wire_flags & CFN_WIRE_REDELIVERED) != 0, again);
    CHECK_INT(t_ack(bus, w.token), 0);
  }
  CHECK_INT(t_recv(bus, 0, &w, body), CFN_EMPTY);
}
static void full_laps(cfn_bus_t *reader, const char *name) {
  for (int lap = 0; lap < 3; lap++) {
    for (int i = 0; i < 8; i++) CHECK_INT(put(name, 'x'), 0);
    CHECK_INT(put(name, 'y'), CFN_FULL);
    get(reader, "xxxxxxxx");
  }
}
static cfn_chunk_shm_t *free_chunk(uint32_t *k) {
  *k = 3;
  CHECK_INT(cfn_own_state(cfn_load_seq(&cfn_chunk(r, 3)->own)), CFN_FREE);
  return cfn_chunk(r, 3);
}

/* ---- senders ---- */

static void register_names_free(void) {
  t_case("register names a chunk that is still FREE");
  start();
  uint32_t k, d = corpse("dead", NULL);
  cfn_chunk_shm_t *c = free_chunk(&k);
  uint64_t own = cfn_load_seq(&c->own);
  for (unsigned cell = 0; cell < CFN_REGISTERS; cell++)
    cfn_store_seq(&cfn_attachment(r, d)->reg[cell], k + 1);
  CHECK_INT(cfn_bus_reap(a), 1);
  CHECK_INT(cfn_load_seq(&c->own), own);
  end();
}
static void mine_unpublished(void) {
  static const uint64_t targets[] = {0, 99, UINT64_MAX, (uint64_t)CFN_TO_REPLY << 40 | 5};
  for (unsigned t = 0; t < 4; t++)
    for (unsigned state = CFN_MINE; state <= CFN_DONE; state++) {
      t_case("state %u of the dead, in no ring, target %llx", state, (unsigned long long)targets[t]);
      start();
      uint32_t k, d = corpse("dead", NULL);
      cfn_chunk_shm_t *c = free_chunk(&k);
      cfn_store_seq(&c->own, cfn_own_word(5, state, state == CFN_DONE ? 77 : d));
      cfn_store_seq(&c->target, targets[t]);
      static const unsigned cells[] = {CFN_REG_SEND, CFN_REG_DONE, CFN_REG_DRAIN, CFN_REG_JOINER};
      cfn_store_seq(&cfn_attachment(r, d)->reg[cells[t]], k + 1);
      CHECK_INT(cfn_bus_reap(a), 1);
      CHECK_INT(cfn_load_seq(&c->own), cfn_own_word(6, CFN_FREE, 0));
      end();
    }
}
static void send_x(cfn_bus_t *bus) { CHECK_INT(t_send(bus, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0); }
static void committed_tail_lags(void) {
  t_case("committed, tail lags, register still names it, its bell not rung");
  start();
  cfn_event_shm_t *bell = &box("b")->bell.event;
  uint32_t d = corpse("dead", send_x);
  cfn_store_seq(&lane("b")->tail, 0);
  cfn_store_seq(&cfn_attachment(r, d)->reg[CFN_REG_SEND], cfn_slot_ref(cfn_load_seq(slot_of("b", 0))));
  uint32_t armed = cfn_event_arm(bell);
  CHECK_INT(cfn_bus_reap(a), 1);
  CHECK(cfn_load_seq(&bell->word) != armed); /* the reaper rang in its stead */
  CHECK_INT(cfn_load_seq(&bell->word) & CFN_EVENT_ANY, 0);
  CHECK_INT(put("b", 'y'), 0);
  get(b, "xy");
  full_laps(b, "b");
  end();
}

/* ---- readers ---- */

static void take_two(cfn_bus_t *bus) {
  for (int i = 0; i < 2; i++) CHECK_INT(t_recv(bus, 0, &w, body), 1);
}
static void taken_referenced(void) {
  t_case("TAKEN by the dead, referenced");
  start();
  cfn_address_t v;
  int created;
  CHECK_INT(cfn_bus_register(a, "v", NULL, &v, &created), 0);
  for (char c = 'p'; c < 't'; c++) CHECK_INT(put("v", c), 0);
  corpse("v", take_two);
  cfn_bus_t *next = t_attach("v"); /* without reaping first */
  get(next, "PQrs");
  full_laps(next, "v");
  t_close(next);
  end();
}
static void full_of_done(void) {
  for (int lag = 0; lag < 3; lag++) {
    t_case("a full ring of DONEs, variant %d", lag);
    start();
    cfn_address_t v;
    int created;
    CHECK_INT(cfn_bus_register(a, "v", NULL, &v, &created), 0);
    for (int i = 0; i < 8; i++) CHECK_INT(put("v", 'x'), 0);
    for (uint32_t i = 0; i < 8; i++) {
      uint64_t word = cfn_load_seq(slot_of("v", i));
      cfn_chunk_shm_t *c = cfn_chunk(r, cfn_slot_ref(word) - 1);
      cfn_store_seq(&c->own, cfn_own_next(cfn_load_seq(&c->own), CFN_DONE, 9));
    }
    cfn_max_seq(&lane("v")->seen, cfn_place(8, 0));
    CHECK_INT(put("v", 'y'), CFN_FULL);
    if (lag) { /* the first was emptied (R5), and freed (R7), and head was not moved (R6) */
      uint64_t word = cfn_load_seq(slot_of("v", 0));
      cfn_chunk_shm_t *c = cfn_chunk(r, cfn_slot_ref(word) - 1);
      cfn_store_seq(slot_of("v", 0), cfn_slot_word(1, 0));
      uint32_t d = corpse("dead", NULL);
      cfn_store_seq(&cfn_attachment(r, d)->reg[CFN_REG_DONE], cfn_slot_ref(word));
      if (lag == 2) cfn_store_seq(&c->own, cfn_own_next(cfn_load_seq(&c->own), CFN_FREE, 0));
      CHECK_INT(cfn_bus_reap(a), 1);
      CHECK_INT(cfn_own_state(cfn_load_seq(&c->own)), CFN_FREE);
      CHECK_INT(put("v", 'y'), 0);
    }
    cfn_bus_t *next = t_attach("v");
    get(next, lag ? "y" : "");
    full_laps(next, "v");
    t_close(next);
    end();
  }
}

/* ---- mailboxes ---- */

static void half_created(void) {
  static const unsigned states[] = {CFN_MID_MINE, CFN_MID_PEND, CFN_MID_PEND, CFN_MID_FAIL, CFN_MID_PEND};
  for (unsigned v = 0; v < 5; v++) {
    t_case("a mailbox half created by the dead, variant %u", v);
    start();
    uint32_t d = corpse("dead", NULL), i = 5, s = 0;
    cfn_store_seq(&cfn_mailbox(r, i)->mid, cfn_mid_word(7, states[v], d));
    cfn_record_name_store(r, i, v == 4 ? "b" : "half", v == 4 ? 1 : 4);
    cfn_store_seq(&cfn_attachment(r, d)->reg[CFN_REG_CREATE], i + 1);
    bool intended = v == 2 || v == 4;
    if (intended) cfn_store_seq(&cfn_state(r)->intent, cfn_intent_word(1000, 0, i + 1));
    cfn_address_t x;
    if (intended) { /* a living process need not wait for the reaper */
      int created;
      CHECK_INT(cfn_bus_register(a, "other", NULL, &x, &created), 0);
      CHECK_INT(created, 1);
    }
    CHECK_INT(cfn_bus_reap(a), 1);
    CHECK_INT(cfn_bus_find(a, "half", &x), v == 2 ? 0 : CFN_UNKNOWN_AGENT);
    CHECK_INT(cfn_mid_state(cfn_load_seq(&cfn_mailbox(r, i)->mid)), v == 2 ? CFN_MID_OPEN : CFN_MID_FREE);
    CHECK(find("b").index != i);
    if (v == 2) CHECK_INT(x.index, i);
    (void)s;
    end();
  }
}
static void half_removed(void) {
  for (int v = 0; v < 3; v++) {
    t_case("REMOVING, the remover died half way, variant %d", v);
    start();
    cfn_address_t x, y;
    int created;
    CHECK_INT(cfn_bus_register(a, "v", NULL, &x, &created), 0);
    for (int i = 0; i < 8; i++) CHECK_INT(put("v", 'x'), 0);
    cfn_mailbox_shm_t *m = cfn_mailbox(r, x.index);
    cfn_a64 *slots = cfn_lane_slots(r, x.index, CFN_LANE_NORMAL);
    uint32_t d = corpse("dead", NULL);
    cfn_store_seq(&m->consumer, cfn_consumer_word(3, d + 1));
    cfn_store_seq(&cfn_attachment(r, d)->holds[3], x.index + 1);
    CHECK_INT(cfn_directory_remove(r, x.index, x.mid), 0);
    uint64_t removing = cfn_load_seq(&m->mid);
    CHECK_INT(cfn_mid_state(removing), CFN_MID_REMOVING);
    if (v) cfn_store_seq(&m->rlap, cfn_rlap_word(cfn_mid_ver(removing) & CFN_REF_MASK, 3));
    for (int i = 0; v && i < 4; i++) {
      uint32_t k = cfn_slot_ref(cfn_load_seq(&slots[i])) - 1;
      uint64_t own = cfn_load_seq(&cfn_chunk(r, k)->own);
      bool last = i == 3; /* taken, the slot emptied in variant 2; announced */
      cfn_store_seq(&cfn_chunk(r, k)->own, last ? cfn_own_next(own, CFN_TAKEN, d) : cfn_own_next(own, CFN_FREE, 0));
      if (!last || v == 2) cfn_store_seq(&slots[i], cfn_slot_word(3, 0));
      if (last) cfn_store_seq(&cfn_attachment(r, d)->reg[CFN_REG_DRAIN], k + 1);
    }
    CHECK_INT(cfn_bus_find(a, "v", &y), CFN_UNKNOWN_AGENT);
    CHECK_INT(cfn_bus_send_one(a, x.index, x.mid, CFN_LANE_NORMAL, 0, "x", 1, NULL, 0, 0, 0, NULL), CFN_STALE);
    CHECK_INT(cfn_bus_reap(a), 1);
    CHECK_INT(cfn_mid_state(cfn_load_seq(&m->mid)), CFN_MID_FREE);
    t_check_nothing_held(a);
    cfn_store_seq(&cfn_state(r)->mailbox_hint, x.index);
    cfn_bus_t *next = t_attach("again");
    CHECK_INT(find("again").index, x.index);
    full_laps(next, "again");
    t_close(next);
    end();
  }
}
static void owner_died(void) {
  t_case("the owner died: who waits for it is told");
  start();
  corpse("v", NULL);
  cfn_receipt_t receipt;
  CHECK_INT(t_send(a, "v", CFN_LANE_NORMAL, "x", 1, 0, &receipt), 0);
  cfn_address_t v = find("v");
  int e;
  while ((e = cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_ACKED, CFN_FOREVER)) == CFN_INTERRUPTED) {
  }
  CHECK_INT(e, CFN_AGENT_DEAD);
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
  uint64_t correlation;
  char out[512];
  int64_t n;
  CHECK_INT(cfn_bus_request(a, &v, CFN_LANE_NORMAL, &m, 0, &correlation), 0);
  while ((n = cfn_bus_request_wait(a, &v, correlation, CFN_FOREVER, out, sizeof out)) == CFN_INTERRUPTED) {
  }
  CHECK_INT(n, CFN_AGENT_DEAD);
  cfn_bus_request_end(a, correlation);
  while (put("v", 'z') == 0) {
  }
  CHECK_INT(t_send(a, "v", CFN_LANE_NORMAL, "z", 1, 60, NULL), CFN_AGENT_DEAD);
  cfn_bus_t *next = t_attach("v"); /* a successor: nothing was lost */
  for (int i = 0; i < 8; i++) {
    CHECK(t_recv(next, 0, &w, body) == 1);
    CHECK_INT(t_ack(next, w.token), 0);
  }
  CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_RECEIPT_ACKED);
  full_laps(next, "v");
  CHECK(cfn_bus_reap(a) >= 0);
  t_close(next);
  end();
}

/* ---- attachments ---- */

static void joining(void) {
  t_case("JOINING, dead");
  start();
  uint32_t d = corpse("dead", NULL);
  uint64_t id = cfn_load_seq(&cfn_attachment(r, d)->id);
  cfn_store_seq(&cfn_attachment(r, d)->id, cfn_id_word(cfn_id_inc(id), CFN_ID_JOINING));
  CHECK_INT(cfn_bus_reap(a), 1);
  CHECK_INT(cfn_load_seq(&cfn_attachment(r, d)->id), cfn_id_word(cfn_id_inc(id), CFN_ID_VACANT));
  CHECK_INT(cfn_bus_reap(a), 0);
  end();
}
static uint64_t dead_correlation;
static void ask_b(cfn_bus_t *bus) {
  cfn_address_t to;
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
  CHECK_INT(cfn_bus_find(bus, "b", &to), 0);
  for (int i = 0; i < 3; i++) CHECK_INT(cfn_bus_request(bus, &to, CFN_LANE_NORMAL, &m, 0, &dead_correlation), 0);
}
static void dead_asker(void) {
  t_case("the asker died: replies in its ring, and one too late");
  start();
  uint32_t d = corpse("asker", ask_b);
  cfn_outgoing_t answer = {.body = "!", .body_bytes = 1};
  for (int i = 0; i < 3; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    CHECK_INT(w.source_att, d);
    answer.correlation = w.correlation;
    if (i == 2) CHECK_INT(cfn_bus_reap(a), 1);
    CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &answer, 0), i == 2 ? CFN_STALE : 0);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  t_check_nothing_held(a);
  /* the slot's next life: a whole lap of replies, none of them old */
  cfn_store_seq(&cfn_state(r)->attach_hint, d);
  cfn_bus_t *next = t_attach("next");
  CHECK_INT(cfn_bus_attachment(next), d);
  cfn_address_t to = find("b");
  for (unsigned i = 0; i < 2 * CFN_REPLY_SLOTS; i++) {
    cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
    uint64_t correlation;
    char out[512];
    CHECK_INT(cfn_bus_request(next, &to, CFN_LANE_NORMAL, &m, 0, &correlation), 0);
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    answer.correlation = w.correlation;
    CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &answer, 0), 0);
    CHECK_INT(t_ack(b, w.token), 0);
    CHECK(cfn_bus_request_wait(next, &to, correlation, 0, out, sizeof out) > 0);
    cfn_bus_request_end(next, correlation);
  }
  CHECK_INT(cfn_load_seq(&cfn_attachment(r, d)->counter[CFN_COUNT_REPLIES_LATE]), 0);
  t_close(next);
  end();
}

/* ---- hints and events ---- */

static void lost_hints(void) {
  t_case("lost hints are found by the thorough scan");
  start();
  for (uint32_t i = 0; i < r->geo.hint_words; i++) cfn_store_seq(&cfn_hints(r)[i], 0);
  full_laps(b, "b");
  t_case("hints that lie: all bits set though chunks are in use");
  for (int i = 0; i < 8; i++) CHECK_INT(put("b", 'x'), 0);
  for (uint32_t i = 0; i < r->geo.hint_words; i++) cfn_store_seq(&cfn_hints(r)[i], UINT64_MAX);
  for (int i = 0; i < 8; i++) CHECK_INT(put("a", 'x'), 0);
  get(a, "xxxxxxxx");
  get(b, "xxxxxxxx");
  end();
}
static void event_left_waking(void) {
  static const uint32_t marks[] = {CFN_EVENT_WAKING, CFN_EVENT_WAIT, CFN_EVENT_WAKING | CFN_EVENT_WAIT,
                                   CFN_EVENT_FIFO_RINGING, CFN_EVENT_FIFO, CFN_EVENT_ANY};
  for (unsigned i = 0; i < sizeof marks / sizeof marks[0]; i++) {
    t_case("an event left with marks %u", marks[i]);
    start();
    cfn_event_shm_t *e = &box("b")->bell.event;
    uint32_t before = (CFN_EVENT_ONE * 9) | marks[i];
    cfn_store_seq(&e->word, before);
    CHECK_INT(put("b", 'x'), 0);
    uint32_t now = cfn_load_seq(&e->word);
    CHECK_INT(now & CFN_EVENT_ANY, 0);
    CHECK((now & ~CFN_EVENT_ANY) != (before & ~CFN_EVENT_ANY)); /* a new value, for the stopped sleeper */
    get(b, "x");
    end();
  }
}

/* What only a stray write can leave: repaired where it is proven to be nobody's, left alone otherwise. */
static void repaired(void) {
  t_case("repair of what is nobody's");
  start();
  CHECK_INT(put("b", 'x'), 0);
  cfn_repair_t done;
  CHECK_INT(cfn_bus_repair(a, &done), 0); /* nothing to do in a living bus */
  CHECK_INT(done.reaped + done.chunks_freed + done.hints_mended + done.unproven, 0);
  uint32_t vacant = r->geo.config.attachments - 1, lost[4];
  for (uint32_t k = 0, n = 0; n < 4; k++)
    if (cfn_own_state(cfn_load_seq(&cfn_chunk(r, k)->own)) == CFN_FREE) lost[n++] = k;
  cfn_store_seq(&cfn_chunk(r, lost[0])->own, cfn_own_word(50, CFN_MINE, vacant));
  cfn_store_seq(&cfn_chunk(r, lost[1])->own, cfn_own_word(60, CFN_DONE, cfn_bus_attachment(b)));
  cfn_store_seq(&cfn_chunk(r, lost[2])->own, cfn_own_word(70, CFN_TAKEN, cfn_bus_attachment(b))); /* who lives */
  cfn_store_seq(&cfn_chunk(r, lost[3])->own, cfn_own_word(80, 7, 3)); /* makes no sense */
  for (uint32_t i = r->geo.class_hint[1]; i < r->geo.class_hint[2]; i++) cfn_store_seq(&cfn_hints(r)[i], 0);
  CHECK_INT(cfn_region_check(r, NULL, NULL), 4);
  CHECK_INT(cfn_bus_repair(a, &done), 0);
  CHECK_INT(done.reaped, 0);
  CHECK_INT(done.chunks_freed, 2);
  CHECK_INT(done.unproven, 2);
  CHECK_INT(done.hints_mended, r->geo.config.class_chunks[1]); /* not those of class 0, which a sender has in hand */
  CHECK_INT(cfn_region_check(r, NULL, NULL), 2);
  for (int i = 2; i < 4; i++) cfn_store_seq(&cfn_chunk(r, lost[i])->own, cfn_own_word(90, CFN_FREE, 0));
  CHECK_INT(cfn_bus_repair(a, &done), 0);
  CHECK_INT(done.hints_mended + done.unproven + done.chunks_freed, 0);
  t_check_region(a, true);
  get(b, "x");

  t_case("a chunk in a ring or announced is somebody's, whatever its word says");
  CHECK_INT(put("b", 'y'), 0);
  uint32_t k = cfn_slot_ref(cfn_load_seq(&cfn_lane_slots(r, (uint32_t)(box("b") - cfn_mailbox(r, 0)), CFN_LANE_NORMAL)[1]));
  CHECK(k > 0);
  uint64_t own = cfn_load_seq(&cfn_chunk(r, k - 1)->own);
  cfn_store_seq(&cfn_chunk(r, k - 1)->own, cfn_own_word(cfn_own_ver(own), CFN_MINE, vacant)); /* its sender left */
  cfn_store_seq(&cfn_chunk(r, lost[0])->own, cfn_own_word(95, CFN_MINE, vacant));
  cfn_store_seq(&cfn_attachment(r, cfn_bus_attachment(b))->reg[CFN_REG_DRAIN], lost[0] + 1);
  CHECK_INT(cfn_bus_repair(a, &done), 0);
  CHECK_INT(done.chunks_freed, 0);
  cfn_store_seq(&cfn_attachment(r, cfn_bus_attachment(b))->reg[CFN_REG_DRAIN], 0);
  CHECK_INT(cfn_bus_repair(a, &done), 0);
  CHECK_INT(done.chunks_freed, 1);
  get(b, "y");
  end();
}

int main(void) {
  t_guard(300);
  register_names_free();
  mine_unpublished();
  committed_tail_lags();
  taken_referenced();
  full_of_done();
  half_created();
  half_removed();
  owner_died();
  joining();
  dead_asker();
  lost_hints();
  event_left_waking();
  repaired();
  t_passed("test_states");
  return 0;
}
