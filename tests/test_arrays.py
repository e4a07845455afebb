"""Arrays as bodies: what another process may have written is told, and nothing is made of it."""

from __future__ import annotations

import struct
import sys
import threading

import numpy
import pytest
from waiting import until

from cfnshm import errors
from cfnshm._core import ffi, lib
from cfnshm.message import ARRAY, JSON, LANES, decode, encode


def head(kind, *shape):
    packed = struct.pack(f"<BB6x{len(shape)}Q", len(kind), len(shape), *shape) + kind.encode()
    return packed + b"\0" * (-len(packed) % 16)


def post(bus, raw):
    """A message to itself that claims to be an array."""
    index, mid = bus._find(bus.agent)
    code = lib.cfn_bus_send_one(
        bus._handle, index, mid, LANES["normal"], ARRAY, raw, len(raw), b"", 0, 0, 0, ffi.new("cfn_receipt_t *")
    )
    assert code == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x03",
        head("|O", 2) + b"\1" * 16,
        head("[('a', '|O')]", 1) + b"\1" * 8,
        head("<f8", 3) + b"\0" * 16,
        head("<f8", 1) + b"\0" * 16,
        head("|u1", 1 << 63),
        head("<f8", 1 << 40, 1 << 40),
        head("no such type", 1),
        head("[('a', __import__('os'))]", 1),
        head("<f8", 2)[:-3],
        head("<M8[Y/0]", 1) + b"\0" * 8,  # numpy divides by zero
        head("[('a', 'M8[Y/0]')]", 1) + b"\0" * 8,
        head("[('a','|V2147483647'),('b','|V2147483647'),('c','|V10')]", 1) + b"\0" * 8,  # numpy overflows
        head("[('a','|V999999999',(9,9))]", 1) + b"\0" * 8,
        head("[('a','|V2147483647'),('b','|V2147483647')]", 1)[:-2],
        head("[('a','<i4',-1)]", 1) + b"\0" * 8,
        head("[" * 100, 1),
        head("{'names': ['a'], 'formats': ['O']}", 1) + b"\0" * 8,
    ],
    ids=range(19),
)
def test_what_is_no_array(bus, raw):
    for data in (raw, memoryview(raw)):
        with pytest.raises(errors.Corrupt, match="the array in this message cannot be read"):
            decode(ARRAY, data)
    for copy in (True, False):
        bus.send("a", numpy.arange(3.0))
        post(bus, raw)
        bus.send("a", numpy.arange(3.0))
        assert (bus.recv(copy=copy).body == [0, 1, 2]).all()
        with pytest.raises(errors.Corrupt, match="the array in this message cannot be read"):
            bus.recv(copy=copy).body  # noqa: B018
        assert (bus.recv(copy=copy).body == [0, 1, 2]).all()


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("elements", [4, 20_000])
def test_more_or_fewer_elements_than_its_head_says(bus, copy, elements):
    """The head is that of the message before."""
    _, raw = encode(numpy.arange(elements, dtype="<i8"))
    for wrong in (raw[:-8], raw + bytes(8), raw[: len(raw) // 2], raw[:17]):
        for data in (raw, wrong, raw):
            post(bus, data)
        assert (bus.recv(copy=copy).body == numpy.arange(elements)).all()
        with pytest.raises(errors.Corrupt, match="the array in this message cannot be read"):
            bus.recv(copy=copy).body  # noqa: B018
        assert (bus.recv(copy=copy).body == numpy.arange(elements)).all()


def test_what_is_no_json():
    with pytest.raises(errors.Corrupt, match="the json body"):
        decode(JSON, b"[" * 100_000)


@pytest.mark.parametrize("array", [numpy.zeros(0), numpy.zeros((3, 0, 2), "i4"), numpy.zeros(2, "V0")], ids=range(3))
def test_no_elements(array):
    got = decode(*encode(array))
    assert (got.shape, got.dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(24).reshape(2, 3, 4),
        numpy.arange(24).reshape(4, 6)[::2, 1:5],
        numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)),
        numpy.array(["2026-01-01", "2027-02-03"], "M8[s]"),
        numpy.array([(1, b"ab"), (2, b"c")], [("number", "<u8"), ("text", "S56")]),
        numpy.array(3.5),
        numpy.array([1, 2], ">u2"),
        numpy.array([True, False]),
        numpy.array([1 + 2j]),
        numpy.array([5], "m8[25us]"),
        numpy.zeros(2, [("a", "<i2"), ("b", [("c", "<f4", (2, 3)), ("d", "U4")]), (("title", "e"), "M8[D]")]),
    ],
    ids=range(11),
)
def test_there_and_back(bus, array):
    codec, raw = encode(array)
    for data in (raw, memoryview(raw)):
        got = decode(codec, data)
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert not got.flags.writeable
    many = numpy.broadcast_to(array, (1000, *array.shape))
    for sent in (array, many, array, numpy.ascontiguousarray(many), array):
        for copy in (True, False):
            bus.send("a", sent)
            message = bus.recv(copy=copy)
            got = message.body
            assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())
            assert not got.flags.writeable
            assert message.body is got
            assert bytes(message.raw) == encode(sent)[1]


def test_subclasses_arrive_as_arrays(bus):
    class Mine(numpy.ndarray):
        pass

    for array in (numpy.arange(4), numpy.arange(4).view(Mine), numpy.ma.masked_array([0, 1, 2, 3])):
        bus.send("a", array)
        got = bus.recv().body
        assert type(got) is numpy.ndarray
        assert (got == [0, 1, 2, 3]).all()


def test_arrays_of_objects_are_refused(bus):
    bus.send("a", numpy.arange(4))  # there is no other way for those that follow
    for _ in range(2):
        with pytest.raises(errors.InvalidArgument, match="Python objects"):
            bus.send("a", numpy.array([object()]))
    assert (bus.recv().body == [0, 1, 2, 3]).all()


def test_an_array_in_place_outlives_its_message(bus):
    bus.send("a", numpy.arange(5000))
    message = bus.recv(copy=False)
    got = message.body
    with pytest.raises(BufferError):
        message.ack()
    assert (got == numpy.arange(5000)).all()
    del got
    message.ack()


def test_what_claims_to_be_an_array_and_is_none_is_refused():
    class Broken:
        __array_interface__ = {"version": 3, "shape": (2,), "typestr": "no type", "data": (0, True)}

    with pytest.raises(errors.InvalidArgument, match="Broken"):
        encode(Broken())


def test_more_dimensions_than_numpy_has(bus):
    raw = head("|u1", *[1] * 100) + b"\0"
    for copy in (True, False):
        post(bus, raw)
        with pytest.raises(errors.Corrupt, match="the array in this message cannot be read"):
            bus.recv(copy=copy).body  # noqa: B018


@pytest.mark.parametrize("function", ["array_head", "array_of"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_what_a_signal_handler_raises_is_seen(bus, function, error):
    """Signals are handled where Python runs; here, a tracer raises there."""
    bus.send("a", numpy.zeros(7))
    bus.recv().body  # noqa: B018

    def tracer(frame, event, argument):
        if frame.f_code.co_name == function:
            raise error("rung")

    new = numpy.zeros((3, len(function), len(error.__name__)))
    if function == "array_of":
        bus.send("a", new)
        message = bus.recv()
    sys.settrace(tracer)
    try:
        with pytest.raises(error):
            message.body if function == "array_of" else bus.send("a", new)
    finally:
        sys.settrace(None)


@pytest.mark.parametrize("elements", [10, 100_000])
def test_what_waits_for_room_is_sent_as_it_was(bus, other, elements):
    while True:
        try:
            bus.send("b", b"", timeout=0)
        except errors.Full:
            break
    array = numpy.arange(elements)
    sender = threading.Thread(target=bus.send, args=("b", array))
    sender.start()
    until(lambda: bus.agent_info("a").waiting)
    array[:] = -1
    sent = 0
    while (message := other.recv(timeout=30)).codec != "array":
        sent += 1
        message.ack()
    assert (message.body == numpy.arange(elements)).all()
    sender.join()
