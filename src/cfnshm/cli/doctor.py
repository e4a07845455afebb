"""`cfnshm doctor`: is this bus sound, who is dead, what is leaked, what is stuck and on what; and what can be
mended."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import errors
from .._core import check, ffi, lib
from ..agents import AgentInfo
from ..bus import Bus

LONG_S = 5  # a wait that somebody should know of


MOST_LINES = 12  # of one kind; --json has them all


def run(arguments: argparse.Namespace) -> int:
    if arguments.remove:
        if arguments.repair or arguments.positional:
            raise errors.InvalidArgument("--remove names the one bus to remove, and goes with nothing else")
        return remove(arguments.remove, arguments.dir, arguments.json)
    arguments.bus = arguments.positional or arguments.bus
    try:
        report = examine(arguments.bus, arguments.dir, arguments.repair)
    except (errors.Corrupt, errors.VersionMismatch) as error:
        report = unreadable(arguments.bus, arguments.dir, error)
    if arguments.json:
        print(json.dumps(report))
    else:
        _print(report)
    return 0 if report["sound"] else 8


def examine(name: str, directory: str | None, repair: bool) -> dict[str, Any]:
    """What is found in a bus that can be opened, after the repair if one is wanted."""
    with Bus(name, agent="", create=False, directory=directory) as bus:
        repaired = bus.repair() if repair else None
        findings = bus.check()
        info = bus.info()
        agents = list(bus.agents())
        heap = bus.context.info()
        findings += [
            ("error", f"the bytes of object {ref} were changed: cfnshm delete {ref}, and put it again")
            for ref in bus.context.verify()
        ]
        objects, values = len(bus.context), len(bus.state)
        report: dict[str, Any] = {
            "bus": info["name"], "path": info["path"],
            "errors": [text for severity, text in findings if severity == "error"],
            "warnings": [text for severity, text in findings if severity != "error"],
            "dead": _dead(agents), "stuck": _stuck(agents, time.time()) + _held(bus, agents, time.time()),
            "repaired": repaired, "removed": False,
            "agents": len(agents), "agents_capacity": info["agents_capacity"],
            "attached": info["attached"] - 1, "bytes": info["bytes"], "counters": info["counters"],
            "chunks": {str(size): [total - info["chunks_free"][size], total]
                       for size, total in info["chunks"].items() if total},
            "objects": objects, "values": values, "heap_used": heap.used, "heap_bytes": heap.size,
            "saved": round(heap.saved, 4), "spilled": heap.spilled, "spilled_bytes": heap.spilled_size,
            "spill": heap.spill,
        }  # fmt: skip
        report["sound"] = not report["errors"]
        everybody_died = bool(agents) and all(agent.life == "dead" for agent in agents)
        empty = not report["attached"] and not any(agent.unread for agent in agents)
        empty = empty and not objects and not values
        if repair and report["sound"] and everybody_died and empty:  # what is damaged may hold more than it shows
            try:
                bus.destroy_idle()
                report["removed"] = True
            except errors.AgentBusy:  # somebody came meanwhile
                pass
    return report


def unreadable(name: str, directory: str | None, error: errors.Error) -> dict[str, Any]:
    """What can be said of a bus that cannot be opened."""
    holder = in_use(name, directory)
    if holder is not None:
        text = f"process {holder or 'of another container'} has it open; end it first"
    else:
        text = f"no living process has it open; cfnshm doctor --remove {name} removes it"
    return {
        "bus": name, "errors": [str(error), text], "warnings": [], "dead": [], "stuck": [], "repaired": None,
        "removed": False, "sound": False, "code": error.code,
    }  # fmt: skip


def in_use(name: str, directory: str | None) -> int | None:
    """The pid of a living process that has the bus open (0: one of another pid namespace), or None. The bus need
    not be readable."""
    pid = ffi.new("uint64_t *")
    path = directory.encode() if directory else ffi.NULL
    return int(pid[0]) if check(lib.cfn_bus_in_use(path, name.encode(), pid)) else None


def remove(name: str, directory: str | None, as_json: bool) -> int:
    """Removes a bus, readable or not, with all that is in it.

    Raises:
        errors.AgentBusy: a living process has it open.
        errors.NoBus: there is none.
    """
    unread = objects = values = 0
    try:
        with Bus(name, agent="", create=False, directory=directory) as bus:
            unread = sum(agent.unread for agent in bus.agents())
            objects, values = len(bus.context), len(bus.state)
    except errors.Error:  # it cannot be read: what was in it is not known
        pass
    path = directory.encode() if directory else ffi.NULL
    check(lib.cfn_bus_remove(path, name.encode(), ffi.new("uint64_t *")))
    if as_json:
        print(json.dumps({"bus": name, "removed": True, "unread": unread, "objects": objects, "values": values}))
    else:
        held = ((unread, "unread message"), (objects, "object"), (values, "value"))
        said = ", ".join(_count(n, what) for n, what in held if n)
        print(f"removed bus '{name}'" + (f" with {said}" if said else ""))
    return 0


# ---- in words ----


def _count(n: int, thing: str) -> str:
    many = "es" if thing.endswith("s") else "s"
    return f"{n} {thing}{'' if n == 1 else many}"


def _dead(agents: Sequence[AgentInfo]) -> list[str]:
    found = []
    for a in agents:
        reader_died = a.life != "alive" and a.reader_pid and not a.owner_pid
        if a.life == "dead" or reader_died:
            waiting = f", and {_count(a.unread, 'unread message')} wait for a successor" if a.unread else ""
            found.append(
                f"agent '{a.name}' is dead (process {a.owner_pid or a.reader_pid or 'unknown'}){waiting}: start it "
                "again under the same name, or cfnshm unregister it"
            )
        elif a.life == "none" and a.unread and any(a.depth[lane] >= a.capacity[lane] for lane in a.depth):
            found.append(f"agent '{a.name}' has a full inbox ({_count(a.unread, 'message')}), and no process reads it")
    return found


def _state(pid: int | None) -> str:
    """The one letter of a process's state, or "" if it cannot be seen from here."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _stuck(agents: Sequence[AgentInfo], now: float) -> list[str]:
    by_name = {a.name: a for a in agents if a.life == "alive"}
    found = []
    for a in agents:
        pid = next((p for p in (a.owner_pid, a.reader_pid) if p and _state(p) in ("T", "t")), 0)
        if a.life == "alive" and pid:
            found.append(
                f"agent '{a.name}' is stopped (process {pid}), {a.unread} unread; kill -CONT {pid} lets it go on"
            )
    for a in by_name.values():
        since = now - a.waiting_since
        if a.waiting in ("space", "chunks", "reply", "receipt", "lock", "permit", "barrier") and since > LONG_S:
            on = next((b for b in agents if b.name == a.waiting_for), None)
            why = {"dead": ", which is dead", "none": ", which no process has"}.get(on.life if on else "", "")
            found.append(
                f"agent '{a.name}' (process {a.owner_pid or a.reader_pid}) has waited {since:.0f} s for {_what(a)}{why}"
            )
    return found + _circles(by_name) + _no_room(agents)


def _no_room(agents: Sequence[AgentInfo]) -> list[str]:
    """Agents that wait for the bus itself to have room, and whose inboxes have what fills it."""
    waiters = [a for a in agents if a.life == "alive" and a.waiting == "chunks"]
    if not waiters:
        return []
    full = sorted((a for a in agents if a.unread), key=lambda a: a.unread, reverse=True)
    who = ", ".join(f"'{a.name}' {a.unread}" for a in full[:3]) + (", ..." if len(full) > 3 else "")
    text = f"{_count(len(waiters), 'agent')} wait for room on the bus, which is full of unread messages ({who})"
    blocked = [a for a in full if a.life == "alive" and a.waiting in ("chunks", "space")]
    if blocked:
        share = sum(a.unread for a in blocked)
        text += (
            f"; {_count(share, 'message')} of these are for {_count(len(blocked), 'agent')} that send and do not "
            "receive until there is room: give send() a timeout and receive in between, or make the bus larger"
        )
    return [text]


def _held(bus: Bus, agents: Sequence[AgentInfo], now: float) -> list[str]:
    """Locks and leaderships that others wait for and that are not about to be given back."""
    waited_for = {a.waiting_for for a in agents if a.waiting == "lock"}
    found = []
    for what, holders in (("lock", bus.locks()), ("leadership", bus.leaders())):
        verb = "lock" if what == "lock" else "elect"
        for holder in holders:
            who = f"{what} '{holder.name}' is held by {holder}"
            if holder.state == "stopped":
                found.append(f"{who}, for {now - holder.since:.0f} s; kill -CONT {holder.pid} lets it go on, and "
                             f"cfnshm {verb} '{holder.name}' --steal -- COMMAND takes it away")  # fmt: skip
            elif holder.state == "alive" and holder.name in waited_for and now - holder.since > LONG_S:
                found.append(f"{who}, for {now - holder.since:.0f} s, and others wait for it")
    return found


def _circles(by_name: dict[str, AgentInfo]) -> list[str]:
    """Agents that wait for each other in a ring: nothing but a timeout ends that."""
    found, seen = [], set[str]()
    for start in by_name:
        way: list[str] = []
        name: str | None = start
        while name is not None and name not in way and name not in seen and name in by_name:
            way.append(name)
            agent = by_name[name]
            name = agent.waiting_for if agent.waiting in ("space", "reply", "receipt") else None
        if name in way:
            ring = way[way.index(name) :]
            found.append("a circle: " + ", ".join(f"'{one}' waits for {_what(by_name[one])}" for one in ring)
                         + "; only their timeouts, or the end of one of them, can end that")  # fmt: skip
        seen.update(way)
    return found


def _what(agent: AgentInfo) -> str:
    target = f"'{agent.waiting_for}'"
    return {
        "space": f"room in the full inbox of {target}",
        "chunks": "a free chunk: the bus is full of unread messages",
        "reply": f"the answer of {target}",
        "receipt": f"{target} to read or ack",
        "lock": f"the lock or leadership {target}",
        "permit": f"a permit of the semaphore {target}",
        "barrier": f"others at the barrier {target}",
    }[agent.waiting]


def _print(report: dict[str, Any]) -> None:
    if "bytes" in report:
        print(
            f"bus '{report['bus']}' at {report['path']}: {report['bytes'] / 2**20:.1f} MiB, "
            f"{_count(report['agents'], 'agent')} of {report['agents_capacity']}, "
            f"{_count(report['attached'], 'handle')} of living processes attached"
        )
        full = [f"{size} B {used}/{total}" for size, (used, total) in report["chunks"].items()]
        print("chunks in use: " + ", ".join(full))
        print(
            f"heap: {_count(report['objects'], 'object')} and {_count(report['values'], 'value')} in "
            f"{report['heap_used'] / 2**20:.1f} of {report['heap_bytes'] / 2**20:.1f} MiB; "
            f"{100 * report['saved']:.0f} % of what was put was there already"
        )
        if report["spilled"]:
            print(
                f"on disk: {_count(report['spilled'], 'object')}, {report['spilled_bytes'] / 2**20:.1f} MiB in "
                f"{report['spill']}"
            )
    for kind in ("errors", "dead", "stuck", "warnings"):
        label = "ERROR" if kind == "errors" else kind.rstrip("s")
        for text in report[kind][:MOST_LINES]:
            print(f"{label:8} {text}")
        if len(report[kind]) > MOST_LINES:
            print(f"{label:8} ... and {len(report[kind]) - MOST_LINES} more; --json has them all")
    done = report["repaired"]
    if done:
        _print_repair(done)
    elif any("not recycled" in text for text in report["warnings"]):
        print("cfnshm doctor --repair recycles what the dead left (the next shortage does it by itself)")
    if report["removed"]:
        print("removed the bus: all of its agents had died, and it held nothing")
    elif done and report["errors"]:
        print(f"what is left cannot be mended under its agents: end them, then cfnshm doctor --remove {report['bus']}")
    print("sound" if report["sound"] else "DAMAGED: see ERROR lines")


def _print_repair(done: dict[str, int]) -> None:
    said = [
        f"recycled what {_count(done['reaped'], 'dead process')} left" if done["reaped"] else "",
        f"freed {_count(done['chunks_freed'], 'chunk')} that no one held" if done["chunks_freed"] else "",
        f"made {_count(done['hints_mended'], 'free chunk')} findable again" if done["hints_mended"] else "",
        f"removed {_count(done['files_removed'], 'file')} of objects that are no more" if done["files_removed"] else "",
        f"left {_count(done['unproven'], 'chunk')} alone that may be somebody's" if done["unproven"] else "",
    ]
    print("; ".join(text for text in said if text) or "nothing to repair")
