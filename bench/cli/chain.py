"""``bench chain``: one chain from flags, its step counts, first pictures and gaps.

The flags become a configuration, and from there on everything is as in ``bench run``.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import chains
from bench.cli.once import model_source
from bench.contract import Record

GIB = 1024**3
GRID = "grid.png"
COUNTS = "(first round, each later round, total)"


def chain(
    model: Annotated[
        str,
        typer.Option(
            help="ORG/NAME on the Hub or a diffusers folder; also embedded:NAME, synthetic:ARCH."
        ),
    ] = "embedded:sdxl",
    samples: Annotated[int, typer.Option(help="Pictures of the whole chain.")] = 9,
    max_batch: Annotated[int, typer.Option(help="Pictures of a round.")] = 3,
    strength: Annotated[
        float, typer.Option(help="How much of its pictures a later round replaces.")
    ] = 0.75,
    steps: Annotated[int, typer.Option(help="Denoising steps asked for in each round.")] = 50,
    scheduler: Annotated[
        str, typer.Option(help="A diffusers class; none keeps the model's own.")
    ] = "DDIMScheduler",
    start_from: Annotated[
        str,
        typer.Option(help="first: later rounds start from the first pictures; previous: the last."),
    ] = "first",
    size: Annotated[
        str | None,
        typer.Option(help="512 or 768x1024, pixels.  [default: the model's]", show_default=False),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What to draw.")] = "a photograph of a cat",
    negative_prompt: Annotated[str, typer.Option(help="What to keep out.")] = "",
    seed: Annotated[int, typer.Option(help="Picture i of the chain has seed + i.")] = 333,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale.  [default: the pipeline's]")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Variant of the weight files, such as fp16.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float16, bfloat16 or float32.  [default: as bench once]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    backend: Annotated[str, typer.Option(help="none or an installed backend.")] = "none",
    calls: Annotated[
        int, typer.Option(min=1, help="Measured chains, after at least two that warm up.")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; a chain that is there already is not measured again.  "
            "[default: runs/chain-<time>]"
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say how many steps it would take; run nothing.")
    ] = False,
) -> None:
    """Make pictures in rounds: text-to-image first, image-to-image from those after.

    Prints the denoiser steps really taken by the first round, by each later one and in total, the
    time to the first images (TTFI), the gaps between rounds and their mean (TBB), images a second,
    peak memory of each round, and the picture that shows them all.

    \b
    Examples:
      bench chain --plan --steps 200 --strength 0.9
      bench chain --model embedded:sdxl --steps 10 --samples 9 --max-batch 3
      bench chain --start-from previous --strength 0.5 --scheduler none
      bench chain --model ORG/NAME --size 512 --backend torch-compile --calls 3

    \b
    Exit codes:
      0    ok
      1    any other outcome; the reason is printed
      2    usage: a wrong option or value; nothing was started
      130  interrupted; the same command with --out goes on from there
    """  # noqa: D301 - click reads \b as a character
    name = f"chain-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    workload = {
        "name": "chain",
        "task": chains.TASK,
        "model": model_source(model),
        "samples": samples,
        "max_batch": max_batch,
        "strength": strength,
        "steps": steps,
        "scheduler": scheduler,
        "start_from": start_from,
        "size": size,
        "prompt": prompt,
        "negative_prompt": negative_prompt or None,
        "seed": seed,
        "guidance": guidance,
        "variant": variant,
        "dtype": dtype,
    }
    config = {
        "name": name,
        "device": device,
        "protocol": {
            "preset": "quick",
            "calls": {"min_calls": calls, "max_calls": calls},
            "rounds": 1,
        },
        "matrix": {
            "workload": [{key: value for key, value in workload.items() if value is not None}],
            "backend": [{"name": backend}],
        },
    }
    if plan:
        print("\n".join(planned(_workload(config))))
        return
    record, folder, exit_code = _measure(config, out)
    if record is not None:
        grid = write_grid(record, folder)
        print("\n".join(report(record)))
        if grid is not None:
            print(f"Grid: {grid}")
        print(f"Run: {folder}")
    raise typer.Exit(exit_code)


def _workload(config: Mapping[str, Any]) -> Mapping[str, Any]:
    from bench.config import make_plan, parse_config

    (cell,) = make_plan(parse_config(config)).cells
    return cell["workload"]


def planned(workload: Mapping[str, Any]) -> list[str]:
    """Return what a chain would do, as far as arithmetic tells."""
    steps, strength = workload["steps"], workload["strength"]
    later = chains.diffusers_steps(steps, strength)
    rounds = len(chains.of(workload))
    said = (
        f"Planned steps: {counts(steps, later, rounds)} {COUNTS}: diffusers' Stable Diffusion "
        f"classes take int({steps} x {strength:g}) = {later}; other classes and the calls of some "
        "schedulers (Heun, PNDM) differ, and a run counts them"
    )
    return [_layout(workload), said, script_line(workload)]


def counts(first: int, later: int, rounds: int) -> str:
    """Return ``first/later/total``; a chain of one round has no later one."""
    if rounds == 1:
        return f"{first}/-/{first}"
    return f"{first}/{later}/{first + later * (rounds - 1)}"


def script_line(workload: Mapping[str, Any]) -> str:
    """Return the line with the counts of the published chains' script."""
    steps, strength = workload["steps"], workload["strength"]
    later = chains.script_steps(steps, strength)
    capped = f", capped at {steps}" if int(strength * steps) + 1 > steps else ""
    return (
        f"Script's count: {counts(steps, later, len(chains.of(workload)))} {COUNTS}: the published "
        f"batch_gen script counts int({strength:g} x {steps}) + 1 = "
        f"{int(strength * steps) + 1}{capped}"
    )


def report(record: Record) -> list[str]:
    """Return the lines to print of a chain that was measured, or of as much as there is of it."""
    workload: Mapping[str, Any] = record["cell"]["workload"]
    rounds: Sequence[Mapping[str, Any]] = record.get("chain_rounds") or []
    lines = [_layout(workload)]
    done = [each for each in rounds if each.get("outcome") == "ok"]
    if record["outcome"] == "ok" and done:
        lines += _steps(done)
        lines += [script_line(workload)]
        lines += _times(record)
    for each in rounds:
        lines.append(_round(each, str(record["outcome"])))
    backend = record.get("backend") or {}
    scope = ", ".join(backend.get("scope") or []) or "nothing"
    lines.append(f"Compiled: {scope} (backend {record['cell']['backend']['name']})")
    reason = record.get("reason")
    lines.append(f"Outcome: {record['outcome']}" + (f": {reason}" if reason else ""))
    lines += [f"Warning: {warning}" for warning in record.get("warnings") or []]
    return lines


def _layout(workload: Mapping[str, Any]) -> str:
    found = chains.of(workload)
    sizes = " + ".join(str(each.batch) for each in found[:12]) + (" + …" if len(found) > 12 else "")
    scheduler = workload["scheduler"] or "the model's own scheduler"
    rounds = f"{len(found)} rounds" if len(found) > 1 else "1 round"
    parents = f", from the {workload['start_from']} round's pictures" if len(found) > 1 else ""
    return (
        f"Chain: {workload['samples']} pictures of {workload['width']}x{workload['height']} in "
        f"{rounds} ({sizes}){parents}; "
        f"{workload['steps']} steps, strength {workload['strength']:g}, {scheduler}"
    )


def _steps(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for label, field in (
        ("Effective steps", "steps_effective"),
        ("Denoiser calls", "denoiser_calls"),
    ):
        values = [each.get(field) for each in rounds]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            lines.append(f"{label}: not seen in this pipeline")
            continue
        later = "/".join(str(each) for each in dict.fromkeys(known[1:])) or "-"
        lines.append(f"{label}: {known[0]}/{later}/{sum(known)} {COUNTS}, measured")
    return lines


def _times(record: Record) -> list[str]:
    total = statistics.median(record["e2e_s"])
    lines = [
        f"Total: {total:.3f} s (median of {len(record['e2e_s'])})",
        f"TTFI: {statistics.median(record['ttfi_s']):.3f} s to the first images",
    ]
    gaps = record["gaps_s"][-1]
    shown = ", ".join(f"{gap:.3f}" for gap in gaps[:12]) + (", …" if len(gaps) > 12 else "")
    known = [value for value in record["tbb_s"] if value is not None]
    if known:
        lines.append(f"Gaps: {shown} s between the ends of rounds (last chain)")
        lines.append(f"TBB: {statistics.median(known):.3f} s, the mean of {len(gaps)} gaps")
    else:
        lines.append("TBB: none, a chain of one round has no time between rounds")
    lines.append(f"Images per second: {statistics.median(record['images_per_s']):.3f}")
    for reading in record.get("memory") or []:
        amount = reading["bytes"]
        if reading["phase"] == "steady" and amount is not None:
            lines.append(f"Steady peak memory: {amount / GIB:.3f} GiB ({reading['meter']})")
    return lines


def _round(each: Mapping[str, Any], outcome: str) -> str:
    noun = "picture" if each["batch"] == 1 else "pictures"
    text = f"Round {each['round']}: {each['task']}, {each['batch']} {noun}"
    if each.get("outcome") != "ok":
        return f"{text}, {each.get('outcome') or outcome}: {each.get('reason') or 'not finished'}"
    text += f", denoiser at batch {each.get('denoiser_batch')}"
    for reading in each.get("memory") or []:
        if reading["bytes"] is not None:
            text += f", peak {reading['bytes'] / GIB:.3f} GiB ({reading['meter']}, warm-up)"
            break
    return text


def write_grid(record: Record, folder: Path) -> Path | None:
    """Write the pictures of a chain, a row for each round; None if there is no picture."""
    from PIL import Image

    from bench import grids

    images = record.get("images") or []
    rounds: Sequence[Mapping[str, Any]] = record.get("chain_rounds") or []
    loaded = []
    try:
        for entry in images:
            with Image.open(folder / entry["path"]) as picture:
                loaded.append(picture.convert("RGB"))
    except OSError as error:
        print(f"bench: the grid cannot be drawn: {error}", file=sys.stderr)
        return None
    if not loaded:
        return None
    rows = grids.of_chain(rounds, record.get("lineage") or [], loaded)
    title = _layout(record["cell"]["workload"])
    path = folder / GRID
    grids.draw(title, rows).save(path)
    return path


def _measure(config: Mapping[str, Any], out: Path | None) -> tuple[Record | None, Path, int]:
    """Run the configuration; return its record, the run folder and the exit code."""
    from rich.console import Console

    from bench import api
    from bench.cli import progress
    from bench.store import RunFolder, StoreError

    ui = progress.display(Console(stderr=True))
    ui.after_interrupt = "The same command measures it anew; with --out it goes on from here."
    try:
        run = api.run(config, out, resume=out is not None and out.exists(), ui=ui)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except StoreError as error:
        if not ui.started:
            raise
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        ui.close()
    exit_code = run.summary.exit_code if run.summary else 0
    return next(RunFolder.open(run.path).raw_records(), None), run.path, exit_code
