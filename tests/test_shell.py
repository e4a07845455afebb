"""The shell face: the real `cfnshm` command, the scripts for bash, the bash examples.

All through processes, as a user would; nothing of the package is imported.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import pytest
from shell import (
    BASH,
    BASH_DIR,
    BUSY,
    COMMAND,
    COMPAT,
    CORRUPT,
    DEAD,
    EMPTY,
    ERROR,
    FENCED,
    FULL,
    NO_BUS,
    NO_ROOM,
    OK,
    PATIENCE,
    PERMISSION,
    ROOT,
    UNKNOWN,
    USAGE,
    on_a_bus_of_its_own,
)  # fmt: skip

from cfnshm import Bus

COMPLETION = BASH_DIR / "completion.bash"
WAKE = 5  # seconds within which a waiting process looks around: its tick is at most two


pytestmark = [
    pytest.mark.skipif(COMMAND is None, reason="there is no cfnshm in PATH"),
    pytest.mark.skipif(BASH is None, reason="there is no bash"),
]

NO_OBJECT = "sha256:" + "0" * 64
EMPTY_OBJECT = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CONTROL_LANE = 64  # places in the lane that fills up soonest

HOT_VERBS = [
    "register", "unregister", "send", "recv", "ack", "request", "reply", "broadcast", "inbox",
    "list", "status", "wait", "whoami", "destroy", "put", "get", "delete", "state",
]  # fmt: skip


@pytest.fixture
def bus(tmp_path):
    yield from on_a_bus_of_its_own(tmp_path)


@pytest.fixture
def pair(bus):
    """A bus with the agents a and b."""
    bus.agents("a", "b")
    return bus


# ---- help, usage, the frame ----


def test_version_and_help(bus):
    assert re.match(rb"cfnshm \S+ \(layout \d+\)\n", bus.out("--version"))
    general = bus.out("--help")
    assert bus.run(exit=USAGE).stderr == general
    for verb in HOT_VERBS:
        assert f"\n  {verb} ".encode() in general
        text = bus.out(verb, "--help")
        assert text.startswith(f"usage: cfnshm {verb}".encode())
        assert bus.out("help", verb) == text


@pytest.mark.parametrize(
    "args",
    [
        ["send"],
        ["request"],
        ["reply"],
        ["reply", "not-a-token", "x"],
        ["ack", "--as", "a"],
        ["ack", "--as", "a", "not-an-id"],
        ["status", "--as", "a"],
        ["status", "text"],  # as whom?
        ["recv"],
        ["inbox"],
        ["register"],
        ["unregister"],
        ["send", "b", "x", "--no-such-option"],
        ["send", "b", "x", "--type"],
        ["send", "b", "x", "--priority", "urgent"],
        ["recv", "--as", "a", "--timeout", "soon"],
        ["recv", "--as", "a", "--timeout", "-1"],
        ["recv", "--as", "a", "--count", "0"],
        ["send", "bad name", "x"],
        ["send", "../b", "x"],
        ["send", "", "x"],
        ["register", ".hidden"],
        ["register", "x" * 64],
        ["list", "--bus", "a/b"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_says_why(pair, args):
    done = pair.run(*args, exit=USAGE)
    assert done.stdout == b""
    assert done.stderr.startswith(b"cfnshm ")
    failure = json.loads(pair.out(args[0], "--json", *args[1:], exit=USAGE))
    assert set(failure) == {"error", "code", "remedy"}
    assert failure["code"] in ("USAGE", "INVALID", "BAD_NAME")


@pytest.mark.parametrize("verb", [v for v in HOT_VERBS if v not in ("register", "wait", "whoami")])
def test_no_bus_is_12(bus, verb):
    args = {"ack": ["1.1.1"], "reply": ["message:1:a", "x"], "status": ["x"], "list": [], "put": ["/dev/null"],
            "get": [NO_OBJECT], "delete": [NO_OBJECT], "state": ["list"]}.get(
        verb, ["a", "x"][: 2 if verb in ("send", "request") else 1]
    )
    if verb in ("recv", "destroy", "broadcast"):
        args = []
    if verb == "broadcast":
        args = ["x"]
    failure = bus.json(verb, *args, "--as", "a", exit=NO_BUS)
    assert failure["code"] == "NO_BUS"
    assert failure["remedy"]
    assert bus.run(verb, *args, "--as", "a", exit=NO_BUS).stdout == b""
    assert not bus.path.exists()


def test_other_verbs_go_to_python(bus, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 9\n')
    python.chmod(0o755)
    env = {"CFNSHM_PYTHON": str(python)}
    assert bus.out("doctor", "--fix", "a b", env=env, exit=9) == b"-m\ncfnshm\ndoctor\n--fix\na b\n"
    done = bus.run("doctor", env={"CFNSHM_PYTHON": str(tmp_path / "none")}, exit=ERROR)
    assert b"CFNSHM_PYTHON" in done.stderr


# ---- register, unregister, list, status, whoami, destroy ----


def test_register_list_status(bus):
    assert bus.json("register", "a") == {"agent": "a", "bus": bus.name, "created": True}
    assert bus.json("register", "a")["created"] is False
    bus.run("register", "b", "--type", "coder", "--team", "red", "--capabilities", "c py",
            "--tags", "x", "--status", 'busy "now"')  # fmt: skip
    bus.run("status", "done \\ soon", "--as", "a")
    a, b = bus.lines("list")
    assert (a["name"], a["status"], a["life"]) == ("a", "done \\ soon", "none")
    assert [b[k] for k in ("type", "team", "capabilities", "tags", "status")] == [
        "coder", "red", "c py", "x", 'busy "now"',
    ]  # fmt: skip
    assert [x["name"] for x in bus.lines("list", "--team", "red")] == ["b"]
    assert [x["name"] for x in bus.lines("list", "--type", "none")] == []
    plain = bus.out("list").decode().splitlines()
    assert plain[0].split()[0] == "NAME"
    assert [line.split()[0] for line in plain[1:]] == ["a", "b"]
    assert oct(bus.path.stat().st_mode & 0o777) == oct(0o700)


def test_whoami(bus):
    assert bus.out("whoami", "--as", "me") == b"me\n"
    assert bus.out("whoami", env={"CFNSHM_AGENT": "you"}) == b"you\n"
    assert bus.json("whoami", "--as", "me") == {
        "agent": "me",
        "bus": bus.name,
        "path": str(bus.path),
    }
    bus.run("whoami", exit=ERROR)
    assert not bus.path.exists()


def test_identity_by_environment_and_option(pair):
    pair.run("send", "b", "1", env={"CFNSHM_AGENT": "a"})
    pair.run("send", "b", "2", "--as", "c", env={"CFNSHM_AGENT": "a"})
    assert [m["from"] for m in pair.messages("b")] == ["a", "c"]
    other = pair.name + ".x"
    pair.run("register", "a", "--bus", other)
    assert pair.lines("inbox", "a", "--bus", other) == []
    pair.run("destroy", other)
    pair.run("list", "--bus", other, exit=NO_BUS)


def test_directory_option(bus, tmp_path):
    where = tmp_path / "elsewhere"
    where.mkdir()
    bus.run("register", "a", "--dir", str(where))
    assert [a["name"] for a in bus.lines("list", env={"CFNSHM_DIR": str(where)})] == ["a"]
    bus.run("list", exit=NO_BUS)
    bus.run("destroy", "--dir", str(where))
    assert list(where.iterdir()) == []


def test_unregister(pair):
    pair.run("send", "b", "x")
    assert pair.json("unregister", "b") == {"dropped": 1}
    assert pair.json("unregister", "b", exit=UNKNOWN)["code"] == "UNKNOWN_AGENT"
    reader = pair.reader("a")
    assert pair.json("unregister", "a", exit=BUSY)["code"] == "AGENT_BUSY"
    pair.run("unregister", "a", "--force")
    assert reader.wait(PATIENCE) in (UNKNOWN, FENCED)


def test_destroy(pair):
    reader = pair.reader("a")
    assert pair.json("destroy", exit=BUSY)["code"] == "AGENT_BUSY"
    assert pair.path.exists()
    pair.run("destroy", "--force")
    assert not pair.path.exists()
    assert reader.wait(PATIENCE) == NO_BUS
    assert b"destroyed" in reader.stderr.read()
    pair.run("destroy", "--force", exit=NO_BUS)


def test_capacity_is_11(bus):
    bus.run("register", "a", "--agents", "2")
    bus.run("register", "b")
    assert bus.json("register", "c", exit=NO_ROOM)["code"] == "OVER_CAPACITY"
    # Acting as somebody makes the agent, so it needs a place too.
    bus.run("send", "a", "x", "--as", "c", exit=NO_ROOM)
    assert bus.json("register", "x", "--bus", bus.name + "2", "--size", "900G", exit=NO_ROOM)[
        "code"
    ] == "NO_SPACE"  # fmt: skip
    assert bus.json("send", "a", "-", stdin=bytes(48 << 20), exit=NO_ROOM)["code"] == "TOO_LARGE"


# ---- a region that cannot be used ----


@contextlib.contextmanager
def changed(path, offset, new):
    with open(path, "r+b", buffering=0) as file:
        file.seek(offset)
        old = file.read(len(new))
        file.seek(offset)
        file.write(new)
        yield
        file.seek(offset)
        file.write(old)


def test_corrupt_header_and_other_version_are_8(pair):
    region = pair.path / "region"
    for offset, new, code in [
        (8, b"\x09", "VERSION_MISMATCH"),
        (40, b"garbage", "CORRUPT"),
        (0, bytes(4096), "CORRUPT"),
    ]:
        with changed(region, offset, new):
            for args in (["list"], ["register", "c"], ["send", "b", "x"], ["destroy"]):
                assert pair.json(*args, exit=CORRUPT)["code"] == code
            assert b"cfnshm list: " in pair.run("list", exit=CORRUPT).stderr
    assert len(pair.lines("list")) == 2
    os.truncate(region, 4096)
    assert pair.json("list", exit=CORRUPT)["code"] == "CORRUPT"
    # The fixture's `destroy --force` must manage this one.


def test_open_directory_is_7(pair):
    pair.path.chmod(0o777)
    assert pair.json("list", exit=PERMISSION)["code"] == "PERMISSION"
    pair.run("send", "b", "x", exit=PERMISSION)
    pair.path.chmod(0o700)
    pair.run("list")


# ---- send and receive ----

PAYLOADS = {
    "empty": b"",
    "quotes": b"""it's "quoted" and `ticked`""",
    "newlines": b"one\ntwo\n\nfour\n",
    "dollar": b"$HOME ${x} $(false) !!",
    "backslashes": b"a\\nb\\\\c\\",
    "tabs and controls": b"\t\r\x01\x1b[31m\x7f",
    "utf-8": "grüße 日本 🜁".encode(),
    "not utf-8": b"\xff\xfe latin-1 \xe9",
    "nul": b"a\0b\0",
    "option": b"--json",
    "minus": b"-",
    "json": b'{"a": [1, "\\u0000"]}',
    "large": bytes(range(256)) * 600,
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_by_stdin_is_exact(pair, name):
    payload = PAYLOADS[name]
    for dash in (["-"], []):
        pair.run("send", "b", *dash, stdin=payload)
        assert pair.out("recv", "--as", "b", "--raw", "--timeout", "0") == payload
    pair.run("send", "b", "-", stdin=payload)
    (message,) = pair.lines("recv", "--as", "b", "--timeout", "0")
    shown = message["payload"]
    if message.get("encoding") == "base64":
        assert base64.b64decode(shown) == payload
    else:
        assert shown.encode() == payload


@pytest.mark.parametrize("name", [n for n in PAYLOADS if n not in ("nul", "minus", "large")])
def test_payload_by_argument_and_eval_is_exact(pair, name):
    payload = PAYLOADS[name]
    pair.run("send", "--type", "it's", "--as", "a", "--", "b", os.fsdecode(payload))
    done = subprocess.run(
        [BASH, "-c", 'eval "$(cfnshm recv --as b --shell --timeout 0)"; '
         'printf %s "$CFN_BODY"; printf "|%s" "$CFN_FROM" "$CFN_TYPE" "$CFN_REDELIVERED" >&2'],
        env=pair.env, capture_output=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert done.stdout == payload
    assert done.stderr == b"|a|it's|0"


def test_plain_output_ends_its_line(pair):
    for payload, shown in [(b"x", b"x\n"), (b"x\n", b"x\n"), (b"", b"\n")]:
        pair.run("send", "b", "-", stdin=payload)
        assert pair.out("recv", "--as", "b", "--timeout", "0") == shown


def test_message_fields(pair):
    sent = pair.json("send", "b", '{"n": 1}', "--body-json", "--type", "task", "--as", "a")
    assert (sent["state"], sent["position"]) == ("stored", 0)
    (message,) = pair.lines("inbox", "b")
    assert (message["redelivered"], message["deliveries"]) == (False, 0)  # it waits
    assert pair.lines("recv", "--as", "b", "--timeout", "0") == [{**message, "deliveries": 1}]
    for field, value in {
        "from": "a", "to": "b", "type": "task", "priority": "normal", "position": 0,
        "redelivered": False, "payload": {"n": 1},
    }.items():  # fmt: skip
        assert message[field] == value
    assert re.fullmatch(r"\d+\.\d+\.\d+", message["msg_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", message["timestamp"])


def test_send_tells_the_msg_id(pair):
    sent = pair.json("send", "b", "x")
    assert sent["msg_id"] == pair.messages("b")[0]["msg_id"]


@pytest.mark.parametrize("body", ["not json", "{", "1 2", "", "'a'", "NaN", '"\t"', "01"])
def test_body_json_must_be_json(pair, body):
    pair.run("send", "b", "-", "--body-json", stdin=body.encode(), exit=USAGE)


def test_a_json_body_is_one_line(pair):
    pair.run("send", "b", "-", "--body-json", stdin=b'{\n  "a": [1,\r\n 2]\n}\n')
    assert [m["payload"] for m in pair.lines("recv", "--as", "b", "--timeout", "0")] == [{"a": [1, 2]}]


def test_order_count_all_and_priority(pair):
    for i in range(6):
        pair.run("send", "b", str(i))
    pair.run("send", "b", "stop", "--priority", "control")
    pair.run("send", "b", "soon", "--priority", "high")
    pair.run("send", "b", "late", "--priority", "low")
    assert pair.json("inbox", "b", "--total") == {"messages": 9}
    assert pair.out("inbox", "b", "--total") == b"9\n"
    assert len(pair.out("inbox", "b").splitlines()) == 9
    assert pair.out("recv", "--as", "b", "--count", "3") == b"stop\nsoon\n0\n"
    assert pair.out("recv", "--as", "b", "--priority", "low", "--timeout", "0") == b"late\n"
    assert pair.out("recv", "--as", "b", "--all") == b"1\n2\n3\n4\n5\n"
    pair.run("recv", "--as", "b", "--all", exit=EMPTY)


def test_empty_and_timeout_are_3(pair):
    for timeout in ("0", "0.05"):
        assert pair.json("recv", "--as", "b", "--timeout", timeout, exit=EMPTY)["code"] == "EMPTY"
        done = pair.run("recv", "--as", "b", "--timeout", timeout, exit=EMPTY)
        assert done.stdout == b""
        assert done.stderr
    assert pair.lines("inbox", "b") == []
    assert pair.json("request", "b", "x", "--timeout", "0.05", exit=EMPTY)["code"] == "TIMEOUT"
    assert pair.json("send", "b", "x", "--wait", "--timeout", "0.05", exit=EMPTY)["code"] == "TIMEOUT"


def test_fewer_than_count_is_no_failure_for_what_came(pair):
    pair.run("send", "b", "1")
    assert pair.out("recv", "--as", "b", "--count", "2", "--timeout", "0.05") == b"1\n"
    assert pair.out("recv", "--as", "b", "--count", "2", "--timeout", "0.05", exit=EMPTY) == b""


def test_variables_are_of_one_message(pair):
    for more in ("--all", "--follow"):
        pair.run("recv", "--as", "b", "--shell", more, exit=USAGE)
    pair.run("recv", "--as", "b", "--shell", "--count", "2", exit=USAGE)
    emptied = pair.out("recv", "--as", "b", "--shell", "--timeout", "0", exit=EMPTY)
    assert b"CFN_PRIORITY=''" in emptied
    assert b"CFN_REDELIVERED=''" in emptied


def test_what_looks_like_an_option_and_is_none(pair):
    assert pair.out("send", "b", "--as", "a", "--", "--json") == b""
    assert pair.out("send", "b", "x", "--type", "--shell") == b""
    first, second = pair.messages("b")
    assert (first["payload"], second["type"]) == ("--json", "--shell")
    assert pair.out("recv", "--as", "b") == b"--json\n"


def test_ack_of_what_is_not_there_touches_nothing(pair):
    pair.run("send", "b", "1", "--as", "a")
    pair.run("ack", "99.1.1", "--as", "b", exit=EMPTY)
    (waiting,) = pair.messages("b")
    assert waiting["redelivered"] is False
    pair.run("recv", "--as", "b", "--hold")
    pair.run("ack", waiting["msg_id"], "--as", "b")
    pair.run("ack", waiting["msg_id"], "--as", "b", exit=EMPTY)


def test_lanes_and_slabs_from_the_environment(bus):
    for name, value in (("CFNSHM_LANES", "normal"), ("CFNSHM_LANES", "x=1"), ("CFNSHM_SLABS", "3K=1")):
        assert (
            f"{name} is '{value}'" in bus.run("register", "a", env={name: value}, exit=USAGE).stderr.decode()
        )
    env = {"CFNSHM_LANES": "normal=16,control=4", "CFNSHM_SLABS": "256=64,1K=32,4K=0", "CFNSHM_AGENTS": "4"}
    bus.run("register", "a", env=env)
    with Bus(bus.name, agent="", create=False) as handle:
        info = handle.info()
        assert (info["lanes"]["normal"], info["lanes"]["control"]) == (16, 4)
        assert (info["chunks"][256], info["chunks"][1024], info["chunks"][4096]) == (64, 32, 0)


def test_a_directory_without_a_bus_can_be_removed(bus):
    bus.path.mkdir(mode=0o700)
    bus.run("destroy", exit=NO_BUS)
    bus.run("destroy", "--force")
    assert not bus.path.exists()


def test_all_of_an_empty_inbox_says_so(pair):
    assert pair.json("recv", "--as", "b", "--all", exit=EMPTY)["code"] == "EMPTY"


def test_wait_waits_for_agents_and_names_who_is_missing(bus):
    waiting = bus.command("wait", "a", "b")
    bus.run("register", "a")
    failure = bus.json("wait", "a", "b", "c", "--timeout", "0.05", exit=EMPTY)
    assert failure["code"] == "TIMEOUT"
    assert failure["error"].endswith(": b, c")
    assert waiting.poll() is None
    bus.run("register", "b")
    assert waiting.wait(PATIENCE) == OK
    assert bus.json("wait", "a", "b")["registered"] == 2


def test_an_unknown_verb_is_answered_with_all_of_them(bus):
    said = bus.run("frobnicate", exit=USAGE).stderr.decode()
    assert "no such verb" in said
    for verb in [*HOT_VERBS, "doctor", "buses", "demo"]:
        assert f"  {verb} " in said


def test_a_bad_number_in_the_environment_is_told(bus):
    for name in ("CFNSHM_AGENTS", "CFNSHM_SIZE"):
        said = bus.run("register", "a", env={name: "abc"}, exit=USAGE).stderr.decode()
        assert f"{name} is 'abc'" in said
    assert not bus.path.exists()


def test_a_sender_waiting_for_an_agent_that_dies_is_told_with_6(pair):
    code = (
        "import signal; from cfnshm import Bus; b = Bus(agent='owner'); print('there', flush=True); "
        "b.recv(); signal.pause()"
    )
    owner = pair.start(sys.executable, "-c", code)
    assert owner.stdout.readline() == b"there\n"
    sender = pair.command("send", "owner", "x", "--wait", "--json")
    pair.until(
        lambda: pair.messages("owner")[0:1] and pair.messages("owner")[0]["redelivered"], "it was taken"
    )
    owner.kill()
    owner.wait(PATIENCE)
    out, _ = sender.communicate(timeout=PATIENCE)
    assert sender.returncode == DEAD
    failure = json.loads(out)
    assert failure["code"] == "AGENT_DEAD"
    assert re.match(r"message \d+\.\d+\.\d+ was sent, but: agent 'owner' is dead", failure["error"])


def test_broadcast_says_who_did_not_get_it(pair):
    for i in range(CONTROL_LANE):
        pair.run("send", "b", str(i), "--priority", "control", "--timeout", "0")
    args = ["broadcast", "x", "--as", "c", "--priority", "control", "--timeout", "0"]
    told = pair.json(*args, exit=FULL)
    assert (told["agents"], told["delivered"]) == (2, 1)
    assert told["missing"] == {"b": "FULL"}
    assert told["code"] == "FULL"


def test_buses_lists_and_prunes_what_nobody_needs(pair):
    def look(*args):
        lines = pair.out("buses", "--json", *args).splitlines()
        return {b["bus"]: b for b in map(json.loads, lines)}.get(pair.name)

    pair.run("send", "b", "x")
    assert look()["unread"] == 1
    assert look()["agents"] == 2
    assert look("--prune")["destroyed"] is False
    pair.run("recv", "--as", "b")
    reader = pair.reader("b")
    assert look("--prune")["destroyed"] is False
    reader.kill()
    reader.wait(PATIENCE)
    assert look("--prune")["destroyed"] is True
    assert look() is None


def test_full_is_4_and_waits_without_timeout(pair):
    for i in range(CONTROL_LANE):
        pair.run("send", "b", str(i), "--priority", "control", "--timeout", "0")
    args = ["send", "b", "x", "--priority", "control", "--timeout"]
    assert pair.json(*args, "0", exit=FULL)["code"] == "FULL"
    assert b"full" in pair.run(*args, "0", exit=FULL).stderr
    waited = pair.json(*args, "0.05", exit=FULL)
    assert waited["code"] == "FULL"
    assert "timed out waiting for room" in waited["error"]
    pair.run("send", "b", "other lane", "--timeout", "0")
    waiting = pair.command("send", "b", "last", "--priority", "control", "--as", "a")
    assert pair.out("recv", "--as", "b") == b"0\n"
    assert waiting.wait(PATIENCE) == OK
    got = pair.out("recv", "--as", "b", "--all", "--priority", "control").split()
    assert got == [str(i).encode() for i in range(1, CONTROL_LANE)] + [b"last"]


def test_unknown_agent_is_5(pair):
    for args in (
        ["send", "nobody", "x"],
        ["request", "nobody", "x"],
        ["reply", "message:1:nobody", "x"],
        ["reply", "request:1:1:1", "x"],
        ["inbox", "nobody"],
        ["recv", "--as", "nobody"],
        ["ack", "1.1.1", "--as", "nobody"],
        ["unregister", "nobody"],
    ):
        failure = pair.json(*args, exit=UNKNOWN)
        assert failure["code"] in ("UNKNOWN_AGENT", "STALE")
        assert pair.run(*args, exit=UNKNOWN).stdout == b""


def test_one_reader_at_a_time_others_are_10(pair):
    reader = pair.reader("b")
    for args in (["recv", "--timeout", "0"], ["ack", "1.1.1"]):
        assert pair.json(*args, "--as", "b", exit=BUSY)["code"] == "AGENT_BUSY"
    assert pair.agent("b")["reader_pid"] == reader.pid
    pair.lines("inbox", "b")  # to look is allowed
    thief = pair.command("recv", "--as", "b", "--steal")
    pair.until(lambda: pair.agent("b")["reader_pid"] == thief.pid, "the thief")
    pair.run("send", "b", "for the thief")
    assert thief.communicate(timeout=PATIENCE)[0] == b"for the thief\n"
    assert thief.returncode == OK


def test_the_robbed_reader_is_told_9(pair):
    reader = pair.reader("b")
    pair.run("recv", "--as", "b", "--steal", "--timeout", "0", exit=EMPTY)
    pair.run("send", "b", "x")
    assert reader.wait(PATIENCE) == FENCED
    assert pair.out("recv", "--as", "b", "--timeout", "0") == b"x\n"


def test_the_robbed_reader_is_told_9_while_the_thief_reads(pair):
    reader = pair.reader("b")
    pair.command("recv", "--as", "b", "--steal", "--follow")
    assert reader.wait(WAKE) == FENCED


def test_a_killed_reader_blocks_nobody(pair):
    reader = pair.reader("b")
    reader.kill()
    reader.wait(PATIENCE)
    pair.run("send", "b", "next")
    assert pair.out("recv", "--as", "b", "--timeout", "0") == b"next\n"


def test_recv_waits_and_follows(pair):
    one = pair.command("recv", "--as", "a", "--timeout", str(PATIENCE))
    pair.run("send", "a", "x")
    assert one.communicate(timeout=PATIENCE)[0] == b"x\n"
    reader = pair.reader("b")
    for i in range(3):
        pair.run("send", "b", f"{i}")
        assert reader.stdout.readline() == b"%d\n" % i


def test_send_waits_for_the_ack(pair):
    sender = pair.command("send", "b", "x", "--wait", "--json")
    (message,) = pair.lines("recv", "--as", "b", "--hold", "--timeout", str(PATIENCE))
    assert sender.poll() is None
    pair.run("ack", message["msg_id"], "--as", "b")
    assert json.loads(sender.communicate(timeout=PATIENCE)[0])["state"] == "acked"


def test_hold_then_ack(pair):
    for i in range(4):
        pair.run("send", "b", str(i))
    held = pair.lines("recv", "--as", "b", "--all", "--hold")
    assert [m["payload"] for m in held] == list("0123")
    again = pair.lines("recv", "--as", "b", "--all", "--hold")
    assert [m["redelivered"] for m in held + again] == [False] * 4 + [True] * 4
    assert [m["msg_id"] for m in held] == [m["msg_id"] for m in again]
    pair.run("ack", held[2]["msg_id"], held[0]["msg_id"], "--as", "b")
    assert [m["payload"] for m in pair.messages("b")] == ["1", "3"]
    assert pair.json("ack", held[0]["msg_id"], "--as", "b", exit=EMPTY)["code"] == "EMPTY"
    pair.run("ack", held[1]["msg_id"], held[3]["msg_id"], "--as", "b")
    assert pair.messages("b") == []


def test_ack_goes_on_after_a_missing_one(pair):
    pair.run("send", "b", "x")
    pair.run("ack", "1.1.999", pair.messages("b")[0]["msg_id"], "--as", "b", exit=EMPTY)
    assert pair.messages("b") == []


# ---- output that cannot be written ----


def test_closed_pipe_loses_nothing(pair):
    process = pair.command("recv", "--as", "b")
    process.stdout.close()
    pair.run("send", "b", "precious")
    assert process.wait(PATIENCE) == -signal.SIGPIPE
    process.stdout = None
    assert [(m["payload"], m["redelivered"]) for m in pair.messages("b")] == [("precious", True)]
    assert pair.out("recv", "--as", "b", "--timeout", "0") == b"precious\n"


def test_full_disk_loses_nothing(pair):
    pair.run("send", "b", "precious")
    with open("/dev/full", "wb") as full:
        process = pair.command("recv", "--as", "b", stdout=full)
    assert process.wait(PATIENCE) == NO_ROOM
    assert b"stays in the inbox" in process.stderr.read()
    assert pair.out("recv", "--as", "b", "--timeout", "0") == b"precious\n"


def test_closed_stdout_loses_nothing(pair):
    pair.run("send", "b", "precious")
    pair.bash("cfnshm recv --as b >&-", exit=ERROR)
    assert pair.out("recv", "--as", "b", "--timeout", "0") == b"precious\n"


def test_all_descriptors_closed_loses_nothing(pair):
    pair.run("send", "b", "precious")
    pair.bash("cfnshm recv --as b <&- >&- 2>&- && exit 0 || exit 1", exit=ERROR)
    assert [m["payload"] for m in pair.messages("b")] == ["precious"]
    assert all(f.stat().st_size == 0 for f in pair.path.glob("live.*"))


def test_recv_ends_when_nobody_can_read_its_output(pair):
    agent = pair.start(BASH, "-c", "x=$(cfnshm recv --as b --timeout 600); echo $x")
    reader = pair.until(lambda: pair.agent("b")["reader_pid"], "the reader")
    agent.kill()
    try:
        pair.until(lambda: pair.agent("b")["reader_pid"] == 0, "the end of recv", WAKE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(reader, signal.SIGTERM)


# ---- request, reply, broadcast ----


def test_request_and_reply(pair):
    asker = pair.command("request", "b", "what?", "--as", "a", "--timeout", str(PATIENCE), "--json")
    (question,) = pair.lines("recv", "--as", "b", "--timeout", str(PATIENCE))
    assert (question["from"], question["payload"]) == ("a", "what?")
    pair.run("reply", question["reply_to"], "-", "--as", "b", stdin=b"that\n'$x'")
    answer = json.loads(asker.communicate(timeout=PATIENCE)[0])
    assert (answer["payload"], answer["from"]) == ("that\n'$x'", "b")
    assert asker.returncode == OK
    # A second answer comes too late.
    failure = pair.json("reply", question["reply_to"], "again", "--as", "b", exit=UNKNOWN)
    assert failure["code"] == "STALE"


def test_reply_to_a_plain_message(pair):
    pair.run("send", "b", "x", "--as", "a")
    (message,) = pair.lines("recv", "--as", "b", "--timeout", "0")
    pair.run("reply", message["reply_to"], "y", "--as", "b", "--type", "answer")
    (answer,) = pair.lines("recv", "--as", "a", "--timeout", "0")
    assert (answer["payload"], answer["from"], answer["type"]) == ("y", "b", "answer")
    assert answer["correlation_id"] == str(message["sequence"])


def test_broadcast(pair):
    pair.run("register", "c", "--team", "red")
    assert pair.out("broadcast", "hello", "--as", "a") == b"2\n"
    assert pair.json("broadcast", "-", "--as", "a", "--team", "red", "--type", "t", stdin=b"x\0") == {
        "agents": 1,
        "delivered": 1,
    }
    assert [len(pair.messages(x)) for x in "abc"] == [0, 1, 2]
    assert pair.json("broadcast", "x", "--team", "blue") == {"agents": 0, "delivered": 0}
    for _ in range(CONTROL_LANE):
        pair.run("send", "b", "x", "--priority", "control")
    done = pair.run("broadcast", "x", "--as", "a", "--priority", "control", "--timeout", "0", exit=FULL)
    assert done.stdout == b"1\n"
    assert b"1 of 2" in done.stderr


# ---- --json of everything ----


@pytest.mark.parametrize("verb", HOT_VERBS)
def test_json_of_every_verb(pair, verb):
    pair.run("send", "a", "x", "--as", "b")
    pair.run("put", "/dev/null")
    (waiting,) = pair.messages("a")
    asked = None
    args = {
        "register": ["c"], "unregister": ["b"], "send": ["b", "x"], "recv": [],
        "ack": [waiting["msg_id"]], "request": ["b", "x"], "reply": [waiting["reply_to"], "x"],
        "broadcast": ["x"], "inbox": ["a"], "list": [], "status": ["x"], "whoami": [], "wait": ["b"],
        "destroy": [], "put": ["/dev/null"], "get": [EMPTY_OBJECT], "delete": [EMPTY_OBJECT], "state": ["incr", "n"],
    }[verb]  # fmt: skip
    if verb == "request":
        asked = pair.start(
            BASH, "-c", 'eval "$(cfnshm recv --as b --shell)"; cfnshm reply "$CFN_REPLY" y --as b'
        )
    lines = pair.lines(verb, *args, "--as", "a")
    assert lines
    assert all(isinstance(line, dict) and "error" not in line for line in lines)
    if asked:
        assert asked.wait(PATIENCE) == OK


def test_json_strings_are_escaped(pair):
    ugly = 'q" b\\ n\n t\t e\x1b u\u00fc'
    pair.run("send", "b", ugly, "--type", ugly[:20], "--as", "a")
    pair.run("status", ugly, "--as", "a")
    (message,) = pair.lines("recv", "--as", "b", "--timeout", "0")
    assert (message["payload"], message["type"]) == (ugly, ugly[:20])
    assert pair.agent("a")["status"] == ugly


def test_tables_are_one_line_each(pair):
    pair.run("send", "b", "x", "--type", "two\nlines\x1b[31m")
    pair.run("status", "two\nlines\x1b[31m", "--as", "a")
    for text, lines in [(pair.out("inbox", "b"), 1), (pair.out("list"), 3)]:
        assert b"\x1b" not in text
        assert len(text.splitlines()) == lines


# ---- several shells ----


def test_two_shells_act_as_one_agent(pair):
    count = 200
    pair.bash(f"for ((i = 0; i < {count}; i++)); do cfnshm send b $i --as a; done")
    script = """
        while :; do
          cfnshm recv --as b --timeout 0 2>/dev/null && status=0 || status=$?
          case $status in 0 | 10) ;; 3) exit 0 ;; *) exit $status ;; esac
        done"""
    shells = [pair.start(BASH, "-c", script) for _ in range(2)]
    got = []
    for shell in shells:
        out, err = shell.communicate(timeout=PATIENCE)
        assert shell.returncode == OK, err
        mine = [int(line) for line in out.split()]
        assert mine == sorted(mine)
        got += mine
    assert sorted(got) == list(range(count))
    assert pair.agent("a")["sent"] == count


def test_shells_send_as_one_agent_at_once(pair):
    pair.bash("""
        for shell in 1 2 3 4; do
          for ((i = 0; i < 50; i++)); do cfnshm send b $shell.$i --as a || exit; done &
        done
        wait""")
    got = [m["payload"].split(".") for m in pair.lines("recv", "--as", "b", "--all")]
    for shell in "1234":
        assert [int(i) for s, i in got if s == shell] == list(range(50))


# ---- the names of the file bus ----

EXISTING_SCRIPT = r"""
init_message_bus_system
init_message_bus coordinator
init_message_bus worker-1

send_message coordinator worker-1 task '{"task": "build", "files": ["a b.c", "$x"]}' >/dev/null
send_message coordinator worker-1 task '{
  "task": "say \"hi\"\n",
  "path": "C:\\temp"
}' >/dev/null
send_message coordinator worker-1 work -5 >/dev/null

echo "$(message_count worker-1)"
messages=$(receive_messages worker-1)
again=$(receive_messages worker-1)
[ "$messages" = "$again" ]
echo "$messages"
clear_inbox worker-1
[ "$(message_count worker-1)" -eq 0 ]
[ "$(receive_messages worker-1)" = "[]" ]

send_message worker-1 coordinator result '{"status": "completed"}' >/dev/null
receive_messages coordinator
cleanup_message_bus worker-1
cleanup_message_bus worker-1
cleanup_message_bus_system
cleanup_message_bus_system
"""


def test_existing_script(bus, tmp_path):
    count, messages, results = bus.compat(EXISTING_SCRIPT).stdout.splitlines()
    assert count == "3"
    messages, results = json.loads(messages), json.loads(results)
    for message in messages + results:
        assert {"msg_id", "from", "to", "type", "sequence", "timestamp", "payload"} <= set(message)
    assert [m["payload"] for m in messages] == [
        {"task": "build", "files": ["a b.c", "$x"]},
        {"task": 'say "hi"\n', "path": "C:\\temp"},
        -5,
    ]
    assert {(m["from"], m["to"]) for m in messages} == {("coordinator", "worker-1")}
    assert [m["type"] for m in messages] == ["task", "task", "work"]
    assert [m["sequence"] for m in messages] == [1, 2, 3]
    assert len({m["msg_id"] for m in messages + results}) == 4
    assert results[0]["payload"] == {"status": "completed"}
    assert not bus.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_compat_send_prints_the_msg_id(pair):
    sent = pair.compat("""for i in 1 2; do send_message a b t "$i"; done""").stdout.split()
    assert [m["msg_id"] for m in pair.messages("b")] == sent


def test_compat_clear_keeps_what_was_not_shown(pair):
    out = pair.compat("""
        init_message_bus b
        send() { send_message a b t "$1" >/dev/null 2>&1; }
        send 1; send 2
        shown=$(receive_messages b)
        send 3
        clear_inbox b
        message_count b                 # 3 is there
        shown=$(receive_messages b)
        clear_inbox b
        shown=$(receive_messages b)     # the inbox is seen empty
        send 4
        clear_inbox b
        message_count b                 # 4 is there
        clear_inbox b                   # nothing was shown since: as a script that starts afresh
        message_count b
        send 5
        receive_messages b | true || true  # may not have been shown
        clear_inbox b 2>/dev/null || true
        """).stdout.split()
    assert out == ["1", "1", "0"]


def test_compat_broken_showing_clears_nothing(pair):
    pair.compat("""
        send_message a b t "\\"$(printf '%0200000d' 0)\\"" >/dev/null 2>&1
        (trap '' PIPE; receive_messages b 2>/dev/null || true) | head -c 1 >/dev/null
        ! clear_inbox b 2>/dev/null
        """)
    assert len(pair.messages("b")) == 1


def test_compat_two_shells_and_a_note_of_another(pair):
    """What one shell was shown is not what another may clear."""
    pair.run("send", "b", "1")
    first = pair.start(
        BASH, "-c",
        f'source {shlex.quote(str(COMPAT))}; receive_messages b; read -r _; clear_inbox b',
        stdin=subprocess.PIPE,
    )  # fmt: skip
    assert len(json.loads(first.stdout.readline())) == 1
    pair.run("send", "b", "2")
    pair.compat("x=$(receive_messages b)")
    assert first.communicate(b"\n", timeout=PATIENCE)[1] == b""
    assert first.returncode == OK
    assert [m["payload"] for m in pair.messages("b")] == ["2"]


def test_compat_failures_are_loud(pair):
    script = """
        for command in 'send_message a nobody t 1' 'message_count nobody' \
            'receive_messages nobody' 'clear_inbox nobody' 'receive_messages ../b' \
            'send_message a' \
            'init_message_bus' 'init_message_bus .x'; do
          $command </dev/null && status=0 || status=$?
          echo "$status"
        done"""
    done = pair.compat(script)
    statuses = done.stdout.split()
    assert statuses == ["5", "5", "5", "5", "2", "2", "2", "2"]
    assert len(done.stderr.splitlines()) >= 8
    pair.run("destroy")
    pair.compat("x=$(receive_messages b)", exit=NO_BUS)
    assert "PATH" in pair.compat("PATH=/nowhere; init_message_bus_system", exit=127).stderr


def test_compat_large_payload_and_odd_settings(pair):
    out = pair.compat("""
        set -C; IFS=.; set -f; shopt -s nocasematch nullglob
        send_message a b t "\\"$(printf '%0200000d' 0)\\"" >/dev/null 2>&1
        send_message a b 'type with "quotes","sequence":7' '{"ü": "ÿ"}' >/dev/null 2>&1
        send_message a b '' '' >/dev/null 2>&1
        receive_messages b
        receive_messages b >/dev/null
        clear_inbox b
        message_count b
        cleanup_message_bus b
        """).stdout.splitlines()
    first, second, third = json.loads(out[0])
    assert first["payload"] == "0" * 200000
    assert (second["type"], second["sequence"]) == ('type with "quotes","sequence":7', 2)
    assert second["payload"] == {"ü": "ÿ"}
    assert (third["type"], third["payload"]) == ("", None)
    assert out[1] == "0"


def test_compat_bus_is_named_after_the_old_variable(bus):
    script = 'echo "$CFNSHM_BUS"'
    env = {"CFN_MESSAGE_BASE_DIR": "/dev/shm/cfn-bus.1"}
    assert bus.compat(script, env=env | {"CFNSHM_BUS": ""}).stdout == "_dev_shm_cfn-bus_1\n"
    assert bus.compat(script, env=env).stdout == bus.name + "\n"


def test_compat_twenty_senders_lose_nothing(bus):
    """While the receiver reads and clears all the time: the moment at which files are lost."""
    done = bus.compat("""
        init_message_bus_system
        init_message_bus sink
        for s in {1..20}; do
          init_message_bus "s$s"
          (for i in {1..20}; do
            send_message "s$s" sink data "{\\"s\\":$s,\\"i\\":$i}" >/dev/null 2>&1
          done) &
        done
        total=0
        while ((total < 400 && SECONDS < 50)); do
          messages=$(receive_messages sink)
          clear_inbox sink
          [[ $messages != '[]' ]] || continue
          echo "$messages"
          rest=${messages//'"msg_id"'/}
          total=$((total + (${#messages} - ${#rest}) / 8))
        done
        wait
        message_count sink
        cleanup_message_bus_system""")
    *arrays, left = done.stdout.splitlines()
    messages = [m for array in arrays for m in json.loads(array)]
    assert left == "0"
    assert len(messages) == 400
    assert len({m["msg_id"] for m in messages}) == 400
    for s in range(1, 21):
        assert [m["payload"]["i"] for m in messages if m["from"] == f"s{s}"] == list(range(1, 21))
    positions = [m["sequence"] for m in messages]
    assert positions == sorted(set(positions))


# ---- completion ----


def complete(bus, line, **options):
    out = bus.bash(
        f"""set -eu
        source {shlex.quote(str(COMPLETION))}
        COMP_LINE=$1 COMP_POINT=${{#1}}
        _cfnshm
        for word in "${{COMPREPLY[@]}}"; do echo "$word"; done""",
        line,
        **options,
    )
    assert out.stderr == ""
    return out.stdout.split("\n")[:-1]


def test_completion_is_sourced_and_registered(bus):
    done = bus.bash(f"set -eu; source {shlex.quote(str(COMPLETION))}; complete -p cfnshm")
    assert done.stderr == ""
    assert "_cfnshm" in done.stdout


def test_completion_without_a_bus_is_silent(bus):
    for line in ("send ", "send a", "recv --as ", "ack --as a ", "inbox ", "destroy x"):
        assert complete(bus, f"cfnshm {line}") == []
    assert complete(bus, "cfnshm send ", env={"PATH": "/nowhere"}) == []


def test_completion_of_verbs_and_options(bus):
    assert set(HOT_VERBS) <= set(complete(bus, "cfnshm "))
    assert complete(bus, "cfnshm re") == ["register", "recv", "request", "reply", "resume", "restore"]
    assert complete(bus, "cfnshm recv --priority ") == ["control", "high", "normal", "low"]
    for verb in HOT_VERBS:
        offered = complete(bus, f"cfnshm {verb} --")
        assert {"--bus", "--dir", "--json", "--help"} <= set(offered)
        usage = re.findall(r"^(?:usage:| ).*", bus.out(verb, "--help").decode(), re.M)
        for option in re.findall(r"--[a-z-]+", " ".join(usage)):
            assert option in offered, verb


def test_completion_of_names(bus):
    bus.agents("alpha", "beta", "a:b@1")
    bus.run("send", "beta", "x")
    assert sorted(complete(bus, "cfnshm send ")) == ["a:b@1", "alpha", "beta"]
    assert complete(bus, "cfnshm send --type t al") == ["alpha"]
    assert complete(bus, "cfnshm send alpha ") == []
    assert complete(bus, "cfnshm recv --as be") == ["beta"]
    assert complete(bus, "cfnshm recv --as=be") == ["beta"]
    # Readline replaces what follows the last ':' or '@' only.
    assert complete(bus, "cfnshm send a:") == ["b@1"]
    assert complete(bus, "cfnshm send a:b@") == ["1"]
    assert complete(bus, "cfnshm ack --as beta ") == [bus.messages("beta")[0]["msg_id"]]
    assert complete(bus, f"cfnshm send --bus {bus.name}-no ") == []
    assert complete(bus, f"cfnshm list --bus {bus.name}") == [bus.name]


# ---- the examples, and what is replaced ----


def test_bash_agent(pair):
    pair.run("register", "shouter")
    agent = pair.start(BASH, str(ROOT / "examples" / "bash_agent.sh"), env={"CFNSHM_AGENT": "shouter"})
    ask = ["request", "shouter", "--timeout", str(PATIENCE)]
    assert pair.out(*ask, "a 'b' $c") == b"A 'B' $C\n"
    assert pair.out(*ask, "--", "-", stdin=b"two\nlines") == b"TWO\nLINES\n"
    pair.run("send", "shouter", "nothing to answer")
    pair.run("send", "shouter", "", "--type", "stop")  # is work: only control stops it
    assert pair.out(*ask, "still there") == b"STILL THERE\n"
    pair.run("send", "shouter", "", "--type", "stop", "--priority", "control")
    assert agent.wait(PATIENCE) == OK, agent.stderr.read()
    assert pair.messages("shouter") == []


def test_bash_agent_loses_nothing_when_killed(pair):
    agent = pair.start(BASH, str(ROOT / "examples" / "bash_agent.sh"), env={"CFNSHM_AGENT": "shouter"})
    reader = pair.until(
        lambda: next((a["reader_pid"] for a in pair.lines("list") if a["name"] == "shouter"), 0),
        "the agent",
    )
    agent.kill()
    agent.wait(PATIENCE)
    pair.run("send", "shouter", "precious")
    with contextlib.suppress(ProcessLookupError):
        os.kill(reader, signal.SIGTERM)
    assert [m["payload"] for m in pair.messages("shouter")] == ["precious"]


def test_bash_talk(bus):
    done = subprocess.run(
        [BASH, str(ROOT / "examples" / "bash_talk.sh")],
        env=bus.env, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (OK, "")
    assert 'IS "ANYBODY" THERE? $HOME STAYS AS IT IS\n' in done.stdout
    assert done.stdout.endswith("the agent ended by itself\n")
    assert not list(pathlib.Path("/dev/shm").glob(f"cfnshm.{os.getuid()}.talk-*"))


def test_what_is_replaced_runs_and_leaves_nothing(bus, tmp_path):
    script = str(ROOT / "src" / "cfnshm" / "bash" / "filebus_baseline.sh")
    for args, expected in [
        (["run", "--coordinators", "2", "--workers", "3"], {"agents": 9, "expected": 6}),
        (["rate", "--messages", "5"], {"messages": 5}),
    ]:
        folder = tmp_path / args[0]
        done = subprocess.run(
            [BASH, script, *args, "--dir", str(folder)],
            env=bus.env, capture_output=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
        result = json.loads(done.stdout)
        assert expected.items() <= result.items()
        assert 0 < result["delivered"] <= result.get("expected", 5)
        assert result["messages_per_second"] > 0
        assert not folder.exists()
