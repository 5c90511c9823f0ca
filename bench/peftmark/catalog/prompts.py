"""Prompts as data: how a causal language model is shown a row, and the words it may answer.

A prompt is part of a job's identity, with its version and a hash of its text. They are plain text
without a chat template, so that they mean the same to any model; another wording gives other
numbers, more so for an untouched model than for a trained one.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from peftmark.catalog.task import Example, Task


@dataclass(frozen=True)
class Prompt:
    """A template and, for classes, their words (verbalisers).

    Attributes:
        text: what the model sees, with {text} and {pair} in the place of the row's texts. It ends
            without a space: the answer begins with one.
        words: one answer for each class, in the order of the task's labels; empty where the row
            itself holds the answer.
        version: bumped when a wording changes.
    """

    text: str
    words: tuple[str, ...] = ()
    version: int = 1

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
            return f" {self.words[int(row.label)]}"
        return f" {row.pair}"


_TWO = "Sentence 1: {text}\nSentence 2: {pair}\n"

PROMPTS: dict[str, Prompt] = {
    "cola": Prompt("Sentence: {text}\nIs this sentence correct English?", ("no", "yes")),
    "sst-2": Prompt("Review: {text}\nSentiment:", ("negative", "positive")),
    "mrpc": Prompt(f"{_TWO}Do both sentences say the same?", ("no", "yes")),
    "qqp": Prompt(
        "Question 1: {text}\nQuestion 2: {pair}\nDo both questions ask the same?", ("no", "yes")
    ),
    "mnli": Prompt(
        "Premise: {text}\nHypothesis: {pair}\nIs the hypothesis true, given the premise?",
        ("yes", "maybe", "no"),
    ),
    "qnli": Prompt(
        "Question: {text}\nText: {pair}\nDoes the text answer the question?", ("yes", "no")
    ),
    "rte": Prompt(
        "Premise: {text}\nHypothesis: {pair}\nIs the hypothesis true, given the premise?",
        ("yes", "no"),
    ),
    "wnli": Prompt(f"{_TWO}Does sentence 2 follow from sentence 1?", ("no", "yes")),
    "sts-pairs": Prompt(f"{_TWO}Do both sentences mean the same?", ("no", "yes")),
    "movie": Prompt("Review: {text}\nSentiment:", ("negative", "positive")),
    "trec": Prompt(
        "Question: {text}\nThe question asks for",
        ("an abbreviation", "a thing", "a description", "a person", "a place", "a number"),
    ),
    "labelled-instructions": Prompt("{text}\nAnswer:"),
    "chatterbot": Prompt("Question: {text}\nAnswer:"),
    "dolly": Prompt("### Instruction:\n{text}\n\n### Response:"),
    "gsm8k": Prompt("Question: {text}\nAnswer:"),
}
"""Task -> its prompt. Language tasks are shown as they are."""


def prompt_of(task: Task) -> Prompt | None:
    """How a task's rows are shown: the catalogue's prompt, or the one that an own task declares;
    None for one without."""
    if not task.own:
        return PROMPTS.get(task.key)
    return Prompt(task.prompt, task.words) if task.prompt else None
