"""What agents write: each agent's stdout and stderr in a log of its own, with time and name, and rotated.

    2026-11-22T03:41:13.123 worker-17 err| Traceback (most recent call last):

One process reads all the pipes. It outlives the supervisor by as long as it takes to write what was written last; and
if the supervisor was killed, it ends what that left running.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..checkpoint import directory as state_dir
from ..config import parse_size
from . import tree
from .cgroup import Group

MAX_BYTES, KEPT = 10 << 20, 3  # of one log, and how many older ones stay
_CHUNK = 1 << 16
_LINE = 1 << 16  # a longer line is cut in pieces
_STREAMS = ("out", "err")
_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100


def log_dir(bus: str) -> Path:
    """Where the logs of a bus's swarm are, unless `Swarm(logs=...)` said otherwise."""
    return state_dir() / "logs" / bus


def sweep(days: float = 14.0) -> None:
    """Removes the logs that swarms without a name (`swarm-PID-...`) left after failures so many days ago."""
    oldest = time.time() - 86400 * days
    with suppress(OSError):
        for folder in (state_dir() / "logs").iterdir():
            named = re.fullmatch(r"swarm-(\d+)-[0-9a-f]{8}", folder.name)
            if named is None or os.path.exists(f"/proc/{named[1]}"):
                continue
            with suppress(OSError):
                files = list(folder.iterdir())
                if max(file.stat().st_mtime for file in [folder, *files]) < oldest:
                    for file in files:
                        file.unlink()
                    folder.rmdir()


class Log:
    """One agent's log: `write` puts whole lines into it, each with time, name and stream in front."""

    def __init__(self, folder: Path, agent: str, max_bytes: int = MAX_BYTES) -> None:
        self.path = folder / f"{agent}.log"
        self.agent, self.max_bytes = agent, max_bytes
        self.pipes: set[int] = set()  # what is read into it
        self._rest = {"out": b"", "err": b""}  # the line that has not ended
        self._file: Any = None
        self._size = 0

    def write(self, stream: str, data: bytes, end: bool = False) -> None:
        """What came of a stream; `end`: nothing more will."""
        data = self._rest[stream] + data
        if not end and len(data) < _LINE:
            data, newline, rest = data.rpartition(b"\n")
            data += newline
        else:
            rest = b""
        self._rest[stream] = rest
        if not data:
            return
        head = f"{_stamp(time.time())} {self.agent} {stream}| ".encode()
        lines = data.removesuffix(b"\n").replace(b"\n", b"\n" + head)
        self._put(head + lines + b"\n")

    def _put(self, block: bytes) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
            self._size = self._file.tell()
        if self._size and self._size + len(block) > self.max_bytes:
            self._file.close()
            for i in range(KEPT, 0, -1):
                older = self.path.with_suffix(f".log.{i - 1}") if i > 1 else self.path
                with suppress(FileNotFoundError):
                    older.replace(self.path.with_suffix(f".log.{i}"))
            self._file, self._size = open(self.path, "ab", buffering=0), 0  # noqa: SIM115
        self._file.write(block)
        self._size += len(block)

    def rest(self) -> None:
        """Closes the file until something is written again: hundreds of them need not be open."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"


# ---- the process that writes them ----


class Writer:
    """Reads pipes that the supervisor hands over, until that has ended and all has been read."""

    def __init__(
        self, control: socket.socket, supervisor: int, folder: Path, swarm_id: str, max_bytes: int, group: Group | None
    ) -> None:
        self.control, self.folder, self.swarm_id, self.max_bytes = control, folder, swarm_id, max_bytes
        self.group = group
        self.supervisor = supervisor  # a pidfd
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends when there is nothing to read any more
        self.logs: dict[str, Log] = {}
        self.pipes: dict[int, tuple[Log, str]] = {}
        self.groups: dict[str, int] = {}  # of agents that have not ended
        self.selector = selectors.DefaultSelector()
        self.closing = self.orphaned = False

    def run(self) -> None:
        self.selector.register(self.control, selectors.EVENT_READ)
        self.selector.register(self.supervisor, selectors.EVENT_READ)
        while not self.closing:
            for key, _ in self.selector.select():
                if key.fileobj is self.control:
                    self._told()
                elif key.fileobj == self.supervisor:
                    while not self.closing:  # what it said before
                        self._told()
                elif key.fd in self.pipes:  # not closed since the kernel was asked
                    self._read(key.fd)
        if self.orphaned:
            self._end_the_rest()
        for fd in list(self.pipes):
            while fd in self.pipes and self._read(fd):
                pass

    def _told(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 253)
        except ConnectionResetError:
            data = b""
        if not data:  # it has ended, and did not say that all is done
            self.closing = self.orphaned = True
            return
        said = json.loads(data)
        if said["do"] == "close":
            self.closing = True
            return
        if said["do"] == "add":
            for i, (agent, pid) in enumerate(said["agents"]):
                self.groups[agent] = pid
                for stream, fd in zip(_STREAMS, fds[2 * i : 2 * i + 2], strict=True):
                    os.set_blocking(fd, False)
                    log = self._log(agent)
                    log.pipes.add(fd)
                    self.pipes[fd] = (log, stream)
                    self.selector.register(fd, selectors.EVENT_READ)
        elif said["do"] == "ended":
            log = self._log(said["agent"])
            self.groups.pop(said["agent"], None)
            for fd in list(log.pipes):
                while fd in self.pipes and self._read(fd):
                    pass
            log.rest()
            if said["lines"]:
                self.control.send(json.dumps(tail(log.path, said["lines"])).encode())

    def _log(self, agent: str) -> Log:
        if agent not in self.logs:
            self.logs[agent] = Log(self.folder, agent, self.max_bytes)
        return self.logs[agent]

    def _read(self, fd: int) -> bool:
        """A piece of a pipe, so that one who writes much keeps nobody waiting; False: nothing is there."""
        log, stream = self.pipes[fd]
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        try:
            log.write(stream, data, end=not data)
        except OSError as error:  # a full disk must not stop those who write
            print(f"the log {log.path} cannot be written: {error}", file=sys.stderr, flush=True)
        if not data:
            self.selector.unregister(fd)
            os.close(fd)
            del self.pipes[fd]
            log.pipes.discard(fd)
            if not log.pipes:
                log.rest()
        return bool(data)

    def _end_the_rest(self) -> None:
        """The supervisor was killed: what it started ends now."""
        for group in self.groups.values():
            tree.signal_group(group, signal.SIGKILL)
        for pid in tree.of_swarm(self.swarm_id):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if self.group is not None:
            self.group.kill()
            self.group.remove()


# ---- for those who read them ----


def tail(path: Path, lines: int = 20) -> list[str]:
    """The last lines of a log, whole; empty if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(_start_of_last(file, lines))
            found = file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    return [line[:2000] for line in found if line]


def _start_of_last(file: BinaryIO, lines: int) -> int:
    """Where the last lines of a file begin; of very long ones, fewer."""
    end = file.seek(0, os.SEEK_END)
    first = max(0, end - 256 * lines - 65536)
    file.seek(first)
    data = file.read(end - first)
    at = len(data)
    for _ in range(lines + 1):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return first
    return first + at + 1


def follow(
    folder: Path, agents: list[str] | None = None, last: int | None = 0, until: int | None = None
) -> Iterator[str]:
    """Lines of these agents' logs (default: of all in the folder) as they are written, for ever, or until descriptor
    `until` can be read: then what has been written by then. Before that the last lines that are there, so many of each
    log, or all (None). Waits for the kernel to say that something was written."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(folder), _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO) < 0:
        raise OSError(ctypes.get_errno(), f"cannot follow {folder}: {os.strerror(ctypes.get_errno())}")
    open_: dict[str, _Followed] = {}
    try:
        for path in sorted(folder.glob("*.log")):
            if agents is None or path.stem in agents:
                open_[path.name] = _Followed(path, last)
        for one in open_.values():
            yield from one.lines()
        while True:
            ready = select.select([fd] if until is None else [fd, until], [], [])[0]
            if fd not in ready:
                return
            data, at, names = os.read(fd, 1 << 16), 0, []
            while at < len(data):
                _, _, _, length = struct.unpack_from("iIII", data, at)
                names.append(data[at + 16 : at + 16 + length].rstrip(b"\0").decode())
                at += 16 + length
            for name in dict.fromkeys(names):
                if not name.endswith(".log") or (agents is not None and name.removesuffix(".log") not in agents):
                    continue
                if name not in open_:
                    open_[name] = _Followed(folder / name, None)
                yield from open_[name].lines()
    finally:
        os.close(fd)
        for one in open_.values():
            one.close()


class _Followed:
    """A log that is read as it grows, over its rotations."""

    def __init__(self, path: Path, last: int | None) -> None:
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115
        if last is not None:
            self._file.seek(_start_of_last(self._file, last))
        self._rest = b""

    def close(self) -> None:
        self._file.close()

    def lines(self) -> Iterator[str]:
        yield from self._more()
        try:
            if os.stat(self.path).st_ino != os.fstat(self._file.fileno()).st_ino:
                self._file.close()
                self._file = open(self.path, "rb")  # noqa: SIM115
                yield from self._more()
        except FileNotFoundError:
            return

    def _more(self) -> Iterator[str]:
        while data := self._file.read(1 << 20):
            *whole, self._rest = (self._rest + data).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")


def parse_limit(value: int | str) -> int:
    """Bytes of a log's size limit."""
    return max(4096, parse_size(value, "the size of a log"))
