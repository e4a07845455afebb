#!/usr/bin/env python3
"""Adds up what gcovr counted, and lists the branches of the core that nothing took.

    coverage.py [--list] PLAIN.json [MORE.json ...]

The simulator compiles the same sources with atomics of its own, so gcovr does not see that a branch there and one in
the plain build are the same. Here they are, where a line has equally many branches in both: a swap that fails is only
reached by the simulator's schedules. A line whose branches differ is counted as in the first file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CSRC = Path(__file__).resolve().parent


def branches(path: str) -> dict[tuple[str, int], list[int]]:
    taken: dict[tuple[str, int], list[int]] = {}
    for file in json.loads(Path(path).read_text())["files"]:
        for line in file["lines"]:
            key = (file["file"], line["line_number"])
            counts = [b["count"] for b in line.get("branches", []) if not b.get("throw")]
            if counts:
                taken[key] = counts
    return taken


def main() -> None:
    listed = "--list" in sys.argv
    total, *more = (branches(path) for path in sys.argv[1:] if path != "--list")
    for other in more:
        for key, counts in other.items():
            if len(total.get(key, [])) == len(counts):
                total[key] = [a + b for a, b in zip(total[key], counts, strict=True)]
    files: dict[str, list[int]] = {}
    for (file, number), counts in sorted(total.items()):
        sums = files.setdefault(file, [0, 0])
        missed = counts.count(0)
        sums[0] += len(counts)
        sums[1] += len(counts) - missed
        if listed and missed:
            text = (CSRC / file).read_text().splitlines()[number - 1].strip()
            print(f"{file}:{number}: {missed} of {len(counts)}: {text[:150]}")
    for file, (n, taken) in files.items():
        print(f"{file:26} {taken:5} of {n:5} branches  {100 * taken / n:5.1f} %")
    n, taken = (sum(v[i] for v in files.values()) for i in (0, 1))
    print(f"{'all of the core':26} {taken:5} of {n:5} branches  {100 * taken / n:5.1f} %")


if __name__ == "__main__":
    main()
