"""`bus.context`: shared context, stored once however many agents read it.

    ref = bus.context.put(big_text)          # Ref('sha256:9f86d08...'): what sha256sum says of it
    bus.send("coder-1", {"read": ref})       # 71 bytes instead of 50 KB
    text = bus.context.text(ref)

An object is immutable and named by the SHA-256 of its bytes. It stays until it is deleted; what somebody
still looks at in place stays until they let go of it. When the heap is full, objects that nobody holds go to
a directory on disk (`Bus(spill=)`, `CFNSHM_SPILL`), and come back when somebody asks for them.
"""

from __future__ import annotations

import builtins
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ._core import CODES, blank, check, fail, ffi, lib
from .config import parse_size
from .errors import Corrupt, InvalidArgument
from .handle import Handle

_PREFIX = "sha256:"
_NAME = re.compile("sha256:[0-9a-f]{64}")
_UNKNOWN_OBJECT = CODES["UNKNOWN_OBJECT"]


class Ref(str):
    """The name of an object: `"sha256:"` and 64 hexadecimal digits. It is a str, and can be sent as one.

    Attributes:
        size: bytes of the object, where it was put or looked up; else None.
        known: `put` found it there already and stored nothing; None if it was not put here.
    """

    __slots__ = ("known", "size")
    size: int | None
    known: bool | None

    def __new__(cls, name: str | bytes, size: int | None = None, known: bool | None = None) -> Ref:
        """From a name or a digest of 32 bytes.

        Raises:
            InvalidArgument: it is neither.
        """
        if isinstance(name, bytes) and len(name) == 32:
            name = _PREFIX + name.hex()
        elif not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"the name of an object is 'sha256:' and 64 hexadecimal digits, not {str(name)[:90]!r}"
            )
        ref = super().__new__(cls, name)
        ref.size, ref.known = size, known
        return ref

    @property
    def digest(self) -> bytes:
        """The 32 bytes."""
        return bytes.fromhex(self[len(_PREFIX) :])

    def __reduce__(self) -> tuple[Any, ...]:
        return (Ref, (str(self), self.size, self.known))

    def __repr__(self) -> str:
        return f"Ref({str(self)!r})"


@dataclass(frozen=True)
class ObjectInfo:
    """One object: its name, its bytes, when it was stored (seconds since 1970), and whether it is on disk
    until somebody asks for it."""

    ref: Ref
    size: int
    created: float
    spilled: bool = False


@dataclass(frozen=True)
class HeapInfo:
    """What the bus's heap holds; all sizes in bytes.

    Attributes:
        size: of the whole heap.
        used: of its pages in use.
        content: of the bytes in it, garbage that was not collected yet included.
        longest: the largest object that fits just now.
        objects, objects_capacity: in use (values of `bus.state`, and what is on disk, included), and how many
            there can be.
        keys, keys_capacity: the same of named values.
        put: bytes that were put since the bus was made.
        stored: of these, bytes that were not there already.
        spilled, spilled_size: objects that are on disk, and their bytes.
        spill: the directory they are in; None if this bus puts none on disk.
    """

    size: int
    used: int
    content: int
    longest: int
    objects: int
    objects_capacity: int
    keys: int
    keys_capacity: int
    put: int
    stored: int
    spilled: int
    spilled_size: int
    spill: str | None

    @property
    def saved(self) -> float:
        """Share of what was put that did not have to be stored, 0 to 1."""
        return 1 - self.stored / self.put if self.put else 0.0


def _digest(ref: str) -> bytes:
    return (ref if isinstance(ref, Ref) else Ref(ref)).digest


def _bytes_of(content: Any) -> memoryview:
    if isinstance(content, str):
        return memoryview(content.encode("utf-8", "surrogatepass"))
    try:
        view = memoryview(content)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"an object is made of bytes, text or an array, not of {type(content).__name__}; for what JSON can hold "
            "there is bus.state, and json.dumps"
        ) from None
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    if not view.readonly:  # another thread may change it between its digest and the copy
        return memoryview(view.tobytes())
    # cast() wants a shape without zeros
    return view.cast("B") if view.nbytes else memoryview(b"")


class Context:
    """The objects of a bus; `bus.context`."""

    __slots__ = ("_bus",)

    def __init__(self, bus: Handle) -> None:
        self._bus = bus

    @property
    def _handle(self) -> Any:
        return self._bus._handle

    def put(self, content: Any) -> Ref:
        """Stores bytes, text (as UTF-8) or the bytes of an array, unless they are there already.

        Returns:
            The object's name; `known` says whether it was there, `size` its bytes.

        Raises:
            NoSpace: the heap has no room, or no room in a row, and what is in it cannot go to disk: `have` the
                longest free run, `want` the bytes.
            TooLarge: more than the whole heap has.
            InvalidArgument: it is nothing of that kind.
        """
        view = _bytes_of(content)
        digest = hashlib.sha256(view).digest()
        known = ffi.new("int *")
        with ffi.from_buffer(view) as data:
            check(lib.cfn_bus_object_put(self._handle, digest, data, view.nbytes, known))
        if not known[0]:
            self._bus._verified.add(digest)
        return Ref(digest, view.nbytes, bool(known[0]))

    def get(self, ref: str) -> bytes:
        """A copy of an object. The first time in this process its digest is computed again.

        Raises:
            UnknownObject: it was never put here, or deleted.
            Corrupt: the bytes in the bus, or on disk, are not those of the name any more.
        """
        digest = _digest(ref)
        size = ref.size if isinstance(ref, Ref) else None
        if size is None:
            size = check(lib.cfn_bus_object_bytes(self._handle, digest))
        while True:
            # Ours alone until it is returned: filled in place, for a second copy costs as much again.
            content = blank(size)
            room = ffi.cast("char *", ffi.from_buffer(content))
            is_size = check(lib.cfn_bus_object_get(self._handle, digest, room, size if size > 1 else 0))
            if is_size == size > 1:
                break
            if is_size < 2:  # those few are one object for all of Python
                few = ffi.new("char[]", 1)
                check(lib.cfn_bus_object_get(self._handle, digest, few, 1))
                content = ffi.buffer(few)[:is_size]
                break
            size = is_size
        if digest not in self._bus._verified:
            self._verify(digest, content)
        return content

    def text(self, ref: str) -> str:
        """The same as text.

        Raises:
            as `get`, and Corrupt: it is no UTF-8.
        """
        try:
            return self.get(ref).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as why:
            raise Corrupt(f"object {ref} is no text: {why}; read it with get()") from None

    def view(self, ref: str, verify: bool = False) -> memoryview:
        """The object where it is, read-only and without a copy: it stays there while the view, or anything
        made of it, is alive, and until this handle is closed. At most 46 at a time.

        Raises:
            as `get` (`Corrupt` only with `verify`, or of what comes back from disk), OverCapacity: too many
            views, and NoSpace: it is on disk, and what is in memory is held.
        """
        digest = _digest(ref)
        pin = ffi.new("cfn_pin_t *")
        check(lib.cfn_bus_object_pin(self._handle, digest, pin))
        bus, number, word = self._bus, pin.pin, pin.word  # the bus: a handle that is collected would give its pins back

        def release(_: Any) -> None:
            lib.cfn_bus_object_unpin(bus._handle, number, word)

        start = ffi.gc(ffi.cast("char *", pin.data), release)
        view = memoryview(ffi.buffer(start, pin.bytes)).toreadonly()
        if verify:
            self._verify(digest, view)
        return view

    def _verify(self, digest: bytes, content: Any) -> None:
        if hashlib.sha256(content).digest() != digest:
            raise Corrupt(
                f"the bytes of object {Ref(digest)} were changed in the bus: its digest is another now. Delete it "
                "(bus.context.delete) and put it again; cfnshm doctor looks at the rest"
            )
        self._bus._verified.add(digest)

    def exists(self, ref: str) -> bool:
        """Is it there? A name that makes no sense is an error, not False."""
        code = lib.cfn_bus_object_bytes(self._handle, _digest(ref))
        if code == _UNKNOWN_OBJECT:
            return False
        check(code)
        return True

    def __contains__(self, ref: object) -> bool:
        return isinstance(ref, str) and self.exists(ref)

    def delete(self, ref: str) -> None:
        """Takes the name away: nobody finds it any more. The room is free when the last view is gone.

        Raises:
            UnknownObject: it is not there.
        """
        digest = _digest(ref)
        check(lib.cfn_bus_object_delete(self._handle, digest))
        self._bus._verified.discard(digest)

    def list(self) -> list[ObjectInfo]:
        """All objects that have a name, the oldest first."""
        most = 1024
        while True:
            out = ffi.new("cfn_object_info_t[]", most)
            n = check(lib.cfn_bus_object_list(self._handle, out, most))
            if n <= most:
                break
            most = n + 64
        found = (out[i] for i in range(n))
        infos = [
            ObjectInfo(Ref(bytes(ffi.buffer(o.digest)), o.bytes), o.bytes, o.made_wall_ns / 1e9, bool(o.spilled))
            for o in found
        ]
        return sorted(infos, key=lambda o: (o.created, o.ref))

    def __iter__(self) -> Iterator[Ref]:
        return iter([o.ref for o in self.list()])

    def __len__(self) -> int:
        return check(lib.cfn_bus_object_list(self._handle, ffi.NULL, 0))

    def verify(self, report: Callable[[Ref], None] | None = None) -> builtins.list[Ref]:
        """Computes all digests again. Returns those whose bytes were changed.

        Args:
            report: called with each name before it is looked at.
        """
        wrong = []
        for ref in self:
            if report:
                report(ref)
            try:
                self.view(ref, verify=True).release()
            except Corrupt:
                wrong.append(ref)
            except LookupError:  # deleted meanwhile
                continue
        return wrong

    def collect(self) -> int:
        """Frees what nobody holds, and says how much that was; done by itself when room runs short."""
        return check(lib.cfn_bus_collect(self._handle))

    def make_room(self, size: int | str) -> None:
        """Makes so many bytes in a row free (or `"64M"`), by collecting, and by putting objects on disk that nobody
        holds; done by itself when room runs short, too.

        Raises:
            NoSpace: it cannot be done; the message has the numbers.
        """
        check(lib.cfn_bus_evict(self._handle, parse_size(size)))

    def info(self) -> HeapInfo:
        """What is in the heap, and what storing things once has saved."""
        i = ffi.new("cfn_heap_info_t *")
        code = lib.cfn_bus_heap_info(self._handle, i)
        if code < 0:
            fail(code)
        return HeapInfo(
            i.heap_bytes, i.used_bytes, i.bytes, i.longest_bytes, i.objects, i.objects_most, i.refs, i.refs_most,
            i.put_bytes, i.stored_bytes, i.spilled, i.spilled_bytes, ffi.string(i.spill).decode() or None,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Context of {self._bus.name!r}>"
