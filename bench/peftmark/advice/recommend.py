"""From measured rows and constraints to the methods that fit them. Pure.

Nothing is extrapolated: a figure holds for the model, batch, length and machine it was measured
with. Where no row answers, the answer is "unknown" with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from peftmark.advice import plain_lines, rates_lines, shared_rows_lines, training_lines
from peftmark.advice.candidates import (
    Candidate,
    Wish,
    candidate,
    largest,
    points,
    seeds_wanted,
)
from peftmark.advice.money import MEANING, NAME
from peftmark.advice.trade import (
    MEMORY,
    TIME,
    Cost,
    Front,
    front,
    meters,
    score_of,
    scores,
)
from peftmark.analysis.floor import why_below
from peftmark.analysis.guess import Unbeaten, unbeaten
from peftmark.analysis.table import MEAN, ResultTable, build
from peftmark.catalog.methods import Cell, cell_title
from peftmark.core.amounts import size_text
from peftmark.render import words

Verdict = Literal["fits", "possible", "none fits", "unknown"]

NEAR = 3.0
"""Factor within which a number of training rows counts as near the one asked for."""


@dataclass(frozen=True)
class Answer:
    """What one set of rows (one suite, profile, model and device) says to a wish.

    Attributes:
        table: the rows that the answer rests on; of all tasks where none is near the wish.
        picks: cells that fit and that no cell that fits is shown to beat at no more cost; first
            those shown to keep the score, then by cost or, without an allowed drop, by score.
        others: the other cells.
        reasons: why there is no answer, as sentences.
        caveats: what the figures don't say, likewise.
        run: what would settle it.
        best: the cell with the highest mean score.
        cost: the cost that decided among cells that fit; None where it can't be compared.
        far: whether there is no answer because the rows are of another model, kind of task or
            number of training rows.
    """

    wish: Wish
    table: ResultTable
    verdict: Verdict
    picks: tuple[Candidate, ...] = ()
    others: tuple[Candidate, ...] = ()
    reasons: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    best: Cell | None = None
    cost: Cost | None = None
    far: bool = False

    @property
    def reduced(self) -> bool:
        """Whether the rows come from a profile of reduced scale."""
        return self.table.jobs[0].scale != "full"


def recommend(table: ResultTable, wish: Wish) -> Answer:
    """The answer of one table.

    Args:
        table: rows of one suite, profile, model and device; at least one job.
        wish: the constraints.
    """
    reasons, run, near = _near(table, wish)
    if near is None:
        return Answer(wish, table, "unknown", reasons=reasons, run=run, far=True)
    lost = unbeaten(near)
    nothing = [one.task for one in lost]
    part = only(near, [task for task in near.tasks if task not in nothing])
    if not part.tasks:
        told = plain_lines.no_gain(near)
        return Answer(wish, near, "unknown", reasons=(told,), run=(_LEARN_MORE,))
    if no_scale := _no_scale(part, wish):
        return Answer(wish, part, "unknown", reasons=(no_scale,), run=(_ONE_TASK,))
    best = _best(part)
    trained = [c for c in part.cells if c.trains and scores(part, c)]
    if best is None or not trained:
        ends = sorted({s.status.replace("_", " ") for s in part.slots})
        what = "cell" if best is None else "cell that trains"
        reason = f"No {what} finished every task ({', '.join(ends)})."
        again = f"peftmark run {part.jobs[0].suite} --profile {part.jobs[0].profile}"
        return Answer(wish, part, "unknown", reasons=(reason,), run=(again,))
    floor = why_below(part)
    found = [candidate(part, cell, best, wish, floor.get(cell, "")) for cell in part.cells]
    fitting = [c for c in found if c.fits]
    trade = front(part, wish.cost, [c.cell for c in fitting])
    picks, beaten = _sort(fitting, trade, wish)
    others = (*beaten, *(c for c in found if not c.fits))
    verdict, why, more = _verdict(part, picks, [c for c in others if c.trains], wish)
    notes = (*_left_out(lost), *_caveats(part, wish, trade))
    cost = None if trade.fault else wish.cost
    return Answer(wish, part, verdict, picks, others, why, notes, more, best, cost)


def recommend_all(tables: Sequence[ResultTable], wish: Wish) -> tuple[Answer, ...]:
    """The answers of several tables, those that know something first, then those with more jobs."""
    order: list[Verdict] = ["fits", "possible", "none fits", "unknown"]
    answers = [recommend(table, wish) for table in tables]
    return tuple(sorted(answers, key=lambda a: (order.index(a.verdict), -len(a.table.slots))))


def _left_out(lost: Sequence[Unbeaten]) -> tuple[str, ...]:
    """That tasks without any gain over a guess have no say, as a caveat."""
    if not lost:
        return ()
    names, who = words.listing([one.task for one in lost]), plain_lines.nobody(lost)
    return (f"Left out: {names}, where n{who[1:]} is shown to beat a constant guess.",)


_LEARN_MORE = "a profile with more seeds, or recipes that learn more"
_ONE_TASK = "peftmark recommend --task TASK, without --max-drop"


def _no_scale(table: ResultTable, wish: Wish) -> str:
    """Why scores can't be averaged, or a drop of them can't be given in points; may be empty."""
    if why := table.scale.why_none:
        return f"No score over all tasks: {why}."
    if wish.max_drop is None or table.scale.in_points:
        return ""
    return (
        f"A drop of {points(wish.max_drop)} means nothing where scores are the {table.scale.gain}: "
        "points are hundredths of a way that has an end."
    )


# --- which rows count ---------------------------------------------------------------------------


def train_rows(table: ResultTable, task: str) -> tuple[int, int] | None:
    """Fewest and most training rows that the ok runs of a task used; None where unknown."""
    used = [s.record.outcome.train_rows for s in table.of(task=task) if s.ok and s.record]
    known = [n for n in used if n is not None]
    return (min(known), max(known)) if known and len(known) == len(used) else None


def only(table: ResultTable, tasks: Sequence[str]) -> ResultTable:
    """The same table with some of its tasks."""
    if tuple(tasks) == table.tasks:
        return table
    jobs = [j for j in table.jobs if j.task in tasks]
    rows = [r for r in table.records.values() if r.job.task in tasks]
    return build(rows, jobs, table.reference)


def _near(
    table: ResultTable, wish: Wish
) -> tuple[tuple[str, ...], tuple[str, ...], ResultTable | None]:
    """The rows near the user's situation, or why there are none and what to run."""
    job = table.jobs[0]
    if wish.model and wish.model != job.model:
        return (
            (
                f"No row was measured with the model {wish.model}, only with {job.model}, and no "
                "figure carries over from one model to another.",
            ),
            (f"a profile with the model {wish.model} (peftmark list names suites and models)",),
            None,
        )
    tasks = [t for t in table.tasks if _is_kind(table, t, wish.task)]
    if not tasks:
        kinds = ", ".join(f"{t} ({kind_of(table, t)})" for t in table.tasks)
        return (
            (f"No row was measured on {wish.task}, only on {kinds}.",),
            (f"a profile with such a task (peftmark list): {wish.task}",),
            None,
        )
    if wish.rows is not None:
        used = {t: train_rows(table, t) for t in tasks}
        known = {t: span for t, span in used.items() if span is not None}
        low, high = wish.rows / NEAR, wish.rows * NEAR
        tasks = [t for t, (a, b) in known.items() if low <= a and b <= high]
        if not tasks:
            return (_no_rows(wish.rows, known),), (_run_rows(wish.rows),), None
    return (), (), only(table, tasks)


def kind_of(table: ResultTable, task: str) -> str:
    """The kind of a table's task, in a word."""
    known = table.example(task).known_task
    return known.kind if known is not None else "unknown kind"


def _is_kind(table: ResultTable, task: str, wanted: str) -> bool:
    return not wanted or wanted in (task, kind_of(table, task))


def _no_rows(wanted: int, known: Mapping[str, tuple[int, int]]) -> str:
    start = (
        f"No task was trained on about {wanted:,} rows (between {wanted / NEAR:,.0f} and "
        f"{wanted * NEAR:,.0f})"
    )
    if not known:
        return f"{start}; how many rows the runs used is not recorded."

    def away(task: str) -> float:
        a, b = known[task]
        return max(a / wanted, wanted / a, b / wanted, wanted / b)

    nearest = min(known, key=away)
    a, b = known[nearest]
    return f"{start}; the nearest is {nearest} with {f'{a:,}' if a == b else f'{a:,} to {b:,}'}."


def _run_rows(wanted: int) -> str:
    return (
        f"a profile whose recipe has train_rows near {wanted:,} (docs/suites.md), or leave out "
        "--rows to see what was measured"
    )


def _best(table: ResultTable) -> Cell | None:
    means = {c: score_of(v).mean for c in table.cells if (v := scores(table, c))}
    return max(means, key=lambda c: means[c]) if means else None


def _sort(
    fitting: Sequence[Candidate], trade: Front, wish: Wish
) -> tuple[tuple[Candidate, ...], tuple[Candidate, ...]]:
    """Picks and beaten ones, each in order."""
    by = {s.cell: s.by for s in trade.spots if s.standing == "off"}

    def order(c: Candidate) -> tuple[bool, bool, float, float]:
        score = -c.score.mean if c.score else 0.0
        figure = None if trade.fault else c.figures[wish.cost.key]
        cost = float("inf") if figure is None else figure
        return (
            (c.keeps == "possible", False, score, cost)
            if wish.max_drop is None
            else (c.keeps == "possible", not c.perhaps, cost, score)
        )

    picks = sorted((c for c in fitting if c.cell not in by), key=order)
    beaten = (replace(c, by=by[c.cell]) for c in fitting if c.cell in by)
    return tuple(picks), tuple(sorted(beaten, key=order))


# --- the verdict --------------------------------------------------------------------------------


def _verdict(
    table: ResultTable, picks: Sequence[Candidate], others: Sequence[Candidate], wish: Wish
) -> tuple[Verdict, tuple[str, ...], tuple[str, ...]]:
    if picks:
        sure = picks[0].keeps in ("best", "shown", "not asked")
        return ("fits", (), ()) if sure else ("possible", (), _more_seeds(picks, wish))
    known = [c.largest["memory"] for c in others if c.score is not None]
    smallest = _smallest(others, MEMORY)
    if wish.memory and smallest and all(v is not None and v > wish.memory for v in known):
        value, title = smallest
        reason = (
            f"No cell was measured within {wish.memory / 1e6:,.0f} MB ({size_text(wish.memory)}): "
            f"the smallest, {title}, took {size_text(value)}. What a smaller model, batch or "
            "length would take is not known."
        )
        return "unknown", (reason,), ("a profile with a smaller model, batch size or max_length",)
    open_ones = [c for c in others if c.unknown and not (c.over or c.low) and c.keeps != "dropped"]
    if open_ones:
        parts = "; ".join(f"{c.title}: {', '.join(c.unknown)}" for c in open_ones[:4])
        more = f"; and {len(open_ones) - 4} more" if len(open_ones) > 4 else ""
        return "unknown", (f"Not known of every cell: {parts}{more}.",), _run_again(table)
    return "none fits", tuple(_why_none(others, wish)), ()


def _run_again(table: ResultTable) -> tuple[str, ...]:
    job = table.jobs[0]
    return (f"peftmark run {job.suite} --profile {job.profile}",)


def _more_seeds(picks: Sequence[Candidate], wish: Wish) -> tuple[str, ...]:
    text = seeds_wanted(picks[0], wish)
    return (f"more seeds of {picks[0].title} and of the best cell{text}",)


def _smallest(found: Sequence[Candidate], cost: Cost) -> tuple[float, str] | None:
    """The smallest figure that a limit is held against, and whose it is; None if none is known."""
    known = [(v, c.title) for c in found if (v := c.largest[cost.key]) is not None]
    return min(known, default=None)


def _why_none(found: Sequence[Candidate], wish: Wish) -> list[str]:
    """One sentence for each constraint that rules cells out."""
    reasons = []
    for key, limit in wish.limits.items():
        cost = wish.costs[key]
        over = [c for c in found if (v := c.largest[key]) is not None and v > limit]
        least = _smallest(found, cost)
        if over and least:
            reasons.append(
                f"{len(over)} of {len(found)} cells are over the limit of {cost.text(limit)} of "
                f"{cost.title}; the least is {least[1]} with {cost.text(least[0])}."
            )
    lost = [c for c in found if c.keeps == "dropped"]
    if lost:
        reasons.append(
            f"{len(lost)} of {len(found)} cells are shown to lose more than "
            f"{points(wish.max_drop or 0)}."
        )
    if low := [c for c in found if c.low]:
        reasons.append(
            f"{len(low)} of {len(found)} cells are below the quality floor: less than half of the "
            "way from a constant guess to the best mean, or not shown above the guess."
        )
    return reasons


def _caveats(table: ResultTable, wish: Wish, trade: Front) -> tuple[str, ...]:
    job = table.jobs[0]
    model = job.model_name
    trained = [s for s in table.slots if s.job.cell.trains] or table.slots
    recipes = [s.job.recipe for s in trained]
    rows, tokens = (
        words.span(getattr(r, name) for r in recipes) for name in ("batch_size", "max_length")
    )
    notes = [
        f"Figures hold for {model}, batches of {rows} rows and {tokens} tokens at most; a larger "
        "model, batch or length needs more."
    ]
    if table.averaged != MEAN:
        way = "; a point is 0.01 of that way" if table.scale.in_points else ""
        notes.append(f"Scores are the {table.averaged}{way}.")
    if table.scale.left_out:
        names = ", ".join(table.scale.left_out)
        notes.append(f"Left out of scores: {names}, whose metric has no best possible value.")
    if wish.memory is not None:
        notes.append(_memory_note(table, wish.memory))
    if wish.seconds is not None:
        where = "; ".join(meters(table, TIME)) or "a machine not recorded"
        notes.append(
            f"Training time is wall time of the timed steps on {where}, not of yours; loading and "
            "evaluation come on top."
        )
    if wish.price is not None:
        notes.append(f"{NAME}: {wish.price.text} of {MEANING}.")
    if trade.missing:
        names = ", ".join(cell_title(*cell) for cell in trade.missing)
        notes.append(f"Not recorded on every task: {trade.cost.title} of {names}.")
    if trade.fault:
        notes.append(f"Cells are not compared by {trade.cost.title}: {trade.fault}.")
    told = (shared_rows_lines, training_lines, rates_lines)
    notes += filter(None, (lines.sentence(table) for lines in told))
    several = len({s.job.seed for s in table.slots if s.ok}) > 1
    notes.append(
        "Intervals are plain 95 % ones, and what is called shown holds for all pairs together "
        "(Holm); they hold for these tasks and other seeds, not for other tasks."
        if several
        else "One seed has no interval: other seeds may order cells differently."
    )
    return tuple(notes)


def _memory_note(table: ResultTable, limit: float) -> str:
    known = [v for c in table.cells if (v := largest(table, c, MEMORY)) is not None]
    source = "; ".join(meters(table, MEMORY)) or "a meter not recorded"
    text = (
        f"Peak memory was read from {source} (docs/columns.md); libraries and caches of a process "
        "come on top."
    )
    if known and max(known) <= limit:
        text += (
            f" The limit rules out no measured cell (the largest took {size_text(max(known))}), so "
            "the rows say nothing about how large a model it holds."
        )
    return text
