"""Data sets of the hub in a suite's file, pinned: the name of a branch becomes its commit of today.

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
from peftmark.core.strict_yaml import Word, read_yaml, words_under
from peftmark.sources.assets import hub_reachable, hub_reason, quiet_hub
from peftmark.suite.load import find_suite

MAIN = "main"
_COMMIT = re.compile("[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Pinned:
    """A data set in the file.

    Attributes:
        found: as it stood there.
        written: with the commit's 40 digits.
    """

    found: str
    written: str


def pin(name: str, suites: Path | None) -> tuple[Path, list[Pinned]]:
    """Write the commit of every data set of a suite's own tasks that has none.

    Returns:
        the file, and what was changed.

    Raises:
        SuiteError: no such suite, or something else in the place of a data set's name.
        AssetError: no hub, or a data set that it doesn't have; the file is as it was.
    """
    path = find_suite(name, suites)
    read_yaml(path)  # what may not stand in a suite is refused with its place
    text = path.read_bytes().decode("utf-8")  # as it is, the ends of its lines too
    places = list(_unpinned(path, text))
    wanted = list(dict.fromkeys(place.value for place in places))
    if not wanted:
        return path, []
    reachable, why = hub_reachable()
    if not reachable:
        raise AssetError(f"the hub can't be asked for commits: {why}", "Go online and try again.")
    commits = {found: _at_commit(found) for found in wanted}
    for place in reversed(places):  # so that those before stay where they are
        written = f"{place.quote}{commits[place.value]}{place.quote}"
        text = text[: place.start] + written + text[place.end :]
    write_all({path: text})
    return path, [Pinned(found, written) for found, written in commits.items()]


def _unpinned(path: Path, text: str) -> Iterator[Word]:
    """Where the data sets without a commit stand, in the order of the file."""
    for task, hub in words_under(text, "tasks", "hub"):
        if not _NAME.fullmatch(hub.value):
            raise SuiteError(
                f"{path}, line {hub.line}: tasks.{plain(task)}.hub: found {quoted(hub.value)}",
                "Write a data set as owner/name, or owner/name@branch.",
            )
        if not _COMMIT.fullmatch(hub.value.partition("@")[2]):
            yield hub


def _at_commit(found: str) -> str:
    from huggingface_hub import HfApi

    repository, _, branch = found.partition("@")
    revision = branch or MAIN
    try:
        with quiet_hub():
            commit = HfApi().dataset_info(repository, revision=revision).sha
    except Exception as error:  # many kinds, from HTTP status to a name that can't be one
        raise AssetError(
            f"data set {repository} at {revision}: {hub_reason(error, repository, revision)}",
            "Check its name; of a private one, log in first.",
        ) from error
    if commit is None or not _COMMIT.fullmatch(commit):
        raise AssetError(f"data set {repository}: the hub tells no commit", "Try again later.")
    return f"{repository}@{commit}"
