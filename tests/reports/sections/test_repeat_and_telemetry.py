"""What the two sections show of records whose every value is known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.passes.repeat import section as repeat
from bench.passes.repeat.judge import Difference
from reports import build
from tests.reports import make_records as make

SHA = "a" * 64
OTHER = "b" * 64


def telemetry():
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    return {
        "period_s": 1.0, "achieved_s": 1.0, "source": "nvml and psutil", "cpus": 8, "thinned": 0,
        "ended": None, "foreign": ["<b>game</b>"], "calls": [[1.0, 3.0, 4]],
        "columns": {
            "t_s": times, "cpu_pct": [None, 10.0, 20.0, 30.0, 0.0], "rss_bytes": [2**30] * 5,
            "gpu_pct": [0, 90, 100, 95, 0], "gpu_memory_pct": None,
            "device_used_bytes": [2**31] * 5, "process_used_bytes": None,
            "power_w": [50.0, 100.0, 300.0, 100.0, 50.0], "energy_counter_j": None,
            "sm_clock_mhz": [1400, 1400, 1300, 1200, 1400], "temperature_c": [40] * 5,
            "throttle_bits": [1, 0x40, 0x40, 0, 1], "foreign_processes": [0, 1, 1, 0, 0],
        },
    }  # fmt: skip


def passed(shas, leak=0):
    return {
        "repeat_about": {
            "calls": len(shas), "meter": "rss", "reference": [], "differences": [],
        },
        "repeat": [
            {"sha256": [sha], "memory_bytes": 10**8 + leak * n} for n, sha in enumerate(shas)
        ],
    }  # fmt: skip


def report(tmp_path, **more):
    records = [{**record, **more} for record in make.records()]
    return build.write([make.write_run(tmp_path / "run", records)])


@pytest.mark.thorough
def test_telemetry_is_told_with_its_flags(tmp_path):
    why = {"telemetry.gpu_memory_pct": "NVML: Not Supported"}
    written = report(tmp_path, telemetry=telemetry(), null_reasons=why)
    page, text = written.page.read_text(), written.markdown.read_text()
    assert "## Telemetry" in text
    assert "thermal slowdown (hardware) in 67% of the samples" in text
    assert "the SM clock went from 1400 to 1200 MHz" in text
    assert "other process(es) on the GPU: &lt;b&gt;game" in page
    assert "<b>game" not in page
    assert "NVML: Not Supported" in text
    assert "energy per image" in text
    assert (tmp_path / "run" / "plots" / "telemetry.png").exists()


def test_repeated_calls_are_told(tmp_path):
    written = report(tmp_path, **passed([SHA] * 19 + [OTHER], leak=2**20))
    text = written.markdown.read_text()
    assert "## Repeated calls" in text
    assert "19 of 20" in text
    assert "LEAK" in text
    assert "1024.0 to 1024.0" in text
    assert (tmp_path / "run" / "plots" / "repeat.png").exists()


def test_without_them_there_is_no_section(tmp_path):
    text = report(tmp_path).markdown.read_text()
    assert "## Telemetry" not in text
    assert "## Repeated calls" not in text


@pytest.mark.parametrize(("most", "factor"), [(7, 36), (1, 255), (200, 1)])
def test_a_difference_is_amplified_by_a_whole_number(most, factor):
    away = np.zeros((64, 32), dtype=np.uint8)
    away[3, 5] = most
    one = Difference("within process 1", 0, 1, most, 1 / 2048, (5, 3, 5, 3), away)
    shown, told = repeat.amplified(one)
    image = np.asarray(shown)
    assert told == factor
    assert image.max() == most * factor
    assert image[3 * 4, 5 * 4] == most * factor
    assert np.count_nonzero(image) == 16
