"""Rows of the user's own tasks as workers read them, kept under their fingerprint.

Workers know a task's fingerprint and not the files that its rows were read from: those may change
while jobs run. The copy holds the user's text, so nobody else may read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from peftmark.catalog.task import Example, Task
from peftmark.core.errors import AssetError
from peftmark.core.sealed import sealed, unsealed
from peftmark.sources.cache_folder import keep_text
from peftmark.sources.rows import MORE, TaskData, fingerprint, row_values


def own_file(cache: Path, found: str) -> Path:
    """Where the rows of a fingerprint are kept."""
    return cache / "own" / f"{found}.json"


def keep_own(data: TaskData, cache: Path) -> Path:
    """Keep rows for workers; a copy that is there already, and whole, is left as it is.

    Raises:
        AssetError: the cache is full, or can't be written.
    """
    path = own_file(cache, data.fingerprint)
    head = {"source": data.source, "train": len(data.train), "eval": len(data.eval)}
    text = sealed([head, *map(row_values, (*data.train, *data.eval))])
    with suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text:
            return path
    keep_text(cache, path, text, "a copy of your rows")
    return path


def load_own(task: Task, cache: Path) -> TaskData:
    """The rows that `keep_own` kept.

    Raises:
        AssetError: they are not there, or not what was kept.
    """
    assert task.fingerprint is not None
    path = own_file(cache, task.fingerprint)
    remedy = (
        "Run the suite again from where its files are. On another machine, share the folder: "
        "PEFTMARK_CACHE names it."
    )
    try:
        said, *values = unsealed(path.read_text(encoding="utf-8"))
        rows = tuple(map(_row, values))
        train, evaluation = rows[: said["train"]], rows[said["train"] :]
    except OSError as error:
        why = f"{path} can't be read: {error.strerror or error}"
        raise AssetError(f"the rows of task {task.key}: {why}", remedy) from error
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise AssetError(
            f"the rows of task {task.key}: {path} is damaged", f"Delete it. {remedy}"
        ) from error
    if fingerprint(train, evaluation) != task.fingerprint:
        raise AssetError(f"the rows of task {task.key}: {path} is damaged", f"Delete it. {remedy}")
    return TaskData(train, evaluation, str(said["source"]), task.fingerprint)


def _row(values: list[Any]) -> Example:
    text, pair, label, *more = values
    found = dict(more[0]) if more else {}
    return Example(text, pair, label, **{name: _tuples(found.get(name, ())) for name in MORE})


def _tuples(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(tuple(one) if isinstance(one, list) else one for one in values)
