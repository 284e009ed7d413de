"""What this machine can measure and what not, each with the remedy.

The parent looks at files, the environment and the metadata of packages. What only torch knows
comes from a short-lived process, `bench.worker.facts`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from bench import environments
from bench.runner.devices import Machine
from bench.text import GIB
from bench.worker.fingerprint import cpu_model

Status = Literal["ok", "limited", "missing"]

FACTS_TIMEOUT_S = 300
LOW_DISK_BYTES = 20 * GIB
"""Less than this does not hold SDXL from the Hub (7 GB in fp16) with compile caches beside it."""

NEEDED = {
    "torch": (2, 0),
    "diffusers": (0, 29),
    "transformers": (4, 41),
    "accelerate": (0, 30),
    "safetensors": (0, 4),
    "pillow": (10, 0),
}
"""Packages of a worker, with the first version that is known to work."""

WORKER_REMEDY = 'pip install "diffusion-compiler-bench[worker]", with the torch for your driver'


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: short name, unique.
        status: ``ok``; ``limited`` if some figures or cells are not to be had or are noisier;
            ``missing`` if nothing can be measured without it.
        says: what was found, in a sentence.
        remedy: what to do, or None if nothing needs doing or nothing can be done.
    """

    topic: str
    status: Status
    says: str
    remedy: str | None = None


def _check(
    topic: str, good: object, says: str, otherwise: str | None = None, remedy: str | None = None
) -> Finding:
    """Return a finding that is ok if ``good``, else limited, with another sentence and a remedy."""
    return (
        Finding(topic, "ok", says) if good else Finding(topic, "limited", otherwise or says, remedy)
    )


def installed_version(name: str) -> str | None:
    """Return the version of a package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def why_not_ready(environment: str) -> str | None:
    """Return why a backend's environment cannot be used, or None."""
    try:
        environments.resolve(environment)
    except environments.EnvironmentUnavailable as error:
        return str(error)
    return None


def ask_torch(devices: list[str]) -> dict[str, Any]:
    """Ask a process of its own what torch says about ``devices``.

    Raises:
        OSError: it could not be started.
        ValueError: it failed; the message is the last line that it printed.
    """
    command = [sys.executable, "-m", "bench.worker.facts", *devices]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FACTS_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"torch did not answer within {FACTS_TIMEOUT_S} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise ValueError(lines[-1] if lines else f"it ended with status {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Surroundings:
    """Where the doctor looks; tests give it a machine of their own.

    Attributes:
        root: stands for ``/``; /proc and /sys are read below it.
        environment: variables; of tokens only their presence is used.
        home: of the user.
        folder: where runs would go.
        installed: name of a package → its version, or None.
        which: name of a program → its path, or None.
        free_bytes: folder → free bytes.
        load: load average over one minute, or None.
        cores: cores that this process may use.
        facts: devices → what `bench.worker.facts` says. Raises OSError or ValueError.
        not_ready: name of an environment → why it is not ready, or None.
    """

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    home: Path = field(default_factory=Path.home)
    folder: Path = field(default_factory=Path.cwd)
    installed: Callable[[str], str | None] = installed_version
    which: Callable[[str], str | None] = shutil.which
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    load: float | None = field(default_factory=_load)
    cores: int = field(default_factory=_cores)
    facts: Callable[[list[str]], dict[str, Any]] = ask_torch
    not_ready: Callable[[str], str | None] = why_not_ready

    def text(self, path: str) -> str | None:
        """Return a small file's content, stripped, or None if it cannot be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    @property
    def hf_home(self) -> Path:
        base = Path(self.environment.get("XDG_CACHE_HOME") or self.home / ".cache")
        return Path(self.environment.get("HF_HOME") or base / "huggingface").expanduser()

    @property
    def hub_cache(self) -> Path:
        names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
        given = next(filter(None, map(self.environment.get, names)), None)
        return Path(given).expanduser() if given else self.hf_home / "hub"


def examine(around: Surroundings | None = None, machine: Machine | None = None) -> list[Finding]:
    """Look at everything and return the findings, the basic ones first."""
    around = around or Surroundings()
    machine = machine or Machine(around.environment)
    findings = [*_software(around), _gpu(around, machine)]
    if all(finding.topic != "torch" or finding.status != "missing" for finding in findings):
        findings += _torch(around, machine)
    findings += [*_compiling(around, machine), _processor(around)]
    return [*findings, *_limits(around), *_noise(around), *_storage(around), _hub(around)]


def can_measure(findings: list[Finding]) -> bool:
    """Return whether a cell can run at all."""
    return all(finding.status != "missing" for finding in findings)


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as JSON values."""
    return {
        "can_measure": can_measure(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def _software(around: Surroundings) -> Iterator[Finding]:
    python = platform.python_version()
    yield Finding("python", "ok", f"Python {python}, {platform.system()} {platform.machine()}")
    for name, least in NEEDED.items():
        version = around.installed(name)
        wanted = ".".join(map(str, least))
        if version is None:
            yield Finding(name, "missing", f"{name} is not installed", WORKER_REMEDY)
            continue
        yield _check(
            name,
            _version(version) >= least,
            f"{name} {version}",
            f"{name} {version} is older than {wanted}, the first that is known to work",
            f'pip install --upgrade "{name}>={wanted}"',
        )


def _gpu(around: Surroundings, machine: Machine) -> Finding:
    if not machine.gpus:
        hidden = around.environment.get("CUDA_VISIBLE_DEVICES")
        return _check(
            "gpu",
            machine.apple,
            "Apple GPU (mps); no NVIDIA GPU",
            "no NVIDIA GPU is visible; cells run on the CPU",
            "install the NVIDIA driver, or use the CPU"
            if hidden is None
            else f"CUDA_VISIBLE_DEVICES is {hidden!r} and may hide it",
        )
    names = ", ".join(
        f"cuda:{index} {gpu.name}"
        + (f" {gpu.memory_bytes / GIB:.0f} GiB" if gpu.memory_bytes else "")
        for index, gpu in enumerate(machine.gpus)
    )
    driver = machine.gpus[0].driver
    return _check(
        "gpu",
        machine.torch_cuda or around.installed("torch") is None,
        names + (f", driver {driver}" if driver else ""),
        f"{names}; but the installed torch is built without CUDA, so cells run on the CPU",
        "install a CUDA build of torch that fits the driver",
    )


def _torch(around: Surroundings, machine: Machine) -> Iterator[Finding]:
    gpus = [f"cuda:{index}" for index in range(len(machine.gpus))] if machine.cuda_ready else []
    try:
        facts = around.facts(["cpu", *gpus, *(["mps"] if machine.apple else [])])
    except (OSError, ValueError) as error:
        yield Finding("torch loads", "missing", f"torch does not load: {error}", WORKER_REMEDY)
        return
    build = f"CUDA {facts['cuda_build']}" if facts["cuda_build"] else "no CUDA"
    says = f"loads; built with {build}; CPU code for {facts['cpu_capability']}"
    yield _check(
        "torch loads",
        not gpus or facts["cuda_available"],
        says,
        f"{says}; but torch.cuda.is_available() is false",
        "the driver may be older than this torch needs: update it, or install an older build",
    )
    elsewhere: dict[str, str] = {}
    for device, about in facts["devices"].items():
        if "error" in about:
            yield Finding(f"memory on {device}", "limited", about["error"])
        else:
            yield _meters(device, about["meters"])
        for name, verdict in about["backends"].items():
            if "environment" in verdict:
                elsewhere[name] = verdict["environment"]
            else:
                why_not = verdict["reason"] or "its probe says no"
                yield _check(f"{name} on {device}", verdict["supported"], "supported", why_not)
    for name, environment in elsewhere.items():
        says = f"its environment {environment} is ready; bench env check {environment} tries it"
        not_ready = around.not_ready(environment)
        yield _check(name, not_ready is None, says, not_ready)


def _meters(device: str, meters: Mapping[str, str | None]) -> Finding:
    working = [name for name, reason in meters.items() if reason is None]
    others = [f"{name} is not: {reason}" for name, reason in meters.items() if reason is not None]
    says = "; ".join([f"{', '.join(working) or 'no meter'} can be read", *others])
    wanted = "torch.max_memory_allocated" if device.startswith("cuda") else "rss"
    remedy = (
        "peaks are reset through /proc/self/clear_refs, which needs Linux with a writable /proc"
    )
    found = _check(f"memory on {device}", wanted in working, says, remedy=remedy)
    return found if wanted == "rss" else replace(found, remedy=None)


def _compiling(around: Surroundings, machine: Machine) -> Iterator[Finding]:
    names = [around.environment.get("CXX"), "g++", "clang++", "c++"]
    compiler = next((path for name in names if name and (path := around.which(name))), None)
    yield _check(
        "C++ compiler",
        compiler,
        str(compiler),
        "none was found; torch.compile on the CPU needs one",
        "install g++ or clang++, or name one in CXX",
    )
    if machine.cuda_ready:
        version = around.installed("triton") or around.installed("pytorch-triton")
        yield _check(
            "triton",
            version,
            f"triton {version}",
            "not installed; torch.compile on CUDA needs it",
            "pip install triton",
        )
    if machine.gpus:
        version = around.installed("nvidia-ml-py")
        yield _check(
            "NVML",
            version,
            f"nvidia-ml-py {version}",
            "nvidia-ml-py is not installed: records lack the GPU's driver, limits and clocks",
            "pip install nvidia-ml-py",
        )


def _processor(around: Surroundings) -> Finding:
    model = cpu_model(around.root / "proc/cpuinfo") or "unknown processor"
    says = f"{model}, {around.cores} usable core(s)"
    set_by = [
        f"{name}={around.environment[name]}"
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        if name in around.environment
    ]
    if set_by:
        says += f"; {', '.join(set_by)} (a cell's own threads setting wins)"
    return Finding("processor", "ok", says)


def _limits(around: Surroundings) -> Iterator[Finding]:
    quota = (around.text("sys/fs/cgroup/cpu.max") or "").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        allowed = int(quota[0]) / int(quota[1])
        yield _check(
            "CPU quota",
            allowed >= around.cores,
            f"this container may use {allowed:g} core(s); more threads are throttled in bursts",
            remedy="keep 'threads' below the quota, or raise it",
        )
    limit = around.text("sys/fs/cgroup/memory.max")
    total = _memory_total(around)
    parts = [f"{total / GIB:.1f} GiB of memory"] if total else []
    if limit and limit.isdigit() and (not total or int(limit) < total):
        parts.append(f"{int(limit) / GIB:.1f} GiB of it for this container")
    yield Finding("memory", "ok", ", ".join(parts) or "its size is not to be seen here")


def _noise(around: Surroundings) -> Iterator[Finding]:
    if around.load is not None:
        says = f"load average {around.load:.2f} on {around.cores} core(s)"
        yield _check(
            "load",
            around.load <= max(0.5, 0.25 * around.cores),
            says,
            f"{says}; other work makes times noisy",
            "stop other work while measuring",
        )
    governor = around.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    yield _check(
        "clock governor",
        governor in (None, "performance"),
        governor or "not to be seen here, as usual in containers and virtual machines",
        f"{governor}: the clock follows the load, and times with it",
        "cpupower frequency-set --governor performance",
    )
    no_turbo = around.text("sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = around.text("sys/devices/system/cpu/cpufreq/boost")
    if no_turbo is not None or boost is not None:
        yield _check(
            "turbo",
            no_turbo != "0" and boost != "1",
            "off",
            "on: clocks depend on temperature and on neighbours",
            "for the steadiest times, turn it off in the firmware or in sysfs while measuring",
        )


def _storage(around: Surroundings) -> Iterator[Finding]:
    for topic, path in (("disk for runs", around.folder), ("disk for models", around.hub_cache)):
        exists = next(folder for folder in (path, *path.parents) if folder.exists())
        free = around.free_bytes(exists)
        yield _check(
            topic,
            free >= LOW_DISK_BYTES,
            f"{free / GIB:.0f} GiB free in {exists}",
            remedy="an SDXL model from the Hub takes about 7 GB; free some space",
        )
    yield _check(
        "workers",
        platform.system() == "Linux",
        "forked from a template that has imported torch, if that turns out to be safe: a run says "
        "so where it is not",
        "each cell starts a fresh interpreter: forking is for Linux only",
    )


def _hub(around: Surroundings) -> Finding:
    environment, cache = around.environment, around.hub_cache
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    token_file = Path(environment.get("HF_TOKEN_PATH") or around.hf_home / "token")
    token = any(environment.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    token = token or token_file.is_file()
    offline = environment.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    says = f"{models} model(s) in {cache}; token {'present' if token else 'absent'}"
    found = _check(
        "Hub",
        not offline,
        says,
        f"{says}; HF_HUB_OFFLINE is set, so hub: models come from that folder alone",
        "unset HF_HUB_OFFLINE to download models",
    )
    if not (token or offline):
        found = replace(found, remedy="gated models need a token: hf auth login")
    return found


def _memory_total(around: Surroundings) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+)", around.text("proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, two at least: ``2.4.0+cu121`` is (2, 4, 0)."""
    numbers = [int(part) for part in takewhile(str.isdigit, text.split("+")[0].split("."))]
    return tuple([*numbers, 0, 0][: max(2, len(numbers))])
