"""The files of a worker: its log, and its folder of temporary files."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

MAX_LOG_BYTES = 1024 * 1024


def bound(log: Path) -> None:
    """Cut the middle out of a log that grew too long; how it began and how it ended stay."""
    with suppress(OSError):
        size = log.stat().st_size
        if size <= MAX_LOG_BYTES:
            return
        half = MAX_LOG_BYTES // 2
        with log.open("rb+") as handle:
            handle.seek(size - half)
            tail = handle.read()
            handle.seek(half)
            handle.truncate()
            handle.write(f"\n[{size - 2 * half} bytes cut here]\n".encode() + tail)


def empty(folder: Path) -> None:
    """Remove what is in a folder."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
