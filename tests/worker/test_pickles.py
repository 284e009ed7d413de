"""A pickle planted anywhere in a model is never opened: loading it would make a file."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from bench.worker import sources
from bench.worker.sources import SourceError, path
from tests.worker import tiny

WEIGHTED = [
    (kind, part)
    for kind, parts in {
        "sd15": ("unet", "vae", "text_encoder"),
        "sdxl": ("unet", "text_encoder", "text_encoder_2"),
        "sd3": ("transformer", "text_encoder"),
        "flux": ("transformer", "vae", "text_encoder_2"),
    }.items()
    for part in parts
]


class Planted:
    """When unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "was-run"


def plant(file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps({"weight": Planted(mark)}))


def stem(part: Path) -> str:
    return next(part.glob("*.safetensors")).name.removesuffix(".safetensors")


def index_to(part: Path, name: str, variant: str = "") -> None:
    index = part / f"{stem(part)}.safetensors.index{variant}.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"weight": name}}))


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(SourceError) as caught:
        sources.load(
            tiny.workload(model=f"path:{folder}", **changes), "cpu", allow_remote_code=False
        )
    return str(caught.value)


def test_the_plant_works(tmp_path, mark):
    plant(tmp_path / "w.bin", mark)
    pickle.loads((tmp_path / "w.bin").read_bytes())
    assert mark.exists()


@pytest.mark.parametrize(("kind", "part"), WEIGHTED)
@pytest.mark.parametrize("name", ["w.bin", "../w.bin", "safetensors", "x.safetensors/../w.pt"])
def test_an_index_that_maps_to_a_pickle(kind, part, name, tmp_path, mark):
    folder = shutil.copytree(tiny.shared(kind), tmp_path / "model")
    for place in (folder / part, folder):
        plant(place / "w.bin", mark)
    index_to(folder / part, name)
    message = refusal(folder)
    assert f"{part}/" in message
    assert "only .safetensors files beside it are read" in message
    assert not mark.exists()


def test_an_index_of_a_variant(tmp_path, mark):
    folder = shutil.copytree(tiny.shared("sd15"), tmp_path / "model")
    plant(folder / "unet" / "w.bin", mark)
    index_to(folder / "unet", "w.bin", ".fp16")
    assert "maps to 'w.bin'" in refusal(folder)
    assert not mark.exists()


@pytest.mark.parametrize("written", ["", "[]", "{}", '{"weight_map": [1]}', "[" * 100_000])
def test_an_index_that_is_none(written, tmp_path):
    folder = shutil.copytree(tiny.shared("sd15"), tmp_path / "model")
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(written)
    assert "is no index of weights" in refusal(folder)


def test_a_pickle_by_the_name_of_safetensors(tmp_path, mark):
    folder = shutil.copytree(tiny.shared("sd15"), tmp_path / "model")
    plant(folder / "unet" / "part.safetensors", mark)
    index_to(folder / "unet", "part.safetensors")
    assert "unet/part.safetensors is" in refusal(folder)
    assert not mark.exists()


def test_an_adapter_beside_a_component(tmp_path, mark):
    folder = shutil.copytree(tiny.shared("sd15"), tmp_path / "model")
    (folder / "text_encoder" / "adapter_config.json").write_text("{}")
    plant(folder / "text_encoder" / "adapter_model.bin", mark)
    assert "names weights of another place" in refusal(folder)
    assert not mark.exists()


def test_a_control_net(tmp_path, mark):
    from bench.worker.sources import additions, embedded

    net = shutil.copytree(embedded.ASSETS / "controlnet-edges", tmp_path / "net")
    plant(net / "w.bin", mark)
    index_to(net, "w.bin")
    with pytest.raises(SourceError, match=r"maps to 'w\.bin'"):
        additions._controlnet(f"path:{net}", None)
    assert not mark.exists()


def test_what_a_library_wants_to_unpickle_is_refused(tmp_path, mark):
    import torch

    plant(tmp_path / "w.bin", mark)
    load = torch.load
    with pytest.raises(SourceError, match=r"w\.bin is pickled"), path.no_pickles("path:model"):
        torch.load(tmp_path / "w.bin", weights_only=False)
    assert torch.load is load
    assert not mark.exists()


def test_a_header_of_twenty_gib_is_not_read(tmp_path):
    file = tmp_path / "unet" / "w.safetensors"
    file.parent.mkdir()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", 20 * 1024**3))
        stream.truncate(8 + 20 * 1024**3)
    with pytest.raises(SourceError, match="its header would have"):
        path.check_safetensors(file, "path:model")
