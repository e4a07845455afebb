"""`AsyncSwarm`: a swarm for asyncio.

    async with AsyncSwarm(100) as swarm:
        print(await swarm.submit(pow, 2, 10))
        results = await swarm.run(files, count_lines, timeout=60)
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any

from .results import Outcome, Results
from .swarm import Swarm


class AsyncSwarm:
    """The same swarm with calls that are awaited. Takes the arguments of `Swarm`, which is started by `async with` and
    is `self.swarm` then; what is not here (`ready`, `spawn`, ...) is awaited as `await swarm.call("ready", timeout=5)`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._start = functools.partial(Swarm, *args, **kwargs)
        self.swarm: Swarm

    async def __aenter__(self) -> AsyncSwarm:
        self.swarm = await asyncio.to_thread(self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.swarm.__exit__, kind, error, trace)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """One of `Swarm`'s methods, without stopping the loop."""
        return await asyncio.to_thread(getattr(self.swarm, method), *args, **kwargs)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """A task; awaiting it gives what the function returns, or raises what it raised. Cancelling it takes it back if
        no worker has it yet."""
        return asyncio.wrap_future(self.swarm.submit(function, *args, **kwargs))

    async def run(
        self, tasks: Iterable[Any], function: Callable[[Any], Any] | None = None, *, timeout: float | None = None,
        on_progress: Callable[[int, int, Outcome], None] | None = None,
    ) -> Results:  # fmt: skip
        """As `Swarm.run`; `on_progress` is called in the loop's thread."""
        loop = asyncio.get_running_loop()

        def told(done: int, of: int, outcome: Outcome) -> None:
            if on_progress is not None:
                loop.call_soon_threadsafe(functools.partial(on_progress, done, of, outcome))

        return await asyncio.to_thread(self.swarm.run, tasks, function, timeout=timeout, on_progress=told)

    async def outcomes(
        self, tasks: Iterable[Any], function: Callable[[Any], Any] | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[Outcome]:
        """Outcomes as they come, in the order in which they come; those that do not come in time at the end."""
        came: asyncio.Queue[Outcome | None] = asyncio.Queue()
        running = asyncio.ensure_future(
            self.run(tasks, function, timeout=timeout, on_progress=lambda done, of, outcome: came.put_nowait(outcome))
        )
        running.add_done_callback(lambda _: came.put_nowait(None))
        try:
            while (outcome := await came.get()) is not None:
                yield outcome
            for outcome in (await running).missing:
                yield outcome
        finally:
            running.cancel()
