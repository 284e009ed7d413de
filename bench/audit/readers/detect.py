"""Which reader a file belongs to."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path

from bench import files
from bench.audit.build import refuse
from bench.audit.columns import Meaning
from bench.audit.readers import delimited, jsons, markdown, onediff, runs
from bench.audit.table import Table

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


def read(path: Path, maps: Mapping[str, Meaning]) -> list[Table]:
    """Return the tables of a file or of a run folder.

    Raises:
        AuditError: it cannot be read, or holds no table.
    """
    shown = str(path)
    if path.is_dir() or path.name == "records.jsonl":
        return [runs.read(path, maps)]
    try:
        content = files.read(path, files.TABLE_BYTES)
    except OSError as error:
        raise refuse(shown, f"{(error.strerror or str(error)).lower()}.") from error
    text = _text(shown, content)
    if not text.strip():
        raise refuse(shown, "it is empty.")
    if text.lstrip()[0] in "{[":
        return _json(shown, path, text, maps)
    if onediff.looks_like(text):
        return [onediff.read(shown, text, maps), *markdown.read(shown, text, maps)]
    tables = markdown.read(shown, text, maps)
    if tables:
        return tables
    return [delimited.read(shown, text, maps)]


def _text(shown: str, content: bytes) -> str:
    encodings = ["utf-8-sig", "cp1252"]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not _CONTROL.search(text):
            return text
    raise refuse(shown, "it is no text; audit reads CSV, JSON, Markdown and printed logs.")


def _json(shown: str, path: Path, text: str, maps: Mapping[str, Meaning]) -> list[Table]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise refuse(shown, "its JSON is nested too deeply.") from None
    except ValueError as error:
        try:
            first = json.loads(text.lstrip().splitlines()[0])
        except (ValueError, RecursionError):
            raise refuse(shown, f"it begins as JSON and is none ({error}).") from None
        if isinstance(first, dict) and "record_id" in first:
            return [runs.read(path, maps)]
        return [jsons.read_lines(shown, text, maps)]
    if isinstance(value, dict) and "record_id" in value and "cell" in value:
        return [runs.read(path, maps)]
    return [jsons.read(shown, value, maps)]
