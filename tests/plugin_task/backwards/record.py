from typing import Any

from msgspec import Struct


class Fields(Struct, frozen=True, kw_only=True):
    backwards: dict[str, Any] | None = None
