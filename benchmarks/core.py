"""The C core and the shell, without Python, and how they grow with agents.

    python -m benchmarks.core [--quick] [--json FILE]

Each figure is the median of the repeats with its spread (minimum to maximum); comparisons are ratios of
runs that alternate. Every run checks that each message came once and in order. The machine is described in
the output. Nothing here has a pass mark.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnshm.testing import temp_bus

from . import filebus
from .machine import machine

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "build" / "c" / "plain-gcc-O2" / "tool_bench"


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
    for senders, each in ((64, 6000), (708, 500), (4096, 100)):
        results[f"C, {senders} to 1, 64 B"] = repeat(
            lambda senders=senders, each=each: tool("many", "--senders", senders, "--messages", each * k)[rate],
            "M/s", 1e6,
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
    results["shell, cfnshm send"] = shell_send(repeats)
    files = file_buses()
    results["file bus, Python"] = {"median": files["python"] / 1e6, "unit": "M/s", "runs": 1}
    results["file bus, bare 64 B files"] = {"median": files["bare"] / 1e6, "unit": "M/s", "runs": 1}
    results["file bus, bash"] = {"median": files["bash"] / 1e6, "unit": "M/s", "runs": 1}
    results["machine"]["load after"] = os.getloadavg()[0]
    _show(results)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


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
