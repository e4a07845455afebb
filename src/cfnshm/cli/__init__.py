"""The cold verbs of `cfnshm`: those that may take the time to start Python.

The native executable does the hot ones itself and hands every other verb to `python -m cfnshm`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from .. import errors

_EXIT = {
    "TIMEOUT": 3, "FULL": 4, "UNKNOWN_AGENT": 5, "AGENT_DEAD": 6, "PERMISSION": 7,
    "VERSION_MISMATCH": 8, "CORRUPT": 8, "AGENT_FENCED": 9, "AGENT_BUSY": 10, "NO_SPACE": 11,
    "TOO_LARGE": 11, "OVER_CAPACITY": 11, "BAD_NAME": 2, "INVALID": 2, "NO_BUS": 12, "RETIRED": 12,
    "UNKNOWN_KEY": 3, "LEASE_LOST": 9, "DEADLOCK": 10, "BROKEN_BARRIER": 13, "OWNER_DIED": 14,
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cfnshm",
        description="The verbs of cfnshm that run in Python; cfnshm --help lists the others.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    demo = verbs.add_parser(
        "demo",
        help="708 processes on real work, hybrid and flat, beside a file-per-message bus",
        description="One master, coordinators and workers read the files of Python's standard "
        "library over the bus, first hybrid, then flat, and compare with one direct pass. Exit code "
        "1 if a message was lost or a total differs.",
    )
    demo.add_argument("--coordinators", type=int, default=7, metavar="N")
    demo.add_argument("--workers", type=int, default=100, metavar="N", help="per coordinator")
    demo.add_argument("--no-baseline", action="store_true", help="leave the file bus out")
    demo.add_argument("--json", action="store_true")
    doctor = verbs.add_parser(
        "doctor",
        help="check a bus and say in words what is wrong, dead, leaked or stuck",
        description="Checks a bus beside its running agents. Exit status: 0 sound, 8 damaged, 12 no such bus. "
        "--repair recycles what proven dead processes left and gives back what is proven to be nobody's; a bus "
        "whose agents all died, and in which nothing is unread, it removes. Anything more needs --remove BUS, which "
        "refuses only while a living process has the bus open.",
    )
    bus = os.environ.get("CFNSHM_BUS") or "default"
    doctor.add_argument("positional", nargs="?", metavar="BUS", help=f"default {bus}")
    doctor.add_argument("--bus", default=bus, help=argparse.SUPPRESS)
    doctor.add_argument("--dir", default=None)
    doctor.add_argument("--json", action="store_true")
    doctor.add_argument("--repair", action="store_true", help="recycle what the dead left; mend what is proven lost")
    doctor.add_argument("--remove", metavar="BUS", help="remove this bus with all that is in it, unless it is in use")
    buses = verbs.add_parser(
        "buses",
        help="the buses of this user, and what is in them",
        description="Lists the buses: size, agents, living handles in use, unread messages. --prune destroys "
        "those that no living process uses and that hold nothing unread.",
    )
    buses.add_argument("--dir", default=None)
    buses.add_argument(
        "--prune", action="store_true", help="destroy what nobody uses and holds nothing unread"
    )
    buses.add_argument("--json", action="store_true")
    from .control import add_verbs

    add_verbs(verbs)
    swarm = verbs.add_parser("swarm", help="run commands as a swarm of agents, and direct one that runs")
    from .swarm import add_verbs as add_swarm_verbs

    add_swarm_verbs(swarm)
    verbs.add_parser("bench", help="measure it beside other ways to carry messages; bench --help", add_help=False)
    version = verbs.add_parser("version", help="versions of the package, the layout, Python, system")
    version.add_argument("--json", action="store_true")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "bench":  # its arguments are its own, and nobody else needs it loaded
        from ..bench import __main__ as bench

        return bench.run(bench.parser().parse_args(argv[1:]))
    arguments = _parser().parse_args(argv)
    try:
        if arguments.verb == "demo":
            from .demo import run

            return run(arguments)
        if arguments.verb == "doctor":
            from .doctor import run

            return run(arguments)
        if arguments.verb == "buses":
            from .buses import run

            return run(arguments)
        if arguments.verb == "version":
            from .version import run

            return run(arguments)
        if arguments.verb == "swarm":
            from .swarm import run

            return run(arguments)
        from .control import run

        return run(arguments)
    except errors.Error as error:
        if getattr(arguments, "json", False):
            print(json.dumps({"error": str(error), "code": error.code}))
        else:
            print(f"cfnshm {arguments.verb}: {error}", file=sys.stderr)
        return _EXIT.get(error.code, 1)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        elif getattr(arguments, "json", False):
            print(json.dumps({"error": str(error), "code": "OS"}))
        else:
            print(f"cfnshm {arguments.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
