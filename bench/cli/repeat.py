"""``bench repeat``: are equal calls equal, and does memory grow.

Builds a configuration, or adds to one, and from there on everything is as in ``bench run``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.records import Record

if TYPE_CHECKING:
    from bench.passes.repeat.judge import Process, Repeated

FINDING = 1
KIB = 1024


class Deterministic(str, Enum):
    """Which variants of each cell are measured."""

    both = "both"
    off = "off"
    on = "on"
    strict = "strict"


VALUES: Mapping[Deterministic, list[Any]] = {
    Deterministic.both: [False, True],
    Deterministic.off: [False],
    Deterministic.on: [True],
    Deterministic.strict: ["strict"],
}


def repeat(
    workload: Annotated[
        str,
        typer.Argument(
            help="YAML file of a matrix, or a model: ORG/NAME on the Hub, a diffusers folder, "
            "embedded:NAME, synthetic:ARCH.",
            show_default=False,
        ),
    ],
    calls: Annotated[
        int, typer.Option("-n", "--calls", min=2, help="Equal calls in each process.")
    ] = 20,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes whose pictures are compared.")
    ] = 2,
    deterministic: Annotated[
        Deterministic | None,
        typer.Option(
            help="Deterministic algorithms: each cell with both, off, on, or strict.  "
            "[default: what the file says, else both]",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--workload", metavar="NAME", help="Of a file: this one only. Repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="KEY=VALUE,…", help="Of a file: these cells. Repeatable."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a value: a.b=c. Repeatable."),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Of a model: what to draw; for edits, the instruction.")
    ] = "a red house on grass under a blue sky",
    task: Annotated[
        str | None,
        typer.Option(
            help="Of a model: text-to-image, image-to-image or edit.  [default: as bench once]",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Of a model: denoising steps.")] = 10,
    batch: Annotated[int, typer.Option(help="Of a model: pictures for each call.")] = 1,
    compiler: Annotated[str, typer.Option(help="Of a model: a backend.")] = "none",
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda, cuda:N or mps.  [default: the file's, auto]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.  [default: runs/repeat-<name>]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run of the same command.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write the run's report at the end.")
    ] = False,
) -> None:
    """Repeat equal calls: are the pictures equal to the bit, and does memory grow?

    Pictures are compared within a process and between processes, with deterministic algorithms off
    and on. Memory is read after each call; a growth that goes on is a leak.

    \b
    Examples:
      bench repeat embedded:sdxl
      bench repeat configs/repeat.yaml --workload edit -n 40
      bench repeat configs/quickstart.yaml --only backend=none --deterministic off --report

    \b
    Exit codes:
      0    all calls are equal, and there is no leak
      1    pictures differ, memory grows or may grow, or a cell is not ok; it is printed
      2    usage: a wrong option, configuration or folder; nothing was started
      130  interrupted; the same command with --resume goes on
    """  # noqa: D301 - click reads \b as a character
    from rich.console import Console

    from bench import api
    from bench.cli import progress
    from bench.cli import report as reporting
    from bench.config import load_config, make_plan
    from bench.passes.repeat.judge import judge
    from bench.store import StoreError

    changes = [*(overrides or ()), f"repeat={calls}", f"protocol.rounds={processes}"]
    if device is not None:
        changes.append(f"device={device}")
    kept = [*(only or ()), *(f"workload={each}" for each in name or ())]
    config: Path | Mapping[str, Any]
    if workload.endswith((".yaml", ".yml")):
        config = Path(workload)
        axis = _axis(config, deterministic)
        called = make_plan(load_config(config)).name
    else:
        config = of_model(workload, prompt, task, steps, batch, compiler)
        axis = VALUES[deterministic or Deterministic.both]
        called = str(config["name"])
    if axis is not None:
        changes.append(f"matrix.deterministic=[{', '.join(_yaml(value) for value in axis)}]")
    ui = progress.display(Console(stderr=True))
    ui.after_interrupt = "The same command with --resume goes on from there."
    folder = out or Path("runs", called if called.startswith("repeat") else f"repeat-{called}")
    try:
        run = api.run(config, folder, overrides=changes, only=kept, resume=resume, ui=ui)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except StoreError as error:
        if not ui.started:
            raise
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        ui.close()
    by_cell: dict[str, list[Record]] = {}
    for record in run.records:
        by_cell.setdefault(record.cell_id, []).append(record)
    judged = [judge(records, run.path) for records in by_cell.values()]
    for one in judged:
        print("\n".join(lines(one)))
    print(f"Run: {run.path}")
    if report:
        reporting.write([run.path])
    bad = any(one.found or not one.complete for one in judged)
    failed = run.summary.exit_code if run.summary else 0
    raise typer.Exit(failed or (FINDING if bad else 0))


def _axis(config: Path, asked: Deterministic | None) -> list[Any] | None:
    """Return the values of the axis to set, or None to leave a file's own as they are."""
    from bench.config import load_config

    if asked is not None:
        return VALUES[asked]
    document = load_config(config).document
    matrix = document.matrix.given()
    own = "deterministic" in matrix or any(
        "deterministic" in entry.given() for entry in matrix.get("workload", ())
    )
    return None if own else VALUES[Deterministic.both]


def _yaml(value: Any) -> str:
    return str(value).lower()


def of_model(
    model: str, prompt: str, task: str | None, steps: int, batch: int, compiler: str
) -> dict[str, Any]:
    """Return the configuration for a bare model."""
    from bench.cli import once

    source = once.model_source(model)
    short = "".join(c if c.isalnum() else "-" for c in source.partition(":")[2]).strip("-")
    return {
        "name": f"repeat-{short or 'model'}"[:80],
        "protocol": {"preset": "quick"},
        "matrix": {
            "workload": [
                {
                    "name": short or "model",
                    "task": task or once.infer_task(source, None),
                    "model": source,
                    "prompt": prompt,
                    "steps": steps,
                    "batch": batch,
                }
            ],
            "backend": [{"name": compiler}],
        },
    }


def lines(one: Repeated) -> list[str]:
    """Return what to print of a cell: its name, then a line for each question."""
    said = [f"{one.name}: deterministic algorithms {MODES[one.mode]}"]
    said += [f"  {line}" for line in one.failed]
    if one.processes:
        said += [f"  pictures: {pictures(one)}", *map("  different: {}".format, differing(one))]
        said.append(f"  leak: {leak(one)}")
    if one.without:
        said.append(f"  without a deterministic algorithm: {', '.join(one.without)}")
    elif one.mode:
        said.append("  without a deterministic algorithm: no operation that ran")
    return said


MODES: Mapping[bool | str, str] = {False: "off", True: "on", "strict": "on, strictly"}


def pictures(one: Repeated) -> str:
    """Say how many calls were equal, and whether processes were."""
    within = "; ".join(
        f"{p.equal} of {p.calls} calls equal within process {p.number}"
        + (f" ({p.asked} were asked for)" if p.calls != p.asked else "")
        for p in one.processes
    )
    if one.equal_within and one.complete:
        counts = " and ".join(dict.fromkeys(str(p.calls) for p in one.processes))
        within = f"{counts} of {counts} equal within a process"
    between = {
        True: f"{len(one.processes)} processes equal",
        False: f"{len(one.processes)} processes NOT equal",
        None: "one process, so none to compare it with",
    }[one.equal_between]
    return f"{within}; {between}"


def differing(one: Repeated) -> list[str]:
    """Say of each picture that differs where, by how much, and in which place."""
    found = []
    for each in one.differences:
        if each.max_abs is None:
            how = each.why or "by how much is not known"
        else:
            left, top, right, bottom = each.box or (0, 0, 0, 0)
            how = (
                f"by up to {each.max_abs} of 255 in {each.share or 0:.2%} of the pixels, from "
                f"({left}, {top}) to ({right}, {bottom})"
            )
        found.append(f"picture {each.index} {each.where}: {how}")
    return found


def leak(one: Repeated) -> str:
    """Say whether memory grows, by how much an image, and how sure that is."""
    process = one.leak
    if process is None or process.leak is None:
        return "not known, since the memory that is held could not be read"
    return leak_of(process, one.images)


def leak_of(process: Process, images: int) -> str:
    """Say it of one process whose calls make so many pictures."""
    found = process.leak
    assert found is not None
    if found.bytes_per_call is None or found.low is None or found.high is None:
        return f"{found.verdict} ({found.reason})"
    each = KIB * max(1, images)
    figures = (
        f"{found.bytes_per_call / each:+.1f} KiB per image, {found.level:.0%} interval "
        f"{found.low / each:+.1f} to {found.high / each:+.1f}; {process.meter}, process "
        f"{process.number}, {found.calls} calls after settling"
    )
    steps = len(found.steps_bytes)
    if steps:
        total = sum(found.steps_bytes) / KIB
        figures += f"; {steps} step(s) of together {total:+.0f} KiB set aside"
    word = {"leak": "FOUND", "none": "none", "unclear": "unclear"}[found.verdict]
    return f"{word} ({figures})" + (f": {found.reason}" if found.reason else "")
