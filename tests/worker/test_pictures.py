from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.worker import pictures
from tests.worker.fakes import colourful


def one_colour(colour: Any) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def dark_but_for_one_pixel() -> Image.Image:
    image = one_colour((0, 0, 0))
    image.putpixel((3, 3), (0, 40, 0))
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (colourful(), None),
        (one_colour((0, 0, 0)), "black"),
        (one_colour((2, 1, 0)), "black"),
        (one_colour((128, 128, 128)), "a single colour"),
        (one_colour((255, 255, 255)), "a single colour"),
        (dark_but_for_one_pixel(), None),
        (Image.new("L", (4, 4), 7), "a single colour"),
    ],
)
def test_pictures_that_cannot_be_right(image, expected):
    assert pictures.defect(image) == expected


def test_different_input_pictures_are_kept_once_each(tmp_path):
    given = [colourful(0), colourful(0), colourful(1)]
    paths = pictures.save_inputs(given, tmp_path, tmp_path)
    assert paths == ["input_00000.png", "input_00001.png"]
    for path, image in zip(paths, (given[0], given[2]), strict=True):
        with Image.open(tmp_path / path) as saved:
            assert np.array_equal(np.asarray(saved), np.asarray(image))
    assert sorted(each.name for each in tmp_path.iterdir()) == paths


def test_files_are_named_by_seed_and_index_and_described_by_their_pixels(tmp_path):
    folder = tmp_path / "pictures" / "r0"
    folder.mkdir(parents=True)
    images = [colourful(0), colourful(1)]
    entries = pictures.save(images, 333, folder, tmp_path)
    assert [entry["path"] for entry in entries] == [
        "pictures/r0/seed_333_00000.png",
        "pictures/r0/seed_334_00001.png",
    ]
    for entry, image in zip(entries, images, strict=True):
        with Image.open(tmp_path / entry["path"]) as saved:
            assert np.array_equal(np.asarray(saved), np.asarray(image))
        assert (entry["width"], entry["height"]) == image.size
        assert entry["sha256"] == hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == [
        "seed_333_00000.png",
        "seed_334_00001.png",
    ]


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    class Full:
        def convert(self, mode: str) -> Any:
            return self

        def save(self, path: Path, **_: Any) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        pictures.save([Full()], 1, tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_can_be_read_by_others(tmp_path):
    pictures.save([colourful()], 1, tmp_path, tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & stat.S_IRUSR


@pytest.mark.parametrize(
    "output",
    [
        SimpleNamespace(images=[colourful()]),
        ([colourful()], False),
        [[colourful()]],
    ],
)
def test_pictures_are_found_in_what_pipelines_return(output):
    assert len(pictures.of_output(output)) == 1


@pytest.mark.parametrize(
    ("output", "what"),
    [
        (SimpleNamespace(images=np.zeros((1, 8, 8, 3))), "without a list of pictures"),
        (SimpleNamespace(images=[np.zeros((8, 8, 3))]), "ndarray instead of a PIL image"),
        (SimpleNamespace(images=[]), "no picture"),
        (SimpleNamespace(audios=[1]), "without a list of pictures"),
        (None, "NoneType"),
    ],
)
def test_anything_else_is_refused_by_name(output, what):
    with pytest.raises(pictures.NoPicturesError, match=what):
        pictures.of_output(output)


@pytest.mark.parametrize(
    ("values", "finite"),
    [([0.0, 1.0], True), ([0.0, float("nan")], False), ([float("inf")], False)],
)
def test_decoded_tensors_and_arrays_are_checked_for_nan(values, finite):
    import torch

    assert pictures.is_finite(torch.tensor(values)) is finite
    assert pictures.is_finite(torch.tensor(values, dtype=torch.float16)) is finite
    assert pictures.is_finite(np.array(values)) is finite
    assert pictures.is_finite([torch.tensor(values)]) is finite
    assert pictures.is_finite(colourful())
    assert pictures.is_finite(None)
