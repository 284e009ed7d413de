# ruff: noqa: ISC004
"""Golden messages: file and line, the offending value, the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config import ConfigError
from tests.config.support import BASE, plan_of

TASK = "task: text-to-image"
BACKENDS = "backend: [none, torch-compile]"

CHANGED = [
    # old text, new text, message after the file's name
    ("name: t2i", "name: t2i\n      step: 3",
     "6: unknown key 'step' in workload 't2i'. Did you mean 'steps'?"),
    ("prompt:", "promt:", "8: unknown key 'promt' in workload 't2i'. Did you mean 'prompt'?"),
    ("name: x", "nmae: x", "1: unknown key 'nmae' at the top level. Did you mean 'name'?"),
    ("name: x", "steps: 3", "1: unknown key 'steps' at the top level. Did you mean "
     "'defaults.steps'?"),
    ("name: x", "timeout: 3", "1: unknown key 'timeout' at the top level. Did you mean "
     "'limits.timeout'?"),
    ("steps: 10", "threads: 2", "2: unknown key 'threads' in defaults. Did you mean "
     "'threads' at the top level?"),
    (BACKENDS, "backends: [none]", "9: unknown key 'backends' in matrix. Did you mean 'backend'?"),
    (BACKENDS, "zzzzzz: 1", "9: unknown key 'zzzzzz' in matrix. There are: workload, backend,"),
    ("steps: 10", "steps: 0", "2: defaults: 'steps' must be at least 1, not 0"),
    ("steps: 10", "steps: 10001", "2: defaults: 'steps' must be at most 10000, not 10001"),
    ("steps: 10", "steps: ten", "2: defaults: 'steps' must be a whole number, not 'ten'"),
    ("steps: 10", "steps: 10.5", "2: defaults: 'steps' must be a whole number, not 10.5"),
    ("steps: 10", "steps: true", "2: defaults: 'steps' must be a whole number, not true"),
    ("steps: 10", "steps: null", "2: defaults: 'steps' must be a whole number, not null"),
    ("steps: 10", "guidance: .nan", "2: defaults: 'guidance' must be a finite number, not NaN"),
    ("a red house", "7", "8: workload 't2i': 'prompt' must be text, not 7"),
    (TASK, "task: inpaint", "6: workload 't2i': unknown task 'inpaint'. There are: text-to-image, "
     "image-to-image, edit, chain, folder."),
    (TASK, "task: text-to-imag", "6: workload 't2i': unknown task 'text-to-imag'. Did you mean "
     "'text-to-image'?"),
    (TASK, f"{TASK}\n      dtype: flaot16",
     "7: workload 't2i': 'dtype' cannot be 'flaot16'. Did you mean 'float16'?"),
    (TASK, "task: image-to-image\n      strength: 0.05",
     "7: workload 't2i': strength 0.05 x 10 steps leaves 0.5, less than one step"),
    (TASK, f"{TASK}\n      strength: 0.5",
     "7: workload 't2i': 'strength' 0.5 means nothing for text-to-image; it belongs to "
     "image-to-image and chain"),
    (TASK, f"{TASK}\n      image_guidance: 1.5",
     "7: workload 't2i': 'image_guidance' 1.5 means nothing for text-to-image; it belongs to edit"),
    (TASK, f"{TASK}\n      input_image: a.png",
     "7: workload 't2i': 'input_image' 'a.png' means nothing for text-to-image; it belongs to "
     "image-to-image and edit"),
    (TASK, "task: image-to-image\n      strength: 0",
     "7: workload 't2i': 'strength' must be more than 0, not 0"),
    (TASK, "task: image-to-image\n      strength: 1.01",
     "7: workload 't2i': 'strength' must be at most 1, not 1.01"),
    (TASK, f"{TASK}\n      batch: 0", "7: workload 't2i': 'batch' must be at least 1, not 0"),
    (TASK, f"{TASK}\n      seed: -1", "7: workload 't2i': 'seed' must be at least 0, not -1"),
    (TASK, f"{TASK}\n      seed: randm",
     "7: workload 't2i': 'seed' must be a whole number or 'random', not 'randm'"),
    (TASK, f"{TASK}\n      size: 500",
     "7: workload 't2i': size 500 is no multiple of 8; the nearest are 496 or 504"),
    (TASK, f"{TASK}\n      size: 768x1023",
     "7: workload 't2i': height 1023 is no multiple of 8; the "
     "nearest are 1016 or 1024"),
    (TASK, f"{TASK}\n      size: {{height: 512, widht: 512}}",
     "7: workload 't2i': unknown key 'widht' in size. Did you mean 'width'?"),
    (TASK, f"{TASK}\n      size: 512\n      width: 512",
     "8: 'width' says again what 'size' says; keep one of them"),
    (TASK, f"{TASK}\n      scheduler: HeunScheduler",
     "7: workload 't2i': unknown scheduler 'HeunScheduler'. Did you mean "
     "'HeunDiscreteScheduler'?"),
    (TASK, f"{TASK}\n      scheduler: Euler a",
     "7: workload 't2i': unknown scheduler 'Euler a'. Did you mean "
     "'EulerAncestralDiscreteScheduler'?"),
    (TASK, f"{TASK}\n      scheduler: DPMSolverSchedulr",
     "7: workload 't2i': unknown scheduler 'DPMSolverSchedulr'. Did you mean "
     "'DPMSolverMultistepScheduler'?"),
    (TASK, f"{TASK}\n      scheduler: EulerAncestral",
     "7: workload 't2i': unknown scheduler 'EulerAncestral'. Did you mean "
     "'EulerAncestralDiscreteScheduler'?"),
    (TASK, f"{TASK}\n      preset: onedif",
     "7: workload 't2i': unknown workload preset 'onedif'. Did you mean 'onediff'?"),
    (TASK, f"{TASK}\n      extra: {{num_inference_steps: 3}}",
     "7: workload 't2i': extra cannot set 'num_inference_steps': use the field 'steps'"),
    ("embedded:sdxl", "embeded:sdxl",
     "7: workload 't2i': model 'embeded:sdxl' must be hub:ORG/NAME, path:DIR, embedded:NAME or "
     "synthetic:ARCH. Did you mean 'embedded:sdxl'?"),
    ("embedded:sdxl", "embedded:sdx",
     "7: workload 't2i': unknown embedded model 'sdx'. Did you mean 'sdxl'?"),
    ("embedded:sdxl", "synthetic:sdxl-pix2pi",
     "7: workload 't2i': unknown synthetic model 'sdxl-pix2pi'. Did you mean 'sdxl-pix2pix'?"),
    ("embedded:sdxl", "ORG/NAME",
     "7: workload 't2i': model 'ORG/NAME' has no source. Did you mean 'hub:ORG/NAME'?"),
    ("embedded:sdxl", "hub:NAME",
     "7: workload 't2i': model 'hub:NAME' must be hub:ORG/NAME or hub:ORG/NAME@REVISION"),
    ("embedded:sdxl", "embedded:pix2pix",
     "7: workload 't2i': model 'embedded:pix2pix' does edit, not text-to-image. Did you mean "
     "'embedded:sdxl'?"),
    ("      prompt: a red house\n", "", "5: workload 't2i' needs the key 'prompt'"),
    ("    - name: t2i", "    - name: t2i\n    - name: t2i", "6: duplicate workload name 't2i'"),
    (BACKENDS, "backend: []", "9: axis 'backend' is empty; give it at least one value, or leave it "
     "out"),
    (BACKENDS, "backend:", "9: axis 'backend' is empty; give it at least one value, or leave it "
     "out"),
    (BACKENDS, "backend: none", "9: matrix: 'backend' must be a list, such as [none], not 'none'"),
    (BACKENDS, "backend: [none, torch_compile]",
     "9: unknown backend 'torch_compile'. Did you mean 'torch-compile'?"),
    (BACKENDS, "backend: [none, none]", "9: duplicate cell: backend 'none' is listed twice"),
    (BACKENDS, "backend: [{name: torch-compile, options: {mod: x}}]",
     "9: unknown key 'mod' in options of backend 'torch-compile'. Did you mean 'mode'?"),
    (BACKENDS, "backend: [{name: torch-compile, options: {mode: max-autotun}}]",
     "9: options of backend 'torch-compile': 'mode' cannot be 'max-autotun'. Did you mean "
     "'max-autotune'?"),
    (BACKENDS, "backend: [{name: torch-compile, options: {fullgraph: 1}}]",
     "9: options of backend 'torch-compile': 'fullgraph' must be true or false, not 1"),
    (BACKENDS, "backend: [{name: torch-compile, options: '{\"mode\"'}]",
     "9: backend 'torch-compile': options '{\"mode\"' are no JSON: Expecting ':' delimiter: line 1 "
     "column 8 (char 7)"),
    (BACKENDS, "backend: [{name: torch-compile, options: '{\"mode\": NaN}'}]",
     "9: backend 'torch-compile': options '{\"mode\": NaN}' are no JSON: NaN is no JSON number"),
    (BACKENDS, "backend: [{name: torch-compile, options: O2}]",
     "9: backend 'torch-compile': options 'O2' are no JSON: Expecting value: line 1 column 1 (char "
     "0)"),
    (BACKENDS, "backend: [{name: torch-compile, options: '[1]'}]",
     "9: backend 'torch-compile': options '[1]' must be a JSON object, such as "
     "'{\"mode\": \"O2\"}'"),
    (BACKENDS, "backend: [{name: none, environment: nexfrt}]",
     "9: backend 'none': unknown environment 'nexfrt'. Did you mean 'nexfort'?"),
    (BACKENDS, "backend: [{name: torch-compile, options: {scope: unet}}]",
     "9: options of backend 'torch-compile': 'scope' must be a list, such as [unet], not 'unet'"),
    (BACKENDS, "backend: [{name: torch-compile, options: {scope: [vae.decod]}}]",
     "9: option 'scope' of backend 'torch-compile': its value cannot be 'vae.decod'. Did you mean "
     "'vae.decode'?"),
    (BACKENDS, "steps: [10, 20, 10]", "9: duplicate cell: axis 'steps' has 10 twice"),
    (BACKENDS, "size: [512, 512x512]", "9: duplicate cell: axis 'size' has 512x512 twice"),
    (BACKENDS, "steps: [10, 0]", "9: axis 'steps': its value must be at least 1, not 0"),
    (BACKENDS, "task: [edit]",
     "6: workload 't2i' sets 'task', and 'task' is an axis; keep one of them"),
    (BACKENDS, "exclude: [{backend: none}]",
     "9: exclude: 'backend' is no axis of this matrix. There are: workload."),
    (BACKENDS, "exclude: [{workload: t2}]",
     "9: unknown workload 't2'. Did you mean 't2i'?"),
    (BACKENDS, "exclude: [{workload: t2i}]",
     "3: the matrix gives no cells: every combination is excluded"),
    (BACKENDS, "include: [{bakend: none}]",
     "9: unknown key 'bakend' in include entry 1. Did you mean 'backend'?"),
    (BACKENDS, "include: [{workload: {name: t2i, steps: 5}}]",
     "9: duplicate workload name 't2i'; to change a key of a workload in one cell, write it beside "
     "the name: {workload: t2i, steps: 20}"),
    ("name: x", "protocol: quik",
     "1: protocol: unknown protocol preset 'quik'. Did you mean 'quick'?"),
    ("name: x", "protocol: {warmup: {min_calls: 1}}",
     "1: protocol.warmup: 'min_calls' must be at least 2, not 1"),
    ("name: x", "protocol: {calls: {min_calls: 50}}",
     "1: protocol.calls: min_calls 50 is more than max_calls 30"),
    ("name: x", "limits: {timeout: soon}",
     "1: limits: 'soon' is no duration; write one such as 90s, 10m or 1h30m"),
    ("name: x", "limits: {memory: 8}",
     "1: limits: 8 is no amount of memory; write one such as 8GiB or 500MB"),
    ("name: x", "device: gpu",
     "1: unknown device 'gpu'; one of auto, cpu, cuda, cuda:N, mps. Did you mean 'cuda'?"),
    ("name: x", "device: [cuda:0, cpu]",
     "1: a list of devices shares the cells out between GPUs, so each is cuda:N, not 'cpu'; to "
     "compare devices, make 'device' an axis of the matrix"),
    ("name: x", "name: a/b",
     "1: 'name' cannot be 'a/b'; write letters, digits, '.', '_' and '-', beginning with a letter "
     "or digit"),
    ("name: x", "defaults: {}", "2: duplicate key 'defaults' (first in line 1)"),
    ("{steps: 10}", "{steps: 10",
     "3: not valid YAML: did not find expected ',' or '}' while parsing a flow mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), CHANGED)
def test_message_in_a_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert BASE.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        plan_of(BASE.replace(old, new), tmp_path)
    text = str(caught.value).removeprefix(f"{tmp_path}/x.yaml:")
    if message.endswith(","):  # the beginning of a long list
        text = text[: len(message)]
    assert text == message
    assert caught.value.line == int(message.partition(":")[0])
    assert caught.value.file == f"{tmp_path}/x.yaml"


OVERRIDDEN = [
    ("steps=0", "unknown key 'steps' at the top level. Did you mean 'defaults.steps'?"),
    ("defaults.steps=0", "defaults: 'steps' must be at least 1, not 0"),
    ("defaults.stpes=1", "unknown key 'stpes' in defaults. Did you mean 'steps'?"),
    ("matrix.workload.t2i.steps=0", "workload 't2i': 'steps' must be at least 1, not 0"),
    ("matrix.workload.0.steps=0", "workload 't2i': 'steps' must be at least 1, not 0"),
    ("matrix.workload.t3i.steps=1", "'matrix.workload' has no item 't3i'. Did you mean 't2i'?"),
    ("matrix.workload.7.steps=1", "'matrix.workload' has no item 7; the last one is 0"),
    ("matrix.backend=[nome]", "unknown backend 'nome'. Did you mean 'none'?"),
    ("matrix.backend.1.options.mode=fast",
     "options of backend 'torch-compile': 'mode' cannot be 'fast'. There are: default, "
     "reduce-overhead, max-autotune, max-autotune-no-cudagraphs."),
    ("defaults.steps=[1",
     "not valid YAML: did not find expected ',' or ']' while parsing a flow sequence"),
    ("name.first=1", "'name' is 'x', which holds no 'first'"),
    ("steps", "must be PATH=VALUE, such as defaults.steps=20"),
    ("a..b=1", "must be PATH=VALUE, such as defaults.steps=20"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), OVERRIDDEN)
def test_the_place_of_an_override_is_the_override(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(BASE, tmp_path, [override])
    assert str(caught.value) == f"--set {override}: {message}"
    assert caught.value.line is None


SHADOWED = [
    (("steps: 10", "seed: 1"), "steps: 20", "defaults.steps=4",
     "workload 't2i' has its own 'steps'; change it by --set matrix.workload.t2i.steps=…"),
    ((), "size: 64", "defaults.height=64",
     "workload 't2i' has its own 'height'; change it by --set matrix.workload.t2i.height=…"),
    ((), "size: 64", "defaults.size=128",
     "workload 't2i' has its own 'size'; change it by --set matrix.workload.t2i.size=…"),
    ((), "preset: onediff", "defaults={steps: 4}", "workload 't2i' takes 'steps' from its preset"),
    (("  backend:", "  steps: [1, 2]\n  backend:"), "seed: 1", "defaults.steps=4",
     "'steps' is an axis; change it by --set 'matrix.steps=[…]'"),
    (("  backend:", "  threads: [1, 2]\n  backend:"), "seed: 1", "threads=4",
     "'threads' is an axis; change it by --set 'matrix.threads=[…]'"),
    (("[none, torch-compile]", "[{name: none, cache: warm}]"), "seed: 1", "cache=fresh",
     "backend 'none' has its own 'cache'"),
    (("  backend:", "  include: [{steps: 5}]\n  backend:"), "seed: 1", "defaults.steps=4",
     "an include entry sets 'steps'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "own", "override", "why"), SHADOWED)
def test_an_override_that_no_cell_takes_is_refused(
    tmp_path: Path, change: tuple[str, str], own: str, override: str, why: str
) -> None:
    text = BASE.replace(TASK, f"{TASK}\n      {own}")
    text = text.replace(*change) if change else text
    plan_of(text, tmp_path)
    with pytest.raises(ConfigError) as caught:
        plan_of(text, tmp_path, [override])
    assert str(caught.value) == f"--set {override}: has no effect: {why}"


def test_an_override_that_some_workloads_do_not_take_is_told(tmp_path: Path) -> None:
    second = f"    - {{name: own, {TASK}, model: 'embedded:sdxl', prompt: x, steps: 20}}\n"
    text = BASE.replace("  backend:", f"{second}  backend:")
    assert plan_of(text, tmp_path).notes == ()
    plan = plan_of(text, tmp_path, ["defaults.steps=4"])
    assert [cell["workload"]["steps"] for cell in plan.cells] == [4, 4, 20, 20]
    assert plan.notes == (
        "--set defaults.steps=4 has no effect on some cells: workload 'own' has its own 'steps'; "
        "change it by --set matrix.workload.own.steps=…",
    )
    assert plan_of(text, tmp_path, ["defaults.steps=4"], ["workload=t2i"]).notes == ()
    # half of a size is taken from the defaults
    half = text.replace("steps: 20}", "height: 64}")
    plan_of(half, tmp_path, ["defaults.size=256"], ["workload=own"])


SELECTED = [
    (
        "backend=nonne",
        "no cell has backend 'nonne'. Did you mean 'none'? There are: none, torch-compile",
    ),
    (
        "backend=none,nonne",
        "no cell has backend 'nonne'. Did you mean 'none'? There are: none, torch-compile",
    ),
    ("backend=inductor", "no cell has backend 'inductor'; there are: none, torch-compile"),
    ("bakend=none", "unknown key 'bakend'. Did you mean 'backend'?"),
    ("size=512", "no cell has size '512'; there are: 128"),
    ("none", "must be KEY=VALUE, such as backend=none"),
]


@pytest.mark.parametrize(("only", "message"), SELECTED)
def test_a_selection_that_fits_nothing(tmp_path: Path, only: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(BASE, tmp_path, only=[only])
    assert str(caught.value) == f"--only {only}: {message}"


def test_a_misspelt_key_is_named_before_the_key_that_it_leaves_missing(tmp_path: Path) -> None:
    text = BASE.replace("matrix:", "matrx:")
    with pytest.raises(ConfigError, match=r"x.yaml:3: unknown key 'matrx' .* mean 'matrix'\?"):
        plan_of(text, tmp_path)


def test_of_several_mistakes_the_first_is_named(tmp_path: Path) -> None:
    text = BASE.replace("steps: 10", "steps: 0").replace("a red house", "[]")
    with pytest.raises(ConfigError, match=r"x.yaml:2: defaults: 'steps'"):
        plan_of(text, tmp_path)


def test_the_column_is_that_of_the_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(BASE.replace("steps: 10", "steps: 0"), tmp_path)
    assert (caught.value.line, caught.value.column) == (2, 19)


def test_a_product_that_nobody_can_run_is_refused_with_its_size(tmp_path: Path) -> None:
    seeds = ", ".join(map(str, range(400)))
    text = BASE + f"  seed: [{seeds}]\n  steps: [{seeds.replace('0, ', '1000, ', 1)}]\n"
    with pytest.raises(ConfigError) as caught:
        plan_of(text, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/x.yaml:3: the product is 320,000 cells "
        "(1 workload x 2 backend x 400 seed x 400 steps); 100,000 are allowed"
    )


def test_control_characters_of_a_value_do_not_reach_the_terminal(tmp_path: Path) -> None:
    text = BASE.replace("text-to-image", '"\\e[31mred\\n"')
    with pytest.raises(ConfigError) as caught:
        plan_of(text, tmp_path)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
