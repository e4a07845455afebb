/* Every call on a handle that cannot be used any more: closed, inherited by fork, of a bus that was destroyed, judged dead, of
 * a bus whose file was cut. Each is told so, with a text; nothing crashes, nothing hangs. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/bus.h"
#include "tests/harness.h"

static cfn_bus_t *a;
static cfn_address_t to;
static cfn_receipt_t receipt;
static cfn_held_t held;
static _Alignas(8) uint8_t out[4096];
static uint32_t offsets[32];
static const cfn_outgoing_t hello = {.body = "hello", .body_bytes = 5};
static uint8_t digest[32];
#define KEY "k", 1

static int64_t on_send(cfn_bus_t *c) { return cfn_bus_send(c, &to, CFN_LANE_NORMAL, &hello, 1, 0, NULL); }
static int64_t on_send_waiting(cfn_bus_t *c) { return cfn_bus_send(c, &to, CFN_LANE_NORMAL, &hello, 1, t_in(1), NULL); }
static int64_t on_send_try(cfn_bus_t *c) { return cfn_bus_send(c, &to, CFN_LANE_NORMAL, &hello, 1, CFN_TRY, NULL); }
static int64_t on_send_one(cfn_bus_t *c) {
  return cfn_bus_send_one(c, to.index, to.mid, CFN_LANE_NORMAL, 0, "x", 1, "", 0, 0, 0, NULL);
}
static int64_t on_send_frame(cfn_bus_t *c) {
  uint32_t sent;
  return cfn_bus_send_frame(c, &to, CFN_LANE_NORMAL, &hello, 1, 0, &receipt, &sent);
}
static int64_t on_send_joined(cfn_bus_t *c) {
  static const uint32_t bytes[1] = {1};
  uint32_t frames;
  int why = 0;
  cfn_receipt_t r;
  int64_t n = cfn_bus_send_joined(c, &to, CFN_LANE_NORMAL, "", 0, (const uint8_t *)"x", bytes, NULL, 1, 0, &r, 1, &frames, &why);
  return n < 0 ? n : why;
}
static int64_t on_broadcast(cfn_bus_t *c) {
  int result[1];
  int n = cfn_bus_broadcast(c, &to, 1, CFN_LANE_NORMAL, &hello, 0, result, &receipt);
  return n == 0 ? result[0] : n;
}
static int64_t on_reply(cfn_bus_t *c) { return cfn_bus_reply(c, 0, 1, &hello, 0); }
static int64_t on_request(cfn_bus_t *c) {
  uint64_t correlation;
  return cfn_bus_request(c, &to, CFN_LANE_NORMAL, &hello, 0, &correlation);
}
static int64_t on_request_wait(cfn_bus_t *c) { return cfn_bus_request_wait(c, &to, 1, 0, out, sizeof out); }
static int64_t on_receipt(cfn_bus_t *c) { return cfn_bus_receipt(c, &receipt, 0); }
static int64_t on_receipt_wait(cfn_bus_t *c) { return cfn_bus_receipt_wait(c, &receipt, CFN_RECEIPT_SEEN, 0); }
static int64_t on_recv(cfn_bus_t *c) { return cfn_bus_recv(c, NULL, 0, CFN_ALL_LANES, 0, t_in(1), out, sizeof out); }
static int64_t on_recv_next(cfn_bus_t *c) { return cfn_bus_recv_next(c, NULL, CFN_ALL_LANES, 0, 0, out, sizeof out); }
static int64_t on_recv_many(cfn_bus_t *c) {
  size_t used;
  return cfn_bus_recv_many(c, NULL, 0, CFN_ALL_LANES, 8, 0, out, sizeof out, offsets, &used);
}
static int64_t on_recv_parcels(cfn_bus_t *c) {
  cfn_parcel_t parcel[8];
  uint32_t parcels;
  size_t used;
  return cfn_bus_recv_parcels(c, CFN_ALL_LANES, 8, 0, out, sizeof out, parcel, 8, &parcels, &used);
}
static int64_t on_ack_parcels(cfn_bus_t *c) { return cfn_bus_ack_parcels(c, &(cfn_parcel_t){.token = 1, .count = 1}, 1); }
static int64_t on_peek(cfn_bus_t *c) {
  size_t used;
  int more;
  return cfn_bus_peek(c, &to, CFN_ALL_LANES, out, sizeof out, offsets, 32, &used, &more);
}
static const uint64_t token = 1;
static int64_t on_ack(cfn_bus_t *c) { return cfn_bus_ack(c, &token, 1); }
static int64_t on_ack_batch(cfn_bus_t *c) {
  memset(out, 0, sizeof out);
  return cfn_bus_ack_batch(c, out, offsets, 1);
}
static int64_t on_put_back(cfn_bus_t *c) { return cfn_bus_put_back(c, token); }
static int64_t on_copy_body(cfn_bus_t *c) { return cfn_bus_copy_body(c, token, out, 1); }
static int64_t on_loan(cfn_bus_t *c) {
  cfn_loan_t loan;
  int r = cfn_bus_loan(c, CFN_LOAN_LEAST, &loan);
  if (r == CFN_OK) cfn_bus_loan_drop(c, loan.number);
  return r;
}
static int64_t on_loan_open(cfn_bus_t *c) { return cfn_bus_loan_open(c, 1); }
static int64_t on_loan_send(cfn_bus_t *c) {
  return cfn_bus_loan_send(c, 1, to.index, to.mid, CFN_LANE_NORMAL, 0, "", 0, 0, NULL);
}
static int64_t on_claim(cfn_bus_t *c) { return cfn_bus_claim_inbox(c, 0); }
static int64_t on_release(cfn_bus_t *c) { return cfn_bus_release_inbox(c); }
static int64_t on_fileno(cfn_bus_t *c) { return cfn_bus_fileno(c, 0); }
static int64_t on_act_as(cfn_bus_t *c) {
  uint64_t inc;
  int owner;
  return cfn_bus_act_as(c, "d", NULL, CFN_ACT_OWN, &inc, &owner);
}
static int64_t on_register(cfn_bus_t *c) {
  cfn_address_t at;
  return cfn_bus_register(c, "d", NULL, &at, NULL);
}
static int64_t on_find(cfn_bus_t *c) {
  cfn_address_t at;
  return cfn_bus_find(c, "a", &at);
}
static int64_t on_wait_agent(cfn_bus_t *c) {
  cfn_address_t at;
  return cfn_bus_wait_agent(c, "later", t_in(1), &at);
}
static int64_t on_unregister(cfn_bus_t *c) {
  uint64_t dropped;
  return cfn_bus_unregister(c, "a", 0, &dropped);
}
static int64_t on_set_profile(cfn_bus_t *c) {
  static const cfn_profile_t fine = {{NULL, NULL, NULL, NULL, "fine"}};
  return cfn_bus_set_profile(c, "a", &fine);
}
static int64_t on_agents(cfn_bus_t *c) {
  cfn_address_t at;
  return cfn_bus_agents(c, &at, 1);
}
static int64_t on_agents_named(cfn_bus_t *c) {
  cfn_named_t at;
  return cfn_bus_agents_named(c, &at, 1);
}
static int64_t on_agent_info(cfn_bus_t *c) {
  cfn_agent_info_t info;
  return cfn_bus_agent_info(c, &to, &info);
}
static int64_t on_judge(cfn_bus_t *c) { return cfn_bus_judge_agent(c, &to); }
static int64_t on_info(cfn_bus_t *c) {
  cfn_bus_info_t info;
  return cfn_bus_info(c, &info);
}
static int64_t on_reap(cfn_bus_t *c) { return cfn_bus_reap(c); }
static int64_t on_repair(cfn_bus_t *c) {
  cfn_repair_t done;
  return cfn_bus_repair(c, &done);
}
static int64_t on_check(cfn_bus_t *c) { return cfn_bus_check(c, NULL, NULL); }
static int64_t on_destroy_idle(cfn_bus_t *c) { return cfn_bus_destroy_idle(c); }
static int64_t on_put(cfn_bus_t *c) {
  int known;
  return cfn_bus_object_put(c, digest, "x", 1, &known);
}
static int64_t on_get(cfn_bus_t *c) { return cfn_bus_object_get(c, digest, out, sizeof out); }
static int64_t on_bytes(cfn_bus_t *c) { return cfn_bus_object_bytes(c, digest); }
static int64_t on_pin(cfn_bus_t *c) {
  cfn_pin_t pin;
  return cfn_bus_object_pin(c, digest, &pin);
}
static int64_t on_delete(cfn_bus_t *c) { return cfn_bus_object_delete(c, digest); }
static int64_t on_list(cfn_bus_t *c) { return cfn_bus_object_list(c, NULL, 0); }
static int64_t on_heap_info(cfn_bus_t *c) {
  cfn_heap_info_t info;
  return cfn_bus_heap_info(c, &info);
}
static int64_t on_collect(cfn_bus_t *c) { return cfn_bus_collect(c); }
static int64_t on_evict(cfn_bus_t *c) { return cfn_bus_evict(c, 1); }
static int64_t on_ref_set(cfn_bus_t *c) {
  uint64_t version;
  return cfn_bus_ref_set(c, KEY, CFN_ANY_VERSION, 0, "x", 1, &version);
}
static int64_t on_ref_get(cfn_bus_t *c) { return cfn_bus_ref_get(c, KEY, out, sizeof out, NULL); }
static int64_t on_ref_delete(cfn_bus_t *c) { return cfn_bus_ref_delete(c, KEY, CFN_ANY_VERSION); }
static int64_t on_ref_add(cfn_bus_t *c) {
  int64_t sum;
  uint64_t version;
  return cfn_bus_ref_add(c, KEY, 1, &sum, &version);
}
static int64_t on_ref_list(cfn_bus_t *c) { return cfn_bus_ref_list(c, "", 0, NULL, 0); }
static int64_t on_ref_wait(cfn_bus_t *c) {
  uint64_t version;
  return cfn_bus_ref_wait(c, "none", 4, 0, t_in(1), &version);
}
static int64_t on_refs_arm(cfn_bus_t *c) {
  uint32_t armed;
  return cfn_bus_refs_arm(c, &armed);
}
static int64_t on_refs_sleep(cfn_bus_t *c) { return cfn_bus_refs_sleep(c, 0, t_in(1)); }
static int64_t on_take(cfn_bus_t *c) {
  cfn_held_t lease;
  cfn_holder_t died;
  return cfn_bus_lease_take(c, CFN_LEASE_LOCK, "other", 5, 0, t_in(1), &lease, &died);
}
static int64_t on_give_back(cfn_bus_t *c) { return cfn_bus_lease_give_back(c, &held); }
static int64_t on_lease_check(cfn_bus_t *c) { return cfn_bus_lease_check(c, &held); }
static int64_t on_holder(cfn_bus_t *c) {
  cfn_holder_t h;
  return cfn_bus_lease_holder(c, CFN_LEASE_LOCK, "lock", 4, &h);
}
static int64_t on_lease_wait(cfn_bus_t *c) {
  cfn_holder_t h;
  return cfn_bus_lease_wait(c, CFN_LEASE_LOCK, "nobodys", 7, 0, t_in(1), &h);
}
static int64_t on_lease_list(cfn_bus_t *c) { return cfn_bus_lease_list(c, CFN_LEASE_LOCK, NULL, 0); }
static int64_t on_permit(cfn_bus_t *c) {
  uint64_t permit;
  return cfn_bus_semaphore_take(c, "s", 1, 2, 0, &permit);
}
static int64_t on_permit_back(cfn_bus_t *c) { return cfn_bus_semaphore_give_back(c, "s", 1, 1); }
static int64_t on_permits(cfn_bus_t *c) {
  uint32_t permits;
  return cfn_bus_semaphore_holders(c, "s", 1, &permits, NULL, 0);
}
static int64_t on_barrier(cfn_bus_t *c) {
  cfn_arrival_t arrival = {0};
  return cfn_bus_barrier_wait(c, "b", 1, 2, 0, NULL, 0, t_in(1), &arrival);
}
static int64_t on_barrier_join(cfn_bus_t *c) { return cfn_bus_barrier_join(c, "b", 1); }
static int64_t on_barrier_leave(cfn_bus_t *c) { return cfn_bus_barrier_leave(c, "b", 1); }
static int64_t on_barrier_break(cfn_bus_t *c) { return cfn_bus_barrier_break(c, "b", 1); }
static int64_t on_barrier_reset(cfn_bus_t *c) { return cfn_bus_barrier_reset(c, "b", 1); }
static int64_t on_barrier_delete(cfn_bus_t *c) { return cfn_bus_barrier_delete(c, "b", 1); }
static int64_t on_barrier_look(cfn_bus_t *c) {
  cfn_barrier_info_t info;
  return cfn_bus_barrier_look(c, "b", 1, &info, NULL, 0);
}
static int64_t on_destroy(cfn_bus_t *c) { return cfn_bus_destroy(c); } /* last: where it works, nothing is left */

#define CALL(name) {#name, on_##name}
static const struct {
  const char *name;
  int64_t (*call)(cfn_bus_t *);
} calls[] = {
    CALL(send), CALL(send_waiting), CALL(send_try), CALL(send_one), CALL(send_frame), CALL(send_joined), CALL(broadcast),
    CALL(loan), CALL(loan_send), CALL(loan_open),
    CALL(reply), CALL(request), CALL(request_wait), CALL(receipt), CALL(receipt_wait), CALL(recv), CALL(recv_next),
    CALL(recv_many), CALL(recv_parcels), CALL(ack_parcels), CALL(peek), CALL(ack), CALL(ack_batch), CALL(put_back), CALL(copy_body), CALL(claim), CALL(release),
    CALL(fileno), CALL(act_as), CALL(register), CALL(find), CALL(wait_agent), CALL(unregister), CALL(set_profile),
    CALL(agents), CALL(agents_named), CALL(agent_info), CALL(judge), CALL(info), CALL(reap), CALL(repair), CALL(check),
    CALL(put), CALL(get), CALL(bytes), CALL(pin), CALL(delete), CALL(list), CALL(heap_info), CALL(collect), CALL(evict),
    CALL(ref_set), CALL(ref_get), CALL(ref_delete), CALL(ref_add), CALL(ref_list), CALL(ref_wait), CALL(refs_arm),
    CALL(refs_sleep), CALL(take), CALL(give_back), CALL(lease_check), CALL(holder), CALL(lease_wait), CALL(lease_list),
    CALL(permit), CALL(permit_back), CALL(permits), CALL(barrier), CALL(barrier_join), CALL(barrier_leave),
    CALL(barrier_break), CALL(barrier_reset), CALL(barrier_delete), CALL(barrier_look), CALL(destroy_idle), CALL(destroy),
};
#define CALLS ((int)(sizeof calls / sizeof calls[0]))

/* All calls on `c`; what is told otherwise than by `code` is in `but`, by names with a blank before and behind. */
static void all_calls(cfn_bus_t *c, const char *state, int code, const char *but) {
  for (int i = 0; i < CALLS; i++) {
    t_case("%s: %s", state, calls[i].name);
    char name[40];
    snprintf(name, sizeof name, " %s ", calls[i].name);
    cfn_fail(CFN_OK, 0, 0, "%s", "");
    int64_t r = calls[i].call(c);
    if (strstr(but, name)) continue;
    CHECK_INT(r, code);
    /* A try finds no words: it is called again with a deadline where somebody wants them. */
    CHECK(cfn_last_failure()->text[0] || calls[i].call == on_send_try);
  }
}

static void start(void) {
  cfn_wish_t wish = t_small_wish();
  a = t_open("a", &wish);
  CHECK_INT(cfn_bus_find(a, "a", &to), 0);
  CHECK_INT(cfn_bus_send(a, &to, CFN_LANE_NORMAL, &hello, 1, 0, &receipt), 0);
  cfn_holder_t died;
  CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LOCK, "lock", 4, 0, 0, &held, &died), 0);
  CHECK_INT(on_put(a), 0);
  CHECK_INT(on_ref_set(a), 0);
}

int main(void) {
  t_guard(60);
  start();
  cfn_bus_t *c = t_attach("c");
  cfn_bus_close(c);
  cfn_bus_close(c);
  all_calls(c, "closed", CFN_CLOSED, "");
  cfn_bus_request_end(c, 1);
  cfn_bus_object_unpin(c, 1, 1);
  cfn_bus_object_unpin(c, 0, 1);
  CHECK_INT(cfn_bus_largest_body(c), cfn_bus_largest_body(a));
  cfn_bus_free(c);
  cfn_bus_free(NULL);

  pid_t child = t_fork();
  if (child == 0) {
    all_calls(a, "inherited by fork", CFN_FORKED, "");
    cfn_bus_request_end(a, 1);
    cfn_bus_object_unpin(a, 1, 1);
    cfn_bus_close(a);
    _exit(0);
  }
  t_join(child);

  child = t_fork(); /* another process was wrong about this one: it is told, by whatever it calls next */
  if (child == 0) {
    c = t_attach("c");
    cfn_a64 *id = &cfn_attachment(cfn_bus_region(c), cfn_bus_attachment(c))->id;
    uint64_t w = cfn_load_seq(id);
    CHECK(cfn_cas_seq(id, w, cfn_id_word(cfn_id_inc(w), CFN_ID_REAP)));
    all_calls(c, "judged dead", CFN_AGENT_FENCED, " destroy_idle destroy ");
    t_close(c);
    _exit(0);
  }
  t_join(child);
  t_close(a);
  t_destroy();

  start();
  c = t_attach("c");
  CHECK_INT(cfn_bus_destroy(c), 0);
  /* Looking is allowed until the end; ending what has ended is not wrong. */
  all_calls(a, "destroyed", CFN_RETIRED, " check destroy destroy_idle ");
  t_close(c);
  t_close(a);
  t_destroy();

  child = t_fork();
  if (child == 0) {
    start();
    char path[CFN_PATH_BYTES + 16];
    snprintf(path, sizeof path, "%s/region", cfn_bus_region(a)->path);
    CHECK_INT(truncate(path, 0), 0);
    all_calls(a, "cut short", CFN_CORRUPT, " send_try destroy destroy_idle ");
    t_close(a);
    _exit(0);
  }
  t_join(child);
  t_destroy();
  t_passed("test_handles");
  return 0;
}
