#include "tests/meddler.h"

#include <string.h>

#include "sim/kernel.h"

static struct {
  const char *where;
  const volatile void *word;
  m_act_t *what;
  int after, times, followed;
  char how;
} rule;

static void follow(const volatile void *word, char how, const char *where) {
  if (how != rule.how || (rule.word && rule.word != word) || strcmp(where, rule.where) != 0) return;
  if (rule.after-- > 0 || rule.followed == rule.times) return;
  rule.followed++;
  union { const volatile void *in; cfn_a64 *out; } as = {.in = word};
  rule.what(as.out);
}

void m_two(cfn_address_t *a) {
  m_fresh(false);
  bus[0] = sim_open(0, "a");
  bus[1] = sim_open(1, NULL);
  CHECK_INT(cfn_bus_find(bus[0], "a", a), 0);
}

void m_whole(void) {
  sim_meddler = NULL;
  sim_as(0);
  cfn_address_t late;
  uint64_t dropped;
  CHECK_INT(cfn_bus_register(bus[0], "late", NULL, &late, NULL), 0);
  CHECK_INT(cfn_bus_unregister(bus[0], "late", 0, &dropped), 0);
  CHECK(cfn_bus_reap(bus[0]) >= 0);
  t_check_region(bus[0], true);
  t_check_nothing_held(bus[0]);
}

void m_meddle(const char *where, char how, const volatile void *word, int after, int times, m_act_t *what) {
  rule.where = where;
  rule.word = word;
  rule.what = what;
  rule.after = after;
  rule.times = times;
  rule.followed = 0;
  rule.how = how;
  sim_meddler = follow;
}

int m_end(void) {
  sim_meddler = NULL;
  CHECK(rule.followed > 0); /* else the function or the word has another name by now */
  return rule.followed;
}

static void add(cfn_a64 *word, uint64_t what) { cfn_store_relaxed(word, cfn_load_relaxed(word) + what); }
void m_next16(cfn_a64 *word) { add(word, UINT64_C(1) << 16); }
void m_next20(cfn_a64 *word) { add(word, UINT64_C(1) << 20); }
void m_next24(cfn_a64 *word) { add(word, UINT64_C(1) << 24); }
void m_next(cfn_a64 *word) { add(word, 1); }

void m_fresh(bool spills) {
  sim_meddler = NULL;
  sim_fresh();
  begin();
  kernel_spills(spills);
  sim_as(0);
}

void m_main(void) {
  t_guard(60);
  sim_create();
  atexit(sim_destroy);
}
