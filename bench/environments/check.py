"""Ask a backend in its own environment to compile something small and to prove it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.environments import view
from bench.environments.built import Interpreter

MODULE = "bench.worker.check"
TIMEOUT_S = 900.0


def check(
    interpreter: Interpreter, backend: str, device: str = "auto", timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Return a backend's verdict, as `bench.worker.check` gives it: ``ok`` and ``reason`` at least.

    A process that dies, hangs or ends without a word is a verdict too.
    """
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        out = Path(folder) / "verdict.json"
        log = Path(folder) / "output.txt"
        command = [interpreter.path, "-m", MODULE, backend, "--device", device, "--out", str(out)]
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={
                        **view.process_environment(interpreter),
                        "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "cache"),
                    },
                    start_new_session=True,
                )
            except OSError as error:
                return _refused(backend, f"{interpreter.path} could not be started: {error}")
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return _refused(backend, f"no answer within {timeout_s:g} s")
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        try:
            verdict = json.loads(out.read_bytes())
            if isinstance(verdict, dict) and isinstance(verdict.get("ok"), bool):
                return {"reason": None, **verdict, "backend": backend}
        except (OSError, ValueError):
            pass
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f"; its last words: {lines[-1].strip()[:300]}" if lines else ", without a word"
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return _refused(backend, f"its process ended with {how} and no verdict{last}")


def _refused(backend: str, reason: str) -> dict[str, Any]:
    return {"backend": backend, "ok": False, "reason": reason}
