"""Who is better, and where: scores by task and overall."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from peftmark.advice import plain_lines, shared_rows_lines
from peftmark.analysis import comparison
from peftmark.analysis.comparison import baseline_of as baseline
from peftmark.analysis.scale import bounded
from peftmark.analysis.table import MEAN, SHARE, ResultTable, Slot, overall_score, task_score
from peftmark.catalog.methods import Cell
from peftmark.record.fields import side, title
from peftmark.record.recipe import Causal
from peftmark.render import words
from peftmark.render.chart_specs import DotRow, Dots
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
)
from peftmark.report import cell_selection, differences, lanes, score_entries, summary
from peftmark.report import missing as gaps
from peftmark.report.measures import raw

BASELINE = "baseline predictor"
GUESSED = ("log_loss", "auroc", "calibration_error", "mae")
"""Metrics whose best constant guess is neither the majority class nor the mean."""


def section(table: ResultTable) -> Section:
    """Comparison table, dot plots per task, and the scores at other steps than the last."""
    pairs = comparison.pairwise(table)
    ranks = comparison.ranks(table, pairs)
    blocks: tuple[Block, ...] = (Paragraph(summary.finding(table)), _scores(table, ranks))
    if any(r.ok for r in table.rows):
        found = comparison.by_task(table)
        plots = tuple(_dots(table, i, task, found) for i, task in enumerate(table.tasks))
        blocks = (
            *blocks,
            *differences.pairs_blocks(table, pairs, ranks),
            Figures(plots),
            differences.tasks_grid(table, found),
            differences.aggregates(table),
            _selected(table),
            _best(table),
            *_further(table),
            _losses(table),
        )
    lead = " ".join(filter(None, (plain_lines.in_the_mean(table), _lead(table, ranks))))
    shown = (lanes.figure(table),) if any(r.ok for r in table.rows) else ()
    return Section("quality", "Who is better, and where", lead, blocks, shown)


def _lead(table: ResultTable, ranks: Mapping[Cell, tuple[int, int]]) -> str:
    """Who may be first."""
    first = [words.title(cell) for cell, (best, _) in ranks.items() if best == 1]
    if not first:
        return "No order is shown over all tasks."
    if len(first) == 1:
        return f"{first[0]} is first over all tasks."
    return (
        f"{words.plural(len(first), 'cell')} of {len(ranks)} may be first over all tasks: "
        f"{words.some(first)}."
    )


def metric_of(table: ResultTable, task: str) -> str:
    """Key of the primary metric of a task."""
    return table.example(task).metric


def score_column(table: ResultTable, task: str) -> Column:
    """A task's column with metric and direction, and how a causal model reads it."""
    key = metric_of(table, task)
    parts = [
        _own(table, task),
        f"{words.metric_title(key)}, {words.direction(key)}",
        reading(table, task),
    ]
    return Column(task, "; ".join(filter(None, parts)), numeric=True)


def _own(table: ResultTable, task: str) -> str:
    """That a task's rows are the user's own, and how many; empty for the catalogue's."""
    job = table.example(task)
    return job.task_title.removeprefix(f"{task} (").removesuffix(")") if job.own else ""


def reading(table: ResultTable, task: str) -> str:
    """How causal language models read a task, in a few words; empty where only encoders do."""
    asked = [s.job.causal for s in table.of(task=task)]
    ways = sorted({_way(causal) for causal in asked if causal is not None})
    text = words.listing(ways)
    return f"causal models: {text}" if text and None in asked else text


def _way(asked: Causal) -> str:
    if not asked.prompt:
        return "likelihood of a text"
    prompt = f"prompt {asked.prompt.partition(':')[0]}"
    if asked.new_tokens is None:
        return f"rank classification, {prompt}"
    return f"writing an answer, {prompt}"


def _heading(table: ResultTable, task: str) -> str:
    way = reading(table, task)
    return f"{task}: {way}" if way else task


def _scores(table: ResultTable, ranks: Mapping[Cell, tuple[int, int]]) -> Grid:
    columns = (
        Column("cell"),
        *(score_column(table, task) for task in table.tasks),
        Column(MEAN, _mean_hint(table), numeric=True),
        *([Column("rank", "by the mean", numeric=True)] if ranks else []),
    )
    rows = [
        (
            Entry(words.title(cell)),
            *(_score(table, cell, task) for task in table.tasks),
            score_entries.overall_entry(
                cell, overall_score(table, cell), gaps.overall_gap(table, cell), table.scale.metric
            ),
            *([differences.rank_entry(table, ranks, cell)] if ranks else []),
        )
        for cell in table.cells
    ]
    below = _baseline_row(table)
    if ranks:
        below = (*below, Entry("–", kind="missing"))
    return Grid(
        "Score after the last step, mean ± 95\u00a0% half-width over seeds",
        columns,
        (*rows, below),
        note=_resolution(table),
        filter=True,
    )


def _mean_hint(table: ResultTable) -> str:
    same = "same seeds on all"
    if table.scale.kind == "gain":
        return f"{table.scale.gain}, higher is better, {same}"
    return same if table.averaged == MEAN else f"share of the way to perfect, {same}"


def _score(table: ResultTable, cell: Cell, task: str) -> Entry:
    score, metric = task_score(table, cell, task), metric_of(table, task)
    entry = score_entries.score_entry(score, gaps.gap(table.of(cell, task)), metric)
    slots = table.of(cell, task)
    broken = gaps.status_text(slots)
    collapsed = sum(
        s.record is not None and s.record.outcome.collapsed is True for s in slots if s.ok
    )
    parts = [broken] * bool(broken) + [f"{collapsed} collapsed"] * bool(collapsed)
    if entry.kind != "number" or not parts:
        return entry
    return Entry(entry.text, f"{entry.note}: {', '.join(parts)}", "number", entry.sort)


def baselines(table: ResultTable) -> list[tuple[str, float | None]]:
    """The baseline predictor on each task and in the mean: metric, and its score if it is known."""
    values = [baseline(table, task) for task in table.tasks]
    averaged = [baseline(table, task) for task in table.scale.tasks]
    known = [v for v in averaged if v is not None]
    mean = statistics.fmean(known) if known and len(known) == len(averaged) else None
    if mean is not None and table.averaged != MEAN:
        mean = 0.0
    keys = [*(metric_of(table, task) for task in table.tasks), table.scale.metric]
    return list(zip(keys, [*values, mean], strict=True))


def baseline_words(table: ResultTable) -> str:
    """What the baseline predictor guesses."""
    if any(s.job.causal is not None for s in table.slots):
        return "majority class, mean, commonest answer, or token counts"
    if any(metric_of(table, task) in GUESSED for task in table.tasks):
        return "majority class, shares of the classes, mean or median"
    return "majority class or mean"


def _baseline_row(table: ResultTable) -> tuple[Entry, ...]:
    entries = (_plain(key, value) for key, value in baselines(table))
    return (Entry(BASELINE, baseline_words(table)), *entries)


def _plain(metric: str, value: float | None) -> Entry:
    if value is None:
        return words.missing("not recorded")
    return Entry(words.score(metric, value), kind="number", sort=value)


def _resolution(table: ResultTable) -> str:
    metrics = sorted({words.metric_title(metric_of(table, task)) for task in table.tasks})
    parts = []
    scale = table.scale
    shown = [words.metric_title(metric_of(table, t)) for t in scale.tasks]
    if scale.kind == "share":
        alone = _alone(metric_of(table, scale.tasks[0]))
        shared = "have no common scale" if len(set(shown)) > 1 else alone
        parts.append(
            f"{words.listing(sorted(set(shown)))} {shared}, so the {MEAN} is of the {SHARE}: 0 for "
            "the baseline predictor, 1 for the best possible"
        )
    elif scale.kind == "gain" and scale.tasks:
        parts.append(f"{shown[0]} has no best possible value, so the {MEAN} is of the {scale.gain}")
    elif scale.why_none:
        parts.append(f"There is no {MEAN}: {scale.why_none}")
    elif len(metrics) > 1:
        parts.append(f"The mean over tasks averages {words.listing(metrics)}")
    if scale.left_out and scale.tasks:
        verb = "is" if len(scale.left_out) == 1 else "are"
        parts.append(
            f"{words.listing(scale.left_out)} {verb} left out of that mean, since the metric has "
            "no best possible value"
        )
    if shared := shared_rows_lines.sentence(table):
        parts.append(shared.removesuffix("."))
    for task in table.tasks:
        rows = {r.outcome.eval_rows for r in table.rows if r.job.task == task and r.ok}
        sizes = sorted(n for n in rows if n)
        if sizes and metric_of(table, task) == "accuracy":
            step = words.number(1 / sizes[0], 4)
            parts.append(f"{task}: one of {sizes[0]:,} evaluation rows is {step}")
    return "; ".join(parts) + "." if parts else ""


def _alone(metric: str) -> str:
    """Why values of one metric are not averaged as they are."""
    side = "lowest" if words.direction(metric).startswith("higher") else "highest"
    return "is better the lower it is" if bounded(metric) else f"has no {side} value"


def _dots(
    table: ResultTable,
    index: int,
    task: str,
    found: Mapping[tuple[Cell, str], comparison.Difference],
) -> Figure:
    look = marks(table.cells)
    shown = cell_selection.picks(table)
    rows = []
    for cell in shown:
        score = task_score(table, cell, task)
        missing = "" if score.by_seed else gaps.gap(table.of(cell, task)).text
        rows.append(DotRow(look[cell], score.values, score.estimate, missing))
    drawing = Dots(tuple(rows), lanes.axis(table, task), baseline(table, task))
    note = "One small dot a seed, marker and line for mean and interval, dashes at the baseline."
    note = f"{note} {cell_selection.left_out(table, len(shown), 'the table above')}".strip()
    return Figure(
        f"scores-{index}",
        summary.task_finding(table, task, found),
        drawing,
        note,
        title=_heading(table, task),
    )


def _selected(table: ResultTable) -> Block:
    """Scores at the step that the selection rows pick, or why no step can be picked."""
    if not any(s.job.recipe.selection_rows for s in table.slots):
        return Paragraph(
            "The recipes cut no selection rows from the training split, so no step can be picked "
            "honestly: only the last one counts."
        )
    return _elsewhere(
        table,
        "selected_metric_value",
        "At the step the selection rows pick",
        "The step is picked on rows cut from the training split and scored on the evaluation "
        "rows, which had no say in it.",
    )


def _best(table: ResultTable) -> Grid:
    return _elsewhere(
        table,
        "best_metric_value",
        "Best over the curve, picked on the evaluation rows (flattering)",
        "Not used in any comparison: the best of several looks at the same rows flatters.",
    )


def _elsewhere(table: ResultTable, name: str, caption: str, note: str) -> Grid:
    """A folded table of the primary metric at another step than the last."""
    columns = (Column("cell"), *(score_column(table, task) for task in table.tasks))
    rows = []
    for cell in table.cells:
        entries = []
        for task in table.tasks:
            slots = table.of(cell, task)
            score = task_score(table, cell, task, lambda r: raw(r, name))
            shown = score_entries.score_entry(score, gaps.gap(slots, name), metric_of(table, task))
            steps = _steps(slots) if name == "selected_metric_value" else ""
            if steps and shown.kind == "number":
                shown = Entry(shown.text, f"{shown.note}; {steps}", "number", shown.sort)
            entries.append(shown)
        rows.append((Entry(words.title(cell)), *entries))
    return Grid(caption, columns, tuple(rows), folded=True, note=note)


def _steps(slots: tuple[Slot, ...]) -> str:
    """The steps that were picked."""
    outcomes = [s.record.outcome for s in slots if s.record is not None and s.ok]
    picked = words.span(o.selected_step for o in outcomes if o.selected_step is not None)
    return f"step {picked}" if picked else ""


def _further(table: ResultTable) -> list[Grid]:
    """Metrics that stand beside the primary one, of what encoders read; none if there are none."""
    keys = {
        task: dict.fromkeys(
            key
            for slot in table.of(task=task)
            if slot.record is not None and slot.ok and slot.job.causal is None
            for key in slot.record.outcome.metrics
            if key != slot.job.metric
        )
        for task in table.tasks
    }
    places = [(task, key) for task, found in keys.items() for key in found]
    if not places:
        return []
    columns = (
        Column("cell"),
        *(
            Column(task, f"{words.metric_title(key)}, {words.direction(key)}", numeric=True)
            for task, key in places
        ),
    )
    rows = tuple(
        (Entry(words.title(cell)), *(_beside(table, cell, task, key) for task, key in places))
        for cell in table.cells
    )
    caption = "Further metrics after the last step, mean ± 95\u00a0% half-width over seeds"
    return [Grid(caption, columns, rows, folded=True)]


def _beside(table: ResultTable, cell: Cell, task: str, key: str) -> Entry:
    slots = table.of(cell, task)
    score = task_score(table, cell, task, lambda record: record.outcome.metrics.get(key))
    done = any(s.ok for s in slots)
    none = words.missing("not for these evaluation rows") if done else gaps.gap(slots)
    return score_entries.score_entry(score, none, key)


def _losses(table: ResultTable) -> Grid:
    """The task's own loss and the method's penalty, apart, at the end of training."""
    rows = tuple(
        (
            Entry(words.title(cell)),
            Entry(task),
            *(_loss(table, cell, task, name) for name in ("loss", "penalty")),
        )
        for task in table.tasks
        for cell in table.cells
    )
    columns = (
        Column("cell"),
        Column("task"),
        Column(title("loss"), f"of the task, {side('loss')}", numeric=True),
        Column(title("penalty"), "of the method, weighted", numeric=True),
    )
    grid = Grid(
        "Training loss at the end, mean ± 95\u00a0% half-width over seeds",
        columns,
        rows,
        folded=True,
        note="Mean over the last interval of the curve. The loss is the task's own; a method's "
        "penalty, such as AdaLoRA's for orthogonality, is never part of it.",
    )
    return gaps.fold_missing(grid, 2)


def _loss(table: ResultTable, cell: Cell, task: str, name: str) -> Entry:
    score = task_score(table, cell, task, lambda r: raw(r, name))
    return score_entries.score_entry(score, gaps.gap(table.of(cell, task), name))
