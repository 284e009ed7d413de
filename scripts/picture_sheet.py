"""Put the images of a run on one labelled sheet, such as the one in the README.

    python scripts/picture_sheet.py runs/quickstart docs/images/quickstart.png

A row for each backend, a column for each workload; the first image of the first round.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.records import Record
from bench.store import RunFolder

SCALE = 2
MARGIN = 12
LABEL = 22


def sheet(run: Path) -> Image.Image:
    """Return the sheet of the run in ``run``; images are enlarged twice, pixel by pixel.

    Raises:
        SystemExit: the run has no image.
    """
    kept: dict[tuple[str, str], Record] = {}
    for record in RunFolder.open(run).records():
        if record.images:
            kept.setdefault((record.cell.backend.name, record.workload.name), record)
    if not kept:
        raise SystemExit(f"{run} has no images")
    backends = list(dict.fromkeys(backend for backend, _ in kept))
    workloads = list(dict.fromkeys(workload for _, workload in kept))
    images = {key: _enlarged(run / record.images[0].path) for key, record in kept.items()}
    width = max(image.width for image in images.values())
    height = max(image.height for image in images.values())
    across, down = width + MARGIN, height + LABEL + MARGIN
    size = (MARGIN + len(workloads) * across, MARGIN + len(backends) * down)
    made = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(made)
    font = ImageFont.load_default(14)
    for (backend, workload), image in images.items():
        left = MARGIN + workloads.index(workload) * across
        top = MARGIN + backends.index(backend) * down
        made.paste(image, (left, top))
        draw.text((left, top + height + 3), f"{workload} · {backend}", "black", font)
    return made


def _enlarged(path: Path) -> Image.Image:
    with Image.open(path) as image:
        size = (image.width * SCALE, image.height * SCALE)
        return image.convert("RGB").resize(size, Image.Resampling.NEAREST)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sheet(Path(sys.argv[1])).save(sys.argv[2], optimize=True)
