"""Receiving: leases, batches, views, and whose inbox it is."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Any

from . import _core
from ._core import INTERRUPTED, STALE, blank, check, deadline_of, fail, ffi, lib, this_thread, twin
from .errors import Closed, InvalidArgument
from .handle import Handle
from .message import EXTERNAL, WIRE, Batch, Message, Wires, lane_of

_PEEK_ROOM = 1 << 20
_ALL_LANES = 15
_NO_TOKEN = bytes(8)
_ROOM = WIRE.size + 64 + 256 + 16384  # a received message is copied here in one crossing
_BATCH_ROOM = 1 << 18
_EXTERNAL = struct.Struct("<QII").unpack_from  # external, total_bytes, body_bytes: csrc/cfnshm.h, cfn_wire_t
_CHARS = ffi.typeof("char *")
_recv_next = lib.cfn_bus_recv_next  # the hot call, looked up once


class Inbox(Handle):
    """The part of a `Bus` that receives."""

    @twin
    def recv(self, timeout: float | None = None, *, copy: bool = True) -> Message:
        """The next message of the inbox: control before high before normal before low.

        It is leased, not removed: asking for the next message acks it, and so do `message.ack()` and
        the clean end of `with`. If this process dies before that, the next reader of the inbox gets
        it again, marked `redelivered`.

        Args:
            timeout: seconds.
            copy: False gives `message.raw` as a memoryview into the bus, valid until it is acked.

        Raises:
            Timeout: nothing came. AgentBusy: another living process reads this inbox.
            AgentFenced: it was taken over. UnknownAgent: it was unregistered.
        """
        return self._recv(this_thread(), timeout, copy)

    @twin
    def _recv(self, who: int, timeout: float | None, copy: bool) -> Message:
        deadline = deadline_of(timeout)
        before = self._handed.pop(who, None)
        if before.__class__ is not bytes:  # the wire bytes of a plain message are acked on the way
            before = ffi.NULL if before is None else self._before(before)
        try:
            room, view = self._rooms.pop()
        except IndexError:
            room = ffi.new("char[]", _ROOM)
            view = ffi.buffer(room)
        flags = 0 if copy else 1
        view[:8] = _NO_TOKEN
        try:
            while True:
                n = _recv_next(self._handle, before, _ALL_LANES, flags, deadline, room, _ROOM)
                if n != INTERRUPTED:
                    break
                before = ffi.NULL
            if n > 0:
                wire = view[:n]
                if wire[96] & EXTERNAL:
                    message = self._handed[who] = self._external(wire, copy)
                else:
                    message = Message(self, wire)
                    self._handed[who] = wire
        except BaseException:  # Ctrl-C, most likely: the caller will not have it, so it is not handed out
            token = int.from_bytes(view[:8], "little")
            if token:
                self._handed.pop(who, None)
                lib.cfn_bus_put_back(self._handle, token)
            raise
        self._rooms.append((room, view))
        if n < 0:
            fail(n)
        return message

    def _before(self, handed: Any) -> Any:
        """What one crossing can ack of what was handed out before: wire bytes, or NULL if it was acked
        here, or stays unacked because its view is still in use."""
        if handed.__class__ is Batch:
            self._ack_batch(handed)
            return ffi.NULL
        if handed.__class__ is Message:
            return handed._wire if handed._release() else ffi.NULL
        return handed

    def _external(self, wire: bytes, copy: bool) -> Message:
        """A message whose body is not among the wire bytes."""
        place, _, size = _EXTERNAL(wire, 64)
        if not copy:
            message = Message(self, wire)
            message._exporter = ffi.buffer(ffi.cast(_CHARS, place), size)
            return message
        token = int.from_bytes(wire[:8], "little")
        if not token:  # a reply: it is ours alone
            return Message._with_body(self, wire, ffi.buffer(ffi.cast(_CHARS, place), size)[:])
        # Ours alone until it is returned: filled in place, for a second copy costs as much again.
        body = blank(size)
        # Under the lock: another thread may close the handle.
        check(lib.cfn_bus_copy_body(self._handle, token, ffi.cast(_CHARS, ffi.from_buffer(body)), size))
        return Message._with_body(self, wire, body)

    def recv_many(
        self, n: int = 256, timeout: float | None = None, *, hold: bool = False, priority: str | None = None
    ) -> Batch:
        """Up to `n` messages that are there, waiting only for the first. Asking again acks them all.

        Args:
            hold: they stay leased until each is acked by hand, in any order, whatever else is received meanwhile. A
                lane is full when its oldest message is as many places back as it holds: ack the old ones, too.
            priority: only of this lane.

        Raises:
            as `recv`.
        """
        lanes = () if priority is None else (1 << lane_of(priority),)
        if not hold:
            return self._recv_many(this_thread(), n, timeout, *lanes)
        account = next(accounts)  # of nobody who will ask again
        batch = self._recv_many(account, n, timeout, *lanes)
        self._handed.pop(account, None)
        return batch

    @twin
    def _recv_many(self, who: int, n: int, timeout: float | None, lanes: int = _ALL_LANES) -> Batch:
        if not isinstance(n, int) or n < 1:
            raise InvalidArgument(f"recv_many takes a number of messages from 1 up, not {n!r}")
        deadline = deadline_of(timeout)
        handed = self._handed.pop(who, None)
        if handed is not None:
            self._ack_anything(handed)
        room = ffi.new("char[]", min(_BATCH_ROOM, 4096 + n * 4096))
        offsets = ffi.new("uint32_t[]", n)
        used = ffi.new("size_t *")
        count = INTERRUPTED
        while count == INTERRUPTED:
            count = lib.cfn_bus_recv_many(
                self._handle, ffi.NULL, 0, lanes, n, deadline, room, len(room), offsets, used
            )
        check(count)
        wire = ffi.buffer(room)[: used[0]]
        places = ffi.buffer(offsets)[: 4 * count]
        large = None
        last = offsets[count - 1]
        if wire[last + 96] & EXTERNAL:
            large = self._external(wire[last:], True)
        batch = Batch(self, Wires(wire, places), count, large)
        self._handed[who] = batch
        return batch

    def ack(self, message: Message | Batch) -> None:
        """Acks a message, in any order, or what is unacked of a batch; see `Message.ack`."""
        if message.__class__ is Batch:
            self._ack_batch(message)
        elif not isinstance(message, Message):
            raise InvalidArgument(f"what is acked is a Message or a Batch, not {message!r:.80}")
        elif not message._release():
            raise BufferError(
                "a view of this message is still in use (a memoryview or an array of it); release it "
                "before you ack, or receive with copy=True"
            )
        else:
            token = ffi.new("uint64_t *", message.token)
            check(lib.cfn_bus_ack(self._handle, token, 1))
        first = message._wire[:8] if isinstance(message, Message) else b""  # its token
        for who, handed in list(self._handed.items()):
            if handed is message or (handed.__class__ is bytes and handed[:8] == first):
                self._handed.pop(who, None)

    def _ack_batch(self, batch: Any) -> None:
        if not batch.acked:
            check(batch._wires.ack(self))
            batch.acked = True

    def _ack_anything(self, handed: Any) -> None:
        wire = self._before(handed)
        if wire != ffi.NULL:
            token = ffi.new("uint64_t *", int.from_bytes(wire[:8], "little"))
            code = lib.cfn_bus_ack(self._handle, token, 1)
            if code < 0 and code != _core.CODES["INVALID"]:  # acked by hand before: nothing is owed
                fail(code)

    def _ack_handed(self, who: int) -> None:
        handed = self._handed.pop(who, None)
        if handed is not None:
            self._ack_anything(handed)

    def __iter__(self) -> Iterator[Message]:
        """Messages as they come, for ever: asking for the next acks the one before. Ends when the
        handle is closed."""
        return _Messages(self)

    def claim(self, *, steal: bool = False) -> None:
        """Takes the inbox now, so that no other process can read it.

        `steal=True` takes it from a living reader, whose next call raises `AgentFenced`: an
        operator's decision. What it had not acked is redelivered here.

        Raises:
            AgentBusy: a living process (`pid`) reads it.
        """
        check(lib.cfn_bus_claim_inbox(self._handle, steal))

    def release(self) -> None:
        """Gives the inbox back; what is not acked goes to the next reader."""
        self._handed.clear()
        check(lib.cfn_bus_release_inbox(self._handle))

    def peek(self, agent: str | None = None, *, limit: int = 1000) -> list[Message]:
        """What waits in an inbox (default: one's own), oldest first in each lane, without taking it.
        `message.redelivered` says that it was handed to a reader already. At most 4 GiB.

        Raises:
            UnknownAgent.
        """
        agent = agent or self.agent
        size = _PEEK_ROOM
        offsets = ffi.new("uint32_t[]", limit)
        used, more = ffi.new("size_t *"), ffi.new("int *")
        while True:
            room = ffi.new("char[]", size)
            code = STALE
            while code == STALE:
                self._stale(agent)
                code = lib.cfn_bus_peek(
                    self._handle, self._address(agent), _ALL_LANES, room, len(room), offsets, limit, used,
                    more,
                )  # fmt: skip
            if not more[0] or not 0 <= code < limit or size >= 1 << 32:
                break
            size *= 4
        wire = ffi.buffer(room)
        out = []
        for i in range(check(code)):
            at = offsets[i]
            total = int.from_bytes(wire[at + 72 : at + 76], "little")
            out.append(Message(self, wire[at : at + total]))
            out[-1]._to = agent
        return out

    def fileno(self) -> int:
        """A descriptor that is readable while messages wait, for `select` and event loops. After it
        became readable, call `recv(timeout=0)`. It belongs to the handle: do not close or read it.

        Raises:
            AgentBusy: another living process reads this inbox.
        """
        return check(lib.cfn_bus_fileno(self._handle, 0))


accounts = itertools.count(1)  # of iterators and tasks; threads count downward


class _Messages(Iterator[Message]):
    """An endless iterator with an account of its own of what it was handed. Its last message stays with
    the handle: a clean end of `with` acks it, a crash does not."""

    def __init__(self, bus: Inbox) -> None:
        self._bus = bus
        self._account = next(accounts)

    def __next__(self) -> Message:
        try:
            return self._bus._recv(self._account, None, True)
        except Closed:
            raise StopIteration from None
