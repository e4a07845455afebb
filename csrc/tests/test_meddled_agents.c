/* Agents and attachments while others register, remove, die and write between two instructions. */
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
  m_two(&at);
  a = bus[0];
  b = bus[1];
  r = cfn_bus_region(a);
}
static void end(void) { m_whole(); }
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

int main(void) {
  m_main();
  acting();
  naming();
  attaching();
  closing();
  reaping();
  t_passed("test_meddled_agents");
  return 0;
}
