/* Parcels: what a frame of several holds goes to its reader in one copy, and is taken apart there.
 *
 *   at      wire header of the first, and the sender's name
 *   table   where each record begins, and where the last one ends, counted from `span`
 *   span    the records, as they lie in the frame
 *
 * The chunk is looked at once, by the copy: what is checked is the copy, which nobody else can change.
 */
#include "agent/bus_parcel.h"

#include <string.h>

static cfn_record_shm_t record_at(const uint8_t *span, uint32_t at) {
  cfn_record_shm_t record;
  memcpy(&record, span + at, sizeof record);
  return record;
}

static uint64_t body_at(const cfn_record_shm_t *record, uint32_t at) {
  return (uint64_t)at + sizeof *record + cfn_pad8(record->type_bytes);
}

uint32_t cfn_parcel_fill(const cfn_inbox_t *in, const cfn_run_t *run, void *out, size_t at, size_t room, cfn_parcel_t *parcel,
                         size_t *end) {
  const cfn_frame_t *f = run->frame;
  if (run->count < 2 || !run->offsets || run->lane == CFN_LANE_CONTROL || run->record.life) return 0;
  uint64_t table = cfn_pad8(at + sizeof(cfn_wire_t) + f->name_bytes);
  uint64_t fixed = cfn_pad8(table + ((uint64_t)run->count + 1) * 4);
  const uint32_t *starts = run->offsets + run->first;
  uint32_t base = starts[0], n = 0, stop = base;
  for (; n < run->count; n++) {
    uint32_t next = run->first + n + 1 < f->count ? starts[n + 1] : f->bytes;
    if (next > f->bytes || next < starts[n] || next - starts[n] < sizeof(cfn_record_shm_t) || fixed + (next - base) > room) break;
    stop = next;
  }
  if (n < 2) return 0;
  uint8_t *span = (uint8_t *)out + fixed;
  cfn_copy_out(span, f->payload + base, stop - base);
  uint32_t *place = (uint32_t *)(void *)((uint8_t *)out + table), good = 0;
  for (; good < n; good++) {
    uint32_t start = starts[good] - base, next = good + 1 < n ? starts[good + 1] - base : stop - base;
    cfn_record_shm_t record = record_at(span, start);
    if (record.flags & CFN_MESSAGE_OBJECT || body_at(&record, start) + record.body_bytes > next) break;
    place[good] = start;
  }
  if (good == 0) return 0;
  place[good] = good < n ? starts[good] - base : stop - base;
  cfn_wire_t *w = (void *)((uint8_t *)out + at);
  cfn_wire_write(w, room - at, f, &(cfn_record_t){0}, run->first, false);
  w->token = cfn_run_token(in, run, 0);
  w->position = run->position;
  w->lane = run->lane;
  w->deliveries = f->deliveries;
  *parcel = (cfn_parcel_t){.token = w->token, .at = (uint32_t)at, .table = (uint32_t)table, .span = (uint32_t)fixed, .count = good};
  *end = fixed + place[good];
  return good;
}

/* What follows is of private memory, which was checked as it was filled. */

const void *cfn_parcel_body(const void *out, const cfn_parcel_t *parcel, uint32_t i, uint32_t *bytes) {
  const uint8_t *p = out;
  if (!parcel->table) {
    const cfn_wire_t *w = (const void *)(p + parcel->at);
    *bytes = w->body_bytes;
    return w->wire_flags & CFN_WIRE_EXTERNAL ? NULL : p + parcel->at + w->total_bytes - w->body_bytes;
  }
  uint32_t start = ((const uint32_t *)(const void *)(p + parcel->table))[i];
  cfn_record_shm_t record = record_at(p + parcel->span, start);
  *bytes = record.body_bytes;
  return p + parcel->span + body_at(&record, start);
}

size_t cfn_parcel_wire(const void *out, const cfn_parcel_t *parcel, uint32_t i, void *wire, size_t room) {
  const uint8_t *p = out;
  const cfn_wire_t *first = (const void *)(p + parcel->at);
  if (!parcel->table) {
    if (first->total_bytes <= room) memcpy(wire, first, first->total_bytes);
    return first->total_bytes;
  }
  uint32_t start = ((const uint32_t *)(const void *)(p + parcel->table))[i];
  const uint8_t *span = p + parcel->span;
  cfn_record_shm_t record = record_at(span, start);
  size_t head = sizeof *first + first->sender_bytes, total = head + record.type_bytes + record.body_bytes;
  if (total > room) return total;
  memcpy(wire, first, head);
  cfn_wire_t w = *first;
  w.token = parcel->token + i; /* cfn_tokens_follow */
  w.sequence += i;
  w.index += i;
  w.correlation = record.correlation;
  w.total_bytes = (uint32_t)total;
  w.body_bytes = record.body_bytes;
  w.flags = record.flags;
  w.codec = record.codec;
  w.type_bytes = record.type_bytes;
  w.wire_flags = i < parcel->redelivered ? CFN_WIRE_REDELIVERED : 0;
  w.deliveries = i >= parcel->redelivered ? 1 : first->deliveries < 2 ? 2 : first->deliveries;
  memcpy(wire, &w, sizeof w);
  uint8_t *to = (uint8_t *)wire + head;
  cfn_copy_out(to, span + start + sizeof record, record.type_bytes);
  cfn_copy_out(to + record.type_bytes, span + body_at(&record, start), record.body_bytes);
  return total;
}
