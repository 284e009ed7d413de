"""What may be written for a key: types, each with its check and its JSON Schema.

A check takes what was written, or a value that it has returned, and returns the value that a cell
holds. Whatever needs more than one value is with the workload's or the pass's own keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from bench import modes
from bench.config import catalogue
from bench.config.errors import did_you_mean, nearest, shown
from bench.contract import CONTROL_DRAWINGS
from bench.environments import CURRENT, EnvironmentProblem, declarations
from bench.sizes import Asked

MAX_SIDE = 16384
MAX_BATCH = 1024
MAX_SEED = 2**32 - 1
MAX_CALLS = 100_000
MAX_SECONDS = 30 * 24 * 3600.0
MIN_MEMORY_BYTES = 64 * 1024**2
RANDOM = "random"
"""Written for a seed, has one drawn when the plan is made; the plan keeps it."""

DURATION_PATTERN = r"^\s*(\d+(\.\d+)?\s*(ms|s|m|h|d)\s*)+$"
MEMORY_PATTERN = r"^\s*\d+(\.\d+)?\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*$"
DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:(0|[1-9]\d{0,3}))?)$"
GPU_PATTERN = r"^cuda:(0|[1-9]\d{0,3})$"
SCHEDULER_PATTERN = r"^([A-Z][A-Za-z0-9]*Scheduler|none)$"
MODEL_PATTERN = (
    r"^(hub:[^\s/@:]+/[^\s/@:]+(@[^\s@]+)?|path:.*\S.*|"
    rf"embedded:({'|'.join(catalogue.EMBEDDED)})|synthetic:({'|'.join(catalogue.SYNTHETIC)}))$"
)
_REPO = r"hub:[^\s/@:]+/[^\s/@:]+(@[^\s@/]+)?"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

_NULL = {"type": "null"}


class Sides(dict[str, int]):
    """Height and width that are written as one key."""

    def __str__(self) -> str:
        return f"{self['width']}x{self['height']}"


def bad(message: str, key: str | None = None) -> PydanticCustomError:
    """Return the error whose message reaches the user as it is; ``key`` is what it is about."""
    return PydanticCustomError("bench", "{message}", {"message": message, "key": key})


def refuse(message: str) -> NoReturn:
    raise bad(message)


@dataclass(frozen=True)
class ShortForm:
    """The JSON Schema of what may stand for a mapping; a check before it reads it as one."""

    schema: dict[str, Any]

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """Return the schema of both."""
        return {"anyOf": [self.schema, handler(core)]}


def any_of(*schemas: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(schemas)})


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def one_of(what: str, names: Callable[[], Sequence[str]]) -> Callable[[str], str]:
    """Return the check that a text is among ``names``."""

    def check(value: str) -> str:
        known = list(names())
        if value not in known:
            refuse(f"unknown {what} {shown(value)}. {did_you_mean(value, known)}")
        return value

    return check


def different(what: str, why: str) -> Callable[[list[Any]], list[Any]]:
    """Return the check that a list holds nothing twice."""

    def check(value: list[Any]) -> list[Any]:
        for at, each in enumerate(value):
            if each in value[:at]:
                text = str(each) if isinstance(each, Sides) else shown(each)
                refuse(f"{what} has {text} twice{why}")
        return value

    return check


# ------------------------------------------------------------------- text, time, amounts


def _text(value: str) -> str:
    if "\x00" in value:
        refuse("holds a zero character, which no command line or file name can")
    return value


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Percent = Annotated[float, Field(gt=0, le=100)]


def _seconds(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and re.fullmatch(DURATION_PATTERN, value):
        unit = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value)
        seconds = sum(float(number) * unit[name] for number, name in parts)
    else:
        refuse(f"{shown(value)} is no duration; write one such as 90s, 10m or 1h30m")
    if not 0 < seconds <= MAX_SECONDS:
        refuse(f"{shown(value)} must be more than 0 and at most 30 days")
    return seconds


def from_to(low: float, high: float, message: str) -> AfterValidator:
    """Return the check that a number of seconds lies between two."""

    def check(value: float) -> float:
        return value if low <= value <= high else refuse(f"{message}, not {value:g} s")

    return AfterValidator(check)


Duration = Annotated[
    float,
    PlainValidator(_seconds),
    any_of(
        {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS},
        _pattern(DURATION_PATTERN),
    ),
]


def _memory(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(MEMORY_PATTERN, value):
        refuse(f"{shown(value)} is no amount of memory; write one such as 8GiB or 500MB")
    ((number, unit),) = re.findall(r"(\d+(?:\.\d+)?)\s*(\w+)", value)
    power = "BKMGT".index(unit[0].upper())
    amount = int(float(number) * (1024 if "i" in unit else 1000) ** power)
    if not MIN_MEMORY_BYTES <= amount < 2**63:
        refuse(f"{shown(value)} is out of range; at least {MIN_MEMORY_BYTES // 1024**2}MiB")
    return amount


Memory = Annotated[int | None, PlainValidator(_memory), any_of(_pattern(MEMORY_PATTERN), _NULL)]

# -------------------------------------------------------------------------------- sizes


def _asked_side(value: object, what: str) -> int:
    """Return a side that need be no multiple of anything."""
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(f"{what} must be a whole number of pixels, not {shown(value)}")
    if not 8 <= value <= MAX_SIDE:
        refuse(f"{what} must be from 8 to {MAX_SIDE} pixels, not {shown(value)}")
    return value


def _side(value: object, what: str) -> int:
    side = _asked_side(value, what)
    if side % 8:
        lower, upper = side - side % 8, side - side % 8 + 8
        near = f"{lower} or {upper}" if lower else str(upper)
        refuse(f"{what} {side} is no multiple of 8; the nearest are {near}")
    return side


def _size(value: object, side_of: Callable[[object, str], int] = _side) -> Sides:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(?:(\d{1,6})\s*[xX×])?\s*(\d{1,6})\s*", value)
        if match is None:
            refuse(f"size {shown(value)} must be 512, 768x1024 (width x height) or a mapping")
        if match[1] is None:
            return _size(int(match[2]), side_of)
        return Sides(height=side_of(int(match[2]), "height"), width=side_of(int(match[1]), "width"))
    if isinstance(value, dict):
        unknown = [key for key in value if key not in ("height", "width")]
        if unknown:
            hint = did_you_mean(unknown[0], ("height", "width"))
            refuse(f"unknown key {shown(unknown[0])} in size. {hint}")
        if len(value) < 2:
            refuse("size needs both height and width")
        return Sides({side: side_of(value[side], side) for side in ("height", "width")})
    side = side_of(value, "size")
    return Sides(height=side, width=side)


def _size_schema(side: dict[str, Any]) -> WithJsonSchema:
    sides = {
        name: {**side, "description": f"{name.capitalize()} in pixels."}
        for name in ("height", "width")
    }
    return any_of(
        side,
        _pattern(r"^[1-9]\d*(x[1-9]\d*)?$"),
        {
            "type": "object",
            "properties": sides,
            "required": list(sides),
            "additionalProperties": False,
        },
    )


_ASKED_SIDE = {"type": "integer", "minimum": 8, "maximum": MAX_SIDE}
_SIDE = {**_ASKED_SIDE, "multipleOf": 8}
Size = Annotated[Any, PlainValidator(_size), _size_schema(_SIDE)]
AskedSize = Annotated[
    Any,
    PlainValidator(lambda value: _size(value, lambda side, what: Asked(_asked_side(side, what)))),
    _size_schema(_ASKED_SIDE),
]
Height = Annotated[int, PlainValidator(lambda value: _side(value, "height")), WithJsonSchema(_SIDE)]
Width = Annotated[int, PlainValidator(lambda value: _side(value, "width")), WithJsonSchema(_SIDE)]

# --------------------------------------------------------------------- models and their parts


def _model(value: str) -> str:
    source, colon, name = value.partition(":")
    if not colon or source not in catalogue.SOURCES:
        if not colon:
            local = value.startswith((".", "/", "~"))
            for fits, meant in (
                (value.count("/") == 1 and not local, "hub"),
                ("/" in value, "path"),
                (value in catalogue.EMBEDDED, "embedded"),
            ):
                if fits:
                    refuse(f"model {shown(value)} has no source. Did you mean '{meant}:{value}'?")
        forms = "hub:ORG/NAME, path:DIR, embedded:NAME or synthetic:ARCH"
        near = nearest(source, catalogue.SOURCES)
        hint = f" Did you mean '{near}:{name}'?" if near and colon else ""
        refuse(f"model {shown(value)} must be {forms}.{hint}")
    if source in catalogue.BUILT_IN_MODELS:
        known = list(catalogue.BUILT_IN_MODELS[source])
        if name not in known:
            refuse(f"unknown {source} model {shown(name)}. {did_you_mean(name, known)}")
    elif not re.fullmatch(MODEL_PATTERN, value):
        form = "hub:ORG/NAME or hub:ORG/NAME@REVISION" if source == "hub" else "path:DIR"
        refuse(f"model {shown(value)} must be {form}")
    return value


def _scheduler(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
        return None
    if not isinstance(value, str):
        refuse(f"scheduler must be the name of a diffusers class or null, not {shown(value)}")
    if value in catalogue.SCHEDULERS:
        return value
    near = _nearest_scheduler(value)
    if near is not None:
        refuse(f"unknown scheduler {shown(value)}. Did you mean '{near}'?")
    if not re.fullmatch(SCHEDULER_PATTERN, value):
        refuse(
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
    longer = [stem for stem in stems if len(asked) >= 3 and stem.startswith(asked)]
    if longer:
        usual = ("discrete", "multistep")
        return stems[min(longer, key=lambda stem: (not stem.endswith(usual), len(stem)))]
    near = nearest(asked, stems)
    return None if near is None else stems[near]


def _check_embedded(value: str, known: Sequence[str], what: str) -> None:
    name = value.partition(":")[2]
    if value.startswith("embedded:") and name not in known:
        refuse(f"unknown embedded {what} {shown(name)}. {did_you_mean(name, known)}")


def lora_path(path: str) -> str:
    """Check where a LoRA comes from."""
    if not path.strip() or "\x00" in path:
        refuse("lora needs 'path': a .safetensors file, embedded:NAME or hub:ORG/NAME[@REV]/FILE")
    suffix = PurePath(path).suffix.lower()
    if suffix in _PICKLES:
        refuse(
            f"lora {shown(path)}: a {suffix} file is a pickle, which can run code when it is "
            "opened; convert it to .safetensors"
        )
    _check_embedded(path, catalogue.LORAS, "LoRA")
    if path.startswith("hub:"):
        if not re.fullmatch(_REPO + r"(/.+\.safetensors)?", path):
            form = "hub:ORG/NAME[@REV]"
            refuse(f"lora {shown(path)} must be {form} or {form}/FILE.safetensors")
    elif not path.startswith("embedded:") and suffix != ".safetensors":
        hint = f" Did you mean 'hub:{path}'?" if re.fullmatch(r"[^\s/.]+/[^\s/]+", path) else ""
        refuse(f"lora {shown(path)} is no .safetensors file.{hint}")
    return path


def _controlnet(value: str) -> str:
    _check_embedded(value, catalogue.CONTROLNETS, "ControlNet")
    if not re.fullmatch(rf"embedded:.+|path:.*\S.*|{_REPO}", value) or "\x00" in value:
        hint = ""
        if value in catalogue.CONTROLNETS:
            hint = f" Did you mean 'embedded:{value}'?"
        elif re.fullmatch(r"[^\s/.:]+/[^\s/:]+", value):
            hint = f" Did you mean 'hub:{value}'?"
        forms = "embedded:NAME, path:DIR or hub:ORG/NAME[@REV]"
        refuse(f"controlnet {shown(value)} must be {forms}.{hint}")
    return value


def _control_image(value: str) -> str:
    if value.startswith("drawn:") and value not in CONTROL_DRAWINGS:
        refuse(f"unknown control_image {shown(value)}. {did_you_mean(value, CONTROL_DRAWINGS)}")
    return value


Model = Annotated[
    str, AfterValidator(_text), AfterValidator(_model), WithJsonSchema(_pattern(MODEL_PATTERN))
]
Scheduler = Annotated[
    str | None,
    PlainValidator(_scheduler),
    any_of({"enum": [*catalogue.SCHEDULERS, "none", None]}, _pattern(SCHEDULER_PATTERN)),
]
File = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*\S[^\x00]*$")]
ControlNet = Annotated[str, AfterValidator(_controlnet)]
ControlImage = Annotated[File, AfterValidator(_control_image)]

# ------------------------------------------------------------------------ devices and backends


def _device(value: str) -> str:
    if not re.fullmatch(DEVICE_PATTERN, value):
        # the letters of "gpu" are nearest to "cpu", its meaning is not
        known = ("auto", "cpu", "cuda", "cuda:0", "mps")
        near = nearest(value.lower().replace("gpu", "cuda"), known)
        hint = f" Did you mean '{near}'?" if near else ""
        refuse(f"unknown device {shown(value)}; one of auto, cpu, cuda, cuda:N, mps.{hint}")
    return value


def _devices(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return _device(value)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        refuse(f"device must be a name or a list of GPUs, not {shown(value)}")
    if not value:
        refuse("device is an empty list")
    for item in value:
        if not re.fullmatch(GPU_PATTERN, item):
            refuse(
                f"a list of devices shares the cells out between GPUs, so each is cuda:N, not "
                f"{shown(item)}; to compare devices, make 'device' an axis of the matrix"
            )
        if value.count(item) > 1:
            refuse(f"device {shown(item)} is listed twice")
    return tuple(value)


Device = Annotated[str, AfterValidator(_device), WithJsonSchema(_pattern(DEVICE_PATTERN))]
Devices = Annotated[
    str | tuple[str, ...],
    PlainValidator(_devices),
    any_of(
        _pattern(DEVICE_PATTERN),
        {"type": "array", "minItems": 1, "uniqueItems": True, "items": _pattern(GPU_PATTERN)},
    ),
]
Threads = Annotated[int, Field(ge=1, le=4096)]
Cache = Literal["fresh", "warm"]


def _options(value: object) -> object:
    """Read options that are written as OneDiff's users write them: a JSON object in a string."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value, parse_constant=_no_constant)
    except ValueError as error:
        raise bad(f"options {shown(value)} are no JSON: {error}") from None
    if not isinstance(read, dict):
        refuse(f'options {shown(value)} must be a JSON object, such as \'{{"mode": "O2"}}\'')
    return read


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _environments() -> list[str]:
    try:
        return [CURRENT, *declarations()]
    except EnvironmentProblem as error:
        raise bad(str(error)) from None


Options = Annotated[
    dict[str, Any], BeforeValidator(_options), any_of({"type": "object"}, {"type": "string"})
]
Environment = Annotated[str, AfterValidator(one_of("environment", _environments))]

# ------------------------------------------------------------------------------- generation


def _seed(value: object) -> int | str:
    if value == RANDOM:
        return RANDOM
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(f"'seed' must be a whole number or 'random', not {shown(value)}")
    if not 0 <= value <= MAX_SEED:
        bound = "at least 0" if value < 0 else f"at most {MAX_SEED}"
        refuse(f"'seed' must be {bound}, not {shown(value)}")
    return value


def _extra(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if key in catalogue.RESERVED_CALL_ARGUMENTS:
            field = catalogue.RESERVED_CALL_ARGUMENTS[key]
            instead = f"use the field '{field}'" if field else "it is the harness's own"
            refuse(f"extra cannot set {shown(key)}: {instead}")
    if not _finite(value):
        refuse("extra holds a number that is not finite")
    return value


def _finite(value: object) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return not isinstance(value, float) or value - value == 0


def _modes(what: str, known: tuple[str, ...]) -> PlainValidator:
    """Return the check of modes: ``a+b`` or a list; null or an empty list is none."""

    def check(value: object) -> str:
        listed = [] if value is None else value.split("+") if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            refuse(f"{what} must be a mode or a list of modes, not {shown(value)}")
        asked = [item.strip() for item in listed]
        for name in asked:
            if name not in (*known, modes.NONE):
                hint = did_you_mean(name, (*known, modes.NONE))
                refuse(f"unknown {what} mode {shown(name)}. {hint}")
        try:
            text = modes.joined(asked, known)
        except ValueError as error:
            raise bad(f"{what} {shown(value)}: {error}") from None
        against = modes.contradiction(text) if what == "memory" else None
        return text if not against else refuse(f"memory {shown(text)}: {against}")

    return PlainValidator(check)


def _modes_schema(known: tuple[str, ...]) -> WithJsonSchema:
    one = "|".join(known)
    return any_of(
        {"enum": [modes.NONE, None, *known]},
        _pattern(rf"^\s*({one})(\s*\+\s*({one}))*\s*$"),
        {"type": "array", "uniqueItems": True, "items": {"enum": [modes.NONE, *known]}},
    )


Steps = Annotated[int, Field(ge=1, le=10_000)]
Guidance = Annotated[float, Field(ge=0, le=1000)]
Strength = Annotated[float, Field(gt=0, le=1)]
Batch = Annotated[int, Field(ge=1, le=MAX_BATCH)]
Seed = Annotated[
    int | str,
    PlainValidator(_seed),
    any_of({"type": "integer", "minimum": 0, "maximum": MAX_SEED}, {"const": RANDOM}),
]
Extra = Annotated[dict[str, Any], AfterValidator(_extra)]
MemoryModes = Annotated[str, _modes("memory", modes.MEMORY), _modes_schema(modes.MEMORY)]
Between = Annotated[str, _modes("between", modes.BETWEEN), _modes_schema(modes.BETWEEN)]
