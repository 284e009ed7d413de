"""``path:DIR``: a diffusers folder on this machine. Also what a hub download becomes."""

from __future__ import annotations

import errno
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import content, files
from bench.worker import families
from bench.worker.errors import SourceError, nearest, one_line
from bench.worker.sources import Loaded

INDEX = "model_index.json"
ADAPTER = "adapter_config.json"
"""Beside a component, it makes transformers load an adapter, pickled ones too."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SINGLE_FILES = (".safetensors", ".gguf", *_PICKLES)
_INDEX = re.compile(r"\.safetensors\.index\b.*\.json$")
_PLAIN_NAME = re.compile(r"(?!\.)[^/\\\x00]+\.safetensors")
_WEIGHTS = re.compile(
    r"^(?:diffusion_pytorch_model|model|pytorch_model)"
    r"(?:\.(?P<variant>[A-Za-z0-9_]+))?"
    r"(?:-(?P<part>\d+)-of-(?P<parts>\d+))?"
    r"(?:\.(?P<late>[A-Za-z0-9_]+))?\.safetensors$"
)


def load(text: str, workload: Mapping[str, Any], dtype: Any, *, allow_remote_code: bool) -> Loaded:
    """Load the folder ``text``, which may be relative to the current folder or start with ``~``."""
    folder = Path(text).expanduser()
    if not folder.is_absolute():
        folder = Path.cwd() / folder
    shown = f"path:{text}" if folder == Path(text) else f"path:{text} ({folder})"
    try:
        _check_folder(folder, shown)
        pipeline, notes = load_folder(
            folder, workload, dtype, shown=shown, allow_remote_code=allow_remote_code
        )
        return Loaded(pipeline, f"folder-{content.of_folder(folder)}", False, notes)
    except OSError as error:
        raise SourceError(
            f"{shown} cannot be read: {error.strerror or one_line(error)}."
        ) from error


def load_folder(
    folder: Path,
    workload: Mapping[str, Any],
    dtype: Any,
    *,
    shown: str,
    allow_remote_code: bool,
) -> tuple[Any, tuple[str, ...]]:
    """Load a diffusers folder onto the CPU; return the pipeline and notes for the record."""
    import diffusers

    index = read_index(folder / INDEX, shown)
    variant = workload["variant"]
    check_components(index, content.listing(folder), variant, shown)
    for name in components(index):
        check_weights(folder / name, variant, shown)
    code = own_code(index, content.listing(folder))
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    options[_dtype_keyword()] = dtype
    if variant is not None:
        options["variant"] = variant
    task = workload["task"]
    if code:
        if not allow_remote_code:
            raise code_refused(shown, code)
        pipeline_class: Any = diffusers.DiffusionPipeline
        options["trust_remote_code"] = True
        if isinstance(index["_class_name"], list):
            options["custom_pipeline"] = str(folder)
    else:
        channels = denoiser_channels(folder)
        pipeline_class = families.pipeline_class(index["_class_name"], task, channels)
        _check_names(index, shown)
    try:
        with no_pickles(shown):
            pipeline = pipeline_class.from_pretrained(str(folder), **options)
    except SourceError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
            raise
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            raise
        raise SourceError(
            f"{shown} cannot be loaded as {pipeline_class.__name__} by diffusers "
            f"{diffusers.__version__}: {one_line(error)}"
        ) from error
    if code:
        families.work_of(task).check(type(pipeline))
    notes = []
    if getattr(pipeline, "safety_checker", None) is not None:
        notes.append(
            "this model has a safety checker, which takes time and turns pictures black "
            "that it finds unsafe"
        )
    return pipeline, tuple(notes)


def read_index(file: Path, shown: str) -> dict[str, Any]:
    """Read ``model_index.json``; raise SourceError if it is no description of a pipeline."""
    try:
        index = json.loads(files.read(file, files.CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{shown}: {INDEX} is no valid JSON: {one_line(error)}") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), (str, list)):
        raise SourceError(f"{shown}: {INDEX} names no pipeline class (_class_name).")
    return index


def components(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Name to (library, class) of each component that ``model_index.json`` lists as present."""
    return {
        name: (value[0], value[1])
        for name, value in index.items()
        if not name.startswith("_")
        and isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], str)
    }


def own_code(index: Mapping[str, Any], files: Iterable[str]) -> list[str]:
    """Python files that come with the model and that loading would run."""
    present = set(files)
    found = []
    if isinstance(index["_class_name"], list):
        found.append(f"{index['_class_name'][0]}.py")
    for name, (library, _) in components(index).items():
        if f"{name}/{library}.py" in present:
            found.append(f"{name}/{library}.py")
    return found


def code_refused(shown: str, code: Iterable[str]) -> SourceError:
    return SourceError(
        f"{shown} comes with Python code of its own ({', '.join(code)}), which is not run: "
        "read it, then set allow_remote_code: true, if you trust it."
    )


def check_components(
    index: Mapping[str, Any], files: Iterable[str], variant: str | None, shown: str
) -> None:
    """Check by file names that every component is there as safetensors of the asked variant."""
    by_folder = _by_folder(files)
    has_variant = False
    variants: set[str] = set()
    without_plain: list[str] = []
    for name in components(index):
        names = by_folder.get(name)
        if names is None:
            raise SourceError(
                f"{shown} is incomplete: {INDEX} lists {name}, and {name}/ is missing."
            )
        found = {variant_of(file): file for file in names if variant_of(file) != ""}
        variants |= {each for each in found if each is not None}
        has_variant |= variant in found
        if not found:
            pickles = [file for file in names if file.endswith(_PICKLES)]
            if pickles:
                raise SourceError(
                    f"{shown} has no safetensors for {name}, only {pickles[0]}: pickled weights "
                    "can run code when read and are not loaded. Convert them with the pipeline's "
                    "save_pretrained(DIR, safe_serialization=True) where you trust the file, and "
                    "use path:DIR."
                )
            if "config.json" in names:
                raise SourceError(f"{shown} is incomplete: there are no weights in {name}/.")
            continue
        chosen = select(names, variant)
        if not chosen:
            without_plain.append(name)
            continue
        for file in chosen:
            match = _WEIGHTS.match(file)
            if match and match["parts"] and len(chosen) < int(match["parts"]):
                raise SourceError(
                    f"{shown} is incomplete: {name}/ has {len(chosen)} of {int(match['parts'])} "
                    "parts of its weights."
                )
    shown_variants = ", ".join(sorted(variants))
    if variant is not None and not has_variant:
        there = f"it has {shown_variants}" if variants else "it has none"
        raise SourceError(
            f"{shown} has no variant {variant!r}: {there}; leave out variant or use it."
        )
    if without_plain:
        raise SourceError(
            f"{shown} has {without_plain[0]} as variant {shown_variants} only: set "
            f"variant: {min(variants)}."
        )


def variant_of(file: str) -> str | None:
    """The variant of a weights file, None for a plain one, "" for any other file."""
    match = _WEIGHTS.match(file)
    if match is None:
        return ""
    return match["variant"] or match["late"]


def select(names: Iterable[str], variant: str | None) -> list[str]:
    """The safetensors files of one component that diffusers loads for ``variant``."""
    names = list(names)
    chosen = [file for file in names if variant is not None and variant_of(file) == variant]
    return chosen or [file for file in names if variant_of(file) is None]


def check_safetensors(file: Path, shown: str) -> dict[str, Any]:
    """Read a safetensors file's header and compare what it promises with the file's size.

    Returns:
        The header: for each tensor by its name ``dtype``, ``shape`` and ``data_offsets``.
    """
    size = file.stat().st_size
    where = f"{shown}: {file.parent.name}/{file.name}"
    with files.open_file(file, size) as stream:
        start = stream.read(8)
        if start.startswith(b"version "):
            raise SourceError(
                f"{where} is a Git LFS pointer and not the weights: run git lfs pull there."
            )
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise SourceError(f"{where} is truncated or no safetensors file ({size} bytes).")
        if length > files.HEADER_BYTES:
            raise SourceError(
                f"{where} is no safetensors file: its header would have {length:,} bytes."
            )
        try:
            header = json.loads(stream.read(length))
            tensors = {key: entry for key, entry in header.items() if key != "__metadata__"}
            promised = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise SourceError(f"{where} is no safetensors file.") from error
    if 8 + length + promised != size:
        raise SourceError(
            f"{where} is damaged: {size} bytes, and its header promises {8 + length + promised}. "
            "Fetch it again."
        )
    return tensors


def check_weights(component: Path, variant: str | None, shown: str) -> None:
    """Check each weights file of a component's folder that may be opened: it must be safetensors.

    Names come from the folder and from the maps of its indexes, which loaders follow first.

    Raises:
        SourceError: one is of another format, lies elsewhere or is damaged.
    """
    names = sorted(each.name for each in component.iterdir())
    chosen = set(select(names, variant))
    for name in names:
        if name == ADAPTER:
            raise SourceError(
                f"{shown}: {component.name}/{name} names weights of another place, which are not "
                "loaded; use lora: for an adapter."
            )
        if _INDEX.search(name):
            chosen |= _mapped(component / name, shown)
    for name in sorted(chosen.intersection(names)):
        check_safetensors(component / name, shown)


def _mapped(index: Path, shown: str) -> set[str]:
    """Return the files that an index of weights in parts maps to."""
    where = f"{shown}: {index.parent.name}/{index.name}"
    try:
        found = set(json.loads(files.read(index, files.JSON_BYTES))["weight_map"].values())
        strange = sorted(str(each) for each in found if not _PLAIN_NAME.fullmatch(each))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SourceError(f"{where} is no index of weights.") from error
    if strange:
        raise SourceError(
            f"{where} maps to {strange[0]!r}: only .safetensors files beside it are read, others "
            "can run code when read."
        )
    return found


@contextmanager
def no_pickles(shown: str) -> Iterator[None]:
    """Within it, torch.load refuses whatever a library wants to read with it."""
    import torch

    def refuse(file: Any = None, *_: Any, **__: Any) -> Any:
        name = Path(file).name if isinstance(file, (str, Path)) else "a file"
        raise SourceError(
            f"{shown}: {name} is pickled, which can run code when read, and is not loaded."
        )

    kept = torch.load
    torch.load = refuse
    try:
        yield
    finally:
        torch.load = kept


def denoiser_channels(folder: Path) -> int | None:
    """Input channels of the folder's UNet or transformer, None where its config does not say."""
    for name in ("unet", "transformer"):
        file = folder / name / "config.json"
        if file.is_file():
            try:
                config = json.loads(files.read(file, files.CONFIG_BYTES))
                channels = config.get("in_channels")
            except (ValueError, AttributeError, RecursionError):
                return None
            return channels if isinstance(channels, int) else None
    return None


def _check_folder(folder: Path, shown: str) -> None:
    if folder.is_file():
        if folder.suffix in _SINGLE_FILES:
            raise SourceError(
                f"{shown} is a single-file checkpoint, and path: takes a diffusers folder: convert "
                "it once with StableDiffusionXLPipeline.from_single_file(FILE)"
                ".save_pretrained(DIR), with your model's class, and use path:DIR."
            )
        raise SourceError(f"{shown} is a file, and path: takes a diffusers folder.")
    if not folder.exists():
        parent = folder.parent
        hint = ""
        if parent.is_dir():
            hint = nearest(folder.name, [each.name for each in parent.iterdir() if each.is_dir()])
        raise SourceError(f"{shown} does not exist{hint}.")
    names = [each.name for each in folder.iterdir()]
    if INDEX in names:
        return
    inside = [each.name for each in folder.iterdir() if (each / INDEX).is_file()]
    checkpoints = [name for name in names if name.endswith(_SINGLE_FILES)]
    if inside:
        hint = f"; did you mean {inside[0]} inside it?"
    elif checkpoints and "config.json" not in names:
        hint = (
            f"; {checkpoints[0]} looks like a single-file checkpoint: convert it once with "
            "StableDiffusionXLPipeline.from_single_file(FILE).save_pretrained(DIR), with your "
            "model's class."
        )
    elif "config.json" in names:
        hint = "; it looks like one component, and the folder of the whole pipeline is needed."
    else:
        hint = "."
    raise SourceError(f"{shown} is no diffusers folder: it has no {INDEX}{hint}")


def _check_names(index: Mapping[str, Any], shown: str) -> None:
    """Refuse classes that this diffusers does not have, with the nearest that it has."""
    import diffusers

    for name, (library, class_name) in components(index).items():
        if library == "diffusers" and not hasattr(diffusers, class_name):
            written = index.get("_diffusers_version")
            by = f" (the folder was written by {written})" if written else ""
            raise SourceError(
                f"{shown}: {name} is a {class_name}, which diffusers {diffusers.__version__} does "
                f"not have{by}{nearest(class_name, dir(diffusers))}."
            )


def _by_folder(files: Iterable[str]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for file in files:
        folder, separator, name = file.partition("/")
        if separator and "/" not in name:
            result.setdefault(folder, []).append(name)
    return result


def _dtype_keyword() -> str:
    """``torch_dtype`` was renamed: old diffusers know only the old name, new ones warn of it."""
    import diffusers

    major, minor = (int(part) for part in diffusers.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (0, 42) else "torch_dtype"
