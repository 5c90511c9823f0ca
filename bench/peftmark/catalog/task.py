"""What a task is: its rows, labels and metric, and how a model reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peftmark.catalog.origins import Hub, Package

TaskKind = Literal[
    "classification",
    "multi-label",
    "regression",
    "ranking",
    "multiple-choice",
    "instruction",
    "language",
]
"""The first three are read by an encoder with a head of its own, the others by a causal language
model: it ranks classes, or the choices of a row, by how likely it finds their words, writes an
answer, or goes on with a text."""

SPOKEN: tuple[TaskKind, ...] = ("ranking", "multiple-choice", "instruction", "language")
"""Kinds whose training batches are tokens to predict."""


@dataclass(frozen=True)
class Task:
    """A labelled-text task.

    Attributes:
        kind: what its rows are: classification (integer labels), multi-label (any number of them),
            regression (float scores), multiple-choice (a text and the answers to choose from),
            instruction (a text and the answer to it, both read as text, or the turns of a
            conversation) or language (text alone); `read_by` says what a model makes of it. No
            task is a ranking by itself.
        labels: class names in label order; empty for regression.
        metric: the primary metric; `also` are reported beside it.
        train_rows: rows in the full training split.
        eval_rows: rows in the full evaluation split.
        version: bumped when rows, split or metric change meaning.
        fingerprint: SHA-256 over the normalised rows of both splits (see
            `peftmark.sources.task_data`), the task's identity; None where the bytes were never
            seen and the pinned revision is the identity.
        mirror: folder names a local mirror may use (case does not matter), GLUE's own first.
        fields: text columns (one or two) in GLUE's TSV form.
        label_field: label column in GLUE's TSV form; empty for a task without labels.
        header: columns of a TSV form that has no header line.
        hub: pinned data set on the hub, None if it has none.
        hub_fields: text columns on the hub where they differ from `fields`; the label column
            is always `label` there.
        evaluated: pinned data set on the hub with the evaluation rows, where another has those to
            train on; its columns are `fields`.
        package: wheel on PyPI that holds the rows, None if there is none.
        bounds: lowest and highest allowed score of the published rows, None for class labels.
        cuts: (low, high) where classes are derived from scores: up to low is class 0, from
            high on is class 1, rows between are dropped. None for labels as published.
        derived: how labels or split were derived, empty for both as published.
        loose: GLUE's own files have a few short rows and blank texts, handled as on the hub.
        answer: pattern whose first group is what counts of an answer for exact match; empty if
            all of it does.
        own: whether its rows are the user's own, declared in a suite; they are in no catalogue.
        prompt: of an own task, how a causal language model is shown a row; those of the catalogue
            stand in `peftmark.catalog.prompts`.
        words: of an own task, the answer of each class.
        code: SHA-256 of the file of a metric of one's own; empty without one.
        paper: the paper that published the rows, or that there is none.
    """

    key: str
    title: str
    kind: TaskKind
    labels: tuple[str, ...]
    metric: str
    also: tuple[str, ...]
    train_rows: int
    eval_rows: int
    summary: str
    licence: str
    version: int = 1
    fingerprint: str | None = None
    mirror: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("sentence",)
    label_field: str = "label"
    header: tuple[str, ...] = ()
    hub: Hub | None = None
    hub_fields: tuple[str, ...] = ()
    evaluated: Hub | None = None
    package: Package | None = None
    bounds: tuple[float, float] | None = None
    cuts: tuple[float, float] | None = None
    derived: str = ""
    loose: bool = False
    answer: str = ""
    own: bool = False
    prompt: str = ""
    words: tuple[str, ...] = ()
    code: str = ""
    paper: str = ""

    @property
    def eval_hub(self) -> Hub | None:
        """The data set on the hub that holds the evaluation rows."""
        return self.evaluated or self.hub


def read_by(task: Task, causal: bool) -> TaskKind | None:
    """What a model makes of a task; None if it can't.

    Args:
        causal: whether it is a causal language model, and not an encoder.
    """
    if not causal:
        return None if task.kind in SPOKEN else task.kind
    if task.kind == "classification":
        return "ranking"
    return task.kind if task.kind in SPOKEN else None


def expected_fingerprint(task: Task) -> str:
    """A task's identity: its fingerprint, or `revision:<sha>` where the bytes were never seen."""
    if task.fingerprint is not None:
        return task.fingerprint
    pinned = [one.revision for one in (task.hub, task.evaluated) if one is not None]
    return f"revision:{'+'.join(pinned)}" if pinned else "unknown"


@dataclass(frozen=True, slots=True)
class Example:
    """One text of a task with its label.

    Attributes:
        text: the sentence, or the first of two.
        pair: the second text, of an instruction the answer; None for tasks of one text.
        label: class number, or a score for regression; 0 for tasks without labels. Of a multiple
            choice, the number of the right one.
        tags: class numbers of a row with several labels, sorted.
        choices: the answers to choose from.
        turns: the turns of a conversation, (role, content) each; `text` is then empty and the last
            turn is the assistant's.
    """

    text: str
    pair: str | None
    label: int | float
    tags: tuple[int, ...] = ()
    choices: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def read(self) -> tuple[object, ...]:
        """What a model is shown of the row: two rows with the same are copies."""
        shown = (self.text, self.pair)
        return (*shown, self.choices, self.turns) if self.choices or self.turns else shown
