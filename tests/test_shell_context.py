"""Objects and named values in the shell: put, get, delete, state."""

import hashlib
import json
import os
import subprocess

import pytest
from shell import BASH, COMMAND, CORRUPT, EMPTY, ERROR, NO_ROOM, OK, PATIENCE, USAGE, on_a_bus_of_its_own

pytestmark = [
    pytest.mark.skipif(COMMAND is None, reason="there is no cfnshm in PATH"),
    pytest.mark.skipif(BASH is None, reason="there is no bash"),
]


@pytest.fixture
def bus(tmp_path):
    for shell in on_a_bus_of_its_own(tmp_path):
        shell.run("register", "a")
        yield shell


def name_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 300_000])
def test_put_and_get(bus, tmp_path, size):
    content = os.urandom(size)
    file = tmp_path / "file"
    file.write_bytes(content)
    assert bus.out("put", str(file)).decode() == name_of(content) + "\n"
    assert bus.out("get", name_of(content)) == content
    assert bus.json("put", "-", stdin=content) == {"ref": name_of(content), "bytes": size, "known": True}
    assert bus.out("put", stdin=content).decode().strip() == name_of(content)


def test_put_of_a_pipe_and_of_what_is_no_file(bus, tmp_path):
    done = subprocess.run(
        [BASH, "-c", "cfnshm put <(printf 'of a pipe')"], env=bus.env, capture_output=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.decode().strip() == name_of(b"of a pipe")
    for wrong in (str(tmp_path / "missing"), str(tmp_path)):  # a directory opens, and cannot be read
        assert f"cannot read {wrong}".encode() in bus.run("put", wrong, exit=ERROR).stderr


def test_what_python_put(bus):
    from cfnshm import Bus

    with Bus(bus.name) as python:
        ref = python.context.put("Zürich")
        assert bus.out("get", ref) == "Zürich".encode()
        assert bus.json("get", ref)["payload"] == "Zürich"
        raw = bus.out("put", stdin=b"\xff\0").decode().strip()
        assert python.context.get(raw) == b"\xff\0"
        assert bus.json("get", raw) == {"ref": raw, "bytes": 2, "payload": "/wA=", "encoding": "base64"}
        bus.run("state", "set", "k", '{"a":[1]}', "--body-json")
        assert python.state["k"] == {"a": [1]}
        python.state["text"] = "line"
        assert bus.out("state", "get", "text") == b"line\n"
        assert bus.out("state", "get", "text", "--raw") == b"line"


def test_delete(bus):
    first, second = (bus.out("put", stdin=text).decode().strip() for text in (b"1", b"2"))
    assert bus.json("delete", first, second) == {"deleted": 2}
    for verb in ("get", "delete"):
        assert bus.json(verb, first, exit=EMPTY)["code"] == "UNKNOWN_OBJECT"
    for wrong in ("", "x", "sha256:12", "sha256:" + "G" * 64):
        for verb in ("get", "delete"):
            assert b"64 hexadecimal digits" in bus.run(verb, wrong, exit=USAGE).stderr


def test_changed_bytes_are_not_printed(bus):
    content = os.urandom(9000)
    ref = bus.out("put", stdin=content).decode().strip()
    with open(bus.path / "region", "r+b") as region:
        at = region.read().index(content)
        region.seek(at)
        region.write(bytes([content[0] ^ 1]))
    done = bus.run("get", ref, exit=CORRUPT)
    assert done.stdout == b""
    assert b"were changed in the bus" in done.stderr


def test_too_large(bus, tmp_path):
    file = tmp_path / "large"
    with open(file, "wb") as f:
        f.truncate(1 << 30)
    failure = bus.json("put", str(file), exit=NO_ROOM)
    assert failure["code"] == "TOO_LARGE"
    assert "CFNSHM_SIZE" in failure["error"]


def test_values(bus):
    assert bus.out("state") == bus.out("state", "list") == b""
    bus.run("state", "set", "phase", "analysis")
    bus.run("state", "set", "tasks/1", stdin=b"from standard input\n")
    assert bus.out("state", "get", "phase") == b"analysis\n"
    assert bus.out("state", "get", "tasks/1") == b"from standard input\n"
    assert bus.out("state") == b"phase\ntasks/1\n"
    assert bus.out("state", "list", "tasks/") == b"tasks/1\n"
    listed = bus.lines("state", "list")
    assert [(v["key"], v["bytes"]) for v in listed] == [("phase", 8), ("tasks/1", 20)]
    shown = bus.json("state", "get", "phase")
    assert shown["value"] == "analysis"
    assert shown["version"] == listed[0]["version"]
    bus.run("state", "delete", "phase")
    assert bus.json("state", "get", "phase", exit=EMPTY)["code"] == "UNKNOWN_KEY"
    bus.run("state", "delete", "phase", exit=EMPTY)


def test_only_if_nobody_was_faster(bus):
    first = bus.json("state", "set", "k", "1", "--version", "0")["version"]
    assert bus.json("state", "set", "k", "2", "--version", "0", exit=ERROR)["code"] == "CONFLICT"
    second = bus.json("state", "set", "k", "2", "--version", str(first))["version"]
    assert second > first
    failure = bus.json("state", "delete", "k", "--version", str(first), exit=ERROR)
    assert failure["code"] == "CONFLICT"
    assert failure["remedy"]
    bus.run("state", "delete", "k", "--version", str(second))
    assert bus.json("state", "set", "k", "3", "--version", str(second), exit=EMPTY)["code"] == "UNKNOWN_KEY"


def test_counting_by_many_shells(bus):
    script = "for i in $(seq 25); do cfnshm state incr done >/dev/null; done"
    shells = [bus.start(BASH, "-c", script) for _ in range(4)]
    assert [s.wait(PATIENCE) for s in shells] == [OK] * 4
    assert bus.out("state", "incr", "done") == b"101\n"
    assert bus.out("state", "incr", "done", "--", "-101") == b"0\n"
    assert bus.json("state", "incr", "done", "5")["value"] == 5
    for wrong in ("", "x", "1.5", "99999999999999999999"):
        bus.run("state", "incr", "done", wrong, exit=USAGE)
    bus.run("state", "set", "done", "text")
    bus.run("state", "incr", "done", exit=USAGE)


def test_waiting_for_a_change(bus):
    version = bus.json("state", "set", "phase", "1")["version"]
    assert bus.out("state", "wait", "phase", "--version", "0") == b"1\n"
    bus.run("state", "wait", "phase", "--timeout", "0", exit=EMPTY)
    for key, seen, change, want in (
        ("phase", version, ["set", "phase", "2"], b"2\n"),
        ("later", 0, ["set", "later", "there"], b"there\n"),
    ):
        waiting = bus.command("state", "wait", key, "--version", str(seen))
        bus.run("state", *change)
        assert waiting.communicate(timeout=PATIENCE)[0] == want
    version = bus.json("state", "get", "phase")["version"]
    waiting = bus.command("state", "wait", "phase", "--version", str(version), "--json")
    bus.run("state", "delete", "phase")
    assert json.loads(waiting.communicate(timeout=PATIENCE)[0]) == {"key": "phase", "version": 0}


@pytest.mark.parametrize(
    "args", [["state", "read"], ["state", "get"], ["state", "set"], ["state", "get", "k", "x"], ["get"], ["delete"],
             ["state", "set", "k", "v", "--version", "x"], ["state", "set", "", "v"], ["state", "get", "a\nb"],
             ["state", "set", "k", "{", "--body-json"]],
)  # fmt: skip
def test_wrong_usage(bus, args):
    assert bus.run(*args, exit=USAGE).stdout == b""
    assert bus.json(*args, exit=USAGE)["code"] in ("USAGE", "INVALID", "BAD_NAME")
