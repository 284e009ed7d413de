"""Deterministic algorithms: asked for before anything is loaded, and what has none is named."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACE_SIZE = ":4096:8"
"""What cuBLAS needs. Source: cuBLAS documentation, "Results reproducibility"."""

STRICT = "strict"

_WITHOUT = re.compile(r"^\s*(\S+) does not have a deterministic implementation")


def ask(mode: Any) -> dict[str, Any] | None:
    """Ask torch for deterministic algorithms; before CUDA starts, since cuBLAS reads its then.

    Args:
        mode: the workload's ``deterministic``: None or False asks for nothing, True has operations
            without a deterministic algorithm warn, "strict" has them raise.

    Returns:
        What was asked for, for the record; None for nothing.
    """
    if not mode:
        return None
    os.environ[WORKSPACE] = WORKSPACE_SIZE
    import torch

    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=mode != STRICT)
    return {"mode": mode, "cublas_workspace_config": WORKSPACE_SIZE}


@contextmanager
def watched(found: Callable[[str], None]) -> Iterator[None]:
    """Call ``found`` with each operation that torch warns has no deterministic algorithm, once.

    Torch names it when it runs, so only what a call does is found. Other warnings go their way.
    """
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=_WITHOUT.pattern)
        usual = warnings.showwarning

        def show(message: Any, *arguments: Any, **more: Any) -> None:
            match = _WITHOUT.match(str(message))
            if match is None:
                usual(message, *arguments, **more)
            elif match[1] not in seen:
                seen.add(match[1])
                found(match[1])

        warnings.showwarning = show
        yield
