"""A user's settings of pip, which uv does not read, translated into variables and options of uv.

Many machines say in pip.conf or in PIP_* variables where packages come from. They are read as pip
reads them: files of the machine, of the user, of this virtual environment, then variables; within
files, ``[install]`` goes over ``[global]``.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bench.environments.declare import EnvironmentUnavailable

_VARIABLES: dict[str, tuple[str, str | None]] = {
    "index-url": ("UV_INDEX_URL", None),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", None),
    "client-cert": ("SSL_CLIENT_CERT", None),
}
"""Setting of pip → variable of uv, and what separates several values there."""

PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy")


def translated(
    environment: Mapping[str, str] = os.environ,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return variables for uv's process, and options for those of its commands that pick packages.

    Addresses may hold passwords, so they become variables: options are seen by every user.

    Raises:
        EnvironmentUnavailable: one of pip's files is damaged.
    """
    settings = read(environment)
    # pip takes the best version of all places; uv by itself stops at the first that has any.
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    options = [
        f"--{key}={name}"
        for key in ("only-binary", "no-binary")
        for name in settings.get(key, "").replace(",", " ").split()
    ]
    if settings.get("no-index", "").lower() in ("1", "y", "yes", "t", "true", "on"):
        options.append("--no-index")
        settings = {key: text for key, text in settings.items() if "index-url" not in key}
    for key, (variable, separator) in _VARIABLES.items():
        text = settings.get(key, "")
        values = [_absolute(key, value) for value in (text.split() if separator else [text])]
        if any(values):
            variables[variable] = (separator or "").join(filter(None, values))
    timeout = settings.get("timeout", settings.get("default-timeout", ""))
    if timeout:
        variables["UV_HTTP_TIMEOUT"] = timeout.partition(".")[0]
    if "proxy" in settings:
        variables |= dict.fromkeys(PROXIES, settings["proxy"])
    # Who has set a variable of uv's own meant uv.
    kept = {
        name: text
        for name, text in variables.items()
        if not (name.startswith("UV_") and name in environment)
    }
    return kept, tuple(options)


def read(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the settings that ``pip install`` has here, by their long names, without empty ones.

    Raises:
        EnvironmentUnavailable: a file is damaged.
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for path in _files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError):
            # The error quotes the line, which may hold a password.
            raise EnvironmentUnavailable(
                f"pip's settings in {path} cannot be read; `pip config debug` shows why"
            ) from None
        for section in sections.keys() & set(parser.sections()):
            sections[section] |= {_long(name): text for name, text in parser.items(section)}
    variables = {
        _long(name.removeprefix("PIP_")): text
        for name, text in environment.items()
        if name.startswith("PIP_")
    }
    return {
        key: text.strip()
        for layer in (sections["global"], sections["install"], variables)
        for key, text in layer.items()
        if text.strip()
    }


def _files(environment: Mapping[str, str]) -> list[Path]:
    """Return where pip's files may be, the weakest first."""
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path.home()
    user = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip"
    if sys.platform == "darwin":
        library = Path("Library/Application Support/pip")
        folders = ["/" / library]
        user = home / library if (home / library).is_dir() else home / ".config/pip"
    else:
        given = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        folders = [*(Path(each, "pip") for each in given.split(os.pathsep)), Path("/etc")]
    if not os.path.exists(named):
        folders += [home / ".pip", user]
    files = [folder / "pip.conf" for folder in (*folders, Path(sys.prefix))]
    return [*files, Path(named)] if named else files


def _long(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _absolute(key: str, value: str) -> str:
    """Return a value that holds in every folder; empty for what pip passes over and uv refuses."""
    if not value or key == "trusted-host":
        return value
    if "://" not in value:
        path = Path(value).expanduser().absolute()
        address = key.endswith(("-url", "-links"))
        value = path.as_uri() if address else str(path)
    if key == "find-links" and value.startswith("file:"):
        value = value.replace(",", "%2C")
        return value if os.path.exists(unquote(urlsplit(value).path)) else ""
    return value
