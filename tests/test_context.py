"""Objects: stored once, named by their SHA-256, held as long as somebody looks at them."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import subprocess

import numpy
import pytest

import cfnshm
from cfnshm import Bus, Ref, errors
from cfnshm.message import encode
from cfnshm.testing import temp_bus, temp_bus_name


def test_put_and_get(bus):
    text = "Zürich " * 1000
    ref = bus.context.put(text)
    assert ref == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert (ref.size, ref.known) == (8000, False)
    assert bus.context.get(ref) == text.encode()
    assert bus.context.text(ref) == text
    assert bus.context.text(str(ref)) == text
    assert ref in bus.context
    assert bus.context.exists(ref)


def test_the_name_is_what_sha256sum_says(bus, tmp_path):
    file = tmp_path / "f"
    file.write_bytes(os.urandom(5000))
    said = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert bus.context.put(file.read_bytes()) == f"sha256:{said}"


def test_known_content_is_not_stored_again(bus):
    content = os.urandom(50_000)
    bus.context.put(content)
    before = bus.context.info()
    for _ in range(9):
        assert bus.context.put(content).known
    info = bus.context.info()
    assert (info.objects, info.used) == (before.objects, before.used)
    assert info.put == 500_000
    assert info.stored == 50_000
    assert info.saved == pytest.approx(0.9)


@pytest.mark.parametrize("size", [0, 1, 175, 176, 177, 4096, 4097, 1 << 20])
def test_sizes(bus, size):
    content = os.urandom(size)
    ref = bus.context.put(content)
    assert bus.context.get(ref) == content
    with bus.context.view(ref) as view:
        assert view.readonly
        assert len(view) == size
        assert bytes(view) == content


def test_kinds_of_content(bus):
    array = numpy.arange(12, dtype="i4").reshape(3, 4)
    ref = bus.context.put(array)
    assert numpy.frombuffer(bus.context.view(ref), "i4").tolist() == list(range(12))
    assert bus.context.get(bus.context.put(array.T)) == array.T.tobytes()
    assert bus.context.get(bus.context.put(bytearray(b"x"))) == b"x"
    assert bus.context.get(bus.context.put(memoryview(b"abcdef")[::2])) == b"ace"
    assert bus.context.get(bus.context.put(numpy.zeros((0, 3)))) == b""
    for wrong in (None, 7, {"a": 1}, ["x"]):
        with pytest.raises(errors.InvalidArgument, match="made of bytes, text or an array"):
            bus.context.put(wrong)


def test_a_view_outlives_the_name(bus):
    content = os.urandom(100_000)
    ref = bus.context.put(content)
    view = bus.context.view(ref)
    part = view[10:20]
    bus.context.delete(ref)
    assert not bus.context.exists(ref)
    assert bus.context.collect() == 0
    del view
    assert bus.context.collect() == 0  # a part of it is enough
    assert bytes(part) == content[10:20]
    del part
    assert bus.context.collect() == 1


def test_too_many_views(bus):
    ref = bus.context.put("x")
    views = []
    with pytest.raises(errors.OverCapacity, match="release some views"):
        while True:
            views.append(bus.context.view(ref))
    assert len(views) == 46
    assert bus.context.get(ref) == b"x"  # other calls go on
    bus.state["k"] = "x"
    views.pop()
    bus.context.view(ref)


def test_a_view_keeps_its_bus():
    with temp_bus("a") as bus:
        content = os.urandom(100_000)
        ref = bus.context.put(content)
        view = Bus(bus.name).context.view(ref)  # nobody else knows that handle
        gc.collect()
        bus.context.delete(ref)
        assert bus.context.collect() == 0
        assert bytes(view) == content
        del view
        gc.collect()
        bus.context.collect()
        assert bus.context.info().objects == 0


def test_unknown_and_impossible_names(bus):
    missing = Ref(bytes(32))
    for call in (bus.context.get, bus.context.view, bus.context.text, bus.context.delete):
        with pytest.raises(errors.UnknownObject, match="never put here, or deleted"):
            call(missing)
    assert missing not in bus.context
    for wrong in ("", "x", "sha256:", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "md5:" + "a" * 64):
        with pytest.raises(errors.InvalidArgument, match="64 hexadecimal digits"):
            bus.context.get(wrong)
        with pytest.raises(errors.InvalidArgument):
            bus.context.exists(wrong)
    with pytest.raises(errors.InvalidArgument):
        Ref(b"short")


def test_bytes_that_are_no_text(bus):
    ref = bus.context.put(b"\xff\xfe")
    with pytest.raises(errors.Corrupt, match="no text"):
        bus.context.text(ref)


def test_names_travel(bus):
    ref = bus.context.put("big" * 100)
    bus.send("a", {"read": ref})
    bus.send("a", ref)
    assert bus.recv().body == {"read": str(ref)}
    assert bus.recv().body == str(ref)
    copy = pickle.loads(pickle.dumps(ref))
    assert copy == ref
    assert copy.size == 300
    assert repr(ref) == f"Ref({str(ref)!r})"


def test_list(bus):
    refs = [bus.context.put(f"number {i}") for i in range(20)]
    infos = bus.context.list()
    assert {o.ref for o in infos} == set(refs)
    assert all(o.size == len(f"number {i}") for i, o in enumerate(infos))
    assert [o.created for o in infos] == sorted(o.created for o in infos)
    assert len(bus.context) == 20
    assert set(bus.context) == set(refs)


def test_changed_bytes_are_found(bus):
    content = os.urandom(10_000)
    ref = bus.context.put(content)
    intact = bus.context.put("intact")
    with open(f"{bus.info()['path']}/region", "r+b") as region:
        at = region.read().index(content)
        region.seek(at + 77)
        region.write(bytes([content[77] ^ 1]))
    with Bus(bus.name) as other:  # one that has not looked at it yet
        with pytest.raises(errors.Corrupt, match="were changed in the bus"):
            other.context.get(ref)
        with pytest.raises(errors.Corrupt):
            other.context.view(ref, verify=True)
        assert len(other.context.view(ref)) == 10_000
        assert other.context.verify() == [ref]
        assert other.context.get(intact) == b"intact"
        other.context.delete(ref)
        other.context.put(content)
        assert other.context.verify() == []


def test_full_heap_is_told_with_numbers_and_nothing_is_lost(bus):
    size = bus.context.info().size
    with pytest.raises(errors.TooLarge) as too_large:
        bus.context.put(bytes(size + 1))
    assert (too_large.value.have, too_large.value.want) == (size, size + 1)
    kept = bus.context.put(os.urandom(size // 2))
    view = bus.context.view(kept)
    with pytest.raises(errors.NoSpace, match="make the bus larger") as no_space:
        bus.context.put(os.urandom(size * 3 // 4))
    assert no_space.value.have < no_space.value.want == size * 3 // 4
    assert bus.context.info().objects == 1
    assert len(bus.context.get(kept)) == size // 2
    view.release()
    bus.context.delete(kept)
    bus.context.put(os.urandom(size * 3 // 4))  # what nobody holds makes room by itself


def test_a_dead_process_holds_nothing_for_good(bus):
    ref = bus.context.put(os.urandom(100_000))
    child = os.fork()
    if child == 0:
        other = Bus(bus.name)
        other.context.view(ref)  # its view is never let go of
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    bus.context.delete(ref)
    bus.reap()
    assert bus.context.collect() == 1


def test_closed(bus):
    ref = bus.context.put("x")
    view = bus.context.view(ref)
    context = bus.context
    bus.close()
    asked = (lambda: context.put("y"), lambda: context.get(ref), context.list, context.info, lambda: ref in context)
    for call in asked:
        with pytest.raises(errors.Closed):
            call()
    del view


def test_larger_bus_has_a_larger_heap():
    with temp_bus(size="64M") as bus:
        assert bus.context.info().size > 16 << 20
        content = os.urandom(16 << 20)
        assert bus.context.get(bus.context.put(content)) == content


def test_what_the_readme_says_of_a_default_bus():
    with Bus(temp_bus_name(), temporary=True) as bus:
        info = bus.context.info()
        assert (info.keys_capacity, info.objects_capacity) == (2048, 4096)
        assert round(info.size / 2**20) == 24
        ref = bus.context.put("x = 1\n" * 10_000)
        assert len(encode({"read": ref})[1]) == 82


def test_exported():
    assert {"Ref", "Context", "ObjectInfo", "HeapInfo", "UnknownObject"} <= set(cfnshm.__all__)
