"""The section on folders: counts, failures, memory, the sheet of results, and the figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import folder
from bench.tasks.folder import section
from reports import build
from tests.reports import make_records as make

SAID = {
    "rows": "pictures/rows.jsonl",
    "pictures": 3,
    "ok": 2,
    "failed": 1,
    "compiled": 0,
    "carried": 1,
    "kept_every": 1,
    "median_s": 0.25,
    "median_interval_s": [0.2, 0.3],
    "wall_s": 0.6,
    "images_per_s": 3.333,
    "rss_start_bytes": 100 * 1024**2,
    "rss_end_bytes": 101 * 1024**2,
    "rss_slope_bytes_per_picture": 1024.0,
    "rss_slope_interval": [512.0, 1536.0],
}
ROWS: list[dict[str, Any]] = [
    {"picture": "a.png", "outcome": "ok", "e2e_s": 0.2, "rss_bytes": 1, "output": "pictures/a.png"},
    {"picture": "<b>.png", "outcome": "failed", "reason": "torn <i>", "rss_bytes": 1},
    {"picture": "c.png", "outcome": "ok", "e2e_s": 0.3, "rss_bytes": 1, "output": "pictures/gone"},
]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Return what writes a report on records of folders."""

    def write(said: dict[str, Any] | None = SAID) -> Any:
        more = {} if said is None else {"folder": said}
        place = make.write_run(tmp_path / "run", [{**r, **more} for r in make.records()])
        (place / "pictures").mkdir(exist_ok=True)
        lines = [json.dumps(row) for row in ({"cell_id": "c"}, *ROWS)]
        (place / "pictures" / folder.ROWS).write_text("\n".join(lines) + "\n")
        Image.new("RGB", (40, 20), "red").save(place / "pictures" / "a.png")
        return build.write([place])

    return write


def test_a_folder_has_its_section(written: Any) -> None:
    report = written()
    page, text = report.page.read_text(), report.markdown.read_text()
    assert "<h2>Folders of images</h2>" in page
    assert "2 of 3 images were processed" in page
    assert "so it grows: 10,000 images would add 9.8 MiB" in page
    assert "1 of these images are of a process that was interrupted" in page
    assert "&lt;b&gt;.png" in page
    assert "<i>" not in page
    assert "torn" in text
    assert (report.page.parent / "plots" / "folder.png").is_file()
    sheet = Image.open(report.page.parent / "gallery" / "folder-01.png").convert("RGB")
    tile = section.TILE + 4
    middles = [
        sheet.getpixel((4 + tile * n + section.TILE // 2, sheet.height // 2)) for n in (0, 1)
    ]
    assert middles[0] == (255, 0, 0)
    assert middles[1] != (255, 0, 0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rss_slope_interval": [-1.0, 9.0]}, "it does not grow beyond its interval"),
        ({"rss_slope_bytes_per_picture": None}, "too few images for a slope"),
        ({"rss_start_bytes": None}, "does not tell resident memory"),
        ({"rows": "gone"}, "2 of 3 images were processed"),
    ],
)
def test_what_is_said_of_memory(written: Any, changed: dict[str, Any], said: str) -> None:
    assert said in written(SAID | changed).page.read_text()


def test_other_runs_have_no_such_section(written: Any) -> None:
    report = written(None)
    assert "Folders of images" not in report.page.read_text()
    assert not (report.page.parent / "plots" / "folder.png").exists()


def test_of_many_pictures_some_are_drawn_and_all_failures(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(section, "MOST_MARKS", 2)
    monkeypatch.setattr(section, "Plot", lambda module, tables, says: drawn.append(tables()[0]))
    with pytest.raises(AttributeError):
        written()
    (table,) = drawn
    first = table[
        (table[["workload", "label"]] == table[["workload", "label"]].iloc[0]).all(axis=1)
    ]
    assert list(first["outcome"]) == ["ok", "failed"]
    assert set(first["drawn"]) == {2}


def test_a_sheet_holds_its_first_pictures() -> None:
    sheet = section._sheet([Image.new("RGB", (section.TILE,) * 2)] * 9)
    assert sheet.size == (8 * (section.TILE + 4) + 4, 2 * (section.TILE + 4) + 4)
