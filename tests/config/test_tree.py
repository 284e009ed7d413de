from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import files
from bench.config import ConfigError, tree


def parsed(text: str) -> Any:
    return tree.plain(tree.parse(text, "x.yaml"))


def test_every_value_and_key_knows_its_line_and_column() -> None:
    root = tree.parse("a: 1\nb:\n  - x\n  - {c: d}\n", "x.yaml")
    assert tree.place_of(root, ("a",)) == ("x.yaml", 1, 4)
    assert tree.place_of(root, ("a",), key=True) == ("x.yaml", 1, 1)
    assert tree.place_of(root, ("b", 0)) == ("x.yaml", 3, 5)
    assert tree.place_of(root, ("b", 1, "c")) == ("x.yaml", 4, 9)
    assert tree.place_of(root, ("b", 1, "c"), key=True) == ("x.yaml", 4, 6)


def test_the_place_of_what_was_not_written_is_that_of_its_owner() -> None:
    root = tree.parse("a:\n  b: 1\n", "x.yaml")
    assert tree.place_of(root, ("a", "zzz", 3)).line == 2
    assert tree.place_of(root, ("a", "b", "c")).line == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("Off", "Off"), ("12:30", "12:30"), ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"), ("0x10", "0x10"), ("none", "none"), ("=", "="),
        ("1e-3", 0.001), ("1.", 1.0), (".5", 0.5), ("+7", 7), ("010", 10), ("-0", 0),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("'10'", "10"), ('"true"', "true"), ("''", ""), ("|-\n  10", "10"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    read = parsed(f"a: {text}\n")["a"]
    assert (read, type(read)) == (value, type(value))


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cn", "Cs", "Zl", "Zp")), max_size=6)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(TEXT.filter(lambda key: key != "<<"), inner, max_size=3),
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(TEXT.filter(lambda key: key != "<<"), PLAIN, max_size=4))
def test_json_is_yaml(value: dict[str, Any]) -> None:
    assert parsed(json.dumps(value, ensure_ascii=False)) == value


def test_aliases_and_merge_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [{y: 4}, *a]}\n"
    same = {"x": 1, "y": 2}
    assert parsed(text) == {"a": same, "b": same, "c": {"x": 1, "y": 3}, "d": {"x": 1, "y": 4}}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def bomb_values() -> int:
    weights = [10]
    for _ in range(8):
        weights.append(1 + 9 * weights[-1])
    return 1 + sum(weights)


LADDER = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "x.yaml:2: duplicate key 'a' (first in line 1)"),
        ("{a: 1, b: {c: 1, c: 2}}", "x.yaml:1: duplicate key 'c' (first in line 1)"),
        ("a: *b\n", "x.yaml:1: alias '*b' has no anchor before it"),
        ("a: &a [*a]\n", "x.yaml:1: alias '*a' refers to a value that contains it"),
        ("1: 2\n", "x.yaml:1: key 1 must be text; quote it"),
        ("? [a]\n: 1\n", "x.yaml:1: key '…' must be text; quote it"),
        ("a: 1\n---\nb: 1\n", "x.yaml:2: a second document starts here"),
        ("a: !!python/object/apply:os.system [x]\n",
         "x.yaml:1: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not accepted"),
        ("a:\n\tb: 1\n", "x.yaml:2: not valid YAML: found character that cannot start any token"),
        ("a: \x07\n", "x.yaml:1: holds the character U+0007"),
        ("a: b: c\n", "x.yaml:1: not valid YAML: mapping values are not allowed"),
        ("", "x.yaml: is empty"),
        ("# nothing\n", "x.yaml: is empty"),
        ("a: " + "[" * 5000, "x.yaml:1: is nested deeper than 32 levels"),
        ("- " * 5000, "x.yaml:1: is nested deeper than 32 levels"),
        (LADDER, "x.yaml:33: is nested deeper than 32 levels"),
        (BOMB, f"x.yaml: stands for {bomb_values():,} values; 500,000 are allowed"),
        ("<<: 1\n", "x.yaml:1: '<<' merges mappings only"),
    ],
)  # fmt: skip
def test_text_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tree.parse(text, "x.yaml")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: 1\nb: \xff\n", ":2: is not UTF-8 text (byte 0xff at offset 8)"),
        (b"\x7fELF\x02\x01\x01\x00", ":1: holds the character U+007F, which YAML text cannot"),
        (b"", ": is empty"),
        (b"a: " + b"x" * files.YAML_BYTES, ": is larger than 4 MiB"),
    ],
)
def test_file_that_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        tree.read_file(path, "x.yaml")
    assert str(caught.value).startswith(f"x.yaml{message}")


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert tree.plain(tree.read_file(path, "x.yaml")) == {"a": 1}


def test_missing_file_names_the_one_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").touch()
    path = tmp_path / "quickstrat.yaml"
    with pytest.raises(ConfigError) as caught:
        tree.read_file(path, str(path))
    assert str(caught.value) == f"{path}: no such file. Did you mean '{tmp_path}/quickstart.yaml'?"


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").touch()
    with pytest.raises(ConfigError, match=r"is a directory; .* It holds quickstart\.yaml\."):
        tree.read_file(tmp_path, str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.touch(mode=0)
    with pytest.raises(ConfigError, match=r"x\.yaml: cannot be read: Permission denied"):
        tree.read_file(path, "x.yaml")


def test_name_that_no_file_can_have() -> None:
    with pytest.raises(ConfigError, match=r"cannot be read|no such file"):
        tree.read_file(Path("a\x00b"), "a\x00b")


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": object()}, {"a": {1, 2}}, {"a": "\ud800"}, {"a": 10**500}]
)
def test_python_data_that_yaml_could_not_hold(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^configuration: "):
        tree.from_python(value, "configuration")


def test_python_data_that_holds_itself() -> None:
    value: dict[str, Any] = {}
    value["a"] = value
    with pytest.raises(ConfigError, match="nested deeper"):
        tree.from_python(value, "configuration")
