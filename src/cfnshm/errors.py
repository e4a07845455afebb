"""Every condition has a class, all under one root. Each says which agent, file or number it is about,
and what to do.

The numbers of the failing call, where it has any, are `have` (what there is) and `want` (what was
asked for); for `AgentBusy`, `AgentDead` and `AgentFenced`, `pid` is the process concerned.
"""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """Root of all errors of cfnshm."""

    code = "ERROR"
    have: int = 0
    want: int = 0

    @property
    def pid(self) -> int | None:
        """The process that the error is about, or None."""
        return self.have or None


class Interrupted(Error):
    """A call was interrupted where it could not go on by itself."""

    code = "INTERRUPTED"


class Timeout(Error, TimeoutError):
    """Nothing came, or nothing became free, in the given time. Also a `TimeoutError`.

    From a barrier: `missing` are the names of those who were not there, as far as they are known.
    """

    code = "TIMEOUT"
    missing: Any = ()


class Full(Timeout):
    """The receiver's lane is full, and stayed so for the given time. `have` is its capacity, `want` the
    number of unread messages.

    From `broadcast`: `delivered` maps the agents that got it to their receipts, `missing` those that
    did not to the error.
    """

    code = "FULL"
    delivered: dict[str, Any]
    missing: dict[str, Error]

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.delivered, self.missing = {}, {}


class UnknownAgent(Error, LookupError):
    """No agent of that name is registered (any more)."""

    code = "UNKNOWN_AGENT"


class AgentDead(Error):
    """The agent's process is proven dead; its inbox waits for a successor."""

    code = "AGENT_DEAD"


class AgentBusy(Error):
    """A living process (`pid`) reads this inbox or owns this agent, and only one does at a time; or the
    bus that was to be destroyed is in use."""

    code = "AGENT_BUSY"


class NoSpace(Error):
    """The bus, or the file system it is to be made on, has no room: `have` and `want` in bytes."""

    code = "NO_SPACE"


class TooLarge(Error):
    """The message needs `want` bytes and the largest chunk holds `have`; or the object, and the whole heap."""

    code = "TOO_LARGE"


class BadName(Error, ValueError):
    """Names are `[A-Za-z0-9_:@-][A-Za-z0-9._:@-]{0,62}`; keys of values 1 to 127 bytes without control characters."""

    code = "BAD_NAME"


class VersionMismatch(Error):
    """The bus has layout version `have` and this is version `want`."""

    code = "VERSION_MISMATCH"


class Corrupt(Error):
    """What was read makes no sense. Nothing was changed."""

    code = "CORRUPT"


class OverCapacity(Error):
    """More (`want`) was asked for than the bus was created with (`have`)."""

    code = "OVER_CAPACITY"


class AgentFenced(Error):
    """The inbox was taken over by another process (`pid`); unacked messages are redelivered there."""

    code = "AGENT_FENCED"


class Closed(Error):
    """The handle is closed."""

    code = "CLOSED"


class ForkedHandle(Error):
    """The handle was opened before fork(); open the bus again in the child."""

    code = "FORKED"


class PermissionDenied(Error, PermissionError):
    """A file or directory is not ours, or not private."""

    code = "PERMISSION"


class BusDestroyed(Error):
    """The bus was destroyed while this handle was attached."""

    code = "RETIRED"


class NoBus(Error, FileNotFoundError):
    """There is no bus of that name, and none was to be created."""

    code = "NO_BUS"


class InvalidArgument(Error, ValueError):
    """A value that makes no sense here."""

    code = "INVALID"


class OutOfMemory(Error, MemoryError):
    """This process has no memory for what was asked."""

    code = "NO_MEMORY"


class SystemFailure(Error, OSError):
    """A system call failed; `errno` says how."""

    code = "OS"


class Contended(Error):
    """Too much contention: try again."""

    code = "AGAIN"


class UnknownKey(Error, KeyError):
    """There is no value of that key."""

    code = "UNKNOWN_KEY"

    def __str__(self) -> str:  # KeyError shows its argument as it would be written in a program
        return Exception.__str__(self)


class Conflict(Error):
    """Somebody else changed it first: it has version `have`, and `want` was asked for."""

    code = "CONFLICT"


class LeaseLost(Error):
    """The lock, leadership or permit is not held any more: it was given back, or taken away by an operator."""

    code = "LEASE_LOST"


class OwnerDied(Error):
    """The last holder (`pid`) of a lock died holding it, and what it protects may be half done. Nothing was taken: look
    at that, and take it knowingly (`acquire(on_owner_died="tell")`)."""

    code = "OWNER_DIED"


class BrokenBarrier(Error):
    """Not all parties will come: one died (`pid`), or the barrier was broken, reset or deleted. `missing`: names of
    those who were not there, as far as they are known."""

    code = "BROKEN_BARRIER"
    missing: Any = ()


class Deadlock(Error):
    """This process and others wait for each other in a circle, and only this one was told, which came last: give back
    what is held, and begin again."""

    code = "DEADLOCK"


class UnknownObject(Error, LookupError):
    """No object of that digest is on the bus."""

    code = "UNKNOWN_OBJECT"


BY_CODE: dict[str, type[Error]] = {
    cls.code: cls
    for cls in (
        Interrupted, Timeout, Full, UnknownAgent, AgentDead, AgentBusy, NoSpace, TooLarge, BadName,
        VersionMismatch, Corrupt, OverCapacity, AgentFenced, Closed, ForkedHandle,
        PermissionDenied, BusDestroyed, NoBus, InvalidArgument, OutOfMemory, SystemFailure, Contended,
        UnknownKey, Conflict, UnknownObject, LeaseLost, OwnerDied, BrokenBarrier, Deadlock,
    )
}  # fmt: skip
BY_CODE["EMPTY"] = Timeout
BY_CODE["STALE"] = UnknownAgent
