/* Named values through a handle. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/bus.h"
#include "agent/bus_ref.h"
#include "agent/reap.h"
#include "sync/refs.h"

#define RING (CFN_RING_WAITERS | CFN_RING_ALL)
#define TRIES 1000 /* lock-free: each turn that is lost was somebody else's success */

/* Is it UTF-8, shortest forms only and no surrogates? Then every language can name it. */
static bool is_utf8(const uint8_t *p, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes;) {
    unsigned more = p[i] < 0x80 ? 0 : p[i] >= 0xc2 && p[i] < 0xe0 ? 1 : (p[i] & 0xf0) == 0xe0 ? 2
                    : p[i] >= 0xf0 && p[i] < 0xf5 ? 3 : 4;
    if (more == 4 || bytes - i <= more) return false;
    for (unsigned k = 1; k <= more; k++)
      if ((p[i + k] & 0xc0) != 0x80) return false;
    if ((p[i] == 0xe0 && p[i + 1] < 0xa0) || (p[i] == 0xed && p[i + 1] >= 0xa0) || (p[i] == 0xf0 && p[i + 1] < 0x90) ||
        (p[i] == 0xf4 && p[i + 1] >= 0x90))
      return false;
    i += 1 + more;
  }
  return true;
}

static int check_name(const char *what, const char *name, uint32_t bytes, uint32_t most) {
  if (bytes == 0 || bytes > most)
    return cfn_fail(CFN_BAD_NAME, most, bytes, "%s has 1 to %u bytes, not %u", what, most, bytes);
  for (uint32_t i = 0; i < bytes; i++)
    if ((unsigned char)name[i] < 32 || name[i] == 127)
      return cfn_fail(CFN_BAD_NAME, 0, i, "%s may not hold control characters (byte %u)", what, i);
  if (!is_utf8((const uint8_t *)name, bytes)) return cfn_fail(CFN_BAD_NAME, 0, 0, "%s must be UTF-8", what);
  return CFN_OK;
}
static int check_key(const char *key, uint32_t bytes) { return check_name("a key", key, bytes, CFN_KEY_BYTES - 1); }

int cfn_ref_key_of(const char *what, char kind, const char *name, uint32_t bytes, cfn_ref_key_t *out) {
  int r = check_name(what, name, bytes, CFN_KEY_BYTES - 3);
  if (r < 0) return r;
  *out = (cfn_ref_key_t){.bytes = bytes + 2};
  out->text[0] = CFN_KEY_OURS;
  out->text[1] = kind;
  memcpy(out->text + 2, name, bytes);
  return CFN_OK;
}

static int fail_unknown(const cfn_bus_t *bus, const char *key, uint32_t bytes) {
  return cfn_fail(CFN_UNKNOWN_KEY, 0, 0, "bus '%s' has no value '%.*s'", bus->region->name, (int)bytes, key);
}
static int fail_conflict(const char *key, uint32_t bytes, uint64_t have, uint64_t want) {
  if (want == 0)
    return cfn_fail(CFN_CONFLICT, (int64_t)have, 0, "'%.*s' has a value already (version %" PRIu64 ")", (int)bytes, key, have);
  return cfn_fail(CFN_CONFLICT, (int64_t)have, (int64_t)want,
                  "'%.*s' was changed meanwhile: it has version %" PRIu64 " and not %" PRIu64, (int)bytes, key, have, want);
}
static int fail_again(const char *key, uint32_t bytes) {
  uint32_t mark = bytes && key[0] == CFN_KEY_OURS ? 2 : 0;
  key += mark;
  bytes -= mark;
  return cfn_fail(CFN_AGAIN, 0, 0, "'%.*s' changes faster than it can be changed", (int)bytes, key);
}

static bool has_value(uint64_t word) { return cfn_ref_blob(word) && cfn_ref_blob(word) != CFN_REF_CLOSED; }

int cfn_ref_load(cfn_bus_t *bus, const char *key, uint32_t bytes, bool create, cfn_ref_at_t *at, uint64_t *word) {
  const cfn_region_t *r = bus->region;
  for (int tries = 0; tries < TRIES; tries++) {
    cfn_a64 *creating = &bus->actor.slot->reg[CFN_REG_CREATE];
    int e = create ? cfn_refs_create(r, bus->actor.me, creating, key, bytes, at) : cfn_refs_find(r, key, bytes, at);
    if (e == CFN_OVER_CAPACITY && cfn_reap_all(&bus->actor) > 0) /* the dead held some */
      e = cfn_refs_create(r, bus->actor.me, creating, key, bytes, at);
    if (e == CFN_OVER_CAPACITY)
      return cfn_fail(e, r->geo.config.refs, r->geo.config.refs + 1,
                      "bus '%s' has room for %u named values and all are in use; delete some (a lock "
                      "whose holder died keeps its name until somebody takes it: cfnshm lock), or make the bus with more "
                      "agents, which brings more of them", r->name, r->geo.config.refs);
    if (e == CFN_AGAIN) return fail_again(key, bytes);
    if (e < 0) return e;
    if (cfn_refs_load(r, at, word) == CFN_OK) return CFN_OK;
  }
  return fail_again(key, bytes);
}

/* CFN_OK if the word is as expected. */
static int expected(const cfn_bus_t *bus, const char *key, uint32_t bytes, uint64_t word, uint64_t expect) {
  if (expect == CFN_ANY_VERSION) return CFN_OK;
  uint64_t version = has_value(word) ? cfn_ref_version(word) : 0;
  if (version == expect) return CFN_OK;
  return version ? fail_conflict(key, bytes, version, expect) : fail_unknown(bus, key, bytes);
}

int cfn_ref_set(cfn_bus_t *bus, const char *key, uint32_t key_bytes, uint64_t expect, unsigned codec, const void *data,
                uint64_t bytes, unsigned rings, uint64_t *version) {
  cfn_ref_at_t at;
  uint64_t word;
  int r = cfn_ref_load(bus, key, key_bytes, expect == 0 || expect == CFN_ANY_VERSION, &at, &word);
  if (r == CFN_UNKNOWN_KEY) return fail_unknown(bus, key, key_bytes);
  if (r == CFN_OK) r = expected(bus, key, key_bytes, word, expect); /* before anything is copied */
  if (r < 0) return r;
  cfn_hold_t h;
  cfn_filling_t f;
  r = cfn_bus_store(bus, NULL, codec, data, bytes, &h, &f);
  if (r < 0) return r;
  for (int tries = 0; tries < TRIES; tries++) {
    /* dies here: the blob is held by our ledger alone, and goes with it */
    r = cfn_refs_swap(bus->region, &at, word, f.blob + 1, bus->mailbox, rings, version);
    if (r == CFN_OK) break;
    r = cfn_ref_load(bus, key, key_bytes, expect == 0 || expect == CFN_ANY_VERSION, &at, &word);
    if (r == CFN_UNKNOWN_KEY) r = fail_unknown(bus, key, key_bytes);
    if (r == CFN_OK) r = expected(bus, key, key_bytes, word, expect);
    if (r < 0) break;
    r = CFN_AGAIN;
  }
  if (r != CFN_OK) cfn_heap_abandon(bus->region, &f);
  cfn_ledger_clear(&h); /* AFTER the ref has it */
  return r == CFN_AGAIN ? fail_again(key, key_bytes) : r;
}

static int entered_with(cfn_bus_t *bus, const char *key, uint32_t bytes) {
  int r = check_key(key, bytes);
  return r < 0 ? r : cfn_bus_enter(bus);
}

int cfn_bus_ref_set(cfn_bus_t *bus, const char *key, uint32_t key_bytes, uint64_t expect, unsigned codec,
                    const void *data, uint64_t bytes, uint64_t *version) {
  int r = entered_with(bus, key, key_bytes);
  if (r < 0) return r;
  r = cfn_ref_set(bus, key, key_bytes, expect, codec, data, bytes, RING, version);
  return cfn_bus_left(bus, r);
}

/* Copies the value that `word` of the ref names: its size; CFN_STALE: it is not that any more, look again. */
static int64_t copy_value(cfn_bus_t *bus, const cfn_ref_at_t *at, uint64_t word, void *out, uint64_t room,
                          cfn_ref_info_t *info) {
  const cfn_region_t *r = bus->region;
  cfn_ref_shm_t *ref = cfn_ref(r, at->ref);
  uint32_t b = cfn_ref_blob(word) - 1;
  if (b >= r->geo.config.objects) return cfn_fail(CFN_CORRUPT, 0, 0, "a named value has no object; see cfnshm doctor");
  cfn_blob_t blob;
  int e = cfn_heap_look(r, b, &blob);
  bool fits = out && blob.bytes <= room;
  if (e == CFN_OK && !blob.data && fits) e = cfn_heap_copy_few(r, b, &blob, out);
  cfn_hold_t h = {NULL, 0};
  if (e == CFN_OK && blob.data && fits) { /* too much to be sure of it without holding it */
    if (!cfn_ledger_find(r, bus->actor.me, &h))
      return cfn_fail(CFN_OVER_CAPACITY, CFN_LEDGER, CFN_LEDGER + 1, "this handle holds %u objects in place, the most it "
                      "can; release some views", CFN_LEDGER);
    e = cfn_heap_hold(r, &h, b);
  }
  if (e == CFN_OK && fits && h.cell) {
    /* While the ref still names it, what we hold is the same blob that we looked at. */
    if (cfn_load_seq(&ref->word) == word) cfn_copy_out(out, blob.data, blob.bytes);
    else e = CFN_STALE;
    cfn_ledger_clear(&h);
  }
  if (info) {
    info->version = cfn_ref_version(word);
    info->bytes = blob.bytes; /* 0 if it makes no sense */
    info->codec = blob.codec;
    /* acquire: read before the word is looked at again */
    info->changed_wall_ns = cfn_load_acquire(&ref->changed_wall_ns);
    uint64_t by = cfn_load_acquire(&ref->changed_by);
    info->changed_by = cfn_ref_change_version(by) == info->version ? cfn_ref_change_who(by) : 0;
  }
  if (cfn_load_seq(&ref->word) != word) return CFN_STALE; /* LAST */
  if (e == CFN_CORRUPT || e == CFN_STALE)
    return cfn_fail(CFN_CORRUPT, 0, 0, "the object of a named value makes no sense; see cfnshm doctor");
  return e < 0 ? e : (int64_t)blob.bytes;
}

int64_t cfn_ref_get(cfn_bus_t *bus, const char *key, uint32_t key_bytes, void *out, uint64_t room, cfn_ref_info_t *info,
                    cfn_ref_at_t *at, uint64_t *word) {
  for (int tries = 0; tries < TRIES; tries++) {
    int64_t r = cfn_ref_load(bus, key, key_bytes, false, at, word);
    if (r < 0) return r;
    if (!has_value(*word)) return CFN_UNKNOWN_KEY;
    r = copy_value(bus, at, *word, out, room, info);
    if (r != CFN_STALE) return r;
  }
  return fail_again(key, key_bytes);
}

int cfn_ref_read(cfn_bus_t *bus, const cfn_ref_key_t *key, uint64_t spare, cfn_ref_value_t *v) {
  for (;;) {
    int64_t n = cfn_ref_get(bus, key->text, key->bytes, v->data, v->room > spare ? v->room - spare : 0, NULL, &v->at, &v->word);
    v->version = n < 0 ? 0 : cfn_ref_version(v->word);
    v->bytes = n < 0 ? 0 : (uint64_t)n;
    if (n < 0 && n != CFN_UNKNOWN_KEY) return (int)n;
    if (v->data && v->bytes + spare <= v->room) return CFN_OK;
    uint8_t *more = realloc(v->data, v->room = v->bytes + spare + 256);
    if (!more) return cfn_fail(CFN_NO_MEMORY, 0, (int64_t)v->room, "no memory for a value of %" PRIu64 " bytes", v->bytes);
    v->data = more;
  }
}

int cfn_ref_write(cfn_bus_t *bus, const cfn_ref_key_t *key, unsigned rings, cfn_ref_value_t *v) {
  uint64_t version;
  if (v->bytes == 0)
    return v->version ? cfn_refs_swap(bus->region, &v->at, v->word, 0, bus->mailbox, rings, &version) : CFN_OK;
  int r = cfn_ref_set(bus, key->text, key->bytes, v->version, CFN_CODEC_RAW, v->data, v->bytes, rings, &version);
  return r == CFN_CONFLICT || r == CFN_UNKNOWN_KEY ? CFN_AGAIN : r;
}

int cfn_ref_arm(cfn_bus_t *bus, const cfn_ref_value_t *v, cfn_event_shm_t **event, uint32_t *armed) {
  uint64_t now;
  *event = &cfn_ref(bus->region, v->at.ref)->event;
  *armed = cfn_event_arm(*event);
  return cfn_refs_load(bus->region, &v->at, &now) == CFN_OK && now == v->word ? CFN_OK : CFN_AGAIN; /* AFTER arming */
}

static bool still_that(const cfn_bus_t *bus, uint64_t id) {
  if ((id & 0xffff) >= bus->region->geo.config.attachments) return false;
  uint64_t w = cfn_load_seq(&cfn_attachment(bus->region, (uint32_t)(id & 0xffff))->id);
  return cfn_id_state(w) == CFN_ID_LIVE && (cfn_id_inc(w) & 0xffffffffffu) == id >> 16;
}

bool cfn_life_id_lives(const cfn_bus_t *bus, uint64_t id) {
  if (!still_that(bus, id)) return false; /* without a system call: it left, or was reaped */
  return cfn_life_of(bus->region, (uint32_t)(id & 0xffff), NULL, NULL) == CFN_LIFE_ALIVE && still_that(bus, id);
}

void cfn_life_id_names(const cfn_bus_t *bus, uint64_t id, char agent[CFN_NAME_BYTES], uint64_t *pid) {
  agent[0] = 0;
  *pid = 0;
  if (!still_that(bus, id)) return;
  cfn_identity_of(bus->region, (uint32_t)(id & 0xffff), pid);
  uint64_t mailbox = cfn_load_acquire(&cfn_attachment(bus->region, (uint32_t)(id & 0xffff))->agent);
  if (mailbox && mailbox <= bus->region->geo.config.agents) cfn_record_name(bus->region, (uint32_t)mailbox - 1, agent);
  if (still_that(bus, id)) return; /* LAST */
  agent[0] = 0;
  *pid = 0;
}

int64_t cfn_bus_ref_get(cfn_bus_t *bus, const char *key, uint32_t key_bytes, void *out, uint64_t room,
                        cfn_ref_info_t *info) {
  int64_t r = entered_with(bus, key, key_bytes);
  if (r < 0) return r;
  cfn_ref_at_t at;
  uint64_t word;
  r = cfn_ref_get(bus, key, key_bytes, out, room, info, &at, &word);
  if (r == CFN_UNKNOWN_KEY) fail_unknown(bus, key, key_bytes);
  if (info) {
    memset(info->key, 0, sizeof info->key);
    memcpy(info->key, key, key_bytes);
  }
  if (cfn_region_lost(bus->region)) r = cfn_bus_lost(bus);
  cfn_bus_leave(bus);
  return r;
}

int cfn_bus_ref_delete(cfn_bus_t *bus, const char *key, uint32_t key_bytes, uint64_t expect) {
  int r = entered_with(bus, key, key_bytes);
  if (r < 0) return r;
  for (int tries = 0;; tries++) {
    cfn_ref_at_t at;
    uint64_t word, version;
    r = cfn_ref_load(bus, key, key_bytes, false, &at, &word);
    if (r == CFN_OK && !has_value(word)) r = CFN_UNKNOWN_KEY;
    if (r == CFN_UNKNOWN_KEY) fail_unknown(bus, key, key_bytes);
    if (r == CFN_OK) r = expected(bus, key, key_bytes, word, expect);
    if (r == CFN_OK) r = cfn_refs_swap(bus->region, &at, word, 0, bus->mailbox, RING, &version);
    if (r != CFN_AGAIN) break;
    if (tries == TRIES) {
      r = fail_again(key, key_bytes);
      break;
    }
  }
  return cfn_bus_left(bus, r);
}

static int fail_no_number(const char *key, uint32_t key_bytes) {
  return cfn_fail(CFN_INVALID, 0, 0, "'%.*s' holds no whole number of 64 bits, so nothing can be added to it", (int)key_bytes,
                  key);
}

int cfn_bus_ref_add(cfn_bus_t *bus, const char *key, uint32_t key_bytes, int64_t delta, int64_t *sum,
                    uint64_t *version) {
  int r = entered_with(bus, key, key_bytes);
  if (r < 0) return r;
  for (int tries = 0; tries < TRIES; tries++) {
    char text[32];
    cfn_ref_at_t at;
    uint64_t word = 0;
    cfn_ref_info_t info = {.codec = CFN_CODEC_JSON};
    int64_t n = cfn_ref_get(bus, key, key_bytes, text, sizeof text - 1, &info, &at, &word), was = 0;
    if (n < 0 && n != CFN_UNKNOWN_KEY) {
      r = (int)n;
      break;
    }
    if (n >= 0) {
      char *end = NULL;
      if (n > 0 && n < (int64_t)sizeof text) {
        text[n] = 0;
        errno = 0;
        was = strtoll(text, &end, 10);
      }
      if (!end || end != text + n || errno || info.codec != CFN_CODEC_JSON || !strchr("-0123456789", text[0])) {
        r = fail_no_number(key, key_bytes);
        break;
      }
    }
    if (__builtin_add_overflow(was, delta, sum)) {
      r = cfn_fail(CFN_INVALID, was, delta, "%" PRId64 " and %" PRId64 " make no number of 64 bits", was, delta);
      break;
    }
    int bytes = snprintf(text, sizeof text, "%" PRId64, *sum);
    r = cfn_ref_set(bus, key, key_bytes, n < 0 ? 0 : cfn_ref_version(word), CFN_CODEC_JSON, text, (uint64_t)bytes, RING,
                    version);
    if (r != CFN_CONFLICT && r != CFN_UNKNOWN_KEY) break;
    r = CFN_AGAIN;
  }
  if (r == CFN_AGAIN) fail_again(key, key_bytes);
  return cfn_bus_left(bus, r);
}

int64_t cfn_bus_ref_list(cfn_bus_t *bus, const char *prefix, uint32_t prefix_bytes, cfn_ref_info_t *out, uint64_t most) {
  int64_t n = cfn_bus_enter(bus);
  if (n < 0) return n;
  const cfn_region_t *r = bus->region;
  n = 0;
  for (uint32_t i = 0; i < r->geo.config.refs; i++) {
    for (int tries = 0; tries < TRIES; tries++) {
      cfn_ref_at_t at = {cfn_load_seq(&cfn_ref(r, i)->mid), i};
      cfn_ref_info_t info;
      uint64_t word;
      if (cfn_mid_state(at.mid) != CFN_MID_OPEN) break;
      cfn_record_key(r, cfn_record_of_ref(r, i), info.key);
      if (cfn_refs_load(r, &at, &word) != CFN_OK) continue; /* LAST: its name was that one's */
      if (!has_value(word) || info.key[0] == CFN_KEY_OURS || strncmp(info.key, prefix, prefix_bytes) != 0) break;
      if (copy_value(bus, &at, word, NULL, 0, &info) == CFN_STALE) continue; /* damage of one hides no others */
      if ((uint64_t)n < most) out[n] = info;
      n++;
      break;
    }
  }
  if (cfn_region_lost(r)) n = cfn_bus_lost(bus);
  cfn_bus_leave(bus);
  return n;
}

/* ---- waiting ---- */

int cfn_bus_ref_wait(cfn_bus_t *bus, const char *key, uint32_t key_bytes, uint64_t seen, uint64_t deadline,
                     uint64_t *version) {
  int r = check_key(key, key_bytes);
  if (r < 0) return r;
  for (bool late = false;;) {
    r = cfn_bus_enter(bus);
    if (r < 0) return r;
    cfn_ref_at_t at;
    uint64_t word = 0;
    cfn_event_shm_t *event = &cfn_state(bus->region)->refs.event; /* a key without a record: any change */
    uint32_t armed = 0;
    bool moved = false;
    cfn_ref_at_t before = {0, 0};
    for (int look = 0; look < 2; look++) { /* AFTER arming, again */
      at = (cfn_ref_at_t){0, 0};
      r = cfn_ref_load(bus, key, key_bytes, false, &at, &word);
      *version = r == CFN_OK && has_value(word) ? cfn_ref_version(word) : 0;
      bool settled = (r < 0 && r != CFN_UNKNOWN_KEY) || *version != seen;
      if (settled) {
        if (r == CFN_UNKNOWN_KEY) r = CFN_OK;
        return cfn_bus_left(bus, r);
      }
      moved = look && (at.mid != before.mid || at.ref != before.ref); /* the name has another record: other event */
      before = at;
      if (look == 0 && r == CFN_OK) event = &cfn_ref(bus->region, at.ref)->event;
      if (look == 0) armed = cfn_event_arm(event);
    }
    if (moved) {
      cfn_bus_leave(bus);
      continue;
    }
    r = cfn_bus_sleep(bus, event, armed, CFN_WAIT_REF, r == CFN_OK ? at.ref : 0xffffffffu, NULL, deadline);
    if (r == CFN_TIMEOUT && late)
      return cfn_fail(r, (int64_t)seen, 0, "timed out: '%.*s' was not changed", (int)key_bytes, key);
    if (r < 0 && r != CFN_TIMEOUT) return r;
    late = r == CFN_TIMEOUT; /* look once more */
  }
}

int cfn_bus_refs_arm(cfn_bus_t *bus, uint32_t *armed) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  *armed = cfn_event_arm(&cfn_state(bus->region)->refs.event);
  return cfn_bus_left(bus, r);
}

int cfn_bus_refs_sleep(cfn_bus_t *bus, uint32_t armed, uint64_t deadline) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = cfn_bus_sleep(bus, &cfn_state(bus->region)->refs.event, armed, CFN_WAIT_REF, 0xffffffffu, NULL, deadline);
  if (r == CFN_TIMEOUT) cfn_fail(r, 0, 0, "timed out: no named value was changed");
  return r;
}
