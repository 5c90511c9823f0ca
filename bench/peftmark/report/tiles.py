"""Four facts beside the first chart: what to pick, its price, what is open, what to trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peftmark.advice.candidates import Candidate, points_text
from peftmark.advice.recommend import Answer
from peftmark.advice.trade import MEMORY, PARAMETERS, TIME, Cost, Front
from peftmark.analysis.comparison import against_reference
from peftmark.analysis.floor import below_floor
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.render import words
from peftmark.render.page import Sign, State, Tile
from peftmark.report.validity import Findings

MOST_NAMED = 4


def tiles(
    table: ResultTable,
    answers: Mapping[str, Answer],
    fronts: list[Front],
    findings: Findings,
) -> tuple[Tile, ...]:
    """The facts, in their order."""
    first, picked = pick(answers)
    return (first, price(table, fronts, picked), undecided(table), trust(table, findings))


def pick(answers: Mapping[str, Answer]) -> tuple[Tile, tuple[Cell, ...]]:
    """What is shown to keep the best score for least memory, or why nothing is; and its cells."""
    title, answer = "What to pick", next(iter(answers.values()))
    if answer.best is None or not answer.picks:
        return Tile(title, "nothing yet", " ".join(answer.reasons)), ()
    first = answer.picks[0]
    if answer.wish.max_drop is None:
        return Tile(title, first.title, "the highest mean score"), (first.cell,)
    if answer.verdict == "fits" and first.keeps != "best":
        least = "least memory of what is shown to lose at most a point"
        return Tile(title, first.title, least), (first.cell,)
    best = words.title(answer.best)
    top = next((c for c in (*answer.picks, *answer.others) if c.cell == answer.best), None)
    if top is not None and top.low:
        return Tile(title, "nothing yet", f"{best} has the highest mean and is {top.low}"), ()
    dear = top.figures["memory"] if top else None
    close = [
        c
        for c in answer.picks
        if c.perhaps
        and c.behind is not None
        and dear is not None
        and (c.figures["memory"] or dear) < dear
    ]
    if not close:
        rivals = [c for c in (*answer.picks, *answer.others) if c.trains and not c.low]
        cheapest = dear is not None and all((c.figures["memory"] or 0) >= dear for c in rivals)
        alone = (
            "nothing that takes less memory is above the quality floor"
            if cheapest
            else "nothing that takes less memory is shown to come close"
        )
        return Tile(title, best, f"the highest mean; {alone}"), (answer.best,)
    near = max(close, key=lambda c: c.behind.estimate.mean if c.behind else 0.0)
    note = f"{near.title} takes less memory and {_away(near)}"
    return Tile(title, f"{near.title} or {best}", note), (near.cell, answer.best)


def _away(near: Candidate) -> str:
    """How far a cell is below the best one, which its seeds leave open."""
    mean, seeds = near.behind.estimate.mean if near.behind else 0.0, near.seeds
    if near.behind is not None and near.behind.p == 1.0 and near.behind.se is None:
        return f"scored the same on {words.plural(seeds, 'seed')}"
    text = points_text(mean)
    away = f"{text} it" if text.endswith("from") else text
    return f"is {away}, which {words.plural(seeds, 'seed')} can't tell from chance"


def price(table: ResultTable, fronts: list[Front], picked: Sequence[Cell]) -> Tile:
    """What the cells to pick cost; without any the reference, and beside a single one it too."""
    by_cost = {f.cost.key: {s.cell: s.cost for s in f.spots} for f in fronts}
    full = [c for c in table.cells if c.method == "full"]
    first, *others = dict.fromkeys([*picked, table.reference, *full])
    priced = next((f.cost for f in fronts if f.cost.key == "money" and f.spots), PARAMETERS)
    every = (MEMORY, TIME, priced)
    costs = [c for c in every if first in by_cost.get(c.key, {})]
    mine = ", ".join(_cost(c, by_cost[c.key][first]) for c in costs)
    title, name = "What it costs", words.title(first)
    if not mine:
        return Tile(title, "not measured", f"no cost of {name} was recorded on every task")
    note = f"{name}, mean over tasks"
    other = next((c for c in others if c in by_cost.get("memory", {})), None)
    if other is not None:
        theirs = ", ".join(
            _cost(c, by_cost[c.key][other]) for c in costs if other in by_cost[c.key]
        )
        note += f"; {words.title(other)}: {theirs}"
    return Tile(title, mine, note)


def _cost(cost: Cost, value: float) -> str:
    if cost is not PARAMETERS:
        return cost.text(value)
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if value >= size / 10:
            return f"{words.short(value / size)} {name} parameters"
    return f"{cost.text(value)} parameters"


def undecided(table: ResultTable) -> Tile:
    """Cells that these seeds can't tell from the reference."""
    title, floor = "What can't be told apart", below_floor(table)
    found = {c: d for c, d in against_reference(table).items() if c not in floor}
    name = words.title(table.reference)
    open_ones = [c for c, d in found.items() if d.verdict in ("undecided", "no interval")]
    if not found:
        low = any(c in floor for c in table.others)
        above = " above the quality floor" if low else ""
        return Tile(title, words.MISSING, f"no other cell{above} has a score to compare")
    if not open_ones:
        return Tile(title, "nothing", f"every cell is decided against {name}")
    wanted = [n for c in open_ones if (n := found[c].seeds) is not None]
    note = f"from {name}"
    if wanted:
        note += f"; {words.seeds_that_decide(*wanted)}"
    return Tile(title, words.some(_titles(open_ones), MOST_NAMED), note)


def _titles(cells: list[Cell]) -> list[str]:
    return [words.title(cell) for cell in cells]


def trust(table: ResultTable, findings: Findings) -> Tile:
    """One mark each for the repeated job, what looks wrong, and what failed."""
    signs = (_repeated(findings), _flagged(findings), _failed(table))
    worst = next(s for s in ("bad", "care", "good") if any(sign.state == s for sign in signs))
    value = {"bad": "no", "care": "with care", "good": "yes, as far as is checked"}[worst]
    return Tile("Can it be trusted", value, signs=signs)


def _repeated(findings: Findings) -> Sign:
    repeat = findings.repeat
    if repeat is None:
        return Sign("care", "no job was repeated", "validity")
    state: State = {"same": "good", "different": "bad"}.get(repeat.verdict, "care")  # type: ignore[assignment]
    text = {
        "same": "a repeat gave the same bits",
        "different": "a repeat gave other numbers",
        "not run": "the repeat has not run yet",
    }.get(repeat.verdict, "the repeat can't be compared")
    return Sign(state, text, "validity")


def _flagged(findings: Findings) -> Sign:
    flagged = {flag.job.job_id for flag in findings.flags}
    if not flagged:
        return Sign("good", "no run looks wrong", "validity")
    # A run that collapsed is a run of its method; two names for one method are a fault.
    state: State = "bad" if findings.counts["twins"] else "care"
    return Sign(state, f"{words.plural(len(flagged), 'run')} flagged", "validity")


def _failed(table: ResultTable) -> Sign:
    planned = len(table.slots)
    if failed := table.failed:
        return Sign("care", f"{failed} of {words.plural(planned, 'run')} failed", "coverage")
    if table.left:
        return Sign("care", f"{table.left} of {planned} not run yet", "coverage")
    return Sign("good", f"all {words.plural(planned, 'run')} finished", "coverage")
