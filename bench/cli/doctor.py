"""``bench doctor``: what this machine can measure and what not."""

from __future__ import annotations

import typer

from bench.cli import options
from bench.cli.terminal import STYLES, print_json, print_table


def doctor(json_: options.Json = False) -> None:
    """Changes nothing. Of tokens and keys it tells only whether there are any.

    Examples:
      bench doctor
      bench doctor --json

    Exit codes:
      0  cells can run here; limits are named
      1  something is missing, and no cell can run
    """
    from rich.text import Text

    from bench import doctor as checks

    findings = checks.examine()
    if json_:
        print_json(checks.as_json(findings))
    else:
        print_table(
            (),
            (
                (
                    Text(finding.status, style=STYLES[finding.status]),
                    finding.topic,
                    Text.assemble(
                        finding.says,
                        (f"\n→ {finding.remedy}" if finding.remedy else "", "italic"),
                    ),
                )
                for finding in findings
            ),
        )
    raise typer.Exit(0 if checks.can_measure(findings) else 1)
