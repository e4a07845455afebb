"""Runs the C tests: plain, under AddressSanitizer and UndefinedBehaviorSanitizer, with agents as threads
under ThreadSanitizer, and the SPIN models. Each says whether it ran or why not; see conftest.py for the
list at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "c"


def need(tool: str) -> None:
    """Skips without the tool; in CI, where it can be installed, its absence is a failure."""
    if shutil.which(tool):
        return
    if os.environ.get("CI"):
        pytest.fail(f"{tool} is not installed, and CI may not skip what it checks")
    pytest.skip(f"{tool} is not installed")


def build(target: str, variant: str = "plain", cc: str = "gcc", flags: str = "") -> Path:
    out = BUILD / f"{variant}-{cc}-O2{flags.replace('=', '').replace('-D', '-')}"
    done = subprocess.run(
        [
            "make",
            "-s",
            "-j2",
            "-C",
            str(CSRC),
            f"VARIANT={variant}",
            f"CC={cc}",
            f"OUT={out}",
            f"CFLAGS={flags}",
            f"{out}/{target}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / target


def run(*command: str | Path, timeout: float = 300) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip() or "the program says that it cannot run here")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


C_TESTS = sorted(p.stem for p in (CSRC / "tests").glob("test_*.c"))
STEPPING = [n for n in C_TESTS if n.startswith("test_step")]
PLAIN = [n for n in C_TESTS if n not in STEPPING]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PLAIN)
def test_c(name):
    need("gcc")
    run(build(name))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PLAIN)
def test_c_under_address_and_undefined_behaviour_sanitizer(name):
    need("gcc")
    run(build(name, "asan"))


@pytest.mark.timeout(600)
def test_agents_as_threads_under_thread_sanitizer():
    need("gcc")
    run(build("test_threads", "tsan"))


@pytest.mark.timeout(600)
def test_clang_builds_without_a_warning():
    need("clang")
    run(build("test_messages", cc="clang"))
    done = subprocess.run(["make", "-s", "-j2", "-C", CSRC, "CC=clang", "all"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_gcc_builds_at_other_levels_without_a_warning(level):
    """What `make verify` steps through; each level sees other faults."""
    need("gcc")
    command = ["make", "-s", "-j2", "-C", CSRC, f"OPT={level}", f"../build/c/plain-gcc{level}/test_messages"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    run(BUILD / f"plain-gcc{level}" / "test_messages")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STEPPING)
def test_kill_and_stop_at_instructions(name):
    """SIGKILL and SIGSTOP at (a stride of) every instruction of the message path by single-stepping;
    `make verify` takes every instruction."""
    need("gcc")
    print(run(build(name), timeout=560))  # half a minute; ptrace is slow where much else runs


@pytest.mark.timeout(300)
def test_the_core_under_a_simulated_kernel():
    """cfnsim: kills, preemptions, stops and stale reads at every atomic operation, for about a minute."""
    need("gcc")
    out = run(build("cfnsim"), "--seconds", "60")
    assert out.count("weak ") > 20


@pytest.mark.timeout(300)
def test_the_simulator_finds_faults():
    """A few of the mutants of csrc/mutants; `make verify` runs them all."""
    need("gcc")
    for name in ("no bell after the commit", "R4 without its CAS", "publish without the authority"):
        out = run(sys.executable, CSRC / "mutants" / "run.py", "--named", "--seconds", "6", "--only", name)
        assert "1 mutants, 0 survive" in out


@pytest.mark.timeout(900)
def test_models_at_small_bounds():
    need("spin")
    out = run(sys.executable, CSRC / "models" / "run.py", "--profile", "small", "--jobs", "2", timeout=850)
    assert " 0 failed" in out


@pytest.mark.timeout(300)
def test_eight_senders_of_100_000_messages_each():
    """Per-sender order, nothing lost, nothing twice, from real processes."""
    need("gcc")
    out = run(build("tool_bench"), "many", "--senders", "8", "--messages", "100000", "--bytes", "64")
    assert "800000 messages, exactly once, in order" in out


@pytest.mark.timeout(300)
def test_soak(tmp_path):
    """Processes stopped, killed and started again over full inboxes, ledgers on disk; `make soak` for long."""
    need("gcc")
    out = run(
        build("tool_soak"), "run", "--agents", "40", "--minutes", "0.2", "--kills", "30", "--dir", tmp_path / "ledgers"
    )
    assert "exactly once, in order, nothing lost" in out


@pytest.mark.timeout(300)
def test_wakes():
    """Both sides asleep on one processor, stopped and continued, without the tick that would hide a lost wake-up;
    `make wakes` for long."""
    need("gcc")
    out = run(build("tool_wakes", flags="-DCFN_NO_TICK"), "--minutes", "0.1")
    assert "none lost" in out
    assert "no safety tick" in out
