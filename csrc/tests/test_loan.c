/* Loans: written in place, sent once or dropped, reclaimed from the dead; what is wrong is said. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/bus.h"
#include "mem/heap.h"
#include "tests/harness.h"

enum { PAGES = 256, LARGE = 200000 };
static cfn_bus_t *a, *b;
static uint8_t out[LARGE];

static void start(void) {
  cfn_wish_t wish = t_small_wish();
  wish.object_pages = PAGES;
  wish.objects = 24;
  a = t_open("a", &wish);
  b = t_attach("b");
}
static uint32_t pages(void) {
  cfn_heap_room_t room;
  cfn_heap_room(a->region, &room);
  return room.pages;
}
static void end(void) {
  CHECK_INT(t_heap_used(a), 0);
  CHECK_INT(pages(), 0);
  t_check_region(a, true);
  t_check_nothing_held(a);
  t_close(b);
  t_close(a);
  t_destroy();
}
static int send(cfn_bus_t *bus, uint64_t number, const char *to, uint64_t deadline, cfn_receipt_t *receipt) {
  cfn_address_t at;
  CHECK_INT(cfn_bus_find(bus, to, &at), 0);
  return cfn_bus_loan_send(bus, number, at.index, at.mid, CFN_LANE_NORMAL, CFN_CODEC_RAW, "t", 1, deadline, receipt);
}
static int64_t take(cfn_bus_t *bus, int flags) {
  static _Alignas(8) uint8_t wire[sizeof(cfn_wire_t) + 512];
  int64_t n = cfn_bus_recv(bus, NULL, 0, CFN_ALL_LANES, flags, 0, wire, sizeof wire);
  if (n < 0) return n;
  cfn_wire_t w;
  memcpy(&w, wire, sizeof w);
  CHECK_INT(w.body_bytes, LARGE);
  if (flags & CFN_RECV_VIEW) memcpy(out, (const void *)(uintptr_t)w.external, LARGE);
  else CHECK_INT(cfn_bus_copy_body(bus, w.token, out, LARGE), 0);
  for (int i = 1; i < LARGE; i++) CHECK(out[i] == out[0]);
  CHECK_INT(t_ack(bus, w.token), 0);
  return out[0];
}

static void there_and_back(void) {
  t_case("there and back");
  start();
  for (int round = 0; round < 40; round++) { /* more than the heap holds at once */
    cfn_loan_t loan;
    cfn_receipt_t receipt;
    CHECK_INT(cfn_bus_loan(a, LARGE, &loan), 0);
    CHECK_INT(loan.bytes, LARGE);
    memset(loan.data, round, LARGE);
    cfn_bus_collect(b); /* what is on loan is nobody's garbage */
    t_check_region(b, true);
    CHECK_INT(send(a, loan.number, "b", 0, &receipt), 0);
    CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_RECEIPT_STORED);
    CHECK_INT(send(a, loan.number, "b", 0, NULL), CFN_INVALID); /* once */
    cfn_bus_loan_drop(a, loan.number);                           /* nothing */
    cfn_bus_collect(a);
    CHECK_INT(take(b, round % 2 ? CFN_RECV_VIEW : 0), round);
    CHECK_INT(take(b, 0), CFN_EMPTY);
    CHECK_INT(pages(), 0); /* at once */
  }
  end();
}

static void many_at_once(void) {
  t_case("sixteen, and no more");
  start();
  cfn_loan_t loan[CFN_LOANS + 1];
  for (int i = 0; i < CFN_LOANS; i++) CHECK_INT(cfn_bus_loan(a, CFN_LOAN_LEAST, &loan[i]), 0);
  CHECK_INT(cfn_bus_loan(a, CFN_LOAN_LEAST, &loan[CFN_LOANS]), CFN_OVER_CAPACITY);
  cfn_bus_loan_drop(a, loan[3].number);
  CHECK_INT(cfn_bus_loan(a, CFN_LOAN_LEAST, &loan[3]), 0);
  for (int i = 0; i < CFN_LOANS; i++)
    for (int j = 0; j < i; j++) CHECK(loan[i].data != loan[j].data && loan[i].number != loan[j].number);
  for (int i = 0; i < CFN_LOANS; i++) cfn_bus_loan_drop(a, loan[i].number);
  t_case("what is no loan");
  CHECK_INT(cfn_bus_loan(a, CFN_LOAN_LEAST - 1, loan), CFN_INVALID);
  CHECK_INT(cfn_bus_loan(a, UINT64_C(1) << 33, loan), CFN_TOO_LARGE);
  CHECK_INT(cfn_bus_loan(a, (PAGES + 1) * CFN_PAGE, loan), CFN_TOO_LARGE);
  CHECK_INT(send(a, 0, "b", 0, NULL), CFN_INVALID);
  CHECK_INT(send(a, 12345, "b", 0, NULL), CFN_INVALID);
  cfn_bus_loan_drop(a, 0);
  cfn_bus_loan_drop(a, 12345);
  t_case("no room");
  CHECK_INT(cfn_bus_loan(a, (PAGES - 1) * CFN_PAGE, loan), 0);
  double begin = t_now();
  CHECK_INT(cfn_bus_loan(b, 2 * CFN_PAGE, loan + 1), CFN_NO_SPACE);
  CHECK(t_now() - begin < 2); /* what is on loan may be for ever: nobody waits for it */
  cfn_bus_loan_drop(a, loan[0].number);
  CHECK_INT(cfn_bus_loan(b, 2 * CFN_PAGE, loan + 1), 0);
  cfn_bus_loan_drop(b, loan[1].number);
  end();
}

static void no_place_in_the_lane(void) {
  t_case("no place in the lane: it can be sent later, also to another");
  start();
  cfn_loan_t loan;
  int full = 0;
  while (t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL) == 0) full++;
  CHECK_INT(cfn_bus_loan(a, LARGE, &loan), 0);
  memset(loan.data, 7, LARGE);
  CHECK_INT(send(a, loan.number, "b", 0, NULL), CFN_FULL);
  CHECK(strstr(cfn_last_failure()->text, "lane of 'b' is full"));
  CHECK_INT(cfn_bus_loan_send(a, loan.number, 0, 1 << 20, CFN_LANE_NORMAL, 0, "", 0, 0, NULL), CFN_STALE);
  CHECK_INT(cfn_bus_loan_send(a, loan.number, 0, 1, 9, 0, "", 0, 0, NULL), CFN_INVALID);
  CHECK_INT(cfn_bus_loan_send(a, loan.number, 0, 1, 0, 0, "", 999, 0, NULL), CFN_INVALID);
  cfn_bus_collect(b);
  char text[4096];
  cfn_wire_t w;
  for (int i = 0; i < full; i++) {
    CHECK_INT(t_recv(b, 0, &w, text), 1);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  CHECK_INT(send(a, loan.number, "b", 0, NULL), 0);
  CHECK_INT(take(b, 0), 7);
  t_case("published, not sent, dropped");
  while (t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL) == 0) {}
  CHECK_INT(cfn_bus_loan(a, LARGE, &loan), 0);
  CHECK_INT(send(a, loan.number, "b", 0, NULL), CFN_FULL);
  cfn_bus_loan_drop(a, loan.number);
  CHECK_INT(pages(), 0);
  for (int i = 0; i < full; i++) {
    CHECK_INT(t_recv(b, 0, &w, text), 1);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  end();
}

/* `how` far a process comes before it dies, or closes its handle. */
static void abandoned(int how, bool killed) {
  t_case("abandoned: %d, %s", how, killed ? "killed" : "closed");
  start();
  int pipe_[2];
  CHECK_INT(pipe(pipe_), 0);
  pid_t child = t_fork();
  if (child == 0) {
    cfn_bus_t *c = t_attach(NULL);
    cfn_loan_t loan;
    CHECK_INT(cfn_bus_loan(c, LARGE, &loan), 0);
    memset(loan.data, 9, LARGE);
    if (how == 1) {
      while (t_send(c, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL) == 0) {}
      CHECK_INT(send(c, loan.number, "b", 0, NULL), CFN_FULL);
    }
    if (!killed) t_close(c);
    else memset(loan.data, 10, LARGE);
    CHECK_INT(write(pipe_[1], "x", 1), 1);
    if (killed) pause();
    _exit(0);
  }
  char x;
  CHECK_INT(read(pipe_[0], &x, 1), 1);
  CHECK_INT(pages() > 0, killed);
  if (killed) t_kill(child, false);
  else t_join(child);
  CHECK_INT(cfn_bus_reap(a) >= 0, 1);
  CHECK_INT(t_heap_used(a), 0);
  char text[4096];
  cfn_wire_t w;
  while (t_recv(b, 0, &w, text) > 0) CHECK_INT(t_ack(b, w.token), 0);
  close(pipe_[0]), close(pipe_[1]);
  end();
}

int main(void) {
  t_guard(120);
  there_and_back();
  many_at_once();
  no_place_in_the_lane();
  for (int how = 0; how < 2; how++) {
    abandoned(how, true);
    abandoned(how, false);
  }
  t_passed("test_loan");
  return 0;
}
