#include "msg/envelope.h"

#include <string.h>

#include "base/error.h"
#include "mem/heap.h"

void cfn_frame_write(cfn_chunk_shm_t *chunk, uint8_t *payload, uint64_t target,
                     const cfn_source_t *source, uint64_t first_seq, uint64_t wall_ns,
                     const cfn_outgoing_t *messages, uint32_t count, uint32_t bytes) {
  /* relaxed: reapers read it to know which ring to look in; if they see the old one, the chunk is
   * not published yet and is in no ring at all */
  if (messages[0].flags & CFN_MESSAGE_OBJECT) { /* alone in its frame */
    /* The chunk holds it from here on: before our ledger lets go, which a collector looks at first. */
    cfn_store_relaxed(&chunk->blob, messages[0].object_blob + 1);
    target |= CFN_TARGET_OBJECT | (messages[0].object_sole ? CFN_TARGET_SOLE : 0);
  }
  cfn_store_release(&chunk->target, target);
  cfn_plain_store(&chunk->bytes, bytes);
  cfn_plain_store(&chunk->count, count);
  cfn_plain_store(&chunk->first_seq, first_seq);
  cfn_plain_store(&chunk->wall_ns, wall_ns);
  cfn_plain_store(&chunk->source_inc, source->attachment_inc);
  cfn_plain_store(&chunk->source_att, source->attachment);
  cfn_plain_store(&chunk->name_bytes, source->name_bytes);
  cfn_plain_store(&chunk->flags, 0);
  cfn_plain_store(&chunk->source_mailbox, source->mailbox);
  cfn_plain_store(&chunk->source_agent_inc, (uint32_t)source->agent_inc);
  cfn_plain_store(&chunk->source_pid, (uint32_t)source->pid);
  uint64_t ver = cfn_own_ver(cfn_load_relaxed(&chunk->own));
  for (unsigned i = 0; count > 1 && i < CFN_FRAME_PARTS; i++)
    cfn_store_relaxed(&chunk->part[i], cfn_part_word(ver, 0));
  cfn_copy_in(payload, source->name, source->name_bytes);
  uint8_t *index = payload + cfn_pad8(source->name_bytes);
  uint64_t at = cfn_frame_head_bytes(source->name_bytes, count);
  for (uint32_t i = 0; i < count; i++) {
    const cfn_outgoing_t *m = &messages[i];
    if (count > 1) {
      uint32_t offset = (uint32_t)at;
      cfn_copy_in(index + (size_t)i * 4, &offset, 4);
    }
    bool object = m->flags & CFN_MESSAGE_OBJECT;
    cfn_object_shm_t place = {m->body_bytes, m->object_life, m->object_blob, 0};
    const void *body = object ? &place : m->body;
    uint32_t body_bytes = object ? sizeof place : m->body_bytes, head_bytes = object ? 0 : m->head_bytes;
    cfn_record_shm_t record = {m->correlation, body_bytes, m->type_bytes, m->codec, m->flags};
    cfn_copy_in(payload + at, &record, sizeof record);
    at += sizeof record;
    if (m->type_bytes) cfn_copy_in(payload + at, m->type, m->type_bytes);
    at += cfn_pad8(m->type_bytes);
    if (head_bytes) cfn_copy_in(payload + at, m->head, head_bytes);
    if (body_bytes > head_bytes) cfn_copy_in(payload + at + head_bytes, body, body_bytes - head_bytes);
    at += cfn_pad8(body_bytes);
  }
}

int cfn_frame_read(const cfn_region_t *r, uint32_t k, const cfn_chunk_shm_t *chunk,
                   cfn_frame_t *out) {
  unsigned cls = cfn_chunk_class(r, k);
  out->region = r;
  out->payload = cfn_chunk_payload(r, k, cls);
  out->blob = cfn_load_acquire(&chunk->target) & CFN_TARGET_OBJECT ? (uint32_t)cfn_load_relaxed(&chunk->blob) : 0;
  out->bytes = cfn_plain_load((const volatile uint32_t *)&chunk->bytes);
  out->count = cfn_plain_load((const volatile uint32_t *)&chunk->count);
  out->name_bytes = cfn_plain_load((const volatile uint8_t *)&chunk->name_bytes);
  out->first_seq = cfn_plain_load(&chunk->first_seq);
  out->wall_ns = cfn_plain_load(&chunk->wall_ns);
  out->source_inc = cfn_plain_load(&chunk->source_inc);
  out->source_agent_inc = cfn_plain_load(&chunk->source_agent_inc);
  out->source_pid = cfn_plain_load(&chunk->source_pid);
  out->source_mailbox = cfn_plain_load(&chunk->source_mailbox);
  out->source_att = cfn_plain_load(&chunk->source_att);
  out->deliveries = 1;
  if (out->bytes > cfn_class_room(&r->geo.config, cls) || out->count < 1 ||
      out->count > CFN_FRAME_MESSAGES || out->name_bytes >= CFN_NAME_BYTES)
    return CFN_CORRUPT;
  uint64_t head = cfn_frame_head_bytes(out->name_bytes, out->count);
  if (head + (uint64_t)out->count * sizeof(cfn_record_shm_t) > out->bytes) return CFN_CORRUPT;
  return CFN_OK;
}

int cfn_frame_index(const cfn_frame_t *f, uint32_t *offsets) {
  cfn_copy_out(offsets, f->payload + cfn_pad8(f->name_bytes), (size_t)f->count * 4);
  for (uint32_t i = 0; i < f->count; i++)
    if (offsets[i] % 8 || (uint64_t)offsets[i] + sizeof(cfn_record_shm_t) > f->bytes)
      return CFN_CORRUPT;
  return CFN_OK;
}

/* The body is elsewhere: where, if that is still what was sent. */
static int find_object(const cfn_frame_t *f, cfn_record_t *out) {
  cfn_object_shm_t place;
  cfn_blob_t blob;
  if (f->count != 1 || out->body_bytes != sizeof place) return CFN_CORRUPT;
  cfn_copy_out(&place, out->body, sizeof place);
  if (place.blob >= f->region->geo.config.objects || place.blob + 1 != f->blob || place.bytes > UINT32_MAX) return CFN_CORRUPT;
  if (cfn_heap_look(f->region, place.blob, &blob) != CFN_OK || blob.life != place.life || blob.bytes != place.bytes)
    return CFN_CORRUPT;
  out->life = place.life;
  out->body = blob.data ? blob.data : (const uint8_t *)(const void *)cfn_blob_record(f->region, place.blob)->inside;
  out->body_bytes = (uint32_t)place.bytes;
  out->flags &= (uint16_t)~CFN_MESSAGE_OBJECT; /* nobody need know */
  return CFN_OK;
}

int cfn_frame_record(const cfn_frame_t *f, uint32_t offset, cfn_record_t *out) {
  cfn_record_shm_t record;
  cfn_copy_out(&record, f->payload + offset, sizeof record);
  uint64_t type_at = (uint64_t)offset + sizeof record;
  uint64_t body_at = type_at + cfn_pad8(record.type_bytes);
  if (body_at + record.body_bytes > f->bytes) return CFN_CORRUPT;
  out->correlation = record.correlation;
  out->life = 0;
  out->type = f->payload + type_at;
  out->body = f->payload + body_at;
  out->body_bytes = record.body_bytes;
  out->type_bytes = record.type_bytes;
  out->codec = record.codec;
  out->flags = record.flags;
  return record.flags & CFN_MESSAGE_OBJECT ? find_object(f, out) : CFN_OK;
}
