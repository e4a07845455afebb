"""Runs the suite: `make bench`, `cfnshm bench`, `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import limits, report, suite
from .machine import machine
from .peers import BY_NAME


def parser(prog: str = "cfnshm bench") -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=prog,
        description="Measures cfnshm beside other ways to carry messages between processes, in one run: real "
        "processes, every message checked, peers that alternate, the machine's own limits beside them. A peer that is "
        "not installed is said so; pip install 'cfnshm[bench]' brings all of them. Nothing here has a pass mark.",
        epilog="workloads: " + "; ".join(f"{w.key} ({w.title})" for w in suite.WORKLOADS),
    )  # fmt: skip
    made.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="only these")
    made.add_argument("--peers", metavar="A,B", help="only these, and cfnshm: " + ", ".join(BY_NAME))
    made.add_argument("--quick", action="store_true", help="three repeats of 0.25 s, not five of 0.5 s")
    made.add_argument("--repeats", type=int, metavar="N")
    made.add_argument("--seconds", type=float, metavar="S", help="of each run, about")
    made.add_argument("--json", metavar="FILE", help="keep the results")
    made.add_argument("--add", action="store_true", help="keep what --json FILE has of other workloads")
    made.add_argument("--markdown", metavar="FILE", help="write the tables; - to the terminal")
    made.add_argument("--plots", metavar="FOLDER", help="draw a picture of each workload (needs matplotlib)")
    made.add_argument("--from", dest="made", metavar="FILE", help="measure nothing: tables and plots of that JSON file")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Measures and reports; the exit status is 2 for what does not exist."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if arguments.made:
        results = json.loads(Path(arguments.made).read_text())
    else:
        wanted = ((arguments.workloads, suite.BY_KEY, "workload"), (_peers(arguments), BY_NAME, "peer"))
        for names, known, what in wanted:
            for one in names:
                if one not in known:
                    say(f"cfnshm bench: there is no {what} {one!r}; there are {', '.join(known)}")
                    return 2
        path = Path(arguments.json) if arguments.json else None
        known = json.loads(path.read_text()) if path and arguments.add and path.exists() else None

        def keep(results: dict[str, Any]) -> None:
            if known:
                every = {**known["workloads"], **results["workloads"]}
                results["workloads"] = {w.key: every[w.key] for w in suite.WORKLOADS if w.key in every}
                for name in ("command", "machine", "repeats", "limits"):
                    results[name] = known[name]
            if path:
                path.write_text(json.dumps(results, indent=1) + "\n")

        results = _measure(arguments, say, keep)
    if arguments.markdown == "-":
        print(report.markdown(results))
    elif arguments.markdown:
        Path(arguments.markdown).write_text(report.markdown(results))
    if arguments.plots:
        try:
            for path in report.plots(results, Path(arguments.plots)):
                say(f"  {path}")
        except ImportError:
            say("cfnshm bench: --plots needs matplotlib; pip install 'cfnshm[bench]'")
            return 1
    print(report.overview(results))
    return 0


def _peers(arguments: argparse.Namespace) -> list[str]:
    return [p.strip() for p in arguments.peers.split(",")] if arguments.peers else list(BY_NAME)


def _measure(
    arguments: argparse.Namespace, say: suite.Say, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """`keep` is called after each workload: a long run that is broken off has measured something."""
    repeats = arguments.repeats or (3 if arguments.quick else 5)
    seconds = arguments.seconds or (0.25 if arguments.quick else 0.5)
    peers = list(dict.fromkeys(["cfnshm", *_peers(arguments)]))
    results: dict[str, Any] = {
        "command": " ".join(
            ["cfnshm bench", *arguments.workloads, *(["--quick"] if arguments.quick else []),
             *(f"--{name} {value:g}" for name in ("repeats", "seconds") if (value := getattr(arguments, name)))]
        ),
        "machine": machine(suite.packages()), "repeats": repeats, "limits": {}, "workloads": {},
    }  # fmt: skip
    begun = time.monotonic()
    try:
        c = limits.load()
        results["limits"] = {
            "a bare C ring, 64 B, M msg/s": c.c_ring(5_000_000) / 1e6,
            "copies in and out of 64 KiB, us": c.copies(65536, 2000) * 1e6,
            "copies in and out of 1 MiB, us": c.copies(1 << 20, 300) * 1e6, **limits.empty_calls(),
        }  # fmt: skip
    except limits.NoCompiler as why:
        say(f"{why}; the rows of limits are left out")
        for workload in suite.WORKLOADS:
            workload.limits = ()
    for workload in suite.WORKLOADS:
        if arguments.workloads and workload.key not in arguments.workloads:
            continue
        say(f"{workload.title} ({time.monotonic() - begun:.0f} s)")
        rows = suite.measure(workload, peers, repeats, seconds, say)
        results["workloads"][workload.key] = [suite.summary(row, workload) for row in rows]
        results["machine"]["load after"] = round(os.getloadavg()[0], 2)
        keep(results)
    return results


if __name__ == "__main__":
    raise SystemExit(run(parser("python -m benchmarks").parse_args()))
