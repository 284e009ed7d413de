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


@pytest.mark.parametrize(
    ("gib", "expected"),
    [(10.25, "broken"), (10.27, "ok"), (10.67, "ok"), (10.69, "broken")],
)
def test_memory_is_wrong_on_both_sides(gib: float, expected: str) -> None:
    lines = selfcheck.check([record(memory=allocated(gib))], None)
    assert word(lines, "SDXL, float16, 1024") == expected
    assert selfcheck.broken(lines) == (expected == "broken")


def test_one_process_beyond_is_not_hidden_by_the_others() -> None:
    good = [record(memory=allocated(10.47), round=n) for n in range(4)]
    lines = selfcheck.check([*good, record(memory=allocated(13.0), round=4)], None)
    assert word(lines, "SDXL, float16, 1024") == "broken"


@pytest.mark.parametrize("changed", [{"meter": "rss"}, {"bytes": None}, {"phase": "load"}])
@pytest.mark.parametrize(("device", "expected"), [("cuda:0", "missing"), ("cpu", "not measurable")])
def test_another_meter_answers_nothing(changed: dict[str, Any], device: str, expected: str) -> None:
    reading = {**allocated(10.47)[0], **changed}
    lines = selfcheck.check([record(memory=[reading], device=device)], None)
    assert word(lines, "SDXL, float16, 1024") == expected
    assert selfcheck.broken(lines) == (expected == "missing")


@pytest.mark.parametrize(
    "other", [{"batch": 4}, {"dtype": "bfloat16"}, {"height": 512}, {"model": "hub:x/y"}]
)
def test_other_cells_are_not_held_to_that_memory(other: dict[str, Any]) -> None:
    lines = selfcheck.check([record(workload=other)], None)
    assert word(lines, "SDXL, float16, 1024") == "not measurable"
    assert not any(line.word == "missing" for line in lines)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.99, "ok"), (1.01, "broken"), (0.101, "ok"), (0.099, "broken")],
)
def test_a_rate_must_be_possible_and_plausible(share: float, expected: str) -> None:
    lines = selfcheck.check([record(step_s=[[24e12 / (share * 780e12)] * 9])], None)
    assert word(lines, "matrix products") == expected


@pytest.mark.parametrize(
    "lost", [{"work": None}, {"ceilings": None}, {"step_s": [[]]}, {"steps_effective": None}]
)
def test_a_profile_without_its_figures_is_missing(lost: dict[str, Any]) -> None:
    lines = selfcheck.check([record(**lost, null_reasons={"work": "it failed"})], None)
    assert word(lines, "matrix products") == "missing"
    assert selfcheck.broken(lines)


def test_later_rounds_are_not_profiled() -> None:
    later = record(round=1, work=None, ceilings=None, device_busy=None)
    lines = selfcheck.check([record(), later], None)
    assert word(lines, "matrix products") == "ok"
    assert word(lines, "traced") == "ok"


def test_a_cpu_has_no_lower_end_but_an_upper() -> None:
    slow, fast = (record(device="cpu", step_s=[[s] * 9]) for s in (9.0, 0.001))
    assert word(selfcheck.check([slow], None), "matrix products") == "not measurable"
    assert word(selfcheck.check([fast], None), "matrix products") == "broken"


@pytest.mark.parametrize(
    ("off", "expected"),
    [(0.0099, "ok"), (-0.0099, "ok"), (0.0101, "broken"), (-0.0101, "broken")],
)
def test_the_step_clock_is_held_to_the_trace(off: float, expected: str) -> None:
    busy = {"loop_clock_s": 0.54 * (1 + off), "loop_kernel_s": 0.54}
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
    given = record(
        it_per_s=[rate, None],
        workload={"batch": batch},
        fingerprint={"gpu": {"name": "NVIDIA GeForce RTX 4090"}},
    )
    assert word(selfcheck.check([given], None), "published ones") == expected


@pytest.mark.parametrize("gpu", ["NVIDIA H200", "NVIDIA H100 80GB HBM3"])
@pytest.mark.parametrize(
    ("rate", "expected"),
    [(9.9, "broken"), (10.1, "ok"), (24.4, "ok"), (24.6, "broken"), (8.33, "broken"),
     (3 * 14, "broken")],
)  # fmt: skip
def test_a_card_of_a_published_class_is_held_to_it(gpu: str, rate: float, expected: str) -> None:
    """A rate of another class, or three times what the class reaches, is no rate of this card."""
    given = record(it_per_s=[rate], fingerprint={"gpu": {"name": gpu}})
    assert word(selfcheck.check([given], None), "published ones") == expected


def test_a_rate_is_held_to_the_pictures_worth_of_the_denoiser() -> None:
    """An edit's denoiser has a batch of 3 where published rates of its network had 2."""
    edit = {"model": "synthetic:sdxl-pix2pix", "task": "edit"}
    for rate, expected in ((6.5, "broken"), (6.8, "ok")):
        given = record(it_per_s=[rate], workload=edit)
        assert word(selfcheck.check([given], None), "published ones") == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cpu"},
        {"backend": "tuned"},
        {"workload": {"dtype": "float32"}},
        {"workload": {"model": "synthetic:sdxl-small"}},
        {"workload": {"height": 768, "width": 768}},
    ],
)
def test_a_rate_without_a_published_like_answers_nothing(changes: dict[str, Any]) -> None:
    lines = selfcheck.check([record(**changes)], None)
    assert word(lines, "published ones") == "not measurable"


def test_a_card_without_a_rate_is_missing_one() -> None:
    lines = selfcheck.check([record(it_per_s=[None])], None)
    assert word(lines, "published ones") == "missing"


def test_a_trace_without_a_loop_is_missing_with_its_reason() -> None:
    busy = {"loop_clock_s": 0.5, "loop_kernel_s": None}
    lines = selfcheck.check([record(device_busy=busy)], None)
    assert word(lines, "traced") == "missing"
    failed = record(device_busy=None, null_reasons={"device_busy": "CUPTI is not allowed"})
    lines = selfcheck.check([failed], None)
    assert word(lines, "traced") == "missing"
    assert any("CUPTI" in line.why for line in lines)
    assert word(selfcheck.check([record(device="cpu", device_busy=None)], None), "traced") == (
        "not measurable"
    )


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
