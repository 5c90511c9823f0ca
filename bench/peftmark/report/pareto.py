"""What the score costs: fronts of score against memory, time, energy and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from peftmark.advice import plain_lines, training_lines
from peftmark.advice.money import MEANING, NAME, money, no_price
from peftmark.advice.trade import (
    FORGETTING,
    MEMORY,
    PARAMETERS,
    TIME,
    Cost,
    Front,
    Spot,
    choice_front,
)
from peftmark.analysis.comparison import shown_higher
from peftmark.analysis.floor import LITTLE, NOT_SHOWN, guess, why_below
from peftmark.analysis.pareto import reigns
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.core.amounts import Price
from peftmark.record.fields import figure, side
from peftmark.render import words
from peftmark.render.chart_specs import Mark, Scatter, ScatterPoint
from peftmark.render.page import (
    Block,
    Column,
    CostChart,
    Entry,
    Fact,
    Figure,
    Grid,
    Paragraph,
    Section,
    marks,
)
from peftmark.report import cell_selection, measures, score_entries

WIDE, PHONE = (640, 384), (358, 268)
"""Width and height of a picture in pixels."""
MOST, FEWER = 14, 8
"""Cells of each."""

FEW = 4
"""Names in a sentence."""


def energy_cost(table: ResultTable) -> Cost:
    """Energy of the timed steps, from the counter of the jobs' device."""
    on_gpu = any(r.job.device != "cpu" for r in table.rows)
    name = "energy_gpu_joules" if on_gpu else "energy_cpu_joules"
    return Cost(
        "energy",
        name,
        measures.ENERGY.read,
        False,
        lambda value: f"{words.short(value)} J",
        lambda r: measures.ENERGY.field(r),
        measures.ENERGY.title,
    )


def fronts(table: ResultTable, price: Price | None = None) -> list[Front]:
    """Every trade that a report has, in the order of its buttons."""
    costs = [MEMORY, TIME, PARAMETERS, energy_cost(table)]
    if any(r.job.causal is not None for r in table.rows):
        costs.append(FORGETTING)
    if price is not None:
        costs.append(money(price))
    found = [choice_front(table, cost) for cost in costs]
    return found if price is not None else [*found, no_price()]


def section(table: ResultTable, found: Sequence[Front]) -> Section:
    """The place of every cell at every cost; the pictures stand on the first screen."""
    known = [f for f in found if f.spots]
    blocks: list[Block] = [_places(table, known)] if known else []
    absent = [
        f"{f.cost.title} ({f.fault or 'no cell has it on every task'})"
        for f in found
        if not f.spots
    ]
    if absent:
        blocks.append(Paragraph(f"Not drawn: {'; '.join(absent)}."))
    lost = plain_lines.in_the_mean(table) if known else ""
    told = (lost, _lead(table, known), training_lines.sentence(table))
    return Section("trade", "What is the trade?", " ".join(filter(None, told)), tuple(blocks))


def charts(table: ResultTable, found: Sequence[Front]) -> tuple[CostChart, ...]:
    """Score against each cost that was measured, for a wide window and for a phone."""
    return tuple(
        CostChart(f.cost.key, _figure(table, f, WIDE, MOST), _figure(table, f, PHONE, FEWER))
        for f in found
        if f.spots
    )


def _lead(table: ResultTable, fronts: list[Front]) -> str:
    if not fronts:
        return "No cell has both a score over all tasks and a cost, so there is nothing to trade."
    several = [f for f in fronts if len(f.choices) > 1]  # an estimator has no memory of training
    if not several:
        who = "Only one cell" if any(f.choices for f in fronts) else "No cell"
        left = any(len(f.spots) > len(f.choices) for f in fronts)
        above = " above the quality floor" if left else ""
        return f"{who}{above} has both a score over all tasks and a cost: nothing to trade."
    found = (text for f in several if (text := nobody_beats(table, f)))
    return next(found, "") or (
        f"No cell is shown to beat all others below any cost; by {several[0].cost.title}, "
        f"{_counts(several[0])}."
    )


def nobody_beats(table: ResultTable, found: Front) -> str:
    """A sentence on the cell that is shown to beat all that costs less than its first rival."""
    spots = found.choices
    every = reigns(
        [s.point for s in spots], lambda a, b: shown_higher(table, spots[a].cell, spots[b].cell)
    )
    # "Below 500 MiB" tells more of a trade than a winner at any cost.
    best = next((r for r in every if r.below is not None), every[0] if every else None)
    if best is None:
        return ""
    name = words.title(spots[best.point].cell)
    beaten = [words.title(spots[i].cell) for i in best.beaten]
    count = words.plural(len(beaten), "other cell")
    those = words.listing(beaten) if len(beaten) <= FEW else f"the {count} measured there"
    shown = f"{those} {'is' if len(beaten) == 1 else 'are'} shown to score lower"
    if best.below is None:
        return f"Nobody beats {name} at any {found.cost.title}: {shown}."
    of = "" if found.cost is PARAMETERS else "of "
    limit = f"{found.cost.text(best.below)} {of}{found.cost.title}"
    return f"Nobody beats {name} below {limit}: {shown}."


def _counts(found: Front) -> str:
    on, maybe, off = (len(found.of(s)) for s in ("on", "possibly on", "off"))
    cells = words.plural(len(found.choices), "cell")
    return f"{on} of {cells} are on the front, {maybe} possibly on it and {off} shown to be off it"


def _finding(found: Front) -> str:
    """What the picture shows, in a sentence."""
    if not found.choices:
        return "No cell is above the quality floor, so there is no front."
    text = f"On the front: {words.some([words.title(s.cell) for s in found.of('on')])}"
    if maybe := found.of("possibly on"):
        text += f"; possibly: {words.some([words.title(s.cell) for s in maybe])}"
    if off := len(found.of("off")):
        text += f"; {words.plural(off, 'cell')} shown to be off it"
    return f"{text}."


def _figure(table: ResultTable, found: Front, size: tuple[int, int], most: int) -> Figure:
    look = marks(table.cells)
    shown = _shown(table, found, most)
    points = tuple(
        ScatterPoint(_named(table, look, s.cell), s.cost, s.limits, s.score, s.standing)
        for s in shown
    )
    unit, name = _axis(found.cost)
    y_axis = f"{score_entries.score_axis(table)}, higher is better"
    drawing = Scatter(points, name, y_axis, unit, guess(table), size)
    if drawing.is_log:
        drawing = replace(drawing, x_axis=f"{name}, log scale")
    note = "Whiskers: 95\u00a0% intervals over seeds. Line: the best mean for at most each cost."
    standings = {s.standing for s in shown}
    if "off" in standings:
        note += " Faint: shown to be off the front."
    if "possibly on" in standings:
        note += " Ring: possibly on it."
    if "below the floor" in standings:
        note += _grey(why_below(table), shown)
    if len(shown) < len(found.spots):
        note += (
            f" Drawn: {len(shown)} of {words.plural(len(found.spots), 'cell')}, the front and the "
            "best of each family and method; the table has all."
        )
    phone = "-phone" if size == PHONE else ""
    title = f"Score against {found.cost.title}"
    return Figure(f"trade-{found.cost.key}{phone}", _finding(found), drawing, note, title=title)


def _grey(why: Mapping[Cell, str], shown: Sequence[Spot]) -> str:
    """Why cells of a picture are grey."""
    said = {
        LITTLE: "less than half of the way from a constant guess to the best mean",
        NOT_SHOWN: NOT_SHOWN,
    }
    found = {why.get(s.cell) for s in shown}
    return f" Grey: {', or '.join(text for key, text in said.items() if key in found)}."


def _named(table: ResultTable, look: Mapping[Cell, Mark], cell: Cell) -> Mark:
    """A cell's mark; the reference says that it is."""
    mark = look[cell]
    is_it = cell == table.reference
    return replace(mark, label=f"{mark.label} (reference)") if is_it else mark


def _axis(cost: Cost) -> tuple[float, str]:
    """What a cost is divided by for the axis, and the axis's title."""
    if cost is FORGETTING:
        return 1.0, f"perplexity of unrelated text, after / before, {side(cost.name)}"
    if cost.key == "money":
        return 1.0, f"{cost.title}, {cost.text(1.0).partition(' ')[2]}, lower is better"
    unit = words.SHOWN_IN.get(figure(cost.name).unit, "")
    name = ", ".join(filter(None, (cost.title, unit, side(cost.name))))
    return words.SCALES.get(unit, 1.0), name


def _shown(table: ResultTable, found: Front, most: int) -> list[Spot]:
    """The cells of a picture: the front, then what a picture of few cells would show."""
    if len(found.spots) <= most:
        return list(found.spots)
    kept: list[Cell] = [s.cell for s in found.of("on")][:most]
    rest = [s.cell for s in found.spots if s.cell not in kept]
    kept += cell_selection.of(table, rest, most - len(kept)) if len(kept) < most else ()
    return [s for s in found.spots if s.cell in kept]


def _places(table: ResultTable, fronts: list[Front]) -> Grid:
    """Every cell's standing at every cost."""
    columns = (
        Column("cell"),
        Column("score", f"{score_entries.averaged(table)}, higher is better", numeric=True),
        *(Column(f.cost.title, "lower is better", numeric=True) for f in fronts),
    )
    by_cell = [{s.cell: s for s in f.spots} for f in fronts]
    rows = []
    for cell in table.cells:
        spots = [found.get(cell) for found in by_cell]
        some = next((s for s in spots if s is not None), None)
        score = (
            words.missing(fronts[0].missing.get(cell, ""))
            if some is None
            else _scored(table, cell, some)
        )
        entries = (_place(f, cell, s) for f, s in zip(fronts, spots, strict=True))
        rows.append((Entry(words.title(cell)), score, *entries))
    note = (
        "on: no other cell above the floor has as good a mean score for no more. off: some other "
        "cell is shown to cost no more, and its score is shown to be higher as in the table of "
        "pairs (Holm). possibly on: the rest. Costs are absolute, the geometric mean over tasks "
        "and seeds."
    )
    if any(s.standing == "below the floor" for f in fronts for s in f.spots):
        note += (
            " below the floor: less than half of the way from a constant guess to the best mean, "
            "or not shown above the guess; such a cell is on no front."
        )
    if any(f.cost is FORGETTING for f in fronts):
        note += (
            " Forgetting: by how much training raised the perplexity of text that has nothing to "
            "do with the task; drawn as the ratio of after to before."
        )
    if any(f.cost.key == "money" for f in fronts):
        note += f" {NAME}: {MEANING}."
    return Grid("On, possibly on or off the front", columns, tuple(rows), note=note)


def _scored(table: ResultTable, cell: Cell, spot: Spot) -> Entry:
    """A cell's score, and that it saw another amount of training."""
    shown = words.plus_minus(spot.score, table.scale.metric)
    fact = Fact("score", words.title(cell), spot.score.mean)
    entry = Entry(shown, f"n = {spot.score.n}", "number", spot.score.mean, fact)
    return score_entries.with_note(entry, training_lines.saw(table, cell))


def _place(found: Front, cell: Cell, spot: Spot | None) -> Entry:
    if spot is None:
        return words.missing(found.missing.get(cell, "not recorded"))
    note = spot.standing if spot.by is None else f"off: {words.title(spot.by)}"
    by = "" if spot.by is None else words.title(spot.by)
    fact = Fact(found.cost.figure, words.title(cell), spot.cost, beaten_by=by)
    return Entry(found.cost.text(spot.cost), note, "number", spot.cost, fact)
