"""Messages that kill who reads them.

A program that dies with a message in its hands gets it again when it is started again, and may die of it again. The
supervisor counts: the message that such a program was at (the oldest of those handed out, if it was handed to this
process) when it died, again and again, is taken out of its inbox at the third death (`max_deaths`) and set aside, with
who died of it and how. The next process goes on with the one behind it. (Tasks have their own count, see `coordinator`:
a worker's successor hands them back undone.)
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from ..bus import Bus
from ..errors import AgentBusy, Timeout, UnknownAgent
from ..message import Message

ASIDE = "cfnshm/aside/"  # AGENT/MESSAGE-ID


@dataclass(frozen=True)
class Aside:
    """A message that was set aside.

    Attributes:
        agent: whose inbox it was in.
        id, sender, type, priority, timestamp: as they were.
        body: where its bytes are: `bus.context.get(body)`.
        deaths: of each process that died with it: agent, why, tail (its last lines).
    """

    agent: str
    id: str
    sender: str
    type: str
    priority: str
    timestamp: float
    body: str
    deaths: list[dict[str, Any]] = field(hash=False)


@dataclass
class Suspect:
    """The message that an agent's processes died with, one after the other. `deliveries`: how often it had been handed
    out by the last of these deaths."""

    id: str = ""
    priority: str = "normal"
    deliveries: int = 0
    deaths: list[dict[str, Any]] = field(default_factory=list)

    def died(self, bus: Bus, agent: str, death: dict[str, Any]) -> int:
        """A process of the agent has died; how many have now died with the same message."""
        held = next((m for m in bus.peek(agent, limit=256) if m.redelivered), None)
        if held is None:
            self.id, self.deliveries, self.deaths = "", 0, []
            return 0
        self.priority = held.priority
        if held.id != self.id:
            # One that was handed out more often before anybody looked: by whom is not known.
            self.id, self.deliveries, self.deaths = held.id, held.deliveries if held.deliveries > 1 else 0, []
        if held.deliveries == self.deliveries:
            return 0  # this one had not come to it
        self.deliveries = held.deliveries
        self.deaths.append(death)
        return len(self.deaths)


def set_aside(bus: Bus, agent: str, suspect: Suspect, directory: str | None) -> Aside | None:
    """Takes the message out of the inbox of an agent that has no process, and keeps it as a value of the bus; None if
    it is not there any more. Nothing else in the inbox is touched: it is the first of its lane."""
    try:
        with closing(Bus(bus.name, agent=agent, create=False, exclusive=True, directory=directory)) as box:
            (message,) = box.recv_many(1, timeout=0, hold=True, priority=suspect.priority)
            if message.id != suspect.id:
                return None
            kept = _keep(bus, agent, message, suspect)
            # dies here: it is kept, and comes once more
            message.ack()
            return kept
    except (Timeout, UnknownAgent, AgentBusy):
        return None


def _keep(bus: Bus, agent: str, message: Message, suspect: Suspect) -> Aside:
    kept = Aside(agent, message.id, message.sender, message.type, message.priority, message.timestamp,
                 str(bus.context.put(message.raw)), suspect.deaths)  # fmt: skip
    bus.state[f"{ASIDE}{agent}/{message.id}"] = asdict(kept)
    return kept


def listed(bus: Bus) -> list[Aside]:
    """All that were set aside on a bus and not taken away since (`del bus.state[...]`), oldest first."""
    found = [Aside(**value) for _, value in bus.state.items(ASIDE)]
    return sorted(found, key=lambda one: one.timestamp)
