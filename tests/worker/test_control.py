"""Control pictures that are drawn: known answers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.worker import control
from bench.worker.inputs import control_pictures, input_pictures


def test_edges_of_a_square_are_its_border():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[4:12, 4:12] = (0, 200, 0)
    found = np.asarray(control.edges(Image.fromarray(pixels)))[..., 0]
    assert set(np.unique(found)) == {0, 255}
    # central differences see a border from both sides
    assert found[3, 8] == found[4, 8] == found[11, 8] == found[12, 8] == 255
    assert found[6:10, 6:10].max() == 0
    assert found[:3].max() == 0


def test_a_soft_gradient_has_no_edge_and_a_steep_one_is_all_edge():
    soft = np.repeat(np.arange(0, 64, dtype=np.uint8)[:, None], 8, axis=1)
    steep = np.repeat((np.arange(8, dtype=np.uint8) * 30)[:, None], 8, axis=1)
    assert np.asarray(control.edges(Image.fromarray(soft))).max() == 0
    assert np.asarray(control.edges(Image.fromarray(steep))).min() == 255


@given(st.integers(16, 200), st.integers(16, 200))
def test_the_ellipse_is_white_in_the_middle_of_black(width, height):
    drawn = control.ellipse(width, height)
    assert drawn.size == (width, height)
    assert drawn.getpixel((width // 2, height // 2)) == (255, 255, 255)
    assert drawn.getpixel((0, 0)) == (0, 0, 0)


def workload(**changes: object) -> dict[str, object]:
    made: dict[str, object] = {"width": 64, "height": 32, "seed": 5, "batch": 2}
    return {**made, "input_image": None, **changes}


def test_each_picture_of_a_batch_is_steered_by_its_own_scene():
    first, second = control_pictures(workload(), None)[0]
    (alone,), _ = control_pictures(workload(seed=6, batch=1), None)
    assert first.size == (64, 32)
    assert second.tobytes() == alone.tobytes() != first.tobytes()


def test_image_to_image_is_steered_by_the_outlines_of_its_input():
    given_pictures, _ = input_pictures(workload())
    steering, _ = control_pictures(workload(), given_pictures)
    assert [each.tobytes() for each in steering] == [
        control.edges(picture).tobytes() for picture in given_pictures
    ]
