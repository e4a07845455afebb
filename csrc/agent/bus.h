/* The handle: one attachment of one process to one bus, and what it keeps privately. */
#ifndef CFN_AGENT_BUS_H
#define CFN_AGENT_BUS_H

#include <pthread.h>

#include "agent/attach.h"
#include "cfnshm.h"
#include "mem/heap.h"
#include "msg/inbox.h"
#include "msg/outbox.h"

/* A request that somebody waits for, or whose answer has come. */
typedef struct cfn_pending {
  uint64_t correlation;
  uint8_t *wire; /* the answer, whole, or NULL */
  struct cfn_pending *next;
} cfn_pending_t;

struct cfn_bus {
  cfn_region_t *region;
  cfn_actor_t actor;
  uint64_t id_word; /* LIVE(inc): our attachment while we are not fenced */
  uint64_t stamp;   /* of the process that opened it */
  uint32_t largest; /* chunk: the region may not be asked without the lock */
  pthread_mutex_t lock; /* never held across a wait */
  bool closed, region_open;
  cfn_a32 inside; /* threads that sleep: a close meanwhile must not unmap under them */
  /* the agent we act as */
  char agent[CFN_NAME_BYTES];
  uint32_t mailbox; /* +1, 0 = nobody */
  uint64_t mid;
  uint64_t agent_inc;
  bool owner;
  cfn_inbox_t inbox; /* consumer == 0: we do not read it */
  cfn_outbox_t outbox;
  cfn_pending_t *pending;
  cfn_a32 spin;    /* turns of the processor that a spin may take now */
  cfn_a64 tick_ns; /* grows while nothing happens */
  cfn_a64 wait_what, wait_since, wait_until; /* a wait that goes on over safety ticks is one wait */
  uint32_t round_robin; /* whose life the next tick looks at */
  int fifo[2];          /* inbox, replies; -1 */
  pthread_t lease_thread; /* who takes leases with this handle; many_take_leases: not one alone */
  bool lease_thread_known, many_take_leases;
  struct cfn_lent *lent; /* CFN_LOANS of them, or NULL: see bus_loan.c */
  uint64_t loans;        /* so many were ever open */
  bool swept; /* files of the dead are gone from the place on disk: see cfn_evict_sweep */
};

/* Enters a call: CFN_OK with the lock held, or CFN_FORKED, CFN_CLOSED, CFN_RETIRED,
 * CFN_AGENT_FENCED without it. */
int cfn_bus_enter(cfn_bus_t *bus);
/* The same without waiting for another thread: CFN_AGAIN while one is inside. */
int cfn_bus_try_enter(cfn_bus_t *bus);
/* Fails with what there is to say of a region that was cut short. */
int cfn_bus_lost(const cfn_bus_t *bus);
/* Keeps the region mapped without holding the lock, from a call that has entered (and leaves) on. */
int cfn_bus_hold(cfn_bus_t *bus);
void cfn_bus_unhold(cfn_bus_t *bus);
static inline void cfn_bus_leave(cfn_bus_t *bus) { pthread_mutex_unlock(&bus->lock); }
/* Leaves with a result, unless the region was cut short meanwhile: then what was read were zeroes of our own. */
static inline int cfn_bus_left(cfn_bus_t *bus, int result) {
  int r = cfn_region_lost(bus->region) ? cfn_bus_lost(bus) : result;
  cfn_bus_leave(bus);
  return r;
}

/* Is there an answer in the reply ring? */
bool cfn_bus_replies_there(cfn_bus_t *bus);
/* Found nothing: makes the doorbell descriptor (if it is in use) unreadable, and readable again if something came
 * meanwhile. Lock held. */
void cfn_bus_rest_fifo(cfn_bus_t *bus, int replies);

/* Sleeps on an event that was armed (and whose condition was looked at again after that). Called with
 * the lock held, returns WITHOUT it: it is never held across a wait. `counterpart` is the agent whose death ends the wait, or NULL. CFN_OK: look again;
 * CFN_TIMEOUT: look once more, then say so; CFN_INTERRUPTED; or why waiting makes no sense. */
int cfn_bus_sleep(cfn_bus_t *bus, cfn_event_shm_t *event, uint32_t armed, unsigned kind,
                  uint32_t index, const cfn_address_t *counterpart, uint64_t deadline);

/* Says what we are going to sleep on, before the sleep does. */
void cfn_bus_says_waiting(cfn_bus_t *bus, unsigned kind, uint32_t index);
#define CFN_WAIT_ALONE 0x100u /* in `kind`: the thread that waits is the only one that takes leases with this handle */

/* Where the next message would appear: what a short spin looks at. */
typedef struct cfn_watch {
  cfn_a64 *slot[CFN_LANES];
  uint64_t word[CFN_LANES]; /* what stands there while nothing has come */
  unsigned n;
} cfn_watch_t;
/* Before sleeping, gives the processor away a few times and looks whether something came: a sleep and
 * its wake-up cost more than a message. Adaptive: grows while it helps, shrinks to nothing while it
 * does not; yields, so that on a busy machine others run instead. Lock held at entry, NOT at return;
 * look again in either case. */
void cfn_bus_spin(cfn_bus_t *bus, const cfn_watch_t *watch);

/* Has the deadline passed? 0 has always passed. */
bool cfn_deadline_passed(uint64_t deadline);

/* Is the agent's process proven dead? CFN_OK or CFN_AGENT_DEAD with the story, CFN_STALE. */
int cfn_bus_judge(cfn_bus_t *bus, const cfn_address_t *address);

/* Who holds attachment `holder`: its process in *pid, and words to put behind the number. */
const char *cfn_bus_holder(cfn_bus_t *bus, uint32_t holder, uint64_t *pid);

/* What may be the matter with an agent that does not do what we wait for, in words. */
const char *cfn_bus_excuse(cfn_bus_t *bus, uint32_t mailbox);

/* Stores bytes as a blob that is LIVE and held by *h alone, which the caller clears when something else holds it.
 * `digest` or NULL. Lock held. CFN_OK, CFN_NO_SPACE, CFN_TOO_LARGE with the numbers. */
int cfn_bus_store(cfn_bus_t *bus, const uint8_t *digest, unsigned codec, const void *data, uint64_t bytes,
                  cfn_hold_t *h, cfn_filling_t *stored);

/* Cells of the ledger that are in use, and how many of them views and loans may take: the others are for calls in passing. */
#define CFN_PINS (CFN_LEDGER - 2u)
unsigned cfn_bus_pins(cfn_bus_t *bus);
/* Its halves: room for so many bytes, in FILL and held by *h; and when they are written. */
int cfn_bus_store_begin(cfn_bus_t *bus, uint64_t bytes, cfn_hold_t *h, cfn_filling_t *f);
int cfn_bus_store_end(cfn_bus_t *bus, const uint8_t *digest, unsigned codec, cfn_hold_t *h, cfn_filling_t *f);

void cfn_bus_count(cfn_bus_t *bus, unsigned which, uint64_t n);

/* Becomes the consumer of our agent's inbox if we are not. Lock held. */
int cfn_bus_consume(cfn_bus_t *bus, bool steal);

/* Gives back what is on loan: the handle is being closed. Lock held. */
void cfn_bus_drop_loans(cfn_bus_t *bus);

/* Writes a message into out; the body too if it fits and `view` is not set. */
int64_t cfn_wire_write(void *out, size_t room, const cfn_frame_t *frame, const cfn_record_t *record,
                       uint32_t index, bool view);

#endif
