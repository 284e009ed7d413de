"""``bench folder``: every picture of a folder, or one picture, through a model, from flags.

The flags become a configuration with task folder, and from there on everything is as in
``bench run``. A run that was interrupted goes on where it stopped when it is named by ``--out``.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import folder as pictures_of
from bench.cli import once
from bench.contract import Record

MOST_FAILURES = 10
MIB = 1024**2


def folder(
    pictures: Annotated[
        Path, typer.Argument(help="Folder of pictures, or one picture.", show_default=False)
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="ORG/NAME on the Hub, a diffusers folder, embedded:NAME or synthetic:ARCH. Given "
            "several times, each picture is drawn one.  [default: embedded:sdxl]",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="What to draw, or the instruction. Given several times, each picture is drawn "
            "one.",
            show_default=False,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="How much of a picture is replaced, image-to-image only. [default: 0.8]"),
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 10,
    size: Annotated[
        str | None,
        typer.Option(help="512 or 768x1024: pictures are made to fit.  [default: the model's]"),
    ] = None,
    resize: Annotated[str, typer.Option(help="fit, or pad: all pictures at one shape.")] = "fit",
    enlarge: Annotated[
        bool, typer.Option("--enlarge", help="Also enlarge pictures that are smaller.")
    ] = False,
    seed: Annotated[
        str, typer.Option(help="Of the first picture; random draws one and says which.")
    ] = "333",
    draw_seed: Annotated[int, typer.Option(help="Of the draws of prompts and models.")] = 0,
    scheduler: Annotated[str | None, typer.Option(help="A diffusers class.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale.  [default: the pipeline's]")
    ] = None,
    compiler: Annotated[str, typer.Option(help="none, or a backend.")] = "none",
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; one that was interrupted is gone on with.  "
            "[default: runs/folder-<time>]"
        ),
    ] = None,
) -> None:
    """Send every picture of a folder through a model, each as one measured call.

    A picture that cannot be processed is one failed row; the others go on. Results lie in the run
    folder under the pictures' own names, beside a file with one line for each picture.

    \b
    Examples:
      bench folder configs/pictures --prompt "make it night" --model embedded:pix2pix
      bench folder photo.jpg --prompt "in the style of picasso" --model stabilityai/stable-diffusion-2
      bench folder configs/pictures --prompt "make it night" --prompt "put it on snow"

    \b
    Exit codes:
      0    every cell is ok, though single pictures may have failed
      1    a model processed no picture
      2    usage: a wrong option or value; nothing was started
      130  interrupted; the same command with --out goes on from there
    """  # noqa: D301, E501 - click reads \b as a character; an example is one line
    if not prompt:
        raise typer.BadParameter("say what to draw, once or several times", param_hint="--prompt")
    models = [once.model_source(each) for each in model or ["embedded:sdxl"]]
    workload: dict[str, Any] = {
        "name": "folder",
        "task": "folder",
        "pictures": str(pictures),
        **({"model": models[0]} if len(models) == 1 else {"models": models}),
        **({"prompt": prompt[0]} if len(prompt) == 1 else {"prompts": prompt}),
        "strength": strength,
        "steps": steps,
        "size": size,
        "resize": resize,
        "enlarge": enlarge,
        "seed": once.seed_of(seed),
        "draw_seed": draw_seed,
        "scheduler": scheduler,
        "guidance": guidance,
        "dtype": dtype,
    }
    config = {
        "name": f"folder-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}",
        "device": device,
        "protocol": {"preset": "quick", "rounds": 1},
        "limits": {"timeout": "7d"},
        "matrix": {
            "workload": [{key: value for key, value in workload.items() if value is not None}],
            "backend": [compiler],
        },
    }
    records, place, exit_code = once.measured(config, out, resume=out is not None)
    for record in records:
        print("\n".join(report(record, place)))
    print(f"Run: {place}")
    raise typer.Exit(exit_code)


def report(record: Record, place: Path) -> list[str]:
    """Return the lines to print of one model: counts, times, memory, failures, where results lie.

    Args:
        place: the run folder.
    """
    said = record.get("folder")
    lines = [f"Model: {record['cell']['workload']['model']}"]
    if said is not None:
        lines.append(f"Pictures: {said['pictures']}, {said['ok']} ok, {said['failed']} failed")
        if said["median_s"] is not None:
            lines.append(
                f"Time of a picture: {said['median_s']:.3f} s (median); "
                f"{said['images_per_s']:.2f} pictures a second with reading and saving"
            )
        if said["rss_start_bytes"] is not None:
            start, end = said["rss_start_bytes"] / MIB, said["rss_end_bytes"] / MIB
            lines.append(
                f"Host memory: {start:.0f} MiB at the first picture, {end:.0f} at the last"
            )
        if said["carried"]:
            lines.append(f"Gone on with: {said['carried']} pictures were done before")
        rows = place / said["rows"]
        bad = (row for row in pictures_of.read_rows(rows) if row["outcome"] != "ok")
        for number, row in enumerate(bad):
            if number == MOST_FAILURES:
                lines.append(f"  … and more: {rows}")
                break
            lines.append(f"  {row['outcome']}: {row['picture']}: {row['reason']}")
        lines += [f"Results: {rows.parent}", f"Rows: {rows}"]
    reason = record.get("reason")
    lines.append(f"Outcome: {record['outcome']}" + (f": {reason}" if reason else ""))
    return lines
