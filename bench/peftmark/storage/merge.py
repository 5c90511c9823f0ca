"""Results of several machines and versions as one folder, whose rows are the very bytes of theirs.

A job's rows on two machines stay two rows. The same row twice is once: equal bytes have one name.
Older rows stay as they were written; whoever reads the folder migrates them as ever.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peftmark.core.errors import UserError
from peftmark.core.files import SUITE_NAME, new_folder
from peftmark.core.shown import quoted
from peftmark.record.job import Record
from peftmark.storage.attempts import part_name
from peftmark.storage.store import Contents, Store, part_of
from peftmark.storage.unread import no_results

REMEDY = "Nothing was written, and no source was changed."


@dataclass
class Merged:
    """What became of several results folders.

    Attributes:
        suites: suite -> what the new folder holds of it.
        copied: attempts that are in it.
        twice: attempts that were there already, byte for byte.
        damaged: unreadable part of a source -> why; it is not in the new folder.
        older: part of a schema without a migration -> which; likewise.
    """

    suites: dict[str, Contents] = field(default_factory=dict)
    copied: int = 0
    twice: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)
    older: dict[Path, str] = field(default_factory=dict)


def merge(sources: Sequence[Path], to: Path) -> Merged:
    """Bring results folders together in a new one.

    Args:
        sources: results folders, or folders of one suite in them.
        to: the results folder to make, with a folder for each suite.

    Raises:
        UserError: a source without results, a target that is there or lies in a source, a row of a
            suite whose name can't be a folder's.
        StoreError: what can't be read or written, or a part that a newer peftmark wrote.
    """
    folders = [folder for source in sources for folder in _of_suites(source)]
    for source in sources:
        if to.resolve().is_relative_to(source.resolve()) and not to.exists():
            raise UserError(
                f"--to: {to} lies in {source}, which is to stay as it is",
                f"Name a folder outside of what is merged. {REMEDY}",
            )
    found = Merged()
    with new_folder(to) as made:
        for folder in folders:
            for path in sorted((folder / "parts").glob("*.parquet")):
                _bring(path, made, found)
        if not found.copied:
            nothing = Contents({}, 0, found.damaged, found.older)
            where = Path(os.path.commonpath([folder.absolute() for folder in folders]))
            raise no_results(where, nothing, f"Run them first: peftmark run SUITE. {REMEDY}")
        for folder in sorted(made.iterdir()):
            Store(made, folder.name).rebuild()
    found.suites = {folder.name: Store(to, folder.name).read() for folder in sorted(to.iterdir())}
    return found


def _of_suites(source: Path) -> Iterator[Path]:
    """The folders of suites that a source is or holds.

    Raises:
        UserError: it holds none.
    """
    folders = [source] if (source / "parts").is_dir() else sorted(source.glob("*"))
    found = [folder for folder in folders if (folder / "parts").is_dir()]
    if not found:
        what = "holds no results" if source.is_dir() else "is not a folder"
        raise UserError(
            f"{source} {what}",
            f"Name a results folder, or that of one suite in it, such as results/glue. {REMEDY}",
        )
    yield from found


def _bring(path: Path, made: Path, found: Merged) -> None:
    """One part of a source, as it is, into the new folder."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:  # a run beside this one has just set it aside
        return
    part = part_of(path, raw)
    if part.damage:
        found.damaged[path] = part.damage
    if part.older:
        found.older[path] = part.older
    if part.record is None:
        return
    folder = made / _suite(part.record, path) / "parts"
    to = folder / part_name(part.record, hashlib.sha256(raw).hexdigest())
    if to.exists():
        found.twice += 1
        return
    folder.mkdir(parents=True, exist_ok=True)
    with to.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    found.copied += 1


def _suite(record: Record, path: Path) -> str:
    """The suite of a row, as a name that stays in its folder."""
    name = record.job.suite
    if not SUITE_NAME.fullmatch(name):
        raise UserError(
            f"{path} is a row of suite {quoted(name)}, which no suite is called", REMEDY
        )
    return name
