"""The binding to the C core: the only importer of the extension.

`check(code)` turns a result into an exception; everything else is passed through.
"""

from __future__ import annotations

import time
from typing import Any, NoReturn

from .. import errors
from ._lib import ffi, lib

__all__ = ["FOREVER", "c_text", "check", "deadline_of", "fail", "ffi", "lib", "text"]

FOREVER: int = 0xFFFFFFFFFFFFFFFF

# Result codes by name, read from the core's own list.
_NAMES = {code: ffi.string(lib.cfn_error_name(code)).decode() for code in range(-24, 1)}
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
    raise error


def c_text(value: str, what: str) -> Any:
    """A C string of a str.

    Raises:
        errors.InvalidArgument: it is no str, or has a NUL; the message says that `what` is wrong.
    """
    if not isinstance(value, str):
        raise errors.InvalidArgument(f"{what} must be a text, not {value!r}")
    data = value.encode()
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
