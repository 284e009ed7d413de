"""Figures of trials of memory: what is drawn where."""

from __future__ import annotations

import pandas as pd
import pytest

import plots.capacity
import plots.folder
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


@pytest.mark.parametrize(("gib", "away"), [(0.6, -11), (0.88, -23)])
def test_what_fits_is_named_at_its_mark(gib: float, away: int) -> None:
    size = points(series="size").iloc[[0]].assign(shown="128x128", mpixels=0.038, gib=gib)
    empty = pd.DataFrame(columns=plots.capacity.LINES)
    figure = plots.capacity.figure(pd.concat([points(), size]), empty)
    places = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert places["64x64 x 4"] == (5, -11)
    assert places["128x128"] == (5, away)


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


def test_names_of_sizes_that_lie_close_together_do_not_meet() -> None:
    table = pd.DataFrame([
        {"workload": "w", "label": "w", "backend": "none", "shown": shown, "mpixels": mpixels,
         "gib": gib, "outlier": False, "meter": "rss", "law": "linear"}
        for shown, mpixels, gib in (
            ("128x128", 0.016, 0.385), ("296x296", 0.0876, 0.461), ("400x224", 0.0896, 0.467),
            ("400x296", 0.1184, 0.525), ("480x264", 0.1267, 0.547), ("512x512", 0.262, 0.721),
        )
    ])  # fmt: skip
    lines = pd.DataFrame(
        {"workload": "w", "mpixels": [0.0, 0.28], "gib": [0.361, 0.714], "low": None, "high": None}
    )
    figure = plots.size_memory.figure(table, lines)
    style.save(figure)
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 6
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a size"]


def test_a_folder_without_a_failure_has_room_for_its_axes(recwarn: pytest.WarningsRecorder) -> None:
    table = pd.DataFrame([
        {"workload": "w", "label": "none", "backend": "none", "place": place, "e2e_s": 0.3,
         "rss_bytes": 4e8, "outcome": "ok", "drawn": 1, "total": 5, "failed": 0}
        for place in range(1, 6)
    ])  # fmt: skip
    style.save(plots.folder.figure(table))
    assert not [str(warning.message) for warning in recwarn]
