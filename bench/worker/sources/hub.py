"""``hub:ORG/NAME[@revision]``: real weights from the Hugging Face Hub, safetensors only.

What is needed is decided from the Hub's own list of files before anything large is fetched, so a
model that cannot be used is refused within seconds. When the Hub is out of reach or refuses, a
complete copy in the cache is used, and the record says so.
"""

from __future__ import annotations

import errno
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.worker import families
from bench.worker.errors import SourceError, one_line
from bench.worker.sources import Loaded, path

ANSWER_S = 8.0
"""Seconds that the Hub has for one small answer."""
DEADLINE_S = 20.0
"""Seconds for one small answer with all that the client does around it (names, retries)."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_GIB = 1024**3


class _NoAnswerError(Exception):
    """The Hub did not answer in time."""


def load(text: str, workload: Mapping[str, Any], dtype: Any, *, allow_remote_code: bool) -> Loaded:
    """Fetch what is missing of ``ORG/NAME[@revision]`` and load it onto the CPU."""
    repo, _, wanted = text.partition("@")
    revision = wanted or None
    shown = f"hub:{text}"
    if not _REPO.fullmatch(repo):
        raise SourceError(
            f"{shown} is no model of the Hub: write hub:ORG/NAME or hub:ORG/NAME@REV."
        )
    started = time.monotonic()
    folder, notes = _fetch(repo, revision, workload, shown, allow_remote_code)
    download_s = time.monotonic() - started
    try:
        pipeline, more = path.load_folder(
            folder, workload, dtype, shown=shown, allow_remote_code=allow_remote_code
        )
    except OSError as error:
        raise SourceError(f"{shown} cannot be read from {folder}: {one_line(error)}") from error
    return Loaded(pipeline, folder.name, False, (*notes, *more), download_s)


def fetch_files(text: str, names: Sequence[str], shown: str) -> Path:
    """Fetch single files of ``ORG/NAME[@revision]`` and return the folder that holds them.

    Args:
        names: paths inside the repository; weights among them must be safetensors.
        shown: how messages name it.
    """
    import huggingface_hub
    from huggingface_hub import constants

    repo, _, wanted = text.partition("@")
    revision = wanted or None
    if not _REPO.fullmatch(repo):
        raise SourceError(f"{shown} is nothing of the Hub: write hub:ORG/NAME or hub:ORG/NAME@REV.")
    kept = [huggingface_hub.try_to_load_from_cache(repo, name, revision=revision) for name in names]
    cached = None
    if all(isinstance(each, str) for each in kept):
        cached = Path(str(kept[0])[: -len(names[0])])
        if revision is not None and _COMMIT.fullmatch(revision):
            return cached
    api = huggingface_hub.HfApi()
    try:
        if constants.HF_HUB_OFFLINE:
            raise _NoAnswerError("HF_HUB_OFFLINE is set")
        info = _within(
            DEADLINE_S, lambda: api.model_info(repo, revision=revision, timeout=ANSWER_S)
        )
    except Exception as error:  # noqa: BLE001  # the client's exceptions differ by version
        if cached is not None:
            return cached
        raise _explain(error, repo, revision, shown) from None
    there = {each.rfilename for each in info.siblings or ()}
    missing = [name for name in names if name not in there]
    if missing:
        safe = [name for name in sorted(there) if name.endswith(".safetensors")]
        has = f"its safetensors are {', '.join(safe[:5])}" if safe else "it has no safetensors"
        raise SourceError(f"{shown}: the repository has no {missing[0]}; {has}.")
    try:
        files = [
            api.hf_hub_download(repo, name, revision=info.sha, etag_timeout=ANSWER_S)
            for name in names
        ]
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room(shown, Path(constants.HF_HUB_CACHE) / repo / "-" / "-") from None
        raise _interrupted(error, repo, revision, shown) from None
    except Exception as error:  # noqa: BLE001  # the client's exceptions differ by version
        raise _interrupted(error, repo, revision, shown) from None
    return Path(str(files[0])[: -len(names[0])])


def _fetch(
    repo: str,
    revision: str | None,
    workload: Mapping[str, Any],
    shown: str,
    allow_remote_code: bool,
) -> tuple[Path, tuple[str, ...]]:
    """The snapshot folder, named by its commit, with all that the pipeline needs."""
    import huggingface_hub
    from huggingface_hub import constants

    variant = workload["variant"]
    cached = _cached(repo, revision, variant, shown)
    if cached is not None and revision is not None and _COMMIT.fullmatch(revision):
        return cached, ()
    api = huggingface_hub.HfApi()
    try:
        if constants.HF_HUB_OFFLINE:
            raise _NoAnswerError("HF_HUB_OFFLINE is set")
        info = _within(
            DEADLINE_S,
            lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=ANSWER_S),
        )
        sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
        if path.INDEX not in sizes:
            raise SourceError(_no_index(shown, sizes))
        # By the asked revision, not the commit: so the cache learns which commit "main" is.
        index_file = _within(
            DEADLINE_S,
            lambda: api.hf_hub_download(repo, path.INDEX, revision=revision, etag_timeout=ANSWER_S),
        )
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001  # the client's exceptions differ by version
        refusal = _explain(error, repo, revision, shown)
        if cached is not None:
            return cached, (f"used the cached copy {cached.name[:12]}, because {refusal}",)
        # The cause is left out: a client's exception may hold addresses with credentials.
        raise refusal from None
    index = path.read_index(Path(index_file), shown)
    code = path.own_code(index, sizes)
    if code and not allow_remote_code:
        raise path.code_refused(shown, code)
    path.check_components(index, sizes, variant, shown)
    if not code:
        # The channels are not known before the download: assume that they fit.
        families.pipeline_class(index["_class_name"], workload["task"], 8)
    needed = _needed(index, sizes, variant, code)
    folder = Path(index_file).parent
    _check_room(folder, {name: sizes[name] for name in needed}, shown)
    try:
        api.snapshot_download(
            repo, revision=folder.name, allow_patterns=needed, etag_timeout=ANSWER_S
        )
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room(shown, folder) from None
        raise _interrupted(error, repo, revision, shown) from None
    except Exception as error:  # noqa: BLE001  # the client's exceptions differ by version
        raise _interrupted(error, repo, revision, shown) from None
    return folder, ()


def _cached(repo: str, revision: str | None, variant: str | None, shown: str) -> Path | None:
    """The folder of a complete cached copy, None if there is none."""
    import huggingface_hub

    file = huggingface_hub.try_to_load_from_cache(repo, path.INDEX, revision=revision)
    if not isinstance(file, str):
        return None
    folder = Path(file).parent
    try:
        files = [
            each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()
        ]
        path.check_components(path.read_index(Path(file), shown), files, variant, shown)
    except (SourceError, OSError):
        return None
    return folder


def _needed(
    index: Mapping[str, Any], files: Iterable[str], variant: str | None, code: Iterable[str]
) -> list[str]:
    """The files of a repository that its pipeline reads: configurations and chosen weights."""
    found = [path.INDEX, *code]
    files = list(files)
    for component in path.components(index):
        inside = [file for file in files if file.startswith(f"{component}/")]
        names = [file.partition("/")[2] for file in inside]
        found += [f"{component}/{name}" for name in path.select(names, variant)]
        found += [
            f"{component}/{name}"
            for name in names
            if name.endswith((".json", ".txt", ".model", ".jinja"))
        ]
    return found


def _check_room(folder: Path, sizes: Mapping[str, int], shown: str) -> None:
    missing = sum(size for name, size in sizes.items() if not (folder / name).is_file())
    if missing > shutil.disk_usage(folder).free:
        raise _no_room(shown, folder, missing)


def _no_room(shown: str, folder: Path, missing: int | None = None) -> SourceError:
    free = shutil.disk_usage(folder).free / _GIB
    need = "" if missing is None else f" of {missing / _GIB:.1f} GiB"
    return SourceError(
        f"there is no room for the download{need} of {shown}: {free:.1f} GiB are free at "
        f"{folder.parents[2]}. Make room, or set HF_HOME to a folder on a larger disk.",
        outcome="unavailable",
    )


def _no_index(shown: str, files: Iterable[str]) -> str:
    checkpoints = [file for file in files if file.endswith((".safetensors", ".ckpt"))]
    hint = ""
    if checkpoints:
        hint = (
            f" It has {checkpoints[0]}: if that is a single-file checkpoint, convert it once with "
            "from_single_file(FILE).save_pretrained(DIR) and use path:DIR."
        )
    return f"{shown} is no diffusers pipeline: the repository has no {path.INDEX}.{hint}"


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """Call ``function`` and return or raise what it does, or give up after ``seconds``.

    Time limits of the client cover neither looking up names nor waiting between retries.
    """
    result: list[Any] = []
    failure: list[BaseException] = []

    def call() -> None:
        try:
            result.append(function())
        except BaseException as error:  # noqa: BLE001  # re-raised in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not result:
        raise _NoAnswerError(f"no answer within {seconds:g} s")
    return result[0]


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an exception, where there is one."""
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        seen = seen.__cause__ or seen.__context__
    return None


def _explain(error: BaseException, repo: str, revision: str | None, shown: str) -> SourceError:
    """What a failed request means for the user, and what to do about it."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = re.sub(r"(?<=://)[^/@]*@", "", constants.ENDPOINT)
    login = "log in with `hf auth login` (or huggingface-cli login), or set HF_TOKEN"
    try:
        has_token = bool(huggingface_hub.get_token())
    except OSError:
        has_token = False
    status = _status(error)
    if isinstance(error, _NoAnswerError) and constants.HF_HUB_OFFLINE:
        return _unavailable(
            f"{shown} is not complete in the cache, and HF_HUB_OFFLINE forbids fetching it: unset "
            "it, copy the cache from another machine and set HF_HOME, or use path:DIR."
        )
    if isinstance(error, GatedRepoError) or status == 403:
        who = "your token has no access" if has_token else "no token is set"
        return _unavailable(
            f"access to {shown} is restricted, and {who}: accept its licence at "
            f"{endpoint}/{repo} and {login}."
        )
    if isinstance(error, RevisionNotFoundError):
        return SourceError(
            f"{shown}: the model has no revision {revision!r}; see {endpoint}/{repo}/commits/main."
        )
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        who = "the token in use may not see it" if has_token else "no token is set"
        return _unavailable(
            f"{shown} was not found: there is no such model, or it is private and {who}. Check the "
            f"name at {endpoint}; for a private model {login}."
        )
    if status == 429:
        return _unavailable(
            f"the Hub refuses {shown} for now, because of too many requests (429): wait some "
            f"minutes{'' if has_token else ' or ' + login}."
        )
    if status is not None:
        return _unavailable(f"the Hub at {endpoint} failed with status {status}: try again later.")
    return _unavailable(
        f"{shown} cannot be fetched: {endpoint} cannot be reached ({type(error).__name__}). "
        "Check the network and proxy, or use path:DIR, an embedded: or a synthetic: model; a "
        "cached copy is used if it is complete and HF_HOME points to it."
        if not isinstance(error, _NoAnswerError)
        else f"{shown} cannot be fetched: {endpoint} gave {error}. Check the network and proxy, or "
        "use path:DIR, an embedded: or a synthetic: model."
    )


def _interrupted(error: BaseException, repo: str, revision: str | None, shown: str) -> SourceError:
    if _status(error) in (401, 403, 404):
        return _explain(error, repo, revision, shown)
    return _unavailable(
        f"the download of {shown} broke off ({type(error).__name__}): run again to go on, what has "
        "arrived is kept."
    )


def _unavailable(message: str) -> SourceError:
    return SourceError(message, outcome="unavailable")
