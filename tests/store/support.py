"""Small plans and records."""

from __future__ import annotations

from typing import Any

from bench.contract import SCHEMA_VERSION
from tests.cli.records import cell


def plan(*cell_ids: str, rounds: int = 1) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "name": "test",
        "cells": [{"cell_id": c, "name": c, "protocol": {"rounds": rounds}} for c in cell_ids],
    }


def record(cell_id: str, round_: int = 0, attempt: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "record_id": f"{cell_id}-{round_}-{attempt}",
        "cell_id": cell_id,
        "name": cell_id,
        "round": round_,
        "attempt": attempt,
        "outcome": "ok",
        "cell": {**cell(), "cell_id": cell_id},
        **fields,
    }
