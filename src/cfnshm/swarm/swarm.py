"""`Swarm`: hundreds of processes that do tasks.

    from cfnshm.swarm import Swarm

    with Swarm(100) as swarm:
        results = swarm.run(files, count_lines, timeout=60)
        print(results.values, results.missing)

It is an executor (`submit`, `map`, `shutdown`) as well. What starts, watches and ends the processes is a process of its
own (`supervisor`); here is the client: it deals tasks to the top of the topology and gathers what comes back.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import queue
import secrets
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle

from .. import errors
from ..bus import Bus
from ..config import parse_size
from ..errors import Closed, Error, InvalidArgument, NoBus, Timeout
from ..message import Message
from . import limits, output
from . import task as wire
from .clock import Clock
from .command import Command
from .coordinator import MAX_DEATHS, Branch
from .deal import Task
from .operate import Operator
from .plan import WORKER, Plan, make_plan
from .results import Outcome, Results, outcome_of
from .settings import NAME as SUPERVISOR
from .settings import Restart, Settings
from .status import AgentStatus, Health

DRAIN, TERMINATE = 30.0, 5.0
_TICK = 0.5  # seconds: how exactly time in which nobody ran is told from time that passed


class SwarmEnded(Error):
    """The swarm's supervisor has ended, and all its agents with it."""

    code = "SWARM_ENDED"


class _Root(Branch):
    """The client's dealer: who waits for an answer waits here. `grows`: there may be more workers."""

    def __init__(self, bus: Bus, max_deaths: int, grows: bool) -> None:
        super().__init__(bus, max_deaths)
        self.grows = grows
        self.waiting: dict[int, Callable[[wire.Answer], None]] = {}
        self.partial: dict[int, Callable[[Any], None]] = {}
        self.futures: dict[int, Future[Any]] = {}  # of tasks that nobody has been given yet
        self.calls: list[Callable[[], None]] = []  # to be made without the lock, in this order

    def begins(self, task: Task) -> bool:
        future = self.futures.pop(task.id, None)
        if future is None or future.set_running_or_notify_cancel():
            return True
        self.waiting.pop(task.id, None)
        return False

    def pass_up(self, task: Task, body: bytes, message: Message | None) -> None:
        self.futures.pop(task.id, None)
        waits = self.waiting.pop(task.id, None)
        self.partial.pop(task.id, None)
        if waits is not None:
            self.calls.append(lambda: waits(wire.split_answer(body)))

    def pass_partial(self, number: int, body: bytes) -> None:
        tell = self.partial.get(number)
        if tell is not None:
            self.calls.append(lambda: tell(pickle.loads(body)))

    def nobody_left(self, death: dict[str, Any]) -> None:
        if not self.grows:
            super().nobody_left(death)

    @property
    def wait(self) -> float | None:
        return super().wait or (_TICK if self.grows and self.dealer.pending else None)


class Swarm(Operator, Executor):
    """A swarm of worker processes.

    Args:
        size: workers; or (least, most): it grows while tasks wait for workers, and shrinks again.
        worker: what a task is given to, if `run` and `submit_task` are not told: a function of the task, or a
            `Command`.
        topology: "auto", "flat", "mesh", "hybrid" or "tree": see `plan`; `coordinators`, `depth`: their numbers.
        name: of its bus; by default one that nobody else uses. A bus of that name that exists is used, and stays;
            else it is made, and goes with the swarm.
        room: tasks that a worker may have at a time: 1, or more if tasks take less than a millisecond.
        restart: when a worker that died is started again: "never", "on-failure", "always", or a `Restart`.
        failover: of a coordinator that died: "adopt", by the peer with the least to do, or "replace", by a new process
            (also without a peer).
        max_deaths: a task with which so many processes died is set aside, and its answer is `WorkerDied`; a message
            with which so many processes of a program died is set aside, too (`set_aside()`).
        memory: what one agent needs, in bytes or as "300M": more agents than the machine can carry are refused.
        idle: seconds after which a worker of an elastic swarm that has nothing to do ends.
        health: seconds between two reports of the swarm's health, which are values of the bus (`cfnshm/swarm/health`)
            and, where they change, events; None: none. `on_health` is called with each, in a thread of its own.
        stall: seconds without progress after which an agent at a task is called stalled.
        logs: where the agents' output goes: a directory; by default one in `$XDG_STATE_HOME/cfnshm/logs`, which
            goes with a swarm that had no failures, if its bus is its own; after failures it goes after two weeks.
        log_bytes: of each log, until it is rotated; three older ones are kept.
        cgroup: keep all agents in a cgroup of their own, where this process may have one.
        preload: modules that are imported once, before the workers are forked.
        agents, lanes, bus_size, directory: of the bus, if it is made here.

    Functions, arguments and results are pickled; lambdas and what stands in `__main__` by value.

    Raises:
        OverCapacity: the machine cannot carry so many. AgentBusy: the bus has a swarm already. InvalidArgument.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 0,
        worker: Callable[[Any], Any] | Command | None = None,
        *,
        topology: str = "auto",
        coordinators: int | None = None,
        depth: int | None = None,
        name: str | None = None,
        room: int = 1,
        restart: str | Restart = "on-failure",
        failover: str = "adopt",
        max_deaths: int = MAX_DEATHS,
        memory: int | str = limits.MEMORY,
        idle: float = 30.0,
        stall: float = 300.0,
        health: float | None = 30.0,
        on_health: Callable[[Health], None] | None = None,
        logs: str | os.PathLike[str] | None = None,
        log_bytes: int | str = output.MAX_BYTES,
        cgroup: bool = True,
        preload: Iterable[str] = (),
        agents: int | None = None,
        lanes: dict[str, int] | None = None,
        bus_size: int | str | None = None,
        directory: str | None = None,
    ) -> None:
        least, most = (size, size) if isinstance(size, int) else _two(size)
        memory = parse_size(memory, "the memory of an agent")
        limits.need(least, memory)
        self.plan: Plan = make_plan(least, "flat" if most > least else topology, coordinators=coordinators, depth=depth)
        if failover not in ("adopt", "replace"):
            raise InvalidArgument(f"failover is 'adopt' or 'replace', not {failover!r}")
        if not isinstance(room, int) or room < 1:
            raise InvalidArgument(f"room is a number of tasks from 1 up, not {room!r}")
        policy = restart if isinstance(restart, Restart) else Restart(restart)
        if policy.when not in ("never", "on-failure", "always"):
            raise InvalidArgument(f"restart is 'never', 'on-failure' or 'always', not {policy.when!r}")
        limits.need(len(self.plan.nodes), memory)
        if health is not None and not health > 0:
            raise InvalidArgument(f"health is a number of seconds, or None, not {health!r}")
        self.worker = worker
        self._on_health = on_health
        self._reports: queue.SimpleQueue[Health | None] = queue.SimpleQueue()
        name = name or f"swarm-{os.getpid()}-{secrets.token_hex(4)}"
        self._own_bus = not _exists(name, directory)
        self._most, self._least = most, least
        self.bus = self._open_bus(name, most, agents, lanes, bus_size, room, directory)
        self.logs = Path(logs) if logs is not None else output.log_dir(name)
        self._own_logs = logs is None and self._own_bus
        output.sweep()
        self._failed = False
        self._root = _Root(self.bus, max_deaths, most > least)
        self._changed = threading.Condition(threading.Lock())
        self._growing = 0  # workers that were asked for and have not come yet
        self.ended: dict[str, list[str]] = {}  # at the end: who was "drained", "terminated", "killed"
        self.late = 0  # answers that came after nobody waited for them any more
        # On a bus that had a swarm before, an answer to that one's task must not be taken for one of ours.
        self._numbers = itertools.count(1 if self._own_bus else secrets.randbits(52))
        self._functions: dict[int, tuple[Any, str]] = {}
        self._ended: BaseException | None = None
        self._closing = False
        settings = Settings(
            name, directory, self.bus.agent, os.getpid(), secrets.token_hex(16), self.plan, str(self.logs),
            output.parse_limit(log_bytes), self._own_bus, room, most, policy, failover, max_deaths, memory,
            idle if most > least else None, stall, health, on_health is not None, cgroup, list(preload),
            [p or os.getcwd() for p in sys.path],
        )  # fmt: skip
        try:
            self._start(settings)
        except BaseException:
            self._leave_bus()
            raise
        lane = self.bus.info()["lanes"]["normal"]
        for top in self.plan.top:
            node = self.plan.nodes[top]
            wanted = room * node.leaves + (0 if node.role == WORKER else max(1, node.leaves // 4))
            self._root.dealer.join(top, max(1, min(wanted, lane * 3 // 4)))
        self._thread = threading.Thread(target=self._receive, name=f"cfnshm-swarm-{name}", daemon=True)
        self._thread.start()
        if on_health is not None:
            threading.Thread(target=self._tell_health, name=f"cfnshm-swarm-health-{name}", daemon=True).start()
        threading.Thread(target=self._watch, name=f"cfnshm-swarm-watch-{name}", daemon=True).start()

    # -- life --

    def _open_bus(
        self, name: str, most: int, agents: int | None, lanes: dict[str, int] | None, size: int | str | None, room: int,
        directory: str | None,
    ) -> Bus:  # fmt: skip
        people = most - self._least + len(self.plan.nodes)
        widest = max([n.leaves for n in self.plan.nodes.values()] + [len(self.plan.top)], default=1) * room
        slots = 1024
        while slots < 2 * widest:
            slots *= 2
        if lanes is None and self._own_bus:
            lanes = {"normal": slots, "high": 1024}
        if size is None and self._own_bus:
            size = max(64 << 20, people * (12 * slots + (64 << 10)))
        return Bus(
            name, agent=f"client-{os.getpid()}-{secrets.token_hex(2)}", type="client", directory=directory, lanes=lanes,
            agents=agents or (people + 64 if self._own_bus else None), size=size, temporary=self._own_bus,
        )  # fmt: skip

    def _start(self, settings: Settings) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cfnshm.swarm.supervisor"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._stderr, process_group=0, env={**os.environ, "CFNSHM_SWARM_ID": settings.swarm_id},
            )  # fmt: skip
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            with suppress(BrokenPipeError), self.process.stdin as pipe:
                pipe.write(cloudpickle.dumps(settings))
            with self.process.stdout as pipe:
                line = pipe.readline()
            if not line:
                raise SwarmEnded(f"the supervisor ended before it began: {self._last_words()}")
            said: dict[str, Any] = json.loads(line)
            if "error" in said:
                self.process.wait()
                error = errors.BY_CODE.get(said["code"], Error)(said["error"])
                error.have, error.want = said["have"], said["want"]
                raise error
        except BaseException:
            with suppress(Exception):
                self.process.kill()
                self.process.wait()
            self._stderr.close()
            raise

    def _last_words(self) -> str:
        self.process.wait()
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()[-4000:] or f"exit {self.process.returncode}"

    def _leave_bus(self) -> None:
        if self._own_bus:
            self.bus.close()
            return
        with suppress(Error):
            self.bus.unregister(force=True)
        self.bus.close()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.shutdown()
        else:
            self._fail_all(error or SwarmEnded("the swarm was ended"))
            self.shutdown(wait=False, drain=0.0, terminate=1.0)

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, drain: float = DRAIN, terminate: float = TERMINATE
    ) -> None:
        """Ends the swarm: waits for what was submitted (if `wait`), lets the workers finish what is in their inboxes
        for `drain` seconds, then terminates (SIGTERM), and after `terminate` seconds kills what is left. Nothing
        stays behind.
        """
        if self._closing:
            return
        if cancel_futures:
            with self._changed:
                futures = list(self._root.futures.values())
            for future in futures:
                future.cancel()
        with self._changed:
            if cancel_futures:  # what `run` waits for
                for number in [n for n, t in self._root.dealer.tasks.items() if not t.at]:
                    self._root.set_aside(self._root.dealer.tasks[number], "was cancelled: the swarm is shut down")
            calls = self._take_calls()
        _make(calls)
        with self._changed:
            while wait and self._ended is None and self._root.waiting:
                self._changed.wait()
        self._closing = True
        if self.process.poll() is None:
            wish = {"drain": float(drain if wait else 0), "terminate": float(terminate)}
            try:
                self.ended = self._wish("swarm.shutdown", wish).body
                self._failed |= bool(self.ended["killed"])
            except (Error, KeyboardInterrupt):  # the bus is gone, or somebody cannot wait
                self._failed = True
                for _ in range(2):  # the first ends it, the second kills
                    with suppress(ProcessLookupError):
                        self.process.terminate()
        self.process.wait()
        self._fail_all(self._ended or SwarmEnded("the swarm was shut down"))
        self._ended = self._ended or Closed("the swarm was shut down")
        self._wake("swarm.close")
        self._reports.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._stderr.close()
        self._leave_bus()
        if self._own_logs and not self._failed:
            self._remove_logs()

    def _remove_logs(self) -> None:
        for path in self.logs.glob("*.log*"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.logs.rmdir()

    # -- what comes back --

    def _wake(self, kind: str) -> None:
        with suppress(Error):
            self.bus.send(self.bus.agent, None, type=kind, priority="control", timeout=1.0)

    def _tell_health(self) -> None:
        """In a thread of its own: what is called may wait for answers, and end the swarm."""
        while (report := self._reports.get()) is not None:
            assert self._on_health is not None
            _make([partial(self._on_health, report)])

    def _watch(self) -> None:
        """The supervisor's end."""
        self.process.wait()
        if self._closing:
            return
        self._failed = True
        self._ended = SwarmEnded(f"the swarm's supervisor ended: {self._last_words()}; its agents have ended with it")
        self._fail_all(self._ended)
        self._wake("swarm.close")

    def _fail_all(self, why: BaseException) -> None:
        with self._changed:
            for number in list(self._root.waiting):
                task = self._root.dealer.tasks.get(number) or Task(number, b"")
                self._root.dealer.done(number)
                self._root.pass_up(task, wire.died(number, task.body, task.deaths, f"was not done: {why}"), None)
            calls = self._take_calls()
        _make(calls)

    def _take_calls(self) -> list[Callable[[], None]]:
        calls, self._root.calls = self._root.calls, []
        if not self._root.waiting:
            self._changed.notify_all()
        return calls

    def _receive(self) -> None:
        root, closing = self._root, False
        while not closing:
            try:
                batch: Iterable[Message] = self.bus.recv_many(256, root.wait)
            except Timeout:
                batch = ()
            except Error as error:  # the bus is gone, or its inbox was taken away
                self._ended = self._ended or SwarmEnded(f"the swarm's bus cannot be used any more: {error}")
                self._fail_all(self._ended)
                return
            with self._changed:
                for message in batch:
                    closing |= message.type == "swarm.close"
                    if message.type == wire.RESULT and message.correlation_id not in root.waiting:
                        self.late += 1
                    try:
                        root.handle(message)
                        if message.type == "swarm.health" and self._on_health is not None:
                            self._reports.put(_health_of(message.body))
                        if message.type == wire.JOINED:
                            self._growing -= message.body["asked"]
                    except (KeyError, TypeError, ValueError, struct.error):  # of somebody who is not of this swarm
                        traceback.print_exc()
                root.deal()
                root.retry()
                self._grow()
                calls = self._take_calls()
            _make(calls)

    def _grow(self) -> None:
        """Asks for more workers if tasks wait for them."""
        dealer = self._root.dealer
        room = self._most - len(dealer.members) - self._growing
        wanted = min(room, len(dealer.pending) - self._growing)
        if self._most > self._least and wanted > 0:
            with suppress(Error):
                self.bus.send(SUPERVISOR, {"n": wanted}, type="swarm.grow", timeout=0)
                self._growing += wanted

    # -- tasks --

    def _reference(self, function: Any) -> str:
        """The function, stored once for everybody."""
        if self._ended:
            raise self._ended
        known = self._functions.get(id(function))
        if known is None or known[0] is not function:
            if not callable(function):
                raise InvalidArgument(f"a task is given to a function or a Command, not to {function!r:.80}")
            known = self._functions[id(function)] = (function, str(self.bus.context.put(wire.dumps(function))))
        return known[1]

    def _add(
        self, bodies: list[bytes], waits: Callable[[int], Callable[[wire.Answer], None]],
        partial: Callable[[int], Callable[[Any], None]] | None = None, future: Future[Any] | None = None,
    ) -> list[int]:  # fmt: skip
        """New tasks; `waits(i)` is called with the answer of the i-th."""
        with self._changed:
            if self._closing or self._ended:
                raise self._ended or Closed("the swarm was shut down")
            root = self._root
            if not root.dealer.members and self._most == self._least:
                raise wire.WorkerDied(
                    "no worker is left in this swarm" if self._most else "this swarm has no workers: Swarm(size)"
                )
            numbers = [next(self._numbers) for _ in bodies]
            for i, (number, body) in enumerate(zip(numbers, bodies, strict=True)):
                root.waiting[number] = waits(i)
                if partial is not None:
                    root.partial[number] = partial(i)
                if future is not None:
                    root.futures[number] = future
                root.dealer.add(number, body)
            root.deal()
            self._grow()
            full = root.wait is not None
            calls = self._take_calls()
        _make(calls)
        if full:
            self._wake("swarm.full")  # who receives also tries again
        return numbers

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As of any executor. The future is running, and can be cancelled no more, once the task has been given to an
        agent (a coordinator, if there are some). Its `result()` raises what the function raised, with a `TaskError`
        that has the traceback as its cause; or `WorkerDied`, or `SwarmEnded`.

        Raises:
            WorkerDied: no worker is left. Closed: the swarm was shut down.
        """
        future: Future[Any] = Future()

        def answered(got: wire.Answer) -> None:
            with suppress(InvalidStateError):
                try:
                    value = pickle.loads(got.payload) if got.how == wire.DONE else None
                    error = None if got.how == wire.DONE else wire.failure(got)
                except Exception as why:  # it cannot be read here: a class that this process does not have
                    value, error = None, wire.TaskError(f"the answer of {got.agent} cannot be read: {why!r}")
                if error is None:
                    future.set_result(value)
                elif error.__cause__ is not None:
                    cause, error.__cause__ = error.__cause__, None
                    cause.__cause__ = error
                    future.set_exception(cause)
                else:
                    future.set_exception(error)

        (number,) = self._add([wire.call(self._reference(function), args, kwargs)], lambda _: answered, future=future)
        future.add_done_callback(lambda f: self._forget([number]) if f.cancelled() else None)
        return future

    def _forget(self, numbers: Iterable[int]) -> None:
        """Nobody waits for these any more: what nobody has yet is not done."""
        futures = []
        with self._changed:
            root = self._root
            for number in numbers:
                root.waiting.pop(number, None)
                root.partial.pop(number, None)
                futures.append(root.futures.pop(number, None))
                task = root.dealer.tasks.get(number)
                if task is not None and not task.at:
                    root.dealer.done(number)
            if not root.waiting:
                self._changed.notify_all()
        for future in futures:  # those that `begins` did not come to: `wait` and `as_completed` are to be told
            if future is not None and future.cancelled():
                future.set_running_or_notify_cancel()

    def run(
        self,
        tasks: Iterable[Any],
        function: Callable[[Any], Any] | None = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[int, int, Outcome], None] | None = None,
        on_partial: Callable[[Any, Any], None] | None = None,
    ) -> Results:
        """Has every task done, and waits for all answers.

        Args:
            tasks: what the function is called with, one at a time.
            function: default: the swarm's `worker`.
            timeout: seconds. What has not come by then is missing in the results, which say who has it; a late answer
                is dropped and counted (`swarm.late`). Time in which this process was stopped does not count.
            on_progress: called with (answered, all, outcome) as answers come.
            on_partial: called with (task, value) when the function calls `here().partial(value)`; in another thread.

        Raises:
            WorkerDied: no worker is left. SwarmEnded. InvalidArgument: there is no function.
        """
        function = function if function is not None else self.worker
        if function is None:
            raise InvalidArgument("say what is to be done: run(tasks, function), or Swarm(size, worker=function)")
        given = list(tasks)
        began, clock = time.monotonic(), Clock()
        reference = self._reference(function)
        came: queue.SimpleQueue[tuple[int, wire.Answer]] = queue.SimpleQueue()
        outcomes = [Outcome(i, task) for i, task in enumerate(given)]
        bodies = [wire.call(reference, (task,), {}) for task in given]
        partial = (lambda i: lambda value: on_partial(given[i], value)) if on_partial is not None else None
        numbers = self._add(bodies, lambda i: lambda got: came.put((i, got)), partial) if bodies else []
        answered = 0
        try:
            while answered < len(given):
                left = None if timeout is None else timeout - clock.now
                if left is not None and left <= 0:
                    break
                step = None if left is None else min(left, _TICK)
                try:
                    i, got = came.get(timeout=step)
                except queue.Empty:
                    clock.tick(step)
                    continue
                clock.tick(step)
                answered += 1
                outcomes[i] = outcome_of(outcomes[i], got)
                if on_progress is not None:
                    on_progress(answered, len(given), outcomes[i])
        finally:
            if answered < len(given):
                missing = [numbers[o.index] for o in outcomes if o.missing]
                where = self._where(missing)
                outcomes = [replace(o, agent=where.get(numbers[o.index], "")) if o.missing else o for o in outcomes]
                self._forget(missing)
        self._failed |= any(o.error is not None for o in outcomes)
        if self._ended is not None and any(o.error is not None for o in outcomes):
            raise self._ended
        return Results(outcomes, time.monotonic() - began)

    def _where(self, numbers: list[int]) -> dict[int, str]:
        """Which worker has these tasks; the coordinator, if that one does not say."""
        with self._changed:
            tasks = self._root.dealer.tasks
            at = {n: tasks[n].at for n in numbers if n in tasks}
        asked: set[str] = set()
        while todo := {a for a in at.values() if a in self.plan.nodes and self.plan.nodes[a].role != WORKER} - asked:
            for coordinator in todo:
                asked.add(coordinator)
                with suppress(Error):
                    below = self.bus.request(coordinator, None, type=wire.WHERE, timeout=1.0).body
                    at.update({n: below[str(n)] or a for n, a in at.items() if a == coordinator and str(n) in below})
        return at

    def _wish(self, kind: str, body: Any, timeout: float | None = None) -> Message:
        """Asks the supervisor, also when the bus is full."""
        return self.bus.request(SUPERVISOR, body, type=kind, priority="control", timeout=timeout)

    # -- more --

    def pause(self, *targets: str) -> list[str]:
        """See `Operator.pause`."""
        return self._rested(super().pause(*targets), True)

    def resume(self, *targets: str, instruction: Any = None) -> list[str]:
        """See `Operator.resume`."""
        return self._rested(super().resume(*targets, instruction=instruction), False)

    def _rested(self, names: list[str], resting: bool) -> list[str]:
        """What the supervisor tells every dealer, known here at once."""
        with self._changed:
            for name in names:
                self._root.dealer.rest(name, resting)
            self._root.deal()
        return names

    def ready(self, timeout: float | None = None) -> int:
        """Waits until all agents have opened the bus; returns how many. Tasks need not wait for it.

        Raises:
            Timeout.
        """
        return int(self._wish("swarm.ready", {}, timeout).body["agents"])

    def spawn(
        self, program: Callable[..., Any] | Command | Sequence[str], *args: Any, agent: str, team: str = "",
        restart: str | Restart = "never",
    ) -> str:  # fmt: skip
        """Starts an agent that runs a program of its own: a function (with `args`; `here()` has its bus), or a command.
        It finds `CFNSHM_BUS` and `CFNSHM_AGENT` in its environment. It gets no tasks, and is watched, paused, logged
        and ended as all agents. Returns its name.

        Raises:
            AgentBusy: the name is taken. OverCapacity, BadName, InvalidArgument.
        """
        policy = restart if isinstance(restart, Restart) else Restart(restart)
        if isinstance(program, Command):
            body: Any = program
        elif callable(program):
            body = wire.dumps((program, args))
        else:
            body = Command([*program, *args])
        answer = self._wish("swarm.spawn", wire.dumps((agent, team, policy, body)))
        if answer.failed:
            raise errors.BY_CODE.get(answer.body["code"], Error)(answer.body["error"])
        return agent

    def wait_for_ends(self, *agents: str, timeout: float | None = None) -> list[AgentStatus]:
        """Waits until these agents have ended and are not started again; how they are then, or after `timeout` seconds.
        """
        with suppress(Timeout):
            self._wish("swarm.ended", {"agents": agents}, timeout)
        return self.status(*agents)

    def logs_of(self, *agents: str, follow: bool = True) -> Iterator[str]:
        """Lines of the output of these agents, or of all, from the beginning; `follow`: and as they are written, for
        ever."""
        if follow:
            yield from output.follow(self.logs, list(agents) or None, last=None)
            return
        for path in sorted(self.logs.glob("*.log")):
            if not agents or path.stem in agents:
                yield from path.read_text(errors="replace").splitlines()

    def __repr__(self) -> str:
        return f"<Swarm {self.bus.name!r} of {self._least} workers, {self.plan.topology}>"


def _exists(name: str, directory: str | None) -> bool:
    try:
        Bus(name, agent="", directory=directory, create=False).close()
    except NoBus:
        return False
    return True


def _health_of(said: dict[str, Any]) -> Health:
    return Health(said["state"], said["counts"], said["findings"])


def _two(size: Any) -> tuple[int, int]:
    try:
        least, most = size
    except (TypeError, ValueError):
        raise InvalidArgument(f"a size is a number or (least, most), not {size!r}") from None
    if not (isinstance(least, int) and isinstance(most, int) and 0 <= least <= most and most > 0):
        raise InvalidArgument(f"(least, most) are numbers, the smaller first, not {size!r}")
    return least, most


def _make(calls: list[Callable[[], None]]) -> None:
    """Calls what somebody gave to be called: what it raises is told, and no reason to stop receiving."""
    for call in calls:
        try:
            call()
        except Exception:
            traceback.print_exc()
