"""The flags of quick verbs: one table from a flag to the key of a configuration that it sets.

``docs/onediff-options.md`` has those of OneDiff's script ``benchmarks/text_to_image.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contract import TASKS

SOURCES = ("hub:", "path:", "embedded:", "synthetic:")
SCRIPT_COMPILERS: dict[str, dict[str, Any]] = {
    "compile": {"name": "torch-compile"},
    "compile-max-autotune": {"name": "torch-compile", "options": {"mode": "max-autotune"}},
}
"""That script's names for torch.compile: our backend, and the options that the name implies."""
SIDES = (1024, 512, 768, 256)
"""Heights and widths of its run of several resolutions, each with each, in its order."""


def model_source(model: str) -> str:
    """Return ``model`` with its source: an existing folder is ``path:``, ORG/NAME is ``hub:``."""
    if model.startswith(SOURCES):
        return model
    if Path(model).is_dir():
        return f"path:{model}"
    return f"hub:{model}" if model.count("/") == 1 else model


def infer_task(model: str, input_image: str | None = None) -> str:
    """Return the task that a model and an input image suggest."""
    from bench.tasks.folder.keys import is_edit

    try:
        if is_edit(model, Path.cwd()):
            return "edit"
    except KeyError:
        pass  # There is no such model, and the configuration says which are near.
    text_to_image, image_to_image, *_ = TASKS
    return text_to_image if input_image is None else image_to_image


def _lora(text: str) -> str:
    """Return ``hub:`` before ORG/NAME[/FILE.safetensors] unless there is such a file."""
    if text.startswith(("embedded:", "hub:", ".", "/", "~")) or Path(text).exists():
        return text
    slashes = text.count("/")
    on_hub = slashes >= 2 if text.endswith(".safetensors") else slashes == 1
    return f"hub:{text}" if on_hub else text


def _mapping(text: str) -> dict[str, Any]:
    """Return the mapping that JSON, or a JSON or YAML file, holds."""
    import json

    import yaml

    written = text
    if not text.lstrip().startswith("{"):
        try:
            written = Path(text).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{text} is neither a JSON object nor a file that can be read: {error}"
            ) from None
    try:
        value = json.loads(written) if written is text else yaml.safe_load(written)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"not JSON or YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(value, dict):
        raise ValueError('needs a mapping such as {"a": 1}')
    return value


def _step_counts(text: str) -> list[int]:
    try:
        if "-" in text:
            first, last = (int(each) for each in text.split("-"))
            return list(range(first, last + 1))
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{text} is neither a range such as 1-99 nor a list such as 5,10,20"
        ) from None


@dataclass(frozen=True)
class Flag:
    """What a flag sets; what its value may be is checked with the configuration.

    Attributes:
        help: a sentence.
        type: of what is typed.
        key: path in the configuration, without it ``workload.`` and the flag's name; ``workload``
            and ``backend`` are those of the matrix, and what is empty is left to the verb.
        read: from what is typed to the key's value; a ValueError becomes a usage error.
        names: how it is spelled, where not as in the table.
        more: further arguments of `typer.Option`.
    """

    help: str
    type: Any = str
    key: str | None = None
    read: Callable[[Any], Any] = lambda value: value
    names: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


def spelled(flag: str) -> list[str]:
    """Return how a flag of the table is spelled, ours first."""
    return FLAGS[flag].names.split() or [f"--{flag.replace('_', '-')}"]


MODEL = "ORG/NAME on the Hub or a diffusers folder; also hub:…, path:…, embedded:…, synthetic:…"
EACH = "Given several times, each image is drawn one."
JSON = {"metavar": "JSON"}

FLAGS: Mapping[str, Flag] = {
    "model": Flag(f"{MODEL}.", read=model_source),
    "models": Flag(
        f"{MODEL}. {EACH}  [default: embedded:sdxl]",
        list[str],
        read=lambda models: [model_source(each) for each in models],
        names="--model",
    ),
    "task": Flag(
        "text-to-image, image-to-image or edit.  [default: edit if the model is an "
        "instruct-pix2pix, image-to-image if there is an input image, else text-to-image]",
    ),
    "prompt": Flag("What to draw; for edits, the instruction."),
    "prompts": Flag(
        f"What to draw; for edits, the instruction. {EACH}", list[str], names="--prompt"
    ),
    "negative_prompt": Flag("What to keep out."),
    "steps": Flag("Denoising steps.", int),
    "size": Flag("512 or 768x1024, pixels.  [default: the model's]"),
    "height": Flag("Pixels.  [default: the model's]", int),
    "width": Flag("Pixels.  [default: the model's]", int),
    "batch": Flag("Images for each call.", int),
    "iterations": Flag("Batches; image i of all of them has seed + i.  [default: 1]", int),
    "one_by_one": Flag(
        "Images of a batch go through the models one at a time: the same bytes in any batch.", bool
    ),
    "seed": Flag(
        "Seed of the first image; random draws one and reports it.",
        read=lambda text: int(text) if text.isdecimal() else text,
    ),
    "scheduler": Flag("A diffusers class; none keeps the model's own."),
    "guidance": Flag("Guidance scale.  [default: the pipeline's]", float),
    "strength": Flag("How much of its image image-to-image replaces, up to 1.", float),
    "input_image": Flag("Image to start from.", Path, read=str),
    "variant": Flag("Variant of the weight files, such as fp16."),
    "dtype": Flag(
        "float16, bfloat16 or float32.  [default: float32 for embedded models, folders and with "
        "--device cpu, else float16]",
    ),
    "backend": Flag("none, or one that bench list backends shows.", key="backend.name"),
    "device": Flag("auto, cpu, cuda, cuda:N or mps.", key="device"),
    "warmups": Flag(
        "Warm-up calls at least; two are always made, and more until their times are stable. "
        "'Warmup time' sums them all.",
        int,
        "protocol.warmup",
        lambda n: {"min_calls": max(2, n), "max_calls": max(10, n)},
        more={"min": 0},
    ),
    "calls": Flag(
        "Measured calls.",
        int,
        "protocol.calls",
        lambda number: {"min_calls": number, "max_calls": number},
        more={"min": 1},
    ),
    "allow_remote_code": Flag(
        "Run Python that comes with model or pipeline.", bool, "allow_remote_code"
    ),
    # chains
    "samples": Flag("Images of the whole chain.", int),
    "max_batch": Flag("Images of a round.", int),
    "start_from": Flag("first: later rounds start from the first images; previous: from the last."),
    # folders
    "resize": Flag("fit, or pad: all images at one shape."),
    "enlarge": Flag("Also enlarge images that are smaller.", bool),
    "draw_seed": Flag("Of the draws of prompts and models.", int),
    # OneDiff's script
    "script_backend": Flag(
        "none, or one that bench list backends shows; also that script's compile and "
        "compile-max-autotune. Its own default, nexfort, is not among those that ship here.",
        key="backend",
        read=lambda name: SCRIPT_COMPILERS.get(name, {"name": name}),
        names="--backend --compiler",
    ),
    "compiler_config": Flag(
        "Options of the backend: mode, dynamic, …; or a JSON or YAML file.",
        key="backend.options",
        read=_mapping,
        more=JSON,
    ),
    "lora": Flag(
        ".safetensors file, embedded:NAME or ORG/NAME[/FILE] on the Hub.",
        key="workload.lora.path",
        read=_lora,
    ),
    "lora_scale": Flag("Strength of the LoRA.  [default: 1]", float, "workload.lora.scale"),
    "lora_fused": Flag(
        "Into the weights, or run beside them.  [default: fused]",
        bool,
        "workload.lora.fused",
        names="--lora-fused/--lora-unfused",
    ),
    "controlnet": Flag("ORG/NAME on the Hub, a folder or embedded:NAME.", read=model_source),
    "control_image": Flag(
        "Image file, drawn:edges or drawn:ellipse.  [default: drawn:ellipse, as there]"
    ),
    "control_scale": Flag("How strongly it steers.  [default: 1]", float),
    "custom_pipeline": Flag(
        "Python file with a pipeline class, or a folder with pipeline.py.", Path, read=str
    ),
    "extra_call_kwargs": Flag(
        "Further arguments of the pipeline call.", key="workload.extra", read=_mapping, more=JSON
    ),
    "deepcache": Flag("Reuse deep features between steps: the backend deepcache.", bool, ""),
    **{
        flag: Flag(text, int, f"backend.options.{flag}")
        for flag, text in {
            "cache_interval": "Every how many steps the whole UNet runs.  [default: 3]",
            "cache_layer_id": "Layer of the block at which it is cut.  [default: 0]",
            "cache_block_id": "Block at which it is cut.  [default: 0]",
        }.items()
    },
    "quantize": Flag("Eight-bit weights: by torchao, or nexfort's own.", bool, ""),
    "quantize_config": Flag(
        '{"quant_type": "int8_dynamic"}, or a JSON or YAML file.',
        key="",
        read=_mapping,
        more=JSON,
    ),
    "quant_submodules_config_path": Flag(
        "JSON or YAML file: layers by name or pattern, each with its type or null.",
        key="",
        read=_mapping,
    ),
    "run_multiple_resolutions": Flag(
        "Measure other sizes too: 1024, 512, 768 and 256, each with each.",
        bool,
        "sweep.size",
        lambda _: [f"{width}x{height}" for height in SIDES for width in SIDES],
    ),
    "resolutions": Flag(
        "Measure these sizes too, such as 256,512x768 (width x height).",
        key="sweep.size",
        read=lambda text: [each.strip() for each in text.split(",") if each.strip()],
    ),
    "throughput": Flag(
        "Measure step counts from 1 to 99 too, and fit a line.",
        bool,
        "sweep.steps",
        lambda _: list(range(1, 100)),
    ),
    "throughput_steps": Flag(
        "Measure these step counts too: 1-99 or 5,10,20.", key="sweep.steps", read=_step_counts
    ),
    "sweep_repeats": Flag(
        "Measured calls of each size and step count.  [default: 1]",
        int,
        "sweep.repeats",
        more={"min": 1},
    ),
}
