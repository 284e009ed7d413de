"""Sessions of a machine that exists only here: seeded, without a clock.

Every process has luck of its own (2 %), every call a little noise (0.5 %), one call in a hundred is
an outlier, and the whole machine drifts by up to 1 % over a session, in either direction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.gate.decide import Decision, decide

BETWEEN, WITHIN, OUTLIERS, DRIFT = 0.02, 0.005, 0.01, 0.01
PROCESSES, CALLS, ALLOWED_PCT = 16, 10, 1.0
"""The default protocol: rounds and calls of configs/ci-gpu.yaml, and the default limit of speed."""

Arm = list[list[float]]


def arm(rng: np.random.Generator, places: np.ndarray, drift: float, slower: float) -> Arm:
    """Processes at ``places`` (0 to 1) of a session, each with its calls in seconds."""
    luck = np.exp(rng.normal(0, BETWEEN, len(places)) + drift * places)
    noise = np.exp(rng.normal(0, WITHIN, (len(places), CALLS)))
    late = rng.random((len(places), CALLS)) < OUTLIERS
    times = luck[:, None] * noise * np.where(late, rng.uniform(1.1, 1.5, late.shape), 1.0)
    return [list(map(float, process)) for process in times * (1 + slower)]


def _drift(rng: np.random.Generator) -> float:
    return float(rng.uniform(-DRIFT, DRIFT))


def interleaved(rng: np.random.Generator, slower: float) -> tuple[Arm, Arm]:
    """Both arms in one session, in turn: A B, B A, …"""
    places = (np.arange(2 * PROCESSES) / (2 * PROCESSES)).reshape(PROCESSES, 2)
    places[1::2] = places[1::2, ::-1]
    drift = _drift(rng)
    return arm(rng, places[:, 0], drift, 0.0), arm(rng, places[:, 1], drift, slower)


def alone(rng: np.random.Generator, slower: float, processes: int = PROCESSES) -> Arm:
    """One arm in a session of its own."""
    return arm(rng, np.arange(processes) / processes, _drift(rng), slower)


def paired_gate(rng: np.random.Generator, slower: float) -> Decision:
    """``bench gate --paired``, with its confirmation if the first run asks for one."""
    first, second = interleaved(rng, slower), None
    found = decide(*first, ALLOWED_PCT)
    if found.suspect:
        second = interleaved(rng, slower)
        found = decide(*first, ALLOWED_PCT, confirmation=second)
    return found


def stored_gate(rng: np.random.Generator, slower: float) -> Decision:
    """``bench gate --baseline``: the baseline was saved in a session of twice the rounds."""
    baseline, candidate = alone(rng, 0.0, 2 * PROCESSES), alone(rng, slower)
    found = decide(baseline, candidate, ALLOWED_PCT)
    if found.suspect:
        confirmation: tuple[Arm, Arm] = ([], alone(rng, slower))
        found = decide(baseline, candidate, ALLOWED_PCT, confirmation=confirmation)
    return found


def red(
    gate: Callable[[np.random.Generator, float], Decision], gates: int, slower: float, seed: int
) -> float:
    """The share of gates that fail."""
    rng = np.random.default_rng(seed)
    return sum(gate(rng, slower).status == "regression" for _ in range(gates)) / gates
