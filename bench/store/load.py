"""Run folders to sources: all that readers of one or several runs start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.records.arms import Source
from bench.store import RunFolder, StoreError


def load(runs: Sequence[Path]) -> list[Source]:
    """Return the source of each run folder, in the order given, each with a label of its own.

    Raises:
        StoreError: a folder is no run, holds no record, or is there twice.
    """
    return [_source(path, label) for path, label in zip(runs, _labels(runs), strict=True)]


def _source(path: Path, label: str) -> Source:
    folder = RunFolder.open(path)
    source = folder.source(label)
    if not source.records:
        raise StoreError(
            f"{path} holds no record of its plan yet, so there is nothing to report; "
            "bench run --resume measures what is missing."
        )
    return source


def _labels(runs: Sequence[Path]) -> list[str]:
    """Return a short unique name for each path: its last part, or as many parts as it takes."""
    absolute = [path.absolute() for path in runs]
    if len(set(absolute)) < len(absolute):
        raise StoreError("the same run was given twice")
    for parts in range(1, max((len(path.parts) for path in absolute), default=0) + 1):
        names = ["/".join(path.parts[-parts:]) for path in absolute]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in absolute]
