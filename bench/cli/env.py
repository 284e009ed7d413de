"""``bench env``: the interpreters of backends that cannot be installed beside each other."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.environments import Declaration, Interpreter, Status
    from bench.environments.install import Choice

env = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class InstallerName(str, Enum):
    """What installs packages."""

    auto = "auto"
    pip = "pip"
    uv = "uv"


_Names = Annotated[
    list[str], typer.Argument(metavar="NAME…", help="Environments.", show_default=False)
]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Environment.", show_default=False)]
_Installer = Annotated[
    InstallerName,
    typer.Option(
        "--installer",
        help="auto takes uv if it is there and pip has no settings that uv would pass over.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@env.callback()
def root() -> None:
    """Build, check and remove the interpreters that backends live in.

    Each is declared in one TOML file with a lock, and built into a cache folder outside the
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

    found = [built.status(each) for each in declarations().values()]
    if json_:
        print(json.dumps([_as_json(each) for each in found], indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("environment", "state", "python", "size", "what it is"):
        table.add_column(heading, no_wrap=heading != "what it is")
    for each in found:
        says = Text(each.declaration.description, overflow="fold")
        reason = each.declaration.known_problem if each.state == "absent" else each.reason
        if reason:
            says.append(f"\n{reason}", style="italic")
        table.add_row(
            Text(each.declaration.name),
            Text(each.state, style=_STYLES[each.state]),
            Text(each.python or " or ".join(each.declaration.pythons)),
            Text(_size(each)),
            says,
        )
    Console(highlight=False, markup=False).print(table)
    print(f"\nIn {built.cache_folder()}; `bench env sync NAME` builds one.")


@env.command()
def sync(names: _Names, installer: _Installer = InstallerName.auto) -> None:
    """Build environments, or mend them; nothing is done for one that is ready.

    Says first what is going to be installed and how large it is. A sync that is ended leaves
    nothing that is taken for an environment; the next one begins anew.

    \b
    Examples:
      bench env sync nexfort
      bench env sync nexfort oneflow --installer pip

    \b
    Exit codes:
      0  all of them are ready
      1  one could not be built; a sentence says why
      2  usage: no such environment
    """  # noqa: D301 - click reads \b as a character
    from bench.environments import EnvironmentUnavailable, build
    from bench.environments.declare import declaration

    wanted = [declaration(name) for name in dict.fromkeys(names)]
    # A polite end takes the installer and its compilers along, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = False
    for declared in wanted:
        if declared.known_problem:
            print(f"Note: {declared.known_problem}.")
        progress, finish = _progress()
        try:
            found = build.sync(
                declared, choice=_choice(installer), say=print_now, progress=progress
            )
        except EnvironmentUnavailable as error:
            finish()
            print(f"bench: {error}", file=sys.stderr)
            failed = True
            continue
        except KeyboardInterrupt:
            finish()
            print("Interrupted; what was begun is removed.", file=sys.stderr)
            raise typer.Exit(130) from None
        finish()
        print(f"{declared.name} is ready: {_ready_text(found)}")
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
        interpreter: Interpreter = resolve(name)
    except EnvironmentUnavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    verdicts = []
    for backend in backends:
        verdict = checking.check(interpreter, backend, device)
        verdicts.append(verdict)
        if not json_:
            print_now(_verdict_text(verdict))
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
    from bench.environments import build, built
    from bench.environments.declare import declaration, declarations

    known = declarations()
    for name in dict.fromkeys(names):
        if not build.folders_of(name, built.cache_folder()):
            declaration(name, known)
            print(f"{name}: nothing is built")
        for folder, size in build.remove(name):
            print(f"{name}: removed {folder}, {build.bytes_text(size)}")


@env.command()
def lock(
    name: _Name,
    python: Annotated[
        str,
        typer.Option("--python", metavar="VERSION", help="Only this one of its Python versions."),
    ] = "",
    installer: _Installer = InstallerName.auto,
) -> None:
    """Resolve an environment's requirements anew and write its locks.

    \b
    Examples:
      bench env lock nexfort
      bench env lock nexfort --python 3.11
    """  # noqa: D301 - click reads \b as a character
    from bench.environments import EnvironmentProblem
    from bench.environments.declare import declaration
    from bench.environments.resolve import make_lock

    declared = declaration(name)
    if python and python not in declared.pythons:
        raise EnvironmentProblem(
            f"{name!r} is for Python {' and '.join(declared.pythons) or declared.own_python}, "
            f"not {python}."
        )
    for version in [python] if python else declared.pythons:
        path, changed = make_lock(declared, version, choice=_choice(installer), say=print_now)
        print(f"{path}: {len(changed)} package(s) changed")
        for package, (before, now) in changed.items():
            print(f"  {package} {before or 'new'} → {now or 'gone'}")


@env.command()
def doctor(json_: _Json = False) -> None:
    """Show what building environments has here: Pythons, installer, disk, locks, leftovers.

    \b
    Exit codes:
      0  every environment is ready or can be built
      1  one cannot; the remedy stands beside it
    """  # noqa: D301 - click reads \b as a character
    findings = list(_findings())
    if json_:
        print(json.dumps([dict(zip(_FINDING, each, strict=True)) for each in findings], indent=1))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        for status, topic, says in findings:
            style = "green" if status == "ok" else "yellow" if status == "limited" else "bold red"
            table.add_row(Text(status, style=style), Text(topic), Text(says))
        Console(highlight=False).print(table)
    raise typer.Exit(1 if any(each[0] == "missing" for each in findings) else 0)


_FINDING = ("status", "topic", "says")

_STYLES = {
    "ready": "green",
    "broken": "bold red",
    "unfinished": "yellow",
    "absent": "dim",
    "unusable": "yellow",
}


def _findings() -> Any:
    from bench.environments import build, built, declarations, install, interpreters
    from bench.environments import lock as locks
    from bench.environments.declare import EnvironmentUnavailable, user_folder

    cache = built.cache_folder()
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    yield "ok", "cache folder", f"{cache}, {build.bytes_text(free)} free"
    uv = install.find_uv()
    chosen = install.choose()
    there = f"uv is {uv}" if uv else "uv is not installed"
    yield "ok", "installer", f"{chosen.name}: {chosen.why}; {there}"
    yield "ok", "your own files", str(user_folder())
    known = declarations()
    for version in sorted({v for each in known.values() for v in each.pythons}):
        found = interpreters.find(version)
        if found:
            yield "ok", f"Python {version}", f"{found.path} ({found.version})"
        else:
            yield (
                "limited",
                f"Python {version}",
                f"not found; `uv python install {version}` is one way",
            )
    for declared in known.values():
        status = built.status(declared, cache)
        if status.state == "ready":
            yield "ok", declared.name, _ready_text(status)
            continue
        try:
            work = build.plan(declared, cache)
        except EnvironmentUnavailable as error:
            yield "missing", declared.name, str(error)
            continue
        says = f"{status.state}: {status.reason}; can be built with Python {work.python.version}"
        if declared.known_problem:
            says = f"{status.state}; {declared.known_problem}"
        good = status.state == "absent" and not declared.known_problem
        yield "ok" if good else "limited", declared.name, says
        for version in declared.pythons:
            if declared.requirements is None:
                continue
            if locks.read(declared, version).requirements_sha256 != locks.requirements_sha256(
                declared
            ):
                yield (
                    "limited",
                    f"{declared.name}, Python {version}",
                    f"its requirements changed after the lock; bench env lock {declared.name}",
                )
    for folder in sorted(cache.glob("*-*")):
        name = folder.name.rpartition("-")[0]
        current = name in known and built.status(known[name], cache).folder == folder
        if folder.is_dir() and not current:
            size = build.bytes_text(build.folder_bytes(folder))
            yield "limited", folder.name, f"of an older lock, {size}; bench env remove {name}"


def _backends_of(name: str) -> list[str]:
    """Return the backends that need an environment, and those that its declaration names.

    Raises:
        EnvironmentProblem: there is no such environment.
    """
    from bench.environments.declare import CURRENT, declaration
    from compilers import registry

    further: tuple[str, ...] = () if name == CURRENT else ("none", *declaration(name).backends)
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
    declared = status.declaration
    return {
        "name": declared.name,
        "description": declared.description,
        "state": status.state,
        "reason": status.reason,
        "known_problem": declared.known_problem,
        "python": status.python,
        "interpreter": status.interpreter.path if status.interpreter else None,
        "identity": status.interpreter.identity if status.interpreter else None,
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
    from bench.environments.build import bytes_text

    where = status.folder or (status.interpreter.path if status.interpreter else "")
    size = f"{bytes_text(status.bytes)} in " if status.bytes is not None else ""
    return f"Python {status.python}, {size}{where}"


def _choice(installer: InstallerName) -> Choice:
    return installer.value


def print_now(text: str) -> None:
    """Print a line that a reader sees at once, also through a pipe."""
    print(text, flush=True)


def _progress() -> tuple[Callable[[int, int, str], None], Callable[[], None]]:
    """Return what shows progress, and what takes it away again."""
    terminal = sys.stdout.isatty()
    last = ""

    def show(done: int, total: int, what: str) -> None:
        nonlocal last
        text = f"[{done}/{total}] {what}"
        if terminal:
            print(f"\r\x1b[2K{text[:100]}", end="", flush=True)
        elif text != last:
            print_now(text)
        last = text

    def finish() -> None:
        if terminal and last:
            print("\r\x1b[2K", end="", flush=True)

    return show, finish


def declared_sizes(names: list[str]) -> list[str]:
    """Return a line for each environment that a plan needs: ready, or what building it takes."""
    from bench.environments import EnvironmentProblem, build, built
    from bench.environments.declare import declaration

    lines = []
    for name in names:
        try:
            declared: Declaration = declaration(name)
            status = built.status(declared)
        except EnvironmentProblem as error:
            lines.append(f"{name}: {error}")
            continue
        if status.state == "ready":
            lines.append(f"{name}: ready, {_ready_text(status)}")
        elif declared.known_problem or status.state == "unusable":
            lines.append(f"{name}: unavailable: {built.why_not(status)}")
        else:
            size = build.size_text(declared.download_bytes, declared.installed_bytes)
            lines.append(f"{name}: to be built, {size}")
    return lines
