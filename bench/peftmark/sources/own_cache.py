"""Rows of the user's own tasks as workers read them, kept under their fingerprint.

Workers know a task's fingerprint and not the files that its rows were read from: those may change
while jobs run. The copy holds the user's text, so nobody else may read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peftmark.catalog.task import Example, Task
from peftmark.core.errors import AssetError
from peftmark.core.files import write_all
from peftmark.sources.rows import MORE, TaskData, fingerprint, row_values


def own_file(cache: Path, found: str) -> Path:
    """Where the rows of a fingerprint are kept."""
    return cache / "own" / f"{found}.jsonl"


def keep_own(data: TaskData, cache: Path) -> Path:
    """Keep rows for workers; what is there already is left as it is.

    Raises:
        StoreError: the cache can't be written.
    """
    path = own_file(cache, data.fingerprint)
    if path.is_file():
        return path
    head = {"source": data.source, "train": len(data.train), "eval": len(data.eval)}
    rows = (row_values(row) for row in (*data.train, *data.eval))
    lines = (json.dumps(one, ensure_ascii=True) for one in (head, *rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)  # also one that was there
    write_all({path: "".join(f"{line}\n" for line in lines)})
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
        head, *lines = path.read_bytes().splitlines()
        said = json.loads(head)
        rows = tuple(_row(json.loads(line)) for line in lines)
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
