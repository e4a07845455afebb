"""What all parts of a bus share: the core's handle, and how an agent is found."""

from __future__ import annotations

from typing import Any

from . import _core
from ._core import c_text, fail, ffi, lib

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
    _others: tuple[int, list[str], bytes]  # the version of the names, all agents but this one, and their addresses
    _handed: dict[int, Any]  # who (thread, iterator, task) -> what it was handed last
    _rooms: list[Any]
    _receipts: list[Any]
    incarnation: int
    is_owner: bool
    _leases: dict[int, tuple[int, str, object]]  # token -> kind, name, and the thread or task that took it
    _parents: dict[str, int]  # agent -> the checkpoint that this handle saved or restored last
    _heads: dict[str, tuple[int, dict[str, Any]]]  # agent -> version and value of the head that this handle wrote last
    _verified: set[bytes]  # digests of objects whose bytes this process has hashed

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
        """The same; raises UnknownAgent."""
        return self._look(agent) or fail(_UNKNOWN_AGENT)

    def _message_id(self, sequence: int) -> str:
        """Of a message that this handle sent."""
        if not self._id_prefix:
            self._id_prefix = f"{self._attachment}.{lib.cfn_bus_attachment_inc(self._handle)}."
        return self._id_prefix + str(sequence)

    def _address(self, agent: str) -> Any:
        index, mid = self._peers.get(agent) or self._find(agent)
        return ffi.new("cfn_address_t *", {"index": index, "mid": mid})

    def _stale(self, agent: str) -> tuple[int, int]:
        """The agent was unregistered since we looked it up: look again, or say so."""
        return self._find(agent)
