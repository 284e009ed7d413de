from __future__ import annotations

import json

from compilers import registry
from scripts import backends_page

ANSWER = {
    "backend": "deepcache",
    "environment": "current",
    "ok": False,
    "reason": "a | b",
    "device": "cpu",
    "max_abs_diff": 0.25,
    "versions": {"python": "3.11", "torch": "2.13", "DeepCache": "0.1.1"},
}


def test_the_page_is_what_the_checks_found() -> None:
    answers = json.loads((backends_page.DOCS / "backends.json").read_text())
    text = (backends_page.DOCS / "backends.md").read_text()
    assert backends_page.page(text, answers) == text


def test_every_backend_has_a_row_and_reasons_are_escaped() -> None:
    rows = backends_page.table([ANSWER]).splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(registry.BUILT_IN)
    (row,) = (row for row in rows if "`deepcache`" in row)
    assert row == (
        "| `deepcache` (lossy) | current | cpu | no: a \\| b | 2.5e-01 | "
        "python 3.11, torch 2.13, DeepCache 0.1.1 |"
    )
    assert "not checked yet" in rows[0]
