/* The checker: every invariant of the region, as code.
 *
 * It runs beside a living bus, so a word that looks wrong is looked at again: only what stays exactly
 * as it is over several looks is reported. "error" = an invariant is broken; "warning" = a state that
 * heals by itself, by the next operation, or by reaping (doctor --repair).
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/bus_ref.h"
#include "agent/liveness.h"
#include "agent/reap.h"
#include "cfnshm.h"
#include "mem/directory.h"
#include "mem/heap.h"
#include "mem/spill.h"
#include "sync/lease.h"

#define LOOKS 3

typedef struct checking {
  cfn_region_t *r;
  cfn_check_report_t report;
  void *context;
  int errors;
  uint8_t *references; /* of each chunk */
} checking_t;

__attribute__((format(printf, 3, 4))) static void say(checking_t *c, const char *severity,
                                                      const char *format, ...) {
  char text[300];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (severity[0] == 'e') c->errors++;
  if (c->report) c->report(c->context, severity, text);
}

static bool blob_there(const cfn_region_t *r, uint32_t blob_plus1) {
  unsigned state = cfn_own_state(cfn_load_seq(&cfn_blob_record(r, blob_plus1 - 1)->st));
  return state == CFN_BLOB_LIVE || state == CFN_BLOB_CHECK || state == CFN_BLOB_SPILLING;
}

static bool on_disk(const cfn_region_t *r, uint32_t blob_plus1) {
  return cfn_own_state(cfn_load_seq(&cfn_blob_record(r, blob_plus1 - 1)->st)) == CFN_BLOB_SPILLED;
}

static void check_super(checking_t *c) { /* our copy was checked when it was made */
  if (memcmp(c->r->base, &c->r->super, sizeof c->r->super) != 0)
    say(c, "error", "the header was changed after the bus was created");
}

/* ---- rings ---- */

static void check_chunk_in_slot(checking_t *c, const char *where, cfn_a64 *slot, uint64_t w,
                                uint64_t target) {
  uint32_t ref = cfn_slot_ref(w);
  if (ref > c->r->geo.chunks) {
    say(c, "error", "%s: a slot names chunk %u and there are %u", where, ref - 1, c->r->geo.chunks);
    return;
  }
  cfn_chunk_shm_t *chunk = cfn_chunk(c->r, ref - 1);
  uint64_t own = cfn_load_seq(&chunk->own);
  uint64_t names = cfn_load_seq(&chunk->target);
  if (cfn_load_seq(slot) != w) return; /* moved on meanwhile */
  unsigned state = cfn_own_state(own);
  if (state == CFN_FREE || state > CFN_DONE)
    say(c, "error", "%s: chunk %u is in the ring with owner state %u", where, ref - 1, state);
  if (cfn_target_ring(names) != target)
    say(c, "error", "%s: chunk %u stands in this ring and is addressed to another", where, ref - 1);
  uint64_t blob = cfn_load_seq(&chunk->blob);
  if (names & CFN_TARGET_OBJECT && (blob == 0 || blob > c->r->geo.config.objects || !blob_there(c->r, (uint32_t)blob)) &&
      cfn_load_seq(slot) == w && cfn_load_seq(&chunk->own) == own && state != CFN_DONE)
    say(c, "error", "%s: the body of chunk %u is object %d, which is not there", where, ref - 1, (int)blob - 1);
  if (c->references[ref - 1] < 255) c->references[ref - 1]++;
}

/* Does a slot's word agree with head and tail? True also while it keeps changing as we look. */
static bool slot_agrees(const cfn_ring_t *q, uint32_t i, uint64_t *word) {
  uint64_t before[3] = {0, 0, 0};
  for (int look = 0, still = 0; look < 16 * LOOKS; look++) {
    uint64_t now[3] = {cfn_load_seq(q->head), cfn_load_seq(&q->slot[i]), cfn_load_seq(q->tail)};
    uint64_t head = now[0], w = now[1], tail = now[2];
    uint64_t position = cfn_slot_lap(w) << q->log2 | i;
    *word = w;
    /* filled: head <= position <= tail, each of which may lag by one;
     * empty: the position it waits for is not below tail, and at most one round ahead */
    bool good = cfn_slot_ref(w) ? position + 1 >= head && position <= tail
                                : position >= tail && position <= tail + cfn_ring_slots(q);
    if (good && head <= tail + 1 && tail <= head + cfn_ring_slots(q) + 1) return true;
    still = memcmp(now, before, sizeof now) == 0 ? still + 1 : 0;
    if (still == LOOKS) return false;
    memcpy(before, now, sizeof now);
  }
  return true;
}

static void check_ring(checking_t *c, const char *where, const cfn_ring_t *q, uint64_t target) {
  for (uint32_t i = 0; i < cfn_ring_slots(q); i++) {
    uint64_t w;
    if (!slot_agrees(q, i, &w))
      say(c, "error", "%s: slot %u {lap %llu, chunk %d} does not fit head %llu and tail %llu", where,
          i, (unsigned long long)cfn_slot_lap(w), (int)cfn_slot_ref(w) - 1,
          (unsigned long long)cfn_load_seq(q->head), (unsigned long long)cfn_load_seq(q->tail));
    if (cfn_slot_ref(w)) check_chunk_in_slot(c, where, &q->slot[i], w, target);
  }
}

/* ---- mailboxes, attachments ---- */

static void check_holder(checking_t *c, const char *name, const char *word, unsigned att) {
  if (att == 0) return;
  if (att > c->r->geo.config.attachments) {
    say(c, "error", "%s: its %s word names attachment %u of %u", name, word, att - 1,
        c->r->geo.config.attachments);
    return;
  }
  int life = cfn_life_of(c->r, att - 1, NULL, NULL);
  uint64_t pid;
  cfn_identity_of(c->r, att - 1, &pid);
  if (life == CFN_LIFE_DEAD)
    say(c, "warning", "%s: its %s, process %llu, is dead and not recycled yet", name, word,
        (unsigned long long)pid);
  if (life == CFN_LIFE_NONE)
    say(c, "error", "%s: its %s word names attachment %u, where nobody is", name, word, att - 1);
}

static void check_mailbox(checking_t *c, uint32_t i) {
  cfn_mailbox_shm_t *m = cfn_mailbox(c->r, i);
  uint64_t mid = cfn_load_seq(&m->mid);
  unsigned state = cfn_mid_state(mid);
  char name[CFN_NAME_BYTES], where[160];
  cfn_record_name(c->r, i, name);
  for (char *p = name; *p; p++)
    if (*p < 33 || *p > 126) *p = '?';
  if (state > CFN_MID_REMOVING) say(c, "error", "mailbox %u has state %u", i, state);
  if (state == CFN_MID_OPEN) {
    uint32_t index;
    uint64_t word;
    if (cfn_name_check(name, strlen(name), "name") < 0)
      say(c, "error", "mailbox %u has the impossible name '%s'", i, name);
    else if ((cfn_directory_find(c->r, CFN_KIND_AGENT, name, strlen(name), &index, &word) < 0 || index != i) &&
             cfn_load_seq(&m->mid) == mid)
      say(c, "error", "agent '%s' is not found under its name", name);
    unsigned owner = cfn_owner_att(cfn_load_seq(&m->owner));
    check_holder(c, name, "owner", owner == CFN_OWNER_DEAD ? 0 : owner);
    check_holder(c, name, "consumer", cfn_consumer_att(cfn_load_seq(&m->consumer)));
    for (unsigned t = 0; t < CFN_TEXTS; t++) {
      char text[CFN_TEXT_LONG_BYTES];
      if (!cfn_profile_text(c->r, i, t, text))
        say(c, "warning", "agent '%s': a text is half written (its writer died, or writes)", name);
    }
  } else if (state == CFN_MID_REMOVING) {
    say(c, "warning", "mailbox %u ('%s') is being removed", i, name);
  } else if (state != CFN_MID_FREE) {
    say(c, "warning", "mailbox %u ('%s') is being created", i, name);
  }
  for (unsigned l = 0; l < CFN_LANES; l++) {
    static const char *const lanes[CFN_LANES] = {"control", "high", "normal", "low"};
    cfn_ring_t q = cfn_ring_of_lane(c->r, i, l);
    snprintf(where, sizeof where, "agent '%s', %s lane", name, lanes[l]);
    check_ring(c, where, &q, cfn_target_word(CFN_TO_MAILBOX, l, i));
    uint64_t seen = cfn_load_seq(&m->lane[l].seen);
    if (cfn_place_position(seen) > cfn_load_seq(q.tail) + 1)
      say(c, "error", "%s: more was seen than was sent", where);
  }
}

static void check_attachment(checking_t *c, uint32_t i) {
  cfn_attach_shm_t *a = cfn_attachment(c->r, i);
  unsigned state = cfn_id_state(cfn_load_seq(&a->id));
  if (state > CFN_ID_LEAVING) say(c, "error", "attachment %u has state %u", i, state);
  if (state != CFN_ID_FREE && state != CFN_ID_VACANT) {
    bool free_byte;
    int life = cfn_life_of(c->r, i, NULL, &free_byte);
    uint64_t pid;
    cfn_identity_of(c->r, i, &pid);
    if (life == CFN_LIFE_DEAD)
      say(c, "warning", "process %llu (attachment %u) is dead and not recycled yet",
          (unsigned long long)pid, i);
    if (free_byte)
      say(c, "warning", "process %llu (attachment %u) lives but lost its life byte: some code closed "
          "descriptors that are not its own, or removed the bus's files", (unsigned long long)pid, i);
  }
  char where[64];
  snprintf(where, sizeof where, "replies of attachment %u", i);
  cfn_ring_t q = cfn_ring_of_replies(c->r, i);
  check_ring(c, where, &q, cfn_target_word(CFN_TO_REPLY, 0, i));
}

/* ---- chunks ---- */

static bool announced(const cfn_region_t *r, uint32_t att, uint32_t k) {
  for (unsigned cell = 0; cell < CFN_REGISTERS; cell++)
    if (cell != CFN_REG_CREATE &&
        cfn_load_seq(&cfn_attachment(r, att)->reg[cell]) == k + 1)
      return true;
  return false;
}

static bool referenced_now(const cfn_region_t *r, uint32_t k) {
  cfn_ring_t q;
  return cfn_ring_of_target(r, cfn_load_seq(&cfn_chunk(r, k)->target), &q) && cfn_ring_holds(&q, k);
}

/* Is somebody about to free it, or still filling it? */
static bool in_hand(checking_t *c, uint32_t k, uint64_t own) {
  const cfn_region_t *r = c->r;
  uint32_t who = cfn_own_who(own);
  if (cfn_own_state(own) == CFN_DONE) { /* freed by who moves the head, not by who acked it */
    for (uint32_t i = 0; i < r->geo.config.attachments; i++)
      if (announced(r, i, k)) return true;
    return false;
  }
  if (who >= r->geo.config.attachments) return false;
  unsigned state = cfn_id_state(cfn_load_seq(&cfn_attachment(r, who)->id));
  return state != CFN_ID_VACANT && state != CFN_ID_FREE && announced(r, who, k);
}

static void check_chunk(checking_t *c, uint32_t k) {
  cfn_a64 *word = &cfn_chunk(c->r, k)->own;
  if (c->references[k] > 1) say(c, "error", "chunk %u stands in %u slots", k, c->references[k]);
  uint64_t own = cfn_load_seq(word);
  for (int look = 0, still = 0; look < 16 * LOOKS; look++) {
    if (cfn_own_state(own) == CFN_FREE || referenced_now(c->r, k)) return;
    if (in_hand(c, k, own)) {
      say(c, "warning", "chunk %u is in the hands of attachment %u", k, cfn_own_who(own));
      return;
    }
    uint64_t now = cfn_load_seq(word);
    still = now == own ? still + 1 : 0;
    if (still == LOOKS) {
      say(c, "error", "chunk %u is leaked: state %u of attachment %u, in no ring, announced by nobody",
          k, cfn_own_state(own), cfn_own_who(own));
      return;
    }
    own = now;
  }
}

static void check_hints(checking_t *c) {
  const cfn_region_t *r = c->r;
  uint32_t lost = 0;
  for (unsigned cls = 0; cls < CFN_CLASSES; cls++)
    for (uint32_t i = 0; i < r->geo.config.class_chunks[cls]; i++) {
      uint32_t word = r->geo.class_hint[cls] + i / 64;
      bool hinted = cfn_load_seq(&cfn_hints(r)[word]) >> (i % 64) & 1;
      uint64_t own = cfn_load_seq(&cfn_chunk(r, r->geo.class_first[cls] + i)->own);
      if (!hinted && cfn_own_state(own) == CFN_FREE && !cfn_hint_in_hand(r, cls, word)) lost++;
    }
  if (lost) say(c, "warning", "%u free chunks are found by nobody before a shortage (doctor --repair mends that)", lost);
}

/* ---- refs, blobs ---- */

static void check_ref(checking_t *c, uint32_t i) {
  const cfn_region_t *r = c->r;
  cfn_ref_shm_t *ref = cfn_ref(r, i);
  uint64_t mid = cfn_load_seq(&ref->mid);
  unsigned state = cfn_mid_state(mid);
  char key[CFN_KEY_BYTES];
  size_t bytes = cfn_record_key(r, cfn_record_of_ref(r, i), key);
  char shown[CFN_KEY_BYTES];
  size_t mark = bytes > 2 && key[0] == CFN_KEY_OURS ? 2 : 0; /* a lock, and so on: by its name */
  for (size_t k = mark; k <= bytes; k++) shown[k - mark] = key[k] && (key[k] < 32 || key[k] == 127) ? '?' : key[k];
  uint64_t w = cfn_load_seq(&ref->word);
  uint32_t blob = cfn_ref_blob(w), index;
  uint64_t word;
  if (cfn_load_seq(&ref->mid) != mid) return; /* moved on meanwhile */
  if (state > CFN_MID_REMOVING) say(c, "error", "named value %u has state %u", i, state);
  if (blob == CFN_REF_CLOSED || state == CFN_MID_REMOVING) {
    if (state != CFN_MID_FREE) say(c, "warning", "the record of value '%s' is being taken back", shown);
    return;
  }
  if (state != CFN_MID_OPEN) {
    if (state != CFN_MID_FREE) say(c, "warning", "named value %u ('%s') is being created", i, shown);
    return;
  }
  if ((cfn_directory_find(r, CFN_KIND_REF, key, bytes, &index, &word) < 0 || index != cfn_record_of_ref(r, i)) &&
      cfn_load_seq(&ref->mid) == mid)
    say(c, "error", "value '%s' is not found under its key", shown);
  uint32_t holder;
  if (cfn_lease_held(w, &holder)) {
    bool there = holder >= r->geo.config.attachments || cfn_life_of(c->r, holder, NULL, NULL) != CFN_LIFE_NONE;
    if (there || cfn_load_seq(&ref->word) == w) check_holder(c, shown, "holder", holder + 1); /* else it was given back */
    return;
  }
  if (cfn_lease_died(w)) {
    say(c, "warning", "the last holder of '%s' died holding it; the next one is told", shown);
    return;
  }
  if (blob > r->geo.config.objects)
    say(c, "error", "value '%s' names object %u of %u", shown, blob - 1, r->geo.config.objects);
  else if (blob && !blob_there(r, blob) && cfn_load_seq(&ref->word) == w)
    say(c, "error", "value '%s' names an object that is not there", shown);
}

/* Are all pages of a blob its own? */
static void check_blob(checking_t *c, uint32_t b) {
  const cfn_region_t *r = c->r;
  cfn_blob_shm_t *record = cfn_blob_record(r, b);
  uint64_t st = cfn_load_seq(&record->st);
  unsigned state = cfn_own_state(st), who = cfn_own_who(st);
  if (state > CFN_BLOB_SPILLED) say(c, "error", "object %u has state %u", b, state);
  if (state == CFN_BLOB_FILL || state == CFN_BLOB_SPILLING) {
    const char *doing = state == CFN_BLOB_FILL ? "written" : "put on disk";
    if (who >= r->geo.config.attachments) {
      say(c, "error", "object %u is being %s by attachment %u of %u", b, doing, who, r->geo.config.attachments);
      return;
    }
    bool announced_there = false;
    for (unsigned k = 0; k < CFN_LEDGER; k++)
      announced_there |= cfn_ledger_names(cfn_load_seq(&cfn_attachment(r, who)->ledger[k])) == b + 1;
    bool lent = state == CFN_BLOB_FILL && cfn_load_relaxed(&record->bytes) == CFN_BLOB_LENT;
    if (announced_there && lent) return; /* for as long as its holder likes */
    if (announced_there) say(c, "warning", "object %u is being %s by attachment %u", b, doing, who);
    else if (cfn_load_seq(&record->st) == st)
      say(c, "warning", "object %u is being %s by nobody; the next collection takes it back", b, doing);
  }
  cfn_blob_t blob;
  int e = cfn_heap_look(r, b, &blob);
  if (e == CFN_CORRUPT) say(c, "error", "object %u: %llu bytes do not fit its pages", b, (unsigned long long)blob.bytes);
  if (e != CFN_OK || !blob.data) return;
  uint32_t first = (uint32_t)(((uint64_t)(blob.data - r->base) - r->geo.heap_at) / CFN_PAGE);
  uint64_t want = cfn_names_word(blob.life & CFN_LAP_MASK, b + 1);
  for (uint32_t p = 0; (uint64_t)p * CFN_PAGE < blob.bytes; p++) {
    if (cfn_load_seq(cfn_page_word(r, first + p)) == want) continue;
    if (cfn_load_seq(&record->life) == blob.life && cfn_own_state(cfn_load_seq(&record->st)) != CFN_BLOB_DEAD)
      say(c, "error", "object %u: its page %u belongs to another", b, first + p);
    return;
  }
}

/* Has everything that is on disk alone its file there? */
static void check_spilled(checking_t *c) {
  const cfn_region_t *r = c->r;
  int dir = r->super.spill[0] ? cfn_spill_of_bus(r, false) : CFN_EMPTY;
  if (dir < 0 && dir != CFN_EMPTY) say(c, "error", "%s", cfn_last_failure()->text);
  for (uint32_t b = 0; b < r->geo.config.objects; b++) {
    cfn_blob_t blob;
    uint64_t st;
    int e = cfn_heap_look_spilled(r, b, &blob, &st);
    if (e == CFN_CORRUPT) say(c, "error", "object %u: one of %llu bytes is not put on disk", b, (unsigned long long)blob.bytes);
    if (e != CFN_OK || (dir >= 0 && cfn_spill_has(dir, b, cfn_own_ver(st), blob.bytes))) continue;
    if (cfn_load_seq(&cfn_blob_record(r, b)->st) == st)
      say(c, "error", "object %u was put on disk, and is not there: %s/%u.%llu", b, r->super.spill, b,
          (unsigned long long)cfn_own_ver(st));
  }
  if (dir >= 0) close(dir);
}

static void check_index(checking_t *c) {
  const cfn_region_t *r = c->r;
  for (uint32_t s = 0; s < r->geo.index_slots; s++) {
    uint64_t w = cfn_load_seq(&cfn_index(r)[s]);
    uint32_t blob = cfn_names_blob(w);
    if (blob == 0) continue;
    if (blob > r->geo.config.objects)
      say(c, "error", "index slot %u names object %u of %u", s, blob - 1, r->geo.config.objects);
    else if (!blob_there(r, blob) && !on_disk(r, blob) && cfn_load_seq(&cfn_index(r)[s]) == w)
      say(c, "error", "index slot %u names object %u, which is not there", s, blob - 1);
  }
}

static void check_ledger(checking_t *c, uint32_t i) {
  for (unsigned k = 0; k < CFN_LEDGER; k++) {
    uint32_t blob = cfn_ledger_names(cfn_load_seq(&cfn_attachment(c->r, i)->ledger[k]));
    if (blob > c->r->geo.config.objects)
      say(c, "error", "attachment %u holds object %u of %u", i, blob - 1, c->r->geo.config.objects);
  }
}

static void check_directory(checking_t *c) {
  cfn_region_t *r = c->r;
  uint64_t intent = cfn_load_seq(&cfn_state(r)->intent);
  if (cfn_intent_record(intent)) {
    if (cfn_intent_record(intent) > r->geo.records)
      say(c, "error", "the directory's intent names record %u of %u", cfn_intent_record(intent) - 1,
          r->geo.records);
    else
      say(c, "warning", "a change of the directory is pending; the next one finishes it");
  }
  for (uint32_t s = 0; s < r->geo.config.directory_slots; s++) {
    uint64_t d = cfn_load_seq(&cfn_directory(r)[s]);
    uint32_t value = cfn_dir_value(d);
    if (value == 0 || value == CFN_DIR_TOMB) continue;
    if (value > r->geo.records) {
      say(c, "error", "directory slot %u names record %u of %u", s, value - 1, r->geo.records);
      continue;
    }
    unsigned state = cfn_mid_state(cfn_load_seq(cfn_record_state(r, value - 1)));
    if (state != CFN_MID_OPEN && state != CFN_MID_PEND &&
        cfn_load_seq(&cfn_directory(r)[s]) == d && !cfn_intent_record(intent))
      say(c, "error", "directory slot %u names record %u, which is not registered (state %u)", s,
          value - 1, state);
  }
}

int cfn_region_check(cfn_region_t *r, cfn_check_report_t report, void *context) {
  checking_t c = {r, report, context, 0, calloc(r->geo.chunks, 1)};
  if (!c.references) return cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory to check the bus");
  uint64_t state = cfn_load_seq(&cfn_state(r)->state);
  if (state == CFN_BUS_RETIRED) say(&c, "warning", "the bus was destroyed");
  else if (state != CFN_BUS_OK) say(&c, "error", "the bus has state %llu", (unsigned long long)state);
  check_super(&c);
  check_directory(&c);
  for (uint32_t i = 0; i < r->geo.config.agents; i++) check_mailbox(&c, i);
  for (uint32_t i = 0; i < r->geo.config.attachments; i++) check_attachment(&c, i);
  for (uint32_t k = 0; k < r->geo.chunks; k++) check_chunk(&c, k);
  check_hints(&c);
  for (uint32_t i = 0; i < r->geo.config.attachments; i++) check_ledger(&c, i);
  for (uint32_t i = 0; i < r->geo.config.refs; i++) check_ref(&c, i);
  for (uint32_t b = 0; b < r->geo.config.objects; b++) check_blob(&c, b);
  check_spilled(&c);
  check_index(&c);
  uint64_t dropped = cfn_load_relaxed(&cfn_state(r)->corrupt_dropped);
  if (dropped)
    say(&c, "warning", "%llu messages were dropped as corrupt since the bus was created",
        (unsigned long long)dropped);
  free(c.references);
  return c.errors;
}
