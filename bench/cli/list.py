"""``bench list``: backends, models and configurations that can be named."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import bench
from bench.cli import options
from bench.cli.terminal import print_json, print_table

CONFIGS = Path(bench.__file__).parents[1] / "configs"

Row = dict[str, Any]


def list_(
    what: Annotated[Literal["backends", "models", "configs"], typer.Argument(show_default=False)],
    json_: options.Json = False,
) -> None:
    """Of a backend, whether this machine can run it: its own probe's answer for each device, or the
    state of the environment that it needs. Of models, those that ship here or are built with
    random weights, and presets of workloads; any other is hub:ORG/NAME or path:DIR.

    Examples:
      bench list backends
      bench list models
      bench list configs --json

    Exit codes:
      0  listed
      2  usage, or torch does not load, so that no backend can be asked
    """
    rows = list({"backends": _backends, "models": _models, "configs": _configs}[what]())
    if json_:
        print_json(rows)
    elif rows:
        print_table(rows[0], ([str(value) for value in row.values()] for row in rows))
    else:
        print("This installation came without configurations; they are in the project's configs/.")


def _backends() -> Iterator[Row]:
    import os

    from bench import doctor, environments
    from bench.runner import RunnerError
    from bench.runner.devices import Machine

    machine = Machine(os.environ)
    gpus = [f"cuda:{place}" for place in range(len(machine.gpus))] if machine.cuda_ready else []
    try:
        devices = doctor.ask_torch(["cpu", *gpus, *(["mps"] if machine.apple else [])])["devices"]
    except (OSError, ValueError) as error:
        raise RunnerError(f"torch does not load ({error}); see bench doctor.") from None
    for name, verdict in devices["cpu"]["backends"].items():
        environment = verdict.get("environment", environments.CURRENT)
        if environment == environments.CURRENT:
            answers = {device: about["backends"][name] for device, about in devices.items()}
            here = "; ".join(
                f"{device}: {'supported' if each['supported'] else each['reason'] or 'unsupported'}"
                for device, each in answers.items()
            )
        else:
            status = environments.status(environments.declarations()[environment])
            here = f"environment {status.state}" + (f": {status.reason}" if status.reason else "")
        yield {"backend": name, "environment": environment, "on this machine": here}


def _models() -> Iterator[Row]:
    from bench.config import catalogue

    for source, models in catalogue.BUILT_IN_MODELS.items():
        for name, info in models.items():
            weights = "trained, small" if source == "embedded" else "random"
            yield {
                "name": f"{source}:{name}",
                "what": f"{', '.join(info.tasks)}; weights {weights}",
            }
    for kind, names in (("lora", catalogue.LORAS), ("controlnet", catalogue.CONTROLNETS)):
        for name in names:
            yield {"name": f"embedded:{name}", "what": f"{kind} of embedded:sdxl"}
    for name, keys in catalogue.WORKLOAD_PRESETS.items():
        values = ", ".join(f"{key}: {value}" for key, value in keys.items())
        yield {"name": f"preset: {name}", "what": values}


def _configs() -> Iterator[Row]:
    from bench.cli.terminal import shown_path

    for path in sorted(CONFIGS.glob("*.yaml")):
        lines = iter(path.read_text(encoding="utf-8").splitlines())
        comment = takewhile(lambda line: line.startswith("# "), dropwhile(_is_no_comment, lines))
        what = " ".join(line[2:] for line in comment).partition(". ")[0].rstrip(".")
        yield {"configuration": shown_path(path), "what": what}


def _is_no_comment(line: str) -> bool:
    return not line.startswith("# ") or "yaml-language-server" in line
