"""Who can be told apart: differences by task, pairs of cells, and other ways to sum up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from peftmark.advice import rates_lines, training_lines
from peftmark.analysis.comparison import (
    ALPHA,
    MARGIN,
    MOST_CELLS,
    Difference,
    overall_row_error,
    row_error,
)
from peftmark.analysis.stats import (
    compare,
    effect_size,
    interquartile_mean,
    probability_of_improvement,
    sign_flip,
    sign_flip_floor,
    two_level,
    wilcoxon,
)
from peftmark.analysis.table import (
    ResultTable,
    Score,
    difference,
    overall_score,
    quality,
    task_score,
)
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.render import words
from peftmark.render.page import Block, Column, Entry, Grid, Paragraph
from peftmark.report import missing, score_entries

Pairs = Mapping[tuple[Cell, Cell], Difference]

MOST_SQUARE = 14
"""Cells up to which pairs are shown as a square."""

Z = 1.959964
"""Half-width of a 95 % interval in standard errors, for the noise of rows."""

MOST_ROW_ERRORS = 400
"""Comparisons up to which the noise of rows is drawn again."""


def tasks_grid(table: ResultTable, found: Mapping[tuple[Cell, str], Difference]) -> Grid:
    """Each cell less the reference on each task."""
    reference = words.title(table.reference)
    columns = (Column("cell"), *(_task_column(table, task) for task in table.tasks))
    draws = len(found) <= MOST_ROW_ERRORS
    rows = tuple(
        (
            Entry(words.title(cell)),
            *(_by_task(table, cell, task, found.get((cell, task)), draws) for task in table.tasks),
        )
        for cell in table.others
    )
    noise = (
        "“rows ±” is what another choice of evaluation rows would add to the interval."
        if draws
        else f"The noise of rows is left out of more than {MOST_ROW_ERRORS} comparisons."
    )
    return Grid(
        f"Difference to {reference} by task",
        columns,
        rows,
        folded=True,
        note="Mean ± 95\u00a0% half-width over seeds, paired. The verdicts of "
        f"{words.plural(len(found), 'comparison')} hold together (Holm). {noise} "
        f"{rates_lines.sentence(table)}".rstrip(),
    )


def _task_column(table: ResultTable, task: str) -> Column:
    """A task's differences, with the direction where more isn't better."""
    metric = table.example(task).metric
    way = f" of {words.metric_title(metric)}, {words.direction(metric)}"
    return Column(task, f"difference{way if sign_of(metric) < 0 else ''}", numeric=True)


def _by_task(
    table: ResultTable, cell: Cell, task: str, found: Difference | None, draws: bool
) -> Entry:
    if found is None:
        return missing.gap(table.of(cell, task))
    gap, metric = missing.gap(table.of(cell, task)), table.example(task).metric
    shown = score_entries.score_entry(found.score, gap, metric, signed=True)
    error = row_error(table, cell, task) if draws else None
    turned = {True: ", better", False: ", worse", None: ""}[found.better] if found.sign < 0 else ""
    saw = training_lines.saw(table, cell, [task])
    parts = [f"{found.verdict}{turned}", shown.note, *filter(None, [saw])]
    if error is not None:
        parts.append(f"rows ± {words.score(metric, Z * error)}")
    fact = score_entries.difference_fact(cell, table.reference, found, task)
    return Entry(shown.text, "; ".join(parts), "number", shown.sort, fact)


# --- pairs --------------------------------------------------------------------------------------


def pairs_blocks(
    table: ResultTable, pairs: Pairs, ranks: Mapping[Cell, tuple[int, int]]
) -> tuple[Block, ...]:
    """What the pairs show, and the square of them where it fits."""
    if not pairs:
        scored = [c for c in table.cells if overall_score(table, c).by_seed]
        if len(scored) <= MOST_CELLS:
            return ()
        return (
            Paragraph(
                f"Pairs of {len(scored)} cells are not compared with one another (most: "
                f"{MOST_CELLS}): so many comparisons would show next to nothing."
            ),
        )
    told = filter(None, (_pairs_finding(pairs), training_lines.sentence(table)))
    blocks: list[Block] = [Paragraph(" ".join(told))]
    if len(ranks) <= MOST_SQUARE:
        blocks.append(_square(table, pairs, list(ranks)))
    return tuple(blocks)


def _pairs_finding(pairs: Pairs) -> str:
    apart = sum(p.verdict in ("higher", "lower") for p in pairs.values())
    alike = sum(p.verdict == "equivalent" for p in pairs.values())
    text = f"Of {words.plural(len(pairs), 'pair')} of cells {apart} can be told apart"
    # None is where gains are averaged, which no margin fits.
    text += f" and {alike} shown to be equivalent within {MARGIN:g}" if alike else ""
    return (
        f"{text} (Holm over the pairs with the reference and over the others, "
        f"{100 * ALPHA:.0f}\u00a0% each). A rank such as 1–4 holds "
        "every place that a cell may have, as far as the pairs show it."
    )


def _square(table: ResultTable, pairs: Pairs, cells: list[Cell]) -> Grid:
    columns = (Column("row less column"), *(Column(words.title(c), numeric=True) for c in cells))
    rows = tuple(
        (Entry(words.title(a)), *(_pair(table, pairs, a, b) for b in cells)) for a in cells
    )
    return Grid(
        "Every pair of cells",
        columns,
        rows,
        folded=True,
        note="A number where the pair is told apart, = where it is equivalent, · where nothing is "
        "shown.",
    )


def _pair(table: ResultTable, pairs: Pairs, a: Cell, b: Cell) -> Entry:
    if a == b:
        return Entry("–", kind="missing")
    found = pairs.get((a, b))
    turned = 1.0
    if found is None:
        found, turned = pairs.get((b, a)), -1.0
    if found is None:
        return words.missing("not compared")
    mean = turned * found.comparison.estimate.mean
    first, second = (a, b) if turned > 0 else (b, a)
    fact = score_entries.difference_fact(first, second, found)
    saw = training_lines.saw_beside(table, a, b)
    if found.verdict in ("higher", "lower"):
        return Entry(words.number(mean, signed=True), saw, "number", mean, fact)
    return Entry("=" if found.verdict == "equivalent" else "·", saw, "missing", fact=fact)


def rank_entry(table: ResultTable, ranks: Mapping[Cell, tuple[int, int]], cell: Cell) -> Entry:
    """The places that a cell may have, and that it saw another amount of training."""
    if cell not in ranks:
        return words.missing("not compared with the others")
    best, worst = ranks[cell]
    text = str(best) if best == worst else f"{best}–{worst}"
    return Entry(text, training_lines.saw(table, cell), "number", (best + worst) / 2)


# --- other ways to sum up -----------------------------------------------------------------------


def aggregates(table: ResultTable) -> Grid:
    """The same scores by measures that assume other things."""
    reference = words.title(table.reference)
    columns = (
        Column("cell"),
        Column("interquartile mean", "of quality over tasks and seeds", numeric=True),
        Column("beats the reference", "chance that a run scores higher", numeric=True),
        Column("effect size", "Hedges' d of paired seed means", numeric=True),
        Column("sign flip", "exact p, seed means", numeric=True),
        Column("Wilcoxon", "exact p, seed means", numeric=True),
        Column("seeds and rows", "difference, interval for both", numeric=True),
    )
    base = overall_score(table, table.reference)
    rows = tuple((Entry(words.title(c)), *_aggregate(table, c, base)) for c in table.cells)
    n = len(base.by_seed)
    floor = (
        f" With {n} seeds no exact p falls below {words.p_value(sign_flip_floor(n))}." if n else ""
    )
    return Grid(
        f"Other ways to sum up, against {reference}",
        columns,
        rows,
        folded=True,
        note="Quality is 0 for the baseline predictor and 1 for a perfect one; the interquartile "
        "mean leaves out the lowest and highest quarter of the runs. None of these is adjusted for "
        f"the number of cells.{floor} {training_lines.sentence(table)}".rstrip(),
    )


def _aggregate(table: ResultTable, cell: Cell, base: Score) -> tuple[Entry, ...]:
    score = overall_score(table, cell)
    runs = [v for t in table.scale.tasks for v in task_score(table, cell, t, quality).values]
    gap = missing.overall_gap(table, cell)
    lone = gap if not score.by_seed else words.missing(missing.no_quality(table))
    middle = _number(interquartile_mean(runs)) if runs and score.by_seed else lone
    if cell == table.reference:
        return (middle, *[Entry("–", kind="missing")] * 5)
    pairs = difference(score, base)
    if not pairs.by_seed:
        none = gap if not score.by_seed else words.missing("no seed shared with the reference")
        return (middle, *[none] * 5)
    chance = probability_of_improvement(score.strata, base.strata)
    size, flip, signed = (f(pairs.values) for f in (effect_size, sign_flip, wilcoxon))
    return (
        middle,
        _number(chance, 2),
        _known(size, lambda v: words.number(v, 2, signed=True)),
        _known(flip, words.p_value),
        _known(signed, words.p_value),
        _both(table, cell, pairs),
    )


def _number(value: float, digits: int = 3) -> Entry:
    return Entry(words.number(value, digits), kind="number", sort=value)


def _known(value: float | None, text: Callable[[float], str]) -> Entry:
    if value is None:
        return words.missing("no usable spread")
    return Entry(text(value), kind="number", sort=value)


def _both(table: ResultTable, cell: Cell, pairs: Score) -> Entry:
    """The difference with an interval that covers other seeds and other rows."""
    if len(table.cells) > MOST_CELLS:
        return words.missing("not drawn for so many cells")
    error = overall_row_error(table, cell)
    estimate = two_level(compare(pairs.strata), error).within(pairs.limits)
    if estimate.half_width is None:
        return words.missing("no predictions on the same rows" if error is None else "no spread")
    shown = words.plus_minus(estimate, table.scale.metric, signed=True)
    return Entry(shown, kind="number", sort=estimate.mean)
