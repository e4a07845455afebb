"""The process that starts a swarm's agents, sees them end, starts them again, pauses them, and ends them all.

It has one thread and does one thing at a time: it waits for messages on its inbox, for the ends of its children (a
pidfd each), for the end of its client, for signals, and for its own next appointment. Agents are forked from it, so
that what they import is imported once and shared.

Every agent leads a process group, is killed by the kernel when the supervisor ends, and what it leaves behind becomes
the supervisor's child and ends. If the supervisor itself is killed, the process that writes the logs (`output`) ends
the rest.
"""

from __future__ import annotations

import gc
import heapq
import json
import os
import pickle
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..bus import Bus
from ..errors import AgentBusy, BusDestroyed, Error, NoSpace, Timeout, UnknownAgent
from ..message import Message
from . import limits, output, tree
from . import task as wire
from .cgroup import Group
from .mender import Mender
from .plan import CLIENT, COORDINATOR, WORKER, Node
from .settings import HERE, NAME, PROGRAM, Agent, Settings
from .status import HEALTH, AgentStatus, collect, health

_DYING = 10.0  # seconds that a killed process may take to end


class Supervisor(Mender):
    """See above. `run` returns when the swarm has ended."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.asked_ready: list[Message] = []
        self.asked_ends: list[tuple[Message, set[str]]] = []
        self.asked_end: Message | None = None
        self.started = time.time()
        self._health = "healthy"
        self._began: Callable[[str], None] | None = None
        self._open()

    # -- life --

    def _open(self) -> None:
        s = self.settings
        limits.raise_file_limit()
        limits.need(len(s.plan.nodes), s.memory)
        tree.adopt_orphans()
        Path(s.logs).mkdir(parents=True, exist_ok=True, mode=0o700)
        os.environ["CFNSHM_BUS"] = s.bus
        if s.directory:
            os.environ["CFNSHM_DIR"] = s.directory
        try:
            self.bus = Bus(s.bus, agent=NAME, type="supervisor", create=False, exclusive=True, directory=s.directory)
        except AgentBusy as error:
            raise AgentBusy(
                f"bus {s.bus!r} has a swarm already, whose supervisor is process {error.pid}: end that one, or give "
                "this one a bus of its own (name=, --bus)"
            ) from None
        self.group = Group.make(s.swarm_id) if s.cgroup else None
        self._start_writer()
        self.log = output.Log(Path(s.logs), NAME, s.log_bytes)
        for module in s.preload:
            __import__(module)
        for node in s.plan.nodes.values():
            agent = Agent(node.agent, node.role, node.parent, node.team)
            self.agents[node.agent] = agent
            self.bus.register(node.agent, type=node.role, team=node.team)
            self.queue.append(agent)
        if not s.temporary:
            self._forget_the_past()
        self.client_fd = os.pidfd_open(s.client_pid)
        if os.getppid() != s.client_pid:
            raise Error("the client has ended already")
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.selector.register(self.bus, selectors.EVENT_READ, self._messages)
        self.selector.register(self.client_fd, selectors.EVENT_READ, self._client_ended)
        self.selector.register(read, selectors.EVENT_READ, self._signalled)
        gc.collect()
        gc.freeze()

    def _forget_the_past(self) -> None:
        """On a bus that had a swarm before: its tasks are not ours, nor are the wishes for its supervisor."""
        self.bus.state.pop(HEALTH, None)
        for name in self.agents:
            if self.bus.peek(name, limit=1):
                self._send_back(self.agents[name], {}, forget=True)
            self.bus.set_status("", agent=name)  # nor did they end as these were told to
        with suppress(Timeout):
            while True:
                self.bus.recv_many(256, timeout=0)

    def run(self, began: Callable[[str], None]) -> None:
        """Until the swarm has ended. `began` is called once all agents have been forked, or with why not."""
        self._began = began
        if self.settings.health is not None:
            self.after(self.settings.health, self._report)
        self.note(f"swarm of {len(self.agents)} agents, {self.plan.topology} ({self.plan.reason})", kind="began")
        while not (self.ending and not self._living()):
            self._guarded(self._start_some)
            if not self.queue:
                self._tell_began("")
            patience = self._patience()
            ready = self.selector.select(patience)
            self.clock.tick(patience)
            for key, _ in ready:
                self._guarded(key.data or self._ended, key.fd)
            self.clock.tick(0.0)
            while self.appointments and self.appointments[0][0] <= self.clock.now:
                self._guarded(heapq.heappop(self.appointments)[2])
        self._close()

    def _guarded(self, do: Callable[..., None], *given: int) -> None:
        """One thing that goes wrong must not end everybody."""
        try:
            do(*given)
        except BusDestroyed:
            self.note("the bus was destroyed; so ends the swarm", kind="ended")
            with suppress(Error, KeyError, ValueError):
                self.selector.unregister(self.bus)
            self._end("kill", 0.0, 0.0)
        except Exception as error:
            traceback.print_exc()
            self.note(f"{getattr(do, '__name__', do)}: {type(error).__name__}: {error}", kind="error")

    def _tell_began(self, why: str) -> None:
        began, self._began = self._began, None
        if began is not None:
            began(why)

    def _patience(self) -> float | None:
        if self.queue:
            return 0.0
        if not self.appointments:
            return None
        # In steps: what is longer than a step and its slack is time in which we did not run.
        return min(1.0, max(0.0, self.appointments[0][0] - self.clock.now))

    def _living(self) -> bool:
        return any(agent.pid for agent in self.agents.values())

    def _close(self) -> None:
        self.ended_by["killed"] += [str(pid) for pid in tree.end_orphans({self.writer})]
        if self.group is not None:
            self.ended_by["killed"] += [str(pid) for pid in self.group.kill()]
        for pid in tree.of_swarm(self.settings.swarm_id):  # what had left every group and every parent
            if pid != self.writer:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                    self.ended_by["killed"].append(str(pid))
        tree.end_orphans({self.writer})
        if self.group is not None:
            self.group.remove()
        for agent in () if self.settings.temporary else self.agents.values():  # else the bus goes as a whole
            with suppress(Error):
                if not self.bus.peek(agent.name, limit=1):
                    self.bus.unregister(agent.name)
        self.note("swarm ended", kind="ended")
        self.log.rest()
        self.selector.unregister(self.writer_fd)
        with suppress(OSError):
            self.control.send(json.dumps({"do": "close"}).encode())
        self.control.close()
        os.kill(self.writer, signal.SIGCONT)
        os.waitpid(self.writer, 0)
        with suppress(Error):
            if self.asked_end is not None:
                self.bus.reply(self.asked_end, self.ended_by)
            self.bus.unregister(force=True)  # who asks it something later is told that there is none

    def _report(self) -> None:
        """The swarm's health, for whoever looks at the value or waits for a change of it."""
        interval = self.settings.health
        if self.ending or interval is None:
            return
        self.after(interval, self._report)
        found = health([AgentStatus(**one) for one in collect(self)])
        said = {"at": time.time(), "state": found.state, "counts": found.counts, "findings": found.findings[:100]}
        if found.state != self._health:
            self._health = found.state
            self.note("; ".join([f"the swarm is {found.state}", *found.findings[:5]]), kind="health")
        with suppress(NoSpace):  # the next report may find room
            self.bus.state[HEALTH] = said
        if self.settings.tell_health:
            with suppress(Error):
                self.bus.send(self.settings.client, said, type="swarm.health", priority="low", timeout=0)

    # -- starting --

    def _cannot(self, agent: Agent, error: OSError) -> None:
        running = sum(bool(a.pid) for a in self.agents.values())
        why = f"cannot be started: {error}; {running} agents run"
        with suppress(OSError):
            why += f". {limits.capacity(self.settings.memory).reason}"
        self._set(agent, "failed", why)
        self.note(f"{agent.name} {why}", agent.name, "failed")
        if self._began is not None:
            self._tell_began(f"agent {agent.name!r} {why}")
            self._end("kill", 0, 0)
            return
        self._lost(agent, {"agent": agent.name, "why": why, "tail": ""})
        self._answer_ready()

    # -- what comes --

    def _messages(self, fd: int) -> None:
        while True:
            try:
                batch = self.bus.recv_many(256, timeout=0)
            except Timeout:
                return
            for message in batch:
                if message.type == HERE:
                    self._came(message)
                    continue
                try:
                    answer = self._do(message)
                except Error as error:
                    answer = {"error": str(error), "code": error.code}
                except Exception as error:  # one bad wish must not end everybody
                    answer = {"error": f"{type(error).__name__}: {error}", "code": "ERROR"}
                if answer is not None:
                    self._answer(message, answer)

    def _came(self, message: Message) -> None:
        agent = self.agents.get(message.sender)
        if agent is None or not agent.pid:
            return
        agent.here = True
        self.coming.discard(agent.name)
        if agent.state == "starting":
            self._set(agent, "running", "")
        self._answer_ready()

    def _answer_ready(self) -> None:
        if self.asked_ready and not self.queue and not self.coming:
            asked, self.asked_ready = self.asked_ready, []
            for message in asked:
                self._answer(message, {"agents": sum(a.here for a in self.agents.values())})

    def _answer_ends(self) -> None:
        for asked in list(self.asked_ends):
            message, names = asked
            if all(self.agents[name].state in ("failed", "done") for name in names):
                self.asked_ends.remove(asked)
                self._answer(message, {})

    def _answer(self, message: Message, body: dict[str, Any]) -> None:
        """Who asked may have gone, or have no room; he has a timeout."""
        if message.is_request:
            with suppress(Error):
                self.bus.reply(message, body, failed="error" in body)

    def _do(self, message: Message) -> dict[str, Any] | None:
        said = message.body if isinstance(message.body, dict) else {}
        match message.type:
            case "swarm.ready":
                self.asked_ready.append(message)
                self._answer_ready()
                return None
            case "swarm.ended":
                self._targets(said["agents"])
                self.asked_ends.append((message, set(said["agents"])))
                self._answer_ends()
                return None
            case "swarm.status":
                return {"agents": collect(self, said.get("agents")), "topology": self.plan.topology,
                        "reason": self.plan.reason, "ending": self.ending, "since": self.started}  # fmt: skip
            case "swarm.events":
                return {"events": list(self.events)}
            case "swarm.pause":
                return {"paused": self._pause(self._targets(said["targets"]))}
            case "swarm.resume":
                return {"resumed": self._resume(self._targets(said["targets"]), said.get("instruction"))}
            case "swarm.stop":
                return {"stopping": self._stop(self._targets(said["targets"]), said.get("kill", False))}
            case "swarm.grow":
                return {"started": self._grow(said["n"])}
            case "swarm.spawn":
                return {"agent": self._spawn(message.raw)}
            case "swarm.shutdown":
                self.asked_end = message
                self._end("drain" if said["drain"] > 0 else "terminate", said["drain"], said["terminate"])
                return None
        raise Error(f"a supervisor does not know what {message.type!r} means")

    def _targets(self, names: list[str]) -> list[Agent]:
        """Agents of these names or teams; all for an empty list."""
        if not names:
            return list(self.agents.values())
        found: dict[str, Agent] = {}
        for name in names:
            these = [a for a in self.agents.values() if name in (a.name, a.team)]
            if not these:
                raise UnknownAgent(f"no agent and no team {name!r} is in this swarm")
            found.update((a.name, a) for a in these)
        return list(found.values())

    def _pause(self, agents: list[Agent]) -> list[str]:
        agents = [a for a in agents if not a.paused and (a.pid or a.state in ("starting", "restarting"))]
        now = time.time()
        for agent in agents:
            agent.paused = now  # who has no process now will have one that is stopped at once
        self._rest(agents, True)
        self._signal([a for a in agents if a.pid], signal.SIGSTOP)
        self._note_some("paused", agents)
        return [a.name for a in agents]

    def _resume(self, agents: list[Agent], instruction: Any) -> list[str]:
        agents = [a for a in agents if a.pid or a.paused]
        without = []
        for agent in agents:
            agent.paused = 0.0
            try:
                if instruction is not None:
                    self.bus.inject(agent.name, instruction)
            except Error as error:  # no room, most likely: that is no reason to leave anybody stopped
                without.append(f"{agent.name} ({error})")
        self._signal([a for a in agents if a.pid], signal.SIGCONT)
        self._rest(agents, False)
        self._note_some("resumed", agents)
        if without:
            raise Error(f"all go on, but the instruction could not be given to {', '.join(without)}")
        return [a.name for a in agents]

    def _signal(self, agents: list[Agent], number: int) -> None:
        """To these agents and to all that they have started."""
        groups = {a.pid for a in self.agents.values() if a.pid}
        if self.group is not None and len(agents) == len(groups):
            self.group.signal(number)  # and by the other ways, too: somebody may have left the cgroup
        for agent in agents:
            tree.signal_group(agent.pid, number)
        for pid in tree.outside({a.pid for a in agents}, groups):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _note_some(self, what: str, agents: list[Agent]) -> None:
        if agents:
            self.note(f"{what}: {', '.join(a.name for a in agents[:5])}{', ...' if len(agents) > 5 else ''}", kind=what)

    def _stop(self, agents: list[Agent], kill: bool) -> list[str]:
        agents = [a for a in agents if a.pid or a.state in ("starting", "restarting")]
        for agent in agents:
            agent.stopping = agent.role != COORDINATOR  # that is replaced
            if not agent.stopping:
                if agent.pid:
                    tree.signal_tree(agent.pid, signal.SIGKILL)
            elif not agent.pid:
                self._set(agent, "done", "stopped")
                self._lost(agent, agent.death or {"agent": agent.name, "why": "stopped", "tail": ""})
            elif kill:
                tree.signal_tree(agent.pid, signal.SIGKILL)
            else:
                self.bus.stop(agent.name)
                if agent.role == PROGRAM:
                    tree.signal_tree(agent.pid, signal.SIGTERM)
                self._signal([agent], signal.SIGCONT)
                agent.paused = 0.0
        return [a.name for a in agents]

    def _grow(self, n: int) -> list[str]:
        """More workers of a flat swarm. The client is told how many come of how many it asked for, also if none do."""
        new: list[str] = []
        try:
            if self.plan.topology == "flat" and not self.ending:
                living = sum(a.role == WORKER and a.state not in ("failed", "done") for a in self.agents.values())
                room = min(n, self.settings.most - living, limits.capacity(self.settings.memory).most)
                new = [self._one_more() for _ in range(max(0, room))]
        finally:
            said = {"asked": n, "members": {name: self.settings.room for name in new}}
            self.tell(self.settings.client, said, wire.JOINED, "high")
        return new

    def _one_more(self) -> str:
        number = len(self.plan.nodes) + 1
        while f"worker-{number}" in self.agents:
            number += 1
        name = f"worker-{number}"
        self.bus.register(name, type=WORKER)
        self.plan.nodes[name] = Node(name, WORKER, CLIENT)
        self.plan.top.append(name)
        agent = self.agents[name] = Agent(name, WORKER, CLIENT, extra=True)
        if not self.settings.temporary:
            self._send_back(agent, {}, forget=True)
        self.queue.append(agent)
        return name

    def _spawn(self, body: bytes) -> str:
        name, team, restart, program = pickle.loads(body)
        there = self.agents.get(name)
        if name == NAME or (there is not None and (there.state not in ("failed", "done") or there.role != PROGRAM)):
            raise AgentBusy(f"agent {name!r} is in this swarm already")
        limits.need(1, self.settings.memory)
        self.bus.register(name, type=PROGRAM, team=team)
        agent = self.agents[name] = Agent(name, PROGRAM, CLIENT, team, program, restart)
        self.queue.append(agent)
        return str(name)

    # -- the end --

    def _client_ended(self, fd: int) -> None:
        self.selector.unregister(fd)
        self.note("the client has ended; so does the swarm", kind="orphaned")
        self.asked_end = None
        self._end("terminate", 0.0, 1.0)

    def _signalled(self, fd: int) -> None:
        numbers = os.read(fd, 512)
        self._end("kill" if self.ending else "terminate", 0.0, 5.0)
        self.note(f"signal {numbers[-1]}: the swarm ends", kind="signalled")

    def _end(self, how: str, drain: float, terminate: float) -> None:
        """Drains (workers do what is in their inboxes), then terminates, then kills."""
        steps = ("", "drain", "terminate", "kill")
        if steps.index(how) <= steps.index(self.ending):
            return
        self.ending = how
        words = {"drain": f"is drained for {drain:g} s at most", "terminate": "is terminated", "kill": "is killed"}
        self.note(f"the swarm {words[how]}", kind="ending")
        self.queue.clear()
        living = [a for a in self.agents.values() if a.pid]
        if how == "drain":
            for agent in living:
                if agent.role == WORKER:
                    with suppress(Error):
                        self.bus.send(agent.name, None, type=wire.DRAIN, priority="low", timeout=0)
                        continue
                self._ask_to_end(agent)
            self._signal([a for a in living if a.paused and a.role == PROGRAM], signal.SIGCONT)
            self.after(drain, lambda: self._end("terminate", 0.0, terminate))
            return
        for agent in living:
            self._ask_to_end(agent, signal.SIGTERM if how == "terminate" else signal.SIGKILL)
        if how == "terminate":
            self._signal(living, signal.SIGCONT)  # one that is paused ends, too
            self.after(terminate, lambda: self._end("kill", 0.0, 0.0))
            return
        if self.group is not None:
            self.group.kill(_DYING)
        self.after(_DYING, self._give_up)

    def _give_up(self) -> None:
        """Who was killed and has not ended cannot be ended by us: he is another user's now, or hangs in the kernel."""
        for agent in [a for a in self.agents.values() if a.pid]:
            self.by_fd.pop(agent.pidfd)
            self.selector.unregister(agent.pidfd)
            os.close(agent.pidfd)
            self.ended_by["left"].append(agent.name)
            self._set(agent, "failed", f"process {agent.pid} could not be ended")
            self.note(f"{agent.name}: {agent.why}", agent.name, "failed")
            agent.pid, agent.pidfd = 0, -1

    def _ask_to_end(self, agent: Agent, number: int = 0) -> None:
        if number == 0:
            if agent.role == COORDINATOR:
                with suppress(Error):
                    self.bus.send(agent.name, None, type=wire.DRAIN, priority="low", timeout=0)
                return
            number = signal.SIGTERM
        if number == signal.SIGKILL:
            tree.signal_tree(agent.pid, number)
            return
        tree.signal_group(agent.pid, number)


def main() -> None:
    """`python -m cfnshm.swarm.supervisor`: settings on standard input, and on standard output one line when it has
    begun: empty, or why not."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings: Settings = pickle.load(sys.stdin.buffer)
    sys.path[:] = settings.path or sys.path

    def began(why: str) -> None:
        error = {"error": why, "code": "OVER_CAPACITY", "have": 0, "want": len(settings.plan.nodes)}
        with suppress(OSError):  # nobody reads it: he has ended
            said.write(json.dumps(error if why else {}) + "\n")
            said.close()

    supervisor: Supervisor | None = None
    try:
        supervisor = Supervisor(settings)
        supervisor.run(began)
    except Error as error:
        if supervisor is not None:
            raise
        with suppress(OSError):
            said.write(
                json.dumps({"error": str(error), "code": error.code, "have": error.have, "want": error.want}) + "\n"
            )
            said.close()
    finally:
        if settings.temporary and os.getppid() != settings.client_pid:  # it would have destroyed the bus
            with suppress(Error):
                Bus(settings.bus, agent="", create=False, directory=settings.directory).destroy()


if __name__ == "__main__":
    # Under its own name, so that what it pickles and what it is sent mean the same classes.
    from cfnshm.swarm import supervisor as self_

    self_.main()
