"""Sending: one message, many, or one to everybody."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ._core import FOREVER, INTERRUPTED, STALE, check, deadline_of, fail, ffi, lib, twin
from .agents import Agents
from .errors import Error, Full, InvalidArgument, TooLarge, UnknownAgent
from .loan import Loan
from .message import LANES, encode, lane_of
from .receipt import Receipt, Receipts

_NO_BYTES = b""
_TYPE_BYTES = 255
_BODY_BYTES = 0xFFFFFFFF
_send_one = lib.cfn_bus_send_one  # the hot call, looked up once
_WHY = {"FULL": "inbox full", "AGENT_DEAD": "dead", "NO_SPACE": "bus full", "TIMEOUT": "timed out"}


def kind_of(type: str) -> bytes:
    """The bytes of a message type.

    Raises:
        InvalidArgument: it is no text, or too long.
    """
    if not isinstance(type, str):
        raise InvalidArgument(f"a message type is a text, not {type!r}")
    kind = type.encode()
    if len(kind) > _TYPE_BYTES:
        raise InvalidArgument(f"a message type has at most {_TYPE_BYTES} bytes, not {len(kind)}")
    return kind


def too_large(bytes_: int) -> TooLarge:
    """Of a body whose length does not even fit into a message's header."""
    error = TooLarge(f"a body of {bytes_} bytes is larger than any message; split it, or pass a file name")
    error.have, error.want = _BODY_BYTES, bytes_
    return error


def outgoing(body: Any, type: str, correlation: int = 0, flags: int = 0) -> tuple[Any, list[Any]]:
    """A `cfn_outgoing_t`, and what must live as long."""
    codec, raw = encode(body)
    if len(raw) > _BODY_BYTES:
        raise too_large(len(raw))
    kind = kind_of(type)
    keep = [ffi.from_buffer(raw), ffi.new("char[]", kind)]
    message = ffi.new(
        "cfn_outgoing_t *",
        {"body": keep[0], "type": keep[1], "body_bytes": len(keep[0]), "type_bytes": len(kind),
         "codec": codec, "correlation": correlation, "flags": flags},
    )  # fmt: skip
    return message, [*keep, raw]


def _class_of(value: Any) -> type:
    return value.__class__  # type: ignore[no-any-return]


def _pair(item: Any) -> tuple[str, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InvalidArgument(
            f"send_many takes (agent, body) pairs, or bodies and to=; this is neither: {item!r:.80}"
        )
    return item[0], item[1]


class Outbox(Agents):
    """The part of a `Bus` that sends."""

    @twin
    def send(
        self,
        to: str,
        body: Any,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
        correlation_id: int = 0,
    ) -> Receipt:
        """Puts a message into an agent's inbox; returns when it is there for good.

        Args:
            to: the agent's name.
            body: bytes, str, a NumPy array, or anything JSON can hold.
            type: a word for what it is, at most 255 bytes.
            priority: "control", "high", "normal" or "low"; each is a lane of its own.
            timeout: seconds to wait while the lane is full.
            correlation_id: which of the receiver's messages this answers.

        Raises:
            Full: the lane is full, and stayed so for `timeout` seconds.
            UnknownAgent, AgentDead (while waiting for room), NoSpace, TooLarge.
        """
        if body.__class__ is bytes:
            codec, raw = 0, body
        else:
            codec, raw = encode(body)
            if raw.__class__ is not bytes:
                raw = ffi.from_buffer(raw)
        try:
            lane = LANES[priority]
        except (KeyError, TypeError):
            lane = lane_of(priority)
        if len(raw) > _BODY_BYTES:
            raise too_large(len(raw))
        kind = kind_of(type) if type else _NO_BYTES
        index, mid = self._peers.get(to) or self._find(to)
        deadline = FOREVER if timeout is None else deadline_of(timeout)
        try:
            receipt, view = self._receipts.pop()
        except IndexError:
            receipt = ffi.new("cfn_receipt_t *")
            view = ffi.buffer(receipt)
        while True:
            code = _send_one(
                self._handle, index, mid, lane, codec, raw, len(raw), kind, len(kind),
                correlation_id, deadline, receipt,
            )  # fmt: skip
            if code == 0:
                done = Receipt(self, to, view[:])
                self._receipts.append((receipt, view))
                return done
            if code == STALE:
                index, mid = self._stale(to)
            elif code != INTERRUPTED:
                fail(code)

    def _send_small(self, to: str, body: bytearray, kind: bytes, lane: int, deadline: int) -> Receipt:
        """Of a loan that is not worth one."""
        receipt = ffi.new("cfn_receipt_t *")
        index, mid = self._peers.get(to) or self._find(to)
        while True:
            code = _send_one(
                self._handle, index, mid, lane, 0, ffi.from_buffer(body), len(body), kind, len(kind), 0, deadline,
                receipt,
            )  # fmt: skip
            if code == 0:
                return Receipt(self, to, bytes(ffi.buffer(receipt)))
            if code == STALE:
                index, mid = self._stale(to)
            elif code != INTERRUPTED:
                fail(code)

    def loan(
        self, to: str, size: int, *, type: str = "", priority: str = "normal", timeout: float | None = None
    ) -> Loan:
        """Room in the bus for the body of one message, which is written in place and not copied:

            with bus.loan("renderer", 8_000_000) as buffer:
                file.readinto(buffer)          # the end of `with` sends it, an exception drops it

        What it costs does not depend on how large it is, except for a few nanoseconds a page. The receiver gets bytes
        (`recv(copy=False)`: in place, too). At most 16 loans of one handle are open at a time. What a process had
        on loan when it died is reclaimed.

        Args:
            to: the agent's name.
            size: bytes.
            type, priority, timeout: as in `send`; the timeout is that of sending.

        Raises:
            NoSpace, OverCapacity (16 are open), UnknownAgent, InvalidArgument; what `send` raises, at the end of
            `with`, and BufferError while a view of the buffer is still in use.
        """
        if not isinstance(size, int) or size < 0:
            raise InvalidArgument(f"a loan has a size in bytes, from 0 up, not {size!r}")
        deadline_of(timeout)
        if to not in self._peers:
            self._find(to)
        return Loan(self, to, size, kind_of(type), lane_of(priority), timeout)

    def send_many(
        self,
        messages: Iterable[Any],
        to: str | None = None,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
    ) -> list[Receipt]:
        """Sends many messages at once: `send_many(bodies, to="a")`, or `send_many([(to, body), ...])`.

        What goes to one receiver is packed into frames, each published as one: whole or not at all,
        up to the largest message the bus can hold. Order per receiver is kept.

        Returns:
            One receipt for each frame.

        Raises:
            as `send`; the error's `sent` is the number of messages that were sent, `receipts` theirs.
        """
        groups: dict[str, list[Any]]
        if to is not None:
            groups = {to: list(messages)}
        else:
            groups = {}
            for receiver, body in map(_pair, messages):
                group = groups.get(receiver)
                if group is None:
                    groups[receiver] = [body]
                else:
                    group.append(body)
        deadline = deadline_of(timeout)
        lane = lane_of(priority)
        receipts: list[Receipt] = []
        sent = 0
        try:
            for receiver, bodies in groups.items():
                sent = self._send_group(receiver, bodies, type, lane, deadline, receipts, sent)
        except Error as error:
            error.sent = sum(r.count for r in receipts)  # type: ignore[attr-defined]
            error.receipts = receipts  # type: ignore[attr-defined]
            raise
        return receipts

    @twin
    def _send_group(
        self, to: str, bodies: list[Any], type: str, lane: int, deadline: int,
        receipts: list[Receipt], sent: int,
    ) -> int:  # fmt: skip
        codecs: Any = ffi.NULL
        if set(map(_class_of, bodies)) != {bytes}:
            pairs = [encode(body) for body in bodies]
            codecs = bytes([codec for codec, _ in pairs])
            bodies = [raw if raw.__class__ is bytes else bytes(raw) for _, raw in pairs]
        if max(map(len, bodies), default=0) > _BODY_BYTES:
            raise too_large(max(map(len, bodies)))
        lengths = ffi.new("uint32_t[]", list(map(len, bodies)))
        joined = _NO_BYTES.join(bodies)
        kind = kind_of(type)
        n, at, first = len(bodies), 0, 0
        frames, why = ffi.new("uint32_t *"), ffi.new("int *")
        room = 1 + len(joined) // 4096 + n // 64 + 16
        out = ffi.new("cfn_receipt_t[]", room)
        address = self._address(to)
        while first < n:
            count = lib.cfn_bus_send_joined(
                self._handle, address, lane, kind, len(kind), ffi.from_buffer(joined) + at,
                lengths + first, codecs if codecs == ffi.NULL else ffi.from_buffer(codecs) + first,
                n - first, deadline, out, room, frames, why,
            )  # fmt: skip
            for i in range(min(frames[0], room)):
                receipts.append(Receipt(self, to, bytes(ffi.buffer(out + i))))
            at += sum(lengths[i] for i in range(first, first + count)) if first + count < n else 0
            first += count
            if why[0] == STALE:
                self._stale(to)
                address = self._address(to)
            elif why[0] < 0 and why[0] != INTERRUPTED:
                fail(why[0])
        return sent + n

    @twin
    def broadcast(
        self,
        body: Any,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
        team: str | None = None,
        agent_type: str | None = None,
        capability: str | None = None,
    ) -> Mapping[str, Receipt]:
        """Sends to every agent but this one, or to those of a team, type or capability. Everybody is
        tried first; then the full ones are waited for.

        Returns:
            The receipt of each agent, by name.

        Raises:
            Full: not everybody got it; `error.delivered` and `error.missing` say who.
        """
        deadline_of(timeout)
        message, keep = outgoing(body, type)
        if agent_type is team is capability is None:
            names, places = self._everybody()
        else:
            wanted = self._agents(type=agent_type, team=team, capability=capability)
            targets = {info.name: place for info, place in wanted}
            targets.pop(self.agent, None)
            names, places = list(targets), b"".join(targets.values())
        n = len(names)
        if n == 0:
            return {}
        addresses = ffi.from_buffer("cfn_address_t[]", places)
        results, receipts = ffi.new("int[]", n), ffi.new("cfn_receipt_t[]", n)
        lane = lane_of(priority)
        got = check(lib.cfn_bus_broadcast(self._handle, addresses, n, lane, message, 0, results, receipts))
        del keep
        all_of_them = Receipts(self, names, bytes(ffi.buffer(receipts)))
        if got == n:
            return all_of_them
        return self._broadcast_on(all_of_them, bytes(ffi.buffer(results)), body, type, priority, timeout)

    def _broadcast_on(
        self, tried: Receipts, results: bytes, body: Any, type: str, priority: str, timeout: float | None
    ) -> Mapping[str, Receipt]:
        """Goes on with those who did not get it at the first try; `results` are their codes, i32."""
        deadline = deadline_of(timeout)
        delivered: dict[str, Receipt] = {}
        missing: dict[str, Error] = {}
        for name, code in zip(tried, memoryview(results).cast("i"), strict=True):
            if code == 0:
                delivered[name] = tried[name]
                continue
            if code == STALE:  # unregistered since it was listed: not an addressee any more
                continue
            left = None if deadline == FOREVER else max(0.0, (deadline - time.monotonic_ns()) / 1e9)
            try:
                delivered[name] = self.send(
                    name, body, type=type, priority=priority, timeout=0 if timeout == 0 else left
                )
            except UnknownAgent:
                continue
            except Error as error:
                missing[name] = error
        if missing:
            raise not_everybody(delivered, missing)
        return delivered


def not_everybody(delivered: dict[str, Receipt], missing: dict[str, Error]) -> Full:
    """The error of a broadcast that some did not get."""
    full = Full(
        f"{len(missing)} of {len(missing) + len(delivered)} agents did not get the broadcast: "
        + ", ".join(f"{name} ({_why(why)})" for name, why in list(missing.items())[:5])
        + (", ..." if len(missing) > 5 else "")
    )
    full.delivered, full.missing = delivered, missing
    return full


def _why(error: Error) -> str:
    return _WHY.get(error.code, error.code.lower().replace("_", " "))
