"""Memory modes: what is refused, the order in which they are applied, and the proof of each."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from bench.worker import memory_modes
from bench.worker.memory_modes import ModeError
from tests.worker import fakes, tiny

pytestmark = pytest.mark.thorough


def work(memory: str | None, **changes: Any) -> dict[str, Any]:
    made = {"batch": 2, "height": 64, "width": 64, **changes}
    return made if memory is None else {**made, "memory": memory}


class Recorder:
    """A pipeline that minds the order of what is done to it, as diffusers' on a GPU do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.components: dict[str, Any] = {}
        self.vae = SimpleNamespace(
            enable_slicing=lambda: self.do("vae-slicing"),
            enable_tiling=lambda: self.do("vae-tiling"),
        )

    def do(self, what: str) -> None:
        if any("offload" in earlier for earlier in self.done):
            raise AssertionError(f"{what} after an offload")
        if "offload" in what and "to" in self.done:
            raise AssertionError(f"{what} after .to()")
        self.done.append(what)

    def to(self, device: str) -> None:
        self.do("to")

    def enable_xformers_memory_efficient_attention(self) -> None:
        self.do("xformers")

    def enable_model_cpu_offload(self, device: str) -> None:
        assert device == "cuda:1"
        self.do("model-offload")

    def enable_sequential_cpu_offload(self, device: str) -> None:
        self.do("sequential-offload")


@pytest.mark.parametrize(
    ("memory", "order"),
    [
        (None, ["to"]),
        ("vae-slicing", ["vae-slicing", "to"]),
        ("model-offload", ["model-offload"]),
        ("sequential-offload", ["sequential-offload"]),
        (
            "xformers+vae-slicing+vae-tiling+model-offload",
            ["xformers", "vae-slicing", "vae-tiling", "model-offload"],
        ),
    ],
)
def test_an_offload_is_last_and_takes_the_place_of_the_move(memory, order):
    pipeline = Recorder()
    memory_modes.place(pipeline, work(memory), "cuda:1")
    assert pipeline.done == order


def test_the_recorder_would_notice_a_move_before_an_offload():
    pipeline = Recorder()
    pipeline.to("cuda")
    with pytest.raises(AssertionError, match=r"after \.to"):
        pipeline.enable_model_cpu_offload("cuda:1")


@pytest.mark.parametrize("offload", ["model-offload", "sequential-offload", "group-offload"])
def test_an_offloaded_model_is_built_on_the_cpu(offload, monkeypatch):
    from bench.worker import sources

    built: list[str] = []
    placed: list[str] = []

    def build(name: str, task: str, dtype: Any, device: str) -> Any:
        built.append(device)
        pipeline = SimpleNamespace(set_progress_bar_config=lambda disable: None)
        return sources.Loaded(pipeline, None, False)

    monkeypatch.setattr(sources, "_load_embedded", build)
    monkeypatch.setattr(memory_modes, "place", lambda _p, _w, device: placed.append(device) or [])
    asked = {"model": "embedded:sdxl", "task": "text-to-image", "dtype": "float32"}
    for memory in (None, "vae-tiling", f"vae-tiling+{offload}"):
        workload = work(memory, scheduler=None, **asked)
        sources.load(workload, "cuda:0", allow_remote_code=False)
    assert built == ["cuda:0", "cuda:0", "cpu"]
    assert placed == ["cuda:0"] * 3


@pytest.mark.parametrize(
    ("memory", "device", "backend", "outcome", "said"),
    [
        ("model-offload", "cpu", "none", "unsupported", "host's memory, where offloaded"),
        ("group-offload", "mps", "none", "unsupported", "host's own memory"),
        ("xformers", "cpu", "none", "unsupported", "CUDA only"),
        ("model-offload+group-offload", "cuda:0", "none", "unsupported", "keep one"),
        ("sequential-offload", "cuda:0", "torch-compile", "unsupported", "every single layer"),
    ],
)
def test_what_cannot_work_is_refused_before_loading(memory, device, backend, outcome, said):
    found = memory_modes.refusal(work(memory), device, backend, {})
    assert found is not None
    assert found[0] == outcome
    assert said in found[1]


@pytest.mark.parametrize(
    ("memory", "package"), [("model-offload", "accelerate"), ("xformers", "xformers")]
)
def test_a_missing_package_is_unavailable_with_its_name(memory, package, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else find(name)
    )
    outcome, reason = memory_modes.refusal(work(memory), "cuda:0", "none", {}) or ("", "")
    assert outcome == "unavailable"
    assert package in reason


def test_an_old_diffusers_has_no_group_offload(monkeypatch):
    monkeypatch.setattr(memory_modes, "_has_group_offload", lambda: False)
    outcome, reason = memory_modes.refusal(work("group-offload"), "cuda:0", "none", {}) or ("", "")
    assert outcome == "unsupported"
    assert "0.33" in reason


@pytest.mark.parametrize("memory", [None, "attention-slicing", "vae-slicing+vae-tiling"])
def test_what_works_everywhere_is_not_refused(memory):
    assert memory_modes.refusal(work(memory), "cpu", "torch-compile", {}) is None


def test_a_cell_on_a_cpu_ends_before_it_loads_anything(tmp_path, monkeypatch):
    fakes.give(monkeypatch, AssertionError("something was loaded"))
    told = fakes.run(fakes.make_job(tmp_path, memory="sequential-offload"))
    assert told.outcome == "unsupported"
    assert "sequential-offload needs a device with memory of its own" in str(told.reason)
    assert told.phases == []


# ------------------------------------------------------------------ diffusers' own pipelines


@pytest.fixture
def pipeline() -> Any:
    return load("sdxl")


def load(kind: str) -> Any:
    import diffusers

    names = {"sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline"}
    return getattr(diffusers, names[kind]).from_pretrained(tiny.shared(kind))


def proof(pipeline: Any, memory: str, calls: int | None = None, **size: Any) -> dict[str, Any]:
    return memory_modes.found(pipeline, work(memory, **size), "cpu", calls)


def test_slicing_puts_sliced_processors_in_place_and_warns(pipeline):
    asked = "attention-slicing"
    assert memory_modes.failure_of(proof(pipeline, asked)) is not None
    (note,) = memory_modes.place(pipeline, work(asked), "cpu")
    assert "fused" in note
    seen = proof(pipeline, asked)
    assert seen["active"] == [asked]
    assert memory_modes.failure_of(seen) is None
    kinds = seen["details"]["attention_processors"]
    assert kinds["SlicedAttnProcessor"] > 0
    assert all(p.slice_size > 0 for p in pipeline.unet.attn_processors.values())
    pipeline.disable_attention_slicing()
    assert "attention-slicing" in str(memory_modes.failure_of(proof(pipeline, asked)))


def test_a_transformer_has_no_slices_to_take():
    with pytest.raises(ModeError, match="no part of StableDiffusion3Pipeline"):
        memory_modes.place(load("sd3"), work("attention-slicing"), "cpu")


def test_autoencoder_modes_are_flags_whose_effect_depends_on_batch_and_size(pipeline):
    asked = "vae-slicing+vae-tiling"
    assert proof(pipeline, asked)["active"] == []
    memory_modes.place(pipeline, work(asked), "cpu")
    side = pipeline.vae.tile_sample_min_size
    small = proof(pipeline, asked, batch=1, height=side, width=side)
    assert small["active"] == ["vae-slicing", "vae-tiling"]
    assert set(small["idle"]) == {"vae-slicing", "vae-tiling"}
    assert len(memory_modes.warnings_of(small)) == 2
    assert proof(pipeline, asked, batch=2, height=side, width=side + 8)["idle"] == {}
    assert memory_modes.warnings_of(proof(pipeline, asked, height=2 * side)) == []


def test_a_decoder_that_ran_once_on_everything_disproves_the_switch(pipeline):
    memory_modes.place(pipeline, work("vae-slicing"), "cpu")
    assert proof(pipeline, "vae-slicing", calls=2)["active"] == ["vae-slicing"]
    assert proof(pipeline, "vae-slicing", calls=1)["active"] == []
    assert proof(pipeline, "vae-slicing", calls=1, batch=1)["active"] == ["vae-slicing"]


def test_no_autoencoder_no_switch():
    bare = SimpleNamespace(components={}, to=lambda device: None)
    with pytest.raises(ModeError, match="no autoencoder"):
        memory_modes.place(bare, work("vae-tiling"), "cpu")
    bare.vae = SimpleNamespace()
    with pytest.raises(ModeError, match="no enable_tiling"):
        memory_modes.place(bare, work("vae-tiling"), "cpu")


@pytest.mark.parametrize("offload", ["model-offload", "sequential-offload", "group-offload"])
def test_hooks_prove_an_offload_and_pictures_stay_the_same(offload, pipeline, monkeypatch):
    """On the CPU diffusers' own hooks run as on a GPU; only nothing is saved."""
    import accelerate

    # diffusers names the device cpu:0, to which torch copies even what is on the CPU already.
    hook = accelerate.cpu_offload
    monkeypatch.setattr(
        accelerate, "cpu_offload", lambda part, _device, **more: hook(part, "cpu", **more)
    )
    if offload == "group-offload" and not memory_modes._has_group_offload():
        pytest.skip("this diffusers has no group offload")
    import torch

    def picture() -> Any:
        return pipeline(
            "a red house", num_inference_steps=1, height=64, width=64, output_type="np",
            generator=torch.Generator().manual_seed(1),
        ).images  # fmt: skip

    pipeline.set_progress_bar_config(disable=True)
    before = picture()
    assert memory_modes.failure_of(proof(pipeline, offload)) is not None
    memory_modes.place(pipeline, work(offload), "cpu")
    after = picture()
    seen = proof(pipeline, offload)
    assert seen["active"] == [offload]
    assert (before == after).all()
    where = set(seen["details"]["resident"].values())
    assert where == ({"meta"} if offload == "sequential-offload" else {"cpu"})


@pytest.mark.parametrize(
    ("homes", "active"),
    [
        ({"text_encoder": "cpu", "unet": "cpu", "vae": "cpu"}, True),
        ({"text_encoder": "cpu", "unet": "cpu", "vae": "cuda"}, True),
        ({"text_encoder": "cpu", "unet": "cuda", "vae": "cuda"}, False),
    ],
)
def test_parts_that_stay_on_the_device_disprove_an_offload(homes, active):
    def part(home: str) -> Any:
        weight = SimpleNamespace(device=SimpleNamespace(type=home))
        return SimpleNamespace(
            _hf_hook=1, named_modules=list, modules=list, parameters=lambda: [weight]
        )

    pipeline = SimpleNamespace(components={name: part(home) for name, home in homes.items()})
    seen = memory_modes.found(pipeline, work("model-offload"), "cuda:0", None)
    assert seen["details"]["resident"] == homes
    assert (memory_modes.failure_of(seen) is None) == active


# ------------------------------------------------------------------------------- whole cells


def test_a_whole_cell_says_what_is_active_and_counts_the_decoder(tmp_path):
    job = fakes.make_job(
        tmp_path,
        model=f"path:{tiny.shared('sdxl')}",
        memory="attention-slicing+vae-slicing+vae-tiling",
        batch=2,
        steps=1,
        between="gc",
        warmup={"stable_pct": 1000.0},
    )
    told = fakes.run(job)
    assert (told.outcome, told.reason) == ("ok", None)
    seen = told["memory_modes"]
    assert seen["active"] == ["attention-slicing", "vae-slicing", "vae-tiling"]
    assert seen["details"]["decoder_calls"] == 2
    assert len(told["between_s"]) == len(told["e2e_s"]) == 3
    assert min(told["between_s"]) > 0


def test_a_mode_that_something_undoes_is_a_fallback(tmp_path, monkeypatch):
    from compilers import none

    def prepare(self: Any, pipeline: Any, options: Any) -> Any:
        pipeline.vae.disable_slicing()
        return own(self, pipeline, options)

    backend: Any = next(v for v in vars(none).values() if getattr(v, "name", None) == "none")
    own = backend.prepare
    monkeypatch.setattr(backend, "prepare", prepare)
    job = fakes.make_job(
        tmp_path,
        model=f"path:{tiny.shared('sdxl')}",
        memory="vae-slicing",
        batch=2,
        steps=1,
        warmup={"stable_pct": 1000.0},
    )
    told = fakes.run(job)
    assert told.outcome == "fallback"
    assert "memory mode vae-slicing was switched on" in str(told.reason)


def test_an_xformers_that_does_not_work_is_unavailable():
    def broken() -> None:
        raise RuntimeError("no kernel image")

    pipeline = Recorder()
    pipeline.enable_xformers_memory_efficient_attention = broken  # type: ignore[method-assign]
    with pytest.raises(ModeError, match="no kernel image") as error:
        memory_modes.place(pipeline, work("xformers"), "cuda:0")
    assert error.value.outcome == "unavailable"
