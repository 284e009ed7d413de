"""The pytest plugin: ``pytest --bench-config configs/ci-gpu.yaml --benchmark-json out.json``.

Each cell of the configuration is a test. All selected cells are measured together when the first
of them runs, every cell and round in a worker process of its own, as ``bench run`` does. A cell
that is ok hands its calls to pytest-benchmark as rounds: the samples of the records themselves,
not times taken around a process. So comparing, saving and failing work as its users know them.

Registered under the entry-point group ``pytest11``, and imported whenever pytest starts: so nothing
of the harness is imported before ``--bench-config`` asks for it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bench.gate.measured import Fidelity, Measurement
    from bench.records import Record
    from bench.records.arms import Source

_STATE: pytest.StashKey[_Measuring] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "diffusion-compiler-bench")
    group.addoption(
        "--bench-config", metavar="YAML", help="Make each cell of this configuration a test."
    )
    group.addoption("--bench-out", metavar="DIR", help="Run folder.  [default: runs/pytest/<time>]")
    group.addoption(
        "--bench-set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="Override a value of the configuration: a.b=c. Repeatable.",
    )
    group.addoption(
        "--bench-only",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="Keep only cells that agree. Repeatable.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    asked = config.getoption("bench_config")
    if asked is None:
        return
    # Normalised, as pytest's own paths are, and not resolved: a link keeps its name.
    path = Path(os.path.abspath(str(asked)))
    if not path.is_file():
        raise pytest.UsageError(f"--bench-config: {asked} is not a file")
    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        raise pytest.UsageError(
            "--bench-config measures one cell at a time; leave out -n (pytest-xdist)"
        )
    config.stash[_STATE] = _Measuring(config, path)
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        config.args.append(str(path))
    else:
        # Without paths of its own, the call is about the cells and not about the tests around.
        config.args[:] = [str(path)]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    measuring = parent.config.stash.get(_STATE, None)
    if measuring is None or file_path != measuring.path:
        return None
    collector: pytest.Collector = Matrix.from_parent(parent, path=file_path)
    return collector


class Matrix(pytest.File):
    """The configuration; its tests are the cells of the plan."""

    def collect(self) -> Iterator[CellItem]:
        from bench.config import ConfigError

        try:
            names = self.config.stash[_STATE].names()
        except ConfigError as error:
            raise self.CollectError(str(error)) from None
        for name in names:
            yield CellItem.from_parent(self, name=name)


class CellItem(pytest.Item):
    """One cell: passes if it is ok, is skipped if it cannot be measured here, else fails."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        plugins = self.config.pluginmanager
        # Its name is another if -p loads it.
        if plugins.hasplugin("timeout") or plugins.hasplugin("pytest_timeout"):
            # The first test waits for all cells; their own limit is the configuration's.
            self.add_marker(pytest.mark.timeout(0))
        # By this pytest-benchmark knows a benchmark, for --benchmark-only and --benchmark-skip.
        self.fixturenames = ["benchmark"]

    def runtest(self) -> None:
        from bench.gate.measured import NOT_MEASURED

        run, measurement = self.config.stash[_STATE].run(self.session)
        records = sorted(
            (record for record in run.records if record.name == self.name), key=lambda r: r.round
        )
        bad = [record for record in records if record.outcome != "ok"]
        # What could not be measured at all comes last.
        for record in sorted(bad, key=lambda record: record.outcome in NOT_MEASURED):
            text = f"{record.outcome}: {record.reason or 'no reason given'}"
            if record.outcome in NOT_MEASURED:
                pytest.skip(text)
            raise CellError(f"{text}\nlog: {run.path / (record.process.log or 'logs')}")
        if not records:
            raise CellError("there is no record of this cell")
        session = getattr(self.config, "_benchmarksession", None)
        if session is not None and not session.disabled:
            verdict = measurement.cells[self.name].fidelity
            session.benchmarks.append(_benchmark(self, records, verdict))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, CellError):
            return f"{self.name}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


class CellError(Exception):
    """A cell that is not ok; ``str()`` says how it ended and why."""


class _Measuring:
    """The run behind the tests: made once, when its first cell is asked for."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.path = path
        self._config = config
        self._run: tuple[Source, Measurement] | None = None

    def names(self) -> list[str]:
        """Return the names of the plan's cells, in order.

        Raises:
            bench.config.ConfigError: the configuration is wrong.
        """
        from bench.config import load_config, make_plan

        plan = make_plan(load_config(self.path, *self._selection()))
        return [cell["name"] for cell in plan.cells]

    def run(self, session: pytest.Session) -> tuple[Source, Measurement]:
        """Return the run of all selected cells, measured when it is first asked for."""
        if self._run is None:
            self._run = self._measure([i.name for i in session.items if isinstance(i, CellItem)])
        return self._run

    def _selection(self) -> tuple[list[str], list[str]]:
        return self._config.getoption("bench_set"), self._config.getoption("bench_only")

    def _measure(self, names: Sequence[str]) -> tuple[Source, Measurement]:
        from rich.console import Console

        from bench import api
        from bench.cli import progress
        from bench.gate import measured, run
        from bench.store import RunFolder

        config = self._config
        given = config.getoption("bench_out")
        out = Path(given) if given else Path("runs", "pytest", run.default_out().name)
        overrides, only = self._selection()
        others = [text for text in only if text.partition("=")[0].strip() != "name"]
        selected = [*others, *(f"name={name}" for name in names)]
        capture: Any = config.pluginmanager.getplugin("capturemanager")
        terminal: Any = config.pluginmanager.getplugin("terminalreporter")
        show = progress.Notes if config.getoption("verbose") < 0 else progress.Lines
        with capture.global_and_fixture_disabled():
            terminal.ensure_newline()
            ui = show(Console())
            path = api.run(self.path, out, overrides=overrides, only=selected, ui=ui).path
        return RunFolder.open(path).source(), measured.of_run(path)


def _benchmark(item: CellItem, records: Sequence[Record], verdict: Fidelity) -> Any:
    """Return what pytest-benchmark keeps of a benchmark, with the cell's own samples."""
    metadata: Any = importlib.import_module("pytest_benchmark.stats").Metadata
    standing_in = SimpleNamespace(
        name=item.name,
        # Not its node id, which holds the way from where pytest runs: moved, it has its partner.
        fullname=f"{item.path.name}::{item.name}",
        group=records[0].workload.name,
        param=None,
        params=None,
        extra_info=_extra_info(records, verdict),
        cprofile_stats=None,
        has_error=False,
    )
    options = {
        "disable_gc": False,
        "timer": "time.perf_counter",
        "min_rounds": 1,
        "max_time": 0.0,
        "min_time": 0.0,
        "warmup": False,
    }
    made = metadata(standing_in, iterations=1, options=options)
    for record in records:
        for seconds in record.e2e_s:
            made.update(seconds)
    return made


def _extra_info(records: Sequence[Record], verdict: Fidelity) -> dict[str, Any]:
    first = records[0]
    evidence = first.backend.evidence
    peaks: dict[str, int] = {}
    for record in records:
        for (meter, phase), value in record.peaks.items():
            if phase == "steady":
                peaks[meter] = max(peaks.get(meter, 0), value)
    return {
        "record_ids": [record.record_id for record in records],
        "processes": len(records),
        "calls_per_process": [len(record.e2e_s) for record in records],
        "steady_peak_bytes": peaks,
        "warmup_s": [record.warmup_total_s or 0 for record in records],
        "first_call_s": [record.first_call_s for record in records],
        "compile_s": [record.compile_s for record in records],
        "fidelity": verdict.word,
        "fidelity_worst_db": verdict.worst_db,
        "fidelity_reason": verdict.reason,
        "steps_effective": first.steps_effective,
        "denoiser_calls": first.denoiser_calls,
        "graphs": evidence.graphs,
        "graph_breaks": evidence.graph_breaks,
        "recompiles": evidence.recompiles,
        "pictures_sha256": [image.sha256 for record in records for image in record.images],
    }
