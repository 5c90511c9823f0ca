"""Branches of guides held against the measured rows: what they show of each, or why nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peftmark.advice import training_lines
from peftmark.advice.branches import ANY, Advice, Bounds, Group, Test
from peftmark.advice.guides import ADVICE
from peftmark.advice.rank_leaves import rank_leaves
from peftmark.advice.recommend import only, train_rows
from peftmark.advice.trade import MEMORY, Cost, fault, point, scores
from peftmark.analysis.comparison import pair_of
from peftmark.analysis.pareto import Point, costs_no_more, gain, log_ratio
from peftmark.analysis.scale import POINT, of_difference
from peftmark.analysis.stats import Comparison, seeds_to_decide
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.catalog.task import TaskKind
from peftmark.record.job import Job, Record
from peftmark.render import words

Word = Literal["agree", "disagree", "mixed", "not told apart", "not measured"]
Vote = Literal["for", "against", "open", "unknown"]
"""What a pair shows; open where it shows neither, unknown where it was not measured alike."""
NOT_OVER_ALL = "which is not shown once all pairs are judged together (Holm)"
MOST_PAIRS = 3
"""Pairs that are named."""

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
class Pair:
    """Two cells that an advice is held against.

    Attributes:
        first: the cell that the advice favours, by its title.
        second: the other.
        text: its figure in words.
        seeds: that both have.
    """

    first: str
    second: str
    vote: Vote
    text: str
    seeds: int

    @property
    def named(self) -> str:
        """Both, such as "QLoRA r8 to LoRA r8"."""
        return f"{self.first} to {self.second}"


@dataclass(frozen=True)
class Judged:
    """What the rows say to an advice.

    Attributes:
        why: the figures, or why nothing can be said.
        pairs: the pairs of cells that it rests on; none where nothing was measured.
    """

    word: Word
    why: str
    pairs: tuple[Pair, ...] = ()

    @property
    def seeds(self) -> str:
        """How many seeds the pairs have, such as "3 seeds"; empty without a pair."""
        counts = {pair.seeds for pair in self.pairs}
        return f"{words.span(counts)} seed{'' if counts == {1} else 's'}" if counts else ""


def judged(table: ResultTable) -> tuple[tuple[Advice, Judged], ...]:
    """Every branch of every guide with what the rows say, ranks of the rule among them."""
    return tuple((one, judge(table, one)) for one in (*rank_leaves(table), *ADVICE))


def judge(table: ResultTable, advice: Advice) -> Judged:
    """Hold an advice against the rows.

    Every pair of cells that the test names is compared on the tasks with the test's number of
    training rows. agree: all pairs show what the advice implies. disagree: all show the opposite.
    mixed: some show one, some the other. not measured: there is no such task, pair or figure, or
    none that was trained alike. not told apart: anything else.
    """
    test = advice.test
    if test is None:
        return Judged("not measured", advice.reason)
    low, high = test.rows
    spans = {t: train_rows(table, t) for t in table.tasks}
    tasks = [
        t
        for t, span in spans.items()
        if span and low <= span[0] and span[1] < high and _is_of(table, t, test.kinds)
    ]
    if not tasks:
        return Judged("not measured", _no_task(test))
    part = only(table, tasks)
    cost = COSTS.get(test.figure)
    if cost is None and (why := _no_scale(part, test)):
        return Judged("not measured", why)
    if cost is not None and (problem := fault(part, cost)):
        return Judged("not measured", f"{cost.title}: {problem}")
    pairs = [
        (a, b)
        for a in _of(part, test.better)
        for b in _of(part, test.than)
        if a != b and all(getattr(a, f) == getattr(b, f) for f in test.alike)
    ]
    if test.share is not None:
        pairs = [pair for pair in pairs if all(_has_share(part, c, test.share) for c in pair)]
    if not pairs:
        return Judged("not measured", _no_pair(test))
    return _count([_pair(part, a, b, test, cost) for a, b in pairs])


def _is_of(table: ResultTable, task: str, kinds: Sequence[TaskKind]) -> bool:
    known = table.example(task).known_task
    return not kinds or (known is not None and known.kind in kinds)


def _no_task(test: Test) -> str:
    if test.kinds and test.rows == ANY:
        return f"no {words.listing(test.kinds)} task here"
    low, high = test.rows
    rows = f"fewer than {high:,.0f}" if low == 0 else f"more than {low - 1:,.0f}"
    return f"no task here has {rows} training rows"


def _no_pair(test: Test) -> str:
    # Every test that holds the size still is one of ranks.
    same = ("rank" if name == "size" else name for name in test.alike)
    alike = f" of the same {' and '.join(same)}" if test.alike else ""
    size = _share_text(test.share) if test.share else ""
    return f"needs {test.better.title} and {test.than.title}{alike}{size}; not measured here"


def _share_text(share: Bounds) -> str:
    low, high = share
    return f", both {'above' if low else 'within'} {low or high:.1%} of the base"


def _of(table: ResultTable, group: Group) -> list[Cell]:
    low, high = group.ranks or (0, float("inf"))
    return [
        cell
        for cell in table.cells
        if cell.method in group.methods
        and group.quantized in (None, cell.quantization != "none")
        and (group.ranks is None or (cell.size is not None and low <= cell.size <= high))
        and all(_has_options(s.job, group) for s in table.of(cell))
        and scores(table, cell)
    ]


def _has_options(job: Job, group: Group) -> bool:
    return all(job.recipe.options.get(name) == value for name, value in group.options)


def _has_share(table: ResultTable, cell: Cell, share: Bounds) -> bool:
    """Whether every run's adapter has such a share of the base's parameters."""
    runs = [s.record.outcome for s in table.of(cell) if s.ok and s.record is not None]
    found = [
        o.adapter_parameters / (o.total_parameters - o.adapter_parameters)
        for o in runs
        if o.adapter_parameters is not None and o.total_parameters is not None
    ]
    return len(found) == len(runs) > 0 and share[0] < min(found) and max(found) <= share[1]


def _pair(table: ResultTable, a: Cell, b: Cell, test: Test, cost: Cost | None) -> Pair:
    vote, text = _vote(table, a, b, test, cost)
    seeds = {s.job.seed for s in table.of(a) if s.ok} & {s.job.seed for s in table.of(b) if s.ok}
    return Pair(words.title(a), words.title(b), vote, text, len(seeds))


def _vote(table: ResultTable, a: Cell, b: Cell, test: Test, cost: Cost | None) -> tuple[Vote, str]:
    """What one pair shows, and its figure in words."""
    if cost is None:
        found = gain(scores(table, a), scores(table, b))
        if found is None:
            return "unknown", "no seed in common"
        text = _difference(found.within(of_difference(table.scale.limits)), table.scale.in_points)
        if saw := training_lines.saw_beside(table, a, b):
            # What trained longer would win by that alone: nothing is shown of the methods.
            return "unknown", f"{text}, but it {saw}"
        drop = test.drop * POINT
        vote = _score_vote(table, a, b, found, drop)
        e = found.estimate
        if vote == "open" and found.se is not None and not e.low <= -drop <= e.high:
            text = f"{text}, {NOT_OVER_ALL}"
        return vote, text
    mine, theirs = point(table, a, cost), point(table, b, cost)
    if mine is None or theirs is None:
        return "unknown", f"{cost.title} not recorded on every task"
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
    wanted = f", {words.seeds_that_decide(seeds)}" if seeds else ""
    return f"{value}{half}{noun}{wanted}"


def _count(pairs: list[Pair]) -> Judged:
    counts = Counter(pair.vote for pair in pairs)
    word: Word = "not told apart"
    if counts["for"] == len(pairs):
        word = "agree"
    elif counts["against"] == len(pairs):
        word = "disagree"
    elif counts["unknown"] == len(pairs):
        word = "not measured"
    elif counts["for"] and counts["against"]:
        word = "mixed"
    if len(pairs) == 1:
        return Judged(word, f"{pairs[0].named}: {pairs[0].text}", tuple(pairs))
    names = "; ".join(pair.named for pair in pairs[:MOST_PAIRS])
    more = f" and {len(pairs) - MOST_PAIRS} more" if len(pairs) > MOST_PAIRS else ""
    if word in ("agree", "disagree"):
        return Judged(word, f"in all {len(pairs)} pairs of cells ({names}{more})", tuple(pairs))
    shown = f"shown in {counts['for']} of {len(pairs)} pairs of cells, the opposite in "
    told = f"{shown}{counts['against']} ({names}{more})"
    return Judged(word, told, tuple(pairs))
