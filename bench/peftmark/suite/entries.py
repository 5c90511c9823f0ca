"""The method entries of a profile, with the grids that its `tuning.around` gives them."""

from __future__ import annotations

from peftmark.catalog.methods import method_of
from peftmark.suite.schema import MethodEntry, Profile, SuiteFile
from peftmark.suite.schema_runs import rates_around


def entries_of(suite: SuiteFile, profile: Profile) -> list[MethodEntry]:
    """A profile's method entries, each as it is tried.

    Where the profile's tuning says `around`, an entry without a grid gets the learning rates around
    the one that its recipe sets. Where the rate is a task's there is no such one, and no grid.
    """
    entries = profile.methods or suite.methods
    factors = profile.tuning.around if profile.tuning is not None else None
    if factors is None:
        return entries
    by_task = any(task.recipe.learning_rate is not None for task in profile.tasks.values())
    found = []
    for entry in entries:
        method = method_of(entry.method)
        rate = entry.recipe.learning_rate or profile.recipe.learning_rate
        rate = rate or suite.recipe.learning_rate
        own_task = any(layer.learning_rate is not None for layer in entry.task_recipe.values())
        trains = method is not None and method.trains
        if entry.grid or rate is None or not trains or own_task or by_task:
            found.append(entry)
            continue
        rates = rates_around(rate, factors)
        found.append(entry.model_copy(update={"learning_rates": rates}))
    return found
