"""cfnshm itself."""

from __future__ import annotations

from functools import partial
from itertools import cycle, islice
from typing import Any

from .base import Peer, Receive, Send, Wrong


class Cfnshm(Peer):
    name = "cfnshm"
    packages = ("cfnshm",)
    forms = ("call", "batch", "view", "loan", "records")
    batch = 256
    casts = True

    def prepare(self) -> None:
        from cfnshm import Bus

        self.name_of_bus = f"bench-{self.shape.folder.rpartition('/')[2]}"
        n = self.shape.processes
        size = max(64, (self.shape.size * 64 >> 20) + n // 8) << 20
        self.bus = Bus(self.name_of_bus, agents=max(n + 8, 64), size=size, temporary=True)
        for m in self.shape.mailboxes:
            self.bus.register(f"p{m}")
        self.mine: Any = None

    def finish(self) -> None:
        self.bus.close()

    def open(self, me: int) -> Any:
        from cfnshm import Bus

        if self.mine is None:
            self.mine = Bus(self.name_of_bus, agent=f"p{me}")
        return self.mine

    def sender(self, me: int, to: int) -> Any:
        bus, name = self.open(me), f"p{to}"
        if self.shape.form == "batch":
            many = bus.send_many
            return lambda bodies: many(bodies, to=name)
        if self.shape.form == "loan":
            size = self.shape.size

            def lend(body: bytes) -> None:
                with bus.loan(name, size) as buffer:
                    buffer[0], buffer[-1] = body[0], body[-1]

            return lend
        return partial(bus.send, name)

    def receiver(self, me: int) -> Any:
        bus = self.open(me)
        if self.shape.form == "batch":
            many = bus.recv_many
            return lambda: many(960).raws
        recv = self.recv = bus.recv
        if self.shape.form == "records":
            return lambda: recv(copy=False).body
        if self.shape.form in ("view", "loan"):
            return lambda: recv(copy=False).raw
        return lambda: recv().raw

    def caster(self, me: int, everybody: list[int]) -> Send:
        return self.open(me).broadcast

    def receive_all(self, receive: Receive, bodies: list[bytes], n: int) -> None:
        recv = self.recv  # no function of ours around it: its time would count as the bus's
        for want in islice(cycle(bodies), n):
            if recv().raw != want:
                raise Wrong("a message is not the next one")
