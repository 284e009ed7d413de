"""Key of the pass that counts operations, measures ceilings and traces a call."""

from __future__ import annotations

from bench.config.keys import PassKey, key


class _Profile(PassKey):
    kind = bool
    declared = key(
        False,
        "besides, in the first round: count the model's operations and bytes, measure what the "
        "device reaches at its best, and trace one call on CUDA. See "
        "[measurement.md](measurement.md#work-and-ceilings)",
    )
    axis = False
    always = True
    off = False
    equal_calls = False


KEY = _Profile()
