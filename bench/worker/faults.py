"""What makes measured figures invalid, or worth a warning. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.worker.dynamo import Counts
from bench.worker.instrument import Sample

UNACCOUNTED_PCT = 10.0


def of_counts(samples: Sequence[Sample]) -> list[str]:
    """Say which of the step counts differ between measured calls, which are given equal inputs."""
    found = []
    for what, values in (
        ("steps", [sample.steps_effective for sample in samples]),
        ("denoiser calls", [sample.denoiser_calls for sample in samples]),
        ("denoiser batches", [sample.denoiser_batches for sample in samples]),
    ):
        if len(set(values)) > 1:
            seen = ", ".join(str(value) for value in dict.fromkeys(values))
            found.append(f"the measured calls did not do the same: {what} were {seen}")
    return found


def of_compiling(since: Counts, reasons: Sequence[str]) -> list[str]:
    """Say that torch compiled during the measured calls, and why as far as it tells."""
    if since.graphs == 0 and since.attempts == 0:
        return []
    count = max(since.graphs, since.attempts)
    why = f" ({reasons[-1]})" if reasons else ""
    text = f"torch compiled {count} more time(s) during the measured calls{why}"
    return [f"{text}, so the steady figures contain compiling"]


def of_pictures(
    defects: Sequence[str], not_finite: bool, digests: Sequence[Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Return what makes pictures invalid, and what is worth a warning.

    Args:
        defects: what is wrong with pictures of the measured calls, a sentence each.
        not_finite: whether NaN or infinity was decoded in a warm-up call.
        digests: for each call, warm-up included, one digest a picture.
    """
    invalid = []
    if not_finite:
        invalid.append("the decoded pictures contain NaN or infinity")
    invalid.extend(defects)
    warnings = []
    kinds = {tuple(call) for call in digests}
    if len(kinds) > 1:
        text = f"equal inputs gave {len(kinds)} different results in {len(digests)} calls"
        warnings.append(f"{text}: this backend or device is not deterministic")
    return invalid, warnings


def of_stages(samples: Sequence[Sample]) -> list[str]:
    """Warn when much of the calls' time lies outside every stage."""
    shares = [
        100 * (sample.stages["unaccounted_s"] or 0.0) / sample.e2e_s
        for sample in samples
        if sample.e2e_s > 0
    ]
    share = statistics.median(shares) if shares else 0.0
    if share <= UNACCOUNTED_PCT:
        return []
    return [f"{share:.0f} % of the end-to-end time lies outside every stage (unaccounted_s)"]


def of_steps(sample: Sample) -> list[str]:
    """Return what a reader of a call's steps should know."""
    found = []
    if len(sample.denoiser_batches) > 1:
        sizes = ", ".join(str(size) for size in sample.denoiser_batches)
        found.append(f"the denoiser's batch was {sizes} within one call; the largest is given")
    if sample.step_source == "scheduler":
        found.append(
            "this pipeline has no step callback: step times are the ends of scheduler steps"
        )
    return found
