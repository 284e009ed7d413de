"""``bench export``: a run's figures for notebooks and other tools."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(str, Enum):
    """What can be written."""

    csv = "csv"
    parquet = "parquet"
    json = "json"
    pytest_benchmark = "pytest-benchmark"


def export(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)
    ],
    format_: Annotated[
        Format, typer.Option("--format", help="csv, parquet, json or pytest-benchmark.")
    ] = Format.csv,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write.  [default: standard output]")
    ] = None,
) -> None:
    """Write one flat table: a row for each record, unrounded, with its cell's pooled figures.

    Columns that begin with cell_ are those of the report, the same in every round of a cell; the
    others are of the record itself. docs/reading-a-report.md explains each of them.

    \b
    Examples:
      bench export runs/quickstart > quickstart.csv
      bench export runs/quickstart --format parquet --out quickstart.parquet
      bench export runs/quickstart --format pytest-benchmark --out 0001_quickstart.json

    \b
    Exit codes:
      0  written
      2  a run cannot be read, a package is missing, or the file cannot be written
    """  # noqa: D301 - click reads \b as a character
    from reports.export import render
    from reports.gather import ReportError

    content = render(runs, format_.value)
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
