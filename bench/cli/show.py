"""``bench show``: the table of a run that is done, interrupted, or still running."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli import options
from bench.cli.terminal import console, print_json


def show(
    run: options.Run,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON, in seconds and bytes.")
    ] = False,
    all_rounds: Annotated[
        bool,
        typer.Option("--all-rounds", help="One line for each round instead of pooling them."),
    ] = False,
) -> None:
    """Warm-up, end-to-end time, it/s, peak memory, outcome, speedup. Only reads: it works on a run
    that was interrupted or is still running. Rounds of a cell are pooled by the median of their
    medians, and only rounds that ended ok count. The speedup is the ratio of medians against
    backend 'none' of the same workload.

    Examples:
      bench show latest
      bench show runs/quickstart --all-rounds
      bench show runs/quickstart --json

    Exit codes:
      0  shown, whatever the outcomes are
      2  there is no run in that folder, it cannot be read, or a record in it is not one of bench
    """
    from bench.cli import run_table

    if json_:
        print_json(run_table.as_json(run_table.read(run, all_rounds=all_rounds)))
        return
    run_table.print_run(run, console(), all_rounds=all_rounds)
