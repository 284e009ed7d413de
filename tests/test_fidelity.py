"""Picture comparison: known answers, faults, and SSIM against scikit-image where it is there."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import fidelity
from bench.fidelity import Comparison, compare, difference_picture, fault, to_pixels, verdict


def scene(seed: int = 0, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    """A smooth ramp with some texture: varies, and stays off 0 and 255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    base = 60 + 2 * x + y
    noisy = base[:, :, None] + rng.integers(-15, 16, (*size, 3))
    return np.clip(noisy, 20, 235).astype(np.uint8)


def pair(psnr: float | None, invalid: str | None = None) -> Comparison:
    return Comparison(psnr is None, 0, psnr, 1.0, None, invalid)


def test_identical_pictures():
    found = compare(scene(), Image.fromarray(scene()))
    assert (found.identical, found.max_abs, found.psnr_db, found.ssim) == (True, 0, None, 1.0)
    assert found.null_reasons["psnr_db"].startswith("infinite")


def test_psnr_of_one_level_everywhere_is_the_textbook_figure():
    found = compare(scene(), scene() + 1)
    assert found.max_abs == 1
    assert found.psnr_db == pytest.approx(20 * math.log10(255))  # 48.13 dB


def test_psnr_does_not_wrap_around_in_unsigned_arithmetic():
    light, dark = scene(), scene()
    light[0, 0], dark[0, 0] = 255, 0
    found = compare(dark, light)
    assert found.max_abs == 255
    assert found.psnr_db == pytest.approx(10 * math.log10(40 * 56))


def test_ssim_by_hand_on_one_window():
    # 11 x 11 pixels hold exactly one window: the formula can be written out in full.
    a, b = scene(1, (11, 11)), scene(2, (11, 11))
    g = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    w = np.outer(g, g) / np.outer(g, g).sum()
    expected = []
    for c in range(3):
        x, y = a[..., c].astype(float), b[..., c].astype(float)
        mx, my = (w * x).sum(), (w * y).sum()
        vx, vy = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum()
        cov = (w * (x - mx) * (y - my)).sum()
        expected.append(
            (2 * mx * my + 6.5025)
            * (2 * cov + 58.5225)
            / ((mx**2 + my**2 + 6.5025) * (vx + vy + 58.5225))
        )
    assert fidelity.ssim(a, b)[0] == pytest.approx(np.mean(expected), rel=1e-9)


def test_ssim_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(3)
    for size in ((11, 40), (64, 48), (33, 97)):
        a = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255).astype(np.uint8)
        expected = metrics.structural_similarity(
            a,
            b,
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert fidelity.ssim(a, b)[0] == pytest.approx(expected, abs=1e-7)


def test_a_picture_too_small_for_ssim_says_so():
    found = compare(scene(0, (10, 40)), scene(1, (10, 40)))
    assert found.ssim is None
    assert "11 x 11" in found.null_reasons["ssim"]


def test_flip_orders_differences():
    pytest.importorskip("flip_evaluator")
    near = np.clip(scene().astype(int) + 3, 0, 255).astype(np.uint8)
    far = scene()[:, ::-1]
    same, little, much = (compare(scene(), other).flip for other in (scene(), near, far))
    assert same == 0
    assert same < little < much < 1


def test_flip_gets_pictures_between_0_and_1_and_its_answer_is_kept(monkeypatch):
    seen = {}

    def evaluate(reference, test, kind, **options):
        seen.update(top=reference.max(), shape=test.shape, kind=kind, **options)
        return None, np.float32(0.25), {}

    monkeypatch.setitem(sys.modules, "flip_evaluator", types.SimpleNamespace(evaluate=evaluate))
    assert compare(scene(), scene(1)).flip == 0.25
    assert seen["top"] == pytest.approx(scene().max() / 255)
    assert seen["kind"] == "LDR"
    assert seen["shape"] == (40, 56, 3)


def test_absent_flip_is_null_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    found = compare(scene(), scene(1))
    assert found.flip is None
    assert "flip-evaluator" in found.null_reasons["flip"]
    assert found.psnr_db is not None


@pytest.mark.parametrize(
    ("picture", "word"),
    [
        (np.zeros((20, 20, 3), np.uint8), "black"),
        (np.full((20, 20, 3), 4, np.uint8), "black"),
        (np.full((20, 20, 3), (9, 200, 3), np.uint8), "constant"),
        (np.full((20, 20), 255, np.uint8), "constant"),
        (np.full((20, 20, 3), np.nan), "NaN"),
        (np.where(np.arange(1200).reshape(20, 20, 3) == 7, np.inf, 0.5), "NaN"),
    ],
)
def test_what_is_no_picture_is_found(picture, word):
    assert word in fault(picture)
    good = scene(0, (20, 20))
    for found in (compare(good, picture), compare(picture, good)):
        assert word in found.invalid
        assert found.psnr_db is None
        assert "psnr_db" in found.null_reasons


def test_a_dark_or_flat_picture_is_still_a_picture():
    dark = np.zeros((20, 20, 3), np.uint8)
    dark[3, 3] = 12
    assert fault(dark) is None
    pale = np.full((20, 20, 3), 250, np.uint8)
    pale[0, 0, 1] = 247
    assert fault(pale) is None
    assert fault(scene()) is None


def test_types_that_mean_the_same_picture_agree():
    pixels = scene()
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    for same in (pixels / 255, Image.fromarray(pixels), alpha, Image.fromarray(alpha)):
        assert (to_pixels(same) == pixels).all()
    grey = pixels[:, :, 0]
    assert (to_pixels(grey) == grey[:, :, None]).all()
    palette = Image.fromarray(pixels).quantize(8)
    assert (to_pixels(palette) == np.asarray(palette.convert("RGB"))).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 4), np.uint8),
        np.full((4, 4, 3), 1.5),
        np.full((4, 4, 3), -0.1),
    ],
)
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError):
        to_pixels(wrong)


def test_sizes_that_differ_are_refused_with_both_sizes():
    for act in (compare, difference_picture):
        with pytest.raises(ValueError, match="56 x 40 against 40 x 40"):
            act(scene(), scene(0, (40, 40)))


def test_difference_picture_is_amplified_and_clipped():
    other = scene().copy()
    other[0, 0] += 3
    other[1, 1] -= 20
    other[1, 1, 0] += 19
    shown = difference_picture(scene(), other)
    assert shown[0, 0].tolist() == [30, 30, 30]
    assert shown[1, 1].tolist() == [10, 200, 200]
    assert difference_picture(scene(), other, 100)[1, 1].tolist() == [100, 255, 255]
    assert (shown[2:] == 0).all()
    with pytest.raises(ValueError, match="amplify"):
        difference_picture(scene(), other, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), strength=st.integers(1, 60))
def test_comparison_is_symmetric_and_falls_with_the_difference(seed, strength):
    a = scene(seed)
    noise = np.random.default_rng(seed).integers(-strength, strength + 1, a.shape)
    noise[0, 0, 0] = strength
    b = np.clip(a + noise, 0, 255).astype(np.uint8)
    worse = np.clip(a + 2 * noise, 0, 255).astype(np.uint8)
    there, back, further = compare(a, b), compare(b, a), compare(a, worse)
    assert there.psnr_db == back.psnr_db
    assert there.ssim == pytest.approx(back.ssim)
    assert there.max_abs == back.max_abs <= further.max_abs
    assert further.psnr_db < there.psnr_db
    assert further.ssim < there.ssim < 1


@pytest.mark.parametrize(
    ("psnr", "word"),
    [
        (None, "IDENTICAL"),
        (62.0, "CLOSE"),  # float16
        (51.0, "CLOSE"),  # bfloat16
        (49.0, "CLOSE"),  # int8 weights
        (40.0, "CLOSE"),
        (36.0, "VISIBLY DIFFERENT"),  # cached steps
        (25.0, "OTHER PICTURE"),  # int4 weights
    ],
)
def test_the_published_ranking_against_an_exact_control(psnr, word):
    found = verdict([pair(None)], [pair(psnr)])
    assert found.word == word
    assert found.worst_db == psnr


def test_the_control_sets_what_counts_as_noise():
    assert verdict([pair(35.0)], [pair(34.5)]).word == "WITHIN NOISE"
    assert verdict([pair(35.0)], [pair(33.9)]).word == "VISIBLY DIFFERENT"
    assert verdict([pair(60.0), pair(45.0)], [pair(44.5)]).word == "WITHIN NOISE"
    assert verdict([], [pair(44.5)]).word == "CLOSE"
    assert "no control" in verdict([], [pair(44.5)]).reason


def test_the_worst_picture_decides():
    found = verdict([pair(None)], [pair(None), pair(70.0), pair(33.0)])
    assert (found.word, found.worst_db) == ("VISIBLY DIFFERENT", 33.0)


def test_one_bad_picture_makes_the_cell_invalid():
    bad = pair(None, invalid="candidate: the picture is black")
    assert verdict([pair(None)], [pair(60.0), bad]).word == "INVALID"
    assert "Picture 1 of backend" in verdict([pair(None)], [pair(60.0), bad]).reason
    assert "control" in verdict([bad], [pair(60.0)]).reason


def test_the_threshold_is_the_callers_and_is_named():
    assert verdict([], [pair(36.0)], 35.0).word == "CLOSE"
    low = verdict([], [pair(24.0)], 30.0)
    assert low.word == "VISIBLY DIFFERENT"
    assert "30 dB" in low.reason
    for wrong in (0, -1, math.nan):
        with pytest.raises(ValueError, match="threshold_db"):
            verdict([], [pair(36.0)], wrong)
    with pytest.raises(ValueError, match="no picture"):
        verdict([], [])


def test_fid_is_refused_under_5000_images():
    assert "5,000" in fidelity.why_no_fid(4999)
    assert fidelity.why_no_fid(5000) is None
