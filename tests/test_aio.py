"""asyncio: the same verbs, waiting through the event loop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

import cfnshm
from cfnshm import AsyncBus, Bus, errors
from cfnshm.testing import temp_bus


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def recv_in_a_task(bus):
    return await bus.recv(timeout=20)


def test_messages_and_acks(bus):
    async def main():
        async with AsyncBus(bus.name, agent="b") as b:
            waiting = asyncio.create_task(recv_in_a_task(b))
            await asyncio.sleep(0)
            receipt = bus.send("b", {"n": 1})
            message = await waiting
            assert message.body == {"n": 1}
            with pytest.raises(cfnshm.Timeout):
                await b.recv(timeout=0.05)
            assert receipt.state == "seen"  # another task's message is not acked by this one
            b.ack(message)
            assert receipt.state == "acked"
            sent = await b.send("a", "back")
            assert bus.recv(timeout=5).body == "back"
            with pytest.raises(cfnshm.Timeout):
                await b.wait(sent, timeout=0.05)

    run(main())


def test_a_task_that_asks_again_acks(bus):
    async def main():
        async with AsyncBus(bus.name, agent="b") as b:
            receipts = [bus.send("b", i) for i in range(3)]
            got = []
            async for message in b:
                got.append(message.body)
                if len(got) == 3:
                    break
            assert got == [0, 1, 2]
            assert [r.state for r in receipts] == ["acked", "acked", "seen"]
        assert receipts[2].state == "acked"  # a clean end

    run(main())


def test_hundred_requests_at_once(bus):
    async def serve(b):
        async for message in b:
            if message.type == "stop":
                return
            await b.reply(message, message.body + 1)

    async def main():
        async with AsyncBus(bus.name, agent="b") as b, AsyncBus(bus.name, agent="c") as c:
            server = asyncio.create_task(serve(b))
            answers = await asyncio.gather(*(c.request("b", i, timeout=30) for i in range(100)))
            assert [a.body for a in answers] == [i + 1 for i in range(100)]
            await c.send("b", None, type="stop")
            await server

    run(main())


def test_full_lane_waits_and_cancels():
    async def main(name):
        async with AsyncBus(name, agent="a") as a, AsyncBus(name, agent="b") as b:
            for i in range(4):
                await a.send("b", i)
            with pytest.raises(cfnshm.Full):
                await a.send("b", 4, timeout=0)
            with pytest.raises(cfnshm.Timeout):
                await a.send("b", 4, timeout=0.05)
            blocked = asyncio.create_task(a.send("b", 4))
            assert [(await b.recv(timeout=20)).body for _ in range(5)] == [0, 1, 2, 3, 4]
            await blocked
            for i in range(3):  # the last one received is not acked yet and keeps its place
                await a.send("b", i)
            doomed = asyncio.create_task(a.send("b", "never"))
            await asyncio.sleep(0.05)
            doomed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doomed
            got = (await b.recv_many(timeout=20)).raws
            assert b'"never"' not in got

    with temp_bus("owner", lanes={"normal": 4}) as bus:
        run(main(bus.name))


def test_dead_agent_is_told(bus, spawn):
    ready = Bus(bus.name, agent="ready")

    def victim():
        with Bus(bus.name, agent="victim") as v:
            v.send("ready", os.getpid())
            v.recv()
            signal.pause()

    spawn(victim)
    pid = ready.recv(timeout=20).body

    async def main():
        async with AsyncBus(bus.name, agent="c") as c:
            asking = asyncio.create_task(c.request("victim", "x", timeout=30))
            while bus.agent_info("victim").unread == 0:
                await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(cfnshm.AgentDead):
                await asking

    run(main())
    ready.close()


def test_destroyed_bus_wakes_the_task(bus):
    async def main():
        b = AsyncBus(bus.name, agent="b")
        waiting = asyncio.create_task(b.recv())
        await asyncio.sleep(0.05)
        bus.destroy()
        with pytest.raises(cfnshm.BusDestroyed):
            await waiting
        b.close()

    run(main())


def test_what_is_worked_on_is_not_acked_by_others(bus):
    """Also on Python 3.11, where wait_for makes a new task for each call."""

    async def worker(b, early):
        for _ in range(5):
            message = await asyncio.wait_for(b.recv(), 20)
            for _ in range(3):
                await asyncio.sleep(0)  # others run, get and end their tasks
            early.append(receipts[message.body].state != "seen")

    async def main():
        async with AsyncBus(bus.name, agent="b") as b:
            early = []
            await asyncio.gather(*(worker(b, early) for _ in range(4)))
            assert early == [False] * 20

    bus.register("b")
    receipts = [bus.send("b", i) for i in range(20)]
    run(main())
    assert {receipt.state for receipt in receipts} == {"acked"}  # by the next call, or the clean end


def test_a_cancelled_batch_is_not_sent_later(bus_name):
    async def main():
        async with AsyncBus(bus_name, agent="a") as b:
            for i in range(4):
                await b.send("x", i)
            for call in (b.send_many([1, 2, 3], to="x"), b.broadcast("all")):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(call, 0.05)
            assert await asyncio.to_thread(int) == 0  # the loop's own threads are not taken

    with temp_bus("x", name=bus_name, lanes={"normal": 4}) as bus:
        run(main())
        got = []
        with pytest.raises(cfnshm.Timeout):
            while True:
                got.append(bus.recv(timeout=0).body)
        assert got == [0, 1, 2, 3]


def test_a_batch_waits_for_room_and_says_what_was_sent(bus_name):
    async def main():
        async with AsyncBus(bus_name, agent="a") as b:
            bodies = [("x", i) for i in range(1000)]
            with pytest.raises(cfnshm.Full) as info:
                await b.send_many(bodies, timeout=0.05)
            sent = info.value.sent
            assert sent == sum(r.count for r in info.value.receipts) == 4 * 96
            rest = asyncio.create_task(b.send_many(bodies[sent:], timeout=20))
            got = []
            while len(got) < 1000:
                got += [m.body for m in bus.recv_many(timeout=20)]
                await asyncio.sleep(0)
            assert got == list(range(1000))
            assert sum(r.count for r in await rest) == 1000 - sent

    with temp_bus("x", name=bus_name, lanes={"normal": 4}) as bus:
        run(main())


def test_locks_wait_without_the_loop(bus_name):
    run(_locks_wait_without_the_loop(bus_name))


async def _locks_wait_without_the_loop(bus_name):
    async with AsyncBus(bus_name, agent="a", size="8M", temporary=True) as bus:
        inside, most = 0, 0

        async def work():
            nonlocal inside, most
            for _ in range(5):
                async with bus.lock("repo") as lease:
                    assert lease.held
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0)
                    inside -= 1

        await asyncio.gather(*(work() for _ in range(4)))
        assert most == 1
        lease = await bus.lock("repo").acquire()
        with pytest.raises(errors.Deadlock, match="this task holds the lock"):
            await bus.lock("repo").acquire()
        with pytest.raises(errors.Timeout):
            await asyncio.create_task(bus.lock("repo").acquire(timeout=0.01))
        waiting = asyncio.create_task(bus.lock("repo").acquire())
        while bus.agent_info("a").waiting != "lock":
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        lease.release()
        assert bus.lock("repo").holder() is None  # what a cancelled task waits for is not taken
        async with bus.semaphore("s", 2), bus.semaphore("s", 2):
            with pytest.raises(errors.Timeout):
                await bus.semaphore("s", 2).acquire(timeout=0)


def test_barriers_and_elections(bus_name):
    run(_barriers_and_elections(bus_name))


async def _barriers_and_elections(bus_name):
    async with AsyncBus(bus_name, agent="a", size="8M", temporary=True) as bus:
        places = await asyncio.gather(*(bus.barrier("b", 3).wait(timeout=60) for _ in range(3)))
        assert sorted(places) == [0, 1, 2]
        with pytest.raises(errors.Timeout):
            await bus.barrier("b", 3).wait(timeout=0.4)
        gone = asyncio.create_task(bus.barrier("b", 3).wait())
        while (info := bus.barrier("b").sync.info()).arrived == 0:
            await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        info = bus.barrier("b").sync.info()
        assert (info.round, info.arrived) == (2, 0)
        watch = bus.elect("head").watch(timeout=60)
        assert await anext(watch) is None
        async with bus.elect("head") as leadership:
            assert (await anext(watch)).token == leadership.term
            assert bus.elect("head").leader().agent == "a"
        assert await anext(watch) is None
        await watch.aclose()


def test_control_and_checkpoints(bus_name):
    run(_control_and_checkpoints(bus_name))


async def _control_and_checkpoints(bus_name):
    async with AsyncBus(bus_name, agent="a", size="8M", temporary=True) as bus, AsyncBus(bus_name, agent="b") as other:
        assert await other.poll_control() is None
        bus.pause("b", reason="r")
        ticks = 0

        async def obey():
            return await other.poll_control(checkpoint=lambda: {"step": 3})

        waiting = asyncio.create_task(obey())
        while not bus.agent_info("b").status.startswith("paused"):
            ticks += 1
            await asyncio.sleep(0)
        assert ticks  # the loop runs meanwhile
        assert bus.restore(agent="b") == {"step": 3}
        bus.resume("b", "go on")
        assert (await waiting).instruction == "go on"
        bus.pause("b")
        with pytest.raises(errors.Timeout):
            await other.poll_control(timeout=0.3)
        bus.stop("b")
        assert (await other.poll_control()).kind == "stop"
        saved = bus.checkpoint([1], note="n")
        assert bus.checkpoints() == [saved]
        assert bus.control("b").kind == "stop"

        async def take_part():
            while (message := await other.recv(timeout=60)).type != "swarm-checkpoint":
                pass
            return await other.join_checkpoint(message, "mine")

        cut, done = await asyncio.gather(bus.swarm_checkpoint("c", "own"), take_part())
        assert cut.agents == {"a": 2, "b": done.version}
        assert sorted((await bus.signal_all("s")).receipts) == ["b"]
        bus.inject("b", "x")
