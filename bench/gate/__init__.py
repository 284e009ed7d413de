"""The regression gate: baselines as plain files, a comparison, and one exit code.

`bench.gate.measured` reduces a run to what a comparison needs, `bench.gate.baselines` keeps that as
JSON, `bench.gate.decide` is the statistical rule, `bench.gate.compare` applies it cell by cell,
`bench.gate.show` writes the outcome for people and machines, and `bench.gate.run` measures,
compares and confirms. docs/ci.md is the users' side of it.
"""

from __future__ import annotations

PASSED = 0
REGRESSION = 1
USAGE = 2
NOT_COMPARABLE = 3


class GateError(Exception):
    """A baseline, limit or folder that cannot be used; ``str()`` is the message for the user."""
