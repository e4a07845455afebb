"""`bus.state`: named values that all agents of a bus share.

    bus.state["phase"] = "analysis"
    bus.state.update("tally", lambda n: (n or 0) + 1)     # one of many; none is lost
    bus.state.incr("done")
    for change in bus.state.watch("phase"): ...

Each change gives the value a new version, a number that never comes again on this bus. A change may ask
for the version that it is made from, and fails with `Conflict` if somebody was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from . import _core
from ._core import CODES, INTERRUPTED, check, deadline_of, fail, ffi, lib, utf8
from .errors import Conflict, InvalidArgument, Timeout, UnknownKey
from .handle import Handle
from .message import decode, encode

ANY_VERSION: int = 0xFFFFFFFFFFFFFFFF
_UNKNOWN_KEY = CODES["UNKNOWN_KEY"]
_ROOM = 4096


@dataclass(frozen=True)
class Value:
    """A value with what is known of it.

    Attributes:
        key: its name.
        value: what was stored; None if there is none (`version` is 0 then).
        version: of this value; larger after every change.
        changed: when that was, seconds since 1970.
    """

    key: str
    value: Any
    version: int
    changed: float


def _version(version: int | None) -> int:
    if version is None:
        return ANY_VERSION
    if not isinstance(version, int) or not 0 <= version < ANY_VERSION:
        raise InvalidArgument(f"a version is a number from 0 up, not {version!r}")
    return version


class Values:
    """The named values of a bus: what `State` and `AsyncState` have in common, which is all that does not wait.

    It is used as a dict, and has what many writers need.

    Keys are texts of 1 to 127 bytes without control characters; a slash makes a hierarchy for `items(prefix)`.
    Values are what can be sent: bytes, text, NumPy arrays, and what JSON can hold. A value that was read is
    the reader's own: to change what all see, set it.
    """

    __slots__ = ("_bus",)

    def __init__(self, bus: Handle) -> None:
        self._bus = bus

    @property
    def _handle(self) -> Any:
        return self._bus._handle

    # -- reading ---------------------------------------------------------------------------------

    def _read(self, key: str) -> Value | None:
        name = utf8(key, "a key")
        info = ffi.new("cfn_ref_info_t *")
        size = _ROOM
        while True:
            room = ffi.new("char[]", size)
            n = lib.cfn_bus_ref_get(self._handle, name, len(name), room, size, info)
            if n == _UNKNOWN_KEY:
                return None
            if n < 0:
                fail(n)
            if n <= size:
                break
            size = n
        value = decode(info.codec, ffi.buffer(room)[:n])
        return Value(key, value, info.version, info.changed_wall_ns / 1e9)

    def lookup(self, key: str) -> Value:
        """The value with its version; one without a value has version 0.

        Raises:
            Corrupt: the stored bytes make no sense.
        """
        return self._read(key) or Value(key, None, 0, 0.0)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` if there is none."""
        found = self._read(key)
        return default if found is None else found.value

    def __getitem__(self, key: str) -> Any:
        found = self._read(key)
        return fail(_UNKNOWN_KEY) if found is None else found.value

    def __contains__(self, key: object) -> bool:
        name = utf8(key, "a key")
        n = lib.cfn_bus_ref_get(self._handle, name, len(name), ffi.NULL, 0, ffi.NULL)
        if n == _UNKNOWN_KEY:
            return False
        check(n)
        return True

    # -- changing --------------------------------------------------------------------------------

    def set(self, key: str, value: Any, *, version: int | None = None) -> int:
        """Sets a value, and returns its new version.

        Args:
            version: only if the key has this version; 0: only if it has no value.

        Raises:
            Conflict: it has another version (`have`).
            UnknownKey: a version was asked for, and there is no value any more.
            NoSpace, OverCapacity: the heap is full, or all names are in use.
        """
        name = utf8(key, "a key")
        codec, data = encode(value)
        view = memoryview(data)
        made = ffi.new("uint64_t *")
        expect = _version(version)
        with ffi.from_buffer(view) as put:
            check(lib.cfn_bus_ref_set(self._handle, name, len(name), expect, codec, put, view.nbytes, made))
        return int(made[0])

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value; if there is none, `default` is set (by one of many who try), and returned."""
        while True:
            found = self._read(key)
            if found is not None:
                return found.value
            try:
                self.set(key, default, version=0)
                return default
            except Conflict:
                continue

    def update(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replaces a value by what `change` makes of it (of None, if there is none), and returns that. When
        somebody else was faster, `change` is called again with the newer value: no update is lost, and
        `change` should do nothing else.

        Raises:
            what `change` raises: nothing is changed then.
            as `set`.
        """
        while True:
            found = self.lookup(key)
            value = change(found.value)
            try:
                self.set(key, value, version=found.version)
                return value
            except (Conflict, UnknownKey):
                continue

    def incr(self, key: str, by: int = 1) -> int:
        """Adds to a whole number (0 if there is none), and returns the sum.

        Raises:
            InvalidArgument: there is something else, or the sum does not fit 64 bits.
        """
        if not isinstance(by, int) or not -(2**63) <= by < 2**63:
            raise InvalidArgument(f"a whole number of 64 bits is added, not {by!r}")
        name = utf8(key, "a key")
        total, version = ffi.new("int64_t *"), ffi.new("uint64_t *")
        check(lib.cfn_bus_ref_add(self._handle, name, len(name), by, total, version))
        return int(total[0])

    def delete(self, key: str, *, version: int | None = None) -> None:
        """Takes a value away.

        Raises:
            UnknownKey: there is none.
            Conflict: it has another version than the one asked for.
        """
        name = utf8(key, "a key")
        expect = _version(version)
        check(lib.cfn_bus_ref_delete(self._handle, name, len(name), expect))

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def pop(self, key: str, *default: Any) -> Any:
        """Takes a value away and returns it: of many who try, one gets it.

        Raises:
            UnknownKey: there is none, and no `default` was given.
        """
        while True:
            found = self._read(key)
            if found is None:
                return default[0] if default else fail(_UNKNOWN_KEY)
            try:
                self.delete(key, version=found.version)
                return found.value
            except (Conflict, UnknownKey):
                continue

    # -- all of them -----------------------------------------------------------------------------

    def _list(self, prefix: str) -> list[tuple[str, int]]:
        start = utf8(prefix, "a key")
        most = 256
        while True:
            out = ffi.new("cfn_ref_info_t[]", most)
            n = check(lib.cfn_bus_ref_list(self._handle, start, len(start), out, most))
            if n <= most:
                return sorted((_core.text(out[i].key), int(out[i].version)) for i in range(n))
            most = n + 64

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, sorted."""
        return [key for key, _ in self._list(prefix)]

    def items(self, prefix: str = "") -> list[tuple[str, Any]]:
        """Keys that begin with `prefix` with their values, sorted: each value as it was when it was read, not
        all at one moment."""
        found = (self._read(key) for key in self.keys(prefix))
        return [(value.key, value.value) for value in found if value is not None]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return check(lib.cfn_bus_ref_list(self._handle, b"", 0, ffi.NULL, 0))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._bus.name!r}>"


class State(Values):
    """The named values of a bus; `bus.state`."""

    __slots__ = ()

    def wait(self, key: str, version: int | None = None, timeout: float | None = None) -> Value:
        """Waits until the key's version is another than `version` (default: the one it has now), and returns what
        is there then.

        Raises:
            Timeout: it was not changed in `timeout` seconds.
        """
        name = utf8(key, "a key")
        deadline = deadline_of(timeout)
        seen = self.lookup(key).version if version is None else _version(version)
        now = ffi.new("uint64_t *")
        code = INTERRUPTED
        while code == INTERRUPTED:
            code = lib.cfn_bus_ref_wait(self._handle, name, len(name), seen, deadline, now)
        check(code)
        return self.lookup(key)

    def watch(self, key: str, timeout: float | None = None) -> Iterator[Value]:
        """The value, and then each time it was changed; a deletion is a value None of version 0. Changes that
        follow each other quickly may come as one: the newest. Ends when nothing came for `timeout` seconds."""
        found = self.lookup(key)
        while True:
            yield found
            try:
                found = self.wait(key, found.version, timeout)
            except Timeout:
                return

    def watch_prefix(self, prefix: str, timeout: float | None = None) -> Iterator[Value]:
        """All values whose key begins so, and then each that is changed, made or deleted. Ends when nothing came for
        `timeout` seconds."""
        changes = Changes(self, prefix)
        ends, last = deadline_of(timeout), False
        while True:
            found = changes.look()
            yield from found
            if found:
                ends, last = deadline_of(timeout), False
            elif last:
                return
            else:  # a change of another key does not begin the time anew
                last = not changes.sleep(ends)


class Stateful(Handle):
    """The part of a `Bus` that has named values. Made when asked for: a bus that nobody knows any more is gone at once,
    without cycles."""

    @property
    def state(self) -> State:
        """Named values with versions: see `cfnshm.state`."""
        return State(self)


class Changes:
    """What has become of all values with a prefix since they were looked at last."""

    def __init__(self, state: Values, prefix: str) -> None:
        self._state = state
        self._prefix = prefix
        self._seen: dict[str, int] = {}
        self._armed = ffi.new("uint32_t *")

    def look(self) -> list[Value]:
        """Those that have another version than at the last look; a deleted one has version 0."""
        # Armed before the look: what comes later ends the sleep.
        check(lib.cfn_bus_refs_arm(self._state._handle, self._armed))
        now = dict(self._state._list(self._prefix))
        found = []
        for key in sorted({**self._seen, **now}):
            if self._seen.get(key, 0) == now.get(key, 0):
                continue
            value = self._state.lookup(key)
            if value.version == self._seen.get(key, 0):
                continue
            self._seen[key] = value.version
            if not value.version:
                del self._seen[key]
            found.append(value)
        return found

    def sleep(self, deadline: int) -> bool:
        """Until any value of the bus is changed; False: none was until the deadline. Look once more in either case."""
        code = INTERRUPTED
        while code == INTERRUPTED:
            code = lib.cfn_bus_refs_sleep(self._state._handle, self._armed[0], deadline)
        if code == _core.TIMEOUT:
            return False
        check(code)
        return True
