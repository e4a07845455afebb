"""Mutants made by rule from the text of the core: each compare-and-set becomes a plain store, each cursor that
only rises may fall, each re-check is passed over, each store and each wake is left out, each memory order
is relaxed. (What concerns one operation is done at run time, by `cfnsim --weaken`: all of them are one build.)

A mutant's name is `file function rule number`, the number counting the places of that rule in that function:
it stays the same while lines move.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILES = [
    "mem/region.h", "mem/region.c", "mem/slab.h", "mem/slab.c", "sync/event.h", "sync/event.c", "msg/envelope.h", "msg/envelope.c", "msg/ring.h", "msg/ring.c",
    "msg/inbox.h", "msg/inbox.c", "msg/outbox.c", "mem/directory.c", "mem/heap.c", "mem/index.c", "mem/evict.c", "sync/refs.c",
    "sync/lease.c", "agent/bus_lease.c", "agent/bus_semaphore.c", "agent/bus_barrier.c",
    "agent/bus_object.c", "agent/bus_ref.c", "agent/registry.c", "agent/attach.c",
    "agent/reap.c", "agent/liveness.c", "agent/bus.c", "agent/bus_send.c", "agent/bus_recv.c",
    "agent/bus_request.c", "agent/bus_loan.c", "agent/bus_info.c", "agent/check.c", "agent/repair.c",
]  # fmt: skip

# A re-check is an early exit that depends on a word of the region, read in the condition itself.
LOOKS = re.compile(
    r"cfn_load_|cfn_authority_holds|authorised|cfn_inbox_fenced|cfn_inbox_still_mine|cfn_ring_holds|cfn_ring_full"
    r"|cfn_inbox_ready|cfn_cas|cfn_frame_acked"
)
EXITS = re.compile(r"\s*(?:\{\s*)?(?:return|continue|break|goto)\b")
WAKES = r"cfn_event_ring\w*|cfn_route_ring|cfn_os_futex_wake|cfn_os_fifo_ring|ring_fifo|cfn_slab_tell"


# What cfnsim can do to an operation at run time: `--weaken`, and what else than relaxed.
INSTEAD = {"order": "", "store": "store", "falls": "fall", "no store": "nothing", "no mark": "nothing"}


@dataclass(frozen=True)
class Made:
    file: str
    function: str
    rule: str
    number: int
    start: int  # the text from here ...
    end: int  # ... to here is replaced ...
    new: str  # ... by this
    line: int
    old: str
    place: str = ""  # of the operation, as cfnsim knows it

    @property
    def name(self) -> str:
        return f"{self.file} {self.function} {self.rule} {self.number}"

    @property
    def weak(self) -> bool:
        return self.rule == "order"


def _blank(text: str) -> str:
    """The text with comments and strings blanked out, every other character where it was."""
    hide = lambda found: re.sub(r"[^\n]", " ", found[0])  # noqa: E731
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", hide, text, flags=re.S)


def _close(text: str, start: int) -> int:
    """Behind the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    raise ValueError("unbalanced parentheses")


def _arguments(code: str, start: int, end: int) -> list[tuple[int, int]]:
    """Where the arguments between two parentheses stand."""
    found, depth, begun = [], 0, start + 1
    for i in range(start + 1, end):
        if code[i] in "([{":
            depth += 1
        elif code[i] in ")]}" and i < end - 1:
            depth -= 1
        elif (code[i] == "," and depth == 0) or i == end - 1:
            found.append((begun, i))
            begun = i + 1
    return found


def _functions(code: str) -> Iterator[tuple[str, int, int]]:
    """(name, start, end) of each function's body; definitions begin in the first column."""
    for found in re.finditer(r"^[a-z][^\n;{}]*?\b(\w+)\((?:[^;{}]*?)\)\s*\{\n", code, flags=re.M):
        yield found[1], found.end(), code.index("\n}", found.end())


def _places(text: str, code: str, start: int, end: int) -> Iterator[tuple[str, int, int, str]]:
    """(rule, start, end, replacement) within one function."""
    for found in re.finditer(r"\bcfn_(?:cas(?:32)?_\w+|max_seq)\(", code[start:end]):
        at, opened = start + found.start(), start + found.end() - 1
        closed = _close(code, opened)
        arguments = [text[a:b].strip() for a, b in _arguments(code, opened, closed)]
        if "max" in found[0]:
            word, value = arguments
            yield (
                "falls", at, closed,
                f"({{ uint64_t old_ = cfn_load_seq({word}); cfn_store_seq({word}, {value}); old_; }})",
            )  # fmt: skip
        else:
            word, _, value = arguments
            yield "store", at, closed, f"({{ cfn_store_seq({word}, {value}); true; }})"
    for found in re.finditer(r"\bif \(", code[start:end]):
        opened = start + found.end() - 1
        closed = _close(code, opened)
        if LOOKS.search(code[opened:closed]) and EXITS.match(code, closed):
            yield "no check", opened, closed, f"(({text[opened:closed]}) && 0)"
    for found in re.finditer(rf"\b(cfn_store_\w+|{WAKES})\(", code[start:end]):
        at = start + found.start()
        closed = _close(code, start + found.end() - 1)
        if code[closed] == ";" and code[:at].rstrip()[-1] in ";{})/":
            yield "no store" if "store" in found[1] else "no wake", at, closed, "(void)0"
    for found in re.finditer(r"\bcfn_or_seq\(", code[start:end]):
        at, opened = start + found.start(), start + found.end() - 1
        closed = _close(code, opened)
        a, b = _arguments(code, opened, closed)[0]
        yield "no mark", at, closed, f"cfn_load_seq({text[a:b]})"
    for orders in (
        r"\bcfn_(?:(?:load|store|or|add|and)_(?:seq|acquire|release)|cas_(?:seq|acqrel|release)|cas32_seq)\(",
        r"\bcfn_(?:max_seq|reads_over)\(",
    ):
        for found in re.finditer(orders, code[start:end]):
            yield "order", start + found.start(), start + found.end() - 1, ""


def mutants(csrc: Path) -> list[Made]:
    made = []
    for file in FILES:
        text = (csrc / file).read_text()
        code = _blank(text)
        for function, start, end in _functions(code):
            count: Counter[str] = Counter()
            for rule, a, b, new in _places(text, code, start, end):
                count[rule] += 1
                line = text.count("\n", 0, a) + 1
                old = " ".join(text[a:b].split()) if rule != "order" else _call(text, code, a, b)
                place = _place(file, text, code, a, code.index("(", a)) if rule in INSTEAD else ""
                made.append(Made(file, function, rule, count[rule], a, b, new, line, old, place))
    return made


def _place(file: str, text: str, code: str, start: int, opened: int) -> str:
    closed = _close(code, opened)
    first, last = (text.count("\n", 0, at) + 1 for at in (start, closed))
    found = _arguments(code, opened, closed)
    word = " ".join(code[found[0][0] : found[0][1]].split()) or "."
    return f"{file}:{first}-{last}:{text[start + 4 : opened]}:{word}"


def _call(text: str, code: str, start: int, opened: int) -> str:
    return " ".join(text[start : _close(code, opened)].split())
