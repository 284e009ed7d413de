"""What was added to a model, what it changed and costs; full and shallow steps of step caching."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from statistics import median
from typing import Any

import pandas as pd
from PIL import Image

import plots.step_kinds
from bench import text
from reports import frames, sections
from reports.analyse import Comparison, Finding
from reports.gather import Sample
from reports.view import Cell, Table

ADDED = ("lora", "controlnet", "custom_pipeline")
KEYS = ("lora", "lora_scale", "lora_fused", "controlnet", "control_image", "control_scale",
        "custom_pipeline")  # fmt: skip
FIGURE = "step-kinds"
MOST_PICTURES = 16
SHOWN_SIDE = 256


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, sections.Plot]:
    """Return the figure of full and shallow steps."""
    says = (
        "A step that reuses features should lie well below one that runs the whole denoiser; how "
        "far below, and how many there are of each, is what step caching can gain."
    )
    return {FIGURE: sections.Plot(plots.step_kinds, [steps_by_kind(comparisons)], says)}


def section(comparisons: Sequence[Comparison]) -> sections.Section | None:
    """Return the section if a model was added to, or if steps were of two kinds."""
    found = [
        (comparison, finding)
        for comparison in comparisons
        for finding in comparison.findings
        if finding.row.recorded
    ]
    added = [each for each in found if any(key in each[1].row.first.more for key in ADDED)]
    without = _without(comparisons)
    tables = [_added_table(added, without)] if added else []
    kinds = steps_by_kind(comparisons)
    if len(kinds):
        tables.append(_kinds_table(kinds))
    if not tables:
        return None
    says = []
    if added:
        says.append(
            "What cells added to their model, as it was found in the loaded pipeline. Time beside "
            "the same backend without additions is a ratio of medians within this run, without an "
            "interval: the workloads differ on purpose."
        )
    return sections.Section(
        anchor="additions",
        title="What was added, and which steps ran whole",
        says=says,
        figures=[FIGURE] if len(kinds) else [],
        pictures=list(_pictures([finding for _, finding in added], without)),
        tables=tables,
    )


def steps_by_kind(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return the table of `plots.step_kinds`.

    An interval ends with the event of a step, so the first interval belongs to the second step.
    Processes whose kinds are not those of the first are left out; there are none, unless a backend
    decides by what it sees.
    """
    rows: list[dict[str, Any]] = []
    for comparison in comparisons:
        for finding in comparison.findings:
            good = [s for s in finding.row.good if s.more.get("step_kind") and s.steps_trace]
            kinds = good[0].more["step_kind"] if good else []
            alike = [
                s
                for s in good
                if s.more["step_kind"] == kinds and len(s.steps_trace) == len(kinds) - 1
            ]
            traces = zip(*(s.steps_trace for s in alike), strict=True)
            for step, (kind, at) in enumerate(zip(kinds[1:], traces, strict=False), 2):
                rows.append(
                    {
                        "workload": frames.panel(comparison),
                        "label": finding.row.label,
                        "backend": finding.row.backend,
                        "step": step,
                        "kind": kind,
                        "median_s": median(each[0] for each in at),
                        "low_s": min(each[1] for each in at),
                        "high_s": max(each[2] for each in at),
                        "calls": finding.calls,
                        "processes": len(alike),
                    }
                )
    columns = ["workload", "label", "backend", "step", "kind", "median_s", "low_s", "high_s",
               "calls", "processes"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _kinds_table(kinds: pd.DataFrame) -> Table:
    rows = []
    for (workload, label), own in kinds.groupby(["workload", "label"], sort=False):
        medians = own.groupby("kind")["median_s"].median().to_dict()
        counts = own["kind"].value_counts().to_dict()
        full, shallow = medians.get("full"), medians.get("shallow")
        share = shallow / full if full and shallow else None
        rows.append(
            [
                Cell(str(workload)),
                Cell(str(label)),
                _number(counts.get("full", 0), str(counts.get("full", 0))),
                _number(full, text.seconds(full)),
                _number(counts.get("shallow", 0), str(counts.get("shallow", 0))),
                _number(shallow, text.seconds(shallow)),
                _number(share, text.DASH if share is None else f"{100 * share:.0f} %"),
            ]
        )
    return Table(
        "Full and shallow steps",
        ["workload", "backend", "full steps", "full step s", "shallow steps", "shallow step s",
         "shallow of full"],
        rows,
        note="Steps that have a time: all but the first of a generation, which is a full one.",
    )  # fmt: skip


def _without(comparisons: Sequence[Comparison]) -> dict[tuple[str, str, str], Finding]:
    """Return the findings of cells without additions, by what those with some share with them."""
    return {
        _plain(finding.row.first): finding
        for comparison in comparisons
        for finding in comparison.findings
        if finding.e2e is not None and not any(key in finding.row.first.more for key in ADDED)
    }


def _added_table(
    added: Sequence[tuple[Comparison, Finding]], plain: Mapping[tuple[str, str, str], Finding]
) -> Table:
    rows = []
    for comparison, finding in added:
        sample = finding.row.first
        e2e = finding.e2e.value if finding.e2e is not None else None
        beside = plain.get(_plain(sample))
        ratio = e2e / beside.e2e.value if e2e and beside is not None and beside.e2e else None
        rows.append(
            [
                Cell(comparison.group.title),
                Cell(finding.row.label),
                Cell("; ".join(_described(sample.more))),
                Cell(finding.outcome if not finding.ok else "ok"),
                _number(e2e, text.seconds(e2e)),
                _number(ratio, text.DASH if ratio is None else f"{ratio:.2f}×"),
            ]
        )
    return Table(
        "Additions",
        ["workload", "backend", "what was added", "outcome", "median s", "time of without"],
        rows,
        note="Time of without: the median over that of the same workload and backend with nothing "
        "added, where this run has one; above 1× the addition costs time.",
    )


def _described(more: Mapping[str, Any]) -> Iterator[str]:
    lora, net, own = more.get("lora"), more.get("controlnet"), more.get("custom_pipeline")
    if lora:
        how = "fused into the weights" if lora["fused"] else "run beside the weights"
        parts = ", ".join(f"{part} {n}" for part, n in lora["layers_changed_by_part"].items())
        yield (
            f"LoRA {_short(lora['source'])} at scale {lora['scale']:g}, {how}, "
            f"{lora['layers_changed']} layers changed ({parts}), "
            f"content {lora['content'][:8]}"
        )
    if net:
        digest = str(more.get("control_sha256", "")).split(" ")[0][:8]
        yield (
            f"ControlNet {_short(net['source'])}, {net['parameters'] / 1e6:.2f} M parameters, "
            f"control picture {digest or 'not made'}"
        )
    if own:
        yield f"pipeline class {own['class']}, content {own['content'][:8]}"


def _short(source: str) -> str:
    """Return how a source is called: names as they are, of files the last part."""
    return source if source.startswith(("embedded:", "hub:")) else PurePath(source).name


def _plain(sample: Sample) -> tuple[str, str, str]:
    """What a cell with additions shares with the one without."""
    bare = {
        key: value for key, value in sample.workload.items() if key not in KEYS and key != "name"
    }
    return (
        repr(sorted(bare.items(), key=lambda each: each[0])),
        sample.backend,
        repr(sorted(sample.options.items())),
    )


def _number(value: float | None, shown: str) -> Cell:
    return Cell(shown, value, "number")


def _pictures(
    findings: Sequence[Finding], plain: Mapping[tuple[str, str, str], Finding]
) -> Iterator[sections.Shown]:
    """Return pictures without additions, each once, and for each addition what came out.

    The control picture of a ControlNet stands before its result.
    """
    beside = [plain[key] for f in findings if (key := _plain(f.row.first)) in plain]
    shown = 0
    for finding in [*{id(each): each for each in beside}.values(), *findings]:
        sample = finding.row.first
        told = "; ".join(_described(sample.more)) or "without additions"
        files = [
            (sample.source.path / path, "control picture")
            for path in (sample.more.get("control_images") or ())[:1]
        ]
        files += [(picture.path, "result") for picture in sample.pictures[:1]]
        for path, what in files:
            inside = path.resolve().is_relative_to(sample.source.path.resolve())
            png = _png(path) if inside and shown < MOST_PICTURES else None
            if png is None:
                continue
            shown += 1
            name = re.sub(r"[^A-Za-z0-9._=-]+", "-", f"added-{shown:02d}-{sample.name}")[:80]
            yield sections.Shown(name, *png, caption=f"{sample.name}: {what}; {told}")


def _png(path: Path) -> tuple[bytes, int, int] | None:
    """Return a picture as PNG with its size, at most `SHOWN_SIDE` a side; None if unreadable."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue(), picture.width, picture.height
