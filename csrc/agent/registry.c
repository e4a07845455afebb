#include "agent/registry.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/os.h"
#include "mem/directory.h"

/* ---- texts ---- */

typedef struct text_place {
  cfn_a64 *sum, *word;
  uint32_t words;
} text_place_t;

static text_place_t text_place(const cfn_region_t *r, uint32_t i, unsigned which) {
  cfn_mailbox_shm_t *m = cfn_mailbox(r, i);
  switch (which) {
    case CFN_TEXT_TYPE: return (text_place_t){&m->type.sum, m->type.word, CFN_TEXT_WORDS_SHORT};
    case CFN_TEXT_TEAM: return (text_place_t){&m->team.sum, m->team.word, CFN_TEXT_WORDS_SHORT};
    case CFN_TEXT_CAPABILITIES:
      return (text_place_t){&m->capabilities.sum, m->capabilities.word, CFN_TEXT_WORDS_LONG};
    case CFN_TEXT_TAGS: return (text_place_t){&m->tags.sum, m->tags.word, CFN_TEXT_WORDS_LONG};
    default: return (text_place_t){&m->status.sum, m->status.word, CFN_TEXT_WORDS_LONG};
  }
}

int cfn_profile_check(const cfn_profile_t *profile) {
  static const char *const names[CFN_TEXTS] = {"type", "team", "capabilities", "tags", "status"};
  for (unsigned t = 0; profile && t < CFN_TEXTS; t++) {
    size_t most = (t <= CFN_TEXT_TEAM ? CFN_TEXT_SHORT_BYTES : CFN_TEXT_LONG_BYTES) - 1;
    if (profile->text[t] && strlen(profile->text[t]) > most)
      return cfn_fail(CFN_INVALID, (int64_t)most, (int64_t)strlen(profile->text[t]),
                      "the agent's %s is %zu bytes long; at most %zu fit", names[t],
                      strlen(profile->text[t]), most);
  }
  return CFN_OK;
}

/* The sum of the words: 0 for the empty text, so that a fresh record reads as empty. */
static uint64_t text_sum(const uint64_t *words, uint32_t n) {
  return words[0] ? cfn_hash64(words, (size_t)n * 8) | 1 : 0;
}

void cfn_profile_store(const cfn_region_t *r, uint32_t i, const cfn_profile_t *profile) {
  for (unsigned t = 0; profile && t < CFN_TEXTS; t++) {
    if (!profile->text[t]) continue;
    text_place_t p = text_place(r, i, t);
    uint64_t words[CFN_TEXT_WORDS_LONG] = {0};
    memcpy(words, profile->text[t], strlen(profile->text[t]));
    for (uint32_t w = 0; w < p.words; w++) cfn_store_relaxed(&p.word[w], words[w]);
    /* dies here: old sum over new words: unreadable until somebody writes it again */
    cfn_store_release(p.sum, text_sum(words, p.words));
  }
}

bool cfn_profile_text(const cfn_region_t *r, uint32_t i, unsigned which,
                      char out[CFN_TEXT_LONG_BYTES]) {
  text_place_t p = text_place(r, i, which);
  for (int tries = 0; tries < 32; tries++) {
    uint64_t words[CFN_TEXT_WORDS_LONG] = {0};
    uint64_t sum = cfn_load_acquire(p.sum);
    for (uint32_t w = 0; w < p.words; w++) words[w] = cfn_load_acquire(&p.word[w]);
    if (cfn_load_acquire(p.sum) == sum && text_sum(words, p.words) == sum) {
      memcpy(out, words, sizeof words);
      out[CFN_TEXT_LONG_BYTES - 1] = 0;
      return true;
    }
  }
  out[0] = 0;
  return false;
}

/* ---- announcements ---- */

/* Announces that our name may stand in mailbox i's words. False: no cell left. */
static bool announce(const cfn_actor_t *a, uint32_t i) {
  cfn_a64 *empty = NULL;
  for (unsigned h = 0; h < CFN_HOLDS; h++) {
    uint64_t held = cfn_load_relaxed(&a->slot->holds[h]);
    if (held == i + 1) return true;
    if (held == 0 && !empty) empty = &a->slot->holds[h];
  }
  if (!empty) return false;
  cfn_store_seq(empty, i + 1);
  return true;
}

static void erase(const cfn_actor_t *a, uint32_t i) {
  cfn_mailbox_shm_t *m = cfn_mailbox(a->region, i);
  if (cfn_consumer_att(cfn_load_seq(&m->consumer)) == a->me + 1 ||
      cfn_owner_att(cfn_load_seq(&m->owner)) == a->me + 1)
    return; /* we still hold the other word */
  for (unsigned h = 0; h < CFN_HOLDS; h++)
    if (cfn_load_relaxed(&a->slot->holds[h]) == i + 1) cfn_store_seq(&a->slot->holds[h], 0);
}

static int no_cell(void) {
  return cfn_fail(CFN_OVER_CAPACITY, CFN_HOLDS, CFN_HOLDS + 1,
                  "one handle can hold at most %u agents at a time; open another handle", CFN_HOLDS);
}

/* ---- create ---- */

static void fill_record(const cfn_actor_t *a, uint32_t i, const char *name, size_t bytes,
                        const cfn_profile_t *profile) {
  static const cfn_profile_t blank = {{"", "", "", "", ""}};
  cfn_mailbox_shm_t *m = cfn_mailbox(a->region, i);
  uint64_t w;
  /* Nobody may read a record without a name: whoever is still named here is a stale remover. */
  do {
    w = cfn_load_seq(&m->consumer);
  } while (!cfn_cas_seq(&m->consumer, w, cfn_consumer_word(cfn_consumer_ver(w) + 1, 0)));
  do { /* inc only grows, also over names: a stale reaper's exact word never comes back */
    w = cfn_load_seq(&m->owner);
  } while (!cfn_cas_seq(&m->owner, w, cfn_owner_word(cfn_owner_inc(w) + 1, 0)));
  cfn_store_relaxed(&m->inc_base, cfn_owner_inc(w) + 1);
  cfn_store_relaxed(&m->sent, 0);
  cfn_store_relaxed(&m->owner_pid, 0);
  cfn_store_relaxed(&m->registered_wall_ns, cfn_os_wall_ns());
  cfn_record_name_store(a->region, i, name, bytes);
  cfn_profile_store(a->region, i, &blank);
  cfn_profile_store(a->region, i, profile);
}

int cfn_registry_create(const cfn_actor_t *a, const char *name, size_t bytes,
                        const cfn_profile_t *profile, uint32_t *index, uint64_t *open_word,
                        bool *created) {
  const cfn_region_t *r = a->region;
  *created = false;
  for (int tries = 0; tries < 1000; tries++) {
    if (cfn_directory_find(r, CFN_KIND_AGENT, name, bytes, index, open_word) == CFN_OK) return CFN_OK;
    cfn_a64 *cell = &a->slot->reg[CFN_REG_CREATE];
    int64_t i = cfn_record_claim(r, CFN_KIND_AGENT, a->me, cell);
    if (i < 0) {
      if (cfn_registry_finish_removals(a) > 0) continue;
      return cfn_fail(CFN_OVER_CAPACITY, r->geo.config.agents, r->geo.config.agents + 1,
                      "bus '%s' has room for %u agents and all are registered; unregister some "
                      "(cfnshm unregister NAME) or create the bus with more (--agents, "
                      "CFNSHM_AGENTS)",
                      r->name, r->geo.config.agents);
    }
    fill_record(a, (uint32_t)i, name, bytes, profile);
    if (cfn_record_publish(r, (uint32_t)i, a->me, cell, open_word) != CFN_OK) continue;
    *index = (uint32_t)i;
    *created = true;
    cfn_event_ring_futex(&cfn_state(r)->registry.event);
    return CFN_OK;
  }
  return cfn_fail(CFN_AGAIN, 0, 0, "agent '%s' is registered and unregistered all the time", name);
}

/* ---- take and give back ---- */

/* What a holder's name in a word means for a taker: CFN_OK take it, else BUSY or DEAD. */
static int holder_state(const cfn_actor_t *a, unsigned att_plus1, uint32_t *holder) {
  if (att_plus1 == 0 || att_plus1 > a->region->geo.config.attachments) return CFN_OK;
  *holder = att_plus1 - 1;
  int life = cfn_life_of(a->region, att_plus1 - 1, NULL, NULL);
  if (life == CFN_LIFE_ALIVE) return CFN_AGENT_BUSY;
  return life == CFN_LIFE_DEAD ? CFN_AGENT_DEAD : CFN_OK;
}

int cfn_registry_take_consumer(const cfn_actor_t *a, uint32_t i, uint64_t mid, bool steal,
                               uint64_t *consumer, uint32_t *holder) {
  cfn_mailbox_shm_t *m = cfn_mailbox(a->region, i);
  for (;;) {
    /* The consumer word FIRST, the state after it: a creator bumps the word after the state has left
     * what we expect, so our CAS below fails if that came between. */
    uint64_t w = cfn_load_seq(&m->consumer);
    if (cfn_load_seq(&m->mid) != mid) return CFN_STALE;
    unsigned att = cfn_consumer_att(w);
    if (att == a->me + 1) {
      *consumer = w;
      return CFN_OK;
    }
    if (!steal) {
      int state = holder_state(a, att, holder);
      if (cfn_load_seq(&m->consumer) != w) continue;
      if (state < 0) return state;
    }
    if (!announce(a, i)) return no_cell();
    uint64_t mine = cfn_consumer_word(cfn_consumer_ver(w) + 1, a->me + 1);
    if (cfn_cas_seq(&m->consumer, w, mine)) {
      if (att) /* a stolen-from reader may be asleep: let it find out */
        cfn_event_ring(&m->bell.event, (cfn_doorbell_t){a->region, 'm', i});
      *consumer = mine;
      return CFN_OK;
    }
  }
}

void cfn_registry_give_back_consumer(const cfn_actor_t *a, uint32_t i, uint64_t consumer) {
  cfn_mailbox_shm_t *m = cfn_mailbox(a->region, i);
  cfn_cas_seq(&m->consumer, consumer, cfn_consumer_word(cfn_consumer_ver(consumer) + 1, 0));
  erase(a, i);
}

int cfn_registry_take_owner(const cfn_actor_t *a, uint32_t i, uint64_t mid, uint64_t *inc,
                            uint32_t *holder) {
  cfn_mailbox_shm_t *m = cfn_mailbox(a->region, i);
  for (;;) {
    uint64_t w = cfn_load_seq(&m->owner);
    if (cfn_load_seq(&m->mid) != mid) return CFN_STALE;
    unsigned att = cfn_owner_att(w);
    uint64_t base = cfn_load_relaxed(&m->inc_base);
    if (att != a->me + 1) {
      int state = holder_state(a, att == CFN_OWNER_DEAD ? 0 : att, holder);
      if (cfn_load_seq(&m->owner) != w) continue;
      if (state < 0) return state;
      if (!announce(a, i)) return no_cell();
      uint64_t mine = cfn_owner_word(cfn_owner_inc(w) + 1, a->me + 1);
      if (!cfn_cas_seq(&m->owner, w, mine)) continue;
      w = mine;
    }
    uint64_t pid;
    cfn_identity_of(a->region, a->me, &pid);
    cfn_store_relaxed(&m->owner_pid, pid);
    *inc = cfn_owner_inc(w) - base;
    return CFN_OK;
  }
}

void cfn_registry_give_back_owner(const cfn_actor_t *a, uint32_t i) {
  cfn_mailbox_shm_t *m = cfn_mailbox(a->region, i);
  uint64_t w = cfn_load_seq(&m->owner);
  if (cfn_owner_att(w) == a->me + 1) cfn_cas_seq(&m->owner, w, cfn_owner_word(cfn_owner_inc(w), 0));
  erase(a, i);
}

/* ---- remove ---- */

/* Who waits on this mailbox finds out that the agent is gone. */
static void wake_everybody(const cfn_region_t *r, uint32_t i) {
  cfn_mailbox_shm_t *m = cfn_mailbox(r, i);
  cfn_event_ring_futex(&m->space.event);
  cfn_event_ring_futex(&m->acks.event);
  cfn_event_ring(&m->bell.event, (cfn_doorbell_t){r, 'm', i});
  cfn_event_ring_futex(&cfn_state(r)->registry.event);
}

static int empty_and_free(const cfn_actor_t *a, uint32_t i, uint64_t removing, uint64_t consumer,
                          uint64_t *dropped) {
  const cfn_region_t *r = a->region;
  cfn_mailbox_shm_t *m = cfn_mailbox(r, i);
  cfn_ring_t rings[CFN_LANES];
  for (unsigned l = 0; l < CFN_LANES; l++) rings[l] = cfn_ring_of_lane(r, i, l);
  cfn_authority_t authority = {{&m->consumer, &m->mid}, {consumer, removing}};
  uint64_t lap;
  if (!cfn_ring_retire_lap(rings, CFN_LANES, &m->rlap, cfn_mid_ver(removing), &authority, &lap))
    return CFN_AGENT_FENCED;
  for (unsigned l = 0; l < CFN_LANES; l++) {
    if (!cfn_ring_retire(r, &rings[l], lap, a->me, &a->slot->reg[CFN_REG_DRAIN], &authority, dropped))
      return CFN_AGENT_FENCED;
    cfn_max_seq(&m->lane[l].seen, cfn_place(lap << rings[l].log2, 0));
  }
  cfn_cas_seq(&m->mid, removing, cfn_mid_word(cfn_mid_ver(removing) + 1, CFN_MID_FREE, 0));
  wake_everybody(r, i);
  return CFN_OK;
}

int cfn_registry_remove(const cfn_actor_t *a, uint32_t i, uint64_t mid, uint64_t consumer,
                        uint64_t *dropped) {
  *dropped = 0;
  int r = cfn_directory_remove(a->region, i, mid);
  /* dies here: REMOVING with our name in the consumer word: reaped, then finished by another */
  /* We may have been stolen from just before: then the thief reads a mailbox that is being removed.
   * It finds out when it is woken, and goes on in our stead. */
  if (r == CFN_OK) wake_everybody(a->region, i);
  if (r == CFN_OK)
    r = empty_and_free(a, i, cfn_mid_word(cfn_mid_ver(mid) + 1, CFN_MID_REMOVING, 0), consumer,
                       dropped);
  cfn_registry_give_back_owner(a, i); /* if it was ours: the announcement goes only with both words */
  cfn_registry_give_back_consumer(a, i, consumer);
  return r;
}

int cfn_registry_finish_removals(const cfn_actor_t *a) {
  int finished = 0;
  for (uint32_t i = 0; i < a->region->geo.config.agents; i++) {
    cfn_mailbox_shm_t *m = cfn_mailbox(a->region, i);
    uint64_t removing = cfn_load_seq(&m->mid);
    if (cfn_mid_state(removing) != CFN_MID_REMOVING) continue;
    uint64_t consumer = 0, dropped = 0;
    uint32_t holder;
    if (cfn_registry_take_consumer(a, i, removing, false, &consumer, &holder) != CFN_OK) continue;
    if (empty_and_free(a, i, removing, consumer, &dropped) == CFN_OK) finished++;
    cfn_registry_give_back_consumer(a, i, consumer);
  }
  return finished;
}
