from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.store import StoreError
from reports import export
from tests.reports import make_records as make

DOCS = Path(__file__).parents[2] / "docs/reading-a-report.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    dead = make.Backend("dead", outcome="failed", reason='a "quoted", reason', compile_s=1)
    records = make.records(make.WORKLOADS[:2], [*make.BACKENDS, dead], rounds=2)
    return make.write_run(tmp_path_factory.mktemp("export") / "run", records)


def test_one_documented_row_for_each_record(run):
    table = export.frame([run])
    assert list(table.columns) == list(export.COLUMNS)
    assert len(table) == 16
    assert table["record_id"].is_unique
    told = DOCS.read_text()
    for column in export.CELL_COLUMNS:
        assert f"`{column}`" in told


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_formats_hold_the_same_table(run, kind):
    table = export.frame([run])
    content = io.BytesIO(export.render([run], kind))
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    back = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[kind](content)
    assert list(back.columns) == list(table.columns)
    for name in ("e2e_s", "cell_e2e_s", "cell_speedup", "cell_breakeven_images"):
        # pandas reads JSON with the last digits of a float missing.
        assert back[name].astype(float).tolist() == pytest.approx(
            table[name].astype(float).tolist(), rel=1e-12, nan_ok=True
        )
    assert back["reason"].dropna().unique().tolist() == ['a "quoted", reason']


def test_csv_holds_every_digit(run):
    table = export.frame([run])
    back = pd.read_csv(io.BytesIO(export.render([run], "csv")))
    assert back["cell_e2e_s"].dropna().tolist() == table["cell_e2e_s"].dropna().tolist()


def test_parquet_without_its_package(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(StoreError, match="pip install pyarrow"):
        export.render([run], "parquet")


def test_pytest_benchmark_takes_it(run, tmp_path):
    pytest.importorskip("pytest_benchmark")
    file = tmp_path / "0001_run.json"
    file.write_bytes(export.render([run], "pytest-benchmark"))
    said = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", str(file), "--columns", "median"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert said.returncode == 0, said.stderr
    for name in ("t2i/none", "i2i/torch-compile-regional"):
        assert name in said.stdout
    assert "dead" not in said.stdout


def test_pytest_benchmark_statistics_are_those_of_the_calls(run):
    made = json.loads(export.render([run], "pytest-benchmark"))
    table = export.frame([run]).drop_duplicates("cell_id").set_index("name")
    assert len(made["benchmarks"]) == 6
    for one in made["benchmarks"]:
        stats = one["stats"]
        assert stats["rounds"] == len(stats["data"]) == 16
        assert stats["median"] == table.loc[one["name"], "cell_e2e_s"]
        assert stats["min"] <= stats["q1"] <= stats["median"] <= stats["q3"] <= stats["max"]


def test_standard_output(run, capfdbinary):
    from bench.cli.app import main

    with pytest.raises(SystemExit):
        main(["export", str(run)])
    assert capfdbinary.readouterr().out == export.render([run], "csv")
