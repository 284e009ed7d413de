"""Values on their way to the parent: only what JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it.

    Numbers that are not finite become None, numpy and torch scalars their Python value, arrays and
    tuples lists, anything else its text.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def sanitised(emit: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Return an ``emit`` that passes on what JSON can hold, whatever a library put in."""

    def send(event: dict[str, Any]) -> None:
        emit(plain(event))

    return send
