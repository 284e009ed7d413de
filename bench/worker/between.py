"""What a loop does between pictures to give memory back; outside every call's time."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from bench import modes
from bench.contract import Outcome


def refusal(workload: Mapping[str, Any], device: str) -> tuple[Outcome, str] | None:
    """Say how a cell ends whose device has nothing to give back."""
    asked = modes.parts(workload.get("between"))
    if "empty-cache" in asked and not device.startswith(("cuda", "mps")):
        return "unsupported", (
            f"torch keeps no cache of memory for {device}, so empty-cache would do nothing; "
            "'between: gc' is what can be measured here"
        )
    return None


def action(
    workload: Mapping[str, Any], device: str, collect: Callable[[], Any] = gc.collect
) -> Callable[[], None] | None:
    """Return what to do after each call; None if nothing is asked for."""
    steps: list[Callable[[], Any]] = []
    for name in modes.parts(workload.get("between")):
        steps.append(collect if name == "gc" else _emptying(device))
    if not steps:
        return None

    def act() -> None:
        for step in steps:
            step()

    return act


def _emptying(device: str) -> Callable[[], Any]:
    # torch 2.0 does not load all of its parts by itself.
    home: Any = importlib.import_module(f"torch.{device.partition(':')[0]}")
    empty: Callable[[], Any] = home.empty_cache
    return empty
