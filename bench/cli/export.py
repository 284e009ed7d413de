"""``bench export``: a run's figures for notebooks and other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli import options


def export(
    runs: options.Runs,
    format_: Annotated[
        Literal["csv", "parquet", "json", "pytest-benchmark"],
        typer.Option("--format", help="What to write."),
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write.  [default: standard output]")
    ] = None,
) -> None:
    """Columns that begin with cell_ are a cell's pooled figures, as in the report, the same in
    every round of a cell; the others are of the record itself. docs/reading-a-report.md explains
    each of them.

    Examples:
      bench export latest > latest.csv
      bench export runs/quickstart --format parquet --out quickstart.parquet
      bench export runs/quickstart --format pytest-benchmark --out 0001_quickstart.json

    Exit codes:
      0  written
      2  a run cannot be read, a package is missing, or the file cannot be written
    """
    from reports.export import render
    from reports.gather import ReportError

    content = render(runs, format_)
    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        out.write_bytes(content)
    except OSError as error:
        raise ReportError(
            f"{out} cannot be written: {(error.strerror or str(error)).lower()}"
        ) from (error)
