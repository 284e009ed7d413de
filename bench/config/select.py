"""``--only key=value``: keep some cells of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from bench.config.cells import size_text, value_of
from bench.config.errors import ConfigError, Place, did_you_mean, nearest, shown
from bench.config.models import Shapes
from bench.contract import Cell

_NO_SELECTION = ("size", "extra", "asked_size", "size_multiple")


def _spellings(cell: Cell, label: str, key: str, shapes: Shapes) -> tuple[str, ...]:
    """Return the spellings by which ``--only`` may ask for a cell's value."""
    workload = cast("Mapping[str, Any]", cell["workload"])
    if key == "workload":
        return (workload["name"],)
    if key == "backend":
        return tuple(dict.fromkeys((cell["backend"]["name"], label)))
    if key == "size":
        return tuple(
            dict.fromkeys((size_text(workload), f"{workload['width']}x{workload['height']}"))
        )
    if key in shapes.passes:
        value = shapes.passes[key].selected(cell.get(key, shapes.passes[key].off))
    elif key == "name" or key in shapes.cell_keys:
        value = cell.get(key)
    else:
        value = value_of(workload, key, shapes.tasks[workload["task"]])
    if value is None:
        return ("null", "none")
    if isinstance(value, bool):
        return (str(value).lower(),)
    return (f"{value:g}", str(value)) if isinstance(value, float) else (str(value),)


def select(
    cells: Sequence[Cell], labels: Sequence[str], only: Sequence[str], shapes: Shapes
) -> list[int]:
    """Return the positions of the cells that agree with every ``key=value[,value]``.

    The same key given twice means either value, as a list does.

    Raises:
        ConfigError: no such key, a value that no cell has, or nothing left.
    """
    fields = [key for key in shapes.fields if key not in _NO_SELECTION]
    keys = ("workload", "backend", "size", *fields, *shapes.cell_keys, "name")
    spelled: dict[str, list[tuple[str, ...]]] = {}
    wanted: dict[str, set[str]] = {}
    for text in only:
        place = Place(f"--only {text}")
        key, equals, listed = text.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError("must be KEY=VALUE, such as backend=none", place)
        if key not in keys:
            raise ConfigError(f"unknown key {shown(key)}. {did_you_mean(key, keys)}", place)
        spelled[key] = [
            _spellings(cell, label, key, shapes) for cell, label in zip(cells, labels, strict=True)
        ]
        known = {spelling for each in spelled[key] for spelling in each}
        # a prompt may hold a comma, so the whole text is tried first
        values = [listed] if listed.strip() in known else listed.split(",")
        for value in map(str.strip, values):
            if value not in known:
                raise ConfigError(_no_cell(key, value, spelled[key]), place)
            wanted.setdefault(key, set()).add(value)
    kept = [
        at
        for at in range(len(cells))
        if all(not wanted[key].isdisjoint(spelled[key][at]) for key in wanted)
    ]
    if not kept:
        asked = " ".join(f"--only {text}" for text in only)
        raise ConfigError("no cell agrees with all of these", Place(asked))
    return kept


def _no_cell(key: str, value: str, spelled: Sequence[tuple[str, ...]]) -> str:
    there = list(dict.fromkeys(spelling[0] for spelling in spelled))
    more = f" and {len(there) - 20} more" if len(there) > 20 else ""
    # of numbers, none is meant by another
    near = nearest(value, there) if any(letter.isalpha() for letter in value) else None
    hint = f". Did you mean {shown(near)}? There" if near else "; there"
    listed = ", ".join(name if len(name) <= 40 else f"{name[:39]}…" for name in there[:20])
    return f"no cell has {key} {shown(value)}{hint} are: {listed}{more}"
