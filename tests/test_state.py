"""Named values: versions, changes by many, waiting for changes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading

import numpy
import pytest

from cfnshm import AsyncBus, Bus, errors
from cfnshm.testing import temp_bus, temp_bus_name


def test_as_a_dict(bus, other):
    assert "phase" not in other.state
    bus.state["phase"] = "analysis"
    assert other.state["phase"] == "analysis"
    assert "phase" in other.state
    assert len(other.state) == 1
    assert list(other.state) == ["phase"]
    del other.state["phase"]
    with pytest.raises(KeyError) as missing:
        bus.state["phase"]
    assert isinstance(missing.value, errors.UnknownKey)
    assert str(missing.value) == f"bus '{bus.name}' has no value 'phase'"
    with pytest.raises(errors.UnknownKey):
        del bus.state["phase"]
    assert bus.state.get("phase") is None
    assert bus.state.get("phase", 7) == 7


@pytest.mark.parametrize(
    "value", [b"raw", "text", "", b"", None, True, 1.5, [1, {"a": None}], {"k": "v" * 10_000}, "x" * 200_000]
)
def test_kinds_of_values(bus, other, value):
    bus.state["k"] = value
    assert other.state["k"] == value
    assert "k" in other.state


def test_arrays(bus, other):
    bus.state["k"] = numpy.arange(1000.0).reshape(10, 100)
    assert other.state["k"].shape == (10, 100)
    assert other.state["k"].sum() == 499500
    with pytest.raises(errors.InvalidArgument):
        bus.state["k"] = object()
    assert other.state["k"].shape == (10, 100)


def test_versions(bus, other):
    assert bus.state.lookup("k").version == 0
    first = bus.state.set("k", 1, version=0)
    with pytest.raises(errors.Conflict, match="has a value already") as conflict:
        other.state.set("k", 2, version=0)
    assert conflict.value.have == first
    second = other.state.set("k", 2, version=first)
    assert second > first
    assert bus.state.lookup("k").version == second
    with pytest.raises(errors.Conflict, match="changed meanwhile"):
        bus.state.set("k", 3, version=first)
    with pytest.raises(errors.Conflict):
        bus.state.delete("k", version=first)
    assert bus.state["k"] == 2
    bus.state.delete("k", version=second)
    with pytest.raises(errors.UnknownKey):
        bus.state.set("k", 4, version=second)
    assert bus.state.set("k", 5) > second
    for wrong in (-1, "1", 1.0, 2**64 - 1, 2**70):
        for call in (lambda w: bus.state.set("k", 6, version=w), lambda w: bus.state.delete("k", version=w),
                     lambda w: bus.state.wait("k", version=w)):  # fmt: skip
            with pytest.raises(errors.InvalidArgument):
                call(wrong)


def test_update(bus, other):
    assert bus.state.update("tally", lambda n: (n or 0) + 1) == 1
    calls = []

    def change(n):
        calls.append(n)
        if len(calls) == 1:
            other.state["tally"] = 10  # somebody is faster
        return n + 1

    assert bus.state.update("tally", change) == 11
    assert calls == [1, 10]

    def fails(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bus.state.update("tally", fails)
    assert bus.state["tally"] == 11


def test_setdefault_and_pop(bus, other):
    assert bus.state.setdefault("k", 1) == 1
    assert other.state.setdefault("k", 2) == 1
    assert other.state.pop("k") == 1
    assert other.state.pop("k", "none") == "none"
    with pytest.raises(errors.UnknownKey):
        other.state.pop("k")


def test_incr(bus, other):
    assert bus.state.incr("n") == 1
    assert other.state.incr("n", -5) == -4
    assert bus.state["n"] == -4
    bus.state["n"] = 10
    assert bus.state.incr("n") == 11
    bus.state["n"] = "text"
    with pytest.raises(errors.InvalidArgument, match="holds no whole number"):
        bus.state.incr("n")
    assert bus.state["n"] == "text"
    for wrong in (1.5, "1", 2**63):
        with pytest.raises(errors.InvalidArgument):
            bus.state.incr("m", wrong)


def _add(name, times, how):
    with Bus(name, create=False) as bus:
        for _ in range(times):
            if how == "incr":
                bus.state.incr("sum")
            else:
                bus.state.update("sum", lambda n: (n or 0) + 1)
        os._exit(0)


@pytest.mark.parametrize(("how", "processes", "times"), [("incr", 8, 300), ("update", 100, 20)])
def test_no_update_is_lost(how, processes, times):
    with temp_bus(agents=64, size="24M") as bus:
        children = []
        for _ in range(processes):
            pid = os.fork()
            if pid == 0:
                _add(bus.name, times, how)
            children.append(pid)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        assert bus.state["sum"] == processes * times
        bus.context.collect()
        assert bus.context.info().objects == 1


def test_memory_stays_flat(bus):
    for i in range(20_000):
        bus.state["k"] = i
        if i % 100 == 0:
            bus.state["large"] = "x" * (i % 50_000)
    bus.context.collect()
    assert bus.context.info().objects == 2
    assert bus.check() == []


def test_keys(bus):
    for key in ("tasks/1", "tasks/2", "task", "Ä", "x" * 127, "a b", "."):
        bus.state[key] = key
        assert bus.state[key] == key
    assert bus.state.keys("tasks/") == ["tasks/1", "tasks/2"]
    assert bus.state.items("tasks/") == [("tasks/1", "tasks/1"), ("tasks/2", "tasks/2")]
    assert bus.state.keys("Ä") == ["Ä"]
    with pytest.raises(errors.InvalidArgument):
        bus.state["\udc80"] = 1
    for wrong in ("", "x" * 128, "a\nb", "\0", "\x7f"):
        with pytest.raises(errors.BadName):
            bus.state[wrong] = 1
    for wrong in (None, 7, b"k"):
        with pytest.raises(errors.InvalidArgument):
            bus.state[wrong] = 1


def test_more_keys_than_the_bus_has_room_for(bus):
    most = bus.context.info().keys_capacity
    for i in range(most):
        bus.state[f"k{i}"] = i
    with pytest.raises(errors.OverCapacity, match="delete some"):
        bus.state["one more"] = 1
    bus.state["k0"] = "those that are there go on"
    del bus.state["k1"]
    bus.state["one more"] = 1
    assert len(bus.state) == most
    assert len(bus.state.items("k")) == most - 1


def test_wait(bus, other):
    bus.state["k"] = 1
    with pytest.raises(errors.Timeout, match="'k' was not changed"):
        other.state.wait("k", timeout=0.01)
    assert other.state.wait("k", version=0).value == 1
    waiting = threading.Thread(target=lambda: bus.state.set("k", 2))

    def change_when_it_waits():
        while bus.agent_info("b").waiting != "value":
            pass
        waiting.start()

    watcher = threading.Thread(target=change_when_it_waits)
    watcher.start()
    assert other.state.wait("k", timeout=30).value == 2
    watcher.join()
    waiting.join()


def test_watch(bus, other):
    seen = other.state.watch("k", timeout=0.01)
    assert next(seen).version == 0
    bus.state["k"] = 1
    assert next(seen).value == 1
    bus.state["k"] = 2
    bus.state["k"] = 3
    assert next(seen).value == 3
    del bus.state["k"]
    gone = next(seen)
    assert gone.version == 0
    assert gone.value is None
    assert list(seen) == []


def test_watch_prefix(bus, other):
    bus.state["tasks/1"] = "old"
    bus.state["other"] = 1
    seen = other.state.watch_prefix("tasks/", timeout=0.01)
    assert next(seen).key == "tasks/1"
    bus.state["tasks/2"] = "new"
    bus.state["other"] = 2
    found = next(seen)
    assert (found.key, found.value) == ("tasks/2", "new")
    del bus.state["tasks/1"]
    gone = next(seen)
    assert (gone.key, gone.version) == ("tasks/1", 0)
    assert list(seen) == []


def test_closed_and_destroyed(bus):
    state = bus.state
    bus.close()
    for call in (
        lambda: state["k"], lambda: state.set("k", 1), lambda: state.incr("k"), lambda: state.delete("k"),
        state.keys, lambda: len(state), lambda: state.wait("k", 0, 0), lambda: next(state.watch_prefix("")),
    ):  # fmt: skip
        with pytest.raises(errors.Closed):
            call()


def test_destroy_wakes_a_watcher(bus):
    other = Bus(bus.name, agent="b")
    done = []

    def watch():
        try:
            other.state.wait("k", 0)
        except errors.BusDestroyed as why:
            done.append(why)

    thread = threading.Thread(target=watch)
    thread.start()
    while bus.agent_info("b").waiting != "value":
        pass
    bus.destroy()
    thread.join(30)
    assert done
    other.close()


def test_an_error_holds_no_buffers(bus):
    """Nothing of a failed call is left to the collector of cycles."""
    gc.collect()
    gc.disable()
    try:
        bus.state["k"] = b"x" * 1000
        with contextlib.suppress(errors.Conflict):
            bus.state.set("k", b"y" * 1000, version=0)
        with contextlib.suppress(errors.TooLarge):
            bus.context.put(bytearray(bus.context.info().size + 1))
        assert not [o for o in gc.get_objects() if isinstance(o, errors.Error)]
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_asyncio():
    async def run():
        async with AsyncBus(temp_bus_name(), agent="a", agents=16, size="8M", temporary=True) as bus:
            bus.state["k"] = 1
            assert bus.state["k"] == 1
            assert bus.context.text(bus.context.put("text")) == "text"
            with pytest.raises(errors.Timeout):
                await bus.state.wait("k", timeout=0.01)

            async def change():
                bus.state["k"] = 2
                bus.state["tasks/1"] = "new"

            waiting = asyncio.create_task(bus.state.wait("k", timeout=30))
            watching = asyncio.create_task(anext(bus.state.watch_prefix("tasks/", timeout=30)))
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(change()))
            assert (await waiting).value == 2
            assert (await watching).value == "new"
            assert [v.value async for v in bus.state.watch("k", timeout=0.01)] == [2]
            forever = asyncio.create_task(bus.state.wait("k"))
            done, _ = await asyncio.wait([forever], timeout=0.05)
            assert not done
            forever.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever

    asyncio.run(run())
