"""`cfnshm swarm`: run commands as a swarm, and direct one that runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import threading
import time
from contextlib import closing
from typing import Any, TextIO

from ..bus import Bus
from ..errors import InvalidArgument
from ..swarm import AgentStatus, Command, CommandFailed, CommandResult, Operator, Outcome, Restart, Swarm
from ..swarm.output import follow, tail
from ..swarm.plan import TOPOLOGIES
from ..swarm.settings import NAME
from ..swarm.status import health

_BAR = 30


def add_verbs(parser: Any) -> None:
    """The parsers of the verbs under `swarm`."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="VERB")

    def add(name: str, help: str, description: str = "") -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = verbs.add_parser(
            name, help=help, description=description or help, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        one.add_argument("--bus", default=os.environ.get("CFNSHM_BUS") or "default")
        one.add_argument("--dir", default=None)
        one.add_argument("--json", action="store_true")
        return one

    run = add(
        "run", "run a command as a swarm",
        "With --tasks: each line of FILE ('-': standard input) is a task for one of N workers, who runs COMMAND with\n"
        "it: '{}' in an argument stands for the task; without one the task is the command's standard input. What\n"
        "commands print is printed as they end.\n\n"
        "Without --tasks: N agents run COMMAND, each once ('{}' is its number), until all have ended; --restart says\n"
        "when one is started again. What they print is printed as it comes.\n\n"
        "A command finds CFNSHM_BUS and CFNSHM_AGENT in its environment, so that `cfnshm send` and the others work in\n"
        "it; in a shell's -c, take a task that anybody else wrote from standard input, not from '{}'. All of it ends\n"
        "with this command. Exit status: 0 all went well, 1 some failed, 3 timed out, 10 the bus has a swarm already,\n"
        "11 too many for the machine, 130 interrupted.",
    )  # fmt: skip
    run.add_argument("--agents", type=int, default=os.cpu_count() or 1, metavar="N",
                     help=f"workers, or agents ({os.cpu_count() or 1})")  # fmt: skip
    run.add_argument("--tasks", metavar="FILE", help="a task a line")
    run.add_argument("--topology", choices=TOPOLOGIES, default="auto")
    run.add_argument("--coordinators", type=int, default=None, metavar="N")
    run.add_argument("--depth", type=int, default=None, metavar="N", help="of a tree")
    run.add_argument("--timeout", type=float, default=None, metavar="SECONDS", help="for all; what came is printed")
    run.add_argument("--task-timeout", type=float, default=None, metavar="SECONDS", help="for each command")
    run.add_argument("--restart", choices=("never", "on-failure", "always"), default=None)
    run.add_argument("--memory", default="8M", metavar="BYTES", help="of one agent (8M), to refuse what does not fit")
    run.add_argument("--logs", default=None, metavar="DIR")
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    status = add("status", "what each agent is doing, since when, and why")
    status.add_argument("targets", nargs="*", metavar="AGENT|TEAM")
    add("health", "healthy (exit 0), degraded (1) or unhealthy (2), and why")
    logs = add(
        "logs", "what agents wrote",
        "With names: their last lines; without: those of all. -f: and what comes, until the swarm has ended.",
    )  # fmt: skip
    logs.add_argument("targets", nargs="*", metavar="AGENT")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.add_argument("-n", "--lines", type=int, default=20, metavar="N")
    add("events", "what happened: starts, deaths, failovers, pauses")
    add("aside", "messages that were set aside, since several processes of a program died with them")
    pause = add("pause", "stop process groups (SIGSTOP)", "Agents or teams; none: all. What they hold they keep.")
    pause.add_argument("targets", nargs="*", metavar="AGENT|TEAM")
    resume = add("resume", "let them go on (SIGCONT)")
    resume.add_argument("targets", nargs="*", metavar="AGENT|TEAM")
    resume.add_argument("--instruction", default=None, metavar="TEXT", help="which they get when they go on")
    stop = add("stop", "end agents for good", "After what they are at; their other tasks go to others.")
    stop.add_argument("targets", nargs="+", metavar="AGENT|TEAM")
    stop.add_argument("--kill", action="store_true", help="at once, with all that they started")


def run(arguments: argparse.Namespace) -> int:
    """Runs one of them; returns the exit status."""
    if arguments.what == "run":
        return _run(arguments)
    with closing(Bus(arguments.bus, agent="", directory=arguments.dir, create=False)) as bus:
        return int(_VERBS[arguments.what](Operator(bus), arguments))


# ---- directing ----


def _names(arguments: argparse.Namespace, key: str, names: list[str]) -> int:
    print(json.dumps({key: names}) if arguments.json else "\n".join(names))
    return 0


def _status(swarm: Operator, arguments: argparse.Namespace) -> int:
    said = swarm.overview(*arguments.targets)
    agents: list[AgentStatus] = said["agents"]
    if arguments.json:
        for one in agents:
            print(json.dumps(dataclasses.asdict(one)))
        return 0
    found = health(agents)
    counts = ", ".join(f"{n} {state}" for state, n in sorted(found.counts.items()))
    print(f"{swarm.bus.name}: {len(agents)} agents, {said['topology']}, {found.state}: {counts}")
    wide = max([len(a.agent) for a in agents], default=5)
    room = max(20, shutil.get_terminal_size((120, 24)).columns - wide - 46)
    print(f"{'AGENT':{wide}}  {'STATE':10} {'SINCE':>8} {'PID':>8} {'UNREAD':>6} {'CPU':>7}  WHY")
    for a in agents:
        since = _span(max(0.0, time.time() - a.since)) if a.since else ""
        why = a.why + (f" (restarted {a.restarts} times)" if a.restarts else "")
        what = f"{a.agent:{wide}}  {a.state:10} {since:>8} {a.pid or '':>8} {a.unread:>6} {a.cpu:>6.1f}s  {why[:room]}"
        print(what.rstrip())
    return 0


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}min" if seconds < 6000 else f"{seconds / 3600:.1f}h"


def _health(swarm: Operator, arguments: argparse.Namespace) -> int:
    found = swarm.health()
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found)))
    else:
        print("\n".join([found.state, *found.findings]))
    return ("healthy", "degraded", "unhealthy").index(found.state)


def _aside(swarm: Operator, arguments: argparse.Namespace) -> int:
    for one in swarm.set_aside():
        if arguments.json:
            print(json.dumps(dataclasses.asdict(one)))
            continue
        print(f"{one.id}  {one.sender} -> {one.agent}  {one.type}  {len(one.deaths)} died; cfnshm get {one.body}")
        for death in one.deaths:
            print(f"  {death['why']}")
            for line in death["tail"].splitlines()[-3:]:
                print(f"    | {line}")
    return 0


def _logs(swarm: Operator, arguments: argparse.Namespace) -> int:
    names = arguments.targets
    folder = swarm.log_of(NAME).parent
    for name in names:
        if name != NAME:
            swarm.status(name)  # an unknown name is an error, not an empty log
    if arguments.follow:
        supervisor = os.pidfd_open(swarm.bus.agent_info(NAME).owner_pid)
        for line in follow(folder, names or None, last=arguments.lines, until=supervisor):
            print(line, flush=True)
        return 0
    paths = [folder / f"{name}.log" for name in names] if names else sorted(folder.glob("*.log"))
    for path in paths:
        for line in tail(path, arguments.lines):
            print(line)
    return 0


def _events(swarm: Operator, arguments: argparse.Namespace) -> int:
    for event in swarm.events():
        if arguments.json:
            print(json.dumps(event))
        else:
            print(f"{time.strftime('%H:%M:%S', time.localtime(event['at']))} {event['text']}")
    return 0


_VERBS: dict[str, Any] = {
    "status": _status,
    "health": _health,
    "logs": _logs,
    "aside": _aside,
    "events": _events,
    "pause": lambda swarm, a: _names(a, "paused", swarm.pause(*a.targets)),
    "resume": lambda swarm, a: _names(a, "resumed", swarm.resume(*a.targets, instruction=a.instruction)),
    "stop": lambda swarm, a: _names(a, "stopping", swarm.stop(*a.targets, kill=a.kill)),
}


# ---- running ----


class Progress:
    """A line on a terminal that is written anew; nothing if it is none."""

    def __init__(self, quiet: bool, file: TextIO = sys.stderr) -> None:
        self.file = file
        self.on = not quiet and file.isatty()
        self.began = self.last = time.monotonic()

    def show(self, done: int, of: int, failed: int) -> None:
        now = time.monotonic()
        if not self.on or (now - self.last < 0.1 and done < of):
            return
        self.last = now
        full = _BAR * done // max(1, of)
        rate = done / max(1e-9, now - self.began)
        left = f", {_span((of - done) / rate)} left" if rate and done < of else ""
        bad = f", {failed} failed" if failed else ""
        bar = "#" * full + "." * (_BAR - full)
        print(f"\r\x1b[K[{bar}] {done}/{of} {100 * done // max(1, of)} % {_span(now - self.began)}{left}{bad}", end="",
              file=self.file, flush=True)  # fmt: skip

    def clear(self) -> None:
        """Before something else is written."""
        if self.on:
            print("\r\x1b[K", end="", file=self.file, flush=True)


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise InvalidArgument("say what is to be run: cfnshm swarm run --agents N -- COMMAND")
    if arguments.agents < 1:
        raise InvalidArgument(f"a swarm has a number of agents from 1 up, not {arguments.agents}")
    if arguments.tasks is None:
        if arguments.topology != "auto" or arguments.coordinators or arguments.depth or arguments.task_timeout:
            raise InvalidArgument("topologies, coordinators and --task-timeout are for --tasks")
        return _programs(arguments, command)
    if arguments.tasks == "-":
        tasks = sys.stdin.read().splitlines()
    else:
        with open(arguments.tasks) as file:
            tasks = file.read().splitlines()
    return _tasks(arguments, command, tasks)


def _tasks(arguments: argparse.Namespace, command: list[str], tasks: list[str]) -> int:
    progress = Progress(arguments.quiet)
    failed = 0

    def came(done: int, of: int, outcome: Outcome) -> None:
        nonlocal failed
        failed += outcome.error is not None
        progress.clear()
        _print_outcome(arguments, outcome)
        progress.show(done, of, failed)

    with Swarm(
        arguments.agents, Command(command, timeout=arguments.task_timeout), topology=arguments.topology,
        coordinators=arguments.coordinators, depth=arguments.depth, name=arguments.bus, memory=arguments.memory,
        restart=arguments.restart or "on-failure", logs=arguments.logs, directory=arguments.dir,
    ) as swarm:  # fmt: skip
        progress.show(0, len(tasks), 0)
        results = swarm.run(tasks, timeout=arguments.timeout, on_progress=came)
        progress.clear()
        if results.missing:
            print(f"cfnshm swarm: {results.why_missing()}", file=sys.stderr)
            swarm.shutdown(wait=False, drain=0, terminate=1.0)
    return 3 if results.missing else 1 if results.errors else 0


def _print_outcome(arguments: argparse.Namespace, outcome: Outcome) -> None:
    error = outcome.error
    cause = error.__cause__ if error is not None else None
    result = outcome.value if outcome.done else cause.result if isinstance(cause, CommandFailed) else None
    if arguments.json:
        said: dict[str, Any] = {"task": outcome.task, "agent": outcome.agent, "seconds": round(outcome.seconds, 6)}
        if isinstance(result, CommandResult):
            said.update(exit=result.exit, stdout=result.text, stderr=result.stderr.decode(errors="replace"))
        if error is not None:
            said["error"] = str(cause if isinstance(cause, CommandFailed | TimeoutError) else error)
        print(json.dumps(said), flush=True)
        return
    if isinstance(result, CommandResult):
        sys.stdout.buffer.write(result.stdout)
        sys.stdout.buffer.flush()
        sys.stderr.buffer.write(result.stderr if error is None else b"")
        sys.stderr.buffer.flush()
    if error is not None:
        text = str(cause) if isinstance(cause, CommandFailed | TimeoutError | OSError) else str(error)
        print(f"cfnshm swarm: task {outcome.task!r}, {outcome.agent}: {text}", file=sys.stderr, flush=True)


def _programs(arguments: argparse.Namespace, command: list[str]) -> int:
    names = [f"agent-{i + 1}" for i in range(arguments.agents)]
    restart = Restart(arguments.restart or "never")
    with Swarm(0, name=arguments.bus, memory=arguments.memory, logs=arguments.logs, directory=arguments.dir,
               agents=len(names) + 64) as swarm:  # fmt: skip
        swarm.logs.mkdir(parents=True, exist_ok=True)
        read, write = os.pipe()
        stream = threading.Thread(target=_stream, args=(swarm, names, read), daemon=True)
        if not arguments.json and not arguments.quiet:
            stream.start()
        for i, name in enumerate(names):
            args = [a.replace("{}", str(i + 1)) for a in command]
            swarm.spawn(args, agent=name, restart=restart)
        ended = swarm.wait_for_ends(*names, timeout=arguments.timeout)
        os.close(write)
        if stream.ident is not None:
            stream.join()
        os.close(read)
        if arguments.json:
            for one in ended:
                print(json.dumps(dataclasses.asdict(one)))
        left = [a for a in ended if a.state not in ("done", "failed")]
        failed = [a for a in ended if a.state == "failed"]
        for a in failed:
            print(f"cfnshm swarm: {a.agent} {a.why}", file=sys.stderr)
        if left:
            print(f"cfnshm swarm: {len(left)} of {len(ended)} agents still run after {arguments.timeout} s: "
                  f"{', '.join(a.agent for a in left[:10])}", file=sys.stderr)  # fmt: skip
            swarm.shutdown(wait=False, drain=0, terminate=5.0)
    return 3 if left else 1 if failed else 0


def _stream(swarm: Swarm, names: list[str], until: int) -> None:
    for line in follow(swarm.logs, names, until=until):
        print(line, flush=True)
