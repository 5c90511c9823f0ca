"""What each cell costs: time, work, memory, parameters, bytes and what it takes to deploy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from peftmark.advice.money import MEANING, NAME, NO_PRICE
from peftmark.analysis.table import ResultTable, ratio, task_score
from peftmark.catalog.methods import Cell
from peftmark.core.amounts import Price
from peftmark.record.fields import LIVE_PARTS, side, title
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.chart_specs import Stack, StackRow
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
from peftmark.report import cell_selection, machines, measures, missing, summary
from peftmark.report.measures import Measure
from peftmark.report.provenance import form

KEYS = 2
MOST_ROWS = 1000
"""Pairs of cell and task up to which tables of costs have a row for each."""


def section(table: ResultTable, price: Price | None = None) -> Section:
    """Costs relative to the reference, then each kind of cost by task."""
    blocks: list[Block] = [_relative(table)]
    budget = equal_budget(table)
    if budget:
        blocks.append(Paragraph(budget))
    if any(r.ok for r in table.rows):
        blocks.append(_time(table, price))
        pictures = _picture(table)
        if pictures:
            blocks.append(Figures(pictures))
        blocks += [_live(table), _meters(table), _deployment(table)]
        blocks += [*_latency_by_rows(table), _parameters(table)]
    shown = (summary.strip(table),) if any(r.ok for r in table.rows) else ()
    return Section("costs", "What it costs", summary.cost_finding(table), tuple(blocks), shown)


def equal_budget(table: ResultTable) -> str:
    """Which rank of each method the rank in a cell's name is; empty if no row says so."""
    names: dict[str, list[str]] = {}
    starts: set[int] = set()
    for cell in table.cells:
        if cell.size is None:
            continue
        slots = table.of(cell)
        known = {s.record.outcome.matched_rank for s in slots if s.record is not None and s.ok}
        name = words.title(cell._replace(size=None, variant=""))
        for matched in sorted(m for m in known if m):
            if name not in names.setdefault(matched, []):
                names[matched].append(name)
        schedules = [a for s in slots if (a := s.job.recipe.adalora) is not None]
        starts |= {a.init_rank for a in schedules if a.init_rank is not None}
    budgets = any(s.job.recipe.budget is not None for s in table.slots)
    apart = (
        "Cells with a budget are matched by their adapter's parameters, head apart; the table of "
        "parameters says what was wanted and what was achieved."
    )
    if not names:
        return apart if budgets else ""
    parts = [f"{matched} of {words.some(methods)}" for matched, methods in sorted(names.items())]
    text = f"Cells are matched by the size in their names: {'; '.join(parts)}."
    if "target_r" in names and starts:
        text += (
            f" target_r is what is left at the end of training; it starts at init_r "
            f"{words.span(starts)}, so it trains more parameters at its peak than LoRA of the "
            "same name."
        )
    return f"{text} {apart}" if budgets else text


def _by_task(
    table: ResultTable,
    caption: str,
    columns: Sequence[Measure],
    note: str,
    *,
    folded: bool = False,
) -> Grid:
    """One row a cell and task, without the columns that no row has a value for.

    Of very many, one row a cell: the mean over its tasks.
    """
    tasks: Sequence[str | None] = table.tasks
    if len(table.cells) * len(table.tasks) > MOST_ROWS:
        tasks = [None]
        note = f"{note} Means over all tasks: rows.csv beside the page has each."
    rows = tuple(
        (
            Entry(words.title(cell)),
            Entry(task or "all tasks"),
            *(measures.entry(table, cell, task, m) for m in columns),
        )
        for task in tasks
        for cell in table.cells
    )
    heads = (Column("cell"), Column("task"), *(m.column for m in columns))
    return missing.fold_missing(Grid(caption, heads, rows, folded, note), KEYS)


def _time(table: ResultTable, price: Price | None) -> Grid:
    note = (
        "From the timed training steps alone: warm-up steps, evaluation and saving are left out. "
        "Tokens are counted without padding. A multiply and an add are two operations. mfu is the "
        "share of the rate that a large matrix product reached on the same machine, threads and "
        "precision in the same job."
    )
    columns: tuple[Measure, ...] = measures.TIME
    if price is not None:
        columns = (*columns, measures.price_of_a_run(price))
        note += f" {NAME}: {MEANING}, at {price.text}."
    else:
        note += f" {NAME}: n/a, as {NO_PRICE}."
    note = " ".join(filter(None, (note, form(table), machines.note(table))))
    return _by_task(table, "Time and work by task, mean over seeds", columns, note)


def _picture(table: ResultTable) -> tuple[Figure, ...]:
    """The parts of the live peak as bars, over the tasks on which every cell has them."""
    total, parts = measures.LIVE[0], measures.LIVE[1:]
    means = {
        (cell, task): _means(table, cell, task, parts)
        for cell in table.cells
        for task in table.tasks
    }
    shown = cell_selection.picks(table)
    drawn = [cell for cell in shown if any(means[cell, task] for task in table.tasks)]
    if not drawn:
        return ()
    have = {task: [c for c in drawn if means[c, task]] for task in table.tasks}
    tasks = [task for task in table.tasks if len(have[task]) == len(drawn)]
    if not tasks:  # no task has them all: the one that has most
        tasks = [max(table.tasks, key=lambda task: len(have[task]))]
        drawn = have[tasks[0]]
    look = marks(table.cells)
    rows = []
    for cell in shown:
        if cell not in drawn:
            gap = missing.gap([s for task in tasks for s in table.of(cell, task)], total.name)
            rows.append(StackRow(look[cell], (), f"{gap.text} {gap.note}".strip()))
            continue
        sizes = zip(*(means[cell, task] for task in tasks), strict=True)
        rows.append(StackRow(look[cell], tuple(statistics.fmean(size) for size in sizes)))
    most = max(rows, key=lambda row: sum(row.sizes))
    largest = max(range(len(parts)), key=lambda i: most.sizes[i])
    scope = "Of the cells drawn, most" if len(shown) < len(table.cells) else "Most"
    finding = (
        f"{scope} tensor bytes at the peak: {most.mark.label}, {words.short(sum(most.sizes))} MiB; "
        f"largest part: {LIVE_PARTS[largest].title}."
    )
    note = (
        f"Mean over seeds and {words.listing(tasks)}. Parts from left to right as in the key. "
        f"{cell_selection.left_out(table, len(shown), 'the table of live bytes')}"
    ).strip()
    titles = tuple(part.title for part in LIVE_PARTS)
    drawing = Stack(tuple(rows), titles, f"MiB of live tensors at the peak, {side(total.name)}")
    return (Figure("memory", finding, drawing, note, wide=True),)


def _means(
    table: ResultTable, cell: Cell, task: str, parts: Sequence[Measure]
) -> tuple[float, ...]:
    """Mean MiB of each part over the seeds; empty unless every part is known."""
    scores = [task_score(table, cell, task, part.read) for part in parts]
    if not all(score.by_seed for score in scores):
        return ()
    return tuple(m.pick(s.values) / m.scale for m, s in zip(parts, scores, strict=True))


def _live(table: ResultTable) -> Grid:
    note = (
        "Exact bytes of all tensors alive at the peak of a few probe steps outside the timed "
        "ones; they do not depend on machine or threads. The parts add up to the peak. Trained "
        "weights of full fine-tuning stand under trained."
    )
    caption = "Peak of live tensor bytes by part, MiB, mean over seeds"
    return _by_task(table, caption, measures.LIVE, note, folded=True)


def _meters(table: ResultTable) -> Grid:
    note = (
        "These are different quantities, not to be compared with one another: live tensors are "
        "what the method needs; VmHWM is the process as the kernel counts it, with libraries, "
        "threads and what the allocator keeps; torch's figures are its CUDA allocator; NVML's "
        "are sampled from outside, with the CUDA context, and miss paged optimizer states."
    )
    note = f"{note} {machines.note(table)}".strip()
    caption = "Memory as other meters saw it, MiB, mean over seeds"
    return _by_task(table, caption, measures.METERS, note, folded=True)


def _deployment(table: ResultTable) -> Grid:
    rows = tuple(
        (
            Entry(words.title(cell)),
            *(measures.entry(table, cell, None, m) for m in measures.DEPLOYMENT),
            _merge_target(table, cell),
        )
        for cell in table.cells
    )
    heads = (
        Column("cell"),
        *(m.column for m in measures.DEPLOYMENT),
        Column(title("merge_target")),
    )
    note = (
        "Latency: time to score one batch of a fixed set, with the adapter apart and merged into "
        "the base. The errors are the largest absolute differences of a logit over all runs: "
        "merged to unmerged, and the saved files loaded into a fresh base to the trained model."
    )
    note = f"{note} {machines.note(table)}".strip()
    caption = "What it takes to deploy, mean over tasks and seeds"
    return missing.fold_missing(Grid(caption, heads, rows, note=note), 1)


def _latency_by_rows(table: ResultTable) -> list[Grid]:
    """Latency of batches of 1, 4 and 8 rows; nothing if no row has it."""
    columns = measures.LATENCY_BY_ROWS
    if not any(m.read(row) is not None for row in table.rows if row.ok for m in columns):
        return []
    rows = tuple(
        (Entry(words.title(cell)), *(measures.entry(table, cell, None, m) for m in columns))
        for cell in table.cells
    )
    note = (
        "Median time to score so many rows at once, of the same rows for every cell, with the "
        f"adapter apart and merged into the base. {machines.note(table)}"
    )
    caption = "Latency by rows of a batch, mean over tasks and seeds"
    heads = (Column("cell"), *(m.column for m in columns))
    return [missing.fold_missing(Grid(caption, heads, rows, note=note.strip(), folded=True), 1)]


def _merge_target(table: ResultTable, cell: Cell) -> Entry:
    slots = table.of(cell)
    found = {s.record.outcome.merge_target for s in slots if s.record is not None and s.ok}
    known = sorted(t for t in found if t)
    return Entry("; ".join(known)) if known else missing.gap(slots, "merge_target")


def _parameters(table: ResultTable) -> Grid:
    """One row a cell and head size: tasks with the same figures share a row."""
    rows: dict[tuple[str, tuple[Entry, ...]], list[str]] = {}
    for cell in table.cells:
        for task in table.tasks:
            trainable, *rest = (measures.entry(table, cell, task, m) for m in measures.PARAMETERS)
            figures = (_size(table, cell, task), _budget(table, cell, task), trainable, *rest)
            rows.setdefault((words.title(cell), figures), []).append(task)
    grid = Grid(
        "Parameters, counted three ways",
        (
            Column("cell"),
            Column("task"),
            Column("size", "rank, width or tokens", numeric=True),
            Column("budget", "wanted; what the adapter has", numeric=True),
            *(m.column for m in measures.PARAMETERS),
        ),
        tuple(
            (Entry(name), Entry(words.listing(tasks)), *figures)
            for (name, figures), tasks in rows.items()
        ),
        note="Trainable: with gradients at the start, where AdaLoRA holds init_r. Adapter: that "
        "without classifier and pooler. Active: trainable less what was pruned to zero by the end. "
        "Saved: what the files hold. 4-bit weights are counted unpacked in the total. A budget is "
        "one of adapter parameters; where sizes differ between modules, the size is their mean.",
    )
    return missing.fold_missing(grid, KEYS)


def _size(table: ResultTable, cell: Cell, task: str) -> Entry:
    """Rank, width or number of tokens: as the suite gives it, or as the budget does."""
    if cell.size is not None:
        return Entry(str(cell.size), kind="number", sort=float(cell.size))
    slots = table.of(cell, task)
    if slots and slots[0].job.recipe.budget is None:
        return words.missing("the method has no size")
    found = {n for s in slots if s.ok and s.record and (n := s.record.outcome.solved_size)}
    if not found:
        return missing.gap(slots, "solved_size")
    return Entry(words.span(found), "from the budget", "number", float(max(found)))


def _budget(table: ResultTable, cell: Cell, task: str) -> Entry:
    """The adapter parameters that were wanted, those that it has, and how far off they are."""
    slots = table.of(cell, task)
    pairs = {
        (wanted, found)
        for s in slots
        if s.ok and s.record is not None
        if (wanted := s.record.outcome.budget_parameters)
        and (found := _spent(s.record)) is not None
    }
    if not pairs:
        return missing.gap(slots, "budget_parameters")
    wanted, found = max(pairs, key=lambda pair: abs(pair[1] / pair[0] - 1))
    off = words.number(100 * (found / wanted - 1), 1, signed=True)
    return Entry(f"{wanted:,}", f"has {found:,}, {off}\u00a0%", "number", float(wanted))


def _spent(record: Record) -> int | None:
    """Adapter parameters left at the end: what a budget is about, also where ranks are pruned."""
    active, head = record.outcome.active_parameters, record.outcome.head_parameters
    return None if active is None or head is None else active - head


def _relative(table: ResultTable) -> Grid:
    reference = words.title(table.reference)
    columns = (
        Column("cell"),
        *(Column(m.title, side(m.name), numeric=True) for m in measures.RELATIVE),
    )
    rows = tuple(
        (Entry(words.title(cell)), *(_ratio(table, cell, m) for m in measures.RELATIVE))
        for cell in table.cells
    )
    note = (
        f"{summary.memory_meaning(table)} Ratio on the same task and seed, averaged "
        "geometrically. Where a run failed, its pair is missing and the count says so. "
        f"{machines.note(table)}"
    )
    grid = Grid(f"Costs relative to {reference}", columns, rows, note=note.strip())
    return missing.fold_missing(grid, 1)


def _ratio(table: ResultTable, cell: Cell, measure: Measure) -> Entry:
    if measure is measures.PEAK:
        found = summary.memory_ratio(table, cell)
    else:
        found = ratio(table, cell, measure.read)
    return missing.ratio_entry(table, cell, found, measure.name)
