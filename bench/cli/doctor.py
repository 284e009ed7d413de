"""``bench doctor``: what this machine can measure and what not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench import doctor as findings_of


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Show what this machine can measure, what not, and the remedy.

    Changes nothing. Of tokens and keys it tells only whether there are any.

    \b
    Examples:
      bench doctor
      bench doctor --json

    \b
    Exit codes:
      0  cells can run here; limits are named
      1  something is missing, and no cell can run
    """  # noqa: D301 - click reads \b as a character
    from bench import doctor as findings_of

    findings = findings_of.examine()
    if json_:
        print(json.dumps(findings_of.as_json(findings), indent=1))
    else:
        _print(findings)
    raise typer.Exit(0 if findings_of.can_measure(findings) else 1)


def _print(findings: list[findings_of.Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    style = {"ok": "green", "limited": "yellow", "missing": "bold red"}
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        says = Text(finding.says)
        if finding.remedy:
            says.append(f"\n→ {finding.remedy}", style="italic")
        status = Text(finding.status, style=style[finding.status])
        table.add_row(status, Text(finding.topic), says)
    Console(highlight=False).print(table)
