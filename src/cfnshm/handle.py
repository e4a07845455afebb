"""What all parts of a bus share: the core's handle, and how an agent is found."""

from __future__ import annotations

import difflib
from typing import Any

from . import _core
from ._core import c_text, fail, ffi, lib
from .errors import UnknownAgent

_UNKNOWN_AGENT = _core.CODES["UNKNOWN_AGENT"]


class Handle(_core.HandleBase):
    """The base of the parts that make up a `Bus`."""

    name: str
    agent: str
    directory: str | None
    _handle: Any
    _attachment: int
    _closed: bool
    _id_prefix: str
    _peers: dict[str, tuple[int, int]]  # agent -> index and exact word, until the word is stale
    _handed: dict[int, Any]  # who (thread, iterator, task) -> what it was handed last
    _rooms: list[Any]
    _receipts: list[Any]

    def _look(self, agent: str) -> tuple[int, int] | None:
        """Index and exact word of an agent, looked up now; None if there is none of that name."""
        address = ffi.new("cfn_address_t *")
        code = lib.cfn_bus_find(self._handle, c_text(agent, "the agent's name"), address)
        if code == _UNKNOWN_AGENT:
            self._peers.pop(agent, None)
            return None
        if code < 0:
            fail(code)
        found = self._peers[agent] = (address.index, address.mid)
        return found

    def _find(self, agent: str) -> tuple[int, int]:
        """The same; raises UnknownAgent with the names that are near."""
        found = self._look(agent)
        if found is None:
            try:
                fail(_UNKNOWN_AGENT)
            except UnknownAgent as error:
                near = difflib.get_close_matches(agent, self._names(), 3)
                if near:
                    error.args = (f"{error}. Did you mean {' or '.join(map(repr, near))}?",)
                raise
        return found

    def _names(self) -> list[str]:  # of all agents
        raise NotImplementedError

    def _message_id(self, sequence: int) -> str:  # of a message that this handle sent
        raise NotImplementedError

    def _address(self, agent: str) -> Any:
        index, mid = self._peers.get(agent) or self._find(agent)
        return ffi.new("cfn_address_t *", {"index": index, "mid": mid})

    def _stale(self, agent: str) -> tuple[int, int]:
        """The agent was unregistered since we looked it up: look again, or say so."""
        return self._find(agent)
