"""Measure and read runs from Python.

```python
import bench

run = bench.run("configs/quickstart.yaml")
print(run.frame()[["name", "outcome", "e2e_s", "speedup"]])
```
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import Plan, estimate, load_config, make_plan, parse_config
from bench.contract import Cell
from bench.environments.build import provide
from bench.records import Record
from bench.runner import RunSummary, Silent, Start, Ui, execute, session
from bench.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A run folder, to be read.

    Attributes:
        path: absolute.
        summary: how measuring ended; None for a run that was only opened.
    """

    def __init__(self, path: Path, summary: RunSummary | None = None) -> None:
        self.path = path.absolute()
        self.summary = summary

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run that was measured before, or that another process is measuring now.

        Raises:
            bench.store.StoreError: there is no run, or it cannot be read.
        """
        return cls(RunFolder.open(Path(path)).path)

    @property
    def records(self) -> list[Record]:
        """One record for each cell and round of the plan that was measured; the last attempt.

        Raises:
            bench.store.StoreError: records.jsonl cannot be read.
        """
        return list(RunFolder.open(self.path).records())

    @property
    def images(self) -> list[Path]:
        """The images of all records, in the order of the records."""
        return [self.path / image.path for record in self.records for image in record.images]

    def frame(self) -> pd.DataFrame:
        """One row for each record; columns as in `bench.records.frame`."""
        from bench.records import frame

        return frame.frame(self.records)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def run(
    config: str | os.PathLike[str] | Mapping[str, Any],
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    resume: bool = False,
    retry: Collection[str] = (),
    devices: Sequence[str] = (),
    start: Start = "auto",
    allow_other_host: bool = False,
    skip_dominated: bool = True,
    sync: bool = True,
    ui: Ui | None = None,
) -> Run:
    """Measure a configuration and return the run. A cell that fails is a record, not an exception.

    Args:
        config: a YAML file, or the same keys as a mapping; relative paths start from the file's
            own folder, those of a mapping and of ``overrides`` from the working folder.
        out: the run folder; ``runs/<name of the configuration>`` without it.
        overrides: ``a.b=c`` each, as ``--set`` on the command line.
        only: ``key=value[,value]`` each; cells that do not agree are left out.
        resume: add what is missing to a run that is there.
        retry: outcomes to measure once more, such as ``("oom", "failed")``; implies ``resume``.
        devices: where cells run whose device is ``auto`` or ``cuda``.
        start: how workers are started: ``auto``, ``fork`` or ``spawn``.
        allow_other_host: resume although machine or software have changed.
        skip_dominated: record cells as ``skipped`` that ask for more than one of this run that ran
            out of memory, instead of running them.
        sync: build the environments that cells need and that are not ready, which may download
            gigabytes; without it, those cells are ``unavailable``.
        ui: observer; see `bench.runner.Ui`.

    Raises:
        bench.config.ConfigError: the configuration is wrong; nothing was started.
        bench.runner.RunnerError: the run cannot begin as asked; nothing was started.
        bench.store.StoreError: the folder cannot be used, or a record could not be stored.
        KeyboardInterrupt: Ctrl-C or a signal; the run can be resumed.
    """
    if isinstance(config, Mapping):
        asked = parse_config(config, overrides, only)
    else:
        asked = load_config(config, overrides, only)
    plan = make_plan(asked, _seeds_of(asked.name, out) if resume or retry else {})
    return measure(
        plan,
        run_folder(plan, out),
        resume=resume,
        retry=retry,
        devices=devices,
        start=start,
        allow_other_host=allow_other_host,
        skip_dominated=skip_dominated,
        sync=sync,
        ui=ui,
    )


def measure(plan: Plan, out: Path, *, ui: Ui | None = None, sync: bool = True, **how: Any) -> Run:
    """Measure a plan that is made already; ``how`` and the rest as for `run`."""
    ui = ui or Silent()
    for note in plan.notes:
        ui.note(note)
    summary = execute(
        plan,
        out,
        ui=session.watched(ui),
        estimate=round_seconds,
        interpreters=partial(provide, may_build=sync, say=ui.note),
        **how,
    )
    if summary.interrupted:
        raise KeyboardInterrupt
    return Run(summary.run_dir, summary)


def run_folder(plan: Plan, out: str | os.PathLike[str] | None) -> Path:
    """Where a run lies: ``out``, or ``runs/<name>`` in the working folder."""
    return Path("runs", plan.name) if out is None else Path(out)


def _seeds_of(name: str, out: str | os.PathLike[str] | None) -> dict[str, int]:
    """The seeds that were drawn for the run that is resumed; none if there is no run yet."""
    folder = Path("runs", name) if out is None else Path(out)
    if not RunFolder.holds_run(folder):
        return {}
    return dict(RunFolder.open(folder).plan.get("seeds_drawn") or {})


def round_seconds(cell: Cell) -> float:
    """A first guess of what one round of a cell takes."""
    return estimate.worker_seconds(cell) / cell["protocol"]["rounds"]
