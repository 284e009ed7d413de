"""Trials of one workload to findings: what fits, the law of its memory, cards, and the best batch.

What was measured and what a law predicts are kept apart: `Capacity.batches` and `Capacity.sizes`
hold measured limits alone, `Capacity.cards` predictions alone.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.capacity.trials import RESERVED, Trial
from bench.config.sizes import LEAST_MULTIPLE, scaled
from bench.stats.bootstrap import speedup
from bench.stats.median import MedianInterval, median_interval
from bench.stats.memory_law import MemoryLaw, fit_memory

GIB = 1024**3
CARDS_GIB = (6, 8, 12, 16, 24, 48, 80)
ASSUMED_CONTEXT_BYTES = 6 * GIB // 10
"""Of a CUDA context with its libraries' workspaces, where a run did not measure it."""
LARGEST_CONTEXT_BYTES = 2 * GIB
"""More than this beside torch belongs to other processes."""
ERROR = 0.05


@dataclass(frozen=True, slots=True)
class Limit:
    """What was measured at the edge: the largest that fits, and the smallest that does not.

    ``fits`` and ``fails`` are batches, or (height, width); None if there is no such trial.
    ``exact`` says that nothing lies between them.
    """

    at: str
    fits: Trial | None
    fails: Trial | None
    exact: bool


@dataclass(frozen=True, slots=True)
class Card:
    """What a law predicts for a card.

    ``batch`` and ``side`` (pixels of the height) are the largest that the law expects to fit into
    ``usable_bytes``; ``sure_batch`` and ``sure_side`` those that fit by the upper bound of its
    prediction interval, None without one. ``beyond`` says that one of them lies outside of what was
    measured. ``side`` and ``sure_side`` are None where the points have one size.
    """

    gib: int
    usable_bytes: int
    batch: int
    sure_batch: int | None
    side: tuple[int, int] | None
    sure_side: tuple[int, int] | None
    beyond: bool


@dataclass(frozen=True, slots=True)
class PerImage:
    """Seconds for each picture of a batch: the median over calls, with its interval."""

    batch: int
    time: MedianInterval
    calls: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Capacity:
    """All that the trials of one workload, backend, device and set of limits say.

    ``base`` is the (height, width) at which batches were tried and ``base_batch`` the batch at
    which sizes were.
    """

    name: str
    subject: str
    meter: str
    limit_bytes: int | None
    trials: tuple[Trial, ...]
    base: tuple[int, int]
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
        _capacity(group, name, searches(group[0].subject))
        for name, group in zip(names, by_subject.values(), strict=True)
    ]


def fit(trials: Sequence[Trial]) -> tuple[MemoryLaw | None, list[Trial], str | None]:
    """Return the law of what fitted, the trials it is through, and why there is none."""
    points = [t for t in trials if t.peak_bytes]
    meters = {t.meter for t in points}
    if len(meters) > 1:
        return None, [], f"the trials were read by different meters ({', '.join(sorted(meters))})"
    if len({(t.pixels, t.batch) for t in points}) < 3:
        return (
            None,
            points,
            ("a law needs at least 3 different trials that fit and have a memory figure"),
        )
    try:
        law = fit_memory(
            [t.pixels for t in points],
            [t.batch for t in points],
            [float(t.peak_bytes or 0) for t in points],
        )
    except ValueError as error:
        return None, points, str(error)
    if law.per_pixel_bytes + law.per_pixel2_bytes <= 0:
        return None, points, "memory does not grow with the pictures in these trials"
    return law, points, None


def names_of(groups: Sequence[Sequence[Trial]]) -> list[str]:
    """Return a name for each group of trials, with what tells it from others of that name."""
    plain = [_common_name(group) for group in groups]
    told = [_facts(group[0].subject) for group in groups]
    rivals: dict[str, list[dict[str, Any]]] = {}
    for name, facts in zip(plain, told, strict=True):
        rivals.setdefault(name, []).append(facts)
    varying = {
        name: {
            key for key in set().union(*every) if len({repr(facts.get(key)) for facts in every}) > 1
        }
        for name, every in rivals.items()
    }
    names = []
    for name, facts in zip(plain, told, strict=True):
        apart = [f"{key} {_brief(facts[key])}" for key in facts if key in varying[name]]
        names.append(", ".join([name, *apart]))
    return names


def _facts(subject: str) -> dict[str, Any]:
    """Return what a subject is, without its nesting."""
    try:
        told = json.loads(subject)
    except ValueError:
        return {}
    parts = [told.pop(name, None) or {} for name in ("workload", "limits")]
    backend = told.pop("backend", None) or {}
    return {**parts[0], "backend": backend.get("name"), "options": backend.get("options"),
            "environment": backend.get("environment"), **told,
            **{f"limit {name}": value for name, value in parts[1].items()}}  # fmt: skip


def _brief(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _common_name(trials: Sequence[Trial]) -> str:
    """Return what the names of these trials' workloads begin with alike."""
    # A search names its trials after what they try; see bench.capacity.planned.
    first, *others = [re.sub(r"-\d+x\d+-b\d+$", "", t.name) for t in trials]
    for other in others:
        same = next(
            (at for at, (a, b) in enumerate(zip(first, other, strict=False)) if a != b),
            min(len(first), len(other)),
        )
        first = first[:same]
    return first.strip("-_/. ") or trials[0].name


def law_text(law: MemoryLaw) -> str:
    """Return the law as a formula with its units."""
    text = f"{law.constant_bytes / GIB:.3f} GiB"
    text += f" + {law.per_pixel_bytes / 1024:.4g} KiB x pixels x batch"
    if law.form == "quadratic":
        text += f" + {law.per_pixel2_bytes:.3g} B x pixels^2 x batch"
    return text


def size_text(size: tuple[int, int]) -> str:
    """Return (height, width) as ``WIDTHxHEIGHT``."""
    return f"{size[1]}x{size[0]}"


def counted(found: Capacity) -> str:
    """Return how many trials there were, those that were skipped apart."""
    skipped = sum(trial.outcome == "skipped" for trial in found.trials)
    tried = len(found.trials) - skipped
    told = f"{tried} trial{'' if tried == 1 else 's'}"
    return f"{told}, {skipped} skipped" if skipped else told


def limit_says(limit: Limit, what: str) -> str:
    """Return a sentence on what was measured; ``what`` is ``batch`` or ``size``."""

    def value(trial: Trial) -> str:
        return str(trial.batch) if what == "batch" else size_text(trial.size)

    head = f"largest {what} {limit.at}"
    if limit.fits is None:
        if limit.fails is None:
            return f"{head}: no trial says"
        return f"{head}: none fits; {value(limit.fails)} ran out of memory already"
    if limit.fails is None:
        return f"{head}: at least {value(limit.fits)}; nothing that was tried ran out of memory"
    between = "" if limit.exact else ", and nothing between was tried"
    return f"{head}: {value(limit.fits)}; {value(limit.fails)} ran out of memory{between}"


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
        meter=points[0].meter if points else trials[0].meter,
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
        cards=()
        if law is None
        else tuple(
            _card(law, gib, reserve, base, base_batch, multiple, aspect) for gib in CARDS_GIB
        ),
        per_image=tuple(per_image),
        best=best,
        best_says=best_says,
    )


def _base(trials: Sequence[Trial]) -> tuple[tuple[int, int], int]:
    """Return the size with the most batches, and the batch with the most sizes; smaller first."""
    batches = Counter(t.size for t in {(t.size, t.batch): t for t in trials}.values())
    sizes = Counter(t.batch for t in {(t.size, t.batch): t for t in trials}.values())
    base = max(batches, key=lambda size: (batches[size], -size[0] * size[1]))
    return base, max(sizes, key=lambda batch: (sizes[batch], -batch))


def _shape(trial: Trial, aspect: float, multiple: int) -> bool:
    """Whether a size has the shape ``aspect``, width over height; rounding moves it a little."""
    wanted = trial.height * aspect
    return abs(trial.width - wanted) <= max(0.1 * wanted, multiple / 2 + 1)


def _limit(at: str, trials: Sequence[Trial], number: object, step: int) -> Limit:
    assert callable(number)
    fits = max((t for t in trials if t.answer == "fits"), key=number, default=None)
    fails = min((t for t in trials if t.answer == "oom"), key=number, default=None)
    if fits is not None and fails is not None and number(fits) >= number(fails):
        below = [t for t in trials if t.answer == "fits" and number(t) < number(fails)]
        fits = max(below, key=number, default=None)
    exact = fits is not None and fails is not None and number(fails) - number(fits) <= step
    return Limit(at, fits, fails, exact)


def _reserve(trials: Sequence[Trial]) -> tuple[int, str]:
    """Return what a card must hold besides what the meter sees, and how that is known."""
    if trials[0].meter != RESERVED:
        return 0, (
            "nothing is set aside, since rss holds the whole process; these are amounts of host "
            "memory and say nothing of a GPU, which holds neither Python nor torch's libraries"
        )
    seen = [t.beside_bytes for t in trials if t.beside_bytes is not None]
    measured = min(seen, default=0)
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
    base: tuple[int, int],
    base_batch: int,
    multiple: int,
    aspect: float,
) -> Card:
    usable = gib * GIB - reserve
    pixels = base[0] * base[1]
    batch = law.largest_batch(pixels, usable)
    side = _side(law.largest_pixels(base_batch, usable), multiple, aspect)
    sure_batch: int | None = None
    sure_side: tuple[int, int] | None = None
    if law.df >= 1:
        sure_batch = _below(batch, lambda n: law.predict(pixels, n).high, usable)
        units = _below(
            side[0] // multiple,
            lambda n: _high(law, scaled(n, multiple, aspect), base_batch),
            usable,
        )
        sure_side = scaled(units, multiple, aspect) if units else (0, 0)
    knows = law.knows_sizes
    beyond = not law.predict(pixels, max(batch, 1)).inside
    if knows and side[0]:
        beyond |= not law.predict(math.prod(side), base_batch).inside
    return Card(
        gib,
        usable,
        batch,
        sure_batch,
        side if knows else None,
        sure_side if knows else None,
        beyond,
    )


def _below(most: int, high: object, usable: float) -> int:
    """Return the largest number up to ``most`` whose upper bound is within ``usable``."""
    assert callable(high)
    low, top = 0, most + 1
    while top - low > 1:
        middle = (low + top) // 2
        low, top = (middle, top) if high(middle) <= usable else (low, middle)
    return low


def _high(law: MemoryLaw, size: tuple[int, int], batch: int) -> float:
    found = law.predict(size[0] * size[1], batch).high
    return math.inf if found is None else found


def _side(pixels: float, multiple: int, aspect: float) -> tuple[int, int]:
    """Return the largest size of the shape ``aspect`` with no more than ``pixels``; 0 if none."""
    if not math.isfinite(pixels):
        return 0, 0
    # Rounding may make a width narrower than the shape, and then one more step fits.
    units = int(math.sqrt(pixels / aspect) / multiple) + 2
    while units and math.prod(scaled(units, multiple, aspect)) > pixels:
        units -= 1
    return scaled(units, multiple, aspect) if units else (0, 0)


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
    """Return the batch with the least time for a picture, and what that is worth."""
    if not per_image:
        return None, "no trial has a time"
    best = min(per_image, key=lambda each: median(each.calls))
    first = per_image[0]
    if len(per_image) == 1:
        return best, f"batch {best.batch} is the only one with a time"
    others = len(per_image) - 1
    if best is first:
        return best, (
            f"no batch is better than {first.batch}: none of the {others} larger ones takes "
            "less time for a picture"
        )
    gain = speedup([list(first.calls)], [list(best.calls)], level=1 - ERROR / others)
    told = f"{gain.ratio:.2f} times as many pictures per second as batch {first.batch}"
    if gain.low is None or gain.high is None:
        return best, f"{told}, from one call each: that is no proof"
    interval = (
        f"interval {gain.low:.2f} to {gain.high:.2f}, the error shared among {others} batches"
    )
    if gain.low <= 1:
        return best, (
            f"no batch is clearly better than {first.batch}: batch {best.batch} makes {told}, "
            f"and the {interval} holds 1"
        )
    return best, f"batch {best.batch} makes {told} ({interval})"
