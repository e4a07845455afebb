/* Death and sleep at every instruction of what test_step.c does not cover: coming and going (create, attach,
 * take over, give back, reap, destroy), names, waits, and the verbs made of several steps (request, await,
 * broadcast, send-many, recv-many, peek, receipt).
 *
 *   kill   at instruction n: everybody else goes on at once; after a reaping nothing is held, no slot, no
 *          record and no name is lost, and what was told and received is exactly accounted for
 *   stop   at instruction n: others send three laps, use every chunk again, register and unregister, reap;
 *          then it goes on, and its operation ends as if nothing had been
 *
 *   test_step_life [--all | --seconds S] [--op NAME] [--mode kill|stop] [--from N --to M]
 */
#include "base/os.h"
#include "tests/step_sweep.h"

static cfn_bus_t *rx, *tx;
static victim_t victim, corpse;
static victim_report_t *rep;
static cfn_address_t rx_at, v_at, many[3];
static cfn_receipt_t receipt;

#define LARGE 20000u
static uint8_t large[4][LARGE];

/* ---- the operations ---- */

static cfn_bus_t *nobody(victim_report_t *r) {
  (void)r;
  return NULL;
}
static cfn_bus_t *plain(victim_report_t *r) {
  (void)r;
  return t_attach("victim");
}

static int64_t do_create(cfn_bus_t *bus, victim_report_t *r) {
  (void)bus;
  cfn_wish_t wish = t_small_wish();
  int created, e = cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &victim_opened, &created);
  if (e < 0) return e;
  r->attachment = (int)cfn_bus_attachment(victim_opened);
  return (int64_t)(cfn_bus_region(victim_opened)->super.nonce >> 1);
}
static int attach_as(const char *agent, victim_report_t *r) {
  int e = cfn_bus_open(NULL, t_bus_name(), NULL, 0, &victim_opened, NULL);
  if (e < 0) return e;
  r->attachment = (int)cfn_bus_attachment(victim_opened);
  uint64_t inc;
  int owner;
  return cfn_bus_act_as(victim_opened, agent, NULL, CFN_ACT_OWN, &inc, &owner);
}
static int64_t do_attach(cfn_bus_t *bus, victim_report_t *r) {
  (void)bus;
  return attach_as("victim", r);
}
static int64_t do_register(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_profile_t p = {{"worker", "red", "", "", "ready"}};
  cfn_address_t at;
  int created;
  return cfn_bus_register(bus, "fresh", &p, &at, &created);
}
static int64_t do_profile(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_profile_t p = {{"", "", "", "", "a status line that is longer than one word"}};
  return cfn_bus_set_profile(bus, "victim", &p);
}
static int64_t do_destroy(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return cfn_bus_destroy(bus);
}
static int64_t do_reap(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return cfn_bus_reap(bus);
}

static int64_t do_request(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  uint64_t c;
  char out[512];
  cfn_outgoing_t m = {.body = bodies[100], .body_bytes = BODY_BYTES};
  int e = cfn_bus_request(bus, &rx_at, CFN_LANE_NORMAL, &m, 0, &c);
  if (e < 0) return e;
  int64_t n = cfn_bus_request_wait(bus, &rx_at, c, 0, out, sizeof out);
  cfn_bus_request_end(bus, c);
  return n == CFN_TIMEOUT ? 0 : n;
}
static uint64_t asked;
static cfn_bus_t *as_asker(victim_report_t *r) {
  cfn_bus_t *bus = plain(r);
  cfn_outgoing_t m = {.body = bodies[100], .body_bytes = BODY_BYTES};
  CHECK_INT(cfn_bus_request(bus, &rx_at, CFN_LANE_NORMAL, &m, 0, &asked), 0);
  return bus;
}
static int64_t do_await(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  char out[512];
  int64_t n = cfn_bus_request_wait(bus, &rx_at, asked, 0, out, sizeof out);
  if (n > 0) n = (int64_t)body_id(out + n - BODY_BYTES, BODY_BYTES) - 101; /* 0 */
  cfn_bus_request_end(bus, asked);
  return n;
}
static int64_t do_broadcast(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  int result[3];
  cfn_receipt_t receipts[3];
  cfn_outgoing_t m = {.body = bodies[100], .body_bytes = BODY_BYTES};
  return cfn_bus_broadcast(bus, many, 3, CFN_LANE_NORMAL, &m, 0, result, receipts) - 3;
}
static int64_t do_send_many(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  uint32_t bytes[4] = {LARGE, LARGE, LARGE, LARGE / 2}, frames; /* two frames, of two classes */
  cfn_receipt_t receipts[4];
  int why;
  return cfn_bus_send_joined(bus, &rx_at, CFN_LANE_NORMAL, NULL, 0, large[0], bytes, NULL, 4, 0, receipts, 4, &frames,
                             &why) - 4;
}

static cfn_bus_t *as_reader(victim_report_t *r) {
  (void)r;
  cfn_bus_t *bus = t_attach("v");
  CHECK_INT(cfn_bus_claim_inbox(bus, 0), 0);
  return bus;
}
static int64_t do_recv_many(cfn_bus_t *bus, victim_report_t *r) {
  static _Alignas(8) uint8_t out[8192];
  uint32_t offsets[8];
  size_t used;
  r->getting = 1;
  int64_t n = cfn_bus_recv_many(bus, NULL, 0, CFN_ALL_LANES, 8, 0, out, sizeof out, offsets, &used);
  for (int64_t i = 0; i < n; i++) {
    const cfn_wire_t *w = (const void *)(out + offsets[i]);
    r->seen[body_id((const char *)w + w->total_bytes - BODY_BYTES, BODY_BYTES)] = 1;
  }
  r->getting = 0;
  if (n != 3) return n < 0 ? n : -99;
  r->acking = 1;
  int e = cfn_bus_ack_batch(bus, out, offsets, 3);
  if (e == 0) r->acked[1] = r->acked[2] = r->acked[3] = 1;
  r->acking = 0; /* LAST: it may be killed at any of these, too */
  return e;
}
static int64_t do_recv_parcels(cfn_bus_t *bus, victim_report_t *r) {
  static _Alignas(8) uint8_t out[8192];
  cfn_parcel_t parcel[8];
  uint32_t parcels, bytes;
  size_t used;
  r->getting = 1;
  int64_t n = cfn_bus_recv_parcels(bus, CFN_ALL_LANES, 8, 0, out, sizeof out, parcel, 8, &parcels, &used);
  for (uint32_t k = 0; n > 0 && k < parcels; k++)
    for (uint32_t i = 0; i < parcel[k].count; i++) r->seen[body_id(cfn_parcel_body(out, &parcel[k], i, &bytes), BODY_BYTES)] = 1;
  r->getting = 0;
  if (n != 3) return n < 0 ? n : -99;
  r->acking = 1;
  int e = cfn_bus_ack_parcels(bus, parcel, parcels);
  if (e == 0) r->acked[1] = r->acked[2] = r->acked[3] = 1;
  r->acking = 0; /* LAST: it may be killed at any of these, too */
  return e;
}
static cfn_bus_t *as_holder(victim_report_t *r) { /* has leased two of three */
  cfn_bus_t *bus = as_reader(r);
  for (int i = 1; i <= 2; i++) CHECK_INT(recv_id(bus, false, NULL, NULL), i);
  r->seen[1] = r->seen[2] = 1;
  return bus;
}
static int64_t do_give_back(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return cfn_bus_release_inbox(bus);
}
static int64_t do_take_over(cfn_bus_t *bus, victim_report_t *r) {
  (void)bus;
  int e = attach_as("v", r);
  if (e < 0) return e;
  for (int i = 1; i <= 3; i++) {
    uint64_t token;
    bool redelivered;
    r->getting = i;
    int id = recv_id(victim_opened, false, &redelivered, &token);
    if (id != i) return id < 0 ? id : -98;
    if (redelivered != (i <= 2)) return -97;
    r->seen[id] = 1;
    r->acking = id;
    e = t_ack(victim_opened, token);
    if (e < 0) return e;
    r->acked[id] = 1;
    r->acking = 0;
  }
  r->getting = 0;
  return 0;
}
static int64_t do_peek(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  static _Alignas(8) uint8_t out[8192];
  uint32_t offsets[8];
  size_t used;
  int more;
  int64_t n = cfn_bus_peek(bus, &rx_at, CFN_ALL_LANES, out, sizeof out, offsets, 8, &used, &more);
  return n < 0 ? n : 0;
}
static int64_t do_receipt(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  int e = cfn_bus_receipt_wait(bus, &receipt, CFN_RECEIPT_ACKED, cfn_os_monotonic_ns() + 20000000);
  return e == CFN_TIMEOUT || e == CFN_INTERRUPTED ? 0 : e;
}
static int64_t do_wait(cfn_bus_t *bus, victim_report_t *r) { /* arms, sleeps, wakes, ticks */
  (void)r;
  cfn_wire_t w;
  char b[4096];
  int64_t e = cfn_bus_recv(bus, NULL, 0, CFN_ALL_LANES, 0, cfn_os_monotonic_ns() + 20000000, b, sizeof b);
  (void)w;
  return e == CFN_EMPTY || e == CFN_TIMEOUT || e == CFN_INTERRUPTED || e > 0 ? 0 : e;
}
static int64_t do_wait_room(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  int e = cfn_bus_send_one(bus, rx_at.index, rx_at.mid, CFN_LANE_NORMAL, 0, bodies[100], BODY_BYTES, NULL, 0, 0,
                           cfn_os_monotonic_ns() + 20000000, NULL);
  return e == CFN_FULL || e == CFN_TIMEOUT || e == CFN_INTERRUPTED ? 1 : e;
}

/* ---- the stage ---- */

typedef struct operation {
  const char *name;
  cfn_bus_t *(*prepare)(victim_report_t *);
  int64_t (*run)(cfn_bus_t *, victim_report_t *);
  enum { PLAIN, CREATES, DESTROYS, REGISTERS, SENDS_TO_RX, SENDS_TO_MANY, SENDS_LARGE, AWAITS, READS_V, TAKES_OVER, REAPS,
         FILLS } kind;
} operation_t;
static const operation_t operations[] = {
    {"create", nobody, do_create, CREATES},
    {"attach", nobody, do_attach, PLAIN},
    {"register", plain, do_register, REGISTERS},
    {"profile", plain, do_profile, PLAIN},
    {"destroy", plain, do_destroy, DESTROYS},
    {"reap", plain, do_reap, REAPS},
    {"request", plain, do_request, SENDS_TO_RX},
    {"await", as_asker, do_await, AWAITS},
    {"broadcast", plain, do_broadcast, SENDS_TO_MANY},
    {"send-many", plain, do_send_many, SENDS_LARGE},
    {"recv-many", as_reader, do_recv_many, READS_V},
    {"recv-parcels", as_reader, do_recv_parcels, READS_V},
    {"give-back", as_holder, do_give_back, READS_V},
    {"take-over", nobody, do_take_over, TAKES_OVER},
    {"peek", plain, do_peek, PLAIN},
    {"receipt", plain, do_receipt, PLAIN},
    {"wait", plain, do_wait, PLAIN},
    {"wait-room", plain, do_wait_room, FILLS},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])

/* Somebody who died with a chunk in hand, an inbox taken, a message leased and an answer unread. */
static int64_t die_sending(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return send_id(bus, "rx", 102);
}
static void make_corpse(cfn_bus_t *(*as)(victim_report_t *)) {
  victim_start(&corpse, as, die_sending);
  cfn_attach_shm_t *slot = cfn_attachment(cfn_bus_region(tx), (uint32_t)corpse.report->attachment);
  cfn_outgoing_t m = {.body = "!", .body_bytes = 1, .correlation = 1};
  CHECK_INT(cfn_bus_reply(rx, (uint32_t)corpse.report->attachment, cfn_id_inc(cfn_load_seq(&slot->id)), &m, 0), 0);
  while (!cfn_load_seq(&slot->reg[CFN_REG_SEND])) CHECK(victim_step(&corpse, 1));
  victim_step(&corpse, 30);
  victim_kill(&corpse);
}

static void stage_set(const operation_t *o) {
  if (o->kind == CREATES) {
    victim_start(&victim, o->prepare, o->run);
    return;
  }
  rx = t_open("rx", NULL);
  tx = t_attach("tx");
  CHECK_INT(cfn_bus_claim_inbox(rx, 0), 0);
  CHECK_INT(cfn_bus_find(tx, "rx", &rx_at), 0);
  int created;
  if (o->kind == READS_V || o->kind == TAKES_OVER || o->kind == REAPS) {
    CHECK_INT(cfn_bus_register(tx, "v", NULL, &v_at, &created), 0);
    cfn_outgoing_t m[3];
    for (uint32_t i = 0; i < 3; i++) m[i] = (cfn_outgoing_t){.body = bodies[i + 1], .body_bytes = BODY_BYTES};
    if (o->run == do_recv_parcels) CHECK_INT(cfn_bus_send(tx, &v_at, CFN_LANE_NORMAL, m, 3, 0, NULL), 0);
    else for (uint32_t i = 1; i <= 3; i++) CHECK_INT(send_id(tx, "v", i), 0);
  }
  if (o->kind == SENDS_TO_MANY) {
    many[0] = rx_at;
    CHECK_INT(cfn_bus_register(tx, "m1", NULL, &many[1], &created), 0);
    CHECK_INT(cfn_bus_register(tx, "m2", NULL, &many[2], &created), 0);
  }
  if (o->kind == TAKES_OVER || o->kind == REAPS) make_corpse(as_holder);
  if (o->kind == FILLS)
    for (uint32_t i = 0; i < 8; i++) CHECK_INT(send_id(tx, "rx", 150 + i), 0);
  if (o->run == do_peek || o->run == do_receipt)
    CHECK_INT(t_send(tx, "rx", CFN_LANE_NORMAL, bodies[150], BODY_BYTES, 0, &receipt), 0);
  victim_start(&victim, o->prepare, o->run);
  if (o->kind == AWAITS) {
    cfn_wire_t w;
    char b[4096];
    CHECK_INT(t_recv(rx, 0, &w, b), BODY_BYTES);
    cfn_outgoing_t m = {.body = bodies[101], .body_bytes = BODY_BYTES, .correlation = w.correlation};
    CHECK_INT(cfn_bus_reply(rx, w.source_att, w.source_inc, &m, 0), 0);
    CHECK_INT(t_ack(rx, w.token), 0);
  }
}

/* What rx got of the victim and of the others. */
static int from_victim, from_others;
static void drain(void) {
  cfn_wire_t w;
  char b[4096];
  int64_t n;
  while ((n = t_recv(rx, 0, &w, b)) >= 0) {
    if (n >= (int64_t)LARGE / 2) {
      CHECK_INT(b[0], from_victim + 1); /* in order, each once */
      CHECK_INT(b[4095], from_victim + 1);
      from_victim++;
    } else {
      uint32_t id = body_id(b, n);
      if (id == 100) from_victim++;
      else if (id == 102) continue; /* the corpse had published it */
      else from_others++;
    }
    CHECK_INT(t_ack(rx, w.token), 0);
  }
  CHECK_INT(n, CFN_EMPTY);
}

/* Life goes on at once, before anybody was reaped. */
static void others_go_on(const operation_t *o, int rounds) {
  drain();
  for (int i = 0; i < rounds; i++) {
    CHECK_INT(send_id(tx, "rx", 220), 0);
    drain();
  }
  cfn_address_t at;
  int created;
  uint64_t dropped;
  CHECK_INT(cfn_bus_register(tx, "passing", NULL, &at, &created), 0);
  CHECK_INT(send_id(tx, "passing", 221), 0);
  CHECK_INT(cfn_bus_unregister(tx, "passing", 0, &dropped), 0);
  CHECK_INT(dropped, 1);
  (void)o;
}

/* No slot, no record, no chunk and no name was lost; then all is at rest. */
static void stage_strike(void) {
  for (int lap = 0; lap < 2; lap++) {
    for (uint32_t i = 0; i < 8; i++) CHECK_INT(send_id(tx, "rx", 200 + i), 0);
    CHECK_INT(send_id(tx, "rx", 210), CFN_FULL);
    for (int i = 0; i < 8; i++) CHECK_INT(recv_id(rx, true, NULL, NULL), 200 + i);
    CHECK_INT(recv_id(rx, true, NULL, NULL), CFN_EMPTY);
  }
  cfn_address_t all[16], at;
  int created;
  int room = 8 - cfn_bus_agents(tx, all, 16);
  char name[16];
  for (int i = 0; i <= room; i++) {
    snprintf(name, sizeof name, "room%d", i);
    CHECK_INT(cfn_bus_register(tx, name, NULL, &at, &created), i < room ? 0 : CFN_OVER_CAPACITY);
  }
  uint64_t dropped;
  for (int i = 0; i < room; i++) {
    snprintf(name, sizeof name, "room%d", i);
    CHECK_INT(cfn_bus_unregister(tx, name, 0, &dropped), 0);
  }
  static const char *const heirs[] = {"victim", "v", "m1", "m2"};
  for (int i = 0; i < 4; i++)
    if (cfn_bus_find(tx, heirs[i], &at) == 0) CHECK_INT(cfn_bus_unregister(tx, heirs[i], 0, &dropped), 0);
  cfn_bus_info_t info;
  CHECK_INT(cfn_bus_info(tx, &info), 0);
  CHECK_INT(info.attached, 2);
  CHECK_INT(info.dead, 0);
  t_check_region(tx, true);
  t_check_nothing_held(tx);
  CHECK_INT(info.corrupt_dropped, 0);
}

/* ---- what must be true afterwards ---- */

static void check_reader(const operation_t *o, bool killed) {
  cfn_bus_t *heir = t_attach("v");
  int last = 0, id, got[4] = {0};
  bool redelivered;
  while ((id = recv_id(heir, true, &redelivered, NULL)) > 0) {
    CHECK(id > last && id <= 3);
    last = id;
    got[id]++;
    if (rep->seen[id] || (o->kind != READS_V && id <= 2)) CHECK(redelivered);
    else if (redelivered) CHECK(rep->getting);
  }
  CHECK_INT(id, CFN_EMPTY);
  for (id = 1; id <= 3; id++) {
    if (rep->acked[id]) CHECK_INT(got[id], 0);
    else if (killed && rep->acking) CHECK(got[id] <= 1);
    else CHECK_INT(got[id], 1);
  }
  t_close(heir);
}
static int unread(const char *name) {
  cfn_bus_t *heir = t_attach(name);
  int n = 0, id;
  while ((id = recv_id(heir, true, NULL, NULL)) > 0) n += id == 100;
  CHECK_INT(id, CFN_EMPTY);
  t_close(heir);
  return n;
}
static void check(const operation_t *o, bool killed) {
  bool done = rep->done;
  cfn_address_t at;
  cfn_agent_info_t info;
  drain();
  switch (o->kind) {
    case SENDS_TO_RX: CHECK(from_victim == 1 || (!done && from_victim == 0)); break;
    case SENDS_TO_MANY:
      for (int i = 1; i < 3; i++) {
        char name[4] = {'m', (char)('0' + i), 0};
        int n = unread(name);
        CHECK(n == 1 || (!done && n == 0));
        CHECK(n <= from_victim); /* the first was rx */
      }
      break;
    case SENDS_LARGE: CHECK(from_victim == 4 || (!done && (from_victim == 0 || from_victim == 3))); break;
    case FILLS: CHECK(from_victim == (done && rep->result == 0) || (!done && from_victim <= 1)); break;
    case REGISTERS:
      if (cfn_bus_find(tx, "fresh", &at) == 0) { /* whole or not at all */
        CHECK_INT(cfn_bus_agent_info(tx, &at, &info), 0);
        CHECK_INT(strcmp(info.text[CFN_TEXT_STATUS], "ready"), 0);
        CHECK_INT(strcmp(info.text[CFN_TEXT_TEAM], "red"), 0);
        CHECK_INT(send_id(tx, "fresh", 222), 0);
        uint64_t dropped;
        CHECK_INT(cfn_bus_unregister(tx, "fresh", 0, &dropped), 0);
        CHECK_INT(dropped, 1);
      } else {
        CHECK(!done);
      }
      break;
    case READS_V:
    case TAKES_OVER: check_reader(o, killed); break;
    default: break;
  }
}

static void point_create(int mode) {
  if (mode == 0) victim_kill(&victim);
  cfn_bus_t *bus = t_open("rx", NULL); /* creates it, or finds it whole */
  CHECK_INT(send_id(bus, "rx", 1), 0);
  CHECK_INT(recv_id(bus, true, NULL, NULL), 1);
  uint64_t nonce = cfn_bus_region(bus)->super.nonce;
  if (mode == 1) {
    victim_finish(&victim);
    CHECK_INT(rep->result, nonce >> 1); /* both have the same */
    victim_leave(&victim);
  }
  CHECK(cfn_bus_reap(bus) <= 1);
  t_check_region(bus, true);
  t_check_nothing_held(bus);
  t_close(bus);
  char path[CFN_PATH_BYTES];
  CHECK_INT(cfn_region_path(NULL, t_bus_name(), path), 0);
  t_destroy();
  CHECK(access(path, F_OK) != 0);
}

static void point_destroy(int mode) {
  uint64_t nonce = cfn_bus_region(tx)->super.nonce;
  if (mode == 0) victim_kill(&victim);
  cfn_bus_t *again = t_open("rx2", NULL); /* still the old one, or a new one: at once */
  CHECK_INT(send_id(again, "rx2", 1), 0);
  CHECK_INT(recv_id(again, true, NULL, NULL), 1);
  bool old = cfn_bus_region(again)->super.nonce == nonce;
  if (!old) CHECK_INT(send_id(tx, "rx", 1), CFN_RETIRED);
  if (mode == 1) {
    victim_leave(&victim);
    CHECK_INT(rep->result, 0);
    if (!old) CHECK_INT(send_id(again, "rx2", 2), 0); /* the late destroyer did not touch the new one */
    else CHECK_INT(send_id(again, "rx2", 2), CFN_RETIRED);
  }
  t_close(again);
  t_close(tx);
  t_close(rx);
  char path[CFN_PATH_BYTES];
  CHECK_INT(cfn_region_path(NULL, t_bus_name(), path), 0);
  t_destroy();
  CHECK(access(path, F_OK) != 0);
}

/* Returns whether the operation was over before instruction n. */
static bool point(const operation_t *o, int mode, long n) {
  t_case("--op %s --mode %s --from %ld --to %ld", o->name, mode ? "stop" : "kill", n, n);
  from_victim = from_others = 0;
  stage_set(o);
  bool over = !victim_go_to(&victim, n);
  if (o->kind == CREATES) point_create(mode);
  else if (o->kind == DESTROYS) point_destroy(mode);
  else {
    if (mode == 0) victim_kill(&victim);
    others_go_on(o, mode ? 100 : 1);
    if (mode) {
      CHECK(cfn_bus_reap(tx) >= 0);
      if (o->kind == REAPS) { /* the dead one's slot has a new life */
        next_attach_at(tx, (uint32_t)corpse.report->attachment);
        cfn_bus_t *other = t_attach("other");
        CHECK_INT(send_id(other, "rx", 223), 0);
        victim_finish(&victim);
        CHECK_INT(send_id(other, "rx", 224), 0);
        t_close(other);
        uint64_t dropped;
        CHECK_INT(cfn_bus_unregister(tx, "other", 0, &dropped), 0);
      }
      victim_finish(&victim);
      if (rep->result < 0) fprintf(stderr, "%s\n", cfn_error_name((int)rep->result));
      CHECK(rep->result >= 0);
      victim_leave(&victim);
    }
    CHECK(cfn_bus_reap(tx) >= 0);
    check(o, mode == 0);
    if (o->kind == REAPS) {
      rep->seen[1] = rep->seen[2] = 1;
      check_reader(o, true);
    }
    CHECK_INT(cfn_bus_reap(tx), 0);
    stage_strike();
    t_close(tx);
    t_close(rx);
    t_destroy();
  }
  return over;
}

static void set_out(int o) { stage_set(&operations[o]); }
static void clear_away(int o) {
  if (operations[o].kind != CREATES) {
    t_close(rx);
    t_close(tx);
  }
  t_destroy();
}
static bool strike_at(int o, int mode, long n) { return point(&operations[o], mode, n); }
static const char *name_of(int o) { return operations[o].name; }

int main(int argc, char **argv) {
  corpse.report = report_new();
  victim.report = rep = report_new();
  bodies_make();
  for (int i = 0; i < 4; i++) memset(large[i], i + 1, LARGE);
  static const step_stage_t stage = {"test_step_life", step_kill_stop, OPERATIONS, name_of, set_out, strike_at, clear_away, &victim};
  return step_main(argc, argv, &stage);
}
