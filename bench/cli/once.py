"""``bench once``: one workload from flags, under the names of OneDiff's benchmark script."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import files
from bench.cli import quick
from bench.cli.flags import infer_task

if TYPE_CHECKING:
    from bench.records import Record

CONTEXT = {"token_normalize_func": lambda name: name.replace("_", "-")}
"""Flags may be written as in that script."""


@quick.verb(
    "model variant scheduler steps prompt negative_prompt seed warmups calls batch iterations "
    "one_by_one height width size input_image lora lora_scale lora_fused controlnet control_image "
    "control_scale custom_pipeline allow_remote_code script_backend compiler_config deepcache "
    "cache_interval cache_layer_id cache_block_id quantize quantize_config "
    "quant_submodules_config_path run_multiple_resolutions resolutions throughput "
    "throughput_steps sweep_repeats extra_call_kwargs task strength guidance dtype device",
    model="SG161222/RealVisXL_V4.0",
    scheduler="EulerAncestralDiscreteScheduler",
    steps=30,
    prompt="best quality, realistic, unreal engine, 4K,a cat sitting on human lap",
    seed="333",
    warmups=1,
    calls=3,
    batch=1,
    script_backend="none",
    device="auto",
)
def once(
    asked: quick.Asked,
    out: quick.Out = None,
    dry_run: quick.DryRun = False,
    output_image: Annotated[Path | None, typer.Option(help="PNG file for the first image.")] = None,
    print_output: Annotated[
        bool, typer.Option("--print-output", help="Draw the images in the terminal.")
    ] = False,
) -> None:
    """Prints that script's four lines, then what it leaves out: spread, steps really taken, memory
    by meter, and whether the backend was active. The run folder can be shown with bench show.

    Examples:
      bench once --model embedded:sdxl --prompt "a red house on grass" --output-image house.png
      bench once --steps 10 --height 1024 --width 1024
      bench once --model timbrooks/instruct-pix2pix --input-image cat.png --prompt "make it night"
      bench once --backend torch-compile --compiler-config '{"mode": "max-autotune"}'
      bench once --model embedded:sdxl --lora embedded:sepia --controlnet embedded:edges
      bench once --model embedded:sdxl --deepcache --cache-interval 2

    Exit codes:
      0    ok
      1    any other outcome; the reason is printed
      2    usage: a wrong option or value; nothing was started
      130  interrupted
    """
    from bench.cli import onediff, printed

    if output_image is not None:
        _check_output(output_image)
    workload, values = asked.workload, asked.values
    workload.setdefault("task", infer_task(workload["model"], workload.get("input_image")))
    if "controlnet" in workload:
        workload.setdefault("control_image", "drawn:ellipse")
    if "sweep" in asked.config:
        asked.config["sweep"].setdefault("repeats", 1)
    if values["deepcache"]:
        onediff.deepcache(asked.backend)
    kinds = [values["quantize_config"], values["quant_submodules_config_path"]]
    if values["quantize"]:
        onediff.quantise(asked.backend, *(kind or {} for kind in kinds))
    elif kinds != [None, None]:
        raise typer.BadParameter("needs --quantize", param_hint="--quantize-config")

    def lines(record: Record, folder: Path) -> Iterator[str]:
        yield from onediff.lines(record, values["warmups"])
        images = [files.inside(folder, image.path) for image in record.images]
        if print_output:
            for image in images:
                yield from printed.in_terminal(image)
        if output_image is not None and images:
            try:
                shutil.copyfile(images[0], output_image)
            except OSError as error:
                said = f"{output_image}: {error.strerror}; the image is {images[0]}"
                print(f"bench: {said}", file=sys.stderr)
                raise typer.Exit(1) from None
            yield f"Image: {output_image}"

    quick.finish(asked, out, lines, dry_run=dry_run)


def _check_output(path: Path) -> None:
    hint = "--output-image"
    if path.suffix.lower() != ".png":
        raise typer.BadParameter(f"{path} must end in .png", param_hint=hint)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}", param_hint=hint)
