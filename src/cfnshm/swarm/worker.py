"""What a worker does: takes a task from its inbox, calls the function, sends the result to who dealt it.

The result is sent before the task is acked. Who dies between the two leaves a task whose result is known: so a task
that comes a second time is not done, but sent back, and the dealer gives it out again only if its result is missing.
"""

from __future__ import annotations

import pickle
import sys
import time
import traceback
from typing import Any

from ..errors import Error, Timeout, UnknownAgent
from ..message import Message
from .place import Place
from .task import DONE, DRAIN, RESULT, RETURNED, TASK, answer, dumps, raised, send_up, split_call

_ORDERS = ("pause", "resume", "instruction", "stop")


class Worker:
    """Args:
    place: whose inbox is read.
    before: what is known of the process that had the name before and died: a dict for `Task.deaths`, or None.
    idle: seconds without a task after which it ends; None: never.
    """

    def __init__(self, place: Place, before: dict[str, Any] | None = None, idle: float | None = None) -> None:
        self.place = place
        self.before = before
        self.idle = idle
        self._functions: dict[str, Any] = {}

    def run(self) -> None:
        """Until it is told to end."""
        bus = self.place.bus
        self._obey()  # what was asked before it began; later orders come by message, before any task
        while not self.place._stopping:
            try:
                message = self._next()
            except Timeout:
                return
            if message.type == TASK:
                self._task(message)
            elif message.type == DRAIN:
                message.ack()
                return
            elif message.type in _ORDERS:
                self._obey()
            elif not message.type.startswith("swarm."):
                self.place._mail.append(message)  # for the functions: Place.recv
                continue
            message.ack()
        bus.release()  # what is unread stays for who comes

    def _next(self) -> Message:
        """Held until it is acked here: a function may receive, too."""
        later = self.place._later
        return later.popleft() if later else self.place.bus.recv_many(1, self.idle, hold=True)[0]

    def _obey(self) -> None:
        while (order := self.place.poll()) is not None:
            if order.kind == "stop":
                return
            if order.kind == "instruction":
                self.place.instructions.append(order.instruction)

    def _send(self, to: str, body: Any, type: str, task: int) -> None:
        try:
            send_up(self.place.bus, to, body, type, task)
        except UnknownAgent:
            print(f"{self.place.agent}: nobody is {to!r} any more, who gave out task {task}", file=sys.stderr)

    def _task(self, message: Message) -> None:
        place, dealer, number = self.place, message.sender, message.correlation_id
        if message.redelivered:
            death = self.before or {"agent": place.agent, "why": "its process died", "tail": ""}
            self._send(dealer, {"sequence": message.sequence, "death": death}, RETURNED, number)
            return
        place.task, place._dealer = number, dealer
        began = time.monotonic_ns()
        try:
            reference, arguments = split_call(message.raw)
            result = self._call(reference, arguments)
            body = answer(DONE, place.agent, time.monotonic_ns() - began, dumps(result))
        except BaseException as error:  # also SystemExit: it is the task that wanted to end, not the agent
            body = raised(place.agent, time.monotonic_ns() - began, error)
        finally:
            place.task = None
        self._send_result(dealer, body, number, began)

    def _send_result(self, dealer: str, body: bytes, number: int, began: int) -> None:
        try:
            self._send(dealer, body, RESULT, number)
        except Error as error:  # too large for the bus, most likely: that is an answer, too
            self._send(dealer, raised(self.place.agent, time.monotonic_ns() - began, error), RESULT, number)

    def _call(self, reference: str, arguments: bytes) -> Any:
        function = self._functions.get(reference)
        if function is None:
            function = self._functions[reference] = pickle.loads(self.place.bus.context.get(reference))
        given, keywords = pickle.loads(arguments)
        return function(*given, **keywords)


def report(agent: str) -> None:
    """Of an exception that ends an agent: into its log."""
    print(f"{agent}: ended by an exception", file=sys.stderr)
    traceback.print_exc()
