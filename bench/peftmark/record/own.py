"""What a job says of a task of the user's own, which is in no catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from peftmark.catalog.task import Task, TaskKind


@dataclass(frozen=True)
class Own:
    """A task of the user's own as its jobs carry it; its rows are known by their fingerprint.

    Attributes: as of `peftmark.catalog.task.Task`.
    """

    kind: TaskKind
    labels: tuple[str, ...]
    also: tuple[str, ...]
    train_rows: int
    eval_rows: int
    prompt: str = ""
    words: tuple[str, ...] = ()
    code: str = ""


def carried(task: Task) -> Own | None:
    """What a job carries of its task; None for one of the catalogue."""
    if not task.own:
        return None
    return Own(
        task.kind,
        task.labels,
        task.also,
        task.train_rows,
        task.eval_rows,
        task.prompt,
        task.words,
        task.code,
    )


def task_from(own: Own, key: str, metric: str, fingerprint: str) -> Task:
    """The task that `carried` was made of."""
    return Task(
        key=key,
        title=key,
        kind=own.kind,
        labels=own.labels,
        metric=metric,
        also=own.also,
        train_rows=own.train_rows,
        eval_rows=own.eval_rows,
        summary=rows_text(key, own.train_rows, own.eval_rows),
        licence="the user's own",
        fingerprint=fingerprint,
        own=True,
        prompt=own.prompt,
        words=own.words,
        code=own.code,
    )


def rows_text(name: str, train: int, evaluation: int) -> str:
    """How a task of the user's own is named wherever results are shown."""
    return f"{name} (own rows, {train:,} + {evaluation:,})"
