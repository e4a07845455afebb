"""`cfnshm swarm` as it is typed: real commands, run and directed from another shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from shell import COMMAND
from waiting import until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Logs go to the test's folder; the bus has a name of its own."""
    monkeypatch.setenv("CFNSHM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CFNSHM_BUS", f"test-{os.getpid()}-swarm")


def swarm(*args, stdin=None, timeout=60):
    return subprocess.run([COMMAND, "swarm", *args], input=stdin, capture_output=True, text=True, timeout=timeout)


def test_tasks_from_standard_input():
    done = swarm("run", "--agents", "3", "--tasks", "-", "--", "sh", "-c", "echo got {}", stdin="a\nb c\nd\n")
    assert sorted(done.stdout.splitlines()) == ["got a", "got b c", "got d"]
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("topology", ["mesh", "hybrid", "tree"])
def test_topologies(topology):
    tasks = "".join(f"{n}\n" for n in range(20))
    done = swarm("run", "--agents", "4", "--topology", topology, "--coordinators", "2", "--tasks", "-", "--", "cat",
                 stdin=tasks)  # fmt: skip
    assert sorted(done.stdout.replace("\n", "")) == sorted(tasks.replace("\n", ""))
    assert done.returncode == 0


def test_a_task_that_fails_is_named_with_its_output(tmp_path):
    file = tmp_path / "tasks"
    file.write_text("1\n2\n")
    done = swarm("run", "--tasks", str(file), "--", "sh", "-c", "echo about {} >&2; exit $(({}-1))")
    assert done.returncode == 1
    assert "task '2'" in done.stderr
    assert "exit 1" in done.stderr
    assert "| about 2" in done.stderr
    done = swarm("run", "--tasks", str(file), "--json", "--", "sh", "-c", "echo {}; exit $(({}-1))")
    rows = {row["task"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["1"]["exit"] == 0
    assert rows["1"]["stdout"] == "1\n"
    assert rows["2"]["exit"] == 1
    assert "exit 1" in rows["2"]["error"]


def test_what_is_missing_after_a_timeout_is_named():
    done = swarm("run", "--agents", "2", "--tasks", "-", "--timeout", "0.5", "--", "sh", "-c",
                 "test {} = 1 || exec sleep 1000", stdin="1\n2\n")  # fmt: skip
    assert done.returncode == 3
    assert "1 of 2 tasks have no answer after 0.5 s: worker-" in done.stderr


def test_agents_that_run_a_program_each_and_talk():
    script = 'if [ {} = 1 ]; then cfnshm recv --timeout 30; else cfnshm send agent-1 "from $CFNSHM_AGENT"; fi'
    done = swarm("run", "--agents", "2", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" agent-1 out| ")[1] == "from agent-2\n"


def test_a_program_that_fails_is_the_exit_status():
    done = swarm("run", "--agents", "3", "--", "sh", "-c", "exit $(({}/3))")
    assert done.returncode == 1
    assert done.stderr == "cfnshm swarm: agent-3 exited with 1\n"


def test_one_that_runs_is_directed_from_another_shell(tmp_path):
    running = subprocess.Popen([COMMAND, "swarm", "run", "--agents", "3", "--quiet", "--", "sh", "-c",
                                "echo here; exec sleep 1000"])  # fmt: skip
    try:
        until(lambda: swarm("status").stdout.count("working") == 4)  # three agents, and their number in the head
        lines = swarm("status").stdout.splitlines()
        assert "3 agents" in lines[0]
        assert lines[1].split() == ["AGENT", "STATE", "SINCE", "PID", "UNREAD", "CPU", "WHY"]
        assert swarm("pause", "agent-2").stdout == "agent-2\n"
        states = {row["agent"]: row["state"] for row in map(json.loads, swarm("status", "--json").stdout.splitlines())}
        assert states == {"agent-1": "working", "agent-2": "paused", "agent-3": "working"}
        assert json.loads(swarm("resume", "--json").stdout) == {"resumed": ["agent-1", "agent-2", "agent-3"]}
        assert swarm("health").returncode == 0
        assert "agent-1 out| here" in swarm("logs", "agent-1").stdout
        follower = subprocess.Popen([COMMAND, "swarm", "logs", "-f", "-n", "1"], stdout=subprocess.PIPE, text=True)
        assert " out| " in follower.stdout.readline()
        assert swarm("stop", "agent-3").stdout == "agent-3\n"
        until(lambda: "supervisor out| agent-3 ended: killed by SIGTERM" in follower.stdout.readline())
        assert "agent-3 ended" in swarm("events").stdout
        unknown = swarm("pause", "agent-9")
        assert unknown.returncode == 5
        assert "no agent and no team 'agent-9' is in this swarm" in unknown.stderr
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    assert "swarm ended" in follower.communicate(timeout=30)[0]  # it ends with the swarm
    gone = swarm("status")
    assert gone.returncode == 12
    assert "no bus" in gone.stderr


def test_interrupted_twice_it_is_gone_when_it_returns_and_the_next_one_runs():
    script = "trap '' INT TERM; echo here; sleep 1000; sleep 1000"
    running = subprocess.Popen([COMMAND, "swarm", "run", "--agents", "2", "--", "sh", "-c", script],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    for _ in range(2):
        running.stdout.readline()
    running.send_signal(signal.SIGINT)
    until(lambda: "terminat" in swarm("events").stdout)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    assert running.returncode == 130
    done = swarm("run", "--agents", "2", "--tasks", "-", "--", "cat", stdin="a\nb\n")
    assert done.returncode == 0, done.stderr


def test_mistakes_are_told():
    assert "cfnshm swarm run --agents N -- COMMAND" in swarm("run").stderr
    assert swarm("run", "--agents", "0", "--", "true").returncode == 2
    assert swarm("run", "--topology", "mesh", "--", "true").returncode == 2
    refused = swarm("run", "--agents", "5", "--memory", "1000G", "--", "true")
    assert refused.returncode == 11
    assert "at most 0" in refused.stderr
    assert swarm("run", "--tasks", "/nowhere", "--", "true").returncode == 1
