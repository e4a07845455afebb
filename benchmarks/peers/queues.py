"""POSIX message queues and faster-fifo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Peer, Receive, Send


class PosixMq(Peer):
    """With the number of messages that any user may have in a queue (fs.mqueue.msg_max)."""

    name = "POSIX mq"
    packages = ("posix_ipc",)
    largest = 8192

    def queue_name(self, mailbox: int) -> str:
        return f"/{self.shape.folder.rpartition('/')[2]}-{mailbox}"

    def prepare(self) -> None:
        import posix_ipc

        most = int(Path("/proc/sys/fs/mqueue/msg_max").read_text())
        self.queues = {}
        for m in self.shape.mailboxes:  # as many as the limits of this user allow
            self.queues[m] = posix_ipc.MessageQueue(
                self.queue_name(m), posix_ipc.O_CREX, max_messages=most, max_message_size=self.shape.size
            )

    def finish(self) -> None:
        for queue in self.queues.values():
            queue.close()
            queue.unlink()

    def sender(self, me: int, to: int) -> Send:
        return self.queues[to].send

    def receiver(self, me: int) -> Receive:
        receive = self.queues[me].receive
        return lambda: receive()[0]


class FasterFifo(Peer):
    """Bytes are taken as they are (`loads` and `dumps` that do nothing)."""

    name = "faster-fifo"
    packages = ("faster-fifo",)
    forms = ("call", "batch")

    def prepare(self) -> None:
        from faster_fifo import Queue

        def same(value: bytes) -> bytes:
            return value

        room = max(1 << 20, 8 * self.shape.size)
        self.queues = {
            m: Queue(max_size_bytes=room, loads=bytes, dumps=same) for m in self.shape.mailboxes
        }

    def sender(self, me: int, to: int) -> Any:
        queue = self.queues[to]
        if self.shape.form == "batch":
            return lambda bodies: queue.put_many(bodies, timeout=60)
        put = queue.put
        return lambda body: put(body, timeout=60)

    def receiver(self, me: int) -> Any:
        queue = self.queues[me]
        if self.shape.form == "batch":
            return lambda: queue.get_many(timeout=60, max_messages_to_get=4096)
        get = queue.get
        return lambda: get(timeout=60)
