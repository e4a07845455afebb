"""What a peer is: something that carries bytes from one process to the mailbox of another."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

Send = Callable[[bytes], Any]
Receive = Callable[[], Any]

PERIOD = 251  # messages are told apart by their number modulo this prime


class Wrong(Exception):
    """A message was lost, doubled, torn or out of order."""


@dataclass
class Shape:
    """Who sends to whom in one run. Processes have numbers; a process to which others send has a mailbox of its number.
    `hub` is the one that all others talk to."""

    edges: list[tuple[int, int]]
    size: int
    form: str
    folder: str
    hub: int = 0
    mailboxes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mailboxes = sorted({to for _, to in self.edges})

    @property
    def processes(self) -> int:
        return 1 + max(max(edge) for edge in self.edges)

    def into(self, mailbox: int) -> list[int]:
        return [a for a, b in self.edges if b == mailbox]


class Peer:
    """One way to carry messages, in one form. Everything before `prepare` returns is done once, before the processes
    are forked; `sender`, `receiver` and `caster` are called in the process that sends or receives.

    Forms: `call` is one call a message, `batch` many messages a call, `view` a body that is not copied out,
    `loan` one that is not copied in either, `poll` a receiver that never sleeps.
    """

    name = ""
    packages: Sequence[str] = ()
    forms: Sequence[str] = ("call",)
    largest = 1 << 30  # bytes of a body
    most = 4096  # processes
    batch = 64  # messages of a call of the batch form
    casts = False  # has a way of its own to send one message to many,
    casts_first = False  # for which the sender must be there before the receivers

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def prepare(self) -> None: ...

    def finish(self) -> None: ...

    def sender(self, me: int, to: int) -> Send:
        raise NotImplementedError

    def receiver(self, me: int) -> Receive:
        raise NotImplementedError

    def caster(self, me: int, everybody: list[int]) -> Send:
        """One message to all of them."""
        sends = [self.sender(me, to) for to in everybody]

        def cast(body: bytes) -> None:
            for send in sends:
                send(body)

        return cast

    def connected(self, me: int) -> None:
        """Called in every sender when all others are open: what must be waited for is waited for here."""

    def close(self) -> None:
        """Called in every process at its end, when its `send` and `receive` are gone."""

    def servers(self) -> list[int]:
        return []

    # ---- the timed loops; a peer overrides them if its own way is another one ----

    def send_all(self, send: Send, bodies: list[bytes], n: int) -> None:
        for body in islice(cycle(bodies), n):
            send(body)

    def send_batches(self, send: Callable[[list[bytes]], Any], bodies: list[bytes], n: int) -> None:
        many, at = bodies * (2 + self.batch // PERIOD), 0
        while n:
            k = min(self.batch, n)
            send(many[at : at + k])
            at, n = (at + k) % PERIOD, n - k

    def receive_all(self, receive: Receive, bodies: list[bytes], n: int) -> None:
        for want in islice(cycle(bodies), n):
            if receive() != want:
                raise Wrong("a message is not the next one")

    def receive_ends(self, receive: Receive, bodies: list[bytes], n: int) -> None:
        """For large ones: the first and the last byte, and the length."""
        ends = [(body[0], body[-1]) for body in bodies]
        size = self.shape.size
        for first, last in islice(cycle(ends), n):
            got = receive()
            if got[0] != first or got[-1] != last or len(got) != size:
                raise Wrong("a message is not the next one")
            got = None

    def receive_batches(self, receive: Callable[[], list[bytes]], bodies: list[bytes], n: int) -> None:
        many, at = bodies * (2 + 8192 // PERIOD), 0
        while n:
            got = receive()
            k = len(got)
            if got != many[at : at + k]:
                raise Wrong("a message is not the next one")
            at, n = (at + k) % PERIOD, n - k
        if n:
            raise Wrong("more messages than were sent")


def merged(readers: list[tuple[int, Receive]]) -> Receive:
    """One receiver of several descriptors, each with a function that reads one message from it."""
    if len(readers) == 1:
        return readers[0][1]
    by_fd = dict(readers)
    epoll = select.epoll()
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    ready: list[int] = []

    def receive() -> Any:
        if not ready:
            ready.extend(fd for fd, _ in epoll.poll())
        return by_fd[ready.pop()]()

    return receive
