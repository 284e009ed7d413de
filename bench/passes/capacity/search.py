"""The largest number that fits, by growing and halving: which numbers to try next.

A number is a batch, or a size in steps of what the pipeline makes. It is assumed that what fits
does so at every smaller number too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Answer = Literal["fits", "oom", "unknown"]

WAVE = 4
"""Doublings that are asked for at once: a run starts its workers' template once for all of them,
and skips those above the first that does not fit."""


@dataclass
class Search:
    """Looks for the largest number from ``least`` to ``most`` that fits, beginning at ``start``.

    Attributes:
        fits: the largest number known to fit; None if none is.
        fails: the smallest number known to run out of memory; None if none is.
        stopped: why the search ended without an answer, if so: a trial that failed in another way
            says nothing of memory.
    """

    start: int
    least: int = 1
    most: int = 1024
    fits: int | None = None
    fails: int | None = None
    stopped: str | None = None
    _bracket: int | None = field(default=None, repr=False)

    @property
    def done(self) -> bool:
        """Whether the answer is known, or cannot be had."""
        return not self.wave(None)

    def tell(self, number: int, answer: Answer, reason: str | None = None) -> None:
        """Take the outcome of a trial."""
        if answer == "unknown":
            if self.fails is None or number < self.fails:
                self.stopped = reason or "a trial gave no answer"
        elif answer == "oom":
            self.fails = number if self.fails is None else min(self.fails, number)
            if self.fits is not None and self.fits >= self.fails:
                self.fits = None
        elif self.fails is None or number < self.fails:
            self.fits = number if self.fits is None else max(self.fits, number)

    def wave(self, guess: int | None) -> list[int]:
        """Return what to try next, in growing order; nothing once the answer is known.

        Args:
            guess: what a fitted law takes for the largest that fits. It is tried together with the
                number above it; a guess that did not halve what was left is followed by a plain
                halving, so that a wrong law costs twice as many trials as none and no more.
        """
        if self.stopped is not None:
            return []
        if self.fits is None:
            if self.fails is None:
                return self._grown(self.start)
            return [] if self.fails <= self.least else [max(self.least, self.fails // 2)]
        if self.fails is None:
            return [] if self.fits >= self.most else self._grown(min(2 * self.fits, self.most))
        left = self.fails - self.fits
        if left <= 1:
            return []
        lost = self._bracket is not None and left > self._bracket // 2
        self._bracket = None if lost or guess is None else left
        if guess is None or lost:
            return [self.fits + left // 2]
        first = min(max(guess, self.fits), self.fails - 1)
        return [each for each in (first, first + 1) if self.fits < each < self.fails]

    def _grown(self, first: int) -> list[int]:
        numbers = [min(first << turn, self.most) for turn in range(WAVE)]
        return list(dict.fromkeys(numbers))
