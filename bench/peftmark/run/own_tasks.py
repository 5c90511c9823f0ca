"""Tasks of the user's own for a run: read from their files, or as earlier rows have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from peftmark.catalog.own_metric import code_of
from peftmark.record.job import Job, Record
from peftmark.record.outcome import Outcome
from peftmark.sources.assets import default_cache
from peftmark.suite.expand import recorded_tasks
from peftmark.suite.load import Suite

PRIVATE = "texts of rows of one's own are kept only with --show-texts"

if TYPE_CHECKING:
    from peftmark.own.model import OwnFiles
    from peftmark.own.read import OwnRows


def read_own_tasks(
    suite: Suite, profile: str, records: Mapping[str, Record] | None = None
) -> tuple[Suite, dict[str, OwnRows]]:
    """The suite with its own tasks known, and the rows of those whose files were read: what the
    suite knows already isn't read again.

    Args:
        records: rows that tell the tasks without their files; None to read the files.

    Raises:
        UserError: a file that can't be read, or is not what the suite says; or settings that don't
            fit the rows.
    """
    names = [name for name in suite.own_tasks(profile) if name not in suite.own]
    if not names:
        return suite, {}
    seen = recorded_tasks(suite, profile, records or {})
    rows = {name: _read(suite, name) for name in names if name not in seen}
    return suite.with_tasks(seen | {name: found.task for name, found in rows.items()}), rows


def _read(suite: Suite, name: str) -> OwnRows:
    from peftmark.own.read import read_own

    found = read_own(name, suite.file.tasks[name], suite.places_of("task", name), default_cache())
    keys = [key for key in (found.task.metric, *found.task.also) if ":" in key]
    if not keys:
        return found
    # What decides a number is a part of the identity.
    return replace(found, task=replace(found.task, code="+".join(map(code_of, keys))))


def private(job: Job, outcome: Outcome) -> Outcome:
    """The outcome without what was written to rows of the user's own: it repeats them."""
    if job.own is None or not outcome.completions:
        return outcome
    reasons = outcome.null_reasons | {"completions": PRIVATE}
    return replace(outcome, completions=(), null_reasons=reasons)


def notes_on(read: Mapping[str, OwnRows | OwnFiles]) -> Iterator[str]:
    """What a person should know of tasks or models before a run."""
    for name, found in read.items():
        for note in found.notes:
            yield f"{name}: {note}"
