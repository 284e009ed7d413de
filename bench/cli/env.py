"""``bench env``: the interpreters of backends that cannot be installed beside each other."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.environments import Status

env = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Names = Annotated[
    list[str], typer.Argument(metavar="NAME…", help="Environments.", show_default=False)
]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Environment.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_STYLES = {
    "ready": "green",
    "broken": "bold red",
    "unfinished": "yellow",
    "absent": "dim",
    "unusable": "yellow",
    "ok": "green",
    "limited": "yellow",
    "missing": "bold red",
}


@env.callback()
def root() -> None:
    """Build, check and remove the interpreters that backends live in.

    Each is declared in one TOML file with a lock, and built by uv into a cache folder outside the
    project; docs/environments.md has all of it.

    \b
    Examples:
      bench env list
      bench env sync nexfort
      bench env check nexfort
      bench env remove nexfort

    \b
    Exit codes:
      0    done
      1    an environment could not be built, or a backend does not work
      2    usage: a wrong option, or no such environment
      130  interrupted
    """  # noqa: D301 - click reads \b as a character


@env.command("list")
def list_(json_: _Json = False) -> None:
    """Show every environment: whether it is ready, its Python, its size, its backends.

    \b
    Example:
      bench env list
    """  # noqa: D301 - click reads \b as a character
    from bench.environments import built, declarations

    statuses = [built.status(each) for each in declarations().values()]
    if json_:
        print(json.dumps([_as_json(each) for each in statuses], indent=1))
        return
    rows = []
    for each in statuses:
        reason = each.declaration.known_problem if each.state == "absent" else each.reason
        python = each.python or " or ".join(each.declaration.pythons)
        description = [each.declaration.description, *([reason] if reason else [])]
        rows.append(
            (each.declaration.name, each.state, python, _size(each), "\n".join(description))
        )
    _print_table(rows, ("environment", "state", "python", "size", "what it is"), styled=1)
    print(f"\nIn {built.cache_folder()}; `bench env sync NAME` builds one.")


@env.command()
def sync(names: _Names) -> None:
    """Build environments, or mend them; nothing is done for one that is ready.

    Says first what is going to be installed and how large it is. Nothing that an interrupted sync
    leaves is taken for an environment; the next one begins anew.

    \b
    Example:
      bench env sync nexfort

    \b
    Exit codes:
      0  all of them are ready
      1  one could not be built; a sentence says why
      2  usage: no such environment
    """  # noqa: D301 - click reads \b as a character
    from bench.environments import EnvironmentUnavailable, build
    from bench.environments.declare import declaration

    wanted = [declaration(name) for name in dict.fromkeys(names)]
    # A polite end takes uv and its compilers along, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = False
    for declared in wanted:
        if declared.known_problem:
            print(f"Note: {declared.known_problem}.")
        try:
            status = build.sync(declared, say=print_now, progress=print_now)
        except EnvironmentUnavailable as error:
            print(f"bench: {error}", file=sys.stderr)
            failed = True
        except KeyboardInterrupt:
            print("Interrupted; what was begun is removed.", file=sys.stderr)
            raise typer.Exit(130) from None
        else:
            print(f"{declared.name} is ready: {_ready_text(status)}")
    raise typer.Exit(1 if failed else 0)


@env.command()
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Environment, or current.", show_default=False)
    ],
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N.")] = "auto",
    json_: _Json = False,
) -> None:
    """Try the backends of an environment: each compiles something small and compares the output.

    Each runs in a process of its own under the environment's interpreter. That a package can be
    imported proves nothing, so none is only imported.

    \b
    Examples:
      bench env check nexfort
      bench env check current --device cpu

    \b
    Exit codes:
      0  every backend works
      1  some backend does not, or the environment is not ready
      2  usage: no such environment
    """  # noqa: D301 - click reads \b as a character
    from bench.environments import EnvironmentUnavailable, resolve
    from bench.environments import check as checking

    backends = _backends_of(name)
    try:
        interpreter = resolve(name)
    except EnvironmentUnavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    verdicts = []
    for backend in backends:
        verdicts.append(checking.check(interpreter, backend, device))
        if not json_:
            print_now(_verdict_text(verdicts[-1]))
    if json_:
        print(json.dumps(verdicts, indent=1))
    elif not verdicts:
        print(f"No backend lives in {name!r}.")
    raise typer.Exit(0 if all(verdict["ok"] for verdict in verdicts) else 1)


@env.command()
def remove(names: _Names) -> None:
    """Remove built environments, also those of older locks; declarations and locks stay.

    \b
    Example:
      bench env remove nexfort
    """  # noqa: D301 - click reads \b as a character
    from bench.environments import build
    from bench.environments.declare import declaration, declarations

    known = declarations()
    for name in dict.fromkeys(names):
        removed = build.remove(name)
        if not removed:
            declaration(name, known)
            print(f"{name}: nothing is built")
        for folder, size in removed:
            print(f"{name}: removed {folder}, {build.bytes_text(size)}")


@env.command()
def lock(
    name: _Name,
    python: Annotated[
        str,
        typer.Option("--python", metavar="VERSION", help="Only this one of its Python versions."),
    ] = "",
) -> None:
    """Resolve an environment's requirements anew and write its locks.

    \b
    Examples:
      bench env lock nexfort
      bench env lock nexfort --python 3.11
    """  # noqa: D301 - click reads \b as a character
    from bench.environments import EnvironmentProblem
    from bench.environments import lock as locks
    from bench.environments.declare import declaration

    declared = declaration(name)
    if python and python not in declared.pythons:
        raise EnvironmentProblem(
            f"{name!r} is for Python {' and '.join(declared.pythons) or declared.own_python}, "
            f"not {python}."
        )
    for version in [python] if python else declared.pythons:
        path, changed = locks.make(declared, version, say=print_now)
        print(f"{path}: {len(changed)} package(s) changed")
        for package, (before, now) in changed.items():
            print(f"  {package} {before or 'new'} → {now or 'gone'}")


@env.command()
def doctor(json_: _Json = False) -> None:
    """Show what building environments has here: Pythons, uv, disk, locks, leftovers.

    \b
    Exit codes:
      0  every environment is ready or can be built
      1  one cannot; the remedy stands beside it
    """  # noqa: D301 - click reads \b as a character
    findings = list(_findings())
    if json_:
        columns = ("status", "topic", "says")
        print(json.dumps([dict(zip(columns, each, strict=True)) for each in findings], indent=1))
    else:
        _print_table(findings)
    raise typer.Exit(1 if any(each[0] == "missing" for each in findings) else 0)


def _findings() -> Iterator[tuple[str, str, str]]:
    from bench.environments import EnvironmentUnavailable, build, built, declarations, uv
    from bench.environments import lock as locks
    from bench.environments.declare import user_folder

    cache = built.cache_folder()
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    yield "ok", "cache folder", f"{cache}, {build.bytes_text(free)} free"
    yield "ok", "your own files", str(user_folder())
    known = declarations()
    try:
        yield "ok", "uv", str(uv.find())
        for version in sorted({v for each in known.values() for v in each.pythons}):
            path = uv.find_python(version)
            how = f"not found; `uv python install {version}` is one way"
            yield "ok" if path else "limited", f"Python {version}", str(path or how)
    except EnvironmentUnavailable as error:
        yield "missing", "uv", str(error)
    current = set()
    for declared in known.values():
        status = built.status(declared, cache)
        current.add(status.folder)
        if status.state == "ready":
            yield "ok", declared.name, _ready_text(status)
            continue
        try:
            work = build.plan(declared, cache)
        except EnvironmentUnavailable as error:
            yield "missing", declared.name, str(error)
            continue
        reason = f"{status.reason}; can be built with Python {work.exact}"
        good = status.state == "absent" and not declared.known_problem
        yield (
            "ok" if good else "limited",
            declared.name,
            f"{status.state}: {declared.known_problem or reason}",
        )
        for version in locks.outdated(declared):
            says = f"its requirements changed after the lock; bench env lock {declared.name}"
            yield "limited", f"{declared.name}, Python {version}", says
    for folder in sorted(set(cache.glob("*-*")) - current):
        if folder.is_dir():
            size = build.bytes_text(build.folder_bytes(folder))
            remedy = f"bench env remove {folder.name.rpartition('-')[0]}"
            yield "limited", folder.name, f"of an older lock, {size}; {remedy}"


def _backends_of(name: str) -> list[str]:
    """Return the backends that need an environment, and those that its declaration names."""
    from bench.environments.declare import CURRENT, declaration
    from compilers import registry

    further = () if name == CURRENT else ("none", *declaration(name).backends)
    needing = []
    for backend in registry.names():
        try:
            if registry.get(backend).environment == name:
                needing.append(backend)
        except registry.BackendError as error:
            print(f"bench: {error}", file=sys.stderr)
    return list(dict.fromkeys([*further, *needing]))


def _verdict_text(verdict: dict[str, Any]) -> str:
    facts = []
    if verdict.get("device"):
        facts.append(f"on {verdict['device']}")
    if verdict.get("first_call_s") is not None:
        facts.append(f"first call {verdict['first_call_s']:.1f} s")
    if verdict.get("max_abs_diff") is not None:
        facts.append(f"largest difference {verdict['max_abs_diff']:.2g}")
    facts += [f"{name} {exact}" for name, exact in (verdict.get("versions") or {}).items() if exact]
    state = "works" if verdict["ok"] else "does not work"
    reason = f": {verdict['reason']}" if verdict.get("reason") else ""
    return f"{verdict['backend']} {state}{reason}" + (f" ({', '.join(facts)})" if facts else "")


def _as_json(status: Status) -> dict[str, Any]:
    declared, interpreter = status.declaration, status.interpreter
    return {
        "name": declared.name,
        "description": declared.description,
        "state": status.state,
        "reason": status.reason,
        "known_problem": declared.known_problem,
        "python": status.python,
        "interpreter": interpreter.path if interpreter else None,
        "identity": interpreter.identity if interpreter else None,
        "folder": str(status.folder) if status.folder else None,
        "bytes": status.bytes,
        "download_bytes": declared.download_bytes,
        "installed_bytes": declared.installed_bytes,
        "declared_in": str(declared.source),
    }


def _size(status: Status) -> str:
    from bench.environments.build import bytes_text

    if status.bytes is not None:
        return bytes_text(status.bytes)
    about = status.declaration.installed_bytes
    return f"~{bytes_text(about)}" if about else "?"


def _ready_text(status: Status) -> str:
    where = status.folder or (status.interpreter.path if status.interpreter else "")
    size = f"{_size(status)} in " if status.bytes is not None else ""
    return f"Python {status.python}, {size}{where}"


def _print_table(
    rows: Sequence[tuple[str, ...]], headings: tuple[str, ...] = ("", "", ""), styled: int = 0
) -> None:
    """Print rows; the last column folds, and ``styled`` is coloured by what it says."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, pad_edge=False, show_header=any(headings), header_style="bold",
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, no_wrap=heading is not headings[-1], overflow="fold")
    for row in rows:
        cells = [Text(text) for text in row]
        cells[styled].stylize(_STYLES[row[styled]])
        table.add_row(*cells)
    Console(highlight=False, markup=False).print(table)


def print_now(text: str) -> None:
    """Print a line that a reader sees at once, also through a pipe."""
    print(text, flush=True)


def declared_sizes(names: list[str]) -> list[str]:
    """Return a line for each environment that a plan needs: ready, or what building it takes."""
    from bench.environments import EnvironmentProblem, build, built
    from bench.environments.declare import declaration

    lines = []
    for name in names:
        try:
            declared = declaration(name)
            if declared.own_python is not None:  # nothing is started to plan
                is_there = "" if declared.own_python.exists() else ", which is not there"
                lines.append(f"{name}: your interpreter {declared.own_python}{is_there}")
                continue
            status = built.status(declared)
        except EnvironmentProblem as error:
            lines.append(f"{name}: {error}")
            continue
        if status.state == "ready":
            lines.append(f"{name}: ready, {_ready_text(status)}")
        elif declared.known_problem or status.state == "unusable":
            lines.append(f"{name}: unavailable: {built.why_not(status)}")
        else:
            lines.append(f"{name}: to be built, {build.size_text(declared)}")
    return lines
