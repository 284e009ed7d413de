"""Committed runs to ``REPORT.md`` and the page on techniques: nothing in them is written by hand.

    python -m reports.publish                    write both pages from reports/results
    python -m reports.publish pack RUN MACHINE   put a run there, or --into another folder

``reports/results/<machine>/<run>/`` holds what a run measured. Text says what a figure means; every
figure comes from a record, and what no record holds is named as missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from bench import audit, text
from bench.records import Record
from bench.records.arms import Source, group
from bench.store import RunFolder, StoreError
from bench.store.load import load
from reports import analyse, build, fidelity, markdown, reference, techniques
from reports.answers import Answer
from reports.tables import Column, table
from reports.view import View

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("reports", "results")
REPORT = Path("REPORT.md")
PAGE = Path("docs", "making-sdxl-fast.md")
LOOKED_UP = (
    "Flags of single processes", "Which verdict to trust", "Machine and software", "Records",
    "Warnings", "Audit of these records", "Runs",
)  # fmt: skip
"""Parts of a machine's report that are shown folded: each table by its title."""
PICTURE_BYTES = 4 * 2**20
"""Images of one packed run: the smallest are kept up to this; of all, the comparisons are."""

QUESTION = """\
Does a compiler make text-to-image, image-to-image and edit pipelines faster, by how much, and at
what cost in warm-up, memory and image quality, so that it is worth it? The report that this one
answers ([reports/reference](reports/reference/ORIGIN.md)) measured OneDiff once for each setting,
by hand. Here every figure has its spread, every backend is shown to be active, and every image
is compared."""

ANSWERS = """\
For each workload the fastest backend that means to keep the image and, where one was measured,
the fastest that changes it on purpose (lossy). *Faster by* is against diffusers as it is (`none`),
of the same software on the same machine, with a 95 % interval. *Break-even* counts images until
warm-up is recouped. *Trust* says whether to act on it; why is said with the results."""

METHOD = """\
Each cell of a matrix (workload × backend) runs in a process of its own, several times, interleaved
with the others. Times are medians over all measured calls with 95 % intervals over processes and
calls; a speedup is a ratio within one session on one machine. What each word means is in
[docs/measurement.md](docs/measurement.md), how to read the tables in
[docs/reading-a-report.md](docs/reading-a-report.md). How to measure the same on your machine, and
how its figures get onto this page, is in [docs/gpu-proof.md](docs/gpu-proof.md); without a GPU,
`bench run configs/cpu-techniques.yaml` measures what a CPU can show."""


@dataclass(frozen=True)
class Machine:
    """What was measured on one machine. ``folder`` is relative to the repository."""

    name: str
    folder: Path
    sources: list[Source]
    comparisons: list[analyse.Comparison]
    likenesses: list[dict[int, fidelity.Likeness]]
    view: View
    body: str

    @property
    def records(self) -> list[Record]:
        return [record for source in self.sources for record in source.records]

    @property
    def gpu(self) -> bool:
        return any(record.actual_device.startswith("cuda") for record in self.records)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Committed runs to REPORT.md.")
    verbs = parser.add_subparsers(dest="verb")
    packing = verbs.add_parser("pack", help="put a run among the committed ones")
    packing.add_argument("run", type=Path)
    packing.add_argument("machine", help="a short name, such as h200 or cpu-xeon-2core")
    packing.add_argument(
        "--into", type=Path, default=ROOT / RESULTS, help="the folder of machines (%(default)s)"
    )
    asked = parser.parse_args(arguments)
    try:
        packs = asked.verb == "pack"
        written = [pack(asked.run, asked.machine, asked.into)] if packs else publish(ROOT)
    except (StoreError, OSError) as error:
        sys.stderr.write(f"publish: {error}\n")
        return 2
    sys.stdout.writelines(f"{os.path.relpath(path, ROOT)}\n" for path in written)
    return 0


def pack(run: Path, machine: str, results: Path) -> Path:
    """Copy a run's plan, records and small images, and how all of its images compare.

    Raises:
        StoreError: no run, or a name that is no folder's.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", machine):
        raise StoreError(f"{machine!r} is no name for a machine: a-z, 0-9, '.' and '-'")
    folder = RunFolder.open(run)
    target = results / machine / folder.path.name
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("plan.json", "records.jsonl"):
        shutil.copyfile(folder.path / name, partial / name)
    kept = fidelity.Pictures(fidelity.known([folder.path]))
    for comparison in analyse.compare(group(load([run]))):
        fidelity.judge(comparison, kept)
    told = {key: asdict(figures) for key, figures in kept.figures().items()}
    (partial / fidelity.KEPT).write_text(
        json.dumps(told, indent=0, sort_keys=True) + "\n", encoding="utf-8"
    )
    left = PICTURE_BYTES
    pictures = [path for path in (folder.path / "pictures").rglob("*.png") if path.is_file()]
    for path in sorted(pictures, key=lambda each: (each.stat().st_size, each)):
        left -= path.stat().st_size
        if left < 0:
            break
        copy = partial / path.relative_to(folder.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    return target


def publish(root: Path) -> list[Path]:
    """Write ``REPORT.md`` and the page on techniques; return what was written.

    Raises:
        StoreError: a committed run cannot be read, or there is none.
    """
    machines = [
        _machine(folder, root)
        for folder in sorted((root / RESULTS).iterdir() if (root / RESULTS).is_dir() else ())
        if folder.is_dir()
    ]
    if not machines:
        raise StoreError(f"there is no run in {RESULTS}; put one there with pack")
    machines.sort(key=lambda machine: not machine.gpu)
    pages = {
        root / REPORT: report(machines),
        root / PAGE: techniques.page([(m.name, m.comparisons, m.likenesses) for m in machines]),
    }
    for path, content in pages.items():
        path.write_text(content, encoding="utf-8")
    return list(pages)


def _machine(folder: Path, root: Path) -> Machine:
    runs = [path for path in sorted(folder.iterdir()) if RunFolder.holds_run(path)]
    sources = load(runs)
    comparisons = analyse.compare(group(sources))
    pictures = fidelity.Pictures(fidelity.known(runs))
    likenesses = [fidelity.judge(comparison, pictures) for comparison in comparisons]
    shown = folder / "figures"
    with tempfile.TemporaryDirectory() as made:
        written = build.write(runs, Path(made), references=reference.names())
        body = written.markdown.read_text(encoding="utf-8")
        shutil.rmtree(shown, ignore_errors=True)
        shown.mkdir()
        for path in (*Path(made).glob("plots/*.svg"), *Path(made).glob("gallery/*.png")):
            copy = shown / path.parent.name / path.name
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
    where = shown.relative_to(root)
    for kind in ("plots", "gallery"):
        body = body.replace(f"]({kind}/", f"]({where.as_posix()}/{kind}/")
    return Machine(
        folder.name, folder.relative_to(root), sources, comparisons, likenesses, written.view, body
    )


def report(machines: Sequence[Machine]) -> str:
    """Return the whole of ``REPORT.md``."""
    parts = [
        "<!-- Written by `make report-results` from reports/results. Change records, not this. -->",
        "# What compilers do for diffusion pipelines",
        "## Question",
        QUESTION,
        "## Answers",
        _missing(machines),
        ANSWERS,
        *(_answers(machine) for machine in machines),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(machines)),
        "## Method",
        METHOD,
        "## Environment",
        _environment(machines),
    ]
    for machine in machines:
        where = machine.folder.as_posix()
        parts.append(f"## Results on {machine.name}")
        parts.append(
            f"Everything that was measured on this machine, drawn and in tables, from the records "
            f"in [{where}]({where})."
        )
        parts.append(_demoted(machine.body))
    parts += ["## Published figures", _published()]
    return "\n\n".join(part for part in parts if part) + "\n"


ANSWER = (
    Column("workload", lambda answer: _named(answer)),
    Column("backend", "backend"),
    Column("faster by", lambda answer: f"{answer.speedup} ({answer.interval}), {answer.word}"),
    Column("one call", "times"),
    Column("warm-up", lambda answer: "; ".join(answer.warmup)),
    Column("break-even", lambda answer: "; ".join(answer.breakeven)),
    Column("memory", lambda answer: "; ".join(answer.memory)),
    Column("images", "pictures"),
    Column("trust", "trust"),
)


def _answers(machine: Machine) -> str:
    """Return a line for each workload and pick; see `ANSWER`."""
    picks = [pick for workload in machine.view.workloads for pick in workload.picks]
    alone = [
        f"{workload.answer.title} ({workload.answer.headline})"
        for workload in machine.view.workloads
        if not workload.picks
    ]
    note = f"Without an answer: {'; '.join(alone)}." if alone else ""
    shown = table(f"On {machine.name}", ANSWER, picks, note)
    return markdown.table(shown, "###") if shown else f"### On {machine.name}\n\n{note}"


def _named(answer: Answer) -> str:
    """Return the workload's name, and of its facts those that the name does not hold."""
    named = answer.title.split(" · ")
    return f"{answer.title}: {' · '.join(x for x in answer.facts.split(' · ') if x not in named)}"


class _Place(NamedTuple):
    """Machine and software, and the day on which each backend's run there began."""

    machine: str
    fingerprint: Mapping[str, Any]
    begun: dict[str, str]

    @property
    def gpu(self) -> Mapping[str, Any]:
        return self.fingerprint.get("gpu") or {}

    def package(self, name: str) -> str:
        return str((self.fingerprint.get("packages") or {}).get(name))


def _device(place: _Place) -> str:
    cores = place.fingerprint.get("cpu_cores_usable")
    processor = str(place.fingerprint.get("cpu")) + (f", {cores} cores" if cores else "")
    return str(place.gpu.get("name") or processor)


def _memory(place: _Place) -> str:
    gpu = place.gpu
    return text.gib(gpu.get("memory_bytes") if gpu else place.fingerprint.get("ram_bytes"))


def _driver(place: _Place) -> str:
    both = (place.gpu.get("driver"), place.fingerprint.get("cuda"))
    return ", ".join(str(each) for each in both if each is not None) or text.DASH


SURROUNDINGS = (
    Column("machine", "machine"),
    Column("device", _device),
    Column("memory [GiB]", _memory),
    Column("driver, CUDA", _driver),
    Column("Python", lambda place: place.fingerprint.get("python")),
    Column("torch", lambda place: place.package("torch")),
    Column("diffusers", lambda place: place.package("diffusers")),
)
ENVIRONMENT = (
    *SURROUNDINGS,
    Column("backends", lambda place: ", ".join(place.begun)),
    Column(
        "begun",
        lambda place: " to ".join(sorted({min(place.begun.values()), max(place.begun.values())})),
    ),
)


def _environment(machines: Sequence[Machine]) -> str:
    """A line for each machine and software; all fields stand with the machine's results."""
    found: dict[tuple[str, ...], _Place] = {}
    for machine in machines:
        for source in machine.sources:
            for record in source.records:
                if record.fingerprint:
                    place = _Place(machine.name, record.fingerprint, {})
                    key = tuple(column.cell(place).text for column in SURROUNDINGS)
                    begun = found.setdefault(key, place).begun
                    begun[record.cell.backend.name] = source.created_utc[:10]
    note = 'All fields are in the tables "Machine and software" below.'
    shown = table("Machines and software", ENVIRONMENT, found.values(), note)
    return markdown.table(shown, "###") if shown else ""


def _missing(machines: Sequence[Machine]) -> str:
    if any(machine.gpu for machine in machines):
        return ""
    return (
        "**No record of a GPU is here yet.** What a compiler does for SDXL at 1024 pixels is not "
        "answered below: those records wait for a machine that runs `scripts/gpu_proof.sh` "
        "([how](docs/gpu-proof.md); `bench run configs/gpu-sdxl.yaml --dry-run --all` lists each "
        "of them). Nothing is estimated in their place."
    )


def _limits(machines: Sequence[Machine]) -> list[str]:
    said = []
    if any(record.synthetic for machine in machines for record in machine.records):
        said.append(
            "Synthetic weights: where a table says so, the architecture is the published one and "
            "the numbers in it are random. Time and memory are true, images are noise, and how a "
            "lossy backend changes a real image is not shown by them."
        )
    if not all(machine.gpu for machine in machines):
        said.append(
            "A CPU is bound by other things than a GPU: no CUDA graphs, no Triton kernels, other "
            "convolutions. Its ratios say nothing about a GPU's. The embedded models are small; "
            "the fixed cost of a call weighs more than in SDXL."
        )
    records = [record for machine in machines for record in machine.records]
    planned = {record.cell_id: record.cell.protocol.rounds for record in records}
    measured = Counter(record.cell_id for record in records)
    short = sum(measured[cell] < rounds for cell, rounds in planned.items())
    if short:
        said.append(
            f"{short} of {len(planned)} cells have fewer processes than were planned: their spread "
            "is known less well, and verdicts are the more careful for it."
        )
    said.append(
        "One machine of a kind says nothing about the spread between machines. Figures of "
        "different machines stand side by side and are in no ratio."
    )
    said.append("Published figures were measured by others, on machines that they do not name.")
    return said


class _Printed(NamedTuple):
    """A published row, its line, and the numbers of what the audit finds wrong with it."""

    line: int
    row: reference.Published
    wrong: list[int]


def _origin(printed: _Printed) -> str:
    row = printed.row
    origin = "published" if row.origin == "published" else "published later"
    return f"{origin}, {row.session or row.backend}"


def _given(value: float | None) -> str:
    return text.DASH if value is None else f"{value:g}"


PUBLISHED = (
    Column("line", "line"),
    Column("origin", _origin),
    Column("model", "row.model"),
    Column("task", "row.task"),
    Column("size", lambda printed: f"{printed.row.width}×{printed.row.height}"),
    Column("backend", "row.backend"),
    Column("steps claimed", "row.steps", _given),
    Column("warm-up [s]", "row.warmup_s", _given),
    Column("one call [s]", "row.e2e_s", _given),
    Column("it/s", "row.it_per_s", _given),
    Column("memory [GiB]", "row.memory_gib", _given),
    Column("meter", lambda printed: printed.row.meter.replace("_", " ")),
    Column("wrong", lambda printed: ", ".join(map(str, printed.wrong)) or text.DASH),
)

PUBLISHED_NOTE = (
    "As printed: one run each, on GPUs that their authors do not name. To be read beside rows of "
    "the same size on a GPU; nothing is computed with them. Memory of different meters cannot be "
    "compared. The last column has the numbers of what bench audit finds wrong with a row, listed "
    "below the table."
)


def _published() -> str:
    """The rows of the report that this one answers, marked as what they are, and what is wrong."""
    parts = []
    for name in reference.names():
        (audited,) = audit.audit([Path(str(files(reference.__name__))) / f"{name}.csv"])
        findings = list(enumerate(audited.findings, 1))
        rows = [
            _Printed(line, row, [number for number, found in findings if place in found.rows])
            for place, (line, row) in enumerate(
                zip(audited.table.lines, reference.load(name), strict=True)
            )
        ]
        shown = table("Published by others, not measured here", PUBLISHED, rows, PUBLISHED_NOTE)
        if shown:
            parts.append(markdown.table(shown, "###"))
        lines = (f"{n}. {each.sure}: {each.says} ({each.arithmetic})" for n, each in findings)
        parts.append("\n".join(" ".join(line.split()) for line in lines))
    return "\n\n".join(parts)


def _demoted(body: str) -> str:
    """Put a report's headings below its machine's, and fold up what is looked up, not read."""
    titled = re.sub(r"\A# .*", "# Workload by workload", body)
    demoted = re.sub(r"^(#+) ", lambda found: f"{found[1]}## ", titled, flags=re.MULTILINE)
    parts = re.split(r"^(?=#{3,} )", demoted, flags=re.MULTILINE)
    return "".join(_folded(part) for part in parts)


def _folded(part: str) -> str:
    heading = re.match(r"#+ (.*)\n+", part)
    if heading is None or not heading[1].startswith(LOOKED_UP):
        return part
    rest = part[heading.end() :].rstrip("\n")
    return f"<details><summary>{heading[1]}</summary>\n\n{rest}\n\n</details>\n\n"


if __name__ == "__main__":
    raise SystemExit(main())
