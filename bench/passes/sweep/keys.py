"""Keys of the pass that measures other step counts and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from bench import chains
from bench.config.keys import PassKey, Strict, Work, Workload, key, model_class
from bench.config.values import Size, Steps, bad, different, refuse

MAX_POINTS = 100
MIN_STEPS = 3


def _points(what: str, least: int) -> AfterValidator:
    """Return the check that a sweep is long enough to say anything, and says no point twice."""
    unlike = different(what, "; 'repeats' says how often each is measured")

    def check(value: list[Any]) -> list[Any]:
        unlike(value)
        if not least <= len(value) <= MAX_POINTS:
            refuse(f"{what} needs from {least} to {MAX_POINTS} different values, not {len(value)}")
        return value

    return AfterValidator(check)


def _length(least: int) -> Any:
    return Field(json_schema_extra={"minItems": least, "maxItems": MAX_POINTS, "uniqueItems": True})


class SweepSettings(Strict):
    """Other step counts and sizes, measured in the same process after the cell's own calls."""

    steps: Annotated[list[Steps], _points("steps", MIN_STEPS), _length(MIN_STEPS)] | None = key(
        None,
        "each is warmed with one call, then measured `repeats` times in a shuffled order. 5 to 7 "
        "points are good; with 3 or 4 the fit can hardly tell an outlier from a bend",
        "a list of 3 or more different step counts, or null",
    )
    size: Annotated[list[Size], _points("size", 1), _length(1)] | None = key(
        None,
        "each as a workload's `size`, in this order: first call, second call, then `repeats` calls",
        "a list of sizes, or null",
    )
    repeats: int = key(3, "measured calls of each step count and each size", ge=1, le=1000)


class _Sweep(PassKey):
    kind = SweepSettings | None
    declared = key(
        None,
        "other step counts and sizes that every cell measures besides, in the same process. See "
        "[Sweep](#sweep)",
        "a mapping or null",
    )
    axis = False
    nested = True
    always = True

    def value(self, written: Any, workload: Mapping[str, Any], task: type[Workload]) -> Any:
        if written is None:
            return None
        if not written.steps and not written.size:
            raise bad("a sweep needs 'steps' or 'size'; for none, write 'sweep: null'")
        _check_steps(written.steps or [], workload, task)
        return {
            "steps": list(written.steps or []),
            "size": [dict(size) for size in written.size or []],
            "repeats": written.repeats,
        }

    def seconds(self, value: Any, work: Work) -> float:
        repeats = value["repeats"]
        spent = (1 + repeats) * sum(work.call(steps, None, None) for steps in value["steps"])
        for size in value["size"]:
            call = work.call(None, size["height"], size["width"])
            spent += work.compile_s + (2 + repeats) * call
        return float(spent)


def _check_steps(steps: list[int], workload: Mapping[str, Any], task: type[Workload]) -> None:
    """Refuse step counts of which image-to-image leaves nothing, or too few different ones."""
    strength = workload["strength"]
    if strength is None or not steps:
        return
    made = None if workload.get("custom_pipeline") else model_class(workload["model"])
    if chains.class_steps(made, min(steps), strength) == 0:
        raise bad(
            f"sweep: strength {strength:g} x {min(steps)} steps leaves {min(steps) * strength:g}, "
            "less than one step",
            "steps",
        )
    if chains.class_steps(made, 1, 1.0) is None:
        return  # how this class rounds is not known
    # of a chain, the first round takes them all
    taken = sorted({task.rounds(workload, each)[0][1] for each in steps})
    if len(taken) < MIN_STEPS:
        raise bad(
            f"sweep: strength {strength:g} leaves of these steps only "
            f"{' and '.join(map(str, taken))}; a line needs {MIN_STEPS} different step counts",
            "steps",
        )


KEY = _Sweep()
