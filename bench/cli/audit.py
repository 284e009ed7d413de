"""``bench audit``: what is wrong in a table of results, anyone's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.terminal import print_json
from bench.text import plain

FOUND = 1


def audit(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            callback=options.run_paths,
            help="Tables, printed logs or run folders; latest is the newest run.",
            show_default=False,
        ),
    ],
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="HEADER=NAME",
            help="What a column means, for example inference_s=e2e. Repeatable.",
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, with every row's line.")
    ] = False,
) -> None:
    """Reads CSV, Markdown tables, JSON of pytest-benchmark or plain rows, what OneDiff's script
    prints under headings, and our own records. Findings come most important first, each with its
    calculation and with how to verify it; notes are what the table leaves out. docs/audit.md
    explains the checks.

    Examples:
      bench audit results.csv
      bench audit REPORT.md --map "gen time=e2e_ms"
      bench audit latest --json

    Exit codes:
      0  no finding; there may be notes
      1  findings
      2  a file cannot be read, or holds no table
    """
    from bench import audit as auditing
    from bench.audit.render import render

    tables = auditing.audit(files, auditing.user_map(map_ or []))
    if json_:
        print_json(auditing.as_json(tables))
    else:
        from rich.console import Console

        print(plain(render(tables, Console().width)))
    if any(table.findings for table in tables):
        raise typer.Exit(FOUND)
