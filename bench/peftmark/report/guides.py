"""What guides advise, branch by branch, beside what the rows say to it."""

from __future__ import annotations

from peftmark.advice.branches import Advice
from peftmark.advice.guide_verdicts import Judged, judged
from peftmark.analysis.table import ResultTable
from peftmark.render.page import Column, Entry, EntryKind, Grid


def grid(table: ResultTable) -> Grid:
    """Every branch with a verdict; what these rows measure comes first."""
    found = sorted(judged(table), key=lambda two: two[1].word == "not measured")
    columns = (
        Column("source"),
        Column("the guide says"),
        Column("measured here"),
        Column("what was tested, and the outcome"),
    )
    scale = table.jobs[0].scale
    note = (
        "agree: every pair of cells that the advice names shows it, by a verdict over all pairs "
        "(Holm), an interval or an exact count. disagree: every pair shows the opposite. mixed: "
        "some one, some the other. not told apart: measured, and neither is shown. Guides speak of "
        "models with billions of parameters; a figure here holds for the model of this report alone"
        f"{', at reduced scale' if scale != 'full' else ''}."
    )
    rows = tuple(_row(advice, told) for advice, told in found)
    return Grid("What guides advise, and what these rows say", columns, rows, note=note)


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
