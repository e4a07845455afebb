"""Real processes and real signals: deaths, stops, forks, interrupts."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import cfnshm
from cfnshm import Bus
from cfnshm.testing import temp_bus


def wait_until(condition, seconds=30.0):
    """Watches a condition that another process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        os.sched_yield()


def take_and_hang(bus_name, agent, take, ack):
    with Bus(bus_name, agent=agent) as bus:
        held = [bus_recv_without_ack(bus) for _ in range(take)]
        for i in ack:
            held[i].ack()
        bus.send("a", "ready")
        signal.pause()


def bus_recv_without_ack(bus):
    message = bus.recv(timeout=20)
    bus._handed.clear()  # keep it unacked, as a worker does that takes several at once
    return message


@pytest.mark.parametrize("as_batch", [False, True])
def test_ten_taken_two_acked_killed_eight_come_again(bus, spawn, as_batch):
    bus.register("w")
    if as_batch:
        bus.send_many([b"%d" % i for i in range(10)], to="w")
    else:
        for i in range(10):
            bus.send("w", b"%d" % i)
    child = spawn(take_and_hang, bus.name, "w", 10, (3, 7))
    assert bus.recv(timeout=20).body == "ready"
    child.kill()
    child.join()
    with Bus(bus.name, agent="w") as successor:
        assert successor.incarnation == 2
        again = successor.recv_many(100, timeout=5)
        assert [m.raw for m in again] == [b"%d" % i for i in range(10) if i not in (3, 7)]
        assert all(m.redelivered for m in again)
    bus.reap()
    assert bus.check() == []


def test_sender_waiting_on_a_full_inbox_is_told_of_the_death(spawn):
    with temp_bus("a", lanes={"normal": 4}) as bus:
        child = spawn(take_and_hang, bus.name, "w", 0, ())
        assert bus.recv(timeout=20).body == "ready"
        for i in range(4):
            bus.send("w", i)
        caught = []

        def send():
            try:
                bus.send("w", "one more")
            except cfnshm.AgentDead as error:
                caught.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        wait_until(lambda: bus.agent_info("a").waiting == "space")
        child.kill()
        thread.join(20)
        assert caught[0].pid == child.pid
        assert bus.agent_info("w").life == "dead"
        assert [m.body for m in bus.peek("w")] == [0, 1, 2, 3]


def test_request_and_receipt_are_told_of_the_death(bus, spawn):
    child = spawn(take_and_hang, bus.name, "w", 0, ())
    assert bus.recv(timeout=20).body == "ready"
    receipt = bus.send("w", 1)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(cfnshm.AgentDead, match="successor"):
        bus.request("w", 2, timeout=30)
    with pytest.raises(cfnshm.AgentDead):
        receipt.wait(timeout=30)


def test_stopped_is_not_dead(bus, spawn):
    child = spawn(take_and_hang, bus.name, "w", 0, ())
    assert bus.recv(timeout=20).body == "ready"
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert bus.agent_info("w").alive
    with pytest.raises(cfnshm.Timeout):
        bus.request("w", 1, timeout=0.7)
    assert bus.agent_info("w").alive
    os.kill(child.pid, signal.SIGCONT)


def test_zombie_is_dead(bus):
    pid = os.fork()
    if pid == 0:
        handle = Bus(bus.name, agent="z")
        os._exit(0 if handle else 1)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert bus.agent_info("z").life == "dead"
    os.waitpid(pid, 0)


def consume_slowly(bus_name, rounds):
    with Bus(bus_name, agent="w") as bus:
        for message in bus:
            if message.type == "stop":
                return


def test_stopped_consumer_and_theft(bus, spawn):
    """A consumer is stopped for long, its inbox stolen, then it goes on: nothing is lost."""
    bus.register("w")
    for i in range(20):
        bus.send("w", i)
    child = spawn(take_and_hang, bus.name, "w", 5, (0,))
    assert bus.recv(timeout=20).body == "ready"
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    with Bus(bus.name, agent="w") as operator:
        with pytest.raises(cfnshm.AgentBusy):
            operator.recv(timeout=0)
        operator.claim(steal=True)
        batch = operator.recv_many(100, timeout=5)
        assert [m.body for m in batch] == list(range(1, 20))
        assert [m.redelivered for m in batch] == [True] * 4 + [False] * 15
    os.kill(child.pid, signal.SIGCONT)
    child.kill()
    child.join()
    bus.reap()
    assert [text for severity, text in bus.check() if severity == "error"] == []


def send_numbers(bus_name, me, count):
    with Bus(bus_name, agent=f"s{me}") as bus:
        for i in range(count):
            bus.send("sink", me.to_bytes(2, "little") + i.to_bytes(4, "little"))


def test_many_senders_under_random_stops(spawn):
    """Eight sender processes, stopped and continued at random: every message once, in order."""
    import random

    count, senders = 1500, 8
    with temp_bus("sink", agents=32, lanes={"normal": 64}) as sink:
        children = [spawn(send_numbers, sink.name, i, count) for i in range(senders)]
        chance = random.Random(1)
        done = threading.Event()

        def disturb():
            while not done.is_set():
                child = chance.choice(children)
                try:
                    os.kill(child.pid, signal.SIGSTOP)
                    done.wait(chance.random() * 0.004)
                    os.kill(child.pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass

        disturber = threading.Thread(target=disturb)
        disturber.start()
        expected = [0] * senders
        for _ in range(senders * count):
            raw = sink.recv(timeout=60).raw
            who, number = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[2:], "little")
            assert number == expected[who]
            expected[who] += 1
        done.set()
        disturber.join()
        with pytest.raises(cfnshm.Timeout):
            sink.recv(timeout=0)
        for child in children:
            child.join(20)
        sink.reap()
        assert sink.check() == []


def test_fork_and_spawn(bus):
    def inherited(queue):
        results = []
        for call in (lambda: bus.send("a", 1), lambda: bus.recv(timeout=0), bus.agents, bus.fileno):
            try:
                call()
                results.append("no error")
            except cfnshm.ForkedHandle as error:
                results.append("open the bus again" in str(error))
        bus.close()
        with Bus(bus.name, agent="child") as own:
            own.send("a", "from the child")
        gc.collect()
        queue.put(results)

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=inherited, args=(queue,))
    child.start()
    assert queue.get(timeout=30) == [True] * 4
    child.join()
    assert child.exitcode == 0
    message = bus.recv(timeout=5)  # the parent's handle is as good as before
    assert (message.sender, message.body) == ("child", "from the child")


def test_views_and_messages_outlive_the_handle_in_a_child(bus, other):
    bus.send("b", bytes(range(200)))
    message = other.recv(timeout=5, copy=False)
    view = message.raw
    pid = os.fork()
    if pid == 0:
        ok = bytes(view) == bytes(range(200))
        other.close()
        del message
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    other.close()
    assert bytes(view) == bytes(range(200))  # closed, but a view is alive: still mapped


@pytest.mark.parametrize(
    "wait",
    [
        "bus.recv()",
        "bus.recv_many()",
        "bus.request('b', 1)",
        "[bus.send('b', i) for i in range(100)]",
        "bus.send('b', 1).wait()",
        "bus.wait_for('nobody')",
        "next(iter(bus))",
    ],
)
def test_ctrl_c_ends_every_wait(wait):
    with temp_bus("b", lanes={"normal": 8}) as bus:
        code = (
            "import sys\nfrom cfnshm import Bus\n"
            f"bus = Bus({bus.name!r}, agent='w')\n"
            "try:\n"
            f"    {wait}\n"
            "except KeyboardInterrupt:\n"
            "    bus.close(); sys.exit(42)\n"
        )
        child = subprocess.Popen([sys.executable, "-c", code])
        wait_until(lambda: bus.is_registered("w") and bus.agent_info("w").waiting)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 42


def test_killed_at_random_moments(spawn):
    """Workers are killed while they work; every task is done by somebody, and nothing leaks."""
    with temp_bus("boss", agents=64, size="16M") as boss:

        def work(n):
            with Bus(boss.name, agent=f"w{n}") as bus:
                for message in bus:
                    if message.type == "stop":
                        return
                    bus.send("boss", message.body)

        for n in range(4):
            boss.register(f"w{n}")
        tasks = list(range(400))
        for i in tasks:
            boss.send(f"w{i % 4}", i)
        children = [spawn(work, n) for n in range(4)]
        done = set()
        while len(done) < len(tasks):
            message = boss.recv(timeout=60)
            done.add(message.body)
            if len(done) % 40 == 0:
                n = len(done) // 40 % 4
                children[n].kill()
                children[n].join()
                children[n] = spawn(work, n)
        for n in range(4):
            boss.send(f"w{n}", None, type="stop")
        for child in children:
            child.join(30)
        while True:
            try:
                boss.recv(timeout=0)
            except cfnshm.Timeout:
                break
        boss.reap()
        assert boss.check() == []
        counters = boss.info()["counters"]
        assert counters["acked"] == counters["sent"]


def test_an_agent_holds_at_most_four_descriptors(bus_name):
    def count():
        return len(os.listdir("/proc/self/fd"))

    gc.collect()  # handles of earlier tests that an exception still held
    before = count()
    with temp_bus("a", name=bus_name) as bus:
        assert count() - before == 2  # the directory, the life byte
        bus.fileno()
        cfnshm._core.check(cfnshm._core.lib.cfn_bus_fileno(bus._handle, 1))
        assert count() - before == 4  # and two doorbells
    assert count() == before


def _send_and_die(name):
    bus = Bus(name, agent="w")
    bus.send("boss", b"y" * 150)
    os.kill(os.getpid(), signal.SIGKILL)


def test_hundreds_of_dead_senders_hide_no_chunks(bus_name, spawn):
    with temp_bus("boss", name=bus_name, slabs={256: 512, 1024: 64}) as bus:
        for _ in range(150):
            child = spawn(_send_and_die, bus_name)
            assert bus.recv(timeout=20).raw == b"y" * 150
            child.join()
        with pytest.raises(cfnshm.Timeout):
            bus.recv(timeout=0)
        bus.reap()
        free = bus.info()["chunks_free"]
        assert free[256] > 512 - 32  # handfuls that the living hold


def _block(name):
    with Bus(name, agent="sender") as bus:
        bus.send("boss", b"")
        bus.send("boss", b"")
        bus.send("boss", b"", timeout=60)


def test_a_wait_over_several_ticks_is_one_wait(bus_name, spawn):
    """What doctor calls stuck is how long somebody has waited, not since the last look around."""
    with temp_bus("boss", name=bus_name, lanes={"normal": 2}) as bus:
        child = spawn(_block, bus_name)
        wait_until(lambda: bus.is_registered("sender") and bus.agent_info("sender").waiting == "space")
        since = bus.agent_info("sender").waiting_since
        waits = bus.info()["counters"]["waits"]
        wait_until(lambda: bus.info()["counters"]["waits"] >= waits + 2)
        info = bus.agent_info("sender")
        assert info.waiting in ("space", "")
        if info.waiting:
            assert info.waiting_since == since
        child.kill()
