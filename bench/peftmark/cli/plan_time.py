"""What `peftmark plan` says of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftmark.catalog.methods import cell_title
from peftmark.cli.shared import tell_timing, waiting_text
from peftmark.render.plain_table import aligned

if TYPE_CHECKING:
    from peftmark.duration.estimates import Estimate, Key
    from peftmark.run.runner import Plan

REMEDY = "`peftmark doctor --calibrate` measures it once, in some 20 seconds"


@dataclass(frozen=True)
class Times:
    """What the jobs of a plan take on this machine.

    Attributes:
        found: cell, task and purpose -> the estimate.
        total: seconds until those of the jobs that would run have ended whose time is known.
        unknown: reasons why a job's time isn't known -> number of jobs.
    """

    plan: Plan
    found: Mapping[Key, Estimate]
    total: float
    unknown: Mapping[str, int]


def times_of(plan: Plan) -> Times:
    """Predict what the jobs of a plan take here."""
    from peftmark.duration.estimates import corrected, key_of, wall_seconds
    from peftmark.duration.rates import known
    from peftmark.run.expected import expected

    found = expected(plan, known(plan.places.cache), tell_timing)
    found = corrected(found, plan.contents.records.values())
    told = [found[key_of(job)] for job in plan.to_run]
    seconds = [one.seconds for one in told if one.seconds is not None]
    unknown: dict[str, int] = {}
    for one in told:
        if one.seconds is None:
            unknown[one.reason] = unknown.get(one.reason, 0) + 1
    return Times(plan, found, wall_seconds(seconds, plan.venue.at_once), unknown)


def time_lines(times: Times) -> Iterator[str]:
    """A table of cells and tasks, and how long the jobs take that would run."""
    from peftmark.duration.estimates import UNCALIBRATED

    plan = times.plan
    yield ""
    if UNCALIBRATED in times.unknown and not any(e.seconds for e in times.found.values()):
        yield f"Time: {UNCALIBRATED}; {REMEDY}."
        return
    yield (
        "Time of a job on this machine, predicted from the work of its steps and the rates of "
        "this machine"
    )
    yield "(docs/time.md); * where such jobs have run here, the median of what they took."
    yield ""
    report = {key: one for key, one in times.found.items() if key[2] == "report"}
    yield from _table(report or times.found)
    for why, count in times.unknown.items():
        yield f"  Not known for {count} of {len(plan.to_run)} jobs to run: {why}."
    count = len(plan.to_run) - sum(times.unknown.values())
    if count:
        others = " without those" if times.unknown else ""
        yield (
            f"  {count} jobs to run, {plan.venue.at_once} at once: about "
            f"{_clock(times.total)}{others}{waiting_text(plan)}."
        )


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
    return f"{_clock(one.seconds)}{'*' if one.measured is not None else ''}"


def _clock(seconds: float) -> str:
    from peftmark.run.progress import clock

    return clock(seconds)


def time_facts(times: Times | None) -> dict[str, Any] | None:
    """The same as plain data; None where nobody asked."""
    if times is None:
        return None
    return {
        "total_seconds": times.total,
        "at_once": times.plan.venue.at_once,
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
            }
            for (cell, task, purpose), one in times.found.items()
        ],
    }
