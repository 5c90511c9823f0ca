"""Rows that come with peftmark: a Parquet file a suite, in a checkout and in the package."""

from __future__ import annotations

from pathlib import Path

from peftmark.core.files import PACKAGE
from peftmark.storage.rows_file import read_rows_file
from peftmark.storage.store import Contents

PUBLISHED = "published"
"""Folder of a results folder with rows that come with the project, a file a suite."""
ROWS = "rows.parquet"


def published_in(results: Path) -> Path:
    """Where published rows are: in the results folder, else, if it is `./results`, where they were
    installed. Another folder was named to be asked alone."""
    own = results / PUBLISHED
    if own.is_dir() or results != Path("results"):
        return own
    shipped = PACKAGE / "_published"
    return shipped if shipped.is_dir() else PACKAGE.parent.parent / own


def published_rows(results: Path, suite: str) -> Contents:
    """The published rows of a suite; none where there is no such file.

    Raises:
        StoreError: a file that can't be read at all.
    """
    file = published_in(results) / suite / ROWS
    return read_rows_file(file) if file.is_file() else Contents({}, 0, {})
