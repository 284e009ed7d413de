"""Run folders to a report folder: ``REPORT.md``, ``report.html``, ``plots/``, ``gallery/``."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import audit
from bench.audit.readers.runs import of_records
from bench.contract import Perceptual
from reports import (
    analyse,
    fidelity,
    figures,
    gallery,
    gather,
    html,
    markdown,
    perceptual,
    reference,
    sections,
    view,
)


@dataclass(frozen=True, slots=True)
class Report:
    """Where a report was written, and the view that it shows."""

    page: Path
    markdown: Path
    view: view.View


def write(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    references: Sequence[str] = (),
    workloads: Sequence[str] = (),
    weights: Mapping[Perceptual, str] | None = None,
    fid: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Write the report of one or more runs. Reads records and pictures only, and needs no torch.

    Args:
        runs: run folders; several are shown side by side, and compared where they are alike.
        out: folder of the report; the first run's without it.
        references: names of published rows to draw beside measured ones.
        workloads: names to keep; all if empty.
        weights: a file or folder of weights, or ``none``, by perceptual metric.
        fid: ask for FID, which is refused.
        say: gets a line before something that takes long.

    Raises:
        bench.store.StoreError: a run cannot be read, a name is wrong, or ``out`` cannot be written.
    """
    scores = perceptual.find(runs, weights or {})
    rows = [row for name in references for row in reference.load(name)]
    samples = gather.read(runs)
    with _unwatched():
        groups = gather.group(samples, workloads)
        comparisons = analyse.compare(groups)
        if fid:
            perceptual.refuse_fid(comparisons)
        scores.compute(comparisons, say)
        pictures = fidelity.Pictures(fidelity.known(runs))
        likenesses = [fidelity.judge(comparison, pictures) for comparison in comparisons]
        published = {
            place: found
            for place, group in enumerate(groups)
            if (found := reference.beside(rows, group))
        }
        drawing = figures.draw(comparisons, likenesses, published)
        galleries = gallery.collect(comparisons, likenesses, pictures, scores)
        told = view.build(
            comparisons, likenesses, galleries, published, scores, _audit(comparisons)
        )
        special = sections.build(comparisons)
        folder = (out or runs[0]).absolute()
        try:
            return _write(folder, told, drawing(), special)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise gather.ReportError(
                f"the report cannot be written to {folder}: {why}; choose another folder with "
                "--out."
            ) from error


@contextmanager
def _unwatched() -> Iterator[None]:
    """Keep the search for cycles from walking all samples, time and again, as the report grows."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _audit(comparisons: Sequence[analyse.Comparison]) -> list[audit.Audited]:
    """Audit the reported records of each run, numbered as ``bench audit`` numbers them."""
    samples = [s for c in comparisons for f in c.findings for s in f.row.recorded]
    found = []
    for source in {id(s.source): s.source for s in samples}.values():
        own = sorted((s for s in samples if s.source is source), key=lambda s: s.number)
        table = of_records(
            source.label, [s.audited for s in own if s.audited], [s.number for s in own]
        )
        found.append(audit.examine(table))
    return found


def _write(
    folder: Path,
    told: view.View,
    drawn: Sequence[figures.Drawn],
    special: Sequence[sections.Section],
) -> Report:
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for one in drawn:
        (folder / "plots" / f"{one.name}.png").write_bytes(one.png)
        (folder / "plots" / f"{one.name}.svg").write_bytes(one.svg)
    # An earlier report's figures would be taken for this one's.
    for name in {*figures.NAMES, *sections.figures([])} - {one.name for one in drawn}:
        for kind in ("png", "svg"):
            (folder / "plots" / f"{name}.{kind}").unlink(missing_ok=True)
    columns = [column for workload in told.workloads for column in workload.gallery.shown]
    shown = [picture for section in special for picture in section.pictures]
    if columns or shown:
        (folder / "gallery").mkdir(exist_ok=True)
    for picture in shown:
        (folder / "gallery" / f"{picture.name}.png").write_bytes(picture.png)
    for column in columns:
        assert column.png is not None
        (folder / "gallery" / f"{column.name}.png").write_bytes(column.png)
        if column.difference is not None:
            path = folder / "gallery" / f"{column.name}-difference.png"
            path.write_bytes(column.difference)
    report = Report(folder / "report.html", folder / "REPORT.md", told)
    _replace(report.markdown, markdown.render(told, drawn, special))
    _replace(report.page, html.render(told, drawn, special))
    return report


def _replace(path: Path, content: str) -> None:
    """Write a file so that a reader sees the old page or the new one, never half of one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content, encoding="utf-8", errors="replace")
    os.replace(partial, path)
