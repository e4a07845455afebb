"""Benchmarks: C core, Python, shell, beside what they replace. `make bench`

    python benchmarks/bench.py [--quick] [--json FILE]

Each figure is the median of the repeats with its spread (minimum to maximum); comparisons are ratios of
runs that alternate. Every run checks that each message came once and in order. The machine is described in
the output. Nothing here has a pass mark.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnshm import Bus, Timeout
from cfnshm.testing import temp_bus

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "build" / "c" / "plain-gcc-O2" / "tool_bench"
FORK = multiprocessing.get_context("fork")


def tool(*arguments: Any) -> dict[str, Any]:
    done = subprocess.run(
        [TOOL, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values: list[float], unit: str, scale: float = 1.0) -> dict[str, Any]:
    values = [v / scale for v in values]
    return {
        "median": statistics.median(values), "min": min(values), "max": max(values), "unit": unit,
        "runs": len(values),
    }  # fmt: skip


# ---- Python ----


def _sender(name: str, count: int, batch: int) -> None:
    body = b"x" * 64
    with Bus(name, agent="sender") as bus:
        bus.recv()
        if batch == 1:
            send = bus.send
            for _ in range(count):
                send("receiver", body)
        else:
            bodies = [body] * batch
            for _ in range(count // batch):
                bus.send_many(bodies, to="receiver")


def python_rate(count: int, batch: int) -> float:
    """Messages a second, Python bytes to Python bytes, one process to another."""
    with temp_bus("receiver", size="64M", agents=16) as bus:
        bus.register("sender")
        child = FORK.Process(target=_sender, args=(bus.name, count, batch))
        child.start()
        bus.send("sender", b"go")
        got = 0
        if batch == 1:
            first = bus.recv()
            begin = time.perf_counter()
            recv = bus.recv
            for _ in range(count - 1):
                raw = recv().raw
            assert raw == first.raw
            got = count
        else:
            begin = time.perf_counter()
            while got < count:
                raws = bus.recv_many(960).raws
                got += len(raws)
            assert raws[-1] == b"x" * 64
        seconds = time.perf_counter() - begin
        child.join()
        try:
            bus.recv(timeout=0)
        except Timeout:
            pass
        assert bus.info()["counters"]["received"] == count + 1
    return got / seconds


def python_rate_by_cffi(count: int, batch: int) -> float:
    """The same in a process without the C-API twins."""
    code = f"import bench; print(bench.python_rate({count}, {batch}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "CFNSHM_BINDING": "cffi"}, cwd=ROOT / "benchmarks",
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    return float(done.stdout)


def _echo(name: str) -> None:
    with Bus(name, agent="echo") as bus:
        for message in bus:
            if message.type == "stop":
                return
            bus.reply(message, message.raw)


def python_request(count: int) -> tuple[float, float]:
    """Median and 99th percentile of a request and its answer, in microseconds."""
    with temp_bus("asker", size="32M") as bus:
        child = FORK.Process(target=_echo, args=(bus.name,))
        child.start()
        bus.wait_for("echo", timeout=10)
        took = []
        for _ in range(count):
            begin = time.perf_counter()
            bus.request("echo", b"x" * 64)
            took.append((time.perf_counter() - begin) * 1e6)
        bus.send("echo", b"", type="stop")
        child.join()
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


# ---- shell ----

_SPAWN = r"""
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
extern char **environ;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3; }
static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
int main(int argc, char **argv) {
  enum { N = 400 }; static double took[N];
  for (int i = 0; i < N; i++) { double begin = now(); pid_t p; int status;
    if (posix_spawn(&p, argv[1], 0, 0, argv + 1, environ)) return 1;
    waitpid(p, &status, 0); if (status) return 1; took[i] = now() - begin; }
  qsort(took, N, sizeof *took, compare); printf("%f\n", took[N / 2]); return argc < 0; }
"""


def shell_send(repeats: int) -> dict[str, Any]:
    """Start of `cfnshm send` beside the start of `int main(){return 0;}`, alternating."""
    command = shutil.which("cfnshm")
    assert command
    with (
        tempfile.TemporaryDirectory() as folder,
        temp_bus("sink", size="32M", lanes={"normal": 32768}) as bus,
    ):
        for name, code in (("spawn", _SPAWN), ("trivial", "int main(void) { return 0; }")):
            Path(folder, f"{name}.c").write_text(code)
            subprocess.run(["gcc", "-O2", "-o", f"{folder}/{name}", f"{folder}/{name}.c"], check=True)
        os.environ["CFNSHM_BUS"] = bus.name
        ours, trivial = [], []
        for _ in range(repeats):
            for values, argv in (
                (trivial, [f"{folder}/trivial"]),
                (ours, [command, "send", "sink", "x" * 64]),
            ):
                out = subprocess.run([f"{folder}/spawn", *argv], capture_output=True, text=True, check=True)
                values.append(float(out.stdout))
        del os.environ["CFNSHM_BUS"]
    return {
        "send": spread(ours, "us"),
        "trivial C program": spread(trivial, "us"),
        "ratio": statistics.median(ours) / statistics.median(trivial),
    }


def file_buses() -> dict[str, float]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import filebus

    script = ROOT / "src" / "cfnshm" / "bash" / "filebus_baseline.sh"
    out = subprocess.run(
        ["bash", script, "rate", "--messages", "200"], capture_output=True, text=True, check=True, timeout=120
    )
    return {
        "python": filebus.rate(20000),
        "bare": filebus.bare_rate(20000),
        "bash": json.loads(out.stdout.strip().splitlines()[-1])["messages_per_second"],
    }


# ---- all ----


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller runs, three repeats")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    repeats, k = (3, 1) if arguments.quick else (5, 4)

    def repeat(run: Callable[[], float], unit: str, scale: float = 1.0) -> dict[str, Any]:
        return spread([run() for _ in range(repeats)], unit, scale)

    results: dict[str, Any] = {"machine": machine()}
    rate = "messages_per_second"
    results["C, 1 to 1, 64 B, one call a message"] = repeat(
        lambda: tool("one", "--messages", 1_000_000 * k)[rate], "M/s", 1e6
    )
    results["C, 1 to 1, 16 B, frames of 96"] = repeat(
        lambda: tool("one", "--messages", 2_000_000 * k, "--batch", 96)[rate], "M/s", 1e6
    )
    results["C, 8 to 1, 64 B"] = repeat(
        lambda: tool("many", "--senders", 8, "--messages", 50_000 * k)[rate], "M/s", 1e6
    )
    results["C, 708 to 1, 64 B"] = repeat(
        lambda: tool("many", "--senders", 708, "--messages", 500 * k)[rate], "M/s", 1e6
    )
    for where in ((), ("--same-core",)):
        runs = [tool("pingpong", "--messages", 5000 * k, *where) for _ in range(repeats)]
        label = "one core" if where else "two cores"
        results[f"C, round trip, {label}, p50"] = spread([r["bus_p50_us"] for r in runs], "us")
        results[f"C, round trip, {label}, ratio to a bare futex"] = spread(
            [r["ratio_p50"] for r in runs], "x"
        )
    results["C, 708 idle agents, percent of one core"] = spread(
        [tool("idle", "--agents", 708, "--seconds", 5)["percent_of_one_core"]], "%"
    )
    results["Python, 1 to 1, 64 B, one call a message"] = repeat(
        lambda: python_rate(100_000 * k, 1), "M/s", 1e6
    )
    results["Python, 1 to 1, 64 B, send_many and recv_many"] = repeat(
        lambda: python_rate(480_000 * k, 960), "M/s", 1e6
    )
    results["Python through cffi alone, one call a message"] = repeat(
        lambda: python_rate_by_cffi(50_000 * k, 1), "M/s", 1e6
    )
    results["Python through cffi alone, send_many and recv_many"] = repeat(
        lambda: python_rate_by_cffi(480_000 * k, 960), "M/s", 1e6
    )
    asked = [python_request(2000 * k) for _ in range(repeats)]
    results["Python, request and reply, p50"] = spread([p50 for p50, _ in asked], "us")
    results["Python, request and reply, p99"] = spread([p99 for _, p99 in asked], "us")
    results["shell, cfnshm send"] = shell_send(repeats)
    files = file_buses()
    results["file bus, Python"] = {"median": files["python"] / 1e6, "unit": "M/s", "runs": 1}
    results["file bus, bare 64 B files"] = {"median": files["bare"] / 1e6, "unit": "M/s", "runs": 1}
    results["file bus, bash"] = {"median": files["bash"] / 1e6, "unit": "M/s", "runs": 1}
    one = results["Python, 1 to 1, 64 B, one call a message"]["median"] * 1e6
    results["ratio, Python one call to file bus"] = {
        "python": one / files["python"], "bare files": one / files["bare"], "bash": one / files["bash"]
    }  # fmt: skip
    results["machine"]["load after"] = os.getloadavg()[0]
    _show(results)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(), "processor": _processor(), "kernel": platform.release(),
        "python": platform.python_version(), "load before": os.getloadavg()[0],
    }  # fmt: skip


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _show(results: dict[str, Any]) -> None:
    for name, value in results.items():
        if isinstance(value, dict) and "median" in value:
            line = f"{value['median']:.3f} {value['unit']}"
            if "min" in value and value["runs"] > 1:
                line += f"  ({value['min']:.3f} to {value['max']:.3f}, {value['runs']} runs)"
        elif isinstance(value, dict) and "send" in value:
            trivial = value["trivial C program"]["median"]
            line = (
                f"{value['send']['median']:.0f} us, a trivial program {trivial:.0f} us: {value['ratio']:.2f}x"
            )
        else:
            line = ", ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
        print(f"{name:52} {line}")


if __name__ == "__main__":
    main()
