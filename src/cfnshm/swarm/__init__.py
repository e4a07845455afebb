"""A swarm of agent processes: started, watched, paused, given tasks, and ended.

    from cfnshm.swarm import Swarm

    with Swarm(100) as swarm:
        print(swarm.run(range(1000), lambda n: n * n).values)
"""

from .aio import AsyncSwarm
from .command import Command, CommandFailed, CommandResult
from .operate import Operator
from .place import Place, here
from .plan import Plan, make_plan
from .results import Outcome, Results
from .settings import Restart
from .status import AgentStatus, Health
from .swarm import Swarm, SwarmEnded
from .task import TaskError, WorkerDied

__all__ = [
    "AgentStatus",
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
