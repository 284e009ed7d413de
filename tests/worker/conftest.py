"""Cells on fake pipelines, whose every duration is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker import fakes


@pytest.fixture
def clock() -> fakes.FakeClock:
    return fakes.FakeClock()


@pytest.fixture
def cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: fakes.FakeClock
) -> Callable[..., fakes.Told]:
    """Run a cell on ``pipeline``, or on a fake one made with these settings; see ``make_job``.

    ``passes`` go to the cell itself, ``round`` to the job.
    """

    def run(pipeline: Any = None, passes: Any = None, **job: Any) -> fakes.Told:
        if pipeline is None or isinstance(pipeline, dict):
            pipeline = fakes.FakePipeline(clock, **(pipeline or {}))
        fakes.give(monkeypatch, pipeline, steps=job.get("steps", 4))
        number = job.pop("round", 0)
        made = {**fakes.make_job(tmp_path, **job), "round": number}
        made["cell"].update(passes or {})
        return fakes.run(made, clock)

    return run
