"""A small configuration to change, and the shortest way from its text to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.config import Plan, load_config, make_plan, parse_config

ROOT = Path(__file__).resolve().parents[2]

BASE = """\
name: x
defaults: {steps: 10}
matrix:
  workload:
    - name: t2i
      task: text-to-image
      model: embedded:sdxl
      prompt: a red house
  backend: [none, torch-compile]
"""


def plan_of(
    text: str, folder: Path, overrides: Sequence[str] = (), only: Sequence[str] = ()
) -> Plan:
    """Plan a configuration given as text; messages call it by the name of its file, x.yaml."""
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan(load_config(path, overrides, only))


def workload(**changes: Any) -> dict[str, Any]:
    """Return a workload; None in ``changes`` takes a key out."""
    fields = {
        "name": "t2i",
        "task": "text-to-image",
        "model": "embedded:sdxl",
        "prompt": "a red house",
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not None}


def plan_matrix(matrix: dict[str, Any], only: Sequence[str] = (), **top: Any) -> Plan:
    """Plan a matrix over one workload, unless it brings its own."""
    matrix = {"workload": [workload()], **matrix}
    return make_plan(parse_config({"matrix": matrix, **top}, only=only))


def only_cell(changes: dict[str, Any], **top: Any) -> Any:
    """Return the one cell of a workload with ``changes``."""
    (cell,) = plan_matrix({"workload": [workload(**changes)]}, **top).cells
    return cell
