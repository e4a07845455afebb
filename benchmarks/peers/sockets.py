"""Libraries of sockets: pyzmq and pynng, over Unix sockets."""

from __future__ import annotations

from functools import partial
from typing import Any

from .base import Peer, Receive, Send


class Zmq(Peer):
    """PUSH and PULL; its I/O thread joins what is small by itself. The form `view` is its `copy=False`."""

    name = "pyzmq"
    packages = ("pyzmq",)
    forms = ("call", "view")
    context: Any = None

    def socket(self, kind: str) -> Any:
        import zmq

        if self.context is None:
            self.context = zmq.Context()
        return self.context.socket(getattr(zmq, kind))

    def address(self, mailbox: int | str) -> str:
        return f"ipc://{self.shape.folder}/{mailbox}"

    def sender(self, me: int, to: int) -> Send:
        socket = self.socket("PUSH")
        socket.connect(self.address(to))
        if self.shape.form == "view":
            return partial(socket.send, copy=False)
        return socket.send

    def receiver(self, me: int) -> Receive:
        socket = self.socket("PULL")
        socket.bind(self.address(me))
        if self.shape.form == "view":
            receive = partial(socket.recv, copy=False)
            return lambda: receive().buffer
        return socket.recv


class ZmqPublish(Zmq):
    """XPUB and SUB, without a high-water mark that would drop."""

    name = "pyzmq"
    casts = True
    casts_first = True

    def caster(self, me: int, everybody: list[int]) -> Send:
        import zmq

        self.public = self.socket("XPUB")
        self.public.setsockopt(zmq.XPUB_NODROP, 1)
        self.public.setsockopt(zmq.XPUB_VERBOSE, 1)  # it hears of each subscriber, not only of the first
        self.public.bind(self.address("cast"))
        self.everybody = everybody
        return self.public.send

    def connected(self, me: int) -> None:
        for _ in self.everybody:
            self.public.recv()  # one word of each subscriber

    def receiver(self, me: int) -> Receive:
        import zmq

        socket = self.socket("SUB")
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(self.address("cast"))
        return socket.recv


class Nng(Peer):
    """Push and pull."""

    name = "pynng"
    packages = ("pynng",)

    def address(self, mailbox: int | str) -> str:
        return f"ipc://{self.shape.folder}/{mailbox}"

    def sender(self, me: int, to: int) -> Send:
        import pynng

        socket = pynng.Push0(send_buffer_size=128)
        socket.dial(self.address(to), block=True)
        return socket.send

    def receiver(self, me: int) -> Receive:
        import pynng

        self.box = pynng.Pull0(recv_buffer_size=128, recv_max_size=0)
        self.box.listen(self.address(me))
        return self.box.recv
