/* What stands in the region at rest: what is announced is erased when it is over, a record or slot that is used
 * again holds nothing of its last user, counters count, and what a bus tells of itself is true. */
#include <string.h>
#include <unistd.h>

#include "agent/bus.h"
#include "agent/liveness.h"
#include "base/os.h"
#include "mem/directory.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_wire_t w;
static char body[4096];

static void start(void) {
  a = t_open("a", NULL);
  b = t_attach("b");
  r = cfn_bus_region(a);
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
}
static void end(void) {
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}
static int put(const char *to) { return t_send(a, to, CFN_LANE_NORMAL, "hello", 5, 0, NULL); }
static void take(void) { CHECK_INT(t_recv(b, 0, &w, body), 5); }
static cfn_attach_shm_t *slot_of(cfn_bus_t *bus) { return cfn_attachment(r, cfn_bus_attachment(bus)); }
static uint64_t count(cfn_bus_t *bus, unsigned which) { return cfn_load_seq(&slot_of(bus)->counter[which]); }

/* ---- announcements ---- */

static void nothing_announced_at(cfn_bus_t *bus, int line) {
  for (unsigned c = 0; c < CFN_REGISTERS; c++)
    if (cfn_load_seq(&slot_of(bus)->reg[c])) {
      fprintf(stderr, "register %u is still set\n", c);
      t_fail(__FILE__, line, "what is over is announced no more");
    }
}
#define NOTHING_ANNOUNCED(bus) nothing_announced_at(bus, __LINE__)
static unsigned held(cfn_bus_t *bus) {
  unsigned n = 0;
  for (unsigned h = 0; h < CFN_HOLDS; h++) n += cfn_load_seq(&slot_of(bus)->holds[h]) != 0;
  return n;
}

static void announcements(void) {
  cfn_address_t at;
  int created;
  uint64_t dropped, c;
  char out[512];
  start();
  t_case("announcements after a send, a full inbox, no chunk");
  CHECK_INT(put("b"), 0);
  NOTHING_ANNOUNCED(a);
  for (int i = 0; i < 7; i++) CHECK_INT(put("b"), 0);
  CHECK_INT(put("b"), CFN_FULL);
  NOTHING_ANNOUNCED(a);
  static uint8_t big[60000];
  CHECK_INT(cfn_bus_register(a, "c", NULL, &at, &created), 0);
  CHECK_INT(t_send(a, "c", CFN_LANE_NORMAL, big, sizeof big, 0, NULL), 0);
  CHECK_INT(t_send(a, "c", CFN_LANE_NORMAL, big, sizeof big, 0, NULL), CFN_NO_SPACE);
  NOTHING_ANNOUNCED(a);
  t_case("... a take, acks in order and out of it");
  uint64_t token[8];
  for (int i = 0; i < 8; i++) {
    take();
    token[i] = w.token;
    NOTHING_ANNOUNCED(b);
  }
  static const int order[] = {3, 0, 1, 2, 7, 6, 5, 4};
  for (int i = 0; i < 8; i++) {
    CHECK_INT(t_ack(b, token[order[i]]), 0);
    NOTHING_ANNOUNCED(b);
  }
  t_case("... a registration, of a name that exists, of one too many; a removal");
  NOTHING_ANNOUNCED(a);
  CHECK_INT(cfn_bus_register(a, "c", NULL, &at, &created), 0);
  CHECK_INT(created, 0);
  NOTHING_ANNOUNCED(a);
  char name[16];
  int n = 0;
  do {
    snprintf(name, sizeof name, "more%d", n++);
  } while (cfn_bus_register(a, name, NULL, &at, &created) == 0);
  CHECK_INT(cfn_last_failure()->code, CFN_OVER_CAPACITY);
  NOTHING_ANNOUNCED(a);
  CHECK_INT(cfn_bus_unregister(a, "c", 0, &dropped), 0);
  CHECK_INT(dropped, 1);
  NOTHING_ANNOUNCED(a);
  t_case("... request and reply");
  CHECK_INT(cfn_bus_find(a, "b", &at), 0);
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
  CHECK_INT(cfn_bus_request(a, &at, CFN_LANE_NORMAL, &m, 0, &c), 0);
  CHECK_INT(t_recv(b, 0, &w, body), 1);
  cfn_outgoing_t yes = {.body = "!", .body_bytes = 1, .correlation = w.correlation};
  CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &yes, 0), 0);
  NOTHING_ANNOUNCED(b);
  CHECK(cfn_bus_request_wait(a, &at, c, 0, out, sizeof out) > 0);
  NOTHING_ANNOUNCED(a);
  cfn_bus_request_end(a, c);
  CHECK_INT(t_ack(b, w.token), 0);

  t_case("words that name us are announced as long as they do");
  CHECK_INT(held(a), 1); /* owner */
  CHECK_INT(held(b), 1); /* owner and consumer of one */
  CHECK_INT(cfn_bus_release_inbox(b), 0);
  CHECK_INT(held(b), 1);
  CHECK_INT(cfn_bus_unregister(b, "b", CFN_FORCE, &dropped), 0);
  CHECK_INT(held(b), 0);
  t_close(b);
  b = t_attach("b");
  CHECK_INT(held(b), 1);
  end();
}

/* ---- used again ---- */

static void used_again(void) {
  t_case("a record used again holds nothing of the last one's");
  start();
  cfn_profile_t profile = {{"type", "team", "can this", "tag", "status"}};
  cfn_address_t first, second;
  cfn_agent_info_t info;
  uint64_t inc, dropped, before = cfn_os_wall_ns();
  int owner, created;
  CHECK_INT(cfn_bus_register(a, "one", &profile, &first, &created), 0);
  CHECK_INT(cfn_bus_agent_info(a, &first, &info), 0);
  for (unsigned t = 0; t < CFN_TEXTS; t++) CHECK_INT(strcmp(info.text[t], profile.text[t]), 0);
  CHECK(info.registered_wall_ns >= before && info.registered_wall_ns <= cfn_os_wall_ns());
  CHECK_INT(info.incarnation, 0);
  CHECK_INT(info.owner_pid, 0);
  for (int i = 1; i <= 3; i++) {
    cfn_bus_t *one = NULL;
    CHECK_INT(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &one, NULL), 0);
    CHECK_INT(cfn_bus_act_as(one, "one", NULL, CFN_ACT_OWN, &inc, &owner), 0);
    CHECK_INT(inc, i);
    CHECK_INT(owner, 1);
    CHECK_INT(t_send(one, "b", CFN_LANE_NORMAL, "hello", 5, 0, NULL), 0);
    CHECK_INT(cfn_bus_agent_info(a, &first, &info), 0);
    CHECK_INT(info.incarnation, i);
    CHECK_INT(info.owner_pid, getpid());
    CHECK_INT(info.sent, i);
    CHECK_INT(info.life, CFN_LIFE_ALIVE);
    t_close(one);
    CHECK_INT(cfn_bus_agent_info(a, &first, &info), 0);
    CHECK_INT(info.owner_pid, 0); /* it left in order */
    CHECK_INT(info.life, CFN_LIFE_NONE);
  }
  CHECK_INT(put("one"), 0);
  CHECK_INT(cfn_bus_agent_info(a, &first, &info), 0);
  CHECK_INT(info.depth[CFN_LANE_NORMAL], 1);
  CHECK_INT(cfn_bus_unregister(a, "one", 0, &dropped), 0);
  CHECK_INT(cfn_bus_agent_info(a, &first, &info), CFN_STALE);
  cfn_store_seq(&cfn_state(r)->mailbox_hint, first.index);
  before = cfn_os_wall_ns();
  CHECK_INT(cfn_bus_register(a, "two", NULL, &second, &created), 0);
  CHECK_INT(second.index, first.index);
  CHECK_INT(cfn_bus_agent_info(a, &second, &info), 0);
  for (unsigned t = 0; t < CFN_TEXTS; t++) CHECK_INT(info.text[t][0], 0);
  CHECK_INT(info.sent, 0);
  CHECK_INT(info.incarnation, 0);
  CHECK_INT(info.owner_pid, 0);
  CHECK(info.registered_wall_ns >= before);
  for (unsigned l = 0; l < CFN_LANES; l++) CHECK_INT(info.depth[l], 0);
  CHECK_INT(cfn_load_seq(&cfn_state(r)->mailbox_hint), first.index + 1);

  t_case("the old address reaches nobody");
  cfn_receipt_t receipt = {.mid = first.mid, .mailbox = first.index, .count = 1, .lane = CFN_LANE_NORMAL};
  CHECK_INT(cfn_bus_send_one(a, first.index, first.mid, CFN_LANE_NORMAL, 0, "x", 1, NULL, 0, 0, 0, NULL), CFN_STALE);
  CHECK_INT(cfn_bus_judge_agent(a, &first), CFN_STALE);
  CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_RECEIPT_DROPPED);
  cfn_actor_t me = {r, slot_of(a), cfn_bus_attachment(a)};
  uint64_t consumer;
  uint32_t holder;
  CHECK_INT(cfn_registry_take_consumer(&me, first.index, first.mid, true, &consumer, &holder), CFN_STALE);
  CHECK_INT(cfn_registry_take_owner(&me, first.index, first.mid, &inc, &holder), CFN_STALE);
  CHECK_INT(cfn_directory_remove(r, first.index, first.mid), CFN_STALE);
  CHECK_INT(cfn_bus_find(a, "two", &first), 0);

  t_case("a status written over another");
  cfn_profile_t status = {{NULL, NULL, NULL, NULL, "a longer line of status than before, of several words"}};
  CHECK_INT(cfn_bus_set_profile(a, "two", &status), 0);
  CHECK_INT(cfn_bus_agent_info(a, &second, &info), 0);
  CHECK_INT(strcmp(info.text[CFN_TEXT_STATUS], status.text[CFN_TEXT_STATUS]), 0);
  CHECK_INT(info.readable, 1);
  status.text[CFN_TEXT_STATUS] = "short";
  CHECK_INT(cfn_bus_set_profile(a, "two", &status), 0);
  CHECK_INT(cfn_bus_agent_info(a, &second, &info), 0);
  CHECK_INT(strcmp(info.text[CFN_TEXT_STATUS], "short"), 0);
  end();

  t_case("a slot used again holds nothing of the last one's, whatever it left");
  start();
  cfn_bus_t *c = t_attach("c");
  uint32_t i = cfn_bus_attachment(c);
  cfn_attach_shm_t *slot = cfn_attachment(r, i);
  uint64_t nonce = cfn_load_seq(&slot->nonce), id = cfn_load_seq(&slot->id);
  t_close(c);
  CHECK_INT(cfn_id_state(cfn_load_seq(&slot->id)), CFN_ID_VACANT);
  for (unsigned k = 0; k < CFN_REGISTERS; k++) cfn_store_seq(&slot->reg[k], 3);
  for (unsigned h = 0; h < CFN_HOLDS; h++) cfn_store_seq(&slot->holds[h], 2);
  for (unsigned k = 0; k < CFN_CLASSES; k++) cfn_store_seq(&slot->hint_taken[k], 2);
  cfn_store_seq(&slot->hint_freed, 2);
  cfn_store_seq(&slot->waiting, UINT64_C(2) << 56);
  cfn_store_seq(&slot->agent, 2);
  cfn_store_seq(&slot->pid, 1);
  cfn_store_seq(&slot->pid_ns, 1);
  cfn_store_seq(&slot->time_ns, 1);
  cfn_store_seq(&slot->start_time, 1);
  cfn_store_seq(&slot->pidfs_ino, 1);
  cfn_store_seq(&cfn_state(r)->attach_hint, i);
  cfn_store_seq(&cfn_state(r)->attach_top, 50); /* somebody has been there */
  before = cfn_os_wall_ns();
  CHECK_INT(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &c, NULL), 0);
  CHECK_INT(cfn_bus_attachment(c), i);
  CHECK_INT(cfn_load_seq(&cfn_state(r)->attach_hint), i + 1);
  CHECK_INT(cfn_load_seq(&cfn_state(r)->attach_top), 50); /* it only grows */
  CHECK_INT(cfn_id_inc(cfn_load_seq(&slot->id)), cfn_id_inc(id) + 1);
  CHECK_INT(cfn_id_state(cfn_load_seq(&slot->id)), CFN_ID_LIVE);
  CHECK(cfn_load_seq(&slot->nonce) != nonce);
  NOTHING_ANNOUNCED(c);
  CHECK_INT(held(c), 0);
  for (unsigned k = 0; k < CFN_CLASSES; k++) CHECK_INT(cfn_load_seq(&slot->hint_taken[k]), 0);
  CHECK_INT(cfn_load_seq(&slot->hint_freed), 0);
  CHECK_INT(cfn_load_seq(&slot->waiting), 0);
  CHECK_INT(cfn_load_seq(&slot->agent), 0);
  cfn_identity_t mine;
  cfn_os_identity(&mine);
  CHECK_INT(cfn_load_seq(&slot->pid), mine.pid);
  CHECK_INT(cfn_load_seq(&slot->pid_ns), mine.pid_ns);
  CHECK_INT(cfn_load_seq(&slot->time_ns), mine.time_ns);
  CHECK_INT(cfn_load_seq(&slot->start_time), mine.start_time);
  CHECK_INT(cfn_load_seq(&slot->pidfs_ino), mine.pidfs_ino);
  CHECK(cfn_load_seq(&slot->attached_wall_ns) >= before);
  t_close(c);
  end();
}

/* ---- hints of free chunks ---- */

static uint32_t findable(void) {
  uint32_t n = 0;
  for (unsigned c = 0; c < CFN_CLASSES; c++) n += cfn_slab_free_hint(r, c);
  return n;
}

static void hints(void) {
  t_case("a reader that goes on reading gives the hints of what it freed back now and then");
  start();
  uint32_t before = findable(), most = CFN_HINTS_AT_ONCE;
  CHECK_INT(put("b"), 0);
  take();
  CHECK_INT(t_ack(b, w.token), 0);
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < 8; i++) CHECK_INT(put("b"), 0);
    for (int i = 0; i < 8; i++) {
      take();
      CHECK_INT(t_ack(b, w.token), 0);
    }
    CHECK(findable() + 2 * most >= before); /* what the sender took in advance, and what is not told yet */
  }
  CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
  CHECK(findable() + most >= before);
  t_close(b);
  b = t_attach("b");

  t_case("one that dies before it told them loses none");
  for (int i = 0; i < 5; i++) CHECK_INT(put("b"), 0);
  t_close(b);
  pid_t p = t_fork();
  if (p == 0) {
    b = t_attach("b");
    for (int i = 0; i < 5; i++) {
      take();
      CHECK_INT(t_ack(b, w.token), 0);
    }
    _exit(0);
  }
  t_join(p);
  CHECK_INT(cfn_bus_reap(a), 1);
  uint32_t taken = 0; /* by the sender, for its next messages */
  for (unsigned c = 0; c < CFN_CLASSES; c++) taken += (uint32_t)__builtin_popcountll(a->outbox.cursor.taken[c]);
  CHECK_INT(findable() + taken, r->geo.chunks);
  b = t_attach("b");
  end();
}

/* A home whose free chunks are all kept for control messages draws nobody there. */
static void homes(void) {
  t_case("a claimer goes home when it may take a handful there");
  cfn_wish_t wish = t_small_wish();
  wish.class_chunks[0] = 20 * 64;
  a = t_open("a", &wish);
  b = t_attach("b");
  r = cfn_bus_region(a);
  unsigned me = (unsigned)cfn_bus_attachment(a);
  cfn_a64 *cell = &slot_of(a)->reg[CFN_REG_SEND];
  uint32_t limit = 20 * 64 - r->geo.class_reserved[0], last = (limit - 1) / 64;
  CHECK(limit % 64 && last >= 16);
  cfn_slab_cursor_t cursor = {0};
  for (uint32_t i = 0; i < limit; i++) CHECK(cfn_slab_claim(r, me, cell, 0, false, false, &cursor) >= 0);
  CHECK_INT(cfn_slab_claim(r, me, cell, 0, false, false, &cursor), CFN_NO_SPACE);
  for (uint32_t k = 0; k < limit; k++)
    if (k / 64 == 2 || k / 64 == 10) CHECK(cfn_slab_free(r, k, cfn_load_seq(&cfn_chunk(r, k)->own)));
  cursor.home[0] = last;
  cursor.word[0] = 10;
  CHECK_INT(cfn_slab_claim(r, me, cell, 0, false, false, &cursor) / 64, 10);
  cfn_slab_return_hints(r, &cursor);
  cursor.home[0] = 2;
  cursor.word[0] = 9; /* not far enough gone */
  CHECK_INT(cfn_slab_claim(r, me, cell, 0, false, false, &cursor) / 64, 10);
  cfn_slab_return_hints(r, &cursor);
  cursor.word[0] = 10;
  CHECK_INT(cfn_slab_claim(r, me, cell, 0, false, false, &cursor) / 64, 2);
  cfn_slab_return_hints(r, &cursor);
  for (uint32_t k = 0; k < limit; k++) {
    uint64_t own = cfn_load_seq(&cfn_chunk(r, k)->own);
    if (cfn_own_state(own) != CFN_FREE) CHECK(cfn_slab_free(r, k, own));
  }
  cfn_store_seq(cell, 0);
  end();
}

/* ---- counters ---- */

static void counters(void) {
  t_case("counters count");
  start();
  cfn_address_t at;
  uint64_t c, slept = count(b, CFN_COUNT_WAITS);
  char out[512];
  CHECK_INT(cfn_bus_find(a, "b", &at), 0);
  for (int i = 0; i < 8; i++) CHECK_INT(put("b"), 0);
  CHECK_INT(put("b"), CFN_FULL);
  CHECK_INT(count(a, CFN_COUNT_SENT), 8);
  CHECK(count(a, CFN_COUNT_SENT_BYTES) >= 8 * 5);
  CHECK_INT(count(a, CFN_COUNT_FULL), 1);
  for (int i = 0; i < 3; i++) take();
  CHECK_INT(count(b, CFN_COUNT_RECEIVED), 3);
  CHECK_INT(t_ack(b, w.token), 0);
  CHECK_INT(count(b, CFN_COUNT_ACKED), 1);
  CHECK_INT(count(b, CFN_COUNT_REDELIVERED), 0);
  t_close(b);
  b = t_attach("b");
  uint64_t again = count(b, CFN_COUNT_REDELIVERED), received = count(b, CFN_COUNT_RECEIVED);
  for (int i = 0; i < 7; i++) {
    take();
    CHECK_INT((w.wire_flags & CFN_WIRE_REDELIVERED) != 0, i < 2);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  CHECK_INT(count(b, CFN_COUNT_REDELIVERED), again + 2);
  CHECK_INT(count(b, CFN_COUNT_RECEIVED), received + 7);
  slept = count(b, CFN_COUNT_WAITS);
  CHECK_INT(t_recv(b, 0.002, &w, body), CFN_EMPTY);
  CHECK(count(b, CFN_COUNT_WAITS) > slept);
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
  uint64_t replies = count(b, CFN_COUNT_REPLIES), late = count(a, CFN_COUNT_REPLIES_LATE);
  for (int i = 0; i < 2; i++) {
    CHECK_INT(cfn_bus_request(a, &at, CFN_LANE_NORMAL, &m, 0, &c), 0);
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    if (i) cfn_bus_request_end(a, c); /* gave up */
    cfn_outgoing_t yes = {.body = "!", .body_bytes = 1, .correlation = w.correlation};
    CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &yes, 0), 0);
    CHECK_INT(count(b, CFN_COUNT_REPLIES), replies + 1 + (uint64_t)i);
    if (i) CHECK_INT(cfn_bus_request(a, &at, CFN_LANE_NORMAL, &m, 0, &c), 0);
    if (i) CHECK_INT(cfn_bus_request_wait(a, &at, c, 0, out, sizeof out), CFN_TIMEOUT);
    else CHECK(cfn_bus_request_wait(a, &at, c, 0, out, sizeof out) > 0);
    cfn_bus_request_end(a, c);
    CHECK_INT(t_ack(b, w.token), 0);
    CHECK_INT(count(a, CFN_COUNT_REPLIES_LATE), late + (uint64_t)i);
  }
  cfn_bus_info_t info;
  CHECK_INT(cfn_bus_info(a, &info), 0);
  CHECK(info.counter[CFN_COUNT_SENT] >= 8);
  end();
}

/* ---- what a process says it waits for ---- */

static int wait_once(void) { /* until a message or the next safety tick */
  char out[512];
  return (int)cfn_bus_recv(b, NULL, 0, CFN_ALL_LANES, 0, CFN_FOREVER, out, sizeof out);
}
static void waits(void) {
  start();
  t_case("what it waits for, and since when, over safety ticks");
  uint64_t before = cfn_os_wall_ns();
  CHECK_INT(wait_once(), CFN_INTERRUPTED);
  uint64_t since = cfn_load_seq(&slot_of(b)->waiting_since);
  CHECK(since >= before && since <= cfn_os_wall_ns());
  CHECK_INT(cfn_load_seq(&slot_of(b)->waiting), 0); /* it does not sleep just now */
  CHECK_INT(wait_once(), CFN_INTERRUPTED);
  CHECK(cfn_load_seq(&slot_of(b)->waiting_since) == since); /* one wait */
  t_case("another wait begins anew");
  CHECK_INT(put("b"), 0);
  CHECK(wait_once() > 0);
  CHECK_INT(t_recv(b, 0.002, &w, body), CFN_EMPTY);
  cfn_bus_ack(b, &w.token, 1);
  pid_t child = t_fork(); /* wakes it, which ends that wait */
  if (child == 0) {
    cfn_bus_t *c = t_attach("c");
    t_until_waits(c, "b", CFN_WAIT_INBOX);
    CHECK_INT(t_send(c, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
    t_close(c);
    _exit(0);
  }
  int got;
  do got = wait_once();
  while (got == CFN_INTERRUPTED);
  CHECK(got > 0);
  t_join(child);
  uint64_t first = cfn_load_seq(&slot_of(b)->waiting_since);
  CHECK_INT(wait_once(), CFN_INTERRUPTED);
  CHECK(cfn_load_seq(&slot_of(b)->waiting_since) > first);
  t_case("whose agent was unregistered acts as nobody");
  uint64_t dropped;
  CHECK(cfn_load_seq(&slot_of(b)->agent) != 0);
  CHECK_INT(cfn_bus_unregister(b, "b", 0, &dropped), 0);
  CHECK_INT(cfn_load_seq(&slot_of(b)->agent), 0);
  end();
}

int main(void) {
  t_guard(60);
  announcements();
  used_again();
  hints();
  homes();
  counters();
  waits();
  t_passed("test_records");
  return 0;
}
