"""``bench plan``: what a configuration would run, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from bench import chains
from bench.contract import Cell

SHOWN_ROWS = 40


def plan(
    config: Annotated[Path, typer.Argument(help="YAML file.", show_default=False)],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change a value before it is checked, such as defaults.steps=20. Repeatable.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="KEY=VALUE,…",
            help="Keep the cells that agree, such as backend=none. Repeatable.",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Show every cell of a long plan.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the resolved form: every cell with all values.")
    ] = False,
) -> None:
    """Show what a configuration would run: cells, estimated time and disk.

    Nothing is started, and of models only folders of this machine are looked at: with equal input
    files, the plan is the same everywhere.

    \b
    Examples:
      bench plan configs/quickstart.yaml
      bench plan configs/realvisxl.yaml --only backend=none --only size=512,1024
      bench plan configs/quickstart.yaml --set defaults.steps=4 --set protocol.rounds=2
      bench plan configs/quickstart.yaml --json

    \b
    Exit codes:
      0  the configuration can be run
      2  it cannot: one message says where and why
    """  # noqa: D301 - click reads \b as a character
    from bench.cli.env import declared_sizes
    from bench.config import load_config, make_plan
    from bench.environments import CURRENT

    made = make_plan(load_config(config, set_ or (), only or ()))
    if json_:
        print(_json(made.to_json()))
        return
    _print_table(made.cells if all_ else made.cells[:SHOWN_ROWS])
    if made.count > SHOWN_ROWS and not all_:
        print(f"… and {made.count - SHOWN_ROWS:,} more; --all shows them")
    rounds = made.cells[0]["protocol"]["rounds"]
    print(f"\n{_count(made.count, 'cell')} x {_count(rounds, 'round')}", end="")
    print(f" on {', '.join(made.devices)}" if made.devices else "")
    for line in _sweeps(made.cells):
        print(f"sweep     {line}")
    for line in _inputs(made.cells):
        print(f"reads     {line}")
    print(f"time      about {duration_text(made.estimated_seconds)}")
    print(f"disk      about {bytes_text(made.estimated_disk_bytes)} in runs/{made.name}")
    if made.estimated_download_bytes:
        print(
            f"download  about {bytes_text(made.estimated_download_bytes)} from the Hub, "
            "if nothing is there yet"
        )
    needed = [cell["backend"]["environment"] for cell in made.cells]
    for line in declared_sizes([name for name in dict.fromkeys(needed) if name != CURRENT]):
        print(f"environment  {line}")
    for note in made.notes:
        print(f"note      {note}")
    print("Estimates from a fixed table of model classes, not measured on this machine.")


def _sweeps(cells: list[Cell]) -> list[str]:
    """Return a line for each different sweep: its points, and how many cells have it."""
    kinds: dict[str, int] = {}
    for cell in cells:
        sweep = cell.get("sweep")
        if sweep is None:
            continue
        parts = []
        if sweep["steps"]:
            parts.append(f"steps {', '.join(map(str, sweep['steps']))}")
        if sweep["size"]:
            sizes = ", ".join(f"{size['width']}x{size['height']}" for size in sweep["size"])
            parts.append(f"sizes {sizes}")
        text = f"{'; '.join(parts)}; {sweep['repeats']} x each"
        kinds[text] = kinds.get(text, 0) + 1
    return [f"{text}: {_count(number, 'cell')}" for text, number in kinds.items()]


def _inputs(cells: list[Cell]) -> list[str]:
    """Return a line for each file or folder that is read: where it is, and how it was written."""
    lines: dict[str, None] = {}
    for cell in cells:
        for key, file in cell["inputs"].items():
            written = str(cast("dict[str, Any]", cell["workload"])[key])
            same = written.removeprefix("path:") == file["path"]
            lines[file["path"] if same else f"{file['path']} ({written})"] = None
    return list(lines)


def _json(data: dict[str, Any]) -> str:
    """Return JSON with one cell a line: quick to write and to compare."""
    cells = data.pop("cells")
    head = json.dumps(data, indent=1, ensure_ascii=False)[:-2]
    lines = ",\n".join("  " + json.dumps(cell, ensure_ascii=False) for cell in cells)
    return f'{head},\n "cells": [\n{lines}\n ]\n}}'


def _print_table(cells: list[Cell]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("cell", "task", "model", "size", "steps", "dtype", "device"):
        table.add_column(heading, justify="right" if heading == "steps" else "left")
    for cell in cells:
        workload = cell["workload"]
        steps = str(workload["steps"])
        if workload["strength"] is not None:
            taken = chains.diffusers_steps(workload["steps"], workload["strength"])
            if workload["task"] != chains.TASK:
                steps += f" → {taken}"
            elif (later := len(chains.of(workload)) - 1) > 0:
                steps += f" + {later} x {taken}"
        row = (
            cell["name"],
            workload["task"],
            workload["model"],
            f"{workload['width']}x{workload['height']}",
            steps,
            workload["dtype"],
            cell["device"],
        )
        table.add_row(*(Text(value, overflow="fold") for value in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration_text(seconds: float) -> str:
    """Return a duration for people: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def bytes_text(count: int) -> str:
    """Return an amount of disk for people, in powers of 1000."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
