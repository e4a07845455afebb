"""The two bindings: cffi alone, and with the twins of the hot verbs. Both give the same."""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import signal
import struct
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy
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
    names = ["test_bus.py", "test_arrays.py", "test_aio.py", "test_processes.py", "test_binding.py"]
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


# ---- what the twins must not do ----


def test_a_large_body_that_ends_a_batch_is_not_read_out_of_its_bytes():
    with temp_bus("a", size="64M") as bus:
        for size in (300_000, 1_000_000):
            bus.send("a", bytes(size))
            assert [len(raw) for raw in bus.recv_many(10, 0).raws] == [size]


@only_twins
def test_bytes_that_are_no_messages_are_refused():
    for wire in (b"", "x"):
        with pytest.raises((IndexError, TypeError, struct.error)):
            _ = cfnshm.Message(None, wire).body
    for name in ("raw", "body"):
        with pytest.raises(AttributeError):
            getattr(cfnshm.Message.__new__(cfnshm.Message), name)
    with pytest.raises(TypeError):  # neither are batches made by hand
        type(_core._hot.lend)()


def test_a_batch_gives_the_same_messages_whichever_way_it_is_looked_at(bus):
    bodies = [b"x" * n for n in range(40)] + ["text", {"a": [1, 2]}, b""]
    bus.send("a", b"alone")
    bus.send_many(bodies, to="a", type="kind")
    bus.send("a", b"alone")
    batch = bus.recv_many(100, timeout=0)
    assert [m.body for m in batch] == [b"alone", *bodies, b"alone"]
    assert [m.raw for m in batch] == batch.raws
    assert [m.type for m in batch] == ["", *["kind"] * len(bodies), ""]
    assert [m.sequence for m in batch] == list(range(batch[0].sequence, batch[0].sequence + len(batch)))
    assert len({m.id for m in batch}) == len(batch)
    assert batch[-1].raw == b"alone"
    assert [m.raw for m in batch[3:5]] == bodies[2:4]
    batch[5].ack()  # the others are acked together
    batch.ack()
    assert batch.acked
    with pytest.raises(cfnshm.Timeout):
        bus.recv(timeout=0)


def test_a_batch_keeps_its_messages_while_others_are_received(bus):
    """Large batches have the room that they were received into, and the next one gets another."""
    kept = []
    for turn in range(3):
        bus.send_many([bytes([turn]) * 300] * 200, to="a")
        kept.append(bus.recv_many(1000, timeout=0, hold=True))
    assert [b.raws for b in kept] == [[bytes([turn]) * 300] * len(kept[turn]) for turn in range(3)]
    for batch in kept:
        batch.ack()


def test_what_was_received_one_by_one_and_in_a_batch_is_acked_by_the_next_of_either(bus):
    for first, second in ((1, 4), (4, 1)):
        for n in (first, second):
            bus.send_many([b"1", b"2", b"3", b"4"][:n], to="a")
            got = bus.recv_many(n, timeout=0).raws if n > 1 else [bus.recv(timeout=0).raw]
            assert got == [b"1", b"2", b"3", b"4"][:n]
    bus.release()
    left = bus.recv_many(10, timeout=0)
    assert len(left) == 1  # the last one, and nothing of before
    assert left[0].redelivered


def test_a_check_with_findings_beside_a_sender_does_not_lock_up(bus, spawn):
    """The checker calls back into Python; a sender that has the GIL wants the handle."""
    child = spawn(_attach_and_die, bus.name)
    child.join()
    stop = threading.Event()

    def send():
        while not stop.is_set():
            bus.send("a", b"x")
            bus.recv(timeout=0)

    sender = threading.Thread(target=send)
    sender.start()
    findings = [finding for _ in range(300) for finding in bus.check()]
    stop.set()
    sender.join(20)
    assert not [text for severity, text in findings if severity == "error"]


def _attach_and_die(name):
    Bus(name, agent="dead")
    os.kill(os.getpid(), signal.SIGKILL)


def _drain(bus):
    signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(cfnshm.Timeout):
        while True:
            bus.recv(timeout=0)


def _interrupted(name, body):
    """SIGALRM as fast as it comes, into sends and receives: every one is seen, every message comes."""

    class Rung(BaseException):
        pass

    rung = seen = 0

    def handler(*_):
        nonlocal rung
        rung += 1
        raise Rung

    signal.signal(signal.SIGALRM, handler)
    gc.callbacks.clear()  # the test tools': an exception in one of them is swallowed by the interpreter
    elsewhere = []  # what came into a finalizer or a callback of others: the interpreter cannot raise it
    sys.unraisablehook = lambda unraisable: elsewhere.append(unraisable.object)
    with Bus(name, agent="a") as bus:
        while rung < 200:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + (rung % 7) * 0.00005)
                for _ in range(1000):  # the alarm may go off in a callback of others, which swallows it
                    bus.send("a", body, timeout=5)
                    assert bus.recv(timeout=5).raw
            except Rung:
                seen += 1
            _drain(bus)  # what was sent, and not received because of it
            bus.release()  # what hangs in between holds the place of all behind it: it comes again, marked
            _drain(bus)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        assert seen + len(elsewhere) == rung
        assert len(elsewhere) < 10, elsewhere
        _drain(bus)
        # What hangs in between was handed over as the interrupt came: the last bytecode, not the bus.
        counters = bus.info()["counters"]
        assert counters["sent"] - counters["acked"] <= 20


@pytest.mark.parametrize(
    "body", [{"a": "b" * 2000}, numpy.zeros(4000), b"x" * 30_000], ids=["json", "array", "large"]
)
def test_an_interrupt_is_never_swallowed_and_loses_nothing(body, bus_name, spawn):
    with temp_bus(name=bus_name, size="32M"):
        child = spawn(_interrupted, bus_name, body)
        child.join(60)
        assert child.exitcode == 0


def test_closing_under_a_thread_that_copies_large_bodies():
    for _ in range(30):
        with temp_bus("a", size="96M") as bus:
            for _ in range(8):
                bus.send("a", bytes(900_000))
            started = threading.Event()

            def read(bus=bus, started=started):
                with contextlib.suppress(cfnshm.Closed, cfnshm.Timeout):
                    while True:
                        assert len(bus.recv(timeout=0).raw) == 900_000
                        started.set()

            reader = threading.Thread(target=read)
            reader.start()
            started.wait(20)
            bus.close()
            reader.join(20)
            with pytest.raises(cfnshm.Closed):
                bus.send_many([b"x"] * 3, to="a")


_LATE = """
import atexit, threading
from cfnshm import Bus, Closed

def late():
    try:
        bus.send("a", b"x")
    except Closed:
        print("closed")

atexit.register(late)  # runs after the handle's own end
bus = Bus(agent="a", agents=8, size="8M", temporary=True)

def run():
    while True:
        bus.send("a", b"x")
        bus.recv()

for _ in range(2):
    threading.Thread(target=run, daemon=True).start()
threading.Thread(target=bus.recv, daemon=True).start()
"""


def test_the_end_of_a_process_with_threads_and_late_calls(bus_name):
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", _LATE], env={**os.environ, "CFNSHM_BUS": bus_name}, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


@only_twins
def test_a_subinterpreter_leaves_the_main_one_alone(bus):
    code = (
        "try: import _xxsubinterpreters as s\n"
        "except ImportError: import _interpreters as s\n"
        "from cfnshm import Bus\n"
        "b = Bus(agent='b', create=False)\n"
        "i = s.create()\n"
        's.run_string(i, \'import cfnshm; c = cfnshm.Bus(agent="c", create=False); c.send("b", {"x": 1})\')\n'
        "s.destroy(i)\n"
        "b.send('b', {'y': 2})\n"
        "print([b.recv(timeout=5).body for _ in range(2)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "CFNSHM_BUS": bus.name}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    if "No module named '_interpreters'" in done.stderr:
        pytest.skip("this Python has no subinterpreters under that name")
    assert done.stdout == "[{'x': 1}, {'y': 2}]\n", done.stderr


def test_exclusive_that_fails_changes_nothing(bus):
    bus.set_status("mine")
    with pytest.raises(cfnshm.AgentBusy):
        Bus(bus.name, agent="a", status="usurped", type="t", exclusive=True)
    assert (bus.agent_info("a").status, bus.agent_info("a").type) == ("mine", "")


def test_a_timeout_beyond_all_floats_waits(bus):
    threading.Timer(0.05, lambda: bus.send("a", b"late")).start()
    assert bus.recv(timeout=10**400).raw == b"late"


def test_a_finalizer_that_acks_while_its_view_is_made(bus, other):
    """The collector may run whatever it likes where an object is allocated: the place of the body must outlive that."""

    class Acks:
        def __init__(self, message):
            self.message, self.me = message, self

        def __del__(self):
            with contextlib.suppress(BufferError, cfnshm.InvalidArgument):
                self.message.ack()

    before = gc.get_threshold()
    for _ in range(20):
        bus.send("b", b"x" * 20_000)
        message = other.recv(timeout=20, copy=False)
        gc.collect()
        Acks(message)  # garbage from now on, for the collector
        try:
            gc.set_threshold(1)
            raw = message.raw
        except cfnshm.InvalidArgument:  # it was acked before its view was made
            continue
        finally:
            gc.set_threshold(*before)
        assert bytes(raw[:2]) == b"xx"
        raw.release()
        del raw
        with contextlib.suppress(cfnshm.InvalidArgument):
            message.ack()


def test_small_batches_between_large_ones(bus):
    """Their memory is of their own size, and must not become the room that a large one is received into."""
    for sizes in ((3, 900, 3, 900, 900, 3, 3, 900), (900, 3, 900, 3)):
        for n in sizes:
            bus.send_many([bytes([n % 250]) * 90] * n, to="a", timeout=5)
            got = 0
            while got < n:
                batch = bus.recv_many(1000, timeout=5)
                assert set(batch.raws) == {bytes([n % 250]) * 90}
                got += len(batch)


def test_small_batches_beside_large_ones_of_another_thread(bus):
    bus.register("b")
    other = Bus(bus.name, agent="b")

    def turns(reader, n):
        for _ in range(60):
            bus.send_many([bytes([n % 250]) * 90] * n, to=reader.agent, timeout=20)
            got = 0
            while got < n:
                raws = reader.recv_many(1000, timeout=20).raws
                assert set(raws) == {bytes([n % 250]) * 90}
                got += len(raws)

    failures = []

    def guarded(*arguments):
        try:
            turns(*arguments)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=pair) for pair in ((bus, 2), (other, 900))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert not failures


def test_a_batch_that_was_stolen_is_told_by_the_next_call(bus):
    bus.send_many([b"1", b"2"], to="a")
    assert len(bus.recv_many(5, timeout=0)) == 2
    thief = Bus(bus.name, agent="a")
    thief.claim(steal=True)
    assert [m.redelivered for m in thief.recv_many(5, timeout=0)] == [True, True]
    with pytest.raises(cfnshm.AgentFenced):
        bus.recv_many(5, timeout=0)
    thief.close()


def test_broadcasts_of_two_threads_reach_everybody():
    """One of them finds the other inside at times."""
    names = [f"r{i}" for i in range(20)]
    with temp_bus("a", agents=64, size="64M") as bus:
        for name in names:
            bus.register(name)

        def cast():
            for _ in range(40):
                assert len(bus.broadcast(b"x", timeout=5)) == len(names)

        threads = [threading.Thread(target=cast) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(bus.peek(name)) for name in names] == [80] * len(names)
        with pytest.raises(TypeError):
            bus.broadcast(b"x", agent_typ=None)


def test_an_agent_that_was_registered_anew_is_found_again(bus):
    to = "b"
    for turn in range(3):
        bus.register(to)
        for _ in range(3):
            bus.send(to, b"%d" % turn)
        assert [m.raw for m in bus.peek(to)] == [b"%d" % turn] * 3
        bus.unregister(to)


def test_messages_are_not_derived_from():
    for kind in (cfnshm.Message, cfnshm.Receipt):
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Derived", (kind,), {})
