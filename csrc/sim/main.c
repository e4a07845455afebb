/* cfnsim [--seconds S] [--scenario NAME,NAME*] [--limits P,K,S,W] [--decisions LIST] [--seed N] [--seeds N] [--weak]
 *        [--weaken FILE:FIRST-LAST:OPERATION:WORD [--instead store|fall|nothing]]
 *
 * Without arguments: every scenario, exhaustively within its small limits, then by random seeds, then with
 * weak memory, for about a minute. --seconds S shares S seconds among the scenarios and raises the limits
 * until the time is over; --weak alone runs only with weak memory. --weaken makes one operation of the core relaxed: all
 * scenarios run for a while, then those in which it was done, for S seconds; exit status 3: it was done in none. */
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/kernel.h"
#include "sim/scenarios.h"

static void on_signal(int number) {
  sim_destroy();
  _exit(128 + number);
}

static void show(const char *how, const sim_scenario_t *s, sim_limits_t l, sim_result_t r) {
  printf("%-10s %-15s %9llu runs %11llu points %8llu kills", how, s->name, (unsigned long long)r.runs,
         (unsigned long long)r.points, (unsigned long long)r.kills);
  if (strcmp(how, "random") != 0 && strcmp(how, "weak") != 0)
    printf("  preemptions<=%d kills<=%d stale<=%d%s", l.preemptions, l.kills, l.stale,
           r.complete ? "  complete" : strcmp(how, "sampled") != 0 ? "  time over" : "");
  printf("\n");
  fflush(stdout);
}

/* Those in which the weakened operation is done, in turn, until the time is over. */
static int weakened(const char *only, double seconds, uint64_t seed, bool weak) {
  bool does[256] = {false};
  int doing = 0;
  for (uint64_t tries = 3; tries <= 48 && !doing; tries *= 4)
    for (int i = 0; i < sim_scenario_count(); i++) {
      if (only && !sim_listed(only, sim_scenario(i)->name)) continue;
      uint64_t before = sim_weakened_passed();
      for (uint64_t n = 0; n < tries && sim_weakened_passed() == before; n++) sim_seeds(sim_scenario(i), seed + n, 1, weak, 1e9);
      doing += does[i] = sim_weakened_passed() > before;
    }
  if (!doing) {
    printf("nobody does it\n");
    return 3;
  }
  uint64_t runs = 0;
  seconds += 0.05 * doing;
  for (int turn = 0; turn < 4; turn++)
    for (int i = 0; i < sim_scenario_count(); i++)
      if (does[i] && !weak && sim_scenario(i)->focus && turn % 2 == 0)
        runs += sim_sample(sim_scenario(i), sim_scenario(i)->small, seed + (uint64_t)turn, seconds / 4 / doing).runs;
      else if (does[i])
        runs += sim_seeds(sim_scenario(i), seed + 1000000u * (uint64_t)(turn + 1), UINT64_MAX, weak || turn % 2, seconds / 4 / doing).runs;
  printf("weakened: done %llu times, in %d scenarios, %llu runs\n", (unsigned long long)sim_weakened_passed(), doing,
         (unsigned long long)runs);
  return 0;
}

int main(int argc, char **argv) {
  double seconds = 0;
  const char *only = NULL, *decisions = NULL;
  sim_limits_t limits = {0};
  bool limited = false, weak = false, seeded = false, weaken = false, instead = false;
  uint64_t seed = 1, seeds = 0;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(argv[i], "--weak")) {
      weak = true;
      continue;
    }
    i++;
    if (!strcmp(argv[i - 1], "--seconds")) seconds = atof(value);
    else if (!strcmp(argv[i - 1], "--scenario")) only = value;
    else if (!strcmp(argv[i - 1], "--decisions")) decisions = value;
    else if (!strcmp(argv[i - 1], "--weaken") && sim_weaken(value)) weaken = true;
    else if (!strcmp(argv[i - 1], "--instead") && sim_instead(value)) instead = true;
    else if (!strcmp(argv[i - 1], "--seeds")) seeds = strtoull(value, NULL, 10);
    else if (!strcmp(argv[i - 1], "--seed")) seed = strtoull(value, NULL, 10), seeded = true;
    else if (!strcmp(argv[i - 1], "--limits") &&
             sscanf(value, "%d,%d,%d,%d", &limits.preemptions, &limits.kills, &limits.stops, &limits.stale) == 4)
      limited = true;
    else {
      fprintf(stderr, "cfnsim: bad argument %s; see sim/main.c\n", argv[i - 1]);
      return 2;
    }
  }
  mallopt(M_MMAP_THRESHOLD, 1 << 30); /* every run allocates and frees the same: no system calls for it */
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  sim_create();
  atexit(sim_destroy);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  if (weaken && !seeded) return weakened(only, seconds > 0 ? seconds : 10, seed, !instead);
  int found = 0, wanted = 0;
  for (int i = 0; i < sim_scenario_count(); i++) wanted += (!only || sim_listed(only, sim_scenario(i)->name));
  double each = (seconds > 0 ? seconds : 60) / (wanted ? wanted : 1) / 3;
  for (int i = 0; i < sim_scenario_count(); i++) {
    const sim_scenario_t *s = sim_scenario(i);
    if (only && !sim_listed(only, s->name)) continue;
    found++;
    if (decisions) {
      sim_replay(s, limits, decisions);
      printf("%s: this schedule passes\n", s->name);
      continue;
    }
    if (seeded) {
      sim_result_t r = sim_seeds(s, seed, seeds ? seeds : 1, weak, 1e9);
      show(weak ? "weak" : "random", s, limits, r);
      continue;
    }
    uint64_t n = seeds ? seeds : UINT64_MAX;
    if (weak) {
      show("weak", s, limits, sim_seeds(s, seed, n, true, 3 * each));
      continue;
    }
    sim_limits_t l = limited ? limits : s->small;
    sim_result_t all = sim_exhaust(s, l, s->focus ? 1.5 * each : each);
    show("exhaustive", s, l, all);
    if (s->focus && !all.complete) show("sampled", s, l, sim_sample(s, l, seed, 1.5 * each));
    if (limited || s->focus) continue; /* the other runs do not know of a focus */
    show("random", s, l, sim_seeds(s, seed, n, false, each));
    show("weak", s, l, sim_seeds(s, seed, n, true, each));
  }
  if (!found) {
    fprintf(stderr, "cfnsim: no scenario '%s'\n", only);
    return 2;
  }
  return 0;
}
