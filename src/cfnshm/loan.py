"""Loans: the body of a message, written in place."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._core import FOREVER, INTERRUPTED, STALE, deadline_of, fail, ffi, lend, lib, send_lent
from .errors import InvalidArgument
from .receipt import Receipt

if TYPE_CHECKING:
    from .outbox import Outbox

SMALL = 8192  # bytes up to which a copy costs less than a loan
_RAW = 0
_RECEIPT = ffi.typeof("cfn_receipt_t *")


class Loan:
    """Room for the body of one message, to be written before it is sent: `with bus.loan(to, size) as buffer:`.

    The clean end of `with` sends it, an exception drops it. Without `with`: write to `buffer`, then `send()` or
    `drop()`. From then on nobody may write to it, so both need all views of it (slices, arrays made of it) to be gone.

    Attributes:
        buffer: a writable memoryview of `size` bytes, with anything in them.
        receipt: of the message, once it is sent.
    """

    __slots__ = ("_bus", "_number", "_options", "_room", "_turn", "buffer", "receipt", "size", "to")

    def __init__(
        self, bus: Outbox, to: str, size: int, type: bytes, lane: int, timeout: float | None
    ) -> None:  # made by Bus.loan
        self._bus, self.to, self.size = bus, to, size
        self._options = (type, lane, timeout)
        self.receipt: Receipt | None = None
        self._number = 0
        self._turn = [True]  # taken by the one thread that sends or drops it
        if size < SMALL:
            self._room: Any = bytearray(size)
        else:
            self._room, self._number = lend(bus, size)
        self.buffer: memoryview = memoryview(self._room)

    def send(self) -> Receipt:
        """Sends it, and waits for room like `Bus.send`.

        Raises:
            BufferError: a view of the buffer is still in use; nothing was sent, and it can be sent later.
            InvalidArgument: it was sent or dropped before.
            as `Bus.send`: the loan is still open, and can be sent again.
        """
        self._take_turn()
        kind, lane, timeout = self._options
        bus = self._bus
        try:
            self._close("sent")
            if self._number:
                self.receipt = send_lent(bus, self._room, self.to, kind, lane, timeout)
            deadline = FOREVER if timeout is None else deadline_of(timeout)
            if not self._number:
                self.receipt = bus._send_small(self.to, self._room, kind, lane, deadline)
            elif self.receipt is None:
                receipt = ffi.new(_RECEIPT)
                index, mid = bus._peers.get(self.to) or bus._find(self.to)
                while True:
                    code = lib.cfn_bus_loan_send(
                        bus._handle, self._number, index, mid, lane, _RAW, kind, len(kind), deadline, receipt
                    )
                    if code == STALE:
                        index, mid = bus._stale(self.to)
                    elif code == 0:
                        break
                    elif code != INTERRUPTED:
                        fail(code)
                self.receipt = Receipt(bus, self.to, bytes(ffi.buffer(receipt)))
        except BaseException:
            if self._number and lib.cfn_bus_loan_open(bus._handle, self._number) != 1:
                self._room = None  # Ctrl-C just after it was sent, or the handle was closed: it must not be written to
            else:
                self.buffer = memoryview(self._room)
                self._turn.append(True)
            raise
        self._room = None
        return self.receipt

    def drop(self) -> None:
        """Gives it back unsent; of one that was sent or dropped before, nothing.

        Raises:
            BufferError: a view of the buffer is still in use.
        """
        if self._room is None:
            return
        self._take_turn()
        try:
            self._close("dropped")
        except BufferError:
            self.buffer = memoryview(self._room)
            self._turn.append(True)
            raise
        self._room = None

    def _take_turn(self) -> None:
        try:
            self._turn.pop()
        except IndexError:
            how = "was sent or dropped before" if self._room is None else "is being sent by another thread"
            raise InvalidArgument(f"this loan to {self.to!r} {how}") from None

    def _close(self, what: str) -> None:
        """Ends the buffer, if nobody else uses it.

        Slices of a memoryview and arrays made of it do not count as its exports, but all of them hold the object that
        the memory comes from: its reference count tells.
        """
        try:
            self.buffer.release()
        except BufferError:
            pass
        else:
            if sys.getrefcount(self._room) == 2:  # ours, and the call's argument
                return
        raise BufferError(
            f"a view of this loan (a slice of its buffer, or an array made of it) is still in use, so it is not "
            f"{what}; delete or release it before the end of `with`"
        )

    def __enter__(self) -> memoryview:
        return self.buffer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._room is not None:
                self.send()
        elif self._room is not None:
            try:
                self.drop()
            except BufferError:  # held by the frames of the exception: it ends with them
                self._room = None

    def __repr__(self) -> str:
        state = "sent" if self.receipt else "open" if self._room is not None else "dropped"
        return f"<Loan of {self.size} bytes to {self.to!r}, {state}>"
