"""The top of the page: what was learned, in careful words, and the summary strip."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from peftmark.advice import plain_lines, rates_lines, shared_rows_lines, training_lines
from peftmark.analysis.comparison import MARGIN, Difference, Verdict, against_reference
from peftmark.analysis.floor import LITTLE, NOT_SHOWN, why_below
from peftmark.analysis.pareto import log_ratio
from peftmark.analysis.scale import point_text
from peftmark.analysis.table import (
    MEAN,
    Ratio,
    ResultTable,
    Score,
    overall_score,
    ratio,
    task_score,
)
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.chart_specs import Strip, StripRow
from peftmark.render.page import Column, Entry, Figure, Grid, marks
from peftmark.report import cell_selection, measures, missing, score_entries

MOST_NAMED = 6
FURTHEST = 3
SAID: dict[Verdict, str] = {
    "higher": "{} scored higher",
    "lower": "{} scored lower",
    "equivalent": f"{{}} matched it within {MARGIN:g}",
    "undecided": "undecided: {}",
    "no interval": "not judged, for lack of a usable interval: {}",
}
"""Verdict -> what is said of cells, where more is better."""
FAR: tuple[Verdict, ...] = ("higher", "lower")


def peak_memory(record: Record) -> float | None:
    """Peak memory of the job."""
    return record.outcome.peak_memory_bytes


def speed(record: Record) -> float | None:
    """Training rows a second."""
    return record.outcome.samples_per_second


def trainable(record: Record) -> float | None:
    """Trainable parameters, head included."""
    return record.outcome.trainable_parameters


def memory_ratio(table: ResultTable, cell: Cell) -> Ratio:
    """Peak memory relative to the reference, only where the same meter measured both."""
    return ratio(table, cell, peak_memory, same=lambda r: r.outcome.peak_memory_source)


def memory_meaning(table: ResultTable) -> str:
    """A sentence on what the headline memory figure is; empty if nothing finished."""
    sources = measures.memory_sources(table.rows)
    return f"Peak memory: {'; '.join(sources)}." if sources else ""


def said(metric: str) -> dict[Verdict, str]:
    """The same on a task, in the direction and the unit of its metric."""
    within = point_text(metric)
    told = SAID | {"equivalent": f"{{}} matched it within {within}"}
    if sign_of(metric) > 0:
        return told
    turned: dict[Verdict, str] = {
        "lower": "{} scored lower, which is better",
        "higher": "{} scored higher, which is worse",
    }
    return turned | {verdict: text for verdict, text in told.items() if verdict not in turned}


def standings(
    found: Mapping[Cell, Difference],
    *,
    brief: bool = False,
    told: Mapping[Verdict, str] = SAID,
    metric: str = "",
    saw: Callable[[Cell], str] = lambda _: "",
) -> list[str]:
    """How each cell stands to the reference, as parts of a sentence.

    Of many cells the furthest from the reference are named and the others counted.

    Args:
        brief: give no figures of cells of which nothing is shown.
        told: verdict -> what is said of cells.
        metric: whose differences they are; empty for those on the scale of no one metric.
        saw: that a cell saw another amount of training than the reference; empty if it didn't.
    """
    named: dict[Verdict, list[tuple[float, str]]] = {}
    few = sum(d.verdict == "undecided" for d in found.values()) <= FURTHEST
    for cell, difference in found.items():
        estimate, score = difference.comparison.estimate, difference.score
        facts = [words.plus_minus(estimate, metric, signed=True)]
        if not score.complete:
            facts[0] += f", {len(score.by_seed)} of {score.planned} seeds"
        if difference.verdict == "undecided":
            facts = [] if brief else [*facts, *[score_entries.seeds_wanted(difference)] * few]
        facts += filter(None, [saw(cell)])
        text = words.title(cell) + (f" ({'; '.join(facts)})" if facts else "")
        named.setdefault(difference.verdict, []).append((estimate.mean, text))
    parts = []
    for key in told:
        cells = named.get(key, [])
        text = words.listing([text for _, text in cells])
        if len(cells) > MOST_NAMED:
            furthest = sorted(cells, key=lambda cell: -abs(cell[0]))[:FURTHEST]
            names = words.listing([text for _, text in furthest])
            text = f"{len(cells)} cells" + (f", furthest {names}," if key in FAR else "")
        if text:
            parts.append(told[key].format(text))
    return parts


def finding(table: ResultTable) -> str:
    """What a reader is told first: tasks on which no cell beats a guess, cells that are not above
    a line that needs no fine-tuning, then quality against the reference, over all tasks."""
    told = (plain_lines.no_gain(table), plain_lines.sentence(table), _against(table))
    return " ".join(filter(None, told))


def nothing_to_compare(table: ResultTable) -> str:
    """Why no cell can be held against the reference over all tasks; empty if cells can."""
    if not table.rows:
        if table.extras:
            return "Only tuning trials have run so far, so there is nothing to compare."
        return "Nothing has run yet, so there is nothing to compare."
    if not any(r.ok for r in table.rows):
        return "No run finished, so there is nothing to compare; the failures are listed below."
    name = words.title(table.reference)
    if table.reference not in table.cells:
        return f"The reference {name} is not part of this profile, so no comparison is made."
    if table.scale.why_none:
        return (
            f"No overall comparison is made, since {table.scale.why_none}; single tasks are "
            "compared below."
        )
    if overall_score(table, table.reference).estimate is None:
        return (
            f"{name}, the reference, has no seed that finished every task, so no overall "
            "comparison is made; single tasks are compared below."
        )
    return ""


def _against(table: ResultTable) -> str:
    """One or two sentences on quality against the reference, over all tasks."""
    base = overall_score(table, table.reference)
    if (why := nothing_to_compare(table)) or base.estimate is None:
        return why
    name = words.title(table.reference)
    meaning = "" if table.averaged == MEAN else f" ({table.averaged})"
    scope = (
        f"Over {words.plural(len(table.scale.tasks), 'task')}{_of_tasks(table)} and "
        f"{words.plural(len(base.by_seed), 'seed')}, "
        f"{name} scored {words.plus_minus(base.estimate, table.scale.metric)}{meaning}"
    )
    parts = standings(
        against_reference(table),
        metric=table.scale.metric,
        saw=lambda cell: training_lines.saw(table, cell),
    )
    if not parts:
        return f"{scope}; no other cell has a seed to compare it with."
    return f"{scope}. Against it: {'; '.join(parts)}."


def _of_tasks(table: ResultTable) -> str:
    """Tasks that no overall score has, and tasks that share rows, in brackets; may be empty."""
    names = words.listing(table.scale.left_out)
    left = f"{names} left out: no best possible value" if names else ""
    told = "; ".join(filter(None, (left, shared_rows_lines.clause(table))))
    return f" ({told})" if told else ""


def task_finding(
    table: ResultTable, task: str, found: Mapping[tuple[Cell, str], Difference]
) -> str:
    """One sentence on one task.

    Args:
        found: the differences of all tasks, judged together.
    """
    base = task_score(table, table.reference, task)
    name = words.title(table.reference)
    if base.estimate is None:
        return f"{name} has no finished run, so nothing is compared."
    mine = {cell: known for (cell, on), known in found.items() if on == task}
    metric = table.example(task).metric
    parts = standings(
        mine,
        brief=True,
        told=said(metric),
        metric=metric,
        saw=lambda cell: training_lines.saw(table, cell, [task]),
    )
    if not parts:
        return f"Only {name} has finished runs."
    return f"Against {name}: {'; '.join(parts)}."


def cost_finding(table: ResultTable) -> str:
    """Which cells need the least memory and run fastest, relative to the reference, of those above
    the quality floor."""
    name, floor = words.title(table.reference), why_below(table)
    others = [c for c in table.others if c not in floor]
    memory = {c: v for c in others if (v := memory_ratio(table, c).value) is not None}
    pace = {c: v for c in others if (v := ratio(table, c, speed).value) is not None}
    parts = []
    if memory:
        least = min(memory, key=lambda c: memory[c])
        parts.append(_extreme("Least peak memory", words.title(least), memory[least], "less", name))
    if pace:
        fastest = max(pace, key=lambda c: pace[c])
        spread = _pace_interval(table, fastest)
        parts.append(_extreme("fastest", words.title(fastest), pace[fastest], "more", name, spread))
    if not parts:
        return "No cost can be set against the reference."
    text = f"{'; '.join(parts)}."
    for why, told in (
        (LITTLE, "Learned too little"),
        (NOT_SHOWN, f"Left out, {NOT_SHOWN}"),
    ):
        left = [words.title(c) for c in table.others if floor.get(c) == why]
        text += f" {told}: {words.some(left)}." if left else ""
    return text


def _extreme(
    what: str, cell: str, value: float, better: str, reference: str, spread: str = ""
) -> str:
    ahead = value < 1 if better == "less" else value > 1
    if ahead:
        return f"{what}: {cell} at {words.times(value)} {reference}{spread}"
    return f"{what}: {reference}; next {cell} at {words.times(value)}{spread}"


def _pace_interval(table: ResultTable, cell: Cell) -> str:
    """The 95 % interval over seeds of a cell's speed relative to the reference; empty if none."""
    mine, its = (
        {task: dict(task_score(table, one, task, speed).by_seed) for task in table.tasks}
        for one in (cell, table.reference)
    )
    found = log_ratio(mine, its)
    if found is None or found.estimate.half_width is None:
        return ""
    low, high = (words.times(math.exp(x)) for x in (found.estimate.low, found.estimate.high))
    return f" (95 % interval {low} to {high})"


def strip(table: ResultTable) -> Figure:
    """Score, memory, speed and parameters of every cell, side by side."""
    look = marks(table.cells)
    shown = cell_selection.picks(table)
    rows = tuple(
        StripRow(
            look[cell],
            overall_score(table, cell).estimate,
            memory_ratio(table, cell).value,
            ratio(table, cell, speed).value,
            ratio(table, cell, trainable).value,
            _why_no_quality(table, cell),
        )
        for cell in shown
    )
    # The axis says "mean over tasks" itself; of anything else it has room for the name alone.
    score = "" if table.averaged == MEAN else f"Score: {table.averaged}, higher is better. "
    note = (
        f"{cell_selection.left_out(table, len(shown), 'the table below')} {score}"
        f"Bars: ratio to the reference, log scale from 1×. {memory_meaning(table)}"
    ).strip()
    axis = f"{score_entries.score_axis(table)} ↑"
    drawing = Strip(rows, words.title(table.reference), axis)
    phone = replace(drawing, narrow=True)
    return Figure("summary", cost_finding(table), drawing, note, wide=True, phone=phone)


def _why_no_quality(table: ResultTable, cell: Cell) -> str:
    if overall_score(table, cell).estimate is not None:
        return ""
    gap = missing.overall_gap(table, cell)
    return f"{gap.text}: {gap.note}"


def verdicts(table: ResultTable) -> Grid:
    """Every cell's score, its difference to the reference with a verdict, and its costs."""
    reference = words.title(table.reference)
    found = against_reference(table)
    columns = (
        Column("cell"),
        Column("score", f"{score_entries.averaged(table)}, higher is better", numeric=True),
        Column("difference", f"to {reference}, paired by seed and task", numeric=True),
        Column("verdict", f"Holm over {words.plural(len(found), 'difference')}"),
        Column("would show", "smallest true difference", numeric=True),
        measures.ratio_column("peak_memory_bytes"),
        measures.ratio_column("samples_per_second"),
        measures.ratio_column("trainable_parameters"),
    )
    rows = tuple(_verdict_row(table, cell, found.get(cell)) for cell in table.cells)
    within = f" (within {MARGIN:g})" if table.scale.in_points else ""
    note = (
        f"Higher, lower and equivalent{within} hold together for all differences, at 5\u00a0% in "
        "all. The intervals beside "
        "them are plain 95\u00a0% intervals, so one may exclude zero where the verdict doesn't. "
        "Would show: the difference that these seeds find four times in five. "
        f"{rates_lines.sentence(table)}"
    ).rstrip()
    return Grid(f"Every cell against {reference}", columns, rows, note=note)


def _verdict_row(table: ResultTable, cell: Cell, found: Difference | None) -> tuple[Entry, ...]:
    score, metric = overall_score(table, cell), table.scale.metric
    gap = missing.overall_gap(table, cell)
    if cell == table.reference:
        against = (Entry("reference"), Entry("reference"), Entry("–", kind="missing"))
    elif found is None:
        none = _no_difference(table, score, gap)
        against = (none, none, none)
    else:
        shown = score_entries.score_entry(found.score, gap, metric, signed=True)
        shown = score_entries.with_note(shown, training_lines.saw(table, cell))
        detectable = score_entries.detectable_entry(found, metric)
        fact = score_entries.difference_fact(cell, table.reference, found)
        verdict = score_entries.claimed(score_entries.verdict_entry(found), fact)
        against = (shown, verdict, detectable)
    return (
        Entry(words.title(cell)),
        score_entries.overall_entry(cell, score, gap, metric),
        *against,
        missing.ratio_entry(table, cell, memory_ratio(table, cell), "peak_memory_bytes"),
        missing.ratio_entry(table, cell, ratio(table, cell, speed), "samples_per_second"),
        missing.ratio_entry(table, cell, ratio(table, cell, trainable), "trainable_parameters"),
    )


def _no_difference(table: ResultTable, score: Score, gap: Entry) -> Entry:
    if score.estimate is None:
        return gap
    if table.reference not in table.cells:
        return words.missing("reference not in this profile")
    return words.missing("no seed shared with the reference")


def warning(table: ResultTable) -> str:
    """That the scale is reduced, and how; empty at full scale."""
    job = table.jobs[0]
    if job.scale == "full":
        return ""
    rows = [n for j in table.jobs if (n := j.recipe.train_rows) is not None]
    steps = [j.recipe.steps for j in table.jobs if j.cell.trains]
    scale = [f"{words.span(steps)} optimizer steps"] if steps else ["nothing trained"]
    if len(rows) == len(table.jobs):
        scale.append(f"at most {max(rows):,} training rows")
    return (
        f"Reduced scale: profile {job.profile}, {words.listing(scale)}. Scores and orderings may "
        "differ at full scale."
    )
