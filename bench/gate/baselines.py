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
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from bench import files
from bench.gate import GateError, measured
from bench.gate.measured import KIND, Baseline, Commit, Measurement
from bench.records.read import NotJsonError, RecordError, checked
from bench.redact import Redactor
from bench.store.journal import why, write_atomically

FOLDER = Path("baselines")


class _Header(msgspec.Struct):
    kind: Any = None
    schema: Any = None


_header = msgspec.json.Decoder(_Header)
_baseline = msgspec.json.Decoder(Baseline)


def save(run: Path, name: str, folder: Path = FOLDER) -> Path:
    """Keep a run as the baseline ``name`` of its machine, in place of an earlier one.

    Returns:
        The file.

    Raises:
        GateError: the name cannot be a folder's, a cell is not fit to be a baseline, or the file
            cannot be written.
        bench.store.StoreError: the run cannot be read.
    """
    _check_name(name)
    measurement = measured.of_run(run)
    _refuse_unfit(run, measurement)
    baseline = Baseline(**{
        **msgspec.structs.asdict(measurement),
        "name": name,
        "machine": measurement.machine_key,
        "saved_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(Path.cwd()),
    })  # fmt: skip
    path = folder / name / f"{baseline.machine}.json"
    plain = msgspec.json.decode(msgspec.json.encode(baseline))
    content = Redactor(os.environ).value(plain)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise GateError(f"{path} cannot be written: {why(error)}.") from error
    return path


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise GateError(
            f"{name!r} cannot name a baseline; write letters, digits, '.', '_' and '-', beginning "
            "with a letter or digit."
        )


def _refuse_unfit(run: Path, measurement: Measurement) -> None:
    for name, cell in measurement.cells.items():
        ended, planned = len(cell.processes), cell.rounds_planned
        if ended < planned:
            raise GateError(
                f"{name} has {ended} of {planned} rounds; finish the run first: "
                f"bench run … --resume --out {run}"
            )
        bad = [process for process in cell.processes if process.outcome != "ok"]
        if not {process.outcome for process in cell.processes} <= measured.NOT_MEASURED and bad:
            raise GateError(
                f"{name} is {bad[0].outcome} in round {bad[0].round + 1} ({bad[0].why}); a "
                "baseline must be sound. Fix it, or measure without that cell."
            )
        if len({process.fingerprint_key for process in cell.good}) > 1:
            raise GateError(f"{name}: its rounds were measured on different machines or software.")
        for process in cell.good:
            if process.disturbances:
                raise GateError(
                    f"{name}, round {process.round + 1}: {process.disturbances[0]}; a baseline "
                    "must be measured undisturbed. Measure again."
                )


def commit(checkout: Path) -> Commit:
    """Return where a git checkout stands."""
    head = _git(checkout, "rev-parse", "HEAD")
    if head is None:
        return Commit()
    return Commit(id=head, dirty=bool(_git(checkout, "status", "--porcelain", "-uno")))


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read(path: Path) -> Baseline:
    """Read a baseline file, every field checked.

    Raises:
        GateError: it is none, is damaged, or was written by a later version.
    """
    try:
        data = files.read(path)
        header = checked(_header, data)
    except OSError as error:
        raise GateError(f"{path} cannot be read: {why(error)}.") from error
    except NotJsonError as error:
        raise GateError(f"{path}: {error}.") from error
    except RecordError:
        header = _Header()
    if header.kind != KIND:
        raise GateError(f"{path} is not a baseline; bench baseline save writes one.")
    if not isinstance(header.schema, int) or header.schema > measured.SCHEMA_VERSION:
        raise GateError(
            f"{path} has schema {header.schema}, and this version of bench reads up to "
            f"{measured.SCHEMA_VERSION}; update bench."
        )
    try:
        return checked(_baseline, data)
    except RecordError as error:
        raise GateError(f"{path} is damaged: {error}.") from error


def every(folder: Path = FOLDER) -> list[Baseline]:
    """Return all baselines of a folder, by name, then machine.

    Raises:
        GateError: one cannot be read.
    """
    return [read(path) for path in sorted(folder.glob("*/*.json"))]


def of_name(name: str, folder: Path = FOLDER) -> list[Baseline]:
    """Return the baselines of a name, one a machine.

    Raises:
        GateError: there is none, or one cannot be read.
    """
    _check_name(name)
    baselines = [read(path) for path in sorted((folder / name).glob("*.json"))]
    if not baselines:
        names = sorted({path.parent.name for path in folder.glob("*/*.json")})
        there = f"there are: {', '.join(names)}" if names else f"{folder}/ has none"
        raise GateError(
            f"no baseline is called {name!r}; {there}. bench baseline save RUN --as {name} makes "
            "one."
        )
    return baselines


def find(name: str, like: Measurement, folder: Path = FOLDER) -> Baseline:
    """Return the baseline ``name`` for what was measured: this machine's, else the nearest one.

    Nearest is one of the same software, whose exact counts can be compared, then the latest one;
    comparing with either says what differs.

    Raises:
        GateError: no baseline has that name, or one cannot be read.
    """
    machine, traced_with = like.machine_key, software_keys(like)

    def rank(baseline: Baseline) -> tuple[bool, bool, str]:
        same_software = software_keys(baseline) == traced_with
        return baseline.machine == machine, same_software, baseline.saved_utc

    return max(of_name(name, folder), key=rank)


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


def software_keys(measurement: Measurement) -> set[str]:
    """Return the keys of the software that a run's cells were measured with."""
    cells = measurement.cells.values()
    return {measured.key(software(cell.fingerprint)) for cell in cells if cell.fingerprint}
