"""The last two columns of docs/architecture.md: by following the imports, and by running them."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "compilers", "plots", "reports")
STDLIB = frozenset(sys.stdlib_module_names)
HEAVY = frozenset({"torch", "diffusers", "transformers", "accelerate", "safetensors"})
PARENT_ONLY = frozenset({"pandas", "matplotlib", "pydantic", "rich", "typer", "yaml", "msgspec"})
TABLES = frozenset({"pandas", "matplotlib"})


def named(node: ast.expr) -> str:
    """Return the last part of a dotted name."""
    return str(getattr(node, "attr", getattr(node, "id", "")))


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Return the dotted names that a file imports; ``top_level`` leaves out those in functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.If) and named(node.test) == "TYPE_CHECKING":
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
            and named(node.func) == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


@functools.cache
def modules() -> dict[str, Path]:
    """Return every module of the product by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    assert len(found) > 200
    return found


@functools.cache
def edges(module: str, *, top_level: bool) -> frozenset[str]:
    """Return what a module imports: modules of the product, and the names of other packages."""
    found = set()
    for name in imports(modules()[module], top_level=top_level):
        inside = name
        while inside and inside not in modules():
            inside = inside.rpartition(".")[0]
        # Importing a.b.c runs a and a.b first.
        parts = inside.split(".") if inside else []
        found |= {".".join(parts[: end + 1]) for end in range(len(parts))}
        if not inside:
            found.add(name.partition(".")[0])
    return frozenset(found - {module})


def reached(start: str, *, top_level: bool) -> dict[str, str]:
    """Return all that a module imports, directly or through others, each with who imports it."""
    found = {start: ""}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        # What a package offers lazily is imported by who asks for it, not by who imports a part.
        package = module in PACKAGES
        for name in edges(module, top_level=top_level or package) - found.keys():
            found[name] = module
            if name in modules():
                waiting.append(name)
    return found


def way(found: dict[str, str], name: str) -> str:
    """Return the chain of imports that leads to ``name``."""
    chain = [name]
    while found[chain[-1]]:
        chain.append(found[chain[-1]])
    return " <- ".join(chain)


def in_worker(module: str) -> bool:
    """Return whether a module runs in a worker: valid on old interpreters, without the parent."""
    capability = module.startswith(("bench.passes.", "bench.tasks."))
    work = capability and module.rpartition(".")[2] in ("work", "base")
    return work or module.partition(".")[0] == "compilers" or module.startswith("bench.worker")


SHARED = (
    *(
        "bench.chains",
        "bench.contract",
        "bench.content",
        "bench.files",
        "bench.folder",
        "bench.modes",
        "bench.redact",
    ),
    *("bench.nvml", "bench.plugins", "bench.stats", "bench.stats.order"),
)
"""What both sides import; besides, the packages of passes and tasks themselves."""

WORKER = [module for module in modules() if in_worker(module)]
PARENT = [module for module in modules() if not in_worker(module)]


def of(*packages: str) -> list[str]:
    """Return the modules of the parent in these packages."""
    found = [
        module
        for module in PARENT
        if any(module == each or module.startswith(f"{each}.") for each in packages)
    ]
    assert found
    return found


NEVER: list[tuple[str, Iterable[str], frozenset[str]]] = [
    ("the parent holds no device", PARENT, HEAVY),
    ("the runner needs no tables", of("bench.runner", "bench.store", "bench.api"), TABLES),
    ("environments stand below", of("bench.environments", "bench.contract"), PARENT_ONLY),
    ("statistics are numpy alone", of("bench.stats"), HEAVY | PARENT_ONLY | {"PIL", "psutil"}),
    ("a command starts fast", ["bench.cli.app"], (PARENT_ONLY | {"numpy"}) - {"typer"}),
    ("a figure draws, and reads no records", of("plots"), HEAVY | {"pydantic", "msgspec"}),
]


@pytest.mark.parametrize(("rule", "who", "never"), NEVER, ids=[rule for rule, _, _ in NEVER])
def test_what_a_room_never_loads(rule: str, who: Iterable[str], never: frozenset[str]) -> None:
    """Transitively, at import time."""
    for module in who:
        found = reached(module, top_level=True)
        assert not [way(found, name) for name in never & found.keys()], rule


STARTS_WORKERS = {"doctor", "perceptual", "runner.host", "runner.lane", "runner.launch"}
"""Rooms of the parent that name what they start, or that ask what a worker would answer."""


def test_the_parent_never_imports_torch_even_later() -> None:
    """In functions too; what runs in a worker is started as a process instead."""
    for module in PARENT:
        names = edges(module, top_level=False)
        assert not names & HEAVY, module
        if module.removeprefix("bench.") not in STARTS_WORKERS:
            assert not {name for name in names if name.startswith("bench.worker")}, module


def test_what_runs_in_a_worker_reaches_nothing_of_the_parent() -> None:
    """Transitively, in functions too: it may run under an old, pinned interpreter."""
    packages = {"bench", "bench.passes", "bench.tasks", *SHARED}
    for module in WORKER:
        found = reached(module, top_level=False)
        names = {name for name in found if name in modules()}
        parents = {
            name
            for name in names
            if not in_worker(name) and name not in packages and name.count(".") != 2
        }
        assert not [way(found, name) for name in (found.keys() & PARENT_ONLY) | parents]


def test_a_report_measures_nothing() -> None:
    measuring = ("bench.runner", "bench.config", "bench.api")
    sections = [
        m
        for m in of("bench.passes", "bench.tasks")
        if not m.endswith((".keys", ".watch", ".planned"))
    ]
    # The gate, which measures, also keeps the history that a page shows.
    for module in {*of("reports", "plots"), *sections} - {"reports.history"}:
        found = reached(module, top_level=True)
        assert not [way(found, name) for name in found if name.startswith(measuring)]


def test_only_commands_and_capabilities_reach_for_reports() -> None:
    allowed = tuple(f"bench.cli.{verb}" for verb in ("report", "export", "history"))
    for module in of("bench"):
        names = edges(module, top_level=False)
        if not (module.startswith(allowed) or module.endswith(".section")):
            assert not {n for n in names if n.partition(".")[0] in ("reports", "plots")}, module


def test_compilers_import_torch_inside_functions_and_no_other_backend() -> None:
    compilers = [m for m in modules() if m.partition(".")[0] == "compilers"]
    backends = {m for m in compilers if "\n    def probe(" in modules()[m].read_text()}
    backends.discard("compilers.base")
    assert {"compilers.none", "compilers.torch_compile"} <= backends
    for module in compilers:
        assert edges(module, top_level=True) <= STDLIB | {*compilers}, module
        others = backends - {module}
        assert not edges(module, top_level=False) & others, module


def room(module: str) -> str:
    parts = module.split(".")
    if len(parts) > 1 and parts[1] in ("passes", "tasks") and len(parts) > 2:
        return "bench.worker" if parts[-1] == "base" else f"capability {parts[-1]}"
    return parts[0] if parts[0] != "bench" else ".".join(parts[:2])


def test_imports_run_downwards() -> None:
    """No two rooms import each other, directly or around a corner."""
    graph: dict[str, set[str]] = {}
    for module in modules():
        if module != "bench":
            below = {room(n) for n in edges(module, top_level=True) if n in modules()}
            graph.setdefault(room(module), set()).update(below - {room(module), "bench"})
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("bench.records") < order.index("bench.store") < order.index("bench.api")


def loaded_by(code: str) -> set[str]:
    """Run ``code`` in a fresh interpreter and return the packages that it has imported."""
    program = (
        f"{code}\nimport sys; print('\\n' + ' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["bench.api", "bench.cli.run", "bench.gate.run", "bench.audit"])
def test_importing_a_parent_module_loads_neither_torch_nor_pandas(module: str) -> None:
    assert not loaded_by(f"import {module}") & (HEAVY | TABLES)


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
