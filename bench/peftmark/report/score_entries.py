"""Scores, verdicts and ratios as entries of a table."""

from __future__ import annotations

from dataclasses import replace

from peftmark.analysis.comparison import Difference
from peftmark.analysis.table import MEAN, Ratio, ResultTable, Score
from peftmark.catalog.methods import Cell
from peftmark.render import words
from peftmark.render.page import Entry, Fact


def averaged(table: ResultTable) -> str:
    """What an overall score is where there is no room for `ResultTable.averaged`."""
    kind = table.scale.kind
    if kind == "gain":
        return f"{table.scale.gain}, {MEAN}"
    return MEAN if kind == "value" else f"share of the way to perfect, {MEAN}"


def score_axis(table: ResultTable) -> str:
    """The overall score on an axis, which has no room for `ResultTable.averaged`."""
    return f"score, {MEAN}" if table.scale.kind == "value" else averaged(table)


def score_entry(score: Score, gap: Entry, metric: str = "", *, signed: bool = False) -> Entry:
    """Mean ± half-width with n, marked when incomplete; `gap` stands where there is no value.

    Args:
        metric: whose values they are; empty for what is on the scale of no one metric.
    """
    estimate = score.estimate
    if estimate is None:
        return gap
    count = (
        f"n = {estimate.n}" if score.complete else f"n = {estimate.n}/{score.planned} incomplete"
    )
    return Entry(words.plus_minus(estimate, metric, signed=signed), count, "number", estimate.mean)


def claimed(entry: Entry, fact: Fact) -> Entry:
    """The same with what it claims, where it has a figure or a verdict."""
    known = entry.kind == "number" or fact.verdict
    return replace(entry, fact=fact) if known else entry


def overall_entry(cell: Cell, score: Score, gap: Entry, metric: str) -> Entry:
    """A cell's score over all tasks."""
    shown = score_entry(score, gap, metric)
    return claimed(shown, Fact("score", words.title(cell), shown.sort))


def difference_fact(cell: Cell, against: Cell, found: Difference, task: str = "") -> Fact:
    """What is claimed of a cell's score less another's."""
    mean = found.comparison.estimate.mean
    names = words.title(cell), words.title(against)
    return Fact("difference", names[0], mean, names[1], task, found.verdict)


def with_note(entry: Entry, *notes: str) -> Entry:
    """The same with more in its small line; notes may be empty."""
    return replace(entry, note="; ".join(filter(None, (entry.note, *notes))))


def seeds_wanted(found: Difference) -> str:
    """How many seeds would decide a difference as large as the one seen."""
    if found.comparison.se is None:
        return "other seeds may differ"
    return words.seeds_that_decide(found.seeds)


def verdict_entry(found: Difference) -> Entry:
    """A verdict with its adjusted p, or with what would decide."""
    p = (
        f"p = {words.p_value(found.adjusted)}".replace("= <", "<")
        if found.adjusted is not None
        else ""
    )
    note = p
    if found.verdict == "undecided":
        # The plain interval beside it may seem to say otherwise.
        many = found.family > 1 and found.excludes_zero
        together = f" as one of {found.family} differences judged together" if many else ""
        note = f"{p}{together}; {seeds_wanted(found)}"
    order = ("lower", "no interval", "undecided", "equivalent", "higher").index(found.verdict)
    alone = "one seed" if found.comparison.n < 2 else "the same at every seed"
    return Entry(found.verdict, note or alone, sort=float(order))


def detectable_entry(found: Difference, metric: str = "") -> Entry:
    """The smallest true difference that the seeds would mostly show, if there can be one."""
    value = found.detectable
    if value is None:
        return words.missing("no spread to tell from")
    limits = found.score.limits
    if limits is not None and value > limits[1]:
        return Entry(words.nothing_shown(found.comparison.n, signed=True), kind="missing")
    return Entry(f"± {words.score(metric, value)}", kind="number", sort=value)


def ratio_entry(ratio: Ratio) -> Entry:
    """A ratio to the reference with its number of pairs when some are missing."""
    if ratio.value is None:
        return words.missing(ratio.reason)
    note = "" if ratio.pairs == ratio.planned else f"{ratio.pairs}/{ratio.planned} pairs"
    return Entry(words.times(ratio.value), note, "number", ratio.value)
