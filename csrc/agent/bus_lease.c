/* Locks and leaderships through a handle: whose they are, waiting for them, and circles of waiters. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/bus_ref.h"
#include "agent/liveness.h"
#include "agent/reap.h"
#include "base/os.h"
#include "sync/lease.h"

#define TRIES 1000
#define CIRCLE 64 /* processes; a longer circle is not looked for */

static const char *noun(int kind) { return kind == CFN_LEASE_LEADER ? "leadership" : "lock"; }

static int key_of(int kind, const char *name, uint32_t bytes, cfn_ref_key_t *out) {
  if (kind != CFN_LEASE_LOCK && kind != CFN_LEASE_LEADER)
    return cfn_fail(CFN_INVALID, 0, kind, "there is no kind %d of leases", kind);
  return cfn_ref_key_of(kind == CFN_LEASE_LEADER ? "the name of an election" : "the name of a lock", (char)kind, name, bytes,
                        out);
}

/* ---- whose it is ---- */

static void agent_name(const cfn_region_t *r, uint64_t mailbox_plus1, char out[CFN_NAME_BYTES]) {
  if (mailbox_plus1 && mailbox_plus1 <= r->geo.config.agents) cfn_record_name(r, (uint32_t)mailbox_plus1 - 1, out);
}

static void describe(cfn_bus_t *bus, uint32_t ref, uint64_t word, cfn_holder_t *out) {
  cfn_region_t *r = bus->region;
  uint32_t att;
  cfn_lease_past_t past;
  *out = (cfn_holder_t){.life = CFN_HOLDER_NONE};
  bool held = cfn_lease_held(word, &att) && att < r->geo.config.attachments;
  if (!held && !cfn_lease_died(word)) return;
  cfn_lease_past(r, ref, word, &past);
  out->token = cfn_lease_token(r, word);
  out->since_wall_ns = cfn_load_relaxed(&cfn_ref(r, ref)->changed_wall_ns);
  agent_name(r, past.who, out->agent);
  if (!held) {
    out->life = CFN_HOLDER_DEAD;
    out->pid = past.pid;
    out->died_wall_ns = past.died_wall_ns;
    return;
  }
  cfn_identity_of(r, att, &out->pid);
  if (!past.who) agent_name(r, cfn_load_relaxed(&cfn_attachment(r, att)->agent), out->agent);
  int life = cfn_life_of(r, att, NULL, NULL);
  out->life = life != CFN_LIFE_ALIVE ? CFN_HOLDER_DEAD : cfn_life_is_stopped(r, att) ? CFN_HOLDER_STOPPED : CFN_HOLDER_ALIVE;
}

/* "agent 'a' (process 12) since 3.2 s", with what is the matter with it. */
static void in_words(const cfn_holder_t *h, char *out, size_t room) {
  uint64_t now = cfn_os_wall_ns();
  char who[CFN_NAME_BYTES + 16] = "", since[40] = "";
  if (h->agent[0]) snprintf(who, sizeof who, "agent '%s', ", h->agent);
  if (h->since_wall_ns && now > h->since_wall_ns)
    snprintf(since, sizeof since, ", for %.1f s", (double)(now - h->since_wall_ns) / 1e9);
  snprintf(out, room, "%sprocess %" PRIu64 "%s%s", who, h->pid, since,
           h->life == CFN_HOLDER_STOPPED ? ", which is stopped (SIGSTOP, or a debugger) and keeps what it holds" : "");
}

/* The holder is gone: marks the lease so. True if the word is another now. */
static bool bury_if_dead(cfn_bus_t *bus, uint32_t ref, uint64_t word) {
  cfn_region_t *r = bus->region;
  uint32_t att;
  if (!cfn_lease_held(word, &att)) return false;
  if (att >= r->geo.config.attachments) { /* damage */
    cfn_lease_bury(r, ref, word, 0, 0);
    return true;
  }
  if (att == bus->actor.me) return false;
  int life = cfn_life_of(r, att, NULL, NULL);
  if (life == CFN_LIFE_DEAD) cfn_reap_if_dead(&bus->actor, att);
  /* Nobody is there, and the word that we loaded BEFORE we looked still names it: it was left by an earlier life. */
  else if (life == CFN_LIFE_NONE) cfn_lease_bury(r, ref, word, 0, 0);
  return life != CFN_LIFE_ALIVE;
}

/* ---- circles of waiters ---- */

typedef struct edge { /* attachment `att` waits for lease `ref`, whose word is `word` */
  uint64_t waiting, since, word;
  uint32_t att, ref;
} edge_t;

static bool edge_of(const cfn_region_t *r, uint32_t att, edge_t *out) {
  cfn_attach_shm_t *slot = cfn_attachment(r, att);
  *out = (edge_t){.att = att, .waiting = cfn_load_seq(&slot->waiting), .since = cfn_load_seq(&slot->waiting_since)};
  /* Where several threads take leases with one handle, the one that holds may be at work while another waits. */
  if (out->waiting >> 48 != ((uint64_t)CFN_WAIT_LEASE << 8 | CFN_WAIT_ALONE >> 8)) return false;
  out->ref = (uint32_t)out->waiting;
  if (out->ref >= r->geo.config.refs) return false;
  out->word = cfn_load_seq(&cfn_ref(r, out->ref)->word);
  return true;
}
static bool same_edge(const cfn_region_t *r, const edge_t *e) {
  edge_t now;
  return edge_of(r, e->att, &now) && now.waiting == e->waiting && now.since == e->since && now.word == e->word;
}

static void lease_name(const cfn_region_t *r, uint32_t ref, char out[CFN_KEY_BYTES]) {
  char key[CFN_KEY_BYTES];
  size_t bytes = cfn_record_key(r, cfn_record_of_ref(r, ref), key);
  size_t mark = bytes > 2 && key[0] == CFN_KEY_OURS ? 2 : 0;
  memmove(out, key + mark, CFN_KEY_BYTES - mark);
}

static int fail_circle(cfn_bus_t *bus, const edge_t *edge, int n) {
  char text[320] = "", name[CFN_KEY_BYTES], agent[CFN_NAME_BYTES] = "";
  size_t used = 0;
  for (int i = 0; i < n && used < sizeof text - 1; i++) {
    uint64_t pid;
    uint32_t holder = edge[(i + 1) % n].att;
    lease_name(bus->region, edge[i].ref, name);
    agent[0] = 0;
    agent_name(bus->region, cfn_load_relaxed(&cfn_attachment(bus->region, holder)->agent), agent);
    cfn_identity_of(bus->region, holder, &pid);
    int wrote = holder == bus->actor.me
                    ? snprintf(text + used, sizeof text - used, " '%.60s', which this process holds", name)
                    : snprintf(text + used, sizeof text - used, " '%.60s' of %s%s(process %" PRIu64 "), which waits for", name,
                               agent, agent[0] ? " " : "", pid);
    used += wrote > 0 ? (size_t)wrote : 0;
  }
  return cfn_fail(CFN_DEADLOCK, n, 0, "deadlock: this process waits for%s; give one back and begin again", text);
}

/* Called after what we wait for was said, with the word that was looked at after that: of those who close a circle at
 * once, one sees it whole. The last that came is told; the others go on waiting. */
static int look_for_circle(cfn_bus_t *bus) {
  const cfn_region_t *r = bus->region;
  edge_t edge[CIRCLE];
  int n = 0;
  uint32_t next = bus->actor.me;
  do {
    if (n == CIRCLE || !edge_of(r, next, &edge[n])) return CFN_OK;
    if (!cfn_lease_held(edge[n++].word, &next) || next >= r->geo.config.attachments) return CFN_OK;
    for (int i = 1; i < n; i++)
      if (edge[i].att == next) return CFN_OK; /* a circle that we only wait for */
  } while (next != bus->actor.me);
  /* Each stood unchanged between our two looks: they stood all at once. */
  for (int i = 0; i < n; i++)
    if (!same_edge(r, &edge[i])) return CFN_OK;
  int last = 0;
  for (int i = 1; i < n; i++)
    if (edge[i].since > edge[last].since || (edge[i].since == edge[last].since && edge[i].att > edge[last].att)) last = i;
  for (int i = 1; last == 0 && i < n; i++) /* one that is dead waits for nobody */
    if (cfn_life_of(bus->region, edge[i].att, NULL, NULL) != CFN_LIFE_ALIVE) {
      cfn_reap_if_dead(&bus->actor, edge[i].att);
      return CFN_OK;
    }
  if (last == 0) return fail_circle(bus, edge, n);
  /* The last may have looked before we were there, and sleep: it is to look again. */
  cfn_event_ring_futex(&cfn_ref(r, edge[last].ref)->event);
  return CFN_OK;
}

/* From now on a wait says nothing of what the handle holds; also the one that goes on already. */
static void many_take(cfn_bus_t *bus) {
  cfn_a64 *waiting = &bus->actor.slot->waiting;
  bus->many_take_leases = true;
  uint64_t w = cfn_load_seq(waiting);
  if (w >> 56 == CFN_WAIT_LEASE) cfn_cas_seq(waiting, w, w & ~((uint64_t)(CFN_WAIT_ALONE >> 8) << 48));
}

/* Remembers who takes leases with this handle: the flag for what it waits for. */
static unsigned taken_by_one(cfn_bus_t *bus) {
  if (!bus->lease_thread_known) {
    bus->lease_thread = pthread_self();
    bus->lease_thread_known = true;
  } else if (!pthread_equal(bus->lease_thread, pthread_self())) {
    many_take(bus);
  }
  return bus->many_take_leases ? 0 : CFN_WAIT_ALONE;
}

/* ---- taking ---- */

static int fail_held(cfn_bus_t *bus, int kind, const char *name, uint32_t bytes, uint32_t ref, uint64_t word) {
  cfn_holder_t h;
  char who[240];
  describe(bus, ref, word, &h);
  in_words(&h, who, sizeof who);
  return cfn_fail(CFN_TIMEOUT, (int64_t)h.pid, 0, "%s '%.*s' is held by %s", noun(kind), (int)bytes, name, who);
}

static int fail_died(const cfn_holder_t *h, int kind, const char *name, uint32_t bytes) {
  char who[240];
  in_words(h, who, sizeof who);
  return cfn_fail(CFN_OWNER_DIED, (int64_t)h->pid, 0, "the last holder of %s '%.*s' died holding it: %s; what it protects may be "
                  "half done. Look at that, then take it knowingly", noun(kind), (int)bytes, name, who);
}

/* One try. CFN_OK; CFN_AGAIN: look again; CFN_TIMEOUT without a text: a living one holds it; or an error. */
static int try_take(cfn_bus_t *bus, int kind, const char *name, uint32_t bytes, int flags, const cfn_ref_at_t *at,
                    uint64_t word, cfn_held_t *out, cfn_holder_t *died) {
  uint32_t holder;
  if (cfn_lease_held(word, &holder)) {
    if (bury_if_dead(bus, at->ref, word)) return CFN_AGAIN;
    if (!(flags & CFN_LEASE_STEAL)) return CFN_TIMEOUT;
  } else if (cfn_ref_blob(word) && !cfn_lease_died(word)) {
    return cfn_fail(CFN_CORRUPT, 0, 0, "%s '%.*s' is no lease; see cfnshm doctor", noun(kind), (int)bytes, name);
  }
  if (died) *died = (cfn_holder_t){0};
  if (cfn_lease_died(word)) {
    cfn_holder_t last;
    describe(bus, at->ref, word, &last); /* what is noted of exactly this word, which the CAS below finds unchanged */
    memcpy(last.name, name, bytes);
    if (!died) return fail_died(&last, kind, name, bytes);
    *died = last;
  }
  int e = cfn_lease_take(bus->region, at, word, bus->actor.slot, bus->actor.me, bus->mailbox, &out->word);
  if (e != CFN_OK) return e;
  out->ref = at->ref;
  out->kind = (uint32_t)kind;
  out->token = cfn_lease_token(bus->region, out->word);
  return CFN_OK;
}

/* One look, and one sleep if it is held: CFN_AGAIN to look again. Called with the lock, returns without it. */
static int take_or_sleep(cfn_bus_t *bus, int kind, const char *name, uint32_t bytes, const cfn_ref_key_t *key, int flags,
                         uint64_t deadline, cfn_held_t *out, cfn_holder_t *died) {
  cfn_ref_at_t at;
  uint64_t word = 0;
  int r = cfn_ref_load(bus, key->text, key->bytes, true, &at, &word);
  if (r == CFN_OK) r = try_take(bus, kind, name, bytes, flags, &at, word, out, died);
  if (r != CFN_TIMEOUT) return cfn_bus_left(bus, r);
  if (cfn_deadline_passed(deadline)) return cfn_bus_left(bus, fail_held(bus, kind, name, bytes, at.ref, word));
  cfn_event_shm_t *event = &cfn_ref(bus->region, at.ref)->event;
  uint32_t armed = cfn_event_arm(event);
  uint64_t now;
  if (cfn_refs_load(bus->region, &at, &now) != CFN_OK || now != word) return cfn_bus_left(bus, CFN_AGAIN); /* AFTER arming */
  unsigned waits = CFN_WAIT_LEASE | taken_by_one(bus);
  cfn_bus_says_waiting(bus, waits, at.ref);
  r = look_for_circle(bus);
  if (r < 0) {
    cfn_store_relaxed(&bus->actor.slot->waiting, 0);
    return cfn_bus_left(bus, r);
  }
  r = cfn_bus_sleep(bus, event, armed, waits, at.ref, NULL, deadline);
  return r == CFN_OK || r == CFN_TIMEOUT ? CFN_AGAIN : r;
}

int cfn_bus_lease_take(cfn_bus_t *bus, int kind, const char *name, uint32_t name_bytes, int flags, uint64_t deadline,
                       cfn_held_t *out, cfn_holder_t *died) {
  cfn_ref_key_t key;
  int r = key_of(kind, name, name_bytes, &key);
  if (r < 0) return r;
  for (;;) {
    r = cfn_bus_enter(bus);
    if (r < 0) return r;
    taken_by_one(bus);
    if (flags & CFN_LEASE_ONE_OF_MANY && !bus->many_take_leases) many_take(bus);
    r = take_or_sleep(bus, kind, name, name_bytes, &key, flags, deadline, out, died);
    if (r != CFN_AGAIN) return r;
  }
}

/* ---- giving back ---- */

static int fail_lost(cfn_bus_t *bus, const cfn_held_t *lease) {
  char name[CFN_KEY_BYTES];
  lease_name(bus->region, lease->ref, name);
  return cfn_fail(CFN_LEASE_LOST, 0, 0, "%s '%s' is not held by token %" PRIu64 " any more: it was given back, or taken "
                  "away by an operator", noun((int)lease->kind), name, lease->token);
}

static int still_held(cfn_bus_t *bus, const cfn_held_t *lease) {
  uint32_t holder;
  bool ours = lease->ref < bus->region->geo.config.refs && cfn_lease_held(lease->word, &holder) && holder == bus->actor.me;
  if (!ours) return cfn_fail(CFN_INVALID, 0, 0, "that is no lease of this handle");
  return cfn_load_seq(&cfn_ref(bus->region, lease->ref)->word) == lease->word ? CFN_OK : CFN_LEASE_LOST;
}

int cfn_bus_lease_check(cfn_bus_t *bus, const cfn_held_t *lease) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = still_held(bus, lease);
  if (r == CFN_LEASE_LOST) r = fail_lost(bus, lease);
  return cfn_bus_left(bus, r);
}

int cfn_bus_lease_give_back(cfn_bus_t *bus, const cfn_held_t *lease) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = still_held(bus, lease);
  if (r == CFN_OK) r = cfn_lease_give_back(bus->region, lease->ref, lease->word);
  if (r == CFN_LEASE_LOST) r = fail_lost(bus, lease);
  return cfn_bus_left(bus, r);
}

/* ---- looking ---- */

/* As it is now, a dead holder being told from a living one; `at` is where its word stands, if it has one. */
static int look(cfn_bus_t *bus, const cfn_ref_key_t *key, cfn_holder_t *out, cfn_ref_at_t *at) {
  for (int tries = 0; tries < TRIES; tries++) {
    uint64_t word, now;
    *out = (cfn_holder_t){0};
    *at = (cfn_ref_at_t){0, 0};
    int r = cfn_ref_load(bus, key->text, key->bytes, false, at, &word);
    if (r == CFN_OK) {
      if (bury_if_dead(bus, at->ref, word)) continue;
      describe(bus, at->ref, word, out);
      if (cfn_refs_load(bus->region, at, &now) != CFN_OK || now != word) continue; /* LAST: what was read belongs together */
    }
    if (r < 0 && r != CFN_UNKNOWN_KEY) return r;
    memcpy(out->name, key->text + 2, key->bytes - 2);
    return r;
  }
  return cfn_fail(CFN_AGAIN, 0, 0, "'%s' changes faster than it can be read", key->text + 2);
}

int cfn_bus_lease_holder(cfn_bus_t *bus, int kind, const char *name, uint32_t name_bytes, cfn_holder_t *out) {
  cfn_ref_key_t key;
  cfn_ref_at_t at;
  int r = key_of(kind, name, name_bytes, &key);
  if (r == CFN_OK) r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = look(bus, &key, out, &at);
  return cfn_bus_left(bus, r == CFN_UNKNOWN_KEY ? CFN_OK : r);
}

int cfn_bus_lease_wait(cfn_bus_t *bus, int kind, const char *name, uint32_t name_bytes, uint64_t seen, uint64_t deadline,
                       cfn_holder_t *out) {
  cfn_ref_key_t key;
  int r = key_of(kind, name, name_bytes, &key);
  if (r < 0) return r;
  for (bool late = false;;) {
    r = cfn_bus_enter(bus);
    if (r < 0) return r;
    taken_by_one(bus);
    cfn_ref_at_t at, before;
    r = cfn_ref_load(bus, key.text, key.bytes, true, &before, &(uint64_t){0}); /* something to wait on */
    if (r == CFN_OK) r = look(bus, &key, out, &at);
    if (r == CFN_UNKNOWN_KEY) { /* taken back since: look again */
      cfn_bus_leave(bus);
      continue;
    }
    if (r < 0) return cfn_bus_left(bus, r);
    cfn_event_shm_t *event = &cfn_ref(bus->region, at.ref)->holders;
    uint32_t armed = cfn_event_arm(event);
    before = at;
    r = look(bus, &key, out, &at); /* AFTER arming */
    bool dead = out->life == CFN_HOLDER_DEAD;
    if (r == CFN_OK && (dead ? 0 : out->token) == seen && before.mid == at.mid && !(dead && seen)) {
      r = cfn_bus_sleep(bus, event, armed, CFN_WAIT_HOLDER, at.ref, NULL, deadline);
      if (r == CFN_TIMEOUT && late)
        return cfn_fail(r, (int64_t)seen, 0, "timed out: %s '%.*s' did not change hands", noun(kind), (int)name_bytes, name);
      if (r < 0 && r != CFN_TIMEOUT) return r;
      late = r == CFN_TIMEOUT;
      continue;
    }
    if (r != CFN_UNKNOWN_KEY && (r < 0 || before.mid == at.mid)) return cfn_bus_left(bus, r);
    cfn_bus_leave(bus);
  }
}

int64_t cfn_bus_lease_list(cfn_bus_t *bus, int kind, cfn_holder_t *out, uint64_t most) {
  int64_t n = cfn_bus_enter(bus);
  if (n < 0) return n;
  const cfn_region_t *r = bus->region;
  n = 0;
  for (uint32_t i = 0; i < r->geo.config.refs; i++) {
    cfn_holder_t h;
    cfn_ref_key_t key;
    cfn_ref_at_t at = {cfn_load_seq(&cfn_ref(r, i)->mid), i};
    uint64_t word;
    if (cfn_mid_state(at.mid) != CFN_MID_OPEN || cfn_refs_load(r, &at, &word) != CFN_OK) continue;
    key.bytes = (uint32_t)cfn_record_key(r, cfn_record_of_ref(r, i), key.text);
    if (key.bytes < 3 || key.text[0] != CFN_KEY_OURS || key.text[1] != (char)kind) continue;
    if (look(bus, &key, &h, &at) != CFN_OK || h.token == 0) continue;
    if ((uint64_t)n < most) out[n] = h;
    n++;
  }
  if (cfn_region_lost(r)) n = cfn_bus_lost(bus);
  cfn_bus_leave(bus);
  return n;
}
