"""``bench gate``: measure, compare, confirm, and one exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.compare import (
    ACKNOWLEDGE,
    BASELINES,
    FAIL_ON,
    FORMAT,
    IMPLAUSIBLE,
    OUT,
    Format,
    write,
)


def gate(
    config: options.Config,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="NAME", help="Baseline to compare with.")
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Measure the baseline too, in turn with the candidate.")
    ] = False,
    base_checkout: Annotated[
        Path | None,
        typer.Option("--base-checkout", metavar="DIR", help="Baseline's code, with --paired."),
    ] = None,
    base_python: Annotated[
        Path | None,
        typer.Option("--base-python", metavar="PYTHON", help="Baseline's interpreter."),
    ] = None,
    new_checkout: Annotated[
        Path | None,
        typer.Option("--checkout", metavar="DIR", help="Candidate's code.  [default: here]"),
    ] = None,
    new_python: Annotated[
        Path | None,
        typer.Option("--python", metavar="PYTHON", help="Candidate's.  [default: this one]"),
    ] = None,
    fail_on: Annotated[str | None, FAIL_ON] = None,
    overrides: options.Set = None,
    only: options.Only = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Folder for runs.  [default: runs/gate/<time>]")
    ] = None,
    format_: Annotated[Format | None, FORMAT] = None,
    out: Annotated[list[Path] | None, OUT] = None,
    folder: Annotated[Path, BASELINES] = Path("baselines"),
    acknowledge: Annotated[list[str] | None, ACKNOWLEDGE] = None,
    implausible: Annotated[float, IMPLAUSIBLE] = 30.0,
    quiet: options.Quiet = False,
) -> None:
    """What looks slower or larger is measured a second time before anything fails. With --paired
    the baseline arm is measured in the same session, round by round in turn with the candidate,
    from another checkout (--base-checkout) or another environment (--base-python). docs/ci.md.

    Examples:
      bench gate configs/ci-cpu.yaml --baseline ci-cpu --fail-on counts
      bench gate configs/ci-gpu.yaml --paired --base-checkout ../main
      bench gate configs/ci-gpu.yaml --paired --base-python ../torch-2.12/bin/python

    Exit codes:
      0    passed
      1    regression, confirmed
      2    usage: a wrong option, configuration or folder; nothing was started
      3    not comparable, unclear, or an improvement that nobody acknowledged
      130  interrupted
    """
    from rich.console import Console

    from bench.cli import progress
    from bench.gate import GateError, limits
    from bench.gate import run as gating

    asked = gating.Request(
        config=config,
        out=runs or gating.default_out(),
        overrides=overrides or (),
        only=only or (),
        limits=limits.parse(fail_on),
        acknowledged=acknowledge or (),
        implausible_pct=implausible,
    )
    arms = [base_checkout, base_python, new_checkout, new_python]
    if not paired and any(arms):
        raise GateError("--base-checkout, --base-python, --checkout and --python need --paired.")
    if not paired and baseline is None:
        raise GateError("say what to compare with: --baseline NAME, or --paired with a second arm.")
    ui = progress.display(Console(stderr=True), quiet=quiet)
    with progress.measuring(ui):
        if paired:
            outcome = gating.paired(
                asked,
                gating.Arm("baseline", base_checkout, base_python),
                gating.Arm("candidate", new_checkout, new_python),
                stored=None if baseline is None else (baseline, folder),
                say=(lambda _: None) if quiet else ui.note,
            )
        else:
            assert baseline is not None
            outcome = gating.against_baseline(asked, baseline, folder, ui=ui, say=ui.note)
    extra = [outcome.against_stored] if outcome.against_stored is not None else []
    write([outcome.found, *extra], format_, out or [])
    raise typer.Exit(outcome.exit_code)
