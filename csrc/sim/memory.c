/* The memory that the core sees. Words and lines of plain memory have a history; what a load may return of it follows from
 * what its process has seen, and the order. */
#include <stdlib.h>
#include <string.h>

#include "sim/state.h"

/* ---- weak memory ---- */

static uint64_t raw_load(const volatile void *p, unsigned bytes) {
  return bytes == 8 ? atomic_load_explicit((const volatile cfn_a64 *)p, memory_order_relaxed)
                    : atomic_load_explicit((const volatile cfn_a32 *)p, memory_order_relaxed);
}
static void raw_store(volatile void *p, unsigned bytes, uint64_t v) {
  if (bytes == 8) atomic_store_explicit((volatile cfn_a64 *)p, v, memory_order_relaxed);
  else atomic_store_explicit((volatile cfn_a32 *)p, (uint32_t)v, memory_order_relaxed);
}

static bool inside(const volatile void *p) {
  return S.running && (const uint8_t *)(uintptr_t)p >= S.base && (const uint8_t *)(uintptr_t)p < S.base + S.bytes;
}

static store_t *append(location_t *l, uint64_t value) {
  if (l->stores == l->room) {
    l->room = l->room ? (uint16_t)(l->room * 2) : 8;
    l->store = realloc(l->store, l->room * sizeof *l->store);
    if (!l->store) abort();
  }
  l->store[l->stores] = (store_t){value, NULL, ++S.clock, false, false};
  return &l->store[l->stores++];
}

/* The location of an address; *new: it was not touched in this run before. */
static location_t *locate(uintptr_t address, bool *new) {
  uint32_t i = (uint32_t)((address >> 2) * 2654435761u + (address & 1) * 40503u) % (2 * LOCATIONS);
  while (S.found[i] && S.location[S.found[i] - 1].address != address) i = (i + 1) % (2 * LOCATIONS);
  *new = !S.found[i];
  if (*new) {
    if (S.locations == LOCATIONS) sim_fail("more words are touched than the simulator follows");
    S.location[S.locations].address = address;
    S.location[S.locations].stores = 0;
    S.found[i] = (uint16_t)++S.locations;
  }
  return &S.location[S.found[i] - 1];
}

static location_t *word_at(const volatile void *p, unsigned bytes) {
  bool new;
  location_t *l = locate((uintptr_t)p, &new);
  /* Or written without the simulator. */
  l->bytes = (uint16_t)bytes;
  if (new || l->store[l->stores - 1].value != raw_load(p, bytes)) append(l, raw_load(p, bytes));
  if (new) l->store[0].time = 0;
  return l;
}

static store_t *append_line(location_t *l, const uint8_t *line) {
  if (S.lines_used == LINES) sim_fail("more plain memory is written than the simulator follows");
  memcpy(S.lines[S.lines_used], line, LINE);
  return append(l, S.lines_used++);
}

static location_t *line_at(uint8_t *line, size_t from, size_t n) {
  bool new;
  location_t *l = locate((uintptr_t)line + 1, &new);
  if (new) append_line(l, line)->time = 0;
  if (memcmp(S.lines[l->store[l->stores - 1].value] + from, line + from, n) != 0) {
    append_line(l, line); /* written without the simulator, nobody knows by whom: it is what everybody reads */
    for (int p = 0; p < SIM_PROCESSES; p++) S.process[p].seen[l - S.location] = (uint16_t)(l->stores - 1u);
  }
  return l;
}

static void join_view(uint16_t *into, const uint16_t *view) {
  if (!view) return;
  for (uint32_t i = 0; i < view[0]; i++)
    if (view[i + 1] > into[i]) into[i] = view[i + 1];
}

static const uint16_t *snapshot(const uint16_t *seen, const uint16_t *also) {
  if (S.views_used + S.locations + 1 > VIEW_WORDS) sim_fail("more release stores than the simulator follows");
  uint16_t *view = S.views + S.views_used;
  S.views_used += S.locations + 1;
  view[0] = (uint16_t)S.locations;
  memcpy(view + 1, seen, S.locations * sizeof *view);
  join_view(view + 1, also);
  return view;
}

/* The weakened operation was done, or what it wrote was met: here what is old matters. */
static void hot_here(void) {
  S.hot = HOT;
  S.hot_process = S.me;
}

static void later(uint32_t *time, uint32_t than) {
  if (than > *time) *time = than;
}

/* A seq_cst load takes its place in the one order of all seq_cst operations anywhere behind the last one of its process
 * (or of whom that has synchronised with; or behind what an acquiring load read, as no processor looks at anything before
 * it): not where it stands in time. So plain and relaxed loads above it may well be younger. */
static uint32_t oldest_for(const process_t *me, const location_t *l, sim_order_t order) {
  uint32_t newest = l->stores - 1u, oldest = me->seen[l - S.location];
  if (newest - oldest > STALE_DEPTH) oldest = newest - STALE_DEPTH;
  for (uint32_t i = newest; order == SIM_SEQ && i > oldest; i--)
    if (l->store[i].sc && l->store[i].time <= me->sc) return i;
  return oldest;
}

/* How many stores back, of `most` that are permitted. */
static uint32_t back(uint32_t most, bool eager) {
  if (most == 0 || S.used.stale >= S.limits.stale) return 0;
  uint32_t n;
  if (S.mode != BY_SEED) n = sim_choose(most + 1);
  else if (eager) n = (S.stubborn && S.stubborn--) || sim_next_random() % 2 ? most : 0;
  else n = sim_next_random() % S.stale_every ? 0 : sim_next_random() % 2 ? most : (uint32_t)(sim_next_random() % (most + 1));
  if (n) S.used.stale++;
  return n;
}

static uint64_t weak_load(const volatile void *p, unsigned bytes, sim_order_t order, bool eager) {
  process_t *me = &S.process[S.me];
  location_t *l = word_at(p, bytes);
  uint32_t newest = l->stores - 1u, i = newest - back(newest - oldest_for(me, l, order), eager);
  const store_t *s = &l->store[i];
  me->seen[l - S.location] = (uint16_t)i;
  if (s->weakened) hot_here();
  if (order & SIM_ACQUIRE) {
    join_view(me->seen, s->view);
    if (!s->weakened || S.instead) later(&me->sc, s->time);
  }
  return s->value;
}

static void weak_stored(location_t *l, uint64_t value, sim_order_t order, bool update, bool relaxed) {
  process_t *me = &S.process[S.me];
  uint16_t at = (uint16_t)(l - S.location);
  const store_t *was = &l->store[l->stores - 1];
  if (update && was->weakened) hot_here();
  const uint16_t *before = update ? was->view : NULL; /* a release goes on through updates */
  if (update && (order & SIM_ACQUIRE)) {
    join_view(me->seen, before);
    if (!was->weakened) later(&me->sc, was->time);
  }
  me->seen[at] = l->stores;
  store_t *s = append(l, value);
  s->sc = order == SIM_SEQ;
  s->weakened = relaxed;
  if (s->sc) me->sc = s->time;
  if (order & SIM_RELEASE) {
    me->pendings = 0;
    s->view = snapshot(me->seen, before);
  } else {
    s->view = before;
  }
  if (!update && me->pendings < PENDING) {
    me->pending[me->pendings].location = at;
    me->pending[me->pendings++].store = (uint16_t)(l->stores - 1u);
  }
}

/* Who is killed may have done what stands further down in its text, and not yet stores above it: unless it released
 * something in between. */
void sim_lose_stores(void) {
  process_t *me = &S.process[S.me];
  while (me->pendings && S.mode == BY_SEED) {
    uint32_t at = me->pending[--me->pendings].location;
    location_t *l = &S.location[at];
    bool seen = l->stores - 1 != me->pending[me->pendings].store || l->stores < 2;
    for (int p = 0; p < SIM_PROCESSES; p++) seen |= p != S.me && S.process[p].seen[at] >= l->stores - 1;
    if (seen || sim_next_random() % 2) continue;
    l->stores--;
    me->seen[at] = (uint16_t)(l->stores - 1);
    raw_store((volatile void *)l->address, l->bytes, l->store[l->stores - 1].value);
  }
}

void sim_copy_out(void *to, const volatile void *from, size_t bytes) {
  uint8_t *out = to, *at = (uint8_t *)(uintptr_t)from;
  if (!S.weak || !inside(from)) {
    memcpy(out, at, bytes);
    return;
  }
  process_t *me = &S.process[S.me];
  while (bytes) {
    size_t skip = (uintptr_t)at % LINE, n = LINE - skip < bytes ? LINE - skip : bytes;
    location_t *l = line_at(at - skip, skip, n);
    uint32_t newest = l->stores - 1u, i = newest - back(newest - oldest_for(me, l, SIM_RELAXED), S.old_lines);
    me->seen[l - S.location] = (uint16_t)i;
    later(&me->read, l->store[i].time);
    memcpy(out, S.lines[l->store[i].value] + skip, n);
    out += n;
    at += n;
    bytes -= n;
  }
}

void sim_copy_in(volatile void *to, const void *from, size_t bytes) {
  uint8_t *at = (uint8_t *)(uintptr_t)to;
  const uint8_t *in = from;
  if (!S.weak || !inside(to)) {
    memcpy(at, in, bytes);
    return;
  }
  while (bytes) {
    size_t skip = (uintptr_t)at % LINE, n = LINE - skip < bytes ? LINE - skip : bytes;
    location_t *l = line_at(at - skip, skip, n);
    memcpy(at, in, n);
    S.process[S.me].seen[l - S.location] = l->stores;
    append_line(l, at - skip);
    in += n;
    at += n;
    bytes -= n;
  }
}

void sim_reads_over(sim_place_t *at) {
  if (!S.weak || !S.running) return;
  if (sim_weakened(at)) {
    hot_here();
    S.passed++;
  } else {
    later(&S.process[S.me].sc, S.process[S.me].read);
  }
}

void sim_tell_kernel(int p) {
  if (!S.weak) return;
  for (uint32_t i = 0; i < S.locations; i++)
    if (S.process[p].seen[i] > S.kernel_view[i]) S.kernel_view[i] = S.process[p].seen[i];
}
void sim_learn_from_kernel(void) {
  if (!S.weak || !S.running) return;
  process_t *me = &S.process[S.me];
  for (uint32_t i = 0; i < S.locations; i++)
    if (S.kernel_view[i] > me->seen[i]) me->seen[i] = S.kernel_view[i];
  me->sc = S.clock;
}

void sim_forget_memory(void) {
  memset(S.kernel_view, 0, sizeof S.kernel_view);
  memset(S.found, 0, sizeof S.found);
  S.locations = S.views_used = S.lines_used = S.clock = 0;
}

bool sim_make_memory(void) {
  S.views = malloc(VIEW_WORDS * sizeof *S.views);
  S.lines = malloc(LINES * sizeof *S.lines);
  return S.views && S.lines;
}

/* ---- the atomics of the core ---- */

sim_meddler_t *sim_meddler;
void sim_meddled(const volatile void *p, char how, const char *where) {
  sim_meddler_t *meddler = sim_meddler;
  if (!meddler) return;
  sim_meddler = NULL; /* what it does itself is left alone */
  meddler(p, how, where);
  if (!sim_meddler) sim_meddler = meddler;
}

/* The point before an operation, and the order that it has. */
static sim_order_t arrive(sim_order_t order, sim_place_t *at) {
  bool weak = sim_weakened(at);
  if (weak) hot_here(); /* others come in here, and behind it */
  sim_point_in(at->function);
  if (!weak) return order;
  hot_here();
  S.passed++;
  return S.instead ? order : SIM_RELAXED;
}

uint64_t sim_load(const volatile void *p, unsigned bytes, sim_order_t order, sim_place_t *at) {
  sim_meddled(p, 'l', at->function);
  if (!inside(p)) return raw_load(p, bytes);
  sim_order_t is = arrive(order, at);
  bool eager = S.eager && S.hot && S.hot_process == S.me && !(S.young && is != order);
  return S.weak ? weak_load(p, bytes, is, eager) : raw_load(p, bytes);
}

void sim_store(volatile void *p, unsigned bytes, uint64_t value, sim_order_t order, sim_place_t *at) {
  sim_meddled(p, 's', at->function);
  if (!inside(p)) {
    raw_store(p, bytes, value);
    return;
  }
  order = arrive(order, at);
  if (S.instead == 'n' && sim_weakened(at)) return;
  if (S.weak) weak_stored(word_at(p, bytes), value, order, false, sim_weakened(at));
  raw_store(p, bytes, value);
}

uint64_t sim_update(volatile void *p, unsigned bytes, char how, uint64_t value, sim_order_t order, sim_place_t *at) {
  sim_meddled(p, how, at->function);
  bool ours = inside(p);
  if (ours) order = arrive(order, at);
  uint64_t was = raw_load(p, bytes);
  uint64_t is = how == '+' ? was + value : how == '|' ? was | value : was & value;
  if (bytes == 4) is = (uint32_t)is;
  if (ours && S.instead == 'n' && sim_weakened(at)) is = was;
  if (ours && S.weak) weak_stored(word_at(p, bytes), is, order, true, sim_weakened(at));
  raw_store(p, bytes, is);
  return was;
}

/* A swap that fails is a relaxed load, which may be old: also where the newest word would have fitted. */
static bool fails_on_an_old_word(location_t *l, uint64_t expected) {
  process_t *me = &S.process[S.me];
  uint32_t newest = l->stores - 1u, i = newest;
  if (S.mode == BY_SEED) i -= back(newest - oldest_for(me, l, SIM_RELAXED), false);
  if (l->store[i].value == expected) i = newest;
  if (l->store[i].value == expected) return false;
  me->seen[l - S.location] = (uint16_t)i;
  return true;
}

bool sim_cas(volatile void *p, unsigned bytes, uint64_t expected, uint64_t desired, sim_order_t order, sim_place_t *at) {
  sim_meddled(p, 'c', at->function);
  bool ours = inside(p);
  if (ours) order = arrive(order, at);
  if (ours && S.instead == 's' && sim_weakened(at)) {
    if (S.weak) weak_stored(word_at(p, bytes), desired, order, false, false);
    raw_store(p, bytes, desired);
    return true;
  }
  if (ours && S.weak ? fails_on_an_old_word(word_at(p, bytes), expected) : raw_load(p, bytes) != expected) return false;
  if (ours && S.weak) weak_stored(word_at(p, bytes), desired, order, true, sim_weakened(at));
  raw_store(p, bytes, desired);
  return true;
}

uint64_t sim_max(cfn_a64 *word, uint64_t value, sim_place_t *at) {
  for (;;) {
    uint64_t seen = sim_load(word, 8, SIM_SEQ, at);
    if (S.instead == 'f' && sim_weakened(at)) {
      sim_store(word, 8, value, SIM_SEQ, at);
      return seen;
    }
    if (seen >= value || sim_cas(word, 8, seen, value, SIM_SEQ, at)) return seen;
  }
}

bool sim_instead(const char *what) {
  S.instead = what[0];
  return !strcmp(what, "store") || !strcmp(what, "fall") || !strcmp(what, "nothing");
}
bool sim_weaken(const char *place) {
  S.weakened = place;
  return sscanf(place, "%63[^:]:%d-%d:%15[^:]:%159[^\n]", S.weaken.file, &S.weaken.first, &S.weaken.last, S.weaken.what,
                S.weaken.word) == 5;
}
uint64_t sim_weakened_passed(void) { return S.passed; }
