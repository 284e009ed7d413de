"""Published figures, laid out as their authors' pages lay them out; the words are ours."""

from __future__ import annotations

import csv
from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"


def _rows(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _onediff() -> str:
    parts = ["# Figures\n\nEvery run was made with the number of steps set to 10.\n",
             "`python run.py --steps 50`\n\n```\nSTEPS = 30\n```\n"]  # fmt: skip
    task = model = size = ""
    for row in _rows("onediff_t2i_i2i.csv"):
        if row["session"] != "nexfort":
            continue
        if row["task"] != task:
            task = row["task"]
            parts.append(f"### {'Text-to-Image' if task == 't2i' else 'Image-to-image'}\n")
            model = ""
        if row["model"] != model:
            model, size = row["model"], ""
            parts.append(f"#### {model}\n")
        if row["height"] != size:
            size = row["height"]
            parts.append(f"##### {size} x {size}, the input was {size} x {size}\n")
        rule = "\t" + "=" * 39
        parts.append(
            f"###### {'without OneDiff' if row['backend'] == 'none' else 'With onediff'}\n"
            f"\tWarmup time: {row['warmup_s']}s\n{rule}\n{rule}\n"
            f"\tInference time: {row['inference_s']}s\n"
            f"\tIterations per second: {row['iter_per_s']}\n"
            f"\tMax used CUDA memory : {row['peak_mem_gib']}GiB\n{rule}\n Image:\n"
            f" ![{row['image_label']}](https://example.org/{row['image_id']})\n"
        )
    return "\n".join(parts)


def _vram() -> str:
    lines = ["| Resolution | VRAM |", "| --- | --- |"]
    for row in _rows("vram_by_resolution.csv"):
        if row["model"] == "vqgan_imagenet_f16_1024":
            lines.append(f"| {row['W']} x {row['H']} | {int(row['vram_mib']):,} MiB |")
    return "\n".join(lines) + "\n"


ONEDIFF = _onediff()
VRAM = _vram()
