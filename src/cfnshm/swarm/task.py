"""Tasks and results as messages.

A task is a message of type "swarm.task" whose `correlation_id` is the task's number in its swarm. Its body is raw:

    64 bytes of hex  u8 bytes of the label  label  pickled arguments

The hex names the pickled function (an object of `bus.context`, stored once for everybody); the label says in a few
characters what the task is, to people (its arguments are seen in `cfnshm swarm status`). Coordinators pass bodies on
without looking into them.

A result is a message of type "swarm.result" with the same number, on the lane `high`: it goes up while tasks come down
on `normal`, so neither can block the other. Its body is

    u8 how  u8 bytes of the agent's name  6 x 0  u64 duration_ns  name  pickled value

`how`: DONE, or RAISED with an exception for the value, or a word of the swarm: DIED (too many processes died with it).
"""

from __future__ import annotations

import pickle
import struct
import traceback
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath
from types import NoneType
from typing import Any

import cloudpickle

from ..bus import Bus
from ..errors import AgentDead, Error, Full, Timeout

TASK = "swarm.task"  # down
RESULT = "swarm.result"  # up
PARTIAL = "swarm.partial"  # up: something of a task that is not done
RETURNED = "swarm.returned"  # up: a task that was not done, and the number of the message that brought it
LOST = "swarm.lost"  # supervisor -> dealer: a member is gone for good
JOINED = "swarm.joined"  # supervisor -> dealer: a member came
REST = "swarm.rest"  # supervisor -> dealer: members that are paused, or not any more
WHERE = "swarm.where"  # request to a coordinator: who has which task?
ADOPT = "swarm.adopt"  # supervisor -> coordinator: be that one, too
DRAIN = "swarm.drain"  # to a worker, behind all else: end when you come to this
LIFE = "cfnshm/swarm/life/"  # + agent: a value that changes when a successor of it is there

DONE, RAISED, DIED = 0, 1, 2
_HEAD = struct.Struct("<BB6xQ")
_LABEL = 80  # bytes
_REF = 64


class TaskError(Error):
    """A task failed in its agent. The exception that it raised there is `__cause__` where it could be carried over.

    Attributes:
        agent: that ran it.
        remote: the traceback there, as text.
    """

    code = "TASK_FAILED"
    agent = ""
    remote = ""


class WorkerDied(TaskError):
    """So many processes died while they held this task that it was set aside, or nobody is left to do it. `deaths`:
    what is
    known of each: agent, why, output."""

    code = "WORKER_DIED"

    def __init__(self, *arguments: object, deaths: list[dict[str, Any]] | None = None) -> None:
        super().__init__(*arguments)
        self.deaths = deaths or []


@dataclass(frozen=True)
class Answer:
    """What came back of a task. Attributes: how (DONE, ...), agent, seconds (in the agent), payload (pickled)."""

    how: int
    agent: str
    seconds: float
    payload: bytes


def dumps(value: Any) -> bytes:
    """Pickled; what lives in `__main__`, and lambdas, by value."""
    try:
        data = pickle.dumps(value, 5)
    except Exception:
        return bytes(cloudpickle.dumps(value))
    # By reference it would be looked for in the other process's main program.
    return bytes(cloudpickle.dumps(value)) if b"__main__" in data or b"__mp_main__" in data else data


def call(function_ref: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
    """The body of a task. `function_ref`: "sha256:..." of the pickled function."""
    said = ", ".join([*map(_short, arguments), *(f"{name}={_short(value)}" for name, value in keywords.items())])
    label = said.encode(errors="replace")[:_LABEL]
    return b"".join([function_ref.removeprefix("sha256:").encode(), bytes([len(label)]), label,
                     dumps((arguments, keywords))])  # fmt: skip


def split_call(body: bytes) -> tuple[str, bytes]:
    """Function's reference and pickled arguments of a task's body."""
    return "sha256:" + body[:_REF].decode(), body[_REF + 1 + body[_REF] :]


def label_of(body: bytes) -> str:
    """What a task's body says to people; "" if it has none."""
    return body[_REF + 1 : _REF + 1 + body[_REF]].decode(errors="ignore") if len(body) > _REF else ""


def _short(value: Any, deep: int = 0) -> str:
    """A few characters of a value, however large it is: of numbers, texts and small containers of them; of all others
    the name of their type, for what their `__repr__` does is not known."""
    kind = type(value)
    if kind in (bool, int, float, NoneType):
        return repr(value) if kind is not int or value.bit_length() < 128 else "int"
    if kind in (str, bytes):
        return repr(value if len(value) <= _LABEL else value[: _LABEL // 2]) + ("..." if len(value) > _LABEL else "")
    if kind in (list, tuple, dict) and deep < 2:
        first = [*islice(value.items() if kind is dict else value, 3)]
        more = ", ..." if len(value) > 3 else ""
        if kind is dict:
            return "{" + ", ".join(f"{_short(k, 2)}: {_short(v, deep + 1)}" for k, v in first) + more + "}"
        said = ", ".join(_short(v, deep + 1) for v in first) + more
        return f"[{said}]" if kind is list else f"({said})"
    if isinstance(value, PurePath):
        return str(value)[-_LABEL:].encode("unicode_escape").decode()
    return kind.__name__


def answer(how: int, agent: str, duration_ns: int, payload: bytes) -> bytes:
    """The body of a result."""
    name = agent.encode()
    return _HEAD.pack(how, len(name), duration_ns) + name + payload


def send_up(bus: Bus, to: str, body: Any, type: str, number: int) -> None:
    """Sends a result up. A dealer that died has a successor soon, who makes room in its inbox.

    Raises:
        UnknownAgent: nobody deals under that name any more.
    """
    try:
        bus.send(to, body, type=type, correlation_id=number, priority="high", timeout=0)
        return
    except Full:
        pass
    while True:
        seen = bus.state.lookup(LIFE + to).version
        try:
            bus.send(to, body, type=type, correlation_id=number, priority="high")
            return
        except AgentDead:
            with suppress(Timeout):  # it may be unregistered meanwhile, which changes no value
                bus.state.wait(LIFE + to, seen, 5.0)


def split_answer(body: bytes) -> Answer:
    how, n, duration_ns = _HEAD.unpack_from(body)
    at = _HEAD.size + n
    return Answer(how, body[_HEAD.size : at].decode(), duration_ns / 1e9, body[at:])


def raised(agent: str, duration_ns: int, error: BaseException) -> bytes:
    """The body of the result of a task that raised."""
    text = "".join(traceback.format_exception(error))
    try:
        payload = dumps((error, text))
        pickle.loads(payload)
    except BaseException:  # whatever its own methods do: the text always goes
        payload = dumps((None, text))
    return answer(RAISED, agent, duration_ns, payload)


def died(number: int, body: bytes, deaths: list[dict[str, Any]], why: str) -> bytes:
    """The body of the result of a task, which had that body, that nobody does any more."""
    task = name_of(number, label_of(body))
    return answer(DIED, deaths[-1]["agent"] if deaths else "", 0, dumps((task, deaths, why)))


def name_of(number: int, label: str) -> str:
    return f"task {number} ({label})" if label else f"task {number}"


def failure(got: Answer) -> TaskError:
    """The error of an answer that is not DONE."""
    if got.how == DIED:
        task, deaths, why = pickle.loads(got.payload)
        lines = [f"{task} {why}"]
        for death in deaths:
            lines.append(f"  {death['agent']}: {death['why']}")
            lines += [f"    | {line}" for line in death.get("tail", "").splitlines()]
        lost = WorkerDied("\n".join(lines), deaths=deaths)
        lost.agent = got.agent
        return lost
    try:
        cause, text = pickle.loads(got.payload)
    except Exception as why:  # an exception of a class that this process does not have
        cause, text = None, f"{type(why).__name__}: what it raised cannot be read here: {why}"
    last = text.strip().rpartition("\n")[2] or "an exception without a text"
    error = TaskError(f"{last}\n\nin agent {got.agent!r}:\n{text}")
    error.agent, error.remote, error.__cause__ = got.agent, text, cause
    return error
