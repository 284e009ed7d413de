"""What declarations of keys become: the JSON Schema for editors, and the tables of documentation.

The schema (draft 2020-12) says all that can be said about one value at a time and about keys that
exclude each other. What depends on a whole cell, such as a duplicate, is left to `make_plan`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from bench.config import backends, catalogue
from bench.config.models import shapes
from compilers.registry import BackendError

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_Schema = dict[str, Any]


def json_schema() -> _Schema:
    """Return the schema; its backends are those installed here."""
    schema: _Schema = shapes().document.model_json_schema()
    _tidy(schema)
    parts: _Schema = schema["$defs"]
    axes: _Schema = parts["MatrixSettings"]
    one_size = [
        {"not": {"required": list(pair)}}
        for pair in (
            *((whole, side) for whole in ("size", "asked_size") for side in ("height", "width")),
            ("size", "asked_size"),
        )
    ]
    for name in ("WorkloadFields", "WorkloadEntry", "WorkloadPattern", "Combination"):
        parts[name]["allOf"] = [*one_size, *_keys_of_tasks()]
        properties = parts[name]["properties"]
        reserved = {"enum": list(catalogue.RESERVED_CALL_ARGUMENTS)}
        properties["extra"]["propertyNames"] = {"not": reserved}
    axes["allOf"] = one_size
    axes["minProperties"] = 1
    for name, axis in axes["properties"].items():
        if name in ("include", "exclude"):
            axis["items"]["minProperties"] = 1
        else:
            axis["uniqueItems"] = True
    known: _Schema = {"enum": list(backends.names())}
    parts["BackendPattern"]["properties"]["name"].update(known)
    parts["Combination"]["properties"]["backend"]["anyOf"][0].update(known)
    parts["BackendEntry"] = _backend_entry(parts["BackendEntry"], parts)
    return {"$schema": DIALECT, "title": "bench configuration", **schema}


def _tidy(schema: Any) -> None:
    """Drop what only repeats a key or is for documentation; take the Markdown out of sentences."""
    if isinstance(schema, dict):
        page = schema.pop("page", None)
        if isinstance(schema.get("title"), str):
            del schema["title"]
        if page is not None:
            text = re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", schema["description"])
            schema["description"] = f"{text[0].upper()}{text[1:]}."
        if isinstance(schema.get("default", ...), (dict, type(None))):
            del schema["default"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for value in schema:
            _tidy(value)


def _keys_of_tasks() -> list[_Schema]:
    """Refuse keys that a task has no use for; null is as good as absent."""
    known = shapes()
    written = known.fields
    foreign = {
        name: [
            key for key in written if key not in task.model_fields or key in task.traits.leaves_out
        ]
        for name, task in known.tasks.items()
    }
    return [
        {
            "if": {"required": ["task"], "properties": {"task": {"const": name}}},
            "then": {"properties": {key: {"type": "null"} for key in keys}},
        }
        for name, keys in foreign.items()
    ]


def _backend_entry(entry: _Schema, parts: _Schema) -> _Schema:
    """Return the schema of a backend: its name, or a mapping with the options that it has."""
    forms: list[_Schema] = [{"enum": list(backends.names())}]
    for name in backends.names():
        options = {
            "description": f"Options of {name}, or a JSON object of them in a string.",
            "anyOf": [_options(name, parts), {"type": "string"}],
        }
        described = entry["properties"]["name"]["description"]
        own = {"name": {"description": described, "const": name}, "options": options}
        forms.append({**entry, "properties": {**entry["properties"], **own}})
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


def table(name: str) -> str:
    """Return the table of keys, in Markdown, of a part of a configuration, such as "Document"."""
    schema: _Schema = shapes().document.model_json_schema()
    part = {"Document": schema, **schema["$defs"]}[name]
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key, info in part["properties"].items():
        page = info["page"]
        needed = page["needed"] or key in part.get("required", ())
        default = "needed" if needed else page["absent"]
        default = _default(key, info) if default is None else default
        values = page["values"] or _values(info)
        rows.append(f"| `{key}` | {values} | {default} | {info['description']} |")
    return "\n".join(rows)


def _default(key: str, info: _Schema) -> str:
    own = {name: task.traits.defaults.get(key) for name, task in shapes().tasks.items()}
    of_tasks = [f"`{name}` {value}" for name, value in own.items() if value is not None]
    default = info.get("default")
    if of_tasks or default is None:
        null = "null" if "null" in str(info["page"]["values"] or _values(info)) else ""
        return ", ".join(of_tasks) or null
    unit = info["page"]["unit"]
    return f"{default:g} {unit}" if unit else _shown(default)


def _shown(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _values(info: _Schema) -> str:
    """Return what may be written in words, from the schema of a plain value."""
    if "anyOf" in info:
        return " or ".join(_values(each) for each in info["anyOf"])
    if "enum" in info or "const" in info:
        return ", ".join(map(_shown, info.get("enum", [info.get("const")])))
    if "maximum" in info:
        step = f"a multiple of {info['multipleOf']}, " if "multipleOf" in info else ""
        over = "exclusiveMinimum" in info
        least = f"over {info['exclusiveMinimum']:g}, up" if over else f"{info['minimum']:g}"
        most = info["maximum"]
        return f"{step}{least} to {int(most) if most == int(most) else most}"
    return {"boolean": "`true`, `false`", "null": "null"}.get(info.get("type", ""), "text")


def write_tables(page: Path) -> None:
    """Write every table of keys on a page anew, between the marks that name its part."""
    text = page.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- keys: (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
    page.write_text(marked.sub(lambda at: f"{at[1]}{table(at[2])}{at[3]}", text), encoding="utf-8")


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
