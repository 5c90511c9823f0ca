"""Where the function of a metric of one's own is written, found without importing it."""

from __future__ import annotations

import ast
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from peftmark.catalog.metrics import OWN, OWN_FORM, metric_of
from peftmark.core.errors import UserError
from peftmark.core.hashes import sha256_file


def code_of(key: str) -> str:
    """SHA-256 of the file that a metric of one's own is written in; it is not imported.

    Raises:
        UserError: the key names no such metric, there is no such file, or it has no such function.
    """
    path = file_of(key)
    _check_function(path, key)
    return sha256_file(path)


def _check_function(path: Path, key: str) -> None:
    """Refuse a file without the function before anything runs; it is parsed, never run.

    Raises:
        UserError: it is no Python, or nothing at its top level has the function's name.
    """
    named = OWN.fullmatch(key)
    assert named is not None
    try:
        bound = binds(path, named["function"])
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(
            f"metric {key}: {path}{where} is no Python: {getattr(error, 'msg', error)}",
            "Fix the file.",
        ) from error
    if not bound:
        raise UserError(
            f"metric {key}: {path} has no function {named['function']}",
            f"Write def {named['function']}(references, predictions) in it.",
        )


def binds(path: Path, wanted: str) -> bool:
    """Whether something at the top level of a file has a name; it is parsed, never run.

    Raises:
        SyntaxError, ValueError: it is no Python.
    """
    tree = ast.parse(path.read_bytes())
    # Whatever binds the name will do, also an import: what it is shows when it is called.
    bound = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _stored(n)}
    bound |= {
        (name.asname or name.name).partition(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.Import | ast.ImportFrom)
        for name in n.names
    }
    return wanted in bound or "*" in bound


def _stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def file_of(key: str) -> Path:
    """The file of a metric of one's own: below the working directory, else where Python looks.

    Raises:
        UserError: the key names no such metric, there is no such file, or Python would take a
            module of its own for it.
    """
    named = OWN.fullmatch(key)
    metric = metric_of(key)
    if named is None or metric is None or not metric.own:
        raise UserError(f"{key!r} names no metric of your own", f"Name one as {OWN_FORM}.")
    parts = named["module"].split(".")
    here = Path.cwd().joinpath(*parts)
    for path in (here.with_name(f"{here.name}.py"), here / "__init__.py"):
        if path.is_file():
            if parts[0] in sys.stdlib_module_names:
                raise UserError(
                    f"metric {key}: {path} is named like Python's own module {parts[0]}",
                    f"Give it another name, such as my_{parts[0]}.py.",
                )
            return path
    found = on_path(parts)
    if found is None:
        if parts[1:] and parts[-1] == "py":  # the name of a file in place of a module's
            parts = parts[:-1]
        if parts[0] in sys.stdlib_module_names:
            parts = [f"my_{parts[0]}", *parts[1:]]
        name = ".".join(parts)
        other = "" if name == named["module"] else f" and name it {name}:{named['function']}"
        raise UserError(
            f"metric {key}: there is no module {named['module']}",
            f"Write {'/'.join(parts)}.py below {Path.cwd()}{other}, "
            "or install the package it is in.",
        )
    return found


def on_path(parts: list[str]) -> Path | None:
    """The file of a module on `sys.path`; None if there is none. A package is looked through, never
    imported."""
    try:
        spec = find_spec(parts[0])
    except ValueError:  # a module that was made without one, such as __main__
        return None
    for index in range(1, len(parts)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = ".".join(parts[: index + 1])
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    return Path(spec.origin)
