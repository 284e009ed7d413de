"""What a section of a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

import pandas as pd

from bench import text
from reports.analyse import Comparison
from reports.view import Table, View


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


def leads(view: View, sections: Sequence[Section]) -> bool:
    """Whether sections come first: nothing is compared, so that they hold what was asked."""
    return bool(sections) and not view.compares


def question(view: View, sections: Sequence[Section]) -> str:
    """Return what a page is about: its heading, without the run's name."""
    if leads(view, sections):
        return f"{text.listed([section.title for section in sections])}:"
    return "Is it worth it?"
