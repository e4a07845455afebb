/* Barriers: a value that lists who has arrived in the present round, changed as a whole by one CAS. So an arrival, the
 * end of a round, a party that is counted out, and a break are each one thing that has happened or has not, and who did it
 * or missed it can always be named. Only what ends the waiting of others wakes them.
 *
 * A round takes `parties`, and one for each who has joined, less those who were counted out. Each who waits looks, at
 * every tick, at the one behind it in the list, and at some of the expected: together they watch all.
 *
 * dies here, arrived: the one before it in the list finds it: the barrier breaks, or it is counted out
 * dies here, round ended and nobody rung: its reaper rings, or their own tick
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/bus_ref.h"
#include "agent/reap.h"
#include "sync/lease.h"

#define MAGIC 0x52414243u /* "CBAR" */
#define ENDS 8u           /* rounds of which is remembered how they ended */
#define GLANCES 4u        /* expected ones that a waiter looks at in one tick */
#define MOST 65535u

enum { ARRIVED = 0, JOINED = 1, JOINED_AND_ARRIVED = 2, LOST = 3 };
typedef struct party {
  uint64_t who;    /* cfn_life_id, or 0 of LOST */
  uint64_t serial; /* {number of the arrival:56 | kind:8} */
  uint32_t mailbox; /* +1, or 0: its agent */
  uint32_t pid;
} party_t;
typedef struct barrier {
  uint32_t magic, parties;
  uint64_t round; /* numbers that a barrier of this name has not had before: who waits at a deleted one sees that */
  uint64_t first; /* its first round */
  uint64_t broken;         /* 0, or BROKEN and {by a death:1 | whose: mailbox+1:22 | pid:40}, as far as known */
  uint64_t ended[ENDS];    /* {round:63 | broken:1} */
  party_t party[];
} barrier_t;
#define BROKEN (UINT64_C(1) << 63)
#define BY_DEATH (UINT64_C(1) << 62)

typedef struct reading {
  cfn_ref_key_t key;
  cfn_ref_value_t v;
  barrier_t *b;
  uint32_t n; /* entries in b->party */
} reading_t;

static unsigned kind_of(const party_t *p) { return (unsigned)p->serial & 0xff; }
static bool is_here(const party_t *p) { return kind_of(p) == ARRIVED || kind_of(p) == JOINED_AND_ARRIVED; }
static uint64_t number_of(const party_t *p) { return p->serial >> 8; }
static uint64_t serial(uint64_t number, unsigned kind) { return number << 8 | kind; }

static int key_of(const char *name, uint32_t bytes, cfn_ref_key_t *out) {
  return cfn_ref_key_of("the name of a barrier", 'B', name, bytes, out);
}

static int read_it(cfn_bus_t *bus, reading_t *it) {
  int r = cfn_ref_read(bus, &it->key, sizeof *it->b + sizeof(party_t), &it->v);
  if (r < 0) return r;
  it->b = (barrier_t *)(void *)it->v.data;
  if (it->v.bytes == 0) {
    it->n = 0;
    uint64_t first = cfn_refs_next_version(bus->region);
    *it->b = (barrier_t){.magic = MAGIC, .round = first, .first = first};
    return CFN_OK;
  }
  uint64_t n = (it->v.bytes - sizeof *it->b) / sizeof(party_t);
  if (it->v.bytes < sizeof *it->b || it->b->magic != MAGIC || it->v.bytes != sizeof *it->b + n * sizeof(party_t) || n > 2 * MOST)
    return cfn_fail(CFN_CORRUPT, 0, 0, "what is stored of barrier '%s' makes no sense; see cfnshm doctor", it->key.text + 2);
  it->n = (uint32_t)n;
  return CFN_OK;
}

static int write_it(cfn_bus_t *bus, reading_t *it, bool wake) {
  it->v.bytes = sizeof *it->b + it->n * sizeof(party_t);
  if (cfn_load_relaxed(&bus->actor.slot->leases) == 0) cfn_store_seq(&bus->actor.slot->leases, 1);
  return cfn_ref_write(bus, &it->key, wake ? CFN_RING_WAITERS : 0, &it->v);
}

/* What a round takes, and how many are here. */
static uint32_t count(const reading_t *it, uint32_t *here) {
  uint32_t takes = it->b->parties, lost = 0;
  *here = 0;
  for (uint32_t i = 0; i < it->n; i++) {
    unsigned kind = kind_of(&it->b->party[i]);
    takes += kind == JOINED || kind == JOINED_AND_ARRIVED;
    lost += kind == LOST;
    *here += is_here(&it->b->party[i]);
  }
  return takes > lost ? takes - lost : 0;
}

static void remove_party(reading_t *it, uint32_t i) {
  memmove(&it->b->party[i], &it->b->party[i + 1], (it->n - i - 1) * sizeof(party_t)); /* the order is that of arrival */
  it->n--;
}

static void end_round(reading_t *it, bool broken) {
  uint32_t kept = 0;
  it->b->ended[it->b->round % ENDS] = it->b->round << 1 | broken;
  it->b->round++;
  for (uint32_t i = 0; i < it->n; i++) {
    party_t p = it->b->party[i];
    if (kind_of(&p) == ARRIVED) continue;
    if (kind_of(&p) == JOINED_AND_ARRIVED) p.serial = serial(number_of(&p), JOINED);
    it->b->party[kept++] = p;
  }
  it->n = kept;
}
/* Ends the round if all are here. */
static bool complete(reading_t *it) {
  uint32_t here, takes = count(it, &here);
  if (here == 0 || here < takes) return false;
  end_round(it, false);
  return true;
}

/* ---- errors ---- */

static int fail_broken(cfn_bus_t *bus, const reading_t *it) {
  char agent[CFN_NAME_BYTES] = "", who[CFN_NAME_BYTES + 64] = "somebody broke it on purpose";
  uint64_t pid = it->b->broken & 0xffffffffffu, mailbox = it->b->broken >> 40 & 0x3fffffu;
  if (mailbox && mailbox <= bus->region->geo.config.agents) cfn_record_name(bus->region, (uint32_t)mailbox - 1, agent);
  if (it->b->broken & BY_DEATH)
    snprintf(who, sizeof who, "%s%s%s(process %" PRIu64 ") died, or left the bus", agent[0] ? "agent '" : "a party ", agent,
             agent[0] ? "' " : "", pid);
  return cfn_fail(CFN_BROKEN_BARRIER, (int64_t)pid, 0, "barrier '%s' is broken: %s; reset it to use it again",
                  it->key.text + 2, who);
}

/* The round in which we arrived is over: how did it end? */
static int how_it_ended(const reading_t *it, const cfn_arrival_t *mine) {
  uint64_t end = it->b->ended[mine->round % ENDS];
  if (it->v.bytes == 0)
    return cfn_fail(CFN_BROKEN_BARRIER, 0, 0, "barrier '%s' was deleted by somebody", it->key.text + 2);
  if (end >> 1 != mine->round)
    return cfn_fail(CFN_BROKEN_BARRIER, 0, 0, "barrier '%s' went on for %" PRIu64 " rounds while this process slept; how its "
                    "own round %" PRIu64 " ended is not known any more", it->key.text + 2, it->b->round - mine->round,
                    mine->round);
  if (end & 1)
    return cfn_fail(CFN_BROKEN_BARRIER, 0, 0, "barrier '%s' was reset while this process waited at it", it->key.text + 2);
  return CFN_OK;
}

/* ---- who is dead ---- */

static int64_t find(const reading_t *it, const cfn_arrival_t *mine) {
  for (uint32_t i = 0; i < it->n; i++)
    if (number_of(&it->b->party[i]) == mine->serial && is_here(&it->b->party[i])) return i;
  return -1;
}

static void blame(reading_t *it, uint64_t mailbox, uint64_t pid) {
  it->b->broken = BROKEN | BY_DEATH | (mailbox & 0x3fffffu) << 40 | (pid & 0xffffffffffu);
}

/* The party behind ours in the list. True: it was gone, and the value is another now. */
static bool judge_next(cfn_bus_t *bus, reading_t *it, uint32_t mine, int flags) {
  for (uint32_t k = 1; k < it->n; k++) {
    uint32_t i = (mine + k) % it->n;
    party_t p = it->b->party[i];
    if (kind_of(&p) == LOST) continue;
    if (cfn_life_id_lives(bus, p.who)) return false;
    if (!(flags & CFN_BARRIER_GO_ON)) {
      blame(it, p.mailbox, p.pid);
    } else if (kind_of(&p) == ARRIVED) {
      it->b->party[i] = (party_t){0, serial(0, LOST), p.mailbox, p.pid};
    }
    if (kind_of(&p) != ARRIVED) remove_party(it, i); /* one party less, also after the break */
    return true;
  }
  return false;
}

static bool is_one_of(const reading_t *it, uint32_t mailbox) {
  for (uint32_t i = 0; i < it->n; i++) {
    const party_t *p = &it->b->party[i];
    if (p->mailbox == mailbox + 1 && (kind_of(p) == LOST || is_here(p))) return true;
  }
  return false;
}

/* Some of those who are expected and have not come. */
static bool judge_expected(cfn_bus_t *bus, reading_t *it, const cfn_address_t *expected, uint32_t n, int flags) {
  for (uint32_t k = 0, looked = 0; k < n && looked < GLANCES; k++) {
    const cfn_address_t *one = &expected[bus->round_robin++ % n];
    if (one->index >= bus->region->geo.config.agents || is_one_of(it, one->index)) continue;
    looked++;
    if (cfn_bus_judge(bus, one) != CFN_AGENT_DEAD) continue;
    if (flags & CFN_BARRIER_GO_ON) it->b->party[it->n++] = (party_t){0, serial(0, LOST), one->index + 1, (uint32_t)cfn_last_failure()->have};
    else blame(it, one->index + 1, (uint64_t)cfn_last_failure()->have);
    return true;
  }
  return false;
}

/* ---- arriving ---- */

static int arrive(cfn_bus_t *bus, reading_t *it, uint32_t parties, cfn_arrival_t *mine) {
  int r = read_it(bus, it);
  if (r < 0) return r;
  if (it->v.bytes == 0) it->b->parties = parties;
  if (parties && it->b->parties != parties)
    return cfn_fail(CFN_INVALID, it->b->parties, parties, "barrier '%s' takes %u parties, and not %u; delete it, or use "
                    "another name", it->key.text + 2, it->b->parties, parties);
  if (it->b->broken) return fail_broken(bus, it);
  uint32_t here;
  if (count(it, &here) == 0 && it->n == 0)
    return cfn_fail(CFN_INVALID, 0, 0, "nobody has joined barrier '%s', and it was given no number of parties",
                    it->key.text + 2);
  uint64_t me = cfn_life_id(bus), number = cfn_refs_next_version(bus->region);
  uint32_t at = 0;
  for (uint32_t i = it->n; i-- > 0;) { /* whoever is back is counted again */
    uint32_t lost = kind_of(&it->b->party[i]) == LOST ? it->b->party[i].mailbox : 0;
    if (lost && lost <= bus->region->geo.config.agents &&
        (lost == bus->mailbox || cfn_life_of_agent(bus->region, lost - 1, NULL) == CFN_LIFE_ALIVE))
      remove_party(it, i);
  }
  while (at < it->n && (kind_of(&it->b->party[at]) != JOINED || it->b->party[at].who != me)) at++;
  unsigned kind = at < it->n ? JOINED_AND_ARRIVED : ARRIVED;
  if (at < it->n) remove_party(it, at);
  it->b->party[it->n++] = (party_t){me, serial(number, kind), bus->mailbox, (uint32_t)bus->outbox.source.pid};
  *mine = (cfn_arrival_t){it->b->round, number, here, 1};
  bool all = complete(it);
  r = write_it(bus, it, all);
  if (r != CFN_OK) mine->here = 0;
  return r;
}

/* Gives up: unless it is over, we are not here any more. CFN_TIMEOUT, or how it ended. */
static int withdraw(cfn_bus_t *bus, reading_t *it, uint32_t mine) {
  uint32_t here, takes = count(it, &here);
  party_t p = it->b->party[mine];
  remove_party(it, mine);
  if (kind_of(&p) == JOINED_AND_ARRIVED) it->b->party[it->n++] = (party_t){p.who, serial(number_of(&p), JOINED), p.mailbox, p.pid};
  int r = write_it(bus, it, false);
  if (r != CFN_OK) return r;
  return cfn_fail(CFN_TIMEOUT, here, takes, "timed out: %u of %u parties came to barrier '%s' in time (this one among them)",
                  here, takes, it->key.text + 2);
}

/* One look, and one sleep. Called with the lock, returns without it. */
static int look_or_sleep(cfn_bus_t *bus, reading_t *it, int flags, const cfn_address_t *expected, uint32_t n_expected,
                         uint64_t deadline, const cfn_arrival_t *mine) {
  int r = read_it(bus, it);
  if (r < 0) return cfn_bus_left(bus, r);
  if (it->v.bytes == 0 || it->b->round != mine->round) return cfn_bus_left(bus, how_it_ended(it, mine));
  if (it->b->broken) return cfn_bus_left(bus, fail_broken(bus, it));
  int64_t at = find(it, mine);
  if (at < 0) return cfn_bus_left(bus, cfn_fail(CFN_BROKEN_BARRIER, 0, 0, "this process was counted out of barrier '%s'",
                                                it->key.text + 2));
  if (judge_next(bus, it, (uint32_t)at, flags) || judge_expected(bus, it, expected, n_expected, flags)) {
    bool over = !it->b->broken && complete(it);
    r = write_it(bus, it, over || it->b->broken);
    return cfn_bus_left(bus, r == CFN_OK ? CFN_AGAIN : r);
  }
  if (cfn_deadline_passed(deadline)) return cfn_bus_left(bus, withdraw(bus, it, (uint32_t)at));
  cfn_event_shm_t *event;
  uint32_t armed;
  if (cfn_ref_arm(bus, &it->v, &event, &armed) != CFN_OK) return cfn_bus_left(bus, CFN_AGAIN);
  r = cfn_bus_sleep(bus, event, armed, CFN_WAIT_BARRIER, it->v.at.ref, NULL, deadline);
  return r == CFN_OK || r == CFN_TIMEOUT ? CFN_AGAIN : r;
}

int cfn_bus_barrier_wait(cfn_bus_t *bus, const char *name, uint32_t name_bytes, uint32_t parties, int flags,
                         const cfn_address_t *expected, uint32_t n_expected, uint64_t deadline, cfn_arrival_t *arrival) {
  reading_t it = {0};
  int r = key_of(name, name_bytes, &it.key);
  if (r == CFN_OK && parties > MOST)
    r = cfn_fail(CFN_INVALID, MOST, parties, "a barrier takes at most %u parties, not %u", MOST, parties);
  if (r < 0) return r;
  do {
    r = cfn_bus_enter(bus);
    if (r == CFN_OK && !arrival->here) {
      r = arrive(bus, &it, parties, arrival);
      r = cfn_bus_left(bus, r == CFN_OK ? CFN_AGAIN : r);
    } else if (r == CFN_OK) {
      r = look_or_sleep(bus, &it, flags, expected, n_expected, deadline, arrival);
    }
  } while (r == CFN_AGAIN);
  /* After any other failure (no room to say that we leave) it stands there: the next call goes on with it. */
  if (r == CFN_OK || r == CFN_TIMEOUT || r == CFN_BROKEN_BARRIER) arrival->here = 0;
  free(it.v.data);
  return r;
}

/* ---- changing it ---- */

static int change(cfn_bus_t *bus, const char *name, uint32_t name_bytes, int (*how)(cfn_bus_t *, reading_t *, bool *wake)) {
  reading_t it = {0};
  int r = key_of(name, name_bytes, &it.key);
  if (r == CFN_OK) r = cfn_bus_enter(bus);
  if (r < 0) return r;
  do {
    bool wake = false;
    r = read_it(bus, &it);
    if (r == CFN_OK) r = how(bus, &it, &wake);
    if (r == CFN_OK) r = write_it(bus, &it, wake);
  } while (r == CFN_AGAIN);
  free(it.v.data);
  return cfn_bus_left(bus, r);
}

static int64_t joined(const cfn_bus_t *bus, const reading_t *it) {
  for (uint32_t i = 0; i < it->n; i++) {
    unsigned kind = kind_of(&it->b->party[i]);
    if ((kind == JOINED || kind == JOINED_AND_ARRIVED) && it->b->party[i].who == cfn_life_id(bus)) return i;
  }
  return -1;
}
static int join(cfn_bus_t *bus, reading_t *it, bool *wake) {
  (void)wake;
  if (joined(bus, it) >= 0)
    return cfn_fail(CFN_INVALID, 0, 0, "this handle has joined barrier '%s' already", it->key.text + 2);
  it->b->party[it->n++] = (party_t){cfn_life_id(bus), serial(cfn_refs_next_version(bus->region), JOINED), bus->mailbox,
                                    (uint32_t)bus->outbox.source.pid};
  return CFN_OK;
}
static int leave(cfn_bus_t *bus, reading_t *it, bool *wake) {
  int64_t at = joined(bus, it);
  if (at < 0) return cfn_fail(CFN_INVALID, 0, 0, "this handle has not joined barrier '%s'", it->key.text + 2);
  remove_party(it, (uint32_t)at);
  *wake = !it->b->broken && complete(it);
  return CFN_OK;
}
static int fail_no_barrier(const reading_t *it) {
  return cfn_fail(CFN_UNKNOWN_KEY, 0, 0, "there is no barrier '%s'; the first that waits at it makes it", it->key.text + 2);
}
static int break_it(cfn_bus_t *bus, reading_t *it, bool *wake) {
  (void)bus;
  *wake = true;
  if (it->v.bytes == 0) return fail_no_barrier(it);
  if (!it->b->broken) it->b->broken = BROKEN;
  return CFN_OK;
}
static int reset(cfn_bus_t *bus, reading_t *it, bool *wake) {
  *wake = true;
  if (it->v.bytes == 0) return fail_no_barrier(it);
  end_round(it, true);
  it->b->broken = 0;
  for (uint32_t i = it->n; i-- > 0;)
    if (kind_of(&it->b->party[i]) == LOST || !cfn_life_id_lives(bus, it->b->party[i].who)) remove_party(it, i);
  return CFN_OK;
}

int cfn_bus_barrier_join(cfn_bus_t *bus, const char *name, uint32_t bytes) { return change(bus, name, bytes, join); }
int cfn_bus_barrier_leave(cfn_bus_t *bus, const char *name, uint32_t bytes) { return change(bus, name, bytes, leave); }
int cfn_bus_barrier_break(cfn_bus_t *bus, const char *name, uint32_t bytes) { return change(bus, name, bytes, break_it); }
int cfn_bus_barrier_reset(cfn_bus_t *bus, const char *name, uint32_t bytes) { return change(bus, name, bytes, reset); }

int cfn_bus_barrier_delete(cfn_bus_t *bus, const char *name, uint32_t name_bytes) {
  reading_t it = {0};
  int r = key_of(name, name_bytes, &it.key);
  if (r == CFN_OK) r = cfn_bus_enter(bus);
  if (r < 0) return r;
  do {
    r = cfn_ref_read(bus, &it.key, 0, &it.v);
    if (r == CFN_OK && it.v.bytes == 0) r = fail_no_barrier(&it);
    it.v.bytes = 0;
    if (r == CFN_OK) r = cfn_ref_write(bus, &it.key, CFN_RING_WAITERS, &it.v);
  } while (r == CFN_AGAIN);
  free(it.v.data);
  return cfn_bus_left(bus, r);
}

int cfn_bus_barrier_look(cfn_bus_t *bus, const char *name, uint32_t name_bytes, cfn_barrier_info_t *out,
                         cfn_party_t *parties, uint32_t most) {
  reading_t it = {0};
  int r = key_of(name, name_bytes, &it.key);
  if (r == CFN_OK) r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = read_it(bus, &it);
  if (r == CFN_OK && it.v.bytes == 0) r = fail_no_barrier(&it);
  if (r == CFN_OK) {
    *out = (cfn_barrier_info_t){.round = it.b->round - it.b->first + 1, .broken = it.b->broken != 0};
    out->parties = count(&it, &out->arrived);
    for (uint32_t i = 0; i < it.n; i++) {
      const party_t *p = &it.b->party[i];
      if (kind_of(p) == LOST) continue;
      if (out->known < most) {
        cfn_party_t *to = &parties[out->known];
        *to = (cfn_party_t){.arrived = is_here(p), .life = CFN_HOLDER_DEAD};
        cfn_life_id_names(bus, p->who, to->agent, &to->pid);
        if (cfn_life_id_lives(bus, p->who))
          to->life = cfn_life_is_stopped(bus->region, (uint32_t)(p->who & 0xffff)) ? CFN_HOLDER_STOPPED : CFN_HOLDER_ALIVE;
      }
      out->known++;
    }
  }
  free(it.v.data);
  return cfn_bus_left(bus, r);
}
