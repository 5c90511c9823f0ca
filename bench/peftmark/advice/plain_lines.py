"""That cells are not above a line that needs no fine-tuning, as a sentence."""

from __future__ import annotations

from peftmark.analysis.plain_lines import NotAbove, not_above
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import cell_title
from peftmark.render import words

MOST_NAMED = 4


def sentence(table: ResultTable) -> str:
    """Which cells are not above such a line on a task, by their means; empty if all are, or if
    there is no line to hold them against. Of many pairs the furthest is named."""
    found = not_above(table)
    if not found:
        return ""
    if len(found) > MOST_NAMED:
        named = f"{len(found):,} pairs of cell and task, furthest {_one(found[0])}"
    else:
        named = "; ".join(map(_one, found))
    return (
        f"No better than a line that needs no fine-tuning, by mean score: {named}. These are "
        "means alone; no test stands behind them."
    )


def _one(one: NotAbove) -> str:
    basis = words.plural(one.seeds, "shared seed") if one.seeds else "no shared seed"
    return (
        f"{cell_title(*one.cell)} on {one.task} ({words.score(one.metric, one.mine)}, "
        f"{cell_title(*one.line)} {words.score(one.metric, one.theirs)}, {basis})"
    )
