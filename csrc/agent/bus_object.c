/* Objects through a handle: put, get, pin, delete, list. */
#include <stdio.h>
#include <string.h>

#include "agent/bus_ref.h"
#include "agent/reap.h"
#include "base/os.h"
#include "mem/evict.h"
#include "mem/index.h"

#define TRIES 64

static int no_cell(void) {
  return cfn_fail(CFN_OVER_CAPACITY, CFN_PINS, CFN_PINS + 1,
                  "one handle can hold at most %u objects in place at a time; release some views, or read copies", CFN_PINS);
}

/* `code` and `disk` say what was missing: records, or pages and why others could not go to disk. */
static int fail_no_room(cfn_bus_t *bus, int code, uint64_t bytes, const char *disk) {
  const cfn_region_t *r = bus->region;
  cfn_heap_room_t room;
  cfn_heap_room(r, &room);
  if (code == CFN_OVER_CAPACITY)
    return cfn_fail(CFN_NO_SPACE, room.blobs, room.blobs + 1,
                    "all %u objects of bus '%s' are in use; delete some (bus.context.delete, del bus.state[key]), or make "
                    "the bus with more agents, which brings more of them", r->geo.config.objects, r->name);
  uint64_t free_bytes = (uint64_t)(r->geo.config.object_pages - room.pages) * CFN_PAGE;
  return cfn_fail(CFN_NO_SPACE, (int64_t)((uint64_t)room.longest * CFN_PAGE), (int64_t)bytes,
                  "%llu bytes in a row are not free in the heap of bus '%s': %.1f of %.1f MiB are free, %.1f MiB of them "
                  "in a row, and %u objects are in memory; %s; delete some, release views, or make the bus larger "
                  "(--size, CFNSHM_SIZE)", (unsigned long long)bytes, r->name, (double)free_bytes / (1 << 20),
                  (double)r->geo.config.object_pages * CFN_PAGE / (1 << 20),
                  (double)room.longest * CFN_PAGE / (1 << 20), room.blobs - room.spilled,
                  *disk ? disk : r->super.spill[0] ? "they are held, or values of bus.state" : "none may go to disk");
}

/* How it went so far. */
typedef struct making {
  cfn_in_the_way_t way;
  uint64_t since_ns; /* when somebody came to be in the way, or 0 */
  int turns;
} making_t;

/* Others are at work on what we need: a moment, and how long in all? One who is stopped in the middle of filling never ends. */
static int wait_a_moment(making_t *m, uint64_t bytes) {
  static cfn_a32 nobody_rings;
  uint64_t now = cfn_os_monotonic_ns();
  if (m->since_ns == 0) m->since_ns = now;
  if (now - m->since_ns > (m->way.works ? UINT64_C(3000000000) + bytes * 100 : UINT64_C(250000000))) return CFN_NO_SPACE;
  cfn_os_futex_wait(&nobody_rings, 0, 1000000);
  return CFN_OK;
}

/* One thing that makes room for `bytes` where `short_of` was missing: CFN_OK, something was done, or waited for; CFN_NO_SPACE,
 * there is nothing left to do; else the disk's own error. Unless it `must`, only what is idle goes to disk for it. */
static int make_room(cfn_bus_t *bus, cfn_hold_t *h, int short_of, uint64_t bytes, bool must, making_t *m) {
  const cfn_region_t *r = bus->region;
  cfn_bus_count(bus, CFN_COUNT_COLLECTS, 1);
  int e = cfn_heap_collect(r) ? CFN_OK : CFN_NO_SPACE;
  if (e != CFN_OK) { /* the dead held some of it, and left files that no state names */
    if (cfn_reap_all(&bus->actor) > 0) bus->swept = false;
    if (cfn_heap_collect(r)) e = CFN_OK;
  }
  if (e != CFN_OK && short_of == CFN_NO_SPACE) {
    if (!bus->swept) cfn_evict_sweep(r);
    bus->swept = true;
    e = cfn_evict(r, bus->actor.me, h, bytes, !must, &m->way);
    if (e == CFN_AGAIN) return wait_a_moment(m, bytes);
  }
  if (e == CFN_OK) m->since_ns = 0;
  return e == CFN_OK && ++m->turns == TRIES ? CFN_NO_SPACE : e;
}

static int fail_fenced(void) {
  return cfn_fail(CFN_AGENT_FENCED, 0, 0, "this process was judged dead while it stored something; open the bus again");
}

/* Why there is no room: what the disk said, if it was that. */
static void why_not_out(int made, char disk[200]) {
  disk[0] = 0;
  if (made != CFN_OK && made != CFN_NO_SPACE && made != CFN_AGENT_FENCED)
    snprintf(disk, 200, "%.199s", cfn_last_failure()->text);
}

static bool no_room(int e) { return e == CFN_NO_SPACE || e == CFN_OVER_CAPACITY; }

int cfn_bus_store_begin(cfn_bus_t *bus, uint64_t bytes, cfn_hold_t *h, cfn_filling_t *f) {
  const cfn_region_t *r = bus->region;
  char disk[200] = "";
  if (!cfn_ledger_find(r, bus->actor.me, h)) return no_cell();
  int e = cfn_heap_begin(r, bus->actor.me, h, bytes, f), made = CFN_OK;
  /* Values that were replaced are garbage until somebody needs their room: others may have taken by the next look what
   * we have freed. No space is what is left when nothing was freed, nobody was dead, nothing could go to disk, and it still
   * does not fit. */
  making_t making = {.turns = 0};
  while (no_room(e) && made == CFN_OK) {
    made = make_room(bus, h, e, bytes, true, &making);
    why_not_out(made, disk);
    e = cfn_heap_begin(r, bus->actor.me, h, bytes, f);
  }
  if (e == CFN_TOO_LARGE)
    return cfn_fail(e, (int64_t)r->geo.config.object_pages * CFN_PAGE, (int64_t)bytes,
                    "%llu bytes are more than the whole heap of bus '%s' has (%.1f MiB); make the bus larger (--size, "
                    "CFNSHM_SIZE)", (unsigned long long)bytes, r->name,
                    (double)r->geo.config.object_pages * CFN_PAGE / (1 << 20));
  if (no_room(e)) return fail_no_room(bus, e, bytes, disk);
  return e == CFN_OK ? e : fail_fenced();
}

int cfn_bus_store_end(cfn_bus_t *bus, const uint8_t *digest, unsigned codec, cfn_hold_t *h, cfn_filling_t *f) {
  if (cfn_heap_publish(bus->region, f, digest, codec)) return CFN_OK;
  cfn_ledger_clear(h);
  return fail_fenced();
}

int cfn_bus_store(cfn_bus_t *bus, const uint8_t *digest, unsigned codec, const void *data, uint64_t bytes,
                  cfn_hold_t *h, cfn_filling_t *f) {
  int e = cfn_bus_store_begin(bus, bytes, h, f);
  if (e < 0) return e;
  if (bytes) cfn_copy_in(f->data, data, bytes);
  return cfn_bus_store_end(bus, digest, codec, h, f);
}

/* ---- objects ---- */

static int fail_record(void) {
  return cfn_fail(CFN_CORRUPT, 0, 0, "the record of an object makes no sense; see cfnshm doctor");
}

/* The name of an object that is on disk alone, and its blob. */
typedef struct on_disk {
  cfn_a64 *slot;
  uint64_t word;
  uint32_t blob;
} on_disk_t;
enum { ON_DISK = 1 };

/* Holds the object of this digest by *h: CFN_OK; ON_DISK (not held; `disk` says where, and out->bytes); CFN_UNKNOWN_OBJECT
 * without a text, or another error. */
static int hold(cfn_bus_t *bus, const uint8_t digest[32], cfn_hold_t *h, cfn_blob_t *out, on_disk_t *disk) {
  const cfn_region_t *r = bus->region;
  if (!cfn_ledger_find(r, bus->actor.me, h)) return no_cell();
  uint32_t at = 0, b;
  cfn_a64 *slot;
  uint64_t word, st;
  for (int tries = 0; cfn_index_find(r, digest, &at, &slot, &word, &b) == CFN_OK;) {
    int e = cfn_heap_look_spilled(r, b, out, &st);
    if (e == CFN_OK && cfn_load_seq(slot) == word) { /* LAST: as below */
      *disk = (on_disk_t){slot, word, b};
      return ON_DISK;
    }
    if (e == CFN_STALE && cfn_heap_hold(r, h, b) == CFN_OK) {
      e = cfn_heap_look(r, b, out);
      if (e == CFN_OK && cfn_load_seq(slot) == word) { /* LAST: named all the time, so it is that content */
        cfn_heap_touch(r, b);
        return CFN_OK;
      }
      cfn_ledger_clear(h);
    }
    if (e == CFN_CORRUPT) return fail_record();
    /* It went to disk, or came back, or was deleted and put again, while we looked: once more. */
    if (++tries == TRIES) return cfn_fail(CFN_AGAIN, 0, 0, "an object goes and comes all the time");
    at = 0;
  }
  return CFN_UNKNOWN_OBJECT;
}

/* As hold(), and what is on disk is brought back. Others that are in use have to go for it only if it `must` be in memory; if
 * there is no room: CFN_NO_SPACE, with a text if it must, and `disk` says where it is. */
static int fetch(cfn_bus_t *bus, const uint8_t digest[32], cfn_hold_t *h, cfn_blob_t *out, on_disk_t *disk, bool must) {
  const cfn_region_t *r = bus->region;
  char why[200] = "";
  int made = CFN_OK;
  making_t making = {.turns = 0};
  for (int tries = 0; tries < TRIES;) {
    int e = hold(bus, digest, h, out, disk);
    if (e != ON_DISK) return e;
    uint32_t b = disk->blob;
    e = cfn_recall(r, bus->actor.me, h, disk->slot, disk->word, &b);
    if (e == CFN_OK) {
      e = cfn_heap_look(r, b, out);
      if (e == CFN_OK) return e;
      cfn_ledger_clear(h);
      return e == CFN_CORRUPT ? fail_record() : fail_fenced(); /* we held it */
    }
    tries += e == CFN_STALE;
    if (e == CFN_STALE) continue;
    if (e == CFN_AGENT_FENCED) return fail_fenced();
    if (!no_room(e)) return e;
    if (made != CFN_OK) return must ? fail_no_room(bus, e, out->bytes, why) : CFN_NO_SPACE;
    made = make_room(bus, h, e, out->bytes, must, &making);
    why_not_out(made, why);
  }
  return cfn_fail(CFN_AGAIN, 0, 0, "an object goes to disk and comes back all the time: more are looked at than memory holds");
}

static int fail_unknown(const cfn_bus_t *bus, const uint8_t digest[32]) {
  char text[17];
  for (unsigned i = 0; i < 8; i++) {
    static const char hex[] = "0123456789abcdef";
    text[2 * i] = hex[digest[i] >> 4];
    text[2 * i + 1] = hex[digest[i] & 15];
  }
  text[16] = 0;
  return cfn_fail(CFN_UNKNOWN_OBJECT, 0, 0, "bus '%s' has no object sha256:%s...; it was never put here, or deleted",
                  bus->region->name, text);
}

static int put(cfn_bus_t *bus, const uint8_t digest[32], const void *data, uint64_t bytes, int *known) {
  const cfn_region_t *r = bus->region;
  cfn_hold_t h;
  cfn_blob_t there;
  on_disk_t disk;
  int e = hold(bus, digest, &h, &there, &disk);
  *known = e >= 0 && there.bytes == bytes;
  if (e == CFN_OK) cfn_ledger_clear(&h);
  if (*known) cfn_bus_count(bus, CFN_COUNT_PUT_BYTES, bytes);
  if (*known) return CFN_OK;
  if (e < 0 && e != CFN_UNKNOWN_OBJECT) return e;
  cfn_filling_t f;
  e = cfn_bus_store(bus, digest, CFN_CODEC_RAW, data, bytes, &h, &f);
  if (e < 0) return e;
  /* dies here: LIVE, without a name, held by our ledger: free when that is reaped */
  e = cfn_index_add(r, digest, f.blob);
  if (e != CFN_OK) {
    cfn_heap_abandon(r, &f);
    e = cfn_fail(e, 0, 0, "too many objects of bus '%s' have names that begin alike; delete some, or make the bus with more "
                 "agents, which brings a larger index", r->name);
  } else {
    cfn_bus_count(bus, CFN_COUNT_PUT_BYTES, bytes);
    cfn_bus_count(bus, CFN_COUNT_STORED_BYTES, bytes);
  }
  cfn_ledger_clear(&h); /* AFTER it has its name */
  return e;
}

int cfn_bus_object_put(cfn_bus_t *bus, const uint8_t digest[32], const void *data, uint64_t bytes, int *known) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = put(bus, digest, data, bytes, known);
  return cfn_bus_left(bus, r);
}

static int64_t get(cfn_bus_t *bus, const uint8_t digest[32], void *out, uint64_t room) {
  const cfn_region_t *r = bus->region;
  for (int tries = 0; tries < TRIES; tries++) {
    cfn_hold_t h;
    cfn_blob_t blob;
    on_disk_t disk;
    int e = hold(bus, digest, &h, &blob, &disk);
    if (e < 0) return e;
    if (e == ON_DISK && blob.bytes > room) return (int64_t)blob.bytes; /* only its size, or it needs more room first */
    if (e == ON_DISK) e = fetch(bus, digest, &h, &blob, &disk, false);
    if (no_room(e)) {
      e = cfn_recall_copy(r, disk.slot, disk.word, disk.blob, out, room);
      if (e == CFN_OK) return (int64_t)blob.bytes;
      if (e == CFN_STALE) continue;
    }
    if (e < 0) return e;
    bool fits = out && blob.bytes <= room;
    if (fits && blob.data) cfn_copy_out(out, blob.data, blob.bytes);
    else if (fits && cfn_heap_copy_few(r, blob.blob, &blob, out) != CFN_OK)
      e = CFN_UNKNOWN_OBJECT; /* we hold it: only if we were judged dead */
    cfn_ledger_clear(&h);
    return e < 0 ? e : (int64_t)blob.bytes;
  }
  return cfn_fail(CFN_AGAIN, 0, 0, "an object goes to disk and comes back all the time");
}

int64_t cfn_bus_object_get(cfn_bus_t *bus, const uint8_t digest[32], void *out, uint64_t room) {
  int64_t r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = get(bus, digest, out, room);
  if (r == CFN_UNKNOWN_OBJECT) fail_unknown(bus, digest);
  if (cfn_region_lost(bus->region)) r = cfn_bus_lost(bus);
  cfn_bus_leave(bus);
  return r;
}

int64_t cfn_bus_object_bytes(cfn_bus_t *bus, const uint8_t digest[32]) {
  return cfn_bus_object_get(bus, digest, NULL, 0);
}

unsigned cfn_bus_pins(cfn_bus_t *bus) {
  unsigned used = 0;
  for (unsigned i = 0; i < CFN_LEDGER; i++) used += cfn_names_blob(cfn_load_relaxed(&bus->actor.slot->ledger[i])) != 0;
  return used;
}

int cfn_bus_object_pin(cfn_bus_t *bus, const uint8_t digest[32], cfn_pin_t *out) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  cfn_hold_t h;
  cfn_blob_t blob;
  on_disk_t disk;
  r = cfn_bus_pins(bus) < CFN_PINS ? fetch(bus, digest, &h, &blob, &disk, true) : no_cell();
  if (r == CFN_OK) {
    const uint8_t *inside = (const uint8_t *)(const void *)cfn_blob_record(bus->region, blob.blob)->inside;
    *out = (cfn_pin_t){blob.data ? blob.data : inside, blob.bytes,
                       (uint64_t)(h.cell - bus->actor.slot->ledger) + 1, h.word};
    bus->region->keep_mapped = true; /* whoever looks at it later finds memory there */
  }
  if (r == CFN_UNKNOWN_OBJECT) fail_unknown(bus, digest);
  return cfn_bus_left(bus, r);
}

void cfn_bus_object_unpin(cfn_bus_t *bus, uint64_t pin, uint64_t word) {
  const cfn_failure_t keep = *cfn_last_failure(); /* this may be called by a collector of garbage, between others */
  if (pin == 0 || pin > CFN_LEDGER) return;
  if (cfn_bus_enter(bus) < 0) { /* closed: its cells were given back */
    cfn_fail(keep.code, keep.have, keep.want, "%s", keep.text);
    return;
  }
  cfn_ledger_clear(&(cfn_hold_t){&bus->actor.slot->ledger[pin - 1], word});
  cfn_bus_leave(bus);
}

int cfn_bus_object_delete(cfn_bus_t *bus, const uint8_t digest[32]) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  uint32_t at = 0, b, removed = 0;
  cfn_a64 *slot;
  uint64_t word;
  while (cfn_index_find(bus->region, digest, &at, &slot, &word, &b) == CFN_OK) { /* two may have been put at once */
    if (!cfn_index_remove(slot, word)) {
      at--; /* it came back from disk, and the name is another's by now */
      continue;
    }
    removed++;
    /* One that is SPILLING is seen by its spiller: it looks at the name when it is SPILLED. */
    uint64_t st = cfn_load_seq(&cfn_blob_record(bus->region, b)->st);
    if (cfn_own_state(st) == CFN_BLOB_SPILLED) cfn_heap_drop_spilled(bus->region, b, st);
  }
  r = removed ? CFN_OK : fail_unknown(bus, digest);
  return cfn_bus_left(bus, r);
}

int64_t cfn_bus_object_list(cfn_bus_t *bus, cfn_object_info_t *out, uint64_t most) {
  int64_t n = cfn_bus_enter(bus);
  if (n < 0) return n;
  const cfn_region_t *r = bus->region;
  n = 0;
  for (uint32_t s = 0; s < r->geo.index_slots; s++) {
    cfn_a64 *slot = cfn_index(r) + s;
    for (int tries = 0; tries < TRIES; tries++) {
      uint64_t word = cfn_load_seq(slot);
      uint32_t b = cfn_names_blob(word);
      if (b == 0 || b > r->geo.config.objects) break;
      cfn_blob_t blob;
      cfn_object_info_t info = {.spilled = 0};
      uint64_t st;
      if (cfn_heap_look(r, b - 1, &blob) != CFN_OK) {
        info.spilled = cfn_heap_look_spilled(r, b - 1, &blob, &st) == CFN_OK;
        if (!info.spilled && cfn_load_seq(slot) != word) continue;
        if (!info.spilled) break;
      }
      cfn_index_digest(r, b - 1, info.digest);
      info.bytes = blob.bytes;
      info.made_wall_ns = blob.made_wall_ns;
      if (cfn_load_seq(slot) != word) continue; /* LAST: what was read is what is named */
      if ((uint64_t)n < most) out[n] = info;
      n++;
      break;
    }
  }
  if (cfn_region_lost(r)) n = cfn_bus_lost(bus);
  cfn_bus_leave(bus);
  return n;
}

int cfn_bus_heap_info(cfn_bus_t *bus, cfn_heap_info_t *out) {
  int e = cfn_bus_enter(bus);
  if (e < 0) return e;
  const cfn_region_t *r = bus->region;
  cfn_heap_room_t room;
  cfn_heap_room(r, &room);
  *out = (cfn_heap_info_t){.bytes = room.bytes,
                           .heap_bytes = (uint64_t)r->geo.config.object_pages * CFN_PAGE,
                           .used_bytes = (uint64_t)room.pages * CFN_PAGE,
                           .longest_bytes = (uint64_t)room.longest * CFN_PAGE,
                           .spilled_bytes = room.spilled_bytes,
                           .spilled = room.spilled,
                           .objects = room.blobs,
                           .objects_most = r->geo.config.objects,
                           .refs_most = r->geo.config.refs};
  memcpy(out->spill, r->super.spill, sizeof out->spill);
  for (uint32_t i = 0; i < r->geo.config.refs; i++) {
    uint32_t blob = cfn_ref_blob(cfn_load_seq(&cfn_ref(r, i)->word));
    char key[CFN_KEY_BYTES];
    if (blob == 0 || blob > r->geo.config.objects) continue;
    cfn_record_key(r, cfn_record_of_ref(r, i), key);
    out->refs += key[0] != CFN_KEY_OURS; /* what means nothing without the processes that wait */
  }
  for (uint32_t i = 0; i < r->geo.config.attachments; i++) {
    out->put_bytes += cfn_load_relaxed(&cfn_attachment(r, i)->counter[CFN_COUNT_PUT_BYTES]);
    out->stored_bytes += cfn_load_relaxed(&cfn_attachment(r, i)->counter[CFN_COUNT_STORED_BYTES]);
  }
  return cfn_bus_left(bus, CFN_OK);
}

int cfn_bus_collect(cfn_bus_t *bus) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = (int)cfn_heap_collect(bus->region);
  return cfn_bus_left(bus, r);
}

int cfn_bus_evict(cfn_bus_t *bus, uint64_t bytes) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  cfn_hold_t h;
  char disk[200] = "";
  r = cfn_ledger_find(bus->region, bus->actor.me, &h) ? CFN_OK : no_cell();
  cfn_heap_room_t room;
  making_t making = {.turns = 0};
  while (r == CFN_OK) {
    cfn_heap_room(bus->region, &room);
    if ((uint64_t)room.longest * CFN_PAGE >= bytes) break;
    r = make_room(bus, &h, CFN_NO_SPACE, bytes, true, &making);
    why_not_out(r, disk);
    if (r != CFN_OK) r = r == CFN_AGENT_FENCED ? fail_fenced() : fail_no_room(bus, CFN_NO_SPACE, bytes, disk);
  }
  return cfn_bus_left(bus, r);
}
