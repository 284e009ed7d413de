"""The section on memory and time: known ratios, the front, and who is held against whom."""

from __future__ import annotations

import hashlib

import pytest

from plots import low_memory as plot
from plots import style
from reports import build
from reports.sections import low_memory
from tests.reports import make_records as make


def records(*cells, rounds=2, calls=6):
    """Return records of cells given as (workload's changes, speed, memory, further fields)."""
    found = []
    for number in range(rounds):
        for changes, speed, memory, more in cells:
            batch = changes.get("batch", 1)
            made = make.record(
                make.Workload("t2i", batch=batch),
                make.Backend("none", speed=speed, memory=memory, outcome=more.get("outcome", "ok"),
                             reason=more.get("reason")),
                number=number, rounds=rounds, calls=calls, within=0.001,
                sequence=len(found),
            )  # fmt: skip
            made["cell"]["workload"].update(changes)
            told = repr(sorted(changes.items()))
            made["cell_id"] = made["cell"]["cell_id"] = hashlib.sha256(told.encode()).hexdigest()[
                :16
            ]
            made["record_id"] = f"0123456789ab-{made['cell_id']}-r{number}-a0"
            if "between_s" in more:
                made["between_s"] = [more["between_s"]] * calls
            if "memory_modes" in more:
                made["memory_modes"] = more["memory_modes"]
            found.append(made)
    return found


MODES = (
    ({}, 1.0, 1.0, {}),
    ({"memory": "vae-tiling"}, 0.5, 0.8, {}),
    ({"memory": "attention-slicing"}, 0.8, 1.1, {}),
    ({"memory": "model-offload"}, 1.0, 1.0, {"outcome": "unsupported", "reason": "no device"}),
    ({"batch": 4}, 0.5, 2.0, {}),
    ({"batch": 4, "memory": "vae-tiling"}, 0.3125, 1.2,
     {"memory_modes": {"idle": {"vae-tiling": "too small"}}}),
)  # fmt: skip


def compared(tmp_path, *cells, **how):
    folder = make.write_run(tmp_path / "run", records(*cells, **how))
    return folder, make.compared(folder)


def table(section, title):
    (found,) = [t for t in section.tables if t.title.endswith(title)]
    return [dict(zip(found.head, row, strict=True)) for row in found.rows]


def row(rows, **wanted):
    (found,) = [r for r in rows if all(r[k].text == v for k, v in wanted.items())]
    return found


def test_each_mode_is_held_against_none_of_the_same_batch(tmp_path):
    _, comparisons = compared(tmp_path, *MODES)
    section = low_memory.section(comparisons)
    assert section is not None
    rows = table(section, ": memory modes")
    assert len(rows) == 5
    time, memory = "time ÷ that of none", "memory ÷ that of none"
    one = row(rows, memory="vae-tiling", batch="1")
    assert one[time].value == pytest.approx(2.0, rel=0.01)
    assert one[memory].value == pytest.approx(0.8)
    four = row(rows, memory="vae-tiling", batch="4")
    assert four[time].value == pytest.approx(1.6, rel=0.01)
    assert four[memory].value == pytest.approx(0.6)
    assert "vae-tiling changes nothing: too small" in four["note"].text
    assert row(rows, memory="none", batch="4")[time].text == "1"
    per_image = "time per image [s]"
    assert four[per_image].value == pytest.approx(one[per_image].value * 0.4, rel=0.01)


def test_the_front_holds_what_nothing_beats_in_both(tmp_path):
    _, comparisons = compared(tmp_path, *MODES)
    rows = table(low_memory.section(comparisons), ": memory modes")
    front = {(r["memory"].text, r["batch"].text) for r in rows if r["front"].text}
    # time per image 1, 2, 1.25, 0.5, 0.8 and memory 1, 0.8, 1.1, 2, 1.2 in the order of MODES
    assert front == {("none", "1"), ("vae-tiling", "1"), ("none", "4"), ("vae-tiling", "4")}


def test_what_was_not_measured_says_why(tmp_path):
    _, comparisons = compared(tmp_path, *MODES)
    rows = table(low_memory.section(comparisons), ", not measured")
    assert [(r["memory"].text, r["batch"].text, r["why"].text) for r in rows] == [
        ("model-offload", "1", "unsupported: no device")
    ]


def test_time_between_calls_counts_as_time_per_image(tmp_path):
    cells = (
        ({"batch": 2}, 1.0, 1.0, {}),
        ({"batch": 2, "between": "gc"}, 1.0, 1.0, {"between_s": 0.4}),
    )
    _, comparisons = compared(tmp_path, *cells)
    rows = table(low_memory.section(comparisons), ": what is done between calls")
    paused, plain = row(rows, between="gc"), row(rows, between="none")
    per_image, apart = "time per image [s]", "of it between calls [s]"
    assert paused[apart].value == pytest.approx(0.2)
    assert plain[apart].value == 0.0
    assert paused[per_image].value - plain[per_image].value == pytest.approx(0.2, abs=0.01)


def test_precisions_are_held_against_fp32(tmp_path):
    cells = (
        ({"precision": "fp32"}, 1.0, 1.0, {}),
        ({"dtype": "float16"}, 2.0, 0.5, {}),
        ({"precision": "autocast"}, 1.5, 1.2, {}),
    )
    _, comparisons = compared(tmp_path, *cells)
    rows = table(low_memory.section(comparisons), ": precision")
    assert [r["precision"].text for r in rows] == ["fp32", "fp16", "autocast"]
    half = row(rows, precision="fp16")
    assert half["time ÷ that of fp32"].value == pytest.approx(0.5, rel=0.01)
    assert half["memory ÷ that of fp32"].value == pytest.approx(0.5)


def test_a_cell_without_a_partner_is_in_no_table(tmp_path):
    cells = (
        ({"precision": "fp32"}, 1.0, 1.0, {}),
        ({"precision": "fp32", "between": "gc"}, 1.0, 1.0, {"between_s": 0.1}),
        ({"precision": "autocast"}, 1.5, 1.2, {}),
    )
    _, comparisons = compared(tmp_path, *cells)
    section = low_memory.section(comparisons)
    paused = table(section, ": what is done between calls")
    assert [(r["between"].text, r["of"].text) for r in paused] == [("none", "fp32"), ("gc", "fp32")]
    precise = table(section, ": precision")
    assert [(r["precision"].text, r["of"].text) for r in precise] == [
        ("fp32", "none"),
        ("autocast", "none"),
    ]


def test_titles_tell_modes_apart(tmp_path):
    _, comparisons = compared(tmp_path, *MODES[:3])
    assert [c.group.title for c in comparisons] == [
        "t2i",
        "t2i · memory vae-tiling",
        "t2i · memory attention-slicing",
    ]


def test_titles_do_not_tell_what_a_workload_has_not(tmp_path):
    made = records(*MODES[:2])
    for record, strength in zip(made, (None, 0.6) * len(made), strict=False):
        record["cell"]["workload"]["memory"] = "vae-tiling"
        record["cell"]["workload"]["strength"] = strength
    groups = make.groups(make.write_run(tmp_path / "run", made))
    assert not [g.title for g in groups if "None" in g.title]
    assert any("strength 0.6" in g.title for g in groups)


def test_another_machine_is_no_reference(tmp_path):
    made = records(*MODES[:2])
    for record in made:
        if record["cell"]["workload"].get("memory"):
            record["fingerprint"] = {**record["fingerprint"], "cpu": "Another CPU"}
    folder = make.write_run(tmp_path / "run", made)
    comparisons = make.compared(folder)
    rows = table(low_memory.section(comparisons), ": memory modes")
    other = row(rows, memory="vae-tiling")
    assert other["time ÷ that of none"].text == "–"
    assert "not comparable: cpu" in other["note"].text


def test_on_a_gpu_the_host_has_a_column_of_its_own(tmp_path):
    made = records(*MODES[:2])
    for record in made:
        steady = [r for r in record["memory"] if r["phase"] == "steady"]
        record["memory"] += [
            {**r, "meter": "torch.max_memory_allocated", "scope": "process",
             "bytes": 3 * r["bytes"]}
            for r in steady
        ]  # fmt: skip
    folder = make.write_run(tmp_path / "run", made)
    section = low_memory.section(make.compared(folder))
    one = row(table(section, ": memory modes"), memory="none")
    assert one["memory [GiB]"].value == pytest.approx(3 * 0.37, rel=0.01)
    assert one["host memory [GiB]"].value == pytest.approx(0.37, rel=0.01)
    assert "torch.max_memory_allocated" in section.tables[0].note


def test_time_is_divided_by_all_pictures_of_a_chain(tmp_path):
    chain = {"task": "chain", "batch": 2, "max_batch": 2, "samples": 6, "start_from": "first"}
    cells = [({**chain, "memory": mode}, 1.0, 1.0, {}) for mode in ("vae-slicing", "vae-tiling")]
    _, comparisons = compared(tmp_path, *cells)
    (seconds,) = {c.findings[0].e2e.value for c in comparisons[:1]}
    rows = table(low_memory.section(comparisons), ": memory modes")
    assert row(rows, memory="vae-slicing")["time per image [s]"].value == pytest.approx(seconds / 6)


def test_a_mode_in_all_cells_is_a_figure_over_batches(tmp_path):
    cells = [({"memory": "vae-tiling", "batch": n}, 1 / n, 1.0, {}) for n in (1, 2)]
    _, comparisons = compared(tmp_path, *cells)
    assert low_memory.section(comparisons).tables == []
    (points,) = low_memory.figures(comparisons)["low_memory"].tables()
    assert list(points["label"]) == ["vae-tiling, batch 1", "vae-tiling, batch 2"]


def test_a_mode_enters_no_speedup_of_a_backend(tmp_path):
    _, comparisons = compared(tmp_path, *MODES)
    assert len(comparisons) == len(MODES)
    assert all(f.speedup is None for c in comparisons for f in c.findings)


def test_a_run_without_modes_has_no_such_section(tmp_path):
    _, comparisons = compared(tmp_path, ({}, 1.0, 1.0, {}), ({"batch": 2}, 0.5, 2.0, {}))
    assert low_memory.section(comparisons) is None
    assert low_memory.figures(comparisons)["low_memory"].tables()[0].empty


def test_it_is_in_the_report_with_its_figure(tmp_path):
    folder, _ = compared(tmp_path, *MODES)
    report = build.write([folder])
    page = report.page.read_text()
    assert "<h2>Memory against time</h2>" in page
    assert (folder / "plots" / "low_memory.png").exists()
    assert "rss" in report.markdown.read_text()


def test_the_figure_marks_the_front_and_names_its_meter(tmp_path):
    _, comparisons = compared(tmp_path, *MODES)
    (points,) = low_memory.figures(comparisons)["low_memory"].tables()
    assert len(points) == 5
    with style.settings():
        drawn = plot.figure(points)
    (axes,) = drawn.axes
    assert "rss" in axes.get_xlabel()
    assert "[s]" in axes.get_ylabel()
    (front,) = [line for line in axes.lines if line.get_zorder() == 1]
    assert len(front.get_xdata()) == points["optimal"].sum() == 4
    assert list(front.get_xdata()) == sorted(front.get_xdata())
    assert "n = 2 processes and 12 calls" in drawn._supxlabel.get_text().replace("\n", " ")
