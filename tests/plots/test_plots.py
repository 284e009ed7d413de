from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import plots.end_to_end
from plots import style
from reports import figures, frames, sections
from reports.fidelity import Pictures, judge
from tests.reports import make_records as make

NAMES = sorted({*figures.NAMES, "roofline", "sizes", "sweep"})


def comparisons(folder, backends=make.BACKENDS, workloads=make.WORKLOADS[:1], **settings):
    records = make.records(workloads, backends, **{"rounds": 2, "sweep": (5, 10, 20), **settings})
    run = make.write_run(folder / "run", records)
    make.add_pictures(run, records, backends)
    make.write_run(run, records)
    return make.compared(run)


def tables(found):
    likenesses = [judge(c, Pictures()) for c in found]
    plots = figures._plotted(found, likenesses, {}) | sections.figures(found)
    return {name: made(plot) for name, plot in plots.items()}


def made(plot):
    """Return a plot with its tables, and what is said of them."""
    tables = plot.tables()
    says = plot.says if isinstance(plot.says, str) else plot.says(*tables)
    return replace(plot, tables=tables, says=says)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usual")
    return tables(comparisons(folder, caches=("fresh", "warm"), sizes=(128, 192)))


def drawn(plots, name, **changes):
    """Return a figure from its tables, with other values in some of their columns."""
    tables = [
        table.assign(**{key: value for key, value in changes.items() if key in table})
        for table in plots[name].tables
    ]
    return plots[name].module.figure(*tables)


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def overhang(figure) -> float:
    """Return by how many inches what is drawn leaves the figure at most."""
    with style.settings():
        figure.draw_without_rendering()
        box = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    return max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)


@pytest.mark.parametrize("name", NAMES)
def test_says_its_subject_units_and_n(usual, name):
    figure = drawn(usual, name)
    said = words(figure)
    assert usual[name].module.TITLE in said.replace("\n", " ")
    assert "t2i" in said
    labelled = [a.get_xlabel() or a.get_ylabel() for a in figure.axes]
    assert all(labelled)
    if name not in ("memory", "pareto"):
        assert "n = " in said or "· n " in said
    assert overhang(figure) < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_is_the_same_each_time(usual, name):
    first, second = (style.save(drawn(usual, name)) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first[0])).width > 600
    root = ET.fromstring(first[1])
    assert root.tag.endswith("svg")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_draw_is_said(usual, name):
    module, own = usual[name].module, usual[name].tables
    figure = module.figure(*(table.iloc[:0] for table in own))
    assert len(figure.findobj(matplotlib.text.Text)) >= 2
    style.save(figure)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Twelve backends, long names, a process each with one call, failures between."""
    backends = [
        make.BACKENDS[0],
        *(
            make.Backend(
                f"a-backend-with-quite-a-long-name-{i}", 1 + i / 10, 5.0 * i, psnr=60.0 - i
            )
            for i in range(1, 10)
        ),
        make.Backend("broken", outcome="failed", reason="it broke", compile_s=1),
        make.Backend("W" * 60, 0.5, 1.0),
    ]
    folder = tmp_path_factory.mktemp("crowded")
    workload = make.Workload("a workload whose name is longer than anyone would think of it " * 2)
    return tables(comparisons(folder, backends, [workload], rounds=1, calls=1))


@pytest.mark.parametrize("name", NAMES)
def test_twelve_backends_with_long_names_fit(crowded, name):
    assert overhang(drawn(crowded, name)) < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_a_single_point(tmp_path, name):
    style.save(drawn(tables(comparisons(tmp_path, make.BACKENDS[:2], rounds=1, calls=1)), name))


@pytest.mark.parametrize("name", NAMES)
def test_the_key_hides_nothing(usual, name):
    """A key that shares a line with a long title once lay over it, with one panel only."""
    figure = drawn(usual, name)
    with style.settings():
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        title = figure._suptitle.get_window_extent(renderer)
        lowest = title.y0 + title.height * figure._suptitle.get_text().count("\n") / 2
        for key in figure.legends:
            box = key.get_window_extent(renderer)
            assert box.y1 <= lowest + 4
            assert box.x1 < figure.bbox.x1
            assert all(box.y0 > axes.title.get_window_extent(renderer).y1 for axes in figure.axes)


def test_an_interval_a_thousand_times_the_value_leaves_the_dots_apart(usual):
    (table,) = usual["end_to_end"].tables
    figure = drawn(usual, "end_to_end", low=1e-5, high=7000.0)
    axes = figure.axes[0]
    assert axes.get_xlim()[1] < 4 * table["value"].max()
    arrows = [line for line in axes.lines if line.get_marker() == ">"]
    assert len(arrows) == len(table)
    assert "beyond the axis" in words(figure)
    assert "beyond the axis" not in words(drawn(usual, "end_to_end"))


@pytest.mark.parametrize("name", NAMES)
def test_intervals_of_any_width_leave_every_mark_on_the_page(usual, name):
    """Two processes that differ by a per cent have an interval of a hundred times the value."""
    ends = {"low": 1e-9, "high": 1e9, "low_images": 0.0, "high_images": 1e15,
            "slope_half_s": 1e6, "mean_half_s": 1e6}  # fmt: skip
    figure = drawn(usual, name, **ends)
    assert overhang(figure) < 0.02
    for axes in figure.axes:
        for limits, scale in (
            (axes.get_xlim(), axes.get_xscale()),
            (axes.get_ylim(), axes.get_yscale()),
        ):
            assert np.isfinite(limits).all()
            assert scale != "log" or limits[1] / limits[0] < 1e7


@pytest.mark.parametrize(
    ("low", "high", "widest", "wanted"),
    [
        (1.0, 1.0, 1.6, {0.9, 1.0, 1.1}),
        (0.9, 1.1, 2.0, {0.8, 0.9, 1.0, 1.1, 1.2}),
        (1.0, 3.0, 4.6, {1.0, 2.0, 3.0}),
        (0.2, 60.0, 460.0, {0.2, 1.0, 10.0, 50.0}),
    ],
)
def test_an_axis_of_ratios_is_as_wide_as_they_are(low, high, widest, wanted):
    (axes,) = style.Page("x", [2.0]).axes(0)
    style.plain_log(axes, "x", low, high, least=style.CLOSE)
    left, right = axes.get_xlim()
    assert left < low <= high < right
    assert right / left < widest
    ticks = {round(float(tick), 6) for tick in axes.get_xticks()}
    assert wanted <= ticks
    assert len(ticks) <= 12


def test_ratios_near_one_spread_over_the_panel(usual):
    module, (table,) = usual["pareto"].module, usual["pareto"].tables
    near = table.assign(speedup=[0.95, 1.0, 1.05, 1.1][: len(table)], low=0.94, high=1.12)
    left, right = module.figure(near).axes[0].get_xlim()
    assert right / left < 2
    alone = table.iloc[:1].assign(speedup=1.0, low=None, high=None)
    left, right = module.figure(alone).axes[0].get_xlim()
    assert right / left < 2


@pytest.mark.parametrize(
    ("off", "left", "right"),
    [
        ([-0.05, 0.04], {-4.0, 0.0, 4.0}, 7),
        ([-0.3, 0.5], {-25.0, 0.0, 25.0, 50.0}, 63),
        ([-0.8, 59.0], {-50.0, -25.0, 0.0, 25.0, 100.0, 1000.0}, 7400),
        ([0.0], {0.0}, 0.6),
    ],
)
def test_spread_shows_far_calls_beside_near_ones(usual, off, left, right):
    module, (table,) = usual["spread"].module, usual["spread"].tables
    rows = table.iloc[: len(off)].assign(e2e_s=[2 * (1 + each) for each in off], median_s=2.0)
    figure = module.figure(rows)
    axes = figure.axes[0]
    ticks = {round(float(tick), 6) for tick in axes.get_xticks()}
    assert left <= ticks
    assert axes.get_xlim()[1] <= right
    # Nothing takes less time than none.
    assert max(0.0, -min(ticks)) <= 100
    assert overhang(figure) < 0.02


def test_a_crossing_is_spoken_of_only_where_one_is_marked(usual, tmp_path):
    assert "mark" in usual["breakeven"].says
    backends = [make.BACKENDS[0], make.Backend("slow", 0.7, 3.0)]
    never = tables(comparisons(tmp_path, backends, sweep=()))["breakeven"]
    assert set(never.tables[0]["kind"].dropna()) == {"never"}
    assert "mark" not in never.says


def test_sizes_show_what_a_new_one_costs(usual):
    module, (table,) = usual["sizes"].module, usual["sizes"].tables
    assert list(table["label"][:2]) == ["128×128 none", "128×128 torch-compile cache=fresh"]
    new = table[table["label"] == "192×192 torch-compile cache=fresh"].iloc[0]
    assert new["first_s"] - new["steady_s"] == pytest.approx(48)
    assert "graphs 1, recompiles 1 · n = 2" in new["shown"]
    axes = module.figure(table).axes[0]
    marked = {round(float(line.get_xdata()[0]), 6) for line in axes.lines if line.get_marker()}
    for call in module.CALLS:
        assert {round(v, 6) for v in table[call]} <= marked


def test_signs_that_no_font_has_are_no_flood_of_warnings(usual, recwarn):
    _, svg = style.save(drawn(usual, "end_to_end", workload="\U00016f00 t2i"))
    assert "\U00016f00" in svg.decode()
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_missing_values_keep_their_row(crowded):
    figure = drawn(crowded, "end_to_end")
    assert {"broken", "failed"} <= {t.get_text() for t in figure.findobj(matplotlib.text.Text)}


def test_marks_lie_where_the_figures_are(usual):
    axes = drawn(usual, "end_to_end").axes[0]
    places = {round(float(line.get_xdata()[0]), 9) for line in axes.lines}
    assert {round(value, 9) for value in usual["end_to_end"].tables[0]["value"]} <= places
    axes = drawn(usual, "warmup").axes[0]
    assert axes.get_xscale() == "log"
    open_marks = [m for m in axes.lines if m.get_markerfacecolor() == "white"]
    assert len(open_marks) == 2


def test_a_backend_has_one_colour_everywhere():
    names = ["none", "zeta", "torch-compile", "alpha"]
    assert style.colours(names) == style.colours(names[::-1])
    assert style.colours(["none"])["none"] == style.colours(names)["none"]
    assert len(set(style.colours([f"b{i}" for i in range(10)] + list(style.KNOWN)).values())) == 15


def test_what_does_not_fit_is_left_out_and_said(tmp_path):
    workloads = [make.Workload(f"w{i}") for i in range(20)]
    found = comparisons(tmp_path, make.BACKENDS[:2], workloads, rounds=1, calls=2, sweep=())
    table = frames.end_to_end(found, {})
    assert style.workloads(table) == [f"w{i}" for i in range(8)]
    few = table[table["workload"].isin(["w0", "w1"])]
    assert style.workloads(few) == ["w0", "w1"]
    for rows, partial in ((table, True), (few, False)):
        notes = plots.end_to_end.figure(rows)._supxlabel.get_text().replace("\n", " ")
        assert ("8 of 20 workloads are drawn" in notes) is partial
    many = pd.concat([table.assign(label=table["label"] + str(i)) for i in range(10)])
    assert style.workloads(many) == ["w0"]
