"""What every module that writes files does the same way, and where this package lies."""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from peftmark.core.errors import AssetError, StoreError, UserError
from peftmark.core.shown import plain

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of the package `peftmark`: in a checkout two levels below its root."""

SUITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What a suite may be called; its results have a folder of this name."""


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """A folder to fill, which is put in place as `to` in one step if nothing goes wrong.

    Raises:
        UserError: there is something already.
        StoreError: it can't be written; what was begun is gone.
    """
    if to.exists() or to.is_symlink():
        raise UserError(
            f"--to: {to} is there already",
            "Name a folder that is not; nothing is ever written over. Nothing was written.",
        )
    made = to.absolute().with_name(f".{to.absolute().name}.{os.getpid()}.tmp")
    try:
        made.mkdir(parents=True)
        yield made
        os.rename(made, to)
        sync(made.parent)
    except OSError as error:
        raise StoreError(
            f"{error.filename or to}: {error.strerror or error}",
            "Check the folder, its rights and the space on the disk. Nothing was written.",
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


_SPECIAL = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_special(path: Path) -> None:
    """Refuse what stands where a file belongs and may block, or never end, when it is opened. A
    link is what it leads to.

    Raises:
        AssetError: it is a pipe, a socket or a device; it was not opened.
    """
    with suppress(OSError):  # whoever opens it says what is wrong
        kind = _SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
        if kind is not None:
            raise AssetError(
                f"{plain(str(path))} is {kind}, and not a file: it was not opened",
                "Put a file there, or name another one.",
            )


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, reach the disk.

    Raises:
        OSError: if it can't be opened or synced.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(files: Mapping[Path, str | bytes]) -> list[Path]:
    """Write every file under a temporary name first, then put all in place.

    Returns:
        the paths, in their order.

    Raises:
        StoreError: one can't be written; what was there before stays as it was.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            staged[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            with staged[path].open("wb") as file:
                file.write(
                    content if isinstance(content, bytes) else content.encode("utf-8", "replace")
                )
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in staged.items():
            os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"can't write {error.filename or next(iter(files))}: {error.strerror or error}",
            "Free some space or name another folder; what was there before is as it was.",
        ) from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    return list(files)


def _sweep(path: Path) -> None:
    """Remove what a killed run left beside a file; one that still runs goes on."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = leftover.name.split(".")[-2]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except (OSError, ValueError):  # another user's process, or no file of ours
            continue
