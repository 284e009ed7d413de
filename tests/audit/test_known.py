"""Published tables of which the errors are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.audit import Audited, Finding, audit
from tests.audit import published

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"


def one(path: Path) -> Audited:
    (found,) = audit([path])
    return found


def by_lines(found: Audited, check: str) -> dict[tuple[int, ...], Finding]:
    return {
        tuple(sorted(found.table.lines[i] for i in finding.rows)): finding
        for finding in found.findings
        if finding.check == check
    }


def test_pix2pix_ran_30_and_the_image_to_image_rows_fit_9() -> None:
    steps = by_lines(one(REFERENCE / "onediff_t2i_i2i.csv"), "implied-steps")
    assert set(steps) == {(10, 11, 12, 13), (14, 15, 16, 17), (34,)}
    pix2pix = steps[10, 11, 12, 13]
    assert (pix2pix.sure, "30 fits" in pix2pix.says) == ("certain", True)
    assert "4.569 − 10 ÷ 7.035 = 3.148" in pix2pix.arithmetic
    image_to_image = steps[14, 15, 16, 17]
    assert image_to_image.sure == "likely"
    assert "fit 9 steps better than 10" in image_to_image.says
    assert "At most 11 fit" in steps[34,].says


def test_the_later_pix2pix_rows_ran_10() -> None:
    found = one(REFERENCE / "onediff_t2i_i2i.csv")
    (told,) = [n.says for n in found.notes if "oneflow, instruct-pix2pix" in n.says]
    assert told.startswith("10 steps fit lines 30, 31, 32 and 33")


def test_oneflows_memory_is_another_meter_and_a_cell_is_a_copy() -> None:
    found = one(REFERENCE / "onediff_t2i_i2i.csv")
    assert list(by_lines(found, "mixed-meters")) == [tuple(range(18, 34))]
    copies = by_lines(found, "copied-cell")
    assert set(copies) == {(28, 30), (8, 9)}
    assert "42.37039185" in copies[28, 30].arithmetic
    assert "line 9 is the one without it" in copies[8, 9].says
    assert [f.sure for f in by_lines(found, "sample-size").values()] == ["certain"]


def test_break_even_of_every_pair_is_a_note() -> None:
    found = one(REFERENCE / "onediff_t2i_i2i.csv")
    pays = [note.says for note in found.notes if note.check == "break-even"]
    assert len(pays) == 16
    # (924.378 − 2.391) ÷ (1.515 − 0.979)
    assert "after 1,720 images" in pays[0]
    assert len([n for n in found.notes if n.check == "memory-change"]) == 8


def test_batch_generation() -> None:
    found = one(REFERENCE / "batch_generation.csv")
    (divisor,) = by_lines(found, "wrong-divisor").items()
    assert divisor[0] == (5, 7, 8, 9, 10, 11, 12, 13)
    assert "too small by the factor 1.5" in divisor[1].says
    assert "ran 167 steps, not 150" in by_lines(found, "implied-steps")[9,].says
    slow = by_lines(found, "slow-row")[13,]
    assert "16.6 % slow in its first batch and 16.1 % in the others" in slow.says
    (line,) = [n.says for n in found.notes if n.check == "slow-row"]
    assert float(line.partition("R² = ")[2].rstrip(".")) > 0.9999


@pytest.mark.parametrize("as_markdown", [False, True])
def test_memory_by_resolution(as_markdown: bool, tmp_path: Path) -> None:
    path = REFERENCE / "vram_by_resolution.csv"
    if as_markdown:
        path = tmp_path / "notes.md"
        path.write_text(published.VRAM)
    found = one(path)
    told = sorted(f.says for f in found.findings)
    assert len(told) == 2
    assert all("800×" in says for says in told)
    assert "lies 2.4 GiB above" in told[0]
    assert "lies 3.7 GiB above" in told[1]
    assert "2.7 GiB + 23.5 GiB per megapixel on 9 rows" in found.notes[0].says


def test_the_same_from_a_pasted_log(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text(published.ONEDIFF)
    found = one(path)
    assert len(found.table) == 16
    assert "a claim of 10 steps" in found.table.guesses[0]
    steps = [f for f in found.findings if f.check == "implied-steps"]
    assert [(f.sure, len(f.rows)) for f in steps] == [("certain", 4), ("likely", 4)]
    models = {found.table.text("model")[i] for i in steps[0].rows}
    assert models == {"timbrooks/instruct-pix2pix"}
    assert "30 fits" in steps[0].says
    assert "fit 9 steps better than 10" in steps[1].says
    (label,) = [f for f in found.findings if f.check == "copied-cell"]
    assert "withonediff_512" in label.arithmetic
    assert len(found.findings) == 3
