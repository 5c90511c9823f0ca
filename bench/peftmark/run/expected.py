"""How long the jobs of a plan are expected to take on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from peftmark.core.errors import UserError
from peftmark.duration.cards import card_of, measured_card
from peftmark.duration.estimates import Estimate, Key, estimates, key_of
from peftmark.duration.rates import calibrated, known
from peftmark.duration.shapes import NOT_YET
from peftmark.machine import nvml
from peftmark.machine.accelerators import kind_of
from peftmark.memory.forecast import NOT_YET as FORECAST_NOT_YET
from peftmark.run.own_models import shapes_of
from peftmark.sources.own_cache import keep_own

if TYPE_CHECKING:
    from peftmark.duration.jobs import Costs
    from peftmark.record.job import Record
    from peftmark.run.runner import Plan


def costs_here(plan: Plan) -> Costs | None:
    """What operations cost where the jobs of a plan run; None if nobody measured it. Of several
    GPUs the first stands for all."""
    if unpredicted(plan):
        return None
    if plan.venue.device == "cpu":
        return known(plan.places.cache)
    found = nvml.devices().found
    return card_of(plan.places.cache, found[0]) if found else None


def unpredicted(plan: Plan) -> str:
    """Why neither memory nor time is predicted where the jobs of a plan run; empty if they are."""
    device = plan.venue.device
    return "" if device == "cpu" else kind_of(device).unpredicted


def measured_costs(plan: Plan) -> Costs:
    """The same, measured now.

    Raises:
        UserError: nothing could be measured, or nothing is predicted of the device.
    """
    if why := unpredicted(plan):
        raise UserError(
            f"how long jobs take on {kind_of(plan.venue.device).title} is not predicted: {why}",
            "Leave out what asks for it, such as --hours.",
        )
    if plan.venue.device == "cpu":
        return calibrated(plan.places.cache)
    return measured_card(plan.places.cache, nvml.devices().found[0])


NOT_PLANNED = "not predicted on this machine yet: `peftmark plan` does"


def known_predictions(plan: Plan) -> dict[Key, Estimate]:
    """What is known at once of the time of a plan's jobs, before any of them ran; with a reason
    where nothing is."""
    if not plan.slots:
        return {}
    found = expected(plan, costs_here(plan), only_kept=True)
    return {
        key: replace(one, reason=NOT_PLANNED) if one.reason in (NOT_YET, FORECAST_NOT_YET) else one
        for key, one in found.items()
    }


def with_prediction(record: Record, known: Mapping[Key, Estimate]) -> Record:
    """The row with what its job was predicted to take, or why that isn't known."""
    one = known.get(key_of(record.job))
    if one is not None and one.predicted is not None:
        return replace(record, predicted_seconds=round(one.predicted, 3))
    why = one.reason if one is not None else "nothing is predicted of a cluster's nodes"
    reasons = record.outcome.null_reasons | {"predicted_seconds": why}
    return replace(record, outcome=replace(record.outcome, null_reasons=reasons))


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
    jobs = [*plan.jobs, *plan.expanded.waits]
    if costs is None and (why := unpredicted(plan)):
        return {key_of(job): Estimate(reason=why) for job in jobs}
    if costs is not None:
        # One of each kind: ten thousand jobs of a plan share a few predictions.
        one_each = {key_of(job): job for job in jobs}
        jobs = [replace(job, device=costs.device) for job in one_each.values()]
        for rows in plan.own_rows.values():
            keep_own(rows.data, plan.places.cache)
    return estimates(jobs, costs, plan.places, shapes_of(plan.own_files), heard, only_kept)
