"""Stored images compared: the baseline with itself in another process, backends with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench import fidelity, files
from bench.records import Image, Record
from bench.records.arms import Arm
from bench.records.read import RecordError, checked
from bench.store import StoreError
from bench.store.journal import why
from reports.analyse import Comparison, Finding

THRESHOLD_DB = fidelity.THRESHOLD_DB
KEPT = "fidelity.json"
"""Beside the records of a run whose images were too large to keep."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An image of a record, in the folder of its run."""

    run: Path
    image: Image
    record_id: str

    @property
    def path(self) -> Path:
        """Where it lies; raise OSError if that is not in the run folder."""
        return files.inside(self.run, self.image.path)

    @property
    def sha256(self) -> str:
        return self.image.sha256

    @property
    def place(self) -> tuple[int, int]:
        """Its seed and its index, which a reference must share."""
        return self.image.seed, self.image.index


def images(arm: Arm, record: Record) -> list[Stored]:
    return [Stored(arm.source.path, image, record.record_id) for image in record.images]


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its reference; ``problem`` is why they are not compared."""

    reference: Stored
    picture: Stored
    figures: fidelity.Comparison | None
    problem: str | None = None


@dataclass(slots=True)
class Likeness:
    """What is known of one row's pictures. ``why`` is the reason if there is no verdict."""

    pairs: list[Pair] = field(default_factory=list)
    control: list[Pair] = field(default_factory=list)
    verdict: fidelity.FidelityVerdict | None = None
    why: str | None = None

    @property
    def worst(self) -> Pair | None:
        """The pair furthest apart; an identical one if all are."""
        compared = [p for p in self.pairs if p.figures is not None]
        return min(compared, key=lambda p: _distance(p.figures), default=None)


def _distance(figures: fidelity.Comparison | None) -> float:
    if figures is None or figures.identical:
        return float("inf")
    return -1.0 if figures.psnr_db is None else figures.psnr_db


class Pictures:
    """Reads images once, and compares equal pairs once."""

    def __init__(self, known: Mapping[str, fidelity.Comparison] | None = None) -> None:
        self._known = dict(known or {})
        self._compared: dict[tuple[str, str], tuple[fidelity.Comparison | None, str | None]] = {}
        self._checked: dict[tuple[Path, str], str | None] = {}

    def problem(self, picture: Stored) -> str | None:
        """Return why an image cannot be shown: gone, unreadable, or not the record's."""
        place = picture.run, picture.image.path
        if place not in self._checked:
            self._checked[place] = _problem(picture)
        return self._checked[place]

    def compare(
        self, reference: Stored, picture: Stored
    ) -> tuple[fidelity.Comparison | None, str | None]:
        earlier = self._known.get(f"{reference.sha256} {picture.sha256}")
        if earlier is not None:
            return earlier, None
        for one in (reference, picture):
            problem = self.problem(one)
            if problem is not None:
                return None, problem
        key = (reference.sha256, picture.sha256)
        if key not in self._compared:
            try:
                both = files.image(reference.path), files.image(picture.path)
                found = fidelity.compare(*both)
            except (OSError, ValueError) as error:
                self._compared[key] = None, str(error)
            else:
                self._compared[key] = found, None
        return self._compared[key]

    def figures(self) -> dict[str, fidelity.Comparison]:
        """Return every comparison made, by the digests of its two pictures."""
        made = {f"{a} {b}": found for (a, b), (found, _) in self._compared.items() if found}
        return {**self._known, **made}


def known(runs: Sequence[Path]) -> dict[str, fidelity.Comparison]:
    """Return the comparisons that runs keep beside their records, of images that may be gone.

    A comparison is found by the digests that the records hold, so it can be no other images'.
    """
    found: dict[str, fidelity.Comparison] = {}
    for run in runs:
        file = run / KEPT
        try:
            kept = checked(_kept, files.read(files.inside(run, KEPT)))
        except FileNotFoundError:
            continue
        except (OSError, RecordError) as error:
            raise StoreError(f"{file} does not hold comparisons of images: {error}") from error
        found.update(kept)
    return found


_kept = msgspec.json.Decoder(dict[str, fidelity.Comparison])


def _problem(picture: Stored) -> str | None:
    shown = picture.image.path
    try:
        pixels = files.image(picture.path)
    except FileNotFoundError:
        return f"the image {shown} is gone"
    except OSError as error:
        return f"the image {shown} cannot be read ({why(error)})"
    if picture.sha256 and hashlib.sha256(pixels.tobytes()).hexdigest() != picture.sha256:
        return f"{shown} is not the image that its record describes"
    return None


def judge(comparison: Comparison, pictures: Pictures) -> dict[int, Likeness]:
    """Compare the images of every arm with its baseline's; by the index of the finding.

    The reference is the baseline's first process; its further processes are the control.
    """
    found: dict[int, Likeness] = {}
    for index, finding in enumerate(comparison.findings):
        if finding.arm.is_baseline or not finding.ok:
            continue
        if finding.baseline is None:
            found[index] = Likeness(why=_why_none(finding))
            continue
        found[index] = likeness(finding, finding.baseline, pictures)
    return found


def _why_none(finding: Finding) -> str:
    if finding.not_comparable:
        return f"not comparable with the baseline: {finding.not_comparable}"
    return "there is no baseline"


def likeness(finding: Finding, baseline: Finding, pictures: Pictures) -> Likeness:
    """Compare the images of one arm with another's, whose further processes are the control."""
    found = Likeness(
        pairs=_pairs(baseline.arm, finding.arm, finding.arm.good, pictures),
        control=_pairs(baseline.arm, baseline.arm, baseline.arm.good[1:], pictures),
    )
    compared = [p.figures for p in found.pairs if p.figures is not None]
    control = [p.figures for p in found.control if p.figures is not None]
    if not compared:
        problems = [p.problem for p in found.pairs if p.problem]
        found.why = problems[0] if problems else "no image of the same seed was stored"
        return found
    found.verdict = fidelity.verdict(control, compared, THRESHOLD_DB)
    return found


def _pairs(baseline: Arm, arm: Arm, records: Iterable[Record], pictures: Pictures) -> list[Pair]:
    return [
        Pair(reference, picture, *pictures.compare(reference, picture))
        for reference, picture in matches(baseline, arm, records)
    ]


def matches(baseline: Arm, arm: Arm, records: Iterable[Record]) -> list[tuple[Stored, Stored]]:
    """Return (reference, image) for each image of the records whose place the baseline's first
    process has too.
    """
    by_place = {each.place: each for each in images(baseline, baseline.good[0])}
    made = (each for record in records for each in images(arm, record))
    return [(by_place[each.place], each) for each in made if each.place in by_place]


def same(likeness: Likeness | None) -> str:
    """Answer "are the images the same?" in a few words."""
    if likeness is None:
        return "–"
    if likeness.verdict is None:
        return f"not compared: {likeness.why}"
    words = {
        "IDENTICAL": "yes, identical",
        "WITHIN NOISE": "yes, within the baseline's own noise",
        "CLOSE": "close, above the threshold",
        "VISIBLY DIFFERENT": "no, visibly different",
        "OTHER PICTURE": "no, another image",
        "INVALID": "no, an image is invalid",
    }
    return words[likeness.verdict.word]


def metrics(figures: fidelity.Comparison | None) -> list[tuple[str, str]]:
    """Return a comparison's figures as (name, text), with the reason where one is missing."""
    if figures is None:
        return []
    if figures.invalid:
        return [("invalid", figures.invalid)]
    return [
        ("max abs difference", f"{figures.max_abs} of 255"),
        ("PSNR", "∞ (identical)" if figures.psnr_db is None else f"{figures.psnr_db:.1f} dB"),
        ("SSIM", _or_reason(figures, "ssim", ".4f")),
        ("FLIP", _or_reason(figures, "flip", ".4f")),
    ]


def _or_reason(figures: fidelity.Comparison, name: str, spec: str) -> str:
    value = getattr(figures, name)
    return figures.null_reasons.get(name, "–") if value is None else format(value, spec)
