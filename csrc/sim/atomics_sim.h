/* base/atomics.h under cfnsim: every atomic operation of the core asks the simulator, which may let another
 * process go first, kill this one, or (weak-memory mode) return an older value that the order permits. */
#ifndef CFN_SIM_ATOMICS_SIM_H
#define CFN_SIM_ATOMICS_SIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t cfn_a64;
typedef _Atomic uint32_t cfn_a32;

typedef enum { SIM_RELAXED = 0, SIM_ACQUIRE = 1, SIM_RELEASE = 2, SIM_ACQREL = 3, SIM_SEQ = 7 } sim_order_t;

/* One operation of the core's text: for scenarios that look at a few functions only, and for `--weaken`, which makes one
 * of them relaxed. */
typedef struct sim_place {
  const char *file, *function, *what, *word; /* "cas_seq", "&chunk->own" */
  int line;
  char weakened; /* 'y', 'n', or 0: not looked at yet */
} sim_place_t;
#define SIM_AT(what, word) \
  ({ static sim_place_t at_ = {__FILE__, __func__, what, word, __LINE__, 0}; &at_; })

uint64_t sim_load(const volatile void *p, unsigned bytes, sim_order_t order, sim_place_t *at);
void sim_store(volatile void *p, unsigned bytes, uint64_t value, sim_order_t order, sim_place_t *at);
/* `how`: '+', '|', '&'. Returns what was there. */
uint64_t sim_update(volatile void *p, unsigned bytes, char how, uint64_t value, sim_order_t order, sim_place_t *at);
bool sim_cas(volatile void *p, unsigned bytes, uint64_t expected, uint64_t desired, sim_order_t order, sim_place_t *at);
uint64_t sim_max(cfn_a64 *word, uint64_t value, sim_place_t *at);
/* Plain memory of the region, line by line: under weak memory each line has a history, too. */
void sim_copy_out(void *to, const volatile void *from, size_t bytes);
void sim_copy_in(volatile void *to, const void *from, size_t bytes);
void sim_reads_over(sim_place_t *at);

#define SIM_OF(p) __typeof__(+*(p))
#define SIM_LOAD(what, order, p, word) ((SIM_OF(p))sim_load((p), sizeof *(p), order, SIM_AT(what, word)))
#define SIM_STORE(what, order, p, v, word) sim_store((p), sizeof *(p), (v), order, SIM_AT(what, word))
#define SIM_UPDATE(what, how, order, p, v, word) \
  ((SIM_OF(p))sim_update((p), sizeof *(p), how, (v), order, SIM_AT(what, word)))
#define cfn_load_relaxed(p) SIM_LOAD("load_relaxed", SIM_RELAXED, p, #p)
#define cfn_load_acquire(p) SIM_LOAD("load_acquire", SIM_ACQUIRE, p, #p)
#define cfn_load_seq(p) SIM_LOAD("load_seq", SIM_SEQ, p, #p)
#define cfn_store_relaxed(p, v) SIM_STORE("store_relaxed", SIM_RELAXED, p, v, #p)
#define cfn_store_release(p, v) SIM_STORE("store_release", SIM_RELEASE, p, v, #p)
#define cfn_store_seq(p, v) SIM_STORE("store_seq", SIM_SEQ, p, v, #p)
#define cfn_add_relaxed(p, v) SIM_UPDATE("add_relaxed", '+', SIM_RELAXED, p, v, #p)
#define cfn_add_seq(p, v) SIM_UPDATE("add_seq", '+', SIM_SEQ, p, v, #p)
#define cfn_or_relaxed(p, v) SIM_UPDATE("or_relaxed", '|', SIM_RELAXED, p, v, #p)
#define cfn_or_seq(p, v) SIM_UPDATE("or_seq", '|', SIM_SEQ, p, v, #p)
#define cfn_and_release(p, v) SIM_UPDATE("and_release", '&', SIM_RELEASE, p, v, #p)

#define cfn_cas_release(w, e, d) sim_cas((w), 8, (e), (d), SIM_RELEASE, SIM_AT("cas_release", #w))
#define cfn_cas_acqrel(w, e, d) sim_cas((w), 8, (e), (d), SIM_ACQREL, SIM_AT("cas_acqrel", #w))
#define cfn_cas_seq(w, e, d) sim_cas((w), 8, (e), (d), SIM_SEQ, SIM_AT("cas_seq", #w))
#define cfn_cas32_seq(w, e, d) sim_cas((w), 4, (e), (d), SIM_SEQ, SIM_AT("cas32_seq", #w))
#define cfn_max_seq(w, v) sim_max((w), (v), SIM_AT("max_seq", #w))

#define cfn_plain_load(p) \
  ({ uint64_t plain_ = 0; sim_copy_out(&plain_, (p), sizeof *(p)); (__typeof__((void)0, *(p)))plain_; })
#define cfn_plain_store(p, v) \
  ({ __typeof__(*(p)) plain_ = (v); sim_copy_in((p), &plain_, sizeof plain_); })
#define cfn_copy_out(to, from, n) sim_copy_out((to), (from), (n))
#define cfn_copy_in(to, from, n) sim_copy_in((to), (from), (n))
#define cfn_reads_over() sim_reads_over(SIM_AT("reads_over", "."))

static inline void cfn_cpu_relax(void) {}

#endif
