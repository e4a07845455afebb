"""Loans: a body that its sender writes in place."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading

import numpy
import pytest

from cfnshm import Bus, errors
from cfnshm.testing import temp_bus

LARGE = 200_000


@pytest.fixture
def pair():
    with temp_bus("a", size="32M") as a, Bus(a.name, agent="b") as b:
        yield a, b
        gc.collect()
        with pytest.raises(errors.Timeout):
            while True:
                b.recv(timeout=0)
        assert a.context.info().used == 0


@pytest.mark.parametrize("size", [0, 1, 64, 8191, 8192, 65536, LARGE, 3 << 20])
@pytest.mark.parametrize("copy", [True, False])
def test_there_and_back(pair, size, copy):
    a, b = pair
    loan = a.loan("b", size, type="frame", priority="high")
    with loan as buffer:
        assert (len(buffer), buffer.readonly) == (size, False)
        buffer[:] = os.urandom(size) if size < 1000 else b"\7" * size
        said = bytes(buffer)
    message = b.recv(timeout=0, copy=copy)
    assert bytes(message.raw) == said
    assert (message.type, message.priority, message.sender, message.codec) == ("frame", "high", "a", "raw")
    assert loan.receipt.state == "seen"
    message.ack()
    assert loan.receipt.state == "acked"


def test_an_exception_drops_it(pair):
    a, b = pair
    with pytest.raises(ZeroDivisionError):
        with a.loan("b", LARGE) as buffer:
            buffer[0] = 1 // 0
    with pytest.raises(errors.Timeout):
        b.recv(timeout=0)


@pytest.mark.parametrize("size", [100, LARGE])
def test_views_must_be_gone(pair, size):
    a, b = pair
    loan = a.loan("b", size)
    array = numpy.frombuffer(loan.buffer, dtype="u1")
    with pytest.raises(BufferError, match="still in use"):
        loan.send()
    with pytest.raises(BufferError, match="still in use"):
        loan.drop()
    array[:] = 5  # it is still there, and still ours
    del array
    part = loan.buffer[1:3]
    with pytest.raises(BufferError):
        loan.send()
    part.release()
    del part
    receipt = loan.send()
    assert receipt is loan.receipt
    assert b.recv(timeout=0).raw == b"\5" * size
    for call in (loan.send, lambda: a.loan("b", -1), lambda: a.loan("b", 1.5)):
        with pytest.raises(errors.InvalidArgument):
            call()
    loan.drop()
    with pytest.raises(ValueError, match="released"):
        loan.buffer[0]


def test_the_memory_lives_as_long_as_a_view_of_it(pair):
    a, _ = pair
    with pytest.raises(BufferError):
        with a.loan("b", LARGE) as buffer:
            array = numpy.frombuffer(buffer, dtype="u1")
    del buffer
    gc.collect()
    array[:] = 3
    with pytest.raises(errors.OverCapacity):
        for _ in range(16):  # it is one of the sixteen
            array = array, a.loan("b", LARGE)
    del array


def test_sixteen(pair):
    a, b = pair
    loans = [a.loan("b", LARGE) for _ in range(16)]
    with pytest.raises(errors.OverCapacity, match="16"):
        a.loan("b", LARGE)
    for i, loan in enumerate(loans):
        loan.buffer[:] = bytes([i]) * LARGE
    for loan in reversed(loans):
        loan.send()
    assert [b.recv(timeout=0).raw[5] for _ in loans] == list(range(15, -1, -1))
    loans = [a.loan("b", LARGE) for _ in range(16)]
    del loans, loan
    gc.collect()
    assert a.loan("b", LARGE).size == LARGE  # those nobody has any more are given back


def test_what_cannot_be_sent_can_be_sent_later(pair):
    a, b = pair
    with pytest.raises(errors.UnknownAgent):
        a.loan("nobody", LARGE)
    loan = a.loan("b", LARGE, timeout=0)
    loan.buffer[:] = b"x" * LARGE
    n = 0
    with pytest.raises(errors.Full):
        while True:
            a.send("b", b"", timeout=0)
            n += 1
    with pytest.raises(errors.Full):
        loan.send()
    assert loan.buffer[7] == ord("x")
    for _ in range(n):
        b.recv(timeout=0)
    with pytest.raises(errors.Timeout):
        b.recv(timeout=0)
    loan.send()
    assert b.recv(timeout=0).raw == b"x" * LARGE


def test_an_agent_that_comes_again(pair):
    a, b = pair
    loan = a.loan("b", LARGE)
    loan.buffer[:] = b"y" * LARGE
    a.register("c")
    other = a.loan("c", LARGE)
    a.unregister("c")
    with pytest.raises(errors.UnknownAgent):
        other.send()
    a.register("c")
    other.send()
    loan.send()
    assert b.recv(timeout=0).raw == b"y" * LARGE
    with Bus(a.name, agent="c") as c:
        c.recv(timeout=0).ack()


def test_two_threads_send_it_once(pair):
    a, b = pair
    for _ in range(50):
        loan = a.loan("b", 10_000)
        loan.buffer[:] = b"z" * 10_000
        told = []

        def send(loan=loan, told=told):
            try:
                told.append(loan.send())
            except (errors.InvalidArgument, BufferError):
                told.append(None)

        threads = [threading.Thread(target=send) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        del send, threads, t
        if not any(told):
            loan.send()
        assert b.recv(timeout=0).raw == b"z" * 10_000
        with pytest.raises(errors.Timeout):
            b.recv(timeout=0)


def test_a_closed_and_a_forked_handle(bus_name):
    a = Bus(bus_name, agent="a", temporary=True)
    loan = a.loan("a", LARGE)
    loan.buffer[:] = b"q" * LARGE
    pid = os.fork()
    if pid == 0:
        try:
            loan.send()
        except errors.ForkedHandle:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    a.close()
    with pytest.raises(errors.Closed):
        loan.send()
    loan.drop()


def test_what_the_dead_had_on_loan_comes_back(pair):
    a, _ = pair
    code = (
        "from cfnshm import Bus; import sys, signal\n"
        f"bus = Bus({a.name!r}); loans = [bus.loan('b', 2_000_000) for _ in range(5)]\n"
        "print('ready', flush=True); signal.pause()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    a.reap()
    size = a.context.info().size
    a.loan("b", size - size // 8).drop()
