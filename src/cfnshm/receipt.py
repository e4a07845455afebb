"""Receipts: what became of a message. A receipt costs the bus nothing: its state is derived by
comparing the message's place with the lane's cursors."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from . import _core
from .errors import InvalidArgument, UnknownAgent

if TYPE_CHECKING:
    from .handle import Handle

STATES = ("stored", "seen", "acked", "dropped")
_RECEIPT = struct.Struct("<3Q4I")  # cfn_receipt_t


@_core.sealed
class Receipt(_core.ReceiptBase):
    """Of one `send` (or one frame of `send_many`: then it speaks for all `count` messages of it).

    States: `"stored"` it is in the inbox; `"seen"` it was handed to a reader; `"acked"` the reader
    said that it is dealt with; `"dropped"` the agent was unregistered (whether it was read before
    that is not known).
    """

    __slots__ = ()

    _bus: Handle
    _data: bytes
    to: str

    def __init__(self, bus: Handle, to: str, data: bytes) -> None:
        self._bus = bus
        self._data = data
        self.to = to

    def _core(self) -> Any:
        receipt = _core.ffi.new("cfn_receipt_t *")
        _core.ffi.buffer(receipt)[:] = self._data
        return receipt

    @property
    def position(self) -> int:
        """Place in the lane's total order; with a batch, that of its frame."""
        return int(_RECEIPT.unpack(self._data)[1])

    @property
    def sequence(self) -> int:
        """The (first) message's sequence number."""
        return int(_RECEIPT.unpack(self._data)[2])

    @property
    def count(self) -> int:
        """How many messages the receipt is for."""
        return int(_RECEIPT.unpack(self._data)[4])

    @property
    def id(self) -> str:
        """The message's id as its receiver sees it (of the first message of a batch)."""
        return self._bus._message_id(self.sequence)

    @property
    def state(self) -> str:
        """The state that all its messages have reached now."""
        receipt = self._core()
        states = [
            _core.check(_core.lib.cfn_bus_receipt(self._bus._handle, receipt, i)) for i in range(self.count)
        ]
        return STATES[min(states)]

    def wait(self, state: str = "acked", timeout: float | None = None) -> str:
        """Waits until all its messages are `"seen"` or `"acked"`, and returns the state reached.

        Raises:
            Timeout: not in `timeout` seconds.
            AgentDead: the agent's process died; the message is kept for a successor.
            UnknownAgent: the agent was unregistered, and its inbox dropped.
        """
        if state not in STATES[:3]:
            raise InvalidArgument(f"a receipt can be waited for until {STATES[:3]}, not {state!r}")
        want = STATES.index(state)
        receipt = self._core()
        deadline = _core.deadline_of(timeout)
        code = _core.INTERRUPTED
        while code == _core.INTERRUPTED:
            code = _core.lib.cfn_bus_receipt_wait(self._bus._handle, receipt, want, deadline)
        if _core.check(code) == 3:
            raise UnknownAgent(f"agent {self.to!r} was unregistered, and what was unread dropped")
        return STATES[code]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a receipt belongs to the handle that sent the message; send its id or its state")

    def __repr__(self) -> str:
        return f"<Receipt to {self.to!r} sequence {self.sequence} x{self.count}>"


class Receipts(Mapping[str, Receipt]):
    """Of a broadcast, by the agents' names. A receipt is made when it is asked for."""

    __slots__ = ("_bus", "_data", "_names", "_places")

    def __init__(self, bus: Handle, names: list[str], data: bytes) -> None:
        self._bus, self._names, self._data = bus, names, data
        self._places: dict[str, int] | None = None

    def __getitem__(self, agent: str) -> Receipt:
        if self._places is None:
            self._places = {name: i * _RECEIPT.size for i, name in enumerate(self._names)}
        at = self._places[agent]
        return Receipt(self._bus, agent, self._data[at : at + _RECEIPT.size])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<receipts of {len(self)} agents>"
