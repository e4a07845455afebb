"""What each agent of a swarm is doing, read from the bus and the kernel when it is asked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import Error, UnknownAgent
from . import tree
from .task import TASK, label_of, name_of

if TYPE_CHECKING:
    from .settings import Agent
    from .supervisor import Supervisor

HEALTH = "cfnshm/swarm/health"  # the value that holds the last report
STATES = ("starting", "idle", "working", "waiting", "paused", "stalled", "restarting", "adopted", "failed", "done")


@dataclass(frozen=True)
class AgentStatus:
    """One agent at one moment.

    Attributes:
        agent, role, team, parent: its place; role is "worker", "coordinator" or "program".
        state: one of `STATES`.
            starting: forked, not on the bus yet. idle: waits for a message. working: at a task, or computing.
            waiting: on `why`. paused: by a signal, or at its own pause. stalled: at the same task for long, without
            using the processor. restarting: it died and comes again. adopted: it died, and a peer serves its team.
            failed: it died and does not come again. done: it ended as it was told.
        since: of that state, seconds since 1970 (of working: when the task was given to it).
        why: in words.
        pid: 0 if it does not run.
        unread: messages in its inbox, what it is at among them.
        restarts: how often it was started again.
        cpu: seconds of processor time of its process.
        memory: bytes that only this process has (0 unless asked for).
        log: where its output is.
    """

    agent: str
    role: str
    team: str
    parent: str
    state: str
    since: float
    why: str = ""
    pid: int = 0
    unread: int = 0
    restarts: int = 0
    cpu: float = 0.0
    memory: int = 0
    log: str = ""


@dataclass(frozen=True)
class Health:
    """Attributes:
    state: "healthy"; "degraded": somebody failed, is stalled or is being started again; "unhealthy": no worker is
        left, or
        half of all failed.
    counts: agents by state.
    findings: what is not as it should be, in words.
    """

    state: str
    counts: dict[str, int]
    findings: list[str]


def collect(supervisor: Supervisor, names: list[str] | None = None) -> list[dict[str, Any]]:
    """The fields of an `AgentStatus` of each agent."""
    infos = {info.name: info for info in supervisor.bus.agents()}
    agents = supervisor.agents.values() if not names else supervisor._targets(names)
    return [_one(supervisor, agent, infos.get(agent.name)) for agent in agents]


def _one(supervisor: Supervisor, agent: Agent, info: Any) -> dict[str, Any]:
    state, since, why, cpu = agent.state, agent.since, agent.why, 0.0
    if agent.pid and (stat := tree.stat(agent.pid)) is not None:
        cpu = stat.cpu
        state, since, why = _running(supervisor, agent, info, stat)
    return {"agent": agent.name, "role": agent.role, "team": agent.team, "parent": supervisor._agent_above(agent.name),
            "state": state, "since": since, "why": why, "pid": agent.pid, "unread": info.unread if info else 0,
            "restarts": agent.restarts, "cpu": cpu, "log": f"{supervisor.settings.logs}/{agent.name}.log"}  # fmt: skip


def _running(supervisor: Supervisor, agent: Agent, info: Any, stat: tree.Stat) -> tuple[str, float, str]:
    at_once = agent.paused and time.time() - agent.paused < 1  # on its way: the kernel stops it when it would run
    if stat.state in "Tt" or at_once:
        return "paused", agent.paused or agent.since, "stopped by a signal" if not agent.paused else "by the swarm"
    if info is None or not info.alive:
        if agent.role == "program":  # it need not be on the bus at all
            return "working", agent.since, "runs, and has not opened the bus"
        return "starting", agent.since, ""
    if info.status.startswith("paused"):
        return "paused", info.waiting_since or agent.since, info.status
    if info.waiting == "inbox" and not info.unread:
        return "idle", info.waiting_since or agent.since, ""
    if info.waiting and info.waiting != "inbox":
        return "waiting", info.waiting_since, f"on {info.waiting} {info.waiting_for}".rstrip()
    return _working(supervisor, agent, info, stat)


def _working(supervisor: Supervisor, agent: Agent, info: Any, stat: tree.Stat) -> tuple[str, float, str]:
    task, label, given = None, "", agent.since
    if agent.role == "worker" and info.unread:
        try:
            # What it is at is the oldest that was handed to it.
            at = next((m for m in supervisor.bus.peek(agent.name, limit=64) if m.redelivered and m.type == TASK), None)
            if at is not None:
                task, label, given = at.correlation_id, label_of(at.raw), at.timestamp
        except (UnknownAgent, Error):
            pass
    below = sum(s.cpu for pid in tree.descendants(agent.pid) if (s := tree.stat(pid)) is not None)
    cpu = stat.cpu + below
    doing = (task, round(cpu, 2))
    if agent.look[:2] != doing:
        agent.look = (*doing, supervisor.clock.now)
    still = supervisor.clock.now - agent.look[2]
    what = f"at {name_of(task, label)} for {max(0.0, time.time() - given):.1f} s" if task is not None else ""
    if task is not None and still >= supervisor.settings.stall:
        return "stalled", given, f"{what}, no processor time used for {still:.0f} s"
    return "working", given, what


def health(agents: list[AgentStatus]) -> Health:
    """Of what is known of all."""
    counts: dict[str, int] = {}
    for one in agents:
        counts[one.state] = counts.get(one.state, 0) + 1
    bad = [a for a in agents if a.state in ("failed", "stalled", "restarting")]
    findings = [f"{a.agent} is {a.state}: {a.why}" for a in bad]
    workers = [a for a in agents if a.role == "worker"]
    left = [a for a in workers if a.state not in ("failed", "done")]
    failed = counts.get("failed", 0)
    if (workers and not left) or failed * 2 >= max(1, len(agents)):
        return Health("unhealthy", counts, [*findings, *(["no worker is left"] if workers and not left else [])])
    return Health("degraded" if bad else "healthy", counts, findings)
