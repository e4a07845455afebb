/* Parcels: the same messages that recv_many gives, in the same order, with the same marks, acked the same way. */
#include <string.h>

#include "agent/bus.h"
#include "tests/harness.h"

enum { N = 60 };
static cfn_bus_t *a, *b;
static cfn_address_t to;
static _Alignas(8) uint8_t out[1 << 16], wires[1 << 16];
static cfn_parcel_t parcel[N];
static uint32_t parcels;
static cfn_outgoing_t m[N];
static int numbers[N];

static void start(void) {
  a = t_open("a", NULL);
  b = t_attach("b");
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  for (int i = 0; i < N; i++) {
    numbers[i] = i;
    m[i] = (cfn_outgoing_t){.body = &numbers[i], .body_bytes = sizeof numbers[i]};
  }
}
static void end(void) {
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}

static int64_t take(uint32_t n, size_t room) {
  size_t used;
  int64_t got = cfn_bus_recv_parcels(b, CFN_ALL_LANES, n, 0, out, room, parcel, N, &parcels, &used);
  uint32_t sum = 0;
  for (uint32_t k = 0; got > 0 && k < parcels; k++) sum += parcel[k].count;
  if (got > 0) CHECK_INT(sum, got);
  CHECK(used <= room);
  return got;
}

/* The next of what was taken must be numbered from `first`, the first `marked` of them handed out before. */
static void numbered(int first, int marked) {
  int i = 0;
  for (uint32_t k = 0; k < parcels; k++)
    for (uint32_t j = 0; j < parcel[k].count; j++, i++) {
      _Alignas(8) uint8_t one[512];
      uint32_t bytes;
      int number;
      const void *body = cfn_parcel_body(out, &parcel[k], j, &bytes);
      CHECK_INT(bytes, sizeof number);
      memcpy(&number, body, sizeof number);
      CHECK_INT(number, first + i);
      CHECK_INT(cfn_parcel_wire(out, &parcel[k], j, one, sizeof one) <= sizeof one, 1);
      const cfn_wire_t *w = (const void *)one;
      CHECK_INT((w->wire_flags & CFN_WIRE_REDELIVERED) != 0, i < marked);
      CHECK_INT(w->deliveries > 1, i < marked);
      CHECK_INT(w->token, parcel[k].token + j);
    }
}

/* A frame acked in two halves, with the border everywhere, one of the first half acked by hand before. */
static void test_halves(void) {
  start();
  for (int k = 1; k <= N; k++) {
    t_case("a frame of %d, acked at %d", N, k);
    cfn_receipt_t receipt;
    CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, N, 0, &receipt), 0);
    CHECK_INT(take((uint32_t)k, sizeof out), k);
    numbered(0, 0);
    CHECK_INT(parcels, 1);
    CHECK_INT(t_ack(b, parcel[0].token + (uint32_t)k / 2), 0);
    CHECK_INT(cfn_bus_ack_parcels(b, parcel, parcels), 0);
    CHECK_INT(cfn_bus_receipt(a, &receipt, (uint32_t)k - 1), CFN_RECEIPT_ACKED);
    if (k < N) CHECK_INT(cfn_bus_receipt(a, &receipt, (uint32_t)k), CFN_RECEIPT_STORED);
    CHECK_INT(cfn_lane_depth(cfn_bus_region(a), to.index, CFN_LANE_NORMAL), N - k);
    CHECK_INT(cfn_bus_release_inbox(b), 0);
    if (k < N) {
      int some = (N - k + 1) / 2;
      CHECK_INT(take((uint32_t)some, sizeof out), some);
      numbered(k, 0);
      CHECK_INT(cfn_bus_release_inbox(b), 0);
      CHECK_INT(take(N, sizeof out), N - k);
      numbered(k, some);
      CHECK_INT(cfn_bus_ack_parcels(b, parcel, parcels), 0);
    }
    CHECK_INT(take(N, sizeof out), CFN_EMPTY);
    t_check_nothing_held(a);
  }
  end();
}

/* However little room there is, all come, in order. */
static void test_room(void) {
  start();
  for (size_t room = sizeof(cfn_wire_t) + 400; room < 4000; room += 56) {
    t_case("room of %zu bytes", room);
    CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, N, 0, NULL), 0);
    for (int at = 0; at < N;) {
      int64_t got = take(N, room);
      CHECK(got > 0);
      numbered(at, 0);
      at += (int)got;
      CHECK_INT(cfn_bus_ack_parcels(b, parcel, parcels), 0);
    }
    CHECK_INT(take(N, room), CFN_EMPTY);
  }
  t_check_nothing_held(a);
  end();
}

/* Bodies, types, codecs and answers of all kinds: a parcel's wire messages are those of recv_many. */
static void test_the_same(void) {
  t_case("the same as recv_many");
  start();
  char text[N * 8];
  memset(text, 'x', sizeof text);
  for (int i = 0; i < N; i++)
    m[i] = (cfn_outgoing_t){.body = text, .body_bytes = (uint32_t)i * 7, .type = text, .type_bytes = (uint8_t)(i % 5 * 3),
                            .codec = (uint8_t)(i % 3), .correlation = i % 4 == 0 ? (uint64_t)i : 0};
  static _Alignas(8) uint8_t each[1 << 16];
  static uint32_t offsets[N];
  size_t used;
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, N, 0, NULL), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, N, 0, NULL), 0);
  CHECK_INT(cfn_bus_recv_many(b, NULL, 0, CFN_ALL_LANES, N, 0, wires, sizeof wires, offsets, &used), N);
  CHECK_INT(take(N, sizeof out), N);
  CHECK_INT(parcels, 1);
  for (uint32_t i = 0; i < N; i++) {
    const cfn_wire_t *w = (const void *)(wires + offsets[i]);
    size_t bytes = cfn_parcel_wire(out, parcel, i, each, sizeof each);
    CHECK_INT(bytes, w->total_bytes);
    cfn_wire_t *v = (void *)each;
    CHECK_INT(v->position, w->position + 1);
    CHECK_INT(v->sequence, w->sequence + N);
    v->position = w->position, v->sequence = w->sequence, v->token = w->token, v->wall_ns = w->wall_ns;
    CHECK(memcmp(each, w, bytes) == 0);
    CHECK_INT(cfn_parcel_wire(out, parcel, i, each, bytes - 1), bytes); /* not written */
  }
  CHECK_INT(cfn_bus_ack_parcels(b, parcel, parcels), 0);
  CHECK_INT(cfn_bus_ack_batch(b, wires, offsets, N), 0);
  t_check_nothing_held(a);
  end();
}

/* One by one, in frames, urgent, and as an object: each ends or begins a parcel where it must. */
static void test_mixed(void) {
  t_case("mixed");
  start();
  static char large[100000];
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &numbers[0], 4, 0, NULL), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m + 1, 4, 0, NULL), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m + 5, 2, 0, NULL), 0);
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &numbers[7], 4, 0, NULL), 0);
  CHECK_INT(take(N, sizeof out), 8);
  CHECK_INT(parcels, 4);
  numbered(0, 0);
  CHECK_INT(cfn_bus_ack_parcels(b, parcel, parcels), 0);
  CHECK_INT(cfn_bus_ack_parcels(b, parcel, parcels), 0); /* acked before: passed over */
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, large, sizeof large, 0, NULL), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, 2, 0, NULL), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_CONTROL, m, 2, 0, NULL), 0);
  CHECK_INT(take(N, sizeof out), 1); /* control, alone */
  CHECK_INT(parcel[0].table, 0);
  CHECK_INT(cfn_bus_ack_parcels(b, parcel, 1), 0);
  CHECK_INT(take(N, sizeof out), 1);
  CHECK_INT(cfn_bus_ack_parcels(b, parcel, 1), 0);
  CHECK_INT(take(N, sizeof out), 1); /* larger than the room: it ends the batch, and its body is elsewhere */
  uint32_t bytes;
  CHECK(cfn_parcel_body(out, parcel, 0, &bytes) == NULL);
  CHECK_INT(bytes, sizeof large);
  CHECK_INT(cfn_bus_ack_parcels(b, parcel, 1), 0);
  CHECK_INT(take(N, sizeof out), 2);
  numbered(0, 0);
  CHECK_INT(cfn_bus_ack_parcels(b, parcel, 1), 0);
  CHECK_INT(cfn_bus_ack_parcels(b, parcel, 0), 0);
  t_check_nothing_held(a);
  end();
}

/* A record that claims more than it has, of every place in a frame: those before it come, it and the rest do not, and the
 * frame behind it does. */
static void test_damage(void) {
  start();
  cfn_region_t *r = cfn_bus_region(a);
  for (uint32_t bad = 0; bad < 6; bad++) {
    t_case("damage at %u", bad);
    CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, 6, 0, NULL), 0);
    CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &numbers[6], 4, 0, NULL), 0);
    cfn_ring_t q = cfn_ring_of_lane(r, to.index, CFN_LANE_NORMAL);
    uint32_t k = cfn_slot_ref(cfn_load_seq(cfn_ring_slot(&q, cfn_load_seq(q.head)))) - 1;
    cfn_frame_t frame;
    CHECK_INT(cfn_frame_read(r, k, cfn_chunk(r, k), &frame), CFN_OK);
    uint32_t offsets[CFN_FRAME_MESSAGES], huge = 1u << 30;
    CHECK_INT(cfn_frame_index(&frame, offsets), CFN_OK);
    memcpy((uint8_t *)(uintptr_t)frame.payload + offsets[bad] + offsetof(cfn_record_shm_t, body_bytes), &huge, sizeof huge);
    int got = 0;
    for (int64_t n; (n = take(N, sizeof out)) > 0; got += (int)n) {
      for (uint32_t p = 0; p < parcels; p++)
        for (uint32_t j = 0; j < parcel[p].count; j++) {
          uint32_t bytes;
          int number;
          memcpy(&number, cfn_parcel_body(out, &parcel[p], j, &bytes), sizeof number);
          CHECK(number < (int)bad || number == 6);
        }
      CHECK_INT(cfn_bus_ack_parcels(b, parcel, parcels), 0);
    }
    CHECK_INT(got, bad + 1);
  }
  t_close(b);
  t_close(a);
  t_destroy();
}

/* A place of the high lane reads as empty although a message was put there, and the normal lane is never empty: what is
 * behind the damage comes all the same, also to one who only tries. */
static void test_damage_beside_traffic(bool parcel_wise) {
  t_case("damage in the high lane beside traffic, %s", parcel_wise ? "parcels" : "one by one");
  start();
  cfn_region_t *r = cfn_bus_region(a);
  cfn_ring_t q = cfn_ring_of_lane(r, to.index, CFN_LANE_HIGH);
  cfn_a64 *slot = cfn_ring_slot(&q, cfn_load_seq(q.tail));
  uint64_t empty = cfn_load_seq(slot);
  CHECK_INT(t_send(a, "b", CFN_LANE_HIGH, &numbers[1], 4, 0, NULL), 0);
  cfn_store_seq(slot, empty);
  CHECK_INT(t_send(a, "b", CFN_LANE_HIGH, &numbers[2], 4, 0, NULL), 0);
  bool came = false;
  for (int i = 0; i < 200 && !came; i++) {
    CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &numbers[3], 4, 0, NULL), 0);
    size_t used;
    int64_t got = parcel_wise ? cfn_bus_recv_parcels(b, CFN_ALL_LANES, 1, CFN_TRY, out, sizeof out, parcel, N, &parcels, &used)
                              : cfn_bus_recv(b, NULL, 0, CFN_ALL_LANES, 0, CFN_TRY, out, sizeof out);
    CHECK(got > 0);
    const cfn_wire_t *w = (const void *)out;
    came = w->lane == CFN_LANE_HIGH;
    CHECK_INT(t_ack(b, w->token), 0);
  }
  CHECK(came);
  t_close(b);
  t_close(a);
  t_destroy();
}

int main(void) {
  t_guard(60);
  test_halves();
  test_room();
  test_the_same();
  test_mixed();
  test_damage();
  test_damage_beside_traffic(false);
  test_damage_beside_traffic(true);
  t_passed("test_parcels");
  return 0;
}
