"""Prompts as data: how a causal language model is shown a row, and the words it may answer.

A prompt is part of a job's identity, with its version and a hash of its text. They are plain text
without a chat template, so that they mean the same to any model; another wording gives other
numbers, more so for an untouched model than for a trained one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from peftmark.catalog.task import Example, Task, TaskKind


@dataclass(frozen=True)
class Prompt:
    """A template and, for classes, their words (verbalisers).

    Attributes:
        text: what the model sees, with {text} and {pair} in the place of the row's texts. It ends
            without a space: the answer begins with one.
        words: one answer for each class, in the order of the task's labels; empty where the row
            itself holds the answer.
        version: bumped when a wording changes.
        own: whether it was declared in a suite. Its end is then the user's: an answer gets no space
            of its own where there is white space already.
    """

    text: str
    words: tuple[str, ...] = ()
    version: int = 1
    own: bool = False

    @property
    def identity(self) -> str:
        """Version and hash, what stands for the prompt in a job."""
        content = json.dumps([self.text, self.words], ensure_ascii=False)
        return f"{self.version}:{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def shown(self, row: Example) -> str:
        """The prompt of a row."""
        texts = {"{text}": row.text, "{pair}": row.pair or ""}
        return re.sub(r"\{(?:text|pair)\}", lambda found: texts[found[0]], self.text)

    def answer(self, row: Example) -> str:
        """The answer that a row wants, from its space on."""
        if self.words:
            return self.spoken[int(row.label)]
        if row.choices:
            return self.choices(row)[int(row.label)]
        return self._after(row, str(row.pair))

    @property
    def spoken(self) -> tuple[str, ...]:
        """The words of every class as answers, the same for every row."""
        space = "" if self.own and self.text[-1:].isspace() else " "
        return tuple(f"{space}{words}" for words in self.words)

    def choices(self, row: Example) -> tuple[str, ...]:
        """Every choice of a row as an answer; of rows without choices none."""
        return tuple(self._after(row, choice) for choice in row.choices)

    def _after(self, row: Example, answer: str) -> str:
        there = self.own and (answer[:1].isspace() or self.shown(row)[-1:].isspace())
        return answer if there else f" {answer}"


_TWO = "Sentence 1: {text}\nSentence 2: {pair}\n"
_REVIEW = Prompt("Review: {text}\nSentiment:", ("negative", "positive"))
_ENTAILED = Prompt(
    "Premise: {text}\nHypothesis: {pair}\nIs the hypothesis true, given the premise?",
    ("yes", "maybe", "no"),
)

PROMPTS: dict[str, Prompt] = {
    "cola": Prompt("Sentence: {text}\nIs this sentence correct English?", ("no", "yes")),
    "sst-2": _REVIEW,
    "mrpc": Prompt(f"{_TWO}Do both sentences say the same?", ("no", "yes")),
    "qqp": Prompt(
        "Question 1: {text}\nQuestion 2: {pair}\nDo both questions ask the same?", ("no", "yes")
    ),
    "mnli": _ENTAILED,
    "mnli-mismatched": _ENTAILED,
    "qnli": Prompt(
        "Question: {text}\nText: {pair}\nDoes the text answer the question?", ("yes", "no")
    ),
    "rte": Prompt(
        "Premise: {text}\nHypothesis: {pair}\nIs the hypothesis true, given the premise?",
        ("yes", "no"),
    ),
    "wnli": Prompt(f"{_TWO}Does sentence 2 follow from sentence 1?", ("no", "yes")),
    "sts-pairs": Prompt(f"{_TWO}Do both sentences mean the same?", ("no", "yes")),
    "imdb": _REVIEW,
    "movie": _REVIEW,
    "trec": Prompt(
        "Question: {text}\nThe question asks for",
        ("an abbreviation", "a thing", "a description", "a person", "a place", "a number"),
    ),
    "labelled-instructions": Prompt("{text}\nAnswer:"),
    "chatterbot": Prompt("Question: {text}\nAnswer:"),
    "dolly": Prompt("### Instruction:\n{text}\n\n### Response:"),
    "gsm8k": Prompt("Question: {text}\nAnswer:"),
    "metamathqa": Prompt("Question: {text}\nThink step by step.\nAnswer:"),
}
"""Task -> its prompt. Language tasks are shown as they are."""

TEMPLATES: Mapping[TaskKind, str] = {
    "classification": "{text}\nLabel:",
    "multiple-choice": "{text}\nAnswer:",
    "instruction": "{text}",
}
"""Kind of an own task -> how a causal language model is shown a row where the suite says nothing
(assumption); of other kinds rows are read as they are, or not at all."""
TEMPLATE_OF_PAIR = "Text 1: {text}\nText 2: {pair}\nLabel:"
"""The same for classes of two texts."""


def template_of(kind: TaskKind, pair: bool) -> str:
    """How a causal language model is shown a row of an own task where the suite says nothing; empty
    for a kind whose rows aren't shown in a prompt."""
    if kind == "classification" and pair:
        return TEMPLATE_OF_PAIR
    return TEMPLATES.get(kind, "")


def prompt_of(task: Task) -> Prompt | None:
    """How a causal language model is shown a row of a task; None for text that is read as it is.

    Of an own task it is its template, which was filled in where none is declared, and the words of
    its classes.
    """
    if not task.own:
        return PROMPTS.get(task.key)
    kind: TaskKind = "classification" if task.kind == "ranking" else task.kind
    if kind not in TEMPLATES:
        return None
    template = task.prompt or template_of(kind, len(task.fields) > 1)
    return Prompt(template, task.words if kind == "classification" else (), own=True)
