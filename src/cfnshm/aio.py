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
import time
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

from ._core import check, lib
from .agents import AgentInfo
from .bus import Bus
from .errors import Closed, Full, NoSpace, Timeout
from .message import Batch, Message
from .receipt import Receipt

T = TypeVar("T")
_TICK = 2.0  # seconds between looks without a ring: a sender that died before its ring is covered
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

    Each task has its own account of what it was handed: a task's next `recv` acks its own last
    message, not another task's. `bus.sync` is the underlying `Bus`, for everything that does not wait.
    """

    def __init__(self, name: str | None = None, **arguments: Any) -> None:
        self.sync = Bus(name, **arguments)
        self._bells: dict[int, _Doorbell] = {}

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

    def close(self) -> None:
        """See `Bus.close`."""
        self._forget_bells()
        self.sync.close()

    def destroy(self) -> None:
        """See `Bus.destroy`."""
        self._forget_bells()
        self.sync.destroy()

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

    @staticmethod
    def _who() -> int:
        return -id(asyncio.current_task())

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

    async def recv(self, timeout: float | None = None, *, copy: bool = True) -> Message:
        """See `Bus.recv`."""
        who = self._who()
        return await self._until(0, self._ends(timeout), lambda: self.sync._recv(who, 0, copy))

    async def recv_many(self, n: int = 256, timeout: float | None = None) -> Batch:
        """See `Bus.recv_many`."""
        who = self._who()
        return await self._until(0, self._ends(timeout), lambda: self.sync._recv_many(who, n, 0))

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
            work = asyncio.ensure_future(asyncio.to_thread(call, deadline))
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
        """See `Bus.send_many`. Waits in a worker thread."""
        return await asyncio.to_thread(
            self.sync.send_many, list(messages), to, type=type, priority=priority, timeout=timeout
        )

    async def broadcast(self, body: Any, **options: Any) -> dict[str, Receipt]:
        """See `Bus.broadcast`. Waits in a worker thread."""
        return await asyncio.to_thread(self.sync.broadcast, body, **options)

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
                return await asyncio.to_thread(receipt.wait, state, seconds)
            except Timeout:
                if time.monotonic() >= ends:
                    raise

    async def wait_for(self, *agents: str, timeout: float | None = None) -> None:
        """See `Bus.wait_for`."""
        ends = self._ends(timeout)
        while True:
            seconds = max(0.0, min(_SLICE, ends - time.monotonic()))
            try:
                return await asyncio.to_thread(self.sync.wait_for, *agents, timeout=seconds)
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

    def fileno(self) -> int:
        """See `Bus.fileno`."""
        return self.sync.fileno()

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            try:
                message = await self.recv()
            except Closed:
                return
            yield message


def _left(deadline: int) -> float:
    """Seconds until a deadline of the core; 0 for the deadline that does not wait."""
    return 0 if deadline == 0 else max(1e-6, (deadline - time.monotonic_ns()) / 1e9)
