"""Trained adapters on disk: a folder each, which is there whole or not at all.

Layout of `results/<suite>/adapters/`:

    <task>/<cell>-seed<n>-<job>.<attempt>/   the files, README.md and peftmark.json
    .incoming/                               what jobs leave; emptied at every start of a run
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from peftmark.catalog.methods import cell_title
from peftmark.core.errors import UserError
from peftmark.core.files import sync
from peftmark.core.hashes import sha256_file
from peftmark.record.kept import NOTES, Kept, Unreadable

CARD = "README.md"
ID_DIGITS = 8
LONGEST_SLUG = 60


def slug(text: str) -> str:
    """A text as part of a file's name: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST_SLUG] or "x"


class Adapters:
    """The kept adapters of one suite.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / ".incoming"

    def sweep(self) -> None:
        """Remove what a run that was killed left half done."""
        shutil.rmtree(self.incoming, ignore_errors=True)

    def entries(self) -> dict[Path, Kept]:
        """Every kept adapter by its folder; one that can't be read is passed over."""
        found = {}
        for path in sorted(self.folder.glob(f"[!.]*/*/{NOTES}")):
            with suppress(OSError, Unreadable, UnicodeDecodeError):
                found[path.parent] = Kept.from_json(path.read_text(encoding="utf-8"))
        return found

    def place(self, kept: Kept) -> Path:
        """Where an adapter lies."""
        job = kept.job
        name = f"{slug(cell_title(*job.cell))}-seed{job.seed}-{job.job_id[:ID_DIGITS]}"
        return self.folder / slug(job.task) / f"{name}.{kept.attempt}"

    def take(self, left: Path, kept: Kept, card: str) -> Path:
        """Put what a job left in its place, with its note and its card.

        Raises:
            OSError: it can't be written; nothing of it is in its place then.
        """
        place = self.place(kept)
        paths = sorted(path for path in left.rglob("*") if path.is_file())
        names = {path.relative_to(left).as_posix(): path for path in paths}
        own = {name: sha256_file(path) for name, path in names.items() if name not in (NOTES, CARD)}
        kept = replace(kept, files=own)
        (left / NOTES).write_text(kept.to_json(), encoding="utf-8")
        (left / CARD).write_text(card, encoding="utf-8")
        for path in sorted(left.rglob("*")):
            if path.is_file():
                sync(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        # Of an attempt that a killed run stored no row of.
        shutil.rmtree(place, ignore_errors=True)
        os.replace(left, place)
        sync(place.parent)
        return place

    def check(self, folder: Path, kept: Kept) -> None:
        """Hold a kept adapter's files against what they were when they were kept.

        Raises:
            UserError: one is missing, or another than what was trained.
        """
        for name, expected in kept.files.items():
            path = folder / name
            fault = "" if path.is_file() else "is missing"
            if not fault and sha256_file(path) != expected:
                fault = "is not what was trained: other bytes"
            if fault:
                job = kept.job
                raise UserError(
                    f"{path} {fault}",
                    f"Train it again: peftmark run {job.suite} --profile {job.profile} --again "
                    f"--job {job.job_id}",
                )

    def remove(self, folder: Path) -> None:
        """Remove a kept adapter; what can't be removed at once is no adapter any more."""
        self.incoming.mkdir(parents=True, exist_ok=True)
        gone = self.incoming / f"{folder.name}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()

    def tidy(self) -> None:
        """Remove the folder for what jobs leave, and an empty one for all."""
        self.sweep()
        with suppress(OSError):
            self.folder.rmdir()
