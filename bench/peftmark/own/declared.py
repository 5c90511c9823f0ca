"""The shape of a task that a suite declares (`tasks:`), and what each kind needs."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from peftmark.catalog.task import TaskKind
from peftmark.core.shown import quoted, quoted_list
from peftmark.core.strict import Strict
from peftmark.own.labels import label_word

EVAL_SHARE = 0.2
"""Share of the rows that evaluate where no file does; an assumption, usual in the field."""
LONGEST_NAME = 80
"""Characters of a label, or another name that reports show, at most."""
REPOSITORY = r"[\w.-]+(/[\w.-]+)?"
"""A name on the hub."""
PINNED = re.compile(rf"{REPOSITORY}@[0-9a-f]{{40}}", re.ASCII)
COLUMNS = (
    "text",
    "label",
    "choices",
    "answer",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "messages",
)
"""Keys that name columns."""
NEEDS: dict[TaskKind, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = {
    "classification": ((("text", "label"), ()),),
    "multi-label": ((("text", "label"), ()),),
    "regression": ((("text", "label"), ()),),
    "multiple-choice": ((("text", "choices", "answer"), ()),),
    "instruction": (
        (("prompt", "completion"), ()),
        (("instruction", "output"), ("input",)),
        (("messages",), ()),
    ),
    "language": ((("text",), ()),),
}
"""Kind -> the ways to give its columns: those needed, and those that may be left out."""
OF_KIND: dict[str, tuple[TaskKind, ...]] = {
    "labels": ("classification", "multi-label"),
    "words": ("classification",),
    "separator_of_labels": ("multi-label",),
    "template": ("classification", "multiple-choice", "instruction"),
}
"""Keys that only some kinds have."""


def _kind(value: Any) -> Any:
    return "language" if value == "text" else value


def _listed(value: Any) -> Any:
    """One name as a tuple of one, a list as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _labels(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    words = [label_word(item) for item in value if isinstance(item, str | int | float)]
    if len(words) != len(value) or None in words:
        raise PydanticCustomError("labels", "each label is a word, a number, true or false")
    stripped = tuple(str(word).strip() for word in words)
    twice = [word for word in stripped if stripped.count(word) > 1]
    if twice:
        raise PydanticCustomError("labels", "{label} stands twice", {"label": quoted(twice[0])})
    return stripped


def not_pinned(what: str) -> str:
    """What is told of something on the hub that has no commit."""
    return (
        f"{what} at a pinned commit: owner/name@ and 40 hexadecimal digits (a branch moves; "
        "peftmark pin writes the commit's 40 digits)"
    )


def pinned(what: str) -> Callable[[Any], Any]:
    """A check that a value names something on the hub at a commit."""

    def checked(value: Any) -> Any:
        if isinstance(value, str) and PINNED.fullmatch(value):
            return value
        raise PydanticCustomError("hub", "{fault}", {"fault": not_pinned(what)})

    return checked


def _encoding(value: Any) -> Any:
    try:
        known = codecs.lookup(value) if isinstance(value, str) else None
    except (LookupError, ValueError):
        known = None
    # The registry also holds codecs between bytes, such as zip.
    if known is None or not known._is_text_encoding:
        raise PydanticCustomError(
            "encoding", "no encoding known by that name; usual are utf-8, latin-1, cp1252, utf-16"
        )
    return value


def _separator(value: Any) -> Any:
    # One byte, as the reader wants it.
    if isinstance(value, str) and len(value) == 1 and value.isascii() and value not in '"\n\r\0':
        return value
    raise PydanticCustomError("separator", 'one ASCII character, such as ";" or "\\t"')


def _shown(value: Any) -> Any:
    if isinstance(value, str) and not all(c.isprintable() for c in value):
        raise PydanticCustomError("shown", "characters that can't be printed are not allowed")
    return value


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed), Field(min_length=1)]
Shown = Annotated[str, BeforeValidator(_shown), Field(min_length=1, max_length=LONGEST_NAME)]
Keys = Annotated[tuple[Shown, ...], BeforeValidator(_listed)]


class OwnTask(Strict):
    """A task of one's own, as a suite's `tasks:` declares it.

    Attributes:
        kind: what its rows are (`text` is another word for language).
        train: file or files of rows, or a folder that `datasets` saved.
        eval: the same for evaluation; without it rows are cut from the training ones.
        hub: in place of `train`, a data set at a pinned commit: `owner/name@<40 hex>`.
        config: configuration of the data set on the hub.
        train_split: split to train on, of a data set or a saved folder.
        eval_split: split to evaluate on; without it rows are cut from the training ones.
        text: column of the text, or two.
        label: column of the label; of several labels also a list of columns of 0 and 1.
        labels: the classes in order; without it they are sorted.
        separator_of_labels: what stands between the labels of a row.
        choices: column that holds a list, or the columns of the choices.
        answer: column with number, letter or text of the right choice.
        prompt: column of the prompt; `completion` of what answers it.
        completion: see `prompt`.
        instruction: column of an instruction; `input` of what it is about, `output` of the answer.
        input: see `instruction`.
        output: see `instruction`.
        messages: column of conversations.
        separator: what separates the columns of a CSV file.
        encoding: of text files that are not UTF-8.
        drop: rows that are left out, and counted, in place of being refused.
        metric: the primary metric; the kind's usual one without it.
        also: metrics beside it.
        template: how a causal language model is shown a row: {text} and {pair} are its texts.
        words: what a causal language model answers for each class, in the order of the classes.
        eval_share: share of the rows that is cut for evaluation.
    """

    kind: Annotated[
        Literal[
            "classification",
            "multi-label",
            "regression",
            "multiple-choice",
            "instruction",
            "language",
        ],
        BeforeValidator(_kind),
    ]
    train: Names | None = None
    eval: Names | None = None
    hub: Annotated[str, BeforeValidator(pinned("a data set"))] | None = None
    config: Name | None = None
    train_split: Name | None = None
    eval_split: Name | None = None
    text: Annotated[Names, Field(max_length=2)] | None = None
    label: Names | None = None
    labels: Annotated[tuple[Shown, ...], BeforeValidator(_labels), Field(min_length=2)] | None = (
        None
    )
    separator_of_labels: Name = "|"
    choices: Names | None = None
    answer: Name | None = None
    prompt: Name | None = None
    completion: Name | None = None
    instruction: Name | None = None
    input: Name | None = None
    output: Name | None = None
    messages: Name | None = None
    separator: Annotated[str, BeforeValidator(_separator)] | None = None
    encoding: Annotated[str, BeforeValidator(_encoding)] | None = None
    drop: Annotated[tuple[Literal["empty", "unlabelled"], ...], BeforeValidator(_listed)] = ()
    metric: Shown | None = None
    also: Keys | None = None
    template: Annotated[str, Field(min_length=1)] | None = None
    words: Annotated[tuple[Name, ...], BeforeValidator(_listed), Field(min_length=2)] | None = None
    eval_share: Annotated[float, Field(gt=0, lt=1)] = EVAL_SHARE

    @model_validator(mode="after")
    def _fits_its_kind(self) -> OwnTask:
        faults = [*self._columns(), *self._source(), *self._shown_as()]
        if faults:
            raise PydanticCustomError("own_task", "{faults}", {"faults": "; ".join(faults)})
        return self

    def _columns(self) -> Iterator[str]:
        given = [name for name in COLUMNS if getattr(self, name) is not None]
        ways = NEEDS[self.kind]
        needs = ", or ".join(
            " and ".join(needed) + "".join(f" (and {name})" for name in more)
            for needed, more in ways
        )
        told = f"a task of kind {self.kind} needs {needs}"
        fits = [
            way for way in ways if set(way[0]) <= set(given) and set(given) <= {*way[0], *way[1]}
        ]
        if not fits:
            yield f"{told}; given: {', '.join(given) or 'none of them'}"
        for key, kinds in OF_KIND.items():
            if key in self.model_fields_set and self.kind not in kinds:
                yield f"{key} is for kind {' or '.join(kinds)}, not {self.kind}"
        if self.text and len(self.text) == 2 and self.kind in ("multiple-choice", "language"):
            yield f"text: a task of kind {self.kind} has one column of text"
        if self.label and len(self.label) > 1 and self.kind != "multi-label":
            yield "label: one column (several columns of 0 and 1 are for kind multi-label)"
        if self.label and len(self.label) > 1 and self.labels:
            yield "labels: columns of 0 and 1 name the classes themselves"
        if self.choices and len(self.choices) > 26:
            yield "choices: at most 26 columns"
        if self.kind == "language" and "unlabelled" in self.drop:
            yield "drop: rows of kind language have no label; empty is what they can be"
        yield from self._twice(given)

    def _twice(self, given: list[str]) -> Iterator[str]:
        names = [name for key in given for name in _listed(getattr(self, key))]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            yield f"{quoted_list(twice)}: a column is named twice"

    def _source(self) -> Iterator[str]:
        if (self.train is None) == (self.hub is None):
            yield (
                "rows come from train (files) or from hub (a data set at a pinned commit), "
                f"{'neither' if self.train is None else 'both'} is given"
            )
        if self.hub is not None and self.eval is not None:
            yield "eval: of a data set on the hub it is eval_split that names the evaluation rows"
        if self.hub is None and self.config is not None:
            yield "config: only a data set on the hub has one"
        if self.eval is not None and self.eval_split is not None and self.train == self.eval:
            return
        cut = self.eval is None and self.eval_split is None
        if not cut and "eval_share" in self.model_fields_set:
            yield "eval_share: evaluation rows are given, none are cut"

    def _shown_as(self) -> Iterator[str]:
        if self.words and self.labels and len(self.words) != len(self.labels):
            yield f"words: {len(self.words)} for {len(self.labels)} classes; one for each"
        if self.words and not self.labels:
            yield "words: labels says which class each belongs to, in the same order"
        if self.words and len(set(self.words)) < len(self.words):
            yield "words: each class needs a word of its own"
        if self.template is None:
            return
        if self.messages is not None:
            yield "template: a conversation is shown by the tokenizer's own chat template"
        if "{text}" not in self.template:
            yield "template: {text} is missing, the place of the row's text"
        pair = self.text is not None and len(self.text) == 2
        if pair != ("{pair}" in self.template):
            yield (
                "template: {pair} is missing, the place of the second text"
                if pair
                else "template: {pair} is for rows of two texts"
            )
        if self.template != self.template.rstrip():
            yield "template: it ends without a space or line break, the answer begins with one"
