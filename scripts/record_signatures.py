"""Print the signatures of onediffx that our backends call, as tests/compilers/onediffx-*.json.

Run it with the interpreter of an environment that has onediffx:
``PYTHON scripts/record_signatures.py``.
"""

from __future__ import annotations

import importlib
import inspect
import json

NAMES = ("compile_pipe", "save_pipe", "load_pipe", "quantize_pipe")


def main() -> None:
    """Write one JSON object to standard output."""
    module = importlib.import_module("onediffx.compilers.diffusion_pipeline_compiler")
    found = {
        name: [
            [p.name, p.kind.name, None if p.default is p.empty else p.default]
            for p in inspect.signature(getattr(module, name)).parameters.values()
        ]
        for name in NAMES
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
