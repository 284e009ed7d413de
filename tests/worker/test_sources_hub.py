"""``hub:`` against a small hub on the loopback device, which serves or refuses as told."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.worker import sources
from bench.worker.sources import Loaded, SourceError, hub
from tests.worker import tiny

pytestmark = pytest.mark.thorough

REPO = "someone/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "Zz9" * 10


@dataclasses.dataclass
class Hub:
    """What the server holds, how it refuses, and what it was asked."""

    files: dict[str, bytes]
    status: int = 200  # of the model's description
    file_status: int = 200
    error_code: str = ""
    release: threading.Event | None = None  # a hub that hangs until this is set
    asked: list[str] = dataclasses.field(default_factory=list)
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)

    def size(self, name: str) -> int:
        return self.sizes.get(name, len(self.files[name]))


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        served: Hub = self.server.served
        location = self.path.partition("?")[0]
        served.asked.append(f"{self.command} {location}")
        if served.release is not None:
            served.release.wait(30)
        if location.startswith(f"/api/models/{REPO}"):
            if served.status != 200:
                self.refuse(served.status, served.error_code)
                return
            listing = [
                {"rfilename": name, "size": served.size(name)} for name in sorted(served.files)
            ]
            if "/tree/" in location:
                tree = [
                    {
                        "type": "file",
                        "path": name,
                        "size": served.size(name),
                        "oid": hashlib.sha1(served.files[name]).hexdigest(),
                    }
                    for name in sorted(served.files)
                ]
                self.send(json.dumps(tree).encode(), body=body)
            else:
                info = {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": listing}
                self.send(json.dumps({**info, "tags": [], "downloads": 0}).encode(), body=body)
            return
        revision, _, name = location.removeprefix(f"/{REPO}/resolve/").partition("/")
        if revision not in (COMMIT, "main") or name not in served.files:
            self.refuse(404, "EntryNotFound")
        elif served.file_status != 200:
            self.refuse(served.file_status, served.error_code)
        else:
            self.send(served.files[name], body=body)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, data: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextlib.contextmanager
def serving(served: Hub) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.served = served  # type: ignore[attr-defined]
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        if served.release is not None:
            served.release.set()
        server.shutdown()
        server.server_close()


@functools.cache
def tiny_files() -> dict[str, bytes]:
    folder = tiny.shared("sd15")
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with the tiny SD 1.x pipeline, and an empty cache."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    content = Hub(dict(tiny_files()))
    with serving(content) as endpoint:
        use(endpoint, monkeypatch)
        yield content


def load(model: str = REPO, **changes: Any) -> Loaded:
    given = tiny.workload(model=f"hub:{model}", **changes)
    return sources.load(given, "cpu", allow_remote_code=False)


def refusal(model: str = REPO, **changes: Any) -> SourceError:
    started = time.monotonic()
    with pytest.raises(SourceError) as caught:
        load(model, **changes)
    assert time.monotonic() - started < 30
    message = str(caught.value)
    assert "\n" not in message
    assert TOKEN not in message
    return caught.value


def test_a_model_is_fetched_once_and_its_commit_recorded(served):
    served.files["sd-v1.safetensors"] = b"gigabytes that no pipeline reads"
    served.files["unet/diffusion_pytorch_model.bin"] = b"pickled"
    served.files["unet/diffusion_pytorch_model.fp16.safetensors"] = b"another variant"
    loaded = load()
    assert loaded.revision == COMMIT
    assert type(loaded.pipeline).__name__ == "StableDiffusionPipeline"
    assert loaded.download_s > 0
    fetched = [each for each in served.asked if each.startswith("GET") and "resolve" in each]
    assert any(each.endswith("unet/diffusion_pytorch_model.safetensors") for each in fetched)
    assert not any(
        each.endswith((".bin", "v1.safetensors", "fp16.safetensors")) for each in fetched
    )
    before = len(fetched)
    load(task="image-to-image")
    after = [each for each in served.asked if each.startswith("GET") and "resolve" in each]
    assert len(after) == before


def test_a_cached_commit_needs_no_network(served):
    load()
    served.asked.clear()
    assert load(f"{REPO}@{COMMIT}").revision == COMMIT
    assert served.asked == []


def test_offline_with_a_cached_copy(served, monkeypatch):
    from huggingface_hub import constants

    load()
    served.status = 503
    loaded = load()
    assert loaded.revision == COMMIT
    assert any("used the cached copy" in note and "503" in note for note in loaded.notes)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load().revision == COMMIT


def test_offline_by_choice_without_a_copy(served, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refusal()
    assert error.outcome == "unavailable"
    assert "HF_HUB_OFFLINE forbids" in str(error)
    assert served.asked == []


@pytest.mark.parametrize(
    ("status", "code", "outcome", "text"),
    [
        (401, "GatedRepo", "unavailable", "accept its licence at http"),
        (403, "GatedRepo", "unavailable", "accept its licence at http"),
        (403, "", "unavailable", "hf auth login"),
        (401, "", "unavailable", "there is no such model, or it is private and no token is set"),
        (401, "RepoNotFound", "unavailable", "there is no such model"),
        (404, "RepoNotFound", "unavailable", "there is no such model"),
        (404, "RevisionNotFound", "failed", "no revision 'v9'"),
        (429, "", "unavailable", "too many requests (429)"),
        (500, "", "unavailable", "failed with status 500"),
        (503, "", "unavailable", "failed with status 503"),
    ],
)
def test_refusals_of_the_hub(served, status, code, outcome, text):
    served.status, served.error_code = status, code
    error = refusal(f"{REPO}@v9")
    assert error.outcome == outcome
    assert text in str(error)


def test_a_gated_model_whose_description_is_public(served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    served.file_status, served.error_code = 403, "GatedRepo"
    error = refusal()
    assert error.outcome == "unavailable"
    assert "your token has no access: accept its licence" in str(error)


def test_a_hub_that_hangs(served, monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_S", 0.2)
    monkeypatch.setattr(hub, "DEADLINE_S", 2.0)
    served.release = threading.Event()
    error = refusal()
    assert error.outcome == "unavailable"
    assert "cannot be fetched" in str(error)


def test_nobody_listens(served, monkeypatch):
    use("http://me:secret@127.0.0.1:9", monkeypatch)
    error = refusal()
    assert error.outcome == "unavailable"
    assert "cannot be reached" in str(error)
    assert "secret" not in str(error)


def test_a_name_that_cannot_be_resolved(served, monkeypatch):
    use("http://hub.invalid", monkeypatch)
    error = refusal()
    assert error.outcome == "unavailable"
    assert "http://hub.invalid cannot be reached" in str(error)


@pytest.mark.parametrize("model", ["model", "a/b/c", "a b/c", "/x", "a/", "../x/y", "a/b@"])
def test_names_that_are_no_models(served, model):
    if model == "a/b@":
        served.status = 404
    assert "hub:" in str(refusal(model))


def test_a_repository_without_a_pipeline(served):
    served.files = {"sd_xl_base.safetensors": b"", "README.md": b""}
    text = str(refusal())
    assert "has no model_index.json" in text
    assert "sd_xl_base.safetensors" in text


def test_pickled_weights_are_refused_before_anything_large(served):
    weights = served.files.pop("unet/diffusion_pytorch_model.safetensors")
    served.files["unet/diffusion_pytorch_model.bin"] = weights
    assert "no safetensors for unet" in str(refusal())
    assert not any(each.endswith((".safetensors", ".bin")) for each in served.asked)


def test_a_variant_that_is_not_there(served):
    assert "has no variant 'fp16'" in str(refusal(variant="fp16"))


def test_a_task_that_does_not_fit_is_refused_before_anything_large(served):
    index = json.loads(served.files["model_index.json"])
    index["_class_name"] = "DDPMPipeline"
    served.files["model_index.json"] = json.dumps(index).encode()
    assert "takes no prompt" in str(refusal())
    assert not any(each.endswith(".safetensors") for each in served.asked)


def test_code_of_the_repository_is_not_run(served):
    index = json.loads(served.files["model_index.json"])
    index["_class_name"] = ["pipeline", "Mine"]
    served.files["model_index.json"] = json.dumps(index).encode()
    served.files["pipeline.py"] = b"raise SystemExit('ran')"
    assert "allow_remote_code: true" in str(refusal())


def test_no_room_on_the_disk(served):
    served.sizes["unet/diffusion_pytorch_model.safetensors"] = 2**60
    error = refusal()
    assert error.outcome == "unavailable"
    assert "no room for the download" in str(error)
    assert "HF_HOME" in str(error)


def test_the_disk_fills_up_while_fetching(served, monkeypatch):
    import huggingface_hub

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub.HfApi, "snapshot_download", full)
    assert "no room for the download" in str(refusal())


def test_a_download_that_breaks_off(served, monkeypatch):
    import huggingface_hub

    def broken(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError("peer closed connection")

    monkeypatch.setattr(huggingface_hub.HfApi, "snapshot_download", broken)
    error = refusal()
    assert error.outcome == "unavailable"
    assert "broke off" in str(error)
    assert "run again" in str(error)


def test_a_fresh_process_says_nothing_of_its_token(tmp_path):
    """With HF_ENDPOINT, as a user sets it; a 401 answer; the whole output is searched."""
    script = (
        "import json, sys\n"
        "from bench.worker import sources\n"
        "try:\n"
        "    sources.load(json.loads(sys.argv[1]), 'cpu', allow_remote_code=False)\n"
        "except sources.SourceError as error:\n"
        "    print(error.outcome, error)\n"
    )
    content = Hub(dict(tiny_files()), status=401, error_code="GatedRepo")
    with serving(content) as endpoint:
        result = subprocess.run(
            [sys.executable, "-c", script, json.dumps(tiny.workload(model=f"hub:{REPO}"))],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            cwd=Path(__file__).parents[2],
            env={
                **{k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
                "HF_ENDPOINT": endpoint,
                "HF_TOKEN": TOKEN,
                "HF_HOME": str(tmp_path),
            },
        )
    assert result.stdout.startswith("unavailable access to hub:someone/model is restricted")
    assert TOKEN not in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_single_files_are_fetched_once_and_kept(served, monkeypatch):
    from huggingface_hub import constants

    served.files["own/style.safetensors"] = b"weights"
    folder = hub.fetch_files(REPO, ("own/style.safetensors",), "lora hub:x")
    assert (folder / "own" / "style.safetensors").read_bytes() == b"weights"
    assert folder.name == COMMIT
    with pytest.raises(SourceError, match="the repository has no style"):
        hub.fetch_files(REPO, ("style.safetensors",), "lora hub:x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(served.asked)
    pinned = hub.fetch_files(f"{REPO}@{COMMIT}", ("own/style.safetensors",), "lora hub:x")
    assert (pinned, len(served.asked)) == (folder, asked)
    with pytest.raises(SourceError) as caught:
        hub.fetch_files(REPO, ("other.safetensors",), "lora hub:x")
    assert caught.value.outcome == "unavailable"
