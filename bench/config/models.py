"""The shape of a configuration: every key, its type, its range and what it means.

Checks that need one value only are here; those that need a whole cell are in ``bench.config.plan``.
A key that was left out is absent from ``model_fields_set``; its Python default means nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import GenericAlias
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    create_model,
)
from pydantic_core import PydanticCustomError

from bench import modes
from bench.config import additions, catalogue
from bench.config.errors import did_you_mean, nearest, shown
from bench.config.sizes import Asked
from bench.contract import TASKS
from bench.environments import CURRENT, EnvironmentProblem, declarations

ABSENT = cast(Any, None)
"""Default of keys that may be left out; which were given is in ``model_fields_set``."""

MAX_SIDE = 16384
MAX_STEPS = 10_000
MAX_BATCH = 1024
MAX_SAMPLES = 10_000
MAX_SEED = 2**32 - 1
RANDOM = "random"
"""Written for a seed, has one drawn when the plan is made; the plan keeps it."""
MAX_THREADS = 4096
MAX_CALLS = 100_000
MAX_ROUNDS = 1000
MAX_REPEATS = 1000
MAX_POINTS = 100
MIN_SWEEP_STEPS = 3
MAX_SECONDS = 30 * 24 * 3600.0
MIN_MEMORY_BYTES = 64 * 1024**2
MIN_PERIOD_S, MAX_PERIOD_S = 0.01, 60.0
MIN_PASS_S, MAX_PASS_S = 0.1, 3600.0

DURATION_PATTERN = r"^\s*(\d+(\.\d+)?\s*(ms|s|m|h|d)\s*)+$"
MEMORY_PATTERN = r"^\s*\d+(\.\d+)?\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*$"
DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:(0|[1-9]\d{0,3}))?)$"
SIZE_PATTERN = r"^[1-9]\d*(x[1-9]\d*)?$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MODEL_PATTERN = (
    r"^(hub:[^\s/@:]+/[^\s/@:]+(@[^\s@]+)?|path:.*\S.*|embedded:("
    + "|".join(catalogue.EMBEDDED)
    + ")|synthetic:("
    + "|".join(catalogue.SYNTHETIC)
    + "))$"
)
SCHEDULER_PATTERN = r"^([A-Z][A-Za-z0-9]*Scheduler|none)$"


def bad(message: str) -> PydanticCustomError:
    """Return the error whose message reaches the user as it is."""
    return PydanticCustomError("bench", "{message}", {"message": message})


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _seconds(value: object) -> float:
    if _number(value):
        seconds = float(cast(float, value))
    elif isinstance(value, str) and re.fullmatch(DURATION_PATTERN, value):
        unit = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value)
        seconds = sum(float(number) * unit[name] for number, name in parts)
    else:
        raise bad(f"{shown(value)} is no duration; write one such as 90s, 10m or 1h30m")
    if not 0 < seconds <= MAX_SECONDS:
        raise bad(f"{shown(value)} must be more than 0 and at most 30 days")
    return seconds


def _period(value: float) -> float:
    if not MIN_PERIOD_S <= value <= MAX_PERIOD_S:
        raise bad(f"a period must be from 10ms to 1m, not {value:g} s")
    return value


def _pass_time(value: float) -> float:
    if not MIN_PASS_S <= value <= MAX_PASS_S:
        raise bad(f"must be from 100ms to 1h, not {value:g} s")
    return value


def _memory(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(MEMORY_PATTERN, value):
        number, unit = cast(
            "re.Match[str]", re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(\w+)\s*", value)
        ).groups()
        power = "BKMGT".index(unit[0].upper())
        amount = int(float(number) * (1024 if "i" in unit else 1000) ** power)
    else:
        raise bad(f"{shown(value)} is no amount of memory; write one such as 8GiB or 500MB")
    if not MIN_MEMORY_BYTES <= amount < 2**63:
        raise bad(f"{shown(value)} is out of range; at least {MIN_MEMORY_BYTES // 1024**2}MiB")
    return amount


def _asked_side(value: object, what: str) -> int:
    """Return a side that need be no multiple of anything."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad(f"{what} must be a whole number of pixels, not {shown(value)}")
    if not 8 <= value <= MAX_SIDE:
        raise bad(f"{what} must be from 8 to {MAX_SIDE} pixels, not {shown(value)}")
    return value


def _side(value: object, what: str) -> int:
    value = _asked_side(value, what)
    if value % 8:
        lower, upper = value - value % 8, value - value % 8 + 8
        near = f"{lower} or {upper}" if lower else str(upper)
        raise bad(f"{what} {value} is no multiple of 8; the nearest are {near}")
    return value


def _asked_size(value: object) -> tuple[Asked, Asked]:
    height, width = _size(value, _asked_side)
    return Asked(height), Asked(width)


def _size(value: object, side_of: Callable[[object, str], int] = _side) -> tuple[int, int]:
    """Return (height, width)."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", value)
        if match is None and re.fullmatch(r"\s*\d{1,6}\s*", value):
            return _size(int(value), side_of)
        if match is None:
            raise bad(f"size {shown(value)} must be 512, 768x1024 (width x height) or a mapping")
        return side_of(int(match[2]), "height"), side_of(int(match[1]), "width")
    if isinstance(value, dict):
        unknown = [key for key in value if key not in ("height", "width")]
        if unknown:
            hint = did_you_mean(unknown[0], ("height", "width"))
            raise bad(f"unknown key {shown(unknown[0])} in size. {hint}")
        if len(value) < 2:
            raise bad("size needs both height and width")
        return side_of(value["height"], "height"), side_of(value["width"], "width")
    side = side_of(value, "size")
    return side, side


def _model(value: str) -> str:
    source, colon, name = value.partition(":")
    if not colon or source not in catalogue.SOURCES:
        if not colon and value.count("/") == 1 and not value.startswith((".", "/", "~")):
            raise bad(f"model {shown(value)} has no source. Did you mean 'hub:{value}'?")
        if not colon and "/" in value:
            raise bad(f"model {shown(value)} has no source. Did you mean 'path:{value}'?")
        if not colon and value in catalogue.EMBEDDED:
            raise bad(f"model {shown(value)} has no source. Did you mean 'embedded:{value}'?")
        forms = "hub:ORG/NAME, path:DIR, embedded:NAME or synthetic:ARCH"
        near = nearest(source, catalogue.SOURCES)
        hint = f" Did you mean '{near}:{name}'?" if near and colon else ""
        raise bad(f"model {shown(value)} must be {forms}.{hint}")
    if source in catalogue.BUILT_IN_MODELS:
        known = list(catalogue.BUILT_IN_MODELS[source])
        if name not in known:
            raise bad(f"unknown {source} model {shown(name)}. {did_you_mean(name, known)}")
    elif not re.fullmatch(MODEL_PATTERN, value):
        form = "hub:ORG/NAME or hub:ORG/NAME@REVISION" if source == "hub" else "path:DIR"
        raise bad(f"model {shown(value)} must be {form}")
    return value


def _scheduler(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
        return None
    if not isinstance(value, str):
        raise bad(f"scheduler must be the name of a diffusers class or null, not {shown(value)}")
    if value in catalogue.SCHEDULERS:
        return value
    near = _nearest_scheduler(value)
    if near is not None:
        raise bad(f"unknown scheduler {shown(value)}. Did you mean '{near}'?")
    if not re.fullmatch(SCHEDULER_PATTERN, value):
        raise bad(
            f"scheduler {shown(value)} must be the name of a diffusers class, such as "
            "EulerAncestralDiscreteScheduler, or null for the model's own"
        )
    return value


def _nearest_scheduler(value: str) -> str | None:
    """Return the scheduler that is meant; the word that all their names end in counts for nothing.

    People leave out what follows the method's name, so a name that begins alike is nearer than one
    with as many letters in common.
    """
    stems = {name.removesuffix("Scheduler").lower(): name for name in catalogue.SCHEDULERS}
    asked = re.sub(r"[^a-z0-9]|schedul\w*$", "", value.lower())
    if len(asked) >= 3:
        longer = [stem for stem in stems if stem.startswith(asked)]
        if longer:
            usual = ("discrete", "multistep")
            return stems[min(longer, key=lambda stem: (not stem.endswith(usual), len(stem)))]
    near = nearest(asked, stems)
    return None if near is None else stems[near]


def _device(value: str) -> str:
    if not re.fullmatch(DEVICE_PATTERN, value):
        # the letters of "gpu" are nearest to "cpu", its meaning is not
        near = nearest(
            value.lower().replace("gpu", "cuda"), ("auto", "cpu", "cuda", "cuda:0", "mps")
        )
        hint = f" Did you mean '{near}'?" if near else ""
        raise bad(f"unknown device {shown(value)}; one of auto, cpu, cuda, cuda:N, mps.{hint}")
    return value


def _devices(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return _device(value)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise bad(f"device must be a name or a list of GPUs, not {shown(value)}")
    if not value:
        raise bad("device is an empty list")
    for item in value:
        if not re.fullmatch(r"cuda:(0|[1-9]\d{0,3})", item):
            raise bad(
                f"a list of devices shares the cells out between GPUs, so each is cuda:N, not "
                f"{shown(item)}; to compare devices, make 'device' an axis of the matrix"
            )
        if value.count(item) > 1:
            raise bad(f"device {shown(item)} is listed twice")
    return tuple(value)


def _seed(value: object) -> int | str:
    if value == RANDOM:
        return RANDOM
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad(f"'seed' must be a whole number or 'random', not {shown(value)}")
    if not 0 <= value <= MAX_SEED:
        bound = "at least 0" if value < 0 else f"at most {MAX_SEED}"
        raise bad(f"'seed' must be {bound}, not {shown(value)}")
    return value


def _choices(value: list[str], what: str) -> list[str]:
    for at, each in enumerate(value):
        if each in value[:at]:
            raise bad(f"{what} has {shown(each)} twice, which would be drawn twice as often")
    return value


def _extra(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if key in catalogue.RESERVED_CALL_ARGUMENTS:
            field = catalogue.RESERVED_CALL_ARGUMENTS[key]
            instead = f"use the field '{field}'" if field else "it is the harness's own"
            raise bad(f"extra cannot set {shown(key)}: {instead}")
    if not _finite(value):
        raise bad("extra holds a number that is not finite")
    return value


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return True


def _modes(value: object, what: str, known: tuple[str, ...]) -> str:
    """Return modes as ``a+b``; they may be a list, and null or an empty list is none."""
    listed = [] if value is None else value.split("+") if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise bad(f"{what} must be a mode or a list of modes, not {shown(value)}")
    asked = [item.strip() for item in listed]
    for name in asked:
        if name not in (*known, modes.NONE):
            hint = did_you_mean(name, (*known, modes.NONE))
            raise bad(f"unknown {what} mode {shown(name)}. {hint}")
    try:
        text = modes.joined(asked, known)
    except ValueError as error:
        raise bad(f"{what} {shown(value)}: {error}") from None
    against = modes.contradiction(text) if what == "memory" else None
    if against:
        raise bad(f"memory {shown(text)}: {against}")
    return text


def _modes_schema(known: tuple[str, ...]) -> WithJsonSchema:
    one = "|".join(known)
    return WithJsonSchema(
        {
            "anyOf": [
                {"enum": [modes.NONE, None, *known]},
                {"type": "string", "pattern": rf"^\s*({one})(\s*\+\s*({one}))*\s*$"},
                {"type": "array", "uniqueItems": True, "items": {"enum": [modes.NONE, *known]}},
            ]
        }
    )


def _backend_options(value: object) -> object:
    """Read options that are written as OneDiff's users write them: a JSON object in a string."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value, parse_constant=_no_constant)
    except ValueError as error:
        raise bad(f"options {shown(value)} are no JSON: {error}") from None
    if not isinstance(read, dict):
        raise bad(f'options {shown(value)} must be a JSON object, such as \'{{"mode": "O2"}}\'')
    return read


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _environments() -> list[str]:
    try:
        return [CURRENT, *declarations()]
    except EnvironmentProblem as error:
        raise bad(str(error)) from None


def _points(value: list[Any] | None, what: str, least: int) -> list[Any] | None:
    """Refuse a sweep that is too short to say anything, or that says a point twice."""
    if value is None:
        return None
    for at, point in enumerate(value):
        if point in value[:at]:
            text = f"{point[1]}x{point[0]}" if isinstance(point, tuple) else shown(point)
            raise bad(f"{what} has {text} twice; 'repeats' says how often each is measured")
    if not least <= len(value) <= MAX_POINTS:
        raise bad(f"{what} needs from {least} to {MAX_POINTS} different values, not {len(value)}")
    return value


def _name_to_mapping(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _preset_to_mapping(value: object) -> object:
    return {"preset": value} if isinstance(value, str) else value


def _switch_to_mapping(value: object) -> object:
    """Read ``true`` as the mapping with every default, and ``false`` as none."""
    return ({} if value else None) if isinstance(value, bool) else value


def _one_of(what: str, names: Callable[[], list[str]]) -> Callable[[str], str]:
    def check(value: str) -> str:
        known = names()
        if value not in known:
            raise bad(f"unknown {what} {shown(value)}. {did_you_mean(value, known)}")
        return value

    return check


def _text(value: str) -> str:
    if "\x00" in value:
        raise bad("holds a zero character, which no command line or file name can")
    return value


Text = Annotated[str, AfterValidator(_text)]
Options = Annotated[
    dict[str, Any],
    BeforeValidator(_backend_options),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]}),
]
Environment = Annotated[str, AfterValidator(_one_of("environment", _environments))]
_SIDE_SCHEMA: dict[str, Any] = {
    "type": "integer",
    "minimum": 8,
    "maximum": MAX_SIDE,
    "multipleOf": 8,
}
TaskName = Annotated[
    str,
    AfterValidator(_one_of("task", lambda: list(TASKS))),
    WithJsonSchema({"type": "string", "enum": list(TASKS)}),
]
Model = Annotated[
    str,
    AfterValidator(_text),
    AfterValidator(_model),
    WithJsonSchema({"type": "string", "pattern": MODEL_PATTERN}),
]
Scheduler = Annotated[
    str | None,
    PlainValidator(_scheduler),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*catalogue.SCHEDULERS, "none", None]},
                {"type": "string", "pattern": SCHEDULER_PATTERN},
            ]
        }
    ),
]


def _size_schema(side: dict[str, Any]) -> dict[str, Any]:
    return {
        "anyOf": [
            side,
            {"type": "string", "pattern": SIZE_PATTERN},
            {
                "type": "object",
                "properties": {
                    "height": {**side, "description": "Height in pixels."},
                    "width": {**side, "description": "Width in pixels."},
                },
                "required": ["height", "width"],
                "additionalProperties": False,
            },
        ]
    }


_SIZE_SCHEMA_ANY = _size_schema(_SIDE_SCHEMA)
Size = Annotated[tuple[int, int], PlainValidator(_size), WithJsonSchema(_SIZE_SCHEMA_ANY)]
AskedSize = Annotated[
    tuple[int, int],
    PlainValidator(_asked_size),
    WithJsonSchema(_size_schema({"type": "integer", "minimum": 8, "maximum": MAX_SIDE})),
]
Height = Annotated[
    int,
    PlainValidator(lambda value: _side(value, "height")),
    WithJsonSchema(_SIDE_SCHEMA),
]
Width = Annotated[
    int,
    PlainValidator(lambda value: _side(value, "width")),
    WithJsonSchema(_SIDE_SCHEMA),
]
Duration = Annotated[
    float,
    PlainValidator(_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS},
                {"type": "string", "pattern": DURATION_PATTERN},
            ]
        }
    ),
]
Memory = Annotated[
    int | None,
    PlainValidator(_memory),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": MEMORY_PATTERN}, {"type": "null"}]}),
]
Device = Annotated[
    str,
    AfterValidator(_device),
    WithJsonSchema({"type": "string", "pattern": DEVICE_PATTERN}),
]
Devices = Annotated[
    str | tuple[str, ...],
    PlainValidator(_devices),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": DEVICE_PATTERN},
                {
                    "type": "array",
                    "minItems": 1,
                    "uniqueItems": True,
                    "items": {"type": "string", "pattern": r"^cuda:(0|[1-9]\d{0,3})$"},
                },
            ]
        }
    ),
]
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]
Cache = Literal["fresh", "warm"]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Guidance = Annotated[float, Field(ge=0, le=1000)]
Strength = Annotated[float, Field(gt=0, le=1)]
Batch = Annotated[int, Field(ge=1, le=MAX_BATCH)]
SeedOrRandom = Annotated[
    int | str,
    PlainValidator(_seed),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
                {"const": RANDOM},
            ]
        }
    ),
]
Iterations = Annotated[int, Field(ge=1, le=MAX_CALLS)]
Prompts = Annotated[
    list[Text], AfterValidator(lambda value: _choices(value, "prompts")), Field(min_length=1)
]
Models = Annotated[
    list[Model], AfterValidator(lambda value: _choices(value, "models")), Field(min_length=1)
]
Extra = Annotated[dict[str, Any], AfterValidator(_extra)]
MemoryModes = Annotated[
    str,
    PlainValidator(lambda value: _modes(value, "memory", modes.MEMORY)),
    _modes_schema(modes.MEMORY),
]
Between = Annotated[
    str,
    PlainValidator(lambda value: _modes(value, "between", modes.BETWEEN)),
    _modes_schema(modes.BETWEEN),
]
Pct = Annotated[float, Field(gt=0, le=100)]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=80)]


class Strict(BaseModel):
    """A mapping that takes the keys it names, with values of just their types."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, regex_engine="python-re"
    )

    def given(self) -> dict[str, Any]:
        """Return the keys that were written, with their validated values."""
        return {key: getattr(self, key) for key in self.model_fields_set}


class WorkloadFields(Strict):
    """What is generated. Every key may stand in ``defaults``, in a workload, or be an axis."""

    preset: Annotated[
        str,
        AfterValidator(_one_of("workload preset", lambda: list(catalogue.WORKLOAD_PRESETS))),
        WithJsonSchema({"type": "string", "enum": list(catalogue.WORKLOAD_PRESETS)}),
    ] = Field(
        default=ABSENT,
        description="Named set of values below the ones written here; 'onediff' is OneDiff's "
        "benchmark script: EulerAncestralDiscreteScheduler, 30 steps, seed 333, its cat prompt.",
    )
    task: TaskName = Field(
        default=ABSENT,
        description="text-to-image, image-to-image, edit (instruct-pix2pix), chain (text-to-image, "
        "then image-to-image rounds from its pictures), or folder: every picture of a folder, "
        "each one call.",
    )
    model: Model = Field(
        default=ABSENT,
        description="Where the pipeline comes from: hub:ORG/NAME[@REVISION], path:DIR (a diffusers "
        "folder), embedded:NAME (ships with the harness), synthetic:ARCH (random weights).",
    )
    variant: Name | None = Field(
        default=ABSENT,
        description="Weight file variant of a Hub model or folder, such as fp16. "
        "Default null: the plain files.",
    )
    scheduler: Scheduler = Field(
        default=ABSENT,
        description="Name of a diffusers scheduler class; null or 'none' keeps the model's own. "
        "Default null.",
    )
    steps: Steps = Field(
        default=ABSENT,
        description=f"Denoising steps asked for. Default {catalogue.DEFAULT_STEPS}.",
    )
    guidance: Guidance | None = Field(
        default=ABSENT,
        description="Classifier-free guidance scale; null keeps the pipeline's default. "
        "Default null.",
    )
    image_guidance: Guidance | None = Field(
        default=ABSENT,
        description="Image guidance scale, task edit only; null keeps the pipeline's default. "
        "Default null.",
    )
    strength: Strength = Field(
        default=ABSENT,
        description="How much of the input picture is replaced, tasks image-to-image and chain: "
        "int(steps x strength) steps are really taken. "
        f"Default {catalogue.DEFAULT_STRENGTH}, of a chain {catalogue.CHAIN_STRENGTH}.",
    )
    size: Size = Field(
        default=ABSENT,
        description="Height and width in pixels, multiples of 8: 512, 768x1024 (width x height) or "
        "{height: 1024, width: 768}. Default: 128 for embedded models, 1024 for SDXL, 512 else.",
    )
    height: Height = Field(
        default=ABSENT, description="Height in pixels, instead of size; a multiple of 8."
    )
    width: Width = Field(
        default=ABSENT, description="Width in pixels, instead of size; a multiple of 8."
    )
    asked_size: AskedSize = Field(
        default=ABSENT,
        description="Any height and width in pixels, instead of size: rounded to what the pipeline "
        "makes, by round_size and size_multiple. The record has both.",
    )
    round_size: Literal["down", "nearest"] = Field(
        default=ABSENT, description="How asked_size is rounded. Default down."
    )
    size_multiple: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = Field(
        default=ABSENT,
        description="What asked_size is rounded to: a multiple of 8 pixels. Default: what a "
        "folder's model makes, 8 for any other.",
    )
    batch: Batch = Field(
        default=ABSENT,
        description="Pictures for each call; of a chain use max_batch. Default 1.",
    )
    seed: SeedOrRandom = Field(
        default=ABSENT,
        description="Seed of the first picture of a batch; the next ones have seed + 1, … "
        "'random' draws one when the plan is made, which keeps it. "
        f"Default {catalogue.DEFAULT_SEED}.",
    )
    iterations: Iterations = Field(
        default=ABSENT,
        description="Batches to make and to save, at least one measured call each; picture i of "
        "all of them has seed + i. Default 1.",
    )
    one_by_one: bool = Field(
        default=ABSENT,
        description="Send the pictures of a batch through the models one at a time, so that each "
        "has the same bytes alone and in any batch; costs what a batch saves. Default false.",
    )
    prompt: Text = Field(
        default=ABSENT,
        description="What to draw; for edit, the instruction. Needed by every workload.",
    )
    negative_prompt: Text | None = Field(
        default=ABSENT, description="What to keep out. Default null."
    )
    input_image: Text | None = Field(
        default=ABSENT,
        description="Picture file for image-to-image and edit, relative to this file's own folder; "
        "null draws a scene of the asked size. Default null.",
    )
    pictures: Text = Field(
        default=ABSENT,
        description="Folder of pictures, its subfolders included, or one picture file; task folder "
        "only, which needs it. Relative to this file's own folder.",
    )
    how: Literal["image-to-image", "edit"] = Field(
        default=ABSENT,
        description="What task folder does to each picture. Default: edit if the model is an "
        "instruct-pix2pix, else image-to-image.",
    )
    resize: Literal["fit", "pad"] = Field(
        default=ABSENT,
        description="Task folder: fit shrinks a picture to fit into 'size' and keeps its aspect; "
        "pad also fills up to exactly 'size', so that all calls have one shape. The result goes "
        "back to the picture's own size. Default fit.",
    )
    enlarge: bool = Field(
        default=ABSENT,
        description="Task folder: also enlarge pictures that are smaller than 'size'. "
        "Default false.",
    )
    prompts: Prompts = Field(
        default=ABSENT,
        description="Task folder, instead of prompt: each picture is drawn one of them.",
    )
    models: Models = Field(
        default=ABSENT,
        description="Task folder, instead of model: each picture is drawn one of them; a cell for "
        "each model.",
    )
    draw_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = Field(
        default=ABSENT,
        description="Task folder: seed of the draws of prompts and models; the draw of a picture "
        "depends on it and on the picture's name alone. Default 0.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default=ABSENT,
        description="Type of the weights. Default float16 for hub: and synthetic: models unless "
        "the device is cpu, else float32.",
    )
    generator: Literal["cpu", "device"] = Field(
        default=ABSENT,
        description="Where noise is drawn; cpu gives every backend and device equal noise. "
        "Default cpu.",
    )
    extra: Extra = Field(
        default=ABSENT, description="Further arguments of the pipeline call, as they are."
    )
    memory: MemoryModes = Field(
        default=ABSENT,
        description="How the pipeline saves memory: none, or modes as a list or joined by '+': "
        f"{', '.join(modes.MEMORY)}. Default none.",
    )
    precision: Literal["fp32", "fp16", "bf16", "autocast", "tf32"] = Field(
        default=ABSENT,
        description="Sets dtype: fp16 and bf16 are float16 and bfloat16; fp32 is float32 without "
        "TF32, tf32 is float32 with it, autocast is float32 weights under torch.autocast. "
        "Default: just the dtype.",
    )
    between: Between = Field(
        default=ABSENT,
        description="What is done after each call, timed apart: none, gc (gc.collect), "
        "empty-cache (torch's allocator gives back what it holds), or both. Default none.",
    )
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = Field(
        default=ABSENT,
        description="Pictures that a chain makes in all, task chain only. "
        f"Default {catalogue.CHAIN_SAMPLES}.",
    )
    max_batch: Batch = Field(
        default=ABSENT,
        description="Pictures of each round of a chain, the last may make fewer; task chain only. "
        f"Default {catalogue.CHAIN_MAX_BATCH}.",
    )
    start_from: Literal["first", "previous"] = Field(
        default=ABSENT,
        description="Whose pictures the image-to-image rounds of a chain start from: those of the "
        "first round, or of the round before; task chain only. Default first.",
    )
    deterministic: bool | Literal["strict"] = Field(
        default=ABSENT,
        description="Ask torch for deterministic algorithms. With true, operations that have none "
        "are named in the record; with 'strict' they fail the cell. Default false.",
    )
    lora: additions.Lora = Field(
        default=ABSENT,
        description="LoRA: a .safetensors file, embedded:sepia, hub:ORG/NAME[@REV][/FILE], or "
        "{path: …, scale: 1.0, fused: true}. Default null.",
    )
    controlnet: additions.ControlNet = Field(
        default=ABSENT,
        description="ControlNet: embedded:edges, path:DIR or hub:ORG/NAME[@REV]. Default null.",
    )
    control_image: additions.ControlImage = Field(
        default=ABSENT,
        description="What steers the ControlNet: a picture file, drawn:edges (outlines of the "
        "input picture, or of a drawn scene) or drawn:ellipse (OneDiff's). Default drawn:edges.",
    )
    control_scale: additions.ControlScale = Field(
        default=ABSENT, description="How strongly the ControlNet steers. Default 1."
    )
    custom_pipeline: additions.CustomPipeline = Field(
        default=ABSENT,
        description="Python file with one pipeline class, or a folder with pipeline.py; needs "
        "allow_remote_code. Default null.",
    )


def _points_schema(item: dict[str, Any], least: int) -> WithJsonSchema:
    points = {"type": "array", "minItems": least, "maxItems": MAX_POINTS, "uniqueItems": True}
    return WithJsonSchema({"anyOf": [{**points, "items": item}, {"type": "null"}]})


class SweepSettings(Strict):
    """Other step counts and sizes, measured in the same process after the cell's own calls."""

    steps: Annotated[
        list[Steps] | None,
        AfterValidator(lambda value: _points(value, "steps", MIN_SWEEP_STEPS)),
        _points_schema({"type": "integer", "minimum": 1, "maximum": MAX_STEPS}, MIN_SWEEP_STEPS),
    ] = Field(
        default=ABSENT,
        description="Step counts, 3 or more, better 5 to 7; the line through their times tells "
        "fixed cost from cost per step. Default null: none.",
    )
    size: Annotated[
        list[Size] | None,
        AfterValidator(lambda value: _points(value, "size", 1)),
        _points_schema(_SIZE_SCHEMA_ANY, 1),
    ] = Field(
        default=ABSENT,
        description="Sizes, each as a workload's 'size', in the order in which they are met. "
        "Default null: none.",
    )
    repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS)] = Field(
        default=ABSENT,
        description="Measured calls of each step count and size. "
        f"Default {catalogue.DEFAULT_SWEEP_REPEATS}.",
    )


class WorkloadEntry(WorkloadFields):
    """A named workload."""

    name: Name = Field(description="What the cells, tables and pictures call it.")
    sweep: SweepSettings | None = Field(
        default=ABSENT,
        description="Changes the top-level 'sweep', key by key, for this workload; null: none.",
    )


class BackendEntry(Strict):
    """A backend with its options; the bare name is the same without options."""

    name: Text = Field(description="Registered name of the backend.")
    options: Options = Field(
        default=ABSENT,
        description="The backend's own options, or a JSON object of them in a string; see its "
        "documentation.",
    )
    environment: Environment = Field(
        default=ABSENT,
        description="Interpreter that it runs in: current, or one of `bench env list`. "
        "Default: the one that the backend needs.",
    )
    cache: Cache = Field(
        default=ABSENT,
        description="Compile cache: fresh starts empty, warm is filled by a run of its own first. "
        "Default: the top-level 'cache'.",
    )


class WarmupSettings(Strict):
    """Warm-up ends once ``stable_calls`` consecutive calls lie within ``stable_pct`` per cent."""

    min_calls: Annotated[int, Field(ge=2, le=MAX_CALLS)] = Field(
        default=ABSENT, description="Warm-up calls at least; one is never enough."
    )
    max_calls: Annotated[int, Field(ge=2, le=MAX_CALLS)] = Field(
        default=ABSENT, description="Warm-up calls at most, stable or not."
    )
    stable_calls: Annotated[int, Field(ge=2, le=MAX_CALLS)] = Field(
        default=ABSENT, description="Consecutive calls that must agree."
    )
    stable_pct: Pct = Field(default=ABSENT, description="How closely they must agree, per cent.")


class CallSettings(Strict):
    """Measured calls end at the noise target, not before ``min_calls``, or at a cap."""

    min_calls: Annotated[int, Field(ge=1, le=MAX_CALLS)] = Field(
        default=ABSENT, description="Measured calls at least."
    )
    max_calls: Annotated[int, Field(ge=1, le=MAX_CALLS)] = Field(
        default=ABSENT, description="Measured calls at most."
    )
    noise_target_pct: Pct = Field(
        default=ABSENT,
        description="Stop once the half-width of the median's 95 % interval is this small, "
        "per cent of the median.",
    )
    time_cap: Duration = Field(
        default=ABSENT, description="Stop after this much measured time: 90s, 10m, 1h30m."
    )


class ProtocolSettings(Strict):
    """How a cell is warmed up, repeated and run again; the bare preset name is the same."""

    preset: Annotated[
        str,
        AfterValidator(_one_of("protocol preset", lambda: list(catalogue.PROTOCOLS))),
        WithJsonSchema({"type": "string", "enum": list(catalogue.PROTOCOLS)}),
    ] = Field(
        default=ABSENT,
        description="quick, standard or thorough; the keys beside it override it. "
        f"Default {catalogue.DEFAULT_PROTOCOL}.",
    )
    warmup: WarmupSettings = Field(default=ABSENT, description="When warm-up ends.")
    calls: CallSettings = Field(default=ABSENT, description="When measuring ends.")
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] = Field(
        default=ABSENT, description="Separate processes for each cell, interleaved."
    )


class LimitSettings(Strict):
    """What one worker process may use."""

    timeout: Duration = Field(
        default=ABSENT,
        description="Wall time of one worker: 90s, 10m, 1h30m or seconds. Default 30m.",
    )
    memory: Memory = Field(
        default=ABSENT,
        description="Host memory of one worker: 8GiB, 500MB. It limits the address space, on a "
        "GPU the data segment, and torch's libraries alone map several GiB. Default null: no "
        "limit.",
    )
    rss: Memory = Field(
        default=ABSENT,
        description="Resident memory of one worker: 2GiB. The runner watches it and ends a worker "
        "that passes it, as outcome oom. Default null: no limit.",
    )
    device_memory: Memory = Field(
        default=ABSENT,
        description="What torch may reserve on a CUDA device: 8GiB, to stand for a smaller card. "
        "Default null: the device's own.",
    )


class TelemetrySettings(Strict):
    """A pass that the parent samples from outside, after the measured calls."""

    period: Annotated[Duration, AfterValidator(_period)] = Field(
        default=ABSENT,
        description="Time between samples, 10ms to 1m. "
        f"Default {catalogue.DEFAULT_TELEMETRY['period_s'] * 1000:g}ms.",
    )
    time: Annotated[Duration, AfterValidator(_pass_time)] = Field(
        default=ABSENT,
        description="Calls are repeated for at least so long, 100ms to 1h. "
        f"Default {catalogue.DEFAULT_TELEMETRY['time_s']:g}s.",
    )
    calls: Annotated[int, Field(ge=1, le=MAX_CALLS)] = Field(
        default=ABSENT,
        description="And at least so many calls. "
        f"Default {catalogue.DEFAULT_TELEMETRY['min_calls']}.",
    )
    idle: Annotated[Duration, AfterValidator(_pass_time)] = Field(
        default=ABSENT,
        description="Idle time that is sampled before the first call and after the last one, "
        f"100ms to 1h. Default {catalogue.DEFAULT_TELEMETRY['idle_s']:g}s.",
    )


TelemetryKey = Annotated[TelemetrySettings | None, BeforeValidator(_switch_to_mapping)]
RepeatKey = Annotated[int, Field(ge=2, le=MAX_CALLS)] | None

CELL_KEYS: dict[str, tuple[Any, str]] = {
    "cache": (Cache, "Compile cache of the cell: fresh or warm."),
    "device": (Device, "Device of the cell: auto, cpu, cuda, cuda:N or mps."),
    "threads": (Threads, "CPU threads of torch in the cell."),
    "telemetry": (
        TelemetryKey,
        "Sample utilisation, power, … from outside in a pass of its own: true, or how; or false.",
    ),
    "repeat": (
        RepeatKey,
        "So many further equal calls, whose pictures and memory are compared. Default null: none.",
    ),
}
"""Keys besides workload fields and backend that an axis or an ``include`` entry may set."""

FIELD_KEYS = tuple(key for key in WorkloadFields.model_fields if key != "preset")
AXES = ("workload", "backend", *FIELD_KEYS, *CELL_KEYS)


class WorkloadPattern(WorkloadFields):
    """A workload by its name or by some of its keys; or all of a new one."""

    name: Name = Field(default=ABSENT, description="Name of a workload.")


class BackendPattern(Strict):
    """A backend by its name or by some of its keys; or all of a new one."""

    name: Text = Field(default=ABSENT, description="Registered name of the backend.")
    options: Options = Field(default=ABSENT, description="Some of its options.")
    environment: Environment = Field(
        default=ABSENT, description="Interpreter: current, or one of `bench env list`."
    )
    cache: Cache = Field(default=ABSENT, description="Compile cache: fresh or warm.")


def _type_of(key: str) -> Any:
    if key in CELL_KEYS:
        return CELL_KEYS[key][0]
    info = WorkloadFields.model_fields[key]
    annotation: Any = info.annotation
    for item in info.metadata:
        annotation = Annotated[annotation, item]
    return annotation


def _about(key: str) -> str:
    if key in CELL_KEYS:
        return CELL_KEYS[key][1]
    return WorkloadFields.model_fields[key].description or ""


_COMBINATION_FIELDS: dict[str, Any] = {
    "workload": (
        Annotated[WorkloadPattern, BeforeValidator(_name_to_mapping)],
        Field(default=ABSENT, description="Name of a workload, or some of its keys."),
    ),
    "backend": (
        Annotated[BackendPattern, BeforeValidator(_name_to_mapping)],
        Field(default=ABSENT, description="Name of a backend, or some of its keys."),
    ),
}
_COMBINATION_FIELDS["sweep"] = (
    SweepSettings | None,
    Field(
        default=ABSENT,
        description="In include: changes the sweep of these cells, key by key; null: none.",
    ),
)
_AXIS_FIELDS: dict[str, Any] = {
    "workload": (
        list[WorkloadEntry],
        Field(default=ABSENT, min_length=1, description="Named workloads."),
    ),
    "backend": (
        list[Annotated[BackendEntry, BeforeValidator(_name_to_mapping)]],
        Field(default=ABSENT, min_length=1, description="Backends; 'none' is the baseline."),
    ),
}
for _key in (*FIELD_KEYS, *CELL_KEYS):
    _COMBINATION_FIELDS[_key] = (
        _type_of(_key),
        Field(default=ABSENT, description=_about(_key)),
    )
    _AXIS_FIELDS[_key] = (
        GenericAlias(list, (_type_of(_key),)),
        Field(default=ABSENT, min_length=1, description=f"Axis. {_about(_key)}"),
    )

Combination: Any = create_model(
    "Combination",
    __base__=Strict,
    __doc__="Some keys of a combination: what to leave out, or what to add.",
    **_COMBINATION_FIELDS,
)

MatrixSettings: Any = create_model(
    "MatrixSettings",
    __base__=Strict,
    __doc__="Axes, whose product is the cells; include and exclude work as in GitHub Actions.",
    **_AXIS_FIELDS,
    exclude=(
        list[Combination],
        Field(
            default=ABSENT,
            description="Leave out each combination that agrees with all keys of an entry. "
            "Applied before include.",
        ),
    ),
    include=(
        list[Combination],
        Field(
            default=ABSENT,
            description="Add an entry's keys to each combination whose axis values it does not "
            "change; if there is none, make it a combination of its own.",
        ),
    ),
)


class Document(Strict):
    """A matrix of workloads and backends, and how to measure it."""

    name: Name = Field(
        default=ABSENT,
        description="Name of the run and of its folder, runs/NAME. Default: the file's name.",
    )
    device: Devices = Field(
        default=ABSENT,
        description="auto (the best there is), cpu, cuda, cuda:N or mps; a list such as "
        "[cuda:0, cuda:1] runs cells in parallel, one on each GPU. Default auto.",
    )
    threads: Threads = Field(default=ABSENT, description="CPU threads of torch. Default 1.")
    cache: Cache = Field(
        default=ABSENT,
        description="Compile cache of every cell: fresh starts empty, warm is filled by a run of "
        "its own first. Default fresh.",
    )
    allow_remote_code: bool = Field(
        default=ABSENT,
        description="Let a model's repository run its own Python code. Default false.",
    )
    protocol: Annotated[ProtocolSettings, BeforeValidator(_preset_to_mapping)] = Field(
        default=ABSENT, description="Warm-up, repeats and rounds; or just the name of a preset."
    )
    sweep: SweepSettings | None = Field(
        default=ABSENT,
        description="Other step counts and sizes that every cell measures besides, in the same "
        "process. Default null: none.",
    )
    profile: bool = Field(
        default=ABSENT,
        description="Besides, in the first round: count the model's operations and bytes, measure "
        "what the device reaches at best, and trace a call on CUDA. Default false.",
    )
    limits: LimitSettings = Field(
        default=ABSENT, description="What one worker process may use before it is ended."
    )
    telemetry: TelemetryKey = Field(default=ABSENT, description=CELL_KEYS["telemetry"][1])
    repeat: RepeatKey = Field(default=ABSENT, description=CELL_KEYS["repeat"][1])
    defaults: WorkloadFields = Field(
        default=ABSENT, description="Workload keys that every workload starts from."
    )
    matrix: MatrixSettings = Field(description="The axes of the matrix.")
