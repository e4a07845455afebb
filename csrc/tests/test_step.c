/* Death and sleep at every instruction. A victim process with an attachment of its own is moved on by
 * single steps (ptrace) to instruction n of one operation, and there
 *
 *   kill    it is killed. Everybody else must be able to go on at once, before any reaping; after it
 *           the exact ledger: the victim's message is there once or not at all, never torn; what was
 *           acked is never seen again; all else once, in order; no chunk is held
 *   stop    it sleeps, while at least three laps of other traffic pass and every chunk is used again;
 *           then it goes on and ends well
 *   steal   it sleeps, while what it works on is taken away: its inbox by an operator, its receiver's
 *           record by another agent, its asker's slot by another process; then it goes on
 *
 * Which instructions, and the command line: step_sweep.h.
 */
#include "tests/step_sweep.h"
#include "tests/step_victims.h"

enum { KILL, STOP, STEAL, MODES };
static const char *const mode_names[MODES + 1] = {"kill", "stop", "steal", NULL};

static cfn_bus_t *rx, *tx; /* the parent's handles: a reader and a sender */
static victim_t victim;
static victim_report_t *rep;

/* ---- the stage ---- */

typedef struct operation {
  const char *name;
  cfn_bus_t *(*prepare)(victim_report_t *);
  int64_t (*run)(cfn_bus_t *, victim_report_t *);
  bool reads, wakes, replies, removes, framed, leaves;
  int messages; /* that a sending victim sends */
} operation_t;
static const operation_t operations[] = {
    {.name = "send", .prepare = as_victim, .run = do_send, .messages = 1},
    {.name = "send-wake", .prepare = as_victim, .run = do_send, .messages = 1, .wakes = true},
    {.name = "frame", .prepare = as_victim, .run = do_frame, .messages = 5},
    {.name = "reply", .prepare = as_answerer, .run = do_reply, .messages = 1, .replies = true},
    {.name = "close", .prepare = as_asker, .run = do_close, .leaves = true},
    {.name = "recv", .prepare = as_reader_of_1, .run = take_one, .reads = true},
    {.name = "recv-ack", .prepare = as_reader_of_1, .run = do_recv_ack, .reads = true},
    {.name = "ack-disorder", .prepare = as_reader_of_3, .run = do_ack_disorder, .reads = true},
    {.name = "ack-frame", .prepare = as_reader_of_4, .run = do_ack_frame, .reads = true, .framed = true},
    {.name = "remove", .prepare = as_reader_of_1, .run = do_remove, .reads = true, .removes = true},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])

static int next_id, sent_ok[IDS], got[IDS], marked[IDS], last_got;
static cfn_address_t v_address, asked_address;
static uint64_t correlation;
static uint32_t armed;
static int was_getting; /* when it was killed or stopped */

static cfn_event_shm_t *rx_bell(void) {
  cfn_address_t a;
  CHECK_INT(cfn_bus_find(tx, "rx", &a), 0);
  return &cfn_mailbox(cfn_bus_region(tx), a.index)->bell.event;
}
/* The sender's next message; what was sent must come out exactly once, in this order. */
static int send_next(const char *to) {
  CHECK(next_id < 100);
  int e = send_id(tx, to, (uint32_t)next_id);
  if (e == 0) sent_ok[next_id++] = 1;
  return e;
}
static void note(int id, bool redelivered) {
  if (id < 100) {
    CHECK(id > last_got); /* FIFO */
    last_got = id;
  }
  got[id]++;
  CHECK_INT(got[id], 1);
  marked[id] = redelivered;
}
static void drain(cfn_bus_t *bus) {
  bool redelivered;
  int id;
  while ((id = recv_id(bus, true, &redelivered, NULL)) > 0) note(id, redelivered);
  CHECK_INT(id, CFN_EMPTY);
}

static void stage_set(const operation_t *o) {
  rx = t_open("rx", NULL);
  tx = t_attach("tx");
  next_id = 1;
  last_got = 0;
  memset(sent_ok, 0, sizeof sent_ok);
  memset(got, 0, sizeof got);
  memset(marked, 0, sizeof marked);
  CHECK_INT(cfn_bus_claim_inbox(rx, 0), 0);
  int created;
  if (o->reads) {
    CHECK_INT(cfn_bus_register(tx, "v", NULL, &v_address, &created), 0);
    for (int i = 0; i < (o->framed ? 1 : 4); i++) CHECK_INT(send_next("v"), 0);
    if (o->framed) {
      cfn_outgoing_t m[3];
      for (; next_id <= 4; next_id++) {
        m[next_id - 2] = (cfn_outgoing_t){.body = bodies[next_id], .body_bytes = 64};
        sent_ok[next_id] = 1;
      }
      CHECK_INT(cfn_bus_send(tx, &v_address, CFN_LANE_NORMAL, m, 3, 0, NULL), 0);
    }
  } else {
    for (int i = 0; i < 2 && !o->leaves; i++) CHECK_INT(send_next("rx"), 0);
  }
  if (o->replies) {
    cfn_outgoing_t m = {.body = bodies[50], .body_bytes = BODY_BYTES};
    CHECK_INT(cfn_bus_register(tx, "victim", NULL, &asked_address, &created), 0);
    CHECK_INT(cfn_bus_request(tx, &asked_address, CFN_LANE_NORMAL, &m, 0, &correlation), 0);
  }
  if (o->wakes) armed = cfn_event_arm(rx_bell());
  victim_start(&victim, o->prepare, o->run);
  for (int i = 0; i < 2 && o->leaves; i++) {
    cfn_wire_t w;
    char b[4096];
    CHECK_INT(t_recv(rx, 0, &w, b), BODY_BYTES);
    cfn_outgoing_t m = {.body = "!", .body_bytes = 1, .correlation = w.correlation};
    CHECK_INT(cfn_bus_reply(rx, w.source_att, w.source_inc, &m, 0), 0);
    CHECK_INT(t_ack(rx, w.token), 0);
  }
}

/* Room for a full lap and not one more: no slot was lost. Then all is at rest. */
static void stage_strike(const char *reader_name, cfn_bus_t *reader) {
  for (int lap = 0; lap < 2; lap++) {
    for (uint32_t i = 0; i < 8; i++) CHECK_INT(send_id(tx, reader_name, 200 + i), 0);
    CHECK_INT(send_id(tx, reader_name, 210), CFN_FULL);
    for (int i = 0; i < 8; i++) CHECK_INT(recv_id(reader, true, NULL, NULL), 200 + i);
    CHECK_INT(recv_id(reader, true, NULL, NULL), CFN_EMPTY);
  }
  t_check_region(tx, true);
  t_check_nothing_held(tx);
  CHECK_INT(cfn_load_seq(&cfn_state(cfn_bus_region(tx))->corrupt_dropped), 0);
  t_close(tx);
  t_close(rx);
  t_destroy();
}

/* Traffic beside the victim: every chunk of the class is used again at least three times. */
static void churn(const char *to, cfn_bus_t *reader, int rounds) {
  for (int i = 0; i < rounds; i++) {
    CHECK_INT(send_id(tx, to, 220), 0);
    int id;
    while ((id = recv_id(reader, true, NULL, NULL)) != 220) {
      CHECK(id > 0); /* 220 must be there; what comes before it is somebody else's */
      note(id, false);
    }
  }
}

/* ---- victims that send ---- */

/* The answer, if it came: 1 or 0. */
static int answers(void) {
  char out[1024];
  int64_t n = cfn_bus_request_wait(tx, &asked_address, correlation, 0, out, sizeof out);
  if (n < 0) {
    CHECK(n == CFN_TIMEOUT || n == CFN_AGENT_DEAD);
    return 0;
  }
  CHECK_INT(body_id(out + n - BODY_BYTES, BODY_BYTES), 100);
  return 1;
}

static void check_sender(const operation_t *o, int mode) {
  drain(rx);
  int n = 0;
  if (o->replies) {
    cfn_region_t *r = cfn_bus_region(tx);
    n = mode == STEAL ? 0 : answers();
    cfn_bus_request_end(tx, correlation);
    CHECK_INT(cfn_load_seq(&cfn_attachment(r, cfn_bus_attachment(tx))->counter[CFN_COUNT_REPLIES_LATE]), 0);
    /* the request was never acked: it is the successor's */
    cfn_bus_t *successor = t_attach("victim");
    bool redelivered;
    CHECK_INT(recv_id(successor, true, &redelivered, NULL), 50);
    CHECK(redelivered);
    CHECK_INT(recv_id(successor, true, NULL, NULL), CFN_EMPTY);
    t_close(successor);
  } else {
    for (int i = 0; i < o->messages; i++) n += got[100 + i];
  }
  CHECK(n == 0 || n == o->messages);
  if (mode != STEAL && rep->done) {
    CHECK_INT(rep->result, 0);
    CHECK_INT(n, o->messages);
  }
  for (int i = 1; i < next_id && mode != STEAL; i++) CHECK_INT(got[i], 1);
}

static void sender_killed(const operation_t *o) {
  victim_kill(&victim);
  for (int i = 0; i < 3; i++) CHECK_INT(send_next("rx"), 0);
  if (o->wakes) { /* whoever slept was woken: by the victim or in its stead */
    uint32_t now = cfn_load_seq(&rx_bell()->word);
    CHECK_INT(now & CFN_EVENT_ANY, 0);
    CHECK(now != armed);
  }
  note(recv_id(rx, true, NULL, NULL), false);
  int reaped = cfn_bus_reap(rx);
  CHECK(reaped == 1 || (o->leaves && reaped == 0)); /* it had left already */
  check_sender(o, KILL);
}
static void sender_stopped(const operation_t *o) {
  for (int i = 0; i < 3; i++) CHECK_INT(send_next("rx"), 0);
  drain(rx);
  churn("rx", rx, 100);
  victim_leave(&victim);
  check_sender(o, STOP);
}
/* The record or slot that the sleeping victim sends to becomes another's. */
static void sender_robbed(const operation_t *o) {
  uint64_t dropped;
  if (o->leaves) { /* a helper, and somebody who wants the slot */
    CHECK(cfn_bus_reap(tx) >= 0);
    next_attach_at(tx, (uint32_t)rep->attachment);
    t_close(t_attach("other"));
    churn("rx", rx, 100);
    victim_leave(&victim);
    return;
  }
  if (o->replies) {
    uint32_t slot = cfn_bus_attachment(tx);
    t_close(tx);
    next_attach_at(rx, slot);
    tx = t_attach("tx");
    CHECK_INT(cfn_bus_attachment(tx), slot);
    churn("rx", rx, 1); /* empties what was there */
  } else {
    cfn_address_t a, b;
    CHECK_INT(cfn_bus_find(tx, "rx", &a), 0);
    CHECK_INT(cfn_bus_unregister(rx, "rx", 0, &dropped), 0);
    next_record_at(tx, a.index);
    uint64_t inc;
    int owner;
    CHECK_INT(cfn_bus_act_as(rx, "other", NULL, CFN_ACT_OWN, &inc, &owner), 0);
    CHECK_INT(cfn_bus_find(tx, "other", &b), 0);
    CHECK_INT(b.index, a.index);
  }
  churn(o->replies ? "rx" : "other", rx, 100);
  victim_leave(&victim);
  if (o->replies) {
    CHECK(rep->result == 0 || rep->result == CFN_STALE);
    check_sender(o, STEAL);
  } else {
    CHECK(rep->result == 0 || rep->result == CFN_STALE || rep->result == CFN_UNKNOWN_AGENT);
    CHECK_INT(recv_id(rx, true, NULL, NULL), CFN_EMPTY); /* nothing of the old name's */
  }
}

/* ---- victims that read ---- */

/* How often a successor must get message `id`. */
static void check_reader(bool killed, bool framed) {
  for (int id = 1; id < next_id; id++) {
    if (!sent_ok[id]) continue;
    if (rep->acked[id] && framed && !killed) CHECK(got[id] == 0 || marked[id]); /* see reader_robbed */
    else if (rep->acked[id]) CHECK_INT(got[id], 0);
    else if (killed && rep->acking == id) CHECK(got[id] <= 1);
    else CHECK_INT(got[id], 1);
    if (got[id] && rep->seen[id]) CHECK(marked[id]);
    if (got[id] && marked[id] && !rep->seen[id]) CHECK(was_getting); /* `seen` is told first */
  }
}
/* A removal drops what is unread as a whole; what was sent to the name after it is another agent's. */
static void check_removed(int mode, uint64_t mid) {
  CHECK(mode != STOP || mid != v_address.mid);
  for (int id = 1; id < next_id; id++) {
    if (mid == v_address.mid) CHECK_INT(got[id], 1);
    else if (id <= 4 && mode != STEAL) CHECK_INT(got[id], 0);
    if (got[id] && rep->seen[id]) CHECK(marked[id]);
  }
}
static void send_to_v(const operation_t *o, int n) {
  for (int i = 0; i < n; i++) {
    int e = send_next("v");
    CHECK(e == 0 || (o->removes && (e == CFN_UNKNOWN_AGENT || e == CFN_STALE)));
  }
}
static void reader_killed(const operation_t *o) {
  victim_kill(&victim);
  send_to_v(o, 2);
  CHECK_INT(send_id(tx, "rx", 230), 0);
  CHECK_INT(recv_id(rx, true, NULL, NULL), 230);
  cfn_address_t a;
  int created;
  CHECK_INT(cfn_bus_register(tx, "new", NULL, &a, &created), 0); /* no name waits for the dead */
  CHECK_INT(cfn_bus_reap(rx), 1);
}
static void reader_stopped(const operation_t *o) {
  int e;
  while ((e = send_next("v")) == 0) {
  }
  CHECK(e == CFN_FULL || (o->removes && (e == CFN_UNKNOWN_AGENT || e == CFN_STALE)));
  cfn_address_t a;
  int created;
  next_record_at(tx, v_address.index); /* if it is free by now, it becomes another's */
  CHECK_INT(cfn_bus_register(tx, "new", NULL, &a, &created), 0);
  CHECK_INT(send_id(tx, "new", 231), 0);
  churn("rx", rx, 100);
  victim_leave(&victim);
  CHECK(rep->result >= 0);
  cfn_bus_t *n = t_attach("new");
  CHECK_INT(recv_id(n, true, NULL, NULL), 231);
  t_close(n);
}
static int ack_as_thief(const operation_t *o, cfn_bus_t *thief, uint64_t token) {
  int e = t_ack(thief, token);
  return o->framed && e == CFN_INVALID ? CFN_OK : e;
}
/* An operator takes the inbox and reads it: all of it before the victim wakes up, or (`early`) only
 * the first messages, so that thief and victim work on the same frame. */
static void reader_robbed(const operation_t *o, bool early) {
  cfn_bus_t *thief = t_attach("v"); /* registers it anew if it is gone */
  int e = cfn_bus_claim_inbox(thief, 1);
  CHECK(e == 0 || (o->removes && e == CFN_UNKNOWN_AGENT));
  send_to_v(o, 2);
  bool redelivered;
  int id;
  uint64_t first[2];
  int taken = 0;
  while (early && taken < 2 && (id = recv_id(thief, false, &redelivered, &first[taken])) > 0) {
    note(id, redelivered);
    taken++;
  }
  if (early) victim_finish(&victim);
  /* Of a frame: the victim's ack may come between its check and its bit; twice then, and marked. */
  for (int i = 0; i < taken; i++) CHECK_INT(ack_as_thief(o, thief, first[i]), 0);
  uint64_t token;
  while ((id = recv_id(thief, false, &redelivered, &token)) > 0) {
    note(id, redelivered);
    CHECK_INT(ack_as_thief(o, thief, token), 0);
  }
  CHECK(id == CFN_EMPTY || (o->removes && id == CFN_UNKNOWN_AGENT));
  if (id == CFN_EMPTY) churn("v", thief, 100);
  victim_finish(&victim);
  CHECK(rep->result >= 0 || rep->result == CFN_AGENT_FENCED || rep->result == CFN_AGENT_BUSY ||
        rep->result == CFN_INVALID || rep->result == CFN_EMPTY || (o->removes && rep->result == CFN_UNKNOWN_AGENT));
  victim_leave(&victim);
  while ((id = recv_id(thief, true, &redelivered, NULL)) > 0) note(id, redelivered);
  CHECK(id == CFN_EMPTY || (o->removes && id == CFN_UNKNOWN_AGENT));
  t_close(thief);
}

/* ---- one point, a sweep ---- */

/* Returns whether the operation was over before instruction n. */
static bool point(const operation_t *o, int mode, long n) {
  t_case("--op %s --mode %s --from %ld --to %ld", o->name, mode_names[mode], n, n);
  stage_set(o);
  bool over = !victim_go_to(&victim, n);
  was_getting = rep->getting;
  if (!o->reads) {
    (mode == KILL ? sender_killed : mode == STOP ? sender_stopped : sender_robbed)(o);
    stage_strike(mode == STEAL && !o->replies && !o->leaves ? "other" : "rx", rx);
    return over;
  }
  if (mode == STEAL) reader_robbed(o, n % 2);
  else (mode == KILL ? reader_killed : reader_stopped)(o);
  CHECK(cfn_bus_reap(rx) >= 0);
  uint64_t mid = cfn_load_seq(&cfn_mailbox(cfn_bus_region(tx), v_address.index)->mid);
  cfn_bus_t *successor = t_attach("v");
  drain(successor);
  if (o->removes) check_removed(mode, mid);
  else check_reader(mode != STEAL, o->framed);
  stage_strike("v", successor); /* leaves the successor attached to a bus that is gone: close it */
  t_close(successor);
  return over;
}

static const char *name_of(int o) { return operations[o].name; }
static void set_out(int o) { stage_set(&operations[o]); }
static bool strike_at(int o, int mode, long n) { return point(&operations[o], mode, n); }
static void clear_away(int o) {
  (void)o;
  t_close(rx);
  t_close(tx);
  t_destroy();
}

int main(int argc, char **argv) {
  victim.report = rep = report_new();
  bodies_make();
  static const step_stage_t stage = {"test_step", mode_names, OPERATIONS, name_of, set_out, strike_at, clear_away, &victim};
  return step_main(argc, argv, &stage);
}
