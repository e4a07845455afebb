/* Every byte of the region, in one place.
 *
 *   0         superblock      4 KiB, written before the region has a name, never changed after
 *   4 KiB     state page      the bus-wide words
 *   8 KiB     attachments     one slot per attached process: who it is, what it holds, its replies
 *             mailboxes       one per agent: names, owner, consumer, cursors
 *             lane slots      the rings of all mailboxes: {lap:40|ref:24}
 *             refs            one per named value: name, {blob+1:20 | version:44}
 *             directory       name -> record, open addressing: {ver:40|record+1:24}
 *             hints           one advisory bit per chunk: "may be free"
 *             chunk metas     128 B each, apart from the payload, so that sweeps stay small
 *             payload         slab classes, each an array of equal chunks
 *             blobs           256 B each: state, size, place; the bytes themselves when they are few
 *             index           digest -> blob: {ver:40|blob+1:24}
 *             pages           one word per heap page: {life:40|blob+1:24}
 *             heap            4 KiB pages of blobs
 *             log tap: a section with its place in the header, of size 0 in this ABI
 *
 * References between parts are indexes. Every number that locates a part is recomputed from the
 * configuration at attach, compared with the file, and kept in process-private memory
 * (cfn_geometry_t): nothing read from the region later can move a pointer.
 *
 * Layout of the packed words, low bits last:
 *   slot      {lap:40 | ref:24}            ref 0 = empty, else chunk+1
 *   own       {ver:48 | state:3 | who:13}  a chunk's owner; ver is bumped at EVERY transition
 *   delivery  {ver:48 | count:16}          how often the chunk's frame had been leased when own had version ver
 *   mid       {ver:40 | who:16 | state:8}  a mailbox; who = creating attachment while MINE, PEND, FAIL
 *   consumer  {ver:48 | attachment+1:16}   who reads the inbox; 0 = nobody
 *   owner     {inc:40 | 0:8 | attachment+1:16}  whose agent it is; 0 = nobody, CFN_OWNER_DEAD
 *   id        {inc:40 | 0:16 | state:8}    an attachment
 *   place     {position:40 | index:24}     a message: its frame's position and its index inside
 *   part      {ver:40 | acked:24}          24 messages of a frame, one bit each, and the own version at
 *                                          its commit
 *   intent    {ver:39 | remove:1 | record+1:24}
 *   rlap      {tag:24 | lap:40}            the lap at which a retired ring restarts
 *   blob      {ver:48 | state:3 | who:13}  as own; who = its filler while FILL, who copies it while SPILLING
 *   ref       {blob+1:20 | version:44}     a named value; versions come from one counter of the bus;
 *                                          from CFN_REF_LEASE on, an attachment stands for the blob: sync/lease.h
 *   cell      {ver:40 | evicts:1 | blob+1:23} of an attachment's ledger: a blob that it holds, or evicts
 */
#ifndef CFN_MEM_LAYOUT_H
#define CFN_MEM_LAYOUT_H

#include "base/atomics.h"

#define CFN_MAGIC UINT64_C(0x4d48534e46430a1a)
#define CFN_ABI 4u
#define CFN_ENDIAN_TAG 0x01020304u
#define CFN_PAGE 4096u

#define CFN_LANES 4u
enum { CFN_LANE_CONTROL = 0, CFN_LANE_HIGH = 1, CFN_LANE_NORMAL = 2, CFN_LANE_LOW = 3 };
#define CFN_CLASSES 6u
#define CFN_HINTS_AT_ONCE 8u /* at most, see slab.h */
#define CFN_MAX_ATTACHMENTS 8191u
#define CFN_MAX_AGENTS 65536u
#define CFN_MAX_CHUNKS ((1u << 24) - 2u)
#define CFN_REPLY_SLOTS 64u
#define CFN_NAME_BYTES 64u /* 63 and the NUL */
#define CFN_SPILL_BYTES 384u /* of a path, with the NUL */
#define CFN_FRAME_PARTS 4u
#define CFN_PART_MESSAGES 24u
#define CFN_FRAME_MESSAGES (CFN_FRAME_PARTS * CFN_PART_MESSAGES)
#define CFN_REGISTERS 16u
#define CFN_HOLDS 8u
#define CFN_LIVE_LOCKS_PER_FILE 64u
#define CFN_MAX_OBJECTS (CFN_REF_LEASE - 1u)
#define CFN_MAX_REFS 1000000u
#define CFN_LEDGER 48u      /* blobs that one attachment can hold at a time */
#define CFN_BLOB_INSIDE 176u /* so many bytes stand in the record itself */
#define CFN_KEY_BYTES 128u  /* 127 and the NUL */
#define CFN_INDEX_WINDOW 64u /* slots of the index in which a digest may stand */

/* ---- packed words ---- */

#define CFN_REF_BITS 24
#define CFN_REF_MASK ((UINT64_C(1) << CFN_REF_BITS) - 1)
#define CFN_LAP_MASK ((UINT64_C(1) << 40) - 1)
static inline uint64_t cfn_slot_word(uint64_t lap, uint64_t ref) {
  return (lap & CFN_LAP_MASK) << CFN_REF_BITS | ref;
}
static inline uint64_t cfn_slot_lap(uint64_t w) { return w >> CFN_REF_BITS; }
static inline uint32_t cfn_slot_ref(uint64_t w) { return (uint32_t)(w & CFN_REF_MASK); }

enum { CFN_FREE = 0, CFN_MINE = 1, CFN_TAKEN = 2, CFN_DONE = 3 };
static inline uint64_t cfn_own_word(uint64_t ver, unsigned state, unsigned who) {
  return ver << 16 | (uint64_t)state << 13 | who;
}
static inline uint64_t cfn_own_ver(uint64_t w) { return w >> 16; }
static inline unsigned cfn_own_state(uint64_t w) { return (unsigned)(w >> 13) & 7u; }
static inline unsigned cfn_own_who(uint64_t w) { return (unsigned)w & 0x1fffu; }
/* the next word of the same chunk */
static inline uint64_t cfn_own_next(uint64_t w, unsigned state, unsigned who) {
  return cfn_own_word(cfn_own_ver(w) + 1, state, who);
}

enum {
  CFN_MID_FREE = 0,
  CFN_MID_MINE = 1,     /* being filled by its creator */
  CFN_MID_PEND = 2,     /* filled; the directory decides */
  CFN_MID_OPEN = 3,     /* has a name, takes messages */
  CFN_MID_FAIL = 4,     /* the name was taken already; its creator frees it */
  CFN_MID_REMOVING = 5  /* has lost its name; being emptied by its consumer */
};
static inline uint64_t cfn_mid_word(uint64_t ver, unsigned state, unsigned who) {
  return ver << 24 | (uint64_t)who << 8 | state;
}
static inline uint64_t cfn_mid_ver(uint64_t w) { return w >> 24; }
static inline unsigned cfn_mid_who(uint64_t w) { return (unsigned)(w >> 8) & 0xffffu; }
static inline unsigned cfn_mid_state(uint64_t w) { return (unsigned)w & 0xffu; }

static inline uint64_t cfn_consumer_word(uint64_t ver, unsigned att_plus1) {
  return ver << 16 | att_plus1;
}
static inline uint64_t cfn_consumer_ver(uint64_t w) { return w >> 16; }
static inline unsigned cfn_consumer_att(uint64_t w) { return (unsigned)w & 0xffffu; }

#define CFN_OWNER_DEAD 0xffffu
static inline uint64_t cfn_owner_word(uint64_t inc, unsigned att_plus1) {
  return inc << 24 | att_plus1;
}
static inline uint64_t cfn_owner_inc(uint64_t w) { return w >> 24; }
static inline unsigned cfn_owner_att(uint64_t w) { return (unsigned)w & 0xffffu; }

enum {
  CFN_ID_FREE = 0,
  CFN_ID_JOINING = 1,
  CFN_ID_LIVE = 2,
  CFN_ID_REAP = 3, /* proven dead; helpers are recycling what it held */
  CFN_ID_VACANT = 4,
  CFN_ID_LEAVING = 5 /* being recycled by the holder of its life byte alone */
};
static inline uint64_t cfn_id_word(uint64_t inc, unsigned state) { return inc << 24 | state; }
static inline uint64_t cfn_id_inc(uint64_t w) { return w >> 24; }
static inline unsigned cfn_id_state(uint64_t w) { return (unsigned)w & 0xffu; }

enum {
  CFN_BLOB_DEAD = 0,
  CFN_BLOB_FILL = 1,
  CFN_BLOB_LIVE = 2,
  CFN_BLOB_CHECK = 3,
  CFN_BLOB_SPILLING = 4, /* being copied to disk */
  CFN_BLOB_SPILLED = 5   /* on disk alone: mem/spill.h */
};

#define CFN_VERSION_BITS 44
#define CFN_VERSION_MASK ((UINT64_C(1) << CFN_VERSION_BITS) - 1)
static inline uint64_t cfn_ref_word(uint32_t blob_plus1, uint64_t version) {
  return (uint64_t)blob_plus1 << CFN_VERSION_BITS | (version & CFN_VERSION_MASK);
}
/* Instead of a blob: */
#define CFN_REF_CLOSED 0xfffffu /* the record is being taken out of the directory, for good */
#define CFN_REF_DIED 0xffffeu   /* a lease whose holder died holding it; the version is that lease's */
#define CFN_REF_LEASE (CFN_REF_DIED - CFN_MAX_ATTACHMENTS) /* + attachment: it holds the lease */
static inline uint32_t cfn_ref_blob(uint64_t w) { return (uint32_t)(w >> CFN_VERSION_BITS); }
static inline uint64_t cfn_ref_version(uint64_t w) { return w & CFN_VERSION_MASK; }

static inline uint64_t cfn_ref_change(uint64_t version, uint32_t who) { return version << 20 | (who & 0xfffffu); }
static inline uint64_t cfn_ref_change_version(uint64_t w) { return w >> 20; }
static inline uint32_t cfn_ref_change_who(uint64_t w) { return (uint32_t)(w & 0xfffffu); }

/* Ledger cells, words of the index and of pages: {what:40 | blob+1:24}. */
static inline uint64_t cfn_names_word(uint64_t what, uint32_t blob_plus1) { return what << 24 | blob_plus1; }
static inline uint64_t cfn_names_what(uint64_t w) { return w >> 24; }
static inline uint32_t cfn_names_blob(uint64_t w) { return (uint32_t)(w & 0xffffffu); }
/* In a ledger cell: its owner is putting that blob on disk, which is no hold. */
#define CFN_LEDGER_EVICTS 0x800000u
_Static_assert(CFN_MAX_OBJECTS < CFN_LEDGER_EVICTS, "both fit into a cell");
static inline uint32_t cfn_ledger_holds(uint64_t w) { return w & CFN_LEDGER_EVICTS ? 0 : cfn_names_blob(w); }
static inline uint32_t cfn_ledger_names(uint64_t w) { return cfn_names_blob(w) & ~CFN_LEDGER_EVICTS; }

#define CFN_INDEX_BITS 24
#define CFN_INDEX_MASK ((UINT64_C(1) << CFN_INDEX_BITS) - 1)
static inline uint64_t cfn_place(uint64_t position, uint32_t index) {
  return position << CFN_INDEX_BITS | index;
}
static inline uint64_t cfn_place_position(uint64_t w) { return w >> CFN_INDEX_BITS; }
static inline uint32_t cfn_place_index(uint64_t w) { return (uint32_t)(w & CFN_INDEX_MASK); }

static inline uint64_t cfn_part_word(uint64_t ver, uint32_t acked) {
  return ver << CFN_PART_MESSAGES | acked;
}
static inline uint64_t cfn_delivery_word(uint64_t ver, uint64_t count) { return ver << 16 | count; }
static inline uint64_t cfn_delivery_ver(uint64_t w) { return w >> 16; }
/* How often a TAKEN chunk has been leased. Each lease raises own's version by one: what the word lacks was not written by who
 * died before it. It lacks more than two only if it is of an earlier use of the chunk (TAKEN, FREE, MINE, TAKEN is the
 * shortest way there). */
static inline unsigned cfn_delivery_count(uint64_t w, uint64_t own) {
  uint64_t ver = cfn_own_ver(own), gap = ver - cfn_delivery_ver(w);
  uint64_t count = w & 0xffffu; /* 0: never written */
  count = count && ver >= cfn_delivery_ver(w) && gap <= 2 ? count + gap : 1;
  return count < 255 ? (unsigned)count : 255;
}
static inline uint64_t cfn_part_ver(uint64_t w) { return w >> CFN_PART_MESSAGES; }
static inline uint32_t cfn_part_acked(uint64_t w) {
  return (uint32_t)(w & ((UINT64_C(1) << CFN_PART_MESSAGES) - 1));
}

#define CFN_INTENT_REMOVE (UINT64_C(1) << 24)
static inline uint32_t cfn_intent_record(uint64_t w) { return (uint32_t)(w & 0xffffffu); }
static inline uint64_t cfn_intent_ver(uint64_t w) { return w >> 25; }
static inline uint64_t cfn_intent_word(uint64_t ver, uint64_t remove_bit, uint32_t record_plus1) {
  return ver << 25 | remove_bit | record_plus1;
}

#define CFN_DIR_TOMB 0xffffffu
static inline uint64_t cfn_dir_word(uint64_t ver, uint32_t value) { return ver << 24 | value; }
static inline uint64_t cfn_dir_ver(uint64_t w) { return w >> 24; }
static inline uint32_t cfn_dir_value(uint64_t w) { return (uint32_t)(w & 0xffffffu); }

static inline uint64_t cfn_rlap_word(uint64_t tag, uint64_t lap) {
  return tag << 40 | (lap & CFN_LAP_MASK);
}
static inline uint64_t cfn_rlap_tag(uint64_t w) { return w >> 40; }
static inline uint64_t cfn_rlap_lap(uint64_t w) { return w & CFN_LAP_MASK; }

/* ---- configuration: what decides the layout ---- */

typedef struct cfn_config_shm {
  uint32_t agents;
  uint32_t attachments;
  uint32_t lane_slots[CFN_LANES]; /* powers of two */
  uint32_t class_bytes[CFN_CLASSES];
  uint32_t class_chunks[CFN_CLASSES];
  uint32_t directory_slots; /* a power of two, at least twice the records */
  uint32_t objects;         /* blobs */
  uint32_t object_pages;    /* of the heap */
  uint32_t refs;
  uint32_t tap_slots;       /* 0 in this ABI */
  uint32_t wished_kib; /* size that its creator asked for, which the chunks do not always fill; or 0 */
  uint32_t reserved[8];
} cfn_config_shm_t;
_Static_assert(sizeof(cfn_config_shm_t) == 128, "configuration is part of the ABI");

/* Bytes of payload that a chunk of a class has: beside those it is named for, the name, type and record that go with a body
 * of just that size. (Not in the smallest class: there are many of it, and whole messages are that small.) */
#define CFN_CLASS_EXTRA 128u
static inline uint32_t cfn_class_room(const cfn_config_shm_t *c, unsigned cls) {
  return c->class_bytes[cls] + (cls ? CFN_CLASS_EXTRA : 0);
}

typedef struct cfn_super_shm {
  uint64_t magic;
  uint32_t abi;
  uint32_t endian;
  uint32_t header_bytes;
  uint32_t page_bytes;
  uint64_t region_bytes;
  uint64_t layout_hash; /* of every offset and record size */
  uint64_t nonce;       /* of this bus: tells two lives of one name apart */
  uint64_t created_wall_ns;
  uint64_t creator_pid;
  uint64_t creator_uid;
  char boot_id[40];
  char name[CFN_NAME_BYTES];
  cfn_config_shm_t config;
  char spill[CFN_SPILL_BYTES]; /* where objects go that do not fit: mem/spill.h; empty: nowhere */
  uint8_t reserved[3788 - CFN_SPILL_BYTES];
  uint32_t crc; /* CRC-32C of all bytes before it */
} cfn_super_shm_t;

/* ---- an event: see sync/event.h ---- */
typedef struct cfn_event_shm {
  cfn_a32 word; /* {count:28 | FIFO_RINGING | FIFO | WAKING | WAIT}; anyone by CAS */
} cfn_event_shm_t;

typedef struct cfn_line_event_shm {
  cfn_event_shm_t event;
  uint8_t pad[124];
} cfn_line_event_shm_t;

enum { CFN_BUS_OK = 0, CFN_BUS_CORRUPT = 1, CFN_BUS_RETIRED = 2 };

typedef struct cfn_state_shm {
  cfn_a64 state;           /* CFN_BUS_*; OK -> RETIRED once, by CAS, by who destroys the bus */
  uint8_t pad0[120];
  cfn_a64 intent;          /* the directory's one pending change; anyone finishes it */
  uint8_t pad1[120];
  cfn_a64 ref_top;         /* CAS-max: refs at or above it were never used */
  cfn_a64 attach_hint;     /* where the next attach starts to look; advisory */
  cfn_a64 mailbox_hint;    /* the same for a new mailbox; advisory */
  cfn_a64 corrupt_dropped; /* messages dropped because their words made no sense */
  cfn_a64 attach_top;      /* CAS-max: slots at or above it were never used */
  cfn_a64 scanned_ns;      /* when a shortage last made somebody look at all attachments; advisory */
  cfn_a64 ref_hint;        /* as mailbox_hint, of refs */
  cfn_a64 blob_hint;       /* where the next search for a free blob starts; advisory */
  cfn_a64 page_hint;       /* and for free pages */
  cfn_a64 object_messages; /* 1: some message has had an object for a body; set BEFORE the first */
  cfn_a64 spill_id;        /* which directory has its objects on disk, or 0: none yet; by CAS, see cfn_spill_of_bus */
  uint8_t pad2[40];
  cfn_line_event_shm_t registry;                /* rung when an agent comes or goes */
  cfn_line_event_shm_t class_room[CFN_CLASSES]; /* rung when a chunk is freed */
  cfn_line_event_shm_t refs;                    /* rung when any ref was changed */
  cfn_a64 ref_version;                          /* the last version that a ref was given */
  uint8_t pad3[120];
  uint8_t reserved[CFN_PAGE - 128 * (3 + 1 + CFN_CLASSES + 2)];
} cfn_state_shm_t;

/* ---- attachments ---- */

enum {
  CFN_COUNT_SENT = 0,      /* messages committed */
  CFN_COUNT_SENT_BYTES,
  CFN_COUNT_RECEIVED,      /* messages handed out */
  CFN_COUNT_ACKED,
  CFN_COUNT_REDELIVERED,   /* hand-outs that were marked so */
  CFN_COUNT_REPLIES,       /* replies sent to a waiting request */
  CFN_COUNT_REPLIES_LATE,  /* replies that came when nobody waited any more */
  CFN_COUNT_WAITS,         /* times this handle slept */
  CFN_COUNT_FULL,          /* sends that met a full lane */
  CFN_COUNT_REAPED,        /* dead attachments this handle recycled */
  CFN_COUNT_CORRUPT,       /* messages it dropped as corrupt */
  CFN_COUNT_FALSE_FREE,    /* life byte free though the process lives: not reaped */
  CFN_COUNT_PUT_BYTES,     /* of objects that were put */
  CFN_COUNT_STORED_BYTES,  /* of these, bytes that were not there before */
  CFN_COUNT_COLLECTS,      /* times it looked for blobs that nobody holds */
  CFN_COUNTERS = 16
};

/* Register cells: what the attachment is about to hold, announced BEFORE the CAS that takes it. */
enum {
  CFN_REG_SEND = 0,   /* chunk+1 being filled or published */
  CFN_REG_DONE = 1,   /* chunk+1 whose slot it is about to empty */
  CFN_REG_DRAIN = 2,  /* chunk+1 taken out of a ring that is being retired */
  CFN_REG_CREATE = 3, /* named record+1 being created */
  /* 4 is not used */
  CFN_REG_JOINER = 8  /* like DRAIN, written by a process that recycles a dead slot to join in it */
};

typedef struct cfn_attach_shm {
  /* 0: the word everybody checks */
  cfn_a64 id;      /* JOINING, LIVE, LEAVING by the holder of the life byte; REAP, VACANT by helpers */
  cfn_a64 nonce;   /* of this attachment; its process knows it, nobody else does */
  cfn_a64 waiting; /* {kind:8 | lane:8 | index:48} what it sleeps on; its owner */
  cfn_a64 waiting_since;
  cfn_a64 agent; /* mailbox+1 it acts as, or 0; its owner */
  uint8_t pad0[88];
  /* 128: identity, written while JOINING */
  cfn_a64 pid, pid_ns, time_ns, start_time, pidfs_ino, attached_wall_ns;
  uint8_t pad1[80];
  /* 256: announcements, written by the owner alone, read by reapers after its death */
  cfn_a64 reg[CFN_REGISTERS];
  /* 384: mailboxes whose consumer or owner word may name it: mailbox+1 */
  cfn_a64 holds[CFN_HOLDS];
  /* hint words +1 out of which it took a handful, and to which it owes freed ones: see slab.h */
  cfn_a64 hint_taken[CFN_CLASSES], hint_freed;
  cfn_a64 leases; /* 1: it may hold some, or wait among others at a barrier; set BEFORE the first */
  /* 512: the reply ring's words */
  cfn_event_shm_t reply_bell;
  uint8_t pad3[124];
  cfn_event_shm_t reply_space;
  uint8_t pad4[4];
  cfn_a64 reply_rlap;
  uint8_t pad5[112];
  cfn_a64 reply_tail; /* senders */
  uint8_t pad6[120];
  cfn_a64 reply_head; /* the owner; reapers */
  uint8_t pad7[120];
  /* 1024: counters, one writer, never reset: totals over all lives of the slot */
  cfn_a64 counter[CFN_COUNTERS];
  /* 1152: replies */
  cfn_a64 reply_slot[CFN_REPLY_SLOTS];
  /* 1664: blobs that it holds; versions of a cell only grow, over all lives of the slot */
  cfn_a64 ledger[CFN_LEDGER];
} cfn_attach_shm_t;

/* ---- mailboxes ---- */

typedef struct cfn_lane_shm {
  cfn_a64 tail; /* next position to fill: senders, by CAS t -> t+1 (helping) */
  uint8_t pad0[120];
  cfn_a64 head;  /* all positions below are consumed: CAS-max */
  cfn_a64 seen;  /* place: all below were handed out: CAS-max */
  uint8_t pad1[112];
} cfn_lane_shm_t;

/* A short text that may be rewritten while others read it: the sum tells a torn one. */
#define CFN_TEXT_WORDS_SHORT 11u
#define CFN_TEXT_WORDS_LONG 31u
typedef struct cfn_text_short_shm { cfn_a64 sum, word[CFN_TEXT_WORDS_SHORT]; } cfn_text_short_shm_t;
typedef struct cfn_text_long_shm { cfn_a64 sum, word[CFN_TEXT_WORDS_LONG]; } cfn_text_long_shm_t;

typedef struct cfn_mailbox_shm {
  /* 0 */
  cfn_a64 mid;
  cfn_a64 consumer;
  cfn_a64 owner;
  cfn_a64 rlap;
  cfn_a64 registered_wall_ns;
  cfn_a64 sent;     /* messages sent as this agent: relaxed adds */
  cfn_a64 inc_base; /* owner's inc when the name was created: incarnation = inc - inc_base */
  cfn_a64 owner_pid; /* of the last owner: kept when it died, for who asks who that was */
  uint8_t pad0[64];
  /* 128: rung when a message was committed; the consumer waits */
  cfn_line_event_shm_t bell;
  /* 256: rung when slots were emptied; senders wait */
  cfn_line_event_shm_t space;
  /* 384: rung when messages were seen or acked; who holds a receipt waits */
  cfn_line_event_shm_t acks;
  /* 512 */
  cfn_lane_shm_t lane[CFN_LANES];
  /* 1536: the name, written while MINE, constant while OPEN */
  cfn_a64 name[8];
  cfn_text_short_shm_t type; /* 1600 */
  cfn_text_short_shm_t team; /* 1696 */
  cfn_text_long_shm_t capabilities; /* 1792, words separated by spaces */
  cfn_text_long_shm_t tags;         /* 2048 */
  cfn_text_long_shm_t status;       /* 2304 */
} cfn_mailbox_shm_t;

/* ---- chunks ---- */

enum { CFN_TO_MAILBOX = 0, CFN_TO_REPLY = 1 };

/* Plain fields are written by the holder of MINE before the commit and constant until FREE. */
typedef struct cfn_chunk_shm {
  cfn_a64 own;
  cfn_a64 target; /* {kind:8 | lane:8 | index:32}: the ring it goes to; read by reapers */
  uint32_t bytes; /* of payload */
  uint32_t count; /* records in the frame */
  uint64_t first_seq;
  uint64_t wall_ns;
  uint64_t source_inc; /* incarnation of the sending attachment */
  uint16_t source_att;
  uint8_t name_bytes; /* the sender's name stands first in the payload */
  uint8_t flags;
  uint32_t source_mailbox; /* mailbox+1 it was sent as, or 0 */
  uint32_t source_agent_inc;
  uint32_t source_pid;
  /* 64: not touched by a message that is sent alone */
  cfn_a64 delivery; /* by who leases what another had leased before; advice: it counts only with own's version */
  cfn_a64 part[CFN_FRAME_PARTS]; /* of a frame of several: which messages are acked */
  cfn_a64 blob;                  /* with CFN_TARGET_OBJECT: blob+1 that holds the body; held until the chunk is FREE */
  uint64_t spare;
  uint64_t tap;                  /* not used in this ABI */
} cfn_chunk_shm_t;

static inline uint64_t cfn_target_word(unsigned kind, unsigned lane, uint32_t index) {
  return (uint64_t)kind << 40 | (uint64_t)lane << 32 | index;
}
static inline unsigned cfn_target_kind(uint64_t w) { return (unsigned)(w >> 40) & 0xffu; }
static inline unsigned cfn_target_lane(uint64_t w) { return (unsigned)(w >> 32) & 0xffu; }
static inline uint32_t cfn_target_index(uint64_t w) { return (uint32_t)w; }
/* Beside the ring: the body is an object; and no other message has the same one. */
#define CFN_TARGET_OBJECT (UINT64_C(1) << 48)
#define CFN_TARGET_SOLE (UINT64_C(1) << 49)
static inline uint64_t cfn_target_ring(uint64_t w) { return w & (CFN_TARGET_OBJECT - 1); }

/* What stands in the place of such a body. */
typedef struct cfn_object_shm {
  uint64_t bytes;
  uint64_t life; /* of the blob */
  uint32_t blob;
  uint32_t zero;
} cfn_object_shm_t;

/* One message inside a payload; the body follows the type, at the next multiple of 8. */
typedef struct cfn_record_shm {
  uint64_t correlation; /* of the request this answers, or 0 */
  uint32_t body_bytes; /* in this chunk: of CFN_MESSAGE_OBJECT those of cfn_object_shm_t */
  uint8_t type_bytes;
  uint8_t codec; /* CFN_CODEC_* */
  uint16_t flags; /* CFN_MESSAGE_* */
} cfn_record_shm_t;

/* ---- refs and blobs ---- */

typedef struct cfn_ref_shm {
  cfn_a64 mid;  /* as a mailbox's */
  cfn_a64 word; /* {blob+1:20 | version:44}; anyone by CAS while OPEN */
  cfn_a64 changed_wall_ns;            /* of the last change; advisory */
  cfn_a64 changed_by;                 /* {version:44 | mailbox+1:20}: who made it that version; CAS-max */
  cfn_a64 died_wall_ns, died_pid;     /* of a lease whose holder died: {version's low 42 | pid:22}; CAS-max */
  cfn_event_shm_t event;   /* rung at every change that somebody may wait for */
  cfn_event_shm_t holders; /* of a lease: rung when it gets another holder, or none */
  uint8_t pad[72];
  cfn_a64 name[CFN_KEY_BYTES / 8];
} cfn_ref_shm_t;

/* All but the state is written while FILL and constant while LIVE and CHECK. */
typedef struct cfn_blob_shm {
  cfn_a64 st;
  cfn_a64 life;  /* version of `st` when it began to be filled: its pages carry it */
  cfn_a64 bytes;
  cfn_a64 run;   /* {pages:32 | first page:32}, or 0: the bytes are inside */
  cfn_a64 digest[4];
  cfn_a64 made_wall_ns;
  cfn_a64 codec; /* {looked at:56 | codec:8}: the second of the monotonic clock; advisory, by CAS */
  cfn_a64 inside[CFN_BLOB_INSIDE / 8];
} cfn_blob_shm_t;

#define CFN_CHECK_OFFSET(type, member, offset) \
  _Static_assert(__builtin_offsetof(type, member) == (offset), #type "." #member)
_Static_assert(sizeof(cfn_super_shm_t) == CFN_PAGE, "superblock");
_Static_assert(sizeof(cfn_state_shm_t) == CFN_PAGE, "state page");
_Static_assert(sizeof(cfn_attach_shm_t) == 2048, "attachment");
_Static_assert(sizeof(cfn_lane_shm_t) == 256, "lane");
_Static_assert(sizeof(cfn_mailbox_shm_t) == 2560, "mailbox");
_Static_assert(sizeof(cfn_chunk_shm_t) == 128, "chunk meta");
_Static_assert(sizeof(cfn_record_shm_t) == 16, "record");
_Static_assert(sizeof(cfn_ref_shm_t) == 256, "ref");
_Static_assert(sizeof(cfn_blob_shm_t) == 256, "blob");
CFN_CHECK_OFFSET(cfn_super_shm_t, config, 176);
CFN_CHECK_OFFSET(cfn_super_shm_t, crc, 4092);
CFN_CHECK_OFFSET(cfn_state_shm_t, registry, 384);
CFN_CHECK_OFFSET(cfn_attach_shm_t, pid, 128);
CFN_CHECK_OFFSET(cfn_attach_shm_t, reg, 256);
CFN_CHECK_OFFSET(cfn_attach_shm_t, holds, 384);
CFN_CHECK_OFFSET(cfn_attach_shm_t, reply_bell, 512);
CFN_CHECK_OFFSET(cfn_attach_shm_t, reply_space, 640);
CFN_CHECK_OFFSET(cfn_attach_shm_t, reply_tail, 768);
CFN_CHECK_OFFSET(cfn_attach_shm_t, reply_head, 896);
CFN_CHECK_OFFSET(cfn_attach_shm_t, counter, 1024);
CFN_CHECK_OFFSET(cfn_attach_shm_t, reply_slot, 1152);
CFN_CHECK_OFFSET(cfn_attach_shm_t, ledger, 1664);
CFN_CHECK_OFFSET(cfn_mailbox_shm_t, bell, 128);
CFN_CHECK_OFFSET(cfn_mailbox_shm_t, space, 256);
CFN_CHECK_OFFSET(cfn_mailbox_shm_t, acks, 384);
CFN_CHECK_OFFSET(cfn_mailbox_shm_t, lane, 512);
CFN_CHECK_OFFSET(cfn_mailbox_shm_t, name, 1536);
CFN_CHECK_OFFSET(cfn_mailbox_shm_t, status, 2304);
CFN_CHECK_OFFSET(cfn_chunk_shm_t, first_seq, 24);
CFN_CHECK_OFFSET(cfn_chunk_shm_t, delivery, 64);

/* ---- where things are: process-private, recomputed, never read from the region ---- */

typedef struct cfn_geometry {
  cfn_config_shm_t config;
  uint64_t attach_at, mailbox_at, slots_at, refs_at, directory_at, hints_at, chunks_at, payload_at;
  uint64_t blobs_at, index_at, pages_at, heap_at;
  uint64_t region_bytes;
  uint64_t layout_hash;
  uint32_t chunks;                       /* of all classes */
  uint32_t records;                      /* named ones of all kinds */
  uint32_t index_slots;                  /* a power of two, four times the objects at least */
  uint32_t lane_first[CFN_LANES];        /* first slot of a lane inside a mailbox's slots */
  uint32_t lane_log2[CFN_LANES];
  uint32_t slots_per_mailbox;
  uint32_t class_first[CFN_CLASSES + 1]; /* first chunk of a class */
  uint32_t class_reserved[CFN_CLASSES];  /* its last chunks, for control and replies only */
  uint32_t class_handful[CFN_CLASSES];   /* hints that one sender takes at a time */
  uint32_t class_hint[CFN_CLASSES];      /* first hint word of a class */
  uint32_t hint_words;
  uint64_t class_at[CFN_CLASSES];
} cfn_geometry_t;

/* Checks the configuration and computes the layout with overflow-checked arithmetic.
 * CFN_INVALID names what is wrong. */
int cfn_geometry_compute(const cfn_config_shm_t *config, cfn_geometry_t *out);

#endif
