"""The JSON Schema (draft 2020-12) of configurations, for editors.

It says all that can be said about one value at a time and about keys that exclude each other.
What depends on a whole cell, such as a duplicate, is left to `make_plan`.
"""

from __future__ import annotations

from typing import Any

from bench.config import backends, catalogue
from bench.config.models import Document
from bench.contract import TASKS
from compilers.registry import BackendError

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_Schema = dict[str, Any]


def json_schema() -> _Schema:
    """Return the schema; its backends are those installed here."""
    schema: _Schema = Document.model_json_schema()
    _tidy(schema)
    parts: _Schema = schema["$defs"]
    for name in ("WorkloadFields", "WorkloadEntry", "WorkloadPattern", "Combination"):
        parts[name]["allOf"] = [*_one_way_to_say_size(), *_fields_of_tasks()]
    parts["MatrixSettings"]["allOf"] = _one_way_to_say_size()
    parts["MatrixSettings"]["minProperties"] = 1
    for name, axis in parts["MatrixSettings"]["properties"].items():
        if name not in ("include", "exclude"):
            axis["uniqueItems"] = True
    for name in ("include", "exclude"):
        parts["MatrixSettings"]["properties"][name]["items"]["minProperties"] = 1
    for name in ("WorkloadFields", "WorkloadEntry", "WorkloadPattern", "Combination"):
        parts[name]["properties"]["extra"]["propertyNames"] = {
            "not": {"enum": list(catalogue.RESERVED_CALL_ARGUMENTS)}
        }
    parts["WorkloadPattern"] = _or_name(parts["WorkloadPattern"], {"type": "string"})
    parts["ProtocolSettings"] = _or_name(
        parts["ProtocolSettings"], {"enum": list(catalogue.PROTOCOLS)}
    )
    parts["TelemetrySettings"] = _or_name(parts["TelemetrySettings"], {"type": "boolean"})
    parts["BackendPattern"]["properties"]["name"] = {
        "description": parts["BackendPattern"]["properties"]["name"]["description"],
        "enum": list(backends.names()),
    }
    parts["BackendPattern"] = _or_name(parts["BackendPattern"], {"enum": list(backends.names())})
    parts["BackendEntry"] = _backend_entry(parts["BackendEntry"], parts)
    return {"$schema": DIALECT, "title": "bench configuration", **schema}


def _tidy(schema: Any) -> None:
    """Drop the titles that repeat a key, and the defaults that only stand for a missing key."""
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        if "default" in schema and schema["default"] is None:
            del schema["default"]
        for value in schema.values():
            _tidy(value)
    elif isinstance(schema, list):
        for value in schema:
            _tidy(value)


def _or_name(mapping: _Schema, name: _Schema) -> _Schema:
    """Return the schema of a mapping for which a bare name may stand."""
    return {
        "description": mapping.get("description", ""),
        "anyOf": [name, {key: value for key, value in mapping.items() if key != "description"}],
    }


def _one_way_to_say_size() -> list[_Schema]:
    pairs = [(whole, side) for whole in ("size", "asked_size") for side in ("height", "width")]
    return [{"not": {"required": list(pair)}} for pair in [*pairs, ("size", "asked_size")]]


def _fields_of_tasks() -> list[_Schema]:
    """Refuse fields that a task has no use for; null is as good as absent."""
    chain = ("samples", "max_batch", "start_from")
    unused = {
        "text-to-image": ("strength", "image_guidance", "input_image"),
        "image-to-image": ("image_guidance",),
        "edit": ("strength",),
        "chain": ("image_guidance", "input_image"),
        "folder": ("input_image",),
    }
    never = {
        task: (
            *(("batch",) if task == "chain" else chain),
            *(() if task == "folder" else catalogue.FOLDER_KEYS),
        )
        for task in TASKS
    }
    return [
        {
            "if": {"required": ["task"], "properties": {"task": {"const": task}}},
            "then": {
                "properties": {
                    **{field: {"type": "null"} for field in unused[task]},
                    **dict.fromkeys(never[task], False),
                }
            },
        }
        for task in TASKS
    ]


def _backend_entry(entry: _Schema, parts: _Schema) -> _Schema:
    """Return the schema of a backend: its name, or a mapping with the options that it has."""
    forms: list[_Schema] = [{"enum": list(backends.names())}]
    for name in backends.names():
        properties = dict(entry["properties"])
        properties["name"] = {"description": properties["name"]["description"], "const": name}
        properties["options"] = {
            "description": f"Options of {name}, or a JSON object of them in a string.",
            "anyOf": [_options(name, parts), {"type": "string"}],
        }
        forms.append(
            {
                "type": "object",
                "properties": properties,
                "required": ["name"],
                "additionalProperties": False,
            }
        )
    return {"description": entry["description"], "anyOf": forms}


def _options(name: str, parts: _Schema) -> _Schema:
    try:
        model = backends.options_model(name)
        described = backends.option_descriptions(name)
    except BackendError:  # a broken package; the plan says so if it is asked for
        return {"description": f"Options of {name}.", "type": "object"}
    options = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    parts.update({f"{name}.{key}": part for key, part in options.pop("$defs", {}).items()})
    for key, info in options.get("properties", {}).items():
        info.pop("title", None)
        info.setdefault("description", described.get(key, f"Option of {name}."))
    options.pop("title", None)
    return {**options, "description": f"Options of {name}."}
