"""From cells to searches, and from what a search wants to try to cells.

Cells that differ in batch and size only are one subject of a search, which begins at the smallest
of them. Each trial is planned as any other cell is, from a configuration that the subject makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config import Plan, make_plan, parse_config
from bench.contract import Cell
from bench.records import alike
from bench.sizes import LEAST_MULTIPLE, own_multiple

Point = tuple[int, int, int]
"""(batch, height, width)."""


@dataclass(frozen=True)
class Subject:
    """What a search is about; ``batch`` and ``size`` (height, width) are where it begins."""

    cell: Cell
    batch: int
    size: tuple[int, int]


def subjects(cells: Sequence[Cell]) -> list[Subject]:
    """Return what there is to search for in ``cells``, in their order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(alike.but_for_size(cell, cell["device"]), []).append(cell)
    return [
        Subject(
            group[0],
            min(cell["workload"]["batch"] for cell in group),
            min(
                ((cell["workload"]["height"], cell["workload"]["width"]) for cell in group),
                key=lambda size: (size[0] * size[1], size),
            ),
        )
        for group in found.values()
    ]


def trials(subject: Subject, points: Iterable[Point]) -> dict[Point, Cell]:
    """Return a cell for each point, planned as if it stood in a configuration of its own."""
    wanted = list(dict.fromkeys(points))
    cell = subject.cell
    name = cell["workload"]["name"]
    entries = [
        {
            "name": f"{name[:50]}-{width}x{height}-b{batch}",
            "batch": batch,
            "height": height,
            "width": width,
        }
        for batch, height, width in wanted
    ]
    plan = make_plan(parse_config({**_settings(cell), "matrix": {
        "workload": entries, "backend": [_backend(cell)]
    }}))  # fmt: skip
    by_point = {
        (made["workload"]["batch"], made["workload"]["height"], made["workload"]["width"]): made
        for made in plan.cells
    }
    return {point: by_point[point] for point in wanted}


def multiple_of(cells: Iterable[Cell]) -> int:
    """Return the smallest step of sizes, in pixels, that the models of all ``cells`` can make."""
    found = {LEAST_MULTIPLE}
    for cell in cells:
        given = (cell.get("inputs") or {}).get("model")
        if given is not None:
            found.add(own_multiple(Path(given["path"])))
    return math.lcm(*found)


def plan_of(name: str, cells: Iterable[Cell], search: Mapping[str, Any]) -> Plan:
    """Return a plan of cells that were planned one by one; names that meet are told apart."""
    kept: dict[str, Cell] = {}
    names: set[str] = set()
    for cell in cells:
        if cell["cell_id"] in kept:
            continue
        if cell["name"] in names:
            cell = {**cell, "name": f"{cell['name']}/{cell['cell_id'][:6]}"}
        names.add(cell["name"])
        kept[cell["cell_id"]] = cell
    return Plan(name, list(kept.values()), (), 0.0, 0, 0, search=search)


def _settings(cell: Cell) -> dict[str, Any]:
    """Return a cell as the configuration that it could have come from, less its matrix."""
    asked: Mapping[str, Any] = cell["workload"]
    left_out = {*alike.SIZED, "name", "round_size"}
    fields = {k: v for k, v in asked.items() if k not in left_out and v is not None}
    for key, given in (cell.get("inputs") or {}).items():
        fields[key] = f"path:{given['path']}" if key == "model" else given["path"]
    rule = cell["protocol"]
    calls: dict[str, Any] = dict(rule["calls"])
    calls["time_cap"] = calls.pop("time_cap_s")
    limits = cell["limits"]
    bounds = {"memory": limits["memory_bytes"], "rss": limits.get("rss_bytes"),
              "device_memory": limits.get("device_bytes")}  # fmt: skip
    return {
        "device": cell["device"],
        "threads": cell["threads"],
        "cache": cell["cache"],
        "allow_remote_code": cell["allow_remote_code"],
        "protocol": {"warmup": dict(rule["warmup"]), "calls": calls, "rounds": rule["rounds"]},
        "limits": {
            "timeout": limits["timeout_s"],
            **{key: f"{value}B" for key, value in bounds.items() if value is not None},
        },
        "defaults": fields,
    }


def _backend(cell: Cell) -> dict[str, Any]:
    choice = cell["backend"]
    return {
        "name": choice["name"],
        "options": choice["options"],
        "environment": choice["environment"],
    }
