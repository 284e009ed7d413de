"""The command ``bench``: its verbs, and the one place where errors become messages and exit codes.

A verb is a module of this package with a function of the same name, and is imported only when it
is called or its own options are completed. So ``bench --help`` costs neither pandas nor pydantic.
"""

from __future__ import annotations

import importlib
import inspect
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import bench

GROUPS = {
    "Measure": {
        "run": "Run a matrix: every cell in a process of its own, then a table.",
        "once": "Run one workload from flags named as in OneDiff's script.",
        "chain": "Make images in rounds: text-to-image first, image-to-image from those after.",
        "folder": "Send every image of a folder through a model.",
        "repeat": "Repeat equal calls: are the images bit-identical, and does memory grow?",
        "capacity": "Find the largest batch and size that fit, and what memory they take.",
    },
    "Read": {
        "show": "Show the table of a run.",
        "report": "Write REPORT.md, report.html and plots/ from stored records.",
        "export": "Write one flat table: a row for each record, unrounded.",
        "audit": "Find what cannot be true, or cannot be compared, in a table of results.",
    },
    "Compare": {
        "compare": "Compare a run with a baseline, figure by figure, and exit accordingly.",
        "gate": "Measure a matrix, compare it with a baseline, and confirm regressions.",
        "baseline": "Keep a run as a baseline, list baselines, or show one.",
        "history": "Draw each figure over the runs of a folder, with change points marked.",
    },
    "Look after": {
        "list": "List backends, models or configurations.",
        "doctor": "Show what this machine can measure, what not, and the remedy.",
        "env": "Build, check and remove the interpreters that backends live in.",
        "schema": "Print the JSON Schema of configurations, for editors.",
    },
}
"""Verbs by what they are for, most used first."""

VERBS = {verb: summary for verbs in GROUPS.values() for verb, summary in verbs.items()}

OUTLIVE_THEIR_READER = frozenset({"run", "once", "chain", "folder", "capacity", "repeat", "gate"})
"""Verbs that continue when whoever reads their output is gone."""

USAGE = 2
INTERRUPTED = 130

EPILOG = """
\b
Examples:
  bench run configs/quickstart.yaml
  bench run configs/realvisxl.yaml --only backend=none --dry-run
  bench show latest
  bench report latest

\b
Exit codes:
  0    every cell is ok
  1    some cell is not ok
  2    usage: a wrong option, configuration or folder; nothing was started
  3    compare and gate: not comparable, unclear, or too good to be believed
  130  interrupted; bench run --resume continues
"""


class Verbs(TyperGroup):
    """A group whose commands are imported late."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # What a listing needs, and a mistyped verb's nearest names.
        self.commands = {name: TyperCommand(name, help=text) for name, text in VERBS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs in their groups; by hand, since rich costs a third of the help's time."""
        for group, verbs in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(f"{verb:<8}", summary) for verb, summary in verbs.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Return the real command, for a call or for the completion of its options."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load(str(command.name)), rest


def load(verb: str) -> Any:
    """Import ``verb`` and build its command."""
    module = importlib.import_module(f"bench.cli.{verb}")
    function = vars(module).get(verb) or vars(module)[f"{verb}_"]
    if isinstance(function, typer.Typer):
        return typer.main.get_command(function)
    text = f"{VERBS[verb]}\n\n{inspect.cleandoc(function.__doc__)}"
    for head in ("Examples:", "Exit codes:"):
        text = text.replace(f"\n\n{head}", f"\n\n\b\n{head}")  # \b keeps lines apart
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(verb, help=text, context_settings=vars(module).get("CONTEXT"))(function)
    return typer.main.get_command(single)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bench {bench.__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Verbs,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Does this compiler make my diffusion pipeline faster, by how much, and at what cost?"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Errors that a user can fix are printed as their message alone, with exit code 2; any other
    exception is a bug and keeps its traceback.

    Args:
        argv: the arguments, if they are not those of this process. A program that calls this
            keeps its signals: only our own process ends quietly when its reader goes (``| head``).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in arguments if not word.startswith("-")), None)
    ours = argv is None and (verb not in OUTLIVE_THEIR_READER or "--dry-run" in arguments)
    if ours and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app(args=arguments, prog_name="bench")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not isinstance(error, _fixable()):
            raise
        from bench.text import plain

        print(f"bench: {plain(str(error))}", file=sys.stderr)
        sys.exit(USAGE)


def _fixable() -> tuple[type[Exception], ...]:
    from bench.audit.table import AuditError
    from bench.config.errors import ConfigError
    from bench.environments import EnvironmentProblem
    from bench.gate import GateError
    from bench.runner import RunnerError
    from bench.store import StoreError
    from compilers.registry import BackendError

    ours = (AuditError, ConfigError, EnvironmentProblem, GateError, RunnerError, StoreError)
    return (*ours, BackendError)
