"""How many agents a machine can carry, and a refusal with the numbers."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from ..errors import OverCapacity

MEMORY = 8 << 20  # of one worker, unless told otherwise: what a forked interpreter comes to have for itself
_RESERVE = 0.1  # of the memory, for everybody else


@dataclass(frozen=True)
class Capacity:
    """Attributes: most (agents), reason (what ends there)."""

    most: int
    reason: str


def available_memory() -> int:
    """Bytes that processes may still take: what the kernel says, and what this cgroup may have."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    for limit, used in _cgroup_limits("memory.max", "memory.current", "memory.limit_in_bytes", "memory.usage_in_bytes"):
        free = min(free, max(0, limit - used))
    return free


def _cgroup_limits(limit2: str, used2: str, limit1: str, used1: str) -> list[tuple[int, int]]:
    """Limit and use of this process's cgroups, of version 2 and 1, from its own up to the root."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and limit1.partition(".")[0] not in controllers.split(","):
            continue
        roots = [f"/sys/fs/cgroup/{controllers}"] if controllers else ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        names = (limit1, used1) if controllers else (limit2, used2)
        for root in roots:
            place = Path(root + path)
            while True:
                try:
                    limit, used = ((place / name).read_text().strip() for name in names)
                    if limit != "max":
                        found.append((int(limit), int(used)))
                except OSError:
                    pass
                if str(place) in (root, "/"):
                    break
                place = place.parent
    return found


def _processes() -> int:
    return sum(name.isdigit() for name in os.listdir("/proc"))


def capacity(memory: int) -> Capacity:
    """How many more agents of `memory` bytes each fit on this machine now."""
    free = available_memory()
    bounds = [
        (
            int(free * (1 - _RESERVE)) // max(1, memory),
            f"{free >> 20} MiB of memory are available, at {memory / (1 << 20):.0f} MiB an agent",
        ),
        (int(Path("/proc/sys/kernel/pid_max").read_text()) - _processes() - 100, "the kernel's pid_max"),
    ]
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        bounds.append((soft - _processes(), "this user's process limit (ulimit -u)"))
    for limit, used in _cgroup_limits("pids.max", "pids.current", "pids.max", "pids.current"):
        bounds.append((limit - used, "this container's limit of processes (pids.max)"))
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    bounds.append(((files - 100) // 3, f"the limit of open files ({files}; ulimit -Hn), three for each agent"))
    most, reason = min(bounds)
    return Capacity(max(0, most), reason)


def need(agents: int, memory: int) -> None:
    """Raises:
    OverCapacity: so many agents of `memory` bytes each do not fit.
    """
    room = capacity(memory)
    if agents <= room.most:
        return
    error = OverCapacity(
        f"{agents} more agents are too many for this machine: at most {room.most}, by {room.reason}. Take fewer, give "
        "back what others hold, or say what an agent really needs (memory=)"
    )
    error.have, error.want = room.most, agents
    raise error


def raise_file_limit() -> None:
    """As many open files as are allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
