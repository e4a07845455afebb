"""`AsyncBus`: the same verbs for asyncio.

    async with AsyncBus("build-42", agent="planner") as bus:
        async for message in bus:
            await bus.reply(message, "done")

It is a `Bus` whose waits go through the event loop: the doorbells (one FIFO for the inbox, one for
replies) are watched by the loop, so a sleeping task costs neither a thread nor a poll. What rarely
waits (a send to a full inbox, a receipt) is tried first and then waits in a worker thread.
"""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from ._core import check, deadline_of, lib
from .agents import AgentInfo, Team
from .aio_sync import AsyncBarrier, AsyncElection, AsyncLock, AsyncSemaphore
from .bus import Bus
from .checkpoint import Checkpoint, Cut
from .context import Context
from .control import Order, Signalled
from .errors import Closed, Error, Full, NoSpace, Timeout, UnknownAgent
from .inbox import accounts
from .message import Batch, Message, lane_of
from .outbox import _pair, not_everybody
from .receipt import Receipt
from .state import Changes, Value, Values

T = TypeVar("T")
_TICK = 2.0  # seconds between looks without a ring: a sender that died before its ring is covered
_THREADS = 32  # that wait at a time, for a handle
_SLICE = 0.25  # seconds a worker thread waits at a time, so that a cancelled task is not kept waiting


class _Doorbell:
    """Wakes the tasks that wait for one FIFO to become readable."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._waiters: set[asyncio.Future[None]] = set()

    def _ring(self) -> None:
        asyncio.get_running_loop().remove_reader(self.fd)
        for future in self._waiters:
            if not future.done():
                future.set_result(None)
        self._waiters.clear()

    async def wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._waiters:
            loop.add_reader(self.fd, self._ring)
        self._waiters.add(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(future)
            if not self._waiters:
                loop.remove_reader(self.fd)


class AsyncBus:
    """A handle on a bus for asyncio; arguments, errors and meaning are those of `Bus`.

    Each task has its own account of what it was handed: calling `recv` acks what the calling task got
    before, not another task's (also through `asyncio.wait_for` and `gather`, which may run the call in a
    task of its own). What a task that has ended did not ack stays leased until `message.ack()` or the clean
    end of `async with`. `bus.sync` is the underlying `Bus`.
    """

    def __init__(self, name: str | None = None, **arguments: Any) -> None:
        self.sync = Bus(name, **arguments)
        self._bells: dict[int, _Doorbell] = {}
        # task -> its accounts with the sync handle, one for each call since it last asked
        self._accounts: weakref.WeakKeyDictionary[asyncio.Task[Any], list[int]] = weakref.WeakKeyDictionary()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def agent(self) -> str:
        return self.sync.agent

    async def __aenter__(self) -> AsyncBus:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._forget_bells()
        self.sync.__exit__(kind, error, trace)
        self._end_threads()

    def close(self) -> None:
        """See `Bus.close`."""
        self._forget_bells()
        self.sync.close()
        self._end_threads()

    def destroy(self) -> None:
        """See `Bus.destroy`."""
        self._forget_bells()
        self.sync.destroy()
        self._end_threads()

    def _forget_bells(self) -> None:
        for bell in self._bells.values():
            bell._ring()
        self._bells.clear()

    def _bell(self, replies: int) -> _Doorbell:
        fd = check(lib.cfn_bus_fileno(self.sync._handle, replies))
        bell = self._bells.get(replies)
        if bell is None or bell.fd != fd:
            bell = self._bells[replies] = _Doorbell(fd)
        return bell

    def _account(self) -> int:
        """A new account of the calling task; what it was handed before is acked."""
        account = next(accounts)
        try:
            task = asyncio.current_task()
        except RuntimeError:  # called outside of any task: nobody to ask again
            task = None
        if task is not None:
            for before in self._accounts.pop(task, ()):
                self.sync._ack_handed(before)
            self._accounts[task] = [account]
        return account

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """In threads of our own: waits must not take the loop's from others."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cfnshm")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _end_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    @staticmethod
    def _ends(timeout: float | None) -> float:
        return float("inf") if timeout is None else time.monotonic() + max(0.0, timeout)

    async def _until(self, replies: int, ends: float, attempt: Callable[[], T | None]) -> T:
        """Tries, and waits for the doorbell between tries. `attempt` returns None or raises Timeout
        while there is nothing."""
        while True:
            last = time.monotonic() >= ends
            bell = self._bell(replies)  # armed before the look: what comes later rings it
            try:
                result = attempt()
            except Timeout:
                if last:
                    raise
                result = None
            if result is not None:
                return result
            if last:
                raise Timeout("timed out waiting for the answer")
            await bell.wait(min(_TICK, ends - time.monotonic()))

    # No coroutine functions: what the caller was handed before is acked when it asks, by the task that
    # asks. asyncio.wait_for runs the coroutine in another one.
    def recv(self, timeout: float | None = None, *, copy: bool = True) -> Coroutine[Any, Any, Message]:
        """See `Bus.recv`."""
        who, ends = self._account(), self._ends(timeout)
        return self._until(0, ends, lambda: self.sync._recv(who, 0, copy))

    def recv_many(
        self, n: int = 256, timeout: float | None = None, *, priority: str | None = None
    ) -> Coroutine[Any, Any, Batch]:
        """See `Bus.recv_many`."""
        who, ends = self._account(), self._ends(timeout)
        lanes = () if priority is None else (1 << lane_of(priority),)
        return self._until(0, ends, lambda: self.sync._recv_many(who, n, 0, *lanes))

    async def request(
        self,
        to: str,
        body: Any,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
    ) -> Message:
        """See `Bus.request`. Any number of tasks may ask at once."""
        ends = self._ends(timeout)
        ask = self.sync._ask
        correlation = await self._sending(timeout, lambda deadline: ask(to, body, type, priority, deadline))
        look = time.monotonic() + _TICK

        def attempt() -> Message | None:
            nonlocal look
            # Now and then with a deadline that has just passed: the core then also judges whether
            # the agent is still alive.
            try:
                return self.sync._answer(to, correlation, 0)
            except Timeout:
                if time.monotonic() >= look:
                    look = time.monotonic() + _TICK
                    self.sync._judge(to)
                raise

        try:
            return await self._until(1, ends, attempt)
        finally:
            lib.cfn_bus_request_end(self.sync._handle, correlation)

    async def _sending(self, timeout: float | None, call: Callable[[int], T]) -> T:
        """Without waiting if there is room; else in a worker thread, a slice at a time. A cancelled
        task learns the outcome of its slice first: a send is never left half told."""
        try:
            return call(0)
        except (Full, NoSpace):
            if timeout == 0:
                raise
        ends = self._ends(timeout)
        while True:
            seconds = max(0.0, min(_SLICE, ends - time.monotonic()))
            last = ends - time.monotonic() <= _SLICE
            deadline = time.monotonic_ns() + max(1, int(seconds * 1e9))
            work = asyncio.ensure_future(self._in_thread(functools.partial(call, deadline)))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                if not work.cancelled() and work.exception() is None:
                    return work.result()  # it was sent: the cancellation comes at the next await
                raise
            except (Timeout, Full, NoSpace):
                if last:
                    raise

    async def send(
        self,
        to: str,
        body: Any,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
        correlation_id: int = 0,
    ) -> Receipt:
        """See `Bus.send`."""
        return await self._sending(
            timeout,
            lambda deadline: self.sync.send(
                to, body, type=type, priority=priority, timeout=_left(deadline),
                correlation_id=correlation_id,
            ),
        )  # fmt: skip

    async def send_many(
        self,
        messages: Iterable[Any],
        to: str | None = None,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
    ) -> list[Receipt]:
        """See `Bus.send_many`. A cancelled task sends nothing more; what it had sent by then is not told."""
        left = [(to, body) for body in messages] if to is not None else [_pair(item) for item in messages]
        left.sort(key=_receiver_of([receiver for receiver, _ in left]))
        receipts: list[Receipt] = []
        total = 0

        def some(deadline: int) -> None:
            nonlocal left, total
            try:
                sent = self.sync.send_many(left, type=type, priority=priority, timeout=_left(deadline))
            except Error as error:
                sent = getattr(error, "receipts", [])
                total += getattr(error, "sent", 0)
                left = left[getattr(error, "sent", 0) :]
                receipts.extend(sent)
                error.sent, error.receipts = total, receipts  # type: ignore[attr-defined]
                raise
            receipts.extend(sent)

        await self._sending(timeout, some)
        return receipts

    async def broadcast(
        self,
        body: Any,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
        team: str | None = None,
        agent_type: str | None = None,
        capability: str | None = None,
    ) -> Mapping[str, Receipt]:
        """See `Bus.broadcast`."""
        try:
            return self.sync.broadcast(
                body, type=type, priority=priority, timeout=0, team=team, agent_type=agent_type,
                capability=capability,
            )  # fmt: skip
        except Full as error:
            if timeout == 0:
                raise
            full = error
        ends = self._ends(timeout)

        async def one(name: str) -> None:
            left = None if ends == float("inf") else max(0.0, ends - time.monotonic())
            try:
                full.delivered[name] = await self.send(name, body, type=type, priority=priority, timeout=left)
            except UnknownAgent:
                pass
            except Error as error:
                full.missing[name] = error
                return
            del full.missing[name]

        await asyncio.gather(*(one(name) for name in full.missing))
        if full.missing:
            raise not_everybody(full.delivered, full.missing)
        return full.delivered

    async def reply(
        self,
        message: Message,
        body: Any,
        *,
        type: str = "",
        failed: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """See `Bus.reply`."""
        return await self._sending(
            timeout,
            lambda deadline: self.sync.reply(
                message, body, type=type, failed=failed, timeout=_left(deadline)
            ),
        )

    async def wait(self, receipt: Receipt, state: str = "acked", timeout: float | None = None) -> str:
        """See `Receipt.wait`."""
        ends = self._ends(timeout)
        while True:
            seconds = max(0.0, min(_SLICE, ends - time.monotonic()))
            try:
                return await self._in_thread(functools.partial(receipt.wait, state, seconds))
            except Timeout:
                if time.monotonic() >= ends:
                    raise

    async def wait_for(self, *agents: str, timeout: float | None = None) -> None:
        """See `Bus.wait_for`."""
        ends = self._ends(timeout)
        while True:
            seconds = max(0.0, min(_SLICE, ends - time.monotonic()))
            try:
                return await self._in_thread(functools.partial(self.sync.wait_for, *agents, timeout=seconds))
            except Timeout:
                if time.monotonic() >= ends:
                    raise

    def ack(self, message: Message | Batch) -> None:
        """See `Bus.ack`."""
        self.sync.ack(message)

    def register(self, agent: str, **texts: Any) -> bool:
        """See `Bus.register`."""
        return self.sync.register(agent, **texts)

    def unregister(self, agent: str | None = None, *, force: bool = False) -> int:
        """See `Bus.unregister`."""
        return self.sync.unregister(agent, force=force)

    def agents(self, **wanted: Any) -> list[AgentInfo]:
        """See `Bus.agents`."""
        return self.sync.agents(**wanted)

    def teams(self) -> dict[str, Team]:
        """See `Bus.teams`."""
        return self.sync.teams()

    def agent_info(self, agent: str | None = None) -> AgentInfo:
        """See `Bus.agent_info`."""
        return self.sync.agent_info(agent)

    def is_registered(self, agent: str) -> bool:
        """See `Bus.is_registered`."""
        return self.sync.is_registered(agent)

    def set_status(self, status: str, *, agent: str | None = None) -> None:
        """See `Bus.set_status`."""
        self.sync.set_status(status, agent=agent)

    def claim(self, *, steal: bool = False) -> None:
        """See `Bus.claim`."""
        self.sync.claim(steal=steal)

    def release(self) -> None:
        """See `Bus.release`."""
        self.sync.release()

    def peek(self, agent: str | None = None, *, limit: int = 1000) -> list[Message]:
        """See `Bus.peek`."""
        return self.sync.peek(agent, limit=limit)

    @property
    def context(self) -> Context:
        """See `Bus.context`: nothing of it waits."""
        return self.sync.context

    @property
    def state(self) -> AsyncState:
        """See `Bus.state`; its waits are coroutines."""
        return AsyncState(self)

    def lock(self, name: str, *, timeout: float | None = None, on_owner_died: str = "tell") -> AsyncLock:
        """See `Bus.lock`; for `async with`."""
        return AsyncLock(self, self.sync.lock(name, on_owner_died=on_owner_died), timeout)

    def elect(self, name: str, *, timeout: float | None = None) -> AsyncElection:
        """See `Bus.elect`; for `async with`."""
        return AsyncElection(self, self.sync.elect(name), timeout)

    def semaphore(self, name: str, permits: int, *, timeout: float | None = None) -> AsyncSemaphore:
        """See `Bus.semaphore`; for `async with`."""
        return AsyncSemaphore(self, self.sync.semaphore(name, permits), timeout)

    def barrier(
        self, name: str, parties: int | Iterable[str] | None = None, *, on_death: str = "break"
    ) -> AsyncBarrier:
        """See `Bus.barrier`; its `wait` is a coroutine."""
        return AsyncBarrier(self, self.sync.barrier(name, parties, on_death=on_death))

    # -- control and checkpoints: what does not wait is the same call ------------------------------

    def pause(self, agent: str | None = None, reason: str = "", *, team: str | None = None) -> list[str]:
        """See `Bus.pause`."""
        return self.sync.pause(agent, reason, team=team)

    def resume(self, agent: str | None = None, instruction: Any = None, *, team: str | None = None) -> list[str]:
        """See `Bus.resume`."""
        return self.sync.resume(agent, instruction, team=team)

    def inject(self, agent: str | None = None, instruction: Any = None, *, team: str | None = None) -> list[str]:
        """See `Bus.inject`."""
        return self.sync.inject(agent, instruction, team=team)

    def stop(self, agent: str | None = None, reason: str = "", *, team: str | None = None) -> list[str]:
        """See `Bus.stop`."""
        return self.sync.stop(agent, reason, team=team)

    def control(self, agent: str | None = None) -> Order | None:
        """See `Bus.control`."""
        return self.sync.control(agent)

    async def poll_control(
        self, checkpoint: Callable[[], Any] | None = None, timeout: float | None = None
    ) -> Order | None:
        """See `Bus.poll_control`; a pause is waited for in a worker thread, `checkpoint` called in the loop's own."""
        while (asked := self.sync.control()) is None or asked.kind != "pause":
            try:
                return self.sync.poll_control(timeout=0)
            except Timeout:  # a pause was asked for meanwhile
                continue
        saved = checkpoint() if checkpoint else None
        if saved is not None:
            self.sync.checkpoint(saved, note=f"paused: {asked.reason}".rstrip(": "))
        ends = self._ends(timeout)
        while True:
            seconds = max(0.0, min(_SLICE, ends - time.monotonic()))
            try:
                order = await self._in_thread(functools.partial(self.sync.poll_control, None, seconds))
            except Timeout:
                if time.monotonic() >= ends:
                    raise
            else:
                return order or Order("resume")

    def checkpoint(self, state: Any, note: str | None = None, **how: Any) -> Checkpoint:
        """See `Bus.checkpoint`."""
        return self.sync.checkpoint(state, note, **how)

    def restore(self, version: int | None = None, *, agent: str | None = None) -> Any:
        """See `Bus.restore`."""
        return self.sync.restore(version, agent=agent)

    def checkpoints(self, agent: str | None = None) -> list[Checkpoint]:
        """See `Bus.checkpoints`."""
        return self.sync.checkpoints(agent)

    async def join_checkpoint(self, message: Message, state: Any, timeout: float | None = 60.0) -> Checkpoint:
        """See `Bus.join_checkpoint`."""
        return await self._in_thread(functools.partial(self.sync.join_checkpoint, message, state, timeout))

    async def swarm_checkpoint(self, label: str, state: Any = None, **how: Any) -> Cut:
        """See `Bus.swarm_checkpoint`."""
        return await self._in_thread(functools.partial(self.sync.swarm_checkpoint, label, state, **how))

    async def signal_all(self, name: str, body: Any = None, **how: Any) -> Signalled:
        """See `Bus.signal_all`."""
        return await self._in_thread(functools.partial(self.sync.signal_all, name, body, **how))

    def info(self) -> dict[str, Any]:
        """See `Bus.info`."""
        return self.sync.info()

    def fileno(self) -> int:
        """See `Bus.fileno`."""
        return self.sync.fileno()

    async def __aiter__(self) -> AsyncIterator[Message]:
        account = next(accounts)
        while True:
            try:
                message = await self._until(0, float("inf"), lambda: self.sync._recv(account, 0, True))
            except Closed:
                return
            yield message


class AsyncState(Values):
    """The named values of a bus for asyncio: reading and changing do not wait and are the same calls; `wait`,
    `watch` and `watch_prefix` wait in a worker thread, a slice at a time."""

    __slots__ = ("_waiter",)

    def __init__(self, bus: AsyncBus) -> None:
        super().__init__(bus.sync)
        self._waiter = bus

    async def wait(self, key: str, version: int | None = None, timeout: float | None = None) -> Value:
        """See `State.wait`."""
        state, ends = self._waiter.sync.state, self._waiter._ends(timeout)
        seen = state.lookup(key).version if version is None else version
        while True:
            seconds = max(0.0, min(_SLICE, ends - time.monotonic()))
            last = ends - time.monotonic() <= _SLICE
            try:
                return await self._waiter._in_thread(functools.partial(state.wait, key, seen, seconds))
            except Timeout:
                if last:
                    raise

    async def watch(self, key: str, timeout: float | None = None) -> AsyncIterator[Value]:
        """See `State.watch`."""
        found = self.lookup(key)
        while True:
            yield found
            try:
                found = await self.wait(key, found.version, timeout)
            except Timeout:
                return

    async def watch_prefix(self, prefix: str, timeout: float | None = None) -> AsyncIterator[Value]:
        """See `State.watch_prefix`."""
        ends, last = self._waiter._ends(timeout), False
        changes = Changes(self._waiter.sync.state, prefix)
        while True:
            found = changes.look()
            for value in found:
                yield value
            if found:
                ends, last = self._waiter._ends(timeout), False
            elif last:
                return
            else:
                seconds = max(0.0, min(_SLICE, ends - time.monotonic()))
                last = ends - time.monotonic() <= _SLICE
                if await self._waiter._in_thread(functools.partial(changes.sleep, deadline_of(seconds))):
                    last = False


def _receiver_of(receivers: list[str]) -> Callable[[tuple[str, Any]], int]:
    """Sorts pairs by receiver, in the order in which receivers first come, as `Bus.send_many` sends them."""
    first: dict[str, int] = {}
    for receiver in receivers:
        first.setdefault(receiver, len(first))
    return lambda pair: first[pair[0]]


def _left(deadline: int) -> float:
    """Seconds until a deadline of the core; 0 for the deadline that does not wait."""
    return 0 if deadline == 0 else max(1e-6, (deadline - time.monotonic_ns()) / 1e9)
