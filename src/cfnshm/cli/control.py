"""`cfnshm teams | pause | resume | inject | stop | signal | control | checkpoint | restore`"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import msgspec

from ..bus import Bus
from ..errors import InvalidArgument, Timeout

Verb = Callable[[Bus, argparse.Namespace], int]


def add_verbs(verbs: Any) -> None:
    """Their parsers."""

    def add(name: str, help: str, description: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=description or help)
        parser.add_argument("--bus", default=os.environ.get("CFNSHM_BUS") or "default")
        parser.add_argument("--as", dest="agent", default=os.environ.get("CFNSHM_AGENT"), metavar="AGENT")
        parser.add_argument("--dir", default=None)
        parser.add_argument("--json", action="store_true")
        return parser

    def whom(parser: argparse.ArgumentParser, *more: str) -> None:
        """AGENT and what is said to it; or --team TEAM, and only what is said."""
        parser.add_argument("said", nargs="*", metavar=" ".join(["AGENT", *more]))
        parser.add_argument("--team", default=None, help="all of a team instead of one AGENT")

    add("teams", "the teams of the bus: who is in them, who lives, what waits")
    pause = add("pause", "ask an agent to save its state and wait", "Exit 0: it was told; it waits at its next step.")
    whom(pause)
    pause.add_argument("--reason", default="")
    whom(add("resume", "let a paused agent go on, with an instruction"), "[INSTRUCTION]")
    whom(add("inject", "give an agent an instruction", "A paused agent gets it when it goes on."), "INSTRUCTION")
    stop = add("stop", "ask an agent to end", "Beats a pause, every instruction, and what waits in its inbox.")
    whom(stop)
    stop.add_argument("--reason", default="")
    signal = add("signal", "tell all agents, on their control lanes, and those that asked for it by a real signal")
    signal.add_argument("name", metavar="NAME")
    signal.add_argument("body", nargs="?", metavar="BODY")
    signal.add_argument("--team", default=None)
    control = add(
        "control",
        "what is asked of me: stop, resume, an instruction",
        "Prints the order and takes it; waits while the agent is paused. Exit 3: nothing is asked; 10: still paused.",
    )
    control.add_argument("--timeout", type=float, default=None, metavar="SECONDS", help="of a pause; exit 10")
    save = add(
        "checkpoint",
        "save an agent's state, and print its version",
        "STATE (from standard input if '-' or missing) is kept as text, or as JSON if it is an object or a list.",
    )
    save.add_argument("state", nargs="?", metavar="STATE")
    save.add_argument("--note", default=None)
    save.add_argument("--keep", type=int, default=10, metavar="N", help="how many stay (10)")
    save.add_argument("--sync", action="store_true", help="on disk, too: it survives a reboot")
    save.add_argument("--list", action="store_true", help="what is saved")
    save.add_argument("--swarm", metavar="LABEL", help="a consistent cut through all living agents")
    save.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="of --swarm (60)")
    restore = add(
        "restore", "print the state that was saved", "The newest, or a VERSION. Exit 3: there is none. 8: damaged."
    )
    restore.add_argument("version", nargs="?", type=int, metavar="VERSION")
    restore.add_argument("--cut", metavar="LABEL", help="make a cut the present: states and unread messages")


def run(arguments: argparse.Namespace) -> int:
    """Runs one of them; returns the exit status."""
    verbs: dict[str, Verb] = {
        "teams": _teams, "pause": _pause, "resume": _resume, "inject": _inject, "stop": _stop, "signal": _signal,
        "control": _control, "checkpoint": _checkpoint, "restore": _restore,
    }  # fmt: skip
    create = arguments.verb in ("checkpoint", "restore")  # what they are about may be on disk
    with closing(Bus(arguments.bus, agent=arguments.agent or "", directory=arguments.dir, create=create)) as bus:
        return verbs[arguments.verb](bus, arguments)


def _said(arguments: argparse.Namespace, **said: Any) -> int:
    if arguments.json:
        print(json.dumps(said))
    return 0


def _whom(arguments: argparse.Namespace, most: int) -> tuple[str | None, list[str]]:
    """The agent (None: it is a team) and what is said to it."""
    agent, said = (None, arguments.said) if arguments.team is not None else (arguments.said[:1], arguments.said[1:])
    if agent == [] or len(said) > most:
        text = " ".join(arguments.said)
        raise InvalidArgument(f"one AGENT or --team TEAM belongs here, not {text!r}: cfnshm {arguments.verb} --help")
    return agent[0] if agent else None, said


def _told(arguments: argparse.Namespace, what: str, agents: list[str]) -> int:
    """`what`: the agent; with a team all of its agents, by name."""
    return _said(arguments, **{what: agents if arguments.team is not None else agents[0]})


def _teams(bus: Bus, arguments: argparse.Namespace) -> int:
    teams = bus.teams()
    if arguments.json:
        for team in teams.values():
            print(json.dumps(asdict(team)))
        return 0
    width = max((len(name) for name in teams), default=0)
    for name, team in teams.items():
        dead = f", {team.dead} dead" if team.dead else ""
        n = len(team.agents)
        print(f"{name:{width}}  {n} agent{'' if n == 1 else 's'}, {team.alive} alive{dead}, {team.unread} unread")
    return 0


def _pause(bus: Bus, arguments: argparse.Namespace) -> int:
    agent, _ = _whom(arguments, 0)
    return _told(arguments, "paused", bus.pause(agent, arguments.reason, team=arguments.team))


def _resume(bus: Bus, arguments: argparse.Namespace) -> int:
    agent, said = _whom(arguments, 1)
    return _told(arguments, "resumed", bus.resume(agent, said[0] if said else None, team=arguments.team))


def _inject(bus: Bus, arguments: argparse.Namespace) -> int:
    agent, said = _whom(arguments, 1)
    if not said:
        raise InvalidArgument("an INSTRUCTION is missing: cfnshm inject --help")
    return _told(arguments, "injected", bus.inject(agent, said[0], team=arguments.team))


def _stop(bus: Bus, arguments: argparse.Namespace) -> int:
    agent, _ = _whom(arguments, 0)
    return _told(arguments, "stopping", bus.stop(agent, arguments.reason, team=arguments.team))


def _signal(bus: Bus, arguments: argparse.Namespace) -> int:
    told = bus.signal_all(arguments.name, arguments.body, team=arguments.team)
    if arguments.json:
        return _said(arguments, told=sorted(told.receipts), signalled=told.processes)
    print(len(told.receipts))
    return 0


def _control(bus: Bus, arguments: argparse.Namespace) -> int:
    if not bus.agent:
        raise InvalidArgument("say who you are: --as NAME or CFNSHM_AGENT")
    try:
        order = bus.poll_control(timeout=arguments.timeout)
    except Timeout as error:
        print(json.dumps({"error": str(error), "code": "PAUSED"}) if arguments.json else f"cfnshm control: {error}",
              file=sys.stdout if arguments.json else sys.stderr)  # fmt: skip
        return 10
    if order is None:
        raise Timeout(f"nothing is asked of agent {bus.agent!r}")
    if arguments.json:
        return _said(arguments, order=order.kind, instruction=order.instruction, reason=order.reason, by=order.by)
    instruction = order.instruction if isinstance(order.instruction, str) else json.dumps(order.instruction)
    print(order.kind if order.kind != "instruction" else f"instruction {instruction}")
    return 0


def _state(arguments: argparse.Namespace) -> Any:
    text = sys.stdin.buffer.read() if arguments.state in (None, "-") else os.fsencode(arguments.state)
    if text[:1] in (b"{", b"["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            pass
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def _checkpoint(bus: Bus, arguments: argparse.Namespace) -> int:
    if arguments.list:
        for c in bus.checkpoints():
            if arguments.json:
                print(msgspec.json.encode(c).decode())
            else:
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(c.time))
                parent = f"of {c.parent}" if c.parent else ""
                print(f"{c.version:>6} {parent:8} {when} {c.size:>10} B  {c.note}{'  (on disk)' if c.on_disk else ''}")
        return 0
    if arguments.swarm:
        own = None if arguments.state is None else _state(arguments)
        cut = bus.swarm_checkpoint(arguments.swarm, own, timeout=arguments.timeout, sync=arguments.sync)
        waiting = sum(map(len, cut.messages.values()))
        if arguments.json:
            return _said(arguments, cut=cut.label, agents=cut.agents, messages=waiting)
        print(f"cut '{cut.label}': {len(cut.agents)} agents, {waiting} unread messages")
        return 0
    done = bus.checkpoint(_state(arguments), arguments.note, keep=arguments.keep, sync=arguments.sync)
    if arguments.json:
        return _said(arguments, agent=done.agent, version=done.version, parent=done.parent, bytes=done.size)
    print(done.version)
    return 0


def _restore(bus: Bus, arguments: argparse.Namespace) -> int:
    if arguments.cut:
        if arguments.version is not None:
            raise InvalidArgument("a version or a cut, not both")
        cut = bus.restore_cut(arguments.cut)
        return _said(arguments, cut=cut.label, agents=cut.agents, messages=sum(map(len, cut.messages.values())))
    state = bus.restore(arguments.version)
    if arguments.json:
        value = {"base64": base64.b64encode(state).decode()} if isinstance(state, bytes) else state
        return _said(arguments, agent=bus.agent, state=value)
    if isinstance(state, bytes):
        sys.stdout.buffer.write(state)
        return 0
    print(state if isinstance(state, str) else msgspec.json.encode(state).decode())
    return 0
