"""Keys of the pass that the parent samples from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from bench.config.keys import PassKey, Strict, Work, Workload, key
from bench.config.values import MAX_CALLS, Duration, ShortForm, from_to

_Time = Annotated[Duration, from_to(0.1, 3600.0, "must be from 100ms to 1h")]


class TelemetrySettings(Strict):
    """How utilisation, power, … are sampled, after the measured calls."""

    period: Annotated[Duration, from_to(0.01, 60.0, "a period must be from 10ms to 1m")] = key(
        0.1, "time between samples", "10ms to 1m", alias="period_s", unit="s"
    )
    time: _Time = key(
        5.0, "calls are repeated for at least so long", "100ms to 1h", alias="time_s", unit="s"
    )
    calls: Annotated[int, Field(ge=1, le=MAX_CALLS)] = key(
        3, "and at least so many calls", alias="min_calls"
    )
    idle: _Time = key(
        1.0,
        "idle time that is sampled before the first call and after the last one",
        "100ms to 1h",
        alias="idle_s",
        unit="s",
    )


def _switch(value: object) -> object:
    """Read ``true`` as the mapping with every default, and ``false`` as none."""
    return ({} if value else None) if isinstance(value, bool) else value


class _Telemetry(PassKey):
    kind = Annotated[
        TelemetrySettings | None, BeforeValidator(_switch), ShortForm({"type": "boolean"})
    ]
    declared = key(
        None,
        "sample utilisation, memory, power, clock and temperature from outside, in a pass of its "
        "own: `period`, `time`, `calls`, `idle`. Also an axis. See [telemetry.md](telemetry.md)",
        "`true`, `false` or a mapping",
        absent="`false`",
    )

    def value(self, written: Any, workload: Mapping[str, Any], task: type[Workload]) -> Any:
        return None if written is None else written.model_dump(by_alias=True)

    def name(self, key_: str, value: Any) -> str:
        return key_ if value is not None else f"{key_}=off"

    def selected(self, value: Any) -> bool:
        return value is not None

    def seconds(self, value: Any, work: Work) -> float:
        called = max(value["time_s"], value["min_calls"] * work.call(None, None, None))
        return float(2 * value["idle_s"] + called)


KEY = _Telemetry()
