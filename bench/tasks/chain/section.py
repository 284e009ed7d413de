"""Chains: when their images are there, where each comes from, and how unlike they are.

Distances between images are 1 - SSIM, see `bench.fidelity.ssim`: 0 for equal images, about 1 for
images that have nothing in common. They are taken at ``COMPARED_SIDE`` pixels at most, so that
chains of large images can be reported in seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, NamedTuple

import plots.chain
from bench import chains, fidelity, files, grids, text
from bench.contract import Outcome
from bench.records import Record
from bench.records.alike import METERS
from bench.stats.median import median_interval
from bench.tasks.chain.record import Descent, Fields, Round
from reports import frames
from reports.analyse import Comparison, Finding
from reports.fidelity import Pictures, images
from reports.sections.base import Plot, Section, Shown, shown
from reports.tables import Cell, Column, present, table

COMPARED_SIDE = 256
"""Longest side at which images are compared, pixels."""
MOST_PAIRS = 500
"""Pairs that a chain's diversity is the mean of; of more pairs, every so many-th is taken."""
MOST_GRIDS = 24
MOST_LINEAGE = 200

SAYS = [
    (
        "A chain makes its first images from text, and the following ones from images, in "
        "rounds; one measured call is the whole chain. TTFI is the time to the first images, a gap "
        "the time between the ends of two consecutive rounds, and TBB the mean of the gaps: a "
        "chain of three rounds has two. The total is TTFI and all gaps."
    ),
    (
        "Steps are those that the scheduler really took: of the first round, of each later one, in "
        f"total. Diversity is the mean distance of two images of the chain, over {MOST_PAIRS} of "
        "their pairs at most, drift the mean distance of the last round's images from the "
        "first-round images that they descend from; distance is 1 - SSIM at "
        f"{COMPARED_SIDE} pixels at most: 0 is the same image, and "
        "images without structure in common lie near 1."
    ),
    (
        "Peaks of rounds are read in the last warm-up call, so that measured calls hold nothing "
        "but the work."
    ),
]


class _Chain(NamedTuple):
    """One backend of a chain, and the record that speaks for it, if there is one."""

    comparison: Comparison
    finding: Finding
    record: Record | None

    @property
    def title(self) -> str:
        return f"{self.comparison.group.title}, {self.finding.arm.label}"

    @property
    def fields(self) -> Fields:
        return self.record.part(Fields) if self.record else Fields()

    def pooled(self, name: str) -> list[float]:
        """Return the values of all measured chains of all processes that ended ok."""
        good = (record.part(Fields) for record in self.finding.arm.good)
        return [value for each in good for value in getattr(each, name) if value is not None]

    @property
    def ends_s(self) -> list[float]:
        """The median time from the start to the end of each round."""
        calls = [
            [*itertools.accumulate(gaps, initial=first)]
            for part in (record.part(Fields) for record in self.finding.arm.good)
            for first, gaps in zip(part.ttfi_s, part.gaps_s, strict=False)
        ]
        return [median(ends) for ends in zip(*calls, strict=True)]


def _chains(comparisons: Sequence[Comparison]) -> Iterator[_Chain]:
    """Yield every backend of a chain: its record is an ok one, else the one that came furthest."""
    for comparison, finding, _ in frames.rows(comparisons):
        if comparison.group.cell.workload.task == chains.TASK:
            told = max(
                finding.arm.records,
                key=lambda r: (r.ok, len(r.part(Fields).chain_rounds), len(r.images)),
                default=None,
            )
            yield _Chain(comparison, finding, told)


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the time line of every chain."""
    return {
        "chain": Plot(
            plots.chain,
            lambda: [frames.frame(TIMES, _chains(comparisons))],
            "Solid ends where the first images are there; each lighter part is a round that "
            "starts from them. A good chain is short before the first end.",
        )
    }


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section, or None if no comparison is of chains."""
    found = list(_chains(comparisons))
    if not found:
        return None
    checks = Pictures()
    measured = [(each, distances(each.finding, each.record, checks)) for each in found]
    lineage = [(each, descent) for each in found for descent in each.fields.lineage]
    more = len(lineage) - MOST_LINEAGE
    grids_ = (_grid(each, checks) for each in found)
    named = enumerate(itertools.islice(filter(None, grids_), MOST_GRIDS), 1)
    return Section(
        "chains",
        "Chains",
        SAYS,
        figures=["chain"],
        pictures=[make(f"chain-{number:02d}") for number, make in named],
        tables=present(
            table("Chains", CHAINS, measured, _meter_note(found)),
            table(
                "Rounds of chains",
                ROUNDS,
                (
                    _Made(chain, each, chain.ends_s, far.drift)
                    for chain, far in measured
                    for each in chain.fields.chain_rounds
                ),
                folded=True,
            ),
            table(
                "Lineage",
                LINEAGE,
                lineage[:MOST_LINEAGE],
                f"{more} more images are in the records (field lineage)." if more > 0 else "",
                folded=True,
            ),
        ),
    )


# ------------------------------------------------------------------------------------ figures


def _panel(row: _Chain) -> str:
    """Chains of a model and device stand in one panel: they differ in what a sweep varies."""
    group = row.comparison.group
    return f"{group.cell.workload.model} on {group.device}"


def _median_of(name: str) -> Callable[[_Chain], float | None]:
    def get(row: _Chain) -> float | None:
        values = row.pooled(name)
        return median(values) if values else None

    return get


def _time(row: _Chain) -> str | None:
    e2e = row.finding.e2e
    return f"{text.with_interval(e2e.value, e2e.low, e2e.high)} s" if e2e else None


def _why(row: _Chain) -> str | None:
    finding = row.finding
    return None if finding.ok else next(iter(finding.reasons), finding.outcome)


def _batches(row: _Chain) -> list[int]:
    return [each.batch for each in chains.of(row.comparison.group.cell.raw["workload"])]


TIMES: frames.Columns = {
    "workload": _panel,
    "label": "title",
    "backend": "finding.arm.cell.backend.name",
    "ends_s": "ends_s",
    "batches": _batches,
    "ttfi_s": _median_of("ttfi_s"),
    "tbb_s": _median_of("tbb_s"),
    "shown": _time,
    **frames.CALLS,
    "why": _why,
}


# ----------------------------------------------------------------------------------- distances


@dataclass(frozen=True, slots=True)
class Distances:
    """How unlike the images of a chain are; ``why`` says why there is no figure.

    ``drift`` holds, for each round from 1 on, the mean distance of its images from their
    first-round ancestors; ``pairs`` the number of pairs of ``diversity``.
    """

    diversity: float | None
    drift: list[float]
    pairs: int
    why: str | None = None


def distances(finding: Finding, record: Record | None, checks: Pictures) -> Distances:
    """Return how unlike the images of one record are, as far as they can be read."""
    lineage = record.part(Fields).lineage if record else ()
    stored = images(finding.arm, record) if record else []
    if not stored or len(lineage) != len(stored):
        return Distances(None, [], 0, "no images")
    problem = next((p for each in stored if (p := checks.problem(each))), None)
    if problem is not None:
        return Distances(None, [], 0, problem)
    try:
        pixels = [_compared(files.image(each.path)) for each in stored]
    except (OSError, ValueError) as error:
        return Distances(None, [], 0, str(error))
    if len({each.shape for each in pixels}) > 1:
        return Distances(None, [], 0, "the images differ in size")

    def distance(one: int, other: int) -> float | None:
        alike, _ = fidelity.ssim(pixels[one], pixels[other])
        return None if alike is None else 1 - alike

    if len(pixels) > 1 and distance(0, 1) is None:
        return Distances(None, [], 0, fidelity.ssim(pixels[0], pixels[1])[1])
    pairs = list(itertools.combinations(range(len(pixels)), 2))
    pairs = pairs[:: -(-len(pairs) // MOST_PAIRS) or 1]
    found = [far for one, other in pairs if (far := distance(one, other)) is not None]
    by_round: dict[int, list[float]] = {}
    for each in lineage:
        root = ancestor(lineage, each.index)
        if root != each.index and (far := distance(root, each.index)) is not None:
            by_round.setdefault(each.round, []).append(far)
    drift = [fmean(by_round[number]) for number in sorted(by_round)]
    return Distances(fmean(found) if found else None, drift, len(found))


def ancestor(lineage: Sequence[Descent], index: int) -> int:
    """Return the index of the first-round image that image ``index`` descends from."""
    parents = {each.index: each.parent_index for each in lineage}
    seen = set()
    while (parent := parents.get(index)) is not None and index not in seen:
        seen.add(index)
        index = parent
    return index


def _compared(picture: Any) -> fidelity.Pixels:
    picture.thumbnail((COMPARED_SIDE, COMPARED_SIDE))
    return fidelity.to_pixels(picture)


# -------------------------------------------------------------------------------------- tables


def _figure(values: Sequence[float], show: Callable[..., str] = text.seconds) -> Cell:
    """Return a median with its interval, if there are calls enough for one."""
    if not values:
        return Cell(text.DASH, None, "number")
    found = median_interval(values)
    low, high = (found.low, found.high) if found.meets_level else (None, None)
    return Cell(text.with_interval(found.median, low, high, show), found.median, "number")


def _short(value: float | None) -> str:
    return text.DASH if value is None else f"{value:.3f}"


def _outcome(chain: _Chain) -> str:
    failed = (each.round for each in chain.fields.chain_rounds if each.outcome != "ok")
    number = None if chain.finding.ok else next(failed, None)
    return chain.finding.outcome + ("" if number is None else f" in round {number}")


def _asked(chain: _Chain) -> str:
    asked = chain.comparison.group.cell.workload
    return f"{asked.samples} in rounds of {asked.max_batch}"


def _steps(chain: _Chain) -> str:
    known = [r.steps_effective for r in chain.fields.chain_rounds if r.outcome == "ok"]
    steps = [each for each in known if each is not None]
    if not steps or len(steps) < len(known):
        return text.DASH
    later = "/".join(map(str, dict.fromkeys(steps[1:]))) or text.DASH
    return f"{steps[0]} / {later} / {sum(steps)}"


def _diversity(far: Distances) -> Cell:
    return Cell(far.why or _short(far.diversity), far.diversity, "number")


CHAINS = (
    Column("chain", lambda row: row[0].comparison.group.title, kind="name"),
    Column("backend", lambda row: row[0].finding.arm.label, kind="name"),
    Column("outcome", lambda row: _outcome(row[0])),
    Column("images", lambda row: _asked(row[0])),
    Column("steps first / later / total", lambda row: _steps(row[0])),
    Column("TTFI [s]", lambda row: _figure(row[0].pooled("ttfi_s"))),
    Column("TBB [s]", lambda row: _figure(row[0].pooled("tbb_s"))),
    Column(
        "total [s]",
        lambda row: _figure([s for call in row[0].finding.arm.calls_s for s in call]),
    ),
    Column("images/s", lambda row: _figure(row[0].pooled("images_per_s"), text.number)),
    Column("peak [GiB]", lambda row: row[0].finding.peak(), text.gib),
    Column("diversity", lambda row: _diversity(row[1])),
    Column("drift", lambda row: row[1].drift[-1] if row[1].drift else None, _short),
)


class _Made(NamedTuple):
    """A round of a chain, when each round ended, and the drift of each from 1 on."""

    chain: _Chain
    made: Round
    ends_s: Sequence[float]
    drifts: Sequence[float]

    @property
    def end_s(self) -> float | None:
        return self.ends_s[self.made.round] if self.made.round < len(self.ends_s) else None

    @property
    def drift(self) -> float | None:
        number = self.made.round
        return self.drifts[number - 1] if 0 < number <= len(self.drifts) else None

    @property
    def meter(self) -> str:
        """The most telling meter that has a peak of the round."""
        known = {each.meter for each in self.made.memory if each.bytes is not None}
        return next((name for name in METERS if name in known), "")

    @property
    def peak(self) -> int | None:
        return {each.meter: each.bytes for each in self.made.memory}.get(self.meter)

    @property
    def outcome(self) -> str:
        outcome: Outcome | None = self.made.outcome
        record = self.chain.record
        reason = self.made.reason or ("not finished" if outcome is None else "")
        word = str(outcome or (record.outcome if record else ""))
        return f"{word}: {reason}" if reason else word


ROUNDS = (
    Column("chain", "chain.comparison.group.title", kind="name"),
    Column("backend", "chain.finding.arm.label", kind="name"),
    Column("round", "made.round", text.whole),
    Column("task", "made.task"),
    Column("images", "made.batch", text.count),
    Column("steps asked", "made.steps_requested", text.count),
    Column("effective", "made.steps_effective", text.count),
    Column("denoiser calls", "made.denoiser_calls", text.count),
    Column("denoiser batch", "made.denoiser_batch", text.count),
    Column("ends at [s]", "end_s", text.seconds),
    Column("peak [GiB]", "peak", text.gib),
    Column("meter", "meter"),
    Column("drift", "drift", _short),
    Column("outcome", "outcome"),
)


def _parent(descent: Descent) -> str:
    return "text" if descent.parent_index is None else f"image {descent.parent_index}"


LINEAGE = (
    Column("chain", lambda row: row[0].comparison.group.title, kind="name"),
    Column("backend", lambda row: row[0].finding.arm.label, kind="name"),
    Column("image", lambda row: row[1].index, text.whole),
    Column("round", lambda row: row[1].round, text.whole),
    Column("seed", lambda row: row[1].seed, text.whole),
    Column("starts from", lambda row: _parent(row[1])),
    Column("SHA-256", lambda row: row[1].sha256[:16]),
)


def _meter_note(found: Sequence[_Chain]) -> str:
    meters = sorted({each.finding.meter for each in found if each.finding.meter})
    peak = f"Peak: steady phase, by {text.listed(meters)}. " if meters else ""
    return (
        f"{peak}Times are medians over all measured chains of all processes, with the 95 % "
        "interval of the median where there are six or more. Diversity and drift are of one "
        "process's last chain."
    )


def _grid(chain: _Chain, checks: Pictures) -> Callable[[str], Shown] | None:
    """Return what draws the images of a chain under a name; None if they cannot be read."""
    record, fields = chain.record, chain.fields
    stored = images(chain.finding.arm, record) if record else []
    if not stored or len(fields.lineage) != len(stored) or any(map(checks.problem, stored)):
        return None

    def made(name: str) -> Shown:
        pictures = [files.image(each.path) for each in stored]
        rows = grids.of_chain(fields.chain_rounds, fields.lineage, pictures)
        return shown(name, grids.draw(chain.title, rows), f"{chain.title}: a row for each round")

    return made
