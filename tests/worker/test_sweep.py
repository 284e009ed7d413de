"""Sweeps on a pipeline whose every duration is known: what is called, in which order, recorded."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from bench.contract import PHASES
from bench.passes.sweep.judge import size_sweep, step_sweep
from bench.passes.sweep.work import shuffled
from bench.stats.sweep import fit_sweep
from bench.worker import dynamo, evidence
from tests.cli.records import FIELDS, typed_of
from tests.worker import fakes

pytestmark = pytest.mark.thorough

STEPS = [5, 10, 20, 30, 50]
CELL_CALLS = 5
"""Two to warm up and three measured: what the jobs of ``fakes`` call before a sweep."""


class Pipeline(fakes.FakePipeline):
    """Takes a size, returns pictures of it, and may be slower or fail by it.

    Attributes:
        called: (steps, height, width) of each call.
        extra: seconds that a call takes besides, from its steps, size and number.
        fails: raises for the calls that fail.
    """

    def __init__(self, clock: fakes.FakeClock, **more: Any) -> None:
        super().__init__(clock, picture=lambda: self.drawn(), **more)
        self.called: list[tuple[int, int, int]] = []
        self.extra: Callable[[int, int, int], float] = lambda steps, height, call: 0.0
        self.fails: Callable[[int, int], None] = lambda steps, height: None
        self.drawn: Callable[[], Image.Image] = lambda: fakes.colourful().resize(
            self.called[-1][1:]
        )

    def colourful(self) -> Image.Image:
        """Return a picture of the size that was asked for last."""
        _, height, width = self.called[-1]
        return fakes.colourful().resize((width, height))

    def __call__(self, steps: int, on_step: Any = None, height: int = 64, width: int = 64) -> Any:
        self.called.append((steps, height, width))
        self.clock.pass_(self.extra(steps, height, len(self.called)))
        self.fails(steps, height)
        return super().__call__(steps, on_step)


def prepare_inputs(_pipeline: Any, workload: Any, _device: str) -> Any:
    steps = workload["steps"]
    if workload["strength"] is not None:
        steps = int(steps * workload["strength"])
    fixed = {"steps": steps, "height": workload["height"], "width": workload["width"]}
    return SimpleNamespace(
        warnings=(),
        arguments={},
        control_argument=None,
        call_kwargs=lambda *, on_step: {**fixed, "on_step": on_step},
    )


@pytest.fixture
def clock() -> fakes.FakeClock:
    return fakes.FakeClock()


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, clock: fakes.FakeClock) -> Pipeline:
    made = Pipeline(clock)
    fakes.give(monkeypatch, made)
    fakes.give_inputs(monkeypatch, prepare_inputs)
    return made


def sweep_of(
    root: Path,
    clock: fakes.FakeClock,
    steps: Any = (),
    size: Any = (),
    *,
    repeats: int = 3,
    number: int = 0,
    **job: Any,
) -> fakes.Told:
    made = fakes.make_job(root, **job)
    made["round"] = number
    made["cell"]["sweep"] = {
        "steps": list(steps),
        "size": [{"height": height, "width": width} for height, width in size],
        "repeats": repeats,
    }
    told = fakes.run(made, clock)
    told |= {"cell_id": "c", "round": number, "sequence": number}
    told["outcome"] = told.outcome
    return told


def test_ten_millisecond_steps_and_200_ms_besides_come_back(tmp_path, clock, pipeline):
    told = sweep_of(tmp_path, clock, STEPS)
    assert (told.outcome, told.reason) == ("ok", None)
    found = step_sweep([typed_of(told)])
    assert found is not None
    assert found.fit is not None
    assert found.fit.n == 15
    assert found.fit.marginal_step_s == pytest.approx(fakes.STEP_S)
    assert found.fit.fixed_s == pytest.approx(fakes.FIXED_S)
    for value, interval in (
        (fakes.STEP_S, found.fit.marginal_interval_s),
        (fakes.FIXED_S, found.fit.fixed_interval_s),
    ):
        assert interval is not None
        assert interval[0] - 1e-9 <= value <= interval[1] + 1e-9
    assert found.marginal_it_per_s == pytest.approx(100)
    assert found.check is not None
    assert found.check.agrees
    assert found.failures == ()


def test_a_drift_of_3_percent_over_the_shuffled_sweep_hardly_moves_the_slope(
    tmp_path, clock, pipeline
):
    before = CELL_CALLS + len(STEPS)
    last = before + 3 * len(STEPS) - 1

    def slower(steps: int, height: int, call: int) -> float:
        share = max(0.0, (call - 1 - before) / (last - before))
        return 0.03 * share * (steps * fakes.STEP_S + fakes.FIXED_S)

    pipeline.extra = slower
    told = sweep_of(tmp_path, clock, STEPS)
    calls = told["sweep_steps"]
    assert calls[-1]["e2e_s"] == pytest.approx(
        1.03 * (calls[-1]["steps"] * fakes.STEP_S + fakes.FIXED_S)
    )
    fit = fit_sweep([each["denoiser_calls"] for each in calls], [each["e2e_s"] for each in calls])
    assert fit.drift_pct is not None
    assert fit.marginal_step_s == pytest.approx(1.015 * fakes.STEP_S, rel=0.02)


def test_every_point_is_warmed_once_and_measured_in_a_seeded_shuffle(tmp_path, clock, pipeline):
    told = sweep_of(tmp_path, clock, STEPS, seed=7, number=1)
    assert [each["steps"] for each in told["sweep_steps_warmup"]] == STEPS
    order = [each["steps"] for each in told["sweep_steps"]]
    assert order == shuffled(STEPS, 3, "7/1")
    assert [steps for steps, _, _ in pipeline.called[CELL_CALLS:]] == [*STEPS, *order]
    assert [each["order"] for each in told["sweep_steps"]] == list(range(15))
    assert order != sorted(order)
    assert order != shuffled(STEPS, 3, "7/0")
    assert order == shuffled(STEPS, 3, "7/1")
    assert sorted(order) == sorted(STEPS * 3)


def test_the_cells_own_figures_and_memory_come_first_and_stay(tmp_path, clock, pipeline):
    alone = fakes.run(fakes.make_job(tmp_path), clock)
    told = sweep_of(tmp_path, clock, STEPS, [(64, 64), (128, 96)])
    assert told.phases == [*PHASES, "finish", "sweep"]
    assert told.decided == ("ok", None)
    for field in ("e2e_s", "warmup_s", "first_call_s", "it_per_s"):
        assert told[field] == pytest.approx(alone[field]), field
    assert told["images"] == alone["images"]
    assert [each["phase"] for each in told["memory"]] == [each["phase"] for each in alone["memory"]]
    assert "sweep_steps" not in alone
    assert set(told) - {"cell_id", "round", "sequence", "outcome"} <= FIELDS
    json.dumps(told, allow_nan=False)


def test_image_to_image_takes_fewer_steps_than_it_is_asked_for(tmp_path, clock, pipeline):
    told = sweep_of(tmp_path, clock, STEPS, task="image-to-image", strength=0.4)
    taken = {each["steps"]: each["steps_effective"] for each in told["sweep_steps"]}
    assert taken == {5: 2, 10: 4, 20: 8, 30: 12, 50: 20}
    found = step_sweep([typed_of(told)])
    assert found is not None
    assert found.fit is not None
    assert found.fit.marginal_step_s == pytest.approx(fakes.STEP_S)


def test_heun_is_fitted_over_denoiser_calls_and_agrees_with_its_rate(
    tmp_path, clock, pipeline, monkeypatch
):
    pipeline.scheduler = fakes.FakeScheduler(fakes.heun, order=2)
    told = sweep_of(tmp_path, clock, STEPS)
    assert {each["steps"]: each["denoiser_calls"] for each in told["sweep_steps"]}[50] == 99
    found = step_sweep([typed_of(told)])
    assert found is not None
    assert found.denoiser_calls_per_step == 1
    assert found.check is not None
    assert found.check.agrees


def test_a_size_that_runs_out_of_memory_costs_that_size_alone(tmp_path, clock, pipeline, capsys):
    def too_large(steps: int, height: int) -> None:
        if height == 128:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    pipeline.fails = too_large
    told = sweep_of(tmp_path, clock, STEPS, [(64, 64), (128, 128), (96, 64)])
    assert (told.outcome, told.reason) == ("ok", None)
    assert len(told["e2e_s"]) == 3
    small, large, last = told["sweep_size"]
    assert (large["outcome"], large["first_s"], large["e2e_s"]) == ("oom", None, [])
    assert "sweeping at 128x128" in large["reason"]
    assert (small["outcome"], last["outcome"]) == ("ok", "ok")
    assert len(small["e2e_s"]) == len(last["e2e_s"]) == 3
    points = size_sweep([typed_of(told)])
    assert [(point.height, point.width) for point in points] == [(64, 64), (128, 128), (96, 64)]
    assert points[1].median_s is None
    assert points[1].failures[0].outcome == "oom"
    assert "out of memory" in capsys.readouterr().err


def test_steps_that_fail_when_warmed_are_not_measured(tmp_path, clock, pipeline):
    def too_many(steps: int, height: int) -> None:
        if steps == 50:
            raise MemoryError

    pipeline.fails = too_many
    told = sweep_of(tmp_path, clock, STEPS)
    assert told.outcome == "ok"
    assert told["sweep_steps_warmup"][-1]["outcome"] == "oom"
    assert told["sweep_steps_warmup"][-1]["e2e_s"] is None
    assert {each["steps"] for each in told["sweep_steps"]} == {5, 10, 20, 30}
    found = step_sweep([typed_of(told)])
    assert found is not None
    assert found.fit is not None
    assert [each.point for each in found.failures] == ["50 steps"]


def test_a_size_has_its_first_and_second_call_apart(tmp_path, clock, pipeline):
    seen: set[int] = set()

    def compiling(steps: int, height: int, call: int) -> float:
        new = height not in seen
        seen.add(height)
        return 7.0 if new and call > 1 else 0.0

    pipeline.extra = compiling
    told = sweep_of(tmp_path, clock, size=[(128, 64), (192, 64)])
    plain = 4 * fakes.STEP_S + fakes.FIXED_S
    for order, entry in enumerate(told["sweep_size"]):
        assert entry["order"] == order
        assert entry["first_s"] == pytest.approx(7 + plain)
        assert entry["second_s"] == pytest.approx(plain)
        assert entry["e2e_s"] == pytest.approx([plain] * 3)
    (first, _) = size_sweep([typed_of(told)])
    assert list(first.recompile_s) == pytest.approx([7.0])
    assert first.median_s == pytest.approx(plain)


def test_the_size_that_a_pipeline_really_returns_is_recorded(tmp_path, clock, pipeline):
    pipeline.drawn = fakes.colourful
    told = sweep_of(tmp_path, clock, size=[(128, 96)])
    (entry,) = told["sweep_size"]
    assert (entry["height"], entry["width"]) == (128, 96)
    assert (entry["output_height"], entry["output_width"]) == (64, 64)


def test_compiling_is_counted_for_a_new_size_and_spoils_a_measured_call(
    tmp_path, clock, pipeline, monkeypatch
):
    counts = dynamo.Counts()
    seen: dict[int, int] = {}

    def compiling(steps: int, height: int, call: int) -> float:
        nonlocal counts
        seen[height] = seen.get(height, 0) + 1
        # 128: with the first call; 192: with the second call and once more among the repeats
        if (height, seen[height]) in ((128, 1), (192, 2), (192, 4)):
            counts += dynamo.Counts(graphs=2, attempts=2, recompiles=1)
        return 0.0

    pipeline.extra = compiling
    monkeypatch.setattr(dynamo, "read_counts", lambda: counts)
    told = sweep_of(tmp_path, clock, size=[(128, 64), (192, 64)])
    assert told.outcome == "ok", "the sweep's compiling is not the measured region's"
    good, bad = told["sweep_size"]
    assert (good["outcome"], good["graphs"], good["recompiles"]) == ("ok", 2, 1)
    assert (bad["outcome"], bad["graphs"], bad["recompiles"]) == ("invalid", 2, 1)
    assert "torch compiled during this call" in bad["reason"]
    assert len(bad["e2e_s"]) == 1, "what was measured before is kept"
    assert size_sweep([typed_of(told)])[1].median_s is None, "and does not count"


def test_a_size_past_the_recompile_limit_ran_eager(tmp_path, clock, pipeline, monkeypatch):
    class Log(dynamo.CompilerLog):
        def limits_hit(self) -> list[str]:
            return ["forward"] if pipeline.called[-1][1] >= 128 else []

    monkeypatch.setattr(dynamo, "CompilerLog", Log)
    told = sweep_of(tmp_path, clock, size=[(64, 64), (128, 64)])
    assert [entry["outcome"] for entry in told["sweep_size"]] == ["ok", "fallback"]
    assert "recompile limit in forward" in told["sweep_size"][1]["reason"]


def test_a_point_at_which_the_backend_ran_eager_is_no_figure(
    tmp_path, clock, pipeline, monkeypatch
):
    def eager(_proof: evidence.Proof, _sample: Any) -> str | None:
        steps, height = pipeline.called[-1][:2]
        return "unet ran eager" if height >= 128 or steps == 10 else None

    monkeypatch.setattr(evidence.Proof, "eager", eager)
    told = sweep_of(tmp_path, clock, STEPS, size=[(64, 64), (128, 64), (192, 64)])
    assert told.outcome == "ok"
    found = [(entry["outcome"], entry["reason"]) for entry in told["sweep_size"]]
    assert found == [("ok", None), *[("fallback", "unet ran eager")] * 2]
    for entry in told["sweep_steps"]:
        assert entry["outcome"] == ("fallback" if entry["steps"] == 10 else "ok")
        assert (entry["e2e_s"] is None) == (entry["steps"] == 10)


def test_measured_calls_that_ran_eager_are_a_fallback(tmp_path, clock, pipeline, monkeypatch):
    monkeypatch.setattr(evidence.Proof, "eager", lambda _proof, _sample: "unet ran eager")
    told = sweep_of(tmp_path, clock, STEPS)
    assert (told.outcome, told.reason) == ("fallback", "unet ran eager")


def test_a_cell_that_is_not_ok_is_not_swept(tmp_path, clock, pipeline):
    pipeline.drawn = lambda: Image.new("RGB", (64, 64))
    told = sweep_of(tmp_path, clock, STEPS)
    assert told.outcome == "invalid"
    assert "sweep" not in told.phases
    assert "sweep_steps" not in told
    assert any("there was no sweep" in text for text in told["warnings"])
    assert step_sweep([typed_of(told)]) is None


def test_a_black_picture_at_a_size_is_no_figure(tmp_path, clock, pipeline):
    coloured = pipeline.drawn
    pipeline.drawn = lambda: (
        Image.new("RGB", (96, 96)) if pipeline.called[-1][1] == 96 else coloured()
    )
    told = sweep_of(tmp_path, clock, size=[(96, 96), (64, 64)])
    assert told.outcome == "ok"
    assert [entry["outcome"] for entry in told["sweep_size"]] == ["invalid", "ok"]
    assert "black" in told["sweep_size"][0]["reason"]


def test_priming_a_cache_does_not_sweep(tmp_path, clock, pipeline):
    sweep_of(tmp_path, clock, STEPS, cache="warm", prime_only=True)
    assert len(pipeline.called) == 1


def test_a_job_of_before_there_were_sweeps_runs(tmp_path, clock, pipeline):
    job = fakes.make_job(tmp_path)
    job["cell"].pop("sweep", None)
    assert fakes.run(job, clock).phases == [*PHASES, "finish"]


def test_rounds_are_pooled_in_the_order_in_which_they_ran(tmp_path, clock, pipeline):
    made = [sweep_of(tmp_path, clock, STEPS, [(64, 64)], number=at) for at in (1, 0)]
    told = [typed_of(each) for each in made]
    found = step_sweep(told)
    assert found is not None
    assert found.fit is not None
    assert found.fit.n == 30
    assert [call.round for call in found.calls] == [0] * 15 + [1] * 15
    assert [call.order for call in found.calls] == list(range(30))
    assert [call.steps for call in found.calls[:15]] == shuffled(STEPS, 3, "333/0")
    (point,) = size_sweep(told)
    assert len(point.first_s) == 2
    assert point.median_s == pytest.approx(
        statistics.median([each for times in point.e2e_s for each in times])
    )
