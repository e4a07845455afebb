/* One word of a living bus is changed by hand: the checker says what is wrong, in words, and every call that meets it
 * ends, with an answer or an error. A new bus for each. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/bus_ref.h"
#include "base/sha256.h"
#include "mem/directory.h"
#include "mem/evict.h"
#include "mem/index.h"
#include "mem/spill.h"
#include "sync/lease.h"
#include "sync/refs.h"
#include "tests/harness.h"

enum { LARGE = 2 * CFN_PAGE, BODY = 30000, OBJECTS = 3 };

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_address_t at_a, at_b;
static uint8_t body[BODY], out[200000];
static uint8_t digest[OBJECTS][32];
static cfn_held_t held;
static uint32_t me;

static int put(int id) {
  int known;
  memset(body, id + 1, LARGE);
  cfn_sha256(body, LARGE, digest[id]);
  return cfn_bus_object_put(a, digest[id], body, LARGE, &known);
}
static int set(const char *key, uint64_t bytes) {
  uint64_t version;
  return cfn_bus_ref_set(a, key, (uint32_t)strlen(key), CFN_ANY_VERSION, CFN_CODEC_TEXT, body, bytes, &version);
}
static int send_to(cfn_bus_t *from, const cfn_address_t *to, uint32_t bytes, uint32_t n) {
  cfn_outgoing_t messages[3];
  for (uint32_t i = 0; i < n; i++) messages[i] = (cfn_outgoing_t){.body = body, .body_bytes = bytes};
  return cfn_bus_send(from, to, CFN_LANE_NORMAL, messages, n, 0, NULL);
}

/* Something of everything. */
static void start(void) {
  cfn_wish_t wish = t_small_wish();
  wish.class_chunks[4] = wish.class_chunks[5] = 0; /* so that 30,000 bytes are an object */
  wish.object_pages = 20;
  wish.spill = "/dev/shm";
  a = t_open("a", &wish);
  b = t_attach("b");
  r = cfn_bus_region(a);
  me = cfn_bus_attachment(a);
  CHECK_INT(cfn_bus_find(a, "a", &at_a), 0);
  CHECK_INT(cfn_bus_find(a, "b", &at_b), 0);
  CHECK_INT(cfn_bus_claim_inbox(b, 0), 0);
  CHECK_INT(send_to(a, &at_b, 5, 1), 0);
  CHECK_INT(send_to(a, &at_b, 5, 3), 0);
  CHECK_INT(send_to(a, &at_b, BODY, 1), 0);
  CHECK_INT(set("few", 10), 0);
  CHECK_INT(set("large", LARGE), 0);
  for (int id = 0; id < OBJECTS; id++) CHECK_INT(put(id), 0);
  cfn_pin_t stays;
  CHECK_INT(cfn_bus_object_pin(a, digest[0], &stays), 0);
  CHECK_INT(cfn_bus_evict(a, 6 * CFN_PAGE), 0); /* at least one of the others is on disk */
  cfn_bus_object_unpin(a, stays.pin, stays.word);
  cfn_holder_t died;
  uint64_t permit;
  CHECK_INT(cfn_bus_lease_take(a, CFN_LEASE_LOCK, "lock", 4, 0, 0, &held, &died), 0);
  CHECK_INT(cfn_bus_semaphore_take(a, "permits", 7, 2, 0, &permit), 0);
  CHECK_INT(cfn_bus_barrier_join(a, "barrier", 7), 0);
}

/* ---- what there is ---- */

static cfn_mailbox_shm_t *box_a(void) { return cfn_mailbox(r, at_a.index); }
static cfn_mailbox_shm_t *box_b(void) { return cfn_mailbox(r, at_b.index); }
static cfn_a64 *slot(uint32_t i) { return &cfn_lane_slots(r, at_b.index, CFN_LANE_NORMAL)[i]; }
static cfn_chunk_shm_t *chunk(uint32_t i) { return cfn_chunk(r, cfn_slot_ref(cfn_load_seq(slot(i))) - 1); }
static cfn_ref_shm_t *ref_of(const char *key) {
  uint32_t index;
  uint64_t word;
  CHECK_INT(cfn_directory_find(r, CFN_KIND_REF, key, strlen(key), &index, &word), 0);
  return cfn_ref(r, index - r->geo.config.agents);
}
static uint32_t blob_of(const char *key) { return cfn_ref_blob(cfn_load_seq(&ref_of(key)->word)) - 1; }
static uint32_t object(bool on_disk) {
  for (uint32_t i = 0; i < r->geo.config.objects; i++) {
    unsigned state = cfn_own_state(cfn_load_seq(&cfn_blob_record(r, i)->st));
    if (state == (on_disk ? CFN_BLOB_SPILLED : CFN_BLOB_LIVE) && cfn_index_names(r, i)) return i;
  }
  t_fail(__FILE__, __LINE__, "there is one");
}
static cfn_a64 *index_of(uint32_t blob) {
  for (uint32_t s = 0; s < r->geo.index_slots; s++)
    if (cfn_names_blob(cfn_load_seq(&cfn_index(r)[s])) == blob + 1) return &cfn_index(r)[s];
  t_fail(__FILE__, __LINE__, "it has a name");
}
static uint32_t dead_blob(void) {
  for (uint32_t i = r->geo.config.objects; i-- > 0;)
    if (cfn_own_state(cfn_load_seq(&cfn_blob_record(r, i)->st)) == CFN_BLOB_DEAD) return i;
  t_fail(__FILE__, __LINE__, "one is free");
}
static uint32_t free_chunk(void) {
  for (uint32_t k = 0; k < r->geo.chunks; k++)
    if (cfn_own_state(cfn_load_seq(&cfn_chunk(r, k)->own)) == CFN_FREE) return k;
  t_fail(__FILE__, __LINE__, "one is free");
}
static uint32_t nobodys_attachment(void) { return r->geo.config.attachments - 1; }
static void to_blob(cfn_a64 *word, unsigned state, unsigned who) { cfn_store_seq(word, cfn_own_next(cfn_load_seq(word), state, who)); }
static void to_state(cfn_a64 *mid, unsigned state) {
  uint64_t w = cfn_load_seq(mid);
  cfn_store_seq(mid, cfn_mid_word(cfn_mid_ver(w), state, cfn_mid_who(w)));
}
static cfn_a64 *st_of(uint32_t blob) { return &cfn_blob_record(r, blob)->st; }
static void ref_to(const char *key, uint32_t field) {
  cfn_a64 *word = &ref_of(key)->word;
  cfn_store_seq(word, cfn_ref_word(field, cfn_ref_version(cfn_load_seq(word))));
}
static cfn_a64 *directory_of(const char *key) {
  uint32_t index;
  uint64_t word;
  CHECK_INT(cfn_directory_find(r, CFN_KIND_REF, key, strlen(key), &index, &word), 0);
  for (uint32_t s = 0; s < r->geo.config.directory_slots; s++)
    if (cfn_dir_value(cfn_load_seq(&cfn_directory(r)[s])) == index + 1) return &cfn_directory(r)[s];
  t_fail(__FILE__, __LINE__, "it stands there");
}
static const char LOCK_KEY[] = {CFN_KEY_OURS, CFN_LEASE_LOCK, 'l', 'o', 'c', 'k', 0};

/* ---- damages ---- */

static void header(void) { r->base[CFN_PAGE - 100] ^= 1; }
static void bus_state(void) { cfn_store_seq(&cfn_state(r)->state, 77); }
static void bus_dropped(void) { cfn_store_seq(&cfn_state(r)->corrupt_dropped, 3); }
static void slot_of_no_chunk(void) { cfn_store_seq(slot(0), cfn_slot_word(0, r->geo.chunks + 5)); }
static void slot_of_free_chunk(void) { cfn_store_seq(slot(0), cfn_slot_word(0, free_chunk() + 1)); }
static void slot_twice(void) { cfn_store_seq(slot(1), cfn_slot_word(0, cfn_slot_ref(cfn_load_seq(slot(0))))); }
static void slot_of_a_later_lap(void) { cfn_store_seq(slot(0), cfn_slot_word(9, cfn_slot_ref(cfn_load_seq(slot(0))))); }
static void slot_that_waits_for_long(void) { cfn_store_seq(slot(6), cfn_slot_word(9, 0)); }
static void chunk_state(void) { to_blob(&chunk(0)->own, 6, 1); }
static void chunk_of_another(void) { cfn_store_seq(&chunk(0)->target, cfn_target_word(CFN_TO_MAILBOX, CFN_LANE_LOW, at_b.index)); }
static void chunk_without_its_body(void) { cfn_store_seq(&chunk(2)->blob, dead_blob() + 1); }
static void chunk_of_no_body(void) { cfn_store_seq(&chunk(2)->blob, 0); }
static void chunk_of_a_far_body(void) { cfn_store_seq(&chunk(2)->blob, r->geo.config.objects + 9); }
static void chunk_leaked(void) { to_blob(&cfn_chunk(r, free_chunk())->own, CFN_MINE, nobodys_attachment()); }
static void chunk_of_nobody(void) { to_blob(&cfn_chunk(r, free_chunk())->own, CFN_TAKEN, 0x1fff); }
static void owner_far(void) { cfn_store_seq(&box_a()->owner, cfn_owner_word(5, r->geo.config.attachments + 3)); }
static void reader_nobody(void) { cfn_store_seq(&box_b()->consumer, cfn_consumer_word(50, nobodys_attachment() + 1)); }
static void box_state(void) { to_state(&box_a()->mid, 9); }
static void box_removing(void) { to_state(&box_a()->mid, CFN_MID_REMOVING); }
static void box_made(void) { to_state(&box_a()->mid, CFN_MID_PEND); }
static void box_name(void) { cfn_store_seq(&box_a()->name[0], ' '); }
static void box_name_ugly(void) { cfn_store_seq(&box_a()->name[0], UINT64_C(0x07ff1b41)); }
static void box_other_name(void) { cfn_store_seq(&box_a()->name[0], 'z'); }
static void box_text(void) { cfn_store_seq(&box_a()->status.word[0], UINT64_MAX); }
static void box_seen(void) { cfn_store_seq(&box_b()->lane[CFN_LANE_NORMAL].seen, cfn_place(90, 0)); }
static void box_head(void) { cfn_store_seq(&box_b()->lane[CFN_LANE_NORMAL].head, 80); }
static void attachment_state(void) { cfn_store_seq(&cfn_attachment(r, nobodys_attachment())->id, cfn_id_word(1, 9)); }
static void ref_state(void) { to_state(&ref_of("few")->mid, 9); }
static void ref_removing(void) { to_state(&ref_of("few")->mid, CFN_MID_REMOVING); }
static void ref_made(void) { to_state(&ref_of("few")->mid, CFN_MID_PEND); }
static void ref_closed(void) { ref_to("few", CFN_REF_CLOSED); }
static void ref_far(void) { ref_to("few", r->geo.config.objects + 7); }
static void ref_of_nothing(void) { ref_to("few", dead_blob() + 1); }
static void ref_key(void) { cfn_store_seq(&ref_of("few")->name[0], UINT64_C(0x78) /* "x" */); }
static void ref_key_ugly(void) { cfn_store_seq(&ref_of("few")->name[0], UINT64_C(0x1b0a7f78)); }
static void lock_of_nobody(void) { ref_to(LOCK_KEY, CFN_REF_LEASE + nobodys_attachment()); }
static void lock_far(void) { ref_to(LOCK_KEY, CFN_REF_LEASE + r->geo.config.attachments + 2); }
static void lock_died(void) { ref_to(LOCK_KEY, CFN_REF_DIED); }
static void value_as_lock(void) { ref_to("few", CFN_REF_LEASE + me); }
static void lock_as_value(void) { ref_to(LOCK_KEY, blob_of("few") + 1); }
static void blob_state(void) { to_blob(st_of(object(false)), 7, 0); }
static void blob_far_filler(void) { to_blob(st_of(dead_blob()), CFN_BLOB_FILL, 0x1fff); }
static void blob_filled_by_nobody(void) { to_blob(st_of(dead_blob()), CFN_BLOB_FILL, me); }
static void blob_filled(void) {
  cfn_hold_t h;
  uint32_t dead = dead_blob();
  CHECK(cfn_ledger_find(r, me, &h) && cfn_ledger_set(&h, dead));
  to_blob(st_of(dead), CFN_BLOB_FILL, me);
}
static void blob_spilling(void) {
  cfn_hold_t h;
  uint32_t one = object(false);
  CHECK(cfn_ledger_find(r, me, &h) && cfn_ledger_announce(&h, one));
  to_blob(st_of(one), CFN_BLOB_SPILLING, me);
}
static void blob_spilled_by_nobody(void) { to_blob(st_of(object(false)), CFN_BLOB_SPILLING, me); }
static void blob_bytes(void) { cfn_store_seq(&cfn_blob_record(r, object(false))->bytes, 100 * CFN_PAGE); }
static void blob_far_bytes(void) { cfn_store_seq(&cfn_blob_record(r, object(false))->bytes, UINT64_MAX - 3); }
static void blob_run(void) { cfn_store_seq(&cfn_blob_record(r, object(false))->run, UINT64_C(2) << 32 | 0xfffffff0u); }
static void value_bytes(void) { cfn_store_seq(&cfn_blob_record(r, blob_of("few"))->bytes, 100000); }
static void value_run(void) { cfn_store_seq(&cfn_blob_record(r, blob_of("large"))->run, UINT64_C(2) << 32 | 0x7fffffffu); }
static void page_of_another(void) {
  uint32_t first = (uint32_t)cfn_load_seq(&cfn_blob_record(r, object(false))->run);
  cfn_store_seq(cfn_page_word(r, first), cfn_names_word(3, dead_blob() + 1));
}
static void page_far(void) {
  uint32_t first = (uint32_t)cfn_load_seq(&cfn_blob_record(r, object(false))->run);
  cfn_store_seq(cfn_page_word(r, first), cfn_names_word(3, r->geo.config.objects + 100));
}
static void few_on_disk(void) { cfn_store_seq(&cfn_blob_record(r, object(true))->bytes, 3); }
static void far_on_disk(void) { cfn_store_seq(&cfn_blob_record(r, object(true))->bytes, UINT64_MAX); }
static void another_on_disk(void) { to_blob(st_of(object(true)), CFN_BLOB_SPILLED, 0); } /* no such file */
static void disk_not_ours(void) { CHECK_INT(chmod(r->super.spill, 0755), 0); }
static void index_far(void) { cfn_store_seq(index_of(object(false)), cfn_names_word(9, r->geo.config.objects + 4)); }
static void index_of_nothing(void) { cfn_store_seq(index_of(object(false)), cfn_names_word(9, dead_blob() + 1)); }
static void digest_of_another(void) { cfn_store_seq(&cfn_blob_record(r, object(false))->digest[0], 1); }
static void bytes_of_another(void) { cfn_heap_page(r, (uint32_t)cfn_load_seq(&cfn_blob_record(r, object(false))->run))[9] ^= 1; }
static void ledger_far(void) { cfn_store_seq(&cfn_attachment(r, me)->ledger[40], cfn_names_word(1, r->geo.config.objects + 1)); }
static void intent_far(void) { cfn_store_seq(&cfn_state(r)->intent, cfn_intent_word(900, 0, r->geo.records + 1)); }
static void intent_pending(void) { cfn_store_seq(&cfn_state(r)->intent, cfn_intent_word(900, CFN_INTENT_REMOVE, at_a.index + 1)); }
static void directory_far(void) { cfn_store_seq(directory_of("few"), cfn_dir_word(9, r->geo.records + 7)); }
static void directory_of_nobody(void) { cfn_store_seq(directory_of("few"), cfn_dir_word(9, r->geo.records)); }
static void hints(void) {
  for (uint32_t i = 0; i < r->geo.hint_words; i++) cfn_store_seq(&cfn_hints(r)[i], 0);
}
static void barrier_damaged(void) {
  static const char key[] = {CFN_KEY_OURS, 'B', 'b', 'a', 'r', 'r', 'i', 'e', 'r', 0};
  cfn_blob_shm_t *record = cfn_blob_record(r, cfn_ref_blob(cfn_load_seq(&ref_of(key)->word)) - 1);
  if (cfn_load_seq(&record->run) == 0) cfn_store_seq(&record->inside[0], UINT64_MAX);
  else memset(cfn_heap_page(r, (uint32_t)cfn_load_seq(&record->run)), 0xff, 64);
}
static void permits_damaged(void) {
  static const char key[] = {CFN_KEY_OURS, 'S', 'p', 'e', 'r', 'm', 'i', 't', 's', 0};
  cfn_blob_shm_t *record = cfn_blob_record(r, cfn_ref_blob(cfn_load_seq(&ref_of(key)->word)) - 1);
  if (cfn_load_seq(&record->run) == 0) cfn_store_seq(&record->inside[0], UINT64_MAX);
  else memset(cfn_heap_page(r, (uint32_t)cfn_load_seq(&record->run)), 0xff, 64);
}

#define D(name, text) {#name, name, text}
static const struct {
  const char *name;
  void (*plant)(void);
  const char *said; /* in a finding; "": the checker cannot know */
} damages[] = {
    D(header, "the header was changed"),
    D(bus_state, "the bus has state 77"),
    D(bus_dropped, "3 messages were dropped as corrupt"),
    D(slot_of_no_chunk, "a slot names chunk"),
    D(slot_of_free_chunk, "with owner state 0"),
    D(slot_twice, "stands in 2 slots"),
    D(slot_of_a_later_lap, "does not fit head"),
    D(slot_that_waits_for_long, "does not fit head"),
    D(chunk_state, "with owner state 6"),
    D(chunk_of_another, "addressed to another"),
    D(chunk_without_its_body, "which is not there"),
    D(chunk_of_no_body, "which is not there"),
    D(chunk_of_a_far_body, "which is not there"),
    D(chunk_leaked, "is leaked: state 1"),
    D(chunk_of_nobody, "is leaked: state 2"),
    D(owner_far, "its owner word names attachment"),
    D(reader_nobody, "where nobody is"),
    D(box_state, "has state 9"),
    D(box_removing, "is being removed"),
    D(box_made, "is being created"),
    D(box_name, "impossible name"),
    D(box_name_ugly, "impossible name 'A"),
    D(box_other_name, "agent 'z' is not found under its name"),
    D(box_text, "a text is half written"),
    D(box_seen, "more was seen than was sent"),
    D(box_head, "does not fit head 80"),
    D(attachment_state, "has state 9"),
    D(ref_state, "named value 0 has state 9"),
    D(ref_removing, "'few' is being taken back"),
    D(ref_made, "('few') is being created"),
    D(ref_closed, "'few' is being taken back"),
    D(ref_far, "value 'few' names object"),
    D(ref_of_nothing, "value 'few' names an object that is not there"),
    D(ref_key, "value 'x' is not found under its key"),
    D(ref_key_ugly, "is not found under its key"),
    D(lock_of_nobody, "where nobody is"),
    D(lock_far, "lock: its holder word names attachment"),
    D(lock_died, "the last holder of 'lock' died"),
    D(value_as_lock, ""),
    D(lock_as_value, ""),
    D(blob_state, "has state 7"),
    D(blob_far_filler, "is being written by attachment 8191 of"),
    D(blob_filled_by_nobody, "is being written by nobody"),
    D(blob_filled, "is being written by attachment"),
    D(blob_spilling, "is being put on disk by attachment"),
    D(blob_spilled_by_nobody, "is being put on disk by nobody"),
    D(blob_bytes, "do not fit its pages"),
    D(blob_far_bytes, "do not fit its pages"),
    D(blob_run, "do not fit its pages"),
    D(value_bytes, "do not fit its pages"),
    D(value_run, "do not fit its pages"),
    D(page_of_another, "belongs to another"),
    D(page_far, "belongs to another"),
    D(few_on_disk, "is not put on disk"),
    D(far_on_disk, "is not put on disk"),
    D(another_on_disk, "was put on disk, and is not there"),
    D(disk_not_ours, "is not yours alone"),
    D(index_far, "names object"),
    D(index_of_nothing, "which is not there"),
    D(digest_of_another, ""),
    D(bytes_of_another, ""),
    D(ledger_far, "holds object"),
    D(intent_far, "the directory's intent names record"),
    D(intent_pending, "a change of the directory is pending"),
    D(directory_far, "names record"),
    D(directory_of_nobody, "which is not registered"),
    D(hints, "free chunks are found by nobody"),
    D(barrier_damaged, ""),
    D(permits_damaged, ""),
};
#define DAMAGES ((int)(sizeof damages / sizeof damages[0]))

static const char *wanted;
static int seen;
static char all_said[4000];
static void finding(void *context, const char *severity, const char *text) {
  (void)context;
  (void)severity;
  seen += strstr(text, wanted) != NULL;
  size_t used = strlen(all_said);
  snprintf(all_said + used, sizeof all_said - used, "  %s\n", text);
}

/* Everything that is asked of a bus, twice; whatever the answer is, it comes. */
static void use_all(void) {
  static cfn_address_t agents[16];
  static cfn_named_t named[16];
  static cfn_ref_info_t refs[16];
  static cfn_object_info_t objects[40];
  static cfn_holder_t holders[8];
  static cfn_party_t parties[8];
  static uint32_t offsets[64];
  cfn_agent_info_t agent;
  cfn_bus_info_t bus;
  cfn_heap_info_t heap;
  cfn_barrier_info_t barrier;
  cfn_holder_t died;
  cfn_held_t lease;
  cfn_arrival_t arrival;
  cfn_repair_t done;
  cfn_pin_t pin;
  uint64_t u;
  int64_t sum;
  uint32_t permits;
  size_t used;
  for (int turn = 0; turn < 2; turn++) {
    cfn_bus_peek(a, &at_b, CFN_ALL_LANES, out, sizeof out, offsets, 64, &used, &(int){0});
    for (int i = 0; i < 8; i++) {
      send_to(a, &at_b, i % 2 ? 5 : BODY, 1);
      int64_t n = cfn_bus_recv(b, NULL, 0, CFN_ALL_LANES, 0, 0, out, sizeof out);
      uint64_t token = n > 0 ? ((cfn_wire_t *)(void *)out)->token : 0;
      if (token) cfn_bus_ack(b, &token, 1);
    }
    cfn_bus_agents(a, agents, 16);
    cfn_bus_agents_named(a, named, 16);
    cfn_bus_agent_info(a, &at_a, &agent);
    cfn_bus_agent_info(a, &at_b, &agent);
    cfn_bus_judge_agent(a, &at_b);
    cfn_bus_info(a, &bus);
    cfn_bus_ref_list(a, "", 0, refs, 16);
    static const char *const keys[] = {"few", "large", "none", "x", LOCK_KEY};
    for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++) {
      uint32_t n = (uint32_t)strlen(keys[i]);
      cfn_bus_ref_get(b, keys[i], n, out, sizeof out, NULL);
      cfn_bus_ref_add(b, keys[i], n, 1, &sum, &u);
      cfn_bus_ref_wait(b, keys[i], n, 0, 0, &u);
    }
    for (int id = 0; id < OBJECTS; id++) {
      cfn_bus_object_get(b, digest[id], out, sizeof out);
      if (cfn_bus_object_pin(b, digest[id], &pin) == CFN_OK) cfn_bus_object_unpin(b, pin.pin, pin.word);
      cfn_bus_object_bytes(b, digest[id]);
    }
    cfn_bus_object_list(a, objects, 40);
    cfn_bus_heap_info(a, &heap);
    cfn_bus_lease_holder(b, CFN_LEASE_LOCK, "lock", 4, &holders[0]);
    cfn_bus_lease_list(b, CFN_LEASE_LOCK, holders, 8);
    cfn_bus_lease_wait(b, CFN_LEASE_LOCK, "lock", 4, 0, 0, &holders[0]);
    if (cfn_bus_lease_take(b, CFN_LEASE_LOCK, "lock", 4, 0, 0, &lease, &died) == CFN_OK) cfn_bus_lease_give_back(b, &lease);
    cfn_bus_lease_check(a, &held);
    cfn_bus_semaphore_holders(b, "permits", 7, &permits, holders, 8);
    cfn_bus_semaphore_take(b, "permits", 7, 2, 0, &u);
    cfn_bus_barrier_look(b, "barrier", 7, &barrier, parties, 8);
    memset(&arrival, 0, sizeof arrival);
    cfn_bus_barrier_wait(b, "barrier", 7, 0, 0, &at_a, 1, 0, &arrival);
    cfn_bus_barrier_reset(b, "barrier", 7);
    set("few", 20);
    set("large", LARGE);
    set("new", 30);
    for (int id = 0; id < OBJECTS; id++) put(id);
    cfn_bus_collect(a);
    cfn_bus_evict(a, 8 * CFN_PAGE);
    cfn_bus_repair(a, &done);
    cfn_bus_reap(a);
    cfn_bus_ref_delete(a, "few", 3, CFN_ANY_VERSION);
    cfn_bus_barrier_delete(b, "barrier", 7);
    for (int id = 0; id < OBJECTS; id++) cfn_bus_object_delete(a, digest[id]);
    uint64_t dropped;
    cfn_bus_unregister(a, "b", CFN_FORCE, &dropped);
    cfn_bus_register(a, "c", NULL, &agents[0], NULL);
    cfn_bus_check(a, NULL, NULL);
  }
}

int main(int argc, char **argv) {
  t_guard(120);
  start();
  t_check_region(a, true);
  use_all();
  t_close(b);
  t_close(a);
  t_destroy();
  for (int i = 0; i < DAMAGES; i++) {
    if (argc > 1 && strcmp(argv[1], damages[i].name)) continue;
    t_case("%s", damages[i].name);
    start();
    damages[i].plant();
    wanted = damages[i].said;
    seen = 0;
    all_said[0] = 0;
    cfn_bus_check(a, finding, NULL);
    if (*wanted && !seen) fprintf(stderr, "wanted: %s; said:\n%s", wanted, all_said);
    CHECK(!*wanted || seen);
    use_all();
    char spill[CFN_SPILL_BYTES];
    memcpy(spill, r->super.spill, sizeof spill);
    t_close(b);
    t_close(a);
    t_destroy();
    if (damages[i].plant == header) cfn_spill_end(spill); /* nobody can know any more where that is */
    CHECK_INT(access(spill, F_OK), -1);
  }
  t_passed("test_damage");
  return 0;
}
