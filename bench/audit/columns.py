"""Which column means what: the documented mapping, its guesses, and units.

A header is cut into words; its unit is taken off; the rest is looked up. A header that is spelt as
one of the known names is mapped without a word. One that only contains what a name is known by is a
guess, and guesses are printed. ``--map HEADER=NAME`` overrides both.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass

from bench.audit.table import AuditError

Kind = str
"""time (s), rate (1/s), memory (bytes), count, ratio or share (per cent)."""

QUANTITIES: dict[str, tuple[Kind, str]] = {
    "e2e_s": ("time", "end-to-end time of one call"),
    "it_per_s": ("rate", "iterations per second of the denoising loop"),
    "steps_per_s_e2e": ("rate", "steps by end-to-end time"),
    "images_per_s": ("rate", "pictures per second"),
    "step_s": ("time", "time of one step"),
    "warmup_s": ("time", "warm-up time"),
    "first_call_s": ("time", "first call"),
    "compile_s": ("time", "compile time"),
    "load_s": ("time", "time to load"),
    "total_s": ("time", "time of all batches or runs together"),
    "first_s": ("time", "time to the first picture or batch"),
    "gap_s": ("time", "mean time between batches"),
    "min_s": ("time", "smallest time"),
    "max_s": ("time", "largest time"),
    "mean_s": ("time", "mean time"),
    "median_s": ("time", "median time"),
    "stddev_s": ("time", "standard deviation"),
    "baseline_s": ("time", "time of the baseline, in the row of what it is compared with"),
    "peak_bytes": ("memory", "peak memory"),
    "mean_bytes": ("memory", "mean memory"),
    "capacity_bytes": ("memory", "memory of the card"),
    "steps": ("count", "steps asked for or claimed"),
    "steps_effective": ("count", "steps that ran"),
    "denoiser_calls": ("count", "calls of the denoiser"),
    "height": ("count", "height in pixels"),
    "width": ("count", "width in pixels"),
    "height_used": ("count", "height that was really used, in pixels"),
    "width_used": ("count", "width that was really used, in pixels"),
    "batch": ("count", "pictures in one call"),
    "samples": ("count", "pictures in all"),
    "batches": ("count", "number of batches"),
    "runs": ("count", "measured calls or runs behind a row"),
    "warmups": ("count", "number of warm-up calls"),
    "n_fid": ("count", "pictures behind an FID"),
    "strength": ("ratio", "image-to-image strength, 0 to 1"),
    "guidance": ("ratio", "guidance scale"),
    "speedup": ("ratio", "speedup, as a factor"),
    "change_pct": ("share", "change against the baseline"),
    "fid": ("ratio", "FID"),
    "clip_score": ("ratio", "CLIP score"),
    "lpips": ("ratio", "LPIPS"),
    "ssim": ("ratio", "SSIM"),
    "psnr": ("ratio", "PSNR"),
    "util_pct": ("share", "mean utilisation"),
    "util_peak_pct": ("share", "peak utilisation"),
    "mean_memory_pct": ("share", "mean memory, in per cent of the card"),
    "peak_memory_pct": ("share", "peak memory, in per cent of the card"),
}
"""Names of figures: what kind, and what they mean."""

FACTS: dict[str, str] = {
    "name": "name of the row",
    "session": "which session or run",
    "round": "which round",
    "model": "model or network",
    "task": "task",
    "backend": "backend or compiler: the arms of a comparison",
    "gpu": "graphics card",
    "dtype": "data type",
    "scheduler": "scheduler or sampler",
    "size": "picture size, as WIDTHxHEIGHT",
    "meter": "what measured the memory",
    "prompt": "prompt or input picture",
    "label": "label of a picture",
    "picture": "identity of a picture",
    "torch": "version of torch",
    "diffusers": "version of diffusers",
    "cuda": "version of CUDA",
    "driver": "version of the driver",
    "version": "version of the software",
    "scope": "what was compiled",
    "outcome": "how the row ended",
}
"""Names of texts, and what they mean."""

ALIASES: dict[str, str] = {
    "e2e_s": "e2e | end to end | e2e time | e2e latency | end to end time | end to end latency | "
    "inference | inference time | infer time | latency | time per call | generation time | "
    "gen time | time | elapsed | duration | wall time | pipeline time | cell e2e | seconds",
    "it_per_s": "it per s | its | it s | it/s | iter per s | iter/s | iters per s | iters/s | "
    "iterations per second | iterations/s | iteration speed | cell it per s",
    "steps_per_s_e2e": "steps per s | steps/s | steps per second | steps per s e2e",
    "images_per_s": "images per s | images/s | img/s | imgs/s | images per second | throughput img",
    "step_s": "step | step time | time per step | per step | step latency | s/it | sec/it | "
    "s per it | ms/step",
    "warmup_s": "warmup | warm up | warmup time | warm up time",
    "first_call_s": "first call | first run | cold start | first inference",
    "compile_s": "compile | compile time | compilation | compilation time",
    "load_s": "load | load time | loading time",
    "total_s": "total | total time | samples took | runtime | run time | total runtime",
    "first_s": "ttfi | first batch | time to first image | time to first batch | first image",
    "gap_s": "tbb | tbb as printed | time between batches | mean gap | gap | "
    "mean time between batches | inter batch",
    "min_s": "min | min time | best | fastest",
    "max_s": "max | max time | worst | slowest",
    "mean_s": "mean | mean time | average time | avg time | mean latency | avg latency | "
    "average latency",
    "median_s": "median | median time | p50 | median latency",
    "stddev_s": "stddev | std | std dev | standard deviation",
    "baseline_s": "baseline time | base time | reference time | baseline e2e | before",
    "peak_bytes": "peak | peak mem | peak memory | memory | mem | vram | vram consumption | "
    "peak vram | max memory | max mem | gpu memory | peak gpu memory | gpu mem | mem peak | "
    "max used cuda memory | peak gpu memory allocated | memory peak | max vram | vram usage | "
    "memory usage | peak torch max memory allocated | cell peak | max memory allocated",
    "mean_bytes": "mean mem | mem avg | avg mem | average memory | mean memory",
    "capacity_bytes": "capacity | card memory | total vram | gpu capacity",
    "steps": "steps | n steps | num steps | steps claimed | steps requested | inference steps | "
    "num inference steps | ddim steps | sampling steps | claimed steps",
    "steps_effective": "steps effective | effective steps | actual steps | steps run",
    "denoiser_calls": "denoiser calls | unet calls | nfe | calls of the denoiser",
    "height": "height | h | output height",
    "width": "width | w | output width",
    "height_used": "height used | h used",
    "width_used": "width used | w used",
    "batch": "batch | batch size | bs | max batch size",
    "samples": "samples | images | n images | num images | n samples | pictures",
    "batches": "n batches | batches | num batches",
    "runs": "runs | n runs | repeats | calls | measured calls | rounds | n | trials | "
    "num runs | sample count | cell calls",
    "warmups": "warmups | warmup calls | n warmup | warmup runs | num warmup | warmup iters | "
    "warmup steps",
    "n_fid": "n fid | fid n | fid images | fid samples",
    "strength": "strength | denoising strength",
    "guidance": "guidance | guidance scale | cfg | cfg scale",
    "speedup": "speedup | speed up | speedup factor | x faster | acceleration",
    "change_pct": "change | gain | improvement | reduction | faster | faster by | saving | "
    "savings | "
    "time saved | delta | diff | speedup percent | latency reduction",
    "fid": "fid | fid score | pair fid",
    "clip_score": "clip | clip score | clipscore",
    "lpips": "lpips",
    "ssim": "ssim",
    "psnr": "psnr",
    "util_pct": "gpu util | gpu util avg | util | utilization | utilisation | gpu usage",
    "util_peak_pct": "gpu util peak | peak gpu util | peak gpu usage",
    "mean_memory_pct": "mem avg | mem avg percent | gpu memory usage avg",
    "peak_memory_pct": "mem peak | mem peak percent | gpu memory usage peak",
    "name": "name | config | configuration | method | variant | run name | benchmark | fullname",
    "session": "session | run | run id | experiment",
    "round": "round | attempt",
    "model": "model | network | checkpoint | model id | pipeline | architecture",
    "task": "task | mode | workload type",
    "backend": "backend | compiler | engine | optimizer | optimization | accelerator | framework | "
    "arm | setup",
    "gpu": "gpu | device | hardware | card | graphics card | machine | accelerator card",
    "dtype": "dtype | precision | data type | torch dtype",
    "scheduler": "scheduler | sampler | scheduler class",
    "size": "size | resolution | image size | dimensions | picture size",
    "meter": "meter | mem meter | memory meter | cell meter | measured with",
    "prompt": "prompt | caption | input | input image | subject",
    "label": "label | image label | picture label | image",
    "picture": "picture | image id | picture id | sha256 | image hash",
    "torch": "torch | pytorch | torch version | pytorch version",
    "diffusers": "diffusers | diffusers version",
    "cuda": "cuda | cuda version",
    "driver": "driver | driver version",
    "version": "version | software | software version | backend version | compiler version",
    "scope": "scope | compile scope | compiled | compiled scope | compiled modules",
    "outcome": "outcome | status | result",
}
"""Header words by name, with units already off; `` | `` stands between spellings."""

TRANSLATED: dict[str, str] = {
    "e2e_s": "laufzeit | zeit | dauer | inferenzzeit | latenz | temps | duree | latence | "
    "temps d'inference | tiempo | latencia | tiempo de inferencia | tempo | latenza | 时间 | "
    "耗时 | 推理时间 | 延迟 | 生成时间 | 時間 | 推論時間 | 生成時間 | レイテンシ | 処理時間",
    "it_per_s": "iterationen/s | iterationen pro sekunde | iterations par seconde | "
    "iteraciones por segundo | 迭代速度",
    "warmup_s": "aufwarmzeit | aufwarmen | prechauffage | temps de prechauffage | calentamiento | "
    "预热时间 | 预热 | ウォームアップ | ウォームアップ時間",
    "compile_s": "kompilierzeit | temps de compilation | tiempo de compilacion | 编译时间 | "
    "コンパイル時間",
    "total_s": "gesamtzeit | temps total | tiempo total | tempo totale | 总时间 | 合計時間",
    "mean_s": "mittelwert | moyenne | media | 平均 | 平均时间 | 平均時間",
    "peak_bytes": "speicher | spitzenspeicher | grafikspeicher | memoire | memoire max | memoria | "
    "显存 | 显存占用 | 峰值显存 | 内存 | メモリ | 最大メモリ",
    "steps": "schritte | etapes | pas | pasos | passi | 步数 | 推理步数 | ステップ数 | ステップ",
    "strength": "starke | stufenstarke | 强度 | 強度",
    "speedup": "beschleunigung | acceleration factor | aceleracion | accelerazione | 加速比 | "
    "高速化率",
    "change_pct": "verbesserung | ersparnis | amelioration | gain de temps | mejora | 提升 | "
    "改善率",
    "baseline_s": "basiszeit | temps de reference | 基准时间",
    "height": "hohe | hauteur | altura | 高度 | 高さ",
    "width": "breite | largeur | ancho | 宽度 | 幅",
    "batch": "stapelgrosse | taille de lot | taille du lot | tamano de lote | 批大小 | "
    "バッチサイズ",
    "runs": "laufe | messungen | wiederholungen | essais | repetitions | repeticiones | 次数 | "
    "运行次数 | 回数",
    "model": "modell | modele | modelo | modello | netz | 模型 | モデル",
    "backend": "moteur | compilateur | motor | motore | compilador | 后端 | 编译器 | バックエンド",
    "gpu": "grafikkarte | carte | carte graphique | tarjeta | scheda | 显卡 | グラフィックカード",
    "dtype": "genauigkeit | datentyp | precisione | precision numerique | 精度 | データ型",
    "scheduler": "planificateur | 采样器 | 调度器 | サンプラー",
    "size": "auflosung | bildgrosse | taille | resolucion | tamano | risoluzione | 分辨率 | 解像度",
    "name": "konfiguration | nom | nombre | nome | 配置 | 方法 | 構成",
    "task": "aufgabe | tache | tarea | 任务 | タスク",
    "prompt": "eingabe | invite | 提示词 | プロンプト",
}
"""Headers in German, French, Spanish, Italian, Chinese and Japanese, in lower case and without
accents, as `ALIASES`."""

_BY_WORDS = {
    words.strip(): name
    for spelt in (TRANSLATED, ALIASES)
    for name, texts in spelt.items()
    for words in texts.split(" | ")
}

KNOWN_BY: tuple[tuple[tuple[str, ...], str], ...] = (
    (("warm", "count"), "warmups"),
    (("warm",), "warmup_s"),
    (("compil", "time"), "compile_s"),
    (("first", "image"), "first_s"),
    (("first", "call"), "first_call_s"),
    (("between",), "gap_s"),
    (("step", "effective"), "steps_effective"),
    (("step", "second"), "steps_per_s_e2e"),
    (("unet", "call"), "denoiser_calls"),
    (("step", "time"), "step_s"),
    (("step",), "steps"),
    (("it/s",), "it_per_s"),
    (("iter", "sec"), "it_per_s"),
    (("speedup",), "speedup"),
    (("speed up",), "speedup"),
    (("fid",), "fid"),
    (("clip", "score"), "clip_score"),
    (("improvement",), "change_pct"),
    (("inference",), "e2e_s"),
    (("latency",), "e2e_s"),
    (("e2e",), "e2e_s"),
    (("end-to-end",), "e2e_s"),
    (("end", "to", "end"), "e2e_s"),
    (("vram",), "peak_bytes"),
    (("mem", "meter"), "meter"),
    (("memory",), "peak_bytes"),
    (("resolution",), "size"),
    (("batch", "size"), "batch"),
    (("sampler",), "scheduler"),
    (("scheduler",), "scheduler"),
    (("gpu",), "gpu"),
    (("precision",), "dtype"),
    (("model",), "model"),
    (("compiler",), "backend"),
    (("backend",), "backend"),
)
"""What a guess goes by: all parts must occur in the header. The first that fits is taken."""

NOT_GUESSED = re.compile(
    r"\blow|high|efficient|interval|\bci\b|std|err|device_e2e|reserved|nvml|\brss\b|cell_"
)
"""Headers that say another thing than the word they contain."""

_OTHER_METER = re.compile(r"reserved|nvml|smi|rss|device.?used|max.memory.allocated")

SCALES: dict[Kind, dict[str, float]] = {
    "time": {
        "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
        "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
        "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9,
        "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
        "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
        "sek": 1.0, "sekunden": 1.0, "secondes": 1.0, "segundos": 1.0, "secondi": 1.0, "秒": 1.0,
        "毫秒": 1e-3, "ミリ秒": 1e-3,
    },
    "memory": {
        "b": 1.0, "byte": 1.0, "bytes": 1.0,
        "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1024.0, "mib": 1024.0**2, "gib": 1024.0**3,
        "m": 1e6, "g": 1e9, "ko": 1e3, "mo": 1e6, "go": 1e9, "mio": 1024.0**2, "gio": 1024.0**3,
    },
    "rate": {"it/s": 1.0, "its": 1.0, "steps/s": 1.0, "img/s": 1.0, "images/s": 1.0, "hz": 1.0,
             "it/min": 1 / 60, "img/min": 1 / 60, "images/min": 1 / 60, "s/it": -1.0,
             "it": 1.0},
    "share": {"%": 1.0, "pct": 1.0, "percent": 1.0},
    "ratio": {"x": 1.0, "×": 1.0, "%": 0.01, "db": 1.0},
    "count": {"px": 1.0, "steps": 1.0, "it": 1.0, "images": 1.0, "k": 1000.0},
}  # fmt: skip
"""One unit in the unit of the name: seconds, bytes, per second, per cent."""

_UNIT_WORDS = {u for scales in SCALES.values() for u in scales} - {"b", "g", "m", "h", "it", "k"}
_BRACKETS = re.compile(r"[(\[]\s*([^)\]]*?)\s*[)\]]")
_WORD_UNITS = {"min", "images", "steps", "its"}
"""Units that are quantities themselves when nothing stands before them."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a header means. ``scale`` is None where the cells must say the unit."""

    name: str
    unit: str
    scale: float | None
    guessed: bool
    meter: str = ""


def kind_of(name: str) -> Kind:
    return QUANTITIES[name][0] if name in QUANTITIES else "text"


def scale_of(kind: Kind, unit: str) -> float | None:
    """Return one ``unit`` in the unit of a kind's names, or None for a unit that it has not."""
    return SCALES.get(kind, {}).get(unit.lower() if unit != "M" else "m")


def split(header: str) -> tuple[str, str]:
    """Return the header's words without its unit, in lower case, and the unit ("" for none)."""
    text = unicodedata.normalize("NFKC", header).strip().strip("*_`").replace("\ufeff", "")
    unit = ""
    for inside in _BRACKETS.findall(text):
        if inside.lower() in _UNIT_WORDS or inside.lower() in ("m", "b", "g", "h"):
            unit = inside
    text = _BRACKETS.sub(
        lambda m: " " if m[1].lower() == unit.lower() and unit else f" {m[1]} ", text
    )
    # batchSize is two words; GiB and TensorRT are one.
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    words = _plain(re.sub(r"[\s_,:;.\-–?#]+", " ", text).strip().lower())
    if not unit:
        parts = words.split(" ")
        if len(parts) > 1 and parts[-1] == "%":
            return " ".join(parts[:-1]), "%"
        if len(parts) > 1 and parts[-1] in _UNIT_WORDS - _WORD_UNITS and parts[-2] != "per":
            if parts[:-1] in (["it"], ["iter"], ["iters"], ["steps"], ["images"]):
                return words, ""
            return " ".join(parts[:-1]), parts[-1]
        if words.endswith("%"):
            return words[:-1].strip(), "%"
        for i in range(1, len(parts)):
            # TBB_s_as_printed: the unit stands amidst.
            if parts[i] in {"s", "ms", "mib", "gib", "mb", "gb", "pct"} and parts[i - 1] != "per":
                return " ".join(parts[:i] + parts[i + 1 :]), parts[i]
    return words, unit


def _plain(text: str) -> str:
    """Return Latin letters without their accents; other scripts stay as they are."""
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    bare = "".join(c for c in parts if not "\u0300" <= c <= "\u036f")
    return unicodedata.normalize("NFC", bare)


METERS: tuple[tuple[str, str], ...] = (
    (r"reserved", "torch reserved"),
    (r"allocated|torch.?max|torch.?alloc|torch.?peak", "torch allocated"),
    (r"smi|nvml", "nvidia-smi"),
    (r"device.?used|mem.?get.?info|cuda.?memory.?used|driver", "whole device"),
    (r"\brss\b|resident|host", "host resident"),
    (r"torch", "torch, unclear which"),
)
"""Spellings of memory meters → the names that findings use."""


def meter_of(text: str) -> str:
    """Return the memory meter that a text names, "" for none, the text itself if it is unknown."""
    low = text.strip().lower().replace("_", " ")
    if not low:
        return ""
    return next((name for pattern, name in METERS if re.search(pattern, low)), low)


def meaning(header: str) -> Meaning | None:
    """Return what a header means, or None where nothing is known or may be guessed."""
    words, unit = split(header)
    if scale_of("memory", unit) and _OTHER_METER.search(header.lower()):
        return Meaning("peak_bytes", unit, scale_of("memory", unit), False, meter_of(words))
    whole = re.sub(r"[\s_]+", " ", header.strip().lower())
    name = _BY_WORDS.get(words) or _BY_WORDS.get(whole)
    guessed = name is None
    if name is None and not NOT_GUESSED.search(header.lower()):
        name = next(
            (name for parts, name in KNOWN_BY if all(part in words for part in parts)), None
        )
    if name is None:
        return None
    name = _by_unit(name, unit)
    if name is None:
        return None
    kind = kind_of(name)
    scale = scale_of(kind, unit) if unit else None
    if unit and scale is None and kind != "text":
        return None
    meter = ""
    if name == "peak_bytes":
        found = meter_of(words)
        meter = found if found in {label for _, label in METERS} else ""
    return Meaning(name, unit, scale, guessed, meter)


def _by_unit(name: str, unit: str) -> str | None:
    """Return what a name is in this unit: memory in per cent is a share, step in ms a time."""
    low = unit.lower()
    if kind_of(name) == "text" and (low in SCALES["time"] or low in SCALES["memory"]):
        # "compiled (s)" is a time of that arm.
        return None
    if low in ("%", "pct", "percent"):
        return {
            "peak_bytes": "peak_memory_pct",
            "mean_bytes": "mean_memory_pct",
            "speedup": "change_pct",
            "change_pct": "change_pct",
            "e2e_s": None,
        }.get(name, name)
    if name == "change_pct" and low in ("x", "×"):
        return "speedup"
    if name == "speedup" and low in SCALES["time"]:
        return None
    if name == "change_pct" and (low in SCALES["time"] or low in SCALES["memory"]):
        return None
    if name == "steps" and low in SCALES["time"]:
        return "step_s"
    if name in ("peak_memory_pct", "mean_memory_pct") and low in SCALES["memory"]:
        return {"peak_memory_pct": "peak_bytes", "mean_memory_pct": "mean_bytes"}[name]
    if name == "it_per_s" and low in ("s", "ms"):
        return "it_per_s"
    return name


def user_map(choices: list[str]) -> dict[str, Meaning]:
    """Return ``--map HEADER=NAME`` choices, by header.

    NAME is a name of `QUANTITIES` or `FACTS`, with or without its unit's ending, or with another
    unit: ``latency=e2e``, ``latency=e2e_ms``, ``mem=peak_mib``.

    Raises:
        AuditError: a choice is not of that form, or the name is unknown.
    """
    found: dict[str, Meaning] = {}
    for choice in choices:
        header, _, target = choice.rpartition("=")
        if not header or not target:
            raise AuditError(
                f"--map {choice!r} is not HEADER=NAME, for example --map inference_s=e2e."
            )
        found[header.strip()] = _named(header.strip(), target.strip())
    return found


def _named(header: str, target: str) -> Meaning:
    _, own_unit = split(header)
    for name in (*QUANTITIES, *FACTS):
        kind = kind_of(name)
        stem = re.sub(r"_(s|bytes|pct)$", "", name)
        if target in (name, stem):
            explicit = target == name != stem
            scale = scale_of(kind, own_unit) if own_unit else None
            if explicit and kind in ("time", "memory") and not own_unit:
                scale = 1.0
            return Meaning(name, own_unit, scale, False)
        if target.startswith(stem + "_") and kind in SCALES:
            unit = target[len(stem) + 1 :]
            scale = scale_of(kind, unit)
            if scale is not None:
                return Meaning(name, unit, scale, False)
    names = sorted({*QUANTITIES, *FACTS, *(re.sub(r"_(s|bytes|pct)$", "", n) for n in QUANTITIES)})
    near = difflib.get_close_matches(target, names, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else "docs/audit.md lists the names."
    raise AuditError(f"--map {header}={target}: no column is called {target!r}; {hint}")
