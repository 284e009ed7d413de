"""Capabilities as folders: which there are, and their parts, imported when asked for.

A pass (`bench.passes`) or a task (`bench.tasks`) is one folder whose modules are its parts: the
worker imports ``work``, the parent ``keys``, ``record``, ``judge`` and ``show``. Standard library
alone, since both sides import this.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType


@dataclass(frozen=True)
class Registry:
    """The capabilities of one kind, in order.

    Attributes:
        package: holds the built-in ones, a folder each, named with ``_`` for ``-``.
        built_in: their names.
        group: entry-point group under which other packages register a folder of theirs.
    """

    package: str
    built_in: tuple[str, ...]
    group: str

    def names(self) -> tuple[str, ...]:
        """Return every registered name: the built-in ones first, then the others, sorted."""
        return (*self.built_in, *sorted(set(_entries(self.group)) - set(self.built_in)))

    def part(self, name: str, part: str) -> ModuleType | None:
        """Return a capability's module, such as its ``keys``; None if it has no such part.

        Raises:
            KeyError: nothing is registered under ``name``.
            ImportError: the module is there and cannot be imported.
        """
        if name in self.built_in:
            folder = f"{self.package}.{name.replace('-', '_')}"
        else:
            folder = _entries(self.group)[name]
        module = f"{folder}.{part}"
        return importlib.import_module(module) if find_spec(module) else None


@functools.cache
def _entries(group: str) -> dict[str, str]:
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=group)}
