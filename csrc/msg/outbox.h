/* The sending side: claim a chunk, fill it, publish it, ring. Never waits; the waiting is done by
 * the handle (agent/), which holds nothing while it sleeps. */
#ifndef CFN_MSG_OUTBOX_H
#define CFN_MSG_OUTBOX_H

#include "msg/envelope.h"
#include "msg/ring.h"

typedef struct cfn_outbox {
  const cfn_region_t *region;
  cfn_attach_shm_t *slot;
  unsigned me;
  cfn_source_t source;
  uint64_t sequence; /* of the last message committed */
  cfn_slab_cursor_t cursor;
  uint32_t until_census[CFN_CLASSES]; /* claims until the class's free chunks are counted again */
  bool scarce[CFN_CLASSES];
} cfn_outbox_t;

/* Where a frame goes, and what must still be true when it is published. */
typedef struct cfn_route {
  uint8_t kind; /* CFN_TO_MAILBOX, CFN_TO_REPLY */
  uint8_t lane;
  uint32_t index;
  uint64_t expect; /* the mailbox's exact OPEN word, or the attachment's exact LIVE word */
} cfn_route_t;

void cfn_outbox_begin(cfn_outbox_t *out, const cfn_region_t *r, unsigned me,
                      const cfn_source_t *source);

/* Bytes that `count` messages need as one frame. */
uint64_t cfn_outbox_frame_bytes(const cfn_outbox_t *out, const cfn_outgoing_t *messages,
                                uint32_t count);

/* Posts `count` messages as one frame: all or none. CFN_OK and its position; CFN_FULL (the lane),
 * CFN_NO_SPACE (the slab; `*cls` says which class to wait for), CFN_STALE (the receiver is not the
 * one looked up any more), CFN_AGAIN, CFN_TOO_LARGE. Nothing is held afterwards. */
int cfn_outbox_post(cfn_outbox_t *out, const cfn_route_t *route, const cfn_outgoing_t *messages,
                    uint32_t count, uint64_t *position, unsigned *cls);

/* Rings the bell of whoever reads the route. */
void cfn_route_ring(const cfn_region_t *r, unsigned kind, uint32_t index);

#endif
