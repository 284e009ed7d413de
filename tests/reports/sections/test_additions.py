"""The section on additions and on full and shallow steps: known answers, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from plots import step_kinds
from reports import analyse, build, gather
from reports.sections import additions
from tests.reports import make_records as make

LORA = {
    "source": "embedded:<sepia>", "content": "0123456789abcdef", "scale": 0.5, "fused": False,
    "keys": 8, "keys_used": 8, "layers": 4, "layers_changed": 4,
    "layers_changed_by_part": {"unet": 4},
}  # fmt: skip


def compared(folder: Any) -> Any:
    return analyse.compare(gather.group(gather.read([folder])))


def made(workloads: Any = None, **more: Any) -> list[dict[str, Any]]:
    named = workloads or [make.Workload("t2i", steps=5)]
    found = make.records(named, [make.Backend("none")], rounds=2, calls=4)
    return [{**record, **more} for record in found]


def test_a_run_without_additions_has_no_section(tmp_path: Any) -> None:
    comparisons = compared(make.write_run(tmp_path / "run", made()))
    assert additions.section(comparisons) is None
    assert additions.figures(comparisons)[additions.FIGURE].tables[0].empty


def test_full_and_shallow_steps_have_a_median_each(tmp_path: Any) -> None:
    kinds = ["full", "shallow", "shallow", "full", "shallow"]
    records = made(step_kind=kinds, step_s=[[0.1, 0.2, 0.9, 0.3]] * 4)
    comparisons = compared(make.write_run(tmp_path / "run", records))
    table = additions.steps_by_kind(comparisons)
    # the first interval ends with the second step
    assert list(table["step"]) == [2, 3, 4, 5]
    assert list(table["kind"]) == kinds[1:]
    assert list(table["median_s"]) == pytest.approx([0.1, 0.2, 0.9, 0.3])
    section = additions.section(comparisons)
    assert section is not None
    (row,) = section.tables[0].rows
    assert [cell.value for cell in row[2:]] == pytest.approx([1, 0.9, 3, 0.2, 0.2 / 0.9])
    figure = step_kinds.figure(table)
    said = " ".join(text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert "full 900 ms" in said
    assert "shallow 200 ms" in said


def test_kinds_that_do_not_fit_the_steps_are_left_out(tmp_path: Any) -> None:
    records = made(step_kind=["full", "shallow"], step_s=[[0.1, 0.2, 0.9, 0.3]] * 4)
    comparisons = compared(make.write_run(tmp_path / "run", records))
    assert additions.steps_by_kind(comparisons).empty


def test_what_was_added_stands_beside_the_cell_without(tmp_path: Any) -> None:
    plain = made()
    added = made([make.Workload("more", steps=5, step_s=0.14)], lora=LORA)
    for record in added:
        record["cell"]["workload"].update(lora="embedded:<sepia>", lora_fused=False)
        record["control_images"] = ["pictures/control.png"]
    folder = make.write_run(tmp_path / "run", plain + added)
    section = additions.section(compared(folder))
    assert section is not None
    (row,) = section.tables[0].rows
    assert "LoRA embedded:<sepia> at scale 0.5, run beside the weights, 4 layers" in row[2].text
    assert row[-1].value is not None
    assert row[-1].value > 1.3
    assert not section.pictures
    page = build.write([folder]).page.read_text()
    assert "embedded:&lt;sepia&gt;" in page
    assert "embedded:<sepia>" not in page
