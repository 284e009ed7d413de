"""What a foreign interpreter sees of the project: `bench` and `compilers`, and nothing beside them.

The two packages may lie in a site-packages full of things for another Python, so its folder is
never put on anybody's path. A folder with two links is.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import bench
import compilers
from bench.environments.built import Interpreter

_LEFT_OUT = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "__PYVENV_LAUNCHER__",
)


@functools.cache
def project_folder() -> Path:
    """Return a folder with links to the two packages; it lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="bench-project-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    for package in (bench, compilers):
        assert package.__file__ is not None
        source = Path(package.__file__).resolve().parent
        (folder / package.__name__).symlink_to(source, target_is_directory=True)
    return folder


def process_environment(
    interpreter: Interpreter, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment variables for a process of an interpreter that is not this one.

    Programs that its packages bring, such as ninja, are found first, as if it were activated.
    """
    given = os.environ if environment is None else environment
    kept = {name: value for name, value in given.items() if name not in _LEFT_OUT}
    programs = str(Path(interpreter.path).parent)
    return {
        **kept,
        "PATH": os.pathsep.join([programs, kept.get("PATH", os.defpath)]),
        "PYTHONPATH": str(project_folder()),
        "PYTHONNOUSERSITE": "1",
        **interpreter.variables,
    }
