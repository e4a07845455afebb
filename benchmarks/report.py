"""What a run of the suite looks like: a table in Markdown, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .suite import BY_KEY, Workload

OURS = "cfnshm"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return ""
    return f"{_number(figure['median'])} ({_number(figure['min'])} to {_number(figure['max'])})"


def _label(row: dict[str, Any]) -> str:
    return row["peer"] + ("" if row["form"] in ("call", "cast", "batch", "records") else f", {row['form']}")


def _color(workload: Workload, peer: str) -> str:
    return "#c2410c" if peer == OURS else "#cbd5e1" if peer in workload.limits else "#64748b"


def _ranked(workload: Workload, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    name, _, _, _, more = workload.figures[0]
    there = [r for r in rows if name in r]
    return sorted(there, key=lambda r: r[name]["median"], reverse=more) + [r for r in rows if name not in r]


def best(workload: Workload, rows: list[dict[str, Any]], ours: bool) -> dict[str, Any] | None:
    """The first row of ours, or of the others; limits do not take part."""
    name = workload.figures[0][0]
    for row in _ranked(workload, rows):
        if row["peer"] not in workload.limits and (row["peer"] == OURS) is ours and name in row:
            return row
    return None


def ratio(workload: Workload, rows: list[dict[str, Any]]) -> float | None:
    """Ours to the best of the others: above 1 it is the better one."""
    mine, other = best(workload, rows, True), best(workload, rows, False)
    if mine is None or other is None:
        return None
    name, _, _, _, more = workload.figures[0]
    a, b = mine[name]["median"], other[name]["median"]
    if a <= 0 or b <= 0:  # less than nothing: it is lost in the noise
        return None
    return a / b if more else b / a


def _of_ceiling(workload: Workload, rows: list[dict[str, Any]]) -> str:
    mine = best(workload, rows, True)
    name, _, _, _, more = workload.figures[0]
    told = []
    for row in rows:
        if mine and row["peer"] in workload.limits and name in row and row["form"] == mine["form"]:
            share = mine[name]["median"] / row[name]["median"]
            told.append(f"{share:.0%} of the {row['peer']}" if more else f"{share:.2f} times the {row['peer']}")
    return ", ".join(told)


def table(workload: Workload, rows: list[dict[str, Any]], repeats: int | None = None) -> list[str]:
    """Markdown lines of one workload; rows say of how many runs they are if it is another number than `repeats`."""
    heads = [f"{title + ', ' if title else ''}{unit}" for _, title, unit, _, _ in workload.figures]
    out = [f"### {workload.title}", "", f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for row in _ranked(workload, rows):
        name = _label(row)
        name = f"**{name}**" if row["peer"] == OURS else f"*{name}*" if row["peer"] in workload.limits else name
        if row.get("others_used", 0) > 0.06:
            name += f" (others used {row['others_used']:.0%})"
        if repeats and row.get("runs") and row["runs"] != repeats:
            name += f" ({row['runs']} runs)" if row["runs"] > 1 else " (1 run)"
        cells = [_cell(row.get(field)) for field, *_ in workload.figures]
        if row.get("failed"):
            cells[0] = f"{cells[0]} {row['failed']}".strip()
        out.append(f"| {name} | {' | '.join(cells)} |")
    times, ceiling = ratio(workload, rows), _of_ceiling(workload, rows)
    if times is not None:
        other = best(workload, rows, False)
        assert other
        out += ["", f"cfnshm: {times:.2f} times {other['peer']}" + (f", {ceiling}." if ceiling else ".")]
    return [*out, ""]


def markdown(results: dict[str, Any]) -> str:
    """All tables, below the machine that made them."""
    machine = results["machine"]
    told = [f"{k} {v}" for k, v in machine.items() if k != "packages"]
    versions = [f"{k} {v}" for k, v in machine["packages"].items()]
    lines = [
        f"Made by `{results['command']}`: {', '.join(told)}.", "", f"Packages: {', '.join(versions)}.", "",
        f"Medians (minimum to maximum) of {results['repeats']} runs that alternate; *slanted*: limits of the machine.",
        "",
    ]  # fmt: skip
    if results.get("limits"):
        lines += ["| limits of the machine | |", "|---|---:|"]
        lines += [f"| {name} | {_number(value)} |" for name, value in results["limits"].items()] + [""]
    for key, rows in results["workloads"].items():
        lines += table(BY_KEY[key], rows, results["repeats"])
    return "\n".join(lines)


def overview(results: dict[str, Any]) -> str:
    """One line for each workload, for the terminal."""
    lines = []
    for key, rows in results["workloads"].items():
        workload = BY_KEY[key]
        name, _, unit, *_ = workload.figures[0]
        mine, other = best(workload, rows, True), best(workload, rows, False)
        line = f"{workload.title:58}"
        if mine:
            line += f" {_number(mine[name]['median']):>7} {unit}"
        times = ratio(workload, rows)
        if other and times is not None:
            line += f", {times:.2f}x {other['peer']} ({_number(other[name]['median'])})"
        if ceiling := _of_ceiling(workload, rows):
            line += f", {ceiling}"
        lines.append(line)
    return "\n".join(lines)


# ---- pictures ----


def plots(results: dict[str, Any], folder: Path) -> list[Path]:
    """A picture of each workload: a bar for each peer, with its spread.

    Raises:
        ImportError: without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for key, rows in results["workloads"].items():
        workload = BY_KEY[key]
        name, title, unit, _, more = workload.figures[0]
        there = [r for r in _ranked(workload, rows) if name in r][::-1]
        if not there:
            continue
        figure, axes = pyplot.subplots(figsize=(7.5, 0.9 + 0.27 * len(there)), dpi=110)
        middle = [r[name]["median"] for r in there]
        spread = [[m - r[name]["min"] for m, r in zip(middle, there, strict=True)],
                  [r[name]["max"] - m for m, r in zip(middle, there, strict=True)]]  # fmt: skip
        color = [_color(workload, r["peer"]) for r in there]
        labels = [_label(r) for r in there]
        axes.barh(labels, middle, xerr=spread, color=color, error_kw={"ecolor": "#334155", "lw": 0.8, "capsize": 2})
        for y, value in enumerate(middle):
            axes.annotate(_number(value), (spread[1][y] + value, y), xytext=(4, 0), textcoords="offset points",
                          va="center", fontsize=8)  # fmt: skip
        if max(middle) > 30 * min(middle):
            axes.set_xscale("log")
        axes.set_title(workload.title, fontsize=10, loc="left")
        axes.set_xlabel(f"{title + ', ' if title else ''}{unit}, {'more' if more else 'less'} is better", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.12)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.tight_layout()
        path = folder / f"{key}.png"
        figure.savefig(path)
        pyplot.close(figure)
        made.append(path)
    return made
