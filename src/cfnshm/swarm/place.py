"""Where this process stands in its swarm: `here()` in the code that an agent runs."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ..bus import Bus
from ..control import Order
from ..errors import Error
from ..message import Message
from .plan import Plan
from .task import PARTIAL, dumps, send_up


@dataclass
class Place:
    """Attributes:
    bus: this agent's handle.
    agent, role, team, parent, children, depth: see `plan.Node`; these and `peers` can be sent to: up, down and across.
    incarnation: how often this name was taken.
    task: number of the task under way, or None.
    instructions: what was injected and not looked at yet, oldest first.
    """

    bus: Bus
    agent: str
    role: str = "worker"
    team: str = ""
    parent: str = ""
    children: list[str] = field(default_factory=list)
    depth: int = 1
    task: int | None = None
    instructions: list[Any] = field(default_factory=list)
    _mail: deque[Message] = field(default_factory=deque)  # what is not the swarm's, and was not asked for yet
    _later: deque[Message] = field(default_factory=deque)  # tasks and orders that came while mail was asked for
    _plan: Plan | None = None
    _dealer: str = ""
    _stopping: bool = False

    @property
    def peers(self) -> list[str]:
        """Those with the same parent."""
        return self._plan.peers(self.agent) if self._plan is not None and self.agent in self._plan.nodes else []

    @property
    def incarnation(self) -> int:
        return self.bus.incarnation

    def partial(self, value: Any) -> None:
        """Sends something of the task under way to who waits for it (`on_partial`), before it is done."""
        if self.task is None:
            raise Error("no task is under way: partial() belongs into the function that a task calls")
        send_up(self.bus, self._dealer, dumps(value), PARTIAL, self.task)

    def recv(self, timeout: float | None = None) -> Message:
        """The next message that somebody sent to this agent: in a worker, what is not a task. It is acked: it does not
        come again. (`bus.recv` in a worker would take its tasks away.)

        Raises:
            Timeout.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        while not self._mail:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            (message,) = self.bus.recv_many(1, left, hold=True)
            of_swarm = message.type.startswith("swarm.") or message.priority == "control"
            (self._later if of_swarm else self._mail).append(message)
        message = self._mail.popleft()
        message.ack()
        return message

    def poll(self, checkpoint: Any = None) -> Order | None:
        """Obeys what is asked of this agent, between two steps of a long task: waits while it is paused (and saves what
        `checkpoint()` returns before), returns instructions one by one. "stop" is returned, and ends the worker after
        this task."""
        order = self.bus.poll_control(checkpoint)
        if order is not None and order.kind == "stop":
            self._stopping = True
        return order


_here: Place | None = None


def here() -> Place:
    """The place of the agent that runs this.

    Raises:
        Error: this process is no agent of a swarm.
    """
    if _here is None:
        raise Error("this process is no agent of a swarm: here() is for the functions that a swarm calls")
    return _here


def enter(place: Place) -> None:
    """This process is that agent from now on."""
    global _here
    _here = place
