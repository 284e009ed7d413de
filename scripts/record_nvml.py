"""Record what NVML answers on a machine with a GPU, to be replayed in tests on one without.

    python scripts/record_nvml.py session.json --seconds 10 --pid 1234

Samples the first GPU, or the one of --uuid, as `bench run` does in the telemetry pass, and writes
every answer of the driver in its order: one JSON object with ``constants`` and ``answers``, a list
for each query. An answer is a number, text, a mapping (a structure's fields), a list of mappings
(processes), or {"error": code, "text": …}. Names of processes and the GPU's UUID are in it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONSTANTS = ("NVML_CLOCK_SM", "NVML_TEMPERATURE_GPU")
FIELDS = ("gpu", "memory", "used", "total", "free", "pid", "usedGpuMemory")


class Recorder:
    """Bindings that pass every call on and keep its answer."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.answers: dict[str, list[Any]] = {}
        self.constants = {name: getattr(library, name) for name in CONSTANTS}
        self.NVMLError = library.NVMLError

    def __getattr__(self, name: str) -> Any:
        wanted = getattr(self._library, name)
        if not name.startswith("nvml") or name in ("nvmlInit", "nvmlShutdown"):
            return wanted

        def asked(*arguments: Any) -> Any:
            try:
                answer = wanted(*arguments)
            except self._library.NVMLError as error:
                self._keep(name, {"error": error.value, "text": str(error)})
                raise
            self._keep(name, plain(answer))
            return answer

        return asked

    def _keep(self, name: str, answer: Any) -> None:
        if name != "nvmlDeviceGetHandleByUUID":
            self.answers.setdefault(name, []).append(answer)

    def write(self, path: Path, note: str) -> None:
        """Write the session, with a note on where it is from."""
        session = {"note": note, "constants": self.constants, "answers": self.answers}
        path.write_text(json.dumps(session, indent=1) + "\n", encoding="utf-8")


def plain(answer: Any) -> Any:
    """Return an answer as JSON holds it: of a structure, the fields that telemetry reads."""
    if isinstance(answer, list):
        return [plain(each) for each in answer]
    if isinstance(answer, (int, float, str)) or answer is None:
        return answer
    if isinstance(answer, bytes):
        return answer.decode()
    return {name: getattr(answer, name) for name in FIELDS if hasattr(answer, name)}


def main(argv: Sequence[str] | None = None) -> None:
    """Record a session."""
    from bench import nvml
    from bench.runner.devices import find_gpus
    from bench.telemetry import sampler_of

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--period", type=float, default=0.1)
    parser.add_argument("--pid", type=int, default=os.getpid(), help="whose memory is the worker's")
    parser.add_argument("--uuid", help="of the GPU; the first one without it")
    given = parser.parse_args(argv)
    try:
        recorder = Recorder(nvml.bindings())
    except nvml.NvmlUnavailable as error:
        parser.exit(1, f"{error}\n")
    uuids = [given.uuid] if given.uuid else [gpu.uuid for gpu in find_gpus()]
    sampler = sampler_of("cuda:0", given.pid, given.period, lambda: uuids, recorder)
    sampler.start()
    time.sleep(given.seconds)
    sampler.stop()
    found, reasons = sampler.fields(None, ())
    if not recorder.answers:
        parser.exit(1, f"nothing was recorded: {found['ended'] or next(iter(reasons.values()))}\n")
    recorder.write(given.file, f"recorded every {given.period:g} s for {given.seconds:g} s")
    print(f"{given.file}: {len(found['columns']['t_s'])} samples")


if __name__ == "__main__":
    main()
