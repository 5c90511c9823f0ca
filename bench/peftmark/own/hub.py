"""Data sets of the hub at a pinned commit, kept in our cache as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftmark.core.errors import AssetError
from peftmark.own.table import Table
from peftmark.own.tables import class_names, read_table, with_names
from peftmark.sources.hub_datasets import fetch_splits, notes_of
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
    wanted = {file: split for split, file in files.items() if notes_of(file) is None}
    if wanted:
        try:
            fetch_splits(repository, revision, config, wanted, cache, _classes)
        except Unavailable as reason:
            raise AssetError(
                f"data set {repository}: {reason}",
                "Go online once, a copy is kept; or check name, commit, config and splits, and "
                "log in for a data set behind a login.",
            ) from reason
    return [_read(f"{repository}, {split}", file) for split, file in files.items()]


def _read(name: str, file: Path) -> Table:
    notes, table = notes_of(file) or {}, read_table(file)
    return Table(name, with_names(table.columns, notes["classes"]), table.lines, table.unit)


def _classes(rows: Any) -> dict[str, Any]:
    return {"classes": class_names(rows)}
