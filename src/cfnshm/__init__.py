"""cfnshm: messages between hundreds of agent processes on one machine, through shared memory.

from cfnshm import Bus

with Bus("build-42", agent="planner") as bus:
    bus.send("coder-1", {"task": "fix auth"})
"""

from .agents import AgentInfo
from .aio import AsyncBus, AsyncState
from .bus import Bus
from .context import Context, HeapInfo, ObjectInfo, Ref
from .errors import (
    AgentBusy,
    AgentDead,
    AgentFenced,
    BadName,
    BusDestroyed,
    Closed,
    Conflict,
    Contended,
    Corrupt,
    Error,
    ForkedHandle,
    Full,
    Interrupted,
    InvalidArgument,
    NoBus,
    NoSpace,
    OutOfMemory,
    OverCapacity,
    PermissionDenied,
    SystemFailure,
    Timeout,
    TooLarge,
    UnknownAgent,
    UnknownKey,
    UnknownObject,
    VersionMismatch,
)
from .message import Batch, Message
from .receipt import Receipt
from .state import State, Value

__version__ = "0.1.0"

__all__ = [
    "AgentBusy",
    "AgentDead",
    "AgentFenced",
    "AgentInfo",
    "AsyncBus",
    "AsyncState",
    "BadName",
    "Batch",
    "Bus",
    "BusDestroyed",
    "Closed",
    "Conflict",
    "Contended",
    "Context",
    "Corrupt",
    "Error",
    "ForkedHandle",
    "Full",
    "HeapInfo",
    "Interrupted",
    "InvalidArgument",
    "Message",
    "NoBus",
    "NoSpace",
    "ObjectInfo",
    "OutOfMemory",
    "OverCapacity",
    "PermissionDenied",
    "Receipt",
    "Ref",
    "State",
    "SystemFailure",
    "Timeout",
    "TooLarge",
    "UnknownAgent",
    "UnknownKey",
    "UnknownObject",
    "Value",
    "VersionMismatch",
]
