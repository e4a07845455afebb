"""Fixtures: a bus of its own for each test, processes that end, a clean /dev/shm."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from cfnshm import Bus
from cfnshm.swarm import cgroup, tree
from cfnshm.testing import temp_bus, temp_bus_name

SHM = Path("/dev/shm")


def _buses() -> set[str]:
    return {p.name for p in SHM.glob("cfnshm.*")}


@pytest.fixture(autouse=True)
def clean_shm(monkeypatch):
    """/dev/shm is after each test as it was before, and the environment names no bus."""
    for name in [n for n in os.environ if n.startswith("CFNSHM_") and n != "CFNSHM_DIR"]:
        monkeypatch.delenv(name)
    before = _buses()
    yield
    left = {n for n in _buses() - before if f"test-{os.getpid()}-" in n}
    assert not left, f"left in /dev/shm: {left}"


@pytest.fixture
def bus():
    """A handle of agent "a" on a small bus."""
    with temp_bus("a") as handle:
        yield handle


@pytest.fixture
def other(bus):
    """A second handle on the same bus, of agent "b"."""
    with contextlib.closing(Bus(bus.name, agent="b")) as handle:
        yield handle


@pytest.fixture
def bus_name():
    return temp_bus_name()


@pytest.fixture
def spawn():
    """Starts functions in forked processes: spawn(function, *args) -> Process. All are gone at the
    end."""
    context = multiprocessing.get_context("fork")
    children = []

    def start(function, *args):
        child = context.Process(target=function, args=args, daemon=True)
        child.start()
        children.append(child)
        return child

    yield start
    for child in children:
        if child.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
                child.kill()
        child.join(20)


@pytest.fixture
def no_swarm_left(tmp_path, monkeypatch):
    """Logs go to the test's folder; no process and no cgroup of a swarm is left."""
    monkeypatch.setenv("CFNSHM_STATE_DIR", str(tmp_path / "state"))
    yield
    left = [pid for pid in tree.descendants(os.getpid()) if (s := tree.stat(pid)) and s.state != "Z"]
    assert not left, [Path(f"/proc/{p}/cmdline").read_bytes() for p in left]
    home = cgroup._own()
    groups = home.glob("cfnshm-*") if home else ()
    assert not [g for g in groups if not os.path.exists(f"/proc/{g.name.split('-')[1]}")]


def pytest_report_header():
    return f"cfnshm {__import__('cfnshm').__version__}"


# ---- the list at the end: what of the required checks ran ----

_CHECKS = {
    "C tests": "test_c[",
    "C tests under ASan and UBSan": "test_c_under_address",
    "agents as threads under TSan": "test_agents_as_threads",
    "clang builds without a warning": "test_clang_builds",
    "gcc builds at other levels": "test_gcc_builds",
    "kill and stop at instructions": "test_kill_and_stop",
    "the core under a simulated kernel": "test_the_core_under_a_simulated",
    "soak with ledgers": "test_soak",
    "wake-ups without the tick": "test_wakes",
    "mutants of the core are found": "test_the_simulator_finds",
    "SPIN models with their mutants": "test_models_at_small",
    "8 senders x 100,000 messages": "test_eight_senders",
    "Python face": ("test_bus.py", "test_arrays.py"),
    "both bindings": "test_binding.py",
    "objects and values": ("test_context.py", "test_state.py", "test_spill.py"),
    "locks, semaphores, barriers": "test_sync.py",
    "messages of any size": ("test_large.py", "test_loan.py"),
    "control": "test_control.py",
    "checkpoints and cuts": "test_checkpoint.py",
    "asyncio": "test_aio.py",
    "processes and signals": "test_processes.py",
    "doctor and damage": "test_doctor.py",
    "command and bash": ("test_shell.py", "test_shell_context.py", "test_shell_sync.py"),
    "swarm": ("test_swarm.py", "test_swarm_care.py", "test_shell_swarm.py"),
    "README and examples": "test_readme.py",
    "benchmarks": "test_bench.py",
    "demo": "test_demo.py",
}


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats
    terminalreporter.section("required checks")
    for check, mark in _CHECKS.items():
        marks = (mark,) if isinstance(mark, str) else mark
        found = {
            kind: [r for r in reports.get(kind, []) if any(m in getattr(r, "nodeid", "") for m in marks)]
            for kind in ("passed", "failed", "error", "skipped")
        }
        if found["failed"] or found["error"]:
            state = "FAILED"
        elif found["skipped"] and not found["passed"]:
            reason = found["skipped"][0].longrepr
            state = f"did not run: {reason[2] if isinstance(reason, tuple) else reason}"
        elif found["passed"]:
            state = f"ran, {len(found['passed'])} passed"
            if found["skipped"]:
                state += f", {len(found['skipped'])} skipped"
        else:
            state = "not selected"
        terminalreporter.write_line(f"{check:34} {state}")
