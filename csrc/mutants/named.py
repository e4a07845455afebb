"""Mutants chosen by hand: the protocol's rules, each broken where it stands, with the scenarios of cfnsim
or the C tests that must find it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    scenarios: str  # names, with blanks between
    survives: str = ""  # why no check can or need go red
    tests: str = ""  # of C, likewise


NAMED = [
    Mutant("publish without the authority", "msg/ring.c",
           "if (cfn_load_acquire(authority) != expect) return CFN_STALE;\n      /* COMMIT", "/* COMMIT",
           "remove remove-killed"),
    Mutant("no look after arming (reader)", "agent/bus_recv.c",
           "bool ready = cfn_inbox_ready(&bus->inbox, v->lanes) ||", "bool ready =", "send full"),
    Mutant("no look after arming (space)", "agent/bus_send.c",
           "if (again != why || (why == CFN_NO_SPACE && again_cls != cls)) {", "if (again == CFN_OK + 1) {",
           "full"),
    Mutant("no bell after the commit", "msg/outbox.c",
           "    cfn_route_ring(r, route->kind, route->index); /* S5 */\n", "", "send request"),
    Mutant("a ring that does not change the word", "sync/event.c",
           "uint32_t rung = (b & ~CFN_EVENT_ANY) + CFN_EVENT_ONE;", "uint32_t rung = (b & ~CFN_EVENT_ANY);",
           "send full request",
           "takes a third waiter while a sleeper is stopped: a mutant of csrc/models/event.pml"),
    Mutant("WAIT is simply cleared", "sync/event.c",
           "if (b & (CFN_EVENT_WAIT | CFN_EVENT_WAKING)) marks |= CFN_EVENT_WAKING;",
           "if (b & CFN_EVENT_WAIT) cfn_os_futex_wake(&e->word, INT_MAX);", "send-killed full-killed",
           "a wake-up lost to a death is covered by the tick, which runs with deaths may use; without it, "
           "a mutant of csrc/models/event.pml"),
    Mutant("the tail is not helped on", "msg/ring.c",
           "    } else if (ahead >= 0) {\n      /* Filled, or consumed already, while tail still points at it: help "
           "whoever did it. */\n      cfn_cas_release(q->tail, t, t + 1);",
           "    } else if (ahead >= 0) {\n", "send-killed full-killed"),
    Mutant("the chunk is announced after its claim", "mem/slab.c",
           "  cfn_store_relaxed(cell, k + 1); /* ordered before the CAS by its release half */\n"
           "  /* dies here: the register names a chunk whose word does not name us; a reaper ignores it */\n"
           "  return cfn_cas_acqrel(&chunk->own, own, cfn_own_next(own, CFN_MINE, me));",
           "  if (!cfn_cas_acqrel(&chunk->own, own, cfn_own_next(own, CFN_MINE, me))) return false;\n"
           "  cfn_store_relaxed(cell, k + 1);\n  return true;", "send-killed life-killed"),
    Mutant("R4 without its CAS", "msg/inbox.c",
           "if (!cfn_cas_seq(&chunk->own, own, mine)) continue; /* R4; lost: look again */",
           "cfn_store_seq(&chunk->own, mine);", "steal frame-steal"),
    Mutant("the copy is not verified", "msg/inbox.c",
           "  if (cfn_inbox_still_mine(in, cfn_run_token(in, run, 0))) return CFN_OK;\n", "  return CFN_OK;\n", "steal",
           "what a fenced reader copied late may be another message's bytes: seen by msg tests with bodies "
           "that change (test_frame_stolen), not by ids alone"),
    Mutant("the inbox is taken without a mark of what was seen", "msg/inbox.c",
           "uint64_t before = cfn_max_seq(&lane_words(in, run->lane)->seen, next);", "uint64_t before = 0;",
           "steal read-killed"),
    Mutant("R5's loser frees too", "msg/inbox.c",
           "if (cfn_cas_seq(slot, w, cfn_slot_word(cfn_slot_lap(w) + 1, 0))) { /* R5 */",
           "if (cfn_cas_seq(slot, w, cfn_slot_word(cfn_slot_lap(w) + 1, 0)) || 1) { /* R5 */", "steal frame-steal",
           "the free is itself a swap of the exact word: whoever comes second frees nothing"),
    Mutant("an ack after the steal counts", "msg/inbox.c",
           "bool done = cfn_cas_seq(&cfn_chunk(in->region, l->chunk)->own, l->own, cfn_own_next(l->own, CFN_DONE, in->me));",
           "bool done = true; cfn_store_seq(&cfn_chunk(in->region, l->chunk)->own, cfn_own_next(l->own, CFN_DONE, in->me));",
           "steal frame-steal"),
    Mutant("a part is acked without a look at the lease", "msg/inbox.c",
           "      if (cfn_load_seq(&chunk->own) != l->own) return CFN_AGENT_FENCED;\n      missing", "      missing",
           "frame-reuse frame-steal"),
    Mutant("parts of a frame are acked as the whole", "msg/inbox.c",
           "  if (n < l->count) {\n    if (ack_parts", "  if (n < 2) {\n    if (ack_parts", "frame-batch-two"),
    Mutant("the last part of a batch is not acked", "msg/inbox.c",
           "uint32_t bits = ((UINT32_C(1) << some) - 1) << at, missing;",
           "uint32_t bits = ((UINT32_C(1) << (some - (some > 1))) - 1) << at, missing;", "frame-batch-two"),
    Mutant("messages are handed out before they are marked as seen", "msg/inbox.c",
           "uint64_t next = end < l->count ?", "uint64_t next = n > 1 ? place : end < l->count ?", "frame-batch frame-batch-killed"),
    Mutant("the consumer word is taken by a store", "agent/registry.c",
           "if (cfn_cas_seq(&m->consumer, w, mine)) {\n      if (att)", "cfn_store_seq(&m->consumer, mine);\n    {\n      if (att)",
           "heirs steal read-killed"),
    Mutant("a new record keeps the old consumer", "agent/registry.c",
           "  do {\n    w = cfn_load_seq(&m->consumer);\n  } while (!cfn_cas_seq(&m->consumer, w, "
           "cfn_consumer_word(cfn_consumer_ver(w) + 1, 0)));\n", "", "remove-reuse-read remove-reuse remove-reuse-killed"),
    Mutant("the intent is not looked at again", "mem/directory.c",
           "  if (cfn_load_seq(intent_word) != intent) return; /* LAST: what was read belongs to this intent */\n", "",
           "names names-three names-twice names-stale"),
    Mutant("two inserts beside the intent", "mem/directory.c",
           "    if (cfn_intent_record(intent)) {\n      finish(r, intent);\n      continue;\n    }\n"
           "    uint64_t mine = cfn_intent_word(cfn_intent_ver(intent) + 1, 0, i + 1);",
           "    uint64_t mine = cfn_intent_word(cfn_intent_ver(intent) + 1, 0, i + 1);",
           "names names-three names-twice"),
    Mutant("a name is found without a second look", "mem/directory.c",
           "    if (cfn_load_seq(cfn_record_state(r, value - 1)) != before) continue; /* the name may be another's */\n", "",
           "names names-lookup", "what is found wrongly comes with the old word: STALE to whoever uses it"),
    Mutant("the reaper does not look in the ring", "agent/reap.c",
           "cfn_ring_of_target(p->r, target, &q) && cfn_ring_holds(&q, k);",
           "false && cfn_ring_of_target(p->r, target, &q);", "send-killed life-killed"),
    Mutant("the dead one's words are not given back", "agent/reap.c",
           "  for (unsigned h = 0; h < CFN_HOLDS; h++) reap_hold(p, cfn_load_acquire(&p->slot->holds[h]));\n", "",
           "read-killed life-killed"),
    Mutant("the hints of the dead are not mended", "agent/reap.c", "  reap_hints(p);\n", "",
           "send-killed read-killed life-killed"),
    Mutant("half a removal is nobody's", "agent/registry.c",
           "    if (empty_and_free(a, i, removing, consumer, &dropped) == CFN_OK) finished++;\n", "", "remove-killed"),
    # Objects on disk.
    Mutant("a name that moves is passed over", "mem/index.c",
           "if (cfn_load_seq(*slot) != *word) (*at)--;", ";", "recall-find recall recall-two"),
    Mutant("one that goes to disk is held as it is", "mem/heap.c",
           "    if (state != CFN_BLOB_CHECK && state != CFN_BLOB_SPILLING) break;\n",
           "    if (state == CFN_BLOB_SPILLING) return CFN_OK;\n    if (state != CFN_BLOB_CHECK) break;\n", "spill spill-hold"),
    Mutant("its holders are not looked at", "mem/evict.c", "if (in_use(r, b) || ", "if ((0 && in_use(r, b)) || ",
           "spill spill-hold"),
    Mutant("its name is not looked at last", "mem/evict.c",
           "  cfn_heap_drop_spilled(r, b, spilled);\n  return CFN_OK;", "  return CFN_OK;", "spill-delete spill-name",
           "the next collection finds that it has no name, and ends it"),
    Mutant("it is on disk by a store", "mem/evict.c", "  if (!cfn_cas_seq(st, w, spilled)) {",
           "  cfn_store_seq(st, spilled);\n  if (0) {", "spill-rescue spill-hold"),
    Mutant("it is announced late", "mem/evict.c",
           "  if (!cfn_ledger_announce(h, b)) return CFN_AGENT_FENCED; /* announced before it is taken */\n"
           "  uint64_t spilling = cfn_own_next(w, CFN_BLOB_SPILLING, me);\n  int e = CFN_AGAIN;\n"
           "  if (cfn_cas_seq(st, w, spilling)) {\n",
           "  uint64_t spilling = cfn_own_next(w, CFN_BLOB_SPILLING, me);\n  int e = CFN_AGAIN;\n"
           "  if (cfn_cas_seq(st, w, spilling)) {\n    if (!cfn_ledger_announce(h, b)) return CFN_AGENT_FENCED;\n", "spill-killed spill-two-killed",
           "the next collection finds it in nobody's ledger and makes it LIVE"),
    Mutant("the file gets its name late", "mem/evict.c", "  e = cfn_spill_keep(dir, b, ver);\n", "  e = CFN_OK;\n", "spill"),
    Mutant("the old one goes before the name has moved", "mem/evict.c", "  } else if (!cfn_index_move(slot, word, f.blob)) {",
           "  } else if (cfn_heap_drop_spilled(r, *b, st), !cfn_index_move(slot, word, f.blob)) {", "recall-find recall-killed",
           "it has its name still, so nothing ends; the next collection ends it"),
    Mutant("the name moves by a store", "mem/index.c",
           "  return cfn_cas_seq(slot, word, cfn_names_word(cfn_names_what(word) + 1, b + 1));\n}\n\nbool cfn_index_remove",
           "  cfn_store_seq(slot, cfn_names_word(cfn_names_what(word) + 1, b + 1));\n  return true;\n}\n\nbool cfn_index_remove",
           "recall-gone recall-delete"),
    Mutant("a file that is gone is a loss", "mem/evict.c",
           "  if (cfn_load_seq(slot) != word || cfn_load_seq(&cfn_blob_record(r, b)->st) != st) return CFN_STALE;\n",
           "  (void)slot;\n  (void)word;\n  (void)st;\n", "recall-again recall-delete"),
    Mutant("what is on disk is ended, named or not", "mem/heap.c", "  if (cfn_index_names(r, b)) return false;\n", "",
           "recall-slow recall-killed spill-name"),
    Mutant("a list passes over what moves", "agent/bus_object.c",
           "        if (!info.spilled && cfn_load_seq(slot) != word) continue;\n", "", "recall-list recall"),
    Mutant("what was read from disk is not looked at again", "mem/evict.c",
           "  return cfn_load_seq(slot) == word ? CFN_OK : CFN_STALE; /* LAST", "  return CFN_OK; /* LAST", "recall-copy"),
    Mutant("a delete passes over a name that moves", "agent/bus_object.c", "      at--; /* it came back", "      /* it came back",
           "recall-gone recall-delete"),
    Mutant("the dead one's blob goes on being put on disk", "mem/heap.c",
           "if ((state == CFN_BLOB_FILL || state == CFN_BLOB_SPILLING) && cfn_own_who(w) == dead) {",
           "if (state == CFN_BLOB_FILL && cfn_own_who(w) == dead) {", "spill-killed spill-two-killed",
           "the next collection finds it in nobody's ledger and makes it LIVE; its readers always could"),
    Mutant("the census is of before the arming", "agent/bus_send.c", "  bus->outbox.until_census[cls] = 0;\n  unsigned again_cls;",
           "  unsigned again_cls;", "", tests="test_wakeups"),
    Mutant("only one class is told of before a sleep", "msg/inbox.c",
           "for (unsigned c = 0; c < CFN_CLASSES; c++) cfn_event_ring_futex(&cfn_state(in->region)->class_room[c].event);",
           "cfn_event_ring_futex(&cfn_state(in->region)->class_room[0].event);", "",
           tests="test_wakeups"),
    Mutant("hints are kept back over a sleep", "msg/inbox.c", "  cfn_slab_tell(in->region, &in->freed);\n  /* All classes",
           "  /* All classes", "", tests="test_wakeups"),
    Mutant("a late count of deliveries wins", "msg/inbox.c", "  if (cfn_delivery_ver(w) < cfn_own_ver(mine)) cfn_cas_release",
           "  cfn_cas_release", "",
           "shows only where a thief leased and counted between our lease and our count; a number that is told, and decides "
           "nothing", tests="test_messages test_meddled_messages"),
    Mutant("leases that were not counted are forgotten", "mem/layout.h", "? count + gap : 1;", "? count : 1;", "",
           tests="test_messages"),
    Mutant("no look at all before a sleep is thorough", "msg/inbox.c",
           "      if (!in->hasty && pass_damage(in, lane, &q, p, slot, w)) {", "      if (false && pass_damage(in, lane, &q, p, slot, w)) {",
           "", tests="test_damage test_hostile test_meddled_messages"),
    Mutant("idle lanes are not looked into before a sleep", "msg/inbox.c", "lane < CFN_LANES && !in->hasty; lane++) {",
           "false; lane++) {", "", tests="test_damage test_hostile test_meddled_messages"),
    Mutant("who has no time left has looked hastily", "agent/bus_recv.c", "      if (bus->inbox.hasty) {\n        spun = true;",
           "      if (false) {\n        spun = true;", "", tests="test_damage test_hostile test_meddled_messages"),
    Mutant("the records of a parcel are not checked", "agent/bus_parcel.c",
           "if (record.flags & CFN_MESSAGE_OBJECT || body_at(&record, start) + record.body_bytes > next) break;", "(void)record;\n    (void)next;", "",
           tests="test_parcels"),
    Mutant("a parcel does not say what comes again", "agent/bus_parcel.c",
           "w.wire_flags = i < parcel->redelivered ? CFN_WIRE_REDELIVERED : 0;", "w.wire_flags = 0;", "", tests="test_parcels"),
    Mutant("a parcel is acked but for its last", "agent/bus_recv.c", "cfn_inbox_ack(&bus->inbox, parcel[i].token, parcel[i].count)",
           "cfn_inbox_ack(&bus->inbox, parcel[i].token, parcel[i].count > 1 ? parcel[i].count - 1 : 1)", "", tests="test_parcels"),
    Mutant("a page is free as the one before it was", "mem/heap.c", "if (word != known && !page_free(r, p, word, &after)) {",
           "if (!known && !page_free(r, p, word, &after)) {", "heap*", tests="test_context test_loan test_large"),
]

WEAK = [
    Mutant("weak: the commit is no seq_cst", "msg/ring.c",
           "if (cfn_cas_seq(slot, w, cfn_slot_word(cfn_slot_lap(w), k + 1))) {",
           "if (cfn_cas_acqrel(slot, w, cfn_slot_word(cfn_slot_lap(w), k + 1))) {", "send"),
    Mutant("weak: the bell is looked at with acquire", "sync/event.h",
           "if (cfn_load_seq(&e->word) & CFN_EVENT_ANY) cfn_event_ring_slow(e, bell);",
           "if (cfn_load_acquire(&e->word) & CFN_EVENT_ANY) cfn_event_ring_slow(e, bell);", "send full"),
    Mutant("weak: the re-check after arming is relaxed", "msg/inbox.c",
           "    uint64_t w = cfn_load_seq(cfn_ring_slot(&q, p));\n    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), "
           "cfn_ring_lap(&q, p));\n    if (ahead > 0 || (ahead == 0",
           "    uint64_t w = cfn_load_relaxed(cfn_ring_slot(&q, p));\n    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), "
           "cfn_ring_lap(&q, p));\n    if (ahead > 0 || (ahead == 0", "send"),
    Mutant("weak: the authority is looked at relaxed", "msg/ring.c",
           "if (cfn_load_acquire(authority) != expect) return CFN_STALE;\n      /* COMMIT",
           "if (cfn_load_relaxed(authority) != expect) return CFN_STALE;\n      /* COMMIT", "remove",
           "the acquire loads of tail and slot before it forbid the old value already"),
    Mutant("weak: the slot is loaded relaxed before the authority", "msg/ring.c",
           "    uint64_t w = cfn_load_seq(slot);\n    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(q, t));",
           "    uint64_t w = cfn_load_relaxed(slot);\n    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(q, t));",
           "remove", "a slot that was emptied for good never fits a tail of before; the swap fails"),
    Mutant("weak: the head move reads old words", "msg/inbox.c",
           "    uint64_t w = cfn_load_seq(slot);\n    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, h));\n    "
           "if (ahead > 0) { /* R5",
           "    uint64_t w = cfn_load_relaxed(slot);\n    int64_t ahead = cfn_lap_minus(cfn_slot_lap(w), cfn_ring_lap(&q, h));\n    "
           "if (ahead > 0) { /* R5", "full steal",
           "an old word fails its swap; what is missed is found by the next move (argued, not shown)"),
]  # fmt: skip
