"""For tests of programs that use the bus: a bus of one's own that is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

from .. import _core
from ..bus import Bus

__all__ = ["temp_bus", "temp_bus_name"]


def temp_bus_name() -> str:
    """A bus name that nobody else uses."""
    return f"test-{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def temp_bus(agent: str = "", **arguments: Any) -> Iterator[Bus]:
    """A small bus (16 agents, 8 MiB unless said otherwise) that is destroyed at the end, also if the
    block raised."""
    arguments.setdefault("agents", 16)
    arguments.setdefault("size", "8M")
    name = arguments.pop("name", None) or temp_bus_name()
    bus = Bus(name, agent=agent, **arguments)
    directory = _core.ffi.NULL
    if bus.directory:
        directory = _core.ffi.new("char[]", bus.directory.encode())
    try:
        yield bus
    finally:
        bus.close()
        _core.lib.cfn_region_destroy_path(directory, name.encode())
