#include "agent/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "mem/directory.h"

#define SPIN_FIRST 8u
#define TRIES 100 /* each that is lost was somebody else's success */
#define SOON_NS 30000u
#define SAME_WAIT_NS 100000000u /* between two slices of one wait: the caller sees to its signals */
#ifdef CFN_NO_TICK /* tests/tool_wakes.c: nothing may hide a lost wake-up */
#define TICK_FIRST_NS (UINT64_C(1) << 61)
#define TICK_LONGEST_NS TICK_FIRST_NS
#else
#define TICK_FIRST_NS UINT64_C(250000000)
#define TICK_LONGEST_NS UINT64_C(2000000000)
#endif

/* ---- open, close ---- */

static void set_source(cfn_bus_t *bus) {
  uint64_t pid;
  cfn_identity_of(bus->region, bus->actor.me, &pid);
  cfn_source_t source = {.name = bus->agent,
                         .name_bytes = (uint8_t)strlen(bus->agent),
                         .attachment = (uint16_t)bus->actor.me,
                         .mailbox = bus->mailbox,
                         .attachment_inc = cfn_id_inc(bus->id_word),
                         .agent_inc = bus->agent_inc,
                         .pid = pid};
  bus->outbox.source = source;
}

int cfn_bus_open(const char *dir, const char *name, const cfn_wish_t *wish, int flags,
                 cfn_bus_t **out, int *created) {
  static const cfn_wish_t nothing;
  cfn_bus_t *bus = calloc(1, sizeof *bus);
  if (!bus) return cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for a handle");
  bool made = false;
  int r = CFN_RETIRED;
  for (int tries = 0; r == CFN_RETIRED && tries < TRIES; tries++) { /* destroyed between the two */
    r = cfn_region_open(dir, name, wish ? wish : &nothing, flags, &bus->region, &made);
    if (r != CFN_OK) break;
    r = cfn_attach(bus->region, &bus->actor, &bus->id_word);
    if (r < 0) cfn_region_close(bus->region);
  }
  if (r < 0) {
    free(bus);
    return r;
  }
  bus->region_open = true;
  bus->stamp = cfn_os_fork_stamp();
  bus->largest = cfn_slab_largest(bus->region);
  cfn_store_relaxed(&bus->tick_ns, TICK_FIRST_NS);
  bus->fifo[0] = bus->fifo[1] = -1;
  bus->round_robin = bus->actor.me;
  pthread_mutex_init(&bus->lock, NULL);
  cfn_outbox_begin(&bus->outbox, bus->region, bus->actor.me, &(cfn_source_t){.name = ""});
  set_source(bus);
  *out = bus;
  if (created) *created = made;
  return CFN_OK;
}

static void forget_pending(cfn_bus_t *bus) {
  while (bus->pending) {
    cfn_pending_t *p = bus->pending;
    bus->pending = p->next;
    free(p->wire);
    free(p);
  }
}

void cfn_bus_close(cfn_bus_t *bus) {
  if (bus->stamp != cfn_os_fork_stamp()) return; /* inherited: nothing of it is ours to give back */
  pthread_mutex_lock(&bus->lock);
  if (!bus->closed) {
    bus->closed = true;
    cfn_inbox_end(&bus->inbox);
    cfn_slab_return_hints(bus->region, &bus->outbox.cursor);
    for (int i = 0; i < 2; i++)
      if (bus->fifo[i] >= 0) close(bus->fifo[i]);
    bus->fifo[0] = bus->fifo[1] = -1;
    if (cfn_load_seq(&bus->actor.slot->id) == bus->id_word) {
      cfn_bus_drop_loans(bus);
      cfn_detach(&bus->actor, bus->id_word);
    } else {
      cfn_life_drop(bus->region, bus->actor.me);
    }
    /* Threads of ours that sleep in this handle: let them find it closed. */
    cfn_event_ring_futex(&bus->actor.slot->reply_bell);
    cfn_event_ring_futex(&cfn_state(bus->region)->refs.event);
    uint32_t waited_for = (uint32_t)cfn_load_relaxed(&bus->wait_what);
    if (cfn_load_relaxed(&bus->wait_what) >> 56 >= CFN_WAIT_REF && waited_for < bus->region->geo.config.refs) {
      cfn_event_ring_futex(&cfn_ref(bus->region, waited_for)->event);
      cfn_event_ring_futex(&cfn_ref(bus->region, waited_for)->holders);
    }
    if (bus->mailbox) {
      cfn_mailbox_shm_t *m = cfn_mailbox(bus->region, bus->mailbox - 1);
      cfn_event_ring(&m->bell.event, (cfn_doorbell_t){bus->region, 'm', bus->mailbox - 1});
    }
    if (cfn_load_seq(&bus->inside) == 0) {
      cfn_region_close(bus->region);
      bus->region_open = false;
    }
  }
  pthread_mutex_unlock(&bus->lock);
}

void cfn_bus_free(cfn_bus_t *bus) {
  if (!bus) return;
  if (bus->stamp == cfn_os_fork_stamp()) {
    cfn_bus_close(bus);
    /* The process ends while a thread of it sleeps in here: it will look at the handle when it wakes. */
    if (cfn_load_seq(&bus->inside)) return;
    if (bus->region_open) cfn_region_close(bus->region);
    pthread_mutex_destroy(&bus->lock);
  }
  forget_pending(bus);
  free(bus->lent);
  free(bus);
}

static int fail_forked(void) {
  return cfn_fail(CFN_FORKED, 0, 0,
                  "this handle was opened before fork(); open the bus again in the child "
                  "(Bus(name, agent=...)), handles do not survive a fork");
}

int cfn_bus_lost(const cfn_bus_t *bus) {
  return cfn_fail(CFN_CORRUPT, 0, 0,
                  "the file of bus '%s' was cut short under this process, and what was in it is lost; end the "
                  "bus's agents, cfnshm doctor --remove %s, and start again", bus->region->name, bus->region->name);
}

/* With the lock held; leaves it where the handle is of no use any more. */
static int entered(cfn_bus_t *bus) {
  int r = CFN_OK;
  if (bus->closed) {
    r = cfn_fail(CFN_CLOSED, 0, 0, "this handle is closed; open the bus again");
  } else if (cfn_region_retired(bus->region)) {
    r = cfn_fail(CFN_RETIRED, 0, 0, "bus '%s' was destroyed; opening it again makes a new one",
                 bus->region->name);
  } else if (cfn_load_acquire(&bus->actor.slot->id) != bus->id_word) {
    if (cfn_region_lost(bus->region)) { /* it reads as zeroes */
      r = cfn_bus_lost(bus);
    } else {
      r = cfn_fail(CFN_AGENT_FENCED, 0, 0,
                   "this process was judged dead and its attachment recycled (was it restored from a "
                   "checkpoint, or were its descriptors closed?); open the bus again");
    }
  }
  if (r < 0) pthread_mutex_unlock(&bus->lock);
  return r;
}

int cfn_bus_enter(cfn_bus_t *bus) {
  if (bus->stamp != cfn_os_fork_stamp()) return fail_forked();
  pthread_mutex_lock(&bus->lock);
  return entered(bus);
}

int cfn_bus_try_enter(cfn_bus_t *bus) {
  if (bus->stamp != cfn_os_fork_stamp()) return fail_forked();
  return pthread_mutex_trylock(&bus->lock) == 0 ? entered(bus) : CFN_AGAIN;
}

int cfn_bus_hold(cfn_bus_t *bus) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  cfn_add_seq(&bus->inside, 1); /* close looks at it under the lock */
  cfn_bus_leave(bus);
  return CFN_OK;
}
void cfn_bus_unhold(cfn_bus_t *bus) { cfn_add_seq(&bus->inside, (uint32_t)-1); }

int cfn_bus_destroy(cfn_bus_t *bus) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  cfn_region_t *region = bus->region;
  r = cfn_region_destroy(region);
  /* Everybody asleep in it wakes up and finds it gone. */
  cfn_event_ring_futex(&cfn_state(region)->registry.event);
  for (unsigned c = 0; c < CFN_CLASSES; c++)
    cfn_event_ring_futex(&cfn_state(region)->class_room[c].event);
  for (uint32_t i = 0; i < region->geo.config.agents; i++) {
    cfn_event_ring(&cfn_mailbox(region, i)->bell.event, (cfn_doorbell_t){region, 'm', i});
    cfn_event_ring_futex(&cfn_mailbox(region, i)->space.event);
    cfn_event_ring_futex(&cfn_mailbox(region, i)->acks.event);
  }
  for (uint32_t i = 0; i < region->geo.config.attachments; i++)
    cfn_event_ring(&cfn_attachment(region, i)->reply_bell, (cfn_doorbell_t){region, 'a', i});
  cfn_event_ring_futex(&cfn_state(region)->refs.event);
  for (uint32_t i = 0; i < region->geo.config.refs; i++) {
    cfn_event_ring_futex(&cfn_ref(region, i)->event);
    cfn_event_ring_futex(&cfn_ref(region, i)->holders);
  }
  cfn_bus_leave(bus);
  return r;
}

int cfn_bus_destroy_idle(cfn_bus_t *bus) {
  cfn_bus_info_t info;
  int r = cfn_bus_info(bus, &info);
  if (r == CFN_OK) r = cfn_bus_hold(bus);
  if (r < 0) return r;
  uint64_t pid = 0;
  for (uint32_t i = 0; info.attached > 1 && pid == 0 && i < bus->region->geo.config.attachments; i++)
    if (i != bus->actor.me && cfn_life_of(bus->region, i, NULL, NULL) == CFN_LIFE_ALIVE)
      cfn_identity_of(bus->region, i, &pid);
  cfn_bus_unhold(bus);
  if (info.attached > 1)
    return cfn_fail(CFN_AGENT_BUSY, (int64_t)pid, 0,
                    "bus '%s' is in use by %u living handles (one is of process %llu); end their "
                    "processes (cfnshm list), use another name, or destroy it under them (cfnshm destroy "
                    "--force)", info.name, info.attached - 1, (unsigned long long)pid);
  return cfn_bus_destroy(bus);
}

cfn_region_t *cfn_bus_region(cfn_bus_t *bus) { return bus->region; }
uint32_t cfn_bus_attachment(const cfn_bus_t *bus) { return bus->actor.me; }
uint64_t cfn_bus_attachment_inc(const cfn_bus_t *bus) { return bus->outbox.source.attachment_inc; }

void cfn_bus_count(cfn_bus_t *bus, unsigned which, uint64_t n) {
  cfn_a64 *c = &bus->actor.slot->counter[which];
  cfn_store_relaxed(c, cfn_load_relaxed(c) + n);
}

/* ---- waiting ---- */

bool cfn_deadline_passed(uint64_t deadline) {
  if (deadline == 0) return true;
  return deadline != CFN_FOREVER && cfn_os_monotonic_ns() >= deadline;
}

int cfn_bus_judge(cfn_bus_t *bus, const cfn_address_t *address) {
  cfn_mailbox_shm_t *m = cfn_mailbox(bus->region, address->index);
  char name[CFN_NAME_BYTES];
  cfn_record_name(bus->region, address->index, name);
  uint32_t who = 0;
  int life = cfn_life_of_agent(bus->region, address->index, &who);
  if (cfn_load_seq(&m->mid) != address->mid)
    return cfn_fail(CFN_STALE, 0, 0, "the agent was unregistered meanwhile");
  if (life != CFN_LIFE_DEAD) return CFN_OK;
  uint64_t pid = 0;
  if (who) cfn_identity_of(bus->region, who - 1, &pid);
  else pid = cfn_load_relaxed(&m->owner_pid);
  return cfn_fail(CFN_AGENT_DEAD, (int64_t)pid, 0,
                  "agent '%s' is dead: its process %llu ended without leaving the bus. Its inbox is "
                  "kept for a successor (start it again under the same name), or unregister it",
                  name, (unsigned long long)pid);
}

const char *cfn_bus_holder(cfn_bus_t *bus, uint32_t holder, uint64_t *pid) {
  cfn_identity_of(bus->region, holder, pid);
  return *pid == bus->outbox.source.pid ? " (this one, by another handle)" : "";
}

const char *cfn_bus_excuse(cfn_bus_t *bus, uint32_t mailbox) {
  switch (cfn_life_of_agent(bus->region, mailbox, NULL)) {
    case CFN_LIFE_ALIVE: return "its process is alive: too slow, stopped, or busy with something else";
    case CFN_LIFE_DEAD: return "its process is dead";
    default: return "no process has it: it was never started, or left the bus";
  }
}

int cfn_bus_judge_agent(cfn_bus_t *bus, const cfn_address_t *address) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = address->index < bus->region->geo.config.agents ? cfn_bus_judge(bus, address)
                                                      : cfn_fail(CFN_INVALID, 0, 0, "bad address");
  return cfn_bus_left(bus, r);
}

/* What every wait does now and then: are we still we, is anybody dead. */
static int tick(cfn_bus_t *bus, const cfn_address_t *counterpart) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = cfn_life_refresh(bus->region, bus->actor.me);
  if (r == CFN_AGENT_FENCED) cfn_fail(r, 0, 0, "another process has this attachment now");
  else if (r != CFN_FORKED) r = CFN_OK; /* out of locks or memory: the next tick tries again; that we run speaks for us */
  bus->round_robin = (bus->round_robin + 1) % bus->region->geo.config.attachments;
  if (r >= 0 && bus->round_robin != bus->actor.me &&
      cfn_reap_if_dead(&bus->actor, bus->round_robin))
    cfn_registry_finish_removals(&bus->actor);
  if (r >= 0 && counterpart) r = cfn_bus_judge(bus, counterpart);
  return cfn_bus_left(bus, r);
}

#define SPIN_MOST 64u

void cfn_bus_spin(cfn_bus_t *bus, const cfn_watch_t *watch) {
  uint32_t turns = cfn_load_relaxed(&bus->spin);
  cfn_add_seq(&bus->inside, 1);
  cfn_bus_leave(bus);
  bool came = false;
  for (uint32_t i = 0; i < turns && !came; i++) {
    cfn_os_yield();
    for (unsigned k = 0; k < watch->n; k++)
      came |= cfn_load_relaxed(watch->slot[k]) != watch->word[k]; /* looked at properly afterwards */
  }
  cfn_store_relaxed(&bus->spin, came ? (turns * 2 < SPIN_MOST ? turns * 2 : SPIN_MOST) : turns / 2);
  cfn_add_seq(&bus->inside, (uint32_t)-1);
}

static void say_what_for(cfn_bus_t *bus, uint64_t now, unsigned kind, uint32_t index) {
  uint64_t what = (uint64_t)(kind & 0xff) << 56 | (uint64_t)(kind >> 8) << 48 | index;
  if (cfn_load_relaxed(&bus->wait_what) != what || now > cfn_load_relaxed(&bus->wait_until) + SAME_WAIT_NS)
    cfn_store_relaxed(&bus->wait_since, cfn_os_wall_ns());
  cfn_store_relaxed(&bus->wait_what, what);
  cfn_store_relaxed(&bus->actor.slot->waiting_since, cfn_load_relaxed(&bus->wait_since));
  cfn_store_seq(&bus->actor.slot->waiting, what); /* who looks for a circle of waiters sees the circle that it closes */
}

void cfn_bus_says_waiting(cfn_bus_t *bus, unsigned kind, uint32_t index) {
  say_what_for(bus, cfn_os_monotonic_ns(), kind, index);
}

int cfn_bus_sleep(cfn_bus_t *bus, cfn_event_shm_t *event, uint32_t armed, unsigned kind,
                  uint32_t index, const cfn_address_t *counterpart, uint64_t deadline) {
  cfn_attach_shm_t *slot = bus->actor.slot;
  uint64_t now = cfn_os_monotonic_ns();
  uint64_t slice = cfn_load_relaxed(&bus->tick_ns);
  bool last = false;
  if (deadline != CFN_FOREVER) {
    if (now >= deadline) {
      cfn_store_relaxed(&slot->waiting, 0); /* it may have been said already */
      cfn_bus_leave(bus);
      return CFN_TIMEOUT;
    }
    if (deadline - now < slice) {
      slice = deadline - now;
      last = true;
    }
  }
  say_what_for(bus, now, kind, index);
  /* Whatever it waits for: those who wait for room in its inbox may be what it waits for. */
  if (bus->inbox.consumer && cfn_inbox_owes(&bus->inbox)) cfn_inbox_announce(&bus->inbox, true);
  cfn_bus_count(bus, CFN_COUNT_WAITS, 1);
  cfn_add_seq(&bus->inside, 1); /* before the lock is left: close looks at it under the lock */
  cfn_bus_leave(bus);
  int slept = cfn_event_sleep(event, armed, slice);
  cfn_store_relaxed(&slot->waiting, 0);
  cfn_add_seq(&bus->inside, (uint32_t)-1);
  cfn_store_relaxed(&bus->wait_until, slept == 0 ? 0 : cfn_os_monotonic_ns());
  if (slept == 0) {
    cfn_store_relaxed(&bus->tick_ns, TICK_FIRST_NS);
    /* Woken soon after falling asleep: a spin would perhaps have met it. Later: one turn, in which others of the same
     * processor run and the next message comes, without a wake-up for each. */
    uint32_t turns = cfn_os_monotonic_ns() - now < SOON_NS ? SPIN_FIRST : 1;
    if (cfn_load_relaxed(&bus->spin) < turns) cfn_store_relaxed(&bus->spin, turns);
    return CFN_OK;
  }
  if (slept == -EINTR) return CFN_INTERRUPTED;
  uint64_t longer = 2 * cfn_load_relaxed(&bus->tick_ns);
  cfn_store_relaxed(&bus->tick_ns, longer < TICK_LONGEST_NS ? longer : TICK_LONGEST_NS);
  int r = tick(bus, counterpart);
  if (r < 0) return r;
  return last ? CFN_TIMEOUT : CFN_INTERRUPTED;
}

/* ---- agents ---- */

static int check_agent_name(const char *agent) {
  return cfn_name_check(agent, strlen(agent), "the agent name");
}

static int fail_again(const char *agent) {
  return cfn_fail(CFN_AGAIN, 0, 0, "agent '%s' changes hands all the time", agent);
}

static int register_locked(cfn_bus_t *bus, const char *agent, const cfn_profile_t *profile,
                           cfn_address_t *out, bool *created, bool describe) {
  int r = check_agent_name(agent);
  if (r == CFN_OK) r = cfn_profile_check(profile);
  if (r < 0) return r;
  r = cfn_registry_create(&bus->actor, agent, strlen(agent), profile, &out->index, &out->mid, created);
  if (r == CFN_OVER_CAPACITY && cfn_reap_all(&bus->actor) > 0)
    r = cfn_registry_create(&bus->actor, agent, strlen(agent), profile, &out->index, &out->mid,
                            created);
  if (r == CFN_OK && !*created && describe) cfn_profile_store(bus->region, out->index, profile);
  return r;
}

int cfn_bus_register(cfn_bus_t *bus, const char *agent, const cfn_profile_t *profile,
                     cfn_address_t *out, int *created) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  bool made = false;
  r = register_locked(bus, agent, profile, out, &made, true);
  if (created) *created = made;
  return cfn_bus_left(bus, r);
}

int cfn_bus_act_as(cfn_bus_t *bus, const char *agent, const cfn_profile_t *profile, int flags,
                   uint64_t *incarnation, int *owner) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  *owner = 0;
  *incarnation = 0;
  if (bus->mailbox) {
    r = cfn_fail(CFN_INVALID, 0, 0, "this handle acts as '%s' already; agents are not renamed: open "
                 "another handle", bus->agent);
    cfn_bus_leave(bus);
    return r;
  }
  cfn_address_t address;
  bool made = false;
  int tries = 0;
  for (; tries < TRIES; tries++) {
    r = register_locked(bus, agent, profile, &address, &made, !(flags & CFN_ACT_ONLY));
    if (r < 0 || !(flags & CFN_ACT_OWN)) break;
    uint32_t holder = 0;
    r = cfn_registry_take_owner(&bus->actor, address.index, address.mid, incarnation, &holder);
    if (r == CFN_OK) *owner = 1;
    if (r == CFN_OK && flags & CFN_ACT_ONLY) /* not before it was ours to describe */
      cfn_profile_store(bus->region, address.index, profile);
    if (r == CFN_AGENT_BUSY && flags & CFN_ACT_ONLY) {
      uint64_t pid;
      const char *whose = cfn_bus_holder(bus, holder, &pid);
      cfn_fail(r, (int64_t)pid, 0, "agent '%s' has a living owner, process %llu%s; end it, or take "
               "another name", agent, (unsigned long long)pid, whose);
      break;
    }
    if (r == CFN_OK || r == CFN_AGENT_BUSY) { /* a living owner: act beside it */
      r = CFN_OK;
      break;
    }
    if (r == CFN_AGENT_DEAD) cfn_reap_if_dead(&bus->actor, holder);
    else if (r != CFN_STALE) break;
  }
  if (tries == TRIES) r = fail_again(agent);
  if (r == CFN_OK) {
    strncpy(bus->agent, agent, sizeof bus->agent - 1);
    bus->mailbox = address.index + 1;
    bus->mid = address.mid;
    bus->agent_inc = *incarnation;
    bus->owner = *owner;
    cfn_store_seq(&bus->actor.slot->agent, address.index + 1);
    set_source(bus);
  }
  return cfn_bus_left(bus, r);
}

static int find_locked(cfn_bus_t *bus, const char *agent, cfn_address_t *out) {
  int r = check_agent_name(agent);
  if (r < 0) return r;
  if (cfn_directory_find(bus->region, CFN_KIND_AGENT, agent, strlen(agent), &out->index, &out->mid) == CFN_OK)
    return CFN_OK;
  return cfn_fail(CFN_UNKNOWN_AGENT, 0, 0,
                  "no agent '%s' on bus '%s' (cfnshm list shows who is there, cfnshm wait %s waits "
                  "until it is)", agent, bus->region->name, agent);
}

int cfn_bus_find(cfn_bus_t *bus, const char *agent, cfn_address_t *out) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = find_locked(bus, agent, out);
  return cfn_bus_left(bus, r);
}

int cfn_bus_wait_agent(cfn_bus_t *bus, const char *agent, uint64_t deadline, cfn_address_t *out) {
  for (;;) {
    int r = cfn_bus_enter(bus);
    if (r < 0) return r;
    cfn_event_shm_t *event = &cfn_state(bus->region)->registry.event;
    uint32_t armed = 0;
    r = find_locked(bus, agent, out);
    bool waits = r == CFN_UNKNOWN_AGENT && !cfn_deadline_passed(deadline);
    if (waits) {
      armed = cfn_event_arm(event);
      r = find_locked(bus, agent, out); /* AFTER arming */
    }
    if (!waits || r != CFN_UNKNOWN_AGENT) {
      cfn_bus_leave(bus);
      return r;
    }
    r = cfn_bus_sleep(bus, event, armed, CFN_WAIT_AGENT, 0, NULL, deadline);
    if (r < 0 && r != CFN_TIMEOUT) return r;
  }
}

int cfn_bus_unregister(cfn_bus_t *bus, const char *agent, int flags, uint64_t *dropped) {
  *dropped = 0;
  int r = cfn_bus_enter(bus), tries = 0;
  if (r < 0) return r;
  for (; tries < TRIES; tries++) {
    cfn_address_t address;
    r = find_locked(bus, agent, &address);
    if (r < 0) break;
    uint32_t holder = 0;
    unsigned owner = cfn_owner_att(cfn_load_seq(&cfn_mailbox(bus->region, address.index)->owner));
    bool force = flags & CFN_FORCE;
    if (!force && owner && owner != CFN_OWNER_DEAD && owner != bus->actor.me + 1 &&
        owner <= bus->region->geo.config.attachments &&
        cfn_life_of(bus->region, owner - 1, NULL, NULL) == CFN_LIFE_ALIVE) {
      r = CFN_AGENT_BUSY;
      holder = owner - 1;
    } else {
      uint64_t consumer;
      r = cfn_registry_take_consumer(&bus->actor, address.index, address.mid, force, &consumer,
                                     &holder);
      if (r == CFN_AGENT_DEAD) {
        cfn_reap_if_dead(&bus->actor, holder);
        continue;
      }
      if (r == CFN_STALE) continue;
      if (r == CFN_OK) {
        bool own = bus->mailbox == address.index + 1;
        if (own) cfn_inbox_end(&bus->inbox);
        r = cfn_registry_remove(&bus->actor, address.index, address.mid, consumer, dropped);
        if (own) bus->mailbox = 0;
        if (own) cfn_store_seq(&bus->actor.slot->agent, 0);
        if (r == CFN_STALE) continue; /* another removed it first */
        if (r == CFN_AGENT_FENCED)
          cfn_fail(r, 0, 0, "the inbox of '%s' was taken over while it was removed; who has it now goes on with that", agent);
      }
    }
    if (r == CFN_AGENT_BUSY) {
      uint64_t pid;
      const char *whose = cfn_bus_holder(bus, holder, &pid);
      cfn_fail(r, (int64_t)pid, 0, "agent '%s' belongs to process %llu%s, which is alive; end it first, "
               "or unregister with force", agent, (unsigned long long)pid, whose);
    }
    break;
  }
  if (tries == TRIES) r = fail_again(agent);
  return cfn_bus_left(bus, r);
}

int cfn_bus_set_profile(cfn_bus_t *bus, const char *agent, const cfn_profile_t *profile) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  cfn_address_t address;
  r = cfn_profile_check(profile);
  if (r == CFN_OK) r = find_locked(bus, agent, &address);
  if (r == CFN_OK) cfn_profile_store(bus->region, address.index, profile);
  return cfn_bus_left(bus, r);
}

int cfn_bus_agents(cfn_bus_t *bus, cfn_address_t *out, uint32_t most) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  int n = 0;
  for (uint32_t i = 0; i < bus->region->geo.config.agents; i++) {
    uint64_t mid = cfn_load_seq(&cfn_mailbox(bus->region, i)->mid);
    if (cfn_mid_state(mid) != CFN_MID_OPEN) continue;
    if ((uint32_t)n < most) out[n] = (cfn_address_t){mid, i};
    n++;
  }
  cfn_bus_leave(bus);
  return n;
}

int cfn_bus_agents_named(cfn_bus_t *bus, cfn_named_t *out, uint32_t most) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  int n = 0;
  for (uint32_t i = 0; i < bus->region->geo.config.agents; i++) {
    cfn_named_t one = {.at = {cfn_load_seq(&cfn_mailbox(bus->region, i)->mid), i}};
    if (cfn_mid_state(one.at.mid) != CFN_MID_OPEN) continue;
    cfn_record_name(bus->region, i, one.name);
    if (cfn_load_seq(&cfn_mailbox(bus->region, i)->mid) != one.at.mid) continue; /* LAST: the name is that one's */
    if ((uint32_t)n < most) out[n] = one;
    n++;
  }
  return cfn_bus_left(bus, n);
}

uint64_t cfn_bus_names_version(cfn_bus_t *bus) {
  if (cfn_bus_try_enter(bus) < 0) return 0;
  uint64_t intent = cfn_load_seq(&cfn_state(bus->region)->intent);
  cfn_bus_leave(bus);
  return cfn_intent_record(intent) ? 0 : cfn_intent_ver(intent);
}

int cfn_bus_reap(cfn_bus_t *bus) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  cfn_directory_help(bus->region);
  r = cfn_reap_all(&bus->actor);
  return cfn_bus_left(bus, r);
}
