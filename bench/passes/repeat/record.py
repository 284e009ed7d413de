"""What a pass of equal calls leaves in a record."""

from __future__ import annotations

from bench.records.types import Count, Image, Part, RelativePath, Text


class Difference(Part, frozen=True):
    """An image of a call that was not the same in all calls."""

    index: Count
    calls: Count = 0
    other_sizes: Count = 0
    max_abs: Count | None = None
    share: float | None = None
    box: tuple[Count, Count, Count, Count] | None = None
    map: RelativePath | None = None


class About(Part, frozen=True):
    """What was compared with, and what memory was read by."""

    calls: Count = 0
    meter: Text = ""
    how: Text = ""
    before_bytes: Count | None = None
    reference: tuple[Image, ...] = ()
    differences: tuple[Difference, ...] = ()


class Call(Part, frozen=True):
    sha256: tuple[Text, ...] = ()
    memory_bytes: Count | None = None


class Fields(Part, frozen=True):
    repeat_about: About | None = None
    repeat: tuple[Call, ...] = ()
