"""Quick verbs: one workload from flags, and from there on everything as in ``bench run``.

A verb declares which flags of `bench.cli.flags` it takes, and their defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bench.cli.flags import FLAGS, infer_task, spelled

if TYPE_CHECKING:
    from bench.api import Run
    from bench.records import Record

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be measured; start nothing.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Run folder.  [default: runs/<verb>-<time>]")
]
_KIND = inspect.Parameter.KEYWORD_ONLY


@dataclass
class Asked:
    """What a quick verb was asked for.

    Attributes:
        values: of the table's flags; None where there is no default.
        given: flags that stood on the command line.
        config: the configuration that they make.
    """

    values: dict[str, Any]
    given: list[str]
    config: dict[str, Any]

    @property
    def workload(self) -> dict[str, Any]:
        return self.config["matrix"]["workload"][0]  # type: ignore[no-any-return]

    @property
    def backend(self) -> dict[str, Any]:
        return self.config["matrix"]["backend"][0]  # type: ignore[no-any-return]


def verb(
    flags: str, fixed: Mapping[str, Any] | None = None, **defaults: Any
) -> Callable[[Callable[..., None]], Any]:
    """Make a function that takes an `Asked`, and parameters of its own, a verb with flags.

    Args:
        flags: names in the table, in the order of the help.
        fixed: the configuration before any flag; ``workload`` holds its one workload's keys.
        defaults: of flags that have one.
    """
    names = flags.split()
    assert not defaults.keys() - {*names}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(context: typer.Context, **given: Any) -> None:
            values = {name: given.pop(name) for name in names}
            sources = {name: context.get_parameter_source(name) for name in names}
            typed = [name for name, of in sources.items() if of and of.name == "COMMANDLINE"]
            config = configuration(function.__name__, fixed or {}, values)
            function(Asked(values, typed, config), **given)

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [
            inspect.Parameter("context", _KIND, annotation=typer.Context),
            *(_parameter(name, defaults.get(name)) for name in names),
            *(each.replace(kind=_KIND) for each in own),
        ]
        command.__doc__ = function.__doc__
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(flag: str, default: Any) -> inspect.Parameter:
    of = FLAGS[flag]
    kind = of.type if default is not None else of.type | None
    option = typer.Option(*spelled(flag), help=of.help, **of.more)
    return inspect.Parameter(flag, _KIND, default=default, annotation=Annotated[kind, option])


def configuration(name: str, fixed: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration that flags make; what is None or empty keeps its default.

    Of a flag without a key, the value is replaced by what is read from it.

    Raises:
        typer.BadParameter: a value that its flag cannot read.
    """
    parts: dict[str, Any] = {
        "name": f"{name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}",
        "protocol": {"preset": "quick", "rounds": 1},
        "workload": {"name": name},
        "backend": {},
    }
    for key, value in fixed.items():
        parts[key] = {**parts.get(key, {}), **value}
    for flag, value in values.items():
        of = FLAGS[flag]
        if value is None or value in ("", []):
            continue
        try:
            read = of.read(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=spelled(flag)[0]) from None
        if of.key == "":
            values[flag] = read
            continue
        *folders, key = (of.key or f"workload.{flag}").split(".")
        place = parts
        for folder in folders:
            place = place.setdefault(folder, {})
        place[key] = {**place.get(key, {}), **read} if isinstance(read, dict) else read
    workload, backend = parts.pop("workload"), parts.pop("backend")
    return {**parts, "matrix": {"workload": [workload], "backend": [backend]}}


def either(asked: Asked, config: Path | None) -> tuple[Path | dict[str, Any], list[str]]:
    """Return what a verb runs that takes a file, or a model with flags; and overrides for it.

    Of a model, the workload's keys become ``defaults``, so that ``--set`` reaches both alike.

    Raises:
        typer.BadParameter: neither, or flags of a model beside a file.
    """
    if config is not None:
        if of_model := [flag for flag in asked.given if flag != "device"]:
            raise typer.BadParameter(
                "goes with --model; values of a file are changed by --set, such as "
                "--set defaults.steps=4",
                param_hint=spelled(of_model[0])[0],
            )
        device = asked.values["device"]
        return config, [] if device is None else [f"device={device}"]
    if asked.values["model"] is None:
        raise typer.BadParameter("give a configuration or --model, one of them")
    workload = {**asked.workload}
    workload.setdefault("task", infer_task(workload["model"]))
    del workload["name"]
    last = workload["model"].partition(":")[2].split("@")[0]
    name = "".join(c if c.isalnum() else "-" for c in last).strip("-")
    name = name.rpartition("--")[2][-60:].strip("-") or "model"
    matrix = {**asked.config["matrix"], "workload": [{"name": name}]}
    return {**asked.config, "name": name, "defaults": workload, "matrix": matrix}, []


def measure(
    config: Path | Mapping[str, Any],
    out: Path | None,
    *,
    dry_run: bool = False,
    again: str = "measures it anew",
    **how: Any,
) -> Run:
    """Measure a configuration, or show its plan and exit.

    Args:
        again: what the same command does after an interruption.
        how: as in `bench.api.run`.
    """
    from rich.console import Console

    from bench import api
    from bench.cli import dry_run as planned
    from bench.cli import progress
    from bench.config import load_config, make_plan, parse_config

    if dry_run:
        load: Any = load_config if isinstance(config, Path) else parse_config
        planned.show(make_plan(load(config, how.get("overrides", ()), how.get("only", ()))))
        raise typer.Exit
    ui = progress.display(Console(stderr=True))
    ui.after_interrupt = f"The same command {again}."
    with progress.measuring(ui):
        return api.run(config, out, ui=ui, **how)


def finish(
    asked: Asked,
    out: Path | None,
    lines: Callable[[Record, Path], Iterable[str]],
    *,
    resume: bool = False,
    dry_run: bool = False,
) -> NoReturn:
    """Measure, print the lines of each record and where the run is, and exit.

    Args:
        resume: continue the run that is in ``out``.
    """
    resume = resume and out is not None
    again = {"again": "continues it"} if resume else {}
    run = measure(asked.config, out, dry_run=dry_run, resume=resume, **again)
    try:
        for record in run.records:
            for line in lines(record, run.path):
                print(line)
    finally:
        print(f"Run: {run.path}")
    raise typer.Exit(run.summary.exit_code if run.summary else 0)
