"""Configuration: arguments, then `CFNSHM_*` variables, then defaults.

CFNSHM_BUS      name of the bus                       default
CFNSHM_AGENT    whose name a handle acts under        nobody
CFNSHM_DIR      where buses live                      /dev/shm
CFNSHM_AGENTS   room for so many agents               512
CFNSHM_SIZE     bytes of the whole bus, as 64M, 1G    from the free space
CFNSHM_LANES    messages a lane holds, as control=64,high=128,normal=1024,low=128
CFNSHM_SPILL    where objects go that do not fit      /var/tmp; a directory on a disk, or `off`
CFNSHM_SLABS    chunks of each size, as 256=16384,1K=8192,4K=2048,16K=512,64K=128,1M=8
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ._core import c_text
from .errors import InvalidArgument
from .message import LANES

CLASS_BYTES = (256, 1024, 4096, 16384, 65536, 1 << 20)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(value: int | str, what: str = "size") -> int:
    """Bytes of `4096`, `"64K"`, `"64M"`, `"1G"`, `"64MB"`.

    Raises:
        InvalidArgument: it is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = str(value).strip().upper().removesuffix("B").removesuffix("I")
    unit = _UNITS.get(text[-1:], 1)
    digits = text[:-1] if unit > 1 else text
    if not digits.isascii() or not digits.isdigit():
        raise InvalidArgument(f"{what} must be a number of bytes such as 4096, '64K', '64M': {value!r}")
    return int(digits) * unit


def _whole(value: str) -> int:
    return int(value) if value.isascii() and value.isdigit() else 0


def parse_map(value: Mapping[Any, int] | str | None, what: str) -> dict[str, int]:
    """A mapping, or the text `a=1,b=2` of an environment variable."""
    if not value:
        return {}
    if isinstance(value, str):
        try:
            pairs = dict(part.split("=", 1) for part in value.split(","))
            return {key.strip(): int(number) for key, number in pairs.items()}
        except ValueError:
            raise InvalidArgument(f"{what} must look like name=number,name=number: {value!r}") from None
    return {str(key): int(number) for key, number in value.items()}


def fill_wish(
    wish: Any,
    agents: int | None,
    size: int | str | None,
    lanes: Mapping[str, int] | None,
    slabs: Mapping[int | str, int] | None,
    spill: str | os.PathLike[str] | None = None,
) -> Any:
    """Fills a `cfn_wish_t` from arguments and environment (`CFNSHM_SPILL` is read by the core).

    Returns:
        What must stay alive as long as the wish is used.

    Raises:
        InvalidArgument: a value makes no sense; the message names it.
    """
    env = os.environ
    what = "agents"
    if agents is None and env.get("CFNSHM_AGENTS"):
        agents, what = _whole(env["CFNSHM_AGENTS"]), "CFNSHM_AGENTS"
    if agents is not None and not (isinstance(agents, int) and 1 <= agents <= 65536):
        said = agents if what == "agents" else env["CFNSHM_AGENTS"]
        raise InvalidArgument(f"{what} is a number of agents from 1 to 65536, not {said!r}")
    wish.agents = agents or 0
    if size is not None:
        wish.size_bytes = parse_size(size)
    else:
        wish.size_bytes = parse_size(env.get("CFNSHM_SIZE") or 0, "CFNSHM_SIZE")
    for name, slots in parse_map(lanes or env.get("CFNSHM_LANES"), "lanes").items():
        if name not in LANES:
            raise InvalidArgument(f"there is no lane {name!r}; lanes are {', '.join(LANES)}")
        wish.lane_slots[LANES[name]] = slots
    for name, chunks in parse_map(slabs or env.get("CFNSHM_SLABS"), "slabs").items():
        bytes_ = parse_size(name, "a slab class")
        if bytes_ not in CLASS_BYTES:
            raise InvalidArgument(
                f"there is no slab class of {bytes_} bytes; classes are {', '.join(map(str, CLASS_BYTES))}"
            )
        index = CLASS_BYTES.index(bytes_)
        wish.class_chunks[index] = chunks
        wish.class_wished |= 1 << index
    place = None
    if spill is not None:
        place = wish.spill = c_text(os.fspath(spill) or "off", "the place on disk")
    return place
