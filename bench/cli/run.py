"""``bench run``: measure a matrix, then show its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli import options

if TYPE_CHECKING:
    from bench.records import Record


def run(
    config: options.Config,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder.  [default: runs/<name>]")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show cells, estimated time and disk; start nothing."),
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="With --dry-run: show every cell of a long plan.")
    ] = False,
    json_: Annotated[
        bool,
        typer.Option("--json", help="With --dry-run: print every cell with all its values."),
    ] = False,
    overrides: options.Set = None,
    only: options.Only = None,
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
        Literal["auto", "fork", "spawn"],
        typer.Option("--start", help="Fork workers from a template, or spawn each afresh."),
    ] = "auto",
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
    no_sync: options.NoSync = False,
    report: options.Report = False,
    quiet: options.Quiet = False,
) -> None:
    """With --dry-run nothing is started, and of models only folders of this machine are looked at:
    with equal input files, the plan is the same everywhere.

    Environments that backends need and that are not ready are built first, after a line that says
    which and how large. Results go to records.jsonl in the run folder as they come, so that
    Ctrl-C, a crash or a full disk loses at most the cell under way; --resume continues the run.

    Examples:
      bench run configs/quickstart.yaml
      bench run configs/quickstart.yaml --dry-run
      bench run configs/quickstart.yaml --dry-run --json
      bench run configs/quickstart.yaml --report
      bench run configs/quickstart.yaml --resume
      bench run configs/quickstart.yaml --retry oom,failed
      bench run configs/realvisxl.yaml --only backend=none --set protocol.rounds=1
      bench run configs/realvisxl.yaml --device cuda:0,cuda:1 --out /data/realvisxl

    Exit codes:
      0    every cell is ok; with --dry-run, the configuration can be run
      1    some cell is not ok, or a record could not be stored
      2    usage: a wrong option, configuration or folder; nothing was started
      130  interrupted
    """
    if dry_run:
        from bench.cli import dry_run as planned
        from bench.config import load_config, make_plan

        plan = make_plan(load_config(config, overrides or (), only or ()))
        if json_:
            planned.show_json(plan)
        else:
            planned.show(plan, every=every)
        return
    for asked, flag in ((json_, "--json"), (every, "--all")):
        if asked:
            raise typer.BadParameter("needs --dry-run", param_hint=flag)
    from bench import api
    from bench.cli import progress, run_table
    from bench.cli import report as reporting
    from bench.cli.terminal import console as terminal_console

    console = terminal_console()
    ui = progress.display(console, quiet=quiet)
    with progress.measuring(ui):
        measured = api.run(
            config,
            out,
            overrides=overrides or (),
            only=only or (),
            resume=resume,
            retry=_split(retry),
            devices=_split(device),
            start=start,
            allow_other_host=allow_other_host,
            skip_dominated=not no_skip,
            sync=not no_sync,
            ui=ui,
        )
    run_table.print_run(measured.path, console)
    for line in afterword(measured.records, measured.path):
        typer.echo(line)
    if report:
        reporting.write([measured.path])
    raise typer.Exit(measured.summary.exit_code if measured.summary else 0)


def afterword(records: Sequence[Record], run_dir: Path) -> list[str]:
    """Return the lines below the table on cells that are not ok: none if all are.

    Where none is, the reasons are listed too, each with its count, since they are all there is.
    """
    from bench.cli.terminal import shown_path

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
    lines.append(f"Worker logs: {shown_path(run_dir / 'logs')}")
    again = [outcome for outcome in outcomes if outcome != "unsupported"]
    if again:
        lines.append(
            "After fixing the cause, the same command measures these again with "
            f"--retry {','.join(again)}"
        )
    return lines


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
