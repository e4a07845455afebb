"""zenoh: publish and subscribe in peer mode over a Unix socket, everybody connected to the hub."""

from __future__ import annotations

import json
from itertools import cycle, islice
from typing import Any

from .base import Peer, Receive, Send, Wrong


class Zenoh(Peer):
    name = "zenoh"
    packages = ("eclipse-zenoh",)
    session: Any = None

    def open(self, me: int) -> Any:
        import zenoh

        if self.session is None:
            config = zenoh.Config()
            where = json.dumps([f"unixsock-stream/{self.shape.folder}/hub"])
            hub = me == self.shape.hub
            for key, value in (
                ("mode", '"peer"'), ("scouting/multicast/enabled", "false"), ("scouting/gossip/enabled", "false"),
                ("listen/endpoints", where if hub else "[]"), ("connect/endpoints", "[]" if hub else where),
            ):  # fmt: skip
                config.insert_json5(key, value)
            self.session = zenoh.open(config)
        return zenoh

    def publisher(self, me: int, key: str, readers: int) -> Send:
        zenoh = self.open(me)
        publisher = self.session.declare_publisher(
            key, congestion_control=zenoh.CongestionControl.BLOCK, reliability=zenoh.Reliability.RELIABLE
        )
        self.keep = [*getattr(self, "keep", []), publisher]
        return publisher.put

    def connected(self, me: int) -> None:
        import time

        for publisher in getattr(self, "keep", []):
            while not publisher.matching_status.matching:
                time.sleep(0.005)
        time.sleep(0.5)  # it says that somebody is there, not that all are

    def close(self) -> None:
        self.session.close()

    def sender(self, me: int, to: int) -> Send:
        return self.publisher(me, f"bench/{to}", 1)

    def receiver(self, me: int) -> Receive:
        zenoh = self.open(me)
        self.subscriber = self.session.declare_subscriber(f"bench/{me}", zenoh.handlers.FifoChannel(1024))
        take = self.take = self.subscriber.recv
        return lambda: take().payload.to_bytes()

    def receive_all(self, receive: Receive, bodies: list[bytes], n: int) -> None:
        take = self.take
        for want in islice(cycle(bodies), n):
            if take().payload.to_bytes() != want:
                raise Wrong("a message is not the next one")


class ZenohPublish(Zenoh):
    casts = True
    casts_first = True

    def caster(self, me: int, everybody: list[int]) -> Send:
        return self.publisher(me, "bench/cast", len(everybody))

    def receiver(self, me: int) -> Receive:
        zenoh = self.open(me)
        self.subscriber = self.session.declare_subscriber("bench/cast", zenoh.handlers.FifoChannel(1024))
        take = self.take = self.subscriber.recv
        return lambda: take().payload.to_bytes()
