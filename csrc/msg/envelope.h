/* The envelope: how one or many messages lie in a chunk.
 *
 *   chunk meta   sender, incarnations, time, first sequence number, number of records: once a frame
 *   payload      sender's name, padded to 8
 *                count > 1: offset of each record, u32, padded to 8
 *                records: cfn_record_shm_t, type, pad to 8, body, pad to 8
 *
 * A frame is written by the holder of MINE before the commit. A reader trusts nothing in it: every
 * offset and length is loaded once, bounded by the chunk's class, and used from the copy.
 */
#ifndef CFN_MSG_ENVELOPE_H
#define CFN_MSG_ENVELOPE_H

#include <stddef.h>

#include "mem/region.h"

enum {
  CFN_CODEC_RAW = 0,  /* bytes */
  CFN_CODEC_TEXT = 1, /* UTF-8 */
  CFN_CODEC_JSON = 2,
  CFN_CODEC_ARRAY = 3, /* NumPy: see message.py */
  CFN_CODEC_REF = 4    /* the name of an object; not used in this ABI */
};
enum {
  CFN_MESSAGE_REQUEST = 1, /* a process waits for the answer in its reply ring */
  CFN_MESSAGE_REPLY = 2,
  CFN_MESSAGE_FAILURE = 4, /* the body of a reply tells of an error */
  CFN_MESSAGE_OBJECT = 8   /* in the chunk alone: the body is an object of the heap */
};

#define CFN_TYPE_BYTES_MAX 255u

/* One message to be sent. */
typedef struct cfn_outgoing {
  const void *body;
  const char *type;
  uint64_t correlation;
  uint32_t body_bytes;
  uint8_t type_bytes;
  uint8_t codec;
  uint16_t flags;
  uint32_t object_blob; /* of CFN_MESSAGE_OBJECT, which the core sets: where the body is by now */
  uint32_t object_sole;
  uint64_t object_life;
  const void *head; /* the first head_bytes of the body_bytes, where they are not before `body`; NULL: all is in `body` */
  uint32_t head_bytes;
} cfn_outgoing_t;

/* Who sends: the same for every message of a handle. */
typedef struct cfn_source {
  const char *name;
  uint8_t name_bytes;
  uint16_t attachment;
  uint32_t mailbox; /* +1, or 0 */
  uint64_t attachment_inc;
  uint64_t agent_inc;
  uint64_t pid;
} cfn_source_t;

static inline uint64_t cfn_pad8(uint64_t n) { return (n + 7) & ~UINT64_C(7); }

static inline uint64_t cfn_record_bytes(const cfn_outgoing_t *m) {
  uint64_t body = m->flags & CFN_MESSAGE_OBJECT ? sizeof(cfn_object_shm_t) : m->body_bytes;
  return sizeof(cfn_record_shm_t) + cfn_pad8(m->type_bytes) + cfn_pad8(body);
}
/* What precedes the records of a frame. */
static inline uint64_t cfn_frame_head_bytes(unsigned name_bytes, uint32_t count) {
  return cfn_pad8(name_bytes) + (count > 1 ? cfn_pad8((uint64_t)count * 4) : 0);
}

/* Writes a frame into a chunk that is MINE; `bytes` is its exact size, which fits the chunk. */
void cfn_frame_write(cfn_chunk_shm_t *chunk, uint8_t *payload, uint64_t target,
                     const cfn_source_t *source, uint64_t first_seq, uint64_t wall_ns,
                     const cfn_outgoing_t *messages, uint32_t count, uint32_t bytes);

/* Has message `index` of a frame of several been acked? The caller re-checks the chunk's own word. */
static inline bool cfn_frame_acked(const cfn_chunk_shm_t *chunk, uint32_t index) {
  uint64_t part = cfn_load_seq(&chunk->part[index / CFN_PART_MESSAGES % CFN_FRAME_PARTS]);
  return cfn_part_acked(part) >> (index % CFN_PART_MESSAGES) & 1;
}

/* A frame's outline, copied out of the chunk and bounded. */
typedef struct cfn_frame {
  const cfn_region_t *region;
  const uint8_t *payload;
  uint32_t blob; /* +1, or 0: no object */
  uint32_t bytes, count;
  uint8_t name_bytes;
  uint64_t first_seq, wall_ns, source_inc, source_agent_inc, source_pid;
  uint32_t source_mailbox;
  uint16_t source_att;
  uint8_t deliveries; /* how often it has been leased */
} cfn_frame_t;

/* One record's outline, copied out and bounded. */
typedef struct cfn_record {
  uint64_t correlation;
  uint64_t life; /* of an object */
  const uint8_t *type, *body;
  uint32_t body_bytes;
  uint8_t type_bytes, codec;
  uint16_t flags;
} cfn_record_t;

/* Reads the outline of chunk k from `meta`, its meta or a private copy of it. CFN_OK, or CFN_CORRUPT
 * if it makes no sense. */
int cfn_frame_read(const cfn_region_t *r, uint32_t k, const cfn_chunk_shm_t *meta,
                   cfn_frame_t *out);
/* Copies the index table of a frame of several (the first `count` offsets) and bounds it. */
int cfn_frame_index(const cfn_frame_t *frame, uint32_t *offsets);
/* offset: from the index, or cfn_frame_first() for a frame of one. */
static inline uint32_t cfn_frame_first(const cfn_frame_t *f) {
  return (uint32_t)cfn_frame_head_bytes(f->name_bytes, f->count);
}
/* A body that is an object is held by the chunk while that is not FREE: whoever does not have the chunk re-checks that, or
 * holds the object, before it trusts what it copied. */
int cfn_frame_record(const cfn_frame_t *frame, uint32_t offset, cfn_record_t *out);

#endif
