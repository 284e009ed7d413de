from __future__ import annotations

import copy

import numpy as np
import pytest

from bench import text
from bench.cli import run_table
from bench.passes.profile import section as profile
from bench.passes.sweep.judge import step_sweep
from bench.store import StoreError
from bench.store.load import load
from reports import analyse, build, reference
from tests.reports import make_records as make


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (text.seconds(0.8451), "0.845"),
        (text.seconds(12.345), "12.35"),
        (text.seconds(813.568), "813.6"),
        (text.seconds(0.00123456), "0.00123"),
        (text.seconds(1e-5), "1.00e-05"),
        (text.seconds(0.0), "0.000"),
        (text.seconds(None), "–"),
        (text.seconds(float("nan")), "–"),
        (text.ratio(1.4249), "1.42×"),
        (text.ratio(1.0049), "1.005×"),
        (text.ratio(0.0012), "0.0012×"),
        (text.ratio(0.0954), "0.095×"),
        (text.ratio(336.202), "336×"),
        (text.ratio(7222.7), "7,223×"),
        (text.count(1496), "1,496"),
        (text.interval(None, None), "–"),
        (text.interval(5, None, text.count), "≥ 5"),
        (text.with_interval(1.0, 0.9, 1.1), "1.000 (0.900–1.100)"),
        (text.plural(1, "process"), "1 process"),
        (text.plural(2, "process"), "2 processes"),
        (text.listed("abcd"), "a, b and 2 more"),
    ],
)
def test_texts(said, expected):
    assert said == expected


@pytest.mark.thorough
def test_published_rows_are_drawn_and_never_computed_with(tmp_path):
    model = "hub:SG161222/RealVisXL_V4.0"
    workload = make.Workload("real", model=model, size=1024)
    records = make.records([workload], make.BACKENDS[:2], rounds=1)
    run = make.write_run(tmp_path / "run", records)
    alone = build.write([run], tmp_path / "alone")
    beside = build.write([run], tmp_path / "beside", references=["onediff_t2i_i2i"])
    assert alone.view.published is None
    labels = {row[1].text for row in beside.view.published.rows}
    assert "nexfort (published)" in labels
    assert "none (published, oneflow)" in labels
    assert alone.view.workloads[0].tables == beside.view.workloads[0].tables
    assert alone.view.workloads[0].answer == beside.view.workloads[0].answer
    svg = (tmp_path / "beside/plots/end_to_end.svg").read_text()
    assert "nexfort (published)" in svg
    assert "torch_max_allocated" in beside.page.read_text()


def test_published_rows_of_another_size_or_task_stay_away(tmp_path):
    rows = reference.load("onediff_t2i_i2i")
    assert len(rows) == 34
    records = make.records([make.Workload("x", model="hub:SG161222/RealVisXL_V4.0", size=640)])
    (group,) = make.groups(make.write_run(tmp_path / "run", records))
    assert reference.beside(rows, group) == []
    pix = [row for row in rows if "pix2pix" in row.model]
    assert {row.task for row in pix} == {"edit"}


def test_many_groups_are_shared_among_processes_without_changing_a_figure(tmp_path, monkeypatch):
    workloads = [make.Workload(f"w{i}") for i in range(5)]
    records = make.records(workloads, rounds=2)
    groups = make.groups(make.write_run(tmp_path / "run", records))
    monkeypatch.setattr(analyse, "FEW_REPLICATES", analyse.REPLICATES)
    alone = analyse.compare(groups)
    monkeypatch.setattr(analyse, "MANY_ARMS", 4)
    shared = analyse.compare(groups)
    assert [f.speedup for c in alone for f in c.findings] == [
        f.speedup for c in shared for f in c.findings
    ]
    assert [c.best.arm for c in alone] == [c.best.arm for c in shared]
    assert all(f.baseline is c.findings[0] for c in shared for f in c.findings[1:])


def test_equal_backends_are_not_called_fastest(tmp_path):
    backends = [make.BACKENDS[0], make.Backend("twin", 1.0, 2.0)]
    records = make.records(make.WORKLOADS[:1], backends, rounds=4, between=0.02)
    (found,) = make.compared(make.write_run(tmp_path / "run", records))
    assert found.best is None
    assert found.findings[1].verdict.word in ("SAME", "UNCLEAR")


def test_two_that_cannot_be_told_apart_are_named_together(tmp_path, undrawn):
    backends = [make.BACKENDS[0], make.Backend("a", 1.5, 9.0), make.Backend("b", 1.5, 9.0)]
    records = make.records(make.WORKLOADS[:1], backends, rounds=3)
    report = build.write([make.write_run(tmp_path / "run", records)])
    assert "not told apart from" in report.view.workloads[0].answer.headline


@pytest.mark.thorough
def test_a_lossy_backend_is_labelled_and_never_the_whole_answer(tmp_path):
    backends = [*make.BACKENDS, make.Backend("skipper", 2.6, lossy=True)]
    run = make.write_run(tmp_path / "run", make.records(make.WORKLOADS[:1], backends))
    report = build.write([run])
    (answer,) = (workload.answer for workload in report.view.workloads)
    assert answer.headline.startswith("skipper (lossy) is fastest; of those that keep the image,")
    assert "torch-compile (1.4" in answer.headline
    speed = report.view.workloads[0].tables[0]
    assert [row[0].text for row in speed.rows].count("skipper (lossy)") == 1
    assert "skipper (lossy)" in (run / "plots/end_to_end.svg").read_text()
    alone = [make.BACKENDS[0], make.Backend("skipper", 2.6, lossy=True)]
    run = make.write_run(tmp_path / "alone", make.records(make.WORKLOADS[:1], alone))
    said = build.write([run]).view.workloads[0].answer.headline
    assert said.endswith("; none that keeps the image is clearly faster")


def two_sessions(tmp_path, slower=1.0):
    """A backend with a cold cache in one run and a warm one in another, each with a baseline."""
    for name, cache, factor in (("cold", "fresh", 1.0), ("core", "warm", slower)):
        records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], caches=(cache,), seed=3)
        for record in records:
            record["e2e_s"] = [factor * value for value in record["e2e_s"]]
        yield make.write_run(tmp_path / name, records)


def test_cold_and_warm_of_two_runs_find_each_other(tmp_path, undrawn):
    runs = list(two_sessions(tmp_path))
    said = build.write(runs, tmp_path / "out").view.workloads[0].answer
    assert [words.partition(" s ")[2] for words in said.warmup[:2]] == ["cold", "with warm cache"]
    assert said.breakeven[-1].startswith("warm cache: ")


def test_a_slower_session_tells_no_two_gains_apart(tmp_path):
    """Times of two runs meet in no ratio: a machine that throttled in one is no backend's gain."""
    runs = list(two_sessions(tmp_path, slower=1.3))
    (found,) = make.compared(*runs)
    gains = [f.speedup.ratio for f in found.findings if f.speedup]
    assert gains[0] == pytest.approx(gains[1])
    assert all("another run" not in doubt for f in found.findings for doubt in f.doubts)
    assert not any(analyse._clear(*pair) for pair in (found.findings[2:], found.findings[:1:-1]))


def test_a_baseline_of_another_run_is_a_doubt(tmp_path):
    runs = list(two_sessions(tmp_path))
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[1:2], seed=3)
    (found,) = make.compared(runs[1], make.write_run(tmp_path / "alone", records))
    doubtful = [f for f in found.findings if any("another run, core" in d for d in f.doubts)]
    assert [f.arm.source.label for f in doubtful] == ["alone"]
    assert doubtful[0].trust == "with care"


def test_launches_bind_a_loop_and_not_what_follows_it(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:1], rounds=1)
    (record,) = records
    loop_s = float(np.median(record["step_s"], axis=0).sum())
    for share, bound in ((0.95, False), (0.85, True), (None, None)):
        busy = {"busy_s": 0.5 * min(record["e2e_s"])}
        if share is not None:
            busy["loop_busy_s"] = share * loop_s
        record["device_busy"] = busy
        run = make.write_run(tmp_path / f"run-{share}", records)
        (found,) = make.compared(run)
        limits = profile.limits(found, found.findings[0])
        assert limits.launch_bound is bound
        assert limits.busy_pct < 51
        assert limits.loop_busy_pct == (None if share is None else pytest.approx(100 * share))


def test_the_limits_are_what_the_counts_and_ceilings_give(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    run = make.write_run(tmp_path / "run", records)
    (found,) = make.compared(run)
    for finding, record in zip(found.findings, records, strict=True):
        limits = profile.limits(found, finding)
        loop_s = np.mean([call["denoise_s"] for call in record["stages"]])
        assert limits.flops_per_s == pytest.approx(10 * 1e9 / loop_s)
        assert limits.mfu_pct == pytest.approx(100 * 10 * 1e9 / loop_s / 4e10)
        assert limits.ideal_s == pytest.approx(10 * 1e9 / 4e10)
        assert limits.least_s == pytest.approx(10 * 1e7 / 8e9)
        assert limits.operators_s == pytest.approx(10 * 5e7 / 8e9)
        assert sum(finding.stages.values()) == pytest.approx(np.mean(record["e2e_s"]))


def test_a_fit_returns_what_was_put_in(tmp_path):
    """10 ms a step and 200 ms fixed come back within their intervals."""
    workload = make.Workload("fake", step_s=0.01, fixed_s=0.2)
    records = make.records([workload], make.BACKENDS[:1], rounds=2, between=0.0,
                           sweep=(5, 10, 20, 30, 50))  # fmt: skip
    (found,) = make.compared(make.write_run(tmp_path / "run", records))
    fit = step_sweep(found.findings[0].arm.good).fit
    assert fit.fixed_interval_s[0] <= 0.2 <= fit.fixed_interval_s[1]
    assert fit.marginal_interval_s[0] <= 0.01 <= fit.marginal_interval_s[1]
    assert fit.n == 30


def test_heun_is_not_called_a_disagreement(tmp_path, undrawn):
    """Ten step events of 1.9 denoiser calls each: the slope is per call, it_per_s per event."""
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:1], rounds=1, within=0.0, between=0.0,
                           sweep=(5, 10, 20))  # fmt: skip
    (record,) = records
    rate = float(np.median(record["it_per_s"]))
    record["denoiser_calls"] = 19
    record["steps_effective"] = 19  # as some schedulers count
    for call in record["sweep_steps"]:
        call["denoiser_calls"] = 2 * call["steps"] - 1
        call["e2e_s"] = 0.1 + call["denoiser_calls"] / (1.9 * rate)
    record["sweep_steps_warmup"] = [
        {**record["sweep_steps"][0], "steps": 80, "outcome": "oom", "reason": "no memory"}
    ]
    report = build.write([make.write_run(tmp_path / "run", records)])
    tables = {table.title: table for table in report.view.workloads[0].tables}
    (row,) = tables["Steps against time"].rows
    assert row[5].text == row[6].text == text.number(rate)
    assert "agrees with it_per_s" in row[-1].text
    (lost,) = tables["Step counts without a figure"].rows
    assert [cell.text for cell in lost[1:]] == ["80 steps", "1", "oom", "no memory"]


@pytest.mark.parametrize("name", ["sweep_steps", "sweep_steps_warmup", "sweep_size"])
@pytest.mark.parametrize(
    "value", [7, [7], [{}], [{"outcome": "ok", "steps": "x"}], [{"outcome": "?", "steps": 5}]]
)
def test_a_foreign_sweep_is_named(tmp_path, name, value, capsys):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:1], rounds=1)
    records[0][name] = value
    with pytest.raises(StoreError, match="holds no record"):
        load([make.write_run(tmp_path / "run", records)])
    assert f"line 1 ({name}" in capsys.readouterr().err


def test_a_sweep_without_a_line_says_why(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:1], rounds=1, sweep=(5,))
    report = build.write([make.write_run(tmp_path / "run", records)])
    table = next(t for t in report.view.workloads[0].tables if t.title == "Steps against time")
    assert "two different step counts" in table.rows[0][-1].text


@pytest.mark.thorough
def test_sizes_are_told(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    records[1]["sweep_size"] = [
        {"order": 0, "height": 96, "width": 64, "output_height": 96, "output_width": 64,
         "first_s": 72.5, "second_s": 0.61, "e2e_s": [0.6, 0.58, 0.59], "graphs": 2,
         "recompiles": 1, "outcome": "ok", "reason": None},
        {"order": 1, "height": 32, "width": 32, "first_s": None, "second_s": None, "e2e_s": [],
         "graphs": 0, "recompiles": 0, "outcome": "oom", "reason": "no memory"},
    ]  # fmt: skip
    report = build.write([make.write_run(tmp_path / "run", records)])
    table = next(t for t in report.view.workloads[0].tables if t.title == "Sizes")
    assert [c.text for c in table.rows[0][2:]] == [
        "64×96", "72.50", "0.610", "0.590", "71.91", "2", "1", "ok"]  # fmt: skip
    assert table.rows[1][-1].text == "oom: no memory"


def test_memory_of_one_meter_only(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    for reading in records[1]["memory"]:
        reading["meter"] = "torch.max_memory_allocated"
    (found,) = make.compared(make.write_run(tmp_path / "run", records))
    assert found.meter == "torch.max_memory_allocated"
    assert found.findings[0].peak(found.meter) is None


def test_resident_memory_of_forked_and_spawned_processes_never_meets(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    records[1]["process"]["start"] = "spawn"
    run = make.write_run(tmp_path / "run", records)
    (found,) = make.compared(run)
    assert found.meter == "rss"
    assert [f.peak("rss") is None for f in found.findings] == [False, True]
    assert found.findings[1].peak("rss (spawned)") > 0
    (panel,) = run_table.read(run)
    assert [sorted(line.arm.steady_peaks) for line in panel.lines] == [["rss"], ["rss (spawned)"]]
    for record in records:
        record["process"]["start"] = "spawn"
    run = make.write_run(tmp_path / "other", records)
    (found,) = make.compared(run)
    assert found.meter == "rss (spawned)"
    assert all(f.peak(found.meter) for f in found.findings)


def test_memory_use_is_linear_in_records(tmp_path):
    """A sample keeps no more than its own figures, however long its step traces were."""
    import tracemalloc

    def peak(rounds: int) -> int:
        records = make.records(make.WORKLOADS, rounds=rounds)
        run = make.write_run(tmp_path / str(rounds), records)
        del records
        tracemalloc.start()
        load([run])
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(2)
    few, many = peak(10), peak(40)
    assert many < 5 * few
    assert np.isfinite(many)


def move_to_nexfort(records):
    """Make these records those of other cells, in an environment with an older torch."""
    for record in records:
        record["cell_id"] += "-old"
        record["record_id"] += "-old"
        record["cell"]["cell_id"] = record["cell_id"]
        record["cell"]["backend"]["environment"] = "nexfort"
        record["fingerprint"]["packages"]["torch"] = "2.4.0"


def test_a_backend_meets_the_baseline_of_its_own_environment(tmp_path, undrawn):
    records = make.records([make.Workload("t2i")], make.BACKENDS[:2], rounds=1)
    elsewhere = copy.deepcopy(records)
    move_to_nexfort(elsewhere)
    for record in elsewhere:
        record["e2e_s"] = [10 * value for value in record["e2e_s"]]
    run = make.write_run(tmp_path / "run", [*records, *elsewhere])
    (found,) = make.compared(run)
    by_label = {finding.arm.label: finding for finding in found.findings}
    name = make.BACKENDS[1].name
    assert set(by_label) == {"none", "none@nexfort", name, f"{name}@nexfort"}
    assert by_label[name].baseline is by_label["none"]
    assert by_label[f"{name}@nexfort"].baseline is by_label["none@nexfort"]
    ratios = [by_label[each].speedup.ratio for each in (name, f"{name}@nexfort")]
    assert ratios[0] == pytest.approx(ratios[1])
    (told,) = found.between
    assert told.startswith("none@nexfort takes 10.00 times as long as none (torch 2.4.0 instead of")
    written = build.write([run], tmp_path / "out").view.workloads[0]
    assert told in written.tables[0].note
    assert "gains most, each against none in its own environment" in written.answer.headline


@pytest.mark.parametrize(("gain", "tied"), [(1.43, True), (3.0, False)])
def test_gains_in_two_environments_are_told_apart_by_their_intervals(tmp_path, gain, tied):
    workloads = [make.Workload("t2i")]
    records = make.records(workloads, make.BACKENDS[:2], rounds=1)
    elsewhere = make.records(workloads, [make.BACKENDS[0], make.Backend("best", gain)], rounds=1)
    move_to_nexfort(elsewhere)
    run = make.write_run(tmp_path / "run", [*records, *elsewhere])
    (found,) = make.compared(run)
    assert {found.best.arm.short, *(f.arm.short for f in found.tied)} == (
        {make.BACKENDS[1].name, "best@nexfort"} if tied else {"best@nexfort"}
    )
