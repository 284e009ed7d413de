"""Whole cells on a pipeline whose every duration is known: figures and outcomes."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.passes.profile import work as profiling
from bench.worker.errors import SourceError
from tests import plugin_backend
from tests.cli.records import FIELDS
from tests.worker import fakes


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin_backend.install(tmp_path / "plugins")))


def test_known_answers(cell, tmp_path):
    first_extra = 5.0
    told = cell({"extra_s": lambda call: first_extra if call == 1 else 0.0}, steps=10)
    e2e_s = 10 * fakes.STEP_S + fakes.FIXED_S
    assert (told.outcome, told.reason) == ("ok", None)
    assert told.phases == ["load", "prepare", "warmup", "steady", "finish"]
    assert told["first_call_s"] == pytest.approx(e2e_s + first_extra)
    assert told["warmup_s"] == pytest.approx([e2e_s + first_extra, e2e_s, e2e_s])
    assert told["warmup_stable"] is True
    assert told["compile_s"] == pytest.approx(first_extra)
    assert told["e2e_s"] == pytest.approx([e2e_s] * 3)
    assert told["it_per_s"] == pytest.approx([1 / fakes.STEP_S] * 3)
    assert told["steps_per_s_e2e"] == pytest.approx([10 / e2e_s] * 3)
    assert len(told["stages"]) == 3
    assert told["stop_reason"] == "max_calls"
    steps = [told[f] for f in ("steps_requested", "steps_effective", "denoiser_calls")]
    assert steps == [10, 10, 10]
    assert told["denoiser_batch"] == 2
    assert told["device_e2e_s"] is None
    assert "device events" in told["null_reasons"]["device_e2e_s"]
    assert told["pipeline_class"] == "FakePipeline"
    assert told["scheduler_class"] == "FakeScheduler"
    assert told["fingerprint"]["threads"] == 1
    assert told.get("warnings", []) == []
    assert told["backend"]["active"] is True
    (image,) = told["images"]
    assert (image["seed"], image["index"]) == (333, 0)
    assert (told["output_width"], told["output_height"]) == (64, 64)
    assert (tmp_path / image["path"]).is_file()


def test_every_field_is_one_of_the_contract(cell):
    told = cell()
    assert set(told) <= FIELDS
    json.dumps(told, allow_nan=False)


class TestProfile:
    """A pass of its own: nothing in it changes a measured figure or an outcome."""

    CEILINGS = {"matmul_flops_per_s": 1.0}

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(profiling, "ceilings", lambda device, dtype, clock: self.CEILINGS)

    def test_a_torch_that_counts_nothing_says_so(self, cell, monkeypatch):
        monkeypatch.setattr(profiling, "counts_work", lambda: False)
        told = cell(profile=True)
        assert told.outcome == "ok"
        assert told["work"] is None
        assert "torch 2.1" in told["null_reasons"]["work"]

    @pytest.mark.skipif(not profiling.counts_work(), reason="torch 2.0 counts no operations")
    def test_the_baseline_counts_work(self, cell):
        told = cell(profile=True)
        assert told.outcome == "ok"
        assert told.phases[-2:] == ["finish", "profile"]
        assert told["work"]["unet"]["calls"] == 4
        assert told["ceilings"] == self.CEILINGS
        assert told["device_busy"] is None
        assert "only CUDA" in told["null_reasons"]["device_busy"]
        assert len(told["e2e_s"]) == 3

    def test_others_leave_the_count_to_the_baseline(self, cell, plugins):
        told = cell(profile=True, backend="plugin-modules")
        assert told["work"] is None
        assert "backend none" in told["null_reasons"]["work"]

    def test_what_fails_is_said_and_ends_nothing(self, cell, monkeypatch):
        def no_counter() -> None:
            raise ImportError("this torch counts nothing")

        monkeypatch.setattr(profiling, "counts_work", lambda: True)
        monkeypatch.setattr(profiling, "WorkWatch", no_counter)
        told = cell(profile=True)
        assert told.outcome == "ok"
        assert told["work"] is None
        assert told["null_reasons"]["work"] == "ImportError: this torch counts nothing"
        assert told["ceilings"] == self.CEILINGS

    def test_later_rounds_are_not_profiled(self, cell):
        told = cell(profile=True, round=1)
        assert "profile" not in told.phases
        assert "ceilings" not in told


def test_three_calls_of_four_steps_give_exactly_nine_intervals(cell):
    told = cell(steps=4)
    intervals = list(itertools.chain.from_iterable(told["step_s"]))
    assert intervals == pytest.approx([fakes.STEP_S] * 9)


def test_heun_at_ten_steps_makes_nineteen_calls(cell):
    told = cell({"scheduler": fakes.FakeScheduler(fakes.heun, order=2)}, steps=10)
    numbers = [told[f] for f in ("steps_requested", "steps_effective", "denoiser_calls")]
    assert numbers == [10, 10, 19]
    assert told.outcome == "ok"


def test_device_times_are_reported_where_there_are_device_events(cell, clock):
    clock.device_events, clock.no_events_reason = True, None
    told = cell()
    assert told["device_e2e_s"] == pytest.approx(told["e2e_s"])
    assert "device_e2e_s" not in told.get("null_reasons", {})


def test_warm_up_lasts_until_calls_are_stable(cell):
    extra = {1: 60.0, 2: 4.0, 3: 0.5}
    told = cell({"extra_s": lambda call: extra.get(call, 0.0)}, warmup={"max_calls": 9})
    assert len(told["warmup_s"]) == 5
    assert told["warmup_stable"] is True
    assert told["e2e_s"] == pytest.approx([told["e2e_s"][0]] * 3)


def test_warm_up_that_never_settles_is_said(cell):
    told = cell({"extra_s": lambda call: call % 2})
    assert told.outcome == "ok"
    assert told["warmup_stable"] is False
    assert len(told["warmup_s"]) == 5
    assert any("warmup.max_calls" in text for text in told["warnings"])


def test_measuring_goes_on_until_the_noise_target(cell):
    told = cell(calls={"max_calls": 50})
    assert told["stop_reason"] == "noise_target"
    assert len(told["e2e_s"]) == 6


def test_priming_a_cache_calls_once(cell, tmp_path, clock):
    pipeline = fakes.FakePipeline(clock)
    told = cell(pipeline, cache="warm", prime_only=True)
    assert told.outcome == "ok"
    assert pipeline.calls == 1
    assert told.phases == ["load", "prepare", "warmup"]
    assert not list((tmp_path / "pictures").iterdir())


def test_a_pipeline_without_step_callback_is_measured_at_its_scheduler(cell):
    told = cell({"callbacks": False})
    assert told["it_per_s"] == pytest.approx([1 / fakes.STEP_S] * 3)
    assert any("no step callback" in text for text in told["warnings"])


def test_one_step_has_no_rate_and_a_reason(cell):
    told = cell(steps=1)
    assert told["it_per_s"] == [None] * 3
    assert told["step_s"] == [[]] * 3
    assert "it_per_s" in told["null_reasons"]


def test_a_size_that_the_pipeline_ignored_is_a_warning(cell):
    told = cell(height=128)
    assert (told["output_height"], told["output_width"]) == (64, 64)
    assert any("64x128 was asked for" in text for text in told["warnings"])


@pytest.mark.parametrize(
    ("colour", "words"), [((0, 0, 0), "black"), ((128, 128, 128), "single colour")]
)
def test_a_black_or_constant_picture_is_invalid_and_kept(cell, tmp_path, colour, words):
    told = cell({"picture": lambda: Image.new("RGB", (64, 64), colour)})
    assert told.outcome == "invalid"
    assert words in (told.reason or "")
    assert (tmp_path / told["images"][0]["path"]).is_file()


def test_nan_in_the_decoded_picture_is_invalid_even_if_the_picture_has_colours(cell):
    import torch

    told = cell({"decoded": torch.tensor([0.5, float("nan")])})
    assert told.outcome == "invalid"
    assert "NaN" in (told.reason or "")


def test_calls_that_do_not_do_the_same_are_invalid(cell):
    counter = itertools.count()

    def levels(steps: int) -> list[float]:
        return [float(i) for i in range(steps + (next(counter) == 4))]

    told = cell({"scheduler": fakes.FakeScheduler(levels)})
    assert told.outcome == "invalid"
    assert "4, 5" in (told.reason or "")


def test_pictures_that_differ_between_equal_calls_are_a_warning(cell):
    seeds = itertools.count()
    told = cell({"picture": lambda: fakes.colourful(next(seeds))})
    assert told.outcome == "ok"
    assert any("not deterministic" in text for text in told["warnings"])


def _raise(error: BaseException, at: int) -> Any:
    def before(call: int) -> None:
        if call == at:
            raise error

    return before


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (MemoryError(), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "oom"),
        (ValueError("shapes do not fit"), "failed"),
        (SystemExit(1), "failed"),
    ],
)
@pytest.mark.parametrize(("call", "doing"), [(1, "warming up"), (4, "measuring")])
def test_errors_in_a_call(cell, error, outcome, call, doing, capsys):
    told = cell({"before": _raise(error, call)})
    assert told.outcome == outcome
    assert doing in (told.reason or "")
    assert "\n" not in (told.reason or "")
    assert "Traceback" in capsys.readouterr().err
    reported = (len(told.get("warmup_s", [])), len(told.get("e2e_s", [])))
    assert reported == ((0, 0) if call == 1 else (2, 1)), "what was reported is kept"


def test_a_source_that_knows_its_outcome_keeps_it(cell):
    told = cell(SourceError("no such model: try another", outcome="unavailable"))
    assert (told.outcome, told.reason) == ("unavailable", "no such model: try another")


def test_a_folder_that_cannot_be_written_is_failed_with_the_figures_kept(
    tmp_path, monkeypatch, clock
):
    fakes.give(monkeypatch, fakes.FakePipeline(clock))
    job = fakes.make_job(tmp_path)
    job["pictures_dir"] = str(tmp_path / "not there")
    told = fakes.run(job, clock)
    assert told.outcome == "failed"
    assert "saving pictures" in (told.reason or "")
    assert len(told["e2e_s"]) == 3


def test_a_parent_that_is_gone_is_no_crash(tmp_path, monkeypatch, clock):
    from bench.worker.cell import run_job

    def gone(event: Any) -> None:
        raise BrokenPipeError

    fakes.give(monkeypatch, fakes.FakePipeline(clock))
    run_job(fakes.make_job(tmp_path), gone, clock)


@pytest.mark.usefixtures("plugins")
class TestPlugins:
    @pytest.mark.parametrize(
        ("name", "outcome", "words"),
        [
            ("plugin-modules", "ok", ""),
            ("plugin-raises", "failed", "the widget is upside down (while preparing"),
            ("plugin-exits", "failed", "ended the process with status 1"),
            ("plugin-silent", "fallback", "changed nothing"),
            ("plugin-liar", "fallback", "no graph was compiled"),
            ("plugin-refuses", "unsupported", "it needs a quantum device, and this is cpu"),
            ("plugin-lacks", "unavailable", "plugin-lacks: the package widget is not installed"),
            ("plugin-missing", "failed", "plugin_backend_that_is_not_there"),
            ("plugin-nowhere", "failed", "no backend is called"),
        ],
    )
    def test_outcomes(self, cell, clock, name, outcome, words):
        pipeline = fakes.FakePipeline(clock)
        told = cell(pipeline, backend=name)
        assert told.outcome == outcome
        assert words in (told.reason or "")
        if outcome in ("unsupported", "unavailable"):
            assert told.phases == [], "the probe comes before any model is loaded"
        if outcome == "fallback":
            assert told["backend"]["active"] is False
            assert len(told["e2e_s"]) == 3


def test_medians_decide_the_compile_time(cell):
    extra = {1: 10.0, 5: 3.0}
    told = cell({"extra_s": lambda call: extra.get(call, 0.0)})
    median = statistics.median(told["e2e_s"])
    assert told["compile_s"] == pytest.approx(told["first_call_s"] - median)
    assert told["compile_s"] == pytest.approx(10.0)
