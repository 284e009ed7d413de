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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench import audit, text
from bench.store import RunFolder, StoreError
from reports import analyse, build, fidelity, gather, markdown, reference, techniques
from reports.gather import Sample
from reports.view import Answer, Cell, Table, View

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
"""Pictures of one packed run: the smallest are kept up to this; of all, the comparisons are."""

QUESTION = """\
Does a compiler make text-to-image, image-to-image and edit pipelines faster, by how much, and at
what cost in warm-up, memory and picture quality, so that it is worth it? The report that this one
answers ([reports/reference](reports/reference/ORIGIN.md)) measured OneDiff once for each setting,
by hand. Here every figure has its spread, every backend is shown to be active, and every picture
is compared."""

ANSWERS = """\
For each workload the fastest backend that means to keep the picture and, where one was measured,
the fastest that changes it on purpose (lossy). *Faster by* is against diffusers as it is (`none`),
of the same software on the same machine, with a 95 % interval. *Worth it* counts pictures until
warm-up is paid back. *Trust* says whether to act on it; why is said with the results."""

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
    samples: list[Sample]
    comparisons: list[analyse.Comparison]
    likenesses: list[dict[int, fidelity.Likeness]]
    view: View
    body: str

    @property
    def gpu(self) -> bool:
        return any(sample.device.startswith("cuda") for sample in self.samples)


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
    """Copy a run's plan, records and small pictures, and how all of its pictures compare.

    Raises:
        StoreError: no run, or a name that is no folder's.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", machine):
        raise gather.ReportError(f"{machine!r} is no name for a machine: a-z, 0-9, '.' and '-'")
    folder = RunFolder.open(run)
    target = results / machine / folder.path.name
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("plan.json", "records.jsonl"):
        shutil.copyfile(folder.path / name, partial / name)
    kept = fidelity.Pictures(fidelity.known([folder.path]))
    for comparison in analyse.compare(gather.group(gather.read([run]))):
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
        raise gather.ReportError(f"there is no run in {RESULTS}; put one there with pack")
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
    samples = gather.read(runs)
    comparisons = analyse.compare(gather.group(samples))
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
        folder.name, folder.relative_to(root), samples, comparisons, likenesses, written.view, body
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


def _answers(machine: Machine) -> str:
    """A line for each workload and pick: faster by how much, worth it when, memory, pictures."""
    head = [
        "workload", "backend", "faster by", "one call", "warm-up", "worth it", "memory",
        "pictures", "trust",
    ]  # fmt: skip
    rows = []
    alone = []
    for workload in machine.view.workloads:
        if not workload.picks:
            alone.append(f"{workload.answer.title} ({workload.answer.headline})")
        rows += [
            [
                Cell(_told(said)),
                Cell(said.backend),
                Cell(f"{said.speedup} ({said.interval}), {said.word}"),
                Cell(said.times),
                Cell("; ".join(said.warmup)),
                Cell("; ".join(said.pays)),
                Cell("; ".join(said.memory)),
                Cell(said.pictures),
                Cell(said.trust),
            ]
            for said in workload.picks
        ]
    note = f"Without an answer: {'; '.join(alone)}." if alone else ""
    return markdown.table(Table(f"On {machine.name}", head, rows, note), "###")


def _told(said: Answer) -> str:
    """The workload's name, and of its facts those that the name does not say."""
    named = said.title.split(" · ")
    return f"{said.title}: {' · '.join(x for x in said.facts.split(' · ') if x not in named)}"


def _environment(machines: Sequence[Machine]) -> str:
    """A line for each machine and software; all fields stand with the machine's results."""
    head = [
        "machine", "device", "memory [GiB]", "driver, CUDA", "Python", "torch", "diffusers",
        "backends", "begun",
    ]  # fmt: skip
    rows = []
    for machine in machines:
        found: dict[tuple[str, ...], dict[str, str]] = {}
        for sample in machine.samples:
            print_ = sample.alike.fingerprint
            if print_:
                told = _surroundings(print_)
                found.setdefault(told, {})[sample.backend] = sample.source.created_utc[:10]
        rows += [
            [
                *(Cell(each) for each in (machine.name, *told)),
                Cell(", ".join(begun)),
                Cell(" to ".join(sorted({min(begun.values()), max(begun.values())}))),
            ]
            for told, begun in found.items()
        ]
    note = 'All fields are in the tables "Machine and software" below.'
    return markdown.table(Table("Machines and software", head, rows, note), "###")


def _surroundings(fingerprint: Mapping[str, Any]) -> tuple[str, ...]:
    gpu = fingerprint.get("gpu") or {}
    packages = fingerprint.get("packages") or {}
    memory = gpu.get("memory_bytes") if gpu else fingerprint.get("ram_bytes")
    cores = fingerprint.get("cpu_cores_usable")
    processor = str(fingerprint.get("cpu")) + (f", {cores} cores" if cores else "")
    driver = ", ".join(
        str(each) for each in (gpu.get("driver"), fingerprint.get("cuda")) if each is not None
    )
    return (
        str(gpu.get("name") or processor),
        text.gib(memory),
        driver or text.DASH,
        str(fingerprint.get("python")),
        str(packages.get("torch")),
        str(packages.get("diffusers")),
    )


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
    if any(sample.synthetic for machine in machines for sample in machine.samples):
        said.append(
            "Synthetic weights: where a table says so, the architecture is the published one and "
            "the numbers in it are random. Time and memory are true, pictures are noise, and how a "
            "lossy backend changes a real picture is not shown by them."
        )
    if not all(machine.gpu for machine in machines):
        said.append(
            "A CPU is bound by other things than a GPU: no CUDA graphs, no Triton kernels, other "
            "convolutions. Its ratios say nothing about a GPU's. The embedded models are small; "
            "the fixed cost of a call weighs more than in SDXL."
        )
    planned = {s.cell_id: s.rounds_planned for m in machines for s in m.samples}
    measured: dict[str, int] = {}
    for machine in machines:
        for sample in machine.samples:
            measured[sample.cell_id] = measured.get(sample.cell_id, 0) + 1
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


def _published() -> str:
    """The rows of the report that this one answers, marked as what they are, and what is wrong."""
    parts = []
    for name in reference.names():
        path = Path(str(files(reference.__name__))) / f"{name}.csv"
        (audited,) = audit.audit([path])
        rows = []
        for place, row in enumerate(reference.load(name)):
            origin = "published" if row.origin == "published" else "published later"
            wrong = [n for n, found in enumerate(audited.findings, 1) if place in found.rows]
            figures = (row.steps, row.warmup_s, row.e2e_s, row.it_per_s, row.memory_gib)
            rows.append(
                [
                    Cell(str(audited.table.lines[place])),
                    Cell(f"{origin}, {row.session or row.backend}"),
                    Cell(row.model),
                    Cell(row.task),
                    Cell(f"{row.width}×{row.height}"),
                    Cell(row.backend),
                    *(
                        Cell("–" if value is None else f"{value:g}", value, "number")
                        for value in figures
                    ),
                    Cell(row.meter.replace("_", " ")),
                    Cell(", ".join(map(str, wrong)) or "–"),
                ]
            )
        head = [
            "line", "origin", "model", "task", "size", "backend", "steps claimed", "warm-up [s]",
            "one call [s]", "it/s", "memory [GiB]", "meter", "wrong",
        ]  # fmt: skip
        note = (
            "As printed: one run each, on GPUs that their authors do not name. To be read beside "
            "rows of the same size on a GPU; nothing is computed with them. Memory of different "
            "meters cannot be compared. The last column has the numbers of what bench audit finds "
            "wrong with a "
            "row, listed below the table."
        )
        parts.append(
            markdown.table(Table("Published by others, not measured here", head, rows, note), "###")
        )
        told = [
            f"{number}. {found.sure}: {found.says} ({found.arithmetic})"
            for number, found in enumerate(audited.findings, 1)
        ]
        parts.append("\n".join(" ".join(line.split()) for line in told))
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
