"""What trials say: edges, the best batch, cards, and what is set aside for a context."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from bench.passes.capacity.judge import Trial, capacities, law_says, limit_says, of_record
from bench.records.read import decode
from bench.text import GIB
from tests.cli.records import cell, record


def trial(batch: int, side: int = 128, outcome: str = "ok", **changes: Any) -> Trial:
    taken = int(1e9 + 2500 * side * side * batch)
    fields: dict[str, Any] = {
        "subject": "s",
        "name": f"w-{side}x{side}-b{batch}",
        "batch": batch,
        "images": batch,
        "height": side,
        "width": side,
        "outcome": outcome,
        "reason": None,
        "meter": "torch.max_memory_reserved",
        "peak_bytes": taken if outcome == "ok" else None,
        "beside_bytes": GIB // 2,
        "limit_bytes": None,
        "e2e_s": tuple(0.1 + 0.01 * batch + 0.0001 * call for call in range(6))
        if outcome == "ok"
        else (),
        "record_id": f"{batch}-{side}",
    }
    return Trial(**{**fields, **changes})


def of(planned: Any, e2e_s: Any = (1.0,), **fields: Any) -> Trial:
    return of_record(decode(json.dumps(record(planned, e2e_s, **fields)).encode()))


GROWING = [trial(1), trial(2), trial(4), trial(8), trial(16, outcome="oom")]


def test_edges_are_those_measured_and_say_when_there_is_a_gap() -> None:
    (found,) = capacities(GROWING)
    assert limit_says(found.batches, "batch") == (
        "largest batch at 128x128: 8; 16 ran out of memory, and nothing between was tried"
    )
    assert limit_says(found.sizes, "size") == (
        "largest size at batch 1: at least 128x128; nothing that was tried ran out of memory"
    )
    (closed,) = capacities([*GROWING, trial(9, outcome="oom")])
    assert limit_says(closed.batches, "batch") == "largest batch at 128x128: 8; 9 ran out of memory"
    (none,) = capacities([trial(1, outcome="oom")])
    assert "none fits; 1 ran out" in limit_says(none.batches, "batch")


def test_a_predicted_size_is_the_largest_whose_rounded_width_fits() -> None:
    """By counting all heights: 432 wide for 160 high, whose width rounds down at 3584."""
    law: dict[str, Any] = {"e2e_s": (), "limit_bytes": None}
    sizes = [(h, round(h * 2.7)) for h in (160, 320, 640, 960)]
    made = [
        trial(1, height=h, width=w, peak_bytes=int(1e9 + 2500 * h * w), **law) for h, w in sizes
    ]
    twice = trial(2, height=160, width=432, peak_bytes=int(1e9 + 2500 * 160 * 432 * 2), **law)
    (found,) = capacities([*made, twice])
    for card in found.cards:
        fitting = [
            (h, int(h * 2.7 / 8 + 0.5) * 8)
            for h in range(8, 6000, 8)
            if 1e9 + 2500 * h * int(h * 2.7 / 8 + 0.5) * 8 <= card.usable_bytes
        ]
        assert card.side == fitting[-1]
        assert card.beyond == (math.prod(card.side) > 960 * 2592 or card.batch > 36)


def test_a_skipped_trial_counts_as_one_that_ran_out() -> None:
    skipped = trial(16, outcome="skipped", dominated_by="r")
    (found,) = capacities([*GROWING[:4], skipped])
    assert found.batches.fails is skipped
    other = trial(16, outcome="skipped")
    assert capacities([*GROWING[:4], other])[0].batches.fails is None


def test_what_fits_above_what_ran_out_is_not_believed() -> None:
    (found,) = capacities([trial(1), trial(2, outcome="oom"), trial(4)])
    assert found.batches.fits is not None
    assert found.batches.fits.batch == 1


def test_the_best_batch_is_named_with_its_gain() -> None:
    (found,) = capacities(GROWING)
    assert found.best is not None
    assert found.best.batch == 8
    # 0.11 s for one, 0.18 s / 8 for each of eight
    assert "batch 8 makes 4.8" in found.best_says
    assert found.best.time.median == pytest.approx((0.18 + 0.00025) / 8)


def test_time_is_divided_by_all_pictures_of_a_chain() -> None:
    (found,) = capacities([of(cell(task="chain", batch=2, max_batch=2, samples=6), [3.0])])
    assert [each.time.median for each in found.per_image] == [0.5]


def test_no_batch_is_better_than_one_where_time_grows_with_it() -> None:
    slow = [
        trial(batch, e2e_s=tuple(0.1 * batch + 0.0001 * call for call in range(6)))
        for batch in (1, 2, 4)
    ]
    worse = [trial(1, e2e_s=(0.1,) * 6), trial(2, e2e_s=(0.3,) * 6), trial(4, e2e_s=(0.7,) * 6)]
    assert capacities(worse)[0].best_says.startswith("no batch is better than 1")
    noisy = [trial(1, e2e_s=(0.1, 0.2, 0.15)), trial(2, e2e_s=(0.19, 0.45, 0.22))]
    assert capacities(noisy)[0].best_says.startswith("no batch is clearly better than 1")
    assert capacities(slow)[0].best is not None


def test_cards_are_predictions_less_the_context() -> None:
    sizes = [trial(1, side) for side in (128, 256, 384, 512, 640)]
    (found,) = capacities([*GROWING, *sizes[1:]])
    assert found.reserve_bytes == GIB // 2
    assert "as measured here" in found.reserve_says
    by_size = {card.gib: card for card in found.cards}
    assert list(by_size) == [6, 8, 12, 16, 24, 48, 80]
    usable = 8 * GIB - GIB // 2
    assert by_size[8].batch == int((usable - 1e9) / (2500 * 128 * 128))
    assert by_size[8].side is not None
    side = by_size[8].side[0]
    assert 1e9 + 2500 * side * side <= usable < 1e9 + 2500 * (side + 8) ** 2
    assert by_size[8].beyond
    assert by_size[8].sure_batch is not None
    assert by_size[8].sure_batch <= by_size[8].batch


def test_a_context_of_others_is_not_taken_for_ours() -> None:
    (found,) = capacities([trial(b, beside_bytes=20 * GIB) for b in (1, 2, 4)])
    assert found.reserve_bytes == pytest.approx(0.6 * GIB, rel=1e-6)
    assert "an assumption" in found.reserve_says


def test_host_memory_says_nothing_of_a_gpu() -> None:
    (found,) = capacities([trial(b, meter="rss") for b in (1, 2, 4)])
    assert found.reserve_bytes == 0
    assert "say nothing of a GPU" in found.reserve_says


def test_one_size_gives_no_size_of_a_card() -> None:
    (found,) = capacities(GROWING)
    assert all(card.side is None for card in found.cards)


def test_two_meters_or_two_points_give_no_law() -> None:
    mixed = [trial(1, meter="rss"), trial(2, meter="rss (spawned)"), trial(4, meter="rss")]
    assert "different meters" in law_says(capacities(mixed)[0])
    assert "at least 3" in law_says(capacities([trial(1), trial(2)])[0])
    assert "does not grow" in law_says(
        capacities([trial(b, peak_bytes=10**9) for b in (1, 2, 4)])[0]
    )


def test_a_record_of_a_gpu_is_read_by_what_torch_reserved() -> None:
    planned = cell(height=64, width=64, asked_height=70, asked_width=65, round_size="down")
    peaks = [
        ("torch.max_memory_allocated", "steady", 5),
        ("torch.max_memory_reserved", "steady", 7),
        ("torch.max_memory_reserved", "warmup", 9),
        ("device_used", "warmup", 12),
        ("rss", "steady", 99),
    ]
    memory = [
        {"meter": meter, "scope": "device", "phase": phase, "bytes": count}
        for meter, phase, count in peaks
    ]
    made = of(planned, device="cuda:0", memory=memory)
    assert (made.meter, made.peak_bytes, made.beside_bytes) == ("torch.max_memory_reserved", 9, 3)
    assert (made.asked, made.size, made.output) == ((70, 65), (64, 64), (64, 64))
    assert of(planned, device="cuda:0", memory=memory, outcome="failed").peak_bytes is None
    spawned = of(planned, process={"start": "spawn"}, memory=memory)
    assert (spawned.meter, spawned.peak_bytes) == ("rss (spawned)", 99)
