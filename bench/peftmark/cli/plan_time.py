"""What `peftmark plan` says of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftmark.catalog.methods import cell_title
from peftmark.cli.shared import tell_timing, waiting_text
from peftmark.core.amounts import money_text
from peftmark.render.plain_table import aligned

if TYPE_CHECKING:
    from peftmark.core.amounts import Price
    from peftmark.duration.cards import Card
    from peftmark.duration.estimates import Estimate, Key
    from peftmark.machine.gpus import Device
    from peftmark.run.runner import Plan

REMEDY = "`peftmark doctor --calibrate` measures it once, in some 20 seconds"


@dataclass(frozen=True)
class Times:
    """What the jobs of a plan take.

    Attributes:
        found: cell, task and purpose -> the estimate.
        total: seconds until those of the jobs that would run have ended whose time is known.
        unknown: reasons why a job's time isn't known -> number of jobs.
        at_once: jobs at the same time.
        card: the GPU that they are planned for, or that this machine has; None for its CPU.
        later: seconds of jobs that wait for trials; None without any, or if no time is known.
    """

    plan: Plan
    found: Mapping[Key, Estimate]
    total: float
    unknown: Mapping[str, int]
    at_once: int
    card: Card | None = None
    later: float | None = None


def times_of(
    plan: Plan,
    target: Device | None = None,
    jobs: int | None = None,
    only_kept: bool = False,
) -> Times | None:
    """Predict what the jobs of a plan take, here or on a GPU; None where they would run on a
    cluster, of whose nodes nothing is known.

    Args:
        target: the GPU; None for this machine.
        jobs: at the same time on the target; None for one.
        only_kept: take what the cache holds alone, at once.
    """
    from peftmark.duration.cards import CARDS, Card
    from peftmark.duration.estimates import Estimate, corrected, key_of, wall_seconds
    from peftmark.run.expected import costs_here, expected

    if target is None and not plan.slots:
        return None
    costs = costs_here(plan) if target is None else CARDS.get(target.key)
    if target is not None and costs is None:
        reason = f"no rates are known of {target.title}"
        found = {key_of(job): Estimate(reason=reason) for job in plan.jobs}
    else:
        heard = (lambda done, total: None) if only_kept else tell_timing
        found = expected(plan, costs, heard, only_kept)
    if target is None:
        found = corrected(found, plan.contents.records.values())
    at_once = plan.venue.at_once if target is None else jobs or 1
    told = [found[key_of(job)] for job in plan.to_run]
    seconds = [one.seconds for one in told if one.seconds is not None]
    unknown: dict[str, int] = {}
    for one in told:
        if one.seconds is None:
            unknown[one.reason] = unknown.get(one.reason, 0) + 1
    return Times(
        plan,
        found,
        wall_seconds(seconds, at_once),
        unknown,
        at_once,
        costs if isinstance(costs, Card) else None,
        _later(plan, found, at_once),
    )


def _later(plan: Plan, found: Mapping[Key, Estimate], at_once: int) -> float | None:
    """Seconds of the jobs that wait for trials; None without any, or if no time is known."""
    from peftmark.duration.estimates import key_of, wall_seconds

    told = [found[key_of(job)].seconds for job in plan.expanded.waits]
    known = [seconds for seconds in told if seconds is not None]
    return wall_seconds(known, at_once) if known else None


def time_lines(times: Times, price: Price | None = None) -> Iterator[str]:
    """A table of cells and tasks, and how long the jobs take that would run.

    Args:
        price: what an hour costs; None to say nothing of it.
    """
    from peftmark.duration.estimates import UNCALIBRATED

    plan = times.plan
    yield ""
    if UNCALIBRATED in times.unknown and not any(e.seconds for e in times.found.values()):
        yield f"Time: {UNCALIBRATED}; {REMEDY}."
        return
    yield from _head(times.card)
    yield ""
    report = {key: one for key, one in times.found.items() if key[2] == "report"}
    yield from _table(report or times.found)
    for why in dict.fromkeys(one.at_most for one in times.found.values() if one.at_most):
        yield f"  ≤ rows taken as long as the recipe lets them be: {why}."
    for why, count in times.unknown.items():
        yield f"  Not known for {count} of {len(plan.to_run)} jobs to run: {why}."
    count = len(plan.to_run) - sum(times.unknown.values())
    if count:
        others = " without those" if times.unknown else ""
        then = waiting_text(plan)
        if times.later is not None:
            then += f", about {_clock(times.later)} more"
        yield (
            f"  {count} jobs to run, {times.at_once} at once: about "
            f"{_clock(times.total)}{others}{then}."
        )
        if price is not None:
            money = price.hour * (times.total + (times.later or 0.0)) / 3600
            yield f"  At {price.text} that is about {money_text(money, price.currency)}."


def _head(card: Card | None) -> Iterator[str]:
    if card is None:
        yield (
            "Time of a job on this machine, predicted from the work of its steps and the rates of "
            "this machine"
        )
        yield "(docs/time.md); * where such jobs have run here, the median of what they took."
        return
    yield (
        f"Time of a job on one {card.title}, predicted from the work of its steps and the card's "
        f"rates ({card.source};"
    )
    yield "no run of peftmark on it was compared with it: docs/time.md)."


def _table(found: Mapping[Key, Estimate]) -> Iterator[str]:
    tasks = list(dict.fromkeys(task for _, task, _ in found))
    rows = []
    for cell in dict.fromkeys(cell for cell, _, _ in found):
        of_cell = {task: one for (other, task, _), one in found.items() if other == cell}
        rows.append([cell_title(*cell), *(_shown(of_cell.get(task)) for task in tasks)])
    yield from (f"  {line}" for line in aligned(["cell", *tasks], rows, range(1, len(tasks) + 1)))


def _shown(one: Estimate | None) -> str:
    if one is None or one.seconds is None:
        return "?"
    if one.measured is not None:
        return f"{_clock(one.seconds)}*"
    return f"{'≤' if one.at_most else ''}{_clock(one.seconds)}"


def _clock(seconds: float) -> str:
    from peftmark.run.progress import clock

    return clock(seconds)


def known_time(plan: Plan) -> str:
    """How long the jobs to run take here, as far as the cache tells all of it; empty if not."""
    times = times_of(plan, only_kept=True)
    if times is None or times.unknown or not plan.to_run:
        return ""
    if plan.expanded.waiting and times.later is None:
        return ""
    return f"about {_clock(times.total + (times.later or 0.0))}"


def time_facts(times: Times | None) -> dict[str, Any] | None:
    """The same as plain data; None where nobody asked."""
    if times is None:
        return None
    return {
        "total_seconds": times.total,
        "later_seconds": times.later,
        "at_once": times.at_once,
        "card": None if times.card is None else times.card.title,
        "unknown": dict(times.unknown),
        "jobs": [
            {
                "cell": cell.stored,
                "task": task,
                "purpose": purpose,
                "seconds": one.seconds,
                "predicted_seconds": one.predicted,
                "measured_seconds": one.measured,
                "phases": one.phases,
                "reason": one.reason,
                "at_most": one.at_most,
            }
            for (cell, task, purpose), one in times.found.items()
        ],
    }
