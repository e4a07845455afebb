/* base/atomics.h under cfnsim: every atomic operation of the core asks the simulator, which may let another
 * process go first, kill this one, or (weak-memory mode) return an older value that the order permits. */
#ifndef CFN_SIM_ATOMICS_SIM_H
#define CFN_SIM_ATOMICS_SIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint64_t cfn_a64;
typedef _Atomic uint32_t cfn_a32;

typedef enum { SIM_RELAXED = 0, SIM_ACQUIRE = 1, SIM_RELEASE = 2, SIM_ACQREL = 3, SIM_SEQ = 7 } sim_order_t;

uint64_t sim_load(const volatile void *p, unsigned bytes, sim_order_t order);
void sim_store(volatile void *p, unsigned bytes, uint64_t value, sim_order_t order);
/* `how`: '+', '|', '&'. Returns what was there. */
uint64_t sim_update(volatile void *p, unsigned bytes, char how, uint64_t value, sim_order_t order);
bool sim_cas(volatile void *p, unsigned bytes, uint64_t expected, uint64_t desired, sim_order_t order);

#define SIM_OF(p) __typeof__(+*(p))
#define cfn_load_relaxed(p) ((SIM_OF(p))sim_load((p), sizeof *(p), SIM_RELAXED))
#define cfn_load_acquire(p) ((SIM_OF(p))sim_load((p), sizeof *(p), SIM_ACQUIRE))
#define cfn_load_seq(p) ((SIM_OF(p))sim_load((p), sizeof *(p), SIM_SEQ))
#define cfn_store_relaxed(p, v) sim_store((p), sizeof *(p), (v), SIM_RELAXED)
#define cfn_store_release(p, v) sim_store((p), sizeof *(p), (v), SIM_RELEASE)
#define cfn_store_seq(p, v) sim_store((p), sizeof *(p), (v), SIM_SEQ)
#define cfn_add_relaxed(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '+', (v), SIM_RELAXED))
#define cfn_add_seq(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '+', (v), SIM_SEQ))
#define cfn_or_relaxed(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '|', (v), SIM_RELAXED))
#define cfn_or_seq(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '|', (v), SIM_SEQ))
#define cfn_and_relaxed(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '&', (v), SIM_RELAXED))

static inline bool cfn_cas_seq(cfn_a64 *word, uint64_t expected, uint64_t desired) {
  return sim_cas(word, 8, expected, desired, SIM_SEQ);
}
static inline bool cfn_cas_acqrel(cfn_a64 *word, uint64_t expected, uint64_t desired) {
  return sim_cas(word, 8, expected, desired, SIM_ACQREL);
}
static inline bool cfn_cas_release(cfn_a64 *word, uint64_t expected, uint64_t desired) {
  return sim_cas(word, 8, expected, desired, SIM_RELEASE);
}
static inline bool cfn_cas32_seq(cfn_a32 *word, uint32_t expected, uint32_t desired) {
  return sim_cas(word, 4, expected, desired, SIM_SEQ);
}

static inline uint64_t cfn_max_seq(cfn_a64 *word, uint64_t value) {
  for (;;) {
    uint64_t seen = sim_load(word, 8, SIM_SEQ);
    if (seen >= value || sim_cas(word, 8, seen, value, SIM_SEQ)) return seen;
  }
}

static inline void cfn_cpu_relax(void) {}

#endif
