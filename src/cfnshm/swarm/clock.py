"""Time in which this process ran.

A supervisor that was stopped, or whose machine slept, finds on waking that minutes have passed in which nobody could
have told it anything. That time counts against nobody: this clock goes on only by as much as it had meant to wait.
"""

from __future__ import annotations

import time

SLACK = 1.0  # seconds that a loaded machine may be late


class Clock:
    """`now`: seconds, beginning with 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lost = 0.0  # seconds that did not count
        self._last = time.monotonic()

    def tick(self, expected: float | None = None) -> float:
        """What has passed since the last call counts, at most `expected` (how long a wait was to take; None: any time)
        and a second. Returns `now`."""
        at = time.monotonic()
        passed, self._last = at - self._last, at
        counted = passed if expected is None else min(passed, expected + SLACK)
        self.now += counted
        self.lost += passed - counted
        return self.now
