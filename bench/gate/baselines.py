"""Baselines: one plain JSON file for each name and machine, ``baselines/NAME/KEY.json``.

They belong in git or an artifact store: no binary, no absolute path, keys sorted, and nothing that
looks like one of the user's secrets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.gate import GateError, measured
from bench.runner.secrets import Redactor
from bench.store.journal import write_atomically

FOLDER = Path("baselines")
KIND = "bench baseline"


@dataclass(frozen=True)
class Entry:
    """A baseline file that was read.

    Attributes:
        path: of the file.
        content: the measured run, with ``name``, ``machine``, ``saved_utc`` and ``commit``.
    """

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.content["name"])

    @property
    def machine(self) -> str:
        return str(self.content["machine"])


def save(run: Path, name: str, folder: Path = FOLDER) -> Entry:
    """Keep a run as the baseline ``name`` of its machine, in place of an earlier one.

    Raises:
        GateError: the name cannot be a folder's, a cell is not fit to be a baseline, or the file
            cannot be written.
        bench.store.StoreError: the run cannot be read.
    """
    _check_name(name)
    content = measured.of_run(run)
    _refuse_unfit(run, content)
    content = {
        "kind": KIND,
        "name": name,
        "machine": measured.machine_key(content),
        "saved_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(Path.cwd()),
        **content,
    }
    content = Redactor(os.environ).value(content)
    path = folder / name / f"{content['machine']}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise GateError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}."
        ) from (error)
    return Entry(path, content)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise GateError(
            f"{name!r} cannot name a baseline; write letters, digits, '.', '_' and '-', beginning "
            "with a letter or digit."
        )


def _refuse_unfit(run: Path, content: Mapping[str, Any]) -> None:
    for name, cell in content["cells"].items():
        outcomes = {process["outcome"] for process in cell["processes"]}
        missing = cell["rounds_planned"] - len(cell["processes"])
        if missing > 0:
            raise GateError(
                f"{name} has {len(cell['processes'])} of {cell['rounds_planned']} rounds; finish "
                f"the run first: bench run … --resume --out {run}"
            )
        if outcomes - {"ok"} and not outcomes <= measured.NOT_MEASURED:
            bad = next(p for p in cell["processes"] if p["outcome"] != "ok")
            raise GateError(
                f"{name} is {bad['outcome']} in round {bad['round'] + 1} "
                f"({bad['reason'] or 'no reason given'}); a baseline must be sound. Mend it, or "
                "measure without that cell."
            )
        keys = {process["fingerprint_key"] for process in measured.good(cell)}
        if len(keys) > 1:
            raise GateError(f"{name}: its rounds were measured on different machines or software.")
        for process in measured.good(cell):
            if process["disturbances"]:
                raise GateError(
                    f"{name}, round {process['round'] + 1}: {process['disturbances'][0]}; a "
                    "baseline must be measured undisturbed. Measure again."
                )


def commit(checkout: Path) -> dict[str, Any]:
    """Return ``{"id", "dirty"}`` of a git checkout; id is None where there is none."""
    found = _git(checkout, "rev-parse", "HEAD")
    if found is None:
        return {"id": None, "dirty": None}
    return {"id": found, "dirty": bool(_git(checkout, "status", "--porcelain", "-uno"))}


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read(path: Path) -> Entry:
    """Read a baseline file.

    Raises:
        GateError: it is none, is damaged, or was written by a later version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GateError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from (
            error
        )
    except ValueError as error:
        raise GateError(f"{path} is not JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise GateError(f"{path} is not a baseline; bench baseline save writes one.")
    schema = content.get("schema")
    if not isinstance(schema, int) or schema > measured.SCHEMA_VERSION:
        raise GateError(
            f"{path} has schema {schema}, and this version of bench reads up to "
            f"{measured.SCHEMA_VERSION}; update bench."
        )
    missing = {"name", "machine", "cells", "runs", "saved_utc", "commit"} - content.keys()
    if missing or not isinstance(content["cells"], dict):
        raise GateError(f"{path} is damaged: it has no {', '.join(sorted(missing)) or 'cells'}.")
    for name, cell in content["cells"].items():
        _check_cell(path, name, cell)
    return Entry(path, content)


def _check_cell(path: Path, name: str, cell: Any) -> None:
    needed = {"asked", "found", "fingerprint", "processes", "rounds_planned", "fidelity"}
    whole = isinstance(cell, dict) and needed <= cell.keys() and isinstance(cell["processes"], list)
    if not whole or not all(
        isinstance(process, dict) and process.keys() >= measured.PROCESS_KEYS
        for process in cell["processes"]
    ):
        raise GateError(f"{path} is damaged: the cell {name!r} is not complete.")


def every(folder: Path = FOLDER) -> list[Entry]:
    """Return all baselines of a folder, by name, then machine.

    Raises:
        GateError: one cannot be read.
    """
    return [read(path) for path in sorted(folder.glob("*/*.json"))]


def of_name(name: str, folder: Path = FOLDER) -> list[Entry]:
    """Return the baselines of a name, one a machine.

    Raises:
        GateError: there is none, or one cannot be read.
    """
    _check_name(name)
    found = [read(path) for path in sorted((folder / name).glob("*.json"))]
    if not found:
        names = sorted({path.parent.name for path in folder.glob("*/*.json")})
        there = f"there are: {', '.join(names)}" if names else f"{folder}/ has none"
        raise GateError(
            f"no baseline is called {name!r}; {there}. bench baseline save RUN --as {name} makes "
            "one."
        )
    return found


def find(name: str, like: Mapping[str, Any], folder: Path = FOLDER) -> Entry:
    """Return the baseline ``name`` for what was measured: this machine's, else the nearest one.

    Nearest is one of the same software, whose exact counts can be compared, then the latest one;
    comparing with either says what differs.

    Raises:
        GateError: no baseline has that name, or one cannot be read.
    """
    found = of_name(name, folder)
    own = measured.machine_key(like)
    traced_with = software_keys(like)

    def rank(entry: Entry) -> tuple[bool, bool, str]:
        return (
            entry.machine == own,
            software_keys(entry.content) == traced_with,
            str(entry.content["saved_utc"]),
        )

    return max(found, key=rank)


SOFTWARE = ("python", "packages", "cuda")
"""What graphs, breaks and counts depend on; hardware changes none of them."""


def software(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what exact counts depend on: releases, without patch levels of Python and builds.

    ``2.13.0+cpu`` and ``2.13.0`` trace alike, and so do 3.11.7 and 3.11.9.
    """
    return {
        "python": ".".join(str(fingerprint.get("python")).split(".")[:2]),
        "packages": {
            name: version and str(version).partition("+")[0]
            for name, version in (fingerprint.get("packages") or {}).items()
        },
        "cuda": fingerprint.get("cuda"),
    }


def software_keys(content: Mapping[str, Any]) -> set[str]:
    """Return the keys of the software that a run's cells were measured with."""
    return {
        measured.key(software(cell["fingerprint"]))
        for cell in content["cells"].values()
        if cell["fingerprint"]
    }
