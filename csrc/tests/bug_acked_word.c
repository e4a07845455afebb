/* The lane's one `acked` word {position|index} is raised for ANY frame, not only the oldest:
 *  1  a receipt of an OLDER, unacked message reads ACKED (receipt_state: acked > place)
 *  2  the acked prefix of an older frame is then never recorded (CAS-max), so after a crash messages
 *     whose ack had returned are handed out again
 *  3  inside one frame, acks out of order are private: they too come again after a crash */
#include "tests/harness.h"
static int bad;
#define EXPECT(got, want, what)                                                          \
  do {                                                                                   \
    long long g_ = (got);                                                                \
    if (g_ != (want)) bad++, fprintf(stderr, "%s: %lld, expected %d\n", what, g_, want); \
  } while (0)
static void frame(cfn_bus_t *a, const char *text, cfn_receipt_t *receipt) {
  cfn_outgoing_t m[3];
  for (int i = 0; i < 3; i++) m[i] = (cfn_outgoing_t){.body = text + i, .body_bytes = 1};
  cfn_address_t to;
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, m, 3, 0, receipt), 0);
}
int main(void) {
  t_guard(20);
  cfn_bus_t *a = t_open("a", NULL), *b = t_attach("b");
  cfn_receipt_t one, two, three;
  cfn_wire_t w;
  char body[4096];
  uint64_t token[16];
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, &one), 0);
  frame(a, "abc", &two);
  frame(a, "def", &three);
  for (int i = 0; i < 7; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    token[i] = w.token;
  }
  CHECK_INT(t_ack(b, token[4]), 0); /* d, of the youngest frame */
  EXPECT(cfn_bus_receipt(a, &one, 0), CFN_RECEIPT_SEEN, "receipt of x, never acked");
  EXPECT(cfn_bus_receipt(a, &two, 2), CFN_RECEIPT_SEEN, "receipt of c, never acked");
  CHECK_INT(t_ack(b, token[0]), 0); /* x */
  CHECK_INT(t_ack(b, token[1]), 0); /* a: first of the older frame */
  CHECK_INT(t_ack(b, token[6]), 0); /* f: before e */
  CHECK_INT(cfn_bus_release_inbox(b), 0);
  char again[16] = "";
  for (int n = 0; t_recv(b, 0, &w, body) == 1;) again[n++] = body[0];
  fprintf(stderr, "acked x a d f; handed out again: %s, expected: bce\n", again);
  for (char *p = again; *p; p++)
    if (*p == 'a' || *p == 'd' || *p == 'f') bad++;
  t_close(b);
  t_close(a);
  t_destroy();
  if (bad) return 1;
  t_passed("bug_acked_word");
  return 0;
}
