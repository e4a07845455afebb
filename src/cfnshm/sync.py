"""Locks, elections, semaphores and barriers: `bus.lock`, `bus.elect`, `bus.semaphore`, `bus.barrier`.

    with bus.lock("repo", timeout=30) as lease:
        push(lease.token)                       # a number that only grows: the older one loses
    with bus.semaphore("compilers", 4): ...
    bus.barrier("phase-1", parties=8).wait(timeout=60)
    with bus.elect("coordinator") as leadership: ...

What a process holds ends with it: that is proven by the kernel, never by a clock, so who is stopped for an hour
still holds what it held. A handle holds things, and its threads share them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import get_ident
from types import TracebackType
from typing import Any

from . import _core
from ._core import CODES, INTERRUPTED, check, deadline_of, fail, ffi, lib, utf8
from .errors import BrokenBarrier, Deadlock, InvalidArgument, LeaseLost, Timeout
from .handle import Handle

_LOCK, _LEADER = ord("L"), ord("E")
_STEAL, _ONE_OF_MANY = 1, 2
_GO_ON = 1
_LIVES = ("none", "alive", "stopped", "dead")
_UNKNOWN_AGENT = CODES["UNKNOWN_AGENT"]
_BROKEN = CODES["BROKEN_BARRIER"]


@dataclass(frozen=True)
class Holder:
    """Who holds something, or held it.

    Attributes:
        name: of what is held.
        agent: its agent; "" if it acts as none, or if that is not known.
        pid: its process; 0 if that is not known.
        token: of its lease.
        since: seconds since 1970.
        state: "alive", "stopped" (by a signal or a debugger; it keeps what it holds), or "dead".
        died: when its death was found, seconds since 1970; 0 if it lives.
    """

    name: str
    agent: str
    pid: int
    token: int
    since: float
    state: str
    died: float = 0.0

    def __str__(self) -> str:
        who = f"agent {self.agent!r}, process {self.pid}" if self.agent else f"process {self.pid}"
        return who if self.state == "alive" else f"{who}, {self.state}"


def _holder(h: Any) -> Holder | None:
    if not h.token:
        return None
    return Holder(
        _core.text(h.name), _core.text(h.agent), h.pid, h.token, h.since_wall_ns / 1e9, _LIVES[h.life & 3],
        h.died_wall_ns / 1e9,
    )  # fmt: skip


class Lease:
    """What was got, and is held until `release()`, the end of its `with`, or the end of the handle or the process.

    Attributes:
        name: of the lock or election.
        token: the fencing token: larger than that of every lease that the bus gave before, also under other names
            and for an earlier bus of the same name. Who guards a resource can refuse a smaller one than it has seen.
        owner_died: the `Holder` that died holding it just before, or None. What the lock protects may be half done.
    """

    __slots__ = ("_bus", "_held", "_released", "name", "owner_died", "token")

    def __init__(self, bus: Handle, name: str, held: Any, died: Holder | None) -> None:
        self._bus = bus
        self._held = held
        self._released = False
        self.name = name
        self.token: int = held.token
        self.owner_died = died

    def release(self) -> None:
        """Gives it back. A second call does nothing.

        Raises:
            LeaseLost: it was taken away by an operator (`steal`).
        """
        if self._released:
            return
        self._released = True
        self._bus._leases.pop(self.token, None)
        code = lib.cfn_bus_lease_give_back(self._bus._handle, self._held)
        if code < 0:
            fail(code)

    def check(self) -> None:
        """Raises LeaseLost if it is not held any more."""
        if self._released:
            raise LeaseLost(f"{self.name!r} was given back")
        check(lib.cfn_bus_lease_check(self._bus._handle, self._held))

    @property
    def held(self) -> bool:
        """It is held still."""
        return not self._released and lib.cfn_bus_lease_check(self._bus._handle, self._held) == 0

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Waits until somebody took it away: True; False after `timeout` seconds."""
        name, deadline = self.name.encode(), deadline_of(timeout)
        out = ffi.new("cfn_holder_t *")
        while self.held:
            code = lib.cfn_bus_lease_wait(
                self._bus._handle, self._held.kind, name, len(name), self.token, deadline, out
            )
            if code == _core.TIMEOUT:
                return not self.held
            if code != INTERRUPTED:
                check(code)
        return True

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
            return
        try:
            self.release()
        except LeaseLost:
            pass  # what happened inside is the error that counts

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} token={self.token}{' released' if self._released else ''}>"


class Leadership(Lease):
    """A lease of an election: this handle leads.

    Attributes:
        term: the number of this term, larger than those before; it fences as a lock's token does.

        with bus.elect("coordinator") as leadership:
            while not leadership.lost: ...           # or another thread in leadership.wait_lost()
    """

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except LeaseLost:
            pass  # a leader learns of that from `lost`; when it leaves it is no news

    @property
    def term(self) -> int:
        return self.token

    @property
    def lost(self) -> bool:
        """Somebody else was made the leader, or this one has resigned."""
        return not self.held

    def resign(self) -> None:
        """Leads no more. As `release`."""
        self.release()


class _Exclusive:
    """What a lock and an election have in common: one holds it at a time."""

    _kind: int
    _what: str
    _lease_class: type[Lease]

    def __init__(self, bus: Handle, name: str, timeout: float | None, on_owner_died: str) -> None:
        if on_owner_died not in ("tell", "raise"):
            raise InvalidArgument(f'on_owner_died is "tell" or "raise", not {on_owner_died!r}')
        self._bus = bus
        self._bytes = utf8(name, f"the name of a {self._what}")
        self.name = name
        self._timeout = timeout
        self._intact = on_owner_died == "raise"
        self._entered: list[Lease] = []

    def _take(self, timeout: float | None, flags: int, intact: bool, whose: object = None) -> Any:
        if whose is None:
            whose = get_ident()
        else:
            flags |= _ONE_OF_MANY
        held, handle, name = ffi.new("cfn_held_t *"), self._bus._handle, self._bytes
        deadline = 0 if timeout is None else deadline_of(timeout)
        code = lib.cfn_bus_lease_take(handle, self._kind, name, len(name), flags, 0, held, ffi.NULL)
        if code == 0:
            return self._got(held, None, whose)
        if code == _core.TIMEOUT:
            self._not_by_us(whose)
        if timeout is None:
            deadline = _core.FOREVER
        died = ffi.NULL if intact else ffi.new("cfn_holder_t *")
        code = INTERRUPTED
        while code == INTERRUPTED:
            code = lib.cfn_bus_lease_take(handle, self._kind, name, len(name), flags, deadline, held, died)
        check(code)
        return self._got(held, None if intact else _holder(died), whose)

    def _got(self, held: Any, died: Holder | None, whose: object) -> Any:
        lease = self._lease_class(self._bus, self.name, held, died)
        self._bus._leases[lease.token] = (self._kind, self.name, whose)
        return lease

    def _not_by_us(self, whose: object) -> None:
        """A thread, or a task, that waits for what it holds itself waits for ever."""
        me = (self._kind, self.name, whose)
        caller = "thread" if isinstance(whose, int) else "task"
        for token, taken in list(self._bus._leases.items()):
            if taken == me and self._holder_token() == token:
                raise Deadlock(
                    f"this {caller} holds the {self._what} {self.name!r} already (token {token}); "
                    "it cannot be taken twice"
                )

    def _holder_token(self) -> int:
        now = self.holder()
        return now.token if now else 0

    def holder(self) -> Holder | None:
        """Who holds it now, or died holding it with nobody after; None: it is free."""
        out = ffi.new("cfn_holder_t *")
        check(lib.cfn_bus_lease_holder(self._bus._handle, self._kind, self._bytes, len(self._bytes), out))
        return _holder(out)

    def wait_change(self, seen: Holder | None = None, timeout: float | None = None) -> Holder | None:
        """Waits until another holds it than `seen` (None: until anybody does), or `seen` is dead; who that is then.

        Raises:
            Timeout: it did not change hands in `timeout` seconds.
        """
        deadline, out = deadline_of(timeout), ffi.new("cfn_holder_t *")
        token = seen.token if seen and seen.state != "dead" else 0
        code = INTERRUPTED
        while code == INTERRUPTED:
            code = lib.cfn_bus_lease_wait(
                self._bus._handle, self._kind, self._bytes, len(self._bytes), token, deadline, out
            )
        check(code)
        return _holder(out)

    def __enter__(self) -> Any:
        lease = self._take(self._timeout, 0, self._intact)
        self._entered.append(lease)
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self._bus.name!r}>"


class Lock(_Exclusive):
    """A lock by name; `bus.lock(name)`. In a `with` it is held, and `as` gives the `Lease`.

    It belongs to the handle, and two threads of one handle exclude each other as two processes do. It cannot be
    taken twice by one thread.
    """

    _kind, _what, _lease_class = _LOCK, "lock", Lease

    def acquire(
        self, timeout: float | None = None, *, on_owner_died: str | None = None, _whose: object = None
    ) -> Lease:
        """Waits for it.

        Args:
            timeout: seconds; 0 does not wait.
            on_owner_died: "tell": the lease says in `owner_died` if its last holder died holding it;
                "raise": `OwnerDied`, and the lock stays as it is, to be taken knowingly with "tell".
                Default: as the lock was made.

        Raises:
            Timeout: a living process holds it: the message says which, since when, and if it is stopped.
            OwnerDied: see above.
            Deadlock: each of a circle of processes waits for the next, and this one came last; or this thread
                holds it itself.
        """
        if on_owner_died not in (None, "tell", "raise"):
            raise InvalidArgument(f'on_owner_died is "tell" or "raise", not {on_owner_died!r}')
        intact = self._intact if on_owner_died is None else on_owner_died == "raise"
        lease: Lease = self._take(timeout, 0, intact, _whose)
        return lease

    def steal(self) -> Lease:
        """Takes it at once, also from a living holder, who gets `LeaseLost`: an operator's decision, where a stopped
        process keeps others waiting. What it was doing is not undone; its token is the smaller one."""
        lease: Lease = self._take(0, _STEAL, False)
        return lease

    def locked(self) -> bool:
        """A living process holds it."""
        now = self.holder()
        return now is not None and now.state != "dead"


class Election(_Exclusive):
    """An election by name; `bus.elect(name)`. In a `with` this handle leads, and `as` gives the `Leadership`."""

    _kind, _what, _lease_class = _LEADER, "leadership", Leadership

    def campaign(self, timeout: float | None = None, *, _whose: object = None) -> Leadership:
        """Waits until this handle leads. `owner_died` of what is returned says if the last leader died as such.

        Raises:
            Timeout: another led for all that time.
        """
        won: Leadership = self._take(timeout, 0, False, _whose)
        return won

    def depose(self) -> Leadership:
        """Leads at once, whoever did, who is told (`Leadership.lost`, `wait_lost`): an operator's decision."""
        won: Leadership = self._take(0, _STEAL, False)
        return won

    def leader(self) -> Holder | None:
        """Who leads now; None: nobody living."""
        now = self.holder()
        return None if now is None or now.state == "dead" else now

    def watch(self, timeout: float | None = None) -> Iterator[Holder | None]:
        """Who leads, and then each time that is another, or nobody (None). Ends when nothing changed for `timeout`
        seconds."""
        now = self.leader()
        while True:
            yield now
            try:
                after = self.wait_change(now, timeout)
            except Timeout:
                return
            now = None if after is None or after.state == "dead" else after


# ---- semaphores ----


class Permit:
    """One permit of a semaphore, held until `release()`."""

    __slots__ = ("_bus", "_bytes", "_released", "name", "token")

    def __init__(self, bus: Handle, name: str, data: bytes, token: int) -> None:
        self._bus, self._bytes = bus, data
        self._released = False
        self.name, self.token = name, token

    def release(self) -> None:
        """Gives it back. A second call does nothing."""
        if not self._released:
            check(lib.cfn_bus_semaphore_give_back(self._bus._handle, self._bytes, len(self._bytes), self.token))
            self._released = True

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Semaphore:
    """A number of permits by name; `bus.semaphore(name, permits)`. In a `with` one of them is held.

    All who use it say the same number while any is taken. Those of the dead are free again.
    """

    def __init__(self, bus: Handle, name: str, permits: int, timeout: float | None = None) -> None:
        if not isinstance(permits, int) or not 0 < permits < 65536:
            raise InvalidArgument(f"a semaphore has 1 to 65535 permits, not {permits!r}")
        self._bus = bus
        self._bytes = utf8(name, "the name of a semaphore")
        self.name, self.permits = name, permits
        self._timeout = timeout
        self._entered: list[Permit] = []

    def acquire(self, timeout: float | None = None) -> Permit:
        """Waits for a permit.

        Raises:
            Timeout: living processes hold all of them.
            InvalidArgument: others use it with another number.
        """
        token, deadline = ffi.new("uint64_t *"), deadline_of(timeout)
        code = INTERRUPTED
        while code == INTERRUPTED:
            code = lib.cfn_bus_semaphore_take(
                self._bus._handle, self._bytes, len(self._bytes), self.permits, deadline, token
            )
        check(code)
        return Permit(self._bus, self.name, self._bytes, token[0])

    def holders(self) -> list[Holder]:
        """Who holds permits now."""
        permits, most = ffi.new("uint32_t *"), 64
        while True:
            out = ffi.new("cfn_holder_t[]", most)
            handle, name = self._bus._handle, self._bytes
            n = check(lib.cfn_bus_semaphore_holders(handle, name, len(name), permits, out, most))
            if n <= most:
                return [h for i in range(n) if (h := _holder(out[i]))]
            most = n + 16

    def __enter__(self) -> Permit:
        permit = self.acquire(self._timeout)
        self._entered.append(permit)
        return permit

    def __exit__(self, *_: object) -> None:
        self._entered.pop().release()

    def __repr__(self) -> str:
        return f"<Semaphore {self.name!r} of {self.permits} permits>"


# ---- barriers ----


@dataclass(frozen=True)
class Party:
    """One party of a barrier: `state` is "alive", "stopped" or "dead"."""

    agent: str
    pid: int
    arrived: bool
    state: str


@dataclass(frozen=True)
class BarrierInfo:
    """A barrier at one moment.

    Attributes:
        round: number of the present round, from 1.
        parties: how many it takes now.
        arrived: how many are there.
        broken: it is broken, and needs a `reset()`.
        known: the parties that can be named: those who arrived or joined.
    """

    round: int
    parties: int
    arrived: int
    broken: bool
    known: tuple[Party, ...]


def _iterate(what: Any) -> Iterable[Any]:
    return what if isinstance(what, Iterable) else ()


class Barrier:
    """A barrier by name; `bus.barrier(name, parties)`: who waits at it goes on when all are there, and then it begins
    anew.

    `parties` is a number; or the names of the agents, so that one that is missing can be named and its death is
    noticed also before it came; or None: as many as have joined (`join`, `leave`), or as it was made with.
    """

    def __init__(
        self, bus: Handle, name: str, parties: int | Iterable[str] | None = None, on_death: str = "break"
    ) -> None:
        if on_death not in ("break", "continue"):
            raise InvalidArgument(f'on_death is "break" or "continue", not {on_death!r}')
        self._bus = bus
        self._bytes = utf8(name, "the name of a barrier")
        self.name = name
        self._flags = _GO_ON if on_death == "continue" else 0
        self._names: tuple[str, ...] = ()
        self._left_there: list[Any] = []
        if isinstance(parties, int) and not isinstance(parties, bool):
            self._parties = parties
        elif parties is None:
            self._parties = 0
        else:
            self._names = () if isinstance(parties, (str, bytes)) else tuple(dict.fromkeys(_iterate(parties)))
            if not self._names or not all(isinstance(one, str) for one in self._names):
                raise InvalidArgument(f"the parties of a barrier are a number, or names of agents, not {parties!r}")
            self._parties = len(self._names)
        if parties is not None and not 0 < self._parties < 65536:
            raise InvalidArgument(f"a barrier has 1 to 65535 parties, not {self._parties}")

    def wait(self, timeout: float | None = None) -> int:
        """Arrives, and waits for the others. Returns how many had arrived before: one of each round gets 0.

        Raises:
            Timeout: not all came in `timeout` seconds; this one has not arrived either then, and the others wait on.
                `missing` are the names of those who were not there, as far as they are known.
            BrokenBarrier: a party died (`pid`), somebody broke, reset or deleted it. `missing` as above.
            InvalidArgument: it was made for another number of parties.
        """
        if self._names and self._bus.agent not in self._names:
            raise InvalidArgument(
                f"agent {self._bus.agent!r} is not among the parties of barrier {self.name!r}: "
                + ", ".join(self._names[:20])
            )
        visit, deadline = self._visit(), deadline_of(timeout)
        while True:
            place = visit(None if timeout is None else (deadline - time.monotonic_ns()) / 1e9)
            if place is not None:
                return place

    def _visit(self) -> Callable[[float | None], int | None]:
        """One wait, in steps: each call goes on with it, until a safety tick at the longest (None), or to its end."""
        arrival = self._left_there.pop() if self._left_there else ffi.new("cfn_arrival_t *")

        def step(timeout: float | None) -> int | None:
            name = self._bytes
            expected, n = self._expected()
            code = lib.cfn_bus_barrier_wait(
                self._bus._handle, name, len(name), self._parties, self._flags, expected, n, deadline_of(timeout),
                arrival,
            )  # fmt: skip
            if code == INTERRUPTED:
                return None
            if code < 0 and arrival.here:  # it could not leave: the next wait goes on with it
                self._left_there.append(arrival)
            if code in (_core.TIMEOUT, _BROKEN):
                self._fail(code)
            check(code)
            return int(arrival.index)

        return step

    def _expected(self) -> tuple[Any, int]:
        """The agents that are waited for, as far as they are registered."""
        others = [one for name in self._names if name != self._bus.agent and (one := self._bus._look(name))]
        out = ffi.new("cfn_address_t[]", len(others) or 1)
        for i, (index, mid) in enumerate(others):
            out[i].index, out[i].mid = index, mid
        return out, len(others)

    def _fail(self, code: int) -> None:
        try:
            fail(code)
        except (Timeout, BrokenBarrier) as error:
            error.missing = [name for name in self.missing() if name != self._bus.agent]  # this one was there
            if code == _BROKEN:  # those who were told before us have left by now
                error.missing = [name for name in error.missing if not self._lives(name)]
            if error.missing and isinstance(error, Timeout):
                error.args = (f"{error.args[0]}; missing: {', '.join(error.missing[:20])}",)
            raise

    def _lives(self, agent: str) -> bool:
        at = self._bus._look(agent)
        info = ffi.new("cfn_agent_info_t *")
        place = ffi.new("cfn_address_t *", {"index": at[0], "mid": at[1]}) if at else None
        return place is not None and lib.cfn_bus_agent_info(self._bus._handle, place, info) == 0 and info.life == 1

    def missing(self) -> list[str]:
        """The names of parties that are not there just now: of those that were named, or have joined."""
        info = self.info()
        here = {party.agent for party in info.known if party.arrived} if info else set()
        absent = [party.agent for party in info.known if not party.arrived and party.agent] if info else []
        return [name for name in self._names if name not in here] + [
            name for name in absent if name not in self._names
        ]

    def info(self) -> BarrierInfo | None:
        """As it is now; None: nobody has used it yet, or it was deleted."""
        info, most = ffi.new("cfn_barrier_info_t *"), 64
        while True:
            out = ffi.new("cfn_party_t[]", most)
            code = lib.cfn_bus_barrier_look(self._bus._handle, self._bytes, len(self._bytes), info, out, most)
            if code == CODES["UNKNOWN_KEY"]:
                return None
            check(code)
            if info.known <= most:
                break
            most = info.known + 64
        known = tuple(
            Party(_core.text(out[i].agent), out[i].pid, bool(out[i].arrived), _LIVES[out[i].life & 3])
            for i in range(info.known)
        )
        return BarrierInfo(info.round, info.parties, info.arrived, bool(info.broken), known)

    def _change(self, function: Any) -> None:
        check(function(self._bus._handle, self._bytes, len(self._bytes)))

    def join(self) -> None:
        """This handle is a party more, from this round on: no round ends without it."""
        self._change(lib.cfn_bus_barrier_join)

    def leave(self) -> None:
        """This handle is no party any more; the others may go on at once."""
        self._change(lib.cfn_bus_barrier_leave)

    def abort(self) -> None:
        """Breaks it: who waits gets `BrokenBarrier`, and whoever comes, until `reset()`.

        Raises:
            UnknownKey: there is none.
        """
        self._change(lib.cfn_bus_barrier_break)

    def reset(self) -> None:
        """Whole again and empty; who waits gets `BrokenBarrier`.

        Raises:
            UnknownKey: there is none.
        """
        self._change(lib.cfn_bus_barrier_reset)

    def delete(self) -> None:
        """Gives its name back; who waits gets `BrokenBarrier`.

        Raises:
            UnknownKey: there is none.
        """
        self._change(lib.cfn_bus_barrier_delete)

    def __repr__(self) -> str:
        return f"<Barrier {self.name!r} of {self._bus.name!r}>"


class Sync(Handle):
    """The part of a `Bus` that makes others wait."""

    def lock(self, name: str, *, timeout: float | None = None, on_owner_died: str = "tell") -> Lock:
        """A lock by name, for `with` or `acquire`; nothing is taken yet.

        Args:
            name: text of 1 to 125 bytes, without control characters.
            timeout: seconds that a `with` waits.
            on_owner_died: see `Lock.acquire`.
        """
        return Lock(self, name, timeout, on_owner_died)

    def locks(self) -> list[Holder]:
        """All locks that are held, or whose holder died holding them."""
        return self._holders(_LOCK)

    def elect(self, name: str, *, timeout: float | None = None) -> Election:
        """An election by name: see `Election`."""
        return Election(self, name, timeout, "tell")

    def leaders(self) -> list[Holder]:
        """All leaderships that are held, or whose holder died."""
        return self._holders(_LEADER)

    def _holders(self, kind: int) -> list[Holder]:
        most = 64
        while True:
            out = ffi.new("cfn_holder_t[]", most)
            n = check(lib.cfn_bus_lease_list(self._handle, kind, out, most))
            if n <= most:
                return sorted((h for i in range(n) if (h := _holder(out[i]))), key=lambda h: h.name)
            most = n + 16

    def semaphore(self, name: str, permits: int, *, timeout: float | None = None) -> Semaphore:
        """A semaphore by name: see `Semaphore`; `timeout`: seconds that a `with` waits."""
        return Semaphore(self, name, permits, timeout)

    def barrier(
        self, name: str, parties: int | Iterable[str] | None = None, *, on_death: str = "break"
    ) -> Barrier:
        """A barrier by name: see `Barrier`.

        Args:
            parties: a number, the names of the agents, or None.
            on_death: "break": when a party dies, all who wait get `BrokenBarrier`; "continue": it is counted out,
                and the others go on without it.
        """
        return Barrier(self, name, parties, on_death)
