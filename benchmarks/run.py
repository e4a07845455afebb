"""One run of one workload with one peer, in a process of its own: `python -m benchmarks.run '{"workload": ...}'`.

Prints one JSON line. The processes of the run are forked from this one, which has imported no peer.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

from . import limits
from .crew import Crew, Member, cpu_seconds
from .peers import BY_NAME, CASTING
from .peers.base import PERIOD, Peer, Shape, Wrong

LARGE = 65536  # bytes from which the ends are looked at, and not all of it
ENOUGH_SECONDS = 0.5


def bodies_of(size: int) -> list[bytes]:
    """PERIOD bodies that differ in all their bytes."""
    return [bytes([i]) * size for i in range(PERIOD)] if size < LARGE else _large(size)


def _large(size: int) -> list[bytes]:
    """A few, repeated: PERIOD of them would be more than the caches hold, which is nobody's fault."""
    few = [bytes([i]) + bytes(size - 2) + bytes([i]) for i in range(4)]
    return [few[i % 4] for i in range(PERIOD - PERIOD % 4)]


RECORDS = 256  # of a message


def _arrays() -> list[Any]:
    """A few messages of the records workload, numbered through."""
    import numpy as np

    arrays = []
    for i in range(4):
        array = np.zeros(RECORDS, limits.records_type())
        array["number"] = np.arange(i * RECORDS, (i + 1) * RECORDS)
        arrays.append(array)
    return arrays


def _take_records(receive: Any, n: int) -> None:
    for first in islice(cycle(range(0, 4 * RECORDS, RECORDS)), n):
        numbers = receive()["number"]
        if numbers[0] != first or numbers[-1] != first + RECORDS - 1 or len(numbers) != RECORDS:
            raise Wrong("a message is not the next one")
        numbers = None


def pump(peer: Peer, send: Any, bodies: list[bytes], n: int) -> None:
    (peer.send_batches if peer.shape.form == "batch" else peer.send_all)(send, bodies, n)


def drain(peer: Peer, receive: Any, bodies: list[bytes], n: int) -> None:
    if peer.shape.form == "records":
        _take_records(receive, n)
    elif peer.shape.form == "batch":
        peer.receive_batches(receive, bodies, n)
    elif peer.shape.size >= LARGE:
        peer.receive_ends(receive, bodies, n)
    else:
        peer.receive_all(receive, bodies, n)


def rates(n: int, begun: float, ended: float, cpu: float) -> dict[str, float]:
    return {"rate": n / (ended - begun), "cpu_us": cpu / n * 1e6, "seconds": ended - begun}


def closing(work: Callable[..., Any]) -> Callable[..., Any]:
    """Work whose peer is closed when it is done."""

    @functools.wraps(work)
    def closed(member: Member, peer: Peer, *arguments: Any) -> Any:
        try:
            return work(member, peer, *arguments)
        finally:
            gc.collect()
            peer.close()
            gc.collect()

    return closed


# ---- one to one ----


@closing
def _sends(member: Member, peer: Peer, me: int, to: int, counts: list[int], bodies: list[bytes]) -> tuple[float, float]:
    send = peer.sender(me, to)
    member.step()  # open
    peer.connected(me)
    begun = cpu = 0.0
    for n in counts:  # the last is the one that is timed
        member.step()
        cpu, begun = cpu_seconds(), time.monotonic()
        pump(peer, send, bodies, n)
        member.step()  # until it is received
    return begun, cpu_seconds() - cpu


@closing
def _receives(member: Member, peer: Peer, me: int, counts: list[int], bodies: list[bytes]) -> tuple[float, float]:
    receive = peer.receiver(me)
    member.step()
    ended = cpu = 0.0
    for n in counts:
        member.step()
        cpu = cpu_seconds()
        drain(peer, receive, bodies, n)
        ended = time.monotonic()
        member.step()
    return ended, cpu_seconds() - cpu


def one(peer: Peer, count: int) -> dict[str, float]:
    """Messages a second from one process to another, and the processor time of both for each."""
    counts = [min(1000, max(10, count // 10)), count]
    bodies = _arrays() if peer.shape.form == "records" else bodies_of(peer.shape.size)
    with Crew() as crew:
        crew.add(_receives, peer, 0, counts, bodies)
        crew.step(0)
        crew.add(_sends, peer, 1, 0, counts, bodies)
        crew.step(1)
        servers = 0.0
        for _ in counts:
            crew.wait()
            servers = sum(map(cpu_seconds, peer.servers()))
            crew.go()
            crew.step()
        (ended, cpu_in), (begun, cpu_out) = crew.results()
        servers = sum(map(cpu_seconds, peer.servers())) - servers
    return rates(count, begun, ended, cpu_in + cpu_out + servers)


# ---- many to one ----


def _stamped(sender: int, size: int) -> list[bytes]:
    return [bytes([sender]) + bytes([i]) * (size - 1) for i in range(PERIOD)]


@closing
def _gathers(member: Member, peer: Peer, senders: int, counts: list[int]) -> tuple[float, float]:
    receive = peer.receiver(0)
    batch = peer.shape.form == "batch"
    member.step()
    ended = cpu = 0.0
    following = [(i + 1) % PERIOD for i in range(PERIOD)]
    for n in counts:
        due = [0] * (senders + 1)
        member.step()
        cpu = cpu_seconds()
        left = n * senders
        while left > 0:
            for body in receive() if batch else (receive(),):
                who = body[0]
                if body[-1] != due[who]:
                    raise Wrong("a message is not its sender's next one")
                due[who] = following[body[-1]]
                left -= 1
        ended = time.monotonic()
        if left:
            raise Wrong("more messages than were sent")
        member.step()
    return ended, cpu_seconds() - cpu


def many(peer: Peer, count: int, senders: int) -> dict[str, float]:
    """Messages a second of several senders into one mailbox."""
    each = max(20, count // senders)
    counts = [max(10, each // 10), each]
    with Crew() as crew:
        crew.add(_gathers, peer, senders, counts)
        crew.step(0)
        for i in range(1, senders + 1):
            crew.add(_sends, peer, i, 0, counts, _stamped(i, peer.shape.size))
        crew.step(*range(1, senders + 1))
        for _ in counts:
            crew.step()
            crew.step()
        (ended, cpu), *out = crew.results()
    return rates(each * senders, min(b for b, _ in out), ended, cpu + sum(c for _, c in out))


# ---- one to many ----


@closing
def _casts(member: Member, peer: Peer, everybody: list[int], counts: list[int], bodies: list[bytes]) -> Any:
    if not peer.casts_first:
        member.step()  # until the receivers are open
    cast = peer.caster(0, everybody)
    member.step()
    peer.connected(0)
    begun = cpu = 0.0
    for n in counts:
        member.step()
        cpu, begun = cpu_seconds(), time.monotonic()
        peer.send_all(cast, bodies, n)
        member.step()
    return begun, cpu_seconds() - cpu


def cast(peer: Peer, count: int, receivers: int) -> dict[str, float]:
    """Deliveries a second of one process's messages to all the others."""
    counts = [max(2, count // 10), count]
    bodies = bodies_of(peer.shape.size)
    everybody = list(range(1, receivers + 1))
    with Crew() as crew:
        crew.add(_casts, peer, everybody, counts, bodies)
        if peer.casts_first:
            crew.wait(0)
        for i in everybody:
            crew.add(_receives, peer, i, counts, bodies)
        crew.wait(*everybody)
        if not peer.casts_first:
            crew.step(0)
            crew.wait(0)
        crew.go()
        for _ in counts:
            crew.step()
            crew.step()
        (begun, cpu), *out = crew.results()
    return rates(count * receivers, begun, max(e for e, _ in out), cpu + sum(c for _, c in out))


# ---- there and back ----


@closing
def _echoes(member: Member, peer: Peer, me: int, hub: int, counts: list[int]) -> float:
    receive = peer.receiver(me)
    send = peer.sender(me, hub)
    member.step()
    peer.connected(me)
    cpu = 0.0
    for n in counts:
        member.step()
        cpu = cpu_seconds()
        for _ in range(n):
            send(bytes(receive()))
        member.step()
    return cpu_seconds() - cpu


@closing
def _asks(member: Member, peer: Peer, everybody: list[int], counts: list[int], bodies: list[bytes]) -> Any:
    receive = peer.receiver(0)
    member.step()
    sends = [peer.sender(0, to) for to in everybody]
    member.step()
    peer.connected(0)
    took: list[float] = []
    first = 0.0
    clock = time.perf_counter
    for k, n in enumerate(counts):
        member.step()
        took, bodies_in_turn = [], cycle(bodies)
        for _ in range(n):
            body = next(bodies_in_turn)
            begun = clock()
            for send in sends:
                send(body)
            for _ in sends:
                if receive() != body:
                    raise Wrong("an answer is not the question")
            took.append(clock() - begun)
        if k == 0:
            first = took[0]
        member.step()
    return first, took


def _bare_futex(count: int, cores: list[int]) -> dict[str, float]:
    p50, p99, p999 = limits.load().futex(count, *cores)
    return {"p50": p50, "p99": p99, "p99.9": p999, "rounds": count}


def ask(peer: Peer, count: int, workers: int, cores: list[int] | None = None) -> dict[str, float]:
    """Rounds of one process that asks all the others and waits for every answer: seconds of the median round, of the
    first one, and of the slow ones. `cores`: of the asker and of the others."""
    counts = [max(1, min(200, count // 10)), count]
    mine, theirs = cores or [None, None]
    everybody = list(range(1, workers + 1))
    with Crew() as crew:
        crew.add(_asks, peer, everybody, counts, bodies_of(peer.shape.size), core=mine)
        crew.wait(0)
        for i in everybody:
            crew.add(_echoes, peer, i, 0, counts, core=theirs)
        crew.wait(*everybody)
        crew.go(0)
        crew.step(0)
        crew.go(*everybody)
        for _ in counts:
            crew.step()
            crew.step()
        (first, took), *_ = crew.results()
    took.sort()

    def at(share: float) -> float:
        return took[min(len(took) - 1, math.ceil(share * len(took)) - 1)]

    return {
        "p50": statistics.median(took), "p99": at(0.99), "p99.9": at(0.999), "first": first, "rounds": len(took)
    }  # fmt: skip


# ---- beside a busy thread ----


@closing
def _beside(member: Member, peer: Peer, count: int, busy: bool) -> float:
    receive, send = peer.receiver(0), peer.sender(0, 0)
    peer.connected(0)
    body, on = bytes(peer.shape.size), True

    def spin() -> None:
        x = 0
        while on:
            x += 1

    send(body), receive()
    thread = threading.Thread(target=spin, daemon=True)
    if busy:
        thread.start()
    begun, n = time.monotonic(), 0
    while n < count and time.monotonic() - begun < 2:
        send(body)
        receive()
        n += 1
    took = time.monotonic() - begun
    on = False
    return n / took


def beside(peer: Peer, count: int) -> dict[str, float]:
    """Messages that one thread sends to itself and receives in a second, alone and beside a busy thread of Python."""
    with Crew() as crew:
        crew.add(_beside, peer, count, False)
        alone = crew.results()[0]
    with Crew() as crew:
        crew.add(_beside, peer, count, True)
        busy = crew.results()[0]
    return {"rate": busy, "alone": alone}


# ---- memory ----


@closing
def _sits(member: Member, peer: Peer, me: int) -> int:
    receive, send = peer.receiver(me), peer.sender(me, 0)
    member.step()
    peer.connected(me)
    member.step()
    send(bytes(receive()))
    private = _private_kib()
    member.step()
    return private


def _private_kib() -> int:
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Clean", "Private_Dirty")))


def _alone(member: Member) -> int:
    return _private_kib()


@closing
def _hub_of_sitters(member: Member, peer: Peer, everybody: list[int]) -> None:
    receive = peer.receiver(0)
    member.step()
    sends = [peer.sender(0, to) for to in everybody]
    member.step()
    peer.connected(0)
    for send in sends:
        send(bytes(peer.shape.size))
    for _ in sends:
        receive()
    member.step()


def memory(peer: Peer, workers: int) -> dict[str, float]:
    """Private memory, in KiB, that a worker has more than a bare fork after it answered once."""
    everybody = list(range(1, workers + 1))
    with Crew() as crew:
        crew.add(_alone)
        bare = crew.results()[0]
    with Crew() as crew:
        crew.add(_hub_of_sitters, peer, everybody)
        crew.wait(0)
        for i in everybody:
            crew.add(_sits, peer, i)
        crew.wait(*everybody)
        crew.go(0)
        crew.step(0)
        crew.go(*everybody)
        crew.step(*everybody)
        crew.step()
        _, *kib = crew.results()
    return {"KiB": statistics.median(kib) - bare}


# ---- all ----


def shape_of(workload: str, form: str, size: int, n: int, folder: str) -> Shape:
    everybody = range(1, n + 1)
    if workload == "one":
        edges = [(1, 0)]
    elif workload == "many":
        edges = [(i, 0) for i in everybody]
    elif workload == "cast":
        edges = [(0, i) for i in everybody]
    elif workload == "beside":
        edges = [(0, 0)]
    else:
        edges = [(0, i) for i in everybody] + [(i, 0) for i in everybody]
    return Shape(edges, size, form, folder)


def _ended(*_: object) -> None:
    raise SystemExit(143)  # by the way of what puts the peer away


def main(wish: dict[str, Any]) -> dict[str, float]:
    """Runs what is wished: workload, peer, form, size, count, n (processes beside the hub), cores."""
    workload, n = wish["workload"], wish.get("n", 1)
    if wish["peer"] == limits.Futex.name:
        return _bare_futex(wish["count"], wish["cores"])
    kinds = {**(CASTING if workload == "cast" else BY_NAME), **limits.BY_NAME}
    before = set(os.listdir("/dev/shm"))
    folder = tempfile.mkdtemp(prefix="cfnb.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    peer = kinds[wish["peer"]](shape_of(workload, wish["form"], wish["size"], n, folder))
    try:
        with contextlib.ExitStack() as undo:
            undo.callback(peer.finish)
            peer.prepare()
            if workload == "one":
                return one(peer, wish["count"])
            if workload == "many":
                return many(peer, wish["count"], n)
            if workload == "cast":
                return cast(peer, wish["count"], n)
            if workload == "ask":
                return ask(peer, wish["count"], n, wish.get("cores"))
            if workload == "beside":
                return beside(peer, wish["count"])
            if workload == "memory":
                return memory(peer, n)
            raise ValueError(f"there is no workload {workload!r}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for left in set(os.listdir("/dev/shm")) - before:  # what some peers leave there
            if left.endswith(".zenoh") or left.startswith("iox2_"):
                with contextlib.suppress(OSError):
                    os.unlink(f"/dev/shm/{left}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)
    print(json.dumps(main(json.loads(sys.argv[1]))))
