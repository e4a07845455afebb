/* Agents: their coming and going, names, records and words. What the virtual processes do, and what must be true afterwards, whatever the
 * schedule. */
#include "sim/scenarios.h"

#include <string.h>

#include "agent/liveness.h"
#include "sim/ledger.h"

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

/* It has read, and acked the later one of two, when it goes. */
static void setup_remove_acked(void) {
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, NULL);
  for (int i = 1; i < 3; i++) SIM_CHECK(post(1, bus[1], "reader", 8 + i, 0) == CFN_OK);
}
static void ack_the_later_and_leave(int me) {
  uint64_t token[2] = {0}, dropped;
  for (int i = 0; i < 2; i++)
    if (take(me, bus[me], &token[i], 0) <= 0) return;
  SIM_CHECK(cfn_bus_ack(bus[me], &token[1], 1) == CFN_OK);
  cfn_bus_unregister(bus[me], "reader", 0, &dropped);
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
/* One who has to do with neither finishes what they began: somebody else died. */
static void setup_names_reaped(void) {
  setup_names();
  bus[3] = sim_open(3, NULL);
  sim_bury(3);
  bus[3] = NULL;
}
static void reap_the_dead(int me) { cfn_bus_reap(bus[me]); }
static void wait_for_name(int me) {
  cfn_address_t at;
  int r;
  do {
    r = cfn_bus_wait_agent(bus[me], "name", patience(), &at);
  } while (r == CFN_INTERRUPTED);
  SIM_CHECK(r == CFN_OK);
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
  SIM_CHECK(cfn_owner_att(cfn_load_seq(&cfn_mailbox(cfn_bus_region(mine), at.index)->owner)) == cfn_bus_attachment(mine) + 1);
  SIM_CHECK(take(me, mine, &token, 0) > 0); /* still its reader, and its owner */
  cfn_bus_ack(mine, &token, 1);
  cfn_bus_close(mine);
}

/* Asks itself something and answers it: a chunk and a slot of the reply ring that were the dead one's. */
static void ask_there(int me) {
  static _Alignas(8) uint8_t out[1024];
  cfn_bus_t *mine = sim_open(me, "reader");
  uint64_t token = 0, correlation;
  SIM_CHECK(take(me, mine, &token, 0) > 0);
  cfn_address_t at;
  cfn_outgoing_t ask = {.body = "?", .body_bytes = 1}, yes = {.body = "yes", .body_bytes = 3};
  SIM_CHECK(cfn_bus_find(mine, "reader", &at) == CFN_OK);
  SIM_CHECK(cfn_bus_request(mine, &at, CFN_LANE_NORMAL, &ask, 0, &correlation) == CFN_OK);
  SIM_CHECK(cfn_bus_recv(mine, &token, 1, CFN_ALL_LANES, 0, 0, out, sizeof out) > 0);
  const cfn_wire_t *w = (const void *)out;
  token = w->token;
  yes.correlation = w->correlation;
  SIM_CHECK(cfn_bus_reply(mine, w->source_att, w->source_inc, &yes, 0) == CFN_OK);
  SIM_CHECK(cfn_bus_request_wait(mine, &at, correlation, 0, out, sizeof out) > 0);
  cfn_bus_request_end(mine, correlation);
  SIM_CHECK(cfn_bus_ack(mine, &token, 1) == CFN_OK);
  cfn_bus_close(mine);
}
/* Two who register, one of them in the dead one's slot, and only one record is free beside the dead one's. */
static void register_there(int me) {
  cfn_bus_t *mine = sim_open(me, NULL);
  static const char *const name[] = {"", "", "second", "", "third"};
  cfn_address_t at;
  SIM_CHECK(cfn_bus_register(mine, name[me], NULL, &at, NULL) == CFN_OK);
  cfn_bus_close(mine);
}
static void verify_two_names(void) {
  sim_as(SIM_PROCESSES - 1);
  cfn_bus_t *late = sim_open(SIM_PROCESSES - 1, NULL);
  cfn_address_t at;
  SIM_CHECK(cfn_bus_find(late, "second", &at) == CFN_OK);
  SIM_CHECK(cfn_bus_find(late, "third", &at) == CFN_OK);
  audit_reader();
}

/* ---- an agent is removed under its reader ---- */

static void setup_remove_read(void) {
  begin();
  bus[0] = sim_open(0, "reader");
  bus[1] = sim_open(1, "one");
  for (int i = 0; i < 2; i++) SIM_CHECK(post(1, bus[1], "reader", 8 + i, 0) == CFN_OK);
  bus[2] = sim_open(2, NULL);
}
static void send_on(int me) { post(me, bus[me], "reader", me * 8 + 3, 0); }
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

const sim_scenario_t sim_agent_scenarios[] = {
    {"remove", setup_remove, {remove_and_register, send_by_old_address}, verify_remove, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-killed", setup_remove, {remove_and_register, send_by_old_address}, verify_remove, 3, true, {1, 1, 0, 0}, NULL},
    {"names", setup_names, {register_and_unregister, register_name}, verify_names, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-acked", setup_remove_acked, {ack_the_later_and_leave, send_by_old_address}, verify_remove, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-acked-killed", setup_remove_acked, {ack_the_later_and_leave, send_by_old_address}, verify_remove, 3, true, {1, 1, 0, 0}, NULL},
    {"names-reaped", setup_names_reaped, {register_name, register_name, reap_the_dead}, verify_names, 0, true, {2, 0, 0, 0}, NULL},
    {"names-wait", setup_names, {wait_for_name, register_name, wait_for_name}, verify_names, 0, false, {2, 0, 0, 0}, NULL},
    {"names-three", setup_names, {register_name, unregister_name, register_name}, verify_names, 0, false, {2, 0, 0, 0}, NULL},
    {"names-killed", setup_names, {register_name, unregister_name, register_name}, verify_names, ALL, true, {1, 1, 0, 0}, NULL},
    {"names-twice", setup_names, {register_name, register_name}, verify_names, 0, false, {2, 0, 0, 0}, NULL},
    {"names-stale", setup_stale, {register_name, register_second, register_name}, verify_stale, 0, false, {2, 0, 0, 0}, NULL},
    {"names-stale-killed", setup_stale, {register_name, register_second, register_name}, verify_stale, ALL, true, {1, 1, 0, 0}, NULL},
    {"names-lookup", setup_stale, {look_up, register_second, register_name}, verify_stale, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-reuse", setup_reuse, {remove_plainly, remove_and_reuse}, verify_reuse, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-reuse-find", setup_reuse, {remove_and_register, send_by_old_address}, verify_remove, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-reuse-killed", setup_reuse, {remove_plainly, remove_and_reuse}, verify_reuse, 3, true, {1, 1, 0, 0}, NULL},
    {"remove-scarce", setup_scarce, {remove_plainly, remove_and_reuse}, verify_reuse, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-scarce-killed", setup_scarce, {remove_plainly, remove_and_reuse}, verify_reuse, 3, true, {1, 1, 0, 0}, NULL},
    {"remove-reuse-read", setup_reuse, {remove_plainly, reuse_and_read}, verify_reuse, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-read", setup_remove_read, {ack_late, send_on, remove_by_force}, verify_remove_read, 0, false, {2, 0, 0, 0}, NULL},
    {"remove-read-killed", setup_remove_read, {ack_late, send_on, remove_by_force}, verify_remove_read, ALL, true, {1, 1, 0, 0}, NULL},
    {"owners", setup_owners, {own, own}, verify_one_owner, 0, false, {2, 0, 0, 0}, NULL},
    {"owners-killed", setup_owners, {own, own_and_leave, own}, audit_all, ALL, true, {1, 1, 0, 0}, NULL},
    {"profile", setup_profile, {describe, describe, read_description}, audit_all, 0, false, {2, 0, 0, 0}, NULL},
    {"life", setup_life, {leave_with_mail, reap, come_and_go}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"corpse", setup_corpse, {reap, reap, live_there}, audit_reader, 0, true, {2, 0, 0, 0}, NULL},
    {"corpse-killed", setup_corpse, {reap, reap, live_there}, audit_reader, 3, true, {1, 1, 0, 0}, NULL},
    {"corpse-chunks", setup_corpse, {reap, reap, live_there}, audit_reader, 0, true, {2, 0, 0, 0},
     "cfn_reap,reap_chunk,authorised,cfn_slab_claim,claim_one,cfn_slab_free*,cfn_ring_publish"},
    {"corpse-replies", setup_corpse, {reap, reap, ask_there}, audit_reader, 0, true, {2, 0, 0, 0},
     "cfn_reap,cfn_ring_retire*,retire_slot,cfn_ring_publish,drain_replies"},
    {"corpse-holds", setup_corpse, {reap, reap, live_there}, audit_reader, 0, true, {2, 0, 0, 0},
     "cfn_reap,reap_hold,authorised,cfn_registry_take*,cfn_registry_give*,cfn_life_of_agent"},
    {"corpse-record", setup_corpse, {reap, reap, register_there, NULL, register_there}, verify_two_names, 0, true, {2, 0, 0, 0},
     "cfn_reap,reap_creation,authorised,claim_record,fill_record,cfn_registry_create"},
    {"corpse-slot", setup_corpse, {reap, reap, live_there}, audit_reader, 0, true, {2, 0, 0, 0},
     "cfn_reap,cfn_recycle,reap_all_of,join,cfn_life_of*"},
    {"corpse-slot-killed", setup_corpse, {reap, reap, live_there}, audit_reader, 3, true, {1, 1, 0, 0},
     "cfn_reap,cfn_recycle,reap_all_of,join,cfn_life_of*"},
    {"life-again", setup_life_again, {leave_with_mail, reap, come_and_go}, audit_reader, 0, false, {2, 0, 0, 0}, NULL},
    {"life-again-killed", setup_life_again, {leave_with_mail, reap, come_and_go}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
    {"life-killed", setup_life, {leave_with_mail, reap, come_and_go}, audit_reader, 5, true, {1, 1, 0, 0}, NULL},
};
const int sim_agent_scenario_count = sizeof sim_agent_scenarios / sizeof sim_agent_scenarios[0];
