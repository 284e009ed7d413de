"""Averages, energy and flags of a pass whose every value is known."""

from __future__ import annotations

import msgspec
import pytest

from bench.passes.telemetry import judge
from bench.passes.telemetry.record import Telemetry


def summary(told, reasons):
    return judge.summarise(msgspec.convert(told, Telemetry), reasons)


@pytest.mark.parametrize("columns", [{"power_w": [1.0]}, {"t_s": None, "power_w": [1.0] * 5}])
def test_columns_without_a_time_for_each_value_are_refused(columns):
    with pytest.raises(msgspec.ValidationError, match="differ in length, or have no times"):
        summary(made(**columns), {})


def made(**columns):
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    return {
        "period_s": 1.0,
        "achieved_s": 1.0,
        "thinned": 0,
        "ended": None,
        "foreign": [],
        "calls": [[1.0, 2.0, 2], [2.0, 3.0, 2]],
        "columns": {"t_s": times, "power_w": None, **columns},
    }


def test_energy_is_the_trapezoid_of_power_over_the_calls_by_images():
    found = summary(made(power_w=[50.0, 100.0, 300.0, 100.0, 50.0]), {})
    assert found.energy.per_image_j == pytest.approx((200 + 200) / 4)
    power = found.quantities["power_w"]
    assert (power.average, power.peak) == (pytest.approx(500 / 3), 300.0)
    assert (power.before, power.after, power.samples) == (50.0, 50.0, 3)
    assert (found.images, found.calls, found.span_s) == (4, 2, 2.0)


def test_the_ends_of_the_calls_lie_between_samples():
    found = made(power_w=[0.0, 100.0, 100.0, 100.0, 0.0])
    found["calls"] = [[0.5, 3.5, 1]]
    assert summary(found, {}).energy.per_image_j == pytest.approx(37.5 + 200 + 37.5)


def test_the_counter_is_set_beside_the_integral():
    found = summary(
        made(power_w=[100.0] * 5, energy_counter_j=[0.0, 80.0, 160.0, 240.0, 320.0]), {}
    )
    assert found.energy.counter_per_image_j == pytest.approx(40.0)
    assert found.energy.disagreement_pct == pytest.approx(25.0)
    assert any("+25 %" in flag for flag in found.flags)


@pytest.mark.parametrize("counter", [[900.0, 950.0, 20.0, 90.0, 120.0], [0, 10, 99, 5, 60]])
def test_a_counter_that_went_back_is_not_used(counter):
    found = summary(made(power_w=[100.0] * 5, energy_counter_j=counter), {})
    assert (found.energy.counter_per_image_j, found.energy.disagreement_pct) == (None, None)
    assert found.energy.per_image_j == pytest.approx(50.0)
    assert any("counter went back" in flag for flag in found.flags)


def test_energy_is_no_guess_about_a_gap():
    def passed(missing, seconds=100):
        power = [None if at in missing else 100.0 for at in range(seconds + 3)]
        long = made()
        long["columns"] = {"t_s": [float(at) for at in range(seconds + 3)], "power_w": power}
        long["calls"] = [[1.0, 1.0 + seconds, 10]]
        return summary(long, {})

    whole = passed({5, 50})
    assert whole.energy.per_image_j == pytest.approx(1000.0)
    assert not whole.flags
    short = passed(range(20, 25))
    assert short.energy.per_image_j == pytest.approx(1000.0)
    assert short.flags == ("power was not sampled for 6.0% of the calls' time",)
    # samples before and after the span do not count as time of the calls
    broken = passed(range(95, 102))
    assert broken.energy.unsampled == pytest.approx(0.07)
    gone = passed(range(20, 80))
    assert gone.energy.per_image_j is None
    assert gone.energy.reason == "power was not sampled for 61% of the calls' time"


def test_a_reason_seen_once_in_long_is_not_said_to_be_none():
    long = made()
    times = [at / 100 for at in range(401)]
    long["columns"] = {"t_s": times, "throttle_bits": [0x40] + [0x00] * 400}
    long["columns"]["throttle_bits"][200] = 0x40
    long["calls"] = [[1.0, 3.99, 1]]
    assert summary(long, {}).flags == (
        "thermal slowdown (hardware) in less than 1% of the samples",
    )


def test_without_power_or_calls_energy_is_null_with_the_reason():
    found = summary(made(), {"telemetry.power_w": "no GPU here"})
    assert (found.energy.per_image_j, found.energy.reason) == (None, "no GPU here")
    cut = made(power_w=[1.0] * 5)
    cut["calls"] = []
    found = summary(cut, {})
    assert found.energy.reason == "no call ended while power was sampled"
    assert (found.span_s, found.quantities["power_w"].average) == (None, None)
    early = made(power_w=[1.0, 1.0, None, None, None])
    assert "do not reach" in summary(early, {}).energy.reason


def test_throttling_is_counted_by_reason_within_the_calls():
    found = summary(made(throttle_bits=[0x40, 0x44, 0x04, 0x01, 0x40]), {})
    assert found.throttled == pytest.approx(
        {"power limit": 2 / 3, "thermal slowdown (hardware)": 1 / 3}
    )
    assert "thermal slowdown (hardware) in 33% of the samples" in found.flags


def test_drift_strangers_and_late_samples_are_flagged():
    pass_ = made(
        sm_clock_mhz=[1400, 1400, 1300, 1200, 1400],
        temperature_c=[40, 50, 55, 60, 50],
        foreign_processes=[0, 0, 1, 1, 0],
    )
    pass_ |= {"foreign": ["python"], "achieved_s": 2.0, "ended": "NVML: GPU is lost"}
    flags = summary(pass_, {}).flags
    assert flags == (
        "sampling ended early: NVML: GPU is lost",
        "samples came every 2 s, not every 1 s as asked",
        "1 other process(es) on the GPU: python",
        "the SM clock went from 1400 to 1200 MHz during the calls",
        "the temperature went from 50 to 60 °C during the calls",
    )
    assert summary(made(sm_clock_mhz=[1400] * 5, foreign_processes=[0] * 5), {}).flags == ()
