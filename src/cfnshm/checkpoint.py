"""Checkpoints: an agent's state, saved with a history; and consistent cuts through a whole swarm.

    bus.checkpoint({"step": 7})               # the newest ten are kept
    state = bus.restore()                     # also in a later life of the agent
    cut = bus.swarm_checkpoint("before-merge")

A checkpoint is a value of the bus, `cfnshm/checkpoint/AGENT/VERSION`, with its SHA-256: what was changed in the bus is
found when it is restored. With `sync=True` it is on disk as well, and outlives the bus and the machine's reboot:
`$CFNSHM_STATE_DIR`, else `$XDG_STATE_HOME/cfnshm`, else `~/.local/state/cfnshm`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pathlib
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .errors import BadName, Conflict, Corrupt, InvalidArgument, UnknownAgent, UnknownKey, VersionMismatch
from .message import CODECS, Message, decode, encode
from .request import Requests
from .state import Stateful
from .sync import Sync

CHECKPOINT, CUT = "cfnshm/checkpoint/", "cfnshm/cut/"
FORMAT = 1
_json = msgspec.json
ASKED = "swarm-checkpoint"  # type of the control message


@dataclass(frozen=True)
class Checkpoint:
    """What is known of one checkpoint.

    Attributes:
        agent: whose state it is.
        version: 1, 2, 3 ... of this agent.
        parent: the version that the agent had restored or saved before; None if there was none.
        note, label: what was said of it; the cut that it belongs to, "" if none.
        time: seconds since 1970.
        size: bytes of the encoded state.
        on_disk: it was found on disk, and is not on the bus.
    """

    agent: str
    version: int
    parent: int | None
    note: str
    label: str
    time: float
    size: int
    on_disk: bool = False


@dataclass(frozen=True)
class Cut:
    """A consistent cut through a swarm.

    Attributes:
        label: its name.
        time: seconds since 1970.
        agents: the version of each agent's checkpoint.
        messages: what waited in each agent's inbox, or was handed out and not acked: dicts with sender, type,
            priority, codec, body (base64), sequence.
    """

    label: str
    time: float
    agents: dict[str, int]
    messages: dict[str, list[dict[str, Any]]] = field(repr=False)


def directory() -> pathlib.Path:
    """Where checkpoints are on disk."""
    said = os.environ.get("CFNSHM_STATE_DIR")
    if said:
        return pathlib.Path(said)
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return pathlib.Path(state) / "cfnshm"


_LABEL = re.compile(r"[A-Za-z0-9_:@-][A-Za-z0-9._:@-]{0,39}")


def _check_label(label: object) -> None:
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise BadName(f"a cut has a name of 1 to 40 letters, digits and ._:@-, not {label!r}")


def _pack(header: dict[str, Any], data: Any) -> bytes:
    return b"".join((_json.encode(header), b"\n", data))


def _unpack(what: str, stored: Any) -> tuple[dict[str, Any], memoryview]:
    """Header and encoded state.

    Raises:
        Corrupt: it is no checkpoint, or its bytes were changed.
        VersionMismatch: a newer version wrote it.
    """
    if not isinstance(stored, bytes) or (end := stored.find(b"\n")) < 0:
        raise Corrupt(f"{what} is no checkpoint")
    try:
        header = _json.decode(stored[:end])
        version = int(header["format"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise Corrupt(f"{what} is no checkpoint: its header cannot be read") from None
    if version > FORMAT:
        error = VersionMismatch(
            f"{what} was written by a newer version (format {version}; this one reads up to {FORMAT}): update cfnshm"
        )
        error.have, error.want = version, FORMAT
        raise error
    data = memoryview(stored)[end + 1 :]
    if hashlib.sha256(data).hexdigest() != header.get("sha256"):
        raise Corrupt(f"{what} was changed after it was saved: its SHA-256 is another now; restore an older version")
    return header, data


def _write_file(path: pathlib.Path, data: bytes) -> None:
    """Whole, or not at all, also if the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            with memoryview(data) as rest:
                done = 0
                while done < len(rest):
                    done += os.write(fd, rest[done:])
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Checkpoints(Requests, Stateful, Sync):
    """The part of a `Bus` that saves and restores."""

    def _whose(self, agent: str | None) -> str:
        whose = agent or self.agent
        if not whose:
            raise InvalidArgument("whose checkpoint? This handle acts as no agent: Bus(name, agent=...), or agent=...")
        return whose

    # -- saving ----------------------------------------------------------------------------------

    def checkpoint(
        self,
        state: Any,
        note: str | None = None,
        *,
        agent: str | None = None,
        keep: int = 10,
        sync: bool = False,
        label: str = "",
    ) -> Checkpoint:
        """Saves an agent's state (default: this one's): anything that can be sent.

        Args:
            note: what it is.
            keep: how many of this agent's checkpoints stay; older ones go, except those of a cut.
            sync: it is on disk, too, when this returns.
            label: the cut that it belongs to; such a checkpoint stays until the cut is deleted.

        Raises:
            InvalidArgument: the state cannot be sent, or there is no agent.
            NoSpace, TooLarge: it does not fit the heap.
            OSError: it could not be written to disk; it is on the bus.
        """
        whose = self._whose(agent)
        if keep < 1:
            raise InvalidArgument(f"at least one checkpoint is kept, not {keep}")
        codec, data = encode(state)
        header = {
            "format": FORMAT, "codec": codec, "sha256": hashlib.sha256(data).hexdigest(), "note": note or "",
            "label": label, "at": time.time(), "size": len(data),
        }  # fmt: skip
        head_key = CHECKPOINT + whose
        while True:
            # What we wrote last is tried first: if another has written since, the swap below fails.
            at, head = self._heads.pop(whose) if whose in self._heads else self._head(whose)
            kept, labels, newest = head["kept"], head["labels"], head["head"] or None
            version = max(head["head"], *kept, 0) + 1  # after a return to an older one, too
            parent = self._parents.get(whose, newest)
            packed = _pack({**header, "parent": parent}, data)
            orphans = []
            while not self._made(f"{head_key}/{version}", packed):
                orphans.append(version)  # of one who died between the two steps, or is between them
                version += 1
            # dies here: a version that no head names: an orphan
            if label:
                labels = {**labels, str(version): label}
            free = [v for v in kept if str(v) not in labels] if labels else kept
            gone = free[: max(0, len(free) + (not label) - keep)]
            kept = [v for v in kept if v not in gone] if gone else kept
            after = {"head": version, "kept": [*kept, version], "labels": labels}
            try:
                self._heads[whose] = self.state.set(head_key, after, version=at), after
                break
            except (Conflict, UnknownKey):  # another saves for the same agent: begin again, with another version
                with suppress(UnknownKey):
                    self.state.delete(f"{head_key}/{version}")
        # The head has moved on: who is between the two steps begins again.
        gone = [*gone, *orphans]
        self._parents[whose] = version
        for old in gone:
            with suppress(UnknownKey):
                self.state.delete(f"{head_key}/{old}")
        if sync:
            self._write(whose, version, packed, gone)
        return self._described(whose, version, {**header, "parent": parent})

    def _head(self, whose: str) -> tuple[int, dict[str, Any]]:
        """Version and value of an agent's head; where there is none, what is on disk counts."""
        found = self.state.lookup(CHECKPOINT + whose)
        if found.version:
            return found.version, found.value
        kept: list[int] = []
        with suppress(OSError):  # a disk that cannot be read is no reason not to save on the bus
            kept = self._on_disk(whose)
        return 0, {"head": kept[-1] if kept else 0, "kept": kept, "labels": {}}

    def _made(self, key: str, value: bytes) -> bool:
        """Sets a value that is not there yet."""
        try:
            self.state.set(key, value, version=0)
            return True
        except Conflict:
            return False

    @staticmethod
    def _described(whose: str, version: int, header: dict[str, Any], on_disk: bool = False) -> Checkpoint:
        return Checkpoint(
            whose, version, header.get("parent"), header.get("note", ""), header.get("label", ""),
            header.get("at", 0.0), header.get("size", 0), on_disk,
        )  # fmt: skip

    def _folder(self) -> pathlib.Path:
        return directory() / self.name

    def _write(self, whose: str, version: int, packed: bytes, gone: Iterable[int]) -> None:
        _write_file(self._folder() / f"{whose}.{version}.checkpoint", packed)
        for old in gone:
            with suppress(OSError):
                os.unlink(self._folder() / f"{whose}.{old}.checkpoint")

    def _on_disk(self, whose: str) -> list[int]:
        """The versions of an agent that are on disk, oldest first."""
        try:
            names = os.listdir(self._folder())
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            start, _, rest = name.rpartition(".checkpoint")[0].rpartition(".")
            if name.endswith(".checkpoint") and start == whose and rest.isdecimal():
                found.append(int(rest))
        return sorted(found)

    # -- restoring -------------------------------------------------------------------------------

    def _stored(self, whose: str, version: int) -> tuple[Any, bool]:
        found = self.state.lookup(f"{CHECKPOINT}{whose}/{version}")
        if found.version:
            return found.value, False
        try:
            return (self._folder() / f"{whose}.{version}.checkpoint").read_bytes(), True
        except FileNotFoundError:
            raise UnknownKey(f"agent {whose!r} has no checkpoint {version}, on bus {self.name!r} or on disk") from None

    def _newest(self, whose: str) -> int:
        head = self.state.lookup(CHECKPOINT + whose)
        if head.version:
            return int(head.value["head"])
        on_disk = self._on_disk(whose)
        if not on_disk:
            raise UnknownKey(f"agent {whose!r} has no checkpoint, on bus {self.name!r} or on disk")
        return on_disk[-1]

    def restore(self, version: int | None = None, *, agent: str | None = None) -> Any:
        """The state that was saved: the newest, or of a version. What is not on the bus is looked for on disk.
        The next checkpoint has it as its parent.

        Raises:
            UnknownKey: there is none.
            Corrupt: its bytes were changed after it was saved.
            VersionMismatch: a newer version of cfnshm wrote it.
        """
        whose = self._whose(agent)
        version = self._newest(whose) if version is None else version
        stored, _ = self._stored(whose, version)
        header, data = _unpack(f"checkpoint {version} of agent {whose!r}", stored)
        value = decode(header["codec"], bytes(data))
        self._parents[whose] = version
        return value

    def checkpoints(self, agent: str | None = None) -> list[Checkpoint]:
        """What was saved of an agent (default: this one) and is kept, oldest first."""
        whose = self._whose(agent)
        head = self.state.lookup(CHECKPOINT + whose)
        versions = set(head.value["kept"] if head.version else ()) | set(self._on_disk(whose))
        found = []
        for version in sorted(versions):
            with suppress(UnknownKey):
                stored, on_disk = self._stored(whose, version)
                header, _ = _unpack(f"checkpoint {version} of agent {whose!r}", stored)
                found.append(self._described(whose, version, header, on_disk))
        return found

    # -- cuts ------------------------------------------------------------------------------------

    def swarm_checkpoint(
        self,
        label: str,
        state: Any = None,
        *,
        team: str | None = None,
        agents: Iterable[str] | None = None,
        timeout: float | None = 60.0,
        sync: bool = False,
    ) -> Cut:
        """A consistent cut: every living agent (of a team) is told on its control lane, all stop at a barrier, each
        saves its state, and what waits in their inboxes is kept with it.

        An agent takes part by answering the control message of type "swarm-checkpoint" with
        `bus.join_checkpoint(message, state)`. No message is on its way then: what was sent before the barrier is in
        an inbox, and nobody sends until all have saved.

        Args:
            label: the cut's name; new on this bus.
            state: this agent's own.
            agents: the names of all who must take part; default: all that live now, of which one that has just been
                started need not be one yet.
            timeout: seconds until all have come, and again until all have saved.
            sync: cut and checkpoints are on disk when this returns.

        Raises:
            BadName: the label is no name as agents have.
            Conflict: there is a cut of that name.
            Timeout, BrokenBarrier: not all took part; `missing` says who did not. Nothing of the cut is kept.
            InvalidArgument: this handle acts as no agent.
        """
        me = self._whose(None)
        _check_label(label)
        if self.state.lookup(CUT + label).version:
            raise Conflict(f"there is a cut {label!r} on bus {self.name!r} already; delete it, or choose another name")
        living = agents if agents is not None else (info.name for info in self.agents(team=team, alive=True))
        names = sorted({*living, me})
        stopped, saved = (self.barrier(f"cut/{label}/{step}", names) for step in ("stopped", "saved"))
        ask = {"label": label, "parties": names, "sync": sync}
        try:
            for name in names:
                if name != me:
                    self.send(name, ask, type=ASKED, priority="control", timeout=timeout)
            stopped.wait(timeout)
            messages = {name: [m for m in self._waiting(name, label)] for name in names}
            self._save_for(label, state, sync)
            saved.wait(timeout)
            versions = {name: int(self.state.pop(f"{CUT}{label}/{name}")) for name in names}
        except BaseException:
            self._forget(label, names)
            for barrier in (stopped, saved):  # who waits there is told
                with suppress(UnknownKey):
                    barrier.delete()
            raise
        # Who came to the second has left the first. At the second some may not have looked up yet: that goes with the
        # cut.
        stopped.delete()
        at = time.time()
        cut = {"format": FORMAT, "label": label, "at": at, "agents": versions, "messages": messages}
        self.state.set(CUT + label, cut, version=0)
        if sync:
            _write_file(self._folder() / f"{label}.cut", _json.encode(cut))
        return Cut(label, at, versions, messages)

    def join_checkpoint(self, message: Message, state: Any, timeout: float | None = 60.0) -> Checkpoint:
        """Takes part in the cut that a control message of type "swarm-checkpoint" asks for: call it before anything
        else is sent. Returns when all have saved.

        Raises:
            InvalidArgument: it is another message.
            Timeout, BrokenBarrier: not all took part; this agent goes on as before.
        """
        ask = message.body
        if message.type != ASKED or not isinstance(ask, dict) or not {"label", "parties", "sync"} <= ask.keys():
            raise InvalidArgument(f"a message of type {message.type!r} asks for no swarm checkpoint")
        label = ask["label"]
        self.barrier(f"cut/{label}/stopped", ask["parties"]).wait(timeout)
        done = self._save_for(label, state, ask["sync"])
        self.barrier(f"cut/{label}/saved", ask["parties"]).wait(timeout)
        return done

    def _save_for(self, label: str, state: Any, sync: bool) -> Checkpoint:
        done = self.checkpoint(state, note=f"cut {label}", label=label, sync=sync)
        self.state.set(f"{CUT}{label}/{done.agent}", done.version)
        return done

    def _waiting(self, name: str, label: str) -> Iterator[dict[str, Any]]:
        with suppress(UnknownAgent):
            for m in self.peek(name, limit=65536):
                if m.type == ASKED and isinstance(m.body, dict) and m.body.get("label") == label:
                    continue
                codec, data = encode(m.body)
                yield {
                    "sender": m.sender, "type": m.type, "priority": m.priority, "codec": CODECS[codec],
                    "body": base64.b64encode(data).decode(), "sequence": m.sequence,
                }  # fmt: skip

    def _forget(self, label: str, names: Iterable[str]) -> None:
        """A cut that did not come to be: its checkpoints are ordinary ones from now on."""
        for name in names:
            with suppress(UnknownKey):
                self.state.delete(f"{CUT}{label}/{name}")
            self._unlabel(name, label)

    def _unlabel(self, name: str, label: str) -> None:
        def change(head: dict[str, Any]) -> dict[str, Any]:
            return {**head, "labels": {v: said for v, said in head["labels"].items() if said != label}}

        if self.state.lookup(CHECKPOINT + name).version:
            self.state.update(CHECKPOINT + name, change)

    def cuts(self) -> list[str]:
        """The names of the cuts, of those on disk, too."""
        on_bus = {key[len(CUT) :] for key in self.state.keys(CUT) if "/" not in key[len(CUT) :]}
        try:
            on_disk = {name[:-4] for name in os.listdir(self._folder()) if name.endswith(".cut")}
        except FileNotFoundError:
            on_disk = set()
        return sorted(on_bus | on_disk)

    def cut(self, label: str) -> Cut:
        """A cut by name, also from disk.

        Raises:
            UnknownKey: there is none.
            Corrupt, VersionMismatch: it cannot be read.
        """
        found = self.state.lookup(CUT + label).value
        if found is None:
            try:
                found = _json.decode((self._folder() / f"{label}.cut").read_bytes())
            except FileNotFoundError:
                raise UnknownKey(f"there is no cut {label!r}, on bus {self.name!r} or on disk") from None
            except msgspec.DecodeError:
                raise Corrupt(f"cut {label!r} on disk cannot be read") from None
        if not isinstance(found, dict) or not {"format", "label", "at", "agents", "messages"} <= found.keys():
            raise Corrupt(f"cut {label!r} cannot be read")
        if found["format"] > FORMAT:
            raise VersionMismatch(f"cut {label!r} was written by a newer version of cfnshm: update it")
        return Cut(found["label"], found["at"], found["agents"], found["messages"])

    def restore_cut(self, label: str, *, messages: bool = True) -> Cut:
        """Makes the cut the present: each agent's `restore()` gives the state that it had then, and what waited in its
        inbox is there again. For agents that were ended, or have not begun: their inboxes must be empty.

        Args:
            messages: put the messages back. They come from this agent, in the order in which they waited.

        Raises:
            as `cut`; Conflict: an inbox is not empty, and its messages would be there twice. Nothing was changed.
        """
        cut = self.cut(label)
        for name in cut.agents:
            if messages and cut.messages.get(name) and self.is_registered(name) and self.peek(name, limit=1):
                raise Conflict(f"agent {name!r} has unread messages: those of the cut would be there twice; let it "
                               "read them, unregister it, or restore with messages=False")  # fmt: skip
        for name, version in cut.agents.items():
            self.register(name)
            self._rewind(name, version, label)
            for m in cut.messages.get(name, ()) if messages else ():
                body = decode(CODECS.index(m["codec"]), base64.b64decode(m["body"]))
                self.send(name, body, type=m["type"], priority=m["priority"], timeout=0)
        return cut

    def _rewind(self, name: str, version: int, label: str) -> None:
        stored, _ = self._stored(name, version)
        _unpack(f"checkpoint {version} of agent {name!r}", stored)
        key = CHECKPOINT + name
        self.state.set(f"{key}/{version}", stored)  # of one that was on disk

        def change(head: dict[str, Any] | None) -> dict[str, Any]:
            head = head or {"head": 0, "kept": [], "labels": {}}
            kept = [v for v in head["kept"] if v != version]
            # The newest is what restore() gives; versions go on from the highest there ever was.
            labels = {**head["labels"], str(version): label}
            return {**head, "kept": [*kept, version], "head": version, "labels": labels}

        self.state.update(key, change)

    def delete_cut(self, label: str) -> None:
        """Takes a cut away, from disk, too; its checkpoints are ordinary ones from then on.

        Raises:
            UnknownKey: there is none.
        """
        cut = self.cut(label)
        for name in cut.agents:
            self._unlabel(name, label)
        with suppress(UnknownKey):
            self.state.delete(CUT + label)
        with suppress(UnknownKey):
            self.barrier(f"cut/{label}/saved").delete()
        with suppress(FileNotFoundError):
            os.unlink(self._folder() / f"{label}.cut")
