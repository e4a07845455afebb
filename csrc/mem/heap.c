#include "mem/heap.h"

#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/os.h"
#include "mem/index.h"
#include "mem/spill.h"

#define LOOKS 64      /* how often a word may change under one operation before the caller is asked again */
#define BATCH 2048u   /* blobs that one pass over all holders decides on */

/* ---- ledgers ---- */

bool cfn_ledger_find(const cfn_region_t *r, unsigned me, cfn_hold_t *out) {
  cfn_a64 *cell = cfn_attachment(r, me)->ledger;
  for (unsigned i = 0; i < CFN_LEDGER; i++) {
    *out = (cfn_hold_t){&cell[i], cfn_load_relaxed(&cell[i])};
    if (cfn_names_blob(out->word) == 0) return true;
  }
  return false;
}

/* The version is the cell's own and only grows, over all lives of the slot: an exact word never comes back. */
static bool change(cfn_hold_t *h, uint32_t blob_plus1) {
  uint64_t next = cfn_names_word(cfn_names_what(h->word) + 1, blob_plus1);
  if (!cfn_cas_seq(h->cell, h->word, next)) return false;
  h->word = next;
  return true;
}
/* seq_cst: it stands before the state of the blob is looked at, as the collector sets CHECK before it looks at ledgers;
 * one of the two sees the other. */
bool cfn_ledger_set(cfn_hold_t *h, uint32_t blob) { return change(h, blob + 1); }
bool cfn_ledger_announce(cfn_hold_t *h, uint32_t blob) { return change(h, (blob + 1) | CFN_LEDGER_EVICTS); }
/* Our reads of the blob are over before it: release, in seq_cst. */
void cfn_ledger_clear(cfn_hold_t *h) { change(h, 0); }

/* ---- pages ---- */

static uint32_t pages_for(uint64_t bytes) {
  return bytes <= CFN_BLOB_INSIDE ? 0 : (uint32_t)((bytes + CFN_PAGE - 1) / CFN_PAGE);
}

/* Whose is the page: is it free? *after is the first page behind what is known to be somebody's. */
static bool page_free(const cfn_region_t *r, uint32_t p, uint64_t word, uint32_t *after) {
  uint32_t blob = cfn_names_blob(word);
  *after = p + 1;
  if (blob == 0 || blob > r->geo.config.objects) return true; /* never used, or damage */
  cfn_blob_shm_t *b = cfn_blob_record(r, blob - 1);
  uint64_t st = cfn_load_seq(&b->st);
  if (cfn_own_state(st) == CFN_BLOB_DEAD || cfn_own_state(st) == CFN_BLOB_SPILLED) return true;
  /* A filler that was stopped before it stored its life: what it had in its last life is free all the same. */
  uint64_t life = cfn_own_state(st) == CFN_BLOB_FILL ? cfn_own_ver(st) : cfn_load_seq(&b->life);
  if ((life & CFN_LAP_MASK) != cfn_names_what(word)) return true;
  uint64_t run = cfn_load_relaxed(&b->run);
  uint32_t first = (uint32_t)run, pages = (uint32_t)(run >> 32);
  if (p >= first && p - first < pages && pages <= r->geo.config.object_pages - first) *after = first + pages;
  return false;
}

uint32_t cfn_heap_page_of(const cfn_region_t *r, uint32_t p) {
  uint32_t after;
  uint64_t word = cfn_load_seq(cfn_page_word(r, p));
  return page_free(r, p, word, &after) ? 0 : cfn_names_blob(word);
}

static void release_pages(const cfn_region_t *r, uint64_t mine, uint32_t first, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) cfn_cas_seq(cfn_page_word(r, first + i), mine, 0);
}

/* Claims `n` pages in a row for the life `mine` names, looking from the hint on, once round. */
static int claim_pages(const cfn_region_t *r, uint64_t mine, uint32_t n, uint32_t *first) {
  uint32_t all = r->geo.config.object_pages;
  cfn_a64 *hint = &cfn_state(r)->page_hint;
  uint32_t start = (uint32_t)(cfn_load_relaxed(hint) % all);
  /* A page that is free under this exact word stays so until the word changes, for lives only grow; and the pages of one
   * blob have one word. */
  uint64_t known = 0;
  for (int half = 0; half < 2; half++) { /* [start, all), then [0, start + n) */
    uint32_t from = half ? 0 : start, end = half ? (start + n < all ? start + n : all) : all;
    uint32_t run = 0, p = from;
    while (p < end && end - p >= n - run) {
      uint64_t word = cfn_load_seq(cfn_page_word(r, p));
      uint32_t after;
      if (word != known && !page_free(r, p, word, &after)) {
        run = 0;
        p = after;
        continue;
      }
      known = word;
      p++;
      if (++run < n) continue;
      uint32_t got = 0;
      for (; got < n; got++) {
        cfn_a64 *page = cfn_page_word(r, p - n + got);
        uint64_t w = cfn_load_seq(page);
        if ((w != known && !page_free(r, p - n + got, w, &after)) || !cfn_cas_seq(page, w, mine)) break;
        known = w;
        /* dies here: claimed for a blob that is FILL(dead): free again when that is DEAD */
      }
      if (got == n) {
        *first = p - n;
        cfn_store_relaxed(hint, p % all);
        return CFN_OK;
      }
      release_pages(r, mine, p - n, got); /* somebody was faster: go on behind the page that they took */
      p = p - n + got + 1;
      run = 0;
    }
  }
  return CFN_NO_SPACE;
}

/* ---- filling ---- */

static int64_t claim_blob(const cfn_region_t *r, unsigned me, cfn_hold_t *h, uint64_t *fill) {
  uint32_t n = r->geo.config.objects;
  cfn_a64 *hint = &cfn_state(r)->blob_hint;
  uint32_t start = (uint32_t)(cfn_load_relaxed(hint) % n);
  for (uint32_t j = 0; j < n; j++) {
    uint32_t b = (start + j) % n;
    cfn_a64 *st = &cfn_blob_record(r, b)->st;
    uint64_t w = cfn_load_seq(st);
    if (cfn_own_state(w) != CFN_BLOB_DEAD) continue;
    if (!cfn_ledger_set(h, b)) return CFN_AGENT_FENCED; /* announced before it is taken */
    *fill = cfn_own_next(w, CFN_BLOB_FILL, me);
    if (cfn_cas_seq(st, w, *fill)) {
      cfn_store_relaxed(hint, b + 1);
      return b;
    }
  }
  cfn_ledger_clear(h);
  return CFN_OVER_CAPACITY;
}

int cfn_heap_begin(const cfn_region_t *r, unsigned me, cfn_hold_t *h, uint64_t bytes, cfn_filling_t *out) {
  uint64_t most = (uint64_t)r->geo.config.object_pages * CFN_PAGE;
  if (bytes > most) return CFN_TOO_LARGE;
  int64_t b = claim_blob(r, me, h, &out->word);
  if (b < 0) return (int)b;
  /* dies here: FILL(me), named by the ledger: the reaper makes it DEAD */
  out->blob = (uint32_t)b;
  out->bytes = bytes;
  out->made_wall_ns = 0;
  out->pages = pages_for(bytes);
  out->first = 0;
  out->data = out->few;
  cfn_blob_shm_t *record = cfn_blob_record(r, out->blob);
  uint64_t life = cfn_own_ver(out->word);
  cfn_store_relaxed(&record->run, 0); /* of its last life: must not make a claimer pass over free pages */
  cfn_store_relaxed(&record->bytes, 0);
  cfn_store_seq(&record->life, life);
  if (out->pages == 0) return CFN_OK;
  int e = claim_pages(r, cfn_names_word(life & CFN_LAP_MASK, out->blob + 1), out->pages, &out->first);
  if (e != CFN_OK) {
    out->pages = 0; /* none of them are ours */
    cfn_heap_abandon(r, out);
    cfn_ledger_clear(h);
    return e;
  }
  out->data = cfn_heap_page(r, out->first);
  return CFN_OK;
}

void cfn_heap_lend(const cfn_region_t *r, const cfn_filling_t *f) {
  cfn_store_relaxed(&cfn_blob_record(r, f->blob)->bytes, CFN_BLOB_LENT);
}

static uint64_t looked_at_now(void) { return cfn_os_coarse_ns() / 1000000000u; }

bool cfn_heap_publish(const cfn_region_t *r, cfn_filling_t *f, const uint8_t *digest, unsigned codec) {
  cfn_blob_shm_t *record = cfn_blob_record(r, f->blob);
  uint64_t words[CFN_BLOB_INSIDE / 8] = {0};
  if (f->pages == 0) {
    memcpy(words, f->few, f->bytes);
    for (unsigned i = 0; i < (f->bytes + 7) / 8; i++) cfn_store_relaxed(&record->inside[i], words[i]);
  }
  memset(words, 0, 32);
  if (digest) memcpy(words, digest, 32);
  for (unsigned i = 0; i < 4; i++) cfn_store_relaxed(&record->digest[i], words[i]);
  cfn_store_relaxed(&record->bytes, f->bytes);
  cfn_store_relaxed(&record->run, f->pages ? (uint64_t)f->pages << 32 | f->first : 0);
  cfn_store_relaxed(&record->made_wall_ns, f->made_wall_ns ? f->made_wall_ns : cfn_os_wall_ns());
  cfn_store_relaxed(&record->codec, looked_at_now() << 8 | codec);
  /* release: who sees LIVE sees all of it */
  uint64_t live = cfn_own_next(f->word, CFN_BLOB_LIVE, 0);
  if (!cfn_cas_seq(&record->st, f->word, live)) return false;
  f->word = live;
  return true;
}

void cfn_heap_abandon(const cfn_region_t *r, cfn_filling_t *f) {
  /* Its exact word: if a collector has it in CHECK, the collector will find that nobody holds it. */
  if (cfn_cas_seq(&cfn_blob_record(r, f->blob)->st, f->word, cfn_own_next(f->word, CFN_BLOB_DEAD, 0)) && f->pages)
    cfn_store_relaxed(&cfn_state(r)->page_hint, f->first); /* the next one finds warm pages */
}

/* ---- holding ---- */

int cfn_heap_hold(const cfn_region_t *r, cfn_hold_t *h, uint32_t b) {
  cfn_a64 *st = &cfn_blob_record(r, b)->st;
  if (!cfn_ledger_set(h, b)) return CFN_STALE;
  for (int look = 0; look < LOOKS; look++) {
    uint64_t w = cfn_load_seq(st);
    unsigned state = cfn_own_state(w);
    if (state == CFN_BLOB_LIVE) return CFN_OK;
    if (state != CFN_BLOB_CHECK && state != CFN_BLOB_SPILLING) break;
    if (cfn_cas_seq(st, w, cfn_own_next(w, CFN_BLOB_LIVE, 0))) return CFN_OK; /* a rescue */
  }
  cfn_ledger_clear(h);
  return CFN_STALE;
}

void cfn_heap_touch(const cfn_region_t *r, uint32_t b) {
  cfn_a64 *word = &cfn_blob_record(r, b)->codec;
  uint64_t w = cfn_load_relaxed(word), now = looked_at_now();
  /* By CAS, for another life of it may have another codec by now. Once a second: readers would take the line from each other. */
  if (w >> 8 != now) cfn_cas_seq(word, w, now << 8 | (w & 0xffu));
}

static bool whole(unsigned state) {
  return state == CFN_BLOB_LIVE || state == CFN_BLOB_CHECK || state == CFN_BLOB_SPILLING;
}

static uint64_t read_record(const cfn_region_t *r, uint32_t b, cfn_blob_t *out) {
  cfn_blob_shm_t *record = cfn_blob_record(r, b);
  out->life = cfn_load_acquire(&record->life);
  out->bytes = cfn_load_acquire(&record->bytes);
  out->made_wall_ns = cfn_load_acquire(&record->made_wall_ns);
  out->codec = (unsigned)cfn_load_acquire(&record->codec) & 0xffu;
  return cfn_load_acquire(&record->run);
}

int cfn_heap_look_spilled(const cfn_region_t *r, uint32_t b, cfn_blob_t *out, uint64_t *st) {
  *out = (cfn_blob_t){.blob = b};
  cfn_blob_shm_t *record = cfn_blob_record(r, b);
  *st = cfn_load_seq(&record->st);
  if (cfn_own_state(*st) != CFN_BLOB_SPILLED) return CFN_STALE;
  read_record(r, b, out);
  if (cfn_load_seq(&record->st) != *st) return CFN_STALE; /* LAST */
  return out->bytes <= CFN_BLOB_INSIDE || out->bytes > (uint64_t)r->geo.config.object_pages * CFN_PAGE ? CFN_CORRUPT
                                                                                                      : CFN_OK;
}

int cfn_heap_look(const cfn_region_t *r, uint32_t b, cfn_blob_t *out) {
  *out = (cfn_blob_t){.blob = b};
  cfn_blob_shm_t *record = cfn_blob_record(r, b);
  if (!whole(cfn_own_state(cfn_load_seq(&record->st)))) return CFN_STALE; /* acquire half pairs with publish */
  uint64_t run = read_record(r, b, out);
  /* LAST: all of it is of one life. */
  if (!whole(cfn_own_state(cfn_load_seq(&record->st))) || cfn_load_seq(&record->life) != out->life) return CFN_STALE;
  uint32_t first = (uint32_t)run, pages = (uint32_t)(run >> 32);
  if (pages_for(out->bytes) != pages || pages > r->geo.config.object_pages ||
      first > r->geo.config.object_pages - pages || out->bytes > (uint64_t)r->geo.config.object_pages * CFN_PAGE)
    return CFN_CORRUPT;
  if (pages) out->data = cfn_heap_page(r, first);
  return CFN_OK;
}

int cfn_heap_copy_few(const cfn_region_t *r, uint32_t b, const cfn_blob_t *blob, uint8_t *out) {
  cfn_blob_shm_t *record = cfn_blob_record(r, b);
  uint64_t words[CFN_BLOB_INSIDE / 8];
  /* acquire: the state is looked at after them */
  for (unsigned i = 0; i < (blob->bytes + 7) / 8; i++) words[i] = cfn_load_acquire(&record->inside[i]);
  if (!whole(cfn_own_state(cfn_load_seq(&record->st))) || cfn_load_seq(&record->life) != blob->life) return CFN_STALE;
  if (blob->bytes) memcpy(out, words, blob->bytes);
  return CFN_OK;
}

void cfn_heap_release_sole(const cfn_region_t *r, const cfn_chunk_shm_t *chunk, uint64_t own) {
  const uint64_t both = CFN_TARGET_OBJECT | CFN_TARGET_SOLE;
  if ((cfn_load_acquire(&chunk->target) & both) != both) return;
  uint64_t blob = cfn_load_acquire(&chunk->blob);
  if (blob == 0 || blob > r->geo.config.objects) return;
  cfn_blob_shm_t *record = cfn_blob_record(r, (uint32_t)blob - 1);
  uint64_t w = cfn_load_seq(&record->st), run = cfn_load_relaxed(&record->run);
  /* LAST: the chunk has held it all the time, so `w` is that body's own word. Others may free the chunk as well (the reaper
   * of one who lost R5), and one who slept until here would end another message's body. */
  if (cfn_load_seq(&chunk->own) != own) return;
  /* One in CHECK is decided on by its collector. */
  if (cfn_own_state(w) == CFN_BLOB_LIVE && cfn_cas_seq(&record->st, w, cfn_own_next(w, CFN_BLOB_DEAD, 0)))
    cfn_store_relaxed(&cfn_state(r)->page_hint, (uint32_t)run); /* the next one finds warm pages */
}

/* ---- collecting ---- */

typedef struct collecting {
  const cfn_region_t *r;
  uint32_t first, n;
  uint64_t mark[BATCH]; /* the exact CHECK word, or 0: not ours to decide */
} collecting_t;

/* FILL or SPILLING, and in the ledger of nobody: of one who was judged dead before it claimed. Who lives has its cell
 * before, and until it is LIVE or SPILLED. */
static void free_orphan(const cfn_region_t *r, uint32_t b, uint64_t w) {
  cfn_a64 *st = &cfn_blob_record(r, b)->st;
  uint32_t who = cfn_own_who(w);
  for (unsigned k = 0; who < r->geo.config.attachments && k < CFN_LEDGER; k++)
    if (cfn_ledger_names(cfn_load_seq(&cfn_attachment(r, who)->ledger[k])) == b + 1) return;
  unsigned next = cfn_own_state(w) == CFN_BLOB_FILL ? CFN_BLOB_DEAD : CFN_BLOB_LIVE;
  cfn_cas_seq(st, w, cfn_own_next(w, next, 0)); /* the word that was judged */
}

bool cfn_heap_drop_spilled(const cfn_region_t *r, uint32_t b, uint64_t st) {
  /* AFTER `st` was loaded: the record may be another object's by then. What is SPILLED and has no name never gets one. */
  if (cfn_index_names(r, b)) return false;
  if (!cfn_cas_seq(&cfn_blob_record(r, b)->st, st, cfn_own_next(st, CFN_BLOB_DEAD, 0))) return false;
  /* dies here: a file that no state names: cfn_evict_sweep */
  int dir = cfn_spill_of_bus(r, false);
  if (dir < 0) return true;
  cfn_spill_drop(dir, b, cfn_own_ver(st));
  close(dir);
  return true;
}

static uint32_t mark_batch(collecting_t *c) {
  uint32_t marked = 0;
  for (uint32_t i = 0; i < c->n; i++) {
    cfn_a64 *st = &cfn_blob_record(c->r, c->first + i)->st;
    uint64_t w = cfn_load_seq(st);
    c->mark[i] = 0;
    if (cfn_own_state(w) == CFN_BLOB_FILL || cfn_own_state(w) == CFN_BLOB_SPILLING) free_orphan(c->r, c->first + i, w);
    /* On disk, and its name was taken away by one who died then: names are not given again. */
    if (cfn_own_state(w) == CFN_BLOB_SPILLED) cfn_heap_drop_spilled(c->r, c->first + i, w);
    if (cfn_own_state(w) == CFN_BLOB_LIVE) {
      uint64_t check = cfn_own_next(w, CFN_BLOB_CHECK, 0);
      if (!cfn_cas_seq(st, w, check)) continue;
      w = check;
    }
    if (cfn_own_state(w) != CFN_BLOB_CHECK) continue;
    c->mark[i] = w; /* ours, or one that another collector left: all holders are looked at after this load */
    marked++;
  }
  return marked;
}

static void held(void *context, uint32_t blob_plus1) {
  collecting_t *c = context;
  uint32_t i = blob_plus1 - 1 - c->first;
  if (blob_plus1 == 0 || i >= c->n || !c->mark[i]) return;
  cfn_cas_seq(&cfn_blob_record(c->r, c->first + i)->st, c->mark[i], cfn_own_next(c->mark[i], CFN_BLOB_LIVE, 0));
  c->mark[i] = 0;
}

/* Bodies of messages. */
static void look_at_chunks(const cfn_region_t *r, cfn_heap_found_t found, void *context) {
  if (cfn_load_seq(&cfn_state(r)->object_messages) == 0) return;
  for (uint32_t k = 0; k < r->geo.chunks; k++) {
    cfn_chunk_shm_t *chunk = cfn_chunk(r, k);
    /* A chunk that is FREE now was given up by who held the body, or is being claimed by one whose ledger has it. */
    if (cfn_own_state(cfn_load_seq(&chunk->own)) == CFN_FREE) continue;
    if (cfn_load_acquire(&chunk->target) & CFN_TARGET_OBJECT) found(context, (uint32_t)cfn_load_acquire(&chunk->blob));
  }
}

/* Ledgers FIRST, chunks and refs after them: see the top of heap.h. */
void cfn_heap_holders(const cfn_region_t *r, cfn_heap_found_t found, void *context) {
  for (uint32_t i = 0; i < r->geo.config.attachments; i++) {
    if (cfn_id_state(cfn_load_seq(&cfn_attachment(r, i)->id)) == CFN_ID_FREE) continue; /* never used */
    for (unsigned k = 0; k < CFN_LEDGER; k++) found(context, cfn_ledger_holds(cfn_load_seq(&cfn_attachment(r, i)->ledger[k])));
  }
  look_at_chunks(r, found, context);
  for (uint32_t i = 0; i < r->geo.config.refs; i++) found(context, cfn_ref_blob(cfn_load_seq(&cfn_ref(r, i)->word)));
}

static uint32_t decide(collecting_t *c) {
  uint32_t freed = 0;
  for (uint32_t i = 0; i < c->n; i++) {
    if (!c->mark[i]) continue;
    uint32_t b = c->first + i;
    uint64_t run = cfn_load_relaxed(&cfn_blob_record(c->r, b)->run);
    bool named = cfn_index_names(c->r, b); /* LAST: who put it drops its ledger cell only after naming it */
    uint64_t next = cfn_own_next(c->mark[i], named ? CFN_BLOB_LIVE : CFN_BLOB_DEAD, 0);
    /* dies here: CHECK: the next collector decides */
    if (!cfn_cas_seq(&cfn_blob_record(c->r, b)->st, c->mark[i], next) || named) continue;
    freed++;
    if (run >> 32) cfn_store_relaxed(&cfn_state(c->r)->page_hint, (uint32_t)run);
  }
  return freed;
}

uint32_t cfn_heap_collect(const cfn_region_t *r) {
  uint32_t freed = 0, all = r->geo.config.objects;
  collecting_t c = {.r = r};
  for (c.first = 0; c.first < all; c.first += BATCH) {
    c.n = all - c.first < BATCH ? all - c.first : BATCH;
    if (mark_batch(&c) == 0) continue;
    cfn_heap_holders(r, held, &c);
    freed += decide(&c);
  }
  return freed;
}

void cfn_heap_reap(const cfn_region_t *r, uint32_t dead, const cfn_a64 *id, uint64_t reap_word) {
  for (unsigned k = 0; k < CFN_LEDGER; k++) {
    cfn_a64 *cell = &cfn_attachment(r, dead)->ledger[k];
    uint64_t e = cfn_load_seq(cell);
    uint32_t blob = cfn_ledger_names(e);
    if (cfn_names_blob(e) == 0) continue;
    if (blob && blob <= r->geo.config.objects) {
      cfn_a64 *st = &cfn_blob_record(r, blob - 1)->st;
      uint64_t w = cfn_load_seq(st);
      unsigned state = cfn_own_state(w);
      if ((state == CFN_BLOB_FILL || state == CFN_BLOB_SPILLING) && cfn_own_who(w) == dead) {
        if (cfn_load_seq(id) != reap_word) return; /* LAST: or it may be its next process's */
        cfn_cas_seq(st, w, cfn_own_next(w, state == CFN_BLOB_FILL ? CFN_BLOB_DEAD : CFN_BLOB_LIVE, 0));
      }
    }
    /* dies here: a cell that names what is DEAD: harmless, and the next reaper goes on */
    if (cfn_load_seq(id) != reap_word) return;
    cfn_cas_seq(cell, e, cfn_names_word(cfn_names_what(e) + 1, 0));
  }
}

void cfn_heap_room(const cfn_region_t *r, cfn_heap_room_t *out) {
  *out = (cfn_heap_room_t){0};
  for (uint32_t b = 0; b < r->geo.config.objects; b++) {
    cfn_blob_t blob;
    uint64_t st;
    if (cfn_heap_look_spilled(r, b, &blob, &st) == CFN_OK) {
      out->spilled++;
      out->spilled_bytes += blob.bytes;
      out->blobs++;
      continue;
    }
    if (cfn_heap_look(r, b, &blob) != CFN_OK) continue;
    out->blobs++;
    out->bytes += blob.bytes;
  }
  uint32_t run = 0, after;
  for (uint32_t p = 0; p < r->geo.config.object_pages; p++) {
    bool unused = page_free(r, p, cfn_load_seq(cfn_page_word(r, p)), &after);
    run = unused ? run + 1 : 0;
    if (!unused) out->pages++;
    if (run > out->longest) out->longest = run;
  }
}
