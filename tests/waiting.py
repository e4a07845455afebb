"""Waiting for what has no event to wait for."""

from __future__ import annotations

import threading
import time


def until(condition, seconds=30.0):
    """Waits for what has no event to wait for: that the kernel shows a process's state."""
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not come to be"
        threading.Event().wait(0.005)
    return found
