/* Named values while others change them between two instructions: what is lost is tried again, what is lost for ever is told,
 * and what was read is one value or none. */
#include <string.h>

#include "agent/bus_ref.h"
#include "mem/directory.h"
#include "tests/meddler.h"

enum { PAGE = 3000, TURNS = 1000 }; /* as TRIES in agent/bus_ref.c */

static cfn_bus_t *a;
static cfn_region_t *r;
static uint8_t data[2 * PAGE];
static uint64_t version;

static int set(const char *key, uint64_t expect, uint64_t bytes) {
  return cfn_bus_ref_set(a, key, (uint32_t)strlen(key), expect, CFN_CODEC_RAW, data, bytes, &version);
}
static int64_t get(const char *key, cfn_ref_info_t *info) {
  return cfn_bus_ref_get(a, key, (uint32_t)strlen(key), data, sizeof data, info);
}
static cfn_ref_shm_t *ref_of(const char *key) {
  uint32_t index;
  uint64_t word;
  CHECK_INT(cfn_directory_find(r, CFN_KIND_REF, key, strlen(key), &index, &word), 0);
  return cfn_ref(r, index - r->geo.config.agents);
}
static void start(void) {
  m_fresh(false);
  bus[0] = a = sim_open(0, NULL);
  r = cfn_bus_region(a);
  memset(data, 7, sizeof data);
  CHECK_INT(set("k", 0, 20), 0);
}
/* Nothing is held, and the value can be set and read. */
static void end(void) {
  CHECK_INT(set("k", CFN_ANY_VERSION, 30), 0);
  CHECK_INT(get("k", NULL), 30);
  CHECK_INT(cfn_bus_pins(a), 0);
  CHECK(cfn_bus_collect(a) >= 0);
  t_check_region(a, true);
}
static bool says(const char *words) { return strstr(cfn_last_failure()->text, words) != NULL; }

static void gone(cfn_a64 *word) { cfn_store_seq(word, cfn_ref_word(0, cfn_refs_next_version(r))); }
static void closed(cfn_a64 *word) { cfn_store_seq(word, cfn_ref_word(CFN_REF_CLOSED, cfn_refs_next_version(r))); }
static void close_k(cfn_a64 *word) {
  (void)word;
  closed(&ref_of("k")->word);
}

static void setting(void) {
  t_case("a change is lost once, and made");
  start();
  m_meddle("cfn_refs_swap", 'c', &ref_of("k")->word, 0, 3, m_next);
  CHECK_INT(set("k", CFN_ANY_VERSION, 25), 0);
  CHECK_INT(m_end(), 3);
  CHECK_INT(get("k", NULL), 25);
  end();

  t_case("a change is lost for ever, and told, and nothing of it is left");
  start();
  m_meddle("cfn_refs_swap", 'c', &ref_of("k")->word, 0, M_ALWAYS, m_next);
  CHECK_INT(set("k", CFN_ANY_VERSION, PAGE), CFN_AGAIN);
  CHECK_INT(m_end(), TURNS);
  CHECK(says("'k' changes faster"));
  CHECK_INT(get("k", NULL), 20);
  end();

  t_case("on a condition it is lost once");
  start();
  uint64_t seen = version;
  m_meddle("cfn_refs_swap", 'c', &ref_of("k")->word, 0, 1, m_next);
  CHECK_INT(set("k", seen, 25), CFN_CONFLICT);
  CHECK_INT(m_end(), 1);
  CHECK_INT(cfn_last_failure()->have, seen + 1);
  seen = version;
  m_meddle("cfn_refs_swap", 'c', &ref_of("k")->word, 0, 1, gone);
  CHECK_INT(set("k", cfn_ref_version(cfn_load_seq(&ref_of("k")->word)), 25), CFN_UNKNOWN_KEY);
  CHECK_INT(m_end(), 1);
  CHECK_INT(set("k", 0, 25), 0);
  m_meddle("cfn_refs_swap", 'c', &ref_of("k")->word, 0, 1, closed);
  CHECK_INT(set("k", version, 25), CFN_UNKNOWN_KEY); /* also its record has gone meanwhile */
  CHECK_INT(m_end(), 1);
  end();

  t_case("a record changes its use at each look");
  start();
  m_meddle("cfn_refs_load", 'l', &ref_of("k")->mid, 0, M_ALWAYS, m_next24);
  CHECK_INT(set("k", CFN_ANY_VERSION, 25), CFN_AGAIN);
  CHECK_INT(m_end(), TURNS);
  CHECK(says("'k' changes faster"));
  m_meddle("cfn_refs_load", 'l', &ref_of("k")->mid, 0, 2, m_next24);
  CHECK_INT(get("k", NULL), 20);
  m_end();
  end();
}

static void making(void) {
  t_case("a name that another record has and never gets");
  start();
  cfn_ref_shm_t *k = ref_of("k");
  uint64_t mid = cfn_load_seq(&k->mid);
  cfn_store_seq(&k->mid, cfn_mid_word(cfn_mid_ver(mid), CFN_MID_MINE, 0)); /* it stands in the directory, and is not open */
  CHECK_INT(set("k", CFN_ANY_VERSION, 20), CFN_AGAIN);
  CHECK(says("'k' changes faster"));
  cfn_store_seq(&k->mid, mid);
  end();

  t_case("a new record's word changes under who makes it");
  start();
  m_meddle("cfn_refs_create", 'c', NULL, 0, 2, m_next);
  CHECK_INT(set("new", 0, 20), 0);
  CHECK_INT(m_end(), 2);
  CHECK_INT(get("new", NULL), 20);
  end();

  t_case("a record that another takes first");
  start();
  m_meddle("cfn_record_claim", 'c', NULL, 0, 1, m_next24);
  CHECK_INT(set("new", 0, 20), 0);
  CHECK_INT(m_end(), 1);
  end();
}

static void reading(void) {
  cfn_ref_info_t info, infos[8];
  for (uint64_t bytes = 20; bytes <= PAGE; bytes += PAGE - 20) {
    t_case("a value of %u bytes changes at the last look", (unsigned)bytes);
    start();
    CHECK_INT(set("k", CFN_ANY_VERSION, bytes), 0);
    m_meddle("copy_value", 'l', &ref_of("k")->word, 0, 1, m_next);
    CHECK_INT(get("k", &info), (int64_t)bytes);
    CHECK_INT(m_end(), 1);
    CHECK_INT(info.version, cfn_ref_version(cfn_load_seq(&ref_of("k")->word)));
    m_meddle("copy_value", 'l', &ref_of("k")->word, 0, M_ALWAYS, m_next);
    CHECK_INT(get("k", &info), CFN_AGAIN);
    CHECK(m_end() >= TURNS);
    CHECK(says("'k' changes faster"));
    int64_t sum;
    m_meddle("copy_value", 'l', &ref_of("k")->word, 0, M_ALWAYS, m_next);
    CHECK_INT(cfn_bus_ref_add(a, "k", 1, 1, &sum, &version), CFN_AGAIN);
    m_end();

    t_case("a list passes over what it cannot read (%u bytes)", (unsigned)bytes);
    CHECK_INT(set("l", 0, 20), 0);
    m_meddle("copy_value", 'l', &ref_of("k")->word, 0, M_ALWAYS, m_next);
    CHECK_INT(cfn_bus_ref_list(a, "", 0, infos, 8), 1);
    CHECK(m_end() >= TURNS);
    CHECK_INT(strcmp(infos[0].key, "l"), 0);
    CHECK_INT(cfn_bus_ref_delete(a, "l", 1, CFN_ANY_VERSION), 0);
    end();
  }
  t_case("a value's object goes while the value still names it");
  start();
  CHECK_INT(set("k", CFN_ANY_VERSION, PAGE), 0);
  cfn_a64 *st = &cfn_blob_record(r, cfn_ref_blob(cfn_load_seq(&ref_of("k")->word)) - 1)->st;
  uint64_t live = cfn_load_seq(st);
  cfn_store_seq(st, cfn_own_next(live, CFN_BLOB_DEAD, 0));
  CHECK_INT(get("k", NULL), CFN_CORRUPT);
  cfn_store_seq(st, live);
  end();
}

static void deleting(void) {
  t_case("a deletion is lost once, and done");
  start();
  m_meddle("cfn_refs_swap", 'c', &ref_of("k")->word, 0, 1, m_next);
  CHECK_INT(cfn_bus_ref_delete(a, "k", 1, CFN_ANY_VERSION), 0);
  m_end();
  CHECK_INT(get("k", NULL), CFN_UNKNOWN_KEY);
  CHECK_INT(cfn_bus_ref_delete(a, "k", 1, CFN_ANY_VERSION), CFN_UNKNOWN_KEY);
  CHECK_INT(set("k", 0, 20), 0);
  m_meddle("cfn_refs_swap", 'c', &ref_of("k")->word, 0, M_ALWAYS, m_next);
  CHECK_INT(cfn_bus_ref_delete(a, "k", 1, CFN_ANY_VERSION), CFN_AGAIN);
  CHECK_INT(m_end(), TURNS + 1);
  CHECK_INT(get("k", NULL), 20);
  end();

  t_case("a record that is being closed is finished by who comes by, or by another");
  start();
  closed(&ref_of("k")->word);
  CHECK_INT(get("k", NULL), CFN_UNKNOWN_KEY);
  end();
  start();
  closed(&ref_of("k")->word);
  m_meddle("cfn_directory_remove", 'l', &ref_of("k")->mid, 0, 1, m_next24);
  CHECK_INT(get("k", NULL), CFN_UNKNOWN_KEY);
  m_end();
  end();
  start();
  closed(&ref_of("k")->word);
  m_meddle("finish_closing", 'l', &ref_of("k")->word, 0, 1, gone); /* and has another use already */
  CHECK_INT(get("k", NULL), CFN_UNKNOWN_KEY);
  m_end();
  end();
}

static void adding(void) {
  int64_t sum;
  t_case("an addition that is lost is made anew");
  start();
  CHECK_INT(cfn_bus_ref_add(a, "n", 1, 5, &sum, &version), 0);
  m_meddle("cfn_refs_swap", 'c', &ref_of("n")->word, 0, 2, m_next);
  CHECK_INT(cfn_bus_ref_add(a, "n", 1, 5, &sum, &version), 0);
  m_end();
  CHECK_INT(sum, 10);
  m_meddle("cfn_refs_swap", 'c', &ref_of("n")->word, 0, 1, gone);
  CHECK_INT(cfn_bus_ref_add(a, "n", 1, 5, &sum, &version), 0);
  m_end();
  CHECK_INT(sum, 5); /* somebody took it away: it began again */
  m_meddle("cfn_refs_swap", 'c', &ref_of("n")->word, 0, M_ALWAYS, m_next);
  CHECK_INT(cfn_bus_ref_add(a, "n", 1, 5, &sum, &version), CFN_AGAIN);
  CHECK_INT(m_end(), TURNS);
  end();
}

static void waiting(void) {
  t_case("a value that changes between arming and sleeping");
  start();
  uint64_t seen = version, now;
  m_meddle("cfn_refs_load", 'l', &ref_of("k")->word, 1, 1, m_next);
  CHECK_INT(cfn_bus_ref_wait(a, "k", 1, seen, patience(), &now), 0);
  m_end();
  CHECK_INT(now, seen + 1);
  t_case("its name has another record by the second look, with the same value");
  m_meddle("cfn_refs_load", 'l', &ref_of("k")->mid, 1, 1, m_next24);
  CHECK_INT(cfn_bus_ref_wait(a, "k", 1, now, sim_now() + 1000, &now), CFN_TIMEOUT);
  m_end();
  t_case("its record is closed meanwhile");
  m_meddle("wait", 'w', &ref_of("k")->event.word, 0, 1, close_k);
  int e;
  do {
    e = cfn_bus_ref_wait(a, "k", 1, now, patience(), &version);
  } while (e == CFN_INTERRUPTED);
  CHECK_INT(e, 0);
  CHECK_INT(version, 0);
  m_end();
  end();
}

int main(void) {
  m_main();
  setting();
  making();
  reading();
  deleting();
  adding();
  waiting();
  t_passed("test_meddled_values");
  return 0;
}
