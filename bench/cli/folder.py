"""``bench folder``: every image of a folder, or one image, through a model, from flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import quick


@quick.verb(
    "models prompts negative_prompt strength steps size resize enlarge seed draw_seed scheduler "
    "guidance variant dtype device backend",
    {"workload": {"task": "folder"}, "limits": {"timeout": "7d"}},
    steps=10,
    resize="fit",
    seed="333",
    draw_seed=0,
    device="auto",
    backend="none",
)
def folder(
    asked: quick.Asked,
    images: Annotated[
        Path, typer.Argument(help="Folder of images, or one image.", show_default=False)
    ],
    out: quick.Out = None,
    dry_run: quick.DryRun = False,
) -> None:
    """Each is one measured call. An image that cannot be processed is one failed row; the others
    continue. Results lie in the run folder under the images' own names, beside a file with one
    line for each image.

    Examples:
      bench folder configs/pictures --prompt "make it night" --model embedded:pix2pix
      bench folder photo.jpg --prompt "in the style of picasso" --model stabilityai/stable-diffusion-2
      bench folder configs/pictures --prompt "make it night" --prompt "put it on snow"

    Exit codes:
      0    every cell is ok, though single images may have failed
      1    a model processed no image
      2    usage: a wrong option or value; nothing was started
      130  interrupted; the same command with --out continues it
    """  # noqa: E501 - an example is one line
    from bench.cli import printed

    workload = asked.workload
    if "prompts" not in workload:
        raise typer.BadParameter("say what to draw, once or several times", param_hint="--prompt")
    workload.setdefault("models", ["embedded:sdxl"])
    for one, several in (("model", "models"), ("prompt", "prompts")):
        if len(workload[several]) == 1:
            (workload[one],) = workload.pop(several)
    workload["pictures"] = str(images)
    quick.finish(asked, out, printed.of_folder, resume=True, dry_run=dry_run)
