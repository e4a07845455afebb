"""Locks, elections, semaphores and barriers for asyncio: `AsyncBus.lock` and its like.

What waits, waits in a worker thread; what was got while its task was cancelled is given back. All else is what
`cfnshm.sync` has, and reached by `sync`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import Closed, Timeout
from .sync import Barrier, Election, Holder, Leadership, Lease, Lock, Permit, Semaphore

if TYPE_CHECKING:
    from .aio import AsyncBus

T = TypeVar("T")
_SLICE = 0.25  # seconds a worker thread waits at a time, so that a cancelled task is not kept waiting


def _task() -> object:
    return ("task", id(asyncio.current_task()))


async def _sliced(bus: AsyncBus, timeout: float | None, call: Callable[[float], T], undo: Callable[[T], object]) -> T:
    """Calls with a slice of the time until it succeeds; what a cancelled call got is undone."""
    ends = float("inf") if timeout is None else time.monotonic() + max(0.0, timeout)
    while True:
        last = ends - time.monotonic() <= _SLICE
        seconds = max(0.0, min(_SLICE, ends - time.monotonic()))
        work = asyncio.ensure_future(bus._in_thread(functools.partial(call, seconds)))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled() and work.exception() is None:
                with contextlib.suppress(Closed):
                    undo(work.result())
            raise
        except Timeout:
            if last:
                raise


class AsyncLock:
    """See `Lock`; in an `async with` it is held."""

    _sync: Lock

    def __init__(self, bus: AsyncBus, sync: Lock, timeout: float | None) -> None:
        self._bus = bus
        self._sync = sync
        self._timeout = timeout
        self._entered: list[Lease] = []

    @property
    def sync(self) -> Lock:
        return self._sync

    async def acquire(self, timeout: float | None = None, *, on_owner_died: str | None = None) -> Lease:
        """See `Lock.acquire`. Two tasks of one handle exclude each other, too."""
        take = functools.partial(self._sync.acquire, on_owner_died=on_owner_died, _whose=_task())
        return await _sliced(self._bus, timeout, take, Lease.release)

    async def __aenter__(self) -> Lease:
        lease = await self.acquire(self._timeout)
        self._entered.append(lease)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)

    def holder(self) -> Holder | None:
        """See `Lock.holder`."""
        return self._sync.holder()


class AsyncElection:
    """See `Election`; in an `async with` this handle leads."""

    def __init__(self, bus: AsyncBus, sync: Election, timeout: float | None) -> None:
        self._bus = bus
        self.sync = sync
        self._timeout = timeout
        self._entered: list[Leadership] = []

    async def campaign(self, timeout: float | None = None) -> Leadership:
        """See `Election.campaign`."""
        return await _sliced(
            self._bus, timeout, functools.partial(self.sync.campaign, _whose=_task()), Leadership.release
        )

    async def __aenter__(self) -> Leadership:
        won = await self.campaign(self._timeout)
        self._entered.append(won)
        return won

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)

    def leader(self) -> Holder | None:
        """See `Election.leader`."""
        return self.sync.leader()

    async def watch(self, timeout: float | None = None) -> AsyncIterator[Holder | None]:
        """See `Election.watch`."""
        now = self.sync.leader()
        while True:
            yield now
            try:
                after = await _sliced(
                    self._bus, timeout, functools.partial(self.sync.wait_change, now), lambda _: None
                )
            except Timeout:
                return
            now = None if after is None or after.state == "dead" else after


class AsyncSemaphore:
    """See `Semaphore`; in an `async with` a permit is held."""

    def __init__(self, bus: AsyncBus, sync: Semaphore, timeout: float | None) -> None:
        self._bus = bus
        self.sync = sync
        self._timeout = timeout
        self._entered: list[Permit] = []

    async def acquire(self, timeout: float | None = None) -> Permit:
        """See `Semaphore.acquire`."""
        return await _sliced(self._bus, timeout, self.sync.acquire, Permit.release)

    async def __aenter__(self) -> Permit:
        permit = await self.acquire(self._timeout)
        self._entered.append(permit)
        return permit

    async def __aexit__(self, *_: object) -> None:
        self._entered.pop().release()


class AsyncBarrier:
    """See `Barrier`, which `sync` is; `wait` is a coroutine."""

    def __init__(self, bus: AsyncBus, sync: Barrier) -> None:
        self._bus = bus
        self.sync = sync

    async def wait(self, timeout: float | None = None) -> int:
        """See `Barrier.wait`. A task that is cancelled has not arrived."""
        ends = float("inf") if timeout is None else time.monotonic() + max(0.0, timeout)
        visit = self.sync._visit()
        while True:
            last = ends - time.monotonic() <= _SLICE
            # The first steps wait for ever, as far as the barrier can see: only the last may give up.
            call = functools.partial(visit, max(0.0, ends - time.monotonic()) if last else None)
            work: asyncio.Future[Any] = asyncio.ensure_future(self._bus._in_thread(call))
            try:
                place = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                if not work.cancelled() and work.exception() is None and work.result() is None:
                    with contextlib.suppress(Timeout, Closed):
                        visit(0)
                raise
            if place is not None:
                return int(place)
