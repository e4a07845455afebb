"""A swarm of real processes: tasks, deaths, pauses, topologies, ends. What happens to a worker happens for real."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import threading
from pathlib import Path

import pytest
from waiting import until

from cfnshm import Bus, Timeout
from cfnshm.swarm import AsyncSwarm, Command, Restart, Swarm, SwarmEnded, TaskError, WorkerDied, here, tree
from cfnshm.swarm.deal import Dealer

pytestmark = pytest.mark.timeout(120)


pytestmark = pytest.mark.usefixtures("no_swarm_left")


def square(n):
    return n * n


class Marks:
    """Lines that processes append to one file: who did what, also those that died."""

    def __init__(self, path):
        self.path = str(path)

    def add(self, text):
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{text}\n".encode())
        os.close(fd)

    def all(self):
        return Path(self.path).read_text().splitlines() if os.path.exists(self.path) else []

    def wait(self, text, seconds=30.0):
        until(lambda: text in self.all(), seconds)


class Gate:
    """Processes wait here until the test opens it: a file that the test holds locked."""

    def __init__(self, path):
        self.path = str(path)
        self.file = open(path, "w")  # noqa: SIM115
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def open(self):
        self.file.close()

    def wait(self):
        with open(self.path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    def __reduce__(self):  # what goes to a worker is its path
        return _gate, (self.path,)


def _gate(path):
    gate = Gate.__new__(Gate)
    gate.path, gate.file = path, None
    return gate


# ---- tasks ----


@pytest.mark.parametrize(
    ("size", "arguments"),
    [(3, {"topology": "flat"}), (6, {"topology": "mesh", "coordinators": 2}),
     (6, {"topology": "hybrid", "coordinators": 3}), (8, {"topology": "tree", "coordinators": 2, "depth": 4})],
)  # fmt: skip
def test_every_task_is_done_once_in_every_topology(size, arguments, tmp_path):
    marks = Marks(tmp_path / "marks")

    def work(n):
        marks.add(n)
        return n * n

    with Swarm(size, **arguments) as swarm:
        results = swarm.run(range(200), work, timeout=60)
        assert results.values == [n * n for n in range(200)]
        assert results.complete
        assert not results.missing
        assert sorted(map(int, marks.all())) == list(range(200))
        assert {o.agent for o in results} <= {f"worker-{i + 1}" for i in range(size)}
        assert swarm.late == 0


def test_as_an_executor():
    with Swarm(2) as swarm:
        assert swarm.submit(pow, 2, 10).result(30) == 1024
        assert list(swarm.map(pow, [1, 2, 3], [2, 2, 2], timeout=30)) == [1, 4, 9]
        with pytest.raises(ZeroDivisionError) as caught:
            swarm.submit(lambda: 1 / 0).result(30)
        assert isinstance(caught.value.__cause__, TaskError)
        assert "in agent 'worker-" in str(caught.value.__cause__)
        assert "ZeroDivisionError" in caught.value.__cause__.remote


def test_what_a_task_raises_is_its_answer():
    class Odd(Exception):
        def __init__(self, a, b):  # cannot be unpickled
            super().__init__("odd")

    def work(n):
        if n == 1:
            raise ValueError("no ones")
        if n == 2:
            raise Odd(1, 2)
        if n == 3:
            raise SystemExit("away")
        if n == 4:
            return threading.Lock()  # cannot be pickled
        return n

    with Swarm(1) as swarm:
        results = swarm.run(range(6), work, timeout=30)
        assert [o.done for o in results] == [True, False, False, False, False, True]
        texts = [str(o.error) for o in results.errors]
        assert "no ones" in texts[0]
        assert isinstance(results[1].error.__cause__, ValueError)
        assert "Odd" in texts[1]
        assert "away" in texts[2]
        assert "pickle" in texts[3]
        assert swarm.status("worker-1")[0].restarts == 0
        with pytest.raises(TaskError, match="no ones"):
            _ = results.values


def test_a_late_answer_is_not_counted(tmp_path):
    gate = Gate(tmp_path / "gate")

    def work(n):
        if n == 0:
            gate.wait()
        return n

    with Swarm(2) as swarm:
        assert swarm.run(range(1, 9), work, timeout=60).complete  # both have loaded what they need
        results = swarm.run([0, 1, 2], work, timeout=2.0)
        assert [o.done for o in results] == [False, True, True]
        assert results.missing[0].agent.startswith("worker-")
        with pytest.raises(Timeout, match=r"worker-\d has 1"):
            _ = results.values
        gate.open()
        until(lambda: swarm.late == 1)
        assert swarm.run([5], work, timeout=30).values == [5]


def test_missing_tasks_are_named_below_coordinators(tmp_path):
    gate = Gate(tmp_path / "gate")
    with Swarm(4, topology="hybrid", coordinators=2) as swarm:
        results = swarm.run([0], lambda n: gate.wait(), timeout=0.5)
        assert results.missing[0].agent.startswith("worker-")
        gate.open()


def test_partial_results_and_progress():
    def work(n):
        here().partial(n + 0.5)
        return n

    seen, steps = [], []
    with Swarm(4, topology="hybrid", coordinators=2) as swarm:
        results = swarm.run(
            range(5), work, timeout=30, on_partial=lambda task, value: seen.append((task, value)),
            on_progress=lambda done, of, outcome: steps.append((done, of)),
        )  # fmt: skip
        assert results.complete
    assert sorted(seen) == [(n, n + 0.5) for n in range(5)]
    assert steps == [(n, 5) for n in range(1, 6)]


def test_agents_know_their_place_and_reach_each_other():
    def work(to):
        place = here()
        place.bus.send(to, [place.agent, place.team, place.parent, place.peers])
        return place.agent

    with Swarm(4, topology="hybrid", coordinators=2) as swarm, Bus(swarm.bus.name, agent="listener") as listener:
        by = swarm.run(["listener"], work, timeout=30).values[0]
        agent, team, parent, peers = listener.recv(timeout=30).body
        assert agent == by
        assert parent == f"coordinator-{team[-1]}"
        assert len(peers) == 1
        teams = {info.team for info in listener.agents(type="worker")}
        assert teams == {"team-1", "team-2"}


def test_mail_among_workers_is_not_mixed_with_tasks():
    def work(n):
        place = here()
        other = {"worker-1": "worker-2", "worker-2": "worker-1"}[place.agent]
        place.bus.send(other, [n, place.agent])
        return place.recv(timeout=30).body[1] == other

    with Swarm(2, room=3) as swarm:
        assert swarm.run(range(6), work, timeout=60).values == [True] * 6
        swarm.bus.broadcast("for later", agent_type="worker")
        assert swarm.run(range(2), lambda n: here().recv(timeout=30).body, timeout=60).values[0] == "for later"


def test_nobody_is_not_everybody():
    from cfnshm import AgentBusy, InvalidArgument

    with Swarm(1) as swarm:
        with pytest.raises(InvalidArgument, match="say who"):
            swarm.stop()
        with pytest.raises(AgentBusy, match="has a swarm already"):
            Swarm(1, name=swarm.bus.name)
        swarm.spawn(["/no/such/program"], agent="none")
        until(lambda: swarm.status("none")[0].why == "exited with 127")
        assert "cannot run '/no/such/program': No such file or directory" in swarm.tail("none")[0]


def test_an_elastic_swarm_grows_and_shrinks():
    barrier = threading.Event()
    with Swarm((1, 4), idle=0.2) as swarm:
        together = lambda n: here().bus.barrier("all", parties=4).wait(30) is not None  # noqa: E731
        assert swarm.run(range(4), together, timeout=60).complete  # only four workers at once can do that
        until(lambda: [a.state for a in swarm.status() if a.state != "done"] == ["idle"])
        assert swarm.run(range(3), square, timeout=30).values == [0, 1, 4]
    barrier.set()


def test_asyncio():
    async def main():
        async with AsyncSwarm(2) as swarm:
            assert await swarm.submit(square, 5) == 25
            with pytest.raises(ZeroDivisionError):
                await swarm.submit(lambda: 1 / 0)
            assert (await swarm.run(range(10), square, timeout=30)).values == [n * n for n in range(10)]
            came = [outcome.value async for outcome in swarm.outcomes(range(10), square, timeout=30)]
            assert sorted(came) == sorted(n * n for n in range(10))
            assert await swarm.call("ready", timeout=30) == 2

    asyncio.run(main())


# ---- who has what ----


def dealt(dealer, sequence):
    member, task = dealer.next()
    dealer.sent(member, task, sequence)
    return member.name, task.id


def test_a_dealer_gives_each_task_to_one_and_takes_turns():
    dealer = Dealer()
    dealer.join("a", 1)
    dealer.join("b", 2)
    assert [dealer.add(n, b"") for n in (1, 2, 3, 4, 1)] == [True, True, True, True, False]
    assert [dealt(dealer, s) for s in (1, 2, 3)] == [("a", 1), ("b", 2), ("b", 3)]
    assert dealer.next() is None
    assert dealer.done(2).id == 2
    assert dealt(dealer, 4) == ("b", 4)
    assert dealer.done(2) is None
    assert dealer.late == 1


def test_a_message_that_is_returned_twice_counts_once():
    dealer = Dealer()
    dealer.join("a", 1)
    dealer.add(1, b"")
    dealt(dealer, 7)
    assert dealer.returned(1, "b", 7) is None
    assert dealer.returned(1, "a", 6) is None
    assert dealer.returned(1, "a", 7).id == 1
    assert dealt(dealer, 8) == ("a", 1)
    assert dealer.returned(1, "a", 7) is None  # who brought it back died before he had acked it
    assert dealer.next() is None


def test_a_member_that_leaves_or_rests_is_given_nothing():
    dealer = Dealer()
    for name in ("a", "b"):
        dealer.join(name, 1)
    dealer.add(1, b"")
    assert dealt(dealer, 1) == ("a", 1)
    dealer.rest("b", True)
    dealer.add(2, b"")
    assert dealer.next() is None
    assert [task.id for task in dealer.leave("a")] == [1]
    assert dealer.next() is None
    dealer.rest("b", False)
    assert dealt(dealer, 2) == ("b", 1)


def test_of_two_places_where_a_task_was_found_the_later_counts():
    dealer = Dealer()
    for name in ("a", "b"):
        dealer.join(name, 1)
    dealer.found(1, b"", "b", 5, at=20.0)
    dealer.found(1, b"", "a", 4, at=10.0)
    assert dealer.tasks[1].at == "b"
    assert dealer.returned(1, "a", 4) is None
    dealer.found(1, b"", "a", 6, at=30.0)
    assert dealer.tasks[1].at == "a"
    assert not dealer.members["b"].held


# ---- deaths of workers ----


def test_a_worker_killed_during_a_task_is_replaced_and_the_task_done(tmp_path):
    marks = Marks(tmp_path / "marks")

    def work(n):
        marks.add(n)
        if n == 3 and marks.all().count("3") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    with Swarm(2) as swarm:
        assert swarm.run(range(10), work, timeout=60).values == list(range(10))
        assert sum(a.restarts for a in swarm.status()) == 1
        assert sorted(marks.all()) == sorted([*map(str, range(10)), "3"])
        assert any(e["kind"] == "died" and "SIGKILL" in e["text"] for e in swarm.events())


def test_a_worker_killed_after_its_task_does_not_do_it_again(tmp_path):
    """Between the sending of the result and the ack."""
    marks = Marks(tmp_path / "marks")

    def work(n):
        marks.add(n)
        place = here()
        send = type(place.bus).send

        def and_die(self, *a, **k):
            send(self, *a, **k)
            if k.get("type") == "swarm.result":
                os.kill(os.getpid(), signal.SIGKILL)

        if n == 1:
            type(place.bus).send = and_die
        return n

    with Swarm(1) as swarm:
        assert swarm.run(range(4), work, timeout=60).values == list(range(4))
        assert sorted(marks.all()) == ["0", "1", "2", "3"]
        assert swarm.status("worker-1")[0].restarts == 1
        assert swarm.late == 0


def test_a_worker_killed_before_its_task_has_it_done_by_the_next(tmp_path):
    marks = Marks(tmp_path / "marks")
    with Swarm(1) as swarm:
        swarm.ready(30)
        pid = swarm.status("worker-1")[0].pid
        os.kill(pid, signal.SIGSTOP)
        future = swarm.submit(marks.add, "done")
        os.kill(pid, signal.SIGKILL)
        assert future.result(30) is None
        assert marks.all() == ["done"]


def test_a_task_that_kills_its_workers_is_set_aside_with_its_history():
    def work(n):
        if n == 0:
            print("this is the one that kills", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        return n

    with Swarm(2, max_deaths=3) as swarm:
        results = swarm.run(range(20), work, timeout=60)
        (bad,) = results.errors
        assert isinstance(bad.error, WorkerDied)
        assert len(bad.error.deaths) == 3
        assert "was set aside: 3 processes died with it" in str(bad.error)
        assert "killed by SIGSEGV" in str(bad.error)
        assert "this is the one that kills" in str(bad.error)
        assert sum(o.done for o in results) == 19


@pytest.mark.parametrize("topology", ["flat", "hybrid"])
def test_without_a_worker_left_tasks_fail_and_nobody_waits(topology):
    with Swarm(2, topology=topology, restart="never", max_deaths=100) as swarm:
        results = swarm.run(range(5), lambda n: os.kill(os.getpid(), signal.SIGKILL), timeout=60)
        assert len(results.errors) == 5
        assert all(isinstance(o.error, WorkerDied) for o in results)
        assert swarm.health().state == "unhealthy"


def test_a_lost_worker_s_tasks_go_to_the_others(tmp_path):
    marks = Marks(tmp_path / "marks")

    def work(n):
        if here().agent == "worker-1":
            os.kill(os.getpid(), signal.SIGKILL)
        marks.add(n)
        return n

    with Swarm(2, restart="never", room=5) as swarm:
        assert swarm.run(range(10), work, timeout=60).values == list(range(10))
        assert sorted(map(int, marks.all())) == list(range(10))
        one = swarm.status("worker-1")[0]
        assert one.state == "failed"
        assert "SIGKILL" in one.why


def test_restarts_are_limited():
    with Swarm(1, restart=Restart("on-failure", limit=2, delay=0.01), max_deaths=100) as swarm:
        results = swarm.run([0], lambda n: os._exit(7), timeout=60)
        assert isinstance(results[0].error, WorkerDied)
        assert [d["why"] for d in results[0].error.deaths] == ["exited with 7"] * 3
        assert "is not started again" in swarm.status("worker-1")[0].why


# ---- deaths above ----


@pytest.mark.parametrize("failover", ["adopt", "replace"])
@pytest.mark.parametrize("who", ["coordinator-1", "master"])
def test_a_coordinator_killed_in_mid_run_loses_nothing_and_repeats_nothing(tmp_path, failover, who):
    marks = Marks(tmp_path / "marks")

    def work(n):
        marks.add(n)
        return n

    with Swarm(6, topology="hybrid", coordinators=2, failover=failover) as swarm:
        swarm.ready(30)
        killed = []

        def progress(done, of, outcome):
            if done in (50, 150, 250):
                killed.append(one := swarm.status(who)[0])
                if one.pid:
                    os.kill(one.pid, signal.SIGKILL)

        results = swarm.run(range(400), work, timeout=90, on_progress=progress)
        assert results.values == list(range(400))
        assert sorted(map(int, marks.all())) == list(range(400))
        assert killed
        if failover == "adopt" and who != "master":
            assert swarm.status(who)[0].state == "adopted"
        else:
            assert swarm.status(who)[0].restarts >= 1


def test_all_coordinators_killed_at_once(tmp_path):
    marks = Marks(tmp_path / "marks")

    def work(n):
        marks.add(n)
        return n

    with Swarm(6, topology="hybrid", coordinators=2) as swarm:
        swarm.ready(30)

        def progress(done, of, outcome):
            if done % 100 == 0:
                for one in swarm.status():
                    if one.role == "coordinator" and one.pid:
                        os.kill(one.pid, signal.SIGKILL)

        assert swarm.run(range(400), work, timeout=90, on_progress=progress).values == list(range(400))
        assert sorted(map(int, marks.all())) == list(range(400))


def test_coordinators_that_are_stopped_delay_and_lose_nothing():
    names = {"coordinator-1", "coordinator-2"}
    with Swarm(4, topology="mesh", coordinators=2) as swarm:
        swarm.ready(30)
        pids = [swarm.status(name)[0].pid for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        results = swarm.run(range(4), square, timeout=0.2)
        assert len(results.missing) == 4
        assert {o.agent for o in results.missing} == names
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert swarm.run(range(40), square, timeout=30).complete


def test_a_supervisor_killed_ends_everything(tmp_path):
    gate = Gate(tmp_path / "gate")
    keeper = Bus(f"test-{os.getpid()}-sup", agents=64)
    swarm = Swarm(3, name=keeper.name)
    try:
        swarm.spawn(["sh", "-c", "setsid sleep 1000 & sleep 1000"], agent="daemon")
        future = swarm.submit(gate.wait)
        until(lambda: len([a for a in swarm.status() if a.pid]) == 4)
        until(lambda: len(tree.descendants(swarm.process.pid)) >= 7)
        pids = tree.descendants(swarm.process.pid)
        os.kill(swarm.process.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="supervisor ended"):
            future.result(30)
        with pytest.raises(SwarmEnded):
            swarm.submit(square, 1)
        until(lambda: not [p for p in pids if (s := tree.stat(p)) and s.state != "Z"])
    finally:
        gate.open()
        swarm.shutdown()
        keeper.reap()
        assert keeper.check() == []  # the dead are recycled, and nothing else is to say
        keeper.destroy()


def test_a_client_killed_ends_everything(spawn):
    read, write = os.pipe()

    def client():
        swarm = Swarm(3)
        swarm.ready(30)
        os.write(write, f"{swarm.process.pid} {swarm.bus.name}".encode())
        threading.Event().wait()

    child = spawn(client)
    supervisor, name = os.read(read, 200).split()
    pids = [int(supervisor), *tree.descendants(int(supervisor))]
    assert len(pids) == 5  # the supervisor, three workers, who writes the logs
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: not [p for p in pids if (s := tree.stat(p)) and s.state != "Z"])
    until(lambda: not list(Path("/dev/shm").glob(f"*{name.decode()}*")))


# ---- pausing, stopping ----


def test_pause_and_resume_lose_nothing():
    with Swarm(6, topology="hybrid", coordinators=2) as swarm:
        swarm.ready(30)
        future = swarm.submit(square, 3)
        assert future.result(30) == 9
        assert len(swarm.pause()) == 9
        assert {a.state for a in swarm.status()} == {"paused"}
        late = [swarm.submit(square, n) for n in range(50)]
        assert len(swarm.resume()) == 9
        assert [f.result(30) for f in late] == [n * n for n in range(50)]
        assert not any(a.state in ("stalled", "failed", "paused") for a in swarm.status())


def test_a_paused_worker_is_given_nothing():
    with Swarm(2) as swarm:
        swarm.ready(30)
        swarm.pause("worker-1")
        results = swarm.run(range(10), square, timeout=30)
        assert {o.agent for o in results} == {"worker-2"}
        swarm.resume("worker-1")
        assert swarm.run(range(2), lambda n: here().bus.barrier("two", parties=2).wait(30), timeout=60).complete


def test_a_team_is_paused_as_one_and_gets_an_instruction():
    with Swarm(4, topology="mesh", coordinators=2) as swarm:
        swarm.ready(30)
        assert set(swarm.pause("team-2")) == {"coordinator-2", "worker-3", "worker-4"}
        states = {a.agent: a.state for a in swarm.status()}
        assert [n for n, s in states.items() if s == "paused"] == ["coordinator-2", "worker-3", "worker-4"]
        swarm.resume("worker-3", "worker-4", "coordinator-2", instruction="skip the slow ones")

        def told(n):
            place = here()
            place.bus.barrier("four", parties=4).wait(30)
            return place.agent, list(place.instructions)

        said = dict(swarm.run(range(4), told, timeout=60).values)
        assert said["worker-3"] == ["skip the slow ones"]
        assert said["worker-1"] == []


def test_stop_ends_one_and_its_tasks_go_to_others(tmp_path):
    gate = Gate(tmp_path / "gate")

    def work(n):
        if n < 2:
            gate.wait()
        return n, here().agent

    with Swarm(2, room=4) as swarm:
        futures = [swarm.submit(work, n) for n in range(8)]
        until(lambda: all(a.why.startswith("at task") for a in swarm.status()))
        assert swarm.stop("worker-1") == ["worker-1"]
        gate.open()
        answers = [f.result(30) for f in futures]
        assert [n for n, _ in answers] == list(range(8))
        assert len([a for _, a in answers if a == "worker-1"]) == 1
        until(lambda: swarm.status("worker-1")[0].state == "done")


def test_time_in_which_nobody_ran_counts_against_nobody():
    from cfnshm.swarm.clock import Clock

    clock = Clock()
    pid = os.fork()
    if pid == 0:  # stops and wakes the test's process
        os.kill(os.getppid(), signal.SIGSTOP)
        threading.Event().wait(3)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.waitpid(pid, 0)
    assert clock.tick(0.5) < 2.0
    assert clock.lost > 1.0


# ---- programs and commands ----


def test_commands_as_tasks():
    with Swarm(2, worker=Command(["sh", "-c", "echo got $1 in $CFNSHM_AGENT; test $1 != 3", "-", "{}"])) as swarm:
        results = swarm.run(range(5), timeout=30)
        assert results[0].value.text.startswith("got 0 in worker-")
        assert results[0].value.exit == 0
        assert "exit 1" in str(results[3].error)
        (echo,) = swarm.run(["text\n$ \" ' é"], Command(["cat"]), timeout=30).values
        assert echo.text == "text\n$ \" ' é"


def test_commands_that_read_nothing_of_what_they_are_given():
    with Swarm(2, Command(["true"])) as swarm:
        results = swarm.run(["x" * 200_000] * 60, timeout=60)
        assert [v.exit for v in results.values] == [0] * 60
        assert [a.restarts for a in swarm.status()] == [0, 0]


def test_a_program_is_ended_by_a_broken_pipe_as_everywhere(tmp_path):
    mark = tmp_path / "mark"
    with Swarm(0) as swarm:
        swarm.spawn(["bash", "-c", f"(yes; echo $? > {mark}) | head -n 1"], agent="shell")
        assert swarm.wait_for_ends("shell", timeout=30)[0].state == "done"
        assert mark.read_text() == "141\n"


def test_a_command_that_forks_daemons_and_one_that_closes_stdout_and_lives_on(tmp_path):
    mark = tmp_path / "pid"
    daemon = Command(["sh", "-c", f"setsid sh -c 'echo $$ > {mark}; exec sleep 1000' >/dev/null 2>&1 & "
                                  f"until [ -s {mark} ]; do :; done; echo done"])  # fmt: skip
    closed = Command(["sh", "-c", "exec 1>&- 2>&-; sleep 0.3; exit 5"], check=False)
    with Swarm(1) as swarm:
        assert swarm.run([""], daemon, timeout=30).values[0].text == "done\n"
        pid = int(mark.read_text())
        until(lambda: tree.stat(pid) is None)
        assert swarm.run([""], closed, timeout=30).values[0].exit == 5


def test_a_command_that_prints_100_megabytes():
    loud = Command(["sh", "-c", "head -c 104857600 /dev/zero | tr '\\0' x; echo; echo end"], output=1000)
    with Swarm(1) as swarm:
        (said,) = swarm.run([""], loud, timeout=100).values
        assert said.stdout.endswith(b"x\nend\n")
        assert len(said.stdout) == 1000
        assert said.cut > 100_000_000


def test_a_command_with_a_timeout_is_killed_with_all_it_started(tmp_path):
    mark = tmp_path / "pid"
    slow = Command(["sh", "-c", f"trap '' TERM; sleep 1000 & echo $! > {mark}; wait"], timeout=0.5)
    with Swarm(1) as swarm:
        (outcome,) = swarm.run([""], slow, timeout=30)
        assert "was killed after 0.5 s" in str(outcome.error)
        until(lambda: tree.stat(int(mark.read_text())) is None)


def test_programs_are_agents_of_their_own(tmp_path):
    def talk(to):
        place = here()
        place.bus.send(to, f"I am {place.agent}")
        place.bus.recv(timeout=30)

    with Swarm(0) as swarm, Bus(swarm.bus.name, agent="listener") as listener:
        swarm.spawn(talk, "listener", agent="python-1", team="talkers")
        swarm.spawn(["sh", "-c", "cfnshm send listener \"I am $CFNSHM_AGENT\""], agent="shell-1")
        said = sorted(listener.recv(timeout=30).body for _ in range(2))
        assert said == ["I am python-1", "I am shell-1"]
        until(lambda: swarm.status("shell-1")[0].state == "done")
        listener.send("python-1", "end")
        until(lambda: swarm.status("python-1")[0].state == "done")


def test_output_goes_to_logs_and_into_errors(tmp_path):
    logs = tmp_path / "logs"

    def work(n):
        print(f"line {n}")
        if n == 1:
            os.write(2, b"about to go\n")
            os._exit(3)
        return n

    with Swarm(1, logs=logs, max_deaths=1) as swarm:
        (outcome,) = swarm.run([1], work, timeout=30)
        assert "exited with 3" in str(outcome.error)
        assert "about to go" in str(outcome.error)
        swarm.spawn(["sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo row $i; i=$((i+1)); done"], agent="loud")
        lines = swarm.logs_of("loud")
        seen = [next(lines) for _ in range(3000)]
        lines.close()
        assert seen[0].split(" loud out| ")[1] == "row 0"
        assert seen[-1].endswith(" loud out| row 2999")
    assert (logs / "worker-1.log").exists()


def test_logs_are_rotated(tmp_path):
    from cfnshm.swarm.output import KEPT, Log, tail

    log = Log(tmp_path, "a", 4096)
    for i in range(1000):
        log.write("out", f"line {i}\npart of ".encode())
    log.write("out", b"the last", end=True)
    log.rest()
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["a.log", *(f"a.log.{i}" for i in range(1, KEPT + 1))]
    assert all(f.stat().st_size <= 4096 + 100 for f in files)
    assert tail(tmp_path / "a.log", 1)[0].endswith("a out| part of the last")


# ---- ends ----


def test_one_that_ignores_sigterm_is_killed(tmp_path):
    marks = Marks(tmp_path / "marks")
    swarm = Swarm(0)
    swarm.spawn(["sh", "-c", f"trap '' TERM; echo on >> {marks.path}; while :; do sleep 1000; done"], agent="stubborn")
    marks.wait("on")
    pid = swarm.status("stubborn")[0].pid
    swarm.shutdown(drain=0, terminate=0.3)
    assert tree.stat(pid) is None


def test_shutdown_waits_for_what_was_submitted(tmp_path):
    marks = Marks(tmp_path / "marks")
    with Swarm(2) as swarm:
        for n in range(20):
            swarm.submit(marks.add, n)
    assert sorted(map(int, marks.all())) == list(range(20))
    with pytest.raises(Exception, match="shut down"):
        swarm.submit(square, 1)
    assert not swarm.logs.exists()


def test_more_than_the_machine_carries_is_refused():
    from cfnshm import OverCapacity

    with pytest.raises(OverCapacity, match="at most") as caught:
        Swarm(100, memory="100G")
    assert caught.value.have < 100
    assert caught.value.want == 100


def test_one_swarm_on_a_bus():
    from cfnshm import AgentBusy, Error

    name = f"test-{os.getpid()}-one"
    with Bus(name, agents=64, temporary=True), Swarm(1, name=name) as swarm:
        with pytest.raises((AgentBusy, Error), match="has a swarm already"):
            Swarm(1, name=name)
        assert swarm.run([2], square, timeout=30).values == [4]


# ---- rare orders of things ----


def test_a_peer_goes_on_with_its_own_team_while_the_adopted_one_is_idle(tmp_path):
    gate = Gate(tmp_path / "gate")
    with Swarm(2, topology="mesh", coordinators=2) as swarm:
        swarm.ready(30)
        swarm.pause("coordinator-1")
        future = swarm.submit(gate.wait)  # of the team of coordinator-2
        swarm.resume()
        os.kill(swarm.status("coordinator-1")[0].pid, signal.SIGKILL)
        until(lambda: swarm.status("coordinator-1")[0].state == "adopted")
        gate.open()
        assert future.result(30) is None


def test_a_coordinator_that_is_told_to_end_before_it_has_begun_ends():
    swarm = Swarm(4, topology="mesh", coordinators=2)
    swarm.shutdown()
    assert len(swarm.ended["drained"]) == 6
    assert swarm.ended["terminated"] == swarm.ended["killed"] == []


def test_long_tasks_do_not_fill_an_inbox_and_are_known_to_the_next_master(tmp_path):
    """A coordinator's lane is as long as from its oldest message to its newest: old ones move to its end."""
    gates, marks = [Gate(tmp_path / "gate-0"), Gate(tmp_path / "gate-1")], Marks(tmp_path / "marks")

    def work(n):
        marks.add(n)
        if n < 2:
            gates[n].wait()
        return n

    with Swarm(4, topology="hybrid", coordinators=2, lanes={"normal": 16, "high": 16}, agents=32) as swarm:
        swarm.ready(30)
        slow = [swarm.submit(work, n) for n in range(2)]
        assert swarm.run(range(2, 100), work, timeout=60).complete
        gates[0].open()  # of the first team; the next master would begin with that one
        assert slow[0].result(30) == 0
        os.kill(swarm.status("master")[0].pid, signal.SIGKILL)
        assert swarm.run(range(100, 200), work, timeout=60).complete
        os.kill(swarm.status("coordinator-1")[0].pid, signal.SIGKILL)
        assert swarm.run(range(200, 300), work, timeout=60).complete
        gates[1].open()
        assert slow[1].result(30) == 1
        assert sorted(map(int, marks.all())) == list(range(300))


def test_a_team_without_workers_gives_its_tasks_back_also_to_the_next_master():
    with Swarm(4, topology="hybrid", coordinators=2, restart="never") as swarm:
        swarm.ready(30)
        swarm.stop("worker-1", "worker-2", kill=True)
        until(lambda: {a.state for a in swarm.status("worker-1", "worker-2")} == {"done"})
        assert swarm.run(range(20), square, timeout=30).complete
        os.kill(swarm.status("master")[0].pid, signal.SIGKILL)
        assert swarm.run(range(20), square, timeout=30).complete


def test_an_adopter_that_is_stopped_hands_on_what_it_adopted():
    with Swarm(6, topology="mesh", coordinators=3) as swarm:
        swarm.ready(30)
        swarm.spawn(["true"], agent="program")  # later than the coordinators
        until(lambda: swarm.status("program")[0].state == "done")
        os.kill(swarm.status("coordinator-1")[0].pid, signal.SIGKILL)
        until(lambda: swarm.status("coordinator-1")[0].state == "adopted")
        assert swarm.run(range(60), square, timeout=30).complete
        swarm.stop("coordinator-2", "coordinator-3")
        assert swarm.run(range(60), square, timeout=30).complete


def test_the_next_swarm_on_a_bus_knows_nothing_of_the_one_before(spawn):
    name = f"test-{os.getpid()}-twice"
    with Bus(name, agents=64, temporary=True) as bus:

        def client():
            swarm = Swarm(2, topology="mesh", coordinators=2, name=name)
            for n in range(20):
                swarm.submit(lambda n: (os.kill(os.getpid(), signal.SIGSTOP), ("old", n))[1], n)
            bus_ = Bus(name, agent="told")
            bus_.send("teller", None)
            threading.Event().wait()

        bus.register("teller")
        child = spawn(client)
        with Bus(name, agent="teller") as teller:
            teller.recv(timeout=60)
        supervisor = tree.children(child.pid)[0]
        pids = [supervisor, *tree.descendants(supervisor)]
        os.kill(child.pid, signal.SIGKILL)
        until(lambda: not [p for p in pids if (s := tree.stat(p)) and s.state != "Z"])
        bus.register("supervisor")
        bus.send("supervisor", {"drain": 0, "terminate": 0}, type="swarm.shutdown")
        with Swarm(2, topology="mesh", coordinators=2, name=name) as swarm:
            assert swarm.run(range(20), lambda n: ("new", n), timeout=60).values == [("new", n) for n in range(20)]


def test_an_elastic_swarm_that_idles_out_loses_nothing():
    with Swarm((0, 2), idle=0.01) as swarm:
        for n in range(30):
            assert swarm.submit(square, n).result(30) == n * n
            threading.Event().wait(0.005 * (n % 4))


def test_a_worker_that_dies_paused_comes_again_paused():
    with Swarm(1) as swarm:
        swarm.ready(30)
        swarm.pause("worker-1")
        first = swarm.status("worker-1")[0].pid
        os.kill(first, signal.SIGKILL)
        until(lambda: swarm.status("worker-1")[0].pid not in (0, first))
        until(lambda: swarm.status("worker-1")[0].state == "paused")
        future = swarm.submit(square, 3)
        assert swarm.status("worker-1")[0].unread == 0  # nothing is given to it
        assert swarm.resume("worker-1") == ["worker-1"]
        assert future.result(30) == 9


def test_who_is_paused_is_known_to_the_next_coordinator():
    with Swarm(2, topology="mesh", coordinators=1) as swarm:
        swarm.ready(30)
        swarm.pause("worker-1")
        os.kill(swarm.status("coordinator-1")[0].pid, signal.SIGKILL)
        assert {o.agent for o in swarm.run(range(10), square, timeout=30)} == {"worker-2"}


def test_a_supervisor_that_was_told_to_end_is_no_reason_to_wait():
    with Bus(f"test-{os.getpid()}-term", agents=64, temporary=True) as bus:
        swarm = Swarm(1, name=bus.name)
        os.kill(swarm.process.pid, signal.SIGTERM)
        swarm.process.wait(30)
        swarm.shutdown()


def test_a_task_that_is_too_large_is_told_and_costs_nothing_else():
    with Swarm(2, bus_size="24M", agents=32) as swarm:
        for _ in range(3):
            with pytest.raises(WorkerDied, match="cannot be sent"):
                swarm.submit(len, bytes(64 << 20)).result(30)
        big = swarm.run([0], lambda n: bytes(64 << 20), timeout=30)[0]
        assert "TooLarge" in str(big.error) or "larger" in str(big.error)
        assert swarm.run(range(10), square, timeout=30).complete


def test_what_a_callback_does_harms_only_itself(capsys):
    def tell(task, value):
        swarm.submit(square, 2)  # from the thread that receives
        raise ValueError("a bug in the callback")

    with Swarm(1) as swarm:
        assert swarm.run(range(3), lambda n: here().partial(n), timeout=30, on_partial=tell).complete
    assert "a bug in the callback" in capsys.readouterr().err


def test_ready_does_not_wait_for_commands_and_the_dead():
    with Swarm(1) as swarm:
        swarm.spawn(["sleep", "1000"], agent="sleeper")
        swarm.spawn(["false"], agent="gone")
        assert swarm.ready(30) == 1


def test_death_by_a_signal_without_a_name():
    with Swarm(1, max_deaths=1) as swarm:
        (one,) = swarm.run([0], lambda n: os.kill(os.getpid(), 40), timeout=30)
        assert "killed by signal 40" in str(one.error)


def test_names_that_are_refused_are_not_taken():
    from cfnshm import AgentBusy, BadName, UnknownAgent

    with Swarm(1) as swarm:
        with pytest.raises(BadName):
            swarm.spawn(["true"], agent="a/b")
        with pytest.raises(UnknownAgent):
            swarm.status("a/b")
        for taken in ("worker-1", "supervisor"):
            with pytest.raises(AgentBusy):
                swarm.spawn(["true"], agent=taken)


def test_a_program_can_be_stopped_before_it_has_begun():
    with Swarm(0) as swarm:
        for i in range(8):
            swarm.spawn(["sleep", "1000"], agent=f"p{i}")
            assert swarm.stop(f"p{i}", kill=True) == [f"p{i}"]
        until(lambda: {a.state for a in swarm.status()} == {"done"})


def test_the_writer_of_logs_can_be_killed(tmp_path):
    with Swarm(1, logs=tmp_path / "logs") as swarm:
        swarm.ready(30)
        writer = next(p for p in tree.children(swarm.process.pid) if p != swarm.status("worker-1")[0].pid)
        os.kill(writer, signal.SIGKILL)
        until(lambda: any("who writes the logs" in e["text"] for e in swarm.events()))
        swarm.run([0], lambda n: print("after that", flush=True), timeout=30)
        until(lambda: any("after that" in line for line in swarm.tail("worker-1")))


def test_a_client_killed_while_it_starts_leaves_nothing(spawn):
    from cfnshm.swarm import swarm as module

    for delay in (0.0, 0.05, 0.1, 0.15, 0.2):
        read, write = os.pipe()

        def client(write=write):
            start = module.Swarm._start

            def told(self, settings):
                os.write(write, self.bus.name.encode())
                start(self, settings)

            module.Swarm._start = told
            Swarm(3)
            threading.Event().wait()

        child = spawn(client)
        name = os.read(read, 100).decode()
        threading.Event().wait(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        os.close(read)
        os.close(write)
        until(lambda name=name: not list(Path("/dev/shm").glob(f"*{name}*")) or not _uses(name))
        if list(Path("/dev/shm").glob(f"*{name}*")):  # killed before there was a supervisor: as any temporary bus
            with Bus(name, create=False) as bus:
                bus.destroy()


def _uses(name):
    """Processes that have a bus of this name mapped."""
    return [p for p in os.listdir("/proc") if p.isdigit() and name.encode() in _maps(p)]


def _maps(pid):
    try:
        return Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return b""
