"""Bindings of NVML that answer from what scripts/record_nvml.py wrote."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Replayer:
    """Bindings that answer from a session, each query in the order recorded; the last one stays.

    A query that is not in the session is missing, as in old bindings.
    """

    class NVMLError(Exception):
        """What bindings raise; ``value`` is NVML's code."""

        def __init__(self, value: int, text: str) -> None:
            super().__init__(text)
            self.value = value

    def __init__(self, session: dict[str, Any]) -> None:
        self._left = {name: list(answers) for name, answers in session["answers"].items()}
        self.open = 0
        for name, value in session["constants"].items():
            setattr(self, name, value)

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self._left:
            raise AttributeError(name)

        def asked(*_arguments: Any) -> Any:
            answers = self._left[name]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, dict) and "error" in answer:
                raise self.NVMLError(answer["error"], answer["text"])
            if isinstance(answer, list):
                return [SimpleNamespace(**each) for each in answer]
            return SimpleNamespace(**answer) if isinstance(answer, dict) else answer

        return asked
