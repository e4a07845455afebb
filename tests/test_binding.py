"""The two bindings: cffi alone, and with the twins of the hot verbs. Both give the same."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

import cfnshm
from cfnshm import Bus, _core
from cfnshm.testing import temp_bus

HERE = Path(__file__).parent
only_twins = pytest.mark.skipif(_core.BINDING == "cffi", reason="the twins are switched off")


@only_twins
@pytest.mark.timeout(600)
def test_the_python_face_through_cffi_alone():
    """The same tests in a process without the twins."""
    names = ["test_bus.py", "test_aio.py", "test_processes.py", "test_binding.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", *(str(HERE / name) for name in names)],
        env={**os.environ, "CFNSHM_BINDING": "cffi"}, capture_output=True, text=True, timeout=500,
        cwd=HERE.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


@only_twins
def test_the_twins_say_what_their_originals_say():
    assert type(Bus.send).__name__ == "method_descriptor"
    assert list(inspect.signature(Bus.send).parameters)[:3] == ["self", "to", "body"]
    assert inspect.signature(Bus.recv).parameters["timeout"].default is None
    assert "AgentBusy" in inspect.getdoc(Bus.recv)
    assert type(cfnshm.Message.raw).__name__ == "getset_descriptor"


@pytest.mark.parametrize(
    "arguments",
    [{}, {"type": "t"}, {"priority": "high"}, {"timeout": 1}, {"timeout": 0.5}, {"timeout": 0},
     {"priority": "".join(["hi", "gh"]), "type": "ü" * 127, "timeout": 1e12}],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", b"x" * 300, "text", "\ud800", {"a": [1]}, None, bytes(60_000)])
def test_every_shape_of_a_send_arrives(bus, other, arguments, body):
    receipt = bus.send("b", body, **arguments)
    message = other.recv(timeout=5)
    assert message.body == body
    assert message.body is message.body
    assert message.type == arguments.get("type", "")
    assert message.priority == arguments.get("priority", "normal")
    assert (receipt.to, receipt.sequence) == ("b", message.sequence)
    message.ack()
    assert receipt.state == "acked"


def test_keywords_that_do_not_exist_and_arguments_too_many(bus):
    for call in (
        lambda: bus.send("a"),
        lambda: bus.send("a", b"", "task"),
        lambda: bus.send("a", b"", kind="task"),
        lambda: bus.recv(1, 2),
        lambda: bus.recv(time=1),
        lambda: bus.recv(1, timeout=1),
    ):
        with pytest.raises(TypeError):
            call()
    assert bus.peek() == []


def test_send_by_keywords(bus):
    bus.send(to="a", body=b"x")
    assert bus.recv(timeout=5, copy=True).raw == b"x"


def test_a_stale_address_is_looked_up_again(bus):
    for _ in range(3):
        bus.register("c")
        bus.send("c", b"1")
        bus.send_many([b"2", b"3"], to="c")
        assert [m.raw for m in bus.peek("c")] == [b"1", b"2", b"3"]
        with Bus(bus.name) as nobody:  # behind the sender's back
            assert nobody.unregister("c") == 3
            nobody.register("c")
            bus.send("c", b"4")
            bus.send_many([b"5", b"6"], to="c")
            assert [m.raw for m in bus.peek("c")] == [b"4", b"5", b"6"]
            nobody.unregister("c")
        with pytest.raises(cfnshm.UnknownAgent):
            bus.send("c", b"")
        with pytest.raises(cfnshm.UnknownAgent):
            bus.send_many([b""], to="c")


def test_a_batch_larger_than_the_lane_waits_for_room_and_keeps_its_order(bus_name):
    with temp_bus("a", name=bus_name, lanes={"normal": 2}) as bus, Bus(bus_name, agent="b") as other:
        bodies = [b"%d" % i for i in range(2000)]
        receipts = []
        thread = threading.Thread(target=lambda: receipts.extend(bus.send_many(bodies, to="b")))
        thread.start()
        got = []
        while len(got) < len(bodies):
            got += other.recv_many(100, timeout=10).raws
        thread.join()
        assert got == bodies
        assert sum(receipt.count for receipt in receipts) == len(bodies)
        with pytest.raises(cfnshm.Timeout):
            other.recv_many(timeout=0)  # acks the last batch
        with pytest.raises(cfnshm.Full) as info:
            bus.send_many(bodies, to="b", timeout=0)
        assert info.value.sent == 2 * 96
        assert [m.raw for m in other.recv_many(1000, timeout=0)] == bodies[:192]


def test_a_thread_that_waits_lets_others_run(bus):
    got = []
    reader = threading.Thread(target=lambda: got.append(bus.recv(timeout=20).raw))
    reader.start()
    bus.send("a", b"from the main thread")
    reader.join(20)
    assert got == [b"from the main thread"]


def test_a_handle_in_a_cycle_is_collected(bus_name):
    with temp_bus(name=bus_name):
        handle = Bus(bus_name, agent="a")
        handle.send("a", b"x")
        handle.self, handle.last = handle, handle.recv(timeout=5)
        gone = weakref.ref(handle)
        del handle
        gc.collect()
        assert gone() is None


def test_what_is_handed_out_is_not_kept(bus):
    """A million messages leave no more objects behind than a few."""
    bus.send("a", b"x")
    for _ in range(3):
        bus.recv(timeout=0)
        bus.send("a", {"x": 1})
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(2000):
        bus.recv(timeout=0).body["x"]
        bus.send("a", {"x": 1}, type="t")
    bus.send_many([b"y"] * 500, to="a")
    assert len(bus.recv_many(400, timeout=0).raws) == 400
    gc.collect()
    assert len(gc.get_objects()) - before < 20


def test_large_bodies_alone_and_in_a_batch():
    large = bytes(range(256)) * 1000
    with temp_bus("a", size="64M") as bus:
        bus.send("a", large)
        assert bus.recv(timeout=0).raw == large
        bus.send_many([b"a", b"b", large, b"c"], to="a")
        got = []
        while len(got) < 4:
            got += bus.recv_many(10, timeout=0).raws
        assert got == [b"a", b"b", large, b"c"]
        bus.send("a", large)
        assert bus.recv(timeout=0, copy=False).raw == large
