"""Repeated calls: equal or not, where and by how much, and does memory grow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

import plots.repeat
from bench import repeatability, text
from bench.repeatability import Difference, Repeated
from reports.analyse import Comparison
from reports.sections.base import Plot, Section, Shown
from reports.view import Cell, Table

MIB = 1024**2
KIB = 1024
SHOWN_SIDE = 256
MOST_PICTURES = 12

MODES: Mapping[bool | str, str] = {False: "off", True: "on", "strict": "on, strictly"}

SAYS = (
    "A leak is a line whose whole band rises. Memory that grows at once and stays, or in the first "
    "calls alone, is an allocator at work."
)


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure, whose table is empty without repeated calls."""
    columns = [
        "workload", "label", "backend", "process", "call", "memory_mib", "counts", "slope_mib",
        "low_mib", "high_mib", "start_mib", "start_call", "verdict",
    ]  # fmt: skip
    rows = []
    for title, label, backend, one in _judged(comparisons):
        for process in one.processes:
            if not process.memory_bytes or process.leak is None:
                continue
            base, leak = process.memory_bytes[0], process.leak
            line = [
                None if value is None else value / MIB
                for value in (leak.bytes_per_call, leak.low, leak.high)
            ]
            start = None if leak.start_bytes is None else (leak.start_bytes - base) / MIB
            verdict = {"none": "no leak", "leak": "LEAK", "unclear": "unclear"}[leak.verdict]
            for call, held in enumerate(process.memory_bytes):
                rows.append(
                    (title, label, backend, process.number, call + 1, (held - base) / MIB,
                     call >= leak.first, *line, start, leak.first + 1, verdict)
                )  # fmt: skip
    return {"repeat": Plot(plots.repeat, [pd.DataFrame(rows, columns=columns)], SAYS)}


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section; None if no record has repeated calls."""
    judged = list(_judged(comparisons))
    if not judged:
        return None
    cells = [(f"{title} / {label}", one) for title, label, _, one in judged]
    unequal = [name for name, one in cells if not one.equal_within or one.equal_between is False]
    leaking = [
        name
        for name, one in cells
        if any(p.leak is not None and p.leak.verdict == "leak" for p in one.processes)
    ]
    says = [
        (
            "Equal calls (same seed, same inputs) were repeated after the measured ones, in each "
            "process. Pictures are equal if every bit is. Memory is read after each call once "
            "garbage is collected, by a meter that is named; the growth per image is its mean "
            "growth from call to call, with a 95 % interval, after the first fifth of the calls "
            "and with up to three steps set aside. It is a leak if the whole interval lies above 0."
        ),
        f"Different pictures: {', '.join(unequal)}."
        if unequal
        else f"All pictures are equal in {text.plural(len(cells), 'cell')}.",
        f"Leaks: {', '.join(leaking)}." if leaking else "No leak was found.",
    ]
    lacking = {name: one.without for name, one in cells if one.without}
    says += [
        f"{name}: these operations ran and have no deterministic algorithm: {', '.join(names)}."
        for name, names in lacking.items()
    ]
    return Section(
        "repeat",
        "Repeated calls",
        says,
        figures=["repeat"],
        pictures=list(_pictures(cells)),
        tables=[_table(cells), *_differences(cells)],
    )


def _judged(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, str, str, Repeated]]:
    """Yield workload, label, backend and what was found, for each cell with repeated calls."""
    for comparison in comparisons:
        for finding in comparison.findings:
            samples = finding.row.recorded
            if not any(sample.more.get("repeat") for sample in samples):
                continue
            records = [
                {
                    "name": sample.name,
                    "round": sample.round,
                    "outcome": sample.outcome,
                    "reason": sample.reason,
                    "cell": {"workload": sample.workload},
                    **sample.more,
                }
                for sample in samples
            ]
            one = repeatability.judge(records, samples[0].source.path)
            yield comparison.group.title, finding.row.label, finding.row.backend, one


def _table(cells: Sequence[tuple[str, Repeated]]) -> Table:
    head = [
        "cell", "deterministic algorithms", "process", "calls equal", "equal to process 1", "meter",
        "growth per image [KiB]", "95 % interval [KiB]", "leak",
    ]  # fmt: skip
    rows = []
    for name, one in cells:
        for process in one.processes:
            same = process.first == one.processes[0].first
            row = [
                Cell(name),
                Cell(MODES[one.mode]),
                Cell(str(process.number), process.number, "number"),
                Cell(f"{process.equal} of {process.calls}"),
                Cell("—" if process is one.processes[0] else "yes" if same else "NO"),
                Cell(process.meter),
            ]
            leak = process.leak
            if leak is None or leak.bytes_per_call is None:
                why = "no reading" if leak is None else leak.reason or ""
                rows.append([*row, Cell("—"), Cell("—"), Cell(why)])
                continue
            each = KIB * max(1, one.images)
            low, high = (leak.low or 0.0) / each, (leak.high or 0.0) / each
            growth = leak.bytes_per_call / each
            rows.append(
                [
                    *row,
                    Cell(f"{growth:.1f}", growth, "number"),
                    Cell(f"{low:.1f} to {high:.1f}"),
                    Cell({"none": "none", "leak": "LEAK"}.get(leak.verdict, leak.reason or "")),
                ]
            )
        rows += [
            [Cell(name), Cell(MODES[one.mode]), Cell(why)] + [Cell("—")] * 6 for why in one.failed
        ]
    return Table("Equal calls and memory", head, rows)


def _differences(cells: Sequence[tuple[str, Repeated]]) -> list[Table]:
    rows = []
    for name, one in cells:
        for each in one.differences:
            box = "—" if each.box is None else "({}, {}) to ({}, {})".format(*each.box)
            share = each.share
            rows.append(
                [
                    Cell(name),
                    Cell(each.where),
                    Cell(str(each.index), each.index, "number"),
                    Cell(text.count(each.max_abs), each.max_abs, "number"),
                    Cell(f"{share:.2%}" if share is not None else "—", share, "number"),
                    Cell(box),
                    Cell(each.why or ""),
                ]
            )
    if not rows:
        return []
    head = ["cell", "where", "picture", "largest difference of 255", "pixels", "place", "note"]
    return [Table("Differences", head, rows)]


def _pictures(cells: Sequence[tuple[str, Repeated]]) -> Iterator[Shown]:
    found = [
        (name, each) for name, one in cells for each in one.differences if each.map is not None
    ]
    for number, (name, each) in enumerate(found[:MOST_PICTURES]):
        png, width, height, factor = amplified(each)
        yield Shown(
            f"repeat-difference-{number:03d}",
            png,
            width,
            height,
            f"{name}, picture {each.index} {each.where}: largest difference of each pixel, "
            f"{factor} times amplified (at most {each.max_abs} of 255)",
        )


def amplified(difference: Difference) -> tuple[bytes, int, int, int]:
    """Return a difference as PNG, its shown width and height, and the factor that it is scaled by.

    The factor is the largest whole number that keeps the largest difference below 256.
    """
    assert difference.map is not None
    factor = max(1, 255 // max(1, int(difference.map.max())))
    image = Image.fromarray((difference.map.astype(np.uint16) * factor).astype(np.uint8))
    # Small pictures are shown larger, each pixel as a square.
    zoom = max(1, SHOWN_SIDE // max(image.size))
    image = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue(), image.width, image.height, factor
