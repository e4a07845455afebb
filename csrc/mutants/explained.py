"""Why some of the mutants made by rule change nothing that a check could see: {name: reason}."""

from __future__ import annotations

LINES = "two lines of defence, the agreed lap and the authority: csrc/models/remove.pml, reply.pml"
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
    "msg/inbox.c move_head falls 1": "the head is where a search begins; the laps of the slots say where it goes on",
    "msg/inbox.c move_head falls 2": "the head is where a search begins; the laps of the slots say where it goes on",
    "msg/inbox.c move_head no check 1": "only for a word that is damage already",
    "msg/inbox.c hand_out no check 1": "the same look is taken again after the copy (bus_recv.c), and is a mutant itself",
    "msg/inbox.c take no check 4": "what is leased without its word is found not to be ours after the copy",
    "msg/outbox.c cfn_outbox_post no check 2": "publishing finds the lane full, too; it costs a chunk meanwhile",
    "agent/directory.c finish store 1": "only for an intent that is damage already",
    "agent/directory.c cfn_directory_find no check 1": "what is found wrongly comes with the old word: STALE to who uses it",
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
}
