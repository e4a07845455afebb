"""The binding to the C core: the only importer of the extension.

`check(code)` turns a result into an exception; everything else is passed through.

The hot verbs have twins in the same shared object that do without cffi's crossing (csrc/python);
`CFNSHM_BINDING=cffi` switches them off. `BINDING` says which are used.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import inspect
import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .. import errors
from . import _lib
from ._lib import ffi, lib

__all__ = ["BINDING", "FOREVER", "c_text", "check", "deadline_of", "fail", "ffi", "lib", "text", "twin"]

FOREVER: int = 0xFFFFFFFFFFFFFFFF

# Result codes by name, read from the core's own list.
_NAMES = {
    code: name
    for code in range(-64, 1)
    if (name := ffi.string(lib.cfn_error_name(code)).decode()) != "UNKNOWN"
}
CODES = {name: code for code, name in _NAMES.items()}

INTERRUPTED = CODES["INTERRUPTED"]
TIMEOUT = CODES["TIMEOUT"]
EMPTY = CODES["EMPTY"]
STALE = CODES["STALE"]
FULL = CODES["FULL"]


def text(chars: Any) -> str:
    """A C string as str."""
    return str(ffi.string(chars).decode("utf-8", "replace"))


def fail(code: int) -> NoReturn:
    """Raises the exception of a negative result, with what the failing call knew.

    Raises:
        errors.Error: always, of the class that `errors.BY_CODE` names.
    """
    failure = lib.cfn_last_failure()
    name = _NAMES.get(code, "ERROR")
    cls = errors.BY_CODE.get(name, errors.Error)
    known = failure.code == code
    error = cls(text(failure.text) if known else name.lower().replace("_", " "))
    if known:
        error.have, error.want = failure.have, failure.want
        if isinstance(error, OSError):
            error.errno = failure.os_errno or None
    try:
        raise error
    finally:
        del error  # else it would hold its traceback, which holds this frame: a cycle with all frames above in it


def utf8(value: object, what: str) -> bytes:
    """The bytes of a str.

    Raises:
        errors.InvalidArgument: it is no str, or has half a surrogate pair; the message says that `what` is wrong.
    """
    if not isinstance(value, str):
        raise errors.InvalidArgument(f"{what} must be a text, not {value!r}")
    try:
        return value.encode()
    except UnicodeEncodeError as why:
        raise errors.InvalidArgument(f"{what} must be encodable as UTF-8: {why}") from None


def c_text(value: str, what: str) -> Any:
    """A C string of a str.

    Raises:
        errors.InvalidArgument: as `utf8`, or it has a NUL.
    """
    data = utf8(value, what)
    if b"\0" in data:
        raise errors.InvalidArgument(f"{what} must not contain NUL: {value!r}")
    return ffi.new("char[]", data)


def deadline_of(timeout: float | None) -> int:
    """The core's deadline of a timeout in seconds.

    Raises:
        errors.InvalidArgument: it is no number.
    """
    if timeout is None:
        return FOREVER
    try:
        if timeout <= 0:
            return 0
        if timeout < 1e9:
            return time.monotonic_ns() + int(timeout * 1e9)
        if timeout == timeout:  # not NaN: longer than anybody waits
            return FOREVER
    except TypeError:
        pass
    raise errors.InvalidArgument(f"a timeout is a number of seconds or None, not {timeout!r}")


def check(code: int) -> int:
    """Returns a result that is 0 or more; raises for a negative one."""
    if code < 0:
        fail(code)
    return code


# ---- twins ----

F = TypeVar("F", bound=Callable[..., Any])


def _load_hot() -> Any:
    """The module of the twins: the second one in the shared object of the first."""
    if os.environ.get("CFNSHM_BINDING", "capi") != "capi":
        return None
    loader = importlib.machinery.ExtensionFileLoader(f"{__name__}._hot", _lib.__file__)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    try:
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        loader.exec_module(module)
    except ImportError:  # an interpreter for which they are not built
        return None
    return module if module.usable() else None


_hot = _load_hot()
BINDING = "cffi" if _hot is None else "capi"

if TYPE_CHECKING or _hot is None:

    class HandleBase:
        """Base of a handle; `_bind` tells the twins where the core's handle is."""

        def _bind(self, address: int, owner: Any) -> None: ...

    class MessageBase:
        __slots__ = ("_body_", "_bus", "_exporter", "_head", "_raw_", "_to", "_wire")

    class ReceiptBase:
        __slots__ = ("_bus", "_data", "to")

else:
    HandleBase, MessageBase, ReceiptBase = _hot.HandleBase, _hot.MessageBase, _hot.ReceiptBase


def twin(function: F) -> F:
    """A method's twin, if there is one: it does the plain case, and the method everything else."""
    if _hot is None:
        return function
    plain = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
    signature = str(inspect.Signature(plain)).replace("(self", "($self")
    said = f"{function.__name__}{signature}\n--\n\n{inspect.getdoc(function) or ''}"
    method: F = _hot.twin(function, said)
    return method


def twin_property(function: Callable[[Any], Any]) -> Any:
    """The same for the property of a message."""
    if _hot is None:
        return property(function)
    return _hot.attribute(function.__name__, function, function.__doc__)


C = TypeVar("C", bound=type)


def sealed(made: C) -> C:
    """A class of messages or receipts that no other is derived from: its objects end faster."""
    if _hot is None:

        def refuse(cls: type, **_: Any) -> None:
            raise TypeError(f"type {made.__module__}.{made.__name__} is not an acceptable base type")

        made.__init_subclass__ = classmethod(refuse)  # type: ignore[method-assign,assignment,arg-type]
        return made
    fast: C = _hot.sealed(made)
    return fast


_threads = itertools.count(1)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.me = -next(_threads)


_thread = _Thread()


def this_thread() -> int:
    """Who this thread is: a number below 0 that no other thread has, also none that comes after it."""
    return _thread.me if _hot is None else _hot.this_thread()


def set_up_twins(*arguments: Any) -> None:
    """Gives the twins the classes that they make and the functions that they call."""
    if _hot is not None:
        _hot.setup(*arguments)


def blank(n: int) -> bytes:
    """n bytes (not 0 and 1, which are one object for all of Python) to be filled in place by who asked for them, before
    anybody else sees them. What is in them does not matter."""
    return bytes(n) if _hot is None else _hot.blank(n)


def _drop_loan(handle: Any, number: int, _memory: Any) -> None:
    lib.cfn_bus_loan_drop(handle, number)


def lend(bus: Any, size: int) -> tuple[Any, int]:
    """Room for a body of that size, which is dropped with its last view, and its number.

    Raises:
        as `Bus.loan`.
    """
    if _hot is not None:
        room = _hot.lend(bus, size)
        return room, room.number
    loan = ffi.new("cfn_loan_t *")
    check(lib.cfn_bus_loan(bus._handle, size, loan))
    memory = ffi.gc(loan.data, functools.partial(_drop_loan, bus._handle, loan.number))
    return ffi.buffer(memory, size), loan.number


def send_lent(bus: Any, room: Any, to: str, kind: bytes, lane: int, timeout: float | None) -> Any:
    """The receipt, if it can be sent at once; None: it is still open."""
    return None if _hot is None else _hot.send_lent(bus, room, to, kind, lane, timeout)
