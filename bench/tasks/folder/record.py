"""What a folder leaves in a record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench import files, folder
from bench.contract import Outcome
from bench.records.read import RecordError, checked
from bench.records.types import Count, Part, RelativePath, Seconds, Text


class Folder(Part, frozen=True):
    """``rows`` is the file with one line an image; times in seconds."""

    rows: RelativePath
    pictures: Count = 0
    ok: Count = 0
    failed: Count = 0
    compiled: Count = 0
    carried: Count = 0
    kept_every: Count = 1
    median_s: float | None = None
    median_interval_s: tuple[float, float] | None = None
    wall_s: float | None = None
    images_per_s: float | None = None
    rss_start_bytes: Count | None = None
    rss_end_bytes: Count | None = None
    rss_slope_bytes_per_picture: float | None = None
    rss_slope_interval: tuple[float, float] | None = None


class Row(Part, frozen=True):
    """One image of the folder."""

    picture: Text
    outcome: Outcome
    reason: Text | None = None
    output: RelativePath | None = None
    e2e_s: Seconds | None = None
    rss_bytes: Count | None = None


_row = msgspec.json.Decoder(Row)


def rows_of(run: Path, part: Folder) -> Iterator[Row]:
    """Return the rows of a folder one after the other; lines that are none are left out.

    Raises:
        OSError: their file cannot be read, or lies outside the run.
    """
    for line in folder.row_lines(files.inside(run, part.rows)):
        try:
            yield checked(_row, line)
        except RecordError:
            continue


class Fields(Part, frozen=True):
    folder: Folder | None = None
