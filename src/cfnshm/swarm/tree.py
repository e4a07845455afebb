"""A process and everything that it starts: its group, its children, how it is stopped and ended.

An agent leads a process group of its own. What leaves that group (a daemon with a session of its own) is still found:
by its parent, by becoming the supervisor's child when its parent ends (PR_SET_CHILD_SUBREAPER), and by the word
`CFNSHM_SWARM_ID=...` in the environment that it was started with.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)
TICKS = os.sysconf("SC_CLK_TCK")


def die_with_parent(parent: int) -> None:
    """This process is killed when its parent ends. `parent`: as whose child it was forked.

    Raises:
        ProcessLookupError: that one has ended already.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError(f"the parent {parent} has ended")


def adopt_orphans() -> None:
    """Descendants whose parents end become this process's children."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


@dataclass(frozen=True)
class Stat:
    """What /proc says of a process: its state's letter, parent, group, and processor time in seconds."""

    state: str
    parent: int
    group: int
    cpu: float


def stat(pid: int) -> Stat | None:
    """None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Stat(fields[0].decode(), int(fields[1]), int(fields[2]), (int(fields[11]) + int(fields[12])) / TICKS)


def children(pid: int) -> list[int]:
    """Of all its threads; those that have ended and are not reaped are among them."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


def descendants(pid: int) -> list[int]:
    """All below it, parents first."""
    found, open_ = [], [pid]
    while open_:
        below = children(open_.pop())
        found += below
        open_ += below
    return found


def environment(pid: int) -> dict[str, str]:
    """What it was started with; empty if that cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return {}
    return dict(w.decode(errors="surrogateescape").split("=", 1) for w in words if b"=" in w)


def of_swarm(swarm_id: str) -> Iterator[int]:
    """Processes of this user that were started with that word in their environment."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and environment(int(name)).get("CFNSHM_SWARM_ID") == swarm_id:
            yield int(name)


def outside(groups: set[int], known: set[int]) -> list[int]:
    """Processes that were started, at whatever remove, by members of these groups, and are in none that is known. Looks
    at every process of the machine once, and asks of most only for their group."""
    parents: dict[int, int] = {}  # of those that are in no known group
    known = known | groups | {0}  # 0: the kernel's own
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(ProcessLookupError, PermissionError):
                if os.getpgid(int(name)) not in known and (s := stat(int(name))) is not None:
                    parents[int(name)] = s.parent
    found = []
    for pid, above in parents.items():
        passed = {pid}
        while above in parents and above not in passed:  # a number may have been used again meanwhile
            passed.add(above)
            above = parents[above]
        with suppress(ProcessLookupError, PermissionError):
            if above > 1 and os.getpgid(above) in groups:
                found.append(pid)
    return found


def signal_group(pid: int, number: int) -> bool:
    """To the group that this process leads; False if nobody is in it."""
    try:
        os.killpg(pid, number)
        return True
    except (ProcessLookupError, PermissionError):
        return False


def signal_tree(pid: int, number: int) -> None:
    """To its group, and to its descendants that are in others."""
    outside = [d for d in descendants(pid) if (s := stat(d)) is not None and s.group != pid]
    signal_group(pid, number)
    for other in outside:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(other, number)


def end_orphans(keep: set[int]) -> list[int]:
    """Kills this process's children that are not among `keep`, with all below them, and reaps them. Returns those."""
    gone: list[int] = []
    spared = set(keep)
    while strays := [pid for pid in children(os.getpid()) if pid not in spared]:
        for pid in strays:
            try:
                for below in descendants(pid):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(below, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError:  # it has become another user's
                spared.add(pid)
        for pid in strays:
            if pid not in spared:
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)
                gone.append(pid)
    return gone


def memory(pid: int) -> int:
    """Bytes that only this process has (private and swapped), or 0."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            rows = [line.split() for line in file]
    except OSError:
        return 0
    return sum(int(r[1]) * 1024 for r in rows if r[0] in ("Private_Clean:", "Private_Dirty:", "Swap:"))
