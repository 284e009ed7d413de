"""What a chain leaves in a record."""

from __future__ import annotations

from bench.contract import Outcome
from bench.records.types import Count, Part, Reading, Text


class Round(Part, frozen=True):
    """One pipeline call of a chain; figures of a round that failed are None.

    ``outcome`` is None of a round that did not end: the cell's own outcome says why.
    """

    round: Count = 0
    task: Text = ""
    pipeline_class: Text = ""
    batch: Count = 0
    first_index: Count = 0
    steps_requested: Count | None = None
    steps_effective: Count | None = None
    denoiser_calls: Count | None = None
    denoiser_batch: Count | None = None
    memory: tuple[Reading, ...] = ()
    outcome: Outcome | None = None
    reason: Text | None = None


class Descent(Part, frozen=True):
    """Where an image of a chain comes from."""

    index: Count
    round: Count
    place: Count
    seed: Count
    sha256: Text = ""
    parent_index: Count | None = None
    parent_sha256: Text | None = None


COLUMNS = (
    ("ttfi_s", "chains: median time to the first round's images, in seconds"),
    ("tbb_s", "chains: median of the mean gaps between the ends of rounds, in seconds"),
    ("images_per_s", "chains: median of images by end-to-end time"),
)
"""Fields whose median over the calls is a column of the table of records."""


class Fields(Part, frozen=True):
    """``ttfi_s``, ``tbb_s`` and ``images_per_s`` have a value for each measured call."""

    ttfi_s: tuple[float, ...] = ()
    gaps_s: tuple[tuple[float, ...], ...] = ()
    tbb_s: tuple[float | None, ...] = ()
    images_per_s: tuple[float, ...] = ()
    chain_rounds: tuple[Round, ...] = ()
    lineage: tuple[Descent, ...] = ()
