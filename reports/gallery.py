"""Images of each workload: one column per backend, same seed, with amplified differences."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from bench import fidelity as measure
from bench import files
from reports import fidelity
from reports.analyse import Comparison, Finding
from reports.fidelity import Likeness, Pair, Pictures, Stored
from reports.perceptual import Scores

MOST_PICTURES = 120
"""Columns in one report; what is beyond keeps its figures and is not shown."""
SHOWN_SIDE = 512
"""Longest side at which images are embedded; figures are always of the full size."""
FACTORS = (1, 2, 5, 10, 20, 50, 100, 200)
"""By which a difference may be amplified: few, so that images of one factor can be compared."""
_BRIGHTEST_PCT = 99
"""Of the pixels that differ: so many must not be clipped. A lone speck would darken all others."""


@dataclass(frozen=True, slots=True)
class Column:
    """One backend's picture. ``png`` is a file, None if there is a ``problem``.

    ``difference`` is a file too, its values ``amplified`` times; both are None where there is
    nothing to compare with and where the images are ``identical``.
    """

    backend: str
    record: str
    caption: str
    name: str
    png: bytes | None
    width: int
    height: int
    difference: bytes | None = None
    amplified: int | None = None
    identical: bool = False
    metrics: list[tuple[str, str]] = field(default_factory=list)
    verdict: str = ""
    problem: str | None = None
    is_baseline: bool = False


@dataclass(frozen=True, slots=True)
class Gallery:
    """``note`` says what is not shown."""

    columns: list[Column] = field(default_factory=list)
    note: str = ""

    @property
    def shown(self) -> list[Column]:
        return [column for column in self.columns if column.png is not None]


def collect(
    comparisons: Sequence[Comparison],
    likenesses: Sequence[Mapping[int, Likeness]],
    pictures: Pictures,
    scores: Scores,
) -> list[Gallery]:
    """Return one gallery for each comparison, in order."""
    left = MOST_PICTURES
    galleries = []
    for number, (comparison, likeness) in enumerate(zip(comparisons, likenesses, strict=True), 1):
        columns = []
        skipped = 0
        for index, finding in enumerate(comparison.findings):
            if not any(record.images for record in finding.arm.good):
                continue
            if left <= 0:
                skipped += 1
                continue
            left -= 1
            column = _column(number, index, finding, likeness.get(index), pictures, scores)
            columns.append(column)
        note = f"{skipped} more backends have images that are not shown here." if skipped else ""
        galleries.append(Gallery(columns, note=note))
    return galleries


def _column(
    number: int,
    index: int,
    finding: Finding,
    likeness: Likeness | None,
    pictures: Pictures,
    scores: Scores,
) -> Column:
    """Show the worst image that was compared, else the first."""
    pair = likeness.worst if likeness else None
    arm = finding.arm
    first = next(record for record in arm.good if record.images)
    picture = pair.picture if pair else fidelity.images(arm, first)[0]
    slug = re.sub(r"[^a-z0-9]+", "-", arm.label.lower()).strip("-")[:40]
    name = f"{number:02d}-{index:02d}-{slug}"
    caption = f"seed {picture.image.seed}"
    problem = pictures.problem(picture)
    if problem is not None:
        return Column(
            arm.label, picture.record_id, caption, name, None, 0, 0, problem=problem,
            is_baseline=arm.is_baseline,
        )  # fmt: skip
    png, width, height, reduced = _embedded(picture)
    # A committed run may have kept one of two images, and how they compare.
    both = pair is not None and pictures.problem(pair.reference) is None
    difference, amplified = _difference(pair if both else None)
    if reduced:
        caption += f", shown at {reduced}"
    return Column(
        backend=arm.label,
        record=picture.record_id,
        caption=caption,
        name=name,
        png=png,
        width=width,
        height=height,
        difference=difference,
        amplified=amplified,
        identical=bool(pair and pair.figures and pair.figures.identical),
        metrics=[
            *(fidelity.metrics(pair.figures) if pair else []),
            *scores.metrics(pair.reference if pair else None, picture, arm.cell.workload.prompt),
        ],
        verdict=likeness.verdict.word if likeness and likeness.verdict else "",
        problem=likeness.why if likeness and not likeness.verdict else None,
        is_baseline=arm.is_baseline,
    )


def _embedded(picture: Stored) -> tuple[bytes, int, int, str]:
    image = files.image(picture.path)
    full = image.size
    file = _reduced(image)
    reduced = f"{image.width}×{image.height} of {full[0]}×{full[1]}" if image.size != full else ""
    return file, image.width, image.height, reduced


def _reduced(image: Image.Image) -> bytes:
    """Shrink an image to what is embedded and return it as a PNG file."""
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    file = io.BytesIO()
    image.save(file, format="png", optimize=True)
    return file.getvalue()


def _difference(pair: Pair | None) -> tuple[bytes | None, int | None]:
    if pair is None or pair.figures is None or pair.figures.invalid or pair.figures.identical:
        return None, None
    both = files.image(pair.reference.path), files.image(pair.picture.path)
    factor = amplification(measure.difference_picture(*both, amplify=1))
    pixels = measure.difference_picture(*both, amplify=factor)
    return _reduced(Image.fromarray(pixels)), factor


def amplification(difference: measure.Pixels) -> int:
    """Return the factor of `FACTORS` at which a difference is best seen.

    Args:
        difference: absolute, height x width x 3, 0 to 255.

    Returns:
        The largest that leaves 99 % of the pixels that differ unclipped; 1 if none differs.
    """
    largest = difference.max(axis=2)
    differing = largest[largest > 0]
    if not differing.size:
        return FACTORS[0]
    bright = float(np.percentile(differing, _BRIGHTEST_PCT))
    return max((f for f in FACTORS if f * bright <= 255), default=FACTORS[0])
