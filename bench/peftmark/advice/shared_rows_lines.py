"""That tasks share evaluation rows, in words beside a mean over tasks."""

from __future__ import annotations

from peftmark.analysis.shared_rows import families
from peftmark.analysis.table import ResultTable
from peftmark.render import words


def clause(table: ResultTable) -> str:
    """Which tasks of the mean share evaluation rows; empty if none do."""
    found = families(table, table.scale.tasks)
    return "; ".join(f"{words.listing(family)} share evaluation rows" for family in found)


def sentence(table: ResultTable) -> str:
    """The same with what it means for a mean over tasks."""
    text = clause(table)
    if not text:
        return ""
    return (
        f"{text}: those texts weigh more than once in the mean over tasks, and what one of these "
        "tasks shows is no independent evidence beside the other."
    )
