from __future__ import annotations

import hashlib
from pathlib import Path

from bench import content


def test_a_file_is_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(data)
    assert content.of_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_folder_is_its_small_files_and_samples_of_large_ones(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    weights = tmp_path / "unet" / "model.safetensors"
    data = bytearray(3 * 2**20)

    def of(**changes: int) -> str:
        changed = bytearray(data)
        for at in changes.values():
            changed[at] = 1
        weights.write_bytes(changed)
        return content.of_folder(tmp_path)

    plain = of()
    assert len(plain) == 16
    assert plain not in {of(start=0), of(middle=len(data) // 2), of(end=len(data) - 1)}
    assert plain == of(unseen=2**20)  # between the samples, as documented
    (tmp_path / "README.md").write_text("what others say about it")
    assert plain == of()
    (tmp_path / "model_index.json").write_text("{}")
    assert plain != of()
