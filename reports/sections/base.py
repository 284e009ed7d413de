"""What a section of a report is made of."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import pandas as pd
from PIL import Image

from reports.tables import Table


@dataclass(frozen=True, slots=True)
class Plot:
    """What a figure is drawn from: a module of ``plots``, what makes its tables, how to read it.

    ``says`` may depend on the tables.
    """

    module: ModuleType
    tables: Callable[[], list[pd.DataFrame]]
    says: str | Callable[..., str]


@dataclass(frozen=True, slots=True)
class Shown:
    """An image of a section: ``name`` is its file's in ``gallery``, without suffix."""

    name: str
    png: bytes
    width: int
    height: int
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """A section under its heading: sentences, figures by name, images, tables, in this order."""

    anchor: str
    title: str
    says: list[str]
    figures: list[str] = field(default_factory=list)
    pictures: list[Shown] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def shown(name: str, image: Image.Image, caption: str, *, optimize: bool = True) -> Shown:
    """Return an image as it is shown, in a PNG file."""
    file = io.BytesIO()
    image.save(file, format="png", optimize=optimize)
    return Shown(name, file.getvalue(), image.width, image.height, caption)
