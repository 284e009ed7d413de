"""Folder runs: counts, time for each image, memory along the folder, a sheet of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import pandas as pd
from PIL import Image, ImageDraw

import plots.folder
from bench import files, text
from bench.tasks.folder.record import Fields, Folder, Row, rows_of
from reports import frames
from reports.analyse import Comparison, Finding
from reports.sections.base import Plot, Section, Shown, shown
from reports.tables import Column, Table, present, table

NO_CLIP_SCORE = "the images of a folder are drawn prompts of their own"

MOST_MARKS = 1000
"""Marks of one backend in the figure; of more images, every so many is drawn."""
MOST_FAILURES = 30
"""Failed images that the table lists; the counts are of all."""
SHEET = (8, 4)
"""Images across, and rows of results, of a contact sheet."""
TILE = 112
GAP = 4
MIB = 1024**2
KIB = 1024


class _Run(NamedTuple):
    """The first record of each backend that has a folder; rounds repeat it."""

    comparison: Comparison
    finding: Finding
    folder: Folder

    @property
    def title(self) -> str:
        return f"{self.comparison.group.title}, {self.finding.arm.label}"

    def rows(self) -> Iterator[Row]:
        """Read the rows of the record one after the other; none if their file is gone."""
        try:
            yield from rows_of(self.finding.arm.source.path, self.folder)
        except OSError:
            return


def _runs(comparisons: Sequence[Comparison]) -> Iterator[_Run]:
    for comparison, finding, _ in frames.rows(comparisons):
        parts = (record.part(Fields).folder for record in finding.arm.records)
        found = next((part for part in parts if part is not None), None)
        if found is not None:
            yield _Run(comparison, finding, found)


class _Mark(NamedTuple):
    """One image; of more than `MOST_MARKS`, ``every`` so many is drawn."""

    run: _Run
    place: int
    row: Row
    every: int


MARKS: frames.Columns = {
    "workload": "run.comparison.panel",
    "label": "run.finding.arm.label",
    "backend": "run.finding.arm.cell.backend.name",
    "place": "place",
    "e2e_s": lambda mark: mark.row.e2e_s if mark.row.outcome == "ok" else None,
    "rss_bytes": "row.rss_bytes",
    "outcome": "row.outcome",
    "drawn": "every",
    "total": "run.folder.pictures",
    "failed": "run.folder.failed",
}


def _marks(comparisons: Sequence[Comparison]) -> Iterator[_Mark]:
    for run in _runs(comparisons):
        every = max(1, -(-run.folder.pictures // MOST_MARKS))
        marks = failures = 0
        for place, row in enumerate(run.rows(), 1):
            ok = row.outcome == "ok"
            marks += ok
            failures += not ok
            if not (ok and (marks - 1) % every) and failures <= MOST_MARKS:
                yield _Mark(run, place, row, every)


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure along the folder."""

    def tables() -> list[pd.DataFrame]:
        marks = frames.frame(MARKS, _marks(comparisons))
        return [marks.astype({"e2e_s": float, "rss_bytes": float})]

    says = "Time of each image's call, failures marked, and the worker's memory after it."
    return {"folder": Plot(plots.folder, tables, says)}


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section, or None if no record is of a folder."""
    runs = list(_runs(comparisons))
    if not runs:
        return None
    return Section(
        "folder",
        "Folders of images",
        list(_says(runs)),
        figures=["folder"],
        pictures=list(_sheets(runs)),
        tables=present(
            table(
                "Folders",
                FOLDERS,
                runs,
                "The median is of the pipeline's calls; images/s counts reading and saving too.",
            ),
            _failures(runs),
        ),
    )


def _says(runs: Sequence[_Run]) -> Iterator[str]:
    for run in runs:
        found = run.folder
        line = f"{run.title}: {found.ok} of {found.pictures} images were processed"
        if found.median_s is not None:
            line += f", {text.seconds(found.median_s)} s each (median of the calls"
            if found.median_interval_s:
                low, high = map(text.seconds, found.median_interval_s)
                line += f", 95 % {low} to {high} s"
            rate = text.number(found.images_per_s)
            line += f"); with reading and saving {rate} images a second"
        yield f"{line}. {_memory(found)}"
        if found.carried:
            yield (
                f"{run.title}: {found.carried} of these images are of a process that was "
                "interrupted; times of two processes stand together."
            )


def _memory(found: Folder) -> str:
    start, end = found.rss_start_bytes, found.rss_end_bytes
    if start is None or end is None:
        return "This system does not tell resident memory."
    line = f"Memory went from {start / MIB:,.0f} to {end / MIB:,.0f} MiB"
    slope = found.rss_slope_bytes_per_picture
    if slope is None or found.rss_slope_interval is None:
        return f"{line}; too few images for a slope."
    low, high = (each / KIB for each in found.rss_slope_interval)
    word = "does not grow beyond its interval"
    if low > 0:
        word = f"grows: 10,000 images would add {10_000 * slope / MIB:.1f} MiB"
    return (
        f"{line}: {slope / KIB:+.2f} KiB an image (95 % {low:+.2f} to {high:+.2f}), so it {word}."
    )


def _scaled(name: str, by: int) -> Callable[[_Run], float | None]:
    def get(run: _Run) -> float | None:
        value = getattr(run.folder, name)
        return None if value is None else value / by

    return get


FOLDERS = (
    Column("workload", "comparison.group.title"),
    Column("backend", "finding.arm.label"),
    Column("images", "folder.pictures", text.whole),
    Column("ok", "folder.ok", text.whole),
    Column("failed", "folder.failed", text.whole),
    Column("median [s]", "folder.median_s", text.seconds),
    Column("images/s", "folder.images_per_s", text.number),
    Column("memory at start [MiB]", _scaled("rss_start_bytes", MIB), text.number),
    Column("at end [MiB]", _scaled("rss_end_bytes", MIB), text.number),
    Column("KiB an image", _scaled("rss_slope_bytes_per_picture", KIB), text.number),
)

FAILURES = (
    Column("workload", lambda row: row[0].comparison.group.title),
    Column("backend", lambda row: row[0].finding.arm.label),
    Column("image", lambda row: row[1].picture),
    Column("outcome", lambda row: row[1].outcome),
    Column("reason", lambda row: row[1].reason),
)


def _failures(runs: Sequence[_Run]) -> Table | None:
    failed = ((run, row) for run in runs for row in run.rows() if row.outcome != "ok")
    first = list(islice(failed, MOST_FAILURES))
    total = len(first) + sum(1 for _ in failed)
    note = f"The first {len(first)} of {total}." if total > len(first) else ""
    return table("Images that failed", FAILURES, first, note)


def _sheets(runs: Sequence[_Run]) -> Iterator[Shown]:
    """Yield a contact sheet of each backend's first results."""
    for place, run in enumerate(runs, 1):
        tiles = [_tile(run, row) for row in islice(run.rows(), SHEET[0] * SHEET[1])]
        if tiles:
            yield shown(
                f"folder-{place:02d}",
                _sheet(tiles),
                f"{run.title}: the first {len(tiles)} of {run.folder.pictures} images in the "
                "order of the folder, each result within a square; a grey square with a cross is "
                "an image that failed.",
            )


def _tile(run: _Run, row: Row) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), "#F2F3F5")
    try:
        if row.outcome != "ok" or row.output is None:
            raise FileNotFoundError(row.reason)
        image = files.image(files.inside(run.finding.arm.source.path, row.output))
    except OSError:
        pen = ImageDraw.Draw(tile)
        pen.line((30, 30, TILE - 30, TILE - 30), fill="#A40E26", width=3)
        pen.line((30, TILE - 30, TILE - 30, 30), fill="#A40E26", width=3)
        return tile
    image.thumbnail((TILE, TILE))
    tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return tile


def _sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    across = min(SHEET[0], len(tiles))
    down = -(-len(tiles) // across)
    size = (across * (TILE + GAP) + GAP, down * (TILE + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    for at, tile in enumerate(tiles):
        place = (GAP + (at % across) * (TILE + GAP), GAP + (at // across) * (TILE + GAP))
        sheet.paste(tile, place)
    return sheet
