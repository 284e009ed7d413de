"""Keeps the user's tokens and passwords out of records and logs."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|APIKEY|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET)_KEY)(_|$)"
)
_SHORTEST = 8
_HIDDEN = "[hidden]"
_CHUNK = 2**20


class Redactor:
    """Replaces secret values wherever they occur.

    Secret are the values of environment variables that are called like one (HF_TOKEN,
    AWS_SECRET_ACCESS_KEY, …), passwords inside URLs of other variables (proxies, package
    registries), and the stored Hugging Face token.

    Args:
        environment: of the workers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {value for name, value in environment.items() if _NAME.search(name.upper())}
        for value in environment.values():
            if "://" in value and "@" in value:
                try:
                    values.add(urlsplit(value).password or "")
                except ValueError:
                    continue
        values.add(_stored_token(environment))
        kept = {value.strip() for value in values if len(value.strip()) >= _SHORTEST}
        # The longest first, so that a secret inside another one leaves no rest of it.
        self._values = sorted(kept, key=len, reverse=True)

    def text(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, _HIDDEN)
        return text

    def value(self, value: Any) -> Any:
        """Redact every string in a JSON value, keys included."""
        if not self._values:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value

    def file(self, path: Path) -> None:
        """Redact a file in place; it is rewritten only if it holds a secret."""
        needles = [value.encode() for value in self._values]
        if not needles or not path.exists():
            return
        overlap = len(needles[0]) - 1
        with path.open("rb") as source:
            rest = b""
            while chunk := source.read(_CHUNK):
                window = rest + chunk
                if any(needle in window for needle in needles):
                    break
                rest = window[-overlap:]
            else:
                return
            source.seek(0)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as target:
                for line in source:
                    for needle in needles:
                        line = line.replace(needle, _HIDDEN.encode())
                    target.write(line)
        os.chmod(target.name, path.stat().st_mode & 0o777)
        os.replace(target.name, path)


def _stored_token(environment: Mapping[str, str]) -> str:
    home = environment.get("HF_HOME") or os.path.join(
        environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    path = environment.get("HF_TOKEN_PATH") or os.path.join(home, "token")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
