"""What Python and the kernel bring along: queues and pipes of multiprocessing, sockets, FIFOs."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from functools import partial
from multiprocessing.connection import Pipe as make_pipe
from typing import Any

from .base import Peer, Receive, Send, merged

FORK = multiprocessing.get_context("fork")


class Queue(Peer):
    name = "mp.Queue"

    def prepare(self) -> None:
        self.queues = {m: FORK.Queue() for m in self.shape.mailboxes}

    def finish(self) -> None:
        for queue in self.queues.values():
            queue.close()
            queue.join_thread()

    def sender(self, me: int, to: int) -> Send:
        return self.queues[to].put

    def receiver(self, me: int) -> Receive:
        return self.queues[me].get


class SimpleQueue(Peer):
    name = "mp.SimpleQueue"

    def prepare(self) -> None:
        self.queues = {m: FORK.SimpleQueue() for m in self.shape.mailboxes}

    def finish(self) -> None:
        for queue in self.queues.values():
            queue.close()

    def sender(self, me: int, to: int) -> Send:
        return self.queues[to].put

    def receiver(self, me: int) -> Receive:
        return self.queues[me].get


class Pipe(Peer):
    """One for each sender: two writers of one pipe would mix their bytes."""

    name = "mp.Pipe"

    def prepare(self) -> None:
        self.ends = {edge: make_pipe(duplex=False) for edge in self.shape.edges}

    def finish(self) -> None:
        for reader, writer in self.ends.values():
            reader.close()
            writer.close()

    def sender(self, me: int, to: int) -> Send:
        return self.ends[me, to][1].send_bytes

    def receiver(self, me: int) -> Receive:
        ends = [self.ends[other, me][0] for other in self.shape.into(me)]
        return merged([(end.fileno(), end.recv_bytes) for end in ends])


class Datagram(Peer):
    name = "unix datagram"
    largest = 65536

    def path(self, mailbox: int) -> str:
        return f"{self.shape.folder}/{mailbox}"

    def prepare(self) -> None:
        self.inboxes = {}
        for m in self.shape.mailboxes:
            self.inboxes[m] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.inboxes[m].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self.inboxes[m].bind(self.path(m))

    def finish(self) -> None:
        for inbox in self.inboxes.values():
            inbox.close()

    def sender(self, me: int, to: int) -> Send:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        s.connect(self.path(to))
        return s.send

    def receiver(self, me: int) -> Receive:
        return partial(self.inboxes[me].recv, self.shape.size)


class Seqpacket(Peer):
    name = "unix seqpacket"
    largest = 65536

    def prepare(self) -> None:
        self.ends = {}
        for edge in self.shape.edges:
            a, b = self.ends[edge] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for s in (a, b):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def finish(self) -> None:
        for a, b in self.ends.values():
            a.close()
            b.close()

    def sender(self, me: int, to: int) -> Send:
        return self.ends[me, to][0].send

    def receiver(self, me: int) -> Receive:
        ends = [self.ends[other, me][1] for other in self.shape.into(me)]
        return merged([(end.fileno(), partial(end.recv, self.shape.size)) for end in ends])


class Fifo(Peer):
    """Messages of one length, so that neither side needs a header. With several writers a message must fit into
    PIPE_BUF (4 KiB), which is written as one."""

    name = "FIFO"
    forms = ("call", "batch")

    def path(self, mailbox: int) -> str:
        return f"{self.shape.folder}/{mailbox}"

    def prepare(self) -> None:
        import fcntl

        self.open = {}
        for m in self.shape.mailboxes:
            os.mkfifo(self.path(m))
            self.open[m] = os.open(self.path(m), os.O_RDWR)
            fcntl.fcntl(self.open[m], fcntl.F_SETPIPE_SZ, 1 << 20 if len(self.shape.mailboxes) < 16 else 1 << 16)

    def finish(self) -> None:
        for fd in self.open.values():
            os.close(fd)

    def sender(self, me: int, to: int) -> Any:
        fd = os.open(self.path(to), os.O_WRONLY)
        if self.shape.form == "batch":

            def send_many(bodies: list[bytes]) -> None:
                os.write(fd, b"".join(bodies))

            return send_many
        if self.shape.size <= 4096:
            return partial(os.write, fd)

        def send(body: bytes) -> None:
            left = memoryview(body)
            while left:
                left = left[os.write(fd, left) :]

        return send

    def receiver(self, me: int) -> Any:
        size = self.shape.size
        if self.shape.form == "batch":
            fd = os.open(self.path(me), os.O_RDONLY)
            places = [(i * size, (i + 1) * size) for i in range(8192)]

            def receive_many() -> list[bytes]:
                data = os.read(fd, 1 << 16)  # whole messages: writes are atomic, and 64 KiB a multiple of them
                return [data[a:b] for a, b in places[: len(data) // size]]

            return receive_many
        return partial(open(self.path(me), "rb", buffering=1 << 16).read, size)


class Files(Peer):
    """A file for each message: written, renamed, listed, read, removed. No JSON, no ids: the floor of all file buses.
    Who waits looks again every millisecond, as such scripts do (mostly less often)."""

    name = "files"

    def prepare(self) -> None:
        for m in self.shape.mailboxes:
            os.mkdir(f"{self.shape.folder}/{m}")

    def sender(self, me: int, to: int) -> Send:
        place, n = f"{self.shape.folder}/{to}", 0

        def send(body: bytes) -> None:
            nonlocal n
            n += 1
            temporary = f"{self.shape.folder}/{me}.tmp"
            with open(temporary, "wb", buffering=0) as file:
                file.write(body)
            os.rename(temporary, f"{place}/{n:012d}.{me}")

        return send

    def receiver(self, me: int) -> Receive:
        place, found = f"{self.shape.folder}/{me}", []

        def receive() -> bytes:
            while not found:
                found.extend(sorted(os.listdir(place), reverse=True))
                if not found:
                    time.sleep(0.001)
            path = f"{place}/{found.pop()}"
            with open(path, "rb", buffering=0) as file:
                body = file.read()
            os.unlink(path)
            return body

        return receive


class Sqlite(Peer):
    """A table in WAL mode, without a sync at each commit. Who waits looks again every millisecond."""

    name = "SQLite"
    forms = ("call", "batch")
    packages = ()

    def connect(self) -> Any:
        import sqlite3

        base = sqlite3.connect(f"{self.shape.folder}/queue.db", timeout=60, isolation_level=None)
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=OFF")
        return base

    def prepare(self) -> None:
        base = self.connect()
        for m in self.shape.mailboxes:
            base.execute(f"CREATE TABLE box{m} (id INTEGER PRIMARY KEY, body BLOB)")
        base.close()

    def sender(self, me: int, to: int) -> Any:
        base = self.connect()
        insert = f"INSERT INTO box{to} (body) VALUES (?)"

        def send(body: bytes) -> None:
            base.execute(insert, (body,))

        def send_many(bodies: list[bytes]) -> None:
            base.execute("BEGIN IMMEDIATE")
            base.executemany(insert, [(body,) for body in bodies])
            base.execute("COMMIT")

        return send_many if self.shape.form == "batch" else send

    def receiver(self, me: int) -> Any:
        base = self.connect()
        most = self.batch if self.shape.form == "batch" else 1
        take = f"DELETE FROM box{me} WHERE id IN (SELECT id FROM box{me} ORDER BY id LIMIT {most}) RETURNING id, body"

        def receive_many() -> list[bytes]:
            while not (rows := base.execute(take).fetchall()):
                time.sleep(0.001)
            rows.sort()
            return [body for _, body in rows]

        return receive_many if most > 1 else lambda: receive_many()[0]
