"""What became of tasks."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import Timeout
from . import task as wire


@dataclass(frozen=True)
class Outcome:
    """What became of one task.

    Attributes:
        index: its place among the tasks.
        task: itself.
        done: a result came. `value`: what the function returned.
        error: the `TaskError` if it raised, was set aside, or nobody could do it; None if it is done, or missing.
        agent: who did it; of a missing one, who has it ("" if nobody).
        seconds: in the agent.
    """

    index: int
    task: Any
    done: bool = False
    value: Any = None
    error: wire.TaskError | None = None
    agent: str = ""
    seconds: float = 0.0

    @property
    def missing(self) -> bool:
        """No answer came in time."""
        return not self.done and self.error is None


class Results(Sequence[Outcome]):
    """The outcomes of a run, in the order of its tasks.

    Attributes:
        outcomes: all of them.
        seconds: what the run took.
    """

    def __init__(self, outcomes: list[Outcome], seconds: float) -> None:
        self.outcomes, self.seconds = outcomes, seconds

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, index: Any) -> Any:
        return self.outcomes[index]

    @property
    def complete(self) -> bool:
        """Every task has an answer, a result or an error."""
        return not any(o.missing for o in self.outcomes)

    @property
    def missing(self) -> list[Outcome]:
        """Those without an answer; `agent` says who has them."""
        return [o for o in self.outcomes if o.missing]

    @property
    def errors(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.error is not None]

    @property
    def values(self) -> list[Any]:
        """What the functions returned.

        Raises:
            TaskError: of the first task that failed. Timeout: some are missing; the text names who has them.
        """
        for o in self.outcomes:
            if o.error is not None:
                raise o.error
        if self.missing:
            raise Timeout(self.why_missing())
        return [o.value for o in self.outcomes]

    def why_missing(self) -> str:
        """Who has what is missing, in words."""
        by: dict[str, int] = {}
        for o in self.missing:
            by[o.agent or "nobody yet"] = by.get(o.agent or "nobody yet", 0) + 1
        who = ", ".join(f"{name} has {n}" for name, n in list(by.items())[:10])
        more = ", ..." if len(by) > 10 else ""
        return f"{len(self.missing)} of {len(self)} tasks have no answer after {self.seconds:.1f} s: {who}{more}"

    def __repr__(self) -> str:
        done = sum(o.done for o in self.outcomes)
        return f"<Results {done} done, {len(self.errors)} failed, {len(self.missing)} missing>"


def outcome_of(before: Outcome, got: wire.Answer) -> Outcome:
    """A task's outcome, now that its answer is here."""
    if got.how != wire.DONE:
        return replace(before, error=wire.failure(got), agent=got.agent, seconds=got.seconds)
    try:
        value = pickle.loads(got.payload)
    except Exception as why:
        error = wire.TaskError(f"the answer of {got.agent} cannot be read: {why!r}")
        return replace(before, error=error, agent=got.agent, seconds=got.seconds)
    return replace(before, done=True, value=value, agent=got.agent, seconds=got.seconds)
