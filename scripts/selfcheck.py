"""Check runs against known answers, and the harness against a bare loop on the same device.

    python scripts/selfcheck.py RUN... [--pairs N] [--loop FILE]

Prints one line for each known answer: expected, found, verdict. Exits with 1 if one is broken, or
missing where it should be.
Needs torch for the loop alone; without a run's baseline cell, or with ``--pairs 0``, there is none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import selfcheck  # noqa: E402 - the path comes first
from bench.passes.profile.record import Fields  # noqa: E402
from bench.records import Record  # noqa: E402
from bench.store import RunFolder, StoreError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check runs against known answers.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--pairs", type=int, default=30, help="bare calls (%(default)s)")
    parser.add_argument(
        "--loop", type=Path, help="where the bare loop's figures are kept, and found again"
    )
    asked = parser.parse_args(arguments)
    try:
        runs = [RunFolder.open(run) for run in asked.runs]
        records = [record for run in runs for record in run.records()]
        lost = [name for run in runs for name in without_record(run)]
    except StoreError as error:
        print(f"selfcheck: {error}", file=sys.stderr)
        return 2
    lines = selfcheck.check(records, bare_loop(records, asked.pairs, asked.loop), lost)
    show(lines)
    return int(selfcheck.broken(lines))


def without_record(run: RunFolder) -> list[str]:
    """Return the cells and rounds of a run's plan that have no record."""
    names = {cell.cell_id: cell.name for cell in run.cells()}
    missing = run.current_keys() - {entry.key for entry in run.entries()}
    return [f"{names[cell_id]} round {round_ + 1}" for cell_id, round_ in sorted(missing)]


def show(lines: Sequence[selfcheck.Line]) -> None:
    """Print what was expected, what was found, and the verdict."""
    width = max(len(line.what) for line in lines)
    for line in lines:
        found = line.found or "–"
        why = f"  ({line.why})" if line.why else ""
        print(f"{line.what:<{width}}  expected {line.expected}; found {found}: {line.word}{why}")
    words = [line.word for line in lines]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    print(f"self-check: {counts}")


def bare_loop(records: Sequence[Record], pairs: int, kept: Path | None) -> selfcheck.Loop | None:
    """Return the loop's figures, from ``kept`` if they are of the same cell."""
    baseline = next((each for each in records if each.is_baseline and each.outcome == "ok"), None)
    if pairs < 1 or baseline is None:
        return None
    work = baseline.part(Fields).work or {}
    counted = {scope: each.flops for scope, each in work.items()}
    key = [baseline.cell_id, pairs]
    if kept is not None and kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found.pop("of") == key:
            return selfcheck.Loop(**found)
    loop = _take_turns(baseline.cell.raw, baseline.actual_device, pairs, counted)
    if kept is not None:
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps({**asdict(loop), "of": key}), encoding="utf-8")
        partial.replace(kept)
    return loop


def _take_turns(
    recorded: Mapping[str, Any], device: str, pairs: int, counted: Mapping[str, int]
) -> selfcheck.Loop:
    """Run the cell once more, in turns with bare calls of a pipeline loaded the same way."""
    from bench.worker import inputs, sources
    from scripts.bare_loop import take_turns

    workload = recorded["workload"]
    pipeline = sources.load(workload, device, allow_remote_code=False).pipeline
    pipeline.set_progress_bar_config(disable=True)
    given = inputs.prepare(pipeline, workload, device)
    turns = take_turns(
        recorded, device, pairs, lambda: list(pipeline(**given.call_kwargs()).images)
    )
    return selfcheck.Loop(
        harness_s=turns["harness_s"],
        bare_s=turns["bare_s"],
        same_images=turns["bare_pictures"] == turns["harness_pictures"],
        flops=_denoiser_flops(pipeline, workload, counted, turns["steps_effective"]),
        counted=counted,
    )


def _denoiser_flops(
    pipeline: Any, workload: Mapping[str, Any], counted: Mapping[str, int], steps: int
) -> dict[str, int]:
    """Count the denoiser's operations on shapes alone, with torch's own counter.

    On torch's meta device nothing is computed, attention is not fused into one kernel, and the
    count is made by other code than the record's. Empty where the architecture is not known.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from bench.worker.sources import synthetic

    source, _, name = workload["model"].partition(":")
    if source != "synthetic" or "unet" not in counted:
        return {}
    unet = synthetic.on_meta(name)["unet"]
    scale = pipeline.vae_scale_factor
    batch = workload["batch"] * (3 if workload["task"] == "edit" else 2)
    size = (workload["height"] // scale, workload["width"] // scale)
    more: dict[str, Any] = {}
    if unet.config.addition_embed_type == "text_time":
        pooled = unet.config.projection_class_embeddings_input_dim
        pooled -= 6 * unet.config.addition_time_embed_dim
        more["added_cond_kwargs"] = {
            "text_embeds": torch.empty(batch, pooled, device="meta"),
            "time_ids": torch.empty(batch, 6, device="meta"),
        }
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(
            torch.empty(batch, unet.config.in_channels, *size, device="meta"),
            torch.empty((), device="meta"),
            torch.empty(batch, 77, unet.config.cross_attention_dim, device="meta"),
            **more,
        )
    return {"unet": int(counter.get_total_flops()) * steps}


if __name__ == "__main__":
    raise SystemExit(main())
