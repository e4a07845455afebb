/* Messages whose body no chunk holds: sent, asked, answered, broadcast, looked at and taken over as all others are; the
 * body goes with the last message that has it, whatever dies on the way. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/bus.h"
#include "mem/heap.h"
#include "tests/harness.h"

enum { PAGES = 256, LARGE = 200000 };
static cfn_bus_t *a, *b;
static uint8_t body_of[128][LARGE], out[2 * LARGE];

static void start(void) {
  cfn_wish_t wish = t_small_wish();
  wish.object_pages = PAGES;
  wish.objects = 16;
  a = t_open("a", &wish);
  b = t_attach("b");
}
static void end(void) {
  CHECK_INT(t_heap_used(a), 0);
  t_check_region(a, true);
  t_check_nothing_held(a);
  t_close(b);
  t_close(a);
  t_destroy();
}
static int post(cfn_bus_t *bus, const char *to, int id, uint32_t bytes) {
  return t_send(bus, to, CFN_LANE_NORMAL, body_of[id], bytes, 0, NULL);
}
/* The id of the next message; its token in *token. */
static int64_t take(cfn_bus_t *bus, uint64_t *token, int flags) {
  static _Alignas(8) uint8_t wire[sizeof(cfn_wire_t) + 512];
  int64_t n = cfn_bus_recv(bus, NULL, 0, CFN_ALL_LANES, flags, 0, wire, sizeof wire);
  if (n < 0) return n;
  cfn_wire_t w;
  memcpy(&w, wire, sizeof w);
  *token = w.token;
  CHECK(w.wire_flags & CFN_WIRE_EXTERNAL);
  CHECK_INT(w.body_bytes, LARGE);
  CHECK_INT(w.flags & CFN_MESSAGE_OBJECT, 0); /* nobody need know */
  memset(out, 0, sizeof out);
  if (flags & CFN_RECV_VIEW) memcpy(out, (const void *)(uintptr_t)w.external, w.body_bytes);
  else CHECK_INT(cfn_bus_copy_body(bus, w.token, out, w.body_bytes), 0);
  for (int i = 1; i < LARGE; i++) CHECK(out[i] == out[0]);
  return out[0];
}

static void there_and_back(void) {
  t_case("there and back");
  start();
  uint64_t token;
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  for (int round = 0; round < 40; round++) { /* more than the heap holds at once */
    cfn_receipt_t receipt;
    CHECK_INT(cfn_bus_send_one(a, to.index, to.mid, CFN_LANE_NORMAL, 0, body_of[round], LARGE, "t", 1, 0, 0, &receipt), 0);
    CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_RECEIPT_STORED);
    CHECK(t_heap_used(a) >= LARGE);
    cfn_bus_collect(a); /* what a message has is held */
    CHECK_INT(take(b, &token, round % 2 ? CFN_RECV_VIEW : 0), round);
    cfn_bus_collect(a);
    CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_RECEIPT_SEEN);
    CHECK_INT(t_ack(b, token), 0);
    CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_RECEIPT_ACKED);
    cfn_heap_info_t info;
    CHECK_INT(cfn_bus_heap_info(a, &info), 0);
    CHECK_INT(info.used_bytes, 0); /* at once, and not when it is collected */
  }
  CHECK_INT(cfn_bus_largest_body(a), PAGES * CFN_PAGE);
  end();
}

static void too_much(void) {
  t_case("more than there is");
  start();
  uint64_t token;
  int sent = 0, r;
  while ((r = post(a, "b", sent, LARGE)) == 0) sent++;
  CHECK_INT(r, CFN_NO_SPACE);
  CHECK_INT(sent, PAGES / ((LARGE + CFN_PAGE - 1) / CFN_PAGE));
  CHECK(cfn_last_failure()->want == LARGE && cfn_last_failure()->have < LARGE);
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "small", 5, 0, NULL), 0); /* those that need none of it go on */
  for (int i = 0; i < sent; i++) {
    CHECK_INT(take(b, &token, 0), i);
    CHECK_INT(t_ack(b, token), 0);
  }
  CHECK_INT(post(a, "nobody", 1, LARGE), CFN_UNKNOWN_AGENT);
  char text[4096];
  cfn_wire_t w;
  CHECK_INT(t_recv(b, 0, &w, text), 5);
  CHECK_INT(t_ack(b, w.token), 0);
  t_case("no room in the lane");
  for (int i = 0; i < 8; i++) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
  CHECK_INT(post(a, "b", 1, LARGE), CFN_FULL);
  CHECK_INT(t_heap_used(a), 0); /* a body that was not sent is not kept */
  for (int i = 0; i < 8; i++) {
    CHECK_INT(t_recv(b, 0, &w, text), 1);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  end();
}

static void broadcasts(void) {
  t_case("one body for all");
  start();
  cfn_address_t to[6];
  char name[] = "c0";
  for (int i = 0; i < 6; i++) {
    name[1] = (char)('0' + i);
    CHECK_INT(cfn_bus_register(a, name, NULL, &to[i], NULL), 0);
  }
  for (uint32_t bytes = 9000; bytes <= LARGE; bytes += LARGE - 9000) {
    cfn_outgoing_t m = {.body = body_of[7], .body_bytes = bytes};
    int result[6];
    cfn_receipt_t receipt[6];
    CHECK_INT(cfn_bus_broadcast(a, to, 6, CFN_LANE_NORMAL, &m, 0, result, receipt), 6);
    CHECK(t_heap_used(a) < bytes + CFN_PAGE);
    for (int i = 0; i < 6; i++) {
      CHECK(t_heap_used(a) >= bytes); /* as long as one has it */
      name[1] = (char)('0' + i);
      cfn_bus_t *c = t_attach(name);
      static _Alignas(8) uint8_t wire[sizeof(cfn_wire_t) + LARGE + 512];
      int64_t n = cfn_bus_recv(c, NULL, 0, CFN_ALL_LANES, 0, 0, wire, sizeof wire);
      CHECK(n > (int64_t)bytes);
      CHECK_INT(wire[n - 1], 7);
      uint64_t token;
      memcpy(&token, wire, 8);
      CHECK_INT(t_ack(c, token), 0);
      t_close(c);
    }
    CHECK_INT(t_heap_used(a), 0);
  }
  end();
}

static void answers(void) {
  t_case("asked and answered");
  start();
  cfn_address_t to;
  uint64_t correlation;
  static _Alignas(8) uint8_t wire[sizeof(cfn_wire_t) + LARGE + 512];
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  cfn_outgoing_t m = {.body = body_of[3], .body_bytes = LARGE};
  CHECK_INT(cfn_bus_request(a, &to, CFN_LANE_NORMAL, &m, 0, &correlation), 0);
  int64_t n = cfn_bus_recv(b, NULL, 0, CFN_ALL_LANES, 0, 0, wire, sizeof wire);
  CHECK(n > LARGE);
  cfn_wire_t w;
  memcpy(&w, wire, sizeof w);
  cfn_outgoing_t answer = {.body = body_of[4], .body_bytes = LARGE, .correlation = w.correlation};
  CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &answer, 0), 0);
  CHECK_INT(t_ack(b, w.token), 0);
  cfn_bus_collect(b);
  n = cfn_bus_request_wait(a, &to, correlation, t_in(5), wire, sizeof wire);
  CHECK(n > LARGE && wire[n - 1] == 4 && wire[n - LARGE] == 4);
  cfn_bus_request_end(a, correlation);
  end();
}

static void peeks(void) {
  t_case("looked at, taken by another, removed");
  start();
  cfn_address_t to;
  static _Alignas(8) uint8_t wire[2 * (sizeof(cfn_wire_t) + LARGE + 512)];
  uint32_t offsets[4];
  size_t bytes;
  int more;
  uint64_t token, dropped;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  CHECK_INT(post(a, "b", 5, LARGE), 0);
  CHECK_INT(post(a, "b", 6, LARGE), 0);
  CHECK_INT(cfn_bus_peek(a, &to, CFN_ALL_LANES, wire, sizeof wire, offsets, 4, &bytes, &more), 2);
  CHECK(wire[bytes - 1] == 6 && more == 0);
  CHECK_INT(cfn_bus_peek(a, &to, CFN_ALL_LANES, wire, LARGE + 1000, offsets, 4, &bytes, &more), 1);
  CHECK(more);
  CHECK_INT(take(b, &token, 0), 5);
  cfn_bus_t *thief = t_attach(NULL);
  uint64_t inc;
  int owner;
  CHECK_INT(cfn_bus_act_as(thief, "b", NULL, 0, &inc, &owner), 0);
  CHECK_INT(cfn_bus_claim_inbox(thief, 1), 0);
  uint64_t theirs;
  CHECK_INT(take(thief, &theirs, 0), 5);
  CHECK_INT(cfn_bus_copy_body(b, token, out, LARGE), CFN_AGENT_FENCED);
  CHECK_INT(t_ack(thief, theirs), 0);
  t_close(thief);
  CHECK_INT(cfn_bus_unregister(a, "b", CFN_FORCE, &dropped), 0);
  CHECK_INT(dropped, 1);
  end();
}

static void deaths(void) {
  t_case("deaths on the way");
  start();
  for (int at = 0; at < 3; at++) {
    int ready[2];
    CHECK_INT(pipe(ready), 0);
    if (at == 2) { /* b reads no more: another does */
      CHECK_INT(cfn_bus_release_inbox(b), 0);
      CHECK_INT(post(a, "b", 9, LARGE), 0);
    }
    pid_t p = t_fork();
    if (p == 0) {
      uint64_t token;
      cfn_bus_t *c = t_attach(at == 0 ? "sender" : NULL);
      if (at == 0) CHECK_INT(post(c, "b", 9, LARGE), 0);
      if (at == 1) { /* stored, and not sent */
        cfn_hold_t h;
        cfn_filling_t f;
        CHECK_INT(cfn_bus_enter(c), 0);
        CHECK_INT(cfn_bus_store(c, NULL, 0, body_of[9], LARGE, &h, &f), 0);
        cfn_bus_leave(c);
      }
      if (at == 2) {
        uint64_t inc;
        int owner;
        CHECK_INT(cfn_bus_act_as(c, "b", NULL, 0, &inc, &owner), 0);
        CHECK_INT(take(c, &token, CFN_RECV_VIEW), 9);
      }
      CHECK_INT(write(ready[1], "x", 1), 1);
      for (;;) pause();
    }
    char x;
    CHECK_INT(read(ready[0], &x, 1), 1);
    close(ready[0]);
    close(ready[1]);
    t_kill(p, false);
    CHECK_INT(cfn_bus_reap(a), 1);
    cfn_bus_collect(a);
    uint64_t token;
    if (at != 1) { /* it was sent: it is read, again if need be */
      CHECK_INT(take(b, &token, 0), 9);
      CHECK_INT(t_ack(b, token), 0);
    }
    CHECK_INT(t_heap_used(a), 0);
  }
  uint64_t dropped;
  CHECK_INT(cfn_bus_unregister(a, "sender", CFN_FORCE, &dropped), 0);
  end();
}

/* One that fits the record of its object, because its type is long and the chunks are small. */
static void few(void) {
  t_case("few bytes that no chunk holds");
  cfn_wish_t wish = t_small_wish();
  memset(wish.class_chunks, 0, sizeof wish.class_chunks);
  wish.class_chunks[0] = 16;
  a = t_open("a", &wish);
  b = t_attach("b");
  cfn_address_t to;
  char type[130], text[4096];
  cfn_wire_t w;
  memset(type, 't', sizeof type);
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  CHECK_INT(cfn_bus_send_one(a, to.index, to.mid, CFN_LANE_NORMAL, 0, body_of[3], 120, type, 130, 0, 0, NULL), 0);
  CHECK_INT(t_recv(b, 0, &w, text), 120);
  CHECK_INT(memcmp(text, body_of[3], 120), 0);
  CHECK_INT(t_ack(b, w.token), 0);
  end();
}

/* Who was stopped between emptying a slot and letting go of the body wakes up when the chunk has another message. */
static void late_release(void) {
  t_case("a late release");
  cfn_wish_t wish = t_small_wish(); /* few chunks: they are used again soon */
  memset(wish.class_chunks, 0, sizeof wish.class_chunks);
  wish.class_chunks[0] = 4;
  wish.object_pages = PAGES;
  a = t_open("a", &wish);
  b = t_attach("b");
  const cfn_region_t *r = cfn_bus_region(a);
  uint64_t token;
  CHECK_INT(post(a, "b", 1, LARGE), 0);
  CHECK_INT(take(b, &token, 0), 1);
  uint32_t k = 0;
  while (cfn_own_state(cfn_load_seq(&cfn_chunk(r, k)->own)) == CFN_FREE) k++;
  uint64_t done = cfn_own_next(cfn_load_seq(&cfn_chunk(r, k)->own), CFN_DONE, b->actor.me);
  CHECK_INT(t_ack(b, token), 0);
  CHECK_INT(post(a, "b", 2, LARGE), 0);
  while (cfn_own_state(cfn_load_seq(&cfn_chunk(r, k)->own)) == CFN_FREE) CHECK_INT(post(a, "b", 2, LARGE), 0);
  cfn_heap_release_sole(r, cfn_chunk(r, k), done);
  int64_t id;
  while ((id = take(b, &token, 0)) > 0) {
    CHECK_INT(id, 2);
    CHECK_INT(t_ack(b, token), 0);
  }
  CHECK_INT(id, CFN_EMPTY);
  cfn_bus_info_t info;
  CHECK_INT(cfn_bus_info(a, &info), 0);
  CHECK_INT(info.corrupt_dropped, 0);
  end();
}

static void damage(void) {
  t_case("damage");
  start();
  uint64_t token;
  cfn_region_t *r = cfn_bus_region(a);
  for (int what = 0; what < 5; what++) {
    CHECK_INT(post(a, "b", 1, LARGE), 0);
    uint32_t k = 0;
    while (cfn_own_state(cfn_load_seq(&cfn_chunk(r, k)->own)) == CFN_FREE) k++;
    cfn_chunk_shm_t *chunk = cfn_chunk(r, k);
    uint64_t good = cfn_load_seq(&chunk->blob);
    uint8_t *payload = cfn_chunk_payload(r, k, cfn_chunk_class(r, k));
    cfn_object_shm_t place;
    uint8_t *at = payload + 8 + sizeof(cfn_record_shm_t); /* behind the sender's name */
    memcpy(&place, at, sizeof place);
    CHECK_INT(place.bytes, LARGE);
    if (what == 0) cfn_store_seq(&chunk->blob, 0);
    if (what == 1) cfn_store_seq(&chunk->blob, 99999);
    if (what == 2) place.bytes = UINT64_MAX;
    if (what == 3) place.life++;
    if (what == 4) place.blob = 0xffffffffu;
    memcpy(at, &place, sizeof place);
    CHECK_INT(take(b, &token, 0), CFN_EMPTY); /* dropped, and counted */
    (void)good;
  }
  cfn_bus_info_t info;
  CHECK_INT(cfn_bus_info(a, &info), 0);
  CHECK_INT(info.corrupt_dropped, 5);
  cfn_store_seq(&cfn_state(r)->corrupt_dropped, 0);
  end();
}

int main(void) {
  t_guard(120);
  for (int i = 0; i < 128; i++) memset(body_of[i], i, LARGE);
  there_and_back();
  too_much();
  broadcasts();
  answers();
  peeks();
  deaths();
  few();
  late_release();
  damage();
  t_passed("test_large");
  return 0;
}
