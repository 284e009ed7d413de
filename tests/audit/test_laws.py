"""On tables made from laws that hold there is nothing to find, and what is planted is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.audit import Audited, audit
from tests.audit import make

QUIET = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def audited(made: make.Made, rng: random.Random, folder: Path) -> list[Audited]:
    kind = rng.randrange(3)
    path = folder / ("table.csv" if kind == 0 else "table.md")
    path.write_text(
        make.as_csv(made, rng) if kind == 0 else make.as_markdown(made, rng, comma=kind == 2)
    )
    return audit([path])


@pytest.mark.parametrize("law", make.CLEAN, ids=lambda law: law.__name__)
@QUIET
@given(seed=st.integers(0, 1999))
def test_clean_tables_have_no_findings(
    law: Callable[[random.Random], make.Made], seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    for one in audited(law(rng), rng, tmp_path):
        assert not one.findings, one.findings


@pytest.mark.parametrize("plant", make.PLANTED, ids=lambda plant: plant.__name__)
def test_planted_errors_are_found(
    plant: Callable[[random.Random], make.Made], tmp_path: Path
) -> None:
    found = 0
    for seed in range(12):
        rng = random.Random(10_000 + seed)
        made = plant(rng)
        (one,) = audited(made, rng, tmp_path)
        hits = [f for f in one.findings if f.check == made.check]
        found += any(not made.planted or set(f.rows) & set(made.planted) for f in hits)
    # Some planted steps and copies are within noise, or could be chance.
    assert found >= 11, found
