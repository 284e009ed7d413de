from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.gate import GateError, baselines, history
from bench.stats import changepoint
from plots import history as figure
from reports import history as page
from tests.gate import support
from tests.gate.support import planned, records, times, write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Sixteen runs: 8 % slower from the tenth on, one graph break more from the twelfth."""
    folder = tmp_path / "runs"
    for i in range(16):
        of = planned(rounds=2)
        arm = times(1.08 if i >= 9 else 1.0, i, processes=2)
        evidence = {**support.EVIDENCE, "graph_breaks": int(i >= 11)}
        made = records(
            of,
            arm,
            started_utc=f"2026-11-{i + 1:02d}T00:00:00+00:00",
            backend={"evidence": evidence},
        )
        write_run(folder / f"r{i:02d}", [(of, made)])
    return folder


def series(found: history.History, metric: str) -> history.Series:
    (one,) = [one for one in found.series if one.metric == metric]
    return one


def test_changes_are_marked_where_they_are(runs: Path) -> None:
    found = history.read(runs)
    speed = series(found, "speed")
    assert [mark.index for mark in speed.marks] == [9]
    assert speed.marks[0].reason.startswith("+8.")
    assert "from r09 on" in speed.marks[0].reason
    assert [point.run for point in speed.points] == [f"r{i:02d}" for i in range(16)]
    assert [mark.reason for mark in series(found, "graph_breaks").marks] == ["0 → 1 at r11 (exact)"]
    assert series(found, "warmup").marks == ()
    assert series(found, "memory").points[0].value == 2**30


def test_a_baseline_of_a_run_is_not_counted_twice(runs: Path, tmp_path: Path) -> None:
    baselines.save(runs / "r00", "main", runs / "baselines")
    assert history.read(runs).runs == 16
    assert history.read(runs / "baselines").runs == 1


def test_machines_and_workloads_are_kept_apart(runs: Path) -> None:
    of = planned(rounds=2)
    elsewhere = records(of, times(processes=2), fingerprint={"cpu": "CPU Y"})
    write_run(runs / "s0", [(of, elsewhere)])
    longer = planned(rounds=2, steps=50)
    write_run(runs / "s1", [(longer, records(longer, times(processes=2)))])
    found = history.read(runs)
    assert [len(one.points) for one in found.series if one.metric == "speed"] == [16, 1, 1] or [
        len(one.points) for one in found.series if one.metric == "speed"
    ] == [1, 1, 16]
    titles = set(page.table(found)["title"])
    assert len([title for title in titles if "end-to-end" in title]) == 2


def test_few_runs_say_so(tmp_path: Path) -> None:
    support.run(tmp_path / "runs", "one")
    found = history.read(tmp_path / "runs")
    assert not series(found, "speed").enough
    assert "it takes 10" in page.markdown(found)
    assert changepoint.FEWEST == 10


def test_the_page_has_a_figure_and_a_table(runs: Path, tmp_path: Path) -> None:
    from PIL import Image

    written = page.write(history.read(runs), tmp_path / "out")
    text = written.read_text()
    assert "| t2i/torch-compile |" in text
    assert "0 → 1 at r11 (exact)" in text
    with Image.open(tmp_path / "out" / "history.png") as picture:
        assert picture.width > 500
    assert (tmp_path / "out" / "history.svg").read_text().startswith("<?xml")


def test_the_figure_draws_each_mark(runs: Path) -> None:
    drawn = figure.figure(page.table(history.read(runs)))
    told = [text.get_text() for axes in drawn.axes for text in axes.texts]
    assert any(text.startswith("+8.") for text in told)
    assert "0 → 1 at r11" in told
    empty: Any = page.table(history.History((), 0, ()))
    assert figure.figure(empty).axes


def test_what_cannot_be_read_is_named(runs: Path, tmp_path: Path) -> None:
    (runs / "r03" / "plan.json").write_text("{")
    found = history.read(runs)
    assert found.runs == 15
    assert "r03" in found.unread[0]
    assert "r03" in page.markdown(found)
    with pytest.raises(GateError, match="holds no run"):
        history.read(tmp_path / "runs" / "r03" / "logs")
    with pytest.raises(GateError, match="is not a folder"):
        history.read(tmp_path / "gone")


def test_names_cannot_break_the_table(tmp_path: Path) -> None:
    of = planned(name="a|<b>", rounds=1)
    write_run(tmp_path / "runs" / "x", [(of, records(of, times(processes=1)))])
    text = page.markdown(history.read(tmp_path / "runs"))
    assert "<b>" not in text
    assert "a\\|&lt;b>" in text
