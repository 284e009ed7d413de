"""Which device a cell runs on, found out without torch and without touching a GPU."""

from __future__ import annotations

import csv
import importlib.util
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import nvml


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU. ``memory_bytes`` and ``driver`` are None where the source does not say."""

    name: str
    uuid: str
    memory_bytes: int | None
    driver: str | None


@dataclass(frozen=True)
class Unsupported:
    """The device asked for is not there; ``reason`` is a sentence for the user."""

    reason: str


class DeviceError(Exception):
    """A device name that means nothing; ``str()`` is the message for the user."""


class Machine:
    """What this machine has, looked up when first asked for.

    Args:
        environment: for CUDA_VISIBLE_DEVICES.
        gpus: all GPUs of the machine; None finds out.
        torch_cuda: the CUDA (or ROCm) version that torch was built for, "" if for none; None reads
            it from the installed torch.
        apple: whether Apple's GPU is there; None finds out.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        gpus: Sequence[Gpu] | None = None,
        torch_cuda: str | None = None,
        apple: bool | None = None,
    ) -> None:
        self._environment = environment
        self._gpus = gpus
        self._torch_cuda = torch_cuda
        self._apple = apple

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that a worker will see, in the order of its ``cuda:N``."""
        found = tuple(find_gpus() if self._gpus is None else self._gpus)
        return visible(found, self._environment.get("CUDA_VISIBLE_DEVICES"))

    @cached_property
    def torch_cuda(self) -> str:
        return torch_build() if self._torch_cuda is None else self._torch_cuda

    @cached_property
    def apple(self) -> bool:
        if self._apple is not None:
            return self._apple
        return platform.system() == "Darwin" and platform.machine() == "arm64"

    @property
    def cuda_ready(self) -> bool:
        return bool(self.gpus) and bool(self.torch_cuda)

    def resolve(self, requested: str) -> str | Unsupported:
        """Turn ``auto | cpu | cuda[:N] | mps`` into ``cpu | cuda:N | mps``.

        Raises:
            DeviceError: ``requested`` is none of them.
        """
        match = re.fullmatch(r"auto|cpu|mps|cuda(?::(\d+))?", requested)
        if match is None:
            raise DeviceError(
                f"{requested!r} is not a device; there are auto, cpu, mps, cuda and cuda:N."
            )
        if requested == "auto":
            return "cuda:0" if self.cuda_ready else "mps" if self.apple else "cpu"
        if requested == "mps" and not self.apple:
            return Unsupported("device mps was asked for, and this is no Mac with an Apple GPU")
        if not requested.startswith("cuda"):
            return requested
        if not self.gpus:
            hidden = self._environment.get("CUDA_VISIBLE_DEVICES")
            why = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})"
            return Unsupported(f"device {requested} was asked for, and no GPU is visible{why}")
        if not self.torch_cuda:
            return Unsupported(
                f"device {requested} was asked for, and the installed torch is built without CUDA"
            )
        index = int(match.group(1) or 0)
        if index >= len(self.gpus):
            return Unsupported(
                f"device {requested} was asked for, and only cuda:0 to cuda:{len(self.gpus) - 1} "
                "are visible"
                if len(self.gpus) > 1
                else f"device {requested} was asked for, and only cuda:0 is visible"
            )
        return f"cuda:{index}"


def visible(gpus: Sequence[Gpu], setting: str | None) -> tuple[Gpu, ...]:
    """Apply CUDA_VISIBLE_DEVICES as CUDA does: numbers or UUID prefixes, up to the first bad one.

    Source: CUDA C++ Programming Guide, section "CUDA Environment Variables".
    """
    if setting is None:
        return tuple(gpus)
    chosen: list[Gpu] = []
    for item in (part.strip() for part in setting.split(",")):
        if re.fullmatch(r"\d+", item) and int(item) < len(gpus):
            gpu = gpus[int(item)]
        elif item.startswith("MIG-"):
            gpu = Gpu(name="MIG slice", uuid=item, memory_bytes=None, driver=None)
        elif item.startswith("GPU-") and sum(g.uuid.startswith(item) for g in gpus) == 1:
            gpu = next(g for g in gpus if g.uuid.startswith(item))
        else:
            break
        if gpu in chosen:
            return ()
        chosen.append(gpu)
    return tuple(chosen)


def find_gpus(proc: Path = Path("/proc")) -> list[Gpu]:
    """All NVIDIA GPUs of the machine, from NVML, else nvidia-smi, else the driver's files."""
    for source in (_from_nvml, _from_nvidia_smi):
        found = source()
        if found is not None:
            return found
    return _from_driver_files(proc)


def _from_nvml() -> list[Gpu] | None:
    try:
        with nvml.opened() as library:
            return _listed(library)
    except nvml.NvmlUnavailable:
        return None


def _listed(library: Any) -> list[Gpu] | None:
    try:
        driver = nvml.text(library.nvmlSystemGetDriverVersion())
        count = library.nvmlDeviceGetCount()
        handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        return [
            Gpu(
                name=nvml.text(library.nvmlDeviceGetName(handle)),
                uuid=nvml.text(library.nvmlDeviceGetUUID(handle)),
                memory_bytes=int(library.nvmlDeviceGetMemoryInfo(handle).total),
                driver=driver,
            )
            for handle in handles
        ]
    except library.NVMLError:
        return None


def _from_nvidia_smi() -> list[Gpu] | None:
    command = ["nvidia-smi", "--query-gpu=name,uuid,memory.total,driver_version"]
    command.append("--format=csv,noheader,nounits")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_nvidia_smi(done.stdout)


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """Read ``name, uuid, MiB, driver`` lines; a field that a GPU has not is ``[N/A]``."""
    gpus = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 4:
            name, uuid, mebibytes, driver = (field.strip() for field in row)
            memory = int(mebibytes) * 2**20 if mebibytes.isdigit() else None
            gpus.append(Gpu(name=name, uuid=uuid, memory_bytes=memory, driver=driver))
    return gpus


def _from_driver_files(proc: Path) -> list[Gpu]:
    gpus = []
    for file in sorted((proc / "driver/nvidia/gpus").glob("*/information")):
        lines = (line.partition(":") for line in file.read_text().splitlines())
        values = {name.strip(): value.strip() for name, _, value in lines}
        uuid = values.get("GPU UUID", "")
        gpus.append(Gpu(values.get("Model", "NVIDIA GPU"), uuid, None, None))
    return gpus


def torch_build() -> str:
    """The CUDA or ROCm version that the installed torch is built for; "" if none, or no torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r"^(?:cuda|hip)\b[^=\n]*=\s*'([^']+)'", text, re.MULTILINE)
    return match.group(1) if match else ""
