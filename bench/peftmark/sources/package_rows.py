"""Rows of the tasks whose data stand in packages on PyPI, each from the form its package has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from peftmark.catalog.origins import Package
from peftmark.catalog.task import Example, Task
from peftmark.sources.row_files import Splits, make_row, read_lines


def read_package(folder: Path, package: Package, task: Task) -> Splits:
    """Training and evaluation rows from the files of a known package.

    Raises:
        AssetError: a file can't be read or is malformed.
    """
    paths = [folder / name for name, _ in package.files]
    return _PACKAGES[task.key](paths, task)


def _stsb(paths: Sequence[Path], task: Task) -> Splits:
    """STS-B as first published: no header; genre, file, year, id, score, two texts, sources."""
    splits: list[list[Example]] = []
    for path in paths:
        cells = ((line, text.split("\t")) for line, text in read_lines(path))
        splits.append([make_row(path, line, (*c[5:7], c[4]), task) for line, c in cells])
    return splits[0], splits[1]


def _movie(paths: Sequence[Path], task: Task) -> Splits:
    """Ratings from -4 to 4, the mean of twenty people; ratings near zero have no clear sign."""
    labelled = []
    for _, line in list(read_lines(paths[0]))[1:]:
        _, rating, snippet = line.split("\t")
        if abs(float(rating)) > 0.5:
            labelled.append((snippet.strip(), int(float(rating) > 0)))
    return _held_out(labelled)


def _trec(paths: Sequence[Path], task: Task) -> Splits:
    """Lines of "COARSE:fine question", most of them several times."""
    labelled = []
    for _, line in read_lines(paths[0], "latin-1"):
        names, _, question = line.partition(" ")
        labelled.append((question.strip(), task.labels.index(names.partition(":")[0])))
    return _held_out(labelled)


def _instructions(paths: Sequence[Path], task: Task) -> Splits:
    """The rows of `trec` and `movie` as instructions, in turns as far as both go."""
    from peftmark.catalog.tasks import TASKS

    trec, movie = _trec(paths[:1], TASKS["trec"]), _movie(paths[1:], TASKS["movie"])
    splits: Splits = ([], [])
    for rows, questions, snippets in zip(splits, trec, movie, strict=True):
        for question, snippet in zip(questions, snippets, strict=False):
            rows.append(Example(f"{_ASKED}\n{question.text}", _KINDS[int(question.label)], 0))
            rows.append(Example(f"{_FELT}\n{snippet.text}", _FEELINGS[int(snippet.label)], 0))
    return splits


_ASKED = (
    "What does this question ask for: an abbreviation, a thing, a description, a person, a place "
    "or a number?"
)
_KINDS = ("an abbreviation", "a thing", "a description", "a person", "a place", "a number")
_FELT = "Did the reviewer like the film: yes or no?"
_FEELINGS = ("no", "yes")


def _as_text(document: str) -> Any:
    """YAML with every scalar as it is written."""
    return yaml.load(document, Loader=yaml.BaseLoader)  # noqa: S506 (makes text alone)


def _chatterbot(paths: Sequence[Path], task: Task) -> Splits:
    """Conversations of a question and its answer, by topic; what follows them isn't read."""
    answers: dict[str, tuple[str, set[str]]] = {}
    for path in paths:
        text = "\n".join(line for _, line in read_lines(path))
        # "1963" is an answer.
        for turns in _as_text(text)["conversations"]:
            row = make_row(path, 0, turns[:2], task)
            key = _plain(row.text)
            answers.setdefault(key, (row.text, set()))[1].add(str(row.pair))
    splits: Splits = ([], [])
    for key, (question, found) in answers.items():
        if len(found) == 1:
            splits[_is_held_out(key)].append(Example(question, min(found), 0))
    return splits


PASSAGE = 400
"""Characters of a passage at most, unless a single sentence has more."""


def _passages(paths: Sequence[Path], task: Task) -> Splits:
    """Rated sentences "document_number, rating, text" back in passages; whole documents are held
    out."""
    documents: dict[str, list[str]] = {}
    for _, line in list(read_lines(paths[0]))[1:]:
        name, _, text = line.split("\t")
        documents.setdefault(name.partition("_")[0], []).append(text.strip())
    splits: Splits = ([], [])
    for sentences in documents.values():
        split = splits[_is_held_out(_plain(sentences[0]))]
        passage = ""
        for sentence in sentences:
            if passage and len(passage) + 1 + len(sentence) > PASSAGE:
                split.append(Example(passage, None, 0))
                passage = ""
            passage = f"{passage} {sentence}".strip()
        split.append(Example(passage, None, 0))
    return splits


def _plain(text: str) -> str:
    """A text but for case and spaces."""
    return " ".join(text.casefold().split())


def _is_held_out(key: str) -> bool:
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0


def _held_out(labelled: Iterable[tuple[str, int]]) -> Splits:
    """Split by the text alone: a tenth, by the last decimal digit of its SHA-256, is held out.

    Texts equal but for case and spaces count as one, so none is on both sides; those with
    contradicting labels are dropped.
    """
    first: dict[str, str] = {}
    labels: dict[str, set[int]] = {}
    for text, label in labelled:
        key = _plain(text)
        first.setdefault(key, text)
        labels.setdefault(key, set()).add(label)
    splits: Splits = ([], [])
    for key, text in first.items():
        if len(labels[key]) == 1:
            splits[_is_held_out(key)].append(Example(text, None, min(labels[key])))
    return splits


_PACKAGES: dict[str, Callable[[Sequence[Path], Task], Splits]] = {
    "sts-b": _stsb,
    "sts-pairs": _stsb,
    "movie": _movie,
    "trec": _trec,
    "labelled-instructions": _instructions,
    "chatterbot": _chatterbot,
    "reviews": _passages,
    "editorials": _passages,
}
