"""Tables as strangers lay them out: other languages, arms in columns, copied rows, long files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.audit import Audited, Table, audit, rows
from bench.audit.columns import meaning


def audited(folder: Path, text: str, name: str = "t.csv") -> Audited:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    (one,) = audit([path])
    return one


def checks(one: Audited) -> list[str]:
    return [finding.check for finding in one.findings]


@pytest.mark.parametrize(
    ("header", "name", "scale"),
    [
        ("Schritte", "steps", None),
        ("Étapes", "steps", None),
        ("推理时间（秒）", "e2e_s", 1.0),
        ("显存 (MiB)", "peak_bytes", 1024.0**2),
        ("Mémoire (Go)", "peak_bytes", 1e9),
        ("Auflösung", "size", None),
        ("Bildgröße", "size", None),
        ("ステップ数", "steps", None),
        ("peak_mem_GiB", "peak_bytes", 1024.0**3),
        ("batchSize", "batch", None),
        ("speed-up TRT", "speedup", None),
    ],
)
def test_headers_of_strangers(header: str, name: str, scale: float | None) -> None:
    found = meaning(header)
    assert found is not None
    assert (found.name, found.scale) == (name, scale)


def test_a_time_of_an_arm_is_not_the_compiled_scope() -> None:
    assert meaning("compiled (s)") is None


def test_a_german_table(tmp_path: Path) -> None:
    text = "Modell;Motor;Schritte;Laufzeit (s);it/s\nnetz;eager;30;2,41;13,9\n"
    assert not checks(audited(tmp_path, text + "netz;compile;30;1,83;18,7\n"))
    one = audited(tmp_path, text + "netz;compile;30;0,83;18,7\n")
    assert checks(one) == ["implied-steps"]
    assert one.findings[0].rows == (1,)


WIDE = """| Model | eager (s) | compiled (s) | TensorRT (s) | speed-up compiled | speed-up TRT |
|---|---|---|---|---|---|
| a | 4.92 | 3.71 | 2.61 | 1.33x | 1.89x |
| b | 19.3 | 15.4 | 11.2 | 1.25x | {} |
| c | 6.21 | 4.93 | 3.66 | 1.26x | 1.70x |
"""


def test_arms_in_columns_with_a_speedup_of_each(tmp_path: Path) -> None:
    assert not checks(audited(tmp_path, WIDE.format("1.72x"), "t.md"))
    one = audited(tmp_path, WIDE.format("2.22x"), "t.md")
    assert checks(one) == ["stated-ratio"]
    assert {one.table.lines[i] for i in one.findings[0].rows} == {4}


def test_an_average_beside_arms_in_columns(tmp_path: Path) -> None:
    rows = "model,eager (s),compiled (s),speedup\na,1.32,0.88,1.50\nb,6.12,2.04,3.00\n"
    rows += "c,24.1,20.08,1.20\nAverage,10.51,7.67,{}\n"
    assert checks(audited(tmp_path, rows.format("1.90"))) == ["average-of-ratios"]
    assert not checks(audited(tmp_path, rows.format("1.37")))


def test_calls_stated_as_if_strength_left_none_out(tmp_path: Path) -> None:
    text = "strength,steps,unet_calls,time_s\n0.25,40,{},1.02\n1.0,40,40,2.81\n"
    assert checks(audited(tmp_path, text.format(40))) == ["effective-steps"]
    assert not checks(audited(tmp_path, text.format(10)))


def test_memory_columns_of_two_arms_by_two_meters(tmp_path: Path) -> None:
    text = "model,eager {} (GiB),TensorRT {} (GiB)\na,3.12,5.01\nb,7.4,10.2\n"
    one = audited(tmp_path, text.format("max_memory_allocated", "nvidia-smi"))
    assert checks(one) == ["mixed-meters"]
    same = text.format("max_memory_allocated", "max_memory_allocated")
    assert not checks(audited(tmp_path, same))


COPIED = """model,backend,latency_s,warmup_s,ssim
a,eager,1.312,1.6,1
a,inductor,0.974,61.2,0.9312
a,trt,0.803,38.1,0.9417
b,eager,5.731,1.4,1
b,inductor,4.239,60.2,0.9377
b,trt,3.498,27.1,0.9204
c,eager,4.171,1.8,1
c,inductor,{}
c,trt,2.551,24.8,0.9488
"""


def test_a_row_copied_whole_needs_no_long_figures(tmp_path: Path) -> None:
    assert not checks(audited(tmp_path, COPIED.format("3.092,55.9,0.9441")))
    one = audited(tmp_path, COPIED.format("4.239,60.2,0.9377"))
    assert checks(one) == ["copied-cell"]
    assert one.findings[0].rows == (4, 7)


def test_one_picture_under_two_prompts(tmp_path: Path) -> None:
    text = "prompt,backend,time (s),image\ndog,eager,3.21,a.png\ndog,compile,2.41,b.png\n"
    text += "cat,eager,3.25,c.png\ncat,compile,2.39,{}.png\n"
    assert checks(audited(tmp_path, text.format("b"))) == ["copied-cell"]
    assert not checks(audited(tmp_path, text.format("d")))


def test_arms_in_a_column_called_mode(tmp_path: Path) -> None:
    text = "model,mode,sampler,time_s\na,eager,DDIM,3.92\na,compile,{},2.91\n"
    assert checks(audited(tmp_path, text.format("DPM++ 2M"))) == ["unequal-arms"]
    assert not checks(audited(tmp_path, text.format("DDIM")))


def test_a_whole_picture_bounds_the_time_of_a_step(tmp_path: Path) -> None:
    text = "gpu,model,resolution,steps,time (s)\nRTX 4090,SDXL,1024x1024,30,{}\n"
    assert checks(audited(tmp_path, text.format("0.21"))) == ["plausibility"]
    assert not checks(audited(tmp_path, text.format("4.4")))


def test_fid_without_a_number_of_pictures_is_noted(tmp_path: Path) -> None:
    one = audited(tmp_path, "backend,latency (ms),FID\neager,2931,21.31\ncompile,2210,21.35\n")
    assert not one.findings
    assert any("how many pictures" in note.says for note in one.notes)


def test_work_grows_with_the_kinds_of_rows_and_not_with_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    original = rows._calls_candidates

    def counted(table: Table, i: int) -> list[float]:
        asked.append(i)
        return original(table, i)

    monkeypatch.setattr(rows, "_calls_candidates", counted)
    lines = ["model,backend,height,width,steps,inference_s,iter_per_s"]
    for i in range(2000):
        n, size, fast = (10, 20, 30, 50)[i % 4], (512, 768, 1024)[i % 3], i % 7 > 3
        own = 0.05 * (size / 512) ** 2 * (0.7 if fast else 1.0)
        scatter = 1 + 0.005 * ((i * 7919 % 101) / 50 - 1)
        arm = "x" if fast else "none"
        lines.append(
            f"m{i % 5},{arm},{size},{size},{n},{(n + 3) * own * scatter:.4f},{1 / own:.4f}"
        )
    assert not audited(tmp_path, "\n".join(lines)).findings
    assert len(asked) == 4


def test_a_slow_row_among_three_step_counts(tmp_path: Path) -> None:
    lines = ["model,compiler,steps,latency,it/s"]
    for arm, own in (("eager", 0.07), ("trt", 0.042)):
        for n in (20, 30, 50):
            factor = 1.2 if (arm, n) == ("trt", 30) else 1.0
            lines.append(f"a,{arm},{n},{(0.3 + n * own) * factor:.3f},{1 / own / factor:.3f}")
    one = audited(tmp_path, "\n".join(lines))
    assert checks(one) == ["slow-row"]
    assert one.findings[0].rows == (4,)
    clean = [*lines[:5], f"a,trt,30,{0.3 + 30 * 0.042:.3f},{1 / 0.042:.3f}", lines[6]]
    assert not checks(audited(tmp_path, "\n".join(clean)))


def test_a_percentage_by_another_definition_than_its_column(tmp_path: Path) -> None:
    text = "model,eager (ms),compile (ms),improvement\na,1000,800,20 %\nb,1500,1000,33 %\n"
    text += "c,900,700,{} %\nd,700,630,10 %\n"
    assert not checks(audited(tmp_path, text.format(22)))
    one = audited(tmp_path, text.format(29))
    assert checks(one) == ["stated-ratio"]
    assert "baseline ÷ this − 1" in one.findings[0].says
