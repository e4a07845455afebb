/* Refs through a handle whose lock is held: what named values, locks, semaphores and barriers have in common. */
#ifndef CFN_AGENT_BUS_REF_H
#define CFN_AGENT_BUS_REF_H

#include "agent/bus.h"
#include "sync/event.h"
#include "sync/refs.h"

/* Keys that begin so are ours: nobody can ask for them as values. The second byte says what it is. */
#define CFN_KEY_OURS '\1'
typedef struct cfn_ref_key {
  char text[CFN_KEY_BYTES];
  uint32_t bytes;
} cfn_ref_key_t;
/* The key of a thing of ours; `what` names it in errors ("the name of a lock"). CFN_OK or CFN_BAD_NAME. */
int cfn_ref_key_of(const char *what, char kind, const char *name, uint32_t bytes, cfn_ref_key_t *out);

/* The ref and its word, made if missing and `create`. CFN_OK, CFN_UNKNOWN_KEY without a text, or another error. */
int cfn_ref_load(cfn_bus_t *bus, const char *key, uint32_t bytes, bool create, cfn_ref_at_t *at, uint64_t *word);
/* As cfn_bus_ref_get and cfn_bus_ref_set. CFN_UNKNOWN_KEY of `get` is without a text. */
int64_t cfn_ref_get(cfn_bus_t *bus, const char *key, uint32_t key_bytes, void *out, uint64_t room, cfn_ref_info_t *info,
                    cfn_ref_at_t *at, uint64_t *word);
int cfn_ref_set(cfn_bus_t *bus, const char *key, uint32_t key_bytes, uint64_t expect, unsigned codec, const void *data,
                uint64_t bytes, unsigned rings, uint64_t *version);

/* A value whole, however long, to be changed and set again. Zero at first; the caller frees `data` at the end. */
typedef struct cfn_ref_value {
  uint8_t *data;
  uint64_t room, bytes;
  uint64_t version; /* 0 and no bytes: there is none */
  cfn_ref_at_t at;
  uint64_t word;
} cfn_ref_value_t;
/* CFN_OK, also if there is none; `spare` bytes of room are behind it. */
int cfn_ref_read(cfn_bus_t *bus, const cfn_ref_key_t *key, uint64_t spare, cfn_ref_value_t *v);
/* Sets what was read and changed; no bytes: takes it away. CFN_AGAIN: somebody else was faster: read it again. */
int cfn_ref_write(cfn_bus_t *bus, const cfn_ref_key_t *key, unsigned rings, cfn_ref_value_t *v);
/* Arms the ref's event if it is still what was read; CFN_AGAIN: it is not. */
int cfn_ref_arm(cfn_bus_t *bus, const cfn_ref_value_t *v, cfn_event_shm_t **event, uint32_t *armed);

/* Who holds a place in such a value: attachment and life of it. */
static inline uint64_t cfn_life_id(const cfn_bus_t *bus) {
  return (cfn_id_inc(bus->id_word) & 0xffffffffffu) << 16 | bus->actor.me;
}
/* Is it still there? False also for one that has left. */
bool cfn_life_id_lives(const cfn_bus_t *bus, uint64_t id);
/* Name and process of one that is there; else empty and 0. */
void cfn_life_id_names(const cfn_bus_t *bus, uint64_t id, char agent[CFN_NAME_BYTES], uint64_t *pid);

#endif
