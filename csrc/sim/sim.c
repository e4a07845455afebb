#include "sim/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#include "sim/kernel.h"

#define STACK_BYTES (256u << 10)
#define POINTS_MOST 200000u /* of one run: beyond is an endless loop */
#define DECISIONS_MOST 65536u
#define LOCATIONS 4096u
#define VIEW_WORDS (8u << 20) /* of all views of a run */
#define LINE 64u
#define LINES 65536u /* versions of lines of plain memory, in one run */
#define PENDING 8u
#define HOT 64u  /* points behind a weakened operation at which its process prefers what is old, */
#define HOTTER 6u /* and in the first of which others come in, or it is killed */
#define NOTES 4096u
#define STALE_DEPTH 8u /* how many stores back a stale read looks at most */

enum { READY, WAITING, STOPPED, DONE, KILLED };
enum { BY_DECISIONS, BY_SEED };

typedef struct process {
  ucontext_t context;
  void *stack;
  int state;
  cfn_a32 *word; /* WAITING: on this, */
  uint32_t expected; /* while it holds that */
  bool asleep; /* STOPPED: in that wait; the kernel looks at the word again when it goes on */
  uint64_t until;
  int answer; /* of the wait */
  uint32_t priority;
  uint16_t seen[LOCATIONS]; /* per location: the oldest store it may still read */
  uint32_t sc;   /* when its last seq_cst operation took place, or what it read by acquire was written */
  uint32_t read; /* when the latest of what it read of plain memory was written */
  /* Stores behind which it did not release anything: what comes after them may come before them. */
  struct { uint16_t location, store; } pending[PENDING];
  uint32_t pendings;
} process_t;

/* One store in a location's order, for weak memory. */
typedef struct store {
  uint64_t value; /* of a line of plain memory: which of `lines` */
  const uint16_t *view; /* how many locations, and how far its process had seen each, if it was a release; else NULL */
  uint32_t time;
  bool sc;
  bool weakened; /* should have been a release: nothing follows from reading it */
} store_t;
typedef struct location {
  uintptr_t address; /* + 1: a line of plain memory */
  store_t *store;
  uint16_t stores, room, bytes;
} location_t;

static struct {
  const sim_scenario_t *scenario;
  sim_limits_t limits, used;
  process_t process[SIM_PROCESSES];
  ucontext_t scheduler;
  int me; /* who runs, or whom the setup acts as */
  bool running, weak;
  int mode;
  uint64_t now, points, ticks;
  /* by decisions: what to do at the n-th choice, and how many options there were */
  uint16_t decision[DECISIONS_MOST], options[DECISIONS_MOST];
  uint32_t decided, given;
  bool sampling; /* decisions are thrown, not counted through */
  /* by seed */
  uint64_t seed, random;
  uint64_t change[8];
  /* the region */
  uint8_t *base, *pristine;
  uint64_t bytes;
  cfn_bus_t *handle[64];
  int handles, whose[64];
  /* weak memory */
  location_t location[LOCATIONS];
  uint16_t found[2 * LOCATIONS]; /* by address: location + 1 */
  uint32_t locations, clock;
  uint16_t *views, kernel_view[LOCATIONS];
  uint32_t views_used, lines_used, stale_every;
  uint8_t (*lines)[LINE];
  /* one operation that is relaxed */
  struct { char file[64], what[16], word[160]; int first, last; } weaken;
  const char *weakened; /* as it was given */
  char instead; /* 's' a swap stores, 'f' a maximum may fall, 'n' nothing is written; or 0: it is relaxed */
  bool young; /* this run: what the weakened load itself reads, if what follows is old */
  bool eager, old_lines; /* this run: old there and right behind it, rather than anywhere; old lines of plain memory */
  unsigned stubborn; /* so often */
  unsigned hot; /* points for which it has just been passed, by */
  int hot_process;
  uint64_t passed;
  char notes[NOTES];
  size_t noted;
} S;

/* ---- failing ---- */

static void print_schedule(FILE *f) {
  if (S.mode == BY_SEED) {
    fprintf(f, "  again: --scenario %s --seed %llu%s", S.scenario->name, (unsigned long long)S.seed,
            S.weak ? " --weak" : "");
    if (S.weakened) fprintf(f, " --weaken '%s'", S.weakened);
    fprintf(f, S.instead == 's' ? " --instead store\n" : S.instead == 'f' ? " --instead fall\n" : S.instead ? " --instead nothing\n" : "\n");
    return;
  }
  fprintf(f, "  again: --scenario %s --limits %d,%d,%d,%d --decisions ", S.scenario->name, S.limits.preemptions,
          S.limits.kills, S.limits.stops, S.limits.stale);
  const char *comma = "";
  for (uint32_t i = 0; i < S.decided; i++)
    if (S.decision[i]) {
      fprintf(f, "%s%u:%u", comma, i, S.decision[i]);
      comma = ",";
    }
  fprintf(f, "%s\n", *comma ? "" : "none");
}

void sim_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "cfnsim: scenario %s failed at point %llu: ", S.scenario ? S.scenario->name : "-",
          (unsigned long long)S.points);
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, "\n");
  if (S.noted) fprintf(stderr, "%s", S.notes);
  if (S.scenario) print_schedule(stderr);
  exit(1);
}

void sim_note(const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(S.notes + S.noted, NOTES - S.noted, format, args);
  va_end(args);
  if (n > 0 && S.noted + (size_t)n < NOTES - 2) {
    S.noted += (size_t)n;
    S.notes[S.noted++] = '\n';
    S.notes[S.noted] = 0;
  }
}

/* ---- choosing ---- */

static uint64_t next_random(void) { /* splitmix64 */
  uint64_t z = (S.random += UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}
uint64_t sim_random(void) { return next_random(); }

/* One of n options; 0 is "as if nothing were". By decisions only. */
static uint32_t choose(uint32_t n) {
  if (n < 2) return 0;
  if (S.decided == DECISIONS_MOST) sim_fail("too many decisions in one run");
  uint32_t i = S.decided++;
  if (i >= S.given) S.decision[i] = 0;
  S.options[i] = (uint16_t)n;
  if (S.sampling) S.decision[i] = (uint16_t)(S.decision[i] % n);
  if (S.decision[i] >= n) sim_fail("the run does not repeat itself: decision %u of %u options", i, n);
  return S.decision[i];
}

/* ---- processes ---- */

int sim_me(void) { return S.me; }
uint64_t sim_now(void) { return S.now; }
bool sim_lives(int p) { return p >= 0 && p < SIM_PROCESSES && S.process[p].state != KILLED; }
void sim_as(int p) { S.me = p; }

char sim_end(int p) {
  switch (S.process[p].state) {
    case DONE: return 'd';
    case KILLED: return 'k';
    default: return 'w';
  }
}
void sim_bury(int p) {
  S.process[p].state = KILLED;
  kernel_died(p);
}
bool sim_anyone_killed(void) {
  for (int p = 0; p < SIM_PROCESSES; p++)
    if (S.process[p].state == KILLED) return true;
  return false;
}

bool sim_is_weak(void) { return S.weak; }

static void to_scheduler(void) { swapcontext(&S.process[S.me].context, &S.scheduler); }

static void lose_stores(void);

static void die(void) {
  if (S.weak) lose_stores();
  S.process[S.me].state = KILLED;
  S.used.kills++;
  kernel_died(S.me);
  to_scheduler(); /* never comes back */
}

static int ready_others(int *out) {
  int n = 0;
  for (int p = 0; p < SIM_PROCESSES; p++)
    if (p != S.me && S.process[p].state == READY) out[n++] = p;
  return n;
}

static int preempted_by; /* who goes on after a preemption, or -1: the scheduler chooses */

/* A wake-up passes a stopped sleeper by; until somebody resumes it, it is not woken at all. */
static void stop_a_sleeper(void) {
  for (int p = 0; p < SIM_PROCESSES; p++)
    if (S.process[p].state == WAITING && S.used.stops < S.limits.stops) {
      S.process[p].state = STOPPED;
      S.process[p].asleep = true;
      S.used.stops++;
      return;
    }
}

static void kill_a_sleeper(void) {
  for (int p = 0; p < SIM_PROCESSES; p++)
    if (S.process[p].state == WAITING && S.used.kills < S.limits.kills && S.scenario->killable >> p & 1) {
      S.process[p].state = KILLED;
      S.used.kills++;
      kernel_died(p);
      return;
    }
}

static void point_by_seed(void) {
  process_t *me = &S.process[S.me];
  for (unsigned i = 0; i < sizeof S.change / sizeof S.change[0]; i++)
    if (S.points == S.change[i]) { /* a change point: this process goes last from now on */
      me->priority = i;
      uint64_t what = next_random() % 8;
      if (what < 2 && S.used.kills < S.limits.kills && S.scenario->killable >> S.me & 1) die();
      if (what == 3) kill_a_sleeper();
      if (what == 4 || what == 5) stop_a_sleeper();
      if (what == 2 && S.used.stops < S.limits.stops) {
        S.used.stops++;
        me->state = STOPPED;
      }
      preempted_by = -1;
      to_scheduler();
      return;
    }
  if (S.hot && S.hot_process == S.me) {
    S.hot--;
    if (S.eager && S.hot > HOT - HOTTER && S.used.kills < S.limits.kills && S.scenario->killable >> S.me & 1 && next_random() % 8 == 0) die();
  }
  if (next_random() % 16 == 0 || (S.hot > HOT - HOTTER && S.eager && next_random() % 2)) {
    preempted_by = -1;
    to_scheduler();
  }
}

/* Is `name` among the names in `list`: commas between, a star at the end stands for anything? */
bool sim_listed(const char *list, const char *name) {
  for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
    size_t n = strcspn(p, ",");
    if (p[n - 1] == '*' ? !strncmp(p, name, n - 1) : !strncmp(p, name, n) && !name[n]) return true;
  }
  return false;
}

/* Is it the one that is relaxed? */
static bool weakened(sim_place_t *at) {
  if (!S.weakened) return false;
  if (!at->weakened) {
    size_t long_ = strlen(at->file), n = strlen(S.weaken.file);
    bool same = long_ >= n && !strcmp(at->file + long_ - n, S.weaken.file) && !strcmp(at->what, S.weaken.what) &&
                !strcmp(at->word, S.weaken.word) && at->line >= S.weaken.first && at->line <= S.weaken.last;
    at->weakened = same ? 'y' : 'n';
  }
  return at->weakened == 'y';
}

static void point(const char *where) {
  if (!S.running) return;
  if (++S.points > POINTS_MOST) sim_fail("an endless loop in process %d", S.me);
  if (S.mode == BY_SEED) {
    point_by_seed();
    return;
  }
  const char *focus = S.scenario->focus;
  if (focus && !(where && sim_listed(focus, where))) return;
  int others[SIM_PROCESSES], n = 0;
  if (S.used.preemptions < S.limits.preemptions) n = ready_others(others);
  bool may_die = S.used.kills < S.limits.kills && S.scenario->killable >> S.me & 1;
  uint32_t c = choose(1 + (uint32_t)n + may_die);
  if (c == 0) return;
  if (c > (uint32_t)n) die();
  S.used.preemptions++;
  preempted_by = others[c - 1];
  to_scheduler();
}

void sim_point(void) {
  if (S.running) S.process[S.me].pendings = 0; /* the kernel is called: all before it has been done */
  point(NULL);
}

void sim_yield(void) { /* gives the processor away: costs no preemption, and must let others on */
  if (!S.running) return;
  int others[SIM_PROCESSES];
  if (++S.points > POINTS_MOST) sim_fail("an endless loop in process %d", S.me);
  int n = ready_others(others);
  if (n == 0) return;
  preempted_by = others[0]; /* round about, without a choice: spins would multiply the schedules */
  for (int i = n; i-- > 0;)
    if (others[i] > S.me) preempted_by = others[i];
  if (S.mode == BY_SEED) preempted_by = others[next_random() % (uint64_t)n];
  to_scheduler();
}

/* ---- futexes and time ---- */

static void meddled(const volatile void *p, char how, const char *where);

int sim_wait(cfn_a32 *word, uint32_t expected, uint64_t timeout_ns) {
  if (!S.running) {
    meddled(word, 'w', "wait");
    if (atomic_load_explicit(word, memory_order_relaxed) != expected) return -EAGAIN;
    S.now += timeout_ns;
    return -ETIMEDOUT;
  }
  sim_point();
  if (atomic_load_explicit(word, memory_order_relaxed) != expected) return -EAGAIN;
  process_t *p = &S.process[S.me];
  p->state = WAITING;
  p->word = word;
  p->expected = expected;
  p->until = S.now + timeout_ns;
  preempted_by = -1;
  to_scheduler();
  return p->answer;
}

int sim_wake(cfn_a32 *word, int most) {
  sim_point();
  int woken = 0;
  for (int p = 0; p < SIM_PROCESSES && woken < most; p++) {
    process_t *q = &S.process[p];
    if (q->state != WAITING || q->word != word) continue;
    q->state = READY;
    q->answer = 0;
    woken++;
  }
  return woken;
}

static void resume(process_t *p) {
  bool same = p->asleep && atomic_load_explicit(p->word, memory_order_relaxed) == p->expected;
  p->state = same ? WAITING : READY;
  p->answer = 0;
  p->asleep = false;
}

/* Everybody waits: resumes who is stopped, else lets time pass until the first wait is over. */
static bool pass_time(void) {
  int first = -1;
  for (int p = 0; p < SIM_PROCESSES; p++)
    if (S.process[p].state == STOPPED) {
      resume(&S.process[p]);
      return true;
    }
  for (int p = 0; p < SIM_PROCESSES; p++)
    if (S.process[p].state == WAITING && (first < 0 || S.process[p].until < S.process[first].until)) first = p;
  if (first < 0) return false;
  process_t *p = &S.process[first];
  if (p->until > S.now) S.now = p->until;
  p->state = READY;
  p->answer = -ETIMEDOUT;
  if (++S.ticks > 200) sim_fail("process %d waits for ever", first);
  if (!S.scenario->ticks && !sim_anyone_killed())
    sim_fail("a lost wake-up: process %d sleeps on, and nobody will ring it", first);
  return true;
}

static int pick(void) {
  int ready[SIM_PROCESSES], n = 0;
  S.me = -1;
  n = ready_others(ready);
  if (n == 0) return -1;
  if (S.mode == BY_DECISIONS) return ready[choose((uint32_t)n)];
  int best = ready[0];
  for (int i = 1; i < n; i++)
    if (S.process[ready[i]].priority > S.process[best].priority) best = ready[i];
  return next_random() % 4 ? best : ready[next_random() % (uint64_t)n];
}

static void run_body(int p) {
  S.scenario->body[p](p);
  S.process[p].state = DONE;
  preempted_by = -1;
  to_scheduler();
}

static void schedule(void) {
  preempted_by = -1;
  for (;;) {
    int next = preempted_by >= 0 ? preempted_by : pick();
    preempted_by = -1;
    if (next < 0) {
      if (!pass_time()) return;
      continue;
    }
    S.me = next;
    swapcontext(&S.scheduler, &S.process[next].context);
  }
}

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
  if (S.mode != BY_SEED) n = choose(most + 1);
  else if (eager) n = (S.stubborn && S.stubborn--) || next_random() % 2 ? most : 0;
  else n = next_random() % S.stale_every ? 0 : next_random() % 2 ? most : (uint32_t)(next_random() % (most + 1));
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
static void lose_stores(void) {
  process_t *me = &S.process[S.me];
  while (me->pendings && S.mode == BY_SEED) {
    uint32_t at = me->pending[--me->pendings].location;
    location_t *l = &S.location[at];
    bool seen = l->stores - 1 != me->pending[me->pendings].store || l->stores < 2;
    for (int p = 0; p < SIM_PROCESSES; p++) seen |= p != S.me && S.process[p].seen[at] >= l->stores - 1;
    if (seen || next_random() % 2) continue;
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
  if (weakened(at)) {
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

static void weak_forget(void) {
  memset(S.kernel_view, 0, sizeof S.kernel_view);
  memset(S.found, 0, sizeof S.found);
  S.locations = S.views_used = S.lines_used = S.clock = 0;
}

/* ---- the atomics of the core ---- */

sim_meddler_t *sim_meddler;
static void meddled(const volatile void *p, char how, const char *where) {
  sim_meddler_t *meddler = sim_meddler;
  if (!meddler) return;
  sim_meddler = NULL; /* what it does itself is left alone */
  meddler(p, how, where);
  if (!sim_meddler) sim_meddler = meddler;
}

/* The point before an operation, and the order that it has. */
static sim_order_t arrive(sim_order_t order, sim_place_t *at) {
  bool weak = weakened(at);
  if (weak) hot_here(); /* others come in here, and behind it */
  point(at->function);
  if (!weak) return order;
  hot_here();
  S.passed++;
  return S.instead ? order : SIM_RELAXED;
}

uint64_t sim_load(const volatile void *p, unsigned bytes, sim_order_t order, sim_place_t *at) {
  meddled(p, 'l', at->function);
  if (!inside(p)) return raw_load(p, bytes);
  sim_order_t is = arrive(order, at);
  bool eager = S.eager && S.hot && S.hot_process == S.me && !(S.young && is != order);
  return S.weak ? weak_load(p, bytes, is, eager) : raw_load(p, bytes);
}

void sim_store(volatile void *p, unsigned bytes, uint64_t value, sim_order_t order, sim_place_t *at) {
  meddled(p, 's', at->function);
  if (!inside(p)) {
    raw_store(p, bytes, value);
    return;
  }
  order = arrive(order, at);
  if (S.instead == 'n' && weakened(at)) return;
  if (S.weak) weak_stored(word_at(p, bytes), value, order, false, weakened(at));
  raw_store(p, bytes, value);
}

uint64_t sim_update(volatile void *p, unsigned bytes, char how, uint64_t value, sim_order_t order, sim_place_t *at) {
  meddled(p, how, at->function);
  bool ours = inside(p);
  if (ours) order = arrive(order, at);
  uint64_t was = raw_load(p, bytes);
  uint64_t is = how == '+' ? was + value : how == '|' ? was | value : was & value;
  if (bytes == 4) is = (uint32_t)is;
  if (ours && S.instead == 'n' && weakened(at)) is = was;
  if (ours && S.weak) weak_stored(word_at(p, bytes), is, order, true, weakened(at));
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
  meddled(p, 'c', at->function);
  bool ours = inside(p);
  if (ours) order = arrive(order, at);
  if (ours && S.instead == 's' && weakened(at)) {
    if (S.weak) weak_stored(word_at(p, bytes), desired, order, false, false);
    raw_store(p, bytes, desired);
    return true;
  }
  if (ours && S.weak ? fails_on_an_old_word(word_at(p, bytes), expected) : raw_load(p, bytes) != expected) return false;
  if (ours && S.weak) weak_stored(word_at(p, bytes), desired, order, true, weakened(at));
  raw_store(p, bytes, desired);
  return true;
}

uint64_t sim_max(cfn_a64 *word, uint64_t value, sim_place_t *at) {
  for (;;) {
    uint64_t seen = sim_load(word, 8, SIM_SEQ, at);
    if (S.instead == 'f' && weakened(at)) {
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

/* ---- runs ---- */

cfn_bus_t *sim_open(int p, const char *agent) {
  int before = S.me;
  bool running = S.running;
  if (!running) S.me = p;
  cfn_bus_t *bus;
  if (cfn_bus_open(NULL, kernel_bus_name(), NULL, 0, &bus, NULL) < 0)
    sim_fail("cannot open: %s", cfn_last_failure()->text);
  uint64_t inc;
  int owner;
  if (agent && cfn_bus_act_as(bus, agent, NULL, CFN_ACT_OWN, &inc, &owner) < 0)
    sim_fail("cannot act as %s: %s", agent, cfn_last_failure()->text);
  S.whose[S.handles] = p;
  S.handle[S.handles++] = bus;
  if (!running) S.me = before;
  return bus;
}

static void end_handles(void) {
  for (int i = 0; i < S.handles; i++) {
    cfn_bus_t *bus = S.handle[i];
    S.me = S.whose[i];
    pthread_mutex_init(&bus->lock, NULL); /* it may have died inside */
    pthread_mutex_init(&bus->region->live_lock, NULL);
    atomic_store_explicit(&bus->inside, 0, memory_order_relaxed);
    cfn_bus_free(bus);
  }
  S.handles = 0;
}

void sim_fresh(void) {
  end_handles();
  memcpy(S.base, S.pristine, S.bytes);
  kernel_reset();
  S.now = 1000000000;
  S.running = false;
  for (int p = 0; p < SIM_PROCESSES; p++) S.process[p].state = DONE;
}

static void run_once(const sim_scenario_t *s) {
  S.scenario = s;
  S.used = (sim_limits_t){0};
  S.decided = 0;
  S.points = S.ticks = 0;
  S.noted = 0;
  S.notes[0] = 0;
  sim_fresh();
  s->setup();
  if (S.weak) weak_forget();
  for (int p = 0; p < SIM_PROCESSES; p++) {
    process_t *q = &S.process[p];
    if (!s->body[p]) continue;
    if (!q->stack) q->stack = malloc(STACK_BYTES);
    memset(q->seen, 0, sizeof q->seen);
    q->sc = q->read = q->pendings = 0;
    getcontext(&q->context);
    q->context.uc_stack.ss_sp = q->stack;
    q->context.uc_stack.ss_size = STACK_BYTES;
    q->context.uc_link = NULL;
    makecontext(&q->context, (void (*)(void))run_body, 1, p);
    q->state = READY;
    q->priority = S.mode == BY_SEED ? (uint32_t)(100 + next_random() % 100) : 0;
  }
  S.running = true;
  schedule();
  S.running = false;
  S.me = 0;
  s->verify();
  end_handles();
}

void sim_create(void) {
  cfn_wish_t wish = {.agents = 4, .lane_slots = {2, 2, 4 /* LANE */, 2}, .class_wished = 0x3f, .class_chunks = {32},
                     .refs = 4, .objects = 4, .object_pages = 4, .spill = "/dev/shm"};
  cfn_bus_t *bus;
  sim_as(0);
  if (cfn_bus_open(NULL, kernel_bus_name(), &wish, CFN_OPEN_CREATE, &bus, NULL) < 0)
    sim_fail("cannot create: %s", cfn_last_failure()->text);
  cfn_region_t *r = cfn_bus_region(bus);
  S.base = r->base;
  S.bytes = r->geo.region_bytes;
  cfn_bus_free(bus);
  S.pristine = malloc(S.bytes);
  S.views = malloc(VIEW_WORDS * sizeof *S.views);
  S.lines = malloc(LINES * sizeof *S.lines);
  if (!S.pristine || !S.views || !S.lines) abort();
  memcpy(S.pristine, S.base, S.bytes);
}

void sim_destroy(void) {
  kernel_spills(true);
  cfn_region_destroy_path(NULL, kernel_bus_name());
}

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void count_run(sim_result_t *r) {
  r->runs++;
  r->points += S.points;
  r->kills += (uint64_t)S.used.kills;
  if (S.points > r->deepest) r->deepest = S.points;
}

sim_result_t sim_exhaust(const sim_scenario_t *s, sim_limits_t limits, double seconds) {
  sim_result_t r = {0};
  double end = seconds_now() + seconds;
  S.mode = BY_DECISIONS;
  S.limits = limits;
  S.weak = limits.stale > 0;
  S.eager = S.old_lines = false;
  S.given = 0;
  for (;;) {
    S.random = 1;
    run_once(s);
    count_run(&r);
    uint32_t last = S.decided;
    while (last > 0 && S.decision[last - 1] + 1u >= S.options[last - 1]) last--;
    if (last == 0) {
      r.complete = true;
      return r;
    }
    S.decision[last - 1]++;
    S.given = last;
    if (seconds_now() > end) return r;
  }
}

sim_result_t sim_seeds(const sim_scenario_t *s, uint64_t seed, uint64_t runs, bool weak, double seconds) {
  sim_result_t r = {0};
  double end = seconds_now() + seconds;
  S.mode = BY_SEED;
  S.weak = weak;
  S.limits = (sim_limits_t){1 << 30, 2, 2, weak ? 1 << 30 : 0};
  uint64_t typical = 400;
  for (uint64_t i = 0; i < runs && seconds_now() < end; i++) {
    S.seed = S.random = seed + i;
    next_random();
    S.eager = S.weakened && next_random() % 2; /* no number is thrown without it: seeds stay what they are */
    S.hot = 0;
    if (weak) { /* in some runs much is old, in others little */
      static const uint8_t every[] = {2, 3, 8, 30};
      S.stale_every = every[next_random() % 4];
      if (S.eager && next_random() % 2) S.stale_every = 200;
      S.stubborn = next_random() % 2 ? 4u << next_random() % 6 : 0; /* not for ever: who waits for news would never get it */
      S.old_lines = next_random() % 2;
      S.young = next_random() % 2;
    }
    for (unsigned c = 0; c < sizeof S.change / sizeof S.change[0]; c++) S.change[c] = 1 + next_random() % (typical >> c % 4);
    run_once(s);
    count_run(&r);
  }
  return r;
}

sim_result_t sim_sample(const sim_scenario_t *s, sim_limits_t limits, uint64_t seed, double seconds) {
  sim_result_t r = {0};
  double end = seconds_now() + seconds;
  S.mode = BY_DECISIONS;
  S.limits = limits;
  S.weak = limits.stale > 0;
  S.sampling = true;
  uint32_t n = 0; /* the most decisions in a run until now: when the limits are used up there are fewer */
  for (uint64_t i = 0; seconds_now() < end; i++) {
    S.random = seed + i;
    next_random();
    memset(S.decision, 0, sizeof S.decision);
    S.given = n;
    for (int k = 0; n && k < limits.preemptions + limits.kills + limits.stale; k++)
      S.decision[next_random() % n] = (uint16_t)(1 + next_random() % 1000);
    S.random = 1;
    run_once(s);
    count_run(&r);
    if (S.decided > n) n = S.decided;
  }
  S.sampling = false;
  return r;
}

void sim_replay(const sim_scenario_t *s, sim_limits_t limits, const char *decisions) {
  S.mode = BY_DECISIONS;
  S.limits = limits;
  S.weak = limits.stale > 0;
  S.given = 0;
  memset(S.decision, 0, sizeof S.decision);
  for (const char *p = decisions; p && *p;) {
    unsigned at, what;
    int used = 0;
    if (sscanf(p, "%u:%u%n", &at, &what, &used) != 2 || at >= DECISIONS_MOST) break;
    S.decision[at] = (uint16_t)what;
    S.given = at + 1;
    p += used;
    if (*p == ',') p++;
  }
  S.random = 1;
  run_once(s);
}
