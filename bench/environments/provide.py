"""What a run asks for interpreters: what is ready as it is, the rest built first or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.environments import build, built, install
from bench.environments.built import Interpreter
from bench.environments.declare import (
    CURRENT,
    EnvironmentProblem,
    EnvironmentUnavailable,
    declaration,
)


class Provider:
    """Environment → interpreter.

    Args:
        sync: build or mend what is not ready; without it, that is refused.
        say: told what is built and how large it is, in sentences.
        choice: installer.
        cache: folder of environments.
    """

    def __init__(
        self,
        *,
        sync: bool = True,
        say: Callable[[str], None] = lambda _: None,
        choice: install.Choice = "auto",
        cache: Path | None = None,
    ) -> None:
        self._sync = sync
        self._say = say
        self._choice = choice
        self._cache = cache

    def __call__(self, name: str) -> Interpreter:
        """Return the interpreter of an environment.

        Raises:
            EnvironmentUnavailable: it is not ready and was not, or could not be, built.
        """
        if name == CURRENT or not self._sync:
            return built.resolve(name, self._cache)
        try:
            declared = declaration(name)
            found = built.status(declared, self._cache)
            if found.state != "ready" and declared.known_problem:
                raise EnvironmentUnavailable(built.why_not(found))
            found = build.sync(
                declared,
                self._cache,
                choice=self._choice,
                say=self._say,
                progress=self._quarters(),
            )
        except EnvironmentUnavailable:
            raise
        except EnvironmentProblem as error:
            raise EnvironmentUnavailable(str(error)) from error
        if found.interpreter is None:
            raise EnvironmentUnavailable(built.why_not(found))
        return found.interpreter

    def _quarters(self) -> Callable[[int, int, str], None]:
        told = 0

        def progress(done: int, total: int, what: str) -> None:
            nonlocal told
            if total and done * 4 // total > told:
                told = done * 4 // total
                self._say(f"{done} of {total} packages: {what}")

        return progress
