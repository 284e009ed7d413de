"""``bench capacity``: the largest batch and size that fit, their memory's law, the best batch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from bench import api, sizes
from bench.cli import options, progress, quick
from bench.cli import report as reporting
from bench.cli.terminal import shown_path
from bench.config import Plan, load_config, make_plan, parse_config
from bench.config.values import MAX_BATCH, MAX_SIDE
from bench.contract import Cell
from bench.contract import Record as Written
from bench.passes.capacity import judge, planned
from bench.passes.capacity.search import Search
from bench.records import Record, alike
from bench.records.read import decode
from bench.runner import RunnerError, Task
from bench.runner.devices import Machine, Unsupported
from bench.store import RunFolder
from bench.text import GIB

What = Literal["both", "batch", "size"]


@quick.verb(
    "model task prompt negative_prompt steps size batch seed scheduler guidance variant dtype "
    "device backend",
    {
        # A trial's peak is there after the first calls; the others are for the time of an image.
        "protocol": {
            "warmup": {"min_calls": 2, "max_calls": 2, "stable_pct": 50.0},
            "calls": {"min_calls": 2, "max_calls": 5, "time_cap": "10s"},
        },
        "limits": {"timeout": "10m"},
    },
    prompt="a big red house on grass in the middle under a blue sky",
    steps=2,
    backend="none",
)
def capacity(
    asked: quick.Asked,
    config: Annotated[
        Path | None,
        typer.Argument(
            help="YAML file, instead of --model; cells that differ in batch and size only are one "
            "search.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            help="Memory that there is: 8GiB. On a CPU against the worker's rss, and needed; on "
            "CUDA what torch may reserve.  [default on CUDA: the device's memory]",
            show_default=False,
        ),
    ] = None,
    what: Annotated[What, typer.Option(help="What to search for.")] = "both",
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
    largest_batch: Annotated[
        int, typer.Option(min=1, max=MAX_BATCH, help="Largest batch that is judge.")
    ] = 256,
    largest_side: Annotated[
        int, typer.Option(min=64, max=MAX_SIDE, help="Largest height that is tried, pixels.")
    ] = 4096,
    overrides: options.Set = None,
    only: options.Only = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder.  [default: runs/capacity-<name>]", show_default=False),
    ] = None,
    no_sync: options.NoSync = False,
    report: options.Report = False,
    quiet: options.Quiet = False,
) -> None:
    """Every trial is a process of its own and a record of the run folder: the same command resumes
    an interrupted search, and what ran out of memory once is not tried again. Then it prints which
    law the memory follows, what common cards would hold (a prediction), and the batch with the
    least time per image.

    Examples:
      bench capacity --model embedded:sdxl --limit 600MiB
      bench capacity configs/capacity.yaml
      bench capacity configs/capacity.yaml --limit 700MiB --what batch
      bench capacity --model stabilityai/stable-diffusion-xl-base-1.0 --limit 12GiB
      bench capacity --model runwayml/stable-diffusion-v1-5 --aspect 16:9 --multiple 64

    Exit codes:
      0    every search has its answer
      1    some search has none; the reason is printed
      2    usage: a wrong option, configuration or folder; nothing was started
      130  interrupted
    """
    shape = None if aspect is None else _aspect(aspect)
    if multiple is not None and multiple % 8:
        raise typer.BadParameter("must be a multiple of 8", param_hint="--multiple")
    plan = _plan(asked, config, limit, overrides or [], only or [])
    subjects = planned.subjects(plan.cells)
    folder = out or Path("runs", f"capacity-{plan.name}")
    ui = _Trials(Console(), quiet)
    step = multiple or planned.multiple_of(plan.cells)
    search = {"multiple": step, "aspect": shape}
    hunt = _Hunt(plan.name, folder, ui, search, sync=not no_sync)
    with progress.measuring(ui):
        for subject in subjects:
            height, width = subject.size
            if what != "size":
                batches = Search(min(subject.batch, largest_batch), most=largest_batch)
                hunt.drive("batch", subject, batches, partial(_at, height, width))
            if what != "batch":
                least, most = -(-64 // step), largest_side // step
                start = max(min(max(height // step, 1), most), least)
                side = partial(_sized, subject.batch, step, shape or width / height)
                hunt.drive("size", subject, Search(start, least=least, most=most), side)
    trials = hunt.trials({_key(subject.cell) for subject in subjects})
    for each in judge.capacities(trials, searches=lambda _: search):
        print("\n".join(("", *_lines(each))))
    for line in hunt.stopped:
        typer.echo(f"bench: {line}", err=True)
    print(f"\nRun: {shown_path(folder)}")
    if report:
        reporting.write([folder])
    raise typer.Exit(1 if hunt.stopped else 0)


def _at(height: int, width: int, batch: int) -> planned.Point:
    return batch, height, width


def _sized(batch: int, multiple: int, aspect: float, units: int) -> planned.Point:
    return batch, *sizes.scaled(units, multiple, aspect)


def _lines(found: judge.Capacity) -> Iterator[str]:
    """Yield the lines on one search."""
    limit = "the device's own memory" if found.limit_bytes is None else _gib(found.limit_bytes)
    yield f"{found.name}: limit {limit}, meter {found.meter}, {judge.counted(found)}"
    yield f"  {judge.limit_says(found.batches, 'batch')}"
    yield f"  {judge.limit_says(found.sizes, 'size')}"
    yield f"  {judge.law_says(found)}"
    base = judge.size_text(found.base)
    if found.per_image:
        yield f"  time per image at {base}, by batch:"
        for each in found.per_image:
            interval = ""
            if each.time.low is not None and each.time.high is not None:
                level = 100 * each.time.achieved_level
                interval = f"  [{each.time.low:.3g} to {each.time.high:.3g}, {level:.3g} %]"
            mark = "  <- least" if each is found.best else ""
            yield f"    {each.batch:>5}  {each.time.median:.3g} s{interval}{mark}"
    yield f"  best batch: {found.best_says}"
    if found.cards:
        yield f"  predicted by the law, not measured; {found.reserve_says}:"
        batch, side = f"batch at {base}", f"size at batch {found.base_batch}"
        yield f"    {'card':>7}  {batch:>18}  {'surely':>7}  {side:>16}  {'surely':>10}"
        for card in found.cards:
            beyond = "  beyond what was measured" if card.beyond else ""
            sure = "-" if card.sure_batch is None else str(card.sure_batch)
            yield (
                f"    {card.gib:>3} GiB  {card.batch:>18}  {sure:>7}  {_size(card.side):>16}  "
                f"{_size(card.sure_side):>10}{beyond}"
            )


def _size(size: tuple[int, int] | None) -> str:
    return "-" if size is None else judge.size_text(size)


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
    asked: quick.Asked,
    config: Path | None,
    limit: str | None,
    overrides: Sequence[str],
    only: Sequence[str],
) -> Plan:
    """Return the plan of what is searched, with the limit where the device has its meter."""
    matrix, changes = quick.either(asked, config)
    changes = [*overrides, *changes]
    load: Any = parse_config if config is None else load_config
    plan = make_plan(load(matrix, changes, only))
    on_cuda = {_device(cell).startswith("cuda") for cell in plan.cells}
    if limit is not None:
        if len(on_cuda) > 1:
            raise typer.BadParameter(
                "the cells are on a CPU and a GPU; one limit cannot be meant for both, so use "
                "--only device=…",
                param_hint="--limit",
            )
        key = "device_memory" if True in on_cuda else "rss"
        plan = make_plan(load(matrix, [*changes, f"limits.{key}={limit}"], only))
    for cell in plan.cells:
        if not _device(cell).startswith("cuda") and "rss_bytes" not in cell["limits"]:
            raise typer.BadParameter(
                "on a CPU, give the memory there is, such as --limit 2GiB: a search without a "
                "limit would make this machine swap",
                param_hint="--limit",
            )
    return plan


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

    after_interrupt = "The same command continues it."

    def __init__(self, console: Console, quiet: bool) -> None:
        super().__init__(console)
        self._quiet = quiet

    def cell_finished(self, task: Task, record: Written) -> None:
        if self._quiet:
            return
        trial = judge.of_record(decode(json.dumps(record).encode()))
        text = f"batch {trial.batch} at {judge.size_text(trial.size)}: "
        if trial.answer == "fits" and trial.peak_bytes is not None:
            text += f"fits, {_gib(trial.peak_bytes)}"
        elif trial.answer == "fits":
            text += "fits"
        else:
            text += f"{trial.outcome}: {trial.reason}"
        self.print(f"{text}  ({record['process']['wall_s']:.1f} s)")


def _key(cell: Mapping[str, Any]) -> str:
    return alike.but_for_size(cell, cell["device"])


class _Hunt:
    """The run folder of a search: measures what is wanted and not there yet.

    Attributes:
        stopped: why a search has no answer, a sentence each.
    """

    def __init__(
        self, name: str, folder: Path, ui: _Trials, search: Mapping[str, Any], *, sync: bool
    ) -> None:
        self.name, self.folder, self._ui, self._sync = name, folder, ui, sync
        self._search = search
        self.stopped: list[str] = []
        self.records: dict[str, Record] = {}
        self._cells: list[Cell] = []
        if RunFolder.holds_run(folder):
            # Trials of earlier searches stay in the plan, so that they are remembered and shown.
            self._cells = list(RunFolder.open(folder).plan.get("cells", []))
            self._read()

    def _read(self) -> None:
        self.records = {}
        for record in RunFolder.open(self.folder).records():
            # Of several rounds, one that ran out of memory decides: it need not fit every time.
            known = self.records.get(record.cell_id)
            if known is None or known.outcome == "ok":
                self.records[record.cell_id] = record

    def trials(self, keys: set[str]) -> list[judge.Trial]:
        """Return the trials of some subjects."""
        return [judge.of_record(r) for r in self.records.values() if _key(r.cell.raw) in keys]

    def drive(
        self,
        what: str,
        subject: planned.Subject,
        search: Search,
        point: Callable[[int], planned.Point],
    ) -> None:
        """Try what ``search`` wants until it is done.

        Args:
            what: batch or size.
            point: makes (batch, height, width) of a number.
        """
        while numbers := search.wave(self._guess(subject, search, point)):
            points = [point(number) for number in numbers]
            planned_cells = planned.trials(subject, points)
            cells = [planned_cells[each] for each in points]
            self._cells += cells
            if any(cell["cell_id"] not in self.records for cell in cells):
                plan = planned.plan_of(self.name, self._cells, self._search)
                how: dict[str, Any] = {"resume": True, "sync": self._sync}
                self.folder = api.measure(plan, self.folder, ui=self._ui, **how).path
                self._read()
            for number, cell in zip(numbers, cells, strict=True):
                record = self.records.get(cell["cell_id"])
                if record is None:
                    search.tell(number, "unknown", "the trial has no record")
                else:
                    trial = judge.of_record(record)
                    search.tell(number, trial.answer, f"{trial.outcome}: {trial.reason}")
        name = subject.cell["workload"]["name"]
        if search.stopped is not None:
            self.stopped.append(f"{name}: the largest {what} is not known: {search.stopped}")
        elif search.fits is None:
            none = f"not even the smallest {what} that is tried fits ({search.fails})"
            self.stopped.append(f"{name}: {none}")

    def _guess(
        self, subject: planned.Subject, search: Search, point: Callable[[int], planned.Point]
    ) -> int | None:
        """Return the largest number that a law through the trials so far lets into the limit."""
        limits = subject.cell["limits"]
        limit = limits.get("device_bytes") or limits.get("rss_bytes")
        if search.fits is None or search.fails is None or limit is None:
            return None
        law = judge.fit(self.trials({_key(subject.cell)}))[0]
        if law is None:
            return None
        low, high = search.fits, search.fails
        while high - low > 1:
            middle = (low + high) // 2
            batch, height, width = point(middle)
            inside = law.bytes_at(height * width, batch) <= limit
            low, high = (middle, high) if inside else (low, middle)
        return low
