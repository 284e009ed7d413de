from __future__ import annotations

import errno

import pytest

from bench.worker import failure
from bench.worker.errors import SourceError


class SafetensorError(Exception):
    """As safetensors' own, which is no RuntimeError."""


class OutOfMemoryError(RuntimeError):
    """As torch's own is called, whatever module it lives in."""


def chained(cause: BaseException, error: BaseException | None = None) -> BaseException:
    error = error or RuntimeError("backend='inductor' raised")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("unable to mmap 4096 bytes from file </m>: Cannot allocate memory (12)"),
        ImportError("libtorch_cpu.so: failed to map segment: Cannot allocate memory"),
        SafetensorError("Error while deserializing: I/O error: (os error 12)"),
        chained(MemoryError()),
        chained(chained(OSError(errno.ENOMEM, "x"), ValueError("bad file"))),
    ],
)
def test_memory_that_ran_out_is_oom(error):
    outcome, reason = failure.outcome_and_reason(error, "measuring")
    assert outcome == "oom"
    assert reason.endswith("(while measuring)")


@pytest.mark.parametrize(
    "error",
    [ValueError("a prompt about being out of memory"), RuntimeError("shape mismatch"), OSError(28)],
)
def test_anything_else_is_failed(error):
    assert failure.outcome_and_reason(error, "measuring")[0] == "failed"


def test_a_model_that_does_not_fit_while_it_is_loaded_is_oom():
    cause = RuntimeError("[enforce fail at alloc_cpu.cpp:98] DefaultCPUAllocator: can't allocate")
    load = SourceError("path:m cannot be loaded: RuntimeError: …")
    assert failure.outcome_and_reason(chained(cause, load), "loading")[0] == "failed"
    cause = RuntimeError(f"{cause} memory: you tried to allocate 9 bytes")
    found = failure.outcome_and_reason(chained(cause, load), "loading")
    assert found == ("oom", str(load))
    quoted = SourceError("path:m cannot be loaded: ValueError: no prompt 'out of memory'")
    assert failure.outcome_and_reason(chained(ValueError("x"), quoted), "loading")[0] == "failed"
    away = SourceError("no room on the disk", outcome="unavailable")
    assert failure.outcome_and_reason(chained(MemoryError(), away), "loading")[0] == "unavailable"


def test_torchs_own_errors_are_recognised():
    import torch

    assert failure.outcome_and_reason(torch.cuda.OutOfMemoryError("x"), "y")[0] == "oom"
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert failure.outcome_and_reason(caught.value, "loading")[0] == "oom"


def test_an_exception_that_knows_its_outcome_keeps_it_and_its_words():
    error = SourceError("ORG/NAME is gated: log in", outcome="unavailable")
    found = failure.outcome_and_reason(error, "loading")
    assert found == ("unavailable", "ORG/NAME is gated: log in")


def test_an_outcome_of_a_librarys_exception_is_not_ours():
    class Strange(Exception):
        outcome = "ok"

    assert failure.outcome_and_reason(Strange("x"), "loading") == (
        "failed",
        "Strange: x (while loading)",
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad\nworse"), "ValueError: bad (while loading)"),
        (ValueError(), "ValueError (while loading)"),
        (KeyError("x"), "KeyError: 'x' (while loading)"),
        (SystemExit(1), "something ended the process with status 1 (while loading)"),
        (RuntimeError("It ended."), "RuntimeError: It ended (while loading)"),
    ],
)
def test_one_sentence(error, expected):
    assert failure.sentence(error, "loading") == expected


def test_a_long_message_is_cut():
    assert len(failure.sentence(ValueError("x" * 5000), "loading")) < 500


def test_secrets_reach_neither_reason_nor_log(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef123")
    monkeypatch.setenv("MY_API_KEY", "short")
    error = ValueError("401 for token hf_abcdef123")
    assert "hf_abcdef123" not in failure.outcome_and_reason(error, "loading")[1]
    failure.log(error)
    logged = capsys.readouterr().err
    assert "hf_abcdef123" not in logged
    assert "401 for token [hidden]" in logged


@pytest.mark.parametrize("code", [1, None])
def test_the_last_words_of_a_library_that_ends_the_process(code):
    import subprocess
    import sys
    import tempfile

    script = (
        "from bench.worker import failure\n"
        "print('loading')\n"
        "print('Key is empty.')\n"
        "print('  ')\n"
        "import sys\n"
        f"print(failure.sentence(SystemExit({code}), 'preparing'), file=sys.stderr)\n"
    )
    with tempfile.TemporaryFile() as log:
        told = subprocess.run(
            [sys.executable, "-c", script],
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        ).stderr.strip()
    assert told == (
        f"something ended the process with status {code or 0}, "
        "and its last words were: Key is empty (while preparing)"
    )


def test_without_a_log_there_are_no_last_words():
    import subprocess
    import sys

    script = "from bench.worker import failure; print('x'); print(failure.last_words())"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert said.split() == ["x", "None"]
