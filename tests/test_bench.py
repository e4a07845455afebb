"""The benchmark suite: it measures, it notices what is wrong, and it says what is not there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cfnshm.bench import limits, report, run, suite
from cfnshm.bench.crew import Crew, Failed
from cfnshm.bench.machine import machine
from cfnshm.bench.peers import ALL, BY_NAME, CASTING, ours, standard
from cfnshm.bench.peers.base import PERIOD


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cfnshm", "bench", *arguments], capture_output=True, text=True, timeout=100
    )


def test_from_the_command_to_the_table(tmp_path):
    results, tables = tmp_path / "r.json", tmp_path / "t.md"
    done = bench(
        "one-64", "cast-8", "--peers", "FIFO", "--repeats", "1", "--seconds", "0.02",
        "--json", str(results), "--markdown", str(tables),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 to 1, 64 B, one call a message" in done.stdout
    said = json.loads(results.read_text())
    assert list(said["workloads"]) == ["one-64", "cast-8"]
    rows = {row["peer"]: row for row in said["workloads"]["one-64"]}
    assert rows["cfnshm"]["rate"]["median"] > 0
    assert rows["FIFO"]["cpu_us"]["median"] > 0
    assert "**cfnshm**" in tables.read_text()
    done = bench("--from", str(results))
    assert "broadcast 1 to 8" in done.stdout
    done = bench("many-8", "--peers", "FIFO", "--repeats", "1", "--seconds", "0.02", "--json", str(results), "--add")
    assert list(json.loads(results.read_text())["workloads"]) == ["one-64", "many-8", "cast-8"]


@pytest.mark.parametrize("arguments", [["nothing"], ["--peers", "nobody"]])
def test_what_does_not_exist(arguments):
    done = bench(*arguments)
    assert done.returncode == 2
    assert "there is no" in done.stderr


@pytest.mark.parametrize(
    ("workload", "form", "size", "n"),
    [("one", "call", 64, 1), ("one", "batch", 64, 1), ("one", "view", 65536, 1), ("one", "loan", 65536, 1),
     ("one", "records", 16384, 1), ("many", "call", 64, 3), ("many", "batch", 64, 3), ("cast", "cast", 64, 3),
     ("ask", "call", 64, 3), ("beside", "call", 64, 1), ("memory", "call", 64, 2)],
)  # fmt: skip
def test_every_workload(workload, form, size, n):
    wish = {"workload": workload, "form": form, "size": size, "n": n, "count": 600, "peer": "cfnshm"}
    assert all(value >= 0 for value in run.main(wish).values())


@pytest.mark.parametrize("peer", ["mp.Queue", "mp.SimpleQueue", "mp.Pipe", "unix datagram", "unix seqpacket", "FIFO",
                                  "SQLite", "files"])  # fmt: skip
def test_peers_that_python_brings(peer):
    for wish in ({"workload": "one", "count": 300}, {"workload": "many", "count": 90, "n": 3},
                 {"workload": "cast", "count": 20, "n": 3}, {"workload": "ask", "count": 20, "n": 3}):  # fmt: skip
        form = "cast" if wish["workload"] == "cast" else "call"
        assert run.main({"size": 64, "form": form, "peer": peer, **wish})


class Loses(standard.Pipe):
    """Every 77th message."""

    name = "loses"

    def sender(self, me, to):
        send, n = super().sender(me, to), 0

        def lossy(body):
            nonlocal n
            n += 1
            if n % 77:
                send(body)

        return lossy


class Doubles(Loses):
    name = "doubles"

    def sender(self, me, to):
        send, n = standard.Pipe.sender(self, me, to), 0

        def twice(body):
            nonlocal n
            n += 1
            send(body)
            if n % 77 == 0:
                send(body)

        return twice


@pytest.mark.parametrize("kind", [Loses, Doubles])
@pytest.mark.parametrize("workload", ["one", "many", "cast"])
def test_a_wrong_message_is_noticed(kind, workload, monkeypatch):
    for kinds in (BY_NAME, CASTING):
        monkeypatch.setitem(kinds, kind.name, kind)
    with pytest.raises(Failed, match="message is not"):
        run.main({"workload": workload, "form": "call", "size": 64, "n": 2, "count": 2000, "peer": kind.name})


def test_bodies_differ():
    for size in (64, 1024):
        assert len(set(run.bodies_of(size))) == PERIOD
    assert all(a != b for a, b in zip(run.bodies_of(65536), run.bodies_of(65536)[1:], strict=False))


def test_a_peer_that_is_not_there_is_said(monkeypatch):
    def measured(wish, seconds=0):
        if wish["peer"] == "FIFO":
            raise suite.RunFailed("no such thing")
        return {"rate": 1e6, "cpu_us": 2.0}

    monkeypatch.setattr(suite, "run", measured)
    monkeypatch.setattr(suite, "quiet", lambda: 0.5)
    workload, said = suite.BY_KEY["one-64"], []
    rows = [suite.summary(e, workload) for e in suite.measure(workload, ["cfnshm", "FIFO"], 2, 0.1, said.append)]
    table = "\n".join(report.table(workload, rows))
    assert "| FIFO | no such thing |" in table
    assert "others used 50%" in table
    assert any("no such thing" in line for line in said)
    assert report.ratio(workload, rows) is None


def test_ratios():
    workload = suite.BY_KEY["ping-two"]
    rows = [{"peer": p, "form": "call", "p50": {"median": v, "min": v, "max": v}} for p, v in
            (("cfnshm", 2.0), ("FIFO", 8.0), ("pyzmq", 9.0), ("bare futex", 1.0))]  # fmt: skip
    assert report.ratio(workload, rows) == 4.0  # less is better, and limits take no part
    assert "2.00 times the bare futex" in "\n".join(report.table(workload, rows))


def test_nobody_of_a_crew_is_left():
    def waits(member):
        member.step()

    with Crew() as crew:
        crew.add(waits)
        crew.add(waits)
        crew.wait()
        pids = crew.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            import os

            os.kill(pid, 0)


def test_the_limits():
    try:
        c = limits.load()
    except limits.NoCompiler as why:
        pytest.skip(str(why))
    assert c.c_ring(10_000) > 0
    assert c.copies(4096, 10) > 0
    assert len(c.futex(50, 0, 0)) == 3
    assert limits.empty_calls()["C-API call, ns"] >= 0
    for form, size in (("call", 64), ("batch", 64), ("view", 65536), ("loan", 65536), ("records", 16384)):
        assert run.main({"workload": "one", "form": form, "size": size, "count": 2000, "peer": "C-API ring"})


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [{"peer": "cfnshm", "form": "call", "rate": {"median": 2.0, "min": 1.0, "max": 3.0}}]
    made = report.plots({"workloads": {"one-64": rows}}, tmp_path)
    assert [p.read_bytes()[:4] for p in made] == [b"\x89PNG"]


def test_every_peer_has_a_name_and_says_what_it_needs():
    assert len(BY_NAME) == len(ALL) == 17
    assert ours.Cfnshm in ALL
    assert set(machine(suite.packages())["packages"]) >= {"pyzmq", "iceoryx2", "redis"}
