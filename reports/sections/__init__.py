"""Sections of a report that only some runs have, a module each.

A section is there if the records hold what it is about. Its module has

- ``figures(comparisons)``: every figure that it may have by name, each with a module in ``plots``;
  those whose tables are all empty are not drawn;
- ``section(comparisons)``: its texts, tables and pictures, or None.

Record fields that only sections read are named in ``reports.gather.KEPT`` and found in
``Sample.more``.
"""

from __future__ import annotations

from collections.abc import Sequence

from reports.analyse import Comparison
from reports.sections import (
    additions,
    capacity,
    chain,
    folder,
    low_memory,
    repeat,
    size_memory,
    telemetry,
)
from reports.sections.base import Kind, Plot, Section, Shown

__all__ = ["KINDS", "Kind", "Plot", "Section", "Shown", "build", "figures"]

KINDS: tuple[Kind, ...] = (
    low_memory,
    capacity,
    size_memory,
    chain,
    folder,
    telemetry,
    repeat,
    additions,
)
"""Every section there is, in the order of the report."""


def figures(comparisons: Sequence[Comparison]) -> dict[str, Plot]:
    """Return the figures of all sections by name."""
    return {name: plot for kind in KINDS for name, plot in kind.figures(comparisons).items()}


def build(comparisons: Sequence[Comparison]) -> list[Section]:
    """Return the sections that these records give rise to."""
    found = [kind.section(comparisons) for kind in KINDS]
    return [each for each in found if each is not None]
