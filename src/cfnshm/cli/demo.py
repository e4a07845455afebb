"""`cfnshm demo`: the founding experiment done right.

One master, 7 coordinators and 700 workers, each a process of its own, count and hash the files of
Python's standard library. Every file is a message to a worker and its result a message back. First
hybrid (the master talks to coordinators, they to their workers), then flat (the master to all 707).
The result is compared with one direct pass in one process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bus import Bus
from ..errors import Error, Timeout
from ..testing import temp_bus_name

Result = tuple[int, int, str]  # lines, bytes, SHA-256
_PATIENCE = 120.0  # seconds without any progress before the demo says who is missing
FOUNDING = {"agents": 708, "delivered": 97.8, "seconds": 20.0, "agents_per_second": 35.4}


def look_at(path: str) -> Result:
    """The work: lines, bytes and SHA-256 of one file."""
    data = Path(path).read_bytes()
    return data.count(b"\n"), len(data), hashlib.sha256(data).hexdigest()


def find_files() -> list[str]:
    """The sources of the standard library, without what was installed into it."""
    root = Path(sysconfig.get_path("stdlib"))
    skip = {"site-packages", "dist-packages", "__pycache__"}
    return sorted(
        str(path)
        for path in root.rglob("*.py")
        if not skip & set(path.relative_to(root).parts) and path.is_file()
    )


# ---- the processes ----


class Children:
    """Forked processes that die with their parent."""

    def __init__(self) -> None:
        self.pids: dict[int, str] = {}
        self._libc = ctypes.CDLL(None)

    def start(self, name: str, work: Callable[..., None], *args: Any) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self.pids[pid] = name
            return
        status = 1
        try:
            self._libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() == parent:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                work(name, *args)
                status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def reap(self) -> list[str]:
        """Names of those that ended badly, of all that have ended."""
        failed = []
        while self.pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            name = self.pids.pop(pid, "?")
            if status != 0:
                failed.append(f"{name} ({os.waitstatus_to_exitcode(status)})")
        return failed

    def join(self) -> list[str]:
        failed = []
        for pid, name in list(self.pids.items()):
            _, status = os.waitpid(pid, 0)
            if status != 0:
                failed.append(f"{name} ({os.waitstatus_to_exitcode(status)})")
            del self.pids[pid]
        return failed

    def kill(self) -> None:
        for pid in list(self.pids):
            os.kill(pid, signal.SIGKILL)
        self.join()


def worker(name: str, bus_name: str, boss: str) -> None:
    with Bus(bus_name, agent=name, create=False) as bus:
        bus.send(boss, name, type="ready")
        while True:
            for message in bus.recv_many(256):
                if message.type == "stop":
                    return
                bus.send(message.sender, [message.body, *look_at(message.body)], type="result")


def coordinator(name: str, bus_name: str, workers: list[str]) -> None:
    with Bus(bus_name, agent=name, create=False) as bus:
        ready = 0
        while ready < len(workers):
            ready += sum(m.type == "ready" for m in bus.recv_many(256))
        bus.send("master", ready, type="ready")
        while True:
            message = bus.recv()
            if message.type == "stop":
                return
            files: list[str] = message.body
            results = _deal_and_collect(bus, workers, files, lambda n: None)
            bus.send("master", [[path, *result] for path, result in results.items()], type="merged")


def _deal_and_collect(
    bus: Bus, workers: list[str], files: list[str], progress: Callable[[int], None]
) -> dict[str, Result]:
    """Sends each file to a worker and gathers the results. Full inboxes are no hazard: the results are
    read while dealing."""
    results: dict[str, Result] = {}
    dealt = 0
    while len(results) < len(files):
        if dealt < len(files):
            share = files[dealt : dealt + 4 * len(workers)]
            bus.send_many((workers[(dealt + i) % len(workers)], path) for i, path in enumerate(share))
            dealt += len(share)
        for message in bus.recv_many(512, timeout=_PATIENCE):
            path, lines, size, digest = message.body
            if path in results:
                raise Error(f"the result for {path} came twice")
            results[path] = (lines, size, digest)
        progress(len(results))
    return results


# ---- one run ----


class Progress:
    """A bar on standard error, if that is a terminal."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self.show = sys.stderr.isatty()
        self.last = 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if not self.show or (now - self.last < 0.05 and done < self.total):
            return
        self.last = now
        width = 32
        filled = width * done // max(1, self.total)
        end = "\n" if done >= self.total else ""
        print(
            f"\r{self.label:<24} [{'#' * filled}{'.' * (width - filled)}] {done}/{self.total}{end}",
            end="",
            file=sys.stderr,
            flush=True,
        )


def _nothing_more(bus: Bus) -> None:
    """Acks the last batch; a message that should not be there is found as unread later."""
    with contextlib.suppress(Timeout):
        bus.recv_many(1, timeout=0)


def _private_memory(pids: list[int]) -> int:
    """Median private bytes of some of the processes."""
    sizes = []
    for pid in pids[:: max(1, len(pids) // 24)]:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        sizes.append(sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")))
    return int(statistics.median(sizes)) * 1024 if sizes else 0


def run_swarm(topology: str, coordinators: int, workers: int, files: list[str]) -> dict[str, Any]:
    """One run; the returned figures are read from the bus and the clock."""
    agents = 1 + coordinators * (workers + 1)
    name = temp_bus_name()
    children = Children()
    begin = time.perf_counter()
    with Bus(name, agent="master", agents=agents + 16, temporary=True) as bus:
        try:
            gc.collect()
            gc.freeze()
            results, marks = _conduct(bus, children, topology, coordinators, workers, files, begin)
            _nothing_more(bus)
            memory = _private_memory(list(children.pids))
            bus.broadcast(None, type="stop", priority="control")
            failed = children.join()
            done = time.perf_counter()
            bus.reap()
            counters, findings = bus.info()["counters"], bus.check()
            unread = bus.agent_info().unread
            region = bus.info()["bytes"]
        finally:
            gc.unfreeze()
            children.kill()
    expected = counters["sent"]
    return {
        "topology": topology,
        "agents": agents,
        "results": results,
        "messages": expected,
        "delivered": 100.0 * counters["received"] / expected,
        "redelivered": counters["redelivered"],
        "seconds_start": marks["ready"] - begin,
        "seconds_coordination": marks["done"] - marks["ready"],
        "seconds_all": done - begin,
        "messages_per_second": marks["messages"] / (marks["done"] - marks["ready"]),
        "agents_per_second": agents / (done - begin),
        "shm_bytes": region,
        "private_bytes_per_agent": memory,
        "failed": failed,
        "findings": [text for severity, text in findings if severity == "error"],
        "unread": unread,
    }


def _conduct(
    bus: Bus, children: Children, topology: str, coordinators: int, workers: int,
    files: list[str], begin: float,
) -> tuple[dict[str, Result], dict[str, float]]:  # fmt: skip
    teams = {f"coordinator-{c}": [f"worker-{c}-{w}" for w in range(workers)] for c in range(coordinators)}
    starting = Progress(f"{topology}: starting", coordinators * (workers + 1))
    started = 0
    for boss in teams:
        # Registered before they run: a ready message finds its inbox whoever starts first.
        bus.register(boss, type="coordinator")
    for boss, team in teams.items():
        if topology == "hybrid":
            children.start(boss, coordinator, bus.name, team)
        else:
            children.start(boss, worker, bus.name, "master")
        for member in team:
            children.start(member, worker, bus.name, boss if topology == "hybrid" else "master")
        started += len(team) + 1
        starting(started)
    everyone = [boss for boss in teams] + [m for team in teams.values() for m in team]
    waiting = coordinators if topology == "hybrid" else len(everyone)
    while waiting:
        for message in _patiently(bus, children):
            waiting -= message.type == "ready"
    ready = time.perf_counter()
    before = bus.info()["counters"]["received"]
    progress = Progress(f"{topology}: working", len(files))
    if topology == "flat":
        results = _deal_and_collect(bus, everyone, files, progress)
    else:
        results = {}
        for i, boss in enumerate(teams):
            bus.send(boss, files[i::coordinators])
        merged = 0
        while merged < coordinators:
            for message in _patiently(bus, children):
                merged += 1
                results.update({path: (n, size, sha) for path, n, size, sha in message.body})
            progress(len(results))
    done = time.perf_counter()
    messages = bus.info()["counters"]["received"] - before
    return results, {"ready": ready, "done": done, "messages": messages}


def _patiently(bus: Bus, children: Children) -> Any:
    """The next messages; says who died, or that nothing comes any more, instead of waiting for ever."""
    for _ in range(int(_PATIENCE)):
        try:
            return bus.recv_many(512, timeout=1.0)
        except Timeout:
            failed = children.reap()
            if failed:
                raise Error(f"processes ended early: {', '.join(failed[:5])}") from None
    raise Error(f"nothing came for {_PATIENCE:.0f} s; see cfnshm doctor --bus {bus.name}")


# ---- the thing being replaced ----


def run_baseline(coordinators: int, workers: int) -> dict[str, Any] | None:
    """The file-per-message bus in bash, at a size that ends in seconds."""
    script = Path(__file__).parent.parent / "bash" / "filebus_baseline.sh"
    directory = f"/dev/shm/filebus-{os.getpid()}"
    command = ["bash", str(script), "run", "--coordinators", str(coordinators), "--workers",
               str(workers), "--dir", directory]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as why:
        print(f"cfnshm demo: the file bus did not run: {why}", file=sys.stderr)
        return None
    finally:
        subprocess.run(["rm", "-rf", directory], check=False)


# ---- the table ----


def _table(rows: list[dict[str, Any]], baseline: dict[str, Any] | None) -> str:
    columns: list[list[str]] = [
        ["", "agents", "delivered", "coordination", "with start and end", "messages/s", "agents/s",
         "shared memory", "private/agent"]
    ]  # fmt: skip
    for r in rows:
        columns.append([
            f"cfnshm, {r['topology']}", f"{r['agents']}", f"{r['delivered']:.1f} %",
            f"{r['seconds_coordination']:.2f} s", f"{r['seconds_all']:.2f} s",
            f"{r['messages_per_second']:,.0f}", f"{r['agents_per_second']:,.0f}",
            f"{r['shm_bytes'] / 2**20:.0f} MiB", f"{r['private_bytes_per_agent'] / 2**20:.1f} MiB",
        ])  # fmt: skip
    if baseline:
        columns.append([
            "file bus in bash, hybrid", f"{baseline['agents']}",
            f"{100 * baseline['delivered'] / baseline['expected']:.1f} %",
            f"{baseline['seconds_coordination']:.2f} s", f"{baseline['seconds_with_start']:.2f} s",
            f"{baseline['messages_per_second']:,.0f}",
            f"{baseline['agents'] / baseline['seconds_with_start']:,.0f}", "-", "-",
        ])  # fmt: skip
    columns.append([
        "founding experiment", str(FOUNDING["agents"]), f"{FOUNDING['delivered']} %", "-",
        f"{FOUNDING['seconds']:.0f} s", "-", f"{FOUNDING['agents_per_second']}", "-", "-",
    ])  # fmt: skip
    widths = [max(len(row[i]) for row in columns) for i in range(len(columns[0]))]
    lines = []
    for row in columns:
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _problems(row: dict[str, Any], truth: dict[str, Result]) -> list[str]:
    found = []
    if row["delivered"] != 100.0:
        found.append(f"{row['topology']}: {row['delivered']:.3f} % of the messages were delivered")
    if row["results"] != truth:
        wrong = [p for p in truth if row["results"].get(p) != truth[p]]
        found.append(f"{row['topology']}: {len(wrong)} files differ from the direct pass")
    found += [f"{row['topology']}: {name} failed" for name in row["failed"]]
    found += [f"{row['topology']}: {text}" for text in row["findings"]]
    if row["unread"]:
        found.append(f"{row['topology']}: {row['unread']} messages were left in the master's inbox")
    return found


def run(arguments: argparse.Namespace) -> int:
    if arguments.coordinators < 1 or arguments.workers < 1:
        print("cfnshm demo: at least one coordinator and one worker", file=sys.stderr)
        return 2
    files = find_files()
    begin = time.perf_counter()
    truth = {path: look_at(path) for path in files}
    direct = time.perf_counter() - begin
    rows = [
        run_swarm(topology, arguments.coordinators, arguments.workers, files)
        for topology in ("hybrid", "flat")
    ]
    baseline = None if arguments.no_baseline else run_baseline(3, 10)
    problems = [text for row in rows for text in _problems(row, truth)]
    for row in rows:
        del row["results"]
    lines = sum(result[0] for result in truth.values())
    size = sum(result[1] for result in truth.values())
    if arguments.json:
        print(json.dumps({
            "files": len(files), "lines": lines, "bytes": size, "seconds_direct": direct,
            "runs": rows, "file_bus": baseline, "founding": FOUNDING, "problems": problems,
        }))  # fmt: skip
    else:
        print(
            f"\n{len(files)} files, {lines:,} lines, {size / 2**20:.1f} MiB: a direct pass in one process "
            f"took {direct:.2f} s; every total agrees\n"
            if not problems
            else ""
        )
        print(_table(rows, baseline))
        print(
            f"\nmachine: {os.cpu_count()} cores. 'coordination' is from everybody ready to everything "
            "merged, reading and hashing included.\nThe founding experiment broke at 300 agents when flat."
        )
        for text in problems:
            print(f"PROBLEM: {text}")
    return 1 if problems else 0
