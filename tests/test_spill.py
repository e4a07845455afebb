"""Objects that do not fit into memory: they go to disk, and come back; nothing is lost, and nothing is left."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from shell import CORRUPT, USAGE, Shell

from cfnshm import Bus, errors
from cfnshm.testing import temp_bus_name

SIZE = 200_000


@pytest.fixture
def place(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def small(place):
    """A bus whose heap holds about ten objects of SIZE."""
    with Bus(temp_bus_name(), agents=4, size="8M", spill=place, agent="a", temporary=True) as bus:
        yield bus


def put_many(bus, count):
    contents = [hashlib.sha256(bytes([i])).digest() * (SIZE // 32) for i in range(count)]
    return contents, [bus.context.put(content) for content in contents]


@pytest.fixture
def shell(small, tmp_path):
    return Shell(small.name, tmp_path)


def files(place):
    return [file for file in Path(place).glob("*/*") if file.name != "bus"]


def test_more_than_memory_holds(small, place):
    contents, refs = put_many(small, 60)
    info = small.context.info()
    assert info.spilled > 40
    assert info.spilled_size == info.spilled * len(contents[0])
    assert len(files(place)) == info.spilled
    assert info.objects == 60
    assert Path(info.spill).parent == place
    assert sum(o.spilled for o in small.context.list()) == info.spilled
    for content, ref in zip(contents, refs, strict=True):
        assert ref in small.context
        assert small.context.put(content).known
        assert small.context.get(ref) == content
        with small.context.view(ref) as view:
            assert view == content
    assert small.context.verify() == []
    assert small.check() == []
    for ref in refs:
        small.context.delete(ref)
    assert files(place) == []
    assert small.context.info().spilled == 0


def test_another_process_reads_what_is_on_disk(small, shell):
    contents, refs = put_many(small, 30)
    script = """
import sys
from cfnshm import Bus
with Bus(sys.argv[1], agent="") as bus:
    print(len(bus.context.get(sys.argv[2])))
"""
    for at in (0, 15, 29):
        run = subprocess.run(
            [sys.executable, "-c", script, small.name, refs[at]], capture_output=True, text=True, check=True
        )
        assert int(run.stdout) == len(contents[at])
    assert shell.out("get", refs[3]) == contents[3]


def test_what_is_looked_at_stays(small):
    _contents, refs = put_many(small, 5)
    views = [small.context.view(ref) for ref in refs]
    put_many(small, 40)
    assert [bytes(view[:32]) for view in views] == [hashlib.sha256(bytes([i])).digest() for i in range(5)]
    held = {o.ref for o in small.context.list() if not o.spilled}
    assert set(refs) <= held


def test_make_room(small):
    put_many(small, 10)
    most = small.context.info().size
    assert small.context.info().longest < most
    small.context.make_room(most)
    info = small.context.info()
    assert info.longest == most
    assert info.spilled == 10
    view = small.context.view(small.context.list()[0].ref)
    with pytest.raises(errors.NoSpace, match="held"):
        small.context.make_room(most)
    view.release()


def test_a_large_message_pushes_objects_out(small):
    _contents, refs = put_many(small, 10)
    body = os.urandom(1_500_000)
    small.send("a", body)
    assert small.recv(timeout=10).body == body
    assert small.context.info().spilled > 0
    assert all(len(small.context.get(ref)) for ref in refs)


def test_none(place):
    with Bus(temp_bus_name(), agents=4, size="8M", spill="off", temporary=True) as bus:
        assert bus.context.info().spill is None
        with pytest.raises(errors.NoSpace, match="none may go to disk"):
            put_many(bus, 40)


def test_bad_places(place):
    for wrong in ("relative", "/dev/null", place / "missing", "/" * 600):
        with pytest.raises(errors.InvalidArgument):
            Bus(temp_bus_name(), spill=wrong, temporary=True)


def test_the_environment_and_the_shell(place, tmp_path):
    shell = Shell(temp_bus_name(), tmp_path)
    shell.run("register", "x", "--size", "8M", "--agents", "4", "--spill", str(place))
    with Bus(shell.name, agent="", temporary=True) as bus:
        assert Path(bus.context.info().spill).parent == place
    done = shell.run("register", "x", env={"CFNSHM_SPILL": "no/where"}, exit=USAGE)
    assert b"CFNSHM_SPILL" in done.stderr
    shell.run("register", "x", env={"CFNSHM_SPILL": str(place)})
    with Bus(shell.name, agent="", temporary=True) as bus:
        assert Path(bus.context.info().spill).parent == place


def test_the_directory_goes_with_the_bus(place):
    bus = Bus(temp_bus_name(), agents=4, size="8M", spill=place)
    put_many(bus, 30)
    assert len(list(place.iterdir())) == 1
    bus.destroy()
    bus.close()
    assert list(place.iterdir()) == []


def test_what_a_removed_bus_left_is_pruned(place, tmp_path):
    name = temp_bus_name()
    with Bus(name, agents=4, size="8M", spill=place) as bus:
        put_many(bus, 30)
        home = Path(bus.info()["path"])
    for file in home.iterdir():  # by hand, as people do
        file.unlink()
    home.rmdir()
    with Bus(temp_bus_name(), agents=4, size="8M", spill=place, temporary=True) as other:
        put_many(other, 30)
        shell, env = Shell(name, tmp_path), {"CFNSHM_SPILL": str(place)}
        assert b"no more" in shell.out("buses", env=env)
        shell.run("buses", "--prune", env=env)
        assert [str(p) for p in place.iterdir()] == [other.context.info().spill]
        assert len(other.context.get(other.context.list()[0].ref)) > 0


def test_doctor_says_what_is_on_disk(small, place, shell):
    put_many(small, 30)
    report = shell.json("doctor", small.name)
    assert report["spilled"] == small.context.info().spilled
    assert b"on disk" in shell.out("doctor", small.name)
    victim = files(place)[0]
    victim.unlink()
    said = shell.run("doctor", small.name, exit=CORRUPT).stdout.decode()
    assert f"is not there: {victim}" in said


def test_killed_in_the_middle(small, place):
    """Processes that are killed while they push each other's objects out: what was told to be there is there."""
    script = """
import hashlib, os, sys
from cfnshm import Bus
with Bus(sys.argv[1], agent="") as bus:
    i = 0
    while True:
        content = hashlib.sha256(f"{sys.argv[2]}.{i}".encode()).digest() * 4000
        ref = bus.context.put(content)
        print(ref, flush=True)
        if i >= 6:
            bus.context.delete(old.pop(0))
        else:
            old = [] if i == 0 else old
        old.append(ref)
        print("-", flush=True)
        i += 1
"""
    told = []
    for turn in range(6):
        run = subprocess.Popen(
            [sys.executable, "-c", script, small.name, str(turn)], stdout=subprocess.PIPE, text=True
        )
        lines = []
        for line in run.stdout:
            lines.append(line.strip())
            if len(lines) == 10 + 7 * turn:
                run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        refs = [line for line in lines if line.startswith("sha256:")]
        told.append((turn, refs))
    small.reap()
    for turn, refs in told:
        for i, ref in enumerate(refs):
            if i < len(refs) - 8:
                continue  # deleted, or about to be
            try:
                content = small.context.get(ref)
            except errors.UnknownObject:
                assert i < len(refs) - 5
                continue
            assert content == hashlib.sha256(f"{turn}.{i}".encode()).digest() * 4000
    small.repair()
    assert small.check() == []
    for info in small.context.list():
        small.context.delete(info.ref)
    small.context.collect()
    small.repair()
    assert files(place) == []
    assert small.context.info().used == 0
