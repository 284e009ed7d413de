"""Sections of a report that only some runs have, a module each.

They are in this package, and in the folder of a pass or task as its part ``section``. A module has
what it needs of

- ``figures(comparisons)``: every figure that it may have by name, each with a module in ``plots``;
  those whose tables are all empty are not drawn;
- ``section(comparisons)``: its texts, tables and images, or None if the records hold nothing of it;
- ``tables(comparison)``: tables among those of one workload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

from bench.passes import PASSES
from bench.tasks import TASKS
from reports.analyse import Comparison
from reports.sections import additions, capacity, low_memory, size_memory
from reports.sections.base import Plot, Section
from reports.tables import Table


def modules() -> Iterator[ModuleType]:
    """Yield every module with a section, in the order of the report."""
    yield from (low_memory, capacity, size_memory)
    for registry in (TASKS, PASSES):
        for name in registry.names():
            module = registry.part(name, "section")
            if module is not None:
                yield module
    yield additions


def figures(comparisons: Sequence[Comparison]) -> dict[str, Plot]:
    """Return the figures of all sections by name."""
    return {
        name: plot
        for module in modules()
        if hasattr(module, "figures")
        for name, plot in module.figures(comparisons).items()
    }


def build(comparisons: Sequence[Comparison]) -> list[Section]:
    """Return the sections that these records give rise to."""
    found = [m.section(comparisons) for m in modules() if hasattr(m, "section")]
    return [each for each in found if each is not None]


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables of one workload that passes and tasks have."""
    return [
        each for m in modules() if hasattr(m, "tables") for each in m.tables(comparison) if each
    ]
