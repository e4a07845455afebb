"""`Bus`: one process's handle on one bus.

    with Bus("build-42", agent="planner") as bus:
        bus.send("coder-1", {"task": "fix auth"})
        message = bus.recv(timeout=5)
        bus.reply(message, "done")

Timeouts are in seconds; `None` waits for ever, 0 does not wait. Ctrl-C works in every wait.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from threading import get_ident
from types import TracebackType
from typing import Any, NoReturn

from . import _core, config
from ._core import EMPTY, FOREVER, INTERRUPTED, STALE, TIMEOUT, check, fail, ffi, lib
from .agents import TEXTS, AgentInfo, from_core
from .errors import Closed, Error, Full, InvalidArgument, Timeout, UnknownAgent
from .message import EXTERNAL, LANE_NAMES, LANES, WIRE, Batch, Message, encode
from .receipt import Receipt

_ALL_LANES = 15
_ROOM = WIRE.size + 64 + 256 + 16384  # a received message is copied here in one crossing
_BATCH_ROOM = 1 << 18
_NO_BYTES = b""
_send_one, _recv_next = lib.cfn_bus_send_one, lib.cfn_bus_recv_next  # the hot calls, looked up once


def _words(value: Iterable[str] | str, what: str) -> str:
    words = value.split() if isinstance(value, str) else list(value)
    for word in words:
        if not word or any(c.isspace() for c in word):
            raise InvalidArgument(f"{what} are words without spaces: {word!r}")
    return " ".join(words)


def _lane(priority: str) -> int:
    try:
        return LANES[priority]
    except (KeyError, TypeError):
        raise InvalidArgument(
            f"there is no priority {priority!r}; priorities are {', '.join(LANES)}"
        ) from None


def _c_text(value: str, what: str) -> Any:
    data = value.encode()
    if b"\0" in data:
        raise InvalidArgument(f"{what} must not contain NUL: {value!r}")
    return ffi.new("char[]", data)


def _end_handle(handle: Any, temporary: bool) -> None:
    """When the handle is collected, or the interpreter ends; in a forked child both calls do nothing."""
    if temporary:
        lib.cfn_bus_destroy(handle)
    lib.cfn_bus_free(handle)


class Bus:
    """A handle on a bus; the bus is created if it is not there.

    Args:
        name: of the bus; default `$CFNSHM_BUS`, else "default".
        agent: whose name this handle acts under; made if missing. Default `$CFNSHM_AGENT`, else
            nobody: such a handle can send, ask and look, and has no inbox.
        type, team, capabilities, tags, status: what the agent says of itself.
        create: make the bus if it is missing, else raise `NoBus`.
        agents, size, lanes, slabs, directory: see `cfnshm.config`; they count when the bus is made.
            Asking for more than an existing bus has raises `OverCapacity`.
        temporary: destroy the bus when this handle is closed, or at the latest when the process ends
            normally.

    A handle may be shared by threads. It is not inherited by fork (`ForkedHandle`), and pickles as
    its name and agent: unpickling attaches anew.

    Attributes:
        name: of the bus.
        agent: name it acts under, "" if none.
        incarnation: how often that name was taken by a new owner.
        is_owner: this process is the agent's owner (False if another living one is).

    Raises:
        NoSpace: the bus does not fit; the message has the numbers and the remedy.
        OverCapacity, VersionMismatch, Corrupt, PermissionDenied, BadName, InvalidArgument.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        agent: str | None = None,
        type: str = "",
        team: str = "",
        capabilities: Iterable[str] | str = (),
        tags: Iterable[str] | str = (),
        status: str = "",
        create: bool = True,
        agents: int | None = None,
        size: int | str | None = None,
        lanes: Mapping[str, int] | None = None,
        slabs: Mapping[int | str, int] | None = None,
        directory: str | os.PathLike[str] | None = None,
        temporary: bool = False,
    ) -> None:
        self.name = name if name is not None else os.environ.get("CFNSHM_BUS") or "default"
        self.agent = agent if agent is not None else os.environ.get("CFNSHM_AGENT") or ""
        self.directory = os.fspath(directory) if directory is not None else None
        self.temporary = temporary
        self._closed = True
        wish = ffi.new("cfn_wish_t *")
        config.fill_wish(wish, agents, size, lanes, slabs)
        where = _c_text(self.directory, "the directory") if self.directory else ffi.NULL
        out = ffi.new("cfn_bus_t **")
        made = ffi.new("int *")
        check(lib.cfn_bus_open(where, _c_text(self.name, "the bus name"), wish, create, out, made))
        self._handle = out[0]
        self._closed = False
        self._finalizer = weakref.finalize(self, _end_handle, self._handle, temporary)
        self.created = bool(made[0])
        self.incarnation = 0
        self.is_owner = False
        self._attachment = lib.cfn_bus_attachment(self._handle)
        self._peers: dict[str, tuple[int, int]] = {}
        self._handed: dict[int, Any] = {}  # who (thread, iterator, task) -> what it was handed
        self._rooms: list[Any] = []
        self._receipts: list[Any] = []
        self._id_prefix = ""
        try:
            if self.agent:
                self._act(type, team, capabilities, tags, status)
        except BaseException:
            self._finalizer()
            raise

    # -- life ------------------------------------------------------------------------------------

    def _act(self, *texts: Any) -> None:
        profile, keep = self._profile(dict(zip(TEXTS, self._check_texts(*texts), strict=True)))
        incarnation, owner = ffi.new("uint64_t *"), ffi.new("int *")
        name = _c_text(self.agent, "the agent name")
        check(lib.cfn_bus_act_as(self._handle, name, profile, 1, incarnation, owner))
        self.incarnation, self.is_owner = incarnation[0], bool(owner[0])
        del keep

    @staticmethod
    def _check_texts(type: str, team: str, capabilities: Any, tags: Any, status: str) -> tuple[str, ...]:
        return (type, team, _words(capabilities, "capabilities"), _words(tags, "tags"), status)

    @staticmethod
    def _profile(texts: Mapping[str, str | None]) -> tuple[Any, list[Any]]:
        """A `cfn_profile_t`; empty texts are left as they are."""
        profile = ffi.new("cfn_profile_t *")
        keep = []
        for i, name in enumerate(TEXTS):
            value = texts.get(name)
            if value:
                keep.append(_c_text(value, name))
                profile.text[i] = keep[-1]
        return profile, keep

    def close(self) -> None:
        """Leaves the bus. What was not acked stays in the inbox for the next reader; a temporary bus
        is destroyed."""
        if self._closed:
            return
        self._closed = True
        if self.temporary:
            with contextlib.suppress(Error):
                check(lib.cfn_bus_destroy(self._handle))
        lib.cfn_bus_close(self._handle)

    def __enter__(self) -> Bus:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self._closed:  # a clean end acks what was handed out
                for who in list(self._handed):
                    self._ack_handed(who)
        finally:
            self.close()

    def destroy(self) -> None:
        """Ends the bus for everybody: others get `BusDestroyed`, the files are removed.

        Raises:
            BusDestroyed: it was destroyed already.
        """
        check(lib.cfn_bus_destroy(self._handle))
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self.name, self.agent, self.directory))

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<Bus {self.name!r} agent={self.agent!r}{state}>"

    @property
    def closed(self) -> bool:
        return self._closed

    # -- small helpers ---------------------------------------------------------------------------

    @staticmethod
    def _deadline(timeout: float | None) -> int:
        if timeout is None:
            return FOREVER
        if timeout <= 0:
            return 0
        if not timeout < 1e9:  # also NaN and infinity
            if timeout != timeout:
                raise InvalidArgument("a timeout must be a number of seconds")
            return FOREVER
        return time.monotonic_ns() + int(timeout * 1e9)

    def _find(self, agent: str) -> tuple[int, int]:
        """Index and exact word of an agent; kept until the word turns out to be stale."""
        address = ffi.new("cfn_address_t *")
        code = lib.cfn_bus_find(self._handle, _c_text(agent, "the agent name"), address)
        if code < 0:
            fail(code)
        found = (address.index, address.mid)
        self._peers[agent] = found
        return found

    def _address(self, agent: str) -> Any:
        index, mid = self._peers.get(agent) or self._find(agent)
        return ffi.new("cfn_address_t *", {"index": index, "mid": mid})

    def _stale(self, agent: str) -> None:
        """The agent was unregistered since we looked it up: look again, or say so."""
        self._peers.pop(agent, None)
        self._find(agent)

    def _message_id(self, sequence: int) -> str:
        if not self._id_prefix:
            info = self.info()
            self._id_prefix = f"{self._attachment}.{info['attachment_incarnation']}."
        return self._id_prefix + str(sequence)

    # -- sending ---------------------------------------------------------------------------------

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
            Full: `timeout` was 0 and the lane is full. Timeout: it stayed full.
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
            lane = _lane(priority)
        kind = type.encode() if type else _NO_BYTES
        index, mid = self._peers.get(to) or self._find(to)
        deadline = FOREVER if timeout is None else self._deadline(timeout)
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
                self._stale(to)
                index, mid = self._peers[to]
            elif code != INTERRUPTED:
                fail(code)

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
            as `send`; the error's `sent` is the number of messages that were sent.
        """
        groups: dict[str, list[Any]]
        if to is not None:
            groups = {to: list(messages)}
        else:
            groups = {}
            for receiver, body in messages:
                group = groups.get(receiver)
                if group is None:
                    groups[receiver] = [body]
                else:
                    group.append(body)
        deadline = self._deadline(timeout)
        lane = _lane(priority)
        receipts: list[Receipt] = []
        sent = 0
        try:
            for receiver, bodies in groups.items():
                sent = self._send_group(receiver, bodies, type, lane, deadline, receipts, sent)
        except Error as error:
            error.sent = sum(r.count for r in receipts)  # type: ignore[attr-defined]
            raise
        return receipts

    def _send_group(
        self, to: str, bodies: list[Any], type: str, lane: int, deadline: int,
        receipts: list[Receipt], sent: int,
    ) -> int:  # fmt: skip
        codecs: Any = ffi.NULL
        if set(map(_class_of, bodies)) != {bytes}:
            pairs = [encode(body) for body in bodies]
            codecs = bytes([codec for codec, _ in pairs])
            bodies = [raw if raw.__class__ is bytes else bytes(raw) for _, raw in pairs]
        lengths = ffi.new("uint32_t[]", list(map(len, bodies)))
        joined = _NO_BYTES.join(bodies)
        kind = type.encode()
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
    ) -> dict[str, Receipt]:
        """Sends to every agent but this one, or to those of a team, type or capability. Everybody is
        tried first; then the full ones are waited for.

        Returns:
            The receipt of each agent.

        Raises:
            Full: not everybody got it; `error.delivered` and `error.missing` say who.
        """
        deadline = self._deadline(timeout)
        codec, raw = encode(body)
        raw = raw if raw.__class__ is bytes else bytes(raw)
        targets = self._targets(team, agent_type, capability)
        names = list(targets)
        n = len(names)
        if n == 0:
            return {}
        kind = type.encode()
        keep = [ffi.from_buffer(raw), ffi.new("char[]", kind)]
        message = ffi.new(
            "cfn_outgoing_t *",
            {"body": keep[0], "type": keep[1], "body_bytes": len(raw), "type_bytes": len(kind),
             "codec": codec},
        )  # fmt: skip
        addresses = ffi.new("cfn_address_t[]", n)
        for i, name in enumerate(names):
            addresses[i].index, addresses[i].mid = targets[name]
        results, receipts = ffi.new("int[]", n), ffi.new("cfn_receipt_t[]", n)
        lane = _lane(priority)
        check(lib.cfn_bus_broadcast(self._handle, addresses, n, lane, message, results, receipts))
        delivered: dict[str, Receipt] = {}
        missing: dict[str, Exception] = {}
        for i, name in enumerate(names):
            if results[i] == 0:
                delivered[name] = Receipt(self, name, bytes(ffi.buffer(receipts + i)))
                continue
            if results[i] == STALE:  # unregistered since it was listed: not an addressee any more
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
            full = Full(
                f"{len(missing)} of {len(missing) + len(delivered)} agents did not get the broadcast: "
                + ", ".join(f"{name} ({why.code})" for name, why in list(missing.items())[:5])  # type: ignore[attr-defined]
                + (", ..." if len(missing) > 5 else "")
            )
            full.delivered, full.missing = delivered, missing
            raise full
        return delivered

    def _targets(
        self, team: str | None, agent_type: str | None, capability: str | None
    ) -> dict[str, tuple[int, int]]:
        wanted = self._agents(type=agent_type, team=team, capability=capability)
        return {info.name: place for info, place in wanted if info.name != self.agent}

    # -- receiving -------------------------------------------------------------------------------

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
        return self._recv(get_ident(), timeout, copy)

    def _recv(self, who: int, timeout: float | None, copy: bool) -> Message:
        deadline = FOREVER if timeout is None else self._deadline(timeout)
        before = self._handed.pop(who, None)
        if before.__class__ is not bytes:  # the wire bytes of a plain message are acked on the way
            before = ffi.NULL if before is None else self._before(before)
        try:
            room, view = self._rooms.pop()
        except IndexError:
            room = ffi.new("char[]", _ROOM)
            view = ffi.buffer(room)
        flags = 0 if copy else 1
        while True:
            n = _recv_next(self._handle, before, _ALL_LANES, flags, deadline, room, _ROOM)
            if n > 0:
                wire = view[:n]
                self._rooms.append((room, view))
                if wire[96] & EXTERNAL:
                    message = self._handed[who] = self._external(wire, copy)
                    return message
                self._handed[who] = wire
                return Message(self, wire)
            if n != INTERRUPTED:
                self._rooms.append((room, view))
                fail(n)
            before = ffi.NULL

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
        head = WIRE.unpack_from(wire)
        view = ffi.buffer(ffi.cast("char *", head[8]), head[10])
        if not copy:
            return Message._with_body(self, wire, None, view)
        raw = view[:]
        if head[0]:
            check(lib.cfn_bus_verify(self._handle, head[0]))  # the copy is good if it still is ours
        return Message._with_body(self, wire, raw)

    def recv_many(self, n: int = 256, timeout: float | None = None) -> Batch:
        """Up to `n` messages that are there, waiting only for the first. Asking again acks them all.

        Raises:
            as `recv`.
        """
        return self._recv_many(get_ident(), n, timeout)

    def _recv_many(self, who: int, n: int, timeout: float | None) -> Batch:
        if n < 1:
            raise InvalidArgument(f"recv_many takes at least 1 message, not {n}")
        deadline = self._deadline(timeout)
        handed = self._handed.pop(who, None)
        if handed is not None:
            self._ack_anything(handed)
        room = ffi.new("char[]", min(_BATCH_ROOM, 4096 + n * 4096))
        offsets = ffi.new("uint32_t[]", n)
        used = ffi.new("size_t *")
        count = INTERRUPTED
        while count == INTERRUPTED:
            count = lib.cfn_bus_recv_many(
                self._handle, ffi.NULL, 0, _ALL_LANES, n, deadline, room, len(room), offsets, used
            )
        check(count)
        wire = ffi.buffer(room)[: used[0]]
        places = memoryview(ffi.buffer(offsets)[: 4 * count]).cast("I")
        large = None
        last = places[count - 1]
        if wire[last + 96] & EXTERNAL:
            large = self._external(wire[last:], True)
        batch = Batch(self, wire, places, count, large)
        self._handed[who] = batch
        return batch

    def ack(self, message: Message | Batch) -> None:
        """Acks a message, in any order, or what is unacked of a batch; see `Message.ack`."""
        if message.__class__ is Batch:
            self._ack_batch(message)
        elif not message._release():  # type: ignore[union-attr]
            raise BufferError(
                "a view of this message is still in use (a memoryview or an array of it); release it "
                "before you ack, or receive with copy=True"
            )
        else:
            token = ffi.new("uint64_t *", message.token)  # type: ignore[union-attr]
            check(lib.cfn_bus_ack(self._handle, token, 1))
        for who, handed in list(self._handed.items()):
            if handed is message or handed is getattr(message, "_wire", None):
                self._handed.pop(who, None)

    def _ack_batch(self, batch: Any) -> None:
        if not batch.acked:
            offsets = ffi.from_buffer("uint32_t[]", batch._offsets)
            check(lib.cfn_bus_ack_batch(self._handle, batch._wire, offsets, len(batch)))
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
        `message.redelivered` says that it was handed to a reader already. At most 16 MiB of bodies.

        Raises:
            UnknownAgent.
        """
        agent = agent or self.agent
        room = ffi.new("char[]", 1 << 24)
        offsets = ffi.new("uint32_t[]", limit)
        used = ffi.new("size_t *")
        code = STALE
        while code == STALE:
            self._stale(agent)
            code = lib.cfn_bus_peek(
                self._handle, self._address(agent), _ALL_LANES, room, len(room), offsets, limit, used
            )
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

    # -- request and reply -----------------------------------------------------------------------

    def request(
        self,
        to: str,
        body: Any,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
    ) -> Message:
        """Sends a message and waits for its answer, which comes back to this process and not through
        the inbox. Several threads may ask at once.

        Raises:
            Timeout: no answer in `timeout` seconds; a later one is dropped and counted.
            AgentDead: the agent's process died; the request is kept for its successor, whose answer
                will be dropped.
            UnknownAgent, NoSpace, TooLarge.
        """
        deadline = self._deadline(timeout)
        correlation = self._ask(to, body, type, priority, deadline)
        try:
            while True:
                answer = self._answer(to, correlation, deadline)
                if answer is not None:
                    return answer
        finally:
            lib.cfn_bus_request_end(self._handle, correlation)

    def _ask(self, to: str, body: Any, type: str, priority: str, deadline: int) -> int:
        codec, raw = encode(body)
        raw = raw if raw.__class__ is bytes else bytes(raw)
        kind = type.encode()
        keep = [ffi.from_buffer(raw), ffi.new("char[]", kind)]
        message = ffi.new(
            "cfn_outgoing_t *",
            {"body": keep[0], "type": keep[1], "body_bytes": len(raw), "type_bytes": len(kind),
             "codec": codec},
        )  # fmt: skip
        if len(kind) > 255:
            raise InvalidArgument(f"a message type has at most 255 bytes, not {len(kind)}")
        correlation = ffi.new("uint64_t *")
        lane = _lane(priority)
        while True:
            address = self._address(to)
            code = lib.cfn_bus_request(self._handle, address, lane, message, deadline, correlation)
            if code == STALE:
                self._stale(to)
            elif code != INTERRUPTED:
                check(code)
                return int(correlation[0])

    def _answer(self, to: str, correlation: int, deadline: int) -> Message | None:
        """The answer, or None after an interruption."""
        room = ffi.new("char[]", _ROOM)
        n = lib.cfn_bus_request_wait(self._handle, self._address(to), correlation, deadline, room, _ROOM)
        if n == INTERRUPTED:
            return None
        if n == TIMEOUT and deadline == 0:
            n = EMPTY
        check(n)
        wire = ffi.buffer(room)[:n]
        return self._external(wire, True) if wire[96] & EXTERNAL else Message(self, wire)

    def _judge(self, agent: str) -> None:
        """Raises AgentDead or UnknownAgent if waiting for this agent makes no sense."""
        check(lib.cfn_bus_judge_agent(self._handle, self._address(agent)))

    def reply(
        self,
        message: Message,
        body: Any,
        *,
        type: str = "",
        failed: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Answers a message. A request's answer goes straight to the process that asked; any other
        answer is a message to the sender, with `correlation_id` = `message.sequence`.

        Returns:
            False if the process that asked is gone: the answer was dropped.

        Raises:
            UnknownAgent: the sender is not registered (any more), or had no name.
        """
        if not message.is_request:
            if not message.sender:
                raise UnknownAgent("the sender of this message has no name to answer to")
            self.send(
                message.sender, body, type=type, priority=message.priority, timeout=timeout,
                correlation_id=message.sequence,
            )  # fmt: skip
            return True
        codec, raw = encode(body)
        raw = raw if raw.__class__ is bytes else bytes(raw)
        kind = type.encode()
        keep = [ffi.from_buffer(raw), ffi.new("char[]", kind)]
        outgoing = ffi.new(
            "cfn_outgoing_t *",
            {"body": keep[0], "type": keep[1], "body_bytes": len(raw), "type_bytes": len(kind),
             "codec": codec, "correlation": message.correlation_id, "flags": 4 if failed else 0},
        )  # fmt: skip
        attachment, incarnation = message._asker
        deadline = self._deadline(timeout)
        code = INTERRUPTED
        while code == INTERRUPTED:
            code = lib.cfn_bus_reply(self._handle, attachment, incarnation, outgoing, deadline)
        if code == STALE:
            return False
        check(code)
        return True

    # -- agents ----------------------------------------------------------------------------------

    def register(
        self,
        agent: str,
        *,
        type: str = "",
        team: str = "",
        capabilities: Iterable[str] | str = (),
        tags: Iterable[str] | str = (),
        status: str = "",
    ) -> bool:
        """Makes an agent that nobody owns yet, so that messages for it can be sent before its process
        runs. True if it is new; an existing one gets the texts that are given.

        Raises:
            OverCapacity, BadName, InvalidArgument.
        """
        texts = self._check_texts(type, team, capabilities, tags, status)
        profile, keep = self._profile(dict(zip(TEXTS, texts, strict=True)))
        address, made = ffi.new("cfn_address_t *"), ffi.new("int *")
        name = _c_text(agent, "the agent name")
        check(lib.cfn_bus_register(self._handle, name, profile, address, made))
        del keep
        self._peers[agent] = (address.index, address.mid)
        return bool(made[0])

    def unregister(self, agent: str | None = None, *, force: bool = False) -> int:
        """Removes an agent (default: this one) and its inbox. Returns how many unread messages were
        dropped.

        Raises:
            AgentBusy: a living process owns or reads it, and `force` is not set.
            UnknownAgent.
        """
        agent = agent or self.agent
        dropped = ffi.new("uint64_t *")
        check(lib.cfn_bus_unregister(self._handle, _c_text(agent, "the agent name"), force, dropped))
        self._peers.pop(agent, None)
        return int(dropped[0])

    def rename(self, *_: Any) -> NoReturn:
        """Agents are not renamed: messages on their way carry the name. Register the new name and
        unregister the old one.

        Raises:
            InvalidArgument: always.
        """
        raise InvalidArgument(
            "agents are not renamed: messages on their way carry the name. Register the new name, "
            "then unregister the old one"
        )

    def set_status(self, status: str, *, agent: str | None = None) -> None:
        """Sets the status line that `agents()` and `cfnshm list` show, at most 247 bytes."""
        profile = ffi.new("cfn_profile_t *")
        keep = _c_text(status, "the status")
        profile.text[TEXTS.index("status")] = keep
        name = _c_text(agent or self.agent, "the agent name")
        check(lib.cfn_bus_set_profile(self._handle, name, profile))

    def _agents(
        self, type: str | None = None, team: str | None = None, capability: str | None = None
    ) -> list[tuple[AgentInfo, tuple[int, int]]]:
        most = 256
        while True:
            all_ = ffi.new("cfn_address_t[]", most)
            n = check(lib.cfn_bus_agents(self._handle, all_, most))
            if n <= most:
                break
            most = n + 64
        info = ffi.new("cfn_agent_info_t *")
        out = []
        for i in range(n):
            code = lib.cfn_bus_agent_info(self._handle, all_ + i, info)
            if code == STALE:
                continue
            check(code)
            one = from_core(info)
            if (
                (type is None or one.type == type)
                and (team is None or one.team == team)
                and (capability is None or capability in one.capabilities)
            ):
                out.append((one, (all_[i].index, all_[i].mid)))
        return out

    def agents(
        self,
        *,
        type: str | None = None,
        team: str | None = None,
        capability: str | None = None,
        alive: bool | None = None,
    ) -> list[AgentInfo]:
        """All agents, or those of a type, team, capability or life."""
        found = [info for info, _ in self._agents(type, team, capability)]
        return found if alive is None else [info for info in found if info.alive is alive]

    def agent_info(self, agent: str | None = None) -> AgentInfo:
        """One agent (default: this one).

        Raises:
            UnknownAgent.
        """
        agent = agent or self.agent
        info = ffi.new("cfn_agent_info_t *")
        code = STALE
        while code == STALE:
            self._stale(agent)
            code = lib.cfn_bus_agent_info(self._handle, self._address(agent), info)
        check(code)
        return from_core(info)

    def wait_for(self, *agents: str, timeout: float | None = None) -> None:
        """Waits until all these agents are registered.

        Raises:
            Timeout: not in time; the message names who is missing.
        """
        deadline = self._deadline(timeout)
        address = ffi.new("cfn_address_t *")
        for agent in agents:
            name = _c_text(agent, "the agent name")
            code = INTERRUPTED
            while code == INTERRUPTED:
                code = lib.cfn_bus_wait_agent(self._handle, name, deadline, address)
            if code == _core.CODES["UNKNOWN_AGENT"]:
                missing = [a for a in agents if not self.is_registered(a)]
                raise Timeout(f"not registered yet: {', '.join(missing)}")
            check(code)
            self._peers[agent] = (address.index, address.mid)

    def is_registered(self, agent: str) -> bool:
        """Is there an agent of that name?"""
        try:
            self._find(agent)
        except UnknownAgent:
            return False
        return True

    # -- the bus itself --------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Configuration and counters, all read from the bus.

        Counters are totals since the bus was created: sent, sent_bytes, received, acked, redelivered,
        replies, replies_late, waits, full, reaped, corrupt, false_free (see docs/counters in the
        header `mem/layout.h`).
        """
        info = ffi.new("cfn_bus_info_t *")
        check(lib.cfn_bus_info(self._handle, info))
        c = info.config
        return {
            "name": _core.text(info.name),
            "path": _core.text(info.path),
            "bytes": info.region_bytes,
            "agents": info.agents,
            "agents_capacity": c.agents,
            "attached": info.attached,
            "dead": info.dead,
            "created": info.created_wall_ns / 1e9,
            "creator_pid": info.creator_pid,
            "largest_body": info.largest_body,
            "lanes": {name: c.lane_slots[i] for i, name in enumerate(LANE_NAMES)},
            "chunks": {c.class_bytes[i]: c.class_chunks[i] for i in range(6)},
            "chunks_free": {c.class_bytes[i]: info.free_chunks[i] for i in range(6)},
            "corrupt_dropped": info.corrupt_dropped,
            "attachment": self._attachment,
            "attachment_incarnation": info.attachment_inc,
            "counters": {name: info.counter[i] for i, name in enumerate(COUNTERS)},
        }

    def reap(self) -> int:
        """Recycles what dead processes left; returns how many. Waits and shortages do it by
        themselves."""
        return check(lib.cfn_bus_reap(self._handle))

    def check(self) -> list[tuple[str, str]]:
        """Verifies every invariant of the bus: a list of (severity, finding), empty if all is well.
        "warning" heals by itself or by `reap()`; "error" means damage."""
        found: list[tuple[str, str]] = []
        handle = ffi.new_handle(found)
        check(lib.cfn_region_check(lib.cfn_bus_region(self._handle), lib.cfn_python_finding, handle))
        return found


COUNTERS = (
    "sent", "sent_bytes", "received", "acked", "redelivered", "replies", "replies_late", "waits",
    "full", "reaped", "corrupt", "false_free",
)  # fmt: skip


def _class_of(value: Any) -> type:
    return value.__class__  # type: ignore[no-any-return]


def _reopen(name: str, agent: str, directory: str | None) -> Bus:
    return Bus(name, agent=agent or None, directory=directory, create=False)


class _Messages(Iterator[Message]):
    """An endless iterator with an account of its own of what it was handed."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __next__(self) -> Message:
        try:
            return self._bus._recv(id(self), None, True)
        except Closed:
            raise StopIteration from None

    def __del__(self) -> None:
        # The last message stays with the handle: a clean end of `with` acks it, a crash does not.
        handed = getattr(self._bus, "_handed", {}).pop(id(self), None)
        if handed is not None and not self._bus.closed and not sys.is_finalizing():
            self._bus._handed.setdefault(-id(handed), handed)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def cfn_python_finding(context: Any, severity: Any, finding: Any) -> None:
    ffi.from_handle(context).append((_core.text(severity), _core.text(finding)))
