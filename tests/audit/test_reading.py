"""What files look like in the wild, and what a stranger sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.audit import AuditError, Table, as_json, audit, user_map
from bench.audit.checks import bands
from bench.audit.printed import locale_of, marks_of, parse
from bench.audit.render import render
from bench.cli import app
from tests.audit import make
from tests.cli.records import cell, record

CSV = "model,backend,steps,inference_s,iter_per_s\na/b,none,10,1.515,8.331\na/b,x,10,0.979,13.871\n"


def read(tmp_path: Path, content: str | bytes, name: str = "t.csv", **maps: str) -> Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return audit([path], user_map([f"{h}={n}" for h, n in maps.items()]))[0].table


@pytest.mark.parametrize(
    ("text", "comma", "value", "half", "unit"),
    [
        ("0.979", False, 0.979, 0.0005, ""),
        ("11.464GiB", False, 11.464, 0.0005, "GiB"),
        ("4,829 MiB", False, 4829.0, 0.5, "MiB"),
        ("1.234,5 s", True, 1234.5, 0.05, "s"),
        ("12,5 %", True, 12.5, 0.05, "%"),
        ("1.5 ± 0.2", False, 1.5, 0.05, ""),
        ("1.55×", False, 1.55, 0.005, "×"),
        ("1e-3", False, 0.001, 0.0005, ""),
        ("0.10000000000000001", False, 0.1, 0.0, ""),
    ],
)
def test_printed_figures(text: str, comma: bool, value: float, half: float, unit: str) -> None:
    found = parse(text, "comma" if comma else "point")
    assert found is not None
    assert (found.value, found.half, found.unit) == (
        pytest.approx(value),
        pytest.approx(half),
        unit,
    )


@pytest.mark.parametrize("text", ["", "OOM", "nan", "inf", "n/a", "1,23,4", "<b>"])
def test_what_is_no_figure(text: str) -> None:
    assert parse(text) is None


def test_the_decimal_mark_of_a_column() -> None:
    assert locale_of(["0,979"], (0, 0), never_thousands=False) == "comma"
    assert locale_of(["4,829"], (0, 0), never_thousands=False) == "point"
    assert locale_of(["4,829"], (0, 0), never_thousands=True) == "comma"
    assert locale_of(["4,829"], (3, 0), never_thousands=False) == "comma"
    assert marks_of(["1,5", "1.5", "4,829"]) == (1, 1)


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        CSV.encode("utf-16"),
        CSV.replace("inference_s", "Latency (ms)").replace("1.515", "1515").replace("0.979", "979"),
        CSV.replace("inference_s", "inference (min)").replace("1.515", "0.02525").replace(
            "0.979", "0.0163167"),
    ],
)  # fmt: skip
def test_dialects_and_units(content: str | bytes, tmp_path: Path) -> None:
    table = read(tmp_path, content)
    assert table.values("e2e_s").tolist() == pytest.approx([1.515, 0.979], rel=1e-4)
    assert table.values("it_per_s").tolist() == [8.331, 13.871]
    assert table.lines == [2, 3]


def test_a_mapped_column_and_a_guess(tmp_path: Path) -> None:
    table = read(tmp_path, CSV.replace("inference_s", "how long"), **{"how long": "e2e_ms"})
    assert table.values("e2e_s").tolist() == pytest.approx([1.515e-3, 0.979e-3])
    table = read(tmp_path, CSV.replace("inference_s", "my_inference_of_it_s"))
    assert table.guesses == ["column 'my_inference_of_it_s' is read as e2e_s"]


def test_two_columns_of_one_meaning_keep_the_first(tmp_path: Path) -> None:
    table = read(tmp_path, "e2e_s,latency_s,steps\n1.0,2.0,3\n")
    assert table.values("e2e_s").tolist() == [1.0]
    assert "left aside" in table.guesses[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x07", "no text"),
        (b"hello", "no table"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,2\n", "no column of figures is known"),
        (b"{broken", "none"),
        (b'{"a": 1}', "neither"),
        (b"[" * 100_000, "deeply"),
    ],
)
def test_unreadable_files_are_one_sentence(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError) as error:
        read(tmp_path, content)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("choice", ["nonsense", "a=nothing_known", "absent=e2e"])
def test_wrong_maps(choice: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    with pytest.raises(AuditError):
        audit([path], user_map([choice]))


def test_columns_that_are_arms(tmp_path: Path) -> None:
    head = "| size | eager (s) | torch.compile (s) | speedup |\n|---|---|---|---|\n"
    text = head + "| 512 | 2.0 | 1.0 | 3.0x |\n"
    path = tmp_path / "t.md"
    path.write_text(text)
    (one,) = audit([path])
    assert one.table.values("e2e_s").tolist() == [2.0, 1.0]
    assert [f.check for f in one.findings] == ["stated-ratio"]


def test_pytest_benchmark(tmp_path: Path) -> None:
    stats: dict[str, Any] = {"min": 1.0, "max": 2.0, "mean": 1.5, "median": 1.5, "stddev": 0.1,
                             "rounds": 4, "total": 6.0}  # fmt: skip
    good = {"name": "t2i/none", "group": "sdxl", "stats": stats}
    bad = {"name": "t2i/x", "group": "sdxl", "stats": {**stats, "mean": 2.0}}
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"benchmarks": [good, bad]}))
    (one,) = audit([path])
    assert [(f.check, f.rows) for f in one.findings] == [("wrong-divisor", (1,))]
    assert one.table.place == "entry"


def test_our_own_records(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = [
        record(
            cell(name),
            [2.0 + more, 1.0, 3.0],
            it_per_s=[12.0 + more] * 3,
            first_call_s=5.0 + more,
            compile_s=3.0 + more,
            warmup_s=[5.0 + more, 2.0],
            load_s=0.5 + more,
        )
        for name, more in (("none", 0.0), ("x", 0.01))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (one,) = audit([path])
    assert one.table.kind == "records of a run"
    assert not one.findings
    assert one.table.counted


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, wrong = tmp_path / "clean.csv", tmp_path / "wrong.csv"
    clean.write_text(CSV)
    wrong.write_text(CSV.replace("1.515", "0.515"))
    for arguments, code in (
        ([str(clean)], 0),
        ([str(wrong)], 1),
        ([str(wrong), "--json"], 1),
        ([str(tmp_path / "absent.csv")], 2),
    ):
        with pytest.raises(SystemExit) as stop:
            app.main(["audit", *arguments])
        assert (stop.value.code or 0) == code, arguments
    out = capsys.readouterr().out
    assert "[certain] line 2" in out
    assert "settles:" in out


def test_json_has_a_stable_shape(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(CSV.replace("1.515", "0.515"))
    value = as_json(audit([path]))
    assert set(value) == {"schema", "findings", "notes", "tables"}
    (table,) = value["tables"]
    assert set(table["findings"][0]) == {
        "check", "sure", "weight", "says", "rows", "arithmetic", "settle",
    }  # fmt: skip
    assert table["findings"][0]["rows"] == [{"row": 1, "line": 2}]


def test_nothing_of_a_file_steers_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(CSV.replace("a/b", "a/\x9b31m"), encoding="utf-8")
    assert "\x9b" not in render(audit([path]))


def test_bands_are_those_of_the_reference() -> None:
    import csv

    folder = Path(__file__).parents[2] / "reports" / "reference"
    with (folder / "onediff_t2i_i2i.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for band in bands.STEP_BANDS[1:]:
        rates = [
            float(row["iter_per_s"])
            for row in rows
            if bands.network_of(row["model"]) == band.network and int(row["height"]) == band.side
        ]
        assert (band.low, band.high) == pytest.approx((1 / max(rates), 1 / min(rates)))


def test_bands_of_cards_are_those_of_the_reference() -> None:
    import csv

    folder = Path(__file__).parents[2] / "reports" / "reference"
    with (folder / "sdxl_by_gpu.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for band in bands.EAGER_BANDS:
        gpu = band.source.rpartition(" ")[2]
        assert gpu in band.gpu.split("|")
        step_s = {
            row["backend"]: float(row["inference_s"]) / int(row["steps_claimed"])
            for row in rows
            if row["gpu"] == gpu and not row["iter_per_s"]
        }
        assert (band.low, band.high) == pytest.approx((step_s["tensorrt"], step_s["none"]))
    # Rates that others published lie within the room that a class is given.
    rates = [row for row in rows if row["iter_per_s"]]
    assert rates
    for row in rates:
        known = bands.plausible_step_s("sdxl", 1024, f"NVIDIA {row['gpu']}-SXM4-80GB")
        assert known is not None
        assert known[0] < 1 / float(row["iter_per_s"]) < known[1]


def test_a_card_is_held_to_its_own_class() -> None:
    h200 = bands.plausible_step_s("sdxl", 1024, "NVIDIA H200")
    other = bands.plausible_step_s("sdxl", 1024, "NVIDIA GeForce RTX 4090")
    assert h200 is not None
    assert other is not None
    assert other[0] < h200[0] < h200[1] < other[1]
    # Words of a name, not parts of them; and no class was published at 512.
    assert bands.plausible_step_s("sdxl", 1024, "NVIDIA A1000") == other
    assert bands.plausible_step_s("sdxl", 512, "NVIDIA H200") == bands.plausible_step_s(
        "sdxl", 512, ""
    )


def test_nonsense_is_refused_or_audited(tmp_path: Path) -> None:
    import random

    headers = [*make.NAMES, "strength", "scheduler", "n_batches", "runs", "mean_s", "fid", "size"]
    values = ["0", "1", "-1", "0.5", "1e300", "1e-300", "nan", "", "OOM", "none", "512x512", "12,5",
              "inf", "99%", "<5", "heun", "3.14159265358979"]  # fmt: skip
    path = tmp_path / "t.csv"
    for seed in range(60):
        rng = random.Random(seed)
        width, height = rng.randint(2, 10), rng.randint(1, 10)
        lines = [rng.sample(headers, width)]
        lines += [[rng.choice(values) for _ in range(width)] for _ in range(height)]
        path.write_text("\n".join(";".join(line) for line in lines))
        try:
            text = render(audit([path]))
        except AuditError as error:
            text = str(error)
        assert str(path) in text
