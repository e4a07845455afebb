"""The agents on a bus: who is there, what is known of each. Every value is read from the bus at the call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from . import _core, profile
from ._core import INTERRUPTED, STALE, c_text, check, deadline_of, ffi, lib, text
from .errors import InvalidArgument, Timeout, UnknownAgent
from .handle import Handle
from .message import LANE_NAMES
from .profile import TEXTS

_NAMED, _ADDRESS = ffi.sizeof("cfn_named_t"), ffi.sizeof("cfn_address_t")  # the address stands first
LIFE = ("none", "alive", "dead")
WAITING = ("", "inbox", "space", "chunks", "receipt", "reply", "agent", "value", "lock", "holder",
           "permit", "barrier")  # fmt: skip


@dataclass(frozen=True)
class AgentInfo:
    """One agent at one moment.

    Attributes:
        name: of the agent.
        type, team, status: what it said of itself.
        capabilities, tags: tuples of words.
        life: `"alive"` (its owner's or reader's process lives), `"dead"` (proven), `"none"` (nobody
            owns it: a shell agent between two commands, or one that closed its handle).
        owner_pid, reader_pid: processes, 0 if none.
        incarnation: how often the name was taken by a new owner.
        depth: messages waiting (or taken and not acked) per lane.
        capacity: frames a lane holds.
        unread: sum of `depth`.
        sent: messages sent under this name.
        waiting: what its process sleeps on: "" (it works), "inbox", "space", "chunks", "receipt",
            "reply", "agent" (to be registered), "value" (a change of one), "lock" (or a leadership), "holder" (of
            it: that it changes), "permit" (of a semaphore), "barrier".
        waiting_for: the agent whose room, receipt or reply it waits for, or the key of the value, or the name of
            the lock, election, semaphore or barrier, or "".
        waiting_since: seconds since 1970, 0 if it does not wait.
        registered: seconds since 1970.
        readable: False if a text was half written at the moment (its writer died, or was writing).
    """

    name: str
    type: str
    team: str
    capabilities: tuple[str, ...]
    tags: tuple[str, ...]
    status: str
    life: str
    owner_pid: int
    reader_pid: int
    incarnation: int
    depth: dict[str, int] = field(hash=False)
    capacity: dict[str, int] = field(hash=False)
    sent: int
    waiting: str
    waiting_for: str
    waiting_since: float
    registered: float
    readable: bool

    @property
    def alive(self) -> bool:
        return self.life == "alive"

    @property
    def unread(self) -> int:
        return sum(self.depth.values())


@dataclass(frozen=True)
class Team:
    """The agents that said the same `team` when they registered, at one moment.

    Attributes:
        name: of the team.
        agents: their names.
        alive: how many of them have a living process.
        dead: how many proven dead ones.
        unread: messages that wait in their inboxes.
    """

    name: str
    agents: tuple[str, ...]
    alive: int
    dead: int
    unread: int


def from_core(info: Any) -> AgentInfo:
    """An `AgentInfo` of a `cfn_agent_info_t`."""
    texts = [text(info.text[i]) for i in range(len(TEXTS))]
    return AgentInfo(
        name=text(info.name),
        type=texts[0],
        team=texts[1],
        capabilities=tuple(texts[2].split()),
        tags=tuple(texts[3].split()),
        status=texts[4],
        life=LIFE[info.life],
        owner_pid=info.owner_pid,
        reader_pid=info.reader_pid,
        incarnation=info.incarnation,
        depth={name: info.depth[i] for i, name in enumerate(LANE_NAMES)},
        capacity={name: info.capacity[i] for i, name in enumerate(LANE_NAMES)},
        sent=info.sent,
        waiting=WAITING[info.waiting] if info.waiting < len(WAITING) else "?",
        waiting_for=text(info.waiting_for),
        waiting_since=info.waiting_since_wall_ns / 1e9,
        registered=info.registered_wall_ns / 1e9,
        readable=bool(info.readable),
    )


class Agents(Handle):
    """The part of a `Bus` that knows the agents."""

    def register(
        self,
        agent: str,
        *,
        type: str = "",
        team: str = "",
        capabilities: Iterable[str] | str = (),
        tags: Iterable[str] | str = (),
        status: str = "",
    ) -> bool:
        """Makes an agent that nobody owns yet, so that messages for it can be sent before its process
        runs. True if it is new; an existing one gets the texts that are given.

        Raises:
            OverCapacity, BadName, InvalidArgument.
        """
        said, keep = profile.to_core(profile.texts(type, team, capabilities, tags, status))
        address, made = ffi.new("cfn_address_t *"), ffi.new("int *")
        name = c_text(agent, "the agent's name")
        check(lib.cfn_bus_register(self._handle, name, said, address, made))
        del keep
        self._peers[agent] = (address.index, address.mid)
        return bool(made[0])

    def unregister(self, agent: str | None = None, *, force: bool = False) -> int:
        """Removes an agent (default: this one) and its inbox. Returns how many unread messages were
        dropped.

        Raises:
            AgentBusy: a living process owns or reads it, and `force` is not set.
            UnknownAgent.
        """
        agent = agent or self.agent
        dropped = ffi.new("uint64_t *")
        check(lib.cfn_bus_unregister(self._handle, c_text(agent, "the agent's name"), force, dropped))
        self._peers.pop(agent, None)
        return int(dropped[0])

    def rename(self, *_: Any) -> NoReturn:
        """Agents are not renamed: messages on their way carry the name. Register the new name and
        unregister the old one.

        Raises:
            InvalidArgument: always.
        """
        raise InvalidArgument(
            "agents are not renamed: messages on their way carry the name. Register the new name, "
            "then unregister the old one"
        )

    def set_status(self, status: str, *, agent: str | None = None) -> None:
        """Sets the status line that `agents()` and `cfnshm list` show, at most 247 bytes."""
        said = ffi.new("cfn_profile_t *")
        keep = c_text(status, "the status")
        said.text[TEXTS.index("status")] = keep
        name = c_text(agent or self.agent, "the agent's name")
        check(lib.cfn_bus_set_profile(self._handle, name, said))

    def _agents(
        self, type: str | None = None, team: str | None = None, capability: str | None = None
    ) -> list[tuple[AgentInfo, bytes]]:
        """With their addresses, as the core has them."""
        most = 256
        while True:
            all_ = ffi.new("cfn_address_t[]", most)
            n = check(lib.cfn_bus_agents(self._handle, all_, most))
            if n <= most:
                break
            most = n + 64
        info = ffi.new("cfn_agent_info_t *")
        out = []
        for i in range(n):
            code = lib.cfn_bus_agent_info(self._handle, all_ + i, info)
            if code == STALE:
                continue
            check(code)
            one = from_core(info)
            if (
                (type is None or one.type == type)
                and (team is None or one.team == team)
                and (capability is None or capability in one.capabilities)
            ):
                out.append((one, bytes(ffi.buffer(all_ + i))))
        return out

    def _everybody(self) -> tuple[list[str], bytes]:
        """All agents but this one, and their addresses one after the other, as the core has them. Not to be changed."""
        version = lib.cfn_bus_names_version(self._handle)
        known = self._others
        if version and version == known[0]:
            return known[1], known[2]
        most = 256
        while True:
            out = ffi.new("cfn_named_t[]", most)
            n = check(lib.cfn_bus_agents_named(self._handle, out, most))
            if n <= most:
                break
            most = n + 64
        # One copy, and slices of it: a field at a time through cffi costs more than the sending.
        data = bytes(ffi.buffer(out, n * _NAMED))
        all_ = {
            data[i + _ADDRESS : i + _NAMED].partition(b"\0")[0].decode(): data[i : i + _ADDRESS]
            for i in range(0, n * _NAMED, _NAMED)
        }
        all_.pop(self.agent, None)
        self._others = (version, list(all_), b"".join(all_.values()))
        return self._others[1], self._others[2]

    def agents(
        self,
        *,
        type: str | None = None,
        team: str | None = None,
        capability: str | None = None,
        alive: bool | None = None,
    ) -> list[AgentInfo]:
        """All agents, or those of a type, team, capability or life."""
        found = [info for info, _ in self._agents(type, team, capability)]
        return found if alive is None else [info for info in found if info.alive is alive]

    def teams(self) -> dict[str, Team]:
        """The teams of this bus by name: who is in them, who lives, what waits. An agent without a team is in none.
        A team is sent to by `broadcast(team=)`, told by `pause(team=)`, `resume`, `inject`, `stop`, `signal_all`."""
        members: dict[str, list[AgentInfo]] = {}
        for info in self.agents():
            if info.team:
                members.setdefault(info.team, []).append(info)
        return {
            name: Team(name, tuple(sorted(i.name for i in those)), sum(i.alive for i in those),
                       sum(i.life == "dead" for i in those), sum(i.unread for i in those))
            for name, those in sorted(members.items())
        }  # fmt: skip

    def agent_info(self, agent: str | None = None) -> AgentInfo:
        """One agent (default: this one).

        Raises:
            UnknownAgent.
        """
        agent = agent or self.agent
        info = ffi.new("cfn_agent_info_t *")
        code = STALE
        while code == STALE:
            self._stale(agent)
            code = lib.cfn_bus_agent_info(self._handle, self._address(agent), info)
        check(code)
        return from_core(info)

    def wait_for(self, *agents: str, timeout: float | None = None) -> None:
        """Waits until all these agents are registered.

        Raises:
            Timeout: not in time; the message names who is missing.
        """
        deadline = deadline_of(timeout)
        address = ffi.new("cfn_address_t *")
        for agent in agents:
            name = c_text(agent, "the agent's name")
            code = INTERRUPTED
            while code == INTERRUPTED:
                code = lib.cfn_bus_wait_agent(self._handle, name, deadline, address)
            if code == _core.CODES["UNKNOWN_AGENT"]:
                missing = [a for a in agents if not self.is_registered(a)]
                raise Timeout(f"not registered yet: {', '.join(missing)}")
            check(code)
            self._peers[agent] = (address.index, address.mid)

    def is_registered(self, agent: str) -> bool:
        """Is there an agent of that name?"""
        return self._look(agent) is not None

    def _find(self, agent: str) -> tuple[int, int]:
        """See `Handle._find`; the error comes with the names that are near."""
        try:
            return super()._find(agent)
        except UnknownAgent as error:
            import difflib  # here, so that who makes no mistakes does not load it

            near = difflib.get_close_matches(agent, [info.name for info, _ in self._agents()], 3)
            if near:
                error.args = (f"{error}. Did you mean {' or '.join(map(repr, near))}?",)
            raise
