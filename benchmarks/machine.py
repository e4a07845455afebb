"""What a figure depends on: the machine, the versions, and whether anybody else is using it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

QUIET = 0.06  # the share of the processors that others may use
TRIES = 5


def machine(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Cores, processor, kernel, Python, load, and the versions of packages that are installed."""
    versions = {}
    for package in sorted(set(packages)):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cores": os.cpu_count(), "processor": processor(), "kernel": platform.release().split("-")[0],
        "python": platform.python_version(), "load before": round(os.getloadavg()[0], 2), "packages": versions,
    }  # fmt: skip


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _used() -> tuple[int, int]:
    numbers = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


def busy(seconds: float = 0.15) -> float:
    """The share of all processors that was used (or taken away) while this process slept."""
    used, total = _used()
    time.sleep(seconds)
    used_after, total_after = _used()
    return (used_after - used) / max(1, total_after - total)


def quiet() -> float:
    """Waits for a quiet machine, a few times; the share that others used at the last look."""
    for _ in range(TRIES):
        share = busy()
        if share <= QUIET:
            break
    return share
