"""The checks: each a pure function from a table to findings and notes."""

from __future__ import annotations

from collections.abc import Callable

from bench.audit.checks import (
    bands,
    batches,
    copies,
    effective,
    impossible,
    memory,
    meters,
    pairs,
    ratios,
    samples,
    slow,
    steps,
)
from bench.audit.finding import Finding, Note
from bench.audit.table import Table

Check = Callable[[Table], tuple[list[Finding], list[Note]]]

CHECKS: tuple[Check, ...] = (
    impossible.check,
    steps.check,
    effective.check,
    batches.check,
    slow.check,
    memory.check,
    meters.check,
    copies.check,
    samples.check,
    ratios.check,
    pairs.check,
    bands.check,
)
"""In the order in which equal weights are shown."""
