"""LPIPS and CLIP score of a report's images: known ones are read, the others computed first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from bench import fidelity, perceptual, text
from bench.contract import PERCEPTUAL, Perceptual
from bench.perceptual import SHOWN, Kept, Order, Question, Weights
from bench.records.arms import ArmGroup
from bench.store import StoreError
from bench.tasks import TASKS
from reports.analyse import Comparison, Finding
from reports.fidelity import Stored, images, matches

SYNTHETIC = "synthetic weights draw images without content"
REFERENCE = "it is the reference"


@dataclass(frozen=True, slots=True)
class Score:
    """One arm's scores, each None with its reason in ``reasons``.

    Attributes:
        lpips: largest distance of any of its images from the baseline's of the same seed.
        clip_score: mean over its pictures.
        clip_score_baseline: mean over the baseline's images of the same seeds.
        pictures: how many seeds there are; rounds repeat them and add none.
        prompt_cut: whether the prompt was longer than CLIP's text encoder takes.
    """

    lpips: float | None = None
    clip_score: float | None = None
    clip_score_baseline: float | None = None
    pictures: int = 0
    prompt_cut: bool = False
    reasons: Mapping[Perceptual, str] = field(default_factory=dict)

    @property
    def clip_score_difference(self) -> float | None:
        if self.clip_score is None or self.clip_score_baseline is None:
            return None
        return self.clip_score - self.clip_score_baseline


class Scores:
    """What is known of pictures. ``why`` says of a metric why nothing, or nothing more, is."""

    def __init__(
        self, kept: Kept, weights: Mapping[Perceptual, Weights], why: Mapping[Perceptual, str]
    ) -> None:
        self.weights = dict(weights)
        self.why = dict(why)
        self._kept = kept
        self._reasons: dict[Question | Perceptual, str] = {}

    def compute(
        self, comparisons: Sequence[Comparison], say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Have what is missing computed, where there are weights; ``say`` gets one line before."""
        wanted: dict[Question, Order] = {}
        for comparison in comparisons:
            for finding in comparison.findings:
                for order in _orders(comparison.group, finding):
                    own = self.weights.get(order.question.metric)
                    if own is None or own.path is None:
                        continue
                    self._kept.use(order.run, own)
                    if self.value(order.question) is None:
                        wanted.setdefault(order.question, order)
        if wanted:
            used = {m: w for m, w in self.weights.items() if any(q.metric == m for q in wanted)}
            names = [SHOWN[metric] for metric in PERCEPTUAL if metric in used]
            say(f"Computing {' and '.join(names)} ({text.plural(len(wanted), 'value')}) …")
            self._reasons = perceptual.compute(used, list(wanted.values()), self._kept)
        for metric in PERCEPTUAL:
            if metric in self._reasons:
                self.why[metric] = self._reasons[metric]

    def value(self, question: Question) -> float | None:
        weights = self.weights.get(question.metric)
        return None if weights is None else self._kept.get(weights, question)

    def metrics(
        self, reference: Stored | None, picture: Stored, prompt: str
    ) -> list[tuple[str, str]]:
        """Return an image's known scores as (name, text); those of edits and noise are none."""
        distance = None
        if reference is not None:
            distance = self.value(Question("lpips", picture.sha256, reference.sha256))
        fit = self.value(Question("clip_score", picture.sha256, prompt))
        return [
            *([] if distance is None else [(SHOWN["lpips"], lpips(distance))]),
            *([] if fit is None else [(SHOWN["clip_score"], clip_score(fit))]),
        ]

    def of(self, group: ArmGroup, finding: Finding) -> Score:
        """Return an arm's scores, from what is known."""
        reasons: dict[Perceptual, str] = {}
        pairs = _pairs(finding)
        distances = [
            Question("lpips", picture.sha256, reference.sha256)
            for reference, picture in pairs
            if reference is not None
        ]
        reason = None
        if not pairs:
            reason = "there is no image of its own and of the baseline's at the same seed"
        elif finding.arm.is_baseline:
            reason = REFERENCE
        own, reference_scores = _captioned(group.cell.workload.prompt, pairs)
        lpips = self._all(distances, "lpips", reasons, reason)
        reason = why_no_clip_score(group) or (None if pairs else reason)
        clip = self._all(own, "clip_score", reasons, reason)
        weights = self.weights.get("clip_score")
        base = self._all(reference_scores, "clip_score", {}, None)
        return Score(
            lpips=None if lpips is None else max(lpips),
            clip_score=None if clip is None else fmean(clip),
            clip_score_baseline=None if clip is None or base is None else fmean(base),
            pictures=len({picture.place for _, picture in pairs}),
            prompt_cut=weights is not None and any(self._kept.cut(weights, q) for q in own),
            reasons=reasons,
        )

    def _all(
        self,
        questions: Sequence[Question],
        metric: Perceptual,
        reasons: dict[Perceptual, str],
        reason: str | None,
    ) -> list[float] | None:
        """Return the values if all are known, else None with the reason in ``reasons``."""
        found = [self.value(question) for question in questions]
        values = [value for value in found if value is not None]
        if reason is None and found and len(values) == len(found):
            return values
        if metric not in self.weights:
            reason = self.why.get(metric, reason)
        lacking = [q for q, value in zip(questions, found, strict=True) if value is None]
        told = [self._reasons[q] for q in lacking if q in self._reasons]
        reasons[metric] = reason or next(iter(told), self.why.get(metric, "it was not computed"))
        return None

    def method(self) -> list[str]:
        """Return what a report says of these metrics: how they are defined, or why they lack."""
        said = []
        for metric in PERCEPTUAL:
            weights = self.weights.get(metric)
            if weights is None:
                said.append(f"{SHOWN[metric]} is left out: {self.why[metric].rstrip('.')}.")
                continue
            lack = self.why.get(metric)
            known = (
                "Not complete" if weights.path else "From an earlier report; no more is computed"
            )
            more = f" {known}: {lack.rstrip('.')}." if lack else ""
            said.append(f"{_DEFINITIONS[metric]} Weights: {weights}.{more}")
        return said


_DEFINITIONS: Mapping[Perceptual, str] = {
    "lpips": "LPIPS (Zhang et al., CVPR 2018, version 0.1) is a learned distance between two "
    "images, 0 for equal ones; of a backend the largest of its images is given. It enters no "
    "verdict.",
    "clip_score": "CLIP score is 100 × max(cosine of image and prompt, 0), as torchmetrics "
    "scales the score of Hessel et al., EMNLP 2021. It is a mean over seeds, without an interval, "
    "differs by several points from seed to seed, and enters no verdict.",
}


def lpips(value: float | None) -> str:
    if value is None:
        return text.DASH
    # Rounded to nothing, a small distance would read as equal pictures.
    return f"{value:.4f}" if value == 0 or value >= 0.001 else f"{value:.1e}"


def clip_score(value: float | None, sign: str = "") -> str:
    return text.DASH if value is None else f"{value:{sign}.2f}"


def find(runs: Sequence[Path], asked: Mapping[Perceptual, str]) -> Scores:
    """Return what is kept beside runs, with the weights to compute the rest.

    Args:
        runs: run folders.
        asked: what the user named on the command line, by metric.

    Raises:
        bench.perceptual.WeightsError: what was asked for cannot be used.
    """
    kept = Kept(runs)
    weights: dict[Perceptual, Weights] = {}
    why: dict[Perceptual, str] = {}
    for metric in PERCEPTUAL:
        found, reason = perceptual.find(metric, asked.get(metric), os.environ)
        if found is not None:
            weights[metric] = found
            continue
        assert reason is not None
        why[metric] = reason
        if metric in kept.weights and not perceptual.left_out(
            metric, asked.get(metric), os.environ
        ):
            weights[metric] = kept.weights[metric]
    return Scores(kept, weights, why)


def known(runs: Sequence[Path]) -> Scores:
    """Return what is kept beside runs, of the weights that a report used last."""
    kept = Kept(runs)
    why = {m: "bench report has computed none" for m in PERCEPTUAL if m not in kept.weights}
    return Scores(kept, kept.weights, why)


def why_no_clip_score(group: ArmGroup) -> str | None:
    """Return why a CLIP score would mean nothing for this workload; a task may have a reason."""
    task = group.cell.workload.task
    section = TASKS.part(task, "section") if task in TASKS.names() else None
    why: str | None = getattr(section, "NO_CLIP_SCORE", None)
    return why or (SYNTHETIC if group.synthetic else None)


def why_no_fid(comparisons: Iterable[Comparison]) -> str:
    """Return why there is no FID of these images: too few, or not offered."""
    counts = (
        len({image.sha256 for record in finding.arm.good for image in record.images})
        for comparison in comparisons
        for finding in comparison.findings
    )
    return fidelity.why_no_fid(max(counts, default=0)) or fidelity.NO_FID


def refuse_fid(comparisons: Iterable[Comparison]) -> None:
    """Raise StoreError with `why_no_fid`."""
    raise StoreError(why_no_fid(comparisons))


def _orders(group: ArmGroup, finding: Finding) -> Iterable[Order]:
    run = finding.arm.source.path
    prompt = group.cell.workload.prompt
    for reference, picture in _pairs(finding):
        if not picture.sha256:
            continue
        try:
            if reference is not None and reference.sha256:
                question = Question("lpips", picture.sha256, reference.sha256)
                yield Order(question, picture.path, reference.path, run)
            if why_no_clip_score(group) is None:
                yield Order(Question("clip_score", picture.sha256, prompt), picture.path, None, run)
        except OSError:
            continue  # it lies outside its run; `fidelity` says so


def _pairs(finding: Finding) -> list[tuple[Stored | None, Stored]]:
    """Return each image with the baseline's of its seed; the baseline's own with None."""
    if not finding.ok:
        return []
    arm = finding.arm
    if arm.is_baseline:
        return [(None, picture) for picture in images(arm, arm.good[0])]
    if finding.baseline is None:
        return []
    return [*matches(finding.baseline.arm, arm, arm.good)]


def _captioned(
    prompt: str, pairs: Iterable[tuple[Stored | None, Stored]]
) -> tuple[list[Question], list[Question]]:
    """Return the questions of CLIP scores: of the images, and of their references."""
    both = [(reference or picture, picture) for reference, picture in pairs]
    return (
        [Question("clip_score", picture.sha256, prompt) for _, picture in both],
        [Question("clip_score", reference.sha256, prompt) for reference, _ in both],
    )
