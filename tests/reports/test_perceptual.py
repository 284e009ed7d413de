"""LPIPS and CLIP score on the way from weights to pages and exports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bench import perceptual as kept_scores
from bench.cli.app import main
from bench.perceptual import WeightsError
from bench.tasks.edit.section import NO_CLIP_SCORE
from reports import build, export, figures, perceptual, view
from tests.reports import make_records as make
from tests.worker import tiny_clip

pytestmark = pytest.mark.thorough

BACKENDS = (*make.BACKENDS[:2], make.Backend("cached", 1.9, 2.0, 2.0, 30.0))
NAMES = ("cell_lpips", "cell_clip_score", "cell_clip_score_baseline", "cell_clip_score_difference")


def run_of(folder: Path, workloads: Any = make.WORKLOADS[:1]) -> Path:
    records = make.records(workloads, BACKENDS, rounds=2)
    run = make.write_run(folder, records)
    make.add_pictures(run, records, BACKENDS)
    return make.write_run(run, records)


@pytest.fixture(autouse=True, scope="module")
def undrawn_throughout() -> Any:
    """Figures take most of the time of a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", lambda *_: list)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "clip_score": str(tiny_clip.clip(folder / "clip")),
        "lpips": str(tiny_clip.lpips(folder / "alex.safetensors")),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, weights: Any) -> tuple[build.Report, Path]:
    folder = tmp_path_factory.mktemp("scored")
    run = run_of(folder / "run", make.WORKLOADS)
    said: list[str] = []
    report = build.write([run], folder / "out", weights=weights, say=said.append)
    # Two backends' images in three workloads; a prompt for two of them, with the baseline's.
    assert said == ["Computing LPIPS and CLIP score (12 values) …"]
    return report, run


def exit_of(*words: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


def table(report: build.Report, title: str, workload: int = 0) -> view.Table | None:
    tables = report.view.workloads[workload].tables
    return next((each for each in tables if each.title == title), None)


def column(found: view.Table | None, name: str) -> dict[str, view.Cell]:
    assert found is not None
    return {row[0].text: row[found.head.index(name)] for row in found.rows}


def test_the_page_the_markdown_and_the_export_say_the_same(
    written: tuple[build.Report, Path],
) -> None:
    report, run = written
    frame = export.frame([run]).drop_duplicates("cell_id")
    frame = frame[frame["workload"] == "t2i"].set_index("backend")
    distances = column(table(report, "Fidelity"), "LPIPS")
    fits = column(table(report, "CLIP score"), "CLIP score")
    differences = column(table(report, "CLIP score"), "difference")
    for name in ("torch-compile", "cached"):
        row = frame.loc[name]
        assert distances[name].text == perceptual.lpips(row["cell_lpips"])
        assert fits[name].text == f"{row['cell_clip_score']:.2f}"
        assert differences[name].text == f"{row['cell_clip_score_difference']:+.2f}"
        difference = row["cell_clip_score"] - row["cell_clip_score_baseline"]
        assert row["cell_clip_score_difference"] == difference
        assert row["cell_clip_score_pictures"] == 1
        for page in (report.page.read_text(), report.markdown.read_text()):
            assert distances[name].text in page
            assert differences[name].text in page.replace("&#43;", "+")
    assert frame.loc["cached", "cell_lpips"] > frame.loc["torch-compile", "cell_lpips"] > 0
    assert frame.loc["none", "cell_clip_score_difference"] == 0
    assert frame.loc["none", "cell_lpips_reason"] == "it is the reference"
    assert frame["cell_lpips_weights"].str.startswith("alex ").all()


def test_a_picture_carries_its_scores_and_the_method_its_weights(
    written: tuple[build.Report, Path],
) -> None:
    report, _ = written
    shown = {c.backend: dict(c.metrics) for c in report.view.workloads[0].gallery.columns}
    assert shown["cached"].keys() >= {"LPIPS", "CLIP score"}
    assert shown["none"].keys() == {"CLIP score"}
    method = " ".join(report.view.method)
    assert "Weights: alex " in method
    assert "Weights: clip " in method
    assert "torchmetrics" in method


def test_an_edit_has_no_clip_score_and_the_reason(written: tuple[build.Report, Path]) -> None:
    report, run = written
    assert table(report, "CLIP score", workload=2) is None
    assert NO_CLIP_SCORE in table(report, "Fidelity", workload=2).note  # type: ignore[union-attr]
    frame = export.frame([run])
    edits = frame[frame["task"] == "edit"]
    assert edits["cell_clip_score"].isna().all()
    assert set(edits["cell_clip_score_reason"]) == {NO_CLIP_SCORE}
    assert edits["cell_lpips"].notna().sum() == 4


def test_pages_are_written_again_without_torch_and_without_weights(
    written: tuple[build.Report, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, run = written
    monkeypatch.delenv("BENCH_CLIP")
    monkeypatch.delenv("BENCH_LPIPS")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(kept_scores, "compute", lambda *_: pytest.fail("nothing is missing"))
    again = build.write([run], tmp_path / "again")
    for title in ("Fidelity", "CLIP score"):
        assert table(again, title) == table(report, title)
    assert "From an earlier report; no more is computed: no weights were given" in " ".join(
        again.view.method
    )


def test_none_leaves_out_what_is_kept(written: tuple[build.Report, Path], tmp_path: Path) -> None:
    out = {"lpips": "none", "clip_score": "none"}
    without = build.write([written[1]], tmp_path, weights=out)  # type: ignore[arg-type]
    assert table(without, "CLIP score") is None
    found = table(without, "Fidelity")
    assert found is not None
    assert "LPIPS" not in found.head


def test_without_weights_the_reason_is_said_once(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    report = build.write([run])
    page = report.markdown.read_text()
    assert page.count("LPIPS is left out: BENCH\\_LPIPS says so.") == 1
    assert page.count("CLIP score") == page.replace("\\_LPIPS", "").count("LPIPS") == 1
    frame = export.frame([run])
    assert frame[list(NAMES)].isna().all(axis=None)
    assert frame.loc[frame["backend"] != "none", "cell_lpips_reason"].nunique() == 1
    assert "computed none" in frame["cell_clip_score_reason"].iloc[0]
    assert not (run / kept_scores.FILE).exists()


def test_what_fails_to_compute_is_null_with_the_reason(
    weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = build.write([run_of(tmp_path / "run")], weights=weights)
    method = " ".join(report.view.method)
    assert method.count("No module named 'torch'") == 2
    fits = table(report, "CLIP score")
    assert {cell.text for cell in column(fits, "CLIP score").values()} == {"–"}
    assert all("torch" in cell.text for cell in column(fits, "why").values())


def test_a_picture_that_was_swapped_has_no_score(
    written: tuple[build.Report, Path], weights: Any, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run")
    for file in (run / "pictures" / "t2i-cached").rglob("*.png"):
        shutil.copy(next((run / "pictures" / "t2i-none").rglob("*.png")), file)
    report = build.write([run], weights=weights)
    why = column(table(report, "CLIP score"), "why")
    assert "not the picture that its record describes" in why["cached"].text
    assert why["torch-compile"].text == "–"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0.0000"), (1.5e-5, "1.5e-05"), (0.00123, "0.0012"), (0.5, "0.5000")],
)
def test_a_small_distance_never_reads_as_none(value: float | None, shown: str) -> None:
    assert perceptual.lpips(value) == shown


@pytest.mark.parametrize("synthetic", [False, True])
def test_synthetic_weights_have_no_clip_score(tmp_path: Path, synthetic: bool) -> None:
    made = make.records([make.Workload("s", synthetic=synthetic)], make.BACKENDS[:1], rounds=1)
    (group,) = make.groups(make.write_run(tmp_path / "run", made))
    assert (perceptual.why_no_clip_score(group) == perceptual.SYNTHETIC) is synthetic


def test_wrong_weights_are_refused_before_anything_is_written(
    weights: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, alex = run_of(tmp_path / "run"), weights["lpips"]
    with pytest.raises(WeightsError, match="no such folder"):
        build.write([run], tmp_path / "out", weights={"clip_score": "/nowhere"})
    assert exit_of("report", str(run), "--lpips", str(run / "plan.json")) == 2
    assert "can run code" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "no run").mkdir()
    assert exit_of("report", str(tmp_path / "no run"), "--lpips", str(alex)) == 2
    assert list((tmp_path / "no run").iterdir()) == []
    assert not (run / "report.html").exists()


def test_fid_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "run")
    assert exit_of("report", str(run), "--fid") == 2
    assert "FID is refused under 5,000 images (here 1)" in capsys.readouterr().err
    assert not (run / "report.html").exists()


def test_from_5000_images_on_fid_is_not_pretended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(perceptual.fidelity, "FID_MINIMUM", 1)
    run = run_of(tmp_path / "run")
    assert exit_of("report", str(run), "--fid") == 2
    assert "FID is not offered" in capsys.readouterr().err
    assert "FID is not offered" in build.write([run]).markdown.read_text()
