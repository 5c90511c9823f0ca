"""Data sets and models of the hub in a suite, pinned: a branch becomes its commit of today.

The file is changed as text, so that its comments and its order stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peftmark.core.errors import AssetError, SuiteError
from peftmark.core.files import write_all
from peftmark.core.shown import plain, quoted
from peftmark.core.strict_yaml import Word, read_yaml, words_named, words_under
from peftmark.own.declared import REPOSITORY
from peftmark.own.declared_model import HUB
from peftmark.sources.hub import hub_reachable, hub_reason, quiet_hub
from peftmark.suite.load import find_suite

MAIN = "main"
_COMMIT = re.compile("[0-9a-f]{40}")
_NAME = re.compile(rf"{REPOSITORY}(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Pinned:
    """Something of the hub in the file.

    Attributes:
        found: as it stood there.
        written: with the commit's 40 digits.
    """

    found: str
    written: str


@dataclass(frozen=True)
class _Place:
    """Where something of the hub stands without its commit.

    Attributes:
        before: what stands before its name in the same word: nothing, or `hub:`.
        name: owner/name, and a branch after an @ if it has one.
        model: whether it is a model, and no data set.
    """

    word: Word
    before: str
    name: str
    model: bool


def pin(name: str, suites: Path | None) -> tuple[Path, list[Pinned]]:
    """Write the commit of every data set and model of a suite's own that has none.

    Returns:
        the file, and what was changed.

    Raises:
        SuiteError: no such suite, or something else in the place of a name.
        AssetError: no hub, or something that it doesn't have; the file is as it was.
    """
    path = find_suite(name, suites)
    read_yaml(path)  # what may not stand in a suite is refused with its place
    text = path.read_bytes().decode("utf-8")  # as it is, the ends of its lines too
    places = sorted(_unpinned(path, text), key=lambda place: place.word.start)
    wanted = list(dict.fromkeys((place.name, place.model) for place in places))
    if not wanted:
        return path, []
    reachable, why = hub_reachable()
    if not reachable:
        raise AssetError(f"the hub can't be asked for commits: {why}", "Go online and try again.")
    commits = {one: _at_commit(*one) for one in wanted}
    for place in reversed(places):  # so that those before stay where they are
        word = place.word
        written = f"{word.quote}{place.before}{commits[place.name, place.model]}{word.quote}"
        text = text[: word.start] + written + text[word.end :]
    write_all({path: text})
    return path, [Pinned(found, written) for (found, _), written in commits.items()]


def _unpinned(path: Path, text: str) -> Iterator[_Place]:
    """Where data sets and models without a commit stand."""
    for part, what in (("tasks", "data set"), ("models", "model")):
        for key, word in words_under(text, part, "hub"):
            where = f"{part}.{plain(key)}.hub"
            yield from _place(path, where, word, "", what)
    for word in words_named(text, "model"):
        if word.value.startswith(HUB):
            yield from _place(path, "model", word, HUB, "model")


def _place(path: Path, where: str, word: Word, before: str, what: str) -> Iterator[_Place]:
    name = word.value.removeprefix(before)
    if not _NAME.fullmatch(name):
        raise SuiteError(
            f"{path}, line {word.line}: {where}: found {quoted(word.value)}",
            f"Write a {what} as {before}owner/name, or {before}owner/name@branch.",
        )
    if not _COMMIT.fullmatch(name.partition("@")[2]):
        yield _Place(word, before, name, what == "model")


def _at_commit(found: str, model: bool) -> str:
    from huggingface_hub import HfApi

    repository, _, branch = found.partition("@")
    revision, what = branch or MAIN, "model" if model else "data set"
    try:
        with quiet_hub():
            asked = HfApi().model_info if model else HfApi().dataset_info
            commit = asked(repository, revision=revision).sha
    except Exception as error:  # many kinds, from HTTP status to a name that can't be one
        raise AssetError(
            f"{what} {repository} at {revision}: {hub_reason(error, repository, revision)}",
            "Check its name; of a private one, log in first.",
        ) from error
    if commit is None or not _COMMIT.fullmatch(commit):
        raise AssetError(f"{what} {repository}: the hub tells no commit", "Try again later.")
    return f"{repository}@{commit}"
