"""A cgroup for all agents of a swarm and whatever they start, where this process may have one.

What is forked inside it stays inside: also what leaves its process group, its session, its parent, and clears its
environment. So all can be ended by one write, and be stopped without a race against those that fork meanwhile. It
needs version 2 of the kernel's cgroups and a directory that this process may write to: root has it, and so has what
was started with `systemd-run --user --scope -p Delegate=yes`. Without one signals and /proc must do.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "cfnshm-"


def _own() -> Path | None:
    """Where this process's cgroup of version 2 is; None if the machine has none."""
    try:
        below = next(row[3:] for row in Path("/proc/self/cgroup").read_text().splitlines() if row.startswith("0::"))
        rows = [row.split() for row in Path("/proc/self/mounts").read_text().splitlines()]
        return next(Path(row[1] + below) for row in rows if row[2] == "cgroup2")
    except (OSError, StopIteration):
        return None


class Group:
    """A cgroup below this process's own. `path`: where it is."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path, self.home = path, home

    @classmethod
    def make(cls, swarm_id: str) -> Group | None:
        """None if that cannot be had here."""
        home = _own()
        if home is None:
            return None
        _sweep(home)
        group = cls(home / f"{_PREFIX}{os.getpid()}-{swarm_id[:16]}", home)
        try:
            group.path.mkdir()
        except OSError:
            return None
        if group.enter():
            group.leave()
            return group
        group.remove()
        return None

    def enter(self) -> bool:
        """What this process forks from now on is in the group, until it leaves again. False: it is not let in."""
        return self._write("cgroup.procs", "0")

    def leave(self) -> None:
        with suppress(OSError):  # if it cannot, it is known by its pid when the group is signalled
            (self.home / "cgroup.procs").write_text("0")

    def pids(self) -> list[int]:
        """All others that are in it now, or in a group that somebody made below it."""
        return [pid for pid in self._procs() if pid not in (0, os.getpid())]  # 0: of an outer namespace of pids

    def _procs(self) -> list[int]:
        found: list[int] = []
        for path in self.path.rglob("cgroup.procs"):
            with suppress(OSError):  # that group has gone meanwhile
                found += map(int, path.read_text().split())
        return found

    def signal(self, number: int) -> list[int]:
        """To every process in it: nobody is forked unseen meanwhile, for all are frozen while they are told. Returns
        who they were. (They do not stay frozen when they are to stop: a frozen process looks asleep to whoever looks at
        it, a stopped one says that it is stopped.)"""
        frozen = os.getpid() not in self._procs() and self._write("cgroup.freeze", "1")
        try:
            if frozen:
                self._wait_for("frozen 1", 1.0)  # not one that hangs in the kernel; it does not fork either
            pids = self.pids()
            for pid in pids:
                with suppress(ProcessLookupError, PermissionError):  # it may have become another user's
                    os.kill(pid, number)
            return pids
        finally:
            if frozen:
                self._write("cgroup.freeze", "0")

    def kill(self, patience: float = 10.0) -> list[int]:
        """Ends all that are in it, and waits until they have ended, for `patience` seconds at most: one that hangs in
        the kernel cannot be ended by anybody. Returns who they were."""
        pids = self.pids()
        if pids:
            if os.getpid() in self._procs() or not self._write("cgroup.kill", "1"):  # that is there since Linux 5.14
                self.signal(signal.SIGKILL)
            self._wait_for("populated 0", patience)
        return pids

    def _wait_for(self, what: str, patience: float) -> None:
        """Until the kernel says so of the group, or for so long."""
        ends = time.monotonic() + patience
        with suppress(OSError), open(self.path / "cgroup.events") as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while what not in events.read() and (left := ends - time.monotonic()) > 0:
                poll.poll(1000 * left)
                events.seek(0)

    def remove(self) -> None:
        """Takes it away if nobody is in it."""
        _remove(self.path)

    def _write(self, file: str, text: str) -> bool:
        try:
            (self.path / file).write_text(text)
            return True
        except OSError:
            return False


def _remove(path: Path) -> None:
    for folder in [*sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True), path]:  # from below
        with suppress(OSError):
            folder.rmdir()


def _sweep(home: Path) -> None:
    """Groups that killed supervisors left, if nobody is in them."""
    with suppress(OSError):
        for path in home.glob(f"{_PREFIX}*"):
            number = path.name.removeprefix(_PREFIX).partition("-")[0]
            if number.isdigit() and not os.path.exists(f"/proc/{number}"):
                _remove(path)
