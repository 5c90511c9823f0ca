"""Data sets of the hub at a pinned commit, kept in our cache as Parquet."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from peftmark.core.errors import AssetError
from peftmark.core.hashes import sha256_file
from peftmark.own.table import Table
from peftmark.own.tables import class_names, read_table, with_names
from peftmark.sources.hub_datasets import fetch_splits
from peftmark.sources.pypi import Unavailable


def hub_splits(hub: str, config: str | None, splits: tuple[str, ...], cache: Path) -> list[Table]:
    """The splits of a data set, in the order asked for.

    The library's own offline fallback takes "the latest cached version" whatever the revision, so
    the pinned copy is ours; it is checked by hash, and fetched again if it is damaged.

    Args:
        hub: `owner/name@<40 hex>`.
        cache: our folder for fetched files.

    Raises:
        AssetError: there is no copy, and the hub can't be reached or has no such data set.
    """
    repository, _, revision = hub.partition("@")
    folder = cache / "own-hub" / repository.replace("/", "--") / revision / (config or "")
    files = {split: folder / f"{split}.parquet" for split in splits}
    wanted = {file: split for split, file in files.items() if not _whole(file)}
    if wanted:
        try:
            fetch_splits(repository, revision, config, wanted, partial(_describe, folder))
        except Unavailable as reason:
            raise AssetError(
                f"data set {repository}: {reason}",
                "Go online once, a copy is kept; or check name, commit, config and splits, and "
                "log in for a data set behind a login.",
            ) from reason
    return [_read(f"{repository}, {split}", file) for split, file in files.items()]


def _notes(file: Path) -> Path:
    return file.with_suffix(".json")


def _whole(file: Path) -> bool:
    """Whether a copy is there, and is what was written."""
    try:
        notes = json.loads(_notes(file).read_text(encoding="utf-8"))
        return bool(notes["sha256"] == sha256_file(file))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read(name: str, file: Path) -> Table:
    table = read_table(file)
    classes = json.loads(_notes(file).read_text(encoding="utf-8"))["classes"]
    return Table(name, with_names(table.columns, classes), table.lines, table.unit)


def _describe(folder: Path, rows: Any, part: Path) -> None:
    """Put in place what a split says of itself: before its rows, which count only with it."""
    notes = {"classes": class_names(rows), "sha256": sha256_file(part)}
    beside = _notes(part)
    beside.write_text(json.dumps(notes), encoding="utf-8")
    beside.replace(folder / beside.name)
