"""The learning rate that trials find best for one cell over that of another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from peftmark.analysis.stats import geometric_mean
from peftmark.analysis.table import Slot
from peftmark.catalog.methods import Cell, cell_title
from peftmark.catalog.metrics import sign_of
from peftmark.claims.comparisons import BestRate
from peftmark.claims.evidence import Evidence
from peftmark.claims.judging import direction_of, fits
from peftmark.claims.ledger import ClaimTest
from peftmark.claims.part import Part

FEWEST_SEEDS = 2
"""Seeds of trials: of one alone nobody knows how far the best rate moves with the seed."""

TOLD = ("ok", "diverged")
"""Statuses of trials that say something of their rate."""

Best = tuple[float, float, float]
"""A best rate, and between which rates it lies: itself twice, but infinite at the highest of the
grid and 0 at the lowest, since a better one may lie beyond."""


def judge_rates(test: ClaimTest, evidence: Evidence) -> Part:
    """The verdict on a ratio of best rates that belongs to the profile of the evidence.

    For each task and seed of the trials the best rate is the one whose trial as long as a reported
    run scores best on the selection rows. The claim is reproduced if every ratio of best rates of
    one task and seed fits, contradicted if none does. A grid's ends stand for all that lies beyond.
    """
    compared = test.best_rate
    assert compared is not None
    if lacking := evidence.lacks(test):
        return Part(test, "not comparable", reason=lacking)
    tasks = tuple(task for task in evidence.tasks if task in (test.tasks or evidence.tasks))
    slots = {
        (cell, task): [s for s in evidence.trials if (s.job.cell, s.job.task) == (cell, task)]
        for cell in test.cells
        for task in tasks
    }
    jobs = tuple(s.job.job_id for found in slots.values() for s in found if s.record is not None)
    base = Part(test, "undecided", tasks=tasks, jobs=jobs)
    if fault := next(filter(None, (_fault(cell, found) for (cell, _), found in slots.items())), ""):
        return replace(base, kind="not comparable", reason=fault)
    if holes := _holes(slots):
        run = f"peftmark run {evidence.suite} --profile {evidence.profile}"
        return replace(base, reason=holes, settle=run)
    best = {key: _best(_whole(found)) for key, found in slots.items()}
    pairs = {
        (task, seed): (best[test.cells[0], task][seed], best[test.cells[1], task][seed])
        for task in tasks
        for seed in best[test.cells[0], task].keys() & best[test.cells[1], task].keys()
    }
    seeds = min((sum(t == task for t, _ in pairs) for task in tasks), default=0)
    if seeds < FEWEST_SEEDS:
        reason = f"the trials share {seeds} seeds in which rates scored, at least {FEWEST_SEEDS}"
        return replace(base, reason=f"{reason} are needed", seeds=seeds, settle="trials on seeds")
    return _verdict(replace(base, seeds=seeds), compared, list(pairs.values()))


def _fault(cell: Cell, found: Sequence[Slot]) -> str:
    """Why trials say nothing of a cell's best rate; empty if they do."""
    name = cell_title(*cell)
    if own := sorted({s.job.task_title for s in found if s.job.own is not None}):
        return f"a claim is of published data, and here are rows of {' and '.join(own)}"
    if not found:
        return f"the profile tries no learning rates for {name}"
    rates = {s.job.recipe.learning_rate for s in found}
    tried = Counter(s.job.seed for s in _whole(found))
    if any(count != len(rates) for count in tried.values()):
        return (
            f"not every rate of {name} was trained at whole length on every seed, or something "
            "else was tuned too"
        )
    return "" if len(rates) > 2 else f"fewer than three rates were tried for {name}"


def _whole(found: Sequence[Slot]) -> list[Slot]:
    """The trials as long as a reported run: no others of the cell and task are longer."""
    longest = max(s.job.recipe.steps for s in found)
    return [s for s in found if s.job.recipe.steps == longest]


def _holes(slots: Mapping[tuple[Cell, str], Sequence[Slot]]) -> str:
    """Which trials are not there, in words; empty if all are."""
    missing: Counter[Cell] = Counter()
    for (cell, _), found in slots.items():
        missing[cell] += sum(s.status not in TOLD for s in found)
    return "; ".join(f"{cell_title(*c)} lacks {n} trials" for c, n in missing.items() if n)


def _best(found: Sequence[Slot]) -> dict[int, Best]:
    """Seed of trials at whole length -> the best rate, where one scored; the lowest of equals."""
    rates = sorted({s.job.recipe.learning_rate for s in found})
    sign = sign_of(found[0].job.metric)
    scores: dict[int, dict[float, float]] = {}
    for slot in found:
        if (value := slot.value(lambda record: record.outcome.metric_value)) is not None:
            scores.setdefault(slot.job.seed, {})[slot.job.recipe.learning_rate] = sign * value
    best: dict[int, Best] = {}
    for seed, by_rate in scores.items():
        rate = max(sorted(by_rate), key=lambda r: by_rate[r])
        low = 0.0 if rate == rates[0] else rate
        best[seed] = rate, low, math.inf if rate == rates[-1] else rate
    return best


def _verdict(base: Part, compared: BestRate, pairs: Sequence[tuple[Best, Best]]) -> Part:
    seen = [of[0] / to[0] for of, to in pairs]
    lows = [of[1] / to[2] if math.isfinite(to[2]) else 0.0 for of, to in pairs]
    highs = [of[2] / to[1] if to[1] and math.isfinite(of[2]) else math.inf for of, to in pairs]
    shown = fits(min(lows), max(highs), compared.limits)
    found = replace(
        base,
        kind="undecided" if shown is None else "reproduced" if shown else "contradicted",
        effect=geometric_mean(seen),
        low=min(seen),
        high=max(seen),
        exact=True,
    )
    at_edge = 0.0 in lows or math.inf in highs
    if at_edge:
        note = (
            "some best rates are the first or the last of their grid, so better ones may lie beyond"
        )
        found = replace(found, notes=(note,))
    if shown is None:
        reason = "a grid ends too early" if at_edge else "on some tasks or seeds alone it fits"
        settle = "a wider grid of rates" if at_edge else "more seeds of trials"
        return replace(found, reason=reason, settle=settle)
    return replace(found, direction=None if at_edge else direction_of(found, compared))
