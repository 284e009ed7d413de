"""What rows have to do with each other: their names, groups, and the pairs of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.audit.build import is_baseline
from bench.audit.table import Floats, Table

COMPARED = ("session", "round", "model", "task", "prompt", "height", "width")
"""What the rows of one comparison share at least."""

ARM_FIELDS = (
    "gpu", "dtype", "batch", "steps", "steps_effective", "denoiser_calls", "strength", "guidance",
    "scheduler", "torch", "diffusers", "cuda", "driver", "warmups", "runs",
)  # fmt: skip
"""What the arms of a comparison should share too, by the name that a finding uses."""

CLAIM = ("steps", "steps_effective", "denoiser_calls", "strength", "scheduler")
"""What a row says of how often the denoiser was called."""

_CANDIDATES = 64
_NAMED_ROWS = 6


@dataclass(frozen=True, slots=True)
class Pair:
    """A baseline row and another arm's; ``differs`` names what else is unlike."""

    base: int
    other: int
    differs: tuple[str, ...]


def field(table: Table, name: str) -> list[str]:
    """Return a column as texts that can be compared, "" where nothing stands."""
    found: list[str] | None = table.memo.get(("field", name))
    if found is None:
        if name in table.texts:
            found = [text.strip() for text in table.texts[name]]
        elif name in table.numbers:
            values, inverse = np.unique(table.numbers[name].values, return_inverse=True)
            texts = ["" if v != v else f"{v:.10g}" for v in values.tolist()]
            found = [texts[k] for k in inverse.tolist()]
        else:
            found = [""] * len(table)
        table.memo["field", name] = found
    return found


def kinds(table: Table, names: Sequence[str]) -> NDArray[np.int64]:
    """Return one number for each row, (rows,): equal where rows agree in all of ``names``."""
    key = ("kinds", *names)
    found: NDArray[np.int64] | None = table.memo.get(key)
    if found is None:
        found = np.zeros(len(table), dtype=np.int64)
        for name in names:
            if not table.has(name):
                continue
            number: dict[str, int] = {}
            own = np.array([number.setdefault(t, len(number)) for t in field(table, name)])
            # Numbered anew each time, so that no product grows beyond 64 bits.
            found = np.unique(found * len(number) + own, return_inverse=True)[1].astype(np.int64)
        table.memo[key] = found
    return found


def groups(
    table: Table, names: Sequence[str], rows: Iterable[int] | None = None
) -> list[list[int]]:
    """Return rows that agree in all of ``names``, in the order of the table."""
    own = kinds(table, names).tolist()
    found: dict[int, list[int]] = {}
    for i in range(len(table)) if rows is None else rows:
        found.setdefault(own[i], []).append(i)
    return list(found.values())


def pairs(table: Table) -> list[Pair]:
    """Return each accelerated row with the baseline row most like it, if there is one."""
    found: list[Pair] | None = table.memo.get("pairs")
    if found is None:
        found = table.memo["pairs"] = _pairs(table)
    return found


def _pairs(table: Table) -> list[Pair]:
    if "backend" not in table.texts:
        return []
    arms = table.texts["backend"]
    known = {arm: is_baseline(arm) for arm in set(arms)}
    base = [known[arm] for arm in arms]
    if not any(base) or all(base):
        return []
    columns = [(name, field(table, name)) for name in ARM_FIELDS if table.has(name)]
    # A run's rounds and calls are repeats; how many there are makes no arm unequal.
    columns = [(name, column) for name, column in columns if name != "runs"]
    settings = kinds(table, [name for name, _ in columns]).tolist()
    found = []
    for group in groups(table, [name for name in COMPARED if table.has(name)]):
        bases = [i for i in group if base[i]]
        exact: dict[int, int] = {}
        for i in bases:
            exact.setdefault(settings[i], i)
        for i in group:
            if base[i] or not arms[i] or not bases:
                continue
            like = exact.get(settings[i])
            if like is not None:
                found.append(Pair(like, i, ()))
                continue
            unlike = [
                tuple(name for name, c in columns if c[i] and c[b] and c[i] != c[b])
                for b in bases[:_CANDIDATES]
            ]
            nearest = min(range(len(unlike)), key=lambda k: len(unlike[k]))
            found.append(Pair(bases[nearest], i, unlike[nearest]))
    return found


def calls_candidates(table: Table, i: int) -> list[float]:
    """Return how many loop iterations row ``i`` may mean, what it claims first.

    The claim itself; what hooks counted; steps × strength, which image-to-image takes; and what the
    scheduler makes of a step.
    """
    key = ("candidates", CLAIM)
    if key not in table.memo:
        table.memo[key] = (kinds(table, CLAIM).tolist(), {})
    own, known = table.memo[key]
    if own[i] not in known:
        known[own[i]] = _calls_candidates(table, i)
    found: list[float] = known[own[i]]
    return found


def _calls_candidates(table: Table, i: int) -> list[float]:
    found: list[float] = []
    steps = float(table.values("steps")[i])
    for name in ("steps", "steps_effective", "denoiser_calls"):
        value = float(table.values(name)[i])
        if value > 0:
            found.append(value)
    strength = float(table.values("strength")[i])
    if steps > 0 and 0 < strength < 1:
        found.append(effective_steps(steps, strength))
    scheduler = table.text("scheduler")[i]
    found += [extra_calls(scheduler, n) for n in tuple(found) if scheduler]
    return list(dict.fromkeys(n for n in found if n >= 1))


def effective_steps(steps: float, strength: float) -> float:
    """Return int(steps × strength), as diffusers' image-to-image pipelines and LDM take it."""
    product = steps * strength
    return float(min(int(product + 1e-9), steps)) if math.isfinite(product) else math.nan


def extra_calls(scheduler: str, steps: float) -> float:
    """Return how often a scheduler calls the denoiser for ``steps`` steps.

    Second-order ones call twice but for the last step (diffusers: Heun, KDPM2; k-diffusion: dpm_2,
    dpmpp_sde), PLMS once more than its steps (diffusers' PNDM without Runge-Kutta, CompVis' plms).
    """
    name = scheduler.lower().replace("_", "").replace("-", "").replace(" ", "")
    if any(mark in name for mark in ("heun", "kdpm2", "dpm2a", "dpm2k", "dpmppsde", "dpm++sde")):
        return 2 * steps - 1
    if "plms" in name or "pndm" in name:
        return steps + 1
    return steps


def stride_calls(steps: float, trained: int = 1000) -> int:
    """Return how many timesteps a uniform stride gives: len(range(0, 1000, 1000 // steps)).

    LDM's ``make_ddim_timesteps`` with method "uniform".
    """
    whole = int(steps)
    if not 1 <= whole <= trained:
        return whole
    return len(range(0, trained, trained // whole))


def megapixels(table: Table) -> Floats:
    """Return 10⁶ pixels of each row, of the size really used where the table says it."""
    height, width = table.values("height"), table.values("width")
    if table.has("height_used", "width_used"):
        used = table.values("height_used") * table.values("width_used")
        return np.asarray(np.where(np.isfinite(used), used, height * width)) / 1e6
    return np.asarray(height * width / 1e6)


def label(table: Table, i: int) -> str:
    """Return what a reader calls row ``i``: model, task, arm and size, and its line."""
    parts = []
    model = table.text("model")[i]
    if model:
        parts.append(model.rstrip("/").rpartition("/")[2][:40])
    elif table.text("name")[i]:
        parts.append(table.text("name")[i][:40])
    for name in ("task", "backend"):
        text = table.text(name)[i]
        if text and text not in parts:
            parts.append(text[:30])
    height, width = float(table.values("height")[i]), float(table.values("width")[i])
    if height == height and width == width:
        parts.append(f"{width:g}×{height:g}")
    place = f"{table.place} {table.lines[i]}"
    return f"{place} ({', '.join(parts)})" if parts else place


def listed(table: Table, rows: Sequence[int]) -> str:
    """Return a short list of rows for a sentence."""
    shown = [label(table, i) for i in rows[:_NAMED_ROWS]]
    more = len(rows) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def places(table: Table, rows: Sequence[int]) -> str:
    """Return only the lines of rows: "lines 3, 4 and 7"."""
    numbers = [str(table.lines[i]) for i in rows[:12]]
    more = len(rows) - len(numbers)
    plural = "entries" if table.place == "entry" else f"{table.place}s"
    word = table.place if len(rows) == 1 else plural
    if more > 0:
        return f"{word} {', '.join(numbers)} and {more} more"
    if len(numbers) == 1:
        return f"{word} {numbers[0]}"
    return f"{word} {', '.join(numbers[:-1])} and {numbers[-1]}"


def figure(value: float, unit: str = "") -> str:
    """Return a figure with four significant digits, as a sentence shows it."""
    text = f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0f}"
    return f"{text} {unit}".strip()
