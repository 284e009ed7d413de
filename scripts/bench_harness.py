"""Measure the harness itself: does it tell the truth, and what does it cost? Run by ``make bench``.

Truth: a cell of the harness and a bare loop, written here without the harness's code, run in one
process and take turns call by call, on pipelines of their own with the same settings. Each bare
call is paired with the geometric mean of the harness's calls before and after it, so that drift
cancels and so does the skew of noise. Two copies of one pipeline in one process differ by a per
cent or two, by where their weights came to lie in memory; so this is done in several processes,
which load the two in turns first, and the difference and its interval are those over processes.

Cost: the command line's start, planning, the overhead of each cell, what forking workers from a
template saves over fresh interpreters, and rendering a large run's report.

A bound is broken only if the measurement is sure. On a busy machine the clock shows what others
do, so a cost over its bound counts only if its processor time is over it too; the truth is judged
by the interval of the median difference. What cannot be told is "unclear". Exits with 1 if a bound
is broken.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.bare_loop import take_turns  # noqa: E402 - the path comes first

ASSETS = ROOT / "bench" / "assets" / "embedded"

PAIRS = 20
PROCESSES = 8
TRUTH_PCT = 1.0
HELP_S = 0.4
PLAN_S = 2.0
PLAN_CELLS = 10_000
CELL_S = 0.150
RENDER_S = 20.0
RENDER_RECORDS = (2_500, 5_000, 10_000)

PROMPT = "a big red house on grass in the middle under a blue sky"
SEED, STEPS, SIDE, THREADS = 333, 10, 128, 1

FIRST_IN_TURN = itertools.cycle(("bare", "harness"))


@dataclass(frozen=True)
class Result:
    """One line of the table. ``verdict`` is "ok", "unclear" or "broken"; "" has no bound."""

    what: str
    found: str
    bound: str = ""
    verdict: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the harness itself.")
    for name, default, text in (
        ("--pairs", PAIRS, "calls of the bare loop in each process"),
        ("--processes", PROCESSES, "the interval narrows with their square root"),
    ):
        parser.add_argument(name, type=int, default=default, help=f"{text} (%(default)s)")
    parser.add_argument("--truth-only", action="store_true", help="leave the costs out")
    parser.add_argument("--truth-json", choices=("bare", "harness"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.processes < 2 or asked.pairs < 2:
        parser.error("an interval takes at least 2 processes of 2 pairs")
    if asked.truth_json:
        print(json.dumps(compare_with_bare_loop(asked.pairs, asked.truth_json)))
        return 0
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} core(s)")
    results = []
    costs_too = () if asked.truth_only else (command_line(), planning(), cells(), rendering())
    for result in itertools.chain(truth(asked.processes, asked.pairs), *costs_too):
        print(
            f"{result.what:<44} {result.found:<58} {result.bound:<8} {result.verdict}", flush=True
        )
        results.append(result)
    return int(any(result.verdict == "broken" for result in results))


def truth(processes: int, pairs: int) -> Iterator[Result]:
    found = [compared(pairs, first) for first in itertools.islice(FIRST_IN_TURN, processes)]
    for arm, name in (("harness_s", "harness"), ("bare_s", "bare loop")):
        middle = statistics.median(statistics.median(each[arm]) for each in found)
        text = f"{middle * 1000:.1f} ms of {processes} x {len(found[0][arm])} calls"
        yield Result(f"median call, {name}", text)
    same = all(each["harness_pictures"] == each["bare_pictures"] for each in found)
    yield Result("both draw the same picture", str(same), "True", "ok" if same else "broken")
    differences = [paired_difference_pct(each["harness_s"], each["bare_s"]) for each in found]
    low, middle, high = mean_with_interval(differences)
    sure = low > TRUTH_PCT or high < -TRUTH_PCT
    close = low > -TRUTH_PCT and high < TRUTH_PCT
    yield Result(
        "harness against bare loop, paired",
        f"{middle:+.2f} %  (95 %: {low:+.2f} to {high:+.2f}, {processes} processes)",
        f"< {TRUTH_PCT:g} %",
        "broken" if sure else "ok" if close else "unclear",
    )


def compared(pairs: int, first: str) -> dict[str, Any]:
    """Run ``compare_with_bare_loop`` in a process of its own."""
    done = python(__file__, "--truth-json", first, "--pairs", str(pairs))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def paired_difference_pct(harness_s: list[float], bare_s: list[float]) -> float:
    """Return how much longer the harness's calls are in one process, in per cent: the median.

    The calls took turns, harness first and last.
    """
    around = [math.sqrt(before * after) for before, after in itertools.pairwise(harness_s)]
    return statistics.median(100 * (h / b - 1) for h, b in zip(around, bare_s, strict=True))


def mean_with_interval(values: list[float]) -> tuple[float, float, float]:
    """Return (low, mean, high): the 95 % interval of the mean by Student's t."""
    from bench.stats.special import student_t_quantile

    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = student_t_quantile(0.05, len(values) - 1) * error
    return mean - half, mean, mean + half


def compare_with_bare_loop(pairs: int, first: str) -> dict[str, Any]:
    """Run one cell and a bare pipeline in turns; ``first`` of them, "bare" or "harness", loads."""
    import torch

    from bench.config import make_plan, parse_config

    workload = {"name": "truth", "task": "text-to-image", "model": "embedded:sdxl",
                "prompt": PROMPT, "seed": SEED, "steps": STEPS, "size": SIDE,
                "dtype": "float32"}  # fmt: skip
    config = {"device": "cpu", "threads": THREADS,
              "matrix": {"workload": [workload], "backend": ["none"]}}  # fmt: skip
    cell = make_plan(parse_config(config)).cells[0]
    torch.set_num_threads(THREADS)
    loaded = [bare_pipeline()] if first == "bare" else []

    def bare() -> list[Any]:
        if not loaded:
            loaded.append(bare_pipeline())
        generator = torch.Generator("cpu").manual_seed(SEED)
        size = {"height": SIDE, "width": SIDE}
        images: list[Any] = loaded[0](
            prompt=PROMPT, **size, num_inference_steps=STEPS, generator=generator
        ).images
        return images

    return take_turns(cell, "cpu", pairs, bare)


def bare_pipeline() -> Any:
    """Load the same weights as a user would, without the harness."""
    import torch
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline

    vae = AutoencoderKL.from_pretrained(ASSETS / "vae", torch_dtype=torch.float32)
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        ASSETS / "sdxl", vae=vae, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def command_line() -> Iterator[Result]:
    yield judged("bench --help", costs(9, quietly("--help")), HELP_S)
    code = (
        "import sys; from bench.cli.app import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = python("-c", code)
    heavy = sorted({"torch", "diffusers", "pandas", "numpy", "pydantic"} & {*done.stderr.split()})
    verdict = "broken" if heavy else "ok"
    yield Result("heavy imports of bench --help", ", ".join(heavy) or "none", "none", verdict)


def planning() -> Iterator[Result]:
    from bench.config import make_plan, parse_config

    config = {
        "name": "many",
        "defaults": {"task": "text-to-image", "model": "embedded:sdxl"},
        "matrix": {
            "workload": [{"name": f"w{n}", "prompt": f"scene {n}"} for n in range(10)],
            "backend": ["none", "torch-compile"],
            "seed": list(range(100)),
            "steps": [5, 10, 20, 30, 50],
        },
    }

    def plan() -> None:
        count = make_plan(parse_config(config)).count
        assert count == PLAN_CELLS, count

    yield judged(f"planning {PLAN_CELLS:,} cells", costs(5, plan), PLAN_S)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "many.yaml"
        file.write_text(json.dumps(config))
        found = costs(3, quietly("run", str(file), "--dry-run"))
    yield judged("the same by bench run --dry-run, start included", found, PLAN_S)


def cells() -> Iterator[Result]:
    from bench.runner import overhead
    from bench.worker import template

    forked = [Cost(wall) for wall in overhead.measure(20, "fork", template.PRELOAD).cell_s]
    yield judged("overhead of a cell (forked)", forked, CELL_S)
    spawned = [Cost(wall) for wall in overhead.measure(3, "spawn", template.PRELOAD).cell_s]
    yield judged("the same in a fresh interpreter", spawned, None)
    saved = median_wall(spawned) - median_wall(forked)
    yield Result("saved for each cell by the template", f"{saved:.2f} s")


def rendering() -> Iterator[Result]:
    """Render generated runs with ``bench report``; the bound is for the largest."""
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in RENDER_RECORDS:
            run = Path(folder) / str(count)
            # A fresh process finds the generator below its working directory.
            code = f"""
from pathlib import Path
from tests.reports import make_records as make
workloads = [make.Workload(f"w{{n}}", prompt=f"scene {{n}}") for n in range({count // 20})]
backends = [*make.BACKENDS, make.Backend("other", 1.9, 80.0)]
made = make.records(workloads, backends, rounds=5, calls=10)
assert len(made) == {count}, len(made)
make.write_run(Path({str(run)!r}), made)
"""
            python("-c", code)
            cost, peak = one_process("report", str(run), "--out", str(run / "out"))
            peaks.append(peak)
            bound = RENDER_S if count == max(RENDER_RECORDS) else None
            yield judged(f"bench report on {count:,} records", [cost], bound)
    told = ", ".join(f"{peak / 1024**2:.0f} MiB" for peak in peaks)
    # Equal where memory grows in proportion to the records.
    grown = ", ".join(
        f"{(high - low) / (more - few) / 1024:.0f}"
        for (few, low), (more, high) in itertools.pairwise(zip(RENDER_RECORDS, peaks, strict=True))
    )
    yield Result("its peak memory", f"{told}; KiB more for each record: {grown}")


def one_process(*arguments: str) -> tuple[Cost, int]:
    """Run ``bench`` with ``arguments``; return its cost and its largest process's peak in bytes."""
    begin = time.perf_counter()
    started = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *arguments], stdout=subprocess.DEVNULL, cwd=ROOT
    )
    _, status, used = os.wait4(started.pid, 0)
    wall_s = time.perf_counter() - begin
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode != 0:
        raise SystemExit(f"bench {' '.join(arguments)} ended with {started.returncode}")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(wall_s, used.ru_utime + used.ru_stime), used.ru_maxrss * unit


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and seconds of processor time if they are known."""

    wall_s: float
    processor_s: float | None = None


def costs(count: int, work: Callable[[], object]) -> list[Cost]:
    found = []
    for _ in range(count):
        processor, begin = processor_s(), time.perf_counter()
        work()
        found.append(Cost(time.perf_counter() - begin, processor_s() - processor))
    return found


def processor_s() -> float:
    """Return the processor time of this process and of its children that have ended, in seconds."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def median_wall(found: list[Cost]) -> float:
    return statistics.median(cost.wall_s for cost in found)


def judged(what: str, found: list[Cost], bound_s: float | None) -> Result:
    """Return a line for repeated costs with its verdict."""
    middle, best = median_wall(found), min(cost.wall_s for cost in found)
    processor = [cost.processor_s for cost in found if cost.processor_s is not None]
    text = f"median {middle:.3f} s, best {best:.3f} s of {len(found)}"
    if processor:
        text += f", processor {min(processor):.3f} s"
    if bound_s is None:
        return Result(what, text)
    sure = min(processor) >= bound_s if processor else best >= bound_s
    verdict = "ok" if middle < bound_s else "broken" if sure else "unclear"
    return Result(what, text, f"< {bound_s:g} s", verdict)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with ``arguments`` to its end.

    Raises:
        SystemExit: it failed; with what it wrote.
    """
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done


def quietly(*arguments: str) -> Callable[[], object]:
    """Return what runs ``bench`` with ``arguments`` and drops its output."""
    command = [sys.executable, "-m", "bench.cli", *arguments]
    return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
