"""From a workload to the arguments of a pipeline call, by what the pipeline's signature takes."""

from __future__ import annotations

import inspect
import math
import random
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench import files
from bench.worker import control, families
from bench.worker.errors import SourceError, nearest, one_line

SEEN_PCT = 1.0  # of a picture; less than this is what rounding to whole pixels cuts off

_OWN = {  # arguments that a workload sets under a name of its own
    "prompt": "prompt",
    "image": "input_image",
    "height": "height",
    "width": "width",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "image_guidance_scale": "image_guidance",
    "strength": "strength",
    "negative_prompt": "negative_prompt",
    "num_images_per_prompt": "batch",
    "generator": "seed",
    "control_image": "control_image",
    "controlnet_conditioning_scale": "control_scale",
}
_HARNESS = (
    "output_type",
    "return_dict",
    "callback",
    "callback_steps",
    "callback_on_step_end",
    "callback_on_step_end_tensor_inputs",
)


@dataclass(frozen=True)
class Inputs:
    """What every call of a cell is given. Made once, outside all timing.

    Attributes:
        arguments: what does not change between calls.
        seeds: one for each picture of the batch.
        generator_device: where noise is drawn, or None if the pipeline takes no generator.
        step_callback: the parameter through which the pipeline reports steps:
            "callback_on_step_end", the older "callback", or None.
        expected_size: (width, height) of the pictures in pixels, if the pipeline obeys.
        control_argument: the argument that holds the pictures that steer a ControlNet, if any.
        warnings: what a reader of the record should know.
    """

    arguments: dict[str, Any]
    seeds: tuple[int, ...]
    generator_device: str | None
    step_callback: str | None
    expected_size: tuple[int, int]
    warnings: tuple[str, ...] = ()
    legacy_callback_steps: bool = False
    control_argument: str | None = None

    def call_kwargs(self, on_step: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Arguments for one call, with generators that start at the seeds."""
        import torch

        kwargs = {
            key: list(value) if isinstance(value, list) else value
            for key, value in self.arguments.items()
        }
        if self.generator_device is not None:
            generators = [
                torch.Generator(self.generator_device).manual_seed(seed) for seed in self.seeds
            ]
            kwargs["generator"] = generators if len(generators) > 1 else generators[0]
        if on_step is None or self.step_callback is None:
            return kwargs
        if self.step_callback == "callback_on_step_end":

            def at_step_end(_pipeline: Any, step: int, _timestep: Any, tensors: Any) -> Any:
                on_step(step)
                return tensors

            kwargs["callback_on_step_end"] = at_step_end
            # Tensors that nobody reads would be kept alive and, if returned, assigned back.
            kwargs["callback_on_step_end_tensor_inputs"] = []
        else:
            kwargs["callback"] = lambda step, _timestep, _latents: on_step(step)
            if self.legacy_callback_steps:
                kwargs["callback_steps"] = 1
        return kwargs


def prepare(
    pipeline: Any,
    workload: Mapping[str, Any],
    device: str,
    given: Sequence[Any] | None = None,
) -> Inputs:
    """Turn a workload into the arguments of ``pipeline``.

    The same picture comes out of a seed alone or in a batch: each picture has its own generator,
    prompt and input picture.
    """
    task = families.work_of(workload["task"])
    parameters = families.parameters(type(pipeline))
    family = families.claiming(type(pipeline).__name__, task.name)
    pictures: Sequence[Any] | None = given
    told: list[str] = []
    if given is None and task.takes_image:
        pictures, told = input_pictures(workload)
    make = family.arguments if family is not None else _arguments
    arguments = make(pipeline, workload, pictures)
    control_argument: str | None = None
    if workload.get("controlnet") is not None:
        steering, more = control_pictures(workload, pictures)
        told += more
        control_argument = "control_image" if "control_image" in parameters else "image"
        arguments[control_argument] = steering if len(steering) > 1 else steering[0]
        arguments["controlnet_conditioning_scale"] = float(workload.get("control_scale", 1.0))
    _check_extra(pipeline, workload["extra"], parameters)
    arguments.update(workload["extra"])
    if "output_type" in parameters:
        arguments["output_type"] = "pil"
    generator_device: str | None = None
    if "generator" in parameters:
        generator_device = "cpu" if workload["generator"] == "cpu" else device
    callback = next((n for n in ("callback_on_step_end", "callback") if n in parameters), None)
    return Inputs(
        arguments=arguments,
        seeds=tuple(workload["seed"] + index for index in range(workload["batch"])),
        generator_device=generator_device,
        step_callback=callback,
        expected_size=(workload["width"], workload["height"]),
        warnings=(*told, *_warnings(pipeline, workload, parameters, task.takes_image)),
        legacy_callback_steps="callback_steps" in parameters,
        control_argument=control_argument,
    )


def control_pictures(
    workload: Mapping[str, Any], pictures: Sequence[Any] | None
) -> tuple[list[Any], list[str]]:
    """The pictures that steer a batch, RGB of exactly the asked size, and what to know of them.

    A file is fitted as an input picture is. ``drawn:edges``, the default, are the outlines of the
    input picture, or of the scene that image-to-image would start from; ``drawn:ellipse`` is the
    one of OneDiff's script.
    """
    given = workload.get("control_image", control.DRAWN_EDGES)
    if given == control.DRAWN_ELLIPSE:
        drawn = control.ellipse(workload["width"], workload["height"])
        return [drawn] * workload["batch"], []
    if given == control.DRAWN_EDGES:
        if pictures is None:
            pictures, _ = input_pictures({**workload, "input_image": None})
        return [control.edges(picture) for picture in pictures], []
    picture, told = _picture_of_file({**workload, "input_image": given}, "control picture")
    return [picture] * workload["batch"], told


def input_pictures(workload: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """The input pictures of a batch as RGB of exactly the asked size, and what to know of them.

    A file is turned as its EXIF says, put on white where it is transparent, scaled with Lanczos to
    cover the asked size and cut at the centre, so its aspect is kept; every picture of the batch
    starts from it. Without a file, picture i is a scene drawn from seed + i, equal for every
    backend.
    """
    if workload["input_image"] is not None:
        picture, told = _picture_of_file(workload)
        return [picture] * workload["batch"], told
    from bench.worker import scenes

    drawn = [
        scenes.render(
            scenes.sample(random.Random(workload["seed"] + index)),
            workload["width"],
            workload["height"],
        )
        for index in range(workload["batch"])
    ]
    return drawn, []


def open_picture(file: Path, most_pixels: int | None = None, what: str = "input picture") -> Any:
    """Read a picture file as RGB: turned as its EXIF says, and on white where it is transparent.

    Of an animation it is the first frame.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        # Above half of the size that is refused, the library warns; the limit here is our own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            stream = files.open_file(file, files.IMAGE_BYTES)
            opened = Image.open(stream)
        with stream, opened:
            width, height = opened.size
            if most_pixels is not None and width * height > most_pixels:
                raise SourceError(
                    f"{what} {file} has {width}x{height} pixels, more than the "
                    f"{most_pixels:,} that are unpacked."
                )
            picture: Any = ImageOps.exif_transpose(opened)
            if picture.mode in _DEEP:
                picture = _eight_bits(picture, opened.format, what, file)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
            return picture.convert("RGB")
    except FileNotFoundError as error:
        raise SourceError(f"{what} {file} does not exist.") from error
    except UnidentifiedImageError as error:
        raise SourceError(f"{what} {file} is no picture that can be read.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(f"{what} {file} cannot be read: {one_line(error)}") from error


_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of one channel whose values ``convert("RGB")`` would clip at 255."""


def _eight_bits(picture: Any, made_as: str | None, what: str, file: Path) -> Any:
    """Scale an image of more than eight bits a value; refuse one whose range nothing tells."""
    import numpy as np
    from PIL import Image

    # Some versions of Pillow read 16-bit PNG files as 32-bit integers.
    most = {"F": 1, "I": 65535 if made_as == "PNG" else 0}.get(picture.mode, 65535)
    values = np.asarray(picture).astype(np.float64)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not 0 <= low <= high <= most:
        told = f": only 0 to {most} is known" if most else ""
        raise SourceError(
            f"{what} {file} has values from {low:g} to {high:g} in mode {picture.mode}, and "
            f"nothing says which is white{told}. Save it with 8 or 16 bits a channel."
        )
    return Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8))


def _picture_of_file(
    workload: Mapping[str, Any], what: str = "input picture"
) -> tuple[Any, list[str]]:
    from PIL import Image, ImageOps

    file = Path(workload["input_image"]).expanduser()
    picture = open_picture(file if file.is_absolute() else Path.cwd() / file, what=what)
    size = (workload["width"], workload["height"])
    return (
        ImageOps.fit(picture, size, Image.Resampling.LANCZOS),
        _cut(picture.size, size, what),
    )


def _cut(given: tuple[int, int], asked: tuple[int, int], what: str) -> list[str]:
    """Say how much of a picture, (width, height), is lost to another aspect, if it can be seen."""
    one, other = given[0] * asked[1], given[1] * asked[0]
    lost_pct = 100 * (1 - min(one, other) / max(one, other))
    if lost_pct < SEEN_PCT:
        return []
    sides = "at its left and right" if one > other else "at its top and bottom"
    told = (
        f"the {what} is {given[0]}x{given[1]}, and {asked[0]}x{asked[1]} was asked for: "
        f"{lost_pct:.0f} % of it, {sides}, was cut off so that nothing is squashed"
    )
    return [told]


def denoiser(pipeline: Any) -> tuple[str, Any]:
    """(attribute name, module) of what runs once a step: the UNet or transformer."""
    import torch

    for name in ("unet", "transformer", "prior", "decoder"):
        module = getattr(pipeline, name, None)
        if isinstance(module, torch.nn.Module):
            return name, module
    sizes = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in getattr(pipeline, "components", {}).items()
        if isinstance(module, torch.nn.Module)
        and not re.search(r"vae|vqgan|movq|encoder|safety|tokenizer|vocoder", name)
    }
    if not sizes:
        raise SourceError(f"{type(pipeline).__name__} has no module that denoises.")
    name = max(sizes, key=lambda each: sizes[each])
    return name, pipeline.components[name]


def size_multiple(pipeline: Any) -> int:
    """Height and width in pixels must be multiples of this for the pipeline to run."""
    scale = getattr(pipeline, "vae_scale_factor", None) or 8
    multiple = int(scale)
    processor = getattr(getattr(pipeline, "image_processor", None), "config", {})
    multiple = math.lcm(multiple, int(processor.get("vae_scale_factor") or 1))
    if "use_resolution_binning" in families.parameters(type(pipeline)):
        return multiple  # sizes of its own, scaled at the end
    patch = getattr(denoiser(pipeline)[1], "config", {}).get("patch_size")
    if isinstance(patch, int) and patch > 1:
        multiple = math.lcm(multiple, int(scale) * patch)
    return multiple


def _arguments(
    pipeline: Any, workload: Mapping[str, Any], pictures: Sequence[Any] | None
) -> dict[str, Any]:
    """Arguments of the usual names; what the pipeline does not take is left out."""
    parameters = families.parameters(type(pipeline))
    batch = workload["batch"]
    _check_size(pipeline, workload)

    def each(value: Any) -> Any:
        return value if batch == 1 else [value] * batch

    arguments: dict[str, Any] = {
        "prompt": each(workload["prompt"]),
        "num_inference_steps": workload["steps"],
    }
    if workload["negative_prompt"] is not None:
        arguments["negative_prompt"] = each(workload["negative_prompt"])
    if pictures is not None:
        arguments["image"] = pictures[0] if batch == 1 else list(pictures)
    for field, name in (
        ("height", "height"),
        ("width", "width"),
        ("guidance", "guidance_scale"),
        ("image_guidance", "image_guidance_scale"),
        ("strength", "strength"),
    ):
        if workload[field] is not None:
            arguments[name] = workload[field]
    strength = _strength(workload, parameters)
    if strength is not None and steps_left(type(pipeline), workload["steps"], strength) == 0:
        raise SourceError(
            f"strength {strength:g} × {workload['steps']} steps is less than one step, as "
            f"{type(pipeline).__name__} rounds: raise either."
        )
    return {name: value for name, value in arguments.items() if name in parameters}


def steps_left(pipeline_class: Any, steps: int, strength: float) -> int | None:
    """Return the steps that ``strength`` leaves, as the class's own code has it; None if unknown.

    Its ``get_timesteps`` only cuts the scheduler's list, so it is asked with a list of its own.
    """
    called = inspect.unwrap(pipeline_class.__call__)
    if "get_timesteps" not in getattr(getattr(called, "__code__", None), "co_names", ()):
        return None  # it has one and goes by another, as LCM does
    scheduler = SimpleNamespace(
        timesteps=list(range(steps)), order=1, set_begin_index=lambda _index: None
    )
    try:
        left, _ = pipeline_class.get_timesteps(
            SimpleNamespace(scheduler=scheduler), steps, strength, "cpu"
        )
        return len(left)
    except Exception:  # noqa: BLE001 - a class without it, or with one that needs more
        return None


def _strength(
    workload: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> float | None:
    if "strength" not in parameters:
        return None
    given = workload["strength"]
    value = parameters["strength"].default if given is None else given
    return float(value) if isinstance(value, (int, float)) else None


def _check_size(pipeline: Any, workload: Mapping[str, Any]) -> None:
    multiple = size_multiple(pipeline)
    for field in ("height", "width"):
        value = workload[field]
        if value % multiple:
            below, above = value - value % multiple, value - value % multiple + multiple
            near = f"{below} or {above}" if below else str(above)
            raise SourceError(
                f"{field} {value} is no multiple of {multiple}, as "
                f"{type(pipeline).__name__} needs: nearest {near}."
            )


def _check_extra(
    pipeline: Any, extra: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    for name in extra:
        if name in _OWN:
            raise SourceError(f"extra.{name} is set by the workload's own field {_OWN[name]}.")
        if name in _HARNESS:
            raise SourceError(
                f"extra.{name} is set by the harness, which reads steps and pictures."
            )
        if name not in parameters:
            free = [each for each in parameters if each not in _OWN and each not in _HARNESS]
            raise SourceError(
                f"extra.{name} is no parameter of {type(pipeline).__name__}{nearest(name, free)}."
            )


def _warnings(
    pipeline: Any,
    workload: Mapping[str, Any],
    parameters: Mapping[str, inspect.Parameter],
    takes_image: bool,
) -> list[str]:
    name = type(pipeline).__name__
    found = []
    if takes_image and "height" not in parameters:
        found.append(
            f"{name} takes no height and width: the input picture was made "
            f"{workload['width']}x{workload['height']}, which sets the size"
        )
    for field, parameter in (
        ("guidance", "guidance_scale"),
        ("image_guidance", "image_guidance_scale"),
        ("negative_prompt", "negative_prompt"),
    ):
        if workload[field] not in (None, "") and parameter not in parameters:
            found.append(f"{name} has no {parameter}: {field} was ignored")
    if "use_resolution_binning" in parameters and (
        workload["extra"].get("use_resolution_binning", True)
    ):
        found.append(
            f"{name} generates at the nearest of its own sizes and scales to the asked one; "
            "extra: {use_resolution_binning: false} turns that off"
        )
    if "generator" not in parameters:
        found.append(f"{name} takes no generator: the seed has no effect")
    found += _guidance_warnings(pipeline, workload, parameters)
    found += _cut_prompts(pipeline, workload, parameters)
    strength = _strength(workload, parameters)
    if strength is not None and strength < 1:
        steps = workload["steps"]
        left = steps_left(type(pipeline), steps, strength)
        found.append(
            f"strength {strength:g} runs a part of the {steps} steps only: "
            f"{strength:g} × {steps} = {steps * strength:g}, rounded as {name} does"
            + (f": {left}" if left is not None else "")
        )
    return found


def _cut_prompts(
    pipeline: Any, workload: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> list[str]:
    """Return a warning for each prompt that is longer than a text encoder takes."""
    found = []
    for place in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        tokenizer = getattr(pipeline, place, None)
        most = getattr(tokenizer, "model_max_length", None)
        if not callable(tokenizer) or not isinstance(most, int):
            continue
        asked = parameters.get("max_sequence_length")
        if asked is not None and "CLIP" not in type(tokenizer).__name__:
            own = workload["extra"].get("max_sequence_length", asked.default)
            most = own if isinstance(own, int) else most
        for field in ("prompt", "negative_prompt"):
            if not workload[field] or field not in parameters:
                continue
            try:
                ids = list(tokenizer(workload[field], verbose=False)["input_ids"])
            except Exception:  # noqa: BLE001, S112 - a tokenizer with rules of its own
                continue
            if len(ids) > most:
                # The end mark keeps the last place.
                first = tokenizer.decode([ids[most - 1]]).strip()
                found.append(
                    f"the {field} was cut: {place} takes {most} tokens and it has {len(ids)}, so "
                    f"nothing from {first!r} (token {most}) on reaches the image by it"
                )
    return found


def _guidance_warnings(
    pipeline: Any, workload: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> list[str]:
    if "guidance_scale" not in parameters:
        return []
    found = []

    def value(field: str, parameter: str) -> float | None:
        given = workload[field]
        given = parameters[parameter].default if given is None else given
        return float(given) if isinstance(given, (int, float)) else None

    guidance = value("guidance", "guidance_scale")
    pix2pix = "image_guidance_scale" in parameters
    classifier_free = pix2pix or hasattr(type(pipeline), "do_classifier_free_guidance")
    if guidance is None:
        return []
    if classifier_free and guidance <= 1:
        found.append(
            f"guidance {guidance:g} turns classifier-free guidance off: the denoiser runs at "
            f"{'a third' if pix2pix else 'half'} of the batch, and the negative prompt has "
            "no effect"
        )
    elif pix2pix:
        image_guidance = value("image_guidance", "image_guidance_scale")
        if image_guidance is not None and image_guidance < 1:
            found.append(
                f"image guidance {image_guidance:g} is below 1 and turns guidance off altogether"
            )
    if guidance > 2 and re.search("turbo|lightning", workload["model"], re.IGNORECASE):
        found.append(
            f"guidance {guidance:g} on a distilled model ({workload['model']}): these are meant "
            "for guidance of 0 to 2"
        )
    return found
