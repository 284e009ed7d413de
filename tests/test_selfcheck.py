"""Each known answer is met, missed on both sides, or said not to be measurable."""

from __future__ import annotations

from typing import Any

import pytest

from bench import selfcheck
from bench.selfcheck import GIB, Loop


def record(**changes: Any) -> dict[str, Any]:
    workload = {
        "model": "synthetic:sdxl", "task": "text-to-image", "dtype": "float16",
        "height": 1024, "width": 1024, "batch": 1,
    }  # fmt: skip
    workload.update(changes.pop("workload", {}))
    backend = changes.pop("backend", "none")
    return {
        "cell": {"workload": workload, "backend": {"name": backend}},
        "cell_id": "a",
        "name": f"t2i/{backend}",
        "round": 0,
        "sequence": 0,
        "device": "cuda:0",
        "outcome": "ok",
        "steps_effective": 10,
        "step_s": [[0.06] * 9],
        "it_per_s": [1 / 0.06],
        "e2e_s": [0.9],
        "memory": [
            {"meter": "torch.max_memory_allocated", "phase": "steady", "bytes": int(10.47 * GIB)},
            {"meter": "torch.max_memory_allocated", "phase": "load", "bytes": 5 * GIB},
        ],
        "work": {"unet": {"calls": 10, "flops": 240 * 10**12}},
        "ceilings": {"matmul_flops_per_s": 780e12},
        "device_busy": {"loop_clock_s": 0.5401, "loop_kernel_s": 0.54},
        **changes,
    }


def word(lines: list[selfcheck.Line], part: str) -> str:
    (line,) = (line for line in lines if part in line.what)
    return line.word


def test_a_run_that_is_right_in_everything() -> None:
    small = {"model": "synthetic:sd15-pix2pix", "task": "edit", "height": 512, "width": 512}
    edit = record(
        workload=small,
        memory=[
            {
                "meter": "torch.max_memory_allocated",
                "phase": "steady",
                "bytes": int(2.625 * GIB),
            }
        ],
        cell_id="b",
        name="edit/none",
        ceilings=None,
        device_busy=None,
    )
    lines = selfcheck.check([record(), edit], None)
    assert word(lines, "cells that ended") == "ok"
    assert word(lines, "SDXL, float16, 1024") == "ok"
    assert word(lines, "SD 1.5 edit") == "ok"
    assert word(lines, "matrix products") == "ok"
    assert word(lines, "traced kernels") == "ok"
    assert word(lines, "1 / slope") == "not measurable"
    assert not selfcheck.broken(lines)


@pytest.mark.parametrize("gib", [10.2, 10.8])
def test_memory_is_wrong_on_both_sides(gib: float) -> None:
    reading = {"meter": "torch.max_memory_allocated", "phase": "steady", "bytes": int(gib * GIB)}
    lines = selfcheck.check([record(memory=[reading])], None)
    assert word(lines, "SDXL, float16, 1024") == "broken"
    assert selfcheck.broken(lines)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({"meter": "rss"}, "not measurable"), ({"bytes": None}, "not measurable")],
)
def test_another_meter_answers_nothing(changed: dict[str, Any], expected: str) -> None:
    reading = {"meter": "torch.max_memory_allocated", "phase": "steady", "bytes": GIB, **changed}
    lines = selfcheck.check([record(memory=[reading])], None)
    assert word(lines, "SDXL, float16, 1024") == expected


@pytest.mark.parametrize(
    "other", [{"batch": 4}, {"dtype": "bfloat16"}, {"height": 512}, {"model": "hub:x/y"}]
)
def test_other_cells_are_not_held_to_that_memory(other: dict[str, Any]) -> None:
    lines = selfcheck.check([record(workload=other)], None)
    assert word(lines, "SDXL, float16, 1024") == "not measurable"


@pytest.mark.parametrize(("step_s", "expected"), [(0.06, "ok"), (0.02, "broken"), (0.5, "broken")])
def test_a_rate_must_be_possible_and_plausible(step_s: float, expected: str) -> None:
    lines = selfcheck.check([record(step_s=[[step_s] * 9])], None)
    assert word(lines, "matrix products") == expected


def test_a_cpu_has_no_lower_end_but_an_upper() -> None:
    slow, fast = (record(device="cpu", step_s=[[s] * 9]) for s in (9.0, 0.001))
    assert word(selfcheck.check([slow], None), "matrix products") == "not measurable"
    assert word(selfcheck.check([fast], None), "matrix products") == "broken"


@pytest.mark.parametrize(
    ("clock_s", "expected"), [(0.5445, "ok"), (0.55, "broken"), (0.53, "broken")]
)
def test_the_step_clock_is_held_to_the_trace(clock_s: float, expected: str) -> None:
    busy = {"loop_clock_s": clock_s, "loop_kernel_s": 0.54}
    assert word(selfcheck.check([record(device_busy=busy)], None), "traced") == expected


@pytest.mark.parametrize(
    ("rate", "batch", "expected"),
    [
        (8.33, 1, "ok"),
        (0.3, 1, "broken"),
        (16.257 * 3.6, 1, "broken"),
        (16.257 * 3.6 / 4, 4, "broken"),
        (16.257 * 3.4 / 4, 4, "ok"),
    ],
)
def test_the_loop_rate_is_held_to_published_ones(rate: float, batch: int, expected: str) -> None:
    given = record(it_per_s=[rate, None], workload={"batch": batch})
    assert word(selfcheck.check([given], None), "published ones") == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cpu"},
        {"backend": "tuned"},
        {"it_per_s": [None]},
        {"workload": {"dtype": "float32"}},
        {"workload": {"model": "synthetic:sdxl-small"}},
        {"workload": {"height": 768, "width": 768}},
    ],
)
def test_a_rate_without_a_published_like_answers_nothing(changes: dict[str, Any]) -> None:
    lines = selfcheck.check([record(**changes)], None)
    assert word(lines, "published ones") == "not measurable"


def test_a_trace_without_a_loop_answers_nothing() -> None:
    busy = {"loop_clock_s": 0.5, "loop_kernel_s": None}
    for given in (busy, None):
        lines = selfcheck.check([record(device_busy=given)], None)
        assert word(lines, "traced") == "not measurable"


def test_a_failed_cell_breaks_and_an_unsupported_one_does_not() -> None:
    lines = selfcheck.check([record(), record(outcome="failed", reason="it broke")], None)
    assert word(lines, "cells that ended") == "broken"
    assert "it broke" in lines[0].why
    lines = selfcheck.check([record(), record(outcome="unsupported")], None)
    assert word(lines, "cells that ended") == "ok"
    assert word(selfcheck.check([], None), "cells that ended") == "broken"


def sweep(step_s: float) -> list[dict[str, Any]]:
    return [
        {
            "order": order, "steps": steps, "steps_effective": steps, "denoiser_calls": steps,
            "e2e_s": (0.3 + steps * step_s) * (1 + 0.0005 * (order % 3 - 1)),
            "it_per_s": 1 / step_s, "outcome": "ok", "reason": None,
        }
        for order, steps in enumerate([20, 5, 30, 10, 15, 5, 30, 15, 20, 10])
    ]  # fmt: skip


@pytest.mark.parametrize(("step_s", "expected"), [(0.06, "ok"), (0.07, "broken"), (0.05, "broken")])
def test_the_slope_is_held_to_the_events(step_s: float, expected: str) -> None:
    made = record(sweep_steps=sweep(step_s), denoiser_calls=10)
    made["cell"]["sweep"] = {"steps": [5, 10, 15, 20, 30], "size": [], "repeats": 2}
    assert word(selfcheck.check([made], None), "1 / slope") == expected


def test_a_rate_that_is_not_known_itself_breaks_nothing() -> None:
    made = record(sweep_steps=sweep(0.07), denoiser_calls=10, it_per_s=[12.0, 20.0, 16.0, 14.0])
    made["cell"]["sweep"] = {"steps": [5, 10, 15, 20, 30], "size": [], "repeats": 2}
    assert word(selfcheck.check([made], None), "1 / slope") == "unclear"


def loop(off: float, **changes: Any) -> Loop:
    bare = [1.0 + 0.0001 * (i % 5) for i in range(20)]
    given: dict[str, Any] = {
        "harness_s": [b * (1 + off) for b in [*bare, 1.0]],
        "bare_s": bare,
        "same_pictures": True,
        "flops": {"unet": 5},
        "counted": {"unet": 5, "vae.decode": 1},
    }
    return Loop(**{**given, **changes})


@pytest.mark.parametrize(("off", "expected"), [(0.001, "ok"), (0.01, "broken"), (-0.01, "broken")])
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
        ({"same_pictures": False}, "same picture"),
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
    line = selfcheck._within("x", "y", 0.0, -1.0, 1.0, 0.5)
    assert line.word == "unclear"
    assert selfcheck.paired_differences_pct(harness, bare)[0] == pytest.approx(1.0)
