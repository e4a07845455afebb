"""Benchmarks of shared context and coordination: objects, values, large messages, locks, barriers, checkpoints.

    python -m benchmarks.context [--quick] [--json FILE]

Medians of the repeats with their spread (minimum to maximum). What is compared alternates in one run. The machine is
described in the output. Nothing here has a pass mark.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from multiprocessing import get_context, shared_memory
from pathlib import Path
from typing import Any

try:
    import fastcdc
except ImportError:  # what it measures is left out, and said to be
    fastcdc = None

from cfnshm import Bus
from cfnshm.testing import temp_bus

from .core import spread, tool
from .machine import machine

Timed = Callable[[int], float]
KIB, MIB = 1 << 10, 1 << 20
FORK = get_context("fork")


def us(call: Callable[[], Any], times: int) -> float:
    """Microseconds a call."""
    begin = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begin) / times * 1e6


# ---- objects and values ----


def objects(times: int) -> dict[str, float]:
    with temp_bus("a", size="256M") as bus:
        small, big = os.urandom(4 * KIB), os.urandom(64 * MIB)
        context = bus.context
        ref, large = context.put(small), context.put(big)
        context.get(ref)
        context.view(large)
        hashing = us(lambda: hashlib.sha256(small).digest(), times)

        def put_get() -> None:
            context.get(context.put(small))

        def view() -> None:
            context.view(large).release()

        return {
            "put and get of known 4 KiB, beyond the hash": us(put_get, times) - hashing,
            "the hash of 4 KiB": hashing,
            "view of 64 MiB": us(view, times),
        }


def spilled(_: int) -> dict[str, float]:
    """Objects of 256 KiB in a heap that holds 40 of them: what pushes another out, what comes back, what is read where
    it is."""
    with temp_bus("a", size="32M", agents=8) as bus:
        context, made = bus.context, iter([os.urandom(256 * KIB) for _ in range(200)])
        refs: list[Any] = []
        while not context.info().spilled:
            refs.append(context.put(next(made)))
        put = us(lambda: refs.append(context.put(next(made))), 60)
        away = [o.ref for o in context.list() if o.spilled]
        todo = iter(away * 2)
        return {
            "put of 256 KiB, which pushes one to disk": put,
            "get of 256 KiB that is on disk and stays there": us(lambda: context.get(next(todo)), 60),
            "view of 256 KiB that comes back for another": us(lambda: context.view(next(todo)).release(), 40),
        }


def values(times: int) -> dict[str, float]:
    with temp_bus("a", size="64M", agents=64) as bus:
        state, body = bus.state, "x" * (20 * KIB)
        state["n"] = 0
        return {
            "state: get": us(lambda: state["n"], times),
            "state: set": us(lambda: state.set("k", 1), times),
            "state: update": us(lambda: state.update("n", lambda n: n + 1), times),
            "state: incr": us(lambda: state.incr("i"), times),
            "state: set 20 KiB": us(lambda: state.set("b", body), times // 4),
        }


def flat_memory(updates: int) -> dict[str, Any]:
    """Memory before and after very many updates."""
    with temp_bus("a", size="64M", agents=64) as bus:

        def resident() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        def work(n: int) -> None:
            for _ in range(n):
                bus.state.update("n", lambda n: (n or 0) + 1)

        work(updates // 10)
        bus.reap()
        before, heap_before = resident(), bus.context.info().objects
        work(updates)
        assert bus.state["n"] == updates + updates // 10
        return {
            "updates": updates, "resident_before": before, "resident_after": resident(),
            "objects_before": heap_before, "objects_after": bus.context.info().objects,
            "objects_capacity": bus.context.info().objects_capacity, "spilled": bus.context.info().spilled,
        }  # fmt: skip


# ---- large messages ----


def _take(name: str, count: int) -> None:
    with Bus(name, agent="taker") as bus:
        bus.send("a", b"ready")
        for _ in range(count):
            bus.recv().raw  # noqa: B018
        bus.send("a", b"done")


def large_messages(size: int, count: int) -> float:
    """Seconds a message, bytes to bytes, one process to another."""
    body = os.urandom(size)
    with temp_bus("a", size="128M", agents=16, lanes={"normal": 8}) as bus:
        bus.register("taker")
        child = FORK.Process(target=_take, args=(bus.name, count))
        child.start()
        assert bus.recv(timeout=30).raw == b"ready"
        begin = time.perf_counter()
        for _ in range(count):
            bus.send("taker", body, timeout=60)
        assert bus.recv(timeout=60).raw == b"done"
        took = time.perf_counter() - begin
        child.join(30)
    return took / count


def _copy_out(name: str, size: int, count: int, full: Any, free: Any) -> None:
    shared = shared_memory.SharedMemory(name)
    for i in range(count):
        full.acquire()
        at = i % 4 * size
        bytes(shared.buf[at : at + size])
        free.release()
    shared.close()


def memory_copies(size: int, count: int) -> float:
    """The same by bare copies: in on one core, out on the other, through four places that stay warm."""
    body = os.urandom(size)
    shared = shared_memory.SharedMemory(create=True, size=4 * size)
    full, free = FORK.Semaphore(0), FORK.Semaphore(4)
    child = FORK.Process(target=_copy_out, args=(shared.name, size, count, full, free))
    child.start()
    begin = time.perf_counter()
    for i in range(count):
        free.acquire()
        at = i % 4 * size
        shared.buf[at : at + size] = body
        full.release()
    child.join(60)
    took = time.perf_counter() - begin
    shared.close()
    shared.unlink()
    return took / count


def broadcast(times: int) -> dict[str, float]:
    body = os.urandom(64 * KIB)
    with temp_bus("a", size="256M", agents=128, lanes={"normal": 64}) as bus:
        names = [f"w{i}" for i in range(100)]
        for name in names:
            bus.register(name)

        def drain() -> None:
            for name in names:
                with Bus(bus.name, agent=name) as one:
                    one.recv_many(64, timeout=0)

        once, each = [], []
        for _ in range(times):
            begin = time.perf_counter()
            bus.broadcast(body)
            once.append(time.perf_counter() - begin)
            drain()
            begin = time.perf_counter()
            for name in names:
                bus.send(name, body)
            each.append(time.perf_counter() - begin)
            drain()
        return {
            "broadcast of 64 KiB to 100": statistics.median(once) * 1e6,
            "100 sends of 64 KiB": statistics.median(each) * 1e6,
        }


# ---- coordination ----


def locks(times: int) -> dict[str, float]:
    with temp_bus("a") as bus:
        lock, permits = bus.lock("repo"), bus.semaphore("cc", 4)

        def with_lock() -> None:
            with lock:
                pass

        def with_permit() -> None:
            with permits:
                pass

        return {
            "lock and unlock, Python": us(with_lock, times),
            "lock and unlock, C": tool("lock", "--messages", times * 10)["ns"] / 1000,
            "permit and back, Python": us(with_permit, times // 4),
        }


def _at_barrier(name: str, parties: int, rounds: int, through: Any, me: int) -> None:
    with Bus(name) as bus:
        barrier, start = bus.barrier("b", parties), bus.barrier("start", parties)
        for _ in range(rounds):
            start.wait()
            barrier.wait()
            through[me] = time.monotonic()
        start.wait()


def barrier(parties: int, rounds: int) -> list[float]:
    """Seconds from the last arrival until the last of so many processes has gone through."""
    took = []
    through = FORK.RawArray("d", parties)
    with temp_bus("a", size="128M", agents=max(64, parties)) as bus:
        children = [
            FORK.Process(target=_at_barrier, args=(bus.name, parties, rounds, through, i)) for i in range(parties - 1)
        ]
        for child in children:
            child.start()
        start, meet = bus.barrier("start", parties), bus.barrier("b", parties)
        start.wait(timeout=120)
        for _ in range(rounds):
            while not (info := meet.info()) or info.arrived < parties - 1:
                time.sleep(0.01)
            begin = time.monotonic()
            meet.wait(timeout=120)
            through[parties - 1] = time.monotonic()
            start.wait(timeout=120)
            took.append(max(through) - begin)
        for child in children:
            child.join(60)
    return took


def checkpoints(times: int) -> dict[str, float]:
    from cfnshm.message import encode

    state = {"log": [f"step {i} of the work" for i in range(900)]}
    with temp_bus("a", size="64M", agents=64) as bus:
        size = len(encode(state)[1])
        own = us(lambda: hashlib.sha256(encode(state)[1]).hexdigest(), times)
        return {
            f"checkpoint of {size // KIB} KiB, beyond encoding and hash":
                us(lambda: bus.checkpoint(state), times) - own,
            "restore": us(bus.restore, times),
        }


def _told(name: str, me: int, rounds: int, agents: int, told: Any) -> None:
    with Bus(name, agent=f"w{me}") as bus:
        start = bus.barrier("start", agents + 1)
        for _ in range(rounds):
            start.wait()
            assert bus.recv(timeout=120).type == "signal"
            told[me] = time.monotonic()
        start.wait()


def signal_all(agents: int, rounds: int) -> list[float]:
    """Seconds from the call until the last agent has it in its hands."""
    took = []
    told = FORK.RawArray("d", agents)
    with temp_bus("a", size="128M", agents=max(64, agents + 1)) as bus:
        children = [FORK.Process(target=_told, args=(bus.name, i, rounds, agents, told)) for i in range(agents)]
        for child in children:
            child.start()
        start = bus.barrier("start", agents + 1)
        start.wait(timeout=120)
        for _ in range(rounds):
            while sum(one.waiting == "inbox" for one in bus.agents()) < agents:
                time.sleep(0.05)  # until all of them sleep
            begin = time.monotonic()
            bus.signal_all("checkpoint")
            start.wait(timeout=120)
            took.append(max(told) - begin)
        for child in children:
            child.join(60)
    return took


# ---- what is saved ----


def shared_context(seed: int, files: int, edits: int) -> dict[str, Any]:
    """Files of the standard library of about 50 KiB, each edited again and again as by an agent (a line here, a
    function there), and each version read by ten agents: bytes that were asked to be sent, and bytes that were stored
    or sent."""
    chance = random.Random(seed)
    folder = Path(sysconfig.get_paths()["stdlib"])
    sizes = ((p.stat().st_size, p) for p in sorted(folder.glob("*.py")))
    chosen = chance.sample([p for size, p in sizes if 40 * KIB <= size <= 60 * KIB], files)
    agents, asked, sent, versions = 10, 0, 0, 0
    parts = Parts()
    with temp_bus("a", size="256M", agents=64) as bus:
        for path in chosen:
            lines = path.read_text(errors="replace").splitlines(keepends=True)
            for _ in range(edits):
                at = chance.randrange(len(lines))
                edit = [f"# edit {chance.random()}\n"] * chance.choice((1, 1, 2, 8))
                lines[at : at + chance.choice((0, 1, 1, 3))] = edit
                body = "".join(lines).encode()
                ref = bus.context.put(body)
                parts.add(body)
                again = bus.context.put(body)  # the same, by another agent
                assert again.known
                versions += 1
                asked += agents * len(body)
                sent += agents * len(ref) + (0 if ref.known else len(body))
        info = bus.context.info()
    one = 50_000 * 10
    return {
        "versions": versions, "asked_bytes": asked, "moved_bytes": sent, "saved": 1 - sent / asked,
        "one_file_to_ten_agents": 1 - 71 * 10 / one, "put_bytes": info.put, "stored_bytes": info.stored,
        "in_parts": parts.found(agents),
    }  # fmt: skip


class Parts:
    """What the same versions would take if they were stored in parts whose borders depend on the content (FastCDC,
    about 4 KiB each), with a page of 4 KiB for the list of a version's parts: the road not taken, measured."""

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.bytes = self.pages = self.whole_pages = self.asked = self.versions = self.parts = 0
        self.cut_seconds: list[float] = []

    def add(self, body: bytes) -> None:
        if fastcdc is None:
            return
        begin = time.perf_counter()
        cuts = [(c.offset, c.length) for c in fastcdc.fastcdc(body, 1 * KIB, 4 * KIB, 16 * KIB)]
        self.cut_seconds.append(time.perf_counter() - begin)
        self.versions += 1
        self.asked += len(body)
        self.parts += len(cuts)
        self.whole_pages += -(-len(body) // (4 * KIB))
        self.pages += 1
        for at, length in cuts:
            digest = hashlib.sha256(body[at : at + length]).digest()
            if digest not in self.known:
                self.known.add(digest)
                self.bytes += length
                self.pages += -(-length // (4 * KIB))

    def found(self, agents: int) -> dict[str, Any] | str:
        if fastcdc is None:
            return "not measured: pip install fastcdc"
        lists = 40 * self.parts
        return {
            "stored_bytes": self.bytes + lists, "pages": self.pages, "pages_whole": self.whole_pages,
            "saved": 1 - (self.bytes + lists + agents * 71 * self.versions) / (agents * self.asked),
            "parts_of_a_version": self.parts / self.versions, "cut_us": statistics.median(self.cut_seconds) * 1e6,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    repeats, times = (3, 5_000) if options.quick else (7, 20_000)
    parties = 700
    results: dict[str, Any] = {"machine": machine()}

    def gather(function: Callable[..., dict[str, float]], *arguments: Any) -> None:
        runs = [function(*arguments) for _ in range(repeats)]
        for name in runs[0]:
            results[name] = spread([run[name] for run in runs], "us")

    for function in (objects, spilled, values, locks, checkpoints):
        print(f"... {function.__name__}", file=sys.stderr)
        gather(function, times)
    print("... large messages", file=sys.stderr)
    ours, bare = [], []
    for _ in range(repeats):
        ours.append(large_messages(MIB, 400))
        bare.append(memory_copies(MIB, 400))
    results["message of 1 MiB"] = spread(ours, "us", 1e-6)
    results["bare copies of 1 MiB, in and out"] = spread(bare, "us", 1e-6)
    results["ratio, bare copies to message of 1 MiB"] = spread([b / o for o, b in zip(ours, bare, strict=True)], "x")
    print("... broadcast", file=sys.stderr)
    gather(broadcast, 5)
    results["ratio, 100 sends to a broadcast of 64 KiB"] = {
        "median": results["100 sends of 64 KiB"]["median"] / results["broadcast of 64 KiB to 100"]["median"],
        "unit": "x",
    }  # fmt: skip
    for n in (10, parties):
        print(f"... {n} processes", file=sys.stderr)
        results[f"barrier of {n} processes, from the last arrival"] = spread(barrier(n, repeats), "ms", 1e-3)
        results[f"signal to {n} agents, until the last has it"] = spread(signal_all(n, repeats), "ms", 1e-3)
    print("... memory", file=sys.stderr)
    results["memory"] = flat_memory(1_000_000)
    results["shared context"] = shared_context(7, 8, 25)
    for name, found in results.items():
        if isinstance(found, dict) and "median" in found:
            span = f"  ({found['min']:.2f} to {found['max']:.2f}, {found['runs']} runs)" if "min" in found else ""
            print(f"{name:58} {found['median']:10.2f} {found['unit']}{span}")
        else:
            print(f"{name:58} " + ", ".join(f"{k} {v}" for k, v in found.items()))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
