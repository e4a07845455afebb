/* The checker beside others who write between two of its looks: what stays as it is is reported, what is another by the last look
 * is not; and what repair gives back is nobody's at the last look, too. */
#include <string.h>

#include "agent/bus.h"
#include "mem/directory.h"
#include "tests/meddler.h"

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_address_t at;
static uint64_t kept;

static void start(void) {
  m_two(&at);
  a = bus[0];
  b = bus[1];
  r = cfn_bus_region(a);
}
static void end(void) { m_whole(); }
static cfn_mailbox_shm_t *box(void) { return cfn_mailbox(r, at.index); }
static uint32_t nobody(void) { return r->geo.config.attachments - 1; }
static void put_back_word(cfn_a64 *word) { cfn_store_seq(word, kept); }

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
  sim_as(1);
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
  checking();
  moving();
  t_passed("test_meddled_check");
  return 0;
}
