"""``bench capacity``: the largest batch and size that fit, their memory's law, the best batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench import api, comparable
from bench.capacity import findings, planned
from bench.capacity import trials as tried
from bench.capacity.findings import GIB
from bench.capacity.search import Search
from bench.cli import progress
from bench.cli import report as reporting
from bench.config import Plan, load_config, make_plan, parse_config, sizes
from bench.config.values import MAX_BATCH, MAX_SIDE
from bench.contract import Cell, Record
from bench.records.terminal import shown_path
from bench.runner import RunnerError, Task
from bench.runner.devices import Machine, Unsupported
from bench.store import RunFolder, StoreError


class What(str, Enum):
    """What to search for."""

    both = "both"
    batch = "batch"
    size = "size"


PROMPT = "a big red house on grass in the middle under a blue sky"
STEPS = 2
PROTOCOL = {
    "preset": "quick",
    "warmup": {"min_calls": 2, "max_calls": 2, "stable_pct": 50.0},
    "calls": {"min_calls": 2, "max_calls": 5, "time_cap": "10s"},
}
"""A trial's peak is there after the first calls; the others are for the time of a picture."""


def capacity(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="YAML file; cells that differ in batch and size only are one search.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead of a file: hub:ORG/NAME, path:DIR, embedded:NAME, …"),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            help="Memory that there is: 8GiB. On a CPU against the worker's rss, and needed; on "
            "CUDA what torch may reserve.  [default on CUDA: the device's memory]",
            show_default=False,
        ),
    ] = None,
    what: Annotated[What, typer.Option(help="What to search for.")] = What.both,
    aspect: Annotated[
        str | None,
        typer.Option(
            help="Shape of the sizes tried, WIDTH:HEIGHT.  [default: of the size it begins at]",
            show_default=False,
        ),
    ] = None,
    multiple: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Sides tried are multiples of this many pixels.  [default: what a folder's model "
            "makes, 8 for any other]",
            show_default=False,
        ),
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, max=MAX_BATCH, help="Largest batch that is tried.")
    ] = 256,
    max_side: Annotated[
        int, typer.Option(min=64, max=MAX_SIDE, help="Largest height that is tried, pixels.")
    ] = 4096,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change a value, as in bench run: defaults.steps=4, defaults.dtype=float16.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="KEY=VALUE,…", help="Keep only cells that agree."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder.  [default: runs/capacity-<name>]", show_default=False),
    ] = None,
    no_sync: Annotated[
        bool, typer.Option("--no-sync", help="Build no environment that is not ready.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write the run's report at the end.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Find the largest batch and size that fit, and what memory they take.

    Every trial is a process of its own and a record of the run folder: the same command goes on
    where it was interrupted, and what ran out of memory once is not tried again. Then it says which
    law the memory follows, what common cards would hold (a prediction), and the batch with the
    least time for a picture.

    \b
    Examples:
      bench capacity --model embedded:sdxl --limit 600MiB
      bench capacity configs/capacity.yaml
      bench capacity configs/capacity.yaml --limit 700MiB --what batch
      bench capacity --model hub:stabilityai/stable-diffusion-xl-base-1.0 --limit 12GiB
      bench capacity --model hub:runwayml/stable-diffusion-v1-5 --aspect 16:9 --multiple 64

    \b
    Exit codes:
      0    every search has its answer
      1    some search has none; the reason is printed
      2    usage: a wrong option, configuration or folder; nothing was started
      130  interrupted
    """  # noqa: D301 - click reads \b as a character
    shape = None if aspect is None else _aspect(aspect)
    if multiple is not None and multiple % 8:
        raise typer.BadParameter("must be a multiple of 8", param_hint="--multiple")
    plan = _plan(config, model, limit, list(overrides or ()), list(only or ()), device)
    folder = out or Path("runs", f"capacity-{plan.name}")
    console = Console()
    shown = _Trials(console, quiet)
    step = multiple or planned.multiple_of(plan.cells)
    search = {"multiple": step, "aspect": shape}
    hunt = _Hunt(plan.name, folder, shown, search, sync=not no_sync)
    bounds = {"batch": max_batch, "side": max_side}
    stopped: list[str] = []
    try:
        for subject in planned.subjects(plan.cells):
            stopped += _searched(hunt, subject, what, shape, step, bounds)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (RunnerError, StoreError) as error:
        typer.echo(f"bench: {error}", err=True)
        started = shown.started and isinstance(error, StoreError)
        raise typer.Exit(1 if started else 2) from None
    finally:
        shown.close()
    keys = {_key(subject.cell) for subject in planned.subjects(plan.cells)}
    found = findings.capacities(
        [tried.of_record(r) for r in hunt.records.values() if _key(r["cell"]) in keys],
        searches=lambda _: search,
    )
    for each in found:
        typer.echo("")
        for line in told(each):
            typer.echo(line)
    for line in stopped:
        typer.echo(f"bench: {line}", err=True)
    typer.echo(f"\nRun: {shown_path(folder)}")
    if report:
        reporting.write([folder])
    raise typer.Exit(1 if stopped else 0)


def told(found: findings.Capacity) -> list[str]:
    """Return what to print of one search."""
    limit = "the device's own memory" if found.limit_bytes is None else _gib(found.limit_bytes)
    lines = [
        f"{found.name}: limit {limit}, meter {found.meter}, {findings.counted(found)}",
        f"  {findings.limit_says(found.batches, 'batch')}",
        f"  {findings.limit_says(found.sizes, 'size')}",
        f"  {findings.law_says(found)}",
    ]
    if found.per_image:
        lines.append(f"  time for a picture at {findings.size_text(found.base)}, by batch:")
        for each in found.per_image:
            interval = ""
            if each.time.low is not None and each.time.high is not None:
                level = 100 * each.time.achieved_level
                interval = f"  [{each.time.low:.3g} to {each.time.high:.3g}, {level:.3g} %]"
            mark = "  <- least" if each is found.best else ""
            lines.append(f"    {each.batch:>5}  {each.time.median:.3g} s{interval}{mark}")
    lines.append(f"  best batch: {found.best_says}")
    if found.cards:
        lines.append(f"  predicted by the law, not measured; {found.reserve_says}:")
        side = f"size at batch {found.base_batch}"
        lines.append(
            f"    {'card':>7}  {'batch at ' + findings.size_text(found.base):>18}  {'surely':>7}  "
            f"{side:>16}  {'surely':>10}"
        )
        for card in found.cards:
            beyond = "  beyond what was measured" if card.beyond else ""
            sure = "-" if card.sure_batch is None else str(card.sure_batch)
            lines.append(
                f"    {card.gib:>3} GiB  {card.batch:>18}  {sure:>7}  {_size(card.side):>16}  "
                f"{_size(card.sure_side):>10}{beyond}"
            )
    return lines


def _size(size: tuple[int, int] | None) -> str:
    return "-" if size is None else findings.size_text(size)


def _gib(amount: int) -> str:
    return f"{amount / GIB:.4g} GiB"


def _aspect(text: str) -> float:
    """Return width over height."""
    width, _, height = text.partition(":")
    try:
        value = float(width) / float(height)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(
            "write it as WIDTH:HEIGHT, such as 16:9", param_hint="--aspect"
        ) from None
    if not 1 / 16 <= value <= 16:
        raise typer.BadParameter("must be from 1:16 to 16:1", param_hint="--aspect")
    return value


def _plan(
    config: Path | None,
    model: str | None,
    limit: str | None,
    overrides: list[str],
    only: list[str],
    device: str | None,
) -> Plan:
    """Return the plan of what is searched, with the limit where the device has its meter."""
    if (config is None) == (model is None):
        raise typer.BadParameter("give a configuration or --model, one of them")
    if device is not None:
        overrides.append(f"device={device}")

    def made(more: Sequence[str]) -> Plan:
        changes = [*overrides, *more]
        if config is not None:
            return make_plan(load_config(config, changes, only))
        return make_plan(parse_config(_flags(str(model)), changes, only))

    plan = made([])
    where = {_device(cell) for cell in plan.cells}
    if limit is not None:
        if len({each.startswith("cuda") for each in where}) > 1:
            raise typer.BadParameter(
                "the cells are on a CPU and a GPU; one limit cannot be meant for both, so use "
                "--only device=…",
                param_hint="--limit",
            )
        key = "device_memory" if next(iter(where)).startswith("cuda") else "rss"
        plan = made([f"limits.{key}={limit}"])
    for cell in plan.cells:
        if not _device(cell).startswith("cuda") and "rss_bytes" not in cell["limits"]:
            raise typer.BadParameter(
                "on a CPU, say how much memory there is, such as --limit 2GiB: a search without "
                "a limit would make this machine swap",
                param_hint="--limit",
            )
    return plan


def _flags(model: str) -> dict[str, Any]:
    name = "".join(c if c.isalnum() else "-" for c in model.partition(":")[2].split("@")[0])
    name = name.strip("-").rpartition("--")[2][-60:].strip("-") or "model"
    task = "edit" if "pix2pix" in model.lower() else "text-to-image"
    return {
        "name": name,
        "protocol": PROTOCOL,
        "limits": {"timeout": "10m"},
        "defaults": {"task": task, "model": model, "prompt": PROMPT, "steps": STEPS},
        "matrix": {"workload": [{"name": name}]},
    }


def _device(cell: Cell) -> str:
    found = Machine(os.environ).resolve(cell["device"])
    if isinstance(found, Unsupported):
        raise RunnerError(f"{found.reason[0].upper()}{found.reason[1:]}.")
    if found == "mps":
        raise RunnerError(
            "There is no meter of memory for mps, so nothing says what fits; use --device cpu."
        )
    return found


class _Trials(progress.Notes):
    """One line for each trial."""

    after_interrupt = "The same command goes on from here."

    def __init__(self, console: Console, quiet: bool) -> None:
        super().__init__(console)
        self._quiet = quiet

    def cell_finished(self, task: Task, record: Record) -> None:
        if self._quiet:
            return
        trial = tried.of_record(record)
        text = f"batch {trial.batch} at {findings.size_text(trial.size)}: "
        if trial.answer == "fits" and trial.peak_bytes is not None:
            text += f"fits, {_gib(trial.peak_bytes)}"
        elif trial.answer == "fits":
            text += "fits"
        else:
            text += f"{trial.outcome}: {trial.reason}"
        self.print(f"{text}  ({record['process']['wall_s']:.1f} s)")


def _key(cell: Mapping[str, Any]) -> str:
    return comparable.but_for_size(cell, cell["device"])


class _Hunt:
    """The run folder of a search: measures what is wanted and not there yet."""

    def __init__(
        self, name: str, folder: Path, ui: _Trials, search: Mapping[str, Any], *, sync: bool
    ) -> None:
        self.name, self.folder, self._ui, self._sync = name, folder, ui, sync
        self._search = search
        self.records: dict[str, Record] = {}
        self._cells: list[Cell] = []
        if RunFolder.holds_run(folder):
            # Trials of earlier searches stay in the plan, so that they are remembered and shown.
            self._cells = list(RunFolder.open(folder).plan.get("cells", []))
            self._read()

    def ask(self, cells: Sequence[Cell]) -> list[Record | None]:
        """Return the record of each cell; None for one that was not measured."""
        self._cells += cells
        if any(cell["cell_id"] not in self.records for cell in cells):
            run = api.measure(
                planned.plan_of(self.name, self._cells, self._search), self.folder, resume=True,
                ui=self._ui, sync=self._sync,
            )  # fmt: skip
            self.folder = run.path
            self._read()
        return [self.records.get(cell["cell_id"]) for cell in cells]

    def _read(self) -> None:
        found: dict[str, Record] = {}
        for record in RunFolder.open(self.folder).raw_records():
            # Of several rounds, one that ran out of memory decides: it need not fit every time.
            known = found.get(record["cell_id"])
            if known is None or known["outcome"] == "ok":
                found[record["cell_id"]] = record
        self.records = found


def _searched(
    hunt: _Hunt,
    subject: planned.Subject,
    what: What,
    shape: float | None,
    multiple: int,
    bounds: dict[str, int],
) -> list[str]:
    """Search for one subject; return why there is no answer, a sentence for each search."""
    base_height, base_width = subject.size
    aspect = shape or base_width / base_height
    stopped = []
    if what is not What.size:
        start = min(subject.batch, bounds["batch"])
        search = Search(start, most=bounds["batch"])
        _drive(hunt, subject, search, lambda n: (n, base_height, base_width))
        stopped += _why(search, "batch", subject)
    if what is not What.batch:
        most = bounds["side"] // multiple
        start = min(max(base_height // multiple, 1), most)
        least = -(-64 // multiple)
        search = Search(max(start, least), least=least, most=most)
        _drive(
            hunt,
            subject,
            search,
            lambda n: (subject.batch, *sizes.scaled(n, multiple, aspect)),
        )
        stopped += _why(search, "size", subject)
    return stopped


def _drive(
    hunt: _Hunt, subject: planned.Subject, search: Search, point: Callable[[int], planned.Point]
) -> None:
    """Try what ``search`` wants until it is done; ``point`` makes (batch, height, width) of it."""
    while True:
        numbers = search.wave(_guess(hunt, subject, point, search))
        if not numbers:
            return
        points = [point(number) for number in numbers]
        cells = planned.trials(subject, points)
        records = hunt.ask([cells[each] for each in points])
        for number, record in zip(numbers, records, strict=True):
            if record is None:
                search.tell(number, "unknown", "the trial has no record")
            else:
                trial = tried.of_record(record)
                search.tell(number, trial.answer, f"{trial.outcome}: {trial.reason}")


def _guess(
    hunt: _Hunt, subject: planned.Subject, point: Callable[[int], planned.Point], search: Search
) -> int | None:
    """Return the largest number that a law through the trials so far lets into the limit."""
    if search.fits is None or search.fails is None:
        return None
    limits = subject.cell["limits"]
    limit = limits.get("device_bytes") or limits.get("rss_bytes")
    key = _key(subject.cell)
    known = [tried.of_record(r) for r in hunt.records.values() if _key(r["cell"]) == key]
    law = findings.fit(known)[0]
    if limit is None or law is None:
        return None
    low, high = search.fits, search.fails
    while high - low > 1:
        middle = (low + high) // 2
        batch, height, width = point(middle)
        inside = law.bytes_at(height * width, batch) <= limit
        low, high = (middle, high) if inside else (low, middle)
    return low


def _why(search: Search, what: str, subject: planned.Subject) -> list[str]:
    name = subject.cell["workload"]["name"]
    if search.stopped is not None:
        return [f"{name}: the largest {what} is not known: {search.stopped}"]
    if search.fits is None:
        return [f"{name}: not even the smallest {what} that is tried fits ({search.fails})"]
    return []
