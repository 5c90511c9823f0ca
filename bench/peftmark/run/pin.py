"""Data sets and models of the hub in a suite's file, pinned: a branch becomes its commit of today.

The file is changed as text, so that its comments and its order stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.core.errors import AssetError, SuiteError, UserError
from peftmark.core.files import write_all
from peftmark.core.strict_yaml import read_yaml
from peftmark.own.declared_model import HUB
from peftmark.sources.assets import hub_reachable, hub_reason, quiet_hub
from peftmark.suite.load import find_suite
from peftmark.suite.names import model_users

MAIN = "main"
_COMMIT = re.compile("[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Pinned:
    """A data set or a model in the file.

    Attributes:
        found: as it stood there.
        written: with the commit's 40 digits.
    """

    found: str
    written: str


def pin(name: str, suites: Path | None) -> tuple[Path, list[Pinned]]:
    """Write the commit of every data set and model of the hub that has none.

    Returns:
        the file, and what was changed.

    Raises:
        UserError: no such suite, one that is shipped, or something that the hub doesn't have; the
            file is as it was.
    """
    path = find_suite(name, suites)
    raw = read_yaml(path)
    raw = raw if isinstance(raw, dict) else {}
    tasks, models = set(_data_sets(path, raw)), set(_models(path, raw))
    if both := tasks & models:
        raise UserError(
            f"{path}: {', '.join(sorted(both))} is a data set and a model",
            "Write the commit of one of them yourself, after an @.",
        )
    wanted = [*sorted(tasks), *sorted(models)]
    if not wanted:
        return path, []
    reachable, why = hub_reachable()
    if not reachable:
        raise AssetError(f"the hub can't be asked for commits: {why}", "Go online and try again.")
    pinned = [Pinned(found, _at_commit(found, found in models)) for found in wanted]
    text = path.read_text(encoding="utf-8")
    for one in pinned:
        places = rf"(\bhub:\s*['\"]?){re.escape(one.found)}(?![\w./@-])"
        text = re.sub(places, rf"\g<1>{one.written}", text)
    if left := set(_of_text(text)) & {one.found for one in pinned}:
        raise UserError(
            f"{path}: {', '.join(sorted(left))} could not be found as text",
            "Write each on a line of its own, as hub: owner/name or model: hub:owner/name.",
        )
    write_all({path: text})
    return path, pinned


def _data_sets(path: Path, raw: Mapping[str, Any]) -> Iterator[str]:
    return _declared(path, raw, "tasks", "a data set")


def _models(path: Path, raw: Mapping[str, Any]) -> Iterator[str]:
    yield from _declared(path, raw, "models", "a model")
    for user in model_users(raw):
        value = user["model"]
        if isinstance(value, str) and value.startswith(HUB):
            yield from _unpinned(path, "model", value.removeprefix(HUB), "a model")


def _declared(path: Path, raw: Mapping[str, Any], part: str, what: str) -> Iterator[str]:
    entries = raw.get(part)
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        hub = entry.get("hub") if isinstance(entry, dict) else None
        if hub is not None:
            yield from _unpinned(path, f"{part}.{key}.hub", hub, what)


def _unpinned(path: Path, where: str, hub: Any, what: str) -> Iterator[str]:
    if not isinstance(hub, str) or not _NAME.fullmatch(hub):
        raise SuiteError(
            f"{path}: {where}: found {hub!r}",
            f"Write {what} as owner/name, or owner/name@branch.",
        )
    if not _COMMIT.fullmatch(hub.partition("@")[2]):
        yield hub


def _of_text(text: str) -> list[str]:
    return re.findall(r"\bhub:\s*['\"]?([\w./@-]+)", text)


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
