"""The table of a run in the terminal, and the same figures as JSON."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import text
from bench.cli.terminal import shown_path
from bench.records import alike, arms
from bench.records.arms import NO_RECORD, Arm, ArmGroup, Baselines
from bench.store import RunFolder
from bench.tasks import TASKS

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_STYLES = {"ok": "green", NO_RECORD: "dim", "skipped": "yellow", "unsupported": "yellow"}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Line:
    """An arm, or one round of it.

    Attributes:
        speedup: ratio of the baseline's end-to-end time to its own; None without a comparison.
        not_comparable: why it is None, if both have figures.
    """

    arm: Arm
    speedup: float | None
    not_comparable: str | None


@dataclass(frozen=True)
class Panel:
    """A group as it is shown.

    Attributes:
        facts: what its lines share, as short texts.
        meter: the memory meter that it is shown with; None if no line has a value.
        baselines: how the baselines of several environments compare, in sentences.
    """

    title: str
    facts: list[str]
    meter: str | None
    lines: list[Line]
    baselines: list[str]


def read(path: Path, *, all_rounds: bool = False) -> list[Panel]:
    """Return what is shown of the run in ``path``, complete or not; see `panels`.

    Raises:
        StoreError: there is no run, or it cannot be read.
    """
    return panels(arms.group([RunFolder.open(path).source()]), all_rounds=all_rounds)


def panels(groups: Sequence[ArmGroup], *, all_rounds: bool = False) -> list[Panel]:
    """Return a panel for each group.

    Args:
        all_rounds: a line for each round, compared with the baseline of its own round.
    """

    def parts(arm: Arm) -> dict[int, Arm]:
        return arm.by_round() if all_rounds else {-1: arm}

    shown = [[part for arm in group.arms for part in parts(arm).items()] for group in groups]
    pools: dict[int, list[list[Any]]] = {}
    for number, arm in (part for each in shown for part in each):
        pools.setdefault(number, []).append(arm.good if arm.is_baseline else [])
    baselines = {number: Baselines(each) for number, each in pools.items()}
    return [
        _panel(group, [Line(arm, *baselines[number].speedup(arm.good)) for number, arm in each])
        for group, each in zip(groups, shown, strict=True)
    ]


def _panel(group: ArmGroup, lines: list[Line]) -> Panel:
    show = _show(group.cell.workload.task)
    more = show.facts(group) if show else []
    measured = [
        (arm.cell.backend.place, arm.good[0], time)
        for arm in group.arms
        if arm.is_baseline and (time := arm.pooled(lambda record: record.e2e_s)) is not None
    ]
    return Panel(
        title=group.title,
        facts=[*arms.facts(group), *more],
        meter=alike.shared_meter(line.arm.steady_peaks for line in lines),
        lines=lines,
        baselines=alike.between_environments(measured),
    )


@functools.cache
def _show(task: str) -> Any:
    return TASKS.part(task, "show") if task in TASKS.names() else None


def as_json(shown: Sequence[Panel]) -> list[dict[str, Any]]:
    """Return the panels as JSON values; units as in the names."""
    return [
        {
            "workload": panel.title,
            "facts": panel.facts,
            "meter": panel.meter,
            "baselines": panel.baselines,
            "backends": [_line_as_json(line) for line in panel.lines],
        }
        for panel in shown
    ]


def _line_as_json(line: Line) -> dict[str, Any]:
    arm = line.arm
    return {
        "name": arm.cell.name,
        "backend": arm.label,
        "outcome": arm.outcome("{} {}/{}"),
        "rounds_by_outcome": arm.outcomes,
        "reasons": arm.reasons,
        "warnings": arm.warnings,
        "warmup_s": arm.middle(lambda record: record.warmup_total_s),
        "e2e_s": arm.pooled(lambda record: record.e2e_s),
        "e2e_interval_s": arm.e2e_range_s,
        "it_per_s": arm.pooled(lambda record: record.it_per_s),
        "steady_peak_bytes": arm.steady_peaks,
        "steps": arm.good[0].steps._asdict() if arm.good else None,
        "speedup": line.speedup,
        "not_comparable": line.not_comparable,
    }


def print_run(path: Path, console: Console, *, all_rounds: bool = False) -> None:
    """Print the table of the run in ``path``, complete or not, and where its images are.

    A reader that goes away, such as ``head``, ends the printing and nothing else.

    Raises:
        StoreError: there is no run, or it cannot be read.
    """
    shown = read(path, all_rounds=all_rounds)
    with console.capture() as captured:
        console.print(render(shown, console.width), highlight=False)
        if any(line.arm.good for panel in shown for line in panel.lines):
            console.print(f"Images:  {shown_path(path / 'pictures')}", soft_wrap=True)
        console.print(f"Records: {shown_path(path / 'records.jsonl')}", soft_wrap=True)
    try:
        console.file.write(captured.get())
        console.file.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, console.file.fileno())
        os.close(nowhere)


_HEADS = ("warm-up\ns", "end-to-end\ns", "\nit/s", "peak mem\nGiB", "\noutcome", "\nspeedup")


def render(shown: Sequence[Panel], width: int) -> RenderableType:
    """Return what `rich` prints: a table for each panel, then notes, each once.

    Args:
        width: columns of the terminal; below 100 the interval goes under its figure.
    """
    from rich import box
    from rich.console import Group as Stack
    from rich.table import Table
    from rich.text import Text

    narrow = width < 100
    parts: list[RenderableType] = []
    for panel in shown:
        parts.append(Text(panel.title, style="bold"))
        parts.append(Text(" · ".join(panel.facts), style="dim"))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if narrow else 2, 0, 0))
        table.add_column("backend", overflow="fold", min_width=12)
        for head in _HEADS:
            justify = "left" if head.endswith("outcome") else "right"
            table.add_column(head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for line in panel.lines:
            arm = line.arm
            time, range_s = arm.pooled(lambda record: record.e2e_s), arm.e2e_range_s
            between = f"{chr(10) if narrow else '  '}{text.interval(*range_s)}" if range_s else ""
            outcome = arm.outcome("{} {}/{}")
            table.add_row(
                arm.label,
                text.seconds(arm.middle(lambda record: record.warmup_total_s)),
                f"{text.seconds(time)}{between}",
                text.number(arm.pooled(lambda record: record.it_per_s)),
                text.gib(arm.steady_peaks.get(panel.meter) if panel.meter else None),
                Text(outcome, style=_STYLES.get(outcome, "red")),
                text.ratio(line.speedup),
            )
        parts.append(table)
        meter = f"peak memory: {panel.meter}, steady phase" if panel.meter else "no memory figure"
        parts.append(Text(f"{meter}\n", style="dim"))
    parts.extend(Text(f"• {note}") for note in _notes(shown))
    return Stack(*parts)


def _notes(shown: Sequence[Panel]) -> list[str]:
    """Return what a reader must know, each sentence once, after the lines that it is about."""
    about: dict[str, list[str]] = {}
    warned: dict[str, list[tuple[str, str]]] = {}
    for panel in shown:
        for sentence in panel.baselines:
            about.setdefault(sentence, []).append(panel.title)
        for line in panel.lines:
            where = f"{panel.title} / {line.arm.label}"
            unlike = [f"no speedup, not comparable: {line.not_comparable}"]
            for sentence in (*line.arm.reasons, *(unlike if line.not_comparable else ())):
                about.setdefault(sentence, []).append(where)
            for warning in line.arm.warnings:
                warned.setdefault(_NUMBER.sub("#", warning), []).append((warning, where))
    for same in warned.values():
        sentence = folded([warning for warning, _ in same])
        about.setdefault(sentence, []).extend(where for _, where in same)
    notes = [f"{text.listed(arms.each_once(lines))}: {each}" for each, lines in about.items()]
    every = [line.arm for panel in shown for line in panel.lines]
    if missing := sum(arm.outcomes[NO_RECORD] for arm in every):
        notes.append(f"{missing} planned round(s) without a record; bench run --resume adds them.")
    if any(len(arm.good) == 1 for arm in every):
        notes.append(
            "One round only: intervals are of the median within one process (95 %, from 6 calls "
            "on), and the spread from process to process is not covered."
        )
    if any(len(arm.good) > 1 for arm in every):
        notes.append(
            "Several rounds: the median of all their calls, with the range of the rounds' medians."
        )
    return notes


def folded(sentences: Sequence[str]) -> str:
    """Return one sentence for several that differ in their numbers alone.

    A number that is not the same in all of them becomes the range of what it is there.
    """
    if len({*sentences}) == 1:
        return sentences[0]
    words = _NUMBER.split(sentences[0])
    ranges = [
        each[0] if len({*each}) == 1 else f"{min(each, key=float)} to {max(each, key=float)}"
        for each in zip(*map(_NUMBER.findall, sentences), strict=True)
    ]
    whole = "".join(word + number for word, number in zip(words, [*ranges, ""], strict=True))
    return f"{whole} ({len(sentences)} times, the numbers from least to most)"
