"""Run folders to a report folder: ``REPORT.md``, ``report.html``, ``plots/``, ``gallery/``."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import audit, files, text
from bench.audit.readers.runs import of_records
from bench.contract import Perceptual
from bench.records.arms import ArmGroup, Source, group
from bench.store import StoreError
from bench.store.load import load
from reports import (
    analyse,
    fidelity,
    figures,
    gallery,
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
    """Write the report of one or more runs. Reads records and images only, and needs no torch.

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
    sources = load(runs)
    with _unwatched():
        groups = chosen(group(sources), workloads)
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
        audited = [_audit(source, comparisons) for source in sources]
        shown = view.build(
            [source for source, one in zip(sources, audited, strict=True) if one],
            comparisons,
            likenesses,
            galleries,
            published,
            scores,
            [one for one in audited if one],
        )
        folder = (out or runs[0]).absolute()
        try:
            return _write(folder, shown, drawing())
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise StoreError(
                f"the report cannot be written to {folder}: {why}; choose another folder with "
                "--out."
            ) from error


def chosen(groups: Sequence[ArmGroup], workloads: Sequence[str]) -> list[ArmGroup]:
    """Return the groups of these workloads; all without any.

    Raises:
        StoreError: no group is of one of them.
    """
    names = text.listed(dict.fromkeys(each.cell.workload.name for each in groups), 12)
    found = [each for each in groups if not workloads or each.cell.workload.name in workloads]
    for name in workloads:
        if not any(each.cell.workload.name == name for each in found):
            raise StoreError(f"no workload is called {name!r}; there are: {names}")
    return found


@contextmanager
def _unwatched() -> Iterator[None]:
    """Keep the search for cycles from walking all records, time and again, as the report grows."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _audit(source: Source, comparisons: Sequence[analyse.Comparison]) -> audit.Audited | None:
    """Audit the reported records of a run, numbered as ``bench audit`` does; None without any."""
    findings = (f for c in comparisons for f in c.findings if f.arm.source is source)
    reported = {id(record) for f in findings for record in f.arm.records}
    records = [record for record in source.records if id(record) in reported]
    if not records:
        return None
    numbers = [source.numbers[id(record)] for record in records]
    return audit.examine(of_records(source.label, records, numbers))


def _write(folder: Path, shown: view.View, drawn: Sequence[figures.Drawn]) -> Report:
    plots = files.folder(folder / "plots")
    for one in drawn:
        files.write(plots / f"{one.name}.png", one.png)
        files.write(plots / f"{one.name}.svg", one.svg)
    # An earlier report's figures would be taken for this one's.
    for name in {*figures.NAMES, *sections.figures([])} - {one.name for one in drawn}:
        for kind in ("png", "svg"):
            (plots / f"{name}.{kind}").unlink(missing_ok=True)
    columns = [column for workload in shown.workloads for column in workload.gallery.shown]
    pictures = [picture for section in shown.sections for picture in section.pictures]
    shown_images = {picture.name: picture.png for picture in pictures}
    for column in columns:
        assert column.png is not None
        shown_images[column.name] = column.png
        if column.difference is not None:
            shown_images[f"{column.name}-difference"] = column.difference
    for name, png in shown_images.items():
        files.write(files.folder(folder / "gallery") / f"{name}.png", png)
    report = Report(folder / "report.html", folder / "REPORT.md", shown)
    files.write(report.markdown, text.plain(markdown.render(shown, drawn)))
    files.write(report.page, text.plain(html.render(shown, drawn)))
    return report
