from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import plots.chain
from bench import grids
from bench.tasks.chain import section as chain
from bench.tasks.chain.record import Descent
from reports import build
from reports.fidelity import Pictures
from tests.cli.test_chain import chained
from tests.reports import make_records as make
from tests.worker import fakes


def run(tmp_path, *records):
    return make.write_run(tmp_path / "run", list(records))


def pictured(tmp_path, **more):
    """Four images: 0 and 1 unlike, 2 equal to 0, and 3 equal to 1."""
    from bench.worker import pictures

    images = [fakes.colourful(0), fakes.colourful(1), fakes.colourful(0), fakes.colourful(1)]
    root = tmp_path / "run"
    (root / "pictures").mkdir(parents=True)
    entries = pictures.save(images, 333, root / "pictures", root)
    return chained(samples=4, max_batch=2, images=entries, **more)


def times(comparisons):
    return chain.figures(comparisons)["chain"].tables()[0]


def found(folder):
    return make.compared(folder)


def test_the_section_has_known_times(tmp_path):
    comparisons = found(run(tmp_path, pictured(tmp_path)))
    section = chain.section(comparisons)
    head, (row,) = section.tables[0].head, section.tables[0].rows
    cells = dict(zip(head, row, strict=True))
    assert cells["TTFI [s]"].value == 2.0
    assert cells["TBB [s]"].value == 1.0
    assert cells["total [s]"].value == 3.0
    assert cells["images/s"].value == pytest.approx(4 / 3)
    assert cells["steps first / later / total"].text == "8 / 6 / 14"
    assert cells["drift"].value == 0.0
    assert 0.3 < cells["diversity"].value < 1.0
    (picture,) = section.pictures
    assert picture.png.startswith(b"\x89PNG")


def test_diversity_is_the_mean_over_pairs(tmp_path):
    from bench import fidelity

    comparisons = found(run(tmp_path, pictured(tmp_path)))
    (finding,) = comparisons[0].findings
    far = chain.distances(finding, finding.arm.records[0], Pictures())
    one, other = (fidelity.to_pixels(fakes.colourful(seed)) for seed in (0, 1))
    unlike = 1 - fidelity.ssim(one, other)[0]
    assert far.pairs == 6
    assert far.diversity == pytest.approx(4 / 6 * unlike)


def test_a_chain_that_ran_out_of_memory_is_a_row_with_its_round(tmp_path):
    record = pictured(tmp_path)
    record["outcome"], record["reason"] = "oom", "out of memory (while making round 1)"
    record["chain_rounds"][1] = {
        "round": 1,
        "task": "image-to-image",
        "batch": 2,
        "outcome": "oom",
        "reason": "<gone>",
    }
    folder = run(tmp_path, record)
    report = build.write([folder])
    page = report.page.read_text()
    assert "oom in round 1" in page
    assert "&lt;gone&gt;" in page
    assert "<gone>" not in page


def test_without_pictures_the_reason_stands_there(tmp_path):
    record = pictured(tmp_path)
    folder = run(tmp_path, record)
    for path in (folder / "pictures").glob("*.png"):
        path.unlink()
    section = chain.section(found(folder))
    assert section.pictures == []
    assert (
        dict(zip(section.tables[0].head, section.tables[0].rows[0], strict=True))["diversity"].value
        is None
    )


def test_other_runs_have_no_such_section(tmp_path):
    folder = make.write_run(tmp_path / "run", make.records(make.WORKLOADS[:1]))
    assert chain.section(found(folder)) is None
    assert times(found(folder)).empty


def test_the_figure_says_subject_units_and_n(tmp_path):
    comparisons = found(run(tmp_path, pictured(tmp_path)))
    figure = plots.chain.figure(times(comparisons))
    import matplotlib.text

    said = " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
    for part in (plots.chain.TITLE, "TTFI 2 s", "TBB 1 s", "n = 1 × 2", "[s]"):
        assert part in said, part
    bars = sorted((p.get_x(), p.get_width()) for p in figure.axes[0].patches)
    assert bars == [(0.0, 2.0), (2.0, 1.0)]


def test_an_ancestor_is_followed_to_the_first_round_even_in_a_circle():
    def descent(index, parent):
        return Descent(index=index, round=0, place=0, seed=0, parent_index=parent)

    line = [descent(i, i - 2 if i > 1 else None) for i in range(6)]
    assert [chain.ancestor(line, i) for i in range(6)] == [0, 1, 0, 1, 0, 1]
    assert chain.ancestor([descent(0, 0)], 0) == 0


def test_a_grid_shows_each_picture_in_its_row():
    red, blue = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    page = grids.draw("t", [grids.Row(["a"], [red]), grids.Row(["b"], [blue], ["c"])])
    pixels = np.asarray(page)
    rows = {}
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        rows[name] = np.nonzero((pixels == colour).all(axis=2).any(axis=1))[0]
        assert len(rows[name]) == 32
    assert rows["red"].max() < rows["blue"].min()
