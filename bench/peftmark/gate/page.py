"""A gate as a page: the verdict, three lines why, four facts; everything else is folded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from peftmark.analysis.order import shown_order
from peftmark.analysis.scale import limits_of, of_difference
from peftmark.analysis.stats import Estimate
from peftmark.catalog.methods import Cell
from peftmark.gate.result import MARKS, CellResult, Finding, Gate
from peftmark.gate.result import Change as Moved
from peftmark.gate.show import meaning, moved, said, scores, side_text
from peftmark.render import words
from peftmark.render.changes import Change, ChangeChart
from peftmark.render.chart_specs import Mark
from peftmark.render.page import (
    Column,
    CostChart,
    Entry,
    Fact,
    FirstScreen,
    Grid,
    Page,
    Paragraph,
    Section,
    Sign,
    Tile,
    marks,
    shorten,
)
from peftmark.render.series import OTHER

MOST_REASONS = 3
ROOM = 420
"""Letters that the reasons share."""
MOST_NAMED = 3
SAME = 5e-4
"""Ratios nearer to 1 than this are shown as 1.000 and not drawn."""


def page(gate: Gate, cells: Sequence[Cell]) -> Page:
    """The whole page.

    Args:
        gate: what was found.
        cells: the cells of both sides, for their colours; a result knows their names alone.
    """
    named = {mark.label: mark for mark in marks(tuple(cells)).values()}
    order = [words.title(cell) for cell in sorted(cells, key=shown_order)]
    place = {title: i for i, title in enumerate(order)}
    known = sorted(gate.cells, key=lambda cell: place.get(cell.cell, len(place)))
    gate = replace(gate, cells=tuple(known))
    return Page(
        title=f"{gate.suite}, profile {gate.profile}: gate",
        facts=_facts(gate),
        finding=gate.sentence,
        alarms=(),
        warning="",
        notes=(),
        opening=(),
        sections=(_found(gate), _cells(gate), _tasks(gate), _sides(gate), _policy(gate)),
        links=(("the same as data", "gate.json"), ("as Markdown", "gate.md")),
        first=FirstScreen(
            scope=f"{gate.after.where} compared with {gate.before.where}, {gate.machine}",
            answer=gate.sentence,
            caveat=_caveat(gate),
            charts=_charts(gate, named),
            tiles=(_code(gate), _quality(gate), _costs(gate), _trust(gate)),
            reasons=_reasons(gate),
            legend="Change in",
        ),
    )


def _facts(gate: Gate) -> tuple[tuple[str, str], ...]:
    code = () if gate.code is None else (("exit code", f"{gate.code}: {meaning(gate.code)}"),)
    return (
        ("suite", gate.suite),
        ("profile", gate.profile),
        ("machine", gate.machine),
        *code,
        ("times", gate.timings),
    )


# --- the first screen -----------------------------------------------------------------------------


def _telling(gate: Gate) -> list[Finding]:
    return [f for f in gate.findings if f.kind != "note"]


def _reasons(gate: Gate) -> tuple[str, ...]:
    """Three lines why: the worst findings, those of one check together; without any what was looked
    at."""
    telling = _telling(gate)
    if telling:
        kinds: dict[tuple[str, str], list[Finding]] = {}
        for found in telling:
            kinds.setdefault((found.kind, found.check), []).append(found)
        told = list(kinds.values())[:MOST_REASONS]
        return tuple(_reason(alike, ROOM // len(told)) for alike in told)
    runs, same = (sum(getattr(c, name) for c in gate.cells) for name in ("runs", "identical"))
    tested = sum(c.change.p is not None for c in gate.cells)
    quality = (
        f"no drop is shown in the {tested} tested over seeds" if tested else "none had to be tested"
    )
    return (
        f"{same} of {words.plural(runs, 'run')} gave the baseline's bits: the same scores, losses "
        "and weights.",
        f"Quality of {words.plural(len(gate.cells), 'cell')}: {quality}.",
        "No count that the code decides changed, and no run failed or is missing.",
    )


def _reason(alike: Sequence[Finding], most: int) -> str:
    """The first of several findings of one check, in so many letters, and how many more."""
    more = f" (and {len(alike) - 1} more alike)" if len(alike) > 1 else ""
    return f"{shorten(said(alike[0]), most)}{more}"


def _caveat(gate: Gate) -> str:
    """How large a drop may be that is not seen, or that only this suite was looked at."""
    known = [c.change for c in gate.cells if c.change.detectable is not None]
    if not known:
        few = [c.change.seeds for c in gate.cells if c.change.seeds]
        if few and min(few) < FEWEST and any(c.verdict == "not tested" for c in gate.cells):
            return (
                f"{words.plural(min(few), 'seed')} can't be tested: a drop of quality may be there."
            )
        return "Only what this suite trains is looked at: another model or task may have moved."
    widest = max(known, key=lambda c: c.detectable or 0.0)
    most = of_difference(limits_of(widest.metric))
    if most is not None and (widest.detectable or 0.0) > most[1]:
        return "Of some cells no drop of quality would be seen: too few seeds, or too far apart."
    size = words.score(widest.metric, widest.detectable or 0.0)
    return f"A drop of quality below {size} may go unseen in some cell."


FEWEST = 3
"""Pairs of seeds below which nothing is tested, as `gate.quality` has it."""


def _code(gate: Gate) -> Tile:
    """What CI is told."""
    if gate.code is None:
        return Tile("Exit code", "none", "two sides are compared, and nothing is judged")
    return Tile("Exit code", str(gate.code), meaning(gate.code))


def _quality(gate: Gate) -> Tile:
    """Whose scores are shown to have moved."""
    moved_ones = {
        word: [c.cell for c in gate.cells if word in (c.verdict, *(t.verdict for t in c.tasks))]
        for word in ("worse", "better")
    }
    told = [f"{w}: {words.some(names, MOST_NAMED)}" for w, names in moved_ones.items() if names]
    tested = sum(c.change.p is not None for c in gate.cells)
    same = sum(c.verdict == "identical" for c in gate.cells)
    note = (
        f"{same} of {words.plural(len(gate.cells), 'cell')} identical, {tested} tested over seeds"
    )
    calm = "the same bits" if same == len(gate.cells) > 0 else "no drop is shown"
    return Tile("Quality", "; ".join(told) or calm, note)


def _costs(gate: Gate) -> Tile:
    """Memory and step time against the baseline, from the lowest to the highest cell."""
    told = []
    for word, read in RATIOS.values():
        known = [r for c in gate.cells if (r := read(c)) is not None]
        if known:
            ends = dict.fromkeys((_times(min(known)), _times(max(known))))
            told.append(f"{word} {' to '.join(ends)}")
    if not told:
        return Tile("Memory and time", "not compared", "other kinds of machine, or unknown")
    return Tile("Memory and time", ", ".join(told), "of the baseline's, by cell")


def _trust(gate: Gate) -> Tile:
    """One mark each for bits, missing runs and the procedure."""
    kinds = {f.kind for f in gate.findings}
    runs = sum(c.runs for c in gate.cells)
    signs = (
        Sign("bad", "the same code gave other numbers", "found")
        if "not deterministic" in kinds
        else Sign("care", "numbers changed, and nobody said why", "found")
        if "numbers changed" in kinds
        else Sign("good", "no run differs by the same code", "cells"),
        Sign("care", "runs failed or are missing", "found")
        if "incomplete" in kinds
        else Sign("good", f"all {words.plural(runs, 'run')} there", "cells"),
        Sign("care", "not all was asked for alike", "found")
        if "not comparable" in kinds
        else Sign("good", "the same was asked for", "sides"),
    )
    states = {sign.state for sign in signs}
    value = "no" if "bad" in states else "with care" if "care" in states else "yes"
    return Tile("Can it be trusted", value, signs=signs)


def _times(value: float) -> str:
    return f"{value:.3f}×"


RATIOS: Mapping[str, tuple[str, Callable[[CellResult], float | None]]] = {
    "memory": ("memory", lambda cell: cell.memory),
    "time": ("step time", lambda cell: cell.time),
}


# --- charts ---------------------------------------------------------------------------------------


def _charts(gate: Gate, named: Mapping[str, Mark]) -> tuple[CostChart, ...]:
    """What changed of each cell; what changed nowhere has no chart."""
    looks = [named.get(c.cell, Mark(c.cell, OTHER)) for c in gate.cells]
    found = []
    if any(c.change.difference for c in gate.cells):
        chart = ChangeChart(
            "score",
            _quality(gate).value[:1].upper() + _quality(gate).value[1:] + ".",
            "change of the score, better is +",
            0.0,
            "Lines: 95 % intervals over seeds.",
        )
        found.append(chart.of([_score(c, m) for c, m in zip(gate.cells, looks, strict=True)]))
    for key, (word, read) in RATIOS.items():
        known = [r for c in gate.cells if (r := read(c)) is not None]
        if any(abs(r - 1) > SAME for r in known):
            ends = " to ".join(dict.fromkeys((_times(min(known)), _times(max(known)))))
            finding = f"{word[:1].upper()}{word[1:]}: {ends} of the baseline's."
            chart = ChangeChart(key, finding, f"{word}, × the baseline's", 1.0)
            rows = zip(gate.cells, looks, strict=True)
            found.append(chart.of([_ratio(read(c), m) for c, m in rows]))
    return tuple(found)


def _score(cell: CellResult, mark: Mark) -> Change:
    change = cell.change
    if change.difference is None:
        return Change(mark, missing="not compared")
    half = None if change.low is None else change.difference - change.low
    told = cell.kind in ("regression", "improved")
    return Change(mark, (), Estimate(change.difference, half, change.seeds), told=told)


def _ratio(value: float | None, mark: Mark) -> Change:
    if value is None:
        return Change(mark, missing="not compared")
    return Change(mark, (), Estimate(value, None, 1), told=abs(value - 1) > SAME)


# --- tables ---------------------------------------------------------------------------------------


def _found(gate: Gate) -> Section:
    telling, notes = _telling(gate), len(gate.findings) - len(_telling(gate))
    lead = f"{words.plural(len(telling), 'finding')}, the worst first"
    lead += f", and {words.plural(notes, 'note')}." if notes else "."
    if not gate.findings:
        return Section("found", "Why?", "Nothing was found.", (), depth="card")
    rows = tuple(
        (
            Entry(f.cell or "all cells"),
            Entry(
                f"{MARKS[f.kind]} {f.kind}", "against the release" if f.against == "release" else ""
            ),
            Entry(f.sentence),
            Entry(f.check, kind="code"),
        )
        for f in gate.findings
    )
    columns = tuple(Column(title) for title in ("cell", "what it is", "what was found", "check"))
    grid = Grid("Every finding", columns, rows, filter=True)
    return Section("found", "Why?", lead, (grid,), depth="card")


def _cells(gate: Gate) -> Section:
    columns = (
        Column("cell"),
        Column("verdict"),
        Column("score", "before → after", numeric=True),
        Column("change", "better is +", numeric=True),
        Column("memory", "× before, lower is better", numeric=True),
        Column("step time", "× before, lower is better", numeric=True),
        Column("runs", numeric=True),
    )
    rows = tuple(
        (
            Entry(c.cell),
            _verdict(c.verdict, c.change, c.cell),
            *_scores(c.change, c.cell),
            _cost("memory", c.memory, c.cell),
            _cost("step time", c.time, c.cell),
            Entry(str(c.runs), f"{c.identical} identical", "number", float(c.runs)),
        )
        for c in gate.cells
    )
    verdicts = [c.verdict for c in gate.cells]
    counts = [f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)]
    lead = f"Of {words.plural(len(rows), 'cell')}: {words.listing(counts) or 'none'}."
    grid = Grid("Every cell", columns, rows)
    return Section("cells", "Which cells?", lead, (grid,), depth="card")


def _tasks(gate: Gate) -> Section:
    columns = (
        Column("cell"),
        Column("task"),
        Column("verdict"),
        Column("score", "before → after", numeric=True),
        Column("change", "better is +", numeric=True),
    )
    rows = tuple(
        (
            Entry(c.cell),
            Entry(t.task, words.metric_title(t.metric)),
            _verdict(t.verdict, t.change, c.cell, t.task),
            *_scores(t.change, c.cell, t.task),
        )
        for c in gate.cells
        for t in c.tasks
    )
    verdicts = [t.verdict for c in gate.cells for t in c.tasks]
    counts = [f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)]
    lead = f"On single tasks: {words.listing(counts) or 'nothing compared'}."
    grid = Grid("Every cell on every task", columns, rows, filter=True)
    return Section("tasks", "On which tasks?", lead, (grid,), depth="card")


def _fact(change: Moved, cell: str, task: str, verdict: str = "") -> Fact:
    return Fact("change", cell, change.difference, "the baseline", task, verdict)


def _verdict(text: str, change: Moved, cell: str, task: str = "") -> Entry:
    return Entry(text, fact=_fact(change, cell, task, text))


def _scores(change: Moved, cell: str, task: str = "") -> tuple[Entry, Entry]:
    if change.difference is None:
        lone = words.missing("not compared")
        return lone, lone
    fact = _fact(change, cell, task)
    return (
        Entry(scores(change), kind="number", sort=change.after),
        Entry(moved(change), kind="number", sort=change.difference, fact=fact),
    )


def _cost(what: str, value: float | None, cell: str) -> Entry:
    if value is None:
        return words.missing("not compared")
    return Entry(_times(value), "", "number", value, Fact(f"{what}, ratio", cell, value))


def _sides(gate: Gate) -> Section:
    sides = [("before", gate.before), ("after", gate.after)]
    sides += [("release", gate.release)] if gate.release is not None else []
    rows = tuple(
        (Entry(name), Entry(side_text(s)), Entry(s.finished_at or "unknown")) for name, s in sides
    )
    columns = tuple(Column(title) for title in ("side", "where it comes from", "finished"))
    lead = "What was compared with what, with the versions that differ."
    return Section(
        "sides", "Both sides", lead, (Grid("Both sides", columns, rows),), depth="appendix"
    )


def _policy(gate: Gate) -> Section:
    rows = tuple(
        (Entry(key, kind="code"), Entry(str(value) if value != [] else "none"))
        for key, value in gate.policy.items()
    )
    lead = "The keys of the policy as they were; docs/gate.md says what each means."
    grids = (Grid("Policy", (Column("key"), Column("value")), rows),) if rows else ()
    text = Paragraph("What is looked at, in which order and by which tests stands in docs/gate.md.")
    return Section("policy", "By which policy", lead, (*grids, text), depth="appendix")
