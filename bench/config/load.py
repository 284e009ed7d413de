"""From a file or a mapping to a validated configuration; from pydantic's errors to sentences."""

from __future__ import annotations

import json
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.config import backends, overrides, tree
from bench.config.errors import ConfigError, Place, did_you_mean, nearest, shown
from bench.config.models import Shapes, shapes
from bench.config.tree import KeyPath

API_SOURCE = "configuration"


@dataclass(frozen=True)
class Config:
    """A configuration whose values are checked where they were written, not yet expanded."""

    document: Any  # of the type `Shapes.document`
    shapes: Shapes
    root: tree.Node  # the document as written, with places
    name: str
    only: tuple[str, ...]  # selections, ``key=value[,value]``
    source: str  # what messages call the file or mapping
    folder: Path  # absolute, where relative paths start that are written in it

    def start_of(self, path: KeyPath) -> Path:
        """Return the folder from which a relative path starts that was written at ``path``.

        That of the configuration; for what came from the command line, the working folder.
        """
        written_in = tree.place_of(self.root, path).source
        return self.folder if written_in == self.source else Path.cwd()

    def error(self, message: str, path: KeyPath, *, key: bool = False) -> ConfigError:
        """Return an error about the value at ``path``, which may lie deeper than what was written.

        With ``key``, the error is about the last key of the path rather than its value.
        """
        return ConfigError(message, tree.place_of(self.root, path, key=key))


def load_config(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), only: Sequence[str] = ()
) -> Config:
    """Read and validate a configuration file.

    Args:
        path: the YAML file; relative paths in it start from its own folder.
        overrides: ``a.b=c`` each, applied in order.
        only: ``key=value[,value]`` each; `make_plan` keeps the cells that agree with all.

    Raises:
        ConfigError: whatever is wrong, in one message with its place.
    """
    shown_as = os.fspath(path)
    file = Path(shown_as)
    root = tree.read_file(file, shown_as)
    return _validate(root, _run_name(file.stem), overrides, only, shown_as, file.absolute().parent)


def parse_config(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    *,
    name: str = "run",
    source: str = API_SOURCE,
) -> Config:
    """Validate a configuration that is already a mapping, as `load_config` does for a file.

    Relative paths start from the working folder. ``name`` is the run's if ``values`` has none, and
    ``source`` what messages call the mapping.
    """
    root = tree.from_python(values, source)
    return _validate(root, name, overrides, only, source, Path.cwd())


def _run_name(stem: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:80]
    return cleaned or "run"


def _validate(
    root: tree.Node,
    name: str,
    changes: Sequence[str],
    only: Sequence[str],
    source: str,
    folder: Path,
) -> Config:
    backends.look_again()
    if not isinstance(root.value, dict):
        raise ConfigError(
            f"must be a mapping of keys such as 'matrix', not {shown(tree.plain(root))}", root.place
        )
    for change in changes:
        overrides.apply(root, change)
    known = shapes()
    try:
        document = known.document.model_validate(tree.plain(root))
    except ValidationError as error:
        raise explain(root, error.errors(include_url=False)) from None
    return Config(
        document=document,
        shapes=known,
        root=root,
        name=document.given().get("name", name),
        only=tuple(only),
        source=source,
        folder=folder,
    )


def explain(
    root: tree.Node, errors: Sequence[Any], prefix: KeyPath = (), known: Sequence[str] | None = None
) -> ConfigError:
    """Turn pydantic's errors into the one that the user should see.

    Unknown keys come first, since a misspelt key also leaves the right one missing; then the order
    of the file decides.

    Args:
        root: the configuration as written.
        errors: pydantic's error dicts, at least one.
        prefix: path of what was validated.
        known: keys that it takes, if it is not part of the document's own model.
    """

    def rank(error: Any) -> tuple[bool, int, int]:
        place = _place(root, (*prefix, *error["loc"]), error["type"])
        return (error["type"] != "extra_forbidden", place.line or 0, place.column or 0)

    first = min(errors, key=rank)
    path: KeyPath = (*prefix, *first["loc"])
    return ConfigError(_sentence(root, path, first, known), _place(root, path, first["type"]))


def _place(root: tree.Node, path: KeyPath, kind: str) -> Place:
    return tree.place_of(root, path, key=kind == "extra_forbidden")


def _sentence(root: tree.Node, path: KeyPath, error: Any, known: Sequence[str] | None) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    key = next((step for step in reversed(path) if isinstance(step, str)), "")
    owner = describe(root, path[:-1]) if path else ""
    if kind == "extra_forbidden":
        hint = _other_key(path) if known is None else did_you_mean(path[-1], known)
        where = f"in {owner}" if owner else "at the top level"
        return f"unknown key {shown(path[-1])} {where}. {hint}"
    if kind == "missing":
        return f"{owner or 'the configuration'} needs the key '{key}'"
    before = f"{owner}: " if owner else ""
    if kind == "bench":
        return before + str(context["message"])
    what = "its value" if path and isinstance(path[-1], int) else f"'{key}'"
    is_axis = path[:-1] == ("matrix",) and key in shapes().axes
    if is_axis and (kind == "too_short" or value is None):
        return f"axis '{key}' is empty; give it at least one value, or leave it out"
    if kind in ("list_type", "tuple_type"):
        example = f", such as [{_written(value)}]" if _is_plain(value) else ""
        return f"{before}{what} must be a list{example}, not {shown(value)}"
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"{before}{what} cannot be {shown(value)}. {did_you_mean(value, names)}"
    if kind == "string_pattern_mismatch":
        return (
            f"{before}{what} cannot be {shown(value)}; "
            "write letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    if kind in _NEEDS:
        return f"{before}{what} must be {_NEEDS[kind]}, not {shown(value)}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{before}{what} must be {words} {context[name]:g}, not {shown(value)}"
    return f"{before}{what} cannot be {shown(value)}: {error['msg']}"


_NEEDS = {
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping"),
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, (list, dict))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)[:40]


def describe(root: tree.Node, path: KeyPath) -> str:
    """Return what a user would call the thing at ``path``; '' for the top level."""
    if path[:1] == ("matrix",) and len(path) == 2:
        return f"axis '{path[1]}'"
    if path[:1] != ("matrix",) or len(path) < 3 or not isinstance(path[2], int):
        return ".".join(map(str, path))
    kind, index, rest = path[1], path[2], ".".join(map(str, path[3:]))
    if kind in ("include", "exclude"):
        noun = f"{kind} entry {index + 1}"
    elif kind in ("workload", "backend"):
        name = _name_at(root, path[:3])
        noun = f"{kind} '{name}'" if name else f"{kind} {index + 1}"
        if len(path) >= 5 and path[3] == "options":
            return f"option '{path[4]}' of {noun}"
    else:
        return ".".join(map(str, path))
    return f"{rest} of {noun}" if rest else noun


def _name_at(root: tree.Node, path: KeyPath) -> str | None:
    value: Any = tree.plain(root)
    for step in path:
        value = value[step]
    name = value.get("name") if isinstance(value, dict) else value
    return name if isinstance(name, str) else None


def _other_key(path: KeyPath) -> str:
    """Return the sentence that names the right key, here or at another level."""
    word, owner = path[-1], path[:-1]
    known = _keys_at(owner)
    shape = shapes()
    elsewhere = {
        **{key: f"matrix.{key}" for key in shape.axes},
        **{key: f"defaults.{key}" for key in shape.fields},
        **{key: f"protocol.{key}" for key in _keys_at(("protocol",))},
        **{key: f"limits.{key}" for key in _keys_at(("limits",))},
        **{key: key for key in _keys_at(())},
    }
    if owner == ("matrix",):
        elsewhere["preset"] = "defaults.preset"
    near = nearest(word, known)
    if near is not None and word not in elsewhere:
        return f"Did you mean '{near}'?"
    near = nearest(word, list(elsewhere))
    if near is not None and elsewhere[near] != ".".join(map(str, path)):
        where = elsewhere[near]
        return f"Did you mean '{where}'" + ("?" if "." in where else " at the top level?")
    return f"There are: {', '.join(known)}."


def _keys_at(path: KeyPath) -> list[str]:
    """Return the keys that a mapping at ``path`` may have."""
    model: type[BaseModel] = shapes().document
    for step in path:
        if isinstance(step, str):
            model = next(_models_in(model.model_fields[step].annotation))
    return list(model.model_fields)


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in typing.get_args(kind):
        yield from _models_in(part)
