/* How to be at the n-th instruction of an operation again without stepping over all before it: it is walked through once,
 * alone; then a hardware breakpoint stands where it seldom comes by, and the rest is stepped. */
#ifndef CFN_TESTS_STEP_WAY_H
#define CFN_TESTS_STEP_WAY_H

#include <stddef.h>
#include <sys/user.h>

#include "tests/stepper.h"

typedef struct step_place {
  uint64_t pc;  /* where it is before this instruction ... */
  int32_t nth;  /* ... for the nth time */
  int32_t lead; /* the quickest way here is to run to the instruction that is so many before it, and to step on */
} step_place_t;
typedef struct step_way {
  long instructions;
  step_place_t *place; /* [instructions] */
  long *mark, marks;   /* what touches what others see, and what follows that */
  long *turn, turns;   /* the first and the last time at each address */
  bool runs;           /* breakpoints work here */
} step_way_t;

#if defined(__x86_64__)
static inline bool victim_debug(const victim_t *v, int reg, uint64_t value) {
  return ptrace(PTRACE_POKEUSER, v->pid, offsetof(struct user, u_debugreg) + (size_t)reg * sizeof(long), value) == 0;
}
static inline uint64_t victim_pc(const victim_t *v) {
  errno = 0;
  long pc = ptrace(PTRACE_PEEKUSER, v->pid, offsetof(struct user_regs_struct, rip), 0);
  CHECK_INT(errno, 0);
  return (uint64_t)pc;
}
/* Runs to the nth time at this place, by a hardware breakpoint; false when the operation is over before. */
static inline bool victim_run(victim_t *v, const step_place_t *to) {
  CHECK(victim_debug(v, 0, to->pc) && victim_debug(v, 7, 1));
  int status = 0;
  for (int32_t n = 0; n < to->nth; n++) {
    CHECK_INT(ptrace(PTRACE_CONT, v->pid, 0, 0), 0);
    CHECK_INT(waitpid(v->pid, &status, 0), v->pid);
    CHECK(WIFSTOPPED(status));
    if (v->report->done) break;
    CHECK(WSTOPSIG(status) == SIGTRAP && victim_pc(v) == to->pc);
  }
  CHECK(victim_debug(v, 7, 0));
  return !v->report->done;
}
/* A system call, or a locked instruction. */
static inline bool step_touches(const victim_t *v, uint64_t pc) {
  errno = 0;
  long code = ptrace(PTRACE_PEEKTEXT, v->pid, pc, 0);
  CHECK_INT(errno, 0);
  uint8_t a = (uint8_t)code, b = (uint8_t)(code >> 8);
  if (a >= 0x40 && a <= 0x4f) a = b, b = (uint8_t)(code >> 16); /* REX */
  return a == 0xf0 || (a == 0x0f && b == 0x05) || ((a == 0x86 || a == 0x87) && b < 0xc0);
}

/* How often each address was met; a table by a hash of the address. */
typedef struct step_seen {
  uint64_t pc;
  long times, first, last;
} step_seen_t;
#define STEP_ADDRESSES_LOG 17
static inline step_seen_t *step_seen(step_seen_t *table, uint64_t pc) {
  uint64_t i = pc * UINT64_C(0x9e3779b97f4a7c15) >> (64 - STEP_ADDRESSES_LOG);
  while (table[i].pc && table[i].pc != pc) i = (i + 1) % (1u << STEP_ADDRESSES_LOG);
  table[i].pc = pc;
  return &table[i];
}
static inline void step_find_ways(step_way_t *way) {
  step_seen_t *table = calloc(1u << STEP_ADDRESSES_LOG, sizeof *table);
  way->turn = malloc((size_t)way->instructions * 2 * sizeof *way->turn);
  CHECK(table && way->turn);
  long cost = 0; /* stops on the quickest way to the instruction before */
  for (long n = 0; n < way->instructions; n++) {
    step_place_t *p = &way->place[n];
    step_seen_t *s = step_seen(table, p->pc);
    if (s->times++ == 0) s->first = n;
    s->last = n;
    /* An instruction that repeats itself ("rep movs") is many steps and one breakpoint. */
    if (n > 0 && p[-1].pc == p->pc) s->times = INT32_MAX;
    p->nth = s->times < INT32_MAX ? (int32_t)s->times : INT32_MAX;
    if (n == 0) continue;
    if (p->nth <= cost) cost = p->nth;
    else p->lead = p[-1].lead + 1, cost++;
  }
  for (unsigned i = 0; i < 1u << STEP_ADDRESSES_LOG; i++) {
    if (table[i].pc) way->turn[way->turns++] = table[i].first;
    if (table[i].last > table[i].first) way->turn[way->turns++] = table[i].last;
  }
  free(table);
}

/* Walks through what the victim is about to do, to its end or until `enough`. */
static inline void step_way_find(step_way_t *way, victim_t *v, bool (*enough)(void)) {
  long room = 0;
  bool after = false, more = true;
  *way = (step_way_t){.instructions = 0};
  while (more && !(enough && enough())) {
    if (way->instructions == room) {
      room = room ? 2 * room : 4096;
      way->place = realloc(way->place, (size_t)room * sizeof *way->place);
      way->mark = realloc(way->mark, (size_t)room * sizeof *way->mark);
      CHECK(way->place && way->mark);
    }
    uint64_t pc = victim_pc(v);
    bool now = step_touches(v, pc);
    if (now || after) way->mark[way->marks++] = way->instructions;
    after = now;
    way->place[way->instructions++] = (step_place_t){.pc = pc};
    more = victim_step(v, 1);
  }
  step_find_ways(way);
}

/* Are there breakpoints here? With a victim that is at the beginning, which is moved. */
static inline void step_way_try(step_way_t *way, victim_t *v) {
  long middle = way->instructions / 2;
  const step_place_t *to = &way->place[middle - way->place[middle].lead];
  way->runs = victim_debug(v, 7, 0) && victim_run(v, to) && victim_pc(v) == to->pc;
}
#else
static inline bool victim_run(victim_t *v, const step_place_t *to) { return !v && !to; }
static inline uint64_t victim_pc(const victim_t *v) { return v ? 0 : 1; }
static inline void step_way_find(step_way_t *way, victim_t *v, bool (*enough)(void)) {
  *way = (step_way_t){.instructions = 0};
  while (!(enough && enough()) && victim_step(v, 20)) {
  }
  way->instructions = v->steps;
}
static inline void step_way_try(step_way_t *way, victim_t *v) { way->runs = !v; }
#endif
static inline void step_way_free(step_way_t *way) {
  free(way->place);
  free(way->mark);
  free(way->turn);
}

/* To the n-th instruction from its start; false when the operation has returned. */
static inline bool victim_go_to(victim_t *v, long n) {
  const step_way_t *way = v->way;
  if (!way || !way->runs) return victim_step(v, n);
  long known = n < way->instructions ? n : way->instructions - 1, from = known - way->place[known].lead;
  if (from > 0) {
    if (!victim_run(v, &way->place[from])) return false;
    v->steps = from;
  }
  bool more = victim_step(v, n - v->steps);
  if (more && (n > known || victim_pc(v) != way->place[n].pc)) v->elsewhere++;
  return more;
}

#endif
