"""Put the pictures of a run on one labelled sheet, such as the one in the README.

    python scripts/picture_sheet.py runs/quickstart docs/images/quickstart.png

A row for each backend, a column for each workload; the first picture of the first round.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.contract import Record
from bench.store import RunFolder

SCALE = 2
MARGIN = 12
LABEL = 22


def sheet(run: Path) -> Image.Image:
    """Return the sheet of the run in ``run``; pictures are enlarged twice, pixel by pixel.

    Raises:
        SystemExit: the run has no picture.
    """
    found: dict[tuple[str, str], Record] = {}
    for record in RunFolder.open(run).raw_records():
        cell = record["cell"]
        if record.get("images"):
            found.setdefault((cell["backend"]["name"], cell["workload"]["name"]), record)
    if not found:
        raise SystemExit(f"{run} has no pictures")
    backends = list(dict.fromkeys(backend for backend, _ in found))
    workloads = list(dict.fromkeys(workload for _, workload in found))
    pictures = {key: _enlarged(run / record["images"][0]["path"]) for key, record in found.items()}
    width = max(picture.width for picture in pictures.values())
    height = max(picture.height for picture in pictures.values())
    made = Image.new(
        "RGB",
        (
            MARGIN + len(workloads) * (width + MARGIN),
            MARGIN + len(backends) * (height + LABEL + MARGIN),
        ),
        "white",
    )
    draw = ImageDraw.Draw(made)
    font = ImageFont.load_default(14)
    for (backend, workload), picture in pictures.items():
        left = MARGIN + workloads.index(workload) * (width + MARGIN)
        top = MARGIN + backends.index(backend) * (height + LABEL + MARGIN)
        made.paste(picture, (left, top))
        draw.text((left, top + height + 3), f"{workload} · {backend}", "black", font)
    return made


def _enlarged(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        size = (picture.width * SCALE, picture.height * SCALE)
        return picture.convert("RGB").resize(size, Image.Resampling.NEAREST)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sheet(Path(sys.argv[1])).save(sys.argv[2], optimize=True)
