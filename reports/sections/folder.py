"""Folder runs: counts, time for each picture, memory along the folder, a sheet of the pictures."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from PIL import Image, ImageDraw

import plots.folder
from bench import folder
from bench.text import number, seconds
from reports import frames
from reports.analyse import Comparison, Finding
from reports.gather import Sample
from reports.sections.base import Plot, Section, Shown
from reports.view import Cell, Table

MOST_MARKS = 1000
"""Marks of one backend in the figure; of more pictures, every so many is drawn."""
MOST_FAILURES = 30
"""Failed pictures that the table lists; the counts are of all."""
SHEET = (8, 4)
"""Pictures across, and rows of results, of a contact sheet."""
TILE = 112
MIB = 1024**2

_COLUMNS = [
    "workload", "label", "backend", "place", "e2e_s", "rss_bytes", "outcome", "drawn", "total",
    "failed",
]  # fmt: skip


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure along the folder."""
    rows: list[dict[str, Any]] = []
    for comparison, finding, sample in _samples(comparisons):
        said = sample.more["folder"]
        every = max(1, -(-said["pictures"] // MOST_MARKS))
        marks = failures = 0
        for place, row in enumerate(_rows(sample), 1):
            ok = row["outcome"] == "ok"
            marks += ok
            failures += not ok
            if (ok and (marks - 1) % every) or failures > MOST_MARKS:
                continue
            rows.append(
                {
                    "workload": frames.panel(comparison),
                    "label": finding.row.label,
                    "backend": finding.row.backend,
                    "place": place,
                    "e2e_s": row.get("e2e_s") if ok else None,
                    "rss_bytes": row.get("rss_bytes"),
                    "outcome": row["outcome"],
                    "drawn": every,
                    "total": said["pictures"],
                    "failed": said["failed"],
                }
            )
    table = pd.DataFrame(rows, columns=_COLUMNS).astype({"e2e_s": float, "rss_bytes": float})
    says = "Time of each picture's call, failures marked, and the worker's memory after it."
    return {"folder": Plot(plots.folder, [table], says)}


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section, or None if no record is of a folder."""
    found = list(_samples(comparisons))
    if not found:
        return None
    return Section(
        "folder",
        "Folders of pictures",
        list(_says(found)),
        figures=["folder"],
        pictures=list(_sheets(found)),
        tables=[_table(found), *_failures(found)],
    )


_Found = tuple[Comparison, Finding, Sample]


def _samples(comparisons: Sequence[Comparison]) -> Iterator[_Found]:
    """Return the first record of each backend that tells of a folder; rounds repeat it."""
    for comparison in comparisons:
        for finding in comparison.findings:
            sample = next((s for s in finding.row.samples if s.more.get("folder")), None)
            if sample is not None:
                yield comparison, finding, sample


def _rows(sample: Sample) -> Iterator[dict[str, Any]]:
    """Read the rows of a record one after the other; none if their file is gone."""
    try:
        yield from folder.read_rows(sample.source.path / sample.more["folder"]["rows"])
    except OSError:
        return


def _says(found: Sequence[_Found]) -> Iterator[str]:
    for comparison, finding, sample in found:
        said = sample.more["folder"]
        who = f"{comparison.group.title}, {finding.row.label}"
        text = f"{who}: {said['ok']} of {said['pictures']} pictures were processed"
        if said["median_s"] is not None:
            text += f", {seconds(said['median_s'])} s each (median of the calls"
            between = said["median_interval_s"]
            text += f", 95 % {seconds(between[0])} to {seconds(between[1])} s" if between else ""
            text += f"); with reading and saving {number(said['images_per_s'])} pictures a second"
        yield text + f". {_memory(said)}"
        if said["carried"]:
            yield (
                f"{who}: {said['carried']} of these pictures are of a process that was "
                "interrupted; times of two processes stand together."
            )


def _memory(said: Mapping[str, Any]) -> str:
    start, end = said["rss_start_bytes"], said["rss_end_bytes"]
    if start is None:
        return "This system does not tell resident memory."
    text = f"Memory went from {start / MIB:,.0f} to {end / MIB:,.0f} MiB"
    slope, between = said["rss_slope_bytes_per_picture"], said["rss_slope_interval"]
    if slope is None:
        return f"{text}; too few pictures for a slope."
    low, high = (each / 1024 for each in between)
    word = "does not grow beyond its interval"
    if low > 0:
        word = f"grows: 10,000 pictures would add {10_000 * slope / MIB:.1f} MiB"
    return (
        f"{text}: {slope / 1024:+.2f} KiB a picture (95 % {low:+.2f} to {high:+.2f}), so it {word}."
    )


def _table(found: Sequence[_Found]) -> Table:
    head = ["workload", "backend", "pictures", "ok", "failed", "median [s]", "pictures/s",
            "memory at start [MiB]", "at end [MiB]", "KiB a picture"]  # fmt: skip
    rows = []
    for comparison, finding, sample in found:
        said = sample.more["folder"]
        slope = said["rss_slope_bytes_per_picture"]
        figures = [
            said["images_per_s"],
            *(said[key] and said[key] / MIB for key in ("rss_start_bytes", "rss_end_bytes")),
            None if slope is None else slope / 1024,
        ]
        rows.append(
            [
                Cell(comparison.group.title),
                Cell(finding.row.label),
                *(Cell(str(said[k]), said[k], "number") for k in ("pictures", "ok", "failed")),
                Cell(seconds(said["median_s"]), said["median_s"], "number"),
                *(Cell(number(each), each, "number") for each in figures),
            ]
        )
    note = "The median is of the pipeline's calls; pictures/s counts reading and saving too."
    return Table("Folders", head, rows, note)


def _failures(found: Sequence[_Found]) -> Iterator[Table]:
    rows: list[list[Cell]] = []
    reasons: Counter[str] = Counter()
    for comparison, finding, sample in found:
        for row in _rows(sample):
            if row["outcome"] == "ok":
                continue
            reasons[row["outcome"]] += 1
            if len(rows) < MOST_FAILURES:
                told = (comparison.group.title, finding.row.label, row["picture"],
                        row["outcome"], str(row["reason"]))  # fmt: skip
                rows.append([Cell(each) for each in told])
    if not rows:
        return
    total = sum(reasons.values())
    note = f"The first {len(rows)} of {total}." if total > len(rows) else ""
    yield Table(
        "Pictures that failed", ["workload", "backend", "picture", "outcome", "reason"], rows, note
    )


def _sheets(found: Sequence[_Found]) -> Iterator[Shown]:
    """Return a contact sheet of each backend's first results."""
    for place, (comparison, finding, sample) in enumerate(found, 1):
        tiles: list[Image.Image] = []
        for row in _rows(sample):
            if len(tiles) == SHEET[0] * SHEET[1]:
                break
            tiles.append(_tile(sample, row))
        if not tiles:
            continue
        sheet, width, height = _sheet(tiles)
        yield Shown(
            f"folder-{place:02d}",
            sheet,
            width,
            height,
            f"{comparison.group.title}, {finding.row.label}: the first {len(tiles)} of "
            f"{sample.more['folder']['pictures']} pictures in the order of the folder, each result "
            "within a square; a grey square with a cross is a picture that failed.",
        )


def _tile(sample: Sample, row: Mapping[str, Any]) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), "#F2F3F5")
    try:
        if row["outcome"] != "ok":
            raise OSError(row["reason"])
        with Image.open(sample.source.path / row["output"]) as opened:
            shown = opened.convert("RGB")
    except (OSError, ValueError):
        pen = ImageDraw.Draw(tile)
        pen.line((30, 30, TILE - 30, TILE - 30), fill="#A40E26", width=3)
        pen.line((30, TILE - 30, TILE - 30, 30), fill="#A40E26", width=3)
        return tile
    shown.thumbnail((TILE, TILE))
    tile.paste(shown, ((TILE - shown.width) // 2, (TILE - shown.height) // 2))
    return tile


def _sheet(tiles: Sequence[Image.Image]) -> tuple[bytes, int, int]:
    across = min(SHEET[0], len(tiles))
    down = -(-len(tiles) // across)
    gap = 4
    sheet = Image.new("RGB", (across * (TILE + gap) + gap, down * (TILE + gap) + gap), "white")
    for at, tile in enumerate(tiles):
        sheet.paste(tile, (gap + (at % across) * (TILE + gap), gap + (at // across) * (TILE + gap)))
    file = io.BytesIO()
    sheet.save(file, format="png", optimize=True)
    return file.getvalue(), sheet.width, sheet.height
