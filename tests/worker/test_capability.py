"""Imports learn what a GPU can do without starting CUDA; whatever else they ask starts it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bench.worker import capability, template


class Cuda:
    """``torch.cuda`` of a machine with one GPU; counts how often it was started."""

    def __init__(self) -> None:
        self.started = 0

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return self.started > 0

    def current_device(self) -> int:
        self.started += 1
        return 0

    def get_device_properties(self, device: Any = None) -> Any:
        self.started += 1
        return SimpleNamespace(major=9, minor=0, name="A GPU", device=device)


class Nvml:
    """NVML of a machine with GPUs of these capabilities."""

    def __init__(self, *capabilities: tuple[int, int]) -> None:
        self.capabilities = capabilities
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.capabilities)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> list[int]:  # noqa: N802
        return list(self.capabilities[handle])


def test_the_capability_is_told_without_starting_cuda():
    cuda = Cuda()
    with capability.told_by_nvml(cuda, lambda: (9, 0)):
        properties = cuda.get_device_properties(cuda.current_device())
        assert (properties.major, properties.minor) == (9, 0)
        assert cuda.started == 0


def test_what_nvml_was_not_asked_for_starts_cuda():
    cuda = Cuda()
    with capability.told_by_nvml(cuda, lambda: (9, 0)):
        assert cuda.get_device_properties("cuda:0").name == "A GPU"
    assert cuda.started == 1


@pytest.mark.parametrize("kept", ["get_device_properties", "current_device"])
def test_what_a_module_kept_is_torchs_own_afterwards(kept):
    cuda = Cuda()
    with capability.told_by_nvml(cuda, lambda: (9, 0)):
        function: Callable[[], Any] = getattr(cuda, kept)
    function()
    assert cuda.started == 1
    assert getattr(cuda, kept).__self__ is cuda, "torch's own is back in its place"


def test_without_an_answer_torch_is_asked():
    cuda = Cuda()
    with capability.told_by_nvml(cuda, lambda: None):
        assert cuda.get_device_properties().major == 9
    assert cuda.started == 1


def test_nvml_is_asked_once_and_only_when_somebody_asks():
    asked = []
    cuda = Cuda()
    with capability.told_by_nvml(cuda, lambda: asked.append(1) or (9, 0)):  # type: ignore[func-returns-value]
        assert not asked
        for _ in range(3):
            cuda.get_device_properties()
    assert len(asked) == 1


def test_properties_that_torchs_compiler_kept_are_forgotten(monkeypatch):
    interface = ModuleType("torch._dynamo.device_interface")
    kept: dict[str, Any] = {"cuda": ["of an import"], "xpu": ["stays"]}
    interface.caching_worker_device_properties = kept  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    with capability.told_by_nvml(Cuda(), lambda: (9, 0)):
        pass
    assert kept == {"xpu": ["stays"]}


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [([(9, 0)], (9, 0)), ([(9, 0), (9, 0)], (9, 0)), ([(9, 0), (8, 9)], None), ([], None)],
)
def test_only_gpus_that_are_alike_have_one_answer(gpus, expected):
    library = Nvml(*gpus)
    assert capability.of_all_gpus(library) == expected
    assert library.open == 0


def test_a_driver_that_fails_gives_no_answer():
    assert capability.of_all_gpus(SimpleNamespace()) is None


def test_imports_of_the_template_are_told(monkeypatch):
    """As torchao does: what is imported after torch looks at the GPU."""
    cuda = Cuda()
    torch = ModuleType("torch")
    torch.cuda = cuda  # type: ignore[attr-defined]
    asking = ModuleType("asking")

    def ask(_name: str) -> Any:
        return cuda.get_device_properties().major

    asking.__getattr__ = ask  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "asking", asking)
    monkeypatch.setattr(capability.nvml, "bindings", lambda: Nvml((9, 0)))
    template.preload("torch,asking:capability")
    assert cuda.started == 0
