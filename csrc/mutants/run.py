#!/usr/bin/env python3
"""Breaks the core on purpose, one place at a time, and shows which check goes red.

    run.py --list                    all mutants
    run.py --named                   those chosen by hand (named.py), in the scenarios named with them
    run.py --made                    those made by rule (made.py)
    run.py --only TEXT               of either, those whose name contains TEXT

Each mutant is built in a copy and run against the checks of `make test`, the cheap ones first, until one goes
red; what concerns one operation is done by cfnsim at run time first (--weaken); of weakened orders, which need no build
at all, two run at a time. --table FILE keeps the table: rows of other mutants in it stay, and with --resume mutants that
have a row are passed over (--resume=survivors: those that were found or are explained; --resume=found: those that were
found). Exit status 1 if a mutant survives that
explained.py has no reason for. The table is committed as csrc/mutants/table.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from explained import why
from made import INSTEAD, Made, mutants
from named import NAMED, WEAK, Mutant

CSRC = Path(__file__).resolve().parent.parent
# The scenarios of cfnsim in which a file's mutants show; all of them for the others.
SCENARIOS = {
    "mem/slab": "scarce*,send*,read-killed,full*,life*,corpse*", "sync/event": "event,send*,full*,request*",
    "msg/ring": "corpse-replies,remove*,request*,life*,send*", "msg/inbox": "receipt*,again*,steal*,frame*,full*,read-killed,heirs*,remove-read*,peek",
    "msg/outbox": "send*,full*", "msg/envelope": "frame*,steal*", "mem/directory": "names*,remove-reuse*,value-names*",
    "agent/registry": "remove*,owners*,heirs*,names*,profile,steal*", "agent/attach": "life*,request-life*,owners*",
    "agent/reap": "corpse*,life*,names-killed,request-life*", "agent/liveness": "life*,heirs*,owners*",
    "agent/bus_send": "receipt*,scarce*,full*,send*,request*", "agent/bus_recv": "steal*,full*,heirs*,remove-read*,send*",
    "agent/bus_request": "request*", "mem/heap": "heap*,value*,object*,spill*,recall*", "mem/index": "heap-index,object*,recall*",
    "mem/evict": "spill*,recall*", "sync/refs": "value*",
    "agent/bus_ref": "value*,barrier*", "agent/bus_object": "object*,recall*,spill*", "sync/lease": "lock*,circle*",
    "agent/bus_lease": "lock*,circle*", "agent/bus_semaphore": "permits*", "agent/bus_barrier": "barrier*",
}
# Where a weakened order of a function shows; the other scenarios follow.
CLOSER = {
    "msg/inbox.c cfn_inbox_hand_out": "again", "mem/heap.c cfn_heap_holders": "heap-attach", "mem/evict.c evict_one": "spill-two",
    "mem/directory.c cfn_directory_help": "names-reaped",
    "mem/directory.c cfn_directory_find": "names-wait,value-wait,remove-reuse-find",
    "mem/heap.c cfn_heap_copy_few": "value-few", "mem/heap.c read_record": "value-few,value-pages",
    "mem/heap.c cfn_heap_hold": "heap-rescue,heap-collectors", "mem/heap.c cfn_heap_reap": "heap-corpse,heap-corpse-killed",
    "mem/evict.c write_out": "spill", "mem/heap.c cfn_heap_look": "value-few", "mem/heap.c mark_batch": "heap-collectors",
    "msg/envelope.h cfn_frame_acked": "frame-first", "msg/inbox.c cfn_lane_peek": "peek,scarce-peek",
    "msg/ring.c retire_slot": "remove-acked-killed", "msg/ring.c cfn_ring_publish": "full-two",
}
QUICK = [
    "test_spill", "test_loan", "test_large", "test_lease", "test_barrier", "test_context", "test_arguments",
    "test_wakeups", "test_records", "test_messages", "test_parcels", "test_states", "test_mended", "test_attach", "test_threads",
    "test_hostile", "test_liveness", "test_syscalls", "test_frame_stolen",
    "test_meddled_values", "test_meddled_messages", "test_meddled_agents", "test_meddled_objects", "test_meddled_locks", "test_meddled_requests",
    "test_meddled_check", "test_meddled_cut",
    "test_refused_files", "test_refused_buses", "test_refused_lives",
]  # fmt: skip
SLOW = [["test_step_pairs", "--seconds", "16"], ["test_step", "--seconds", "45"], ["test_step_life", "--seconds", "30"],
        ["test_step_sync", "--seconds", "20"], ["test_step_spill", "--seconds", "20"]]


NOBODY = "no scenario does it"


def build(work: Path, targets: list[str]) -> str:
    out = work / "build"
    done = subprocess.run(
        ["make", "-s", "-j2", "-C", work / "csrc", f"OUT={out}", "OPT=-O1", "LTO=", "CFLAGS=-w",
         *(str(out / name) for name in targets)],
        capture_output=True, text=True,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


def fails(command: list[object], limit: float) -> str:
    """What a check said when it went red, or ""."""
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return "does not end"
    if done.returncode in (0, 77):
        return ""
    told = done.stderr + done.stdout
    if not os.path.isdir(os.environ["CFNSHM_DIR"]):  # nothing could be made there: that says nothing of the mutant
        sys.exit(f"{os.environ['CFNSHM_DIR']} is gone; the last row is not kept")
    for pattern in (r"failed at point \d+: (.*)", r"(?:failed: |\] )(.*(?:is|failed).*)", r"ended by (signal \d+)"):
        if found := re.search(pattern, told):
            return re.sub(r"^sim/\S+\.c:\d+: ", "", found[1].strip())  # lines move
    return f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"


def red_named(work: Path, mutant: Mutant, seconds: float) -> str:
    for scenario in mutant.scenarios.split():
        command = [work / "build" / "cfnsim", "--scenario", scenario, "--seconds", seconds]
        if told := fails(command, 10 * seconds + 60):
            return f"cfnsim {scenario}: {told}"
    for name in mutant.tests.split():
        if told := fails([work / "build" / name], 60):
            return f"{name}: {told}"
    return ""


def red_made(work: Path, mutant: Made, quick: list[str], seconds: float, slow: bool) -> str:
    scenarios = [o for s in [SCENARIOS.get(mutant.file.rpartition(".")[0])] if s for o in ("--scenario", s)]
    for name in quick:
        if told := fails([work / "build" / name], 60):
            return f"{name}: {told}"
    if not mutant.place and (told := fails([work / "build" / "cfnsim", *scenarios, "--seconds", seconds], 10 * seconds + 60)):
        return f"cfnsim: {told}"
    if slow and not build(work, [command[0] for command in SLOW]):
        for command in SLOW:
            if told := fails([work / "build" / command[0], *command[1:]], 400):
                return f"{command[0]}: {told}"
    return ""


def red_in_place(work: Path, mutant: Made, seconds: float) -> str:
    """One operation, changed at run time. (Of orders the processor here shows nothing: it does not reorder enough.)"""
    command = [work / "cfnsim", "--weaken", mutant.place, *(["--instead", i] if (i := INSTEAD[mutant.rule]) else [])]
    closer = CLOSER.get(f"{mutant.file} {mutant.function}")
    told = fails([*command, "--seconds", 8 * seconds, "--scenario", closer], 80 * seconds + 200) if closer else ""
    if told in ("", "exit status 3"):
        told = fails([*command, "--seconds", seconds], 10 * seconds + 200)
    if told == "exit status 3":
        return NOBODY
    return f"cfnsim{' --weak' * mutant.weak}: {told}" if told else ""


def changed(mutant: Mutant | Made, text: str) -> str:
    if isinstance(mutant, Made):
        return text[: mutant.start] + mutant.new + text[mutant.end :]
    if text.count(mutant.old) != 1:
        sys.exit(f"{mutant.name}: {mutant.file} has its text {text.count(mutant.old)} times; look at it again")
    return text.replace(mutant.old, mutant.new)


# ---- the table ----

def what(mutant: Mutant | Made) -> str:
    return f"`{mutant.old[:90]}`".replace("|", "\\|") if isinstance(mutant, Made) else mutant.file


def load(path: Path) -> dict[str, tuple[str, str]]:
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[0] not in ("mutant", "---"):
            rows[cells[0]] = (cells[1], cells[2])
    return rows


def save(path: Path, rows: dict[str, tuple[str, str]], order: list[Mutant | Made]) -> None:
    names = [m.name for m in order if m.name in rows]
    found = [n for n in names if not rows[n][1].startswith(("survives", "SURVIVES"))]
    rules = Counter(m.rule for m in order if isinstance(m, Made) and m.name in rows)
    red = Counter(m.rule for m in order if isinstance(m, Made) and m.name in found)
    lines = [
        "# Mutants of the core, and what goes red", "",
        "Made by `python3 csrc/mutants/run.py --table csrc/mutants/table.md`. `store`: a compare-and-set that is a "
        "plain store; `falls`: a cursor that may fall; `no check`: a re-check passed over; `no store`, `no wake`, `no "
        "mark`: left out; `order`: relaxed, which only the simulator's weak memory shows. Survivors say why, or "
        "SURVIVES.", "",
        f"{len(names)} mutants, {len(found)} found: "
        + ", ".join(f"{rule} {red[rule]} of {n}" for rule, n in sorted(rules.items()))
        + f"; by hand {sum(n in found for n in (m.name for m in order if isinstance(m, Mutant)))} of "
        f"{sum(isinstance(m, Mutant) and m.name in rows for m in order)}. "
        f"{sum(rows[n][1].startswith('survives') for n in names)} survive with a reason, "
        f"{sum(rows[n][1].startswith('SURVIVES') for n in names)} without one.", "",
        "| mutant | what | red |", "|---|---|---|",
        *(f"| {n} | {rows[n][0]} | {rows[n][1]} |" for n in names),
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print all and run none")
    parser.add_argument("--named", action="store_true", help="only those chosen by hand")
    parser.add_argument("--made", action="store_true", help="only those made by rule")
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--skip", default="", help="not those whose name contains this")
    parser.add_argument("--seconds", type=float, default=20, help="of cfnsim for each mutant or scenario (default 20)")
    parser.add_argument("--rule", default="", help="only those made by this rule: order, store, 'no check', ...")
    parser.add_argument("--jobs", type=int, default=2, help="weakened orders at a time (default 2)")
    parser.add_argument("--tests", default="", metavar="A,B", help="only these of the quick C tests (or none), beside cfnsim")
    parser.add_argument("--slow", action="store_true", help="survivors are single-stepped, too")
    parser.add_argument("--table", type=Path, metavar="FILE", help="keep the table there")
    parser.add_argument("--resume", nargs="?", const="all", choices=["all", "survivors", "found"], help="pass over known rows")
    arguments = parser.parse_args()
    everything: list[Mutant | Made] = [*NAMED, *WEAK, *mutants(CSRC)]
    chosen = [
        m for m in everything
        if arguments.only in m.name and not (arguments.skip and arguments.skip in m.name)
        and not (arguments.rule and getattr(m, "rule", "") != arguments.rule)
        and not (arguments.named and isinstance(m, Made)) and not (arguments.made and isinstance(m, Mutant))
    ]  # fmt: skip
    if arguments.list:
        for m in chosen:
            print(f"{m.name:60} {m.file}:{m.line}  {m.old[:70]}" if isinstance(m, Made) else m.name)
        print(f"{len(chosen)} mutants")
        return 0
    rows = load(arguments.table) if arguments.table else {}
    names = {m.name for m in everything}
    rows = {n: row for n, row in rows.items() if n in names}
    for name in rows:
        if rows[name][1].lower().startswith("survives") and (reason := why(name)):
            rows[name] = (rows[name][0], f"survives: {reason}")
    quick = QUICK if not arguments.tests else [t for t in arguments.tests.split(",") if t != "none"]
    ran = bad = 0
    orders: list[Made] = []

    def keep(mutant: Mutant | Made, found: str, seconds: float) -> bool:
        """Its row; true if it survived and nobody can say why."""
        reason = mutant.survives if isinstance(mutant, Mutant) else why(mutant.name)
        survived = found in ("", NOBODY)
        if survived:
            found = f"survives: {reason}" if reason else f"SURVIVES: {found}".rstrip(": ")
        rows[mutant.name] = (what(mutant), found.replace("|", "\\|")[:160])
        print(f"{mutant.name:60} {found[:110]}  ({seconds:.0f} s)", flush=True)
        if arguments.table:
            save(arguments.table, rows, everything)
        return survived and not reason

    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=shm) as buses:
        os.environ["CFNSHM_DIR"] = buses  # what a killed check leaves goes with it
        work = Path(folder)
        shutil.copytree(CSRC, work / "csrc")
        targets = ["cfnsim", *(quick if any(isinstance(m, Made) and not m.weak for m in chosen) else [])]
        if problem := build(work, targets):
            sys.exit(problem)
        shutil.copy2(work / "build" / "cfnsim", work / "cfnsim")  # stays as it is
        for mutant in chosen:
            known = rows.get(mutant.name, ("", ""))[1]
            if known and arguments.resume == "all":
                continue
            if known and arguments.resume == "survivors" and not known.startswith("SURVIVES"):
                continue
            if known and arguments.resume == "found" and not known.lower().startswith("survives"):
                continue
            if isinstance(mutant, Made) and mutant.weak:
                orders.append(mutant)
                continue
            begun = time.monotonic()
            found = red_in_place(work, mutant, arguments.seconds) if isinstance(mutant, Made) and mutant.place else ""
            if found not in ("", NOBODY):
                ran += 1
                keep(mutant, found, time.monotonic() - begun)
                continue
            path = work / "csrc" / mutant.file
            text = path.read_text()
            path.write_text(changed(mutant, text))
            wanted = ["cfnsim", *mutant.tests.split()] if isinstance(mutant, Mutant) else targets
            if problem := build(work, ["cfnsim"] if getattr(mutant, "weak", False) else wanted):
                found = f"does not build: {problem.strip().splitlines()[0][:80]}"
            elif isinstance(mutant, Made):
                found = red_made(work, mutant, quick, arguments.seconds, arguments.slow)
            else:
                found = red_named(work, mutant, arguments.seconds)
            path.write_text(text)
            ran += 1
            bad += keep(mutant, found, time.monotonic() - begun)

        def one(mutant: Made) -> tuple[Made, str, float]:
            begun = time.monotonic()
            return mutant, red_in_place(work, mutant, arguments.seconds), time.monotonic() - begun

        with ThreadPoolExecutor(arguments.jobs) as pool:
            for done in pool.map(one, orders):
                ran += 1
                bad += keep(*done)
    print(f"{ran} mutants, {bad} survive without a reason")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
