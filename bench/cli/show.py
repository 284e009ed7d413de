"""``bench show``: the table of a run that is done, interrupted, or still going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    json_: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON, in seconds and bytes.")
    ] = False,
    all_rounds: Annotated[
        bool,
        typer.Option("--all-rounds", help="One line for each round instead of pooling them."),
    ] = False,
) -> None:
    """Show the table of a run: warm-up, end-to-end time, it/s, peak memory, outcome, speedup.

    Only reads: it works on a run that was interrupted or that is still going on. Rounds of a cell
    are pooled by the median of their medians, and only rounds that ended ok count. The speedup is
    the ratio of medians against backend 'none' of the same workload.

    \b
    Examples:
      bench show runs/quickstart
      bench show runs/quickstart --all-rounds
      bench show runs/quickstart --json

    \b
    Exit codes:
      0  shown, whatever the outcomes are
      2  there is no run in that folder, it cannot be read, or a record in it is none of
     bench's
    """  # noqa: D301 - click reads \b as a character
    from bench.records import terminal

    if json_:
        panels = terminal.read(run, all_rounds=all_rounds)
        print(json.dumps(terminal.as_json(panels), indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    terminal.print_run(run, Console(), all_rounds=all_rounds)
