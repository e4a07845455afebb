"""The swarm: what keeps it in order. Health, messages that kill, cgroups, limits of processes, futures, labels."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, as_completed, wait
from pathlib import Path

import pytest
from waiting import until

from cfnshm import Bus, errors
from cfnshm.swarm import Restart, Swarm, WorkerDied, cgroup, here, output, task, tree

GROUPS = cgroup.Group.make("probe")
if GROUPS is not None:
    GROUPS.remove()
PIDS = Path("/sys/fs/cgroup/pids")  # version 1's controller, where the machine has it


pytestmark = pytest.mark.usefixtures("no_swarm_left")


def hold(task):
    """A task that says that it has begun, and ends when the value "open" is set."""
    bus = here().bus
    bus.state.update("at", lambda old: [*(old or []), task])
    while bus.state.get("open") is None:
        bus.state.wait("open", 0, 10.0)
    return task


# ---- what a task is called ----


def test_status_and_errors_say_what_the_task_is():
    with Swarm(1, restart="never") as swarm:
        future = swarm.submit(hold, {"file": "src/auth.py", "text": "x" * 1000})
        until(lambda: "at task" in swarm.status("worker-1")[0].why)
        why = swarm.status("worker-1")[0].why
        assert "({'file': 'src/auth.py', 'text': 'xxx" in why
        assert len(why) < 150
        os.kill(swarm.status("worker-1")[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"task 1 \(\{'file': 'src/auth.py'"):
            future.result(30)


class Silent:
    def __repr__(self):
        raise RuntimeError("no")


def test_what_cannot_be_shown_can_be_done():
    with Swarm(1) as swarm:
        assert swarm.submit(lambda a, b: 7, Silent(), b="\udc80").result(30) == 7


@pytest.mark.parametrize(
    ("value", "said"),
    [(7, "7"), ("a\nb", "'a\\nb'"), (b"x" * 10**8, "b'" + "x" * 40 + "'..."), (Silent(), "Silent"), (1 << 4000, "int"),
     ([1, [2, [3, [4]]], None, True], "[1, [2, list], None, ...]"),
     ({"a": Silent(), "b": 1.5}, "{'a': Silent, 'b': 1.5}"),
     (Path("/src/auth.py"), "/src/auth.py"), (Path("/a\x1b[31m"), "/a\\x1b[31m")],
    ids=range(9),
)  # fmt: skip
def test_labels_are_short_and_cost_nothing(value, said):
    assert task._short(value) == said


# ---- futures ----


def test_a_future_runs_once_its_task_is_given_and_is_cancelled_before():
    with Swarm(1) as swarm:
        first, second, third = (swarm.submit(hold, n) for n in range(3))
        until(first.running)
        assert not first.cancel()
        assert not second.running()
        assert second.cancel()
        assert second.cancelled()
        assert wait([second], timeout=30).done == {second}  # who waits for it is told
        swarm.bus.state["open"] = True
        assert (first.result(30), third.result(30)) == (0, 2)
        assert swarm.bus.state["at"] == [0, 2]  # what was cancelled was never begun
        with pytest.raises(CancelledError):
            second.result(0)


def test_futures_that_nobody_has_are_cancelled_with_the_swarm():
    swarm = Swarm(1)
    first, second = (swarm.submit(hold, n) for n in range(2))
    until(first.running)
    swarm.bus.state["open"] = True
    swarm.shutdown(cancel_futures=True)
    assert first.result(0) == 0
    assert second.cancelled()
    assert set(as_completed([first, second], timeout=30)) == {first, second}


# ---- messages that kill ----


def reader():
    with here().bus as bus:
        for message in bus:
            if message.body == "poison":
                print("I read", message.body, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            bus.send("listener", message.body)


def test_a_message_that_kills_a_program_again_and_again_is_set_aside():
    policy = Restart("always", limit=20, delay=0.0)
    with Swarm(0) as swarm, Bus(swarm.bus.name, agent="listener") as listener:
        swarm.spawn(reader, agent="reader", restart=policy)
        listener.wait_for("reader", timeout=30)
        listener.send("reader", "before")
        listener.send("reader", "poison", type="order")
        listener.send("reader", "behind")
        assert [listener.recv(timeout=60).body for _ in range(2)] == ["before", "behind"]
        (one,) = swarm.set_aside()
        assert (one.agent, one.sender, one.type) == ("reader", "listener", "order")
        assert swarm.bus.context.text(one.body) == "poison"
        assert [death["why"] for death in one.deaths] == ["killed by SIGKILL"] * 3
        assert all("I read poison" in death["tail"] for death in one.deaths)
        kinds = [event["kind"] for event in swarm.events() if event["agent"] == "reader"]
        assert kinds.count("died") == 3
        assert kinds.count("restarting") == 3
        assert kinds.count("aside") == 1


def test_deaths_before_a_message_was_taken_do_not_count(tmp_path):
    """The first life dies with it; the next two do not come as far."""
    lives = tmp_path / "lives"

    def fragile():
        with open(lives, "a") as file:
            file.write("x")
        number = len(lives.read_text())
        if number in (2, 3):
            os._exit(7)
        message = here().bus.recv(timeout=60)
        if number == 1:
            os._exit(7)
        here().bus.send("listener", [message.body, message.redelivered, message.deliveries])
        here().bus.recv(timeout=60)

    with Swarm(0) as swarm, Bus(swarm.bus.name, agent="listener") as listener:
        swarm.bus.register("reader")
        listener.send("reader", "innocent")
        swarm.spawn(fragile, agent="reader", restart=Restart("always", limit=20, delay=0.0))
        assert listener.recv(timeout=60).body == ["innocent", True, 2]
        assert swarm.set_aside() == []


def test_messages_that_kill_one_each_stay():
    """It must be the same message: who dies of many things is not healed by taking its mail away."""

    def dies_of_each():
        bus = here().bus
        message = bus.recv(timeout=60)
        if message.redelivered:
            message.ack()  # it is skipped at the second time
            bus.send("listener", message.body)
            bus.recv(timeout=60)
        os._exit(1)

    with Swarm(0) as swarm, Bus(swarm.bus.name, agent="listener") as listener:
        swarm.bus.register("reader")
        for n in range(4):
            listener.send("reader", n)
        swarm.spawn(dies_of_each, agent="reader", restart=Restart("always", limit=20, delay=0.0))
        assert [listener.recv(timeout=60).body for _ in range(4)] == [0, 1, 2, 3]
        assert swarm.set_aside() == []


# ---- health ----


def test_who_is_told_of_health_may_end_the_swarm():
    swarm = Swarm(1, health=0.05, on_health=lambda report: swarm.shutdown())
    swarm.process.wait(30)
    until(lambda: swarm._ended is not None)


def test_health_is_reported_again_and_again_and_changes_are_events():
    reports = []
    with Swarm(2, restart="never", health=0.05, on_health=reports.append) as swarm:
        swarm.ready(30)
        until(lambda: reports and reports[-1].counts == {"idle": 2})
        assert reports[-1].state == "healthy"
        seen = swarm.bus.state.lookup("cfnshm/swarm/health").version
        swarm.bus.state.wait("cfnshm/swarm/health", seen, 30)
        os.kill(swarm.status("worker-1")[0].pid, signal.SIGKILL)
        until(lambda: reports[-1].state == "unhealthy")  # half of all
        assert reports[-1].counts == {"idle": 1, "failed": 1}
        assert swarm.bus.state["cfnshm/swarm/health"]["findings"] == ["worker-1 is failed: killed by SIGKILL"]
        assert any("unhealthy" in e["text"] for e in swarm.events() if e["kind"] == "health")
    with pytest.raises(errors.InvalidArgument, match="health is a number"):
        Swarm(1, health=0)


# ---- cgroups ----

DAEMON = """
import os, sys
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.execve(sys.executable, [sys.executable, "-c", '''
import os, signal, sys
open(sys.argv[1], "w").write(str(os.getpid()))
os.rename(sys.argv[1], sys.argv[2])
signal.pause()
''', sys.argv[1], sys.argv[2]], {})
"""


def start_daemon(folder):
    """It leaves its group, its session, its parent, and clears its environment. Returns its pid."""
    draft, ready = f"{folder}/draft", f"{folder}/ready"
    subprocess.run([sys.executable, "-c", DAEMON, draft, ready], check=True)
    until(lambda: os.path.exists(ready))
    return int(Path(ready).read_text())


def gone(pid):
    return (s := tree.stat(pid)) is None or s.state == "Z"


@pytest.mark.skipif(GROUPS is None, reason="this process may not make cgroups")
@pytest.mark.parametrize("how", ["shutdown", "supervisor killed"])
def test_daemons_that_hide_end_with_the_swarm(tmp_path, how):
    with Bus(f"test-{os.getpid()}-daemons", agents=64, temporary=True) as keeper:
        with Swarm(1, name=keeper.name) as swarm:
            pid = swarm.submit(start_daemon, str(tmp_path)).result(30)
            assert not gone(pid)
            if how == "supervisor killed":
                swarm.process.kill()
        until(lambda: gone(pid))
        assert how == "supervisor killed" or str(pid) in swarm.ended["killed"]


@pytest.mark.skipif(GROUPS is None, reason="this process may not make cgroups")
@pytest.mark.parametrize("cgroup", [True, False])
def test_a_pause_of_all_stops_what_left_their_groups(tmp_path, cgroup):
    def leave_the_group():
        return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

    with Swarm(2, cgroup=cgroup, memory="8M") as swarm:
        swarm.ready(30)
        pids = [swarm.submit(leave_the_group).result(30) for _ in range(2)]
        pids += [a.pid for a in swarm.status()]
        assert sorted(swarm.pause()) == ["worker-1", "worker-2"]
        until(lambda: all(tree.stat(pid).state == "T" for pid in pids))
        assert {a.state for a in swarm.status()} == {"paused"}
        swarm.resume()
        until(lambda: all(tree.stat(pid).state != "T" for pid in pids))
        swarm.pause("worker-1")  # one alone is stopped by signals
        until(lambda: [tree.stat(p).state for p in pids].count("T") == 2)
        swarm.resume("worker-1")


@pytest.mark.skipif(GROUPS is None, reason="this process may not make cgroups")
def test_a_swarm_inside_an_agent_is_paused_and_ended_with_it():
    def inner(workers):
        swarm = Swarm(workers, memory="8M")
        swarm.ready(30)
        here().bus.state["inner"] = [swarm.process.pid, swarm.bus.name, *(a.pid for a in swarm.status())]
        here().bus.state.wait("over", 0, 60)

    with Swarm(1) as swarm:
        swarm.submit(inner, 2)
        until(lambda: swarm.bus.state.get("inner"))
        supervisor, name, *workers = swarm.bus.state["inner"]
        swarm.pause()
        until(lambda: all(tree.stat(pid).state == "T" for pid in [supervisor, *workers]))
        swarm.resume()
        swarm.shutdown(drain=0, wait=False)
    assert all(gone(pid) for pid in [supervisor, *workers])
    Bus(name, create=False, agent="").destroy()  # its client was killed with its supervisor


@pytest.mark.skipif(GROUPS is None, reason="this process may not make cgroups")
def test_a_group_that_was_taken_away_is_made_again():
    with Swarm((0, 2)) as swarm:
        (group,) = cgroup._own().glob(f"cfnshm-{swarm.process.pid}-*")
        group.rmdir()
        assert swarm.submit(abs, -3).result(30) == 3
        assert int((group / "cgroup.procs").read_text().split()[0]) == swarm.status()[0].pid
        assert any("taken away" in event["text"] for event in swarm.events())


@pytest.mark.skipif(GROUPS is None, reason="this process may not make cgroups")
def test_empty_groups_of_dead_supervisors_are_swept():
    process = subprocess.Popen(["true"])
    process.wait()
    home = cgroup._own()
    left = home / f"cfnshm-{process.pid}-left"
    left.mkdir()
    cgroup._sweep(home)
    assert not left.exists()


# ---- pauses ----


def test_a_pause_holds_for_who_is_being_started_again():
    with Swarm(1, restart=Restart("always", delay=0.0)) as swarm:
        swarm.ready(30)
        pid = swarm.status("worker-1")[0].pid
        os.kill(swarm.process.pid, signal.SIGSTOP)  # so that the death and the pause come to it together
        os.kill(pid, signal.SIGKILL)
        asked = threading.Thread(target=swarm.pause)
        asked.start()
        until(lambda: swarm.bus.agent_info("supervisor").unread)
        os.kill(swarm.process.pid, signal.SIGCONT)
        asked.join()
        until(lambda: swarm.status("worker-1")[0].pid not in (0, pid))
        until(lambda: swarm.status("worker-1")[0].state == "paused")
        swarm.resume()
        assert swarm.submit(abs, -3).result(30) == 3


def test_a_paused_agent_with_children_in_other_groups_is_stopped_for_good():
    def nap():
        subprocess.run(["sleep", "0.2"], start_new_session=True)

    with Swarm(1) as swarm:
        future = swarm.submit(nap)
        until(lambda: "at task" in swarm.status("worker-1")[0].why)
        swarm.pause()
        swarm.stop("worker-1")
        assert future.result(30) is None
        swarm.wait_for_ends("worker-1", timeout=30)


# ---- limits ----


@pytest.mark.skipif(not os.access(PIDS, os.W_OK), reason="needs the pids controller of cgroups")
def test_processes_up_to_the_limit_and_not_beyond():
    """The limit is met in the fork itself: those that run go on, the others fail with the reason, nobody hangs."""
    group = PIDS / f"cfnshm-test-{os.getpid()}"
    with Swarm((2, 30)) as swarm:
        swarm.ready(30)
        group.mkdir()
        try:
            (group / "cgroup.procs").write_text(str(swarm.process.pid))
            (group / "pids.max").write_text("6")
            futures = [swarm.submit(hold, n) for n in range(30)]
            failed = until(lambda: [a for a in swarm.status() if a.state == "failed"])
            assert all("cannot be started: [Errno 11]" in a.why for a in failed)
            swarm.bus.state["open"] = True
            assert [f.result(60) for f in futures] == list(range(30))
            code = (
                "import sys; open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
                "from cfnshm.swarm import limits\nlimits.need(100, 1 << 20)"
            )
            refused = subprocess.run([sys.executable, "-c", code, str(group)], capture_output=True, text=True)
            assert "OverCapacity" in refused.stderr
            assert "pids.max" in refused.stderr
        finally:
            (group / "pids.max").write_text("max")
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


# ---- logs ----


def test_logs_of_failures_go_after_two_weeks(tmp_path):
    logs = tmp_path / "state" / "logs"
    process = subprocess.Popen(["true"])
    process.wait()
    new, alive = f"swarm-{process.pid}-0123abcd", f"swarm-{os.getpid()}-0123abcd"
    for name, age in ((f"swarm-{process.pid}-abcd0123", 15), (new, 13), ("nightly", 99), ("swarm-prod-api", 99),
                      (alive, 99)):  # fmt: skip
        (logs / name).mkdir(parents=True)
        (logs / name / "worker-1.log").write_text("it failed\n")
        at = time.time() - 86400 * age
        os.utime(logs / name / "worker-1.log", (at, at))
        os.utime(logs / name, (at, at))
    output.sweep()
    assert {p.name for p in logs.iterdir()} == {new, alive, "nightly", "swarm-prod-api"}


# ---- a full bus ----


def test_an_operator_is_heard_on_a_full_bus():
    with Swarm(1, bus_size="16M") as swarm, Bus(swarm.bus.name, agent="") as sender:
        swarm.ready(30)
        boxes = [f"box-{i}" for i in range(40)]
        for box in boxes:
            swarm.bus.register(box)
        with pytest.raises(errors.NoSpace):
            while True:
                for box in boxes:
                    with contextlib.suppress(errors.Full):
                        sender.send(box, b"x", timeout=0)
        assert swarm.status("worker-1")[0].state == "idle"
        assert swarm.pause() == ["worker-1"]
        assert swarm.resume() == ["worker-1"]
