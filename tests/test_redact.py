"""Secrets: which values are, in which forms, and in streams that are cut anywhere."""

from __future__ import annotations

import base64
import json
import os
import select
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.redact import HIDDEN, Logs, Redactor, Stream

TOKEN = 'q7/Zp+X2 v9=Lk4&"T1'
KEY = (
    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\n-----END KEY-----"
)


def redactor(folder: Path, **environment: str) -> Redactor:
    return Redactor({"HF_HOME": str(folder), **environment})


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HFTOKEN",
        "OPENAI_KEY",
        "DB_PASS",
        "PGPASSWORD",
        "GITHUB_PAT",
        "AUTHORIZATION",
        "my_api_key",
        "APIKEY",
        "AWS_SECRET_ACCESS_KEY",
        "X_CREDENTIALS",
        "MYSQL_PWD",
        "PASSPHRASE",
    ],
)
def test_variables_are_secret_by_name(tmp_path: Path, name: str) -> None:
    assert redactor(tmp_path, **{name: "hunter2-x"}).text("is hunter2-x.") == f"is {HIDDEN}."


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("hf_abcdefghijklmnopqrst", True),
        ("sk-proj-abcdefghijklmn0123", True),
        ("aB3dE5gH7jK9mN1pQ3sT5vW7", True),
        ("https://Tok3nTok3n@host/x", True),
        ("https://me:pass-word@host/x", True),
        ("https://host/x?sig=abcdefgh1", True),
        ("MyProject2026ExperimentRun", False),
        ("GPU-5f3a8e7c-1c2d-4e5f-8a9b-0c1d2e3f4a5b", False),
        ("0123456789abcdef0123456789abcdef01234567", False),
        ("ssh://ubuntu@host", False),
        ("/usr/lib/python3.11/site-packages/aB3dE5gH7jK9", False),
    ],
)
def test_values_are_secret_by_what_they_look_like(tmp_path: Path, value: str, secret: bool) -> None:
    bare = value.rpartition("@")[0].rpartition("/")[2].rpartition(":")[2] or value
    bare = bare.rpartition("sig=")[2]
    assert (HIDDEN in redactor(tmp_path, ANYTHING=value).text(f"({bare})")) == secret


@pytest.mark.parametrize(
    "value", ["1", "true", "false", "default", "0.5", "100000", "/usr/bin/x", "~/key", "disabled"]
)
def test_short_and_ordinary_values_are_no_secrets(tmp_path: Path, value: str) -> None:
    text = f"a line with {value} in it"
    assert redactor(tmp_path, MY_TOKEN=value, TOKENIZERS_PARALLELISM="false-ish").text(text) == text


@pytest.mark.parametrize(
    "form",
    [
        TOKEN,
        quote(TOKEN, safe=""),
        quote(TOKEN, safe="").lower().replace(quote(TOKEN, safe="").lower(), quote(TOKEN)),
        json.dumps(TOKEN),
        base64.b64encode(TOKEN.encode()).decode(),
        *(base64.b64encode(f"{'u' * n}:{TOKEN}:x".encode()).decode() for n in range(3)),
        base64.urlsafe_b64encode(TOKEN.encode()).decode(),
    ],
)
def test_a_secret_is_hidden_in_each_form(tmp_path: Path, form: str) -> None:
    text = redactor(tmp_path, A_TOKEN=TOKEN).text(f"before {form} after")
    assert HIDDEN in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    for length in range(8, len(form)):
        assert form[4 : 4 + length] not in text.replace(HIDDEN, "")


def test_keys_of_several_lines_and_stored_tokens_and_patterns(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("stored-token-1\n")
    hides = redactor(tmp_path, DEPLOY_KEY=KEY)
    assert hides.text(KEY) == HIDDEN
    assert "MIIE" not in hides.text(KEY.replace("\n", "\n    "))
    assert "BKcw" not in hides.text(json.dumps(KEY))
    assert hides.text("stored-token-1") == HIDDEN
    assert hides.text("see https://abc123:x@host/a") == f"see https://{HIDDEN}@host/a"
    assert hides.text("Authorization: Bearer abc123def") == f"Authorization: Bearer {HIDDEN}"
    assert hides.text("GET /x?a=1&token=abc HTTP") == f"GET /x?a=1&token={HIDDEN} HTTP"
    assert hides.text("a basic transformer block") == "a basic transformer block"
    assert hides.value({"stored-token-1": ["x stored-token-1", 1, None]}) == {
        HIDDEN: [f"x {HIDDEN}", 1, None]
    }


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=12))
def test_a_stream_may_be_cut_anywhere(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    text = f"one {TOKEN}\ntwo\r{KEY}\n{'.' * 70_000}{TOKEN}{'.' * 70_000}\nend {TOKEN}".encode()
    whole = redactor(tmp_path_factory.mktemp("none"), A_TOKEN=TOKEN, B_KEY=KEY)
    stream, out, rest = Stream(whole), b"", text
    for cut in (*cuts, 66_000):
        out, rest = out + stream.feed(rest[:cut]), rest[cut:]
    assert out + stream.feed(rest) + stream.end() == whole.raw(text)


def test_the_filter_hides_what_native_code_prints_and_says_when_all_is_written(
    tmp_path: Path,
) -> None:
    logs = Logs({"A_TOKEN": "0123456789ab", "HF_HOME": str(tmp_path)})
    try:
        name, fd = logs.open(tmp_path / "log")
        for _ in range(20_000):
            os.write(fd, b"text 0123456789ab\n")
        os.write(fd, b"no end 0123456789ab")
        os.close(fd)
        logs.wait(name, 30.0)
        assert (tmp_path / "log").read_text() == f"text {HIDDEN}\n" * 20_000 + f"no end {HIDDEN}"
    finally:
        logs.close()
    assert logs._process.returncode == 0


def test_the_filter_outlives_the_runner_until_all_is_written(tmp_path: Path) -> None:
    logs = Logs({"A_TOKEN": "0123456789ab", "HF_HOME": str(tmp_path)})
    _, other = logs.open(tmp_path / "other")
    os.close(other)
    _, fd = logs.open(tmp_path / "log")
    # With an answer that nobody reads, the runner's end is reset rather than closed.
    select.select([logs._control], [], [], 30.0)
    logs._control.close()
    os.write(fd, b"late 0123456789ab")
    os.close(fd)
    assert logs._process.wait(30.0) == 0
    assert (tmp_path / "log").read_text() == f"late {HIDDEN}"


def test_a_full_disk_leaves_no_secret_and_blocks_nobody(tmp_path: Path) -> None:
    logs = Logs({"A_TOKEN": "0123456789ab", "HF_HOME": str(tmp_path)})
    try:
        (tmp_path / "log").symlink_to("/dev/full")
        with pytest.raises(OSError, match="symbolic"):
            logs.open(tmp_path / "log")
        began = time.monotonic()
        name, fd = logs.open(Path("/dev/full"))
        for _ in range(20_000):
            os.write(fd, b"text 0123456789ab\n")
        os.close(fd)
        logs.wait(name, 30.0)
        assert time.monotonic() - began < 30.0
    finally:
        logs.close()
    assert [each.name for each in tmp_path.iterdir()] == ["log"]
