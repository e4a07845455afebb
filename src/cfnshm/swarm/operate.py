"""What anybody on the bus can ask of a swarm's supervisor: how its agents are, to pause and resume them, to end
them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import errors
from ..bus import Bus
from . import aside, output
from .aside import Aside
from .settings import NAME
from .status import AgentStatus, Health, health


class Operator:
    """Directs the swarm on a bus; `Swarm` is one of its own.

    Targets are names of agents or teams; none means all. Every call raises `UnknownAgent` for a name that is not in
    the swarm or if the bus has no swarm, `AgentDead` if the supervisor has died, and `Timeout` after `PATIENCE` seconds
    without an answer: the supervisor is stopped, most likely.
    """

    PATIENCE = 60.0

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    def _ask(self, kind: str, **said: Any) -> dict[str, Any]:
        # On the control lane: also when the bus is full of messages that nobody reads.
        answer = self.bus.request(NAME, said, type=f"swarm.{kind}", priority="control", timeout=self.PATIENCE)
        if not answer.failed:
            return dict(answer.body)
        raise errors.BY_CODE.get(answer.body.get("code", ""), errors.Error)(answer.body["error"])

    def overview(self, *targets: str) -> dict[str, Any]:
        """`agents` (a list of `AgentStatus`), `topology`, `reason` (why that), `ending` ("" unless it ends),
        `since`."""
        said = self._ask("status", agents=list(targets))
        return {**said, "agents": [AgentStatus(**one) for one in said["agents"]]}

    def status(self, *targets: str) -> list[AgentStatus]:
        """What each agent is doing now."""
        agents: list[AgentStatus] = self.overview(*targets)["agents"]
        return agents

    def health(self) -> Health:
        """Healthy, degraded or unhealthy, and what is not as it should be."""
        return health(self.status())

    def set_aside(self) -> list[Aside]:
        """Messages that were taken out of programs' inboxes since several processes had died with them."""
        return aside.listed(self.bus)

    def events(self) -> list[dict[str, Any]]:
        """The last thousand things that happened: `at`, `kind` (began, died, adopted, failed, ...), `agent`, `text`."""
        return list(self._ask("events")["events"])

    def pause(self, *targets: str) -> list[str]:
        """Stops the process groups of these agents (SIGSTOP): at once, wherever they are. What they hold they keep.
        They are given no new tasks. Returns their names. (`bus.pause` asks an agent to pause by itself, between two
        steps.)"""
        return list(self._ask("pause", targets=list(targets))["paused"])

    def resume(self, *targets: str, instruction: Any = None) -> list[str]:
        """Lets them go on, with an instruction if there is one (see `Place.poll`, `Place.instructions`)."""
        return list(self._ask("resume", targets=list(targets), instruction=instruction)["resumed"])

    def stop(self, *targets: str, kill: bool = False) -> list[str]:
        """Ends these agents for good: they stop after what they are at, before what is in their inboxes, which goes to
        others. `kill`: at once, with all that they started. A coordinator is replaced. To end all: `Swarm.shutdown`.

        Raises:
            InvalidArgument: nobody was named.
        """
        if not targets:
            raise errors.InvalidArgument("say who is to be stopped; all are ended by shutdown()")
        return list(self._ask("stop", targets=list(targets), kill=kill)["stopping"])

    def log_of(self, agent: str) -> Path:
        """The file that holds an agent's output."""
        if agent == NAME:
            return Path(self.status()[0].log).with_name(f"{NAME}.log")
        return Path(self.status(agent)[0].log)

    def tail(self, agent: str, lines: int = 20) -> list[str]:
        """The last lines of an agent's output."""
        return output.tail(self.log_of(agent), lines)
