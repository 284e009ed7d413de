"""Each known answer is met, missed on both sides, or said not to be measurable."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import selfcheck
from bench.records import Record
from bench.records.read import decode
from bench.selfcheck import Loop
from bench.text import GIB
from tests.cli import records

SWEEP = {"steps": [5, 10, 15, 20, 30], "size": [], "repeats": 2}


def record(**changes: Any) -> Record:
    asked = {
        "model": "synthetic:sdxl", "dtype": "float16", "height": 1024, "width": 1024,
        **changes.pop("workload", {}),
    }  # fmt: skip
    of = records.cell(changes.pop("backend", "none"), options=changes.pop("options", {}), **asked)
    of |= {"profile": True, "sweep": changes.pop("sweep", None)}
    made = records.record(of, [0.9], **{
        "device": "cuda:0",
        "denoiser_batch": of["workload"]["batch"] * (3 if of["workload"]["task"] == "edit" else 2),
        "step_s": [[0.06] * 9],
        "it_per_s": [1 / 0.06],
        "memory": [*allocated(10.47), {**allocated(5.0)[0], "phase": "load"}],
        "work": {"unet": {"calls": 10, "flops": 240 * 10**12}},
        "ceilings": {"matmul_flops_per_s": 780e12, "copy_bytes_per_s": 1e12},
        "device_busy": {"loop_clock_s": 0.5401, "loop_kernel_s": 0.54},
        "fingerprint": {"gpu": {"name": "NVIDIA H200"}},
        **changes,
    })  # fmt: skip
    return decode(json.dumps(made).encode())


def allocated(gib: float) -> list[dict[str, Any]]:
    bytes_ = int(gib * GIB)
    meter = "torch.max_memory_allocated"
    return [{"meter": meter, "scope": "process", "phase": "steady", "bytes": bytes_}]


def word(lines: list[selfcheck.Line], part: str) -> str:
    (line,) = (line for line in lines if part in line.what)
    return line.word


def test_a_run_that_is_right_in_everything() -> None:
    small = {"model": "synthetic:sd15-pix2pix", "task": "edit", "height": 512, "width": 512}
    edit = record(
        workload=small,
        memory=allocated(2.625),
        name="edit/none",
        step_s=[[0.04] * 9],
        it_per_s=[25.0],
        work={"unet": {"calls": 10, "flops": 24 * 10**12}},
    )
    lines = selfcheck.check([record(), edit], None)
    assert word(lines, "cells that ended") == "ok"
    assert word(lines, "SDXL, float16, 1024") == "ok"
    assert word(lines, "SD 1.5 edit") == "ok"
    assert word(lines, "t2i/none: denoiser against measured matrix products") == "ok"
    assert word(lines, "t2i/none: step clock against traced kernels") == "ok"
    assert word(lines, "t2i/none: eager loop rate") == "ok"
    assert word(lines, "1 / slope") == "not measurable"
    assert not selfcheck.broken(lines)


MEMORY, WORK, CLOCK, RATE = "SDXL, float16, 1024", "matrix products", "traced", "published ones"


def traced(off: float) -> dict[str, Any]:
    return {"device_busy": {"loop_clock_s": 0.54 * (1 + off), "loop_kernel_s": 0.54}}


def share(of: float) -> dict[str, Any]:
    return {"step_s": [[24e12 / (of * 780e12)] * 9]}


def reading(**changes: Any) -> dict[str, Any]:
    return {"memory": [{**allocated(10.47)[0], **changes}]}


def rate(value: float | None, gpu: str = "NVIDIA H200", **workload: Any) -> dict[str, Any]:
    return {
        "it_per_s": [value, None], "fingerprint": {"gpu": {"name": gpu}}, "workload": workload
    }  # fmt: skip


RTX, EDIT = "NVIDIA GeForce RTX 4090", {"model": "synthetic:sdxl-pix2pix", "task": "edit"}
LOST = {"null_reasons": {"work": "it failed"}}


@pytest.mark.parametrize(
    ("what", "changes", "expected"),
    [
        # Memory is wrong on both sides, and another meter answers nothing.
        (MEMORY, {"memory": allocated(10.25)}, "broken"),
        (MEMORY, {"memory": allocated(10.27)}, "ok"),
        (MEMORY, {"memory": allocated(10.67)}, "ok"),
        (MEMORY, {"memory": allocated(10.69)}, "broken"),
        (MEMORY, reading(meter="rss"), "missing"),
        (MEMORY, reading(bytes=None), "missing"),
        (MEMORY, reading(phase="load"), "missing"),
        (MEMORY, {**reading(meter="rss"), "device": "cpu"}, "not measurable"),
        (MEMORY, {**reading(bytes=None), "device": "cpu"}, "not measurable"),
        (MEMORY, {**reading(phase="load"), "device": "cpu"}, "not measurable"),
        # Other cells are not held to that memory.
        (MEMORY, {"workload": {"batch": 4}}, "not measurable"),
        (MEMORY, {"workload": {"dtype": "bfloat16"}}, "not measurable"),
        (MEMORY, {"workload": {"height": 512}}, "not measurable"),
        (MEMORY, {"workload": {"model": "hub:x/y"}}, "not measurable"),
        # A share of the ceiling must be possible and plausible; a CPU has no lower end.
        (WORK, share(0.99), "ok"),
        (WORK, share(1.01), "broken"),
        (WORK, share(0.101), "ok"),
        (WORK, share(0.099), "broken"),
        (WORK, {"device": "cpu", "step_s": [[9.0] * 9]}, "not measurable"),
        (WORK, {"device": "cpu", "step_s": [[0.001] * 9]}, "broken"),
        # A profile without its figures.
        (WORK, {"work": None, **LOST}, "missing"),
        (WORK, {"ceilings": None, **LOST}, "missing"),
        (WORK, {"step_s": [[]], **LOST}, "missing"),
        (WORK, {"steps_effective": None, **LOST}, "missing"),
        # The step clock is held to the trace.
        (CLOCK, traced(0.0099), "ok"),
        (CLOCK, traced(-0.0099), "ok"),
        (CLOCK, traced(0.0101), "broken"),
        (CLOCK, traced(-0.0101), "broken"),
        (CLOCK, {"device_busy": {"loop_clock_s": 0.5, "loop_kernel_s": None}}, "missing"),
        (CLOCK, {"device_busy": None, "device": "cpu"}, "not measurable"),
        # The loop rate is held to published ones, for each image of a batch.
        (RATE, rate(8.33, RTX), "ok"),
        (RATE, rate(0.3, RTX), "broken"),
        (RATE, rate(16.257 * 3.6, RTX), "broken"),
        (RATE, rate(16.257 * 3.6 / 4, RTX, batch=4), "broken"),
        (RATE, rate(16.257 * 3.4 / 4, RTX, batch=4), "ok"),
        # An edit's denoiser has a batch of 3 where published rates of its network had 2.
        (RATE, rate(6.5, **EDIT), "broken"),
        (RATE, rate(6.8, **EDIT), "ok"),
        # Without a published like.
        (RATE, {"device": "cpu"}, "not measurable"),
        (RATE, {"backend": "tuned"}, "not measurable"),
        (RATE, {"workload": {"dtype": "float32"}}, "not measurable"),
        (RATE, {"workload": {"model": "synthetic:sdxl-small"}}, "not measurable"),
        (RATE, {"workload": {"height": 768, "width": 768}}, "not measurable"),
        (RATE, rate(None), "missing"),
    ],
)
def test_one_record_is_held_to_known_answers(
    what: str, changes: dict[str, Any], expected: str
) -> None:
    lines = selfcheck.check([record(**changes)], None)
    assert word(lines, what) == expected
    assert any(line.word == "missing" for line in lines) == (expected == "missing")
    assert selfcheck.broken(lines) or expected not in ("broken", "missing")


@pytest.mark.parametrize("gpu", ["NVIDIA H200", "NVIDIA H100 80GB HBM3"])
@pytest.mark.parametrize(
    ("it_per_s", "expected"),
    [(9.9, "broken"), (10.1, "ok"), (24.4, "ok"), (24.6, "broken"), (8.33, "broken"),
     (3 * 14, "broken")],
)  # fmt: skip
def test_a_card_of_a_published_class_is_held_to_it(
    gpu: str, it_per_s: float, expected: str
) -> None:
    """A rate of another class, or three times what the class reaches, is no rate of this card."""
    lines = selfcheck.check([record(**rate(it_per_s, gpu))], None)
    assert word(lines, "published ones") == expected


def test_one_process_beyond_is_not_hidden_by_the_others() -> None:
    good = [record(memory=allocated(10.47), round=n) for n in range(4)]
    lines = selfcheck.check([*good, record(memory=allocated(13.0), round=4)], None)
    assert word(lines, MEMORY) == "broken"


def test_later_rounds_are_not_profiled() -> None:
    later = record(round=1, work=None, ceilings=None, device_busy=None)
    lines = selfcheck.check([record(), later], None)
    assert word(lines, WORK) == "ok"
    assert word(lines, CLOCK) == "ok"


def test_a_trace_that_failed_is_missing_with_its_reason() -> None:
    failed = record(device_busy=None, null_reasons={"device_busy": "CUPTI is not allowed"})
    lines = selfcheck.check([failed], None)
    assert word(lines, CLOCK) == "missing"
    assert any("CUPTI" in line.why for line in lines)


def test_a_failed_cell_breaks_and_an_unsupported_one_does_not() -> None:
    lines = selfcheck.check([record(), record(outcome="failed", reason="it broke")], None)
    assert word(lines, "cells that ended") == "broken"
    assert "it broke" in lines[0].why
    assert word(selfcheck.check([], None), "cells that ended") == "broken"
    fp8 = record(outcome="unsupported", backend="tuned-fp8")
    lines = selfcheck.check([record(), fp8], None)
    assert word(lines, "cells that ended") == "ok"
    assert "t2i/tuned-fp8 (unsupported)" in lines[0].why


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"backend": "tuned"}, "broken"),
        ({"backend": "tuned", "device": "cpu"}, "ok"),
        ({"backend": "tuned", "options": {"alone": "attention"}}, "ok"),
    ],
)
def test_what_torch_itself_offers_must_be_supported(changes: dict[str, Any], expected: str) -> None:
    lines = selfcheck.check([record(), record(outcome="unsupported", **changes)], None)
    assert word(lines, "cells that ended") == expected


def test_a_plan_that_was_not_measured_to_its_end_breaks() -> None:
    lines = selfcheck.check([record()], None, ["t2i/tuned round 3"])
    assert word(lines, "cells that ended") == "broken"
    assert "t2i/tuned round 3" in lines[0].why
    assert lines[0].found == "1 of 2"


def sweep(step_s: float) -> list[dict[str, Any]]:
    return [
        {
            "order": order, "steps": steps, "steps_effective": steps, "denoiser_calls": steps,
            "e2e_s": (0.3 + steps * step_s) * (1 + 0.0005 * (order % 3 - 1)),
            "it_per_s": 1 / step_s, "outcome": "ok", "reason": None,
        }
        for order, steps in enumerate([20, 5, 30, 10, 15, 5, 30, 15, 20, 10])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("step_s", "expected"),
    [(0.06, "ok"), (0.0585, "ok"), (0.0615, "ok"), (0.0625, "broken"), (0.0575, "broken")],
)
def test_the_slope_is_held_to_the_events(step_s: float, expected: str) -> None:
    made = record(sweep=SWEEP, sweep_steps=sweep(step_s))
    assert word(selfcheck.check([made], None), "1 / slope") == expected


@pytest.mark.parametrize("swept", [None, [], sweep(0.06)[:1]])
def test_a_sweep_without_figures_is_missing(swept: list[dict[str, Any]] | None) -> None:
    made = record(sweep=SWEEP, sweep_steps=swept)
    lines = selfcheck.check([made], None)
    assert word(lines, "1 / slope") == "missing"
    assert selfcheck.broken(lines)


def test_sessions_are_not_pooled() -> None:
    """A clock that is 10 % slower in another session is no scatter of this one's slope."""
    made = [
        record(run_id=run, sweep=SWEEP, sweep_steps=sweep(step_s), it_per_s=[1 / step_s] * 10)
        for run, step_s in (("r", 0.06), ("s", 0.066))
    ]
    lines = selfcheck.check(made, None)
    assert [line.word for line in lines if "1 / slope" in line.what] == ["ok", "ok"]


def test_a_rate_that_is_not_known_itself_breaks_nothing() -> None:
    made = record(sweep=SWEEP, sweep_steps=sweep(0.07), it_per_s=[12.0, 20.0, 16.0, 14.0])
    assert word(selfcheck.check([made], None), "1 / slope") == "unclear"


def loop(off: float, **changes: Any) -> Loop:
    bare = [1.0 + 0.0001 * (i % 5) for i in range(20)]
    given: dict[str, Any] = {
        "harness_s": [b * (1 + off) for b in [*bare, 1.0]],
        "bare_s": bare,
        "same_images": True,
        "flops": {"unet": 5},
        "counted": {"unet": 5, "vae.decode": 1},
    }
    return Loop(**{**given, **changes})


@pytest.mark.parametrize(
    ("off", "expected"),
    [(0.0048, "ok"), (-0.0048, "ok"), (0.0052, "broken"), (-0.0052, "broken")],
)
def test_the_harness_is_held_to_a_bare_loop(off: float, expected: str) -> None:
    lines = selfcheck.check([record()], loop(off))
    assert word(lines, "harness against bare loop") == expected


def test_on_a_cpu_the_loop_is_shown_and_not_judged() -> None:
    lines = selfcheck.check([record(device="cpu")], loop(0.2))
    assert word(lines, "harness against bare loop") == "not measurable"


def test_too_few_calls_say_nothing() -> None:
    lines = selfcheck.check([record()], loop(0.2, harness_s=[1.0, 1.0], bare_s=[1.0]))
    assert word(lines, "harness against bare loop") == "not measurable"


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"same_images": False}, "same image"),
        ({"counted": {"unet": 6}}, "counted operations"),
        ({"counted": {}}, "counted operations"),
    ],
)
def test_another_picture_or_count_breaks(changed: dict[str, Any], part: str) -> None:
    assert word(selfcheck.check([record()], loop(0.0, **changed)), part) == "broken"


def test_calls_must_take_turns() -> None:
    with pytest.raises(ValueError, match="once more"):
        selfcheck.paired_differences_pct([1.0], [1.0])


def test_an_interval_that_reaches_beyond_is_unclear() -> None:
    bare = [1.0] * 20
    harness = [1.0 + 0.02 * (i % 2) for i in range(21)]
    line = selfcheck._within("x", "y", (0.0, -1.0, 1.0), 0.5)
    assert line.word == "unclear"
    assert selfcheck.paired_differences_pct(harness, bare)[0] == pytest.approx(1.0)
