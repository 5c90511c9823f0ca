"""Which claims hold: a verdict on each claim of the suite, and the rows it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.claims import Arithmetic, Claim, ClaimTest, Difference, Order, Ratio
from bench.claims.judging import KINDS, Kind, Part
from bench.claims.verdicts import Verdict, verdicts
from bench.report import words
from bench.report.page import Column, Entry, EntryKind, Grid, Section
from bench.table import ResultTable

KIND_OF_ENTRY: dict[Kind, EntryKind] = {"not comparable": "missing", "untestable": "missing"}


def section(table: ResultTable, claims: Sequence[Claim]) -> Section:
    """A verdict on each claim, then the trace of each to its rows.

    Args:
        table: the rows; something must be planned.
        claims: those that the suite names, at least one.
    """
    found = verdicts(table, claims)
    return Section("claims", "Which claims hold?", lead(found), (_grid(found), _trace(found)))


def lead(found: Sequence[Verdict]) -> str:
    """How many claims got which verdict, in a sentence."""
    order = {kind: i for i, kind in enumerate(KINDS)}
    texts = sorted({(order[v.kind], v.text) for v in found})
    parts = []
    for _, text in texts:
        n = sum(v.text == text for v in found)
        past = text.split()[0] in ("reproduced", "contradicted", "refuted", "confirmed")
        verb = ("was" if n == 1 else "were") if past else ("is" if n == 1 else "are")
        parts.append(f"{n} {verb} {text}")
    return f"Of {words.plural(len(found), 'claim')} {words.listing(parts)}."


def _grid(found: Sequence[Verdict]) -> Grid:
    columns = (
        Column("id"),
        Column("claim", "and where it stands, under which conditions"),
        Column("verdict", "by part, where it has several"),
        Column("measured", "with interval and n"),
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


def percent(level: float) -> str:
    """A confidence level, such as 99.29 %."""
    return f"{100 * level:.4g}\u00a0%"


def _row(verdict: Verdict) -> tuple[Entry, ...]:
    claim = verdict.claim
    several = len(verdict.parts) > 1
    parts = [f"{_name(p)}: {p.kind}" for p in verdict.parts] if several else []
    reasons = dict.fromkeys(text for p in verdict.parts for text in (p.reason, *p.notes) if text)
    settle = "; ".join(verdict.settle)
    nothing = "nothing is left to settle" if verdict.kind in KINDS[:2] else "not by a run"
    return (
        Entry(claim.id),
        Entry(claim.statement, source_text(claim)),
        Entry(verdict.text, "; ".join(parts), KIND_OF_ENTRY.get(verdict.kind, "text")),
        _measured(verdict, "; ".join(reasons)),
        Entry(settle or nothing),
    )


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
        Column("part", "and the figure it is held against"),
        Column("verdict"),
        Column("measured"),
        Column("why"),
        Column("jobs", "whose rows it rests on"),
    )
    rows = tuple(
        (
            Entry(verdict.claim.id),
            Entry(_name(part), claimed(part.test) if part.test is not None else ""),
            Entry(part.kind),
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


def source_text(claim: Claim) -> str:
    """Where a claim stands and under which conditions it was made."""
    places = (
        f"{s.title}, {s.where}" + (f" (arXiv {s.arxiv})" if s.arxiv else "") for s in claim.sources
    )
    setting = claim.setting
    conditions = {
        "model": setting.model, "tasks": setting.tasks, "budget": setting.budget,
        "selection": setting.selection, "scale": setting.scale,
    }  # fmt: skip
    stated = "; ".join(f"{k}: {v}" for k, v in conditions.items() if v != "not stated")
    silent = [name for name, value in conditions.items() if value == "not stated"]
    unsaid = f"not stated: {words.listing(silent)}" if silent else ""
    return "; ".join(filter(None, ("; ".join(places), stated, unsaid)))


def claimed(test: ClaimTest) -> str:
    """What a test holds a figure against, in words."""
    if test.untestable is not None:
        return "no test"
    if test.arithmetic is not None:
        return f"{test.arithmetic.expression} = {_paper(test.arithmetic.claimed, test.arithmetic)}"
    compared = test.compared
    where = f" on {words.listing(test.tasks)}" if test.tasks else ""
    cells = [words.title(cell) for cell in test.cells]
    if isinstance(compared, Order):
        best = test.measures()[0]
        return f"{best.title}{where}, best first: {', '.join(cells)}"
    assert compared is not None
    titles = [measure.title for measure in test.measures()]
    sign = " / " if isinstance(compared, Ratio) else " − "
    if len(set(titles)) == 1:
        figure = f"{titles[0]}{where}, {sign.join(cells)}"
    else:
        figure = sign.join(f"{t} of {c}" for t, c in zip(titles, cells, strict=True)) + where
    return f"{figure}: {bounds(test)}"


def bounds(test: ClaimTest) -> str:
    """The limits of a difference or ratio in words."""
    compared = test.compared
    if compared is None or isinstance(compared, Order):
        return ""
    low, high = compared.limits
    if math.isinf(high):
        return f"at least {_figure(low, test)}"
    if math.isinf(low):
        return f"at most {_figure(high, test)}"
    return f"{_figure(low, test)} to {_figure(high, test)}"


def measured(part: Part) -> str:
    """The figure of a part with interval and n; empty where there is none."""
    test = part.test
    if test is None:
        return ""
    count = f"{words.plural(part.seeds, 'seed')}, {words.plural(len(part.tasks), 'task')}"
    if part.pairs:
        near = [pair for pair in part.pairs if pair.neighbours]
        shown = sum(pair.shown is True for pair in near)
        total = words.plural(len(near), "neighbouring pair")
        return f"{shown} of {total} shown in this order ({count})"
    if part.effect is None:
        return ""
    if test.arithmetic is not None:
        return _paper(part.effect, test.arithmetic)
    figure = _figure(part.effect, test)
    if part.low is None or part.high is None:
        return f"{figure} (no interval; {count})"
    span = f"{_figure(part.low, test)} to {_figure(part.high, test)}"
    if not part.exact:
        return f"{figure} ({span}; {count})"
    if part.low == part.high:
        return f"{figure} (exact; {count})"
    return f"{figure} (exact, by task and seed {span}; {count})"


def _paper(value: float, paper: Arithmetic) -> str:
    exact = value == int(value) if math.isfinite(value) else False
    text = words.number(value, 0) if exact else words.short(value)
    if not exact and abs(value) < 1:
        text = words.number(value, 3)
    return f"{text} {paper.unit}".strip()


def _figure(value: float, test: ClaimTest) -> str:
    """A difference or ratio with as many digits as its limits need."""
    compared = test.compared
    assert isinstance(compared, Difference | Ratio)
    finite = [limit for limit in compared.limits if math.isfinite(limit)]
    digits = 3 if all(round(limit, 3) == limit for limit in finite) else 4
    if isinstance(compared, Ratio):
        return f"{words.number(value, digits)}×"
    if test.measures()[0].kind != "score":
        return words.short(value)
    return words.number(value, digits, signed=compared.to is not None)
