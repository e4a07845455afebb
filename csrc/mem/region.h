/* The region: one file, created whole or not at all, attached only after its header was checked.
 *
 *   <dir>/cfnshm.<uid>.<name>/        directory, 0700; dir is $CFNSHM_DIR or /dev/shm
 *       region                        the mapped file, 0600, every page allocated at creation
 *       live.00 ..                    life bytes: attachment i is byte i%64 of file i/64
 *       bell.m<N>  bell.a<N>          doorbell FIFOs of mailbox N, attachment N; made on demand
 *
 * Creation: a nameless file (O_TMPFILE) is allocated, filled and only then linked as "region". A
 * creator that dies leaves nothing; of two creators one link wins and the other attaches.
 *
 * Destruction must not be able to hit a LATER bus of the same name, however long its process was
 * stopped in the middle. So a retired bus is marked on the directory's INODE (the sticky bit), all
 * files are unlinked relative to that inode, and the path is removed by rmdir, which cannot remove
 * a directory that has something in it. A directory that is marked never hosts a bus again: a
 * creator or attacher that finds the mark helps to clean and starts anew; one that linked its
 * region while the mark was being set looks again after the link and takes it back. Any number may
 * clean at once; each step is idempotent.
 */
#ifndef CFN_MEM_REGION_H
#define CFN_MEM_REGION_H

#include <pthread.h>
#include <stddef.h>

#include "base/guard.h"
#include "mem/layout.h"

#define CFN_PATH_BYTES 512
#define CFN_LIVE_FILES ((CFN_MAX_ATTACHMENTS + CFN_LIVE_LOCKS_PER_FILE) / CFN_LIVE_LOCKS_PER_FILE)

/* What the caller wants; 0 = whatever is there, or the default for a new bus. */
typedef struct cfn_wish {
  uint64_t size_bytes;
  uint32_t agents;
  uint32_t lane_slots[CFN_LANES];
  uint32_t class_chunks[CFN_CLASSES];
  uint32_t class_wished; /* bit i: class_chunks[i] is meant, even if 0 */
  uint32_t refs, objects, object_pages;
  const char *spill; /* NULL: $CFNSHM_SPILL, see mem/spill.h */
} cfn_wish_t;

/* The process-local side of one mapped region, shared by all handles of the process. */
typedef struct cfn_region {
  uint8_t *base;
  cfn_geometry_t geo;
  cfn_super_shm_t super; /* a private copy: the mapped one is never read again */
  uint64_t dev, ino;
  int dir_fd; /* by cfn_region_dir() only */
  uint64_t dir_dev, dir_ino;
  char name[CFN_NAME_BYTES];
  char path[CFN_PATH_BYTES]; /* of the directory */
  int references;
  bool keep_mapped; /* a view into it may be alive: never unmap */
  const cfn_a32 *lost; /* see cfn_region_lost() */
  struct cfn_region *next;
  /* life bytes this process holds: see agent/liveness.c */
  pthread_mutex_t live_lock;
  uint64_t live_stamp;
  int live_fd[CFN_LIVE_FILES];
  uint64_t live_ino[CFN_LIVE_FILES];
  uint16_t live_held[CFN_LIVE_FILES];
  uint64_t own_nonce[CFN_MAX_ATTACHMENTS]; /* nonce of this process's attachment in a slot, or 0 */
} cfn_region_t;

/* ---- addresses of parts; every index was bounded by the caller ---- */
static inline cfn_state_shm_t *cfn_state(const cfn_region_t *r) {
  return (cfn_state_shm_t *)(void *)(r->base + CFN_PAGE);
}
static inline cfn_attach_shm_t *cfn_attachment(const cfn_region_t *r, uint32_t i) {
  return (cfn_attach_shm_t *)(void *)(r->base + r->geo.attach_at) + i;
}
static inline cfn_mailbox_shm_t *cfn_mailbox(const cfn_region_t *r, uint32_t i) {
  return (cfn_mailbox_shm_t *)(void *)(r->base + r->geo.mailbox_at) + i;
}
static inline cfn_a64 *cfn_lane_slots(const cfn_region_t *r, uint32_t mailbox, unsigned lane) {
  return (cfn_a64 *)(void *)(r->base + r->geo.slots_at) +
         (uint64_t)mailbox * r->geo.slots_per_mailbox + r->geo.lane_first[lane];
}
static inline cfn_a64 *cfn_directory(const cfn_region_t *r) {
  return (cfn_a64 *)(void *)(r->base + r->geo.directory_at);
}
static inline cfn_a64 *cfn_hints(const cfn_region_t *r) {
  return (cfn_a64 *)(void *)(r->base + r->geo.hints_at);
}
static inline cfn_chunk_shm_t *cfn_chunk(const cfn_region_t *r, uint32_t k) {
  return (cfn_chunk_shm_t *)(void *)(r->base + r->geo.chunks_at) + k;
}
static inline unsigned cfn_chunk_class(const cfn_region_t *r, uint32_t k) {
  unsigned c = 0;
  while (k >= r->geo.class_first[c + 1]) c++;
  return c;
}
static inline uint8_t *cfn_chunk_payload(const cfn_region_t *r, uint32_t k, unsigned cls) {
  return r->base + r->geo.class_at[cls] +
         (uint64_t)(k - r->geo.class_first[cls]) * cfn_class_room(&r->geo.config, cls);
}

static inline cfn_ref_shm_t *cfn_ref(const cfn_region_t *r, uint32_t i) {
  return (cfn_ref_shm_t *)(void *)(r->base + r->geo.refs_at) + i;
}
static inline cfn_blob_shm_t *cfn_blob_record(const cfn_region_t *r, uint32_t b) {
  return (cfn_blob_shm_t *)(void *)(r->base + r->geo.blobs_at) + b;
}
static inline cfn_a64 *cfn_index(const cfn_region_t *r) { return (cfn_a64 *)(void *)(r->base + r->geo.index_at); }
static inline cfn_a64 *cfn_page_word(const cfn_region_t *r, uint32_t p) {
  return (cfn_a64 *)(void *)(r->base + r->geo.pages_at) + p;
}
static inline uint8_t *cfn_heap_page(const cfn_region_t *r, uint32_t p) {
  return r->base + r->geo.heap_at + (uint64_t)p * CFN_PAGE;
}

/* 0 or CFN_BAD_NAME. Names: [A-Za-z0-9_:@-][A-Za-z0-9._:@-]{0,62} */
int cfn_name_check(const char *name, size_t bytes, const char *what);

/* The directory of a bus. */
int cfn_region_path(const char *dir, const char *name, char out[CFN_PATH_BYTES]);

/* The configuration a new bus gets for this wish, given the free bytes where it would live. */
int cfn_region_plan(const cfn_wish_t *wish, uint64_t free_bytes, const char *where,
                    cfn_config_shm_t *out);

enum { CFN_OPEN_CREATE = 1 };
/* Maps the bus, made if missing and CFN_OPEN_CREATE is set; `*created` says which. The region is
 * shared with other handles of this process and must be closed as often as it was opened. */
int cfn_region_open(const char *dir, const char *name, const cfn_wish_t *wish, int flags,
                    cfn_region_t **out, bool *created);
void cfn_region_close(cfn_region_t *region);

/* The directory's descriptor, opened anew if somebody closed it under us; -1 if the directory is gone. */
int cfn_region_dir(const cfn_region_t *region);

/* The directory of the bus's objects on disk, opened, and made if `make`. A descriptor; CFN_EMPTY: nothing was ever put there;
 * CFN_OS: it cannot be reached from here, where another process of the bus has made it; or another error. */
int cfn_spill_of_bus(const cfn_region_t *region, bool make);

/* Closes the table of this process's regions, so that none is opened until cfn_region_table_open; false (and not
 * closed) if one of this directory is there: then this process may hold locks on files in it, which an open and close
 * of them would drop. */
bool cfn_region_table_close(uint64_t dir_dev, uint64_t dir_ino);
void cfn_region_table_open(void);
/* The directory of a bus, its path in `path`: a descriptor, or an error. */
int cfn_region_open_dir(const char *dir, const char *name, char path[CFN_PATH_BYTES]);
/* Ends the bus of an open directory: marks, empties and removes it. */
int cfn_region_end_dir(int dir_fd, const char *path);

/* Ends the bus: whoever is attached gets CFN_RETIRED at its next call or tick. */
int cfn_region_destroy(cfn_region_t *region);
/* The same without mapping, for a bus that cannot be attached (corrupt, other version). */
int cfn_region_destroy_path(const char *dir, const char *name);

static inline bool cfn_region_retired(const cfn_region_t *r) {
  return cfn_load_acquire(&cfn_state(r)->state) == CFN_BUS_RETIRED;
}

/* Was its file cut short under us? Then what is mapped is zeroes of our own by now. */
static inline bool cfn_region_lost(const cfn_region_t *r) { return cfn_load_acquire(r->lost); }

#endif
