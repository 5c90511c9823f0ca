"""Where the learning rates of a table's cells come from, in words beside its verdicts.

The evaluation rows only report where trials on other rows picked every rate. Elsewhere the suite
fixes them, and whoever chose them may have looked at the evaluation rows: that they came from other
trials is what the suite says, and no row here shows it.
"""

from __future__ import annotations

from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.render import words

FIXED = "fixed in the suite"
BY_TRIALS = "picked by trials on selection rows"


def by_trials(table: ResultTable) -> tuple[list[Cell], list[Cell]]:
    """The cells that train by steps: those whose every setting a finished trial tried, the rest."""
    tried = {(s.job.cell, s.job.task, s.job.recipe.key) for s in table.planned("tuning") if s.ok}
    trained = [c for c in table.cells if c.trains and table.of(c)]
    fixed = [
        c
        for c in trained
        if any((c, s.job.task, s.job.recipe.key) not in tried for s in table.of(c))
    ]
    return [c for c in trained if c not in fixed], fixed


def short(table: ResultTable) -> str:
    """Where the rates come from, in a few words; empty where nothing trains."""
    tuned, fixed = by_trials(table)
    if not fixed:
        return BY_TRIALS if tuned else ""
    if not tuned:
        return fixed_by(table)
    return f"{BY_TRIALS} for {words.some([words.title(c) for c in tuned])}, else {fixed_by(table)}"


def sentence(table: ResultTable) -> str:
    """The same with what it means for the scores, for a note; empty where nothing trains."""
    tuned, fixed = by_trials(table)
    if not tuned and not fixed:
        return ""
    start = f"Learning rates: {short(table)}"
    if not fixed:
        return f"{start}; the evaluation rows only report."
    unknown = "" if ":" in fixed_by(table) else "; which rows they were chosen on is not recorded"
    return (
        f"{start}{unknown}. No trials among these rows picked "
        f"{'those' if tuned else 'them'}, so these rows alone can't show that methods are equally "
        "tuned, and scores may flatter."
    )


def fixed_by(table: ResultTable) -> str:
    """That the suite fixes the rates, and whose they are where it says so."""
    told = dict.fromkeys(job.rates for job in table.jobs if job.rates.startswith(FIXED))
    return words.listing(list(told)) or FIXED
