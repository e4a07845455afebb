"""The ceilings of a run: a bare ring under the same loops as the peers, a bare futex, bare copies, empty calls."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import shlex
import subprocess
import sysconfig
import tempfile
import timeit
from pathlib import Path
from typing import Any

from .peers.base import Peer

SOURCE = Path(__file__).with_name("limits.c")


class NoCompiler(RuntimeError):
    """The ceilings are C and cannot be built here; the text says why."""


@functools.cache
def library() -> Path:
    """The extension, built once for each version of its source.

    Raises:
        NoCompiler: no compiler, or no headers of Python.
    """
    stamp = f"{int(SOURCE.stat().st_mtime)}-{SOURCE.stat().st_size}"
    out = Path(tempfile.gettempdir()) / f"cfnshm-limits-{stamp}-{sysconfig.get_config_var('SOABI')}.so"
    if out.exists() and out.stat().st_uid == Path("/proc/self").stat().st_uid:
        return out
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    made = out.with_suffix(f".{id(out)}")
    headers = f"-I{sysconfig.get_path('include')}"
    command = [compiler, "-O2", "-shared", "-fPIC", "-w", headers, "-o", str(made), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as why:
        raise NoCompiler(f"the ceilings need a C compiler: {why}") from None
    if done.returncode:
        raise NoCompiler(f"the ceilings cannot be built: {done.stderr.strip().splitlines()[0]}")
    made.rename(out)
    return out


@functools.cache
def load() -> Any:
    """The module."""
    loader = importlib.machinery.ExtensionFileLoader("limits", str(library()))
    spec = importlib.util.spec_from_loader("limits", loader)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


class CapiRing(Peer):
    """One METH_FASTCALL function that copies between a bytes object and a shared ring, and does nothing else."""

    name = "C-API ring"
    forms = ("call", "batch", "view", "loan", "records")

    def prepare(self) -> None:
        self.c = load()
        self.c.make(1024 if self.shape.size < 65536 else 16, self.shape.size)

    def sender(self, me: int, to: int) -> Any:
        if self.shape.form == "batch":
            return self.c.send_many
        if self.shape.form == "loan":
            loan = self.c.loan
            return lambda body: loan(body[0], body[-1])
        return self.c.send_buffer if self.shape.form == "records" else self.c.send

    def receiver(self, me: int) -> Any:
        if self.shape.form == "batch":
            return self.c.recv_many
        if self.shape.form in ("view", "loan"):
            return self.c.recv_view
        if self.shape.form == "records":
            import numpy as np

            view, kind = self.c.recv_view, records_type()
            return lambda: np.frombuffer(view(), kind)
        return self.c.recv


class Futex(Peer):
    """Two processes that sleep on a word, without Python."""

    name = "bare futex"


BY_NAME: dict[str, type[Peer]] = {"C-API ring": CapiRing, "bare futex": Futex}


def records_type() -> Any:
    """The record of the records workload: 64 bytes."""
    import numpy as np

    return np.dtype([("number", "<u8"), ("value", "<f8", (7,))])


def empty_calls() -> dict[str, float]:
    """Nanoseconds of a call that does nothing: of a C-API function, and of a function through cffi."""
    from cfnshm._core import lib

    nothing, n = load().nothing, 1_000_000
    loop = min(timeit.repeat("pass", number=n, repeat=5))
    fast = min(timeit.repeat("f()", globals={"f": nothing}, number=n, repeat=5)) - loop
    through = min(timeit.repeat("f(0)", globals={"f": lib.cfn_error_name}, number=n, repeat=5)) - loop
    return {"C-API call, ns": fast / n * 1e9, "cffi call, ns": through / n * 1e9}
