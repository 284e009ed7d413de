"""``bench history``: each figure over many runs, with change points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def history(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Holds run folders or baselines.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to.  [default: DIR/history]")
    ] = None,
) -> None:
    """Draw each figure over the runs of a folder, with change points marked.

    Runs are found in DIR and below, in order of time, and kept apart by cell and machine. A change
    point is where the level of a figure moved, by a rank test that marks at most 1 % of unchanged
    histories; it takes 10 runs. Counts are exact: each change of one is marked.

    \b
    Examples:
      bench history runs
      bench history baselines --out reports/history

    \b
    Exit codes:
      0  written
      2  no run in that folder, or the folder cannot be written
    """  # noqa: D301 - click reads \b as a character
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from bench.gate import history as histories
    from bench.records.terminal import shown_path
    from reports import history as page

    found = histories.read(folder)
    written = page.write(found, out or folder / "history")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in page.COLUMNS:
        if column != "machine":
            table.add_column(column, overflow="fold")
    still = 0
    for series, (cell, _, *rest) in zip(found.series, page.summary(found), strict=True):
        if series.unit == "count" and not series.marks:
            still += 1
        else:
            table.add_row(Text(cell), *map(Text, rest))
    console = Console()
    console.print(table, highlight=False)
    if still:
        console.print(f"{still} exact counts never changed.", highlight=False)
    for why in found.unread:
        console.print(f"Not read: {why}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{found.runs} runs: {shown_path(written)}", soft_wrap=True, highlight=False)
