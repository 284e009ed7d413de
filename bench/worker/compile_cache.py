"""The private compile cache of a cell, and whether it was really warm."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from compilers.base import CACHE_VARIABLE

Cache = Literal["fresh", "warm"]

FOLDERS = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
    "PYTORCH_KERNEL_CACHE_PATH": "kernels",
    "TORCH_EXTENSIONS_DIR": "extensions",
    CACHE_VARIABLE: "backend",
}


def use(folder: Path, cache: Cache) -> bool:
    """Direct every compile cache of this process into ``folder``.

    A fresh cache gets an empty folder, even where ``folder`` holds something already. Call it
    before anything compiles; importing torch before is fine, also in the parent of a fork.

    Returns:
        Whether there was something in the cache.
    """
    folder.mkdir(parents=True, exist_ok=True)
    filled = any(path.is_file() for path in folder.rglob("*"))
    if filled and cache == "fresh":
        folder = Path(tempfile.mkdtemp(prefix="fresh-", dir=folder))
        filled = False
    for variable, name in FOLDERS.items():
        (folder / name).mkdir(exist_ok=True)
        os.environ[variable] = str(folder / name)
    # Off by default before torch 2.5; without it a warm folder saves only the C++ compiler's work.
    os.environ["TORCHINDUCTOR_FX_GRAPH_CACHE"] = "1"
    config: Any = sys.modules.get("torch._inductor.config")
    if config is not None and hasattr(config, "fx_graph_cache"):
        config.fx_graph_cache = True
    return filled


def found_brought(
    brought_bytes: int, lookups: Mapping[str, int] | None
) -> tuple[Cache, str | None]:
    """Return which cache a cell had that asked for a fresh one, and whose backend filled it.

    Args:
        lookups: hits and misses of Inductor's disk cache; None if it was not used.
    """
    said = f"the backend brought {brought_bytes} bytes of compiled code along"
    if lookups is None:
        return "warm", said
    hits, misses = lookups["hits"], lookups["misses"]
    if not hits:
        return "fresh", f"{said}, and none of {misses} lookups found anything in it"
    if misses:
        return "warm", f"{said}; {misses} of {hits + misses} lookups found nothing in it"
    return "warm", said


def found(
    asked: Cache, filled: bool, lookups: Mapping[str, int] | None
) -> tuple[Cache, str | None]:
    """Return which cache the cell really had, and a warning if it is not the one asked for.

    Args:
        filled: whether the folder held something at the start.
        lookups: hits and misses of Inductor's disk cache; None if it was not used.
    """
    if asked == "fresh":
        return "fresh", None
    if not filled:
        return "fresh", "a warm compile cache was asked for, and the folder was empty"
    if lookups is None:
        return "warm", None
    hits, misses = lookups["hits"], lookups["misses"]
    if not hits:
        return "fresh", (
            f"a warm compile cache was asked for, and none of {misses} lookups found anything"
        )
    if misses:
        return "warm", f"the compile cache was only partly warm: {misses} of {hits + misses} missed"
    return "warm", None
