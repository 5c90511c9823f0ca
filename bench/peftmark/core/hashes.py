"""SHA-256 of files, read once while they stay as they are.

A run reads and hashes every asset in full when it starts; its workers, a process a job, look only
whether the files are still the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftmark.core.errors import AssetError
from peftmark.core.files import refuse_special

Stamp = tuple[int, int, int, int]
"""A file's size in bytes, times of the last change to it and to its entry in ns, and number: at
least one is another when the file is."""

_hashed: dict[str, tuple[Stamp, str]] = {}


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits.

    Raises:
        AssetError: the file can't be read, or is none.
    """
    refuse_special(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AssetError(
            f"{path} can't be read: {error.strerror or error}", "Check the file and its rights."
        ) from error


def stamp_of(path: Path) -> Stamp:
    """A file's stamp; a link's is that of the file linked to."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def known_sha256(path: Path) -> str:
    """SHA-256 of a file, not read again while its stamp stays as it was.

    Raises:
        AssetError: the file can't be read.
    """
    name = str(path.absolute())
    try:
        stamp = stamp_of(path)
    except OSError:
        return sha256_file(path)  # says what is wrong
    known = _hashed.get(name)
    if known is not None and known[0] == stamp:
        return known[1]
    found = sha256_file(path)
    _hashed[name] = stamp, found
    return found


def known_hashes() -> dict[str, tuple[Stamp, str]]:
    """What this process hashed so far: path -> (stamp, SHA-256), for `learn_hashes` elsewhere."""
    return dict(_hashed)


def learn_hashes(found: Mapping[str, Any]) -> None:
    """Take over, after a trip through JSON, what the supervisor of this worker hashed."""
    for name, (stamp, digest) in found.items():
        size, changed, entry, number = map(int, stamp)
        _hashed[name] = (size, changed, entry, number), str(digest)


def forget_hashes() -> None:
    """Read every file again the next time: at the start of a run nothing is taken on trust."""
    _hashed.clear()
