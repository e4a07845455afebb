/* Agents, attachments and the checker while others register, remove, die and write between two instructions. */
#include <string.h>

#include "agent/attach.h"
#include "agent/bus.h"
#include "agent/reap.h"
#include "mem/directory.h"
#include "tests/meddler.h"

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_address_t at;
static uint64_t inc, dropped;
static int owner;

static void start(void) {
  m_fresh(false);
  bus[0] = a = sim_open(0, "a");
  bus[1] = b = sim_open(1, NULL);
  r = cfn_bus_region(a);
  CHECK_INT(cfn_bus_find(a, "a", &at), 0);
}
static void end(void) {
  sim_meddler = NULL;
  sim_as(0);
  cfn_address_t again;
  CHECK_INT(cfn_bus_register(a, "late", NULL, &again, NULL), 0);
  CHECK_INT(cfn_bus_unregister(a, "late", 0, &dropped), 0);
  CHECK(cfn_bus_reap(a) >= 0);
  t_check_region(a, true);
  t_check_nothing_held(a);
}
static cfn_mailbox_shm_t *box(void) { return cfn_mailbox(r, at.index); }
static uint32_t nobody(void) { return r->geo.config.attachments - 1; }
static bool says(const char *words) { return strstr(cfn_last_failure()->text, words) != NULL; }
static void as(int p) { sim_as(p); }

/* What another does. */
static uint64_t kept;
static void put_back_word(cfn_a64 *word) { cfn_store_seq(word, kept); }
static void stolen(cfn_a64 *word) { (void)word, m_next16(&box()->consumer); }
static void registers_b(cfn_a64 *word) {
  (void)word;
  cfn_address_t x;
  CHECK_INT(cfn_bus_register(b, "b", NULL, &x, NULL), 0);
}

/* ---- acting ---- */

static void acting(void) {
  t_case("an agent whose dead owner is never recycled");
  start();
  cfn_a64 *id = &cfn_attachment(r, nobody())->id;
  cfn_store_seq(id, cfn_id_word(1, CFN_ID_REAP));
  uint64_t own = cfn_load_seq(&box()->owner);
  cfn_store_seq(&box()->owner, cfn_owner_word(cfn_owner_inc(own) + 1, nobody() + 1));
  as(1);
  m_meddle("reap_all_of", 'c', id, 0, M_ALWAYS, m_next24);
  CHECK_INT(cfn_bus_act_as(b, "a", NULL, CFN_ACT_OWN, &inc, &owner), CFN_AGAIN);
  CHECK_INT(m_end(), 100);
  CHECK(says("'a' changes hands all the time"));
  t_case("one whose dead reader is never recycled cannot be removed");
  cfn_store_seq(&box()->consumer, cfn_consumer_word(50, nobody() + 1));
  m_meddle("reap_all_of", 'c', id, 0, M_ALWAYS, m_next24);
  CHECK_INT(cfn_bus_unregister(b, "a", 0, &dropped), CFN_AGAIN);
  CHECK_INT(m_end(), 100);
  CHECK(says("'a' changes hands all the time"));
  cfn_store_seq(&cfn_attachment(r, nobody())->holds[0], at.index + 1); /* as it had announced */
  CHECK_INT(cfn_bus_reap(b), 1);
  end();

  t_case("an agent that is another's by the last look, and one whose words name nobody");
  start();
  as(1);
  m_meddle("cfn_registry_take_owner", 'l', &box()->mid, 0, 1, m_next24);
  CHECK_INT(cfn_bus_act_as(b, "a", NULL, CFN_ACT_OWN, &inc, &owner), 0);
  m_end();
  CHECK_INT(owner, 0); /* a's process lives */
  CHECK_INT(cfn_bus_act_as(b, "x", NULL, CFN_ACT_OWN, &inc, &owner), CFN_INVALID); /* it is one already */
  cfn_store_seq(&box()->owner, cfn_owner_word(9, 0x9999));
  CHECK_INT(cfn_bus_unregister(b, "a", 0, &dropped), 0);
  end();

  t_case("a handle that holds as many agents as it can");
  start();
  as(1);
  for (unsigned h = 0; h < CFN_HOLDS; h++) cfn_store_seq(&b->actor.slot->holds[h], 4);
  CHECK_INT(cfn_bus_act_as(b, "x", NULL, CFN_ACT_OWN, &inc, &owner), CFN_OVER_CAPACITY);
  CHECK(says("at most 8 agents"));
  CHECK_INT(cfn_bus_unregister(b, "x", 0, &dropped), CFN_OVER_CAPACITY);
  for (unsigned h = 0; h < CFN_HOLDS; h++) cfn_store_seq(&b->actor.slot->holds[h], 0);
  t_case("an owner word that names us already");
  cfn_address_t x;
  CHECK_INT(cfn_bus_find(b, "x", &x), 0);
  cfn_store_seq(&cfn_mailbox(r, x.index)->owner, cfn_owner_word(7, b->actor.me + 1));
  CHECK_INT(cfn_bus_act_as(b, "x", NULL, CFN_ACT_OWN, &inc, &owner), 0);
  CHECK_INT(owner, 1);
  CHECK_INT(cfn_bus_unregister(b, "x", 0, &dropped), 0);
  end();
}

static void naming(void) {
  cfn_address_t x;
  t_case("who waits for an agent finds it between arming and sleeping, or is interrupted");
  start();
  m_meddle("cfn_event_arm", '|', &cfn_state(r)->registry.event.word, 0, 1, registers_b);
  CHECK_INT(cfn_bus_wait_agent(a, "b", patience(), &x), 0);
  m_end();
  CHECK_INT(cfn_bus_wait_agent(a, "nobody", patience(), &x), CFN_INTERRUPTED); /* a safety tick */
  CHECK_INT(cfn_bus_wait_agent(a, "nobody", 0, &x), CFN_UNKNOWN_AGENT);
  t_case("a list passes over a name that became another's meanwhile");
  cfn_named_t named[4];
  m_meddle("cfn_bus_agents_named", 'l', &box()->mid, 1, 1, m_next24);
  CHECK_INT(cfn_bus_agents_named(a, named, 4), 1);
  m_end();
  CHECK_INT(strcmp(named[0].name, "b"), 0);
  CHECK_INT(cfn_bus_unregister(a, "b", 0, &dropped), 0);
  end();

  t_case("an agent is removed by another first");
  start();
  m_meddle("cfn_directory_remove", 'l', &box()->mid, 0, 1, m_next24);
  CHECK_INT(cfn_bus_unregister(a, "a", 0, &dropped), 0); /* and made again: that one is removed */
  m_end();
  CHECK_INT(cfn_bus_find(a, "a", &x), CFN_UNKNOWN_AGENT);
  end();

  t_case("a name that another record has and never gets");
  start();
  kept = cfn_load_seq(&box()->mid);
  cfn_store_seq(&box()->mid, cfn_mid_word(cfn_mid_ver(kept), CFN_MID_MINE, 0));
  CHECK_INT(cfn_bus_register(b, "a", NULL, &x, NULL), CFN_AGAIN);
  CHECK(says("registered and unregistered all the time"));
  cfn_store_seq(&box()->mid, kept);
  end();

  t_case("stale removers are still at the words of a record that is made anew");
  start();
  m_meddle("fill_record", 'c', NULL, 0, 1, m_next24);
  CHECK_INT(cfn_bus_register(b, "x", NULL, &x, NULL), 0);
  m_end();
  CHECK_INT(cfn_bus_unregister(b, "x", 0, &dropped), 0);
  m_meddle("fill_record", 'c', NULL, 1, 1, m_next24);
  CHECK_INT(cfn_bus_register(b, "y", NULL, &x, NULL), 0);
  m_end();
  CHECK_INT(cfn_bus_unregister(b, "y", 0, &dropped), 0);
  end();

  t_case("a removal that another died in is taken over by a third");
  start();
  cfn_a64 *mid = &box()->mid;
  uint64_t open = cfn_load_seq(mid);
  CHECK_INT(cfn_directory_remove(r, at.index, open), 0);
  m_meddle("cfn_ring_retire_lap", 'l', &box()->rlap, 0, 1, stolen);
  CHECK_INT(cfn_registry_finish_removals(&a->actor), 0);
  m_end();
  CHECK_INT(cfn_mid_state(cfn_load_seq(mid)), CFN_MID_REMOVING);
  CHECK_INT(cfn_registry_finish_removals(&a->actor), 1);
  CHECK_INT(cfn_mid_state(cfn_load_seq(mid)), CFN_MID_FREE);
  end();
}

/* ---- attachments ---- */

static void attaching(void) {
  t_case("slots whose processes live and were robbed of their bytes are nobody else's");
  start();
  for (uint32_t i = 0; i <= nobody(); i++) {
    cfn_attach_shm_t *slot = cfn_attachment(r, i);
    if (cfn_id_state(cfn_load_seq(&slot->id)) == CFN_ID_LIVE) continue;
    cfn_store_seq(&slot->pid, 4); /* process 3 */
    cfn_store_seq(&slot->pid_ns, 1);
    cfn_store_seq(&slot->id, cfn_id_word(5, CFN_ID_LIVE));
  }
  as(2);
  cfn_bus_t *late = NULL;
  CHECK_INT(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &late, NULL), CFN_OVER_CAPACITY);
  CHECK(says("all are in use by living ones"));
  sim_bury(3);
  CHECK_INT(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &late, NULL), 0);
  cfn_bus_free(late);
  end();

  t_case("another takes the slot first, before it is joined and while it is");
  start();
  as(2);
  for (int nth = 0; nth < 2; nth++) {
    uint32_t next = (uint32_t)(cfn_load_seq(&cfn_state(r)->attach_hint) % (nobody() + 1));
    kept = cfn_load_seq(&cfn_attachment(r, next)->id);
    m_meddle("join", 'c', &cfn_attachment(r, next)->id, nth, 1, m_next24);
    CHECK_INT(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &late, NULL), 0);
    m_end();
    CHECK(cfn_bus_attachment(late) != next);
    cfn_store_seq(&cfn_attachment(r, next)->id, cfn_id_word(cfn_id_inc(kept) + 3, CFN_ID_VACANT));
    cfn_bus_free(late);
  }
  t_case("one that leaves is judged dead at the last moment");
  late = sim_open(2, NULL);
  cfn_a64 *id = &late->actor.slot->id;
  m_meddle("cfn_detach", 'l', id, 0, 1, m_next24);
  cfn_bus_close(late);
  m_end();
  CHECK_INT(cfn_id_state(cfn_load_seq(id)), CFN_ID_LIVE); /* it is another's word: left alone */
  cfn_store_seq(id, cfn_id_word(cfn_id_inc(cfn_load_seq(id)) + 1, CFN_ID_VACANT));
  end();
}

static void closes_a(cfn_a64 *word) {
  (void)word;
  cfn_bus_close(a);
}
static void frees_a(cfn_a64 *word) {
  (void)word;
  cfn_bus_free(a); /* what somebody is inside of stays */
}
static void tries_to_enter(cfn_a64 *word) {
  char out[64];
  (void)word;
  CHECK_INT(cfn_bus_recv(a, NULL, 0, CFN_ALL_LANES, 0, CFN_TRY, out, sizeof out), CFN_AGAIN);
}
static void closing(void) {
  _Alignas(8) char out[512];
  cfn_address_t x;
  static m_act_t *const how[] = {closes_a, frees_a};
  for (unsigned i = 0; i < 2; i++) {
    t_case("a handle is %s while a thread sleeps in it", i ? "freed" : "closed");
    start();
    m_meddle("wait", 'w', &cfn_state(r)->registry.event.word, 0, 1, how[i]);
    CHECK_INT(cfn_bus_wait_agent(a, "nobody", patience(), &x), CFN_CLOSED);
    m_end();
    CHECK_INT(cfn_bus_names_version(a), 0);
    CHECK_INT(cfn_bus_recv(a, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out), CFN_CLOSED);
    as(1);
    t_check_region(b, false);
  }
  t_case("who does not wait for another thread");
  start();
  m_meddle("cfn_directory_find", 'l', NULL, 0, 1, tries_to_enter);
  CHECK_INT(cfn_bus_find(a, "a", &x), 0);
  m_end();
  CHECK_INT(cfn_bus_recv(a, NULL, 0, CFN_ALL_LANES, 0, CFN_TRY, out, sizeof out), CFN_EMPTY);
  end();
}

/* ---- the dead ---- */

static void dead_chunk(uint32_t k, unsigned state) {
  cfn_a64 *own = &cfn_chunk(r, k)->own;
  cfn_store_seq(own, cfn_own_next(cfn_load_seq(own), state, nobody()));
  cfn_store_seq(&cfn_attachment(r, nobody())->reg[CFN_REG_SEND], k + 1);
}
static void reaping(void) {
  cfn_attach_shm_t *dead;
  for (int i = 0; i < 3; i++) {
    t_case("what the dead left changes at each look of its reaper (%d)", i);
    start();
    dead = cfn_attachment(r, nobody());
    cfn_store_seq(&dead->id, cfn_id_word(3, CFN_ID_REAP));
    if (i == 0) {
      dead_chunk(20, CFN_MINE);
      m_meddle("cfn_slab_free_later", 'c', &cfn_chunk(r, 20)->own, 0, M_ALWAYS, m_next16);
    } else {
      cfn_a64 *mid = cfn_record_state(r, 3);
      cfn_store_seq(mid, cfn_mid_word(9, i == 1 ? CFN_MID_MINE : CFN_MID_PEND, nobody()));
      cfn_store_seq(&dead->reg[CFN_REG_CREATE], 4);
      m_meddle("reap_creation", i == 1 ? 'c' : 'l', mid, 0, M_ALWAYS, m_next24);
    }
    CHECK_INT(cfn_bus_reap(a), 1);
    CHECK(m_end() >= 2);
    if (i) { /* left to who comes by again */
      cfn_store_seq(&dead->id, cfn_id_word(4, CFN_ID_REAP));
      CHECK_INT(cfn_bus_reap(a), 1);
    } else {
      cfn_repair_t done;
      CHECK_INT(cfn_bus_repair(a, &done), 0);
      CHECK_INT(done.chunks_freed, 1);
    }
    end();
  }

  t_case("a published name of a dead one is decided by the directory");
  start();
  dead = cfn_attachment(r, nobody());
  cfn_record_name_store(r, 3, "late", 4);
  cfn_store_seq(cfn_record_state(r, 3), cfn_mid_word(9, CFN_MID_PEND, nobody()));
  cfn_store_seq(&dead->reg[CFN_REG_CREATE], 4);
  cfn_store_seq(&dead->id, cfn_id_word(3, CFN_ID_REAP));
  kept = cfn_intent_word(50, 0, 4);
  m_meddle("reap_creation", 'l', &cfn_state(r)->intent, 0, 1, put_back_word); /* AFTER the reaper's first help */
  CHECK_INT(cfn_bus_reap(a), 1);
  m_end();
  cfn_address_t x;
  CHECK_INT(cfn_bus_find(a, "late", &x), 0);
  CHECK_INT(x.index, 3);
  CHECK_INT(cfn_bus_unregister(a, "late", 0, &dropped), 0);
  end();

  t_case("what others wait for goes first, unless it is another's by now");
  start();
  dead = cfn_attachment(r, nobody());
  for (int twice = 0; twice < 2; twice++) {
    cfn_store_seq(&dead->id, cfn_id_word(3, CFN_ID_REAP));
    cfn_store_seq(&dead->holds[0], at.index + 1);
    cfn_store_seq(&box()->consumer, cfn_consumer_word(80, nobody() + 1));
    if (twice) m_meddle("authorised", 'l', &dead->id, 0, 1, m_next24);
    cfn_reap_what_others_wait_for(r, nobody(), cfn_id_word(3, CFN_ID_REAP));
    if (twice) m_end();
    CHECK_INT(cfn_consumer_att(cfn_load_seq(&box()->consumer)), twice ? nobody() + 1 : 0);
  }
  CHECK_INT(cfn_bus_reap(a), 1);
  cfn_store_seq(&dead->id, cfn_id_word(4, CFN_ID_VACANT));
  CHECK(cfn_recycle(r, nobody())); /* nothing to do */
  static const char *const lost[] = {"cfn_recycle", "reap_all_of"};
  for (int i = 0; i < 2; i++) {
    cfn_store_seq(&dead->id, cfn_id_word(10, CFN_ID_JOINING));
    m_meddle(lost[i], 'c', &dead->id, 0, 1, m_next24);
    CHECK(cfn_recycle(r, nobody()));
    m_end();
    CHECK_INT(cfn_id_state(cfn_load_seq(&dead->id)), CFN_ID_VACANT);
  }
  t_case("what it held makes no sense, or is another's");
  cfn_a64 *st = &cfn_blob_record(r, 2)->st;
  cfn_store_seq(st, cfn_own_next(cfn_load_seq(st), CFN_BLOB_FILL, a->actor.me));
  cfn_store_seq(&dead->ledger[0], cfn_names_word(1, 4000));
  cfn_store_seq(&dead->ledger[1], cfn_names_word(1, 3));
  cfn_store_seq(&dead->ledger[2], cfn_names_word(1, CFN_LEDGER_EVICTS));
  cfn_store_seq(&dead->id, cfn_id_word(20, CFN_ID_REAP));
  CHECK_INT(cfn_bus_reap(a), 1);
  for (int i = 0; i < 3; i++) CHECK_INT(cfn_names_blob(cfn_load_seq(&dead->ledger[i])), 0);
  CHECK_INT(cfn_own_state(cfn_load_seq(st)), CFN_BLOB_FILL);
  CHECK_INT(cfn_bus_collect(a), 0); /* nobody announced it: it is taken back */
  CHECK_INT(cfn_own_state(cfn_load_seq(st)), CFN_BLOB_DEAD);
  end();

  t_case("an attachment lives many lives while it is judged");
  start();
  cfn_store_seq(&cfn_attachment(r, nobody())->id, cfn_id_word(3, CFN_ID_JOINING));
  m_meddle("cfn_life_of", 'l', &cfn_attachment(r, nobody())->id, 0, M_ALWAYS, m_next24);
  CHECK_INT(cfn_life_of(r, nobody(), NULL, NULL), CFN_LIFE_ALIVE); /* the living get the doubt */
  CHECK_INT(m_end(), 128);
  CHECK_INT(cfn_life_of(r, nobody(), NULL, NULL), CFN_LIFE_DEAD);
  m_meddle("cfn_life_of_agent", 'l', &box()->owner, 1, M_ALWAYS, m_next24);
  CHECK_INT(cfn_life_of_agent(r, at.index, NULL), CFN_LIFE_ALIVE);
  m_end();
  t_case("words that name nobody of this bus");
  uint32_t att = 7;
  cfn_store_seq(&box()->owner, cfn_owner_word(80, 0));
  cfn_store_seq(&box()->consumer, cfn_consumer_word(80, 0x9999));
  CHECK_INT(cfn_life_of_agent(r, at.index, &att), CFN_LIFE_NONE);
  CHECK_INT(att, 0);
  t_case("a reader that passed by and died says nothing of an agent without an owner");
  cfn_store_seq(&box()->owner, cfn_owner_word(90, 0));
  cfn_store_seq(&box()->consumer, cfn_consumer_word(90, nobody() + 1));
  CHECK_INT(cfn_life_of_agent(r, at.index, NULL), CFN_LIFE_NONE);
  cfn_store_seq(&cfn_attachment(r, nobody())->holds[0], at.index + 1);
  end();
}

/* ---- the checker ---- */

static void says_warning(void *context, const char *severity, const char *text) {
  char (*last)[200] = context;
  if (severity[0] == 'w') snprintf(*last, sizeof *last, "%s", text);
}
static void warns(const char *words) {
  char last[200] = "";
  CHECK_INT(cfn_region_check(r, says_warning, &last), 0);
  if (!strstr(last, words)) fprintf(stderr, "  it says: %s\n", last);
  CHECK(strstr(last, words) != NULL);
}
static void checking(void) {
  t_case("chunks in the hands of somebody");
  start();
  cfn_store_seq(&b->actor.slot->reg[CFN_REG_DRAIN], 21);
  cfn_a64 *own = &cfn_chunk(r, 20)->own;
  kept = cfn_load_seq(own);
  cfn_store_seq(own, cfn_own_next(kept, CFN_TAKEN, b->actor.me));
  warns("chunk 20 is in the hands of attachment");
  cfn_store_seq(own, cfn_own_next(kept, CFN_DONE, 77)); /* whoever acked it */
  warns("chunk 20 is in the hands of attachment");
  cfn_store_seq(&b->actor.slot->reg[CFN_REG_DRAIN], 0);
  CHECK_INT(cfn_region_check(r, NULL, NULL), 1);
  static const unsigned gone[] = {CFN_ID_VACANT, CFN_ID_FREE};
  for (int i = 0; i < 2; i++) {
    cfn_store_seq(own, cfn_own_next(kept, CFN_MINE, nobody()));
    cfn_store_seq(&cfn_attachment(r, nobody())->id, cfn_id_word(9, gone[i]));
    cfn_store_seq(&cfn_attachment(r, nobody())->reg[CFN_REG_SEND], 21);
    CHECK_INT(cfn_region_check(r, NULL, NULL), 1); /* what its last process left in its registers says nothing */
  }
  t_case("one that looks leaked, and moves on while it is looked at");
  m_meddle("check_chunk", 'l', own, 1, 1, put_back_word);
  CHECK_INT(cfn_region_check(r, NULL, NULL), 0);
  m_end();
  cfn_store_seq(own, cfn_own_next(kept, CFN_DONE, 0));
  cfn_store_seq(&cfn_attachment(r, nobody())->reg[CFN_REG_SEND], 0);
  m_meddle("check_chunk", 'l', own, 0, M_ALWAYS, m_next16);
  CHECK_INT(cfn_region_check(r, NULL, NULL), 0); /* nor what changes at each look */
  m_end();
  cfn_store_seq(&box()->lane[CFN_LANE_LOW].head, 1000);
  m_meddle("slot_agrees", 'l', &box()->lane[CFN_LANE_LOW].head, 0, M_ALWAYS, m_next);
  CHECK_INT(cfn_region_check(r, NULL, NULL), 1); /* that chunk alone */
  m_end();
  cfn_store_seq(&box()->lane[CFN_LANE_LOW].head, 0);
  t_case("targets there are none of");
  cfn_ring_t ring;
  CHECK(!cfn_ring_of_target(r, cfn_target_word(CFN_TO_MAILBOX, CFN_LANES, 0), &ring));
  CHECK(!cfn_ring_of_target(r, cfn_target_word(CFN_TO_MAILBOX, 0, 5000), &ring));
  CHECK(!cfn_ring_of_target(r, cfn_target_word(7, 0, 0), &ring));
  t_case("a chunk that is addressed to nowhere is leaked");
  cfn_store_seq(&cfn_attachment(r, nobody())->reg[CFN_REG_SEND], 0);
  cfn_store_seq(own, cfn_own_next(kept, CFN_DONE, 0));
  cfn_store_seq(&cfn_chunk(r, 20)->target, cfn_target_word(CFN_TO_REPLY, 0, 5000));
  CHECK_INT(cfn_region_check(r, NULL, NULL), 1);
  t_case("and is given back by repair, unless it is another's at the last look");
  cfn_repair_t done;
  cfn_a64 *far = &cfn_lane_slots(r, at.index, CFN_LANE_LOW)[1]; /* a slot and a register that name no chunk */
  cfn_store_seq(far, cfn_slot_word(0, 9999));
  cfn_store_seq(&b->actor.slot->reg[CFN_REG_DONE], 9999);
  m_meddle("free_leaked", 'l', own, 1, 1, m_next16);
  CHECK_INT(cfn_bus_repair(a, &done), 0);
  m_end();
  CHECK_INT(done.chunks_freed, 0);
  m_meddle("cfn_slab_free_later", 'c', own, 0, 1, m_next16);
  CHECK_INT(cfn_bus_repair(a, &done), 0);
  m_end();
  CHECK_INT(done.chunks_freed, 0);
  CHECK_INT(cfn_bus_repair(a, &done), 0);
  CHECK_INT(done.chunks_freed, 1);
  cfn_store_seq(far, 0);
  cfn_store_seq(&b->actor.slot->reg[CFN_REG_DONE], 0);
  end();

  t_case("a dead owner that nobody has recycled yet");
  start();
  as(1);
  r = cfn_bus_region(b); /* each process has a side of its own */
  sim_bury(0);
  warns("is dead and not recycled yet");
  CHECK_INT(cfn_bus_reap(b), 1);
  t_check_region(b, true);
}

static cfn_a64 *damaged;
static void mends_and_moves_on(cfn_a64 *word) {
  cfn_store_seq(damaged, kept);
  m_next24(word);
}
/* What looks wrong for a moment only: a word of it is another by the last look. */
static void moving(void) {
  static uint8_t body[3000];
  uint64_t version;
  static const char *const cases[] = {"slot", "agent", "value", "value's name", "value's object", "lease", "blob", "page", "index"};
  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    t_case("what is checked is another by the last look: %s", cases[i]);
    start();
    CHECK_INT(cfn_bus_ref_set(a, "k", 1, 0, 0, body, sizeof body, &version), 0);
    CHECK_INT(cfn_bus_ref_set(a, "l", 1, 0, 0, body, 20, &version), 0);
    uint32_t index, other;
    uint64_t word;
    CHECK_INT(cfn_directory_find(r, CFN_KIND_REF, "k", 1, &index, &word), 0);
    cfn_ref_shm_t *ref = cfn_ref(r, index - r->geo.config.agents);
    uint32_t blob = cfn_ref_blob(cfn_load_seq(&ref->word)) - 1;
    cfn_blob_shm_t *record = cfn_blob_record(r, blob);
    cfn_a64 *slot = cfn_lane_slots(r, at.index, CFN_LANE_NORMAL);
    switch (i) {
      case 0: {
        CHECK_INT(post(1, b, "a", 8, 0), 0);
        damaged = &cfn_chunk(r, cfn_slot_ref(cfn_load_seq(slot)) - 1)->target;
        kept = cfn_load_seq(damaged);
        cfn_store_seq(damaged, 12345);
        m_meddle("check_chunk_in_slot", 'l', slot, 0, 1, mends_and_moves_on);
        break;
      }
      case 1:
        damaged = &box()->name[0];
        kept = cfn_load_seq(damaged);
        cfn_store_seq(damaged, 'z');
        m_meddle("check_mailbox", 'l', &box()->mid, 1, 1, m_next24);
        break;
      case 2: /* its record */
        damaged = &ref->word;
        kept = cfn_load_seq(damaged);
        cfn_store_seq(damaged, cfn_ref_word(9999, 1));
        m_meddle("check_ref", 'l', &ref->mid, 1, 1, m_next24);
        break;
      case 3:
        damaged = &ref->name[0];
        kept = cfn_load_seq(damaged);
        cfn_store_seq(damaged, 'z');
        m_meddle("check_ref", 'l', &ref->mid, 2, 1, m_next24);
        break;
      case 4: /* the value has another object */
        damaged = &record->st;
        kept = cfn_load_seq(damaged);
        cfn_store_seq(damaged, cfn_own_next(kept, CFN_BLOB_DEAD, 0));
        m_meddle("check_ref", 'l', &ref->word, 1, 1, m_next);
        break;
      case 5: /* it was given back */
        damaged = &ref->word;
        kept = cfn_load_seq(damaged);
        cfn_store_seq(damaged, cfn_ref_word(CFN_REF_LEASE + nobody(), 77));
        m_meddle("check_ref", 'l', &ref->word, 1, 1, m_next);
        break;
      case 6: /* nobody fills it any more */
        damaged = &record->st;
        kept = cfn_load_seq(damaged);
        CHECK_INT(cfn_bus_ref_delete(a, "k", 1, CFN_ANY_VERSION), 0);
        cfn_store_seq(damaged, cfn_own_next(kept, CFN_BLOB_FILL, 0));
        m_meddle("check_blob", 'l', damaged, 1, 1, m_next16);
        break;
      case 7: /* its page is another's, for it lives another life */
        damaged = cfn_page_word(r, (uint32_t)cfn_load_seq(&record->run));
        kept = cfn_load_seq(damaged);
        cfn_store_seq(damaged, 0);
        m_meddle("check_blob", 'l', &record->life, 0, 1, m_next);
        break;
      case 8:
        damaged = cfn_index(r);
        kept = cfn_load_seq(damaged);
        for (other = 0; cfn_own_state(cfn_load_seq(&cfn_blob_record(r, other)->st)) != CFN_BLOB_DEAD; other++) {
        }
        cfn_store_seq(damaged, cfn_names_word(3, other + 1));
        m_meddle("check_index", 'l', damaged, 1, 1, m_next24);
        break;
    }
    CHECK_INT(cfn_region_check(r, NULL, NULL), 0);
    m_end();
    cfn_store_seq(damaged, kept);
    if (i == 0) cfn_store_seq(slot, cfn_slot_word(0, cfn_slot_ref(cfn_load_seq(slot))));
    if (i == 7) cfn_store_seq(&record->life, cfn_load_seq(&record->life) - 1);
    if (i == 0) {
      sim_as(0);
      uint64_t token = 0;
      CHECK(take(0, a, &token, 0) > 0);
      CHECK_INT(cfn_bus_ack(a, &token, 1), 0);
    }
    CHECK(cfn_bus_collect(a) >= 0);
    end();
  }
}

int main(void) {
  m_main();
  acting();
  naming();
  attaching();
  closing();
  reaping();
  checking();
  moving();
  t_passed("test_meddled_agents");
  return 0;
}
