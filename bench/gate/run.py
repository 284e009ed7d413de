"""Measure, compare, confirm: ``bench gate`` without its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from bench import api
from bench.config import load_config, make_plan
from bench.gate import REGRESSION, GateError, baselines, measured
from bench.gate.compare import Comparison, compare
from bench.gate.limits import COUNTS_ALONE, Limits
from bench.gate.measured import Measurement
from bench.runner import Ui

Say = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """One side of a paired gate: which code is measured, and by which interpreter.

    Attributes:
        label: ``baseline`` or ``candidate``; also the name of its run folder.
        checkout: folder whose ``bench``, ``compilers`` and plug-ins are imported first, and in
            which the arm runs; None for the working folder.
        python: its interpreter; None for this one.
    """

    label: str
    checkout: Path | None = None
    python: Path | None = None

    def check(self) -> None:
        """Raise GateError if it cannot be run."""
        if self.checkout is not None and not self.checkout.is_dir():
            raise GateError(f"{self.checkout} is not a folder, so it is no checkout.")
        if self.python is not None and not os.access(self.python, os.X_OK):
            raise GateError(f"{self.python} is not an interpreter that can be run.")

    @property
    def folder(self) -> Path:
        return (self.checkout or Path.cwd()).absolute()


@dataclass(frozen=True)
class Request:
    """What is asked of the gate.

    Attributes:
        config: the YAML file.
        out: folder for the runs; must not hold runs yet.
        overrides: as ``--set``.
        only: as ``--only``.
        limits: what is gated.
    """

    config: Path
    out: Path
    overrides: Sequence[str] = ()
    only: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass
class Outcome:
    """How a gate ended.

    Attributes:
        comparison: with the baseline; of paired arms if there were any.
        against_stored: besides, of a paired gate's candidate with a stored baseline: counts only.
        runs: the run folders, as they were measured.
    """

    comparison: Comparison
    against_stored: Comparison | None = None
    runs: list[Path] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """As `Comparison.exit_code`; a regression in either comparison counts."""
        codes = [each.exit_code for each in (self.comparison, self.against_stored) if each]
        return REGRESSION if REGRESSION in codes else max(codes)


def default_out() -> Path:
    """Return a new folder's path under ``runs/gate``."""
    return Path("runs", "gate", datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f"))


def against_baseline(
    asked: Request, name: str, folder: Path, *, ui: Ui | None = None, say: Say = lambda _: None
) -> Outcome:
    """Measure, compare with the stored baseline, and confirm what looks like a regression.

    Raises:
        GateError: there is no such baseline, or ``out`` is taken; nothing was started.
        bench.config.ConfigError, bench.runner.RunnerError, bench.store.StoreError: as `bench.run`.
        KeyboardInterrupt: as `bench.run`.
    """
    baselines.of_name(name, folder)
    _check_out(asked.out)
    runs: list[Path] = []

    def measure(folder: str, only: Sequence[str]) -> Measurement:
        runs.append(_measure(asked, asked.out / folder, only, ui))
        return measured.of_run(runs[-1])

    candidate = measure("candidate", asked.only)
    stored = _stored(asked, name, candidate, folder)

    def again(only: Sequence[str]) -> tuple[None, Measurement]:
        return None, measure("confirmation", only)

    return Outcome(_confirmed(asked, stored, candidate, again, say), runs=runs)


def _confirmed(
    asked: Request,
    baseline: Measurement,
    candidate: Measurement,
    again: Callable[[Sequence[str]], tuple[Measurement | None, Measurement]],
    say: Say,
    *,
    paired: bool = False,
) -> Comparison:
    """Compare; what looks worse is measured ``again``, by a selection, and has to look so twice."""
    first = compare(baseline, candidate, asked.limits, paired=paired)
    if not first.suspects:
        return first
    say(f"{', '.join(first.suspects)}: looks slower or larger; measuring once more to confirm.")
    second = again(_only(asked, first.suspects))
    return compare(baseline, candidate, asked.limits, confirmation=second, paired=paired)


def paired(
    asked: Request,
    baseline: Arm,
    candidate: Arm,
    *,
    stored: tuple[str, Path] | None = None,
    say: Say = lambda _: None,
    measure: Callable[[Arm, Request, Path, Sequence[str], int], None] | None = None,
) -> Outcome:
    """Measure both arms in turn, round by round (A B, B A, …), compare, and confirm likewise.

    Args:
        asked: what to measure and what to gate.
        baseline: the arm that is compared with.
        candidate: the arm that is judged.
        stored: name and folder of a stored baseline whose exact counts the candidate must have.
        say: told what goes on.
        measure: brings one arm's run folder to so many rounds; `measure_arm` by default.

    Raises:
        GateError: an arm cannot be run, the arms are the same, or ``out`` is taken.
        bench.config.ConfigError: the configuration is wrong; nothing was started.
        KeyboardInterrupt: Ctrl-C or a signal.
    """
    baseline.check()
    candidate.check()
    if (baseline.folder, baseline.python) == (candidate.folder, candidate.python):
        raise GateError(
            "--paired needs two checkouts or two environments: say which with --base-checkout DIR "
            "or --base-python PYTHON."
        )
    if stored is not None:
        baselines.of_name(*stored)
    _check_out(asked.out)
    plan = make_plan(load_config(asked.config, asked.overrides, asked.only))
    rounds = plan.cells[0]["protocol"]["rounds"]
    runner = measure or measure_arm
    runs: list[Path] = []

    def both(folder: Path, only: Sequence[str]) -> tuple[Measurement, Measurement]:
        arms = (baseline, candidate)
        for done in range(rounds):
            say(f"round {done + 1} of {rounds}, both arms in turn")
            for arm in arms if done % 2 == 0 else reversed(arms):
                runner(arm, asked, folder / arm.label, only, done + 1)
        runs.extend(folder / arm.label for arm in arms)
        one, other = (
            replace(measured.of_run(folder / arm.label), commit=baselines.commit(arm.folder))
            for arm in arms
        )
        return one, other

    first, second = both(asked.out, asked.only)
    outcome = Outcome(
        _confirmed(
            asked, first, second, partial(both, asked.out / "confirmation"), say, paired=True
        ),
        runs=runs,
    )
    if stored is not None:
        kept = _stored(asked, stored[0], second, stored[1])
        outcome.against_stored = compare(kept, second, COUNTS_ALONE)
    return outcome


def measure_arm(arm: Arm, asked: Request, run_dir: Path, only: Sequence[str], rounds: int) -> None:
    """Bring an arm's run to ``rounds`` rounds, by the ``bench`` of its own code and interpreter.

    Raises:
        GateError: it could not begin; the arm's own message is repeated.
        KeyboardInterrupt: it was interrupted.
    """
    # As `-m bench.cli` would, the checkout comes before whatever the interpreter has installed.
    command = [str(arm.python or sys.executable), "-m", "bench.cli", "run"]
    command += [str(asked.config.absolute()), "--out", str(run_dir.absolute())]
    for override in (*asked.overrides, f"protocol.rounds={rounds}"):
        command += ["--set", override]
    for selection in only:
        command += ["--only", selection]
    command += ["--quiet", *(["--resume"] if rounds > 1 else [])]
    env = dict(os.environ)
    if arm.checkout is not None:
        env["PYTHONPATH"] = str(arm.folder)
    elif arm.python is not None:
        env.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=arm.folder, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode not in (0, 1) or not (run_dir / "plan.json").is_file():
        lines = (done.stderr or done.stdout).strip().splitlines()
        last = lines[-1] if lines else f"it ended with {done.returncode} and said nothing"
        raise GateError(f"the {arm.label} arm could not be measured: {last}")


def _stored(asked: Request, name: str, candidate: Measurement, folder: Path) -> Measurement:
    """Return the baseline for a candidate; of a selection, with the cells that it measured."""
    baseline = baselines.find(name, candidate, folder)
    if not asked.only:
        return baseline
    cells = {name: cell for name, cell in baseline.cells.items() if name in candidate.cells}
    return replace(baseline, cells=cells)


def _measure(asked: Request, out: Path, only: Sequence[str], ui: Ui | None) -> Path:
    return api.run(asked.config, out, overrides=asked.overrides, only=only, ui=ui).path


def _only(asked: Request, names: Sequence[str]) -> list[str]:
    """Return selections that keep the named cells and no others."""
    others = [text for text in asked.only if text.partition("=")[0].strip() != "name"]
    return [*others, *(f"name={name}" for name in names)]


def _check_out(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise GateError(f"{out} is not empty; choose another folder with --out.")
