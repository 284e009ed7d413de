"""``bench once``: one workload from flags, under the names of OneDiff's benchmark script.

The flags become a configuration, and from there on everything is as in ``bench run``.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import onediff
from bench.contract import TASKS, Record

SOURCES = ("hub:", "path:", "embedded:", "synthetic:")

COMPILERS: dict[str, tuple[str, dict[str, Any]]] = {
    "compile": ("torch-compile", {}),
    "compile-max-autotune": ("torch-compile", {"mode": "max-autotune"}),
}
"""That script's names for torch.compile: our backend, and the options that the name implies."""

GIB = 1024**3
RULE = "=" * 39


def once(
    model: Annotated[
        str,
        typer.Option(
            help="ORG/NAME on the Hub or a diffusers folder; also embedded:NAME, synthetic:ARCH."
        ),
    ] = "SG161222/RealVisXL_V4.0",
    variant: Annotated[
        str | None, typer.Option(help="Variant of the weight files, such as fp16.")
    ] = None,
    scheduler: Annotated[
        str, typer.Option(help="A diffusers class; none keeps the model's own.")
    ] = "EulerAncestralDiscreteScheduler",
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 30,
    prompt: Annotated[
        str, typer.Option(help="What to draw; for edits, the instruction.")
    ] = "best quality, realistic, unreal engine, 4K,a cat sitting on human lap",
    negative_prompt: Annotated[str, typer.Option(help="What to keep out.")] = "",
    seed: Annotated[
        str, typer.Option(help="Seed of the first picture; random draws one and says which.")
    ] = "333",
    warmups: Annotated[
        int,
        typer.Option(
            min=0,
            help="Warm-up calls at least; two are always made, and more until their times are "
            "stable. 'Warmup time' sums them all.",
        ),
    ] = 1,
    calls: Annotated[
        int, typer.Option(min=1, help="Measured calls; 'Inference time' is their median.")
    ] = 3,
    batch: Annotated[int, typer.Option(help="Pictures for each call.")] = 1,
    iterations: Annotated[
        int, typer.Option(help="Batches; picture i of all of them has seed + i.")
    ] = 1,
    one_by_one: Annotated[
        bool,
        typer.Option(
            "--one-by-one",
            help="Pictures of a batch go through the models one at a time: the same bytes in any "
            "batch.",
        ),
    ] = False,
    height: Annotated[
        int | None, typer.Option(help="Pixels.  [default: the model's]", show_default=False)
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Pixels.  [default: the model's]", show_default=False)
    ] = None,
    input_image: Annotated[
        Path | None,
        typer.Option(help="Picture to start from.", exists=True, dir_okay=False, readable=True),
    ] = None,
    output_image: Annotated[
        Path | None, typer.Option(help="PNG file for the first picture.")
    ] = None,
    print_output: Annotated[
        bool, typer.Option("--print-output", help="Draw the pictures in the terminal.")
    ] = False,
    lora: Annotated[
        str | None,
        typer.Option(help=".safetensors file, embedded:NAME or ORG/NAME[/FILE] on the Hub."),
    ] = None,
    lora_scale: Annotated[float, typer.Option(help="Strength of the LoRA.")] = 1.0,
    lora_fused: Annotated[
        bool,
        typer.Option("--lora-fused/--lora-unfused", help="Into the weights, or run beside them."),
    ] = True,
    controlnet: Annotated[
        str | None, typer.Option(help="ORG/NAME on the Hub, a folder or embedded:NAME.")
    ] = None,
    control_image: Annotated[
        str | None,
        typer.Option(
            help="Picture file, drawn:edges or drawn:ellipse.  [default: drawn:ellipse, as there]",
            show_default=False,
        ),
    ] = None,
    control_scale: Annotated[float, typer.Option(help="How strongly it steers.")] = 1.0,
    custom_pipeline: Annotated[
        Path | None,
        typer.Option(
            help="Python file with a pipeline class, or a folder with pipeline.py.", exists=True
        ),
    ] = None,
    allow_remote_code: Annotated[
        bool,
        typer.Option("--allow-remote-code", help="Run Python that comes with model or pipeline."),
    ] = False,
    deepcache: Annotated[
        bool, typer.Option("--deepcache", help="Reuse deep features between steps.")
    ] = False,
    cache_interval: Annotated[
        int | None,
        typer.Option(
            "--cache-interval",
            "--cache_interval",
            help="Every how many steps the whole UNet runs.  [default: 3]",
        ),
    ] = None,
    cache_layer_id: Annotated[
        int | None,
        typer.Option(
            "--cache-layer-id",
            "--cache_layer_id",
            help="Layer of the block at which it is cut.  [default: 0]",
        ),
    ] = None,
    cache_block_id: Annotated[
        int | None,
        typer.Option(
            "--cache-block-id", "--cache_block_id", help="Block at which it is cut.  [default: 0]"
        ),
    ] = None,
    quantize: Annotated[
        bool,
        typer.Option("--quantize", help="Eight-bit weights: by torchao, or nexfort's own."),
    ] = False,
    quantize_config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help='{"quant_type": "int8_dynamic"}, or a JSON or YAML file.'
        ),
    ] = None,
    quant_submodules_config_path: Annotated[
        Path | None,
        typer.Option(
            help="JSON or YAML file: layers by name or pattern, each with its type or null.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
    run_multiple_resolutions: Annotated[
        bool,
        typer.Option(
            "--run-multiple-resolutions/--no-run-multiple-resolutions",
            "--run_multiple_resolutions",
            help="Measure other sizes too.",
        ),
    ] = False,
    resolutions: Annotated[
        str | None,
        typer.Option(
            help="Which, such as 256,512x768 (width x height).  [default: 1024, 512, 768 and 256, "
            "each with each]",
            show_default=False,
        ),
    ] = None,
    throughput: Annotated[
        bool, typer.Option("--throughput", help="Measure other step counts too, and fit a line.")
    ] = False,
    throughput_steps: Annotated[
        str | None,
        typer.Option(help="Which, such as 1-99 or 5,10,20.  [default: 1-99]", show_default=False),
    ] = None,
    sweep_repeats: Annotated[
        int, typer.Option(min=1, help="Measured calls of each size and step count.")
    ] = 1,
    extra_call_kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Further arguments of the pipeline call.")
    ] = None,
    compiler: Annotated[
        str,
        typer.Option(
            help="none, torch-compile, torch-compile-regional or an installed backend; compile "
            "and compile-max-autotune are understood. That script's own default, nexfort, is not "
            "among the backends that ship here."
        ),
    ] = "none",
    compiler_config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Options of the compiler: mode, dynamic, …; or a JSON or YAML file.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="text-to-image, image-to-image or edit; bench chain makes chains.  [default: "
            "edit if the model is an instruct-pix2pix, image-to-image if there is an input image, "
            "else text-to-image]",
            show_default=False,
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of the input is replaced, image-to-image only.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale.  [default: the pipeline's]")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float16, bfloat16 or float32.  [default: float32 for embedded models, folders "
            "and with --device cpu, else float16]"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Run folder.  [default: runs/once-<time>]")
    ] = None,
) -> None:
    """Run one workload from flags named as in OneDiff's script.

    Prints that script's four lines, then what it leaves out: spread, steps really taken, memory by
    meter, and whether the compiler was active. The run folder can be shown with bench show.

    \b
    Examples:
      bench once --model embedded:sdxl --prompt "a red house on grass" --output-image house.png
      bench once --steps 10 --height 1024 --width 1024
      bench once --model timbrooks/instruct-pix2pix --input-image cat.png --prompt "make it night"
      bench once --compiler torch-compile --compiler-config '{"mode": "max-autotune"}'
      bench once --model embedded:sdxl --lora embedded:sepia --controlnet embedded:edges
      bench once --model embedded:sdxl --deepcache --cache-interval 2

    \b
    Exit codes:
      0    ok
      1    any other outcome; the reason is printed
      2    usage: a wrong option or value; nothing was started
      130  interrupted
    """  # noqa: D301 - click reads \b as a character
    if output_image is not None:
        _check_output(output_image)
    backend, implied = COMPILERS.get(compiler, (compiler, {}))
    name = f"once-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    source = model_source(model)
    workload = {
        "name": "once",
        "task": task or infer_task(source, input_image),
        "model": source,
        "variant": variant,
        "scheduler": scheduler,
        "steps": steps,
        "prompt": prompt,
        "negative_prompt": negative_prompt or None,
        "seed": seed_of(seed),
        "batch": batch,
        "iterations": None if iterations == 1 else iterations,
        "one_by_one": one_by_one or None,
        "height": height,
        "width": width,
        "input_image": str(input_image) if input_image else None,
        "extra": json_object("--extra-call-kwargs", extra_call_kwargs),
        "strength": strength,
        "guidance": guidance,
        "dtype": dtype,
    }
    options = {**implied, **onediff.settings("--compiler-config", compiler_config)}
    if lora is not None:
        workload["lora"] = onediff.lora(lora, lora_scale, lora_fused)
    if controlnet is not None:
        workload["controlnet"] = onediff.controlnet(controlnet)
        workload["control_image"] = onediff.control_image(control_image or "drawn:ellipse")
        workload["control_scale"] = control_scale
    elif control_image is not None:
        raise typer.BadParameter("needs --controlnet", param_hint="--control-image")
    if custom_pipeline is not None:
        workload["custom_pipeline"] = str(custom_pipeline)
    if deepcache:
        backend, cut = onediff.deepcache(
            backend,
            cache_interval=cache_interval,
            cache_layer_id=cache_layer_id,
            cache_block_id=cache_block_id,
        )
        options = {**options, **cut}
    elif (cache_interval, cache_layer_id, cache_block_id) != (None, None, None):
        raise typer.BadParameter("needs --deepcache", param_hint="--cache-interval")
    if quantize:
        backend, options = onediff.quantise(
            backend,
            options,
            onediff.settings("--quantize-config", quantize_config),
            onediff.settings(
                "--quant-submodules-config-path",
                None if quant_submodules_config_path is None else str(quant_submodules_config_path),
            ),
        )
    elif quantize_config is not None or quant_submodules_config_path is not None:
        raise typer.BadParameter("needs --quantize", param_hint="--quantize-config")
    sweep: dict[str, Any] = {}
    if run_multiple_resolutions or resolutions is not None:
        sweep["size"] = onediff.sizes(resolutions)
    if throughput or throughput_steps is not None:
        sweep["steps"] = onediff.step_counts(throughput_steps)
    least = max(2, warmups)
    config = {
        "name": name,
        "device": device,
        "allow_remote_code": allow_remote_code,
        "sweep": {**sweep, "repeats": sweep_repeats} if sweep else None,
        "protocol": {
            "preset": "quick",
            "warmup": {"min_calls": least, "max_calls": max(10, least)},
            "calls": {"min_calls": calls, "max_calls": calls},
            "rounds": 1,
        },
        "matrix": {
            "workload": [{key: value for key, value in workload.items() if value is not None}],
            "backend": [{"name": backend, "options": options}],
        },
    }
    records, folder, exit_code = measured(config, out)
    for record in records:
        print("\n".join(report(record, warmups)))
        images = record.get("images") or []
        if print_output:
            for image in images:
                print("\n".join(onediff.in_terminal(folder / image["path"])))
        if output_image is not None and images:
            try:
                shutil.copyfile(folder / images[0]["path"], output_image)
            except OSError as error:
                kept = folder / images[0]["path"]
                said = f"{output_image}: {error.strerror}; the picture is {kept}"
                print(f"bench: {said}", file=sys.stderr)
                exit_code = 1
            else:
                print(f"Picture: {output_image}")
        print(f"Run: {folder}")
    raise typer.Exit(exit_code)


def model_source(model: str) -> str:
    """Return ``model`` with its source: an existing folder is ``path:``, ORG/NAME is ``hub:``."""
    if model.startswith(SOURCES):
        return model
    return f"path:{model}" if Path(model).is_dir() else f"hub:{model}"


def infer_task(model: str, input_image: Path | None) -> str:
    """Return the task that a model and an input picture suggest."""
    from bench.tasks.folder.keys import is_edit

    if is_edit(model, Path.cwd()):
        return "edit"
    text_to_image, image_to_image, *_ = TASKS
    return text_to_image if input_image is None else image_to_image


def seed_of(text: str) -> int | str:
    """Read a seed from a flag: a number, or ``random``.

    Raises:
        typer.BadParameter: it is neither.
    """
    if text == "random":
        return text
    if not text.isdecimal():
        raise typer.BadParameter(
            f"{text!r} is neither a whole number nor 'random'", param_hint="--seed"
        )
    return int(text)


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """Read a JSON object from a flag.

    Raises:
        typer.BadParameter: it is not JSON, or not an object.
    """
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise typer.BadParameter('needs a JSON object such as {"a": 1}', param_hint=option)
    return value


def report(record: Record, warmups: int) -> list[str]:
    """Return the lines to print: OneDiff's four, then what they leave out."""
    outcome, reason = record["outcome"], record.get("reason")
    lines = []
    times = record.get("e2e_s") or []
    if times and outcome == "ok":
        lines.append(f"Warmup time: {sum(record.get('warmup_s') or []):.3f}s")
        lines += [RULE, f"Inference time: {statistics.median(times):.3f}s"]
        rates = [rate for rate in record.get("it_per_s") or [] if rate is not None]
        if rates:
            lines.append(f"Iterations per second: {statistics.median(rates):.3f}")
        lines += [_script_memory(record), RULE]
        lines += _what_it_leaves_out(record, times, warmups)
        lines += [*onediff.step_kind_lines(record), *_added(record)]
        lines += [*onediff.resolution_lines(record), *onediff.throughput_lines(record)]
    lines.append(f"Outcome: {outcome}" + (f": {reason}" if reason else ""))
    lines += [f"Warning: {warning}" for warning in record.get("warnings") or []]
    return lines


def _what_it_leaves_out(record: Record, times: list[float], warmups: int) -> list[str]:
    all_warmups = record.get("warmup_s") or []
    lines = [
        f"Measured calls: {', '.join(f'{time:.3f}' for time in times)} s",
        f"All warm-up calls: {', '.join(f'{time:.3f}' for time in all_warmups)} s",
    ]
    if 0 < warmups < len(all_warmups):
        # That script stops there, so this is the figure to hold against its own.
        many = f"{warmups} of them take" if warmups > 1 else "of them takes"
        lines.append(f"The first {many} {sum(all_warmups[:warmups]):.3f} s")
    requested, effective = record.get("steps_requested"), record.get("steps_effective")
    lines.append(
        f"Steps: {requested} requested, {effective} effective, {record.get('denoiser_calls')} "
        f"denoiser calls at batch {record.get('denoiser_batch')}"
    )
    for reading in record.get("memory") or []:
        amount = reading["bytes"]
        if reading["phase"] == "steady" and amount is not None:
            lines.append(f"Steady peak memory: {amount / GIB:.3f}GiB ({reading['meter']})")
    backend: Mapping[str, Any] = record.get("backend") or {}
    scope = ", ".join(backend.get("scope") or []) or "nothing"
    lines.append(f"Compiled: {scope} (backend {record['cell']['backend']['name']})")
    if record.get("synthetic_weights"):
        lines.append("Synthetic weights: times and memory are real, the picture is noise")
    return lines


def _added(record: Record) -> Iterator[str]:
    lora, net, own = record.get("lora"), record.get("controlnet"), record.get("custom_pipeline")
    if lora:
        how = "fused" if lora["fused"] else "unfused"
        yield f"LoRA: {lora['source']}, {how}, {lora['layers_changed']} layers changed"
    if net:
        pictures = ", ".join(record.get("control_images") or [])
        yield f"ControlNet: {net['source']}, steered by {pictures}"
    if own:
        yield f"Custom pipeline: {own['class']}"


def _script_memory(record: Record) -> str:
    """Return the line whose figure that script takes from torch: the peak since the start."""
    for meter, label in (
        ("torch.max_memory_allocated", "Max used CUDA memory "),
        ("rss", "Max used host memory (rss)"),
    ):
        found = [
            reading["bytes"]
            for reading in record.get("memory") or []
            if reading["meter"] == meter and reading["bytes"] is not None
        ]
        if found:
            return f"{label}: {max(found) / GIB:.3f}GiB"
    return "Max used memory: no meter on this machine; see bench doctor"


def _check_output(path: Path) -> None:
    hint = "--output-image"
    if path.suffix.lower() != ".png":
        raise typer.BadParameter(f"{path} must end in .png", param_hint=hint)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}", param_hint=hint)


def measured(
    config: Mapping[str, Any], out: Path | None, *, resume: bool = False
) -> tuple[list[Record], Path, int]:
    """Run a configuration; return its records, the run folder and the exit code."""
    from rich.console import Console

    from bench import api
    from bench.cli import progress
    from bench.store import RunFolder, StoreError

    ui = progress.display(Console(stderr=True))
    ui.after_interrupt = "The same command measures it anew."
    more: dict[str, Any] = {"resume": True} if resume else {}
    if resume:
        ui.after_interrupt = "The same command goes on from there."
    try:
        run = api.run(config, out, ui=ui, **more)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except StoreError as error:
        if not ui.started:
            raise
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        ui.close()
    records = list(RunFolder.open(run.path).raw_records())
    return records, run.path, run.summary.exit_code if run.summary else 0
