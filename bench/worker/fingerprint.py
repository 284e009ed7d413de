"""The machine and the software a figure was measured on.

Figures across fingerprints stand side by side, never in one ratio. Environment variables come from
a list of names that cannot hold a secret.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import nvml
from compilers import packages

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "triton", "numpy")

ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "GOMP_CPU_AFFINITY",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "ATEN_CPU_CAPABILITY",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_MPS_HIGH_WATERMARK_RATIO",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "TORCH_COMPILE_DISABLE",
    "TORCHDYNAMO_DISABLE",
    "TORCHDYNAMO_SUPPRESS_ERRORS",
    "TORCHINDUCTOR_COMPILE_THREADS",
    "TORCHINDUCTOR_FREEZING",
    "TORCHINDUCTOR_FX_GRAPH_CACHE",
    "TORCHINDUCTOR_MAX_AUTOTUNE",
    "TORCH_CPP_LOG_LEVEL",
    "MALLOC_CONF",
    "MALLOC_ARENA_MAX",
    "PYTHONHASHSEED",
)


def collect(device: str) -> dict[str, Any]:
    """Return the fingerprint for a worker on ``device`` (cpu, cuda:N or mps).

    A value that cannot be had is None; ``null_reasons`` within says why, by name.
    """
    import torch

    nulls: dict[str, str] = {}
    found: dict[str, Any] = {
        "os": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cpu_cores": os.cpu_count(),
        "cpu_cores_usable": _usable_cores(),
        "ram_bytes": _ram_bytes(),
        "python": platform.python_version(),
        "packages": packages.versions(*PACKAGES),
        "environment_hash": environment_hash(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "settings": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "cuda": torch.version.cuda,
        "gpu": _gpu(torch, device, nulls) if device.startswith("cuda") else None,
        "tf32": {
            "matmul": bool(torch.backends.cuda.matmul.allow_tf32),
            "cudnn": bool(torch.backends.cudnn.allow_tf32),
        },
        "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
    }
    found["null_reasons"] = nulls
    return found


def environment_hash() -> str:
    """Return a hash of all installed distributions with their versions: the environment's lock.

    Read from the names of their metadata folders, ``NAME-VERSION.dist-info``.
    """
    found = {
        path.name
        for folder in sys.path
        for pattern in ("*.dist-info", "*.egg-info")
        for path in Path(folder or ".").glob(pattern)
    }
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return the processor's name as the system gives it, or None."""
    if cpuinfo.is_file():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        match = re.search(r"^(?:model name|Processor|Model)\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            return match.group(1).strip()
    if sys.platform == "darwin":
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.strip()
    return platform.processor() or None


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _gpu(torch: Any, device: str, nulls: dict[str, str]) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    found: dict[str, Any] = {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "uuid_hash": None,
        "driver": None,
        "power_limit_w": None,
        "sm_clock_max_mhz": None,
        "sm_clock_locked_mhz": None,
        "memory_clock_max_mhz": None,
        "ecc": None,
    }
    uuid = str(getattr(properties, "uuid", "") or "")
    reason = "this torch does not tell a device's UUID, by which NVML would know it"
    if uuid:
        found["uuid_hash"] = _hash_uuid(uuid)
        reason = _ask_nvml(uuid, found)
    nulls.update({f"gpu.{name}": reason for name, value in found.items() if value is None})
    return found


def _ask_nvml(uuid: str, found: dict[str, Any]) -> str:
    """Fill ``found`` from the driver, and return why what is still None is."""
    try:
        found.update(_nvml(uuid))
    except nvml.NvmlUnavailable as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a driver may raise anything
        return f"NVML failed: {type(error).__name__}: {error}"
    return "the driver does not tell"


def _nvml(uuid: str) -> dict[str, Any]:
    with nvml.opened() as library:
        handle = nvml.handle_of(library, uuid)

        def ask(function: str, *arguments: Any) -> Any:
            try:
                return getattr(library, function)(handle, *arguments)
            except (library.NVMLError, AttributeError):
                return None

        limit = ask("nvmlDeviceGetEnforcedPowerLimit")
        ecc = ask("nvmlDeviceGetEccMode")
        return {
            "driver": nvml.text(library.nvmlSystemGetDriverVersion()),
            "power_limit_w": limit / 1000 if limit is not None else None,
            "sm_clock_max_mhz": ask("nvmlDeviceGetMaxClockInfo", library.NVML_CLOCK_SM),
            "sm_clock_locked_mhz": ask("nvmlDeviceGetApplicationsClock", library.NVML_CLOCK_SM),
            "memory_clock_max_mhz": ask("nvmlDeviceGetMaxClockInfo", library.NVML_CLOCK_MEM),
            "ecc": bool(ecc[0]) if ecc is not None else None,
        }


def _hash_uuid(uuid: str) -> str:
    bare = uuid.removeprefix("GPU-")
    return hashlib.sha256(bare.lower().encode()).hexdigest()[:16]
