"""LPIPS and CLIP score: where weights lie, what is known already, and the process that computes.

Scores are kept in ``perceptual.jsonl`` beside a run's records, by what the pictures and the weights
hold, so that a report can be written again where there is neither torch nor weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench import content, files
from bench.contract import Perceptual
from bench.records.read import RecordError, checked
from bench.records.types import Text
from bench.store import StoreError
from bench.worker.errors import SourceError
from bench.worker.perceptual import NETS, Answer, PictureFile, Request, Task, tensors_of
from bench.worker.sources import path

SHOWN: Mapping[Perceptual, str] = {"lpips": "LPIPS", "clip_score": "CLIP score"}
OPTION: Mapping[Perceptual, str] = {"lpips": "--lpips", "clip_score": "--clip"}
VARIABLE: Mapping[Perceptual, str] = {"lpips": "BENCH_LPIPS", "clip_score": "BENCH_CLIP"}
NONE = "none"
"""What leaves a metric out."""

FILE = "perceptual.jsonl"
CACHED = ("openai/clip-vit-large-patch14", "openai/clip-vit-base-patch32")
"""Looked for in the Hugging Face cache, in this order: the first is torchmetrics' own choice."""

_CLIP_FILES = ("config.json", "model.safetensors")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


class WeightsError(StoreError):
    """Weights that were asked for cannot be used; ``str()`` is the whole message for the user."""


@dataclass(frozen=True, slots=True)
class Weights:
    """``identity`` is a hash of what they hold; ``path`` is None where only scores are left."""

    metric: Perceptual
    name: str
    identity: str
    path: Path | None

    def __str__(self) -> str:
        return f"{self.name} {self.identity}"


@dataclass(frozen=True, slots=True)
class Question:
    """One score, by content: ``against`` is the reference's hash, or the prompt."""

    metric: Perceptual
    picture: str
    against: str


def find(
    metric: Perceptual, asked: str | None, environment: Mapping[str, str]
) -> tuple[Weights | None, str | None]:
    """Return the weights to use, or None and why there are none.

    Args:
        metric: of which.
        asked: file or folder that the user named, or ``none``.
        environment: for the variable that names one, and for the Hugging Face cache.

    Raises:
        WeightsError: what was ``asked`` for cannot be used.
    """
    option, variable = OPTION[metric], VARIABLE[metric]
    if left_out(metric, asked, environment):
        return None, f"{option if asked else variable} says so"
    if asked:
        return _checked(metric, Path(asked), f"{option} {asked}"), None
    if environment.get(variable):
        named = environment[variable]
        try:
            return _checked(metric, Path(named), f"{variable}={named}"), None
        except WeightsError as error:
            return None, str(error)
    if metric == "clip_score":
        for repo in CACHED:
            folder = _snapshot(repo, environment)
            if folder is not None:
                return _checked(metric, folder, f"the cached {repo}", repo), None
    return None, f"no weights were given ({option} or {variable})"


def left_out(metric: Perceptual, asked: str | None, environment: Mapping[str, str]) -> bool:
    """Say whether the user wants no figure of this metric."""
    return (asked or environment.get(VARIABLE[metric])) == NONE


def _checked(metric: Perceptual, place: Path, shown: str, name: str | None = None) -> Weights:
    try:
        if metric == "lpips":
            return _lpips(place.expanduser(), shown)
        return _clip(place.expanduser(), shown, name)
    except (SourceError, OSError, ValueError) as error:
        said = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        told = said if said.startswith(shown) else f"{shown}: {said}"
        raise WeightsError(told if told.endswith(".") else f"{told}.") from error


def _lpips(file: Path, shown: str) -> Weights:
    if file.is_dir():
        raise ValueError("this is a folder, and LPIPS takes one safetensors file")
    if not file.is_file():
        raise ValueError("there is no such file")
    if file.suffix != ".safetensors":
        raise ValueError(
            "this is no .safetensors file; pickled weights can run code when read and are not "
            "loaded. docs/reading-a-report.md says how to convert them"
        )
    there = {
        name: entry.get("shape") for name, entry in path.check_safetensors(file, shown).items()
    }
    lacking = {}
    for net in NETS:
        wanted = tensors_of(net)
        lacking[net] = [name for name, shape in wanted.items() if there.get(name) != list(shape)]
        if not lacking[net]:
            return Weights("lpips", net, content.of_file(file)[:16], file.absolute())
    net = min(lacking, key=lambda each: len(lacking[each]))
    raise ValueError(
        f"these are no weights of LPIPS: for {net}, {lacking[net][0]} is missing or has another "
        "shape. docs/reading-a-report.md says how to make the file"
    )


def _clip(folder: Path, shown: str, name: str | None) -> Weights:
    if not folder.is_dir():
        raise ValueError("there is no such folder")
    there = set(os.listdir(folder))
    if "model.safetensors" not in there and "pytorch_model.bin" in there:
        raise ValueError(
            "it has no model.safetensors, only pytorch_model.bin: pickled weights can run code "
            "when read and are not loaded"
        )
    lacking = [each for each in _CLIP_FILES if each not in there]
    if not any(there.issuperset(files) for files in _TOKENIZERS):
        lacking.append("a tokenizer (tokenizer.json, or vocab.json and merges.txt)")
    if lacking:
        raise ValueError(f"it lacks {lacking[0]}")
    config = json.loads(files.read(folder / "config.json", files.CONFIG_BYTES))
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "clip":
        raise ValueError(f"its config.json describes {kind!r}, not a clip model")
    path.check_safetensors(folder / "model.safetensors", shown)
    found = folder.absolute()
    return Weights("clip_score", name or found.name, content.of_folder(folder), found)


def _snapshot(repo: str, environment: Mapping[str, str]) -> Path | None:
    """Return a complete copy in the Hugging Face cache, of main if there is one."""
    home = Path(environment.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    hub = Path(environment.get("HF_HUB_CACHE") or home / "hub")
    folder = hub / f"models--{repo.replace('/', '--')}"
    try:
        snapshots = sorted(each for each in (folder / "snapshots").iterdir() if each.is_dir())
        main = folder / "refs" / "main"
        commit = files.read(main, files.CONFIG_BYTES).decode().strip() if main.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return None
    for each in sorted(snapshots, key=lambda one: one.name != commit):
        try:
            _clip(each, repo, repo)
        except (SourceError, OSError, ValueError):
            continue
        return each
    return None


class _Line(msgspec.Struct, frozen=True):
    """A line of `FILE`: a score, or None where it only notes the weights in use."""

    weights: Text
    weights_identity: Text
    lpips: float | msgspec.UnsetType | None = msgspec.UNSET
    clip_score: float | msgspec.UnsetType | None = msgspec.UNSET
    picture_sha256: Text = ""
    reference_sha256: Text = ""
    prompt: Text = ""
    prompt_cut: bool = False


_line = msgspec.json.Decoder(_Line)


class Kept:
    """Scores that are stored in run folders, and the weights that were last used in them."""

    def __init__(self, runs: Iterable[Path]) -> None:
        self.weights: dict[Perceptual, Weights] = {}
        self._values: dict[tuple[str, Question], tuple[float, bool]] = {}
        self._used: dict[tuple[Path, Perceptual], str] = {}
        for run in runs:
            self._read(run.absolute())

    def get(self, weights: Weights, question: Question) -> float | None:
        found = self._values.get((weights.identity, question))
        return None if found is None else found[0]

    def cut(self, weights: Weights, question: Question) -> bool:
        """Whether the prompt was longer than the text encoder takes."""
        return self._values.get((weights.identity, question), (0.0, False))[1]

    def add(
        self, run: Path, weights: Weights, question: Question, value: float, *, cut: bool = False
    ) -> None:
        """Keep a score, and store it beside ``run``'s records where that can be written."""
        self._values[weights.identity, question] = value, cut
        against = "prompt" if weights.metric == "clip_score" else "reference_sha256"
        line = {
            weights.metric: value,
            "picture_sha256": question.picture,
            against: question.against,
            **({"prompt_cut": True} if cut else {}),
        }
        self._write(run, weights, line)

    def use(self, run: Path, weights: Weights) -> None:
        """Note beside ``run`` that ``weights`` are those whose scores are shown from now on."""
        if self._used.get((run, weights.metric)) != str(weights):
            self._write(run, weights, {weights.metric: None})

    def _write(self, run: Path, weights: Weights, line: Mapping[str, Any]) -> None:
        self._used[run, weights.metric] = str(weights)
        whole = {**line, "weights": weights.name, "weights_identity": weights.identity}
        try:
            with os.fdopen(files.create(run / FILE, os.O_WRONLY | os.O_APPEND), "ab") as file:
                file.write(json.dumps(whole).encode() + b"\n")
        except OSError:
            return  # a run that cannot be written is scored again next time

    def _read(self, run: Path) -> None:
        try:
            lines = files.read(files.inside(run, FILE)).split(b"\n")
        except OSError:
            return
        for line in lines:
            try:
                self._take(checked(_line, line), run)
            except RecordError:
                continue  # a line that was cut off; its score is computed again

    def _take(self, found: _Line, run: Path) -> None:
        metric: Perceptual = "clip_score" if found.lpips is msgspec.UNSET else "lpips"
        value = found.clip_score if found.lpips is msgspec.UNSET else found.lpips
        if value is msgspec.UNSET:
            return
        weights = Weights(metric, found.weights, found.weights_identity, None)
        if value is not None:
            against = found.prompt if metric == "clip_score" else found.reference_sha256
            question = Question(metric, found.picture_sha256, against)
            self._values[weights.identity, question] = value, found.prompt_cut
        self.weights[metric] = weights
        self._used[run, metric] = str(weights)


@dataclass(frozen=True, slots=True)
class Order:
    """A question with the files that answer it, and the run beside which the answer is kept."""

    question: Question
    picture: Path
    reference: Path | None
    run: Path


def compute(
    weights: Mapping[Perceptual, Weights],
    orders: Sequence[Order],
    kept: Kept,
    command: Sequence[str] = (sys.executable, "-m", "bench.worker.perceptual"),
) -> dict[Question | Perceptual, str]:
    """Compute ``orders`` in one process and keep what it answers, at once.

    Args:
        weights: of each metric that occurs.
        orders: what is not known yet.
        kept: takes the values.
        command: what computes.

    Returns:
        Why there is no value, by question, or by metric if that holds for all its questions.
    """
    places = {metric: str(one.path) for metric, one in weights.items()}
    request: Request = {
        "lpips": places.get("lpips"),
        "clip_score": places.get("clip_score"),
        "tasks": [_task(order) for order in orders],
    }
    reasons: dict[Question | Perceptual, str] = {}
    open_ = set(range(len(orders)))
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile("w+") as given:
        json.dump(request, given)
        given.seek(0)
        try:
            with subprocess.Popen(
                [*command], stdin=given, stdout=subprocess.PIPE, stderr=said, env=_environment()
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.endswith(b"\n"):
                        _heed(json.loads(line), orders, weights, kept, reasons, open_)
            code = process.returncode
        except OSError as error:
            code, ended = 1, f"{command[0]} could not be started: {error.strerror}"
        else:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            ended = f"the process that computes it ended with status {code}" + "".join(
                f" ({each.strip()[:300]})" for each in last
            )
    if code != 0:
        for number in open_:
            reasons.setdefault(orders[number].question.metric, ended)
    return reasons


def _heed(
    answer: Answer,
    orders: Sequence[Order],
    weights: Mapping[Perceptual, Weights],
    kept: Kept,
    reasons: dict[Question | Perceptual, str],
    open_: set[int],
) -> None:
    if "task" not in answer:
        reasons[answer["metric"]] = answer["reason"]
        return
    order = orders[answer["task"]]
    open_.discard(answer["task"])
    if "value" not in answer:
        reasons[order.question] = answer["reason"]
        return
    own = weights[order.question.metric]
    kept.add(order.run, own, order.question, answer["value"], cut=answer.get("cut", False))


def _task(order: Order) -> Task:
    question = order.question
    reference: PictureFile | None = None
    if order.reference is not None:
        reference = {"path": str(order.reference), "sha256": question.against}
    return {
        "metric": question.metric,
        "picture": {"path": str(order.picture), "sha256": question.picture},
        "reference": reference,
        "prompt": None if order.reference is not None else question.against,
    }


def _environment() -> dict[str, str]:
    """Import what this process would, and reach for no hub, whatever a library thinks."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
