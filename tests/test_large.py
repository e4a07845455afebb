"""Messages of any size the bus has room for: as all others."""

from __future__ import annotations

import asyncio
import hashlib
import os

import numpy
import pytest

from cfnshm import AsyncBus, Bus, errors
from cfnshm.testing import temp_bus

MIB = 1 << 20


@pytest.fixture
def roomy(bus_name):
    with Bus(bus_name, agent="a", size="96M", temporary=True) as bus:
        assert bus.info()["largest_body"] > 16 * MIB
        yield bus


def garbage(n, seed=b"x"):
    """Bytes that are nowhere the same."""
    return hashlib.shake_128(seed).digest(n)


@pytest.mark.parametrize("size", [MIB - 200, MIB, MIB + 1, 3 * MIB + 7, 16 * MIB])
def test_to_oneself_and_back(roomy, size):
    body = garbage(size)
    for copy in (True, False):
        receipt = roomy.send("a", body, type="big")
        assert receipt.state == "stored"
        message = roomy.recv(timeout=0, copy=copy)
        assert (message.type, len(message.raw)) == ("big", size)
        assert bytes(message.raw) == body
        assert receipt.state == "seen"
        del message
        with pytest.raises(errors.Timeout):
            roomy.recv(timeout=0)
        assert receipt.state == "acked"
    assert roomy.context.info().used == 0


@pytest.mark.parametrize("body", ["ü" * MIB, {"k": ["x" * (2 * MIB)]}, numpy.arange(MIB)])
def test_kinds(roomy, body):
    roomy.send("a", body)
    got = roomy.recv(timeout=0).body
    assert (got == body).all() if isinstance(body, numpy.ndarray) else got == body


def test_in_the_stream_of_others(roomy):
    other = Bus(roomy.name, agent="b")
    bodies = [garbage(n, bytes([i])) for i, n in enumerate((10, 3 * MIB, 20, 2 * MIB, 2 * MIB, 30))]
    roomy.send_many(("b", body) for body in bodies)
    got = []
    while len(got) < 6:
        got += [m.raw for m in other.recv_many(10, timeout=0)]
    assert got == bodies
    with pytest.raises(errors.Timeout):
        other.recv(timeout=0)
    for body in bodies:
        roomy.send("b", body)
    assert [len(m.raw) for m in roomy.peek("b")] == [len(b) for b in bodies]
    assert [m.raw for _, m in zip(bodies, other, strict=False)] == bodies
    other.close()


def test_asked_and_answered(roomy, spawn):
    def serve(bus_name):
        with Bus(bus_name, agent="s") as bus:
            for message in bus:
                bus.reply(message, message.raw[::-1])

    spawn(serve, roomy.name)
    roomy.wait_for("s", timeout=60)
    body = garbage(2 * MIB)
    for _ in range(5):
        assert roomy.request("s", body, timeout=60).raw == body[::-1]


def test_one_copy_for_all(roomy):
    others = [Bus(roomy.name, agent=f"o{i}") for i in range(10)]
    body = garbage(5 * MIB)
    assert len(roomy.broadcast(body)) == 10  # fifty would not fit
    assert roomy.context.info().used < 6 * MIB
    for other in others:
        message = other.recv(timeout=0)
        assert message.raw == body
        message.ack()
        other.close()
    roomy.send("a", garbage(roomy.info()["largest_body"]))  # there is room again


def test_a_view_outlives_what_is_sent_after_it(roomy):
    roomy.send("a", garbage(2 * MIB))
    message = roomy.recv(timeout=0, copy=False)
    view = message.raw
    for _ in range(20):
        roomy.context.put(garbage(8 * MIB, os.urandom(8)))
        for one in roomy.context.list():
            roomy.context.delete(one.ref)
    assert bytes(view) == garbage(2 * MIB)


def test_who_dies_with_it_loses_nothing(roomy, spawn):
    def take(bus_name):
        bus = Bus(bus_name, agent="b")
        bus.recv(timeout=60)
        os.kill(os.getpid(), 9)

    roomy.register("b")
    roomy.send("b", garbage(2 * MIB))
    process = spawn(take, roomy.name)
    process.join(60)
    with Bus(roomy.name, agent="b") as other:
        message = other.recv(timeout=60)
        assert message.redelivered
        assert message.raw == garbage(2 * MIB)
    assert not [f for f in roomy.check() if f[0] == "error"]


def test_no_room_says_how_much_there_is():
    with temp_bus("a") as bus:
        largest = bus.info()["largest_body"]
        bus.send("a", bytes(largest))
        with pytest.raises(errors.NoSpace, match="bytes in a row are not free in the heap") as full:
            bus.send("a", bytes(largest))
        assert full.value.want == largest
        assert full.value.have < largest
        with pytest.raises(errors.TooLarge, match="more than the whole heap"):
            bus.send("a", bytes(largest + 1))
        bus.send("a", b"small ones go on")
        assert [len(m.raw) for _, m in zip(range(2), bus, strict=False)] == [largest, 16]


def test_asyncio(bus_name):
    async def both():
        async with AsyncBus(bus_name, agent="a", size="96M", temporary=True) as bus:
            body = garbage(3 * MIB)
            await bus.send("a", body)
            assert (await bus.recv(timeout=60)).raw == body

    asyncio.run(both())


def test_a_gibibyte(bus_name):
    free = os.statvfs("/dev/shm")
    if free.f_bavail * free.f_frsize < 3 << 30:
        pytest.skip("less than 3 GiB of shared memory")
    with Bus(bus_name, agent="a", size="1400M", temporary=True) as bus:
        body = bytes(1 << 30)
        bus.send("a", body)
        message = bus.recv(timeout=0, copy=False)
        assert len(message.raw) == 1 << 30
        assert bytes(message.raw[-4096:]) == bytes(4096)
        del message
        with pytest.raises(errors.Timeout):
            bus.recv(timeout=0)
        assert bus.context.info().used == 0
