"""``--only key=value``: keep some cells of a plan."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

from bench import modes
from bench.config import additions, models
from bench.config.drafts import size_text
from bench.config.errors import ConfigError, Place, did_you_mean, nearest, shown
from bench.contract import Cell

_ONLY_KEYS = (
    "workload", "backend", "size",
    *(key for key in models.FIELD_KEYS
      if key not in ("size", "extra", "asked_size", "size_multiple")),
    *models.CELL_KEYS, "name",
)  # fmt: skip
_ABSENT = {**additions.DEFAULTS, "deterministic": False}
"""Values of keys that a cell has only where it uses them, where that is not null."""


def _only_values(cell: Cell, label: str, key: str) -> tuple[str, ...]:
    """Return the spellings by which ``--only`` may ask for a cell's value."""
    if key == "workload":
        return (cell["workload"]["name"],)
    if key == "backend":
        return tuple(dict.fromkeys((cell["backend"]["name"], label)))
    if key == "size":
        height, width = cell["workload"]["height"], cell["workload"]["width"]
        return tuple(dict.fromkeys((size_text(cell["workload"]), f"{width}x{height}")))
    if key in modes.KEYS:
        return (modes.word_of(cell["workload"], key),)
    owner = cell if key in ("name", *models.CELL_KEYS) else cell["workload"]
    value = cast("dict[str, Any]", owner).get(key, _ABSENT.get(key))
    if key == "telemetry":
        value = value is not None
    if value is None:
        return ("null", "none")
    if isinstance(value, bool):
        return (str(value).lower(),)
    return (f"{value:g}", str(value)) if isinstance(value, float) else (str(value),)


def select(cells: list[Cell], labels: Sequence[str], only: Sequence[str]) -> list[int]:
    """Return the positions of the cells that agree with every ``key=value[,value]``.

    The same key given twice means either value, as a list does.

    Raises:
        ConfigError: no such key, a value that no cell has, or nothing left.
    """
    wanted: dict[str, list[str]] = {}
    for text in only:
        place = Place(f"--only {text}")
        key, equals, listed = text.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError("must be KEY=VALUE, such as backend=none", place)
        if key not in _ONLY_KEYS:
            raise ConfigError(f"unknown key {shown(key)}. {did_you_mean(key, _ONLY_KEYS)}", place)
        spelled = [
            _only_values(cell, label, key) for cell, label in zip(cells, labels, strict=True)
        ]
        known = set(itertools.chain.from_iterable(spelled))
        # a prompt may hold a comma, so the whole text is tried first
        values = [listed.strip()] if listed.strip() in known else listed.split(",")
        for value in values:
            if value.strip() not in known:
                there = list(dict.fromkeys(spelling[0] for spelling in spelled))
                more = f" and {len(there) - 20} more" if len(there) > 20 else ""
                # of numbers, none is meant by another
                is_name = any(letter.isalpha() for letter in value)
                near = nearest(value.strip(), there) if is_name else None
                hint = f". Did you mean {shown(near)}? There" if near else "; there"
                raise ConfigError(
                    f"no cell has {key} {shown(value.strip())}{hint} are: "
                    f"{', '.join(map(_brief, there[:20]))}{more}",
                    place,
                )
            wanted.setdefault(key, []).append(value.strip())
    kept = list(range(len(cells)))
    for key, values in wanted.items():
        kept = [
            at
            for at in kept
            if not set(values).isdisjoint(_only_values(cells[at], labels[at], key))
        ]
        if not kept:
            asked = " ".join(f"--only {text}" for text in only)
            raise ConfigError("no cell agrees with all of these", Place(asked))
    return kept


def _brief(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
