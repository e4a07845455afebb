#include "msg/inbox.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/os.h"
#include "mem/heap.h"

/* never 0, which stands for "no message" */
#define TOKEN_OF_GENERATION(generation) ((generation) % 0xffffffu + 1)
#define TOKEN(generation, lease, index) \
  ((uint64_t)TOKEN_OF_GENERATION(generation) << 40 | (uint64_t)(lease) << 20 | (index))
#define TOKEN_LEASE(t) ((uint32_t)((t) >> 20) & 0xfffffu)
#define TOKEN_INDEX(t) ((uint32_t)(t) & 0xfffffu)
#define TOKEN_GENERATION(t) ((uint32_t)((t) >> 40))
#define ROOM_RING_NS 1000000u
#define LOOKS_PAST_IDLE 64u

static cfn_lane_shm_t *lane_words(const cfn_inbox_t *in, unsigned lane) {
  return &cfn_mailbox(in->region, in->mailbox)->lane[lane];
}

static void count(cfn_inbox_t *in, unsigned which, uint64_t n) {
  cfn_a64 *c = &in->slot->counter[which]; /* one writer: no read-modify-write needed */
  cfn_store_relaxed(c, cfn_load_relaxed(c) + n);
}

void cfn_inbox_begin(cfn_inbox_t *in, const cfn_region_t *r, unsigned me, uint32_t mailbox,
                     uint64_t mid, uint64_t consumer) {
  in->region = r;
  in->slot = cfn_attachment(r, me);
  in->me = me;
  in->mailbox = mailbox;
  in->mid = mid;
  in->consumer = consumer;
  for (unsigned i = 0; i < CFN_LANES; i++) {
    in->lane[i] = (cfn_inbox_lane_t){0};
    in->lane[i].cursor = cfn_load_seq(&lane_words(in, i)->head);
  }
  /* The holder before us may have died between emptying slots and waking those who wait for them. */
  cfn_event_ring_futex(&cfn_mailbox(r, mailbox)->space.event);
}

static void unqueue(cfn_inbox_t *in, uint32_t i) {
  cfn_lease_t *l = &in->lease[i];
  uint32_t *at = &in->lane[l->lane].again;
  while (*at && *at != i + 1) at = &in->lease[*at - 1].next_free;
  if (*at) *at = l->next_free;
  l->queued = false;
}

static void lease_reset(cfn_inbox_t *in, uint32_t i) {
  cfn_lease_t *l = &in->lease[i];
  if (l->queued) unqueue(in, i);
  /* Over although not all of it was handed out: its last bit was set by a reader that we took the inbox from. */
  if (in->lane[l->lane].current == i + 1) in->lane[l->lane].current = 0;
  l->own = 0;
  l->generation++;
  l->next_free = in->lease_free;
  in->lease_free = i + 1;
  in->open--;
}

void cfn_inbox_end(cfn_inbox_t *in) {
  if (in->consumer) cfn_inbox_announce(in, true); /* what we emptied and did not tell yet */
  for (uint32_t i = 0; i < in->leases; i++) free(in->lease[i].offsets);
  free(in->lease);
  in->lease = NULL;
  in->leases = in->lease_free = in->open = 0;
  in->consumer = 0;
}

/* An unused lease entry, or NULL without memory. */
static cfn_lease_t *lease_new(cfn_inbox_t *in) {
  if (!in->lease_free) {
    uint32_t more = in->leases ? in->leases * 2 : 64;
    cfn_lease_t *grown = realloc(in->lease, more * sizeof *grown);
    if (!grown) return NULL;
    memset(grown + in->leases, 0, (more - in->leases) * sizeof *grown);
    in->lease = grown;
    for (uint32_t i = more; i-- > in->leases;) {
      in->lease[i].next_free = in->lease_free;
      in->lease_free = i + 1;
    }
    in->leases = more;
  }
  cfn_lease_t *l = &in->lease[in->lease_free - 1];
  in->lease_free = l->next_free;
  in->open++;
  return l;
}

/* ---- the head move: R5, R6, R7 over the DONE prefix ---- */

/* Drops what stands in a slot and makes no sense; only while it is ours to drop. */
static void drop_corrupt(cfn_inbox_t *in, unsigned lane, cfn_a64 *slot, uint64_t w) {
  if (cfn_inbox_fenced(in)) return;
  if (cfn_cas_seq(slot, w, cfn_slot_word(cfn_slot_lap(w) + 1, 0))) {
    cfn_add_relaxed(&cfn_state(in->region)->corrupt_dropped, 1);
    count(in, CFN_COUNT_CORRUPT, 1);
    in->lane[lane].freed++;
  }
}

static void move_head(cfn_inbox_t *in, unsigned lane) {
  const cfn_region_t *r = in->region;
  cfn_ring_t q = cfn_ring_of_lane(r, in->mailbox, lane);
  cfn_a64 *cell = &in->slot->reg[CFN_REG_DONE];
  /* seq_cst loads: a full ring of DONEs whose acker died between ack and move would wedge if the
   * next one looked at an old word and saw nothing to do. */
  uint64_t h = cfn_load_seq(q.head);
  for (uint32_t i = 0; i < 4 * cfn_ring_slots(&q); i++) {
    cfn_a64 *slot = cfn_ring_slot(&q, h);
    uint64_t w = cfn_load_seq(slot);
    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, h));
    if (ahead > 0) { /* R5 was done by another; R6 perhaps not */
      cfn_max_seq(q.head, h + 1);
      h++;
      continue;
    }
    uint32_t ref = cfn_slot_ref(w);
    if (ahead < 0 || ref == 0) return;
    if (ref > r->geo.chunks) {
      drop_corrupt(in, lane, slot, w);
      if (cfn_load_seq(slot) == w) return;
      continue;
    }
    cfn_chunk_shm_t *chunk = cfn_chunk(r, ref - 1);
    uint64_t own = cfn_load_seq(&chunk->own);
    if (cfn_own_state(own) != CFN_DONE) return;
    cfn_store_relaxed(cell, ref); /* announced before R5 */
    if (cfn_cas_seq(slot, w, cfn_slot_word(cfn_slot_lap(w) + 1, 0))) { /* R5 */
      /* dies here: DONE, unreferenced, announced */
      cfn_max_seq(q.head, h + 1); /* R6 */
      cfn_heap_release_sole(r, chunk, own);
      if (cfn_slab_free_later(r, ref - 1, own, &in->freed, &in->slot->hint_freed)) /* R7: only R5's winner frees */
        cfn_event_ring_futex(&cfn_state(r)->class_room[cfn_chunk_class(r, ref - 1)].event);
      in->lane[lane].freed++;
      h++;
    } /* the loser looks again */
    cfn_store_release(cell, 0);
  }
}

void cfn_inbox_tell_freed(cfn_inbox_t *in) {
  cfn_slab_tell(in->region, &in->freed);
  /* All classes: who was refused because this inbox had its fair part may wait for another class than what it held. */
  for (unsigned c = 0; c < CFN_CLASSES; c++) cfn_event_ring_futex(&cfn_state(in->region)->class_room[c].event);
}

void cfn_inbox_announce(cfn_inbox_t *in, bool now) {
  cfn_event_shm_t *space = &cfn_mailbox(in->region, in->mailbox)->space.event;
  uint32_t freed = 0, most = UINT32_MAX;
  /* seq_cst, after R5: the Dekker pair with a sender that armed and saw the lane full */
  bool wanted = cfn_load_seq(&space->word) & CFN_EVENT_ANY;
  if (!now && !wanted) return;
  for (unsigned i = 0; i < CFN_LANES; i++) {
    uint32_t enough = in->region->geo.config.lane_slots[i] / 4 * 3;
    freed += in->lane[i].freed;
    if (in->lane[i].freed >= enough && enough < most) most = enough;
  }
  /* Before sleeping the holder rings also for slots that others emptied: a fenced reader that made R5
   * and died before its own ring left senders asleep beside free slots (models/space.pml). */
  if (now) {
    cfn_inbox_tell_freed(in);
    cfn_event_ring_futex(space);
    freed = 0;
    for (unsigned i = 0; i < CFN_LANES; i++) in->lane[i].freed = 0;
  }
  if (freed == 0) return;
  /* Waking one sender for each slot would cost a system call a message; waiting for most of the lane would let them
   * sleep beside a slow reader. So: most of it (a quarter is left to read while the first of them wakes up), or the last
   * ring is long ago. */
  uint64_t clock = cfn_os_coarse_ns();
  if (most == UINT32_MAX && clock - in->room_rung_ns < ROOM_RING_NS) return;
  in->room_rung_ns = clock;
  cfn_event_ring_some(space, 1); /* who is woken passes it on, see bus_send.c */
  for (unsigned i = 0; i < CFN_LANES; i++) in->lane[i].freed = 0;
}

/* ---- take: R2, R3, R4 ---- */

/* Are all messages of a frame of several acked? By the bits, not by what we counted: one bit may come
 * late from a reader that we took the inbox from. */
static bool frame_whole(const cfn_chunk_shm_t *chunk, uint32_t messages) {
  for (uint32_t j = 0; j < messages; j++)
    if (!cfn_frame_acked(chunk, j)) return false;
  return true;
}

/* How often what another reader had leased has been leased now. */
static uint8_t count_delivery(cfn_chunk_shm_t *chunk, uint64_t own, uint64_t mine) {
  uint64_t w = cfn_load_relaxed(&chunk->delivery); /* relaxed: a number that is nothing without the version beside it */
  unsigned before = cfn_delivery_count(w, own), now = before < 255 ? before + 1 : 255;
  /* dies here: the next one sees that a lease is missing. Slept here: the word is of a later lease, and stays */
  if (cfn_delivery_ver(w) < cfn_own_ver(mine)) cfn_cas_release(&chunk->delivery, w, cfn_delivery_word(cfn_own_ver(mine), now));
  return (uint8_t)now;
}

static int lease_start(cfn_inbox_t *in, unsigned lane, uint64_t position, uint32_t k, uint64_t own, uint8_t deliveries) {
  const cfn_region_t *r = in->region;
  cfn_lease_t *l = lease_new(in);
  if (!l) return CFN_NO_MEMORY;
  uint32_t i = (uint32_t)(l - in->lease);
  if (cfn_frame_read(r, k, cfn_chunk(r, k), &l->frame) < 0) {
    lease_reset(in, i);
    return CFN_CORRUPT;
  }
  l->frame.deliveries = deliveries;
  l->own = own;
  l->position = position;
  l->chunk = k;
  l->count = l->frame.count;
  l->lane = (uint8_t)lane;
  in->lane[lane].bytes = l->frame.bytes;
  l->next = 0;
  l->fresh = true;
  if (l->count > 1) {
    if (!l->offsets) l->offsets = malloc(CFN_FRAME_MESSAGES * sizeof *l->offsets);
    if (!l->offsets) {
      lease_reset(in, i);
      return CFN_NO_MEMORY;
    }
    if (cfn_frame_index(&l->frame, l->offsets) < 0) {
      lease_reset(in, i);
      return CFN_CORRUPT;
    }
    if (frame_whole(cfn_chunk(r, k), l->count)) { /* an earlier reader acked all of it and died before DONE */
      cfn_cas_seq(&cfn_chunk(r, k)->own, own, cfn_own_next(own, CFN_DONE, in->me));
      lease_reset(in, i);
      move_head(in, lane);
      return CFN_AGAIN;
    }
    /* Bounded: a reader that was stolen from may set the last bit after frame_whole looked. */
    while (l->next < l->count && cfn_frame_acked(cfn_chunk(r, k), l->next)) l->next++;
  }
  in->lane[lane].current = i + 1;
  return CFN_OK;
}

/* Nothing is at the cursor. Is that true? The tail passes a position only when its slot is filled: a slot that is
 * not, below the tail, was damaged, and would hold up everything behind it for ever. It is passed over and counted.
 * A tail that is off by more than a lap is put to where we are; senders help it on from there. True: look again. */
static bool pass_damage(cfn_inbox_t *in, unsigned lane, const cfn_ring_t *q, uint64_t p, cfn_a64 *slot, uint64_t w) {
  uint64_t tail = cfn_load_seq(q->tail), slots = cfn_ring_slots(q);
  if (tail == p || cfn_load_seq(slot) != w) return false; /* the slot AFTER the tail: it may have been filled by now */
  if (cfn_inbox_fenced(in)) return false;
  if (tail > p && tail - p <= slots) {
    if (!cfn_cas_seq(slot, w, cfn_slot_word((cfn_ring_lap(q, p) + 1) & CFN_LAP_MASK, 0))) return false;
    cfn_add_relaxed(&cfn_state(in->region)->corrupt_dropped, 1);
    count(in, CFN_COUNT_CORRUPT, 1);
    in->lane[lane].freed++;
    in->lane[lane].cursor++;
    return true;
  }
  if (tail > p || p - tail > slots) cfn_cas_seq(q->tail, tail, p);
  return false;
}

/* Leases the frame at the lane's cursor. CFN_OK, CFN_EMPTY, CFN_AGENT_FENCED, CFN_NO_MEMORY. */
static int take(cfn_inbox_t *in, unsigned lane) {
  const cfn_region_t *r = in->region;
  cfn_ring_t q = cfn_ring_of_lane(r, in->mailbox, lane);
  bool skipped = false;
  for (uint32_t tries = 0; tries < 4 * cfn_ring_slots(&q) + 64; tries++) {
    uint64_t p = in->lane[lane].cursor;
    cfn_a64 *slot = cfn_ring_slot(&q, p);
    uint64_t w = cfn_load_seq(slot); /* R2; acquire half pairs with the COMMIT */
    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, p));
    if (ahead > 0) {
      in->lane[lane].cursor++;
      continue;
    }
    uint32_t ref = cfn_slot_ref(w);
    if (ahead < 0 || ref == 0) {
      if (!in->hasty && pass_damage(in, lane, &q, p, slot, w)) {
        skipped = true;
        continue;
      }
      if (skipped) move_head(in, lane);
      in->lane[lane].watch = slot;
      in->lane[lane].idle = w;
      return CFN_EMPTY;
    }
    if (ref > r->geo.chunks) {
      drop_corrupt(in, lane, slot, w);
      if (cfn_inbox_fenced(in)) return CFN_AGENT_FENCED;
      continue;
    }
    cfn_chunk_shm_t *chunk = cfn_chunk(r, ref - 1);
    uint64_t own = cfn_load_acquire(&chunk->own); /* R3 */
    if (cfn_load_seq(slot) != w) continue; /* own belongs to w's message only if w is still there */
    unsigned state = cfn_own_state(own);
    if (state == CFN_DONE) { /* acked by an earlier reader; the head move may be ours to finish */
      in->lane[lane].cursor++;
      skipped = true;
      continue;
    }
    if (cfn_inbox_fenced(in)) return CFN_AGENT_FENCED; /* the authority, LAST */
    if (state != CFN_MINE && state != CFN_TAKEN) { /* FREE and referenced: damage */
      if (cfn_load_seq(&chunk->own) == own) drop_corrupt(in, lane, slot, w);
      continue;
    }
    uint64_t mine = cfn_own_next(own, CFN_TAKEN, in->me);
    if (!cfn_cas_seq(&chunk->own, own, mine)) continue; /* R4; lost: look again */
    in->lane[lane].cursor++;
    uint32_t next = cfn_slot_ref(cfn_load_relaxed(cfn_ring_slot(&q, p + 2)));
    if (next && next <= r->geo.chunks) cfn_slab_prefetch(r, next - 1, cfn_chunk_class(r, next - 1), in->lane[lane].bytes);
    uint8_t deliveries = state == CFN_TAKEN ? count_delivery(chunk, own, mine) : 1;
    int r2 = lease_start(in, lane, p, ref - 1, mine, deliveries);
    if (r2 == CFN_CORRUPT) { /* its outline makes no sense: drop it and say so */
      if (cfn_cas_seq(&chunk->own, mine, cfn_own_next(mine, CFN_DONE, in->me))) {
        cfn_add_relaxed(&cfn_state(r)->corrupt_dropped, 1);
        count(in, CFN_COUNT_CORRUPT, 1);
      }
      move_head(in, lane);
      continue;
    }
    if (r2 == CFN_AGAIN) continue;
    if (r2 == CFN_NO_MEMORY) in->lane[lane].cursor--;
    if (skipped) move_head(in, lane);
    return r2;
  }
  return CFN_EMPTY; /* bounded: a ring that changes this fast is looked at again by the caller */
}

/* Passes over what a reader before us acked, perhaps only just now. False: nothing is left to hand out. */
static bool skip_acked(cfn_inbox_t *in, unsigned lane, uint32_t i) {
  cfn_lease_t *l = &in->lease[i];
  cfn_chunk_shm_t *chunk = cfn_chunk(in->region, l->chunk);
  while (l->next < l->count && cfn_frame_acked(chunk, l->next)) l->next++;
  if (l->next < l->count) return true;
  in->lane[lane].current = 0;
  if (frame_whole(chunk, l->count)) {
    cfn_cas_seq(&chunk->own, l->own, cfn_own_next(l->own, CFN_DONE, in->me));
    lease_reset(in, i);
    move_head(in, lane);
  }
  return false;
}

/* What comes next of the lane's current lease, up to what is acked already: CFN_OK, or CFN_AGAIN (look once more). */
static int run_of(cfn_inbox_t *in, unsigned lane, uint32_t most, cfn_run_t *out) {
  uint32_t i = in->lane[lane].current - 1;
  cfn_lease_t *l = &in->lease[i];
  if (l->count > 1 && !skip_acked(in, lane, i)) return CFN_AGAIN;
  const cfn_chunk_shm_t *chunk = cfn_chunk(in->region, l->chunk);
  uint32_t n = 1, left = l->count - l->next;
  while (n < most && n < left && !cfn_frame_acked(chunk, l->next + n)) n++;
  *out = (cfn_run_t){.frame = &l->frame, .offsets = l->count > 1 ? l->offsets : NULL, .position = l->position,
                     .lease = i, .first = l->next, .count = n, .lane = (uint8_t)lane};
  return CFN_OK;
}

/* One bad record spoils its frame: the lengths beside it cannot be trusted either. */
static void drop_rest(cfn_inbox_t *in, const cfn_run_t *run) {
  cfn_lease_t *l = &in->lease[run->lease];
  if (cfn_cas_seq(&cfn_chunk(in->region, l->chunk)->own, l->own, cfn_own_next(l->own, CFN_DONE, in->me))) {
    cfn_add_relaxed(&cfn_state(in->region)->corrupt_dropped, l->count - l->next);
    count(in, CFN_COUNT_CORRUPT, l->count - l->next);
  }
  lease_reset(in, run->lease);
  move_head(in, run->lane);
}

/* The next lease that was put back becomes the current one. False: there is none. */
static bool take_again(cfn_inbox_t *in, unsigned lane) {
  while (in->lane[lane].again) {
    uint32_t i = in->lane[lane].again - 1;
    cfn_lease_t *l = &in->lease[i];
    in->lane[lane].again = l->next_free;
    l->queued = false;
    if (l->next < l->count) {
      in->lane[lane].current = i + 1;
      return true;
    }
  }
  return false;
}

/* Does the slot at the cursor still say what it said when nothing was there? One load, of three lanes a message. */
static bool lane_idle(const cfn_inbox_t *in, unsigned lane) {
  const cfn_inbox_lane_t *l = &in->lane[lane];
  if (in->looks % LOOKS_PAST_IDLE == 0) return false; /* a damaged slot must not hold its lane up while others are busy */
  return l->watch && !l->current && !l->again && cfn_load_seq(l->watch) == l->idle;
}

static int run_of_lane(cfn_inbox_t *in, unsigned lane, uint32_t most, cfn_run_t *out) {
  for (;;) {
    if (!in->lane[lane].current && !take_again(in, lane)) {
      in->lane[lane].watch = NULL;
      int r = take(in, lane);
      if (r < 0) return r;
    }
    if (run_of(in, lane, most, out) != CFN_OK) continue;
    if (cfn_run_record(out, 0, &out->record) == CFN_OK) return CFN_OK;
    drop_rest(in, out);
  }
}

int cfn_inbox_run(cfn_inbox_t *in, unsigned lanes, uint32_t most, cfn_run_t *out) {
  unsigned passed_over = 0;
  if (++in->looks % LOOKS_PAST_IDLE == 0) in->hasty = false; /* the same, for a reader who always finds something else */
  for (unsigned lane = 0; lane < CFN_LANES; lane++) {
    if (!(lanes >> lane & 1)) continue;
    if (lane_idle(in, lane)) {
      passed_over |= 1u << lane;
      continue;
    }
    int r = run_of_lane(in, lane, most, out);
    if (r != CFN_EMPTY) return r;
  }
  /* Nothing else is there: time to look whether the idle ones are only damaged (pass_damage). */
  for (unsigned lane = 0; lane < CFN_LANES && !in->hasty; lane++) {
    if (!(passed_over >> lane & 1)) continue;
    int r = run_of_lane(in, lane, most, out);
    if (r != CFN_EMPTY) return r;
  }
  return CFN_EMPTY;
}

cfn_token_t cfn_run_token(const cfn_inbox_t *in, const cfn_run_t *run, uint32_t i) {
  return TOKEN(in->lease[run->lease].generation, run->lease, run->first + i);
}

int cfn_inbox_hand_out(cfn_inbox_t *in, const cfn_run_t *run, uint32_t n, uint32_t *redelivered) {
  cfn_lease_t *l = &in->lease[run->lease];
  const cfn_chunk_shm_t *chunk = cfn_chunk(in->region, l->chunk);
  uint32_t end = run->first + n;
  uint64_t place = cfn_place(l->position, run->first);
  uint64_t next = end < l->count ? cfn_place(l->position, end) : cfn_place(l->position + 1, 0);
  /* Once for all of them: nobody has any of them yet. */
  uint64_t before = cfn_max_seq(&lane_words(in, run->lane)->seen, next);
  if (l->fresh) l->seen_before = before; /* for the later ones of the frame: what was seen then */
  l->fresh = false;
  cfn_event_ring_futex(&cfn_mailbox(in->region, in->mailbox)->acks.event); /* who waits for "seen" */
  uint32_t again = place >= l->seen_before ? 0 : l->seen_before - place < n ? (uint32_t)(l->seen_before - place) : n;
  while (end < l->count && cfn_frame_acked(chunk, end)) end++;
  l->next = end;
  if (end == l->count) in->lane[run->lane].current = 0;
  count(in, CFN_COUNT_RECEIVED, n);
  if (again) count(in, CFN_COUNT_REDELIVERED, again);
  *redelivered = again;
  /* LAST: after the copies were made, and after the mark that they were handed out. They are good, and the next reader
   * will know of them, only if the lease still holds. (The mark is no barrier: if they were marked before, it is a load.) */
  cfn_reads_over();
  if (cfn_inbox_still_mine(in, cfn_run_token(in, run, 0))) return CFN_OK;
  count(in, CFN_COUNT_RECEIVED, -(uint64_t)n);
  if (again) count(in, CFN_COUNT_REDELIVERED, -(uint64_t)again);
  return CFN_AGENT_FENCED;
}

bool cfn_inbox_ready(cfn_inbox_t *in, unsigned lanes) {
  for (unsigned lane = 0; lane < CFN_LANES; lane++) {
    if (!(lanes >> lane & 1)) continue;
    if (in->lane[lane].current || in->lane[lane].again) return true;
    cfn_ring_t q = cfn_ring_of_lane(in->region, in->mailbox, lane);
    uint64_t p = in->lane[lane].cursor;
    uint64_t w = cfn_load_seq(cfn_ring_slot(&q, p));
    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, p));
    if (ahead > 0 || (ahead == 0 && cfn_slot_ref(w))) return true;
  }
  return false;
}

/* ---- ack ---- */

static cfn_lease_t *lease_of(const cfn_inbox_t *in, cfn_token_t token) {
  uint32_t i = TOKEN_LEASE(token);
  if (i >= in->leases) return NULL;
  cfn_lease_t *l = &in->lease[i];
  if (!l->own || TOKEN_OF_GENERATION(l->generation) != TOKEN_GENERATION(token)) return NULL;
  return TOKEN_INDEX(token) < l->next ? l : NULL;
}

bool cfn_inbox_still_mine(const cfn_inbox_t *in, cfn_token_t token) {
  uint32_t i = TOKEN_LEASE(token);
  if (i >= in->leases || !in->lease[i].own) return false;
  return cfn_load_seq(&cfn_chunk(in->region, in->lease[i].chunk)->own) == in->lease[i].own;
}

int cfn_inbox_record(const cfn_inbox_t *in, cfn_token_t token, cfn_record_t *out) {
  cfn_lease_t *l = lease_of(in, token);
  if (!l || !cfn_inbox_still_mine(in, token)) return CFN_INVALID;
  uint32_t index = TOKEN_INDEX(token);
  return cfn_frame_record(&l->frame, l->count > 1 ? l->offsets[index] : cfn_frame_first(&l->frame), out);
}

static void queue_again(cfn_inbox_t *in, uint32_t i) {
  cfn_lease_t *l = &in->lease[i];
  l->queued = true;
  l->next_free = in->lane[l->lane].again;
  in->lane[l->lane].again = i + 1;
}

int cfn_inbox_put_back(cfn_inbox_t *in, cfn_token_t token) {
  cfn_lease_t *l = lease_of(in, token);
  if (!l) return CFN_INVALID;
  uint32_t index = TOKEN_INDEX(token), following = index + 1;
  cfn_inbox_lane_t *lane = &in->lane[l->lane];
  while (following < l->count && cfn_frame_acked(cfn_chunk(in->region, l->chunk), following)) following++;
  if (l->next != following) return CFN_AGAIN; /* rewinding would hand those out twice */
  l->next = index;
  if (lane->current == TOKEN_LEASE(token) + 1 || l->queued) return CFN_OK;
  if (lane->current) queue_again(in, lane->current - 1); /* it was to come after this one */
  lane->current = 0;
  queue_again(in, TOKEN_LEASE(token));
  return CFN_OK;
}

/* Sets the bits of messages first to first + n - 1 of a frame of several; *set = how many were not set before. CFN_OK, or
 * CFN_AGENT_FENCED: the frame is another reader's. */
static int ack_parts(cfn_inbox_t *in, cfn_lease_t *l, uint32_t first, uint32_t n, uint32_t *set) {
  cfn_chunk_shm_t *chunk = cfn_chunk(in->region, l->chunk);
  *set = 0;
  while (n) {
    uint32_t at = first % CFN_PART_MESSAGES, some = CFN_PART_MESSAGES - at < n ? CFN_PART_MESSAGES - at : n;
    cfn_a64 *part = &chunk->part[first / CFN_PART_MESSAGES];
    uint32_t bits = ((UINT32_C(1) << some) - 1) << at, missing;
    for (;;) {
      uint64_t w = cfn_load_seq(part);
      /* AFTER the load: while own is exactly our word, the part word is this frame's. A thief that comes
       * between this and the CAS is handed a message that we did process: twice, marked. */
      if (cfn_load_seq(&chunk->own) != l->own) return CFN_AGENT_FENCED;
      missing = bits & ~cfn_part_acked(w);
      if (!missing || cfn_cas_seq(part, w, w | missing)) break;
    }
    /* dies here: acked as far as the bits say; the rest of the batch comes again */
    *set += (uint32_t)__builtin_popcount(missing);
    first += some;
    n -= some;
  }
  return CFN_OK;
}

int cfn_inbox_ack(cfn_inbox_t *in, cfn_token_t token, uint32_t n) {
  cfn_lease_t *l = lease_of(in, token);
  uint32_t first = TOKEN_INDEX(token), set = 1;
  if (!l || n == 0 || n > l->next - first) return CFN_INVALID;
  unsigned lane = l->lane;
  const cfn_chunk_shm_t *chunk = cfn_chunk(in->region, l->chunk);
  bool bits = false; /* ours were set, whoever has the frame now */
  if (n < l->count) {
    if (ack_parts(in, l, first, n, &set) != CFN_OK) goto fenced;
    bits = set > 0;
    if (!frame_whole(chunk, l->count)) {
      if (!set) return CFN_INVALID;
      count(in, CFN_COUNT_ACKED, set);
      cfn_event_ring_futex(&cfn_mailbox(in->region, in->mailbox)->acks.event);
      return CFN_OK;
    }
  } else if (n > 1) { /* all of it: the one word below says so, and no bits are needed */
    set = n;
    for (uint32_t j = 0; j < n; j++) set -= cfn_frame_acked(chunk, j);
  }
  bool done = cfn_cas_seq(&cfn_chunk(in->region, l->chunk)->own, l->own, cfn_own_next(l->own, CFN_DONE, in->me));
  /* A bit of ours was the last: the ack has taken effect, though a thief may have made the frame DONE. */
  if (!done && !bits) goto fenced;
  /* dies here: DONE and referenced; the next ack, take or skip moves the head */
  count(in, CFN_COUNT_ACKED, set);
  lease_reset(in, TOKEN_LEASE(token));
  move_head(in, lane);
  cfn_event_ring_futex(&cfn_mailbox(in->region, in->mailbox)->acks.event);
  cfn_inbox_announce(in, false);
  return CFN_OK;
fenced:
  lease_reset(in, TOKEN_LEASE(token));
  if (n < l->count && set) cfn_event_ring_futex(&cfn_mailbox(in->region, in->mailbox)->acks.event); /* the bits hold */
  return CFN_AGENT_FENCED;
}

bool cfn_tokens_follow(cfn_token_t token, cfn_token_t next) { return next == token + 1 && TOKEN_INDEX(next) != 0; }

/* ---- looking without touching ---- */

/* These read what another process may be rewriting; the caller re-checks before it believes. */
__attribute__((no_sanitize("thread"))) static void copy_racy(void *to, const void *from, size_t n) {
  const volatile uint64_t *f = from;
  uint64_t *t = to;
  for (size_t i = 0; i < (n + 7) / 8; i++) t[i] = cfn_plain_load(&f[i]);
}
__attribute__((no_sanitize("thread"))) static uint32_t count_racy(const cfn_chunk_shm_t *chunk) {
  return cfn_plain_load((const volatile uint32_t *)&chunk->count);
}

uint64_t cfn_lane_depth(const cfn_region_t *r, uint32_t mailbox, unsigned lane) {
  cfn_ring_t q = cfn_ring_of_lane(r, mailbox, lane);
  uint64_t depth = 0, h = cfn_load_seq(q.head);
  for (uint32_t i = 0; i < cfn_ring_slots(&q); i++, h++) {
    uint64_t w = cfn_load_seq(cfn_ring_slot(&q, h));
    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, h));
    if (ahead > 0) continue;
    uint32_t ref = cfn_slot_ref(w);
    if (ahead < 0 || ref == 0) break;
    if (ref > r->geo.chunks) continue;
    cfn_chunk_shm_t *chunk = cfn_chunk(r, ref - 1);
    uint64_t own = cfn_load_seq(&chunk->own);
    if (cfn_own_state(own) == CFN_DONE || cfn_own_state(own) == CFN_FREE) continue;
    uint32_t n = count_racy(chunk);
    cfn_reads_over();
    uint32_t acked = 0;
    for (uint32_t j = 0; n > 1 && n <= CFN_FRAME_MESSAGES && j < n; j++)
      acked += cfn_frame_acked(chunk, j);
    if (cfn_load_seq(&chunk->own) != own || n > CFN_FRAME_MESSAGES) continue;
    depth += n - acked;
  }
  return depth;
}

int cfn_lane_peek(const cfn_region_t *r, uint32_t mailbox, unsigned lane, uint8_t *buffer,
                  void (*visit)(void *context, const cfn_peek_t *peek), void *context) {
  cfn_ring_t q = cfn_ring_of_lane(r, mailbox, lane);
  cfn_lane_shm_t *words = &cfn_mailbox(r, mailbox)->lane[lane];
  uint64_t h = cfn_load_seq(q.head);
  int seen = 0;
  for (uint32_t i = 0; i < cfn_ring_slots(&q); i++, h++) {
    cfn_a64 *slot = cfn_ring_slot(&q, h);
    uint64_t w = cfn_load_seq(slot);
    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, h));
    if (ahead > 0) continue;
    uint32_t ref = cfn_slot_ref(w);
    if (ahead < 0 || ref == 0) break;
    if (ref > r->geo.chunks) continue;
    cfn_chunk_shm_t *chunk = cfn_chunk(r, ref - 1);
    uint64_t own = cfn_load_seq(&chunk->own);
    unsigned state = cfn_own_state(own);
    if (state != CFN_MINE && state != CFN_TAKEN) continue;
    cfn_peek_t peek = {.position = h, .lane = lane, .own_state = state};
    _Alignas(8) cfn_chunk_shm_t meta;
    copy_racy(&meta, chunk, sizeof meta);
    if (cfn_frame_read(r, ref - 1, &meta, &peek.frame) < 0) continue;
    copy_racy(buffer, peek.frame.payload, peek.frame.bytes);
    peek.frame.payload = buffer;
    if (state == CFN_TAKEN) peek.frame.deliveries = (uint8_t)cfn_delivery_count(cfn_load_relaxed(&chunk->delivery), own);
    for (unsigned part = 0; peek.frame.count > 1 && part < CFN_FRAME_PARTS; part++)
      peek.part[part] = cfn_part_acked(cfn_load_seq(&chunk->part[part]));
    peek.seen = cfn_load_seq(&words->seen);
    cfn_reads_over();
    if (cfn_load_seq(slot) != w || cfn_load_seq(&chunk->own) != own) continue; /* LAST */
    visit(context, &peek);
    seen++;
  }
  return seen;
}
