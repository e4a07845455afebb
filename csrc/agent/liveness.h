/* Who is alive. Proof of death comes from the kernel alone, never from a clock:
 *
 *   the life byte   attachment i holds byte i%64 of live.<i/64> with a POSIX record lock. Held
 *                   through SIGSTOP; dropped when the last thread is gone, also of a zombie that
 *                   nobody waits for; not inherited by fork; seen across pid namespaces.
 *   the veto        a free byte with the process still running (somebody closed a descriptor of
 *                   that file in it) is no death: pidfd, start time and /proc/PID/maps decide, where
 *                   the pid namespace is ours.
 *
 * POSIX locks belong to the process, and closing ANY descriptor of the file drops them all. So the
 * process has one table of lock descriptors per region (in cfn_region_t), nothing else opens those
 * files, and "it is me" is asked of that table before any lock call.
 */
#ifndef CFN_AGENT_LIVENESS_H
#define CFN_AGENT_LIVENESS_H

#include "mem/region.h"

enum { CFN_LIFE_NONE = 0, CFN_LIFE_ALIVE = 1, CFN_LIFE_DEAD = 2 };

/* Tries to become the holder of slot i's life byte. CFN_OK, CFN_AGAIN (another lives there, or this
 * process does), or an error. */
int cfn_life_take(cfn_region_t *r, uint32_t i);
void cfn_life_drop(cfn_region_t *r, uint32_t i);
/* Notes which nonce this process has in slot i (0: none). */
void cfn_life_note(cfn_region_t *r, uint32_t i, uint64_t nonce);
/* Makes sure the byte is still ours: somebody may have closed our descriptor. CFN_OK, CFN_FORKED,
 * CFN_AGENT_FENCED (another process has the slot now), or an error. */
int cfn_life_refresh(cfn_region_t *r, uint32_t i);

/* CFN_LIFE_NONE: nobody is attached in slot i. `*judged` (may be NULL) is the exact id word that the
 * verdict is about; `*free_byte` (may be NULL) is set if the process lives though its byte is free. */
int cfn_life_of(cfn_region_t *r, uint32_t i, uint64_t *judged, bool *free_byte);

/* The same for an agent: by its owner, else by its consumer. CFN_LIFE_NONE: nobody's just now.
 * `*attachment` (may be NULL) is who was looked at, +1. */
int cfn_life_of_agent(cfn_region_t *r, uint32_t mailbox, uint32_t *attachment);

/* Is its process stopped (SIGSTOP, a debugger), as far as can be told? */
bool cfn_life_is_stopped(const cfn_region_t *r, uint32_t i);

void cfn_identity_of(const cfn_region_t *r, uint32_t i, uint64_t *pid);

#endif
