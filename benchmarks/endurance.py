"""A swarm for minutes and hours: what is lost, done twice, or grows.

    python -m benchmarks.endurance [--only WORD] [--minutes N] [--runs N] [--seed N] [--json FILE]

`messages`: 300 agents send 100 messages a second each. `mixed`: 200 agents get tasks of many kinds while workers and
coordinators are killed, stopped and paused, with a ledger that workers write and the client compares. `completion`:
many short runs, of which each must end exactly when its last answer is there. The load is offered at a fixed rate, so
that it is the same on a machine with something else to do; what the machine used is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnshm import Bus, Full, NoSpace
from cfnshm.swarm import AgentStatus, Restart, Swarm, here, tree

from .machine import machine

Row = dict[str, Any]
Say = Callable[[str], None]
_ENTRY = "<cQI"  # "b"egun or "e"nded, task, pid


def _sample(swarm: Swarm, agents: list[AgentStatus]) -> dict[str, float]:
    """Bytes, descriptors and processor time of all of a swarm's processes."""
    pids = [a.pid for a in agents if a.pid] + [swarm.process.pid, os.getpid()]
    fds = 0
    for pid in pids:
        try:
            fds += len(os.listdir(f"/proc/{pid}/fd"))
        except FileNotFoundError:  # it was killed a moment ago
            continue
    return {"memory": sum(map(tree.memory, pids)), "fds": fds, "processes": len(pids),
            "own": tree.memory(os.getpid()) + tree.memory(swarm.process.pid)}  # fmt: skip


def _flat(samples: list[dict[str, float]], what: str) -> float:
    """Percent by which the median of the last third differs from that of the second."""
    third = len(samples) // 3
    if not third:
        return 0.0
    middle, last = ([s[what] for s in part] for part in (samples[third : 2 * third], samples[2 * third :]))
    return 100 * (statistics.median(last) / max(1e-9, statistics.median(middle)) - 1)


def _busy() -> tuple[float, float]:
    """Seconds of processor time that the machine has used, and had, since it began."""
    with open("/proc/stat") as file:
        user, nice, system, idle, wait, *rest = (int(x) / tree.TICKS for x in file.readline().split()[1:])
    used = user + nice + system + sum(rest[:2])
    return used, used + idle + wait


# ---- 300 agents, 100 messages a second each ----


def _talk(number: int, agents: int, rate: int, seconds: float) -> tuple[int, int, int]:
    """Sends to the next one, and reads what the one before sends, whose numbers must follow each other."""
    bus = here().bus
    place = Bus(bus.name, agent=f"talker-{number}", create=False)
    to = f"talker-{(number + 1) % agents}"
    begin = time.monotonic()
    sent = got = wrong = 0
    last = round(seconds * rate)
    while got < last:
        now = time.monotonic() - begin
        full = False
        while sent < last and sent <= now * rate and not full:
            try:
                place.send(to, sent.to_bytes(8, "little"), timeout=0)
                sent += 1
            except (Full, NoSpace):  # the other one is late: who waits for him without receiving may wait for ever
                full = True
        wait = 0.05 if full else max(0.0, sent / rate - (time.monotonic() - begin)) if sent < last else 60.0
        try:
            for message in place.recv_many(256, wait):
                wrong += int.from_bytes(message.raw, "little") != got
                got += 1
        except TimeoutError:
            if sent == last:
                break  # what is missing by now is lost
    place.close()
    return sent, got, wrong


def messages(minutes: float, say: Say) -> Row:
    """300 agents, each sending 100 messages a second to another: losses, memory, descriptors, processor time."""
    agents, rate = 300, 100
    with Swarm(agents, memory="8M", agents=2 * agents + 64) as swarm:
        for i in range(agents):
            swarm.bus.register(f"talker-{i}")
        swarm.ready(60)
        pids = [a.pid for a in swarm.status()]
        cpu = sum(s.cpu for p in pids if (s := tree.stat(p)) is not None)
        futures = [swarm.submit(_talk, i, agents, rate, minutes * 60) for i in range(agents)]
        samples: list[dict[str, float]] = []
        began = time.monotonic()
        while not all(f.done() for f in futures):
            time.sleep(min(10.0, minutes * 3))
            samples.append(_sample(swarm, swarm.status()))
        took = time.monotonic() - began
        cpu = sum(s.cpu for p in pids if (s := tree.stat(p)) is not None) - cpu
        answers = [f.result() for f in futures]
    sent, got, wrong = (sum(a[i] for a in answers) for i in range(3))
    row = {"minutes": minutes, "agents": agents, "sent": sent, "lost": sent - got, "out of order": wrong,
           "memory %": _flat(samples, "memory"), "descriptors %": _flat(samples, "fds"),
           "memory MiB": statistics.median(s["memory"] for s in samples) / (1 << 20),
           "processors": cpu / took}  # fmt: skip
    say(f"{agents} agents x {rate} messages a second for {minutes:g} minutes: {sent:,} sent, {sent - got} lost, "
        f"{wrong} out of order; memory {row['memory %']:+.2f} % of {row['memory MiB']:.0f} MiB, descriptors "
        f"{row['descriptors %']:+.2f} %, {row['processors']:.2f} processors used by them")  # fmt: skip
    return row


# ---- 200 agents, tasks of many kinds, deaths and pauses ----


def _work(task: tuple[int, str, str]) -> int:
    """One task: says in the ledger that it has begun, does something, and says that it has ended."""
    number, kind, ledger = task
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND)
    os.write(fd, struct.pack(_ENTRY, b"b", number, os.getpid()))
    place = here()
    if kind == "compute":
        sum(i * i for i in range(10_000))
    elif kind == "sleep":
        threading.Event().wait(2.0)  # most kills and stops meet one of these
    elif kind == "partial":
        place.partial(number)
    elif kind == "share":
        place.bus.state.incr("shared")
        place.bus.context.get(place.bus.context.put(b"%d" % (number % 64) * 500))
    elif kind == "large":
        number + len(bytes(200_000))
    os.write(fd, struct.pack(_ENTRY, b"e", number, os.getpid()))
    os.close(fd)
    return number


def _disturb(swarm: Swarm, seed: int, over: threading.Event, done: Counter[str]) -> None:
    """Kills, stops and pauses, until it is over. Everybody goes on at the end."""
    rng = random.Random(seed)
    stopped: list[tuple[float, int]] = []
    teams = sorted({n.team for n in swarm.plan.nodes.values() if n.team})
    step = 0
    while not over.wait(0.25):
        step += 1
        now = time.monotonic()
        for at, pid in [s for s in stopped if s[0] <= now]:
            stopped.remove((at, pid))
            _signal(pid, signal.SIGCONT)
        agents = [a for a in swarm.status() if a.pid]
        workers = [a for a in agents if a.role == "worker"]
        if workers and step % 4 == 0:
            done["workers killed"] += _signal(rng.choice(workers).pid, signal.SIGKILL)
        if workers and step % 2 == 0:
            pid = rng.choice(workers).pid
            done["stops"] += _signal(pid, signal.SIGSTOP)
            stopped.append((now + rng.uniform(0.1, 3.0), pid))
        coordinators = [a for a in agents if a.role == "coordinator"]
        if coordinators and step % 80 == 0:
            done["coordinators killed"] += _signal(rng.choice(coordinators).pid, signal.SIGKILL)
        if step % 40 == 20:
            team = rng.choice(teams)
            swarm.pause(team)
            done["teams paused"] += 1
            over.wait(rng.uniform(0.2, 1.0))
            swarm.resume(team)
    for _, pid in stopped:
        _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def mixed(minutes: float, seed: int, say: Say) -> Row:
    """Tasks of six kinds at a fixed rate, while somebody is always being killed, stopped or paused."""
    rate, step = 240, 0.1
    kinds = ["echo", "compute", "sleep", "partial", "share", "large"]
    answers = bytearray(round((minutes * 60 + 60) * rate))  # of each task; has its size from the beginning
    failed: list[str] = []
    lock = threading.Lock()
    answered_so_far = 0

    def answered(number: int) -> Callable[[Any], None]:
        def tell(future: Any) -> None:
            nonlocal answered_so_far
            with lock:
                answered_so_far += 1
                answers[number] = min(255, answers[number] + 1)
                if future.exception() is not None:
                    failed.append(repr(future.exception())[:300])
                elif future.result() != number:
                    failed.append(f"task {number} was answered {future.result()}")

        return tell

    policy = Restart("always", limit=1 << 30, delay=0.0)
    folder = tempfile.TemporaryDirectory()
    ledger = os.path.join(folder.name, "ledger")
    Path(ledger).touch()
    # A task whose worker is killed is done again however often: this one counts deaths by the thousand.
    with folder, Swarm(
        197, topology="hybrid", coordinators=2, memory="8M", restart=policy, room=2, max_deaths=1000, stall=1e9
    ) as swarm:
        agents = len(swarm.plan.nodes)
        swarm.ready(60)
        over, did = threading.Event(), Counter[str]()
        disturber = threading.Thread(target=_disturb, args=(swarm, seed, over, did))
        disturber.start()
        given, samples = 0, []
        began = last = time.monotonic()
        busy, before, cpu = _busy(), 0, 0.0
        period = min(20.0, minutes * 2)
        while (now := time.monotonic()) - began < minutes * 60:
            while given < (now - began) * rate:
                kind = kinds[given % len(kinds)]
                swarm.submit(_work, (given, kind, ledger)).add_done_callback(answered(given))
                given += 1
            if now - last >= period:
                with lock:
                    so_far = answered_so_far
                samples.append({**_sample(swarm, swarm.status()), "rate": (so_far - before) / (now - last)})
                before, last = so_far, time.monotonic()
            time.sleep(step)
        over.set()
        disturber.join()
        swarm.resume()
        swarm.shutdown()
        used, had = (b - a for a, b in zip(busy, _busy(), strict=True))
        cpu = used / had * (os.cpu_count() or 1)
        begun, ended = _read_ledger(ledger)
    missing = sum(n == 0 for n in answers[:given])
    twice = sum(n > 1 for n in answers[:given])
    undone = sum(answers[n] > 0 and ended[n] == 0 for n in range(given))
    again = sum(n > 1 for n in begun.values())
    repeats = sum(ended.values()) - len(ended)
    row = {"minutes": minutes, "agents": agents, "seed": seed, "tasks": given, "unanswered": missing,
           "answered twice": twice, "failed": len(failed), "answered and not done": undone, "done again": again,
           "ended more than once": repeats, **did, "memory %": _flat(samples, "memory"),
           "client and supervisor memory %": _flat(samples, "own"), "descriptors %": _flat(samples, "fds"),
           "rate %": _flat(samples, "rate"), "rate": statistics.median(s["rate"] for s in samples),
           "memory MiB": statistics.median(s["memory"] for s in samples) / (1 << 20),
           "machine's processors": cpu}  # fmt: skip
    say(f"{agents} agents, tasks of {len(kinds)} kinds, {minutes:g} minutes, seed {seed}: {given:,} tasks, {missing} "
        f"without an answer, {twice} with two, {len(failed)} failed, {undone} answered and not in the ledger; "
        + ", ".join(f"{n:,} {what}" for what, n in did.items())
        + f": {again} tasks done again as their worker died in the middle, {repeats} of them after its end was in the "
        f"ledger; {row['rate']:.1f} answers a second ({row['rate %']:+.2f} %), memory {row['memory MiB']:.0f} MiB "
        f"({row['memory %']:+.2f} %; client and supervisor {row['client and supervisor memory %']:+.2f} %), "
        f"descriptors {row['descriptors %']:+.2f} %; the machine used {cpu:.2f} processors")  # fmt: skip
    for text in failed[:5]:
        say(f"  {text}")
    return row


def _read_ledger(path: str) -> tuple[Counter[int], Counter[int]]:
    """How often each task was begun and ended."""
    begun, ended = Counter[int](), Counter[int]()
    for what, number, _ in struct.iter_unpack(_ENTRY, Path(path).read_bytes()):
        (begun if what == b"b" else ended)[number] += 1
    return begun, ended


# ---- many runs that must end when they are complete ----


def completion(runs: int, seed: int, say: Say) -> Row:
    """Runs of random size on swarms of every topology, half of them with a worker killed in the middle: each must
    return with all answers, and only then."""
    rng = random.Random(seed)
    false = missed = tasks = kills = 0
    shapes = [("flat", 40, None), ("mesh", 40, 3), ("hybrid", 40, 3), ("tree", 40, None)]
    for topology, workers, coordinators in shapes:
        policy = Restart("always", limit=1 << 30, delay=0.0)
        with tempfile.TemporaryDirectory() as folder, Swarm(
            workers, topology=topology, coordinators=coordinators, memory="8M", restart=policy, max_deaths=1000
        ) as swarm:
            swarm.ready(60)
            for run in range(runs // len(shapes)):
                n = rng.randrange(1, 200)
                ledger = os.path.join(folder, str(run))
                Path(ledger).touch()
                victim = rng.choice([a.pid for a in swarm.status() if a.pid]) if run % 2 else 0
                when = rng.randrange(n)

                def progress(count: int, of: int, outcome: Any, victim: int = victim, when: int = when) -> None:
                    if victim and count == when:
                        _signal(victim, signal.SIGKILL)

                kills += bool(victim)
                results = swarm.run([(i, "echo", ledger) for i in range(n)], _work, timeout=60, on_progress=progress)
                _, ended = _read_ledger(ledger)
                missed += not results.complete
                false += results.complete and any(ended[i] == 0 for i in range(n))
                false += results.complete and [o.value for o in results] != list(range(n))
                tasks += n
                os.unlink(ledger)
    say(f"{runs} runs, {tasks:,} tasks, {kills} with an agent killed in the middle, seed {seed}: {false} said to be "
        f"complete and were not, {missed} were complete and not said so within 60 s")  # fmt: skip
    return {"runs": runs, "seed": seed, "tasks": tasks, "kills": kills, "false": false, "missed": missed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", choices=["", "messages", "mixed", "completion"])
    parser.add_argument("--minutes", type=float, default=10.0, help="of messages and mixed, each (default 10)")
    parser.add_argument("--runs", type=int, default=1000, help="of completion (default 1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="results are merged into it")
    arguments = parser.parse_args()
    about = machine(["cfnshm", "cloudpickle"])
    print(f"{about['cores']} cores, {about['processor']}, Linux {about['kernel']}, Python {about['python']}, load "
          f"before {about['load before']}", flush=True)  # fmt: skip

    def say(line: str) -> None:
        print(line, flush=True)

    for name, run in (
        ("completion", lambda: completion(arguments.runs, arguments.seed, say)),
        ("messages", lambda: messages(arguments.minutes, say)),
        ("mixed", lambda: mixed(arguments.minutes, arguments.seed, say)),
    ):
        if arguments.only in ("", name):
            row = {**run(), "machine": about}
            if arguments.json:
                known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
                arguments.json.write_text(json.dumps({**known, name: row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
