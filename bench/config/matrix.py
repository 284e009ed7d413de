"""Axes, ``exclude`` and ``include`` to combinations, with the semantics of GitHub Actions.

1. The product of the axes, the first one varying slowest.
2. ``exclude``: a combination that agrees with all keys of an entry is left out.
3. ``include``, entry by entry: its keys are added to every combination of the product in which they
   change no axis value; keys that an earlier entry added may be changed. An entry that fits no
   combination becomes one of its own, to which no later entry adds anything.

Source of the rules: "Running variations of jobs in a workflow", docs.github.com.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.config.tree import KeyPath

MAX_CELLS = 100_000
MAX_ADDITIONS = 1_000_000


class TooManyError(Exception):
    """The matrix is larger than anybody can run. ``str()`` says how large."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A value of a combination, and where in the configuration it was written."""

    value: Any
    path: KeyPath


Combination = dict[str, Choice]
Matches = Callable[[str, Any, Any], bool]
"""(axis, what an entry asks for, axis value) → whether they agree."""


def equal(asked: Any, value: Any) -> bool:
    """Agree if both are the same value of the same type; True is not 1, but 1 is 1.0."""
    return isinstance(asked, bool) == isinstance(value, bool) and bool(asked == value)


def expand(
    axes: Mapping[str, Sequence[Any]],
    exclude: Sequence[Mapping[str, Any]] = (),
    include: Sequence[Mapping[str, Any]] = (),
    *,
    matches: Matches = lambda _, asked, value: equal(asked, value),
    root: KeyPath = ("matrix",),
) -> list[Combination]:
    """Return the combinations in their order.

    Without axes there is no product, and only ``include`` makes combinations.

    Raises:
        TooManyError: more than ``MAX_CELLS`` combinations, or more than ``MAX_ADDITIONS``
            applications of entries.
    """
    names = list(axes)
    choices = [
        [Choice(value, (*root, name, index)) for index, value in enumerate(axes[name])]
        for name in names
    ]
    count = math.prod(len(axis) for axis in choices) if names else 0
    if count > MAX_CELLS:
        sizes = " x ".join(f"{len(axis)} {name}" for name, axis in zip(names, choices, strict=True))
        raise TooManyError(f"the product is {count:,} cells ({sizes}); {MAX_CELLS:,} are allowed")

    additions = 0

    def positions(entry: Mapping[str, Any]) -> Iterator[tuple[int, ...]]:
        """Yield the places in the product that agree with the axis keys of ``entry``."""
        nonlocal additions
        fitting = [
            [at for at, choice in enumerate(axis) if matches(name, entry[name], choice.value)]
            if name in entry
            else range(len(axis))
            for name, axis in zip(names, choices, strict=True)
        ]
        additions += math.prod(len(axis) for axis in fitting) + len(names)
        if additions > MAX_ADDITIONS:
            raise TooManyError(
                f"exclude and include would be applied over {MAX_ADDITIONS:,} times; "
                "use an axis or fewer entries"
            )
        return itertools.product(*fitting)

    product: dict[tuple[int, ...], Combination] = {}
    if names:
        for place in itertools.product(*(range(len(axis)) for axis in choices)):
            product[place] = {
                name: axis[at] for name, axis, at in zip(names, choices, place, strict=True)
            }
    for entry in exclude:
        for place in positions(entry):
            product.pop(place, None)

    own: list[Combination] = []
    for index, entry in enumerate(include):
        added = {key: Choice(value, (*root, "include", index, key)) for key, value in entry.items()}
        fits = [place for place in positions(entry) if place in product] if product else []
        if not fits:
            own.append(added)
            continue
        new = {key: choice for key, choice in added.items() if key not in axes}
        for place in fits:
            product[place].update(new)
    combinations = [*product.values(), *own]
    if len(combinations) > MAX_CELLS:
        raise TooManyError(f"the matrix has {len(combinations):,} cells; {MAX_CELLS:,} are allowed")
    return combinations
