"""What a results folder holds that can't be read, in words: a command never calls it empty."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from peftmark.core.errors import Exit, UserError
from peftmark.core.shown import plain
from peftmark.storage.store import Contents


def unread(contents: Contents) -> list[str]:
    """What can't be read and how many there are, one clause a kind; none if all can be."""
    found = [
        f"{_count(count, 'row')} of an older peftmark ({which}) can't be read"
        for which, count in sorted(Counter(contents.older.values()).items())
    ]
    if contents.damaged:
        path, why = next(iter(contents.damaged.items()))
        more = f", and {len(contents.damaged) - 1:,} more" if len(contents.damaged) > 1 else ""
        count = _count(len(contents.damaged), "part")
        found.append(f"{count} can't be read, being damaged ({plain(path.name)}: {why}{more})")
    return found


def together(several: Iterable[Contents]) -> Contents:
    """What cannot be read of several folders, as if it were one."""
    damaged: dict[Path, str] = {}
    older: dict[Path, str] = {}
    for contents in several:
        damaged |= contents.damaged
        older |= contents.older
    return Contents({}, 0, damaged, older)


def no_results(
    where: Path, contents: Contents, run: str, what: str = "results", code: Exit = Exit.USAGE
) -> UserError:
    """The error of a command that finds no rows to work on.

    Args:
        run: what a person should do about it, where there is nothing at all: "Run them first: ...".
        what: what was looked for.
    """
    clauses = unread(contents)
    if not clauses:
        return UserError(f"{where} holds no {what}", run, code=code)
    remedies = []
    if contents.older:
        remedies.append("Read the older rows with the peftmark that wrote them; they stay there.")
    if contents.damaged:
        remedies.append("Damaged parts are set aside by the next run, and their jobs run again.")
    return UserError(
        f"{where} holds no {what} that this peftmark can read: {'; '.join(clauses)}",
        " ".join([*remedies, re.sub("Run (them|some) first", "To measure again", run)]),
        code=code,
    )


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
