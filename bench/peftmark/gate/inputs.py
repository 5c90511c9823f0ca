"""What the user named as the other side: a baseline file, a folder of them, or other results."""

from __future__ import annotations

from pathlib import Path

from peftmark.core.errors import UserError
from peftmark.gate.baseline import missing, path_of, pinned_beside, read
from peftmark.gate.snapshot import Snapshot, of_folder


def other_side(against: Path, after: Snapshot) -> tuple[Snapshot, Snapshot | None]:
    """The baseline, and the pinned one that stands beside it.

    Args:
        against: a baseline file; a folder of baselines, from which the machine class picks; a
            suite's results folder; or a folder that holds the suite's.
        after: the results that are to be held against it.

    Raises:
        UserError: nothing there (as not comparable), a damaged baseline (as corrupt), or the very
            results themselves.
    """
    for folder in (against, against / after.suite):
        if (folder / "parts").is_dir():
            if after.results is not None and folder.resolve() == after.results.resolve():
                raise UserError(
                    f"{against} has the results themselves, which can't be compared with "
                    "themselves",
                    "Name a baseline (results/baselines) or another results folder.",
                )
            return of_folder(folder, after.profile), None
    path = against if not against.is_dir() else _pick(against, after.suite, after.machine)
    pinned = pinned_beside(path)
    return read(path), read(pinned) if pinned.is_file() else None


def _pick(folder: Path, suite: str, machine: str) -> Path:
    """The file of a machine class in `<folder>` or `<folder>/<suite>`."""
    direct = folder / f"{machine}.jsonl"
    path = direct if direct.is_file() else path_of(folder, suite, machine, pinned=False)
    if not path.is_file():
        raise missing(path)
    return path


def profile_of(against: Path) -> str | None:
    """The profile of a baseline file, which decides where the user names none.

    Raises:
        UserError: a damaged baseline.
    """
    return read(against).profile if against.is_file() else None


def a_side(path: Path) -> Snapshot:
    """One side of `peftmark compare`: a baseline file or a suite's results folder."""
    if path.is_file():
        return read(path)
    if not path.exists():
        raise UserError(f"there is no {path}", "Name a results folder of a suite, or a baseline.")
    return of_folder(path, None)
