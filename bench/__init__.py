"""Does this compiler make my diffusion pipeline faster, by how much, and at what cost?

``bench.run(config)`` measures, ``bench.Run.open(path)`` reads a run. Importing the package is
cheap: everything else is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import Run, run

__all__ = ["Run", "__version__", "run"]

DISTRIBUTION = "diffusion-compiler-bench"


def __getattr__(name: str) -> Any:
    if name in ("run", "Run"):
        from bench import api

        return getattr(api, name)
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version(DISTRIBUTION)
        except metadata.PackageNotFoundError:
            # A checkout that is not installed.
            return "0+unknown"
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
