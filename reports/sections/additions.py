"""What was added to a model, what it changed and costs; full and shallow steps of step caching."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import pandas as pd
from PIL import Image

import plots.step_kinds
from bench import files, text
from bench.records import Record
from reports import frames
from reports.analyse import Comparison, Finding
from reports.sections.base import Plot, Section, Shown, shown
from reports.tables import Column, Table, present, table

KEYS = ("lora", "lora_scale", "lora_fused", "controlnet", "control_image", "control_scale",
        "custom_pipeline")  # fmt: skip
FIGURE = "step-kinds"
MOST_PICTURES = 16
SHOWN_SIDE = 256


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure of full and shallow steps."""
    return {
        FIGURE: Plot(
            plots.step_kinds,
            lambda: [steps_by_kind(comparisons)],
            "A step that reuses features should lie well below one that runs the whole denoiser; "
            "how far below, and how many there are of each, is what step caching can gain.",
        )
    }


class _Added(NamedTuple):
    """A finding with additions, and one of the same workload and backend without, if any."""

    comparison: Comparison
    finding: Finding
    record: Record
    without: Finding | None


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section if a model was added to, or if steps were of two kinds."""
    plain = {
        _plain(row.finding): row.finding
        for row in frames.rows(comparisons)
        if row.finding.e2e is not None and not _has(row.finding.arm.first)
    }
    added = [
        _Added(row.comparison, row.finding, record, plain.get(_plain(row.finding)))
        for row in frames.rows(comparisons)
        if (record := row.finding.arm.first) is not None and _has(record)
    ]
    kinds = steps_by_kind(comparisons)
    tables = present(_added_table(added), _kinds_table(kinds))
    if not tables:
        return None
    says = (
        "What cells added to their model, as it was found in the loaded pipeline. Time beside "
        "the same backend without additions is a ratio of medians within this run, without an "
        "interval: the workloads differ on purpose."
    )
    return Section(
        anchor="additions",
        title="What was added, and which steps ran whole",
        says=[says] if added else [],
        figures=[FIGURE] if len(kinds) else [],
        pictures=list(_pictures(added)),
        tables=tables,
    )


def _has(record: Record | None) -> bool:
    return record is not None and bool(record.lora or record.controlnet or record.custom_pipeline)


STEPS: frames.Columns = {
    **{name: get for name, get in frames.TRACE.items() if name not in ("calls", "processes")},
    "kind": lambda row: row.at["kind"],
    "calls": frames.TRACE["calls"],
    "processes": frames.TRACE["processes"],
}


def steps_by_kind(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return the table of `plots.step_kinds`.

    An interval ends with the event of a step, so the first interval belongs to the second step.
    Processes whose kinds are not those of the first are left out; there are none, unless a backend
    decides by what it sees.
    """
    return frames.frame(STEPS, _steps(comparisons))


def _steps(comparisons: Sequence[Comparison]) -> Iterator[frames.Row]:
    for row in frames.rows(comparisons):
        good = [record for record in row.finding.arm.good if record.step_kind and record.step_s]
        kinds = good[0].step_kind if good else ()
        traces = [list(record.step_trace()) for record in good if record.step_kind == kinds]
        whole = [trace for trace in traces if len(trace) == len(kinds) - 1]
        at = zip(*whole, strict=True)
        for step, (kind, each) in enumerate(zip(kinds[1:], at, strict=False), 2):
            yield row._replace(at={"step": step, "kind": kind, "traces": each})


class _Kinds(NamedTuple):
    workload: str
    label: str
    medians: dict[str, float]
    counts: dict[str, int]

    @property
    def share(self) -> float | None:
        full, shallow = self.medians.get("full"), self.medians.get("shallow")
        return shallow / full if full and shallow else None


def _kind(kind: str) -> list[Column]:
    return [
        Column(f"{kind} steps", lambda row: row.counts.get(kind, 0), text.whole),
        Column(f"{kind} step s", lambda row: row.medians.get(kind), text.seconds),
    ]


KINDS = (
    Column("workload", "workload"),
    Column("backend", "label"),
    *_kind("full"),
    *_kind("shallow"),
    Column(
        "shallow of full",
        "share",
        lambda share: text.DASH if share is None else f"{100 * share:.0f} %",
    ),
)


def _kinds_table(kinds: pd.DataFrame) -> Table | None:
    rows = [
        _Kinds(
            str(workload),
            str(label),
            part.groupby("kind")["median_s"].median().to_dict(),
            part["kind"].value_counts().to_dict(),
        )
        for (workload, label), part in kinds.groupby(["workload", "label"], sort=False)
    ]
    note = "Steps that have a time: all but the first of a generation, which is a full one."
    return table("Full and shallow steps", KINDS, rows, note)


def _e2e_s(finding: Finding | None) -> float | None:
    return finding.e2e.value if finding and finding.e2e else None


def _ratio(row: _Added) -> float | None:
    one, other = _e2e_s(row.finding), _e2e_s(row.without)
    return one / other if one and other else None


ADDED = (
    Column("workload", "comparison.group.title"),
    Column("backend", "finding.arm.label"),
    Column("what was added", lambda row: "; ".join(_described(row.record))),
    Column("outcome", lambda row: "ok" if row.finding.ok else row.finding.outcome),
    Column("median s", lambda row: _e2e_s(row.finding), text.seconds),
    Column(
        "time of without", _ratio, lambda value: text.DASH if value is None else f"{value:.2f}×"
    ),
)


def _added_table(added: Sequence[_Added]) -> Table | None:
    return table(
        "Additions",
        ADDED,
        added,
        "Time of without: the median over that of the same workload and backend with nothing "
        "added, where this run has one; above 1× the addition costs time.",
    )


def _described(record: Record) -> Iterator[str]:
    lora, net, custom = record.lora, record.controlnet, record.custom_pipeline
    if lora:
        how = "fused into the weights" if lora.fused else "run beside the weights"
        parts = ", ".join(f"{part} {n}" for part, n in lora.layers_changed_by_part.items())
        yield (
            f"LoRA {_short(lora.source)} at scale {lora.scale:g}, {how}, "
            f"{lora.layers_changed} layers changed ({parts}), content {lora.content[:8]}"
        )
    if net:
        digest = (record.control_sha256 or "").split(" ")[0][:8]
        yield (
            f"ControlNet {_short(net.source)}, {(net.parameters or 0) / 1e6:.2f} M parameters, "
            f"control image {digest or 'not made'}"
        )
    if custom:
        yield f"pipeline class {custom.class_name}, content {custom.content[:8]}"


def _short(source: str) -> str:
    """Return how a source is called: names as they are, of files the last part."""
    return source if source.startswith(("embedded:", "hub:")) else PurePath(source).name


def _plain(finding: Finding) -> tuple[str, str, str]:
    """Return what a cell with additions shares with the one without."""
    cell = finding.arm.cell
    bare = {k: v for k, v in cell.raw["workload"].items() if k not in KEYS and k != "name"}
    options = repr(sorted(cell.backend.options.items()))
    return repr(sorted(bare.items())), cell.backend.name, options


def _pictures(added: Sequence[_Added]) -> Iterator[Shown]:
    """Yield images without additions, each once, and for each addition what came out.

    The control image of a ControlNet stands before its result.
    """
    without = {id(row.without): row.without for row in added if row.without is not None}
    count = 0
    for finding in [*without.values(), *(row.finding for row in added)]:
        record = finding.arm.first
        assert record is not None
        told = "; ".join(_described(record)) or "without additions"
        files = [(path, "control image") for path in record.control_images[:1]]
        files += [(image.path, "result") for image in record.images[:1]]
        for path, what in files:
            image = _image(finding.arm.source.path, path) if count < MOST_PICTURES else None
            if image is None:
                continue
            count += 1
            name = re.sub(r"[^A-Za-z0-9._=-]+", "-", f"added-{count:02d}-{record.name}")[:80]
            caption = f"{record.name}: {what}; {told}"
            yield shown(name, image, caption, optimize=False)


def _image(run: Path, path: str) -> Image.Image | None:
    """Return an image of a run, at most `SHOWN_SIDE` a side; None if unreadable."""
    try:
        image: Image.Image = files.image(files.inside(run, path))
    except OSError:
        return None
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return image
