from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.cli.run import afterword
from tests.cli import records


def ended(outcome: str, reason: str | None = None) -> Any:
    return records.typed_of({"outcome": outcome, "reason": reason})


def test_nothing_is_added_below_a_table_of_cells_that_are_ok(tmp_path: Path) -> None:
    assert afterword([ended("ok"), ended("ok")], tmp_path) == []
    assert afterword([], tmp_path) == []


def test_where_no_cell_is_ok_the_reasons_are_said_with_their_counts(tmp_path: Path) -> None:
    run = [ended("failed", "no model"), ended("oom", "8 GiB"), ended("failed", "no model")]
    assert afterword(run, tmp_path) == [
        "No measurement is ok: 2 failed, 1 oom.",
        "  2 x failed: no model",
        "  1 x oom: 8 GiB",
        f"Worker logs: {tmp_path / 'logs'}",
        "After fixing the cause, the same command measures these again with --retry failed,oom",
    ]


def test_where_some_are_ok_it_says_how_many_and_what_can_be_tried_again(tmp_path: Path) -> None:
    run = [ended("ok"), ended("unsupported", "no GPU"), ended("ok")]
    assert afterword(run, tmp_path) == [
        "2 of 3 measurements are ok; 1 unsupported.",
        f"Worker logs: {tmp_path / 'logs'}",
    ]
