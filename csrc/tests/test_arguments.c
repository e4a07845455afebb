/* What is asked wrongly is told, changes nothing, and is not believed: addresses, lanes, tokens, sizes, names that
 * make no sense, handles that are closed or never had an agent, a bus that has ended, and every code has its words. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/bus.h"
#include "base/os.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;
static cfn_address_t to;
static cfn_receipt_t receipt;
static cfn_wire_t w;
static char body[4096];
static _Alignas(8) uint8_t out[8192];
static uint32_t offsets[32];
static size_t used;
static int more;
static const cfn_outgoing_t hello = {.body = "hello", .body_bytes = 5};

static void told(int64_t got, int want, int line) {
  if (got != want) t_fail_int(__FILE__, line, "what was asked wrongly", got, want);
  if (want < 0 && cfn_last_failure()->code != want)
    t_fail_int(__FILE__, line, "the failure that is told", cfn_last_failure()->code, want);
}
#define TOLD(expression, want) told((expression), (want), __LINE__)

static void start(void) {
  a = t_open("a", NULL);
  b = t_attach("b");
  CHECK_INT(cfn_bus_find(a, "b", &to), 0);
}
/* It works as if nothing had been asked, and nothing is held. */
static void end(void) {
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
  CHECK_INT(t_recv(b, 0, &w, body), 1);
  CHECK_INT(t_ack(b, w.token), 0);
  t_check_region(a, true);
  t_check_nothing_held(a);
  t_close(b);
  t_close(a);
  t_destroy();
}

static void sending(void) {
  start();
  cfn_address_t nowhere = {to.mid, 9999};
  cfn_outgoing_t many[CFN_FRAME_MESSAGES + 1];
  for (unsigned i = 0; i <= CFN_FRAME_MESSAGES; i++) many[i] = hello;
  t_case("an address outside of the bus");
  TOLD(cfn_bus_send(a, &nowhere, CFN_LANE_NORMAL, &hello, 1, 0, NULL), CFN_INVALID);
  TOLD(cfn_bus_judge_agent(a, &nowhere), CFN_INVALID);
  TOLD(cfn_bus_peek(a, &nowhere, CFN_ALL_LANES, out, sizeof out, offsets, 32, &used, &more), CFN_INVALID);
  cfn_agent_info_t info;
  TOLD(cfn_bus_agent_info(a, &nowhere, &info), CFN_STALE);
  t_case("a lane there is not");
  TOLD(cfn_bus_send(a, &to, CFN_LANES, &hello, 1, 0, NULL), CFN_INVALID);
  t_case("a frame of none, and of too many");
  TOLD(cfn_bus_send(a, &to, CFN_LANE_NORMAL, many, 0, 0, NULL), CFN_INVALID);
  TOLD(cfn_bus_send(a, &to, CFN_LANE_NORMAL, many, CFN_FRAME_MESSAGES + 1, 0, NULL), CFN_INVALID);
  t_case("a type that is too long");
  static const char type[400] = "";
  uint32_t bytes[3] = {1, 1, 1}, frames;
  int why;
  TOLD(cfn_bus_send_one(a, to.index, to.mid, CFN_LANE_NORMAL, 0, "x", 1, type, sizeof type, 0, 0, NULL), CFN_INVALID);
  CHECK_INT(cfn_bus_send_joined(a, &to, CFN_LANE_NORMAL, type, sizeof type, (const uint8_t *)"xyz", bytes, NULL, 3, 0,
                                &receipt, 1, &frames, &why), 0);
  TOLD(why, CFN_INVALID);
  t_case("a batch of none");
  CHECK_INT(cfn_bus_send_joined(a, &to, CFN_LANE_NORMAL, NULL, 0, NULL, bytes, NULL, 0, 0, NULL, 0, &frames, &why), 0);
  CHECK_INT(why, 0);
  CHECK_INT(frames, 0);
  t_case("a batch with room for no receipt");
  CHECK_INT(cfn_bus_send_joined(a, &to, CFN_LANE_NORMAL, NULL, 0, (const uint8_t *)"xyz", bytes, NULL, 3, 0, NULL, 0,
                                &frames, &why), 3);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 1);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  t_case("larger than any chunk");
  static uint8_t huge[4 << 20];
  cfn_outgoing_t large = {.body = huge, .body_bytes = sizeof huge};
  int result[2];
  cfn_receipt_t receipts[2];
  cfn_address_t both[2] = {to, to};
  TOLD(cfn_bus_send(a, &to, CFN_LANE_NORMAL, &large, 1, 0, NULL), CFN_TOO_LARGE);
  TOLD(cfn_bus_broadcast(a, both, 2, CFN_LANE_NORMAL, &large, 0, result, receipts), CFN_TOO_LARGE);
  both[0] = nowhere;
  TOLD(cfn_bus_broadcast(a, both, 2, CFN_LANE_NORMAL, &hello, 0, result, receipts), CFN_INVALID);
  t_case("an answer to nobody");
  TOLD(cfn_bus_reply(a, 9999, 1, &hello, 0), CFN_INVALID);
  end();
}

static void receipts(void) {
  start();
  cfn_receipt_t wrong = {.mailbox = 9999};
  t_case("a receipt of another bus");
  TOLD(cfn_bus_receipt(a, &wrong, 0), CFN_INVALID);
  TOLD(cfn_bus_receipt_wait(a, &wrong, CFN_RECEIPT_ACKED, 0), CFN_INVALID);
  wrong = (cfn_receipt_t){.mid = to.mid, .mailbox = to.index, .lane = CFN_LANES};
  TOLD(cfn_bus_receipt(a, &wrong, 0), CFN_INVALID);
  wrong = (cfn_receipt_t){.mid = to.mid, .mailbox = to.index, .lane = CFN_LANE_NORMAL, .position = 3, .count = 1};
  TOLD(cfn_bus_receipt(a, &wrong, 0), CFN_INVALID);
  t_case("the receipt of a frame: the least of its messages");
  cfn_outgoing_t three[3] = {hello, hello, hello};
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, three, 3, 0, &receipt), 0);
  TOLD(cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_SEEN, 0), CFN_TIMEOUT);
  uint64_t token[3];
  for (int i = 0; i < 3; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 5);
    token[i] = w.token;
    CHECK_INT(cfn_bus_receipt(a, &receipt, (uint32_t)i), CFN_RECEIPT_SEEN);
  }
  CHECK_INT(cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_SEEN, 0), CFN_RECEIPT_SEEN);
  CHECK_INT(t_ack(b, token[0]), 0);
  CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_RECEIPT_ACKED);
  TOLD(cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_ACKED, 0), CFN_TIMEOUT);
  CHECK_INT(t_ack(b, token[1]), 0);
  CHECK_INT(t_ack(b, token[2]), 0);
  CHECK_INT(cfn_bus_receipt_wait(a, &receipt, CFN_RECEIPT_ACKED, 0), CFN_RECEIPT_ACKED);
  end();
}

static void receiving(void) {
  start();
  t_case("a handle without an agent");
  cfn_bus_t *nobody = t_attach(NULL);
  TOLD(cfn_bus_recv(nobody, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out), CFN_INVALID);
  TOLD(cfn_bus_claim_inbox(nobody, 0), CFN_INVALID);
  uint64_t token = 1;
  CHECK_INT(cfn_bus_ack(nobody, &token, 1), CFN_INVALID);
  CHECK_INT(cfn_bus_put_back(nobody, token), CFN_INVALID);
  CHECK_INT(cfn_bus_copy_body(nobody, token, out, 5), CFN_AGENT_FENCED);
  CHECK_INT(cfn_bus_release_inbox(nobody), 0);
  t_close(nobody);
  t_case("no room for what is there");
  CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "hello", 5, 0, NULL), 0);
  TOLD(cfn_bus_recv(b, NULL, 0, CFN_ALL_LANES, 0, 0, out, 16), CFN_INVALID); /* and it is still there */
  t_case("only of some lanes");
  CHECK_INT(cfn_bus_recv(b, NULL, 0, 1u << CFN_LANE_LOW, 0, 0, out, sizeof out), CFN_EMPTY);
  CHECK_INT(cfn_bus_peek(a, &to, 1u << CFN_LANE_LOW, out, sizeof out, offsets, 32, &used, &more), 0);
  CHECK_INT(cfn_bus_peek(a, &to, 1u << CFN_LANE_NORMAL, out, sizeof out, offsets, 32, &used, &more), 1);
  CHECK_INT(cfn_bus_peek(a, &to, CFN_ALL_LANES, out, sizeof out, offsets, 0, &used, &more), 0);
  CHECK_INT(more, 1);
  t_case("tokens of nothing");
  CHECK_INT(t_recv(b, 0, &w, body), 5);
  uint64_t good = w.token;
  uint64_t wrong[] = {0, 1, good + 1, good + (UINT64_C(1) << 40), good ^ (UINT64_C(1) << 63), UINT64_MAX};
  for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    CHECK_INT(t_ack(b, wrong[i]), CFN_INVALID);
    CHECK_INT(cfn_bus_put_back(b, wrong[i]), CFN_INVALID);
    CHECK(cfn_bus_copy_body(b, wrong[i], out, 5) < 0);
  }
  TOLD(cfn_bus_copy_body(b, good, out, 4), CFN_INVALID);
  CHECK_INT(cfn_bus_copy_body(b, good, out, 5), 0);
  CHECK_INT(t_ack(b, good), 0);
  CHECK_INT(t_ack(b, good), CFN_INVALID);
  t_case("put back, acked while it waits to be handed out again");
  uint64_t three[3];
  for (int i = 0; i < 3; i++) CHECK_INT(t_send(a, "b", CFN_LANE_NORMAL, "hello", 5, 0, NULL), 0);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 5);
    three[i] = w.token;
  }
  for (int i = 3; i-- > 0;) CHECK_INT(cfn_bus_put_back(b, three[i]), 0);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(t_recv(b, 0, &w, body), 5);
    CHECK_INT(t_ack(b, w.token), 0);
  }
  end();
}

static void requests(void) {
  start();
  t_case("an answer to a request there is not");
  TOLD(cfn_bus_request_wait(a, &to, 12345, 0, out, sizeof out), CFN_INVALID);
  cfn_bus_request_end(a, 12345);
  t_case("no room for the answer");
  uint64_t correlation;
  CHECK_INT(cfn_bus_request(a, &to, CFN_LANE_NORMAL, &hello, 0, &correlation), 0);
  CHECK_INT(t_recv(b, 0, &w, body), 5);
  cfn_outgoing_t yes = {.body = "yes", .body_bytes = 3, .correlation = w.correlation};
  CHECK_INT(cfn_bus_reply(b, w.source_att, w.source_inc, &yes, 0), 0);
  CHECK_INT(t_ack(b, w.token), 0);
  TOLD(cfn_bus_request_wait(a, &to, correlation, 0, out, 16), CFN_INVALID);
  CHECK(cfn_bus_request_wait(a, &to, correlation, 0, out, sizeof out) > 0); /* it is still there */
  cfn_bus_request_end(a, correlation);
  end();
}

static void agents(void) {
  start();
  t_case("texts that are too long");
  static char text[1000];
  memset(text, 'x', sizeof text - 1);
  for (unsigned t = 0; t < CFN_TEXTS; t++) {
    cfn_profile_t profile = {0};
    profile.text[t] = text;
    TOLD(cfn_bus_set_profile(a, "b", &profile), CFN_INVALID);
    TOLD(cfn_bus_register(a, "c", &profile, &to, NULL), CFN_INVALID);
  }
  CHECK_INT(cfn_bus_register(a, "c", NULL, &to, NULL), 0);
  cfn_profile_t fine = {{NULL, NULL, NULL, NULL, "fine"}};
  TOLD(cfn_bus_set_profile(a, "nobody", &fine), CFN_UNKNOWN_AGENT);
  t_case("a list with less room than there are agents");
  cfn_address_t one[1];
  CHECK_INT(cfn_bus_agents(a, one, 1), 3);
  CHECK_INT(cfn_bus_agents(a, NULL, 0), 3);
  t_case("names");
  static const char *const bad[] = {"", ".hidden", "a b", "a/b", "\xc3\xa9"};
  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) TOLD(cfn_bus_find(a, bad[i], &to), CFN_BAD_NAME);
  TOLD(cfn_bus_find(a, text, &to), CFN_BAD_NAME);
  static const char *const good[] = {"A.z:0@9-_", "_", ":", "@", "-", "0"};
  for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++) TOLD(cfn_bus_find(a, good[i], &to), CFN_UNKNOWN_AGENT);
  end();
}

/* A bus that was destroyed under its handles. */
static int complaints;
static void complain(void *context, const char *severity, const char *finding) {
  (void)context;
  (void)severity;
  complaints += strstr(finding, "destroyed") || strstr(finding, "has state");
}
static void ended(void) {
  start();
  t_case("a bus that was destroyed");
  cfn_state_shm_t *state = cfn_state(cfn_bus_region(a));
  CHECK_INT(cfn_bus_check(a, complain, NULL), 0);
  CHECK_INT(complaints, 0);
  uint64_t was = cfn_load_seq(&state->state);
  cfn_store_seq(&state->state, 77);
  CHECK(cfn_region_check(cfn_bus_region(a), complain, NULL) > 0);
  CHECK_INT(complaints, 1);
  cfn_store_seq(&state->state, was);
  CHECK_INT(cfn_bus_destroy(b), 0);
  cfn_region_check(cfn_bus_region(a), complain, NULL);
  CHECK_INT(complaints, 2);
  int result[1];
  TOLD(cfn_bus_send(a, &to, CFN_LANE_NORMAL, &hello, 1, 0, NULL), CFN_RETIRED);
  TOLD(cfn_bus_broadcast(a, &to, 1, CFN_LANE_NORMAL, &hello, 0, result, &receipt), CFN_RETIRED);
  TOLD(cfn_bus_recv(a, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out), CFN_RETIRED);
  TOLD(cfn_bus_wait_agent(a, "later", CFN_FOREVER, &to), CFN_RETIRED);
  t_close(a);
  t_close(b);
}

static void buses(void) {
  cfn_bus_t *bus;
  cfn_config_shm_t c;
  uint64_t pid;
  t_case("wishes that make no bus");
  cfn_wish_t wish = t_small_wish();
  wish.agents = 1 << 20;
  TOLD(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &bus, NULL), CFN_INVALID);
  static const uint32_t lanes[] = {1, 3, 1 << 20};
  for (unsigned i = 0; i < 3; i++) {
    wish = t_small_wish();
    wish.lane_slots[0] = lanes[i];
    TOLD(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &bus, NULL), CFN_INVALID);
  }
  wish = t_small_wish();
  wish.class_wished = 0x3f;
  memset(wish.class_chunks, 0, sizeof wish.class_chunks);
  CHECK(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &bus, NULL) < 0);
  for (unsigned i = 0; i < CFN_CLASSES; i++) wish.class_chunks[i] = UINT32_MAX / 2;
  CHECK(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &bus, NULL) < 0);
  wish = (cfn_wish_t){.agents = 8, .size_bytes = 1000};
  TOLD(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &bus, NULL), CFN_NO_SPACE);
  wish = (cfn_wish_t){.agents = 8, .size_bytes = UINT64_C(1) << 50};
  TOLD(cfn_bus_open(NULL, t_bus_name(), &wish, CFN_OPEN_CREATE, &bus, NULL), CFN_NO_SPACE);
  t_case("what a bus is planned to be");
  wish = (cfn_wish_t){0};
  CHECK_INT(cfn_region_plan(&wish, UINT64_C(1) << 40, "here", &c), 0);
  CHECK_INT(c.agents, 512);
  wish.agents = 4096;
  CHECK_INT(cfn_region_plan(&wish, UINT64_C(1) << 40, "here", &c), 0);
  TOLD(cfn_region_plan(&wish, 1 << 20, "here", &c), CFN_NO_SPACE);
  t_case("no bus, no directory, no name");
  TOLD(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &bus, NULL), CFN_NO_BUS);
  TOLD(cfn_bus_open("/nowhere", t_bus_name(), NULL, CFN_OPEN_CREATE, &bus, NULL), CFN_OS);
  TOLD(cfn_bus_open("/dev/null", t_bus_name(), NULL, CFN_OPEN_CREATE, &bus, NULL), CFN_OS);
  TOLD(cfn_bus_open(NULL, "no/name", NULL, 0, &bus, NULL), CFN_BAD_NAME);
  TOLD(cfn_bus_in_use(NULL, "no/name", &pid), CFN_BAD_NAME);
  TOLD(cfn_bus_in_use(NULL, t_bus_name(), &pid), CFN_NO_BUS);
  TOLD(cfn_bus_remove(NULL, t_bus_name(), &pid), CFN_NO_BUS);
  TOLD(cfn_bus_remove(NULL, "no/name", &pid), CFN_BAD_NAME);
  TOLD(cfn_region_destroy_path(NULL, "no/name"), CFN_BAD_NAME);
  static char far[8192];
  memset(far, 'd', sizeof far - 1);
  TOLD(cfn_bus_open(far, t_bus_name(), NULL, 0, &bus, NULL), CFN_INVALID);
  t_case("the bus directory of the environment");
  CHECK_INT(setenv("CFNSHM_DIR", "", 1), 0);
  TOLD(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &bus, NULL), CFN_NO_BUS);
  CHECK_INT(unsetenv("CFNSHM_DIR"), 0);
}

static void codes(void) {
  t_case("every code has a name, a text and an exit status");
#define CODE(name, value, exit_status, text) CFN_##name,
  static const int all[] = {CFN_OK, CFN_ERROR_LIST(CODE)};
#undef CODE
  for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++) {
    CHECK(strcmp(cfn_error_name(all[i]), "UNKNOWN") != 0);
    CHECK(strcmp(cfn_error_text(all[i]), "unknown error") != 0);
    int status = cfn_error_exit_status(all[i]);
    CHECK(all[i] == CFN_OK ? status == 0 : status > 0 && status < 128);
  }
  CHECK(strcmp(cfn_error_name(-1000), "UNKNOWN") == 0);
  CHECK(strcmp(cfn_error_text(-1000), "unknown error") == 0);
  CHECK_INT(cfn_error_exit_status(-1000), 1);
  CHECK_INT(cfn_error_exit_status(7), 0);
  static const struct { int error, code; } mapped[] = {
      {EACCES, CFN_PERMISSION}, {EPERM, CFN_PERMISSION}, {EROFS, CFN_PERMISSION}, {ENOSPC, CFN_NO_SPACE},
      {EDQUOT, CFN_NO_SPACE},   {ENOMEM, CFN_NO_MEMORY}, {EIO, CFN_OS},
  };
  for (unsigned i = 0; i < sizeof mapped / sizeof mapped[0]; i++) {
    errno = mapped[i].error;
    TOLD(cfn_fail_os("asked %s", "so"), mapped[i].code);
    CHECK_INT(cfn_last_failure()->os_errno, mapped[i].error);
    CHECK(strncmp(cfn_last_failure()->text, "asked so: ", 10) == 0);
  }
}

int main(void) {
  t_guard(60);
  codes();
  buses();
  sending();
  receipts();
  receiving();
  requests();
  agents();
  ended();
  t_passed("test_arguments");
  return 0;
}
