"""What is printed of a record after a quick verb."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import chains, files
from bench.records import Record
from bench.tasks.chain.record import Fields as Chain
from bench.tasks.chain.record import Round
from bench.tasks.folder.record import Fields as Folder
from bench.tasks.folder.record import rows_of
from bench.text import gib, plural

if TYPE_CHECKING:
    from bench.passes.repeat.judge import Process, Repeated

GRID = "grid.png"
MOST_FAILURES = 10
MOST_SHOWN = 12
KIB, MIB = 1024, 1024**2
COUNTS = "(first round, each later round, total)"
TERMINAL_WIDTH = 80


def seconds(times: Sequence[float]) -> str:
    return ", ".join(f"{time:.3f}" for time in times[:MOST_SHOWN]) + (
        ", …" if len(times) > MOST_SHOWN else ""
    )


def steady_memory(record: Record) -> Iterator[str]:
    """Yield a line for each meter's peak of the measured calls."""
    for reading in record.memory:
        if reading.phase == "steady" and reading.bytes is not None:
            yield f"Steady peak memory: {gib(reading.bytes)} GiB ({reading.meter})"


def compiled(record: Record) -> str:
    """Return the line on the scopes that the backend compiled."""
    scope = ", ".join(record.backend.scope) or "nothing"
    return f"Compiled: {scope} (backend {record.cell.backend.name})"


def ending(record: Record) -> Iterator[str]:
    """Yield the outcome with its reason, and the warnings."""
    yield f"Outcome: {record.outcome}" + (f": {record.reason}" if record.reason else "")
    yield from (f"Warning: {warning}" for warning in record.warnings)


def in_terminal(file: Path) -> Iterator[str]:
    """Yield an image as lines of coloured half blocks, at most `TERMINAL_WIDTH` wide."""
    import numpy as np

    image = files.image(file)
    width = min(TERMINAL_WIDTH, image.width)
    height = max(2, round(image.height * width / image.width / 2) * 2)
    rows = np.asarray(image.resize((width, height))).tolist()
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        cells = (
            "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m\u2580".format(*above, *below)
            for above, below in zip(upper, lower, strict=True)
        )
        yield "".join(cells) + "\x1b[0m"


def of_planned_chain(workload: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a chain would do, as far as arithmetic tells."""
    steps, strength = workload["steps"], workload["strength"]
    later = chains.diffusers_steps(steps, strength)
    yield _layout(workload)
    yield (
        f"Planned steps: {_counts(steps, later, workload)} {COUNTS}: diffusers' Stable Diffusion "
        f"classes take int({steps} x {strength:g}) = {later}; other classes and the calls of some "
        "schedulers (Heun, PNDM) differ, and a run counts them"
    )
    yield _script_line(workload)


def _counts(first: int, later: int, workload: Mapping[str, Any]) -> str:
    """Return ``first/later/total``; a chain of one round has no later one."""
    rounds = len(chains.of(workload))
    return f"{first}/{later if rounds > 1 else '-'}/{first + later * (rounds - 1)}"


def _script_line(workload: Mapping[str, Any]) -> str:
    """Return the line with the counts of the published chains' script."""
    steps, strength = workload["steps"], workload["strength"]
    later, uncapped = chains.script_steps(steps, strength), int(strength * steps) + 1
    capped = f", capped at {steps}" if uncapped > steps else ""
    return (
        f"Script's count: {_counts(steps, later, workload)} {COUNTS}: the published "
        f"batch_gen script counts int({strength:g} x {steps}) + 1 = {uncapped}{capped}"
    )


def of_chain(record: Record, folder: Path) -> Iterator[str]:
    """Yield the lines on a chain that was measured, or on as much as there is of it.

    Args:
        folder: of the run, where the images are and their grid is drawn.
    """
    workload: Mapping[str, Any] = record.cell.raw["workload"]
    chain = record.part(Chain)
    yield _layout(workload)
    done = [each for each in chain.chain_rounds if each.outcome == "ok"]
    if record.outcome == "ok" and done:
        yield _steps("Effective steps", [each.steps_effective for each in done])
        yield _steps("Denoiser calls", [each.denoiser_calls for each in done])
        yield _script_line(workload)
        yield from _chain_times(record, chain)
    for each in chain.chain_rounds:
        yield _round(each, record.outcome)
    yield compiled(record)
    yield from ending(record)
    try:
        grid = _grid(record, folder)
    except OSError as error:
        print(f"bench: the grid cannot be drawn: {error}", file=sys.stderr)
        return
    if grid is not None:
        yield f"Grid: {grid}"


def _layout(workload: Mapping[str, Any]) -> str:
    rounds = chains.of(workload)
    sizes = " + ".join(str(each.batch) for each in rounds[:MOST_SHOWN])
    sizes += " + …" if len(rounds) > MOST_SHOWN else ""
    parents = f", from the {workload['start_from']} round's images" if len(rounds) > 1 else ""
    scheduler = workload["scheduler"] or "the model's own scheduler"
    return (
        f"Chain: {workload['samples']} images of {workload['width']}x{workload['height']} in "
        f"{plural(len(rounds), 'round')} ({sizes}){parents}; {workload['steps']} steps, "
        f"strength {workload['strength']:g}, {scheduler}"
    )


def _steps(label: str, values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"{label}: not seen in this pipeline"
    later = "/".join(str(each) for each in dict.fromkeys(known[1:])) or "-"
    return f"{label}: {known[0]}/{later}/{sum(known)} {COUNTS}, measured"


def _chain_times(record: Record, chain: Chain) -> Iterator[str]:
    yield f"Total: {record.median_e2e_s:.3f} s (median of {len(record.e2e_s)})"
    yield f"TTFI: {median(chain.ttfi_s):.3f} s to the first images"
    gaps = chain.gaps_s[-1]
    known = [value for value in chain.tbb_s if value is not None]
    if known:
        yield f"Gaps: {seconds(gaps)} s between the ends of rounds (last chain)"
        yield f"TBB: {median(known):.3f} s, the mean of {len(gaps)} gaps"
    else:
        yield "TBB: none, a chain of one round has no time between rounds"
    yield f"Images per second: {median(chain.images_per_s):.3f}"
    yield from steady_memory(record)


def _round(each: Round, outcome: str) -> str:
    text = f"Round {each.round}: {each.task}, {plural(each.batch, 'image')}"
    if each.outcome != "ok":
        return f"{text}, {each.outcome or outcome}: {each.reason or 'not finished'}"
    text += f", denoiser at batch {each.denoiser_batch}"
    for reading in each.memory:
        if reading.bytes is not None:
            return f"{text}, peak {gib(reading.bytes)} GiB ({reading.meter}, warm-up)"
    return text


def _grid(record: Record, folder: Path) -> Path | None:
    """Draw the images of a chain, a row for each round; None if there are none.

    Raises:
        OSError: an image cannot be read, or the grid not be written.
    """
    from bench import grids

    if not record.images:
        return None
    loaded = [files.image(files.inside(folder, entry.path)) for entry in record.images]
    chain = record.part(Chain)
    rows = grids.of_chain(chain.chain_rounds, chain.lineage, loaded)
    path = folder / GRID
    drawn = io.BytesIO()
    grids.draw(_layout(record.cell.raw["workload"]), rows).save(drawn, format="png")
    files.write(path, drawn.getvalue())
    return path


def of_folder(record: Record, place: Path) -> Iterator[str]:
    """Yield the lines on one model: counts, times, memory, failures, where results lie.

    Args:
        place: the run folder.
    """
    about = record.part(Folder).folder
    yield f"Model: {record.workload.model}"
    if about is not None:
        yield f"Images: {about.pictures}, {about.ok} ok, {about.failed} failed"
        if about.median_s is not None:
            yield (
                f"Time per image: {about.median_s:.3f} s (median); "
                f"{about.images_per_s:.2f} images a second with reading and saving"
            )
        if about.rss_start_bytes is not None and about.rss_end_bytes is not None:
            start, end = about.rss_start_bytes / MIB, about.rss_end_bytes / MIB
            yield f"Host memory: {start:.0f} MiB at the first image, {end:.0f} at the last"
        if about.carried:
            yield f"Resumed: {about.carried} images were done before"
        rows = place / about.rows
        bad = [row for row in rows_of(place, about) if row.outcome != "ok"]
        for row in bad[:MOST_FAILURES]:
            yield f"  {row.outcome}: {row.picture}: {row.reason}"
        if len(bad) > MOST_FAILURES:
            yield f"  … and {len(bad) - MOST_FAILURES} more: {rows}"
        yield f"Results: {rows.parent}"
        yield f"Rows: {rows}"
    yield next(ending(record))


def of_repeat(one: Repeated) -> Iterator[str]:
    """Yield the lines on a cell: its name, then one for each question."""
    yield f"{one.name}: deterministic algorithms {MODES[one.mode]}"
    yield from (f"  {line}" for line in one.failed)
    if one.processes:
        yield f"  images: {_equal(one)}"
        yield from map("  different: {}".format, _differing(one))
        if one.leak is None:
            yield "  leak: not known, since the memory that is held could not be read"
        else:
            yield f"  leak: {_leak(one.leak, one.images)}"
    if one.without:
        yield f"  without a deterministic algorithm: {', '.join(one.without)}"
    elif one.mode:
        yield "  without a deterministic algorithm: no operation that ran"


MODES: Mapping[bool | str, str] = {False: "off", True: "on", "strict": "on, strictly"}


def _equal(one: Repeated) -> str:
    """Return how many calls were equal, and whether processes were."""
    within = "; ".join(
        f"{p.equal} of {p.calls} calls equal within process {p.number}"
        + (f" ({p.asked} were asked for)" if p.calls != p.asked else "")
        for p in one.processes
    )
    if one.equal_within and one.complete:
        counts = " and ".join(dict.fromkeys(str(p.calls) for p in one.processes))
        within = f"{counts} of {counts} equal within a process"
    between = {
        True: f"{len(one.processes)} processes equal",
        False: f"{len(one.processes)} processes NOT equal",
        None: "one process, so none to compare it with",
    }[one.equal_between]
    return f"{within}; {between}"


def _differing(one: Repeated) -> Iterator[str]:
    """Yield of each image that differs where, by how much, and in which place."""
    for each in one.differences:
        if each.max_abs is None:
            how = each.why or "by how much is not known"
        else:
            left, top, right, bottom = each.box or (0, 0, 0, 0)
            how = (
                f"by up to {each.max_abs} of 255 in {each.share or 0:.2%} of the pixels, from "
                f"({left}, {top}) to ({right}, {bottom})"
            )
        yield f"image {each.index} {each.where}: {how}"


def _leak(process: Process, images: int) -> str:
    """Return whether a process's memory grows, by how much an image, and how sure that is."""
    leak = process.leak
    if leak is None or leak.bytes_per_call is None or leak.low is None or leak.high is None:
        return "" if leak is None else f"{leak.verdict} ({leak.reason})"
    each = KIB * max(1, images)
    figures = (
        f"{leak.bytes_per_call / each:+.1f} KiB per image, {leak.level:.0%} interval "
        f"{leak.low / each:+.1f} to {leak.high / each:+.1f}; {process.meter}, process "
        f"{process.number}, {leak.calls} calls after settling"
    )
    if leak.steps_bytes:
        total = sum(leak.steps_bytes) / KIB
        figures += f"; {len(leak.steps_bytes)} step(s) of together {total:+.0f} KiB set aside"
    word = {"leak": "FOUND", "none": "none", "unclear": "unclear"}[leak.verdict]
    return f"{word} ({figures})" + (f": {leak.reason}" if leak.reason else "")
