/* Out of a full heap to disk, and back: objects that have a name and that nobody holds.
 *
 *   evict    LIVE -> SPILLING(me), announced in a ledger cell BEFORE; all holders are looked at, then the name; the bytes
 *            are written beside; is it SPILLING still? the file gets its name; SPILLING -> SPILLED
 *   recall   the bytes are read into a blob of one's own, its digest is computed; the index moves from the old blob to the
 *            new one by one CAS; then the old one is DEAD and its file goes
 *
 *   SPILLING(a) -> SPILLING(b)  by one who finds nothing else to evict: a may be stopped, and fails when it goes on
 *   SPILLING -> LIVE    by whoever comes to hold it (a rescue), by its spiller that found a holder or no room on disk,
 *                       by the reaper of a dead spiller
 *   SPILLING -> SPILLED by its spiller, from its exact word
 *   SPILLED  -> DEAD    by whoever moved or took away its name, or found that it has none; never back
 *
 * What is SPILLED has no holders, and nobody can come to hold it: a ledger cell that names it is empty again before its
 * owner has looked at anything (cfn_heap_hold). Its pages are free by that one CAS.
 *
 * dies here, SPILLING: named by its ledger: the reaper makes it LIVE; a file without a state that names it: swept
 * dies here, recalled and not moved: the new one is held by the dead one's ledger alone: collected
 * dies here, moved: SPILLED without a name: collected
 * sleeps here, with the file written: its rename or its CAS comes too late, and what it wrote is no blob's file
 */
#ifndef CFN_MEM_EVICT_H
#define CFN_MEM_EVICT_H

#include "mem/heap.h"
#include "mem/spill.h"

/* What was in the way, from one call to the next; all zero at first. */
typedef struct cfn_in_the_way {
  bool works; /* somebody fills one, or puts one on disk: he will be through, or is stopped */
  bool held;  /* somebody holds one, perhaps for no longer than a copy takes */
  uint32_t blob;     /* what another one puts on disk, its exact word, and since when that is so: who has been at it for */
  uint64_t word, ns; /* much longer than that takes is taken over, and fails when he goes on */
} cfn_in_the_way_t;
/* Makes `bytes` in a row free by evicting what costs the least: few pages, not looked at of late; if `idle`, only what nobody
 * looked at for a minute. `h`: an empty cell, for its announcements. CFN_OK: something went, try; CFN_AGAIN: nothing went, see
 * `way`; CFN_NO_SPACE: what is in memory is held, or has no name, or this bus has no place on disk; or what the disk said,
 * with its text. */
int cfn_evict(const cfn_region_t *r, unsigned me, cfn_hold_t *h, uint64_t bytes, bool idle, cfn_in_the_way_t *way);

/* Brings back blob b, which index `slot` names by `word`: it is held by `h` then, and *b is another. CFN_OK; CFN_STALE: look
 * again; CFN_NO_SPACE; CFN_CORRUPT and others, with a text. */
int cfn_recall(const cfn_region_t *r, unsigned me, cfn_hold_t *h, cfn_a64 *slot, uint64_t word, uint32_t *b);
/* Copies its bytes, at most `room`, without bringing it back. The same answers. */
int cfn_recall_copy(const cfn_region_t *r, cfn_a64 *slot, uint64_t word, uint32_t b, void *out, uint64_t room);

/* Removes files that no state names any more. How many files are left and went; zeroes where there is no directory. */
cfn_spill_count_t cfn_evict_sweep(const cfn_region_t *r);

#endif
