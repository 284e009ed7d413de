"""What a backend can change about a pipeline, taken down before and after it does."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from bench.contract import SCOPES
from compilers.scopes import denoiser_name, text_encoder_names

OTHER_HALF = {
    "encode": ("decode", ("decoder", "post_quant_conv")),
    "decode": ("encode", ("encoder", "quant_conv")),
}
"""By method of an autoencoder: the other method, and the parts that only it uses."""


def module_names(pipeline: Any, scopes: Iterable[str]) -> dict[str, str]:
    """Describe the module behind each scope, wrappers outermost first."""
    found = {}
    for scope in scopes:
        owner, _, method = scope.partition(".")
        module = getattr(pipeline, owner, None)
        if module is None:
            continue
        names = [type(module).__name__]
        while hasattr(module, "_orig_mod"):
            module = module._orig_mod
            names.append(type(module).__name__)
        text = " of ".join(names)
        if method and method in getattr(module, "__dict__", {}):
            text += f" with its own {method}()"
        in_place = sum(
            getattr(part, "__dict__", {}).get("_compiled_call_impl") is not None
            for part in (module.modules() if hasattr(module, "modules") else ())
        )
        if in_place:
            text += f", {in_place} modules compiled in place"
        found[scope] = text
    return found


def of(pipeline: Any) -> dict[str, Any]:
    """Return what a backend can change, by scope, as values that compare equal if it did not.

    Types of all modules and their forward functions, functions put on instances, hooks, in-place
    compilation, attention processors, and type, precision and layout of each parameter. Not the
    identity of modules: an equal copy runs as before. ``pipeline`` holds what is no scope,
    ``scheduler`` functions put on it, and ``settings`` what torch was told for the whole process.
    """
    found: dict[str, Any] = {
        "pipeline": _pipeline_parts(pipeline),
        "scheduler": _own_functions(getattr(pipeline, "scheduler", None)),
        "settings": _settings(),
    }
    for scope in scopes_of(pipeline):
        owner_name, _, method = scope.partition(".")
        owner = getattr(pipeline, owner_name)
        if not method:
            found[scope] = _module_parts(owner)
            continue
        call = getattr(owner, method)
        holder = getattr(call, "__self__", owner)
        other_method, other_parts = OTHER_HALF[method]
        found[scope] = (
            getattr(call, "__func__", call),
            [
                part
                for part in _module_parts(holder, leave_out=other_method)
                if part[0].split(".")[0] not in other_parts
            ],
        )
    return found


def scopes_of(pipeline: Any) -> tuple[str, ...]:
    """Return the names of ``SCOPES`` that this pipeline has."""
    present = {*text_encoder_names(pipeline), denoiser_name(pipeline)}
    autoencoder = getattr(pipeline, "vae", None)
    present.update(f"vae.{m}" for m in ("encode", "decode") if hasattr(autoencoder, m))
    return tuple(scope for scope in SCOPES if scope in present)


def changed_scopes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)
    )


def _settings() -> list[tuple[str, Any]]:
    """Return the switches by which a process chooses its kernels; empty without torch."""
    backends: Any = getattr(sys.modules.get("torch"), "backends", None)
    if backends is None:
        return []
    found = [
        ("cudnn.benchmark", backends.cudnn.benchmark),
        ("cudnn.allow_tf32", backends.cudnn.allow_tf32),
        ("matmul.allow_tf32", backends.cuda.matmul.allow_tf32),
    ]
    for kernel in ("flash", "mem_efficient", "cudnn", "math"):
        enabled = getattr(backends.cuda, f"{kernel}_sdp_enabled", None)
        found.append((f"{kernel}_sdp", None if enabled is None else enabled()))
    return found


def _pipeline_parts(pipeline: Any) -> Any:
    kind = type(pipeline)
    components = getattr(pipeline, "components", None)
    return (
        kind,
        vars(kind).get("__call__"),
        _own_functions(pipeline),
        sorted((name, str(type(part))) for name, part in components.items())
        if isinstance(components, Mapping)
        else None,
    )


def _module_parts(module: Any, leave_out: str = "") -> list[Any]:
    if not hasattr(module, "named_modules"):
        return [("", type(module), _own_functions(module, leave_out))]
    return [
        (
            path,
            type(part),
            getattr(type(part), "forward", None),
            _own_functions(part, leave_out),
            len(getattr(part, "_forward_hooks", ())),
            len(getattr(part, "_forward_pre_hooks", ())),
            _parameters(part),
        )
        for path, part in module.named_modules()
    ]


def _own_functions(owner: Any, leave_out: str = "") -> list[tuple[str, Any]]:
    plain = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
    return [
        (name, value if isinstance(value, plain) else type(value))
        for name, value in sorted(getattr(owner, "__dict__", {}).items())
        if callable(value) and not hasattr(value, "named_modules") and name != leave_out
    ]


def _parameters(module: Any) -> list[Any]:
    found = []
    for name, value in sorted((getattr(module, "_parameters", None) or {}).items()):
        if value is None:
            continue
        try:
            layout = tuple(value.stride())
        except (RuntimeError, NotImplementedError):
            layout = ()
        found.append((name, type(value), type(value.data), value.dtype, tuple(value.shape), layout))
    return found
