"""Figures of trials of memory: what is drawn where."""

from __future__ import annotations

import pandas as pd

import plots.capacity
import plots.size_memory
from plots import style


def points(**changes: object) -> pd.DataFrame:
    rows = [
        {"series": "batch", "shown": f"64x64 x {n}", "mpixels": n / 100, "gib": 0.5 + n / 10,
         "fits": True, "outlier": False}
        for n in (1, 2, 4)
    ]  # fmt: skip
    rows.append({**rows[-1], "mpixels": 0.08, "gib": None, "fits": False})
    shared = {"workload": "w", "label": "w", "backend": "none", "limit_gib": 1.0, "meter": "rss",
              "law": "linear: 0.5 GiB"}  # fmt: skip
    return pd.DataFrame([{**row, **shared, **changes} for row in rows])[plots.capacity.POINTS]


def test_what_ran_out_is_a_cross_on_the_limit() -> None:
    lines = pd.DataFrame(
        {"workload": "w", "series": "batch", "mpixels": [0.01, 0.08], "gib": [0.6, 1.3]}
    )
    figure = plots.capacity.figure(points(), lines)
    (axes,) = figure.axes
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [tuple(map(float, p)) for p in crosses[0].get_xydata()] == [(0.08, 1.0)]
    assert "n = 4" in axes.get_xlabel()
    assert axes.get_ylabel() == "peak of rss [GiB]"
    assert any("limit 1 GiB" in text.get_text() for text in axes.texts)
    assert style.save(figure)[0].startswith(b"\x89PNG")


def test_without_a_limit_a_law_or_a_trial_that_fits() -> None:
    empty = pd.DataFrame(columns=plots.capacity.LINES)
    alone = points(limit_gib=None, gib=None, fits=False, law="")
    style.save(plots.capacity.figure(alone, empty))
    nothing = plots.capacity.figure(alone.iloc[:0], empty)
    assert "No run tried" in nothing.axes[0].texts[0].get_text()


def test_an_outlier_is_ringed_and_named() -> None:
    table = pd.DataFrame([
        {"workload": "w", "label": "w", "backend": "none", "shown": f"{n}x{n}", "mpixels": n / 10,
         "gib": float(n), "outlier": n == 3, "meter": "rss", "law": "linear"}
        for n in range(1, 20)
    ])  # fmt: skip
    lines = pd.DataFrame(
        {"workload": "w", "mpixels": [0.0, 2.0], "gib": [0.0, 20.0], "low": [-1.0, 19.0],
         "high": [1.0, 21.0]}
    )  # fmt: skip
    figure = plots.size_memory.figure(table, lines)
    (axes,) = figure.axes
    # too many to name all: the one that is odd is
    assert [text.get_text() for text in axes.texts] == ["3x3"]
    style.save(figure)
    without = lines.assign(low=None, high=None)
    style.save(plots.size_memory.figure(table.head(5), without))
