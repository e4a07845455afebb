"""Pause, resume, inject, stop, signals to many: from busy, stopped, dead and restarted agents."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from cfnshm import Bus, errors

PATIENCE = 60


def worker(bus_name, agent, **options):
    """A loop as agents have it: it counts, and obeys."""
    with Bus(bus_name, agent=agent, status="counting") as bus:
        step = bus.restore() if bus.checkpoints() else 1
        while True:
            order = bus.poll_control(checkpoint=lambda now=step: now)
            if order is None:
                step += 1
                continue
            bus.send("a", [order.kind, order.instruction, order.reason, step])
            if order.kind == "stop":
                return


@pytest.fixture
def busy(bus, spawn):
    process = spawn(worker, bus.name, "w")
    bus.wait_for("w", timeout=PATIENCE)
    return process


def paused(bus, agent="w"):
    while not bus.agent_info(agent).status.startswith("paused"):
        os.sched_yield()


def test_nothing_is_asked(bus):
    assert bus.poll_control() is None
    assert bus.control() is None


def test_pause_and_resume(bus, busy):
    bus.pause("w", reason="rate limit")
    paused(bus)
    info = bus.agent_info("w")
    assert info.status == "paused: rate limit"
    saved = bus.restore(agent="w")
    assert saved > 0
    assert bus.checkpoints("w")[-1].note == "paused: rate limit"
    assert bus.control("w").kind == "pause"
    assert (bus.control("w").reason, bus.control("w").by) == ("rate limit", "a")
    while bus.agent_info("w").waiting != "value":
        os.sched_yield()
    bus.resume("w")
    assert bus.recv(timeout=PATIENCE).body == ["resume", None, "", saved]  # it did nothing meanwhile
    assert bus.control("w") is None
    while bus.agent_info("w").status != "counting":
        os.sched_yield()
    bus.stop("w", reason="done")
    kind, _, reason, step = bus.recv(timeout=PATIENCE).body
    assert (kind, reason) == ("stop", "done")
    assert step >= saved


def test_instructions(bus, busy):
    bus.pause("w")
    paused(bus)
    bus.inject("w", {"first": 1})
    bus.resume("w", instruction="second")
    bus.inject("w", "third")
    said = [bus.recv(timeout=PATIENCE).body[:2] for _ in range(3)]
    assert said == [["instruction", {"first": 1}], ["instruction", "second"], ["instruction", "third"]]
    bus.inject("w", "one")
    assert bus.recv(timeout=PATIENCE).body[:2] == ["instruction", "one"]
    with pytest.raises(errors.InvalidArgument):
        bus.inject("w", None)


def test_stop_beats_everything(bus):
    bus.register("w")
    bus.pause("w")
    bus.resume("w", instruction="later")
    bus.stop("w", reason="now")
    bus.pause("w")
    bus.resume("w")
    with Bus(bus.name, agent="w") as w:  # nobody had it: the first that asks is meant
        assert bus.control("w").kind == "stop"
        assert w.poll_control().kind == "stop"
        assert w.poll_control().instruction == "later"
        assert w.poll_control() is None
        bus.resume("w", instruction="later")
    with Bus(bus.name, agent="w") as w:
        bus.stop("w", reason="now")
        bus.pause("w")
        bus.resume("w")
        bus.inject("w", "more")
        for _ in range(2):
            order = w.poll_control()
            assert (order.kind, order.reason, order.by) == ("stop", "now", "a")
        assert w.control().kind == "stop"
    assert bus.control("w") is None
    with Bus(bus.name, agent="w") as w:  # the next one is not meant; what it is to know is not lost
        assert [w.poll_control().instruction for _ in range(2)] == ["later", "more"]
        assert w.poll_control() is None


def test_one_that_acts_beside_the_owner(bus, other):
    with Bus(bus.name, agent="b") as beside:
        assert not beside.is_owner
        bus.inject("b", "one")
        assert beside.poll_control().instruction == "one"
        assert beside.poll_control() is None
        bus.stop("b")
        assert [handle.poll_control().kind for handle in (beside, other)] == ["stop", "stop"]


def test_orders_wait_for_who_is_not_there(bus, spawn):
    bus.register("w")
    bus.pause("w", reason="not yet")
    spawn(worker, bus.name, "w")
    paused(bus)
    bus.resume("w", "go")
    assert bus.recv(timeout=PATIENCE).body[:2] == ["instruction", "go"]
    with pytest.raises(errors.UnknownAgent, match="nobody would obey"):
        bus.pause("nobody")


def test_a_paused_agent_that_dies_is_paused_when_it_is_back(bus, busy, spawn):
    bus.pause("w")
    paused(bus)
    busy.kill()
    busy.join(PATIENCE)
    bus.reap()
    saved = bus.restore(agent="w")
    bus.set_status("", agent="w")
    spawn(worker, bus.name, "w")
    paused(bus)
    bus.resume("w", "on")
    assert bus.recv(timeout=PATIENCE).body == ["instruction", "on", "", saved]


def test_who_waits_in_recv_is_told(bus, other):
    for _ in range(3):
        bus.send("b", "work")
    bus.pause("b", reason="r")
    bus.resume("b", "i")
    bus.inject("b", "j")
    bus.stop("b")
    got = [other.recv(timeout=0) for _ in range(5)]
    assert [(m.type, m.priority) for m in got[:4]] == [
        (kind, "control") for kind in ("pause", "resume", "instruction", "stop")
    ]
    assert got[0].body == {"reason": "r", "by": "a"}
    assert got[1].body["instruction"] == "i"
    assert got[4].body == "work"


def test_a_full_control_lane_loses_no_order(bus, other):
    for _ in range(200):
        bus.inject("b", "again")
    bus.pause("b")
    assert bus.control("b").kind == "pause"
    thread = threading.Thread(target=bus.resume, args=("b",))
    thread.start()
    orders = [other.poll_control(timeout=PATIENCE) for _ in range(200)]
    thread.join(PATIENCE)
    assert {(o.kind, o.instruction) for o in orders} == {("instruction", "again")}


def test_a_pause_that_lasts(bus, other):
    bus.pause("b")
    with pytest.raises(errors.Timeout, match="agent 'b' is still paused after"):
        other.poll_control(timeout=0.01)
    assert other.agent_info().status == ""
    nobody = Bus(bus.name)
    with pytest.raises(errors.InvalidArgument, match="acts as no agent"):
        nobody.poll_control()
    nobody.close()
    with pytest.raises(errors.InvalidArgument):
        bus.pause("b", reason=3)


def test_what_checkpoint_raises_comes_out(bus, other):
    bus.pause("b")
    other.set_status("at work")

    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        other.poll_control(checkpoint=broken)
    assert other.agent_info().status == "at work"
    bus.resume("b")


# ---- signals ----


def test_signals_to_all(bus, other, spawn):
    def listen(bus_name):
        with Bus(bus_name, agent="s", tags=["mine"]) as mine:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
            mine.accept_signal("checkpoint", signal.SIGUSR2)
            mine.accept_signal("checkpoint", signal.SIGUSR1)
            mine.state["ready"] = 1
            mine.state["got"] = int(signal.sigwait([signal.SIGUSR1, signal.SIGUSR2]))

    process = spawn(listen, bus.name)
    bus.state.wait("ready", 0, timeout=PATIENCE)
    assert bus.agent_info("s").tags == ("mine", "signal:checkpoint=SIGUSR1")
    told = bus.signal_all("other")
    assert told.processes == {}
    assert sorted(told.receipts) == ["b", "s"]
    told = bus.signal_all("checkpoint", {"n": 1})
    assert told.processes == {"s": process.pid}
    assert bus.state.wait("got", 0, timeout=PATIENCE).value == signal.SIGUSR1
    assert [other.recv(timeout=0).body for _ in range(2)] == [
        {"signal": "other", "body": None},
        {"signal": "checkpoint", "body": {"n": 1}},
    ]
    assert bus.signal_all("checkpoint", team="nobody").receipts == {}
    for bad in ("", "two words", "a=b", None):
        with pytest.raises(errors.InvalidArgument):
            other.accept_signal(bad, signal.SIGUSR1)
    with pytest.raises(errors.InvalidArgument, match="no signal 999"):
        other.accept_signal("x", 999)


def test_the_group_of_a_process_that_leads_one(bus, spawn):
    def lead(bus_name):
        os.setpgid(0, 0)
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(1)
        signal.signal(signal.SIGTERM, lambda *_: None)
        with Bus(bus_name, agent="g") as mine:
            mine.accept_signal("end", signal.SIGTERM)
            mine.state["ready"] = 1
            _, status = os.waitpid(child, 0)
            mine.state["child"] = os.WTERMSIG(status)

    spawn(lead, bus.name)
    bus.state.wait("ready", 0, timeout=PATIENCE)
    bus.signal_all("end")
    assert bus.state.wait("child", 0, timeout=PATIENCE).value == signal.SIGTERM


def test_teams(bus, other):
    bus.register("red-1", team="red")
    bus.register("red-2", team="red")
    bus.register("blue-1", team="blue")
    bus.send("red-1", "look")
    teams = bus.teams()
    assert list(teams) == ["blue", "red"]
    assert teams["red"].agents == ("red-1", "red-2")
    assert (teams["red"].alive, teams["red"].dead, teams["red"].unread) == (0, 0, 1)
    assert sorted(bus.pause(team="red", reason="quota")) == ["red-1", "red-2"]
    assert [bus.control(name).kind for name in ("red-1", "red-2")] == ["pause", "pause"]
    assert bus.control("blue-1") is None
    assert sorted(bus.resume(team="red", instruction="go on")) == ["red-1", "red-2"]
    assert bus.control("red-2").instruction == "go on"
    assert bus.inject(team="blue", instruction="and you") == ["blue-1"]
    assert bus.stop(team="blue") == ["blue-1"]
    with pytest.raises(errors.UnknownAgent, match=r"no team 'green'.*blue, red"):
        bus.pause(team="green")
    for wrong in ({}, {"agent": "red-1", "team": "red"}):
        with pytest.raises(errors.InvalidArgument, match=r"say who is meant by 'pause': an agent.* team="):
            bus.pause(**wrong)
