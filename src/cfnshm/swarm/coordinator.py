"""A coordinator: tasks come from its parent, go to its children, and results go back up.

Everything that it must not forget stands in inboxes. It keeps each task leased in its own until the result is in its
parent's inbox, and then acks first the task and then the result; a worker sends its result before it acks the task.
So who takes over the name of a dead coordinator (`recover`)

 1. looks into the children's inboxes: a task that is there is under way;
 2. then takes all that is in its own: tasks without a result, and results. A task that was gone from (1) has its result
    here, or was never dealt, and waits.

What the dead one had sent up and not acked goes up again, and its parent, for whom that task is done, drops it.
Nothing is forgotten, and no task is given out that a child has or had. Nobody else is asked, so that a coordinator
and its parent may die together. One process can serve several names: a peer that adopts a dead coordinator's team
serves that inbox, too.
"""

from __future__ import annotations

import os
import selectors
import sys
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from ..bus import Bus
from ..errors import Error, Full, NoSpace, Timeout, TooLarge, UnknownAgent
from ..message import Message
from . import task as wire
from .deal import Dealer, Task

MAX_DEATHS = 3  # of processes that held it, until a task is set aside
_BATCH = 256
_ROOM_TICK = 0.02  # seconds until an inbox that was full is tried again
_PEEK = 1 << 16


class Branch(ABC):
    """A dealer on a bus: one name's tasks, members, and messages. The client's has nobody above it.

    Args:
        bus: the handle whose inbox it reads.
        max_deaths: see `MAX_DEATHS`.
    """

    def __init__(self, bus: Bus, max_deaths: int = MAX_DEATHS) -> None:
        self.bus = bus
        self.dealer = Dealer()
        self.max_deaths = max_deaths

    # -- down --

    def deal(self) -> None:
        """Sends what waits to those that have room."""
        dealer, send = self.dealer, self.bus.send
        while (pair := dealer.next()) is not None:
            member, task = pair
            if not self.begins(task):
                dealer.dropped(member, task)
                continue
            try:
                receipt = send(member.name, task.body, type=wire.TASK, correlation_id=task.id, timeout=0)
            except UnknownAgent:
                dealer.not_sent(member, task)
                dealer.leave(member.name)
            except Error as error:
                dealer.not_sent(member, task)
                # Full, or no space on the bus: there will be some, if something of ours is on it.
                if isinstance(error, TooLarge) or (isinstance(error, NoSpace) and not dealer.busy):
                    dealer.again()
                    self.set_aside(task, f"cannot be sent: {error}")
            else:
                dealer.sent(member, task, receipt.sequence)

    def begins(self, task: Task) -> bool:
        """It is about to be given to a member; False: nobody wants it any more."""
        return True

    @property
    def wait(self) -> float | None:
        """How long it may sleep: something could not be sent because an inbox was full."""
        return _ROOM_TICK if self.dealer.waits_for_room else None

    def retry(self) -> None:
        """Tries again what could not be sent."""
        if self.dealer.waits_for_room:
            self.dealer.again()
            self.deal()

    # -- up: what a coordinator passes on and the client keeps --

    @abstractmethod
    def pass_up(self, task: Task, body: bytes, message: Message | None) -> None:
        """The result of a task, and the message that brought it (it is done with then)."""

    @abstractmethod
    def pass_partial(self, number: int, body: bytes) -> None:
        """Something of a task that is not done."""

    # -- what comes --

    def handle(self, message: Message) -> bool:
        """Does what a message says; False: it is none of a dealer's. Who receives messages to hold acks them, except
        results: those are `pass_up`'s."""
        handler = self._HANDLERS.get(message.type)
        if handler is None:
            return False
        handler(self, message)
        return True

    def _result(self, message: Message) -> None:
        task = self.dealer.done(message.correlation_id)
        if task is not None:
            self.pass_up(task, message.raw, message)

    def _partial(self, message: Message) -> None:
        if message.correlation_id in self.dealer.tasks:
            self.pass_partial(message.correlation_id, message.raw)

    def _returned(self, message: Message) -> None:
        said = message.body
        member = said.get("member") or message.sender
        task = self.dealer.returned(message.correlation_id, member, said["sequence"])
        if task is not None:
            self.count_death(task, said["death"])

    def count_death(self, task: Task, death: dict[str, Any] | None) -> None:
        """A process died with it (None: it was only not begun)."""
        if death is None:
            return
        task.deaths.append(death)
        if len(task.deaths) >= self.max_deaths:
            self.set_aside(task, f"was set aside: {len(task.deaths)} processes died with it")

    def set_aside(self, task: Task, why: str) -> None:
        """Nobody does it any more; its history is the answer."""
        done = self.dealer.done(task.id)
        if done is not None:
            self.pass_up(done, wire.died(task.id, task.body, task.deaths, why), None)

    def _joined(self, message: Message) -> None:
        for name, room in message.body["members"].items():
            self.dealer.join(name, room)

    def _lost(self, message: Message) -> None:
        self.dealer.leave(message.body["agent"])
        if not self.dealer.members:
            self.nobody_left(message.body["death"])

    def nobody_left(self, death: dict[str, Any]) -> None:
        """The last member is gone, who died so."""
        for task in list(self.dealer.tasks.values()):
            if death not in task.deaths[-1:]:
                task.deaths.append(death)
            self.set_aside(task, "cannot be done: no worker is left")

    def _rest(self, message: Message) -> None:
        for name, resting in message.body.items():
            self.dealer.rest(name, resting)

    def _where(self, message: Message) -> None:
        self.bus.reply(message, {str(t.id): t.at for t in self.dealer.tasks.values()})

    _HANDLERS: dict[str, Callable[[Any, Message], None]] = {
        wire.RESULT: _result, wire.PARTIAL: _partial, wire.RETURNED: _returned, wire.JOINED: _joined,
        wire.LOST: _lost, wire.REST: _rest, wire.WHERE: _where,
    }  # fmt: skip


class Stopped(Exception):
    """The coordinator was told to end."""


class Coordinator(Branch):
    """Args:
    bus: its handle.
    parent: the agent above.
    children: their names, and how many tasks each may hold.
    """

    def __init__(self, bus: Bus, parent: str, children: dict[str, int], max_deaths: int = MAX_DEATHS) -> None:
        super().__init__(bus, max_deaths)
        self.parent = parent
        for name, room in children.items():
            self.dealer.join(name, room)
        self._up: deque[tuple[Task, bytes, Message | None]] = deque()  # results that wait for room above
        self._leases: dict[int, Message] = {}  # by position, oldest first
        self._settled: dict[int, tuple[Task, Message | None]] = {}  # above already, but their copies are on their way
        self._span = bus.info()["lanes"]["normal"] // 2
        self._death: dict[str, Any] | None = None  # of the last member, when none is left and the parent is to be told

    # -- up --

    def pass_up(self, task: Task, body: bytes, message: Message | None) -> None:
        self._up.append((task, body, message))
        self._flush()

    def _flush(self) -> None:
        while self._up:
            task, body, message = self._up[0]
            try:
                self.bus.send(
                    self.parent, body, type=wire.RESULT, correlation_id=task.id, priority="high", timeout=0
                )
            except Full:
                return
            except UnknownAgent:
                raise Stopped from None  # the swarm is being ended
            self._up.popleft()
            # dies here: it goes up again, and is dropped there
            self._settle(task, message)

    def pass_partial(self, number: int, body: bytes) -> None:
        with suppress(Full):  # its result will come: partial ones may be left out
            self.bus.send(self.parent, body, type=wire.PARTIAL, correlation_id=number, priority="high", timeout=0)

    def nobody_left(self, death: dict[str, Any]) -> None:
        """What is here goes to others: the parent takes back all that it gave to one who is lost."""
        self._death = death
        self._give_up()

    def _give_up(self) -> None:
        if self._death is None or self._up:
            return
        try:
            self.bus.send(self.parent, {"agent": self.bus.agent, "death": self._death}, type=wire.LOST, priority="high",
                          timeout=0)  # fmt: skip
        except Full:
            return
        self._death = None
        # dies here: who comes after it finds the tasks and no member, and says it again
        for task in list(self.dealer.tasks.values()):
            self.dealer.done(task.id)
            self._release(task)

    @property
    def wait(self) -> float | None:
        return _ROOM_TICK if self._up or self._death else super().wait

    def retry(self) -> None:
        self._flush()
        self._give_up()
        super().retry()

    # -- leases --

    def _settle(self, task: Task, message: Message | None) -> None:
        """The result of a task is above: acks the task, then the message that brought the result."""
        if task.moving:  # its copy would be taken for a new task by who comes after us: all three go together
            self._settled[task.id] = (task, message)
            return
        self._release(task)
        # dies here: a result whose task is gone: the next one drops it
        if message is not None:
            message.ack()

    def _release(self, task: Task) -> None:
        if task.lease is not None:
            self._leases.pop(task.lease.position, None)
            task.lease.ack()
            task.lease = None

    def _take(self, message: Message) -> None:
        """A task, or its copy: the newer message is the one that is kept."""
        number = message.correlation_id
        self.dealer.add(number, message.raw)
        task = self.dealer.tasks[number]
        self._release(task)
        task.lease, task.moving = message, False
        self._leases[message.position] = message

    def _task(self, message: Message) -> None:
        number = message.correlation_id
        if message.sender == self.bus.agent:  # the copy of one that was moved
            if number in self._settled:
                task, result = self._settled.pop(number)
                self._release(task)
                message.ack()
                if result is not None:
                    result.ack()
                return
            if number not in self.dealer.tasks:
                message.ack()
                return
        if not self.dealer.members:  # sent before the parent knew, or by a successor of it that does not know
            message.ack()
            self.nobody_left({"agent": self.bus.agent, "why": "has no workers left", "tail": ""})
            return
        self._take(message)
        self._move_oldest(message.position)

    def _move_oldest(self, newest: int) -> None:
        """A lane is as long as from its oldest message to its newest: one task that takes long would fill it."""
        for position, lease in self._leases.items():
            if newest - position < self._span:
                return
            task = self.dealer.tasks.get(lease.correlation_id)
            if task is not None and not task.moving:
                with suppress(Full):
                    self.bus.send(self.bus.agent, lease.raw, type=wire.TASK, correlation_id=task.id, timeout=0)
                    task.moving = True
                return

    def handle(self, message: Message) -> bool:
        """As a branch's; acks what is done with. What makes no sense is told in the log, and dropped: it would end
        every successor, too."""
        try:
            return self._handle(message)
        except (Stopped, Error):
            raise
        except Exception:
            print(f"{self.bus.agent}: a message of {message.sender!r} makes no sense", file=sys.stderr)
            traceback.print_exc()
            message.ack()
            return True

    def _handle(self, message: Message) -> bool:
        if message.type == wire.TASK:
            self._task(message)
            return True
        if message.type == wire.RESULT:
            if message.correlation_id not in self.dealer.tasks:
                self.dealer.late += 1
                message.ack()
            else:
                self._result(message)
            return True
        done = super().handle(message)
        if done:
            message.ack()
        return done

    def recover(self) -> list[Message]:
        """Takes up what the one before had under way: see above. Returns what is not for a dealer, in its order."""
        children, agent = list(self.dealer.members), self.bus.agent
        for child in children:
            try:
                there = self.bus.peek(child, limit=_PEEK)
            except UnknownAgent:  # gone since this process was forked
                self.dealer.leave(child)
                continue
            for message in there:  # a child that is a coordinator may have moved it to the end of its inbox
                if message.type == wire.TASK and message.sender in (agent, child):
                    self.dealer.found(
                        message.correlation_id, message.raw, child, message.sequence, message.timestamp
                    )
        found: list[Message] = []
        while True:
            try:
                found.extend(self.bus.recv_many(_BATCH, timeout=0, hold=True))
            except Timeout:
                break
        later: list[Message] = []
        for message in found:  # results stand on a lane before that of their tasks
            (self._take if message.type == wire.TASK else later.append)(message)
        for task in [t for t in self.dealer.tasks.values() if t.lease is None]:
            self.dealer.done(task.id)  # its result went up already, and the child has not acked it yet
        others = []
        for message in later:
            task_ = self.dealer.tasks.get(message.correlation_id)
            if message.type == wire.RETURNED and task_ is not None and not task_.at:
                self.count_death(task_, message.body["death"])
                message.ack()
            elif not self.handle(message):
                others.append(message)
        if not self.dealer.members:
            self.nobody_left({"agent": agent, "why": "had no workers left when it began", "tail": ""})
        self.deal()
        return others


Adopt = Callable[[dict[str, Any]], tuple[Coordinator, list[Message]]]


def serve(first: Coordinator, unread: list[Message], adopt: Adopt) -> None:
    """Serves a coordinator's inbox, and those of the teams that it adopts, until it is told to end. `unread`: what came
    for it before."""
    with _Served(adopt) as served, suppress(Stopped):
        served.add(first, unread)
        while True:
            served.once()


class _Served:
    """The names that one process serves."""

    def __init__(self, adopt: Adopt) -> None:
        self.adopt = adopt
        self.branches: list[Coordinator] = []
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> _Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.selector.close()

    def add(self, branch: Coordinator, unread: list[Message]) -> None:
        self.branches.append(branch)
        self.selector.register(branch.bus, selectors.EVENT_READ, branch)
        self._do(branch, unread)

    def once(self) -> None:
        """Waits for messages, and does what they say."""
        if len(self.branches) == 1:
            self._receive(self.branches[0], self.branches[0].wait)
        else:
            waits = [b.wait for b in self.branches if b.wait is not None]
            for key, _ in self.selector.select(min(waits, default=None)):
                self._receive(key.data, 0)
        for branch in self.branches:
            branch.retry()

    def _receive(self, branch: Coordinator, timeout: float | None) -> None:
        with suppress(Timeout):
            self._do(branch, branch.bus.recv_many(_BATCH, timeout, hold=True))

    def _do(self, branch: Coordinator, messages: Iterable[Message]) -> None:
        wishes = []
        for message in messages:
            if branch.handle(message):
                continue
            kind = message.type
            if kind == wire.ADOPT:
                wishes.append(message)
                continue
            message.ack()
            if kind == wire.DRAIN:
                raise Stopped
            if kind in ("pause", "resume", "instruction", "stop"):
                order = branch.bus.poll_control()
                if order is not None and order.kind == "stop":
                    raise Stopped
        branch.deal()
        for message in wishes:
            if message.body["pid"] == os.getpid():  # what one before us was to adopt went to somebody else when it died
                self.add(*self.adopt(message.body))
            message.ack()
