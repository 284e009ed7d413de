"""Records to findings: what fits, the law of its memory, cards, and the best batch.

What was measured and what a law predicts are kept apart: `Capacity.batches` and `Capacity.sizes`
hold measured limits alone, `Capacity.cards` predictions alone.
"""

from __future__ import annotations

import bisect
import json
import math
import os.path
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.passes.capacity.search import Answer
from bench.records import Record, alike
from bench.sizes import LEAST_MULTIPLE, scaled
from bench.stats.bootstrap import speedup
from bench.stats.median import MedianInterval, median_interval
from bench.stats.memory_law import MemoryLaw, fit_memory
from bench.text import GIB, plural

FITTED = ("ok", "fallback", "invalid")
"""Outcomes of cells that went through all phases; what they drew does not matter here."""
RESERVED, RSS = "torch.max_memory_reserved", "rss"
"""Meters of what has to fit: all that torch holds of a device, and all that a process holds of the
host. What torch has allocated is less than what a card must have."""
CARDS_GIB = (6, 8, 12, 16, 24, 48, 80)
ASSUMED_CONTEXT_BYTES = 6 * GIB // 10
"""Of a CUDA context with its libraries' workspaces, where a run did not measure it."""
LARGEST_CONTEXT_BYTES = 2 * GIB
"""More than this beside torch belongs to other processes."""
ERROR = 0.05

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One record of one cell: whether it fits, how much it took and how long.

    ``peak_bytes`` is the largest value of ``meter`` in any phase, None if it did not reach the end.
    ``beside_bytes`` is what the device held besides, as a context does; None where unknown.
    ``images`` are those of one call. ``asked`` and ``output`` are sizes.
    """

    subject: str
    name: str
    batch: int
    images: int
    height: int
    width: int
    outcome: str
    reason: str | None
    meter: str
    peak_bytes: int | None
    beside_bytes: int | None
    limit_bytes: int | None
    e2e_s: tuple[float, ...]
    record_id: str
    asked: Size | None = None
    output: Size | None = None
    dominated_by: str | None = None

    @property
    def pixels(self) -> int:
        """Of one image."""
        return self.height * self.width

    @property
    def size(self) -> Size:
        return self.height, self.width

    @property
    def answer(self) -> Answer:
        """Whether it fits: a failure of another kind says nothing of that."""
        if self.outcome in FITTED:
            return "fits"
        dominated = self.outcome == "skipped" and self.dominated_by is not None
        return "oom" if self.outcome == "oom" or dominated else "unknown"


def of_record(record: Record) -> Trial:
    """Return the trial that a record is."""
    asked, peaks = record.workload, record.peaks
    cuda = record.actual_device.startswith("cuda")
    rss = (meter for meter, _ in peaks if meter.startswith(RSS))
    meter = RESERVED if cuda else next(rss, RSS)
    complete = record.outcome in FITTED
    values = (value for (name, _), value in peaks.items() if name == meter)
    beside = [
        used - peaks[RESERVED, phase]
        for (name, phase), used in peaks.items()
        if name == "device_used" and used > peaks.get((RESERVED, phase), used)
    ]
    return Trial(
        subject=alike.but_for_size(record.cell.raw, record.actual_device),
        name=asked.name,
        batch=asked.batch,
        images=asked.images_per_call,
        height=asked.height,
        width=asked.width,
        outcome=record.outcome,
        reason=record.reason,
        meter=meter,
        peak_bytes=max(values, default=None) if complete else None,
        beside_bytes=min(beside, default=None),
        limit_bytes=record.memory_limit.limit_bytes,
        e2e_s=record.e2e_s if complete else (),
        record_id=record.record_id,
        asked=_size(asked.asked_height, asked.asked_width),
        output=_size(record.output_height, record.output_width),
        dominated_by=record.dominated_by,
    )


def _size(height: int | None, width: int | None) -> Size | None:
    return None if height is None or width is None else (height, width)


@dataclass(frozen=True, slots=True)
class Limit:
    """What was measured at the edge: the largest that fits, and the smallest that does not.

    None if there is no such trial. ``exact`` says that nothing lies between them.
    """

    at: str
    fits: Trial | None
    fails: Trial | None
    exact: bool


@dataclass(frozen=True, slots=True)
class Card:
    """What a law predicts for a card.

    ``batch`` and ``side`` are the largest that the law expects to fit into ``usable_bytes``;
    ``sure_batch`` and ``sure_side`` those that fit by the upper bound of its prediction interval,
    None without one. ``beyond`` says that one of them lies outside of what was measured. ``side``
    and ``sure_side`` are None where the points have one size.
    """

    gib: int
    usable_bytes: int
    batch: int
    sure_batch: int | None
    side: Size | None
    sure_side: Size | None
    beyond: bool


@dataclass(frozen=True, slots=True)
class PerImage:
    """Seconds for each image of a batch: the median over calls, with its interval."""

    batch: int
    time: MedianInterval
    calls: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Capacity:
    """All that the trials of one workload, backend, device and set of limits say.

    ``base`` is the size at which batches were tried and ``base_batch`` the batch at which sizes
    were.
    """

    name: str
    subject: str
    meter: str
    limit_bytes: int | None
    trials: tuple[Trial, ...]
    base: Size
    base_batch: int
    batches: Limit
    sizes: Limit
    law: MemoryLaw | None
    points: tuple[Trial, ...]
    no_law: str | None
    reserve_bytes: int
    reserve_says: str
    cards: tuple[Card, ...]
    per_image: tuple[PerImage, ...]
    best: PerImage | None
    best_says: str


def capacities(
    trials: Iterable[Trial],
    *,
    searches: Callable[[str], Mapping[str, Any]] = lambda _subject: {},
) -> list[Capacity]:
    """Return the findings of each workload among ``trials``, in the order of their first trial.

    Args:
        searches: `bench.config.Plan.search` by subject; empty for trials that no search made.
    """
    by_subject: dict[str, list[Trial]] = {}
    for trial in trials:
        by_subject.setdefault(trial.subject, []).append(trial)
    names = names_of(list(by_subject.values()))
    return [
        _capacity(group, name, searches(subject))
        for name, (subject, group) in zip(names, by_subject.items(), strict=True)
    ]


def fit(trials: Sequence[Trial]) -> tuple[MemoryLaw | None, list[Trial], str | None]:
    """Return the law of what fitted, the trials it is through, and why there is none."""
    points = [(t, float(t.peak_bytes)) for t in trials if t.peak_bytes]
    fitted = [t for t, _ in points]
    meters = {t.meter for t in fitted}
    if len(meters) > 1:
        return None, [], f"the trials were read by different meters ({', '.join(sorted(meters))})"
    if len({(t.pixels, t.batch) for t in fitted}) < 3:
        why = "a law needs at least 3 different trials that fit and have a memory figure"
        return None, fitted, why
    try:
        law = fit_memory(
            [t.pixels for t in fitted], [t.batch for t in fitted], [value for _, value in points]
        )
    except ValueError as error:
        return None, fitted, str(error)
    if law.per_pixel_bytes + law.per_pixel2_bytes <= 0:
        return None, fitted, "memory does not grow with the images in these trials"
    return law, fitted, None


def names_of(groups: Sequence[Sequence[Trial]]) -> list[str]:
    """Return a name for each group of trials, with what tells it from others of that name."""
    named = [(_common_name(group), _facts(group[0].subject)) for group in groups]
    names = []
    for name, facts in named:
        rivals = [other for rival, other in named if rival == name]
        apart = [
            f"{key} {_brief(value)}"
            for key, value in facts.items()
            if any(repr(other.get(key)) != repr(value) for other in rivals)
        ]
        names.append(", ".join([name, *apart]))
    return names


def _facts(subject: str) -> dict[str, Any]:
    """Return what a subject is, without its nesting."""
    try:
        facts: dict[str, Any] = json.loads(subject)
    except ValueError:
        return {}
    workload, backend, limits = (facts.pop(name) for name in ("workload", "backend", "limits"))
    return {**workload, "backend": backend["name"], "options": backend["options"],
            "environment": backend["environment"], **facts,
            **{f"limit {name}": value for name, value in limits.items()}}  # fmt: skip


def _brief(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _common_name(trials: Sequence[Trial]) -> str:
    """Return what the names of these trials' workloads begin with alike."""
    # A search names its trials after what they try; see bench.passes.capacity.planned.
    names = [re.sub(r"-\d+x\d+-b\d+$", "", trial.name) for trial in trials]
    same = os.path.commonprefix(names)  # noqa: RUF071 - characters are meant
    return same.strip("-_/. ") or trials[0].name


def law_text(law: MemoryLaw) -> str:
    """Return the law as a formula with its units."""
    text = f"{law.constant_bytes / GIB:.3f} GiB"
    text += f" + {law.per_pixel_bytes / 1024:.4g} KiB x pixels x batch"
    if law.form == "quadratic":
        text += f" + {law.per_pixel2_bytes:.3g} B x pixels^2 x batch"
    return text


def size_text(size: Size) -> str:
    """Return (height, width) as ``WIDTHxHEIGHT``."""
    return f"{size[1]}x{size[0]}"


def counted(found: Capacity) -> str:
    """Return how many trials there were, those that were skipped apart."""
    skipped = sum(trial.outcome == "skipped" for trial in found.trials)
    tried = plural(len(found.trials) - skipped, "trial")
    return f"{tried}, {skipped} skipped" if skipped else tried


def limit_says(limit: Limit, what: str) -> str:
    """Return a sentence on what was measured; ``what`` is ``batch`` or ``size``."""
    fits, fails = (
        trial and (str(trial.batch) if what == "batch" else size_text(trial.size))
        for trial in (limit.fits, limit.fails)
    )
    head = f"largest {what} {limit.at}"
    if fits is None and fails is None:
        return f"{head}: no trial says"
    if fits is None:
        return f"{head}: none fits; {fails} ran out of memory already"
    if fails is None:
        return f"{head}: at least {fits}; nothing that was tried ran out of memory"
    between = "" if limit.exact else ", and nothing between was tried"
    return f"{head}: {fits}; {fails} ran out of memory{between}"


def law_says(found: Capacity) -> str:
    """Return a sentence on the law, or why there is none."""
    if found.law is None:
        return f"no law of memory: {found.no_law}"
    law = found.law
    text = f"{law.form} law of {found.meter} over {law.n} trials: {law_text(law)}; {law.why}"
    off = [t for t, out in zip(found.points, law.outliers, strict=True) if out]
    if off:
        names = ", ".join(f"{size_text(t.size)} at batch {t.batch}" for t in off)
        text += f"; off the law and without weight in it: {names}"
    if law.lack_of_fit:
        text += f". Take care: {law.lack_of_fit}"
    return text


def _capacity(trials: list[Trial], name: str, search: Mapping[str, Any]) -> Capacity:
    base, base_batch = _base(trials)
    multiple = search.get("multiple") or LEAST_MULTIPLE
    aspect = search.get("aspect") or base[1] / base[0]
    law, points, no_law = fit(trials)
    reserve, says = _reserve(trials)
    across = [t for t in trials if t.size == base]
    per_image = _per_image(across)
    best, best_says = _best(per_image)
    alike = [t for t in trials if t.batch == base_batch and _shape(t, aspect, multiple)]
    return Capacity(
        name=name,
        subject=trials[0].subject,
        meter=(points or trials)[0].meter,
        limit_bytes=next((t.limit_bytes for t in trials if t.limit_bytes), None),
        trials=tuple(trials),
        base=base,
        base_batch=base_batch,
        batches=_limit(f"at {size_text(base)}", across, lambda t: t.batch, 1),
        sizes=_limit(f"at batch {base_batch}", alike, lambda t: t.height, multiple),
        law=law,
        points=tuple(points),
        no_law=no_law,
        reserve_bytes=reserve,
        reserve_says=says,
        cards=tuple(
            _card(law, gib, reserve, base, base_batch, multiple, aspect)
            for gib in CARDS_GIB
            if law is not None
        ),
        per_image=tuple(per_image),
        best=best,
        best_says=best_says,
    )


def _base(trials: Sequence[Trial]) -> tuple[Size, int]:
    """Return the size with the most batches, and the batch with the most sizes; smaller first."""
    tried = dict.fromkeys((t.size, t.batch) for t in trials)
    batches = Counter(size for size, _ in tried)
    sizes = Counter(batch for _, batch in tried)
    base = max(batches, key=lambda size: (batches[size], -size[0] * size[1]))
    return base, max(sizes, key=lambda batch: (sizes[batch], -batch))


def _shape(trial: Trial, aspect: float, multiple: int) -> bool:
    """Whether a size has the shape ``aspect``, width over height; rounding moves it a little."""
    wanted = trial.height * aspect
    return abs(trial.width - wanted) <= max(0.1 * wanted, multiple / 2 + 1)


def _limit(at: str, trials: Sequence[Trial], number: Callable[[Trial], int], step: int) -> Limit:
    fails = min((t for t in trials if t.answer == "oom"), key=number, default=None)
    # What fits above what ran out is not believed.
    fitting = (
        t for t in trials if t.answer == "fits" and (fails is None or number(t) < number(fails))
    )
    fits = max(fitting, key=number, default=None)
    exact = fits is not None and fails is not None and number(fails) - number(fits) <= step
    return Limit(at, fits, fails, exact)


def _reserve(trials: Sequence[Trial]) -> tuple[int, str]:
    """Return what a card must hold besides what the meter sees, and how that is known."""
    if trials[0].meter != RESERVED:
        return 0, (
            "nothing is set aside, since rss holds the whole process; these are amounts of host "
            "memory and say nothing of a GPU, which holds neither Python nor torch's libraries"
        )
    measured = min((t.beside_bytes for t in trials if t.beside_bytes is not None), default=0)
    if 0 < measured <= LARGEST_CONTEXT_BYTES:
        return measured, (
            f"{measured / GIB:.2f} GiB is set aside for the CUDA context, as measured here "
            "(device_used less what torch had reserved)"
        )
    return ASSUMED_CONTEXT_BYTES, (
        f"{ASSUMED_CONTEXT_BYTES / GIB:.2f} GiB is set aside for the CUDA context, an assumption: "
        "this run could not tell it from other processes"
    )


def _card(
    law: MemoryLaw,
    gib: int,
    reserve: int,
    base: Size,
    base_batch: int,
    multiple: int,
    aspect: float,
) -> Card:
    usable = gib * GIB - reserve

    def size(units: int) -> Size:
        return scaled(units, multiple, aspect) if units else (0, 0)

    def high(pixels: int, batch: int) -> float:
        return law.predict(pixels, batch).high or math.inf

    pixels = math.prod(base)
    batch = law.largest_batch(pixels, usable)
    most = law.largest_pixels(base_batch, usable)
    # Rounding may make a width narrower than the shape, and then one more step fits.
    units = int(math.sqrt(most / aspect) / multiple) + 2 if math.isfinite(most) else 0
    while units and math.prod(size(units)) > most:
        units -= 1
    side = size(units)
    beyond = not law.predict(pixels, max(batch, 1)).inside
    if law.knows_sizes and units:
        beyond |= not law.predict(math.prod(side), base_batch).inside
    sure_batch: int | None = None
    sure_side: Size | None = None
    if law.df >= 1:
        sure_batch = _below(batch, lambda n: high(pixels, n), usable)
        sure_side = size(_below(units, lambda n: high(math.prod(size(n)), base_batch), usable))
    return Card(
        gib,
        usable,
        batch,
        sure_batch,
        side if law.knows_sizes else None,
        sure_side if law.knows_sizes else None,
        beyond,
    )


def _below(most: int, high: Callable[[int], float], usable: float) -> int:
    """Return the largest number up to ``most`` whose upper bound is within ``usable``."""
    return bisect.bisect_right(range(1, most + 1), usable, key=high)


def _per_image(trials: Sequence[Trial]) -> list[PerImage]:
    by_batch: dict[int, list[float]] = {}
    for trial in trials:
        if trial.e2e_s and trial.outcome == "ok":
            by_batch.setdefault(trial.batch, []).extend(t / trial.images for t in trial.e2e_s)
    return [
        PerImage(batch, median_interval(calls), tuple(calls))
        for batch, calls in sorted(by_batch.items())
    ]


def _best(per_image: Sequence[PerImage]) -> tuple[PerImage | None, str]:
    """Return the batch with the least time for an image, and what that is worth."""
    if not per_image:
        return None, "no trial has a time"
    best, first = min(per_image, key=lambda each: each.time.median), per_image[0]
    if len(per_image) == 1:
        return best, f"batch {best.batch} is the only one with a time"
    others = len(per_image) - 1
    if best is first:
        return best, (
            f"no batch is better than {first.batch}: none of the {others} larger ones takes "
            "less time for an image"
        )
    gain = speedup([list(first.calls)], [list(best.calls)], level=1 - ERROR / others)
    gained = f"{gain.ratio:.2f} times as many images per second as batch {first.batch}"
    if gain.low is None or gain.high is None:
        return best, f"{gained}, from one call each: that is no proof"
    interval = (
        f"interval {gain.low:.2f} to {gain.high:.2f}, the error shared among {others} batches"
    )
    if gain.low <= 1:
        return best, (
            f"no batch is clearly better than {first.batch}: batch {best.batch} makes {gained}, "
            f"and the {interval} holds 1"
        )
    return best, f"batch {best.batch} makes {gained} ({interval})"
