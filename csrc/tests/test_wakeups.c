/* Who must be woken by what: every operation that makes a condition true rings the event of those who wait for it.
 * No sleeping here: an event is armed as a sleeper arms it, and must have changed after the operation. */
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "agent/bus.h"
#include "agent/liveness.h"
#include "base/os.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_mailbox_shm_t *of_b;
static cfn_address_t b_at;
static cfn_wire_t w;
static char body[4096];

static void start(void) {
  a = t_open("a", NULL);
  b = t_attach("b");
  r = cfn_bus_region(a);
  CHECK_INT(cfn_bus_find(a, "b", &b_at), 0);
  of_b = cfn_mailbox(r, b_at.index);
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
}
static void end(void) {
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}

#define MOST 12
static struct { cfn_event_shm_t *event; uint32_t armed; } watched[MOST];
static int watching;
static void watch(cfn_event_shm_t *e) {
  watched[watching].event = e;
  watched[watching++].armed = cfn_event_arm(e);
}
/* All that were watched have been rung: a sleeper would be awake, or would not fall asleep. */
static void rung_at(int line) {
  for (int i = 0; i < watching; i++)
    if (cfn_load_seq(&watched[i].event->word) >> 4 == watched[i].armed >> 4) {
      fprintf(stderr, "event %d of %d was not rung\n", i + 1, watching);
      t_fail(__FILE__, line, "whoever sleeps there goes on sleeping");
    }
  watching = 0;
}
#define RUNG() rung_at(__LINE__)

static int put(unsigned lane) { return t_send(a, "b", lane, "hello", 5, 0, NULL); }
static void take(void) { CHECK_INT(t_recv(b, 0, &w, body), 5); }
static cfn_event_shm_t *room_of(unsigned cls) { return &cfn_state(r)->class_room[cls].event; }

static void messages(void) {
  t_case("a message rings the bell");
  start();
  watch(&of_b->bell.event);
  CHECK_INT(put(CFN_LANE_LOW), 0);
  RUNG();
  t_case("seen, then acked: who holds a receipt is woken by each");
  watch(&of_b->acks.event);
  take();
  RUNG();
  watch(&of_b->acks.event);
  watch(room_of(0));
  CHECK_INT(t_ack(b, w.token), 0);
  RUNG();
  t_case("of a frame each part is seen and acked");
  cfn_outgoing_t m[3] = {{.body = "hello", .body_bytes = 5}, {.body = "hello", .body_bytes = 5}, {.body = "hello", .body_bytes = 5}};
  CHECK_INT(cfn_bus_send(a, &b_at, CFN_LANE_NORMAL, m, 3, 0, NULL), 0);
  uint64_t token[3];
  for (int i = 0; i < 3; i++) {
    watch(&of_b->acks.event);
    take();
    token[i] = w.token;
    RUNG();
  }
  for (int i = 3; i-- > 0;) {
    watch(&of_b->acks.event);
    if (i == 0) watch(room_of(0));
    CHECK_INT(t_ack(b, token[i]), 0);
    RUNG();
  }
  end();
}

static void room(void) {
  t_case("a reader that emptied its inbox rings for room before it sleeps");
  start();
  for (int i = 0; i < 8; i++) CHECK_INT(put(CFN_LANE_NORMAL), 0);
  CHECK_INT(put(CFN_LANE_NORMAL), CFN_FULL);
  watch(&of_b->space.event);
  for (int i = 0; i < 8; i++) {
    take();
    CHECK_INT(t_ack(b, w.token), 0);
  }
  RUNG(); /* a quarter was freed */
  CHECK_INT(put(CFN_LANE_NORMAL), 0);
  take();
  watch(&of_b->space.event);
  CHECK_INT(t_ack(b, w.token), 0);
  CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
  RUNG(); /* one place, and nothing more is coming */
  t_case("who takes an inbox over rings for what was emptied before");
  CHECK_INT(cfn_bus_release_inbox(b), 0);
  watch(&of_b->space.event);
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
  RUNG();
  t_case("and who gives it back");
  CHECK_INT(put(CFN_LANE_NORMAL), 0);
  take();
  CHECK_INT(t_ack(b, w.token), 0);
  watch(&of_b->space.event);
  CHECK_INT(cfn_bus_release_inbox(b), 0);
  RUNG();
  end();
}

static void hands(void) {
  t_case("a reader that is stolen from is woken");
  start();
  watch(&of_b->bell.event);
  cfn_bus_t *thief = t_attach("b");
  CHECK_INT(cfn_bus_claim_inbox(thief, 1), 0);
  RUNG();
  t_close(thief);
  t_case("a registration wakes who waits for a name; so does a removal, and all who wait for that agent");
  cfn_address_t at;
  int created;
  uint64_t dropped;
  watch(&cfn_state(r)->registry.event);
  CHECK_INT(cfn_bus_register(a, "new", NULL, &at, &created), 0);
  RUNG();
  cfn_mailbox_shm_t *m = cfn_mailbox(r, at.index);
  CHECK_INT(t_send(a, "new", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
  watch(&cfn_state(r)->registry.event);
  watch(&m->bell.event);
  watch(&m->space.event);
  watch(&m->acks.event);
  watch(room_of(0)); /* the unread message's chunk */
  CHECK_INT(cfn_bus_unregister(a, "new", 0, &dropped), 0);
  CHECK_INT(dropped, 1);
  RUNG();
  end();
}

static void answers(void) {
  t_case("an answer rings who asked; one who emptied its ring rings for room in it");
  start();
  uint64_t c;
  char out[512];
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1}, yes = {.body = "!", .body_bytes = 1};
  CHECK_INT(cfn_bus_request(a, &b_at, CFN_LANE_NORMAL, &m, 0, &c), 0);
  CHECK_INT(t_recv(b, 0, &w, body), 1);
  cfn_attach_shm_t *slot = cfn_attachment(r, cfn_bus_attachment(a));
  watch(&slot->reply_bell);
  yes.correlation = w.correlation;
  CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &yes, 0), 0);
  RUNG();
  watch(&slot->reply_space);
  watch(room_of(0));
  CHECK(cfn_bus_request_wait(a, &b_at, c, 0, out, sizeof out) > 0);
  RUNG();
  cfn_bus_request_end(a, c);
  CHECK_INT(t_ack(b, w.token), 0);
  t_case("a handle that is closed wakes the threads that sleep in it, and who waits for room in its ring");
  watch(&slot->reply_bell);
  watch(&slot->reply_space);
  watch(&cfn_mailbox(r, (uint32_t)cfn_load_relaxed(&slot->agent) - 1)->bell.event);
  cfn_bus_close(a);
  RUNG();
  cfn_bus_free(a);
  a = t_attach("a");
  r = cfn_bus_region(a);
  end();
}

static bool readable(int fd) {
  struct pollfd p = {fd, POLLIN, 0};
  return poll(&p, 1, 0) == 1;
}
static void descriptors(void) {
  t_case("a descriptor is readable exactly while something is there");
  start();
  int fd = cfn_bus_fileno(b, 0), replies = cfn_bus_fileno(a, 1);
  CHECK(fd >= 0 && replies >= 0);
  for (int i = 0; i < 3; i++) {
    CHECK(!readable(fd));
    CHECK_INT(put(CFN_LANE_NORMAL), 0);
    CHECK(readable(fd));
    CHECK_INT(put(CFN_LANE_HIGH), 0);
    take();
    CHECK_INT(t_ack(b, w.token), 0);
    CHECK(readable(fd));
    take();
    CHECK_INT(t_ack(b, w.token), 0);
    CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
  }
  CHECK(!readable(fd));
  t_case("opened while something is there it is readable");
  CHECK_INT(put(CFN_LANE_NORMAL), 0);
  cfn_bus_t *thief = t_attach("b");
  CHECK_INT(cfn_bus_claim_inbox(thief, 1), 0);
  CHECK(readable(cfn_bus_fileno(thief, 0)));
  t_close(thief);
  CHECK_INT(t_recv(b, 0, &w, body), CFN_AGENT_FENCED);
  take();
  CHECK_INT(t_ack(b, w.token), 0);
  t_case("the descriptor of answers");
  uint64_t c;
  char out[512];
  cfn_outgoing_t m = {.body = "?", .body_bytes = 1};
  for (int i = 0; i < 3; i++) {
    CHECK_INT(cfn_bus_request(a, &b_at, CFN_LANE_NORMAL, &m, 0, &c), 0);
    CHECK_INT(cfn_bus_request_wait(a, &b_at, c, 0, out, sizeof out), CFN_TIMEOUT);
    CHECK(!readable(replies));
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    cfn_outgoing_t yes = {.body = "!", .body_bytes = 1, .correlation = w.correlation};
    CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &yes, 0), 0);
    CHECK(readable(replies));
    CHECK(cfn_bus_request_wait(a, &b_at, c, 0, out, sizeof out) > 0);
    CHECK(!readable(replies));
    cfn_bus_request_end(a, c);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  end();
}

/* What a process did and told nobody before it died is told by whoever reaps it. */
static void deaths(void) {
  t_case("a reaping rings all that the dead one may have owed");
  start();
  cfn_address_t at;
  int created, tell[2];
  CHECK_INT(cfn_bus_register(a, "dead", NULL, &at, &created), 0);
  CHECK_INT(pipe(tell), 0);
  pid_t p = t_fork();
  if (p == 0) {
    cfn_bus_t *bus = t_attach("dead");
    CHECK_INT(cfn_bus_claim_inbox(bus, 0), 0);
    uint32_t slot = cfn_bus_attachment(bus);
    CHECK_INT(write(tell[1], &slot, 4), 4);
    _exit(0);
  }
  uint32_t slot;
  CHECK_INT(read(tell[0], &slot, 4), 4);
  t_join(p);
  cfn_mailbox_shm_t *m = cfn_mailbox(r, at.index);
  watch(&m->bell.event);
  watch(&m->space.event);
  watch(&m->acks.event);
  watch(&cfn_attachment(r, slot)->reply_space);
  for (unsigned c = 0; c < 3; c++) watch(room_of(c));
  watch(&cfn_state(r)->registry.event);
  uint64_t before = cfn_load_seq(&cfn_attachment(r, cfn_bus_attachment(a))->counter[CFN_COUNT_REAPED]);
  CHECK_INT(cfn_bus_reap(a), 1);
  cfn_agent_info_t info;
  CHECK_INT(cfn_bus_agent_info(a, &at, &info), 0);
  CHECK_INT(info.life, CFN_LIFE_DEAD);
  CHECK_INT(info.owner_pid, p); /* kept for who asks who that was */
  RUNG();
  CHECK_INT(cfn_load_seq(&cfn_attachment(r, cfn_bus_attachment(a))->counter[CFN_COUNT_REAPED]), before + 1);
  close(tell[0]);
  close(tell[1]);
  end();
}

/* Chunks are scarce while an inbox holds most of them, and another that has its part gets no more. Once they are free, a
 * reader that finds nothing has told of all of them, and of all classes; and a sender that was refused counts again before it
 * sleeps: nobody would wake it. */
static void scarce_chunks(void) {
  t_case("chunks that were scarce");
  cfn_wish_t wish = t_small_wish();
  wish.lane_slots[CFN_LANE_NORMAL] = 256;
  wish.class_chunks[0] = 128;
  a = t_open("a", &wish);
  b = t_attach("b");
  r = cfn_bus_region(a);
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
  cfn_address_t c_at;
  int created, sent = 0, got = 0;
  CHECK_INT(cfn_bus_register(a, "c", NULL, &c_at, &created), 0);
  for (int i = 0; i < 20; i++) CHECK_INT(t_send(a, "c", CFN_LANE_NORMAL, "hello", 5, 0, NULL), 0); /* more than its part */
  while (put(CFN_LANE_NORMAL) == 0) sent++;
  CHECK_INT(t_send(a, "c", CFN_LANE_NORMAL, "hello", 5, 0, NULL), CFN_NO_SPACE);
  CHECK(a->outbox.scarce[0] && a->outbox.until_census[0] > 16); /* what it counted last is what it goes by */
  for (; got < sent || cfn_slab_free_hint(r, 0) == 128 - 20; got++) { /* until one is free and not told of */
    if (got >= sent) CHECK_INT(put(CFN_LANE_NORMAL), 0);
    cfn_slab_return_hints(r, &a->outbox.cursor);
    take();
    CHECK_INT(t_ack(b, w.token), 0);
  }
  for (unsigned c = 0; c < 3; c++) watch(room_of(c));
  CHECK_INT(t_recv(b, 0, &w, body), CFN_EMPTY);
  RUNG();
  CHECK_INT(cfn_slab_free_hint(r, 0), 128 - 20);
  CHECK_INT(t_send(a, "c", CFN_LANE_NORMAL, "hello", 5, 3, NULL), 0);
  end();
}

/* Emptied slots that are not announced yet are, before their reader sleeps on anything at all. */
static void room_of_who_waits(void) {
  t_case("room in the inbox of one who waits for room in another's");
  start();
  for (int i = 0; i < 8; i++) CHECK_INT(t_send(b, "a", CFN_LANE_NORMAL, "hello", 5, 0, NULL), 0);
  CHECK_INT(put(CFN_LANE_NORMAL), 0);
  take();
  watch(&of_b->space.event);
  b->inbox.room_rung_ns = cfn_os_coarse_ns(); /* just now, and one slot is not many */
  CHECK_INT(t_ack(b, w.token), 0);
  CHECK_INT(t_send(b, "a", CFN_LANE_NORMAL, "hello", 5, 0.001, NULL), CFN_FULL);
  RUNG();
  end();
}

static void the_end(void) {
  t_case("a destroyed bus wakes everybody");
  start();
  watch(&cfn_state(r)->registry.event);
  watch(room_of(0));
  watch(room_of(2));
  watch(&of_b->bell.event);
  watch(&of_b->space.event);
  watch(&of_b->acks.event);
  watch(&cfn_attachment(r, cfn_bus_attachment(b))->reply_bell);
  CHECK_INT(cfn_bus_destroy(a), 0);
  RUNG();
  t_close(b);
  t_close(a);
}

int main(void) {
  t_guard(60);
  messages();
  room();
  hands();
  answers();
  descriptors();
  deaths();
  scarce_chunks();
  room_of_who_waits();
  the_end();
  t_passed("test_wakeups");
  return 0;
}
