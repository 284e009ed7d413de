"""Task folder: every picture of a folder is one measured call, and one line of a file beside them.

Pictures are read one at a time and nothing of them is kept, so memory does not grow with their
number; what the record says of all of them is read back from the file of rows.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import statistics
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import files, folder
from bench.contract import ImageEntry, Outcome
from bench.redact import Redactor
from bench.stats.order import median_interval
from bench.tasks.base import Measured, Run, Task, Warm
from bench.worker import dynamo, evidence, failure, faults, inputs, memory, pictures
from bench.worker.errors import Ended, SourceError
from bench.worker.instrument import Instruments, Sample

MOST_PIXELS = 100_000_000
"""Of a picture that is opened; the header says how many, so a bomb is refused before it unpacks."""

MOST_KEPT = 200
"""Calls that stand in the record itself; all of them are in the file of rows."""

SHOWN_PICTURES = 4
"""Results that the record names as its pictures, the first ones: for fidelity and the gallery."""

BLOCKS = 20
"""Blocks of pictures whose mean memory the slope is fitted to: neighbours are not independent."""
_T_95 = 2.101  # Student's t, 97.5 %, for BLOCKS - 2 degrees of freedom

Size = tuple[int, int]
"""(width, height) in pixels."""


class Folder(Task):
    """The images of one cell, from the first to the last."""

    name = "folder"
    equal_calls = False

    @classmethod
    def continues(cls, results: Path, cell_id: str) -> bool:
        return folder.belongs(results, cell_id)

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        cell = run.job["cell"]
        # As if the task were what is done to each image.
        self.workload = {**self.workload, "task": self.workload["how"]}
        self._cell_id = cell["cell_id"]
        self._place = Path(self.workload["pictures"])
        self._folder, self._root = run.places
        self._rows = self._folder / folder.ROWS
        self._eager: dict[Size, str] = {}
        try:
            self._names = folder.names(self._place)
        except OSError as error:
            raise SourceError(f"{self._place} cannot be read: {error.strerror}") from error
        planned = cell.get("inputs", {}).get("pictures")
        if planned and folder.identity(self._place, self._names) != planned["content"]:
            raise SourceError(
                f"the pictures in {self._place} have changed since the plan was made; start the "
                "run again, or resume it to measure what is new"
            )

    def mine(self) -> Iterator[folder.Drawn]:
        """Return what each picture that falls to this cell's model gets."""
        for each in folder.drawn(self.workload, self._names):
            if each["model"] == self.workload["model"]:
                yield each

    def first_inputs(self) -> Any:
        """Return the inputs of the warm-up: those of the first image that can be read.

        Raises:
            Ended: there is no such image; each is a failed row then.
        """
        for each in self.mine():
            try:
                given = self._prepared(each)[0]
            except Exception:  # noqa: BLE001, S112 - the row of this image says it
                continue
            made = self._inputs(each, given)
            self._report_inputs(made, ())
            return made
        self._process({}, None)
        fields, outcome, reason, _ = self.summary()
        self.run.report.set(folder=fields["folder"])
        raise Ended(outcome, str(reason))

    def measure(
        self, instruments: Instruments, made: Any, warm: Warm, proof: evidence.Proof
    ) -> Measured:
        """Call once for each image and report what became of them."""
        report = self.run.report
        self._process(self.run.machine, instruments)
        self.run.read_memory("steady")
        report.enter("finish")
        fields, outcome, reason, warnings = self.summary()
        nulls = {f"stages.{stage}": why for stage, why in instruments.missing.items()}
        if "device_e2e_s" not in fields:
            fields["device_e2e_s"] = None
            nulls["device_e2e_s"] = self.run.clock.no_events_reason or "no device events"
        if fields["folder"]["rss_reason"]:
            nulls["folder.rss_slope_bytes_per_picture"] = fields["folder"].pop("rss_reason")
        if fields["e2e_s"]:
            fields["compile_s"] = warm.times_s[0] - fields["folder"]["median_s"]
        report.set(**fields, steps_requested=self.steps_requested())
        report.null(nulls)
        invalid, doubts = faults.of_pictures([], warm.not_finite, warm.digests)
        report.warn(*warnings, *doubts)
        if outcome == "ok" and invalid:
            return Measured("invalid", invalid[:1])
        return Measured(outcome, [reason] if reason else [])

    def _process(self, machine: Mapping[str, Any], instruments: Instruments | None) -> None:
        """Process every image that has no row yet; rows of another machine are not continued."""
        done = self._begin(machine)
        for each in self.mine():
            if each["picture"] not in done:
                self._write(self._row(each, instruments))

    # ----------------------------------------------------------------- one picture

    def _row(self, each: folder.Drawn, instruments: Instruments | None) -> dict[str, Any]:
        """Process one picture; whatever happens to it is its row."""
        started = self.run.clock.now()
        row: dict[str, Any] = {**each, "outcome": "failed", "reason": None, "sha256": None}
        try:
            row["sha256"] = _sha256(folder.path_of(self._place, each["picture"]))
            given, own, inner = self._prepared(each)
            row |= {"width": own[0], "height": own[1]}
            row |= {"in_width": given.width, "in_height": given.height}
            if instruments is None:
                raise SourceError("this picture could not be read before, and now it can.")
            inputs = self._inputs(each, given)
            before = dynamo.read_counts()
            sample = instruments.measure(inputs.call_kwargs(on_step=instruments.on_step))
            compiled = dynamo.read_counts() - before
            row |= _figures(sample)
            if compiled.graphs or compiled.attempts:
                row["compiled"] = max(compiled.graphs, compiled.attempts)
            row |= self._saved(each, pictures.of_output(sample.output)[0], own, inner)
            # A shape that ran eager once stays so, also where what it ran is replayed.
            eager = self._eager.get(given.size) or instruments.eager(sample)
            if eager and row["outcome"] == "ok":
                self._eager[given.size] = eager
                row |= {"outcome": "fallback", "reason": eager}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - all of them are outcomes
            row["outcome"], reason = failure.outcome_and_reason(error, "processing it")
            file = folder.path_of(self._place, each["picture"])
            row["reason"] = reason.replace(f"input picture {file}", "it")
            if not isinstance(error, SourceError):
                failure.log(error)
            # The traceback holds what the call had allocated, which the next picture may need.
            error.__traceback__ = error.__cause__ = error.__context__ = None
            memory.give_back(self.run.device)
        row["wall_s"] = self.run.clock.now() - started
        row["rss_bytes"] = memory.resident_bytes()
        return row

    def _prepared(self, each: folder.Drawn) -> tuple[Any, Size, Size | None]:
        """Return what the pipeline gets, the picture's own size, and its size within padding."""
        from PIL import Image

        multiple = inputs.size_multiple(self.pipeline)
        picture = inputs.open_picture(folder.path_of(self._place, each["picture"]), MOST_PIXELS)
        box = (self.workload["width"], self.workload["height"])
        enlarge = self.workload.get("enlarge", False)
        own: Size = picture.size
        if self.workload.get("resize") != "pad":
            size = fitted(own, box, multiple, enlarge)
            return picture.resize(size, Image.Resampling.LANCZOS), own, None
        inner = fitted(own, box, 1, enlarge)
        return padded(picture.resize(inner, Image.Resampling.LANCZOS), box), own, inner

    def _inputs(self, each: folder.Drawn, given: Any) -> Any:
        workload = {
            **self.workload,
            "prompt": each["prompt"],
            "seed": each["seed"],
            "width": given.width,
            "height": given.height,
        }
        return inputs.prepare(self.pipeline, workload, self.run.device, [given])

    def _saved(
        self, each: folder.Drawn, made: Any, own: Size, inner: Size | None
    ) -> dict[str, Any]:
        """Bring a result back to the picture's own size, save it, and say how it is."""
        from PIL import Image

        defect = pictures.defect(made)
        if inner is not None:
            left, top = (made.width - inner[0]) // 2, (made.height - inner[1]) // 2
            made = made.crop((left, top, left + inner[0], top + inner[1]))
        result = made.resize(own, Image.Resampling.LANCZOS)
        path = self._folder / folder.result_name(each["picture"])
        pictures.write(result, path)
        return {
            "outcome": "invalid" if defect else "ok",
            "reason": f"the result is {defect}" if defect else None,
            "output": pictures.relative(path, self._root),
            "output_sha256": pictures.digest(result),
        }

    # -------------------------------------------------------------------- the rows

    def _begin(self, machine: Mapping[str, Any]) -> set[str]:
        """Open the file of rows; return the pictures that an interrupted process has done."""
        said = json.dumps(machine, sort_keys=True, default=str)
        mark = {
            "cell_id": self._cell_id,
            "machine": hashlib.sha256(said.encode()).hexdigest()[:16],
        }
        done: set[str] = set()
        if not self._rows.is_symlink() and folder.header(self._rows) == mark:
            _cut_torn_line(self._rows)
            done = {row["picture"] for row in folder.read_rows(self._rows)}
        else:
            files.write(self._rows, json.dumps(mark) + "\n")
        self._carried = len(done)
        self._stream = self._rows.open("a", encoding="utf-8")
        self._redactor = Redactor(os.environ)
        return done

    def _write(self, row: Mapping[str, Any]) -> None:
        """Append a row at once, so that a process that dies loses one picture."""
        row = {**row, "process": os.getpid()}
        self._stream.write(json.dumps(self._redactor.value(row), default=str) + "\n")
        self._stream.flush()

    def summary(self) -> tuple[dict[str, Any], Outcome, str | None, list[str]]:
        """Return fields of the record, how the pictures as a whole went, why, and warnings."""
        counts: dict[str, int] = {}
        times, wall_s = array("d"), 0.0
        rss = array("q")
        compiled = 0
        first_bad: str | None = None
        for row in folder.read_rows(self._rows):
            counts[row["outcome"]] = counts.get(row["outcome"], 0) + 1
            wall_s += row["wall_s"]
            if row["rss_bytes"] is not None:
                rss.append(row["rss_bytes"])
            compiled += "compiled" in row
            if _is_steady(row):
                times.append(row["e2e_s"])
            elif row["outcome"] != "ok" and first_bad is None:
                first_bad = f"{row['picture']}: {row['reason']}"
        total, ok = sum(counts.values()), counts.get("ok", 0)
        step = max(1, math.ceil(len(times) / MOST_KEPT))
        fields = self._kept(step)
        fields["folder"] = {
            "rows": pictures.relative(self._rows, self._root),
            "pictures": total,
            "ok": ok,
            "failed": total - ok,
            "outcomes": counts,
            "compiled": compiled,
            "carried": self._carried,
            "kept_every": step,
            "median_s": statistics.median(times) if times else None,
            "median_interval_s": median_interval(times),
            "wall_s": wall_s,
            "images_per_s": ok / wall_s if wall_s > 0 else None,
            **drift(rss),
        }
        warnings = []
        if ok < total:
            warnings.append(f"{total - ok} of {total} pictures failed; the first: {first_bad}")
        if compiled:
            warnings.append(
                f"torch compiled during {compiled} of {total} calls, whose times stand in their "
                "rows only; resize: pad gives all pictures one shape"
            )
        if ok and times:
            return fields, "ok", None, warnings
        if ok:
            return fields, "invalid", "torch compiled during every call", warnings
        worst: Any = max(counts, key=lambda each: counts[each])
        reason = f"no picture of the folder could be processed; the first: {first_bad}"
        return fields, worst, reason, []

    def _kept(self, step: int) -> dict[str, Any]:
        """Return the fields of the record that every ``step``-th steady call fills."""
        fields: dict[str, Any] = {
            name: [] for name in ("e2e_s", "step_s", "it_per_s", "steps_per_s_e2e", "stages")
        }
        images: list[ImageEntry] = []
        place = 0
        for row in folder.read_rows(self._rows):
            if row["outcome"] == "ok" and len(images) < SHOWN_PICTURES:
                images.append(_image(row))
            if not _is_steady(row):
                continue
            if place % step == 0:
                for name in ("e2e_s", "step_s", "it_per_s", "stages"):
                    fields[name].append(row[name])
                fields["steps_per_s_e2e"].append(self.workload["steps"] / row["e2e_s"])
                if row["device_e2e_s"] is not None:
                    fields.setdefault("device_e2e_s", []).append(row["device_e2e_s"])
            if place == 0:
                for name in ("steps_effective", "denoiser_calls", "denoiser_batch"):
                    fields[name] = row[name]
            place += 1
        return {**fields, "images": images, "stop_reason": "pictures"}


def fitted(own: Size, box: Size, multiple: int, enlarge: bool) -> Size:
    """Return the size at which a picture is processed: within ``box``, its aspect kept.

    It is the largest of the picture's aspect that fits, not larger than the picture unless
    ``enlarge``. Each side is then rounded to the nearest multiple that exceeds neither, which
    changes the aspect by less than one multiple a side; the way back undoes it.
    """
    scale = min(box[0] / own[0], box[1] / own[1])
    if not enlarge:
        scale = min(scale, 1.0)
    sides = []
    for side, most in zip(own, box, strict=True):
        wanted = side * scale
        limit = most if enlarge else min(most, side)
        if 2 * wanted < multiple or limit < multiple:
            raise SourceError(
                f"at {own[0]}x{own[1]} the picture is too "
                + ("small" if scale >= 1 else "narrow")
                + f" for a pipeline that takes multiples of {multiple} pixels"
                + ("" if enlarge or scale < 1 else "; enlarge: true lets it be enlarged")
            )
        nearest = max(multiple, math.floor(wanted / multiple + 0.5) * multiple)
        sides.append(min(nearest, limit - limit % multiple))
    return sides[0], sides[1]


def padded(picture: Any, box: Size) -> Any:
    """Put an RGB picture in the middle of a larger one whose border repeats its edge pixels."""
    import numpy as np
    from PIL import Image

    across, down = box[0] - picture.width, box[1] - picture.height
    sides = ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
    return Image.fromarray(np.pad(np.asarray(picture), sides, mode="edge"))


def drift(rss: array[int]) -> dict[str, Any]:
    """Return how resident memory went over the pictures, in bytes.

    The slope is the least-squares line through the means of 20 blocks of pictures, its interval
    the usual one of that line (95 %, Student's t with 18 degrees of freedom).
    """
    found: dict[str, Any] = {
        "rss_start_bytes": rss[0] if rss else None,
        "rss_end_bytes": rss[-1] if rss else None,
        "rss_slope_bytes_per_picture": None,
        "rss_slope_interval": None,
        "rss_reason": None,
    }
    if not rss:
        found["rss_reason"] = "this system does not tell a process's resident memory"
        return found
    if len(rss) < 2 * BLOCKS:
        found["rss_reason"] = f"a slope needs {2 * BLOCKS} pictures, and these are {len(rss)}"
        return found
    edges = [len(rss) * at // BLOCKS for at in range(BLOCKS + 1)]
    xs = [(low + high - 1) / 2 for low, high in itertools.pairwise(edges)]
    ys = [statistics.fmean(rss[low:high]) for low, high in itertools.pairwise(edges)]
    middle, level = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - middle) ** 2 for x in xs)
    slope = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - level - slope * (x - middle)) ** 2 for x, y in zip(xs, ys, strict=True))
    half = _T_95 * math.sqrt(rest / (BLOCKS - 2) / spread)
    found["rss_slope_bytes_per_picture"] = slope
    found["rss_slope_interval"] = [slope - half, slope + half]
    return found


def _figures(sample: Sample) -> dict[str, Any]:
    return {
        "e2e_s": sample.e2e_s,
        "device_e2e_s": sample.device_e2e_s,
        "step_s": sample.step_s,
        "it_per_s": sample.it_per_s,
        "stages": sample.stages,
        "steps_effective": sample.steps_effective,
        "denoiser_calls": sample.denoiser_calls,
        "denoiser_batch": max(sample.denoiser_batches, default=None),
    }


def _is_steady(row: Mapping[str, Any]) -> bool:
    return row["outcome"] == "ok" and "compiled" not in row


def _image(row: Mapping[str, Any]) -> ImageEntry:
    return {
        "path": row["output"],
        "seed": row["seed"],
        "index": row["index"],
        "width": row["width"],
        "height": row["height"],
        "sha256": row["output_sha256"],
    }


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _cut_torn_line(file: Path) -> None:
    """Remove what a process that died has left of a line."""
    with file.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end > 0:
            stream.seek(end - 1)
            if stream.read(1) == b"\n":
                break
            end -= 1
        stream.truncate(end)


TASK = Folder
