"""Arrays as bodies: what another process may have written is told, and nothing is made of it."""

from __future__ import annotations

import struct

import numpy
import pytest

from cfnshm import errors
from cfnshm.message import ARRAY, decode, encode


def head(kind, *shape):
    packed = struct.pack(f"<BB6x{len(shape)}Q", len(kind), len(shape), *shape) + kind.encode()
    return packed + b"\0" * (-len(packed) % 16)


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
    ],
    ids=range(11),
)
def test_what_is_no_array(raw):
    for data in (raw, memoryview(raw)):
        with pytest.raises(errors.Corrupt, match="the array in this message cannot be read"):
            decode(ARRAY, data)


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
    ],
    ids=range(7),
)
def test_there_and_back(array):
    codec, raw = encode(array)
    for data in (raw, memoryview(raw)):
        got = decode(codec, data)
        assert (got.dtype, got.shape, got.tolist()) == (array.dtype, array.shape, array.tolist())
        assert not got.flags.writeable
