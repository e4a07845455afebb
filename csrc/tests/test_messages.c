/* The message path in one process: order, leases, acks, receipts, frames, full lanes, requests,
 * removal; every state that a caller can see. */
#include <pthread.h>
#include <string.h>

#include "tests/harness.h"

static cfn_bus_t *a, *b;
static cfn_wire_t w;
static char body[4096];

static void start(void) {
  a = t_open("a", NULL);
  b = t_attach("b");
}
static void end(void) {
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}

static void test_order_and_ack(void) {
  t_case("order and ack");
  start();
  cfn_receipt_t receipt[5];
  for (int i = 0; i < 5; i++) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &i, 4, 0, &receipt[i]), 0);
  CHECK_INT(cfn_bus_receipt(a, &receipt[0], 0), CFN_RECEIPT_STORED);
  uint64_t tokens[5];
  for (int i = 0; i < 5; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 4);
    CHECK_INT(*(int *)(void *)body, i);
    CHECK_INT(w.sequence, i + 1);
    CHECK_INT(w.wire_flags & CFN_WIRE_REDELIVERED, 0);
    tokens[i] = w.token;
  }
  CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
  CHECK_INT(cfn_bus_receipt(a, &receipt[3], 0), CFN_RECEIPT_SEEN);
  /* out of order: acked is acked although the head cannot move yet */
  CHECK_INT(t_ack(b, tokens[3]), 0);
  CHECK_INT(cfn_bus_receipt(a, &receipt[3], 0), CFN_RECEIPT_ACKED);
  CHECK_INT(cfn_bus_receipt(a, &receipt[2], 0), CFN_RECEIPT_SEEN);
  CHECK_INT(t_ack(b, tokens[3]), CFN_INVALID);
  for (int i = 0; i < 5; i++)
    if (i != 3) CHECK_INT(t_ack(b, tokens[i]), 0);
  CHECK_INT(cfn_bus_receipt(a, &receipt[4], 0), CFN_RECEIPT_ACKED);
  t_check_nothing_held(a);
  end();
}

static void test_lanes(void) {
  t_case("lanes");
  start();
  CHECK_INT(t_send(a, "b", CFN_LANE_LOW, "l", 1, 0, NULL), 0);
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "n", 1, 0, NULL), 0);
  CHECK_INT(t_send(a, "b", CFN_LANE_HIGH, "h", 1, 0, NULL), 0);
  CHECK_INT(t_send(a, "b", CFN_LANE_CONTROL, "c", 1, 0, NULL), 0);
  for (const char *p = "chnl"; *p; p++) {
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    CHECK_INT(body[0], *p);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  end();
}

static void test_full_and_wrap(void) {
  t_case("full and wrap");
  start();
  for (int lap = 0; lap < 20; lap++) {
    for (int i = 0; i < 8; i++) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &i, 4, 0, NULL), 0);
    CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), CFN_FULL);
    CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0.01, NULL), CFN_FULL);
    uint64_t tokens[8];
    for (int i = 0; i < 8; i++) {
      CHECK_INT(t_recv(b, 0, &w, body), 4);
      tokens[i] = w.token;
    }
    /* taken, not acked: still full */
    CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), CFN_FULL);
    for (int i = 7; i >= 0; i--) CHECK_INT(t_ack(b, tokens[i]), 0);
    t_check_nothing_held(a);
  }
  end();
}

/* Memory that was used is used again, as long as few messages are under way. */
static void test_few_chunks(void) {
  t_case("few chunks for few messages");
  cfn_wish_t wish = t_small_wish();
  wish.class_chunks[0] = 8192;
  wish.lane_slots[CFN_LANE_NORMAL] = 128;
  a = t_open("a", &wish);
  b = t_attach("b");
  for (int round = 0; round < 200; round++) {
    for (int i = 0; i < 100; i++) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &i, 4, 0, NULL), 0);
    for (int i = 0; i < 100; i++) {
      CHECK_INT(t_recv(b, 0, &w, body), 4);
      CHECK_INT(t_ack(b, w.token), 0);
    }
  }
  int used = 0;
  for (uint32_t k = 0; k < 8192; k++)
    used += cfn_own_ver(cfn_load_seq(&cfn_chunk(cfn_bus_region(a), k)->own)) != 0;
  CHECK(used >= 100 && used <= 1024);
  end();
}

/* A body whose beginning lies elsewhere, inside of chunks and as an object of the heap, to one and to many. */
static void test_heads(void) {
  t_case("a body in two parts");
  start();
  cfn_outgoing_t wrong = {.body = "b", .body_bytes = 1, .head = "ab", .head_bytes = 2};
  cfn_address_t b_at;
  int none;
  cfn_receipt_t nothing;
  CHECK_INT(cfn_bus_find(a, "b", &b_at), 0);
  CHECK_INT(cfn_bus_send(a, &b_at, CFN_LANE_NORMAL, &wrong, 1, 0, NULL), CFN_INVALID);
  CHECK_INT(cfn_bus_broadcast(a, &b_at, 1, CFN_LANE_NORMAL, &wrong, 0, &none, &nothing), CFN_INVALID);
  static char whole[40000], got[sizeof(cfn_wire_t) + 64 + sizeof whole];
  for (size_t i = 0; i < sizeof whole; i++) whole[i] = (char)(i * 7 + i / 256);
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  const uint32_t sizes[] = {1, 2, 100, 3000, sizeof whole};
  for (unsigned s = 0; s < 5; s++)
    for (unsigned part = 0; part < 4; part++) {
      uint32_t n = sizes[s], head = part == 0 ? 0 : part == 1 ? 1 : part == 2 ? n / 2 : n;
      cfn_outgoing_t m[2] = {{.body = whole + head, .body_bytes = n, .head = whole, .head_bytes = head}};
      m[1] = m[0];
      uint32_t count = n < 3000 ? 2 : 1; /* a frame, or one by one */
      if (part == 3) {
        int result;
        cfn_receipt_t receipt;
        CHECK_INT(cfn_bus_broadcast(a, &to, 1, CFN_LANE_NORMAL, m, 0, &result, &receipt), 1);
        count = 1;
      } else {
        CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, count, 0, NULL), 0);
      }
      for (uint32_t i = 0; i < count; i++) {
        CHECK(cfn_bus_recv(b, NULL, 0, CFN_ALL_LANES, 0, 0, got, sizeof got) > 0);
        memcpy(&w, got, sizeof w);
        CHECK_INT(w.body_bytes, n);
        CHECK_INT(memcmp(got + w.total_bytes - n, whole, n), 0);
        CHECK_INT(t_ack(b, w.token), 0);
      }
    }
  end();
}

static void test_frames(void) {
  t_case("frames");
  start();
  cfn_outgoing_t batch[10];
  int values[10];
  for (int i = 0; i < 10; i++) {
    values[i] = 100 + i;
    batch[i] = (cfn_outgoing_t){.body = &values[i], .body_bytes = 4};
  }
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  cfn_receipt_t receipt;
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, batch, 10, 0, &receipt), 0);
  CHECK_INT(receipt.count, 10);
  CHECK_INT(cfn_lane_depth(cfn_bus_region(a), to.index, CFN_LANE_NORMAL), 10);
  uint64_t tokens[10];
  for (int i = 0; i < 10; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 4);
    CHECK_INT(*(int *)(void *)body, 100 + i);
    CHECK_INT(w.sequence, i + 1);
    tokens[i] = w.token;
    if (i == 4) {
      CHECK_INT(cfn_bus_receipt(a, &receipt, 4), CFN_RECEIPT_SEEN);
      CHECK_INT(cfn_bus_receipt(a, &receipt, 5), CFN_RECEIPT_STORED);
    }
  }
  CHECK_INT(t_ack(b, tokens[0]), 0);
  CHECK_INT(t_ack(b, tokens[1]), 0);
  CHECK_INT(cfn_bus_receipt(a, &receipt, 1), CFN_RECEIPT_ACKED);
  CHECK_INT(cfn_bus_receipt(a, &receipt, 2), CFN_RECEIPT_SEEN);
  CHECK_INT(cfn_lane_depth(cfn_bus_region(a), to.index, CFN_LANE_NORMAL), 8);
  /* a reader that goes away without acking: eight come again, marked */
  CHECK_INT(cfn_bus_release_inbox(b), 0);
  for (int i = 2; i < 10; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 4);
    CHECK_INT(*(int *)(void *)body, 100 + i);
    CHECK(w.wire_flags & CFN_WIRE_REDELIVERED);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
  CHECK_INT(cfn_bus_receipt(a, &receipt, 9), CFN_RECEIPT_ACKED);
  t_check_nothing_held(a);
  end();
}

/* A message that many readers had counts them; the next one in its chunk begins anew. */
static void test_deliveries(void) {
  t_case("deliveries");
  start();
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  char wire[1024];
  uint32_t offset;
  size_t used;
  int more;
  for (int message = 0; message < 40; message++) { /* the test bus has fewer chunks */
    CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "m", 1, 0, NULL), 0);
    for (int life = 1; life <= 3; life++) {
      CHECK_INT(cfn_bus_peek(a, &to, CFN_ALL_LANES, wire, sizeof wire, &offset, 1, &used, &more), 1);
      CHECK_INT(((cfn_wire_t *)(void *)wire)->deliveries, life - 1);
      CHECK_INT(t_recv(b, 0, &w, body), 1);
      CHECK_INT(w.deliveries, life);
      CHECK_INT((w.wire_flags & CFN_WIRE_REDELIVERED) != 0, life > 1);
      if (life < 3) CHECK_INT(cfn_bus_release_inbox(b), 0);
    }
    CHECK_INT(t_ack(b, w.token), 0);
  }
  t_check_nothing_held(a);
  end();
}

/* Readers that died, or slept, between the lease and the count: crafted, for it takes two instructions. */
static void test_deliveries_that_were_not_counted(void) {
  t_case("deliveries that were not counted");
  start();
  cfn_region_t *r = cfn_bus_region(a);
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "m", 1, 0, NULL), 0);
  cfn_chunk_shm_t *chunk = NULL;
  for (uint32_t k = 0; k < r->geo.chunks && !chunk; k++)
    if (cfn_own_state(cfn_load_seq(&cfn_chunk(r, k)->own)) == CFN_MINE) chunk = cfn_chunk(r, k);
  unsigned expected = 0;
  for (int life = 1; life <= 20; life++) {
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    CHECK_INT(w.deliveries, ++expected);
    uint64_t late = cfn_load_seq(&chunk->delivery), own = cfn_load_seq(&chunk->own);
    CHECK_INT(cfn_bus_release_inbox(b), 0);
    for (int missing = 0; life > 2 && missing < life % 3; missing++) { /* leased by others, who died before they counted */
      own = cfn_own_next(own, CFN_TAKEN, cfn_own_who(own));
      cfn_store_seq(&chunk->own, own);
      expected++;
    }
    CHECK_INT(cfn_delivery_count(cfn_load_seq(&chunk->delivery), own), expected);
    if (life == 15) cfn_store_seq(&chunk->delivery, late);
  }
  CHECK_INT(t_recv(b, 0, &w, body), 1);
  CHECK_INT(w.deliveries, expected + 1);
  CHECK_INT(t_ack(b, w.token), 0);
  t_check_nothing_held(a);
  end();
}

/* Takes up to n together, which must be numbered from `first`, the first `marked` of them handed out before. */
static int64_t take_batch(uint32_t n, int first, int marked, char *batch, size_t room, uint32_t *offsets) {
  size_t used;
  int64_t got = cfn_bus_recv_many(b, NULL, 0, CFN_ALL_LANES, n, 0, batch, room, offsets, &used);
  for (int64_t i = 0; i < got; i++) {
    int number;
    memcpy(&w, batch + offsets[i], sizeof w);
    memcpy(&number, batch + offsets[i] + w.total_bytes - w.body_bytes, sizeof number);
    CHECK_INT(number, first + i);
    CHECK_INT((w.wire_flags & CFN_WIRE_REDELIVERED) != 0, i < marked);
  }
  return got;
}

/* A frame acked in two batches, with the border between them everywhere, also inside and at the ends of a part word. */
static void test_batches(void) {
  enum { N = 60 };
  static _Alignas(8) char batch[1 << 16];
  static uint32_t offsets[CFN_FRAME_MESSAGES];
  cfn_outgoing_t m[N];
  int numbers[N];
  for (int i = 0; i < N; i++) {
    numbers[i] = i;
    m[i] = (cfn_outgoing_t){.body = &numbers[i], .body_bytes = sizeof numbers[i]};
  }
  start();
  cfn_address_t to;
  cfn_receipt_t receipt;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  for (int k = 1; k <= N; k++) {
    t_case("a frame of %d, acked at %d", N, k);
    CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, N, 0, &receipt), 0);
    CHECK_INT(take_batch((uint32_t)k, 0, 0, batch, sizeof batch, offsets), k);
    uint64_t one;
    memcpy(&one, batch + offsets[k / 2], sizeof one);
    CHECK_INT(t_ack(b, one), 0); /* by hand; the batch passes over it */
    CHECK_INT(cfn_bus_ack_batch(b, batch, offsets, (uint32_t)k), 0);
    CHECK_INT(cfn_bus_receipt(a, &receipt, (uint32_t)k - 1), CFN_RECEIPT_ACKED);
    if (k < N) CHECK_INT(cfn_bus_receipt(a, &receipt, (uint32_t)k), CFN_RECEIPT_STORED);
    CHECK_INT(cfn_lane_depth(cfn_bus_region(a), to.index, CFN_LANE_NORMAL), N - k);
    CHECK_INT(cfn_bus_release_inbox(b), 0);
    if (k < N) {
      int some = (N - k + 1) / 2; /* handed out and not acked: these come again, marked, and the others are not */
      CHECK_INT(take_batch((uint32_t)some, k, 0, batch, sizeof batch, offsets), some);
      CHECK_INT(cfn_bus_release_inbox(b), 0);
      CHECK_INT(take_batch(N, k, some, batch, sizeof batch, offsets), N - k);
      CHECK_INT(cfn_bus_ack_batch(b, batch, offsets, (uint32_t)(N - k)), 0);
    }
    CHECK_INT(take_batch(N, 0, 0, batch, sizeof batch, offsets), CFN_EMPTY);
    t_check_nothing_held(a);
  }
  end();
}

static void test_two_readers_and_steal(void) {
  t_case("busy, steal, fenced");
  start();
  cfn_bus_t *second = t_attach("b");
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "1", 1, 0, NULL), 0);
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "2", 1, 0, NULL), 0);
  CHECK_INT(t_recv(b, 0, &w, body), 1);
  uint64_t token = w.token;
  CHECK_INT(t_recv(second, 0, &w, body), CFN_AGENT_BUSY);
  CHECK_INT(cfn_bus_claim_inbox(second, 1), 0);
  CHECK_INT(t_recv(second, 0, &w, body), 1);
  CHECK_INT(body[0], '1');
  CHECK(w.wire_flags & CFN_WIRE_REDELIVERED);
  CHECK_INT(t_ack(b, token), CFN_AGENT_FENCED);
  CHECK_INT(t_ack(second, w.token), 0);
  CHECK_INT(t_recv(b, 0, &w, body), CFN_AGENT_BUSY);
  CHECK_INT(t_recv(second, 0, &w, body), 1);
  CHECK_INT(body[0], '2');
  CHECK_INT(w.wire_flags & CFN_WIRE_REDELIVERED, 0);
  CHECK_INT(t_ack(second, w.token), 0);
  t_close(second);
  end();
}

static void *answer_one(void *unused) {
  (void)unused;
  cfn_wire_t req;
  char text[4096];
  CHECK_INT(t_recv(b, 30, &req, text), 1);
  CHECK(req.flags & CFN_MESSAGE_REQUEST);
  cfn_outgoing_t m = {.body = "pong", .body_bytes = 4, .correlation = req.correlation};
  CHECK_INT(cfn_bus_reply(b, req.source_att, req.source_inc, &m, t_in(30)), 0);
  CHECK_INT(t_ack(b, req.token), 0);
  return NULL;
}

static void test_request(void) {
  t_case("request and reply");
  start();
  pthread_t thread;
  CHECK_INT(pthread_create(&thread, NULL, answer_one, NULL), 0);
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
  uint64_t correlation;
  CHECK_INT(cfn_bus_request(a, &to, CFN_LANE_NORMAL, &m, t_in(30), &correlation), 0);
  char out[1024];
  int64_t n;
  do {
    n = cfn_bus_request_wait(a, &to, correlation, t_in(30), out, sizeof out);
  } while (n == CFN_INTERRUPTED);
  CHECK_INT(n, sizeof w + 1 + 4);
  CHECK_INT(memcmp(out + n - 4, "pong", 4), 0);
  cfn_bus_request_end(a, correlation);
  pthread_join(thread, NULL);
  /* an answer that comes too late is dropped and counted */
  CHECK_INT(cfn_bus_request(a, &to, CFN_LANE_NORMAL, &m, t_in(30), &correlation), 0);
  do {
    n = cfn_bus_request_wait(a, &to, correlation, t_in(0.02), out, sizeof out);
  } while (n == CFN_INTERRUPTED);
  CHECK_INT(n, CFN_TIMEOUT);
  cfn_bus_request_end(a, correlation);
  answer_one(NULL);
  t_check_region(a, false);
  end();
}

static uint64_t take_id(cfn_bus_t *bus, char expected) {
  _Alignas(8) char out[1024];
  CHECK(cfn_bus_recv(bus, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out) > 0);
  memcpy(&w, out, sizeof w);
  CHECK_INT(out[w.total_bytes - 1], expected);
  CHECK_INT(w.wire_flags & CFN_WIRE_REDELIVERED, 0);
  return w.token;
}

/* What could not be handed on comes again, in order and once, and nothing is left over. */
static void test_put_back(void) {
  t_case("put back");
  start();
  for (char c = 'a'; c <= 'c'; c++) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &c, 1, 0, NULL), 0);
  cfn_outgoing_t m[3] = {{.body = "d", .body_bytes = 1}, {.body = "e", .body_bytes = 1}, {.body = "f", .body_bytes = 1}};
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, 3, 0, NULL), 0);
  uint64_t token[6];
  for (int i = 0; i < 5; i++) token[i] = take_id(b, (char)('a' + i));
  CHECK_INT(cfn_bus_put_back(b, token[3]), CFN_AGAIN); /* e of its frame was handed out since */
  for (int i = 5; i-- > 1;) CHECK_INT(cfn_bus_put_back(b, token[i]), 0);
  CHECK_INT(cfn_bus_put_back(b, token[4]), CFN_INVALID); /* nobody has it */
  CHECK_INT(cfn_bus_ack(b, &token[1], 1), CFN_INVALID);
  CHECK_INT(cfn_bus_ack(b, &token[0], 1), 0);
  for (int i = 1; i < 6; i++) token[i] = take_id(b, (char)('a' + i));
  CHECK_INT(cfn_bus_ack(b, token + 1, 5), 0);
  char out[1024];
  CHECK_INT(cfn_bus_recv(b, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out), CFN_EMPTY);
  t_check_region(a, true);
  end();
}

static void test_removal(void) {
  t_case("removal");
  start();
  cfn_address_t old, now;
  CHECK_INT(cfn_bus_find(a, "b", &old), 0);
  cfn_receipt_t receipt;
  for (int i = 0; i < 3; i++) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, &i, 4, 0, &receipt), 0);
  CHECK_INT(t_recv(b, 0, &w, body), 4);
  uint64_t dropped;
  CHECK_INT(cfn_bus_unregister(a, "b", 0, &dropped), CFN_AGENT_BUSY);
  CHECK_INT(cfn_bus_unregister(b, "b", 0, &dropped), 0);
  CHECK_INT(dropped, 3);
  CHECK_INT(cfn_bus_find(a, "b", &now), CFN_UNKNOWN_AGENT);
  CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_RECEIPT_DROPPED);
  t_check_nothing_held(a);
  /* the same name again, and names until the record is used again: the old address never fits */
  for (int i = 0; i < 40; i++) {
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    int created;
    CHECK_INT(cfn_bus_register(a, name, NULL, &now, &created), 0);
    CHECK(created);
    CHECK_INT(cfn_bus_send_one(a, old.index, old.mid, CFN_LANE_NORMAL, 0, "x", 1, NULL, 0, 0, 0, NULL),
              CFN_STALE);
    CHECK_INT(t_send(a, name, CFN_LANE_NORMAL, "y", 1, 0, NULL), 0);
    CHECK_INT(cfn_bus_unregister(a, name, 0, &dropped), 0);
    CHECK_INT(dropped, 1);
  }
  t_check_nothing_held(a);
  end();
}

static void test_capacity(void) {
  t_case("capacity");
  start();
  cfn_address_t to;
  int created;
  for (int i = 0; i < 6; i++) {
    char name[16];
    snprintf(name, sizeof name, "more%d", i);
    CHECK_INT(cfn_bus_register(a, name, NULL, &to, &created), 0);
  }
  CHECK_INT(cfn_bus_register(a, "toomany", NULL, &to, &created), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_bus_register(a, "more3", NULL, &to, &created), 0);
  CHECK_INT(created, 0);
  CHECK_INT(cfn_bus_register(a, "a/b", NULL, &to, &created), CFN_BAD_NAME);
  CHECK_INT(cfn_bus_register(a, ".x", NULL, &to, &created), CFN_BAD_NAME);
  CHECK_INT(cfn_bus_register(a, "", NULL, &to, &created), CFN_BAD_NAME);
  static char big[64 * CFN_PAGE + 1]; /* more than the heap */
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, big, sizeof big, 0, NULL), CFN_TOO_LARGE);
  /* a class runs out: the class above helps, then NO_SPACE, while control still gets through */
  int sent = 0, r;
  for (int lane = CFN_LANE_HIGH; lane <= CFN_LANE_LOW; lane++)
    while ((r = t_send(a, "b", (unsigned)lane, big, 3000, 0, NULL)) == 0) sent++;
  CHECK_INT(r, CFN_NO_SPACE);
  CHECK_INT(sent, 3 + 1); /* 4 of 4 KiB less one in reserve, 2 of 16 KiB less one */
  CHECK_INT(t_send(a, "b", CFN_LANE_CONTROL, big, 3000, 0, NULL), 0);
  while (t_recv(b, 0, &w, body) >= 0) CHECK_INT(t_ack(b, w.token), 0);
  t_check_nothing_held(a);
  end();
}

int main(void) {
  test_order_and_ack();
  test_lanes();
  test_full_and_wrap();
  test_few_chunks();
  test_heads();
  test_frames();
  test_deliveries();
  test_deliveries_that_were_not_counted();
  test_batches();
  test_two_readers_and_steal();
  test_request();
  test_put_back();
  test_removal();
  test_capacity();
  t_passed("test_messages");
  return 0;
}
