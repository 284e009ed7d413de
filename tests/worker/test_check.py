from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.worker import check
from compilers import registry
from compilers.base import Evidence, NoOptions, Scope, UnsupportedPipelineError, Verdict


class Double:
    """A backend that wraps the denoiser and changes its output by a factor."""

    name = "double"
    options: type = NoOptions
    environment = "current"

    def __init__(self, factor: float = 1.0, lossy: bool = False, error: Any = None) -> None:
        self.factor, self.lossy, self.error = factor, lossy, error

    def probe(self, device: str) -> Verdict:
        return Verdict(True)

    def prepare(self, pipeline: Any, options: Any) -> Scope:
        if self.error is not None:
            raise self.error
        forward = pipeline.unet.forward

        def scaled(*args: Any, **kwargs: Any) -> Any:
            return (forward(*args, **kwargs)[0] * self.factor,)

        if self.factor:
            pipeline.unet.forward = scaled
        return Scope(("unet",))

    def evidence(self) -> Evidence:
        return Evidence(runtime="modules")


@dataclass(frozen=True)
class Answers:
    root: Path
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, backend: Any) -> dict[str, Any]:
        self.monkeypatch.setattr(registry, "get", lambda name: backend)
        return check.check("double", "cpu", {}, self.root / "cache")


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    for name in check.compile_cache.FOLDERS:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    return Answers(tmp_path, monkeypatch)


def test_a_backend_that_works(answers):
    answer = answers(Double(factor=1.000001))
    assert (answer["ok"], answer["reason"]) == (True, None)
    assert 0 < answer["max_abs_diff"] <= answer["tolerance"]
    assert answer["first_call_s"] > 0
    assert answer["evidence"]["scope"] == ["unet"]
    assert {"python", "torch", "diffusers"} <= set(answer["versions"])
    json.dumps(answer)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (Double(factor=1.3), "the output differs from eager by"),
        (Double(factor=2.0, lossy=True), "the output differs from eager by"),
        (Double(factor=float("nan")), "differs from eager by NaN or infinity"),
        (Double(factor=0), "changed nothing in the pipeline: it ran eager"),
        (Double(error=UnsupportedPipelineError("not this one")), "not this one"),
        (Double(error=RuntimeError("first\nsecond")), "RuntimeError: first (while using"),
        (Double(error=SystemExit(3)), "something ended the process with status 3"),
    ],
)
def test_backends_that_do_not(backend, words, answers):
    answer = answers(backend)
    assert answer["ok"] is False
    assert words in answer["reason"]


@dataclass(frozen=True)
class Sparing:
    min_features: int = 512


class Large(Double):
    """A backend that would leave the checked denoiser alone, by its default, for being small."""

    options = Sparing
    asked: Any = None

    def prepare(self, pipeline: Any, options: Any) -> Scope:
        self.asked = options
        return super().prepare(pipeline, options)


def test_layers_as_small_as_the_checked_denoisers_are_not_spared(answers):
    backend = Large(factor=1.000001)
    assert answers(backend)["ok"]
    pipeline = check.TinyPipeline("cpu")
    sides = [min(m.in_features, m.out_features) for m in pipeline.unet.modules()
             if type(m).__name__ == "Linear"]  # fmt: skip
    assert backend.asked.min_features <= min(sides)


def test_what_is_lossy_may_differ_more(answers):
    assert answers(Double(factor=1.3, lossy=True))["ok"]


def test_command_line(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(
        check, "check", lambda name, device, options, folder: {"ok": False, "seen": options}
    )
    out = tmp_path / "answer.json"
    assert check.main(["nexfort", "--options", '{"mode": "O2"}', "--out", str(out)]) == 1
    assert json.loads(out.read_text()) == {"ok": False, "seen": {"mode": "O2"}}
    for wrong in ("{", "[]"):
        with pytest.raises(SystemExit):
            check.main(["nexfort", "--options", wrong])
    assert "must be a JSON object, not list" in capfd.readouterr().err


@pytest.mark.usefixtures("answers")
def test_an_unknown_backend_is_named(tmp_path):
    answer = check.check("nexfrt", "cpu", {}, tmp_path)
    assert "no backend is called 'nexfrt'" in answer["reason"]
