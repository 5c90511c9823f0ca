"""Which claims hold: a verdict on each claim of the suite, and the rows it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.analysis.table import ResultTable
from peftmark.claims.ledger import Claim
from peftmark.claims.part import KINDS, Kind, Part
from peftmark.claims.verdicts import Verdict, verdicts
from peftmark.claims.wording import claimed, lead, measured, percent, source_text
from peftmark.render import words
from peftmark.render.page import Column, Entry, EntryKind, Grid, Section

KIND_OF_ENTRY: dict[Kind, EntryKind] = {"not comparable": "missing", "untestable": "missing"}


def section(table: ResultTable, claims: Sequence[Claim]) -> Section:
    """A verdict on each claim, then the trace of each to its rows.

    Args:
        table: the rows; something must be planned.
        claims: those that the suite names, at least one.
    """
    found = verdicts(table, claims)
    return Section("claims", "Which claims hold?", lead(found), (_grid(found), _trace(found)))


def _grid(found: Sequence[Verdict]) -> Grid:
    columns = (
        Column("id"),
        Column("claim", "and where it stands, under which conditions"),
        Column("verdict", "by part, where it has several"),
        Column("measured", "with interval and n"),
        Column("unlike the source", "and where the learning rates come from"),
        Column("what would settle it"),
    )
    return Grid(
        "Claims and verdicts",
        columns,
        tuple(_row(verdict) for verdict in found),
        note=f"{_levels(found)}Intervals cover the seeds, not the choice of evaluation rows.",
    )


def _levels(found: Sequence[Verdict]) -> str:
    levels = {v.level for v in found if v.level is not None}
    if not levels:
        return ""
    return (
        f"Each interval has level {percent(max(levels))}, so that all of them hold together with "
        "95\u00a0% confidence. "
    )


def _row(verdict: Verdict) -> tuple[Entry, ...]:
    claim = verdict.claim
    several = len(verdict.parts) > 1
    parts = [f"{_name(p)}: {p.text}" for p in verdict.parts] if several else []
    reasons = dict.fromkeys(text for p in verdict.parts for text in (p.reason, *p.notes) if text)
    settle = "; ".join(verdict.settle)
    nothing = "nothing is left to settle" if verdict.kind in KINDS[:2] else "not by a run"
    return (
        Entry(claim.id),
        Entry(claim.statement, source_text(claim)),
        Entry(verdict.text, "; ".join(parts), KIND_OF_ENTRY.get(verdict.kind, "text")),
        _measured(verdict, "; ".join(reasons)),
        _differs(verdict),
        Entry(settle or nothing),
    )


def _differs(verdict: Verdict) -> Entry:
    """What was not run as the source has it."""
    rates = f"learning rates: {verdict.rates}" if verdict.rates else ""
    if verdict.differs:
        return Entry("; ".join(verdict.differs), rates)
    return Entry("nothing that is stated", rates) if rates else words.missing("no run was compared")


def _name(part: Part) -> str:
    return part.test.part if part.test is not None else "claim"


def _measured(verdict: Verdict, reasons: str) -> Entry:
    several = len(verdict.parts) > 1
    shown = [
        f"{_name(part)}: {text}" if several else text
        for part in verdict.parts
        if (text := measured(part))
    ]
    if not shown:
        return words.missing(reasons)
    return Entry("; ".join(shown), reasons)


def _trace(found: Sequence[Verdict]) -> Grid:
    columns = (
        Column("claim"),
        Column("part", "and the figure it is compared with"),
        Column("verdict"),
        Column("measured"),
        Column("why"),
        Column("jobs", "whose rows it rests on"),
    )
    rows = tuple(
        (
            Entry(verdict.claim.id),
            Entry(_name(part), claimed(part.test) if part.test is not None else ""),
            Entry(part.text),
            Entry(text) if (text := measured(part)) else words.missing("no figure"),
            Entry("; ".join(filter(None, (part.reason, *part.notes))) or "by the rule above"),
            Entry(" ".join(part.jobs), f"{words.plural(len(part.jobs), 'job')}", "code")
            if part.jobs
            else words.missing("no row was needed or there is none"),
        )
        for verdict in found
        for part in verdict.parts
    )
    return Grid(
        "The rows behind each verdict",
        columns,
        rows,
        folded=True,
        note="Reproduced: the whole interval fits the claim. Contradicted: none of it does. "
        "Undecided: neither, or runs are missing. A claim is reproduced only if all its parts are. "
        "The commands that run jobs again stand at the end of the report.",
    )


# --- in words -----------------------------------------------------------------------------------
