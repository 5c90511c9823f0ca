"""A folder that the source `mirror` reads, written so that nothing in it is ever half there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peftmark.core.errors import AssetError, UserError
from peftmark.core.files import sync
from peftmark.sources.manifest import MANIFEST, FileEntry, Manifest, fault_of


def place(path: Path, content: Iterable[bytes], listed: FileEntry | None) -> FileEntry:
    """Write a file whole; what is there already stays, or is replaced where it is damaged.

    Raises:
        AssetError: something else is there that isn't ours, or that another suite needs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _written(path, content) as (part, entry):
        if path.exists():
            if not fault_of(path, entry):
                return entry
            if listed is None or not fault_of(path, listed):
                whose = "was not made by fetch" if listed is None else "an earlier fetch needs it"
                raise AssetError(
                    f"{path} has another content than what would be written, and {whose}",
                    "Fetch into a new folder, or move that file away.",
                )
        part.replace(path)
        sync(path.parent)
    return entry


def write_manifest(to: Path, manifest: Manifest) -> None:
    """Write the list of what a folder holds, whole."""
    text = json.dumps(manifest.model_dump(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with _written(to / MANIFEST, [text.encode()]) as (part, _):
        part.replace(to / MANIFEST)
        sync(to)


@contextmanager
def _written(path: Path, content: Iterable[bytes]) -> Iterator[tuple[Path, FileEntry]]:
    """A synced temporary file beside `path`, to be renamed inside; gone afterwards."""
    part = path.with_name(f".{path.name}.part")  # one a file, since the folder is locked
    digest, size = hashlib.sha256(), 0
    try:
        with part.open("wb") as file:
            for block in content:
                file.write(block)
                digest.update(block)
                size += len(block)
            file.flush()
            os.fsync(file.fileno())
        yield part, FileEntry(bytes=size, sha256=digest.hexdigest())
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def locked(to: Path) -> Iterator[None]:
    """Hold the folder for one fetch, where the file system has such locks."""
    handle = os.open(to, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another fetch is writing into {to}", "Wait for it to end, or choose another --to."
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        yield
    finally:
        os.close(handle)


@contextmanager
def explained(to: Path) -> Iterator[None]:
    """Turn operating-system errors into one clear message."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else (error.strerror or str(error))
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(
            f"{to}: {what}{where}; no file in it is half written",
            "Free some space and run the same command again: what is whole stays."
            if full
            else "Check the folder and its rights, or choose another one with --to.",
        ) from error
