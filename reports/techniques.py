"""The page on the techniques of ``tuned``: each alone, with what records say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from bench import text
from reports import fidelity, markdown
from reports.analyse import Comparison, Finding
from reports.fidelity import Likeness
from reports.tables import Column, table

WAITS = """\
What each technique gains for SDXL at 1024 pixels waits for a machine with a GPU;
`scripts/gpu_proof.sh` measures all of them there ([how](gpu-proof.md))."""


@dataclass(frozen=True)
class Technique:
    """One step of the page.

    Attributes:
        backend, options: which cells measure it: those whose options agree.
        how: what to write in a configuration.
        needs_cuda: whether a CPU has nothing to show.
        given: an option that has to be given, whatever its value.
    """

    title: str
    backend: str
    says: str
    options: Mapping[str, Any] = field(default_factory=dict)
    how: str = ""
    needs_cuda: bool = False
    given: str | None = None

    def measured_with(self, options: Mapping[str, Any]) -> bool:
        """Say whether a cell of its backend with ``options`` measures it."""
        if self.given is not None and options.get(self.given) is None:
            return False
        return all(options.get(name) == value for name, value in self.options.items())


TECHNIQUES = tuple(
    Technique(**{"how": each["backend"], **each})
    for each in yaml.safe_load(
        (files("reports") / "templates" / "techniques.yaml").read_text(encoding="utf-8")
    )
)

INTRODUCTION = """\
Each technique by itself, in the order in which to try them: those that cost nothing first, those
that change the image last. Stop where it suits you. *Gain* is the speedup of a whole call against
diffusers as it is, with its 95 % interval; *warm-up* is waited for once per process; *memory* is
the steady peak against the baseline's; *images* is the verdict against the baseline's own
noise; *measured as* names the cell, with the options in which it differs from the default. What
stands beside a technique below is how it works; only the tables were measured."""

EXPLAINS = """\
Gains do not multiply: once the launches are gone, the next technique that saves launches saves
nothing. "All of it" is measured, not computed from the lines above it."""


def page(
    machines: Sequence[tuple[str, Sequence[Comparison], Sequence[Mapping[int, Likeness]]]],
) -> str:
    """Return ``docs/making-sdxl-fast.md``.

    Args:
        machines: name, comparisons, and what is known of their pictures.
    """
    parts = [
        "<!-- Written by `make report-results` from reports/results. Change records, not this. -->",
        "# Making SDXL fast",
        INTRODUCTION,
        _tables(machines),
        EXPLAINS,
        "## The techniques",
    ]
    for number, technique in enumerate(TECHNIQUES, 1):
        parts.append(f"### {number}. {technique.title}")
        parts.append(technique.says)
        parts.append(f"```yaml\nbackend: [none, {technique.how}]\n```")
    return "\n\n".join(parts) + "\n"


def _tables(
    machines: Sequence[tuple[str, Sequence[Comparison], Sequence[Mapping[int, Likeness]]]],
) -> str:
    """One table for each text-to-image workload in which a technique was measured."""
    found = []
    gpu = False
    for name, comparisons, likenesses in machines:
        for comparison, likeness in zip(comparisons, likenesses, strict=True):
            if comparison.group.cell.workload.task != "text-to-image":
                continue
            part = _table(name, comparison, likeness)
            if part is not None:
                gpu |= comparison.group.device.startswith("cuda")
                found.append(part)
    if not gpu:
        found.insert(0, f"## SDXL on a GPU\n\n{WAITS}")
    return "\n\n".join(found)


class _Measured(NamedTuple):
    title: str
    comparison: Comparison
    finding: Finding
    likeness: Likeness | None


def _table(name: str, comparison: Comparison, likeness: Mapping[int, Likeness]) -> str | None:
    on_gpu = comparison.group.device.startswith("cuda")
    rows: list[_Measured] = []
    absent: list[str] = []
    waiting: list[str] = []
    for number, technique in enumerate(TECHNIQUES, 1):
        index = _place(comparison, technique)
        if index is not None:
            title = f"{number}. {technique.title}"
            finding = comparison.findings[index]
            rows.append(_Measured(title, comparison, finding, likeness.get(index)))
        else:
            (waiting if technique.needs_cuda and not on_gpu else absent).append(str(number))
    shown = table(f"{name}: {comparison.panel}", COLUMNS, rows)
    if shown is None:
        return None
    lines = [markdown.table(shown, "##")]
    if absent:
        lines.append(f"Not measured: {', '.join(absent)}.")
    if waiting:
        lines.append(f"For a GPU alone: {', '.join(waiting)}.")
    return "\n\n".join(lines)


def _place(comparison: Comparison, technique: Technique) -> int | None:
    """Return which finding to show: one with a gain, and with a cold cache, before others."""
    found = [
        (finding.speedup is None, finding.arm.cache != "fresh", index)
        for index, finding in enumerate(comparison.findings)
        if finding.arm.cell.backend.name == technique.backend
        and technique.measured_with(finding.arm.cell.backend.options)
    ]
    return min(found)[2] if found else None


def _gain(row: _Measured) -> str:
    finding = row.finding
    if finding.speedup is None or finding.verdict is None:
        why = "; ".join(finding.reasons) or finding.not_comparable or "no figure"
        return why if why.startswith(finding.outcome) else f"{finding.outcome}: {why}"
    gain = text.with_interval(
        finding.speedup.ratio, finding.speedup.low, finding.speedup.high, text.ratio
    )
    return f"{gain}, {finding.verdict.word}"


def _warmup(row: _Measured) -> str:
    both = (row.finding, row.comparison.sibling(row.finding))
    return "; ".join(
        text.seconds(f.warmup_s) + ("" if f.arm.cache == "fresh" else " (warm cache)")
        for f in both
        if f is not None
    )


def _memory(row: _Measured) -> str:
    peak, base = row.finding.peak(), row.finding.baseline.peak() if row.finding.baseline else None
    return "–" if peak is None or base is None else f"{(peak - base) / text.GIB:+.2f} GiB"


def _compared(get: Callable[[_Measured], str]) -> Callable[[_Measured], str]:
    """Return a getter of what is empty without a gain."""
    return lambda row: get(row) if row.finding.speedup and row.finding.verdict else ""


COLUMNS = (
    Column("technique", "title"),
    Column("gain", _gain),
    Column("warm-up [s]", _compared(_warmup)),
    Column("memory", _compared(_memory)),
    Column("images", _compared(lambda row: fidelity.same(row.likeness))),
    Column(
        "measured as",
        lambda row: row.finding.arm.cell.name.rpartition("/cache=")[0] or row.finding.arm.cell.name,
    ),
)
