"""The top of the page: what was learned, in careful words, and the summary strip."""

from __future__ import annotations

from collections.abc import Callable

from bench.methods import Cell
from bench.record import Record
from bench.report import gaps, measures, picks, words
from bench.report.page import Block, Column, Entry, Figure, Figures, Grid, Strip, StripRow, marks
from bench.stats import sign
from bench.table import (
    Ratio,
    ResultTable,
    Score,
    difference,
    overall_score,
    ratio,
    task_score,
)

MOST_NAMED = 6
FURTHEST = 3
INTERVALS = (
    "Intervals are 95\u00a0% t intervals for the mean over seeds; they do not cover the choice of "
    "evaluation rows."
)


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


def compare(table: ResultTable, score_of: Callable[[Cell], Score]) -> list[str]:
    """How each other cell stands to the reference, as parts of a sentence.

    Of many cells the furthest from the reference are named and the others counted.

    Args:
        table: the rows.
        score_of: a cell's scores by seed.
    """
    base = score_of(table.reference)
    found: dict[str, list[tuple[float, str]]] = {
        "higher": [], "lower": [], "undecided": [], "no interval": [],
    }  # fmt: skip
    for cell in table.others:
        pairs = difference(score_of(cell), base)
        if pairs.estimate is None:
            continue
        seeds = "" if pairs.complete else f", {len(pairs.by_seed)} of {pairs.planned} seeds"
        text = f"{words.title(cell)} ({words.plus_minus(pairs.estimate, signed=True)}{seeds})"
        found[sign(pairs.estimate)].append((pairs.estimate.mean, text))
    parts = []
    for key in ("higher", "lower"):
        names = words.listing([text for _, text in found[key]])
        if len(found[key]) > MOST_NAMED:
            furthest = sorted(found[key], key=lambda cell: -abs(cell[0]))[:FURTHEST]
            names = words.listing([text for _, text in furthest])
            parts.append(f"{len(found[key])} cells scored {key}, furthest {names}")
        elif names:
            parts.append(f"{names} scored {key}")
    for key, start in (
        ("undecided", "no difference shown for"),
        ("no interval", "not judged, for lack of a usable interval:"),
    ):
        names = words.listing([text for _, text in found[key]])
        if len(found[key]) > MOST_NAMED:
            names = f"{len(found[key])} cells"
        parts += [f"{start} {names}"] if names else []
    return parts


def finding(table: ResultTable) -> str:
    """One or two sentences on quality against the reference, over all tasks."""
    if not table.rows:
        if table.extras:
            return "Only tuning trials have run so far, so there is nothing to compare."
        return "Nothing has run yet, so there is nothing to compare."
    if not any(r.ok for r in table.rows):
        return "No run finished, so there is nothing to compare; the failures are listed below."
    name = words.title(table.reference)
    if table.reference not in table.cells:
        return f"The reference {name} is not part of this profile, so no comparison is made."
    base = overall_score(table, table.reference)
    if base.estimate is None:
        return (
            f"{name}, the reference, has no seed that finished every task, so no overall "
            "comparison is made; single tasks are compared below."
        )
    scope = (
        f"Over {words.plural(len(table.tasks), 'task')} and "
        f"{words.plural(len(base.by_seed), 'seed')}, "
        f"{name} scored {words.plus_minus(base.estimate)}"
    )
    parts = compare(table, lambda cell: overall_score(table, cell))
    if not parts:
        return f"{scope}; no other cell has a seed to compare it with."
    return f"{scope}. Against it: {'; '.join(parts)}."


def task_finding(table: ResultTable, task: str) -> str:
    """One sentence on one task."""
    base = task_score(table, table.reference, task)
    name = words.title(table.reference)
    if base.estimate is None:
        return f"{name} has no finished run, so nothing is compared."
    parts = compare(table, lambda cell: task_score(table, cell, task))
    if not parts:
        return f"Only {name} has finished runs."
    return f"Against {name}: {'; '.join(parts)}."


def cost_finding(table: ResultTable) -> str:
    """Which cells need the least memory and run fastest, relative to the reference."""
    name = words.title(table.reference)
    memory = {c: v for c in table.others if (v := memory_ratio(table, c).value) is not None}
    pace = {c: v for c in table.others if (v := ratio(table, c, speed).value) is not None}
    parts = []
    if memory:
        least = min(memory, key=lambda c: memory[c])
        parts.append(_extreme("Least peak memory", words.title(least), memory[least], "less", name))
    if pace:
        fastest = max(pace, key=lambda c: pace[c])
        parts.append(_extreme("fastest", words.title(fastest), pace[fastest], "more", name))
    return "; ".join(parts) + "." if parts else "No cost can be set against the reference."


def _extreme(what: str, cell: str, value: float, better: str, reference: str) -> str:
    ahead = value < 1 if better == "less" else value > 1
    if ahead:
        return f"{what}: {cell} at {words.times(value)} {reference}"
    return f"{what}: {reference} itself; next {cell} at {words.times(value)}"


def opening(table: ResultTable) -> tuple[Block, ...]:
    """The summary strip and its table."""
    if not any(r.ok for r in table.rows):
        return ()
    return (Figures((_strip(table),)), _verdicts(table))


def _strip(table: ResultTable) -> Figure:
    look = marks(table.cells)
    shown = picks.picks(table)
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
    note = (
        f"{picks.left_out(table, len(shown), 'the table below')} Score: mean over tasks, higher is "
        "better. Bars: ratio to the reference on a log scale, starting at 1×. "
        f"{memory_meaning(table)} {INTERVALS}"
    ).strip()
    drawing = Strip(rows, words.title(table.reference))
    return Figure("summary", cost_finding(table), drawing, note, wide=True)


def _why_no_quality(table: ResultTable, cell: Cell) -> str:
    if overall_score(table, cell).estimate is not None:
        return ""
    gap = gaps.overall_gap(table, cell)
    return f"{gap.text}: {gap.note}"


def _verdicts(table: ResultTable) -> Grid:
    reference = words.title(table.reference)
    columns = (
        Column("cell"),
        Column("score", f"mean over tasks, {_directions(table)}", numeric=True),
        Column("difference", f"to {reference}, paired by seed", numeric=True),
        Column("peak memory", "ratio, lower is better", numeric=True),
        Column("speed", "ratio, higher is better", numeric=True),
        Column("trainable parameters", "ratio, lower is better", numeric=True),
    )
    rows = tuple(_verdict_row(table, cell) for cell in table.cells)
    note = (
        "A difference is called higher or lower only where its interval excludes zero. The "
        f"intervals of the {words.plural(len(table.others), 'difference')} are not adjusted for "
        "one another; ratios of costs have no interval."
    )
    return Grid(f"Every cell against {reference}", columns, rows, note=note)


def _directions(table: ResultTable) -> str:
    keys = {s.job.metric for s in table.slots}
    return words.listing(sorted({words.direction(k) for k in keys}))


def _verdict_row(table: ResultTable, cell: Cell) -> tuple[Entry, ...]:
    score = overall_score(table, cell)
    gap = gaps.overall_gap(table, cell)
    if cell == table.reference:
        against = Entry("reference", kind="text")
    else:
        pairs = difference(score, overall_score(table, table.reference))
        against = words.score_entry(pairs, _no_difference(table, score, gap), signed=True)
    return (
        Entry(words.title(cell)),
        words.score_entry(score, gap),
        against,
        words.ratio_entry(memory_ratio(table, cell)),
        words.ratio_entry(ratio(table, cell, speed)),
        words.ratio_entry(ratio(table, cell, trainable)),
    )


def _no_difference(table: ResultTable, score: Score, gap: Entry) -> Entry:
    if score.estimate is None:
        return gap
    if table.reference not in table.cells:
        return words.missing("reference not in this profile")
    return words.missing("no seed shared with the reference")
