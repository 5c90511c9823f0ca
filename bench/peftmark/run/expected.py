"""How long the jobs of a plan are expected to take on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peftmark.duration.estimates import Estimate, Key, estimates
from peftmark.run.own_models import shapes_of
from peftmark.sources.own_cache import keep_own

if TYPE_CHECKING:
    from peftmark.duration.rates import Rates
    from peftmark.run.runner import Plan


def expected(
    plan: Plan,
    rates: Rates | None,
    heard: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Key, Estimate]:
    """An estimate for every cell, task and purpose of a plan.

    Rows of the user's own are kept in the cache first, as before a run: the process that looks at
    their lengths reads them there. Of a model of the user's own that no run has read yet, nothing
    is predicted: its weights are read once, and not for a plan.

    Args:
        rates: of this machine; None if it isn't calibrated.
        heard: told how many of how many steps are predicted.
    """
    if rates is not None:
        for rows in plan.own_rows.values():
            keep_own(rows.data, plan.places.cache)
    return estimates(plan.jobs, rates, plan.places, shapes_of(plan.own_files), heard)
