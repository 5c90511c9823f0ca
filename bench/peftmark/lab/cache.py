"""Things made once and used by every job, kept in the cache under a hash of all that decides them.

What is kept can always be made again: a damaged copy is, and a cache that can't be written is gone
without.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from peftmark.core.errors import AssetError
from peftmark.core.files import sync
from peftmark.core.hashes import sha256_file
from peftmark.core.sealed import sealed, unsealed
from peftmark.machine.environment import SOURCES, source_hash

MANIFEST = "made.json"


@dataclass(frozen=True)
class Kept:
    """A folder in the cache.

    Attributes:
        facts: what its maker wrote down.
        now: whether it was made just now.
    """

    folder: Path
    facts: dict[str, Any]
    now: bool = False


def keep(
    cache: Path, kind: str, identity: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]
) -> Kept | None:
    """The folder that stands for an identity, made if it isn't there.

    Args:
        kind: name of the sort of thing, a folder of the cache.
        identity: all that decides the content, as JSON. The versions of the libraries that make
            it belong in it (`made_by`).
        make: writes the files into an empty folder and returns facts worth keeping, as JSON.

    Returns:
        None if the cache can't be written.
    """
    text = json.dumps(identity, sort_keys=True, allow_nan=False)
    folder = cache / kind / hashlib.sha256(text.encode()).hexdigest()[:32]
    kept = _intact(folder)
    if kept is not None:
        return kept
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f".{folder.name}.lock").open("w") as lock:
            # One job makes it, and those beside it wait; the lock ends with its holder.
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _intact(folder) or _make(folder, make)
    except (OSError, SafetensorError):  # the latter is how a full disk shows
        return None


def made_by(*packages: str, code: str = "") -> dict[str, str]:
    """Versions of packages, for an identity, and hashes of the code that decides.

    Args:
        code: path of our own module that makes the content.
    """
    found = {name: metadata.version(name) for name in packages}
    found |= {f"{n} (source)": str(source_hash(n)) for n in packages if n in SOURCES}
    return found | ({"code": sha256_file(Path(code))} if code else {})


def _make(folder: Path, make: Callable[[Path], dict[str, Any]]) -> Kept | None:
    scratch = folder.with_name(f".making-{folder.name}")
    for leftover in (folder, scratch):  # damaged; of a worker that was killed while it made it
        shutil.rmtree(leftover, ignore_errors=True)
    scratch.mkdir()
    try:
        facts = make(scratch)
        files = {path.name: sha256_file(path) for path in scratch.iterdir()}
        (scratch / MANIFEST).write_text(sealed({"facts": facts, "files": files}))
        for path in [*scratch.iterdir(), scratch]:  # before the name says that it is whole
            sync(path)
        os.replace(scratch, folder)
        return Kept(folder, facts, now=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _intact(folder: Path) -> Kept | None:
    """What is kept, if its files are those that were made: every byte is read, since a bit that
    flips on a disk leaves size and times as they were."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, AssetError):
        made = unsealed((folder / MANIFEST).read_text())
        found = {path.name: sha256_file(path) for path in folder.iterdir()}
        del found[MANIFEST]
        if found == made["files"]:
            return Kept(folder, made["facts"])
    return None
