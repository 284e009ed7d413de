"""``bench compare``: has it become worse?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli import options
from bench.cli.terminal import console

if TYPE_CHECKING:
    from bench.gate.compare import Comparison
    from bench.gate.measured import Measurement


Format = Literal["terminal", "markdown", "json", "junit"]
ENDINGS: dict[str, Format] = {".md": "markdown", ".json": "json", ".xml": "junit"}
FAIL_ON = typer.Option(
    "--fail-on",
    metavar="LIMITS",
    help="speed=3%,memory=2%,fidelity,warmup=25%; counts alone gates only counts, which are "
    "always gated.  [default: speed=1%,memory=2%,warmup=25%,fidelity, as far as measured]",
)
FORMAT = typer.Option("--format", help="[default: by the file's ending, else terminal]")
OUT = typer.Option(
    "--out",
    metavar="FILE",
    help="Write the comparison there: .md, .json, .xml (JUnit) or text. Repeatable.",
)
BASELINES = typer.Option("--baselines", metavar="DIR", help="Where baselines are kept.")
ACKNOWLEDGE = typer.Option(
    "--acknowledge", metavar="CELL", help="Accept this cell's implausible improvement. Repeatable."
)
IMPLAUSIBLE = typer.Option(
    "--implausible", metavar="PCT", min=0.1, help="An improvement beyond this stops the gate."
)


def compare(
    base: Annotated[
        str,
        typer.Argument(help="Name or file of a baseline, a run, or latest.", show_default=False),
    ],
    new: Annotated[
        str,
        typer.Argument(help="A run, latest, or a baseline.", show_default=False),
    ],
    fail_on: Annotated[str | None, FAIL_ON] = None,
    confirm: Annotated[
        Path | None,
        typer.Option("--confirm", metavar="RUN", help="A second run of NEW, which must agree."),
    ] = None,
    format_: Annotated[Format | None, FORMAT] = None,
    out: Annotated[list[Path] | None, OUT] = None,
    folder: Annotated[Path, BASELINES] = Path("baselines"),
    acknowledge: Annotated[list[str] | None, ACKNOWLEDGE] = None,
    implausible: Annotated[float, IMPLAUSIBLE] = 30.0,
) -> None:
    """A figure fails when the whole 95 % interval of its change lies beyond what is allowed; with
    --confirm, a second run must agree. Counts (steps, denoiser calls, graphs, graph breaks,
    recompiles, sizes, and images within one fingerprint) must be exactly equal. docs/ci.md.

    Examples:
      bench compare main latest
      bench compare main runs/mine --fail-on counts
      bench compare main runs/mine --fail-on speed=3%,fidelity --format markdown --out summary.md

    Exit codes:
      0  passed
      1  regression
      2  usage, or a run or baseline that cannot be read
      3  not comparable, unclear, or an improvement that nobody acknowledged
    """
    from bench.gate import limits, measured
    from bench.gate.compare import compare as judge

    asked = limits.parse(fail_on, acknowledge or (), implausible)
    candidate = content_of(new, folder, None)
    comparison = judge(
        content_of(base, folder, candidate),
        candidate,
        asked,
        confirmation=None if confirm is None else (None, measured.of_run(confirm)),
    )
    write([comparison], format_, out or [])
    raise typer.Exit(comparison.exit_code)


def content_of(text: str, folder: Path, like: Measurement | None) -> Measurement:
    """Return what ``text`` names: a run folder, the latest, a baseline file, or a baseline's name.

    Raises:
        GateError, bench.store.StoreError: it is none, or cannot be read.
    """
    from bench.gate import GateError, baselines, measured

    path = Path(text)
    if not (folder / text).is_dir():
        path = options.run_path(path)
    if path.is_file():
        return baselines.read(path)
    if path.is_dir():
        return measured.of_run(path)
    if like is not None:
        return baselines.find(text, like, folder)
    entries = baselines.of_name(text, folder) if (folder / text).is_dir() else []
    if len(entries) == 1:
        return entries[0]
    if entries:
        raise GateError(f"{text} was measured on {len(entries)} machines; name one of its files.")
    raise GateError(f"{text} is neither a run folder nor a baseline.")


def write(comparisons: list[Comparison], format_: Format | None, outs: list[Path]) -> None:
    """Print comparisons, or write them to files; then standard output still gets the headlines.

    Raises:
        GateError: a file cannot be written.
    """
    from bench.gate import GateError, show

    def text(form: Format) -> str:
        if form != "terminal":
            return show.texts(comparisons, form)
        page = console(width=120, color_system=None, force_terminal=False)
        with page.capture() as captured:
            for comparison in comparisons:
                page.print(show.terminal(comparison))
        return captured.get()

    if not outs and format_ in (None, "terminal"):
        for comparison in comparisons:
            console().print(show.terminal(comparison))
    elif not outs:
        typer.echo(text(format_ or "terminal"), nl=False)
    for out in outs:
        written = text(format_ or ENDINGS.get(out.suffix.lower(), "terminal"))
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(written, encoding="utf-8")
        except OSError as error:
            raise GateError(
                f"{out} cannot be written: {(error.strerror or str(error)).lower()}."
            ) from error
    if outs:
        for comparison in comparisons:
            typer.echo(comparison.headline)
