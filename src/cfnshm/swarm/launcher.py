"""Starting agents: the fork, what the new process is, and who reads what it writes."""

from __future__ import annotations

import json
import os
import pickle
import selectors
import signal
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..bus import Bus
from ..errors import Error
from . import output, tree
from . import task as wire
from .cgroup import Group
from .clock import Clock
from .command import Command
from .coordinator import Coordinator, serve
from .place import Place, enter
from .plan import CLIENT, COORDINATOR, WORKER
from .settings import ENDED, HERE, NAME, PROGRAM, Agent, Settings
from .worker import Worker, report

_BATCH = 50  # processes started between two looks at what has come: two pipes each, of 253 that one message takes
_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_PATIENCE = 10.0  # seconds for who writes the logs to say something: without it agents go on


def _two_pipes() -> list[tuple[int, int]]:
    first = os.pipe2(os.O_CLOEXEC)
    try:
        return [first, os.pipe2(os.O_CLOEXEC)]
    except OSError:
        _close([first])
        raise


def _close(pipes: list[tuple[int, int]]) -> None:
    for pair in pipes:
        for fd in pair:
            os.close(fd)


class Launcher(ABC):
    """The part of a supervisor that starts processes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.plan = settings.plan
        self.clock = Clock()
        self.selector = selectors.DefaultSelector()
        self.agents: dict[str, Agent] = {}
        self.by_fd: dict[int, Agent] = {}
        self.queue: deque[Agent] = deque()  # to be started
        self.coming: set[str] = set()  # forked, and not on the bus yet
        self.events: deque[dict[str, Any]] = deque(maxlen=1000)
        self.ending = ""  # "", "drain", "terminate", "kill"
        self.group: Group | None = None  # the cgroup that all agents are in
        self.bus: Bus
        self.log: output.Log

    def note(self, text: str, agent: str = "", kind: str = "") -> None:
        """Into the supervisor's own log, and the list of events."""
        self.events.append({"at": time.time(), "kind": kind, "agent": agent, "text": text})
        with suppress(OSError):
            self.log.write("out", text.encode() + b"\n")

    def _set(self, agent: Agent, state: str, why: str) -> None:
        agent.state, agent.why, agent.since = state, why, time.time()
        if state in ("failed", "done"):
            self._answer_ends()

    def _start_writer(self) -> None:
        """The process that writes the logs; again, if it was killed: the pipes are here, too, and wait for it."""
        s = self.settings
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        myself = os.pidfd_open(os.getpid())  # made here: it is to see also an end before it has begun
        self.writer = self._fork_quietly()
        if self.writer == 0:
            status = 1
            try:
                os.setpgid(0, 0)
                self._begin_anew([theirs.fileno(), myself])
                output.Writer(theirs, myself, Path(s.logs), s.swarm_id, s.log_bytes, self.group).run()
                status = 0
            except BaseException:
                report("the writer of logs")
            finally:
                os._exit(status)
        theirs.close()
        os.close(myself)
        self.control.settimeout(_PATIENCE)
        self.writer_fd = os.pidfd_open(self.writer)
        self.selector.register(self.writer_fd, selectors.EVENT_READ, self._writer_ended)
        have = [agent for agent in self.agents.values() if agent.pipes]
        for i in range(0, len(have), _BATCH):
            self._hand_over(have[i : i + _BATCH])

    @staticmethod
    def _fork_quietly() -> int:
        """A fork in which no signal is answered by the child as if it were the supervisor: it has the same handlers,
        and writes into the same pipe, until it has begun anew."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        pid = -1
        try:
            pid = os.fork()
            return pid
        finally:
            if pid != 0:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)

    def _writer_ended(self, fd: int) -> None:
        self.selector.unregister(fd)
        os.close(fd)
        self.control.close()
        os.waitpid(self.writer, 0)
        self._start_writer()
        self.note("who writes the logs had died, and was started again", kind="died")

    def _hand_over(self, agents: list[Agent]) -> None:
        """Agents' pipes to who writes the logs: many at once, for each time it wakes up it is in the way."""
        said = json.dumps({"do": "add", "agents": [[agent.name, agent.pid] for agent in agents]}).encode()
        with suppress(OSError):  # its successor gets them
            socket.send_fds(self.control, [said], [pipe for agent in agents for pipe in agent.pipes])

    def _tail(self, agent: Agent, lines: int) -> list[str]:
        """The last lines of its log, after all that it wrote has been read."""
        try:
            self.control.send(json.dumps({"do": "ended", "agent": agent.name, "lines": lines}).encode())
            said: list[str] = json.loads(self.control.recv(1 << 20) or b"[]") if lines else []
            return said
        except OSError:  # who writes the logs was killed, or is stopped: agents go on
            with suppress(OSError):  # a late answer would be taken for the next one: another takes over
                os.kill(self.writer, signal.SIGKILL)
            return []

    def _start_some(self) -> None:
        """The next ones in the queue. All of a batch are forked in a row, with nothing between two forks: each fork
        shares every page again, so what this process writes between two of them is copied once for each."""
        agents: list[Agent] = []
        while self.queue and len(agents) < _BATCH:
            agent = self.queue.popleft()
            if not (self.ending or agent.stopping):
                agents.append(agent)
        if not agents:
            return
        pipes: list[list[tuple[int, int]]] = []
        refused: OSError | None = None
        try:
            for _ in agents:
                pipes.append(_two_pipes())
        except OSError as error:
            refused = error
        if pipes and refused is not None:  # too many files are open: as many as there is room for, then again
            self.queue.extendleft(reversed(agents[len(pipes) :]))
            agents, refused = agents[: len(pipes)], None
        pids: list[int] = []
        inside = False
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        try:
            inside = self._enter_group()
            for agent, pair in zip(agents, pipes, strict=True):
                pid = os.fork()
                if pid == 0:
                    self._child(agent, parent, [write for _, write in pair])
                pids.append(pid)
        except OSError as error:
            refused = error
        finally:
            if inside and self.group is not None:
                self.group.leave()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        failed: list[tuple[Agent, OSError]] = []
        started: list[Agent] = []
        for agent, pid, ends in zip(agents, pids, pipes, strict=False):
            if (why := self._forked(agent, pid, ends)) is None:
                started.append(agent)
            else:
                failed.append((agent, why))
        if started:
            self._hand_over(started)
        for ends in pipes[len(pids) :]:
            _close(ends)
        if refused is not None:
            failed += [(agent, refused) for agent in agents[len(pids) :]]
        for agent, why in failed:  # after all are known: it may end everybody
            self._cannot(agent, why)

    def _enter_group(self) -> bool:
        """The swarm's cgroup, if it has one; anew, if somebody took it away."""
        if self.group is None or self.group.enter():
            return self.group is not None
        if self.group.path.exists():  # these stay outside, and are found by their process groups
            self.note("the swarm's cgroup cannot be entered now (too many open files?)", kind="error")
            return False
        self.note("the swarm's cgroup was taken away; another one is made", kind="error")
        self.group = Group.make(self.settings.swarm_id)
        return self.group is not None and self.group.enter()

    def _forked(self, agent: Agent, pid: int, pipes: list[tuple[int, int]]) -> OSError | None:
        """In the supervisor: what it must know of a new process. Why it cannot be watched, and was killed; or None."""
        with suppress(OSError):
            os.setpgid(pid, pid)  # both do it: whoever comes first
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # it cannot be watched
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _close(pipes)
            return error
        if agent.paused:
            tree.signal_group(pid, signal.SIGSTOP)
        agent.pid, agent.pidfd, agent.here = pid, pidfd, False
        agent.began.append(self.clock.now)
        if not isinstance(agent.program, Command):  # that need never come
            self.coming.add(agent.name)
        self._set(agent, "starting", "")
        self.by_fd[pidfd] = agent
        self.selector.register(pidfd, selectors.EVENT_READ)
        for _, write in pipes:
            os.close(write)
        agent.pipes = [read for read, _ in pipes]
        return None

    @abstractmethod
    def _cannot(self, agent: Agent, error: OSError) -> None:
        """It could not be forked."""

    @abstractmethod
    def _answer_ends(self) -> None:
        """Somebody may have waited for the end of an agent."""

    @abstractmethod
    def _answer_ready(self) -> None:
        """Somebody may have waited for all to have come."""

    def _child(self, agent: Agent, parent: int, pipes: list[int]) -> None:
        """The forked process; never returns."""
        status = 1
        try:
            os.setpgid(0, 0)
            tree.die_with_parent(parent)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(pipes[0], 1)
            os.dup2(pipes[1], 2)
            self._begin_anew([])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
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
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ignored by Python, and programs expect that it ends them
            os.environ.update(command.env)
            if command.cwd:
                os.chdir(command.cwd)
            try:
                os.execvp(command.args[0], list(command.args))
            except OSError as error:
                print(f"{agent.name}: cannot run {command.args[0]!r}: {error.strerror}", file=sys.stderr)
                return 127
        bus = Bus(s.bus, agent=agent.name, create=False, directory=s.directory)
        node = self.plan.nodes.get(agent.name)
        place = Place(bus, agent.name, agent.role, agent.team, agent.parent)
        if node is not None:
            place.children, place.depth, place._plan = node.children, node.depth, self.plan
        enter(place)
        if agent.role == COORDINATOR:
            first = self._coordinator(bus, agent.name)
            unread = first.recover()
            bus.send(NAME, None, type=HERE, priority="high")
            serve(first, unread, self._adopt)
        else:
            bus.send(NAME, None, type=HERE, priority="high")
        if agent.role == WORKER:
            Worker(place, agent.death, s.idle if agent.extra else None).run()
        elif agent.role == PROGRAM:
            function, arguments = pickle.loads(agent.program)
            function(*arguments)
        with suppress(Error):
            bus.set_status(ENDED)
        bus.close()
        return 0

    def _coordinator(self, bus: Bus, name: str) -> Coordinator:
        gone, resting = self._gone(), self._resting()
        children = {child: self.room_of(child) for child in self.plan.nodes[name].children if child not in gone}
        bus.state.incr(wire.LIFE + name)  # who waits for a successor need not wait any longer
        coordinator = Coordinator(bus, self._agent_above(name), children, self.settings.max_deaths)
        for child in resting:
            coordinator.dealer.rest(child, True)
        return coordinator

    def _adopt(self, wish: dict[str, Any]) -> tuple[Coordinator, list[Any]]:
        """In a coordinator's process: another one's name is served here, too. What the supervisor knew of the others
        when this process was forked may be old; the wish has it as it is."""
        for agent in self.agents.values():
            agent.paused = float(agent.name in wish["resting"])
            if agent.name in wish["gone"]:
                agent.state = "failed"
        bus = Bus(self.settings.bus, agent=wish["agent"], create=False, directory=self.settings.directory)
        other = self._coordinator(bus, wish["agent"])
        return other, other.recover()

    def _gone(self) -> set[str]:
        """Members that do not come again."""
        return {a.name for a in self.agents.values() if a.name in self.plan.nodes and a.role == WORKER
                and a.state in ("failed", "done")}  # fmt: skip

    def _resting(self) -> set[str]:
        return {a.name for a in self.agents.values() if a.name in self.plan.nodes and a.paused}

    def _agent_above(self, name: str) -> str:
        parent = self.plan.nodes[name].parent if name in self.plan.nodes else CLIENT
        return self.settings.client if parent == CLIENT else parent

    def room_of(self, name: str) -> int:
        """How many tasks it may have at a time."""
        node = self.plan.nodes[name]
        return self.settings.room * node.leaves + (0 if node.role == WORKER else max(1, node.leaves // 4))

    # -- ends --
