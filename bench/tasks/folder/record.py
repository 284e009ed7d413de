"""What a folder leaves in a record."""

from __future__ import annotations

from bench.records.types import Count, Part, RelativePath


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


class Fields(Part, frozen=True):
    folder: Folder | None = None
