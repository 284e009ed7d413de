"""Parameters that several verbs share, so that a flag is spelled and means the same everywhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench import files

RUNS = Path("runs")


def run_path(path: Path) -> Path:
    """Return the run folder that an argument names; ``latest`` is the newest run below ./runs.

    Raises:
        bench.store.StoreError: there is no run below ./runs.
    """
    if str(path) != "latest" or path.exists():
        return path
    from bench.store import StoreError

    newest: tuple[str, float, Path] | None = None
    for place, folders, names in os.walk(RUNS):
        if "plan.json" not in names:
            continue
        folders.clear()
        plan = Path(place, "plan.json")
        try:
            header = json.loads(files.read(plan))
            planned = str(header.get("planned_utc") or header["created_utc"])
        except (OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
            print(f"bench: {plan} is passed over: {error}", file=sys.stderr)
            continue
        # Runs of one second are told apart by their files.
        found = (planned, plan.stat().st_mtime, Path(place))
        newest = found if newest is None else max(newest, found)
    if newest is None:
        raise StoreError(f"there is no run below {RUNS}/, so 'latest' names none.")
    print(f"bench: latest is {newest[2]}", file=sys.stderr)
    return newest[2]


def run_paths(paths: list[Path]) -> list[Path]:
    return [run_path(path) for path in paths]


Config = Annotated[Path, typer.Argument(help="YAML file of the matrix.", show_default=False)]
Run = Annotated[
    Path, typer.Argument(callback=run_path, help="Run folder, or latest.", show_default=False)
]
Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN", callback=run_paths, help="Run folders, or latest.", show_default=False
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a value before it is checked: defaults.steps=20. Repeatable.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY=VALUE,…",
        help="Keep only cells that agree: backend=none. Repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Report = Annotated[bool, typer.Option("--report", help="Write the run's report at the end.")]
NoSync = Annotated[
    bool,
    typer.Option(
        "--no-sync",
        help="Build no environment; cells that need one that is not ready are unavailable.",
    ),
]
