"""Interpreters for backends that cannot be installed together: declared, locked, built, checked.

One environment is one TOML file (`bench.environments.declare`) with a lock for each Python version
(`bench.environments.lock`). uv (`bench.environments.uv`) builds it into a cache folder outside the
project (`bench.environments.build`), under the hash of what it is made from, where
`bench.environments.built.resolve` finds it again.
"""

from bench.environments.built import Interpreter, Status, resolve, status
from bench.environments.declare import (
    CURRENT,
    Declaration,
    EnvironmentProblem,
    EnvironmentUnavailable,
    declarations,
)

__all__ = [
    "CURRENT",
    "Declaration",
    "EnvironmentProblem",
    "EnvironmentUnavailable",
    "Interpreter",
    "Status",
    "declarations",
    "resolve",
    "status",
]
