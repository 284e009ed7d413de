"""Backends as the configuration sees them: names, and options checked against their dataclass."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from compilers import registry
from compilers.base import Backend, Traits


class OptionError(Exception):
    """Options that a backend refuses. ``errors`` are pydantic's, or empty if it refused itself."""

    def __init__(self, message: str, errors: list[Any]) -> None:
        super().__init__(message)
        self.errors = errors


@functools.cache
def names() -> tuple[str, ...]:
    """Return the registered names, built-in ones first."""
    return registry.names()


@functools.cache
def get(name: str) -> Backend:
    """Return a backend.

    Raises:
        registry.BackendError: there is none of this name, or it does not load.
    """
    return registry.get(name)


@functools.cache
def traits(name: str) -> Traits:
    """Return what a backend says of itself for plans."""
    return registry.traits(name)


@functools.cache
def options_model(name: str) -> type[BaseModel]:
    """Return the strict model of a backend's options, made from its dataclass."""
    options = get(name).options
    hints = typing.get_type_hints(options, include_extras=True)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        default: Any = ...
        if field.default is not dataclasses.MISSING:
            default = Field(default=field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = Field(default_factory=field.default_factory)
        fields[field.name] = (hints[field.name], default)
    model: type[BaseModel] = create_model(
        options.__name__,
        __config__=ConfigDict(
            extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
        ),
        **fields,
    )
    return model


def option_descriptions(name: str) -> dict[str, str]:
    """Return what the options' docstrings say about each, under their ``Attributes:``."""
    described: dict[str, str] = {}
    for part in reversed(get(name).options.__mro__):
        _, _, listed = inspect.cleandoc(part.__doc__ or "").partition("Attributes:\n")
        for match in re.finditer(r"^    (\w+): (.*(?:\n     +.*)*)", listed, re.MULTILINE):
            described[match[1]] = " ".join(match[2].split())
    return described


def resolve_options(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return all options of a backend as JSON values: those given, over the defaults.

    Raises:
        OptionError: an unknown option, a wrong type or value, or one missing.
    """
    model = options_model(name)
    try:
        # JSON mode: strict about types, and a list is how YAML and JSON write a tuple
        values = model.model_validate_json(json.dumps(given)).model_dump(mode="json")
    except ValidationError as error:
        raise OptionError(str(error), list(error.errors(include_url=False))) from None
    try:
        registry.make_options(get(name), values)
    except registry.BackendError as error:
        raise OptionError(str(error), []) from None
    return values


def option_label(name: str, options: dict[str, Any]) -> str:
    """Return the backend's name with the options that differ from the defaults."""
    defaults = _defaults(name)
    changed = [
        f"{key}={_short(value)}" for key, value in options.items() if value != defaults.get(key)
    ]
    return f"{name}[{','.join(changed)}]" if changed else name


@functools.cache
def _defaults(name: str) -> dict[str, Any]:
    try:
        return resolve_options(name, {})
    except OptionError:  # an option without default
        return {}


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value.rsplit("/", 1)[-1]  # a file: a cell's name has its parts between slashes
    if isinstance(value, list):
        return "+".join(_short(item) for item in value)
    return json.dumps(value, separators=(",", ":"))


def look_again() -> None:
    """Forget the answers, so that a package installed meanwhile is seen.

    Within one configuration the answers are kept, since a matrix asks for each of its cells.
    """
    for cached in (names, get, traits, options_model, _defaults):
        cached.cache_clear()
