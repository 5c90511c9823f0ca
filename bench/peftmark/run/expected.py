"""How long the jobs of a plan are expected to take on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from peftmark.duration.cards import card_of, measured_card
from peftmark.duration.estimates import Estimate, estimates
from peftmark.duration.rates import calibrated, known
from peftmark.machine import nvml
from peftmark.run.own_models import shapes_of
from peftmark.sources.own_cache import keep_own

if TYPE_CHECKING:
    from peftmark.duration.estimates import Key
    from peftmark.duration.jobs import Costs
    from peftmark.run.runner import Plan


def costs_here(plan: Plan) -> Costs | None:
    """What operations cost where the jobs of a plan run; None if nobody measured it. Of several
    GPUs the first stands for all."""
    if plan.venue.device == "cpu":
        return known(plan.places.cache)
    found = nvml.devices().found
    return card_of(plan.places.cache, found[0]) if found else None


def measured_costs(plan: Plan) -> Costs:
    """The same, measured now.

    Raises:
        UserError: nothing could be measured.
    """
    if plan.venue.device == "cpu":
        return calibrated(plan.places.cache)
    return measured_card(plan.places.cache, nvml.devices().found[0])


def expected(
    plan: Plan,
    costs: Costs | None,
    heard: Callable[[int, int], None] = lambda done, total: None,
    only_kept: bool = False,
) -> dict[Key, Estimate]:
    """An estimate for every cell, task and purpose of a plan, on the device that the costs are of.

    Rows of the user's own are kept in the cache first, as before a run: the process that looks at
    their lengths reads them there. Of a model of the user's own that no run has read yet, nothing
    is predicted: its weights are read once, and not for a plan.

    Args:
        costs: of the device; None if they aren't known.
        heard: told how many of how many steps are predicted.
        only_kept: start no process; what the cache doesn't hold has a reason instead.
    """
    jobs = plan.jobs
    if costs is not None:
        jobs = [replace(job, device=costs.device) for job in jobs]
        for rows in plan.own_rows.values():
            keep_own(rows.data, plan.places.cache)
    return estimates(jobs, costs, plan.places, shapes_of(plan.own_files), heard, only_kept)
