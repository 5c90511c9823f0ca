"""Our folder for fetched files: where it is, what is said of one that can't be used, and the place
for downloads, where nothing stays that a killed run began."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peftmark.core.amounts import size_text
from peftmark.core.errors import AssetError, StoreError
from peftmark.core.files import write_all

FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCK = ".lock"


def default_cache() -> Path:
    """The folder for fetched files: `PEFTMARK_CACHE`, or `~/.cache/peftmark`.

    Where that isn't there and no home to make it in (a user without one, a home that can't be
    written), it is a folder of the user's own among the temporary files.

    Raises:
        AssetError: somebody else has made that folder.
    """
    with suppress(RuntimeError):  # Python knows no home of this user
        if named := os.environ.get("PEFTMARK_CACHE"):
            return Path(named).expanduser()
        home = Path.home()
        usual = home / ".cache" / "peftmark"
        there = next(path for path in (usual, *usual.parents) if path.exists())
        if usual.is_dir() or (home.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            return usual
    return _temporary()


def _temporary() -> Path:
    folder = Path(tempfile.gettempdir()) / f"peftmark-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise AssetError(
            f"there is no home folder to keep files in, and {folder} is not this user's alone",
            "Name a folder that can be written with PEFTMARK_CACHE.",
        )
    return folder


def cache_error(cache: Path, error: OSError, what: str, wanted: int | None = None) -> AssetError:
    """What is said where something finds no place in the cache.

    Args:
        what: in words, such as "package x 1.0".
        wanted: its bytes; None where nobody knows.
    """
    if error.errno not in FULL:
        return AssetError(
            f"the cache {cache} can't be written ({error.strerror or error}), and {what} belongs "
            "there",
            "Name a folder that can be written with PEFTMARK_CACHE.",
        )
    there = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free = size_text(shutil.disk_usage(there).free)
    size = "of unknown size" if wanted is None else f"of {size_text(wanted)}"
    return AssetError(
        f"the cache {cache} is full ({free} free): there is no room for {what}, {size}",
        "Free some space there, or name another folder with PEFTMARK_CACHE.",
    )


def out_of_room(error: BaseException | None) -> OSError | None:
    """The error of a full disk among an error and its causes; None if it is none of them."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def keep_text(cache: Path, path: Path, text: str, what: str) -> None:
    """Put a file of the user's own in its place in the cache, whole, where nobody else may read it.

    Args:
        what: in words, for a cache that can't take it.

    Raises:
        AssetError: the cache is full, or can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)  # also one that was there
        write_all({path: text})
    except (OSError, StoreError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        assert isinstance(cause, OSError)
        raise cache_error(cache, cause, what, len(text.encode())) from error


# --- downloads ------------------------------------------------------------------------------------


@contextmanager
def fetching(cache: Path) -> Iterator[Path]:
    """A folder of the cache for what is being fetched, gone afterwards. What killed processes left
    goes first; those of processes that live are theirs.

    Raises:
        OSError: it can't be written.
    """
    place = cache / "fetching"
    place.mkdir(parents=True, exist_ok=True)
    with (place / _LOCK).open("w") as one_at_a_time:
        with suppress(OSError):  # a file system without locks: then nothing is swept either
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        sweep(cache)
        folder = Path(tempfile.mkdtemp(dir=place))
        mark = (folder / _LOCK).open("w")
        with suppress(OSError):
            fcntl.flock(mark, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        mark.close()


def sweep(cache: Path) -> None:
    """Remove what processes that are gone began to fetch."""
    for folder in (cache / "fetching").glob("*/"):
        if not is_held(folder / _LOCK):
            shutil.rmtree(folder, ignore_errors=True)


def is_held(lock: Path) -> bool:
    """Whether a process that lives holds a lock; so it is where a file system has no locks."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
