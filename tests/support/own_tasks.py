"""Tiny tasks of one's own: rows made on the spot, put where a job looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import tiny
from peftmark.catalog.task import Example, Task
from peftmark.catalog.tasks import TASKS
from peftmark.lab import recipe
from peftmark.sources.task_data import TaskData, fingerprint, load_task
from tiny_causal import WORDS

CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ ' ' + m.content + eos_token }}{% else %}{{ 'Text : ' + m.content + ' ?' }}{% endif %}"
    "{% endfor %}"
)
"""A chat template in the words that the tiny tokenizer of `tiny_causal` knows."""


def task_of(key: str, kind: Any, labels: Sequence[str] = (), **more: Any) -> Task:
    """A task of one's own; name what else it has."""
    fields: dict[str, Any] = {
        "metric": "accuracy",
        "also": (),
        "train_rows": 0,
        "eval_rows": 0,
        "summary": "",
        "licence": "",
        "own": True,
        # As they are read from a suite that declares none.
        "words": tuple(labels) if kind in ("classification", "ranking") else (),
    }
    return Task(key, key, kind, tuple(labels), **{**fields, **more})


def install(monkeypatch, task: Task, train: Sequence[Example], evaluation: Sequence[Example]):
    """Let jobs find a task and its rows."""
    data = TaskData(tuple(train), tuple(evaluation), "own rows", fingerprint(train, evaluation))

    def load(asked: Task, places: Any) -> TaskData:
        return data if asked.key == task.key else load_task(asked, places)

    monkeypatch.setitem(TASKS, task.key, task)
    monkeypatch.setattr(recipe, "load_task", load)
    monkeypatch.setattr(tiny, "load_task", load)


def said(count: int) -> list[tuple[str, int]]:
    """Texts of a few words, and which half of the words they come from."""
    generator = torch.Generator().manual_seed(count)
    found = []
    for i in range(count):
        picks = torch.randint(0, 20, (3 + i % 5,), generator=generator).tolist()
        found.append((" ".join(WORDS[p + i % 2 * 20] for p in picks), i % 2))
    return found


def labelled(count: int) -> list[Example]:
    """Rows of two classes."""
    return [Example(text, None, half) for text, half in said(count)]


def tagged(count: int) -> list[Example]:
    """Rows of three labels: the first half, the second, and a row of many words."""
    return [
        Example(text, None, 0, tags=(half, *((2,) if len(text.split()) > 5 else ())))
        for text, half in said(count)
    ]


def choosing(count: int) -> list[Example]:
    """Rows of two to four choices, of one to three words, the right one at every place."""
    wrong = ("the words", "Text", "are")
    found = []
    for i, (text, half) in enumerate(said(count)):
        right, other = ("low", "very very high") if half == 0 else ("very very high", "low")
        choices = [other, *wrong[: i % 3]]
        choices.insert(i % (len(choices) + 1), right)
        found.append(Example(text, None, choices.index(right), choices=tuple(choices)))
    return found


def chatting(count: int) -> list[Example]:
    """Conversations of two exchanges, some with a system turn."""
    found = []
    for i, (text, half) in enumerate(said(count)):
        answer = "the words are low" if half == 0 else "very high"
        turns = (("user", text), ("assistant", answer), ("user", "the words"), ("assistant", "are"))
        system = (("system", "very words"),) if i % 3 == 0 else ()
        found.append(Example("", None, 0, turns=(*system, *turns[2:], *turns[:2])))
    return found


def answering(count: int) -> list[Example]:
    """Prompts and completions."""
    return [Example(text, ("low", "very high")[half], 0) for text, half in said(count)]
