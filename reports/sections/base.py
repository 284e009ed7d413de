"""What a section of a report is made of."""

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
