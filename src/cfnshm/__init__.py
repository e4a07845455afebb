"""cfnshm: messages between hundreds of agent processes on one machine, through shared memory.

from cfnshm import Bus

with Bus("build-42", agent="planner") as bus:
    bus.send("coder-1", {"task": "fix auth"})
"""

from typing import TYPE_CHECKING

from .agents import AgentInfo, Team
from .bus import Bus
from .checkpoint import Checkpoint, Cut
from .context import Context, HeapInfo, ObjectInfo, Ref
from .control import Order, Signalled
from .errors import (
    AgentBusy,
    AgentDead,
    AgentFenced,
    BadName,
    BrokenBarrier,
    BusDestroyed,
    Closed,
    Conflict,
    Contended,
    Corrupt,
    Deadlock,
    Error,
    ForkedHandle,
    Full,
    Interrupted,
    InvalidArgument,
    LeaseLost,
    NoBus,
    NoSpace,
    OutOfMemory,
    OverCapacity,
    OwnerDied,
    PermissionDenied,
    SystemFailure,
    Timeout,
    TooLarge,
    UnknownAgent,
    UnknownKey,
    UnknownObject,
    VersionMismatch,
)
from .late import exports
from .message import Batch, Message
from .receipt import Receipt
from .state import State, Value
from .sync import Barrier, BarrierInfo, Election, Holder, Leadership, Lease, Lock, Party, Permit, Semaphore

if TYPE_CHECKING:
    from .aio import AsyncBus, AsyncState
    from .aio_sync import AsyncBarrier, AsyncElection, AsyncLock, AsyncSemaphore

__version__ = "0.1.0"

# asyncio is imported by who uses it: it takes longer than all the rest, and hundreds of agents do not need it.
_LAZY = {
    "AsyncBarrier": "aio_sync",
    "AsyncBus": "aio",
    "AsyncElection": "aio_sync",
    "AsyncLock": "aio_sync",
    "AsyncSemaphore": "aio_sync",
    "AsyncState": "aio",
}

__all__ = [
    "AgentBusy",
    "AgentDead",
    "AgentFenced",
    "AgentInfo",
    "AsyncBarrier",
    "AsyncBus",
    "AsyncElection",
    "AsyncLock",
    "AsyncSemaphore",
    "AsyncState",
    "BadName",
    "Barrier",
    "BarrierInfo",
    "Batch",
    "BrokenBarrier",
    "Bus",
    "BusDestroyed",
    "Checkpoint",
    "Closed",
    "Conflict",
    "Contended",
    "Context",
    "Corrupt",
    "Cut",
    "Deadlock",
    "Election",
    "Error",
    "ForkedHandle",
    "Full",
    "HeapInfo",
    "Holder",
    "Interrupted",
    "InvalidArgument",
    "Leadership",
    "Lease",
    "LeaseLost",
    "Lock",
    "Message",
    "NoBus",
    "NoSpace",
    "ObjectInfo",
    "Order",
    "OutOfMemory",
    "OverCapacity",
    "OwnerDied",
    "Party",
    "PermissionDenied",
    "Permit",
    "Receipt",
    "Ref",
    "Semaphore",
    "Signalled",
    "State",
    "SystemFailure",
    "Team",
    "Timeout",
    "TooLarge",
    "UnknownAgent",
    "UnknownKey",
    "UnknownObject",
    "Value",
    "VersionMismatch",
]

__getattr__, __dir__ = exports(__name__, globals(), _LAZY)
