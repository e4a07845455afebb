#!/usr/bin/env python3
"""Check the models in this directory with SPIN.

    run.py [--profile small|full] [--only NAME] [--jobs N] [--list]

Each run is one model with its preprocessor flags and an expectation:

  clean   the state space must be exhausted without an error: no violated assertion, no invalid end state (a process that can
          never go on, except at a label that begins with "end"), search not cut short by depth, memory or time;
  error   a mutant: the search must find a violated assertion or an invalid end state;
  survives  a mutant that is known to do no harm within the bounds (the README says why): must be exhausted like a clean run.

Needs spin and gcc in PATH.  Works in a temporary directory; nothing is written beside the models.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MEMORY_MB = {"small": 2000, "full": 7500}
TIME_S = {"small": 120, "full": 1500}
DEPTH = 2_000_000
UNOPTIMISED = {"directory", "frame", "reply"}      # profile small: gcc would take longer over them than the search does


@dataclasses.dataclass(frozen=True)
class Run:
    name: str
    model: str
    flags: tuple[str, ...]
    expect: str                      # clean | error | survives
    profiles: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    ok: bool
    verdict: str
    states: int
    seconds: float
    detail: str = ""


BOTH = ("small", "full")
FULL = ("full",)
RUNS: list[Run] = []


def add(model: str, label: str, flags: str, expect: str = "clean", profiles: tuple[str, ...] = BOTH) -> None:
    RUNS.append(Run(f"{model}.{label}", model, tuple("-D" + f for f in flags.split()), expect, profiles))


def mutants(model: str, names: str, flags: str = "", expect: str = "error", profiles: tuple[str, ...] = BOTH) -> None:
    for name in names.split():
        parts = " ".join("MUTANT_" + part for part in name.split("+"))
        add(model, name.lower(), f"{parts} {flags}", expect, profiles)


# ---- event: 2 waiters --------------------------------------------------------------------------------------------------------
add("event", "2-ringers", "NR=2")
add("event", "2-ringers-twice", "NR=2 ROUNDS=2", profiles=FULL)
add("event", "3-ringers", "NR=3", profiles=FULL)
mutants("event", "NO_COUNT CLEAR_FIRST IGNORE_WAKING NO_RECHECK CLEAR_ANDNOT CLEAR_BEFORE_WAKE WAITER_CLEARS WAKE_ONE RING_FIRST "
                 "NO_REARM", "NR=3")

# ---- ring --------------------------------------------------------------------------------------------------------------------
add("ring", "1-reaper", "NREAP=1")
add("ring", "2-reapers", "NREAP=2", profiles=FULL)
add("ring", "both-die", "NREAP=1 D1=1", profiles=FULL)
add("ring", "2+2-messages", "NREAP=1 N0=2 N1=2 NEW=0", profiles=FULL)
mutants("ring", "NO_ID_CHECK NO_SCAN INEXACT_FREE NO_LAP REGISTER_LATE NO_HELP SLOT_FIRST FREE_FIRST", "NREAP=2")
mutants("ring", "COMMIT_STORE TAIL_STORE", "NREAP=1")

# ---- takeover ----------------------------------------------------------------------------------------------------------------
add("takeover", "2-messages", "N=2")
add("takeover", "3-messages", "N=3", profiles=FULL)
add("takeover", "4-messages-1-slot", "N=4 C=1", profiles=FULL)
mutants("takeover", "ID_CHECK_EARLY NO_ID_CHECK NO_CONS_CLEAR CONS_STORE NO_CONS_ID_CHECK NO_REGISTER REGISTER_LATE NO_DONE_REAP "
                    "NO_CATCH_UP NO_REOWN")

# ---- consumer ----------------------------------------------------------------------------------------------------------------
add("consumer", "death", "N0=1 N1=0 LEASES=1")
add("consumer", "steal", "D2=0 STEAL=1 N0=1 N1=0 LEASES=1")
add("consumer", "death-2-messages", "N0=2 N1=0", profiles=FULL)
add("consumer", "steal-2-messages", "D2=0 STEAL=1 N0=2 N1=0", profiles=FULL)
add("consumer", "sender-dies-attachment-reused", "D0=1 SREUSE=1 NREAP=2 D2=0 N1=0 R2=1 R3=0 LEASES=1", profiles=FULL)
add("consumer", "steal-and-death", "D2=1 STEAL=1 N0=1 N1=0", profiles=FULL)
mutants("consumer", "R5_STORE NO_SLOT_RECHECK", "D2=0 STEAL=1 N0=2 N1=0")
mutants("consumer", "HEAD_STORE NO_CONS_CHECK SEEN_EARLY SEEN_STORE NO_OWN_RECHECK COUNT_STORE DONE_REOWNED ACK_NO_MOVE",
        "D2=0 STEAL=1 N0=2 N1=0")
mutants("consumer", "DROP_TAKEN DONE_NOT_SKIPPED NO_DONE_REAP NO_REGISTER NO_CONS_CLEAR", "N0=1 N1=0")
mutants("consumer", "REAP_BY_HOLDER", "D0=1 STEAL=1 D2=0 N1=0")
mutants("consumer", "ID_CHECK_EARLY NO_ID_CHECK", "D0=1 SREUSE=1 NREAP=2 D2=0 N1=0 R2=1 R3=0")

# ---- remove ------------------------------------------------------------------------------------------------------------------
SMALL = "C=1 NCH=1 N0=1"
add("remove", "death", f"{SMALL} N1=1 RECVS=0 D2=1")
add("remove", "steal", f"{SMALL} N1=1 RECVS=0 D2=0 STEAL=1", profiles=FULL)
add("remove", "steal-and-receive", f"{SMALL} N1=0 RECVS=1 D2=0 STEAL=1")
add("remove", "stale-remover", f"{SMALL} N1=1 RECVS=0 D2=0 H3=0 STALE=1")
add("remove", "2-slots-death", "N0=1 N1=0 RECVS=1 D2=1", profiles=FULL)
add("remove", "2-slots-no-death", "N0=1 N1=1 RECVS=1 D2=0", profiles=FULL)
add("remove", "2-slots-steal", "N0=1 N1=1 RECVS=0 D2=0 STEAL=1", profiles=FULL)
add("remove", "2-slots-steal-2-old", "NCH=1 N0=2 N1=1 RECVS=0 D2=0 STEAL=1", profiles=FULL)
add("remove", "sender-dies", f"{SMALL} N1=1 RECVS=1 D2=0 D0=1", profiles=FULL)
add("remove", "both-holders-die", f"{SMALL} N1=1 RECVS=0 D2=1 D3=1", profiles=FULL)
mutants("remove", "NO_MID_CHECK MID_CHECK_EARLY LAP0 NO_FENCE TAKER_NO_MID TAKER_MID_FIRST FREE_INEXACT CURSOR_STORE LOOK_AGAIN",
        f"{SMALL} N1=1 RECVS=0 D2=0 STEAL=1")
mutants("remove", "NO_AGREE+NO_AUTH", f"{SMALL} N1=1 RECVS=0 D2=0 STEAL=1")
mutants("remove", "NO_AGREE", "C=2 NCH=1 N0=0 N1=1 RECVS=0 D2=0 STEAL=1", "survives", FULL)
mutants("remove", "AGREE_BLIND", f"{SMALL} N1=1 RECVS=0 D2=0 H3=0 STALE=1", "survives", FULL)
mutants("remove", "SLOT_FIRST NO_REGISTER", f"{SMALL} N1=0 RECVS=0 D2=1")
mutants("remove", "AGREE_BLIND+NO_AUTH", f"{SMALL} N1=1 RECVS=0 D2=0 H3=0 STALE=1")
mutants("remove", "NO_AUTH_CONS", f"{SMALL} N1=0 RECVS=1 D2=0 STEAL=1")
mutants("remove", "NO_SLOT_RECHECK", "C=1 NCH=1 N0=2 N1=0 RECVS=1 D2=0 STEAL=1")
mutants("remove", "LAP1 NO_AUTH", f"{SMALL} N1=1 RECVS=0 D2=0 STEAL=1", "survives", FULL)
mutants("remove", "AUTH_EARLY DONE_REOWNED", f"{SMALL} N1=0 RECVS=1 D2=0 STEAL=1", "survives", FULL)

# ---- heap --------------------------------------------------------------------------------------------------------------------
add("heap", "1-collector", "NCOL=1 READS=1")
add("heap", "2-collectors", "NCOL=2 READS=1")
add("heap", "2-collectors-2-reads", "NCOL=2 READS=2", profiles=FULL)
mutants("heap", "REFS_FIRST NO_RESCUE NO_REF_CHECK CHECK_EARLY LET_GO_EARLY LATE_LEDGER DECIDE_STORE NO_LEDGERS")

# ---- spill -------------------------------------------------------------------------------------------------------------------
add("spill", "1-spiller", "NSPILL=1 READS=1")
add("spill", "2-spillers", "NSPILL=2 READS=1", profiles=FULL)
add("spill", "1-spiller-2-reads", "NSPILL=1 READS=2", profiles=FULL)
mutants("spill", "NO_RESCUE NO_LEDGER LEDGER_FIRST NO_LAST_NAME STORE KEEP_LATE DROP_FIRST BLIND_DROP NO_REREAD", "NSPILL=1 READS=1")

# ---- lease -------------------------------------------------------------------------------------------------------------------
add("lease", "death", "R1=2 R2=1")
add("lease", "steal", "STEAL=1 R1=2 R2=1")
add("lease", "death-2-turns", "R1=2 R2=2", profiles=FULL)
add("lease", "steal-2-turns", "STEAL=1 R1=2 R2=2", profiles=FULL)
add("lease", "death-3-reapers", "R1=2 R2=1 NREAP=3", profiles=FULL)
mutants("lease", "NO_ID_CHECK ID_CHECK_EARLY TAKE_STORE BURY_STORE DRAW_EARLY FLAG_LATE NO_BURY")
mutants("lease", "GIVE_STORE", "STEAL=1")

# ---- space -------------------------------------------------------------------------------------------------------------------
add("space", "death", "NS=1")
add("space", "steal", "NS=1 STEAL=1")
add("space", "death-2-senders", "NS=2", profiles=FULL)
add("space", "death-2-senders-die", "NS=2 SDIES=1", profiles=FULL)
add("space", "steal-2-senders", "NS=2 STEAL=1", profiles=FULL)
add("space", "2-slots", "C=2 NS=1 STEAL=1", profiles=FULL)
mutants("space", "NO_TAKE_RING RING_NOBODY RING_BEFORE_R5 TAKE_RING_FIRST NO_RECHECK", "NS=1")
mutants("space", "WINNER_RINGS NO_IDLE_RING", "NS=1 STEAL=1")
add("space", "winner_rings-without-steal", "MUTANT_WINNER_RINGS NS=1", "survives", FULL)
mutants("space", "NO_MOVE_RING ONLY_IDLE_RING", "NS=1 STEAL=1", "survives", FULL)
mutants("space", "WAKE_ONE CLEAR_FIRST", "NS=2 SDIES=1")

# ---- directory ---------------------------------------------------------------------------------------------------------------
add("directory", "two-creators", "D0=0")
add("directory", "created-twice", "D0=0 N1=2", profiles=FULL)
add("directory", "other-name", "D0=0 PRE=1 NREC=3 NS=3", profiles=FULL)
add("directory", "lookup", "D0=0 N1=0 PRE=1 NREC=3 NS=3 FINDER=1")
add("directory", "2-removers", "D0=0 N0=1 N1=0 REM=2")
add("directory", "2-removers-created-twice", "D0=0 N0=2 N1=0 REM=2", profiles=FULL)
add("directory", "death", "N1=0 D2=1")
add("directory", "both-creators-die", "D1=1 REM=0")
add("directory", "attachment-reused", "N1=0 REM=0 REUSE=1 NREAP=2")
add("directory", "creator-dies", "", profiles=FULL)
add("directory", "remover-dies", "D0=0 D2=1", profiles=FULL)
add("directory", "2-removers-death", "N1=0 REM=2 D2=1", profiles=FULL)
mutants("directory", "NO_LAST_LOOK BESIDE STATE_FIRST", "D0=0")
mutants("directory", "LOOK_EARLY INTENT_STORE INTENT_FIRST", "D0=0", profiles=FULL)
mutants("directory", "REMOVE_EARLY", "D0=0 N0=2 N1=0 REM=2")
mutants("directory", "REMOVE_BLIND", "D0=0 N0=2 N1=0 REM=2", profiles=FULL)
mutants("directory", "REAP_NO_HELP NO_REGISTER", "N1=0")
mutants("directory", "REGISTER_LATE", "N1=0", profiles=FULL)
mutants("directory", "REAP_NO_ID REAP_BLIND+REAP_NO_HELP", "N1=0 REM=0 REUSE=1 NREAP=2")
mutants("directory", "STATE_ONLY", "D0=0 N1=2")
mutants("directory", "DIR_NO_VER", "D0=0 PRE=2")
mutants("directory", "STATE_NO_VER", "D0=0 N0=2", profiles=FULL)
mutants("directory", "TOMB_ZERO", "D0=0 PRE=1 NREC=3 NS=3")
mutants("directory", "REAP_BLIND", "N1=0 REM=0 REUSE=1 NREAP=2", "survives", FULL)
mutants("directory", "ONE_FINISH FREE_BLIND", "D0=0", "survives", FULL)

# ---- frame -------------------------------------------------------------------------------------------------------------------
add("frame", "death", "STEAL=0 D2=1 D3=1")
add("frame", "steal-and-death", "D2=1 D3=1 NF=3")
add("frame", "word-each", "D2=1 D3=1 PM=1")
add("frame", "3-messages", "F=3")
add("frame", "3-messages-death", "F=3 D2=1 D3=1 NF=3", profiles=FULL)
add("frame", "3-messages-word-each", "F=3 PM=1 D2=1 D3=1", profiles=FULL)
add("frame", "2-slots-death", "C=2 NCH=2 NF=3 D2=1 D3=1", profiles=FULL)
mutants("frame", "NO_LEASE_CHECK LEASE_FIRST BIT_STORE COUNT_DONE ALREADY_INVALID WHOLE_FENCED NO_RESET RESET_NO_VER IGNORE_BITS "
                 "SKIP_UNBOUNDED NO_STILL_MINE SEEN_AFTER")
mutants("frame", "DONE_STORE RESET_LATE NO_TAKER_DONE SEEN_FRAME", profiles=FULL)
mutants("frame", "NO_LATE_SKIP", "F=3 D2=1 D3=1", "survives", FULL)
mutants("frame", "WHOLE_FIRST", "PM=1 D2=1 D3=1", "survives", FULL)

# ---- reply -------------------------------------------------------------------------------------------------------------------
add("reply", "both-die", "D1=1")
add("reply", "2-slots", "C=2")
add("reply", "2-slots-2-answers", "C=2 N1=2", profiles=FULL)
add("reply", "2-reapers", "NCH=1 D0=2 NREAP=2")
add("reply", "stale-reaper", "NCH=1 D0=2 STALE=1")
add("reply", "leave", "NCH=1 D0=0 LEAVE=1")
add("reply", "joiner-dies", "NCH=1 D0=2 JOIN=1 DJ=1")
add("reply", "reaper-dies", "NCH=1 D0=2 NREAP=2 DR=1", profiles=FULL)
add("reply", "2-reapers-drain", "NREAP=2", profiles=FULL)
add("reply", "leaver-dies", "NCH=1 N2=0 D0=0 LEAVE=1 DJ=1", profiles=FULL)
add("reply", "joiner-dies-drain", "NCH=1 JOIN=1 DJ=1", profiles=FULL)
mutants("reply", "NO_ID_CHECK NO_DRAIN_REGISTER LAP0")
mutants("reply", "ID_CHECK_EARLY DRAIN_SLOT_FIRST DRAIN_FREE_FIRST NO_RETIRE", profiles=FULL)
mutants("reply", "LOOK_AGAIN NO_AGREE+NO_AUTH", "NCH=1 D0=2 NREAP=2")
mutants("reply", "CURSOR_STORE", "NCH=1 D0=2 NREAP=2", profiles=FULL)
mutants("reply", "NO_REGISTER SLOT_FIRST", "NCH=1 D0=2 NREAP=2 DR=1")
mutants("reply", "NO_SLOT_RECHECK", "NCH=1 N1=2 D0=2 NREAP=2", profiles=FULL)
mutants("reply", "NO_AUTH+LAP_NO_AUTH", "NCH=1 N1=0 D0=2 STALE=1")
mutants("reply", "NO_TAG", "LEAVE=1")
mutants("reply", "REAP_NO_ID", "NCH=1 NREAP=2")
mutants("reply", "NO_SCAN", "D1=1", profiles=FULL)
mutants("reply", "NO_JOINER_CELL LEAVE_AS_REAP", "NCH=1 D0=2 JOIN=1 DJ=1")
mutants("reply", "NO_DRAIN_RECHECK LAP1", expect="survives", profiles=FULL)
mutants("reply", "NO_AUTH AUTH_EARLY NO_AGREE", "NCH=1 D0=2 NREAP=2", "survives", FULL)
mutants("reply", "LAP_NO_AUTH", "NCH=1 D0=2 STALE=1", "survives", FULL)


def limit_memory(megabytes: int):
    def apply() -> None:
        size = megabytes * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    return apply


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(float(found.group(1))) if found else 0


def check(run: Run, profile: str) -> Outcome:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="models-") as tmp:
        for source in (HERE / f"{run.model}.pml", HERE / "words.h"):
            shutil.copy(source, tmp)
        wants_error = run.expect == "error"
        small = profile == "small"
        spin = subprocess.run(["spin", "-a", *run.flags, f"{run.model}.pml"], cwd=tmp, capture_output=True, text=True)
        if spin.returncode or not (pathlib.Path(tmp) / "pan.c").exists() or "Error:" in spin.stdout:
            return Outcome(False, "spin failed", 0, time.monotonic() - start, spin.stdout + spin.stderr)
        compile_flags = ["-O0" if wants_error or (small and run.model in UNOPTIMISED) else "-O1" if small else "-O2",
                         "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048",
                         f"-DMEMLIM={MEMORY_MB[profile]}"]
        gcc = subprocess.run(["gcc", *compile_flags, "-o", "pan", "pan.c"], cwd=tmp, capture_output=True, text=True)
        if gcc.returncode:
            return Outcome(False, "gcc failed", 0, time.monotonic() - start, gcc.stderr)
        hash_bits = "22" if profile == "small" else "26"
        depth = DEPTH if not wants_error else DEPTH // 4
        try:
            pan = subprocess.run([str(pathlib.Path(tmp) / "pan"), f"-m{depth}", f"-w{hash_bits}"], cwd=tmp, capture_output=True,
                                 text=True, timeout=TIME_S[profile], preexec_fn=limit_memory(MEMORY_MB[profile] + 1500))
        except subprocess.TimeoutExpired:
            return Outcome(False, "timed out", 0, time.monotonic() - start)
    text = pan.stdout + pan.stderr
    seconds = time.monotonic() - start
    states = number(r"([0-9.e+]+) states, stored", text)
    summary = re.search(r"errors: (\d+)", text)
    if summary is None:
        return Outcome(False, "no result", states, seconds, text[-2000:])
    if "out of memory" in text or "reached -DMEMLIM" in text or "memory bound" in text:
        cut = "out of memory"
    elif "max search depth too small" in text:
        cut = "depth cut"
    elif "Search not completed" in text and int(summary.group(1)) == 0:
        cut = "not completed"
    else:
        cut = ""
    violated = re.search(r"pan:1: (assertion violated .*|invalid end state .*)", text)
    if wants_error:
        if violated:
            return Outcome(True, "caught", states, seconds, violated.group(1))
        return Outcome(False, cut or "SURVIVED", states, seconds)
    if int(summary.group(1)) or violated:
        return Outcome(False, "ERROR FOUND", states, seconds, violated.group(1) if violated else text[-2000:])
    if cut:
        return Outcome(False, cut, states, seconds)
    return Outcome(True, "clean" if run.expect == "clean" else "survives", states, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=("small", "full"), default="small")
    parser.add_argument("--only", metavar="NAME", help="runs whose name begins with NAME (a model, or model.run)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--list", action="store_true", help="print the runs and leave")
    args = parser.parse_args()

    runs = [run for run in RUNS if args.profile in run.profiles and (not args.only or run.name.startswith(args.only))]
    if args.list:
        for run in runs:
            print(f"{run.name:38} {run.expect:9} {' '.join(run.flags)}")
        return 0
    if not runs:
        print("no such run", file=sys.stderr)
        return 1
    for tool in ("spin", "gcc"):
        if shutil.which(tool) is None:
            print(f"{tool} is not in PATH", file=sys.stderr)
            return 1

    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, args.jobs)) as pool:
        for run, outcome in zip(runs, pool.map(lambda run: check(run, args.profile), runs)):
            mark = "ok  " if outcome.ok else "FAIL"
            print(f"{mark} {run.name:38} {outcome.states:>10} states {outcome.seconds:7.1f} s  {outcome.verdict}", flush=True)
            if outcome.ok:
                passed += 1
            else:
                failed += 1
                if outcome.detail:
                    print("     " + outcome.detail.strip().replace("\n", "\n     "), flush=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
