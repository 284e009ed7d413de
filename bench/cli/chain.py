"""``bench chain``: one chain from flags, its step counts, first images and gaps."""

from __future__ import annotations

from bench import chains
from bench.cli import quick


@quick.verb(
    "model samples max_batch strength steps scheduler start_from size prompt negative_prompt seed "
    "guidance variant dtype device backend calls",
    {"workload": {"task": chains.TASK}},
    model="embedded:sdxl",
    samples=9,
    max_batch=3,
    strength=0.75,
    steps=50,
    scheduler="DDIMScheduler",
    start_from="first",
    prompt="a photograph of a cat",
    seed="333",
    device="auto",
    backend="none",
    calls=1,
)
def chain(
    asked: quick.Asked,
    out: quick.Out = None,
    dry_run: quick.DryRun = False,
) -> None:
    """Prints the denoiser steps really taken by the first round, by each later one and in total,
    the time to the first images (TTFI), the gaps between rounds and their mean (TBB), images a
    second, peak memory of each round, and the image that shows them all.

    Examples:
      bench chain --dry-run --steps 200 --strength 0.9
      bench chain --model embedded:sdxl --steps 10 --samples 9 --max-batch 3
      bench chain --start-from previous --strength 0.5 --scheduler none
      bench chain --model ORG/NAME --size 512 --backend torch-compile --calls 3

    Exit codes:
      0    ok
      1    any other outcome; the reason is printed
      2    usage: a wrong option or value; nothing was started
      130  interrupted; the same command with --out continues it
    """
    from bench.cli import printed

    if dry_run:
        from bench.config import make_plan, parse_config

        (cell,) = make_plan(parse_config(asked.config)).cells
        print("\n".join(printed.of_planned_chain(cell["workload"])))
    else:
        quick.finish(asked, out, printed.of_chain, resume=True)
