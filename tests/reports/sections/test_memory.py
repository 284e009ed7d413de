"""The sections on capacity and on sizes, from runs whose memory follows a law."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.runner import execute
from reports import build
from tests.runner.support import Plan, cell, machine, program

GIB = 2**30


def trial(batch: int, height: int, width: int, *, taken: float | None = None, **limits: int) -> Any:
    law = (5e8, 2500.0, 0.0) if taken is None else (taken, 0.0, 0.0)
    extra = {"law": law}
    made: Any = cell(
        f"w-{width}x{height}-b{batch}",
        extra=extra,
        limits={"timeout_s": 60.0, "memory_bytes": None, **limits},
    )
    made["workload"] |= {"batch": batch, "height": height, "width": width, "extra": {"law": law}}
    return made


def report(cells: list[Any], run: Path) -> tuple[str, str]:
    execute(Plan(cells), run, program=program("lawful"), machine=machine())
    written = build.write([run])
    return written.page.read_text(), written.markdown.read_text()


@pytest.fixture(scope="module")
def capacity(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    cells = [trial(b, 128, 128, rss_bytes=GIB) for b in (1, 2, 4, 8, 12, 14, 15, 16)]
    cells += [trial(1, s, s, rss_bytes=GIB) for s in (256, 384, 512)]
    return report(cells, tmp_path_factory.mktemp("capacity") / "run")


def test_edges_law_and_predictions_are_told(capacity: tuple[str, str]) -> None:
    page, text = capacity
    # (2^30 - 5e8) / (2500 x 128^2) = 14.007
    assert "largest batch at 128x128: 14; 15 ran out of memory" in text
    assert "## What fits into memory" in text
    assert "Linear law of rss" in text
    assert "10 trials, 1 skipped" in text
    # Nothing is compared with anything: the answer is here, and not which backend is fastest.
    assert text.startswith("# What fits into memory")
    assert text.index("largest batch") < text.index("# Each workload by itself")
    assert page.index("largest batch") < page.index('class="answers"')
    assert "Is it worth it?" not in text + page
    assert "Prediction for common amounts of memory" in text
    assert "not measured" in text
    assert "say nothing of a GPU" in text
    assert "plots/capacity.svg" in text or "plots/capacity.png" in text
    assert "What fits into memory" in page


def test_skipped_trials_are_in_the_table_with_their_reason(capacity: tuple[str, str]) -> None:
    assert "batch 16 at 128x128 asks for more than batch 15 at 128x128" in capacity[1]


def test_predictions_are_those_of_the_law(capacity: tuple[str, str]) -> None:
    row = next(line for line in capacity[1].splitlines() if line.startswith("| 6 GiB"))
    assert f"| {int((6 * GIB - 5e8) / (2500 * 128 * 128))} |" in row


def test_sizes_are_shown_as_asked_and_as_made(tmp_path: Path) -> None:
    cells = [trial(1, s, s) for s in (128, 192, 256, 320, 384, 448, 512)]
    odd = trial(1, 352, 352)
    odd["workload"] |= {"asked_height": 355, "asked_width": 357, "round_size": "down"}
    _, text = report([*cells, odd], tmp_path / "run")
    assert "## Memory over size" in text
    assert "| 357x355 | 352x352 | 352x352 | 123,904 |" in text
    assert "No size is off the law" in text
    assert "## What fits into memory" not in text


def test_a_run_about_neither_has_neither(tmp_path: Path) -> None:
    _, text = report([trial(1, 128, 128), trial(1, 256, 256)], tmp_path / "run")
    assert "Memory over size" not in text
    assert "What fits" not in text
