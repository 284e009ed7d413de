"""Equal calls over and over: are their pictures equal, and does the memory that is held grow.

A pass of its own after the measured calls. Each call is reported when it is done, so that a process
that its leak kills has told how far it came.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.contract import ImageEntry
from bench.passes.base import Context, Pass
from bench.worker import memory, pictures

Reader = Callable[[], "int | None"]

REFERENCE = "repeat_first"
DIFFERENCE = "repeat_difference"


class Held:
    """The memory that this process holds between calls, by one meter.

    Attributes:
        meter: its name.
        how: what is done before it is read.
        reason: why there is no reading; None if there is.
    """

    def __init__(self, device: str, status: Path = memory.STATUS) -> None:
        self.reason: str | None = None
        self.how = "after garbage collection"
        self._read: Reader
        kind = device.partition(":")[0]
        if kind == "cuda":
            import torch

            self.meter = "torch.memory_allocated"
            self._read = lambda: int(torch.cuda.memory_allocated(device))
        elif kind == "mps":
            import torch.mps

            self.meter = "torch.mps.current_allocated_memory"
            self._read = lambda: int(torch.mps.current_allocated_memory())
        else:
            self.meter = "rss"
            trim = _trimmer()
            if trim is not None:
                self.how += " and after freed memory went back to the system (malloc_trim)"
            if memory.resident_bytes(status) is None:
                self.reason = f"{sys.platform} does not tell a process its present resident size"

            def rss() -> int | None:
                if self.reason is not None:
                    return None
                if trim is not None:
                    trim(0)
                return memory.resident_bytes(status)

            self._read = rss

    def read(self) -> int | None:
        """Return the bytes held now, garbage collected; None with the reason in ``reason``."""
        gc.collect()
        return self._read()


def _trimmer() -> Any:
    """Return glibc's malloc_trim; None where the C library has none."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


class RepeatPass(Pass):
    """Compares the images and the memory of equal calls."""

    phases = {"repeat": "repeating equal calls"}
    counted = frozenset({"repeat"})
    missing = "equal calls were not repeated"

    def run(self, context: Context) -> None:
        Repeater(context, Held(context.device)).run(context.asked)


class Repeater:
    """Makes the calls of one pass, and reads what ``held`` says after each."""

    def __init__(self, context: Context, held: Held) -> None:
        self._call = context.images
        self._held = held
        self._report = context.report
        self._seed = context.workload["seed"]
        self._folder, self._root = context.places
        self._compared: list[_Compared] = []

    def run(self, calls: int) -> None:
        """Make ``calls`` calls; what they raise is raised, with what was found so far reported."""
        about: dict[str, Any] = {
            "calls": calls,
            "meter": self._held.meter,
            "how": self._held.how,
            "before_bytes": self._held.read(),
            "reference": [],
            "differences": [],
        }
        if self._held.reason is not None:
            self._report.null({"repeat.memory_bytes": self._held.reason})
        self._report.set(repeat_about=about)
        try:
            for number in range(calls):
                images = self._call()
                digests = [pictures.digest(image) for image in images]
                if number == 0:
                    about["reference"] = self._keep(images)
                    self._report.set(repeat_about=about)
                self._compare(images, digests)
                del images
                entry = {"sha256": digests, "memory_bytes": self._held.read()}
                self._report.append(repeat=entry)
        finally:
            about["differences"] = self._differences()
            self._report.set(repeat_about=about)

    def _keep(self, images: list[Any]) -> list[ImageEntry]:
        self._compared = [_Compared(image) for image in images]
        return pictures.save(images, self._seed, self._folder, self._root, stem=REFERENCE)

    def _compare(self, images: list[Any], digests: list[str]) -> None:
        for compared, image, digest in zip(self._compared, images, digests, strict=False):
            compared.add(image, digest)

    def _differences(self) -> list[dict[str, Any]]:
        found = []
        for index, compared in enumerate(self._compared):
            if not compared.calls:
                continue
            path = self._folder / f"{DIFFERENCE}_{index:05d}.png"
            found.append({"index": index, **compared.fields(path, self._root)})
        return found


class _Compared:
    """One picture of the first call, and how far those of later calls lie from it.

    Attributes:
        calls: how many were different.
    """

    def __init__(self, image: Any) -> None:
        import numpy as np

        self.calls = 0
        self._digest = pictures.digest(image)
        self._first = np.asarray(image.convert("RGB"), dtype=np.int16)
        self._most = np.zeros(self._first.shape[:2], dtype=np.uint8)
        self._sizes = 0

    def add(self, image: Any, digest: str) -> None:
        import numpy as np

        if digest == self._digest:
            return
        self.calls += 1
        other = np.asarray(image.convert("RGB"), dtype=np.int16)
        if other.shape != self._first.shape:
            self._sizes += 1
            return
        away = np.abs(other - self._first).max(axis=2).astype(np.uint8)
        np.maximum(self._most, away, out=self._most)

    def fields(self, path: Path, root: Path) -> dict[str, Any]:
        """Return the record's entry; the map of differences goes to ``path``."""
        import numpy as np
        from PIL import Image

        fields: dict[str, Any] = {"calls": self.calls, "other_sizes": self._sizes}
        rows, columns = np.nonzero(self._most)
        if not len(rows):
            return {**fields, "max_abs": None, "share": None, "box": None, "map": None}
        pictures.write(Image.fromarray(self._most), path)
        return {
            **fields,
            "max_abs": int(self._most.max()),
            "share": len(rows) / self._most.size,
            "box": [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())],
            "map": pictures.relative(path, root),
        }


PASS = RepeatPass()
