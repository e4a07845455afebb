/* Objects on disk: what was pushed out of a full heap (mem/evict.h) until somebody asks for it again.
 *
 *   <base>/cfnshm.<uid>.<bus>.<nonce>/    directory, 0700; base is $CFNSHM_SPILL of who made the bus, or /var/tmp
 *       bus                               symbolic link "<machine id> <boot id> <device> <directory of the bus>": whose it is;
 *                                         the device is that of the directory
 *       <blob>.<ver>.new                  being written, while the blob is SPILLING(ver)
 *       <blob>.<ver>                      the bytes of a blob that is SPILLED(ver)
 *
 * A file by itself proves nothing: the state of the blob in shared memory says which file counts. A version never comes
 * back and a nonce is one bus's alone, so a file that is written, renamed or removed late is never another's.
 *
 * The directory is made by the first that spills, and goes with the bus.
 */
#ifndef CFN_MEM_SPILL_H
#define CFN_MEM_SPILL_H

#include "mem/layout.h"

/* The directory of a bus. `base`: NULL = $CFNSHM_SPILL, or /var/tmp; "off" = none, and `out` is empty. */
int cfn_spill_path(const char *base, const char *name, uint64_t nonce, char out[CFN_SPILL_BYTES]);
/* Is it one that cfn_spill_path can have given for this bus? What a damaged header says must not be removed. */
bool cfn_spill_is_path(const char *path, const char *name, uint64_t nonce);

/* Opens the directory; `bus_path` is what the link in it will say if it has to be made, NULL: do not make it. `*id` is what
 * tells it from another under the same path (of another mount namespace, or made again). A descriptor, CFN_EMPTY (there is
 * none), or an error. */
int cfn_spill_open(const char *path, const char *bus_path, uint64_t *id);

/* Writes <blob>.<ver>.new. */
int cfn_spill_write(int dir, uint32_t blob, uint64_t ver, const void *data, uint64_t bytes);
/* <blob>.<ver>.new becomes <blob>.<ver + 1>. */
int cfn_spill_keep(int dir, uint32_t blob, uint64_t ver);
/* Reads <blob>.<ver>: CFN_OK, CFN_EMPTY (there is no such file), CFN_CORRUPT (it has another size), or another error. */
int cfn_spill_read(int dir, uint32_t blob, uint64_t ver, void *out, uint64_t bytes);
bool cfn_spill_has(int dir, uint32_t blob, uint64_t ver, uint64_t bytes);
void cfn_spill_drop_new(int dir, uint32_t blob, uint64_t ver);
void cfn_spill_drop(int dir, uint32_t blob, uint64_t ver);

/* Calls `judge` with each file; those it says true of are removed. How many there are left, and how many went. */
typedef bool (*cfn_spill_judge_t)(void *context, uint32_t blob, uint64_t ver, bool is_new);
typedef struct cfn_spill_count { uint32_t kept, removed; bool whole; /* or it could not be listed, or one not be removed: errno */ } cfn_spill_count_t;
cfn_spill_count_t cfn_spill_sweep(int dir, cfn_spill_judge_t judge, void *context);

/* The bus has ended: its directory and all files that are named as above go. Any number may do it, at any time. False: it
 * could not be looked into just now (errno). */
bool cfn_spill_end(const char *path);
/* The same for those that buses of this user left in `path`'s base when the machine went down. */
void cfn_spill_end_of_other_boots(const char *path);

#endif
