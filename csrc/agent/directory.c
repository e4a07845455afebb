#include "agent/directory.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"

static cfn_a64 *state_of(const cfn_region_t *r, uint32_t i) { return &cfn_mailbox(r, i)->mid; }

size_t cfn_record_name(const cfn_region_t *r, uint32_t i, char out[CFN_NAME_BYTES]) {
  uint64_t words[CFN_NAME_BYTES / 8];
  for (unsigned w = 0; w < CFN_NAME_BYTES / 8; w++)
    words[w] = cfn_load_relaxed(&cfn_mailbox(r, i)->name[w]); /* relaxed: believed after a re-check */
  memcpy(out, words, CFN_NAME_BYTES);
  out[CFN_NAME_BYTES - 1] = 0;
  return strlen(out);
}

void cfn_record_name_store(const cfn_region_t *r, uint32_t i, const char *name, size_t bytes) {
  uint64_t words[CFN_NAME_BYTES / 8] = {0};
  memcpy(words, name, bytes < CFN_NAME_BYTES ? bytes : CFN_NAME_BYTES - 1);
  for (unsigned w = 0; w < CFN_NAME_BYTES / 8; w++)
    cfn_store_relaxed(&cfn_mailbox(r, i)->name[w], words[w]);
}

typedef struct probe {
  int64_t at;        /* where the record itself stands, or -1 */
  int64_t room;      /* the first place that could take it, or -1 */
  uint64_t at_word, room_word;
  bool taken;        /* another record has the name */
} probe_t;

/* Walks the probe sequence of a name up to the first never-used word (which stays the end of the
 * sequence for good: words go unused -> record <-> tomb). */
static probe_t probe(const cfn_region_t *r, uint32_t record, const char *name, size_t bytes) {
  probe_t p = {-1, -1, 0, 0, false};
  cfn_a64 *dir = cfn_directory(r);
  uint32_t mask = r->geo.config.directory_slots - 1;
  uint32_t start = (uint32_t)cfn_hash64(name, bytes);
  for (uint32_t n = 0; n <= mask; n++) {
    uint32_t s = (start + n) & mask;
    uint64_t d = cfn_load_acquire(&dir[s]);
    uint32_t value = cfn_dir_value(d);
    if (value == 0 || value == CFN_DIR_TOMB) {
      if (p.room < 0) {
        p.room = s;
        p.room_word = d;
      }
      if (value == 0) break;
    } else if (value == record + 1) {
      p.at = s;
      p.at_word = d;
    } else if (value <= r->geo.config.agents) {
      char other[CFN_NAME_BYTES];
      if (cfn_record_name(r, value - 1, other) == bytes && memcmp(other, name, bytes) == 0)
        p.taken = true;
    }
  }
  return p;
}

static void finish(const cfn_region_t *r, uint64_t intent) {
  cfn_a64 *intent_word = &cfn_state(r)->intent;
  uint64_t cleared = cfn_intent_word(cfn_intent_ver(intent) + 1, 0, 0);
  uint32_t record = cfn_intent_record(intent) - 1;
  if (record >= r->geo.config.agents) { /* damage: an intent that names nothing */
    cfn_cas_seq(intent_word, intent, cleared);
    return;
  }
  bool remove = intent & CFN_INTENT_REMOVE;
  cfn_a64 *state = state_of(r, record);
  uint64_t was = cfn_load_acquire(state); /* acquire pairs with the creator's PEND: the name is whole */
  char name[CFN_NAME_BYTES];
  size_t bytes = cfn_record_name(r, record, name);
  probe_t p = probe(r, record, name, bytes);
  if (cfn_load_seq(intent_word) != intent) return; /* LAST: what was read belongs to this intent */
  cfn_a64 *dir = cfn_directory(r);
  unsigned st = cfn_mid_state(was);
  uint64_t ver = cfn_mid_ver(was);
  if (remove) {
    if (p.at >= 0)
      cfn_cas_seq(&dir[p.at], p.at_word, cfn_dir_word(cfn_dir_ver(p.at_word) + 1, CFN_DIR_TOMB));
    /* dies here: the name is gone, the record still OPEN: the next finisher goes on */
    if (st == CFN_MID_OPEN) cfn_cas_seq(state, was, cfn_mid_word(ver + 1, CFN_MID_REMOVING, 0));
  } else if (st == CFN_MID_PEND) {
    if (p.at < 0 && (p.taken || p.room < 0)) {
      cfn_cas_seq(state, was, cfn_mid_word(ver + 1, CFN_MID_FAIL, cfn_mid_who(was)));
    } else {
      if (p.at < 0)
        cfn_cas_seq(&dir[p.room], p.room_word,
                    cfn_dir_word(cfn_dir_ver(p.room_word) + 1, record + 1));
      /* dies here: the word names a record that is still PEND: a lookup passes it over */
      cfn_cas_seq(state, was, cfn_mid_word(ver + 1, CFN_MID_OPEN, 0));
    }
  }
  cfn_cas_seq(intent_word, intent, cleared);
}

void cfn_directory_help(const cfn_region_t *r) {
  uint64_t intent = cfn_load_seq(&cfn_state(r)->intent);
  if (cfn_intent_record(intent)) finish(r, intent);
}

int cfn_directory_insert(const cfn_region_t *r, uint32_t i, uint64_t pend) {
  cfn_a64 *intent_word = &cfn_state(r)->intent;
  for (;;) { /* lock-free: each turn finishes somebody's change */
    uint64_t intent = cfn_load_seq(intent_word);
    if (cfn_intent_record(intent)) {
      finish(r, intent);
      continue;
    }
    uint64_t mine = cfn_intent_word(cfn_intent_ver(intent) + 1, 0, i + 1);
    if (!cfn_cas_seq(intent_word, intent, mine)) continue;
    finish(r, mine);
    while (cfn_load_seq(intent_word) == mine) finish(r, mine);
    break;
  }
  /* FAIL(pend+1) means the name was taken; anything later means it was linked. */
  uint64_t now = cfn_load_seq(state_of(r, i));
  bool failed = cfn_mid_state(now) == CFN_MID_FAIL && cfn_mid_ver(now) == cfn_mid_ver(pend) + 1;
  return failed ? CFN_FULL : CFN_OK;
}

int cfn_directory_remove(const cfn_region_t *r, uint32_t i, uint64_t open_word) {
  cfn_a64 *intent_word = &cfn_state(r)->intent;
  for (;;) {
    uint64_t intent = cfn_load_seq(intent_word);
    if (cfn_intent_record(intent)) {
      finish(r, intent);
      continue;
    }
    /* The record is looked at AFTER an empty intent was loaded, and the same word is swapped. */
    if (cfn_load_seq(state_of(r, i)) != open_word) return CFN_STALE;
    uint64_t mine = cfn_intent_word(cfn_intent_ver(intent) + 1, CFN_INTENT_REMOVE, i + 1);
    if (!cfn_cas_seq(intent_word, intent, mine)) continue;
    finish(r, mine);
    while (cfn_load_seq(intent_word) == mine) finish(r, mine);
    return CFN_OK;
  }
}

int cfn_directory_find(const cfn_region_t *r, const char *name, size_t bytes, uint32_t *index,
                       uint64_t *open_word) {
  cfn_a64 *dir = cfn_directory(r);
  uint32_t mask = r->geo.config.directory_slots - 1;
  uint32_t start = (uint32_t)cfn_hash64(name, bytes);
  for (uint32_t n = 0; n <= mask; n++) {
    uint32_t value = cfn_dir_value(cfn_load_acquire(&dir[(start + n) & mask]));
    if (value == 0) break;
    if (value == CFN_DIR_TOMB || value > r->geo.config.agents) continue;
    uint64_t before = cfn_load_acquire(state_of(r, value - 1));
    if (cfn_mid_state(before) != CFN_MID_OPEN) continue;
    char other[CFN_NAME_BYTES];
    if (cfn_record_name(r, value - 1, other) != bytes || memcmp(other, name, bytes) != 0) continue;
    if (cfn_load_seq(state_of(r, value - 1)) != before) continue; /* the name may be another's */
    *index = value - 1;
    *open_word = before;
    return CFN_OK;
  }
  return CFN_UNKNOWN_AGENT;
}
