"""From a workload to the arguments of a pipeline call, by what the pipeline's signature takes.

A *family* knows how pipelines of a kind do a task. Those built in, one a task, drive any
diffusers pipeline whose ``__call__`` has the usual names, so most models need no code. A pipeline
with habits of its own gets a family through the entry-point group ``bench.tasks``::

    # pyproject.toml of your package
    [project.entry-points."bench.tasks"]
    my-family = "my_package:MyFamily"

    # my_package.py
    class MyFamily:
        name = "my-family"

        def claims(self, class_name, task):
            return class_name == "MyPipeline" and task == "text-to-image"

        def pipeline_class(self, class_name, task, denoiser_channels):
            return MyPipeline  # its from_pretrained() is called on the model's folder

        def arguments(self, pipeline, workload, pictures):
            return {"text": [workload["prompt"]] * workload["batch"], "size": workload["width"]}

Families of other packages are asked before the built-in ones.
"""

from __future__ import annotations

import functools
import inspect
import math
import random
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bench.worker import control
from bench.worker.sources import SourceError, nearest, one_line

ENTRY_POINTS = "bench.tasks"
SEEN_PCT = 1.0  # of a picture; less than this is what rounding to whole pixels cuts off

_VIDEO = ("num_frames", "video", "video_length", "frames", "num_video_frames")
_AUDIO = ("audio_length_in_s", "audio_end_in_s", "audio_duration", "audio")
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


@runtime_checkable
class Family(Protocol):
    """How one kind of pipeline does a task.

    Attributes:
        name: the entry point's name.
    """

    name: str

    def claims(self, class_name: str, task: str) -> bool:
        """Whether this family does ``task`` with ``class_name``.

        ``class_name`` is what a folder's ``model_index.json`` names, or the loaded class.
        """
        ...

    def pipeline_class(self, class_name: str, task: str, denoiser_channels: int | None) -> Any:
        """The class to load: it has ``from_pretrained``.

        ``denoiser_channels`` are the input channels of the UNet or transformer, where known.

        Raises SourceError with the reason if the task cannot be done.
        """
        ...

    def arguments(
        self, pipeline: Any, workload: Mapping[str, Any], pictures: Sequence[Any] | None
    ) -> dict[str, Any]:
        """The arguments of one call, without generators, callback and output type.

        ``pictures`` are PIL pictures of the asked size, one for each picture of the batch; None for
        text-to-image. Raises SourceError.
        """
        ...


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
        """Arguments for one call, with generators that start at the seeds.

        Args:
            on_step: called with the step's index, from 0, after each step; ignored when
                ``step_callback`` is None.
        """
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


def prepare_inputs(
    pipeline: Any,
    workload: Mapping[str, Any],
    device: str,
    given: Sequence[Any] | None = None,
) -> Inputs:
    """Turn a workload into the arguments of ``pipeline``.

    The same picture comes out of a seed alone or in a batch: each picture has its own generator,
    prompt and input picture.

    Args:
        pipeline: as ``bench.worker.sources.load`` returned it.
        workload: a ``bench.contract.Workload``.
        device: where "device" generators live.
        given: input pictures of the asked size, instead of those that the workload names.

    Raises:
        SourceError: the workload asks for something that this pipeline cannot do.
    """
    task = workload["task"]
    parameters = _parameters(type(pipeline))
    family = family_for(type(pipeline).__name__, task)
    pictures: Sequence[Any] | None = given
    told: list[str] = []
    if given is None and task != "text-to-image":
        pictures, told = input_pictures(workload)
    arguments = family.arguments(pipeline, workload, pictures)
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
        warnings=(*told, *_warnings(pipeline, workload, parameters)),
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

    Raises:
        SourceError: the file is missing or holds no readable picture.
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

    Raises:
        SourceError: the file is missing or holds no readable picture.
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

    Args:
        most_pixels: a picture of more is not unpacked.
        what: what messages call it.

    Raises:
        SourceError: the file is missing or holds no readable picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        # Above half of the size that is refused, the library warns; the limit here is our own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file)
        with opened:
            width, height = opened.size
            if most_pixels is not None and width * height > most_pixels:
                raise SourceError(
                    f"{what} {file} has {width}x{height} pixels, more than the "
                    f"{most_pixels:,} that are unpacked."
                )
            picture: Any = ImageOps.exif_transpose(opened)
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
    """(attribute name, module) of what runs once a step: the UNet or transformer.

    Raises:
        SourceError: the pipeline has no module that could be it.
    """
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


def vae(pipeline: Any) -> Any | None:
    """The module that turns latents into pictures, None if the pipeline has none."""
    for name in ("vae", "movq", "vqgan"):
        module = getattr(pipeline, name, None)
        if module is not None:
            return module
    return None


def size_multiple(pipeline: Any) -> int:
    """Height and width in pixels must be multiples of this for the pipeline to run."""
    scale = getattr(pipeline, "vae_scale_factor", None) or 8
    multiple = int(scale)
    processor = getattr(getattr(pipeline, "image_processor", None), "config", {})
    multiple = math.lcm(multiple, int(processor.get("vae_scale_factor") or 1))
    if "use_resolution_binning" in _parameters(type(pipeline)):
        return multiple  # sizes of its own, scaled at the end
    patch = getattr(denoiser(pipeline)[1], "config", {}).get("patch_size")
    if isinstance(patch, int) and patch > 1:
        multiple = math.lcm(multiple, int(scale) * patch)
    return multiple


def family_for(class_name: str, task: str) -> Family:
    """The first family that claims a class, those of other packages before the built-in ones.

    Raises:
        SourceError: nobody does this task.
    """
    for family in _families():
        if family.claims(class_name, task):
            return family
    raise SourceError(f"no family of pipelines does task {task!r} with {class_name}.")


def check_class(pipeline_class: Any, task: str) -> None:
    """Raise SourceError with the reason if ``pipeline_class`` cannot do ``task``."""
    if task == Chain.name:
        Chain().pipeline_class(pipeline_class.__name__, task, None)
        return
    reason = _why_not(pipeline_class, task)
    if reason is not None:
        raise SourceError(f"{pipeline_class.__name__} cannot do {task}: {reason}.")


class TextToImage:
    """Any class that takes a prompt, a height and a width and returns pictures."""

    name = "text-to-image"

    def claims(self, class_name: str, task: str) -> bool:
        return task == self.name

    def pipeline_class(self, class_name: str, task: str, denoiser_channels: int | None) -> Any:
        found = _diffusers_class(class_name)
        check_class(found, task)
        return found

    def arguments(
        self, pipeline: Any, workload: Mapping[str, Any], pictures: Sequence[Any] | None
    ) -> dict[str, Any]:
        return _arguments(pipeline, workload, pictures)


class ImageToImage:
    """Any class that takes a prompt, a picture and a strength."""

    name = "image-to-image"

    def claims(self, class_name: str, task: str) -> bool:
        return task == self.name

    def pipeline_class(self, class_name: str, task: str, denoiser_channels: int | None) -> Any:
        declared = _diffusers_class(class_name)
        if _why_not(declared, task) is None:
            return declared
        sibling = _sibling(class_name, "Img2Img") or _auto_sibling(class_name)
        if sibling is None:
            check_class(declared, task)
        check_class(sibling, task)
        return sibling

    def arguments(
        self, pipeline: Any, workload: Mapping[str, Any], pictures: Sequence[Any] | None
    ) -> dict[str, Any]:
        return _arguments(pipeline, workload, pictures)


class Edit:
    """Classes that change a picture as a sentence says, InstructPix2Pix first."""

    name = "edit"

    def claims(self, class_name: str, task: str) -> bool:
        return task == self.name

    def pipeline_class(self, class_name: str, task: str, denoiser_channels: int | None) -> Any:
        declared = _diffusers_class(class_name)
        if _why_not(declared, task) is None:
            return declared
        sibling = _sibling(class_name, "InstructPix2Pix")
        if sibling is None:
            check_class(declared, task)
        if denoiser_channels != 8:
            raise SourceError(
                f"this {class_name} cannot do edit: instruct-pix2pix needs a UNet of 8 input "
                f"channels, and this one has {denoiser_channels}."
            )
        return sibling

    def arguments(
        self, pipeline: Any, workload: Mapping[str, Any], pictures: Sequence[Any] | None
    ) -> dict[str, Any]:
        return _arguments(pipeline, workload, pictures)


class Chain:
    """Classes that do text-to-image and have a relative that does image-to-image."""

    name = "chain"

    def claims(self, class_name: str, task: str) -> bool:
        return task == self.name

    def pipeline_class(self, class_name: str, task: str, denoiser_channels: int | None) -> Any:
        first = family_for(class_name, "text-to-image")
        found = first.pipeline_class(class_name, "text-to-image", denoiser_channels)
        try:
            relative(class_name, denoiser_channels)
        except SourceError as error:
            raise SourceError(
                f"{class_name} cannot do a chain, whose later rounds are image-to-image: {error}"
            ) from error
        return found

    def arguments(
        self, pipeline: Any, workload: Mapping[str, Any], pictures: Sequence[Any] | None
    ) -> dict[str, Any]:
        task = "text-to-image" if pictures is None else "image-to-image"
        return family_for(type(pipeline).__name__, task).arguments(pipeline, workload, pictures)


def relative(class_name: str, denoiser_channels: int | None) -> Any:
    """The class that does image-to-image with the parts of a text-to-image pipeline.

    Raises:
        SourceError: there is none.
    """
    family = family_for(class_name, "image-to-image")
    return family.pipeline_class(class_name, "image-to-image", denoiser_channels)


_BUILT_IN: tuple[type[Any], ...] = (TextToImage, ImageToImage, Edit, Chain)


@functools.lru_cache(maxsize=1)
def _families() -> tuple[Family, ...]:
    """Families in the order in which they are asked.

    The built-in ones are entry points too, but a worker may run from a source folder under an
    interpreter in which this package is not installed.
    """
    own = {family.name for family in _BUILT_IN}
    found: list[Family] = []
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if entry.name in own:
            continue
        try:
            found.append(entry.load()())
        except Exception as error:
            raise SourceError(
                f"the pipeline family {entry.name!r} ({entry.value}) cannot be loaded: "
                f"{one_line(error)}"
            ) from error
    return (*found, *(family() for family in _BUILT_IN))


def _parameters(pipeline_class: Any) -> dict[str, inspect.Parameter]:
    """Named parameters of a pipeline's call; ``**kwargs`` would swallow anything."""
    return {
        name: parameter
        for name, parameter in inspect.signature(pipeline_class.__call__).parameters.items()
        if name != "self"
        and parameter.kind
        in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }


def _diffusers_class(class_name: str) -> Any:
    import diffusers

    pipelines = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    found = getattr(diffusers, class_name, None) if class_name in pipelines else None
    if found is None:
        raise SourceError(
            f"diffusers {diffusers.__version__} has no pipeline {class_name}"
            f"{nearest(class_name, pipelines)}, and no installed package brings it "
            f"(entry-point group {ENTRY_POINTS})."
        )
    return found


def _sibling(class_name: str, infix: str) -> Any | None:
    """Relatives are named alike in diffusers: ``XPipeline`` and ``XImg2ImgPipeline``."""
    import diffusers

    return getattr(diffusers, re.sub(r"Pipeline$", f"{infix}Pipeline", class_name), None)


def _auto_sibling(class_name: str) -> Any | None:
    """The image-to-image class of the model kind that diffusers files ``class_name`` under."""
    from diffusers.pipelines import auto_pipeline

    for kind, found in auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.items():
        if found.__name__ == class_name:
            return auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING.get(kind)
    return None


def _why_not(pipeline_class: Any, task: str) -> str | None:
    parameters = _parameters(pipeline_class)
    name = pipeline_class.__name__
    if any(each in parameters for each in _VIDEO):
        return "it makes video"
    if any(each in parameters for each in _AUDIO):
        return "it makes sound"
    if "prompt" not in parameters:
        return "it takes no prompt"
    if "Prior" in name:
        return "it makes embeddings for another pipeline, not pictures"
    if "Control" in name or "Adapter" in name:
        return "it needs a control picture, which a workload does not have"
    if "Inpaint" in name or "mask_image" in parameters:
        return "it needs a mask, which a workload does not have"
    missing = [
        each
        for each, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and each not in ("prompt", "image")
    ]
    if missing:
        return f"its call needs {', '.join(missing)}, which a workload does not have"
    if task == "text-to-image":
        if not {"height", "width"} <= parameters.keys():
            return "it takes no height and width, or no picture comes out of it"
        if "strength" in parameters:
            return "it starts from a picture; task: image-to-image fits it"
        if "image" in parameters and not _is_text_to_image(name):
            return "it starts from a picture; task: edit may fit it"
        return None
    if "image" not in parameters:
        return "it takes no input picture"
    if task == "image-to-image" and "strength" not in parameters:
        return "it has no strength; task: edit may fit it"
    instructed = "image_guidance_scale" in parameters or re.search("Edit|Kontext", name)
    if task == "edit" and not instructed:
        return "it is no pipeline that edits by instruction (such as instruct-pix2pix)"
    return None


def _is_text_to_image(class_name: str) -> bool:
    """Whether diffusers counts a class that may take a picture among those that need none."""
    from diffusers.pipelines import auto_pipeline

    known = auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
    return class_name in {each.__name__ for each in known}


def _arguments(
    pipeline: Any, workload: Mapping[str, Any], pictures: Sequence[Any] | None
) -> dict[str, Any]:
    """Arguments of the usual names; what the pipeline does not take is left out."""
    parameters = _parameters(type(pipeline))
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
    if strength is not None and workload["steps"] * strength < 1:
        raise SourceError(
            f"strength {strength:g} × {workload['steps']} steps is less than one step: "
            "raise either."
        )
    return {name: value for name, value in arguments.items() if name in parameters}


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
    pipeline: Any, workload: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> list[str]:
    name = type(pipeline).__name__
    found = []
    if workload["task"] != "text-to-image" and "height" not in parameters:
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
    strength = _strength(workload, parameters)
    if strength is not None and strength < 1:
        steps = workload["steps"]
        found.append(
            f"strength {strength:g} runs a part of the {steps} steps only: "
            f"{strength:g} × {steps} = {steps * strength:g}, rounded as {name} does"
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
