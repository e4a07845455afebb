"""The command: locks, elections, semaphores and barriers, with real commands under them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from shell import COMMAND, EMPTY, FENCED, OK, PATIENCE, UNKNOWN, USAGE, on_a_bus_of_its_own

pytestmark = pytest.mark.skipif(COMMAND is None, reason="the command is not installed")
BROKEN, DIED = 13, 14


@pytest.fixture
def sh(tmp_path):
    yield from on_a_bus_of_its_own(tmp_path)


def holder_of(sh, *what):
    """Starts a command that holds it until its standard input ends; says what it prints first."""
    process = sh.command(*what, "--", "bash", "-c", "echo $$; read -r", stdin=subprocess.PIPE)
    return process, int(process.stdout.readline())


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_command_under_a_lock(sh):
    out = sh.out("lock", "repo", "--", "bash", "-c", "echo $CFNSHM_LOCK $CFNSHM_TOKEN [${CFNSHM_OWNER_DIED-}]")
    name, token, died = out.decode().split()
    assert (name, died) == ("repo", "[]")
    assert int(sh.out("lock", "repo", "--", "printenv", "CFNSHM_TOKEN")) > int(token)
    sh.run("lock", "repo", "--", "bash", "-c", "exit 42", exit=42)
    sh.run("lock", "repo", "--", "bash", "-c", "kill -TERM $$", exit=128 + signal.SIGTERM)
    done = sh.run("lock", "repo", "--", "no-such-command-at-all", exit=127)
    assert b"cannot run no-such-command-at-all" in done.stderr
    sh.run("lock", "repo", "--", "/", exit=126)
    assert b"nobody holds 'repo'" in sh.run("lock", "repo", exit=EMPTY).stderr


def test_who_holds_it_and_who_must_wait(sh):
    process, pid = holder_of(sh, "lock", "repo", "--as", "w")
    assert not gone(pid)
    held = sh.json("lock", "repo")
    assert (held["agent"], held["pid"], held["state"]) == ("w", process.pid, "alive")
    assert sh.lines("lock") == [held]
    assert b"repo" in sh.out("lock")
    late = sh.run("lock", "repo", "--timeout", "0", "--", "true", exit=EMPTY)
    assert b"lock 'repo' is held by agent 'w', process " in late.stderr
    late = sh.run("lock", "repo", "--json", "--timeout", "0.01", "--", "true", exit=EMPTY)
    assert json.loads(late.stdout)["code"] == "TIMEOUT"
    waiting = sh.command("lock", "repo", "--as", "x", "--", "echo", "mine")
    sh.until(lambda: any(a["name"] == "x" and a["waiting"] == "lock" for a in sh.lines("list")), "x to wait")
    process.communicate(b"\n", timeout=PATIENCE)
    assert waiting.communicate(timeout=PATIENCE)[0] == b"mine\n"
    assert sh.out("lock") == b""


def test_the_command_dies_with_the_process_that_holds(sh):
    process, pid = holder_of(sh, "lock", "repo", "--as", "w")
    process.kill()
    process.wait(PATIENCE)
    sh.until(lambda: gone(pid), "the command to die")
    assert sh.json("lock", "repo")["state"] == "dead"
    refused = sh.run("lock", "repo", "--intact", "--", "true", exit=DIED)
    assert b"died holding it: agent 'w', process" in refused.stderr
    told = sh.run("lock", "repo", "--", "printenv", "CFNSHM_OWNER_DIED")
    assert told.stdout.decode() == f"w:{process.pid}\n"
    assert b"died holding it" in told.stderr
    sh.run("lock", "repo", "--intact", "--", "true")


def test_signals_are_the_commands(sh):
    script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do read -r -t 1; done"
    process = sh.command("lock", "repo", "--", "bash", "-c", script, stdin=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE)[0] == b"got it\n"
    assert process.returncode == 7


def test_started_by_who_ignores_the_end_of_its_children(sh):
    """SIGCHLD ignored survives exec, and the kernel tells of no end then."""
    script = "import os,signal,sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    process = sh.start(sys.executable, "-c", script, COMMAND, "lock", "repo", "--", "bash", "-c", "exit 5")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 5


def test_a_stolen_lock_ends_the_command(sh):
    process, pid = holder_of(sh, "lock", "repo", "--as", "w")
    os.kill(process.pid, signal.SIGSTOP)
    sh.until(lambda: sh.json("lock", "repo")["state"] == "stopped", "it to stop")
    assert b"which is stopped" in sh.run("lock", "repo", "--timeout", "0", "--", "true", exit=EMPTY).stderr
    assert sh.out("lock", "repo", "--steal", "--", "echo", "mine") == b"mine\n"
    os.kill(process.pid, signal.SIGCONT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == FENCED
    assert b"is not held by token" in said
    assert gone(pid)


def test_an_election(sh):
    process, _ = holder_of(sh, "elect", "head", "--as", "one")
    assert sh.json("elect", "head")["agent"] == "one"
    assert sh.lines("lock") == []
    sh.run("elect", "head", "--timeout", "0", "--", "true", exit=EMPTY)
    assert sh.out("elect", "head", "--steal", "--", "printenv", "CFNSHM_LEADS") == b"head\n"
    process.communicate(timeout=PATIENCE)
    assert process.returncode == FENCED
    sh.run("elect", "head", exit=EMPTY)


def test_a_lock_under_itself(sh):
    done = sh.run("lock", "r", "--", COMMAND, "lock", "r", "--", "true", exit=10)
    assert b"this command runs under 'r' already" in done.stderr
    sh.run("lock", "r", "--", COMMAND, "lock", "other", "--", "true")


def test_a_semaphore(sh):
    one, _ = holder_of(sh, "semaphore", "cc", "2", "--as", "one")
    two, _ = holder_of(sh, "semaphore", "cc", "2", "--as", "two")
    assert sorted(h["agent"] for h in sh.lines("semaphore", "cc")) == ["one", "two"]
    full = sh.run("semaphore", "cc", "2", "--timeout", "0", "--", "true", exit=EMPTY)
    assert b"all 2 permits" in full.stderr
    sh.run("semaphore", "cc", "3", "--timeout", "0", "--", "true", exit=USAGE)
    one.kill()
    sh.run("semaphore", "cc", "2", "--", "bash", "-c", "exit 5", exit=5)
    two.communicate(b"\n", timeout=PATIENCE)
    sh.run("semaphore", "cc", exit=EMPTY)


def test_a_barrier(sh):
    sh.agents("w0", "w1")
    waiting = [sh.command("barrier", "phase", "3", "--as", f"w{i}") for i in range(2)]
    sh.until(lambda: sum(a["waiting"] == "barrier" for a in sh.lines("list")) == 2, "two to come")
    seen = sh.json("barrier", "phase")
    assert (seen["round"], seen["parties"], seen["arrived"], seen["broken"]) == (1, 3, 2, False)
    assert sorted(p["agent"] for p in seen["known"]) == ["w0", "w1"]
    assert b"round 1: 2 of 3 are here" in sh.out("barrier", "phase")
    assert sh.out("barrier", "phase", "3") == b"2\n"
    assert sorted(w.communicate(timeout=PATIENCE)[0] for w in waiting) == [b"0\n", b"1\n"]
    late = sh.run("barrier", "phase", "3", "--timeout", "0", exit=EMPTY)
    assert b"1 of 3 parties came" in late.stderr
    sh.run("barrier", "phase", "2", exit=USAGE)
    sh.run("barrier", "phase", "delete")
    sh.run("barrier", "phase", exit=EMPTY)


def test_a_barrier_breaks_and_goes_on(sh):
    def waiting(name, *options):
        sh.agents(name)
        process = sh.command("barrier", "b", "3", "--as", name, *options)
        sh.until(
            lambda: any(a["name"] == name and a["waiting"] == "barrier" for a in sh.lines("list")), f"{name} to come"
        )
        return process

    dying, told = waiting("dying"), waiting("told")
    dying.kill()
    assert b"agent 'dying' (process" in told.communicate(timeout=PATIENCE)[1]
    assert told.returncode == BROKEN
    sh.run("barrier", "b", "3", exit=BROKEN)
    sh.run("barrier", "b", "reset")
    dying, on = waiting("dying", "--go-on"), waiting("on", "--go-on")
    dying.kill()
    sh.run("barrier", "b", "3", "--go-on")
    on.communicate(timeout=PATIENCE)
    assert on.returncode == OK
    broken = waiting("w", "--go-on")
    sh.run("barrier", "b", "abort")
    broken.communicate(timeout=PATIENCE)
    assert broken.returncode == BROKEN


def test_wrong_words(sh):
    for words in (("semaphore",), ("semaphore", "x", "0", "--", "true"), ("semaphore", "x", "2"), ("barrier",),
                  ("barrier", "x", "many"), ("barrier", "x", "-1"), ("lock", "", "--", "true")):  # fmt: skip
        assert sh.run(*words, exit=USAGE).stderr
    done = sh.run("lock", "a" * 126, "--json", "--", "true", exit=USAGE)
    assert json.loads(done.stdout)["code"] == "BAD_NAME"


def test_teams_are_listed_and_directed(sh):
    for name, team in (("r1", "red"), ("r2", "red"), ("b1", "blue")):
        sh.run("register", name, "--team", team)
    sh.run("send", "r1", "look")
    assert sh.out("teams").decode().splitlines() == [
        "blue  1 agent, 0 alive, 0 unread", "red   2 agents, 0 alive, 1 unread",
    ]  # fmt: skip
    assert sh.lines("teams")[1] == {"name": "red", "agents": ["r1", "r2"], "alive": 0, "dead": 0, "unread": 1}
    assert sh.json("pause", "--team", "red", "--reason", "quota") == {"paused": ["r1", "r2"]}
    assert sh.json("resume", "--team", "red", "go on") == {"resumed": ["r1", "r2"]}
    assert sh.json("inject", "--team", "blue", "and you") == {"injected": ["b1"]}
    assert sh.json("stop", "--team", "blue") == {"stopping": ["b1"]}
    assert sh.json("stop", "r1") == {"stopping": "r1"}
    assert b"one AGENT or --team TEAM" in sh.run("pause", exit=USAGE).stderr
    assert b"no team 'green'" in sh.run("pause", "--team", "green", exit=UNKNOWN).stderr
