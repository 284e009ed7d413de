from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.gate import GateError, baselines, measured, show
from bench.gate.compare import compare
from bench.store import StoreError
from tests.gate import support
from tests.gate.support import planned, records, run, times, write_run

NAME = "t2i/torch-compile"


def test_a_baseline_keeps_samples_and_provenance(tmp_path: Path) -> None:
    folder = run(tmp_path, "run")
    path = baselines.save(folder, "main", tmp_path / "baselines")
    kept = baselines.read(path)
    assert path == tmp_path / "baselines" / "main" / f"{kept.machine}.json"
    measurement = measured.of_run(folder)
    assert (kept.cells, kept.runs) == (measurement.cells, measurement.runs)
    assert kept.machine == kept.machine_key == measurement.machine_key
    cell = kept.cells[NAME]
    assert [list(process.e2e_s) for process in cell.processes] == times()
    assert cell.processes[0].memory_bytes == 2**30
    assert cell.fingerprint["cpu"] == "CPU X"
    assert kept.runs[0].run_id
    assert str(tmp_path) not in path.read_text()


def test_files_keep_only_their_names(tmp_path: Path) -> None:
    of = planned(model=f"path:{tmp_path}/private/model", input_image=f"{tmp_path}/private/in.png")
    of["cell_id"] = "a"
    path = baselines.save(run(tmp_path, "run", of=of), "main", tmp_path / "baselines")
    workload = baselines.read(path).cells[NAME].asked.workload
    assert (workload["model"], workload["input_image"]) == ("path:model", "in.png")
    assert "private" not in path.read_text()


def test_secrets_never_reach_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(tmp_path, "run", of=planned(prompt="my s3cr3t-t0ken-value here"))
    monkeypatch.setenv("HF_TOKEN", "s3cr3t-t0ken-value")
    path = baselines.save(folder, "main", tmp_path / "baselines")
    assert "s3cr3t" not in path.read_text()
    assert "[hidden]" in path.read_text()


def test_the_commit_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = run(tmp_path, "run")

    def commit() -> measured.Commit:
        return baselines.read(baselines.save(folder, "a", tmp_path / "b")).commit

    assert commit().id is None
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    assert len(commit().id or "") == 40
    assert commit().dirty is False
    (tmp_path / "file").write_text("2")
    assert commit().dirty is True


def test_each_machine_has_a_file_and_finds_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    other = {**support.FINGERPRINT, "cpu": "CPU Y"}
    newer = {**support.FINGERPRINT, "cpu": "CPU Y", "python": "3.12.0"}
    here = baselines.read(baselines.save(run(tmp_path, "here"), "main", folder))
    there = baselines.read(
        baselines.save(run(tmp_path, "there", fingerprint=other), "main", folder)
    )
    baselines.save(run(tmp_path, "newer", fingerprint=newer), "main", folder)
    assert len(baselines.of_name("main", folder)) == 3
    assert baselines.find("main", here, folder).machine == here.machine
    assert baselines.find("main", there, folder).machine == there.machine
    unknown = measured.of_run(
        run(tmp_path, "x", fingerprint={**support.FINGERPRINT, "cpu": "CPU Z"})
    )
    nearest = baselines.find("main", unknown, folder)
    assert nearest.machine in (here.machine, there.machine)  # the same software
    assert [entry.name for entry in baselines.every(folder)] == ["main"] * 3


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 90])
def test_names_are_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(GateError, match="cannot name a baseline"):
        baselines.save(run(tmp_path, "run"), name, tmp_path / "b")


def test_unsound_runs_are_refused(tmp_path: Path) -> None:
    of = planned(rounds=2)
    half = write_run(tmp_path / "half", [(of, records(of, times(processes=1)))])
    with pytest.raises(GateError, match="1 of 2 rounds; finish"):
        baselines.save(half, "x", tmp_path / "b")
    bad = records(of, times(processes=2))
    bad[1].update(outcome="oom", reason="too big")
    with pytest.raises(GateError, match=r"oom in round 2 \(too big\)"):
        baselines.save(write_run(tmp_path / "bad", [(of, bad)]), "x", tmp_path / "b")
    mixed = records(of, times(processes=2))
    mixed[1]["fingerprint"] = {"cpu": "other"}
    with pytest.raises(GateError, match="different machines or software"):
        baselines.save(write_run(tmp_path / "mixed", [(of, mixed)]), "x", tmp_path / "b")
    empty = write_run(tmp_path / "empty", [(of, [])])
    with pytest.raises(GateError, match="no record"):
        baselines.save(empty, "x", tmp_path / "b")
    with pytest.raises(StoreError, match="not the folder of a run"):
        baselines.save(tmp_path / "none", "x", tmp_path / "b")


def test_what_is_unsupported_is_kept_as_that(tmp_path: Path) -> None:
    of = planned(rounds=1)
    none = records(of, [[]])
    none[0].update(outcome="unsupported", reason="no GPU")
    ok = planned("none", rounds=1)
    path = write_run(tmp_path / "r", [(of, none), (ok, records(ok, times(processes=1)))])
    assert baselines.read(baselines.save(path, "x", tmp_path / "b")).cells[NAME].processes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a baseline"),
        ('{"kind": "bench baseline", "schema": 99}', "update bench"),
        ('{"kind": "bench baseline"}', "schema None"),
        ('{"kind": "bench baseline", "schema": 1}', "damaged: object missing required field name"),
        ('{"kind": "bench baseline", "schema": 1, "name": 5}', "damaged: name: expected str"),
        ('"\\udc00"', "is not"),
        ("[" * 100_000, "is not a baseline"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "b" / "main" / "m.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(GateError, match=message) as caught:
        baselines.of_name("main", tmp_path / "b")
    assert "m.json" in str(caught.value)


JUNK = [None, True, -1, 0, 2**70, 1e308, "", "x", "\x00", [], {}, [1], {"a": 1}, "ok", "IDENTICAL"]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (container, key) in JSON."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def test_whatever_is_damaged_is_a_sentence_or_can_be_compared(tmp_path: Path) -> None:
    path = baselines.save(run(tmp_path, "run", of=planned(rounds=2)), "main", tmp_path / "b")
    whole, text = baselines.read(path), path.read_text()
    random = Random(1)
    refused = []
    for _ in range(400):
        content = json.loads(text)
        container, key = random.choice(list(places(content)))
        container[key] = random.choice(JUNK)
        path.write_text(json.dumps(content))
        try:
            damaged = baselines.read(path)
        except GateError as error:
            refused.append(str(error))
        else:
            show.texts([compare(whole, damaged), compare(damaged, whole)], "junit")
    assert 100 < len(refused) < 350
    assert not any("\n" in sentence for sentence in refused)


def test_unknown_names_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="b/ has none"):
        baselines.of_name("main", tmp_path / "b")
    baselines.save(run(tmp_path, "run"), "main", tmp_path / "b")
    with pytest.raises(GateError, match="there are: main"):
        baselines.of_name("mian", tmp_path / "b")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("a file")
    with pytest.raises(GateError, match="cannot be written"):
        baselines.save(run(tmp_path, "run"), "main", tmp_path / "b")


def test_a_baseline_is_plain_sorted_json(tmp_path: Path) -> None:
    text = baselines.save(run(tmp_path, "run"), "main", tmp_path / "b").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
