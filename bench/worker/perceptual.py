"""LPIPS and CLIP score of stored pictures, in a process of its own: the reports need no torch.

``python -m bench.worker.perceptual`` reads one `Request` as JSON from standard input and answers
with one `Answer` a line on standard output. Weights are safetensors from this disk; nothing is
fetched, no pickle is read and no code that comes with a model runs. Everything is computed in
float32 on the CPU, so that a score depends on the picture and the weights alone.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO, TypedDict

from bench import files
from bench.contract import Perceptual
from bench.worker.pictures import digest


class PictureFile(TypedDict):
    path: str
    sha256: str  # of the raw RGB bytes; another picture is refused


class Task(TypedDict):
    """``reference`` is of LPIPS alone, ``prompt`` of the CLIP score."""

    metric: Perceptual
    picture: PictureFile
    reference: PictureFile | None
    prompt: str | None


class Request(TypedDict):
    lpips: str | None  # safetensors file
    clip_score: str | None  # model folder
    tasks: list[Task]


class Answer(TypedDict, total=False):
    """Of one task; without ``task``, why none of a metric's tasks can be done."""

    task: int
    metric: Perceptual
    value: float
    cut: bool  # whether the prompt was longer than the text encoder takes
    reason: str


Layer = tuple[str, int, int, int, int, int]
"""What, index in the trunk, then for a convolution: channels, kernel, stride, padding."""


def _conv(index: int, channels: int, kernel: int, stride: int, padding: int) -> Layer:
    return ("conv", index, channels, kernel, stride, padding)


def _pool(index: int, kernel: int) -> Layer:
    return ("pool", index, 0, kernel, 2, 0)


def _vgg(first: int, channels: int, convolutions: int) -> list[Layer]:
    """Return a block of VGG: 3 x 3 convolutions, each with a ReLU behind it."""
    return [_conv(first + 2 * n, channels, 3, 1, 1) for n in range(convolutions)]


NETS: dict[str, list[list[Layer]]] = {
    "alex": [
        [_conv(0, 64, 11, 4, 2)],
        [_pool(2, 3), _conv(3, 192, 5, 1, 2)],
        [_pool(5, 3), _conv(6, 384, 3, 1, 1)],
        [_conv(8, 256, 3, 1, 1)],
        [_conv(10, 256, 3, 1, 1)],
    ],
    "vgg": [
        _vgg(0, 64, 2),
        [_pool(4, 2), *_vgg(5, 128, 2)],
        [_pool(9, 2), *_vgg(10, 256, 3)],
        [_pool(16, 2), *_vgg(17, 512, 3)],
        [_pool(23, 2), *_vgg(24, 512, 3)],
    ],
}
"""The trunks of LPIPS, a list of stages each: AlexNet and VGG-16. Every convolution has a ReLU."""


def tensors_of(net: str) -> dict[str, tuple[int, ...]]:
    """Return the tensors of an LPIPS file and their shapes, named as the package lpips does."""
    found: dict[str, tuple[int, ...]] = {}
    channels = 3
    for number, stage in enumerate(NETS[net]):
        for what, index, out, kernel, _, _ in stage:
            if what == "conv":
                name = f"net.slice{number + 1}.{index}"
                found[f"{name}.weight"] = (out, channels, kernel, kernel)
                found[f"{name}.bias"] = (out,)
                channels = out
        found[f"lin{number}.model.1.weight"] = (1, channels, 1, 1)
    return found


# Of a picture in [-1, 1], as the authors' version 0.1 scales it.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class Lpips:
    """Learned perceptual distance, version 0.1: 0 for equal pictures, larger for less alike ones.

    Zhang, Isola, Efros, Shechtman and Wang, CVPR 2018: features of each stage scaled to unit
    length at every place, squared differences weighted by channel, averaged over places and summed
    over stages. The pictures are compared at their full size.

    Args:
        file: safetensors with the tensors of `tensors_of`.
    """

    def __init__(self, file: str) -> None:
        from safetensors.torch import load_file

        self._weights = {name: tensor.float() for name, tensor in load_file(file).items()}
        own = NETS.items()
        self._stages = next(s for net, s in own if tensors_of(net).keys() <= self._weights.keys())

    def __call__(self, reference: Any, picture: Any) -> float:
        """Return the distance of two PIL pictures in RGB and of one size; ValueError otherwise."""
        if reference.size != picture.size:
            raise ValueError(f"the pictures differ in size: {reference.size} and {picture.size}")
        total = 0.0
        pairs = zip(self._features(reference), self._features(picture), strict=True)
        for number, (one, other) in enumerate(pairs):
            each = self._weights[f"lin{number}.model.1.weight"].reshape(1, -1, 1, 1)
            total += float(((one - other) ** 2 * each).sum(dim=1).mean())
        return total

    def _features(self, picture: Any) -> list[Any]:
        """Return for each stage (1, channels, height, width), of unit length at each place."""
        import torch
        from torch.nn import functional

        shift, scale = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        x = (_tensor(picture) * 2 - 1 - shift) / scale
        found = []
        for number, stage in enumerate(self._stages):
            for what, index, _, kernel, stride, padding in stage:
                if what == "pool":
                    x = functional.max_pool2d(x, kernel, stride)
                    continue
                name = f"net.slice{number + 1}.{index}"
                weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
                x = functional.relu(functional.conv2d(x, weight, bias, stride, padding))
            found.append(x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + _EPSILON))
        return found


class Clip:
    """CLIP score: how well a picture fits its prompt, 100 x max(cosine, 0).

    Hessel, Holtzman, Forbes, Le Bras and Choi, EMNLP 2021, with torchmetrics' factor of 100 in
    place of theirs of 2.5. Pictures are prepared with PIL as OpenAI's CLIP does, not with
    transformers' image processor, whose result depends on whether torchvision is installed.

    Args:
        folder: a CLIPModel as transformers saves it, with its tokenizer.

    Raises:
        ValueError: the file lacks weights of the model.
    """

    def __init__(self, folder: str) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        model, told = CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        lacking = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
        if lacking:
            # transformers would go on with random numbers in their place.
            raise ValueError(f"the weights lack {len(lacking)} tensors, such as {lacking[0]}")
        self._model = model.float().eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        self._most = int(model.config.text_config.max_position_embeddings)
        self._recipe = _recipe(Path(folder), int(model.config.vision_config.image_size))

    def __call__(self, picture: Any, prompt: str) -> tuple[float, bool]:
        """Return the score of a PIL picture in RGB, and whether the prompt had to be cut."""
        from torch.nn import functional

        whole = len(self._tokenizer(prompt)["input_ids"])
        tokens = self._tokenizer(
            prompt, truncation=True, max_length=self._most, return_tensors="pt"
        )
        out = self._model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=self.prepared(picture),
        )
        cosine = float(functional.cosine_similarity(out.image_embeds, out.text_embeds)[0])
        # max() would turn what is not a number into 0.
        return cosine if math.isnan(cosine) else 100 * max(cosine, 0.0), whole > self._most

    def prepared(self, picture: Any) -> Any:
        """Return (1, 3, side, side): shorter edge resized, centre cut out, normalised."""
        import torch
        from PIL import Image

        short, side, mean, deviation = self._recipe
        width, height = picture.size
        if width <= height:
            size = (short, int(short * height / width))
        else:
            size = (int(short * width / height), short)
        resized = picture.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        x = _tensor(resized.crop((left, top, left + side, top + side)))
        centre, spread = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (mean, deviation))
        return (x - centre) / spread


_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def _recipe(folder: Path, side: int) -> tuple[int, int, list[float], list[float]]:
    """Return shorter edge, side of the cut, mean and deviation; OpenAI's where none is stored."""
    stored: Mapping[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            found = json.loads(files.read(folder / name, files.CONFIG_BYTES))
            stored = found.get("image_processor", found)
            break
    edge = stored.get("size", side)
    if isinstance(edge, Mapping):
        edge = edge.get("shortest_edge", side)
    return (
        max(int(edge), side),
        side,
        list(stored.get("image_mean", _CLIP_MEAN)),
        list(stored.get("image_std", _CLIP_DEVIATION)),
    )


def _tensor(picture: Any) -> Any:
    """Return a PIL picture in RGB as (1, 3, height, width) in [0, 1]."""
    import numpy
    import torch

    pixels = torch.from_numpy(numpy.array(picture, dtype=numpy.float32) / 255)
    return pixels.permute(2, 0, 1).unsqueeze(0)


def answer(request: Request, say: Callable[[Answer], None]) -> None:
    """Do a request's tasks, and say each answer at once.

    What goes wrong with one picture is that task's reason, and what goes wrong with the weights is
    the metric's.
    """
    makers: dict[Perceptual, Callable[[str], Any]] = {"lpips": Lpips, "clip_score": Clip}
    for metric, make in makers.items():
        file = request[metric]
        own = [(n, task) for n, task in enumerate(request["tasks"]) if task["metric"] == metric]
        if file is None or not own:
            continue
        try:
            import torch

            compute = make(file)
        except Exception as error:  # noqa: BLE001  # libraries raise what they like
            say({"metric": metric, "reason": _why(error)})
            continue
        with torch.inference_mode():
            for number, task in own:
                say({"task": number, **_one(compute, task)})


def _one(compute: Any, task: Task) -> Answer:
    try:
        picture = _open(task["picture"])
        if task["reference"] is not None:
            value, cut = compute(_open(task["reference"]), picture), False
        else:
            value, cut = compute(picture, task["prompt"] or "")
    except Exception as error:  # noqa: BLE001  # libraries raise what they like
        return {"reason": _why(error)}
    if not math.isfinite(value):
        return {"reason": "the result is not a finite number"}
    return {"value": value, "cut": cut}


def _open(file: PictureFile) -> Any:
    picture = files.image(Path(file["path"]))
    if digest(picture) != file["sha256"]:
        raise ValueError("the file is not the picture that its record describes")
    return picture


def _why(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _main() -> None:
    # Libraries print to standard output when they like; the answers have a way of their own.
    own: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(one: Answer) -> None:
        own.write(json.dumps(one) + "\n")
        own.flush()

    answer(json.load(sys.stdin), say)


if __name__ == "__main__":
    _main()
