/* Two at once: A sleeps at instruction i of its operation, B dies at instruction j of its own, others
 * go on, A wakes up and ends; all pairs of send, recv, steal, remove and reap (of an earlier corpse).
 * Sampled at random; the seed is printed. And the sleeping reaper: it sleeps at each instruction of a
 * reaping while another finishes the work and the dead one's slot gets a new process, which is in
 * the middle of a send when the reaper wakes up.
 *
 *   test_step_pairs [--seconds S] [--seed N] [--reaper-from N --reaper-to M --replies 0|1]
 */
#include "base/os.h"
#include "tests/step_way.h"

static cfn_bus_t *rx, *tx;
static victim_t corpse, va, vb;
static cfn_address_t v_address;
static int sent_ok[IDS], got[IDS];
static uint32_t v_next;

/* ---- actors ---- */

static uint32_t my_id; /* what this actor sends; set before its fork */
static cfn_address_t target;
static cfn_bus_t *plain(victim_report_t *r) {
  (void)r;
  char name[16];
  snprintf(name, sizeof name, "actor%u", my_id);
  cfn_bus_t *bus = t_attach(name);
  CHECK_INT(cfn_bus_find(bus, "v", &target), 0);
  return bus;
}
static int64_t do_send(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_outgoing_t m = {.body = bodies[my_id], .body_bytes = BODY_BYTES};
  return cfn_bus_send(bus, &target, CFN_LANE_NORMAL, &m, 1, 0, NULL);
}
static int64_t take_and_ack(cfn_bus_t *bus, victim_report_t *r) {
  for (int i = 0; i < 2; i++) {
    uint64_t token;
    int id = recv_id(bus, false, NULL, &token);
    if (id < 0) return id;
    r->seen[id]++;
    r->acking = id;
    int e = t_ack(bus, token);
    if (e == 0) r->acked[id] = 1;
    r->acking = 0;
    if (e < 0) return e;
  }
  return 0;
}
static cfn_bus_t *reader(victim_report_t *r) {
  (void)r;
  cfn_bus_t *bus = t_attach("v");
  CHECK_INT(cfn_bus_claim_inbox(bus, 0), 0);
  return bus;
}
static cfn_bus_t *reader_beside(victim_report_t *r) {
  (void)r;
  return t_attach("v");
}
static int64_t do_steal(cfn_bus_t *bus, victim_report_t *r) {
  int e = cfn_bus_claim_inbox(bus, 1);
  return e < 0 ? e : take_and_ack(bus, r);
}
static int64_t do_remove(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  uint64_t dropped;
  return cfn_bus_unregister(bus, "v", CFN_FORCE, &dropped);
}
static int64_t do_reap(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return cfn_bus_reap(bus);
}

typedef struct actor {
  const char *name;
  cfn_bus_t *(*prepare)(victim_report_t *);
  int64_t (*run)(cfn_bus_t *, victim_report_t *);
  bool sends, removes, reaps;
  step_way_t way;
} actor_t;
enum { SEND, RECV, STEAL, REMOVE, REAP, ACTORS };
static actor_t actors[ACTORS] = {
    {.name = "send", .prepare = plain, .run = do_send, .sends = true},
    {.name = "recv", .prepare = reader, .run = take_and_ack},
    {.name = "steal", .prepare = reader_beside, .run = do_steal},
    {.name = "remove", .prepare = plain, .run = do_remove, .removes = true},
    {.name = "reap", .prepare = plain, .run = do_reap, .reaps = true},
};

static uint64_t seed;
static long below(long n) {
  seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return n > 0 ? (long)((seed >> 33) % (uint64_t)n) : 0;
}
static void act(victim_t *v, const actor_t *who, uint32_t id) {
  my_id = id;
  victim_start(v, who->prepare, who->run);
}
static void stage_set(void) {
  rx = t_open("rx", NULL);
  tx = t_attach("tx");
  memset(sent_ok, 0, sizeof sent_ok);
  memset(got, 0, sizeof got);
  int created;
  CHECK_INT(cfn_bus_register(tx, "v", NULL, &v_address, &created), 0);
  for (v_next = 1; v_next <= 3; v_next++) CHECK_INT(send_id(tx, "v", v_next), 0);
}
static void stage_strike(void) {
  cfn_bus_t *v = t_attach("v");
  for (int lap = 0; lap < 2; lap++) {
    for (uint32_t i = 0; i < 8; i++) CHECK_INT(send_id(tx, "v", 200 + i), 0);
    CHECK_INT(send_id(tx, "v", 210), CFN_FULL);
    for (int i = 0; i < 8; i++) CHECK_INT(recv_id(v, true, NULL, NULL), 200 + i);
    CHECK_INT(recv_id(v, true, NULL, NULL), CFN_EMPTY);
  }
  t_close(v);
  t_check_region(tx, true);
  t_check_nothing_held(tx);
  CHECK_INT(cfn_load_seq(&cfn_state(cfn_bus_region(tx))->corrupt_dropped), 0);
  t_close(tx);
  t_close(rx);
  t_destroy();
}
/* Life goes on: through rx, and into v if it is there. */
static void others(int rounds) {
  for (int i = 0; i < rounds; i++) {
    CHECK_INT(send_id(tx, "rx", 220), 0);
    CHECK_INT(recv_id(rx, true, NULL, NULL), 220);
  }
  if (v_next < 6) {
    int e = send_id(tx, "v", v_next);
    CHECK(e == 0 || e == CFN_UNKNOWN_AGENT || e == CFN_STALE);
    if (e == 0) v_next++;
  }
}
/* The corpse: killed somewhere in a send to v. */
static void make_corpse(void) {
  act(&corpse, &actors[SEND], 102);
  corpse.way = &actors[SEND].way;
  victim_go_to(&corpse, below(actors[SEND].way.instructions + 1));
  corpse.way = NULL;
  victim_kill(&corpse);
}

static long over; /* so often B had done all before it died */
static void pair(const actor_t *a, const actor_t *b) {
  stage_set();
  bool with_corpse = a->reaps || b->reaps;
  if (with_corpse) make_corpse();
  act(&va, a, 100);
  act(&vb, b, 101);
  long i = below(a->way.instructions + 1), j = below(b->way.instructions + 1);
  t_case("%s sleeps at %ld, %s dies at %ld", a->name, i, b->name, j);
  va.way = &a->way;
  vb.way = &b->way; /* as B went when A was not there: where it goes otherwise now, it is over before it dies */
  victim_go_to(&va, i);
  if (!victim_go_to(&vb, j)) over++;
  va.way = vb.way = NULL;
  victim_kill(&vb);
  others(1);
  bool reap_first = below(2);
  if (reap_first) CHECK(cfn_bus_reap(tx) >= 0);
  others(60); /* every chunk is used again */
  victim_leave(&va);
  CHECK(cfn_bus_reap(tx) >= 0);
  CHECK_INT(cfn_bus_reap(tx), 0);
  bool removed = a->removes || b->removes;
  if (!removed) CHECK(va.report->result >= 0 || a == &actors[RECV] || a == &actors[STEAL]);

  cfn_bus_t *successor = t_attach("v");
  int id, last = 0;
  while ((id = recv_id(successor, true, NULL, NULL)) > 0) {
    if (id < 100) {
      CHECK(id > last);
      last = id;
    }
    CHECK_INT(++got[id], 1);
  }
  CHECK_INT(id, CFN_EMPTY);
  t_close(successor);
  for (uint32_t n = 1; n < v_next; n++) {
    int acked = va.report->acked[n] + vb.report->acked[n];
    CHECK(acked <= 1);
    if (acked) CHECK_INT(got[n], 0);
    else if (!removed && vb.report->acking != (int)n) CHECK_INT(got[n], 1);
  }
  for (int n = 100; n <= 102 && !removed; n++) {
    int acked = va.report->acked[n] + vb.report->acked[n], all = acked + got[n];
    CHECK(all <= 1);
    if (n == 100 && a->sends && vb.report->acking != n) CHECK_INT(all, 1); /* its send returned OK */
    if (n == 101 && b->sends && vb.report->done && va.report->acking != n) CHECK_INT(all, 1);
  }
  stage_strike();
}

/* ---- the sleeping reaper ---- */

static bool holds_unpublished(cfn_region_t *r, const victim_t *v) {
  uint32_t att = (uint32_t)v->report->attachment;
  uint64_t k = cfn_load_seq(&cfn_attachment(r, att)->reg[CFN_REG_SEND]);
  if (k == 0 || k > r->geo.chunks) return false;
  uint64_t own = cfn_load_seq(&cfn_chunk(r, (uint32_t)k - 1)->own);
  return cfn_own_state(own) == CFN_MINE && cfn_own_who(own) == att;
}
static long reaping_steps; /* until the corpse's slot is VACANT */
static long freeing_step;  /* at which its chunk was freed: the register is read shortly before */
static long emptying_step; /* at which the first reply was taken out of its ring */
/* `replies`: the corpse has answers in its ring, whose chunks the slot's next process takes first;
 * without them it takes the very chunk that the corpse's register names. */
static void sleeping_reaper(long n, bool replies) {
  t_case("--reaper-from %ld --reaper-to %ld --replies %d", n, n, replies);
  stage_set();
  cfn_region_t *r = cfn_bus_region(tx);
  act(&corpse, &actors[SEND], 102);
  cfn_attach_shm_t *slot = cfn_attachment(r, (uint32_t)corpse.report->attachment);
  for (int i = 0; i < 2 && replies; i++) {
    cfn_outgoing_t m = {.body = "!", .body_bytes = 1, .correlation = 1};
    uint64_t inc = cfn_id_inc(cfn_load_seq(&slot->id));
    CHECK_INT(cfn_bus_reply(rx, (uint32_t)corpse.report->attachment, inc, &m, 0), 0);
  }
  while (!holds_unpublished(r, &corpse)) CHECK(victim_step(&corpse, 1));
  victim_kill(&corpse);
  uint32_t d = (uint32_t)corpse.report->attachment;
  cfn_a64 *id = &cfn_attachment(r, d)->id;
  cfn_a64 *own = &cfn_chunk(r, (uint32_t)cfn_load_seq(&cfn_attachment(r, d)->reg[CFN_REG_SEND]) - 1)->own;
  uint64_t left = cfn_load_seq(own);
  /* proven dead already, by one who died after saying so: spares the steps through /proc */
  cfn_store_seq(id, cfn_id_word(cfn_id_inc(cfn_load_seq(id)), CFN_ID_REAP));
  act(&va, &actors[REAP], 100);
  if (n < 0) { /* measure */
    while (cfn_load_seq(own) == left) CHECK(victim_step(&va, 1));
    freeing_step = va.steps;
    while (replies && cfn_slot_ref(cfn_load_seq(&slot->reply_slot[0]))) CHECK(victim_step(&va, 1));
    emptying_step = va.steps;
    while (cfn_id_state(cfn_load_seq(id)) == CFN_ID_REAP) CHECK(victim_step(&va, 1));
    reaping_steps = va.steps;
  } else {
    victim_step(&va, n);
  }
  CHECK(cfn_bus_reap(tx) >= 0);
  next_attach_at(tx, d);
  act(&vb, &actors[SEND], 101);
  CHECK_INT(vb.report->attachment, d);
  while (!holds_unpublished(r, &vb)) CHECK(victim_step(&vb, 1));
  victim_leave(&va);
  victim_leave(&vb);
  CHECK_INT(vb.report->result, 0);
  cfn_bus_t *v = t_attach("v");
  for (int i = 1; i <= 3; i++) CHECK_INT(recv_id(v, true, NULL, NULL), i);
  CHECK_INT(recv_id(v, true, NULL, NULL), 101);
  CHECK_INT(recv_id(v, true, NULL, NULL), CFN_EMPTY);
  t_close(v);
  stage_strike();
}

/* Of a reaping only as far as the corpse is concerned; after it come empty slots. */
static bool corpse_gone(void) {
  const cfn_attach_shm_t *slot = cfn_attachment(cfn_bus_region(tx), (uint32_t)corpse.report->attachment);
  return cfn_id_state(cfn_load_seq(&slot->id)) == CFN_ID_VACANT;
}
static void measure(actor_t *who) {
  t_case("counting %s", who->name);
  for (int turn = 0; turn < 2; turn++) {
    stage_set();
    if (who->reaps) make_corpse();
    act(&va, who, 100);
    if (turn == 0) step_way_find(&who->way, &va, who->reaps ? corpse_gone : NULL);
    else step_way_try(&who->way, &va);
    victim_leave(&va);
    t_close(tx);
    t_close(rx);
    t_destroy();
  }
}

int main(int argc, char **argv) {
  step_setup(argv);
  double seconds = 16;
  long from = -1, to = -1;
  bool replies = false;
  seed = cfn_os_random() >> 32;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--seconds")) seconds = atof(argv[i + 1]);
    if (!strcmp(argv[i], "--seed")) seed = strtoull(argv[i + 1], NULL, 0);
    if (!strcmp(argv[i], "--reaper-from")) from = atol(argv[i + 1]);
    if (!strcmp(argv[i], "--reaper-to")) to = atol(argv[i + 1]);
    if (!strcmp(argv[i], "--replies")) replies = atoi(argv[i + 1]);
  }
  t_guard(seconds < 100 && from < 0 ? 600 : 0);
  corpse.report = report_new();
  va.report = report_new();
  vb.report = report_new();
  bodies_make();
  if (from >= 0) {
    for (long n = from; n <= to; n++) sleeping_reaper(n, replies);
    t_passed("test_step_pairs");
    return 0;
  }
  uint64_t first_seed = seed;
  printf("  seed %llu\n", (unsigned long long)first_seed);
  fflush(stdout);
  for (int i = 0; i < ACTORS; i++) measure(&actors[i]);
  double start = t_now();
  long n = 0, counts[ACTORS][ACTORS] = {{0}};
  while (t_now() - start < seconds * 0.65) {
    int a = (int)below(ACTORS), b = (int)below(ACTORS);
    if (a == REMOVE && b == REMOVE) continue;
    if (b == RECV && (a == RECV || a == STEAL)) b = STEAL; /* one reads, another may only steal */
    pair(&actors[a], &actors[b]);
    counts[a][b]++;
    n++;
  }
  printf("  %ld pairs in %.1f s, in %ld B was over before; instructions:", n, t_now() - start, over);
  for (int i = 0; i < ACTORS; i++) printf(" %s %ld", actors[i].name, actors[i].way.instructions);
  printf("\n");
  start = t_now();
  sleeping_reaper(-1, true);
  long after_replies = emptying_step;
  sleeping_reaper(-1, false);
  n = 0;
  /* densely where a word is loaded and judged, coarsely before, between and after */
  for (long at = freeing_step > 260 ? freeing_step - 260 : 0; at < freeing_step + 60; n++) {
    sleeping_reaper(at, false);
    at += 1 + below(4);
  }
  for (long at = after_replies - 80; at < after_replies + 40; n++) {
    sleeping_reaper(at, true);
    at += 1 + below(4);
  }
  for (long at = below(500); at <= reaping_steps + 20; n++) {
    sleeping_reaper(at, n % 2);
    at += 1 + below(t_now() - start > seconds * 0.4 ? 900 : 200);
  }
  printf("  sleeping reaper: %ld points of %ld instructions, %.1f s\n", n, reaping_steps, t_now() - start);
  t_passed("test_step_pairs");
  return 0;
}
