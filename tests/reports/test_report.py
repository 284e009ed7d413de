"""The whole road: a run folder in, pages out."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bench import text
from bench.cli.app import main
from bench.store import RunFolder
from reports import analyse, build, export, frames, gallery
from reports import figures as drawing
from tests.reports import make_records as make


class Page(HTMLParser):
    """Reads tables, tags and addresses of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.values: list[tuple[float, str]] = []
        self.shown: list[str] = []
        self._value: float | None = None
        self._silent = False
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")
        found = dict(attrs).get("data-value")
        if tag == "td":
            self._value = float(found) if found else None

    def handle_endtag(self, tag):
        self._silent = False

    def handle_data(self, data):
        if self._silent:
            return
        self.shown.append(data)
        if self._value is not None and data.strip():
            self.values.append((self._value, data))
            self._value = None


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report with all that can occur: images, sweeps, warm caches, failures."""
    folder = tmp_path_factory.mktemp("report")
    backends = [
        *make.BACKENDS,
        make.Backend("nexfort", 1.9, 813.0, 60.0, 33.0, 1.2),
        make.Backend("oneflow", outcome="oom", reason="out of memory: 2 GiB", compile_s=1),
        make.Backend("lazy", outcome="fallback", reason="it ran eager", compile_s=1),
    ]
    workloads = make.WORKLOADS[:2]
    records = make.records(
        workloads, backends, rounds=3, caches=("fresh", "warm"), sweep=(5, 10), sizes=(128, 192)
    )
    run = make.write_run(folder / "run", records)
    make.add_pictures(run, records, backends)
    make.write_run(run, records)
    return build.write([run], folder / "out"), run


@pytest.fixture(scope="module")
def page(written):
    return Page(written[0].page.read_text())


def small(folder: Path, records=None) -> Path:
    return make.write_run(folder / "run", records or make.records(make.WORKLOADS[:1], rounds=2))


def test_all_parts_are_there(written):
    report, _ = written
    out = report.page.parent
    names = {path.name for path in (out / "plots").iterdir()}
    figures = ("end_to_end", "throughput", "warmup", "breakeven", "memory", "stages", "roofline",
               "pareto", "sweep", "sizes", "spread", "trace")  # fmt: skip
    assert set(figures) > drawing.NAMES
    assert names == {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    said = report.markdown.read_text()
    for name in figures:
        assert f"plots/{name}.svg" in said
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", said):
        assert (out / link).is_file(), link


def test_page_needs_nothing_from_outside(page, written):
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            address = attributes.get(name)
            if address is not None:
                assert address.startswith(("data:", "#")), (tag, address)
        assert "style" not in attributes, "the policy forbids inline styles"
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    content = written[0].page.read_text()
    assert "http://" not in content
    assert "https://" not in content


def test_every_figure_is_the_rounded_one(page):
    """What stands in a cell is what one of the few rules makes of the figure behind it."""
    rules = (text.seconds, text.number, text.ratio, text.count, text.gib, text.minutes,
             text.percent)  # fmt: skip
    assert len(page.values) > 200
    for value, shown in page.values:
        allowed = {rule(value) for rule in rules} | {f"{value:.4f}", str(int(value))}
        pays = shown.startswith(("after ", "from the first"))
        assert shown in allowed or (pays and (f"{round(value):,}" in shown or not value)), (
            value,
            shown,
        )


def test_pages_and_export_agree_to_the_digit(written, page):
    report, run = written
    table = export.frame([run])
    markdown = report.markdown.read_text()
    on_page = {shown for _, shown in page.values}
    kept = table[table["outcome"] == "ok"].drop_duplicates("cell_id")
    assert len(kept) == 14
    for row in kept.itertuples():
        for value, show in (
            (row.cell_e2e_s, text.seconds),
            (row.cell_warmup_s, text.seconds),
            (row.cell_it_per_s, text.number),
            (row.cell_peak_bytes, text.gib),
            *([(row.cell_speedup, text.ratio)] if row.cell_speedup == row.cell_speedup else []),
        ):
            assert show(value) in on_page
            assert f" {show(value)} |" in markdown
    speedups = kept.set_index("name")["cell_speedup"]
    assert speedups["t2i/torch-compile"] == pytest.approx(1.42, rel=0.04)
    assert speedups["t2i/nexfort"] == pytest.approx(1.9, rel=0.04)


SPEED = {
    "end-to-end [s]": ("cell_e2e_s", text.seconds),
    "speedup": ("cell_speedup", text.ratio),
    "it/s": ("cell_it_per_s", text.number),
    "steps/s end to end": ("cell_steps_per_s_e2e", text.number),
    "step [s]": ("cell_step_s", text.seconds),
}
COST = {
    "load [s]": ("cell_load_s", text.seconds),
    "prepare [s]": ("cell_prepare_s", text.seconds),
    "first call [s]": ("cell_first_call_s", text.seconds),
    "warm-up [s]": ("cell_warmup_s", text.seconds),
    "compile [s]": ("cell_compile_s", text.seconds),
    "steady peak [GiB]": ("cell_peak_bytes", text.gib),
    "baseline minutes": ("cell_breakeven_minutes", text.minutes),
}
RECORDS = {
    "record": ("record", str),
    "median end-to-end [s]": ("e2e_s", text.seconds),
    "calls": ("calls", lambda value: "0" if value is None else str(int(value))),
    "warm-up [s]": ("warmup_s", text.seconds),
}


def markdown_rows(said: str, title: str) -> list[dict[str, str]]:
    """Return the rows of every table of this title, by the names of its head."""
    found = []
    for part in said.split(f"# {title}\n")[1:]:
        lines = [x for x in part.split("\n#")[0].replace("\\", "").splitlines() if x[:1] == "|"]
        head, _, *body = [[each.strip() for each in x.strip("|").split(" | ")] for x in lines]
        found += [dict(zip(head, cells, strict=True)) for cells in body]
    return found


# A report is too dear to be made smaller step by step.
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seed=st.integers(0, 10**6),
    rounds=st.integers(1, 3),
    calls=st.integers(1, 8),
    speed=st.floats(0.02, 60),
    step_s=st.floats(1e-5, 50),
    noise=st.floats(0, 0.4),
)
def test_every_figure_of_the_pages_is_the_exports(
    tmp_path_factory, seed, rounds, calls, speed, step_s, noise
):
    workload = make.Workload("t2i", step_s=step_s, fixed_s=step_s)
    backends = [*make.BACKENDS[:2], make.Backend("other", speed, 3 * step_s)]
    records = make.records([workload], backends, rounds=rounds, calls=calls, seed=seed,
                           between=noise, within=noise)  # fmt: skip
    run = make.write_run(tmp_path_factory.mktemp("digits") / "run", records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "draw", lambda *_: list)
        report = build.write([run])
    said, page = report.markdown.read_text(), Page(report.page.read_text())
    table = export.frame([run]).astype(object)
    table = table.where(table.notna(), None)
    cells = table.drop_duplicates("cell_id")
    shown = report.view.workloads[0].tables
    for title, rules, rows, view in (
        ("Speed", SPEED, cells, shown[0]),
        ("Cost", COST, cells, shown[1]),
        ("Records", RECORDS, table.sort_values(["cell_id", "round"]), report.view.records),
    ):
        assert view.title == title
        written = markdown_rows(said, title)
        assert len(written) == len(view.rows) == len(rows)
        if title == "Records":
            rows = rows.set_index("record_id").loc[[row[-1].text for row in view.rows]]
        for name, (column, rule) in rules.items():
            place = view.head.index(name)
            for (_, one), cell_row, line in zip(rows.iterrows(), view.rows, written, strict=True):
                cell, value = cell_row[place], one[column]
                assert cell.text == rule(value), (name, value)
                assert line[name] == rule(value)
                if name != "calls":
                    assert cell.value == value
                    assert value is None or (float(value), cell.text) in page.values


def test_a_record_that_comes_meanwhile_is_in_no_part_of_the_report(tmp_path, monkeypatch, undrawn):
    records = make.records(make.WORKLOADS[:1], rounds=2)
    run = small(tmp_path, records)
    file = run / "records.jsonl"
    *early, late = file.read_text().splitlines(keepends=True)
    file.write_text("".join(early))
    compare = analyse.compare

    def meanwhile(groups):
        with file.open("a") as journal:
            journal.write(late)
        return compare(groups)

    monkeypatch.setattr(analyse, "compare", meanwhile)
    view = build.write([run]).view
    assert view.counts == "1 workload, 3 cells, 5 records"
    assert len(view.records.rows) == 5
    assert view.audit.note.startswith("bench audit went over 5 records")
    assert len(export.frame([run])) == 6
    file.write_text("".join(early))
    assert len(export.frame([run])) == 5


def test_an_audited_record_is_found_by_its_number(tmp_path, capsys, undrawn):
    """The number is that of bench audit, also where a report is of one workload only."""
    records = make.records(make.WORKLOADS[:2], rounds=2)
    odd = next(r for r in records if r["name"] == "i2i/none" and r["round"] == 1)
    odd["it_per_s"] = [rate / 30 for rate in odd["it_per_s"]]
    run = small(tmp_path, records)
    number = records.index(odd) + 1
    with pytest.raises(SystemExit):
        main(["audit", str(run)])
    assert f"record {number}" in capsys.readouterr().out
    for workloads, count in (((), 12), (("i2i",), 6)):
        view = build.write([run], workloads=workloads).view
        assert view.audit.note.startswith(f"bench audit went over {count} records")
        about = [row[1].text for row in view.audit.rows]
        assert f"i2i/none (record {number})" in about
        found = next(r for r in view.records.rows if r[0].value == number)
        assert found[-1].text == odd["record_id"]
    clean = build.write([run], workloads=("t2i",)).view
    assert "6 records: 0 findings" in clean.audit.note


def test_a_verdict_of_one_process_is_trusted_with_care_at_most(tmp_path, undrawn):
    run = small(tmp_path, make.records(make.WORKLOADS[:1], rounds=1, between=0, within=0.001))
    answer = build.write([run]).view.workloads[0].answer
    assert answer.word == "FASTER"
    assert answer.trust == "with care"
    assert "one process" in answer.why[0]
    assert "3 or more rounds (protocol.rounds, now 1) would settle it." in answer.why[0]


def test_a_lost_round_is_counted_in_words(tmp_path, undrawn):
    records = make.records(make.WORKLOADS[:1], rounds=2)
    lost = next(r for r in records if r["round"] == 1 and "regional" in r["name"])
    run = small(tmp_path, [r for r in records if r is not lost])
    found = make.compared(run)[0].findings[-1]
    assert found.outcome == "ok 1 of 2"
    assert found.reasons == [
        "no record of 1 of 2 rounds (the run has not finished, or was interrupted)"
    ]
    assert found.trust != "yes"
    told = build.write([run]).view.workloads[0].answer.lost
    assert told == [f"torch-compile-regional: ok 1 of 2; {found.reasons[0]}"]


def test_first_screen_answers(written):
    answer = written[0].view.workloads[0].answer
    assert answer.headline == "nexfort is fastest"
    assert answer.word == "FASTER"
    assert any("warm cache" in line for line in answer.warmup)
    assert "meter rss" in answer.memory
    assert re.fullmatch(r"0\.\d{3} s a call vs 0\.\d{3} s \(none\)", answer.times)
    assert answer.lost == [
        "oneflow cache=fresh, oneflow cache=warm: oom: out of memory: 2 GiB",
        "lazy cache=fresh, lazy cache=warm: fallback: it ran eager",
    ]
    assert answer.pictures.startswith("no, visibly different")
    assert re.match(r"after [\d,]+ images", answer.breakeven[0])
    assert answer.trust in ("yes", "with care")
    assert answer.why


def test_outcomes_that_are_not_ok_keep_their_reason(written, page):
    table = written[0].view.outcomes
    assert {(row[2].text, row[3].text) for row in table.rows} == {
        ("oom", "out of memory: 2 GiB"),
        ("fallback", "it ran eager"),
    }
    assert "it ran eager" in page.shown
    frame = export.frame([written[1]])
    assert frame[frame["outcome"] != "ok"][["cell_e2e_s", "cell_speedup"]].isna().all().all()


def test_pictures_are_bound_to_their_records(written, page):
    report, run = written
    ids = {json.loads(line)["record_id"] for line in (run / "records.jsonl").open()}
    columns = [c for w in report.view.workloads for c in w.gallery.columns]
    assert len(columns) == 14
    assert {c.record for c in columns} <= ids
    assert {c.record for c in columns} <= set(page.shown)
    nexfort = next(c for c in columns if c.backend.startswith("nexfort"))
    assert dict(nexfort.metrics)["PSNR"].startswith("33.")
    assert nexfort.difference is not None
    # 33 dB is a standard deviation of 5.7 of 255: a pixel's largest of three, three of them.
    assert nexfort.amplified == 10
    assert "difference from the baseline ×10" in page.shown
    assert f"×10<br>![difference](gallery/{nexfort.name}-difference.png)" in (
        report.markdown.read_text()
    )
    ranges = [a for t, a in page.tags if t == "input"]
    assert [a["type"] for a in ranges] == ["range", "range"]


def test_identical_pictures_are_said_to_be(tmp_path, undrawn):
    backends = [make.BACKENDS[0], make.Backend("same", 1.2, 1.0)]
    records = make.records(make.WORKLOADS[:1], backends, rounds=1)
    run = make.write_run(tmp_path / "run", records)
    make.add_pictures(run, records, backends)
    make.write_run(run, records)
    report = build.write([run])
    column = report.view.workloads[0].gallery.columns[1]
    assert column.identical
    assert column.difference is None
    assert "identical to the baseline" in Page(report.page.read_text()).shown
    assert "| difference | – | identical |" in report.markdown.read_text()


@pytest.mark.parametrize(
    ("largest", "factor"), [(0, 1), (1, 200), (2, 100), (3, 50), (25, 10), (26, 5), (255, 1)]
)
def test_differences_are_amplified_until_they_are_seen(largest, factor):
    difference = np.zeros((64, 64, 3), np.uint8)
    difference[:32, :, 1] = largest
    assert gallery.amplification(difference) == factor
    # A lone speck decides nothing.
    difference[0, 0] = 255
    assert gallery.amplification(difference) == (factor if largest else 1)


def test_a_picture_that_is_not_the_records_is_not_compared(tmp_path, undrawn):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    run = make.write_run(tmp_path / "run", records)
    make.add_pictures(run, records)
    records[1]["images"][0]["sha256"] = "0" * 64
    make.write_run(run, records)
    view = build.write([run]).view
    column = view.workloads[0].gallery.columns[1]
    assert column.png is None
    assert "is not the image that its record describes" in column.problem


def test_a_record_of_an_image_outside_the_run_is_left_out_and_named(tmp_path, capsys):
    (tmp_path / "secret.png").write_bytes(b"x")
    records = make.records(make.WORKLOADS[:1], rounds=1)
    records[0]["images"] = [{"path": "../secret.png", "seed": 1, "index": 0}]
    report = build.write([small(tmp_path, records)])
    assert "line 1 (images[0].path: expected a path below the run folder)" in (
        capsys.readouterr().err
    )
    assert "secret" not in report.page.read_text()
    assert f"{len(records) - 1} records" in report.view.counts


def test_markup_in_a_record_is_text(tmp_path):
    evil = "<script>alert(1)</script>"
    workload = make.Workload(evil, prompt=f'{evil}"><img src=x onerror=alert(2)> | a | b')
    backend = make.Backend("oops<b>", outcome="failed", reason=f"{evil} {{{{7*7}}}}", compile_s=1)
    records = make.records([workload], [*make.BACKENDS[:2], backend], rounds=1)
    records[0]["warnings"] = [evil]
    report = build.write([small(tmp_path, records)])
    content = report.page.read_text()
    page = Page(content)
    assert len([t for t, _ in page.tags if t == "script"]) == 1
    assert evil not in content
    assert "onerror" not in {name for _, a in page.tags for name in a}
    assert any(evil in shown for shown in page.shown)
    assert any("{{7*7}}" in shown for shown in page.shown)
    assert "<script" not in report.markdown.read_text().replace("\\<", "")
    for svg in (report.page.parent / "plots").glob("*.svg"):
        assert "<script" not in svg.read_text()


@pytest.mark.thorough
def test_same_records_same_bytes(tmp_path):
    records = make.records(make.WORKLOADS[:1], rounds=2, sweep=(5, 10, 20))
    pages = []
    for name in ("one", "two"):
        run = make.write_run(tmp_path / name / "run", records)
        build.write([run])
        files = [p for p in run.rglob("*") if p.suffix in (".html", ".md", ".svg", ".png")]
        pages.append({p.relative_to(run): p.read_bytes() for p in files})
    assert len(pages[0]) == 22
    assert pages[0] == pages[1]


@pytest.mark.thorough
def test_a_second_report_leaves_no_figure_of_the_first(tmp_path):
    run = small(tmp_path, make.records(make.WORKLOADS[:1], rounds=1, sweep=(5, 10)))
    build.write([run], tmp_path / "out")
    assert (tmp_path / "out/plots/sweep.svg").is_file()
    make.write_run(run, make.records(make.WORKLOADS[:1], rounds=1))
    build.write([run], tmp_path / "out")
    assert not (tmp_path / "out/plots/sweep.svg").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps_effective", 9),
        ("output_width", 96),
        ("model_revision", "other"),
        ("pipeline_class", "OtherPipeline"),
    ],
)
def test_unlike_rows_are_not_compared(tmp_path, name, value):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=2)
    for record in records:
        if record["cell"]["backend"]["name"] != "none":
            record[name] = value
    (found,) = make.compared(small(tmp_path, records))
    other = found.findings[1]
    assert other.speedup is None
    assert other.breakeven is None
    assert str(value) in other.not_comparable
    assert other.trust == "no"
    assert found.best is None


def test_another_machine_is_not_compared(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    records[1]["fingerprint"] = {**make.FINGERPRINT, "cpu": "Another CPU"}
    (found,) = make.compared(small(tmp_path, records))
    assert "cpu" in found.findings[1].not_comparable


def test_two_data_types_are_two_workloads(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    records[1]["cell"]["workload"]["dtype"] = "float16"
    groups = make.groups(small(tmp_path, records))
    assert [g.title for g in groups] == ["t2i · float32", "t2i · float16"]


def test_titles_tell_workloads_apart_by_the_fewest_facts(tmp_path):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:1], rounds=1) * 3
    records = [json.loads(json.dumps(record)) for record in records]
    changes = (
        {"model": "synthetic:sdxl", "prompt": "a cat", "height": 64, "width": 96, "steps": 30},
        {"model": "synthetic:sdxl", "prompt": "a cat", "height": 96, "width": 64, "steps": 30},
        {"model": "embedded:sdxl"},
    )
    for number, (record, change) in enumerate(zip(records, changes, strict=True)):
        record["cell"]["workload"].update(change)
        record["cell"]["cell_id"] = record["cell_id"] = f"cell{number}"
        record["record_id"] = f"record{number}"
    groups = make.groups(small(tmp_path, records))
    side = make.WORKLOADS[0].size
    assert {g.title for g in groups} == {
        "t2i · synthetic:sdxl · 96×64",
        "t2i · synthetic:sdxl · 64×96",
        f"t2i · embedded:sdxl · {side}×{side}",
    }


def test_break_even_of_the_published_row(tmp_path, undrawn):
    """813.568 s against 3.034 s and 0.976 s against 1.518 s is 1,496 images."""
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    for record, first, each in zip(records, (3.034, 813.568), (1.518, 0.976), strict=True):
        record.update(first_call_s=first, warmup_s=[first], e2e_s=[each] * 8, stages=[])
    report = build.write([small(tmp_path, records)])
    assert report.view.workloads[0].answer.breakeven[0] == "after 1,496 images"
    for path in (report.page, report.markdown):
        assert "1,496 images" in path.read_text()


def test_only_a_baseline(tmp_path, undrawn):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:1], rounds=1)
    answer = build.write([small(tmp_path, records)]).view.workloads[0].answer
    assert answer.headline == "Only the baseline was measured"
    assert answer.trust == "nothing compared"
    assert re.search(r"takes 0\.\d{3} s", answer.why[0])
    assert answer.warmup
    assert answer.memory


def test_nothing_ended_ok(tmp_path):
    names = ("none", "a", "b", "c", "d")
    dead = [make.Backend(name, outcome="failed", reason="no <file>") for name in names]
    dead.append(make.Backend("big", outcome="oom", reason="x" * 5000, compile_s=1))
    report = build.write([small(tmp_path, make.records(make.WORKLOADS[:1], dead, rounds=1))])
    answer = report.view.workloads[0].answer
    assert answer.headline == "No backend gave a figure"
    assert answer.lost[0] == "none, a and 3 more: failed: no <file>"
    assert len(answer.lost[1]) < 300
    content = report.page.read_text()
    assert content.index("failed: no &lt;file&gt;") < content.index("Outcomes that are not ok")
    assert "No record holds a figure to draw." in content
    assert list((report.page.parent / "plots").iterdir()) == []


def test_no_baseline_still_says_what_was_measured(tmp_path, undrawn):
    backends = [make.Backend("none", outcome="failed", reason="gone"), *make.BACKENDS[1:]]
    report = build.write([small(tmp_path, make.records(make.WORKLOADS[:1], backends, rounds=1))])
    answer = report.view.workloads[0].answer
    assert answer.headline == "Nothing can be compared"
    assert "no cell with the backend none ended ok" in answer.why[0]
    assert re.search(r"torch-compile 0\.\d{3} s, torch-compile-regional 0\.\d{3} s", answer.why[1])
    assert answer.lost == ["none: failed: gone"]
    assert answer.why[1] in " ".join(Page(report.page.read_text()).shown)


def test_synthetic_weights_are_said_everywhere(tmp_path, undrawn):
    workload = make.Workload("big", model="synthetic:sdxl", synthetic=True)
    run = small(tmp_path, make.records([workload], rounds=1))
    report = build.write([run])
    for path in (report.page, report.markdown):
        assert path.read_text().count("ynthetic weights") >= 2
    (comparison,) = make.compared(run)
    assert set(frames.memory([comparison])["workload"]) == {"big (synthetic weights)"}


def test_several_runs_stand_side_by_side(tmp_path, undrawn):
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:2], rounds=1)
    runs = [make.write_run(tmp_path / name, records) for name in ("monday", "tuesday")]
    (group,) = make.groups(*runs)
    assert [row.label for row in group.arms] == [
        "none in monday",
        "none in tuesday",
        "torch-compile in monday",
        "torch-compile in tuesday",
    ]
    (found,) = analyse.compare([group])
    assert found.findings[3].baseline is found.findings[1]
    assert len(export.frame(runs)) == 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]], "unfinished line"),
        (lambda lines: ['{"hello": 1}\n', *lines], "line 1 ("),
        (lambda lines: ["not json\n", *lines], "line 1 ("),
        (lambda lines: [lines[0].replace('"e2e_s":[', '"e2e_s":["x",', 1), *lines[1:]], "e2e_s"),
        (
            lambda lines: [lines[0].replace('"e2e_s":[', '"e2e_s":[-1,', 1), *lines[1:]],
            "expected float > 0",
        ),
        (
            lambda lines: [lines[0].replace('"workload":{', '"workload":7,"w":{', 1), *lines[1:]],
            "workload",
        ),
    ],
)
def test_bad_lines_cost_themselves_alone(tmp_path, capsys, spoil, message):
    run = small(tmp_path)
    file = run / "records.jsonl"
    lines = spoil(file.read_text().splitlines(keepends=True))
    file.write_text("".join(lines))
    good = list(RunFolder.open(run).records())
    assert len(good) in (len(lines), len(lines) - 1)
    for argv in (["export", str(run), "--out", str(tmp_path / "x.csv")], ["show", str(run)]):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert not ended.value.code
        said = capsys.readouterr().err
        assert message in said
        assert "Traceback" not in said
    assert len((tmp_path / "x.csv").read_text().splitlines()) == len(good) + 1


def test_a_run_without_a_record_is_one_error(tmp_path, capsys):
    run = small(tmp_path)
    (run / "records.jsonl").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "holds no record" in said
    assert said.count("\n") == 1
    assert not (run / "report.html").exists()


def test_wrong_names_give_one_error(tmp_path, capsys):
    run = small(tmp_path)
    for argv, message in (
        (["report", str(run), "--reference", "x"], "there is: onediff_t2i_i2i"),
        (["report", str(run), "--workload", "x"], "there are: t2i"),
        (["report", str(tmp_path / "gone")], "no plan.json"),
        (["report", str(run), str(run)], "twice"),
        (["export", str(run), "--out", str(tmp_path / "no/x.csv")], "cannot be written"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_report_says_where_it_is(tmp_path, capsys, undrawn):
    run = small(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    assert str(tmp_path / "out/report.html") in capsys.readouterr().out


def test_no_torch_in_a_report():
    import subprocess

    code = (
        "import sys, reports.build, reports.export, bench.cli.report\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'diffusers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_preparation_is_told_where_it_changes_when_a_backend_pays(tmp_path, undrawn):
    """600 s of compiling ahead of time, then 1 s saved per image: 600 images, not the first."""
    records = make.records(make.WORKLOADS[:1], rounds=2)
    for one in records:
        if one["cell"]["backend"]["name"] != "none":
            one["prepare_s"] = 600.0
            one["first_call_s"] = 0.5
            one["e2e_s"] = [0.5 + 0.0001 * place for place in range(len(one["e2e_s"]))]
        else:
            one["prepare_s"] = 0.0
            one["first_call_s"] = 1.5
            one["e2e_s"] = [1.5 + 0.0001 * place for place in range(len(one["e2e_s"]))]
    run = make.write_run(tmp_path / "run", records)
    said = build.write([run]).markdown.read_text()
    batch = int(records[0]["cell"]["workload"].get("batch") or 1)
    images = text.count(599 * batch)
    assert "with its preparation of 600 s" in said or "with its preparation of 600.0 s" in said
    assert f"after {images} images" in said


def test_json_export_keeps_every_digit(tmp_path):
    records = make.records(make.WORKLOADS[:1], rounds=1)
    for one in records:
        one["prepare_s"] = 8.737002644920722e-06
    run = make.write_run(tmp_path / "run", records)
    rows = json.loads(export.render([run], "json"))
    assert {row["prepare_s"] for row in rows} == {8.737002644920722e-06}


def test_a_cell_without_a_record_is_listed(tmp_path, undrawn):
    records = make.records(make.WORKLOADS[2:], make.BACKENDS[::2], rounds=2)
    run = small(tmp_path, records)
    kept = [r for r in records if r["cell"]["backend"]["name"] == "none"]
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    (run / "records.jsonl").write_text("".join(x for x in lines if "/none" in x[:400]))
    view = build.write([run]).view
    assert len(kept) == 2
    said = "torch-compile-regional: no record (the run has not finished, or was interrupted)"
    answer = view.workloads[0].answer
    assert said in answer.lost
    assert "no record of torch-compile-regional" in answer.why[0]
    assert view.outcomes.rows[0][2].text == "no record"
    speed = view.workloads[0].tables[0]
    assert [row[1].text for row in speed.rows] == ["ok", "no record"]
    assert view.counts == "1 workload, 2 cells, 2 records"


def test_show_leaves_out_and_names_what_report_does(tmp_path, capsys):
    run = small(tmp_path)
    file = run / "records.jsonl"
    file.write_text(file.read_text().replace('"e2e_s":[', '"e2e_s":[-1,', 1))
    said = []
    for verb in ("show", "report"):
        with pytest.raises(SystemExit) as ended:
            main([verb, str(run)])
        assert ended.value.code == 0
        notes = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
        said += notes
    assert len(said) == 2
    assert "line 1 (e2e_s[0]: expected float > 0.0)" in said[0]
    assert said[0] == said[1]
