/* Parcels: a frame's messages, copied out of the bus at once. */
#ifndef CFN_AGENT_BUS_PARCEL_H
#define CFN_AGENT_BUS_PARCEL_H

#include "agent/bus.h"

/* Copies the first messages of a run of several to out + at, and describes them but for redeliveries. How many; 0: these
 * are not for a parcel (one alone, an object, a control message, or damage, which is found again message by message), or
 * there is no room for two. `*end` is where the next one may begin. */
uint32_t cfn_parcel_fill(const cfn_inbox_t *in, const cfn_run_t *run, void *out, size_t at, size_t room, cfn_parcel_t *parcel,
                         size_t *end);

#endif
