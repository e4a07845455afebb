"""Dealing tasks to members that have room, and knowing where each task is. Pure bookkeeping: no bus, no process.

The client deals to the top of the topology, a coordinator to its children; the same rules hold on every level. A task
is here from `add` to `done`; meanwhile it waits (`pending`), or is held by exactly one member, under the sequence
number of the message that took it there. What comes back (`returned`) counts only if it is that very message: a
message that was delivered twice returns twice, and the second time the task is somewhere else already.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Task:
    """Attributes:
    id: as the client numbered it.
    body: what is sent to who does it.
    deaths: what is known of each process that died holding it.
    at: the member that has it, or "".
    sequence: of the message that brought it there.
    given: when that was, if it was found there.
    lease: the message that brought it here, if it is kept until the result has gone up.
    moving: a copy of that message is on its way to the end of the same inbox.
    """

    id: int
    body: Any
    deaths: list[dict[str, Any]] = field(default_factory=list)
    at: str = ""
    sequence: int = 0
    given: float = 0.0
    lease: Any = None
    moving: bool = False


@dataclass
class Member:
    """Whom one deals to. `room`: how many tasks it may hold; `resting`: paused, so that nothing new is given to it."""

    name: str
    room: int
    held: set[int] = field(default_factory=set)
    resting: bool = False
    listed: bool = False  # in Dealer._free

    @property
    def free(self) -> bool:
        return not self.resting and len(self.held) < self.room


class Dealer:
    """Tasks, members, and who has what. Members take turns; one that is full is passed over."""

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}
        self.pending: deque[int] = deque()
        self.members: dict[str, Member] = {}
        self.late = 0  # results of tasks that are not here (any more)
        self._free: deque[Member] = deque()
        self._full: list[Member] = []  # their inboxes were, when something was sent to them

    # -- members --

    def join(self, name: str, room: int) -> None:
        member = self.members.get(name)
        if member is None:
            member = self.members[name] = Member(name, room)
        member.room = room
        self._list(member)

    def leave(self, name: str) -> list[Task]:
        """It is gone for good. What it held waits again; those tasks are returned."""
        member = self.members.pop(name, None)
        if member is None:
            return []
        member.room = 0
        back = [self.tasks[id] for id in sorted(member.held)]
        for task in reversed(back):
            self._wait(task, first=True)
        return back

    def rest(self, name: str, resting: bool) -> None:
        """While it rests it is given nothing; it keeps what it has."""
        member = self.members.get(name)
        if member:
            member.resting = resting
            self._list(member)

    def _list(self, member: Member) -> None:
        if member.free and not member.listed:
            member.listed = True
            self._free.append(member)

    # -- tasks --

    def add(self, id: int, body: Any) -> bool:
        """A new task; False if it is here already."""
        if id in self.tasks:
            return False
        self.tasks[id] = Task(id, body)
        self.pending.append(id)
        return True

    def next(self) -> tuple[Member, Task] | None:
        """Who gets what now; None: nothing waits, or nobody has room. `sent`, `not_sent` or `dropped` must
        follow."""
        while self.pending and self._free:
            member = self._free.popleft()
            member.listed = False
            if not member.free:
                continue
            while self.pending:
                task = self.tasks.get(self.pending.popleft())
                if task is not None and not task.at:
                    return member, task
            self._list(member)
        return None

    def sent(self, member: Member, task: Task, sequence: int) -> None:
        task.at, task.sequence = member.name, sequence
        member.held.add(task.id)
        self._list(member)

    def not_sent(self, member: Member, task: Task) -> None:
        """Its inbox is full: the task waits on, and the member is passed over until `again`."""
        self.pending.appendleft(task.id)
        self._full.append(member)

    def dropped(self, member: Member, task: Task) -> None:
        """Nobody wants it done any more: the member has room still."""
        del self.tasks[task.id]
        self._list(member)

    def again(self) -> None:
        """Inboxes that were full may have room again."""
        full, self._full = self._full, []
        for member in full:
            self._list(member)

    @property
    def busy(self) -> bool:
        """Some member has a task."""
        return any(member.held for member in self.members.values())

    @property
    def waits_for_room(self) -> bool:
        """Some task waits because an inbox is full."""
        return bool(self._full) and bool(self.pending)

    def found(self, id: int, body: Any, member: str, sequence: int, at: float) -> None:
        """A task that was seen where a dealer before this one had sent it, at that time. Of two places it is at the
        later: from the other it has come back, and that is not yet acked there."""
        task = self.tasks.setdefault(id, Task(id, body))
        if member not in self.members or (task.at and task.given > at):
            return
        self._let_go(task)
        task.given = at
        self.sent(self.members[member], task, sequence)

    def done(self, id: int) -> Task | None:
        """A result came; None if nobody waits for it."""
        task = self.tasks.pop(id, None)
        if task is None:
            self.late += 1
            return None
        self._let_go(task)
        return task

    def returned(self, id: int, member: str, sequence: int) -> Task | None:
        """It came back undone from where it was; None if it is not there."""
        task = self.tasks.get(id)
        if task is None or task.at != member or task.sequence != sequence:
            return None
        self._wait(task, first=True)
        return task

    def _let_go(self, task: Task) -> None:
        member = self.members.get(task.at)
        task.at = ""
        if member:
            member.held.discard(task.id)
            self._list(member)

    def _wait(self, task: Task, *, first: bool) -> None:
        self._let_go(task)
        (self.pending.appendleft if first else self.pending.append)(task.id)
