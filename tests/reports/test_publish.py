"""Committed runs to the two pages: every figure from a record, what is missing named as missing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from bench.store import StoreError
from reports import fidelity, publish, techniques
from tests.reports import make_records as make

TUNED = make.Backend("tuned", 2.0, 8.0, options={"alone": None, "autotune": False})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    backends = [make.BACKENDS[0], make.BACKENDS[1], TUNED]
    records = make.records(make.WORKLOADS[:1], backends, rounds=2)
    folder = make.write_run(tmp_path / "runs" / "first", records)
    make.add_pictures(folder, records, backends)
    make.write_run(folder, records)
    return folder


@pytest.fixture
def root(tmp_path: Path, run: Path) -> Path:
    (tmp_path / "docs").mkdir()
    publish.pack(run, "a-machine", tmp_path / publish.RESULTS)
    return tmp_path


def test_a_packed_run_says_the_same_without_its_pictures(root: Path, run: Path) -> None:
    packed = root / publish.RESULTS / "a-machine" / "first"
    shutil.rmtree(packed / "pictures")
    found = []
    for folder in (run, packed):
        pictures = fidelity.Pictures(fidelity.known([folder]))
        comparison = make.compared(folder)[0]
        found.append(
            {
                place: likeness.verdict.word if likeness.verdict else None
                for place, likeness in fidelity.judge(comparison, pictures).items()
            }
        )
    assert found[0] == found[1]
    assert set(found[0].values()) - {None}


def test_large_pictures_stay_behind(root: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "PICTURE_BYTES", 0)
    packed = publish.pack(run, "a-machine", root / publish.RESULTS)
    assert not list(packed.rglob("*.png"))
    assert json.loads((packed / fidelity.KEPT).read_text())


def test_comparisons_that_are_none_are_refused(root: Path) -> None:
    kept = root / publish.RESULTS / "a-machine" / "first" / fidelity.KEPT
    kept.write_text('{"a b": {"psnr": 3}}')
    with pytest.raises(StoreError, match="does not hold comparisons"):
        publish.publish(root)


def test_the_report_has_every_part_and_its_links_lead_somewhere(root: Path) -> None:
    page, guide = publish.publish(root)
    content = page.read_text(encoding="utf-8")
    headings = ("## Question", "## Answers", "## Limits", "## Method", "## Environment",
                "## Results on a-machine", "## Published figures")  # fmt: skip
    assert "\n### Workload by workload\n" in content
    places = [content.index(f"\n{heading}\n") for heading in headings]
    assert places == sorted(places)
    assert "No record of a GPU is here yet" in content
    assert "924.378" in content, "published rows stand beside"
    published = content.split("## Published figures")[1].split("\n## ")[0].splitlines()
    told = {line.split(" | ")[0].removeprefix("| "): line for line in published if "| " in line}
    # 44.523 it/s beside a snapshot of the device's memory, and 10 steps that were 30.
    assert "device used snapshot" in told["20"]
    assert "44.523" in told["20"]
    assert told["11"].endswith(f"| {number(published, 'Lines 10, 11, 12 and 13')} |")
    assert number(published, "cannot have run 25") in told["34"].rpartition(" | ")[2]
    assert told["2"].endswith("| – |")
    links = re.findall(r"\]\((reports/results/[^)]+)\)", content)
    assert any("/plots/" in link for link in links)
    assert any("/gallery/" in link for link in links)
    for link in links:
        assert (root / link).exists(), link
    assert guide.read_text(encoding="utf-8").startswith("<!-- Written by `make report-results`")


def number(lines: list[str], part: str) -> str:
    (line,) = (line for line in lines if part in line)
    return line.partition(".")[0]


def test_what_is_looked_up_is_folded_and_whole(root: Path) -> None:
    page = publish.publish(root)[0].read_text(encoding="utf-8")
    assert page.count("<details>") == page.count("</details>") > 3
    (folded,) = re.findall(
        r"<details><summary>Records</summary>\n\n(.*?)\n\n</details>", page, re.DOTALL
    )
    assert folded.count("\n|") > 6, "the table and all of its rows"
    assert "#" not in {line[:1] for line in folded.splitlines()}


@pytest.mark.thorough
def test_it_is_the_same_each_time(root: Path) -> None:
    pages = publish.publish(root)
    first = [page.read_bytes() for page in pages]
    assert [page.read_bytes() for page in publish.publish(root)] == first


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run in"):
        publish.publish(tmp_path)


@pytest.mark.parametrize("name", ["", "Up", "../x", "a/b", ".hidden"])
def test_a_machine_needs_the_name_of_a_folder(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no name for a machine"):
        publish.pack(run, name, tmp_path / publish.RESULTS)


def part(page: str, heading: str) -> str:
    return page.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]


def test_techniques_are_filled_from_records_or_wait(root: Path) -> None:
    page = publish.publish(root)[1].read_text(encoding="utf-8")
    assert techniques.WAITS in part(page, "SDXL on a GPU")
    measured = part(page, "a-machine")
    (line,) = (each for each in measured.splitlines() if ". All of it |" in each)
    assert "FASTER" in line
    numbers = {each.title: n for n, each in enumerate(techniques.TECHNIQUES, 1)}
    absent = re.search(r"Not measured: (.*)\.", measured)
    waiting = re.search(r"For a GPU alone: (.*)\.", measured)
    assert absent is not None
    assert waiting is not None
    assert str(numbers["Fuse the projections"]) in absent[1].split(", ")
    assert str(numbers["CUDA graphs"]) in waiting[1].split(", ")


def test_a_workload_without_any_technique_has_no_table(tmp_path: Path) -> None:
    records = make.records(make.WORKLOADS[:1], make.BACKENDS[:1], rounds=2)
    folder = make.write_run(tmp_path / "runs" / "alone", records)
    (tmp_path / "docs").mkdir()
    publish.pack(folder, "a-machine", tmp_path / publish.RESULTS)
    report, page = (path.read_text(encoding="utf-8") for path in publish.publish(tmp_path))
    assert "## a-machine" not in page
    assert "Without an answer: " in part(report, "Answers")
    assert "(Only the baseline was measured)" in part(report, "Answers")


def test_the_answers_name_what_keeps_the_picture_beside_what_does_not(tmp_path: Path) -> None:
    backends = [make.BACKENDS[0], TUNED, make.Backend("tuned-cache", 4.0, 8.0, lossy=True)]
    records = make.records(make.WORKLOADS[:1], backends, rounds=2)
    folder = make.write_run(tmp_path / "runs" / "both", records)
    (tmp_path / "docs").mkdir()
    publish.pack(folder, "a-machine", tmp_path / publish.RESULTS)
    page = publish.publish(tmp_path)[0].read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in part(page, "Answers").splitlines() if " FASTER " in line]
    assert [row[1].split()[0] for row in rows] == ["tuned", "tuned-cache"]
    assert "lossy" in rows[1][1]
    assert [float(row[2].split("×")[0]) for row in rows] == pytest.approx([2, 4], rel=0.1)


def test_the_report_says_where_it_was_measured(root: Path) -> None:
    page = publish.publish(root)[0].read_text(encoding="utf-8")
    (line,) = (
        each for each in part(page, "Environment").splitlines() if each.startswith("| a-machine")
    )
    assert "tuned" in line
    assert "None" not in line


def test_a_technique_names_the_cell_that_measured_it_and_both_caches(tmp_path: Path) -> None:
    partly = make.Backend("tuned", 2.0, 8.0, 2.0, options={**TUNED.options, "parts": ["unet"]})
    for name, cache in (("core", "warm"), ("cold", "fresh")):
        records = make.records(
            make.WORKLOADS[:1], [make.BACKENDS[0], partly], rounds=2, caches=(cache,)
        )
        for record in records:
            record["cell"]["name"] = record["name"].replace("tuned", "tuned[parts=unet]")
        make.write_run(tmp_path / name, records)
    comparisons = make.compared(tmp_path / "core", tmp_path / "cold")
    page = techniques.page([("a-machine", comparisons, [{}])])
    (said,) = (line for line in part(page, "a-machine").splitlines() if ". All of it |" in line)
    cells = [cell.strip() for cell in said.split("|")]
    cold, warm = cells[3].split("; ")
    assert warm.endswith(" (warm cache)")
    assert float(cold) > float(warm.partition(" ")[0])
    assert "tuned\\[parts=unet\\]" in cells[6]


def test_a_shipped_cache_is_a_technique_of_its_own(tmp_path: Path) -> None:
    shipped = make.Backend("tuned", 2.0, 3.0, options={**TUNED.options, "cache_file": "a.bin"})
    records = make.records(make.WORKLOADS[:1], [make.BACKENDS[0], TUNED, shipped], rounds=2)
    for record in records:
        if record["cell"]["backend"]["options"].get("cache_file"):
            record["cell"]["name"] = f"{record['name']}[cache_file=a.bin]"
    comparisons = make.compared(make.write_run(tmp_path / "run", records))
    page = techniques.page([("a-machine", comparisons, [{}])])
    lines = part(page, "a-machine").splitlines()
    (line,) = (each for each in lines if ". Ship what was compiled |" in each)
    assert "cache\\_file=a.bin" in line
    (line,) = (each for each in lines if ". All of it |" in each)
    assert "cache\\_file" not in line


def test_every_technique_can_be_configured() -> None:
    import yaml

    from bench.config import make_plan, parse_config

    for technique in techniques.TECHNIQUES:
        backend = yaml.safe_load(technique.how)
        plan = make_plan(
            parse_config(
                {
                    "defaults": {"task": "text-to-image", "model": "embedded:sdxl"},
                    "matrix": {"workload": [{"name": "a", "prompt": "b"}], "backend": [backend]},
                }
            )
        )
        choice = plan.cells[0]["backend"]
        assert choice["name"] == technique.backend
        assert all(choice["options"][key] == value for key, value in technique.options.items())
