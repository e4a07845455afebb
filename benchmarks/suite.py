"""Which workloads there are, and the runs of one of them: peers alternate, repeat after repeat."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import limits
from .machine import quiet
from .peers import ALL, BY_NAME, CASTING

RUN_SECONDS = 30  # of one run, at most
MAX_COUNT = {64: 4_000_000, 1024: 1_000_000, 16384: 200_000, 65536: 100_000, 1 << 20: 10_000}


@dataclass
class Workload:
    """`figures` are the fields of a run's result that are reported: (field, title, unit, scale, more is better)."""

    key: str
    title: str
    wish: dict[str, Any]
    figures: list[tuple[str, str, str, float, bool]]
    forms: tuple[str, ...] = ("call",)
    first: int = 2000  # messages (or rounds) of the trial run
    seconds: float = 0.5  # of a run
    only: tuple[str, ...] = ()  # peers; all of them if empty
    per: int = 1  # messages for each count
    limits: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


RATE = ("rate", "", "M msg/s", 1e6, True)
CPU = ("cpu_us", "processor time", "us/msg", 1.0, False)
ROUND = [("p50", "median", "us", 1e-6, False), ("p99", "p99", "us", 1e-6, False), ("p99.9", "p99.9", "us", 1e-6, False)]
ROUNDS = [("p50", "median round", "ms", 1e-3, False), ("first", "first round", "ms", 1e-3, False)]
IN_FORMS = ("call", "poll")

WORKLOADS = [
    Workload("one-64", "1 to 1, 64 B, one call a message", {"workload": "one", "size": 64}, [RATE, CPU], IN_FORMS,
             limits=("C-API ring",)),
    Workload("one-1k", "1 to 1, 1 KiB, one call a message", {"workload": "one", "size": 1024}, [RATE, CPU], IN_FORMS,
             limits=("C-API ring",)),
    Workload("one-64-batch", "1 to 1, 64 B, batches", {"workload": "one", "size": 64}, [RATE, CPU], ("batch",),
             first=20000, limits=("C-API ring",)),
    Workload("records", "1 to 1, NumPy records of 64 B, 256 a message, read in place",
             {"workload": "one", "size": 16384}, [RATE, CPU], ("records",), per=256, limits=("C-API ring",)),
    Workload("one-64k", "1 to 1, 64 KiB", {"workload": "one", "size": 65536}, [("rate", "", "k msg/s", 1e3, True), CPU],
             ("call", "view", "loan"), first=300, limits=("C-API ring",)),
    Workload("one-1m", "1 to 1, 1 MiB", {"workload": "one", "size": 1 << 20}, [("rate", "", "k msg/s", 1e3, True), CPU],
             ("call", "view", "loan"), first=100, limits=("C-API ring",)),
    Workload("many-8", "8 to 1, 64 B, one call a message", {"workload": "many", "size": 64, "n": 8}, [RATE, CPU]),
    Workload("many-64", "64 to 1, 64 B, one call a message", {"workload": "many", "size": 64, "n": 64}, [RATE, CPU],
             first=4000),
    Workload("many-8-batch", "8 to 1, 64 B, batches", {"workload": "many", "size": 64, "n": 8}, [RATE, CPU],
             ("batch",), first=20000),
    Workload("cast-8", "broadcast 1 to 8, 64 B", {"workload": "cast", "size": 64, "n": 8},
             [("rate", "", "M deliveries/s", 1e6, True), CPU], ("cast",), first=3000),
    Workload("cast-100", "broadcast 1 to 100, 64 B", {"workload": "cast", "size": 64, "n": 100},
             [("rate", "", "M deliveries/s", 1e6, True), CPU], ("cast",), first=400),
    Workload("ping-two", "round trip, 64 B, two cores", {"workload": "ask", "size": 64, "n": 1, "cores": [0, 1]},
             ROUND, IN_FORMS, first=500, limits=("bare futex",)),
    Workload("ping-one", "round trip, 64 B, one core", {"workload": "ask", "size": 64, "n": 1, "cores": [0, 0]},
             ROUND, first=500, limits=("bare futex",)),
    Workload("ask-100", "100 processes asked and answering", {"workload": "ask", "size": 64, "n": 100}, ROUNDS,
             first=5),
    Workload("ask-708", "708 processes asked and answering", {"workload": "ask", "size": 64, "n": 708}, ROUNDS, first=3,
             only=("cfnshm", "FIFO", "unix datagram", "pyzmq")),
    Workload("busy", "to itself beside a busy Python thread, 64 B", {"workload": "beside", "size": 64},
             [("rate", "", "k msg/s", 1e3, True), ("alone", "without it", "k msg/s", 1e3, True)], first=100),
    Workload("memory", "private memory of a worker that answered", {"workload": "memory", "size": 64, "n": 20},
             [("KiB", "", "KiB", 1.0, False)], first=1, seconds=0),
]  # fmt: skip
BY_KEY = {w.key: w for w in WORKLOADS}

Say = Callable[[str], None]


class RunFailed(Exception):
    """A run that did not come to its end; the text says why."""


def run(wish: dict[str, Any], seconds: float = RUN_SECONDS) -> dict[str, float]:
    """One run in a process of its own.

    Raises:
        RunFailed: with the last line of what it said.
    """
    package = __package__ or "benchmarks"
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(p for p in (root if package == "benchmarks" else "", os.environ.get("PYTHONPATH")) if p)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", f"{package}.run", json.dumps(wish)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # it puts its peer away
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        raise RunFailed(f"not done after {seconds:.0f} s") from None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    if process.returncode:
        raise RunFailed((err.strip() or f"exit status {process.returncode}").splitlines()[-1][:200])
    result: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    return result


@dataclass
class Entry:
    """One peer in one form: what its runs gave."""

    peer: str
    form: str
    wish: dict[str, Any]
    runs: list[dict[str, float]] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    failed: str = ""


def entries(workload: Workload, peers: Iterable[str]) -> list[Entry]:
    """Who takes part."""
    out = []
    wanted = [*peers, *(name for name in workload.limits)]
    kinds = {**(CASTING if workload.wish["workload"] == "cast" else BY_NAME), **limits.BY_NAME}
    for name in wanted:
        kind = kinds[name]
        if (workload.only and name not in workload.only) or workload.wish["size"] > kind.largest:
            continue
        for form in workload.forms:
            if form in kind.forms or form == "cast":
                out.append(Entry(name, form, {**workload.wish, "peer": name, "form": form}))
    return out


def measure(workload: Workload, peers: Iterable[str], repeats: int, seconds: float, say: Say) -> list[Entry]:
    """All runs of a workload: a trial of each entry that tells how much it can do in `seconds`, then the repeats, one
    run of each entry after the other."""
    all_of_them = entries(workload, peers)
    for entry in all_of_them:
        try:
            trial = run({**entry.wish, "count": workload.first})
        except RunFailed as why:
            entry.failed = str(why)
            say(f"  {entry.peer} ({entry.form}): {why}")
            continue
        rate = trial.get("rate") or (1 / trial["p50"] if "p50" in trial else 0)
        spread = entry.wish.get("n", 1) if workload.wish["workload"] == "cast" else 1
        most = MAX_COUNT.get(workload.wish["size"], 100_000)
        count = int(rate / spread * seconds * workload.seconds / 0.5) or 1
        entry.wish["count"] = max(workload.first, min(count, most // spread))
    for repeat in range(repeats):
        for entry in all_of_them:
            if entry.failed:
                continue
            entry.loads.append(quiet())
            try:
                entry.runs.append(run(entry.wish))
            except RunFailed as why:
                entry.failed = str(why)
                say(f"  {entry.peer} ({entry.form}): {why}")
        say(f"  repeat {repeat + 1} of {repeats}")
    return all_of_them


def summary(entry: Entry, workload: Workload) -> dict[str, Any]:
    """Median, minimum and maximum of each figure."""
    out: dict[str, Any] = {"peer": entry.peer, "form": entry.form, "runs": len(entry.runs)}
    if entry.loads:
        out["others_used"] = round(max(entry.loads), 3)
    if entry.failed:
        out["failed"] = entry.failed
    for name, _, _, scale, _ in workload.figures:
        values = [r[name] / scale for r in entry.runs if name in r]
        if name == "rate":
            values = [v * workload.per for v in values]
        elif name == "cpu_us":
            values = [v / workload.per for v in values]
        if values:
            out[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return out


def packages() -> list[str]:
    return [p for peer in ALL for p in peer.packages]
