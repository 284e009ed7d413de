"""The 'never' column of docs/architecture.md: by reading the imports, and by running them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STDLIB = sys.stdlib_module_names
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "safetensors"}
PARENT_ONLY = {"pandas", "matplotlib", "pydantic", "rich", "typer", "yaml"}


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Return the dotted names that a file imports; ``top_level`` leaves out those in functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def files(folder: str, *, without: str = "\0") -> list[Path]:
    found = [
        path
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(without)
    ]
    assert found
    return found


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


WORKER = [
    *files("bench/worker"),
    *files("compilers"),
    ROOT / "bench/plugins.py",
    *(
        path
        for folder in ("bench/passes", "bench/tasks")
        for path in files(folder)
        if path.name in ("__init__.py", "base.py", "work.py")
    ),
]
PARENT = [path for path in files("bench") if path not in WORKER]


@pytest.mark.parametrize("path", PARENT, ids=shown)
def test_the_parent_never_imports_torch(path: Path) -> None:
    asked_to_report = shown(path) in {
        f"bench/cli/{verb}.py" for verb in ("report", "export", "history", "show")
    }
    later = {"plots", "scripts"} | (set() if asked_to_report else {"reports"})
    if path.name == "section.py":  # a pass's or task's part of a report, imported by reports alone
        later = {"scripts"}
    assert not packages(imports(path)) & (HEAVY | later)


@pytest.mark.parametrize("path", WORKER, ids=shown)
def test_what_runs_in_a_worker_imports_nothing_of_the_parent(path: Path) -> None:
    names = imports(path)
    assert not packages(names) & PARENT_ONLY
    parents = {name for name in names if name.startswith("bench.")}
    shared = (
        *("bench.chains", "bench.contract", "bench.content", "bench.folder", "bench.modes"),
        *("bench.nvml", "bench.stats.order"),
    )
    capabilities = ("bench.plugins", "bench.passes", "bench.tasks")
    allowed = (*shared, *capabilities, "bench.worker")
    assert all(name.startswith(allowed) for name in parents), parents


@pytest.mark.parametrize("path", files("compilers"), ids=shown)
def test_compilers_import_torch_inside_functions_and_no_other_backend(path: Path) -> None:
    assert packages(imports(path, top_level=True)) <= STDLIB | {"compilers"}
    backends = {p.stem for p in files("compilers") if "\n    def probe(" in p.read_text()}
    backends.discard("base")
    assert {"none", "torch_compile", "torch_compile_regional"} <= backends
    others = {f"compilers.{name}" for name in backends - {path.stem}}
    assert not imports(path) & others


@pytest.mark.parametrize("path", [*files("bench/runner"), *files("bench/store")], ids=shown)
def test_runner_and_store_need_no_pandas(path: Path) -> None:
    assert not packages(imports(path)) & {"pandas", "matplotlib"}


@pytest.mark.parametrize("path", files("bench/environments"), ids=shown)
def test_environments_stand_below_the_runner(path: Path) -> None:
    names = imports(path)
    assert packages(names) <= STDLIB | {"bench", "compilers", "tomli", "uv"}
    assert all(name.startswith("bench.environments") for name in names if name.startswith("bench."))


@pytest.mark.parametrize("path", files("bench/stats"), ids=shown)
def test_statistics_are_numpy_and_nothing_else(path: Path) -> None:
    names = imports(path)
    assert packages(names) <= STDLIB | {"bench", "numpy"}
    assert all(n.startswith("bench.stats") for n in names if n.startswith("bench.")), names


@pytest.mark.parametrize("path", files("plots"), ids=shown)
def test_a_figure_reads_no_records(path: Path) -> None:
    assert packages(imports(path)) <= STDLIB | {"PIL", "matplotlib", "numpy", "pandas", "plots"}


@pytest.mark.parametrize("path", files("reports"), ids=shown)
def test_a_report_measures_nothing(path: Path) -> None:
    names = imports(path)
    assert not packages(names) & HEAVY
    measuring = ("bench.worker", "bench.runner", "bench.config", "bench.api")
    assert not [name for name in names if name.startswith(measuring)], names


@pytest.mark.parametrize(
    "path",
    ["bench/chains.py", "bench/contract.py", "bench/stats/__init__.py", "bench/stats/order.py"],
)
def test_what_a_worker_shares_needs_the_standard_library_alone(path: str) -> None:
    assert packages(imports(ROOT / path)) <= STDLIB


def test_bindings_of_nvml_are_imported_when_asked_for() -> None:
    assert packages(imports(ROOT / "bench/nvml.py", top_level=True)) <= STDLIB


def loaded_by(code: str) -> set[str]:
    """Run ``code`` in a fresh interpreter and return the packages that it has imported."""
    program = (
        f"{code}\nimport sys; print('\\n' + ' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "bench",
        "bench.api",
        "bench.audit",
        "bench.cli.run",
        "bench.config",
        "bench.cli.env",
        "bench.doctor",
        "bench.gate.compare",
        "bench.gate.run",
        "bench.runner",
        "bench.store",
        "bench.stats",
        "bench.passes.sweep.judge",
        "bench.records.frame",
        "bench.records.terminal",
    ],
)
def test_importing_a_parent_module_loads_neither_torch_nor_pandas(module: str) -> None:
    assert not loaded_by(f"import {module}") & (HEAVY | {"pandas", "matplotlib"})


def test_importing_the_worker_loads_nothing_of_the_parent() -> None:
    loaded = loaded_by(
        "from bench.worker import cell, families\n"
        "for task in families.TASKS.names(): families.work_of(task)\n"
        "cell.asked(dict.fromkeys(('telemetry', 'repeat', 'profile', 'sweep'), True))\n"
        "import compilers.registry"
    )
    assert not loaded & PARENT_ONLY


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        "import a.b\nfrom c import d\nimport importlib\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import never\n"
        "def f():\n    import e\n    importlib.import_module('g')\n"
    )
    assert imports(path) >= {"a.b", "c", "c.d", "e", "g"}
    assert "never" not in imports(path)
    assert not imports(path, top_level=True) & {"e", "g"}
