"""Data sets of the hub in a suite's file, pinned: the name of a branch becomes its commit of today.

The file is changed as text, so that its comments and its order stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peftmark.core.errors import AssetError, SuiteError, UserError
from peftmark.core.files import write_all
from peftmark.core.strict_yaml import read_yaml
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
        UserError: no such suite, one that is shipped, or a data set that the hub doesn't have;
            the file is as it was.
    """
    path = find_suite(name, suites)
    wanted = list(dict.fromkeys(_unpinned(path)))
    if not wanted:
        return path, []
    reachable, why = hub_reachable()
    if not reachable:
        raise AssetError(f"the hub can't be asked for commits: {why}", "Go online and try again.")
    pinned = [Pinned(found, _at_commit(found)) for found in wanted]
    text = path.read_text(encoding="utf-8")
    for one in pinned:
        places = rf"(\bhub:\s*['\"]?){re.escape(one.found)}(?![\w./@-])"
        text = re.sub(places, rf"\g<1>{one.written}", text)
    if left := set(_of_text(text)) & {one.found for one in pinned}:
        raise UserError(
            f"{path}: {', '.join(sorted(left))} could not be found as text",
            "Write each data set on a line of its own, as hub: owner/name.",
        )
    write_all({path: text})
    return path, pinned


def _unpinned(path: Path) -> Iterator[str]:
    raw = read_yaml(path)
    tasks = raw.get("tasks") if isinstance(raw, dict) else None
    for key, task in tasks.items() if isinstance(tasks, dict) else ():
        hub = task.get("hub") if isinstance(task, dict) else None
        if hub is None:
            continue
        if not isinstance(hub, str) or not _NAME.fullmatch(hub):
            raise SuiteError(
                f"{path}: tasks.{key}.hub: found {hub!r}",
                "Write a data set as owner/name, or owner/name@branch.",
            )
        if not _COMMIT.fullmatch(hub.partition("@")[2]):
            yield hub


def _of_text(text: str) -> list[str]:
    return re.findall(r"\bhub:\s*['\"]?([\w./@-]+)", text)


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
