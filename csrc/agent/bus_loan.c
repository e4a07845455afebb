/* Loans: the body of a message that its sender writes where the receiver will read it.
 *
 * A loan is a blob in FILL, named by a ledger cell, like one that is just being stored; only that the filling lasts from
 * one call to another. It is sent as any body that no chunk holds.
 *
 * dies here, lent: FILL(dead), named by its ledger: the reaper makes it DEAD
 * dies here, published and not sent, or not let go of: held by the dead one's ledger, then by the message alone
 */
#include <stdlib.h>

#include "agent/bus.h"
#include "base/os.h"

_Static_assert(CFN_LOAN_LEAST > CFN_BLOB_INSIDE, "a loan is in pages: what is inside of a record has no place of its own yet");

struct cfn_lent {
  cfn_filling_t filling;
  cfn_hold_t hold;
  uint64_t number; /* 0: free */
  bool whole;      /* published; it was not sent because there was no room, say */
  bool sending;    /* by a thread of ours: it must not be sent twice, nor dropped meanwhile */
};

static struct cfn_lent *find(cfn_bus_t *bus, uint64_t number) {
  for (unsigned i = 0; bus->lent && i < CFN_LOANS; i++)
    if (bus->lent[i].number == number) return &bus->lent[i];
  return NULL;
}

static int no_loan(void) { return cfn_fail(CFN_INVALID, 0, 0, "this loan was sent or dropped before"); }

int cfn_bus_loan(cfn_bus_t *bus, uint64_t bytes, cfn_loan_t *out) {
  if (bytes < CFN_LOAN_LEAST)
    return cfn_fail(CFN_INVALID, CFN_LOAN_LEAST, (int64_t)bytes, "a loan has at least %u bytes, not %llu; send less as it is",
                    CFN_LOAN_LEAST, (unsigned long long)bytes);
  if (bytes > UINT32_MAX)
    return cfn_fail(CFN_TOO_LARGE, UINT32_MAX, (int64_t)bytes, "a body has at most %u bytes, not %llu", UINT32_MAX,
                    (unsigned long long)bytes);
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  if (!bus->lent) bus->lent = calloc(CFN_LOANS, sizeof *bus->lent);
  struct cfn_lent *l = find(bus, 0);
  if (!bus->lent) {
    r = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for the list of loans");
  } else if (cfn_bus_pins(bus) >= CFN_PINS) {
    r = cfn_fail(CFN_OVER_CAPACITY, CFN_PINS, CFN_PINS + 1,
                 "one handle has at most %u objects in place and loans at a time; release some views", CFN_PINS);
  } else if (!l) {
    r = cfn_fail(CFN_OVER_CAPACITY, CFN_LOANS, CFN_LOANS + 1,
                 "one handle has at most %u loans open at a time; send or drop some", CFN_LOANS);
  } else {
    if (cfn_load_relaxed(&cfn_state(bus->region)->object_messages) == 0)
      cfn_store_seq(&cfn_state(bus->region)->object_messages, 1); /* a collector looks at chunks from now on */
    r = cfn_bus_store_begin(bus, bytes, &l->hold, &l->filling);
  }
  if (r == CFN_OK) {
    cfn_heap_lend(bus->region, &l->filling);
    l->number = ++bus->loans;
    l->whole = l->sending = false;
    bus->region->keep_mapped = true; /* whoever still writes to it later finds memory there */
    *out = (cfn_loan_t){l->filling.data, bytes, l->number};
  }
  return cfn_bus_left(bus, r);
}

int cfn_bus_loan_send(cfn_bus_t *bus, uint64_t number, uint32_t index, uint64_t mid, unsigned lane, unsigned codec,
                      const char *type, uint32_t type_bytes, uint64_t deadline, cfn_receipt_t *receipt) {
  if (type_bytes > CFN_TYPE_BYTES_MAX)
    return cfn_fail(CFN_INVALID, CFN_TYPE_BYTES_MAX, type_bytes, "a message type has at most %u bytes, not %u",
                    CFN_TYPE_BYTES_MAX, type_bytes);
  int r = deadline == CFN_TRY ? cfn_bus_try_enter(bus) : cfn_bus_enter(bus);
  if (r < 0) return r;
  struct cfn_lent *l = number ? find(bus, number) : NULL;
  if (!l) {
    r = no_loan();
  } else if (l->sending) {
    r = cfn_fail(CFN_INVALID, 0, 0, "another thread is sending this loan");
  } else if (!l->whole && !(l->whole = cfn_heap_publish(bus->region, &l->filling, NULL, codec))) {
    r = cfn_fail(CFN_AGENT_FENCED, 0, 0, "this process was judged dead while it wrote a loan; open the bus again");
  }
  cfn_outgoing_t m = {.type = type, .type_bytes = (uint8_t)type_bytes, .codec = (uint8_t)codec, .flags = CFN_MESSAGE_OBJECT};
  if (r == CFN_OK) {
    m.body = l->filling.data;
    m.body_bytes = (uint32_t)l->filling.bytes;
    m.object_blob = l->filling.blob;
    m.object_life = cfn_load_relaxed(&cfn_blob_record(bus->region, l->filling.blob)->life);
    m.object_sole = true;
    l->sending = true;
  }
  r = cfn_bus_left(bus, r);
  if (r < 0) return r;
  /* dies here: LIVE, held by our ledger alone, and gone when that is reaped */
  r = cfn_bus_send(bus, &(cfn_address_t){mid, index}, lane, &m, 1, deadline, receipt);
  const cfn_failure_t keep = *cfn_last_failure();
  if (cfn_bus_enter(bus) == CFN_OK) { /* else closed since: its cells were given back */
    l->sending = false;
    if (r == CFN_OK) {
      cfn_bus_count(bus, CFN_COUNT_SENT_BYTES, m.body_bytes);
      cfn_ledger_clear(&l->hold); /* AFTER the chunk has it */
      l->number = 0;
    }
    cfn_bus_leave(bus);
  }
  if (r < 0) cfn_fail(keep.code, keep.have, keep.want, "%s", keep.text);
  return r;
}

int cfn_bus_loan_open(cfn_bus_t *bus, uint64_t number) {
  int r = cfn_bus_enter(bus);
  if (r < 0) return r;
  r = number && find(bus, number);
  cfn_bus_leave(bus);
  return r;
}

void cfn_bus_loan_drop(cfn_bus_t *bus, uint64_t number) {
  const cfn_failure_t keep = *cfn_last_failure(); /* this may be called by a collector of garbage, between others */
  if (number == 0) return;
  if (cfn_bus_enter(bus) < 0) { /* closed: its cells were given back */
    cfn_fail(keep.code, keep.have, keep.want, "%s", keep.text);
    return;
  }
  struct cfn_lent *l = find(bus, number);
  if (l && !l->sending) {
    cfn_heap_abandon(bus->region, &l->filling);
    cfn_ledger_clear(&l->hold);
    l->number = 0;
  }
  cfn_bus_leave(bus);
}

void cfn_bus_drop_loans(cfn_bus_t *bus) {
  for (unsigned i = 0; bus->lent && i < CFN_LOANS; i++) {
    struct cfn_lent *l = &bus->lent[i];
    if (l->number && !l->sending) cfn_heap_abandon(bus->region, &l->filling); /* its cell goes with the attachment */
    l->number = 0;
  }
}
