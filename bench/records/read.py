"""The store's edge: a line of JSON becomes a `Record`, or one sentence says why not."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, TypeVar

import msgspec

from bench.passes import PASSES
from bench.records.types import Record
from bench.tasks import TASKS

T = TypeVar("T")


class RecordError(ValueError):
    """A line is no record; ``str()`` is the reason, as a part of a sentence."""


class NotJsonError(RecordError):
    """It is not even JSON."""


def decode(line: bytes) -> Record:
    """Return the record that a line of records.jsonl holds, every known field checked.

    Raises:
        RecordError: it is no JSON, a field has another type or is out of range, or it nests too
            deeply.
    """
    return checked(_decoder(), line)


def unreadable(record: dict[str, Any]) -> str | None:
    """Return why a record that is to be stored could not be read again; None if it could."""
    try:
        decode(json.dumps(record, ensure_ascii=False).encode(errors="replace"))
    except RecordError as error:
        return str(error)
    return None


def checked(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Return what the decoder makes of JSON that may come from anywhere.

    Raises:
        RecordError: it is something else.
    """
    try:
        return decoder.decode(_plain(data))
    except RecursionError:
        raise RecordError("it nests too deeply") from None
    except UnicodeDecodeError:
        raise NotJsonError("it is not JSON: its text is not UTF-8") from None
    except msgspec.ValidationError as error:
        reason = _sentence(error)
    except msgspec.DecodeError as error:
        raise NotJsonError(f"it is not JSON: {_sentence(error)}") from None
    # What has a wrong field may break off behind it.
    checked(_anything, data)
    raise RecordError(reason)


_HIDDEN = re.compile(
    rb"(\\\\)|\\u(?:00(?:0[0-8bBcCeEfF]|1[0-9a-fA-F]|7[fF]|[89][0-9a-fA-F])"
    rb"|061[cC]|20(?:0[eEfF]|2[a-eA-E]|6[6-9]))|\\[bf]|\x7f|\xc2[\x80-\x9f]|\xd8\x9c"
    rb"|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]"
)
"""In JSON, the characters that `bench.text.plain` replaces; a written backslash is none."""


def _plain(data: bytes) -> bytes:
    if not any(mark in data for mark in (b"\\", b"\x7f", b"\xc2", b"\xd8\x9c", b"\xe2")):
        return data
    return _HIDDEN.sub(lambda found: found[1] or "\ufffd".encode(), data)


_anything = msgspec.json.Decoder(msgspec.Raw)


def _sentence(error: msgspec.MsgspecError) -> str:
    """Return msgspec's message with the field in front: ``e2e_s[3]: expected float > 0``."""
    message, _, place = str(error).replace("`", "").partition(" - at ")
    message = message[:1].lower() + message[1:]
    if "matching regex" in message:
        message = "expected a path below the run folder"
    field = place.removeprefix("$").removeprefix(".").replace("[...]", "")
    return f"{field}: {message}" if field else message


@functools.cache
def _decoder() -> msgspec.json.Decoder[Record]:
    """Return the decoder of a record with the fields that passes and tasks declare."""
    fields: dict[str, Any] = {}
    for registry in (PASSES, TASKS):
        for name in registry.names():
            module = registry.part(name, "record")
            for field in msgspec.structs.fields(module.Fields) if module else ():
                fields[field.name] = (field.name, field.type, field.default)
    stored = msgspec.defstruct(
        "Stored", list(fields.values()), bases=(Record,), frozen=True, kw_only=True
    )
    return msgspec.json.Decoder(stored)
