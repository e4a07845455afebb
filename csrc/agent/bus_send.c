/* Sending through a handle: post, and wait for room where there is none. */
#include <stdlib.h>
#include <string.h>

#include "agent/bus.h"
#include "base/os.h"
#include "mem/directory.h"

#define MOST_CONTENDED 256
#define SCAN_NS 50000000u
#define COPY_ONCE 8192u /* bytes of a body that several get: one object is cheaper than a copy for each */

static const char *const lane_names[CFN_LANES] = {"control", "high", "normal", "low"};

uint64_t cfn_bus_largest_body(cfn_bus_t *bus) {
  uint64_t in_chunk = bus->largest - cfn_pad8(strlen(bus->agent)) - sizeof(cfn_record_shm_t);
  uint64_t in_heap = (uint64_t)bus->region->geo.config.object_pages * CFN_PAGE;
  if (in_heap > UINT32_MAX) in_heap = UINT32_MAX; /* what a header can say */
  return in_chunk > in_heap ? in_chunk : in_heap;
}

static int fail_too_large(cfn_bus_t *bus, uint64_t bytes) {
  return cfn_fail(CFN_TOO_LARGE, cfn_slab_largest(bus->region), (int64_t)bytes,
                  "the message needs %llu bytes with its header and the largest chunk of bus '%s' "
                  "holds %u, which is a body of %llu; split it, or pass a file name",
                  (unsigned long long)bytes, bus->region->name, cfn_slab_largest(bus->region),
                  (unsigned long long)cfn_bus_largest_body(bus));
}

static int fail_full(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane, bool waited) {
  char name[CFN_NAME_BYTES];
  cfn_record_name(bus->region, to->index, name);
  uint64_t depth = cfn_lane_depth(bus->region, to->index, lane);
  return cfn_fail(CFN_FULL, bus->region->geo.config.lane_slots[lane], (int64_t)depth,
                  "%s: the %s lane of '%s' is full (%u places, %llu messages unread); %s",
                  waited ? "timed out waiting for room" : "no room", lane_names[lane], name,
                  bus->region->geo.config.lane_slots[lane], (unsigned long long)depth,
                  cfn_bus_excuse(bus, to->index));
}

static int fail_no_space(cfn_bus_t *bus, unsigned cls) {
  uint32_t free_now = cfn_slab_free_hint(bus->region, cls);
  return cfn_fail(CFN_NO_SPACE, free_now, 1,
                  "bus '%s' has %u chunks of %u bytes and %u are free (a part is kept for control "
                  "messages and replies, and a full inbox gets no more of what is scarce); read the "
                  "full inboxes, or create the bus larger (CFNSHM_SIZE)",
                  bus->region->name, bus->region->geo.config.class_chunks[cls],
                  bus->region->geo.config.class_bytes[cls], free_now);
}

typedef struct sending {
  cfn_bus_t *bus;
  cfn_route_t route;
  const cfn_address_t *to; /* the agent, or NULL for a reply */
  uint64_t deadline;
  uint64_t first_sequence; /* of the frame, once it is posted */
  bool reaped, waited;
} sending_t;

static cfn_event_shm_t *space_of(const sending_t *s) {
  return s->to ? &cfn_mailbox(s->bus->region, s->route.index)->space.event
               : &cfn_attachment(s->bus->region, s->route.index)->reply_space;
}

/* May this shortage look for the dead among all attachments? Hundreds that run short at once would spend the machine
 * on it; one of them is enough, and rings the others if it finds something. (A clock that is ahead, of another time
 * namespace, counts as long ago.) */
static bool scan_due(const cfn_region_t *r) {
  cfn_a64 *word = &cfn_state(r)->scanned_ns;
  uint64_t last = cfn_load_relaxed(word), now = cfn_os_coarse_ns();
  return (last == 0 || last > now || now - last >= SCAN_NS) && cfn_cas_acqrel(word, last, now | 1);
}

/* No room: arms what will tell of room, looks again, sleeps. CFN_OK: try again. Called with the lock
 * held, returns without it. */
static int wait_for_room(sending_t *s, int why, unsigned cls, const cfn_outgoing_t *messages,
                         uint32_t n, uint64_t *position) {
  cfn_bus_t *bus = s->bus;
  cfn_event_shm_t *event =
      why == CFN_FULL ? space_of(s) : &cfn_state(bus->region)->class_room[cls].event;
  if (s->deadline == CFN_TRY) {
    cfn_bus_leave(bus);
    return why;
  }
  if (why == CFN_NO_SPACE && !s->reaped && scan_due(bus->region)) { /* first ask the dead for what they left */
    s->reaped = true;
    if (cfn_reap_all(&bus->actor) > 0) {
      cfn_bus_leave(bus);
      return CFN_OK;
    }
  }
  if (cfn_deadline_passed(s->deadline)) {
    int r = why;
    if (why == CFN_NO_SPACE) {
      fail_no_space(bus, cls);
    } else if (s->to) {
      r = fail_full(bus, s->to, s->route.lane, s->deadline != 0);
    } else {
      r = cfn_fail(CFN_FULL, CFN_REPLY_SLOTS, 0, "the asker has %u unread replies", CFN_REPLY_SLOTS);
    }
    cfn_bus_leave(bus);
    return r;
  }
  cfn_slab_return_hints(bus->region, &bus->outbox.cursor); /* or the census below would not see them */
  uint32_t armed = cfn_event_arm(event);
  /* AFTER arming: what became free before is seen here, what becomes free later rings us. A census of before would hide
   * it: who is told that chunks are scarce would sleep beside free ones until its tick. */
  bus->outbox.until_census[cls] = 0;
  unsigned again_cls;
  int again = cfn_outbox_post(&bus->outbox, &s->route, messages, n, position, &again_cls);
  s->first_sequence = bus->outbox.sequence - n + 1;
  if (again != why || (why == CFN_NO_SPACE && again_cls != cls)) {
    cfn_bus_leave(bus);
    return again == CFN_OK ? 1 : CFN_OK;
  }
  s->waited = true;
  cfn_slab_return_hints(bus->region, &bus->outbox.cursor);
  int r = cfn_bus_sleep(bus, event, armed, why == CFN_FULL ? CFN_WAIT_SPACE : CFN_WAIT_CHUNKS,
                        why == CFN_FULL ? s->route.index : cls, s->to, s->deadline);
  if (!s->to && r != CFN_OK && cfn_bus_enter(bus) == CFN_OK) { /* has the asker died meanwhile? */
    cfn_reap_if_dead(&bus->actor, s->route.index);
    cfn_bus_leave(bus);
  }
  return r == CFN_TIMEOUT ? CFN_OK : r; /* look once more before saying so */
}

/* Who was woken because there was room, and leaves some, wakes the next: the reader wakes one sender at a
 * time, for hundreds woken at once would only push each other and the reader off the cores. If we die
 * before this, the reader's next ring (the last of them wakes everybody) does it. */
static void pass_on(const sending_t *s) {
  cfn_ring_t q = s->to ? cfn_ring_of_lane(s->bus->region, s->route.index, s->route.lane)
                       : cfn_ring_of_replies(s->bus->region, s->route.index);
  if (!cfn_ring_full(&q)) cfn_event_ring_some(space_of(s), 1);
}

/* Posts, waiting for room. CFN_OK, CFN_STALE or an error. */
static int post(sending_t *s, const cfn_outgoing_t *messages, uint32_t n, uint64_t *position) {
  cfn_bus_t *bus = s->bus;
  for (int contended = 0;;) {
    int r = s->deadline == CFN_TRY ? cfn_bus_try_enter(bus) : cfn_bus_enter(bus);
    if (r < 0) return r;
    unsigned cls = 0;
    if (s->to && (s->to->index >= bus->region->geo.config.agents || s->route.lane >= CFN_LANES)) {
      cfn_bus_leave(bus);
      return cfn_fail(CFN_INVALID, 0, s->route.lane, "bad address or lane");
    }
    r = cfn_outbox_post(&bus->outbox, &s->route, messages, n, position, &cls);
    if (r == CFN_FULL || r == CFN_NO_SPACE) {
      if (r == CFN_FULL) cfn_bus_count(bus, CFN_COUNT_FULL, 1);
      r = wait_for_room(s, r, cls, messages, n, position);
      if (r == CFN_OK) continue;
      if (r < 0) return r;
      if (cfn_bus_enter(bus) < 0) return CFN_OK; /* posted while looking again, and closed since */
      r = CFN_OK;
    } else if (r == CFN_OK) {
      s->first_sequence = bus->outbox.sequence - n + 1;
    } else if (r == CFN_TOO_LARGE) {
      fail_too_large(bus, cfn_outbox_frame_bytes(&bus->outbox, messages, n));
    } else if (r == CFN_AGAIN) {
      cfn_bus_leave(bus);
      if (++contended == MOST_CONTENDED || cfn_deadline_passed(s->deadline))
        return cfn_fail(r, 0, 0, "the lane changes faster than a message can be put into it, or its "
                        "words are damaged (cfnshm doctor)");
      cfn_os_yield();
      continue;
    }
    if (cfn_region_lost(bus->region)) r = cfn_bus_lost(bus); /* into zeroes of our own */
    if (r == CFN_OK && s->waited) pass_on(s);
    if (r == CFN_OK && bus->mailbox && s->to)
      cfn_add_relaxed(&cfn_mailbox(bus->region, bus->mailbox - 1)->sent, n);
    cfn_bus_leave(bus);
    return r;
  }
}

/* ---- bodies that no chunk holds: objects of the heap, held by the message ---- */

/* The body as an object, held by *h alone. `sole`: one message will have it. */
static int store_body(cfn_bus_t *bus, const cfn_outgoing_t *m, bool sole, cfn_outgoing_t *out, cfn_hold_t *h, cfn_filling_t *f) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  if (cfn_load_relaxed(&cfn_state(bus->region)->object_messages) == 0)
    cfn_store_seq(&cfn_state(bus->region)->object_messages, 1); /* a collector looks at chunks from now on */
  r = cfn_bus_store_begin(bus, m->body_bytes, h, f);
  if (r == CFN_OK) {
    if (m->head_bytes) cfn_copy_in(f->data, m->head, m->head_bytes);
    cfn_copy_in(f->data + m->head_bytes, m->body, m->body_bytes - m->head_bytes);
    r = cfn_bus_store_end(bus, NULL, m->codec, h, f);
  }
  if (r == CFN_OK) {
    *out = *m;
    out->flags |= CFN_MESSAGE_OBJECT;
    out->object_blob = f->blob;
    out->object_life = cfn_load_relaxed(&cfn_blob_record(bus->region, f->blob)->life);
    out->object_sole = sole;
  }
  return cfn_bus_left(bus, r);
}

/* So many messages have it: our own hold on it ends. What is about to be reported is kept. */
static void let_go_of_body(cfn_bus_t *bus, uint64_t sent, cfn_hold_t *h, cfn_filling_t *f) {
  const cfn_failure_t keep = *cfn_last_failure();
  if (cfn_bus_enter(bus) == CFN_OK) {
    if (sent) cfn_bus_count(bus, CFN_COUNT_SENT_BYTES, sent * f->bytes);
    else cfn_heap_abandon(bus->region, f);
    cfn_ledger_clear(h); /* AFTER the chunk has it */
    cfn_bus_leave(bus);
  }
  if (!sent && keep.code) cfn_fail(keep.code, keep.have, keep.want, "%s", keep.text);
}

static bool fits_chunk(const cfn_bus_t *bus, const cfn_outgoing_t *m) {
  return cfn_frame_head_bytes(bus->outbox.source.name_bytes, 1) + cfn_record_bytes(m) <= bus->largest;
}

static int check_heads(const cfn_outgoing_t *messages, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (messages[i].head_bytes > messages[i].body_bytes)
      return cfn_fail(CFN_INVALID, messages[i].body_bytes, messages[i].head_bytes,
                      "a body of %u bytes cannot begin with %u bytes", messages[i].body_bytes, messages[i].head_bytes);
  return CFN_OK;
}

/* Posts; a single message whose body no chunk holds goes by way of the heap. */
static int post_any(sending_t *s, const cfn_outgoing_t *messages, uint32_t n, uint64_t *position) {
  if (check_heads(messages, n) < 0) return CFN_INVALID;
  cfn_outgoing_t m;
  cfn_hold_t h;
  cfn_filling_t f;
  if (n != 1 || messages->flags & CFN_MESSAGE_OBJECT || fits_chunk(s->bus, messages)) return post(s, messages, n, position);
  if (s->deadline == CFN_TRY) return CFN_AGAIN; /* this takes longer than one who holds the interpreter wants to */
  int r = store_body(s->bus, messages, true, &m, &h, &f);
  if (r < 0) return r;
  /* dies here: held by our ledger alone, and gone when that is reaped */
  r = post(s, &m, 1, position);
  let_go_of_body(s->bus, r == CFN_OK, &h, &f);
  return r;
}

static int send_frame(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                      const cfn_outgoing_t *messages, uint32_t n, uint64_t deadline,
                      cfn_receipt_t *receipt) {
  sending_t s = {.bus = bus,
                 .route = {CFN_TO_MAILBOX, (uint8_t)lane, to->index, to->mid},
                 .to = to,
                 .deadline = deadline};
  uint64_t position = 0;
  int r = post_any(&s, messages, n, &position);
  if (r == CFN_STALE) cfn_fail(r, 0, 0, "the agent was unregistered meanwhile");
  if (r < 0) return r;
  if (receipt)
    *receipt = (cfn_receipt_t){.mid = to->mid,
                               .position = position,
                               .first_sequence = s.first_sequence,
                               .mailbox = to->index,
                               .count = n,
                               .lane = lane};
  return CFN_OK;
}

int cfn_bus_send(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                 const cfn_outgoing_t *messages, uint32_t n, uint64_t deadline,
                 cfn_receipt_t *receipt) {
  if (n == 0 || n > CFN_FRAME_MESSAGES)
    return cfn_fail(CFN_INVALID, CFN_FRAME_MESSAGES, n, "a frame holds 1 to %u messages, not %u",
                    CFN_FRAME_MESSAGES, n);
  return send_frame(bus, to, lane, messages, n, deadline, receipt);
}

int cfn_bus_send_one(cfn_bus_t *bus, uint32_t index, uint64_t mid, unsigned lane, unsigned codec,
                     const void *body, uint32_t body_bytes, const char *type, uint32_t type_bytes,
                     uint64_t correlation, uint64_t deadline, cfn_receipt_t *receipt) {
  if (type_bytes > CFN_TYPE_BYTES_MAX)
    return cfn_fail(CFN_INVALID, CFN_TYPE_BYTES_MAX, type_bytes,
                    "a message type has at most %u bytes, not %u", CFN_TYPE_BYTES_MAX, type_bytes);
  cfn_outgoing_t m = {.body = body, .type = type, .correlation = correlation, .body_bytes = body_bytes,
                      .type_bytes = (uint8_t)type_bytes, .codec = (uint8_t)codec,
                      .flags = correlation ? CFN_MESSAGE_REPLY : 0};
  return cfn_bus_send(bus, &(cfn_address_t){mid, index}, lane, &m, 1, deadline, receipt);
}

int cfn_bus_send_frame(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                       const cfn_outgoing_t *messages, uint32_t n, uint64_t deadline,
                       cfn_receipt_t *receipt, uint32_t *sent) {
  uint64_t largest = bus->largest; /* of the handle, not of the region: no lock is held here */
  uint64_t size = cfn_frame_head_bytes(bus->outbox.source.name_bytes, 1) + 8;
  uint32_t k = 0;
  *sent = 0;
  while (k < n && k < CFN_FRAME_MESSAGES) {
    size += 4 + cfn_record_bytes(&messages[k]);
    if (k && size > largest) break;
    k++;
  }
  int r = cfn_bus_send(bus, to, lane, messages, k, deadline, receipt);
  if (r == CFN_OK) *sent = k;
  return r;
}

int64_t cfn_bus_send_joined(cfn_bus_t *bus, const cfn_address_t *to, unsigned lane,
                            const char *type, uint32_t type_bytes, const uint8_t *bodies,
                            const uint32_t *bytes, const uint8_t *codecs, uint32_t n,
                            uint64_t deadline, cfn_receipt_t *receipts, uint32_t room,
                            uint32_t *frames, int *why) {
  *frames = 0;
  if (type_bytes > CFN_TYPE_BYTES_MAX) {
    *why = cfn_fail(CFN_INVALID, CFN_TYPE_BYTES_MAX, type_bytes,
                    "a message type has at most %u bytes, not %u", CFN_TYPE_BYTES_MAX, type_bytes);
    return 0;
  }
  cfn_outgoing_t *batch = malloc((n ? n : 1) * sizeof *batch);
  if (!batch) {
    *why = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for a batch of %u messages", n);
    return 0;
  }
  uint64_t at = 0;
  for (uint32_t i = 0; i < n; i++) {
    batch[i] = (cfn_outgoing_t){.body = bodies + at,
                                .body_bytes = bytes[i],
                                .type = type,
                                .type_bytes = (uint8_t)type_bytes,
                                .codec = codecs ? codecs[i] : CFN_CODEC_RAW};
    at += bytes[i];
  }
  uint32_t sent = 0;
  *why = CFN_OK;
  while (sent < n) {
    cfn_receipt_t receipt;
    uint32_t some;
    *why = cfn_bus_send_frame(bus, to, lane, batch + sent, n - sent, deadline, &receipt, &some);
    if (*why != CFN_OK) break;
    if (*frames < room) receipts[*frames] = receipt;
    (*frames)++;
    sent += some;
  }
  free(batch);
  return sent;
}

int cfn_bus_reply(cfn_bus_t *bus, uint32_t att, uint64_t inc, const cfn_outgoing_t *message,
                  uint64_t deadline) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  bool valid = att < bus->region->geo.config.attachments;
  cfn_bus_leave(bus);
  if (!valid) return cfn_fail(CFN_INVALID, 0, att, "the request names no attachment of this bus");
  sending_t s = {.bus = bus,
                 .route = {CFN_TO_REPLY, 0, att, cfn_id_word(inc, CFN_ID_LIVE)},
                 .deadline = deadline};
  cfn_outgoing_t m = *message;
  m.flags |= CFN_MESSAGE_REPLY;
  uint64_t position;
  r = post_any(&s, &m, 1, &position);
  if (r == CFN_OK || r == CFN_STALE)
    cfn_bus_count(bus, r == CFN_OK ? CFN_COUNT_REPLIES : CFN_COUNT_REPLIES_LATE, 1);
  if (r == CFN_STALE) cfn_fail(r, 0, 0, "the process that asked is gone");
  return r;
}

int cfn_bus_broadcast(cfn_bus_t *bus, const cfn_address_t *to, uint32_t n, unsigned lane,
                      const cfn_outgoing_t *message, uint64_t deadline, int *result, cfn_receipt_t *receipt) {
  int delivered = 0, r = CFN_OK;
  cfn_outgoing_t m = *message;
  cfn_hold_t h;
  cfn_filling_t f;
  if (check_heads(message, 1) < 0) return CFN_INVALID;
  bool must = !fits_chunk(bus, message), object = must || (n > 1 && message->body_bytes >= COPY_ONCE);
  if (object && deadline == CFN_TRY) return CFN_AGAIN; /* this takes longer than one who holds the interpreter wants to */
  if (object) r = store_body(bus, message, false, &m, &h, &f);
  if (r < 0 && must) return r;
  object = object && r == CFN_OK; /* where the heap is full, each gets a copy of its own */
  r = CFN_OK;
  for (uint32_t i = 0; i < n && r == CFN_OK; i++) {
    result[i] = cfn_bus_send(bus, &to[i], lane, &m, 1, deadline, &receipt[i]);
    if (result[i] == CFN_OK) delivered++;
    if (result[i] == CFN_FORKED || result[i] == CFN_CLOSED || result[i] == CFN_RETIRED ||
        result[i] == CFN_AGENT_FENCED || result[i] == CFN_TOO_LARGE || result[i] == CFN_INVALID)
      r = result[i];
  }
  if (object) let_go_of_body(bus, (uint64_t)delivered, &h, &f);
  return r < 0 ? r : delivered;
}

/* ---- receipts ---- */

static int receipt_state(cfn_bus_t *bus, const cfn_receipt_t *t, uint32_t index) {
  const cfn_region_t *r = bus->region;
  if (t->mailbox >= r->geo.config.agents || t->lane >= CFN_LANES)
    return cfn_fail(CFN_INVALID, 0, 0, "not a receipt of this bus");
  cfn_mailbox_shm_t *m = cfn_mailbox(r, t->mailbox);
  cfn_lane_shm_t *lane = &m->lane[t->lane];
  cfn_ring_t q = cfn_ring_of_lane(r, t->mailbox, t->lane);
  uint64_t place = cfn_place(t->position, index);
  cfn_a64 *slot = cfn_ring_slot(&q, t->position);
  int state = CFN_RECEIPT_ACKED;
  for (int tries = 0; cfn_load_seq(q.head) <= t->position && tries < 64; tries++) {
    uint64_t w = cfn_load_seq(slot);
    uint32_t ref = cfn_slot_ref(w);
    if (cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, t->position)) > 0) break; /* the head lags */
    if (ref == 0 || ref > r->geo.chunks) return cfn_fail(CFN_INVALID, 0, 0, "not a receipt of this bus");
    const cfn_chunk_shm_t *chunk = cfn_chunk(r, ref - 1);
    bool acked = cfn_own_state(cfn_load_seq(&chunk->own)) == CFN_DONE ||
                 (t->count > 1 && cfn_frame_acked(chunk, index));
    state = acked ? CFN_RECEIPT_ACKED
            : cfn_load_seq(&lane->seen) > place ? CFN_RECEIPT_SEEN : CFN_RECEIPT_STORED;
    if (cfn_load_seq(slot) == w) break; /* LAST: what was read is this message's */
    state = CFN_RECEIPT_ACKED;
  }
  /* LAST: these cursors are this agent's only while the record is still it. */
  if (cfn_load_seq(&m->mid) != t->mid) return CFN_RECEIPT_DROPPED;
  return state;
}

int cfn_bus_receipt(cfn_bus_t *bus, const cfn_receipt_t *receipt, uint32_t index) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = receipt_state(bus, receipt, index);
  return cfn_bus_left(bus, r);
}

/* The state that all messages of the receipt have reached. Lock held. */
static int receipt_least(cfn_bus_t *bus, const cfn_receipt_t *t) {
  int least = receipt_state(bus, t, 0);
  for (uint32_t i = 1; i < t->count && least >= 0; i++) {
    int state = receipt_state(bus, t, i);
    if (state < least) least = state;
  }
  return least;
}

int cfn_bus_receipt_wait(cfn_bus_t *bus, const cfn_receipt_t *t, int want, uint64_t deadline) {
  cfn_address_t agent = {t->mid, t->mailbox};
  int verdict = CFN_OK;
  for (;;) {
    int r = cfn_bus_enter(bus);
    if (r < 0) return r;
    int state = receipt_least(bus, t);
    bool settled = state < 0 || state >= want;
    if (!settled && verdict == CFN_AGENT_DEAD) verdict = cfn_bus_judge(bus, &agent);
    if (!settled && verdict != CFN_AGENT_DEAD &&
        cfn_owner_att(cfn_load_seq(&cfn_mailbox(bus->region, t->mailbox)->owner)) == CFN_OWNER_DEAD)
      verdict = cfn_bus_judge(bus, &agent);
    if (settled || verdict == CFN_AGENT_DEAD || cfn_deadline_passed(deadline)) {
      cfn_bus_leave(bus);
      if (settled) return state;
      if (verdict == CFN_AGENT_DEAD) return verdict;
      return cfn_fail(CFN_TIMEOUT, state, want, "timed out: the message is %s and not %s yet",
                      state == CFN_RECEIPT_SEEN ? "seen" : "stored",
                      want == CFN_RECEIPT_ACKED ? "acked" : "seen");
    }
    cfn_event_shm_t *event = &cfn_mailbox(bus->region, t->mailbox)->acks.event;
    uint32_t armed = cfn_event_arm(event);
    state = receipt_least(bus, t); /* AFTER arming */
    if (state < 0 || state >= want) {
      cfn_bus_leave(bus);
      return state;
    }
    r = cfn_bus_sleep(bus, event, armed, CFN_WAIT_RECEIPT, t->mailbox, &agent, deadline);
    verdict = r == CFN_AGENT_DEAD ? r : CFN_OK; /* is there news of before its death? look once more */
    if (r < 0 && r != CFN_TIMEOUT && r != CFN_STALE && r != CFN_AGENT_DEAD) return r;
  }
}
