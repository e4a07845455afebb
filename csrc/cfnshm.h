/* The C face of cfnshm: what the Python binding, the command and the tests call.
 *
 * Results: 0 or more is success, negative is a code of base/error.h; cfn_last_failure() of the same
 * thread says more. Deadlines are nanoseconds of CLOCK_MONOTONIC: 0 = do not wait, CFN_FOREVER.
 * A call that waits returns CFN_INTERRUPTED after a signal and at each safety tick: call it again
 * with the same deadline (it has done nothing). Handles may be shared by threads; a handle that was
 * inherited by fork answers CFN_FORKED to everything.
 */
#ifndef CFNSHM_H
#define CFNSHM_H

#include <stddef.h>
#include <stdint.h>

#include "agent/registry.h"
#include "base/error.h"
#include "mem/region.h"
#include "msg/envelope.h"

#define CFN_FOREVER UINT64_MAX
#define CFN_TRY 1 /* does not wait either, not even for another thread (CFN_AGAIN), and finds no words for it */
#define CFN_ALL_LANES 15u

typedef struct cfn_bus cfn_bus_t;

/* An agent as it was looked up: its record and the exact word that says it is still that one. */
typedef struct cfn_address {
  uint64_t mid;
  uint32_t index;
} cfn_address_t;

/* ---- life of a handle ---- */
int cfn_bus_open(const char *dir, const char *name, const cfn_wish_t *wish, int flags,
                 cfn_bus_t **out, int *created);
/* Gives back what is held; unacked messages stay for the next reader. Idempotent. */
void cfn_bus_close(cfn_bus_t *bus);
/* Frees the handle after close, when no thread is inside any call on it. */
void cfn_bus_free(cfn_bus_t *bus);
int cfn_bus_destroy(cfn_bus_t *bus);
/* The same unless somebody else living is attached: CFN_AGENT_BUSY. */
int cfn_bus_destroy_idle(cfn_bus_t *bus);
cfn_region_t *cfn_bus_region(cfn_bus_t *bus);
uint32_t cfn_bus_attachment(const cfn_bus_t *bus);
uint64_t cfn_bus_attachment_inc(const cfn_bus_t *bus);

/* ---- agents ---- */
enum {
  CFN_ACT_OWN = 1, /* be its owner, if nobody living is */
  CFN_ACT_ONLY = 2 /* or fail with CFN_AGENT_BUSY */
};
/* This handle acts as the agent from now on (made if missing). `*incarnation` is its owner's count,
 * `*owner` whether that is us. */
int cfn_bus_act_as(cfn_bus_t *bus, const char *agent, const cfn_profile_t *profile, int flags,
                   uint64_t *incarnation, int *owner);
int cfn_bus_register(cfn_bus_t *bus, const char *agent, const cfn_profile_t *profile,
                     cfn_address_t *out, int *created);
int cfn_bus_find(cfn_bus_t *bus, const char *agent, cfn_address_t *out);
/* Waits until the agent is registered. */
int cfn_bus_wait_agent(cfn_bus_t *bus, const char *agent, uint64_t deadline, cfn_address_t *out);
enum { CFN_FORCE = 1 };
/* Removes an agent; the unread is dropped and counted. CFN_AGENT_BUSY while somebody living owns or
 * reads it, unless forced. */
int cfn_bus_unregister(cfn_bus_t *bus, const char *agent, int flags, uint64_t *dropped);
int cfn_bus_set_profile(cfn_bus_t *bus, const char *agent, const cfn_profile_t *profile);
/* All agents; returns how many there are (also beyond `most`). */
int cfn_bus_agents(cfn_bus_t *bus, cfn_address_t *out, uint32_t most);
/* The same with their names: who is to be written to, without asking who lives. */
typedef struct cfn_named {
  cfn_address_t at;
  char name[CFN_NAME_BYTES];
} cfn_named_t;
int cfn_bus_agents_named(cfn_bus_t *bus, cfn_named_t *out, uint32_t most);
/* A number that changes whenever a name of the bus is given or taken away, so that a list made after it was read is good as long
 * as it is the same; 0: that happens just now, or another thread is inside. */
uint64_t cfn_bus_names_version(cfn_bus_t *bus);

enum {
  CFN_WAIT_NONE = 0,
  CFN_WAIT_INBOX,   /* for a message */
  CFN_WAIT_SPACE,   /* for room in an inbox: index = the agent */
  CFN_WAIT_CHUNKS,  /* for a chunk of a slab class: index = the class */
  CFN_WAIT_RECEIPT, /* for an ack: index = the agent */
  CFN_WAIT_REPLY,   /* for an answer: index = the agent */
  CFN_WAIT_AGENT,   /* for an agent to register */
  CFN_WAIT_REF,     /* for a named value to change: index = the ref, or none */
  CFN_WAIT_LEASE,   /* for a lock or a leadership: index = its ref */
  CFN_WAIT_HOLDER,  /* for it to get another holder */
  CFN_WAIT_PERMIT,  /* for a permit of a semaphore: index = its ref */
  CFN_WAIT_BARRIER  /* for others at a barrier: index = its ref */
};
typedef struct cfn_agent_info {
  char name[CFN_NAME_BYTES];
  char text[CFN_TEXTS][CFN_TEXT_LONG_BYTES];
  uint64_t mid;
  uint64_t registered_wall_ns;
  uint64_t incarnation;
  uint64_t owner_pid, reader_pid;
  uint64_t depth[CFN_LANES];
  uint64_t capacity[CFN_LANES];
  uint64_t sent, received;
  uint64_t waiting_since_wall_ns;
  uint32_t index;
  uint32_t waiting_index;
  char waiting_for[CFN_NAME_BYTES]; /* the agent that is waited for, or the key (its start), or empty */
  uint8_t life; /* CFN_LIFE_* */
  uint8_t waiting; /* CFN_WAIT_*, of its owner */
  uint8_t readable; /* all texts were whole */
} cfn_agent_info_t;
/* CFN_OK, or CFN_STALE if it is another agent by now. */
int cfn_bus_agent_info(cfn_bus_t *bus, const cfn_address_t *address, cfn_agent_info_t *out);

/* CFN_OK, CFN_AGENT_DEAD (proven), CFN_STALE: does it make sense to wait for this agent? */
int cfn_bus_judge_agent(cfn_bus_t *bus, const cfn_address_t *address);

/* ---- sending ---- */
typedef struct cfn_receipt {
  uint64_t mid;
  uint64_t position;
  uint64_t first_sequence;
  uint32_t mailbox;
  uint32_t count;
  uint32_t lane;
  uint32_t reserved;
} cfn_receipt_t;
/* All `n` messages or none, as one frame. */
int cfn_bus_send(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                 const cfn_outgoing_t *messages, uint32_t n, uint64_t deadline,
                 cfn_receipt_t *receipt);
/* The plain case in one crossing. */
int cfn_bus_send_one(cfn_bus_t *bus, uint32_t index, uint64_t mid, unsigned lane, unsigned codec,
                     const void *body, uint32_t body_bytes, const char *type, uint32_t type_bytes,
                     uint64_t correlation, uint64_t deadline, cfn_receipt_t *receipt);
/* As many of the n messages as one frame takes, from the first on; *sent says how many. */
int cfn_bus_send_frame(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                       const cfn_outgoing_t *messages, uint32_t n, uint64_t deadline,
                       cfn_receipt_t *receipt, uint32_t *sent);
/* Bodies that lie one after the other in `bodies`, `bytes[i]` long and of `codecs[i]` (NULL: all raw):
 * one frame, or as many as the largest class asks for; each is all or nothing. Returns how many
 * messages were sent; fewer than n with the reason in *why. `receipts` gets one for each frame. */
int64_t cfn_bus_send_joined(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                            const char *type, uint32_t type_bytes, const uint8_t *bodies,
                            const uint32_t *bytes, const uint8_t *codecs, uint32_t n,
                            uint64_t deadline, cfn_receipt_t *receipts, uint32_t room,
                            uint32_t *frames, int *why);
/* One try at each of n agents; codes in result[i], receipts where CFN_OK. Returns how many got it. `deadline` is 0, or
 * CFN_TRY. */
int cfn_bus_broadcast(cfn_bus_t *bus, const cfn_address_t *to, uint32_t n, unsigned lane,
                      const cfn_outgoing_t *message, uint64_t deadline, int *result, cfn_receipt_t *receipt);
uint64_t cfn_bus_largest_body(cfn_bus_t *bus);

enum {
  CFN_RECEIPT_STORED = 0,
  CFN_RECEIPT_SEEN = 1,
  CFN_RECEIPT_ACKED = 2,
  CFN_RECEIPT_DROPPED = 3 /* the agent was removed; whether it was read before is not known */
};
/* The state of message `index` of the receipt. */
int cfn_bus_receipt(cfn_bus_t *bus, const cfn_receipt_t *receipt, uint32_t index);
/* Waits for SEEN or ACKED (or DROPPED) of all its messages; returns the state. */
int cfn_bus_receipt_wait(cfn_bus_t *bus, const cfn_receipt_t *receipt, int want, uint64_t deadline);

/* ---- receiving ---- */
/* A message as it is handed to a caller, into memory aligned to 8 bytes: this header, then sender, type and (unless EXTERNAL) body,
 * one after the other without padding. */
enum { CFN_WIRE_REDELIVERED = 1, CFN_WIRE_EXTERNAL = 2 };
typedef struct cfn_wire {
  uint64_t token; /* for ack; 0 for replies and peeked messages */
  uint64_t position;
  uint64_t sequence;
  uint64_t wall_ns;
  uint64_t correlation;
  uint64_t source_inc;
  uint64_t source_agent_inc;
  uint64_t source_pid;
  uint64_t external; /* address of the body */
  uint32_t total_bytes; /* of header and what follows */
  uint32_t body_bytes;
  uint32_t index;
  uint32_t source_mailbox;
  uint16_t source_att;
  uint16_t flags; /* CFN_MESSAGE_* */
  uint8_t lane;
  uint8_t codec;
  uint8_t type_bytes;
  uint8_t sender_bytes;
  uint8_t wire_flags;
  uint8_t deliveries; /* how often it was handed out, this time included; 255: as often or more */
  uint8_t reserved[6];
} cfn_wire_t;

enum { CFN_RECV_VIEW = 1 }; /* bodies stay in the region (EXTERNAL), valid until acked */
/* Acks `acks[0..n_acks)`, then the next message of `lanes` into out[0..room). Returns its bytes. */
int64_t cfn_bus_recv(cfn_bus_t *bus, const uint64_t *acks, uint32_t n_acks, unsigned lanes,
                     int flags, uint64_t deadline, void *out, size_t room);
/* The same, acking one message before: `before` is its wire header, or NULL. */
int64_t cfn_bus_recv_next(cfn_bus_t *bus, const void *before, unsigned lanes, int flags,
                          uint64_t deadline, void *out, size_t room);
/* The same for up to `most` messages; offsets[i] is where message i starts. Waits for the first
 * only. Returns how many; `*used` bytes of out are filled. Control messages end a batch. */
int64_t cfn_bus_recv_many(cfn_bus_t *bus, const uint64_t *acks, uint32_t n_acks, unsigned lanes,
                          uint32_t most, uint64_t deadline, void *out, size_t room,
                          uint32_t *offsets, size_t *used);
/* Messages as recv_parcels gives them, for whoever takes hundreds at a time: what came as one frame lies there as it came,
 * with one header for all; a message of its own is a wire message. */
typedef struct cfn_parcel {
  uint64_t token;       /* of the first; the others' follow it */
  uint32_t at;          /* offset of a wire header: of the first, without type and body, if there is a table */
  uint32_t table;       /* 0, or offset of count + 1 u32: where each record begins behind `span` */
  uint32_t span;
  uint32_t count;
  uint32_t redelivered; /* so many of the first were handed out before */
  uint32_t spare;
} cfn_parcel_t;
/* As recv_many; `*parcels` parcels (room for `parcel_room`) are filled. */
int64_t cfn_bus_recv_parcels(cfn_bus_t *bus, unsigned lanes, uint32_t most, uint64_t deadline, void *out, size_t room,
                             cfn_parcel_t *parcel, uint32_t parcel_room, uint32_t *parcels, size_t *used);
/* Acks all messages of parcels; those acked before are passed over. */
int cfn_bus_ack_parcels(cfn_bus_t *bus, const cfn_parcel_t *parcel, uint32_t n);
/* The same; CFN_AGAIN, with nothing acked, while another thread is inside. */
int cfn_bus_try_ack_parcels(cfn_bus_t *bus, const cfn_parcel_t *parcel, uint32_t n);
/* The body of message i of a parcel in `out`; NULL: it came EXTERNAL. */
const void *cfn_parcel_body(const void *out, const cfn_parcel_t *parcel, uint32_t i, uint32_t *bytes);
/* Writes message i as a wire message, if there is room; its bytes in either case. */
size_t cfn_parcel_wire(const void *out, const cfn_parcel_t *parcel, uint32_t i, void *wire, size_t room);
/* Copies the body of a message that came EXTERNAL. CFN_AGENT_FENCED: the inbox was taken over; CFN_INVALID: the
 * message was acked. */
int cfn_bus_copy_body(cfn_bus_t *bus, uint64_t token, void *out, size_t bytes);
/* The message could not be handed on (an exception on the way): it will be handed out again. */
int cfn_bus_put_back(cfn_bus_t *bus, uint64_t token);
/* Acks; the first failure's code, after trying all. */
int cfn_bus_ack(cfn_bus_t *bus, const uint64_t *tokens, uint32_t n);
/* Acks all messages of a batch as recv_many filled it in; those acked before are passed over. */
int cfn_bus_ack_batch(cfn_bus_t *bus, const void *batch, const uint32_t *offsets, uint32_t n);
/* Take the inbox now, so that nobody else can; `steal` takes it from a living reader. */
int cfn_bus_claim_inbox(cfn_bus_t *bus, int steal);
/* Gives the inbox back; unacked messages go to the next reader. */
int cfn_bus_release_inbox(cfn_bus_t *bus);
/* Messages in an agent's inbox, oldest first, without taking them: as many as fit; *more: not all did. */
int64_t cfn_bus_peek(cfn_bus_t *bus, const cfn_address_t *address, unsigned lanes, void *out,
                     size_t room, uint32_t *offsets, uint32_t most, size_t *used, int *more);
/* A descriptor that is readable while messages (0) or replies (1) wait. */
int cfn_bus_fileno(cfn_bus_t *bus, int replies);

/* ---- loans: a body that is written in place ---- */
enum { CFN_LOANS = 16, CFN_LOAN_LEAST = 1024 };
typedef struct cfn_loan {
  void *data; /* of `bytes` bytes, with anything in them */
  uint64_t bytes;
  uint64_t number; /* of this handle */
} cfn_loan_t;
/* Room in the bus for a body of CFN_LOAN_LEAST bytes and more, to be written by this process until it is sent or dropped.
 * CFN_OVER_CAPACITY: CFN_LOANS are open; CFN_NO_SPACE. */
int cfn_bus_loan(cfn_bus_t *bus, uint64_t bytes, cfn_loan_t *loan);
/* Sends it, as cfn_bus_send_one; from now on nobody may write to it. After a failure it is still open. */
int cfn_bus_loan_send(cfn_bus_t *bus, uint64_t number, uint32_t index, uint64_t mid, unsigned lane, unsigned codec,
                      const char *type, uint32_t type_bytes, uint64_t deadline, cfn_receipt_t *receipt);
/* Was it neither sent nor dropped? 1 or 0. */
int cfn_bus_loan_open(cfn_bus_t *bus, uint64_t number);
/* Gives it back unsent; of one that was sent, nothing. */
void cfn_bus_loan_drop(cfn_bus_t *bus, uint64_t number);

/* ---- request and reply ---- */
int cfn_bus_request(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                    const cfn_outgoing_t *message, uint64_t deadline, uint64_t *correlation);
/* Returns the reply's bytes, as cfn_bus_recv; an EXTERNAL body lives until cfn_bus_request_end. */
int64_t cfn_bus_request_wait(cfn_bus_t *bus, const cfn_address_t *to, uint64_t correlation,
                             uint64_t deadline, void *out, size_t room);
void cfn_bus_request_end(cfn_bus_t *bus, uint64_t correlation);
/* Answers a request of attachment `att` in its life `inc`. CFN_STALE: it is gone or gave up. */
int cfn_bus_reply(cfn_bus_t *bus, uint32_t att, uint64_t inc, const cfn_outgoing_t *message,
                  uint64_t deadline);

/* ---- objects: immutable, named by the SHA-256 of their bytes ---- */
typedef struct cfn_object_info {
  uint8_t digest[32];
  uint64_t bytes;
  uint64_t made_wall_ns;
  uint64_t spilled; /* 1: it is on disk, until somebody asks for it */
} cfn_object_info_t;
/* Stores the bytes, whose SHA-256 the caller has computed; `*known` = they were there already. */
int cfn_bus_object_put(cfn_bus_t *bus, const uint8_t digest[32], const void *data, uint64_t bytes, int *known);
/* Copies an object into out; returns its size, and copies nothing if `room` is less. One on disk comes back where there is
 * room for it, and is read from there where there is none. CFN_UNKNOWN_OBJECT; CFN_CORRUPT: it is not on disk any more. */
int64_t cfn_bus_object_get(cfn_bus_t *bus, const uint8_t digest[32], void *out, uint64_t room);
/* Its size without copying. */
int64_t cfn_bus_object_bytes(cfn_bus_t *bus, const uint8_t digest[32]);
/* The bytes where they are, until cfn_bus_object_unpin(pin, word), close, or the end of the process. Others go to disk for
 * one that is there, if they must. */
typedef struct cfn_pin {
  const void *data;
  uint64_t bytes;
  uint64_t pin, word;
} cfn_pin_t;
int cfn_bus_object_pin(cfn_bus_t *bus, const uint8_t digest[32], cfn_pin_t *out);
void cfn_bus_object_unpin(cfn_bus_t *bus, uint64_t pin, uint64_t word);
/* Takes the name away; the bytes go when nobody holds them. CFN_UNKNOWN_OBJECT. */
int cfn_bus_object_delete(cfn_bus_t *bus, const uint8_t digest[32]);
/* All that have a name; returns how many there are (also beyond `most`). */
int64_t cfn_bus_object_list(cfn_bus_t *bus, cfn_object_info_t *out, uint64_t most);
typedef struct cfn_heap_info {
  uint64_t bytes;            /* of payload, garbage that nobody has collected yet included */
  uint64_t heap_bytes;       /* what the heap has for it */
  uint64_t used_bytes;       /* of whole pages */
  uint64_t longest_bytes;    /* the largest object that fits just now */
  uint64_t put_bytes;        /* asked to be stored since the bus was made */
  uint64_t stored_bytes;     /* of these, what was not there already */
  uint64_t spilled_bytes;    /* on disk */
  uint32_t spilled;          /* objects there */
  uint32_t objects;          /* in use, those on disk included */
  uint32_t objects_most;
  uint32_t refs, refs_most;
  char spill[CFN_SPILL_BYTES]; /* the directory, or empty: this bus has none */
} cfn_heap_info_t;
int cfn_bus_heap_info(cfn_bus_t *bus, cfn_heap_info_t *out);
/* Frees what nobody holds; returns how many blobs. Done by itself when room runs short. */
int cfn_bus_collect(cfn_bus_t *bus);
/* Makes `bytes` in a row free, by collecting, and by putting on disk what has a name and is held by nobody. Done by itself,
 * too. CFN_NO_SPACE: it cannot. */
int cfn_bus_evict(cfn_bus_t *bus, uint64_t bytes);

/* ---- refs: named values with versions ---- */
#define CFN_ANY_VERSION UINT64_MAX
typedef struct cfn_ref_info {
  char key[CFN_KEY_BYTES];
  uint64_t version; /* never the same twice on a bus; 0 = no value */
  uint64_t bytes;
  uint64_t changed_wall_ns;
  uint32_t codec;
  uint32_t changed_by; /* mailbox+1, or 0 */
} cfn_ref_info_t;
/* Keys: 1 to 127 bytes, none of them a control character. Sets the value if the key's version is `expect` (0 = it has
 * none; CFN_ANY_VERSION = whatever it is). CFN_OK and the new version; CFN_CONFLICT (failure.have = the version it has);
 * CFN_UNKNOWN_KEY (it has no value any more). */
int cfn_bus_ref_set(cfn_bus_t *bus, const char *key, uint32_t key_bytes, uint64_t expect, unsigned codec,
                    const void *data, uint64_t bytes, uint64_t *version);
/* Copies the value into out: its size, and nothing is copied if `room` is less. CFN_UNKNOWN_KEY. */
int64_t cfn_bus_ref_get(cfn_bus_t *bus, const char *key, uint32_t key_bytes, void *out, uint64_t room,
                        cfn_ref_info_t *info);
/* Takes the value away, under the same condition. */
int cfn_bus_ref_delete(cfn_bus_t *bus, const char *key, uint32_t key_bytes, uint64_t expect);
/* Adds to a whole number, which stands there as JSON (0 if there is nothing). CFN_INVALID: it is no such number, or the
 * sum does not fit. */
int cfn_bus_ref_add(cfn_bus_t *bus, const char *key, uint32_t key_bytes, int64_t delta, int64_t *sum,
                    uint64_t *version);
/* All refs whose key begins so, in no order; returns how many there are (also beyond `most`). */
int64_t cfn_bus_ref_list(cfn_bus_t *bus, const char *prefix, uint32_t prefix_bytes, cfn_ref_info_t *out, uint64_t most);
/* Waits until the key's version is another than `seen` (0 = it has no value); the version there is then. */
int cfn_bus_ref_wait(cfn_bus_t *bus, const char *key, uint32_t key_bytes, uint64_t seen, uint64_t deadline,
                     uint64_t *version);
/* For waiting on many: arm, look at them, sleep if nothing is new. Any change of any ref ends the sleep. */
int cfn_bus_refs_arm(cfn_bus_t *bus, uint32_t *armed);
int cfn_bus_refs_sleep(cfn_bus_t *bus, uint32_t armed, uint64_t deadline);

/* ---- leases: what one holds until it gives it back or dies ---- */
enum { CFN_LEASE_LOCK = 'L', CFN_LEASE_LEADER = 'E' }; /* names of different kinds do not meet */
enum {
  CFN_LEASE_STEAL = 1,      /* take it from its living holder, who is told CFN_LEASE_LOST */
  CFN_LEASE_ONE_OF_MANY = 2 /* what this thread took before is not the caller's: no circles are looked for */
};
enum { CFN_HOLDER_NONE = 0, CFN_HOLDER_ALIVE = 1, CFN_HOLDER_STOPPED = 2, CFN_HOLDER_DEAD = 3 };
typedef struct cfn_holder {
  char name[CFN_KEY_BYTES];     /* of the lease */
  char agent[CFN_NAME_BYTES];   /* who holds it, or held it; empty: nobody's handle, or not known */
  uint64_t token;               /* grows from holder to holder, over all leases of the bus; 0 = nobody has it */
  uint64_t pid;                 /* 0 = not known */
  uint64_t since_wall_ns;
  uint64_t died_wall_ns;        /* when its death was found */
  uint32_t life;                /* CFN_HOLDER_* */
  uint32_t reserved;
} cfn_holder_t;
typedef struct cfn_held {
  uint64_t word;
  uint64_t token;
  uint32_t ref;
  uint32_t kind;
} cfn_held_t;
/* Names: 1 to 125 bytes of UTF-8. CFN_OK; CFN_TIMEOUT and whose it is; CFN_DEADLOCK: each of a circle of processes
 * waits for the next, and this one is the last that came; CFN_OWNER_DIED: the last holder died holding it, and nobody
 * wants to be told of it: `died` is NULL. Else it is taken, and `died` says who that was (token 0: nobody). */
int cfn_bus_lease_take(cfn_bus_t *bus, int kind, const char *name, uint32_t name_bytes, int flags, uint64_t deadline,
                       cfn_held_t *out, cfn_holder_t *died);
/* CFN_OK, or CFN_LEASE_LOST: it was taken from us. */
int cfn_bus_lease_give_back(cfn_bus_t *bus, const cfn_held_t *lease);
/* The same without giving it back. */
int cfn_bus_lease_check(cfn_bus_t *bus, const cfn_held_t *lease);
/* Who holds it now; token 0 if nobody does. Nothing is made. */
int cfn_bus_lease_holder(cfn_bus_t *bus, int kind, const char *name, uint32_t name_bytes, cfn_holder_t *out);
/* Waits until another holds it than the one whose token is `seen` (0 = nobody), or that one is dead. */
int cfn_bus_lease_wait(cfn_bus_t *bus, int kind, const char *name, uint32_t name_bytes, uint64_t seen, uint64_t deadline,
                       cfn_holder_t *out);
/* All leases of the kind that are held, or whose holder died; returns how many there are (also beyond `most`). */
int64_t cfn_bus_lease_list(cfn_bus_t *bus, int kind, cfn_holder_t *out, uint64_t most);

/* ---- semaphores: a number of permits; those of the dead, and of who left, are free again ---- */
/* Takes one of `permits`, which all who use it must say alike while any is taken. CFN_TIMEOUT: all are. */
int cfn_bus_semaphore_take(cfn_bus_t *bus, const char *name, uint32_t name_bytes, uint32_t permits, uint64_t deadline,
                           uint64_t *token);
/* CFN_LEASE_LOST: that permit is not held any more. CFN_NO_SPACE: it still is; the heap had no room for the change. */
int cfn_bus_semaphore_give_back(cfn_bus_t *bus, const char *name, uint32_t name_bytes, uint64_t token);
/* Who holds permits: how many there are (also beyond `most`), and of how many (0: nobody uses it). */
int64_t cfn_bus_semaphore_holders(cfn_bus_t *bus, const char *name, uint32_t name_bytes, uint32_t *permits,
                                  cfn_holder_t *out, uint64_t most);

/* ---- barriers: who arrives waits until all have; then the next round begins ---- */
enum { CFN_BARRIER_GO_ON = 1 }; /* a dead party is counted out; without it, it breaks the barrier for all */
typedef struct cfn_arrival { /* of one wait; all zero before it begins */
  uint64_t round, serial; /* as the core numbers them */
  uint32_t index; /* how many had arrived before */
  uint32_t here;  /* 1: arrived, and not counted out again */
} cfn_arrival_t;
/* Arrives (once) and waits. `parties`: how many a round takes, beside those who have joined; 0: as it was made. `expected`
 * (may be NULL): agents among them, whose death is noticed also if they have not arrived. CFN_OK; CFN_BROKEN_BARRIER;
 * CFN_TIMEOUT: it has left again, the others wait on. */
int cfn_bus_barrier_wait(cfn_bus_t *bus, const char *name, uint32_t name_bytes, uint32_t parties, int flags,
                         const cfn_address_t *expected, uint32_t n_expected, uint64_t deadline, cfn_arrival_t *arrival);
/* This handle is one party more, from the present round on; or no more, which may complete the round. */
int cfn_bus_barrier_join(cfn_bus_t *bus, const char *name, uint32_t name_bytes);
int cfn_bus_barrier_leave(cfn_bus_t *bus, const char *name, uint32_t name_bytes);
/* Whoever waits is told that it is broken, and whoever comes, until it is reset. */
int cfn_bus_barrier_break(cfn_bus_t *bus, const char *name, uint32_t name_bytes);
/* Whole again, and empty: who waits is told that it was broken. */
int cfn_bus_barrier_reset(cfn_bus_t *bus, const char *name, uint32_t name_bytes);
int cfn_bus_barrier_delete(cfn_bus_t *bus, const char *name, uint32_t name_bytes);
typedef struct cfn_party {
  char agent[CFN_NAME_BYTES];
  uint64_t pid;
  uint32_t arrived; /* 1, or 0: has joined and is missing */
  uint32_t life;    /* CFN_HOLDER_* */
} cfn_party_t;
typedef struct cfn_barrier_info {
  uint64_t round;
  uint32_t parties; /* that a round takes now */
  uint32_t arrived;
  uint32_t broken;
  uint32_t known;   /* parties that can be named: those who arrived or joined */
} cfn_barrier_info_t;
/* CFN_UNKNOWN_KEY: there is no such barrier. */
int cfn_bus_barrier_look(cfn_bus_t *bus, const char *name, uint32_t name_bytes, cfn_barrier_info_t *out,
                         cfn_party_t *parties, uint32_t most);

/* ---- the bus as a whole ---- */
typedef struct cfn_bus_info {
  char name[CFN_NAME_BYTES];
  char path[CFN_PATH_BYTES];
  cfn_config_shm_t config;
  uint64_t region_bytes;
  uint64_t created_wall_ns;
  uint64_t creator_pid;
  uint64_t counter[CFN_COUNTERS];
  uint64_t corrupt_dropped;
  uint64_t largest_body;
  uint64_t attachment_inc; /* of the asking handle */
  uint32_t free_chunks[CFN_CLASSES];
  uint32_t agents;
  uint32_t attached; /* living attachments */
  uint32_t dead;     /* dead ones not recycled yet */
} cfn_bus_info_t;
int cfn_bus_info(cfn_bus_t *bus, cfn_bus_info_t *out);
/* Recycles what dead processes left; returns how many were reaped. */
int cfn_bus_reap(cfn_bus_t *bus);

typedef struct cfn_repair {
  uint32_t reaped;       /* dead processes whose things were recycled */
  uint32_t chunks_freed; /* nobody's, and announced by nobody */
  uint32_t hints_mended; /* free chunks that would not have been found */
  uint32_t unproven;     /* chunks that look lost and may be somebody's: left alone */
  uint32_t files_removed; /* on disk, of objects that are not there any more */
} cfn_repair_t;
/* Reaps, and beyond that gives back what is proven to be nobody's. */
int cfn_bus_repair(cfn_bus_t *bus, cfn_repair_t *out);
/* Does a living process have this bus open, which need not be readable? 1 (`*pid` is one, 0 = of another pid
 * namespace), 0, or an error. */
int cfn_bus_in_use(const char *dir, const char *name, uint64_t *pid);
/* Removes a bus, readable or not, with all that is in it. CFN_AGENT_BUSY (`*pid`): a living process has it open. */
int cfn_bus_remove(const char *dir, const char *name, uint64_t *pid);

typedef void (*cfn_check_report_t)(void *context, const char *severity, const char *finding);
/* Verifies every invariant of the region. Returns the number of findings of severity "error";
 * "warning" = will heal by itself or by reaping. At rest (nobody inside any call) there are none. */
int cfn_region_check(cfn_region_t *region, cfn_check_report_t report, void *context);
int cfn_bus_check(cfn_bus_t *bus, cfn_check_report_t report, void *context);

#endif
