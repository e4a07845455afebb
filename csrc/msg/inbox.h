/* The consuming side of a mailbox: leases.
 *
 *   take   reads the next frame of a lane and leases it: it stays in its slot until it is acked, so
 *          a reader that dies loses nothing
 *   ack    in any order; a message acked is never handed out again
 *   move   the head passes over acked frames and frees them
 *
 * One taken frame, step by step (core.md R2-R7; `cur` is a private cursor):
 *
 *   R2  w = slot[cur]; lap ahead: cur++; lap behind or empty: nothing there
 *   R3  own = own word of the chunk in w; slot[cur] still w? (own belongs to it only then)
 *       DONE: acked by an earlier reader, skip
 *       consumer word still exactly mine? LAST, else fenced
 *   R4  CAS own, MINE/TAKEN(anyone) -> TAKEN(me)            the lease; one process wins
 *       dies here: TAKEN(dead), referenced: the successor takes it over
 *       CAS-max seen; its old value says whether an earlier reader was handed this message
 *       own still my word? else a thief took it: do not hand it out
 *   ack CAS own, TAKEN(me) -> DONE                          the message is over
 *       dies here: DONE, referenced: the next ack, take or skip runs the head move
 *   R5  register = chunk; CAS slot[head], {lap, k+1} -> {lap+1, 0}
 *       dies here: DONE, unreferenced, announced: the reaper frees it
 *   R6  CAS-max head    R7 only R5's winner: CAS own DONE -> FREE; register = 0
 *
 * Who may: only the holder of the consumer word {ver|attachment} takes. It is given up by its
 * holder, taken away after proven death, or stolen by an operator; never by a timeout. Every step
 * above is a CAS of an exact word or a CAS-max, so a fenced reader that wakes up after hours fails
 * and corrupts nothing.
 *
 * Frames of several messages: each message has a bit in the chunk's part words {ver:40|acked:24}, set
 * by CAS of the exact word; ver is the own version at the commit, so that a bit can never be set in a
 * later frame. The last bit's ack is followed by own -> DONE.
 *       dies here: all bits set, TAKEN(dead), referenced: the next taker finds nothing left to hand
 *       out and makes it DONE
 */
#ifndef CFN_MSG_INBOX_H
#define CFN_MSG_INBOX_H

#include "msg/envelope.h"
#include "msg/ring.h"

/* Names one message that was handed out: {generation:24 | lease:20 | index:20}. */
typedef uint64_t cfn_token_t;

typedef struct cfn_lease {
  uint64_t own;      /* the exact word of the lease; 0 = this entry is free */
  uint64_t position;
  uint64_t seen_before; /* place: hand-outs before this lease */
  uint32_t chunk, count;
  uint32_t next;  /* next index to hand out; those acked before are passed over */
  uint32_t generation;
  uint32_t next_free; /* or the next that was put back, +1 */
  bool queued;        /* among those that were put back */
  uint8_t lane;
  bool fresh; /* nothing was handed out under this lease yet */
  cfn_frame_t frame;
  uint32_t *offsets; /* index table, copied: CFN_FRAME_MESSAGES of them, or NULL */
} cfn_lease_t;

typedef struct cfn_inbox_lane {
  uint64_t cursor;  /* next position to read */
  uint32_t current; /* lease being handed out, +1; 0 none */
  uint32_t again;   /* first of those that were put back and come before anything new, +1 */
  uint32_t freed;   /* slots emptied since room was last announced */
  uint32_t bytes;   /* of the last frame: of the next one, perhaps */
  const cfn_a64 *watch; /* where the next message will appear, if nothing was there at the last look, */
  uint64_t idle;        /* and what stood there instead */
} cfn_inbox_lane_t;

typedef struct cfn_inbox {
  const cfn_region_t *region;
  cfn_attach_shm_t *slot; /* my attachment: registers and counters */
  unsigned me;
  uint32_t mailbox;
  uint64_t mid;      /* the OPEN word it was taken under */
  uint64_t consumer; /* my exact consumer word; 0 = not the consumer */
  cfn_inbox_lane_t lane[CFN_LANES];
  cfn_lease_t *lease;
  uint32_t leases, lease_free; /* lease_free: +1 */
  uint32_t open;               /* leases in use */
  uint32_t looks;              /* for messages */
  bool hasty;                  /* this look is followed by another: it leaves the senders' own words alone */
  uint64_t room_rung_ns;
  cfn_slab_freed_t freed; /* hints to be told */
} cfn_inbox_t;

/* Messages of one frame that come next. Pointers lead into the chunk and the lease: valid until they are acked. */
typedef struct cfn_run {
  const cfn_frame_t *frame;
  const uint32_t *offsets; /* NULL: a frame of one */
  uint64_t position;
  uint32_t lease, first, count;
  uint8_t lane;
  cfn_record_t record; /* of the first: looked at once */
} cfn_run_t;

/* Starts reading a mailbox whose consumer word was just taken. */
void cfn_inbox_begin(cfn_inbox_t *in, const cfn_region_t *r, unsigned me, uint32_t mailbox,
                     uint64_t mid, uint64_t consumer);
/* Forgets all leases; nothing in the region changes. */
void cfn_inbox_end(cfn_inbox_t *in);

static inline bool cfn_inbox_fenced(const cfn_inbox_t *in) {
  return cfn_load_seq(&cfn_mailbox(in->region, in->mailbox)->consumer) != in->consumer;
}

/* What comes next of the lanes in `lanes` (bit mask), by priority: 1 to `most` messages of one frame, which are leased and
 * not handed out yet. CFN_OK, CFN_EMPTY, CFN_AGENT_FENCED, CFN_NO_MEMORY. */
int cfn_inbox_run(cfn_inbox_t *in, unsigned lanes, uint32_t most, cfn_run_t *out);
/* The outline of its message i > 0, or CFN_CORRUPT. */
static inline int cfn_run_record(const cfn_run_t *run, uint32_t i, cfn_record_t *out) {
  return cfn_frame_record(run->frame, run->offsets ? run->offsets[run->first + i] : cfn_frame_first(run->frame), out);
}
cfn_token_t cfn_run_token(const cfn_inbox_t *in, const cfn_run_t *run, uint32_t i);
/* Hands out its first n, which were copied before this: CFN_OK, and the first *redelivered of them were handed out before;
 * CFN_AGENT_FENCED: the copies may be of anything. */
int cfn_inbox_hand_out(cfn_inbox_t *in, const cfn_run_t *run, uint32_t n, uint32_t *redelivered);
bool cfn_inbox_still_mine(const cfn_inbox_t *in, cfn_token_t token);
/* The record of a message that is leased; CFN_INVALID if it is not (any more). */
int cfn_inbox_record(const cfn_inbox_t *in, cfn_token_t token, cfn_record_t *out);
/* The message comes again before anything new of its lane. CFN_OK, CFN_INVALID, or CFN_AGAIN if others of its
 * frame were handed out since: then it stays leased. */
int cfn_inbox_put_back(cfn_inbox_t *in, cfn_token_t token);
/* Is there anything to hand out? (seq_cst: the re-check after arming the bell) */
bool cfn_inbox_ready(cfn_inbox_t *in, unsigned lanes);

/* Acks n messages of one frame, from this one on, that were all handed out: CFN_OK; CFN_AGENT_FENCED: somebody took the
 * inbox over, and the messages with it; CFN_INVALID: the token names nothing (they are acked already). */
int cfn_inbox_ack(cfn_inbox_t *in, cfn_token_t token, uint32_t n);
/* Are these two of one frame, one after the other? */
bool cfn_tokens_follow(cfn_token_t token, cfn_token_t next);
/* Tells of chunks that were freed and whose hints were kept back, and rings those who wait for chunks. */
void cfn_inbox_tell_freed(cfn_inbox_t *in);
/* Was something emptied or freed that is not announced yet? (Not asked, who sleeps on what he announces would wake himself
 * for ever.) */
static inline bool cfn_inbox_owes(const cfn_inbox_t *in) {
  bool owes = in->freed.bits != 0;
  for (unsigned lane = 0; lane < CFN_LANES; lane++) owes |= in->lane[lane].freed != 0;
  return owes;
}
/* Announces emptied slots to senders that wait for room; `now` = do not wait to have many. */
void cfn_inbox_announce(cfn_inbox_t *in, bool now);

/* Messages waiting in a lane, taken but unacked ones included; a snapshot. */
uint64_t cfn_lane_depth(const cfn_region_t *r, uint32_t mailbox, unsigned lane);

/* Looks at a lane without touching it. `visit` gets each frame that was whole when it was copied
 * (copy first, slot and own re-checked last). Returns how many frames it saw. */
typedef struct cfn_peek {
  uint64_t position;
  unsigned lane;
  unsigned own_state; /* CFN_MINE: not taken, CFN_TAKEN: leased */
  uint32_t part[CFN_FRAME_PARTS]; /* acked messages of a frame of several */
  uint64_t seen;      /* the lane's seen place */
  cfn_frame_t frame;  /* payload points at the private copy */
} cfn_peek_t;
int cfn_lane_peek(const cfn_region_t *r, uint32_t mailbox, unsigned lane, uint8_t *buffer,
                  void (*visit)(void *context, const cfn_peek_t *peek), void *context);

#endif
