"""``bench baseline save|list|show``: the files that later runs are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli import options
from bench.cli.compare import BASELINES
from bench.cli.terminal import print_json, print_table
from bench.text import plural

if TYPE_CHECKING:
    from bench.gate.measured import Baseline


def baseline(
    action: Annotated[Literal["save", "list", "show"], typer.Argument(show_default=False)],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|NAME]", help="The run to save (or latest), or the baseline to show."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What to call it (save).")
    ] = None,
    folder: Annotated[Path, BASELINES] = Path("baselines"),
    json_: Annotated[bool, typer.Option("--json", help="Print JSON (list, show).")] = False,
) -> None:
    """A baseline is one JSON file for each machine fingerprint, DIR/NAME/FINGERPRINT.json, with raw
    samples of every process and where they come from. Commit it, or keep it in an artifact store.

    Examples:
      bench baseline save runs/quickstart --as quickstart
      bench baseline list
      bench baseline show quickstart

    Exit codes:
      0  done
      2  a run or baseline cannot be read or written, or a run is not fit to be one
    """
    from msgspec import to_builtins

    from bench.gate import GateError, baselines

    if action == "save":
        if target is None or name is None:
            raise GateError("save needs a run and a name: bench baseline save RUN --as NAME")
        path = baselines.save(options.run_path(Path(target)), name, folder)
        typer.echo(f"Saved {_line(baselines.read(path))}")
        typer.echo(f"File: {path}")
        return
    if name is not None:
        raise GateError(f"--as belongs to save; write bench baseline {action} NAME")
    if action == "show" and target is None:
        raise GateError("show needs a name: bench baseline show NAME")
    entries = baselines.every(folder) if target is None else baselines.of_name(target, folder)
    if json_:
        print_json(to_builtins(entries, order="sorted"))
        return
    for entry in entries:
        typer.echo(_line(entry))
        if action == "show":
            print_table(HEADINGS, _rows(entry), right=range(1, len(HEADINGS)))
    if action == "list" and not entries:
        typer.echo(f"{folder}/ has no baseline; bench baseline save RUN --as NAME makes one.")


HEADINGS = ("cell", "end-to-end", "between / within processes", "graphs", "breaks", "calls")


def _line(entry: Baseline) -> str:
    facts = entry.provenance()
    return (
        f"{entry.name}  machine {entry.machine}  {plural(len(entry.cells), 'cell')}  "
        f"{facts['n']}  commit {facts['commit']}  saved {entry.saved_utc}"
    )


def _rows(entry: Baseline) -> Iterator[tuple[str, ...]]:
    from bench.stats import bootstrap

    for name, cell in entry.cells.items():
        if not cell.good:
            outcome = cell.processes[0].outcome if cell.processes else "missing"
            yield name, outcome, "–", "–", "–", "–"
            continue
        summary = bootstrap.arm_summary([process.e2e_s for process in cell.good])
        counts = cell.good[0].counts
        yield (
            name,
            f"{summary.median_s:.4g} s",
            f"{_pct(summary.between_pct)} / {_pct(summary.within_pct)}",
            str(counts.graphs),
            str(counts.graph_breaks),
            str(counts.denoiser_calls),
        )


def _pct(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"
