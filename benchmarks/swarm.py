"""Benchmarks of the swarm: how long so many agents take to start, to be asked and to answer, and to end; how fast one
is woken, paused, replaced; and what it costs beside `xargs -P`.

    python -m benchmarks.swarm [--quick] [--only WORD] [--json FILE] [--plot FILE]

Real processes, every answer checked. Medians of the repeats with their minimum and maximum; the machine is described in
the output. The workers are forks of one warm interpreter (their private memory is in the table). Nothing here has a
pass mark. The founding experiment's figures (one file a message, polled) stand beside ours in the plot.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnshm.swarm import Command, Swarm, here, tree

from .machine import machine, quiet

FOUNDING = {148: 6.0, 218: 7.0, 358: 11.0, 533: 16.0, 708: 20.0}  # agents -> seconds, 84 to 100 % delivered
SIZES = [("flat", 50), ("flat", 300), ("flat", 708), ("mesh", 708), ("hybrid", 708), ("tree", 708), ("flat", 2000),
         ("mesh", 2000), ("tree", 2000), ("mesh", 4000)]  # fmt: skip
WORKERS = {"flat": lambda n: (n, None), "mesh": lambda n: (n - max(2, n // 101), max(2, n // 101)),
           "hybrid": lambda n: (n - 1 - max(2, n // 101), max(2, n // 101))}  # fmt: skip

Row = dict[str, Any]


def spread(values: list[float], digits: int = 3) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def echo(n: int) -> int:
    return n


def _swarm(topology: str, agents: int) -> tuple[Swarm, int]:
    """So many agents in all, and how many of them are workers."""
    if topology == "tree":
        workers = agents - 1 - max(2, round(agents ** (1 / 3)))
        return Swarm(workers, topology="tree", depth=3, memory="4M"), workers
    workers, coordinators = WORKERS[topology](agents)
    return Swarm(workers, topology=topology, coordinators=coordinators, memory="4M"), workers


def coordination(quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Start, a task out to each worker and its answer back, and end."""
    rows = []
    for topology, agents in SIZES:
        if quick and agents > 708:
            continue
        rounds, first, starts, ends, delivered, asked, memory = [], [], [], [], 0, 0, 0
        for _ in range(1 if quick or agents > 708 else 3):
            gc.collect()
            quiet()
            begin = time.perf_counter()
            swarm, workers = _swarm(topology, agents)
            with swarm:
                swarm.ready(300)
                ready = time.perf_counter()
                for i in range(6):
                    results = swarm.run(range(workers), echo, timeout=300)
                    delivered += sum(o.done and o.value == o.index for o in results)
                    asked += workers
                    (rounds if i else first).append(results.seconds)
                one = swarm.status("worker-1")[0].pid
                memory = tree.memory(one)
                total = len(swarm.plan.nodes)
                end = time.perf_counter()
            starts.append(ready - begin)
            ends.append(time.perf_counter() - end)
        row = {"topology": topology, "agents": total, "workers": workers, "delivered %": 100.0 * delivered / asked,
               "start s": starts, "first round s": first, "round s": rounds, "end s": ends,
               "private MiB of a worker": memory / (1 << 20)}  # fmt: skip
        rows.append(row)
        say(f"{topology:7} {total:5} agents: {row['delivered %']:.2f} % delivered; start {spread(starts, 2)} s, first "
            f"round {spread(first)} s, later rounds {spread(rounds)} s, end {spread(ends, 2)} s; a worker has "
            f"{row['private MiB of a worker']:.1f} MiB of its own")  # fmt: skip
    return rows


def whole(quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Spawned, given a task, answered, and ended: agents a second."""
    rows = []
    for _ in range(1 if quick else 5):
        quiet()
        begin = time.perf_counter()
        with Swarm(700, topology="hybrid", coordinators=7, memory="4M") as swarm:
            assert swarm.run(range(700), echo, timeout=300).values == list(range(700))
        rows.append(time.perf_counter() - begin)
    say(f"708 agents (1 + 7 + 700) started, asked, answered, ended: {spread(rows, 2)} s, "
        f"{708 / statistics.median(rows):.0f} agents a second")  # fmt: skip
    return [{"seconds": rows}]


def activation(quick: bool, say: Callable[[str], None]) -> list[Row]:
    """From `submit` in the client to the function's first line in a parked worker."""
    with Swarm(50) as swarm:
        swarm.ready(60)
        swarm.run(range(200), echo)
        took = []
        for _ in range(200 if quick else 2000):
            begin = time.monotonic_ns()
            took.append((swarm.submit(time.monotonic_ns).result() - begin) / 1e6)
    took.sort()
    say(f"activation of a parked worker: p50 {took[len(took) // 2]:.3f} ms, p99 {took[len(took) * 99 // 100]:.3f} ms, "
        f"p99.9 {took[len(took) * 999 // 1000]:.3f} ms, of {len(took)}")  # fmt: skip
    return [{"ms": [took[len(took) // 2], took[len(took) * 99 // 100], took[-1]], "n": len(took)}]


def pausing(quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The whole of 708 stopped, until the kernel says so of each, and going on again; a run under way loses nothing."""
    pauses, resumes = [], []
    with Swarm(700, topology="hybrid", coordinators=7, memory="4M") as swarm:
        swarm.ready(120)
        pids = [a.pid for a in swarm.status()]
        for _ in range(3 if quick else 10):
            futures = [swarm.submit(echo, n) for n in range(700)]
            begin = time.perf_counter()
            swarm.pause()
            while not all((s := tree.stat(p)) is not None and s.state == "T" for p in pids):
                pass
            pauses.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            swarm.resume()
            resumes.append(time.perf_counter() - begin)
            assert [f.result(120) for f in futures] == list(range(700))
    say(f"708 paused in {spread([1e3 * p for p in pauses], 1)} ms (until the kernel showed each as stopped), resumed "
        f"in {spread([1e3 * r for r in resumes], 1)} ms; {len(pauses)} runs of 700 tasks lost nothing")  # fmt: skip
    return [{"pause s": pauses, "resume s": resumes}]


def failover(quick: bool, say: Callable[[str], None]) -> list[Row]:
    """A coordinator of a run under way is killed; until its successor deals tasks to its team."""
    rows = []
    for how in ("adopt", "replace"):
        took, answered = [], 0
        for _ in range(2 if quick else 5):
            with tempfile.TemporaryDirectory() as folder, Swarm(
                700, topology="hybrid", coordinators=7, failover=how, memory="4M"
            ) as swarm:
                swarm.ready(120)
                swarm.run(range(700), echo)
                done = os.path.join(folder, "done")
                killed = 0.0
                team = {n.agent for n in swarm.plan.team("team-1")}
                after: list[float] = []

                def work(n: int, done: str = done) -> tuple[int, str, float]:
                    fd = os.open(done, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                    os.write(fd, b"%d\n" % n)
                    os.close(fd)
                    return n, here().agent, time.monotonic()

                def progress(count: int, of: int, outcome: Any) -> None:
                    nonlocal killed
                    if count == 1500:
                        pid = swarm.status("coordinator-1")[0].pid
                        killed = time.monotonic()
                        os.kill(pid, signal.SIGKILL)

                results = swarm.run(range(6000), work, timeout=300, on_progress=progress)
                assert [v[0] for v in results.values] == list(range(6000))
                assert sorted(map(int, Path(done).read_text().split())) == list(range(6000)), "done twice, or not"
                answered += len(results)
                # What the dead one had dealt is finished without it; a second one a worker came from its successor.
                counts: dict[str, int] = {}
                for _, agent, at in sorted(results.values, key=lambda v: v[2]):
                    if agent in team and at > killed:
                        counts[agent] = counts.get(agent, 0) + 1
                        if counts[agent] == 2:
                            after.append(at - killed)
                            break
                took += after[:1]
        rows.append({"failover": how, "seconds": took, "answered": answered})
        say(f"coordinator of 708 killed in mid-run ({how}): its team has new tasks after {spread(took)} s; "
            f"{answered} of {answered} tasks done, each once")  # fmt: skip
    return rows


def _commands(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Real work: name -> command with {} and its tasks."""
    sources = folder / "c"
    sources.mkdir()
    for i in range(100):
        line = "int f{}_{}(int a) {{ int s = 0; for (int k = 0; k < a; k++) s += k * {}; return s; }}"
        body = "\n".join(line.format(i, j, j) for j in range(30))
        (sources / f"f{i}.c").write_text(body)
    files = sorted(str(p) for p in Path(sysconfig.get_path("stdlib")).glob("*.py"))[:200]
    work = {
        "compile 100 C files": (["gcc", "-O1", "-c", "-o", "/dev/null", "{}"], sorted(map(str, sources.glob("*.c")))),
        "hash 200 files, 40 times each": (
            ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do cat {} {} {} {}; done | sha256sum"],
            files,
        ),
    }
    tests = folder / "suite"
    tests.mkdir()
    for i in range(6):
        (tests / f"test_{i}.py").write_text(
            "import pytest\n@pytest.mark.parametrize('n', range(50))\n"
            "def test(n):\n    assert sum(range(n)) == n * (n - 1) // 2\n"
        )
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "{}"]
    work["6 small pytest suites"] = (suite, sorted(map(str, tests.glob("*.py"))))
    return work


def _processor_time(pids: list[int]) -> float:
    """Seconds of these processes and of those that they have waited for."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", "rb") as file:
            total += sum(map(int, file.read().rpartition(b") ")[2].split()[11:15]))
    return total / tree.TICKS


def overhead(quick: bool, say: Callable[[str], None]) -> list[Row]:
    """50 agents running real commands beside the same commands under `xargs -P 50`, in turns: what it takes longer, and
    what processor time it takes more."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for what, (command, tasks) in _commands(Path(name)).items():
            if shutil.which(command[0]) is None:
                say(f"{what}: {command[0]} is not installed")
                continue
            ours, theirs, used = [], [], []
            with Swarm(50, Command(command), memory="8M") as swarm:
                swarm.ready(60)
                # Not the supervisor: what its children have used is its own only once they have ended.
                pids = [os.getpid(), *(a.pid for a in swarm.status())]
                for i in range(3 if quick else 11):
                    quiet()
                    cpu, begin = _processor_time(pids), time.perf_counter()
                    assert swarm.run(tasks, timeout=600).complete
                    mine, cpu = time.perf_counter() - begin, _processor_time(pids) - cpu
                    begin, before = time.perf_counter(), _processor_time([os.getpid()])
                    subprocess.run(["xargs", "-P", "50", "-I", "{}", *command], input="\n".join(tasks).encode(),
                                   check=True, capture_output=True)  # fmt: skip
                    if i:  # the first warms both
                        ours.append(mine)
                        theirs.append(time.perf_counter() - begin)
                        used.append(100 * (cpu / (_processor_time([os.getpid()]) - before) - 1))
            ratios = [100 * (a / b - 1) for a, b in zip(ours, theirs, strict=True)]
            rows.append({"work": what, "swarm s": ours, "xargs s": theirs, "overhead %": ratios,
                         "processor time %": used})  # fmt: skip
            say(f"{what}: swarm {spread(ours, 2)} s, xargs -P 50 {spread(theirs, 2)} s: pair by pair "
                f"{spread(ratios, 1)} % more, and {spread(used, 1)} % more processor time")  # fmt: skip
    return rows


def plot(results: dict[str, Any], path: Path) -> None:
    """Coordination time and delivery against agents, the founding curve in the same picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = results["coordination"]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=110)
    axes.plot(list(FOUNDING), list(FOUNDING.values()), "o--", color="#999999",
              label="founding experiment (84-100 % delivered)")  # fmt: skip
    for topology, color in (("flat", "#1f6f8b"), ("mesh", "#2a9d5c"), ("hybrid", "#c2571a"), ("tree", "#7b4fa6")):
        mine = [r for r in rows if r["topology"] == topology]
        if mine:
            axes.plot([r["agents"] for r in mine], [statistics.median(r["round s"]) for r in mine], "o-", color=color,
                      label=f"{topology} ({min(r['delivered %'] for r in mine):.0f} % delivered)")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("agents")
    axes.set_ylabel("seconds: a task to each, an answer from each")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--json", type=Path, metavar="FILE", help="results are merged into it")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    about = machine(["cfnshm", "cloudpickle"])
    print(f"{about['cores']} cores, {about['processor']}, Linux {about['kernel']}, Python {about['python']}, load "
          f"before {about['load before']}")  # fmt: skip
    results: dict[str, Any] = {"machine": about}
    if arguments.json and arguments.json.exists():
        results = {**json.loads(arguments.json.read_text()), "machine": about}

    def say(line: str) -> None:
        print(line, flush=True)

    for run in (coordination, whole, activation, pausing, failover, overhead):
        if arguments.only in run.__name__:
            results[run.__name__] = run(arguments.quick, say)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
