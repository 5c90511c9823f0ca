"""Advice of guides held against the measured rows: agree, disagree, or why it can't be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peftmark.advice import training_lines
from peftmark.advice.guides import ADVICE, Advice, Group, Test
from peftmark.advice.recommend import only, train_rows
from peftmark.advice.trade import MEMORY, Cost, fault, point, scores
from peftmark.analysis.comparison import pair_of
from peftmark.analysis.pareto import Point, costs_no_more, gain, log_ratio
from peftmark.analysis.scale import POINT, of_difference
from peftmark.analysis.stats import Comparison, seeds_to_decide
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.catalog.task import TaskKind
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.page import Column, Entry, EntryKind, Grid

Word = Literal["agree", "disagree", "can't say"]
Vote = Literal["for", "against", "open"]

LATENCY = Cost(
    "latency",
    "latency_p50_seconds",
    lambda r: _latency(r),
    False,
    lambda v: f"{words.short(1000 * v)} ms",
)
COSTS = {"memory": MEMORY, "latency": LATENCY}


def _latency(record: Record) -> float | None:
    """Seconds a batch as it would be served: merged where the method merges."""
    o = record.outcome
    return (
        o.latency_p50_seconds
        if o.merged_latency_p50_seconds is None
        else (o.merged_latency_p50_seconds)
    )


@dataclass(frozen=True)
class Judged:
    """What the rows say to an advice.

    Attributes:
        why: the figures, or why nothing can be said.
    """

    word: Word
    why: str


def judge(table: ResultTable, advice: Advice) -> Judged:
    """Hold an advice against the rows.

    Every pair of cells that the test names is compared on the tasks with the test's number of
    training rows. agree: all pairs show what the advice implies. disagree: all pairs show the
    opposite. Anything else can't be said.
    """
    test = advice.test
    if test is None:
        return Judged("can't say", advice.reason)
    low, high = test.rows
    spans = {t: train_rows(table, t) for t in table.tasks}
    tasks = [
        t
        for t, span in spans.items()
        if span and low <= span[0] and span[1] < high and _is_of(table, t, test.kinds)
    ]
    if not tasks:
        return Judged("can't say", _no_task(test))
    part = only(table, tasks)
    cost = COSTS.get(test.figure)
    if cost is None and (why := _no_scale(part, test)):
        return Judged("can't say", why)
    if cost is not None and (problem := fault(part, cost)):
        return Judged("can't say", f"{cost.title}: {problem}")
    pairs = [
        (a, b)
        for a in _of(part, test.better)
        for b in _of(part, test.than)
        if a != b and all(getattr(a, f) == getattr(b, f) for f in test.alike)
    ]
    if test.share is not None:
        pairs = [pair for pair in pairs if all(_is_small(part, c, test.share) for c in pair)]
    if not pairs:
        return Judged("can't say", _no_pair(test))
    votes = [(a, b, *_vote(part, a, b, test, cost)) for a, b in pairs]
    return _count(votes)


def _is_of(table: ResultTable, task: str, kinds: Sequence[TaskKind]) -> bool:
    known = table.example(task).known_task
    return not kinds or (known is not None and known.kind in kinds)


def _no_task(test: Test) -> str:
    if test.kinds:
        return f"no {words.listing(test.kinds)} task here"
    low, high = test.rows
    rows = f"fewer than {high:,.0f}" if low == 0 else f"more than {low - 1:,.0f}"
    return f"no task here has {rows} training rows"


def _no_pair(test: Test) -> str:
    # Every test that holds the size still is one of ranks.
    same = ("rank" if name == "size" else name for name in test.alike)
    alike = f" of the same {' and '.join(same)}" if test.alike else ""
    small = f", both within {test.share:.1%} of the base" if test.share else ""
    return f"needs {test.better.title} and {test.than.title}{alike}{small}; not measured here"


def _of(table: ResultTable, group: Group) -> list[Cell]:
    low, high = group.ranks or (0, float("inf"))
    return [
        cell
        for cell in table.cells
        if cell.method in group.methods
        and group.quantized in (None, cell.quantization != "none")
        and (group.ranks is None or (cell.size is not None and low <= cell.size <= high))
        and scores(table, cell)
    ]


def _is_small(table: ResultTable, cell: Cell, share: float) -> bool:
    """Whether every run's adapter has at most a share of the base's parameters."""
    runs = [s.record.outcome for s in table.of(cell) if s.ok and s.record is not None]
    found = [
        o.adapter_parameters / (o.total_parameters - o.adapter_parameters)
        for o in runs
        if o.adapter_parameters is not None and o.total_parameters is not None
    ]
    return len(found) == len(runs) > 0 and max(found) <= share


def _vote(table: ResultTable, a: Cell, b: Cell, test: Test, cost: Cost | None) -> tuple[Vote, str]:
    """What one pair shows, and its figure in words."""
    if cost is None:
        found = gain(scores(table, a), scores(table, b))
        if found is None:
            return "open", "no seed in common"
        text = _difference(found.within(of_difference(table.scale.limits)), table.scale.in_points)
        if saw := training_lines.saw_beside(table, a, b):
            # What trained longer would win by that alone: nothing is shown of the methods.
            return "open", f"{text}, but it {saw}"
        return _score_vote(table, a, b, found, test.drop * POINT), text
    mine, theirs = point(table, a, cost), point(table, b, cost)
    if mine is None or theirs is None:
        return "open", f"{cost.title} not recorded on every task"
    ratio = f"{words.times(mine.cost / theirs.cost)} its {cost.title}"
    return _cost_vote(mine, theirs), ratio


def _score_vote(table: ResultTable, a: Cell, b: Cell, found: Comparison, drop: float) -> Vote:
    """What a pair shows, as one of the family of pairs that the tables judge."""
    judged = pair_of(table, a, b)
    if found.se is None or judged is None:
        return "open"
    apart = judged.verdict in ("higher", "lower")
    if found.estimate.low > -drop and (drop or apart):
        return "for"
    return "against" if apart and found.estimate.high < -drop else "open"


def _cost_vote(mine: Point, theirs: Point) -> Vote:
    """Whether the first is shown to cost less, or not to."""
    if mine.exact:
        less, more = costs_no_more(mine, theirs), costs_no_more(theirs, mine)
        return "open" if less == more else "for" if less else "against"
    found = log_ratio(mine.costs, theirs.costs)
    if found is None or found.se is None:
        return "open"
    if found.estimate.high < 0:
        return "for"
    return "against" if found.estimate.low > 0 else "open"


def _no_scale(table: ResultTable, test: Test) -> str:
    """Why scores can't answer a test; empty if they can."""
    if table.scale.why_none:
        return table.scale.why_none
    return "" if table.scale.in_points or not test.drop else "the metric has no points"


def _difference(found: Comparison, in_points: bool) -> str:
    """A difference of scores, in points where those mean something."""
    unit, digits, noun = (POINT, 1, " points") if in_points else (1.0, 3, "")
    e = found.estimate
    value = words.number(e.mean / unit, digits, signed=True)
    if e.says_nothing:
        return f"{value}{noun}, but {words.nothing_shown(e.n, signed=True)}"
    half = "" if e.half_width is None else f" ± {words.number(e.half_width / unit, digits)}"
    if e.cut:
        ends = (words.number(end / unit, digits, signed=True) for end in (e.low, e.high))
        half = f" ({' to '.join(ends)})"
    seeds = seeds_to_decide(found) if e.half_width and abs(e.mean) <= e.half_width else None
    wanted = f", about {seeds} seeds would decide" if seeds else ""
    return f"{value}{half}{noun}{wanted}"


def _count(votes: list[tuple[Cell, Cell, Vote, str]]) -> Judged:
    counts = Counter(vote for _, _, vote, _ in votes)
    word: Word = "can't say"
    if counts["for"] == len(votes):
        word = "agree"
    elif counts["against"] == len(votes):
        word = "disagree"
    if len(votes) == 1:
        a, b, _, text = votes[0]
        return Judged(word, f"{words.title(a)} to {words.title(b)}: {text}")
    if word != "can't say":
        return Judged(word, f"in all {len(votes)} pairs of cells")
    shown = f"shown in {counts['for']} of {len(votes)} pairs of cells"
    return Judged(word, f"{shown}, the opposite in {counts['against']}")


def grid(table: ResultTable) -> Grid:
    """Every advice beside what the rows say to it."""
    rows = []
    for advice in ADVICE:
        found = judge(table, advice)
        source, _, part = advice.source.partition(", ")
        why = f"{advice.test.says}: {found.why}" if advice.test else found.why
        kind: EntryKind = "missing" if found.word == "can't say" else "text"
        rows.append(
            (
                Entry(source, part),
                Entry(f"if {advice.condition}: {advice.advice}"),
                Entry(found.word, kind=kind),
                Entry(why),
            )
        )
    columns = (
        Column("source"),
        Column("the guide says"),
        Column("measured here"),
        Column("what was tested, and the outcome"),
    )
    note = (
        "agree: every pair of cells that the advice names shows it, by a verdict over all pairs "
        "(Holm), an interval or an exact count. disagree: every pair shows the opposite. Guides "
        "speak of models with billions of parameters; a figure here holds for the model of this "
        "report alone."
    )
    return Grid("What guides advise, and what these rows say", columns, tuple(rows), note=note)
