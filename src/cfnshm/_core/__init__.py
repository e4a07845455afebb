"""The binding to the C core: the only importer of the extension.

`check(code)` turns a result into an exception; everything else is passed through.
"""

from __future__ import annotations

from typing import Any, NoReturn

from .. import errors
from ._lib import ffi, lib

__all__ = ["FOREVER", "check", "fail", "ffi", "lib", "text"]

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


def check(code: int) -> int:
    """Returns a result that is 0 or more; raises for a negative one."""
    if code < 0:
        fail(code)
    return code
