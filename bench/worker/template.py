"""The template: a process that has imported torch and diffusers, and of which workers are forks.

Importing them is the largest fixed cost of a cell. A fork starts with the imports done and is
otherwise a process of its own: own session, own caches, own random state, own device context,
since none exists before the fork.

Two things keep it honest. A fresh worker imports the same names before its job starts, so that
imports are in no figure either way. And all forks of one template share its address-space layout
and hash seed, so the runner makes a new template for each round: the spread between rounds stays
the spread between independent processes.

Forking is safe only while the process has one thread and no device is initialised. `why_not_fork`
looks, and any doubt means a fresh interpreter for each cell instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import time

from bench.worker import capability

PRELOAD = (
    "torch",
    "diffusers:StableDiffusionXLPipeline",
    "diffusers:StableDiffusionXLImg2ImgPipeline",
    "diffusers:StableDiffusionInstructPix2PixPipeline",
    "bench.worker.cell",
)
"""Modules, and attributes that a lazy module imports on access."""

ENVIRONMENT = {
    # With it, asking whether there is a GPU goes through NVML and creates no CUDA state, which a
    # fork could not use.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # numpy's OpenBLAS starts its threads when it is imported, and threads do not survive a fork.
    "OPENBLAS_NUM_THREADS": "1",
    # Likewise pyarrow's jemalloc, which pandas brings along where scikit-learn is installed.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # A folder of the user's that is called like a module must not be imported instead of it.
    "PYTHONSAFEPATH": "1",
}
"""What the environment of every worker has before its interpreter starts, forked or not."""


def leave_working_folder() -> None:
    """Do on Python 3.10 what PYTHONSAFEPATH does on later ones, if it is set.

    Call it before importing anything that a file in the working folder could be called like.
    """
    if hasattr(sys.flags, "safe_path") or not os.environ.get("PYTHONSAFEPATH"):
        return
    if sys.path and os.path.abspath(sys.path[0]) == os.getcwd():
        del sys.path[0]


def preload(names: str) -> float:
    """Import ``names``, separated by commas.

    What cannot be imported is written to standard error and otherwise left to the job, which meets
    the same failure and reports it.

    Returns:
        Seconds that it took.
    """
    start = time.monotonic()
    with contextlib.ExitStack() as held:
        for name in filter(None, names.split(",")):
            module, _, attribute = name.partition(":")
            try:
                imported = importlib.import_module(module)
                if attribute:
                    getattr(imported, attribute)
                if module == "torch":
                    held.enter_context(capability.told_by_nvml(imported.cuda))
            except Exception as error:  # noqa: BLE001 - the job meets it again and reports it
                print(f"cannot import {name}: {type(error).__name__}: {error}", file=sys.stderr)
    return time.monotonic() - start


def why_not_fork() -> str | None:
    """Say why a fork of this process could not be trusted, or None if it can."""
    if not sys.platform.startswith("linux"):
        return f"forking workers is done on Linux only, and this is {sys.platform}"
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return f"an import started {threads - 1} more thread(s), which a fork would not have"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "an import initialised CUDA"
    # Also a look at GPUs, so before NVML is closed.
    has_gpu = torch is not None and torch.cuda.is_available()
    _close_nvml()
    device = _open_device()
    if device is not None:
        return f"an import opened {device}"
    # A CUDA build that looked for GPUs in vain refuses too; without one, a fork needs no CUDA.
    if has_gpu and _fork_is_bad():
        return "an import used the CUDA driver, which torch refuses to use in a fork"
    return None


def _close_nvml() -> None:
    """Undo what the NVML-based look for GPUs left open; its handles do not outlive a fork."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return
    # NVML counts how often it was opened, and each look opens it anew.
    for _ in range(1024):
        if nvml.nvmlShutdown() != 0:
            return


def _open_device() -> str | None:
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri/")):
            return target
    return None


def _fork_is_bad() -> bool:
    """Ask torch in a trial fork, the only place where it knows."""
    pid = os.fork()
    if pid == 0:
        try:
            torch = sys.modules["torch"]
            os._exit(1 if getattr(torch._C, "_cuda_isInBadFork", bool)() else 0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
