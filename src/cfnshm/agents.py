"""What is known of the agents on a bus. Every value is read from the bus at the call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._core import text
from .message import LANE_NAMES

LIFE = ("none", "alive", "dead")
WAITING = ("", "inbox", "space", "chunks", "receipt", "reply", "agent")
TEXTS = ("type", "team", "capabilities", "tags", "status")


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
            "reply", "agent".
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
    waiting_since: float
    registered: float
    readable: bool

    @property
    def alive(self) -> bool:
        return self.life == "alive"

    @property
    def unread(self) -> int:
        return sum(self.depth.values())


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
        waiting_since=info.waiting_since_wall_ns / 1e9,
        registered=info.registered_wall_ns / 1e9,
        readable=bool(info.readable),
    )
