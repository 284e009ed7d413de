"""``bench report``: records to pages and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report.  [default: the first RUN]")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="NAME",
            help="Draw published figures beside measured ones: onediff_t2i_i2i. Repeatable.",
        ),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", metavar="NAME", help="Only this workload. Repeatable."),
    ] = None,
) -> None:
    """Write REPORT.md, report.html and plots/ from stored records.

    Which backend is fastest, by how much, at what cost, and when it pays. Only reads the runs,
    needs neither torch nor a network, and can be repeated on old records at any time. Several runs
    are shown side by side, and compared only where they are alike.

    \b
    Examples:
      bench report runs/quickstart
      bench report runs/monday runs/tuesday --out reports/week
      bench report runs/realvisxl --reference onediff_t2i_i2i

    \b
    Exit codes:
      0  written, whatever the outcomes are
      2  a run cannot be read, a name is wrong, or the folder cannot be written
    """  # noqa: D301 - click reads \b as a character
    write(runs, out, references=reference or (), workloads=workload or ())


def write(
    runs: list[Path],
    out: Path | None = None,
    *,
    references: list[str] | tuple[()] = (),
    workloads: list[str] | tuple[()] = (),
) -> None:
    """Write the report and say where it is; ``bench run --report`` ends with this.

    Raises:
        bench.store.StoreError: see `reports.build.write`.
    """
    from bench.tables import shown_path
    from reports import build

    written = build.write(runs, out, references=references, workloads=workloads)
    typer.echo(f"Report:   {shown_path(written.page)}")
    typer.echo(f"Markdown: {shown_path(written.markdown)}")
