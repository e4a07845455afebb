/* Receiving through a handle. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/bus_parcel.h"
#include "base/os.h"
#include "mem/directory.h"

#define CFN_WIRE_HEAD_MOST (sizeof(cfn_wire_t) + CFN_NAME_BYTES + 256)
#define YIELDS 8 /* turns of the processor given to a woken sender */

_Static_assert(sizeof(cfn_wire_t) == 104, "the wire header is read by offset in message.py");

int64_t cfn_wire_write(void *out, size_t room, const cfn_frame_t *f, const cfn_record_t *rec,
                       uint32_t index, bool view) {
  size_t head = sizeof(cfn_wire_t) + f->name_bytes + rec->type_bytes;
  bool inside = !view && head + rec->body_bytes <= room;
  if (head > room) return cfn_fail(CFN_INVALID, (int64_t)room, (int64_t)head, "buffer too small: %zu of %zu bytes", room, head);
  /* Field by field to where it goes: a struct built first and copied then waits for its own stores. */
  cfn_wire_t *w = out;
  w->token = 0;
  w->position = 0;
  w->sequence = f->first_seq + index;
  w->wall_ns = f->wall_ns;
  w->correlation = rec->correlation;
  w->source_inc = f->source_inc;
  w->source_agent_inc = f->source_agent_inc;
  w->source_pid = f->source_pid;
  w->external = inside ? 0 : (uint64_t)(uintptr_t)rec->body;
  w->total_bytes = (uint32_t)(head + (inside ? rec->body_bytes : 0));
  w->body_bytes = rec->body_bytes;
  w->index = index;
  w->source_mailbox = f->source_mailbox;
  w->source_att = f->source_att;
  w->flags = rec->flags;
  w->lane = 0;
  w->codec = rec->codec;
  w->type_bytes = rec->type_bytes;
  w->sender_bytes = f->name_bytes;
  w->wire_flags = inside ? 0 : CFN_WIRE_EXTERNAL;
  w->deliveries = 1;
  memset(w->reserved, 0, sizeof w->reserved);
  uint8_t *p = (uint8_t *)out + sizeof *w;
  cfn_copy_out(p, f->payload, f->name_bytes);
  cfn_copy_out(p + f->name_bytes, rec->type, rec->type_bytes);
  if (inside) cfn_copy_out((uint8_t *)out + head, rec->body, rec->body_bytes);
  return w->total_bytes;
}

/* ---- becoming and staying the consumer ---- */

static int fail_no_agent(void) {
  return cfn_fail(CFN_INVALID, 0, 0, "this handle has no agent: open it with one (Bus(name, "
                  "agent=\"...\"), --as NAME, CFNSHM_AGENT)");
}

static int lost_inbox(cfn_bus_t *bus) {
  if (!bus->mailbox) return cfn_fail(CFN_AGENT_FENCED, 0, 0, "this handle's agent was unregistered");
  cfn_mailbox_shm_t *m = cfn_mailbox(bus->region, bus->mailbox - 1);
  unsigned att = cfn_consumer_att(cfn_load_seq(&m->consumer));
  uint64_t pid = 0;
  if (att && att <= bus->region->geo.config.attachments)
    cfn_identity_of(bus->region, att - 1, &pid);
  cfn_inbox_end(&bus->inbox);
  return cfn_fail(CFN_AGENT_FENCED, (int64_t)pid, 0,
                  "the inbox of '%s' was taken over%s; messages that were not acked are redelivered "
                  "there", bus->agent, pid ? " by another process" : "");
}

int cfn_bus_consume(cfn_bus_t *bus, bool steal) {
  if (!bus->mailbox) return fail_no_agent();
  uint32_t i = bus->mailbox - 1;
  if (bus->inbox.consumer) {
    if (cfn_load_seq(&cfn_mailbox(bus->region, i)->mid) == bus->mid) return CFN_OK;
    /* Removed under us, perhaps by one we stole from, who left the rest to the holder: that is us. */
    cfn_inbox_end(&bus->inbox);
    cfn_registry_finish_removals(&bus->actor);
  }
  for (int tries = 0; tries < 100; tries++) {
    uint64_t consumer;
    uint32_t holder = 0;
    int r = cfn_registry_take_consumer(&bus->actor, i, bus->mid, steal, &consumer, &holder);
    if (r == CFN_OK) {
      cfn_inbox_begin(&bus->inbox, bus->region, bus->actor.me, i, bus->mid, consumer);
      return CFN_OK;
    }
    if (r == CFN_AGENT_DEAD) {
      cfn_reap_if_dead(&bus->actor, holder);
      continue;
    }
    if (r == CFN_AGENT_BUSY) {
      uint64_t pid;
      const char *whose = cfn_bus_holder(bus, holder, &pid);
      return cfn_fail(r, (int64_t)pid, 0,
                      "the inbox of '%s' is being read by process %llu%s, which is alive; only one "
                      "reads at a time. Close it, or take the inbox over: bus.claim(steal=True), "
                      "cfnshm recv --steal", bus->agent, (unsigned long long)pid, whose);
    }
    if (r == CFN_STALE)
      return cfn_fail(CFN_UNKNOWN_AGENT, 0, 0, "agent '%s' was unregistered meanwhile", bus->agent);
    return r;
  }
  return cfn_fail(CFN_AGAIN, 0, 0, "the inbox of '%s' changes hands all the time", bus->agent);
}

int cfn_bus_claim_inbox(cfn_bus_t *bus, int steal) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  if (bus->inbox.consumer && cfn_inbox_fenced(&bus->inbox)) cfn_inbox_end(&bus->inbox);
  r = cfn_bus_consume(bus, steal);
  return cfn_bus_left(bus, r);
}

int cfn_bus_release_inbox(cfn_bus_t *bus) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  if (bus->inbox.consumer) {
    cfn_registry_give_back_consumer(&bus->actor, bus->inbox.mailbox, bus->inbox.consumer);
    cfn_inbox_end(&bus->inbox);
  }
  return cfn_bus_left(bus, r);
}

/* ---- the doorbell descriptor ---- */

static cfn_event_shm_t *bell_of(cfn_bus_t *bus, int replies, cfn_doorbell_t *bell) {
  if (replies) {
    *bell = (cfn_doorbell_t){bus->region, 'a', bus->actor.me};
    return &bus->actor.slot->reply_bell;
  }
  *bell = (cfn_doorbell_t){bus->region, 'm', bus->mailbox - 1};
  return &cfn_mailbox(bus->region, bus->mailbox - 1)->bell.event;
}

static bool something_there(cfn_bus_t *bus, int replies) {
  return replies ? cfn_bus_replies_there(bus) : cfn_inbox_ready(&bus->inbox, CFN_ALL_LANES);
}

void cfn_bus_rest_fifo(cfn_bus_t *bus, int replies) {
  if (bus->fifo[replies] < 0) return;
  cfn_doorbell_t bell;
  cfn_event_arm_fifo(bell_of(bus, replies, &bell));
  if (something_there(bus, replies)) {
    cfn_os_fifo_ring(bus->fifo[replies]);
    return;
  }
  cfn_os_fifo_drain(bus->fifo[replies]);
  /* A ring between arming and draining was drained with its byte: look again. */
  if (something_there(bus, replies)) cfn_os_fifo_ring(bus->fifo[replies]);
}

int cfn_bus_fileno(cfn_bus_t *bus, int replies) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  replies = replies != 0;
  if (!replies) r = cfn_bus_consume(bus, false);
  if (r == CFN_OK && bus->fifo[replies] < 0) {
    cfn_doorbell_t bell;
    bell_of(bus, replies, &bell);
    int fd = cfn_doorbell_open(bell);
    if (fd < 0) {
      errno = -fd;
      r = cfn_fail_os("cannot open the doorbell of '%s'", bus->agent);
    } else {
      bus->fifo[replies] = fd;
      cfn_bus_rest_fifo(bus, replies);
    }
  }
  if (r == CFN_OK) r = bus->fifo[replies];
  return cfn_bus_left(bus, r);
}

/* ---- receive ---- */

static int ack_all(cfn_bus_t *bus, const uint64_t *tokens, uint32_t n) {
  int first = CFN_OK;
  for (uint32_t i = 0; i < n; i++) {
    int r = bus->inbox.consumer ? cfn_inbox_ack(&bus->inbox, tokens[i], 1) : CFN_INVALID;
    if (r < 0 && first == CFN_OK) first = r;
  }
  if (first == CFN_AGENT_FENCED) lost_inbox(bus);
  if (first == CFN_INVALID)
    cfn_fail(first, 0, 0, "this message is not leased by this handle (acked already, or its inbox was "
             "given up)");
  return first;
}

int cfn_bus_ack(cfn_bus_t *bus, const uint64_t *tokens, uint32_t n) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = ack_all(bus, tokens, n);
  if (bus->inbox.consumer) cfn_inbox_announce(&bus->inbox, false);
  return cfn_bus_left(bus, r);
}

static uint64_t token_at(const void *batch, uint32_t offset) {
  uint64_t token;
  memcpy(&token, (const uint8_t *)batch + offset + offsetof(cfn_wire_t, token), sizeof token);
  return token;
}

static int batch_acked(cfn_bus_t *bus, int r) {
  if (r == CFN_AGENT_FENCED) lost_inbox(bus);
  else r = CFN_OK; /* some were acked by hand before */
  if (bus->inbox.consumer) cfn_inbox_announce(&bus->inbox, false);
  return cfn_bus_left(bus, r);
}

int cfn_bus_ack_batch(cfn_bus_t *bus, const void *batch, const uint32_t *offsets, uint32_t n) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  for (uint32_t i = 0, some; i < n && r != CFN_AGENT_FENCED; i += some) {
    uint64_t first = token_at(batch, offsets[i]), last = first;
    for (some = 1; i + some < n; some++) { /* what was one frame goes as one */
      uint64_t next = token_at(batch, offsets[i + some]);
      if (!cfn_tokens_follow(last, next)) break;
      last = next;
    }
    r = bus->inbox.consumer ? cfn_inbox_ack(&bus->inbox, first, some) : CFN_INVALID;
  }
  return batch_acked(bus, r);
}

static int ack_parcels(cfn_bus_t *bus, const cfn_parcel_t *parcel, uint32_t n) {
  int r = CFN_OK;
  for (uint32_t i = 0; i < n && r != CFN_AGENT_FENCED; i++)
    r = bus->inbox.consumer ? cfn_inbox_ack(&bus->inbox, parcel[i].token, parcel[i].count) : CFN_INVALID;
  return batch_acked(bus, r);
}

int cfn_bus_ack_parcels(cfn_bus_t *bus, const cfn_parcel_t *parcel, uint32_t n) {
  int r = cfn_bus_enter(bus);
  return r < 0 ? r : ack_parcels(bus, parcel, n);
}

int cfn_bus_try_ack_parcels(cfn_bus_t *bus, const cfn_parcel_t *parcel, uint32_t n) {
  int r = cfn_bus_try_enter(bus);
  return r < 0 ? r : ack_parcels(bus, parcel, n);
}

int cfn_bus_copy_body(cfn_bus_t *bus, uint64_t token, void *out, size_t bytes) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  cfn_record_t record;
  if (!bus->inbox.consumer || cfn_inbox_fenced(&bus->inbox)) {
    r = lost_inbox(bus);
  } else if (cfn_inbox_record(&bus->inbox, token, &record) < 0) {
    r = cfn_fail(CFN_INVALID, 0, 0, "this message is not leased here: it was acked, or never handed out");
  } else if (record.body_bytes != bytes) {
    r = cfn_fail(CFN_INVALID, record.body_bytes, (int64_t)bytes, "the body has %u bytes", record.body_bytes);
  } else {
    cfn_copy_out(out, record.body, bytes);
    /* The copy is good only if the lease still holds after it was made. */
    cfn_reads_over();
    if (!cfn_inbox_still_mine(&bus->inbox, token)) r = lost_inbox(bus);
  }
  return cfn_bus_left(bus, r);
}

int cfn_bus_put_back(cfn_bus_t *bus, uint64_t token) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = bus->inbox.consumer ? cfn_inbox_put_back(&bus->inbox, token) : CFN_INVALID;
  return cfn_bus_left(bus, r);
}

typedef struct receiving {
  unsigned lanes;
  int flags;
  uint32_t most;
  void *out;
  size_t room;
  uint32_t *offsets; /* NULL: one message, or parcels */
  cfn_parcel_t *parcel; /* or NULL */
  uint32_t parcels, parcel_room;
  size_t used;
  uint32_t count;
  const cfn_wire_t *last;
} receiving_t;

/* Copies what fits of a run to `at` and on, and hands it out: how many, or an error. `*used` is where the next would go. */
static int64_t copy_run(cfn_bus_t *bus, receiving_t *v, const cfn_run_t *run) {
  cfn_inbox_t *in = &bus->inbox;
  cfn_wire_t *wire[CFN_FRAME_MESSAGES];
  bool view = v->flags & CFN_RECV_VIEW;
  size_t used = v->used;
  uint32_t n = 0, redelivered;
  while (n < run->count && (n == 0 || v->room - used >= CFN_WIRE_HEAD_MOST)) {
    cfn_record_t record = run->record;
    size_t at = (used + 7) / 8 * 8;
    if (n && cfn_run_record(run, n, &record) < 0) break; /* the next run begins there, and drops it */
    int64_t bytes = cfn_wire_write((uint8_t *)v->out + at, v->room - at, run->frame, &record, run->first + n, view);
    if (bytes < 0 && n) break; /* it comes with the next call */
    if (bytes < 0) return bytes;
    cfn_wire_t *w = wire[n] = (void *)((uint8_t *)v->out + at);
    w->token = cfn_run_token(in, run, n);
    w->position = run->position;
    w->lane = run->lane;
    if (v->offsets) v->offsets[v->count + n] = (uint32_t)at;
    used = at + (size_t)bytes;
    n++;
    if (w->wire_flags & CFN_WIRE_EXTERNAL && view) bus->region->keep_mapped = true;
    if (w->wire_flags & CFN_WIRE_EXTERNAL || w->lane == CFN_LANE_CONTROL) break;
  }
  int r = cfn_inbox_hand_out(in, run, n, &redelivered);
  if (r < 0) return r;
  for (uint32_t i = 0; i < redelivered; i++) {
    wire[i]->wire_flags |= CFN_WIRE_REDELIVERED;
    wire[i]->deliveries = run->frame->deliveries < 2 ? 2 : run->frame->deliveries;
  }
  v->used = used;
  v->count += n;
  v->last = wire[n - 1];
  return n;
}

/* The same in parcels. */
static int64_t copy_parcel(cfn_bus_t *bus, receiving_t *v, const cfn_run_t *run) {
  cfn_parcel_t *parcel = &v->parcel[v->parcels];
  size_t at = (v->used + 7) / 8 * 8, end;
  uint32_t n = cfn_parcel_fill(&bus->inbox, run, v->out, at, v->room, parcel, &end);
  if (n == 0) {
    cfn_run_t one = *run;
    one.count = 1;
    int64_t r = copy_run(bus, v, &one);
    if (r < 0) return r;
    *parcel = (cfn_parcel_t){.token = v->last->token, .at = (uint32_t)at, .count = 1};
    v->parcels++;
    return r;
  }
  int r = cfn_inbox_hand_out(&bus->inbox, run, n, &parcel->redelivered);
  if (r < 0) return r;
  v->used = end;
  v->count += n;
  v->parcels++;
  v->last = (const void *)((const uint8_t *)v->out + at);
  return n;
}

/* One look, lock held: > 0 bytes or messages, CFN_EMPTY, or an error. */
static int64_t look(cfn_bus_t *bus, receiving_t *v) {
  v->used = v->count = v->parcels = 0;
  do {
    cfn_run_t run;
    int64_t r = cfn_inbox_run(&bus->inbox, v->lanes, v->most - v->count, &run);
    if (r == CFN_OK) r = v->parcel ? copy_parcel(bus, v, &run) : copy_run(bus, v, &run);
    if (r < 0) return v->count ? v->count : r; /* what was handed out before is good: give it first */
  } while (v->count < v->most && (!v->parcel || v->parcels < v->parcel_room) &&
           v->room - v->used >= CFN_WIRE_HEAD_MOST && v->last->lane != CFN_LANE_CONTROL &&
           !(v->last->wire_flags & CFN_WIRE_EXTERNAL));
  return v->offsets || v->parcel ? v->count : (int64_t)v->used;
}

/* The lanes are empty. If senders wait for room, one is woken and gets a moment to fill them again, then
 * a few more; if nothing comes, everybody is woken before we sleep. (Everybody at once would be a storm:
 * thousands wake up for room that a handful fills.) True: look again. Lock held. */
static bool await_senders(cfn_bus_t *bus, unsigned lanes) {
  cfn_event_shm_t *space = &cfn_mailbox(bus->region, bus->mailbox - 1)->space.event;
  if (!(cfn_load_seq(&space->word) & CFN_EVENT_ANY)) return false;
  for (int some = 1; some <= 64; some *= 4) { /* one is enough, unless it is stopped or dies */
    cfn_event_ring_some(space, some);
    for (int i = 0; i < YIELDS; i++) {
      if (cfn_inbox_ready(&bus->inbox, lanes)) return true;
      cfn_os_yield();
    }
  }
  cfn_inbox_announce(&bus->inbox, true);
  return false;
}

static void watch_lanes(cfn_bus_t *bus, unsigned lanes, cfn_watch_t *watch) {
  watch->n = 0;
  for (unsigned lane = 0; lane < CFN_LANES; lane++) {
    if (!(lanes >> lane & 1)) continue;
    cfn_ring_t q = cfn_ring_of_lane(bus->region, bus->inbox.mailbox, lane);
    uint64_t p = bus->inbox.lane[lane].cursor;
    watch->slot[watch->n] = cfn_ring_slot(&q, p);
    watch->word[watch->n++] = cfn_slot_word(cfn_ring_lap(&q, p), 0);
  }
}

static int64_t receive(cfn_bus_t *bus, const uint64_t *acks, uint32_t n_acks, uint64_t deadline,
                       receiving_t *v) {
  for (bool spun = false;;) {
    int64_t r = deadline == CFN_TRY ? cfn_bus_try_enter(bus) : cfn_bus_enter(bus);
    if (r < 0) return r;
    r = n_acks ? ack_all(bus, acks, n_acks) : CFN_OK;
    n_acks = 0;
    if (r == CFN_INVALID) r = CFN_OK; /* acked by hand before: nothing is owed */
    if (r == CFN_OK) r = cfn_bus_consume(bus, false);
    /* Whoever says that there is nothing, or sleeps, has looked at everything. */
    bus->inbox.hasty = deadline == CFN_TRY || (!spun && cfn_load_relaxed(&bus->spin));
    if (r == CFN_OK) r = look(bus, v);
    if (r == CFN_EMPTY && cfn_inbox_fenced(&bus->inbox)) r = CFN_AGENT_FENCED;
    if (r == CFN_AGENT_FENCED) r = lost_inbox(bus);
    if (r < 0 && cfn_region_lost(bus->region)) r = cfn_bus_lost(bus);
    if (r != CFN_EMPTY) {
      cfn_bus_leave(bus);
      return r;
    }
    if (deadline == CFN_TRY) {
      cfn_bus_leave(bus);
      return r;
    }
    if (await_senders(bus, v->lanes)) {
      cfn_bus_leave(bus);
      continue;
    }
    cfn_inbox_tell_freed(&bus->inbox);
    cfn_bus_rest_fifo(bus, 0);
    if (cfn_deadline_passed(deadline)) {
      if (bus->inbox.hasty) {
        spun = true;
        cfn_bus_leave(bus);
        continue;
      }
      cfn_fail(CFN_EMPTY, 0, 0, "no message for '%s'", bus->agent);
      cfn_bus_leave(bus);
      return CFN_EMPTY;
    }
    if (bus->inbox.hasty) {
      spun = true;
      cfn_watch_t watch;
      watch_lanes(bus, v->lanes, &watch);
      cfn_bus_spin(bus, &watch);
      continue;
    }
    cfn_event_shm_t *bell = &cfn_mailbox(bus->region, bus->mailbox - 1)->bell.event;
    uint32_t armed = cfn_event_arm(bell);
    bool ready = cfn_inbox_ready(&bus->inbox, v->lanes) || cfn_inbox_fenced(&bus->inbox) ||
                 cfn_load_seq(&cfn_mailbox(bus->region, bus->mailbox - 1)->mid) != bus->mid;
    if (ready) {
      cfn_bus_leave(bus);
      continue;
    }
    int slept = cfn_bus_sleep(bus, bell, armed, CFN_WAIT_INBOX, bus->mailbox - 1, NULL, deadline);
    if (slept < 0 && slept != CFN_TIMEOUT) return slept;
  }
}

int64_t cfn_bus_recv(cfn_bus_t *bus, const uint64_t *acks, uint32_t n_acks, unsigned lanes,
                     int flags, uint64_t deadline, void *out, size_t room) {
  receiving_t v = {.lanes = lanes, .flags = flags, .most = 1, .out = out, .room = room};
  return receive(bus, acks, n_acks, deadline, &v);
}

int64_t cfn_bus_recv_next(cfn_bus_t *bus, const void *before, unsigned lanes, int flags,
                          uint64_t deadline, void *out, size_t room) {
  uint64_t ack = 0;
  if (before) memcpy(&ack, (const uint8_t *)before + offsetof(cfn_wire_t, token), sizeof ack);
  return cfn_bus_recv(bus, &ack, ack != 0, lanes, flags, deadline, out, room);
}

int64_t cfn_bus_recv_many(cfn_bus_t *bus, const uint64_t *acks, uint32_t n_acks, unsigned lanes,
                          uint32_t most, uint64_t deadline, void *out, size_t room,
                          uint32_t *offsets, size_t *used) {
  receiving_t v = {.lanes = lanes, .most = most, .out = out, .room = room, .offsets = offsets};
  int64_t r = receive(bus, acks, n_acks, deadline, &v);
  *used = v.used;
  return r;
}

int64_t cfn_bus_recv_parcels(cfn_bus_t *bus, unsigned lanes, uint32_t most, uint64_t deadline, void *out, size_t room,
                             cfn_parcel_t *parcel, uint32_t parcel_room, uint32_t *parcels, size_t *used) {
  *parcels = 0;
  *used = 0;
  if (parcel_room == 0) return cfn_fail(CFN_INVALID, 1, 0, "room for at least one parcel is needed");
  if (room > UINT32_MAX) room = UINT32_MAX; /* what a parcel can say */
  receiving_t v = {.lanes = lanes, .most = most, .out = out, .room = room, .parcel = parcel, .parcel_room = parcel_room};
  int64_t r = receive(bus, NULL, 0, deadline, &v);
  *parcels = v.parcels;
  *used = v.used;
  return r;
}

/* ---- peek ---- */

typedef struct peeking {
  cfn_bus_t *bus;
  uint8_t *out;
  size_t room, used;
  uint32_t *offsets;
  uint32_t most, n;
  bool full;
} peeking_t;

/* The record of a frame that is not ours. A body that is an object is held by *h while it is copied, for the chunk may
 * let go of it. False: it is not there any more, or makes no sense. */
static bool hold_record(cfn_bus_t *bus, const cfn_frame_t *frame, uint32_t offset, cfn_record_t *rec, cfn_hold_t *h) {
  if (cfn_frame_record(frame, offset, rec) < 0) return false;
  if (!rec->life) return true;
  if (!cfn_ledger_find(bus->region, bus->actor.me, h)) return h->cell = NULL, false;
  if (cfn_heap_hold(bus->region, h, frame->blob - 1) == CFN_OK) {
    if (cfn_frame_record(frame, offset, rec) == CFN_OK) return true; /* LAST: what we hold is what was sent */
    cfn_ledger_clear(h);
  }
  h->cell = NULL;
  return false;
}

static void peek_frame(void *context, const cfn_peek_t *peek) {
  peeking_t *p = context;
  uint32_t offsets[CFN_FRAME_MESSAGES];
  offsets[0] = cfn_frame_first(&peek->frame);
  if (peek->frame.count > 1 && cfn_frame_index(&peek->frame, offsets) < 0) p->full = true;
  for (uint32_t i = 0; i < peek->frame.count && !p->full; i++) {
    if (peek->part[i / CFN_PART_MESSAGES] >> (i % CFN_PART_MESSAGES) & 1) continue;
    cfn_record_t rec;
    size_t at = (p->used + 7) / 8 * 8;
    cfn_hold_t h = {NULL, 0};
    if (!hold_record(p->bus, &peek->frame, offsets[i], &rec, &h)) break;
    size_t need = sizeof(cfn_wire_t) + peek->frame.name_bytes + rec.type_bytes + rec.body_bytes;
    if (p->n == p->most || at + need > p->room) {
      if (h.cell) cfn_ledger_clear(&h);
      p->full = true;
      break;
    }
    cfn_wire_write(p->out + at, p->room - at, &peek->frame, &rec, i, false);
    if (h.cell) {
      uint64_t life = rec.life;
      cfn_ledger_clear(&h); /* a CAS: what was copied was read before what follows */
      cfn_reads_over();
      /* Its reader may have ended it meanwhile, who asks no ledger: LAST, it is still what was sent. */
      if (cfn_frame_record(&peek->frame, offsets[i], &rec) < 0 || rec.life != life) break;
    }
    cfn_wire_t *w = (void *)(p->out + at);
    w->position = peek->position;
    w->lane = (uint8_t)peek->lane;
    bool handed_out = cfn_place(peek->position, i) < peek->seen;
    if (handed_out) w->wire_flags |= CFN_WIRE_REDELIVERED;
    w->deliveries = handed_out ? peek->frame.deliveries : 0;
    p->offsets[p->n++] = (uint32_t)at;
    p->used = at + w->total_bytes;
  }
}

int64_t cfn_bus_peek(cfn_bus_t *bus, const cfn_address_t *address, unsigned lanes, void *out,
                     size_t room, uint32_t *offsets, uint32_t most, size_t *used, int *more) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  if (address->index >= bus->region->geo.config.agents) r = cfn_fail(CFN_INVALID, 0, 0, "bad address");
  peeking_t p = {.bus = bus, .out = out, .room = room, .offsets = offsets, .most = most};
  uint8_t *buffer = malloc(cfn_slab_largest(bus->region) + 8);
  if (r == CFN_OK && !buffer) r = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory to look into an inbox");
  for (unsigned lane = 0; r == CFN_OK && lane < CFN_LANES; lane++)
    if (lanes >> lane & 1)
      cfn_lane_peek(bus->region, address->index, lane, buffer, peek_frame, &p);
  free(buffer);
  if (r == CFN_OK && cfn_load_seq(&cfn_mailbox(bus->region, address->index)->mid) != address->mid)
    r = cfn_fail(CFN_STALE, 0, 0, "the agent was unregistered meanwhile");
  r = cfn_bus_left(bus, r);
  *used = p.used;
  *more = p.full;
  return r < 0 ? r : (int64_t)p.n;
}
