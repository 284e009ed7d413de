"""YAML text to a tree whose every value and key knows its file, line and column.

The tree is built from the parser's events rather than by a loader, so that no object can be
constructed, nesting and aliases are bounded while reading, and duplicate keys are seen. Plain
scalars follow the core schema of YAML 1.2, as editors with a schema do: ``on``, ``no`` and
``12:30`` are text, and ``1e-3`` is a number.
"""

from __future__ import annotations

import contextlib
import gc
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import files
from bench.config.errors import ConfigError, Place, nearest, shown, storable

MAX_DEPTH = 32
MAX_VALUES = 500_000
"""Values after aliases are followed; a few lines of nested aliases can stand for billions."""

Scalar = str | int | float | bool | None
KeyPath = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_TEXT = re.compile(
    r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_LONGEST_NUMBER = 400
_HEAVIEST = 10**12


@dataclass(slots=True)
class Node:
    """A value with its place. ``value`` is a scalar, a list of nodes or a dict of entries."""

    value: Scalar | list[Node] | dict[str, Entry]
    place: Place
    weight: int = 1  # values in this subtree, aliases followed; at most _HEAVIEST
    height: int = 0  # levels below this one, aliases followed


@dataclass(slots=True)
class Entry:
    """A value in a mapping, with the place of its key."""

    key_place: Place
    node: Node


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector while many small objects are made that all stay.

    It would look through every one of them again and again: half the time of a large plan.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def plain(node: Node) -> Any:
    """Return the tree below ``node`` as plain dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


def place_of(root: Node, path: KeyPath, *, key: bool = False) -> Place:
    """Return where ``path`` was written, or the nearest enclosing value that was.

    With ``key``, the place of the last key itself rather than of its value.
    """
    node, place = root, root.place
    for step in path:
        if isinstance(node.value, dict) and isinstance(step, str) and step in node.value:
            entry = node.value[step]
            node = entry.node
            place = entry.key_place if key else node.place
        elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            place = node.place
        else:
            break
    return place


def read_file(path: Path, shown_as: str) -> Node:
    """Read and parse a file.

    Raises:
        ConfigError: it is missing, unreadable, not UTF-8 text, too large, empty, or not YAML.
    """
    place = Place(shown_as)
    try:
        if path.is_dir():
            inside = sorted(
                item.name for item in path.iterdir() if item.suffix in (".yaml", ".yml")
            )
            hint = f" It holds {', '.join(inside[:5])}." if inside else ""
            raise ConfigError(f"is a directory; name a configuration file.{hint}", place)
        with files.open_file(path, sys.maxsize) as stream:
            data = stream.read(files.YAML_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"no such file.{_similar_file(path)}", place) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"cannot be read: {reason}", place) from None
    if len(data) > files.YAML_BYTES:
        raise ConfigError(
            f"is larger than {files.YAML_BYTES // files.MIB} MiB, which is no configuration", place
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"is not UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start})",
            Place(shown_as, line),
        ) from None
    return parse(text, shown_as)


def parse(text: str, source: str) -> Node:
    """Parse one YAML document.

    Raises:
        ConfigError: a syntax error, a duplicate key, a tag, nesting or aliases beyond the bounds,
            more than one document, or none.
    """
    return _Builder(text, source, single_line=False).document()


def parse_value(text: str, source: str) -> Node:
    """Parse the value of an override; every value in it is placed at ``source``.

    Raises:
        ConfigError: as ``parse``.
    """
    if not text.strip():
        return Node(None, Place(source))
    return _Builder(text, source, single_line=True).document()


def from_python(value: Any, source: str) -> Node:
    """Make a tree of plain Python data.

    Raises:
        ConfigError: a key is no string, a value is of a type that YAML has not, or the data is
            nested too deeply or holds itself.
    """
    budget = [MAX_VALUES]

    def build(item: Any, depth: int) -> Node:
        budget[0] -= 1
        if depth > MAX_DEPTH or budget[0] < 0:
            raise ConfigError(f"is nested deeper than {MAX_DEPTH} levels or too large", place)
        if isinstance(item, int) and abs(item) >= 10**_LONGEST_NUMBER:
            raise ConfigError("holds a number that is too large", place)
        if isinstance(item, str) and not storable(item):
            raise ConfigError(f"{shown(item)} holds half a character", place)
        if item is None or isinstance(item, (str, int, float)):
            return Node(item, place)
        if isinstance(item, Mapping):
            entries: dict[str, Entry] = {}
            for key, inner in item.items():
                if not isinstance(key, str) or not storable(key):
                    raise ConfigError(f"key {shown(key)} must be text", place)
                entries[key] = Entry(place, build(inner, depth + 1))
            return Node(entries, place)
        if isinstance(item, (list, tuple)):
            return Node([build(inner, depth + 1) for inner in item], place)
        raise ConfigError(f"{shown(item)} is a {type(item).__name__}, not plain data", place)

    place = Place(source)
    return build(value, 0)


def _similar_file(path: Path) -> str:
    try:
        names = [item.name for item in path.parent.iterdir() if item.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return ""
    near = nearest(path.name, names)
    return f" Did you mean '{path.parent / near}'?" if near else ""


def _scalar(text: str) -> Scalar:
    """Resolve a plain scalar by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _LONGEST_NUMBER:
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


class _Builder:
    def __init__(self, text: str, source: str, *, single_line: bool) -> None:
        self._source = source
        self._single_line = single_line
        self._anchors: dict[str, Node | None] = {}
        self._text = text

    def document(self) -> Node:
        bad = _NOT_TEXT.search(self._text)
        if bad is not None:
            raise ConfigError(
                f"holds the character U+{ord(bad[0]):04X}, which YAML text cannot; is it binary?",
                self._place(self._text.count("\n", 0, bad.start()), None),
            )
        loader = _Loader(self._text)
        try:
            with collector_paused():
                root = self._read(iter(loader.get_event, None))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = error.problem or error.context or "cannot be parsed"
            if error.context and error.problem:
                what = f"{error.problem} {error.context}"
            place = Place(self._source) if mark is None else self._place(mark.line, mark.column)
            raise ConfigError(f"not valid YAML: {' '.join(what.split())}", place) from None
        except yaml.YAMLError as error:
            what = " ".join(str(error).split())
            raise ConfigError(f"not valid YAML: {what}", Place(self._source)) from None
        finally:
            loader.dispose()
        if root.weight > MAX_VALUES:
            count = f"{root.weight:,}" if root.weight < _HEAVIEST else f"over {_HEAVIEST:,}"
            raise ConfigError(
                f"stands for {count} values; {MAX_VALUES:,} are allowed", Place(self._source)
            )
        return root

    def _place(self, line: int, column: int | None) -> Place:
        if self._single_line:
            return Place(self._source)
        return Place(self._source, line + 1, None if column is None else column + 1)

    def _at(self, event: Any) -> Place:
        return self._place(event.start_mark.line, event.start_mark.column)

    def _read(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise ConfigError(
                        "a second document starts here ('---'); a configuration is one document",
                        self._at(event),
                    )
                root = self._node(next(events), events, 0)
        if root is None:
            raise ConfigError("is empty", Place(self._source))
        return root

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place = self._at(event)
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            target = self._anchors.get(name)
            if target is None:
                known = name in self._anchors
                why = "refers to a value that contains it" if known else "has no anchor before it"
                raise ConfigError(f"alias '*{name}' {why}", place)
            return target
        if depth > MAX_DEPTH:
            raise ConfigError(f"is nested deeper than {MAX_DEPTH} levels", place)
        if event.tag is not None:
            raise ConfigError(f"tag {shown(event.tag)} is not accepted; write plain values", place)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node(_scalar(event.value) if event.implicit[0] else event.value, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(events, place, depth)
        else:
            node = self._mapping(events, place, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, events: Iterator[Any], place: Place, depth: int) -> Node:
        items: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, events, depth + 1))
        return self._measured(Node(items, place), items)

    def _mapping(self, events: Iterator[Any], place: Place, depth: int) -> Node:
        entries: dict[str, Entry] = {}
        merged: list[Node] = []
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key_place = self._at(event)
            key_node = self._node(event, events, depth + 1)
            if not isinstance(key_node.value, str):
                what = key_node.value if not isinstance(key_node.value, (list, dict)) else "…"
                raise ConfigError(f"key {shown(what)} must be text; quote it", key_place)
            value = self._node(next(events), events, depth + 1)
            if key_node.value == "<<":
                merged.extend(self._merge_sources(value))
                continue
            if key_node.value in entries:
                first = entries[key_node.value].key_place
                where = f" (first in line {first.line})" if first.line is not None else ""
                raise ConfigError(f"duplicate key {shown(key_node.value)}{where}", key_place)
            entries[key_node.value] = Entry(key_place, value)
        for source in merged:
            assert isinstance(source.value, dict)
            for key, entry in source.value.items():
                entries.setdefault(key, entry)
        return self._measured(Node(entries, place), [entry.node for entry in entries.values()])

    def _measured(self, node: Node, children: list[Node]) -> Node:
        node.weight = min(_HEAVIEST, 1 + sum(child.weight for child in children))
        node.height = 1 + max((child.height for child in children), default=0)
        if node.height > MAX_DEPTH:
            raise ConfigError(f"is nested deeper than {MAX_DEPTH} levels", node.place)
        return node

    def _merge_sources(self, node: Node) -> list[Node]:
        sources = node.value if isinstance(node.value, list) else [node]
        for source in sources:
            if not isinstance(source.value, dict):
                raise ConfigError("'<<' merges mappings only", source.place)
        return sources
