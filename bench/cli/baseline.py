"""``bench baseline save|list|show``: the files that later runs are compared with."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Action(str, Enum):
    """What to do with baselines."""

    save = "save"
    list = "list"
    show = "show"


def baseline(
    action: Annotated[Action, typer.Argument(help="save, list or show.", show_default=False)],
    target: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|NAME]", help="The run to save, or the baseline to show."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What to call it (save).")
    ] = None,
    folder: Annotated[
        Path, typer.Option("--baselines", metavar="DIR", help="Where baselines are kept.")
    ] = Path("baselines"),
    json_: Annotated[bool, typer.Option("--json", help="Print JSON (list, show).")] = False,
) -> None:
    """Keep a run as a baseline, list baselines, or show one.

    A baseline is one JSON file for each machine fingerprint, DIR/NAME/FINGERPRINT.json, with raw
    samples of every process and where they come from. Commit it, or keep it in an artifact store.

    \b
    Examples:
      bench baseline save runs/quickstart --as quickstart
      bench baseline list
      bench baseline show quickstart

    \b
    Exit codes:
      0  done
      2  a run or baseline cannot be read or written, or a run is not fit to be one
    """  # noqa: D301 - click reads \b as a character
    from bench.gate import GateError, baselines

    if action is Action.save:
        if target is None or name is None:
            raise GateError("save needs a run and a name: bench baseline save RUN --as NAME")
        entry = baselines.save(Path(target), name, folder)
        typer.echo(f"Saved {_line(entry)}")
        typer.echo(f"File: {entry.path}")
        return
    if name is not None:
        raise GateError(f"--as belongs to save; write bench baseline {action.value} NAME")
    if action is Action.show and target is None:
        raise GateError("show needs a name: bench baseline show NAME")
    found = baselines.every(folder) if target is None else baselines.of_name(target, folder)
    if json_:
        typer.echo(json.dumps([entry.content for entry in found], indent=1, ensure_ascii=False))
    elif action is Action.list:
        for entry in found:
            typer.echo(_line(entry))
        if not found:
            typer.echo(f"{folder}/ has no baseline; bench baseline save RUN --as NAME makes one.")
    else:
        for entry in found:
            _show(entry)


def _line(entry: object) -> str:
    from bench.gate import baselines, compare

    assert isinstance(entry, baselines.Entry)
    facts = compare.provenance(entry.content)
    return (
        f"{entry.name}  machine {entry.machine}  {len(entry.content['cells'])} cell(s)  "
        f"{facts['n']}  commit {facts['commit']}  saved {entry.content['saved_utc']}"
    )


def _show(entry: object) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from bench.gate import baselines, measured
    from bench.stats import bootstrap

    assert isinstance(entry, baselines.Entry)
    console = Console()
    console.print(_line(entry), soft_wrap=True, highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("cell", "end-to-end", "between / within processes", "graphs", "breaks", "calls"):
        table.add_column(title, justify="left" if title == "cell" else "right", overflow="fold")
    for name, cell in entry.content["cells"].items():
        good = measured.good(cell)
        if not good:
            table.add_row(name, cell["processes"][0]["outcome"], "–", "–", "–", "–")
            continue
        summary = bootstrap.arm_summary([process["e2e_s"] for process in good])
        counts = good[0]["counts"]
        table.add_row(
            name,
            f"{summary.median_s:.4g} s",
            f"{_pct(summary.between_pct)} / {_pct(summary.within_pct)}",
            str(counts["graphs"]),
            str(counts["graph_breaks"]),
            str(counts["denoiser_calls"]),
        )
    console.print(table, highlight=False, markup=False)


def _pct(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"
