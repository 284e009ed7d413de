"""What a configuration may add to a model: a LoRA, a ControlNet with its picture, a pipeline class.

Their keys stand in a cell's workload only where they are not their default, so that cells without
additions are the cells that they were before there were any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from bench.config import catalogue
from bench.config.errors import did_you_mean, shown
from bench.contract import CONTROL_DRAWINGS, WorkloadMore

MAX_SCALE = 100.0
DEFAULTS: dict[str, Any] = {
    "lora": None,
    "lora_scale": 1.0,
    "lora_fused": True,
    "controlnet": None,
    "control_image": CONTROL_DRAWINGS[0],
    "control_scale": 1.0,
    "custom_pipeline": None,
}
"""Every key of `bench.contract.WorkloadMore` that this module fills, with its default."""

LORA_KEYS = {"path": "lora", "scale": "lora_scale", "fused": "lora_fused"}
"""Keys of a LoRA's mapping by the workload's."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_REPO = r"hub:[^\s/@:]+/[^\s/@:]+(@[^\s@/]+)?"


def _bad(message: str) -> PydanticCustomError:
    return PydanticCustomError("bench", "{message}", {"message": message})


def _number(value: object, what: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(f"{what} must be a number, not {shown(value)}")
    if not least <= value <= MAX_SCALE:
        raise _bad(f"{what} must be from {least:g} to {MAX_SCALE:g}, not {shown(value)}")
    return float(value)


def _embedded(value: str, known: tuple[str, ...], what: str) -> None:
    name = value.partition(":")[2]
    if value.startswith("embedded:") and name not in known:
        raise _bad(f"unknown embedded {what} {shown(name)}. {did_you_mean(name, list(known))}")


def _lora(value: object) -> dict[str, Any] | None:
    """Return the fields of a workload."""
    if value is None:
        return None
    given = {"path": value} if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise _bad(f"lora must be a file, embedded:NAME, hub:ORG/NAME or a mapping, "
                   f"not {shown(value)}")  # fmt: skip
    for key in given:
        if key not in LORA_KEYS:
            raise _bad(f"unknown key {shown(key)} in lora. {did_you_mean(key, list(LORA_KEYS))}")
    path = given.get("path")
    if not isinstance(path, str) or not path.strip() or "\x00" in path:
        raise _bad(
            "lora needs 'path': a .safetensors file, embedded:NAME or hub:ORG/NAME[@REV]/FILE"
        )
    suffix = PurePath(path).suffix.lower()
    if suffix in _PICKLES:
        raise _bad(
            f"lora {shown(path)}: a {suffix} file is a pickle, which can run code when it is "
            "opened; convert it to .safetensors"
        )
    _embedded(path, catalogue.LORAS, "LoRA")
    if path.startswith("hub:"):
        if not re.fullmatch(_REPO + r"(/.+\.safetensors)?", path):
            raise _bad(f"lora {shown(path)} must be hub:ORG/NAME[@REV] or hub:ORG/NAME[@REV]/FILE"
                       ".safetensors")  # fmt: skip
    elif not path.startswith("embedded:") and suffix != ".safetensors":
        hint = f" Did you mean 'hub:{path}'?" if re.fullmatch(r"[^\s/.]+/[^\s/]+", path) else ""
        raise _bad(f"lora {shown(path)} is no .safetensors file.{hint}")
    fused = given.get("fused", DEFAULTS["lora_fused"])
    if not isinstance(fused, bool):
        raise _bad(f"lora: 'fused' must be true or false, not {shown(fused)}")
    scale = _number(given.get("scale", DEFAULTS["lora_scale"]), "lora: 'scale'", -MAX_SCALE)
    if scale == 0:
        raise _bad("lora: 'scale' 0 changes nothing; leave the LoRA out")
    return {"lora": path, "lora_scale": scale, "lora_fused": fused}


def _controlnet(value: object) -> str | None:
    if value is None:
        return None
    forms = "embedded:NAME, path:DIR or hub:ORG/NAME[@REV]"
    if not isinstance(value, str):
        raise _bad(f"controlnet must be {forms}, not {shown(value)}")
    _embedded(value, catalogue.CONTROLNETS, "ControlNet")
    if not re.fullmatch(rf"embedded:.+|path:.*\S.*|{_REPO}", value) or "\x00" in value:
        hint = ""
        if value in catalogue.CONTROLNETS:
            hint = f" Did you mean 'embedded:{value}'?"
        elif re.fullmatch(r"[^\s/.:]+/[^\s/:]+", value):
            hint = f" Did you mean 'hub:{value}'?"
        raise _bad(f"controlnet {shown(value)} must be {forms}.{hint}")
    return value


def _file(what: str) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip() or "\x00" in value:
            raise _bad(f"{what} must be a path, not {shown(value)}")
        if value.startswith("drawn:") and value not in CONTROL_DRAWINGS:
            raise _bad(
                f"unknown {what} {shown(value)}. {did_you_mean(value, list(CONTROL_DRAWINGS))}"
            )
        return value

    return check


_NULL: dict[str, Any] = {"type": "null"}
_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_SCALE: dict[str, Any] = {"type": "number", "minimum": -MAX_SCALE, "maximum": MAX_SCALE}

Lora = Annotated[
    Any,
    PlainValidator(_lora),
    WithJsonSchema(
        {
            "anyOf": [
                _NULL,
                _TEXT,
                {
                    "type": "object",
                    "properties": {
                        "path": {**_TEXT, "description": "File, embedded:NAME or hub:ORG/NAME."},
                        "scale": {**_SCALE, "description": "Strength. Default 1."},
                        "fused": {
                            "type": "boolean",
                            "description": "Add it to the weights, so that steps cost what they "
                            "did; false runs it beside them. Default true.",
                        },
                    },
                    "required": ["path"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
ControlNet = Annotated[Any, PlainValidator(_controlnet), WithJsonSchema({"anyOf": [_NULL, _TEXT]})]
ControlImage = Annotated[
    Any, PlainValidator(_file("control_image")), WithJsonSchema({"anyOf": [_NULL, _TEXT]})
]
ControlScale = Annotated[
    float,
    BeforeValidator(lambda value: _number(value, "control_scale", 0.0)),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_SCALE}),
]
CustomPipeline = Annotated[
    Any, PlainValidator(_file("custom_pipeline")), WithJsonSchema({"anyOf": [_NULL, _TEXT]})
]


def flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Return workload fields with a LoRA's mapping spread over its three fields."""
    if "lora" not in fields:
        return fields
    lora = fields["lora"]
    rest = {key: value for key, value in fields.items() if key != "lora"}
    if lora is None:
        return {**rest, **{key: DEFAULTS[key] for key in LORA_KEYS.values()}}
    return {**rest, **(lora if isinstance(lora, dict) else {"lora": lora})}


def of(fields: Mapping[str, Any]) -> WorkloadMore:
    """Return the keys of a workload that differ from their default."""
    found = {}
    for key, default in DEFAULTS.items():
        value = fields.get(key, default)
        if value is not None and value != default:
            found[key] = value
    return cast(WorkloadMore, found)


def problem(workload: Mapping[str, Any], *, remote: bool) -> tuple[str, str] | None:
    """Return (key, what is wrong) of additions that no machine could run; None if there is nothing.

    Args:
        remote: whether code of the user's own may run.
    """
    task, model = workload["task"], workload["model"]
    controlnet = workload.get("controlnet")
    for key in ("control_image", "control_scale"):
        if key in workload and controlnet is None:
            return key, f"'{key}' {shown(workload[key])} means nothing without a 'controlnet'"
    if controlnet is not None and task == "edit":
        return "controlnet", "a ControlNet steers text-to-image and image-to-image, not edit"
    if controlnet is not None and task in ("chain", "folder"):
        return "controlnet", f"a ControlNet steers one call's picture, and {task} makes many"
    for key in ("lora", "controlnet"):
        text = str(workload.get(key, ""))
        built_in = model.startswith(("embedded:", "synthetic:"))
        if text.startswith("embedded:") and built_in and model != "embedded:sdxl":
            return key, f"'{text}' is made for embedded:sdxl, not for {model}"
    if "custom_pipeline" in workload and not remote:
        return (
            "custom_pipeline",
            (
                f"custom_pipeline {shown(workload['custom_pipeline'])} is Python code, which is "
                "not run: read it, then set 'allow_remote_code: true' (bench once: "
                "--allow-remote-code), if you trust it"
            ),
        )
    return None


def part(workload: Mapping[str, Any], key: str) -> str:
    """Return how a cell's name says an addition."""
    value = workload.get(key, DEFAULTS[key])
    if value is None:
        return f"{key}=none"
    if key == "lora":
        how = "fused" if workload.get("lora_fused", True) else "unfused"
        scale = workload.get("lora_scale", 1.0)
        value = f"{PurePath(value).stem}-{how}" + ("" if scale == 1 else f"-x{scale:g}")
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-")
    return f"{key}={text if len(text) <= 32 else text[:32].rstrip('-')}"
