"""What scripts/gpu_proof.sh asks: is the machine ready, how far are the slices, run within a time.

    python scripts/proof_state.py ready DEVICE OUT [--small]  a line for each thing that is missing
    python scripts/proof_state.py name RUN                    a folder's name for a run's machine
    python scripts/proof_state.py slices OUT SLICE...         state, slice and counts, by tabs
    python scripts/proof_state.py within SECONDS COMMAND...   run it in time, no longer than this

``ready`` needs nothing but Python, so that it can say what else is missing. Exit: 0, or 2 where
something is missing or wrong.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

GIB = 1024**3
DISK_BYTES = {"full": 10 * GIB, "small": GIB // 4}
"""What all slices take: records, images and compile caches. ``bench run --dry-run`` says 7.3 GB
for the full ones; caches are larger where max-autotune keeps every kernel that it tried."""

USED_IF_THERE = {"torchao": "the eight-bit backends end as unsupported"}

LOADS = (
    ("torch", "Tensor"),
    ("transformers", "CLIPTextModel"),
    ("diffusers", "StableDiffusionXLPipeline"),
    ("bench.config", "make_plan"),
    ("reports.publish", "pack"),
)
"""Between them they import everything that a run and its report do."""

KILL_AFTER_S = 20
GUIDE = "docs/gpu-proof.md"


def main(arguments: Sequence[str]) -> int:
    verb, *rest = arguments
    if verb == "ready":
        device, out = rest[:2]
        size = "small" if "--small" in rest[2:] else "full"
        for name, without in USED_IF_THERE.items():
            if importlib.util.find_spec(name) is None:
                print(f"gpu_proof: without {name} {without}")
        return _told([*packages(), *disk(Path(out), DISK_BYTES[size])] or [*loads(device)])
    if verb == "within":
        return within(rest[0], rest[1:])
    if importlib.util.find_spec("orjson") is None:
        return _told([*packages()])
    if verb == "name":
        print(machine_name(Path(rest[0])))
        return 0
    for name in rest[1:]:
        state, counts = how_far(Path(rest[0]) / name)
        print(f"{state}\t{name}\t{counts}")
    return 0


def _told(missing: Sequence[str]) -> int:
    for line in missing:
        print(f"gpu_proof: {line}", file=sys.stderr)
    return 2 if missing else 0


def packages() -> Iterator[str]:
    """Say which of the packages that pyproject.toml names are absent or too old."""
    if sys.version_info < (3, 10):  # noqa: UP036 - whoever has an older one is to be told
        yield f"{sys.executable} is Python {sys.version.split()[0]}; it takes 3.10 or newer"
        return
    lacking = []
    for name, least in required():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(name)
            continue
        if _numbers(version) < _numbers(least):
            lacking.append(f"{name}>={least} (has {version})")
    if lacking:
        yield (
            f"{sys.executable} lacks {', '.join(lacking)}; install them, without a network as "
            f"{GUIDE} says, or name another Python in PYTHON"
        )


def required() -> list[tuple[str, str]]:
    """Return name and least version of what the project and its worker need on this Python."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for heading in ("dependencies", "worker"):
        block = re.search(rf"^{heading} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        assert block is not None, heading
        for name, least, marker in re.findall(
            r'^ *"([A-Za-z0-9_.-]+)>=([0-9.]+)(?:; ([^"]*))?"', block[1], re.MULTILINE
        ):
            if "python_version <" in marker and sys.version_info >= (3, 11):
                continue
            found[name] = least
    return sorted(found.items())


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"[0-9.]+", version)
    return tuple(int(part) for part in (leading[0] if leading else "0").split(".") if part)


def disk(out: Path, needed: int) -> Iterator[str]:
    """Say it where ``out`` has too little room for what is still to be measured."""
    kept = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    free = shutil.disk_usage(out).free
    if free + kept < needed:
        yield (
            f"{free / GIB:.1f} GiB are free in {out} and all slices take {needed / GIB:.3g} GiB; "
            "make room, or choose another folder with --out"
        )


def loads(device: str, load: Callable[[str], Any] = importlib.import_module) -> Iterator[str]:
    """Say what keeps the libraries or ``device`` from working."""
    from bench.runner.devices import DeviceError, Machine, Unsupported

    for name, attribute in LOADS:
        try:
            with _hushed():
                getattr(load(name), attribute)
        except Exception as error:  # noqa: BLE001 - a broken library raises anything
            first = (str(error) or type(error).__name__).splitlines()[0]
            yield f"{name} does not load in {sys.executable}: {first}"
            return
    try:
        resolved = Machine(os.environ).resolve(device)
    except DeviceError as error:
        yield f"--device {device}: {error}"
        return
    if isinstance(resolved, Unsupported):
        yield f"{resolved.reason}; without a GPU, --device cpu --small takes the same road"
    elif resolved.startswith("cuda"):
        yield from gpu_tools()


def gpu_tools() -> Iterator[str]:
    """Say what torch or Triton lacks to use the GPU."""
    import torch

    if not torch.cuda.is_available():
        yield (
            f"torch {torch.__version__} cannot use the GPU; look at nvidia-smi, and whether this "
            "torch is built for the driver"
        )
        return
    if not any(shutil.which(each) for each in (os.environ.get("CC", ""), "gcc", "clang", "cc")):
        yield (
            "there is no C compiler, which Triton builds its launchers with; install gcc, or name "
            "one in CC"
        )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        yield f"{header} is not there, which Triton's launchers include; install Python's headers"


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what libraries say while they load, compiled ones too, off the terminal."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def machine_name(run: Path) -> str:
    """Return a folder's name for where a run was measured, such as ``nvidia-h200``."""
    from bench.store import RunFolder

    folder = RunFolder.open(run)
    host = folder.host
    on_gpu = any(str(entry.device).startswith("cuda") for entry in folder.entries())
    if on_gpu and host.get("gpus"):
        name = host["gpus"][0]["name"]
    else:
        name = f"cpu {host.get('cpu') or 'unknown'} {host.get('cpus')} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def how_far(folder: Path) -> tuple[str, str]:
    """Return the state of a slice and its counts.

    ``done`` if each planned measurement has a record and one at least is ok; ``failed`` if each
    has one and none is ok, which says more of the machine than of the backends; ``broken`` if the
    folder cannot be read.
    """
    from bench.store import RunFolder, StoreError

    if not folder.exists():
        return "to do", ""
    try:
        run = RunFolder.open(folder)
    except StoreError as error:
        names = os.listdir(folder) if folder.is_dir() else [""]
        if set(names) <= {".lock", "logs", "pictures", "cache"}:
            return "to do", ""
        return "broken", str(error)
    planned = run.current_keys()
    outcomes = Counter(entry.outcome for entry in run.entries())
    counts = f"{outcomes.total()} of {len(planned)}"
    others = [
        f"{count} {outcome}" for outcome, count in sorted(outcomes.items()) if outcome != "ok"
    ]
    if others:
        counts += f", of them {', '.join(others)}"
    if outcomes.total() < len(planned) or not planned:
        return "begun", counts
    return ("done" if outcomes["ok"] else "failed"), counts


def within(seconds: str, command: Sequence[str]) -> int:
    """Become ``timeout``, which interrupts the command in time, and when its caller dies."""
    caller = os.getppid()
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGINT, 0, 0, 0)
    if os.getppid() != caller:
        return 130
    limits = ["--foreground", "--signal=INT", f"--kill-after={KILL_AFTER_S}"]
    return os.execvp("timeout", ["timeout", *limits, seconds, *command])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
