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
import itertools
import json
import os
import pickle
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bus import Bus
from ..errors import AgentBusy, Error, Full, Timeout, UnknownAgent
from ..message import Message
from . import limits, output, tree
from . import task as wire
from .clock import Clock
from .command import Command
from .coordinator import Coordinator, serve
from .place import Place, enter
from .plan import CLIENT, COORDINATOR, WORKER, Node, Plan
from .status import collect
from .worker import Worker, report

NAME = "supervisor"
HERE = "swarm.here"  # an agent -> supervisor: I have begun
PROGRAM = "program"
ENDED = "ended as it was told"  # the status of an agent that came to its end by itself
_BATCH = 50  # processes started between two looks at what has come
_TAIL = 20  # lines of a failed agent's log that go into the error


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
    extra: bool = False  # above the least number: it ends when it has had nothing to do for a while
    began: deque[float] = field(default_factory=deque)
    look: tuple[Any, float, float] = ("", 0.0, 0.0)  # what it was at, its processor time, and since when both are so


def describe(status: int) -> str:
    """Of an exit status as `os.waitstatus_to_exitcode` gives it."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exited with {status}"


class Supervisor:
    """See above. `run` returns when the swarm has ended."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.plan = settings.plan
        self.clock = Clock()
        self.selector = selectors.DefaultSelector()
        self.agents: dict[str, Agent] = {}
        self.by_fd: dict[int, Agent] = {}
        self.queue: deque[Agent] = deque()  # to be started
        self.appointments: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.events: deque[dict[str, Any]] = deque(maxlen=1000)
        self.asked_ready: list[Message] = []
        self.asked_ends: list[tuple[Message, set[str]]] = []
        self.ending = ""  # "", "drain", "terminate", "kill"
        self.asked_end: Message | None = None
        self.ended_by: dict[str, list[str]] = {"drained": [], "terminated": [], "killed": []}
        self.times = (0.0, 0.0)
        self.started = time.time()
        self._began: Callable[[str], None] | None = None
        self._open()

    # -- life --

    def _open(self) -> None:
        s = self.settings
        limits.raise_file_limit()
        limits.need(len(s.plan.nodes), s.memory)
        tree.adopt_orphans()
        Path(s.logs).mkdir(parents=True, exist_ok=True, mode=0o700)
        os.environ.update(CFNSHM_BUS=s.bus, CFNSHM_SWARM_ID=s.swarm_id)
        if s.directory:
            os.environ["CFNSHM_DIR"] = s.directory
        self.bus = Bus(s.bus, agent=NAME, type="supervisor", create=False, exclusive=True, directory=s.directory)
        self._start_writer()
        self.log = output.Log(Path(s.logs), NAME, s.log_bytes)
        for module in s.preload:
            __import__(module)
        for node in s.plan.nodes.values():
            agent = Agent(node.agent, node.role, node.parent, node.team)
            self.agents[node.agent] = agent
            self.bus.register(node.agent, type=node.role, team=node.team)
            self.queue.append(agent)
        self.client_fd = os.pidfd_open(s.client_pid)
        if os.getppid() != s.client_pid:
            raise Error("the client has ended already")
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.signal_fd = read
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.selector.register(self.bus, selectors.EVENT_READ, self._messages)
        self.selector.register(self.client_fd, selectors.EVENT_READ, self._client_ended)
        self.selector.register(read, selectors.EVENT_READ, self._signalled)
        gc.collect()
        gc.freeze()

    def _start_writer(self) -> None:
        """The process that writes the logs; again, if it was killed: the pipes are here, too, and wait for it."""
        s = self.settings
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        myself = os.pidfd_open(os.getpid())  # made here: it is to see also an end before it has begun
        self.writer = os.fork()
        if self.writer == 0:
            status = 1
            try:
                os.setpgid(0, 0)
                self._begin_anew([theirs.fileno(), myself])
                output.Writer(theirs, myself, Path(s.logs), s.swarm_id, s.log_bytes).run()
                status = 0
            except BaseException:
                report("the writer of logs")
            finally:
                os._exit(status)
        theirs.close()
        os.close(myself)
        self.writer_fd = os.pidfd_open(self.writer)
        self.selector.register(self.writer_fd, selectors.EVENT_READ, self._writer_ended)
        for agent in self.agents.values():
            if agent.pipes:
                self._hand_over(agent)

    def _writer_ended(self, fd: int) -> None:
        self.selector.unregister(fd)
        os.close(fd)
        self.control.close()
        os.waitpid(self.writer, 0)
        self._start_writer()
        self.note("who writes the logs had died, and was started again", kind="died")

    def _hand_over(self, agent: Agent) -> None:
        """An agent's pipes to who writes the logs."""
        said = json.dumps({"do": "add", "agent": agent.name, "pid": agent.pid}).encode()
        with suppress(BrokenPipeError, ConnectionResetError):  # its successor gets them
            socket.send_fds(self.control, [said], agent.pipes)

    def note(self, text: str, agent: str = "", kind: str = "") -> None:
        """Into the supervisor's own log, and the list of events."""
        self.events.append({"at": time.time(), "kind": kind, "agent": agent, "text": text})
        with suppress(OSError):
            self.log.write("out", text.encode() + b"\n")

    def run(self, began: Callable[[str], None]) -> None:
        """Until the swarm has ended. `began` is called once all agents have been forked, or with why not."""
        self._began = began
        self.note(f"swarm of {len(self.agents)} agents, {self.plan.topology} ({self.plan.reason})", kind="began")
        while not (self.ending and not self._living()):
            self._start_some()
            if not self.queue:
                self._tell_began("")
            patience = self._patience()
            ready = self.selector.select(patience)
            self.clock.tick(patience)
            for key, _ in ready:
                (key.data or self._ended)(key.fd)
            self.clock.tick(0.0)
            while self.appointments and self.appointments[0][0] <= self.clock.now:
                heapq.heappop(self.appointments)[2]()
        self._close()

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

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """An appointment, in time in which this process ran: while it is stopped, no clock runs against anybody."""
        heapq.heappush(self.appointments, (self.clock.now + seconds, next(self._order), do))

    def _living(self) -> bool:
        return any(agent.pid for agent in self.agents.values())

    def _close(self) -> None:
        self.ended_by["killed"] += [str(pid) for pid in tree.end_orphans({self.writer})]
        for pid in tree.of_swarm(self.settings.swarm_id):  # what had left every group and every parent
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                self.ended_by["killed"].append(str(pid))
        tree.end_orphans({self.writer})
        for agent in self.agents.values():
            with suppress(Error):
                if not self.bus.peek(agent.name, limit=1):
                    self.bus.unregister(agent.name)
        self.note("swarm ended", kind="ended")
        self.log.rest()
        self.selector.unregister(self.writer_fd)
        with suppress(OSError):
            self.control.send(json.dumps({"do": "close"}).encode())
        self.control.close()
        os.waitpid(self.writer, 0)
        if self.asked_end is not None:
            self.bus.reply(self.asked_end, self.ended_by)
        elif self.settings.temporary:
            with suppress(Error):
                self.bus.destroy()
        self.bus.close()

    # -- starting --

    def _start_some(self) -> None:
        for _ in range(min(_BATCH, len(self.queue))):
            agent = self.queue.popleft()
            if self.ending or agent.stopping:
                continue
            try:
                self._fork(agent)
            except OSError as error:
                self._cannot(agent, error)

    def _cannot(self, agent: Agent, error: OSError) -> None:
        running = sum(bool(a.pid) for a in self.agents.values())
        why = f"cannot be started: {error}; {running} agents run. {limits.capacity(self.settings.memory).reason}"
        self._set(agent, "failed", why)
        if self._began is not None:
            self._tell_began(f"agent {agent.name!r} {why}")
            self._end("kill", 0, 0)
        else:
            self._lost(agent, {"agent": agent.name, "why": why, "tail": ""})

    def _fork(self, agent: Agent) -> None:
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            for pair in pipes:
                for fd in pair:
                    os.close(fd)
            raise
        if pid == 0:
            self._child(agent, parent, [write for _, write in pipes])
        with suppress(OSError):
            os.setpgid(pid, pid)  # both do it: whoever comes first
        agent.pid, agent.pidfd, agent.here = pid, os.pidfd_open(pid), False
        agent.began.append(self.clock.now)
        self._set(agent, "starting", "")
        self.by_fd[agent.pidfd] = agent
        self.selector.register(agent.pidfd, selectors.EVENT_READ)
        for _, write in pipes:
            os.close(write)
        agent.pipes = [read for read, _ in pipes]
        self._hand_over(agent)

    def _child(self, agent: Agent, parent: int, pipes: list[int]) -> None:
        """The forked process; never returns."""
        status = 1
        try:
            os.setpgid(0, 0)
            tree.die_with_parent(parent)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(pipes[0], 1)
            os.dup2(pipes[1], 2)
            self._begin_anew([])
            os.environ["CFNSHM_AGENT"] = agent.name
            status = self._live(agent)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
        except BaseException:
            report(agent.name)
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    @staticmethod
    def _begin_anew(keep: list[int]) -> None:
        """In a forked process: nothing of the supervisor's but what it is to keep, and nothing to read on stdin."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        first = 3
        for fd in sorted(keep):
            os.closerange(first, fd)
            first = fd + 1
        os.closerange(first, 1 << 20)

    def _live(self, agent: Agent) -> int:
        s = self.settings
        if isinstance(agent.program, Command):
            command = agent.program
            os.environ.update(command.env)
            if command.cwd:
                os.chdir(command.cwd)
            os.execvp(command.args[0], list(command.args))
        bus = Bus(s.bus, agent=agent.name, create=False, directory=s.directory)
        node = self.plan.nodes.get(agent.name)
        place = Place(bus, agent.name, agent.role, agent.team, agent.parent)
        if node is not None:
            place.peers, place.children, place.depth = self.plan.peers(agent.name), list(node.children), node.depth
        enter(place)
        bus.send(NAME, None, type=HERE, priority="high")
        if agent.role == COORDINATOR:
            first = self._coordinator(bus, agent.name)
            first.recover()
            serve(first, self._adopt)
        elif agent.role == WORKER:
            Worker(place, agent.death, s.idle if agent.extra else None).run()
        else:
            function, arguments = pickle.loads(agent.program)
            function(*arguments)
        with suppress(Error):
            bus.set_status(ENDED)
        bus.close()
        return 0

    def _coordinator(self, bus: Bus, name: str) -> Coordinator:
        node, s = self.plan.nodes[name], self.settings
        children = {child: self.room_of(child) for child in node.children if child not in self._gone()}
        bus.state.incr(wire.LIFE + name)  # who waits for a successor need not wait any longer
        return Coordinator(bus, self._agent_above(name), children, s.max_deaths)

    def _adopt(self, wish: dict[str, Any]) -> Coordinator:
        """In a coordinator's process: another one's name is served here, too."""
        for gone in wish["gone"]:
            self.agents[gone].state = "failed"
        other = self._coordinator(Bus(self.settings.bus, agent=wish["agent"], create=False,
                                      directory=self.settings.directory), wish["agent"])  # fmt: skip
        other.recover()
        return other

    def _gone(self) -> set[str]:
        return {a.name for a in self.agents.values() if a.state in ("failed", "done") and not a.host}

    def _agent_above(self, name: str) -> str:
        parent = self.plan.nodes[name].parent if name in self.plan.nodes else CLIENT
        return self.settings.client if parent == CLIENT else parent

    def room_of(self, name: str) -> int:
        """How many tasks it may have at a time."""
        node = self.plan.nodes[name]
        return self.settings.room * node.leaves + (0 if node.role == WORKER else max(1, node.leaves // 4))

    # -- ends --

    def _set(self, agent: Agent, state: str, why: str) -> None:
        agent.state, agent.why, agent.since = state, why, time.time()
        if state in ("failed", "done"):
            self._answer_ends()

    def _ended(self, fd: int) -> None:
        agent = self.by_fd.pop(fd)
        self.selector.unregister(fd)
        os.close(fd)
        pid, agent.pid, agent.pidfd = agent.pid, 0, -1
        _, raw = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(raw)
        tree.signal_group(pid, signal.SIGKILL)
        strays: list[int] = []
        if not self.ending:  # then it is done once, at the end
            strays = tree.end_orphans({a.pid for a in self.agents.values() if a.pid} | {self.writer})
        meant = agent.stopping or bool(self.ending) or self._said_it_ended(agent, status)
        tail = self._tail(agent, 0 if meant or self.ending else _TAIL)
        for pipe in agent.pipes:
            os.close(pipe)
        agent.pipes = []
        why = describe(status) + (f"; {len(strays)} processes that it left were killed" if strays else "")
        if self.ending:
            way = "killed" if status == -signal.SIGKILL else "terminated" if self.ending != "drain" else "drained"
            self.ended_by[way].append(agent.name)
        agent.paused = 0.0
        death = {"agent": agent.name, "why": why, "tail": "\n".join(tail)}
        if meant:
            self._set(agent, "done", why)
            self.note(f"{agent.name} ended: {why}", agent.name, "done")
            if not self.ending:
                self._lost(agent, death)
            return
        agent.death = death
        self.note(f"{agent.name} {why}", agent.name, "died")
        if agent.role == COORDINATOR:
            self._fail_over(agent, why)
        elif self._again(agent, status):
            return
        else:
            self._lost(agent, death)

    def _said_it_ended(self, agent: Agent, status: int) -> bool:
        if agent.role == PROGRAM:
            return False
        with suppress(Error):
            return status == 0 and self.bus.agent_info(agent.name).status == ENDED
        return False

    def _tail(self, agent: Agent, lines: int) -> list[str]:
        """The last lines of its log, after all that it wrote has been read."""
        try:
            self.control.send(json.dumps({"do": "ended", "agent": agent.name, "lines": lines}).encode())
            said: list[str] = json.loads(self.control.recv(1 << 20) or b"[]") if lines else []
            return said
        except OSError:  # who writes the logs was killed: agents go on
            return []

    def _again(self, agent: Agent, status: int) -> bool:
        """Starts it again, now or later, if its policy says so."""
        policy = agent.restart or self.settings.restart
        why = describe(status)
        if policy.when == "never" or (policy.when == "on-failure" and status == 0 and agent.role == PROGRAM):
            self._set(agent, "failed" if status else "done", why)
            return False
        while agent.began and self.clock.now - agent.began[0] > policy.window:
            agent.began.popleft()
        if len(agent.began) > policy.limit:
            often = f"it ended {len(agent.began)} times in {policy.window:g} s, and is not started again"
            self._set(agent, "failed", f"{why}; {often}")
            self.note(f"{agent.name} failed: {often}", agent.name, "failed")
            return False
        agent.restarts += 1
        ends = len(agent.began) - 1
        delay = 0.0 if ends == 0 else min(policy.most_delay, policy.delay * 2 ** (ends - 1))
        self._set(agent, "restarting", f"{why}; again in {delay:g} s" if delay else why)
        if delay:
            self.after(delay, lambda: self.queue.append(agent))
        else:
            self.queue.append(agent)
        return True

    def _lost(self, agent: Agent, death: dict[str, Any]) -> None:
        """It will not come again: its tasks go back to who dealt them, who gives it no more."""
        if agent.role == PROGRAM:
            return
        try:
            with Bus(self.settings.bus, agent=agent.name, create=False, exclusive=True,
                     directory=self.settings.directory) as box:  # fmt: skip
                others = 0
                while True:
                    try:
                        batch = box.recv_many(256, timeout=0, hold=True)
                    except Timeout:
                        break
                    for message in batch:
                        if message.type == wire.TASK:
                            said = {"member": agent.name, "sequence": message.sequence,
                                    "death": death if message.redelivered else None}  # fmt: skip
                            box.send(message.sender, said, type=wire.RETURNED, correlation_id=message.correlation_id,
                                     priority="high")  # fmt: skip
                            message.ack()
                        elif message.type.startswith("swarm.") or message.priority == "control":
                            message.ack()
                        else:
                            others += 1
                with suppress(UnknownAgent):
                    box.send(self._agent_above(agent.name), {"agent": agent.name, "death": death}, type=wire.LOST,
                             priority="high")  # fmt: skip
            if not others:
                self.bus.unregister(agent.name)
        except (AgentBusy, UnknownAgent) as error:
            self.note(f"the inbox of {agent.name} could not be emptied: {error}", agent.name, "error")

    def _fail_over(self, agent: Agent, why: str) -> None:
        """A coordinator died: its names go to a peer, or to a new process."""
        names = [agent, *(a for a in self.agents.values() if a.host == agent.name)]
        for name in names:
            name.host = ""
            peer = self._least_loaded(name) if self.settings.failover == "adopt" else None
            if peer is None:
                self._set(name, "restarting", why)
                name.restarts += 1
                self.queue.append(name)
                continue
            try:
                self.bus.send(peer.name, {"agent": name.name, "gone": sorted(self._gone())}, type=wire.ADOPT,
                              priority="control", timeout=0)  # fmt: skip
            except (Full, UnknownAgent):
                self._set(name, "restarting", why)
                self.queue.append(name)
                continue
            name.host = peer.name
            self._set(name, "adopted", f"{why}; its team is served by {peer.name}")
            self.note(f"the team of {name.name} goes to {peer.name}", name.name, "adopted")

    def _least_loaded(self, agent: Agent) -> Agent | None:
        """Of those beside it that run: who serves the fewest names, and of these has the fewest messages waiting."""
        node = self.plan.nodes.get(agent.name)
        if node is None:
            return None
        able = [self.agents[p] for p in self.plan.peers(agent.name)]
        able = [a for a in able if a.role == COORDINATOR and a.pid and a.here and not a.paused and not a.host]
        able = [a for a in able if (s := tree.stat(a.pid)) is not None and s.state not in "TtZX"]

        def load(a: Agent) -> tuple[int, int]:
            return sum(o.host == a.name for o in self.agents.values()), self.bus.agent_info(a.name).unread

        return min(able, key=load, default=None)

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
                if answer is not None and message.is_request:
                    self.bus.reply(message, answer, failed="error" in answer)

    def _came(self, message: Message) -> None:
        agent = self.agents.get(message.sender)
        if agent is None or not agent.pid:
            return
        agent.here = True
        if agent.state == "starting":
            self._set(agent, "running", "")
        self._answer_ready()

    def _answer_ready(self) -> None:
        if self.asked_ready and all(a.here or not a.pid for a in self.agents.values()) and not self.queue:
            for asked in self.asked_ready:
                self.bus.reply(asked, {"agents": sum(a.here for a in self.agents.values())})
            self.asked_ready = []

    def _answer_ends(self) -> None:
        for asked in list(self.asked_ends):
            message, names = asked
            if all(self.agents[name].state in ("failed", "done") for name in names):
                self.asked_ends.remove(asked)
                self.bus.reply(message, {})

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

    def _rest(self, agents: list[Agent], resting: bool) -> None:
        """Who deals to them gives them nothing while they are paused."""
        by_parent: dict[str, dict[str, bool]] = {}
        for agent in agents:
            if agent.role != PROGRAM:
                by_parent.setdefault(self._agent_above(agent.name), {})[agent.name] = resting
        for parent, members in by_parent.items():
            with suppress(Error):
                self.bus.send(parent, members, type=wire.REST, priority="control", timeout=0)

    def _pause(self, agents: list[Agent]) -> list[str]:
        agents = [a for a in agents if a.pid and not a.paused]
        self._rest(agents, True)
        for agent in agents:
            tree.signal_group(agent.pid, signal.SIGSTOP)
            agent.paused = time.time()
        for agent in agents:
            if tree.children(agent.pid):
                tree.signal_tree(agent.pid, signal.SIGSTOP)
        self.note(f"paused: {', '.join(a.name for a in agents[:5])}{', ...' if len(agents) > 5 else ''}", kind="paused")
        return [a.name for a in agents]

    def _resume(self, agents: list[Agent], instruction: Any) -> list[str]:
        agents = [a for a in agents if a.pid]
        for agent in agents:
            if instruction is not None:
                self.bus.inject(agent.name, instruction)
        for agent in agents:
            tree.signal_group(agent.pid, signal.SIGCONT)
            if tree.children(agent.pid):
                tree.signal_tree(agent.pid, signal.SIGCONT)
            agent.paused = 0.0
        self._rest(agents, False)
        return [a.name for a in agents]

    def _stop(self, agents: list[Agent], kill: bool) -> list[str]:
        agents = [a for a in agents if a.pid or a.state == "restarting"]
        for agent in agents:
            agent.stopping = True
            if not agent.pid:
                self._set(agent, "done", "stopped")
                self._lost(agent, agent.death or {"agent": agent.name, "why": "stopped", "tail": ""})
            elif kill:
                tree.signal_tree(agent.pid, signal.SIGKILL)
            else:
                self.bus.stop(agent.name)
                if agent.role == PROGRAM:
                    tree.signal_tree(agent.pid, signal.SIGTERM)
                tree.signal_group(agent.pid, signal.SIGCONT)
        return [a.name for a in agents]

    def _grow(self, n: int) -> list[str]:
        """More workers of a flat swarm."""
        if self.plan.topology != "flat" or self.ending:
            return []
        workers = [a for a in self.agents.values() if a.role == WORKER]
        n = min(n, self.settings.most - sum(a.state not in ("failed", "done") for a in workers))
        n = min(n, limits.capacity(self.settings.memory).most)
        new = []
        number = len(workers)
        for _ in range(max(0, n)):
            number += 1
            name = f"worker-{number}"
            self.plan.nodes[name] = Node(name, WORKER, CLIENT)
            self.plan.top.append(name)
            agent = self.agents[name] = Agent(name, WORKER, CLIENT, extra=True)
            self.bus.register(name, type=WORKER)
            self.queue.append(agent)
            new.append(name)
        if new:
            self.bus.send(self.settings.client, {name: self.settings.room for name in new}, type=wire.JOINED,
                          priority="high")  # fmt: skip
        return new

    def _spawn(self, body: bytes) -> str:
        name, team, restart, program = pickle.loads(body)
        there = self.agents.get(name)
        if there is not None and there.state not in ("failed", "done"):
            raise AgentBusy(f"agent {name!r} is in this swarm already, and {there.state}")
        limits.need(1, self.settings.memory)
        agent = self.agents[name] = Agent(name, PROGRAM, CLIENT, team, program, restart)
        self.bus.register(name, type=PROGRAM, team=team)
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
        self.ending, self.times = how, (drain, terminate)
        self.queue.clear()
        living = [a for a in self.agents.values() if a.pid]
        if how == "drain":
            for agent in living:
                if agent.role == WORKER:
                    with suppress(Error):
                        self.bus.send(agent.name, None, type=wire.DRAIN, priority="low", timeout=0)
                        continue
                self._ask_to_end(agent)
            self.after(drain, lambda: self._end("terminate", 0.0, terminate))
            return
        for agent in living:
            self._ask_to_end(agent, signal.SIGTERM if how == "terminate" else signal.SIGKILL)
        if how == "terminate":
            self.after(terminate, lambda: self._end("kill", 0.0, 0.0))

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
        tree.signal_group(agent.pid, signal.SIGCONT)  # one that is paused ends, too


def main() -> None:
    """`python -m cfnshm.swarm.supervisor`: settings on standard input, and on standard output one line when it has
    begun: empty, or why not."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings: Settings = pickle.load(sys.stdin.buffer)
    sys.path[:] = settings.path or sys.path

    def began(why: str) -> None:
        error = {"error": why, "code": "OVER_CAPACITY", "have": 0, "want": len(settings.plan.nodes)}
        said.write(json.dumps(error if why else {}) + "\n")
        said.close()

    try:
        supervisor = Supervisor(settings)
    except Error as error:
        said.write(json.dumps({"error": str(error), "code": error.code, "have": error.have, "want": error.want}) + "\n")
        return
    supervisor.run(began)


if __name__ == "__main__":
    # Under its own name, so that what it pickles and what it is sent mean the same classes.
    from cfnshm.swarm import supervisor as self_

    self_.main()
