"""``bench audit``: what is wrong in a table of results, anyone's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

FOUND = 1


def audit(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Tables, printed logs or run folders.", show_default=False
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
    """Find what cannot be true, or cannot be compared, in a table of results.

    Reads CSV, Markdown tables, JSON of pytest-benchmark or plain rows, what OneDiff's script prints
    under headings, and our own records. Findings are wrong, weightiest first, each with its sum and
    with what would settle it; notes are what the table leaves out. docs/audit.md explains the
    checks.

    \b
    Examples:
      bench audit results.csv
      bench audit REPORT.md --map "gen time=e2e_ms"
      bench audit runs/quickstart --json

    \b
    Exit codes:
      0  no finding; there may be notes
      1  findings
      2  a file cannot be read, or holds no table
    """  # noqa: D301 - click reads \b as a character
    from bench import audit as auditing
    from bench.audit.render import render

    found = auditing.audit(files, auditing.user_map(map_ or []))
    if json_:
        print(json.dumps(auditing.as_json(found), indent=1, ensure_ascii=False))
    else:
        from rich.console import Console

        print(render(found, Console().width))
    if any(one.findings for one in found):
        raise typer.Exit(FOUND)
