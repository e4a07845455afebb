#include "mem/evict.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/os.h"
#include "base/sha256.h"
#include "mem/index.h"

enum {
  FIXED = 255,    /* cannot be evicted */
  AT_WORK = 254,  /* somebody does it just now */
  NAMELESS = 253, /* a value of bus.state, one that is being put, or garbage: who holds it tells */
  ABSENT = 252,   /* had no pages; if it has some by now, somebody got there first */
  IDLE = 4,       /* at most */
};

/* ---- which ---- */

typedef struct choice {
  uint8_t *of_blob; /* by blob: what evicting a page of it costs, or FIXED */
  uint8_t *of_page; /* 0: it is free */
  uint32_t objects;
  cfn_in_the_way_t *way;
} choice_t;

static void fixed(void *context, uint32_t blob_plus1) {
  choice_t *c = context;
  if (blob_plus1 == 0 || blob_plus1 > c->objects) return;
  c->way->held |= c->of_blob[blob_plus1 - 1] != FIXED;
  c->of_blob[blob_plus1 - 1] = FIXED;
}

/* What was looked at a moment ago will be again: it costs as much as many pages that slept. */
static uint8_t cost(const cfn_region_t *r, uint32_t b, uint64_t now) {
  int64_t at = (int64_t)cfn_load_relaxed(&cfn_blob_record(r, b)->codec) >> 8, age = (int64_t)now - at;
  return age < 2 ? 64 : age < 60 ? 16 : age < 3600 ? IDLE : 1;
}

static void weigh(const cfn_region_t *r, choice_t *c, bool idle) {
  uint64_t now = cfn_os_coarse_ns() / 1000000000u;
  for (uint32_t b = 0; b < c->objects; b++) {
    unsigned state = cfn_own_state(cfn_load_seq(&cfn_blob_record(r, b)->st));
    bool whole = state == CFN_BLOB_LIVE || state == CFN_BLOB_CHECK;
    c->of_blob[b] = whole ? (cfn_index_names(r, b) ? cost(r, b, now) : NAMELESS)
                    : state == CFN_BLOB_SPILLING ? AT_WORK /* also when its name was taken away meanwhile */
                    : state == CFN_BLOB_FILL ? FIXED : ABSENT;
    bool lent = cfn_load_relaxed(&cfn_blob_record(r, b)->bytes) == CFN_BLOB_LENT;
    if (state == CFN_BLOB_FILL) *(lent ? &c->way->held : &c->way->works) = true;
    if (idle && c->of_blob[b] > IDLE && c->of_blob[b] != ABSENT) c->of_blob[b] = FIXED;
  }
  cfn_heap_holders(r, fixed, c);
  for (uint32_t b = 0; b < c->objects; b++) {
    if (c->of_blob[b] != NAMELESS) continue;
    c->of_blob[b] = FIXED;
    c->way->works = true; /* nobody's, since the last collection: the next one frees it */
  }
  for (uint32_t p = 0; p < r->geo.config.object_pages; p++) {
    uint32_t blob = cfn_heap_page_of(r, p);
    c->of_page[p] = blob == 0 ? 0 : c->of_blob[blob - 1];
    if (c->of_page[p] != ABSENT) continue;
    c->of_page[p] = FIXED;
    c->way->works = true;
  }
}

/* The first of `n` pages in a row that cost the least; false: there are none without one that is FIXED. */
static bool cheapest(const choice_t *c, uint32_t pages, uint32_t n, uint32_t *first) {
  uint64_t sum = 0, least = UINT64_MAX;
  uint32_t stuck = 0;
  for (uint32_t p = 0; p < pages; p++) {
    if (c->of_page[p] == FIXED) stuck++;
    else sum += c->of_page[p];
    if (p >= n) {
      if (c->of_page[p - n] == FIXED) stuck--;
      else sum -= c->of_page[p - n];
    }
    if (p + 1 < n || stuck || sum >= least) continue;
    least = sum;
    *first = p + 1 - n;
  }
  return least != UINT64_MAX;
}

/* ---- out ---- */

static void held(void *context, uint32_t blob_plus1) {
  uint32_t *looked_for = context;
  if (blob_plus1 == *looked_for) *looked_for = 0;
}

static bool in_use(const cfn_region_t *r, uint32_t b) {
  uint32_t looked_for = b + 1;
  cfn_heap_holders(r, held, &looked_for);
  return looked_for == 0;
}

/* SPILLING by `w`, and announced. CFN_OK: it is on disk alone; CFN_AGAIN: somebody holds it, or took it away. */
static int write_out(const cfn_region_t *r, uint32_t b, uint64_t w, int dir) {
  cfn_a64 *st = &cfn_blob_record(r, b)->st;
  uint64_t ver = cfn_own_ver(w);
  cfn_blob_t blob;
  /* Who holds it and was there before SPILLING is in what is looked at here; who comes later changes the word. */
  if (in_use(r, b) || !cfn_index_names(r, b) || cfn_heap_look(r, b, &blob) != CFN_OK || !blob.data) return CFN_AGAIN;
  int e = cfn_spill_write(dir, b, ver, blob.data, blob.bytes);
  if (e != CFN_OK) return e;
  /* Only a blob that is SPILLING(ver) still can become SPILLED(ver + 1): to who sleeps behind this look, the swap below
   * says the same, and the file goes. */
  if (cfn_load_seq(st) != w) {
    cfn_spill_drop_new(dir, b, ver);
    return CFN_AGAIN;
  }
  e = cfn_spill_keep(dir, b, ver);
  if (e != CFN_OK) {
    cfn_spill_drop_new(dir, b, ver);
    return cfn_load_seq(st) == w ? e : CFN_AGAIN; /* of one that somebody came to hold, a sweep may have removed it */
  }
  /* dies here: a file (b, ver + 1) while the state is not SPILLED(ver + 1), nor will be: cfn_evict_sweep */
  uint64_t spilled = cfn_own_next(w, CFN_BLOB_SPILLED, 0);
  if (!cfn_cas_seq(st, w, spilled)) {
    cfn_spill_drop(dir, b, ver + 1);
    return CFN_AGAIN;
  }
  /* Its name was taken away meanwhile by one who saw SPILLING: one of us sees the other. */
  cfn_heap_drop_spilled(r, b, spilled);
  return CFN_OK;
}

/* Another one is at it, by the word w: for so long that he must be stopped? */
static bool for_long(const cfn_region_t *r, uint32_t b, uint64_t w, cfn_in_the_way_t *way) {
  uint64_t now = cfn_os_monotonic_ns();
  if (way->blob != b + 1 || way->word != w) *way = (cfn_in_the_way_t){way->works, way->held, b + 1, w, now};
  /* A second, and what it takes to write it at 20 MB/s: taking over one who works makes both write in vain. */
  return now - way->ns >= 1000000000u + cfn_load_relaxed(&cfn_blob_record(r, b)->bytes) * 50;
}

static int evict_one(const cfn_region_t *r, unsigned me, cfn_hold_t *h, uint32_t b, int dir, cfn_in_the_way_t *way) {
  cfn_a64 *st = &cfn_blob_record(r, b)->st;
  uint64_t w = cfn_load_seq(st);
  /* A collector that has it in CHECK fails at its exact word; so does who is SPILLING it and sleeps, and its file has
   * another version. */
  unsigned state = cfn_own_state(w);
  if (state == CFN_BLOB_SPILLING && !for_long(r, b, w, way)) {
    way->works = true;
    return CFN_AGAIN;
  }
  if (state != CFN_BLOB_LIVE && state != CFN_BLOB_CHECK && state != CFN_BLOB_SPILLING) return CFN_AGAIN;
  uint64_t run = cfn_load_relaxed(&cfn_blob_record(r, b)->run);
  if (!cfn_ledger_announce(h, b)) return CFN_AGENT_FENCED; /* announced before it is taken */
  uint64_t spilling = cfn_own_next(w, CFN_BLOB_SPILLING, me);
  int e = CFN_AGAIN;
  if (cfn_cas_seq(st, w, spilling)) {
    /* dies here: SPILLING(me), named by the ledger: the reaper makes it LIVE */
    e = write_out(r, b, spilling, dir);
    if (e == CFN_OK) cfn_store_relaxed(&cfn_state(r)->page_hint, (uint32_t)run);
    else cfn_cas_seq(st, spilling, cfn_own_next(spilling, CFN_BLOB_LIVE, 0));
  }
  cfn_ledger_clear(h);
  return e;
}

static int empty_window(const cfn_region_t *r, unsigned me, cfn_hold_t *h, uint32_t first, uint32_t n,
                        cfn_in_the_way_t *way) {
  int dir = cfn_spill_of_bus(r, true), e = CFN_OK;
  bool went = false;
  uint32_t tried = 0;
  if (dir < 0) return dir == CFN_NO_SPACE ? CFN_OS : dir;
  for (uint32_t p = first; p < first + n && (e == CFN_OK || e == CFN_AGAIN); p++) {
    uint32_t blob = cfn_heap_page_of(r, p);
    if (blob == 0 || blob == tried) continue; /* each once: somebody may be at it, and it has many pages */
    e = evict_one(r, me, h, blob - 1, dir, way);
    went |= e == CFN_OK;
    way->held |= e == CFN_AGAIN;
    tried = blob;
  }
  close(dir);
  if (cfn_region_retired(r)) cfn_spill_end(r->super.spill); /* or it would be left: who ended the bus has been there */
  if (e == CFN_OK || e == CFN_AGAIN) return went ? CFN_OK : e;
  return e == CFN_NO_SPACE ? CFN_OS : e; /* no space on disk is another matter */
}

int cfn_evict(const cfn_region_t *r, unsigned me, cfn_hold_t *h, uint64_t bytes, bool idle, cfn_in_the_way_t *way) {
  uint32_t pages = r->geo.config.object_pages, first = 0;
  if (!r->super.spill[0] || bytes == 0 || bytes > (uint64_t)pages * CFN_PAGE) return CFN_NO_SPACE;
  uint32_t n = (uint32_t)((bytes + CFN_PAGE - 1) / CFN_PAGE);
  choice_t c = {malloc(r->geo.config.objects), malloc(pages), r->geo.config.objects, way};
  way->works = way->held = false;
  int e = CFN_NO_SPACE;
  if (c.of_blob && c.of_page) {
    weigh(r, &c, idle);
    if (cheapest(&c, pages, n, &first)) e = empty_window(r, me, h, first, n, way);
    else if (!idle && (way->works || way->held)) e = CFN_AGAIN;
  } else {
    e = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory to choose what can go to disk");
  }
  free(c.of_blob);
  free(c.of_page);
  return e;
}

/* ---- and back ---- */

static int read_back(const cfn_region_t *r, uint32_t b, uint64_t ver, void *out, uint64_t bytes) {
  int dir = cfn_spill_of_bus(r, false);
  int e = dir < 0 ? dir : cfn_spill_read(dir, b, ver, out, bytes);
  if (dir >= 0) close(dir);
  uint8_t is[32], named[32];
  if (e == CFN_OK) {
    cfn_index_digest(r, b, named);
    cfn_sha256(out, bytes, is);
    if (memcmp(is, named, 32) != 0) e = CFN_CORRUPT;
  }
  return e;
}

/* Nothing was read, or nothing good: because the blob went its way meanwhile, or because somebody was at the files? */
static int why_not(const cfn_region_t *r, cfn_a64 *slot, uint64_t word, uint32_t b, uint64_t st, int e) {
  if (cfn_load_seq(slot) != word || cfn_load_seq(&cfn_blob_record(r, b)->st) != st) return CFN_STALE;
  if (e != CFN_EMPTY && e != CFN_CORRUPT) return e;
  return cfn_fail(CFN_CORRUPT, 0, 0, "an object that was put on disk is %s there: %s/%u.%llu was changed from outside; delete "
                  "it, and put it again",
                  e == CFN_EMPTY ? "not" : "another", r->super.spill, b, (unsigned long long)cfn_own_ver(st));
}

int cfn_recall_copy(const cfn_region_t *r, cfn_a64 *slot, uint64_t word, uint32_t b, void *out, uint64_t room) {
  cfn_blob_t blob;
  uint64_t st;
  int e = cfn_heap_look_spilled(r, b, &blob, &st);
  if (e != CFN_OK) return e;
  if (blob.bytes > room) return CFN_STALE; /* it is another's record by now */
  e = read_back(r, b, cfn_own_ver(st), out, blob.bytes);
  if (e != CFN_OK) return why_not(r, slot, word, b, st, e);
  return cfn_load_seq(slot) == word ? CFN_OK : CFN_STALE; /* LAST: named all the time, so those are its bytes */
}

int cfn_recall(const cfn_region_t *r, unsigned me, cfn_hold_t *h, cfn_a64 *slot, uint64_t word, uint32_t *b) {
  cfn_blob_t blob;
  uint64_t st;
  cfn_filling_t f;
  int e = cfn_heap_look_spilled(r, *b, &blob, &st);
  if (e != CFN_OK) return e;
  e = cfn_heap_begin(r, me, h, blob.bytes, &f);
  if (e != CFN_OK) return e;
  uint8_t digest[32];
  cfn_index_digest(r, *b, digest);
  f.made_wall_ns = blob.made_wall_ns;
  e = read_back(r, *b, cfn_own_ver(st), f.data, blob.bytes);
  if (e != CFN_OK) {
    e = why_not(r, slot, word, *b, st, e);
  } else if (!cfn_heap_publish(r, &f, digest, blob.codec)) {
    e = CFN_AGENT_FENCED;
  } else if (!cfn_index_move(slot, word, f.blob)) { /* LAST: it was named all the time, so those were its bytes */
    e = CFN_STALE;
  } else if (cfn_load_seq(h->cell) != h->word) {
    /* We were judged dead before it moved: nobody held the new one, and it may be another's record by now. */
    cfn_index_move(slot, cfn_names_word(cfn_names_what(word) + 1, f.blob + 1), *b);
    e = CFN_AGENT_FENCED;
  }
  if (e != CFN_OK) {
    cfn_heap_abandon(r, &f);
    cfn_ledger_clear(h);
    return e;
  }
  /* dies here: the old one is SPILLED and has no name: the next collection ends it */
  cfn_heap_drop_spilled(r, *b, st);
  *b = f.blob;
  return CFN_OK;
}

/* ---- files that no state names ---- */

static bool nobodys(void *context, uint32_t b, uint64_t ver, bool is_new) {
  const cfn_region_t *r = context;
  if (b >= r->geo.config.objects) return true;
  uint64_t w = cfn_load_seq(&cfn_blob_record(r, b)->st);
  /* .new of a word that is gone: its spiller has lost. A file of a version that is still to come: being renamed just now
   * by one whose word it is; or of the version that it is. */
  if (is_new) return cfn_own_ver(w) > ver;
  return cfn_own_ver(w) > ver || (cfn_own_ver(w) == ver && cfn_own_state(w) != CFN_BLOB_SPILLED);
}

cfn_spill_count_t cfn_evict_sweep(const cfn_region_t *r) {
  cfn_spill_count_t n = {0, 0, true};
  int dir = r->super.spill[0] ? cfn_spill_of_bus(r, false) : CFN_EMPTY;
  if (dir < 0) return n;
  union { const cfn_region_t *in; void *out; } as = {.in = r};
  n = cfn_spill_sweep(dir, nobodys, as.out);
  close(dir);
  return n;
}
