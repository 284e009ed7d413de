"""``bench repeat``: are equal calls equal, and does memory grow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli import options, quick

if TYPE_CHECKING:
    from bench.records import Record

FOUND = 1
VALUES = {"both": "[false, true]", "off": "[false]", "on": "[true]", "strict": "[strict]"}


@quick.verb(
    "model task prompt negative_prompt steps size batch seed scheduler guidance variant dtype "
    "device backend",
    prompt="a red house on grass under a blue sky",
    steps=10,
    batch=1,
    backend="none",
)
def repeat(
    asked: quick.Asked,
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML file of a matrix, instead of --model.", show_default=False),
    ] = None,
    calls: Annotated[
        int, typer.Option("-n", "--calls", min=2, help="Equal calls in each process.")
    ] = 20,
    processes: Annotated[int, typer.Option(min=1, help="Processes whose images are compared.")] = 2,
    deterministic: Annotated[
        Literal["both", "off", "on", "strict"] | None,
        typer.Option(
            help="Deterministic algorithms: each cell with both, off, on, or strict.  "
            "[default: as in the file, else both]",
            show_default=False,
        ),
    ] = None,
    only: options.Only = None,
    overrides: options.Set = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.  [default: runs/repeat-<name>]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted run of the same command.")
    ] = False,
    dry_run: quick.DryRun = False,
    report: options.Report = False,
) -> None:
    """Images are compared within a process and between processes, with deterministic algorithms off
    and on. Memory is read after each call; a growth that goes on is a leak.

    Examples:
      bench repeat --model embedded:sdxl
      bench repeat configs/repeat.yaml --only workload=edit -n 40
      bench repeat configs/quickstart.yaml --only backend=none --deterministic off --report

    Exit codes:
      0    all calls are equal, and there is no leak
      1    images differ, memory grows or may grow, or a cell is not ok; it is printed
      2    usage: a wrong option, configuration or folder; nothing was started
      130  interrupted; the same command with --resume continues it
    """
    from bench.cli import printed
    from bench.cli import report as reporting
    from bench.config import load_config
    from bench.passes.repeat.judge import judge

    matrix, changes = quick.either(asked, config)
    changes = [*(overrides or ()), *changes, f"repeat={calls}", f"protocol.rounds={processes}"]
    of_its_own = False
    if isinstance(matrix, dict):
        matrix["name"] = name = f"repeat-{matrix['name']}"
    else:
        loaded = load_config(matrix)
        name, keys = loaded.name, loaded.document.matrix.given()
        entries = (keys, *(entry.given() for entry in keys.get("workload", ())))
        of_its_own = any("deterministic" in entry for entry in entries)
    if deterministic is not None or not of_its_own:
        changes.append(f"matrix.deterministic={VALUES[deterministic or 'both']}")
    folder = out or Path("runs", name if name.startswith("repeat") else f"repeat-{name}")
    run = quick.measure(
        matrix,
        folder,
        dry_run=dry_run,
        again="with --resume continues it",
        overrides=changes,
        only=only or (),
        resume=resume,
    )
    by_cell: dict[str, list[Record]] = {}
    for record in run.records:
        by_cell.setdefault(record.cell_id, []).append(record)
    judged = [judge(records, run.path) for records in by_cell.values()]
    for one in judged:
        print("\n".join(printed.of_repeat(one)))
    print(f"Run: {run.path}")
    if report:
        reporting.write([run.path])
    bad = any(one.found or not one.complete for one in judged)
    failed = run.summary.exit_code if run.summary else 0
    raise typer.Exit(failed or (FOUND if bad else 0))
