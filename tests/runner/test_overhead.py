"""What the harness itself costs."""

from __future__ import annotations

import pytest

from bench.runner.overhead import measure


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_cell_that_does_nothing_costs_little(start):
    overhead = measure(8, start)  # type: ignore[arg-type]
    assert len(overhead.cell_s) == len(overhead.worker_s) == 8
    # The least of several is what the work itself takes, however busy the machine is.
    assert min(overhead.cell_s) < (0.15 if start == "fork" else 0.6)
    assert all(0 < worker < 60 for worker in overhead.worker_s)
