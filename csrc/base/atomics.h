/* Atomic words, with the memory order in the name.
 *
 * Only lock-free 32- and 64-bit words may live in the region: a lock-based fallback would keep its
 * lock in one process. There are no fences but one (cfn_reads_over): ThreadSanitizer does not understand
 * them, and an order that belongs to an operation can be read where the operation stands.
 */
#ifndef CFN_BASE_ATOMICS_H
#define CFN_BASE_ATOMICS_H

#ifdef CFN_SIM
#include "sim/atomics_sim.h"
#else

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef _Atomic uint64_t cfn_a64;
typedef _Atomic uint32_t cfn_a32;

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "need lock-free words");
_Static_assert(sizeof(cfn_a64) == 8 && sizeof(cfn_a32) == 4, "atomic words must have no hidden lock");

#define cfn_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define cfn_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define cfn_load_seq(p) atomic_load_explicit((p), memory_order_seq_cst)
#define cfn_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define cfn_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define cfn_store_seq(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)

#define cfn_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define cfn_add_seq(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define cfn_or_relaxed(p, v) atomic_fetch_or_explicit((p), (v), memory_order_relaxed)
#define cfn_or_seq(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define cfn_and_release(p, v) atomic_fetch_and_explicit((p), (v), memory_order_release)

/* Compare-and-set of an EXACT word. True if it was swapped; the expected value is never written
 * back, because every algorithm here re-reads and re-decides instead of retrying with a word it
 * has not looked at. */
static inline bool cfn_cas_seq(cfn_a64 *word, uint64_t expected, uint64_t desired) {
  return atomic_compare_exchange_strong_explicit(word, &expected, desired, memory_order_seq_cst,
                                                 memory_order_relaxed);
}
static inline bool cfn_cas_acqrel(cfn_a64 *word, uint64_t expected, uint64_t desired) {
  return atomic_compare_exchange_strong_explicit(word, &expected, desired, memory_order_acq_rel,
                                                 memory_order_relaxed);
}
static inline bool cfn_cas_release(cfn_a64 *word, uint64_t expected, uint64_t desired) {
  return atomic_compare_exchange_strong_explicit(word, &expected, desired, memory_order_release,
                                                 memory_order_relaxed);
}
static inline bool cfn_cas32_seq(cfn_a32 *word, uint32_t expected, uint32_t desired) {
  return atomic_compare_exchange_strong_explicit(word, &expected, desired, memory_order_seq_cst,
                                                 memory_order_relaxed);
}

/* Raises a word to at least `value`; returns what it held before. Late and stale raisers lose,
 * which is what makes cursors safe against a process that slept for hours. */
static inline uint64_t cfn_max_seq(cfn_a64 *word, uint64_t value) {
  uint64_t seen = atomic_load_explicit(word, memory_order_seq_cst);
  while (seen < value && !atomic_compare_exchange_weak_explicit(
                             word, &seen, value, memory_order_seq_cst, memory_order_seq_cst)) {
  }
  return seen;
}

/* Memory that is not atomic: written by whoever owns it, published by one of the words above. These say where: the
 * simulator gives such memory a history, too. */
#define cfn_plain_load(p) (*(p))
#define cfn_plain_store(p, v) (*(p) = (v))
static inline void cfn_copy_out(void *to, const void *from, size_t n) {
  if (n) memcpy(to, from, n); /* where nothing is copied, there may be no place for it */
}
static inline void cfn_copy_in(void *to, const void *from, size_t n) {
  if (n) memcpy(to, from, n);
}

/* What was read before it was read before anything that is looked at behind it. For copies of plain memory that are
 * believed only if a word has not changed after they were made: the load of that word, whatever its order, may be done
 * before plain loads that stand above it. (No atomic_thread_fence: ThreadSanitizer refuses it.) */
static inline void cfn_reads_over(void) {
#if defined(__aarch64__)
  __asm__ volatile("dmb ishld" ::: "memory");
#elif defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("" ::: "memory"); /* loads are not reordered */
#else
  __sync_synchronize();
#endif
}

static inline void cfn_cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

#endif /* CFN_SIM */
#endif
