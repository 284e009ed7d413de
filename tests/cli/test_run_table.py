from __future__ import annotations

import io
import json
from typing import Any

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.cli import run_table
from bench.records import alike, frame
from tests.cli.records import GIB, cell, grouped, record, typed


def shown(records: Any, cells: Any = (), **how: Any) -> list[run_table.Panel]:
    return run_table.panels(grouped(records, cells), **how)


def table(records: Any) -> pandas.DataFrame:
    return frame.frame([typed(each) for each in records])


def difference(one: Any, other: Any) -> str | None:
    return alike.difference(typed(one), typed(other))


def text(panels: Any, width: int = 120) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(run_table.render(panels, width))
    return file.getvalue()


def words(panels: Any) -> str:
    """The text without its line breaks."""
    return " ".join(text(panels).split())


def line(panels: Any, backend: str) -> dict[str, Any]:
    lines = [each for panel in run_table.as_json(panels) for each in panel["backends"]]
    return next(each for each in lines if each["backend"] == backend)


def test_frame_has_the_documented_columns_and_the_medians_by_hand() -> None:
    rows = table([record(cell())])
    assert list(rows.columns) == list(frame.COLUMNS)
    row = rows.iloc[0]
    assert row["e2e_s"] == 2.0
    assert row["warmup_s"] == 7.0
    assert row["warmup_calls"] == 2
    assert row["it_per_s"] == 5.0
    assert row["steps_per_s_e2e"] == 5.0
    assert row["step_s"] == pytest.approx(0.2)
    assert row["peak_rss_bytes"] == GIB // 2
    assert pandas.isna(row["peak_torch.max_memory_allocated_bytes"])
    assert pandas.isna(row["e2e_low_s"])
    assert row["speedup"] == 1.0


def test_frame_gives_no_figure_for_what_is_not_ok() -> None:
    bad = record(cell("torch-compile"), outcome="fallback", reason="eager")
    row = table([record(cell()), bad]).iloc[1]
    assert row["outcome"] == "fallback"
    for name in ("e2e_s", "it_per_s", "warmup_s", "peak_rss_bytes", "speedup", "compile_s"):
        assert pandas.isna(row[name]), name


def test_frame_compares_within_a_round() -> None:
    base, fast = cell(rounds=2), cell("torch-compile", rounds=2)
    rows = table(
        [
            record(base, [4.0], round=0),
            record(fast, [2.0], round=0),
            record(base, [9.0], round=1),
            record(fast, [3.0], round=1),
        ]
    )
    assert list(rows["speedup"]) == [1.0, 2.0, 1.0, 3.0]


def test_the_median_is_of_all_calls_and_the_range_of_the_rounds() -> None:
    base = cell(rounds=3)
    many = record(base, [1.0] * 50, round=0)
    panels = shown([many, record(base, [3.0], round=1), record(base, [4.0], round=2)])
    only = line(panels, "none")
    assert only["e2e_s"] == 1.0
    assert only["e2e_interval_s"] == (1.0, 4.0)
    assert only["rounds_by_outcome"] == {"ok": 3}


def test_only_ok_rounds_count_and_the_reason_is_told_once() -> None:
    base = cell(rounds=3)
    failed = {"outcome": "oom", "reason": "out of memory"}
    panels = shown(
        [
            record(base, [1.0], round=0),
            record(base, [100.0], round=1, **failed),
            record(base, [100.0], round=2, **failed),
        ]
    )
    only = line(panels, "none")
    assert only["e2e_s"] == 1.0
    assert only["outcome"] == "ok 1/3"
    assert text(panels).count("out of memory") == 1


def test_warnings_that_differ_in_numbers_are_one_line() -> None:
    said = "its load average was {} when measuring began, and this cell uses 1 thread"
    panels = shown(
        [
            record(cell(), round=0, warnings=[said.format("12.4"), "input was cut"]),
            record(cell("torch-compile"), round=0, warnings=[said.format("3.1")]),
            record(cell("torch-compile"), round=1, warnings=[said.format("9.0")]),
        ]
    )
    seen = words(panels)
    assert seen.count("load average") == 1
    assert "was 3.1 to 12.4 when measuring began, and this cell uses 1 thread" in seen
    assert "(3 times, the numbers from least to most)" in seen
    assert seen.count("input was cut") == 1
    assert run_table.folded(["a 1 b", "a 1 b"]) == "a 1 b"


def test_speedup_is_the_ratio_of_medians() -> None:
    panels = shown(
        [record(cell(), [3.0, 9.0, 1.0]), record(cell("torch-compile"), [2.0, 2.0, 50.0])]
    )
    assert line(panels, "torch-compile")["speedup"] == 1.5
    assert "1.50×" in text(panels)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"steps_effective": 8}, "steps_effective"),
        ({"model_revision": "def"}, "model revision"),
        ({"scheduler_class": "HeunDiscreteScheduler"}, "scheduler"),
        ({"output_height": 64}, "output height"),
        ({"device": "cuda:0"}, "device"),
        ({"synthetic_weights": True}, "synthetic weights"),
        ({"fingerprint": {"python": "3.11", "packages": {"torch": "2.4.0"}}}, "packages torch"),
        ({"fingerprint": {"python": "3.10", "packages": {"torch": "2.13.0"}}}, "python"),
    ],
)
def test_what_is_unlike_gets_no_speedup_but_the_field(fields: Any, named: str) -> None:
    panels = shown([record(cell()), record(cell("torch-compile"), **fields)])
    compiled = line(panels, "torch-compile")
    assert compiled["speedup"] is None
    assert compiled["not_comparable"] is not None
    assert compiled["not_comparable"].startswith(named)
    assert "not comparable" in words(panels)


@pytest.mark.parametrize(
    ("workload", "named"),
    [
        ({"model": "embedded:other"}, "model"),
        ({"steps": 20}, "steps"),
        ({"batch": 2}, "batch"),
        ({"guidance": 3.0}, "guidance"),
        ({"dtype": "float16"}, "dtype"),
        ({"seed": 1}, "seed"),
        ({"prompt": "a boat"}, "prompt"),
        ({"some_future_field": 1}, "some_future_field"),
    ],
)
def test_workloads_of_one_name_that_differ_are_not_compared(workload: Any, named: str) -> None:
    one, other = record(cell()), record(cell("torch-compile", **workload))
    found = difference(other, one)
    assert found is not None
    assert found.startswith(named)
    assert table([one, other])["speedup"].isna().tolist() == [False, True]


def test_backend_cache_and_reasons_for_nulls_do_not_make_records_unlike() -> None:
    one = record(cell(), fingerprint={"gpu": None, "null_reasons": {"gpu": "none"}})
    other = record(cell("torch-compile"), fingerprint={"gpu": None}, cache="warm")
    assert difference(one, other) is None


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 2)), st.data())
def test_unlike_goes_both_ways(one: dict[str, int], data: Any) -> None:
    other = data.draw(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 2)))
    left, right = record(cell(), fingerprint=one), record(cell(), fingerprint=other)
    assert (difference(left, right) is None) == (one == other)
    assert (difference(right, left) is None) == (one == other)


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ([{"allocated", "reserved"}, {"allocated", "reserved"}], "torch.max_memory_allocated"),
        ([{"allocated", "reserved"}, {"reserved"}], "torch.max_memory_reserved"),
        ([{"allocated", "reserved"}, set()], "torch.max_memory_allocated"),
        ([{"allocated"}, {"device"}], "torch.max_memory_allocated"),
        ([{"device"}], "device_used"),
        ([], None),
    ],
)
def test_backends_that_replay_graphs_are_compared_by_what_is_reserved(
    read: list[set[str]], expected: str | None
) -> None:
    names = {
        "allocated": "torch.max_memory_allocated",
        "reserved": "torch.max_memory_reserved",
        "device": "device_used",
    }
    assert alike.shared_meter([{names[m] for m in each} for each in read]) == expected


def test_meters_are_never_mixed_in_a_column() -> None:
    def reading(meter: str, amount: int | None) -> Any:
        return {"meter": meter, "scope": "process", "phase": "steady", "bytes": amount}

    allocated = "torch.max_memory_allocated"
    with_both = record(cell(), memory=[reading(allocated, 2 * GIB), reading("rss", 6 * GIB)])
    without = record(
        cell("torch-compile"), memory=[reading(allocated, None), reading("rss", 5 * GIB)]
    )
    panels = shown([with_both, without])
    assert panels[0].meter == allocated
    seen = text(panels)
    assert "2.000" in seen
    assert "6.000" not in seen
    assert "5.000" not in seen
    assert f"peak memory: {allocated}" in seen


def test_cells_without_a_record_are_shown_as_such() -> None:
    planned = [cell(rounds=2), cell("torch-compile", rounds=2)]
    panels = shown([record(planned[0], round=0)], planned)
    assert line(panels, "none")["outcome"] == "ok 1/2"
    assert line(panels, "torch-compile")["outcome"] == "no record"
    assert "3 planned round(s) without a record" in words(panels)


def test_every_round_can_have_its_own_line() -> None:
    base, fast = cell(rounds=2), cell("torch-compile", rounds=2)
    panels = shown(
        [
            record(base, [4.0], round=0),
            record(fast, [2.0], round=0),
            record(base, [9.0], round=1),
        ],
        [base, fast],
        all_rounds=True,
    )
    assert [each.arm.label for each in panels[0].lines] == [
        "none round 1",
        "none round 2",
        "torch-compile round 1",
        "torch-compile round 2",
    ]
    assert line(panels, "torch-compile round 1")["speedup"] == 2.0
    assert line(panels, "torch-compile round 2")["outcome"] == "no record"


def test_backends_of_one_name_are_told_apart_by_their_options() -> None:
    first = cell("torch-compile", options={"mode": "default", "dynamic": None})
    second = cell("torch-compile", options={"mode": "max-autotune", "dynamic": None})
    second["name"] += "[mode=max-autotune]"
    labels = [each.arm.label for each in shown([record(first), record(second)])[0].lines]
    assert labels == ["torch-compile", "torch-compile[mode=max-autotune]"]


def test_steps_that_differ_from_those_asked_for_are_shown() -> None:
    panels = shown([record(cell(), steps_effective=8, denoiser_calls=16)])
    assert "10 steps, 8 effective, 16 denoiser calls, denoiser batch 2" in words(panels)


def test_synthetic_weights_are_said() -> None:
    assert "synthetic weights" in text(shown([record(cell(), synthetic_weights=True)]))


def test_one_round_says_what_it_does_not_cover() -> None:
    one = shown([record(cell())])
    assert "spread from process to process is not covered" in words(one)
    two = cell(rounds=2)
    panels = shown([record(two, round=0), record(two, round=1)])
    assert "not covered" not in words(panels)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_nothing_is_cut_off(width: int) -> None:
    calls = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    panels = shown(
        [record(cell(), calls), record(cell("torch-compile-regional"), [t / 3 for t in calls])]
    )
    seen = text(panels, width)
    assert "…" not in seen
    assert all(len(each) <= width for each in seen.splitlines())
    for word in ("1.250", "1.000–1.500", "0.417", "3.00×", "torch-compile-regional", "0.500"):
        assert word in seen, word


def test_unknown_and_missing_fields_do_no_harm() -> None:
    whole = record(cell(), round=1, outcome="timeout", novelty={"a": 1})
    needed = ("schema", "record_id", "cell_id", "round", "outcome", "cell", "novelty")
    bare = {name: whole[name] for name in needed}
    empty = record(cell(), e2e_s=[], memory=[], it_per_s=[], warmup_s=[])
    panels = shown([bare, empty])
    assert "timeout" in text(panels)
    assert len(table([bare, empty])) == 2


def test_a_bracket_in_a_reason_is_no_markup() -> None:
    panels = shown([record(cell(), outcome="failed", reason="bad [red]value[/]")])
    assert "bad [red]value[/]" in text(panels)


def test_json_is_json() -> None:
    panels = shown([record(cell()), record(cell("torch-compile"), [1.0])])
    value = json.loads(json.dumps(run_table.as_json(panels), allow_nan=False))
    backends = value[0]["backends"]
    assert backends[1]["speedup"] == 2.0
    assert backends[0]["steps"]["effective"] == 10
    assert backends[0]["steady_peak_bytes"] == {"rss": GIB // 2}


def test_each_environment_is_compared_with_its_own_baseline_and_the_baselines_are_told() -> None:
    def elsewhere(backend: str, seconds: float) -> Any:
        of = cell(backend)
        of["backend"]["environment"] = "nexfort"
        of["cell_id"] += "@"
        software = {"python": "3.11", "packages": {"torch": "2.4.0"}, "environment_hash": "b"}
        return record(of, [seconds], fingerprint=software)

    records = [
        record(cell(), [2.0]),
        record(cell("torch-compile"), [1.0]),
        elsewhere("none", 4.0),
        elsewhere("torch-compile", 1.0),
        elsewhere("nexfort", 2.0),
    ]
    (group,) = shown(records)
    assert {line.arm.label: line.speedup for line in group.lines} == {
        "none": 1.0,
        "torch-compile": 2.0,
        "none@nexfort": 1.0,
        "torch-compile@nexfort": 4.0,
        "nexfort": 2.0,
    }
    (told,) = group.baselines
    assert told.startswith(
        "none@nexfort takes 2.00 times as long as none (torch 2.4.0 instead of 2.13.0)"
    )
    alone = shown([records[0], records[4]])[0].lines[1]
    assert alone.speedup is None
    assert alone.not_comparable == "environment (nexfort, baseline current)"
    assert shown(records[:2])[0].baselines == []


def test_a_lossy_backend_is_labelled() -> None:
    made = [record(cell()), record(cell(backend="deepcache"))]
    made[1]["backend"] = {"name": "deepcache", "lossy": True}
    (group,) = shown(made)
    assert [each.arm.label for each in group.lines] == ["none", "deepcache (lossy)"]
