"""Checkpoints and cuts: history, damage, disk, and a swarm that stops and goes on where it was."""

from __future__ import annotations

import os
import subprocess
import threading

import numpy
import pytest

from cfnshm import Bus, errors
from cfnshm.testing import temp_bus

PATIENCE = 60


@pytest.fixture(autouse=True)
def disk(tmp_path, monkeypatch):
    monkeypatch.setenv("CFNSHM_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def test_save_and_restore(bus):
    with pytest.raises(errors.UnknownKey, match="agent 'a' has no checkpoint, on bus"):
        bus.restore()
    assert bus.checkpoints() == []
    one = bus.checkpoint({"step": 1}, note="first")
    assert (one.agent, one.version, one.parent, one.note, one.on_disk) == ("a", 1, None, "first", False)
    two = bus.checkpoint({"step": 2})
    assert (two.version, two.parent) == (2, 1)
    assert bus.restore() == {"step": 2}
    assert bus.restore(1) == {"step": 1}
    three = bus.checkpoint({"step": "1b"})
    assert (three.version, three.parent) == (3, 1)  # the branch is seen
    assert [(c.version, c.parent) for c in bus.checkpoints()] == [(1, None), (2, 1), (3, 1)]
    with pytest.raises(errors.UnknownKey, match="no checkpoint 9"):
        bus.restore(9)


@pytest.mark.parametrize("state", [b"\x00\n\xff", "text", {"a": [1, None]}, "x" * 200_000, b"", None])
def test_kinds_of_states(bus, state):
    bus.checkpoint(state)
    assert bus.restore() == state


def test_arrays(bus):
    bus.checkpoint(numpy.arange(1000.0))
    assert bus.restore().sum() == 499500
    with pytest.raises(errors.InvalidArgument):
        bus.checkpoint(object())


def test_the_newest_are_kept(bus):
    for i in range(25):
        bus.checkpoint(i, keep=3)
    assert [c.version for c in bus.checkpoints()] == [23, 24, 25]
    assert bus.restore(23) == 22
    with pytest.raises(errors.UnknownKey):
        bus.restore(22)
    assert len(bus.state.keys("cfnshm/checkpoint/")) == 4
    with pytest.raises(errors.InvalidArgument):
        bus.checkpoint(1, keep=0)


def test_the_next_life_goes_on(bus, spawn):
    def live(bus_name):
        with Bus(bus_name, agent="w") as mine:
            step = mine.restore() if mine.checkpoints() else 0
            mine.checkpoint(step + 1)
            os.kill(os.getpid(), 9)

    for life in range(1, 4):
        process = spawn(live, bus.name)
        process.join(PATIENCE)
        assert bus.restore(agent="w") == life
    assert [c.parent for c in bus.checkpoints("w")] == [None, 1, 2]


def test_others_and_nobody(bus, other):
    other.checkpoint("mine")
    assert bus.restore(agent="b") == "mine"
    bus.checkpoint("for it", agent="b")
    assert other.restore() == "for it"
    with Bus(bus.name) as nobody:
        for call in (nobody.checkpoint, nobody.restore):
            with pytest.raises(errors.InvalidArgument, match="acts as no agent"):
                call(*(("x",) if call == nobody.checkpoint else ()))
        assert nobody.restore(agent="b") == "for it"


def test_many_save_for_one_agent(bus_name):
    bus, other = (Bus(bus_name, agent=name, agents=64, size="32M") for name in "ab")

    def save(handle, mark):
        for i in range(50):
            handle.checkpoint([mark, i], agent="w", keep=1000)

    threads = [threading.Thread(target=save, args=(h, m)) for h, m in ((bus, "x"), (other, "y"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    versions = [c.version for c in bus.checkpoints("w")]
    saved = [bus.restore(v, agent="w") for v in versions]
    assert sorted(map(tuple, saved)) == [(m, i) for m in "xy" for i in range(50)]
    assert len(bus.state.keys("cfnshm/checkpoint/w/")) == 100
    other.close()
    bus.destroy()


def test_one_who_died_between_the_steps(bus):
    bus.checkpoint("one")
    bus.state["cfnshm/checkpoint/a/2"] = b"of one who died"
    assert bus.checkpoint("two").version == 3
    assert bus.restore() == "two"
    assert bus.state.keys("cfnshm/checkpoint/a/") == ["cfnshm/checkpoint/a/1", "cfnshm/checkpoint/a/3"]


def test_changed_bytes_are_found(bus):
    bus.checkpoint("x" * 1000)
    bus.checkpoint("newer")
    stored = bus.state["cfnshm/checkpoint/a/1"]
    bus.state["cfnshm/checkpoint/a/1"] = stored[:-1] + b"y"
    with pytest.raises(errors.Corrupt, match="checkpoint 1 of agent 'a' was changed after it was saved"):
        bus.restore(1)
    assert bus.restore() == "newer"
    for nonsense in (b"", b"no header", b"{}\n", b'{"format":"x"}\n', "text", {"a": 1}):
        bus.state["cfnshm/checkpoint/a/1"] = nonsense
        with pytest.raises(errors.Corrupt):
            bus.restore(1)


def test_a_newer_version_wrote_it(bus):
    bus.checkpoint("x")
    bus.state["cfnshm/checkpoint/a/1"] = b'{"format":2,"new":1}\nwhat this version does not know'
    with pytest.raises(errors.VersionMismatch, match="written by a newer version") as newer:
        bus.restore()
    assert (newer.value.have, newer.value.want) == (2, 1)


def test_no_room(bus_name):
    with temp_bus("a", size="8M") as small:
        small.checkpoint("kept")
        with pytest.raises((errors.NoSpace, errors.TooLarge)):
            small.checkpoint(b"x" * (8 << 20))
        assert small.restore() == "kept"
        assert small.checkpoint("next").version == 2


# ---- disk ----


def test_on_disk(disk, bus_name):
    with Bus(bus_name, agent="a.b", size="8M", temporary=True) as bus:
        bus.checkpoint({"n": 1}, sync=True)
        bus.checkpoint({"n": 2})
        for n in range(3, 6):
            bus.checkpoint({"n": n}, note="kept", sync=True, keep=2)
    folder = disk / bus_name
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(folder)) == ["a.b.4.checkpoint", "a.b.5.checkpoint"]
    assert all((folder / name).stat().st_mode & 0o777 == 0o600 for name in os.listdir(folder))
    with Bus(bus_name, agent="a.b", size="8M", temporary=True) as bus:  # as after a reboot
        assert [(c.version, c.on_disk) for c in bus.checkpoints()] == [(4, True), (5, True)]
        assert bus.restore() == {"n": 5}
        assert bus.restore(4) == {"n": 4}
        after = bus.checkpoint({"n": 6})
        assert (after.version, after.parent) == (6, 4)
        (folder / "a.b.5.checkpoint").write_bytes(b"cut sho")
        with pytest.raises(errors.Corrupt):
            bus.restore(5)


def test_a_disk_that_is_full_or_forbidden(disk, bus, monkeypatch):
    disk.mkdir()
    (disk / bus.name).write_text("in the way")
    with pytest.raises(OSError, match=r"exist|directory"):
        bus.checkpoint("x", sync=True)
    assert bus.restore() == "x"  # on the bus it is
    monkeypatch.setenv("CFNSHM_STATE_DIR", "/dev/full/nothing")
    with pytest.raises(OSError, match=r"Not a directory|exist"):
        bus.checkpoint("y", sync=True)
    assert bus.restore() == "y"


def test_where_it_is_on_disk(monkeypatch):
    from cfnshm.checkpoint import directory

    monkeypatch.setenv("CFNSHM_STATE_DIR", "/said")
    assert str(directory()) == "/said"
    monkeypatch.delenv("CFNSHM_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert str(directory()) == "/xdg/cfnshm"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(directory()) == "/home/me/.local/state/cfnshm"


# ---- cuts ----


def counter(bus_name, agent, peer):
    """Sends numbers to its peer, adds up what it gets, and takes part in cuts."""
    with Bus(bus_name, agent=agent) as bus:
        state = bus.restore() if bus.checkpoints() else {"sent": 0, "got": 0}
        bus.state[f"ready/{agent}"] = state
        told = False
        while not told or state != {"sent": 300, "got": 300}:
            try:
                message = bus.recv(timeout=PATIENCE if state["sent"] >= 300 else 0)
            except errors.Timeout:
                message = None
            if message is None:
                pass
            elif message.type == "swarm-checkpoint":
                bus.join_checkpoint(message, state, timeout=PATIENCE)
            elif message.type == "end":
                told = True
            else:
                state["got"] += message.body
            if message is not None:
                message.ack()
            if state["sent"] < 300:
                try:
                    bus.send(peer, 1, timeout=0)
                    state["sent"] += 1
                except errors.Full:
                    pass
        bus.state[f"end/{agent}"] = state


def talkers(bus, spawn):
    for agent, peer in (("x", "y"), ("y", "x")):
        bus.register(agent)
        spawn(counter, bus.name, agent, peer)
    for agent in "xy":
        bus.state.wait(f"ready/{agent}", 0, timeout=PATIENCE)


def consistent(bus, cut):
    """What one has sent and the other has not got waits in its inbox, exactly."""
    states = {name: bus.restore(version, agent=name) for name, version in cut.agents.items() if name in "xy"}
    waiting = {name: sum(1 for m in cut.messages[name] if m["sender"] in "xy") for name in "xy"}
    assert states["x"]["sent"] == states["y"]["got"] + waiting["y"], (states, waiting)
    assert states["y"]["sent"] == states["x"]["got"] + waiting["x"], (states, waiting)
    return states, waiting


def end(bus):
    for agent in "xy":
        bus.send(agent, None, type="end", priority="low")
    return {agent: bus.state.wait(f"end/{agent}", 0, timeout=PATIENCE).value for agent in "xy"}


def test_a_cut_is_consistent_and_disturbs_nobody(bus, spawn):
    talkers(bus, spawn)
    cuts = [bus.swarm_checkpoint(f"cut-{i}", {"i": i}, timeout=PATIENCE) for i in range(5)]
    for cut in cuts:
        assert sorted(cut.agents) == ["a", "x", "y"]
        consistent(bus, cut)
        assert bus.cut(cut.label) == cut
    assert bus.cuts() == [f"cut-{i}" for i in range(5)]
    assert not [key for key in bus.state.keys("cfnshm/cut/") if key.count("/") > 2]
    with pytest.raises(errors.Conflict, match="there is a cut 'cut-1'"):
        bus.swarm_checkpoint("cut-1")
    assert end(bus) == {agent: {"sent": 300, "got": 300} for agent in "xy"}
    bus.delete_cut("cut-0")
    with pytest.raises(errors.UnknownKey):
        bus.cut("cut-0")


def test_a_swarm_goes_on_from_a_cut(bus, spawn, bus_name):
    talkers(bus, spawn)
    cut = bus.swarm_checkpoint("here", {"mine": 1}, timeout=PATIENCE, sync=True)
    states, waiting = consistent(bus, cut)
    end(bus)
    with Bus(bus_name, agent="a", size="16M", temporary=True) as other:  # another bus: only the disk knows
        os.rename(bus.info() and f"{os.environ['CFNSHM_STATE_DIR']}/{bus.name}",
                  f"{os.environ['CFNSHM_STATE_DIR']}/{bus_name}")  # fmt: skip
        assert other.cuts() == ["here"]
        assert other.restore_cut("here").agents == cut.agents
        with pytest.raises(errors.Conflict, match="unread") if any(waiting.values()) else _nothing():
            other.restore_cut("here")
        assert other.restore() == {"mine": 1}
        assert {agent: other.restore(agent=agent) for agent in "xy"} == states
        talkers(other, spawn)
        assert end(other) == {agent: {"sent": 300, "got": 300} for agent in "xy"}  # no message more, none less


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_one_that_does_not_take_part(bus, other):
    with pytest.raises(errors.Timeout, match="missing: b") as late:
        bus.swarm_checkpoint("never", timeout=0.05)
    assert late.value.missing == ["b"]
    assert bus.cuts() == []
    assert bus.state.keys("cfnshm/cut/") == []
    message = other.recv(timeout=0)
    assert message.type == "swarm-checkpoint"
    with pytest.raises(errors.Timeout):
        other.join_checkpoint(message, {}, timeout=0.05)
    bus.send("b", "something else")
    with pytest.raises(errors.InvalidArgument, match="asks for no swarm checkpoint"):
        other.join_checkpoint(other.recv(timeout=0), {})
    for bad in ("", "a/b", "x" * 41, None, "a b"):
        with pytest.raises(errors.BadName):
            bus.swarm_checkpoint(bad)
    with Bus(bus.name) as nobody, pytest.raises(errors.InvalidArgument):
        nobody.swarm_checkpoint("x")


def test_the_newest_after_a_return_does_not_overwrite(bus):
    for i in range(4):
        bus.checkpoint(i)
    bus.swarm_checkpoint("c", "cut")
    bus.checkpoint("after")
    bus.restore_cut("c")
    assert bus.restore() == "cut"
    made = bus.checkpoint("again")
    assert (made.version, made.parent) == (7, 5)
    assert bus.restore(6) == "after"
    for i in range(30):
        bus.checkpoint(i, keep=2)
    assert bus.restore(5) == "cut"  # what belongs to a cut stays
    bus.delete_cut("c")
    bus.checkpoint("x", keep=2)
    with pytest.raises(errors.UnknownKey):
        bus.restore(5)


def test_the_command(bus, disk):
    def run(*args, stdin=None, code=0):
        done = subprocess.run(
            ["cfnshm", *args, "--bus", bus.name], capture_output=True, text=True, input=stdin, timeout=PATIENCE
        )
        assert done.returncode == code, (args, done)
        return done

    assert run("checkpoint", '{"step":7}', "--as", "w", "--note", "seven").stdout == "1\n"
    assert run("checkpoint", "-", "--as", "w", stdin="plain text").stdout == "2\n"
    assert bus.restore(1, agent="w") == {"step": 7}
    assert run("restore", "--as", "w").stdout == "plain text\n"
    assert run("restore", "1", "--as", "w").stdout == '{"step":7}\n'
    assert "seven" in run("checkpoint", "--list", "--as", "w").stdout
    assert "no checkpoint 9" in run("restore", "9", "--as", "w", code=3).stderr
    assert run("restore", "9", "--as", "w", "--json", code=3).stdout.startswith('{"error":')
