"""Files of a harness's tasks that the user wrote: whether something in them is code.

lm-eval's YAML may name Python with `!function` and `class`, which runs when a task is loaded. Tasks
of the installed lm-eval are code that the user installed; those of a folder may come from anywhere.
"""

from __future__ import annotations

from pathlib import Path

from peftmark.core.errors import UserError
from peftmark.core.files import refuse_special
from peftmark.core.shown import plain, quoted, short
from peftmark.core.strict_yaml import Said, said_in

TRUST = "Read what it names, and add --trust-code to run it."
MAX_BYTES = 4 * 2**20


def check_tasks(folder: Path | None, trusted: bool) -> None:
    """Look through a folder of tasks.

    Raises:
        UserError: there is no such folder, or something in it is code and not trusted.
    """
    if folder is None:
        return
    files = sorted(folder.rglob("*.yaml")) if folder.is_dir() else []
    if not files:
        raise UserError(
            f"--include {folder}: no folder with tasks (*.yaml)", "Name one, or leave it out."
        )
    for file in () if trusted else files:
        _check(file, folder)


def _check(file: Path, folder: Path) -> None:
    refuse_special(file)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        said = said_in(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = short(plain(" ".join(str(error).split())), 200)
        raise UserError(f"{file} can't be read: {why}", "Fix it or take it away.") from error
    for found in said:
        if (what := _code(found, file, folder)) is not None:
            raise UserError(f"{file}, line {found.line}: {what}", TRUST)


def _code(said: Said, file: Path, folder: Path) -> str | None:
    """What of a task's file is code, in words; None if this is data."""
    if said.tag:
        return f"{quoted(said.tag)} names Python that lm-eval would run"
    if said.key == "class":
        return f"class names Python that lm-eval would run: {quoted(said.value)}"
    if said.key == "include":
        other = (file.parent / said.value).resolve()
        if not other.is_relative_to(folder.resolve()) or other.suffix != ".yaml":
            return (
                f"include names a file that isn't one of the folder's tasks: {quoted(said.value)}"
            )
    return None
