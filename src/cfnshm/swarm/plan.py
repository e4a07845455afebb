"""Topologies: who deals tasks to whom.

    flat      client -> workers
    mesh      client -> coordinators -> workers            (a team of workers each; coordinators are peers)
    hybrid    client -> master -> coordinators -> workers
    tree      client -> master -> coordinators of any depth -> workers

Tasks go down and results come up along these lines. Messages between agents need no line: every agent of a bus can
send to every other one; `Node.parent`, `children` and `peers` only say who is where.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument

TOPOLOGIES = ("auto", "flat", "mesh", "hybrid", "tree")
TEAM = 100  # workers of one coordinator, unless told otherwise
FLAT_UP_TO = 1000  # what one dealer serves without being the bottleneck: docs/swarm.md
CLIENT = "client"
WORKER, COORDINATOR = "worker", "coordinator"


@dataclass
class Node:
    """One agent's place.

    Attributes:
        agent: its name.
        role: "worker" or "coordinator" (the master is the coordinator at the top).
        parent: who deals to it: a coordinator, or the client.
        team: of a worker and its coordinator; "" in a flat swarm.
        depth: 1 under the client.
        children: to whom it deals.
        leaves: workers under it; 1 of a worker.
    """

    agent: str
    role: str
    parent: str
    team: str = ""
    depth: int = 1
    children: list[str] = field(default_factory=list)
    leaves: int = 1


@dataclass
class Plan:
    """A topology with everybody's place. `reason` says why `auto` chose it; `nodes` by name, parents before children;
    `top`: those to whom the client deals."""

    topology: str
    reason: str
    nodes: dict[str, Node]
    top: list[str]

    def peers(self, agent: str) -> list[str]:
        """The others with the same parent."""
        node = self.nodes[agent]
        siblings = self.top if node.parent == CLIENT else self.nodes[node.parent].children
        return [name for name in siblings if name != agent]

    def team(self, team: str) -> list[Node]:
        return [node for node in self.nodes.values() if node.team == team]


def _number(value: Any, what: str, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidArgument(f"{what} is a number from {least} up, not {value!r}")
    return value


def choose(size: int) -> tuple[str, str]:
    """Topology and reason for so many workers."""
    if size <= FLAT_UP_TO:
        return "flat", f"{size} workers: one dealer serves up to {FLAT_UP_TO}, and a level more would cost a hop"
    return "mesh", f"{size} workers are more than the {FLAT_UP_TO} that one dealer serves: coordinators share it"


def make_plan(
    size: int, topology: str = "auto", *, coordinators: int | None = None, depth: int | None = None, prefix: str = ""
) -> Plan:
    """Everybody's place in a swarm of `size` workers.

    Args:
        topology: one of `TOPOLOGIES`.
        coordinators: how many have workers of their own (mesh, hybrid), or what each has under it (tree); by default a
            coordinator for each 100 workers, and at least two.
        depth: levels of a tree, workers included; 3 by default.
        prefix: in front of every name.

    Raises:
        InvalidArgument: a number that makes no sense, or more coordinators than workers.
    """
    _number(size, "the size of a swarm", 0)
    if topology not in TOPOLOGIES:
        raise InvalidArgument(f"there is no topology {topology!r}; there are {', '.join(TOPOLOGIES)}")
    reason = "as asked"
    if topology == "auto":
        topology, reason = choose(size)
        if coordinators is not None:
            topology, reason = "mesh", "coordinators were asked for"
    if depth is not None and topology != "tree":
        raise InvalidArgument(f"only a tree has a depth, and this swarm is {topology}")
    plan = Plan(topology, reason, {}, [])
    if topology == "flat":
        if coordinators:
            raise InvalidArgument("a flat swarm has no coordinators; take mesh, hybrid or tree")
        plan.top = _workers(plan, CLIENT, "", 1, size, 1, prefix)
        return plan
    if size == 0:
        raise InvalidArgument(f"a swarm of topology {topology} needs workers")
    if topology == "tree":
        _tree(plan, size, _number(depth or 3, "the depth of a tree", 2), coordinators, prefix)
        return plan
    wanted = max(2, math.ceil(size / TEAM)) if coordinators is None else _number(coordinators, "coordinators")
    teams = min(size, wanted)
    parent, level = CLIENT, 1
    if topology == "hybrid":
        parent, level = prefix + "master", 2
        plan.nodes[parent] = Node(parent, COORDINATOR, CLIENT, "", 1, [], size)
        plan.top = [parent]
    names = _coordinators(plan, parent, size, teams, level, prefix, 1)
    if topology == "mesh":
        plan.top = names
    return plan


def _workers(plan: Plan, parent: str, team: str, first: int, n: int, depth: int, prefix: str) -> list[str]:
    names = [f"{prefix}worker-{i}" for i in range(first, first + n)]
    for name in names:
        plan.nodes[name] = Node(name, WORKER, parent, team, depth)
    return names


def _shares(n: int, parts: int) -> list[int]:
    return [n // parts + (i < n % parts) for i in range(parts)]


def _coordinators(plan: Plan, parent: str, size: int, teams: int, depth: int, prefix: str, first: int) -> list[str]:
    """Coordinators with a team each."""
    number = sum(name.startswith(f"{prefix}coordinator-") for name in plan.nodes)
    names = [f"{prefix}coordinator-{number + i + 1}" for i in range(teams)]
    shares = _shares(size, teams)
    for i, name in enumerate(names):
        team = f"{prefix}team-{number + i + 1}"
        node = plan.nodes[name] = Node(name, COORDINATOR, parent, team, depth, [], shares[i])
        node.children = _workers(plan, name, team, first, shares[i], depth + 1, prefix)
        first += shares[i]
    if parent != CLIENT:
        plan.nodes[parent].children += names
    return names


def _tree(plan: Plan, size: int, depth: int, wide: int | None, prefix: str) -> None:
    """A master, and under each coordinator as many as it takes for all levels to be about as wide."""
    levels = depth - 1  # of coordinators, the master included
    width = _number(wide, "the width of a tree", 2) if wide else max(2, math.ceil(size ** (1 / depth)))
    master = prefix + "master"
    plan.nodes[master] = Node(master, COORDINATOR, CLIENT, "", 1, [], size)
    plan.top = [master]
    open_nodes, first = [master], 1
    for level in range(2, levels + 1):
        below: list[str] = []
        for parent in open_nodes:
            leaves = plan.nodes[parent].leaves
            if level == levels:
                before = len(plan.nodes)
                below += _coordinators(plan, parent, leaves, min(width, leaves), level, prefix, first)
                first += sum(n.role == WORKER for n in list(plan.nodes.values())[before:])
                continue
            names = [f"{parent}.{i + 1}" for i in range(min(width, leaves))]
            for name, share in zip(names, _shares(leaves, len(names)), strict=True):
                plan.nodes[name] = Node(name, COORDINATOR, parent, "", level, [], share)
            plan.nodes[parent].children += names
            below += names
        open_nodes = below
    if levels == 1:
        plan.nodes[master].children = _workers(plan, master, prefix + "team-1", 1, size, 2, prefix)
        plan.nodes[master].team = prefix + "team-1"
