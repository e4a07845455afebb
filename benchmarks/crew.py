"""Processes that take their steps together.

They are forked from a process that has imported no peer: each imports what it needs itself, after the fork.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


class Failed(Exception):
    """A process of the crew ended with an exception; its traceback is the text."""


class Member:
    """What a process of the crew has: `step()` waits until everybody is there (and the crew says go)."""

    def __init__(self, told: int, go: int) -> None:
        self._told, self._go = told, go

    def step(self) -> None:
        os.write(self._told, b".")
        if not os.read(self._go, 1):
            os._exit(1)


class Crew:
    """A context manager: nobody outlives it."""

    def __init__(self) -> None:
        self._all: list[tuple[int, int, int, int]] = []  # pid, told, go, results

    def add(self, work: Callable[..., Any], *arguments: Any, core: int | None = None) -> None:
        """Starts `work(member, *arguments)` in a process of its own; `core` pins it."""
        told, go, results = os.pipe(), os.pipe(), os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            status = 1
            try:
                os.close(told[0]), os.close(go[1]), os.close(results[0])
                for _, *fds in self._all:  # a pipe ends when the only other side does
                    for fd in fds:
                        os.close(fd)
                if core is not None:
                    os.sched_setaffinity(0, {core})
                out = ("ok", work(Member(told[1], go[0]), *arguments))
                status = 0
            except BaseException:
                out = ("failed", traceback.format_exc())
            data = pickle.dumps(out)
            data = struct.pack("<Q", len(data)) + data
            while data:
                data = data[os.write(results[1], data) :]
            os._exit(status)  # no destructors: some peers' threads do not end
        os.close(told[1]), os.close(go[0]), os.close(results[1])
        self._all.append((pid, told[0], go[1], results[0]))

    def wait(self, *which: int) -> None:
        """Until those processes (all without arguments) have come to their step.

        Raises:
            Failed: one of them ended instead.
        """
        for i in which or range(len(self._all)):
            if not os.read(self._all[i][1], 1):
                self._result(i)
                raise Failed("it ended before its step")

    def go(self, *which: int) -> None:
        """Lets those that wait at a step go on."""
        for i in which or range(len(self._all)):
            os.write(self._all[i][2], b".")

    def step(self, *which: int) -> None:
        self.wait(*which)
        self.go(*which)

    def results(self) -> list[Any]:
        """What the processes returned.

        Raises:
            Failed: one of them raised.
        """
        return [self._result(i) for i in range(len(self._all))]

    def _result(self, i: int) -> Any:
        with os.fdopen(os.dup(self._all[i][3]), "rb") as file:
            head = file.read(8)
            if len(head) < 8:
                raise Failed(f"process {i} ended without a word")
            word, value = pickle.loads(file.read(struct.unpack("<Q", head)[0]))
        if word == "failed":
            raise Failed(value)
        return value

    @property
    def pids(self) -> list[int]:
        return [pid for pid, *_ in self._all]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for pid, *fds in self._all:
            for fd in fds:
                os.close(fd)
            os.kill(pid, signal.SIGKILL)  # those that returned are zombies: it does not matter to them
        for pid, *_fds in self._all:
            os.waitpid(pid, 0)


def cpu_seconds(pid: int | None = None) -> float:
    """Processor time of a process with all its threads: exact for this one, in ticks of 10 ms for another."""
    if pid is None:
        return time.process_time()
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
