"""That cells are not above a constant guess or a line without fine-tuning, as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.analysis.guess import Unbeaten, unbeaten
from peftmark.analysis.plain_lines import NotAbove, not_above
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import cell_title
from peftmark.render import words

MOST_NAMED = 4


def nobody(lost: Sequence[Unbeaten]) -> str:
    """Who isn't shown to beat a guess on some tasks: a line that trains nothing may do so."""
    return "No cell that trains" if any(one.others for one in lost) else "No cell"


def no_gain(table: ResultTable) -> str:
    """On which tasks no cell is shown to beat a constant guess; empty if on each one is."""
    found = unbeaten(table)
    if not found:
        return ""
    named = [f"{one.task} ({_against_guess(one)})" for one in found[:MOST_NAMED]]
    if len(found) > MOST_NAMED:
        named.append(words.plural(len(found) - MOST_NAMED, "more task"))
    there = "" if len(found) == len(table.tasks) else " there"
    return (
        f"{nobody(found)} is shown to beat a constant guess on {words.listing(named)}, so nothing "
        f"is recommended{there}."
    )


def in_the_mean(table: ResultTable) -> str:
    """That a mean over tasks rests on such tasks too, or on nothing else; empty if on none."""
    found = [one for one in unbeaten(table) if one.task in table.scale.tasks]
    if not found:
        return ""
    if len(found) == len(table.scale.tasks):
        return (
            f"{nobody(found)} is shown to beat a constant guess on any task, so no order is worth "
            "much."
        )
    tasks, who = words.some([one.task for one in found]), nobody(found)
    return (
        f"The mean over tasks has {tasks} in it, where n{who[1:]} is shown to beat a constant "
        "guess."
    )


def _against_guess(one: Unbeaten) -> str:
    best = f"best {cell_title(*one.best)}, {words.plus_minus(one.score, one.metric)}"
    if one.guess is None:
        return f"{best}; what a guess scores is not recorded"
    alone = " by one seed" if one.score.n == 1 else ""
    if one.alike:
        alone = f" by {words.plural(one.score.n, 'seed')} that are all alike"
    return f"{best}{alone}, guess {words.score(one.metric, one.guess)}"


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
