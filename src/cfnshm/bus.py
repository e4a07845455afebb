"""`Bus`: one process's handle on one bus.

    with Bus("build-42", agent="planner") as bus:
        bus.send("coder-1", {"task": "fix auth"})
        message = bus.recv(timeout=5)
        bus.reply(message, "done")

Its parts: `outbox` sends, `inbox` receives, `request` asks and answers, `agents` knows who is there, `state` has
named values, `sync` locks and barriers, `control` directs agents, `checkpoint` saves their states; here stand its life
and what is known of the bus as a whole.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from . import _core, config, profile
from ._core import c_text, check, ffi, lib
from .context import Context
from .control import Control
from .errors import AgentBusy, Closed, Error
from .message import LANE_NAMES, Batch, Message, array_head, array_or_none, decode, encode
from .receipt import Receipt, Receipts

_OWN, _ONLY = 1, 2  # CFN_ACT_*

COUNTERS = (
    "sent", "sent_bytes", "received", "acked", "redelivered", "replies", "replies_late", "waits",
    "full", "reaped", "corrupt", "false_free", "put_bytes", "stored_bytes", "collects",
)  # fmt: skip


def _open(where: Any, name: str, wish: Any, create: bool) -> tuple[Any, bool]:
    out, made = ffi.new("cfn_bus_t **"), ffi.new("int *")
    check(lib.cfn_bus_open(where, c_text(name, "the bus name"), wish, create, out, made))
    return ffi.gc(out[0], lib.cfn_bus_free), bool(made[0])


def _clear(where: Any, name: str) -> None:
    """Destroys what an earlier run left under this name."""
    out = ffi.new("cfn_bus_t **")
    code = lib.cfn_bus_open(where, c_text(name, "the bus name"), ffi.NULL, 0, out, ffi.NULL)
    if code == _core.CODES["NO_BUS"]:
        return
    check(code)
    try:
        check(lib.cfn_bus_destroy_idle(out[0]))
    finally:
        lib.cfn_bus_free(out[0])


def _end_handle(handle: Any, temporary: bool) -> None:
    """When the Bus is collected, or the interpreter ends; in a forked child both calls do nothing. The core's
    handle is freed only when nobody can call anything on it any more: threads run on at the end, and
    finalizers may still send."""
    if temporary:
        lib.cfn_bus_destroy(handle)
    lib.cfn_bus_close(handle)


class Bus(Control):
    """A handle on a bus; the bus is created if it is not there.

    Args:
        name: of the bus; default `$CFNSHM_BUS`, else "default".
        agent: whose name this handle acts under; made if missing. Default `$CFNSHM_AGENT`, else
            nobody: such a handle can send, ask and look, and has no inbox.
        type, team, capabilities, tags, status: what the agent says of itself.
        create: make the bus if it is missing, else raise `NoBus`.
        fresh: start with an empty bus: destroy what an earlier run left under this name, with its unread
            messages. `AgentBusy` if a living process still uses it.
        exclusive: `AgentBusy` if another living handle is the agent's owner. Without it this handle acts
            beside the owner (`is_owner` is False) and may send, and read when the owner does not.
        agents, size, lanes, slabs, spill, directory: see `cfnshm.config`; they count when the bus is made.
            Asking for more than an existing bus has raises `OverCapacity`.
        temporary: destroy the bus when this handle is closed, or at the latest when the process ends
            normally.

    Timeouts of all calls are in seconds; `None`, the default, waits for ever, and 0 does not wait. Ctrl-C
    works in every wait. A handle may be shared by threads. It is not inherited by fork (`ForkedHandle`),
    and pickles as its name and agent: unpickling attaches anew.

    Attributes:
        name: of the bus.
        agent: name it acts under, "" if none.
        created: this handle made the bus.
        incarnation: how often that name was taken by a new owner.
        is_owner: this handle is the agent's owner (False if another living one is).

    Raises:
        NoSpace: the bus does not fit; the message has the numbers and the remedy.
        AgentBusy (`fresh`, `exclusive`), NoBus (`create=False`), OverCapacity, VersionMismatch, Corrupt,
        PermissionDenied, BadName, InvalidArgument.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        agent: str | None = None,
        type: str = "",
        team: str = "",
        capabilities: Iterable[str] | str = (),
        tags: Iterable[str] | str = (),
        status: str = "",
        create: bool = True,
        fresh: bool = False,
        exclusive: bool = False,
        agents: int | None = None,
        size: int | str | None = None,
        lanes: Mapping[str, int] | None = None,
        slabs: Mapping[int | str, int] | None = None,
        spill: str | os.PathLike[str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        temporary: bool = False,
    ) -> None:
        self._closed = True
        self.name = name if name is not None else os.environ.get("CFNSHM_BUS") or "default"
        self.agent = agent if agent is not None else os.environ.get("CFNSHM_AGENT") or ""
        self.directory = os.fspath(directory) if directory is not None else None
        self.temporary = temporary
        wish = ffi.new("cfn_wish_t *")
        place = config.fill_wish(wish, agents, size, lanes, slabs, spill)
        said = profile.texts(type, team, capabilities, tags, status)
        where = c_text(self.directory, "the directory") if self.directory else ffi.NULL
        if fresh:
            _clear(where, self.name)
        self._handle, self.created = _open(where, self.name, wish, create)
        del place  # the wish points to it
        if fresh and not self.created:
            lib.cfn_bus_close(self._handle)
            raise AgentBusy(f"another process has just made bus {self.name!r}: only one can start it fresh")
        self._finalizer = weakref.finalize(self, _end_handle, self._handle, temporary)
        self._closed = False
        self.incarnation = 0
        self.is_owner = False
        self._attachment = lib.cfn_bus_attachment(self._handle)
        self._peers = {}
        self._others = (0, [], b"")
        self._handed = {}
        self._rooms = []
        self._receipts = []
        self._id_prefix = ""
        self._verified = set()
        self._leases = {}
        self._parents = {}
        self._heads = {}
        self._bind(int(ffi.cast("uintptr_t", self._handle)), self._handle)
        try:
            if self.agent:
                self._act(said, _OWN | (_ONLY if exclusive else 0))
        except BaseException:
            self._closed = True
            self._finalizer()
            raise

    # -- life ------------------------------------------------------------------------------------

    def _act(self, texts: Mapping[str, str], flags: int) -> None:
        said, keep = profile.to_core(texts)
        incarnation, owner = ffi.new("uint64_t *"), ffi.new("int *")
        name = c_text(self.agent, "the agent's name")
        check(lib.cfn_bus_act_as(self._handle, name, said, flags, incarnation, owner))
        self.incarnation, self.is_owner = incarnation[0], bool(owner[0])
        del keep

    def close(self) -> None:
        """Leaves the bus. What was not acked stays in the inbox for the next reader; a temporary bus
        is destroyed."""
        if self._closed:
            return
        self._closed = True
        if self.temporary:
            with contextlib.suppress(Error):
                check(lib.cfn_bus_destroy(self._handle))
        lib.cfn_bus_close(self._handle)

    def __enter__(self) -> Bus:
        if self._closed:
            raise Closed("this handle is closed; open the bus again")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self._closed:  # a clean end acks what was handed out
                for who in list(self._handed):
                    self._ack_handed(who)
        finally:
            self.close()

    def destroy(self) -> None:
        """Ends the bus for everybody: others get `BusDestroyed`, the files are removed.

        Raises:
            BusDestroyed: it was destroyed already.
        """
        check(lib.cfn_bus_destroy(self._handle))
        self.close()

    def destroy_idle(self) -> None:
        """The same, unless another living handle is attached.

        Raises:
            AgentBusy: the bus is in use.
            BusDestroyed: it was destroyed already.
        """
        check(lib.cfn_bus_destroy_idle(self._handle))
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self.name, self.agent, self.directory))

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<Bus {self.name!r} agent={self.agent!r}{state}>"

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def context(self) -> Context:
        """Objects that are stored once and named by their SHA-256: see `cfnshm.context`."""
        return Context(self)

    # -- the bus as a whole ----------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Configuration and counters, all read from the bus.

        Returns:
            name, path, bytes (of the whole bus), agents, agents_capacity, attached (living handles),
            dead (not recycled yet), created (seconds since 1970), creator_pid, largest_body (bytes),
            lanes (messages each holds), chunks and chunks_free (number by size in bytes),
            corrupt_dropped, attachment and attachment_incarnation (of this handle), and `counters`,
            totals since the bus was created: sent, sent_bytes, received, acked, redelivered, replies,
            replies_late (their asker was gone), waits (sleeps), full (lanes found full), reaped,
            corrupt, false_free, put_bytes and stored_bytes (of objects), collects.
        """
        info = ffi.new("cfn_bus_info_t *")
        check(lib.cfn_bus_info(self._handle, info))
        c = info.config
        return {
            "name": _core.text(info.name),
            "path": _core.text(info.path),
            "bytes": info.region_bytes,
            "agents": info.agents,
            "agents_capacity": c.agents,
            "attached": info.attached,
            "dead": info.dead,
            "created": info.created_wall_ns / 1e9,
            "creator_pid": info.creator_pid,
            "largest_body": info.largest_body,
            "lanes": {name: c.lane_slots[i] for i, name in enumerate(LANE_NAMES)},
            "chunks": {c.class_bytes[i]: c.class_chunks[i] for i in range(6)},
            "chunks_free": {c.class_bytes[i]: info.free_chunks[i] for i in range(6)},
            "corrupt_dropped": info.corrupt_dropped,
            "attachment": self._attachment,
            "attachment_incarnation": info.attachment_inc,
            "counters": {name: info.counter[i] for i, name in enumerate(COUNTERS)},
        }

    def reap(self) -> int:
        """Recycles what dead processes left; returns how many. Waits and shortages do it by
        themselves."""
        return check(lib.cfn_bus_reap(self._handle))

    def repair(self) -> dict[str, int]:
        """Reaps, and beyond that gives back what is proven to be nobody's, as after a stray write.

        Returns:
            Counts: `reaped` dead processes, `chunks_freed` that nobody held or had announced, `hints_mended` of
            free chunks that would not have been found, `files_removed` that were on disk for objects that are
            no more, and `unproven`, chunks that look lost and may be somebody's: they are left alone.
        """
        done = ffi.new("cfn_repair_t *")
        check(lib.cfn_bus_repair(self._handle, done))
        names = ("reaped", "chunks_freed", "hints_mended", "files_removed", "unproven")
        return {name: getattr(done, name) for name in names}

    def check(self) -> list[tuple[str, str]]:
        """Verifies every invariant of the bus: a list of (severity, finding), empty if all is well.
        "warning" heals by itself or by `reap()`; "error" means damage."""
        found: list[tuple[str, str]] = []
        handle = ffi.new_handle(found)
        check(lib.cfn_bus_check(self._handle, lib.cfn_python_finding, handle))
        return found


_core.set_up_twins(
    Message, Receipt, Receipts, Batch, encode, decode, array_head, array_or_none, _core.fail, Bus._external
)


def _reopen(name: str, agent: str, directory: str | None) -> Bus:
    return Bus(name, agent=agent or None, directory=directory, create=False)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def cfn_python_finding(context: Any, severity: Any, finding: Any) -> None:
    ffi.from_handle(context).append((_core.text(severity), _core.text(finding)))
