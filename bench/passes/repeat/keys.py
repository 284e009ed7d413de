"""Key of the pass that compares equal calls."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from bench.config.keys import PassKey, Work, key
from bench.config.values import MAX_CALLS


class _Repeat(PassKey):
    kind = Annotated[int, Field(ge=2, le=MAX_CALLS)] | None
    declared = key(
        None,
        "so many further equal calls, whose images and memory are compared. Also an axis. See "
        "[repeat.md](repeat.md)",
    )

    def seconds(self, value: Any, work: Work) -> float:
        return float(value * work.call(None, None, None))


KEY = _Repeat()
