"""Sections of a report that only some runs have, a module each.

A section is there if the records hold what it is about. Its module has

- ``figures(comparisons)``: every figure that it may have by name, each with a module in ``plots``;
  those whose tables are all empty are not drawn;
- ``section(comparisons)``: its texts, tables and pictures, or None.

Record fields that only sections read are named in ``reports.gather.KEPT`` and found in
``Sample.more``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

import pandas as pd

from reports.analyse import Comparison
from reports.view import Table


@dataclass(frozen=True, slots=True)
class Plot:
    """What a figure is drawn from: a module of ``plots``, its tables, and how to read it."""

    module: ModuleType
    tables: list[pd.DataFrame]
    says: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a section: ``name`` is its file's in ``gallery``, without suffix."""

    name: str
    png: bytes
    width: int
    height: int
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """A section under its heading: sentences, figures by name, pictures, tables, in this order."""

    anchor: str
    title: str
    says: list[str]
    figures: list[str] = field(default_factory=list)
    pictures: list[Shown] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


class Kind(Protocol):
    """A module of this package, as its users see it."""

    def figures(self, comparisons: Sequence[Comparison]) -> Mapping[str, Plot]: ...

    def section(self, comparisons: Sequence[Comparison]) -> Section | None: ...


def figures(comparisons: Sequence[Comparison]) -> dict[str, Plot]:
    """Return the figures of all sections by name."""
    return {name: plot for kind in KINDS for name, plot in kind.figures(comparisons).items()}


def build(comparisons: Sequence[Comparison]) -> list[Section]:
    """Return the sections that these records give rise to."""
    found = [kind.section(comparisons) for kind in KINDS]
    return [each for each in found if each is not None]


from reports.sections import additions  # noqa: E402 - sections are made of the classes above

KINDS: tuple[Kind, ...] = (additions,)
"""Every section there is, in the order of the report."""
