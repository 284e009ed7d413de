"""A history as a page: HISTORY.md with its table, and the figure beside it."""

from __future__ import annotations

import itertools
from pathlib import Path
from statistics import median

import pandas as pd

from bench import files
from bench.gate.history import History, Series
from bench.store import StoreError
from plots import history, style

_NAMES = {"speed": "end-to-end time", "warmup": "warm-up time", "memory": "peak memory"}


def write(found: History, out: Path) -> Path:
    """Write HISTORY.md, history.png and history.svg; return the page.

    Raises:
        StoreError: the folder cannot be written.
    """
    png, svg = style.save(history.figure(table(found)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        files.write(out / "history.png", png)
        files.write(out / "history.svg", svg)
        page = out / "HISTORY.md"
        files.write(page, markdown(found))
    except OSError as error:
        raise StoreError(
            f"the history cannot be written to {out}: {(error.strerror or str(error)).lower()}; "
            "choose another folder with --out."
        ) from error
    return page


def table(found: History) -> pd.DataFrame:
    """Return the rows that `plots.history.figure` draws: changed series first, still ones last.

    Counts that never changed are left out, since a straight line says nothing.
    """
    several = len({one.machine for one in found.series}) > 1
    rows = []
    for one in sorted(found.series, key=lambda one: not one.marks):
        if one.unit == "count" and not one.marks:
            continue
        title = f"{one.cell}: {_NAMES.get(one.metric, one.metric)}"
        if several:
            title += f" ({one.machine})"
        marks = {mark.index: mark.reason.partition(" (")[0] for mark in one.marks}
        levels = _levels(one)
        for place, point in enumerate(one.points):
            rows.append(
                {
                    "title": title,
                    "unit": one.unit,
                    "position": place + 1,
                    "run": point.run,
                    "value": point.value,
                    "mark": marks.get(place, ""),
                    "level": levels[place],
                }
            )
    columns = ["title", "unit", "position", "run", "value", "mark", "level"]
    return pd.DataFrame(rows, columns=columns)


def _levels(one: Series) -> list[float]:
    edges = [0, *(mark.index for mark in one.marks), len(one.points)]
    levels: list[float] = []
    for start, end in itertools.pairwise(edges):
        values = [point.value for point in one.points[start:end]]
        levels += [median(values)] * len(values)
    return levels


def summary(found: History) -> list[tuple[str, ...]]:
    """Return (cell, machine, figure, runs, first, last, changes) of each series, as texts."""
    return [
        (
            one.cell,
            one.machine,
            _NAMES.get(one.metric, one.metric),
            str(len(one.points)),
            _value(one.points[0].value, one.unit),
            _value(one.points[-1].value, one.unit),
            "; ".join(mark.reason for mark in one.marks)
            or ("none" if one.enough else "too few runs to tell; it takes 10"),
        )
        for one in found.series
    ]


COLUMNS = ("cell", "machine", "figure", "runs", "first", "last", "changes")


def markdown(found: History) -> str:
    """Return the page."""
    lines = ["# History", "", f"{found.runs} runs.", "", "![history](history.png)", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in summary(found)]
    if found.unread:
        lines += ["", "Not read:", "", *(f"- {_cell(why)}" for why in found.unread)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return flat.replace("|", "\\|").replace("[", "\\[").replace("_", "\\_")


def _value(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1024**3:.3f} GiB"
    return f"{value:.4g} s" if unit == "s" else f"{value:g}"
