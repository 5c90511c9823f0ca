"""What language models write and forget: perplexities, answers, and text unrelated to the task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from peftmark.advice.trade import forgetting_text
from peftmark.analysis.comparison import row_order
from peftmark.analysis.scale import limits_of
from peftmark.analysis.stats import Estimate, Limits
from peftmark.analysis.table import (
    Read,
    ResultTable,
    Score,
    Slot,
    forgetting,
    overall_score,
    task_score,
)
from peftmark.catalog.methods import Cell
from peftmark.catalog.tasks import TASKS
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.page import Block, Column, Entry, Grid, Section, shorten
from peftmark.report import measures, missing, score_entries
from peftmark.report.measures import Measure, raw

EXAMPLES = 3
LONGEST = 120
"""Characters of a completion that are shown."""

OF_FORGETTING: Limits = (-1.0, math.inf)
"""A perplexity can fall to nothing at most."""

BEFORE, AFTER = "unrelated_perplexity_before", "unrelated_perplexity_after"
WRITING = Measure("generated_tokens_per_second")


def _metric(key: str) -> Read:
    return lambda record: record.outcome.metrics.get(key)


def _field(name: str) -> Read:
    return lambda record: raw(record, name)


SHOWN = {
    key: _metric(key) for key in ("exact_match", "rouge_l", "perplexity", "completion_perplexity")
}
"""Metric -> how it is read; in the order of the columns."""
ELSEWHERE = Entry("–", kind="missing")
"""A figure that other tasks have."""
UNRELATED = {name: _field(name) for name in (BEFORE, AFTER)}


def is_needed(table: ResultTable) -> bool:
    """Whether any row is of a causal language model."""
    return any(r.job.causal is not None for r in table.rows)


def section(table: ResultTable) -> Section:
    """Perplexities, answers and forgetting by cell and task, and some answers side by side."""
    examples = (_examples(table, task) for task in table.tasks)
    grids = (_forgotten_grid(table), _said_grid(table), *examples)
    blocks: list[Block] = [grid for grid in grids if grid is not None]
    return Section("language", "Language models", _lead(table), tuple(blocks))


def _lead(table: ResultTable) -> str:
    """Which cell forgot least and which most, by the means."""
    trained = [cell for cell in table.cells if cell.trains]
    known = {c: e for c in trained if (e := overall_score(table, c, forgetting).estimate)}
    if not known:
        return "No cell has a figure of what it forgot on every task."
    least = min(known, key=lambda c: known[c].mean)
    most = max(known, key=lambda c: known[c].mean)
    start = "Forgetting, by the perplexity of unrelated text, mean over tasks"
    if least == most:
        return f"{start}: {words.title(least)} at {_forgotten(known[least])}."
    return (
        f"{start}: least with {words.title(least)} at {_forgotten(known[least])}, most with "
        f"{words.title(most)} at {_forgotten(known[most])}."
    )


def _forgotten(estimate: Estimate) -> str:
    return _plus_minus(estimate.within(OF_FORGETTING), forgetting_text)


def _plus_minus(estimate: Estimate, text: Callable[[float], str]) -> str:
    if estimate.half_width is None:
        return text(estimate.mean)
    if estimate.says_nothing:
        return f"{text(estimate.mean)}, but {words.nothing_shown(estimate.n, signed=False)}"
    if estimate.cut:
        return f"{text(estimate.mean)}, {text(estimate.low)} to {text(estimate.high)}"
    return f"{text(estimate.mean)} ± {text(estimate.half_width).lstrip('+')}"


# --- figures ------------------------------------------------------------------------------------


def _causal_rows(table: ResultTable) -> list[tuple[Cell, str]]:
    return [
        (cell, task)
        for task in table.tasks
        for cell in table.cells
        if any(s.job.causal is not None for s in table.of(cell, task))
    ]


def _forgotten_grid(table: ResultTable) -> Grid:
    """Unrelated text, and tokens a second."""
    asked = [r for r in table.rows if r.ok and r.job.causal is not None]
    writing = {task for task in table.tasks if any(_written(s) for s in table.of(task=task))}
    columns = (
        Column("cell"),
        Column("task"),
        Column("unrelated text", "perplexity before → after", numeric=True),
        Column("forgetting", "rise of that perplexity, lower is better", numeric=True),
        measures.TOKENS.column,
        WRITING.column,
    )
    rows = tuple(
        (
            Entry(words.title(cell)),
            Entry(task),
            _unrelated(table, cell, task),
            _forgetting(table, cell, task),
            measures.entry(table, cell, task, measures.TOKENS),
            ELSEWHERE
            if task not in writing and writing
            else measures.entry(table, cell, task, WRITING),
        )
        for cell, task in _causal_rows(table)
    )
    caption = "What was forgotten, mean ± 95\u00a0% half-width over seeds"
    return missing.fold_missing(Grid(caption, columns, rows, note=_note(asked)), 2)


def _said_grid(table: ResultTable) -> Grid | None:
    """Further metrics of the tasks that have any."""
    known = {
        task: [k for k in SHOWN if any(k in s.outcome.metrics for s in _finished(table, task))]
        for task in table.tasks
    }
    keys = [key for key in SHOWN if any(key in metrics for metrics in known.values())]
    if not keys:
        return None
    columns = (
        Column("cell"),
        Column("task"),
        *(Column(words.metric_title(k), words.direction(k), numeric=True) for k in keys),
    )
    rows = tuple(
        (Entry(words.title(cell)), Entry(task), *(_said(table, cell, task, key) for key in keys))
        for cell, task in _causal_rows(table)
        if known[task]
    )
    caption = "Texts and answers by task, mean ± 95\u00a0% half-width over seeds"
    note = (
        "Perplexities of different models are not comparable: their tokenizers cut text into other "
        "tokens."
    )
    return Grid(caption, columns, rows, note=note)


def _finished(table: ResultTable, task: str) -> list[Record]:
    return [s.record for s in table.of(task=task) if s.record is not None and s.ok]


def _note(asked: Sequence[Record]) -> str:
    names = dict.fromkeys(r.job.causal.unrelated.partition(":")[0] for r in asked if r.job.causal)
    texts = [f"{TASKS[n].title} ({n})" if n in TASKS else n for n in names if n]
    told = f"Unrelated text: {words.listing(texts)}, read" if texts else "Unrelated text is read"
    return (
        f"{told} by the loaded base before the method is put on it, and by the trained model; "
        "forgetting is after over before, less 1. Training tokens are counted without padding, "
        "written ones up to the end of each answer."
    )


def _said(table: ResultTable, cell: Cell, task: str, key: str) -> Entry:
    slots = table.of(cell, task)
    score = task_score(table, cell, task, SHOWN[key])
    if score.estimate is None and any(s.ok for s in slots):
        return ELSEWHERE
    digits = words.short if "perplexity" in key else words.number
    return _entry(score, missing.gap(slots), digits, limits_of(key))


def _entry(score: Score, gap: Entry, text: Callable[[float], str], limits: Limits | None) -> Entry:
    estimate = score.estimate
    if estimate is None:
        return gap
    count = score_entries.score_entry(score, gap).note
    shown = _plus_minus(estimate.within(limits), text)
    return Entry(shown, count, "number", estimate.mean)


def _unrelated(table: ResultTable, cell: Cell, task: str) -> Entry:
    before, after = (task_score(table, cell, task, read) for read in UNRELATED.values())
    if before.estimate is None or after.estimate is None:
        name = BEFORE if before.estimate is None else AFTER
        return missing.gap(table.of(cell, task), name)
    means = before.estimate.mean, after.estimate.mean
    return Entry(" → ".join(map(words.short, means)), "", "number", means[1])


def _forgetting(table: ResultTable, cell: Cell, task: str) -> Entry:
    gap = missing.gap(table.of(cell, task), AFTER)
    score = task_score(table, cell, task, forgetting)
    return _entry(score, gap, forgetting_text, OF_FORGETTING)


# --- answers ------------------------------------------------------------------------------------


def _examples(table: ResultTable, task: str) -> Grid | None:
    """The first answers of the reference, beside the untouched base's to the same rows."""
    mine = next((r for s in table.of(table.reference, task) if (r := _written(s))), None)
    if mine is None:
        return None
    wanted = (mine.job.seed, row_order(mine.job), len(mine.outcome.completions))
    others = [
        r
        for cell in table.others
        if not cell.trains
        for s in table.of(cell, task)
        if (r := _written(s))
        and (r.job.seed, row_order(r.job), len(r.outcome.completions)) == wanted
    ]
    shown = (mine, *others)
    columns = (Column("row"), *(Column(words.title(r.job.cell)) for r in shown))
    rows = tuple(
        (Entry(f"row {i + 1}"), *(_completion(r, i) for r in shown))
        for i in range(min(EXAMPLES, len(mine.outcome.completions)))
    )
    note = (
        f"The first evaluation rows of seed {mine.job.seed}, cut at {LONGEST} characters; prompts "
        "and right answers are not stored. Below: what the row adds to the score."
    )
    return Grid(f"What was written on {task}", columns, rows, note=note)


def _written(slot: Slot) -> Record | None:
    record = slot.record
    return record if record is not None and slot.ok and record.outcome.completions else None


def _completion(record: Record, index: int) -> Entry:
    outcome = record.outcome
    plain = "".join(c if c.isprintable() else " " for c in outcome.completions[index])
    text = f"“{shorten(plain, LONGEST)}”" if plain.strip() else "(nothing)"
    note = ""
    if len(outcome.predictions) == len(outcome.completions):
        value = words.number(outcome.predictions[index], 2)
        note = f"{words.metric_title(record.job.metric)} {value}"
    return Entry(text, note)
