from typing import Any


class Awake:
    FIELDS = frozenset({"rested_phases"})

    def __init__(self, asked: Any, device: str, pid: int, uuids: Any) -> None:
        self.phases: list[str] = []

    def enter(self, phase: str) -> None:
        self.phases.append(phase)

    def stop(self) -> None:
        pass

    def complete(self, record: dict[str, Any]) -> None:
        record["rested_phases"] = self.phases


WATCH = Awake
