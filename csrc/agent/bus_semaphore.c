/* Semaphores: a value that lists who holds a permit, changed as a whole by one CAS. A permit whose holder is not there
 * any more is nobody's: whoever finds all permits taken looks at that. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/bus_ref.h"
#include "base/os.h"
#include "sync/lease.h"

#define MAGIC 0x4d455343u /* "CSEM" */
#define MOST 65535u

typedef struct permit {
  uint64_t who, token, since_wall_ns;
} permit_t;
typedef struct semaphore {
  uint32_t magic, permits;
  permit_t taken[];
} semaphore_t;

static int key_of(const char *name, uint32_t bytes, cfn_ref_key_t *out) {
  return cfn_ref_key_of("the name of a semaphore", 'S', name, bytes, out);
}

/* How many are taken; negative: it makes no sense. */
static int64_t taken_in(const cfn_ref_value_t *v, const cfn_ref_key_t *key, semaphore_t **out) {
  semaphore_t *s = (semaphore_t *)(void *)v->data;
  *out = s;
  if (v->bytes == 0) return 0;
  uint64_t n = (v->bytes - sizeof *s) / sizeof(permit_t);
  if (v->bytes < sizeof *s || s->magic != MAGIC || v->bytes != sizeof *s + n * sizeof(permit_t) || n > MOST)
    return cfn_fail(CFN_CORRUPT, 0, 0, "what is stored of semaphore '%s' makes no sense; see cfnshm doctor", key->text + 2);
  return (int64_t)n;
}

static uint32_t without_the_dead(const cfn_bus_t *bus, semaphore_t *s, uint32_t n) {
  uint32_t living = 0;
  for (uint32_t i = 0; i < n; i++)
    if (cfn_life_id_lives(bus, s->taken[i].who)) s->taken[living++] = s->taken[i];
  return living;
}

/* CFN_OK; CFN_AGAIN; CFN_TIMEOUT without a text: all are taken; or an error. */
static int try_take(cfn_bus_t *bus, const cfn_ref_key_t *key, uint32_t permits, cfn_ref_value_t *v, uint64_t *token) {
  semaphore_t *s;
  int r = cfn_ref_read(bus, key, sizeof *s + sizeof(permit_t), v);
  if (r < 0) return r;
  int64_t n = taken_in(v, key, &s);
  if (n < 0) return (int)n;
  if (n && s->permits != permits)
    n = without_the_dead(bus, s, (uint32_t)n);
  if (n && s->permits != permits)
    return cfn_fail(CFN_INVALID, s->permits, permits, "semaphore '%s' is in use with %u permits, and not %u", key->text + 2,
                    s->permits, permits);
  if ((uint64_t)n >= permits) n = without_the_dead(bus, s, (uint32_t)n);
  if ((uint64_t)n >= permits) return CFN_TIMEOUT;
  *token = cfn_lease_token(bus->region, cfn_refs_next_version(bus->region));
  s->magic = MAGIC;
  s->permits = permits;
  s->taken[n] = (permit_t){cfn_life_id(bus), *token, cfn_os_wall_ns()};
  v->bytes = sizeof *s + (uint64_t)(n + 1) * sizeof(permit_t);
  if (cfn_load_relaxed(&bus->actor.slot->leases) == 0) cfn_store_seq(&bus->actor.slot->leases, 1);
  return cfn_ref_write(bus, key, CFN_RING_HOLDERS, v);
}

static int take_or_sleep(cfn_bus_t *bus, const cfn_ref_key_t *key, uint32_t permits, uint64_t deadline, cfn_ref_value_t *v,
                         uint64_t *token) {
  int r = try_take(bus, key, permits, v, token);
  if (r != CFN_TIMEOUT) return cfn_bus_left(bus, r);
  cfn_event_shm_t *event;
  uint32_t armed;
  if (cfn_deadline_passed(deadline))
    return cfn_bus_left(bus, cfn_fail(r, permits, permits, "all %u permits of semaphore '%s' are taken by living processes",
                                      permits, key->text + 2));
  if (cfn_ref_arm(bus, v, &event, &armed) != CFN_OK) return cfn_bus_left(bus, CFN_AGAIN);
  r = cfn_bus_sleep(bus, event, armed, CFN_WAIT_PERMIT, v->at.ref, NULL, deadline);
  return r == CFN_OK || r == CFN_TIMEOUT ? CFN_AGAIN : r;
}

int cfn_bus_semaphore_take(cfn_bus_t *bus, const char *name, uint32_t name_bytes, uint32_t permits, uint64_t deadline,
                           uint64_t *token) {
  cfn_ref_key_t key;
  cfn_ref_value_t v = {0};
  int r = key_of(name, name_bytes, &key);
  if (r == CFN_OK && (permits == 0 || permits > MOST))
    r = cfn_fail(CFN_INVALID, MOST, permits, "a semaphore has 1 to %u permits, not %u", MOST, permits);
  if (r < 0) return r;
  do {
    r = cfn_bus_enter(bus);
    if (r == CFN_OK) r = take_or_sleep(bus, &key, permits, deadline, &v, token);
  } while (r == CFN_AGAIN);
  free(v.data);
  return r;
}

int cfn_bus_semaphore_give_back(cfn_bus_t *bus, const char *name, uint32_t name_bytes, uint64_t token) {
  cfn_ref_key_t key;
  cfn_ref_value_t v = {0};
  semaphore_t *s;
  int r = key_of(name, name_bytes, &key);
  if (r == CFN_OK) r = cfn_bus_enter(bus);
  if (r < 0) return r;
  do {
    r = cfn_ref_read(bus, &key, 0, &v);
    int64_t n = r < 0 ? r : taken_in(&v, &key, &s), at = 0;
    while (at < n && (s->taken[at].token != token || s->taken[at].who != cfn_life_id(bus))) at++;
    if (n < 0) {
      r = (int)n;
    } else if (at == n) {
      r = cfn_fail(CFN_LEASE_LOST, 0, 0, "semaphore '%s' has no permit of token %" PRIu64 " of this handle", key.text + 2, token);
    } else {
      s->taken[at] = s->taken[n - 1];
      v.bytes = n == 1 ? 0 : v.bytes - sizeof(permit_t); /* with the last one it is nothing, and its name is free */
      r = cfn_ref_write(bus, &key, CFN_RING_WAITERS | CFN_RING_HOLDERS, &v);
    }
  } while (r == CFN_AGAIN);
  free(v.data);
  return cfn_bus_left(bus, r);
}

int64_t cfn_bus_semaphore_holders(cfn_bus_t *bus, const char *name, uint32_t name_bytes, uint32_t *permits,
                                  cfn_holder_t *out, uint64_t most) {
  cfn_ref_key_t key;
  cfn_ref_value_t v = {0};
  semaphore_t *s;
  int r = key_of(name, name_bytes, &key);
  if (r == CFN_OK) r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = cfn_ref_read(bus, &key, 0, &v);
  int64_t n = r < 0 ? r : taken_in(&v, &key, &s), living = 0;
  *permits = n > 0 ? s->permits : 0;
  for (int64_t i = 0; i < n; i++) {
    if (!cfn_life_id_lives(bus, s->taken[i].who)) continue;
    if ((uint64_t)living < most) {
      cfn_holder_t *h = &out[living];
      *h = (cfn_holder_t){.token = s->taken[i].token, .since_wall_ns = s->taken[i].since_wall_ns};
      memcpy(h->name, name, name_bytes);
      cfn_life_id_names(bus, s->taken[i].who, h->agent, &h->pid);
      h->life = cfn_life_is_stopped(bus->region, (uint32_t)(s->taken[i].who & 0xffff)) ? CFN_HOLDER_STOPPED : CFN_HOLDER_ALIVE;
    }
    living++;
  }
  free(v.data);
  if (cfn_region_lost(bus->region)) n = cfn_bus_lost(bus);
  cfn_bus_leave(bus);
  return n < 0 ? n : living;
}
