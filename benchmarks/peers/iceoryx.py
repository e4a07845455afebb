"""iceoryx2: publish and subscribe without copies, polled or woken by its events."""

from __future__ import annotations

import ctypes
from typing import Any

from .base import Peer, Receive, Send

_memmove = ctypes.memmove


class Iceoryx(Peer):
    """Forms: `call` copies in and out and waits for an event, `poll` the same without ever sleeping, `view` reads in
    place, `loan` writes in place, too."""

    name = "iceoryx2"
    packages = ("iceoryx2",)
    forms = ("call", "poll", "view", "loan")
    node: Any = None

    def begin(self) -> Any:
        import iceoryx2 as iox2

        if self.node is None:
            iox2.set_log_level(iox2.LogLevel.Error)
            self.node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
        return iox2

    def service(self, mailbox: int, writers: int, readers: int) -> Any:
        iox2 = self.begin()
        tag = self.shape.folder.rpartition("/")[2]
        room = 64 if self.shape.size >= 65536 else 256
        return (
            self.node.service_builder(iox2.ServiceName.new(f"{tag}/{mailbox}"))
            .publish_subscribe(iox2.Slice[ctypes.c_uint8])
            .max_publishers(writers).max_subscribers(readers).max_nodes(self.shape.processes + 2)
            .subscriber_max_buffer_size(room).enable_safe_overflow(False)
            .subscriber_max_borrowed_samples(2).history_size(0)
            .open_or_create()
        )  # fmt: skip

    def events(self, mailbox: int, writers: int, readers: int) -> Any:
        iox2 = self.begin()
        tag = self.shape.folder.rpartition("/")[2]
        return (
            self.node.service_builder(iox2.ServiceName.new(f"{tag}/{mailbox}"))
            .event().max_notifiers(writers).max_listeners(readers).max_nodes(self.shape.processes + 2)
            .open_or_create()
        )  # fmt: skip

    def many(self, mailbox: int) -> tuple[int, int]:
        return max(1, len(self.shape.into(mailbox))), 1

    def publisher(self, mailbox: int) -> Send:
        iox2 = self.begin()
        many = self.many(mailbox)
        publisher = (
            self.service(mailbox, *many).publisher_builder().initial_max_slice_len(self.shape.size)
            .max_loaned_samples(2).backpressure_strategy(iox2.BackpressureStrategy.RetryUntilDelivered).create()
        )  # fmt: skip
        size, loan = self.shape.size, publisher.loan_slice_uninit
        polled = self.shape.form == "poll"
        notify = None if polled else self.events(mailbox, *many).notifier_builder().create().notify
        in_place = self.shape.form == "loan"

        def send(body: bytes) -> None:
            sample = loan(size)
            at = sample.payload_ptr
            if in_place:
                ctypes.c_char.from_address(at).value = body[:1]
                ctypes.c_char.from_address(at + size - 1).value = body[-1:]
            else:
                _memmove(at, body, size)
            sample.assume_init().send()
            if notify:
                notify()

        return send

    def close(self) -> None:
        self.node = None

    def sender(self, me: int, to: int) -> Send:
        return self.publisher(to)

    def receiver(self, me: int) -> Receive:
        return self.subscriber(me)

    def subscriber(self, mailbox: int) -> Receive:
        many = self.many(mailbox)
        subscriber = self.service(mailbox, *many).subscriber_builder().create()
        size, take = self.shape.size, subscriber.receive
        wait: Any = None
        if self.shape.form != "poll":
            wait = self.events(mailbox, *many).listener_builder().create().blocking_wait
        in_place = self.shape.form in ("view", "loan")
        array = ctypes.c_char * size
        held: Any = None

        def receive() -> Any:
            nonlocal held
            held = None  # the one before goes back
            while (sample := take()) is None:
                if wait:
                    wait()
            if in_place:
                held = sample
                return memoryview(array.from_address(sample.payload_ptr)).cast("B")
            body = ctypes.string_at(sample.payload_ptr, size)
            sample.delete()
            return body

        return receive


class IceoryxPublish(Iceoryx):
    casts = True
    casts_first = True
    forms = ("call", "poll")

    def many(self, mailbox: int) -> tuple[int, int]:
        return 1, len(self.shape.edges)

    def caster(self, me: int, everybody: list[int]) -> Send:
        return self.publisher(-1)

    def receiver(self, me: int) -> Receive:
        return self.subscriber(-1)
