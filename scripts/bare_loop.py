"""A cell of the harness and a bare loop beside it, which take turns call by call."""

from __future__ import annotations

import copy
import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WARMUP_CALLS = 3


def protocol(pairs: int) -> dict[str, Any]:
    """Return the protocol of the cell: one measured call more than the bare loop has."""
    warmup = {"min_calls": WARMUP_CALLS, "max_calls": WARMUP_CALLS}
    calls = {"min_calls": pairs + 1, "max_calls": pairs + 1}
    return {
        "warmup": {**warmup, "stable_calls": 2, "stable_pct": 5.0},
        "calls": {**calls, "noise_target_pct": 0.0, "time_cap_s": 1e9},
        "rounds": 1,
    }


def take_turns(
    recorded: Mapping[str, Any], device: str, pairs: int, bare: Callable[[], Sequence[Any]]
) -> dict[str, Any]:
    """Run a cell; after each of its measured calls but the last, time one call of ``bare``.

    Args:
        bare: returns the images of a call.

    Returns:
        harness_s and bare_s in seconds, the former with one more value, harness_pictures and
        bare_pictures (hashes), and the steps_effective of the cell.
    """
    import torch

    from bench.worker.cell import run_job

    cell: Any = copy.deepcopy(dict(recorded))
    cell.update(protocol=protocol(pairs), sweep=None, profile=False, cache="fresh")
    times: dict[str, list[float]] = {"harness_s": [], "bare_s": []}
    last: list[Any] = []
    ending: dict[str, Any] = {}

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    def one_bare_call() -> float:
        wait()
        begin = time.perf_counter()
        last[:] = bare()
        wait()
        return time.perf_counter() - begin

    def listen(event: dict[str, Any]) -> None:
        fields = event.get("fields", {})
        ending.update({key: fields[key] for key in ("steps_effective", "images") if key in fields})
        if "warmup_s" in fields:
            one_bare_call()
        elif event["event"] == "append" and "e2e_s" in fields:
            times["harness_s"].append(fields["e2e_s"])
            if len(times["harness_s"]) <= pairs:
                times["bare_s"].append(one_bare_call())
        elif event["event"] == "end":
            ending.update(event)

    with tempfile.TemporaryDirectory() as folder:
        places = dict.fromkeys(("pictures_dir", "pictures_relative_to", "cache_dir"), folder)
        job: Any = {"cell": cell, "round": 0, "device": device, "prime_only": False, **places}
        run_job(job, listen)
    if ending.get("outcome") != "ok":
        raise SystemExit(f"the cell ended {ending.get('outcome')}: {ending.get('reason')}")
    pixels = [image.convert("RGB").tobytes() for image in last]
    return {
        **times,
        "harness_pictures": [image["sha256"] for image in ending["images"]],
        "bare_pictures": [hashlib.sha256(each).hexdigest() for each in pixels],
        "steps_effective": ending.get("steps_effective"),
    }
