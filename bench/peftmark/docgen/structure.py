"""The structure of the code, read from its source: which folder imports which, and a few counts.

    python -m peftmark.docgen.structure [FOLDER OF A PACKAGE] [--tests FOLDER]

prints the counts of this package, or of another one such as an earlier checkout's.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from peftmark.core.files import PACKAGE

LEVELS: tuple[tuple[str, ...], ...] = (
    ("core", "catalog"),
    ("record", "sources"),
    ("machine", "storage", "own"),
    ("suite", "executors", "analysis"),
    ("lab", "memory", "render"),
    ("duration",),
    ("run", "claims", "gate", "compare", "advice", "trend", "perf"),
    ("docgen", "report", "track"),
    ("api",),
    ("cli",),
    ("site",),
)
"""The folders of the package from the ground up. A module imports from its own folder, from folders
of its level and of those below; no two folders import each other, whether directly or not."""

SAMPLES = ("peak_memory_bytes", "step_seconds_p50", "adapter_bytes")
"""Figures that stand for all where it is counted how often one is described."""


@cache
def modules(package: Path = PACKAGE) -> Mapping[str, Path]:
    """Full name -> file of every module of a package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(module: str, package: Path = PACKAGE, *, when_loaded: bool = False) -> frozenset[str]:
    """Full names of the modules that a module imports.

    Args:
        when_loaded: leave out what is imported inside functions and for type checkers alone.
    """
    known = modules(package)
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in known else str(node.module) for name in names)
        elif when_loaded and _runs_later(node):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree(known[module]))
    return frozenset(found)


def _runs_later(node: ast.AST) -> bool:
    """Whether a statement's body does not run when its module is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def folder_of(module: str) -> str:
    """The folder below the package that a module is in, or its own name where it is loose."""
    return module.split(".")[1] if "." in module else module


def arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Folder -> the other folders that it imports from; loose modules stand for themselves."""
    known = modules(package)
    found: dict[str, set[str]] = {}
    for module in known:
        mine = folder_of(module)
        others = {folder_of(name) for name in imports(module, package) if name in known}
        found.setdefault(mine, set()).update(others - {mine, package.name})
    return found


def upward(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Arrows that run from a folder to one on a higher level, and those of folders without one."""
    level = {folder: i for i, folders in enumerate(LEVELS) for folder in folders}
    level |= {"__main__": len(LEVELS), "peftmark": len(LEVELS)}  # what a user meets
    return [
        (a, b)
        for a, others in sorted(graph.items())
        for b in sorted(others)
        if level.get(b, len(LEVELS)) > level.get(a, -1)
    ]


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
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


def functions(package: Path = PACKAGE) -> Iterator[tuple[int, str]]:
    """Lines and name of every function, decorators and docstring included."""
    for module, path in modules(package).items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                yield int(node.end_lineno or first) - first + 1, f"{module}.{node.name}"


def described(key: str, package: Path = PACKAGE) -> list[str]:
    """Modules that describe a measured figure again, beside the one row that it has.

    One counts where the column's name is a literal in a call, a tuple or an entry of a dictionary
    that holds, right beside it, words (a literal with a space: a title, a unit with its direction,
    a note), a direction or an Arrow type. Left out are its row (`record.fields*`) and `lab`, which
    measures it and says why it is null. A title without the column's name isn't seen, so there may
    be more.
    """
    row, measuring = f"{package.name}.record.fields", f"{package.name}.lab."
    return [
        name
        for name, path in modules(package).items()
        if not name.startswith((row, measuring))
        and any(_describes(key, beside) for beside in _literals(tree(path)))
    ]


def _literals(module: ast.Module) -> Iterator[list[str]]:
    """The literals that stand right beside each other, of every call, tuple and entry."""
    for node in ast.walk(module):
        groups: list[list[ast.expr | None]] = []
        if isinstance(node, ast.Call):
            groups = [[*node.args, *(keyword.value for keyword in node.keywords)]]
        elif isinstance(node, ast.Tuple | ast.List):
            groups = [list(node.elts)]
        elif isinstance(node, ast.Dict):
            groups = [[key, value] for key, value in zip(node.keys, node.values, strict=True)]
        for group in groups:
            found = [one.value for one in group if isinstance(one, ast.Constant)]
            yield [value for value in found if isinstance(value, str)]


def _describes(key: str, beside: Sequence[str]) -> bool:
    known = ("lower", "higher", "int64", "float64", "string")
    return key in beside and any(" " in text or text in known for text in beside if text != key)


def counts(package: Path = PACKAGE, tests: Path | None = None) -> dict[str, str]:
    """What a stranger meets between the file and the whole, as lines to print.

    Args:
        tests: a folder whose files count for `fmt: skip` too.
    """
    known, graph = modules(package), arrows(package)
    loose = [n for n, p in known.items() if p.parent == package and not p.name.startswith("__")]
    names = Counter(path.stem for path in known.values() if not path.name.startswith("__"))
    twice = sorted(name for name, count in names.items() if count > 1)
    length, longest = max(functions(package), default=(0, "none"))
    files = [*known.values(), *(sorted(tests.rglob("*.py")) if tests else ())]
    skips = sum(
        line.rstrip().endswith("# fmt: skip")
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    against = upward(graph)
    ruled = set(graph) <= {f for folders in LEVELS for f in folders} | {"__main__", package.name}
    rule = f"{len(against)} {', '.join(map(' -> '.join, against))}".rstrip()
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in known.values()}
    largest = max(lines, key=lambda path: lines[path])
    return {
        "modules": f"{len(known)}",
        "loose modules": f"{len(loose)}",
        "folders": f"{sum(1 for p in known.values() if p.name == '__init__.py') - 1}",
        "arrows between folders": f"{sum(map(len, graph.values()))}",
        "arrows against the rule": rule if ruled else "unknown: it has folders without a level",
        "module names that stand twice": f"{len(twice)} ({', '.join(twice)})",
        "longest function": f"{length} lines ({longest})",
        "longest module": f"{lines[largest]} lines ({largest.relative_to(package)})",
        "fmt: skip": f"{skips}",
        "places a figure is described in": ", ".join(
            f"{key} {len(described(key, package))}" for key in SAMPLES
        ),
    }


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(prog="python -m peftmark.docgen.structure")
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument("--tests", type=Path)
    options = parser.parse_args()
    for what, text in counts(options.package.resolve(), options.tests).items():
        print(f"{what:<32} {text}")


if __name__ == "__main__":
    main()
