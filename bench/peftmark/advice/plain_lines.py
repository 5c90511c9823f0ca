"""That cells are not above a line that needs no fine-tuning, as a sentence."""

from __future__ import annotations

from peftmark.analysis.plain_lines import NotAbove, not_above
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import cell_title
from peftmark.render import words

MOST_NAMED = 4


def sentence(table: ResultTable) -> str:
    """Which cells are not above such a line on a task, by their means; empty if all are, or if
    there is no line to hold them against."""
    found = not_above(table)
    if not found:
        return ""
    named = "; ".join(_one(one) for one in found[:MOST_NAMED])
    rest = len(found) - MOST_NAMED
    more = f"; and {words.plural(rest, 'more pair')} of cell and task" if rest > 0 else ""
    return (
        f"Not above a line that needs no fine-tuning, by mean score: {named}{more}. These are "
        "means alone; no test stands behind them."
    )


def _one(one: NotAbove) -> str:
    basis = words.plural(one.seeds, "shared seed") if one.seeds else "no shared seed"
    return (
        f"{cell_title(*one.cell)} on {one.task} ({words.number(one.mine, 3)}, "
        f"{cell_title(*one.line)} {words.number(one.theirs, 3)}, {basis})"
    )
