"""``bench report``: records to pages and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options

if TYPE_CHECKING:
    from bench.contract import Perceptual


def report(
    runs: options.Runs,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report.  [default: the first RUN]")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="NAME",
            help="Draw published figures beside measured ones: onediff_t2i_i2i. Repeatable.",
        ),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", metavar="NAME", help="Only this workload. Repeatable."),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            "--clip",
            metavar="DIR",
            help="CLIP model for CLIP scores, or none.  [default: BENCH_CLIP, or a cached one]",
        ),
    ] = None,
    lpips: Annotated[
        str | None,
        typer.Option(
            "--lpips",
            metavar="FILE",
            help="Weights of LPIPS as safetensors, or none.  [default: BENCH_LPIPS]",
        ),
    ] = None,
    fid: Annotated[
        bool, typer.Option("--fid", help="Refused, and why: FID wants 5,000 images.")
    ] = False,
) -> None:
    """Which backend is fastest, by how much, at what cost, and where it breaks even. Reads stored
    records and images, needs neither torch nor a network, and can be repeated at any time. Several
    runs are shown side by side, and compared only where they are alike. LPIPS and CLIP score are
    computed where their weights are, with torch, and then kept beside the run.

    Examples:
      bench report latest
      bench report runs/monday runs/tuesday --out reports/week
      bench report runs/realvisxl --reference onediff_t2i_i2i
      bench report runs/realvisxl --clip clip-vit-large-patch14 --lpips lpips-alex.safetensors

    Exit codes:
      0  written, whatever the outcomes are
      2  a run cannot be read, a name or weights are wrong, the folder cannot be written, or --fid
    """
    asked: dict[Perceptual, str] = {}
    if clip:
        asked["clip_score"] = clip
    if lpips:
        asked["lpips"] = lpips
    write(runs, out, references=reference or (), workloads=workload or (), weights=asked, fid=fid)


def write(
    runs: list[Path],
    out: Path | None = None,
    *,
    references: list[str] | tuple[()] = (),
    workloads: list[str] | tuple[()] = (),
    weights: dict[Perceptual, str] | None = None,
    fid: bool = False,
) -> None:
    """Write the report and print where it is; ``bench run --report`` ends with this.

    Raises:
        bench.store.StoreError: see `reports.build.write`.
    """
    from bench.cli.terminal import shown_path
    from reports import build

    written = build.write(
        runs,
        out,
        references=references,
        workloads=workloads,
        weights=weights,
        fid=fid,
        say=lambda line: typer.echo(line, err=True),
    )
    typer.echo(f"Report:   {shown_path(written.page)}")
    typer.echo(f"Markdown: {shown_path(written.markdown)}")
