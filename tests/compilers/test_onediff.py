"""The backends of OneDiff against stand-ins that have the signatures of onediffx 1.2.0."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import importlib.metadata
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bench.config import backends
from compilers import nexfort, onediff, oneflow, packages, registry
from compilers.base import CACHE_VARIABLE, HasRuntime, KeepsCompiled, UnsupportedPipelineError

RECORDED = json.loads((Path(__file__).parent / "onediffx-1.2.0.json").read_text())


@dataclasses.dataclass
class Calls:
    """What the stand-in of onediffx was asked to do."""

    compiled: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    quantised: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    saved: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    loaded: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class Graphed(SimpleNamespace):
    """A part that OneFlow holds a compiled graph for."""

    def get_graph(self) -> Any:
        return self._deployable_module_dpl_graph


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    noted = Calls()
    module = ModuleType("onediffx")

    def compile_pipe(
        pipe: Any,
        *,
        backend: str = "oneflow",
        options: Any = None,
        ignores: Any = (),
        fuse_qkv_projections: bool = False,
    ) -> Any:
        seen = dict(options) if isinstance(options, dict) else options
        noted.compiled.append(
            {"backend": backend, "options": seen, "ignores": ignores, "fuse": fuse_qkv_projections}
        )
        if isinstance(options, dict):
            options.pop("memory_format", None)  # as the real one does
        return pipe

    # The names of its parameters are onediffx's own.
    def save_pipe(
        pipe: Any,
        dir: str = "cached_pipe",  # noqa: A002
        *,
        ignores: Any = (),
        overwrite: bool = True,
    ) -> None:
        noted.saved.append({"dir": dir, "ignores": ignores, "overwrite": overwrite})
        Path(dir).mkdir(parents=True)
        (Path(dir) / "unet").write_text("graph")

    def load_pipe(pipe: Any, dir: str = "cached_pipe", *, ignores: Any = ()) -> None:  # noqa: A002
        noted.loaded.append({"dir": dir, "ignores": ignores})

    def quantize_pipe(
        pipe: Any,
        quant_submodules_config_path: Any = None,
        top_percentage: int = 90,
        *,
        ignores: Any = (),
        **kwargs: Any,
    ) -> Any:
        noted.quantised.append({"ignores": ignores, **kwargs})
        return pipe

    for function in (compile_pipe, save_pipe, load_pipe, quantize_pipe):
        assert signature(function) == RECORDED[function.__name__]
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "onediffx", module)
    monkeypatch.setenv("NEXFORT_GRAPH_CACHE", "0")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return noted


def signature(function: Any) -> list[list[Any]]:
    """Return [name, kind, default] of each parameter, as JSON has them."""
    found = [
        [p.name, p.kind.name, None if p.default is inspect.Parameter.empty else p.default]
        for p in inspect.signature(function).parameters.values()
    ]
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def pipeline(**more: Any) -> Any:
    parts = {
        "device": "cpu",
        "unet": SimpleNamespace(),
        "text_encoder": SimpleNamespace(),
        "vae": SimpleNamespace(encoder=SimpleNamespace(), decoder=SimpleNamespace()),
    }
    return SimpleNamespace(**{**parts, **more})


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        if name.replace("-", "_") not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name.replace("-", "_")]

    monkeypatch.setattr(importlib.metadata, "version", version)


NEXFORT_SET = {"onediff": "1.2.0", "onediffx": "1.2.0", "setuptools": "75.6.0"}


# -- nexfort -------------------------------------------------------------------------------------


def test_options_are_what_onediffs_users_write(calls: Calls) -> None:
    written = (
        '{"mode": "max-optimize:max-autotune:low-precision", "memory_format": "channels_last",'
        ' "dynamic": false, "options": {"inductor.optimize_linear_epilogue": false}}'
    )
    values = backends.resolve_options("nexfort", json.loads(written))
    options = registry.make_options(registry.get("nexfort"), values)
    scope = nexfort.Nexfort().prepare(pipeline(), options)
    assert scope.compiled == ("text_encoder", "unet", "vae.decode", "vae.encode")
    (call,) = calls.compiled
    assert call == {
        "backend": "nexfort",
        "options": {**json.loads(written), "fullgraph": False},
        "ignores": (),
        "fuse": False,
    }


def test_the_configurations_mapping_survives_compile_pipe(calls: Calls) -> None:
    options = nexfort.NexfortOptions(memory_format="channels_last", options={"a": 1})
    for _ in range(2):
        nexfort.Nexfort().prepare(pipeline(), options)
    first, second = calls.compiled
    assert first == second
    assert first["options"]["memory_format"] == "channels_last"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"mode": "reduce-overhead"},
            "mode: 'reduce-overhead' is torch.compile's mode; nexfort has",
        ),
        (
            {"mode": "O2:fastest"},
            "mode: 'fastest' is no mode of nexfort; nexfort has, joined by ':',",
        ),
        ({"mode": ""}, "mode: '' is no mode of nexfort"),
        ({"ignores": ["vea"]}, "ignores: 'vea' is no part; there are: text_encoder, "),
    ],
)
def test_what_nexfort_would_refuse_late_is_refused_early(given: dict[str, Any], words: str) -> None:
    with pytest.raises(backends.OptionError, match=re.escape(words)):
        backends.resolve_options("nexfort", given)


def test_dynamic_shapes_on_a_cpu_are_unsupported_with_the_reason(calls: Calls) -> None:
    with pytest.raises(UnsupportedPipelineError, match=r'"dynamic": true fails on a CPU'):
        nexfort.Nexfort().prepare(pipeline(), nexfort.NexfortOptions(dynamic=True))
    assert not calls.compiled
    nexfort.Nexfort().prepare(pipeline(), nexfort.NexfortOptions())
    nexfort.Nexfort().prepare(pipeline(device="cuda:0"), nexfort.NexfortOptions())
    nexfort.Nexfort().prepare(pipeline(device="cuda:0"), nexfort.NexfortOptions(dynamic=True))
    assert [call["options"].get("dynamic") for call in calls.compiled] == [False, None, True]


def test_ignores_narrow_the_scope(calls: Calls) -> None:
    options = nexfort.NexfortOptions(ignores=("vae", "text_encoder"), fuse_qkv=True)
    scope = nexfort.Nexfort().prepare(pipeline(), options)
    assert scope.compiled == ("unet",)
    assert calls.compiled[0]["ignores"] == ("vae", "text_encoder")
    assert calls.compiled[0]["fuse"] is True
    with pytest.raises(UnsupportedPipelineError, match="no part left to compile"):
        nexfort.Nexfort().prepare(
            pipeline(), nexfort.NexfortOptions(ignores=("vae", "text_encoder", "unet"))
        )


def test_quantising_is_lossy_and_comes_first(calls: Calls) -> None:
    backend = nexfort.Nexfort()
    backend.prepare(pipeline(), nexfort.NexfortOptions(quantize={"quant_type": "int8_dynamic"}))
    assert calls.quantised == [{"ignores": (), "quant_type": "int8_dynamic"}]
    assert (backend.lossy, backend.evidence().lossy) == (False, True)
    plain = nexfort.Nexfort()
    plain.prepare(pipeline(), nexfort.NexfortOptions())
    assert not plain.evidence().lossy


@pytest.mark.parametrize("version", nexfort.MISPACKAGED)
def test_mispackaged_wheels_are_known_by_name(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, nexfort=version, torch="2.4.0", **NEXFORT_SET)
    monkeypatch.setattr(nexfort.importlib.util, "find_spec", lambda name: None)
    verdict = nexfort.Nexfort().probe("cpu")
    assert not verdict.supported
    assert verdict.reason == (
        f"nexfort {version} imports, and cannot compile: No module named "
        "'nexfort.inductor.codegen'. This wheel is known to be mis-packaged. 0.1.dev291 is the "
        "newest that is whole"
    )


@pytest.mark.parametrize(
    ("device", "versions", "words"),
    [
        ("mps", {}, "nexfort runs on cpu and cuda, not on mps"),
        ("cpu", {}, "nexfort, onediff, onediffx, torch, setuptools are not installed"),
        (
            "cpu",
            {"nexfort": "0.1.dev291", "torch": "2.13.0", **NEXFORT_SET},
            "nexfort 0.1.dev291 needs torch 2.4; this is 2.13.0",
        ),
    ],
)
def test_nexforts_probe_says_what_is_missing(
    device: str, versions: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, **versions)
    spec = importlib.machinery.ModuleSpec("nexfort.inductor.codegen", None)
    monkeypatch.setattr(nexfort.importlib.util, "find_spec", lambda name: spec)
    verdict = nexfort.Nexfort().probe(device)
    assert (verdict.supported, verdict.reason) == (False, words)


# -- oneflow -------------------------------------------------------------------------------------


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand-ins for OneFlow and for OneDiff's part of it; counts how often it was waited for."""
    told = SimpleNamespace(syncs=0)

    @dataclasses.dataclass
    class OneflowCompileOptions:
        dynamic: bool = True
        use_graph: bool = True
        max_cached_graph_size: int = 9
        run_graph_by_vm: Any = None
        mlir_prefer_nhwc: Any = None

    def sync() -> None:
        told.syncs += 1

    module: Any = ModuleType("oneflow")
    module._oneflow_internal = SimpleNamespace(
        eager=SimpleNamespace(Sync=sync), GetCUDAMemoryUsed=lambda: 3
    )
    variables: Any = ModuleType("onediff.infer_compiler.backends.env_var")
    variables.OneflowCompileOptions = OneflowCompileOptions
    monkeypatch.setitem(sys.modules, "oneflow", module)
    monkeypatch.setitem(sys.modules, "onediff.infer_compiler.backends.env_var", variables)
    return told


def test_the_placeholder_is_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, oneflow="0.7.0")
    verdict = oneflow.Oneflow().probe("cpu")
    assert not verdict.supported
    assert verdict.reason is not None
    assert verdict.reason.startswith("oneflow 0.7.0 is a placeholder on PyPI that raises")


@pytest.mark.usefixtures("flow")
def test_pypis_wheel_is_refused_for_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, oneflow="0.9.0", onediff="1.2.0", onediffx="1.2.0", torch="2.0.1")
    monkeypatch.setattr(oneflow.importlib.util, "find_spec", lambda name: None)
    verdict = oneflow.Oneflow().probe("cpu")
    assert not verdict.supported
    assert verdict.reason is not None
    assert "No module named 'oneflow.framework.args_tree'" in verdict.reason


@pytest.mark.usefixtures("flow")
def test_graphs_are_saved_once_and_loaded_the_next_time(calls: Calls, tmp_path: Path) -> None:
    graph = Graphed(_deployable_module_dpl_graph=SimpleNamespace(is_compiled=True))
    pipe = pipeline(unet=graph)
    options = oneflow.OneflowOptions(run_graph_by_vm=True, ignores=("vae", "text_encoder"))
    first = oneflow.Oneflow()
    assert isinstance(first, KeepsCompiled)
    assert first.prepare(pipe, options).compiled == ("unet",)
    assert dataclasses.asdict(calls.compiled[0]["options"]) == {
        "dynamic": True,
        "use_graph": True,
        "max_cached_graph_size": 9,
        "run_graph_by_vm": True,
        "mlir_prefer_nhwc": None,
    }
    assert not calls.loaded
    first.keep(pipe)
    folder = str(tmp_path / "oneflow")
    assert calls.saved == [{"dir": folder, "ignores": ("vae", "text_encoder"), "overwrite": False}]
    assert first.evidence().fallback is None

    second = oneflow.Oneflow()
    second.prepare(pipe, options)
    assert calls.loaded == [{"dir": folder, "ignores": ("vae", "text_encoder")}]
    second.keep(pipe)
    assert len(calls.saved) == 1
    assert second.evidence().details["graphs_loaded"] == ["unet"]


@pytest.mark.usefixtures("flow", "calls")
def test_a_denoiser_without_graph_is_a_fallback() -> None:
    backend = oneflow.Oneflow()
    backend.prepare(pipeline(), oneflow.OneflowOptions())
    assert backend.evidence().fallback == "OneFlow holds no compiled graph for unet"


@pytest.mark.usefixtures("calls")
def test_oneflow_is_waited_for_and_weighed_by_its_own_meter(flow: SimpleNamespace) -> None:
    backend = oneflow.Oneflow()
    assert isinstance(backend, HasRuntime)
    backend.synchronize()
    assert flow.syncs == 1
    backend.prepare(pipeline(), oneflow.OneflowOptions())
    meter, value, reason = backend.memory_used()
    assert (meter, value) == ("oneflow.device_used", None)
    assert reason is not None
    backend.prepare(pipeline(device="cuda:0"), oneflow.OneflowOptions())
    assert backend.memory_used() == ("oneflow.device_used", 3 * 2**20, None)


def test_parts_and_scopes() -> None:
    parts = onediff.parts_of(pipeline(text_encoder_2=SimpleNamespace()), ())
    assert parts == ("text_encoder", "text_encoder_2", "unet", "vae.decoder", "vae.encoder")
    assert onediff.scopes_of(("image_encoder", *parts))[-2:] == ("vae.decode", "vae.encode")


def test_version_numbers() -> None:
    assert packages.numbers("2.4.0+cu121") == (2, 4)
    assert packages.numbers("2") == (2, 0)
    assert packages.numbers("") == (0, 0)
