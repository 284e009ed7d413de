"""``bench history``: each figure over many runs, with change points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.terminal import print_table
from bench.text import plural


def history(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Holds run folders or baselines.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to.  [default: DIR/history]")
    ] = None,
) -> None:
    """Runs are found in DIR and below, in order of time, and kept apart by cell and machine. A
    change point is where the level of a figure moved, by a rank test that marks at most 1 % of
    unchanged histories; it takes 10 runs. Counts are exact: each change of one is marked.

    Examples:
      bench history runs
      bench history baselines --out reports/history

    Exit codes:
      0  written
      2  no run in that folder, or the folder cannot be written
    """
    from bench.cli.terminal import shown_path
    from bench.gate import history as histories
    from reports import history as page

    past = histories.read(folder)
    written = page.write(past, out or folder / "history")
    machine = page.COLUMNS.index("machine")
    rows, still = [], 0
    for series, row in zip(past.series, page.summary(past), strict=True):
        if series.unit == "count" and not series.marks:
            still += 1
        else:
            rows.append((*row[:machine], *row[machine + 1 :]))
    print_table([column for column in page.COLUMNS if column != "machine"], rows)
    if still:
        print(f"{plural(still, 'exact count')} never changed.")
    for why in past.unread:
        print(f"Not read: {why}")
    print(f"{plural(past.runs, 'run')}: {shown_path(written)}")
