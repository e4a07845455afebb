"""Messages: how a body becomes bytes and back, and what a receiver sees.

A body's codec stands in one byte of the message: raw (bytes), text (str), JSON (anything msgspec can
encode), array (NumPy). The array body is

    u8 len(dtype)  u8 ndim  6 x 0   u64 shape[ndim]   dtype as text   zeros up to a multiple of 16   data

so that the data is aligned for a zero-copy view.
"""

from __future__ import annotations

import functools
import math
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, overload

import msgspec

from ._core import MessageBase, ffi, lib, sealed, twin_property
from .errors import Corrupt, InvalidArgument

RAW, TEXT, JSON, ARRAY = 0, 1, 2, 3
CODECS = ("raw", "text", "json", "array")
LANES = {"control": 0, "high": 1, "normal": 2, "low": 3}
LANE_NAMES = ("control", "high", "normal", "low")

REQUEST, REPLY, FAILURE = 1, 2, 4  # message flags
REDELIVERED, EXTERNAL = 1, 2  # wire flags

# csrc/cfnshm.h, cfn_wire_t
WIRE = struct.Struct("<9Q4I2H6B6x")
assert WIRE.size == 104

def lane_of(priority: str) -> int:
    """The lane of a priority.

    Raises:
        InvalidArgument: there is none of that name.
    """
    try:
        return LANES[priority]
    except (KeyError, TypeError):
        raise InvalidArgument(
            f"there is no priority {priority!r}; priorities are {', '.join(LANES)}"
        ) from None


_NOT_DECODED = object()
_BODY_BYTES = struct.Struct("<I").unpack_from
_LENGTHS = struct.Struct("<2I").unpack_from  # total_bytes and body_bytes of a wire header


def _plain(body: Any) -> Any:
    """What JSON has no type of its own for: kinds of str, as names of objects are."""
    if isinstance(body, str):
        return str(body)
    raise TypeError(f"no type of JSON is a {type(body).__name__}")


_encode_json = msgspec.json.Encoder(enc_hook=_plain).encode
_decode_json = msgspec.json.Decoder().decode


_OF_JSON = frozenset((dict, list, tuple, int, float, bool, type(None)))


def encode(body: Any) -> tuple[int, Any]:
    """Codec and bytes (any contiguous buffer) of a body.

    What is not bytes, str or an array becomes JSON, which has fewer types than Python: tuples and sets
    arrive as lists, NaN and infinity as None, bytes inside as base64 text, Decimal, datetime and UUID as
    text, keys that are numbers as text. Dataclasses arrive as dicts.

    Raises:
        InvalidArgument: the body is nothing that can be sent; the message says what can.
    """
    kind = body.__class__
    if kind is bytes:
        return RAW, body
    if kind is str:
        return TEXT, body.encode("utf-8", "surrogatepass")
    if isinstance(body, str):
        return TEXT, str(body).encode("utf-8", "surrogatepass")
    if kind is bytearray:
        return RAW, body
    if kind is memoryview:
        # A copy: a memoryview that is exported when the collector of cycles meets it (an exception keeps
        # our frames) brings the interpreter down.
        return RAW, bytes(body)
    # Not of NumPy's own, which describe themselves anew each time they are asked: that takes longer than the sending.
    if kind not in _OF_JSON and (
        isinstance(body, getattr(sys.modules.get("numpy"), "ndarray", ())) or hasattr(body, "__array_interface__")
    ):
        return ARRAY, _encode_array(body)
    try:
        return JSON, _encode_json(body)
    except (TypeError, ValueError, RecursionError) as why:
        raise InvalidArgument(
            f"a body of type {kind.__name__} cannot be sent ({why}); send bytes, str, a NumPy array "
            "or what JSON can hold"
        ) from why


@functools.lru_cache(256)  # the text of a record's type takes longer than its message
def array_head(dtype: Any, shape: tuple[int, ...]) -> bytes:
    """What an array of such a type and shape begins with on its way."""
    if dtype.hasobject:
        raise InvalidArgument(
            f"an array of Python objects ({dtype}) cannot be sent: other processes cannot read "
            "them; convert it to numbers or send a list"
        )
    kind = dtype.str if dtype.names is None else repr(dtype.descr)
    name = kind.encode()
    if len(name) > 255 or len(shape) > 64:
        raise InvalidArgument(f"the array's type {kind!r} is too long to be sent")
    head = struct.pack(f"<BB6x{len(shape)}Q", len(name), len(shape), *shape) + name
    return bytes(head + b"\0" * (-len(head) % 16))


@functools.cache
def _numpy() -> Any:
    import numpy

    return numpy


def _encode_array(array: Any) -> bytes:
    if not isinstance(array, _numpy().ndarray):
        try:
            array = _numpy().asarray(array)
        except Exception as why:  # whatever its interface says
            raise InvalidArgument(
                f"a body of type {array.__class__.__name__} that NumPy cannot read ({why}) cannot be sent as an array"
            ) from why
    if not array.flags.c_contiguous:
        array = _numpy().ascontiguousarray(array)
    head = array_head(array.dtype, array.shape)
    return b"".join((head, array)) if array.nbytes else head


# What `dtype.str` is of numbers, texts, raw bytes and times. Anything else is not given to numpy, which divides by zero
# or overflows over some of it.
_ELEMENT = re.compile(
    r"[<>|=](?:([biufcV])(\d{1,9})|([SU])(\d{1,9})|[mM]8(?:\[\d{0,9}(?:Y|M|W|D|h|m|s|ms|us|μs|ns|ps|fs|as|generic)\])?)"
)
_MOST_BYTES = (1 << 31) - 1  # of an element, which numpy counts in an int


def _size_of(kind: Any, deep: int = 0) -> int:
    """Bytes of an element of a type that is described as `dtype.str` or `dtype.descr` do; ValueError: it is not."""
    size = 0
    if isinstance(kind, str):
        found = _ELEMENT.fullmatch(kind)
        if found is None:
            raise ValueError(f"{kind!r} is no type of an array")
        size = int(found[2] or found[4] or 8) * (4 if found[3] == "U" else 1)
    elif isinstance(kind, list) and deep < 16:
        for field in kind:
            if not isinstance(field, tuple) or len(field) not in (2, 3):
                raise ValueError(f"{field!r} is no field")
            shape = field[2] if len(field) == 3 else ()
            shape = (shape,) if isinstance(shape, int) else shape
            if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
                raise ValueError(f"{shape!r} is no shape")
            size += _size_of(field[1], deep + 1) * math.prod(shape)
    else:
        raise ValueError(f"{kind!r} is no type of an array")
    if size > _MOST_BYTES:
        raise ValueError(f"elements of {size} bytes")
    return size


@functools.lru_cache(256)
def array_of(head: bytes) -> tuple[Any, tuple[int, ...], Any, int]:
    """What makes an array with such a head: numpy's class, shape, type, and the bytes of its elements."""
    import ast

    import numpy

    at = 8 + 8 * head[1]
    shape = struct.unpack_from(f"<{head[1]}Q", head, 8)
    text = head[at : at + head[0]].decode()
    kind = ast.literal_eval(text) if text.startswith("[") else text
    size = _size_of(kind)
    dtype = numpy.dtype(kind)
    # Of Python objects it would be made of addresses that somebody sent.
    if dtype.hasobject or dtype.itemsize != size:
        raise ValueError(f"an array of {dtype}")
    return numpy.ndarray, shape, dtype, math.prod(shape) * size


_UNREADABLE = (
    LookupError, ValueError, TypeError, SyntaxError, ArithmeticError, RecursionError, MemoryError, struct.error
)  # fmt: skip


def array_or_none(head: bytes) -> tuple[Any, tuple[int, ...], Any, int] | None:
    """The same; None if it is no such head."""
    try:
        return array_of(head)
    except _UNREADABLE:
        return None


def _decode_array(raw: Any) -> Any:
    try:
        start = (23 + 8 * raw[1] + raw[0]) & -16
        array, shape, dtype, nbytes = array_of(bytes(raw[:start]))
        if len(raw) != start + nbytes:
            raise ValueError(f"{len(raw) - start} bytes for {shape} of {dtype}")
        return array(shape, dtype, raw, start)
    except _UNREADABLE as why:
        raise Corrupt(f"the array in this message cannot be read: {why}") from why


def decode(codec: int, raw: Any) -> Any:
    """The body that was sent. `raw` is any buffer; arrays are views of it, everything else a copy.

    Raises:
        Corrupt: the bytes are not what the codec says.
    """
    if codec == RAW:
        return raw
    try:
        if codec == TEXT:
            return str(raw, "utf-8", "surrogatepass")
        if codec == JSON:
            return _decode_json(raw)
    except (ValueError, msgspec.DecodeError, RecursionError) as why:
        raise Corrupt(f"the {CODECS[codec]} body of this message cannot be read: {why}") from why
    if codec == ARRAY:
        return _decode_array(raw)
    raise Corrupt(f"this message has codec {codec}, which this version does not know")


@sealed
class Message(MessageBase):
    """A received message. It stays in its inbox until it is acked: by `ack()`, or by the next
    `recv()` of the same thread, task or iterator. No class can be derived from it.

    Attributes:
        id: `"7.1.42"`: attachment, its incarnation, sequence number; unique on the bus.
        sender: name of the sending agent, `""` if the sender has none.
        to: name of the agent that received it.
        type: the sender's word for what this is, `""` if none.
        priority: `"control"`, `"high"`, `"normal"` or `"low"`.
        sequence: the sender's running number, from 1.
        timestamp: seconds since 1970 (float) when it was sent.
        body: what was sent; decoded at first access.
        raw: the body's bytes; a read-only memoryview into the bus after `recv(copy=False)`.
        redelivered: an earlier reader was handed this message and did not ack it.
        deliveries: how often it was handed out, this time included (255: as often, or more); of a message that was only
            peeked at, how often by now. Messages of one `send_many` may count together.
        correlation_id: sequence number (or request id) that this answers, or 0.
        position: place in the lane's total order.
        incarnation: of the sending agent's owner, 0 if it had none.
        pid: the sending process.
        is_request: the sender waits for the answer (`reply()`).
        failed: this is a reply that reports an error.
    """

    __slots__ = ()

    _body_: Any
    _bus: Any  # the Bus it came from
    _exporter: Any
    _head: tuple[Any, ...]
    _raw_: Any
    _to: str
    _wire: bytes

    # Made for every message received: it keeps the bytes and takes them apart when it is asked.
    def __init__(self, bus: Any, wire: bytes) -> None:
        self._bus = bus
        self._wire = wire

    @classmethod
    def _with_body(cls, bus: Any, wire: bytes, raw: Any, exporter: Any = None) -> Message:
        """A message whose body is not among the wire bytes: a copy, or its place in the bus, of which
        views are made."""
        message = cls(bus, wire)
        message._raw_ = raw
        message._exporter = exporter
        return message

    def _fields(self) -> tuple[Any, ...]:
        try:
            return self._head
        except AttributeError:
            head: tuple[Any, ...] = WIRE.unpack_from(self._wire)
            self._head = head
            return head

    @property
    def to(self) -> str:
        return str(getattr(self, "_to", None) or self._bus.agent)

    @property
    def id(self) -> str:
        f = self._fields()
        return f"{f[13]}.{f[5]}.{f[2]}"

    @property
    def token(self) -> int:
        return int.from_bytes(self._wire[:8], "little")

    @property
    def sender(self) -> str:
        end = WIRE.size + self._fields()[18]
        return self._wire[WIRE.size : end].decode()

    @property
    def type(self) -> str:
        f = self._fields()
        start = WIRE.size + f[18]
        return self._wire[start : start + f[17]].decode("utf-8", "replace")

    @twin_property
    def raw(self) -> Any:
        raw = getattr(self, "_raw_", None)
        if raw is None:
            wire = self._wire  # by offset: a body is asked for more often than all the other fields
            if not wire[96] & EXTERNAL:
                raw = wire[len(wire) - _BODY_BYTES(wire, 76)[0] :]
            elif getattr(self, "_exporter", None) is not None:
                raw = memoryview(self._exporter).toreadonly()
            else:
                raise InvalidArgument("this view ended when its message was acked")
            self._raw_ = raw
        return raw

    @twin_property
    def body(self) -> Any:
        body = getattr(self, "_body_", _NOT_DECODED)
        if body is _NOT_DECODED:
            body = self._body_ = decode(self._wire[93], self.raw)
        return body

    @property
    def codec(self) -> str:
        codec = self._fields()[16]
        return CODECS[codec] if codec < len(CODECS) else str(codec)

    @property
    def priority(self) -> str:
        return LANE_NAMES[self._fields()[15] & 3]

    @property
    def position(self) -> int:
        return int(self._fields()[1])

    @property
    def sequence(self) -> int:
        return int(self._fields()[2])

    @property
    def timestamp(self) -> float:
        return float(self._fields()[3] / 1e9)

    @property
    def correlation_id(self) -> int:
        return int(self._fields()[4])

    @property
    def incarnation(self) -> int:
        return int(self._fields()[6])

    @property
    def pid(self) -> int:
        return int(self._fields()[7])

    @property
    def is_request(self) -> bool:
        return bool(self._fields()[14] & REQUEST)

    @property
    def failed(self) -> bool:
        return bool(self._fields()[14] & FAILURE)

    @property
    def redelivered(self) -> bool:
        return bool(self._fields()[19] & REDELIVERED)

    @property
    def deliveries(self) -> int:
        return int(self._fields()[20])

    @property
    def _asker(self) -> tuple[int, int]:
        f = self._fields()
        return f[13], f[5]

    def ack(self) -> None:
        """Says that this message is dealt with: it is never handed out again.

        Raises:
            AgentFenced: the inbox was taken over; the message is redelivered there.
            InvalidArgument: it was acked before, or the inbox was given up.
            BufferError: a view of a message received with `copy=False` is still in use.
        """
        self._bus.ack(self)

    def reply(self, body: Any, *, type: str = "", failed: bool = False) -> bool:
        """Answers the sender; see `Bus.reply`."""
        return bool(self._bus.reply(self, body, type=type, failed=failed))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a message belongs to the handle that received it; send its body, or what you need of it"
        )

    def _release(self) -> bool:
        """Ends the view into the bus; False while somebody else still uses it.

        Slices of a memoryview and arrays made of it do not count as its exports, but all of them hold
        the object that the memory comes from: its reference count tells.
        """
        if getattr(self, "_exporter", None) is None:
            return True
        self._raw_, self._body_ = None, _NOT_DECODED
        if sys.getrefcount(self._exporter) > 2:  # ours, and the call's argument
            return False
        self._exporter = None
        return True

    def __repr__(self) -> str:
        mark = " redelivered" if self.redelivered else ""
        kind = f" type={self.type!r}" if self.type else ""
        return (
            f"<Message {self.id} from {self.sender!r}{kind} {self.priority} {self._fields()[10]} bytes{mark}>"
        )


class Wires:
    """Wire bytes of several messages; `offsets` (u32) are where each begins. The twin of recv_many has parcels in its
    place."""

    __slots__ = ("_offsets", "_wire")

    def __init__(self, wire: bytes, offsets: bytes) -> None:
        self._wire, self._offsets = wire, offsets

    def wire(self, index: int) -> bytes:
        at = int.from_bytes(self._offsets[4 * index : 4 * index + 4], "little")
        return self._wire[at : at + _LENGTHS(self._wire, at + 72)[0]]

    def bodies(self) -> list[Any]:
        """What is not among the bytes is no body."""
        out = []
        for at in memoryview(self._offsets).cast("I"):
            total, body = _LENGTHS(self._wire, at + 72)
            out.append(self._wire[at + total - body : at + total])
        return out

    def ack(self, bus: Any) -> int:
        offsets = ffi.from_buffer("uint32_t[]", self._offsets)
        code: int = lib.cfn_bus_ack_batch(bus._handle, self._wire, offsets, len(offsets))
        return code


class Batch(Sequence[Message]):
    """Messages of one `recv_many`. Message objects are made when they are looked at.

    Attributes:
        raws: list of the bodies' bytes, the fastest way through a batch.
    """

    __slots__ = ("_bus", "_count", "_made", "_wires", "acked")

    def __init__(self, bus: Any, wires: Any, count: int, large: Message | None) -> None:
        self._bus = bus
        self._wires = wires
        self._count = count
        self._made: dict[int, Message] = {} if large is None else {count - 1: large}
        self.acked = False

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if index < 0:
            index += self._count
        if not 0 <= index < self._count:
            raise IndexError("batch index out of range")
        made = self._made.get(index)
        if made is None:
            made = Message(self._bus, self._wires.wire(index))
            self._made[index] = made
        return made

    def __iter__(self) -> Iterator[Message]:
        return (self[i] for i in range(self._count))

    @property
    def raws(self) -> list[Any]:
        out: list[Any] = self._wires.bodies()
        for index, made in self._made.items():
            out[index] = made.raw
        return out

    def ack(self) -> None:
        """Acks all messages of the batch that are not acked yet.

        Raises:
            AgentFenced: the inbox was taken over; what was not acked is redelivered there.
        """
        self._bus.ack(self)

    def __repr__(self) -> str:
        return f"<Batch of {self._count} messages>"
