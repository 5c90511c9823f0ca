"""Errors of the operating system about a results folder, as one clear message each."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftmark.core.errors import StoreError


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Say in one clear message that a folder which is there can't be looked into."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder} can't be read ({error.strerror or error}), so nobody knows what it holds",
            "Check the folder, its permissions and the links on the way to it.",
        ) from error


@contextmanager
def explained(path: Path, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turn operating-system errors, but one kind, into one clear message."""
    try:
        yield
    except but:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.errno == errno.ENOENT and path.suffix and not path.parent.exists():
            raise StoreError(
                f"{path.parent} is not there any more: it was moved or removed while this ran",
                "Rows written before are where it went. Run the same command where they are.",
            ) from error
        what = "the disk is full" if full else (error.strerror or str(error))
        raise StoreError(
            f"{path}: {what}; results written before are intact",
            "Free some space and run the same command again: finished jobs are not repeated."
            if full
            else "Check the folder and its permissions, or choose another --results folder.",
        ) from error
