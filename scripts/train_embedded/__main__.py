"""Train the embedded models: `python -m scripts.train_embedded STAGE`.

Run the stages in the order vae, sdxl, pix2pix, export; the two in the middle can run side by
side. `all` runs them one after another. An interrupted stage goes on at its last checkpoint.

The stages controlnet and lora need nothing but the exported models: they train against those that
lie in the package and write their weights there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from . import export, extras, unet, vae

STEPS = {"vae": 2400, "sdxl": 2200, "pix2pix": 2000, "controlnet": 450, "lora": 360}
ASSETS = Path(__file__).resolve().parents[2] / "bench" / "assets" / "embedded"


def main() -> None:
    """Parse the command line and run the stages asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.train_embedded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = ["vae", "sdxl", "pix2pix", "export", "controlnet", "lora"]
    parser.add_argument("stage", choices=[*stages, "all"])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/train_embedded"),
        help="folder for checkpoints, encoded pictures and trained weights (default %(default)s)",
    )
    parser.add_argument("--steps", type=int, help=f"training steps of the stage, default {STEPS}")
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads (default %(default)s)"
    )
    parser.add_argument(
        "--assets", type=Path, default=ASSETS, help="where export writes (default %(default)s)"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for stage in stages if args.stage == "all" else [args.stage]:
        steps = args.steps or STEPS.get(stage, 0)
        if stage == "vae":
            vae.train(args.out, steps, pool=5000, batch=4)
        elif stage == "sdxl":
            torch.manual_seed(unet.SEED)
            unet.train(args.out, unet.Sdxl(), steps, pool=8000)
        elif stage == "pix2pix":
            torch.manual_seed(unet.SEED + 1)
            unet.train(args.out, unet.Pix2Pix(), steps, pool=1200)
        elif stage == "controlnet":
            extras.train(args.assets, stage, steps, pool=900, batch=12)
        elif stage == "lora":
            extras.train(args.assets, stage, steps, pool=400, batch=10)
        else:
            export.export(args.out, args.assets)


if __name__ == "__main__":
    main()
