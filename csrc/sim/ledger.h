/* What every scenario is judged by: who was told what, who got what, and what must be left of it at the end. */
#ifndef CFN_SIM_LEDGER_H
#define CFN_SIM_LEDGER_H

#include "sim/sim.h"

#define IDS 32
#define LETTER 3000u /* bytes that no chunk of the simulated bus holds */
#define LANE 4 /* places in the normal lane: see main.c */
#define ALL 7u /* processes 0 to 2 may be killed */

/* What senders know, what readers know. */
typedef struct sim_ledger {
  int told[IDS];     /* send returned CFN_OK */
  int got[IDS];      /* handed out */
  int unmarked[IDS]; /* of these, without the mark of a redelivery */
  int acked[IDS];
  int last[SIM_PROCESSES]; /* highest id got of each sender: per-sender order */
  bool thief[SIM_PROCESSES]; /* it took the inbox over, */
  bool over[IDS]; /* when these were acked */
} sim_ledger_t;
extern sim_ledger_t L;
extern cfn_bus_t *bus[SIM_PROCESSES];
extern int last_got; /* of whom `take` or `take_many` was last */

/* Up to `most` at once, each noted: how many, or an error. */
int64_t take_many(int me, cfn_bus_t *reader, uint32_t most, void *out, size_t room, uint32_t *offsets);
/* The first thing of every setup: an empty ledger, no handles. */
void begin(void);
/* Longer than any wait that somebody will end; who waits so long waits for the dead. */
uint64_t patience(void);
/* The id of a message's body, all of whose bytes must say the same. */
uint8_t id_of(const void *out);
/* With so many bytes; `post` sends few. */
int post_bytes(int me, cfn_bus_t *from, const char *to, int id, uint32_t bytes, uint64_t deadline);
int post(int me, cfn_bus_t *from, const char *to, int id, uint64_t deadline);
int64_t take(int me, cfn_bus_t *reader, uint64_t *token, uint64_t deadline);
/* The dead are recycled, whoever survives leaves, a successor reads what is left of `agent`'s inbox (NULL: of
 * nobody's); then nothing may be held, missing, twice or out of order. */
void audit(const char *agent);
/* Whoever survived closes its handle; calls are made as process p then. */
void everybody_leaves(int p);
/* The same, the dead are recycled, and nothing is left in the heap: names and values were taken away before. */
void audit_heap(int p, cfn_bus_t *late);
void audit_reader(void);
void audit_all(void);

#endif
