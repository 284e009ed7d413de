"""Folders of pictures: sizes, faults, resumption, and whole cells on the embedded models."""

from __future__ import annotations

import json
import random
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench import folder
from bench.tasks.folder import work as worker
from bench.worker import evidence, memory, scenes
from bench.worker.sources import SourceError
from tests.worker import fakes

SIDE = st.integers(1, 4000)


@pytest.mark.parametrize(
    ("own", "enlarge", "size"),
    [
        ((256, 256), False, (128, 128)),
        ((256, 128), False, (128, 64)),
        ((200, 120), False, (128, 80)),  # 76.8 is nearer to 80
        ((100, 70), False, (96, 64)),  # its own size, to multiples that it has
        ((100, 70), True, (128, 88)),
        ((64, 64), True, (128, 128)),
        ((128, 128), False, (128, 128)),
    ],
)
def test_sizes(own, enlarge, size):
    assert worker.fitted(own, (128, 128), 8, enlarge) == size


@pytest.mark.parametrize(
    ("own", "enlarge", "said"),
    [
        ((5, 5), False, "too small .* enlarge: true"),
        ((4000, 20), False, "too narrow"),
        ((4000, 20), True, "too narrow"),
    ],
)
def test_sizes_that_no_pipeline_takes(own, enlarge, said):
    with pytest.raises(SourceError, match=said):
        worker.fitted(own, (128, 128), 8, enlarge)


@given(SIDE, SIDE, st.sampled_from([8, 16, 64]), st.booleans())
def test_sizes_keep_the_aspect_and_their_bounds(width, height, multiple, enlarge):
    box = (512, 384)
    try:
        made = worker.fitted((width, height), box, multiple, enlarge)
    except SourceError:
        return
    scale = min(box[0] / width, box[1] / height)
    scale = scale if enlarge else min(scale, 1.0)
    for side, own, most in zip(made, (width, height), box, strict=True):
        assert side % multiple == 0
        assert 0 < side <= most
        assert enlarge or side <= own
        assert abs(side - own * scale) < multiple


def test_padding_is_the_edge_and_comes_off_again():
    picture = Image.fromarray(np.arange(3 * 4 * 3, dtype=np.uint8).reshape(3, 4, 3))
    made = worker.padded(picture, (8, 8))
    assert made.size == (8, 8)
    assert made.crop((2, 2, 6, 5)).tobytes() == picture.tobytes()
    assert made.getpixel((0, 0)) == picture.getpixel((0, 0))
    assert made.getpixel((7, 7)) == picture.getpixel((3, 2))


def test_drift_finds_the_slope_and_says_when_it_cannot():
    rising = worker.drift(array("q", [1000 + 7 * n for n in range(400)]))
    assert rising["rss_slope_bytes_per_picture"] == pytest.approx(7)
    assert (rising["rss_start_bytes"], rising["rss_end_bytes"]) == (1000, 1000 + 7 * 399)
    noise = random.Random(0)
    flat = worker.drift(array("q", [10**6 + noise.randrange(1000) for _ in range(400)]))
    low, high = flat["rss_slope_interval"]
    assert low < 0 < high
    few = worker.drift(array("q", range(39)))
    assert few["rss_slope_bytes_per_picture"] is None
    assert "40 pictures" in few["rss_reason"]
    assert worker.drift(array("q"))["rss_start_bytes"] is None


def test_resident_memory_is_this_processes(tmp_path):
    (tmp_path / "status").write_text("Name: x\nVmRSS:\t   2048 kB\n")
    assert memory.resident_bytes(tmp_path / "status") == 2048 * 1024
    assert memory.resident_bytes(tmp_path / "none") is None


# ------------------------------------------------------------------- whole cells


def scene(n: int, width: int, height: int) -> Image.Image:
    return scenes.render(scenes.sample(random.Random(n)), width, height)


def job(root: Path, place: Path, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "task": "folder",
        "how": "image-to-image",
        "model": "embedded:sdxl",
        "pictures": str(place),
        "strength": 1.0,
        "steps": 1,
        "warmup": {"stable_pct": 1000.0, "min_calls": 2, "max_calls": 2},
        **changes,
    }
    made = fakes.make_job(root, **fields)
    made["cell"].setdefault("cell_id", "cell")
    return made


def rows_of(told: fakes.Told, root: Path) -> dict[str, dict[str, Any]]:
    return {row["picture"]: row for row in folder.read_rows(root / told["folder"]["rows"])}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, and every kind of file that is none."""
    place = tmp_path_factory.mktemp("pictures")
    (place / "sub").mkdir()
    scene(1, 64, 64).save(place / "a.png")
    scene(2, 100, 70).save(place / "a.jpg")
    scene(3, 200, 90).save(place / "sub" / "wide.png")
    whole = (place / "a.png").read_bytes()
    (place / "0-torn.png").write_bytes(whole[: len(whole) // 2])
    (place / "1-empty.png").write_bytes(b"")
    (place / "2-text.jpg").write_text("no picture")
    # More pixels than are unpacked, by our own limit and by the library's.
    Image.new("1", (10001, 10000)).save(place / "3-bomb.png")
    Image.new("1", (20000, 10000)).save(place / "5-bomb.png")
    scene(4, 3, 3).save(place / "4-tiny.png")
    return place


@pytest.fixture(scope="module")
def ran(broken: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[fakes.Told, Path]:
    root = tmp_path_factory.mktemp("run")
    return fakes.run(job(root, broken)), root


@pytest.mark.thorough
def test_broken_pictures_are_failed_rows_and_the_rest_goes_on(ran):
    told, root = ran
    assert (told.outcome, told.reason) == ("ok", None)
    said = told["folder"]
    assert (said["pictures"], said["ok"], said["failed"]) == (9, 3, 6)
    rows = rows_of(told, root)
    for name, why in (
        ("0-torn.png", "truncated"),
        ("1-empty.png", "no picture"),
        ("2-text.jpg", "no picture"),
        ("3-bomb.png", "10001x10000"),
        ("5-bomb.png", "bomb"),
        ("4-tiny.png", "too small"),
    ):
        assert rows[name]["outcome"] == "failed"
        assert why in rows[name]["reason"]
        assert str(root) not in rows[name]["reason"]
    assert any("6 of 9 pictures failed; the first: 0-torn.png" in w for w in told["warnings"])


def test_images_whose_shape_ran_eager_are_no_figures(broken, tmp_path, monkeypatch):
    def eager(_proof: evidence.Proof, sample: Any) -> str | None:
        return "unet ran eager" if sample.output.images[0].height < 64 else None

    monkeypatch.setattr(evidence.Proof, "eager", eager)
    told = fakes.run(job(tmp_path, broken))
    rows = rows_of(told, tmp_path)
    assert [rows[name]["outcome"] for name in ("a.png", "a.jpg", "sub/wide.png")] == [
        "ok",
        "fallback",
        "fallback",
    ]
    assert rows["a.jpg"]["reason"] == "unet ran eager"
    assert len(told["e2e_s"]) == 1


def test_results_have_their_pictures_own_size_and_names(ran, broken):
    told, root = ran
    rows = rows_of(told, root)
    for name, own, inner in (
        ("a.png", (64, 64), (64, 64)),
        ("a.jpg", (100, 70), (64, 48)),
        ("sub/wide.png", (200, 90), (64, 32)),
    ):
        row = rows[name]
        assert (row["width"], row["height"]) == own
        assert (row["in_width"], row["in_height"]) == inner
        output = root / row["output"]
        assert output.name == folder.result_name(name)
        with Image.open(output) as made:
            assert made.size == own
        assert row["seed"] == 333 + row["index"]
        assert row["e2e_s"] > 0
    assert len(told["e2e_s"]) == len(told["stages"]) == len(told["step_s"]) == 3
    assert [image["path"] for image in told["images"]] == [
        rows[name]["output"] for name in ("a.jpg", "a.png", "sub/wide.png")
    ]
    assert told["stop_reason"] == "pictures"


def test_an_interrupted_folder_goes_on_where_it_stopped(ran, broken, tmp_path):
    told, root = ran
    lines = (root / told["folder"]["rows"]).read_text().splitlines(keepends=True)
    asked = job(tmp_path, broken)
    rows = Path(asked["pictures_dir"]) / folder.ROWS
    rows.write_text("".join(lines[:8]) + lines[8][:20])
    again = fakes.run(asked)
    assert again.outcome == "ok"
    assert again["folder"]["carried"] == 7
    after = rows.read_text().splitlines(keepends=True)
    assert after[:8] == lines[:8]
    kept, made = ([json.loads(line) for line in each[1:]] for each in (lines, after))
    assert [row["picture"] for row in made] == [row["picture"] for row in kept]
    assert [r.get("output_sha256") for r in made] == [r.get("output_sha256") for r in kept]


def test_rows_of_another_cell_are_not_gone_on_with(broken, tmp_path):
    (tmp_path / "pictures").mkdir()
    rows = tmp_path / "pictures" / folder.ROWS
    rows.write_text('{"cell_id": "other", "machine": "x"}\n{"picture": "a.png"}\n')
    told = fakes.run(job(tmp_path, broken / "a.png"))
    assert (told["folder"]["pictures"], told["folder"]["carried"]) == (1, 0)


def test_a_folder_of_nothing_but_broken_pictures_fails(broken, tmp_path):
    told = fakes.run(job(tmp_path, broken / "1-empty.png"))
    assert told.outcome == "failed"
    assert "no picture of the folder could be processed; the first: 1-empty.png" in told.reason
    assert told["folder"]["failed"] == 1
    assert not told.get("e2e_s")


def test_a_folder_that_changed_since_the_plan_is_not_processed(broken, tmp_path):
    asked = job(tmp_path, broken)
    asked["cell"]["inputs"] = {"pictures": {"path": str(broken), "content": "0" * 16}}
    told = fakes.run(asked)
    assert told.outcome == "failed"
    assert "have changed since the plan was made" in told.reason


def test_an_edit_padded_to_one_shape_takes_its_drawn_prompts(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for n, size in enumerate([(90, 40), (40, 64)]):
        scene(n, *size).save(place / f"{n}.png")
    told = fakes.run(
        job(
            tmp_path,
            place,
            how="edit",
            model="embedded:pix2pix",
            strength=None,
            resize="pad",
            prompt="",
            prompts=["make it night", "make it sunset"],
            draw_seed=1,
        )
    )
    rows = rows_of(told, tmp_path)
    assert told.outcome == "ok"
    assert {(row["in_width"], row["in_height"]) for row in rows.values()} == {(64, 64)}
    for name, row in rows.items():
        place_ = folder.draw(1, "prompt", name, 2)
        assert row["prompt"] == ["make it night", "make it sunset"][place_]
        with Image.open(tmp_path / row["output"]) as made:
            assert made.size == (row["width"], row["height"])


def test_more_calls_than_a_record_holds_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "MOST_KEPT", 2)
    place = tmp_path / "in"
    place.mkdir()
    for n in range(5):
        scene(n, 32, 32).save(place / f"{n}.png")
    told = fakes.run(job(tmp_path, place, height=32, width=32))
    rows = list(rows_of(told, tmp_path).values())
    assert told["folder"]["kept_every"] == 3
    assert told["e2e_s"] == [rows[0]["e2e_s"], rows[3]["e2e_s"]]
    assert told["folder"]["median_s"] == sorted(row["e2e_s"] for row in rows)[2]
    assert len(told["images"]) == worker.SHOWN_PICTURES
