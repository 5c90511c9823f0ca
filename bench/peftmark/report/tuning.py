"""How easy a method is to tune: its scores over the settings that were tried, and what tuning gave.

Settings are compared after the first round of trials, which all of them are in; the rounds after it
only choose among the best.
"""

from __future__ import annotations

import statistics
from typing import Any

from peftmark.analysis.scale import has_best, point, point_text, shares_unit
from peftmark.analysis.table import Ratio, ResultTable
from peftmark.catalog.methods import Cell
from peftmark.render import words
from peftmark.render.page import (
    Block,
    Column,
    Entry,
    Figures,
    Grid,
    Paragraph,
    Section,
    shorten,
)
from peftmark.report import cell_selection, missing
from peftmark.report.quality import metric_of
from peftmark.report.tuning_pictures import NEAR, knobs_of, pictures
from peftmark.suite import trials
from peftmark.suite.search import score_of
from peftmark.suite.trials import RATE, Choice, Setting, Tried

UNEQUAL = "first trials have other lengths, so shares are not compared"
MOST_EDGES = 12
Choices = dict[tuple[Cell, str], Choice]


def section(table: ResultTable) -> Section:
    """Ease of use, a picture for each setting and task, what trials cost, and every score."""
    found = trials.choices(table.jobs, table.records)
    blocks: list[Block] = [_ease_grid(table, found), Paragraph(_trials_text(table, found))]
    if searched := _search_text(table, found):
        blocks.append(Paragraph(searched))
    edges = _edges_text(table, found)
    if edges:
        blocks.append(Paragraph(edges))
    drawn = tuple(
        figure
        for task in table.tasks
        for mine in [{cell: choice for (cell, on), choice in found.items() if on == task}]
        for knob in knobs_of(found.values())
        for figure in pictures(table, mine, knob, _tolerance(table, task))
    )
    if drawn:
        where = "the table below"
        omitted = cell_selection.left_out(table, len(cell_selection.picks(table)), where)
        blocks += [Paragraph(omitted)] if omitted else []
        blocks.append(Figures(drawn))
    blocks += [_ledger(table, found), _scores(table, found)]
    return Section("tuning", "How easy is it to tune?", _lead(table, found), tuple(blocks))


def ease(table: ResultTable, cell: Cell) -> Ratio:
    """Share of a cell's settings within one point of its best, mean over tasks."""
    return _ease(table, trials.choices(table.jobs, table.records), cell)


def _ease(table: ResultTable, found: Choices, cell: Cell) -> Ratio:
    if any(c == cell for c, _ in found) and _unequal(found):
        return Ratio(None, 0, len(table.tasks), UNEQUAL)
    shares = [_within(table, found, cell, task) for task in table.tasks]
    known = [s for s in shares if s is not None]
    if len(known) == len(shares) > 0:
        return Ratio(statistics.fmean(known), len(known), len(shares))
    tuned = any(c == cell for c, _ in found)
    reason = f"known on {len(known)} of {words.plural(len(shares), 'task')}" if tuned else ""
    if tuned and (pointless := [t for t in table.tasks if _tolerance(table, t) is None]):
        reason = f"{words.listing(pointless)}: the metric has no points"
    return Ratio(None, len(known), len(shares), reason or "nothing was tuned")


def _unequal(found: Choices) -> bool:
    """Whether the first trials of some task are longer for one cell than for another."""
    lengths: dict[str, set[int]] = {}
    for (_, task), choice in found.items():
        lengths.setdefault(task, set()).add(choice.first_steps)
    return any(len(steps) > 1 for steps in lengths.values())


def _within(table: ResultTable, found: Choices, cell: Cell, task: str) -> float | None:
    choice = found.get((cell, task))
    tolerance = _tolerance(table, task)
    if choice is None or choice.missing or tolerance is None:
        return None
    return choice.within(tolerance)


def _tolerance(table: ResultTable, task: str) -> float | None:
    """One point of a task's metric, with the baseline on the rows that trials are scored on; None
    where points mean nothing."""
    planned = [s for s in table.planned("tuning") if s.job.task == task]
    read = [s.value(lambda r: r.outcome.baseline_value) for s in planned]
    known = [value for value in read if value is not None]
    return point(metric_of(table, task), statistics.fmean(known) if known else None)


def _what(found: Choices) -> str:
    """What was tried, in a word."""
    return "learning rates" if list(knobs_of(found.values())) == [RATE] else "settings"


def _lead(table: ResultTable, found: Choices) -> str:
    easy = {c: v for c in table.cells if (v := _ease(table, found, c).value) is not None}
    if not easy and _unequal(found):
        return (
            "Methods with more settings were tried in shorter trials first, so how much their "
            "settings matter is shown for each and not compared."
        )
    if not easy:
        return "No cell has all its trials yet, so nothing is said about how easy it is to tune."
    best, worst = max(easy.values()), min(easy.values())
    what = _what(found)
    near = f"of the {what} lie {NEAR}"
    to = "the learning rate" if what == "learning rates" else "what was tuned"
    text = f"Least sensitive to {to}: {_names(easy, best)}, {_percent(best)} {near}"
    if best == worst:
        return f"{text}." if len(easy) == 1 else f"{text}; no cell differs from another."
    return f"{text}. Most sensitive: {_names(easy, worst)}, {_percent(worst)}."


def _names(easy: dict[Cell, float], value: float) -> str:
    return words.some([words.title(cell) for cell, share in easy.items() if share == value])


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"


def _trials_text(table: ResultTable, found: Choices) -> str:
    seeds = sorted({s.job.seed for s in table.planned("tuning")})
    reported = sorted({s.job.seed for s in table.slots})
    if any(one.steps != choice.first_steps for choice in found.values() for one in choice.lengths):
        text = (
            "All settings were trained for a few steps, the better ones for more, the last as long "
            "as a reported run, with another seed each time; each end of training was scored on "
            "the selection rows. Shares and pictures are of the first trials, which all settings "
            f"are in. Tuning seeds: {words.listing([str(s) for s in seeds])}"
        )
    else:
        counts = {len(choice.tried) for choice in found.values()}
        each = "Every cell" if len(counts) == 1 else "A cell"
        text = (
            f"{each} got {words.span(counts)} {_what(found)} a task, "
            f"{words.plural(len(seeds), 'trial')} each, scored on the selection rows. Tuning "
            f"seeds: {words.listing([str(s) for s in seeds])}"
        )
    if not reported:
        return f"{text}."
    apart = "others" if not set(seeds) & set(reported) else "not all others"
    return f"{text}; reporting seeds are {apart}: {words.listing([str(s) for s in reported])}."


def _search_text(table: ResultTable, found: Choices) -> str:
    """Which cells trials chose to be reported; empty where all are, or while none is."""
    tried = dict.fromkeys(cell for cell, _ in found)
    behind = [cell for cell in tried if not table.of(cell)]
    if not behind or not table.slots:
        return ""
    scores = ((cell, score_of(found, cell)) for cell in behind)
    told = [
        f"{words.title(cell)} ({'no score' if score is None else format(score, '.3f')})"
        for cell, score in scores
    ]
    return (
        f"{words.plural(len(tried) - len(behind), 'cell')} of {len(tried)} went on to the reported "
        "seeds, by the mean of their best trials on selection rows (higher is better); the others, "
        f"of which nothing more is known: {words.listing(told)}."
    )


def _edges_text(table: ResultTable, found: Choices) -> str:
    edges = [
        f"{words.title(cell)} on {task}"
        for cell in table.cells
        for task in table.tasks
        if (choice := found.get((cell, task))) and not choice.missing and choice.at_edge(RATE)
    ]
    if not edges:
        return ""
    return (
        "Chosen at the edge of the grid, so a better rate may lie outside it: "
        f"{words.some(edges, MOST_EDGES)}; the table of shares marks each."
    )


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
    what = _what(found)
    return Grid(
        f"Share of the {what} {NEAR}",
        columns,
        tuple(rows),
        note=f"One point is {_points(table)}. A trial that failed counts as not within. "
        f"The small line names the chosen {'rate' if what == 'learning rates' else 'setting'}.",
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
    name = _setting(choice, choice.chosen) + (", edge of the grid" if choice.at_edge(RATE) else "")
    share = None if tolerance is None else choice.within(tolerance)
    if share is None:
        return words.missing(f"{name}; the metric has no points")
    return Entry(_percent(share), name, "number", share)


def _ledger(table: ResultTable, found: Choices) -> Grid:
    """What the trials of each cell took, and what they gave."""
    columns = (
        Column("cell"),
        Column("task"),
        Column("trials", numeric=True),
        Column("steps", "of all trials", numeric=True),
        Column("rounds", "settings × steps"),
        Column("gain", "best over middle setting", numeric=True),
    )
    rows = []
    for task in table.tasks:
        for cell in table.cells:
            choice = found.get((cell, task))
            if choice is None:
                continue
            count = sum(one.settings for one in choice.lengths)
            rounds = ", ".join(f"{one.settings} × {one.steps:,}" for one in choice.lengths)
            rows.append(
                (
                    Entry(words.title(cell)),
                    Entry(task),
                    Entry(f"{count:,}", kind="number", sort=count),
                    Entry(f"{choice.steps:,}", kind="number", sort=choice.steps),
                    Entry(rounds),
                    _gain(table, choice),
                )
            )
    return Grid(
        "What tuning took and gave",
        columns,
        tuple(rows),
        note="The gain is how far the best setting was above the middle one after the first round, "
        "in the task's metric; the best of several is flattered by the luck of one seed.",
    )


def _gain(table: ResultTable, choice: Choice) -> Entry:
    if choice.missing:
        return words.missing(f"{words.plural(choice.missing, 'trial')} not run yet")
    if choice.gain is None:
        return words.missing("fewer than two settings have a score")
    shown = words.score(table.example(choice.task).metric, choice.gain)
    return Entry(shown, kind="number", sort=choice.gain)


def _scores(table: ResultTable, found: Choices) -> Grid:
    most = max((len(choice.tried) for choice in found.values()), default=0)
    word = "rate" if _what(found) == "learning rates" else "setting"
    columns = (
        Column("cell"),
        Column("task"),
        *(Column(f"{word} {i + 1}", "score on selection rows", numeric=True) for i in range(most)),
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
    caption = f"Every {word if word == 'setting' else 'learning rate'} and its score, mean over "
    caption += "tuning seeds" if word == "rate" else "the seeds of the first round"
    return Grid(caption, columns, rows, folded=True, note="Values rise from left to right.")


def _score(table: ResultTable, choice: Choice, index: int) -> Entry:
    if index >= len(choice.tried):
        return words.missing("a shorter grid")
    one = choice.tried[index]
    name = _setting(choice, one.setting)
    if one.score is not None:
        note = f"{name}, chosen" if one.setting == choice.chosen else name
        shown = words.score(table.example(choice.task).metric, one.score)
        return Entry(shown, note, "number", one.score)
    gap = missing.gap([s for s in _slots(table, choice, one) if not s.ok])
    return Entry(gap.text, shorten(f"{name}; {gap.note}".removesuffix("; "), 90), gap.kind)


def _slots(table: ResultTable, choice: Choice, one: Tried) -> list[Any]:
    """The trials of a setting."""
    return [
        s
        for s in table.planned("tuning")
        if (s.job.cell, s.job.task) == (choice.cell, choice.task) and s.job.recipe.key == one.key
    ]


def _setting(choice: Choice, setting: Setting) -> str:
    """A setting in words: the rate as it is, every other by its name."""
    told = []
    for knob, value in zip(choice.knobs, setting, strict=True):
        shown = words.knob_value(knob, value)
        told.append(shown if knob == RATE else f"{words.knob(knob)} {shown}")
    return ", ".join(told)
