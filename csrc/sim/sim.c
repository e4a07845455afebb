#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sim/kernel.h"
#include "sim/state.h"

struct sim_state sim_state;

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

uint64_t sim_next_random(void) { /* splitmix64 */
  uint64_t z = (S.random += UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}
uint64_t sim_random(void) { return sim_next_random(); }

/* One of n options; 0 is "as if nothing were". By decisions only. */
uint32_t sim_choose(uint32_t n) {
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

static void die(void) {
  if (S.weak) sim_lose_stores();
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
      uint64_t what = sim_next_random() % 8;
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
    if (S.eager && S.hot > HOT - HOTTER && S.used.kills < S.limits.kills && S.scenario->killable >> S.me & 1 && sim_next_random() % 8 == 0) die();
  }
  if (sim_next_random() % 16 == 0 || (S.hot > HOT - HOTTER && S.eager && sim_next_random() % 2)) {
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
bool sim_weakened(sim_place_t *at) {
  if (!S.weakened) return false;
  if (!at->weakened) {
    size_t long_ = strlen(at->file), n = strlen(S.weaken.file);
    bool same = long_ >= n && !strcmp(at->file + long_ - n, S.weaken.file) && !strcmp(at->what, S.weaken.what) &&
                !strcmp(at->word, S.weaken.word) && at->line >= S.weaken.first && at->line <= S.weaken.last;
    at->weakened = same ? 'y' : 'n';
  }
  return at->weakened == 'y';
}

void sim_point_in(const char *where) {
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
  uint32_t c = sim_choose(1 + (uint32_t)n + may_die);
  if (c == 0) return;
  if (c > (uint32_t)n) die();
  S.used.preemptions++;
  preempted_by = others[c - 1];
  to_scheduler();
}

void sim_point(void) {
  if (S.running) S.process[S.me].pendings = 0; /* the kernel is called: all before it has been done */
  sim_point_in(NULL);
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
  if (S.mode == BY_SEED) preempted_by = others[sim_next_random() % (uint64_t)n];
  to_scheduler();
}

/* ---- futexes and time ---- */

int sim_wait(cfn_a32 *word, uint32_t expected, uint64_t timeout_ns) {
  if (!S.running) {
    sim_meddled(word, 'w', "wait");
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
  if (S.mode == BY_DECISIONS) return ready[sim_choose((uint32_t)n)];
  int best = ready[0];
  for (int i = 1; i < n; i++)
    if (S.process[ready[i]].priority > S.process[best].priority) best = ready[i];
  return sim_next_random() % 4 ? best : ready[sim_next_random() % (uint64_t)n];
}

void sim_run_body(int p) {
  S.scenario->body[p](p);
  S.process[p].state = DONE;
  preempted_by = -1;
  to_scheduler();
}

void sim_schedule(void) {
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
