#include "mem/directory.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"

static cfn_a64 *name_words(const cfn_region_t *r, uint32_t i, size_t *bytes) {
  uint32_t agents = r->geo.config.agents;
  *bytes = i < agents ? CFN_NAME_BYTES : CFN_KEY_BYTES;
  return i < agents ? cfn_mailbox(r, i)->name : cfn_ref(r, i - agents)->name;
}
static cfn_kind_t kind_of(const cfn_region_t *r, uint32_t i) {
  return i < r->geo.config.agents ? CFN_KIND_AGENT : CFN_KIND_REF;
}
static uint32_t hash_of(cfn_kind_t kind, const char *name, size_t bytes) {
  return (uint32_t)cfn_hash64(name, bytes) + (uint32_t)kind * 0x9e3779b9u;
}

size_t cfn_record_key(const cfn_region_t *r, uint32_t i, char out[CFN_KEY_BYTES]) {
  size_t most;
  cfn_a64 *name = name_words(r, i, &most);
  for (unsigned w = 0; w < most / 8; w++) {
    uint64_t word = cfn_load_acquire(&name[w]); /* acquire: what it is believed by is looked at after it */
    memcpy(out + w * 8, &word, 8);
  }
  out[most - 1] = 0;
  return strlen(out);
}

size_t cfn_record_name(const cfn_region_t *r, uint32_t i, char out[CFN_NAME_BYTES]) {
  char key[CFN_KEY_BYTES];
  size_t bytes = cfn_record_key(r, i, key);
  memcpy(out, key, CFN_NAME_BYTES);
  return bytes;
}

void cfn_record_name_store(const cfn_region_t *r, uint32_t i, const char *name, size_t bytes) {
  size_t most;
  cfn_a64 *to = name_words(r, i, &most);
  char text[CFN_KEY_BYTES] = {0};
  memcpy(text, name, bytes < most ? bytes : most - 1);
  for (unsigned w = 0; w < most / 8; w++) {
    uint64_t word;
    memcpy(&word, text + w * 8, 8);
    cfn_store_relaxed(&to[w], word);
  }
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
  cfn_kind_t kind = kind_of(r, record);
  uint32_t start = hash_of(kind, name, bytes);
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
    } else if (value <= r->geo.records && kind_of(r, value - 1) == kind) {
      char other[CFN_KEY_BYTES];
      if (cfn_record_key(r, value - 1, other) == bytes && memcmp(other, name, bytes) == 0)
        p.taken = true;
    }
  }
  return p;
}

/* Afterwards the intent is another, cleared by us or by somebody else: an exact one never comes back. */
static void finish(const cfn_region_t *r, uint64_t intent) {
  cfn_a64 *intent_word = &cfn_state(r)->intent;
  uint64_t cleared = cfn_intent_word(cfn_intent_ver(intent) + 1, 0, 0);
  uint32_t record = cfn_intent_record(intent) - 1;
  if (record >= r->geo.records) { /* damage: an intent that names nothing */
    cfn_cas_seq(intent_word, intent, cleared);
    return;
  }
  bool remove = intent & CFN_INTENT_REMOVE;
  cfn_a64 *state = cfn_record_state(r, record);
  uint64_t was = cfn_load_acquire(state); /* acquire pairs with the creator's PEND: the name is whole */
  char name[CFN_KEY_BYTES];
  size_t bytes = cfn_record_key(r, record, name);
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
    break;
  }
  /* FAIL(pend+1) means the name was taken; anything later means it was linked. */
  uint64_t now = cfn_load_seq(cfn_record_state(r, i));
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
    if (cfn_load_seq(cfn_record_state(r, i)) != open_word) return CFN_STALE;
    uint64_t mine = cfn_intent_word(cfn_intent_ver(intent) + 1, CFN_INTENT_REMOVE, i + 1);
    if (!cfn_cas_seq(intent_word, intent, mine)) continue;
    finish(r, mine);
    return CFN_OK;
  }
}

int cfn_directory_find(const cfn_region_t *r, cfn_kind_t kind, const char *name, size_t bytes, uint32_t *index,
                       uint64_t *open_word) {
  cfn_a64 *dir = cfn_directory(r);
  uint32_t mask = r->geo.config.directory_slots - 1;
  uint32_t start = hash_of(kind, name, bytes);
  for (uint32_t n = 0; n <= mask; n++) {
    /* seq_cst, and so the state below: who waits for a name arms an event, and then looks here once more */
    uint32_t value = cfn_dir_value(cfn_load_seq(&dir[(start + n) & mask]));
    if (value == 0) break;
    if (value == CFN_DIR_TOMB || value > r->geo.records || kind_of(r, value - 1) != kind) continue;
    uint64_t before = cfn_load_seq(cfn_record_state(r, value - 1));
    if (cfn_mid_state(before) != CFN_MID_OPEN) continue;
    char other[CFN_KEY_BYTES];
    if (cfn_record_key(r, value - 1, other) != bytes || memcmp(other, name, bytes) != 0) continue;
    if (cfn_load_seq(cfn_record_state(r, value - 1)) != before) continue; /* the name may be another's */
    *index = value - 1;
    *open_word = before;
    return CFN_OK;
  }
  return CFN_UNKNOWN_AGENT;
}

/* ---- making a record ---- */

int64_t cfn_record_claim(const cfn_region_t *r, cfn_kind_t kind, unsigned me, cfn_a64 *cell) {
  uint32_t n = kind == CFN_KIND_AGENT ? r->geo.config.agents : r->geo.config.refs;
  uint32_t first = kind == CFN_KIND_AGENT ? 0 : r->geo.config.agents;
  cfn_a64 *hint = kind == CFN_KIND_AGENT ? &cfn_state(r)->mailbox_hint : &cfn_state(r)->ref_hint;
  uint32_t start = (uint32_t)(cfn_load_relaxed(hint) % n);
  for (uint32_t j = 0; j < n; j++) {
    uint32_t i = first + (start + j) % n;
    cfn_a64 *state = cfn_record_state(r, i);
    uint64_t w = cfn_load_acquire(state);
    if (cfn_mid_state(w) != CFN_MID_FREE) continue;
    cfn_store_relaxed(cell, i + 1); /* announced before it is taken */
    if (cfn_cas_seq(state, w, cfn_mid_word(cfn_mid_ver(w) + 1, CFN_MID_MINE, me))) {
      cfn_store_relaxed(hint, i - first + 1);
      return i;
    }
  }
  cfn_store_seq(cell, 0);
  return -1;
}

int cfn_record_publish(const cfn_region_t *r, uint32_t i, unsigned me, cfn_a64 *cell, uint64_t *open_word) {
  cfn_a64 *state = cfn_record_state(r, i);
  /* dies here: MINE(me), announced: the reaper frees it */
  uint64_t pend = cfn_mid_word(cfn_mid_ver(cfn_load_seq(state)) + 1, CFN_MID_PEND, me);
  cfn_store_seq(state, pend); /* ours alone while MINE */
  /* dies here: PEND(me), announced: the reaper finishes or frees it */
  int linked = cfn_directory_insert(r, i, pend);
  if (linked == CFN_OK) {
    *open_word = cfn_mid_word(cfn_mid_ver(pend) + 1, CFN_MID_OPEN, 0);
  } else {
    uint64_t failed = cfn_mid_word(cfn_mid_ver(pend) + 1, CFN_MID_FAIL, me);
    cfn_cas_seq(state, failed, cfn_mid_word(cfn_mid_ver(failed) + 1, CFN_MID_FREE, 0));
  }
  cfn_store_seq(cell, 0);
  return linked;
}
