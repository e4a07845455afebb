/* Request and reply: the answer comes back to the process that asked, through the reply ring of its
 * attachment, whether it reads an inbox or not. Several threads may ask at once: whoever wakes up
 * empties the ring and puts each answer to its request; all of them wait on one event, which every
 * answer rings. */
#include <stdlib.h>
#include <string.h>

#include "agent/bus.h"
#include "base/os.h"
#include "mem/directory.h"

#define MOST_VAIN 1000u

static cfn_pending_t *find_pending(cfn_bus_t *bus, uint64_t correlation) {
  cfn_pending_t *p = bus->pending;
  while (p && p->correlation != correlation) p = p->next;
  return p;
}

static void drop_pending(cfn_bus_t *bus, uint64_t correlation) {
  for (cfn_pending_t **at = &bus->pending; *at; at = &(*at)->next)
    if ((*at)->correlation == correlation) {
      cfn_pending_t *p = *at;
      *at = p->next;
      free(p->wire);
      free(p);
      return;
    }
}

/* The request that has its answer now, or NULL. */
static cfn_pending_t *deliver(cfn_bus_t *bus, const cfn_frame_t *frame) {
  cfn_record_t rec;
  if (frame->count != 1 || cfn_frame_record(frame, cfn_frame_first(frame), &rec) < 0) {
    cfn_bus_count(bus, CFN_COUNT_CORRUPT, 1);
    return NULL;
  }
  cfn_pending_t *p = find_pending(bus, rec.correlation);
  if (!p || p->wire) { /* gave up waiting, or answered twice */
    cfn_bus_count(bus, CFN_COUNT_REPLIES_LATE, 1);
    return NULL;
  }
  size_t room = sizeof(cfn_wire_t) + frame->name_bytes + rec.type_bytes + rec.body_bytes;
  p->wire = malloc(room);
  if (!p->wire) return NULL; /* the asker times out; its request may be repeated */
  cfn_wire_write(p->wire, room, frame, &rec, 0, false);
  return p;
}

/* Empties the reply ring into the pending requests; lock held, so this process is its one reader. */
static void drain_replies(cfn_bus_t *bus) {
  const cfn_region_t *r = bus->region;
  cfn_ring_t q = cfn_ring_of_replies(r, bus->actor.me);
  cfn_a64 *cell = &bus->actor.slot->reg[CFN_REG_DRAIN];
  bool any = false;
  for (uint32_t n = 0; n < 4 * CFN_REPLY_SLOTS; n++) {
    uint64_t h = cfn_load_seq(q.head);
    cfn_a64 *slot = cfn_ring_slot(&q, h);
    uint64_t w = cfn_load_seq(slot);
    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, h));
    uint32_t ref = cfn_slot_ref(w);
    if (ahead > 0) {
      cfn_max_seq(q.head, h + 1);
      continue;
    }
    if (ahead < 0 || ref == 0) break;
    any = true;
    uint64_t mine = 0;
    if (ref <= r->geo.chunks) {
      cfn_chunk_shm_t *chunk = cfn_chunk(r, ref - 1);
      uint64_t own = cfn_load_acquire(&chunk->own);
      unsigned state = cfn_own_state(own);
      if (cfn_load_seq(slot) != w) continue; /* own belongs to w's reply only if w is still there */
      cfn_store_seq(cell, ref); /* announced before it is taken */
      if (state == CFN_MINE || state == CFN_TAKEN) {
        mine = cfn_own_next(own, CFN_TAKEN, bus->actor.me);
        if (!cfn_cas_seq(&chunk->own, own, mine)) continue;
        /* dies here: TAKEN(dead) in the dead one's own ring: emptied with the ring */
        cfn_frame_t frame;
        cfn_pending_t *p = NULL;
        if (cfn_frame_read(r, ref - 1, chunk, &frame) == CFN_OK) p = deliver(bus, &frame);
        else cfn_bus_count(bus, CFN_COUNT_CORRUPT, 1);
        /* The copy is good only if the chunk is still ours after it was made, and the region still there. */
        cfn_reads_over();
        if (p && (cfn_load_seq(&chunk->own) != mine || cfn_region_lost(r))) {
          free(p->wire);
          p->wire = NULL;
        }
      }
    }
    if (cfn_cas_seq(slot, w, cfn_slot_word(cfn_slot_lap(w) + 1, 0))) {
      cfn_max_seq(q.head, h + 1);
      /* dies here: TAKEN(dead), in no ring, announced */
      if (mine) {
        cfn_heap_release_sole(r, cfn_chunk(r, ref - 1), mine);
        cfn_chunk_give_back(r, ref - 1, mine);
      }
    }
    cfn_store_release(cell, 0);
  }
  if (any) cfn_event_ring_futex(&bus->actor.slot->reply_space);
}

bool cfn_bus_replies_there(cfn_bus_t *bus) {
  cfn_ring_t q = cfn_ring_of_replies(bus->region, bus->actor.me);
  uint64_t h = cfn_load_seq(q.head);
  uint64_t w = cfn_load_seq(cfn_ring_slot(&q, h));
  int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, h));
  return ahead > 0 || (ahead == 0 && cfn_slot_ref(w)); /* what drain_replies gets anywhere with */
}

int cfn_bus_request(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                    const cfn_outgoing_t *message, uint64_t deadline, uint64_t *correlation) {
  cfn_pending_t *p = calloc(1, sizeof *p);
  if (!p) return cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for a request");
  cfn_outgoing_t m = *message;
  m.flags |= CFN_MESSAGE_REQUEST;
  int r = cfn_bus_enter(bus);
  if (r < 0) {
    free(p);
    return r;
  }
  /* The name of the request stands in the message before its sequence number is known. */
  p->correlation = m.correlation = cfn_os_random() | 1;
  p->next = bus->pending;
  bus->pending = p;
  cfn_bus_leave(bus);
  r = cfn_bus_send(bus, to, lane, &m, 1, deadline, NULL);
  if (r < 0)
    cfn_bus_request_end(bus, m.correlation);
  else
    *correlation = m.correlation;
  return r;
}

void cfn_bus_request_end(cfn_bus_t *bus, uint64_t correlation) {
  cfn_failure_t keep = *cfn_last_failure();
  if (cfn_bus_enter(bus) == CFN_OK) {
    drop_pending(bus, correlation);
    cfn_bus_leave(bus);
  } else if (keep.code) { /* what the caller is about to report is the request's own failure */
    cfn_fail(keep.code, keep.have, keep.want, "%s", keep.text);
  }
}

/* The answer, if it has come: bytes, or CFN_EMPTY. Lock held. */
static int64_t answer(cfn_bus_t *bus, uint64_t correlation, void *out, size_t room) {
  drain_replies(bus);
  cfn_bus_rest_fifo(bus, 1);
  cfn_pending_t *p = find_pending(bus, correlation);
  if (!p) return cfn_fail(CFN_INVALID, 0, 0, "no such request is pending");
  if (!p->wire) return CFN_EMPTY;
  cfn_wire_t w;
  memcpy(&w, p->wire, sizeof w);
  if (w.total_bytes <= room) {
    memcpy(out, p->wire, w.total_bytes);
    return w.total_bytes;
  }
  size_t head = w.total_bytes - w.body_bytes; /* the body stays here until request_end */
  if (head > room) return cfn_fail(CFN_INVALID, (int64_t)room, (int64_t)head, "buffer too small");
  w.external = (uint64_t)(uintptr_t)(p->wire + head);
  w.total_bytes = (uint32_t)head;
  w.wire_flags |= CFN_WIRE_EXTERNAL;
  memcpy(out, &w, sizeof w);
  memcpy((uint8_t *)out + sizeof w, p->wire + sizeof w, head - sizeof w);
  return (int64_t)head;
}

int64_t cfn_bus_request_wait(cfn_bus_t *bus, const cfn_address_t *to, uint64_t correlation,
                             uint64_t deadline, void *out, size_t room) {
  int verdict = CFN_OK;
  unsigned vain = 0, late_looks = 0;
  for (bool spun = false;;) {
    int64_t r = cfn_bus_enter(bus);
    if (r < 0) return r;
    uint64_t was = cfn_load_seq(&bus->actor.slot->reply_head);
    r = answer(bus, correlation, out, room);
    if (r == CFN_EMPTY && !spun && cfn_load_relaxed(&bus->spin) && deadline) {
      spun = true;
      cfn_ring_t q = cfn_ring_of_replies(bus->region, bus->actor.me);
      uint64_t h = cfn_load_seq(q.head);
      cfn_watch_t watch = {{cfn_ring_slot(&q, h)}, {cfn_slot_word(cfn_ring_lap(&q, h), 0)}, 1};
      cfn_bus_spin(bus, &watch);
      continue;
    }
    cfn_event_shm_t *bell = &bus->actor.slot->reply_bell;
    uint32_t armed = 0;
    if (r == CFN_EMPTY) armed = cfn_event_arm(bell);
    bool there = r == CFN_EMPTY && cfn_bus_replies_there(bus);
    bool stands = there && cfn_load_seq(&bus->actor.slot->reply_head) == was;
    vain = stands ? vain + 1 : 0; /* there, look after look, and it cannot be taken out */
    if (there && !stands && cfn_deadline_passed(deadline) && ++late_looks > MOST_VAIN)
      there = false; /* those of other requests come and come, and our time is over */
    if (vain > MOST_VAIN) {
      cfn_bus_leave(bus);
      return cfn_fail(CFN_CORRUPT, 0, 0, "the words of this process's reply ring are damaged (cfnshm doctor); open "
                                         "the bus again");
    }
    if (r != CFN_EMPTY || there || verdict < 0 || cfn_deadline_passed(deadline)) {
      bool late = r == CFN_EMPTY && !there && verdict == CFN_OK;
      char name[CFN_NAME_BYTES];
      if (late && deadline == 0) {
        cfn_fail(CFN_TIMEOUT, 0, 0, "no answer yet");
      } else if (late) {
        cfn_record_name(bus->region, to->index, name);
        cfn_fail(CFN_TIMEOUT, 0, 0, "timed out waiting for the answer of '%s'; %s", name,
                 cfn_bus_excuse(bus, to->index));
      }
      cfn_bus_leave(bus);
      if (r != CFN_EMPTY) return r;
      if (there) continue;
      return late ? CFN_TIMEOUT : verdict; /* looked once more after it: no answer was on its way */
    }
    int slept = cfn_bus_sleep(bus, bell, armed, CFN_WAIT_REPLY, to->index, to, deadline);
    if (slept == CFN_AGENT_DEAD || slept == CFN_STALE)
      verdict = slept;
    else if (slept < 0 && slept != CFN_TIMEOUT)
      return slept;
  }
}
