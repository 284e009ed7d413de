"""Which backends there are: the built-in ones, and entry points of the group ``bench.backends``.

Looking imports nothing; a backend's module is imported when it is asked for by name, so that a
broken third-party package breaks nobody but itself.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from compilers.base import Backend, Traits

GROUP = "bench.backends"

BUILT_IN = {
    "none": "compilers.none:NoBackend",
    "torch-compile": "compilers.torch_compile:TorchCompile",
    "torch-compile-regional": "compilers.torch_compile_regional:TorchCompileRegional",
    "nexfort": "compilers.nexfort:Nexfort",
    "oneflow": "compilers.oneflow:Oneflow",
    "deepcache": "compilers.deepcache:DeepCache",
    "stable-fast": "compilers.stable_fast:StableFast",
    "torchao": "compilers.torchao:Torchao",
    "xformers": "compilers.xformers:Xformers",
    "tensorrt": "compilers.tensorrt:Tensorrt",
    "tuned": "compilers.tuned:Tuned",
    "tuned-fp8": "compilers.tuned:TunedFp8",
    "tuned-int8": "compilers.tuned:TunedInt8",
    "tuned-cache": "compilers.tuned:TunedCache",
}


class BackendError(Exception):
    """A backend that cannot be had; the message is a sentence for the user and names it."""


class UnknownBackendError(BackendError):
    """No backend has this name."""


def names() -> tuple[str, ...]:
    """Return every registered name: the built-in ones first, then third-party ones, sorted."""
    return (*BUILT_IN, *sorted(_third_party()))


def get(name: str) -> Backend:
    """Return the backend called ``name``.

    A built-in name always means the built-in backend.

    Raises:
        UnknownBackendError: nothing is registered under ``name``.
        BackendError: its package does not import, is not a backend, or two packages claim the name.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        backend: Backend = getattr(importlib.import_module(module), attribute)()
        return backend
    claims = _third_party().get(name)
    if claims is None:
        raise UnknownBackendError(f"no backend is called {name!r}; there are: {', '.join(names())}")
    if len(claims) > 1:
        values = ", ".join(sorted(claims))
        raise BackendError(f"several packages register a backend {name!r}: {values}")
    ((value, entry),) = claims.items()
    try:
        loaded = entry.load()
        made = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:
        raise BackendError(
            f"backend {name!r} ({value}) does not load: {type(error).__name__}: {error}"
        ) from error
    return _checked(name, value, made)


def traits(name: str) -> Traits:
    """Return what a backend says of itself for plans; what holds for most, if it says nothing."""
    try:
        own: Traits = getattr(get(name), "traits", Traits())
    except BackendError:  # whoever asks for the backend itself is told
        return Traits()
    return own


def make_options(backend: Backend, values: Mapping[str, Any]) -> Any:
    """Build ``backend.options`` from JSON values; lists become tuples.

    Raises:
        BackendError: an option has no such name, or the values do not make an options object.
    """
    known = [field.name for field in dataclasses.fields(backend.options)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise BackendError(
            f"backend {backend.name!r} has no option {unknown[0]!r}; "
            f"it has: {', '.join(known) or 'none'}"
        )
    try:
        return backend.options(
            **{key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
        )
    except (TypeError, ValueError) as error:
        raise BackendError(f"options of backend {backend.name!r}: {error}") from error


def option_label(name: str, options: Mapping[str, Any]) -> str:
    """Return the backend's name with the options that differ from its defaults.

    Args:
        options: as JSON values; all are shown for a backend that cannot be had here.
    """
    defaults = _defaults(name)
    changed = [
        f"{key}={_short(value)}" for key, value in options.items() if value != defaults.get(key)
    ]
    return f"{name}[{','.join(changed)}]" if changed else name


@functools.cache
def _defaults(name: str) -> dict[str, Any]:
    try:
        fields = dataclasses.fields(get(name).options)
    except BackendError:
        return {}
    found = {}
    for field in fields:
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    as_json: dict[str, Any] = json.loads(json.dumps(found))
    return as_json


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value.rsplit("/", 1)[-1]  # a file: a cell's name has its parts between slashes
    if isinstance(value, list):
        return "+".join(_short(item) for item in value)
    return json.dumps(value, separators=(",", ":"))


def _third_party() -> dict[str, dict[str, importlib.metadata.EntryPoint]]:
    """Return {name: {value: entry point}}; the same value found twice on the path is one claim."""
    found: dict[str, dict[str, importlib.metadata.EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name not in BUILT_IN:
            found.setdefault(entry.name, {})[entry.value] = entry
    return found


def _checked(name: str, value: str, made: Any) -> Backend:
    if not isinstance(made, Backend):
        wanted = ("name", "options", "environment", "lossy", "probe", "prepare", "evidence")
        lacking = [attribute for attribute in wanted if not hasattr(made, attribute)]
        raise BackendError(f"backend {name!r} ({value}) lacks {', '.join(lacking)}")
    if made.name != name:
        raise BackendError(f"backend {name!r} ({value}) calls itself {made.name!r}")
    options: Any = made.options
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise BackendError(f"backend {name!r} ({value}): options must be a dataclass")
    return made
