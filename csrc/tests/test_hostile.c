/* Words in the region that make no sense: error codes, or messages dropped and counted; never a crash
 * (run it with VARIANT=asan), never an endless loop (the guard's alarm), and the checker says so. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem/directory.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_wire_t w;
static char body[4096];
static uint32_t bi; /* record of "b" */
static const uint64_t absurd[] = {0, 1, 0xff, 0xffff, 0x10000, 0xffffff, 0x1000000, 0x7fffffff,
                                  0xffffffff, UINT64_C(1) << 39, UINT64_C(1) << 40, UINT64_C(1) << 62,
                                  INT64_MAX, UINT64_C(1) << 63, UINT64_MAX};
#define ABSURD (sizeof absurd / sizeof absurd[0])

static void start(void) {
  a = t_open("a", NULL);
  b = t_attach("b");
  r = cfn_bus_region(a);
  cfn_address_t x;
  CHECK_INT(cfn_bus_find(a, "b", &x), 0);
  bi = x.index;
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
}
static void end(void) {
  t_close(b);
  t_close(a);
  t_destroy();
}
static int put(unsigned lane) { return t_send(a, "b", lane, "hello", 5, 0, NULL); }
static cfn_a64 *slot(uint32_t i) { return &cfn_lane_slots(r, bi, CFN_LANE_NORMAL)[i]; }
static cfn_chunk_shm_t *chunk_in(uint32_t i) { return cfn_chunk(r, cfn_slot_ref(cfn_load_seq(slot(i))) - 1); }
static uint64_t dropped(void) { return cfn_load_seq(&cfn_state(r)->corrupt_dropped); }
static int errors(void) { return cfn_region_check(r, NULL, NULL); }

/* Everything a caller can do, whatever comes of it; no call may take the process with it. */
static void exercise(void) {
  cfn_address_t x = {cfn_load_seq(&cfn_mailbox(r, bi)->mid), bi}, all[16];
  cfn_agent_info_t info;
  cfn_bus_info_t bus;
  cfn_receipt_t receipt = {.mid = x.mid, .mailbox = bi, .count = 1, .lane = CFN_LANE_NORMAL};
  uint32_t offsets[64];
  size_t used;
  uint64_t n;
  int created;
  static uint8_t out[200000];
  for (unsigned lane = 0; lane < CFN_LANES; lane++)
    for (int i = 0; i < 10; i++) put(lane);
  for (int i = 0; i < 50; i++) {
    if (t_recv(b, 0, &w, body) < 0) break;
    if (i % 3) t_ack(b, w.token);
  }
  cfn_bus_peek(a, &x, CFN_ALL_LANES, out, sizeof out, offsets, 64, &used, &(int){0});
  cfn_bus_agent_info(a, &x, &info);
  cfn_bus_info(a, &bus);
  cfn_bus_agents(a, all, 16);
  cfn_bus_receipt(a, &receipt, 0);
  cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_ACKED, t_in(0.001));
  t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0.001, NULL);
  cfn_bus_register(a, "one", NULL, &x, &created);
  cfn_bus_unregister(a, "one", 0, &n);
  cfn_bus_t *thief = NULL;
  if (cfn_bus_open(NULL, t_bus_name(), NULL, 0, &thief, &created) == 0) {
    uint64_t inc;
    int owner;
    if (cfn_bus_act_as(thief, "b", NULL, CFN_ACT_OWN, &inc, &owner) == 0) {
      cfn_bus_claim_inbox(thief, 1);
      for (int i = 0; i < 50 && t_recv(thief, 0, &w, body) >= 0; i++) t_ack(thief, w.token);
    }
    t_close(thief);
  }
  cfn_bus_reap(a);
  cfn_bus_unregister(a, "b", CFN_FORCE, &n);
  errors();
}

static void bad_slots(void) {
  t_case("a slot that names no chunk is dropped, counted and reported");
  start();
  CHECK_INT(put(CFN_LANE_NORMAL), 0);
  CHECK_INT(put(CFN_LANE_NORMAL), 0);
  uint64_t keep = cfn_load_seq(slot(0));
  cfn_store_seq(slot(0), cfn_slot_word(0, r->geo.chunks + 1));
  CHECK(errors() > 0);
  CHECK_INT(t_recv(b, 0, &w, body), 5);
  CHECK_INT(w.position, 1);
  CHECK_INT(dropped(), 1);
  CHECK_INT(t_ack(b, w.token), 0);
  CHECK(cfn_slab_free(r, cfn_slot_ref(keep) - 1, cfn_load_seq(&cfn_chunk(r, cfn_slot_ref(keep) - 1)->own)));
  for (int i = 0; i < 8; i++) CHECK_INT(put(CFN_LANE_NORMAL), 0); /* the slot is of use again */
  CHECK_INT(put(CFN_LANE_NORMAL), CFN_FULL);
  end();

  for (int what = 0; what < 4; what++) {
    t_case("a slot that was damaged holds up nobody (%d)", what);
    start();
    for (int lap = 0; lap < 2; lap++) /* so that there is a lap before */
      for (int i = 0; i < 8; i++) {
        CHECK_INT(put(CFN_LANE_NORMAL), 0);
        CHECK_INT(t_recv(b, 0, &w, body), 5);
        CHECK_INT(t_ack(b, w.token), 0);
      }
    for (int i = 0; i < 8; i++) CHECK_INT(put(CFN_LANE_NORMAL), 0);
    uint64_t was = cfn_load_seq(slot(2));
    static const uint64_t lap_off[] = {1, 2};
    cfn_store_seq(slot(2), what == 0   ? 0
                           : what == 1 ? cfn_slot_word(cfn_slot_lap(was), 0)
                                       : cfn_slot_word(cfn_slot_lap(was) - lap_off[what - 2], cfn_slot_ref(was)));
    for (int i = 0; i < 8; i++) {
      if (i == 2) continue;
      CHECK_INT(t_recv(b, 0, &w, body), 5);
      CHECK_INT(w.position, 16 + i);
      CHECK_INT(t_ack(b, w.token), 0);
    }
    CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
    CHECK_INT(dropped(), 1);
    for (int lap = 0; lap < 2; lap++) {
      for (int i = 0; i < 8; i++) CHECK_INT(put(CFN_LANE_NORMAL), 0);
      CHECK_INT(put(CFN_LANE_NORMAL), CFN_FULL);
      for (int i = 0; i < 8; i++) {
        CHECK_INT(t_recv(b, 0, &w, body), 5);
        CHECK_INT(w.position, 24 + 8 * lap + i);
        CHECK_INT(t_ack(b, w.token), 0);
      }
    }
    end();
  }
  for (int what = 0; what < 3; what++) {
    static const uint64_t far[] = {1000, UINT64_C(1) << 50, UINT64_MAX};
    t_case("a tail that is far off is put right by the reader (%d)", what);
    start();
    for (int i = 0; i < 20; i++) {
      CHECK_INT(put(CFN_LANE_NORMAL), 0);
      CHECK_INT(t_recv(b, 0, &w, body), 5);
      CHECK_INT(t_ack(b, w.token), 0);
    }
    cfn_store_seq(&cfn_mailbox(r, bi)->lane[CFN_LANE_NORMAL].tail, far[what]);
    CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
    for (int i = 0; i < 20; i++) {
      CHECK_INT(put(CFN_LANE_NORMAL), 0);
      CHECK_INT(t_recv(b, 0, &w, body), 5);
      CHECK_INT(w.position, 20 + i);
      CHECK_INT(t_ack(b, w.token), 0);
    }
    t_check_region(a, true);
    end();
  }

  for (unsigned state = 0; state < 8; state++) {
    if (state == CFN_MINE || state == CFN_TAKEN || state == CFN_DONE) continue;
    t_case("a referenced chunk with owner state %u", state);
    start();
    CHECK_INT(put(CFN_LANE_NORMAL), 0);
    CHECK_INT(put(CFN_LANE_NORMAL), 0);
    cfn_store_seq(&chunk_in(0)->own, cfn_own_word(9, state, 0));
    CHECK(errors() > 0);
    CHECK_INT(t_recv(b, 0, &w, body), 5);
    CHECK_INT(w.position, 1);
    CHECK_INT(dropped(), 1);
    CHECK_INT(t_ack(b, w.token), 0);
    exercise();
    end();
  }

  t_case("two slots name one chunk");
  start();
  CHECK_INT(put(CFN_LANE_NORMAL), 0);
  CHECK_INT(put(CFN_LANE_NORMAL), 0);
  cfn_store_seq(slot(1), cfn_load_seq(slot(0)));
  CHECK(errors() > 0);
  exercise();
  end();

  for (unsigned v = 0; v < ABSURD; v++)
    for (uint32_t i = 0; i < 8; i += 7) {
      t_case("slot %u = %llx", i, (unsigned long long)absurd[v]);
      start();
      for (int n = 0; n < 5; n++) CHECK_INT(put(CFN_LANE_NORMAL), 0);
      cfn_store_seq(slot(i), absurd[v]);
      exercise();
      end();
    }
}

/* ---- frames ---- */

static void bad_frames(void) {
  static const uint32_t values[] = {0,      1,       2,        63,         64,         200,        255, 256, 257,
                                    65536, 0xfffff, 0xffffff, 0x7ffffff8, 0x7fffffff, UINT32_MAX};
  for (unsigned what = 0; what < 7; what++)
    for (unsigned v = 0; v < sizeof values / sizeof values[0]; v++)
      for (uint32_t count = 1; count <= 3; count += 2) {
        t_case("frame of %u, field %u = %#x", count, what, values[v]);
        start();
        cfn_outgoing_t m[3] = {{.body = "one", .body_bytes = 3}, {.body = "two", .body_bytes = 3},
                               {.body = "six", .body_bytes = 3}};
        cfn_address_t x = {cfn_load_seq(&cfn_mailbox(r, bi)->mid), bi};
        CHECK_INT(cfn_bus_send(a, &x, CFN_LANE_NORMAL, m, count, 0, NULL), 0);
        CHECK_INT(put(CFN_LANE_NORMAL), 0);
        cfn_chunk_shm_t *c = chunk_in(0);
        uint32_t k = cfn_slot_ref(cfn_load_seq(slot(0))) - 1;
        uint8_t *payload = cfn_chunk_payload(r, k, cfn_chunk_class(r, k));
        uint32_t head = (uint32_t)cfn_frame_head_bytes(c->name_bytes, count);
        uint32_t *offsets = (uint32_t *)(void *)(payload + cfn_pad8(c->name_bytes));
        cfn_record_shm_t *record = (cfn_record_shm_t *)(void *)(payload + head);
        if (what == 0) c->bytes = values[v];
        if (what == 1) c->count = values[v];
        if (what == 2) c->name_bytes = (uint8_t)values[v];
        if (what == 3) record->body_bytes = values[v];
        if (what == 4) record->type_bytes = (uint8_t)values[v];
        if (what == 5 && count > 1) offsets[1] = values[v];
        if (what == 6) { /* all of it */
          c->bytes = c->count = values[v];
          memset(payload, (int)values[v], 256);
        }
        int handed = 0;
        while (t_recv(b, 0, &w, body) >= 0) {
          handed++;
          CHECK(handed < 40);
          if (w.position == 0) CHECK(w.body_bytes <= 256);
          else CHECK_INT(memcmp(body, "hello", 5), 0); /* the next message is untouched */
          CHECK_INT(t_ack(b, w.token), 0);
        }
        CHECK(handed >= 1);
        CHECK(dropped() || handed >= 2);
        if (what == 0 && values[v] > cfn_class_room(&r->geo.config, cfn_chunk_class(r, k))) CHECK(dropped() > 0);
        exercise();
        end();
      }
}

/* ---- cursors, holders, names ---- */

static void bad_words(void) {
  for (unsigned v = 0; v < ABSURD; v++)
    for (int what = 0; what < 14; what++) {
      /* tail far behind the laps is walked one by one: see bug_endless_send.c */
      t_case("word %d = %llx", what, (unsigned long long)absurd[v]);
      start();
      for (int i = 0; i < 3; i++) CHECK_INT(put(CFN_LANE_NORMAL), 0);
      cfn_mailbox_shm_t *m = cfn_mailbox(r, bi);
      cfn_lane_shm_t *l = &m->lane[CFN_LANE_NORMAL];
      cfn_attach_shm_t *slot_b = cfn_attachment(r, cfn_bus_attachment(b));
      cfn_a64 *words[] = {&l->head, &l->tail, &l->seen, &m->rlap, &m->consumer, &m->owner,
                          &chunk_in(0)->part[0], &m->mid, &cfn_state(r)->intent,
                          &slot_b->reply_head, &slot_b->reply_tail, &slot_b->reply_rlap, &m->inc_base,
                          &cfn_state(r)->attach_top};
      cfn_store_seq(words[what], absurd[v]);
      exercise();
      end();
    }
  for (unsigned v = 0; v < ABSURD; v++) {
    t_case("announcements and directory = %llx", (unsigned long long)absurd[v]);
    start();
    pid_t p = t_fork();
    if (p == 0) {
      cfn_bus_t *dead = t_attach("dead");
      cfn_attach_shm_t *s = cfn_attachment(r, cfn_bus_attachment(dead));
      for (unsigned c = 0; c < CFN_REGISTERS; c++) cfn_store_seq(&s->reg[c], absurd[v]);
      for (unsigned h = 1; h < CFN_HOLDS; h++) cfn_store_seq(&s->holds[h], absurd[v]);
      for (unsigned i = 0; i < CFN_REPLY_SLOTS; i++) cfn_store_seq(&s->reply_slot[i], absurd[v]);
      _exit(0);
    }
    t_join(p);
    CHECK_INT(cfn_bus_reap(a), 1);
    cfn_address_t x;
    for (uint32_t i = 0; i < r->geo.config.directory_slots; i++)
      cfn_store_seq(&cfn_directory(r)[i], absurd[v]);
    CHECK_INT(cfn_bus_find(a, "nobody", &x), CFN_UNKNOWN_AGENT);
    exercise();
    end();
  }
}

/* What the checker must find: {what is broken} -> at least one error. */
static void reported(void) {
  for (int what = 0; what < 9; what++) {
    t_case("the checker reports damage %d", what);
    start();
    CHECK_INT(put(CFN_LANE_NORMAL), 0);
    t_check_region(a, true);
    cfn_mailbox_shm_t *m = cfn_mailbox(r, bi);
    cfn_lane_shm_t *l = &m->lane[CFN_LANE_NORMAL];
    switch (what) {
      case 0: cfn_store_seq(&l->head, 1000); break;
      case 1: cfn_store_seq(&l->tail, 1000); break;
      case 2: cfn_store_seq(&l->seen, cfn_place(1000, 0)); break;
      case 3: cfn_store_seq(&chunk_in(0)->target, 12345); break;
      case 4: cfn_store_seq(&m->consumer, cfn_consumer_word(1, 0xfff0)); break;
      case 5: cfn_store_seq(&m->owner, cfn_owner_word(1, 0xfff0)); break;
      case 6: cfn_store_seq(&cfn_directory(r)[0], cfn_dir_word(1, 0xfffff0)); break;
      case 7: cfn_store_seq(&cfn_state(r)->intent, cfn_intent_word(1, 0, 0xfffff0)); break;
      case 8: cfn_store_seq(&cfn_chunk(r, 20)->own, cfn_own_word(1, CFN_MINE, 200)); break;
    }
    CHECK(errors() > 0);
    end();
  }
}

int main(void) {
  t_guard(300);
  bad_slots();
  bad_frames();
  bad_words();
  reported();
  t_passed("test_hostile");
  return 0;
}
