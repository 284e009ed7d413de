"""Figures that others published, to be drawn beside measured ones and never mixed with them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from bench.records.arms import ArmGroup
from bench.store import StoreError

TASKS = {"t2i": "text-to-image", "i2i": "image-to-image"}
EDIT_MODELS = ("timbrooks/instruct-pix2pix",)
"""Models that the published tables call i2i and that are instruct-pix2pix, the task ``edit``."""


@dataclass(frozen=True, slots=True)
class Published:
    """One published row. Seconds, iterations per second, GiB; None where none was given."""

    origin: str
    session: str
    model: str
    task: str
    backend: str
    height: int | None
    width: int | None
    batch: int | None
    dtype: str
    steps: int | None
    warmup_s: float | None
    e2e_s: float | None
    it_per_s: float | None
    memory_gib: float | None
    meter: str
    gpu: str

    @property
    def label(self) -> str:
        session = f", {self.session}" if self.session and self.session != self.backend else ""
        return f"{self.backend} (published{session})"

    @property
    def settings(self) -> str:
        parts = [
            self.model,
            self.task,
            f"{self.width}×{self.height}" if self.width and self.height else "",
            f"batch {self.batch}" if self.batch else "",
            f"{self.steps} steps claimed" if self.steps else "",
            self.dtype,
            f"GPU {self.gpu}",
        ]
        return ", ".join(part for part in parts if part)


References = Mapping[int, Sequence[Published]]
"""Published rows by the index of the comparison beside which they are drawn."""


def names() -> list[str]:
    """Return the reference sets that ``--reference`` takes: those with times by backend."""
    return ["onediff_t2i_i2i"]


def load(name: str) -> list[Published]:
    """Return the rows of a reference set.

    Raises:
        StoreError: there is none of that name.
    """
    if name not in names():
        raise StoreError(
            f"no reference is called {name!r}; there is: {', '.join(names())}. Further published "
            "tables lie in reports/reference/, but hold no times by backend."
        )
    content = (files(__package__) / f"{name}.csv").read_text(encoding="utf-8")
    return [_published(row) for row in csv.DictReader(content.splitlines())]


def beside(rows: list[Published], group: ArmGroup) -> list[Published]:
    """Return the rows to draw beside a group: of the same model, task and size.

    Steps, type and machine may differ: they are stated, and nothing is computed across.
    """
    asked = group.cell.workload
    model = asked.model.removeprefix("hub:").split("@")[0]
    return [
        row
        for row in rows
        if row.model == model
        and row.task == asked.task
        and (row.height, row.width) == (asked.height, asked.width)
    ]


def _published(row: dict[str, str]) -> Published:
    model = row["model"]
    return Published(
        origin=row["origin"],
        session=row["session"],
        model=model,
        task="edit" if model in EDIT_MODELS else TASKS[row["task"]],
        backend=row["backend"],
        height=_whole(row["height"]),
        width=_whole(row["width"]),
        batch=_whole(row["batch"]),
        dtype=row["dtype"],
        steps=_whole(row["steps_claimed"]),
        warmup_s=_real(row["warmup_s"]),
        e2e_s=_real(row["inference_s"]),
        it_per_s=_real(row["iter_per_s"]),
        memory_gib=_real(row["peak_mem_gib"]),
        meter=row["mem_meter"],
        gpu=row["gpu"],
    )


def _real(value: str) -> float | None:
    return float(value) if value else None


def _whole(value: str) -> int | None:
    return int(value) if value else None
