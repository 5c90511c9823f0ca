"""Metrics of the user's own and of plug-ins, tried once on made-up predictions before training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftmark.catalog.metrics import is_users
from peftmark.catalog.task import Example, Task
from peftmark.core.errors import UserError
from peftmark.core.shown import plain
from peftmark.run.one_answer import ask

if TYPE_CHECKING:
    from peftmark.own.read import OwnRows

MODULE = "peftmark.lab.metric_trial"
WRONG = 3
"""One row in so many is predicted wrong."""
SURE = 0.9
"""Probability of what is predicted."""


def try_own_metrics(read: Mapping[str, OwnRows], tasks: Iterable[str]) -> None:
    """Call every metric of the user's own that the tasks name once, with the references of their
    evaluation rows and predictions that are right for most of them.

    Raises:
        UserError: one raises, or gives no finite number; says what the function raised.
    """
    for name in dict.fromkeys(tasks):
        found = read.get(name)
        keys = [k for k in (found.task.metric, *found.task.also) if is_users(k)] if found else []
        if found is not None and keys:
            what, remedy = _tried({"keys": keys, **made_up(found.task, found.data.eval)})
            if what is not None:
                raise UserError(
                    f"task {name}: {what}, when it was tried before anything is trained",
                    str(remedy),
                )


def made_up(task: Task, rows: Sequence[Example]) -> dict[str, Any]:
    """References of rows, predictions and probabilities, as an evaluation gives them."""
    if task.kind == "instruction":
        texts = [row.turns[-1][1] if row.turns else str(row.pair) for row in rows]
        return {"references": texts, "predictions": _mostly(texts), "probabilities": None}
    if task.kind == "language":
        words = [max(1, len(row.text.split())) for row in rows]
        likelihoods = [-1 - 1 / count for count in words]
        return {"references": words, "predictions": likelihoods, "probabilities": None}
    if task.kind == "multi-label":
        every = range(len(task.labels))
        wanted = [[float(at in row.tags) for at in every] for row in rows]
        said = _mostly(wanted)
        sure = [[SURE if on else 1 - SURE for on in row] for row in said]
        return {"references": wanted, "predictions": said, "probabilities": sure}
    numbers = [row.label for row in rows]
    said = _mostly(numbers)
    if task.kind == "regression":
        return {"references": numbers, "predictions": said, "probabilities": None}
    counts = [len(row.choices) or len(task.labels) for row in rows]
    said = [min(at, count - 1) for at, count in zip(said, counts, strict=True)]
    width = max(counts)
    sure = [
        [
            0.0 if at >= count else SURE if at == one else (1 - SURE) / max(1, count - 1)
            for at in range(width)
        ]
        for one, count in zip(said, counts, strict=True)
    ]
    return {"references": numbers, "predictions": said, "probabilities": sure}


def _mostly(wanted: Sequence[Any]) -> list[Any]:
    """What is wanted, but of the row before in one row of `WRONG`."""
    return [wanted[n - 1] if n % WRONG == WRONG - 1 else one for n, one in enumerate(wanted)]


def _tried(asked: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What is wrong with the metrics and its remedy; nothing where they give numbers."""
    answer = ask(MODULE, asked)
    if answer.value is None:
        keys = ", ".join(asked["keys"])
        return (
            f"metric {keys} ended its process with exit code {answer.code}: {plain(answer.last)}",
            "A metric returns a number, or raises.",
        )
    what, remedy = answer.value
    return what, remedy
