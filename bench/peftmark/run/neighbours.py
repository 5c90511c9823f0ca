"""The profiles next in size to the one of a plan, and what each would take here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftmark.core.errors import UserError
from peftmark.duration.estimates import estimates, key_of, wall_seconds
from peftmark.run.expected import costs_here
from peftmark.run.progress import clock
from peftmark.suite.expand import Expanded, expand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftmark.record.job import Job
    from peftmark.run.runner import Plan


@dataclass(frozen=True)
class Neighbour:
    """A profile beside another.

    Attributes:
        times: its work over that of the other: steps, rows, tokens and parameters multiplied.
        seconds: until its jobs end here, from none; None where the cache doesn't tell.
        asks: what has to be said or be there for it to run; empty for nothing.
    """

    name: str
    times: float
    seconds: float | None
    asks: str

    @property
    def text(self) -> str:
        """Such as "gpu (about 27:10, needs a GPU)"."""
        if self.seconds is not None:
            takes = f"about {clock(self.seconds)}"
        else:
            takes = f"{self.times:,.2g} times the work"
        return f"{self.name} ({', '.join(filter(None, [takes, self.asks]))})"


def neighbours_text(plan: Plan) -> str:
    """The next smaller profile of a plan's suite and the next larger one, in a sentence each; empty
    if it has no other of more or less work whose jobs are known."""
    if len(plan.suite.profiles) == 1:
        return ""
    own = _work(plan, plan.expanded)
    found = []
    for name in plan.suite.profiles:
        if name != plan.profile and (one := _neighbour(plan, name, own)) is not None:
            found.append(one)
    smaller = max((one for one in found if one.times < 1), key=lambda one: one.times, default=None)
    larger = min((one for one in found if one.times > 1), key=lambda one: one.times, default=None)
    told = [
        f"{which}: {one.text}."
        for which, one in (("Next smaller", smaller), ("Next larger", larger))
        if one is not None
    ]
    return " ".join(told)


def _neighbour(plan: Plan, name: str, own: float) -> Neighbour | None:
    try:
        expanded = expand(plan.suite, name, plan.venue.device)
    except (UserError, KeyError):
        return None  # of models and tasks of the user's own that nobody has read
    work = _work(plan, expanded)
    if not work or not own:
        return None
    return Neighbour(name, work / own, _seconds(plan, expanded), _asks(plan, name))


def _work(plan: Plan, expanded: Expanded) -> float:
    """Steps, rows, tokens and parameters multiplied."""
    return sum(
        job.recipe.steps
        * job.recipe.batch_size
        * job.recipe.max_length
        * plan.suite.model(job.model).parameters
        for job in (*expanded.jobs, *expanded.waits)
    )


def _seconds(plan: Plan, expanded: Expanded) -> float | None:
    jobs: Sequence[Job] = [*expanded.jobs, *expanded.waits]
    if not plan.slots:
        return None
    found = estimates(jobs, costs_here(plan), plan.places, only_kept=True)
    known = [seconds for job in jobs if (seconds := found[key_of(job)].seconds) is not None]
    return wall_seconds(known, plan.venue.workers) if len(known) == len(jobs) else None


def _asks(plan: Plan, name: str) -> str:
    profile = plan.suite.profiles[name]
    asked = []
    if profile.needs in ("gpu", "device") and plan.venue.device == "cpu":
        asked.append("for a GPU")
    if profile.needs in ("gpu", "data") and plan.places.mirror is None:
        asked.append("from the hub or a mirror")
    if profile.long:
        asked.append("only with --yes")
    return ", ".join(asked)
