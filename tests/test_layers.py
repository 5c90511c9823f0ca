"""Who may import whom, read from the source: levels, no cycles, one home for each library."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.core.files import PACKAGE
from peftmark.docgen import structure
from peftmark.docgen.structure import (
    LEVELS,
    arrows,
    cycle,
    folder_of,
    functions,
    imports,
    tree,
    upward,
)

MODULES = structure.modules()

# Library -> the modules or folders that may import it. `doctor` loads libraries by name and is not
# seen here.
HOMES = {
    "torch": {"lab", "perf"},
    "transformers": {"lab", "perf"},
    "peft": {"lab", "perf"},
    "bitsandbytes": {"lab"},
    "torchao": {"lab"},
    "optimum": {"lab"},
    "safetensors": {"lab"},
    "pynvml": {"machine.nvml"},
    "pyarrow": {"storage"},
    "pandas": {"sources.row_files", "own", "api"},
    "datasets": {"lab", "own", "perf", "sources.hub_datasets"},
    "tokenizers": {"own.look"},
    "fsspec": {"storage.remote"},
    "yaml": {"core.strict_yaml", "sources.package_rows"},
    "rouge_score": {"lab.metrics"},
    "matplotlib": {"render"},
    "ruptures": {"trend.changepoints"},
    "lm_eval": {"lab.evaluate.lm_eval_tasks"},
    "mlflow": {"track.mlflow"},
    "wandb": {"track.wandb"},
    "tensorboard": {"track.tensorboard"},
    "trackio": {"track.trackio"},
    "ray": {"executors.ray"},
    "submitit": {"executors.slurm"},
    "pickle": set(),
    "dill": set(),
    "joblib": set(),
    "marshal": set(),
    "shelve": set(),
}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's syntax tree."""
    return tuple(ast.walk(tree(path)))


def ours(names: frozenset[str]) -> set[str]:
    return {name for name in names if name in MODULES}


def test_the_walk_sees_imports_inside_functions_and_finds_cycles():
    assert "peftmark.run.runner" in imports("peftmark.cli.run")
    assert "peftmark.run.runner" not in imports("peftmark.cli.run", when_loaded=True)
    assert "pyarrow.parquet" in imports("peftmark.storage.store")
    assert "peftmark.machine.nvml" in imports("peftmark.machine.environment")
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_an_arrow_up_and_a_folder_without_a_level_are_seen():
    assert upward({"core": {"cli"}, "cli": {"core"}}) == [("core", "cli")]
    assert upward({"cli": {"elsewhere"}}) == [("cli", "elsewhere")]


def test_every_module_is_in_a_folder_that_has_a_level():
    loose = {path.name for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == {folder for level in LEVELS for folder in level}


def test_a_module_imports_from_its_own_level_or_below():
    for module in MODULES:
        others = {folder_of(name) for name in ours(imports(module))} - {"peftmark"}
        assert upward({folder_of(module): others}) == [], module


def test_no_module_imports_relatively():
    for module, path in MODULES.items():
        for node in nodes(path):
            assert not isinstance(node, ast.ImportFrom) or node.level == 0, module


def test_folders_import_each_other_without_cycles():
    assert cycle(arrows()) == []


def test_modules_import_each_other_without_cycles_when_they_are_loaded():
    graph = {m: ours(imports(m, when_loaded=True)) - {m} for m in MODULES}
    assert cycle(graph) == []


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_library_is_imported_only_where_it_lives(library):
    users = {m for m in MODULES if any(name.split(".")[0] == library for name in imports(m))}
    strangers = {
        user
        for user in users
        if not any(f"{user}.".startswith(f"peftmark.{home}.") for home in HOMES[library])
    }
    assert not strangers, (
        f"{library} lives in {sorted(HOMES[library])}: move the import there, or name the home in "
        "HOMES above"
    )
    if HOMES[library]:
        assert users, f"nobody imports {library}: has this test gone blind?"


def test_an_optional_library_of_a_quantization_has_a_home():
    for row in QUANTIZATIONS.values():
        library = row.imported.partition(".")[0]
        assert not library or HOMES.get(library) == {"lab"}, (
            f'{row.key} needs {library}: add "{library}": {{"lab"}} to HOMES above'
        )


def test_the_executor_and_the_lab_know_nothing_of_each_other_and_of_what_is_around():
    graph = arrows()
    assert "lab" not in graph["executors"]
    outside = {"suite", "storage", "analysis", "report", "run", "cli", "executors"}
    assert not graph["lab"] & outside
    assert not graph["render"] - {"core", "catalog", "analysis"}


SPOKEN_BY = (
    "cli",
    "perf",
    "docgen.memory_page",
    "docgen.capabilities",
    "docgen.structure",
    "site.__main__",
    "__main__",
    "track.worker",
    "lab.members",
    "lab.worker",
    "lab.metric_trial",
    "lab.export.worker",
    "lab.measure.overhead",
    "lab.memory.worker",
    "lab.memory.count_worker",
    "lab.duration.batch_shapes",
    "lab.duration.card_rates",
    "lab.duration.reference_steps",
)


def spoken_in(module: str) -> set[str]:
    """What of a module prints, or ends the process."""
    spoken = set()
    for node in nodes(MODULES[module]):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("print", "exit", "quit", "sys.exit", "os._exit"):
                spoken.add(name)
        if isinstance(node, ast.Name) and node.id == "SystemExit":
            spoken.add("SystemExit")
    return spoken


def test_only_the_command_line_prints_and_exits():
    speakers = tuple(f"peftmark.{name}." for name in SPOKEN_BY)
    silent = [module for module in MODULES if not f"{module}.".startswith(speakers)]
    assert {module: spoken for module in silent if (spoken := spoken_in(module))} == {}
    assert spoken_in("peftmark.cli.parser") == {"print", "sys.exit", "SystemExit"}, (
        "has this test gone blind?"
    )


def test_nothing_evaluates_text_or_loads_code_from_a_model():
    for module, path in MODULES.items():
        for node in nodes(path):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "os.system", "torch.load"), module
                for keyword in node.keywords:
                    value = ast.unparse(keyword.value)
                    assert (keyword.arg, value) != ("shell", "True"), module
                    assert (keyword.arg, value) != ("trust_remote_code", "True"), module


def test_what_the_light_commands_load_is_in_the_standard_library_or_light():
    """The import-time closure of the runner holds nothing that takes seconds to load."""
    todo, seen = (
        [
            "peftmark.cli.parser",
            "peftmark.run.runner",
            "peftmark.run.progress",
            "peftmark.run.doctor",
        ],
        set(),
    )
    libraries: set[str] = set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imports(module, when_loaded=True):
            if name in MODULES:
                todo.append(name)
            elif name.split(".")[0] not in sys.stdlib_module_names:
                libraries.add(name.split(".")[0])
    assert libraries <= {"yaml", "pydantic", "pydantic_core", "rich"}


def test_no_function_is_longer_than_a_screen_and_no_module_than_400_lines():
    assert [where for lines, where in functions() if lines > 60] == []
    longest = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in MODULES.items()}
    assert {m: n for m, n in longest.items() if n > 400} == {}
