"""``bench run``: measure a matrix, then show its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import api
from bench.cli import progress
from bench.cli import report as reporting
from bench.records import Record, terminal
from bench.runner import RunnerError
from bench.store import StoreError


class Start(str, Enum):
    """How workers are started."""

    auto = "auto"
    fork = "fork"
    spawn = "spawn"


def run(
    config: Annotated[Path, typer.Argument(help="YAML file of the matrix.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder.  [default: runs/<name>]")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a value: a.b=c. Repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="KEY=VALUE,…", help="Keep only cells that agree. Repeatable."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Add what is missing, or what a change of the plan or its files undid."
        ),
    ] = False,
    retry: Annotated[
        str, typer.Option("--retry", metavar="OUTCOME,…", help="Measure these of a run once more.")
    ] = "",
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME,…",
            help="For cells whose device is auto or cuda; several GPUs work at the same time.",
        ),
    ] = "",
    start: Annotated[
        Start, typer.Option("--start", help="Fork workers from a template, or spawn each afresh.")
    ] = Start.auto,
    allow_other_host: Annotated[
        bool,
        typer.Option(
            "--allow-other-host", help="Resume although machine or software have changed."
        ),
    ] = False,
    no_skip: Annotated[
        bool,
        typer.Option(
            "--no-skip",
            help="Run cells too that ask for more than one that ran out of memory.",
        ),
    ] = False,
    no_sync: Annotated[
        bool,
        typer.Option(
            "--no-sync",
            help="Build no environment; cells that need one that is not ready are unavailable.",
        ),
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write the run's report at the end.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only the table.")
    ] = False,
) -> None:
    """Run a matrix: every cell in a process of its own, then a table.

    Environments that backends need and that are not ready are built first, after a line that says
    which and how large.

    Results go to records.jsonl in the run folder as they come, so that Ctrl-C, a crash or a full
    disk loses at most the cell under way; --resume goes on from there.

    \b
    Examples:
      bench run configs/quickstart.yaml
      bench run configs/quickstart.yaml --report
      bench run configs/quickstart.yaml --resume
      bench run configs/quickstart.yaml --retry oom,failed
      bench run configs/realvisxl.yaml --only backend=none --set protocol.rounds=1
      bench run configs/realvisxl.yaml --device cuda:0,cuda:1 --out /data/realvisxl

    \b
    Exit codes:
      0    every cell is ok
      1    some cell is not ok, or a record could not be stored
      2    usage: a wrong option, configuration or folder; nothing was started
      130  interrupted
    """  # noqa: D301 - \b keeps typer from joining lines
    console = Console()
    ui = progress.display(console, quiet=quiet)
    try:
        measured = api.run(
            config,
            out,
            overrides=overrides or (),
            only=only or (),
            resume=resume,
            retry=_split(retry),
            devices=_split(device),
            start=start.value,
            allow_other_host=allow_other_host,
            skip_dominated=not no_skip,
            sync=not no_sync,
            ui=ui,
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (RunnerError, StoreError) as error:
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(1 if ui.started and isinstance(error, StoreError) else 2) from None
    finally:
        ui.close()
    terminal.print_run(measured.path, console)
    for line in afterword(measured.records, measured.path):
        typer.echo(line)
    if report:
        reporting.write([measured.path])
    raise typer.Exit(measured.summary.exit_code if measured.summary else 0)


def afterword(records: Sequence[Record], run_dir: Path) -> list[str]:
    """Return what to say below the table about cells that are not ok: nothing if all are.

    Where none is, the reasons are said here too, each with its count, since they are all there is.
    """
    bad = [record for record in records if record.outcome != "ok"]
    if not bad:
        return []
    outcomes = Counter(record.outcome for record in bad)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    lines = []
    if len(bad) < len(records):
        lines.append(f"{len(records) - len(bad)} of {len(records)} measurements are ok; {counted}.")
    else:
        lines.append(f"No measurement is ok: {counted}.")
        reasons = Counter(f"{each.outcome}: {each.reason}" for each in bad)
        lines += [f"  {count} x {reason}" for reason, count in reasons.most_common()]
    lines.append(f"What the workers said: {terminal.shown_path(run_dir / 'logs')}")
    again = [outcome for outcome in outcomes if outcome != "unsupported"]
    if again:
        lines.append(
            "Once the cause is mended, the same command measures these again with "
            f"--retry {','.join(again)}"
        )
    return lines


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
