"""What happens when an agent has ended: it is started again, its tasks go to others, its team to a peer."""

from __future__ import annotations

import heapq
import itertools
import os
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from ..bus import Bus
from ..errors import Error, Timeout, UnknownAgent
from . import task as wire
from . import tree
from .aside import set_aside
from .launcher import Launcher
from .plan import COORDINATOR
from .settings import ENDED, PROGRAM, Agent, Settings, describe

_TAIL = 20  # lines of a failed agent's log that go into the error
_AGAIN = 0.05  # seconds until an inbox that was full is tried again


class Mender(Launcher):
    """The part of a supervisor that sees agents end."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.appointments: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.ended_by: dict[str, list[str]] = {"drained": [], "terminated": [], "killed": [], "left": []}

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """An appointment, in time in which this process ran: while it is stopped, no clock runs against anybody."""
        heapq.heappush(self.appointments, (self.clock.now + seconds, next(self._order), do))

    def tell(self, to: str, body: Any, type: str, priority: str, number: int = 0) -> None:
        """Sends it, if need be later: the supervisor waits for nobody's room. What is for somebody who is no more is
        dropped."""
        try:
            self.bus.send(to, body, type=type, priority=priority, correlation_id=number, timeout=0)
        except UnknownAgent:
            return
        except Error:
            if not self.ending:
                self.after(_AGAIN, lambda: self.tell(to, body, type, priority, number))

    # -- one has ended --

    def _ended(self, fd: int) -> None:
        agent = self.by_fd.pop(fd)
        self.selector.unregister(fd)
        os.close(fd)
        pid, agent.pid, agent.pidfd = agent.pid, 0, -1
        self.coming.discard(agent.name)
        tree.signal_group(pid, signal.SIGKILL)  # before it is reaped: until then the number is its own
        _, raw = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(raw)
        strays: list[int] = []
        if not self.ending:  # then it is done once, at the end
            strays = tree.end_orphans({a.pid for a in self.agents.values() if a.pid} | {self.writer})
        meant = agent.stopping or bool(self.ending) or self._said_it_ended(agent, status)
        tail = [] if self.ending else self._tail(agent, 0 if meant else _TAIL)  # at the end all is read at once
        for pipe in agent.pipes:
            os.close(pipe)
        agent.pipes = []
        why = describe(status) + (f"; {len(strays)} processes that it left were killed" if strays else "")
        death = {"agent": agent.name, "why": why, "tail": "\n".join(tail)}
        if self.ending:
            way = "killed" if status == -signal.SIGKILL else "terminated" if self.ending != "drain" else "drained"
            self.ended_by[way].append(agent.name)
            self._set(agent, "done", why)
        elif agent.role == COORDINATOR:
            agent.death = death
            self.note(f"{agent.name} {why}", agent.name, "died")
            agent.stopping = False  # it is stopped by being replaced
            if agent.paused:
                agent.paused = 0.0
                self._rest([agent], False)
            self._fail_over(agent, why)
        elif meant:
            self._set(agent, "done", why)
            self.note(f"{agent.name} ended: {why}", agent.name, "done")
            self._lost(agent, death)
        else:
            agent.death = death
            self.note(f"{agent.name} {why}", agent.name, "died")
            if agent.role == PROGRAM and status != 0:
                self._look_at_what_it_held(agent, death)
            if not self._again(agent, status):
                self._lost(agent, death)
        self._answer_ready()

    def _look_at_what_it_held(self, agent: Agent, death: dict[str, Any]) -> None:
        """A message that has killed several is not given to the next one."""
        try:
            if agent.suspect.died(self.bus, agent.name, death) < self.settings.max_deaths:
                return
            kept = set_aside(self.bus, agent.name, agent.suspect, self.settings.directory)
        except Error as error:  # no room to keep it in, most likely: it stays where it is
            self.note(f"a message of {agent.name} could not be set aside: {error}", agent.name, "error")
            return
        if kept is not None:
            what = f"message {kept.id} of {kept.sender!r} to {agent.name} was set aside"
            self.note(f"{what}: {len(kept.deaths)} processes died with it", agent.name, "aside")

    def _said_it_ended(self, agent: Agent, status: int) -> bool:
        if agent.role == PROGRAM:
            return False
        with suppress(Error):
            return status == 0 and self.bus.agent_info(agent.name).status == ENDED
        return False

    # -- again --

    def _again(self, agent: Agent, status: int) -> bool:
        """Starts it again, now or later, if its policy says so."""
        policy = agent.restart or self.settings.restart
        why = describe(status)
        if policy.when == "never" or (policy.when == "on-failure" and status == 0 and agent.role == PROGRAM):
            self._set(agent, "failed" if status else "done", why)
            return False
        ends = self._ends(agent)
        if ends > policy.limit:
            often = f"it ended {ends} times in {policy.window:g} s, and is not started again"
            self._set(agent, "failed", f"{why}; {often}")
            self.note(f"{agent.name} failed: {often}", agent.name, "failed")
            return False
        self._later(agent, why)
        return True

    def _ends(self, agent: Agent) -> int:
        """How often it was started in its policy's window."""
        policy = agent.restart or self.settings.restart
        while agent.began and self.clock.now - agent.began[0] > policy.window:
            agent.began.popleft()
        return len(agent.began)

    def _later(self, agent: Agent, why: str) -> None:
        """At once if it is its first end for a while, else after a delay that doubles each time."""
        policy = agent.restart or self.settings.restart
        ends = self._ends(agent)
        delay = 0.0 if ends <= 1 else min(policy.most_delay, policy.delay * 2 ** min(ends - 2, 30))
        agent.restarts += 1
        self.note(f"{agent.name} is started again" + (f" in {delay:g} s" if delay else ""), agent.name, "restarting")
        self._set(agent, "restarting", f"{why}; again in {delay:g} s" if delay else why)
        if delay:
            self.after(delay, lambda: self.queue.append(agent))
        else:
            self.queue.append(agent)

    # -- not again --

    def _lost(self, agent: Agent, death: dict[str, Any]) -> None:
        """It will not come again: its tasks go back to who dealt them, who gives it no more."""
        agent.paused = 0.0
        if agent.role == PROGRAM:
            return
        parent = self._agent_above(agent.name)
        try:
            others = self._send_back(agent, death)
        except Error as error:  # somebody else reads it, most likely
            self.note(f"the inbox of {agent.name} could not be emptied: {error}", agent.name, "error")
            others = True
        self.tell(parent, {"agent": agent.name, "death": death}, wire.LOST, "high")
        if not others:
            with suppress(Error):
                self.bus.unregister(agent.name)

    def _send_back(self, agent: Agent, death: dict[str, Any], forget: bool = False) -> bool:
        """Empties its inbox of the swarm's messages: tasks go back, unless they are of a swarm before this one. True if
        there is something in it that is not the swarm's."""
        others = False
        s = self.settings
        with closing(Bus(s.bus, agent=agent.name, create=False, exclusive=True, directory=s.directory)) as box:
            while True:
                try:
                    batch = box.recv_many(256, timeout=0, hold=True)
                except Timeout:
                    return others
                for message in batch:
                    if message.type == wire.TASK and message.sender and not forget:
                        said = {"member": agent.name, "sequence": message.sequence,
                                "death": death if message.redelivered else None}  # fmt: skip
                        # If we die before it is sent, all ends; there is nobody who would miss it.
                        self.tell(message.sender, said, wire.RETURNED, "high", message.correlation_id)
                    elif not message.type.startswith("swarm.") and message.priority != "control":
                        others = True
                        continue
                    message.ack()

    # -- coordinators --

    def _fail_over(self, agent: Agent, why: str) -> None:
        """A coordinator died: its names go to a peer, or to a new process."""
        for name in [agent, *(a for a in self.agents.values() if a.host == agent.name)]:
            name.host = ""
            # One that ends again and again is not handed on: what ends it would end the peers.
            often = self._ends(name) > self.settings.restart.limit
            peer = self._least_loaded(name) if self.settings.failover == "adopt" and not often else None
            if peer is None or not self._hand_on(name, peer):
                self._later(name, why)
                continue
            name.host = peer.name
            name.began.append(self.clock.now)
            self._set(name, "adopted", f"{why}; its team is served by {peer.name}")
            self.note(f"the team of {name.name} goes to {peer.name}", name.name, "adopted")

    def _hand_on(self, name: Agent, peer: Agent) -> bool:
        wish = {"agent": name.name, "pid": peer.pid, "gone": sorted(self._gone()), "resting": sorted(self._resting())}
        try:
            self.bus.send(peer.name, wish, type=wire.ADOPT, priority="control", timeout=0)
        except Error:  # it is full, or gone
            return False
        return True

    def _least_loaded(self, agent: Agent) -> Agent | None:
        """Of those beside it that run: who serves the fewest names, and of these has the fewest messages waiting."""
        node = self.plan.nodes.get(agent.name)
        if node is None:
            return None
        able = [self.agents[p] for p in self.plan.peers(agent.name)]
        able = [a for a in able if a.role == COORDINATOR and a.pid and a.here and not a.paused and not a.stopping]
        able = [a for a in able if (s := tree.stat(a.pid)) is not None and s.state not in "TtZX"]

        def load(a: Agent) -> tuple[int, int]:
            return sum(o.host == a.name for o in self.agents.values()), self.bus.agent_info(a.name).unread

        return min(able, key=load, default=None)

    # -- rest --

    def _rest(self, agents: list[Agent], resting: bool) -> None:
        """Who deals to them gives them nothing while they are paused."""
        by_parent: dict[str, dict[str, bool]] = {}
        for agent in agents:
            if agent.role != PROGRAM:
                by_parent.setdefault(self._agent_above(agent.name), {})[agent.name] = resting
        for parent, members in by_parent.items():
            self.tell(parent, members, wire.REST, "control")
