"""Cooperative control: pause, resume, inject, stop, and signals to many.

    bus.pause("coder-1", reason="rate limit")           # whoever directs
    bus.resume("coder-1", instruction="skip the tests")

    order = bus.poll_control(checkpoint=lambda: state)   # the agent, between two steps
    if order and order.kind == "stop": ...

What is asked of an agent stands in a flag, the value `cfnshm/control/AGENT`, until it has obeyed: an order is not
lost when the agent is busy, dead or not started yet. Beside that a control message of the same type tells who waits
in `recv`; it beats everything else in the inbox. The message says that something is asked, and stays in the inbox until
it is received, also if the order was obeyed meanwhile: whoever receives one calls `poll_control`, which knows.
"""

from __future__ import annotations

import os
import signal as signals
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ._core import c_text, check, deadline_of, ffi, lib
from .checkpoint import Checkpoints
from .errors import Conflict, Full, InvalidArgument, Timeout, UnknownAgent, UnknownKey
from .profile import TEXTS
from .receipt import Receipt

FLAG = "cfnshm/control/"
_FOREVER = float("inf")
_TOLD = 8  # control messages that wait for an agent when no more are sent for orders


@dataclass(frozen=True)
class Order:
    """What an agent was asked to do.

    Attributes:
        kind: "stop", "pause" (only as `bus.control` shows it), "resume" (after a pause), or "instruction".
        instruction: of an instruction: what was said.
        reason, by: why, and which agent asked ("" if it has no name).
        at: seconds since 1970.
    """

    kind: str
    instruction: Any = None
    reason: str = ""
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Signalled:
    """Whom a signal has reached: receipts by agent of the control messages, and the processes that got a real one."""

    receipts: Mapping[str, Receipt]
    processes: dict[str, int] = field(default_factory=dict)


class Control(Checkpoints):
    """The part of a `Bus` that directs agents, and obeys."""

    def _order(
        self, agent: str | None, team: str | None, kind: str, change: Callable[[str, dict[str, Any]], None],
        body: dict[str, Any],
    ) -> list[str]:  # fmt: skip
        """Asks it of an agent, or of all of a team; returns of whom."""
        if (agent is None) == (team is None):
            what = "an agent or team=, not both" if team is not None else "an agent, or team="
            raise InvalidArgument(f"say who is meant by {kind!r}: {what}")
        # As with broadcast, whoever asks is not among them.
        names = [agent] if agent is not None else [i.name for i in self.agents(team=team) if i.name != self.agent]
        if not names:
            raise UnknownAgent(f"no team {team!r} on bus {self.name!r}; there are: {', '.join(self.teams()) or 'none'}")
        asked = []
        for name in names:
            try:
                self._ask_of(name, kind, change, body)
            except UnknownAgent:
                if team is None:
                    raise
                continue  # it has gone meanwhile
            asked.append(name)
        return asked

    def _ask_of(
        self, agent: str, kind: str, change_flag: Callable[[str, dict[str, Any]], None], body: dict[str, Any]
    ) -> None:
        if not self.is_registered(agent):
            raise UnknownAgent(f"no agent {agent!r} on bus {self.name!r}: nobody would obey")

        def changed(flag: dict[str, Any] | None) -> dict[str, Any]:
            flag = flag or {"state": "running", "instructions": []}
            change_flag(agent, flag)
            return flag

        self.state.update(FLAG + agent, changed)
        if self.agent_info(agent).depth["control"] >= _TOLD:
            return  # one that only polls reads none of them: they must not fill the lane
        with suppress(Full):  # the flag is what counts
            self.send(agent, {**body, "by": self.agent}, type=kind, priority="control", timeout=0)

    def _said(self, reason: str) -> dict[str, Any]:
        if not isinstance(reason, str):
            raise InvalidArgument(f"a reason is a text, not {reason!r}")
        return {"reason": reason, "by": self.agent, "at": time.time()}

    def pause(self, agent: str | None = None, reason: str = "", *, team: str | None = None) -> list[str]:
        """Asks an agent, or all of a team, to save their state and wait, at their next `poll_control`. One that was
        told to stop stops. Returns who was asked, as do `resume`, `inject` and `stop`.

        Raises:
            UnknownAgent: it is not registered, or the team has no agents.
        """
        said = self._said(reason)

        def change(name: str, flag: dict[str, Any]) -> None:
            if flag["state"] != "stopping":
                flag.update(said, state="paused")

        return self._order(agent, team, "pause", change, {"reason": reason})

    def resume(self, agent: str | None = None, instruction: Any = None, *, team: str | None = None) -> list[str]:
        """Lets a paused agent, or a team, go on, with an instruction if there is one: anything that JSON can hold.

        Raises:
            UnknownAgent.
        """
        said = self._said("")

        def change(name: str, flag: dict[str, Any]) -> None:
            if flag["state"] != "stopping":
                flag.update(said, state="running")
            if instruction is not None:
                flag["instructions"].append({"instruction": instruction, "by": self.agent, "at": said["at"]})

        return self._order(agent, team, "resume", change, {"instruction": instruction})

    def inject(self, agent: str | None = None, instruction: Any = None, *, team: str | None = None) -> list[str]:
        """Gives an agent, or all of a team, an instruction; a paused one stays paused and gets it when it goes on.

        Raises:
            UnknownAgent.
            InvalidArgument: `instruction` is None.
        """
        if instruction is None:
            raise InvalidArgument("an instruction is something, not None; with team= it is instruction=...")

        def change(name: str, flag: dict[str, Any]) -> None:
            flag["instructions"].append({"instruction": instruction, "by": self.agent, "at": time.time()})

        return self._order(agent, team, "instruction", change, {"instruction": instruction})

    def stop(self, agent: str | None = None, reason: str = "", *, team: str | None = None) -> list[str]:
        """Asks an agent, or all of a team, to end. It beats a pause and every instruction. The process that owns the
        name now is meant, and no later one; if none does, the next that asks (`poll_control`, `cfnshm control`).

        Raises:
            UnknownAgent.
        """
        said = self._said(reason)

        def change(name: str, flag: dict[str, Any]) -> None:
            info = self.agent_info(name)
            flag.update(said, state="stopping", incarnation=info.incarnation if info.life == "alive" else None)

        return self._order(agent, team, "stop", change, {"reason": reason})

    def control(self, agent: str | None = None) -> Order | None:
        """What is asked of an agent (default: this one) and not done yet; None: nothing."""
        flag = self.state.get(FLAG + (agent or self._me()))
        if not flag:
            return None
        if flag["state"] == "running":
            waiting = flag["instructions"]
            return Order("instruction", **{"reason": "", **waiting[0]}) if waiting else None
        kind = "stop" if flag["state"] == "stopping" else "pause"
        if kind == "stop" and flag.get("incarnation") is not None:
            info = self.agent_info(agent)
            if info.life != "alive" or info.incarnation != flag["incarnation"]:
                return None  # it has ended
        return Order(kind, None, flag.get("reason", ""), flag.get("by", ""), flag.get("at", 0.0))

    def _me(self) -> str:
        if not self.agent:
            raise InvalidArgument("this handle acts as no agent: Bus(name, agent=...)")
        return self.agent

    def poll_control(
        self, checkpoint: Callable[[], Any] | None = None, timeout: float | None = None
    ) -> Order | None:
        """Obeys what is asked of this agent. Call it between two steps of the work: while nothing is asked it reads one
        value and returns None.

        When a pause is asked, `checkpoint` is called, and what it returns (unless None) is saved with
        `bus.checkpoint`; the status says so; and it waits until it may go on.

        Args:
            checkpoint: gives the state that is to be saved.
            timeout: of the wait, in seconds.

        Returns:
            None: nothing was asked. Else an `Order`: "stop", which comes first; "instruction", one at a time; "resume"
            after a pause without an instruction.

        Raises:
            Timeout: still paused after `timeout` seconds.
            InvalidArgument: this handle acts as no agent.
        """
        key = FLAG + self._me()
        ends = _FOREVER if timeout is None else time.monotonic() + timeout
        deadline_of(timeout)
        paused, status = False, ""
        try:
            while True:
                found = self.state.lookup(key)
                flag = found.value
                if not found.version:
                    return Order("resume") if paused else None
                if flag["state"] == "paused":
                    if not paused:
                        paused, status = True, self.agent_info().status
                        self._rest(checkpoint, flag)
                    left = None if ends == _FOREVER else max(0.0, ends - time.monotonic())
                    self.state.wait(key, found.version, left)
                    continue
                if (order := self._take_order(key, found, paused)) is not None or not found.version:
                    return order
                if not flag["instructions"]:
                    return Order("resume", None, "", flag.get("by", ""), flag.get("at", 0.0)) if paused else None
        except Timeout:
            raise Timeout(f"agent {self.agent!r} is still paused after {timeout} s") from None
        finally:
            if paused:
                self.set_status(status)

    def _rest(self, checkpoint: Callable[[], Any] | None, flag: dict[str, Any]) -> None:
        """Saves the state and says that it waits."""
        saved = checkpoint() if checkpoint else None
        if saved is not None:
            self.checkpoint(saved, f"paused: {flag.get('reason', '')}".rstrip(": "))
        self.set_status(f"paused: {flag.get('reason', '')}".rstrip(": ")[:200])

    def _take_order(self, key: str, found: Any, paused: bool) -> Order | None:
        """The first order of a flag that does not ask for a pause, and is taken out of it; None: look again, or there
        is none."""
        flag = found.value
        with suppress(UnknownKey):
            if flag["state"] == "stopping":
                meant = flag.get("incarnation")
                if meant is None and not self._swapped(key, self._without_stop(flag), found.version):
                    return None
                # A handle that acts beside the owner is of the owner's life.
                if meant is None or meant == (self.incarnation if self.is_owner else self.agent_info().incarnation):
                    return Order("stop", None, flag.get("reason", ""), flag.get("by", ""), flag.get("at", 0.0))
            if not flag["instructions"]:  # nothing is asked any more, or it was asked of one before us
                if self._swapped(key, None, found.version):
                    return Order("resume", None, "", flag.get("by", ""), flag.get("at", 0.0)) if paused else None
                return None
            first, *rest = flag["instructions"]
            after = {**flag, "state": "running", "instructions": rest} if rest else None
            if self._swapped(key, after, found.version):
                return Order("instruction", first["instruction"], "", first.get("by", ""), first.get("at", 0.0))
        return None

    @staticmethod
    def _without_stop(flag: dict[str, Any]) -> dict[str, Any] | None:
        return {"state": "running", "instructions": flag["instructions"]} if flag["instructions"] else None

    def _swapped(self, key: str, value: Any, version: int) -> bool:
        try:
            if value is None:
                self.state.delete(key, version=version)
            else:
                self.state.set(key, value, version=version)
            return True
        except (Conflict, UnknownKey):
            return False

    # -- signals ---------------------------------------------------------------------------------

    def accept_signal(self, name: str, signum: int | signals.Signals) -> None:
        """This agent's process wants a real signal when `signal_all(name)` is called, beside the control message: it
        stands in its tags. A process that leads its group has the whole group signalled.

        Raises:
            InvalidArgument: `name` is no word, or there is no such signal.
        """
        if not isinstance(name, str) or not name or any(c.isspace() or c == "=" for c in name):
            raise InvalidArgument(f"the name of a signal is one word, not {name!r}")
        try:
            number = signals.Signals(signum)
        except ValueError:
            raise InvalidArgument(f"there is no signal {signum!r}") from None
        tags = [tag for tag in self.agent_info(self._me()).tags if not tag.startswith(f"signal:{name}=")]
        said = ffi.new("cfn_profile_t *")
        keep = c_text(" ".join([*tags, f"signal:{name}={number.name}"]), "the tags")
        said.text[TEXTS.index("tags")] = keep
        check(lib.cfn_bus_set_profile(self._handle, c_text(self.agent, "the agent's name"), said))

    def signal_all(
        self, name: str, body: Any = None, *, team: str | None = None, timeout: float | None = 5.0
    ) -> Signalled:
        """Tells every agent but this one, or those of a team: a control message of type "signal" whose body is
        `{"signal": name, "body": body}`, and a real signal to the processes that asked for it.

        Raises:
            Full: the control lanes of some stayed full; `delivered` and `missing` say whose.
        """
        receipts = self.broadcast(
            {"signal": name, "body": body}, type="signal", priority="control", team=team, timeout=timeout
        )
        mark, reached = f"signal:{name}=", {}
        for info in self.agents(team=team, alive=True):
            wanted = next((tag for tag in info.tags if tag.startswith(mark)), None)
            if wanted and info.name != self.agent and info.owner_pid and self._signal(info, wanted[len(mark) :]):
                reached[info.name] = info.owner_pid
        return Signalled(receipts, reached)

    def _signal(self, info: Any, signal_name: str) -> bool:
        number = getattr(signals.Signals, signal_name, None)
        if number is None:
            return False
        try:
            fd = os.pidfd_open(info.owner_pid)
        except OSError:
            return False
        try:
            # Its owner lives, and has that pid: so what was opened before is that process, and no later one.
            now = self.agent_info(info.name)
            if not now.alive or now.owner_pid != info.owner_pid or now.incarnation != info.incarnation:
                return False
            if os.getpgid(info.owner_pid) == info.owner_pid:
                os.killpg(info.owner_pid, number)
            else:
                signals.pidfd_send_signal(fd, number)
            return True
        except (OSError, UnknownAgent):
            return False
        finally:
            os.close(fd)
