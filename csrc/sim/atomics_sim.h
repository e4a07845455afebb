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

/* `where`: the function in which it stands, for scenarios that look at a few functions only. */
uint64_t sim_load(const volatile void *p, unsigned bytes, sim_order_t order, const char *where);
void sim_store(volatile void *p, unsigned bytes, uint64_t value, sim_order_t order, const char *where);
/* `how`: '+', '|', '&'. Returns what was there. */
uint64_t sim_update(volatile void *p, unsigned bytes, char how, uint64_t value, sim_order_t order, const char *where);
bool sim_cas(volatile void *p, unsigned bytes, uint64_t expected, uint64_t desired, sim_order_t order, const char *where);
uint64_t sim_max(cfn_a64 *word, uint64_t value, const char *where);

#define SIM_OF(p) __typeof__(+*(p))
#define cfn_load_relaxed(p) ((SIM_OF(p))sim_load((p), sizeof *(p), SIM_RELAXED, __func__))
#define cfn_load_acquire(p) ((SIM_OF(p))sim_load((p), sizeof *(p), SIM_ACQUIRE, __func__))
#define cfn_load_seq(p) ((SIM_OF(p))sim_load((p), sizeof *(p), SIM_SEQ, __func__))
#define cfn_store_relaxed(p, v) sim_store((p), sizeof *(p), (v), SIM_RELAXED, __func__)
#define cfn_store_release(p, v) sim_store((p), sizeof *(p), (v), SIM_RELEASE, __func__)
#define cfn_store_seq(p, v) sim_store((p), sizeof *(p), (v), SIM_SEQ, __func__)
#define cfn_add_relaxed(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '+', (v), SIM_RELAXED, __func__))
#define cfn_add_seq(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '+', (v), SIM_SEQ, __func__))
#define cfn_or_relaxed(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '|', (v), SIM_RELAXED, __func__))
#define cfn_or_seq(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '|', (v), SIM_SEQ, __func__))
#define cfn_and_relaxed(p, v) ((SIM_OF(p))sim_update((p), sizeof *(p), '&', (v), SIM_RELAXED, __func__))

#define cfn_cas_relaxed(w, e, d) sim_cas((w), 8, (e), (d), SIM_RELAXED, __func__) /* mutants use the relaxed ones */
#define cfn_cas_release(w, e, d) sim_cas((w), 8, (e), (d), SIM_RELEASE, __func__)
#define cfn_cas_acqrel(w, e, d) sim_cas((w), 8, (e), (d), SIM_ACQREL, __func__)
#define cfn_cas_seq(w, e, d) sim_cas((w), 8, (e), (d), SIM_SEQ, __func__)
#define cfn_cas32_relaxed(w, e, d) sim_cas((w), 4, (e), (d), SIM_RELAXED, __func__)
#define cfn_cas32_seq(w, e, d) sim_cas((w), 4, (e), (d), SIM_SEQ, __func__)
#define cfn_max_seq(w, v) sim_max((w), (v), __func__)

static inline void cfn_cpu_relax(void) {}

#endif
