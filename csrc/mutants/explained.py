"""Why some of the mutants made by rule change nothing that a check could see: {name: reason}."""

from __future__ import annotations

LINES = "two lines of defence, the agreed lap and the authority: csrc/models/remove.pml, reply.pml"
TWO_RETIRERS = "two retirers at once need a steal between two instructions: caught in csrc/models/remove.pml, "
ADVICE = "a hint, or when to tell it, is advice: the chunk's own word decides"
SPEED = "only speed: how many are woken, how long one spins"
EXACT = "the swap of the exact word that follows fails"
AGAIN = "who arms after the ringer looked sees the condition when it looks again, and is woken besides"
BYTE = "whoever holds the life byte is the only one that changes a slot without a living process"

EXPLAINED: dict[str, str] = {
    "mem/slab.c cfn_slab_claim no store 1": "a register that names a chunk of somebody else's says nothing to a reaper",
    "mem/slab.c cfn_slab_claim no store 3": "the thorough search that follows erases it",
    "mem/slab.c cfn_slab_free_later no check 1": ADVICE,
    "sync/event.c cfn_event_ring_slow store 1": AGAIN,
    "sync/event.c cfn_event_ring_slow no check 1": AGAIN,
    "sync/event.c cfn_event_ring_some store 1": AGAIN,
    "sync/event.c cfn_event_ring_some no check 1": SPEED,
    "sync/event.c cfn_event_ring_some no wake 1": SPEED,
    "msg/ring.c cfn_ring_publish no check 2": "the sender has looked for room before; it looks again after AGAIN",
    "msg/ring.c cfn_ring_retire_lap store 1": LINES,
    "msg/ring.c cfn_ring_retire_lap no check 1": LINES,
    "msg/ring.c cfn_ring_retire_lap no check 2": "the next turn finds its own tag",
    "msg/ring.c retire_slot no check 1": LINES,
    "msg/ring.c retire_slot no check 3": LINES,
    "msg/ring.c cfn_ring_retire no store 1": "a register that names a chunk of somebody else's says nothing to a reaper",
    "msg/inbox.c drop_corrupt store 1": "only for a word that is damage already",
    "msg/inbox.c drop_corrupt no check 1": "only for a word that is damage already",
    "msg/inbox.c count_delivery store 1": "a number that is told; what a thief counted meanwhile it would hide, for once",
    "msg/inbox.c move_head falls 1": "the head is where a search begins; the laps of the slots say where it goes on",
    "msg/inbox.c move_head falls 2": "the head is where a search begins; the laps of the slots say where it goes on",
    "msg/inbox.c move_head no check 1": "only for a word that is damage already",
    "msg/inbox.c take no check 4": "what is leased without its word is found not to be ours after the copy",
    "msg/ring.c retire_slot no check 2": TWO_RETIRERS + "no_slot_recheck",
    "msg/ring.c cfn_ring_retire falls 1": TWO_RETIRERS + "cursor_store",
    "msg/ring.c cfn_ring_retire falls 2": TWO_RETIRERS + "cursor_store",
    "msg/inbox.c cfn_inbox_announce no wake 1": ADVICE,
    "msg/inbox.c take store 2": "only for a frame that is damage already",
    "msg/inbox.c take no check 1": "only for a word that is damage already",
    "msg/inbox.c take no check 2": "at the cursor of a reader that is not fenced only that reader empties a slot; the fence is looked at after it",
    "msg/inbox.c drop_rest store 1": "only for a frame that is damage already",
    "msg/inbox.c cfn_inbox_record no check 1": "the same look is taken again after the copy",
    "msg/inbox.c cfn_lane_depth no check 1": "a number to look at, which may be a frame off while it is taken",
    "agent/registry.c claim_record no store 3": "a register that names somebody else's record says nothing",
    "agent/registry.c fill_record store 1": "a stale remover's giving back has the same effect as what overwrites it",
    "agent/registry.c fill_record store 2": "a stale reaper's swap of an older word fails before and after",
    "agent/registry.c fill_record no store 3": "the next owner writes it before it is shown",
    "agent/bus_recv.c receive no wake 1": ADVICE,
    "agent/bus_request.c drain_replies store 1": "nobody else takes an answer of a living asker: csrc/models/reply.pml",
    "agent/bus_request.c drain_replies no check 2": "nobody else takes an answer of a living asker: csrc/models/reply.pml",
    "msg/outbox.c cfn_outbox_post no check 2": "publishing finds the lane full, too; it costs a chunk meanwhile",
    "mem/directory.c finish store 1": "only for an intent that is damage already",
    "mem/directory.c cfn_directory_find no check 1": "what is found wrongly comes with the old word: STALE to who uses it",
    "agent/registry.c cfn_registry_create store 1": "FAIL names its living creator, and nobody else changes it",
    "agent/registry.c cfn_registry_create no store 3": "a register that names somebody else's record says nothing",
    "agent/registry.c claim_record no store 2": "a hint: where the next search begins",
    "agent/registry.c cfn_registry_take_consumer no check 2": EXACT,
    "agent/registry.c cfn_registry_take_owner no check 2": EXACT,
    "agent/registry.c cfn_registry_give_back_owner store 1": "a word that names a living owner is changed by it alone",
    "agent/attach.c join store 1": BYTE,
    "agent/attach.c join store 2": BYTE,
    "agent/attach.c join no check 1": BYTE,
    "agent/attach.c join no check 2": BYTE,
    "agent/liveness.c cfn_life_of no check 1": "whoever acts on it swaps the exact word that was judged",
    "agent/liveness.c cfn_life_of no check 2": "whoever acts on it swaps the exact word that was judged",
    "agent/bus.c cfn_bus_spin no store 1": SPEED,
    "agent/bus.c cfn_bus_sleep no store 7": "only how soon the next safety tick comes",
    "agent/bus.c cfn_bus_sleep no store 8": SPEED,
    "agent/bus_send.c pass_on no wake 1": "the reader rings everybody before it sleeps (csrc/models/space.pml)",
    "agent/bus_recv.c await_senders no check 1": SPEED,
    "agent/bus_recv.c await_senders no check 2": SPEED,
    "agent/bus_recv.c await_senders no wake 1": SPEED,
    "agent/bus_request.c drain_replies falls 1": "the asker alone moves it while it lives, and reapers when it is dead",
    "agent/bus_request.c drain_replies falls 2": "the asker alone moves it while it lives, and reapers when it is dead",
    "agent/bus_request.c drain_replies no check 1": "nobody else empties a slot of a living asker: csrc/models/reply.pml",
    "agent/bus_request.c drain_replies store 2": "nobody else empties a slot of a living asker: csrc/models/reply.pml",
    "agent/reap.c reap_all_of no check 1": "only the number of reaped that is told",
    "agent/reap.c cfn_recycle store 1": BYTE,
    "agent/reap.c cfn_recycle no check 1": BYTE,
    "agent/registry.c empty_and_free falls 1": TWO_RETIRERS + "cursor_store",
    "mem/directory.c finish store 4": "FAIL is of a PEND that only finishers of this intent change, and all decide alike",
    "msg/ring.c retire_slot store 4": TWO_RETIRERS + "no_slot_recheck",
    "msg/ring.c retire_slot store 5": "only for a chunk that is damage already",
    "msg/ring.c retire_slot no check 6": "only for a chunk that is damage already",
    "msg/inbox.c pass_damage store 1": "only for a word that is damage already",
    "msg/inbox.c pass_damage store 2": "only for a word that is damage already",
    "msg/inbox.c pass_damage no check 3": "only for a word that is damage already",
    "agent/bus.c cfn_bus_free no check 1": "a thread that sleeps while its process ends: nothing is freed that anybody sees",
    "msg/inbox.c pass_damage no check 1": EXACT,
    "msg/inbox.c pass_damage no check 2": "only for a word that is damage already",
    "mem/heap.c claim_blob no store 1": ADVICE,
    "mem/heap.c cfn_heap_abandon no store 1": ADVICE,
    "mem/heap.c cfn_heap_begin no store 1": "a claimer passes over free pages at most, and finds them at its second turn",
    "mem/heap.c cfn_heap_hold no check 1": "the next turn finds it LIVE",
    "mem/heap.c cfn_heap_copy_few no check 1": "the word that names it is looked at once more behind it",
    "mem/heap.c look_at_holders no check 1": "slots that were never used have empty ledgers",
    "mem/heap.c release_pages store 1": "nobody else claims a page of a blob that is being written",
}


# ---- memory orders ----
# Each for its place: why that operation, relaxed, changes nothing that could be seen.

LAST = "a last look behind acquire loads: what they saw of later brings it along; an older answer is covered by the exact swap"
BROUGHT = "an acquire load before it, of what was written behind it, brings it along"
COHERENT = "the same word was loaded or swapped before, and no later load of it is older"
SWAPPED = "the seq_cst swap of the same word that follows acquires, and fails on an old one"
ALONE = "it says one thing by itself: nothing that was written before it is read through it"
BEHIND = "a seq_cst swap behind it, in the same call, releases it before anybody acts on it"
DEATH = "words of a dead process: its end, of which the kernel tells, orders all that it wrote"
CELL = "a cell tells a reaper where to look; the swaps on both sides of it are seq_cst, and orders it between them"
HEAD = "the head is where a search begins; the laps of the slots say where it goes on"
DAMAGE = "only for a word that is damage already"
REPORT = "a report: true of a moment that is over when it is told"
THREADS = "between threads of one process, under its mutex: not of the region"
OWN = "a word that only its own process writes while it lives"
FINISH = "who asks about it loads the intent by acquire, and the swap that ends the intent releases it"
LANE = "what it is found by, the slot, was loaded by acquire or swapped by seq_cst beside it: one of the two suffices"
TAIL = "who acts on a tail loads and swaps the exact word of the slot at it"
TAIL_FITS = "the tail, which must fit an emptied slot and is raised by seq_cst, brings what the slot would"
RING = "what it tells of is looked at by seq_cst behind the arming; the ring itself publishes nothing"
AGREED = "all that decide under this word decide alike; who comes late fails at the exact words"
NAMED_LAST = "the name that is looked at last keeps the blob: a collector has looked there, too"
DIGEST = "the content is what its digest says, whatever life of the record it is read in"
ROUND = "what is missed is decided on by the next collection"
CHOICE = "a choice of what to put on disk; the blob's own word decides"
NOTE = "a note beside the word; the swap of the word releases it, and who it is about is told by its version"
SUM = "the sum tells a torn text, and it is read again"
NEW_RECORD = "of a record without a name: PEND and OPEN, behind it, release it"
MOMENT = "judged for one who waits, who looks again; true of the moment before"
TICK = "only after a death: its wake-up may be the tick's"
READER = "the next reader finds what it needs in words that are swapped themselves"
RECEIPT = "slot, own word and seen, looked at beside it, say the same"
DOCTOR = "the doctor's, for what dead processes left; what it frees it frees by the exact word that it judged"
LATE_STORE = "needed: a late store of ours could fall on the next owner's; the simulator makes no store late (sim.h)"
REPLY = "nobody else takes an answer of a living asker: csrc/models/reply.pml"
FENCE = "a steal just behind this look has the same effect: the lease is verified by its own word"
FULL = "whoever is told FULL or STALE looks again, by seq_cst loads, before it sleeps"
RELEASED = "the seq_cst swap before it, of the same process, has released all that matters"

ORDERS: dict[str, dict[int, str]] = {
    "mem/region.h cfn_region_retired": {1: ALONE},
    "mem/region.c table_enter": {1: THREADS, 2: THREADS, 3: THREADS},
    "mem/region.c cfn_region_open": {1: ALONE},
    "mem/region.c cfn_region_destroy": {1: ALONE},
    "mem/region.c cfn_spill_of_bus": {3: COHERENT},
    "sync/event.c cfn_event_ring_slow": {1: COHERENT, 2: RING, 3: COHERENT, 4: ALONE},
    "sync/event.c cfn_event_ring_some": {
        1: "who rings some has looked at the word by seq_cst before, or passes on what the reader makes up for", 2: RING,
    },
    "msg/envelope.c cfn_frame_write": {
        1: "the sender's ledger holds the body until a seq_cst swap behind it; the commit publishes it; the dead: their end",
    },
    "msg/envelope.c cfn_frame_read": {1: LANE},
    "msg/ring.h cfn_authority_holds": {1: LAST, 2: LAST},
    "msg/ring.c cfn_ring_publish": {
        1: "the slot that is loaded next acquires the same: one of the two suffices", 3: BROUGHT, 5: TAIL, 6: TAIL,
        7: FULL, 8: FULL,
    },
    "msg/ring.c cfn_ring_full": {1: "an old tail says at most that there is room, and publishing finds out"},
    "msg/ring.c cfn_ring_holds": {1: DEATH},
    "msg/ring.c cfn_ring_retire_lap": {
        1: SWAPPED, 2: "tails are swapped by release alone: seq_cst sees no more of them; two laps of margin", 3: AGREED,
    },
    "msg/ring.c retire_slot": {
        2: TAIL_FITS, 3: SWAPPED, 4: BROUGHT, 5: CELL, 6: "until the slot is emptied, by a seq_cst swap behind it, the slot names the chunk",
        7: "the swap of the chunk before it releases the announcement; " + TAIL_FITS, 9: DAMAGE, 10: CELL,
    },
    "msg/ring.c cfn_ring_retire": {1: CELL, 3: HEAD},
    "msg/inbox.h cfn_inbox_fenced": {1: FENCE},
    "msg/inbox.c cfn_inbox_begin": {1: HEAD},
    "msg/inbox.c drop_corrupt": {1: DAMAGE},
    "msg/inbox.c move_head": {
        1: HEAD, 2: "an old word fails its swap, or the move stops early and the next ack, take or skip goes on: nobody waits for the head",
        3: DAMAGE, 4: "DONE by others was seen in take, which passes over it, and no later load is older", 6: CELL, 7: HEAD, 8: HEAD,
    },
    "msg/inbox.c lease_start": {1: "what was read of the frame is over, and is not used behind it"},
    "msg/inbox.c skip_acked": {1: "what was read of the frame is over, and is not used behind it"},
    "msg/inbox.c pass_damage": {1: EXACT, 2: EXACT, 3: DAMAGE, 4: DAMAGE},
    "msg/inbox.c take": {1: LANE, 3: BROUGHT, 4: DAMAGE, 6: DAMAGE},
    "msg/inbox.c drop_rest": {1: DAMAGE},
    "msg/inbox.c lane_idle": {1: "the lanes that were passed over are looked at again before EMPTY is said"},
    "msg/inbox.c cfn_lane_depth": {1: REPORT, 2: REPORT, 3: REPORT, 4: REPORT, 5: REPORT},
    "msg/inbox.c cfn_lane_peek": {
        1: HEAD, 3: LANE, 4: REPORT, 5: REPORT, 6: "slot and own word are both looked at: while one stands, so does the other",
        7: "slot and own word are both looked at: while one stands, so does the other",
    },
    "msg/outbox.c cfn_outbox_post": {1: "publishing looks at it again", 2: CELL},
    "mem/directory.c cfn_record_key": {
        1: "a name of another life comes with the old word of its record: STALE to who uses it; under an intent names stand still",
    },
    "mem/directory.c probe": {1: BROUGHT},
    "mem/directory.c finish": {1: DAMAGE, 2: BROUGHT, 3: LAST, 5: ALONE, 6: FINISH, 7: "the state of the record, loaded next, brings its name"},
    "mem/directory.c cfn_directory_insert": {3: "finish() before it has looked at the intent by acquire", 4: BROUGHT},
    "mem/directory.c cfn_directory_remove": {
        2: BROUGHT, 3: "it goes on with the release of the intent before, and publishes nothing of its own",
        4: "finish() before it has looked at the intent by acquire",
    },
    "mem/directory.c cfn_directory_find": {
        
        3: "what is found wrongly comes with the old word: STALE to who uses it",
    },
    "mem/directory.c cfn_record_claim": {1: SWAPPED, 3: CELL},
    "mem/directory.c cfn_record_publish": {1: OWN, 2: "the intent and OPEN are swapped behind it by seq_cst", 3: ALONE, 4: CELL},
    "mem/heap.c page_free": {1: BROUGHT, 2: BROUGHT},
    "mem/heap.c cfn_heap_page_of": {1: CHOICE},
    "mem/heap.c release_pages": {1: ALONE},
    "mem/heap.c claim_pages": {1: "each page is looked at again, by acquire, before its swap"},
    "mem/heap.c claim_blob": {1: SWAPPED},
    "mem/heap.c cfn_heap_begin": {1: "publishing, and each page's swap behind it, release it"},
    "mem/heap.c cfn_heap_abandon": {1: LATE_STORE},
    "mem/heap.c cfn_heap_hold": {1: NAMED_LAST, 2: ALONE},
    "mem/heap.c cfn_heap_touch": {1: "advice: when it was looked at; by CAS for the codec's sake"},
    "mem/heap.c read_record": {1: "it is compared with a later load of the same word", 3: REPORT, 4: REPORT},
    "mem/heap.c cfn_heap_release_sole": {1: BROUGHT, 2: BROUGHT, 3: SWAPPED, 4: LAST, 5: RELEASED},
    "mem/heap.c free_orphan": {1: BROUGHT, 2: ALONE},
    "mem/heap.c held": {1: ALONE},
    "mem/heap.c look_at_chunks": {1: BROUGHT, 2: BROUGHT, 3: BROUGHT, 4: BROUGHT},
    "mem/heap.c cfn_heap_holders": {3: "who named it cleared its ledger by seq_cst behind that: who sees the cell empty sees the name"},
    "mem/heap.c decide": {1: "who let go of it has released by a swap of its own, and the next owner claims by seq_cst"},
    "mem/heap.c cfn_heap_reap": {1: DEATH, 2: SWAPPED, 3: LAST, 4: ALONE, 5: LAST, 6: ALONE},
    "mem/heap.c cfn_heap_room": {1: REPORT},
    "mem/index.c cfn_index_digest": {1: DIGEST},
    "mem/index.c cfn_index_find": {3: LAST},
    "mem/index.c cfn_index_add": {1: SWAPPED, 2: "the state of the blob, looked at next, was released when it became LIVE"},
    "mem/index.c cfn_index_remove": {1: ROUND},
    "mem/index.c cfn_index_names": {1: "who put the name there cleared its ledger by seq_cst behind that, which a collector saw first"},
    "mem/evict.c weigh": {1: CHOICE},
    "mem/evict.c write_out": {1: EXACT, 2: "only which error is told", 3: ROUND},
    "mem/evict.c evict_one": {1: SWAPPED, 3: ALONE},
    "mem/evict.c why_not": {
        1: "the kernel, which took the file away, orders it: who finds no file sees the word that has changed",
        2: "the kernel, which took the file away, orders it: who finds no file sees the word that has changed",
    },
    "mem/evict.c cfn_recall_copy": {1: DIGEST},
    "mem/evict.c cfn_recall": {1: "only for one that was judged dead alive, whose life byte was lost"},
    "mem/evict.c nobodys": {1: "an old word only leaves a file for the next sweep"},
    "sync/refs.c finish_closing": {1: SWAPPED, 2: BROUGHT, 3: ALONE},
    "sync/refs.c take_back": {1: SWAPPED, 2: SWAPPED, 3: ALONE, 4: REPORT},
    "sync/refs.c cfn_refs_create": {1: SWAPPED, 2: NEW_RECORD, 3: NEW_RECORD},
    "sync/refs.c cfn_refs_load": {2: LAST},
    "sync/refs.c cfn_refs_swap": {2: NOTE},
    "sync/lease.c cfn_lease_take": {1: BEHIND},
    "sync/lease.c cfn_lease_bury": {1: TICK, 2: NOTE, 3: NOTE, 4: NOTE},
    "sync/lease.c refs_used": {1: DEATH},
    "sync/lease.c cfn_lease_reap": {1: DEATH, 2: SWAPPED, 3: LAST},
    "sync/lease.c cfn_lease_give_back_all": {1: OWN},
    "sync/lease.c cfn_lease_past": {1: NOTE, 2: NOTE, 3: NOTE},
    "agent/bus_lease.c edge_of": {2: BROUGHT, 3: BROUGHT},
    "agent/bus_lease.c many_take": {1: THREADS, 2: THREADS},
    "agent/bus_lease.c still_held": {1: "true of the moment before; the token guards what the lease protects"},
    "agent/bus_lease.c cfn_bus_lease_list": {1: REPORT},
    "agent/bus_semaphore.c try_take": {1: BEHIND},
    "agent/bus_barrier.c write_it": {1: BEHIND},
    "agent/bus_object.c hold": {1: EXACT, 2: LAST},
    "agent/bus_object.c cfn_bus_object_delete": {1: ROUND},
    "agent/bus_object.c cfn_bus_object_list": {2: REPORT, 3: REPORT},
    "agent/bus_object.c cfn_bus_heap_info": {1: REPORT},
    "agent/bus_ref.c copy_value": {
        1: "the word is looked at once more at the end", 2: "a time that is told to people",
        3: "the version that it belongs to stands in the same word", 4: LAST,
    },
    "agent/bus_recv.c peek_frame": {1: "the swap before it, which clears the ledger, keeps what was read before it"},
    "msg/inbox.c count_delivery": {1: "the version that it belongs to stands in the same word; it decides nothing"},
    "mem/slab.c cfn_slab_free_hint": {1: "told in an error and by doctor; the census is cfn_slab_scarce's"},
    "mem/slab.c cfn_slab_tell": {1: "not shown, as cfn_slab_scarce: the other half of its pair (argued)"},
    "mem/slab.c cfn_slab_scarce": {1: "not shown: classes of the simulator are too small to be scarce (argued)"},
    "msg/outbox.c over_fair_part": {
        n: "not shown: classes of the simulator are too small to be scarce; who armed looks again by seq_cst (argued)" for n in (1, 2)
    },
    "agent/bus_ref.c still_that": {1: MOMENT},
    "agent/bus_ref.c cfn_life_id_names": {1: REPORT},
    "agent/bus_ref.c cfn_bus_ref_list": {1: "cfn_refs_load looks at it again, last"},
    "agent/registry.c cfn_profile_store": {1: SUM},
    "agent/registry.c cfn_profile_text": {1: SUM, 2: SUM, 3: SUM},
    "agent/registry.c announce": {1: BEHIND},
    "agent/registry.c erase": {1: OWN, 2: OWN, 3: CELL},
    "agent/registry.c fill_record": {1: SWAPPED, 2: NEW_RECORD, 3: SWAPPED, 4: NEW_RECORD},
    "agent/registry.c cfn_registry_take_consumer": {1: SWAPPED, 2: LAST, 3: EXACT},
    "agent/registry.c cfn_registry_give_back_consumer": {1: READER},
    "agent/registry.c cfn_registry_take_owner": {1: SWAPPED, 2: LAST, 3: EXACT},
    "agent/registry.c cfn_registry_give_back_owner": {1: SWAPPED, 2: ALONE},
    "agent/registry.c empty_and_free": {1: READER, 2: "it is only ever raised by swaps, which see the newest"},
    "agent/registry.c cfn_registry_finish_removals": {1: "taking the consumer word looks at it again"},
    "agent/attach.c recycle": {1: BYTE},
    "agent/attach.c join": {1: BYTE, 2: BYTE, 3: BYTE, 4: REPORT},
    "agent/attach.c cfn_attach": {1: BYTE},
    "agent/attach.c cfn_detach": {1: SWAPPED, 2: OWN},
    "agent/reap.c reap_chunk": {1: SWAPPED, 2: DEATH},
    "agent/reap.c reap_hints": {1: DEATH, 2: DEATH, 3: DEATH},
    "agent/reap.c reap_creation": {1: DEATH, 2: SWAPPED, 3: DEATH, 4: ALONE},
    "agent/reap.c reap_hold": {1: SWAPPED, 2: READER, 3: SWAPPED, 4: ALONE},
    "agent/reap.c reap_all_of": {1: DEATH, 2: DEATH, 3: BYTE},
    "agent/reap.c cfn_reap_what_others_wait_for": {1: ALONE, 2: DEATH},
    "agent/reap.c cfn_reap": {1: ALONE},
    "agent/reap.c cfn_recycle": {1: BYTE, 2: BYTE},
    "agent/liveness.c cfn_life_of": {n: "whoever acts on it swaps the exact word that was judged" for n in (1, 2, 3)},
    "agent/liveness.c cfn_life_of_agent": {1: MOMENT, 2: MOMENT, 3: MOMENT, 4: MOMENT},
    "agent/bus.c cfn_bus_close": {1: OWN, 2: THREADS},
    "agent/bus.c cfn_bus_free": {1: THREADS},
    "agent/bus.c entered": {1: "whom others judged dead finds its words swapped, whatever it reads here"},
    "agent/bus.c cfn_bus_hold": {1: THREADS},
    "agent/bus.c cfn_bus_judge": {1: MOMENT},
    "agent/bus.c cfn_bus_spin": {1: THREADS, 2: THREADS},
    "agent/bus.c cfn_bus_sleep": {1: THREADS, 2: THREADS},
    "agent/bus.c cfn_bus_act_as": {1: REPORT},
    "agent/bus.c cfn_bus_unregister": {1: REPORT, 2: REPORT},
    "agent/bus.c cfn_bus_agents": {1: REPORT},
    "agent/bus.c cfn_bus_agents_named": {1: REPORT, 2: REPORT},
    "agent/bus.c cfn_bus_names_version": {1: REPORT},
    "agent/bus_send.c scan_due": {1: "when the dead are looked for: advice"},
    "agent/bus_send.c store_body": {1: "LIVE, behind it, releases it: who finds the body to decide on has seen it"},
    "agent/bus_send.c receipt_state": {1: RECEIPT, 2: RECEIPT, 5: BROUGHT, 6: BROUGHT},
    "agent/bus_send.c cfn_bus_receipt_wait": {1: TICK},
    "agent/bus_recv.c lost_inbox": {1: REPORT},
    "agent/bus_recv.c cfn_bus_consume": {1: "taking the consumer word looks at it again"},
    "agent/bus_recv.c await_senders": {1: COHERENT},
    "agent/bus_recv.c receive": {1: "the remover rings behind REMOVING, and who took a part in it sees it brought along"},
    "agent/bus_recv.c cfn_bus_peek": {1: REPORT},
    "agent/bus_request.c drain_replies": {
        1: OWN, 3: SWAPPED, 4: BROUGHT, 5: CELL, 6: LANE, 7: REPLY, 8: "the head's maximum, a seq_cst swap, stands between it and the ring",
        9: CELL, 10: HEAD, 11: REPLY, 12: HEAD,
    },
    "agent/bus_request.c cfn_bus_replies_there": {1: OWN},
    "agent/bus_request.c cfn_bus_request_wait": {1: OWN, 2: OWN, 3: OWN},
    "agent/bus_loan.c cfn_bus_loan": {1: "LIVE, behind it, releases it: who finds the body to decide on has seen it"},
    "agent/bus_info.c fill_agent": {1: REPORT, 2: REPORT},
    "agent/bus_info.c cfn_bus_agent_info": {1: REPORT},
    "agent/bus_info.c cfn_bus_info": {1: REPORT, 2: REPORT},
    "agent/repair.c nobody_there": {1: DOCTOR},
    "agent/repair.c mark_ring": {1: DOCTOR},
    "agent/repair.c mark_referenced": {1: DOCTOR},
    "agent/repair.c free_leaked": {1: DOCTOR, 2: DOCTOR},
    "agent/repair.c cfn_hint_in_hand": {1: DOCTOR, 2: DOCTOR},
}  # fmt: skip
CHECKER = "the checker changes nothing, and reports only what stays as it is over several looks"
EXPLAINED |= {f"{place} order {n}": reason for place, reasons in ORDERS.items() for n, reason in reasons.items()}


NOT_REACHED = "needed against one who sleeps just between its look and this swap; no scenario reached that"
TICK_COVERS = "who waits for it looks at its tick, which covers it"
LISTED = "who waits looks at its tick whether those that are listed still live"

EXPLAINED |= {
    "mem/region.c table_enter store 1": THREADS,
    "mem/region.c table_enter no check 1": THREADS,
    "mem/region.c table_enter no store 1": THREADS,
    "mem/region.c cfn_region_open store 1": "nothing but RETIRED is ever put there",
    "mem/region.c cfn_region_destroy store 1": "nothing but RETIRED is ever put there",
    "msg/ring.c retire_slot store 2": NOT_REACHED + " (two retirers: csrc/models/remove.pml)",
    "msg/ring.c retire_slot store 3": NOT_REACHED + " (two retirers: csrc/models/remove.pml)",
    "msg/inbox.c cfn_inbox_ack no wake 3": "a part acked by one that was stolen from: " + TICK_COVERS,
    "mem/directory.c cfn_record_publish store 1": "FAIL names its living creator, and nobody else changes it",
    "mem/heap.c cfn_heap_hold store 1": NOT_REACHED,
    "mem/heap.c cfn_heap_touch store 1": "who touches it holds it: no other life of the record can come between",
    "mem/heap.c cfn_heap_look_spilled no check 1": "who uses it moves or loads the exact word of the index behind it",
    "mem/heap.c cfn_heap_look no check 1": "the same is looked at again, last",
    "mem/heap.c cfn_heap_look no check 2": "the word that names it is looked at once more behind it",
    "mem/heap.c cfn_heap_release_sole store 1": "only a collector touches the body of one message beside it, and finds it held by nobody",
    "mem/heap.c cfn_heap_release_sole no store 1": ADVICE,
    "mem/heap.c cfn_heap_drop_spilled no check 1": "whoever has won removes that very file, whose name carries the version",
    "mem/heap.c look_at_chunks no check 1": "only speed: no message has had a body elsewhere",
    "mem/heap.c cfn_heap_reap store 2": NOT_REACHED,
    "mem/heap.c cfn_heap_reap no check 1": NOT_REACHED,
    "mem/evict.c evict_one store 1": NOT_REACHED,
    "mem/evict.c evict_one store 2": "who rescues it makes the same word of it",
    "mem/evict.c evict_one no store 1": ADVICE,
    "sync/refs.c finish_closing no wake 1": "a name without a value that loses its record: " + TICK_COVERS,
    "sync/refs.c finish_closing no wake 2": "a name without a value that loses its record: " + TICK_COVERS,
    "sync/refs.c take_back store 1": NOT_REACHED,
    "sync/refs.c cfn_refs_create store 1": "nobody swaps the word of a record without a name: it is CLOSED, or never was used",
    "sync/refs.c cfn_refs_swap falls 1": NOTE,
    "sync/refs.c cfn_refs_swap no store 1": "advice: when it was changed",
    "sync/lease.c ring no wake 2": "who looks at holders alone: " + TICK_COVERS,
    "sync/lease.c cfn_lease_give_back no check 1": "a ring more, and OK for LOST to one who has just lost it",
    "sync/lease.c cfn_lease_bury falls 1": NOTE,
    "sync/lease.c cfn_lease_bury falls 2": NOTE,
    "sync/lease.c cfn_lease_bury falls 3": NOTE,
    "sync/lease.c cfn_lease_bury store 1": NOT_REACHED,
    "sync/lease.c cfn_lease_reap no check 1": "only speed: it had no leases",
    "sync/lease.c cfn_lease_give_back_all no check 1": "only speed: it had no leases",
    "agent/bus_lease.c many_take store 1": THREADS,
    "agent/bus_lease.c take_or_sleep no store 1": "the next wait says anew what for; until then a circle is looked for in vain",
    "agent/bus_semaphore.c try_take no store 1": LISTED,
    "agent/bus_barrier.c write_it no store 1": LISTED,
    "agent/bus_object.c cfn_bus_object_list no check 2": REPORT,
    "agent/attach.c join no store 14": "only speed: a reaper looks for leases in vain",
    "agent/reap.c reap_all_of no wake 3": TICK_COVERS,
    "agent/reap.c cfn_reap_what_others_wait_for store 1": "the same step as in cfn_reap, where it is found; here only while all slots are taken",
    "agent/reap.c cfn_reap_what_others_wait_for no check 1": "each step behind it looks at the authority itself",
    "agent/bus.c cfn_bus_close no wake 3": "threads that sleep in the handle: " + TICK_COVERS,
    "agent/bus.c cfn_bus_close no wake 4": "threads that sleep in the handle: " + TICK_COVERS,
    "agent/bus.c cfn_bus_close no wake 5": "threads that sleep in the handle: " + TICK_COVERS,
    "agent/bus.c cfn_bus_destroy no wake 7": TICK_COVERS,
    "agent/bus.c cfn_bus_destroy no wake 8": TICK_COVERS,
    "agent/bus.c cfn_bus_destroy no wake 9": TICK_COVERS,
    "agent/bus.c say_what_for no store 1": REPORT,
    "agent/bus.c say_what_for no store 2": REPORT,
    "agent/bus.c say_what_for no store 3": REPORT,
    "agent/bus.c cfn_bus_agents_named no check 1": REPORT,
    "agent/bus_send.c scan_due store 1": "when the dead are looked for: advice",
    "agent/bus_recv.c cfn_bus_rest_fifo no wake 1": "for who sleeps in poll(), which nobody does here: Python's tests do",
    "agent/bus_recv.c cfn_bus_rest_fifo no wake 2": "for who sleeps in poll(), which nobody does here: Python's tests do",
    "agent/bus_info.c owner_waits no check 1": REPORT,
    "agent/repair.c free_leaked no check 1": DOCTOR,
    "agent/repair.c cfn_hint_in_hand no check 1": ADVICE,
}  # fmt: skip


def why(name: str) -> str:
    """Why that mutant survives; "" if nobody can say."""
    return EXPLAINED.get(name) or (CHECKER if name.startswith("agent/check.c ") else "")
