"""Which method to pick: one sentence for each standard constraint, its evidence, and guides."""

from __future__ import annotations

import math

from peftmark.advice import training_lines
from peftmark.advice.answer import headline
from peftmark.advice.candidates import (
    Candidate,
    Wish,
    of_a_task,
    ran_out,
    short_standing,
    to_the_best,
)
from peftmark.advice.recommend import Answer, recommend
from peftmark.advice.trade import Cost, fault, point
from peftmark.analysis.floor import LITTLE, below_floor
from peftmark.analysis.scale import POINT
from peftmark.analysis.table import ResultTable
from peftmark.core.amounts import Price
from peftmark.render import words
from peftmark.render.chart_specs import DotRow, Dots
from peftmark.render.page import (
    Block,
    Column,
    Entry,
    Fact,
    Figure,
    Grid,
    Paragraph,
    Section,
    marks,
)
from peftmark.report import cell_selection, guides, missing, score_entries

MAX_DROP = 1.0
"""Points below the best measured score that the standard constraints allow."""

MOST_STEPS = 5
"""Cells named for a memory limit: the cheapest ones and the best."""

_SHORT = {
    "memory": "the least memory",
    "parameters": "the fewest parameters",
    "time": "the fastest training",
}


def answers_of(table: ResultTable, price: Price | None = None) -> dict[str, Answer]:
    """Answers to the standard constraints, from the rows of this report alone; where no drop can
    be given in points, to the highest score."""
    if not table.scale.in_points:
        return {"score": recommend(table, Wish(price=price))}
    return {
        key: recommend(table, Wish(max_drop=MAX_DROP, least=key, price=price)) for key in _SHORT
    }


def section(table: ResultTable, answers: dict[str, Answer]) -> Section:
    """The answers with their evidence, and what guides say."""
    first = next(iter(answers.values()))
    in_points = table.scale.in_points
    blocks: list[Block] = [
        Paragraph(f"For {_SHORT[key]}: {headline(answer)}")
        for key, answer in answers.items()
        if in_points
    ]
    if first.best is not None:
        left = set(table.tasks) - set(first.table.tasks)
        scope = words.listing(list(first.table.tasks)) if left else ""
        blocks.append(_evidence(answers if in_points else {"memory": first}, scope))
    blocks += guides.grids(table)
    lead = _lead(answers) if in_points else headline(first)
    lead = " ".join(filter(None, (lead, by_limit(first))))
    shown = _picture(first)
    return Section("choice", "Which should I pick?", lead, tuple(blocks), shown)


def _lead(answers: dict[str, Answer]) -> str:
    first = next(iter(answers.values()))
    if first.best is None:
        return headline(first)
    names = {
        key: a.picks[0].title if a.verdict == "fits" and a.cost is not None else ""
        for key, a in answers.items()
    }
    known = {key: name for key, name in names.items() if name}
    if not known:
        return "No cell is shown to stay within one point of the best, so nothing is picked."
    if all(answers[key].picks[0].keeps == "best" for key in known):
        return (
            f"Nothing cheaper is shown to stay within one point of {next(iter(known.values()))}, "
            f"the best measured score.{_nearest(answers)}"
        )
    if len(set(known.values())) == 1 and len(known) == len(names):
        return (
            f"{next(iter(known.values()))}, whether memory, parameters or time is short, if one "
            "point below the best measured score is allowed."
        )
    parts = [f"{name} for {_SHORT[key]}" for key, name in known.items()]
    return f"{words.listing(parts)}, if one point below the best measured score is allowed."


def by_limit(answer: Answer) -> str:
    """For any memory limit the cell with the highest mean that fits; empty where that isn't known.

    Limits are held to the largest task, as `recommend` does.
    """
    cost = answer.wish.costs["memory"]
    found = [
        (size, -c.score.mean, c)
        for c in (*answer.picks, *answer.others)
        if c.trains and not c.low and not ran_out(answer.table, c.cell) and c.score is not None
        if (size := c.largest[cost.key]) is not None
    ]
    steps: list[str] = []
    highest = math.inf
    for size, below, c in sorted(found, key=lambda one: one[:2]):
        if below < highest:
            highest = below
            steps.append(f"{c.title} from {cost.text(size)}")
    if not steps or answer.best is None or fault(answer.table, cost):
        return ""
    where = of_a_task(answer.table)
    if len(steps) > MOST_STEPS:
        steps = [*steps[:3], f"{len(steps) - 4} more", steps[-1]]
    return f"Under a memory limit, the highest mean that fits: {words.listing(steps)}{where}."


def _nearest(answers: dict[str, Answer]) -> str:
    """The cheaper cell that comes closest without being shown to; empty without one."""
    answer = next(iter(answers.values()))
    cells = [c for c in answer.picks if c.keeps == "possible" and c.behind is not None]
    if not cells:
        return ""
    best = max(cells, key=lambda c: c.behind.estimate.mean if c.behind else 0.0)
    return f" {best.title} comes closest, at {short_standing(best)} points."


def _picture(answer: Answer) -> tuple[Figure, ...]:
    """Every cell held against the best, with the line of what may be lost; empty without one."""
    if answer.best is None:
        return ()
    floor, table = below_floor(answer.table), answer.table
    look, kept = marks(table.cells), cell_selection.picks(table)
    found = {c.cell: c for c in (*answer.picks, *answer.others)}
    drawn = [c for cell in kept if cell not in floor and (c := found[cell]).behind is not None]
    if not drawn:
        return ()
    best = words.title(answer.best)
    rows = tuple(DotRow(look[c.cell], (), c.behind.estimate) for c in drawn if c.behind is not None)
    drop = answer.wish.max_drop
    line, text = (-drop * POINT, f"{drop:g} point lower") if drop else (0.0, best)
    drawing = Dots(rows, f"score less that of {best}", line, text)
    note = f"Mean and 95\u00a0% interval over seeds, paired. 0 is {best}, the highest mean."
    if left := [words.title(c) for c in table.cells if c in floor]:
        note += f" Not drawn, below the quality floor: {words.some(left)}."
    note = f"{note} {cell_selection.left_out(table, len(kept), 'the evidence')}".strip()
    return (Figure("to-the-best", _standing(drawn, answer), drawing, note),)


def _standing(drawn: list[Candidate], answer: Answer) -> str:
    """Which cells are shown to stay near the best, and which are shown to lose more."""
    names = {k: [c.title for c in drawn if c.keeps == k] for k in ("shown", "possible", "dropped")}
    if answer.wish.max_drop is None:
        return f"Every cell against {words.title(answer.best) if answer.best else words.MISSING}."
    parts = [f"within a point: {words.some(names['shown']) or 'none shown'}"]
    parts += [f"undecided: {words.some(names['possible'])}"] if names["possible"] else []
    parts += (
        [f"more than a point lower: {words.some(names['dropped'])}"] if names["dropped"] else []
    )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _evidence(answers: dict[str, Answer], scope: str) -> Grid:
    """Every cell held against the best.

    Args:
        scope: the tasks that count, where they are not all of the report's.
    """
    answer = next(iter(answers.values()))
    away = to_the_best(answer.table.scale.in_points)
    columns = (
        Column("cell"),
        Column("score", score_entries.averaged(answer.table), numeric=True),
        Column(away, "paired, 95\u00a0% interval", numeric=True),
        *(
            Column(c.title, "mean over tasks; largest of a task", numeric=True)
            for c in answer.wish.costs.values()
        ),
    )
    found = {c.cell: c for c in (*answer.picks, *answer.others)}
    rows = tuple(_row(answer.table, found[cell], answers, scope) for cell in answer.table.cells)
    best = words.title(answer.best) if answer.best else words.MISSING
    within = (
        " within one point: shown at the level of all pairs (Holm). undecided: not shown."
        if answer.table.scale.in_points
        else ""
    )
    note = (
        f"The best measured score is that of {best}.{within} For your own limits: "
        "peftmark recommend."
    )
    return Grid("The evidence", columns, rows, note=note)


def _row(
    table: ResultTable, c: Candidate, answers: dict[str, Answer], scope: str
) -> tuple[Entry, ...]:
    if c.score is None:
        gap = words.missing(", ".join(c.unknown))
        score, behind = gap, gap
    else:
        count = f"n = {c.seeds}" + ("" if c.ok == c.jobs else f"; {c.ok} of {c.jobs} jobs ok")
        score = Entry(words.plus_minus(c.score, table.scale.metric), count, "number", c.score.mean)
        score = score_entries.with_note(score, training_lines.saw(table, c.cell))
        mean = c.behind.estimate.mean if c.behind else 0.0
        behind = Entry(
            short_standing(c), _within(c, answers), "number", mean, _fact(c, answers, scope)
        )
    first = next(iter(answers.values()))
    costs = (_cost(table, c, cost, scope) for cost in first.wish.costs.values())
    return (Entry(c.title), score, behind, *costs)


def _cost(table: ResultTable, c: Candidate, cost: Cost, scope: str) -> Entry:
    """A cell's cost as everywhere, the mean over tasks, and the largest, which limits are held
    against."""
    largest = c.largest[cost.key]
    at = point(table, c.cell, cost)
    if largest is None or at is None:
        return words.missing(_no_cost(table, c, cost))
    fact = Fact(cost.figure, c.title, at.cost, task=scope)
    note = "" if len(table.tasks) == 1 else f"largest {cost.text(largest)}"
    return Entry(cost.text(at.cost), note, "number", at.cost, fact)


def _fact(c: Candidate, answers: dict[str, Answer], scope: str) -> Fact | None:
    """What is claimed of a cell's score less the best one's."""
    best = next(iter(answers.values())).best
    if c.behind is None or best is None:
        return None
    verdict = "lower" if c.keeps == "dropped" else ""
    mean, other = c.behind.estimate.mean, words.title(best)
    return Fact("difference", c.title, mean, other, scope, verdict)


def _no_cost(table: ResultTable, c: Candidate, cost: Cost) -> str:
    """Why a cell lacks a figure, where its rows say so."""
    rows = [s.record for s in table.of(c.cell) if s.ok and s.record and s.value(cost.read) is None]
    told = missing.reason(rows, cost.name)
    return "not recorded in every run" if told == "not recorded" else told


def _within(c: Candidate, answers: dict[str, Answer]) -> str:
    """Whether a cell stays within one point, and what it is picked for."""
    if not c.trains:
        return f"{'needs no fine-tuning' if c.cell.fits else 'trains nothing'}, so it is no pick"
    if c.low:
        return f"{c.low} to be a pick" if c.low == LITTLE else f"{c.low}, so no pick"
    kept = {
        "best": "",
        "not asked": "",
        "shown": "within one point",
        "dropped": "more than one point",
    }
    picked = [
        _SHORT[key]
        for key, a in answers.items()
        if a.verdict == "fits"
        and a.cost is not None
        and a.picks[0].cell == c.cell
        and c.keeps not in ("best", "not asked")
    ]
    words_on_it = [kept.get(c.keeps, "undecided")]
    if picked:
        words_on_it.append(f"pick for {words.listing(picked)}")
    return "; ".join(text for text in words_on_it if text)
