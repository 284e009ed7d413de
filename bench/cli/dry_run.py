"""``bench run --dry-run``: what a configuration would run, without running anything."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from bench import chains
from bench.cli.terminal import disk, duration, print_table
from bench.config.keys import model_class
from bench.contract import Cell
from bench.text import plural

if TYPE_CHECKING:
    from bench.config import Plan

MOST_ROWS = 40
HEADINGS = ("cell", "task", "model", "size", "steps", "dtype", "device")


def show(plan: Plan, *, every: bool = False) -> None:
    """Print a plan's cells and estimates; ``every`` shows all cells of a long one."""
    from bench.cli.env import declared_sizes
    from bench.environments import CURRENT

    cells = plan.cells if every else plan.cells[:MOST_ROWS]
    print_table(HEADINGS, map(_row, cells), right=[4])
    if len(cells) < plan.count:
        print(f"… and {plan.count - len(cells):,} more; --all shows them")
    rounds = plan.cells[0]["protocol"]["rounds"]
    devices = f" on {', '.join(plan.devices)}" if plan.devices else ""
    print(f"\n{plural(plan.count, 'cell')} x {plural(rounds, 'round')}{devices}")
    sweeps = Counter(_sweep(cell["sweep"]) for cell in plan.cells if cell.get("sweep"))
    for sweep, number in sweeps.items():
        print(f"sweep     {sweep}: {plural(number, 'cell')}")
    for line in dict.fromkeys(line for cell in plan.cells for line in _inputs(cell)):
        print(f"reads     {line}")
    print(f"time      about {duration(plan.estimated_seconds)}")
    print(f"disk      about {disk(plan.estimated_disk_bytes)} in runs/{plan.name}")
    if plan.estimated_download_bytes:
        amount = disk(plan.estimated_download_bytes)
        print(f"download  about {amount} from the Hub, if nothing is there yet")
    needed = dict.fromkeys(cell["backend"]["environment"] for cell in plan.cells)
    for line in declared_sizes([name for name in needed if name != CURRENT]):
        print(f"environment  {line}")
    for note in plan.notes:
        print(f"note      {note}")
    print("Estimates from a fixed table of model classes, not measured on this machine.")


def show_json(plan: Plan) -> None:
    """Print the resolved plan, one cell a line: quick to write and to compare."""
    data = plan.to_json()
    cells = data.pop("cells")
    head = json.dumps(data, indent=1, ensure_ascii=False)[:-2]
    lines = ",\n".join("  " + json.dumps(cell, ensure_ascii=False) for cell in cells)
    print(f'{head},\n "cells": [\n{lines}\n ]\n}}')


def _row(cell: Cell) -> tuple[str, ...]:
    workload = cell["workload"]
    steps = str(workload["steps"])
    if workload["strength"] is not None:
        model = cell.get("inputs", {}).get("model")
        place = f"path:{model['path']}" if model else workload["model"]
        made = None if workload.get("custom_pipeline") else model_class(place)
        known = chains.class_steps(made, workload["steps"], workload["strength"])
        taken = "?" if known is None else str(known)
        if workload["task"] != chains.TASK:
            steps += f" → {taken}"
        elif (later := len(chains.of(workload)) - 1) > 0:
            steps += f" + {later} x {taken}"
    size = f"{workload['width']}x{workload['height']}"
    names = (cell["name"], workload["task"], workload["model"])
    return (*names, size, steps, workload["dtype"], cell["device"])


def _sweep(sweep: Any) -> str:
    sizes = ", ".join(f"{size['width']}x{size['height']}" for size in sweep["size"] or ())
    steps = ", ".join(map(str, sweep["steps"] or ()))
    parts = [f"steps {steps}"] * bool(steps) + [f"sizes {sizes}"] * bool(sizes)
    return f"{'; '.join(parts)}; {sweep['repeats']} x each"


def _inputs(cell: Cell) -> list[str]:
    """Return a line for each file or folder that is read: where it is, and how it was written."""
    lines = []
    for key, file in cell["inputs"].items():
        written = str(cast("dict[str, Any]", cell["workload"])[key])
        same = written.removeprefix("path:") == file["path"]
        lines.append(file["path"] if same else f"{file['path']} ({written})")
    return lines
