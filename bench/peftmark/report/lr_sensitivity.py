"""How easy a method is to tune: its scores over a grid of learning rates."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from peftmark.analysis.scale import has_best, point, point_text, shares_unit
from peftmark.analysis.table import Ratio, ResultTable
from peftmark.catalog.methods import Cell
from peftmark.render import words
from peftmark.render.chart_specs import Mark, Sweep, SweepLine
from peftmark.render.page import (
    Block,
    Column,
    Entry,
    Figure,
    Figures,
    Grid,
    Paragraph,
    Section,
    marks,
    shorten,
)
from peftmark.report import cell_selection, missing
from peftmark.report.quality import metric_of
from peftmark.suite import lr_trials
from peftmark.suite.lr_trials import Choice

NEAR = "within one point of the best"
"""A score this close to the best counts as good as the best; `scale.point` of the metric."""

MOST_EDGES = 12
Choices = dict[tuple[Cell, str], Choice]


def section(table: ResultTable) -> Section:
    """Ease of use, one picture a task, and every score of the grid."""
    found = lr_trials.choices(table.jobs, table.records)
    blocks: list[Block] = [_ease_grid(table, found), Paragraph(_trials_text(table, found))]
    edges = _edges_text(table, found)
    if edges:
        blocks.append(Paragraph(edges))
    pictures = tuple(
        p for i, task in enumerate(table.tasks) for p in _pictures(table, found, i, task)
    )
    if pictures:
        where = "the table below"
        omitted = cell_selection.left_out(table, len(cell_selection.picks(table)), where)
        blocks += [Paragraph(omitted)] if omitted else []
        blocks.append(Figures(pictures))
    blocks.append(_scores(table, found))
    return Section("tuning", "How easy is it to tune?", _lead(table, found), tuple(blocks))


def ease(table: ResultTable, cell: Cell) -> Ratio:
    """Share of a cell's learning rates within one point of its best, mean over tasks."""
    return _ease(table, lr_trials.choices(table.jobs, table.records), cell)


def _ease(table: ResultTable, found: Choices, cell: Cell) -> Ratio:
    shares = [_within(table, found, cell, task) for task in table.tasks]
    known = [s for s in shares if s is not None]
    if len(known) == len(shares) > 0:
        return Ratio(statistics.fmean(known), len(known), len(shares))
    tuned = any(c == cell for c, _ in found)
    reason = f"known on {len(known)} of {words.plural(len(shares), 'task')}" if tuned else ""
    if tuned and (pointless := [t for t in table.tasks if _tolerance(table, t) is None]):
        reason = f"{words.listing(pointless)}: the metric has no points"
    return Ratio(None, len(known), len(shares), reason or "no learning rate was tuned")


def _within(table: ResultTable, found: Choices, cell: Cell, task: str) -> float | None:
    choice = found.get((cell, task))
    tolerance = _tolerance(table, task)
    if choice is None or choice.missing or tolerance is None:
        return None
    return choice.within(tolerance)


def _tolerance(table: ResultTable, task: str) -> float | None:
    """One point of a task's metric, with the baseline on the rows that trials are scored on; None
    where points mean nothing."""
    trials = [s for s in table.planned("tuning") if s.job.task == task]
    read = [s.value(lambda r: r.outcome.baseline_value) for s in trials]
    known = [value for value in read if value is not None]
    return point(metric_of(table, task), statistics.fmean(known) if known else None)


def _lead(table: ResultTable, found: Choices) -> str:
    easy = {c: v for c in table.cells if (v := _ease(table, found, c).value) is not None}
    if not easy:
        return "No cell has all its trials yet, so nothing is said about how easy it is to tune."
    best, worst = max(easy.values()), min(easy.values())
    near = f"of the learning rates lie {NEAR}"
    text = f"Least sensitive to the learning rate: {_names(easy, best)}, {_percent(best)} {near}"
    if best == worst:
        return f"{text}." if len(easy) == 1 else f"{text}; no cell differs from another."
    return f"{text}. Most sensitive: {_names(easy, worst)}, {_percent(worst)}."


def _names(easy: dict[Cell, float], value: float) -> str:
    return words.some([words.title(cell) for cell, share in easy.items() if share == value])


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"


def _trials_text(table: ResultTable, found: Choices) -> str:
    trials = table.planned("tuning")
    rates = {len(choice.rates) for choice in found.values()}
    seeds = sorted({s.job.seed for s in trials})
    reported = sorted({s.job.seed for s in table.slots})
    each = "Every cell" if len(rates) == 1 else "A cell"
    text = (
        f"{each} got {words.span(rates)} learning rates a task, "
        f"{words.plural(len(seeds), 'trial')} each, scored on the selection rows. Tuning seeds: "
        f"{words.listing([str(s) for s in seeds])}"
    )
    if not reported:
        return f"{text}."
    apart = "others" if not set(seeds) & set(reported) else "not all others"
    return f"{text}; reporting seeds are {apart}: {words.listing([str(s) for s in reported])}."


def _edges_text(table: ResultTable, found: Choices) -> str:
    edges = [
        f"{words.title(cell)} on {task}"
        for cell in table.cells
        for task in table.tasks
        if (choice := found.get((cell, task))) and not choice.missing and _at_edge(choice)
    ]
    if not edges:
        return ""
    return (
        "Chosen at the edge of the grid, so a better rate may lie outside it: "
        f"{words.some(edges, MOST_EDGES)}; the table of shares marks each."
    )


def _at_edge(choice: Choice) -> bool:
    return choice.chosen in (choice.rates[0], choice.rates[-1])


def _ease_grid(table: ResultTable, found: Choices) -> Grid:
    columns = (
        Column("cell"),
        *(Column(task, "share of the grid", numeric=True) for task in table.tasks),
        Column("mean over tasks", "ease of use, higher is better", numeric=True),
    )
    rows = []
    for cell in table.cells:
        overall = _ease(table, found, cell)
        shares = (_share(found.get((cell, task)), _tolerance(table, task)) for task in table.tasks)
        mean = (
            words.missing(overall.reason)
            if overall.value is None
            else Entry(_percent(overall.value), kind="number", sort=overall.value)
        )
        rows.append((Entry(words.title(cell)), *shares, mean))
    return Grid(
        f"Share of the learning rates {NEAR}",
        columns,
        tuple(rows),
        note=f"One point is {_points(table)}. A trial that failed counts as not within. "
        "The small line names the chosen rate.",
    )


def _points(table: ResultTable) -> str:
    """What a point is, on all tasks."""
    keys = dict.fromkeys(metric_of(table, task) for task in table.tasks)
    if all(map(shares_unit, keys)):
        return "0.01 of the task's metric"
    texts = {words.metric_title(k): point_text(k) for k in keys if has_best(k)}
    return "; ".join(f"{title}: {text}" for title, text in texts.items()) or "not defined here"


def _share(choice: Choice | None, tolerance: float | None) -> Entry:
    if choice is None:
        return words.missing("no trial planned")
    if choice.missing:
        return words.missing(f"{words.plural(choice.missing, 'trial')} not run yet")
    if choice.chosen is None:
        return Entry(words.MISSING, "every trial failed", "failed")
    edge = ", edge of the grid" if _at_edge(choice) else ""
    share = None if tolerance is None else choice.within(tolerance)
    if share is None:
        return words.missing(f"{words.rate(choice.chosen)}{edge}; the metric has no points")
    return Entry(_percent(share), f"{words.rate(choice.chosen)}{edge}", "number", share)


def _scores(table: ResultTable, found: Choices) -> Grid:
    most = max((len(choice.rates) for choice in found.values()), default=0)
    columns = (
        Column("cell"),
        Column("task"),
        *(Column(f"rate {i + 1}", "score on selection rows", numeric=True) for i in range(most)),
    )
    rows = tuple(
        (
            Entry(words.title(cell)),
            Entry(task),
            *(_score(table, choice, i) for i in range(most)),
        )
        for task in table.tasks
        for cell in table.cells
        if (choice := found.get((cell, task)))
    )
    caption = "Every learning rate and its score, mean over tuning seeds"
    return Grid(caption, columns, rows, folded=True, note="Rates rise from left to right.")


def _score(table: ResultTable, choice: Choice, index: int) -> Entry:
    if index >= len(choice.rates):
        return words.missing("a shorter grid")
    rate, score = choice.rates[index], choice.scores[index]
    name = words.rate(rate)
    if score is not None:
        note = f"{name}, chosen" if rate == choice.chosen else name
        shown = words.score(table.example(choice.task).metric, score)
        return Entry(shown, note, "number", score)
    trials = [
        s
        for s in table.planned("tuning")
        if (s.job.cell, s.job.task) == (choice.cell, choice.task)
        and s.job.recipe.learning_rate == rate
    ]
    gap = missing.gap([s for s in trials if not s.ok])
    return Entry(gap.text, shorten(f"{name}; {gap.note}".removesuffix("; "), 90), gap.kind)


def _pictures(table: ResultTable, found: Choices, index: int, task: str) -> list[Figure]:
    look = marks(table.cells)
    lines = {
        cell: line
        for cell in cell_selection.picks(table)
        if (choice := found.get((cell, task))) and (line := _line(look[cell], choice))
    }
    key = metric_of(table, task)
    axis = f"{words.metric_title(key)} on selection rows, {words.direction(key)}"
    note = "One point a learning rate; the ring marks the chosen one. A failed rate is a gap."
    figures = []
    for part, cells in enumerate(cell_selection.panels(table, list(lines))):
        drawing = Sweep(tuple(lines[c] for c in cells), axis)
        name = f"rates-{index}" + (f"-{part}" if part else "")
        figures.append(Figure(name, _finding(cells, found, task), drawing, note, title=task))
    return figures


def _line(mark: Mark, choice: Choice) -> SweepLine | None:
    if choice.chosen is None:
        return None
    return SweepLine(mark, tuple(zip(choice.rates, choice.scores, strict=True)), choice.chosen)


def _finding(cells: Sequence[Cell], found: Choices, task: str) -> str:
    chosen: Sequence[str] = [
        f"{words.title(cell)} {words.rate(choice.chosen)}"
        for cell in cells
        if (choice := found.get((cell, task))) and choice.chosen is not None
    ]
    return f"Chosen: {words.listing(chosen)}."
