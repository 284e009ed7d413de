"""Other work beside a cell: what the load average says, and where it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cli import run_table
from bench.records import frame
from bench.runner import execute, host
from tests.cli.records import cell, grouped, record, typed
from tests.reports import make_records as make
from tests.runner.support import Plan, lines, machine, program
from tests.runner.support import cell as planned


def with_load(start: float, end: float = 1.0, **fields: Any) -> Any:
    return record(cell(), load_average_1m={"start": start, "end": end}, **fields)


@pytest.mark.parametrize(("start", "likely"), [(0.3, False), (2.0, False), (2.1, True), (9, True)])
def test_more_than_the_threads_and_one_is_other_work(start: float, likely: bool) -> None:
    found = typed(with_load(start)).busy
    assert (found is not None) is likely
    if found:
        assert f"{start:.1f}" in found
        assert "1 thread." in found


def test_only_the_start_decides_since_the_end_holds_the_cells_own_work() -> None:
    assert typed(with_load(0.2, 40.0)).busy is None


def test_a_cell_that_compiled_may_have_raised_it_itself() -> None:
    evidence = {"active": True, "evidence": {"graphs": 3}}
    assert "own compiling" in (typed(with_load(5.0, backend=evidence)).busy or "")
    assert "own compiling" not in (typed(with_load(5.0)).busy or "")


@pytest.mark.parametrize("found", [None, {}, {"start": None}])
def test_what_is_not_known_raises_nothing(found: Any) -> None:
    made = typed(record(cell(), load_average_1m=found))
    assert made.busy is None
    assert frame.rows([made])[0]["load_average_start_1m"] is None


def test_the_table_says_it_and_the_row_holds_it() -> None:
    made = with_load(7.25, 6.5)
    (panel,) = run_table.panels(grouped([made]))
    assert "Other work was likely" in panel.lines[0].arm.warnings[0]
    (row,) = frame.rows([typed(made)])
    assert (row["load_average_start_1m"], row["load_average_end_1m"]) == (7.25, 6.5)


def test_the_report_flags_it_and_trusts_with_care(tmp_path: Path) -> None:
    made = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=5, within=0.001)
    quiet = make.write_run(tmp_path / "quiet", made)
    for one in made:
        one["load_average_1m"] = {"start": 12.0, "end": 11.0}
    loud = make.write_run(tmp_path / "loud", made)
    told = {}
    for run in (quiet, loud):
        (comparison,) = make.compared(run)
        finding = comparison.findings[1]
        told[run.name] = [flag.name for _, flag in finding.flags], " ".join(finding.doubts)
    assert "load" not in told["quiet"][0]
    assert told["loud"][0].count("load") == 5
    assert "load in 5 of 5 processes: Other work was likely" in told["loud"][1]
    assert "Baseline: load in 5 of 5" in told["loud"][1]


def go(run_dir: Path, reader: Any, do: str = "good") -> dict[str, Any]:
    execute(
        Plan([planned("a", extra={"do": do})]), run_dir, program=program("by_extra"),
        machine=machine(), start="fork", load_average_1m=reader,
    )  # fmt: skip
    (found,) = lines(run_dir)
    return found


def test_the_parent_reads_it_as_measuring_begins_and_ends(tmp_path: Path) -> None:
    readings = iter([1.5, 2.5])
    assert go(tmp_path, lambda: next(readings))["load_average_1m"] == {"start": 1.5, "end": 2.5}


def test_a_worker_that_dies_while_measuring_has_both_readings(tmp_path: Path) -> None:
    readings = iter([3.0, 4.0])
    found = go(tmp_path, lambda: next(readings), "dies_measuring")
    assert found["outcome"] == "failed"
    assert found["load_average_1m"] == {"start": 3.0, "end": 4.0}


def test_a_cell_that_never_measured_has_none(tmp_path: Path) -> None:
    assert "load_average_1m" not in go(tmp_path, lambda: 1.0, "raises")


def test_a_system_without_it_is_null_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = go(tmp_path / "run", lambda: None)
    assert found["load_average_1m"] is None
    assert "does not tell" in found["null_reasons"]["load_average_1m"]
    monkeypatch.delattr(host.os, "getloadavg")
    assert host.load_average_1m() is None


def test_a_system_with_it_gives_a_number() -> None:
    found = host.load_average_1m()
    assert found is None or found >= 0
