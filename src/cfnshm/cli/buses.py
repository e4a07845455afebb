"""`cfnshm buses`: the buses of this user, what is in them, and those that nobody needs any more."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import errors
from ..bus import Bus


def names(directory: str | None = None) -> list[str]:
    """The names of this user's buses in a directory (default `$CFNSHM_DIR`, else /dev/shm).

    Raises:
        errors.PermissionDenied: the directory cannot be read.
    """
    where = Path(directory or os.environ.get("CFNSHM_DIR") or "/dev/shm")
    prefix = f"cfnshm.{os.getuid()}."
    try:
        return sorted(path.name.removeprefix(prefix) for path in where.glob(f"{prefix}*") if path.is_dir())
    except OSError as why:
        raise errors.PermissionDenied(f"cannot read {where}: {why.strerror}") from why


def look(name: str, directory: str | None) -> dict[str, Any]:
    """What is known of one bus. `problem` says why it cannot be looked into, if it cannot."""
    try:
        with Bus(name, agent="", create=False, directory=directory) as bus:
            info, agents = bus.info(), bus.agents()
            objects, values = len(bus.context), len(bus.state)
    except errors.Error as error:
        return {"bus": name, "problem": str(error), "code": error.code}
    return {
        "bus": name, "path": info["path"], "bytes": info["bytes"], "agents": len(agents),
        "attached": info["attached"] - 1, "dead": info["dead"],
        "unread": sum(agent.unread for agent in agents), "objects": objects, "values": values,
        "created": info["created"],
    }  # fmt: skip


def prune(found: dict[str, Any], directory: str | None) -> bool:
    """Destroys a bus if no living process uses it and it holds nothing: no unread message, object or value."""
    if "problem" in found or any(found[what] for what in ("attached", "unread", "objects", "values")):
        return False
    try:
        with Bus(found["bus"], agent="", create=False, directory=directory) as bus:
            if len(bus.context) or len(bus.state):  # put meanwhile
                return False
            if any(severity == "error" for severity, _ in bus.check()):
                found["problem"] = "damaged: it may hold more than it shows; cfnshm doctor --remove removes it"
                return False
            bus.destroy_idle()
    except errors.Error as error:  # somebody came meanwhile
        found["problem"] = str(error)
        return False
    return True


def left_on_disk() -> list[Path]:
    """Directories with objects of buses that are no more (in `$CFNSHM_SPILL`, else /var/tmp): their region was
    removed by hand, or went with the machine. Only what is proven: the place where the region was is the same
    one as then, it is not there, and no process of this user has it open."""
    base = os.environ.get("CFNSHM_SPILL") or "/var/tmp"
    left = []
    for place in Path(base).glob(f"cfnshm.{os.getuid()}.*") if base != "off" else ():
        with contextlib.suppress(OSError, ValueError), _opened(place) as fd:
            _machine, boot, device, home = os.readlink("bus", dir_fd=fd).split(" ", 3)
            region = Path(home, "region")
            if boot != Path("/proc/sys/kernel/random/boot_id").read_text().strip() or not region.is_absolute():
                continue  # the next bus that is made with this place sees to those of this machine
            if os.stat(Path(home).parent).st_dev != int(device) or _nonce_of(region) == place.name[-16:]:
                continue
            if not _mapped(f"{region} (deleted)"):
                left.append(place)
    return sorted(left)


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[int]:
    """A directory of this user's own, itself and not what a link points to."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(fd).st_uid != os.getuid():
            raise PermissionError(place)
        yield fd
    finally:
        os.close(fd)


def _nonce_of(region: Path) -> str:
    """What tells a bus from another one of its name; "" if there is none."""
    try:
        with region.open("rb") as file:
            return f"{struct.unpack_from('<Q', file.read(64), 40)[0]:016x}"
    except (FileNotFoundError, struct.error):
        return ""


def _mapped(region: str) -> bool:
    """Does a process of this user have that file open still, though it was removed?"""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if region in maps.read_text():
                return True
    return False


def remove_from_disk(place: Path) -> bool:
    """Removes one of them, with the files that are named as the core names them, and nothing else. False: it could not
    be removed, or another one was faster."""
    with contextlib.suppress(OSError), _opened(place) as fd:
        for name in os.listdir(fd):
            if name == "bus" or re.fullmatch(r"\d+\.\d+(\.new)?", name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=fd)
        place.rmdir()
        return True
    return False


def run(arguments: argparse.Namespace) -> int:
    all_ = [look(name, arguments.dir) for name in names(arguments.dir)]
    if arguments.prune:
        for found in all_:
            found["destroyed"] = prune(found, arguments.dir)
    left_behind = left_on_disk()
    if arguments.prune:
        left_behind = [place for place in left_behind if remove_from_disk(place)]
    if arguments.json:
        for found in all_:
            print(json.dumps(found))
        return 0
    for place in left_behind:
        if arguments.prune:
            print(f"removed {place}: objects of a bus that is no more")
        else:
            print(f"{place}: objects of a bus that is no more; cfnshm buses --prune removes them")
    if not all_:
        print("no buses")
        return 0
    print(f"{'BUS':24} {'MiB':>7} {'AGENTS':>6} {'IN USE':>6} {'UNREAD':>7} {'OBJECTS':>7} {'VALUES':>6}  AGE")
    for found in all_:
        if "bytes" not in found:
            print(f"{found['bus']:24} {found['problem']}")
            continue
        print(
            f"{found['bus']:24} {found['bytes'] / 2**20:7.1f} {found['agents']:6} {found['attached']:6} "
            f"{found['unread']:7} {found['objects']:7} {found['values']:6}  {_age(time.time() - found['created'])}"
            + ("  destroyed" if found.get("destroyed") else "")
        )
    left = [f for f in all_ if not f.get("destroyed") and f.get("attached") == 0]
    if left and arguments.prune:
        print(
            f"kept, though nobody uses them: {len(left)} (they hold messages, objects or values); "
            "cfnshm destroy BUS removes one"
        )
    elif left:
        print(
            f"{len(left)} not in use: cfnshm buses --prune removes those that hold nothing, "
            "cfnshm destroy BUS any"
        )
    return 0


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
