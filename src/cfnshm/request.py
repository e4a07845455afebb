"""Asking and answering. An answer goes straight to the process that asked, not through its inbox."""

from __future__ import annotations

from typing import Any

from ._core import EMPTY, INTERRUPTED, STALE, TIMEOUT, check, deadline_of, ffi, lib
from .errors import InvalidArgument, UnknownAgent
from .inbox import _ROOM, Inbox
from .message import EXTERNAL, FAILURE, Message, lane_of
from .outbox import Outbox, outgoing


class Requests(Outbox, Inbox):
    """The part of a `Bus` that asks and answers."""

    def request(
        self,
        to: str,
        body: Any,
        *,
        type: str = "",
        priority: str = "normal",
        timeout: float | None = None,
    ) -> Message:
        """Sends a message and waits for its answer, which comes back to this process and not through
        the inbox. Several threads may ask at once.

        Raises:
            Timeout: no answer in `timeout` seconds; a later one is dropped and counted.
            AgentDead: the agent's process died; the request is kept for its successor, whose answer
                will be dropped.
            UnknownAgent, NoSpace, TooLarge.
        """
        deadline = deadline_of(timeout)
        correlation = self._ask(to, body, type, priority, deadline)
        try:
            while True:
                answer = self._answer(to, correlation, deadline)
                if answer is not None:
                    return answer
        finally:
            lib.cfn_bus_request_end(self._handle, correlation)

    def _ask(self, to: str, body: Any, type: str, priority: str, deadline: int) -> int:
        message, keep = outgoing(body, type)
        correlation = ffi.new("uint64_t *")
        lane = lane_of(priority)
        while True:
            address = self._address(to)
            code = lib.cfn_bus_request(self._handle, address, lane, message, deadline, correlation)
            if code == STALE:
                self._stale(to)
            elif code != INTERRUPTED:
                check(code)
                del keep
                return int(correlation[0])

    def _answer(self, to: str, correlation: int, deadline: int) -> Message | None:
        """The answer, or None after an interruption."""
        room = ffi.new("char[]", _ROOM)
        n = lib.cfn_bus_request_wait(self._handle, self._address(to), correlation, deadline, room, _ROOM)
        if n == INTERRUPTED:
            return None
        if n == TIMEOUT and deadline == 0:
            n = EMPTY
        check(n)
        wire = ffi.buffer(room)[:n]
        return self._external(wire, True) if wire[96] & EXTERNAL else Message(self, wire)

    def _judge(self, agent: str) -> None:
        """Raises AgentDead or UnknownAgent if waiting for this agent makes no sense."""
        check(lib.cfn_bus_judge_agent(self._handle, self._address(agent)))

    def reply(
        self,
        message: Message,
        body: Any,
        *,
        type: str = "",
        failed: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Answers a message. A request's answer goes straight to the process that asked; any other
        answer is a message to the sender, with `correlation_id` = `message.sequence`.

        Returns:
            False if the process that asked is gone: the answer was dropped.

        Raises:
            UnknownAgent: the sender is not registered (any more), or had no name.
        """
        if not isinstance(message, Message):
            raise InvalidArgument(f"what is answered is a Message, not {message!r:.80}")
        if not message.is_request:
            if not message.sender:
                raise UnknownAgent("the sender of this message has no name to answer to")
            self.send(
                message.sender, body, type=type, priority=message.priority, timeout=timeout,
                correlation_id=message.sequence,
            )  # fmt: skip
            return True
        answer, keep = outgoing(body, type, message.correlation_id, FAILURE if failed else 0)
        attachment, incarnation = message._asker
        deadline = deadline_of(timeout)
        code = INTERRUPTED
        while code == INTERRUPTED:
            code = lib.cfn_bus_reply(self._handle, attachment, incarnation, answer, deadline)
        del keep
        if code == STALE:
            return False
        check(code)
        return True
