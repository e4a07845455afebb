"""Locks, elections, semaphores, barriers: from threads, processes, stopped and dead ones."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time

import pytest

from cfnshm import Bus, errors
from cfnshm.testing import temp_bus

PATIENCE = 60


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        os.sched_yield()


def waits(bus, agent, on):
    until(lambda: bus.is_registered(agent) and bus.agent_info(agent).waiting == on, f"{agent} to wait for {on}")


@pytest.fixture
def holder(bus, spawn):
    """holder(what, name) -> a process, agent "h", that holds it."""

    def start(what, name):
        def hold(bus_name):
            mine = Bus(bus_name, agent="h")
            thing = getattr(mine, what)(name)
            lease = thing.acquire() if what == "lock" else thing.campaign()
            mine.state["held"] = lease.token
            signal.pause()

        process = spawn(hold, bus.name)
        bus.state.wait("held", 0, timeout=PATIENCE)
        return process

    return start


# ---- locks ----


def test_a_lock(bus, other):
    with bus.lock("repo") as lease:
        assert bus.lock("repo").locked()
        holder = other.lock("repo").holder()
        assert (holder.agent, holder.pid, holder.token) == ("a", os.getpid(), lease.token)
        assert holder.state == "alive"
        assert str(holder) == f"agent 'a', process {os.getpid()}"
        assert 0 <= time.time() - holder.since < PATIENCE
        assert lease.owner_died is None
        assert lease.held
        lease.check()
        with pytest.raises(errors.Timeout, match=rf"lock 'repo' is held by agent 'a', process {os.getpid()}, for "):
            other.lock("repo").acquire(timeout=0)
        with pytest.raises(TimeoutError):
            other.lock("repo").acquire(timeout=0.02)
        with pytest.raises(errors.Timeout), other.lock("repo", timeout=0.01):
            pass
        assert [h.name for h in other.locks()] == ["repo"]
    assert not lease.held
    assert not bus.lock("repo").locked()
    assert bus.locks() == []
    with pytest.raises(errors.LeaseLost):
        lease.check()
    lease.release()  # a second time: nothing
    with other.lock("repo") as later:
        assert later.token > lease.token
        assert "repo" in repr(later)


def test_a_lock_is_given_back_after_an_exception_and_by_close(bus, other):
    with pytest.raises(ZeroDivisionError), bus.lock("repo"):
        1 / 0  # noqa: B018
    other.lock("repo").acquire(timeout=0)
    other.close()
    assert bus.lock("repo").acquire(timeout=0).owner_died is None


def test_a_thread_cannot_take_twice_what_another_can_wait_for(bus):
    lease = bus.lock("repo").acquire()
    with pytest.raises(errors.Deadlock, match="this thread holds the lock 'repo' already"):
        bus.lock("repo").acquire(timeout=5)
    got = []

    def wait():
        with bus.lock("repo", timeout=PATIENCE) as mine:
            got.append(mine.token)

    thread = threading.Thread(target=wait)
    thread.start()
    waits(bus, "a", "lock")
    lease.release()
    thread.join(PATIENCE)
    assert got > [lease.token]


def test_threads_of_one_handle_exclude_each_other(bus):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        for _ in range(100):
            with bus.lock("repo"):
                inside += 1
                most = max(most, inside)
                os.sched_yield()
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert most == 1


def test_the_next_is_told_that_the_last_died(bus, holder):
    process = holder("lock", "repo")
    process.kill()
    process.join(PATIENCE)
    dead = bus.lock("repo").holder()
    assert (dead.state, dead.pid, dead.agent) == ("dead", process.pid, "h")
    assert dead.died >= dead.since
    assert not bus.lock("repo").locked()
    careful = bus.lock("repo", on_owner_died="raise")
    for _ in range(2):
        with pytest.raises(errors.OwnerDied, match=f"agent 'h', process {process.pid}") as died:
            careful.acquire(timeout=5)
        assert died.value.pid == process.pid
    with pytest.raises(errors.OwnerDied), careful:
        pass
    with careful.acquire(on_owner_died="tell") as lease:
        assert lease.owner_died.pid == process.pid
        assert lease.owner_died.token < lease.token
    with careful as lease:
        assert lease.owner_died is None


def test_a_stopped_holder_keeps_it_until_an_operator_takes_it(bus, holder):
    process = holder("lock", "repo")
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: bus.lock("repo").holder().state == "stopped", "it to stop")
    with pytest.raises(errors.Timeout, match="which is stopped"):
        bus.lock("repo").acquire(timeout=0.1)
    with bus.lock("repo").steal() as lease:
        assert lease.owner_died is None
        assert bus.lock("repo").holder().agent == "a"
    process.kill()
    process.join(PATIENCE)
    assert bus.lock("repo").acquire(timeout=0).owner_died is None


def test_who_was_robbed_is_told(bus, other):
    lease = bus.lock("repo").acquire()
    with other.lock("repo").steal() as later:
        assert later.token > lease.token
        with pytest.raises(errors.LeaseLost, match="token"):
            lease.check()
        assert lease.wait_lost(timeout=0)
    with pytest.raises(errors.LeaseLost):
        lease.release()
    mine = bus.lock("repo").acquire(timeout=0)
    assert not mine.wait_lost(timeout=0.02)


def test_circles_of_waiters(bus, spawn):
    def other_way(bus_name):
        with Bus(bus_name, agent="o") as mine, mine.lock("y"):
            mine.state["ready"] = 1
            with mine.lock("x"):
                mine.state["through"] = 1

    with bus.lock("x"):
        spawn(other_way, bus.name)
        waits(bus, "o", "lock")
        assert bus.agent_info("o").waiting_for == "x"
        with pytest.raises(errors.Deadlock, match=r"waits for 'y' of o .process .*'x', which this process holds"):
            bus.lock("y").acquire(timeout=PATIENCE)
    bus.state.wait("through", 0, timeout=PATIENCE)
    with bus.lock("y", timeout=PATIENCE):
        pass


def test_bad_names_and_arguments(bus):
    for name in ("", "x" * 126, "a\nb", "\udcff"):
        with pytest.raises((errors.BadName, errors.InvalidArgument)):
            bus.lock(name).acquire()
    for bad in (None, 3, b"x"):
        with pytest.raises(errors.InvalidArgument, match="the name of a lock must be a text"):
            bus.lock(bad)
    with pytest.raises(errors.InvalidArgument, match="on_owner_died"):
        bus.lock("x", on_owner_died="shout")
    with pytest.raises(errors.InvalidArgument, match="on_owner_died"):
        bus.lock("x").acquire(on_owner_died="shout")
    assert bus.lock("x" * 125).acquire(timeout=0).held
    with pytest.raises(errors.InvalidArgument):
        bus.lock("x").acquire(timeout="soon")


def test_locks_are_no_values(bus):
    with bus.lock("repo"):
        assert list(bus.state) == []
        assert "repo" not in bus.state
        with bus.elect("repo"):
            pass


def test_a_waiting_lock_is_interrupted_by_ctrl_c(bus, spawn):
    def wait(bus_name):
        with Bus(bus_name, agent="w") as mine:
            try:
                mine.lock("repo").acquire()
            except KeyboardInterrupt:
                mine.state["interrupted"] = 1

    with bus.lock("repo"):
        process = spawn(wait, bus.name)
        waits(bus, "w", "lock")
        os.kill(process.pid, signal.SIGINT)
        bus.state.wait("interrupted", 0, timeout=PATIENCE)


def test_a_lock_of_a_destroyed_or_closed_bus():
    with temp_bus("a") as bus:
        lock, lease = bus.lock("x"), bus.lock("x").acquire()
        bus.close()
        with pytest.raises(errors.Closed):
            lock.acquire()
        with pytest.raises(errors.Closed):
            lease.release()


def test_a_forgotten_lease_keeps_no_bus(bus_name):
    bus = Bus(bus_name, agent="a", size="8M")
    bus.lock("x").acquire()
    del bus
    gc.collect()
    with Bus(bus_name, agent="b") as other:
        assert other.lock("x").acquire(timeout=PATIENCE).owner_died is None
        other.destroy()


# ---- elections ----


def test_an_election(bus, other):
    election = bus.elect("head")
    assert election.leader() is None
    with election as leadership:
        assert leadership.term > 0
        assert not leadership.lost
        assert other.elect("head").leader().agent == "a"
        assert [h.name for h in other.leaders()] == ["head"]
        with pytest.raises(errors.Timeout, match="leadership 'head' is held by agent 'a'"):
            other.elect("head").campaign(timeout=0)
        with other.elect("head").depose() as usurper:
            assert usurper.term > leadership.term
            assert leadership.lost
            assert leadership.wait_lost(timeout=PATIENCE)
            with pytest.raises(errors.LeaseLost):
                leadership.check()
            seen = election.leader()
            assert seen.agent == "b"
        with pytest.raises(errors.LeaseLost):
            leadership.resign()
    assert election.leader() is None


def test_followers_watch(bus, other):
    watch = bus.elect("head").watch(timeout=PATIENCE)
    assert next(watch) is None
    with other.elect("head"):
        assert next(watch).agent == "b"
    assert next(watch) is None
    assert list(bus.elect("head").watch(timeout=0.02)) == [None]
    with pytest.raises(errors.Timeout, match="did not change hands"):
        bus.elect("head").wait_change(timeout=0.02)


def test_a_dead_leader_is_followed(bus, holder):
    process = holder("elect", "head")
    watch = bus.elect("head").watch(timeout=PATIENCE)
    assert next(watch).agent == "h"
    process.kill()
    process.join(PATIENCE)
    assert next(watch) is None
    with bus.elect("head").campaign(timeout=PATIENCE) as leadership:
        assert leadership.owner_died.pid == process.pid
        assert next(watch).agent == "a"


# ---- semaphores ----


def test_a_semaphore(bus, other):
    two = bus.semaphore("cc", 2)
    with two, two:
        assert sorted(h.agent for h in other.semaphore("cc", 2).holders()) == ["a", "a"]
        with pytest.raises(errors.Timeout, match="all 2 permits of semaphore 'cc' are taken"):
            other.semaphore("cc", 2).acquire(timeout=0)
        with pytest.raises(errors.InvalidArgument, match="in use with 2 permits, and not 3"):
            other.semaphore("cc", 3).acquire(timeout=0)
    assert two.holders() == []
    permit = other.semaphore("cc", 3).acquire(timeout=0)
    other.close()
    assert bus.semaphore("cc", 1).acquire(timeout=PATIENCE).token > permit.token
    for bad in (0, -1, 65536, "2", None):
        with pytest.raises(errors.InvalidArgument, match="1 to 65535 permits"):
            bus.semaphore("cc", bad)
    assert "cc" in repr(two)


def test_permits_of_the_dead(bus, spawn):
    def take(bus_name):
        mine = Bus(bus_name, agent="h")
        mine.semaphore("cc", 1).acquire()
        mine.state["held"] = 1
        signal.pause()

    process = spawn(take, bus.name)
    bus.state.wait("held", 0, timeout=PATIENCE)
    with pytest.raises(errors.Timeout):
        bus.semaphore("cc", 1).acquire(timeout=0.05)
    process.kill()
    with bus.semaphore("cc", 1, timeout=PATIENCE) as permit:
        assert permit.token


# ---- barriers ----


def test_a_barrier(bus, spawn):
    def come(bus_name, name):
        with Bus(bus_name, agent=name) as mine:
            barrier = mine.barrier("phase", parties=3)
            places = [barrier.wait(timeout=PATIENCE) for _ in range(10)]
            mine.state[f"places/{name}"] = places

    for name in "xyz":
        spawn(come, bus.name, name)
    for name in "xyz":
        bus.state.wait(f"places/{name}", 0, timeout=PATIENCE)
    rounds = zip(*(bus.state[f"places/{name}"] for name in "xyz"), strict=True)
    assert all(sorted(places) == [0, 1, 2] for places in rounds)
    info = bus.barrier("phase").info()
    assert (info.round, info.parties, info.arrived, info.broken) == (11, 3, 0, False)
    with pytest.raises(errors.InvalidArgument, match="takes 3 parties, and not 2"):
        bus.barrier("phase", 2).wait(timeout=0)
    bus.barrier("phase").delete()
    assert bus.barrier("phase").info() is None
    with pytest.raises(errors.UnknownKey):
        bus.barrier("phase").reset()


def test_who_is_missing_at_a_barrier(bus, other, spawn):
    barrier = bus.barrier("phase", parties=["a", "b", "nobody"])
    with pytest.raises(errors.Timeout, match="1 of 3 parties came to barrier 'phase' in time") as late:
        barrier.wait(timeout=0.02)
    assert late.value.missing == ["b", "nobody"]
    assert barrier.info().arrived == 0

    def die(bus_name):
        mine = Bus(bus_name, agent="nobody")
        mine.state["there"] = 1
        signal.pause()

    process = spawn(die, bus.name)
    bus.state.wait("there", 0, timeout=PATIENCE)
    process.kill()
    process.join(PATIENCE)
    with pytest.raises(errors.BrokenBarrier, match=f"agent 'nobody' .process {process.pid}. died") as broken:
        barrier.wait(timeout=PATIENCE)
    assert broken.value.pid == process.pid
    assert broken.value.missing == ["nobody"]
    with pytest.raises(errors.InvalidArgument, match="is not among the parties"):
        bus.barrier("other", ["b", "c"]).wait(timeout=0)
    with pytest.raises(errors.BrokenBarrier):
        other.barrier("phase").wait(timeout=PATIENCE)
    barrier.reset()
    going = [
        threading.Thread(
            target=one.barrier("phase", ["a", "b", "nobody"], on_death="continue").wait, args=(PATIENCE,)
        )
        for one in (bus, other)
    ]
    for thread in going:
        thread.start()
    for thread in going:
        thread.join(PATIENCE)
    assert barrier.info().round == 3
    assert barrier.info().parties == 2


def test_parties_that_join(bus, other):
    with pytest.raises(errors.InvalidArgument, match="nobody has joined"):
        bus.barrier("b").wait(timeout=0)
    bus.barrier("b").join()
    assert bus.barrier("b").wait(timeout=0) == 0
    other.barrier("b").join()
    assert [(p.agent, p.arrived, p.state) for p in bus.barrier("b").info().known] == [
        ("a", False, "alive"), ("b", False, "alive"),
    ]  # fmt: skip
    with pytest.raises(errors.Timeout) as late:
        bus.barrier("b").wait(timeout=0)
    assert late.value.missing == ["b"]
    other.barrier("b").leave()
    assert bus.barrier("b").wait(timeout=0) == 0


def test_a_barrier_that_is_broken_on_purpose(bus, other):
    errors_seen = []

    def wait():
        try:
            bus.barrier("b", 2).wait(timeout=PATIENCE)
        except errors.BrokenBarrier as error:
            errors_seen.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    waits(other, "a", "barrier")
    other.barrier("b").abort()
    thread.join(PATIENCE)
    assert "on purpose" in errors_seen[0]
    for bad in (0, -1, 70000, "abc", 1.5, [1, 2], []):
        with pytest.raises(errors.InvalidArgument):
            bus.barrier("b", bad)
    with pytest.raises(errors.InvalidArgument, match="on_death"):
        bus.barrier("b", 2, on_death="weep")
    with pytest.raises(errors.InvalidArgument):
        bus.barrier(3)
    assert "b" in repr(bus.barrier("b"))


def test_who_holds_survives_a_pickle_of_nothing(bus, other):
    """A repair or a reaping beside what is held changes nothing."""
    with bus.lock("x") as lease, contextlib.closing(bus):
        assert other.reap() == 0
        other.repair()
        assert lease.held
        assert not [f for f in other.check() if f[0] == "error"]
        lease.release()
