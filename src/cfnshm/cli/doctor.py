"""`cfnshm doctor`: is this bus sound, who is dead, what is stuck and on what."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from ..bus import Bus


def run(arguments: argparse.Namespace) -> int:
    with Bus(arguments.bus, agent="", create=False, directory=arguments.dir) as bus:
        reaped = bus.reap() if arguments.reap else 0
        findings = bus.check()
        info = bus.info()
        agents = bus.agents()
    now = time.time()
    stuck = [
        f"agent '{a.name}' (process {a.owner_pid or a.reader_pid}) has waited {now - a.waiting_since:.0f} s "
        f"for {_what(a.waiting)}"
        for a in agents
        if a.waiting in ("space", "chunks") and now - a.waiting_since > 5
    ]
    dead = [
        f"agent '{a.name}' is dead (process {a.owner_pid or 'unknown'}), {a.unread} unread messages wait "
        "for a successor"
        for a in agents
        if a.life == "dead"
    ]
    broken = [text for severity, text in findings if severity == "error"]
    warnings = [text for severity, text in findings if severity != "error"]
    report: dict[str, Any] = {
        "bus": info["name"], "path": info["path"], "sound": not broken, "errors": broken,
        "warnings": warnings, "dead": dead, "stuck": stuck, "reaped": reaped,
        "agents": len(agents), "attached": info["attached"] - 1, "bytes": info["bytes"],
        "counters": info["counters"],
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(report))
    else:
        _print(report, info)
    return 8 if broken else 0


def _what(waiting: str) -> str:
    return {
        "space": "room in a full inbox",
        "chunks": "a free chunk: the bus is full of unread messages",
    }.get(waiting, waiting)


def _print(report: dict[str, Any], info: dict[str, Any]) -> None:
    print(
        f"bus '{report['bus']}' at {report['path']}: {report['bytes'] / 2**20:.1f} MiB, "
        f"{report['agents']} agents of {info['agents_capacity']}, {report['attached']} processes attached"
    )
    full = [
        f"{size} B {total - info['chunks_free'][size]}/{total}"
        for size, total in info["chunks"].items()
        if total
    ]
    print("chunks in use: " + ", ".join(full))
    for text in report["errors"]:
        print(f"ERROR    {text}")
    for kind in ("dead", "stuck", "warnings"):
        for text in report[kind]:
            print(f"{kind.rstrip('s'):8} {text}")
    if report["reaped"]:
        print(f"recycled what {report['reaped']} dead processes left")
    elif any("not recycled" in text for text in report["warnings"]):
        print("cfnshm doctor --reap recycles what the dead left (the next shortage does it by itself)")
    print("sound" if report["sound"] else "DAMAGED: see ERROR lines")
