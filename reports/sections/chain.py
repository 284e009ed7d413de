"""Chains: when their pictures are there, where each comes from, and how unlike they are.

Distances between pictures are 1 - SSIM, see `bench.fidelity.ssim`: 0 for equal pictures, about 1
for pictures that have nothing in common. They are taken at ``COMPARED_SIDE`` pixels at most, so
that chains of large pictures can be reported in seconds.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import msgspec
import pandas as pd

import plots.chain
from bench import chains, fidelity, grids, text
from bench.comparable import METERS
from bench.stats.median import median_interval
from bench.tasks.chain.record import Descent, Round
from reports.analyse import Comparison, Finding
from reports.fidelity import Pictures, load
from reports.gather import Sample
from reports.sections.base import Plot, Section, Shown
from reports.view import Cell, Table

COMPARED_SIDE = 256
"""Longest side at which pictures are compared, pixels."""
MOST_PAIRS = 500
"""Pairs that a chain's diversity is the mean of; of more pairs, every so many-th is taken."""
MOST_GRIDS = 24
MOST_LINEAGE = 200

SAYS = [
    (
        "A chain makes its first pictures from text, and the following ones from pictures, in "
        "rounds; one measured call is the whole chain. TTFI is the time to the first images, a gap "
        "the time between the ends of two consecutive rounds, and TBB the mean of the gaps: a "
        "chain of three rounds has two. The total is TTFI and all gaps."
    ),
    (
        "Steps are those that the scheduler really took: of the first round, of each later one, in "
        f"total. Diversity is the mean distance of two pictures of the chain, over {MOST_PAIRS} of "
        "their pairs at most, drift the mean distance of the last round's pictures from the "
        "first-round pictures that they descend from; distance is 1 - SSIM at "
        f"{COMPARED_SIDE} pixels at most: 0 is the same picture, and "
        "pictures without structure in common lie near 1."
    ),
    (
        "Peaks of rounds are read in the last warm-up call, so that measured calls hold nothing "
        "but the work."
    ),
]


@dataclass(frozen=True, slots=True)
class Distances:
    """How unlike the pictures of a chain are; ``why`` says why there is no figure.

    ``drift`` holds, for each round from 1 on, the mean distance of its pictures from their
    first-round ancestors; ``pairs`` the number of pairs of ``diversity``.
    """

    diversity: float | None
    drift: list[float]
    pairs: int
    why: str | None = None


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the time line of every chain."""
    return {
        "chain": Plot(
            plots.chain,
            [table(comparisons)],
            "Solid ends where the first pictures are there; each lighter part is a round that "
            "starts from them. A good chain is short before the first end.",
        )
    }


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section, or None if no comparison is of chains."""
    found = [(c, f) for c in comparisons if _is_chain(c) for f in c.findings]
    if not found:
        return None
    checks = Pictures()
    main, rounds, lineage = [], [], []
    shown: list[Shown] = []
    for comparison, finding in found:
        sample = _telling(finding)
        far = distances(sample, checks)
        main.append(_main_row(comparison, finding, sample, far))
        rounds += _round_rows(comparison, finding, sample, far)
        lineage += _lineage_rows(comparison, finding, sample)
        if len(shown) < MOST_GRIDS:
            shown += _grid(len(shown), comparison, finding, sample, checks)
    tables = [
        Table("Chains", _MAIN_HEAD, main, note=_meter_note(found)),
        Table("Rounds of chains", _ROUND_HEAD, rounds, folded=True),
    ]
    if lineage:
        more = len(lineage) - MOST_LINEAGE
        note = f"{more} more pictures are in the records (field lineage)." if more > 0 else ""
        tables.append(
            Table("Lineage", _LINEAGE_HEAD, lineage[:MOST_LINEAGE], note=note, folded=True)
        )
    return Section("chains", "Chains", SAYS, figures=["chain"], pictures=shown, tables=tables)


def _is_chain(comparison: Comparison) -> bool:
    return comparison.group.workload.get("task") == chains.TASK


def _telling(finding: Finding) -> Sample:
    """Return the sample that speaks for a cell: an ok one, else the one that came furthest."""
    own = finding.row.samples
    return max(own, key=lambda s: (s.ok, len(_rounds(s)), len(s.pictures)))


def _rounds(sample: Sample) -> list[Mapping[str, Any]]:
    return [each for each in sample.more.get("chain_rounds") or [] if isinstance(each, Mapping)]


def _title(comparison: Comparison, finding: Finding) -> str:
    return f"{comparison.group.title}, {finding.row.label}"


# ------------------------------------------------------------------------------------ figures


def table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return the table that `plots.chain` draws."""
    rows = []
    for comparison in comparisons:
        if not _is_chain(comparison):
            continue
        for finding in comparison.findings:
            ends = _ends(finding)
            first, between = _pooled(finding, "ttfi_s"), _pooled(finding, "tbb_s")
            e2e = finding.e2e
            rows.append(
                {
                    "workload": _panel(comparison),
                    "label": _title(comparison, finding),
                    "backend": finding.row.backend,
                    "ends_s": ends,
                    "batches": [each.batch for each in chains.of(comparison.group.workload)],
                    "ttfi_s": median(first) if first else None,
                    "tbb_s": median(between) if between else None,
                    "shown": e2e and f"{text.with_interval(e2e.value, e2e.low, e2e.high)} s",
                    "calls": finding.calls,
                    "processes": finding.processes,
                    "why": _why(finding),
                }
            )
    columns = ["workload", "label", "backend", "ends_s", "batches", "ttfi_s", "tbb_s", "shown",
               "calls", "processes", "why"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _panel(comparison: Comparison) -> str:
    """Chains of a model and device stand in one panel: they differ in what a sweep varies."""
    asked = comparison.group.workload
    return f"{asked.get('model')} on {comparison.group.first.device}"


def _pooled(finding: Finding, name: str) -> list[float]:
    """Return the values of all measured chains of all processes that ended ok."""
    return [
        float(value)
        for sample in finding.row.good
        for value in sample.more.get(name) or []
        if isinstance(value, (int, float))
    ]


def _ends(finding: Finding) -> list[float]:
    """Return the median time from the start to the end of each round."""
    calls = [
        [first, *itertools.accumulate(gaps, initial=first)][1:]
        for sample in finding.row.good
        for first, gaps in zip(
            sample.more.get("ttfi_s") or [], sample.more.get("gaps_s") or [], strict=False
        )
    ]
    if not calls:
        return []
    return [median(ends) for ends in zip(*calls, strict=True)]


def _why(finding: Finding) -> str | None:
    if finding.ok:
        return None
    return next(iter(finding.reasons), finding.outcome)


# ----------------------------------------------------------------------------------- distances


def distances(sample: Sample, checks: Pictures) -> Distances:
    """Return how unlike the pictures of one record are, as far as they can be read."""
    lineage = [each for each in sample.more.get("lineage") or [] if isinstance(each, Mapping)]
    if not sample.pictures or len(lineage) != len(sample.pictures):
        return Distances(None, [], 0, "no pictures")
    problem = next((p for each in sample.pictures if (p := checks.problem(each))), None)
    if problem is not None:
        return Distances(None, [], 0, problem)
    try:
        pixels = [_compared(load(each.path)) for each in sample.pictures]
    except (OSError, ValueError) as error:
        return Distances(None, [], 0, str(error))
    if len({each.shape for each in pixels}) > 1:
        return Distances(None, [], 0, "the pictures differ in size")

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
        root = ancestor(lineage, int(each["index"]))
        if root != each["index"] and (far := distance(root, int(each["index"]))) is not None:
            by_round.setdefault(int(each["round"]), []).append(far)
    drift = [fmean(by_round[number]) for number in sorted(by_round)]
    return Distances(fmean(found) if found else None, drift, len(found))


def ancestor(lineage: Sequence[Mapping[str, Any]], index: int) -> int:
    """Return the index of the first-round picture that picture ``index`` descends from."""
    parents = {int(each["index"]): each.get("parent_index") for each in lineage}
    seen = set()
    while (parent := parents.get(index)) is not None and index not in seen:
        seen.add(index)
        index = int(parent)
    return index


def _compared(picture: Any) -> fidelity.Pixels:
    picture.thumbnail((COMPARED_SIDE, COMPARED_SIDE))
    return fidelity.to_pixels(picture)


# -------------------------------------------------------------------------------------- tables

_MAIN_HEAD = [
    "chain", "backend", "outcome", "pictures", "steps first / later / total", "TTFI [s]", "TBB [s]",
    "total [s]", "images/s", "peak [GiB]", "diversity", "drift",
]  # fmt: skip
_ROUND_HEAD = [
    "chain", "backend", "round", "task", "pictures", "steps asked", "effective", "denoiser calls",
    "denoiser batch", "ends at [s]", "peak [GiB]", "meter", "drift", "outcome",
]  # fmt: skip
_LINEAGE_HEAD = ["chain", "backend", "picture", "round", "seed", "starts from", "SHA-256"]


def _number(value: float | None, shown: str) -> Cell:
    return Cell(shown, value, "number")


def _figure(values: Sequence[float], show: Any = text.seconds) -> Cell:
    """Return a median with its interval, if there are calls enough for one."""
    if not values:
        return Cell(text.DASH, None, "number")
    found = median_interval(values)
    low, high = (found.low, found.high) if found.meets_level else (None, None)
    return _number(found.median, text.with_interval(found.median, low, high, show))


def _main_row(
    comparison: Comparison, finding: Finding, sample: Sample, far: Distances
) -> list[Cell]:
    peak = finding.peak(comparison.meter)
    outcome = finding.outcome
    failed = next((r for r in _rounds(sample) if r.get("outcome") != "ok"), None)
    if not finding.ok and failed is not None:
        outcome += f" in round {failed.get('round')}"
    asked = comparison.group.workload
    return [
        Cell(comparison.group.title, None, "name"),
        Cell(finding.row.label, None, "name"),
        Cell(outcome),
        Cell(f"{asked.get('samples')} in rounds of {asked.get('max_batch')}"),
        Cell(_counts(_rounds(sample), "steps_effective")),
        _figure(_pooled(finding, "ttfi_s")),
        _figure(_pooled(finding, "tbb_s")),
        _figure([value for s in finding.row.good for value in s.e2e_s]),
        _figure(_pooled(finding, "images_per_s"), text.number),
        _number(peak, text.gib(peak)),
        _number(far.diversity, _short(far.diversity) if far.why is None else far.why),
        _number(far.drift[-1] if far.drift else None, _short(far.drift[-1] if far.drift else None)),
    ]


def _counts(rounds: Sequence[Mapping[str, Any]], name: str) -> str:
    known = [each.get(name) for each in rounds if each.get("outcome") == "ok"]
    whole = [value for value in known if isinstance(value, int)]
    if not whole or len(whole) < len(known):
        return text.DASH
    later = "/".join(str(value) for value in dict.fromkeys(whole[1:])) or text.DASH
    return f"{whole[0]} / {later} / {sum(whole)}"


def _short(value: float | None) -> str:
    return text.DASH if value is None else f"{value:.3f}"


def _round_rows(
    comparison: Comparison, finding: Finding, sample: Sample, far: Distances
) -> list[list[Cell]]:
    ends = _ends(finding)
    rows = []
    for each in _rounds(sample):
        number = int(each.get("round", 0))
        meter, peak = _peak(each)
        end = ends[number] if number < len(ends) else None
        drift = far.drift[number - 1] if 0 < number <= len(far.drift) else None
        outcome = str(each.get("outcome") or sample.outcome)
        reason = each.get("reason") or ("not finished" if each.get("outcome") is None else "")
        rows.append(
            [
                Cell(comparison.group.title, None, "name"),
                Cell(finding.row.label, None, "name"),
                _number(number, str(number)),
                Cell(str(each.get("task", ""))),
                *(
                    _number(each.get(name), text.count(each.get(name)))
                    for name in ("batch", "steps_requested", "steps_effective", "denoiser_calls",
                                 "denoiser_batch")
                ),
                _number(end, text.seconds(end)),
                _number(peak, text.gib(peak)),
                Cell(meter),
                _number(drift, _short(drift)),
                Cell(f"{outcome}: {reason}" if reason else outcome),
            ]
        )  # fmt: skip
    return rows


def _peak(each: Mapping[str, Any]) -> tuple[str, int | None]:
    """Return the peak of a round by the most telling meter that has one."""
    found = {
        str(reading["meter"]): reading["bytes"]
        for reading in each.get("memory") or []
        if reading.get("bytes") is not None
    }
    meter = next((name for name in METERS if name in found), "")
    return meter, found.get(meter)


def _lineage_rows(comparison: Comparison, finding: Finding, sample: Sample) -> list[list[Cell]]:
    rows = []
    for each in sample.more.get("lineage") or []:
        parent = each.get("parent_index")
        rows.append(
            [
                Cell(comparison.group.title, None, "name"),
                Cell(finding.row.label, None, "name"),
                *(_number(each[name], str(each[name])) for name in ("index", "round", "seed")),
                Cell("text" if parent is None else f"picture {parent}"),
                Cell(str(each["sha256"])[:16]),
            ]
        )
    return rows


def _meter_note(found: Sequence[tuple[Comparison, Finding]]) -> str:
    meters = sorted({c.meter for c, _ in found if c.meter})
    peak = f"Peak: steady phase, by {text.listed(meters)}. " if meters else ""
    return (
        f"{peak}Times are medians over all measured chains of all processes, with the 95 % "
        "interval of the median where there are six or more. Diversity and drift are of one "
        "process's last chain."
    )


def _grid(
    place: int, comparison: Comparison, finding: Finding, sample: Sample, checks: Pictures
) -> list[Shown]:
    lineage = sample.more.get("lineage") or []
    if not sample.pictures or len(lineage) != len(sample.pictures):
        return []
    if any(checks.problem(each) for each in sample.pictures):
        return []
    title = _title(comparison, finding)
    pictures = [load(each.path) for each in sample.pictures]
    rounds = msgspec.convert(_rounds(sample), list[Round])
    descents = msgspec.convert(lineage, list[Descent])
    page = grids.draw(title, grids.of_chain(rounds, descents, pictures))
    file = io.BytesIO()
    page.save(file, format="png", optimize=True)
    return [
        Shown(
            name=f"chain-{place + 1:02d}",
            png=file.getvalue(),
            width=page.width,
            height=page.height,
            caption=f"{title}: a row for each round",
        )
    ]
