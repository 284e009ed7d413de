"""The picture that steers a ControlNet: a file's, or one that is drawn.

Nothing here needs torch, so that a report, a test or the training of the embedded ControlNet makes
the same picture as a cell.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from bench.contract import CONTROL_DRAWINGS

DRAWN_EDGES, DRAWN_ELLIPSE = CONTROL_DRAWINGS
STEEP = 20.0
"""Change of a channel from pixel to pixel, of 255, from which on there is an edge: soft skies have
none, outlines at night still do."""


def edges(picture: Image.Image) -> Image.Image:
    """Return the outlines of ``picture``, white on black, RGB of the same size.

    A pixel is white where the gradient of any channel (central differences) is longer than `STEEP`.
    """
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    if min(pixels.shape[:2]) < 2:
        return Image.new("RGB", picture.size)
    down, right = np.gradient(pixels, axis=(0, 1))
    steep = np.hypot(down, right).max(axis=2) > STEEP
    return Image.fromarray((steep * 255).astype(np.uint8)).convert("RGB")


def ellipse(width: int, height: int) -> Image.Image:
    """Return a white ellipse, half as wide and high as the picture, in the middle of black.

    What OneDiff's benchmark script draws when it is given a ControlNet and no control image.
    """
    drawn = Image.new("RGB", (width, height))
    box = (width // 4, height // 4, width // 4 * 3, height // 4 * 3)
    ImageDraw.Draw(drawn).ellipse(box, fill=(255, 255, 255))
    return drawn
