"""What an agent says of itself: type, team, capabilities, tags, status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ._core import c_text, ffi
from .errors import InvalidArgument

TEXTS = ("type", "team", "capabilities", "tags", "status")


def _words(value: Iterable[str] | str, what: str) -> str:
    words = value.split() if isinstance(value, str) else list(value)
    for word in words:
        if not isinstance(word, str) or not word or any(c.isspace() for c in word):
            raise InvalidArgument(f"{what} are words without spaces: {word!r}")
    return " ".join(words)


def texts(
    type: str, team: str, capabilities: Iterable[str] | str, tags: Iterable[str] | str, status: str
) -> dict[str, str]:
    """The texts of an agent, checked.

    Raises:
        InvalidArgument: a capability or tag has spaces.
    """
    words = (_words(capabilities, "capabilities"), _words(tags, "tags"))
    return dict(zip(TEXTS, (type, team, *words, status), strict=True))


def to_core(texts: Mapping[str, str]) -> tuple[Any, list[Any]]:
    """A `cfn_profile_t`, in which empty texts are left as they are, and what must live as long."""
    profile = ffi.new("cfn_profile_t *")
    keep = []
    for i, name in enumerate(TEXTS):
        value = texts.get(name)
        if value:
            keep.append(c_text(value, name))
            profile.text[i] = keep[-1]
    return profile, keep
