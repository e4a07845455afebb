/* Refs through a handle whose lock is held: what named values, locks, semaphores and barriers have in common. */
#ifndef CFN_AGENT_BUS_REF_H
#define CFN_AGENT_BUS_REF_H

#include "agent/bus.h"
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

#endif
