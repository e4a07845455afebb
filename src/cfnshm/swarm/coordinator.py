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

import selectors
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from ..bus import Bus
from ..errors import Full, Timeout, UnknownAgent
from ..message import Message
from . import task as wire
from .deal import Dealer, Task

MAX_DEATHS = 3  # of processes that held it, until a task is set aside
_BATCH = 256
_ROOM_TICK = 0.02  # seconds until an inbox that was full is tried again
_PEEK = 1 << 16


class Branch:
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
            try:
                receipt = send(member.name, task.body, type=wire.TASK, correlation_id=task.id, timeout=0)
            except Full:
                dealer.not_sent(member, task)
            except UnknownAgent:
                dealer.not_sent(member, task)
                dealer.leave(member.name)
            else:
                dealer.sent(member, task, receipt.sequence)

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

    def pass_up(self, task: Task, body: bytes, message: Message | None) -> None:
        """The result of a task, and the message that brought it (it is done with then)."""
        raise NotImplementedError

    def pass_partial(self, number: int, body: bytes) -> None:
        raise NotImplementedError

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
            self.pass_up(done, wire.died(task.id, task.deaths, why), None)

    def _joined(self, message: Message) -> None:
        for name, room in message.body.items():
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
        if not self.dealer.members:  # sent before the parent knew
            message.ack()
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
        """As a branch's; acks what is done with."""
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
        message.ack()
        return done

    def recover(self) -> None:
        """Takes up what the one before had under way: see above."""
        children, agent = list(self.dealer.members), self.bus.agent
        for child in children:
            for message in self.bus.peek(child, limit=_PEEK):
                if message.type == wire.TASK and message.sender == agent:
                    self.dealer.found(message.correlation_id, message.raw, child, message.sequence)
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
        for message in later:
            number = message.correlation_id
            there = self.dealer.tasks.get(number)
            if message.type == wire.RETURNED and there is not None and not there.at:
                self.count_death(there, message.body["death"])
                message.ack()
            else:
                self.handle(message)
        if not self.dealer.members:
            self.nobody_left({"agent": agent, "why": "had no workers left when it began", "tail": ""})
        self.deal()


def serve(first: Coordinator, adopt: Callable[[dict[str, Any]], Coordinator]) -> None:
    """Serves a coordinator's inbox, and those of the teams that it adopts, until it is told to end."""
    branches = [first]
    with selectors.DefaultSelector() as selector:
        selector.register(first.bus, selectors.EVENT_READ, first)
        while True:
            several = len(branches) > 1
            ready: Iterable[Coordinator] = branches
            if several:
                ready = [key.data for key, _ in selector.select(_shortest(b.wait for b in branches))]
            for branch in ready:
                try:
                    wishes = _serve_once(branch, 0 if several else branch.wait)
                except Stopped:
                    return
                for wish in wishes:
                    other = adopt(wish)
                    branches.append(other)
                    selector.register(other.bus, selectors.EVENT_READ, other)
            for branch in branches:
                branch.retry()


def _shortest(waits: Iterable[float | None]) -> float | None:
    return min((w for w in waits if w is not None), default=None)


def _serve_once(branch: Coordinator, timeout: float | None) -> list[dict[str, Any]]:
    """Does what has come; returns what it shall adopt."""
    wishes: list[dict[str, Any]] = []
    try:
        batch = branch.bus.recv_many(_BATCH, timeout, hold=True)
    except Timeout:
        return wishes
    for message in batch:
        kind = message.type
        if kind == wire.ADOPT:
            wishes.append(message.body)
            message.ack()
        elif kind == wire.DRAIN:
            message.ack()
            raise Stopped
        elif not branch.handle(message) and kind in ("pause", "resume", "instruction", "stop"):
            order = branch.bus.poll_control()
            if order is not None and order.kind == "stop":
                raise Stopped
    branch.deal()
    return wishes
