"""The peers, by name."""

from __future__ import annotations

from . import iceoryx, ours, queues, servers, sockets, standard, zenoh_
from .base import Peer

ALL: list[type[Peer]] = [
    ours.Cfnshm, standard.Queue, standard.SimpleQueue, standard.Pipe, standard.Datagram, standard.Seqpacket,
    standard.Fifo, queues.PosixMq, queues.FasterFifo, sockets.Zmq, sockets.Nng, iceoryx.Iceoryx, zenoh_.Zenoh,
    servers.Redis, servers.Nats, standard.Sqlite, standard.Files,
]  # fmt: skip

BY_NAME = {peer.name: peer for peer in ALL}

# Those that have a way of their own to send one message to many.
CASTING: dict[str, type[Peer]] = {
    **BY_NAME, "pyzmq": sockets.ZmqPublish, "iceoryx2": iceoryx.IceoryxPublish, "zenoh": zenoh_.ZenohPublish,
    "redis-py": servers.RedisPublish,
}  # fmt: skip
