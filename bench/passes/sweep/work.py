"""Other step counts and sizes, in the same process, once the cell's own calls are measured.

A point that fails is recorded with its outcome and the sweep goes on: nothing here can change what
the cell has measured.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contract import Outcome, Sweep, SweepSize
from bench.passes.base import Context, Pass
from bench.worker import dynamo, failure, memory, pictures
from bench.worker.instrument import Sample


def shuffled(steps: Sequence[int], repeats: int, seed: str) -> list[int]:
    """Return each of ``steps`` ``repeats`` times, in an order that only ``seed`` decides.

    Whatever drifts with time then falls on all step counts alike, and not on the slope.
    """
    order = [each for each in steps for _ in range(repeats)]
    random.Random(seed).shuffle(order)
    return order


@dataclass(frozen=True)
class _Call:
    """One call of a sweep. Without a sample it failed; a sample that is not ``ok`` is no figure.

    Attributes:
        size: (width, height) of the pictures in pixels.
        compiled: what torch compiled meanwhile.
        eager: why the backend was not active in it; None if it was.
    """

    sample: Sample | None
    size: tuple[int, int] | None
    compiled: dynamo.Counts
    outcome: Outcome
    reason: str | None
    eager: str | None = None


class SweepPass(Pass):
    """Measures other step counts and sizes."""

    phases = {"sweep": "sweeping"}
    counted = frozenset({"sweep_steps_warmup", "sweep_steps"})
    missing = "there was no sweep"

    def run(self, context: Context) -> None:
        seed = f"{context.workload['seed']}/{context.job['round']}"
        Sweeper(context).run(context.asked, seed)


class Sweeper:
    """Runs the sweeps of one cell and reports each call or size when it is done."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._append = context.report.append

    def run(self, sweep: Sweep, seed: str) -> None:
        """Sweep steps, then sizes: a new shape may make a compiler trade away the old one."""
        if sweep["steps"]:
            self._sweep_steps(sweep["steps"], sweep["repeats"], seed)
        for order, size in enumerate(sweep["size"]):
            self._append(sweep_size={"order": order, **self._measure_size(size, sweep["repeats"])})

    def _sweep_steps(self, steps: Sequence[int], repeats: int, seed: str) -> None:
        """Warm every step count with one call, then measure those that can run, shuffled."""
        inputs: dict[int, Any] = {}
        for each in steps:
            made, call = self._first_call({"steps": each}, f"sweeping at {each} steps")
            self._append(sweep_steps_warmup=_steps_entry(each, call))
            if call.sample is not None:
                inputs[each] = made
        gc.collect()
        for order, each in enumerate(shuffled(list(inputs), repeats, seed)):
            call = self._call(inputs[each], f"sweeping at {each} steps", compiles=False)
            self._append(sweep_steps={"order": order, **_steps_entry(each, call)})

    def _measure_size(self, size: SweepSize, repeats: int) -> dict[str, Any]:
        """Call one size for the first and second time, then ``repeats`` times, unless one fails."""
        doing = f"sweeping at {size['width']}x{size['height']}"
        log = dynamo.CompilerLog()
        entry: dict[str, Any] = {
            "height": size["height"],
            "width": size["width"],
            "output_height": None,
            "output_width": None,
            "steps_effective": None,
            "denoiser_calls": None,
            "first_s": None,
            "second_s": None,
            "e2e_s": [],
        }
        inputs, call = self._first_call(size, doing)
        compiled, eager = call.compiled, call.eager
        if call.sample is not None and call.size is not None:
            entry["output_width"], entry["output_height"] = call.size
            entry["steps_effective"] = call.sample.steps_effective
            entry["denoiser_calls"] = call.sample.denoiser_calls
            entry["first_s"] = call.sample.e2e_s
        if call.outcome == "ok":
            call = self._call(inputs, doing, compiles=True)
            compiled, eager = compiled + call.compiled, eager or call.eager
            entry["second_s"] = None if call.sample is None else call.sample.e2e_s
        if call.outcome == "ok":
            gc.collect()
            for _ in range(repeats):
                call = self._call(inputs, doing, compiles=False)
                if call.outcome != "ok" or call.sample is None:
                    break
                entry["e2e_s"].append(call.sample.e2e_s)
                eager = eager or call.eager
        outcome, reason = call.outcome, call.reason
        limits = log.limits_hit()
        if outcome == "ok" and limits:
            outcome = "fallback"
            reason = (
                f"torch reached its recompile limit in {limits[0]}, so that this size ran eager "
                "there"
            )
        elif outcome == "ok" and eager:
            outcome, reason = "fallback", eager
        return {
            **entry,
            "graphs": compiled.graphs,
            "recompiles": compiled.recompiles,
            "compile_cache": log.compile_cache(),
            "outcome": outcome,
            "reason": reason,
        }

    def _first_call(self, changes: Mapping[str, Any], doing: str) -> tuple[Any, _Call]:
        """Make the inputs of the changed workload and call with them."""
        try:
            inputs = self._context.prepare({**self._context.workload, **changes})
        except (Exception, SystemExit) as error:  # noqa: BLE001 - all of them are outcomes
            return None, self._failed(error, doing, dynamo.Counts())
        return inputs, self._call(inputs, doing, compiles=True)

    def _call(self, inputs: Any, doing: str, *, compiles: bool) -> _Call:
        """Call once; ``compiles`` says whether torch may compile meanwhile."""
        before = dynamo.read_counts()
        try:
            sample = self._context.measure(inputs)
            images = pictures.of_output(sample.output)
            defects = [pictures.defect(image) for image in images]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - all of them are outcomes
            return self._failed(error, doing, dynamo.read_counts() - before)
        compiled = dynamo.read_counts() - before
        outcome: Outcome = "ok"
        reason: str | None = None
        bad = next(
            (f"picture {at} is {defect}" for at, defect in enumerate(defects) if defect), None
        )
        if bad is not None:
            outcome, reason = "invalid", f"{bad} (while {doing})"
        elif not compiles and (compiled.graphs or compiled.attempts):
            outcome = "invalid"
            reason = f"torch compiled during this call, so its time contains compiling ({doing})"
        eager = self._context.instruments.eager(sample)
        return _Call(sample, images[0].size, compiled, outcome, reason, eager)

    def _failed(self, error: BaseException, doing: str, compiled: dynamo.Counts) -> _Call:
        failure.log(error)
        outcome, reason = failure.outcome_and_reason(error, doing)
        # The traceback holds what the call had allocated, which the next point may need.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        memory.give_back(self._context.device)
        return _Call(None, None, compiled, outcome, reason)


def _steps_entry(steps: int, call: _Call) -> dict[str, Any]:
    outcome, reason = call.outcome, call.reason
    if outcome == "ok" and call.eager:
        outcome, reason = "fallback", call.eager
    sample = call.sample if outcome == "ok" else None
    return {
        "steps": steps,
        "steps_effective": None if sample is None else sample.steps_effective,
        "denoiser_calls": None if sample is None else sample.denoiser_calls,
        "e2e_s": None if sample is None else sample.e2e_s,
        "it_per_s": None if sample is None else sample.it_per_s,
        "outcome": outcome,
        "reason": reason,
    }


PASS = SweepPass()
