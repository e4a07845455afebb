/* Locks, semaphores and barriers while others take, die, close and write between two instructions; and what is stored of them
 * when it makes no sense. */
#include <string.h>

#include "agent/bus_ref.h"
#include "mem/directory.h"
#include "sync/lease.h"
#include "tests/meddler.h"

enum { TURNS = 1000 }; /* as TRIES in agent/bus_lease.c */

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static cfn_held_t held;
static cfn_holder_t holder, died;
static uint64_t version;

static void start(void) {
  m_fresh(false);
  bus[0] = a = sim_open(0, "a");
  bus[1] = b = sim_open(1, "b");
  r = cfn_bus_region(a);
}
static int lock(int p, const char *name, int flags, uint64_t deadline) {
  sim_as(p);
  int e = cfn_bus_lease_take(bus[p], CFN_LEASE_LOCK, name, (uint32_t)strlen(name), flags, deadline, &held, &died);
  sim_as(0);
  return e;
}
static int who(const char *name) {
  return cfn_bus_lease_holder(a, CFN_LEASE_LOCK, name, (uint32_t)strlen(name), &holder);
}
static int wait_for(const char *name, uint64_t seen, uint64_t deadline) {
  int e;
  do {
    e = cfn_bus_lease_wait(a, CFN_LEASE_LOCK, name, (uint32_t)strlen(name), seen, deadline, &holder);
  } while (e == CFN_INTERRUPTED);
  return e;
}
static cfn_ref_shm_t *ref_of(char kind, const char *name) {
  cfn_ref_key_t key;
  uint32_t index;
  uint64_t word;
  CHECK_INT(cfn_ref_key_of("it", kind, name, (uint32_t)strlen(name), &key), 0);
  CHECK_INT(cfn_directory_find(r, CFN_KIND_REF, key.text, key.bytes, &index, &word), 0);
  return cfn_ref(r, index - r->geo.config.agents);
}
static cfn_ref_shm_t *lock_ref(const char *name) { return ref_of('L', name); }
static uint32_t number_of(const cfn_ref_shm_t *ref) { return (uint32_t)(ref - cfn_ref(r, 0)); }
static bool says(const char *words) { return strstr(cfn_last_failure()->text, words) != NULL; }
/* All are given back, and a lock, a permit and a barrier do their work. */
static void end(void) {
  sim_meddler = NULL;
  sim_as(1);
  cfn_bus_close(b);
  sim_as(0);
  CHECK(cfn_bus_reap(a) >= 0);
  CHECK_INT(lock(0, "new", 0, 0), 0);
  CHECK_INT(cfn_bus_lease_give_back(a, &held), 0);
  CHECK_INT(cfn_bus_pins(a), 0);
  t_check_region(a, false);
}

/* What another does. */
static void closes(cfn_a64 *word) { cfn_store_seq(word, cfn_ref_word(CFN_REF_CLOSED, cfn_refs_next_version(r))); }
static void frees(cfn_a64 *word) { cfn_store_seq(word, cfn_ref_word(0, cfn_refs_next_version(r))); }
static void b_dies(cfn_a64 *word) {
  (void)word;
  sim_bury(1);
}
static void clears(cfn_a64 *word) { cfn_store_seq(word, 0); }

/* ---- locks ---- */

static void looking(void) {
  t_case("who holds it, while that changes at each look");
  start();
  CHECK_INT(lock(1, "l", 0, 0), 0);
  cfn_ref_shm_t *ref = lock_ref("l");
  m_meddle("cfn_refs_load", 'l', &ref->word, 0, M_ALWAYS, m_next);
  CHECK_INT(who("l"), CFN_AGAIN);
  CHECK_INT(m_end(), 2 * TURNS);
  CHECK(says("'l' changes faster than it can be read"));
  cfn_holder_t all[4];
  m_meddle("cfn_refs_load", 'l', &ref->word, 0, M_ALWAYS, m_next);
  CHECK_INT(cfn_bus_lease_list(a, CFN_LEASE_LOCK, all, 4), 0);
  m_end();
  m_meddle("cfn_refs_load", 'l', &ref->mid, 0, 1, m_next24);
  CHECK_INT(cfn_bus_lease_list(a, CFN_LEASE_LOCK, all, 4), 0);
  m_end();
  m_meddle("cfn_refs_load", 'l', &ref->mid, 0, M_ALWAYS, m_next24);
  CHECK_INT(who("l"), CFN_AGAIN);
  m_end();
  m_meddle("cfn_refs_load", 'l', &ref->word, 1, 1, m_next);
  CHECK_INT(who("l"), 0);
  m_end();
  CHECK_INT(holder.life, CFN_HOLDER_ALIVE);
  CHECK_INT(strcmp(holder.agent, "b"), 0);
  t_case("a holder whose agent makes no sense, or that nobody noted, or of the future");
  cfn_store_seq(&ref->changed_by, 0);
  CHECK_INT(who("l"), 0);
  CHECK_INT(strcmp(holder.agent, "b"), 0); /* by its attachment */
  cfn_store_seq(&b->actor.slot->agent, 999);
  CHECK_INT(who("l"), 0);
  CHECK_INT(strlen(holder.agent), 0);
  CHECK_INT(lock(0, "l", 0, 0), CFN_TIMEOUT);
  cfn_store_seq(&ref->changed_wall_ns, 0);
  CHECK_INT(lock(0, "l", 0, 0), CFN_TIMEOUT);
  CHECK(!says(", for"));
  cfn_store_seq(&ref->changed_wall_ns, UINT64_MAX);
  CHECK_INT(lock(0, "l", 0, 0), CFN_TIMEOUT);
  CHECK(!says(", for"));
  t_case("a holder that dies while it is looked at");
  m_meddle("cfn_lease_past", 'l', NULL, 0, 1, b_dies);
  CHECK_INT(who("l"), 0);
  m_end();
  CHECK_INT(holder.life, CFN_HOLDER_DEAD);
  CHECK_INT(cfn_bus_reap(a), 1);
  CHECK_INT(lock(0, "l", 0, 0), 0);
  CHECK(died.token != 0);
  t_case("a lease whose key makes no sense, and that is lost");
  cfn_store_seq(&lock_ref("l")->name[0], 'x');
  frees(&ref->word);
  CHECK_INT(cfn_bus_lease_check(a, &held), CFN_LEASE_LOST);
  CHECK(says("'x'"));
}

static void taking(void) {
  t_case("a lock that is given back between arming and sleeping");
  start();
  CHECK_INT(lock(1, "l", 0, 0), 0);
  m_meddle("cfn_refs_load", 'l', &lock_ref("l")->word, 1, 1, frees);
  CHECK_INT(lock(0, "l", 0, patience()), 0);
  m_end();
  CHECK_INT(cfn_bus_lease_give_back(a, &held), 0);
  CHECK_INT(lock(1, "l", 0, 0), 0);
  m_meddle("cfn_refs_load", 'l', &lock_ref("l")->word, 1, 1, closes);
  CHECK_INT(lock(0, "l", 0, patience()), 0);
  m_end();
  t_case("a handle of which one of many threads waits");
  cfn_ref_shm_t *ref = lock_ref("l");
  cfn_store_seq(&a->actor.slot->waiting, (uint64_t)CFN_WAIT_LEASE << 56 | (uint64_t)(CFN_WAIT_ALONE >> 8) << 48 | number_of(ref));
  CHECK_INT(lock(0, "m", CFN_LEASE_ONE_OF_MANY, 0), 0);
  CHECK_INT(cfn_load_seq(&a->actor.slot->waiting), (uint64_t)CFN_WAIT_LEASE << 56 | number_of(ref));
  CHECK_INT(lock(0, "n", CFN_LEASE_ONE_OF_MANY, 0), 0);
  cfn_store_seq(&a->actor.slot->waiting, 0);
  end();
}

static void waiting(void) {
  t_case("who waits for a holder: the record is taken back, changes hands, or there is none");
  static const struct { int nth; m_act_t *what; } moments[] = {{1, closes}, {3, closes}, {3, frees}};
  for (unsigned i = 0; i < 3; i++) {
    start();
    CHECK_INT(lock(1, "l", 0, 0), 0);
    m_meddle("cfn_refs_load", 'l', &lock_ref("l")->word, moments[i].nth, 1, moments[i].what);
    CHECK_INT(wait_for("l", held.token, patience()), 0);
    m_end();
    CHECK_INT(holder.token, 0);
    end();
  }
  start();
  CHECK_INT(lock(1, "l", 0, 0), 0);
  m_meddle("cfn_refs_load", 'l', &lock_ref("l")->mid, 3, M_ALWAYS, m_next24);
  CHECK_INT(wait_for("l", held.token, patience()), CFN_AGAIN);
  m_end();
  CHECK_INT(wait_for("l", held.token, 0), CFN_TIMEOUT);
  for (int i = 0; i < 3; i++) CHECK_INT(lock(1, (const char *[]){"x", "y", "z"}[i], 0, 0), 0);
  CHECK_INT(wait_for("one more", 0, patience()), CFN_OVER_CAPACITY);
  end();
}

/* ---- circles: what others wait for is written for them ---- */

static void waits_for(cfn_bus_t *one, const cfn_ref_shm_t *ref, uint64_t since) {
  cfn_store_seq(&one->actor.slot->waiting_since, since);
  cfn_store_seq(&one->actor.slot->waiting,
                (uint64_t)CFN_WAIT_LEASE << 56 | (uint64_t)(CFN_WAIT_ALONE >> 8) << 48 | number_of(ref));
}
static void two_in_a_circle(uint64_t since) { /* a holds "l" and b holds "m" and waits for "l" */
  start();
  CHECK_INT(lock(0, "l", 0, 0), 0);
  CHECK_INT(lock(1, "m", 0, 0), 0);
  waits_for(b, lock_ref("l"), since);
}
static int take_m(void) { return lock(0, "m", 0, sim_now() + 1000); }
static void circles(void) {
  t_case("the last that comes is told, or the other, or the higher number of two at once");
  two_in_a_circle(1);
  CHECK_INT(take_m(), CFN_DEADLOCK);
  CHECK(says("'m' of b (process 2), which waits for 'l', which this process holds"));
  waits_for(b, lock_ref("l"), UINT64_MAX);
  CHECK_INT(take_m(), CFN_TIMEOUT);
  waits_for(b, lock_ref("l"), sim_now());
  CHECK_INT(take_m(), b->actor.me > a->actor.me ? CFN_TIMEOUT : CFN_DEADLOCK);
  end();
  t_case("keys that make no sense are shown as they are");
  two_in_a_circle(1);
  cfn_ref_shm_t *l = lock_ref("l");
  uint64_t name = cfn_load_seq(&l->name[0]);
  cfn_store_seq(&l->name[0], 'z');
  CHECK_INT(take_m(), CFN_DEADLOCK);
  CHECK(says("which waits for 'z', which this process holds"));
  cfn_store_seq(&l->name[0], name);
  cfn_store_seq(&b->actor.slot->waiting, 0);
  end();
  static const struct { const char *what; int nth; } words[] = {{"waiting", 1}, {"since", 1}, {"word", 1}};
  for (unsigned i = 0; i < 3; i++) {
    t_case("no circle: its %s changes between two looks", words[i].what);
    two_in_a_circle(1);
    cfn_a64 *word = i == 0 ? &b->actor.slot->waiting : i == 1 ? &b->actor.slot->waiting_since : &lock_ref("l")->word;
    m_meddle("edge_of", 'l', word, words[i].nth, 1, i == 0 ? clears : m_next);
    CHECK_INT(take_m(), CFN_TIMEOUT);
    m_end();
    end();
  }
  t_case("no circle: what is waited for makes no sense");
  two_in_a_circle(1);
  cfn_store_seq(&b->actor.slot->waiting, cfn_load_seq(&b->actor.slot->waiting) | 0xffff);
  CHECK_INT(take_m(), CFN_TIMEOUT);
  waits_for(b, lock_ref("l"), 1);
  cfn_store_seq(&lock_ref("l")->word, cfn_ref_word(CFN_REF_LEASE + r->geo.config.attachments + 3, 77));
  CHECK_INT(take_m(), CFN_TIMEOUT);
  CHECK_INT(who("l"), 0); /* who looks finds nobody there */
  CHECK_INT(holder.life, CFN_HOLDER_DEAD);
  end();

  t_case("a circle that we only wait for");
  two_in_a_circle(1);
  CHECK_INT(lock(1, "x", 0, 0), 0);
  waits_for(b, lock_ref("x"), 1); /* held by itself */
  CHECK_INT(take_m(), CFN_TIMEOUT);
  end();

  t_case("a circle with names that fill the text");
  start();
  static char names[4][110];
  for (int i = 0; i < 4; i++) memset(names[i], 'a' + i, 109);
  bus[2] = sim_open(2, NULL);
  bus[3] = sim_open(3, NULL);
  for (int p = 0; p < 4; p++) CHECK_INT(lock(p, names[p], 0, 0), 0);
  for (int p = 1; p < 4; p++) waits_for(bus[p], lock_ref(names[(p + 1) % 4]), 1);
  CHECK_INT(lock(0, names[1], 0, patience()), CFN_DEADLOCK);
  CHECK(says("give one back"));
}

/* ---- values of ours ---- */

typedef struct party { uint64_t who, serial; uint32_t mailbox, pid; } party_t;
typedef struct barrier { uint32_t magic, parties; uint64_t round, first, broken, ended[8]; party_t party[8]; } barrier_t;
enum { ARRIVED = 0, JOINED = 1, JOINED_AND_ARRIVED = 2, LOST = 3 };
#define HEAD offsetof(barrier_t, party)

static cfn_ref_key_t key;
static void store(char kind, const char *name, const void *data, uint64_t bytes) {
  CHECK_INT(cfn_ref_key_of("it", kind, name, (uint32_t)strlen(name), &key), 0);
  CHECK_INT(cfn_bus_enter(a), 0);
  CHECK_INT(cfn_ref_set(a, key.text, key.bytes, CFN_ANY_VERSION, 0, data, bytes, CFN_RING_WAITERS, &version), 0);
  cfn_bus_leave(a);
}
/* The value has an object that is not there. */
static void loses_its_object(cfn_ref_shm_t *ref) {
  CHECK(cfn_bus_collect(a) >= 0);
  uint32_t i = 0;
  while (cfn_own_state(cfn_load_seq(&cfn_blob_record(r, i)->st)) != CFN_BLOB_DEAD) i++;
  cfn_store_seq(&ref->word, cfn_ref_word(i + 1, cfn_refs_next_version(r)));
}
static void load(barrier_t *out) {
  cfn_ref_value_t v = {0};
  CHECK_INT(cfn_ref_key_of("it", 'B', "x", 1, &key), 0);
  CHECK_INT(cfn_bus_enter(a), 0);
  CHECK_INT(cfn_ref_read(a, &key, 0, &v), 0);
  cfn_bus_leave(a);
  memset(out, 0, sizeof *out);
  CHECK(v.bytes <= sizeof *out);
  memcpy(out, v.data, v.bytes);
  free(v.data);
}
static int arrive(int p, uint32_t parties, int flags, const cfn_address_t *expected, uint32_t n, uint64_t deadline,
                  cfn_arrival_t *arrival) {
  sim_as(p);
  int e;
  do {
    e = cfn_bus_barrier_wait(bus[p], "x", 1, parties, flags, expected, n, deadline, arrival);
  } while (e == CFN_INTERRUPTED);
  sim_as(0);
  return e;
}

static void semaphores(void) {
  uint64_t token, other;
  uint32_t permits;
  t_case("a semaphore whose value makes no sense");
  start();
  CHECK_INT(cfn_bus_semaphore_take(a, "x", 1, 2, 0, &token), 0);
  static const struct { uint32_t words[8], bytes; } bad[] = {{{0x4d455343u}, 4}, {{1, 2}, 32}, {{0x4d455343u, 2}, 31}};
  for (unsigned i = 0; i < 3; i++) {
    store('S', "x", bad[i].words, bad[i].bytes);
    CHECK_INT(cfn_bus_semaphore_take(a, "x", 1, 2, 0, &other), CFN_CORRUPT);
    CHECK_INT(cfn_bus_semaphore_give_back(a, "x", 1, token), CFN_CORRUPT);
    CHECK_INT(cfn_bus_semaphore_holders(a, "x", 1, &permits, NULL, 0), CFN_CORRUPT);
  }
  t_case("one whose value is not there, or changes at each look");
  cfn_ref_shm_t *ref = ref_of('S', "x");
  uint64_t was = cfn_load_seq(&ref->word);
  loses_its_object(ref);
  CHECK_INT(cfn_bus_semaphore_take(a, "x", 1, 2, 0, &other), CFN_CORRUPT);
  CHECK_INT(cfn_bus_semaphore_give_back(a, "x", 1, token), CFN_CORRUPT);
  CHECK_INT(cfn_bus_semaphore_holders(a, "x", 1, &permits, NULL, 0), CFN_CORRUPT);
  cfn_store_seq(&ref->word, was);
  store('S', "x", "", 0);
  t_case("a permit is taken while somebody else is faster");
  m_meddle("cfn_refs_swap", 'c', &ref->word, 0, 1, m_next);
  CHECK_INT(cfn_bus_semaphore_take(a, "x", 1, 2, 0, &token), 0);
  m_end();
  m_meddle("cfn_refs_swap", 'c', &ref->word, 0, 1, m_next);
  CHECK_INT(cfn_bus_semaphore_give_back(a, "x", 1, token), 0);
  m_end();
  t_case("the dead hold no permits");
  sim_as(1);
  CHECK_INT(cfn_bus_semaphore_take(b, "x", 1, 2, 0, &other), 0);
  sim_as(0);
  CHECK_INT(cfn_bus_semaphore_holders(a, "x", 1, &permits, &holder, 1), 1);
  m_meddle("still_that", 'l', &b->actor.slot->id, 1, 1, m_next24); /* it left, and another came, while we looked */
  CHECK_INT(cfn_bus_semaphore_holders(a, "x", 1, &permits, &holder, 1), 0);
  m_end();
  cfn_store_seq(&b->actor.slot->id, b->id_word);
  static const int nth[] = {2, 3};
  for (int i = 0; i < 2; i++) { /* its name is told only of itself */
    m_meddle("still_that", 'l', &b->actor.slot->id, nth[i], 1, m_next24);
    CHECK_INT(cfn_bus_semaphore_holders(a, "x", 1, &permits, &holder, 1), 1);
    m_end();
    CHECK_INT(strlen(holder.agent), 0);
    CHECK_INT(holder.pid, 0);
    cfn_store_seq(&b->actor.slot->id, b->id_word);
  }
  cfn_store_seq(&b->actor.slot->agent, 999);
  CHECK_INT(cfn_bus_semaphore_holders(a, "x", 1, &permits, &holder, 1), 1);
  CHECK_INT(strlen(holder.agent), 0);
  uint64_t lives[] = {UINT64_C(2) << 32 | 0x4d455343u, 0xffff, 5, 5}; /* of no attachment of this bus */
  store('S', "x", lives, sizeof lives);
  CHECK_INT(cfn_bus_semaphore_holders(a, "x", 1, &permits, &holder, 1), 0);
  end();
}

static void barriers(void) {
  cfn_arrival_t mine = {0}, other = {0};
  cfn_barrier_info_t info;
  barrier_t v;
  t_case("a barrier whose value makes no sense");
  start();
  CHECK_INT(arrive(0, 2, 0, NULL, 0, sim_now() + 1000, &mine), CFN_TIMEOUT);
  load(&v);
  for (unsigned i = 0; i < 4; i++) {
    barrier_t bad = v;
    if (i == 1) bad.magic = 0;
    if (i < 3) store('B', "x", &bad, i == 0 ? 50 : i == 1 ? HEAD : HEAD + 7);
    else loses_its_object(ref_of('B', "x"));
    CHECK_INT(arrive(0, 2, 0, NULL, 0, 0, &mine), CFN_CORRUPT);
    cfn_arrival_t there = {.round = v.round, .serial = 1, .here = 1};
    CHECK_INT(arrive(0, 2, 0, NULL, 0, 0, &there), CFN_CORRUPT);
    if (i == 3) CHECK_INT(cfn_bus_barrier_delete(a, "x", 1), CFN_CORRUPT);
  }
  frees(&ref_of('B', "x")->word);
  t_case("deleting what another deletes, or changes, first");
  CHECK_INT(cfn_bus_barrier_delete(a, "x", 1), CFN_UNKNOWN_KEY);
  m_meddle("cfn_refs_swap", 'c', NULL, 0, 1, m_next);
  CHECK_INT(cfn_bus_barrier_join(a, "x", 1), 0);
  m_end();
  m_meddle("cfn_refs_swap", 'c', NULL, 0, 1, m_next);
  CHECK_INT(cfn_bus_barrier_delete(a, "x", 1), 0);
  m_end();

  t_case("an arrival that was counted out, and one that takes itself back");
  CHECK_INT(arrive(0, 3, 0, NULL, 0, sim_now() + 1000, &mine), CFN_TIMEOUT);
  load(&v);
  mine = (cfn_arrival_t){.round = v.round, .serial = 12345, .here = 1};
  CHECK_INT(arrive(0, 3, 0, NULL, 0, 0, &mine), CFN_BROKEN_BARRIER);
  CHECK(says("counted out"));
  CHECK_INT(cfn_bus_barrier_join(a, "x", 1), 0);
  CHECK_INT(arrive(0, 3, 0, NULL, 0, sim_now() + 1000, &mine), CFN_TIMEOUT);
  load(&v);
  CHECK_INT(v.party[0].serial & 0xff, JOINED); /* and has not arrived any more */
  m_meddle("cfn_refs_swap", 'c', NULL, 1, 1, m_next); /* its withdrawal is lost once */
  mine = (cfn_arrival_t){0};
  CHECK_INT(arrive(0, 3, 0, NULL, 0, sim_now() + 1000, &mine), CFN_TIMEOUT);
  m_end();
  t_case("a party of a number that is here no more, nor known");
  v.party[0] = (party_t){0, LOST, 999, 7};
  v.party[1] = (party_t){0, LOST, 2, 7};
  v.party[2] = (party_t){0, 5 << 8 | JOINED, 1, 7};
  v.parties = 2;
  store('B', "x", &v, HEAD + 3 * sizeof(party_t));
  mine = (cfn_arrival_t){0};
  CHECK_INT(arrive(0, 2, CFN_BARRIER_GO_ON, NULL, 0, sim_now() + 1000, &mine), 0); /* b is counted again; who joined and is gone is not */
  t_case("it is broken by nobody that is known");
  load(&v);
  v.broken = UINT64_C(3) << 62 | UINT64_C(999) << 40 | 77;
  store('B', "x", &v, HEAD);
  CHECK_INT(arrive(0, 2, 0, NULL, 0, 0, &mine), CFN_BROKEN_BARRIER);
  CHECK(says("a party (process 77) died"));
  CHECK_INT(cfn_bus_barrier_join(a, "x", 1), 0);
  CHECK_INT(cfn_bus_barrier_leave(a, "x", 1), 0); /* also of a broken one, which stays that */
  CHECK_INT(cfn_bus_barrier_look(a, "x", 1, &info, NULL, 0), 0);
  CHECK_INT(info.broken, 1);
  t_case("a reset counts out who is gone and who was lost");
  v.party[0] = (party_t){0, LOST, 2, 7};
  v.party[1] = (party_t){0xffff, 5 << 8 | JOINED, 1, 7};
  v.party[2] = (party_t){cfn_life_id(a), 6 << 8 | JOINED, 1, 7};
  store('B', "x", &v, HEAD + 3 * sizeof(party_t));
  CHECK_INT(cfn_bus_barrier_reset(a, "x", 1), 0);
  load(&v);
  CHECK_INT(v.party[0].who, cfn_life_id(a));
  CHECK_INT(v.party[1].who, 0);
  CHECK_INT(cfn_bus_barrier_look(a, "x", 1, &info, NULL, 0), 0);
  CHECK_INT(info.known, 1);
  CHECK_INT(cfn_bus_barrier_leave(a, "x", 1), 0);
  t_case("who joined and has not come is one of those who are expected");
  CHECK_INT(cfn_bus_barrier_delete(a, "x", 1), 0);
  cfn_address_t expected[6];
  for (int i = 0; i < 6; i++) CHECK_INT(cfn_bus_find(a, "b", &expected[i]), 0);
  sim_as(1);
  CHECK_INT(cfn_bus_barrier_join(b, "x", 1), 0);
  sim_as(0);
  CHECK_INT(cfn_bus_barrier_join(a, "x", 1), 0);
  CHECK_INT(arrive(0, 0, 0, expected, 6, sim_now() + 1000, &mine), CFN_TIMEOUT);
  CHECK_INT(arrive(1, 0, 0, NULL, 0, sim_now() + 1000, &other), CFN_TIMEOUT);
  t_case("one of them is dead, and another has left");
  sim_bury(1);
  CHECK_INT(arrive(0, 0, CFN_BARRIER_GO_ON, expected, 6, patience(), &mine), 0);
  CHECK_INT(arrive(0, 0, 0, expected, 6, 0, &mine), 0);
  end();
}

int main(void) {
  m_main();
  looking();
  taking();
  waiting();
  circles();
  semaphores();
  barriers();
  t_passed("test_meddled_locks");
  return 0;
}
