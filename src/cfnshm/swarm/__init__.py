"""A swarm of agent processes: started, watched, paused, given tasks, and ended.

    from cfnshm.swarm import Swarm

    with Swarm(100) as swarm:
        print(swarm.run(range(1000), lambda n: n * n).values)
"""

from typing import TYPE_CHECKING

from ..late import exports
from .aside import Aside
from .command import Command, CommandFailed, CommandResult
from .operate import Operator
from .place import Place, here
from .plan import Plan, make_plan
from .results import Outcome, Results
from .settings import Restart
from .status import AgentStatus, Health
from .task import TaskError, WorkerDied

if TYPE_CHECKING:
    from .aio import AsyncSwarm
    from .swarm import Swarm, SwarmEnded

# The client's side: agents import this package, too, and each page less is a page less in hundreds of forks.
_LAZY = {"AsyncSwarm": "aio", "Swarm": "swarm", "SwarmEnded": "swarm"}

__all__ = [
    "AgentStatus",
    "Aside",
    "AsyncSwarm",
    "Command",
    "CommandFailed",
    "CommandResult",
    "Health",
    "Operator",
    "Outcome",
    "Place",
    "Plan",
    "Restart",
    "Results",
    "Swarm",
    "SwarmEnded",
    "TaskError",
    "WorkerDied",
    "here",
    "make_plan",
]

__getattr__, __dir__ = exports(__name__, globals(), _LAZY)
