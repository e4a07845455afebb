"""`cfnshm doctor`: what it says of the dead, the stopped, the stuck and the damaged; what it mends, and what it
refuses. And a bus that is damaged under running processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_processes import wait_until

from cfnshm import Bus, errors
from cfnshm.cli import doctor, main
from cfnshm.cli.buses import look, names, prune
from cfnshm.testing import temp_bus


def examine(bus, repair=False):
    return doctor.examine(bus.name, None, repair)


def hold(name, agent):
    with Bus(name, agent=agent) as bus:
        bus.send("a", "ready")
        signal.pause()


def fill(name, agent, to):
    """Sends until it stands before a full inbox."""
    with Bus(name, agent=agent) as bus:
        bus.send("a", "ready")
        while True:
            bus.send(to, b"x")


@pytest.fixture
def child(bus, spawn):
    process = spawn(hold, bus.name, "child")
    assert bus.recv(timeout=20).body == "ready"
    return process


def test_a_sound_bus(bus, capsys):
    assert examine(bus)["sound"]
    assert main(["doctor", bus.name]) == 0
    assert capsys.readouterr().out.rstrip().endswith("sound")
    assert main(["doctor", bus.name, "--repair"]) == 0
    assert "nothing to repair" in capsys.readouterr().out


def test_the_dead_are_named_and_recycled(bus, child, capsys):
    bus.send("child", "one")
    child.kill()
    child.join()
    report = examine(bus)
    assert report["sound"]
    assert f"process {child.pid}" in report["dead"][0]
    assert "1 unread" in report["dead"][0]
    assert main(["doctor", bus.name]) == 0
    assert "--repair" in capsys.readouterr().out
    assert examine(bus, repair=True)["repaired"]["reaped"] == 1
    assert not any("not recycled" in text for text in examine(bus)["warnings"])
    assert "is dead" in examine(bus)["dead"][0], "its inbox still waits for a successor"
    with Bus(bus.name, agent="child") as heir:
        assert heir.recv(timeout=5).body == "one"


def test_the_stopped_are_named_with_the_remedy(bus, child):
    os.kill(child.pid, signal.SIGSTOP)
    wait_until(lambda: examine(bus)["stuck"])
    assert f"kill -CONT {child.pid}" in examine(bus)["stuck"][0]
    assert not examine(bus)["dead"]
    os.kill(child.pid, signal.SIGCONT)
    wait_until(lambda: not examine(bus)["stuck"])


def test_a_stopped_reader_of_the_command_is_named(bus):
    if not (command := shutil.which("cfnshm")):
        pytest.skip("there is no cfnshm in PATH")
    bus.register("shell")
    with subprocess.Popen(
        [command, "recv", "--as", "shell", "--follow", "--bus", bus.name], stdout=subprocess.PIPE
    ) as reader:
        bus.send("shell", "one")
        assert b"one" in reader.stdout.readline()
        reader.send_signal(signal.SIGSTOP)
        wait_until(lambda: examine(bus)["stuck"])
        assert f"kill -CONT {reader.pid}" in examine(bus)["stuck"][0]
        reader.kill()
    assert "'shell' is dead" in examine(bus)["dead"][0]


def test_a_damaged_bus_is_not_removed_for_being_empty(bus_name, spawn):
    def die(name):
        bus = Bus(name, agent="worker", agents=16, size="8M")
        bus.send_many([b"x"] * 5, to="worker")
        path = Path(bus.info()["path"]) / "region"
        data = bytearray(path.read_bytes())
        for at in range(4096 * 2, len(data) - 8, 8):  # every word that says "lap 0, chunk n" says "lap 7" now
            word = int.from_bytes(data[at : at + 8], "little")
            if 0 < word < 1 << 24 and data[at + 8 : at + 16] == bytes(8):
                data[at + 3] = 7
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(data[8192:])
        os._exit(0)

    spawn(die, bus_name).join()
    report = doctor.examine(bus_name, None, True)
    assert report["errors"]
    assert not report["removed"]
    assert not prune(look(bus_name, None), None)  # this one alone: a test prunes nobody else's
    assert bus_name in names()
    assert main(["doctor", "--remove", bus_name]) == 0


def test_destroy_tells_those_who_cannot_be_joined_any_more(bus, child):
    """The header is damaged: nobody can attach. Those who are attached are told that the bus has ended."""
    with region(bus).open("r+b") as file:
        file.seek(200)
        file.write(b"\xff")
    from cfnshm._core import check, ffi, lib

    check(lib.cfn_region_destroy_path(ffi.NULL, bus.name.encode()))
    with pytest.raises(errors.BusDestroyed):
        bus.send("a", "x")


def test_the_stuck_are_named_with_what_they_wait_for(bus, spawn, monkeypatch):
    monkeypatch.setattr(doctor, "LONG_S", 0)
    bus.register("one")
    bus.register("two")
    spawn(fill, bus.name, "one", "two")
    spawn(fill, bus.name, "two", "one")
    for _ in range(2):
        assert bus.recv(timeout=20).body == "ready"
    wait_until(lambda: any(text.startswith("a circle") for text in examine(bus)["stuck"]))
    stuck = examine(bus)["stuck"]
    assert any("room in the full inbox of 'two'" in text for text in stuck)
    assert "'one' waits for room in the full inbox of 'two'" in stuck[-1]
    assert "'two' waits for room in the full inbox of 'one'" in stuck[-1]


def test_repair_removes_only_what_holds_nothing(bus_name, spawn):
    def die(name):
        bus = Bus(name, agent="worker")
        bus.send("worker", "to itself")
        os._exit(0)

    child = spawn(die, bus_name)
    child.join()
    assert not doctor.examine(bus_name, None, True)["removed"], "a message is unread"
    with Bus(bus_name, agent="worker") as heir:
        assert heir.recv(timeout=5).body == "to itself"
    report = doctor.examine(bus_name, None, True)
    assert not report["removed"], "it left in order: its agent may come back"
    child = spawn(die, bus_name)
    child.join()
    with Bus(bus_name, agent="reader", create=False) as other:
        assert other.unregister("worker") == 1
        other.unregister("reader")
    spawn(lambda: (Bus(bus_name, agent="worker"), os._exit(0))).join()
    assert doctor.examine(bus_name, None, True)["removed"]
    with pytest.raises(errors.NoBus):
        Bus(bus_name, create=False)


def test_remove_takes_what_is_unread_and_refuses_the_living(bus, child, capsys):
    bus.send("child", "unread")
    assert main(["doctor", "--remove", bus.name]) == 10
    assert "in use" in capsys.readouterr().err
    child.kill()
    child.join()
    bus.close()
    assert main(["doctor", "--remove", bus.name, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"bus": bus.name, "removed": True, "unread": 2, "objects": 0, "values": 0}
    assert main(["doctor", "--remove", bus.name, "--repair"]) == 2
    assert main(["doctor", "--remove", bus.name]) == 12


def region(bus):
    return Path(bus.info()["path"]) / "region"


def test_a_damaged_header(bus, child, capsys):
    path = region(bus)
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"\xff")
    assert main(["doctor", bus.name]) == 8
    out = capsys.readouterr().out
    assert "DAMAGED" in out
    assert main(["doctor", "--remove", bus.name]) == 10, "this very process has it open"
    name = bus.name
    bus.close()
    capsys.readouterr()
    assert main(["doctor", name]) == 8
    assert f"process {child.pid} has it open" in capsys.readouterr().out
    assert main(["doctor", "--remove", name]) == 10
    assert str(child.pid) in capsys.readouterr().err
    os.kill(child.pid, signal.SIGSTOP)
    assert main(["doctor", "--remove", name]) == 10, "asleep is not dead"
    child.kill()
    child.join()
    capsys.readouterr()
    assert main(["doctor", name]) == 8
    assert f"--remove {name}" in capsys.readouterr().out
    assert main(["doctor", "--remove", name]) == 0
    assert not path.parent.exists()


def test_a_bus_cut_short_under_a_process_is_an_error_and_not_a_signal(bus):
    code = """if True:
        import sys, faulthandler
        from cfnshm import Bus, errors
        bus = Bus(sys.argv[1], agent="w")
        bus.send("a", "ready")
        print("sent", flush=True)
        sys.stdin.read(1)
        seen = set()
        for call in (lambda: bus.send("a", b"x" * 1000), lambda: bus.recv(timeout=0.1), bus.agents, bus.info,
                     lambda: bus.send_many([b"x"] * 50, to="a"), bus.check, lambda: bus.register("new")):
            try:
                call()
                seen.add("fine")
            except errors.Error as error:
                seen.add(error.code)
        print(sorted(seen))
        bus.close()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, bus.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert bus.recv(timeout=20).body == "ready"
        assert process.stdout.readline() == "sent\n"  # it is out of that call
        path = region(bus)
        os.truncate(path, 4096)
        out, _ = process.communicate("x", timeout=60)
    assert process.returncode == 0
    assert out.strip() == "['CORRUPT']"
    with pytest.raises(errors.Corrupt, match="cut short"):
        bus.recv(timeout=0)
    with pytest.raises(errors.Corrupt):
        Bus(bus.name, create=False)


@pytest.mark.parametrize("handler", ["default", "off", "other", "faulthandler"])
def test_bus_errors_elsewhere_are_none_of_ours(bus, tmp_path, handler):
    """SIGBUS of another mapping goes to whoever it went to before."""
    code = """if True:
        import faulthandler, mmap, os, signal, sys
        from cfnshm import Bus
        how, name, path = sys.argv[1:]
        if how == "faulthandler":
            faulthandler.enable()
        bus = Bus(name, agent="w")
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 8192)
        view = mmap.mmap(fd, 8192)
        os.ftruncate(fd, 0)
        if how == "other":
            os.kill(os.getpid(), signal.SIGBUS)
        view[5000]
    """
    env = dict(os.environ)
    if handler == "off":
        env["CFNSHM_SIGBUS"] = "off"
    done = subprocess.run(
        [sys.executable, "-c", code, handler, bus.name, str(tmp_path / "file")], env=env, capture_output=True
    )
    assert done.returncode == -signal.SIGBUS
    assert (b"Bus error" in done.stderr) == (handler == "faulthandler")


def test_two_buses_one_cut_short(bus):
    with temp_bus("b") as second, contextlib.suppress(errors.Error):
        second.send("b", "kept")
        os.truncate(region(bus), 0)
        with pytest.raises(errors.Corrupt):
            bus.send("a", "lost")
        assert second.recv(timeout=1).body == "kept"
        second.send("b", "and goes on")
        assert second.recv(timeout=1).body == "and goes on"
        return
    pytest.fail("the other bus was hurt")


def test_what_holds_an_object_or_a_value_is_not_taken_away(bus_name):
    for fill in (lambda bus: bus.context.put("kept"), lambda bus: bus.state.set("k", "kept")):
        with temp_bus(name=bus_name) as bus:
            fill(bus)
            child = os.fork()
            if child == 0:
                Bus(bus_name, agent="dead")
                os._exit(0)
            os.waitpid(child, 0)
            bus.close()
            assert not prune(look(bus_name, None), None)
            report = doctor.examine(bus_name, None, repair=True)
            assert report["objects"] + report["values"] == 1
            assert not report["removed"]
            assert look(bus_name, None)["objects"] + look(bus_name, None)["values"] == 1


def test_doctor_finds_a_changed_object(bus_name):
    with temp_bus(name=bus_name) as bus:
        content = os.urandom(9000)
        ref = bus.context.put(content)
        assert doctor.examine(bus_name, None, repair=False)["errors"] == []
        with open(f"{bus.info()['path']}/region", "r+b") as region:
            at = region.read().index(content)
            region.seek(at)
            region.write(bytes([content[0] ^ 1]))
        (error,) = doctor.examine(bus_name, None, repair=False)["errors"]
        assert ref in error


def test_a_stopped_holder_of_a_lock_is_named(bus, spawn):
    def hold(bus_name):
        with Bus(bus_name, agent="h") as mine, mine.lock("repo"):
            mine.state["held"] = 1
            signal.pause()

    process = spawn(hold, bus.name)
    bus.state.wait("held", 0, timeout=60)
    os.kill(process.pid, signal.SIGSTOP)
    while bus.lock("repo").holder().state != "stopped":
        os.sched_yield()
    stuck = examine(bus)["stuck"]
    assert any(f"lock 'repo' is held by agent 'h', process {process.pid}, stopped" in line for line in stuck), stuck
    assert any(f"kill -CONT {process.pid}" in line and "--steal" in line for line in stuck)


def talk_only(name, agent, to):
    """Sends to those who do the same, and never receives."""
    with Bus(name, agent=agent) as bus:
        bus.send("a", "ready")
        for i in range(1 << 20):
            bus.send(to[i % len(to)], b"x")


def test_a_bus_that_is_full_of_what_senders_do_not_read(bus, spawn):
    names = [f"t{i}" for i in range(6)]
    for name in names:
        bus.register(name)
    for name in names:
        spawn(talk_only, bus.name, name, names)
    for _ in names:
        assert bus.recv(timeout=20).body == "ready"
    wait_until(lambda: any("wait for room on the bus" in text for text in examine(bus)["stuck"]))
    wait_until(lambda: any("6 agents that send and do not receive" in text for text in examine(bus)["stuck"]))
