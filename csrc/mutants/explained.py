"""Why some of the mutants made by rule change nothing that a check could see: {name: reason}."""

from __future__ import annotations

EXPLAINED: dict[str, str] = {}
