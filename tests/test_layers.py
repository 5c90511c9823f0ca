"""Who may import whom, read from the source: levels, no cycles, one home for each library."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "bench"

# A module imports only from its own level or below. A folder is one unit.
LEVELS = {
    "bench": 0, "errors": 0,
    "architectures": 1, "catalog": 1, "devices": 1, "methods": 1, "peft_types": 1,
    "task": 1, "tasks": 1, "texts": 1,
    "files": 1, "hashes": 1, "nvml": 1, "outcome": 1, "power": 1, "stats": 1,
    "record": 2, "simulation": 2,
    "assets": 3, "wheels": 3, "rows": 3, "packaged": 3, "data": 3, "prompts": 3, "asking": 3,
    "schema": 3, "resolve": 3, "suite": 3,
    "environment": 3, "columns": 3, "index": 3, "sealed": 3, "store": 3,
    "table": 3, "tuning": 3, "validity": 3,
    "comparison": 3, "reach": 3, "yaml_file": 3, "claims": 3, "history": 3,
    "external": 3, "method_comparison": 3,
    "manifest": 4, "matrix": 4, "lab": 4, "doctor": 4, "forecast": 4,
    "scenario": 4,
    "budgets": 5, "outlook": 5, "published": 5, "published_text": 5, "memory_page": 6,
    "manual": 5, "advice": 5,
    "executors": 5, "mirror": 5,
    "placing": 6, "report": 6, "runner": 6, "progress": 6, "ledger": 6,
    "perf": 6, "gate": 6, "trend": 6,
    "versions": 6,
    "commands": 7, "guard": 7, "importing": 7, "planning": 7, "cli": 7, "__main__": 7,
}  # fmt: skip

# Library -> the units that may import it. `doctor` loads libraries by name and is not seen here.
HOMES = {
    "torch": {"lab", "perf"},
    "transformers": {"lab", "perf"},
    "peft": {"lab", "perf"},
    "bitsandbytes": {"lab"},
    "safetensors": {"lab"},
    "pynvml": {"nvml"},
    "pyarrow": {"sealed", "store", "history", "external"},
    "pandas": {"rows"},  # Parquet files of a mirror
    "yaml": {"yaml_file", "packaged"},
    "rouge_score": {"lab"},
    "matplotlib": {"report"},
    "ruptures": {"trend"},
    "ray": {"executors"},
    "submitit": {"executors"},
    "pickle": set(),
    "dill": set(),
    "joblib": set(),
    "marshal": set(),
    "shelve": set(),
}

MODULES = {
    ".".join(("bench", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): (
        path
    )
    for path in ROOT.rglob("*.py")
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def runs_later(node: ast.AST) -> bool:
    """Whether a statement's body does not run when its module is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def imports(module: str, import_time_only: bool = False) -> set[str]:
    """Full names of the modules that a module imports, at any depth or while it is imported."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in MODULES else str(node.module) for name in names)
        elif import_time_only and runs_later(node):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree(module))
    return found


def unit(module: str) -> str:
    """First name below `bench`, such as `lab` for `bench.lab.methods.lora`."""
    return module.split(".")[1] if "." in module else module


def ours(modules: set[str]) -> set[str]:
    return {m for m in modules if m.split(".")[0] == "bench"}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a graph, empty if there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            if found := walk(other, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def test_the_walk_sees_imports_inside_functions_and_finds_cycles():
    assert "bench.runner" in imports("bench.commands")
    assert "bench.runner" not in imports("bench.commands", import_time_only=True)
    assert "pyarrow.parquet" in imports("bench.store")
    assert "bench.nvml" in imports("bench.environment")
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_every_module_has_a_level():
    assert {unit(module) for module in MODULES} <= set(LEVELS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_from_its_own_level_or_below(module):
    too_high = {
        other for other in ours(imports(module)) if LEVELS[unit(other)] > LEVELS[unit(module)]
    }
    assert not too_high


def test_units_import_each_other_without_cycles():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        others = {unit(other) for other in ours(imports(module))}
        graph.setdefault(unit(module), set()).update(others - {unit(module)})
    assert cycle(graph) == []


def test_modules_import_each_other_without_cycles_when_they_are_loaded():
    graph = {m: ours(imports(m, import_time_only=True)) - {m} for m in MODULES}
    assert cycle(graph) == []


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_library_is_imported_only_where_it_lives(library):
    users = {unit(m) for m in MODULES if any(name.split(".")[0] == library for name in imports(m))}
    assert users <= HOMES[library]
    if HOMES[library]:
        assert users, f"nobody imports {library}: has this test gone blind?"


def test_the_executor_and_the_lab_know_nothing_of_each_other_and_of_what_is_around():
    for module in MODULES:
        known = {unit(other) for other in ours(imports(module))}
        if unit(module) == "executors":
            assert "lab" not in known, module
        if unit(module) == "lab":
            outside = {"suite", "store", "table", "report", "runner", "cli", "executors"}
            assert not known & outside, module


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_command_line_prints_and_exits(module):
    spoken_by = (
        "cli",
        "commands",
        "guard",
        "importing",
        "planning",
        "memory_page",
        "__main__",
        "lab.worker",
        "lab.overhead",
        "lab.forecasts",
    )
    if module.removeprefix("bench.") in spoken_by or unit(module) == "perf":
        return
    spoken = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("print", "exit", "quit", "sys.exit", "os._exit"):
                spoken.add(name)
        if isinstance(node, ast.Name) and node.id == "SystemExit":
            spoken.add("SystemExit")
    assert not spoken


def test_nothing_evaluates_text_or_loads_code_from_a_model():
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "os.system", "torch.load"), module
                for keyword in node.keywords:
                    value = ast.unparse(keyword.value)
                    assert (keyword.arg, value) != ("shell", "True"), module
                    assert (keyword.arg, value) != ("trust_remote_code", "True"), module


def test_what_the_light_commands_load_is_in_the_standard_library_or_light():
    """The import-time closure of the runner holds nothing that takes seconds to load."""
    todo, seen = ["bench.cli", "bench.runner", "bench.progress", "bench.doctor"], set()
    libraries: set[str] = set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imports(module, import_time_only=True):
            if name in MODULES:
                todo.append(name)
            elif name.split(".")[0] not in sys.stdlib_module_names:
                libraries.add(name.split(".")[0])
    assert libraries <= {"yaml", "pydantic", "pydantic_core", "rich"}
