"""The Python face: sending, receiving, leases, receipts, requests, agents."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading

import numpy
import pytest

import cfnshm
from cfnshm import Bus
from cfnshm.testing import temp_bus


@pytest.mark.parametrize(
    ("body", "codec"),
    [
        (b"", "raw"),
        (b"\x00\xff" * 100, "raw"),
        (bytearray(b"abc"), "raw"),
        ("", "text"),
        ('héllo \U0001f41d\n"$`\\', "text"),
        ({"a": [1, 2.5, None, True], "b": "x"}, "json"),
        ([1, 2, 3], "json"),
        (None, "json"),
        (42, "json"),
    ],
)
def test_bodies_come_back_as_sent(bus, other, body, codec):
    bus.send("b", body)
    message = other.recv(timeout=5)
    assert message.body == body
    assert message.codec == codec


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12, dtype="f4").reshape(3, 4),
        numpy.array(3.5),
        numpy.zeros((0, 5), "i8"),
        numpy.arange(10)[::2],
        numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array(["ab", "c"]),
    ],
    ids=["matrix", "scalar", "empty", "strided", "record", "text"],
)
@pytest.mark.parametrize("copy", [True, False])
def test_arrays(bus, other, array, copy):
    bus.send("b", array)
    message = other.recv(timeout=5, copy=copy)
    got = message.body
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert (got == array).all()
    assert not got.flags.writeable


def test_what_cannot_be_sent_says_so(bus, other):
    with pytest.raises(cfnshm.InvalidArgument, match="cannot be sent"):
        bus.send("b", object())
    with pytest.raises(cfnshm.InvalidArgument, match="Python objects"):
        bus.send("b", numpy.array([object()]))
    with pytest.raises(cfnshm.InvalidArgument, match="priority"):
        bus.send("b", b"", priority="urgent")
    with pytest.raises(cfnshm.InvalidArgument, match="255"):
        bus.send("b", b"", type="x" * 256)


def test_envelope(bus, other):
    receipt = bus.send("b", b"x", type="task", priority="high", correlation_id=7)
    message = other.recv(timeout=5)
    assert (message.sender, message.to, message.type) == ("a", "b", "task")
    assert message.priority == "high"
    assert message.sequence == receipt.sequence == 1
    assert message.id == receipt.id
    assert message.correlation_id == 7
    assert message.incarnation == 1
    assert not message.redelivered
    assert message.deliveries == 1
    assert not message.is_request
    assert "Message" in repr(message)


def test_priorities_are_served_in_order(bus, other):
    for priority in ("low", "normal", "high", "control"):
        bus.send("b", priority, priority=priority)
    assert [other.recv(timeout=0).body for _ in range(4)] == ["control", "high", "normal", "low"]


def test_receipt_goes_from_stored_to_seen_to_acked(bus, other):
    receipt = bus.send("b", b"x")
    assert receipt.state == "stored"
    message = other.recv(timeout=5)
    assert receipt.state == "seen"
    assert receipt.wait("seen", timeout=5) == "seen"
    with pytest.raises(cfnshm.Timeout, match="seen and not acked"):
        receipt.wait("acked", timeout=0.01)
    message.ack()
    assert receipt.wait(timeout=5) == "acked"
    with pytest.raises(cfnshm.InvalidArgument):
        message.ack()


def test_asking_for_the_next_acks_the_one_before(bus, other):
    receipts = [bus.send("b", i) for i in range(3)]
    other.recv(timeout=0)
    assert receipts[0].state == "seen"
    other.recv(timeout=0)
    assert [r.state for r in receipts] == ["acked", "seen", "stored"]
    with pytest.raises(cfnshm.Timeout):
        other.recv(timeout=0) and other.recv(timeout=0)
    assert [r.state for r in receipts] == ["acked"] * 3


def test_clean_end_acks_and_an_exception_does_not(bus):
    bus.register("b")
    one = bus.send("b", 1)
    with Bus(bus.name, agent="b") as reader:
        reader.recv(timeout=0)
    assert one.state == "acked"
    two = bus.send("b", 2)
    with pytest.raises(RuntimeError), Bus(bus.name, agent="b") as reader:
        reader.recv(timeout=0)
        raise RuntimeError
    assert two.state == "seen"
    with Bus(bus.name, agent="b") as reader:
        again = reader.recv(timeout=0)
        assert again.body == 2
        assert again.redelivered
        assert again.deliveries == 2


def test_iteration(bus, other):
    receipts = [bus.send("b", i) for i in range(3)]
    seen = []
    for message in other:
        seen.append(message.body)
        if len(seen) == 3:
            break
    assert seen == [0, 1, 2]
    assert [r.state for r in receipts] == ["acked", "acked", "seen"]


def test_batches(bus, other):
    receipts = bus.send_many([b"%d" % i for i in range(5000)], to="b", type="n")
    assert sum(r.count for r in receipts) == 5000
    got = []
    while len(got) < 5000:
        batch = other.recv_many(777, timeout=5)
        assert len(batch) <= 777
        assert batch.raws == [m.raw for m in batch]
        assert batch[-1].type == "n"
        got += batch.raws
    assert got == [b"%d" % i for i in range(5000)]
    batch.ack()
    assert [r.state for r in receipts] == ["acked"] * len(receipts)


def test_send_many_pairs_and_mixed_bodies(bus, other):
    bus.register("c")
    bus.send_many([("b", 1), ("c", "two"), ("b", b"three"), ("b", None)])
    assert [m.body for m in other.recv_many(timeout=5)] == [1, b"three", None]
    assert [m.body for m in bus.peek("c")] == ["two"]


def test_large_bodies_in_a_batch(bus, other):
    largest = bus.info()["largest_body"]
    big = bytes(range(256)) * (largest // 256)
    bus.send("b", b"small")
    bus.send("b", big)
    bus.send("b", b"after")
    got = []
    while len(got) < 3:
        got += [m.raw for m in other.recv_many(timeout=5)]
    assert got == [b"small", big, b"after"]
    with pytest.raises(cfnshm.TooLarge) as info:
        bus.send("b", bytes(largest + 64))
    assert info.value.want > info.value.have == largest


def test_view_stays_until_released(bus, other):
    bus.send("b", numpy.arange(1000))
    receipt = bus.send("b", b"next")
    message = other.recv(timeout=5, copy=False)
    part = message.body[10:20]
    with pytest.raises(BufferError, match="still in use"):
        message.ack()
    other.recv(timeout=5)  # does not ack what is still looked at
    assert receipt.state == "seen"
    assert part.sum() == sum(range(10, 20))
    del part
    message.ack()
    with pytest.raises(cfnshm.InvalidArgument, match="ended"):
        _ = message.raw


def test_full_lane(bus_name):
    with temp_bus("a", name=bus_name, lanes={"normal": 4}) as bus:
        bus.register("b")
        for i in range(4):
            bus.send("b", i)
        with pytest.raises(cfnshm.Full, match="4 places") as info:
            bus.send("b", 5, timeout=0)
        assert info.value.have == 4
        with pytest.raises(cfnshm.Timeout):
            bus.send("b", 5, timeout=0.02)
        with pytest.raises(cfnshm.Full) as info:
            bus.broadcast("x", timeout=0)
        assert list(info.value.missing) == ["b"]
        with Bus(bus_name, agent="b") as reader:
            thread = threading.Thread(target=lambda: bus.send("b", 4))
            thread.start()
            assert [reader.recv(timeout=10).body for _ in range(5)] == [0, 1, 2, 3, 4]
            thread.join(10)


def test_request_and_reply(bus, other):
    def serve():
        message = other.recv(timeout=10)
        assert message.is_request
        assert message.reply({"n": message.body["n"] + 1}, type="answer")

    thread = threading.Thread(target=serve)
    thread.start()
    answer = bus.request("b", {"n": 1}, timeout=10)
    thread.join()
    assert answer.body == {"n": 2}
    assert answer.sender == "b"
    assert answer.type == "answer"


def test_many_threads_ask_through_one_handle(bus, other):
    def serve():
        for message in other:
            if message.type == "stop":
                return
            message.reply(message.body * 2)

    server = threading.Thread(target=serve)
    server.start()
    results = {}

    def ask(i):
        results[i] = [bus.request("b", i * 1000 + j, timeout=20).body for j in range(50)]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    bus.send("b", None, type="stop")
    server.join()
    assert results == {i: [2 * (i * 1000 + j) for j in range(50)] for i in range(6)}


def test_large_reply():
    big = bytes(200_000)
    with temp_bus("a", size="40M") as bus, Bus(bus.name, agent="b") as other:
        thread = threading.Thread(target=lambda: other.recv(timeout=10).reply(big))
        thread.start()
        assert bus.request("b", "x", timeout=10).raw == big
        thread.join()


def test_reply_to_a_plain_message_is_a_message(bus, other):
    bus.send("b", "hello")
    sent = other.recv(timeout=5)
    assert other.reply(sent, "hi")
    answer = bus.recv(timeout=5)
    assert (answer.body, answer.correlation_id) == ("hi", sent.sequence)


def test_request_times_out_and_the_late_answer_is_counted(bus, other):
    with pytest.raises(cfnshm.Timeout):
        bus.request("b", "x", timeout=0.02)
    message = other.recv(timeout=5)
    assert message.reply("late")
    thread = threading.Thread(target=lambda: other.recv(timeout=10).reply("now"))
    thread.start()
    assert bus.request("b", "y", timeout=10).body == "now"
    thread.join()
    assert bus.info()["counters"]["replies_late"] == 1



@pytest.mark.parametrize("size", [1 << 10, 4 << 10, 16 << 10, 64 << 10])
def test_a_body_of_just_the_size_of_a_chunk_goes_into_one(bus, size):
    before = bus.info()["chunks_free"]
    body = os.urandom(size)
    bus.send("a", body)
    after = bus.info()["chunks_free"]
    assert {c: before[c] - after[c] for c in before if before[c] != after[c]} == {size: 1}
    assert bus.recv(timeout=5).body == body


def test_broadcast_knows_who_came_and_who_went(bus):
    assert list(bus.broadcast(1)) == []
    bus.register("b")
    assert list(bus.broadcast(2)) == ["b"]
    bus.state["a name of another kind"] = 1
    assert list(bus.broadcast(3)) == ["b"]
    bus.register("c")
    bus.unregister("b", force=True)
    bus.register("b")  # another one
    receipts = bus.broadcast(4)
    assert sorted(receipts) == ["b", "c"]
    assert all(receipt.to == name for name, receipt in receipts.items())
    with Bus(bus.name, agent="b") as b, Bus(bus.name, agent="c") as c:
        assert [m.body for m in b.recv_many(9, timeout=0)] == [4]
        assert [m.body for m in c.recv_many(9, timeout=0)] == [4]
        assert sorted(c.broadcast(5)) == ["a", "b"]
    bus.unregister("b")
    bus.unregister("c")
    assert bus.broadcast(6) == {}


def test_broadcast(bus, other):
    with Bus(bus.name, agent="c", team="red") as c:
        assert set(bus.broadcast("all")) == {"b", "c"}
        assert set(bus.broadcast("red", team="red")) == {"c"}
        assert [c.recv(timeout=0).body for _ in range(2)] == ["all", "red"]
        assert other.recv(timeout=0).body == "all"
        with pytest.raises(cfnshm.Timeout):
            other.recv(timeout=0)


def test_agents(bus):
    with Bus(bus.name, agent="w1", type="coder", team="red", capabilities=["py", "c"], tags="x", status="s"):
        info = bus.agent_info("w1")
        assert (info.type, info.team, info.capabilities) == ("coder", "red", ("py", "c"))
        assert info.alive
        assert info.incarnation == 1
        assert [a.name for a in bus.agents(type="coder")] == ["w1"]
        assert [a.name for a in bus.agents(capability="c", team="red")] == ["w1"]
        bus.send("w1", 1)
        bus.send("w1", 2, priority="low")
        assert bus.agent_info("w1").depth == {"control": 0, "high": 0, "normal": 1, "low": 1}
        with pytest.raises(cfnshm.AgentBusy):
            bus.unregister("w1")
    assert bus.agent_info("w1").life == "none"
    with Bus(bus.name, agent="w1", status="again") as again:
        assert again.incarnation == 2
        assert bus.agent_info("w1").status == "again"
        assert bus.agent_info("w1").type == "coder"
        again.set_status("working on it")
        assert bus.agent_info("w1").status == "working on it"
    assert bus.unregister("w1") == 2
    with pytest.raises(cfnshm.UnknownAgent, match="w1"):
        bus.send("w1", 1)
    with pytest.raises(cfnshm.InvalidArgument, match="not renamed"):
        bus.rename("w1", "w2")


def test_stale_address_after_removal(bus):
    bus.register("b")
    bus.send("b", 1)
    bus.unregister("b")
    bus.register("b")
    receipt = bus.send("b", 2)
    assert [m.body for m in bus.peek("b")] == [2]
    bus.unregister("b")
    assert receipt.state == "dropped"
    with pytest.raises(cfnshm.UnknownAgent):
        receipt.wait(timeout=1)


def test_wait_for(bus):
    with pytest.raises(cfnshm.Timeout, match="late"):
        bus.wait_for("a", "late", timeout=0.02)
    timer = threading.Thread(target=lambda: Bus(bus.name, agent="late").close())
    timer.start()
    bus.wait_for("late", timeout=10)
    timer.join()


def test_busy_and_steal(bus, other):
    second = Bus(bus.name, agent="b")
    assert not second.is_owner
    bus.send("b", 1)
    first = other.recv(timeout=0)
    with pytest.raises(cfnshm.AgentBusy) as info:
        second.recv(timeout=0)
    assert info.value.pid
    second.claim(steal=True)
    again = second.recv(timeout=0)
    assert again.redelivered
    with pytest.raises(cfnshm.AgentFenced):
        first.ack()
    again.ack()
    second.close()
    bus.send("b", 2)
    assert other.recv(timeout=0).body == 2  # given back: the first may read again


@pytest.mark.parametrize("name", ["a/b", ".hidden", "a\0b", "x" * 64, "", "sp ace", "ü", "../up", "a\n"])
def test_bad_names(bus, name):
    if name:
        with pytest.raises((cfnshm.BadName, cfnshm.InvalidArgument)):
            bus.register(name)
        with pytest.raises((cfnshm.BadName, cfnshm.InvalidArgument)):
            Bus(name)
    else:
        with pytest.raises(cfnshm.BadName):
            bus.register(name)


def test_longest_name(bus):
    assert bus.register("x" * 63)
    bus.send("x" * 63, 1)


def test_over_capacity(bus):
    with pytest.raises(cfnshm.OverCapacity) as info:
        Bus(bus.name, agents=1000)
    assert (info.value.have, info.value.want) == (16, 1000)
    with pytest.raises(cfnshm.OverCapacity):
        Bus(bus.name, size="1G")
    for i in range(15):
        bus.register(f"r{i}")
    with pytest.raises(cfnshm.OverCapacity, match="16 agents"):
        bus.register("one-too-many")


def test_no_space_names_the_numbers(bus_name):
    with pytest.raises(cfnshm.NoSpace, match="shm-size"):
        Bus(bus_name, size="1000000G")
    with pytest.raises(cfnshm.NoSpace, match="at least"):
        Bus(bus_name, agents=4096, size="1M")


def test_environment(monkeypatch, bus_name):
    monkeypatch.setenv("CFNSHM_BUS", bus_name)
    monkeypatch.setenv("CFNSHM_AGENT", "env")
    monkeypatch.setenv("CFNSHM_AGENTS", "20")
    monkeypatch.setenv("CFNSHM_SIZE", "9M")
    monkeypatch.setenv("CFNSHM_LANES", "normal=32,low=8")
    monkeypatch.setenv("CFNSHM_SLABS", "1M=2,64K=4")
    with Bus(temporary=True) as bus:
        info = bus.info()
        assert (bus.name, bus.agent, info["agents_capacity"]) == (bus_name, "env", 20)
        assert info["lanes"]["normal"] == 32
        assert info["chunks"][1 << 20] == 2
    monkeypatch.setenv("CFNSHM_SIZE", "nonsense")
    with pytest.raises(cfnshm.InvalidArgument, match="nonsense"):
        Bus()


def test_no_bus(bus_name):
    with pytest.raises(cfnshm.NoBus):
        Bus(bus_name, create=False)


def test_destroy(bus, other):
    bus.send("b", 1)
    bus.destroy()
    with pytest.raises(cfnshm.BusDestroyed):
        other.recv(timeout=5)
    with Bus(bus.name, agent="b", agents=4, size="4M") as fresh:  # at once, a new one
        assert fresh.created
        with pytest.raises(cfnshm.Timeout):
            fresh.recv(timeout=0)


def test_destroy_wakes_a_waiting_reader(bus, other):
    caught = []

    def wait():
        try:
            other.recv(timeout=30)
        except cfnshm.BusDestroyed as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not bus.agent_info("b").waiting:
        pass
    bus.destroy()
    thread.join(10)
    assert caught


def test_closed_handle(bus, other):
    other.close()
    other.close()
    with pytest.raises(cfnshm.Closed):
        other.send("a", 1)
    assert "closed" in repr(other)


def test_close_wakes_a_waiting_thread(bus, other):
    caught = []

    def wait():
        try:
            other.recv(timeout=30)
        except cfnshm.Closed as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not bus.agent_info("b").waiting:
        pass
    other.close()
    thread.join(10)
    assert caught


def test_pickle_by_name(bus):
    with pickle.loads(pickle.dumps(bus)) as twin:
        assert (twin.name, twin.agent) == (bus.name, "a")
        assert not twin.is_owner


def test_counters_and_check(bus, other):
    bus.send("b", 1)
    other.recv(timeout=0).ack()
    counters = bus.info()["counters"]
    assert (counters["sent"], counters["received"], counters["acked"]) == (1, 1, 1)
    assert bus.agent_info("a").sent == 1
    assert bus.check() == []


def test_fileno(bus, other):
    import select

    fd = other.fileno()
    assert select.select([fd], [], [], 0)[0] == []
    bus.send("b", 1)
    bus.send("b", 2)
    assert select.select([fd], [], [], 10)[0] == [fd]
    assert other.recv(timeout=0).body == 1
    assert select.select([fd], [], [], 0)[0] == [fd]
    assert other.recv(timeout=0).body == 2
    with pytest.raises(cfnshm.Timeout):
        other.recv(timeout=0)
    assert select.select([fd], [], [], 0)[0] == []
    bus.send("b", 3)
    assert select.select([fd], [], [], 10)[0] == [fd]


# ---- what a user does wrong ----


def test_wrong_types_are_told_by_name(bus, other):
    for call in (
        lambda: bus.recv(timeout="5"),
        lambda: bus.recv(timeout=float("nan")),
        lambda: bus.send("b", b"", timeout=[]),
    ):
        with pytest.raises(cfnshm.InvalidArgument, match="a timeout is a number of seconds or None, not"):
            call()
    with pytest.raises(cfnshm.InvalidArgument, match=r"\(agent, body\) pairs.*: 1$"):
        bus.send_many([1, 2])
    with pytest.raises(cfnshm.InvalidArgument, match="the agent's name must be a text, not 7"):
        bus.send(7, b"")
    with pytest.raises(cfnshm.InvalidArgument, match="the agent's name must be encodable as UTF-8"):
        bus.register("half \ud800")
    with pytest.raises(cfnshm.InvalidArgument, match="a message type is a text, not 7"):
        bus.send("b", b"", type=7)
    with pytest.raises(cfnshm.InvalidArgument, match="recv_many takes a number of messages"):
        bus.recv_many("5")
    assert bus.peek("b") == []


def test_an_unknown_agent_comes_with_the_names_that_are_near(bus):
    bus.register("coder-1")
    with pytest.raises(cfnshm.UnknownAgent, match="Did you mean 'coder-1'"):
        bus.send("coder-l", b"")
    with pytest.raises(cfnshm.UnknownAgent, match=r"cfnshm wait zz waits until it is\)$"):
        bus.send("zz", b"")


def test_a_closed_handle_says_so_everywhere(bus_name):
    handle = Bus(bus_name, agent="a", agents=16, size="8M", temporary=True)
    handle.close()
    for call in (handle.__enter__, handle.check, handle.info, handle.agents, handle.reap, handle.recv):
        with pytest.raises(cfnshm.Closed, match="open the bus again"):
            call()


def test_fresh_destroys_what_was_left_and_nothing_that_is_used(bus_name):
    with Bus(bus_name, agent="a", agents=16, size="8M") as left:
        left.send("a", b"unread")
        with pytest.raises(cfnshm.AgentBusy, match="in use by 1 living handle"):
            Bus(bus_name, agent="a", fresh=True)
    with Bus(bus_name, agent="a", agents=16, size="8M", fresh=True, temporary=True) as bus:
        assert bus.created
        with pytest.raises(cfnshm.Timeout):
            bus.recv(timeout=0)


def test_exclusive_wants_to_be_the_owner(bus):
    with pytest.raises(
        cfnshm.AgentBusy, match=r"living owner, process \d+ \(this one, by another handle\)"
    ) as info:
        Bus(bus.name, agent="a", exclusive=True)
    assert info.value.pid == os.getpid()
    with Bus(bus.name, agent="a") as beside:
        assert not beside.is_owner
    with Bus(bus.name, agent="b", exclusive=True) as owner:
        assert owner.is_owner


def test_a_body_that_is_larger_than_the_heap(bus):
    largest = bus.info()["largest_body"]
    with pytest.raises(cfnshm.TooLarge, match="are more than the whole heap") as error:
        bus.send("a", bytes(largest + 1))
    assert (error.value.have, error.value.want) == (largest, largest + 1)
    bus.send("a", bytes(largest))
    with pytest.raises(cfnshm.NoSpace, match="bytes in a row are not free"):
        bus.send("a", bytes(largest))
    assert len(bus.recv(timeout=0).raw) == largest


def test_a_broadcast_says_in_words_who_did_not_get_it(bus_name):
    with temp_bus("a", name=bus_name, lanes={"normal": 2}) as bus:
        bus.register("b")
        bus.register("c")
        bus.send_many([("b", 1), ("b", 2)])
        with pytest.raises(
            cfnshm.Full, match=r"1 of 2 agents did not get the broadcast: b \(inbox full\)"
        ) as info:
            for _ in range(2):
                bus.broadcast(b"x", timeout=0)
        assert list(info.value.missing) == ["b"]
        assert list(info.value.delivered) == ["c"]
        assert isinstance(info.value, cfnshm.Timeout)


def test_the_same_wish_a_second_time_is_no_wish_for_more(bus_name):
    wish = {"agents": 20, "size": 20_000_001, "lanes": {"normal": 64}, "slabs": {4096: 101}}
    with Bus(bus_name, temporary=True, **wish), Bus(bus_name, **wish) as second:
        assert second.info()["bytes"] <= wish["size"]
        for more in (
            {"agents": 21},
            {"size": 20_002_000},
            {"lanes": {"normal": 129}},
            {"slabs": {4096: 102}},
        ):
            with pytest.raises(cfnshm.OverCapacity):
                Bus(bus_name, **{**wish, **more})


def test_settings_in_the_environment_are_named_when_they_are_wrong(monkeypatch, bus_name):
    for name in ("CFNSHM_AGENTS", "CFNSHM_SIZE"):
        monkeypatch.setenv(name, "abc")
        with pytest.raises(cfnshm.InvalidArgument, match=f"{name}.*'abc'"):
            Bus(bus_name)
        monkeypatch.delenv(name)


def test_a_finished_threads_message_is_not_acked_by_the_next_thread(bus):
    receipts = [bus.send("a", i) for i in range(3)]
    got = []
    for _ in receipts:
        thread = threading.Thread(target=lambda: got.append(bus.recv(timeout=5)))
        thread.start()
        thread.join()
    assert [r.state for r in receipts] == ["seen"] * 3
    for message in got:
        message.ack()
    assert [r.state for r in receipts] == ["acked"] * 3


def test_messages_and_receipts_belong_to_their_handle(bus):
    receipt = bus.send("a", 1)
    for thing in (receipt, bus.recv(timeout=5)):
        with pytest.raises(TypeError, match="belongs to the handle"):
            pickle.dumps(thing)
    with pytest.raises(cfnshm.InvalidArgument, match="not 'foo'"):
        bus.ack("foo")
    with pytest.raises(cfnshm.InvalidArgument, match="not 'foo'"):
        bus.reply("foo", 1)


def test_an_error_that_is_kept_in_a_cycle(bus):
    """Its traceback keeps our frames, and the collector takes them apart in any order."""
    script = f"""
import gc
from cfnshm import Bus, errors
with Bus({bus.name!r}, agent="x") as bus:
    for body in (memoryview(bytearray(10)), bytearray(10), memoryview(bytearray(9 << 20))):
        for call in (
            lambda: bus.send("nobody", body), lambda: bus.send("x", body),
            lambda: bus.send_many([b"1", body], to="nobody"),
            lambda: bus.context.put(memoryview(bytearray(1 << 26))), lambda: bus.state.set("k", body, version=7),
            lambda: bus.request("nobody", body), lambda: bus.broadcast(body),
        ):
            try:
                call()
            except errors.Error as error:
                error.me = error
gc.collect()
print("whole")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")


def test_held_messages_stay_leased_until_each_is_acked(bus, other):
    for n in range(5):
        other.send("a", n)
    first = bus.recv_many(3, hold=True)
    assert [m.body for m in bus.recv_many(256, hold=True)] == [3, 4]  # and that acks nothing
    other.send("a", 5)
    assert bus.recv().body == 5  # nor does this
    first[1].ack()
    assert [m.body for m in bus.peek()] == [0, 2, 3, 4, 5]
    bus.close()
    with Bus(other.name, agent="a") as again:
        assert [(m.body, m.redelivered) for m in again.recv_many(256)] == [(n, True) for n in (0, 2, 3, 4, 5)]
