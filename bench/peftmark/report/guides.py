"""What guides advise, branch by branch, beside what the rows say to it."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.advice.branches import Advice
from peftmark.advice.guide_verdicts import Judged, judged
from peftmark.analysis.table import ResultTable
from peftmark.render import words
from peftmark.render.page import Column, Entry, EntryKind, Grid


def grids(table: ResultTable) -> tuple[Grid, ...]:
    """The branches that these rows say something to, and those they don't, folded."""
    found = judged(table)
    known = [one for one in found if one[1].word != "not measured"]
    left = [one for one in found if one[1].word == "not measured"]
    first = _grid("What guides advise, and what these rows say", known, note=_note(table))
    rest = _grid(f"{words.plural(len(left), 'branch', 'branches')} not measured here", left, True)
    return tuple(g for g in (first, rest) if g.rows)


def _note(table: ResultTable) -> str:
    scale = "" if table.jobs[0].scale == "full" else ", at reduced scale"
    return (
        "agree: every pair of cells that the advice names shows it, by a verdict over all pairs "
        "(Holm), an interval or an exact count. disagree: every pair shows the opposite. mixed: "
        "some one, some the other. not told apart: measured, and neither is shown. Guides speak of "
        "models with billions of parameters; a figure here holds for the model of this report "
        f"alone{scale}."
    )


def _grid(
    caption: str, found: Sequence[tuple[Advice, Judged]], folded: bool = False, note: str = ""
) -> Grid:
    columns = (
        Column("source"),
        Column("the guide says"),
        Column("measured here"),
        Column("what was tested, and the outcome"),
    )
    return Grid(caption, columns, tuple(_row(*one) for one in found), folded, note)


def _row(advice: Advice, told: Judged) -> tuple[Entry, ...]:
    source, _, part = advice.source.partition(", ")
    why = f"{advice.test.says}: {told.why}" if advice.test else told.why
    kind: EntryKind = "missing" if told.word == "not measured" else "text"
    return (
        Entry(source, part),
        Entry(f"if {advice.condition}: {advice.advice}"),
        Entry(told.word, told.seeds, kind),
        Entry(why),
    )
