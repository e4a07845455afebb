"""What a supervisor is told when it begins, and what it knows of each agent."""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from . import limits
from .aside import Suspect
from .plan import Plan

NAME = "supervisor"
HERE = "swarm.here"  # an agent -> supervisor: I have begun
PROGRAM = "program"
ENDED = "ended as it was told"  # the status of an agent that came to its end by itself


@dataclass
class Restart:
    """When an agent is started again: "never", "on-failure" (it exited with something else than 0, or by a signal) or
    "always"; after `delay` seconds, twice as many each time, `most_delay` at most; not more than `limit` times in
    `window` seconds."""

    when: str = "on-failure"
    limit: int = 5
    window: float = 60.0
    delay: float = 0.1
    most_delay: float = 30.0


@dataclass
class Settings:
    """All that a supervisor is told when it begins."""

    bus: str
    directory: str | None
    client: str
    client_pid: int
    swarm_id: str
    plan: Plan
    logs: str
    log_bytes: int
    temporary: bool
    room: int = 1
    most: int = 0
    restart: Restart = field(default_factory=Restart)
    failover: str = "adopt"
    max_deaths: int = 3
    memory: int = limits.MEMORY
    idle: float | None = None
    stall: float = 300.0
    health: float | None = 30.0
    tell_health: bool = False
    cgroup: bool = True
    preload: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)


@dataclass
class Agent:
    """What the supervisor knows of one. `state`: "starting", "running", "restarting", "failed", "done"."""

    name: str
    role: str
    parent: str
    team: str = ""
    program: Any = None
    restart: Restart | None = None
    state: str = "starting"
    why: str = ""
    since: float = 0.0
    pid: int = 0
    pidfd: int = -1
    pipes: list[int] = field(default_factory=list)  # the reading ends of its output
    here: bool = False
    paused: float = 0.0
    stopping: bool = False
    host: str = ""
    death: dict[str, Any] | None = None
    restarts: int = 0
    suspect: Suspect = field(default_factory=Suspect)
    extra: bool = False  # above the least number: it ends when it has had nothing to do for a while
    began: deque[float] = field(default_factory=deque)
    look: tuple[Any, float, float] = ("", 0.0, 0.0)  # what it was at, its processor time, and since when both are so


def describe(status: int) -> str:
    """Of an exit status as `os.waitstatus_to_exitcode` gives it."""
    if status >= 0:
        return f"exited with {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
