"""A command as the worker: each task runs it once.

    swarm = Swarm(8, worker=Command(["gcc", "-c", "{}"]))
    for outcome in swarm.run(["a.c", "b.c"]): print(outcome.value.exit)
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import Error, InvalidArgument
from . import tree
from .place import here
from .settings import describe


class CommandFailed(Error):
    """A command ended badly. `result` is its `CommandResult`."""

    code = "COMMAND_FAILED"

    def __init__(self, text: str, result: CommandResult) -> None:
        super().__init__(text)
        self.result = result

    def __reduce__(self) -> Any:
        return CommandFailed, (self.args[0], self.result)


@dataclass(frozen=True)
class CommandResult:
    """Attributes:
    exit: its status; negative: the signal that ended it.
    stdout, stderr: what it wrote, at most `Command.output` bytes of each, the last ones.
    seconds: from its start to its end.
    cut: how many bytes are missing in front of stdout and stderr.
    """

    exit: int
    stdout: bytes
    stderr: bytes
    seconds: float
    cut: int = 0

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


@dataclass(frozen=True)
class Command:
    """A function of a task that runs a command with it.

    Args:
        args: the program and its arguments. In each, "{}" is replaced by the task; if there is none, the task goes to
            the command's standard input. A task that is no text is given as JSON.
        check: raise `CommandFailed` if it does not exit with 0.
        timeout: seconds until it and all that it started is killed.
        env: more variables.
        cwd: where it runs.
        output: bytes of each of stdout and stderr that are kept, the last ones.
        keep_children: leave what it started and did not wait for; else it ends with the command.

    It runs in the agent's process group, so that it is paused, resumed and ended with it, and finds `CFNSHM_BUS`,
    `CFNSHM_AGENT` and `CFNSHM_TASK` in its environment.
    """

    args: Sequence[str]
    check: bool = True
    timeout: float | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    output: int = 1 << 20
    keep_children: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.args, str) or not self.args or not all(isinstance(a, str) for a in self.args):
            raise InvalidArgument(f"a command is a list of texts, the program first, not {self.args!r:.80}")

    def __call__(self, task: Any = "") -> CommandResult:
        """Runs it.

        Raises:
            CommandFailed: it exited badly, and `check` is set. TimeoutError: it was killed after `timeout` seconds.
            OSError: it cannot be started.
        """
        text = task if isinstance(task, str) else msgspec.json.encode(task).decode()
        args = [a.replace("{}", text) for a in self.args]
        given = None if any("{}" in a for a in self.args) else text.encode()
        place = here()
        env = {**os.environ, **self.env, "CFNSHM_TASK": str(place.task)}
        tree.adopt_orphans()
        began = time.monotonic()
        process = subprocess.Popen(
            args, stdin=subprocess.DEVNULL if given is None else subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=env, cwd=self.cwd,
        )  # fmt: skip
        try:
            out, err, cut = _Tails(process, given, self.output).read(self.timeout, began)
        except BaseException:
            _end(process)
            raise
        finally:
            if not self.keep_children:
                tree.end_orphans({process.pid} if process.returncode is None else set())
        result = CommandResult(process.returncode, out, err, time.monotonic() - began, cut)
        if self.check and result.exit != 0:
            raise CommandFailed(_describe(args, result), result)
        return result


def _describe(args: Sequence[str], result: CommandResult) -> str:
    how = f"exit {result.exit}" if result.exit >= 0 else describe(result.exit)
    last = (result.stderr or result.stdout).decode(errors="replace").strip().splitlines()[-10:]
    return "\n  | ".join([f"{shlex.join(args)}: {how} after {result.seconds:.2f} s", *last])


def _end(process: subprocess.Popen[bytes]) -> None:
    for pid in [*tree.descendants(process.pid), process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


class _Tails:
    """Feeds a process and keeps the ends of what it writes: 100 MB are read and cost no memory. It is read until the
    command has ended; a daemon of its that holds the pipes open is not waited for."""

    def __init__(self, process: subprocess.Popen[bytes], given: bytes | None, keep: int) -> None:
        self.process, self.given, self.keep = process, given or b"", keep
        self.cut = 0

    def read(self, timeout: float | None, began: float) -> tuple[bytes, bytes, int]:
        process = self.process
        assert process.stdout is not None
        assert process.stderr is not None
        kept = {process.stdout: bytearray(), process.stderr: bytearray()}
        ended = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(ended, selectors.EVENT_READ)
                for stream in kept:
                    os.set_blocking(stream.fileno(), False)
                    selector.register(stream, selectors.EVENT_READ)
                if process.stdin is not None:
                    os.set_blocking(process.stdin.fileno(), False)
                    selector.register(process.stdin, selectors.EVENT_WRITE)
                over = False
                while not over:
                    left = None if timeout is None else timeout - (time.monotonic() - began)
                    if left is not None and left <= 0:
                        raise TimeoutError(f"{shlex.join(process.args)} was killed after {timeout} s")  # type: ignore[arg-type]
                    for key, _ in selector.select(left):
                        if key.fileobj == ended:
                            over = True
                        elif key.fileobj is process.stdin:
                            self._feed(selector)
                        elif self._take(key.fileobj, kept[key.fileobj]) == 0:  # type: ignore[index]
                            selector.unregister(key.fileobj)
                for stream, into in kept.items():
                    while self._take(stream, into):
                        pass
            process.wait()
        finally:
            os.close(ended)
            for end in (process.stdin, process.stdout, process.stderr):
                if end is not None:
                    with suppress(BrokenPipeError):
                        end.close()
        out, err = (bytes(b[-self.keep :]) if self.keep else b"" for b in kept.values())
        return out, err, self.cut + sum(max(0, len(b) - self.keep) for b in kept.values())

    def _feed(self, selector: Any) -> None:
        stream = self.process.stdin
        assert stream is not None
        try:
            n = os.write(stream.fileno(), self.given[:65536])
            self.given = self.given[n:]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to know
            self.given = b""
        if not self.given:
            selector.unregister(stream)
            stream.close()

    def _take(self, stream: Any, into: bytearray) -> int:
        try:
            data = os.read(stream.fileno(), 1 << 18)
        except BlockingIOError:
            return 0
        into += data
        if len(into) > 4 * self.keep + (1 << 20):
            self.cut += len(into) - self.keep
            del into[: -self.keep or None]
        return len(data)
